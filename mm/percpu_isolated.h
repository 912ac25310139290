/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Isolated CPUs that hold nothing, so that no drain of per-CPU caches has a
 * reason to reach them; as they never hold buffer heads, see bh_lru_install().
 */
#ifndef _MM_PERCPU_ISOLATED_H
#define _MM_PERCPU_ISOLATED_H

#include <linux/jump_label.h>
#include <linux/percpu.h>

#ifdef CONFIG_PERCPU_DRAIN
DECLARE_STATIC_KEY_FALSE(isolated_cpus_hold_nothing);

/* This CPU is isolated; a copy of what costs more to ask in a fast path. */
DECLARE_PER_CPU_READ_MOSTLY(bool, this_cpu_isolated);

/**
 * percpu_cache_bypassed() - Must this CPU hold nothing in its caches?
 *
 * Invariant: while isolated_cache is 0, an isolated CPU adds no folio to its
 * LRU and mlock batches. What it had added before is drained by whoever made
 * it so, after a grace period: the store to isolated_cache, or the cpuset that
 * isolates the CPU (housekeeping_update()). Until then a drain reaches it, as
 * it would any CPU.
 *
 * Context: preemption disabled, or with PREEMPT_RT the batch's lock held,
 * which both are RCU read sections.
 * Return: true if what would be held is to be let go at once.
 */
static inline bool percpu_cache_bypassed(void)
{
	return static_branch_unlikely(&isolated_cpus_hold_nothing) &&
	       __this_cpu_read(this_cpu_isolated);
}

/**
 * percpu_drain_spares() - Is this CPU left alone by drains that are optional?
 * @cpu:	any CPU, which may change its mind at once
 *
 * Return: true if @cpu is isolated, and isolated CPUs are to be left alone.
 */
static inline bool percpu_drain_spares(int cpu)
{
	return static_branch_unlikely(&isolated_cpus_hold_nothing) &&
	       READ_ONCE(per_cpu(this_cpu_isolated, cpu));
}
#else
static inline bool percpu_cache_bypassed(void) { return false; }
static inline bool percpu_drain_spares(int cpu) { return false; }
#endif

#endif /* _MM_PERCPU_ISOLATED_H */
