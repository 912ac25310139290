/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What tests of NUMA balancing outside of page faults share: nodes, knobs, and
 * processes that use memory on the wrong node.
 */
#ifndef KNUMA_UTIL_H
#define KNUMA_UTIL_H

#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include "harness_util.h"

#define KNUMA		"/sys/kernel/mm/autonuma/"
#define SCAND		KNUMA "knuma_scand/"
#define DEBUG		"/sys/kernel/debug/knuma/"
#define SCAN		"/sys/kernel/debug/sched/numa_balancing/"
#define BALANCING	"/proc/sys/kernel/numa_balancing"
#define COMPACTION	"/proc/sys/vm/compaction_proactiveness"
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

/* Windows that wait to move to the node; -1 if it never had a daemon. */
static inline long queued(const struct place *to)
{
	FILE *f = fopen(DEBUG "queued", "r");
	long windows = -1, nr;
	int node;

	while (f && fscanf(f, "%d %ld", &node, &nr) == 2)
		if (node == to->node)
			windows = nr;
	if (f)
		fclose(f);

	return windows;
}

/**
 * struct windows - What trace events tell of the windows of a task
 * @nr:		number of windows
 * @pages:	pages that were tried
 * @moved:	pages that have moved
 * @largest:	most pages of one window
 */
struct windows {
	long nr;
	long pages;
	long moved;
	long largest;
};

/* The number after the name in a line of the trace, or 0. */
static inline long trace_field(const char *line, const char *name)
{
	const char *at = strstr(line, name);

	return at ? atol(at + strlen(name)) : 0;
}

/* The task that has recorded a line: "comm-PID  [CPU] ..." */
static inline pid_t trace_task(char *line)
{
	char *end = strstr(line, " [");
	const char *dash;

	if (!end)
		return 0;
	*end = 0;
	dash = strrchr(line, '-');
	*end = ' ';

	return dash ? atoi(dash + 1) : 0;
}

/* Windows of a task that daemons have migrated, since begin(). */
static inline struct windows windows_of(pid_t pid)
{
	FILE *f = fopen(TRACE "trace", "r");
	struct windows all = {};
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		long pages = trace_field(line, " pages=");

		/* What a task has migrated in a fault, it has recorded itself. */
		if (!strstr(line, "knuma_window: ") || trace_task(line) == pid ||
		    trace_field(line, " pid=") != pid)
			continue;
		all.nr++;
		all.pages += pages;
		all.moved += trace_field(line, " moved=");
		all.largest = pages > all.largest ? pages : all.largest;
	}
	if (f)
		fclose(f);

	return all;
}

/* Hinting faults of all tasks on pages of other nodes. */
static inline long remote_faults(void)
{
	return vm_event("numa_hint_faults") - vm_event("numa_hint_faults_local");
}

/* Whether the kernel has found a page table or a page in a bad state, ever. */
static inline bool bad_pages(void)
{
	return read_long("/proc/sys/kernel/tainted") & 1 << 5;
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
	{ COMPACTION, "0" },
	{ KNUMA "window_pages", "512" },
	{ KNUMA "late_millisecs", "100" },
	{ DEBUG "hold", "N" },
	{ SCAND "scan_sleep_millisecs", "20" },
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
	if (trace_event(TRACE, "knuma/knuma_window", NULL))
		return "no tracefs at /sys/kernel/tracing";
	find_places();
	if (nr_places < 2)
		return "needs two nodes with CPUs and memory";
	settings_save(settings, ARRAY_SIZE(settings), setup->old);
	setup->begun = true;
	/* The daemons forget what waits. */
	write_text(KNUMA "enabled", "0");
	settings_apply(settings, ARRAY_SIZE(settings));

	return run_on(here) ? "cannot stay on a CPU" : NULL;
}

static inline void restore(struct setup *setup)
{
	if (!setup->begun) {
		rmdir(TRACE);
		return;
	}
	for (long cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++)
		set_cpu_online(cpu, true);
	write_text("/sys/power/pm_test", "none");
	write_text(KNUMA "enabled", "0");
	settings_restore(settings, ARRAY_SIZE(settings), setup->old);
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		group_remove(groups[i]);
	rmdir(TRACE);
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
 * @threaded:	it has a second thread, which sleeps
 * @writes:	it writes what it has read
 * @prepare:	called before it begins to use the memory; returns 0, or -1 if
 *		that is not possible
 * @started:	the process that was started
 * @pid:	who has the memory now: it, or a child that it was left to
 * @left:	it was
 * @p:		its memory
 * @asked:	it is to call that between two rounds
 * @answer:	what that returned
 * @rounds:	how often it has touched all of it
 * @cannot:	it could not begin
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
	bool threaded;
	bool writes;
	long (*prepare)(struct user *u);
	pid_t pid, started;
	atomic_bool left;
	char *p;
	long (*asked)(struct user *user);
	atomic_long answer;
	atomic_ulong rounds;
	atomic_bool stop, cannot;
	unsigned long pfns[256];
};

static inline void *sleep_on(void *arg)
{
	while (true)
		pause();
	return NULL;
}

/* Returns whether it has its memory, on the node it is to be on at first. */
static inline bool get_memory(struct user *u)
{
	const int fd = u->fd ?: -1;
	pthread_t thread;

	if (u->group && group_write(u->group, "cgroup.procs", "0"))
		return false;
	u->p = map_aligned(u->size);
	if (u->p == MAP_FAILED || !map_over(u->p, u->size, u->folio, fd) ||
	    bind_to(u->p, u->size, u->from, 0))
		return false;
	stamp(u->p, u->size, 1);
	if (u->prepare && u->prepare(u))
		return false;
	if (u->threaded && pthread_create(&thread, NULL, sleep_on, NULL))
		return false;
	return !unbind(u->p, u->size);
}

static inline long use_once(struct user *u)
{
	const bool writes = u->writes;
	long bad = 0;

	for (size_t at = 0; at < u->size; at += u->step) {
		volatile unsigned long *word = (void *)(u->p + at);

		bad += *word != stamp_of(1, at);
		if (writes)
			*word = stamp_of(1, at);
	}
	return bad;
}

/* Exits with 0, with 1 if a stamp is wrong, with 2 if it could not begin. */
static inline void use(struct user *u)
{
	long bad = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!get_memory(u)) {
		u->cannot = true;
		_exit(2);
	}
	while (!u->stop && !bad) {
		/* The CPU may have been offline. */
		run_on(u->to);
		bad += use_once(u);
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

	if (wait_for(u->rounds || u->cannot) && !u->cannot)
		return u;
	kill_and_wait(pid);

	return NULL;
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

/* Whether so many have come to where it is. */
static inline bool has_come(struct user *u, long pages)
{
	usleep(50000);
	return pages_there(u) >= pages;
}

/* If they do not come, prints what there is to know. */
static inline bool come(struct user *u, long pages)
{
	char path[64];

	if (wait_for(has_come(u, pages)))
		return true;
	printf("# %ld of %ld pages came to node %d, not %ld; %lu rounds\n",
	       pages_there(u), pages_of(u), u->to->node, pages, u->rounds);
	snprintf(path, sizeof(path), "/proc/%d/sched", u->pid);
	print_lines(path, "numa");
	print_lines(path, "runtime");
	snprintf(path, sizeof(path), NODES "node%d/meminfo", u->to->node);
	print_lines(path, "Free");
	print_lines("/proc/vmstat", "numa_");
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

/* The daemons leave the queues alone, and no fault takes them for late. */
static inline void hold_queues(void)
{
	write_text(KNUMA "late_millisecs", "10000");
	write_text(DEBUG "hold", "Y");
}

/* They go on with what has waited for less than two seconds. */
static inline void release_queues(void)
{
	write_text(DEBUG "hold", "N");
}

/*
 * Until so many windows wait to go where it runs, which takes a scan. Pages may
 * have moved in faults before; then they have to do so once more.
 */
static inline bool has_queued(struct user *u, long windows)
{
	int looks = 0;

	return wait_for(queued(u->to) >= windows ||
			(++looks % 200 == 0 && pages_there(u) >= most(pages_of(u)) &&
			 (ask(u, bring_back), false)));
}

/* Until nothing waits, and no daemon has a window in its hands. */
static inline bool drain(const struct place *to)
{
	bool empty;

	release_queues();
	empty = wait_for(queued(to) <= 0);
	write_text(KNUMA "enabled", "0");
	write_text(KNUMA "enabled", "1");

	return empty;
}

static inline void pause_user(struct user *u)
{
	int status;

	kill(u->pid, SIGSTOP);
	waitpid(u->pid, &status, WUNTRACED);
}

static inline void resume_user(struct user *u)
{
	kill(u->pid, SIGCONT);
}

#endif
