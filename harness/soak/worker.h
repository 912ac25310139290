/* SPDX-License-Identifier: GPL-2.0 */
/* Worker processes, their regions of memory, and the calls on these. */
#ifndef WORKER_H
#define WORKER_H

#include "soak.h"

#define MAX_NEIGHBOURS	64
#define MAX_CALLS	80
#define MAX_PAGES	1024UL		/* of a region */
#define SLOT_PAGES	64UL		/* locked together */
#define ALL_SLOTS	0xffffU
#define MAX_REGIONS	10		/* of a process */
#define LOG_CALLS	48		/* remembered of each thread */

enum region_kind {
	ANON,			/* private anonymous memory */
	SHARED,			/* shared anonymous memory */
	MEMFD,			/* shared mapping of a memfd */
	FILE_SHARED,		/* shared mapping of a file */
	FILE_PRIVATE,		/* private mapping of a file of zeroes */
	HUGETLB,		/* private hugetlb memory; those that follow are hugetlb, too */
	HUGETLB_SHARED,		/* shared anonymous hugetlb memory */
	HUGETLB_MEMFD,		/* shared mapping of a memfd of huge pages */
	NR_KINDS,
};

/*
 * The state of a page, as far as the program knows. Without a bit, the page has @stamp in it, or
 * zeroes if that is 0.
 */
enum page_state {
	MAY_ZERO = 1,		/* or zeroes, at any time: MADV_FREE */
	MARKED = 2,		/* the same of MADV_SPLITTABLE: a store may be lost, too */
	STORED = 4,		/* a store while it was marked: @stored, too */
	UNREAD = 8,		/* or zeroes: the next read decides */
	READ_ONLY = 16,
	NO_ACCESS = 32,
	GUARD = 64,
	LOCKED = 128,
	UNKNOWN = 256,		/* the call that changes it has failed half way */
	GONE = 512,		/* read as zero since MADV_FREE or MADV_SPLITTABLE: stays so */
};

struct page {
	uint32_t stamp;
	uint32_t stored;
	uint16_t state;
};

/*
 * A region is changed by the thread that has set the bits of its slots in @busy:
 * some for a part of it, all for changes of the whole mapping.
 */
struct region {
	atomic_uint busy;
	enum region_kind kind;
	char *addr;
	size_t pages;
	int fd;
	bool sealed;
	bool half;		/* mprotect() or mseal() has failed half way */
	bool touched_policy;	/* by set_mempolicy(), move_pages() and the like */
	bool merged;		/* KSM may share its pages with other nodes */
	bool huge;		/* khugepaged chooses a node of its own */
	bool wiped;		/* MADV_WIPEONFORK or MADV_DONTFORK: a child has nothing */
	unsigned long nodes;	/* that its MPOL_BIND allows, or 0 */
	unsigned long epoch;	/* policy_epoch() at that time */
	struct page page[MAX_PAGES];
};

struct logged {
	const char *name;	/* of the call; the same in each process */
	void *addr;
	unsigned int region, first, pages;
	int result;
};

struct thread_state {
	atomic_ulong calls;
	atomic_bool realtime;
	atomic_uint next;
	struct logged log[LOG_CALLS];
};

/* A thread whose memory is on another node; NUMA balancing has to bring it. */
struct canary {
	atomic_bool watched;
	atomic_ulong touches;
	atomic_long cpu_ms;		/* that it has run */
	atomic_int node;		/* where it runs */
	atomic_int percent;		/* of its memory there */
	atomic_int flips;		/* how often it has got there */
};

struct shared {
	double began;
	atomic_bool over, violated, round_over, knobs_change;
	char violation[1200];
	int violator;			/* thread, or -1 */
	char without[1024];		/* calls and neighbours left out of this round */
	atomic_bool neighbour_on[MAX_NEIGHBOURS];
	atomic_int moving;		/* neighbours that move pages whatever their policy */
	atomic_ulong policy_epoch;
	atomic_ulong realtime_us;	/* that threads have run at SCHED_FIFO */
	struct thread_state threads[MAX_PROCESSES * MAX_THREADS];
	struct canary canaries[MAX_PROCESSES];
};

extern struct shared *shared;

struct worker {
	unsigned int number;		/* of the thread, in all processes */
	unsigned int process;
	struct rng rng;
	uint32_t next_stamp;
};

/* A call does not run on this region; another one is chosen. */
#define NOT_HERE	1

/**
 * struct call - one call of the vocabulary
 * @name: as in program files
 * @weight: how often it is chosen
 * @whole: it needs the region as a whole
 * @series: stock kernels have no such call
 * @topic: the topics that it is of interest to
 * @run: performs it on the pages [first, first + n) of the region, checks the
 *	result and updates the model; returns 0, -errno, or NOT_HERE
 */
struct call {
	const char *name;
	unsigned int weight;
	bool whole;
	bool series;
	const char *topic;
	int (*run)(struct worker *w, struct region *r, size_t first, size_t n);
};

extern const struct call calls[];
extern const unsigned int nr_calls;

/* soak.c */
struct rng rng_stream(uint64_t stream);
bool left_out(const char *name);
unsigned long policy_epoch(void);

/* worker.c */
void worker_init(void);
void worker_process(unsigned int process, unsigned int incarnation);
void worker_forget(unsigned int process);
int worker_of_caller(void);
unsigned long worker_calls(bool no_realtime);
const char *worker_canaries(void);
void worker_check_canaries(void);
void worker_report(int violator);
void worker_trail(void);
unsigned int worker_cpus(void);
unsigned int worker_nodes(void);

/* model.c */
extern struct region regions[MAX_REGIONS];

bool region_map(struct worker *w, struct region *r);
void region_unmap(struct region *r);
unsigned int region_number(const struct region *r);
bool region_is_hugetlb(const struct region *r);
void region_zap_marked(struct region *r, size_t first, size_t n);
bool region_page_is(const struct region *r, size_t page, unsigned int state);
bool region_any(const struct region *r, size_t first, size_t n, unsigned int state);
bool region_check_page(struct region *r, size_t page, const char *addr, const char *class);
void region_check(struct region *r, size_t first, size_t n, const char *class);
void region_check_child(struct region *r);
void region_keep(struct region *r, size_t first, size_t n, unsigned int state);
void region_write(struct worker *w, struct region *r, size_t first, size_t n);
void region_zero(struct region *r, size_t first, size_t n);
void page_fill(char *addr, uint32_t stamp);
bool page_is(const char *addr, uint32_t stamp);

#endif
