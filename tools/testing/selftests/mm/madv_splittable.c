// SPDX-License-Identifier: GPL-2.0
/*
 * Test MADV_SPLITTABLE, MADV_UNSPLITTABLE and MADV_FREE_UNDO: return values,
 * ranges and their limit, changes of the mapping, pagemap and the counters, the
 * debug mode, and khugepaged, KSM and NUMA balancing.
 *
 * A marked page reads as before or as zero. It reads zero once it is unmarked.
 * MADV_FREE_UNDO returns 0 only if all contents are there. Other pages do not
 * change. All pages have stamps.
 */
#define _GNU_SOURCE
#define NEEDS	KNOBS "max_ranges_per_mm"
#include "lazyfree_util.h"

#ifndef PR_SET_MADV_SPLITTABLE_DEBUG
#define PR_SET_MADV_SPLITTABLE_DEBUG	82
#endif

static int set_max_ranges(const char *max)
{
	return write_text(KNOBS "max_ranges_per_mm", max);
}

/* kB of present pages in the marked ranges of this process */
static long smaps_splittable(void)
{
	return read_value("/proc/self/smaps_rollup", "Splittable");
}

/* The same of all processes */
static long meminfo_splittable(void)
{
	return read_value("/proc/meminfo", "Splittable");
}

TEST_F(lazyfree, stays_until_it_is_needed)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ((long)(REGION / psize()), resident_pages(self->p, REGION));
	check_undo(_metadata, &self->t, self->p, REGION, true);
	check_not_marked(_metadata, &self->t, self->p, REGION);
	/* None of it is marked: the result is a matter of the contents. */
	check_undo(_metadata, &self->t, self->p, REGION, false);
}

TEST_F(lazyfree, is_zero_when_unmarked)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	check_unmark(_metadata, &self->t, self->p, REGION);
	/* Stores to marked pages are lost. */
	ASSERT_EQ(0, mark(self->p, REGION));
	memset(self->p, 1, REGION / 2);
	check_unmark(_metadata, &self->t, self->p, REGION);
}

TEST_F(lazyfree, a_part_is_unmarked)
{
	const size_t from = 3 * MB + 4 * psize(), size = MB;

	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, unmark(self->p + from, size));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + from, size, 0));
	/* The end of one range, the part, and the start of another range */
	memset(self->p, 1, REGION);
	ASSERT_EQ(0, mark(self->p + from, size));
	ASSERT_EQ(0, unmark(self->p + MB, 6 * MB));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + MB, 6 * MB, 0));
	check_unmark(_metadata, &self->t, self->p, REGION);
}

TEST_F(lazyfree, half_of_each_folio)
{
	const size_t step = variant->folio > 64 << 10 ? variant->folio : 256 << 10;
	const size_t half = step / 2;
	const bool huge = variant->folio == HPAGE_SIZE;

	/* The second round has PMDs that clear_refs has write-protected. */
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < REGION; i += step)
			ASSERT_EQ(0, mark(self->p + i, half));
		if (round && write_text("/proc/self/clear_refs", "4"))
			TH_LOG("not tested: no clear_refs");
		EXPECT_EQ(huge, has_huge(self->p, REGION));
		for (size_t i = 0; i < REGION; i += step) {
			ASSERT_EQ(0, unmark(self->p + i, half));
			EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + i, half, 0));
			EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + i + half, half,
					       (i + half) / psize()));
		}
		EXPECT_EQ(huge, has_huge(self->p, REGION));
		stamp_pages(self->p, REGION);
	}
}

/* Runs an event in a process of its own, as the kernel remembers some of them. */
static void after_event(struct __test_metadata *_metadata, struct lazyfree_test *t,
			const struct lazyfree_event *e, bool unmarks)
{
	/* Parts of folios, in several page tables */
	char *p = t->p + MB + 4 * psize();
	const size_t size = 4 * MB;
	const char *missing;

	lazyfree_renew(t);
	EXPECT_EQ(0, mark(p, size));
	missing = e->run(t, p, size);
	if (missing)
		TH_LOG("not tested: %s", missing);
	if (unmarks && !e->unmarks)
		check_unmark(_metadata, t, p, size);
	else
		check_undo(_metadata, t, p, size, e->kept);
	check_not_marked(_metadata, t, t->p, REGION);
	EXPECT_EQ(0, t->errors);
}

TEST_F_TIMEOUT(lazyfree, after_events, 3 * PATIENCE)
{
	const struct lazyfree_event *e;

	for (e = lazyfree_events; e < lazyfree_events + ARRAY_SIZE(lazyfree_events); e++)
		for (int way = 0; way < 2; way++) {
			pid_t pid = fork();

			if (!pid) {
				after_event(_metadata, &self->t, e, way);
				_exit(_metadata->exit_code);
			}
			EXPECT_EQ(0, wait_status(pid))
				TH_LOG("after %s and %s", e->name, way ? "unmark" : "undo");
		}
}

/* A child has lazyfree pages of its parent, and no range that tells of them. */
TEST_F(lazyfree, fork_after_madv_free)
{
	pid_t pid;

	EXPECT_EQ(-ENODATA, undo(self->p, REGION));
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (drop(self->group, self->p, REGION))
			_exit(1);
		if (mark(self->p, REGION))
			_exit(2);
		_exit(undo(self->p, REGION) == -ENODATA ? 0 : 3);
	}
	EXPECT_EQ(0, wait_status(pid));
}

TEST_F(lazyfree, fork)
{
	pid_t pid;

	ASSERT_EQ(0, mark(self->p + MB, 4 * MB));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* In the child the range is zapped, and not marked. */
		if (pages_not(PAGE_OLD, self->p, MB, 0) ||
		    pages_not(PAGE_ZERO, self->p + MB, 4 * MB, 0) ||
		    pages_not(PAGE_OLD, self->p + 5 * MB, 3 * MB, 5 * MB / psize()))
			_exit(1);
		stamp_pages(self->p, REGION);
		if (unmark(self->p, REGION) || pages_not(PAGE_OLD, self->p, REGION, 0))
			_exit(2);
		/* The child can mark pages that it shares with the parent. */
		_exit(mark(self->p, REGION) || unmark(self->p, REGION) ||
		      pages_not(PAGE_ZERO, self->p, REGION, 0) ? 3 : 0);
	}
	EXPECT_EQ(0, wait_status(pid));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, MB, 0));
	check_unmark(_metadata, &self->t, self->p + MB, 4 * MB);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

/* A child and a pipe refer to pages that the test marks, unmarks and drops. */
TEST_F(lazyfree, other_users_keep_the_pages)
{
	struct iovec iov = { self->p, 4 * psize() };
	const size_t half = REGION / 2, some = iov.iov_len / 2;
	char *copy = malloc(some);
	int fds[2], fd;
	pid_t pid;

	ASSERT_NE(NULL, copy);
	ASSERT_EQ(0, pipe(fds));
	if (vmsplice(fds[1], &iov, 1, 0) != (ssize_t)iov.iov_len)
		SKIP(return, "no vmsplice()");
	/* Alone with the pipe; then with the child, too */
	ASSERT_EQ(0, mark(self->p, half));
	ASSERT_EQ(0, unmark(self->p, half));
	ASSERT_EQ((ssize_t)some, read(fds[0], copy, some));
	EXPECT_EQ(0, pages_not(PAGE_OLD, copy, some, 0));
	check_unmark(_metadata, &self->t, self->p, half);
	pid = fork_reader(&self->t, &fd);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, mark(self->p, REGION));
	check_unmark(_metadata, &self->t, self->p, half);
	EXPECT_EQ(0, drop(self->group, self->p + half, half));
	memset(self->p, 1, REGION);
	ASSERT_EQ((ssize_t)some, read(fds[0], copy, some));
	EXPECT_EQ(0, pages_not(PAGE_OLD, copy, some, some / psize()));
	close(fd);
	EXPECT_EQ(0, wait_status(pid));
	free(copy);
}

/* All that a process had marked is counted no more when the process ends. */
TEST_F(lazyfree, exec_and_exit)
{
	const long before = meminfo_splittable();

	for (int way = 0; way < 3; way++) {
		pid_t pid = fork();

		ASSERT_LE(0, pid);
		if (!pid) {
			stamp_pages(self->p, REGION);
			if (mark(self->p, REGION))
				_exit(1);
			if (way == 1)
				execl("/bin/true", "true", NULL);
			if (way == 2)
				kill(getpid(), SIGKILL);
			_exit(way);
		}
		EXPECT_EQ(way == 2 ? SIGKILL : 0, wait_status(pid));
	}
	EXPECT_EQ(before, meminfo_splittable());
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(lazyfree, mlock)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, mlock(self->p + MB, MB));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + MB, MB, 0));
	stamp_pages(self->p + MB, MB);
	EXPECT_EQ(0, drop(self->group, self->p, MB));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + MB, MB, 0));
	ASSERT_EQ(0, munlock(self->p + MB, MB));
	EXPECT_EQ(0, unmark(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + MB, MB, 0));

	ASSERT_EQ(0, mark(self->p, REGION));
	if (mlockall(MCL_CURRENT | MCL_ONFAULT))
		SKIP(return, "no mlockall()");
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
	munlockall();
	check_not_marked(_metadata, &self->t, self->p, REGION);
}

static bool can_read(char *p)
{
	char c;
	struct iovec to = { &c, 1 }, from = { p, 1 };

	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
}

TEST_F(lazyfree, guard_regions_stay)
{
	char *guard = self->p + MB;

	if (madvise(guard, 4 * psize(), MADV_GUARD_INSTALL))
		SKIP(return, "no guard regions");
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, drop(self->group, self->p, REGION));
	EXPECT_FALSE(can_read(guard));
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, unmark(self->p, REGION));
	EXPECT_FALSE(can_read(guard));
	EXPECT_TRUE(can_read(guard + 4 * psize()));
}

/* Return values */

/* Reasons to zap at once */
enum reason { READ_ONLY, NO_ACCESS, NO_RANGES, UFFD_MISSING, UFFD_WP, REASONS };

/*
 * The reason applies to the middle of the range. The call still has to free the
 * parts before and after, and to return ENODATA.
 */
TEST_F(lazyfree, enodata_if_zapped)
{
	const int rw = PROT_READ | PROT_WRITE;
	const size_t size = 4 * MB;
	char *p = self->p + MB, *middle = p + MB;

	for (int i = 0; i < 2 * REASONS; i++) {
		const enum reason why = i / 2;
		int uffd = -1;

		lazyfree_renew(&self->t);
		if (why == READ_ONLY || why == NO_ACCESS)
			ASSERT_EQ(0, mprotect(middle, MB, why == READ_ONLY ?
					      PROT_READ : PROT_NONE));
		if (why == NO_RANGES)
			ASSERT_EQ(0, set_max_ranges("0"));
		if (why == UFFD_MISSING || why == UFFD_WP) {
			uffd = uffd_create(0, 0);
			if (uffd < 0 || uffd_register(uffd, middle, MB, why == UFFD_MISSING,
						      why == UFFD_WP, false)) {
				TH_LOG("not tested: no userfaultfd");
				continue;
			}
		}
		EXPECT_EQ(-ENODATA, mark(p, size)) TH_LOG("reason %d", why);
		EXPECT_EQ(0, resident_pages(middle, MB)) TH_LOG("reason %d", why);
		if (uffd >= 0)
			close(uffd);
		ASSERT_EQ(0, set_max_ranges("4096"));
		ASSERT_EQ(0, mprotect(p, size, rw));
		if (i % 2)
			check_unmark(_metadata, &self->t, p, size);
		else
			EXPECT_EQ(-ENODATA, check_undo(_metadata, &self->t, p, size, false));
		check_not_marked(_metadata, &self->t, self->p, REGION);
	}
}

TEST_F(single, of_locked_memory)
{
	ASSERT_EQ(0, mlock(self->p, MB));
	EXPECT_EQ(-ENODATA, mark(self->p, MB));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, MB, 0));
	ASSERT_EQ(0, munlock(self->p, MB));
	check_not_marked(_metadata, &self->t, self->p, REGION);
}

/* Memory of files is zapped as by MADV_DONTNEED, and reads the file again. */
TEST_F(single, of_other_mappings)
{
	const int rw = PROT_READ | PROT_WRITE;
	int fd = memfd_create("splittable", 0);
	char *p[2];

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, MB));
	for (int i = 0; i < 2; i++) {
		p[i] = mmap(NULL, MB, rw, i ? MAP_PRIVATE : MAP_SHARED, fd, 0);
		ASSERT_NE(MAP_FAILED, p[i]);
		if (i)
			memset(p[i], 1, MB);
		else
			stamp_pages(p[i], MB);
		EXPECT_EQ(-ENODATA, mark(p[i], MB));
		EXPECT_EQ(0, unmark(p[i], MB));
		EXPECT_EQ(0, pages_not(PAGE_OLD, p[i], MB, 0));
		EXPECT_EQ(-EINVAL, undo(p[i], MB));
	}
	close(fd);

	EXPECT_EQ(-EINVAL, mark(self->p + 1, MB));
	EXPECT_EQ(-EINVAL, unmark(self->p + 1, MB));
	EXPECT_EQ(0, mark(self->p, 0));
	/* The calls handle the memory around a hole, and report the hole. */
	munmap(self->p + 2 * MB, MB);
	EXPECT_EQ(-ENOMEM, mark(self->p, REGION));
	EXPECT_EQ(7 << 10, smaps_splittable());
	EXPECT_EQ(-ENOMEM, unmark(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, 2 * MB, 0));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + 3 * MB, 5 * MB, 0));
}

static long vector(struct iovec *iov, int advice)
{
	int pidfd = syscall(__NR_pidfd_open, getpid(), 0);
	long ret = syscall(__NR_process_madvise, pidfd, iov, 4, advice, 0);

	close(pidfd);
	return ret < 0 ? -errno : ret;
}

/* A vector that the kernel cannot mark must not end before its last element. */
TEST_F(single, of_a_vector)
{
	struct iovec iov[4];

	for (int limit = 0; limit < 2; limit++) {
		lazyfree_renew(&self->t);
		for (int i = 0; i < 4; i++)
			iov[i] = (struct iovec){ self->p + 2 * i * MB, MB };
		ASSERT_EQ(0, set_max_ranges(limit ? "1" : "4096"));
		if (limit) {
			EXPECT_NE(4 * (long)MB, vector(iov, MADV_SPLITTABLE));
		} else {
			EXPECT_EQ(4 * (long)MB, vector(iov, MADV_SPLITTABLE));
			EXPECT_EQ(4 * (long)MB, vector(iov, MADV_FREE_UNDO));
			EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
			EXPECT_EQ(4 * (long)MB, vector(iov, MADV_SPLITTABLE));
			ASSERT_EQ(0, madvise(self->p + 2 * MB, MB, MADV_DONTNEED));
			EXPECT_NE(4 * (long)MB, vector(iov, MADV_FREE_UNDO));
			vector(iov, MADV_SPLITTABLE);
		}
		EXPECT_EQ(4 * (long)MB, vector(iov, MADV_UNSPLITTABLE));
		for (int i = 0; i < 4; i++) {
			EXPECT_EQ(0, pages_not(PAGE_ZERO, iov[i].iov_base, MB, 0));
			EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + (2 * i + 1) * MB, MB,
					       (2 * i + 1) * MB / psize()));
		}
	}
}

/* The limit */

TEST_F(lazyfree, cut_at_the_limit)
{
	const int cuts[] = { MADV_FREE_UNDO, MADV_UNSPLITTABLE, MADV_DONTNEED,
			     MADV_GUARD_INSTALL };
	const size_t from = 2 * MB, size = MB;
	char *p = self->p + from;

	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		lazyfree_renew(&self->t);
		ASSERT_EQ(0, set_max_ranges("1"));
		ASSERT_EQ(0, mark(self->p, REGION - MB));
		/* The remainder is zapped even if it is not accessible any more. */
		if (i % 2)
			ASSERT_EQ(0, mprotect(self->p, from, PROT_NONE));
		EXPECT_EQ(0, advise(p, size, cuts[i]));
		ASSERT_EQ(0, mprotect(self->p, from, PROT_READ | PROT_WRITE));
		if (cuts[i] == MADV_GUARD_INSTALL)
			EXPECT_EQ(0, advise(p, size, MADV_GUARD_REMOVE));
		EXPECT_EQ(0, pages_not(cuts[i] == MADV_FREE_UNDO ? PAGE_OLD : PAGE_ZERO,
				       p, size, from / psize()));
		/*
		 * The smaller remainder is zapped, the larger one is marked. From
		 * the first zap on, the kernel knows no history of new ranges.
		 */
		EXPECT_EQ(0, resident_pages(self->p, from)) TH_LOG("cut %zu", i);
		check_undo(_metadata, &self->t, p + size, 4 * MB, i == 0);
		EXPECT_EQ(0, smaps_splittable());
		EXPECT_EQ(-ENODATA, undo(self->p, from));
		check_unmark(_metadata, &self->t, self->p, from);
		check_not_marked(_metadata, &self->t, p, size);
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	}
	/* One more range than the limit */
	ASSERT_EQ(0, mark(self->p, MB));
	EXPECT_EQ(-ENODATA, mark(self->p + 4 * MB, MB));
	EXPECT_EQ(0, resident_pages(self->p + 4 * MB, MB));
	check_undo(_metadata, &self->t, self->p, MB, false);
}

/* Of a call for more than 2 MiB, the remainders of all of it count. */
TEST_F(lazyfree, cut_in_parts_at_the_limit)
{
	char *tail = self->p + REGION - MB / 2;

	ASSERT_EQ(0, set_max_ranges("1"));
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ(0, unmark(self->p + 2 * MB, tail - self->p - 2 * MB));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + 2 * MB, REGION - 2 * MB, 0));
	EXPECT_EQ(0, check_undo(_metadata, &self->t, self->p, 2 * MB, true));
	check_not_marked(_metadata, &self->t, tail, MB / 2);
}

/* A process makes as many ranges as it can: cuts of memory that it never used. */
TEST_F(single, ranges_are_bounded)
{
	const int cuts[] = { MADV_FREE_UNDO, MADV_UNSPLITTABLE, MADV_DONTNEED };
	const size_t size = 64UL << 30;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		       MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	long before = group_read(self->group, "memory.stat", "slab");

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, mark(p, size));
	for (size_t i = 0; i < 50000; i++)
		madvise(p + (2 * i + 1) * psize(), psize(), cuts[i % ARRAY_SIZE(cuts)]);
	/* 512 bytes for each of 4,096 ranges */
	EXPECT_GE(2 * (long)MB, group_read(self->group, "memory.stat", "slab") - before);
	munmap(p, size);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

/* Counters */

TEST_F(lazyfree, marks_that_touch_and_overlap)
{
	const long before = meminfo_splittable();

	for (int i = 0; i < 4; i++)
		ASSERT_EQ(0, mark(self->p + 2 * i * MB, MB));
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(0, mark(self->p + (2 * i + 1) * MB, MB));
	ASSERT_EQ(0, mark(self->p + MB / 2, 6 * MB));
	EXPECT_EQ(7 << 10, smaps_splittable());
	EXPECT_EQ(before + (7 << 10), meminfo_splittable());
	EXPECT_EQ(7 * (long)MB, group_read(self->group, "memory.stat", "splittable"));
	check_undo(_metadata, &self->t, self->p, 7 * MB, true);
	EXPECT_EQ(0, smaps_splittable());
	EXPECT_EQ(before, meminfo_splittable());
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(single, counters_show_memory_that_exists)
{
	const size_t size = 1UL << 40;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		       MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	const long rss = read_value("/proc/self/status", "VmRSS");

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, mark(p, size));
	EXPECT_EQ(0, smaps_splittable());
	EXPECT_GE(2 * rss, meminfo_splittable());
	EXPECT_GE(2 * rss, group_read(self->group, "memory.stat", "splittable") / (long)KB);
	memset(p, 1, MB);
	EXPECT_EQ(1 << 10, smaps_splittable());
	munmap(p, size);
	EXPECT_EQ(0, smaps_splittable());
}

TEST_F(single, marked_memory_is_available)
{
	const long size = 64 * MB;
	char current[80], *p = map_aligned(size);
	long available, used, score, file;

	ASSERT_NE(MAP_FAILED, p);
	stamp_pages(p, size);
	snprintf(current, sizeof(current), "%s/memory.current", self->group);
	used = read_long(current);
	file = group_read(self->group, "memory.stat", "inactive_file");
	score = read_long("/proc/self/oom_score");
	available = read_value("/proc/meminfo", "MemAvailable");
	ASSERT_EQ(0, mark(p, size));
	EXPECT_LE(available + size / 2 / (long)KB,
		  read_value("/proc/meminfo", "MemAvailable"));
	/* A point is a thousandth of RAM and swap. */
	if (read_value("/proc/meminfo", "MemTotal") < 8L << 20)
		EXPECT_GT(score, read_long("/proc/self/oom_score"));
	EXPECT_GE(used - file + (long)MB, read_long(current) -
		  group_read(self->group, "memory.stat", "inactive_file"));
	munmap(p, size);
}

/* CRIU dumps pages that pagemap shows, so marked pages must not be there. */
TEST_F(lazyfree, pagemap_hides_marked_pages)
{
	const size_t from = MB, size = 3 * MB, nr = size / psize();
	const int fd = self->t.pagemap;
	long wrong = 0;

	ASSERT_EQ(0, mark(self->p + from, size));
	EXPECT_EQ((long)nr, resident_pages(self->p + from, size));
	EXPECT_EQ(0, scan_pages(fd, self->p + from, size));
	EXPECT_EQ((long)(REGION / psize() - nr), scan_pages(fd, self->p, REGION));
	for (size_t i = 0; i < REGION; i += psize())
		wrong += (i < from || i >= from + size) !=
			 pagemap_is_populated(fd, self->p + i);
	EXPECT_EQ(0, wrong);
	check_undo(_metadata, &self->t, self->p + from, size, true);
	EXPECT_EQ((long)(REGION / psize()), scan_pages(fd, self->p, REGION));
}

/* Sealed memory */

static int seal(char *p, size_t size)
{
	return syscall(__NR_mseal, p, size, 0) ? -errno : 0;
}

TEST_F(lazyfree, mseal_unmarks)
{
	char *p = self->p + MB;
	const size_t size = 2 * MB;

	ASSERT_EQ(0, mark(self->p, REGION / 2));
	stamp_pages(self->p, REGION);
	if (seal(p, size))
		SKIP(return, "no mseal()");
	EXPECT_EQ(0, drop(self->group, self->p, MB));
	EXPECT_EQ(0, drop(self->group, self->p + 3 * MB, MB));
	EXPECT_EQ(0, pages_not(PAGE_OLD, p, size, MB / psize()));
	/* It is writable, but another thread may see it as read-only. */
	EXPECT_EQ(-EPERM, mark(p, size));
	unmark(p, size);
	undo(p, size);
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, p, size, MB / psize()));
	EXPECT_EQ(-EPERM, mark(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_OLD, p, size, MB / psize()));
}

/* Who can read memory, and cannot write it, does not see it change. */
TEST_F(lazyfree, read_only_memory_does_not_change)
{
	const size_t half = REGION / 2;

	for (int i = 0; i < 4; i++) {
		const int from = i & 1 ? PROT_NONE : PROT_READ | PROT_WRITE;
		const int to = i & 2 ? PROT_EXEC : PROT_READ;

		lazyfree_renew(&self->t);
		ASSERT_EQ(0, mark(self->p, REGION));
		ASSERT_EQ(0, mprotect(self->p, half, from));
		EXPECT_EQ(REGION >> 10, smaps_splittable()) TH_LOG("protection %d", from);
		ASSERT_EQ(0, mprotect(self->p, half, to));
		EXPECT_EQ(half >> 10, smaps_splittable()) TH_LOG("protection %d", to);
		reclaim_group(self->group);
		ASSERT_EQ(0, mprotect(self->p, half, PROT_READ | PROT_WRITE));
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, half, 0)) TH_LOG("protection %d", to);
		/* It is as if it had not been marked. */
		EXPECT_EQ(0, unmark(self->p, half));
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, half, 0));
		check_undo(_metadata, &self->t, self->p + half, half, false);
		check_not_marked(_metadata, &self->t, self->p, half);
	}
}

/* Contents that were lost before mprotect() are not there after the next mark. */
TEST_F(lazyfree, read_only_memory_stays_lost)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ(0, drop(self->group, self->p, REGION));
	ASSERT_EQ(0, mprotect(self->p, REGION, PROT_READ));
	ASSERT_EQ(0, mprotect(self->p, REGION, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ(-ENODATA, undo(self->p, REGION));
}

/* The process has used MADV_FREE_UNDO, so the kernel has a range of MADV_FREE. */
TEST_F(lazyfree, read_only_memory_stays_lazyfree)
{
	EXPECT_EQ(-ENODATA, undo(self->p, REGION));
	ASSERT_EQ(0, lazyfree(self->p, REGION));
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, mprotect(self->p, REGION, PROT_READ));
	EXPECT_EQ(0, drop(self->group, self->p, REGION));
	ASSERT_EQ(0, mprotect(self->p, REGION, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ(-ENODATA, undo(self->p, REGION));
}

TEST_F(lazyfree, sealed_memory_does_not_change)
{
	const size_t half = REGION / 2;
	const int pkey = pkey_alloc(0, 0);
	long old, zero;

	ASSERT_EQ(0, mark(self->p, REGION));
	stamp_pages(self->p, REGION);
	ASSERT_EQ(0, mprotect(self->p, half, PROT_READ));
	if (pkey >= 0) {
		ASSERT_EQ(0, pkey_mprotect(self->p + half, half,
					   PROT_READ | PROT_WRITE, pkey));
		ASSERT_EQ(0, pkey_set(pkey, PKEY_DISABLE_WRITE));
	} else {
		TH_LOG("not tested: no protection keys");
	}
	if (seal(self->p, REGION))
		SKIP(return, "no mseal()");
	old = count_pages(self->p, REGION, stamp_of(0), PAGE_OLD);
	zero = count_pages(self->p, REGION, stamp_of(0), PAGE_ZERO);
	reclaim_group(self->group);
	EXPECT_EQ(old, count_pages(self->p, REGION, stamp_of(0), PAGE_OLD));
	EXPECT_EQ(zero, count_pages(self->p, REGION, stamp_of(0), PAGE_ZERO));
	EXPECT_EQ((long)(REGION / psize()), old + zero);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + half, half, half / psize()));
}

/* The debug mode */

static int set_debug(int mode)
{
	return prctl(PR_SET_MADV_SPLITTABLE_DEBUG, mode, 0, 0, 0) ? -errno : 0;
}

/* Returns how a child ends that sets @mode, marks, gives @advice and loads. */
static int debug_status(char *p, int mode, int advice, bool in_child)
{
	pid_t pid = fork();

	if (pid)
		return wait_status(pid);
	stamp_pages(p, REGION);
	if (set_debug(mode))
		_exit(1);
	if (in_child)
		pid = fork();
	if (pid)
		_exit(WTERMSIG(wait_status(pid)));
	if (mark(p, REGION) != (mode ? -ENODATA : 0))
		_exit(2);
	if (advice && advise(p, REGION, advice) && advice != MADV_FREE_UNDO)
		_exit(3);
	_exit(pages_not(mode ? PAGE_ZERO : PAGE_OLD, p, REGION, 0) ? 4 : 0);
}

TEST_F(lazyfree, debug_mode)
{
	const int zap = 1, fault = 2;

	if (set_debug(0) == -EINVAL)
		SKIP(return, "no PR_SET_MADV_SPLITTABLE_DEBUG");
	EXPECT_EQ(-EINVAL, set_debug(3));
	EXPECT_EQ(-EINVAL, set_debug(-1));
	EXPECT_EQ(0, debug_status(self->p, 0, 0, false));
	EXPECT_EQ(0, debug_status(self->p, zap, 0, false));
	EXPECT_EQ(SIGSEGV, WTERMSIG(debug_status(self->p, fault, 0, false)));
	EXPECT_EQ(0, debug_status(self->p, fault, MADV_UNSPLITTABLE, false));
	EXPECT_EQ(0, debug_status(self->p, fault, MADV_FREE_UNDO, false));
	EXPECT_EQ(SIGSEGV, WEXITSTATUS(debug_status(self->p, fault, 0, true)));
	/* A process leaves the mode. */
	ASSERT_EQ(0, set_debug(fault));
	EXPECT_EQ(-ENODATA, mark(self->p, MB));
	EXPECT_EQ(0, unmark(self->p, MB));
	/* There are no guard regions in locked memory: it is only zapped. */
	ASSERT_EQ(0, mlock(self->p + MB, MB));
	EXPECT_EQ(-ENODATA, mark(self->p + MB, MB));
	EXPECT_EQ(0, munlock(self->p + MB, MB));
	ASSERT_EQ(0, set_debug(0));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, 2 * MB, 0));
	EXPECT_EQ(0, mark(self->p, REGION));
}

/* khugepaged, KSM and NUMA balancing */

#define DEADLINE	(time(NULL) + PATIENCE / 3)

TEST_F(single, khugepaged)
{
	const size_t half = REGION / 2;
	unsigned long scans;

	if (!thp_available())
		SKIP(return, "no huge pages");
	allow_huge_pages();
	ASSERT_EQ(0, mark(self->p, half));
	madvise(self->p, REGION, MADV_HUGEPAGE);
	wait_until(DEADLINE, has_huge(self->p, half));
	scans = thp_read_num("khugepaged/full_scans");
	wait_until(DEADLINE, thp_read_num("khugepaged/full_scans") >= scans + 2);
	/* khugepaged skips page tables that are marked as a whole. */
	EXPECT_TRUE(has_huge(self->p, half));
	EXPECT_EQ(0, undo(self->p, half));
	EXPECT_TRUE(wait_until(DEADLINE, has_huge(self->p, REGION)));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(single, ksm)
{
	const size_t half = REGION / 2;
	const long pages = half / psize();

	memset(self->p, 1, REGION);
	ASSERT_EQ(0, mark(self->p, half));
	if (madvise(self->p, REGION, MADV_MERGEABLE) || ksm_start() < 0)
		SKIP(return, "no KSM");
	EXPECT_EQ(pages, ksm_get_self_merging_pages());
	EXPECT_EQ(0, undo(self->p, half));
	EXPECT_EQ(0, ksm_start());
	EXPECT_EQ(2 * pages, ksm_get_self_merging_pages());
	/* To clear one half must not clear the page that both halves share. */
	ASSERT_EQ(0, mark(self->p, half));
	EXPECT_EQ(0, unmark(self->p, half));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, half, 0));
	EXPECT_EQ(1, self->p[half]);
	EXPECT_EQ(0, memcmp(self->p + half, self->p + half + 1, half - 1));
	ksm_stop();
}

/*
 * KSM puts pages that it has seen into its unstable tree, as no two are alike.
 * Their items must not stay there while KSM skips the pages: it frees the tree
 * after each scan, and panics if it meets an item of an old scan.
 */
TEST_F(lazyfree, ksm_unstable_tree)
{
	const size_t part = HPAGE_SIZE / 2;
	const bool huge = variant->folio == HPAGE_SIZE;

	if (madvise(self->p, REGION, MADV_MERGEABLE) || ksm_start() < 0)
		SKIP(return, "no KSM");
	for (size_t i = 0; i < REGION; i += 2 * part) {
		ASSERT_EQ(0, mark(self->p + i, part));
		EXPECT_EQ(0, ksm_start());
	}
	EXPECT_EQ(huge, has_huge(self->p, REGION));
	/* KSM skips a page table that is in one range. */
	EXPECT_EQ(-ENODATA, undo(self->p, REGION));
	for (size_t i = 0; i < REGION; i += 2 * part) {
		ASSERT_EQ(0, mark(self->p + i, 2 * part));
		EXPECT_EQ(0, ksm_start());
	}
	EXPECT_EQ(0, undo(self->p, REGION));
	EXPECT_EQ(0, ksm_start());
	EXPECT_EQ(0, ksm_get_self_merging_pages());
	ksm_stop();
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

/* Uses memory until NUMA balancing has scanned this address space twice. */
static bool be_scanned(char *p, size_t size)
{
	const time_t end = DEADLINE;
	pthread_t other;

	/* Of a single thread NUMA balancing only scans remote memory. */
	if (pthread_create(&other, NULL, do_nothing, NULL))
		return false;
	while (read_value("/proc/self/sched", "mm->numa_scan_seq") < 2) {
		if (time(NULL) > end)
			return false;
		for (int round = 0; round < 200; round++)
			force_read_pages(p, size / psize(), psize());
	}

	return true;
}

/* Children mark nothing, all, or half of each huge page. */
TEST_F(lazyfree, numa_balancing)
{
	const bool huge = variant->folio == HPAGE_SIZE;
	long before, updates[3];

	if (access(NODES "node1", F_OK) ||
	    write_text("/proc/sys/kernel/numa_balancing", "1"))
		SKIP(return, "needs two nodes and CONFIG_NUMA_BALANCING");
	write_text(NUMA_DEBUG "scan_delay_ms", "0");
	write_text(NUMA_DEBUG "scan_period_min_ms", "100");
	write_text(NUMA_DEBUG "scan_period_max_ms", "200");
	for (int marked = 0; marked < 3; marked++) {
		pid_t pid;

		before = group_read(self->group, "memory.stat", "numa_pte_updates");
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			lazyfree_renew(&self->t);
			for (size_t i = 0; marked && i < REGION; i += HPAGE_SIZE)
				if (mark(self->p + i, marked == 1 ? HPAGE_SIZE : MB))
					_exit(1);
			if (!be_scanned(self->p, REGION))
				_exit(2);
			_exit(huge && !has_huge(self->p, REGION) ? 3 : 0);
		}
		EXPECT_EQ(0, wait_status(pid)) TH_LOG("child %d", marked);
		updates[marked] = group_read(self->group, "memory.stat",
					     "numa_pte_updates") - before;
	}
	/* The counter has little to count where pages are huge. */
	if (!huge)
		EXPECT_LT(updates[1], updates[0]);
}

/* Races */

static void user_mark(struct user *u, size_t first, size_t n)
{
	user_lazy(u, first, n, MADV_SPLITTABLE);
}

/* Each page that was marked is zero afterwards. */
static void user_unmark(struct user *u, size_t first, size_t n)
{
	unmark(user_page(u, first), n * psize());
	for (size_t i = first; i < first + n; i++) {
		if (u->knows[i] != STAMPED)
			u->knows[i] = ZEROED;
		user_check(u, "unmarked", i);
	}
}

static void user_use(struct user *u, size_t first, size_t n)
{
	user_unmark(u, first, n);
	user_store(u, first, n);
}

/* Changes the mapping of the memory beside the pages of the users. */
static void *map_all_the_time(void *arg)
{
	const struct lazyfree_event *e;
	struct race *race = arg;
	struct lazyfree_test t = { .p = race->p };
	unsigned int seed = 1;

	while (!atomic_load(&race->stop)) {
		char *p = race->p + 6 * MB + rand_r(&seed) % 256 * psize();

		stamp_range(p, MB, stamp_of((p - race->p) / psize()));
		mark(p, MB);
		e = &lazyfree_events[rand_r(&seed) % ARRAY_SIZE(lazyfree_events)];
		/* Some events concern all pages, or store to pages that may be zapped. */
		if (e->run == event_ksm || e->run == event_compact ||
		    e->run == event_reclaim || e->run == event_fork ||
		    e->run == event_store || e->unmarks)
			continue;
		e->run(&t, p, MB);
		unmark(p, MB);
		if ((t.errors || pages_not(PAGE_ZERO, p, MB, 0)) &&
		    atomic_fetch_add(&race->errors, 1) < 3)
			fprintf(TH_LOG_STREAM, "# %ld pages are not zero after %s\n",
				pages_not(PAGE_ZERO, p, MB, 0), e->name);
	}
	return NULL;
}

TEST_F(lazyfree, race)
{
	struct race race = {
		.p = self->p, .group = self->group,
		.steps = { user_mark, user_mark, user_mark, user_unmark, user_unmark,
			   user_undo, user_use, user_use },
	};
	void *(* const disturb[])(void *) = {
		reclaim_all_the_time, fork_all_the_time, map_all_the_time,
		collapse_all_the_time,
	};

	ASSERT_EQ(0, run_race(&race, 6 * MB, 80, disturb, ARRAY_SIZE(disturb)));
	EXPECT_EQ(0UL, atomic_load(&race.errors));
}

TEST_F(single, knobs_take_their_range_and_no_more)
{
	static const struct setting_texts values[] = {
		{ KNOBS "min_age_ms", { "0", OLD_FOR_EVER, "1000" },
		  { "-1", "3600001", "1.5", "x", "99999999999" } },
		{ KNOBS "max_ranges_per_mm", { "0", "1048576", "4096" },
		  { "-1", "1048577", "1 2", "x", "99999999999" } },
		{ KNOBS "policy", { "first", "fair", "fair" },
		  { "0", "fa", "fair first", "x", "[fair]" } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		check_texts(_metadata, &values[i]);
}

TEST_HARNESS_MAIN
