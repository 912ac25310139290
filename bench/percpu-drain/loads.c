// SPDX-License-Identifier: GPL-2.0
/*
 * What drains per-CPU caches, and what fills them:
 *   loads fill CPU        use memory on that CPU, a few folios for each batch
 *   loads spin CPU FILE   stay there, in user mode; SIGUSR1: use memory, tell in
 *                         FILE how often that was, go on
 *   loads LOAD            one of those below
 *   loads cost CPU        what a fault, a write to a file and mlock() take there
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define PAGE	4096UL
#define HPAGE	(2UL << 20)

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "cannot run on CPU %d", cpu);
}

static char *map(size_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

static int shmem(void)
{
	int fd = memfd_create("loads", MFD_ALLOW_SEALING);

	if (fd < 0)
		err(1, "memfd_create");
	return fd;
}

static void write_pages(int fd, int nr)
{
	static char page[PAGE];

	while (nr--)
		if (write(fd, page, PAGE) != (ssize_t)PAGE)
			err(1, "write");
}

/* As many as are left behind when a task has started up, say. */
static void fill(void)
{
	char *p = map(12 * PAGE);
	int fd = shmem();

	for (int i = 0; i < 12; i++)
		p[i * PAGE] = 1;
	mlock(p, 2 * PAGE);
	munlock(p, PAGE);
	madvise(p + 4 * PAGE, 2 * PAGE, MADV_FREE);
	madvise(p + 6 * PAGE, 2 * PAGE, MADV_COLD);
	write_pages(fd, 3);
	munmap(p, 12 * PAGE);
	close(fd);
}

static volatile sig_atomic_t wanted;

static void on_signal(int sig)
{
	wanted++;
}

/* Tells in a file how often it has used memory. */
static void spin(int cpu, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600), filled = 0, len;
	char text[16];

	if (fd < 0)
		err(1, "%s", path);
	run_on(cpu);
	signal(SIGUSR1, on_signal);
	for (;;)
		if (filled != wanted) {
			fill();
			len = snprintf(text, sizeof(text), "%d\n", ++filled);
			if (pwrite(fd, text, len, 0) != len)
				err(1, "%s", path);
		}
}

/* 256 MiB of small pages become huge ones. */
static void collapse(void)
{
	size_t size = 256UL << 20;
	char *p = map(size + HPAGE);

	p = (char *)(((unsigned long)p + HPAGE - 1) & ~(HPAGE - 1));
	madvise(p, size, MADV_NOHUGEPAGE);
	memset(p, 1, size);
	madvise(p, size, MADV_HUGEPAGE);
	if (madvise(p, size, MADV_COLLAPSE))
		err(1, "MADV_COLLAPSE");
}

/* Pages that are mapped cannot be invalidated, which drains all batches. */
static void fadvise(const char *disk)
{
	int fd = open(disk, O_RDWR);
	volatile char *p;

	if (fd < 0)
		err(1, "%s", disk);
	p = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		err(1, "%s", disk);
	for (int i = 0; i < 4; i++)
		p[i * PAGE];
	if (posix_fadvise(fd, 0, 4 * PAGE, POSIX_FADV_DONTNEED))
		err(1, "fadvise");
}

static void move(void)
{
	char *p = map(PAGE);
	void *pages[] = { p };
	int nodes[] = { 1 }, status[1];

	*p = 1;
	if (syscall(SYS_move_pages, 0, 1, pages, nodes, status, MPOL_MF_MOVE))
		err(1, "move_pages");
}

static void bind_memory(void)
{
	unsigned long node = 2;
	char *p = map(PAGE);

	*p = 1;
	if (syscall(SYS_mbind, p, PAGE, MPOL_BIND, &node, 8, MPOL_MF_MOVE))
		err(1, "mbind");
}

/* A page that isolated CPUs have in a batch cannot be sealed before a drain. */
static void seal(int argc, char **argv)
{
	int fd = shmem(), i;

	for (i = 0; i < argc; i++)
		if (!fork()) {
			run_on(atoi(argv[i]));
			write_pages(fd, 1);
			_exit(0);
		}
	while (wait(NULL) > 0)
		;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE))
		err(1, "F_SEAL_WRITE");
}

/* Gilad Ben-Yossef's, of 2012: many tasks talk while one eats all memory. */
static void oom(void)
{
	pid_t eater, talker[16];
	int pipes[2], i, status;
	char byte = 0;

	for (i = 0; i < 16; i++) {
		if (pipe(pipes))
			err(1, "pipe");
		talker[i] = fork();
		if (!talker[i])
			for (;;)
				if (write(pipes[1], &byte, 1) != 1 ||
				    read(pipes[0], &byte, 1) != 1)
					_exit(0);
	}
	eater = fork();
	if (!eater) {
		int fd = open("/proc/self/oom_score_adj", O_WRONLY);

		if (write(fd, "1000", 4) != 4)
			_exit(1);
		for (;;)
			memset(map(HPAGE), 1, HPAGE);
	}
	waitpid(eater, &status, 0);
	for (i = 0; i < 16; i++)
		kill(talker[i], SIGKILL);
	if (!WIFSIGNALED(status))
		errx(1, "the eater of memory was not killed");
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

#define COST_PAGES 8192

static void cost(int cpu)
{
	size_t size = COST_PAGES * PAGE;
	char *p = map(size);
	int fd = shmem(), i;
	double start;

	run_on(cpu);
	madvise(p, size, MADV_NOHUGEPAGE);
	/* Once to warm up: page tables, and pages that are cleared. */
	for (int turn = 0; turn < 2; turn++) {
		madvise(p, size, MADV_DONTNEED);
		start = now();
		for (i = 0; i < COST_PAGES; i++)
			p[i * PAGE] = 1;
		if (turn)
			printf("= fault_%d %.0f\n", cpu, (now() - start) / COST_PAGES);
		if (ftruncate(fd, 0) || lseek(fd, 0, SEEK_SET))
			err(1, "ftruncate");
		start = now();
		write_pages(fd, COST_PAGES);
		if (turn)
			printf("= write_%d %.0f\n", cpu, (now() - start) / COST_PAGES);
		start = now();
		if (mlock(p, size) || munlock(p, size))
			err(1, "mlock");
		if (turn)
			printf("= mlock_%d %.0f\n", cpu, (now() - start) / COST_PAGES);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int cpu = argc > 2 ? atoi(argv[2]) : 0;

	if (!strcmp(what, "fill")) {
		run_on(cpu);
		fill();
	} else if (!strcmp(what, "spin")) {
		spin(cpu, argc > 3 ? argv[3] : "");
	} else if (!strcmp(what, "cost")) {
		cost(cpu);
	} else if (!strcmp(what, "collapse")) {
		collapse();
	} else if (!strcmp(what, "fadvise")) {
		fadvise(argc > 2 ? argv[2] : "");
	} else if (!strcmp(what, "move_pages")) {
		move();
	} else if (!strcmp(what, "mbind")) {
		bind_memory();
	} else if (!strcmp(what, "seal")) {
		seal(argc - 2, argv + 2);
	} else if (!strcmp(what, "oom")) {
		oom();
	} else {
		errx(2, "no such load: %s", what);
	}
	return 0;
}
