// SPDX-License-Identifier: GPL-2.0
/*
 * Reclaim of ranges that MADV_SPLITTABLE has marked.
 */

#include <linux/cpuset.h>
#include <linux/list_lru.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/vmstat.h>

#include <asm/tlb.h>

#define CREATE_TRACE_POINTS
#include <trace/events/lazyzap.h>

#include "internal.h"
#include "lazyzap.h"

/* Limits of the work before reclaim turns to other things. */
#define LAZYZAP_MMS_TO_VISIT	32
#define LAZYZAP_ZAPS		64

/* Ranges of a tree to look at for one that reclaim may zap. */
#define LAZYZAP_RANGES_TO_VISIT	8

/* Entries of upper page tables to skip at once. */
#define LAZYZAP_HOLES_TO_SKIP	1024

/*
 * Before the OOM killer chooses a victim: pages that are worth another try to
 * allocate, and ticks to wait for other tasks that have VMAs locked or zap.
 */
#define LAZYZAP_DRAIN_PAGES	(SZ_4M / PAGE_SIZE)
#define LAZYZAP_DRAIN_TICKS	5

/* The oldest range so far, as it was when it was found. */
struct lazyzap_victim {
	struct lazyzap_mm *lm;	/* whose mm is held, or NULL */
	struct lazyzap_tree *tree;
	unsigned long stamp;
	unsigned long start;	/* where to go on */
	unsigned long end;
};

/* A search for ranges to zap. */
struct lazyzap_pass {
	unsigned int id;	/* ranges that had to be skipped are given it */
	const struct oom_control *oc; /* allocation that fails; NULL for reclaim */
	int nid;		/* node that needs memory, for reclaim */
	int zone_idx;		/* highest zone that is of use */
	unsigned long age;	/* jiffies since a range was marked, at least */
	bool locked_out;	/* a VMA was locked for write, or others zap a tree */
	struct lazyzap_victim victim;
};

static bool lazyzap_has_marked(const struct lazyzap_mm *lm)
{
	for (int i = 0; i < LAZYZAP_TREES; i++)
		if (!list_empty(&lm->tree[i].by_age))
			return true;
	return false;
}

/* Replace @victim by a range that is older, and that the pass may zap. */
static void lazyzap_find_older(struct lazyzap_mm *lm, struct lazyzap_pass *pass,
			       struct lazyzap_victim *victim)
{
	for (int i = 0; i < LAZYZAP_TREES; i++) {
		struct lazyzap_tree *tree = &lm->tree[i];
		struct lazyzap_range *range;
		int visited = 0;

		if (list_empty(&tree->by_age))
			continue;
		guard(spinlock)(&tree->lock);
		if (tree->zap_end) {
			pass->locked_out = true;
			continue;
		}
		list_for_each_entry(range, &tree->by_age, age) {
			if (visited++ == LAZYZAP_RANGES_TO_VISIT)
				break;
			if (range->pass == pass->id ||
			    time_before(jiffies, range->stamp + pass->age))
				continue;
			if (!victim->lm || time_before(range->stamp, victim->stamp))
				*victim = (struct lazyzap_victim) {
					.lm = lm,
					.tree = tree,
					.stamp = range->stamp,
					.start = range->cursor,
					.end = range->end,
				};
			break;
		}
	}
}

/*
 * Called with the lock of the list held, which keeps the address space there.
 * See Documentation/litmus-tests/mm/lazyzap-list.litmus.
 */
static enum lru_status lazyzap_pick_cb(struct list_head *item,
				       struct list_lru_one *list, void *arg)
{
	struct lazyzap_mm *lm = container_of(item, struct lazyzap_mm, lru);
	struct lazyzap_pass *pass = arg;
	struct lazyzap_victim victim = pass->victim;

	if (!lazyzap_has_marked(lm)) {
		WRITE_ONCE(lm->listed, false);
		smp_mb(); /* Pairs with the one in lazyzap_list(). */
		if (!lazyzap_has_marked(lm)) {
			list_lru_isolate(list, item);
			return LRU_REMOVED;
		}
		WRITE_ONCE(lm->listed, true);
	}
	lazyzap_find_older(lm, pass, &victim);
	if (victim.lm == pass->victim.lm || !mmget_not_zero(lm->mm))
		return LRU_ROTATE;
	if (pass->victim.lm)
		mmput_async(pass->victim.lm->mm);
	pass->victim = victim;

	return LRU_ROTATE;
}

/*
 * Find the oldest range of a memcg, and hold its mm. Reclaim looks at some
 * address spaces, and at others the next time, as they rotate. Before the OOM
 * killer chooses a victim, look at all of them until one has a range to zap.
 */
static bool lazyzap_pick(struct mem_cgroup *memcg, struct lazyzap_pass *pass)
{
	unsigned long left = list_lru_count_one(&lazyzap_lru, LAZYZAP_LIST, memcg);

	if (!pass->oc)
		left = min(left, LAZYZAP_MMS_TO_VISIT);
	pass->victim.lm = NULL;
	while (left && !pass->victim.lm) {
		unsigned long nr = min(left, LAZYZAP_MMS_TO_VISIT);

		/* The list is locked for one walk. */
		left -= nr;
		list_lru_walk_one(&lazyzap_lru, LAZYZAP_LIST, memcg,
				  lazyzap_pick_cb, pass, &nr);
	}

	return pass->victim.lm;
}

/**
 * lazyzap_skip_holes() - Skip addresses without a page table.
 * @mm:		address space
 * @addr:	start address
 * @end:	end address (exclusive)
 *
 * Context: the area locked, at least for read.
 * Return: first address that a page table of the last level or a huge page may
 * map; or a lower one, after LAZYZAP_HOLES_TO_SKIP holes; or @end.
 */
unsigned long lazyzap_skip_holes(struct mm_struct *mm, unsigned long addr,
				 unsigned long end)
{
	for (int i = 0; i < LAZYZAP_HOLES_TO_SKIP && addr < end; i++) {
		pgd_t *pgd = pgd_offset(mm, addr);
		p4d_t *p4d;
		pud_t *pud;

		if (pgd_none(pgdp_get(pgd))) {
			addr = pgd_addr_end(addr, end);
			continue;
		}
		p4d = p4d_offset(pgd, addr);
		if (p4d_none(p4dp_get(p4d))) {
			addr = p4d_addr_end(addr, end);
			continue;
		}
		pud = pud_offset(p4d, addr);
		if (pud_none(pudp_get(pud))) {
			addr = pud_addr_end(addr, end);
			continue;
		}
		if (!pmd_none(pmdp_get_lockless(pmd_offset(pud, addr))))
			break;
		addr = pmd_addr_end(addr, end);
	}

	return addr;
}

/* Get the first folio that is present in a part of one page table, or NULL. */
static struct folio *lazyzap_get_folio(struct vm_area_struct *vma,
				       unsigned long addr, unsigned long end)
{
	pmd_t *pmd = mm_find_pmd(vma->vm_mm, addr);
	struct folio *folio = NULL;
	pte_t *start_pte, *pte;
	spinlock_t *ptl; /* of the page table */

	if (!pmd)
		return NULL;
	ptl = pmd_trans_huge_lock(pmd, vma);
	if (ptl) {
		if (pmd_present(*pmd))
			folio = vm_normal_folio_pmd(vma, addr, *pmd);
		if (folio)
			folio_get(folio);
		spin_unlock(ptl);
		return folio;
	}
	start_pte = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!start_pte)
		return NULL;
	for (pte = start_pte; addr < end && !folio; pte++, addr += PAGE_SIZE) {
		pte_t ptent = ptep_get(pte);

		if (pte_present(ptent))
			folio = vm_normal_folio(vma, addr, ptent);
	}
	if (folio)
		folio_get(folio);
	pte_unmap_unlock(start_pte, ptl);

	return folio;
}

/*
 * Split a folio of which some pages have been zapped, as they are only free
 * once it is split. Returns the number of pages that are not.
 */
static unsigned long lazyzap_split_and_put(struct folio *folio)
{
	unsigned long left = 0;

	if (!folio)
		return 0;
	if (folio_test_large(folio) && folio_test_partially_mapped(folio) &&
	    folio_trylock(folio)) {
		split_folio(folio);
		folio_unlock(folio);
	}
	if (folio_test_large(folio) && folio_mapped(folio))
		left = max_t(long, 0, (long)folio_nr_pages(folio) -
					 folio_mapcount(folio));
	folio_put(folio);

	return left;
}

/*
 * Zap a part of a marked range, and free page tables that are empty then. Return:
 * number of pages that are free now. Context: process or reclaim; may sleep; @vma or
 * its mm locked for read, and lazyzap_begin_zap() called.
 */
unsigned long lazyzap_zap_piece(struct vm_area_struct *vma, unsigned long start,
				unsigned long end)
{
	struct zap_details details = { .reclaim_pt = true };
	struct folio *first, *last;
	struct mmu_gather tlb;
	unsigned long left;
	bool shared;

	first = lazyzap_get_folio(vma, start, pmd_addr_end(start, end));
	last = lazyzap_get_folio(vma, end - PAGE_SIZE, end);
	/* Memory that a parent or a child maps as well does not become free. */
	shared = first && folio_maybe_mapped_shared(first);
	/* A second reference would keep the folio from being split. */
	if (last && last == first) {
		folio_put(last);
		last = NULL;
	}

	tlb_gather_mmu(&tlb, vma->vm_mm);
	zap_vma_range_batched(&tlb, vma, start, end - start, &details);
	tlb_finish_mmu(&tlb);

	left = lazyzap_split_and_put(first) + lazyzap_split_and_put(last);
	count_vm_event(SPLITTABLE_ZAP);
	trace_lazyzap_zap(vma->vm_mm, start, end, details.nr_zapped);

	return shared ? 0 : details.nr_zapped - min(left, details.nr_zapped);
}

/* Check if a pass needs the memory of a folio. */
static bool lazyzap_wants(const struct lazyzap_pass *pass,
			  const struct folio *folio)
{
	const struct oom_control *oc = pass->oc;

	if (oc && oc->memcg)
		return true;
	if (folio_zonenum(folio) > pass->zone_idx)
		return false;
	if (!oc)
		return folio_nid(folio) == pass->nid;

	return (!oc->nodemask || node_isset(folio_nid(folio), *oc->nodemask)) &&
	       cpuset_zone_allowed(folio_zone(folio), oc->gfp_mask);
}

/*
 * Find what to zap of [@start, @end). Returns its end address (exclusive), or
 * that of a part to skip; and in @zap the start address of what to zap, or its
 * end address if nothing is. Sets @missed if the part has to be visited again.
 */
static unsigned long lazyzap_find_piece(struct vm_area_struct *vma,
					unsigned long start, unsigned long end,
					const struct lazyzap_pass *pass,
					unsigned long *zap, bool *missed)
{
	struct folio *folio;
	unsigned long next;

	end = min(end, vma->vm_end);
	*zap = end;
	start = lazyzap_skip_holes(vma->vm_mm, start, end);
	if (start == end)
		return end;
	next = min(end, ALIGN(start + 1, min_t(unsigned long, LAZYZAP_PIECE, PMD_SIZE)));
	folio = lazyzap_get_folio(vma, start, next);
	*missed = folio && !lazyzap_wants(pass, folio);
	*zap = *missed ? next : start;
	if (folio)
		folio_put(folio);

	return next;
}

/* Reclaim has seen a range up to @end: all of it, if that is where it ends. */
static void lazyzap_advance(struct lazyzap_tree *tree,
			    struct lazyzap_range *range, unsigned long end,
			    bool missed, const struct lazyzap_pass *pass)
{
	range->missed |= missed;
	range->cursor = end;
	if (end < range->end)
		return;

	range->cursor = range->start;
	if (range->missed) {
		range->missed = false;
		range->pass = pass->id;
		list_move_tail(&range->age, &tree->by_age);
	} else {
		lazyzap_age_del(tree, range);
	}
}

/*
 * Zap a part of the oldest range, or skip it. The VMA lock, which is taken
 * without waiting, keeps the mapping as it is, and a task that wants to remove
 * ranges there waits for lazyzap_end_zap().
 *
 * Returns the number of pages that are free now.
 */
static unsigned long lazyzap_zap_oldest(struct lazyzap_pass *pass)
{
	unsigned long start = pass->victim.start, next, zap, pages = 0;
	struct lazyzap_tree *tree = pass->victim.tree;
	struct lazyzap_mm *lm = pass->victim.lm;
	struct lazyzap_range *range;
	struct vm_area_struct *vma;
	bool missed = false;

	vma = lock_vma_under_rcu(lm->mm, start);
	if (vma) {
		next = lazyzap_find_piece(vma, start, pass->victim.end, pass,
					  &zap, &missed);
	} else {
		MA_STATE(mas, &lm->mm->mm_mt, start, start);

		/* Other VMAs of the range may not be locked. */
		guard(rcu)();
		mas_walk(&mas);
		next = min(mas.last, pass->victim.end - 1) + 1;
		zap = next;
		missed = true;
		pass->locked_out = true;
	}

	spin_lock(&tree->lock);
	range = lazyzap_find(tree, start);
	if (tree->zap_end || !range || range->cursor != start ||
	    list_empty(&range->age)) {
		spin_unlock(&tree->lock);
		goto unlock_vma;
	}
	next = min(next, range->end);
	if (zap < next) {
		range->lost = true;
		tree->zap_start = zap;
		tree->zap_end = next;
		WRITE_ONCE(lm->zapped_at, jiffies);
	}
	lazyzap_advance(tree, range, next, missed, pass);
	spin_unlock(&tree->lock);

	if (zap < next) {
		pages = lazyzap_zap_piece(vma, zap, next);
		lazyzap_end_zap(tree);
	}
unlock_vma:
	if (vma)
		vma_end_read(vma);

	return pages;
}

/* Zap ranges of a memcg without its children, oldest first. */
static unsigned long lazyzap_zap_memcg(struct mem_cgroup *memcg,
				       struct lazyzap_pass *pass,
				       unsigned long nr_to_zap,
				       unsigned int max_zaps)
{
	static atomic_t last_pass;
	unsigned long pages = 0;

	if (!list_lru_count_one(&lazyzap_lru, LAZYZAP_LIST, memcg))
		return 0;

	pass->id = atomic_inc_return(&last_pass);
	while (pages < nr_to_zap && max_zaps-- && lazyzap_pick(memcg, pass)) {
		pages += lazyzap_zap_oldest(pass);
		mmput_async(pass->victim.lm->mm);
		if (fatal_signal_pending(current))
			break;
		cond_resched();
	}

	return pages;
}

/**
 * lazyzap_reclaim() - Zap marked ranges, oldest first.
 * @memcg:	memcg of the ranges, without its children
 * @nid:	node that needs memory
 * @zone_idx:	highest zone that needs memory
 * @nr_to_reclaim: number of pages to stop at
 * @young:	zap ranges younger than min_age_ms as well
 *
 * Context: reclaim. Waits for no lock that a caller may hold.
 * Return: number of pages that are free now.
 */
unsigned long lazyzap_reclaim(struct mem_cgroup *memcg, int nid, int zone_idx,
			      unsigned long nr_to_reclaim, bool young)
{
	struct lazyzap_pass pass = { .nid = nid, .zone_idx = zone_idx };

	if (!young)
		pass.age = msecs_to_jiffies(READ_ONCE(lazyzap_limits.min_age_ms));

	return lazyzap_zap_memcg(memcg, &pass, nr_to_reclaim, LAZYZAP_ZAPS);
}

/**
 * lazyzap_drain() - Zap marked ranges before the OOM killer chooses a victim.
 * @oc:		allocation that fails; memory that it cannot use stays
 *
 * Zap ranges until LAZYZAP_DRAIN_PAGES are free, or until all ranges have been
 * zapped whose VMAs are not locked for write. If only such VMAs are left, or
 * another task is zapping, wait a few ticks for them.
 *
 * If this returns fewer than LAZYZAP_DRAIN_PAGES, no range is left that it can
 * zap. So an allocation that fails again does not come here for long.
 *
 * Context: as lazyzap_reclaim().
 * Return: number of pages that are free now.
 */
unsigned long lazyzap_drain(const struct oom_control *oc)
{
	if (!list_lru_count_node(&lazyzap_lru, LAZYZAP_LIST))
		return 0;

	for (int ticks = 0; ; ticks++) {
		struct lazyzap_pass pass = {
			.oc = oc,
			.zone_idx = gfp_zone(oc->gfp_mask),
		};
		struct mem_cgroup *iter = mem_cgroup_iter(oc->memcg, NULL, NULL);
		unsigned long pages = 0;

		do {
			pages += lazyzap_zap_memcg(iter, &pass, LAZYZAP_DRAIN_PAGES - pages,
						   UINT_MAX);
			if (pages >= LAZYZAP_DRAIN_PAGES) {
				mem_cgroup_iter_break(oc->memcg, iter);
				return pages;
			}
			iter = mem_cgroup_iter(oc->memcg, iter, NULL);
		} while (iter);
		if (pages || !pass.locked_out || ticks == LAZYZAP_DRAIN_TICKS)
			return pages;
		schedule_timeout_uninterruptible(1);
	}
}

static enum lru_status lazyzap_sum_cb(struct list_head *item,
				      struct list_lru_one *list, void *arg)
{
	struct lazyzap_mm *lm = container_of(item, struct lazyzap_mm, lru);
	unsigned long *pages = arg;

	*pages += lazyzap_mm_pages(lm->mm);

	return LRU_ROTATE;
}

/* Sum of lazyzap_mm_pages() in a memcg without its children. */
static unsigned long lazyzap_pages(struct mem_cgroup *memcg)
{
	unsigned long left = list_lru_count_one(&lazyzap_lru, LAZYZAP_LIST, memcg);
	unsigned long pages = 0, nr;

	/* The list is locked for one walk. Each walk sees others, as they rotate. */
	for (; left; left -= min(left, LAZYZAP_MMS_TO_VISIT)) {
		nr = min(left, LAZYZAP_MMS_TO_VISIT);
		list_lru_walk_one(&lazyzap_lru, LAZYZAP_LIST, memcg,
				  lazyzap_sum_cb, &pages, &nr);
	}

	return pages;
}

/**
 * lazyzap_memcg_pages() - Estimate how many pages reclaim can zap.
 * @memcg:	memcg, with its children; NULL for all
 *
 * Context: process.
 * Return: sum of lazyzap_mm_pages() of the address spaces.
 */
unsigned long lazyzap_memcg_pages(struct mem_cgroup *memcg)
{
	struct mem_cgroup *iter;
	unsigned long pages = 0;

	/* The boot asks for available memory before there is a list. */
	if (!lazyzap_lru.node || !list_lru_count_node(&lazyzap_lru, LAZYZAP_LIST))
		return 0;
	iter = mem_cgroup_iter(memcg, NULL, NULL);
	do {
		pages += lazyzap_pages(iter);
		iter = mem_cgroup_iter(memcg, iter, NULL);
	} while (iter);

	return pages;
}
