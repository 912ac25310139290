/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which CPUs a drain of per-CPU caches has to reach.
 *
 * A drain first looks, with no allocation, lock or interrupt, at what each CPU
 * holds, and then sends work to those that hold something and to no other.
 * That is what Gilad Ben-Yossef did for slab and page allocator in 2012,
 * commit 74046494ea68 ("mm: only IPI CPUs to drain local pages if they exist");
 * to give up the look early where it cannot help was Mel Gorman's wish then.
 */
#ifndef _LINUX_PERCPU_DRAIN_H
#define _LINUX_PERCPU_DRAIN_H

#include <linux/cpumask.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/workqueue.h>

extern unsigned int percpu_drain_threshold;

/**
 * percpu_drain_stop_looking() - Is it worth the while to look at more CPUs?
 * @nr_holding:	CPUs that have been found to hold something
 * @nr_cpus:	CPUs that there are
 * @threshold:	percent of @nr_cpus that must be empty for the look to pay
 *
 * Return: true if fewer than @threshold percent can still turn out empty.
 */
static inline bool percpu_drain_stop_looking(unsigned int nr_holding,
					     unsigned int nr_cpus,
					     unsigned int threshold)
{
	return (u64)(nr_cpus - nr_holding) * 100 < (u64)nr_cpus * threshold;
}

/**
 * struct percpu_drain - A path that drains by work items.
 * @lock:	one drain at a time; nests outside cpus_read_lock()
 * @mask:	the CPUs that it reaches, under @lock
 * @work:	what it queues there, under @lock
 */
struct percpu_drain {
	struct mutex lock;	/* protects all below */
	struct cpumask mask;
	struct work_struct __percpu *work;
};

#ifdef CONFIG_SMP
unsigned int percpu_drain_pick(struct cpumask *mask,
			       bool (*holds)(int cpu, void *arg), void *arg);
unsigned int percpu_drain_run(struct percpu_drain *drain,
			      bool (*holds)(int cpu, void *arg), void *arg,
			      work_func_t fn);
#else
static inline unsigned int
percpu_drain_pick(struct cpumask *mask, bool (*holds)(int cpu, void *arg),
		  void *arg)
{
	cpumask_copy(mask, cpu_online_mask);
	return 1;
}

static inline unsigned int
percpu_drain_run(struct percpu_drain *drain,
		 bool (*holds)(int cpu, void *arg), void *arg, work_func_t fn)
{
	fn(NULL);
	return 1;
}
#endif

#ifdef CONFIG_PERCPU_DRAIN
void percpu_drain_isolated(void);
#else
static inline void percpu_drain_isolated(void) { }
#endif

#endif /* _LINUX_PERCPU_DRAIN_H */
