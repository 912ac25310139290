// SPDX-License-Identifier: GPL-2.0
/*
 * What it costs to give memory back and to use it again, as an allocator would:
 * MADV_SPLITTABLE if there is such a call, or MADV_DONTNEED.
 *   lazy give KIND       2 MiB a call; KIND: 4k, thp, half (of each huge page),
 *                        64k (bytes), 1g (bytes)
 *   lazy undo            take back 2 MiB as it is, and touch each page
 *   lazy zero            take back half of each huge page, and write to it
 *   lazy kept            percent of huge pages left after that
 *   lazy fork N          fork, exit and wait of a small process
 *   lazy maps N          mmap, touch and munmap of 256 KiB
 *   lazy dontneed N      touch and MADV_DONTNEED of 256 KiB
 *   lazy mark MIB        mark all of MIB, say so, and wait
 *   lazy free_loop S MIB SECONDS   touch and MADV_FREE MIB in turns
 *   lazy stream FILE SECONDS       read FILE again and again
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "advice.h"

#define PAGE	4096UL
#define MB	(1UL << 20)
#define HUGE	(2 * MB)
#define CALLS	32

static bool splittable;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void advise(char *p, size_t size, int advice)
{
	if (madvise(p, size, advice) && errno != ENODATA)
		err(1, "advice %d", advice);
}

/* Is the call there, and does it leave the page in place? */
static void look_for_splittable(void)
{
	char *p = mmap(NULL, MB, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	splittable = !madvise(p, MB, MADV_SPLITTABLE_);
	munmap(p, MB);
}

static void give_back(char *p, size_t size)
{
	advise(p, size, splittable ? MADV_SPLITTABLE_ : MADV_DONTNEED);
}

/* @calls regions of @size, each with as much after it that is not touched. */
static char *map_regions(size_t size, int calls, bool huge)
{
	size_t total = 2 * size * calls + HUGE;
	char *p = mmap(NULL, total, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	p += -(uintptr_t)p % HUGE;
	madvise(p, total - HUGE, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return p;
}

static void touch(char *p, size_t size)
{
	for (size_t i = 0; i < size; i += PAGE)
		*(volatile char *)(p + i) = 1;
}

static void give(const char *kind)
{
	bool half = !strcmp(kind, "half"), huge = half || !strcmp(kind, "thp");
	size_t size = !strcmp(kind, "64k") ? 64 << 10 :
		      !strcmp(kind, "1g") ? 1UL << 30 : HUGE;
	int calls = size > HUGE ? 4 : CALLS;
	char *p = map_regions(size, calls, huge);
	double best = 0;

	/* The second time caches of the kernel's allocators are filled. */
	for (int round = 0; round < 3; round++) {
		double start;

		for (int i = 0; i < calls; i++) {
			/* A huge page that was split is not one again. */
			if (half)
				advise(p + 2 * i * size, size, MADV_DONTNEED);
			touch(p + 2 * i * size, size > HUGE ? HUGE : size);
		}
		start = now();
		for (int i = 0; i < calls; i++)
			give_back(p + 2 * i * size, half ? size / 2 : size);
		best = (now() - start) / calls;
		for (int i = 0; i < calls; i++)
			if (splittable)
				advise(p + 2 * i * size, size, MADV_UNSPLITTABLE_);
	}
	printf("= give_%s %.0f\n", kind, best);
}

static void undo(void)
{
	char *p = map_regions(HUGE, CALLS, false);
	double call = 0, page = 0, start;

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < CALLS; i++)
			touch(p + 2 * i * HUGE, HUGE);
		for (int i = 0; i < CALLS; i++)
			give_back(p + 2 * i * HUGE, HUGE);
		start = now();
		for (int i = 0; i < CALLS; i++)
			if (splittable)
				advise(p + 2 * i * HUGE, HUGE, MADV_FREE_UNDO_);
		call = (now() - start) / CALLS;
		start = now();
		for (int i = 0; i < CALLS; i++)
			touch(p + 2 * i * HUGE, HUGE);
		page = (now() - start) / CALLS / (HUGE / PAGE);
	}
	if (splittable)
		printf("= undo_call %.0f\n", call);
	printf("= undo_page %.1f\n", page);
}

static long huge_kb(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "r");
	char line[128];
	long kb = 0;

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "AnonHugePages: %ld", &kb);
	if (f)
		fclose(f);
	return kb;
}

/* Half of each huge page is given back, taken back, and written. */
static void zero(bool kept)
{
	char *p = map_regions(HUGE, CALLS, true);
	char *copy = map_regions(HUGE, 1, true);
	double page = 0, clear = 0, start;

	touch(copy, HUGE);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < CALLS; i++) {
			advise(p + 2 * i * HUGE, HUGE, MADV_DONTNEED);
			touch(p + 2 * i * HUGE, HUGE);
		}
		for (int i = 0; i < CALLS; i++)
			give_back(p + 2 * i * HUGE, HUGE / 2);
		start = now();
		for (int i = 0; i < CALLS; i++) {
			if (splittable)
				advise(p + 2 * i * HUGE, HUGE / 2, MADV_UNSPLITTABLE_);
			touch(p + 2 * i * HUGE, HUGE / 2);
		}
		page = (now() - start) / CALLS / (HUGE / 2 / PAGE);
	}
	if (kept) {
		printf("= thp_kept %.0f\n", 100.0 * huge_kb() / (CALLS + 1) / 2048);
		return;
	}
	start = now();
	for (int i = 0; i < CALLS; i++) {
		memset(copy, 0, HUGE / 2);
		touch(copy, HUGE / 2);
	}
	clear = (now() - start) / CALLS / (HUGE / 2 / PAGE);
	printf("= zero_page %.0f\n= memset_page %.0f\n", page, clear);
}

static void small_processes(int n)
{
	double start = now();

	for (int i = 0; i < n; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
	printf("= fork %.0f\n", (now() - start) / n);
}

static void small_maps(int n, bool unmap)
{
	const size_t size = 256 << 10;
	char *p = MAP_FAILED;
	double start;

	start = now();
	for (int i = 0; i < n; i++) {
		if (p == MAP_FAILED)
			p = mmap(NULL, size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			err(1, "mmap");
		touch(p, size);
		if (unmap) {
			munmap(p, size);
			p = MAP_FAILED;
		} else {
			advise(p, size, MADV_DONTNEED);
		}
	}
	printf("= %s %.0f\n", unmap ? "maps" : "dontneed", (now() - start) / n);
}

/* For who reclaims this process: all of it, and all of it marked. */
static void mark(size_t mb)
{
	char *p = map_regions(mb * MB, 1, true);

	touch(p, mb * MB);
	give_back(p, mb * MB);
	puts("marked");
	fflush(stdout);
	pause();
}

static void free_loop(size_t mb, double seconds)
{
	char *p = map_regions(mb * MB, 1, false);
	double end = now() + seconds * 1e9;
	unsigned long n = 0;

	while (now() < end) {
		for (size_t i = 0; i < mb; i++, n++) {
			touch(p + i * MB, MB);
			advise(p + i * MB, MB, MADV_FREE);
		}
	}
	printf("= freed_mb %.0f\n", n / seconds);
}

static void stream(const char *file, double seconds)
{
	int fd = open(file, O_RDONLY);
	double end = now() + seconds * 1e9;
	static char buf[64 << 10];
	unsigned long bytes = 0;
	ssize_t len;

	if (fd < 0)
		err(1, "%s", file);
	while (now() < end) {
		len = read(fd, buf, sizeof(buf));
		if (len <= 0 && lseek(fd, 0, SEEK_SET))
			err(1, "%s", file);
		bytes += len > 0 ? len : 0;
	}
	printf("= streamed_mb %.0f\n", bytes / seconds / MB);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	const char *arg = argc > 2 ? argv[2] : "0";

	/* Of those that use none of it nothing is asked. */
	if (!strcmp(what, "give") || !strcmp(what, "undo") ||
	    !strcmp(what, "zero") || !strcmp(what, "kept") ||
	    !strcmp(what, "mark"))
		look_for_splittable();

	if (!strcmp(what, "give"))
		give(arg);
	else if (!strcmp(what, "undo"))
		undo();
	else if (!strcmp(what, "zero"))
		zero(false);
	else if (!strcmp(what, "kept"))
		zero(true);
	else if (!strcmp(what, "fork"))
		small_processes(atoi(arg));
	else if (!strcmp(what, "maps"))
		small_maps(atoi(arg), true);
	else if (!strcmp(what, "dontneed"))
		small_maps(atoi(arg), false);
	else if (!strcmp(what, "mark"))
		mark(atoi(arg));
	else if (!strcmp(what, "free_loop") && argc == 4)
		free_loop(atoi(arg), atof(argv[3]));
	else if (!strcmp(what, "stream") && argc == 4)
		stream(arg, atof(argv[3]));
	else
		errx(1, "see the source for what it can do");
	return 0;
}
