// SPDX-License-Identifier: GPL-2.0
/*
 * MADV_FREE: what was freed reads as before or as zero, a write keeps it, and
 * what was not freed stays as it is, whoever shares it or reclaims it.
 *
 * All pages carry stamps. Reclaim is asked for by memory.reclaim, of a memory
 * cgroup for each test.
 */
#define _GNU_SOURCE
#include <sys/uio.h>
#include "lazyfree_util.h"

FIXTURE(madv_free)
{
	struct lazyfree_test t;
	char *p;
	char *drain;
	const char *group;
	int pagemap;
};

/* Sizes of folios, and either LRU. */
FIXTURE_VARIANT(madv_free)
{
	size_t folio;		/* bytes */
	const char *lru_gen;	/* of LRU_GEN */
};

FIXTURE_VARIANT_ADD(madv_free, small) { 0, "n" };
FIXTURE_VARIANT_ADD(madv_free, mthp_lru_gen) { 64 << 10, "y" };
FIXTURE_VARIANT_ADD(madv_free, thp) { 2 << 20, "n" };
FIXTURE_VARIANT_ADD(madv_free, thp_lru_gen) { 2 << 20, "y" };

FIXTURE_SETUP(madv_free)
{
	const char *missing = lazyfree_setup(&self->t, variant->folio,
					     variant->lru_gen);

	if (missing)
		SKIP(return, "%s", missing);
	self->p = self->t.p;
	self->pagemap = self->t.pagemap;
	self->group = self->t.group;
	self->drain = map_anon(psize());
	ASSERT_NE(MAP_FAILED, self->drain);
}

FIXTURE_TEARDOWN(madv_free)
{
	lazyfree_teardown(&self->t);
}

/* Frees, and lets no page wait in a batch. */
static int madv_free(char *p, size_t size, char *drain)
{
	int ret = madvise(p, size, MADV_FREE);

	return ret ? -errno : madvise(drain, psize(), MADV_FREE);
}

TEST_F(madv_free, reads_zero_or_old)
{
	ASSERT_EQ(0, madvise(self->p, REGION, MADV_FREE));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	/* Again, when it is free already. */
	ASSERT_EQ(0, madvise(self->p, REGION, MADV_FREE));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
}

TEST_F(madv_free, reclaimed_reads_zero)
{
	long before = vm_event("pglazyfreed");

	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p, REGION));
	EXPECT_LE(before + (long)(REGION / psize()),
		  vm_event("pglazyfreed"));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
	stamp_pages(self->p, REGION);
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(madv_free, partly_reclaimed_never_comes_back)
{
	bool *zero = calloc(REGION / psize(), sizeof(*zero));

	ASSERT_NE(NULL, zero);
	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
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

TEST_F(madv_free, a_read_does_not_keep)
{
	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
	force_read_pages(self->p, REGION / psize(), psize());
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p, REGION));
}

TEST_F(madv_free, a_write_keeps)
{
	size_t step = (variant->folio ?: psize()) * 2;
	unsigned long word = 0xf00d;

	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
	/* A word at the end of every other folio */
	for (size_t i = 0; i < REGION; i += step)
		*(unsigned long *)(self->p + i + step / 2 - sizeof(word)) = word;
	for (int round = 0; round < 5; round++)
		reclaim_group(self->group);

	for (size_t i = 0; i < REGION; i += step) {
		size_t last = i + step / 2 - psize();
		unsigned long *written = (unsigned long *)
			(self->p + i + step / 2 - sizeof(word));

		ASSERT_EQ(word, *written);
		/* Nothing was reclaimed in between, so all else is there. */
		*written = stamp_of(last / psize()) + psize() - sizeof(word);
		ASSERT_EQ(PAGE_OLD,
			  page_state(self->p + last, stamp_of(last / psize())));
	}
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
}

TEST_F(madv_free, half_of_each_folio)
{
	size_t step = variant->folio ?: 2 * psize();

	for (size_t i = 0; i < REGION; i += step)
		ASSERT_EQ(0, madv_free(self->p + i, step / 2, self->drain));
	for (int round = 0; round < 3; round++)
		reclaim_group(self->group);
	for (size_t i = 0; i < REGION; i += step) {
		size_t half = i + step / 2;

		EXPECT_EQ(0, pages_broken(self->p + i, step / 2, i / psize()));
		EXPECT_EQ(0, pages_not(PAGE_OLD, self->p + half, step / 2, half / psize()));
	}
}

TEST_F(madv_free, of_a_parent_leaves_the_child_its_pages)
{
	int begin[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(begin));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(begin[1]);
		if (read(begin[0], &c, 1) != 0)
			_exit(2);
		_exit(pages_not(PAGE_OLD, self->p, REGION, 0) != 0);
	}
	EXPECT_EQ(0, madv_free(self->p, REGION, self->drain));
	for (int round = 0; round < 3; round++)
		reclaim_group(self->group);
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	close(begin[1]);
	EXPECT_EQ(0, wait_status(pid));
}

TEST_F(madv_free, then_fork)
{
	pid_t pid;

	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (pages_broken(self->p, REGION, 0))
			_exit(1);
		/* What the child writes is its own, and stays. */
		stamp_range(self->p, REGION, stamp_of(1));
		for (int round = 0; round < 3; round++)
			reclaim_group(self->group);
		_exit(pages_not(PAGE_OLD, self->p, REGION, 1) ? 2 : 0);
	}
	EXPECT_EQ(0, wait_status(pid));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	stamp_pages(self->p, REGION);
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(madv_free, mlock)
{
	ASSERT_EQ(0, mlock(self->p, REGION));
	EXPECT_EQ(-EINVAL, madv_free(self->p, REGION, self->drain));
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	ASSERT_EQ(0, munlock(self->p, REGION));

	/* Locked after it was freed: that faults it in as a write does. */
	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
	ASSERT_EQ(0, mlock(self->p, REGION));
	for (int round = 0; round < 3; round++)
		reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
	EXPECT_EQ((long)(REGION / psize()),
		  populated_pages(self->pagemap, self->p, REGION));
	ASSERT_EQ(0, munlock(self->p, REGION));
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, self->p, REGION, 0));
}

TEST_F(madv_free, mprotect_and_mremap)
{
	char *to = map_aligned(REGION);

	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
	ASSERT_EQ(0, mprotect(self->p, REGION, PROT_READ));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	ASSERT_EQ(0, mprotect(self->p, REGION, PROT_READ | PROT_WRITE));
	ASSERT_EQ(to, mremap(self->p, REGION, REGION,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(0, pages_broken(to, REGION, 0));
	/* It has not become anything else by that. */
	EXPECT_EQ(0, drop(self->group, self->pagemap, to, REGION));
	stamp_pages(to, REGION);
	reclaim_group(self->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, to, REGION, 0));
	munmap(to, REGION);
}

TEST_F(madv_free, then_dontneed_and_collapse)
{
	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
	ASSERT_EQ(0, madvise(self->p, REGION / 2, MADV_DONTNEED));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION / 2, 0));
	/* It may refuse; it may not make anything up. */
	madvise(self->p, REGION, MADV_COLLAPSE);
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION / 2, 0));
	EXPECT_EQ(0, pages_broken(self->p + REGION / 2, REGION / 2,
				  REGION / 2 / psize()));
}

TEST_F(madv_free, a_reference_keeps)
{
	struct iovec iov = { self->p, 4 * psize() };
	char *copy = malloc(4 * psize());
	int fds[2];

	ASSERT_NE(NULL, copy);
	ASSERT_EQ(0, pipe(fds));
	if (vmsplice(fds[1], &iov, 1, 0) != (ssize_t)iov.iov_len)
		SKIP(return, "no vmsplice()");
	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
	for (int round = 0; round < 3; round++)
		reclaim_group(self->group);
	/* The pipe's pages are those of then. */
	ASSERT_EQ((ssize_t)iov.iov_len, read(fds[0], copy, iov.iov_len));
	EXPECT_EQ(0, pages_not(PAGE_OLD, copy, iov.iov_len, 0));
	EXPECT_EQ(0, pages_broken(self->p, REGION, 0));
	free(copy);
}

TEST_F(madv_free, of_what_is_swapped_out)
{
	for (int round = 0; round < ROUNDS; round++)
		ASSERT_EQ(0, madvise(self->p, REGION, MADV_PAGEOUT));
	if (read_value("/proc/self/status", "VmSwap") < (long)(REGION / 2048))
		SKIP(return, "no swap");
	/* Its swap is given back at once. */
	ASSERT_EQ(0, madv_free(self->p, REGION, self->drain));
	EXPECT_EQ(0, read_value("/proc/self/status", "VmSwap"));
	EXPECT_EQ(0, drop(self->group, self->pagemap, self->p, REGION));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, self->p, REGION, 0));
}

TEST_F(madv_free, memory_max_is_no_oom)
{
	char *p;

	/* Twice what it may have, all of it free as soon as written. */
	ASSERT_EQ(0, group_write(self->group, "memory.swap.max", "0"));
	ASSERT_EQ(0, group_write(self->group, "memory.max", "33554432"));
	p = map_aligned(64 * MB);
	ASSERT_NE(MAP_FAILED, p);
	if (variant->folio)
		madvise(p, 64 * MB, MADV_HUGEPAGE);
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

/* Frees, writes and looks at its own part of the pages. */
static void *use_pages(void *arg)
{
	struct user *u = arg;
	char *freed = u->knows;

	while (u->rounds--) {
		size_t first = rand_r(&u->seed) % u->nr;
		size_t n = 1 + rand_r(&u->seed) % (u->nr - first);

		if (rand_r(&u->seed) & 1) {
			madvise(user_page(u, first), n * psize(), MADV_FREE);
			memset(freed + first, true, n);
		} else {
			for (size_t i = first; i < first + n; i++) {
				user_stamp(u, i);
				freed[i] = false;
			}
		}
		for (size_t i = 0; i < u->nr; i++) {
			enum page_state s = user_page_state(u, i);

			if (s == PAGE_OTHER || (s == PAGE_ZERO && !freed[i]))
				atomic_fetch_add(&u->race->errors, 1);
		}
	}
	return NULL;
}

TEST_F(madv_free, race)
{
	struct race race = { .p = self->p, .group = self->group };
	void *(* const disturb[])(void *) = {
		reclaim_all_the_time, fork_all_the_time
	};

	ASSERT_EQ(0, run_race(&race, REGION, 60, use_pages, disturb, 2));
	EXPECT_EQ(0UL, atomic_load(&race.errors));
}

TEST(refused_ranges)
{
	char *p = map_anon(4 * psize());
	char *shared = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fd = open("/proc/self/exe", O_RDONLY);
	char *file = mmap(NULL, psize(), PROT_READ, MAP_PRIVATE, fd, 0);

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_NE(MAP_FAILED, file);
	EXPECT_EQ(-1, madvise(p + 1, psize(), MADV_FREE));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, madvise(shared, psize(), MADV_FREE));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, madvise(file, psize(), MADV_FREE));
	EXPECT_EQ(EINVAL, errno);

	/* What is mapped is freed, the hole is told. */
	munmap(p + psize(), psize());
	EXPECT_EQ(-1, madvise(p, 4 * psize(), MADV_FREE));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(0, madvise(p, 0, MADV_FREE));
	close(fd);
}

static void *free_pages(void *arg)
{
	return (void *)(long)madvise(arg, 2 * psize(), MADV_FREE);
}

TEST(userfaultfd_is_told)
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

	/* madvise() waits until somebody has read the event. */
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
