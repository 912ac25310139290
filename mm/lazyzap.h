/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ranges that reclaim may zap: MADV_SPLITTABLE, and MADV_FREE with
 * MADV_FREE_UNDO. See Documentation/admin-guide/mm/lazyfree.rst.
 */
#ifndef _MM_LAZYZAP_H
#define _MM_LAZYZAP_H

#include <linux/atomic.h>
#include <linux/lazyzap.h>
#include <linux/list.h>
#include <linux/rbtree.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>

/*
 * A range that does not cross a boundary of cells lives in the tree of its
 * cell's shard, any other in the large tree. Threads that work on cells of
 * their own do not share a lock.
 */
#define LAZYZAP_CELL_SHIFT	21
#define LAZYZAP_SHARDS		16
#define LAZYZAP_LARGE		LAZYZAP_SHARDS
#define LAZYZAP_TREES		(LAZYZAP_SHARDS + 1)

/* Reclaim and MADV_UNSPLITTABLE work on parts of this size. */
#define LAZYZAP_PIECE		SZ_2M

/**
 * struct lazyzap_range - range of an address space
 * @node:	in lazyzap_tree.ranges
 * @age:	in lazyzap_tree.by_age, or empty if reclaim has nothing to zap
 * @start:	start address
 * @end:	end address (exclusive)
 * @cursor:	address where reclaim continues; it has seen the pages before
 * @stamp:	time of the call that marked the range, in jiffies
 * @pass:	last pass of reclaim that reached @end but had to skip a part
 * @marked:	MADV_SPLITTABLE marked the range, so reclaim may zap it
 * @freed:	the range may have lazyfree pages, so reclaim may drop these
 * @lost:	the contents of a page may be lost
 * @missed:	reclaim has skipped a part since @cursor was at @start
 */
struct lazyzap_range {
	struct rb_node node;
	struct list_head age;
	unsigned long start;
	unsigned long end;
	unsigned long cursor;
	unsigned long stamp;
	unsigned int pass;
	bool marked;
	bool freed;
	bool lost;
	bool missed;
};

/**
 * struct lazyzap_tree - ranges of a shard, or those that cross cells
 * @lock:	protects all fields and the ranges
 * @ranges:	ranges by address
 * @by_age:	marked ranges that reclaim may zap, roughly oldest first
 * @pages:	size of the ranges in @by_age, in pages
 * @zap_start:	start address of the part that is being zapped
 * @zap_end:	end address (exclusive) of this part, or 0 if there is none
 * @spare:	unused range for the next caller, or NULL
 *
 * Lock order: page table lock or lock of the list_lru, large tree, shard. A
 * task that holds one of these locks neither allocates nor sleeps.
 */
struct lazyzap_tree {
	spinlock_t lock;
	struct rb_root ranges;
	struct list_head by_age;
	unsigned long pages;
	unsigned long zap_start;
	unsigned long zap_end;
	struct lazyzap_range *spare;
} ____cacheline_aligned_in_smp;

/**
 * struct lazyzap_link - place of an address space in a list_lru
 * @lru:	in the list of the memcg that @link is charged to
 * @lm:		ranges of the address space
 */
struct lazyzap_link {
	struct list_head lru;
	struct lazyzap_mm *lm;
};

/**
 * struct lazyzap_mm - ranges of an address space
 * @mm:		the address space
 * @link:	place in the list_lru; replaced if the task changes its memcg
 * @link_lock:	protects @link, @memcg; taken outside of the list_lru's lock
 * @memcg:	serial number of the memcg that @link was allocated for
 * @listed:	@link is in the list, or is about to be added
 * @zapped_at:	time of the last zap by reclaim in jiffies, or 0
 * @nr:		number of ranges, at most max_ranges_per_mm
 * @nr_large:	number of ranges in the large tree, and of tasks that are about
 *		to insert one there; written under the lock of the large tree
 * @tree:	the shards, then the large tree
 *
 * Invariants: ranges do not overlap. A marked page is marked or has been
 * zapped: only mseal(2), MADV_UNSPLITTABLE (after it has zeroed the page) and
 * MADV_FREE_UNDO unmark a page without zapping it. If a range is not lost, no
 * page of it has lost its contents since the call that created the range.
 *
 * A task removes a range with mmap_lock or the VMA locked, at least for read,
 * and waits first for a zap of the same addresses to end. Reclaim holds the VMA
 * lock for read from before it sets @zap_end until it has cleared it.
 */
struct lazyzap_mm {
	struct mm_struct *mm;
	struct lazyzap_link *link;
	spinlock_t link_lock;
	u64 memcg;
	bool listed;
	unsigned long zapped_at;
	atomic_t nr;
	int nr_large;
	struct lazyzap_tree tree[LAZYZAP_TREES];
};

/**
 * struct lazyzap_undo - result of MADV_FREE_UNDO so far
 * @covered:	bytes that were in ranges
 * @lost:	one of these ranges has lost the contents of a page
 */
struct lazyzap_undo {
	unsigned long covered;
	bool lost;
};

/**
 * struct lazyzap_limits - tunables in /sys/kernel/mm/lazyfree/
 * @min_age_ms:		age below which reclaim skips a range at DEF_PRIORITY
 * @max_ranges_per_mm:	limit of lazyzap_mm.nr
 * @min_range_kb:	size below which MADV_SPLITTABLE zaps immediately
 */
struct lazyzap_limits {
	unsigned int min_age_ms;
	unsigned int max_ranges_per_mm;
	unsigned int min_range_kb;
};

extern struct lazyzap_limits lazyzap_limits;

/* Address spaces with marked ranges, by memcg; all on one list a memcg. */
extern struct list_lru lazyzap_lru;
#define LAZYZAP_LIST	0

/* Changes of mappings. Callers test lazyzap_of() first. */
int lazyzap_forget(struct mm_struct *mm, struct vm_area_struct *vma,
		   unsigned long start, unsigned long end);
void lazyzap_unseal(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end);
void lazyzap_zap(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end);
void lazyzap_expire(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end);
void lazyzap_move(struct vm_area_struct *vma, unsigned long start,
		  unsigned long end);
void lazyzap_fork(struct vm_area_struct *child, struct mm_struct *parent);
void lazyzap_exit(struct mm_struct *mm);
void lazyzap_drop(struct mm_struct *mm, unsigned long start, unsigned long end);
bool lazyzap_covers(struct mm_struct *mm, unsigned long start,
		    unsigned long end);
long lazyzap_badness(struct mm_struct *mm);

/* Reclaim */
struct lazyzap_range *lazyzap_find(struct lazyzap_tree *tree,
				   unsigned long addr);
unsigned long lazyzap_begin_zap(struct lazyzap_tree *tree, unsigned long start,
				unsigned long end);
void lazyzap_end_zap(struct lazyzap_tree *tree);
unsigned long lazyzap_zap_piece(struct vm_area_struct *vma, unsigned long start,
				unsigned long end, bool reclaim_pt);
unsigned long lazyzap_skip_holes(struct mm_struct *mm, unsigned long addr,
				 unsigned long end);
unsigned long lazyzap_pages(struct mem_cgroup *memcg);
unsigned long lazyzap_reclaim(struct mem_cgroup *memcg, int nid,
			      unsigned long nr_to_reclaim, bool young);
unsigned long lazyzap_marked_pages(struct lazyzap_mm *lm);
int lazyzap_reclaim_init(void);

/* Calls of madvise(2) */
int lazyzap_unmark(struct vm_area_struct *vma, unsigned long start,
		   unsigned long end);

#ifdef CONFIG_MADV_SPLITTABLE
int lazyzap_mark(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end);
int lazyzap_undo(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end, bool clean, struct lazyzap_undo *undo);
void lazyzap_record(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end);
void lazyzap_fork_flags(struct mm_struct *child, struct mm_struct *parent);
unsigned long lazyzap_drain(struct mem_cgroup *memcg);

/* PR_MADV_SPLITTABLE_DEBUG_GUARD */
static inline bool lazyzap_guards(const struct mm_struct *mm)
{
	return mm_flags_test(MMF_SPLITTABLE_GUARD, mm);
}
#else
static inline int lazyzap_mark(struct vm_area_struct *vma, unsigned long start,
			       unsigned long end)
{
	return -ENODATA;
}

static inline int lazyzap_undo(struct vm_area_struct *vma, unsigned long start,
			       unsigned long end, bool clean,
			       struct lazyzap_undo *undo)
{
	return -ENODATA;
}

static inline void lazyzap_record(struct vm_area_struct *vma,
				  unsigned long start, unsigned long end)
{
}

static inline bool lazyzap_guards(const struct mm_struct *mm)
{
	return false;
}

static inline void lazyzap_fork_flags(struct mm_struct *child,
				      struct mm_struct *parent)
{
}

static inline unsigned long lazyzap_drain(struct mem_cgroup *memcg)
{
	return 0;
}
#endif

#endif /* _MM_LAZYZAP_H */
