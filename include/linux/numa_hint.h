/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How long NUMA balancing keeps tasks: in hinting faults, and in scans of
 * their own address space.
 */
#ifndef _LINUX_NUMA_HINT_H
#define _LINUX_NUMA_HINT_H

#include <linux/jump_label.h>
#include <linux/sched/clock.h>
#include <linux/types.h>

#ifdef CONFIG_NUMA_HINT_STAT
DECLARE_STATIC_KEY_FALSE(numa_hint_timed);

void __numa_hint_fault(u64 begin, int pages, int flags);
void __numa_hint_scan(u64 begin);

/* Returns the time if somebody wants to know, else 0. */
static inline u64 numa_hint_begin(void)
{
	return static_branch_unlikely(&numa_hint_timed) ? local_clock() : 0;
}

/**
 * numa_hint_fault() - Count the time of a hinting fault.
 * @begin:	from numa_hint_begin()
 * @pages:	size of what it hit
 * @flags:	TNF_MIGRATED and others, as for task_numa_fault()
 */
static inline void numa_hint_fault(u64 begin, int pages, int flags)
{
	if (begin)
		__numa_hint_fault(begin, pages, flags);
}

/* The same of a scan of page tables by a task that does something else. */
static inline void numa_hint_scan(u64 begin)
{
	if (begin)
		__numa_hint_scan(begin);
}
#else /* !CONFIG_NUMA_HINT_STAT */
static inline u64 numa_hint_begin(void)
{
	return 0;
}

static inline void numa_hint_fault(u64 begin, int pages, int flags)
{
}

static inline void numa_hint_scan(u64 begin)
{
}
#endif /* CONFIG_NUMA_HINT_STAT */

#endif /* _LINUX_NUMA_HINT_H */
