/* SPDX-License-Identifier: GPL-2.0 */
/* Clocks, places, counters and histograms of all modes. */
#ifndef KNUMA_TOOLS_H
#define KNUMA_TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define PAGE	4096UL
#define MB	(1UL << 20)
#define HUGE	(2 * MB)
#define MS	1e6		/* ns */
#define SEC	1e9

/* Times are in ns. */
double now(void);
double thread_cpu(void);
double system_time(void);	/* of this thread; counted in ticks */
double kthread_cpu(const char *prefix);
void sleep_for(double ns);

static inline uint64_t tsc(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* Where a clock of ticks and one of ns stood at the same time. */
struct clocks {
	uint64_t tsc;
	double ns;
};

struct clocks read_clocks(void);
double ns_per_tick(struct clocks since);

static inline uint64_t next_random(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17;
}

/* One of @nr, without a division. */
static inline size_t pick(uint64_t random, size_t nr)
{
	return (random >> 32) * nr >> 32;
}

void run_on(int cpu);
void run_anywhere(void);
int node_of(int cpu);
int cpu_of(int node);		/* -1 if it has none */
int last_node(void);

enum kind {
	SMALL,
	THP,
};

enum kind kind_of(const char *name);
const char *kind_name(enum kind kind);

void bind_to(void *mem, size_t size, int node);
void bind_default(void *mem, size_t size);
char *map(size_t size, enum kind kind);
/* As if it had been touched there, long ago: no policy is left behind. */
char *map_on(size_t size, enum kind kind, int node);
char *map_shared_on(size_t size, int node);
double share_on(const char *mem, size_t size, int node);
/* The same, of each @step-th page from the @first one. */
double share_of_every(const char *mem, size_t size, int node, size_t step,
		      size_t first);
double huge_mb(void);

/* Of the whole system, since it booted. */
struct counts {
	double faults, local_faults, moved, failed, flushes;
	double queued, dropped;		/* 0 on a kernel without these counters */
};

struct counts count(void);
struct counts counts_since(struct counts before);

/* Each power of two in so many parts: good to 3 %. */
#define PARTS_SHIFT	5
#define PARTS		(1U << PARTS_SHIFT)

struct histogram {
	uint64_t nr, max;
	uint64_t each[64 * PARTS];
};

static inline unsigned int slot_of(uint64_t x)
{
	unsigned int shift;

	if (x < PARTS)
		return x;
	shift = 63 - PARTS_SHIFT - __builtin_clzll(x);
	return ((shift + 1) << PARTS_SHIFT) + (x >> shift) - PARTS;
}

static inline void note(struct histogram *h, uint64_t x)
{
	h->each[slot_of(x)]++;
	h->nr++;
	if (x > h->max)
		h->max = x;
}

struct histogram *new_histogram(void);
void add_histogram(struct histogram *to, const struct histogram *from);
double percentile(const struct histogram *h, double percent);
double sum_above(const struct histogram *h, double limit);
double number_above(const struct histogram *h, double limit);

/* Print "= NAME_SUFFIX VALUE" for the table. */
void figure(const char *name, const char *suffix, double value);
/* p50 to max, in us. */
void latencies(const struct histogram *h, double tick, const char *suffix);

#endif
