// SPDX-License-Identifier: GPL-2.0
/*
 * A program that frees large blocks and needs others soon, and knows nothing of
 * how its allocator releases memory:
 *   blocks NAME SECONDS   blocks of 256 KiB to 4 MiB come and go
 * NAME is for the line that it prints.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PAGE	4096UL
#define MB	(1UL << 20)
#define SLOTS	32

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

static void churn(const char *name, double seconds)
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
	printf("= churn_%s %.0f\n", name, bytes / seconds / MB);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(1, "see the source for its arguments");
	churn(argv[1], atof(argv[2]));
	return 0;
}
