// SPDX-License-Identifier: GPL-2.0
/*
 * The cost of freeing memory and of using it again, as an allocator would:
 * MADV_SPLITTABLE if there is such a call, or MADV_DONTNEED.
 *   lazy give KIND       2 MiB a call; KIND: 4k, thp, half (of each huge page),
 *                        64k (bytes), 1g (bytes)
 *   lazy free KIND       the same with MADV_FREE
 *   lazy free_undo KIND  the same in a process that has called MADV_FREE_UNDO
 *   lazy calls           madvise() of nothing, MADV_DONTNEED of untouched memory
 *   lazy undo            take back 2 MiB as it is, and touch each page
 *   lazy undo_free       the same after MADV_FREE
 *   lazy cycle           free 2 MiB of 4 KiB pages, and write to them again
 *   lazy zero            take back half of each huge page, and write to it
 *   lazy kept            percent of huge pages left after that
 *   lazy neighbours      the same, beside NUMA balancing, khugepaged and KSM
 *   lazy limit N         read smaps, fork and munmap with N ranges
 *   lazy threads         threads of a process free memory and take it back
 *   lazy fork N          fork, exit and wait of a small process
 *   lazy maps N          mmap, touch and munmap of 256 KiB
 *   lazy dontneed N      touch and MADV_DONTNEED of 256 KiB
 *   lazy faults N        page faults in 2 MiB
 * These say "ready", and wait:
 *   lazy mark MIB        MIB of huge pages is marked
 *   lazy mark_free MIB, mark_free_undo MIB     MADV_FREE of MIB of 4 KiB pages,
 *                        as in free and free_undo
 *   lazy use MIB         MIB is in use
 *   lazy free_use MIB    MADV_FREE of MIB, and later MIB more is in use
 *   lazy need MIB        MIB is in use for each byte of stdin
 *   lazy wake            kswapd has woken up
 *   lazy free_loop S MIB SECONDS   touch and MADV_FREE MIB in turns
 *   lazy stream FILE SECONDS       read FILE again and again
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
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
#define THREADS	16

static bool splittable;

/* Calls of the series since the last say_acted(), and those that returned 0. */
static unsigned long calls, acted;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

/* Return: true, or false if the kernel has zapped the range or lost contents. */
static bool advise(char *p, size_t size, int advice)
{
	if (!madvise(p, size, advice))
		return true;
	if (errno != ENODATA)
		err(1, "advice %d", advice);
	return false;
}

static void act(char *p, size_t size, int advice)
{
	calls++;
	acted += advise(p, size, advice);
}

static void say_acted(const char *name)
{
	if (splittable && calls)
		printf("= acted_%s %.0f\n", name, 100.0 * acted / calls);
	calls = acted = 0;
}

/* With an empty range, the kernel only checks the advice. */
static void look_for_splittable(void)
{
	splittable = !madvise(NULL, 0, MADV_SPLITTABLE_);
}

static void give_back(char *p, size_t size)
{
	if (splittable)
		act(p, size, MADV_SPLITTABLE_);
	else
		advise(p, size, MADV_DONTNEED);
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

/* From now on, the kernel records what MADV_FREE does in this process. */
static void use_undo(char *p)
{
	if (splittable)
		advise(p, PAGE, MADV_FREE_UNDO_);
}

/* @verb: give, free or free_undo */
static void give(const char *verb, const char *kind)
{
	bool mark = !strcmp(verb, "give");
	bool half = !strcmp(kind, "half"), huge = half || !strcmp(kind, "thp");
	size_t size = !strcmp(kind, "64k") ? 64 << 10 :
		      !strcmp(kind, "1g") ? 1UL << 30 : HUGE;
	int n = size > HUGE ? 4 : CALLS;
	char *p = map_regions(size, n, huge);
	char name[32];
	double best = 0;

	if (!strcmp(verb, "free_undo"))
		use_undo(p);
	/* The second time caches of the kernel's allocators are filled. */
	for (int round = 0; round < 3; round++) {
		double start;

		for (int i = 0; i < n; i++) {
			/* A huge page that was split is not one again. */
			if (half)
				advise(p + 2 * i * size, size, MADV_DONTNEED);
			touch(p + 2 * i * size, size > HUGE ? HUGE : size);
		}
		start = now();
		for (int i = 0; i < n; i++)
			if (mark)
				give_back(p + 2 * i * size, half ? size / 2 : size);
			else
				advise(p + 2 * i * size, half ? size / 2 : size, MADV_FREE);
		best = (now() - start) / n;
		for (int i = 0; i < n; i++)
			if (mark && splittable)
				advise(p + 2 * i * size, size, MADV_UNSPLITTABLE_);
	}
	snprintf(name, sizeof(name), "%s_%s", verb, kind);
	printf("= %s %.0f\n", name, best);
	say_acted(name);
}

/* For scale. */
static void other_calls(void)
{
	const size_t size = 64 << 10;
	char *p = map_regions(size, 1, false);

	for (int round = 0; round < 2; round++) {
		double start = now();

		for (int i = 0; i < 1000; i++)
			advise(p, 0, MADV_DONTNEED);
		printf("%c empty %.0f\n", " ="[round], (now() - start) / 1000);
		start = now();
		for (int i = 0; i < 1000; i++)
			advise(p, size, MADV_DONTNEED);
		printf("%c untouched %.0f\n", " ="[round], (now() - start) / 1000);
	}
}

static void undo(bool freed)
{
	char *p = map_regions(HUGE, CALLS, false);
	double call = 0, page = 0, start;

	if (freed)
		use_undo(p);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < CALLS; i++)
			touch(p + 2 * i * HUGE, HUGE);
		for (int i = 0; i < CALLS; i++)
			if (freed)
				advise(p + 2 * i * HUGE, HUGE, MADV_FREE);
			else
				give_back(p + 2 * i * HUGE, HUGE);
		calls = acted = 0;
		start = now();
		for (int i = 0; i < CALLS; i++)
			if (splittable)
				act(p + 2 * i * HUGE, HUGE, MADV_FREE_UNDO_);
		call = (now() - start) / CALLS;
		start = now();
		for (int i = 0; i < CALLS; i++)
			touch(p + 2 * i * HUGE, HUGE);
		page = (now() - start) / CALLS / (HUGE / PAGE);
	}
	if (freed) {
		if (splittable)
			printf("= undo_free %.1f\n", call / (HUGE / PAGE));
		say_acted("undo_free");
		return;
	}
	if (splittable)
		printf("= undo_call %.0f\n", call);
	printf("= undo_page %.1f\n", page);
	say_acted("undo");
}

static void cycle(bool mark)
{
	char *p = map_regions(HUGE, CALLS, false);
	double best = 0;

	for (int round = 0; round < 3; round++) {
		double start;

		/* A page with contents has to be cleared. */
		for (int i = 0; i < CALLS; i++)
			touch(p + 2 * i * HUGE, HUGE);
		start = now();
		for (int i = 0; i < CALLS; i++) {
			char *q = p + 2 * i * HUGE;

			if (mark)
				give_back(q, HUGE);
			else
				advise(q, HUGE, MADV_DONTNEED);
			if (mark && splittable)
				advise(q, HUGE, MADV_UNSPLITTABLE_);
			touch(q, HUGE);
		}
		best = (now() - start) / CALLS;
	}
	printf("= cycle_%s %.0f\n", mark ? "marked" : "dontneed", best);
	say_acted("cycle");
}

/* The number after @key in a file of lines "key 5", "key: 5 kB" or "key : 5". */
static long number(const char *file, const char *key)
{
	FILE *f = fopen(file, "r");
	size_t len = strlen(key);
	char line[256];
	long value = 0;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, len) && (!len || strchr(" :\t", line[len])))
			value = atol(line + len + strspn(line + len, " :\t"));
	if (f)
		fclose(f);
	return value;
}

static long vmstat(const char *key)
{
	return number("/proc/vmstat", key);
}

static long huge_kb(void)
{
	return number("/proc/self/smaps_rollup", "AnonHugePages");
}

/* Half of each huge page is freed, reused, and written. */
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
	say_acted(kept ? "kept" : "zero");
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

static void *idle(void *data)
{
	for (;;)
		pause();
	return data;
}

/*
 * Half of each huge page is marked, until NUMA balancing, khugepaged and KSM have
 * scanned all of them twice.
 */
static void neighbours(void)
{
	const char *ksm = "/sys/kernel/mm/ksm/full_scans";
	const char *thp = "/sys/kernel/mm/transparent_hugepage/khugepaged/full_scans";
	long ksm_before, thp_before, numa_before, splits, numa_passes = 0, passes = 0;
	char *p = map_regions(HUGE, CALLS, true);
	double end = now() + 60e9;
	pthread_t thread;

	/* Local memory of a single thread is not scanned. */
	if (pthread_create(&thread, NULL, idle, NULL))
		errx(1, "no thread");
	/* No two pages are equal, or KSM would merge them. */
	madvise(p, 2 * HUGE * CALLS, MADV_MERGEABLE);
	for (int i = 0; i < CALLS; i++)
		for (size_t j = 0; j < HUGE; j += PAGE)
			*(volatile size_t *)(p + 2 * i * HUGE + j) = i * HUGE + j + 1;
	printf("huge pages before: %ld kB\n", huge_kb());
	splits = vmstat("thp_split_pmd");
	for (int i = 0; i < CALLS; i++)
		give_back(p + 2 * i * HUGE, HUGE / 2);
	ksm_before = number(ksm, "");
	thp_before = number(thp, "");
	numa_before = vmstat("numa_pte_updates");
	while (passes < 2 && now() < end) {
		/* The scan period of NUMA balancing is time on a CPU. */
		for (double busy = now() + 1e6; now() < busy;)
			for (int i = 0; i < CALLS; i++)
				for (size_t j = HUGE / 2; j < HUGE; j += PAGE)
					(void)*(volatile char *)(p + 2 * i * HUGE + j);
		usleep(9000);
		numa_passes = (vmstat("numa_pte_updates") - numa_before) /
			      (long)(CALLS * HUGE / PAGE);
		passes = number(ksm, "") - ksm_before;
		if (passes > number(thp, "") - thp_before)
			passes = number(thp, "") - thp_before;
		if (passes > numa_passes)
			passes = numa_passes;
	}
	printf("passes: KSM %ld, khugepaged %ld, NUMA balancing %ld\n",
	       number(ksm, "") - ksm_before, number(thp, "") - thp_before, numa_passes);
	printf("= neighbours_thp %.0f\n", 100.0 * huge_kb() / CALLS / 2048);
	printf("= neighbours_splits %ld\n", vmstat("thp_split_pmd") - splits);
	printf("= neighbours_passes %ld\n", passes);
	say_acted("neighbours");
}

static void small_process(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
}

static void small_processes(int n)
{
	double start = now();

	for (int i = 0; i < n; i++)
		small_process();
	printf("= fork %.0f\n", (now() - start) / n);
}

static void read_smaps(void)
{
	static char buf[64 << 10];
	int fd = open("/proc/self/smaps", O_RDONLY);

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	close(fd);
}

/* 32 MiB of 4 KiB pages, of which each second page is a range if @n is 4096. */
static void limit(int n)
{
	const size_t size = 32 * MB;
	double smaps = 0, forked = 0, unmapped = 0, start;

	if (n && !splittable)
		return;
	for (int round = 0; round < 2; round++) {
		char *p = map_regions(size, 1, false);

		touch(p, size);
		calls = acted = 0;
		for (int i = 0; i < n; i++)
			act(p + 2 * i * PAGE, PAGE, MADV_SPLITTABLE_);
		start = now();
		read_smaps();
		smaps = now() - start;
		start = now();
		small_process();
		forked = now() - start;
		start = now();
		munmap(p, size);
		unmapped = now() - start;
	}
	printf("= smaps_%d %.0f\n= forked_%d %.0f\n= unmapped_%d %.0f\n", n, smaps,
	       n, forked, n, unmapped);
	if (n)
		printf("= ranges %lu\n", acted);
}

static void ready(void)
{
	puts("ready");
	fflush(stdout);
}

static struct worker {
	pthread_t thread;
	char *p;
	bool mark;
	unsigned long loops, acted;
} __attribute__((aligned(64))) workers[THREADS];

static pthread_barrier_t begin;
static volatile bool stop;

static void *work(void *data)
{
	struct worker *w = data;
	unsigned long loops = 0, good = 0;
	cpu_set_t set;

	/* The first CPU has the timer's interrupts. */
	CPU_ZERO(&set);
	CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1 - (w - workers), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "sched_setaffinity");
	pthread_barrier_wait(&begin);
	for (; !stop; loops++) {
		if (w->mark) {
			bool marked = advise(w->p, HUGE, MADV_SPLITTABLE_);

			good += advise(w->p, HUGE, MADV_FREE_UNDO_) && marked;
		} else {
			advise(w->p, 64 << 10, MADV_DONTNEED);
			touch(w->p, 64 << 10);
		}
	}
	w->loops = loops;
	w->acted = good;
	return NULL;
}

static void measure_threads(const char *name, char *p, size_t apart, bool mark, int n)
{
	unsigned long loops = 0, good = 0;
	double start, seconds;

	pthread_barrier_init(&begin, NULL, n + 1);
	stop = false;
	for (int i = 0; i < n; i++) {
		workers[i].p = p + i * apart;
		workers[i].mark = mark;
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			errx(1, "no thread");
	}
	pthread_barrier_wait(&begin);
	start = now();
	sleep(2);
	stop = true;
	seconds = (now() - start) / 1e9;
	for (int i = 0; i < n; i++) {
		pthread_join(workers[i].thread, NULL);
		loops += workers[i].loops;
		good += workers[i].acted;
	}
	printf("= %s_%d %.1f\n", name, n, loops / seconds);
	if (mark)
		printf("= acted_%s_%d %.0f\n", name, n, 100.0 * good / loops);
	pthread_barrier_destroy(&begin);
}

/*
 * Each thread works on memory of its own: 2 MiB after 2 MiB, and 64 MiB apart, as
 * the arenas of some allocators are.
 */
static void threads(void)
{
	const size_t far = 64 * MB;
	char *p = map_regions(THREADS * far, 1, false);

	for (int i = 0; i < THREADS; i++) {
		touch(p + i * HUGE, HUGE);
		touch(p + i * far, HUGE);
	}
	ready();
	getchar();
	for (int n = 1; n <= THREADS; n *= 4) {
		if (splittable) {
			measure_threads("near", p, HUGE, true, n);
			measure_threads("far", p, far, true, n);
		}
		measure_threads("dontneed_threads", p, HUGE, false, n);
	}
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

static void faults(int n)
{
	char *p = map_regions(HUGE, 1, false);
	double start, sum = 0;

	/* Page tables are there. */
	touch(p, HUGE);
	for (int i = 0; i < n; i++) {
		advise(p, HUGE, MADV_DONTNEED);
		start = now();
		touch(p, HUGE);
		sum += now() - start;
	}
	printf("= fault %.0f\n", sum / n / (HUGE / PAGE));
}

/* Memory for a guest that measures reclaim. */
static void hold(const char *verb, size_t mb)
{
	bool mark = !strcmp(verb, "mark"), more = !strcmp(verb, "free_use");
	char *p = map_regions(mb * MB, 1, mark);

	touch(p, mb * MB);
	if (!strcmp(verb, "mark_free_undo"))
		use_undo(p);
	if (mark)
		give_back(p, mb * MB);
	else if (strcmp(verb, "use"))
		advise(p, mb * MB, MADV_FREE);
	if (more) {
		usleep(1500000);
		touch(map_regions(mb * MB, 1, false), mb * MB);
	}
	ready();
	pause();
}

static void wake(void)
{
	const size_t size = 4096 * MB;
	long before = vmstat("pageoutrun");
	char *p = map_regions(size, 1, false);

	for (size_t i = 0; i < size && vmstat("pageoutrun") == before; i += MB)
		touch(p + i, MB);
	ready();
	pause();
}

/* Uses memory whenever another process, at the other end of stdin, asks for it. */
static void need(size_t mb)
{
	char c;

	while (read(0, &c, 1) == 1) {
		char *p = map_regions(mb * MB, 1, true);

		touch(p, mb * MB);
		munmap(p, mb * MB);
		if (write(1, &c, 1) != 1)
			err(1, "stdout");
	}
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

	/* Processes that use none of the calls do not look for them. */
	if (strcmp(what, "fork") && strcmp(what, "maps") &&
	    strcmp(what, "dontneed") && strcmp(what, "faults") &&
	    strcmp(what, "free") && strcmp(what, "mark_free"))
		look_for_splittable();

	if (!strcmp(what, "give") || !strcmp(what, "free") || !strcmp(what, "free_undo"))
		give(what, arg);
	else if (!strcmp(what, "calls"))
		other_calls();
	else if (!strcmp(what, "undo") || !strcmp(what, "undo_free"))
		undo(!strcmp(what, "undo_free"));
	else if (!strcmp(what, "cycle"))
		cycle(true), cycle(false);
	else if (!strcmp(what, "zero") || !strcmp(what, "kept"))
		zero(!strcmp(what, "kept"));
	else if (!strcmp(what, "neighbours"))
		neighbours();
	else if (!strcmp(what, "limit"))
		limit(atoi(arg));
	else if (!strcmp(what, "threads"))
		threads();
	else if (!strcmp(what, "fork"))
		small_processes(atoi(arg));
	else if (!strcmp(what, "maps"))
		small_maps(atoi(arg), true);
	else if (!strcmp(what, "dontneed"))
		small_maps(atoi(arg), false);
	else if (!strcmp(what, "faults"))
		faults(atoi(arg));
	else if (!strcmp(what, "mark") || !strcmp(what, "mark_free") ||
		 !strcmp(what, "mark_free_undo") || !strcmp(what, "use") ||
		 !strcmp(what, "free_use"))
		hold(what, atoi(arg));
	else if (!strcmp(what, "wake"))
		wake();
	else if (!strcmp(what, "need"))
		need(atoi(arg));
	else if (!strcmp(what, "free_loop") && argc == 4)
		free_loop(atoi(arg), atof(argv[3]));
	else if (!strcmp(what, "stream") && argc == 4)
		stream(arg, atof(argv[3]));
	else
		errx(1, "see the source for what it can do");
	return 0;
}
