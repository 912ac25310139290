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
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>

#include "internal.h"
#include "lazyzap.h"

struct lazyzap_limits lazyzap_limits __read_mostly = {
	.min_age_ms = 1000,
	.max_ranges_per_mm = 4096,
};

/* Address spaces with marked ranges, by memcg; all on one list a memcg. */
struct list_lru lazyzap_lru;

static struct kmem_cache *lazyzap_range_cache __ro_after_init;

/*
 * Number cells in the order of their addresses. Every 17th number or so is left
 * out, so that threads whose heaps are a power of two apart have different shards.
 */
static unsigned long lazyzap_cell(unsigned long addr)
{
	return (u64)(addr >> LAZYZAP_CELL_SHIFT) * 69393 >> 16;
}

static struct lazyzap_tree *lazyzap_shard(struct lazyzap_mm *lm,
					  unsigned long cell)
{
	return &lm->tree[cell % LAZYZAP_SHARDS];
}

/* Number of shards that an area touches. */
static unsigned int lazyzap_nr_shards(unsigned long start, unsigned long end)
{
	unsigned long cells = lazyzap_cell(end - 1) - lazyzap_cell(start) + 1;

	return min(cells, LAZYZAP_SHARDS);
}

/* One of the trees that may have ranges of an area: its shards, then the large. */
static struct lazyzap_tree *lazyzap_tree_of(struct lazyzap_mm *lm,
					    unsigned long start,
					    unsigned long end, unsigned int i)
{
	if (i == lazyzap_nr_shards(start, end))
		return &lm->tree[LAZYZAP_LARGE];
	return lazyzap_shard(lm, lazyzap_cell(start) + i);
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
void lazyzap_set_unknown(struct mm_struct *mm)
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

void lazyzap_age_del(struct lazyzap_tree *tree, struct lazyzap_range *range)
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
	} else if (tree->nr_spares) {
		range = list_first_entry(&tree->spares, struct lazyzap_range, age);
		list_del(&range->age);
		tree->nr_spares--;
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
	if (tree->nr_spares == LAZYZAP_SPARES) {
		list_add(&range->age, &op->gone);
	} else {
		list_add(&range->age, &tree->spares);
		tree->nr_spares++;
	}
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
	bool head = start - range->start < range->end - end; /* is the smaller */
	struct lazyzap_range *tail;

	if (start == range->start && end == range->end) {
		lazyzap_erase(op, tree, range);
		return true;
	}
	if (start != range->start && end != range->end) {
		tail = lazyzap_take_spare(op, tree);
		if (tail) {
			*tail = *range;
			tail->start = end;
			tail->cursor = clamp(range->cursor, end, range->end - PAGE_SIZE);
			lazyzap_link_range(op->lm, tree, tail);
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
				head = start - range->start <
				       range->end - clamp(op->next_end, end, range->end);
				op->zap_start = head ? range->start : end;
				op->zap_end = head ? start : range->end;
			}
			return false;
		}
		lazyzap_set_unknown(op->lm->mm);
	}
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

	/* Half of the limit is for marked ranges only. */
	if (!marked && atomic_read(&op->lm->nr) >= READ_ONCE(lazyzap_limits.max_ranges_per_mm) / 2)
		op->full = true;
	range = op->full ? NULL : lazyzap_take_spare(op, tree);
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

static void lazyzap_unlock_shard(struct lazyzap_tree *tree)
{
	WRITE_ONCE(tree->in_use, !RB_EMPTY_ROOT(&tree->ranges));
	spin_unlock(&tree->lock);
}

/*
 * Change all trees that may have ranges of the area. The lock of the large tree
 * keeps others from inserting ranges which cross cells. A task that only works
 * on one cell does without that lock if nr_large is 0.
 *
 * A task that inserts in a shard sets @in_use of the shard before it looks at
 * nr_large. A task that inserts in the large tree increments nr_large before it
 * looks at @in_use of the shards. So one of the two finds the range of the other.
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
	op->kept = 0;
	op->zap_end = 0;
again:
	wide |= READ_ONCE(op->lm->nr_large);
	if (wide)
		spin_lock(&large->lock);
	if (nr == 1) {
		home = lazyzap_shard(op->lm, lazyzap_cell(op->start));
		spin_lock(&home->lock);
		if (inserts) {
			WRITE_ONCE(home->in_use, true);
			smp_mb(); /* Pairs with the one below. */
		}
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
		if (inserts) {
			WRITE_ONCE(op->lm->nr_large, op->lm->nr_large + 1);
			smp_mb(); /* Pairs with the one above. */
		}
		done = true;
		tree = lazyzap_shard(op->lm, lazyzap_cell(op->start));
		for (unsigned int left = nr; done && left; left--, tree++) {
			if (tree == large)
				tree = op->lm->tree;
			if (!READ_ONCE(tree->in_use))
				continue;
			spin_lock(&tree->lock);
			done = lazyzap_visit(op, tree);
			lazyzap_unlock_shard(tree);
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
		lazyzap_unlock_shard(home);
	if (wide)
		spin_unlock(&large->lock);

	return done;
}

/* Zap an area that is in the same range as the area of the operation. */
static int lazyzap_zap_area(struct lazyzap_op *op, unsigned long start,
			    unsigned long end)
{
	struct mm_struct *mm = op->lm->mm;
	unsigned long next;

	for (; start < end; start = next) {
		struct vm_area_struct *vma = op->vma;
		bool locked = false;

		next = min(end, ALIGN(start + 1, PUD_SIZE));
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
 * that has to be cut, and unmark it. The remainder is marked memory, so the owner
 * has to expect a zap.
 */
static int lazyzap_zap_remainder(struct lazyzap_op *op)
{
	unsigned long start = op->zap_start, end = op->zap_end;
	struct lazyzap_tree *tree = op->blocked;
	struct lazyzap_range *range;
	int error;

	lazyzap_set_unknown(op->lm->mm);
	end = lazyzap_begin_zap(tree, start, end, false);
	if (!end)
		return 0;
	error = lazyzap_zap_area(op, start, end);

	/* The range still has this part, but it may have grown meanwhile. */
	spin_lock(&tree->lock);
	range = lazyzap_find(tree, start);
	if (!error && range->start == start && range->end > end)
		lazyzap_resize(tree, range, end, range->end);
	else if (!error && range->start < start && range->end == end)
		lazyzap_resize(tree, range, range->start, start);
	else
		range->lost = true;
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

int lazyzap_run(struct lazyzap_op *op)
{
	struct lazyzap_range *range, *next;
	int error = 0;

	INIT_LIST_HEAD(&op->gone);
	while (!error && !lazyzap_try(op))
		error = lazyzap_unblock(op);

	list_for_each_entry_safe(range, next, &op->gone, age)
		kmem_cache_free(lazyzap_range_cache, range);
	if (op->spare)
		kmem_cache_free(lazyzap_range_cache, op->spare);

	return error;
}

/*
 * Begin to zap a part of a marked range. Callers that remove ranges wait until
 * lazyzap_end_zap(). The range is lost if @lost, that is unless the caller cuts
 * the part off. Return: end address (exclusive) of the part that is in one
 * range, or 0 if there is no marked range at @start. Context: may sleep, until
 * another zap in @tree ends; VMAs of the part locked.
 */
unsigned long lazyzap_begin_zap(struct lazyzap_tree *tree, unsigned long start,
				unsigned long end, bool lost)
{
	struct lazyzap_range *range;

	spin_lock(&tree->lock);
	wait_var_event_spinlock(&tree->zap_end, !tree->zap_end, &tree->lock);
	range = lazyzap_find(tree, start);
	if (range && range->marked && range->start <= start) {
		range->lost |= lost;
		end = min(end, range->end);
		tree->zap_start = start;
		tree->zap_end = end;
	} else {
		end = 0;
	}
	spin_unlock(&tree->lock);

	return end;
}

/*
 * End a zap that lazyzap_begin_zap() began. Context: process; takes
 * @tree->lock. See Documentation/litmus-tests/mm/lazyzap-wait.litmus.
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
 * @mm:		address space, which cannot exit
 * @start:	start address of the area
 * @end:	end address (exclusive)
 * @part:	the part, unless nothing is marked
 *
 * The result may be out of date on return unless the area is locked for write.
 *
 * Context: any but interrupts; takes locks of trees.
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

	/* The large tree, then the shards, which begin one cell after the other. */
	nr = lazyzap_nr_shards(start, end);
	for (unsigned int i = 0; i <= nr; i++) {
		struct lazyzap_tree *tree = lazyzap_tree_of(lm, start, end, i ? i - 1 : nr);
		struct lazyzap_part other;

		if (found && lazyzap_cell(part->start) < lazyzap_cell(start) + i - 1)
			break;
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
 * lazyzap_next_pmds() - Find page tables with nothing but marked memory.
 * @mm:		address space
 * @start:	start address of the area to search
 * @end:	end address (exclusive)
 * @part:	the first part of the area that consists of whole page tables, all
 *		in one marked range
 *
 * For work on pages that would be in vain if they are marked, and would split
 * huge pages if it left out parts of them.
 *
 * Context: as lazyzap_next().
 * Return: false if there is no such part.
 */
bool lazyzap_next_pmds(struct mm_struct *mm, unsigned long start,
		       unsigned long end, struct lazyzap_part *part)
{
	for (; lazyzap_next(mm, start, end, part); start = part->end) {
		if (ALIGN(part->start, PMD_SIZE) >= ALIGN_DOWN(part->end, PMD_SIZE))
			continue;
		part->start = ALIGN(part->start, PMD_SIZE);
		part->end = ALIGN_DOWN(part->end, PMD_SIZE);
		return true;
	}

	return false;
}

/* Size of the ranges that reclaim may zap, in pages, mapped or not. */
static unsigned long lazyzap_marked_pages(struct lazyzap_mm *lm)
{
	unsigned long pages = 0;

	for (int i = 0; i < LAZYZAP_TREES; i++)
		pages += READ_ONCE(lm->tree[i].pages);

	return pages;
}

/**
 * lazyzap_mm_pages() - Estimate how many pages reclaim can zap.
 * @mm:		address space
 *
 * Context: any.
 * Return: size of the marked ranges in pages, at most the resident anonymous
 * pages.
 */
unsigned long lazyzap_mm_pages(const struct mm_struct *mm)
{
	struct lazyzap_mm *lm = lazyzap_of(mm);

	return lm ? min(lazyzap_marked_pages(lm),
			get_mm_counter((struct mm_struct *)mm, MM_ANONPAGES)) : 0;
}

/**
 * lazyzap_drop() - Note that contents are lost, marked or lazyfree.
 * @mm:		address space
 * @start:	start address of the pages
 * @end:	end address (exclusive)
 *
 * Reclaim calls this with the page table lock of lazyfree pages held that it
 * drops: MADV_FREE_UNDO either makes a page dirty before it can be dropped, or
 * finds that the range is lost. See
 * Documentation/litmus-tests/mm/lazyfree-undo.litmus.
 *
 * Context: any but interrupts; takes locks of trees.
 */
void lazyzap_drop(struct mm_struct *mm, unsigned long start, unsigned long end)
{
	struct lazyzap_mm *lm = lazyzap_of(mm);
	unsigned int nr = lazyzap_nr_shards(start, end);

	for (unsigned int i = 0; i <= nr; i++) {
		struct lazyzap_tree *tree = lazyzap_tree_of(lm, start, end, i);
		struct lazyzap_range *range;

		spin_lock(&tree->lock);
		for (range = lazyzap_find(tree, start);
		     range && range->start < end; range = lazyzap_next_range(range))
			range->lost = true;
		spin_unlock(&tree->lock);
	}
}

void lazyzap_free_mm(struct lazyzap_mm *lm)
{
	struct lazyzap_range *range, *next;

	for (int i = 0; i < LAZYZAP_TREES; i++) {
		struct lazyzap_tree *tree = &lm->tree[i];

		rbtree_postorder_for_each_entry_safe(range, next, &tree->ranges, node)
			kmem_cache_free(lazyzap_range_cache, range);
		list_for_each_entry_safe(range, next, &tree->spares, age)
			kmem_cache_free(lazyzap_range_cache, range);
		cond_resched();
	}
	obj_cgroup_put(lm->objcg);
	kfree(lm);
}

struct lazyzap_mm *lazyzap_alloc_mm(struct mm_struct *mm)
{
	static struct lock_class_key shard_key, large_key;
	struct lazyzap_mm *lm = kzalloc_obj(*lm, LAZYZAP_GFP);

	if (!lm)
		return NULL;
	lm->mm = mm;
	INIT_LIST_HEAD(&lm->lru);
	spin_lock_init(&lm->objcg_lock);
	for (int i = 0; i < LAZYZAP_TREES; i++) {
		spin_lock_init(&lm->tree[i].lock);
		lockdep_set_class(&lm->tree[i].lock, i == LAZYZAP_LARGE ?
				  &large_key : &shard_key);
		lm->tree[i].ranges = RB_ROOT;
		INIT_LIST_HEAD(&lm->tree[i].by_age);
		INIT_LIST_HEAD(&lm->tree[i].spares);
	}

	return lm;
}

static int __init lazyzap_init(void)
{
	static struct lock_class_key key;

	lazyzap_range_cache = KMEM_CACHE(lazyzap_range, SLAB_PANIC);
	return list_lru_init_memcg_key(&lazyzap_lru, NULL, &key);
}
core_initcall(lazyzap_init);

#include "tests/lazyzap_kunit.h"
