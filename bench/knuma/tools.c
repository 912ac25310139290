// SPDX-License-Identifier: GPL-2.0
/* Clocks, places, counters and histograms. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tools.h"

#define PF_KTHREAD	0x00200000
#define SAMPLES		512

static double read_clock(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t))
		return 0;
	return t.tv_sec * SEC + t.tv_nsec;
}

double now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

double thread_cpu(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

double system_time(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_stime.tv_sec * SEC + usage.ru_stime.tv_usec * 1e3;
}

/* The scheduler's clock of another process: exact, where "stat" has ticks. */
static double cpu_of_process(int pid)
{
	return read_clock((clockid_t)(~(unsigned int)pid << 3 | 2));
}

static bool is_kthread(const char *pid, const char *prefix)
{
	unsigned int flags = 0;
	char path[64], line[512];
	char *name, *end;
	size_t length;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.16s/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	length = fread(line, 1, sizeof(line) - 1, f);
	fclose(f);
	line[length] = '\0';
	name = strchr(line, '(');
	end = strrchr(line, ')');
	if (!name || !end ||
	    sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) != 1)
		return false;
	return flags & PF_KTHREAD && !strncmp(name + 1, prefix, strlen(prefix));
}

/* CPU time of all kernel threads whose name begins so. */
double kthread_cpu(const char *prefix)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	double sum = 0;

	if (!proc)
		err(1, "/proc");
	while ((entry = readdir(proc))) {
		if (isdigit(entry->d_name[0]) &&
		    is_kthread(entry->d_name, prefix))
			sum += cpu_of_process(atoi(entry->d_name));
	}
	closedir(proc);
	return sum;
}

void sleep_for(double ns)
{
	struct timespec t = { ns / SEC, ns - (long)(ns / SEC) * SEC };

	clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

struct clocks read_clocks(void)
{
	return (struct clocks){ tsc(), now() };
}

double ns_per_tick(struct clocks since)
{
	struct clocks here = read_clocks();

	return (here.ns - since.ns) / (here.tsc - since.tsc);
}

void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "cannot run on CPU %d", cpu);
}

void run_anywhere(void)
{
	cpu_set_t set;

	memset(&set, 0xff, sizeof(set));
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "cannot run anywhere");
}

int node_of(int cpu)
{
	char path[96];

	for (int node = 0; node < 64; node++) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/node/node%d/cpu%d", node, cpu);
		if (!access(path, F_OK))
			return node;
	}
	return 0;
}

int cpu_of(int node)
{
	int nr = sysconf(_SC_NPROCESSORS_ONLN);

	for (int cpu = 0; cpu < nr; cpu++)
		if (node_of(cpu) == node)
			return cpu;
	return -1;
}

int last_node(void)
{
	char path[64];
	int node = 0;

	do {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d",
			 node);
	} while (!access(path, F_OK) && ++node);
	return node ? node - 1 : 0;
}

enum kind kind_of(const char *name)
{
	if (!strcmp(name, "4k"))
		return SMALL;
	if (!strcmp(name, "thp"))
		return THP;
	errx(2, "'%s': there are 4k and thp", name);
}

const char *kind_name(enum kind kind)
{
	return kind == THP ? "thp" : "4k";
}

static void set_policy(void *mem, size_t size, int mode, unsigned long *mask)
{
	if (syscall(SYS_mbind, mem, size, mode, mask, mask ? 64 : 0, 0))
		err(1, "mbind");
}

void bind_to(void *mem, size_t size, int node)
{
	unsigned long mask = 1UL << node;

	set_policy(mem, size, MPOL_BIND, &mask);
}

void bind_default(void *mem, size_t size)
{
	set_policy(mem, size, MPOL_DEFAULT, NULL);
}

char *map(size_t size, enum kind kind)
{
	char *mem = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		err(1, "mmap of %zu bytes", size);
	mem += -(uintptr_t)mem & (HUGE - 1);
	madvise(mem, size, kind == THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return mem;
}

/* Populate memory on @node, and remove the policy. */
static void populate_on(char *mem, size_t size, int node)
{
	bind_to(mem, size, node);
	for (size_t i = 0; i < size; i += PAGE)
		mem[i] = 1;
	bind_default(mem, size);
}

char *map_on(size_t size, enum kind kind, int node)
{
	char *mem = map(size, kind);

	populate_on(mem, size, node);
	return mem;
}

/* Children share this memory after fork(). */
char *map_shared_on(size_t size, int node)
{
	char *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		err(1, "mmap of %zu bytes", size);
	madvise(mem, size, MADV_NOHUGEPAGE);
	populate_on(mem, size, node);
	return mem;
}

/*
 * A random page of each of SAMPLES equal parts, so that the parts have equal
 * weight.
 */
double share_of_every(const char *mem, size_t size, int node, size_t step,
		      size_t first)
{
	static uint64_t random = 88172645463325252ULL;
	size_t part = size / PAGE / step / SAMPLES, nr;
	void *page[SAMPLES];
	int status[SAMPLES];
	int there = 0, known = 0;

	for (size_t i = 0; i < SAMPLES; i++) {
		random = next_random(random);
		nr = (i * part + pick(random, part)) * step + first;
		page[i] = (char *)mem + nr * PAGE;
	}
	if (syscall(SYS_move_pages, 0, SAMPLES, page, NULL, status, 0))
		err(1, "move_pages");
	for (int i = 0; i < SAMPLES; i++) {
		/* A migration entry has no node. */
		known += status[i] >= 0;
		there += status[i] == node;
	}
	return known ? 100.0 * there / known : 0;
}

double share_on(const char *mem, size_t size, int node)
{
	return share_of_every(mem, size, node, 1, 0);
}

/* The number in a file's line that begins with @name. */
static double number_in(const char *path, const char *name)
{
	size_t length = strlen(name);
	double number = 0;
	char line[256];
	FILE *f = fopen(path, "r");

	if (!f)
		err(1, "%s", path);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, name, length) && !isalnum(line[length]) &&
		    line[length] != '_')
			number = strtod(line + length + 1, NULL);
	fclose(f);
	return number;
}

double huge_mb(void)
{
	return number_in("/proc/self/smaps_rollup", "AnonHugePages") / 1024;
}

/* Interrupts that asked a CPU for a TLB flush, on all of them. */
static double tlb_flushes(void)
{
	FILE *f = fopen("/proc/interrupts", "r");
	double sum = 0, number;
	char line[4096];
	char *p, *end;

	if (!f)
		err(1, "/proc/interrupts");
	while (fgets(line, sizeof(line), f)) {
		p = strstr(line, "TLB:");
		if (!p)
			continue;
		for (p += 4; number = strtod(p, &end), end != p; p = end)
			sum += number;
	}
	fclose(f);
	return sum;
}

struct counts count(void)
{
	static const char vmstat[] = "/proc/vmstat";

	return (struct counts){
		.faults = number_in(vmstat, "numa_hint_faults"),
		.local_faults = number_in(vmstat, "numa_hint_faults_local"),
		.moved = number_in(vmstat, "numa_pages_migrated"),
		.failed = number_in(vmstat, "pgmigrate_fail"),
		.flushes = tlb_flushes(),
		.queued = number_in(vmstat, "knuma_queued"),
		.dropped = number_in(vmstat, "knuma_expired") +
			   number_in(vmstat, "knuma_queue_full"),
	};
}

struct counts counts_since(struct counts before)
{
	struct counts c = count();

	c.faults -= before.faults;
	c.local_faults -= before.local_faults;
	c.moved -= before.moved;
	c.failed -= before.failed;
	c.flushes -= before.flushes;
	c.queued -= before.queued;
	c.dropped -= before.dropped;
	return c;
}

/* Touched before it counts: nothing is allocated while it is used. */
struct histogram *new_histogram(void)
{
	struct histogram *h = malloc(sizeof(*h));

	if (!h)
		err(1, "malloc");
	return memset(h, 0, sizeof(*h));
}

void add_histogram(struct histogram *to, const struct histogram *from)
{
	to->nr += from->nr;
	to->max = from->max > to->max ? from->max : to->max;
	for (unsigned int i = 0; i < 64 * PARTS; i++)
		to->each[i] += from->each[i];
}

/* The middle of a slot. */
static double value_of(unsigned int slot)
{
	unsigned int shift = slot >> PARTS_SHIFT;

	if (!shift)
		return slot;
	return ((slot & (PARTS - 1)) + PARTS + 0.5) * (1ULL << (shift - 1));
}

double percentile(const struct histogram *h, double percent)
{
	double left = h->nr * percent / 100;

	for (unsigned int i = 0; i < 64 * PARTS; i++) {
		if (h->each[i] && h->each[i] >= left)
			return value_of(i);
		left -= h->each[i];
	}
	return h->max;
}

double number_above(const struct histogram *h, double limit)
{
	double nr = 0;

	for (unsigned int i = slot_of(limit) + 1; i < 64 * PARTS; i++)
		nr += h->each[i];
	return nr;
}

double sum_above(const struct histogram *h, double limit)
{
	double sum = 0;

	for (unsigned int i = slot_of(limit) + 1; i < 64 * PARTS; i++)
		sum += h->each[i] * value_of(i);
	return sum;
}

void figure(const char *name, const char *suffix, double value)
{
	printf("= %s_%s %.10g\n", name, suffix, value);
}

void latencies(const struct histogram *h, double tick, const char *suffix)
{
	figure("p50", suffix, percentile(h, 50) * tick / 1e3);
	figure("p99", suffix, percentile(h, 99) * tick / 1e3);
	figure("p999", suffix, percentile(h, 99.9) * tick / 1e3);
	figure("p9999", suffix, percentile(h, 99.99) * tick / 1e3);
	figure("max", suffix, h->max * tick / 1e3);
}
