// SPDX-License-Identifier: GPL-2.0
/*
 * Which CPUs a drain reaches: mm/percpu_drain.c, and what the barrier of
 * kfree_rcu() promises when it does not reach them all.
 */
#include <kunit/test.h>
#include <linux/cpu.h>
#include <linux/percpu_drain.h>
#include <linux/rcupdate.h>
#include <linux/sched/isolation.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "../percpu_isolated.h"

static void test_stop_looking(struct kunit *test)
{
	/* 0: look at all of them */
	KUNIT_EXPECT_FALSE(test, percpu_drain_stop_looking(0, 8, 0));
	KUNIT_EXPECT_FALSE(test, percpu_drain_stop_looking(8, 8, 0));
	/* 50: half of them may hold something */
	KUNIT_EXPECT_FALSE(test, percpu_drain_stop_looking(4, 8, 50));
	KUNIT_EXPECT_TRUE(test, percpu_drain_stop_looking(5, 8, 50));
	KUNIT_EXPECT_FALSE(test, percpu_drain_stop_looking(0, 1, 50));
	KUNIT_EXPECT_TRUE(test, percpu_drain_stop_looking(1, 1, 50));
	/* 100: the first one is one too many */
	KUNIT_EXPECT_FALSE(test, percpu_drain_stop_looking(0, 8, 100));
	KUNIT_EXPECT_TRUE(test, percpu_drain_stop_looking(1, 8, 100));
	/* Nothing overflows. */
	KUNIT_EXPECT_FALSE(test, percpu_drain_stop_looking(0, UINT_MAX, 100));
	KUNIT_EXPECT_TRUE(test, percpu_drain_stop_looking(UINT_MAX, UINT_MAX,
							  1));
}

struct look {
	int from, to;		/* the CPUs that hold something */
	unsigned int nr_looks;
};

static bool holds(int cpu, void *arg)
{
	struct look *look = arg;

	look->nr_looks++;
	return cpu >= look->from && cpu <= look->to;
}

static struct cpumask picked;	/* too large for the stack */

/* With cpus_read_lock() held. */
static unsigned int pick(struct look *look, unsigned int threshold)
{
	unsigned int old = percpu_drain_threshold, nr;

	look->nr_looks = 0;
	WRITE_ONCE(percpu_drain_threshold, threshold);
	nr = percpu_drain_pick(&picked, holds, look);
	WRITE_ONCE(percpu_drain_threshold, old);

	return nr;
}

static bool isolated(int cpu)
{
	guard(rcu)();
	return cpu_is_isolated(cpu);
}

static void test_pick_holders(struct kunit *test)
{
	struct look nobody = { .from = 1, .to = 0 };
	struct look all = { .from = 0, .to = INT_MAX };
	struct look first = {};

	guard(cpus_read_lock)();
	first.from = cpumask_first(cpu_online_mask);
	first.to = first.from;

	KUNIT_EXPECT_EQ(test, pick(&nobody, 0), 0);
	KUNIT_EXPECT_TRUE(test, cpumask_empty(&picked));
	KUNIT_EXPECT_EQ(test, nobody.nr_looks, num_online_cpus());

	KUNIT_EXPECT_EQ(test, pick(&all, 0), num_online_cpus());
	KUNIT_EXPECT_TRUE(test, cpumask_equal(&picked, cpu_online_mask));

	KUNIT_EXPECT_EQ(test, pick(&first, 0), 1);
	KUNIT_EXPECT_TRUE(test, cpumask_test_cpu(first.from, &picked));
}

static void test_pick_steps_aside(struct kunit *test)
{
	unsigned int nr_housekeeping = 0;
	struct look first = {};
	int cpu;

	first.from = cpumask_first(cpu_online_mask);
	first.to = first.from;
	if (isolated(first.from))
		kunit_skip(test, "the first CPU is isolated");

	guard(cpus_read_lock)();
	for_each_online_cpu(cpu)
		nr_housekeeping += !isolated(cpu);

	/* After the first CPU, only isolated ones are looked at. */
	KUNIT_EXPECT_EQ(test, pick(&first, 100), nr_housekeeping);
	KUNIT_EXPECT_EQ(test, first.nr_looks,
			1 + num_online_cpus() - nr_housekeeping);
}

struct freed {
	struct rcu_head rcu;
	char text[40];
};

/* More than a sheaf holds, so that full ones are detached, too. */
#define NR_FREED 100

static struct kmem_cache *freed_cache;

static void use_and_free(struct work_struct *work)
{
	struct freed *each;
	int i;

	for (i = 0; i < NR_FREED; i++) {
		each = kmem_cache_alloc(freed_cache, GFP_KERNEL);
		if (each)
			kfree_rcu(each, rcu);
	}
}

static bool barriers_stop;

static void more_barriers(struct work_struct *work)
{
	while (!READ_ONCE(barriers_stop))
		kvfree_rcu_barrier();
}

/*
 * When kvfree_rcu_barrier() is done, all objects are back in slabs or in
 * sheaves that can be flushed, and the cache can shrink to nothing; beside
 * others that clear the marks by which CPUs are found.
 */
static void test_barrier(struct kunit *test)
{
	struct work_struct barriers;
	int round, cpu;

	for_each_possible_cpu(cpu)
		if (percpu_drain_spares(cpu))
			kunit_skip(test, "isolated CPUs keep their objects");

	freed_cache = kmem_cache_create("percpu_drain_kunit",
					sizeof(struct freed), 0,
					SLAB_NO_MERGE, NULL);
	KUNIT_ASSERT_NOT_NULL(test, freed_cache);

	WRITE_ONCE(barriers_stop, false);
	INIT_WORK_ONSTACK(&barriers, more_barriers);
	queue_work(system_dfl_wq, &barriers);

	for (round = 0; round < 20; round++) {
		KUNIT_EXPECT_EQ(test, schedule_on_each_cpu(use_and_free), 0);
		kvfree_rcu_barrier();
		KUNIT_EXPECT_EQ(test, kmem_cache_shrink(freed_cache), 0);
	}

	WRITE_ONCE(barriers_stop, true);
	flush_work(&barriers);
	destroy_work_on_stack(&barriers);
	kmem_cache_destroy(freed_cache);
}

static struct kunit_case percpu_drain_test_cases[] = {
	KUNIT_CASE(test_stop_looking),
	KUNIT_CASE(test_pick_holders),
	KUNIT_CASE(test_pick_steps_aside),
	KUNIT_CASE(test_barrier),
	{}
};

static struct kunit_suite percpu_drain_test_suite = {
	.name = "percpu_drain",
	.test_cases = percpu_drain_test_cases,
};

kunit_test_suite(percpu_drain_test_suite);

MODULE_DESCRIPTION("KUnit tests for drains of per-CPU caches");
MODULE_LICENSE("GPL");
