// SPDX-License-Identifier: GPL-2.0
/*
 * Hinting faults for each page that moves: on the first three moves of one
 * thread's memory, and for memory that two processes share.
 */
#define _GNU_SOURCE
#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modes.h"
#include "touch.h"

#define PAUSE	(4 * SEC)	/* at each node, with local memory */
#define PERIOD	(20 * SEC)	/* time limit of a move */

/* False if the memory did not follow in time. */
static bool move_to(struct toucher *t, size_t size, int node, const char *suffix)
{
	struct counts before;
	struct progress p;

	run_on(cpu_of(node ? 0 : last_node()));
	before = count();
	t->move_to = cpu_of(node);
	begin(&p, now());
	wait_until(&p, t->mem, size, node, 99, PERIOD);
	report_times(&p, suffix);
	report_counts(counts_since(before), suffix);
	return p.at[99];
}

void moves(size_t size)
{
	static const char * const suffix[] = { "first", "second", "third" };
	struct toucher t = { };
	int far = last_node();
	bool moved = true;

	run_on(cpu_of(far));
	start(&t, map_on(size, SMALL, 0), size, 0);
	/* A move that follows an incomplete one is no result. */
	for (int i = 0; i < 3 && moved; i++) {
		sleep_for(PAUSE);
		moved = move_to(&t, size, i % 2 ? 0 : far, suffix[i]);
	}
	stop(&t);
}

/* A process of its own, with two threads: one touches, one sleeps. */
static pid_t start_process(char *mem, size_t size)
{
	struct toucher t = { };
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (pid)
		return pid;
	start(&t, mem, size, 0);
	sleep_for(2 * LIMIT);
	_exit(0);
}

/* Both run on node 0. The memory is on the last node. */
void shared(size_t size)
{
	int far = last_node();
	struct toucher t = { };
	struct counts before;
	struct progress p;
	char *mem;
	pid_t pid;

	run_on(cpu_of(far));
	mem = map_shared_on(size, far);
	pid = start_process(mem, size);
	before = count();
	start(&t, mem, size, 0);
	begin(&p, t.start);
	wait_until(&p, mem, size, 0, 99, LIMIT);
	stop(&t);
	report_times(&p, "shared");
	report_counts(counts_since(before), "shared");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}
