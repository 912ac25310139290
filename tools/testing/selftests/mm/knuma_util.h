/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers for tests of NUMA balancing outside of page faults: nodes, tunables, and
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
 * Test timeout in seconds. A task spends at most 1/32 of the CPU time on scans, so a
 * test of one second can take a minute with a debug kernel on a busy host.
 */
#define PATIENCE	600

static const char * const groups[] = {
	CGROUP "knuma_test_1", CGROUP "knuma_test_2"
};

/* A node with memory, and one CPU of the node. */
struct place {
	int node;
	int cpu;
};

static struct place places[8];
static int nr_places;

/* By default, the test and new memory are on @here, and users run on @there. */
static struct place *here, *there;

/* Returns the number of windows queued for a node, or -1 if the node never had a daemon. */
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
 * struct windows - trace statistics of the windows of a task
 * @nr:		number of windows
 * @pages:	pages that daemons tried to migrate
 * @moved:	pages that moved
 * @largest:	pages of the largest window
 * @stopped:	number of windows that stopped early, for another task
 */
struct windows {
	long nr;
	long pages;
	long moved;
	long largest;
	long stopped;
};

/* Returns the number after @name in a line of the trace, or 0. */
static inline long trace_field(const char *line, const char *name)
{
	const char *at = strstr(line, name);

	return at ? atol(at + strlen(name)) : 0;
}

/* Returns the PID of the task that recorded a line: "comm-PID  [CPU] ..." */
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

/* Sums up the windows of a task that daemons migrated since begin(). */
static inline struct windows windows_of(pid_t pid)
{
	FILE *f = fopen(TRACE "trace", "r");
	struct windows all = {};
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		long pages = trace_field(line, " pages=");

		/* Skip windows that the task itself migrated in a fault. */
		if (!strstr(line, "knuma_window: ") || trace_task(line) == pid ||
		    trace_field(line, " pid=") != pid)
			continue;
		all.nr++;
		all.pages += pages;
		all.moved += trace_field(line, " moved=");
		all.stopped += strstr(line, " stopped") != NULL;
		all.largest = pages > all.largest ? pages : all.largest;
	}
	if (f)
		fclose(f);

	return all;
}

/* Counts hinting faults of all tasks on pages of remote nodes. */
static inline long remote_faults(void)
{
	return vm_event("numa_hint_faults") - vm_event("numa_hint_faults_local");
}

/* Returns true if the kernel has found a bad page or page table since boot. */
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
		/* The first line has MemTotal, which is 0 kB on a memory-less node. */
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

/* Counts the pages of a range of process @pid that are on a node. @pid 0 is the caller. */
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

/* Counts the pages of a part of a stamped range whose stamps are wrong. */
static inline long broken_part(const char *p, size_t from, size_t len, unsigned long key)
{
	return len / psize() - count_pages(p + from, len, stamp_of(key, from), PAGE_OLD);
}

static inline long broken(const char *p, size_t size, unsigned long key)
{
	return broken_part(p, 0, size, key);
}

/* Maps memory at @p, with MADV_HUGEPAGE if @large. Returns NULL if the mmap() fails. */
static inline char *map_over(char *p, size_t size, bool large, int fd)
{
	p = mmap(p, size, PROT_READ | PROT_WRITE, MAP_FIXED |
		 (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, size, large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return p;
}

/* Enables a folio size for MADV_HUGEPAGE. Returns false if the kernel lacks the size. */
static inline bool have_folios(size_t folio)
{
	int err = 0;

	if (folio)
		err = write_text(folio == HUGE ? THP "hugepages-2048kB/enabled" :
				 THP "hugepages-64kB/enabled", "madvise");
	return !err && (!folio || !access(THP, F_OK));
}

/* Files that the tests change, and the initial values. */
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

/* Returns the reason to skip the test, or NULL. */
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
	/* Stop the daemons to drop queued windows. */
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

/* Creates a cgroup with memory of the first @nr places only, or of all nodes if @nr is 0. */
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
 * struct user - process that uses memory; shared with the test
 * @size:	bytes of memory
 * @folio:	bytes of a large folio; 0 for small folios
 * @fd:		file to map; 0 for anonymous memory
 * @group:	cgroup of the process, or NULL
 * @step:	bytes between two accesses; 0 for one page
 * @from:	place of the memory at first
 * @to:		place where the process runs after that
 * @threaded:	start a second thread, which sleeps
 * @writes:	write to each word that was read
 * @prepare:	called after the memory is stamped and before the first round; returns 0
 *		on success
 * @started:	process that start() forked
 * @pid:	process that uses the memory now: @started or a child of @started
 * @left:	@started has left the memory to @pid
 * @p:		start address of the memory
 * @asked:	function to call after the current round
 * @answer:	return value of @asked
 * @rounds:	number of completed rounds over the memory
 * @stop:	exit after the current round
 * @cannot:	the process failed to set up the memory
 * @pfns:	page frame numbers, for @asked
 *
 * System calls make the compiler read fields again that are not atomic.
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

/* Allocates and stamps the memory on @u->from. Returns false on failure. */
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

/* Exits with 0, with 1 if a stamp is wrong, or with 2 if get_memory() fails. */
static inline void use(struct user *u)
{
	long bad = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!get_memory(u)) {
		u->cannot = true;
		_exit(2);
	}
	while (!u->stop && !bad) {
		/* @to may have changed, or the CPU may have been offline. */
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

/* Forks a user and waits for the first round. Returns NULL on failure. */
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

/* Returns the wait status of the user, which is 0 if all stamps are intact. */
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

/* A few folios may stay in a batch of a CPU for long, and cannot migrate from there. */
static inline long most(long pages)
{
	return pages - pages / 16;
}

/* Prints the lines of a file that contain @word. */
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

/* Returns true if at least @pages pages are on the node of the user. */
static inline bool has_come(struct user *u, long pages)
{
	usleep(50000);
	return pages_there(u) >= pages;
}

/* Waits until @pages pages are on the node of the user. Prints statistics on failure. */
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

/* Keeps daemons from taking windows, and faults from treating the queues as late. */
static inline void hold_queues(void)
{
	write_text(KNUMA "late_millisecs", "10000");
	write_text(DEBUG "hold", "Y");
}

/* Lets daemons take windows again. Windows older than two seconds have expired. */
static inline void release_queues(void)
{
	write_text(DEBUG "hold", "N");
}

/*
 * Waits until @windows windows are queued for the node of the user, which takes a scan.
 * If faults have migrated most pages before, moves the pages back to @u->from.
 */
static inline bool has_queued(struct user *u, long windows)
{
	int looks = 0;

	return wait_for(queued(u->to) >= windows ||
			(++looks % 200 == 0 && pages_there(u) >= most(pages_of(u)) &&
			 (ask(u, bring_back), false)));
}

/* Waits until the queue is empty and no daemon is migrating a window. */
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
