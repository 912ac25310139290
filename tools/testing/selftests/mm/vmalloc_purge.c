// SPDX-License-Identifier: GPL-2.0
/*
 * The lazy purge of vmalloc areas: the limits in /sys/kernel/mm/vmalloc/ and
 * what they do to storms of vfree(), alone and while everything else that
 * takes part in a purge happens at the same time.
 *
 * The storms are those of lib/test_vmalloc.c, which stamps each area and
 * fails if it finds another stamp when it frees it.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSFS	"/sys/kernel/mm/vmalloc/"

/* run_test_mask of test_vmalloc */
#define FIX_SIZE	1
#define VM_MAP_RAM	1024
#define VFREE_STORM	8192
#define GLOBAL_SPACE	16384

enum knob {
	LAZY_MAX_KB, LAZY_MAX_AREAS, PURGE_BATCH, PURGE_SLICE_US,
	THROTTLE_PERCENT, NR_KNOBS
};

static const struct {
	const char *name;
	unsigned long min, max;		/* beside 0 */
} knobs[NR_KNOBS] = {
	[LAZY_MAX_KB]		= { "lazy_max_kb", 0, 0 },	/* see setup */
	[LAZY_MAX_AREAS]	= { "lazy_max_areas", 1, 2147483647 },
	[PURGE_BATCH]		= { "purge_batch", 1, 1000000 },
	[PURGE_SLICE_US]	= { "purge_slice_us", 50, 1000000 },
	[THROTTLE_PERCENT]	= { "throttle_percent", 100, 10000 },
};

/* Returns 0 or the errno of the write. */
static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), err = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err = errno ?: EIO;
	close(fd);

	return err;
}

static int knob_write(enum knob k, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), SYSFS "%s", knobs[k].name);
	return write_text(path, text);
}

static int knob_set(enum knob k, unsigned long val)
{
	char text[32];

	snprintf(text, sizeof(text), "%lu", val);
	return knob_write(k, text);
}

/* -1 if there is no such file. */
static long knob_get(enum knob k)
{
	char path[128];
	long val = -1;
	FILE *f;

	snprintf(path, sizeof(path), SYSFS "%s", knobs[k].name);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%ld", &val) != 1)
		val = -1;
	if (f)
		fclose(f);

	return val;
}

/* -1 if /proc/vmstat has no such line. */
static long read_counter(const char *name)
{
	FILE *f = fopen("/proc/vmstat", "r");
	long val, found = -1;
	char line[64];

	while (f && fscanf(f, "%63s %ld", line, &val) == 2)
		if (!strcmp(line, name))
			found = val;
	if (f)
		fclose(f);

	return found;
}

/*
 * Load test_vmalloc, which runs the tests in @mask and refuses to stay.
 * Returns the number of tests that it reports to have failed, or -1 if it
 * reported none at all.
 */
static int run_test_vmalloc(int mask, const char *params)
{
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	char command[256], record[8192], *text;
	int passed, failed, xfailed, result = -1;
	ssize_t len;

	if (kmsg < 0)
		return -1;
	lseek(kmsg, 0, SEEK_END);

	snprintf(command, sizeof(command),
		 "modprobe test_vmalloc run_test_mask=%d %s >/dev/null 2>&1",
		 mask, params);
	if (system(command) == -1)
		goto out;

	for (;;) {
		len = read(kmsg, record, sizeof(record) - 1);
		if (len < 0 && errno == EPIPE)
			continue;	/* records were overwritten, go on */
		if (len <= 0)
			break;
		record[len] = 0;
		text = strstr(record, "Summary: ");
		if (text && sscanf(text, "Summary: %*s passed: %d failed: %d xfailed: %d",
				   &passed, &failed, &xfailed) == 3)
			result = (result < 0 ? 0 : result) + failed + !passed;
	}
out:
	close(kmsg);
	return result;
}

FIXTURE(vmalloc_purge)
{
	unsigned long saved[NR_KNOBS];
};

FIXTURE_SETUP(vmalloc_purge)
{
	long val;
	int k;

	if (geteuid())
		SKIP(return, "not root");
	if (access(SYSFS, F_OK))
		SKIP(return, "no " SYSFS ": CONFIG_VMALLOC_SYSFS");

	for (k = 0; k < NR_KNOBS; k++) {
		val = knob_get(k);
		ASSERT_GE(val, 0);
		self->saved[k] = val;
	}
}

FIXTURE_TEARDOWN(vmalloc_purge)
{
	int k;

	for (k = 0; k < NR_KNOBS; k++)
		EXPECT_EQ(knob_set(k, self->saved[k]), 0);
}

static bool have_test_vmalloc(void)
{
	return !system("modinfo test_vmalloc >/dev/null 2>&1");
}

#define STORM(mask, params) ASSERT_EQ(run_test_vmalloc(mask, params), 0)

TEST_F(vmalloc_purge, knobs_take_their_range)
{
	unsigned long page_kb = sysconf(_SC_PAGESIZE) / 1024;
	int k;

	for (k = LAZY_MAX_AREAS; k < NR_KNOBS; k++) {
		const unsigned long good[] = {
			0, knobs[k].min, knobs[k].min + 1, knobs[k].max - 1,
			knobs[k].max,
		};

		for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
			EXPECT_EQ(knob_set(k, good[i]), 0);
			EXPECT_EQ(knob_get(k), (long)good[i]);
		}
	}

	EXPECT_EQ(knob_set(LAZY_MAX_KB, 0), 0);
	EXPECT_EQ(knob_get(LAZY_MAX_KB), 0);
	EXPECT_EQ(knob_set(LAZY_MAX_KB, page_kb), 0);
	EXPECT_EQ(knob_get(LAZY_MAX_KB), (long)page_kb);
	/* Rounded down to pages. */
	EXPECT_EQ(knob_set(LAZY_MAX_KB, 3 * page_kb - 1), 0);
	EXPECT_EQ(knob_get(LAZY_MAX_KB), (long)(2 * page_kb));
	EXPECT_EQ(knob_write(LAZY_MAX_KB, "4096\n"), 0);
	EXPECT_EQ(knob_get(LAZY_MAX_KB), 4096);
}

TEST_F(vmalloc_purge, knobs_refuse_the_rest)
{
	static const char * const bad[] = {
		"", "\n", "-1", "x", "1x", "1 2", "1.5", "0x40",
		"18446744073709551615", "18446744073709551616",
		"99999999999999999999999999",
	};
	int k;

	for (k = 0; k < NR_KNOBS; k++) {
		const unsigned long old = k == LAZY_MAX_KB ? 8192 : 200;
		unsigned long min = knobs[k].min, max = knobs[k].max;

		ASSERT_EQ(knob_set(k, old), 0);
		/* sysfs passes no write of nothing on */
		for (size_t i = 1; i < ARRAY_SIZE(bad); i++) {
			EXPECT_EQ(knob_write(k, bad[i]), EINVAL)
				TH_LOG("%s took '%s'", knobs[k].name, bad[i]);
			EXPECT_EQ(knob_get(k), (long)old);
		}

		if (k == LAZY_MAX_KB) {
			min = sysconf(_SC_PAGESIZE) / 1024;
			/* No vmalloc space is as large as all addresses. */
			max = ~0UL >> 12;
		}
		if (min > 1) {
			EXPECT_EQ(knob_set(k, min - 1), EINVAL);
			EXPECT_EQ(knob_get(k), (long)old);
		}
		EXPECT_EQ(knob_set(k, max + 1), EINVAL);
		EXPECT_EQ(knob_get(k), (long)old);
	}
}

/* The areas of a storm are purged, each is returned, and nothing lags on. */
TEST_F_TIMEOUT(vmalloc_purge, all_areas_return, 300)
{
	long purged = read_counter("vmalloc_purged_areas");
	long purges = read_counter("vmalloc_purge");

	if (purged < 0)
		SKIP(return, "no counters: CONFIG_VM_EVENT_COUNTERS");

	if (!have_test_vmalloc())
		SKIP(return, "no test_vmalloc: CONFIG_TEST_VMALLOC=m");
	/* Purges of more than one slice, which nobody but a worker returns. */
	ASSERT_EQ(knob_set(LAZY_MAX_KB, 8192), 0);
	ASSERT_EQ(knob_set(PURGE_SLICE_US, 50), 0);
	ASSERT_EQ(knob_set(THROTTLE_PERCENT, 0), 0);
	STORM(VFREE_STORM, "nr_storm_areas=4000 test_repeat_count=2");

	/*
	 * At most 2048 pages may be left to purge, in 1024 areas. Wait for the
	 * others for as long as it takes, as nothing else starts a purge now.
	 */
	while (read_counter("vmalloc_purged_areas") - purged < 8000 - 1024)
		usleep(1000);
	while (read_counter("nr_vmalloc_flushed_areas") > 0)
		usleep(1000);
	EXPECT_GT(read_counter("vmalloc_purge"), purges);
}

/* Many small areas are a reason to purge when their pages are not. */
TEST_F_TIMEOUT(vmalloc_purge, areas_are_bounded, 300)
{
	long before, unlimited;

	before = read_counter("vmalloc_purge");
	if (before < 0)
		SKIP(return, "no counters: CONFIG_VM_EVENT_COUNTERS");

	if (!have_test_vmalloc())
		SKIP(return, "no test_vmalloc: CONFIG_TEST_VMALLOC=m");
	/* More than the storm, less than a quarter of any vmalloc space. */
	ASSERT_EQ(knob_set(LAZY_MAX_KB, 1 << 18), 0);
	ASSERT_EQ(knob_set(LAZY_MAX_AREAS, 0), 0);
	STORM(VFREE_STORM, "nr_storm_areas=4000");
	/* To load a module purges a few times as well. */
	unlimited = read_counter("vmalloc_purge") - before;

	ASSERT_EQ(knob_set(LAZY_MAX_AREAS, 20), 0);
	ASSERT_EQ(knob_set(THROTTLE_PERCENT, 100), 0);
	before = read_counter("vmalloc_purge");
	STORM(VFREE_STORM, "nr_storm_areas=4000");
	EXPECT_GT(read_counter("vmalloc_purge") - before, unlimited + 4);
}

TEST_F_TIMEOUT(vmalloc_purge, frees_are_throttled, 300)
{
	long before = read_counter("vmalloc_throttled");

	if (before < 0)
		SKIP(return, "no counters: CONFIG_VM_EVENT_COUNTERS");

	if (!have_test_vmalloc())
		SKIP(return, "no test_vmalloc: CONFIG_TEST_VMALLOC=m");
	ASSERT_EQ(knob_set(LAZY_MAX_AREAS, 10), 0);
	ASSERT_EQ(knob_set(PURGE_SLICE_US, 50), 0);
	ASSERT_EQ(knob_set(THROTTLE_PERCENT, 0), 0);
	/* Whoever is throttled already has seen the old limit. */
	STORM(VFREE_STORM, "nr_storm_areas=2000");
	before = read_counter("vmalloc_throttled");
	STORM(VFREE_STORM, "nr_storm_areas=2000");
	EXPECT_EQ(read_counter("vmalloc_throttled"), before);

	ASSERT_EQ(knob_set(THROTTLE_PERCENT, 100), 0);
	STORM(VFREE_STORM, "nr_storm_areas=2000");
	EXPECT_GT(read_counter("vmalloc_throttled"), before);
}

TEST_F_TIMEOUT(vmalloc_purge, lock_is_released_every_batch, 300)
{
	long before = read_counter("vmalloc_purge_resched");

	if (before < 0)
		SKIP(return, "no counters: CONFIG_VM_EVENT_COUNTERS");

	if (!have_test_vmalloc())
		SKIP(return, "no test_vmalloc: CONFIG_TEST_VMALLOC=m");
	ASSERT_EQ(knob_set(LAZY_MAX_AREAS, 100), 0);
	ASSERT_EQ(knob_set(PURGE_BATCH, 0), 0);
	STORM(GLOBAL_SPACE, "test_loop_count=2000");
	/* Whatever is under way has read the old limit. */
	before = read_counter("vmalloc_purge_resched");
	STORM(GLOBAL_SPACE, "test_loop_count=2000");
	EXPECT_EQ(read_counter("vmalloc_purge_resched"), before);

	ASSERT_EQ(knob_set(PURGE_BATCH, 1), 0);
	STORM(GLOBAL_SPACE, "test_loop_count=2000");
	EXPECT_GT(read_counter("vmalloc_purge_resched"), before);
}

/* What goes on beside a storm, until told to stop. */
static atomic_bool stop;

static void *shrink(void *arg)
{
	/* 4: without a message each, which would push out all others. */
	while (!stop)
		write_text("/proc/sys/vm/drop_caches", "6");
	return NULL;
}

static void *read_vmallocinfo(void *arg)
{
	char buf[65536];
	int fd;

	while (!stop) {
		fd = open("/proc/vmallocinfo", O_RDONLY);
		while (fd >= 0 && read(fd, buf, sizeof(buf)) > 0)
			;
		close(fd);
		usleep(1000);
	}
	return NULL;
}

static void *turn_knobs(void *arg)
{
	static const unsigned long values[][NR_KNOBS] = {
		{ 0, 0, 32, 1000, 400 },
		{ 4, 1, 1, 50, 100 },
		{ 1 << 20, 0, 0, 0, 0 },
		{ 64, 7, 1000000, 1000000, 10000 },
		{ 0, 50, 3, 0, 100 },
	};
	unsigned int i;
	int k;

	for (i = 0; !stop; i++) {
		for (k = 0; k < NR_KNOBS; k++)
			knob_set(k, values[i % ARRAY_SIZE(values)][k]);
		usleep(500);
	}
	return NULL;
}

static void *plug_cpus(void *arg)
{
	long nr = sysconf(_SC_NPROCESSORS_CONF), cpu;
	char path[64];

	for (cpu = 1; !stop; cpu = cpu % (nr - 1) + 1) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/cpu/cpu%ld/online", cpu);
		write_text(path, "0");
		usleep(1000);
		write_text(path, "1");
	}
	return NULL;
}

FIXTURE(vmalloc_purge_race)
{
	unsigned long saved[NR_KNOBS];
	pthread_t thread;
	bool running;
};

FIXTURE_VARIANT(vmalloc_purge_race)
{
	void *(*beside)(void *arg);
};

FIXTURE_VARIANT_ADD(vmalloc_purge_race, shrinker) { .beside = shrink };
FIXTURE_VARIANT_ADD(vmalloc_purge_race, vmallocinfo) { .beside = read_vmallocinfo };
FIXTURE_VARIANT_ADD(vmalloc_purge_race, knobs) { .beside = turn_knobs };
FIXTURE_VARIANT_ADD(vmalloc_purge_race, cpu_hotplug) { .beside = plug_cpus };

FIXTURE_SETUP(vmalloc_purge_race)
{
	int k;

	if (geteuid())
		SKIP(return, "not root");
	if (access(SYSFS, F_OK))
		SKIP(return, "no " SYSFS ": CONFIG_VMALLOC_SYSFS");
	if (variant->beside == plug_cpus &&
	    access("/sys/devices/system/cpu/cpu1/online", W_OK))
		SKIP(return, "no CPU to unplug");

	for (k = 0; k < NR_KNOBS; k++)
		self->saved[k] = knob_get(k);
	/* Purge early and often. */
	ASSERT_EQ(knob_set(LAZY_MAX_AREAS, 50), 0);
	ASSERT_EQ(knob_set(PURGE_BATCH, 4), 0);
	ASSERT_EQ(knob_set(PURGE_SLICE_US, 50), 0);
	ASSERT_EQ(knob_set(THROTTLE_PERCENT, 200), 0);

	stop = false;
	ASSERT_EQ(pthread_create(&self->thread, NULL, variant->beside, NULL), 0);
	self->running = true;
}

FIXTURE_TEARDOWN(vmalloc_purge_race)
{
	int k;

	if (!self->running)
		return;
	stop = true;
	pthread_join(self->thread, NULL);
	for (k = 0; k < NR_KNOBS; k++)
		EXPECT_EQ(knob_set(k, self->saved[k]), 0);
}

TEST_F_TIMEOUT(vmalloc_purge_race, storm, 300)
{
	if (!have_test_vmalloc())
		SKIP(return, "no test_vmalloc: CONFIG_TEST_VMALLOC=m");
	STORM(VFREE_STORM, "nr_storm_areas=500 test_repeat_count=3 nr_threads=2");
}

TEST_F_TIMEOUT(vmalloc_purge_race, mixed, 300)
{
	if (!have_test_vmalloc())
		SKIP(return, "no test_vmalloc: CONFIG_TEST_VMALLOC=m");
	STORM(FIX_SIZE | VM_MAP_RAM | GLOBAL_SPACE,
	      "test_loop_count=200 nr_threads=3");
}

TEST_HARNESS_MAIN
