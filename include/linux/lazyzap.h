/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ranges that MADV_SPLITTABLE has marked, for /proc and the memory controller.
 */
#ifndef _LINUX_LAZYZAP_H
#define _LINUX_LAZYZAP_H

#include <linux/mm_types.h>

struct lazyzap_mm;
struct lazyzap_tree;
struct mem_cgroup;

/**
 * struct lazyzap_part - marked part of an area
 * @start:	start address
 * @end:	end address (exclusive)
 * @tree:	tree of the range that the part belongs to
 */
struct lazyzap_part {
	unsigned long start;
	unsigned long end;
	struct lazyzap_tree *tree;
};

/*
 * Only madvise() allocates a struct lazyzap_mm, and only exit_mmap() frees it.
 * Pairs with cmpxchg() in lazyzap_mm_get(), see
 * Documentation/litmus-tests/mm/lazyzap-publish.litmus.
 */
static inline struct lazyzap_mm *lazyzap_of(const struct mm_struct *mm)
{
#ifdef CONFIG_MADV_SPLITTABLE
	return READ_ONCE(mm->lazyzap);
#else
	return NULL;
#endif
}

bool lazyzap_next(struct mm_struct *mm, unsigned long start, unsigned long end,
		  struct lazyzap_part *part);
bool __lazyzap_test(struct mm_struct *mm, unsigned long addr, unsigned long end,
		    struct lazyzap_part *part);
unsigned long lazyzap_mm_pages(const struct mm_struct *mm);

#ifdef CONFIG_MADV_SPLITTABLE
unsigned long lazyzap_memcg_pages(struct mem_cgroup *memcg);
int madvise_set_splittable_debug(unsigned long mode);
#else
static inline unsigned long lazyzap_memcg_pages(struct mem_cgroup *memcg)
{
	return 0;
}

static inline int madvise_set_splittable_debug(unsigned long mode)
{
	return -EINVAL;
}
#endif

/**
 * lazyzap_test() - Check if a page is marked, for walks of page tables.
 * @mm:		address space, which cannot exit
 * @addr:	address of the page; ascending from call to call
 * @end:	end address (exclusive) of the walk
 * @part:	part that the last call found; zeroed before the first call
 *
 * Context: any but interrupts; page table locks may be held.
 * Return: true if the page is marked.
 */
static inline bool lazyzap_test(struct mm_struct *mm, unsigned long addr,
				unsigned long end, struct lazyzap_part *part)
{
	return lazyzap_of(mm) && __lazyzap_test(mm, addr, end, part);
}

#endif /* _LINUX_LAZYZAP_H */
