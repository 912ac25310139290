// SPDX-License-Identifier: GPL-2.0
/*
 * MADV_SPLITTABLE and MADV_UNSPLITTABLE: what was marked reads zero once it is
 * taken back, may go until then, and goes when memory is needed; what was not
 * marked stays as it is, whatever happens to the mapping.
 *
 * All pages carry stamps. Reclaim is asked for by memory.reclaim, of a memory
 * cgroup for each test.
 */
#define _GNU_SOURCE
#include "lazyfree_util.h"
#include <asm-generic/mman.h> /* Force the import of the tools version. */
#include <linux/stddef.h>
#include <linux/io_uring.h>
#include <sys/resource.h>
#include <sys/uio.h>

#ifndef __NR_mseal
#define __NR_mseal	462
#endif

#define KNOBS	"/sys/kernel/mm/lazyfree/"

FIXTURE(splittable)
{
	struct lazyfree_test t;
	char *p;
	const char *group;
	int pagemap;
	char old[1][SETTING_LEN];
};

/* No range is too young, and none has just been zapped. */
static const struct setting settings[] = { { KNOBS "min_age_ms", "0" } };

/* Sizes of folios, and either LRU. */
FIXTURE_VARIANT(splittable)
{
	size_t folio;		/* bytes */
	const char *lru_gen;	/* of LRU_GEN */
};

FIXTURE_VARIANT_ADD(splittable, small) { 0, "n" };
FIXTURE_VARIANT_ADD(splittable, mthp_lru_gen) { 64 << 10, "y" };
FIXTURE_VARIANT_ADD(splittable, thp) { 2 << 20, "n" };
FIXTURE_VARIANT_ADD(splittable, thp_lru_gen) { 2 << 20, "y" };

FIXTURE_SETUP(splittable)
{
	const char *missing;

	if (!settings_save(settings, 1, self->old))
		SKIP(return, "no " KNOBS ": CONFIG_MADV_SPLITTABLE");
	missing = lazyfree_setup(&self->t, variant->folio, variant->lru_gen);
	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(settings_apply(settings, 1));
	self->p = self->t.p;
	self->pagemap = self->t.pagemap;
	self->group = self->t.group;
}

FIXTURE_TEARDOWN(splittable)
{
	settings_restore(settings, 1, self->old);
	lazyfree_teardown(&self->t);
}

static int mark(char *p, size_t size)
{
	return madvise(p, size, MADV_SPLITTABLE) ? -errno : 0;
}

static int take_back(char *p, size_t size)
{
	return madvise(p, size, MADV_UNSPLITTABLE) ? -errno : 0;
}

static int undo(char *p, size_t size)
{
	return madvise(p, size, MADV_FREE_UNDO) ? -errno : 0;
}

/* Of all processes. */
static long splittable_pages(void)
{
	write_text("/proc/sys/vm/stat_refresh", "1");
	return vm_event("nr_splittable");
}

/*
 * New stamps are as if nothing had ever been marked: who takes back what he has
 * not given changes nothing. Returns how many are gone.
 */
static long marked_pages(char *p, size_t size)
{
	stamp_pages(p, size);
	return take_back(p, size) ?: pages_not(PAGE_OLD, p, size, 0);
}

TEST_F(splittable, is_zero_when_taken_back)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	ASSERT_EQ(0, take_back(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
	EXPECT_EQ(0, marked_pages(self->p, REGION));
	/* Nor is there anything to be zapped. */
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(splittable, stays_until_it_is_needed)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ((long)(REGION / psize()),
		  populated_pages(self->pagemap, self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	EXPECT_EQ(0, undo(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(splittable, goes_when_it_is_needed)
{
	long before = vm_event("splittable_zap");

	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p, REGION));
	EXPECT_LT(before, vm_event("splittable_zap"));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
	EXPECT_EQ(-ENODATA, undo(self->p, REGION));
	EXPECT_EQ(0, marked_pages(self->p, REGION));
}

TEST_F(splittable, stores_in_between_are_lost)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	memset(self->p, 1, REGION / 2);
	ASSERT_EQ(0, take_back(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));

	/* And if it was zapped before. */
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, drop(self->group, self->pagemap, self->p, REGION));
	memset(self->p, 1, REGION / 2);
	ASSERT_EQ(0, take_back(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
}

TEST_F(splittable, half_of_each_folio)
{
	size_t step = variant->folio > 64 << 10 ? variant->folio : 256 << 10;
	size_t half = step / 2;
	bool huge = variant->folio == 2 * MB;

	for (size_t i = 0; i < REGION; i += step)
		ASSERT_EQ(0, mark(self->p + i, half));
	for (size_t i = 0; i < REGION; i += step) {
		ASSERT_EQ(0, take_back(self->p + i, half));
		EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + i, half, i / psize()));
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + i + half, half,
				       (i + half) / psize()));
	}
	if (huge)
		EXPECT_TRUE(check_huge_anon(self->p, REGION,
					    REGION / (2 * MB), 2 * MB));
}

TEST_F(splittable, half_of_each_folio_is_free_when_it_is_needed)
{
	size_t step = variant->folio > 64 << 10 ? variant->folio : 256 << 10;
	size_t half = step / 2;
	long before = group_read(self->group, "memory.stat", "anon"), now = 0;

	for (size_t i = 0; i < REGION; i += step)
		ASSERT_EQ(0, mark(self->p + i, half));
	for (int round = 0; round < ROUNDS; round++) {
		/* A process in the group holds it down to what is in use. */
		group_write(self->group, "memory.reclaim", "1M swappiness=0");
		now = group_read(self->group, "memory.stat", "anon");
		if (before - now > (long)(REGION / 2 - REGION / 16))
			break;
	}
	EXPECT_GT(before - now, (long)(REGION / 2 - REGION / 16));
	for (size_t i = 0; i < REGION; i += step) {
		EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + i, half, i / psize()));
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + i + half, half,
				       (i + half) / psize()));
	}
}

TEST_F(splittable, a_part_is_taken_back)
{
	const size_t from = 3 * MB + 4 * psize(), size = MB;

	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, take_back(self->p + from, size));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + from, size, 0));
	stamp_pages(self->p + from, size);
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p, from));
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p + from + size,
			  REGION - from - size));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + from, size, 0));

	/* The end of one, all of the part, and the start of another. */
	ASSERT_EQ(0, mark(self->p + from, size));
	memset(self->p, 1, REGION);
	ASSERT_EQ(0, take_back(self->p + MB, 6 * MB));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + MB, 6 * MB, 0));
	ASSERT_EQ(0, take_back(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
}

TEST_F(splittable, marks_that_touch_and_overlap)
{
	long before = splittable_pages();

	for (int i = 0; i < 4; i++)
		ASSERT_EQ(0, mark(self->p + 2 * i * MB, MB));
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(0, mark(self->p + (2 * i + 1) * MB, MB));
	ASSERT_EQ(0, mark(self->p + MB / 2, 6 * MB));
	EXPECT_EQ(before + (long)(7 * MB / psize()), splittable_pages());
	EXPECT_EQ(7 << 10, read_value("/proc/self/status", "VmLazy"));
	EXPECT_EQ(7 << 10, read_value("/proc/self/smaps_rollup", "Splittable"));
	ASSERT_EQ(0, undo(self->p, 7 * MB));
	EXPECT_EQ(0, read_value("/proc/self/status", "VmLazy"));
	EXPECT_EQ(0, read_value("/proc/self/smaps_rollup", "Splittable"));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	EXPECT_EQ(before, splittable_pages());
}

TEST_F(splittable, mprotect)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, mprotect(self->p + MB, MB, PROT_READ));
	ASSERT_EQ(0, mprotect(self->p + 4 * MB, MB, PROT_NONE));
	ASSERT_EQ(0, take_back(self->p, REGION));
	ASSERT_EQ(0, mprotect(self->p, REGION, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
	EXPECT_EQ(0, marked_pages(self->p, REGION));
}

TEST_F(splittable, mremap)
{
	char *to = map_aligned(REGION);

	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(0, mark(self->p + MB, 4 * MB));
	ASSERT_EQ(to, mremap(self->p, REGION, REGION,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(0, pages_not(PAGE_OLD, to, MB, 0));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, to + MB, 4 * MB, 0));
	EXPECT_EQ(0, pages_not(PAGE_OLD, to + 5 * MB, 3 * MB, 5 * MB / psize()));
	EXPECT_EQ(0, marked_pages(to, REGION));
	/* Where it was, there is nothing, and nothing marked. */
	ASSERT_EQ(self->p, mmap(self->p, REGION, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
				-1, 0));
	EXPECT_EQ(0, marked_pages(self->p, REGION));

	ASSERT_EQ(0, mark(to, REGION));
	ASSERT_EQ(self->p, mremap(to, REGION, REGION, MREMAP_MAYMOVE |
				  MREMAP_FIXED | MREMAP_DONTUNMAP, self->p));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
	EXPECT_EQ(0, marked_pages(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, to, REGION, 0));
	EXPECT_EQ(0, marked_pages(to, REGION));
	munmap(to, REGION);
}

TEST_F(splittable, munmap_and_map_again)
{
	const int rw = PROT_READ | PROT_WRITE;
	const int fixed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, munmap(self->p + MB, 2 * MB));
	ASSERT_EQ(self->p + MB, mmap(self->p + MB, 2 * MB, rw, fixed, -1, 0));
	ASSERT_EQ(self->p + 4 * MB, mmap(self->p + 4 * MB, MB, rw, fixed, -1, 0));
	stamp_pages(self->p + MB, 2 * MB);
	stamp_pages(self->p + 4 * MB, MB);
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p, MB));
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p + 5 * MB, 3 * MB));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + MB, 2 * MB, 0));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + 4 * MB, MB, 0));
	ASSERT_EQ(0, take_back(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + MB, 2 * MB, 0));
}

TEST_F(splittable, fork)
{
	pid_t pid;

	ASSERT_EQ(0, mark(self->p + MB, 4 * MB));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* In the child it is zapped, and no longer marked. */
		if (pages_not(PAGE_OLD, self->p, MB, 0) ||
		    pages_not(PAGE_ZERO, self->p + MB, 4 * MB, 0) ||
		    pages_not(PAGE_OLD, self->p + 5 * MB, 3 * MB, 5 * MB / psize()))
			_exit(1);
		_exit(marked_pages(self->p, REGION) ? 2 : 0);
	}
	EXPECT_EQ(0, wait_status(pid));
	/* In the parent it is marked as before. */
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	ASSERT_EQ(0, take_back(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, MB, 0));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + MB, 4 * MB, 0));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + 5 * MB, 3 * MB, 5 * MB / psize()));
}

/* What is marked as its process ends is marked no longer. */
TEST_F(splittable, exec_and_exit_and_core)
{
	const char *pattern = "/proc/sys/kernel/core_pattern";
	char old[128];
	long before;
	int status;

	ASSERT_TRUE(read_text(pattern, old, sizeof(old)));
	ASSERT_EQ(0, write_text(pattern, "/dev/null"));
	before = splittable_pages();
	for (int way = 0; way < 3; way++) {
		pid_t pid = fork();

		ASSERT_LE(0, pid);
		if (!pid) {
			setrlimit(RLIMIT_CORE, &(struct rlimit){ -1, -1 });
			if (mark(self->p, REGION))
				_exit(1);
			if (way == 1)
				execl("/bin/true", "true", NULL);
			if (way == 2)
				abort();
			_exit(way);
		}
		status = wait_status(pid);
		EXPECT_TRUE(way == 2 ? WIFSIGNALED(status) : !status);
	}
	write_text(pattern, old);
	EXPECT_EQ(before, splittable_pages());
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(splittable, mlock)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, mlock(self->p + MB, MB));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + MB, MB, 0));
	stamp_pages(self->p + MB, MB);
	EXPECT_EQ(-EINVAL, mark(self->p + MB, MB));
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p, MB));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + MB, MB, 0));
	ASSERT_EQ(0, munlock(self->p + MB, MB));
	ASSERT_EQ(0, take_back(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + MB, MB, 0));

	ASSERT_EQ(0, mark(self->p, REGION));
	if (mlockall(MCL_CURRENT | MCL_ONFAULT))
		SKIP(return, "no mlockall()");
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
	munlockall();
	EXPECT_EQ(0, marked_pages(self->p, REGION));
}

TEST_F(splittable, userfaultfd)
{
	int uffd = uffd_create(0, 0);

	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, uffd_register(uffd, self->p + MB, 2 * MB, true, false, false));
	EXPECT_EQ(0, populated_pages(self->pagemap, self->p + MB, 2 * MB));
	EXPECT_NE(0, populated_pages(self->pagemap, self->p, MB));
	ASSERT_EQ(0, uffd_unregister(uffd, self->p + MB, 2 * MB));
	stamp_pages(self->p + MB, 2 * MB);

	/* Where it is watched, it goes at once. */
	ASSERT_EQ(0, uffd_register(uffd, self->p + MB, 2 * MB, true, false, false));
	ASSERT_EQ(0, mark(self->p + MB, 2 * MB));
	EXPECT_EQ(0, populated_pages(self->pagemap, self->p + MB, 2 * MB));
	ASSERT_EQ(0, uffd_unregister(uffd, self->p + MB, 2 * MB));
	EXPECT_EQ(0, marked_pages(self->p + MB, 2 * MB));
	close(uffd);
}

TEST_F(splittable, other_advice)
{
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, madvise(self->p, MB, MADV_DONTNEED));
	EXPECT_EQ(0, marked_pages(self->p, MB));
	ASSERT_EQ(0, madvise(self->p + 2 * MB, MB, MADV_GUARD_INSTALL));
	ASSERT_EQ(0, madvise(self->p + 2 * MB, MB, MADV_GUARD_REMOVE));
	EXPECT_EQ(0, marked_pages(self->p + 2 * MB, MB));

	/* These change nothing about it. */
	ASSERT_EQ(0, madvise(self->p + 3 * MB, MB, MADV_FREE));
	ASSERT_EQ(0, madvise(self->p + 4 * MB, MB, MADV_COLD));
	ASSERT_EQ(0, madvise(self->p + 5 * MB, MB, MADV_POPULATE_WRITE));
	ASSERT_EQ(0, madvise(self->p + 6 * MB, MB, MADV_PAGEOUT));
	EXPECT_FALSE(pagemap_is_swapped(self->pagemap, self->p + 6 * MB));
	madvise(self->p, REGION, MADV_COLLAPSE);
	EXPECT_EQ(0, pages_broken(self->p + 3 * MB, 5 * MB, 3 * MB / psize()));
	ASSERT_EQ(0, take_back(self->p + 3 * MB, 5 * MB));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p + 3 * MB, 5 * MB, 0));
}

TEST_F(splittable, undo_of_what_madv_free_has_marked_too)
{
	char *drain = map_aligned(2 * MB);

	ASSERT_NE(MAP_FAILED, drain);
	ASSERT_EQ(0, madvise(self->p, REGION, MADV_FREE));
	madvise(drain, psize(), MADV_FREE);
	ASSERT_EQ(0, mark(self->p, REGION));
	if (undo(self->p, REGION) == 0) {
		reclaim_group(self->group);
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	}
	munmap(drain, 2 * MB);
}

TEST_F(splittable, undo_of_madv_free)
{
	char *drain = map_aligned(2 * MB);

	ASSERT_NE(MAP_FAILED, drain);
	/* Of one page that waits to be marked in a batch of this CPU. */
	ASSERT_EQ(0, madvise(self->p, psize(), MADV_FREE));
	ASSERT_EQ(0, undo(self->p, psize()));
	ASSERT_EQ(0, madvise(self->p + MB, REGION - MB, MADV_FREE));
	madvise(drain, psize(), MADV_FREE);
	ASSERT_EQ(0, undo(self->p + MB, REGION - MB));
	for (int round = 0; round < ROUNDS / 3; round++)
		reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));

	ASSERT_EQ(0, madvise(self->p, REGION, MADV_FREE));
	ASSERT_EQ(0, madvise(self->p + 3 * MB, psize(), MADV_DONTNEED));
	EXPECT_EQ(-ENODATA, undo(self->p, REGION));
	EXPECT_EQ(0, undo(self->p, 3 * MB));
	EXPECT_EQ(1, pages_not(PAGE_OLD, self->p, REGION, 0));
	munmap(drain, 2 * MB);
}

TEST_F(splittable, memory_max_is_no_oom)
{
	char *p;

	ASSERT_EQ(0, group_write(self->group, "memory.swap.max", "0"));
	ASSERT_EQ(0, group_write(self->group, "memory.max", "33554432"));
	p = map_aligned(64 * MB);
	ASSERT_NE(MAP_FAILED, p);
	madvise(p, 64 * MB, variant->folio ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	/* All that it has, in one mark; then twice what it may have. */
	ASSERT_EQ(0, mark(self->p, REGION));
	for (size_t i = 0; i < 64 * MB; i += 2 * MB) {
		memset(p + i, 1, 2 * MB);
		ASSERT_EQ(0, mark(p + i, 2 * MB));
	}
	EXPECT_EQ(0, group_read(self->group, "memory.events", "oom_kill"));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	munmap(p, 64 * MB);
}

/* What it marks is found by reclaim of the group in which it is now. */
TEST_F(splittable, moves_to_another_group)
{
	char other[80];

	ASSERT_EQ(0, mark(self->p, REGION / 2));
	snprintf(other, sizeof(other), "%s_other", self->group);
	ASSERT_EQ(0, make_dir(other));
	ASSERT_EQ(0, group_write(other, "cgroup.procs", "0"));
	EXPECT_EQ((long)REGION / 2,
		  group_read(self->group, "memory.stat", "splittable"));
	ASSERT_EQ(0, mark(self->p + REGION / 2, REGION / 2));
	EXPECT_EQ((long)REGION, group_read(other, "memory.stat", "splittable"));
	EXPECT_EQ(0, group_read(self->group, "memory.stat", "splittable"));
	EXPECT_EQ(0, drop(other, self->pagemap, self->p, REGION));
	ASSERT_EQ(0, take_back(self->p, REGION));

	/* Of a group that is gone, its parent has them. */
	stamp_pages(self->p, REGION);
	ASSERT_EQ(0, mark(self->p, REGION));
	ASSERT_EQ(0, group_write(self->group, "cgroup.procs", "0"));
	group_remove(other);
	EXPECT_EQ(0, undo(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	ASSERT_EQ(0, mark(self->p, REGION));
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p, REGION));
}

TEST_F(splittable, limits)
{
	char *end = self->p + REGION;
	int kept = 0;

	/* Too short, and too many: zapped at once. */
	ASSERT_EQ(0, write_text(KNOBS "min_range_kb", "64"));
	ASSERT_EQ(0, mark(self->p, 60 << 10));
	EXPECT_EQ(0, populated_pages(self->pagemap, self->p, 60 << 10));
	ASSERT_EQ(0, write_text(KNOBS "max_ranges_per_mm", "4"));
	for (char *p = self->p + MB; p < end; p += MB)
		ASSERT_EQ(0, mark(p, 64 << 10));
	/* Fewer where a node was short of memory at one of the first calls. */
	for (char *p = self->p + MB; p < end; p += MB)
		kept += populated_pages(self->pagemap, p, 64 << 10) > 0;
	EXPECT_GE(4, kept);
	EXPECT_LT(0, kept);
	ASSERT_EQ(0, write_text(KNOBS "max_ranges_per_mm", "4096"));
	ASSERT_EQ(0, take_back(self->p, REGION));
	for (char *p = self->p + MB; p < end; p += MB)
		EXPECT_EQ(0, pages_not(PAGE_ZERO, p, 64 << 10, 0));
}

/* There is one range too many then, but nothing is lost or forgotten. */
TEST_F(splittable, cut_beyond_the_limit)
{
	const size_t from = 2 * MB, size = MB;
	char *p = self->p + from;

	ASSERT_EQ(0, write_text(KNOBS "max_ranges_per_mm", "1"));
	for (int way = 0; way < 3; way++) {
		stamp_pages(self->p, REGION);
		ASSERT_EQ(0, mark(self->p, REGION - MB));
		switch (way) {
		case 0:
			EXPECT_EQ(0, take_back(p, size));
			EXPECT_EQ(0, pages_not(PAGE_ZERO, p, size, 0));
			break;
		case 1:
			EXPECT_EQ(0, undo(p, size));
			EXPECT_EQ(0, pages_not(PAGE_OLD, p, size, from / psize()));
			break;
		case 2:
			EXPECT_EQ(0, madvise(p, size, MADV_DONTNEED));
			EXPECT_EQ(0, pages_not(PAGE_ZERO, p, size, 0));
			break;
		}
		EXPECT_EQ(6 << 10, read_value("/proc/self/status", "VmLazy"));
		EXPECT_EQ(0, marked_pages(p, size));
		EXPECT_EQ(0, pages_not(PAGE_OLD, p + size, 5 * MB,
				       (from + size) / psize()));
		ASSERT_EQ(0, take_back(self->p, REGION));
		EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, from, 0));
		EXPECT_EQ(0, pages_not(PAGE_ZERO, p + size, 4 * MB, 0));
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + 7 * MB, MB,
				       7 * MB / psize()));
		EXPECT_EQ(0, read_value("/proc/self/status", "VmLazy"));
	}
	ASSERT_EQ(0, write_text(KNOBS "max_ranges_per_mm", "4096"));
}

/* Those who would only make work of marked memory pass over it. */
FIXTURE(passed_over)
{
	struct lazyfree_test t;
	char *p;
	time_t until;
};

FIXTURE_SETUP(passed_over)
{
	const char *missing;

	if (access(KNOBS "min_age_ms", F_OK))
		SKIP(return, "no " KNOBS ": CONFIG_MADV_SPLITTABLE");
	missing = lazyfree_setup(&self->t, 0, "n");
	if (missing)
		SKIP(return, "%s", missing);
	self->p = self->t.p;
	self->until = time(NULL) + PATIENCE / 3;
}

FIXTURE_TEARDOWN(passed_over)
{
	lazyfree_teardown(&self->t);
}

/* So much of the region, exactly. */
static bool has_huge(char *p, size_t size)
{
	return check_huge_anon(p, REGION, size / (2 * MB), 2 * MB);
}

TEST_F(passed_over, by_khugepaged)
{
	struct thp_settings settings;
	unsigned long scans;

	if (!thp_available())
		SKIP(return, "no huge pages");
	thp_read_settings(&settings);
	settings.hugepages[__builtin_ctzl(2 * MB / psize())].enabled = THP_MADVISE;
	settings.khugepaged.defrag = 1;
	settings.khugepaged.scan_sleep_millisecs = 1;
	settings.khugepaged.alloc_sleep_millisecs = 1;
	settings.khugepaged.pages_to_scan = REGION / psize();
	thp_push_settings(&settings);
	ASSERT_EQ(0, mark(self->p, REGION / 2));
	madvise(self->p, REGION, MADV_HUGEPAGE);
	wait_until(self->until, has_huge(self->p, REGION / 2));
	scans = thp_read_num("khugepaged/full_scans");
	wait_until(self->until, thp_read_num("khugepaged/full_scans") >= scans + 2);
	EXPECT_TRUE(has_huge(self->p, REGION / 2));
	EXPECT_EQ(0, undo(self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	EXPECT_TRUE(wait_until(self->until, has_huge(self->p, REGION)));
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(passed_over, by_ksm)
{
	const long half = REGION / 2 / psize();

	memset(self->p, 1, REGION);
	ASSERT_EQ(0, mark(self->p, REGION / 2));
	if (madvise(self->p, REGION, MADV_MERGEABLE) || ksm_start() < 0)
		SKIP(return, "no KSM");
	EXPECT_EQ(half, ksm_get_self_merging_pages());
	EXPECT_EQ(0, undo(self->p, REGION));
	EXPECT_EQ(0, ksm_start());
	EXPECT_EQ(2 * half, ksm_get_self_merging_pages());
	ksm_stop();
	for (size_t i = 0; i < REGION; i++)
		ASSERT_EQ(1, self->p[i]);
}

/*
 * Pages that KSM has seen are in its unstable tree, as no two are alike. Their
 * items must not stay there while the pages are splittable: KSM frees the tree
 * after each scan, and panics if it meets an item of an old one.
 */
TEST_F(passed_over, by_ksm_with_pages_in_the_unstable_tree)
{
	const size_t part = REGION / 4;

	stamp_pages(self->p, REGION);
	if (madvise(self->p, REGION, MADV_MERGEABLE) || ksm_start() < 0)
		SKIP(return, "no KSM");
	for (size_t i = 0; i < REGION; i += part) {
		ASSERT_EQ(0, mark(self->p + i, part));
		EXPECT_EQ(0, ksm_start());
	}
	EXPECT_EQ(0, undo(self->p, REGION));
	EXPECT_EQ(0, ksm_start());
	EXPECT_EQ(0, ksm_get_self_merging_pages());
	ksm_stop();
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

/* Until NUMA balancing has gone over this address space twice. */
static bool be_scanned(char *p, size_t size, time_t until)
{
	while (read_value("/proc/self/sched", "mm->numa_scan_seq") < 2) {
		if (time(NULL) > until)
			return false;
		for (int round = 0; round < 200; round++)
			for (size_t i = 0; i < size; i += psize())
				FORCE_READ(p[i]);
	}
	return true;
}

static void *do_nothing(void *arg)
{
	while (true)
		pause();
	return NULL;
}

TEST_F(passed_over, by_numa_balancing)
{
	const char *enable = "/proc/sys/kernel/numa_balancing";
	const long pages = REGION / psize();
	pthread_t other;
	long updates[3];

	if (access("/sys/devices/system/node/node1", F_OK) ||
	    write_text(enable, "1"))
		SKIP(return, "needs two nodes and CONFIG_NUMA_BALANCING");
	/* The first passes are over all memory, whoever uses it. */
	for (int marked = 0; marked < 2; marked++) {
		pid_t pid = fork();

		ASSERT_LE(0, pid);
		if (!pid) {
			/* Of a single thread only what is remote is scanned. */
			if (pthread_create(&other, NULL, do_nothing, NULL))
				_exit(3);
			stamp_pages(self->p, REGION);
			if (marked && mark(self->p, REGION))
				_exit(1);
			_exit(be_scanned(self->p, REGION, self->until) ? 0 : 2);
		}
		updates[marked] = group_read(self->t.group, "memory.stat",
					     "numa_pte_updates");
		EXPECT_EQ(0, wait_status(pid));
	}
	updates[2] = group_read(self->t.group, "memory.stat", "numa_pte_updates");
	write_text(enable, "0");
	EXPECT_LE(pages, updates[1] - updates[0]);
	EXPECT_GT(pages, updates[2] - updates[1]);
}

/*
 * Threads that mark, take back, undo and write, each in pages of its own, as
 * others fork, protect, move and reclaim.
 */

/* Neighbours of the pages in use come and go. */
static void *map_all_the_time(void *arg)
{
	struct race *race = arg;
	const int rw = PROT_READ | PROT_WRITE;
	char *p = race->p + 6 * MB, *to = map_aligned(2 * MB);
	unsigned int seed = 1;

	while (!atomic_load(&race->stop)) {
		size_t from = rand_r(&seed) % 256 * psize();
		int step = rand_r(&seed) % 4;

		stamp_pages(p, 2 * MB);
		mark(p, 2 * MB);
		switch (step) {
		case 0:
			munmap(p + from, MB);
			mmap(p + from, MB, rw, MAP_PRIVATE | MAP_ANONYMOUS |
			     MAP_FIXED, -1, 0);
			break;
		case 1:
			mprotect(p + from, MB, PROT_READ);
			mprotect(p + from, MB, rw);
			break;
		case 2:
			mremap(p, 2 * MB, 2 * MB,
			       MREMAP_MAYMOVE | MREMAP_FIXED, to);
			mmap(p, 2 * MB, rw, MAP_PRIVATE | MAP_ANONYMOUS |
			     MAP_FIXED, -1, 0);
			break;
		case 3:
			mlock(p + from, MB);
			munlock(p + from, MB);
			break;
		}
		take_back(p, 2 * MB);
		if (pages_not(PAGE_ZERO, p, 2 * MB, 0) &&
		    atomic_fetch_add(&race->errors, 1) < 3)
			fprintf(TH_LOG_STREAM, "# %ld pages not zero after step %d\n",
				pages_not(PAGE_ZERO, p, 2 * MB, 0), step);
	}
	munmap(to, 2 * MB);
	return NULL;
}

/* What the owner of a page knows of it. */
enum knowledge {
	STAMPED,	/* in use: it has its stamp */
	MARKED,		/* had it, and is marked since: it may be zero */
	UNKNOWN,	/* was taken back: stamp or zero, it stays so */
	UNKNOWN_MARKED,
};

static void expect(struct user *u, const char *when, size_t i, bool old,
		   bool zero)
{
	enum page_state state = user_page_state(u, i);

	if ((state == PAGE_OLD && old) || (state == PAGE_ZERO && zero))
		return;
	if (atomic_fetch_add(&u->race->errors, 1) < 3)
		fprintf(TH_LOG_STREAM, "# %s: page %zu is %s, known was %d\n",
			when, u->from + i, state == PAGE_OLD ? "old" :
			state == PAGE_ZERO ? "zero" : "neither", u->knows[i]);
}

static void user_mark(struct user *u, size_t first, size_t n)
{
	mark(user_page(u, first), n * psize());
	for (size_t i = first; i < first + n; i++)
		u->knows[i] |= MARKED;
}

/* Each page that was marked is zero now. */
static void user_take_back(struct user *u, size_t first, size_t n)
{
	take_back(user_page(u, first), n * psize());
	for (size_t i = first; i < first + n; i++) {
		if (!(u->knows[i] & MARKED))
			continue;
		expect(u, "taken back", i, false, true);
		u->knows[i] = UNKNOWN;
	}
}

/* Nothing is zero that was not, or the call says so. */
static void user_undo(struct user *u, size_t first, size_t n)
{
	int ret = undo(user_page(u, first), n * psize());

	for (size_t i = first; i < first + n; i++) {
		if (u->knows[i] == MARKED)
			expect(u, ret ? "undone, with a hole" : "undone", i, true, ret);
		if (u->knows[i] & MARKED)
			u->knows[i] = UNKNOWN;
	}
}

static void user_write(struct user *u, size_t first, size_t n)
{
	user_take_back(u, first, n);
	for (size_t i = first; i < first + n; i++) {
		user_stamp(u, i);
		u->knows[i] = STAMPED;
	}
}

static void *use_pages(void *arg)
{
	void (* const steps[])(struct user *u, size_t first, size_t n) = {
		user_mark, user_mark, user_take_back, user_undo, user_write
	};
	struct user *u = arg;

	while (u->rounds--) {
		size_t first = rand_r(&u->seed) % u->nr;
		size_t n = 1 + rand_r(&u->seed) % (u->nr - first);

		steps[rand_r(&u->seed) % ARRAY_SIZE(steps)](u, first, n);
		for (size_t i = 0; i < u->nr; i++)
			expect(u, "later", i, true, u->knows[i] != STAMPED);
	}
	return NULL;
}

TEST_F(splittable, race)
{
	struct race race = { .p = self->p, .group = self->group };
	void *(* const disturb[])(void *) = {
		reclaim_all_the_time, fork_all_the_time, map_all_the_time
	};

	ASSERT_EQ(0, write_text(KNOBS "min_range_kb", "4"));
	ASSERT_EQ(0, run_race(&race, 6 * MB, 80, use_pages, disturb, 3));
	write_text(KNOBS "min_range_kb", "64");
	EXPECT_EQ(0UL, atomic_load(&race.errors));
}

/* Where it cannot be noted it is what MADV_DONTNEED is, and says. */
TEST(of_other_mappings)
{
	const int rw = PROT_READ | PROT_WRITE;
	const size_t size = MB;
	int fd = memfd_create("splittable", 0);
	char *shared, *private;

	if (access(KNOBS, F_OK))
		SKIP(return, "no " KNOBS ": CONFIG_MADV_SPLITTABLE");
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, size));
	shared = mmap(NULL, size, rw, MAP_SHARED, fd, 0);
	private = mmap(NULL, size, rw, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_NE(MAP_FAILED, private);
	stamp_pages(shared, size);
	memset(private, 1, size);
	EXPECT_EQ(0, mark(shared, size));
	EXPECT_EQ(0, mark(private, size));
	EXPECT_EQ(0, take_back(shared, size));
	EXPECT_EQ(0, take_back(private, size));
	EXPECT_EQ(0, pages_not(PAGE_OLD, shared, size, 0));
	EXPECT_EQ(0, pages_not(PAGE_OLD, private, size, 0));
	EXPECT_EQ(-EINVAL, undo(shared, size));
	EXPECT_EQ(-EINVAL, undo(private, size));

	EXPECT_EQ(-EINVAL, mark(shared + 1, size));
	EXPECT_EQ(0, mark(shared, 0));
	munmap(shared + psize(), psize());
	EXPECT_EQ(-ENOMEM, mark(shared, size));
	close(fd);
}

TEST(sealed)
{
	char *p = map_aligned(2 * MB);

	if (access(KNOBS, F_OK))
		SKIP(return, "no " KNOBS ": CONFIG_MADV_SPLITTABLE");
	ASSERT_NE(MAP_FAILED, p);
	stamp_pages(p, 2 * MB);
	ASSERT_EQ(0, mprotect(p, 2 * MB, PROT_READ));
	if (syscall(__NR_mseal, p, 2 * MB, 0))
		SKIP(return, "no mseal()");
	EXPECT_EQ(-EPERM, mark(p, 2 * MB));
	EXPECT_EQ(-EPERM, take_back(p, 2 * MB));
	EXPECT_EQ(0, undo(p, 2 * MB));
	EXPECT_EQ(0, pages_not(PAGE_OLD, p, 2 * MB, 0));
}

TEST(of_a_vector)
{
	char *p = map_aligned(8 * MB);
	struct iovec iov[4];
	int pidfd = syscall(__NR_pidfd_open, getpid(), 0);

	if (access(KNOBS, F_OK))
		SKIP(return, "no " KNOBS ": CONFIG_MADV_SPLITTABLE");
	ASSERT_LE(0, pidfd);
	ASSERT_NE(MAP_FAILED, p);
	stamp_pages(p, 8 * MB);
	for (int i = 0; i < 4; i++)
		iov[i] = (struct iovec){ p + 2 * i * MB, MB };
	ASSERT_EQ(4 * (long)MB, syscall(__NR_process_madvise, pidfd, iov, 4,
					MADV_SPLITTABLE, 0));
	ASSERT_EQ(4 * (long)MB, syscall(__NR_process_madvise, pidfd, iov, 4,
					MADV_UNSPLITTABLE, 0));
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(0, pages_not(PAGE_ZERO, p + 2 * i * MB, MB, 0));
		EXPECT_EQ(0, pages_not(PAGE_OLD, p + (2 * i + 1) * MB, MB,
				       (2 * i + 1) * MB / psize()));
	}

	/* It ends at what is not there any more, or tells of that. */
	stamp_pages(p, 8 * MB);
	ASSERT_EQ(0, madvise(p + 2 * MB, MB, MADV_DONTNEED));
	EXPECT_EQ((long)MB, syscall(__NR_process_madvise, pidfd, iov, 4,
				    MADV_FREE_UNDO, 0));
	EXPECT_EQ(-1, syscall(__NR_process_madvise, pidfd, iov + 1, 3,
			      MADV_FREE_UNDO, 0));
	EXPECT_EQ(ENODATA, errno);
	munmap(p, 8 * MB);
	close(pidfd);
}

/* One request, without liburing. Returns what came of it. */
static int io_uring_madvise(int ring, struct io_uring_params *params, char *p,
			    size_t size, int advice)
{
	const int rw = PROT_READ | PROT_WRITE;
	char *sq = mmap(NULL, 2 * psize(), rw, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	struct io_uring_sqe *sqe = mmap(NULL, psize(), rw, MAP_SHARED, ring,
					IORING_OFF_SQES);
	unsigned int *tail, *head, mask;
	struct io_uring_cqe *cqe;
	int ret = -EIO;

	if (sq == MAP_FAILED || sqe == MAP_FAILED)
		return -errno;
	tail = (unsigned int *)(sq + params->sq_off.tail);
	mask = *(unsigned int *)(sq + params->sq_off.ring_mask);
	*sqe = (struct io_uring_sqe) {
		.opcode = IORING_OP_MADVISE,
		.addr = (unsigned long)p,
		.len = size,
		.fadvise_advice = advice,
	};
	((unsigned int *)(sq + params->sq_off.array))[*tail & mask] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0) == 1) {
		head = (unsigned int *)(sq + params->cq_off.head);
		mask = *(unsigned int *)(sq + params->cq_off.ring_mask);
		cqe = (struct io_uring_cqe *)(sq + params->cq_off.cqes);
		ret = cqe[*head & mask].res;
		__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	}
	munmap(sqe, psize());
	munmap(sq, 2 * psize());

	return ret;
}

TEST(of_io_uring)
{
	struct io_uring_params params = {};
	int ring = syscall(__NR_io_uring_setup, 2, &params);
	char *p = map_aligned(2 * MB);

	if (access(KNOBS, F_OK))
		SKIP(return, "no " KNOBS ": CONFIG_MADV_SPLITTABLE");
	if (ring < 0)
		SKIP(return, "no io_uring");
	ASSERT_NE(MAP_FAILED, p);
	stamp_pages(p, 2 * MB);
	EXPECT_EQ(0, io_uring_madvise(ring, &params, p, MB, MADV_SPLITTABLE));
	EXPECT_EQ(1 << 10, read_value("/proc/self/status", "VmLazy"));
	EXPECT_EQ(0, io_uring_madvise(ring, &params, p, MB, MADV_UNSPLITTABLE));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, p, MB, 0));
	EXPECT_EQ(0, pages_not(PAGE_OLD, p + MB, MB, MB / psize()));
	EXPECT_EQ(-ENODATA, io_uring_madvise(ring, &params, p, MB, MADV_FREE_UNDO));
	munmap(p, 2 * MB);
	close(ring);
}

TEST(knobs_take_their_range_and_no_more)
{
	static const struct setting_texts values[] = {
		{ KNOBS "min_age_ms", { "0", "3600000", "1000" },
		  { "-1", "3600001", "1.5", "x", "99999999999" } },
		{ KNOBS "max_ranges_per_mm", { "0", "1048576", "4096" },
		  { "-1", "1048577", "1 2", "x", "99999999999" } },
		{ KNOBS "min_range_kb", { "4", "1048576", "64" },
		  { "-1", "3", "0", "x", "1048577" } },
		{ KNOBS "policy", { "first", "fair", "fair" },
		  { "0", "fa", "fair first", "x", "[fair]" } },
	};

	if (access(KNOBS, F_OK))
		SKIP(return, "no " KNOBS);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		check_texts(_metadata, &values[i]);
}

TEST_HARNESS_MAIN
