/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Notes of memory that may go, MADV_SPLITTABLE. See
 * Documentation/admin-guide/mm/lazyfree.rst.
 */
#ifndef _MM_SPLITTABLE_H
#define _MM_SPLITTABLE_H

#include <linux/mm_types.h>
#include <linux/splittable.h>

struct mem_cgroup;

#ifdef CONFIG_MADV_SPLITTABLE
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>

/**
 * struct splittable_mm - The notes of an address space.
 * @lock:	of all fields, and of the ranges. Taken inside mmap_lock and VMA
 *		locks, outside of that of the list.
 * @ranges:	by address; they neither overlap nor touch
 * @by_age:	those that reclaim has not zapped to their end, oldest first
 * @link:	its place in the list of its memcg
 * @oldest:	the stamp of the first in @by_age
 * @nr:		how many ranges there are
 * @pages:	that are noted, and not zapped yet
 * @zap_start:	first address of what reclaim is zapping,
 * @zap_end:	and the one after the last; 0 if it is not
 * @zapped_at:	when reclaim last did so, in jiffies; 0 for never
 * @mm:		the address space
 *
 * Invariant: a marked page is noted or zapped, never silently unmarked. So a
 * range leaves only by who holds @mm or the page's VMA for reading at least,
 * and zaps it, clears it, or was told that its contents are wanted; and who
 * takes a range waits for reclaim that has begun to zap it. What is taken is
 * zapped after it has left: so for reading only by the owner of these pages,
 * who takes no part of them at the same time.
 */
struct splittable_mm {
	spinlock_t lock;		/* of all that follows, and the ranges */
	struct rb_root ranges;
	struct list_head by_age;
	struct splittable_link *link;
	unsigned long oldest;
	unsigned int nr;
	unsigned long pages;
	unsigned long zap_start, zap_end;
	unsigned long zapped_at;
	struct mm_struct *mm;
};

/**
 * struct splittable_link - The place of an address space in a list.
 * @lru:	in the list of a memcg, unless nothing is to be zapped
 * @sm:		the notes
 *
 * It is charged to the memcg in whose list it is, and so follows that when it
 * goes; and is replaced if the process moves to another one.
 */
struct splittable_link {
	struct list_head lru;
	struct splittable_mm *sm;
};

/**
 * struct splittable_range - A note.
 * @node:	in splittable_mm.ranges
 * @age:	in splittable_mm.by_age, unless all of it has been zapped
 * @owner:	whose notes it belongs to
 * @start:	first address
 * @noted:	reclaim has zapped what is before
 * @end:	address after the last one
 * @stamp:	when it was made, in jiffies
 * @patchy:	some of it had been zapped when it was noted again
 *
 * What has been zapped stays in it: somebody may have written there since, and
 * it has to read zero when it is taken back.
 */
struct splittable_range {
	struct rb_node node;
	struct list_head age;
	struct splittable_mm *owner;
	unsigned long start;
	unsigned long noted;
	unsigned long end;
	unsigned long stamp;
	bool patchy;
};

/**
 * struct splittable_part - What was taken out of the notes.
 * @start:	first address
 * @noted:	reclaim has zapped what is before
 * @end:	address after the last one
 * @patchy:	it may have zapped some of what follows @noted as well
 */
struct splittable_part {
	unsigned long start;
	unsigned long noted;
	unsigned long end;
	bool patchy;
};

/**
 * struct splittable_limits - What can be set in /sys/kernel/mm/lazyfree/.
 * @min_age_ms:		reclaim leaves younger ranges alone at first
 * @max_ranges_per_mm:	more are not noted
 * @min_range_kb:	shorter ones are not noted
 */
struct splittable_limits {
	unsigned int min_age_ms;
	unsigned int max_ranges_per_mm;
	unsigned int min_range_kb;
};

extern struct splittable_limits splittable_limits;

/*
 * Of each memcg, the address spaces with ranges to be zapped. One for all
 * nodes: a range may have pages of any.
 */
extern struct list_lru splittable_lru;
#define SPLITTABLE_LIST	0

struct splittable_mm *splittable_mm_alloc(struct mm_struct *mm);
void splittable_mm_free(struct splittable_mm *sm);
int splittable_reclaim_init(void);
int splittable_add(struct splittable_mm *sm, unsigned long start,
		   unsigned long end);
bool splittable_take(struct splittable_mm *sm, unsigned long from,
		     unsigned long to, struct splittable_part *part);
bool splittable_next(struct splittable_mm *sm, unsigned long from,
		     unsigned long to, struct splittable_part *part);
bool splittable_advance(struct splittable_mm *sm, unsigned long to);
void splittable_advanced(struct splittable_mm *sm);

bool splittable_note(struct vm_area_struct *vma, unsigned long start,
		     unsigned long end);
void __splittable_clear(struct vm_area_struct *vma, unsigned long start,
			unsigned long end);
bool splittable_undo(struct vm_area_struct *vma, unsigned long start,
		     unsigned long *from, unsigned long *to);
void __splittable_zap(struct vm_area_struct *vma, unsigned long start,
		      unsigned long end);
void __splittable_forget(struct mm_struct *mm, unsigned long start,
			 unsigned long end);
void __splittable_fork(struct vm_area_struct *child,
		       struct splittable_mm *parent);
void __splittable_exit(struct mm_struct *mm);
unsigned long splittable_reclaim(struct mem_cgroup *memcg,
				 unsigned long nr_to_reclaim, bool young);
unsigned long splittable_drain(struct mem_cgroup *memcg);

/*
 * Only madvise() makes a splittable_mm, and only exit_mmap() unmakes it. Pairs
 * with cmpxchg() in splittable_note().
 */
static inline struct splittable_mm *splittable_of(const struct mm_struct *mm)
{
	return READ_ONCE(mm->splittable);
}

/*
 * Whether there may be notes: of an area that the caller has locked, what was
 * noted before that is seen. A range that reclaim is zapping is there as well,
 * as whoever takes it waits. See
 * Documentation/litmus-tests/mm/lazyfree-in-use.litmus.
 */
static inline bool splittable_in_use(const struct mm_struct *mm)
{
	struct splittable_mm *sm = splittable_of(mm);

	return unlikely(sm) && !RB_EMPTY_ROOT(&sm->ranges);
}

/**
 * splittable_clear() - Take ranges back: what was marked reads zero.
 * @vma:	the vma, which covers all of it
 * @start:	first address
 * @end:	address after the last one
 *
 * Context: may sleep; @vma or its mm locked for reading.
 */
static inline void splittable_clear(struct vm_area_struct *vma,
				    unsigned long start, unsigned long end)
{
	if (splittable_in_use(vma->vm_mm))
		__splittable_clear(vma, start, end);
}

/**
 * splittable_zap() - Zap ranges, before something that cannot keep their notes.
 * @vma:	the vma, which covers all of it
 * @start:	first address
 * @end:	address after the last one
 *
 * Context: may sleep; @vma or its mm locked. It has to be @vma, for writing,
 *	if nothing may be noted any more afterwards.
 */
static inline void splittable_zap(struct vm_area_struct *vma,
				  unsigned long start, unsigned long end)
{
	if (splittable_in_use(vma->vm_mm))
		__splittable_zap(vma, start, end);
}

/**
 * splittable_forget() - The caller is about to zap or to unmap the range.
 * @mm:		the address space
 * @start:	first address
 * @end:	address after the last one
 *
 * Context: may sleep; what is there is locked, for reading at least; or it was,
 *	for writing, and nobody can find its VMAs any more.
 */
static inline void splittable_forget(struct mm_struct *mm, unsigned long start,
				     unsigned long end)
{
	if (splittable_in_use(mm))
		__splittable_forget(mm, start, end);
}

/**
 * splittable_fork() - Marked pages are the parent's only; a child reads zero.
 * @child:	a vma whose pages have been copied
 * @parent:	the vma that it was copied from
 *
 * Context: may sleep; both locked for writing.
 */
static inline void splittable_fork(struct vm_area_struct *child,
				   struct vm_area_struct *parent)
{
	if (splittable_in_use(parent->vm_mm))
		__splittable_fork(child, splittable_of(parent->vm_mm));
}

/**
 * splittable_exit() - Free the notes of an address space that is gone.
 * @mm:		the address space
 *
 * Context: may sleep; nobody uses @mm any more.
 */
static inline void splittable_exit(struct mm_struct *mm)
{
	if (unlikely(splittable_of(mm)))
		__splittable_exit(mm);
}

/*
 * Pages that MADV_FREE has marked may be lost though they are noted, in the
 * process and in its children.
 */
static inline void splittable_mark_lazyfree(struct mm_struct *mm)
{
	if (!mm_flags_test(MMF_HAS_LAZYFREE, mm))
		mm_flags_set(MMF_HAS_LAZYFREE, mm);
}

static inline bool splittable_has_lazyfree(const struct mm_struct *mm)
{
	return mm_flags_test(MMF_HAS_LAZYFREE, mm);
}

static inline void splittable_fork_mm(struct mm_struct *child,
				      const struct mm_struct *parent)
{
	if (splittable_has_lazyfree(parent))
		splittable_mark_lazyfree(child);
}

/* For who would only make work of memory that may go, as khugepaged. */
static inline bool splittable_any(struct mm_struct *mm, unsigned long start,
				  unsigned long end)
{
	struct splittable_part part;

	return splittable_in_use(mm) &&
	       splittable_next(splittable_of(mm), start, end, &part);
}

/**
 * splittable_gap() - Find the first part of an area that is not noted.
 * @mm:		the address space
 * @addr:	where to look from; where the part starts, on return
 * @next:	address after the last one of the part
 * @end:	address after the last one of the area
 *
 * For who would only make work of memory that may go, as NUMA balancing.
 *
 * Return: false if there is none.
 */
static inline bool splittable_gap(struct mm_struct *mm, unsigned long *addr,
				  unsigned long *next, unsigned long end)
{
	struct splittable_part part;

	for (*next = end; *addr < end; *addr = part.end) {
		if (!splittable_in_use(mm) ||
		    !splittable_next(splittable_of(mm), *addr, end, &part))
			return true;
		if (part.start > *addr) {
			*next = part.start;
			return true;
		}
	}

	return false;
}
#else
static inline bool splittable_gap(struct mm_struct *mm, unsigned long *addr,
				  unsigned long *next, unsigned long end)
{
	*next = end;
	return *addr < end;
}

static inline bool splittable_note(struct vm_area_struct *vma,
				   unsigned long start, unsigned long end)
{
	return false;
}

static inline void splittable_clear(struct vm_area_struct *vma,
				    unsigned long start, unsigned long end)
{
}

static inline bool splittable_undo(struct vm_area_struct *vma,
				   unsigned long start, unsigned long *from,
				   unsigned long *to)
{
	return false;
}

static inline void splittable_zap(struct vm_area_struct *vma,
				  unsigned long start, unsigned long end)
{
}

static inline void splittable_forget(struct mm_struct *mm, unsigned long start,
				     unsigned long end)
{
}

static inline void splittable_fork(struct vm_area_struct *child,
				   struct vm_area_struct *parent)
{
}

static inline void splittable_exit(struct mm_struct *mm)
{
}

static inline void splittable_mark_lazyfree(struct mm_struct *mm)
{
}

static inline bool splittable_has_lazyfree(const struct mm_struct *mm)
{
	return false;
}

static inline void splittable_fork_mm(struct mm_struct *child,
				      const struct mm_struct *parent)
{
}

static inline bool splittable_any(struct mm_struct *mm, unsigned long start,
				  unsigned long end)
{
	return false;
}

static inline unsigned long splittable_reclaim(struct mem_cgroup *memcg,
					       unsigned long nr_to_reclaim,
					       bool young)
{
	return 0;
}

static inline unsigned long splittable_drain(struct mem_cgroup *memcg)
{
	return 0;
}
#endif

#endif /* _MM_SPLITTABLE_H */
