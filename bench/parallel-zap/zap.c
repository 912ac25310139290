// SPDX-License-Identifier: GPL-2.0
/*
 * How long it takes to give memory back:
 *   zap exit|munmap|dontneed KIND MIB    one process; times in ns
 *   zap nodes MIB                        exit, memory bound node by node
 *   zap fork N                           fork, exit and wait of a small process
 *   zap maps N KIB                       mmap, touch and munmap of KIB
 *   zap two MIB                          munmap, with a second thread that runs
 *   zap late MIB MS                      how late another task wakes up, on a
 *                                        helper's CPU, as MIB exit on CPU 0
 * KIND is 4k, thp, 64k, swap, shmem, which goes with the process, or kept,
 * which is shmem that stays, as another process has it open.
 */
#define _GNU_SOURCE
#include <err.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

#define PAGE	4096UL
#define MB	(1UL << 20)

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "cannot run on CPU %d", cpu);
}

static void run_anywhere(void)
{
	cpu_set_t set;

	memset(&set, 0xff, sizeof(set));
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "cannot run anywhere");
}

static int shared_memory(size_t size)
{
	int fd = memfd_create("zap", 0);

	if (fd < 0 || ftruncate(fd, size))
		err(1, "memfd");
	return fd;
}

/* Of a file, or anonymous if @fd is -1. */
static char *map(const char *kind, size_t size, int fd)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	char *p;

	p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd,
		 0);
	if (p == MAP_FAILED)
		err(1, "mmap of %zu bytes", size);
	/* All else is up to the guest's settings. */
	if (!strcmp(kind, "4k") || !strcmp(kind, "swap"))
		madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

struct part {
	char *p;
	size_t size;
	int cpu;
};

static void *touch_part(void *arg)
{
	struct part *part = arg;

	run_on(part->cpu);
	for (size_t i = 0; i < part->size; i += PAGE)
		part->p[i] = 1;
	return NULL;
}

/* Each CPU touches its part, on its node. */
static void touch(char *p, size_t size)
{
	int nr = sysconf(_SC_NPROCESSORS_ONLN), i;
	struct part part[nr];
	pthread_t thread[nr];

	for (i = 0; i < nr; i++) {
		part[i] = (struct part){ p + i * (size / nr), size / nr, i };
		if (pthread_create(&thread[i], NULL, touch_part, &part[i]))
			errx(1, "pthread_create");
	}
	for (i = 0; i < nr; i++)
		pthread_join(thread[i], NULL);
}

static void bind_by_node(char *p, size_t size)
{
	unsigned long mask;
	int nr = 0;
	char path[64];

	do {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d", nr);
	} while (!access(path, F_OK) && ++nr);
	for (int i = 0; i < nr; i++) {
		mask = 1UL << i;
		if (syscall(SYS_mbind, p + i * (size / nr), size / nr, MPOL_BIND,
			    &mask, 64, 0))
			err(1, "mbind");
	}
}

/* When the child began to exit. */
static volatile double *begun;

static double exit_of(const char *kind, size_t size, int nodes)
{
	int fd = strcmp(kind, "kept") ? -1 : shared_memory(size), status;
	pid_t pid;

	begun = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = fork();
	if (!pid) {
		char *p;

		if (!strcmp(kind, "shmem"))
			fd = shared_memory(size);
		p = map(kind, size, fd);
		if (nodes)
			bind_by_node(p, size);
		touch(p, size);
		if (!strcmp(kind, "swap") && madvise(p, size, MADV_PAGEOUT))
			err(1, "MADV_PAGEOUT");
		run_anywhere();
		*begun = now();
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		errx(1, "the process that was to exit has failed");
	return now() - *begun;
}

static double unmap_of(const char *what, const char *kind, size_t size)
{
	char *p = map(kind, size, -1);
	double start;
	int bad;

	touch(p, size);
	run_anywhere();
	start = now();
	bad = strcmp(what, "munmap") ? madvise(p, size, MADV_DONTNEED) :
				       munmap(p, size);
	if (bad)
		err(1, "%s", what);
	return now() - start;
}

static void small_exits(int nr)
{
	double start = now();

	for (int i = 0; i < nr; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
	printf("= fork %.0f\n", (now() - start) / nr);
}

static void maps(int nr, size_t size)
{
	double start = now();

	for (int i = 0; i < nr; i++) {
		char *p = map("4k", size, -1);

		for (size_t k = 0; k < size; k += PAGE)
			p[k] = 1;
		munmap(p, size);
	}
	printf("= maps_%zuk %.0f\n", size >> 10, (now() - start) / nr);
}

static void *run_forever(void *arg)
{
	run_on(1);
	for (;;)
		atomic_signal_fence(memory_order_seq_cst);
	return arg;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Lateness of timers on the last CPU, as another process exits on the first. */
static void late(size_t size, int ms)
{
	int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1, nr = 0, max = 100000, status;
	double *each = calloc(max, sizeof(*each)), from, to;
	struct timespec t;
	pid_t pid;

	begun = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = fork();
	if (!pid) {
		char *p = map("4k", size, -1);

		run_on(0);
		for (size_t i = 0; i < size; i += PAGE)
			p[i] = 1;
		run_anywhere();
		*begun = now();
		_exit(0);
	}
	run_on(cpu);
	clock_gettime(CLOCK_MONOTONIC, &t);
	while (waitpid(pid, &status, WNOHANG) != pid && nr < max) {
		t.tv_nsec += ms * 1000000;
		while (t.tv_nsec >= 1000000000) {
			t.tv_nsec -= 1000000000;
			t.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
		from = t.tv_sec * 1e9 + t.tv_nsec;
		to = now();
		if (*begun && from > *begun)
			each[nr++] = to - from;
		clock_gettime(CLOCK_MONOTONIC, &t);
	}
	qsort(each, nr, sizeof(*each), by_value);
	printf("%d wake-ups\n", nr);
	if (nr) {
		printf("= late_p99 %.0f\n", each[nr * 99 / 100]);
		printf("= late_max %.0f\n", each[nr - 1]);
	}
}

int main(int argc, char *argv[])
{
	const char *what = argc > 1 ? argv[1] : "";
	long number = argc > 2 ? atol(argv[2]) : 0;
	size_t size = argc > 3 ? atol(argv[3]) * MB : 0;
	pthread_t thread;

	setlinebuf(stdout);
	if (!strcmp(what, "exit") && size) {
		printf("= exit_%s %.0f\n", argv[2], exit_of(argv[2], size, 0));
	} else if ((!strcmp(what, "munmap") || !strcmp(what, "dontneed")) && size) {
		printf("= %s_%s %.0f\n", what, argv[2], unmap_of(what, argv[2], size));
	} else if (!strcmp(what, "nodes") && number) {
		printf("= nodes %.0f\n", exit_of("4k", number * MB, 1));
	} else if (!strcmp(what, "fork") && number) {
		small_exits(number);
	} else if (!strcmp(what, "maps") && number && argc > 3) {
		maps(number, atol(argv[3]) << 10);
	} else if (!strcmp(what, "two") && number) {
		if (pthread_create(&thread, NULL, run_forever, NULL))
			errx(1, "pthread_create");
		printf("= two %.0f\n", unmap_of("munmap", "4k", number * MB));
	} else if (!strcmp(what, "late") && number && argc > 3) {
		late(number * MB, atoi(argv[3]));
	} else {
		errx(2, "usage: see the source");
	}
	return 0;
}
