// SPDX-License-Identifier: GPL-2.0
/*
 * The cost of NUMA balancing to tasks that use the memory, and the time until
 * the memory is local. The modes are:
 *   numa converge 4k|thp MIB [read|busy|alone|loaded]   memory on the far node,
 *                                    touched at random until it is local; "read":
 *                                    loads only; "busy": a second thread runs on
 *                                    another CPU; "alone": there is only one CPU;
 *                                    "loaded": beside the loops of "spin"
 *   numa still 4k|thp MIB SECONDS [read]   the same, of memory that is local
 *   numa cost 4k|thp MIB             instructions, on one CPU
 *   numa steady 4k|thp MIB far|near MILLIONS   duration of so many touches, of
 *                                    memory that was once far, or always local
 *   numa others TIMES                fork, exit and wait of a small process;
 *                                    mmap, touch and munmap of 256 KiB
 *   numa spin CPU                    a loop that never sleeps
 *   numa flip MIB SECONDS TIMES      the thread changes node every so often
 *   numa lookup MIB MICROSECONDS SECONDS   a server that gets a request every
 *                                    so often, and changes node once
 *   numa numa01|numa01_local|numa02|numa02_smt MIB SECONDS [hard|inverse]
 *   numa moves MIB                   the thread changes node three times
 *   numa shared MIB                  far memory that two processes use
 *   numa alternate MIB SECONDS       two threads on two nodes use every second
 *                                    page each
 *   numa everywhere MIB SECONDS      a thread on each node, all use all memory
 *   numa mbind MIB TIMES             another thread calls mbind() for one other
 *                                    page, so many times a second
 *   numa attack MIB                  another user calls mbind() for 1,024 files
 *   numa ring MIB                    a process on each node uses memory of the
 *                                    next one
 * Each process has a second thread, which sleeps and samples: a process with
 * one thread is a special case to NUMA balancing, a server is none.
 */
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modes.h"
#include "touch.h"

#define SMALL_MAP	(256UL << 10)

static void wait_a_while(bool busy)
{
	double until = now() + SAMPLE;

	if (!busy)
		sleep_for(SAMPLE);
	while (busy && now() < until)
		for (volatile int i = 0; i < 10000; i++)
			;
}

/* The thread runs on node 0, its memory lies on the last one. */
static void converge(enum kind kind, size_t size, const char *how)
{
	bool busy = !strcmp(how, "busy");
	int near = node_of(0), far = last_node(), cpu = cpu_of(far);
	struct toucher t = {
		.latency = new_histogram(),
		.reads = !strcmp(how, "read"),
	};
	double threads;
	struct counts before;
	struct progress p;
	char suffix[16];
	char *mem;

	snprintf(suffix, sizeof(suffix), "%s%s%s", kind_name(kind),
		 *how ? "_" : "", how);
	if (cpu >= 0)
		run_on(cpu);
	mem = map_on(size, kind, far);
	printf("%s: %.0f MiB huge, %.1f %% local\n", suffix, huge_mb(),
	       share_on(mem, size, near));
	threads = kthread_cpu("knuma");
	before = count();
	start(&t, mem, size, 0);
	begin(&p, t.start);
	while (p.share < 99 && now() - p.begun < LIMIT) {
		wait_a_while(busy);
		sample(&p, mem, size, near);
	}
	stop(&t);
	report_times(&p, suffix);
	report_counts(counts_since(before), suffix);
	latencies(t.latency, t.tick, suffix);
	report_stalls(&t, suffix);
	printf("%s: %.0f MiB huge\n", suffix, huge_mb());
	figure("system", suffix,
	       (t.system + kthread_cpu("knuma") - threads) / SEC);
}

/* The same without migration: with balancing off, the lower limit. */
static void still(enum kind kind, size_t size, double time, const char *how)
{
	struct toucher t = {
		.latency = new_histogram(),
		.reads = !strcmp(how, "read"),
	};
	int cpu = cpu_of(last_node());
	char suffix[24], *mem;

	snprintf(suffix, sizeof(suffix), "%s%s%s_still", kind_name(kind),
		 *how ? "_" : "", how);
	if (cpu >= 0)
		run_on(cpu);
	mem = map_on(size, kind, node_of(0));
	start(&t, mem, size, 0);
	for (double end = now() + time; now() < end; ) {
		wait_a_while(false);
		share_on(mem, size, node_of(0));
	}
	stop(&t);
	latencies(t.latency, t.tick, suffix);
	report_stalls(&t, suffix);
}

/*
 * CPU time of the thread, less the price of its touches without balancing, and
 * CPU time of all kernel threads, for each 4 KiB that moved. The thread that
 * samples does not count.
 */
static void cost(enum kind kind, size_t size)
{
	int near = node_of(0), far = last_node();
	struct toucher t = { .latency = NULL };
	double all, mine, extra;
	struct counts c;
	struct progress p;
	char suffix[16];
	char *mem;

	snprintf(suffix, sizeof(suffix), "%s_cost", kind_name(kind));
	mem = map_on(size, kind, far);
	all = kthread_cpu("");
	mine = kthread_cpu("knuma");
	c = count();
	start(&t, mem, size, 0);
	begin(&p, t.start);
	wait_until(&p, mem, size, near, 99, LIMIT);
	stop(&t);
	all = kthread_cpu("") - all;
	mine = kthread_cpu("knuma") - mine;
	c = counts_since(c);
	report_times(&p, suffix);
	report_counts(c, suffix);
	extra = t.cpu_time - t.touches * t.price;
	printf("%s: task %.0f ns, of which balancing %.0f; knuma threads %.0f, "
	       "all kernel threads %.0f; a touch %.3f; elapsed %.0f\n", suffix,
	       t.cpu_time, extra, mine, all, t.price, t.elapsed);
	if (!c.moved)
		return;
	figure("all", suffix, (extra + all) / c.moved);
	figure("task", suffix, extra / c.moved);
	figure("threads", suffix, all / c.moved);
	figure("knuma", suffix, mine / c.moved);
}

static void steady(enum kind kind, size_t size, bool was_far, uint64_t touches)
{
	int near = node_of(0), from = was_far ? last_node() : near;
	const char *suffix = was_far ? "far" : "near";
	struct toucher t = { .limit = touches };
	struct counts c;
	double all;
	char *mem;

	mem = map_on(size, kind, from);
	if (was_far) {
		struct toucher before = { .limit = touches };

		start(&before, mem, size, 0);
		pthread_join(before.thread, NULL);
		printf("steady: after %.2f s, %.1f %% are local\n",
		       before.elapsed / SEC, share_on(mem, size, near));
	}
	all = kthread_cpu("");
	c = count();
	start(&t, mem, size, 0);
	pthread_join(t.thread, NULL);
	all = kthread_cpu("") - all;
	c = counts_since(c);
	printf("steady: %.0f hinting faults, %.0f pages moved; task %.0f ns, "
	       "kernel threads %.0f; a touch alone %.3f\n", c.faults, c.moved,
	       t.cpu_time, all, t.price);
	figure("steady", suffix, (t.cpu_time + all) / t.touches);
	figure("steady_faults", suffix, c.faults / t.touches * 1e6);
}

/* System calls that have nothing to do with balancing. */
static void others(int nr)
{
	double start = now(), all = kthread_cpu("");
	int status;

	for (int i = 0; i < nr; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (waitpid(pid, &status, 0) != pid || status)
			errx(1, "a child failed");
	}
	figure("small", "fork", (now() - start) / nr);
	start = now();
	for (int i = 0; i < nr; i++) {
		char *mem = map(SMALL_MAP, SMALL);

		for (size_t k = 0; k < SMALL_MAP; k += PAGE)
			mem[k] = 1;
		munmap(mem, SMALL_MAP);
	}
	figure("small", "maps", (now() - start) / nr);
	printf("others: kernel threads %.0f ns\n", kthread_cpu("") - all);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Each period counts; one that did not get so far counts as all of it. */
static double median(double *x, int nr)
{
	qsort(x, nr, sizeof(*x), by_value);
	return nr % 2 ? x[nr / 2] : (x[nr / 2 - 1] + x[nr / 2]) / 2;
}

static void flip(size_t size, double period, int times)
{
	struct toucher t = { .latency = new_histogram() };
	int here = node_of(0), there = last_node(), i;
	double t50[times], t90[times], share = 0;
	struct progress p;
	struct counts c;
	char *mem;

	run_on(cpu_of(there));
	mem = map_on(size, SMALL, here);
	c = count();
	start(&t, mem, size, 0);
	sleep_for(2 * SEC);
	for (i = 0; i < times; i++) {
		int node = i % 2 ? here : there;

		run_on(cpu_of(i % 2 ? there : here));
		t.move_to = cpu_of(node);
		begin(&p, now());
		while (now() - p.begun < period) {
			sleep_for(SAMPLE);
			sample(&p, mem, size, node);
		}
		printf("flip to node %d: 50 %% local after %.2f s, 90 %% %.2f, "
		       "99 %% %.2f; in the end %.1f %%\n", node, p.at[50],
		       p.at[90], p.at[99], p.share);
		share += p.share / times;
		t50[i] = p.at[50] ?: period / SEC;
		t90[i] = p.at[90] ?: period / SEC;
	}
	stop(&t);
	printf("= t50_flip %.10g\n= t90_flip %.10g\n= share_flip %.10g\n",
	       median(t50, times), median(t90, times), share);
	report_counts(counts_since(c), "flip");
	latencies(t.latency, t.tick, "flip");
	report_stalls(&t, "flip");
}

struct slot {
	uint64_t key, value[7];
};

struct server {
	struct slot *table;
	size_t slots;
	double gap;			/* from one request to the next, in ns */
	int cpu;
	volatile int move_to;
	volatile bool stop;
	struct histogram *latency;
	uint64_t requests;
	double tick;
};

static uint64_t key_of(uint64_t i)
{
	i += 0x9e3779b97f4a7c15ULL;
	i = (i ^ i >> 30) * 0xbf58476d1ce4e5b9ULL;
	i = (i ^ i >> 27) * 0x94d049bb133111ebULL;
	return (i ^ i >> 31) | 1;
}

static struct slot *slot_for(struct server *s, uint64_t key)
{
	size_t i = pick(key, s->slots);

	while (s->table[i].key && s->table[i].key != key)
		i = i + 1 < s->slots ? i + 1 : 0;
	return &s->table[i];
}

static void fill(struct server *s)
{
	for (uint64_t i = 0; i < s->slots / 2; i++) {
		uint64_t key = key_of(i);

		*slot_for(s, key) = (struct slot){ key, { i } };
	}
}

static void answer(struct server *s, uint64_t random)
{
	uint64_t i = pick(random, s->slots / 2);

	if (slot_for(s, key_of(i))->value[0] != i)
		errx(1, "entry %lu is lost", (unsigned long)i);
}

/*
 * Requests come at their own pace. One that had to wait for those before it
 * took so much longer.
 */
static void *serve(void *arg)
{
	struct server *s = arg;
	uint64_t random = 0x9e3779b97f4a7c15ULL, due, ended;
	struct clocks clocks = read_clocks();
	struct histogram *h = NULL;
	double gap;

	run_on(s->cpu);
	sleep_for(100 * MS);
	s->tick = ns_per_tick(clocks);
	gap = s->gap / s->tick;
	due = tsc();
	for (uint64_t nr = 1; !s->stop; nr++) {
		if (s->move_to >= 0) {
			run_on(s->move_to);
			s->move_to = -1;
			h = s->latency;
			due = tsc() - nr * gap;
		}
		while (tsc() < due + (uint64_t)(nr * gap))
			;
		random = next_random(random);
		answer(s, random);
		ended = tsc();
		if (h)
			note(h, ended - due - (uint64_t)(nr * gap));
		s->requests++;
	}
	return NULL;
}

static void lookup(size_t size, double gap, double period)
{
	struct server s = { .gap = gap, .move_to = -1,
			    .latency = new_histogram() };
	int here = node_of(0), there = last_node();
	struct progress p;
	pthread_t thread;
	struct counts c;

	run_on(cpu_of(there));
	s.table = (struct slot *)map(size, SMALL);
	s.slots = size / sizeof(struct slot);
	bind_to(s.table, size, here);
	fill(&s);
	bind_default(s.table, size);
	if (pthread_create(&thread, NULL, serve, &s))
		errx(1, "pthread_create");
	sleep_for(2 * SEC);
	run_on(0);
	c = count();
	s.move_to = cpu_of(there);
	begin(&p, now());
	while (now() - p.begun < period) {
		sleep_for(SAMPLE);
		sample(&p, (char *)s.table, size, there);
	}
	s.stop = true;
	pthread_join(thread, NULL);
	printf("lookup: %lu requests; in the end %.1f %% are local\n",
	       (unsigned long)s.requests, p.share);
	report_times(&p, "lookup");
	report_counts(counts_since(c), "lookup");
	latencies(s.latency, s.tick, "lookup");
}

static void spin(int cpu)
{
	run_on(cpu);
	for (;;)
		;
}

/* Modes of the other files; false if there is no such mode. */
static bool run_situation(const char *what, int argc, char *argv[])
{
	size_t size = argc > 2 ? atol(argv[2]) * MB : 0;
	double number = argc > 3 ? atof(argv[3]) : 0;

	if (!strcmp(what, "moves") && size)
		moves(size);
	else if (!strcmp(what, "shared") && size)
		shared(size);
	else if (!strcmp(what, "alternate") && number)
		alternate(size, number * SEC);
	else if (!strcmp(what, "everywhere") && number)
		everywhere(size, number * SEC);
	else if (!strcmp(what, "mbind") && number)
		mbind_other(size, number);
	else if (!strcmp(what, "attack") && size)
		mbind_attack(size);
	else if (!strcmp(what, "ring") && size)
		ring(size);
	else if (!strncmp(what, "numa0", 5) && number)
		run_load(what, size, number * SEC, argc > 4 ? argv[4] : "");
	else
		return false;
	return true;
}

int main(int argc, char *argv[])
{
	const char *what = argc > 1 ? argv[1] : "";

	setlinebuf(stdout);
	if (!strcmp(what, "converge") && argc > 3)
		converge(kind_of(argv[2]), atol(argv[3]) * MB,
			 argc > 4 ? argv[4] : "");
	else if (!strcmp(what, "still") && argc > 4)
		still(kind_of(argv[2]), atol(argv[3]) * MB,
		      atof(argv[4]) * SEC, argc > 5 ? argv[5] : "");
	else if (!strcmp(what, "cost") && argc > 3)
		cost(kind_of(argv[2]), atol(argv[3]) * MB);
	else if (!strcmp(what, "steady") && argc > 5)
		steady(kind_of(argv[2]), atol(argv[3]) * MB,
		       !strcmp(argv[4], "far"), atol(argv[5]) * 1000000);
	else if (!strcmp(what, "others") && argc > 2)
		others(atoi(argv[2]));
	else if (!strcmp(what, "spin") && argc > 2)
		spin(atoi(argv[2]));
	else if (!strcmp(what, "flip") && argc > 4)
		flip(atol(argv[2]) * MB, atof(argv[3]) * SEC, atoi(argv[4]));
	else if (!strcmp(what, "lookup") && argc > 4)
		lookup(atol(argv[2]) * MB, atof(argv[3]) * 1e3,
		       atof(argv[4]) * SEC);
	else if (!run_situation(what, argc, argv))
		errx(2, "usage: see the source");
	return 0;
}
