// SPDX-License-Identifier: GPL-2.0
/*
 * MADV_SPLITTABLE and MADV_UNSPLITTABLE, as David Rientjes proposed them in
 * 2015, and the records that make MADV_FREE_UNDO truthful. An allocator marks a
 * range in constant time, reclaim zaps marked ranges when memory is short, and
 * a page that was marked reads zero after MADV_UNSPLITTABLE.
 *
 * Ranges are kept by address and not by VMA, so VMAs may be split and merged.
 */

#include <linux/list_lru.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagewalk.h>
#include <linux/pgtable.h>
#include <linux/prctl.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>
#include <linux/wait_bit.h>

#include "internal.h"
#include "lazyzap.h"

#define CREATE_TRACE_POINTS
#include <trace/events/lazyzap.h>

struct lazyzap_limits lazyzap_limits __read_mostly = {
	.min_age_ms = 1000,
	.max_ranges_per_mm = 4096,
	.min_range_kb = 4,
};

static struct kmem_cache *lazyzap_range_cache __ro_after_init;
static struct kmem_cache *lazyzap_link_cache __ro_after_init;

/* A caller can do without the memory, so do not kill a process for it. */
#define LAZYZAP_GFP	(GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN)

/* lazyzap_op.flags */
#define LAZYZAP_MARK	BIT(0)	/* then insert a marked range */
#define LAZYZAP_RECORD	BIT(1)	/* then insert a range of lazyfree pages */
#define LAZYZAP_KEEP	BIT(2)	/* keep marked ranges, as having such pages */
#define LAZYZAP_CLEAN	BIT(3)	/* only remove ranges that have lost nothing */
#define LAZYZAP_KNOWN	BIT(4)	/* the new range is not lost, whatever was there */

/**
 * struct lazyzap_op - change of the ranges in an area
 * @lm:		ranges of the address space
 * @vma:	VMA of the area if the caller may not hold mmap_lock, or NULL
 * @start:	start address
 * @end:	end address (exclusive)
 * @flags:	LAZYZAP_*; without any, all ranges in the area are removed
 * @covered:	bytes of the area that were in ranges
 * @kept:	bytes of the area that are in ranges which LAZYZAP_KEEP kept
 * @lost:	a range in the area was lost
 * @freed:	a range in the area may have had lazyfree pages
 * @full:	there is no memory for another range, or the limit is reached
 * @blocked:	tree that the operation had to stop at, or NULL
 * @busy:	it stopped because @blocked is being zapped
 * @zap_start:	start address of what has to be zapped first
 * @zap_end:	end address (exclusive) of that, or 0
 * @spare:	unused range
 * @gone:	ranges to be freed
 */
struct lazyzap_op {
	struct lazyzap_mm *lm;
	struct vm_area_struct *vma;
	unsigned long start;
	unsigned long end;
	unsigned int flags;
	unsigned long covered;
	unsigned long kept;
	bool lost;
	bool freed;
	bool full;
	bool busy;
	struct lazyzap_tree *blocked;
	unsigned long zap_start;
	unsigned long zap_end;
	struct lazyzap_range *spare;
	struct list_head gone;
};

#define LAZYZAP_OP(_name, _mm, _vma, _start, _end, _flags)	\
	struct lazyzap_op _name = {				\
		.lm = lazyzap_of(_mm),				\
		.vma = _vma,					\
		.start = _start,				\
		.end = _end,					\
		.flags = _flags,				\
		.gone = LIST_HEAD_INIT(_name.gone),		\
	}

static struct lazyzap_tree *lazyzap_shard(struct lazyzap_mm *lm,
					  unsigned long addr)
{
	return &lm->tree[(addr >> LAZYZAP_CELL_SHIFT) % LAZYZAP_SHARDS];
}

/* Number of shards that an area touches. */
static unsigned int lazyzap_nr_shards(unsigned long start, unsigned long end)
{
	unsigned long cells = ((end - 1) >> LAZYZAP_CELL_SHIFT) -
			      (start >> LAZYZAP_CELL_SHIFT) + 1;

	return min(cells, LAZYZAP_SHARDS);
}

/* Find the first range that ends after @addr, with @tree locked. */
struct lazyzap_range *lazyzap_find(struct lazyzap_tree *tree,
				   unsigned long addr)
{
	struct rb_node *node = tree->ranges.rb_node;
	struct lazyzap_range *found = NULL;

	while (node) {
		struct lazyzap_range *range;

		range = rb_entry(node, struct lazyzap_range, node);
		if (range->end > addr) {
			found = range;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}

	return found;
}

static struct lazyzap_range *lazyzap_next_range(struct lazyzap_range *range)
{
	return rb_entry_safe(rb_next(&range->node), struct lazyzap_range, node);
}

static bool lazyzap_range_less(struct rb_node *a, const struct rb_node *b)
{
	return rb_entry(a, struct lazyzap_range, node)->start <
	       rb_entry(b, struct lazyzap_range, node)->start;
}

static unsigned long lazyzap_range_pages(const struct lazyzap_range *range)
{
	return (range->end - range->start) >> PAGE_SHIFT;
}

static bool lazyzap_zapping(const struct lazyzap_tree *tree,
			    unsigned long start, unsigned long end)
{
	return tree->zap_start < end && tree->zap_end > start;
}

/*
 * The contents of some memory may be lost, and no range tells so. From now on a
 * new range is only intact if it replaces ranges that were.
 */
static void lazyzap_set_unknown(struct mm_struct *mm)
{
	if (!mm_flags_test(MMF_LAZYZAP_UNKNOWN, mm))
		mm_flags_set(MMF_LAZYZAP_UNKNOWN, mm);
}

/* Let reclaim see a range, from @cursor on. */
static void lazyzap_age_add(struct lazyzap_tree *tree,
			    struct lazyzap_range *range)
{
	list_add_tail(&range->age, &tree->by_age);
	WRITE_ONCE(tree->pages, tree->pages + lazyzap_range_pages(range));
}

static void lazyzap_age_del(struct lazyzap_tree *tree,
			    struct lazyzap_range *range)
{
	list_del_init(&range->age);
	WRITE_ONCE(tree->pages, tree->pages - lazyzap_range_pages(range));
}

static void lazyzap_resize(struct lazyzap_tree *tree,
			   struct lazyzap_range *range, unsigned long start,
			   unsigned long end)
{
	unsigned long before = lazyzap_range_pages(range);

	range->start = start;
	range->end = end;
	range->cursor = clamp(range->cursor, start, end - PAGE_SIZE);
	if (!list_empty(&range->age))
		WRITE_ONCE(tree->pages,
			   tree->pages - before + lazyzap_range_pages(range));
}

/* Get memory for a range, and count it. Returns NULL if this is not possible. */
static struct lazyzap_range *lazyzap_take_spare(struct lazyzap_op *op,
						struct lazyzap_tree *tree)
{
	unsigned int max = READ_ONCE(lazyzap_limits.max_ranges_per_mm);
	struct lazyzap_range *range;

	if (atomic_inc_return(&op->lm->nr) > max) {
		op->full = true;
	} else if (op->spare) {
		range = op->spare;
		op->spare = NULL;
		return range;
	} else if (tree->spare) {
		range = tree->spare;
		tree->spare = NULL;
		return range;
	}
	atomic_dec(&op->lm->nr);

	return NULL;
}

static void lazyzap_link_range(struct lazyzap_mm *lm, struct lazyzap_tree *tree,
			       struct lazyzap_range *range)
{
	rb_add(&range->node, &tree->ranges, lazyzap_range_less);
	INIT_LIST_HEAD(&range->age);
	if (tree == &lm->tree[LAZYZAP_LARGE])
		WRITE_ONCE(lm->nr_large, lm->nr_large + 1);
}

static void lazyzap_erase(struct lazyzap_op *op, struct lazyzap_tree *tree,
			  struct lazyzap_range *range)
{
	struct lazyzap_mm *lm = op->lm;

	if (!list_empty(&range->age))
		lazyzap_age_del(tree, range);
	rb_erase(&range->node, &tree->ranges);
	if (tree == &lm->tree[LAZYZAP_LARGE])
		WRITE_ONCE(lm->nr_large, lm->nr_large - 1);
	atomic_dec(&lm->nr);
	if (tree->spare)
		list_add(&range->age, &op->gone);
	else
		tree->spare = range;
}

/*
 * Cut [@start, @end) out of a range, which has it. Returns false if this takes
 * memory for another range, and there is none; the caller then zaps the smaller
 * remainder. A range that is not marked just gives up this remainder.
 */
static bool lazyzap_cut(struct lazyzap_op *op, struct lazyzap_tree *tree,
			struct lazyzap_range *range, unsigned long start,
			unsigned long end)
{
	bool head = start - range->start < range->end - end;
	struct lazyzap_range *tail;

	if (start == range->start && end == range->end) {
		lazyzap_erase(op, tree, range);
		return true;
	}
	if (start != range->start && end != range->end) {
		tail = lazyzap_take_spare(op, tree);
		if (tail) {
			*tail = *range;
			lazyzap_link_range(op->lm, tree, tail);
			tail->start = end;
			tail->cursor = clamp(range->cursor, end, range->end - PAGE_SIZE);
			lazyzap_resize(tree, range, range->start, start);
			if (!list_empty(&range->age)) {
				lazyzap_age_add(tree, tail);
				list_move(&tail->age, &range->age);
			}
			return true;
		}
		if (range->marked || !op->full) {
			op->blocked = tree;
			if (range->marked) {
				op->zap_start = head ? range->start : end;
				op->zap_end = head ? start : range->end;
			}
			return false;
		}
		lazyzap_set_unknown(op->lm->mm);
	}
	/* Keep the tail, or the head. */
	if (end != range->end && head)
		lazyzap_resize(tree, range, end, range->end);
	else
		lazyzap_resize(tree, range, range->start, start);

	return true;
}

/* Change the ranges of a tree. Returns false if it has to stop before the end. */
static bool lazyzap_visit(struct lazyzap_op *op, struct lazyzap_tree *tree)
{
	struct lazyzap_range *range, *next;

	if (lazyzap_zapping(tree, op->start, op->end)) {
		op->blocked = tree;
		op->busy = true;
		return false;
	}

	for (range = lazyzap_find(tree, op->start);
	     range && range->start < op->end; range = next) {
		unsigned long start = max(range->start, op->start);
		unsigned long end = min(range->end, op->end);
		bool lost = range->lost, freed = range->freed;

		next = lazyzap_next_range(range);
		if (range->marked && (op->flags & LAZYZAP_KEEP)) {
			range->freed = true;
			op->kept += end - start;
			continue;
		}
		if ((lost || freed) && (op->flags & LAZYZAP_CLEAN))
			continue;
		if (!lazyzap_cut(op, tree, range, start, end))
			return false;
		op->covered += end - start;
		op->lost |= lost;
		op->freed |= freed;
	}

	return true;
}

/*
 * If all of the area is in a marked range already, let reclaim look at it
 * again. Some of it may have been zapped: then the range is lost.
 */
static bool lazyzap_mark_again(struct lazyzap_op *op, struct lazyzap_tree *tree)
{
	struct lazyzap_range *range;

	range = lazyzap_find(tree, op->start);
	if (!range || !range->marked || range->start > op->start ||
	    range->end < op->end)
		return false;

	range->cursor = min(range->cursor, op->start);
	if (list_empty(&range->age)) {
		range->stamp = jiffies;
		lazyzap_age_add(tree, range);
	}

	return true;
}

/*
 * Merge a new range that has lost nothing with a neighbor: one that is young as
 * well, so that reclaim does not take memory for older than it is, or any one
 * if there are many ranges.
 */
static bool lazyzap_can_merge(const struct lazyzap_op *op,
			      const struct lazyzap_range *range)
{
	unsigned int max = READ_ONCE(lazyzap_limits.max_ranges_per_mm);
	unsigned long age = msecs_to_jiffies(READ_ONCE(lazyzap_limits.min_age_ms));

	return range && range->marked && !range->lost && !list_empty(&range->age) &&
	       range->freed == op->freed &&
	       (time_before(jiffies, range->stamp + age) ||
		atomic_read(&op->lm->nr) > max / 2);
}

/* Insert the new range. Returns false if there is no memory for it. */
static bool lazyzap_insert(struct lazyzap_op *op, struct lazyzap_tree *tree)
{
	struct lazyzap_range *range, *next;
	bool marked = op->flags & LAZYZAP_MARK;
	bool lost = op->lost;

	if (op->kept)
		return true;
	if (mm_flags_test(MMF_LAZYZAP_UNKNOWN, op->lm->mm))
		lost |= op->covered < op->end - op->start;
	if (op->flags & LAZYZAP_KNOWN)
		lost = false;

	if (marked && !lost) {
		range = lazyzap_find(tree, op->start - 1);
		next = range;
		if (range && range->start < op->start)
			next = lazyzap_next_range(range);
		if (next && (next->start != op->end || !lazyzap_can_merge(op, next)))
			next = NULL;
		if (range && range->end == op->start && lazyzap_can_merge(op, range)) {
			unsigned long end = next ? next->end : op->end;

			if (next)
				lazyzap_erase(op, tree, next);
			lazyzap_resize(tree, range, range->start, end);
			return true;
		}
		if (next) {
			lazyzap_resize(tree, next, op->start, next->end);
			next->cursor = op->start;
			return true;
		}
	}

	range = lazyzap_take_spare(op, tree);
	if (!range) {
		op->blocked = tree;
		return false;
	}
	*range = (struct lazyzap_range) {
		.start = op->start,
		.end = op->end,
		.cursor = op->start,
		.stamp = jiffies,
		.marked = marked,
		.freed = op->freed || !marked,
		.lost = lost,
	};
	lazyzap_link_range(op->lm, tree, range);
	if (marked)
		lazyzap_age_add(tree, range);

	return true;
}

/*
 * Change all trees that may have ranges of the area. The lock of the large tree
 * keeps others from inserting ranges which cross cells. A task that only works
 * on one cell does without that lock if nr_large is 0: whoever inserts a range
 * that touches this cell has incremented nr_large before it visits the shard.
 * See Documentation/litmus-tests/mm/lazyzap-large.litmus.
 *
 * Returns false if it has to stop before the end.
 */
static bool lazyzap_try(struct lazyzap_op *op)
{
	unsigned int nr = lazyzap_nr_shards(op->start, op->end);
	struct lazyzap_tree *large = &op->lm->tree[LAZYZAP_LARGE];
	bool inserts = op->flags & (LAZYZAP_MARK | LAZYZAP_RECORD);
	bool mark = op->flags & LAZYZAP_MARK, done = false;
	struct lazyzap_tree *home = large, *tree;
	bool wide = nr > 1;

	op->blocked = NULL;
	op->busy = false;
	op->zap_end = 0;
again:
	wide |= READ_ONCE(op->lm->nr_large);
	if (wide)
		spin_lock(&large->lock);
	if (nr == 1) {
		home = lazyzap_shard(op->lm, op->start);
		spin_lock(&home->lock);
		if (!wide && READ_ONCE(op->lm->nr_large)) {
			spin_unlock(&home->lock);
			goto again;
		}
	}

	if (mark && (lazyzap_mark_again(op, home) ||
		     (wide && home != large && lazyzap_mark_again(op, large)))) {
		done = true;
		goto unlock;
	}

	if (nr == 1) {
		done = lazyzap_visit(op, home);
	} else {
		if (inserts)
			WRITE_ONCE(op->lm->nr_large, op->lm->nr_large + 1);
		for (unsigned int i = 0; i < nr; i++) {
			tree = lazyzap_shard(op->lm, op->start +
					     ((unsigned long)i << LAZYZAP_CELL_SHIFT));
			spin_lock(&tree->lock);
			done = lazyzap_visit(op, tree);
			spin_unlock(&tree->lock);
			if (!done)
				break;
		}
	}
	if (done && wide)
		done = lazyzap_visit(op, large);
	if (done && inserts)
		done = lazyzap_insert(op, home);
	if (nr > 1 && inserts)
		WRITE_ONCE(op->lm->nr_large, op->lm->nr_large - 1);
unlock:
	if (nr == 1)
		spin_unlock(&home->lock);
	if (wide)
		spin_unlock(&large->lock);

	return done;
}

/* Zap a part of the area, or of what is next to it. */
static int lazyzap_zap_area(struct lazyzap_op *op, unsigned long start,
			    unsigned long end)
{
	struct mm_struct *mm = op->lm->mm;
	unsigned long next;

	for (; start < end; start = next) {
		struct vm_area_struct *vma = op->vma;
		bool locked = false;

		next = min(end, ALIGN(start + 1, LAZYZAP_PIECE));
		if (!vma) {
			vma = vma_lookup(mm, start);
			if (!vma)
				continue;
		} else if (start < vma->vm_start || start >= vma->vm_end) {
			vma = lock_vma_under_rcu(mm, start);
			if (!vma)
				return -EAGAIN;
			locked = true;
		}
		next = min(next, vma->vm_end);
		zap_vma_range(vma, start, next - start);
		if (locked)
			vma_end_read(vma);
		if (op->vma && fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}

	return 0;
}

/*
 * There is no memory for another range: zap the smaller remainder of a range
 * that has to be cut, and have the range end there.
 */
static int lazyzap_zap_remainder(struct lazyzap_op *op)
{
	unsigned long start = op->zap_start, end = op->zap_end;
	struct lazyzap_tree *tree = op->blocked;
	struct lazyzap_range *range;
	int error;

	lazyzap_set_unknown(op->lm->mm);
	end = lazyzap_begin_zap(tree, start, end);
	if (!end)
		return 0;
	error = lazyzap_zap_area(op, start, end);

	spin_lock(&tree->lock);
	range = lazyzap_find(tree, start);
	if (!error && range && range->start == start && range->end > end)
		lazyzap_resize(tree, range, end, range->end);
	else if (!error && range && range->start < start && range->end == end)
		lazyzap_resize(tree, range, range->start, start);
	spin_unlock(&tree->lock);
	lazyzap_end_zap(tree);

	return error;
}

/* Remove the reason for which lazyzap_try() had to stop. */
static int lazyzap_unblock(struct lazyzap_op *op)
{
	struct lazyzap_tree *tree = op->blocked;

	if (op->busy) {
		spin_lock(&tree->lock);
		wait_var_event_spinlock(&tree->zap_end,
					!lazyzap_zapping(tree, op->start, op->end),
					&tree->lock);
		spin_unlock(&tree->lock);
		return 0;
	}
	if (!op->full) {
		op->spare = kmem_cache_alloc(lazyzap_range_cache, LAZYZAP_GFP);
		op->full = !op->spare;
		return 0;
	}
	if (op->zap_end)
		return lazyzap_zap_remainder(op);

	return -ENOSPC;
}

static int lazyzap_run(struct lazyzap_op *op)
{
	struct lazyzap_range *range, *next;
	int error = 0;

	while (!error && !lazyzap_try(op))
		error = lazyzap_unblock(op);

	list_for_each_entry_safe(range, next, &op->gone, age)
		kmem_cache_free(lazyzap_range_cache, range);
	if (op->spare)
		kmem_cache_free(lazyzap_range_cache, op->spare);

	return error;
}

/**
 * lazyzap_begin_zap() - Begin to zap a part of a marked range.
 * @tree:	tree of the range
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Callers that remove ranges wait until lazyzap_end_zap().
 *
 * Context: may sleep, until another zap in @tree ends; VMAs of the part locked.
 * Return: end address (exclusive) of the part that is in one range, or 0 if
 *	there is no marked range at @start.
 */
unsigned long lazyzap_begin_zap(struct lazyzap_tree *tree, unsigned long start,
				unsigned long end)
{
	struct lazyzap_range *range;

	spin_lock(&tree->lock);
	wait_var_event_spinlock(&tree->zap_end, !tree->zap_end, &tree->lock);
	range = lazyzap_find(tree, start);
	if (range && range->marked && range->start <= start) {
		range->lost = true;
		end = min(end, range->end);
		tree->zap_start = start;
		tree->zap_end = end;
	} else {
		end = 0;
	}
	spin_unlock(&tree->lock);

	return end;
}

/**
 * lazyzap_end_zap() - End a zap that lazyzap_begin_zap() began.
 * @tree:	tree of the range
 *
 * Context: process; takes @tree->lock. See
 *	Documentation/litmus-tests/mm/lazyzap-wait.litmus.
 */
void lazyzap_end_zap(struct lazyzap_tree *tree)
{
	guard(spinlock)(&tree->lock);

	tree->zap_start = 0;
	tree->zap_end = 0;
	wake_up_var_locked(&tree->zap_end, &tree->lock);
}

/* Find the first part of an area that is in a marked range of a tree. */
static bool lazyzap_next_in(struct lazyzap_tree *tree, unsigned long start,
			    unsigned long end, struct lazyzap_part *part)
{
	struct lazyzap_range *range;

	guard(spinlock)(&tree->lock);

	range = lazyzap_find(tree, start);
	while (range && !range->marked)
		range = lazyzap_next_range(range);
	if (!range || range->start >= end)
		return false;
	part->start = max(range->start, start);
	part->end = min(range->end, end);
	part->tree = tree;

	return true;
}

/**
 * lazyzap_next() - Find the first marked part of an area.
 * @mm:		address space
 * @start:	start address
 * @end:	end address (exclusive)
 * @part:	the part, on return
 *
 * Context: any but interrupts; takes locks of trees. @mm cannot exit. The
 *	result may be out of date on return unless the area is locked for write.
 * Return: false if nothing in the area is marked.
 */
bool lazyzap_next(struct mm_struct *mm, unsigned long start, unsigned long end,
		  struct lazyzap_part *part)
{
	struct lazyzap_mm *lm = lazyzap_of(mm);
	bool found = false;
	unsigned int nr;

	if (!lm || start >= end)
		return false;

	nr = lazyzap_nr_shards(start, end);
	for (unsigned int i = 0; i <= nr; i++) {
		struct lazyzap_tree *tree = &lm->tree[LAZYZAP_LARGE];
		struct lazyzap_part other;

		if (i < nr)
			tree = lazyzap_shard(lm, start + ((unsigned long)i << LAZYZAP_CELL_SHIFT));
		if (RB_EMPTY_ROOT(&tree->ranges) ||
		    !lazyzap_next_in(tree, start, end, &other))
			continue;
		if (!found || other.start < part->start)
			*part = other;
		found = true;
	}

	return found;
}

/* See lazyzap_test(). */
bool __lazyzap_test(struct mm_struct *mm, unsigned long addr, unsigned long end,
		    struct lazyzap_part *part)
{
	if (addr >= part->end && !lazyzap_next(mm, addr, end, part)) {
		part->start = end;
		part->end = end;
	}

	return addr >= part->start && addr < part->end;
}

/**
 * lazyzap_covers() - Check if all of an area is in one marked range.
 * @mm:		address space
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Context: as lazyzap_next().
 * Return: true if it is, so that work on its pages would be in vain.
 */
bool lazyzap_covers(struct mm_struct *mm, unsigned long start,
		    unsigned long end)
{
	struct lazyzap_part part;

	return lazyzap_next(mm, start, end, &part) && part.start == start &&
	       part.end == end;
}

/* Size of the ranges that reclaim may zap, in pages, mapped or not. */
unsigned long lazyzap_marked_pages(struct lazyzap_mm *lm)
{
	unsigned long pages = 0;

	for (int i = 0; i < LAZYZAP_TREES; i++)
		pages += READ_ONCE(lm->tree[i].pages);

	return pages;
}

/**
 * lazyzap_mm_pages() - Estimate how many pages reclaim can zap.
 * @mm:		address space, which cannot exit
 *
 * Context: any.
 * Return: size of the marked ranges in pages, at most the resident anonymous
 *	pages of @mm.
 */
unsigned long lazyzap_mm_pages(const struct mm_struct *mm)
{
	struct lazyzap_mm *lm = lazyzap_of(mm);

	return lm ? min(lazyzap_marked_pages(lm),
			get_mm_counter((struct mm_struct *)mm, MM_ANONPAGES)) : 0;
}

/**
 * lazyzap_badness() - Correct the points of an address space in oom_badness().
 * @mm:		address space, which cannot exit
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

static struct lazyzap_link *lazyzap_alloc_link(struct lazyzap_mm *lm)
{
	struct lazyzap_link *link;

	link = kmem_cache_alloc_lru(lazyzap_link_cache, &lazyzap_lru, LAZYZAP_GFP);
	if (link) {
		INIT_LIST_HEAD(&link->lru);
		link->lm = lm;
	}

	return link;
}

/* Serial number of the memcg that memory of the caller is charged to. */
static u64 lazyzap_current_memcg(void)
{
#ifdef CONFIG_MEMCG
	struct mem_cgroup *memcg;

	guard(rcu)();
	memcg = mem_cgroup_from_task(current);
	if (memcg)
		return memcg->css.serial_nr;
#endif
	return 0;
}

static void lazyzap_free_mm(struct lazyzap_mm *lm)
{
	struct lazyzap_range *range, *next;

	for (int i = 0; i < LAZYZAP_TREES; i++) {
		struct lazyzap_tree *tree = &lm->tree[i];

		rbtree_postorder_for_each_entry_safe(range, next, &tree->ranges, node)
			kmem_cache_free(lazyzap_range_cache, range);
		if (tree->spare)
			kmem_cache_free(lazyzap_range_cache, tree->spare);
		cond_resched();
	}
	kmem_cache_free(lazyzap_link_cache, lm->link);
	kfree(lm);
}

static struct lazyzap_mm *lazyzap_alloc_mm(struct mm_struct *mm)
{
	static struct lock_class_key shard_key, large_key;
	struct lazyzap_mm *lm = kzalloc_obj(*lm, LAZYZAP_GFP);

	if (!lm)
		return NULL;
	lm->mm = mm;
	lm->memcg = lazyzap_current_memcg();
	lm->link = lazyzap_alloc_link(lm);
	if (!lm->link) {
		kfree(lm);
		return NULL;
	}
	spin_lock_init(&lm->link_lock);
	for (int i = 0; i < LAZYZAP_TREES; i++) {
		spin_lock_init(&lm->tree[i].lock);
		lockdep_set_class(&lm->tree[i].lock, i == LAZYZAP_LARGE ?
				  &large_key : &shard_key);
		lm->tree[i].ranges = RB_ROOT;
		INIT_LIST_HEAD(&lm->tree[i].by_age);
	}

	return lm;
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

static void lazyzap_list_add(struct lazyzap_mm *lm)
{
	guard(rcu)();
	list_lru_add(&lazyzap_lru, &lm->link->lru, LAZYZAP_LIST,
		     mem_cgroup_from_virt(lm->link));
}

static void lazyzap_list_del(struct lazyzap_mm *lm)
{
	guard(rcu)();
	list_lru_del(&lazyzap_lru, &lm->link->lru, LAZYZAP_LIST,
		     mem_cgroup_from_virt(lm->link));
}

/*
 * Have reclaim of the caller's memcg find the address space, though the task
 * may have been in another one. Returns false if there is no memory for that.
 */
static bool lazyzap_follow_memcg(struct lazyzap_mm *lm)
{
	u64 memcg = lazyzap_current_memcg();
	struct lazyzap_link *link;

	if (likely(READ_ONCE(lm->memcg) == memcg))
		return true;
	link = lazyzap_alloc_link(lm);
	if (!link)
		return false;

	spin_lock(&lm->link_lock);
	WRITE_ONCE(lm->listed, true);
	lazyzap_list_del(lm);
	swap(link, lm->link);
	lazyzap_list_add(lm);
	WRITE_ONCE(lm->memcg, memcg);
	spin_unlock(&lm->link_lock);
	kmem_cache_free(lazyzap_link_cache, link);

	return true;
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
	smp_mb();
	if (likely(READ_ONCE(lm->listed)))
		return;

	guard(spinlock)(&lm->link_lock);
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

static bool lazyzap_can_mark(struct vm_area_struct *vma, unsigned long size)
{
	/* No memcg would have the ranges on its list. */
	if (mem_cgroup_kmem_disabled() && !mem_cgroup_disabled())
		return false;
	if (size >> 10 < READ_ONCE(lazyzap_limits.min_range_kb))
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
 * @vma:	VMA that covers the range
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

	if (lazyzap_can_mark(vma, end - start))
		lm = lazyzap_mm_get(vma->vm_mm);
	if (lm && !lazyzap_under_pressure(lm) && lazyzap_follow_memcg(lm)) {
		LAZYZAP_OP(op, vma->vm_mm, vma, start, end, LAZYZAP_MARK);

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
 * lazyzap_record() - Record a range of MADV_FREE, before its pages are marked.
 * @vma:	VMA that covers the range
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
		LAZYZAP_OP(op, mm, vma, start, end, LAZYZAP_RECORD | LAZYZAP_KEEP);

		if (!lazyzap_run(&op) && (!op.kept || op.kept == end - start))
			return;
	}
	lazyzap_set_unknown(mm);
}

/**
 * lazyzap_drop() - Lazyfree pages have been dropped.
 * @mm:		address space
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Context: process; the page table lock of the pages held, so that
 *	MADV_FREE_UNDO either makes a page dirty before it can be dropped, or
 *	finds that the range is lost. See
 *	Documentation/litmus-tests/mm/lazyfree-undo.litmus.
 */
void lazyzap_drop(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct lazyzap_mm *lm = lazyzap_of(mm);
	unsigned int nr = lazyzap_nr_shards(start, end);

	for (unsigned int i = 0; i <= nr; i++) {
		struct lazyzap_tree *tree = &lm->tree[LAZYZAP_LARGE];
		struct lazyzap_range *range;

		if (i < nr)
			tree = lazyzap_shard(lm, start + ((unsigned long)i << LAZYZAP_CELL_SHIFT));
		spin_lock(&tree->lock);
		for (range = lazyzap_find(tree, start);
		     range && range->start < end; range = lazyzap_next_range(range))
			range->lost |= range->freed;
		spin_unlock(&tree->lock);
	}
}

/**
 * lazyzap_undo() - Unmark the ranges of an area, keeping their contents.
 * @vma:	VMA that covers the area
 * @start:	start address
 * @end:	end address (exclusive)
 * @clean:	before the walk that makes lazyfree pages dirty, which is not
 *		needed if this succeeds
 * @undo:	result so far
 *
 * Context: process; may sleep; @vma or its mm locked for read.
 * Return: 0 if the contents of all pages of the area are known to be there,
 *	-ENODATA if not, -EAGAIN if the call has to be restarted, -EINTR.
 */
int lazyzap_undo(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end, bool clean, struct lazyzap_undo *undo)
{
	struct mm_struct *mm = vma->vm_mm;
	bool known = mm_flags_test(MMF_LAZYZAP_UNKNOWN, mm);
	LAZYZAP_OP(op, mm, vma, start, end, clean ? LAZYZAP_CLEAN : 0);
	int error = 0;

	/*
	 * In the second call, all contents are known: reclaim drops none of
	 * them any more. If they are not everywhere, keep a range that says so.
	 */
	if (clean && known)
		return -ENODATA;
	if (known) {
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
	if (!mm_flags_test(MMF_FREE_UNDO, mm))
		mm_flags_set(MMF_FREE_UNDO, mm);

	return -ENODATA;
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
/*
 * Get the folio that a huge page entry maps, if only this process can reach it,
 * and make the entry dirty: the contents are about to change, without the CPU
 * setting a bit.
 */
static struct folio *lazyzap_get_huge(struct vm_area_struct *vma, pmd_t *pmd,
				      unsigned long addr)
{
	spinlock_t *ptl = pmd_trans_huge_lock(pmd, vma);
	struct folio *folio = NULL;
	pmd_t pmdval;

	if (!ptl)
		return NULL;
	pmdval = pmdp_get(pmd);
	if (pmd_present(pmdval) && !is_huge_zero_pmd(pmdval)) {
		folio = pmd_folio(pmdval);
		/* One reference is the mapping's. */
		if (!PageAnonExclusive(pmd_page(pmdval)) || folio_test_swapcache(folio) ||
		    folio_ref_count(folio) != 1 || !folio_trylock(folio)) {
			folio = NULL;
		} else {
			folio_get(folio);
			pmdp_set_access_flags(vma, addr & HPAGE_PMD_MASK, pmd,
					      pmd_mksoft_dirty(pmd_mkdirty(pmd_mkyoung(pmdval))),
					      1);
		}
	}
	spin_unlock(ptl);

	return folio;
}

/*
 * Clear a part of a huge page in place. The lock of the folio keeps reclaim,
 * migration and a split from copying or moving the contents meanwhile. Returns
 * false if the part has to be zapped.
 */
static bool lazyzap_clear_huge(struct vm_area_struct *vma, pmd_t *pmd,
			       unsigned long start, unsigned long end)
{
	struct folio *folio = lazyzap_get_huge(vma, pmd, start);
	unsigned long first = (start & ~HPAGE_PMD_MASK) >> PAGE_SHIFT;

	if (!folio)
		return false;
	for (unsigned long i = 0; i < (end - start) >> PAGE_SHIFT; i++) {
		clear_user_highpage(folio_page(folio, first + i),
				    start + (i << PAGE_SHIFT));
		cond_resched();
	}
	folio_unlock(folio);
	folio_put(folio);

	return true;
}
#else
static bool lazyzap_clear_huge(struct vm_area_struct *vma, pmd_t *pmd,
			       unsigned long start, unsigned long end)
{
	return false;
}
#endif

/* Pages to clear before the page table lock is released. */
#define LAZYZAP_CLEAR_BATCH	16

/*
 * Check if a page can be cleared in place: only this process can reach it, and
 * the entry is dirty, so that reclaim will not restore older contents.
 */
static bool lazyzap_can_clear(struct vm_area_struct *vma, unsigned long addr,
			      pte_t pte)
{
	struct page *page = vm_normal_page(vma, addr, pte);
	struct folio *folio;

	if (!page || !PageAnon(page) || !PageAnonExclusive(page) ||
	    !pte_write(pte) || !pte_dirty(pte))
		return false;
	folio = page_folio(page);

	/* Each mapping has one reference. Others may read or write the page. */
	return !folio_test_swapcache(folio) &&
	       folio_ref_count(folio) == folio_mapcount(folio);
}

/*
 * Clear pages of a page table in place until one is met that has to be zapped.
 * Returns its address, or @end; and in @next the end address (exclusive) of the
 * pages that have to be zapped.
 */
static unsigned long lazyzap_clear_ptes(struct vm_area_struct *vma, pmd_t *pmd,
					unsigned long addr, unsigned long end,
					unsigned long *next)
{
	unsigned int cleared = 0;
	pte_t *start_pte, *pte;
	unsigned long zap = end;
	spinlock_t *ptl;

	start_pte = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!start_pte) {
		*next = end;
		return addr;
	}
	flush_tlb_batched_pending(vma->vm_mm);
	for (pte = start_pte; addr < end; pte++, addr += PAGE_SIZE) {
		pte_t ptent = ptep_get(pte);

		if (pte_none(ptent) ||
		    (pte_present(ptent) && is_zero_pfn(pte_pfn(ptent)))) {
			if (zap < end)
				break;
		} else if (!pte_present(ptent) ||
			   !lazyzap_can_clear(vma, addr, ptent)) {
			zap = min(zap, addr);
		} else {
			if (zap < end || cleared++ == LAZYZAP_CLEAR_BATCH)
				break;
			clear_user_highpage(pte_page(ptent), addr);
		}
	}
	pte_unmap_unlock(start_pte, ptl);
	*next = addr;

	return min(zap, addr);
}

/* Zero a part that has been unmarked, at most one piece. */
static void lazyzap_clear(struct vm_area_struct *vma, unsigned long start,
			  unsigned long end)
{
	unsigned long addr, limit, next, zap;
	pmd_t *pmd;

	/* The tags of the memory have to go as well. */
	if (vma->vm_flags & VM_MTE) {
		zap_vma_range(vma, start, end - start);
		return;
	}
	for (addr = start; addr < end; addr = next) {
		limit = pmd_addr_end(addr, end);
		next = limit;
		pmd = mm_find_pmd(vma->vm_mm, addr);
		if (!pmd || lazyzap_clear_huge(vma, pmd, addr, limit))
			continue;
		zap = lazyzap_clear_ptes(vma, pmd, addr, limit, &next);
		if (zap < next)
			zap_vma_range(vma, zap, next - zap);
		cond_resched();
	}
}

/**
 * lazyzap_unmark() - Unmark an area: pages of it that were marked read zero.
 * @vma:	VMA that covers the area
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Context: process; may sleep; @vma or its mm locked for read.
 * Return: 0, -EAGAIN if the call has to be restarted, or -EINTR.
 */
int lazyzap_unmark(struct vm_area_struct *vma, unsigned long start,
		   unsigned long end)
{
	struct lazyzap_part part;
	int error;

	for (; lazyzap_next(vma->vm_mm, start, end, &part); start = part.end) {
		part.end = min(part.end, ALIGN(part.start + 1, LAZYZAP_PIECE));
		LAZYZAP_OP(op, vma->vm_mm, vma, part.start, part.end, 0);

		error = lazyzap_run(&op);
		if (error)
			return error;
		if (op.covered)
			lazyzap_clear(vma, part.start, part.end);
		trace_lazyzap_unmark(vma->vm_mm, part.start, part.end);
		if (fatal_signal_pending(current))
			return -EINTR;
	}

	return 0;
}

/**
 * lazyzap_forget() - Remove the ranges of an area that the caller zaps or has
 *	unmapped.
 * @mm:		address space
 * @vma:	VMA that covers the area, or NULL if mmap_lock is held
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Context: process; may sleep; the area locked, at least for read.
 * Return: 0; with @vma also -EAGAIN if the call has to be restarted, or -EINTR.
 */
int lazyzap_forget(struct mm_struct *mm, struct vm_area_struct *vma,
		   unsigned long start, unsigned long end)
{
	LAZYZAP_OP(op, mm, vma, start, end, 0);

	return lazyzap_run(&op);
}

/**
 * lazyzap_unseal() - Unmark an area that is being sealed, keeping its contents.
 * @vma:	VMA that covers the area
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Context: process; may sleep; mmap_lock and @vma locked for write.
 */
void lazyzap_unseal(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end)
{
	struct lazyzap_part part;

	for (; lazyzap_next(vma->vm_mm, start, end, &part); start = part.end)
		lazyzap_forget(vma->vm_mm, NULL, part.start, part.end);
}

/**
 * lazyzap_zap() - Zap the marked parts of an area that may not stay marked.
 * @vma:	VMA that covers the area
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Context: process; may sleep; mmap_lock and @vma locked for write.
 */
void lazyzap_zap(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end)
{
	struct lazyzap_part part;

	for (; lazyzap_next(vma->vm_mm, start, end, &part); start = part.end) {
		lazyzap_set_unknown(vma->vm_mm);
		lazyzap_forget(vma->vm_mm, NULL, part.start, part.end);
		zap_vma_range(vma, part.start, part.end - part.start);
	}
}

/**
 * lazyzap_move() - Prepare an area for mremap(2), which does not move ranges.
 * @vma:	VMA that covers the area
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Context: process; may sleep; mmap_lock and @vma locked for write.
 */
void lazyzap_move(struct vm_area_struct *vma, unsigned long start,
		  unsigned long end)
{
	LAZYZAP_OP(op, vma->vm_mm, NULL, start, end, 0);

	lazyzap_zap(vma, start, end);
	lazyzap_run(&op);
	if (op.covered)
		lazyzap_set_unknown(vma->vm_mm);
}

/**
 * lazyzap_expire() - Zap the marked parts of an area now, as reclaim would.
 * @vma:	VMA that covers the area
 * @start:	start address
 * @end:	end address (exclusive)
 *
 * Unlike lazyzap_zap(), this leaves the ranges there, so the owner of the memory
 * may work on them at the same time.
 *
 * Context: process; may sleep; @vma or its mm locked for read.
 */
void lazyzap_expire(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end)
{
	struct lazyzap_part part;

	for (; lazyzap_next(vma->vm_mm, start, end, &part); start = part.end) {
		part.end = min(part.end, ALIGN(part.start + 1, LAZYZAP_PIECE));
		part.end = lazyzap_begin_zap(part.tree, part.start, part.end) ?: part.start;
		if (part.end == part.start)
			continue;
		lazyzap_zap_piece(vma, part.start, part.end, false);
		lazyzap_end_zap(part.tree);
		if (fatal_signal_pending(current))
			break;
	}
}

/**
 * lazyzap_fork() - Zap pages in a child that are marked in the parent.
 * @child:	VMA whose pages have been copied
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
 * lazyzap_fork_flags() - Have a child inherit what its ranges do not tell.
 * @child:	new address space, without ranges
 * @parent:	address space that was copied
 *
 * Context: process; both address spaces locked for write.
 */
void lazyzap_fork_flags(struct mm_struct *child, struct mm_struct *parent)
{
	if (mm_flags_test(MMF_LAZYZAP_UNKNOWN, parent) || lazyzap_of(parent))
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
 * @mm:		address space, without users and page tables
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

/* Count present pages in a part of a page table, or of a huge page. */
static unsigned long lazyzap_count_pmd(struct vm_area_struct *vma, pmd_t *pmd,
				       unsigned long addr, unsigned long end)
{
	unsigned long pages = 0;
	pte_t *start_pte, *pte;
	spinlock_t *ptl;

	ptl = pmd_trans_huge_lock(pmd, vma);
	if (ptl) {
		if (pmd_present(*pmd) && !is_huge_zero_pmd(*pmd))
			pages = (end - addr) >> PAGE_SHIFT;
		spin_unlock(ptl);
		return pages;
	}
	start_pte = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!start_pte)
		return 0;
	for (pte = start_pte; addr < end; pte++, addr += PAGE_SIZE) {
		pte_t ptent = ptep_get(pte);

		if (pte_present(ptent) && vm_normal_page(vma, addr, ptent))
			pages++;
	}
	pte_unmap_unlock(start_pte, ptl);

	return pages;
}

/**
 * lazyzap_present_pages() - Count present pages that are marked.
 * @vma:	VMA
 * @start:	start address, in @vma
 *
 * Context: process; may sleep; @vma or its mm locked for read.
 * Return: number of pages in @vma, from @start on.
 */
unsigned long lazyzap_present_pages(struct vm_area_struct *vma,
				    unsigned long start)
{
	struct lazyzap_part part;
	unsigned long pages = 0, next;

	while (lazyzap_next(vma->vm_mm, start, vma->vm_end, &part)) {
		for (start = part.start; start < part.end; start = next) {
			next = lazyzap_skip_holes(vma->vm_mm, start, part.end);
			if (next == start) {
				next = pmd_addr_end(start, part.end);
				pages += lazyzap_count_pmd(vma, mm_find_pmd(vma->vm_mm, start),
							   start, next);
			}
			cond_resched();
		}
	}

	return pages;
}

/**
 * lazyzap_set_debug() - Set what MADV_SPLITTABLE does, for prctl(2).
 * @mode:	PR_MADV_SPLITTABLE_DEBUG_*
 *
 * Context: process.
 * Return: 0, or -EINVAL.
 */
int lazyzap_set_debug(unsigned long mode)
{
	struct mm_struct *mm = current->mm;

	if (mode > PR_MADV_SPLITTABLE_DEBUG_GUARD)
		return -EINVAL;
	mm_flags_clear(MMF_SPLITTABLE_ZAP, mm);
	mm_flags_clear(MMF_SPLITTABLE_GUARD, mm);
	if (mode == PR_MADV_SPLITTABLE_DEBUG_ZAP)
		mm_flags_set(MMF_SPLITTABLE_ZAP, mm);
	else if (mode == PR_MADV_SPLITTABLE_DEBUG_GUARD)
		mm_flags_set(MMF_SPLITTABLE_GUARD, mm);

	return 0;
}

static int __init lazyzap_init(void)
{
	lazyzap_range_cache = KMEM_CACHE(lazyzap_range, SLAB_PANIC);
	lazyzap_link_cache = KMEM_CACHE(lazyzap_link, SLAB_PANIC);
	return lazyzap_reclaim_init();
}
core_initcall(lazyzap_init);

#include "tests/lazyzap_kunit.h"
