// SPDX-License-Identifier: GPL-2.0
/*
 * The four loads that NUMA balancing was first shown with, after published
 * descriptions. Each begins with all its memory on the last node.
 *   numa01         two processes; each thread writes to all its process has
 *   numa01_local   two processes; each thread writes to a slice of its own
 *   numa02         one process, a thread a CPU, each with a slice
 *   numa02_smt     the same, with threads for half of the CPUs
 * "hard" binds threads and memory where they belong, "inverse" has each
 * thread's memory on another node: between these two lies all that balancing
 * can do. A store to each cache line stands for clearing all of it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modes.h"
#include "tools.h"

#define LINE	64
#define SAMPLE	(100 * MS)

/* Shared by the processes. */
struct load {
	size_t size;
	int processes, threads;
	double time;
	bool slices, bound, inverse;
	atomic_int ready;
	struct {
		double begun, passes, t90, share;
	} each[2];
};

struct worker {
	pthread_t thread;
	struct load *load;
	char *mem;
	size_t size;
	int number;			/* of all processes */
	volatile int cpu;		/* where it was when last asked */
	double passes;			/* over its memory, a second */
};

static int cpu_for(struct load *l, int worker)
{
	return worker * (int)sysconf(_SC_NPROCESSORS_ONLN) /
	       (l->processes * l->threads);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	double begun = now(), passes = 0, time;

	/* Where it begins is the same each time; the rest is the scheduler's. */
	run_on(cpu_for(w->load, w->number));
	if (!w->load->bound)
		run_anywhere();
	do {
		w->cpu = sched_getcpu();
		for (size_t k = 0; k < w->size; k += LINE)
			*(volatile uint64_t *)(w->mem + k) = 0;
		passes++;
		time = now() - begun;
	} while (time < w->load->time);
	w->passes = passes * SEC / time;
	return NULL;
}

/* One that is bound has its memory where its thread is, or just not there. */
static void place(struct load *l, struct worker *w)
{
	int node = last_node();

	if (l->bound)
		node = node_of(cpu_for(l, w->number));
	if (l->inverse)
		node = last_node() - node;
	bind_to(w->mem, w->size, node);
	for (size_t i = 0; i < w->size; i += PAGE)
		w->mem[i] = 1;
	if (!l->bound)
		bind_default(w->mem, w->size);
}

static double share_local(struct load *l, struct worker *w)
{
	double share = 0;

	for (int i = 0; i < l->threads; i++)
		share += share_on(w[i].mem, w[i].size, node_of(w[i].cpu));
	return share / l->threads;
}

static void begin_together(struct load *l)
{
	atomic_fetch_add(&l->ready, 1);
	while (atomic_load(&l->ready) < l->processes)
		sleep_for(MS);
}

static void process(struct load *l, int number)
{
	size_t slice = l->slices ? l->size / l->threads : l->size;
	struct worker w[l->threads];
	double share;
	char *mem = map(l->size, SMALL);

	memset(w, 0, sizeof(w));
	for (int i = 0; i < l->threads; i++) {
		w[i].load = l;
		w[i].number = number * l->threads + i;
		w[i].mem = mem + (l->slices ? i * slice : 0);
		w[i].size = slice;
		if (!i || l->slices)
			place(l, &w[i]);
	}
	begin_together(l);
	l->each[number].begun = now();
	for (int i = 0; i < l->threads; i++)
		if (pthread_create(&w[i].thread, NULL, work, &w[i]))
			errx(1, "pthread_create");
	while (now() - l->each[number].begun < l->time) {
		sleep_for(SAMPLE);
		share = share_local(l, w);
		if (share >= 90 && !l->each[number].t90)
			l->each[number].t90 = now();
	}
	for (int i = 0; i < l->threads; i++) {
		pthread_join(w[i].thread, NULL);
		l->each[number].passes += w[i].passes / l->threads;
	}
	l->each[number].share = share_local(l, w);
	_exit(0);
}

static void report(struct load *l, struct counts c, const char *suffix)
{
	double passes = 0, t90 = 0, share = 0;
	bool all = true;

	for (int i = 0; i < l->processes; i++) {
		double after = (l->each[i].t90 - l->each[i].begun) / SEC;

		printf("%s %d: %.1f passes a second, %.1f %% local in the end, "
		       "90 %% after %.2f s\n", suffix, i, l->each[i].passes,
		       l->each[i].share, l->each[i].t90 ? after : -1);
		passes += l->each[i].passes / l->processes;
		share += l->each[i].share / l->processes;
		if (after > t90)
			t90 = after;
		all = all && l->each[i].t90;
	}
	figure("passes", suffix, passes);
	figure("share", suffix, share);
	if (all)
		figure("t90", suffix, t90);
	printf("%s: %.0f hinting faults, %.0f of them local, %.0f pages moved\n",
	       suffix, c.faults, c.local_faults, c.moved);
	figure("hinted", suffix, c.faults);
	figure("moved", suffix, c.moved);
}

static struct load *new_load(const char *name, const char *bind)
{
	int nr = sysconf(_SC_NPROCESSORS_ONLN);
	struct load *l;

	l = mmap(NULL, sizeof(*l), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (l == MAP_FAILED)
		err(1, "mmap");
	l->processes = strncmp(name, "numa01", 6) ? 1 : 2;
	l->threads = !strcmp(name, "numa02") || nr < 2 ? nr : nr / 2;
	l->slices = strcmp(name, "numa01");
	l->bound = *bind;
	l->inverse = !strcmp(bind, "inverse");
	return l;
}

void run_load(const char *name, size_t size, double time, const char *bind)
{
	struct load *l = new_load(name, bind);
	struct counts before = count();
	char suffix[64];
	int status;

	l->size = size;
	l->time = time;
	for (int i = 0; i < l->processes; i++)
		if (!fork())
			process(l, i);
	for (int i = 0; i < l->processes; i++)
		if (wait(&status) < 0 || status)
			errx(1, "%s: a process failed", name);
	snprintf(suffix, sizeof(suffix), "%s%s%s", name, *bind ? "_" : "", bind);
	report(l, counts_since(before), suffix);
}
