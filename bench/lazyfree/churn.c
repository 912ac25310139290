// SPDX-License-Identifier: GPL-2.0
/*
 * An allocator that gives back what is freed, at once, and needs it again soon:
 *   churn default|hooks|undo SECONDS   blocks of 256 KiB to 4 MiB come and go
 *   churn huge default|hooks           every other MiB of a heap is freed and
 *                                      used again; huge pages that are left
 * It is jemalloc, by itself or with hooks: what it decommits is marked with
 * MADV_SPLITTABLE, and what it commits again is taken back: as zeroes, as
 * calloc() relies on, or as it is.
 */
#include <err.h>
#include <jemalloc/jemalloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define MADV_FREE_UNDO_		26
#define MADV_SPLITTABLE_	27
#define MADV_UNSPLITTABLE_	28

#define PAGE	4096UL
#define MB	(1UL << 20)
#define SLOTS	32
#define BLOCKS	128

const char *malloc_conf = "narenas:1,tcache:false,dirty_decay_ms:0,muzzy_decay_ms:0";

static int take_back_advice;

static bool decommit(extent_hooks_t *hooks, void *p, size_t size, size_t offset,
		     size_t length, unsigned int arena)
{
	(void)hooks, (void)size, (void)arena;
	return madvise((char *)p + offset, length, MADV_SPLITTABLE_) &&
	       madvise((char *)p + offset, length, MADV_DONTNEED);
}

static bool commit(extent_hooks_t *hooks, void *p, size_t size, size_t offset,
		   size_t length, unsigned int arena)
{
	(void)hooks, (void)size, (void)arena;
	/* On a kernel that has no such call it is zero already. */
	madvise((char *)p + offset, length, take_back_advice);
	return false;
}

static void use_hooks(const char *how)
{
	static extent_hooks_t ours;
	extent_hooks_t *hooks, *new = &ours;
	size_t size = sizeof(hooks);

	if (!strcmp(how, "default"))
		return;
	take_back_advice = strcmp(how, "undo") ? MADV_UNSPLITTABLE_ :
						 MADV_FREE_UNDO_;
	if (mallctl("arena.0.extent_hooks", &hooks, &size, NULL, 0))
		errx(1, "no extent hooks");
	ours = *hooks;
	ours.decommit = decommit;
	ours.commit = commit;
	if (mallctl("arena.0.extent_hooks", NULL, NULL, &new, sizeof(new)))
		errx(1, "cannot set extent hooks");
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static char *get(size_t size)
{
	char *p = malloc(size);

	if (!p)
		errx(1, "no memory");
	for (size_t i = 0; i < size; i += PAGE)
		*(volatile char *)(p + i) = 1;
	return p;
}

static void churn(const char *how, double seconds)
{
	char *slot[SLOTS] = {};
	double end = now() + seconds;
	unsigned int seed = 1;
	size_t bytes = 0;

	while (now() < end) {
		size_t size = (256 << 10) << rand_r(&seed) % 5;
		int i = rand_r(&seed) % SLOTS;

		free(slot[i]);
		slot[i] = get(size);
		bytes += size;
	}
	printf("= churn_%s %.0f\n", how, bytes / seconds / MB);
}

static void half_freed(const char *how)
{
	char *block[BLOCKS], line[128];
	long kb = 0;
	FILE *f;

	for (int i = 0; i < BLOCKS; i++)
		block[i] = get(MB);
	for (int i = 0; i < BLOCKS; i += 2)
		free(block[i]);
	for (int i = 0; i < BLOCKS; i += 2)
		block[i] = get(MB);
	f = fopen("/proc/self/smaps_rollup", "r");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "AnonHugePages: %ld", &kb);
	printf("= huge_%s %.0f\n", how, kb * 100.0 / 1024 / BLOCKS);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(1, "see the source for what it can do");
	if (!strcmp(argv[1], "huge")) {
		use_hooks(argv[2]);
		half_freed(argv[2]);
	} else {
		use_hooks(argv[1]);
		churn(argv[1], atof(argv[2]));
	}
	return 0;
}
