// SPDX-License-Identifier: GPL-2.0
/*
 * Histograms of the time that NUMA balancing keeps tasks, by what they waited
 * for, in /sys/kernel/debug/numa_hint/.
 */

#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/kstrtox.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/numa_hint.h>
#include <linux/percpu.h>
#include <linux/sched/numa_balancing.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#define CREATE_TRACE_POINTS
#include <trace/events/numa_hint.h>

DEFINE_STATIC_KEY_FALSE(numa_hint_timed);

/* What became of the fault; a scan is a class of its own. */
enum numa_hint_outcome {
	HINT_STAYED,
	HINT_MIGRATED,
	HINT_FAILED,
	HINT_QUEUED,
	HINT_OUTCOMES
};

enum numa_hint_size {
	HINT_SMALL,
	HINT_LARGE,
	HINT_HUGE,
	HINT_SIZES
};

#define HINT_SCAN	(HINT_OUTCOMES * HINT_SIZES)
#define HINT_CLASSES	(HINT_SCAN + 1)

/* Up to a minute and more, in powers of two of a nanosecond. */
#define HINT_BUCKETS	38

/**
 * struct numa_hint_histogram - What a CPU has seen.
 * @times:	how often it took less than this power of two, in ns
 */
struct numa_hint_histogram {
	unsigned long times[HINT_CLASSES][HINT_BUCKETS];
};

static DEFINE_PER_CPU(struct numa_hint_histogram, histogram);

static void count(unsigned int class, u64 ns)
{
	unsigned int bucket = ns ? ilog2(ns) + 1 : 0;

	this_cpu_inc(histogram.times[class][min(bucket, HINT_BUCKETS - 1U)]);
}

static enum numa_hint_outcome outcome_of(int flags)
{
	if (flags & TNF_MIGRATED)
		return HINT_MIGRATED;
	if (flags & TNF_MIGRATE_FAIL)
		return HINT_FAILED;
	if (flags & TNF_QUEUED)
		return HINT_QUEUED;

	return HINT_STAYED;
}

static enum numa_hint_size size_of(int pages)
{
	if (pages == 1)
		return HINT_SMALL;

	return pages < PMD_SIZE / PAGE_SIZE ? HINT_LARGE : HINT_HUGE;
}

/* Clocks of two CPUs may differ. */
static u64 ns_since(u64 begin)
{
	return max_t(s64, local_clock() - begin, 0);
}

void __numa_hint_fault(u64 begin, int pages, int flags)
{
	u64 ns = ns_since(begin);

	count(size_of(pages) * HINT_OUTCOMES + outcome_of(flags), ns);
	trace_numa_hint_fault(pages, flags, ns);
}

void __numa_hint_scan(u64 begin)
{
	u64 ns = ns_since(begin);

	count(HINT_SCAN, ns);
	trace_numa_hint_scan(ns);
}

/* Classes in which something was seen, "less_than_ns:times" each. */
static int latency_show(struct seq_file *m, void *v)
{
	static const char * const outcomes[] = {
		"stayed", "migrated", "failed", "queued",
	};
	static const char * const sizes[] = { "small", "large", "huge" };
	unsigned long sum;
	int class, i, cpu;

	for (class = 0; class < HINT_CLASSES; class++) {
		if (class == HINT_SCAN)
			seq_puts(m, "scan");
		else
			seq_printf(m, "%s %s", sizes[class / HINT_OUTCOMES],
				   outcomes[class % HINT_OUTCOMES]);
		for (i = 0; i < HINT_BUCKETS; i++) {
			sum = 0;
			for_each_possible_cpu(cpu)
				sum += per_cpu(histogram.times[class][i], cpu);
			if (sum)
				seq_printf(m, " %llu:%lu", 1ULL << i, sum);
		}
		seq_putc(m, '\n');
	}

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(latency);

static int enabled_get(void *data, u64 *val)
{
	*val = static_key_enabled(&numa_hint_timed);

	return 0;
}

/* Each time that it is switched on, it begins with nothing. */
static int enabled_set(void *data, u64 val)
{
	int cpu;

	if (val > 1)
		return -EINVAL;
	if (val && !static_key_enabled(&numa_hint_timed))
		for_each_possible_cpu(cpu)
			memset(per_cpu_ptr(&histogram, cpu), 0, sizeof(histogram));
	if (val)
		static_branch_enable(&numa_hint_timed);
	else
		static_branch_disable(&numa_hint_timed);

	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(enabled_fops, enabled_get, enabled_set, "%llu\n");

static int __init numa_hint_init(void)
{
	struct dentry *dir = debugfs_create_dir("numa_hint", NULL);

	debugfs_create_file("enabled", 0644, dir, NULL, &enabled_fops);
	debugfs_create_file("latency", 0444, dir, NULL, &latency_fops);

	return 0;
}
late_initcall(numa_hint_init);
