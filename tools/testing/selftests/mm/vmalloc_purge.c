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
#include <pthread.h>
#include <stdatomic.h>
#include "harness_util.h"

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

/* They take 0 as well. The range of lazy_max_kb depends on the page size. */
static const struct setting knobs[NR_KNOBS] = {
	[LAZY_MAX_KB]		= { SYSFS "lazy_max_kb" },
	[LAZY_MAX_AREAS]	= { SYSFS "lazy_max_areas", .min = 1, .max = 2147483647 },
	[PURGE_BATCH]		= { SYSFS "purge_batch", .min = 1, .max = 1000000 },
	[PURGE_SLICE_US]	= { SYSFS "purge_slice_us", .min = 50, .max = 1000000 },
	[THROTTLE_PERCENT]	= { SYSFS "throttle_percent", .min = 100, .max = 10000 },
};

static int knob_set(enum knob k, long val)
{
	return write_long(knobs[k].path, val);
}

static long knob_get(enum knob k)
{
	return read_long(knobs[k].path);
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

/* Returns why a test with storms must skip; @counter: one that it reads, or NULL. */
static const char *no_storms(const char *counter)
{
	if (counter && vm_event(counter) < 0)
		return "no counters: CONFIG_VM_EVENT_COUNTERS";
	return system("modinfo test_vmalloc >/dev/null 2>&1") ?
	       "no test_vmalloc: CONFIG_TEST_VMALLOC=m" : NULL;
}

FIXTURE(vmalloc_purge)
{
	char saved[NR_KNOBS][SETTING_LEN];
};

FIXTURE_SETUP(vmalloc_purge)
{
	const char *missing = skip_reason(SYSFS, "CONFIG_VMALLOC_SYSFS");

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(settings_save(knobs, NR_KNOBS, self->saved));
}

FIXTURE_TEARDOWN(vmalloc_purge)
{
	EXPECT_TRUE(settings_restore(knobs, NR_KNOBS, self->saved));
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
	EXPECT_EQ(write_text(knobs[LAZY_MAX_KB].path, "4096\n"), 0);
	EXPECT_EQ(knob_get(LAZY_MAX_KB), 4096);
}

TEST_F(vmalloc_purge, knobs_refuse_the_rest)
{
	/* sysfs passes no write of nothing on */
	static const char * const bad[] = {
		"\n", "-1", "x", "1x", "1 2", "1.5", "0x40",
		"18446744073709551615", "18446744073709551616",
		"99999999999999999999999999",
	};
	int k;

	for (k = 0; k < NR_KNOBS; k++) {
		const unsigned long old = k == LAZY_MAX_KB ? 8192 : 200;
		unsigned long min = knobs[k].min, max = knobs[k].max;

		ASSERT_EQ(knob_set(k, old), 0);
		check_refused(_metadata, knobs[k].path, bad, ARRAY_SIZE(bad));
		EXPECT_EQ(knob_get(k), (long)old);

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
	const char *missing = no_storms("vmalloc_purged_areas");
	long purged = vm_event("vmalloc_purged_areas");
	long purges = vm_event("vmalloc_purge");

	if (missing)
		SKIP(return, "%s", missing);
	/* Purges of more than one slice, which nobody but a worker returns. */
	ASSERT_EQ(knob_set(LAZY_MAX_KB, 8192), 0);
	ASSERT_EQ(knob_set(PURGE_SLICE_US, 50), 0);
	ASSERT_EQ(knob_set(THROTTLE_PERCENT, 0), 0);
	STORM(VFREE_STORM, "nr_storm_areas=4000 test_repeat_count=2");

	/*
	 * At most 2048 pages may be left to purge, in 1024 areas. Wait for the
	 * others for as long as it takes, as nothing else starts a purge now.
	 */
	while (vm_event("vmalloc_purged_areas") - purged < 8000 - 1024)
		usleep(1000);
	while (vm_event("nr_vmalloc_flushed_areas") > 0)
		usleep(1000);
	EXPECT_GT(vm_event("vmalloc_purge"), purges);
}

/* Many small areas are a reason to purge when their pages are not. */
TEST_F_TIMEOUT(vmalloc_purge, areas_are_bounded, 300)
{
	const char *missing = no_storms("vmalloc_purge");
	long before = vm_event("vmalloc_purge"), unlimited;

	if (missing)
		SKIP(return, "%s", missing);
	/* More than the storm, less than a quarter of any vmalloc space. */
	ASSERT_EQ(knob_set(LAZY_MAX_KB, 1 << 18), 0);
	ASSERT_EQ(knob_set(LAZY_MAX_AREAS, 0), 0);
	STORM(VFREE_STORM, "nr_storm_areas=4000");
	/* To load a module purges a few times as well. */
	unlimited = vm_event("vmalloc_purge") - before;

	ASSERT_EQ(knob_set(LAZY_MAX_AREAS, 20), 0);
	ASSERT_EQ(knob_set(THROTTLE_PERCENT, 100), 0);
	before = vm_event("vmalloc_purge");
	STORM(VFREE_STORM, "nr_storm_areas=4000");
	EXPECT_GT(vm_event("vmalloc_purge") - before, unlimited + 4);
}

TEST_F_TIMEOUT(vmalloc_purge, frees_are_throttled, 300)
{
	const char *missing = no_storms("vmalloc_throttled");
	long before;

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_EQ(knob_set(LAZY_MAX_AREAS, 10), 0);
	ASSERT_EQ(knob_set(PURGE_SLICE_US, 50), 0);
	ASSERT_EQ(knob_set(THROTTLE_PERCENT, 0), 0);
	/* Whoever is throttled already has seen the old limit. */
	STORM(VFREE_STORM, "nr_storm_areas=2000");
	before = vm_event("vmalloc_throttled");
	STORM(VFREE_STORM, "nr_storm_areas=2000");
	EXPECT_EQ(vm_event("vmalloc_throttled"), before);

	ASSERT_EQ(knob_set(THROTTLE_PERCENT, 100), 0);
	STORM(VFREE_STORM, "nr_storm_areas=2000");
	EXPECT_GT(vm_event("vmalloc_throttled"), before);
}

TEST_F_TIMEOUT(vmalloc_purge, lock_is_released_every_batch, 300)
{
	const char *missing = no_storms("vmalloc_purge_resched");
	long before;

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_EQ(knob_set(LAZY_MAX_AREAS, 100), 0);
	ASSERT_EQ(knob_set(PURGE_BATCH, 0), 0);
	STORM(GLOBAL_SPACE, "test_loop_count=2000");
	/* Whatever is under way has read the old limit. */
	before = vm_event("vmalloc_purge_resched");
	STORM(GLOBAL_SPACE, "test_loop_count=2000");
	EXPECT_EQ(vm_event("vmalloc_purge_resched"), before);

	ASSERT_EQ(knob_set(PURGE_BATCH, 1), 0);
	STORM(GLOBAL_SPACE, "test_loop_count=2000");
	EXPECT_GT(vm_event("vmalloc_purge_resched"), before);
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

	for (cpu = 1; !stop; cpu = cpu % (nr - 1) + 1) {
		set_cpu_online(cpu, false);
		usleep(1000);
		set_cpu_online(cpu, true);
	}
	return NULL;
}

FIXTURE(vmalloc_purge_race)
{
	char saved[NR_KNOBS][SETTING_LEN];
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
	const char *missing = skip_reason(SYSFS, "CONFIG_VMALLOC_SYSFS");

	if (missing)
		SKIP(return, "%s", missing);
	if (variant->beside == plug_cpus && !cpu1_can_unplug())
		SKIP(return, "no CPU to unplug");

	ASSERT_TRUE(settings_save(knobs, NR_KNOBS, self->saved));
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
	if (!self->running)
		return;
	stop = true;
	pthread_join(self->thread, NULL);
	EXPECT_TRUE(settings_restore(knobs, NR_KNOBS, self->saved));
}

TEST_F_TIMEOUT(vmalloc_purge_race, storm, 300)
{
	const char *missing = no_storms(NULL);

	if (missing)
		SKIP(return, "%s", missing);
	STORM(VFREE_STORM, "nr_storm_areas=500 test_repeat_count=3 nr_threads=2");
}

TEST_F_TIMEOUT(vmalloc_purge_race, mixed, 300)
{
	const char *missing = no_storms(NULL);

	if (missing)
		SKIP(return, "%s", missing);
	STORM(FIX_SIZE | VM_MAP_RAM | GLOBAL_SPACE,
	      "test_loop_count=200 nr_threads=3");
}

TEST_HARNESS_MAIN
