/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The limits of the lazy purge of vmap areas.
 *
 * An area passes through four states:
 *
 *	busy -> lazy -> flushed -> pooled or free
 *
 * A freed area is *lazy*: unmapped, but TLB entries for it may remain. A
 * purge flushes the TLBs once for all lazy areas. They are *flushed* from
 * then on, which is all that vm_unmap_aliases() promises, and wait to be
 * returned to a node's pool or to the global free space. What is lazy or
 * flushed cannot be allocated: both together are the backlog.
 *
 * Here is what decides when a purge is due, how much is returned at a time and
 * when callers of vfree() have to help; all of it pure, for KUnit to test.
 */
#ifndef _MM_VMALLOC_PURGE_H
#define _MM_VMALLOC_PURGE_H

#include <linux/bitops.h>
#include <linux/math64.h>
#include <linux/sizes.h>
#include <linux/types.h>

/**
 * struct vmap_purge_limits - When to purge, and how much of it at a time.
 * @lazy_max_pages:	Start a purge above this many lazy pages; 0: a number
 *			that grows with the log of the online CPUs.
 * @lazy_max_areas:	Start a purge above this many lazy areas; 0: no limit.
 * @batch:		Areas returned under one hold of free_vmap_area_lock;
 *			0: no limit.
 * @slice_us:		Microseconds for which a worker returns areas before it
 *			makes way for the next; 0: no limit.
 * @throttle_percent:	A caller of vfree() helps to purge while the backlog is
 *			above this share of either maximum; 0: never.
 */
struct vmap_purge_limits {
	unsigned long lazy_max_pages;
	unsigned long lazy_max_areas;
	unsigned long batch;
	unsigned long slice_us;
	unsigned long throttle_percent;
};

#define VMAP_PURGE_LIMITS_DEFAULT {	\
	.batch = 16,			\
	.slice_us = 1000,		\
	.throttle_percent = 400,	\
}

#ifdef CONFIG_VMALLOC_SYSFS
extern struct vmap_purge_limits vmap_purge_limits;
#else
static const struct vmap_purge_limits vmap_purge_limits __maybe_unused =
	VMAP_PURGE_LIMITS_DEFAULT;
#endif

/**
 * vmap_lazy_max_pages() - How many lazy pages there may be before a purge.
 * @limits: the limits
 * @nr_cpus: number of online CPUs, at least 1
 *
 * There is a tradeoff here: a larger number will cover more kernel page tables
 * and take slightly longer to purge, but it will linearly reduce the number of
 * global TLB flushes that must be performed. It would seem natural to scale
 * this number up linearly with the number of CPUs (because vmapping activity
 * could also scale linearly with the number of CPUs), however it is likely
 * that in practice, workloads might be constrained in other ways that mean
 * vmap activity will not scale linearly with CPUs. Also, I want to be
 * conservative and not introduce a big latency on huge systems, so go with
 * a less aggressive log scale. It will still be an improvement over the old
 * code, and it will be simple to change the scale factor if we find that it
 * becomes a problem on bigger systems.
 *
 * Return: the number of pages, never 0.
 */
static inline unsigned long
vmap_lazy_max_pages(const struct vmap_purge_limits *limits, unsigned int nr_cpus)
{
	unsigned long max = READ_ONCE(limits->lazy_max_pages);

	return max ?: fls(nr_cpus) * (SZ_32M / PAGE_SIZE);
}

/**
 * vmap_purge_due() - Whether there is enough to flush the TLBs for.
 * @limits: the limits
 * @max_pages: from vmap_lazy_max_pages()
 * @pages: number of lazy pages
 * @areas: number of lazy areas
 * @flushed_pages: number of flushed pages that have not been returned yet
 *
 * Either limit is enough: one bounds address space, the other the time that it
 * takes to return what has been freed. While most of what the last purge has
 * flushed waits to be returned, another flush would gain nothing, and cover
 * less than if it came later.
 *
 * Return: true if a purge is due.
 */
static inline bool
vmap_purge_due(const struct vmap_purge_limits *limits, unsigned long max_pages,
	       unsigned long pages, unsigned long areas,
	       unsigned long flushed_pages)
{
	unsigned long max_areas = READ_ONCE(limits->lazy_max_areas);

	if (flushed_pages > max_pages / 2)
		return false;

	return pages > max_pages || (max_areas && areas > max_areas);
}

/**
 * vmap_purge_overrun() - Whether callers of vfree() outrun the purge.
 * @limits: the limits
 * @max_pages: from vmap_lazy_max_pages()
 * @pages: number of pages in the backlog
 * @areas: number of areas in the backlog
 *
 * As the share is 100 percent at least, a backlog of which nothing is flushed
 * is due for a purge if it is an overrun: there is always something to help
 * with.
 *
 * Return: true if the backlog is above the hard limit.
 */
static inline bool
vmap_purge_overrun(const struct vmap_purge_limits *limits,
		   unsigned long max_pages, unsigned long pages,
		   unsigned long areas)
{
	unsigned long max_areas = READ_ONCE(limits->lazy_max_areas);
	unsigned int percent = READ_ONCE(limits->throttle_percent);

	if (!percent)
		return false;

	return pages > mul_u64_u32_div(max_pages, percent, 100) ||
	       (max_areas && areas > mul_u64_u32_div(max_areas, percent, 100));
}

/**
 * vmap_slice_end() - When a slice that begins now is over.
 * @limits: the limits
 * @now: ktime_get_mono_fast_ns(), in nanoseconds
 *
 * Return: a time in nanoseconds, that of ktime_get_mono_fast_ns().
 */
static inline u64
vmap_slice_end(const struct vmap_purge_limits *limits, u64 now)
{
	unsigned long slice_us = READ_ONCE(limits->slice_us);

	return slice_us ? now + (u64)slice_us * NSEC_PER_USEC : U64_MAX;
}

/**
 * vmap_batch_full() - Whether a lock has been held for enough areas.
 * @batch: areas that one hold is good for; 0: no limit
 * @nr: areas done under this hold so far
 *
 * Return: true if it is time to release the lock.
 */
static inline bool vmap_batch_full(unsigned int batch, unsigned int nr)
{
	return batch && nr >= batch;
}

#endif /* _MM_VMALLOC_PURGE_H */
