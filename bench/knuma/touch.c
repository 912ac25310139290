// SPDX-License-Identifier: GPL-2.0
/* The thread that touches memory at random, and reports about its memory. */
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <string.h>

#include "touch.h"

#define BATCH		1024
#define PRICED		(2 << 20)	/* touches */

static inline volatile uint64_t *pick_line(const struct toucher *t, uint64_t random)
{
	/* Any cache line of any page. */
	return (uint64_t *)(t->mem + pick(random, t->pages) * t->stride +
			    (random & (PAGE - 64)));
}

static inline uint64_t touch_one(const struct toucher *t, uint64_t random)
{
	random = next_random(random);
	++*pick_line(t, random);
	return random;
}

static inline uint64_t read_one(const struct toucher *t, uint64_t random)
{
	random = next_random(random);
	(void)*pick_line(t, random);
	return random;
}

static uint64_t touch_plainly(struct toucher *t, uint64_t random, uint64_t nr)
{
	while (nr--)
		random = touch_one(t, random);
	return random;
}

/* A time is from one touch to the next, so it contains each delay of the thread. */
static uint64_t touch_timed(struct toucher *t, uint64_t random, uint64_t nr)
{
	uint64_t from = tsc(), to;

	while (nr--) {
		random = touch_one(t, random);
		to = tsc();
		note(t->latency, to - from);
		from = to;
	}
	return random;
}

static uint64_t read_timed(struct toucher *t, uint64_t random, uint64_t nr)
{
	uint64_t from = tsc(), to;

	while (nr--) {
		random = read_one(t, random);
		to = tsc();
		note(t->latency, to - from);
		from = to;
	}
	return random;
}

static uint64_t touch_batch(struct toucher *t, uint64_t random)
{
	t->touches += BATCH;
	if (!t->latency)
		return touch_plainly(t, random, BATCH);
	return t->reads ? read_timed(t, random, BATCH) :
			  touch_timed(t, random, BATCH);
}

static void follow(struct toucher *t)
{
	int cpu = t->move_to;

	if (cpu < 0)
		return;
	t->move_to = -1;
	run_on(cpu);
}

static void *touch(void *arg)
{
	struct toucher *t = arg;
	uint64_t random = 0x2545f4914f6cdd1dULL + t->cpu;
	struct clocks clocks;
	double cpu, system;

	run_on(t->cpu);
	if (!t->latency) {
		/* Before the first scan of this thread. */
		cpu = thread_cpu();
		random = touch_plainly(t, random, PRICED);
		t->price = (thread_cpu() - cpu) / PRICED;
	}

	clocks = read_clocks();
	system = system_time();
	cpu = thread_cpu();
	while (!t->stop && (!t->limit || t->touches < t->limit)) {
		follow(t);
		random = touch_batch(t, random);
	}
	t->cpu_time = thread_cpu() - cpu;
	t->system = system_time() - system;
	t->elapsed = now() - clocks.ns;
	t->tick = ns_per_tick(clocks);
	return NULL;
}

void start(struct toucher *t, char *mem, size_t size, int cpu)
{
	t->mem = mem;
	t->stride = t->stride ?: PAGE;
	t->pages = size / t->stride;
	t->cpu = cpu;
	t->move_to = -1;
	t->start = now();
	if (pthread_create(&t->thread, NULL, touch, t))
		errx(1, "pthread_create");
}

void stop(struct toucher *t)
{
	t->stop = true;
	pthread_join(t->thread, NULL);
}

void begin(struct progress *p, double when)
{
	memset(p, 0, sizeof(*p));
	p->begun = p->last = when;
}

void sample(struct progress *p, const char *mem, size_t size, int node)
{
	double when = now(), share = share_on(mem, size, node);

	/* In between, as if it had gone evenly. */
	for (int i = 1; i <= 100; i++)
		if (!p->at[i] && share >= i)
			p->at[i] = (p->last - p->begun + (when - p->last) *
				    (share > p->share ? (i - p->share) /
				     (share - p->share) : 1)) / SEC;
	p->last = when;
	p->share = share;
}

void wait_until(struct progress *p, const char *mem, size_t size, int node,
		double share, double limit)
{
	while (p->share < share && now() - p->begun < limit) {
		sleep_for(SAMPLE);
		sample(p, mem, size, node);
	}
}

void report_times(const struct progress *p, const char *suffix)
{
	static const int share[] = { 50, 90, 95, 99 };
	char name[8];

	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "t%d", share[i]);
		if (p->at[share[i]])
			figure(name, suffix, p->at[share[i]]);
		else
			printf("%s_%s: not in %.1f s, %.1f %% are local\n",
			       name, suffix, (p->last - p->begun) / SEC,
			       p->share);
	}
}

void report_counts(struct counts c, const char *suffix)
{
	printf("%s: %.0f hinting faults, %.0f of them local; %.0f pages moved, "
	       "%.0f failed; %.0f TLB flush interrupts\n", suffix, c.faults,
	       c.local_faults, c.moved, c.failed, c.flushes);
	if (!c.moved)
		return;
	figure("faults", suffix, c.faults / c.moved);
	figure("remote_faults", suffix,
	       (c.faults - c.local_faults) / c.moved);
	figure("flushes", suffix, c.flushes / c.moved);
}

/* A touch without a delay takes much less than 10 us. */
void report_stalls(const struct toucher *t, const char *suffix)
{
	const struct histogram *h = t->latency;

	printf("%s: %.3g touches in %.2f s, longer than 10 us %.0f, 100 us "
	       "%.0f, 1 ms %.0f, 10 ms %.0f\n", suffix, (double)t->touches,
	       t->elapsed / SEC, number_above(h, 1e4 / t->tick),
	       number_above(h, 1e5 / t->tick), number_above(h, 1e6 / t->tick),
	       number_above(h, 1e7 / t->tick));
	figure("over_1ms", suffix, number_above(h, 1e6 / t->tick));
	figure("stalled", suffix,
	       sum_above(h, 1e4 / t->tick) * t->tick / t->elapsed * 100);
}
