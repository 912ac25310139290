/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What tests of MADV_FREE and its kin share: pages that carry stamps, of each
 * size of folios, and a memory cgroup of their own to reclaim, by either LRU.
 *
 * For programs that have included kselftest_harness.h before.
 */
#ifndef LAZYFREE_UTIL_H
#define LAZYFREE_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <stdlib.h>
#include <unistd.h>
#include "hugepage_settings.h"
#include "vm_util.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define MB		(1024 * 1024UL)
#define CGROUP		"/sys/fs/cgroup/"
#define LRU_GEN		"/sys/kernel/mm/lru_gen/enabled"
#define REGION		(8 * MB)
#define ALIGNMENT	(2 * MB)
#define PATIENCE	300	/* seconds, for debug kernels in emulators */

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	PATIENCE

/* What a page has in it, by all of its words. */
enum page_state {
	PAGE_OLD,
	PAGE_ZERO,
	PAGE_OTHER,
};

/* Returns 0 or the errno of the write. */
static inline int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), err = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err = errno ?: EIO;
	close(fd);

	return err;
}

/* The number of a "name number" line, with or without a colon; or -1. */
static inline long read_value(const char *path, const char *name)
{
	size_t len = strlen(name);
	FILE *f = fopen(path, "r");
	char line[256];
	long val = -1;

	while (f && val < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len) && strchr(": ", line[len]))
			sscanf(line + len + strspn(line + len, ": \t"), "%ld", &val);
	if (f)
		fclose(f);

	return val;
}

static inline void group_path(char *buf, size_t size, int owner,
			      const char *file)
{
	snprintf(buf, size, CGROUP "lazyfree_test_%d/%s", owner, file);
}

/* The group of the test process @owner. */
static inline int group_write(int owner, const char *file, const char *text)
{
	char path[128];

	group_path(path, sizeof(path), owner, file);
	return write_text(path, text);
}

static inline long group_read(int owner, const char *file, const char *name)
{
	char path[128];

	group_path(path, sizeof(path), owner, file);
	return read_value(path, name);
}

/* This process, and what it allocates from now on, is in a group of its own. */
static inline bool group_enter(void)
{
	char path[128];

	write_text(CGROUP "cgroup.subtree_control", "+memory");
	group_path(path, sizeof(path), getpid(), "");
	return !mkdir(path, 0755) &&
	       !group_write(getpid(), "cgroup.procs", "0");
}

static inline void group_leave(void)
{
	char path[128];

	write_text(CGROUP "cgroup.procs", "0");
	group_path(path, sizeof(path), getpid(), "");
	for (int i = 0; i < 1000 && rmdir(path) && errno == EBUSY; i++)
		usleep(1000);
}

static inline unsigned long stamp_of(unsigned long page, unsigned long word)
{
	return 0x5afe000000000000UL | page << 16 | word;
}

static inline void stamp_page(char *p, unsigned long page)
{
	unsigned long *word = (unsigned long *)p;

	for (unsigned long i = 0; i < psize() / sizeof(*word); i++)
		word[i] = stamp_of(page, i);
}

static inline enum page_state page_state_now(const char *p, unsigned long page)
{
	const unsigned long *word = (const unsigned long *)p;
	unsigned long n = psize() / sizeof(*word), old = 0, zero = 0;

	for (unsigned long i = 0; i < n; i++) {
		unsigned long val = FORCE_READ(word[i]);

		old += val == stamp_of(page, i);
		zero += !val;
	}

	return old == n ? PAGE_OLD : zero == n ? PAGE_ZERO : PAGE_OTHER;
}

static inline enum page_state page_state(const char *p, unsigned long page)
{
	enum page_state state = page_state_now(p, page);

	/* Dropped while it was being read? Then it is zero by now. */
	return state == PAGE_OTHER ? page_state_now(p, page) : state;
}

static inline void stamp_range(char *p, size_t size)
{
	for (size_t i = 0; i < size / psize(); i++)
		stamp_page(p + i * psize(), i);
}

/* Pages of the range that are in state @state; the first one is page @first. */
static inline long count_pages(const char *p, size_t size, unsigned long first,
			       enum page_state state)
{
	long n = 0;

	for (size_t i = 0; i < size / psize(); i++)
		n += page_state(p + i * psize(), first + i) == state;

	return n;
}

static inline long populated_pages(int pagemap, char *p, size_t size)
{
	long n = 0;

	for (size_t i = 0; i < size; i += psize())
		n += pagemap_is_populated(pagemap, p + i);

	return n;
}

static inline void reclaim_group(int group)
{
	/* EAGAIN if there is not so much. */
	group_write(group, "memory.reclaim", "64M");
}

/* Pages of the range, which begins with page @first, that are anything else. */
static inline long pages_not(enum page_state state, char *p, size_t size,
			     size_t first)
{
	return size / psize() - count_pages(p, size, first, state);
}

/* Neither as they were nor zero */
static inline long pages_broken(char *p, size_t size, size_t first)
{
	return count_pages(p, size, first, PAGE_OTHER);
}

static inline char *map_aligned(size_t size)
{
	char *p = mmap(NULL, size + ALIGNMENT, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return p;
	p += -(uintptr_t)p % ALIGNMENT;
	return mmap(p, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* A test's memory, @p of REGION bytes, and what has to be put back. */
struct lazyfree_test {
	char *p;
	int pagemap;
	int group;
	char lru_gen[16];
};

/* Returns what is missing for the test, or NULL. */
static inline const char *lazyfree_setup(struct lazyfree_test *t, size_t folio,
					 const char *lru_gen)
{
	int order = folio ? __builtin_ctzl(folio / psize()) : 0;
	struct thp_settings settings;
	cpu_set_t one;
	FILE *f;

	if (order && (!thp_available() ||
		      !(thp_supported_orders() & (1UL << order))))
		return "no folios of this size";
	f = fopen(LRU_GEN, "r");
	if (!f && *lru_gen == 'y')
		return "no CONFIG_LRU_GEN";
	if (geteuid() || !group_enter())
		return "needs root and cgroup v2 with memory";
	t->group = getpid();

	if (f) {
		if (!fgets(t->lru_gen, sizeof(t->lru_gen), f))
			return "cannot read " LRU_GEN;
		fclose(f);
		if (write_text(LRU_GEN, lru_gen))
			return "cannot write " LRU_GEN;
	}
	/* Marked pages wait in a batch of the CPU that marks them. */
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	if (sched_setaffinity(0, sizeof(one), &one))
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
	stamp_range(t->p, REGION);

	return NULL;
}

static inline void lazyfree_teardown(struct lazyfree_test *t)
{
	thp_restore_settings();
	if (t->lru_gen[0])
		write_text(LRU_GEN, strtol(t->lru_gen, NULL, 0) & 1 ? "y" : "n");
	munmap(t->p, REGION);
	group_leave();
}

/* What threads have in common that use marked pages, or get in their way. */
struct race {
	char *p;
	int group;
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
	int status;

	while (!atomic_load(&race->stop)) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (pid > 0)
			waitpid(pid, &status, 0);
		usleep(3000);
	}
	return NULL;
}

#endif
