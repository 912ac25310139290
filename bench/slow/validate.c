// SPDX-License-Identifier: GPL-2.0
/*
 * validate - is a guest of MODE=slow a machine of equally slow CPUs?
 *
 *   validate ROUNDS MIB THREADS...
 *
 * has each number of THREADS fill MIB of memory, so that it is on their nodes, prints
 * "filled", and waits for a line of input. Threads are pinned to CPUs, from the last
 * one down, because the first one keeps the time and runs the kernel's own threads.
 * Prints for each number, the median of ROUNDS:
 *   = user_N       seconds for a fixed amount of work in registers, shared
 *   = short_N      seconds for a fixed number of acquisitions of one spinlock, shared;
 *                  a tenth of the work is done with the lock held, 200 instructions
 *   = long_N       the same with 2,000 instructions, and a tenth of the acquisitions
 *   = dontneed_N   seconds of MADV_DONTNEED of MIB of memory, shared
 * and once, with two CPUs:
 *   = round_trip   of an interrupt to a running CPU, in instructions of a CPU
 */
#define _GNU_SOURCE
#include <err.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX		64
#define ROUNDS		99
#define USER_LOOPS	(64L << 20)
#define LOCKED		(1L << 16)	/* acquisitions */
#define INSIDE		100L		/* loops with the lock held; nine times as many without */
#define CALLS		2000

static int threads, rounds;
static size_t size;
static char *memory, *memories[MAX];
static pthread_barrier_t begin;
static atomic_int lock, stop;
static volatile long shared;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Two instructions a loop. */
static void loops(long n)
{
	asm volatile("1: dec %0; jnz 1b" : "+r" (n));
}

static void user(int i)
{
	(void)i;
	loops(USER_LOOPS / threads);
}

static void locked(long acquisitions, long inside)
{
	for (long n = acquisitions / threads; n; n--) {
		while (atomic_exchange_explicit(&lock, 1, memory_order_acquire))
			while (atomic_load_explicit(&lock, memory_order_relaxed))
				__builtin_ia32_pause();
		loops(inside);
		shared++;
		atomic_store_explicit(&lock, 0, memory_order_release);
		loops(9 * inside);
	}
}

static void locked_short(int i)
{
	(void)i;
	locked(LOCKED, INSIDE);
}

static void locked_long(int i)
{
	(void)i;
	locked(LOCKED / 10, 10 * INSIDE);
}

static void fill(int i)
{
	size_t share = size / threads;

	memset(memory + i * share, 1, share);
}

static void dontneed(int i)
{
	size_t share = size / threads;

	if (madvise(memory + i * share, share, MADV_DONTNEED))
		err(1, "MADV_DONTNEED");
}

/* To a CPU, counted from the last one. */
static void pin(int index)
{
	int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1 - index;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %d", cpu);
}

struct task {
	pthread_t thread;
	int index;
	void (*work)(int index);
};

static void *run(void *data)
{
	struct task *task = data;

	pin(task->index);
	pthread_barrier_wait(&begin);
	task->work(task->index);
	return NULL;
}

static double seconds(void (*work)(int index))
{
	struct task tasks[MAX];
	double start;

	pthread_barrier_init(&begin, NULL, threads + 1);
	for (int i = 0; i < threads; i++) {
		tasks[i].index = i;
		tasks[i].work = work;
		if (pthread_create(&tasks[i].thread, NULL, run, &tasks[i]))
			errx(1, "no thread");
	}
	/* All wait, so none has begun when the time is taken. */
	usleep(100000);
	start = now();
	pthread_barrier_wait(&begin);
	for (int i = 0; i < threads; i++)
		pthread_join(tasks[i].thread, NULL);
	start = now() - start;
	pthread_barrier_destroy(&begin);
	return start;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void measure(const char *name, void (*work)(int index))
{
	double took[ROUNDS];

	for (int i = 0; i < rounds; i++) {
		/* It was filled before the CPUs became slow, for one round. */
		if (i && work == dontneed)
			seconds(fill);
		took[i] = seconds(work);
	}
	qsort(took, rounds, sizeof(took[0]), compare);
	printf("= %s_%d %.4f\n", name, threads, took[rounds / 2]);
}

static void *spin(void *data)
{
	(void)data;
	pin(1);
	pthread_barrier_wait(&begin);
	while (!stop)
		;
	return NULL;
}

/* A membarrier interrupts the CPU on which another thread of the process runs. */
static void round_trip(void)
{
	double start, loop, call;
	pthread_t thread;

	pin(0);
	start = now();
	loops(1000000);
	loop = (now() - start) / 2000000;
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
		err(1, "membarrier");
	pthread_barrier_init(&begin, NULL, 2);
	if (pthread_create(&thread, NULL, spin, NULL))
		errx(1, "no thread");
	pthread_barrier_wait(&begin);
	start = now();
	for (int i = 0; i < CALLS; i++)
		syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	call = (now() - start) / CALLS;
	stop = 1;
	pthread_join(thread, NULL);
	printf("= round_trip %.0f\n", call / loop);
}

int main(int argc, char **argv)
{
	if (argc < 4 || argc > 3 + MAX)
		errx(2, "usage: validate ROUNDS MIB THREADS...");
	rounds = atoi(argv[1]);
	if (rounds < 1 || rounds > ROUNDS)
		errx(2, "give 1 to %d rounds, not %s", ROUNDS, argv[1]);
	setlinebuf(stdout);
	size = strtoul(argv[2], NULL, 10) << 20;
	for (int i = 3; i < argc; i++) {
		threads = atoi(argv[i]);
		if (threads < 1 || threads > MAX)
			errx(2, "give 1 to %d threads, not %s", MAX, argv[i]);
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			err(1, "mmap");
		madvise(memory, size, MADV_NOHUGEPAGE);
		seconds(fill);
		memories[i - 3] = memory;
	}
	puts("filled");
	getchar();
	for (int i = 3; i < argc; i++) {
		threads = atoi(argv[i]);
		measure("user", user);
		measure("short", locked_short);
		measure("long", locked_long);
	}
	round_trip();
	for (int i = 3; i < argc; i++) {
		threads = atoi(argv[i]);
		memory = memories[i - 3];
		measure("dontneed", dontneed);
	}
	return 0;
}
