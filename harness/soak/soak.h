/* SPDX-License-Identifier: GPL-2.0 */
/*
 * soak - random programs on stamped memory, beside hostile neighbours, checked
 * against a model that knows the documented contracts only.
 *
 * soak.c		the supervisor: rounds of processes, report, command line
 * worker.c		processes and threads, the choice of calls, the log of calls
 * model.c		regions of memory: which contents each page may have
 * calls.c		the calls, their results, and their effect on the model
 * neighbours.c		kernel activities that are switched on and off at random
 * knobs.c		sysfs files of the series: legal and illegal values
 * groups.c		control groups, and processes that move between them
 * sums.c		sums that return to zero when all processes have exited
 *
 * A run is described by a program file, see program_read() in soak.c.
 */
#ifndef SOAK_H
#define SOAK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define MIB		(1UL << 20)
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define MAX_PROCESSES	8
#define MAX_THREADS	4		/* of a process */

/* Random numbers: the same seed gives the same ones. */
struct rng {
	uint64_t state;
};

uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t n);	/* 0 to n - 1 */
bool rng_chance(struct rng *rng, unsigned int percent);

/* The program file. A list that is NULL means all. */
struct program {
	uint64_t seed;
	unsigned int seconds;		/* of guest time */
	unsigned int processes;
	unsigned int threads;		/* of each process */
	bool series;			/* use calls and knobs of the series */
	char *topic;			/* calls and neighbours to prefer, or NULL */
	char *calls;			/* names, each between spaces */
	char *neighbours;
	char *knobs;
	char *apart;			/* "call/neighbour" pairs that do not meet */
};

extern struct program program;

/* True if @name is in @list, or @list is NULL. */
bool listed(const char *list, const char *name);

/*
 * Report a violation of class @class, and end the run. The first one counts.
 * Classes: contents, result, undo, policy, quota, counter, leak, knob, stuck,
 * starved. Callable from any process.
 */
void violation(const char *class, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* True if the run is over: after its time, or after a violation. */
bool over(void);
/* A line of the log, with the guest's seconds before it. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Small file helpers; @format-ed paths would be more than most callers need. */
int put(const char *path, const char *text);		/* 0 or -errno */
int putf(const char *path, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
long get(const char *path);				/* a number, or -1 */
long get_key(const char *path, const char *key);	/* "key 5", "key: 5 kB", or -1 */
bool exists(const char *path);
void on_each_cpu(void (*function)(void));
double now(void);					/* seconds, monotonic */
double soak_realtime(void);	/* seconds that all threads have run at SCHED_FIFO */

/*
 * neighbours.c: each neighbour runs in a process of its own, as root, while it
 * is on: start() once (false: this kernel or machine has none of it, the
 * neighbour is not used), tick() again and again with a pause in between, stop()
 * once. The supervisor calls stop() again if that process was killed.
 */
struct neighbour {
	const char *name;
	unsigned int pause_ms;		/* between two ticks */
	bool (*start)(struct rng *rng);
	void (*tick)(struct rng *rng);	/* NULL: start() was all */
	void (*stop)(void);
};

extern const struct neighbour neighbours[];
extern const unsigned int nr_neighbours;

#define SWAP_DEVICE	"/dev/zram0"	/* of the guest; neighbour zram has others */
bool swap_fits(void);			/* there is room to swap all pages in */

/*
 * knobs.c: set a random knob to a random legal or illegal value. A legal value
 * has to be taken and read back, an illegal one has to be refused with EINVAL
 * and leave the old value; else violation("knob", ...). knobs_default() puts
 * every knob to a state in which the topics are enabled and else as they boot,
 * knobs_off() to upstream's behaviour.
 */
void knobs_init(void);
void knobs_random(struct rng *rng);
void knobs_default(void);
void knobs_off(void);
void knobs_list(void);			/* print their names, a line each */

/*
 * groups.c: control groups with and without cpu.max, cpu.weight, memory.max,
 * memory.high and cpusets, all below /sys/fs/cgroup/soak. groups_tick() changes
 * a limit or a cpuset, or reclaims from a group. groups_move() moves a process
 * (pid 0: the caller) to a random group. groups_check() reports
 * violation("quota", ...) if a group got more CPU time than its quota allows.
 * groups_policy_epoch() counts the changes of cpuset.mems.
 */
bool groups_init(void);
void groups_update_counts(void);
void groups_tick(struct rng *rng);
void groups_move(struct rng *rng, pid_t pid);
void groups_check(void);
unsigned long groups_policy_epoch(void);
unsigned long groups_oom_kills(void);	/* processes killed for a memory.max */
void groups_calm(void);			/* no limits, all CPUs and nodes */
void groups_exit(void);			/* remove the groups once they are empty */

/*
 * sums.c: sums_begin() before the first process starts, sums_end() after the
 * last one has exited and the knobs are at their defaults: violation("counter"
 * or "leak", ...) for what has not come back. sums_tick() checks at any time
 * that no counter exceeds the memory there is.
 */
void sums_begin(void);
void sums_tick(void);
void sums_end(void);

#endif
