/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Zapping of large ranges shared among kworkers. See
 * Documentation/admin-guide/mm/parallel_zap.rst.
 */
#ifndef _MM_PARALLEL_ZAP_H
#define _MM_PARALLEL_ZAP_H

#include <linux/jump_label.h>
#include <linux/mm_types.h>
#include <linux/pgtable.h>

struct mmu_gather;
struct zap_details;
struct zap_job;

#ifdef CONFIG_PARALLEL_ZAP
/**
 * struct zap_limits - What can be set in /sys/kernel/mm/parallel_zap/.
 * @always:		not only in exit
 * @min_ms:		no helper if the owner needs less than this time
 * @chunk_mb:		what a worker claims at once, at most
 * @helpers_per_node:	at work on the CPUs of a node, at once, for all jobs
 * @max_helpers:	at work on the machine
 */
struct zap_limits {
	bool always;
	unsigned int min_ms;
	unsigned int chunk_mb;
	unsigned int helpers_per_node;
	unsigned int max_helpers;
};

extern struct zap_limits zap_limits;
int parallel_zap_sysfs_init(void);

DECLARE_STATIC_KEY_FALSE(parallel_zap_enabled);

bool __zap_share_vma(struct zap_job **jobp, struct mmu_gather *tlb,
		     struct vm_area_struct *vma, unsigned long start,
		     unsigned long end, unsigned long limit,
		     const struct zap_details *details);
void __zap_share_finish(struct zap_job *job, struct mmu_gather *tlb);

/**
 * zap_share_vma() - Zap a range, or hand it to helpers, if it may be worth it.
 * @jobp:	the caller's job; NULL before its first range
 * @tlb:	the caller's mmu_gather
 * @vma:	the vma that covers the range
 * @start:	first address
 * @end:	address after the last one
 * @limit:	address after the last one of all ranges to come
 * @details:	as for the caller's own zapping, or NULL
 *
 * What it returns true for is zapped once zap_share_finish() returns, and not
 * before. The vma must stay as it is until then.
 *
 * Context: may sleep; @vma's mm or @vma itself is locked by the caller. Does
 *	not wait for anything that would take such a lock.
 * Return: false if the caller has to zap the range itself.
 */
static inline bool
zap_share_vma(struct zap_job **jobp, struct mmu_gather *tlb,
	      struct vm_area_struct *vma, unsigned long start,
	      unsigned long end, unsigned long limit,
	      const struct zap_details *details)
{
	if (!static_branch_unlikely(&parallel_zap_enabled) ||
	    end - start < PMD_SIZE)
		return false;
	return __zap_share_vma(jobp, tlb, vma, start, end, limit, details);
}

/**
 * zap_share_finish() - Zap what is left, and wait for helpers.
 * @job:	the caller's job, or NULL
 * @tlb:	the caller's mmu_gather
 *
 * When it returns, all pages are unmapped, and those that helpers unmapped
 * are free. It only waits for a helper that has a chunk in its hands.
 *
 * Context: as zap_share_vma().
 */
static inline void zap_share_finish(struct zap_job *job,
				    struct mmu_gather *tlb)
{
	if (unlikely(job))
		__zap_share_finish(job, tlb);
}
#else
static inline bool
zap_share_vma(struct zap_job **jobp, struct mmu_gather *tlb,
	      struct vm_area_struct *vma, unsigned long start,
	      unsigned long end, unsigned long limit,
	      const struct zap_details *details)
{
	return false;
}

static inline void zap_share_finish(struct zap_job *job,
				    struct mmu_gather *tlb)
{
}
#endif

#endif /* _MM_PARALLEL_ZAP_H */
