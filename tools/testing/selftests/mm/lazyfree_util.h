/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What tests of MADV_FREE and its kin share: memory of each size of folios, a
 * memory cgroup of its own to reclaim, by either LRU, and threads for races.
 */
#ifndef LAZYFREE_UTIL_H
#define LAZYFREE_UTIL_H

#include <pthread.h>
#include <stdatomic.h>
#include "harness_util.h"
#include "hugepage_settings.h"

#define LRU_GEN		"/sys/kernel/mm/lru_gen/enabled"
#define REGION		(8 * MB)
#define PATIENCE	300	/* seconds, for debug kernels in emulators */
#define ROUNDS		30	/* of reclaim, until nothing is left */

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	PATIENCE

/* The stamp of the first word of a page */
static inline unsigned long stamp_of(size_t page)
{
	return 0x5afe000000000000UL + page * psize();
}

/* A region's memory; its first page is page 0. */
static inline void stamp_pages(char *p, size_t size)
{
	stamp_range(p, size, stamp_of(0));
}

static inline long populated_pages(int pagemap, char *p, size_t size)
{
	long n = 0;

	for (size_t i = 0; i < size; i += psize())
		n += pagemap_is_populated(pagemap, p + i);

	return n;
}

static inline void reclaim_group(const char *group)
{
	/* EAGAIN if there is not so much. */
	group_write(group, "memory.reclaim", "64M");
}

/* Until nothing of the range is left, or it takes too long. */
static inline long drop(const char *group, int pagemap, char *p, size_t size)
{
	long left = 0;

	for (int i = 0; i < ROUNDS; i++) {
		reclaim_group(group);
		left = populated_pages(pagemap, p, size);
		if (!left)
			break;
	}

	return left;
}

/* Pages of the range, which begins with page @first, that are anything else. */
static inline long pages_not(enum page_state state, char *p, size_t size,
			     size_t first)
{
	return size / psize() - count_pages(p, size, stamp_of(first), state);
}

/* Neither as they were nor zero */
static inline long pages_broken(char *p, size_t size, size_t first)
{
	return count_pages(p, size, stamp_of(first), PAGE_OTHER);
}

/* A test's memory, @p of REGION bytes, and what has to be put back. */
struct lazyfree_test {
	char *p;
	int pagemap;
	char group[64];
	char lru_gen[16];
};

/* Returns what is missing for the test, or NULL. */
static inline const char *lazyfree_setup(struct lazyfree_test *t, size_t folio,
					 const char *lru_gen)
{
	int order = folio ? __builtin_ctzl(folio / psize()) : 0;
	struct thp_settings settings;

	if (order && (!thp_available() ||
		      !(thp_supported_orders() & (1UL << order))))
		return "no folios of this size";
	if (!read_text(LRU_GEN, t->lru_gen, sizeof(t->lru_gen)) && *lru_gen == 'y')
		return "no CONFIG_LRU_GEN";
	/* This process, and what it allocates from now on */
	snprintf(t->group, sizeof(t->group), CGROUP "lazyfree_test_%d", getpid());
	if (geteuid() || group_create(t->group, "+memory") ||
	    group_write(t->group, "cgroup.procs", "0"))
		return "needs root and cgroup v2 with memory";
	if (*t->lru_gen && write_text(LRU_GEN, lru_gen))
		return "cannot write " LRU_GEN;
	/* Marked pages wait in a batch of the CPU that marks them. */
	if (run_on_cpu(sched_getcpu()))
		return "cannot stay on a CPU";

	thp_save_settings();
	thp_read_settings(&settings);
	settings.thp_enabled = THP_MADVISE;
	for (int i = 0; i < NR_ORDERS; i++)
		settings.hugepages[i].enabled =
			order && i == order ? THP_MADVISE : THP_NEVER;
	thp_push_settings(&settings);

	t->pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (t->pagemap < 0)
		return "no /proc/self/pagemap";
	t->p = map_aligned(REGION);
	if (t->p == MAP_FAILED)
		return "no memory";
	madvise(t->p, REGION, order ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	stamp_pages(t->p, REGION);

	return NULL;
}

static inline void lazyfree_teardown(struct lazyfree_test *t)
{
	thp_restore_settings();
	if (t->lru_gen[0])
		write_text(LRU_GEN, strtol(t->lru_gen, NULL, 0) & 1 ? "y" : "n");
	munmap(t->p, REGION);
	write_text(CGROUP "cgroup.procs", "0");
	group_remove(t->group);
}

/* What threads have in common that use marked pages, or get in their way. */
struct race {
	char *p;
	const char *group;
	atomic_bool stop;
	atomic_ulong errors;
};

static inline void *reclaim_all_the_time(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop))
		group_write(race->group, "memory.reclaim", "2M");
	return NULL;
}

static inline void *fork_all_the_time(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop)) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (pid > 0)
			wait_status(pid);
		usleep(3000);
	}
	return NULL;
}

/* A thread with its own part of the pages, and what it knows of each. */
struct user {
	struct race *race;
	size_t from;
	size_t nr;
	unsigned int seed;
	int rounds;
	char *knows;
};

static inline char *user_page(struct user *u, size_t i)
{
	return u->race->p + (u->from + i) * psize();
}

static inline enum page_state user_page_state(struct user *u, size_t i)
{
	return page_state(user_page(u, i), stamp_of(u->from + i));
}

static inline void user_stamp(struct user *u, size_t i)
{
	stamp_range(user_page(u, i), psize(), stamp_of(u->from + i));
}

/**
 * run_race() - Run three threads in parts of the first @size bytes.
 * @race: what the threads share
 * @size: bytes
 * @rounds: of each thread
 * @use: for each of them, with a struct user
 * @disturb: threads that run meanwhile, with @race
 * @nr: their number, at most 3
 *
 * Return: 0 or an errno value.
 */
static inline int run_race(struct race *race, size_t size, int rounds,
			   void *(*use)(void *), void *(*const disturb[])(void *),
			   int nr)
{
	const size_t part = size / psize() / 3;
	pthread_t users[3], others[3];
	static struct user user[3];
	cpu_set_t all;
	int err;

	memset(&all, 0xff, sizeof(all));
	if (sched_setaffinity(0, sizeof(all), &all))
		return errno;
	for (int i = 0; i < nr; i++) {
		err = pthread_create(&others[i], NULL, disturb[i], race);
		if (err)
			return err;
	}
	for (int i = 0; i < 3; i++) {
		user[i] = (struct user){
			.race = race, .from = i * part, .nr = part,
			.seed = i, .rounds = rounds, .knows = calloc(part, 1),
		};
		err = pthread_create(&users[i], NULL, use, &user[i]);
		if (err)
			return err;
	}
	for (int i = 0; i < 3; i++) {
		pthread_join(users[i], NULL);
		free(user[i].knows);
	}
	atomic_store(&race->stop, true);
	for (int i = 0; i < nr; i++)
		pthread_join(others[i], NULL);

	return 0;
}

#endif
