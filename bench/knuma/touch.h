/* SPDX-License-Identifier: GPL-2.0 */
/* A thread that touches memory at random, and the share of it that is local. */
#ifndef KNUMA_TOUCH_H
#define KNUMA_TOUCH_H

#include <pthread.h>

#include "tools.h"

#define LIMIT		(40 * SEC)
#define SAMPLE		(50 * MS)

struct toucher {
	pthread_t thread;
	char *mem;
	size_t pages;			/* number of pages to touch */
	size_t stride;			/* bytes between them, 0: PAGE */
	int cpu;
	bool reads;			/* only loads, no stores */
	volatile int move_to;		/* a CPU, or -1 */
	struct histogram *latency;	/* NULL: touches are not timed */
	uint64_t limit;			/* in touches, 0: until stop() */
	volatile bool stop;
	double start;
	/* The results */
	uint64_t touches;
	double tick, cpu_time, system, elapsed;
	double price;			/* of a touch, before any scan */
};

void start(struct toucher *t, char *mem, size_t size, int cpu);
void stop(struct toucher *t);

/* The share of the memory that is local, and the first time of each percentage. */
struct progress {
	double begun, last, share;
	double at[101];			/* s after it began, 0: not yet */
};

void begin(struct progress *p, double when);
void sample(struct progress *p, const char *mem, size_t size, int node);
/* Sample until @share percent are on @node, or @limit has passed. */
void wait_until(struct progress *p, const char *mem, size_t size, int node,
		double share, double limit);

void report_times(const struct progress *p, const char *suffix);
void report_counts(struct counts c, const char *suffix);
void report_stalls(const struct toucher *t, const char *suffix);

#endif
