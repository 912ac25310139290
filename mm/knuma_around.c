// SPDX-License-Identifier: GPL-2.0
/*
 * What is queued for migration with a folio that a hinting fault has hit.
 */

#include <linux/memory-tiers.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>

#include "internal.h"
#include "knuma.h"

#include <trace/events/knuma.h>

static bool may_queue(struct folio *folio)
{
	if (folio_is_zone_device(folio) || folio_maybe_mapped_shared(folio) ||
	    folio_use_access_time(folio))
		return false;
	if (folio_is_file_lru(folio) && folio_test_dirty(folio))
		return false;

	return folio_order(folio) >= READ_ONCE(knuma_knobs.defer_order);
}

/* Does its last accessor, if there was one, agree? */
static bool last_accessor_agrees(struct folio *folio, int target_nid)
{
	int last = folio_last_cpupid(folio);

	return last == (-1 & LAST_CPUPID_MASK) || knuma_last_on(last, target_nid);
}

/**
 * struct around - A part of a page table around a fault.
 * @start:	its first address
 * @end:	behind its last one
 * @ptep:	entry of @start
 */
struct around {
	unsigned long start;
	unsigned long end;
	pte_t *ptep;
};

static void find_around(struct vm_fault *vmf, unsigned long bytes,
			struct around *around)
{
	unsigned long start = ALIGN_DOWN(vmf->address, bytes);

	/* All of it is in one page table, as @bytes is a power of two. */
	around->start = max(start, vmf->vma->vm_start);
	around->end = min(start + bytes, vmf->vma->vm_end);
	around->ptep = vmf->pte - ((vmf->address - around->start) >> PAGE_SHIFT);
}

/*
 * Queues neighbours that their last accessor, as far as known, will have on the
 * same node. They stay inaccessible: to migrate them takes no TLB flush, and
 * spares their hinting faults. For that, 2012's knuma_scand made whole page
 * tables fault at once. Returns how many pages; @all tells if there was room.
 */
static int queue_all(struct vm_fault *vmf, struct knuma_node *node, int nid,
		     struct folio *last, const struct around *around, bool *all)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned int nr = 0, queued = 0, added = 0;
	struct knuma_entry entries[8], like = { };
	struct address_space *mapping = NULL;
	pte_t *ptep = around->ptep;
	unsigned long addr;
	struct folio *folio;

	for (addr = around->start; addr < around->end; addr += PAGE_SIZE, ptep++) {
		pte_t pte = ptep_get(ptep);

		if (addr == vmf->address || !pte_protnone(pte))
			continue;
		folio = vm_normal_folio(vma, addr, pte);
		if (!folio || folio == last || folio_nid(folio) != nid ||
		    !may_queue(folio) || !last_accessor_agrees(folio, node->nid))
			continue;
		last = folio;
		/* Most have one anon_vma. That the count is older does no harm. */
		if (READ_ONCE(folio->mapping) != mapping) {
			mapping = READ_ONCE(folio->mapping);
			knuma_fill(&like, vma->vm_mm, folio,
				   knuma_seq(vma->vm_mm, folio));
		}
		if (mpol_misplaced(folio, vmf, addr) != node->nid)
			continue;
		trace_knuma_queue(folio, nid, node->nid, true);
		like.pfn = folio_pfn(folio);
		like.order = folio_order(folio);
		entries[nr++] = like;
		queued += folio_nr_pages(folio);
		if (nr == ARRAY_SIZE(entries)) {
			added += knuma_add(node, nid, entries, nr);
			nr = 0;
		}
	}
	if (nr)
		added += knuma_add(node, nid, entries, nr);
	*all = added == queued;
	count_vm_events(KNUMA_QUEUE_FULL, queued - added);

	return added;
}

/*
 * What nobody has accessed: unlike what a fault restores, it is not young, so
 * that aging does not take it for used.
 */
static void restore(struct vm_fault *vmf, unsigned long addr, pte_t *ptep,
		    bool writable)
{
	pte_t old = ptep_modify_prot_start(vmf->vma, addr, ptep);
	pte_t pte = pte_modify(old, vmf->vma->vm_page_prot);

	if (writable)
		pte = pte_mkwrite(pte, vmf->vma);
	ptep_modify_prot_commit(vmf->vma, addr, ptep, old, pte);
	update_mmu_cache_range(vmf, vmf->vma, addr, ptep, 1);
}

/*
 * The task is faster than the daemon. That its neighbours would fault, too, is
 * worse than the TLB flush that they take to migrate now. Those that were not
 * queued with it are left to faults of their own.
 */
static void restore_all(struct vm_fault *vmf, int nid, int target_nid,
			const struct around *around)
{
	struct vm_area_struct *vma = vmf->vma;
	bool upgrade = vma_wants_manual_pte_write_upgrade(vma);
	pte_t *ptep = around->ptep;
	unsigned long addr;
	struct folio *folio;

	for (addr = around->start; addr < around->end; addr += PAGE_SIZE, ptep++) {
		pte_t pte = ptep_get(ptep);
		bool writable;
		int last;

		if (addr == vmf->address || !pte_protnone(pte))
			continue;
		folio = vm_normal_folio(vma, addr, pte);
		if (!folio || folio_nid(folio) != nid)
			continue;
		/* As mpol_misplaced() has left it when it was queued. */
		last = folio_last_cpupid(folio);
		if (!cpupid_match_pid(current, last) || !knuma_last_on(last, target_nid))
			continue;
		if (!may_queue(folio))
			continue;
		pte = pte_modify(pte, vma->vm_page_prot);
		writable = pte_write(pte) ||
			   (upgrade && can_change_pte_writable(vma, addr, pte));
		restore(vmf, addr, ptep, writable);
	}
}

int __knuma_queue_around(struct vm_fault *vmf, struct folio *folio,
			 int target_nid)
{
	unsigned long bytes = min(READ_ONCE(knuma_knobs.faultaround_pages) * PAGE_SIZE,
				  PMD_SIZE);
	int nid = folio_nid(folio), queued;
	struct knuma_node *node;
	struct around around;
	bool all;
	u64 part;

	/* PTEs of userfaultfd are inaccessible for other reasons. */
	if (!bytes || userfaultfd_rwp(vmf->vma))
		return 0;

	guard(rcu)();
	node = knuma_node_that_takes(target_nid);
	if (!node)
		return 0;

	find_around(vmf, bytes, &around);
	/* Who has just ended may have had this mm and these addresses. */
	part = knuma_part(current->tgid, vmf->address / bytes);
	switch (knuma_recent_part(&node->recent, part, jiffies, KNUMA_OLD_JIFFIES)) {
	case KNUMA_PART_NEW:
		queued = queue_all(vmf, node, nid, folio, &around, &all);
		knuma_recent_set(&node->recent, part, jiffies, all);
		return queued;
	case KNUMA_PART_QUEUED:
		restore_all(vmf, nid, target_nid, &around);
		/* What is left faults by itself: do not look again. */
		knuma_recent_set(&node->recent, part, jiffies, false);
		return 0;
	default:
		return 0;
	}
}
