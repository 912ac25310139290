// SPDX-License-Identifier: GPL-2.0
/*
 * Test MADV_FREE and MADV_FREE_UNDO.
 *
 * A freed page reads as before or as zero, and a store keeps the page. Other
 * pages do not change. MADV_FREE_UNDO returns 0 only if all contents are there,
 * whatever has filled the holes. The counters show freed pages as memory that
 * can be reclaimed, and reclaim drops freed pages before it swaps others out.
 *
 * All pages have stamps. Each test has a memory cgroup of its own, and reclaims
 * it with memory.reclaim.
 */
#define _GNU_SOURCE
#define NEEDS	NULL
#include <glob.h>
#include "lazyfree_util.h"

#define TIERS	"/sys/devices/virtual/memory_tiering/"
#define NO_UNDO	"no MADV_FREE_UNDO"

/* The first MADV_FREE_UNDO of a process makes MADV_FREE record ranges. */
static bool arm(struct lazyfree_test *t)
{
	return undo(t->p, psize()) != -EINVAL;
}

TEST_F(lazyfree, reclaimed_reads_zero)
{
	long before = vm_event("pglazyfreed");

	ASSERT_EQ(0, lazyfree(self->p, REGION));
	force_read_pages(self->p, REGION / psize(), psize());
	EXPECT_EQ(0, drop(self->group, self->p, REGION));
	EXPECT_LE(before + (long)(REGION / psize()),
		  vm_event("pglazyfreed"));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
	stamp_pages(self->p, REGION);
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(lazyfree, partly_reclaimed_never_comes_back)
{
	bool *zero = calloc(REGION / psize(), sizeof(*zero));

	ASSERT_NE(NULL, zero);
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	for (int round = 0; round < 8; round++) {
		group_write(self->group, "memory.reclaim", "1M");
		for (size_t i = 0; i < REGION / psize(); i++) {
			enum page_state s =
				page_state(self->p + i * psize(), stamp_of(i));

			if (s == PAGE_OTHER || (zero[i] && s != PAGE_ZERO))
				TH_LOG("page %zu of round %d: %d", i, round, s);
			ASSERT_NE(PAGE_OTHER, s);
			ASSERT_FALSE(zero[i] && s != PAGE_ZERO);
			zero[i] = s == PAGE_ZERO;
		}
	}
	free(zero);
}

TEST_F(lazyfree, a_write_keeps)
{
	size_t step = (variant->folio ?: psize()) * 2;
	unsigned long word = 0xf00d;

	ASSERT_EQ(0, lazyfree(self->p, REGION));
	/* A word at the end of every other folio */
	for (size_t i = 0; i < REGION; i += step)
		*(unsigned long *)(self->p + i + step / 2 - sizeof(word)) = word;
	reclaim_group(self->group);

	for (size_t i = 0; i < REGION; i += step) {
		size_t last = i + step / 2 - psize();
		unsigned long *written = (unsigned long *)
			(self->p + i + step / 2 - sizeof(word));

		ASSERT_EQ(word, *written);
		/* The page was written before reclaim, so all of it is there. */
		*written = stamp_of(last / psize()) + psize() - sizeof(word);
		ASSERT_EQ(PAGE_OLD,
			  page_state(self->p + last, stamp_of(last / psize())));
	}
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
}

TEST_F(lazyfree, half_of_each_folio)
{
	size_t step = variant->folio ?: 2 * psize();

	for (size_t i = 0; i < REGION; i += step)
		ASSERT_EQ(0, lazyfree(self->p + i, step / 2));
	reclaim_group(self->group);
	for (size_t i = 0; i < REGION; i += step) {
		size_t half = i + step / 2;

		EXPECT_EQ(0, pages_broken(self->p + i, step / 2, i / psize()));
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + half, step / 2, half / psize()));
	}
}

TEST_F(lazyfree, of_a_parent_leaves_the_child_its_pages)
{
	int fd;
	pid_t pid = fork_reader(&self->t, &fd);

	ASSERT_LT(0, pid);
	EXPECT_EQ(0, lazyfree(self->p, REGION));
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	close(fd);
	EXPECT_EQ(0, wait_status(pid));
}

TEST_F(lazyfree, then_fork)
{
	pid_t pid;

	ASSERT_EQ(0, lazyfree(self->p, REGION));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (pages_broken(self->p, REGION, 0))
			_exit(1);
		/* The child keeps the pages that it writes. */
		stamp_range(self->p, REGION, stamp_of(1));
		reclaim_group(self->group);
		_exit(pages_not(PAGE_OLD, self->p, REGION, 1) ? 2 : 0);
	}
	EXPECT_EQ(0, wait_status(pid));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
}

TEST_F(lazyfree, mlock)
{
	ASSERT_EQ(0, mlock(self->p, REGION));
	EXPECT_EQ(-EINVAL, lazyfree(self->p, REGION));
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	ASSERT_EQ(0, munlock(self->p, REGION));

	/* mlock() faults freed pages in as a store does. */
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	ASSERT_EQ(0, mlock(self->p, REGION));
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	EXPECT_EQ((long)(REGION / psize()), resident_pages(self->p, REGION));
}

TEST_F(lazyfree, mprotect_and_mremap)
{
	char *to = map_aligned(REGION);

	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	ASSERT_EQ(0, mprotect(self->p, REGION, PROT_READ));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	ASSERT_EQ(0, mprotect(self->p, REGION, PROT_READ | PROT_WRITE));
	ASSERT_EQ(to, mremap(self->p, REGION, REGION,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(0, pages_broken(to, REGION, 0));
	/* The pages are lazyfree at the new address. */
	EXPECT_EQ(0, drop(self->group, to, REGION));
	munmap(to, REGION);
}

TEST_F(lazyfree, a_reference_keeps)
{
	struct iovec iov = { self->p, 4 * psize() };
	char *copy = malloc(4 * psize());
	int fds[2];

	ASSERT_NE(NULL, copy);
	ASSERT_EQ(0, pipe(fds));
	if (vmsplice(fds[1], &iov, 1, 0) != (ssize_t)iov.iov_len)
		SKIP(return, "no vmsplice()");
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	reclaim_group(self->group);
	/* The pipe has the contents of the time of vmsplice(). */
	ASSERT_EQ((ssize_t)iov.iov_len, read(fds[0], copy, iov.iov_len));
	EXPECT_EQ(0, pages_not(PAGE_OLD, copy, iov.iov_len, 0));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	free(copy);
}

TEST_F(lazyfree, of_swapped_pages)
{
	const bool armed = arm(&self->t);

	for (int round = 0; round < ROUNDS; round++)
		ASSERT_EQ(0, madvise(self->p, REGION, MADV_PAGEOUT));
	if (read_value("/proc/self/status", "VmSwap") < (long)(REGION / 2048))
		SKIP(return, "no swap");
	/* MADV_FREE frees the swap entries, so the contents are lost at once. */
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	EXPECT_EQ(0, read_value("/proc/self/status", "VmSwap"));
	if (armed)
		EXPECT_EQ(-ENODATA, undo(self->p, REGION));
	EXPECT_EQ(0, drop(self->group, self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
}

TEST_F(lazyfree, memory_max_is_no_oom)
{
	char *p;

	/* The test writes and frees twice its limit. */
	ASSERT_EQ(0, group_write(self->group, "memory.swap.max", "0"));
	ASSERT_EQ(0, group_write(self->group, "memory.max", "33554432"));
	p = map_aligned(64 * MB);
	ASSERT_NE(MAP_FAILED, p);
	madvise(p, 64 * MB, self->t.advice);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < 64 * MB; i += 2 * MB) {
			memset(p + i, 1, 2 * MB);
			ASSERT_EQ(0, madvise(p + i, 2 * MB, MADV_FREE));
		}
	}
	EXPECT_EQ(0, group_read(self->group, "memory.events", "oom_kill"));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	munmap(p, 64 * MB);
}

/* MADV_FREE_UNDO */

/*
 * Unless a process has used MADV_FREE_UNDO, MADV_FREE records nothing. Then one
 * call that fails for a range makes the kernel know the contents of the range.
 */
TEST_F(lazyfree, undo_of_unrecorded)
{
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	if (!arm(&self->t))
		SKIP(return, NO_UNDO);
	EXPECT_EQ(-ENODATA, check_undo(_metadata, &self->t, self->p, REGION, false));
	stamp_pages(self->p, REGION);
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	check_undo(_metadata, &self->t, self->p, REGION, true);
}

TEST_F(lazyfree, undo)
{
	const size_t half = REGION / 2;

	if (!arm(&self->t))
		SKIP(return, NO_UNDO);

	/* One page, which waits in a batch; then all; then two ranges at once. */
	ASSERT_EQ(0, madvise(self->p, psize(), MADV_FREE));
	check_undo(_metadata, &self->t, self->p, psize(), true);
	lazyfree_renew(&self->t);
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	check_undo(_metadata, &self->t, self->p, REGION, true);
	lazyfree_renew(&self->t);
	ASSERT_EQ(0, lazyfree(self->p, half));
	ASSERT_EQ(0, lazyfree(self->p + half, half));
	check_undo(_metadata, &self->t, self->p + MB, REGION - 2 * MB, true);

	/* The loss of a page does not concern the range beside. */
	lazyfree_renew(&self->t);
	ASSERT_EQ(0, lazyfree(self->p, half));
	ASSERT_EQ(0, lazyfree(self->p + half, half));
	ASSERT_EQ(0, madvise(self->p + half - psize(), psize(), MADV_DONTNEED));
	EXPECT_EQ(-ENODATA, undo(self->p, half));
	check_undo(_metadata, &self->t, self->p + half, half, true);
	EXPECT_EQ(1, pages_not(PAGE_OLD, self->p, REGION, 0));
}

/* Runs an event in a process of its own, as the kernel remembers some of them. */
static void undo_after_event(struct __test_metadata *_metadata,
			     struct lazyfree_test *t,
			     const struct lazyfree_event *e, bool reclaim)
{
	/* Parts of folios, in several page tables */
	char *p = t->p + MB;
	const size_t size = 4 * MB;
	const char *missing;

	lazyfree_renew(t);
	EXPECT_EQ(0, lazyfree(p, size));
	if (reclaim)
		group_write(t->group, "memory.reclaim", "2M");
	missing = e->run(t, p, size);
	if (missing)
		TH_LOG("not tested: %s", missing);
	check_undo(_metadata, t, p, size, e->kept && !reclaim);
	EXPECT_EQ(0, t->errors);
}

/* Each event has a process of its own, for each way. */
TEST_F_TIMEOUT(lazyfree, undo_after_events, 3 * PATIENCE)
{
	const struct lazyfree_event *e;

	if (!arm(&self->t))
		SKIP(return, NO_UNDO);
	for (e = lazyfree_events; e < lazyfree_events + ARRAY_SIZE(lazyfree_events); e++)
		for (int reclaim = 0; reclaim < 2; reclaim++) {
			pid_t pid = fork();

			if (!pid) {
				undo_after_event(_metadata, &self->t, e, reclaim);
				_exit(_metadata->exit_code);
			}
			EXPECT_EQ(0, wait_status(pid))
				TH_LOG("after %s%s", e->name, reclaim ? " and reclaim" : "");
		}
}

/* Ways to fill the holes of a range with zeroes */
enum fill { FAULTS, COLLAPSE, KHUGEPAGED, FREE_AGAIN, FILLS };

/*
 * The first half of a huge page is freed and dropped, with half of each folio
 * beyond, and then the holes are filled.
 */
TEST_F(lazyfree, undo_of_filled_holes)
{
	const size_t part = 32 << 10;

	if (!arm(&self->t))
		SKIP(return, NO_UNDO);
	for (int fill = 0; fill < FILLS; fill++) {
		lazyfree_renew(&self->t);
		ASSERT_EQ(0, lazyfree(self->p, MB));
		ASSERT_EQ(0, drop(self->group, self->p, MB));
		switch (fill) {
		case FAULTS:
			for (size_t at = 0; at < MB; at += 2 * part)
				stamp_range(self->p + at, part, stamp_of(at / psize()));
			for (size_t at = part; at < MB; at += 2 * part)
				EXPECT_EQ(-ENODATA, undo(self->p + at, part));
			break;
		case COLLAPSE:
		case KHUGEPAGED:
			if (!thp_available())
				break;
			allow_huge_pages();
			/* khugepaged leaves pages in swap. */
			stamp_range(self->p + MB, MB, stamp_of(MB / psize()));
			madvise(self->p, 2 * MB, MADV_HUGEPAGE);
			if (fill == COLLAPSE)
				madvise(self->p, 2 * MB, MADV_COLLAPSE);
			else
				wait_until(time(NULL) + PATIENCE / 5,
					   resident_pages(self->p, MB));
			thp_pop_settings();
			break;
		case FREE_AGAIN:
			ASSERT_EQ(0, lazyfree(self->p, MB));
			break;
		}
		EXPECT_EQ(-ENODATA, check_undo(_metadata, &self->t, self->p, MB, false))
			TH_LOG("fill %d", fill);
	}
}

/* The kernel knows that all of the destination is there, until pages are moved. */
TEST_F(lazyfree, undo_of_moved_pages)
{
	char *to = map_anon(MB);
	int uffd = uffd_create(0, UFFD_FEATURE_MOVE);

	if (!arm(&self->t))
		SKIP(return, NO_UNDO);
	if (uffd < 0 || uffd_register(uffd, to, MB, true, false, false))
		SKIP(return, "no UFFDIO_MOVE");
	ASSERT_EQ(0, lazyfree(self->p, MB));
	uffd_move(uffd, to, self->p + MB, MB);
	ASSERT_EQ(0, madvise(to, MB, MADV_DONTNEED));
	EXPECT_EQ(-ENODATA, undo(to, MB));
	EXPECT_EQ(0, undo(to, MB));

	ASSERT_EQ(0, drop(self->group, self->p, MB));
	uffd_move(uffd, to, self->p, MB);
	close(uffd);
	EXPECT_EQ(-ENODATA, undo(to, MB));
	EXPECT_EQ(-ENODATA, undo(self->p, MB));
	munmap(to, MB);
}

TEST_F(lazyfree, pagemap_shows_the_lost_pages)
{
	const size_t nr = REGION / psize();
	long present = nr, wrong = 0;
	bool *there = calloc(nr, sizeof(*there));

	if (!arm(&self->t))
		SKIP(return, NO_UNDO);
	ASSERT_NE(NULL, there);
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	for (int i = 0; i < ROUNDS && present == (long)nr; i++) {
		group_write(self->group, "memory.reclaim", "1M");
		present = resident_pages(self->p, REGION);
	}
	ASSERT_GT((long)nr, present);
	EXPECT_EQ(-ENODATA, undo(self->p, REGION));
	reclaim_group(self->group);
	EXPECT_EQ(present, scan_pages(self->t.pagemap, self->p, REGION));
	for (size_t i = 0; i < nr; i++)
		there[i] = pagemap_is_populated(self->t.pagemap, self->p + i * psize());
	for (size_t i = 0; i < nr; i++)
		wrong += page_state(self->p + i * psize(), stamp_of(i)) !=
			 (there[i] ? PAGE_OLD : PAGE_ZERO);
	EXPECT_EQ(0, wrong);
	free(there);
}

/* Beyond the limit MADV_FREE records nothing, and keeps its semantics. */
TEST_F(single, undo_beyond_the_limit)
{
	const size_t half = REGION / 2;

	/* Half of the limit is for marked ranges. */
	if (write_text(KNOBS "max_ranges_per_mm", "2") || !arm(&self->t))
		SKIP(return, "no " KNOBS "max_ranges_per_mm");
	ASSERT_EQ(0, lazyfree(self->p, MB));
	ASSERT_EQ(0, lazyfree(self->p + half, MB));
	EXPECT_EQ(-ENODATA, undo(self->p + half, MB));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + half, MB, half / psize()));
	/* The second cut would make three of the range. */
	EXPECT_EQ(0, undo(self->p + MB / 4, MB / 8));
	EXPECT_EQ(0, undo(self->p + MB / 2, MB / 8));
	check_undo(_metadata, &self->t, self->p, MB, false);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

/* Frees pages; they keep their contents until reclaim drops them. */
static void user_free(struct user *u, size_t first, size_t n)
{
	user_lazy(u, first, n, MADV_FREE);
}

TEST_F(lazyfree, race)
{
	void (*undo_or_store)(struct user *, size_t, size_t) =
		arm(&self->t) ? user_undo : user_store;
	struct race race = {
		.p = self->p, .group = self->group,
		.steps = { user_free, user_free, user_free, user_store, user_store,
			   undo_or_store, undo_or_store, undo_or_store },
	};
	void *(* const disturb[])(void *) = {
		reclaim_all_the_time, fork_all_the_time, collapse_all_the_time,
	};

	ASSERT_EQ(0, run_race(&race, REGION, 60, disturb, ARRAY_SIZE(disturb)));
	EXPECT_EQ(0UL, atomic_load(&race.errors));
}

/* Counters and policy */

/* Sum of a line in the vmstat files of all nodes, in pages */
static long node_pages(const char *name)
{
	long sum = 0, val = 0;
	char path[64];

	for (int nid = 0; nid < 64; nid++) {
		snprintf(path, sizeof(path), NODES "node%d/vmstat", nid);
		val = read_value(path, name);
		sum += val > 0 ? val : 0;
	}

	return sum;
}

/* Monitors take memory.current - inactive_file as the working set of a group. */
/* A page that was written is anonymous again when reclaim has looked at it once. */
TEST_F(single, written_pages_leave_the_list)
{
	const size_t size = 64 * MB;
	char *p = map_anon(size);
	long before;

	ASSERT_NE(MAP_FAILED, p);
	if (group_read(self->group, "memory.stat", "lazyfree") < 0)
		SKIP(return, "no lazyfree of memory.stat");
	madvise(p, size, MADV_NOHUGEPAGE);
	memset(p, 1, size);
	ASSERT_EQ(0, lazyfree(p, size));
	memset(p, 2, size);
	/* Page cache to take, so that reclaim does not look at a page twice. */
	if (read_cache(self->group, size) < (long)size / 2)
		SKIP(return, "no block device");
	before = group_read(self->group, "memory.stat", "lazyfree");
	EXPECT_LE((long)size / 2, before);
	for (int round = 0; round < 8; round++)
		group_write(self->group, "memory.reclaim", "1M swappiness=0");
	EXPECT_GT(before, group_read(self->group, "memory.stat", "lazyfree"));
	munmap(p, size);
}

TEST_F(lazyfree, counts_as_inactive_file)
{
	const long size = 64 * MB, pages = size / psize(), most = pages * 7 / 8;
	const char *group = self->group;
	long file, of_nodes, available, used;
	char *p = map_aligned(size), current[80];

	ASSERT_NE(MAP_FAILED, p);
	snprintf(current, sizeof(current), "%s/memory.current", group);
	used = read_long(current);
	madvise(p, size, self->t.advice);
	stamp_pages(p, size);
	write_text("/proc/sys/vm/stat_refresh", "1");
	file = vm_event("nr_inactive_file");
	of_nodes = node_pages("nr_inactive_file");
	available = read_value("/proc/meminfo", "MemAvailable");

	ASSERT_EQ(0, lazyfree(p, size));
	write_text("/proc/sys/vm/stat_refresh", "1");
	EXPECT_LE(file + most, vm_event("nr_inactive_file"));
	EXPECT_LE((file + most) * (long)(psize() / KB),
		  read_value("/proc/meminfo", "Inactive(file)"));
	EXPECT_LE(of_nodes + most, node_pages("nr_inactive_file"));
	/* At least half of the page cache is available, whatever the watermarks. */
	EXPECT_LE(available + most / 2 * (long)(psize() / KB),
		  read_value("/proc/meminfo", "MemAvailable"));
	EXPECT_GE(used + 8 * (long)MB, read_long(current) -
		  group_read(group, "memory.stat", "inactive_file"));

	if (group_read(group, "memory.stat", "lazyfree") >= 0) {
		EXPECT_LE(most * psize(), group_read(group, "memory.stat", "lazyfree"));
		EXPECT_LE(most * psize() / (long)KB, read_value("/proc/meminfo", "LazyFree"));
		EXPECT_LE(most, node_pages("nr_lazyfree"));
		/* Reclaim finds that the pages are written, and in use. */
		stamp_pages(p, size);
		for (int round = 0; round < ROUNDS; round++)
			group_write(group, "memory.reclaim", "64M swappiness=0");
		EXPECT_GE(size / 8, group_read(group, "memory.stat", "lazyfree"));
		EXPECT_EQ(0, pages_not(PAGE_OLD, p, size, 0));
	}
	munmap(p, size);
	EXPECT_GE(8 * (long)MB, group_read(group, "memory.stat", "inactive_file"));
}

TEST_F(lazyfree, is_dropped_before_others_are_swapped_out)
{
	const size_t size = 160 * MB;
	const long before = vm_event("pswpout");
	char *p = map_aligned(2 * size);

	if (group_read(self->group, "memory.stat", "lazyfree") < 0)
		SKIP(return, "no lazyfree of memory.stat");
	if (read_value("/proc/meminfo", "SwapFree") <= 0)
		SKIP(return, "no swap");
	ASSERT_NE(MAP_FAILED, p);
	madvise(p, 2 * size, self->t.advice);
	stamp_pages(p, size);
	ASSERT_EQ(0, group_write(self->group, "memory.max", "218103808"));
	ASSERT_EQ(0, lazyfree(p, size));
	/* The limit of 208 MiB lets 40 MiB more of 160 MiB in. */
	stamp_pages(p + size, size);
	EXPECT_GE(before + 32, vm_event("pswpout"));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	EXPECT_EQ(0, pages_not(PAGE_OLD, p + size, size, 0));
	munmap(p, 2 * size);
}

/* Returns whether the kernel knows memory of different speeds. */
static bool has_memory_tiers(void)
{
	glob_t found;
	bool many;

	glob(TIERS "memory_tier*", 0, NULL, &found);
	many = found.gl_pathc > 1;
	globfree(&found);

	return many;
}

/* Pages of the group that memory.reclaim has moved to slower memory */
static long demoted(const char *group)
{
	return group_read(group, "memory.stat", "pgdemote_proactive");
}

TEST_F(lazyfree, is_dropped_and_not_demoted)
{
	const long pages = REGION / psize(), few = pages / 8;
	const char *group = self->group;
	long before;

	if (!has_memory_tiers())
		SKIP(return, "needs a node of slower memory: fewer than two " TIERS "memory_tier*");
	if (write_text(DEMOTION, "1"))
		SKIP(return, "no " DEMOTION);

	/* Other anonymous pages are demoted, with their contents. */
	before = demoted(group);
	for (int i = 0; i < ROUNDS && demoted(group) < before + pages - few; i++)
		reclaim_group(group);
	EXPECT_LE(before + pages - few, demoted(group));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));

	lazyfree_renew(&self->t);
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	before = demoted(group);
	EXPECT_EQ(0, drop(group, self->p, REGION));
	/* Pages of the program itself may be. */
	EXPECT_GE(before + few, demoted(group));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
}

/* By default older page cache goes, too; with "first" only freed pages do. */
TEST_F(lazyfree, policy)
{
	const char *const policies[] = { "fair", "first" };
	const char *group = self->group;
	long lost[2], cache;

	for (int i = 0; i < 2; i++) {
		if (write_text(KNOBS "policy", policies[i]))
			SKIP(return, "no " KNOBS "policy");
		lazyfree_renew(&self->t);
		cache = read_cache(group, 2 * REGION);
		if (cache < (long)REGION)
			SKIP(return, "no block device");
		ASSERT_EQ(0, lazyfree(self->p, REGION));
		for (int round = 0; round < 4; round++)
			group_write(group, "memory.reclaim", "1M swappiness=0");
		lost[i] = cache - group_read(group, "memory.stat", "file");
		EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	}
	EXPECT_LT(lost[1], (long)MB);
	EXPECT_GT(lost[0], lost[1]);
}

/* MGLRU drops no lazyfree page while its oldest generation has page cache. */
TEST_F(single, cache_goes_first_with_lru_gen)
{
	const size_t size = 64 * MB;
	char *p = map_anon(size);
	long dropped;

	ASSERT_NE(MAP_FAILED, p);
	if (write_text(LRU_GEN, "y"))
		SKIP(return, "no CONFIG_LRU_GEN");
	madvise(p, size, MADV_NOHUGEPAGE);
	memset(p, 1, size);
	if (read_cache(self->group, size) < (long)size / 2)
		SKIP(return, "no block device");
	ASSERT_EQ(0, lazyfree(p, size));
	dropped = group_read(self->group, "memory.stat", "pglazyfreed");
	for (int round = 0; round < 8; round++)
		group_write(self->group, "memory.reclaim", "1M swappiness=0");
	/* A pass with a lower priority, which others may cause, drops a few. */
	EXPECT_GE(32, group_read(self->group, "memory.stat", "pglazyfreed") - dropped);
	munmap(p, size);
}

TEST(refused_ranges)
{
	const int rw = PROT_READ | PROT_WRITE;
	char *p = map_anon(4 * psize());
	char *shared = mmap(NULL, psize(), rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fd = open("/proc/self/exe", O_RDONLY);
	char *file = mmap(NULL, psize(), PROT_READ, MAP_PRIVATE, fd, 0);
	const bool has_undo = undo(p, psize()) != -EINVAL;

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_NE(MAP_FAILED, file);
	for (int advice = MADV_FREE; advice;
	     advice = advice == MADV_FREE && has_undo ? MADV_FREE_UNDO : 0) {
		EXPECT_EQ(-EINVAL, advise(p + 1, psize(), advice));
		EXPECT_EQ(-EINVAL, advise(shared, psize(), advice));
		EXPECT_EQ(-EINVAL, advise(file, psize(), advice));
		EXPECT_EQ(0, advise(p, 0, advice));
	}

	/* The call frees the pages around a hole, and reports the hole. */
	munmap(p + psize(), psize());
	EXPECT_EQ(-ENOMEM, advise(p, 4 * psize(), MADV_FREE));
	close(fd);
}

static void *free_pages(void *arg)
{
	return (void *)(long)madvise(arg, 2 * psize(), MADV_FREE);
}

TEST(userfaultfd_event)
{
	int uffd = uffd_create(0, UFFD_FEATURE_EVENT_REMOVE);
	char *p = map_anon(16 * psize());
	struct uffd_msg msg;
	pthread_t thread;
	void *ret;

	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_NE(MAP_FAILED, p);
	memset(p, 1, 16 * psize());
	ASSERT_EQ(0, uffd_register(uffd, p, 16 * psize(), true, false, false));

	/* madvise() waits until the test has read the event. */
	ASSERT_EQ(0, pthread_create(&thread, NULL, free_pages, p + psize()));
	ASSERT_EQ((ssize_t)sizeof(msg), read(uffd, &msg, sizeof(msg)));
	EXPECT_EQ(UFFD_EVENT_REMOVE, msg.event);
	EXPECT_EQ((uintptr_t)p + psize(), msg.arg.remove.start);
	EXPECT_EQ((uintptr_t)p + 3 * psize(), msg.arg.remove.end);
	pthread_join(thread, &ret);
	EXPECT_EQ(NULL, ret);
	close(uffd);
}

TEST_HARNESS_MAIN
