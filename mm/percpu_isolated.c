// SPDX-License-Identifier: GPL-2.0
/*
 * What isolated CPUs may hold, and when drains look before they leap, in
 * /sys/kernel/mm/percpu_drain/. See
 * Documentation/admin-guide/mm/percpu_drain.rst for what that is good for.
 */

#include <linux/buffer_head.h>
#include <linux/cpu.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/mutex.h>
#include <linux/percpu_drain.h>
#include <linux/rcupdate.h>
#include <linux/sched/isolation.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

#include "internal.h"
#include "percpu_isolated.h"

DEFINE_STATIC_KEY_FALSE(isolated_cpus_hold_nothing);
DEFINE_PER_CPU_READ_MOSTLY(bool, this_cpu_isolated);

/* Protects both of the above. Nests inside cpuset_top_mutex. */
static DEFINE_MUTEX(isolated_lock);

static void drain_this_cpu(struct work_struct *work)
{
	lru_add_drain();
	invalidate_bh_lrus_cpu();
}

static DEFINE_PER_CPU(struct work_struct, drain_work);

/* Brings this_cpu_isolated up to date; @fresh are those that were not. */
static void mark_isolated(struct cpumask *fresh)
{
	bool isolated;
	int cpu;

	lockdep_assert_held(&isolated_lock);

	cpumask_clear(fresh);
	for_each_possible_cpu(cpu) {
		scoped_guard(rcu)
			isolated = cpu_is_isolated(cpu);
		if (isolated && !per_cpu(this_cpu_isolated, cpu))
			__cpumask_set_cpu(cpu, fresh);
		WRITE_ONCE(per_cpu(this_cpu_isolated, cpu), isolated);
	}
}

/**
 * percpu_drain_isolated() - CPUs may have become isolated: drain these, once.
 *
 * Each drains itself, and nobody waits for it: a task may have one of them to
 * itself, and whoever isolates it shall not hang behind that, nor with a lock
 * that others want.
 *
 * Context: may sleep; takes isolated_lock and cpus_read_lock().
 */
void percpu_drain_isolated(void)
{
	static struct cpumask fresh;	/* under isolated_lock */
	int cpu;

	guard(mutex)(&isolated_lock);
	mark_isolated(&fresh);
	if (!static_key_enabled(&isolated_cpus_hold_nothing) ||
	    cpumask_empty(&fresh))
		return;

	/*
	 * From here on they add nothing. See
	 * Documentation/litmus-tests/mm/percpu-drain-isolate.litmus.
	 */
	synchronize_rcu();

	guard(cpus_read_lock)();
	for_each_cpu_and(cpu, &fresh, cpu_online_mask)
		schedule_work_on(cpu, per_cpu_ptr(&drain_work, cpu));
}

static ssize_t isolated_cache_show(struct kobject *kobj,
				   struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n",
			  !static_key_enabled(&isolated_cpus_hold_nothing));
}

static ssize_t isolated_cache_store(struct kobject *kobj,
				    struct kobj_attribute *attr,
				    const char *buf, size_t count)
{
	unsigned int val;

	if (kstrtouint(buf, 10, &val) || val > 1)
		return -EINVAL;

	scoped_guard(mutex, &isolated_lock) {
		if (val) {
			static_branch_disable(&isolated_cpus_hold_nothing);
			return count;
		}
		static_branch_enable(&isolated_cpus_hold_nothing);
	}

	/*
	 * CPUs that have read the key before are done adding. See
	 * Documentation/litmus-tests/mm/percpu-drain-isolate.litmus.
	 */
	synchronize_rcu();
	lru_add_drain_all();

	return count;
}

static struct kobj_attribute isolated_cache_attr =
	__ATTR_RW(isolated_cache);

static ssize_t filter_threshold_percent_show(struct kobject *kobj,
					     struct kobj_attribute *attr,
					     char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(percpu_drain_threshold));
}

static ssize_t filter_threshold_percent_store(struct kobject *kobj,
					      struct kobj_attribute *attr,
					      const char *buf, size_t count)
{
	unsigned int val;

	if (kstrtouint(buf, 10, &val) || val > 100)
		return -EINVAL;

	WRITE_ONCE(percpu_drain_threshold, val);
	return count;
}

static struct kobj_attribute filter_threshold_percent_attr =
	__ATTR_RW(filter_threshold_percent);

static struct attribute *percpu_drain_attrs[] = {
	&isolated_cache_attr.attr,
	&filter_threshold_percent_attr.attr,
	NULL,
};

static const struct attribute_group percpu_drain_attr_group = {
	.name = "percpu_drain",
	.attrs = percpu_drain_attrs,
};

static int __init percpu_isolated_init(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		INIT_WORK(per_cpu_ptr(&drain_work, cpu), drain_this_cpu);
	percpu_drain_isolated();

	return sysfs_create_group(mm_kobj, &percpu_drain_attr_group);
}
subsys_initcall(percpu_isolated_init);
