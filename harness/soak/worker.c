// SPDX-License-Identifier: GPL-2.0
/*
 * A worker process: threads that make random calls on the regions of the
 * process, and a canary whose memory NUMA balancing has to bring to its node.
 */
#include "worker.h"

#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#define CANARY_SIZE	(8 * MIB)
#define CANARY_TOUCHES	65536		/* in some milliseconds, before a short sleep */
#define STARVED_SECONDS	20		/* without progress, of guest time ... */
#define STARVED_CPU_MS	5000		/* ... in which the canary has run for so long */

static _Thread_local struct worker *self;
static unsigned int cpus, nodes, cpu_of_node[64];
static atomic_bool process_over;

unsigned int worker_cpus(void)
{
	return cpus;
}

unsigned int worker_nodes(void)
{
	return nodes;
}

int worker_of_caller(void)
{
	return self ? (int)self->number : -1;
}

/* The CPUs and nodes, and NUMA balancing that scans often enough for a round. */
void worker_init(void)
{
	cpus = sysconf(_SC_NPROCESSORS_CONF);
	for (unsigned int cpu = 0; cpu < cpus; cpu++) {
		for (unsigned int node = 0; node < ARRAY_SIZE(cpu_of_node); node++) {
			char path[96];

			snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/cpu%u", node, cpu);
			if (!exists(path))
				continue;
			cpu_of_node[node] = cpu;
			nodes = node + 1 > nodes ? node + 1 : nodes;
		}
	}
	nodes = nodes ?: 1;
	put("/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms", "100");
	put("/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms", "2000");
	put("/sys/kernel/debug/sched/numa_balancing/scan_delay_ms", "100");
}

static void log_call(const struct call *call, const struct region *r, size_t first, size_t n, int ret)
{
	struct thread_state *thread = &shared->threads[self->number];
	unsigned int at = atomic_fetch_add(&thread->next, 1) % LOG_CALLS;

	thread->log[at] = (struct logged) {
		.name = call->name,
		.addr = r->addr,
		.region = region_number(r),
		.first = first,
		.pages = n,
		.result = ret,
	};
}

/*
 * Give the process a vocabulary of its own: it leaves out some calls, and makes
 * others much more often. Rare combinations come up that way which calls that
 * are all equally likely never reach ("Swarm testing", Groce et al., 2012).
 * Calls of the topic are chosen three times as often as they are otherwise.
 */
static unsigned int weights[MAX_CALLS], weight_of_all;

static void worker_choose_calls(struct rng *rng)
{
	static const unsigned int factors[] = { 0, 0, 0, 1, 1, 1, 1, 4, 4, 32 };

	for (unsigned int i = 0; i < nr_calls; i++) {
		const struct call *call = &calls[i];
		unsigned int factor = factors[rng_below(rng, ARRAY_SIZE(factors))];

		weights[i] = call->weight;
		if ((call->series && !program.series) || !listed(program.calls, call->name) ||
		    left_out(call->name))
			weights[i] = 0;
		if (program.topic && call->topic && strstr(call->topic, program.topic))
			weights[i] *= 3;
		/* A list of the program file is a vocabulary already. */
		if (!program.calls && strcmp(call->name, "read") && strcmp(call->name, "write"))
			weights[i] *= factor;
		weight_of_all += weights[i];
	}
}

static const struct call *choose_call(struct rng *rng)
{
	unsigned int at, i = 0;

	if (!weight_of_all)
		return NULL;
	for (at = rng_below(rng, weight_of_all); at >= weights[i]; i++)
		at -= weights[i];
	return &calls[i];
}

/* A part of the region: all, a huge page, a slot, or a few pages. */
static void choose_part(struct rng *rng, const struct region *r, size_t *first, size_t *n)
{
	switch (rng_below(rng, 8)) {
	case 0:
		*first = 0;
		*n = r->pages;
		break;
	case 1:
	case 2:
		*n = r->pages < HUGE / PAGE ? r->pages : HUGE / PAGE;
		*first = rng_below(rng, r->pages / *n) * *n;
		break;
	case 3:
	case 4:
		*n = SLOT_PAGES;
		*first = rng_below(rng, r->pages / SLOT_PAGES) * SLOT_PAGES;
		break;
	case 5:
		*n = 16;
		*first = rng_below(rng, r->pages / 16) * 16;
		break;
	default:
		*first = rng_below(rng, r->pages);
		*n = 1 + rng_below(rng, r->pages - *first < 32 ? r->pages - *first : 32);
	}
}

static unsigned int slots_of(size_t first, size_t n)
{
	unsigned int from = first / SLOT_PAGES, to = (first + n - 1) / SLOT_PAGES;

	return (2U << to) - (1U << from);
}

static bool region_lock(struct region *r, unsigned int slots)
{
	unsigned int old = atomic_load(&r->busy);

	do {
		if (old & slots)
			return false;
	} while (!atomic_compare_exchange_weak(&r->busy, &old, old | slots));
	return true;
}

static void region_unlock(struct region *r, unsigned int slots)
{
	atomic_fetch_and(&r->busy, ~slots);
}

static void worker_step(struct worker *w)
{
	struct region *r = &regions[rng_below(&w->rng, MAX_REGIONS)];
	const struct call *call = choose_call(&w->rng);
	unsigned int slots;
	size_t first, n;
	int ret;

	if (!call)
		return;
	/* Only who has the whole region may ask how large it is. */
	if (!region_lock(r, ALL_SLOTS))
		return;
	if (!r->addr && !region_map(w, r)) {
		region_unlock(r, ALL_SLOTS);
		return;
	}
	choose_part(&w->rng, r, &first, &n);
	if (call->whole || region_is_hugetlb(r)) {
		first = 0;
		n = r->pages;
		slots = ALL_SLOTS;
	} else {
		slots = slots_of(first, n);
		region_unlock(r, ALL_SLOTS & ~slots);
	}
	ret = call->run(w, r, first, n);
	if (ret != NOT_HERE)
		log_call(call, r, first, n, ret);
	region_unlock(r, slots);
	if (ret != NOT_HERE)
		atomic_fetch_add(&shared->threads[w->number].calls, 1);
}

static bool worker_done(void)
{
	return over() || atomic_load(&shared->round_over) || atomic_load(&process_over);
}

/*
 * The model allows each access, so each signal is a violation. But a cpuset or a
 * policy may allow no node that has a huge page, reserved or not.
 */
static void worker_signal(int number, siginfo_t *info, void *context)
{
	char *addr = info->si_addr;

	(void)context;
	for (unsigned int i = 0; i < MAX_REGIONS; i++) {
		struct region *r = &regions[i];
		size_t page = (addr - r->addr) / PAGE;

		if (!r->addr || addr < r->addr || page >= r->pages)
			continue;
		if (number == SIGBUS && region_is_hugetlb(r))
			_exit(0);
		violation("contents", "signal %d at page %zu of region %u (kind %d), state %#x",
			  number, page, i, r->kind, r->page[page].state);
	}
	violation("result", "signal %d at %p, in no region", number, (void *)addr);
	_exit(1);
}

static void *worker_thread(void *arg)
{
	self = arg;
	prctl(PR_SET_NAME, "soak-worker");
	while (!worker_done())
		worker_step(self);
	return NULL;
}

static void canary_place(char *p, unsigned int from, unsigned int to, struct canary *canary)
{
	unsigned long mask = 1UL << from;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu_of_node[to], &set);
	/* The first time only: afterwards it goes on to where its memory is not. */
	if (from != to && !canary->touches) {
		syscall(SYS_mbind, p, CANARY_SIZE, MPOL_BIND, &mask, 64UL, 0);
		for (size_t i = 0; i < CANARY_SIZE; i += PAGE)
			*(volatile char *)(p + i) = 1;
		syscall(SYS_mbind, p, CANARY_SIZE, MPOL_DEFAULT, NULL, 0UL, 0);
	}
	if (sched_setaffinity(0, sizeof(set), &set))
		atomic_store(&canary->watched, false);
	atomic_store(&canary->percent, 0);
	atomic_store(&canary->node, to);
}

/* The share of each eighth page that is on @node. */
static int canary_share(char *p, unsigned int node)
{
	int all = 0, here = 0, status;

	for (size_t i = 3 * PAGE; i < CANARY_SIZE; i += 8 * PAGE) {
		void *addr = p + i;

		all++;
		if (!syscall(SYS_move_pages, 0, 1UL, &addr, NULL, &status, 0))
			here += status == (int)node;
	}
	return here * 100 / all;
}

static long thread_cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void *canary_thread(void *arg)
{
	unsigned int process = (uintptr_t)arg, node = process % nodes;
	struct canary *canary = &shared->canaries[process];
	struct rng rng = rng_stream(500 + process);
	double asked = 0;
	char *p;

	prctl(PR_SET_NAME, "soak-canary");
	p = mmap(NULL, CANARY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, CANARY_SIZE, MADV_NOHUGEPAGE);
	setpriority(PRIO_PROCESS, 0, -10);
	atomic_store(&canary->watched, true);
	atomic_store(&canary->touches, 0);
	atomic_store(&canary->flips, 0);
	canary_place(p, node, (node + 1) % nodes, canary);
	node = (node + 1) % nodes;
	while (!worker_done()) {
		for (int i = 0; i < CANARY_TOUCHES; i++)
			(*(volatile char *)(p + rng_below(&rng, CANARY_SIZE / PAGE) * PAGE))++;
		atomic_store(&canary->cpu_ms, thread_cpu_ms());
		atomic_fetch_add(&canary->touches, CANARY_TOUCHES);
		if (now() - asked > 0.5) {
			int share = canary_share(p, node);

			asked = now();
			if (share > atomic_load(&canary->percent))
				atomic_store(&canary->percent, share);
			if (share >= 90) {
				atomic_fetch_add(&canary->flips, 1);
				canary_place(p, node, (node + 1) % nodes, canary);
				node = (node + 1) % nodes;
			}
		}
		usleep(1000);
	}
	return NULL;
}

void worker_process(unsigned int process, unsigned int incarnation)
{
	struct sigaction signals = { .sa_sigaction = worker_signal, .sa_flags = SA_SIGINFO };
	struct worker workers[MAX_THREADS];
	pthread_t threads[MAX_THREADS], canary;
	bool has_canary = nodes > 1 && listed(program.calls, "canary") && !left_out("canary");
	struct rng rng = rng_stream(incarnation * MAX_PROCESSES + process + 10000);

	prctl(PR_SET_NAME, "soak-process");
	sigaction(SIGSEGV, &signals, NULL);
	sigaction(SIGBUS, &signals, NULL);
	worker_choose_calls(&rng);
	for (unsigned int i = 0; i < program.threads; i++) {
		workers[i] = (struct worker) {
			.number = process * MAX_THREADS + i,
			.process = process,
			.rng = rng_stream((incarnation * MAX_PROCESSES + process) * MAX_THREADS + i + 100000),
			.next_stamp = (process * MAX_THREADS + i + 1) << 24,
		};
		if (pthread_create(&threads[i], NULL, worker_thread, &workers[i]))
			_exit(1);
	}
	if (has_canary && pthread_create(&canary, NULL, canary_thread, (void *)(uintptr_t)process))
		_exit(1);
	for (unsigned int i = 0; i < program.threads; i++)
		pthread_join(threads[i], NULL);
	if (has_canary)
		pthread_join(canary, NULL);
	/* Half of them leave their memory to exit(). */
	if (process % 2)
		for (unsigned int i = 0; i < MAX_REGIONS && !over(); i++)
			if (regions[i].addr && !regions[i].sealed)
				region_unmap(&regions[i]);
}

void worker_forget(unsigned int process)
{
	atomic_store(&shared->canaries[process].watched, false);
}

unsigned long worker_calls(bool no_realtime)
{
	unsigned long n = 0;

	for (unsigned int i = 0; i < MAX_PROCESSES * MAX_THREADS; i++)
		if (!no_realtime || !atomic_load(&shared->threads[i].realtime))
			n += atomic_load(&shared->threads[i].calls);
	return n;
}

const char *worker_canaries(void)
{
	static char text[256];
	size_t len = 0;

	text[0] = 0;
	for (unsigned int i = 0; i < program.processes; i++) {
		struct canary *c = &shared->canaries[i];

		len += snprintf(text + len, sizeof(text) - len, "%s%d%%+%d", i ? "," : "",
				atomic_load(&c->percent), atomic_load(&c->flips));
	}
	return text;
}

/* A node that has some tens of MiB free can take a canary's memory. */
static bool worker_node_free(const char *path)
{
	FILE *f = fopen(path, "re");
	long free_kb = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, " MemFree:"))
			free_kb = strtol(strstr(line, " MemFree:") + 9, NULL, 10);
	if (f)
		fclose(f);
	return free_kb > 64 << 10;
}

/*
 * With NUMA balancing on, the topics at their defaults, and memory free on its
 * node, a canary that runs gets its memory: less than half of it in
 * STARVED_SECONDS is a violation.
 */
void worker_check_canaries(void)
{
	static struct {
		double since;
		long cpu_ms;
		int flips;
	} seen[MAX_PROCESSES];
	bool possible = nodes > 1 && !atomic_load(&shared->knobs_change);
	static double checked;

	if (now() - checked < 0.5)
		return;
	checked = now();
	possible = possible && get("/proc/sys/kernel/numa_balancing") == 1;
	for (unsigned int i = 0; i < program.processes; i++) {
		struct canary *c = &shared->canaries[i];
		int flips = atomic_load(&c->flips), percent = atomic_load(&c->percent);
		long cpu_ms = atomic_load(&c->cpu_ms);
		char path[64];

		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", atomic_load(&c->node));
		if (!possible || !atomic_load(&c->watched) || percent >= 50 ||
		    flips != seen[i].flips || cpu_ms < seen[i].cpu_ms || !worker_node_free(path)) {
			seen[i].since = now();
			seen[i].cpu_ms = cpu_ms;
			seen[i].flips = flips;
			continue;
		}
		if (now() - seen[i].since < STARVED_SECONDS || cpu_ms - seen[i].cpu_ms < STARVED_CPU_MS)
			continue;
		violation("starved", "%d %% of a canary's memory has come to node %d in %.0f s, in which it ran for %ld ms",
			  percent, atomic_load(&c->node), now() - seen[i].since, cpu_ms - seen[i].cpu_ms);
	}
}

/* The threads' newest calls, for a kernel that does not live to see a report. */
void worker_trail(void)
{
	char text[1024];
	size_t len = 0;

	text[0] = 0;
	for (unsigned int i = 0; i < program.processes * MAX_THREADS; i++) {
		struct thread_state *thread = &shared->threads[i];
		unsigned int next = atomic_load(&thread->next);
		struct logged *l = &thread->log[(next - 1) % LOG_CALLS];

		if (next && l->name && len < sizeof(text) - 64)
			len += snprintf(text + len, sizeof(text) - len, " %u.%u %s(%u:%u+%u)=%d", i / MAX_THREADS,
					i % MAX_THREADS, l->name, l->region, l->first, l->pages, l->result);
	}
	printf("soak: trail%s\n", text);
}

static void report_thread(unsigned int number, const struct logged *about)
{
	struct thread_state *thread = &shared->threads[number];
	unsigned int next = atomic_load(&thread->next), printed = 0;

	for (unsigned int back = 1; back <= LOG_CALLS && back <= next && printed < 12; back++) {
		struct logged *l = &thread->log[(next - back) % LOG_CALLS];

		if (!l->name || (about && l->region != about->region))
			continue;
		printed++;
		printf("soak: last %u.%u: %s region %u at %p pages %u-%u = %d\n",
		       number / MAX_THREADS, number % MAX_THREADS, l->name, l->region, l->addr,
		       l->first, l->first + l->pages - 1, l->result);
	}
}

/* Each thread's last calls, newest first: those on the violator's last region. */
void worker_report(int violator)
{
	struct logged *about = NULL;

	if (violator >= 0) {
		struct thread_state *thread = &shared->threads[violator];
		unsigned int next = atomic_load(&thread->next);

		about = next ? &thread->log[(next - 1) % LOG_CALLS] : NULL;
		/* The threads of that process, whose regions these are. */
		for (unsigned int i = 0; i < MAX_THREADS; i++)
			report_thread(violator / MAX_THREADS * MAX_THREADS + i, about);
		return;
	}
	for (unsigned int i = 0; i < program.processes; i++)
		for (unsigned int j = 0; j < program.threads; j++)
			report_thread(i * MAX_THREADS + j, NULL);
}
