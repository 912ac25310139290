/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What tests of NUMA balancing outside of page faults share: nodes, knobs, and
 * processes that use memory on the wrong node.
 */
#ifndef KNUMA_UTIL_H
#define KNUMA_UTIL_H

#include <linux/mempolicy.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include "harness_util.h"

#define KNUMA		"/sys/kernel/mm/autonuma/"
#define MIGRATED	KNUMA "knuma_migrated/"
#define SCAND		KNUMA "knuma_scand/"
#define DEBUG		"/sys/kernel/debug/knuma/"
#define SCAN		"/sys/kernel/debug/sched/numa_balancing/"
#define BALANCING	"/proc/sys/kernel/numa_balancing"
#define THP_SPLIT	"/sys/kernel/debug/split_huge_pages"
#define TRACE		TRACES "knuma_test/"

#define HUGE		(2 * MB)
/*
 * Seconds. Tasks scan for a thirty-second of the time at most: what takes a
 * second or so takes a minute where other guests keep the host busy, and the
 * kernel has all its checks.
 */
#define PATIENCE	600

static const char * const groups[] = {
	CGROUP "knuma_test_1", CGROUP "knuma_test_2"
};

/* A node that has memory, and one of its CPUs. */
struct place {
	int node;
	int cpu;
};

static struct place places[8];
static int nr_places;

/* Where the test runs and memory is at first; and where it is used. */
static struct place *here, *there;

/* What has become of so many entries of queues. */
static inline long fate(const char *name)
{
	return read_value(DEBUG "fates", name);
}

/* Pages that daemons have moved, ever. */
static inline long migrated(void)
{
	return read_long(MIGRATED "pages_migrated");
}

/* Pages that wait. */
static inline long queued(const struct place *from, const struct place *to)
{
	FILE *f = fopen(DEBUG "queued", "r");
	int column = 0, i;
	long pages = -1;
	char *word, *next, line[1024];
	const char *const spaces = "\n ";

	/* "to\from 0 1", then for each node "1 123 0" */
	while (f && fgets(line, sizeof(line), f)) {
		word = strtok_r(line, spaces, &next);
		if (column && atoi(word) != to->node)
			continue;
		for (i = 1; (word = strtok_r(NULL, spaces, &next)); i++) {
			if (!column && atoi(word) == from->node)
				break;
			if (column == i)
				pages = atol(word);
		}
		column = column ?: i;
	}
	if (f)
		fclose(f);

	return pages;
}

static inline int run_on(const struct place *place)
{
	return run_on_cpu(place->cpu);
}

static inline void find_places(void)
{
	char path[64], text[256];

	nr_places = 0;
	for (int node = 0; node < 1024 && nr_places < (int)ARRAY_SIZE(places); node++) {
		snprintf(path, sizeof(path), NODES "node%d/cpulist", node);
		if (!read_text(path, text, sizeof(text)) || !isdigit(*text))
			continue;
		places[nr_places].node = node;
		places[nr_places].cpu = atoi(text);
		/* Memory-less nodes have no such lines. */
		snprintf(path, sizeof(path), NODES "node%d/meminfo", node);
		if (read_text(path, text, sizeof(text)) && !strstr(text, " 0 kB"))
			nr_places++;
	}
	here = &places[0];
	there = &places[nr_places ? nr_places - 1 : 0];
}

static inline int bind_to(void *p, size_t size, const struct place *place, int flags)
{
	unsigned long mask[16] = {};

	mask[place->node / 64] = 1UL << place->node % 64;
	return syscall(SYS_mbind, p, size, MPOL_BIND, mask, 8 * sizeof(mask), flags);
}

static inline int unbind(void *p, size_t size)
{
	return syscall(SYS_mbind, p, size, MPOL_DEFAULT, NULL, 0, 0);
}

/* Pages of the range that are there now; of a process, 0 for this one. */
static inline long pages_at(const struct place *place, pid_t pid, char *p, size_t size)
{
	void *pages[512];
	int status[512];
	long found = 0;
	size_t i = 0;

	while (size) {
		for (i = 0; i < ARRAY_SIZE(pages) && size; i++) {
			pages[i] = p;
			p += psize();
			size -= psize();
		}
		if (syscall(SYS_move_pages, pid, i, pages, NULL, status, 0))
			return -1;
		while (i)
			found += status[--i] == place->node;
	}

	return found;
}

static inline unsigned long stamp_of(unsigned long key, size_t at)
{
	return (key << 40) + at;
}

static inline void stamp(char *p, size_t size, unsigned long key)
{
	stamp_range(p, size, stamp_of(key, 0));
}

/* Pages of a part of a stamped range that have anything else in them. */
static inline long broken_part(const char *p, size_t from, size_t len, unsigned long key)
{
	return len / psize() - count_pages(p + from, len, stamp_of(key, from), PAGE_OLD);
}

static inline long broken(const char *p, size_t size, unsigned long key)
{
	return broken_part(p, 0, size, key);
}

/* Memory of folios of that size, wherever it will be; NULL if there is none. */
static inline char *map_over(char *p, size_t size, bool large, int fd)
{
	p = mmap(p, size, PROT_READ | PROT_WRITE, MAP_FIXED |
		 (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, size, large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return p;
}

/* Which folios MADV_HUGEPAGE gets from now on. False if there are none. */
static inline bool have_folios(size_t folio)
{
	int err = 0;

	if (folio)
		err = write_text(folio == HUGE ? THP "hugepages-2048kB/enabled" :
				 THP "hugepages-64kB/enabled", "madvise");
	return !err && (!folio || !access(THP, F_OK));
}

/* What the tests change, and how they begin. */
static const struct setting settings[] = {
	{ BALANCING, "1" },
	{ SCAN "scan_delay_ms", "50" },
	{ SCAN "scan_period_min_ms", "100" },
	{ SCAN "scan_period_max_ms", "200" },
	{ THP "enabled", "madvise" },
	{ THP "hugepages-2048kB/enabled", "never" },
	{ THP "hugepages-64kB/enabled", "never" },
	{ KNUMA "debug", "0" },
	{ KNUMA "faultaround_pages", "0" },
	{ KNUMA "working_set", "0" },
	{ KNUMA "scheduler/load_balance_strict", "0" },
	{ MIGRATED "wake_pages", "512" },
	{ MIGRATED "wake_millisecs", "20" },
	{ MIGRATED "batch_pages", "64" },
	{ MIGRATED "pages_to_migrate", "32768" },
	{ MIGRATED "migrate_sleep_millisecs", "100" },
	{ MIGRATED "defer_order", "0" },
	{ SCAND "scan_sleep_millisecs", "20" },
	{ SCAND "scan_sleep_pass_millisecs", "0" },
	{ SCAND "pages_to_scan", "65536" },
	{ SCAND "enabled", "0" },
	{ KNUMA "enabled", "1" },
};

struct setup {
	char old[ARRAY_SIZE(settings)][SETTING_LEN];
	bool begun;
};

/* Returns what is missing, or NULL. */
static inline const char *begin(struct setup *setup)
{
	if (geteuid())
		return "not root";
	if (access(KNUMA, F_OK))
		return "no " KNUMA ": CONFIG_KNUMA";
	if (access(DEBUG, F_OK) || access(SCAN, F_OK))
		return "no debugfs";
	find_places();
	if (nr_places < 2)
		return "needs two nodes with CPUs and memory";
	settings_save(settings, ARRAY_SIZE(settings), setup->old);
	setup->begun = true;
	/* What waits, and for how long, is forgotten. */
	write_text(KNUMA "enabled", "0");
	settings_apply(settings, ARRAY_SIZE(settings));

	return run_on(here) ? "cannot stay on a CPU" : NULL;
}

static inline void restore(struct setup *setup)
{
	if (!setup->begun)
		return;
	for (long cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++)
		set_cpu_online(cpu, true);
	write_text("/sys/power/pm_test", "none");
	write_text(KNUMA "enabled", "0");
	settings_restore(settings, ARRAY_SIZE(settings), setup->old);
	rmdir(TRACE);
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		group_remove(groups[i]);
}

/* A group that may have memory of the first so many places, 0 for no limit. */
static inline bool make_group(const char *group, int nr)
{
	char mems[64] = "";

	write_text(CGROUP "cgroup.subtree_control", "+memory");
	if (group_create(group, "+cpuset"))
		return false;
	if (!nr)
		return group_read(group, "memory.stat", "anon") >= 0;
	for (int i = 0; i < nr; i++)
		snprintf(mems + strlen(mems), sizeof(mems) - strlen(mems), "%d,",
			 places[i].node);
	return !group_write(group, "cpuset.mems", mems);
}

/**
 * struct user - A process that uses memory, and what it is told. Shared: what
 * is not atomic here is read anew after each system call.
 * @size:	of its memory
 * @folio:	what it consists of; 0 for small ones
 * @fd:		what it maps, or 0 for memory of its own
 * @group:	where it runs, or NULL
 * @step:	it touches a page in each so many bytes; 0 for all of them
 * @from:	where the memory is at first
 * @to:		where it runs then
 * @roams:	it runs where the scheduler likes
 * @started:	the process that was started
 * @pid:	who has the memory now: it, or a child that it was left to
 * @left:	it was
 * @p:		its memory
 * @asked:	it is to call that between two rounds
 * @answer:	what that returned
 * @rounds:	how often it has touched all of it
 * @pfns:	for what is called
 */
struct user {
	size_t size;
	size_t folio;
	int fd;
	const char *group;
	size_t step;
	const struct place *from;
	const struct place *to;
	bool roams;
	pid_t pid, started;
	atomic_bool left;
	char *p;
	long (*asked)(struct user *user);
	atomic_long answer;
	atomic_ulong rounds;
	atomic_bool stop;
	unsigned long pfns[256];
};

/* Exits with 0, with 1 if a stamp is wrong, with 2 if it could not begin. */
static inline void use(struct user *u)
{
	const int fd = u->fd ?: -1;
	long bad = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (u->group && group_write(u->group, "cgroup.procs", "0"))
		_exit(2);
	u->p = map_aligned(u->size);
	if (u->p == MAP_FAILED || !map_over(u->p, u->size, u->folio, fd) ||
	    bind_to(u->p, u->size, u->from, 0))
		_exit(2);
	stamp(u->p, u->size, 1);
	if (unbind(u->p, u->size))
		_exit(2);
	while (!u->stop && !bad) {
		/* The CPU may have been offline. */
		if (!u->roams)
			run_on(u->to);
		for (size_t at = 0; at < u->size; at += u->step)
			bad += FORCE_READ(*(unsigned long *)(u->p + at)) != stamp_of(1, at);
		if (u->asked) {
			u->answer = u->asked(u);
			u->asked = NULL;
		}
		u->rounds++;
	}
	_exit(bad || broken(u->p, u->size, 1) ? 1 : 0);
}

/* NULL if it could not begin. */
static inline struct user *start(struct user what)
{
	struct user *u = mmap(NULL, sizeof(*u), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	if (u == MAP_FAILED)
		return NULL;
	*u = what;
	u->size = u->size ?: 16 * MB;
	u->step = u->step ?: psize();
	u->from = u->from ?: here;
	if (!u->to)
		u->to = there;
	pid = fork();
	if (!pid)
		use(u);
	u->pid = pid;
	u->started = pid;

	return wait_for(u->rounds) ? u : NULL;
}

/* Returns its status; 0 if all stamps are there. */
static inline int finish(struct user *u)
{
	int status;

	u->stop = true;
	status = wait_status(u->started);
	munmap(u, sizeof(*u));

	return status;
}

static inline long ask(struct user *u, long (*what)(struct user *u))
{
	u->asked = what;
	return wait_for(!u->asked) ? u->answer : -1;
}

static inline long pages_of(const struct user *u)
{
	return u->size / psize();
}

static inline long pages_there(struct user *u)
{
	return pages_at(u->to, u->pid, u->p, u->size);
}

/* Some may be in a batch of a CPU for long, where nobody can migrate them. */
static inline long most(long pages)
{
	return pages - pages / 16;
}

/* Lines of a file that have the word in them. */
static inline void print_lines(const char *path, const char *word)
{
	FILE *f = fopen(path, "r");
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, word))
			printf("# %s", line);
	if (f)
		fclose(f);
}

/* Whether so many have come to where it is. If not, what there is to know. */
static inline bool come(struct user *u, long pages)
{
	char path[64];

	if (wait_for(pages_there(u) >= pages))
		return true;
	printf("# %ld of %ld pages came to node %d, not %ld; %lu rounds\n",
	       pages_there(u), pages_of(u), u->to->node, pages, u->rounds);
	snprintf(path, sizeof(path), "/proc/%d/sched", u->pid);
	print_lines(path, "numa");
	print_lines(path, "runtime");
	snprintf(path, sizeof(path), NODES "node%d/meminfo", u->to->node);
	print_lines(path, "Free");
	print_lines("/proc/vmstat", "numa_");
	print_lines(DEBUG "fates", "");
	print_lines(DEBUG "queued", "");

	return false;
}

static inline bool converges(struct user *u)
{
	return come(u, most(pages_of(u)));
}

static inline long bring_back(struct user *u)
{
	return bind_to(u->p, u->size, u->from, MPOL_MF_MOVE) ?: unbind(u->p, u->size);
}

/*
 * Until so many of its pages wait to go there, which takes a scan. Who was not
 * looking while they did has them come once more.
 */
static inline bool has_queued(struct user *u, long pages)
{
	return wait_for(queued(u->from, u->to) >= pages ||
			(pages_there(u) >= most(pages_of(u)) &&
			 (ask(u, bring_back), false)));
}

/* Faults migrate until there is a queue, which the first one asks for. */
static inline void make_queue(const struct place *from, const struct place *to)
{
	const long before = vm_event("knuma_queued");

	for (int tries = 0; tries < 50 && vm_event("knuma_queued") == before; tries++) {
		struct user *u = start((struct user) {
			.size = MB, .from = from, .to = to,
		});

		if (!u)
			return;
		wait_for(vm_event("knuma_queued") > before ||
			 pages_there(u) >= most(pages_of(u)));
		finish(u);
	}
}

/* The daemons wait for a while, so that something can happen to what waits. */
static inline void hold_queues(void)
{
	make_queue(here, there);
	write_text(MIGRATED "wake_pages", "1048576");
	write_text(MIGRATED "wake_millisecs", "1000");
	write_text(KNUMA "faultaround_pages", "128");
}

#endif
