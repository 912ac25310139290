// SPDX-License-Identifier: GPL-2.0
/*
 * Drains of per-CPU caches that leave CPUs alone which hold nothing.
 */

#include <linux/cpu.h>
#include <linux/percpu_drain.h>
#include <linux/rcupdate.h>
#include <linux/sched/isolation.h>

/* Percent of the CPUs that must be empty for it to pay to look at them. */
unsigned int percpu_drain_threshold __read_mostly = 50;

static bool isolated(int cpu)
{
	guard(rcu)();
	return cpu_is_isolated(cpu);
}

/**
 * percpu_drain_pick() - First pass of a drain: find the CPUs to reach.
 * @mask:	the result, online CPUs
 * @holds:	looks whether a CPU holds something. It may err on the side of
 *		true. It must not err the other way about what the drain
 *		promises to have drained, which is what happened before the
 *		call.
 * @arg:	passed on to @holds
 *
 * Once too few CPUs can turn out to be empty (filter_threshold_percent),
 * those not looked at yet are reached unseen; but isolated ones are always
 * looked at.
 *
 * What the caller has read before, such as that an irq_work is done, is
 * ordered before what @holds reads.
 *
 * Context: cpus_read_lock() held.
 * Return: the number of CPUs in @mask.
 */
unsigned int percpu_drain_pick(struct cpumask *mask,
			       bool (*holds)(int cpu, void *arg), void *arg)
{
	unsigned int threshold = READ_ONCE(percpu_drain_threshold);
	unsigned int nr_cpus = num_online_cpus(), nr = 0;
	bool looking = true;
	int cpu;

	lockdep_assert_cpus_held();

	cpumask_clear(mask);

	/*
	 * Pairs with whatever told the caller that something has been put into
	 * a CPU's cache: a fully ordered atomic there, and no more than a
	 * relaxed read of it here, in irq_work_sync(). See
	 * Documentation/litmus-tests/mm/percpu-drain-pick.litmus.
	 */
	smp_mb();

	for_each_online_cpu(cpu) {
		if ((looking || isolated(cpu)) && !holds(cpu, arg))
			continue;

		__cpumask_set_cpu(cpu, mask);
		nr++;
		if (looking)
			looking = !percpu_drain_stop_looking(nr, nr_cpus,
							     threshold);
	}

	return nr;
}

/**
 * percpu_drain_run() - Run a function on each CPU that holds something.
 * @drain:	the path
 * @holds:	as for percpu_drain_pick()
 * @arg:	passed on to @holds
 * @fn:		the function, as of a work item
 *
 * Like schedule_on_each_cpu(), but it neither allocates nor disturbs CPUs that
 * hold nothing.
 *
 * Context: may sleep; takes @drain->lock and cpus_read_lock().
 * Return: the number of CPUs on which @fn ran, all to their end.
 */
unsigned int percpu_drain_run(struct percpu_drain *drain,
			      bool (*holds)(int cpu, void *arg), void *arg,
			      work_func_t fn)
{
	unsigned int nr;
	int cpu;

	guard(mutex)(&drain->lock);
	guard(cpus_read_lock)();

	nr = percpu_drain_pick(&drain->mask, holds, arg);
	for_each_cpu(cpu, &drain->mask) {
		struct work_struct *work = per_cpu_ptr(drain->work, cpu);

		INIT_WORK(work, fn);
		schedule_work_on(cpu, work);
	}
	for_each_cpu(cpu, &drain->mask)
		flush_work(per_cpu_ptr(drain->work, cpu));

	return nr;
}
