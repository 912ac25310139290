// SPDX-License-Identifier: GPL-2.0
/*
 * NUMA balancing outside of page faults: memory comes to where it is used, by
 * a daemon, with what is in it; and never to where its policy does not let it,
 * whatever happens to it while it is on its way.
 *
 * A user is a process that has memory on one node and uses it on another one.
 * All pages carry stamps. Where they are is asked of move_pages(), what the
 * daemons have done is read from sysfs, debugfs and /proc/vmstat.
 *
 * Boot with two nodes that have CPUs and memory, better with four; with
 * movablecore= for memory to go offline, and CONFIG_PM_DEBUG for the freezer.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <limits.h>
#include <linux/stddef.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sys/uio.h>
#include "knuma_util.h"

FIXTURE(knuma)
{
	struct setup setup;
};

FIXTURE_SETUP(knuma)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN_PARENT(knuma)
{
	restore(&self->setup);
}

static const struct setting knobs[] = {
	{ KNUMA "enabled", .max = 1 },
	{ KNUMA "debug", .max = 1 },
	{ KNUMA "working_set", .max = 1 },
	{ KNUMA "scheduler/load_balance_strict", .max = 1 },
	{ MIGRATED "wake_pages", .min = 1, .max = 1 << 20 },
	{ MIGRATED "wake_millisecs", .max = 1000 },
	{ MIGRATED "batch_pages", .min = 1, .max = 512 },
	{ MIGRATED "pages_to_migrate", .min = 1, .max = 1 << 24 },
	{ MIGRATED "migrate_sleep_millisecs", .min = 1, .max = 10000 },
	{ SCAND "enabled", .max = 1 },
	{ SCAND "scan_sleep_millisecs", .max = 60000 },
	{ SCAND "scan_sleep_pass_millisecs", .max = 600000 },
	{ SCAND "pages_to_scan", .min = 1, .max = 1 << 24 },
};

TEST_F_TIMEOUT(knuma, knobs_take_their_range_and_no_more, PATIENCE)
{
	for (size_t k = 0; k < ARRAY_SIZE(knobs); k++)
		check_range(_metadata, &knobs[k]);
}

/* The largest order of a page: there is a column for each in buddyinfo. */
static int largest_order(void)
{
	char line[1024], *word, *next;
	int words = 0;

	read_text("/proc/buddyinfo", line, sizeof(line));
	for (word = strtok_r(line, " ", &next); word; word = strtok_r(NULL, " ", &next))
		words++;
	return words - 5;	/* Node 0, zone DMA 1 ... */
}

TEST_F_TIMEOUT(knuma, knobs_take_sizes_of_folios_and_tables, PATIENCE)
{
	const char *order = MIGRATED "defer_order";
	const char *around = KNUMA "faultaround_pages";
	/* A page table's, but not more than this. */
	const long table = psize() > 4 * KB ? 512 : psize() / sizeof(long);
	const long most = largest_order();

	for (long pages = 1; pages <= table; pages *= 2) {
		EXPECT_EQ(write_long(around, pages), 0);
		EXPECT_EQ(read_long(around), pages);
		if (pages > 2)
			EXPECT_EQ(write_long(around, pages - 1), EINVAL);
		EXPECT_EQ(write_long(around, 2 * table), EINVAL);
		EXPECT_EQ(write_long(around, -1), EINVAL);
		EXPECT_EQ(read_long(around), pages);
	}
	EXPECT_EQ(write_long(around, 0), 0);
	EXPECT_EQ(read_long(around), 0);

	for (long i = 0; i <= most; i++) {
		EXPECT_EQ(write_long(order, i), 0);
		EXPECT_EQ(read_long(order), i);
	}
	EXPECT_EQ(write_long(order, most + 1), EINVAL);
	EXPECT_EQ(write_text(order, "x"), EINVAL);
	EXPECT_EQ(read_long(order), most);
}

TEST_F_TIMEOUT(knuma, counts_cannot_be_written, PATIENCE)
{
	static const char * const paths[] = {
		MIGRATED "pages_migrated", MIGRATED "pages_failed",
		SCAND "pages_scanned", SCAND "full_scans",
	};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		EXPECT_GE(read_long(paths[i]), 0);
		EXPECT_NE(write_text(paths[i], "0"), 0);
	}
}

/* How many processes have this name. */
static int processes(const char *prefix, bool whole)
{
	char path[300], name[64];
	struct dirent *entry;
	DIR *dir = opendir("/proc");
	int found = 0;

	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (isdigit(*entry->d_name) && read_text(path, name, sizeof(name)))
			found += whole ? !strcmp(name, prefix) :
				 !strncmp(name, prefix, strlen(prefix));
	}
	if (dir)
		closedir(dir);

	return found;
}

/* One for each place, and none for others. */
static bool daemons_run(bool on, bool scand)
{
	char name[32];

	for (int i = 0; i < nr_places; i++) {
		snprintf(name, sizeof(name), "knuma_migrated%d", places[i].node);
		if (processes(name, true) != on)
			return false;
	}
	return processes("knuma_migrated", false) == (on ? nr_places : 0) &&
	       processes("knuma_scand", true) == (on && scand);
}

TEST_F_TIMEOUT(knuma, daemons_run_while_they_should, PATIENCE)
{
	struct user *u = start((struct user) {});

	ASSERT_NE(u, NULL);
	if (nr_places == ARRAY_SIZE(places))
		SKIP(return, "too many nodes");
	for (int i = 0; i < 8; i++) {
		bool on = i & 1, scand = i & 2;

		ASSERT_EQ(write_long(SCAND "enabled", scand), 0);
		ASSERT_EQ(write_long(KNUMA "enabled", on), 0);
		/* Who has ended may be seen for a moment. */
		EXPECT_TRUE(wait_for(daemons_run(on, scand)))
			TH_LOG("enabled %d, knuma_scand %d", on, scand);
		/* And the other way round. */
		ASSERT_EQ(write_long(SCAND "enabled", !scand), 0);
		EXPECT_TRUE(wait_for(daemons_run(on, !scand)));
		u->to = i & 4 ? here : there;
		queued(here, there);
	}
	u->to = there;
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

/* Who waits at a low rate does not wait on when it is low no longer. */
TEST_F_TIMEOUT(knuma, low_rates_are_forgotten_at_once, PATIENCE)
{
	long moved = migrated();
	struct user *u;

	ASSERT_EQ(write_text(KNUMA "enabled", "0"), 0);
	ASSERT_EQ(write_text(MIGRATED "migrate_sleep_millisecs", "10000"), 0);
	ASSERT_EQ(write_text(MIGRATED "pages_to_migrate", "1"), 0);
	ASSERT_EQ(write_text(KNUMA "enabled", "1"), 0);
	/* One of these is more than may move in an hour, and the first to. */
	ASSERT_EQ(write_text(MIGRATED "defer_order", "9"), 0);
	if (!have_folios(HUGE))
		SKIP(return, "no huge pages");
	u = start((struct user) { .size = 32 * MB, .folio = HUGE });
	ASSERT_NE(u, NULL);
	ASSERT_TRUE(has_queued(u, 2 * HUGE / psize()));
	ASSERT_TRUE(wait_for(migrated() > moved));
	usleep(100000);
	EXPECT_EQ(migrated() - moved, (long)(HUGE / psize()));
	ASSERT_EQ(write_text(MIGRATED "migrate_sleep_millisecs", "100"), 0);
	ASSERT_EQ(write_text(MIGRATED "pages_to_migrate", "32768"), 0);
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

/* Memory of each kind, and ways to find it. */
FIXTURE(comes)
{
	struct setup setup;
};

FIXTURE_VARIANT(comes)
{
	size_t folio;
	bool shared;
	const char *around;	/* faultaround_pages */
	const char *scand;
};

FIXTURE_VARIANT_ADD(comes, small) { 0, false, "0", "0" };
FIXTURE_VARIANT_ADD(comes, small_around) { 0, false, "128", "0" };
FIXTURE_VARIANT_ADD(comes, small_scand) { 0, false, "128", "1" };
FIXTURE_VARIANT_ADD(comes, shared) { 0, true, "128", "0" };
FIXTURE_VARIANT_ADD(comes, mthp) { 64 * KB, false, "0", "0" };
FIXTURE_VARIANT_ADD(comes, mthp_around) { 64 * KB, false, "128", "0" };
FIXTURE_VARIANT_ADD(comes, mthp_scand) { 64 * KB, false, "128", "1" };
FIXTURE_VARIANT_ADD(comes, thp) { HUGE, false, "128", "0" };
FIXTURE_VARIANT_ADD(comes, thp_scand) { HUGE, false, "128", "1" };

FIXTURE_SETUP(comes)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_EQ(write_text(KNUMA "faultaround_pages", variant->around), 0);
	ASSERT_EQ(write_text(SCAND "enabled", variant->scand), 0);
}

FIXTURE_TEARDOWN_PARENT(comes)
{
	restore(&self->setup);
}

static long large_folios(struct user *u)
{
	int order = __builtin_ctzl(u->folio / psize()), orders[20] = {};
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int flags = open("/proc/kpageflags", O_RDONLY);
	int err = gather_folio_orders(u->p, u->size, pagemap, flags, orders,
				      ARRAY_SIZE(orders));

	close(pagemap);
	close(flags);
	return err ? -1 : orders[order];
}

TEST_F_TIMEOUT(comes, to_where_it_is_used, PATIENCE)
{
	long scanned = read_long(SCAND "pages_scanned"), folios = 0, moved, pages;
	int fd = memfd_create("knuma", 0);
	struct user *u;

	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	make_queue(here, there);
	make_queue(there, here);
	moved = migrated();
	ASSERT_EQ(ftruncate(fd, 32 * MB), 0);
	u = start((struct user) {
		.folio = variant->folio,
		.fd = variant->shared ? fd : 0,
		.to = here,
	});
	ASSERT_NE(u, NULL);
	if (variant->folio) {
		folios = ask(u, large_folios);
		EXPECT_GE(folios, most(u->size / variant->folio) - 1);
	}
	u->to = there;
	EXPECT_TRUE(converges(u));
	pages = pages_of(u);
	EXPECT_GE(migrated() - moved, pages * 3 / 4);
	/* They are not split on the way; while they are, they are not seen. */
	if (variant->folio)
		EXPECT_TRUE(wait_for(ask(u, large_folios) >= folios));
	if (*variant->scand == '1')
		EXPECT_GT(read_long(SCAND "pages_scanned"), scanned);

	/* And back, now that it has a past. */
	u->to = here;
	EXPECT_TRUE(converges(u));
	EXPECT_GE(migrated() - moved, 2 * pages * 3 / 4);
	EXPECT_EQ(finish(u), 0);
}

/* Of the last accessor, 8 bits of the pid are known; all of them set is "none". */
TEST_F_TIMEOUT(knuma, no_pid_is_left_out, PATIENCE)
{
	struct user *u = NULL;
	pid_t pid;

	while (!u) {
		pid = fork();
		if (!pid)
			_exit(0);
		ASSERT_EQ(wait_status(pid), 0);
		if ((pid & 0xff) != 0xfe)
			continue;
		u = start((struct user) { .size = 4 * MB });
		ASSERT_NE(u, NULL);
		/* Somebody else may have been faster. */
		if ((u->pid & 0xff) == 0xff)
			break;
		EXPECT_EQ(finish(u), 0);
		u = NULL;
	}
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

/* Who moves what, and what that costs. */
TEST_F_TIMEOUT(knuma, small_folios_can_be_left_to_faults, PATIENCE)
{
	static const size_t folios[] = { 0, 64 * KB, HUGE };
	struct user *u;
	long moved, by_daemon, pages;

	make_queue(here, there);
	ASSERT_EQ(write_text(MIGRATED "defer_order", "9"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(folios); i++) {
		if (!have_folios(folios[i])) {
			TH_LOG("left out: folios of %zu bytes", folios[i]);
			continue;
		}
		moved = vm_event("numa_pages_migrated");
		by_daemon = migrated();
		u = start((struct user) { .folio = folios[i] });
		ASSERT_NE(u, NULL);
		pages = pages_of(u);
		EXPECT_TRUE(converges(u));
		EXPECT_EQ(finish(u), 0);
		EXPECT_GE(vm_event("numa_pages_migrated") - moved, most(pages));
		by_daemon = migrated() - by_daemon;
		EXPECT_GE(by_daemon, folios[i] == HUGE ? pages * 3 / 4 : 0);
		EXPECT_LE(by_daemon, folios[i] == HUGE ? LONG_MAX : pages / 16);
	}
}

/* As upstream. */
TEST_F_TIMEOUT(knuma, off_is_off, PATIENCE)
{
	long moved, by_daemon, waited;
	struct user *u;

	ASSERT_EQ(write_text(KNUMA "enabled", "0"), 0);
	moved = vm_event("numa_pages_migrated");
	by_daemon = migrated();
	waited = vm_event("knuma_queued");
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(converges(u));
	EXPECT_GE(vm_event("numa_pages_migrated") - moved, most(pages_of(u)));
	EXPECT_EQ(migrated(), by_daemon);
	EXPECT_EQ(vm_event("knuma_queued"), waited);
	EXPECT_EQ(finish(u), 0);
}

/* One that touches every eighth page, when nobody has told yet where it is. */
static struct user *start_sparse(void)
{
	struct user *u;

	if (write_text(BALANCING, "0"))
		return NULL;
	u = start((struct user) { .size = 2 * MB, .step = 8 * psize() });
	return write_text(BALANCING, "1") ? NULL : u;
}

/* Those that nobody touches have no faults that they could move in. */
TEST_F_TIMEOUT(knuma, neighbours_come_along, PATIENCE)
{
	struct user *u;

	ASSERT_EQ(write_text(KNUMA "faultaround_pages", "8"), 0);
	/*
	 * After it there is a queue; and for a while, the node remembers as
	 * many parts as it can.
	 */
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	ASSERT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);

	/* A few may be too late; nobody faults for them again. */
	u = start_sparse();
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(come(u, pages_of(u) * 3 / 4));
	EXPECT_EQ(finish(u), 0);

	/* And without that, nobody but those that are touched. */
	ASSERT_EQ(write_text(KNUMA "faultaround_pages", "0"), 0);
	u = start_sparse();
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(come(u, pages_of(u) / 16));
	EXPECT_LE(pages_there(u), pages_of(u) / 8 + 1);
	EXPECT_EQ(finish(u), 0);
}

TEST_F_TIMEOUT(knuma, batches_are_as_large_as_they_may, PATIENCE)
{
	int batches = 0, large = 0;
	struct user *u;
	char line[512];
	char *pages;
	FILE *f;

	ASSERT_EQ(write_text(MIGRATED "batch_pages", "4"), 0);
	make_queue(here, there);
	if (trace_event(TRACE, "knuma/knuma_batch", NULL))
		SKIP(return, "no tracefs at /sys/kernel/tracing");
	u = start((struct user) { .size = 8 * MB });
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
	f = fopen(TRACE "trace", "r");
	while (f && fgets(line, sizeof(line), f)) {
		pages = strstr(line, " pages=");
		batches += !!pages;
		large += pages && atoi(pages + strlen(" pages=")) > 4;
	}
	if (f)
		fclose(f);
	rmdir(TRACE);
	EXPECT_GT(batches, 0);
	EXPECT_EQ(large, 0);
}

/* Tasks that go where they like, as the knobs for that are turned. */
TEST_F_TIMEOUT(knuma, tasks_live_as_the_balancer_is_told, PATIENCE)
{
	struct user *users[4];
	cpu_set_t all;
	long rounds;

	CPU_ZERO(&all);
	for (int i = 0; i < nr_places; i++)
		CPU_SET(places[i].cpu, &all);
	for (size_t i = 0; i < ARRAY_SIZE(users); i++) {
		users[i] = start((struct user) {
			.size = 4 * MB,
			.from = &places[i % nr_places],
			.roams = true,
		});
		ASSERT_NE(users[i], NULL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(users); i++)
		ASSERT_EQ(sched_setaffinity(users[i]->pid, sizeof(all), &all), 0);
	for (int round = 0; round < 30; round++) {
		ASSERT_EQ(write_long(KNUMA "scheduler/load_balance_strict",
				     round & 1), 0);
		ASSERT_EQ(write_long(KNUMA "working_set", round & 2 ? 1 : 0), 0);
		usleep(50000);
	}
	for (size_t i = 0; i < ARRAY_SIZE(users); i++) {
		rounds = users[i]->rounds;
		EXPECT_TRUE(wait_for((long)users[i]->rounds > rounds));
	}
	for (size_t i = 0; i < ARRAY_SIZE(users); i++)
		EXPECT_EQ(finish(users[i]), 0);
}

static long group_migrated(int i)
{
	return group_read(groups[i], "memory.stat", "numa_pages_migrated");
}

TEST_F_TIMEOUT(knuma, each_memcg_counts_its_own, PATIENCE)
{
	static const size_t sizes[] = { 16 * MB, 8 * MB };
	struct user *users[2];
	long moved, before[2];

	for (int i = 0; i < 2; i++) {
		if (!make_group(groups[i], 0))
			SKIP(return, "no memory cgroups");
		before[i] = group_migrated(i);
	}
	/* So that batches have pages of both. */
	hold_queues();
	for (int i = 0; i < 2; i++) {
		users[i] = start((struct user) {
			.size = sizes[i], .group = groups[i],
		});
		ASSERT_NE(users[i], NULL);
	}
	for (int i = 0; i < 2; i++)
		EXPECT_TRUE(converges(users[i]));
	for (int i = 0; i < 2; i++) {
		long pages = pages_of(users[i]);

		/* Counts of all CPUs are added up now and then. */
		EXPECT_TRUE(wait_for(group_migrated(i) - before[i] >= most(pages) - 512));
		moved = group_migrated(i) - before[i];
		EXPECT_LE(moved, pages + pages / 4)
			TH_LOG("group %d: %ld of %ld pages", i + 1, moved, pages);
		EXPECT_EQ(finish(users[i]), 0);
	}
}

static unsigned long zone_sum(int node, const char *name)
{
	unsigned long sum = 0, val;
	FILE *f = fopen("/proc/zoneinfo", "r");
	char line[256], word[64];
	int at = -1;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d, zone", &at) != 1 &&
		    sscanf(line, "%63s %lu", word, &val) == 2 && at == node &&
		    !strcmp(word, name))
			sum += val;
	}
	if (f)
		fclose(f);

	return sum;
}

/* Takes memory of a node until it is close to where reclaim begins. */
static char *fill(const struct place *place, size_t *filled)
{
	unsigned long free = zone_sum(place->node, "nr_free_pages") * psize();
	unsigned long high = zone_sum(place->node, "high") * psize(), step;
	char *p = map_aligned(free);

	*filled = 0;
	if (p == MAP_FAILED || !map_over(p, free, false, -1) ||
	    bind_to(p, free, place, 0))
		return NULL;
	/* Most of it in huge pages, if there are any: that is faster. */
	if (have_folios(HUGE) && free > high + 64 * MB)
		madvise(p, (free - high - 64 * MB) / HUGE * HUGE, MADV_HUGEPAGE);
	do {
		step = free > high + 2 * MB ? (free - high) / 2 : psize();
		for (size_t end = *filled + step; *filled < end; *filled += psize())
			p[*filled] = 1;
		free = zone_sum(place->node, "nr_free_pages") * psize();
	} while (free > high);

	return p;
}

TEST_F_TIMEOUT(knuma, full_nodes_are_waited_for, PATIENCE)
{
	long kills = vm_event("oom_kill"), stopped = vm_event("knuma_stopped");
	struct user *u;
	size_t filled;
	char *p;

	if (zone_sum(there->node, "nr_free_pages") > 4 * KB * MB / psize())
		SKIP(return, "too much memory to fill it");
	u = start((struct user) { .to = here });
	ASSERT_NE(u, NULL);
	p = fill(there, &filled);
	ASSERT_NE(p, NULL);
	u->to = there;
	/* Some of what was in use may be given back meanwhile. */
	EXPECT_TRUE(wait_for(vm_event("knuma_stopped") > stopped ||
			     pages_there(u) >= most(pages_of(u))));
	EXPECT_GT(vm_event("knuma_stopped"), stopped);
	EXPECT_LT(pages_there(u), most(pages_of(u)));
	EXPECT_EQ(munmap(p, filled), 0);
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(vm_event("oom_kill"), kills);
	EXPECT_EQ(finish(u), 0);
}

/* By turns, HUGE bytes of its memory to each of three nodes. */
static long spread(struct user *u)
{
	for (size_t i = 0; i < u->size / HUGE; i++) {
		char *part = u->p + i * HUGE;

		if (bind_to(part, HUGE, &places[i % 3], MPOL_MF_MOVE) ||
		    unbind(part, HUGE))
			return -1;
	}
	return 0;
}

/* Sources of which each has something waiting get the same. */
TEST_F_TIMEOUT(knuma, all_nodes_get_their_turn, PATIENCE)
{
	long before[3] = {}, got[3] = {}, all = 0, least, greatest;
	bool wait = false;
	struct user *u;

	if (nr_places < 4)
		SKIP(return, "needs four nodes");
	for (int i = 0; i < 3; i++)
		make_queue(&places[i], there);
	/* Faults that take their neighbours along queue faster than this. */
	ASSERT_EQ(write_text(KNUMA "faultaround_pages", "128"), 0);
	ASSERT_EQ(write_text(MIGRATED "pages_to_migrate", "512"), 0);
	ASSERT_EQ(write_text(MIGRATED "migrate_sleep_millisecs", "50"), 0);
	u = start((struct user) { .size = 24 * HUGE, .to = here });
	ASSERT_NE(u, NULL);
	ASSERT_EQ(ask(u, spread), 0);
	u->to = there;
	for (int round = 0; round < 2000 && all < pages_of(u) * 3 / 4; round++) {
		long now[3] = {};
		bool waited = wait;

		usleep(10000);
		wait = true;
		for (int i = 0; i < 3; i++)
			wait &= queued(&places[i], there) > 128;
		for (size_t i = 0; i < u->size / HUGE; i++)
			now[i % 3] += pages_at(there, u->pid, u->p + i * HUGE, HUGE);
		all = now[0] + now[1] + now[2];
		for (int i = 0; i < 3; i++) {
			if (wait && waited)
				got[i] += now[i] - before[i];
			before[i] = now[i];
		}
	}
	least = got[0];
	greatest = got[0];
	for (int i = 1; i < 3; i++) {
		least = got[i] < least ? got[i] : least;
		greatest = got[i] > greatest ? got[i] : greatest;
	}
	TH_LOG("%ld, %ld, %ld pages", got[0], got[1], got[2]);
	EXPECT_GT(greatest, 500);
	EXPECT_LE(greatest, 2 * least);
	EXPECT_EQ(finish(u), 0);
}

TEST_F_TIMEOUT(knuma, daemons_freeze, PATIENCE)
{
	struct user *u;
	long moved;

	if (write_text("/sys/power/pm_test", "freezer"))
		SKIP(return, "no /sys/power/pm_test: CONFIG_PM_DEBUG");
	hold_queues();
	make_queue(there, here);
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	for (int i = 0; i < 2; i++) {
		u->from = i & 1 ? there : here;
		u->to = i & 1 ? here : there;
		moved = migrated();
		ASSERT_TRUE(has_queued(u, 100));
		/* Takes some seconds, after which all that waits is too old. */
		EXPECT_EQ(write_text("/sys/power/state", "freeze"), 0);
		EXPECT_TRUE(converges(u));
		EXPECT_GT(migrated(), moved);
	}
	write_text("/sys/power/pm_test", "none");
	EXPECT_EQ(finish(u), 0);
}

TEST_F_TIMEOUT(knuma, cpus_come_and_go, PATIENCE)
{
	const int cpu = there->cpu;
	struct user *u;

	if (set_cpu_online(cpu, false))
		SKIP(return, "CPU %d cannot go offline", cpu);
	ASSERT_EQ(set_cpu_online(cpu, true), 0);
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	for (int i = 0; i < 10; i++) {
		ASSERT_EQ(set_cpu_online(cpu, false), 0);
		/* One that has no CPU when it begins gets no daemon yet. */
		if (i & 1) {
			ASSERT_EQ(write_text(KNUMA "enabled", "0"), 0);
			ASSERT_EQ(write_text(KNUMA "enabled", "1"), 0);
		}
		usleep(30000);
		ASSERT_EQ(set_cpu_online(cpu, true), 0);
		usleep(100000);
	}
	EXPECT_TRUE(wait_for(daemons_run(true, false)));
	u->to = here;
	EXPECT_TRUE(converges(u));
	u->to = there;
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

TEST_F_TIMEOUT(knuma, memory_comes_and_goes, PATIENCE)
{
	time_t end = time(NULL) + 5;
	struct user *u;
	int done = 0;

	u = start((struct user) { .size = 64 * MB });
	ASSERT_NE(u, NULL);
	do {
		int before = done;

		for (int block = 0; block < MEMORY_BLOCKS; block++) {
			/* Who uses it may be about to go elsewhere, or not. */
			if (!block_is_movable(block) || write_block(block, "offline"))
				continue;
			done++;
			u->to = done & 4 ? here : there;
			EXPECT_EQ(write_block(block, "online_movable"), 0);
		}
		if (done == before)
			break;
	} while (time(NULL) < end);
	if (!done) {
		finish(u);
		SKIP(return, "no block can go offline: movablecore=");
	}
	u->to = there;
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

/* Like pin_pages(), these hold pages until the file is closed. */
static int hold_by_io_uring(char *p, size_t size)
{
	struct io_uring_params params = {};
	struct iovec iov = { p, size };
	int fd = syscall(__NR_io_uring_setup, 1, &params);

	return fd >= 0 && !syscall(__NR_io_uring_register, fd,
				   IORING_REGISTER_BUFFERS, &iov, 1) ? fd : -1;
}

static int hold_by_pipe(char *p, size_t size)
{
	struct iovec iov = { p, size };
	int fds[2];

	if (pipe(fds) || fcntl(fds[1], F_SETPIPE_SZ, size) < 0 ||
	    vmsplice(fds[1], &iov, 1, 0) != (ssize_t)size)
		return -1;
	close(fds[1]);
	return fds[0];
}

#define HELD (256 * psize())	/* as many as struct user has pfns for */

FIXTURE(held)
{
	struct setup setup;
};

FIXTURE_VARIANT(held)
{
	int (*hold)(char *p, size_t size);
};

FIXTURE_VARIANT_ADD(held, by_gup_test) { .hold = pin_pages };
FIXTURE_VARIANT_ADD(held, by_io_uring) { .hold = hold_by_io_uring };
FIXTURE_VARIANT_ADD(held, by_pipe) { .hold = hold_by_pipe };

FIXTURE_SETUP(held)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
	hold_queues();
}

FIXTURE_TEARDOWN_PARENT(held)
{
	restore(&self->setup);
}

/* In the user; so is what follows. */
static int (*hold)(char *p, size_t size);
static int held_fd;

static void get_pfns(struct user *u, unsigned long *pfns)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);

	for (size_t i = 0; i < HELD / psize(); i++)
		/* While somebody tries to migrate it there is none. */
		do {
			FORCE_READ(u->p[i * psize()]);
			pfns[i] = pagemap_get_pfn(fd, u->p + i * psize());
		} while (pfns[i] == -1UL);
	close(fd);
}

static long hold_some(struct user *u)
{
	held_fd = hold(u->p, HELD);
	get_pfns(u, u->pfns);
	return held_fd >= 0;
}

/* Returns how many have moved. */
static long give_back(struct user *u)
{
	unsigned long pfns[HELD / psize()];
	long moved = 0;

	get_pfns(u, pfns);
	for (size_t i = 0; i < HELD / psize(); i++)
		moved += pfns[i] != u->pfns[i];
	close(held_fd);

	return moved;
}

TEST_F_TIMEOUT(held, pages_stay_where_they_are, PATIENCE)
{
	struct user *u;

	hold = variant->hold;
	for (int after = 0; after < 2; after++) {
		u = start((struct user) { .to = after ? there : here });
		ASSERT_NE(u, NULL);
		/* Before or after they were queued. */
		if (after)
			ASSERT_TRUE(has_queued(u, pages_of(u) / 2));
		if (ask(u, hold_some) != 1) {
			finish(u);
			SKIP(return, "cannot hold pages this way");
		}
		u->to = there;
		EXPECT_TRUE(come(u, most(pages_of(u)) - (long)(HELD / psize())));
		EXPECT_EQ(ask(u, give_back), 0);
		/* Then they go, too. */
		EXPECT_TRUE(converges(u));
		EXPECT_TRUE(wait_for(pages_at(there, u->pid, u->p, HELD) > 0));
		EXPECT_EQ(finish(u), 0);
	}
}

/* Changes of policy, each after pages were queued under another one. */
static long bind_what_is_queued(struct user *u)
{
	int err = bind_to(u->p, u->size, u->from, 0);

	return err ? -1 : pages_at(there, 0, u->p, u->size);
}

static long bind_and_move_back(struct user *u)
{
	int err = -1;

	/* Somebody else may have a page in use for a moment. */
	for (int i = 0; i < 10 && err; i++)
		err = bind_to(u->p, u->size, u->from, MPOL_MF_MOVE | MPOL_MF_STRICT);
	return err || pages_at(there, 0, u->p, u->size) ? -1 : 0;
}

static long bind_the_task(struct user *u)
{
	unsigned long mask[16] = {};
	int err;

	mask[u->from->node / 64] = 1UL << u->from->node % 64;
	err = syscall(SYS_set_mempolicy, MPOL_BIND, mask, 8 * sizeof(mask));
	return err ? -1 : pages_at(there, 0, u->p, u->size);
}

/* A child has not queued anything, and no other memory. */
static long bind_the_child(struct user *u)
{
	pid_t pid = fork();
	int status;

	if (pid) {
		munmap(u->p, u->size);
		u->left = true;
		status = wait_status(pid);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	u->pid = getpid();
	if (!wait_for(u->left))
		return -1;
	return bind_what_is_queued(u);
}

/* Those of others: the first group has both nodes, the second one has one. */
static long narrow_cpuset(struct user *u)
{
	char mems[16];

	snprintf(mems, sizeof(mems), "%d", here->node);
	return group_write(groups[0], "cpuset.mems", mems) ? -1 : pages_there(u);
}

static long change_cpuset(struct user *u)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", u->pid);
	return group_write(groups[1], "cgroup.procs", pid) ? -1 : pages_there(u);
}

static int bind_file(int fd, size_t size, int node)
{
	const struct place place = { .node = node };
	char *p = map_over(map_aligned(size), size, false, fd);

	return p && !bind_to(p, size, &place, 0) ? 0 : 1;
}

/*
 * The file's policy is the same for all who map it. Done by main() of a program
 * of its own, as a child counts with its parent.
 */
static long bind_shared(struct user *u)
{
	char fd[16], size[32], node[16];
	pid_t pid = fork();

	if (!pid) {
		snprintf(fd, sizeof(fd), "%d", u->fd);
		snprintf(size, sizeof(size), "%zu", u->size);
		snprintf(node, sizeof(node), "%d", u->from->node);
		execl("/proc/self/exe", "knuma", "bind", fd, size, node, NULL);
		_exit(1);
	}
	return wait_status(pid) ? -1 : pages_there(u);
}

FIXTURE(policy)
{
	struct setup setup;
};

FIXTURE_VARIANT(policy)
{
	size_t folio;
	bool shared, group;
	long (*inside)(struct user *u);		/* of the user, or */
	long (*outside)(struct user *u);	/* of somebody else */
};

FIXTURE_VARIANT_ADD(policy, of_a_range) { .inside = bind_what_is_queued };
FIXTURE_VARIANT_ADD(policy, of_a_range_thp) {
	.folio = HUGE, .inside = bind_what_is_queued
};

FIXTURE_VARIANT_ADD(policy, of_a_range_it_moves_to) { .inside = bind_and_move_back };
FIXTURE_VARIANT_ADD(policy, of_the_task) { .inside = bind_the_task };
FIXTURE_VARIANT_ADD(policy, of_a_child) { .inside = bind_the_child };
FIXTURE_VARIANT_ADD(policy, of_the_cpuset) { .group = true, .outside = narrow_cpuset };
FIXTURE_VARIANT_ADD(policy, of_another_cpuset) {
	.group = true, .outside = change_cpuset
};

FIXTURE_VARIANT_ADD(policy, of_shared_memory) { .shared = true, .outside = bind_shared };

FIXTURE_SETUP(policy)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
	hold_queues();
}

FIXTURE_TEARDOWN_PARENT(policy)
{
	restore(&self->setup);
}

static long refused(void)
{
	return fate("policy") + fate("shared");
}

TEST_F_TIMEOUT(policy, holds_for_what_was_queued, PATIENCE)
{
	long dropped = refused(), before;
	struct user *u;

	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	for (int round = 0; round < 10; round++) {
		int fd = memfd_create("knuma", 0);

		ASSERT_EQ(ftruncate(fd, 32 * MB), 0);
		if (variant->group &&
		    (!make_group(groups[0], nr_places) || !make_group(groups[1], 1)))
			SKIP(return, "no cpusets");
		u = start((struct user) {
			.folio = variant->folio,
			.fd = variant->shared ? fd : 0,
			.group = variant->group ? groups[0] : NULL,
		});
		ASSERT_NE(u, NULL);
		ASSERT_TRUE(has_queued(u, pages_of(u) / 4));
		before = variant->inside ? ask(u, variant->inside) :
					   variant->outside(u);
		EXPECT_GE(before, 0);
		/* Until a daemon has looked at all of it. */
		EXPECT_TRUE(wait_for(!queued(here, there)));
		EXPECT_LE(pages_there(u), before);
		EXPECT_EQ(finish(u), 0);
		close(fd);
		if (round && refused() > dropped)
			break;
	}
	EXPECT_GT(refused(), dropped);
}

static void *turn_off(void *arg)
{
	write_text(KNUMA "enabled", "0");
	return NULL;
}

/* The daemon does not scan those who would not scan: by their policy. */
TEST_F_TIMEOUT(knuma, tasks_with_a_policy_are_not_scanned, PATIENCE)
{
	long updates, passes;
	struct user *u;

	ASSERT_EQ(write_text(SCAND "enabled", "1"), 0);
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(converges(u));
	ASSERT_GE(ask(u, bind_the_task), 0);
	u->to = here;
	for (int i = 0; i < 2; i++) {
		/* First, what a scan had begun with ends. */
		updates = vm_event("numa_pte_updates");
		passes = read_long(SCAND "full_scans");
		EXPECT_TRUE(wait_for(read_long(SCAND "full_scans") > passes + 3));
	}
	EXPECT_LT(vm_event("numa_pte_updates") - updates, pages_of(u) / 2);
	EXPECT_EQ(finish(u), 0);
}

/* What was queued may still be on its way then. */
TEST_F_TIMEOUT(knuma, policies_hold_while_it_is_turned_off, PATIENCE)
{
	long before, after, moved = 0;

	/* Slowly, so that there is something to do all the time. */
	ASSERT_EQ(write_text(MIGRATED "wake_millisecs", "0"), 0);
	ASSERT_EQ(write_text(MIGRATED "pages_to_migrate", "128"), 0);
	ASSERT_EQ(write_text(MIGRATED "migrate_sleep_millisecs", "10"), 0);
	ASSERT_EQ(write_text(KNUMA "faultaround_pages", "128"), 0);
	for (int round = 0; round < 6; round++) {
		int fd = memfd_create("knuma", 0);
		pthread_t thread;
		struct user *u;

		ASSERT_EQ(ftruncate(fd, 32 * MB), 0);
		ASSERT_EQ(write_text(KNUMA "enabled", "1"), 0);
		make_queue(here, there);
		u = start((struct user) { .fd = fd });
		ASSERT_NE(u, NULL);
		ASSERT_TRUE(has_queued(u, 256));
		ASSERT_EQ(pthread_create(&thread, NULL, turn_off, NULL), 0);
		usleep(rand() % 20000);
		before = bind_shared(u);
		EXPECT_GE(before, 0);
		ASSERT_EQ(pthread_join(thread, NULL), 0);
		after = pages_there(u);
		EXPECT_LE(after, before);
		moved += before;
		EXPECT_EQ(finish(u), 0);
		close(fd);
		if (after > before)
			break;
	}
	EXPECT_GT(moved, 0);
}

/* A task may run where its cpuset has no memory. */
TEST_F_TIMEOUT(knuma, cpusets_hold_when_it_is_queued, PATIENCE)
{
	struct user *u;
	long faults;

	if (nr_places < 3)
		SKIP(return, "needs three nodes");
	if (!make_group(groups[0], 2))
		SKIP(return, "no cpusets");
	faults = vm_event("numa_hint_faults");
	u = start((struct user) { .group = groups[0] });
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(wait_for(vm_event("numa_hint_faults") > faults + 2 * pages_of(u)));
	EXPECT_EQ(pages_there(u), 0);
	/* Another node that it has memory on is another matter. */
	u->to = &places[1];
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

/*
 * What happens to memory while it is on its way: one thread uses all chunks on
 * one node, another one has each of them suffer something on another node.
 */
#define CHUNK		HUGE
#define CHUNKS		16

struct chunk {
	pthread_mutex_t lock;
	char *p;
	unsigned long key;
	bool large;
};

static struct chunk chunks[CHUNKS];
static char *elsewhere;		/* room for another chunk */
static atomic_bool stop;
static atomic_long bad;		/* pages */
static atomic_long happened;

static bool renew(struct chunk *c)
{
	if (!map_over(c->p, CHUNK, c->large, -1))
		return false;
	stamp(c->p, CHUNK, ++c->key);
	return true;
}

static long broken_chunk(struct chunk *c)
{
	return broken(c->p, CHUNK, c->key);
}

/* Pages of the chunk beside a part of it that are not as they were. */
static long broken_beside(struct chunk *c, size_t from, size_t len)
{
	return broken_part(c->p, 0, from, c->key) +
	       broken_part(c->p, from + len, CHUNK - from - len, c->key);
}

static long not_zero(const char *p, size_t size)
{
	long pages = 0;

	for (size_t at = 0; at < size; at += psize())
		pages += !!memcmp(p + at, elsewhere + CHUNK, psize());
	return pages;
}

static size_t some_part(size_t *len)
{
	size_t pages = CHUNK / psize(), from = rand() % pages;

	*len = (1 + rand() % (pages - from)) * psize();
	return from * psize();
}

/* Events: each returns how many pages are wrong, or -1 if there is no such. */
static long is_unmapped(struct chunk *c)
{
	size_t len, from = some_part(&len);

	return munmap(c->p + from, len) ? CHUNKS : broken_beside(c, from, len);
}

static long is_dropped(struct chunk *c)
{
	size_t len, from = some_part(&len);

	madvise(c->p + from, len, MADV_DONTNEED);
	return broken_beside(c, from, len) + not_zero(c->p + from, len);
}

/* Either one writes to its own copy. */
static long is_copied(struct chunk *c)
{
	pid_t pid = fork();
	long wrong;

	if (pid < 0)
		return 0;
	wrong = broken_chunk(c);
	c->key += pid ? 1 : 2;
	stamp(c->p, CHUNK, c->key);
	wrong += broken_chunk(c);
	if (!pid)
		_exit(wrong ? 1 : 0);

	return wrong + !!wait_status(pid);
}

static long is_split(struct chunk *c)
{
	char text[64];

	snprintf(text, sizeof(text), "%d,%#lx,%#lx", getpid(),
		 (unsigned long)c->p, (unsigned long)c->p + CHUNK);
	if (write_text(THP_SPLIT, text) == ENOENT)
		return -1;
	return broken_chunk(c);
}

static long is_locked(struct chunk *c)
{
	size_t len, from = some_part(&len);

	mlock(c->p + from, len);
	munlock(c->p + from, len / 2);
	return broken_chunk(c);
}

static long is_elsewhere(struct chunk *c)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	long wrong;

	if (mremap(c->p, CHUNK, CHUNK, flags, elsewhere) == MAP_FAILED)
		return CHUNKS;
	wrong = broken(elsewhere, CHUNK, c->key);
	if (mremap(elsewhere, CHUNK, CHUNK, flags, c->p) == MAP_FAILED)
		return CHUNKS;
	return wrong + broken_chunk(c);
}

static long is_protected(struct chunk *c)
{
	size_t len, from = some_part(&len);
	long wrong;

	mprotect(c->p + from, len, PROT_READ);
	wrong = broken_chunk(c);
	mprotect(c->p + from, len, PROT_NONE);
	usleep(1000);
	mprotect(c->p + from, len, PROT_READ | PROT_WRITE);
	return wrong + broken_chunk(c);
}

static long is_free(struct chunk *c)
{
	long wrong = 0;

	madvise(c->p, CHUNK, MADV_FREE);
	for (size_t at = 0; at < CHUNK; at += psize())
		wrong += broken_part(c->p, at, psize(), c->key) &&
			 not_zero(c->p + at, psize());
	return wrong;
}

static long is_cold(struct chunk *c)
{
	madvise(c->p, CHUNK, MADV_COLD);
	return broken_chunk(c);
}

static long is_paged_out(struct chunk *c)
{
	size_t len, from = some_part(&len);

	madvise(c->p + from, len, MADV_PAGEOUT);
	return broken_chunk(c);
}

static long is_collapsed(struct chunk *c)
{
	madvise(c->p, CHUNK, MADV_HUGEPAGE);
	madvise(c->p, CHUNK, MADV_COLLAPSE);
	return broken_chunk(c);
}

static long is_bound(struct chunk *c)
{
	bind_to(c->p, CHUNK, here, MPOL_MF_MOVE);
	unbind(c->p, CHUNK);
	return broken_chunk(c);
}

static struct uffdio_range range_of(struct chunk *c)
{
	return (struct uffdio_range) { (unsigned long)c->p, CHUNK };
}

static bool uffd_has(int fd, struct chunk *c, __u64 mode)
{
	struct uffdio_register reg = { .range = range_of(c), .mode = mode };

	return fd >= 0 && !ioctl(fd, UFFDIO_REGISTER, &reg);
}

static void uffd_forget(int fd, struct chunk *c)
{
	struct uffdio_range range = range_of(c);

	ioctl(fd, UFFDIO_UNREGISTER, &range);
}

static long is_filled_by_uffd(struct chunk *c)
{
	static int fd = -2;
	struct uffdio_copy copy = {
		.dst = (unsigned long)c->p,
		.src = (unsigned long)elsewhere,
		.len = CHUNK,
	};

	if (fd == -2)
		fd = uffd_create(O_NONBLOCK, 0);
	if (!uffd_has(fd, c, UFFDIO_REGISTER_MODE_MISSING))
		return -1;
	map_over(elsewhere, CHUNK, false, -1);
	stamp(elsewhere, CHUNK, ++c->key);
	madvise(c->p, CHUNK, MADV_DONTNEED);
	ioctl(fd, UFFDIO_COPY, &copy);
	uffd_forget(fd, c);

	return broken_chunk(c);
}

/* Of those pages that are there, all must be guarded as they were. */
static long not_guarded(struct chunk *c)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	long pages = 0;

	for (size_t at = 0; at < CHUNK; at += psize())
		pages += !(pagemap_get_entry(pagemap, c->p + at) & PM_UFFD_WP);
	close(pagemap);

	return pages;
}

static long is_write_protected(struct chunk *c)
{
	static int fd = -2;
	struct uffdio_writeprotect protect = {
		.range = range_of(c), .mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	long wrong;

	if (fd == -2)
		fd = uffd_create(O_NONBLOCK, UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	if (!uffd_has(fd, c, UFFDIO_REGISTER_MODE_WP))
		return -1;
	wrong = ioctl(fd, UFFDIO_WRITEPROTECT, &protect) ? 1 : 0;
	usleep(5000);
	wrong += broken_chunk(c) + not_guarded(c);
	uffd_forget(fd, c);

	return wrong + broken_chunk(c);
}

static long is_access_protected(struct chunk *c)
{
	static int fd = -2;
	struct uffdio_rwprotect protect = {
		.range = range_of(c), .mode = UFFDIO_RWPROTECT_MODE_RWP,
	};
	long wrong;

	if (fd == -2)
		fd = uffd_create(O_NONBLOCK, UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC);
	if (!uffd_has(fd, c, UFFDIO_REGISTER_MODE_RWP))
		return -1;
	wrong = ioctl(fd, UFFDIO_RWPROTECT, &protect) ? 1 : 0;
	usleep(5000);
	/* Until somebody looks. */
	wrong += not_guarded(c) + broken_chunk(c);
	wrong += not_guarded(c) != (long)(CHUNK / psize());
	uffd_forget(fd, c);

	return wrong + broken_chunk(c);
}

static void *use_chunks(void *arg)
{
	while (!stop) {
		run_on(there);
		for (int i = 0; i < CHUNKS; i++) {
			struct chunk *c = &chunks[i];

			if (pthread_mutex_trylock(&c->lock))
				continue;
			bad += broken_chunk(c);
			pthread_mutex_unlock(&c->lock);
		}
	}
	return NULL;
}

static long (*event)(struct chunk *c);

/* After some events that takes two passes of scanning. */
static void let_some_move(void)
{
	const int tries = happened > 50 ? 100 : 10;
	long before = migrated();

	for (int i = 0; i < tries && !stop && migrated() - before < 64; i++)
		usleep(5000);
	usleep(rand() % 4000);
}

static void *disturb_chunks(void *arg)
{
	run_on(here);
	while (!stop) {
		struct chunk *c = &chunks[rand() % CHUNKS];
		long wrong;

		let_some_move();
		pthread_mutex_lock(&c->lock);
		wrong = event(c);
		if (wrong < 0)
			_exit(KSFT_SKIP);
		bad += wrong;
		happened++;
		if (!renew(c))
			_exit(2);
		pthread_mutex_unlock(&c->lock);
	}
	return NULL;
}

/* Exits with 1 if anything is wrong, with 3 if nothing has moved. */
static void use_and_disturb(void)
{
	pthread_t threads[2];
	long moved = migrated();
	char *p;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	p = map_aligned(CHUNKS * CHUNK);
	elsewhere = map_aligned(2 * CHUNK);
	if (p == MAP_FAILED || elsewhere == MAP_FAILED ||
	    !map_over(elsewhere, 2 * CHUNK, false, -1))
		_exit(2);
	for (int i = 0; i < CHUNKS; i++) {
		pthread_mutex_init(&chunks[i].lock, NULL);
		chunks[i].p = p + i * CHUNK;
		chunks[i].key = i * 10000;
		chunks[i].large = i & 1;
		if (!renew(&chunks[i]))
			_exit(2);
	}
	if (pthread_create(&threads[0], NULL, use_chunks, NULL) ||
	    pthread_create(&threads[1], NULL, disturb_chunks, NULL))
		_exit(2);
	sleep(2);
	wait_for(bad || (happened > 50 && migrated() - moved > 1000));
	stop = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	moved = migrated() - moved;
	fprintf(stderr, "# %ld bad pages; %ld events, %ld pages moved\n", bad, happened, moved);
	if (bad)
		_exit(1);
	_exit(moved > 1000 ? 0 : 3);
}

FIXTURE(moving)
{
	struct setup setup;
};

FIXTURE_VARIANT(moving)
{
	long (*event)(struct chunk *c);
};

FIXTURE_VARIANT_ADD(moving, is_unmapped) { .event = is_unmapped };
FIXTURE_VARIANT_ADD(moving, is_dropped) { .event = is_dropped };
FIXTURE_VARIANT_ADD(moving, is_copied) { .event = is_copied };
FIXTURE_VARIANT_ADD(moving, is_split) { .event = is_split };
FIXTURE_VARIANT_ADD(moving, is_locked) { .event = is_locked };
FIXTURE_VARIANT_ADD(moving, is_elsewhere) { .event = is_elsewhere };
FIXTURE_VARIANT_ADD(moving, is_protected) { .event = is_protected };
FIXTURE_VARIANT_ADD(moving, is_free) { .event = is_free };
FIXTURE_VARIANT_ADD(moving, is_cold) { .event = is_cold };
FIXTURE_VARIANT_ADD(moving, is_paged_out) { .event = is_paged_out };
FIXTURE_VARIANT_ADD(moving, is_collapsed) { .event = is_collapsed };
FIXTURE_VARIANT_ADD(moving, is_bound) { .event = is_bound };
FIXTURE_VARIANT_ADD(moving, is_filled_by_uffd) { .event = is_filled_by_uffd };
FIXTURE_VARIANT_ADD(moving, is_write_protected) { .event = is_write_protected };
FIXTURE_VARIANT_ADD(moving, is_access_protected) { .event = is_access_protected };

FIXTURE_SETUP(moving)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
	have_folios(HUGE);
	ASSERT_EQ(write_text(KNUMA "faultaround_pages", "64"), 0);
	ASSERT_EQ(write_text(MIGRATED "wake_millisecs", "5"), 0);
}

FIXTURE_TEARDOWN_PARENT(moving)
{
	restore(&self->setup);
}

/* Nothing is left over that nobody else can migrate or reclaim. */
static bool nothing_is_isolated(void)
{
	write_text("/proc/sys/vm/stat_refresh", "1");
	return !vm_event("nr_isolated_anon") && !vm_event("nr_isolated_file");
}

TEST_F_TIMEOUT(moving, keeps_stamps, PATIENCE)
{
	int status;
	pid_t pid;

	event = variant->event;
	pid = fork();
	if (!pid)
		use_and_disturb();
	status = wait_status(pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return, "not in this kernel");
	EXPECT_EQ(status, 0);
	EXPECT_TRUE(wait_for(nothing_is_isolated()));
}

TEST_F_TIMEOUT(knuma, users_die_with_memory_queued, PATIENCE)
{
	long gone = fate("gone");

	hold_queues();
	for (int round = 0; round < 6; round++) {
		struct user *u = start((struct user) {});

		ASSERT_NE(u, NULL);
		ASSERT_TRUE(has_queued(u, pages_of(u) / 8));
		usleep(rand() % 400000);
		ASSERT_EQ(kill(u->pid, SIGKILL), 0);
		EXPECT_TRUE(WIFSIGNALED(finish(u)));
	}
	EXPECT_TRUE(wait_for(!queued(here, there)));
	EXPECT_GT(fate("gone"), gone);
	EXPECT_TRUE(wait_for(nothing_is_isolated()));
}

/*
 * Everything at once: threads on all nodes that use memory of their own, as
 * others turn all knobs, change policies, and take CPUs away.
 */
#define RACERS		4
#define RACE_BYTES	(8 * MB)

static struct racer {
	pthread_t thread;
	unsigned int seed;
	unsigned long key;
	char *p;
	atomic_ulong rounds;
} racers[RACERS];

static void *race(void *arg)
{
	struct racer *r = arg;
	size_t part = RACE_BYTES / 4;

	do {
		if (!(r->rounds % 16))
			run_on(&places[rand_r(&r->seed) % nr_places]);
		if (!(r->rounds % 128)) {
			map_over(r->p, part, false, -1);
			map_over(r->p + part, RACE_BYTES - part, true, -1);
			stamp(r->p, RACE_BYTES, ++r->key);
		}
		bad += broken(r->p, RACE_BYTES, r->key);
		r->rounds++;
	} while (!stop);
	return NULL;
}

static void turn_knobs(unsigned int *seed)
{
	const struct setting *knob = &knobs[rand_r(seed) % ARRAY_SIZE(knobs)];
	long most = knob->max < 1000 ? knob->max : 1000;

	write_long(knob->path, knob->min + rand_r(seed) % (most - knob->min + 1));
	write_long(MIGRATED "defer_order", rand_r(seed) % 10);
	write_long(KNUMA "faultaround_pages", 1 << rand_r(seed) % 10);
	if (rand_r(seed) % 2)
		write_text(KNUMA "enabled", "1");
	queued(here, there);
	fate("taken");
}

static void change_policies(unsigned int *seed)
{
	char *p = racers[rand_r(seed) % RACERS].p;
	size_t size = (1 + rand_r(seed) % 1024) * psize();
	unsigned long mask[16] = { -1UL };

	switch (rand_r(seed) % 4) {
	case 0:
		bind_to(p, size, &places[rand_r(seed) % nr_places], MPOL_MF_MOVE);
		break;
	case 1:
		bind_to(p, size, &places[rand_r(seed) % nr_places], 0);
		break;
	case 2:
		syscall(SYS_mbind, p, size, MPOL_INTERLEAVE, mask, nr_places + 1, 0);
		break;
	case 3:
		syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, mask, nr_places + 1);
		syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
		break;
	}
	unbind(p, RACE_BYTES);
}

static void plug_cpus(unsigned int *seed)
{
	const int cpu = places[rand_r(seed) % nr_places].cpu;

	set_cpu_online(cpu, false);
	usleep(rand_r(seed) % 20000);
	set_cpu_online(cpu, true);
	usleep(100000);
}

struct disturber {
	void (*once)(unsigned int *seed);
	pthread_t thread;
	unsigned long times;
};

static void *disturb(void *arg)
{
	struct disturber *d = arg;
	unsigned int seed = 1;

	do {
		d->once(&seed);
		d->times++;
		usleep(rand_r(&seed) % 10000);
	} while (!stop);
	return NULL;
}

TEST_F_TIMEOUT(knuma, stamps_stay_in_a_race, PATIENCE)
{
	struct disturber disturbers[] = {
		{ turn_knobs }, { change_policies }, { plug_cpus },
	};
	long seconds = atol(getenv("KNUMA_RACE_SECONDS") ?: "5");

	have_folios(HUGE);
	for (int i = 0; i < RACERS; i++) {
		racers[i].seed = i + 1;
		racers[i].key = i << 16;
		racers[i].p = map_aligned(RACE_BYTES);
		ASSERT_NE(racers[i].p, MAP_FAILED);
		ASSERT_EQ(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++)
		ASSERT_EQ(pthread_create(&disturbers[i].thread, NULL, disturb,
					 &disturbers[i]), 0);
	sleep(seconds);
	stop = true;
	for (int i = 0; i < RACERS; i++) {
		ASSERT_EQ(pthread_join(racers[i].thread, NULL), 0);
		EXPECT_GT((unsigned long)racers[i].rounds, 0UL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++) {
		ASSERT_EQ(pthread_join(disturbers[i].thread, NULL), 0);
		EXPECT_GT(disturbers[i].times, 0);
	}
	EXPECT_EQ((long)bad, 0);
	EXPECT_TRUE(wait_for(nothing_is_isolated()));
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "bind"))
		return bind_file(atoi(argv[2]), atol(argv[3]), atoi(argv[4]));

	return test_harness_run(argc, argv);
}
