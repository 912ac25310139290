// SPDX-License-Identifier: GPL-2.0
/*
 * Calls of madvise(2) and changes of mappings, as far as ranges are concerned.
 */

#include <linux/list_lru.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>

#include <trace/events/lazyzap.h>

#include "internal.h"
#include "lazyzap.h"

/**
 * lazyzap_badness() - Correct the points of an address space in oom_badness().
 * @mm:		address space
 *
 * Context: any.
 * Return: pages of memory for ranges, less the pages that reclaim can zap.
 */
long lazyzap_badness(struct mm_struct *mm)
{
	struct lazyzap_mm *lm = lazyzap_of(mm);

	return lm ? (long)(atomic_read(&lm->nr) * sizeof(struct lazyzap_range) /
			   PAGE_SIZE) - (long)lazyzap_mm_pages(mm) : 0;
}

/* Get the ranges of the caller's address space. NULL if there is no memory. */
static struct lazyzap_mm *lazyzap_mm_get(struct mm_struct *mm)
{
	struct lazyzap_mm *lm = lazyzap_of(mm), *old;

	if (likely(lm))
		return lm;
	lm = lazyzap_alloc_mm(mm);
	if (!lm)
		return NULL;
	old = cmpxchg(&mm->lazyzap, NULL, lm);
	if (old) {
		lazyzap_free_mm(lm);
		lm = old;
	}

	return lm;
}

/* Called with the RCU lock held. */
static struct mem_cgroup *lazyzap_memcg(struct lazyzap_mm *lm)
{
#ifdef CONFIG_MEMCG
	struct obj_cgroup *objcg = READ_ONCE(lm->objcg);

	if (objcg)
		return obj_cgroup_memcg(objcg);
#endif
	return NULL;
}

static void lazyzap_list_add(struct lazyzap_mm *lm)
{
	guard(rcu)();
	list_lru_add(&lazyzap_lru, &lm->lru, LAZYZAP_LIST, lazyzap_memcg(lm));
}

static void lazyzap_list_del(struct lazyzap_mm *lm)
{
	guard(rcu)();
	list_lru_del(&lazyzap_lru, &lm->lru, LAZYZAP_LIST, lazyzap_memcg(lm));
}

/*
 * Move the address space to the list of the caller's memcg, as memory is charged
 * there from now on. Returns false if there is no memory for the list.
 */
static bool lazyzap_follow_memcg(struct lazyzap_mm *lm)
{
#ifdef CONFIG_MEMCG
	struct mem_cgroup *memcg;
	struct obj_cgroup *objcg;
	int error;

	if (mem_cgroup_disabled())
		return true;
	scoped_guard(rcu) {
		if (likely(lazyzap_memcg(lm) == mem_cgroup_from_task(current)))
			return true;
	}

	objcg = get_obj_cgroup_from_current();
	memcg = get_mem_cgroup_from_objcg(objcg);
	error = memcg_list_lru_alloc(memcg, &lazyzap_lru, LAZYZAP_GFP);
	mem_cgroup_put(memcg);
	if (!error) {
		spin_lock(&lm->objcg_lock);
		WRITE_ONCE(lm->listed, true);
		lazyzap_list_del(lm);
		objcg = xchg(&lm->objcg, objcg);
		lazyzap_list_add(lm);
		spin_unlock(&lm->objcg_lock);
	}
	obj_cgroup_put(objcg);

	return !error;
#else
	return true;
#endif
}

/*
 * Reclaim takes an address space off the list if it finds no marked range. The
 * barrier orders the insertion of the range before the load of @listed, and
 * pairs with the one in lazyzap_pick_cb(): either reclaim sees the range, or
 * this sees that the address space has left the list. See
 * Documentation/litmus-tests/mm/lazyzap-listed.litmus.
 */
static void lazyzap_list(struct lazyzap_mm *lm)
{
	smp_mb(); /* See above. */
	if (likely(READ_ONCE(lm->listed)))
		return;

	guard(spinlock)(&lm->objcg_lock);
	WRITE_ONCE(lm->listed, true);
	lazyzap_list_add(lm);
}

/*
 * Reclaim works on the caller's node, or has zapped ranges of this address
 * space: a range that is marked now would only be zapped later, by a task that
 * waits for memory.
 */
static bool lazyzap_under_pressure(const struct lazyzap_mm *lm)
{
	unsigned long age = msecs_to_jiffies(READ_ONCE(lazyzap_limits.min_age_ms));
	unsigned long zapped_at = READ_ONCE(lm->zapped_at);

	/*
	 * kswapd is running if its wait queue is empty. This is only a hint, so
	 * no memory barrier is needed.
	 */
	if (!waitqueue_active(&NODE_DATA(numa_mem_id())->kswapd_wait))
		return true;

	return zapped_at && time_before(jiffies, zapped_at + age);
}

static bool lazyzap_can_mark(struct vm_area_struct *vma)
{
	/* No memcg would have the ranges on its list. */
	if (mem_cgroup_kmem_disabled() && !mem_cgroup_disabled())
		return false;
	if (mm_flags_test(MMF_SPLITTABLE_ZAP, vma->vm_mm) ||
	    mm_flags_test(MMF_SPLITTABLE_GUARD, vma->vm_mm))
		return false;

	return vma_is_anonymous(vma) && !userfaultfd_armed(vma) &&
	       (vma->vm_flags & VM_WRITE) &&
	       !(vma->vm_flags & (VM_SPECIAL | VM_SHARED | VM_LOCKED |
				  VM_HUGETLB | VM_DROPPABLE));
}

/**
 * lazyzap_mark() - Mark a range, in place of MADV_DONTNEED.
 * @vma:	VMA of the range
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Context: process; may sleep; @vma or its mm locked for read.
 * Return: 0, or -ENODATA if the caller has to zap the range.
 */
int lazyzap_mark(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end)
{
	struct lazyzap_mm *lm = NULL;

	if (lazyzap_can_mark(vma))
		lm = lazyzap_mm_get(vma->vm_mm);
	if (lm && !lazyzap_under_pressure(lm) && lazyzap_follow_memcg(lm)) {
		struct lazyzap_op op = LAZYZAP_OP(vma->vm_mm, vma, start, end,
						  LAZYZAP_MARK);

		if (!lazyzap_run(&op)) {
			lazyzap_list(lm);
			trace_lazyzap_mark(vma->vm_mm, start, end);
			return 0;
		}
	}

	count_vm_event(SPLITTABLE_FALLBACK);
	trace_lazyzap_fallback(vma->vm_mm, start, end);
	return -ENODATA;
}

/**
 * lazyzap_record() - Record a range of MADV_FREE.
 * @vma:	VMA of the range
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Reclaim may drop a page as soon as MADV_FREE has cleared its dirty bit, so the
 * range has to be there before. A process that has not called MADV_FREE_UNDO
 * does not pay for ranges.
 *
 * Context: process; may sleep; @vma or its mm locked for read.
 */
void lazyzap_record(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end)
{
	struct mm_struct *mm = vma->vm_mm;

	if (mm_flags_test(MMF_FREE_UNDO, mm) && lazyzap_mm_get(mm)) {
		struct lazyzap_op op = LAZYZAP_OP(mm, vma, start, end,
						  LAZYZAP_RECORD | LAZYZAP_KEEP);

		WRITE_ONCE(op.lm->recorded, true);
		if (!lazyzap_run(&op) && (!op.kept || op.kept == end - start))
			return;
	}
	lazyzap_set_unknown(mm);
}

/**
 * lazyzap_undo() - Unmark the ranges of an area, and keep their contents.
 * @vma:	VMA of the area
 * @start:	start address
 * @end:	end address (exclusive)
 * @clean:	only unmark ranges that have lost nothing, and that have no
 *		lazyfree pages, which the caller would have to make dirty
 * @undo:	result of all calls, zeroed before the first one
 *
 * Context: process; may sleep; @vma or its mm locked for read.
 * Return: 0 if the contents of all pages of the area are known to be there,
 * -ENODATA if not, -EAGAIN if the call has to be restarted, or -EINTR.
 */
int lazyzap_undo(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end, bool clean, struct lazyzap_undo *undo)
{
	struct mm_struct *mm = vma->vm_mm;
	struct lazyzap_op op = LAZYZAP_OP(mm, vma, start, end,
					  clean ? LAZYZAP_CLEAN : 0);
	bool unknown = mm_flags_test(MMF_LAZYZAP_UNKNOWN, mm);
	int error = 0;

	/*
	 * In the second call, all contents are known: reclaim drops none of
	 * them any more. If they are not everywhere, keep a range that says so.
	 */
	if (clean && unknown)
		return -ENODATA;
	if (unknown) {
		op.lm = lazyzap_mm_get(mm);
		op.flags = LAZYZAP_RECORD | LAZYZAP_KNOWN;
	}
	if (op.lm)
		error = lazyzap_run(&op);
	if (error && error != -ENOSPC)
		return error;

	undo->covered += op.covered;
	undo->lost |= op.lost;
	if (!undo->lost && undo->covered == end - start) {
		trace_lazyzap_undo(mm, start, end);
		return 0;
	}
	if (undo->covered < end - start && !mm_flags_test(MMF_FREE_UNDO, mm))
		mm_flags_set(MMF_FREE_UNDO, mm);

	return -ENODATA;
}

/**
 * lazyzap_take() - Unmark the first marked part of an area.
 * @vma:	VMA of the area
 * @start:	start address
 * @end:	end address (exclusive)
 * @part:	the part, at most a piece and holes before it
 *
 * The caller then has to zero the part.
 *
 * Context: process; may sleep; @vma or its mm locked for read.
 * Return: 1 if there is such a part, 0 if not, -EAGAIN if the call has to be
 * restarted, or -EINTR.
 */
int lazyzap_take(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end, struct lazyzap_part *part)
{
	struct lazyzap_op op;
	unsigned long addr;
	int error;

	if (!lazyzap_next(vma->vm_mm, start, end, part))
		return 0;
	/* Memory that was never touched may be large, so take it at once. */
	addr = lazyzap_skip_holes(vma->vm_mm, part->start, part->end);
	part->end = min(part->end, ALIGN(addr + 1, LAZYZAP_PIECE));
	op = (struct lazyzap_op)LAZYZAP_OP(vma->vm_mm, vma, part->start,
					   part->end, 0);
	op.next_end = end;
	error = lazyzap_run(&op);
	if (error)
		return error;
	trace_lazyzap_unmark(vma->vm_mm, part->start, part->end);

	return 1;
}

/**
 * lazyzap_forget() - Remove the ranges of an area.
 * @mm:		address space
 * @vma:	VMA of the area, or NULL if mmap_lock is held
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * The caller zaps the area, or has unmapped it.
 *
 * Context: process; may sleep; the area locked, at least for read.
 * Return: 0; with @vma also -EAGAIN if the call has to be restarted, or -EINTR.
 */
int lazyzap_forget(struct mm_struct *mm, struct vm_area_struct *vma,
		   unsigned long start, unsigned long end)
{
	struct lazyzap_op op = LAZYZAP_OP(mm, vma, start, end, 0);

	return lazyzap_run(&op);
}

/**
 * lazyzap_resolve() - Unmark an area.
 * @vma:	VMA of the area
 * @start:	start address
 * @end:	end address (exclusive)
 * @zap:	zap the marked parts; mprotect(2) and mseal(2) keep the contents
 *
 * Context: process; may sleep; mmap_lock and @vma locked for write.
 */
void lazyzap_resolve(struct vm_area_struct *vma, unsigned long start,
		     unsigned long end, bool zap)
{
	struct lazyzap_part part;

	for (; lazyzap_next(vma->vm_mm, start, end, &part); start = part.end) {
		struct lazyzap_op op = LAZYZAP_OP(vma->vm_mm, NULL, part.start,
						  part.end, 0);

		lazyzap_run(&op);
		if (zap || op.lost || op.freed)
			lazyzap_set_unknown(vma->vm_mm);
		if (zap)
			zap_vma_range(vma, part.start, part.end - part.start);
	}
}

/**
 * lazyzap_move() - Prepare for mremap(2), which does not move ranges.
 * @vma:	VMA of the area that moves
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Context: as lazyzap_resolve().
 */
void lazyzap_move(struct vm_area_struct *vma, unsigned long start,
		  unsigned long end)
{
	struct lazyzap_op op = LAZYZAP_OP(vma->vm_mm, NULL, start, end, 0);

	lazyzap_resolve(vma, start, end, true);
	lazyzap_run(&op);
	if (op.covered)
		lazyzap_set_unknown(vma->vm_mm);
}

/**
 * lazyzap_expire() - Zap the marked parts of an area now, as reclaim would.
 * @vma:	VMA of the area
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Unlike lazyzap_resolve(), this leaves the ranges there, so the owner of the
 * memory may work on them at the same time.
 *
 * Context: process; may sleep; @vma or its mm locked for read.
 */
void lazyzap_expire(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end)
{
	struct lazyzap_part part;

	for (; lazyzap_next(vma->vm_mm, start, end, &part); start = part.end) {
		part.start = lazyzap_skip_holes(vma->vm_mm, part.start, part.end);
		if (part.start == part.end)
			continue;
		part.end = min(part.end, ALIGN(part.start + 1, LAZYZAP_PIECE));
		part.end = lazyzap_begin_zap(part.tree, part.start, part.end, true);
		if (part.end) {
			lazyzap_zap_piece(vma, part.start, part.end);
			lazyzap_end_zap(part.tree);
		} else {
			part.end = part.start;
		}
		if (fatal_signal_pending(current))
			break;
	}
}

/**
 * lazyzap_move_pages() - Prepare for UFFDIO_MOVE.
 * @vma:	VMA of the pages
 * @start:	start address of the pages
 * @end:	end address (exclusive)
 * @to:		start address of the destination
 *
 * Nothing is marked at the destination, as userfaultfd is registered there.
 * Contents that are lost at the source will be lost at the destination.
 *
 * Context: as lazyzap_expire().
 */
void lazyzap_move_pages(struct vm_area_struct *vma, unsigned long start,
			unsigned long end, unsigned long to)
{
	lazyzap_expire(vma, start, end);
	lazyzap_drop(vma->vm_mm, start, end);
	lazyzap_drop(vma->vm_mm, to, to + (end - start));
	lazyzap_set_unknown(vma->vm_mm);
}

/**
 * lazyzap_fork() - Zap pages in a child that are marked in the parent.
 * @child:	VMA of the child
 * @parent:	address space of the parent
 *
 * Context: process; may sleep; both address spaces locked for write.
 */
void lazyzap_fork(struct vm_area_struct *child, struct mm_struct *parent)
{
	unsigned long start = child->vm_start;
	struct lazyzap_part part;

	for (; lazyzap_next(parent, start, child->vm_end, &part);
	     start = part.end)
		zap_vma_range(child, part.start, part.end - part.start);
}

/**
 * lazyzap_fork_flags() - Inherit the flags of a parent.
 * @child:	address space of the child
 * @parent:	address space of the parent
 *
 * A child has lazyfree pages of its parent, but no ranges. The child knows that
 * marked memory reads zero.
 *
 * Context: process; both address spaces locked for write.
 */
void lazyzap_fork_flags(struct mm_struct *child, struct mm_struct *parent)
{
	struct lazyzap_mm *lm = lazyzap_of(parent);

	if (mm_flags_test(MMF_LAZYZAP_UNKNOWN, parent) || (lm && lm->recorded))
		lazyzap_set_unknown(child);
	if (mm_flags_test(MMF_FREE_UNDO, parent))
		mm_flags_set(MMF_FREE_UNDO, child);
	if (mm_flags_test(MMF_SPLITTABLE_ZAP, parent))
		mm_flags_set(MMF_SPLITTABLE_ZAP, child);
	if (mm_flags_test(MMF_SPLITTABLE_GUARD, parent))
		mm_flags_set(MMF_SPLITTABLE_GUARD, child);
}

/**
 * lazyzap_exit() - Free the ranges of an address space.
 * @mm:		address space that exits
 *
 * Context: process; may sleep.
 */
void lazyzap_exit(struct mm_struct *mm)
{
	struct lazyzap_mm *lm = lazyzap_of(mm);

	lazyzap_list_del(lm);
	lazyzap_free_mm(lm);
	mm->lazyzap = NULL;
}
