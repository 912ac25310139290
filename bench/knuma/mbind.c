// SPDX-License-Identifier: GPL-2.0
/* Calls of mbind() while memory moves: by the same process, by another user. */
#define _GNU_SOURCE
#include <err.h>
#include <linux/mempolicy.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modes.h"
#include "touch.h"

#define FILES	1024
#define USER	65534

struct binder {
	pthread_t thread;
	int cpu;
	double gap;			/* from one call to the next, in ns */
	volatile bool stop;
	volatile unsigned long calls;
};

/* A policy that differs from that of the call before. */
static void set_next_policy(char *mem, unsigned long nr)
{
	unsigned long mask = 1;

	if (syscall(SYS_mbind, mem, PAGE, nr % 2 ? MPOL_PREFERRED : MPOL_BIND,
		    &mask, 64UL, 0))
		err(1, "mbind");
}

static void *bind_often(void *arg)
{
	struct binder *b = arg;
	char *mem = map_on(PAGE, SMALL, 0);
	double due = now();

	run_on(b->cpu);
	for (; !b->stop; b->calls++) {
		set_next_policy(mem, b->calls);
		due += b->gap;
		if (due > now())
			sleep_for(due - now());
	}
	return NULL;
}

/*
 * Memory of the last node, touched on node 0 until 90 % of it are there. @calls
 * counts the calls of mbind() beside it.
 */
static void wait_for_move(size_t size, const char *suffix,
			  const volatile unsigned long *calls)
{
	struct toucher t = { };
	char *mem = map_on(size, SMALL, last_node());
	unsigned long before = *calls;
	struct counts c = count();
	struct progress p;

	start(&t, mem, size, 0);
	begin(&p, t.start);
	wait_until(&p, mem, size, 0, 90, LIMIT);
	figure("calls", suffix,
	       (*calls - before) * SEC / (now() - p.begun));
	stop(&t);
	report_times(&p, suffix);
	report_counts(counts_since(c), suffix);
}

/* One other page of the process gets a policy @rate times a second. */
void mbind_other(size_t size, double rate)
{
	struct binder b = { .cpu = cpu_of(last_node()), .gap = SEC / rate };

	run_on(b.cpu);
	if (pthread_create(&b.thread, NULL, bind_often, &b))
		errx(1, "pthread_create");
	wait_for_move(size, "mbind", &b.calls);
	b.stop = true;
	pthread_join(b.thread, NULL);
}

static void map_files(char *file[FILES])
{
	for (int i = 0; i < FILES; i++) {
		int fd = memfd_create("file", 0);

		if (fd < 0 || ftruncate(fd, PAGE))
			err(1, "memfd");
		file[i] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			       fd, 0);
		if (file[i] == MAP_FAILED)
			err(1, "mmap");
		close(fd);
	}
}

static void attack(volatile unsigned long *calls)
{
	static char *file[FILES];

	if (setresgid(USER, USER, USER) || setresuid(USER, USER, USER))
		err(1, "user %d", USER);
	map_files(file);
	for (unsigned long round = 0;; round++)
		for (int i = 0; i < FILES; i++, ++*calls)
			set_next_policy(file[i], round);
}

/* A user without privileges changes the policies of his files all the time. */
void mbind_attack(size_t size)
{
	volatile unsigned long *calls = (unsigned long *)map_shared_on(PAGE, 0);
	pid_t pid;

	run_on(cpu_of(last_node()));
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid)
		attack(calls);
	while (*calls < FILES)
		sleep_for(SAMPLE);
	wait_for_move(size, "attack", calls);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
