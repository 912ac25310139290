// SPDX-License-Identifier: GPL-2.0
/*
 * Migrate a window, which is a part of one page table, without migration entries.
 * Tasks may read the pages while they are copied.
 *
 *  1. Write-protect the pages, and flush the TLB once.
 *  2. Skip pages with unexpected references. From here on, nobody writes to the
 *     others without a page fault, not even get_user_pages().
 *  3. Copy them.
 *  4. Freeze the reference counts, clear the entries, flush the TLB once, and map
 *     the copies.
 *
 * A task that writes to a page meanwhile makes the entry writable, as after any
 * write-protection. Then the page stays in place, and the copy is freed. KSM
 * checks references in the same way (write_protect_page() in mm/ksm.c), and NOMAD
 * copies before it unmaps, page by page between memory tiers (OSDI 2024).
 *
 * Invariant: an entry that is present, readable, clean and not writable in step
 * 4 has been so since step 2. Nobody else write-protects a page meanwhile: fork(2)
 * and mprotect(2) wait for the VMA, reclaim and KSM for the folio, which is
 * locked; VMAs with userfaultfd or soft-dirty tracking are left to page faults.
 * NUMA balancing makes an entry inaccessible, and the next fault, writable.
 */

#include <linux/cpuset.h>
#include <linux/hash.h>
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/memcontrol.h>
#include <linux/mempolicy.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/page_owner.h>
#include <linux/pgtable.h>
#include <linux/rmap.h>
#include <linux/sched.h>
#include <linux/sched/numa_balancing.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>

#include <asm/tlbflush.h>

#include "internal.h"
#include "knuma.h"

#define CREATE_TRACE_POINTS
#include <trace/events/knuma.h>

/**
 * knuma_window_allowed() - Check if pages of a VMA can be migrated as a window.
 * @vma:	VMA, locked for read
 *
 * Others are left to page faults. Without VM_WRITE, ptrace(2) writes through
 * entries that stay write-protected (FOLL_FORCE).
 *
 * Return: true if they can.
 */
bool knuma_window_allowed(struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma) && (vma->vm_flags & VM_WRITE) &&
	       !(vma->vm_flags & (VM_LOCKED | VM_PFNMAP | VM_MIXEDMAP | VM_SHADOW_STACK)) &&
	       !userfaultfd_armed(vma) && !vma_soft_dirty_enabled(vma);
}

/*
 * Has no other task had a hinting fault in a VMA? Of pids, vma_set_access_pid_bit()
 * keeps a hash of six bits, for some scans.
 */
static bool knuma_owns_vma(const struct task_struct *task, const struct vm_area_struct *vma)
{
	const struct vma_numab_state *state = READ_ONCE(vma->numab_state);
	unsigned long pids;

	if (!state)
		return false;
	pids = READ_ONCE(state->pids_active[0]) | READ_ONCE(state->pids_active[1]);

	return pids == BIT(hash_32(task->pid, ilog2(BITS_PER_LONG)));
}

/*
 * Is the task the only one that uses an address space? Tasks that look at the address
 * space through /proc hold references to mm_users, so do not read mm_users.
 */
bool knuma_alone(struct task_struct *task, struct mm_struct *mm)
{
	return data_race(get_nr_threads(task)) == 1 && !mm_flags_test(MMF_MULTIPROCESS, mm);
}

/**
 * knuma_uses() - Find the pages of a block that a task is known to use.
 * @task:	the task
 * @nid:	node of the task
 * @vma:	VMA of the block
 * @addr:	start address of the block
 * @end:	end address (exclusive)
 * @ptep:	entry of @addr
 * @past:	filled in if not NULL
 *
 * All pages, if @task is the only task of the address space. All pages as well, if no
 * other task has had a hinting fault in the VMA, and some pages of the block have
 * moved to @nid or had their last fault in @task. If other tasks use the VMA, then
 * only the pages that had their last fault in @task, and none if a page of the block
 * had its last fault in another task. As in cpupid_match_pid(), one in 256 of all
 * tasks may pass for @task.
 *
 * Context: page table lock held.
 * Return: see enum knuma_use.
 */
enum knuma_use knuma_uses(struct task_struct *task, int nid, struct vm_area_struct *vma,
			  unsigned long addr, unsigned long end, pte_t *ptep,
			  struct knuma_past *past)
{
	bool alone = knuma_alone(task, vma->vm_mm);
	unsigned int own = 0, moved = 0;

	if (alone && !past)
		return KNUMA_USES_ALL;
	for (; addr < end; addr += PAGE_SIZE, ptep++) {
		pte_t pte = ptep_get(ptep);
		struct page *page = pte_present(pte) ? knuma_page(vma, addr, pte) : NULL;
		struct folio *folio;
		int last;

		if (!page)
			continue;
		folio = page_folio(page);
		if (knuma_has_time(folio))
			continue;
		last = folio_last_cpupid(folio);
		if (cpupid_pid_unset(last)) {
			moved += folio_nid(folio) == nid;
		} else if (cpupid_match_pid(task, last)) {
			own++;
			if (!past || past->here || folio == past->folio)
				continue;
			past->here = cpupid_to_nid(last) == nid;
			past->elsewhere |= !past->here;
			if (alone && past->here)
				break;
		} else if (!alone) {
			return KNUMA_USES_NONE;
		}
	}
	if (alone)
		return KNUMA_USES_ALL;
	if (own + moved >= KNUMA_WORTH && knuma_owns_vma(task, vma))
		return KNUMA_USES_ALL;

	return own >= KNUMA_WORTH ? KNUMA_USES_SEEN : KNUMA_USES_NONE;
}

/* Is all of a large folio mapped by entries from @ptep on, and by nobody else? */
static bool knuma_maps_all(pte_t *ptep, struct folio *folio)
{
	int nr = folio_nr_pages(folio);

	if (folio_mapcount(folio) != nr)
		return false;
	for (int i = 0; i < nr; i++) {
		pte_t pte = ptep_get(ptep + i);

		if (!pte_present(pte) || pte_pfn(pte) != folio_pfn(folio) + i ||
		    !PageAnonExclusive(folio_page(folio, i)))
			return false;
	}

	return true;
}

/**
 * knuma_movable() - Find the folio of an entry that can move with a window.
 * @vma:	VMA, which is knuma_window_allowed()
 * @addr:	address of the entry
 * @ptep:	the entry
 *
 * A folio that can not is left to page faults. Huge pages that entries of a page
 * table map are, too: their copies would be mapped by a PMD.
 *
 * Context: page table lock held.
 * Return: the folio, or NULL.
 */
struct folio *knuma_movable(struct vm_area_struct *vma, unsigned long addr, pte_t *ptep)
{
	unsigned long start = addr, table = addr & PMD_MASK;
	pte_t pte = ptep_get(ptep);
	struct folio *folio;
	struct page *page;

	page = pte_present(pte) ? knuma_page(vma, addr, pte) : NULL;
	if (!page)
		return NULL;
	folio = page_folio(page);
	if (!folio_test_anon(folio) || folio_test_ksm(folio) || folio_is_zone_device(folio) ||
	    !folio_test_swapbacked(folio) || folio_test_swapcache(folio) ||
	    knuma_has_time(folio) || !PageAnonExclusive(page))
		return NULL;
	if (!folio_test_large(folio))
		return folio;

	start -= folio_page_idx(folio, page) * PAGE_SIZE;
	if (folio_test_pmd_mappable(folio) || start < max(vma->vm_start, table) ||
	    start + folio_size(folio) > min(vma->vm_end, table + PMD_SIZE) ||
	    !knuma_maps_all(ptep - folio_page_idx(folio, page), folio))
		return NULL;

	return folio;
}

/* The same for an entry that maps the first page of a folio; NULL for others. */
struct folio *knuma_movable_head(struct vm_area_struct *vma, unsigned long addr, pte_t *ptep)
{
	pte_t pte = ptep_get(ptep);
	struct page *page = pte_present(pte) ? knuma_page(vma, addr, pte) : NULL;

	return page && !PageTail(page) ? knuma_movable(vma, addr, ptep) : NULL;
}

/* Can a huge page that a PMD maps move? */
bool knuma_pmd_movable(struct folio *folio)
{
	return folio_test_anon(folio) && folio_test_swapbacked(folio) &&
	       !folio_test_swapcache(folio) && !knuma_has_time(folio) &&
	       PageAnonExclusive(&folio->page);
}

/* Lock and isolate a folio, so that reclaim, KSM and other migrations skip it. */
static bool knuma_take(struct knuma_window *w, struct folio *folio, unsigned long addr)
{
	if (!folio_trylock(folio))
		return false;
	if (folio_test_swapcache(folio) || folio_test_writeback(folio) ||
	    !folio_isolate_lru(folio)) {
		folio_unlock(folio);
		return false;
	}
	/* MADV_FREE may have been in a batch of a CPU. Pinned folios cannot move. */
	if (!folio_test_swapbacked(folio) ||
	    folio_ref_count(folio) != folio_expected_ref_count(folio) + 1) {
		folio_unlock(folio);
		folio_putback_lru(folio);
		return false;
	}
	node_stat_mod_folio(folio, NR_ISOLATED_ANON, folio_nr_pages(folio));
	w->moves[w->nr++] = (struct knuma_move) {
		.old = folio,
		.addr = addr,
		.order = folio_order(folio),
	};
	w->pages += folio_nr_pages(folio);

	return true;
}

static void knuma_put_back(struct knuma_move *move)
{
	struct folio *folio = move->old;

	node_stat_mod_folio(folio, NR_ISOLATED_ANON, -folio_nr_pages(folio));
	folio_unlock(folio);
	folio_putback_lru(folio);
}

/* Add a folio to the window. Returns the number of its entries; 0 if the window is full. */
static int knuma_look(struct knuma_window *w, pte_t *ptep, unsigned long addr)
{
	struct folio *folio = knuma_movable_head(w->vma, addr, ptep);
	int nr;

	if (!folio)
		return 1;
	nr = folio_nr_pages(folio);
	if (folio_nid(folio) == w->nid || nr > (w->end - addr) >> PAGE_SHIFT ||
	    !knuma_page_used(w->task, folio, w->use))
		return nr;
	if (w->nr && w->pages + nr > w->most)
		return 0;
	knuma_take(w, folio, addr);

	return nr;
}

/* Pages of the block of an address that the task is known to use. */
static enum knuma_use knuma_uses_block(struct knuma_window *w, unsigned long addr,
				       pte_t *ptep)
{
	unsigned long start = ALIGN_DOWN(addr, KNUMA_BLOCK * PAGE_SIZE);
	unsigned long end = start + KNUMA_BLOCK * PAGE_SIZE;

	start = max(start, w->vma->vm_start);
	end = min(end, w->vma->vm_end);

	return knuma_uses(w->task, w->nid, w->vma, start, end,
			  ptep - ((addr - start) >> PAGE_SHIFT), NULL);
}

/*
 * Find the pages that may move. The page table lock is dropped between blocks.
 */
static void knuma_select(struct knuma_window *w)
{
	unsigned long addr = w->start, next;
	int nr = 1;

	while (addr < w->end && nr) {
		pte_t *ptep, *start;
		spinlock_t *ptl;

		start = pte_offset_map_lock(w->vma->vm_mm, w->pmd, addr, &ptl);
		if (!start)
			return;
		ptep = start;
		next = min(ALIGN(addr + 1, KNUMA_BLOCK * PAGE_SIZE), w->end);
		w->use = knuma_uses_block(w, addr, ptep);
		if (!w->use)
			addr = next;
		for (; addr < next && nr; addr += nr * PAGE_SIZE, ptep += nr)
			nr = knuma_look(w, ptep, addr);
		pte_unmap_unlock(start, ptl);
		if (knuma_need_resched())
			schedule();
	}
	w->next = addr;
}

static void knuma_free_copy(struct knuma_move *move)
{
	folio_unlock(move->new);
	folio_put(move->new);
	move->new = NULL;
}

/* Small copies are allocated in bulk. */
struct knuma_bulk {
	struct page *pages[KNUMA_BULK];
	unsigned int got;
	unsigned int used;
};

static struct folio *knuma_alloc_small(struct knuma_window *w, struct knuma_bulk *bulk,
				       unsigned int most)
{
	const gfp_t gfp = ((GFP_HIGHUSER_MOVABLE | __GFP_NOMEMALLOC | __GFP_NORETRY) &
			   ~__GFP_RECLAIM) | __GFP_THISNODE | __GFP_NOWARN;

	if (bulk->used == bulk->got) {
		*bulk = (struct knuma_bulk) {};
		most = min(most, KNUMA_BULK);
		if (migrate_has_room(w->nid, most))
			bulk->got = alloc_pages_bulk_node(gfp, w->nid, most, bulk->pages);
	}

	return bulk->used < bulk->got ? page_folio(bulk->pages[bulk->used++]) : NULL;
}

static struct folio *knuma_alloc_large(struct knuma_window *w, unsigned int order)
{
	if (!migrate_has_room(w->nid, 1UL << order))
		return NULL;

	return __folio_alloc_node(GFP_TRANSHUGE_LIGHT | __GFP_THISNODE, order, w->nid);
}

/* Allocate copies without reclaim, as many as there is room for. Returns how many. */
static unsigned int knuma_alloc(struct knuma_window *w)
{
	struct knuma_bulk bulk = {};
	unsigned int copies = 0;

	for (unsigned int i = 0; i < w->nr; i++) {
		struct knuma_move *move = &w->moves[i];

		if (w->lacked & BIT(move->order))
			continue;
		move->new = move->order ? knuma_alloc_large(w, move->order) :
					  knuma_alloc_small(w, &bulk, w->nr - i);
		if (move->new) {
			__folio_set_locked(move->new);
			copies++;
		} else {
			w->lacked |= BIT(move->order);
		}
		if (knuma_need_resched())
			schedule();
	}
	while (bulk.used < bulk.got)
		__free_page(bulk.pages[bulk.used++]);

	return copies;
}

/*
 * May the pages move to the node, by the policy and cpuset of now? Those of the task
 * may change while this sleeps; that of the VMA may not.
 */
static bool knuma_refuses(struct knuma_window *w)
{
	nodemask_t mems = cpuset_mems_allowed(w->task);

	w->refused = w->refused || !node_isset(w->nid, mems) ||
		     !mpol_balances_to(w->task, w->vma, w->start, w->nid);
	for (unsigned int i = 0; i < w->nr && w->refused; i++)
		w->moves[i].stays = true;

	return w->refused;
}

/* The entry of a page that may be read only. */
static void knuma_protect_entry(struct knuma_window *w, struct folio *folio,
				unsigned long addr, pte_t *ptep, bool *flush)
{
	pte_t pte = ptep_get_and_clear(w->vma->vm_mm, addr, ptep);

	*flush |= pte_accessible(w->vma->vm_mm, pte);
	if (pte_dirty(pte))
		folio_mark_dirty(folio);
	pte = pte_modify(pte, w->vma->vm_page_prot);
	pte = pte_wrprotect(pte_mkclean(pte));
	set_pte_at(w->vma->vm_mm, addr, ptep, pte);
}

/* Does an entry still map a page, and has nobody written to the page? */
static bool knuma_entry_holds(pte_t pte, struct page *page)
{
	return pte_present(pte) && !pte_protnone(pte) && !pte_write(pte) &&
	       !pte_dirty(pte) && pte_pfn(pte) == page_to_pfn(page);
}

static pte_t *knuma_ptep(struct knuma_window *w, struct knuma_move *move, pte_t *start)
{
	return start + ((move->addr - w->start) >> PAGE_SHIFT);
}

/*
 * Steps 1 and 2. A page stays if the entry has changed since knuma_select(), or if
 * there is no memory for a copy. See Documentation/litmus-tests/mm/knuma-gup-fast.litmus
 * for the flush before the reference count is read.
 */
static void knuma_protect(struct knuma_window *w)
{
	struct mm_struct *mm = w->vma->vm_mm;
	struct mmu_notifier_range range;
	pte_t *start, *ptep;
	bool flush = false;
	spinlock_t *ptl;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, w->start, w->end);
	mmu_notifier_invalidate_range_start(&range);
	start = pte_offset_map_lock(mm, w->pmd, w->start, &ptl);
	if (!start)
		goto count;
	flush_tlb_batched_pending(mm);
	lazy_mmu_mode_enable();
	for (unsigned int i = 0; i < w->nr; i++) {
		struct knuma_move *move = &w->moves[i];
		struct folio *folio = move->old;
		int nr = folio_nr_pages(folio);

		ptep = knuma_ptep(w, move, start);
		move->stays = move->stays || !move->new || !pte_present(ptep_get(ptep)) ||
			      pte_pfn(ptep_get(ptep)) != folio_pfn(folio) ||
			      (nr > 1 && !knuma_maps_all(ptep, folio));
		for (int n = 0; n < nr && !move->stays; n++)
			knuma_protect_entry(w, folio, move->addr + n * PAGE_SIZE,
					    ptep + n, &flush);
	}
	lazy_mmu_mode_disable();
	if (flush)
		flush_tlb_range(w->vma, w->start, w->end);
	pte_unmap_unlock(start, ptl);
count:
	/*
	 * Entries are written before reference counts are read. Pairs with fast GUP,
	 * which takes a reference before it reads the entry again.
	 */
	smp_mb();
	for (unsigned int i = 0; i < w->nr; i++) {
		struct knuma_move *move = &w->moves[i];

		if (!start || folio_ref_count(move->old) != folio_nr_pages(move->old) + 1)
			move->stays = true;
	}
	mmu_notifier_invalidate_range_end(&range);
}

/* Someone waits for this CPU, or for the VMA. */
static bool knuma_must_stop(struct vm_area_struct *vma)
{
	return knuma_need_resched() ||
	       (refcount_read(&vma->vm_refcnt) & VM_REFCNT_EXCLUDE_READERS_FLAG);
}

/* Step 3. After a stop, the rest is left to another window. */
static void knuma_copy(struct knuma_window *w)
{
	unsigned int copied = 0;

	for (unsigned int i = 0; i < w->nr; i++) {
		struct knuma_move *move = &w->moves[i];

		if (!move->stays && !w->stopped && copied && knuma_must_stop(w->vma)) {
			w->stopped = true;
			w->next = move->addr;
		}
		if (move->stays || w->stopped || folio_mc_copy(move->new, move->old))
			move->stays = true;
		else
			copied++;
	}
}

/*
 * Clear the entries of a page that nobody else has a reference to. See
 * Documentation/litmus-tests/mm/knuma-replace.litmus.
 */
static bool knuma_clear(struct knuma_window *w, struct knuma_move *move, pte_t *ptep)
{
	struct folio *folio = move->old;
	int nr = folio_nr_pages(folio);

	for (int n = 0; n < nr; n++) {
		pte_t pte = ptep_get(ptep + n);

		if (!knuma_entry_holds(pte, folio_page(folio, n))) {
			move->written = pte_present(pte) && (pte_write(pte) || pte_dirty(pte));
			return false;
		}
	}
	if (!folio_ref_freeze(folio, nr + 1))
		return false;
	move->young = pte_young(get_and_clear_ptes(w->vma->vm_mm, move->addr, ptep, nr));

	return true;
}

/*
 * Most pages of a window had no hinting fault on the node that they move to. Forget
 * the node of an earlier fault, or else the next fault there would pass the two-stage
 * filter, and bring the window back at once.
 */
static void knuma_forget_node(struct folio *new, int nid)
{
	int last = folio_last_cpupid(new);

	if (!cpupid_pid_unset(last) && cpupid_to_nid(last) != nid)
		folio_xchg_last_cpupid(new, -1);
}

/*
 * Give the rmap, the flags and the charge of a folio that is not mapped any more to the
 * copy, and a reference for each entry. The window keeps a reference to each of the two.
 */
static void knuma_take_place(struct knuma_window *w, struct knuma_move *move)
{
	struct folio *old = move->old, *new = move->new;
	int nr = folio_nr_pages(old);

	if (move->pmd)
		folio_remove_rmap_pmd(old, &old->page, w->vma);
	else
		folio_remove_rmap_ptes(old, &old->page, nr, w->vma);
	move->deferred = folio_unqueue_deferred_split(old);
	/* mem_cgroup_migrate() asserts these, which folio_add_new_anon_rmap() sets again. */
	new->index = old->index;
	new->mapping = old->mapping;
	__folio_set_swapbacked(new);
	folio_migrate_flags(new, old);
	knuma_forget_node(new, w->nid);
	folio_add_new_anon_rmap(new, w->vma, move->addr, RMAP_EXCLUSIVE);
	folio_ref_add(new, move->pmd ? 1 : nr);
	folio_ref_unfreeze(old, 1);
}

/* Map a copy whose contents are complete. */
static void knuma_map_copy(struct knuma_window *w, struct knuma_move *move, pte_t *ptep)
{
	struct folio *new = move->new;
	pte_t pte = mk_pte(&new->page, READ_ONCE(w->vma->vm_page_prot));

	pte = pte_mkwrite(pte_mksoft_dirty(pte), w->vma);
	if (folio_test_dirty(new))
		pte = pte_mkdirty(pte);
	pte = move->young ? pte_mkyoung(pte) : pte_mkold(pte);
	set_ptes(w->vma->vm_mm, move->addr, ptep, pte, folio_nr_pages(new));
	update_mmu_cache_range(NULL, w->vma, move->addr, ptep, folio_nr_pages(new));
}

/* A page stays: make the entry writable, unless the entry has changed. */
static void knuma_unprotect(struct knuma_window *w, struct knuma_move *move, pte_t *ptep)
{
	struct vm_area_struct *vma = w->vma;
	struct folio *folio = move->old;

	for (unsigned int n = 0; n < folio_nr_pages(folio); n++) {
		unsigned long addr = move->addr + n * PAGE_SIZE;
		pte_t pte = ptep_get(ptep + n);

		if (knuma_entry_holds(pte, folio_page(folio, n)) &&
		    ptep_set_access_flags(vma, addr, ptep + n, pte_mkwrite(pte, vma), 1))
			update_mmu_cache_range(NULL, vma, addr, ptep + n, 1);
	}
}

/* Step 4 */
static void knuma_replace(struct knuma_window *w)
{
	struct mm_struct *mm = w->vma->vm_mm;
	struct mmu_notifier_range range;
	bool flush = false;
	spinlock_t *ptl;
	pte_t *start;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, w->start, w->end);
	mmu_notifier_invalidate_range_start(&range);
	start = pte_offset_map_lock(mm, w->pmd, w->start, &ptl);
	if (!start)
		goto out;
	for (unsigned int i = 0; i < w->nr; i++) {
		struct knuma_move *move = &w->moves[i];

		if (move->stays)
			continue;
		flush_cache_range(w->vma, move->addr, move->addr + folio_size(move->old));
		move->moved = knuma_clear(w, move, knuma_ptep(w, move, start));
		flush |= move->moved;
	}
	if (flush)
		flush_tlb_range(w->vma, w->start, w->end);
	lazy_mmu_mode_enable();
	for (unsigned int i = 0; i < w->nr; i++) {
		struct knuma_move *move = &w->moves[i];

		if (move->moved) {
			knuma_take_place(w, move);
			knuma_map_copy(w, move, knuma_ptep(w, move, start));
		} else {
			knuma_unprotect(w, move, knuma_ptep(w, move, start));
		}
	}
	lazy_mmu_mode_disable();
	pte_unmap_unlock(start, ptl);
out:
	mmu_notifier_invalidate_range_end(&range);
}

/* A page has moved: put the copy on an LRU list, and free the old folio. */
static void knuma_finish(struct knuma_window *w, struct knuma_move *move,
			 struct folio_batch *done)
{
	struct folio *old = move->old, *new = move->new;
	int nr = folio_nr_pages(old);

	node_stat_mod_folio(old, NR_ISOLATED_ANON, -nr);
	if (move->deferred)
		deferred_split_folio(new, false);
	folio_add_lru(new);
	folio_unlock(new);
	folio_set_owner_migrate_reason(new, MR_NUMA_MISPLACED);
	count_memcg_folio_events(new, NUMA_PAGE_MIGRATE, nr);
	folio_unlock(old);
	w->moved += nr;
	if (!folio_batch_add(done, new))
		folios_put(done);
	if (!folio_batch_add(done, old))
		folios_put(done);
}

/*
 * A large folio was written to during the copy, and would be the next time. Migrate
 * the folio with migration entries, for which tasks wait, as a fault does.
 */
static void knuma_block_writers(struct knuma_window *w, struct knuma_move *move)
{
	unsigned int nr = 1U << move->order;

	folio_unlock(move->old);
	if (!migrate_misplaced_folio(move->old, w->nid)) {
		w->moved += nr;
		w->blocked += nr;
	}
}

static void knuma_end(struct knuma_window *w)
{
	struct folio_batch done;

	folio_batch_init(&done);
	for (unsigned int i = 0; i < w->nr; i++) {
		struct knuma_move *move = &w->moves[i];

		if (move->moved) {
			knuma_finish(w, move, &done);
			continue;
		}
		if (move->new)
			knuma_free_copy(move);
		if (move->written && move->order)
			knuma_block_writers(w, move);
		else
			knuma_put_back(move);
	}
	folios_put(&done);
	count_vm_numa_events(NUMA_PAGE_MIGRATE, w->moved - w->blocked);
	count_vm_events(PGMIGRATE_SUCCESS, w->moved - w->blocked);
	if (w->moved < w->pages)
		count_vm_events(KNUMA_STAYED, w->pages - w->moved);
	trace_knuma_window(w);
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static bool knuma_select_pmd(struct knuma_window *w)
{
	struct folio *folio;
	spinlock_t *ptl;

	if (w->end - w->start < PMD_SIZE)
		return false;
	ptl = pmd_trans_huge_lock(w->pmd, w->vma);
	if (!ptl)
		return false;
	if (pmd_present(*w->pmd)) {
		folio = vm_normal_folio_pmd(w->vma, w->start, *w->pmd);
		if (folio && folio_order(folio) == HPAGE_PMD_ORDER &&
		    folio_mapcount(folio) == 1 && folio_nid(folio) != w->nid &&
		    knuma_pmd_movable(folio) && knuma_take(w, folio, w->start))
			w->moves[0].pmd = true;
	}
	spin_unlock(ptl);

	return true;
}

static bool knuma_pmd_holds(pmd_t pmd, struct folio *folio)
{
	return pmd_present(pmd) && pmd_trans_huge(pmd) && !pmd_protnone(pmd) &&
	       !pmd_write(pmd) && !pmd_dirty(pmd) && pmd_page(pmd) == &folio->page;
}

static void knuma_protect_pmd(struct knuma_window *w)
{
	struct mm_struct *mm = w->vma->vm_mm;
	struct knuma_move *move = w->moves;
	struct mmu_notifier_range range;
	struct folio *folio = move->old;
	spinlock_t *ptl;
	pmd_t pmd;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, w->start, w->end);
	mmu_notifier_invalidate_range_start(&range);
	ptl = pmd_lock(mm, w->pmd);
	pmd = *w->pmd;
	move->stays = move->stays || !move->new || !pmd_present(pmd) || !pmd_trans_huge(pmd) ||
		      pmd_page(pmd) != &folio->page;
	if (!move->stays) {
		pmd = pmdp_invalidate(w->vma, w->start, w->pmd);
		if (pmd_dirty(pmd))
			folio_mark_dirty(folio);
		pmd = pmd_modify(pmd, w->vma->vm_page_prot);
		set_pmd_at(mm, w->start, w->pmd, pmd_wrprotect(pmd_mkclean(pmd)));
	}
	spin_unlock(ptl);
	/* As in knuma_protect(). */
	smp_mb();
	if (folio_ref_count(folio) != 2)
		move->stays = true;
	mmu_notifier_invalidate_range_end(&range);
}

static void knuma_replace_pmd(struct knuma_window *w)
{
	struct mm_struct *mm = w->vma->vm_mm;
	struct knuma_move *move = w->moves;
	struct mmu_notifier_range range;
	struct folio *folio = move->old;
	spinlock_t *ptl;
	pmd_t pmd;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, w->start, w->end);
	mmu_notifier_invalidate_range_start(&range);
	ptl = pmd_lock(mm, w->pmd);
	pmd = *w->pmd;
	if (!knuma_pmd_holds(pmd, folio)) {
		move->written = !move->stays && pmd_present(pmd) &&
				(pmd_write(pmd) || pmd_dirty(pmd));
	} else if (!move->stays && folio_ref_freeze(folio, 2)) {
		move->moved = true;
		move->young = pmd_young(pmdp_invalidate(w->vma, w->start, w->pmd));
		knuma_take_place(w, move);
		pmd = folio_mk_pmd(move->new, READ_ONCE(w->vma->vm_page_prot));
		pmd = pmd_mkwrite(pmd_mksoft_dirty(pmd), w->vma);
		if (folio_test_dirty(move->new))
			pmd = pmd_mkdirty(pmd);
		pmd = move->young ? pmd_mkyoung(pmd) : pmd_mkold(pmd);
		set_pmd_at(mm, w->start, w->pmd, pmd);
		update_mmu_cache_pmd(w->vma, w->start, w->pmd);
	} else if (pmdp_set_access_flags(w->vma, w->start, w->pmd,
					 pmd_mkwrite(pmd, w->vma), 1)) {
		update_mmu_cache_pmd(w->vma, w->start, w->pmd);
	}
	spin_unlock(ptl);
	mmu_notifier_invalidate_range_end(&range);
}
#else
static bool knuma_select_pmd(struct knuma_window *w)
{
	return false;
}

static void knuma_protect_pmd(struct knuma_window *w)
{
}

static void knuma_replace_pmd(struct knuma_window *w)
{
}
#endif

/**
 * knuma_window_migrate() - Migrate the pages of a window that a task uses.
 * @w:	the window: @task, @vma, @start, @end, @nid, @moves and @most are set
 *
 * Context: process; may sleep; @w->vma is locked for read, and
 * knuma_window_allowed(). Allocates without reclaim.
 * Return: number of pages that have moved. @w->pages has those that were tried,
 * @w->lacked the orders that there was no memory for, and @w->next the start of the
 * rest.
 */
unsigned int knuma_window_migrate(struct knuma_window *w)
{
	bool huge;

	w->nr = 0;
	w->use = KNUMA_USES_ALL;
	w->pages = 0;
	w->moved = 0;
	w->blocked = 0;
	w->lacked = 0;
	w->stopped = false;
	w->next = w->end;
	w->pmd = mm_find_pmd(w->vma->vm_mm, w->start);
	if (!w->pmd || knuma_refuses(w))
		return 0;
	huge = knuma_select_pmd(w);
	if (!huge)
		knuma_select(w);
	if (!w->nr)
		return 0;
	if (knuma_alloc(w) && !knuma_refuses(w)) {
		if (huge)
			knuma_protect_pmd(w);
		else
			knuma_protect(w);
		knuma_copy(w);
		knuma_refuses(w);
		if (huge)
			knuma_replace_pmd(w);
		else
			knuma_replace(w);
	}
	knuma_end(w);

	return w->moved;
}
