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

struct oom_control;

/*
 * A range that does not cross a boundary of cells lives in the tree of its
 * cell's shard, any other in the large tree. Threads that work on cells of
 * their own do not share a lock.
 */
#define LAZYZAP_CELL_SHIFT	21
#define LAZYZAP_SHARDS		16
#define LAZYZAP_LARGE		LAZYZAP_SHARDS
#define LAZYZAP_TREES		(LAZYZAP_SHARDS + 1)

/* Ranges of a tree that are kept, as an allocator uses many again soon. */
#define LAZYZAP_SPARES		16

/* A caller can do without the memory, so do not kill a process for it. */
#define LAZYZAP_GFP	(GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN)

/* Reclaim and MADV_UNSPLITTABLE work on parts of this size. */
#define LAZYZAP_PIECE		SZ_2M

/* A range of an address space. It is marked, or has lazyfree pages, or both. */
struct lazyzap_range {
	struct rb_node node;
	struct list_head age;	/* in by_age, or spares; empty: nothing to zap */
	unsigned long start;
	unsigned long end;	/* exclusive, as all end addresses here */
	unsigned long cursor;	/* reclaim has seen the pages before */
	unsigned long stamp;	/* when the range was marked, in jiffies */
	unsigned int pass;	/* last pass of reclaim that had to skip a part */
	bool marked;		/* by MADV_SPLITTABLE: reclaim may zap it */
	bool freed;		/* by MADV_FREE: reclaim may drop pages of it */
	bool lost;		/* the contents of a page may be lost */
	bool missed;		/* reclaim has skipped a part before @cursor */
};

/*
 * The ranges of a shard, or those that cross cells. Lock order: page table lock
 * or lock of the list_lru, large tree, shard. A task that holds one of these
 * locks neither allocates nor sleeps.
 */
struct lazyzap_tree {
	spinlock_t lock;	/* protects all fields and the ranges */
	struct rb_root ranges;
	struct list_head by_age; /* that reclaim may zap, about oldest first */
	unsigned long pages;	/* size of the ranges in @by_age */
	unsigned long zap_start; /* part that is being zapped */
	unsigned long zap_end;	/* or 0 */
	struct list_head spares; /* for new ranges, at most LAZYZAP_SPARES */
	unsigned int nr_spares;
	bool in_use;		/* has ranges, or a task is about to insert one */
} ____cacheline_aligned_in_smp;

/*
 * The ranges of an address space.
 *
 * Invariants: ranges do not overlap. A marked page is marked or has been
 * zapped: only mseal(2), MADV_UNSPLITTABLE (which zeroes the page) and
 * MADV_FREE_UNDO unmark a page without zapping it. If a range is not lost, no
 * page of it has lost its contents since the call that created the range.
 *
 * A task removes a range with mmap_lock or the VMA locked, at least for read,
 * and waits first for a zap of the same addresses to end. Reclaim holds the VMA
 * lock for read from before it sets @zap_end until it has cleared it.
 */
struct lazyzap_mm {
	struct mm_struct *mm;
	spinlock_t objcg_lock;	/* protects @objcg, taken before the lock of the list_lru */
	struct obj_cgroup *objcg; /* of the last task that marked, referenced, or NULL */
	struct list_head lru;	/* in the list of the memcg of @objcg */
	bool listed;		/* @lru is in that list, or about to be */
	bool recorded;		/* there may have been ranges of MADV_FREE */
	unsigned long zapped_at; /* by reclaim, in jiffies, or 0 */
	atomic_t nr;		/* ranges, at most max_ranges_per_mm */
	int nr_large;		/* in the large tree, and tasks about to insert one */
	struct lazyzap_tree tree[LAZYZAP_TREES]; /* shards, then the large tree */
};

/* The result of MADV_FREE_UNDO so far. */
struct lazyzap_undo {
	unsigned long covered;	/* bytes that were in ranges */
	bool lost;		/* one of these was lost */
};

/* lazyzap_op.flags */
#define LAZYZAP_MARK	BIT(0)	/* then insert a marked range */
#define LAZYZAP_RECORD	BIT(1)	/* then insert a range of lazyfree pages */
#define LAZYZAP_KEEP	BIT(2)	/* keep marked ranges, as having such pages */
#define LAZYZAP_CLEAN	BIT(3)	/* only remove ranges that have lost nothing */
#define LAZYZAP_KNOWN	BIT(4)	/* the new range is not lost, whatever was there */

/* A change of the ranges in an area; without flags, all are removed. */
struct lazyzap_op {
	struct lazyzap_mm *lm;
	struct vm_area_struct *vma; /* of the area; NULL if mmap_lock is held */
	unsigned long start;
	unsigned long end;
	unsigned int flags;
	unsigned long next_end;	/* the caller removes the rest up to here as well */
	unsigned long covered;	/* bytes of the area that were in ranges, */
	unsigned long kept;	/* or are in those that LAZYZAP_KEEP kept */
	bool lost;		/* a range that was removed was lost, */
	bool freed;		/* or had lazyfree pages */
	bool full;		/* there may or can be no more ranges */
	bool busy;		/* stopped, as a part of the area is being zapped */
	struct lazyzap_tree *blocked; /* where the operation had to stop */
	unsigned long zap_start; /* part to be zapped first */
	unsigned long zap_end;	/* or 0 */
	struct lazyzap_range *spare;
	struct list_head gone;	/* ranges to be freed */
};

#define LAZYZAP_OP(_mm, _vma, _start, _end, _flags) {	\
		.lm = lazyzap_of(_mm),			\
		.vma = _vma,				\
		.start = _start,			\
		.end = _end,				\
		.flags = _flags,			\
	}

/* Tunables in /sys/kernel/mm/lazyfree/ */
struct lazyzap_limits {
	unsigned int min_age_ms; /* reclaim skips younger ranges at first */
	unsigned int max_ranges_per_mm;
};

extern struct lazyzap_limits lazyzap_limits;

extern struct list_lru lazyzap_lru;
#define LAZYZAP_LIST	0

/* Changes of mappings. Callers test lazyzap_of() first, or the option. */
int lazyzap_forget(struct mm_struct *mm, struct vm_area_struct *vma,
		   unsigned long start, unsigned long end);
void lazyzap_resolve(struct vm_area_struct *vma, unsigned long start,
		     unsigned long end, bool zap);
void lazyzap_expire(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end);
void lazyzap_move(struct vm_area_struct *vma, unsigned long start,
		  unsigned long end);
void lazyzap_move_pages(struct vm_area_struct *vma, unsigned long start,
			unsigned long end, unsigned long to);
void lazyzap_fork(struct vm_area_struct *child, struct mm_struct *parent);
void lazyzap_fork_flags(struct mm_struct *child, struct mm_struct *parent);
void lazyzap_exit(struct mm_struct *mm);
void lazyzap_drop(struct mm_struct *mm, unsigned long start, unsigned long end);
bool lazyzap_next_pmds(struct mm_struct *mm, unsigned long start,
		       unsigned long end, struct lazyzap_part *part);
long lazyzap_badness(struct mm_struct *mm);

/* Reclaim */
struct lazyzap_range *lazyzap_find(struct lazyzap_tree *tree,
				   unsigned long addr);
void lazyzap_age_del(struct lazyzap_tree *tree, struct lazyzap_range *range);
unsigned long lazyzap_begin_zap(struct lazyzap_tree *tree, unsigned long start,
				unsigned long end, bool lost);
void lazyzap_end_zap(struct lazyzap_tree *tree);
unsigned long lazyzap_zap_piece(struct vm_area_struct *vma, unsigned long start,
				unsigned long end);
unsigned long lazyzap_skip_holes(struct mm_struct *mm, unsigned long addr,
				 unsigned long end);
unsigned long lazyzap_reclaim(struct mem_cgroup *memcg, int nid, int zone_idx,
			      unsigned long nr_to_reclaim, bool young);
unsigned long lazyzap_drain(const struct oom_control *oc);

/* Ranges */
void lazyzap_set_unknown(struct mm_struct *mm);
int lazyzap_run(struct lazyzap_op *op);
struct lazyzap_mm *lazyzap_alloc_mm(struct mm_struct *mm);
void lazyzap_free_mm(struct lazyzap_mm *lm);

/* Calls of madvise(2). Callers test if CONFIG_MADV_SPLITTABLE is enabled. */
int lazyzap_mark(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end);
int lazyzap_take(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end, struct lazyzap_part *part);
void lazyzap_record(struct vm_area_struct *vma, unsigned long start,
		    unsigned long end);
#ifdef CONFIG_MADV_SPLITTABLE
int lazyzap_undo(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end, bool clean, struct lazyzap_undo *undo);
#else
static inline int lazyzap_undo(struct vm_area_struct *vma, unsigned long start,
			       unsigned long end, bool clean,
			       struct lazyzap_undo *undo)
{
	return -ENODATA;
}
#endif

#endif /* _MM_LAZYZAP_H */
