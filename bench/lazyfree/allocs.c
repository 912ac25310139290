// SPDX-License-Identifier: GPL-2.0
/*
 * Load for an allocator.
 *
 *   ALLOCATOR churn|turns|half|needed default|marked MIB ROUNDS IDLE_MS
 *     churn   two threads allocate MIB together, touch each page and free all
 *     turns   the same, but each thread allocates MIB, one after the other, and
 *             the process passes a turn on: it waits for a byte of stdin before
 *             a round, and writes one to stdout after it
 *     half    every other block of a heap of MIB is freed, and allocated again,
 *             then all are touched
 *     needed  the same, but before it allocates the process writes a byte to
 *             stdout and waits for one of stdin: another process needs memory
 *
 * Sleeps IDLE_MS after each round; in "half" and "needed", between free() and
 * malloc(). Blocks have 16 KiB to 10 MiB, as many bytes of each size; in "half" and
 * "needed", 256 KiB. At the end all blocks are free, there every other block. The
 * program writes a line to stderr, and waits until it is killed.
 *
 *   done CPU_NS BYTES FREED MARKED REUSED KEPT HUGE
 *
 * CPU_NS: CPU time of all processes of the cgroup "allocator" from the first round
 * on, with pauses; BYTES: allocated in that time; FREED to KEPT: see struct counts;
 * HUGE: share of the heap in huge pages, in percent.
 */
#include <err.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "allocs.h"

#define PAGE	4096UL
#define MB	(1UL << 20)
#define SMALL	(16UL << 10)
#define CLASSES	10
#define HALF	(256UL << 10)
#define THREADS	2
#define MAX	16384

struct counts counts;
bool marking;

static struct worker {
	pthread_t thread;
	sem_t start, done;
	unsigned int seed;
	size_t bytes;
	char *block[MAX];
} workers[THREADS];

static size_t total;
static unsigned long cpu_time(void)
{
	FILE *f = fopen("/sys/fs/cgroup/allocator/cpu.stat", "r");
	unsigned long us;

	if (!f || fscanf(f, "usage_usec %lu", &us) != 1)
		errx(1, "cannot read the cgroup's cpu.stat");
	fclose(f);
	return us * 1000;
}

/* Let another process run, until it lets this one run again. */
static void pass_turn(void)
{
	char c = '\n';

	if (write(1, &c, 1) != 1)
		errx(1, "cannot write to stdout");
}

static void wait_for_turn(void)
{
	char c;

	if (read(0, &c, 1) != 1)
		errx(1, "cannot read from stdin");
}

static void touch(char *p, size_t size)
{
	for (size_t i = 0; i < size; i += PAGE)
		*(volatile char *)(p + i) = 1;
}

static char *get(size_t size)
{
	char *p = malloc(size);

	if (!p)
		errx(1, "no memory");
	touch(p, size);
	return p;
}

static void burst(struct worker *w)
{
	size_t left = w->bytes;
	int n = 0;

	/* A size is as rare as it is large: each gets the same share of bytes. */
	while (left && n < MAX) {
		size_t size = SMALL, r = rand_r(&w->seed) % ((1 << CLASSES) - 1) + 1;

		for (; !(r & 1 << (CLASSES - 1)); r <<= 1)
			size *= 2;
		size += size / 4 * (rand_r(&w->seed) % 2);
		if (size > left)
			size = left;
		w->block[n++] = get(size);
		left -= size;
	}
	while (n)
		free(w->block[--n]);
}

static void *work(void *data)
{
	struct worker *w = data;

	for (;;) {
		sem_wait(&w->start);
		burst(w);
		sem_post(&w->done);
	}
	return NULL;
}

static void start_workers(size_t bytes)
{
	for (int i = 0; i < THREADS; i++) {
		struct worker *w = &workers[i];

		w->seed = i + 1;
		w->bytes = bytes;
		sem_init(&w->start, 0, 0);
		sem_init(&w->done, 0, 0);
		if (pthread_create(&w->thread, NULL, work, w))
			errx(1, "no thread");
	}
}

static void wait_for(struct worker *w)
{
	sem_wait(&w->done);
	total += w->bytes;
}

static void run_workers(bool turns)
{
	for (int i = 0; i < THREADS; i++) {
		sem_post(&workers[i].start);
		if (turns)
			wait_for(&workers[i]);
	}
	for (int i = 0; i < THREADS && !turns; i++)
		wait_for(&workers[i]);
}

static void free_half(char **block, int n, unsigned int idle)
{
	for (int i = 0; i < n; i += 2)
		free(block[i]);
	usleep(idle);
}

static void get_half(char **block, int n)
{
	for (int i = 0; i < n; i += 2, total += HALF)
		block[i] = get(HALF);
	for (int i = 1; i < n; i += 2)
		touch(block[i], HALF);
}

static long huge_kb(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "r");
	char line[128];
	long kb = 0;

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "AnonHugePages: %ld", &kb);
	return kb;
}

int main(int argc, char **argv)
{
	size_t bytes = argc == 6 ? atol(argv[3]) * MB : 0;
	int rounds = argc == 6 ? atoi(argv[4]) : 0, blocks = bytes / HALF;
	unsigned int idle = argc == 6 ? atoi(argv[5]) * 1000 : 0;
	bool half, turns, needed;
	char **block = workers[0].block;
	unsigned long cpu_ns;
	long huge = 0;

	if (!bytes || blocks > MAX)
		errx(1, "see the source for its arguments");
	needed = !strcmp(argv[1], "needed");
	half = !strcmp(argv[1], "half") || needed;
	turns = !strcmp(argv[1], "turns");
	/* With an empty range, the kernel only checks the advice. */
	marking = !strcmp(argv[2], "marked") && !advise(NULL, 0, MADV_SPLITTABLE_);
	if (marking)
		start_marking();
	if (!half)
		start_workers(turns ? bytes : bytes / THREADS);
	for (int i = 0; half && i < blocks; i++)
		block[i] = get(HALF);
	cpu_ns = cpu_time();
	for (int i = 0; i < rounds; i++) {
		if (half) {
			free_half(block, blocks, idle);
			if (needed) {
				pass_turn();
				wait_for_turn();
			}
			get_half(block, blocks);
			continue;
		}
		if (turns)
			wait_for_turn();
		run_workers(turns);
		usleep(idle);
		if (turns)
			pass_turn();
	}
	cpu_ns = cpu_time() - cpu_ns;
	if (half) {
		huge = huge_kb() * 1024 * 100 / bytes;
		free_half(block, blocks, idle);
		/* Some allocators release memory only if there are more calls. */
		for (int i = 0; i < 1000; i++)
			free(get(64 << 10));
	}
	fprintf(stderr, "done %lu %zu %zu %zu %zu %zu %ld\n", cpu_ns, total,
		counts.freed, counts.marked, counts.reused, counts.kept,
		huge > 100 ? 100 : huge);
	pause();
	return 0;
}
