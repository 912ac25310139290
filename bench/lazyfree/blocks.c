// SPDX-License-Identifier: GPL-2.0
/*
 * A program that frees large blocks and needs others soon, and knows nothing of
 * how its allocator gives memory back:
 *   blocks churn HOW SECONDS   blocks of 256 KiB to 4 MiB come and go
 *   blocks huge HOW            every other MiB of a heap is freed and used
 *                              again; huge pages that are left
 * HOW is for who is linked with it and has use_allocator(), and names what is
 * printed.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE	4096UL
#define MB	(1UL << 20)
#define SLOTS	32
#define BLOCKS	128

__attribute__((weak)) void use_allocator(const char *how);

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
	if (argc < 3)
		errx(1, "see the source for what it can do");
	if (use_allocator)
		use_allocator(argv[2]);
	if (!strcmp(argv[1], "huge"))
		half_freed(argv[2]);
	else if (!strcmp(argv[1], "churn") && argc == 4)
		churn(argv[2], atof(argv[3]));
	else
		errx(1, "see the source for what it can do");
	return 0;
}
