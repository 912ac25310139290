// SPDX-License-Identifier: GPL-2.0
/* Many nodes: a process on each of them uses memory of the next one. */
#define _GNU_SOURCE
#include <err.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modes.h"
#include "touch.h"

#define NODES	64
#define PAUSE	(250 * MS)	/* between samples, which cost much on slow CPUs */

/* Shared by the processes. */
struct ring {
	atomic_int ready;
	int nodes;
	struct member {
		struct histogram latency;
		double tick;
		struct progress p;
	} each[NODES];
};

/* The second CPU of the node, if it has one, leaves the first to the toucher. */
static int cpu_for_samples(const struct ring *r, int node)
{
	int each = (int)sysconf(_SC_NPROCESSORS_ONLN) / r->nodes;

	return cpu_of(node) + (each > 1);
}

static void begin_together(struct ring *r)
{
	atomic_fetch_add(&r->ready, 1);
	while (atomic_load(&r->ready) < r->nodes)
		sleep_for(MS);
}

static void use_next_node(struct ring *r, int node, size_t size)
{
	struct member *m = &r->each[node];
	struct toucher t = { .latency = &m->latency };
	char *mem;

	run_on(cpu_for_samples(r, node));
	mem = map_on(size, SMALL, (node + 1) % r->nodes);
	memset(&m->latency, 0, sizeof(m->latency));
	begin_together(r);
	start(&t, mem, size, cpu_of(node));
	begin(&m->p, t.start);
	while (m->p.share < 99 && now() - m->p.begun < LIMIT) {
		sleep_for(PAUSE);
		sample(&m->p, mem, size, node);
	}
	stop(&t);
	m->tick = t.tick;
	_exit(0);
}

/* The mean of all processes; nothing if one of them did not get so far. */
static void report_time(const struct ring *r, int share)
{
	double sum = 0;
	char name[8];

	snprintf(name, sizeof(name), "t%d", share);
	for (int i = 0; i < r->nodes; i++) {
		const struct progress *p = &r->each[i].p;

		printf("ring: node %d: %s after %.2f s, %.1f %% are local\n", i,
		       name, p->at[share], p->share);
		if (!p->at[share])
			return;
		sum += p->at[share];
	}
	figure(name, "ring", sum / r->nodes);
}

static void report_latencies(const struct ring *r)
{
	struct histogram *all = new_histogram();

	for (int i = 0; i < r->nodes; i++)
		add_histogram(all, &r->each[i].latency);
	latencies(all, r->each[0].tick, "ring");
}

static void report_dropped(struct counts c)
{
	printf("ring: %.0f pages queued, %.0f dropped\n", c.queued, c.dropped);
	if (c.queued)
		figure("dropped", "ring", 100 * c.dropped / c.queued);
}

void ring(size_t size)
{
	struct ring *r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct counts before = count();
	int status;

	if (r == MAP_FAILED)
		err(1, "mmap");
	r->nodes = last_node() + 1;
	for (int i = 0; i < r->nodes; i++)
		if (!fork())
			use_next_node(r, i, size);
	for (int i = 0; i < r->nodes; i++)
		if (wait(&status) < 0 || status)
			errx(1, "ring: a process failed");
	before = counts_since(before);
	report_time(r, 90);
	report_time(r, 99);
	report_latencies(r);
	report_counts(before, "ring");
	report_dropped(before);
}
