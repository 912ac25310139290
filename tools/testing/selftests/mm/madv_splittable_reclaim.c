// SPDX-License-Identifier: GPL-2.0
/*
 * Test reclaim of memory that is marked with MADV_SPLITTABLE: it goes when memory
 * is needed, only as much as is needed, the oldest first, from the memory cgroup
 * and the node that are reclaimed, and before a process is killed. Afterwards
 * MADV_FREE_UNDO tells that the contents are lost.
 */
#define _GNU_SOURCE
#define NEEDS	KNOBS "max_ranges_per_mm"
#include "lazyfree_util.h"
#include <linux/mempolicy.h>

static int set_min_age(const char *ms)
{
	return write_text(KNOBS "min_age_ms", ms);
}

TEST_F(lazyfree, goes_when_it_is_needed)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ(0, drop(self->group, self->p, REGION));
	EXPECT_EQ(-ENODATA, check_undo(_metadata, &self->t, self->p, REGION, false));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
	check_not_marked(_metadata, &self->t, self->p, REGION);

	/* Pages that replace the zapped ones do not count as the contents. */
	for (int way = 0; way < 3; way++) {
		lazyfree_renew(&self->t);
		ASSERT_EQ(0, mark(self->p, MB));
		ASSERT_EQ(0, drop(self->group, self->p, MB));
		if (way == 0)
			madvise(self->p, HPAGE_SIZE, MADV_COLLAPSE);
		else if (way == 1)
			memset(self->p, 0, MB);
		else
			mark(self->p, HPAGE_SIZE);
		EXPECT_EQ(-ENODATA, check_undo(_metadata, &self->t, self->p, MB, false))
			TH_LOG("way %d", way);
	}
}

TEST_F(lazyfree, a_part_goes)
{
	const long pages = REGION / psize();
	long left = pages;

	ASSERT_EQ(0, mark(self->p, REGION));
	for (int i = 0; i < ROUNDS && left == pages; i++) {
		group_write(self->group, "memory.reclaim", "256K swappiness=0");
		left = resident_pages(self->p, REGION);
	}
	/* Reclaim zaps up to 2 MiB at once, and not more than another batch. */
	EXPECT_LT(left, pages);
	EXPECT_GE(left, pages / 2);
	EXPECT_EQ(-ENODATA, check_undo(_metadata, &self->t, self->p, REGION, false));
	check_not_marked(_metadata, &self->t, self->p, REGION);
}

TEST_F(lazyfree, half_of_each_folio_goes)
{
	const size_t step = variant->folio > 64 << 10 ? variant->folio : 256 << 10;
	const size_t half = step / 2;
	const long wanted = REGION / 2 - REGION / 16;
	const long before = group_read(self->group, "memory.stat", "anon");
	long freed = 0;

	for (size_t i = 0; i < REGION; i += step)
		ASSERT_EQ(0, mark(self->p + i, half));
	for (int round = 0; round < ROUNDS && freed <= wanted; round++) {
		group_write(self->group, "memory.reclaim", "1M swappiness=0");
		freed = before - group_read(self->group, "memory.stat", "anon");
	}
	EXPECT_GT(freed, wanted);
	for (size_t i = 0; i < REGION; i += step) {
		EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + i, half, 0));
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + i + half, half,
				       (i + half) / psize()));
	}
}

/* Two ranges that are older and younger, in the same list of ranges */
TEST_F(lazyfree, oldest_goes_first)
{
	/* Enough for one in each tree of ranges */
	const int younger = 40;
	const size_t size = HPAGE_SIZE;
	const long pages = size / psize();
	char *p = map_aligned((1 + younger) * size);
	long left = pages;

	ASSERT_NE(MAP_FAILED, p);
	madvise(p, (1 + younger) * size, self->t.advice);
	stamp_pages(p, (1 + younger) * size);
	ASSERT_EQ(0, mark(p, size));
	usleep(100000);
	for (int i = 1; i <= younger; i++)
		ASSERT_EQ(0, mark(p + i * size, size));
	for (int i = 0; i < ROUNDS && left == pages; i++) {
		group_write(self->group, "memory.reclaim", "128K swappiness=0");
		left = resident_pages(p, size);
	}
	EXPECT_LT(left, pages);
	EXPECT_EQ(younger * pages, resident_pages(p + size, younger * size));
	munmap(p, (1 + younger) * size);
}

/* A process that has just lost ranges has new ones zapped at once. */
TEST_F(single, enodata_under_pressure)
{
	ASSERT_EQ(0, mark(self->p, MB));
	ASSERT_EQ(0, drop(self->group, self->p, MB));
	ASSERT_EQ(0, set_min_age(OLD_FOR_EVER));
	EXPECT_EQ(-ENODATA, mark(self->p + MB, MB));
	EXPECT_EQ(0, resident_pages(self->p + MB, MB));
	EXPECT_EQ(-ENODATA, undo(self->p + MB, MB));
	ASSERT_EQ(0, set_min_age("0"));
	EXPECT_EQ(0, mark(self->p + 2 * MB, MB));
	check_undo(_metadata, &self->t, self->p + 2 * MB, MB, true);
}

/*
 * The ranges are too young, so reclaim takes marked pages from the LRU lists: it
 * drops those that are lazyfree, too, and swaps out the others.
 */
TEST_F(lazyfree, lru_lists_have_marked_pages)
{
	for (int i = 0; i < 4; i++) {
		const bool lazy = i & 1, undone = i & 2;

		lazyfree_renew(&self->t);
		if (lazy)
			ASSERT_EQ(0, lazyfree(self->p, REGION));
		ASSERT_EQ(0, mark(self->p, REGION));
		ASSERT_EQ(0, set_min_age(OLD_FOR_EVER));
		for (int round = 0; round < 3; round++)
			group_write(self->group, "memory.reclaim",
				    lazy ? "1M swappiness=0" : "1M swappiness=200");
		ASSERT_EQ(0, set_min_age("0"));
		if (undone)
			check_undo(_metadata, &self->t, self->p, REGION, false);
		else
			check_unmark(_metadata, &self->t, self->p, REGION);
	}
}

TEST_F(lazyfree, memory_max_is_no_oom)
{
	const size_t size = 64 * MB;
	char *p;

	ASSERT_EQ(0, group_write(self->group, "memory.swap.max", "0"));
	ASSERT_EQ(0, group_write(self->group, "memory.max", "33554432"));
	for (int old = 0; old < 2; old++) {
		ASSERT_EQ(0, set_min_age(old ? "0" : OLD_FOR_EVER));
		p = map_aligned(size);
		ASSERT_NE(MAP_FAILED, p);
		madvise(p, size, self->t.advice);
		/* All memory of the test, in one range; then twice its limit */
		mark(self->p, REGION);
		for (size_t i = 0; i < size; i += HPAGE_SIZE) {
			memset(p + i, 1, HPAGE_SIZE);
			mark(p + i, HPAGE_SIZE);
		}
		EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
		munmap(p, size);
		lazyfree_renew(&self->t);
	}
	EXPECT_EQ(0, group_read(self->group, "memory.events", "oom_kill"));
}

/* Binds new memory of this process to a node. */
static int stay_on_node(int nid)
{
	unsigned long mask = 1UL << nid;

	return syscall(__NR_set_mempolicy, MPOL_BIND, &mask, 64UL) ? errno : 0;
}

/* Starts a process that marks memory in a group. Returns when it has. */
static pid_t marked_child(const char *group, size_t size)
{
	int ready[2];
	pid_t pid;
	char c, *p;

	if (make_dir(group) || pipe(ready))
		return -1;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		p = map_aligned(size);
		if (group_write(group, "cgroup.procs", "0") || p == MAP_FAILED)
			_exit(1);
		stamp_pages(p, size);
		if (mark(p, size))
			_exit(2);
		if (write(ready[1], "", 1) == 1)
			do_nothing(NULL);
	}
	close(ready[1]);
	/* Nothing to read: the child has died. */
	if (read(ready[0], &c, 1) != 1)
		pid = -1;
	close(ready[0]);

	return pid;
}

TEST_F(single, of_another_group)
{
	const long pages = REGION / psize(), most = REGION - MB;
	char other[80];
	pid_t pid;

	snprintf(other, sizeof(other), "%s_other", self->group);
	pid = marked_child(other, REGION);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_LE(most, group_read(other, "memory.stat", "splittable"));
	EXPECT_EQ(0, drop(self->group, self->p, REGION));
	EXPECT_LE(most, group_read(other, "memory.stat", "anon"));
	lazyfree_renew(&self->t);
	ASSERT_EQ(0, mark(self->p, REGION));
	for (int i = 0; i < ROUNDS && group_read(other, "memory.stat", "anon") > (long)MB; i++)
		group_write(other, "memory.reclaim", "1M swappiness=0");
	EXPECT_GE((long)MB, group_read(other, "memory.stat", "anon"));
	EXPECT_EQ(pages, resident_pages(self->p, REGION));
	kill_and_wait(pid);

	/* This process changes the group between its marks. */
	ASSERT_EQ(0, undo(self->p, REGION));
	ASSERT_EQ(0, mark(self->p, REGION / 2));
	ASSERT_EQ(0, group_write(other, "cgroup.procs", "0"));
	ASSERT_EQ(0, mark(self->p + REGION / 2, REGION / 2));
	for (int i = 0; i < ROUNDS && resident_pages(self->p, REGION); i++) {
		reclaim_group(self->group);
		reclaim_group(other);
	}
	EXPECT_EQ(0, resident_pages(self->p, REGION));
	/* The group of its marks goes away. */
	lazyfree_renew(&self->t);
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, group_write(self->group, "cgroup.procs", "0"));
	group_remove(other);
	check_undo(_metadata, &self->t, self->p, REGION, true);
}

/*
 * Reclaim of a group visits its children in turns. The first one has marked its
 * memory min_age_ms before the second one, and has enough for all requests. With
 * the policy "first" the age does not matter.
 */
TEST_F(single, young_ranges_stay)
{
	const char *const names[] = { "old", "young" };
	const long most = REGION - MB;
	char group[2][96];
	pid_t pids[2];

	/* The group must not have processes besides those of its children. */
	ASSERT_EQ(0, write_text(CGROUP "cgroup.procs", "0"));
	ASSERT_EQ(0, group_write(self->group, "cgroup.subtree_control", "+memory"));
	ASSERT_EQ(0, set_min_age("5000"));
	for (int i = 0; i < 2; i++) {
		snprintf(group[i], sizeof(group[i]), "%s/%s", self->group, names[i]);
		pids[i] = marked_child(group[i], REGION);
		EXPECT_LT(0, pids[i]);
		if (!i)
			usleep(6000000);
	}
	for (int i = 0; i < 4; i++)
		group_write(self->group, "memory.reclaim", "1M swappiness=0");
	EXPECT_GE(most, group_read(group[0], "memory.stat", "anon"));
	EXPECT_LE(most, group_read(group[1], "memory.stat", "anon"));
	set_min_age(OLD_FOR_EVER);
	write_text(KNOBS "policy", "first");
	for (int i = 0; i < 4; i++)
		group_write(self->group, "memory.reclaim", "1M swappiness=0");
	EXPECT_GE(most, group_read(group[1], "memory.stat", "anon"));
	for (int i = 0; i < 2; i++) {
		kill_and_wait(pids[i]);
		group_remove(group[i]);
	}
}

/* Reclaim leaves a protected group alone. No process is killed for its marked memory. */
TEST_F(single, no_oom_kill_beside_a_protected_group)
{
	char marks[96], needs[96];
	pid_t marking, needing;

	ASSERT_EQ(0, write_text(CGROUP "cgroup.procs", "0"));
	ASSERT_EQ(0, group_write(self->group, "cgroup.subtree_control", "+memory"));
	ASSERT_EQ(0, group_write(self->group, "memory.swap.max", "0"));
	ASSERT_EQ(0, group_write(self->group, "memory.max", "67108864"));
	snprintf(marks, sizeof(marks), "%s/marks", self->group);
	snprintf(needs, sizeof(needs), "%s/needs", self->group);
	ASSERT_EQ(0, make_dir(needs));
	marking = marked_child(marks, 48 * MB);
	ASSERT_LT(0, marking);
	EXPECT_EQ(0, group_write(marks, "memory.min", "max"));
	needing = fork();
	ASSERT_LE(0, needing);
	if (!needing) {
		char *p = map_anon(32 * MB);

		if (p == MAP_FAILED || group_write(needs, "cgroup.procs", "0"))
			_exit(1);
		memset(p, 1, 32 * MB);
		_exit(0);
	}
	EXPECT_EQ(0, wait_status(needing));
	EXPECT_EQ(0, group_read(self->group, "memory.events", "oom_kill"));
	kill_and_wait(marking);
	group_remove(marks);
	group_remove(needs);
}

/* Page tables of memory that is zapped are freed as by MADV_DONTNEED. */
TEST_F(single, page_tables_go)
{
	const size_t size = 1UL << 30;
	char *p = map_aligned(size);
	long before, after[2];

	ASSERT_NE(MAP_FAILED, p);
	madvise(p, size, MADV_NOHUGEPAGE);
	for (int marked = 0; marked < 2; marked++) {
		for (size_t i = 0; i < size; i += HPAGE_SIZE)
			p[i] = 1;
		before = read_value("/proc/self/status", "VmPTE");
		if (!marked) {
			ASSERT_EQ(0, madvise(p, size, MADV_DONTNEED));
		} else {
			ASSERT_EQ(0, mark(p, size));
			EXPECT_EQ(0, drop(self->group, p, size));
		}
		after[marked] = read_value("/proc/self/status", "VmPTE");
		if (!marked && after[0] > before / 2)
			SKIP(return, "no CONFIG_PT_RECLAIM");
	}
	EXPECT_GE(after[0] + 256, after[1]);
	munmap(p, size);
}

/* The OOM killer */

static void *map_all_the_time(void *arg)
{
	const size_t size = 4 * psize();

	while (true) {
		char *p = map_anon(size);

		if (p != MAP_FAILED)
			munmap(p, size);
	}
	return NULL;
}

/*
 * Needs marked memory, while other threads wait for mmap_lock all the time. The
 * flags of the marked VMA differ, so it does not merge with those of the threads.
 */
static void need_marked_memory(const char *group, bool populate)
{
	const size_t heap = 120 * MB, wanted = 100 * MB;
	char *p = map_aligned(heap);
	pthread_t threads[2];

	madvise(p, heap, MADV_NOHUGEPAGE);
	memset(p, 1, heap);
	mark(p, heap);
	for (int i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, map_all_the_time, NULL))
			_exit(1);
	p = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
		 (populate ? MAP_POPULATE : 0), -1, 0);
	memset(p, 1, wanted);
	_exit(0);
}

TEST_F(single, no_oom_kill_with_a_waiting_writer)
{
	cpu_set_t all;
	int killed = 0;

	memset(&all, 0xff, sizeof(all));
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(all), &all));
	ASSERT_EQ(0, group_write(self->group, "memory.swap.max", "0"));
	ASSERT_EQ(0, group_write(self->group, "memory.max", "167772160"));
	for (int run = 0; run < 10; run++) {
		pid_t pid;

		if (run == 5)
			write_text(LRU_GEN, "y");
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			need_marked_memory(self->group, run & 1);
		killed += !!wait_status(pid);
	}
	EXPECT_EQ(0, killed);
	EXPECT_EQ(0, group_read(self->group, "memory.events", "oom_kill"));
}

/* Nodes */

static long node_kb(int nid, const char *name)
{
	char path[64], line[64];

	snprintf(path, sizeof(path), NODES "node%d/meminfo", nid);
	snprintf(line, sizeof(line), "Node %d %s", nid, name);
	return read_value(path, line);
}

/*
 * Sum of a line of /proc/zoneinfo in zones of node 0, in kB. The zone DMA is left
 * out: most of it is always free.
 */
static long zones_kb(const char *format)
{
	FILE *f = fopen("/proc/zoneinfo", "r");
	char line[256], zone[16] = "";
	long pages, sum = 0;
	int nid = 0;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d, zone %15s", &nid, zone) == 2)
			continue;
		if (!nid && strcmp(zone, "DMA") && sscanf(line, format, &pages) == 1)
			sum += pages;
	}
	if (f)
		fclose(f);

	return sum * psize() / KB;
}

/* kB of RSS of @nr processes */
static long rss_of(const pid_t *pids, int nr)
{
	char path[64];
	long sum = 0;

	for (int i = 0; i < nr; i++) {
		snprintf(path, sizeof(path), "/proc/%d/status", pids[i]);
		sum += read_value(path, "VmRSS");
	}

	return sum;
}

#define GROUPS	32

/*
 * Many groups have marked 8 MiB each. The test uses memory until kswapd wakes
 * up for the first time, and then waits until kswapd makes no more progress.
 * kswapd need not zap more than the difference of the watermarks, and as much as
 * the test takes and CPUs cache meanwhile: less than 2 MiB of each group.
 * Pages on the lists of CPUs do not count as free, but do once these are drained,
 * which may be after kswapd has seen enough free pages.
 */
TEST_F(single, kswapd_takes_no_more_than_it_needs)
{
	const size_t size = 8 * MB;
	const long marked = GROUPS * size / KB, high = zones_kb(" high %ld");
	const long min = zones_kb(" min %ld");
	const long total = node_kb(0, "MemTotal");
	char group[GROUPS][80], *p = map_anon(total * KB);
	long all, left, last, free, cached = 0;
	pid_t pids[GROUPS];

	if (total > 4L << 20 || node_kb(0, "MemFree") < marked + 2 * high)
		SKIP(return, "needs a node 0 of up to 4 GiB with %ld kB free",
		     marked + 2 * high);
	stay_on_node(0);
	for (int i = 0; i < GROUPS; i++) {
		snprintf(group[i], sizeof(group[i]), "%s_%d", self->group, i);
		pids[i] = marked_child(group[i], size);
		EXPECT_LT(0, pids[i]);
	}
	left = rss_of(pids, GROUPS);
	all = left;
	for (long i = 0; i < total / 1024 && left + 1024 > all; i++) {
		cached = zones_kb(" count: %ld");
		memset(p + i * MB, 1, MB);
		left = rss_of(pids, GROUPS);
	}
	do {
		last = left;
		usleep(200000);
		left = rss_of(pids, GROUPS);
	} while (left < last);
	free = zones_kb(" pages free %ld");
	for (int i = 0; i < GROUPS; i++) {
		kill_and_wait(pids[i]);
		group_remove(group[i]);
	}
	EXPECT_LT(left, all);
	EXPECT_GE(high - min + 16384, all - left);
	EXPECT_LE(free, high * 11 / 10 + 8192 + cached)
		TH_LOG("high watermark %ld kB, on lists of CPUs %ld kB, zapped %ld kB",
		       high, cached, all - left);
}

/*
 * A process that may only use node 0 is killed when that has no memory left:
 * marked memory of node 1 would not help.
 */
TEST_F(single, oom_of_another_node)
{
	const size_t size = 32 * MB, total = node_kb(0, "MemTotal") * KB;
	char *p = map_aligned(size);
	int status;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, p);
	if (total > 4UL << 30 || stay_on_node(1))
		SKIP(return, "needs a node 0 of up to 4 GiB, and node 1");
	memset(p, 1, size);
	ASSERT_EQ(0, mark(p, size));
	ASSERT_EQ(0, group_write(self->group, "memory.swap.max", "0"));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char *q = map_anon(total);

		if (q == MAP_FAILED || stay_on_node(0) ||
		    write_text("/proc/self/oom_score_adj", "1000"))
			_exit(1);
		memset(q, 1, total);
		_exit(0);
	}
	status = wait_status(pid);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EXPECT_LE((long)(size / psize() * 9 / 10), resident_pages(p, size));
	munmap(p, size);
}

TEST_F(single, of_another_node)
{
	const size_t size = 32 * MB;
	const long pages = size / psize();
	long left[2] = { pages, pages };
	char *p[2];

	if (access(NODES "node0/reclaim", W_OK))
		SKIP(return, "no " NODES "node0/reclaim");
	for (int nid = 0; nid < 2; nid++) {
		p[nid] = map_aligned(size);
		ASSERT_NE(MAP_FAILED, p[nid]);
		if (stay_on_node(nid))
			SKIP(return, "needs two nodes with memory");
		memset(p[nid], 1, size);
		ASSERT_EQ(0, mark(p[nid], size));
	}
	for (int i = 0; i < ROUNDS && left[0] > pages / 2; i++) {
		write_text(NODES "node0/reclaim", "4M swappiness=0");
		left[0] = resident_pages(p[0], size);
		left[1] = resident_pages(p[1], size);
	}
	EXPECT_GE(pages / 2, left[0]);
	EXPECT_LE(pages * 9 / 10, left[1]);
}

TEST_HARNESS_MAIN
