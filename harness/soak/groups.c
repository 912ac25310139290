// SPDX-License-Identifier: GPL-2.0
/*
 * Control groups below /sys/fs/cgroup/soak, one for each kind of limit, and
 * processes that move between them.
 */
#include "soak.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define CGROUP		"/sys/fs/cgroup"
#define SOAK		CGROUP "/soak"

/* Kinds of limits that groups_tick() changes in a group. */
enum group_limit {
	GROUP_QUOTA	= 1 << 0,	/* cpu.max */
	GROUP_WEIGHT	= 1 << 1,	/* cpu.weight, cpu.idle */
	GROUP_MEMORY	= 1 << 2,	/* memory.max, memory.high */
	GROUP_CPUSET	= 1 << 3,	/* cpuset.cpus, cpuset.mems */
	GROUP_PARTITION	= 1 << 4,	/* cpuset.cpus.partition */
};

static const struct group {
	const char *path;
	unsigned int limits;
	bool inner;			/* has a child, so no processes */
} groups[] = {
	{ SOAK "/plain", 0, false },
	{ SOAK "/quota", GROUP_QUOTA, false },
	{ SOAK "/outer", GROUP_QUOTA | GROUP_MEMORY, true },
	{ SOAK "/outer/inner", GROUP_QUOTA | GROUP_WEIGHT, false },
	{ SOAK "/weight", GROUP_WEIGHT, false },
	{ SOAK "/memory", GROUP_MEMORY, false },
	{ SOAK "/cpuset", GROUP_CPUSET, false },
	{ SOAK "/partition", GROUP_PARTITION, false },
};

/*
 * struct groups_state - shared by all processes of soak.
 * @begun:	changes of the nodes that a process may use, by cpuset.mems or by
 *		moving the process to another group
 * @ended:	those of them that have ended
 * @changing:	calls of groups_policy_epoch() that met a change
 * @quotas:	for each group, since when its cpu.max, and that of no CPU time,
 *		has been constant, and the usage then
 */
static struct groups_state {
	atomic_ulong begun;
	atomic_ulong ended;
	atomic_ulong changing;
	struct group_quota {
		double since;		/* 0: start again */
		double share;		/* of a CPU, by cpu.max */
		double quota;		/* seconds of a period */
		long usage;		/* microseconds at @since */
		double realtime;	/* soak_realtime() at @since */
		unsigned int exceeded;	/* checks in a row */
		double slowness;	/* the most since @since */
	} quotas[ARRAY_SIZE(groups)];
} *groups_state;

static int group_put(const struct group *group, const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", group->path, file);
	return put(path, text);
}

static int group_putf(const struct group *group, const char *file,
		      const char *format, long a, long b)
{
	char text[64];

	snprintf(text, sizeof(text), format, a, b);
	return group_put(group, file, text);
}

static void group_enable(const char *path)
{
	static const char * const controllers[] = {
		"+memory", "+cpu", "+cpuset", "+pids",
	};
	char file[128];

	snprintf(file, sizeof(file), "%s/cgroup.subtree_control", path);
	for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
		put(file, controllers[i]);
}

bool groups_init(void)
{
	if (!exists(CGROUP "/cgroup.subtree_control"))
		return false;
	if (!groups_state) {
		groups_state = mmap(NULL, sizeof(*groups_state), PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (groups_state == MAP_FAILED) {
			groups_state = NULL;
			return false;
		}
	}
	group_enable(CGROUP);
	if (mkdir(SOAK, 0755) && errno != EEXIST)
		return false;
	group_enable(SOAK);
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		if (mkdir(groups[i].path, 0755) && errno != EEXIST)
			return false;
		if (groups[i].inner)
			group_enable(groups[i].path);
	}
	return true;
}

/* Charge a page to the group of the caller. */
static void groups_touch(void)
{
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return;
	*page = 1;
	munmap(page, PAGE);
}

/*
 * Let each group fold the counts of each CPU. Upstream may miss the last update
 * until the next one of the same CPU and group: see the comments of
 * __css_rstat_updated(). On the stock kernel, a group without processes had 8 KiB
 * of anon and 244 KiB of page tables, until processes had used it once more.
 */
void groups_update_counts(void)
{
	pid_t pid;

	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		if (groups[i].inner)
			continue;
		pid = fork();
		if (!pid) {
			if (!group_put(&groups[i], "cgroup.procs", "0"))
				on_each_cpu(groups_touch);
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

/* Before and after a change of the nodes that a process may use. */
static void groups_epoch_begin(void)
{
	atomic_fetch_add(&groups_state->begun, 1);
}

static void groups_epoch_end(void)
{
	atomic_fetch_add(&groups_state->ended, 1);
}

/*
 * The caller compares two values: if they are equal, no change has begun or
 * ended in between, and none was going on. During a change, each value is new.
 */
unsigned long groups_policy_epoch(void)
{
	unsigned long ended;

	if (!groups_state)
		return 0;
	ended = atomic_load(&groups_state->ended);
	if (ended == atomic_load(&groups_state->begun))
		return ended;
	return ~atomic_fetch_add(&groups_state->changing, 1);
}

/* A random subset of 0 to @nr - 1, not empty, as a list of numbers. */
static void group_subset(char *list, size_t size, unsigned int nr, struct rng *rng)
{
	unsigned long mask = 1 + rng_below(rng, (1UL << nr) - 1);
	size_t len = 0;

	for (unsigned int i = 0; i < nr && len < size; i++)
		if (mask & 1UL << i)
			len += snprintf(list + len, size - len, "%s%u", len ? "," : "", i);
}

static unsigned int group_nr_cpus(void)
{
	long nr = sysconf(_SC_NPROCESSORS_CONF);

	return nr > 16 ? 16 : nr;
}

static unsigned int group_nr_nodes(void)
{
	unsigned int nr = 0;
	char path[64];

	do {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/meminfo", nr);
	} while (exists(path) && ++nr < 16);

	return nr ? nr : 1;
}

static void group_change_quota(size_t i, struct rng *rng)
{
	/* Periods are 1 ms to 1 s, quotas 1 ms or more. */
	static const struct {
		long quota, period;
	} values[] = {
		{ 20000, 100000 }, { 50000, 100000 }, { 150000, 100000 },
		{ 2000, 10000 }, { 200000, 1000000 },
	};
	size_t value = rng_below(rng, ARRAY_SIZE(values) + 1);

	if (value == ARRAY_SIZE(values))
		group_put(&groups[i], "cpu.max", "max 100000");
	else
		group_putf(&groups[i], "cpu.max", "%ld %ld", values[value].quota,
			   values[value].period);
	groups_state->quotas[i].since = 0;
}

static void group_change_weight(const struct group *group, struct rng *rng)
{
	static const char * const weights[] = { "1", "100", "10000" };

	if (rng_chance(rng, 30)) {
		group_put(group, "cpu.idle", "1");
		return;
	}
	group_put(group, "cpu.idle", "0");
	group_put(group, "cpu.weight", weights[rng_below(rng, ARRAY_SIZE(weights))]);
}

static void group_change_memory(const struct group *group, struct rng *rng)
{
	const char *file = rng_chance(rng, 50) ? "memory.max" : "memory.high";

	if (rng_chance(rng, 25))
		group_put(group, file, "max");
	else
		group_putf(group, file, "%ldM", 64 + rng_below(rng, 449), 0);
}

static void group_change_cpuset(const struct group *group, struct rng *rng)
{
	char list[64];

	if (rng_chance(rng, 50)) {
		group_subset(list, sizeof(list), group_nr_cpus(), rng);
		group_put(group, "cpuset.cpus", list);
		return;
	}
	group_subset(list, sizeof(list), group_nr_nodes(), rng);
	groups_epoch_begin();
	group_put(group, "cpuset.mems", list);
	groups_epoch_end();
}

/* The last CPU becomes a partition; CPU 0 never does. */
static void group_change_partition(const struct group *group, struct rng *rng)
{
	static const char * const types[] = { "isolated", "root", "member" };
	unsigned int last = group_nr_cpus() - 1;

	if (!last)
		return;
	group_putf(group, "cpuset.cpus", "%ld", last, 0);
	group_put(group, "cpuset.cpus.partition", types[rng_below(rng, ARRAY_SIZE(types))]);
}

void groups_tick(struct rng *rng)
{
	size_t i = rng_below(rng, ARRAY_SIZE(groups));
	const struct group *group = &groups[i];
	unsigned int limit = 1U << rng_below(rng, 5);

	if (!groups_state)
		return;
	/* A group that has nothing to change is reclaimed from. */
	if (!(group->limits & limit)) {
		group_putf(group, "memory.reclaim", "%ldM", 1 + rng_below(rng, 32), 0);
		return;
	}
	switch (limit) {
	case GROUP_QUOTA:
		group_change_quota(i, rng);
		break;
	case GROUP_WEIGHT:
		group_change_weight(group, rng);
		break;
	case GROUP_MEMORY:
		group_change_memory(group, rng);
		break;
	case GROUP_CPUSET:
		group_change_cpuset(group, rng);
		break;
	case GROUP_PARTITION:
		group_change_partition(group, rng);
		break;
	}
}

void groups_move(struct rng *rng, pid_t pid)
{
	const struct group *group;

	if (!groups_state)
		return;
	do {
		group = &groups[rng_below(rng, ARRAY_SIZE(groups))];
	} while (group->inner);
	groups_epoch_begin();
	group_putf(group, "cgroup.procs", "%ld", pid, 0);
	groups_epoch_end();
}

/* A quota does not apply to real-time tasks, but cpu.stat counts them. */
static bool group_has_realtime(const char *path)
{
	char file[160], child[128];
	bool realtime = false;
	struct dirent *entry;
	FILE *threads;
	DIR *dir;
	int tid;

	snprintf(file, sizeof(file), "%s/cgroup.threads", path);
	threads = fopen(file, "re");
	if (threads) {
		while (!realtime && fscanf(threads, "%d", &tid) == 1) {
			int policy = sched_getscheduler(tid) & ~SCHED_RESET_ON_FORK;

			realtime = policy == SCHED_FIFO || policy == SCHED_RR ||
				   policy == 6 /* SCHED_DEADLINE */;
		}
		fclose(threads);
	}
	dir = realtime ? NULL : opendir(path);
	if (!dir)
		return realtime;
	while (!realtime && (entry = readdir(dir))) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		if (snprintf(child, sizeof(child), "%s/%s", path, entry->d_name) < (int)sizeof(child))
			realtime = group_has_realtime(child);
	}
	closedir(dir);
	return realtime;
}

/* Read cpu.max; false if there is no quota. */
static bool group_read_quota(const struct group *group, double *share, double *quota)
{
	char path[128];
	long allowed, period;
	FILE *file;
	int n;

	snprintf(path, sizeof(path), "%s/cpu.max", group->path);
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fscanf(file, "%ld %ld", &allowed, &period);
	fclose(file);
	if (n != 2)
		return false;
	*share = (double)allowed / period;
	*quota = allowed / 1e6;
	return true;
}

/*
 * How many times as much CPU time as at best a loop takes now: a guest does not know
 * of time in which its host runs others. Time of other tasks of the guest is no part.
 */
static double group_slowness(void)
{
	static double best;
	struct timespec begin, end;
	double used;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
	for (volatile unsigned int i = 0; i < 1000000; i++)
		;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	used = end.tv_sec - begin.tv_sec + (end.tv_nsec - begin.tv_nsec) / 1e9;
	if (best == 0 || used < best)
		best = used;
	return used / best;
}

/*
 * A group whose quota is constant uses at most
 *	share of the time + a quota + on each CPU a tick of 4 ms and one call.
 * A task that has used up the quota runs on until it returns to user mode, so
 * a call in the kernel counts in whole; groups pay such a debt back. So allow a
 * second for a call, more if the guest is slow, and report only an excess that
 * three checks in a row see.
 */
static void group_check_quota(size_t i)
{
	struct group_quota *quota = &groups_state->quotas[i];
	double share, of_period, start, elapsed, used, allowed, slowness;
	char path[128];
	long usage;

	snprintf(path, sizeof(path), "%s/cpu.stat", groups[i].path);
	start = now();
	usage = get_key(path, "usage_usec");
	if (usage < 0 || !group_read_quota(&groups[i], &share, &of_period) ||
	    group_has_realtime(groups[i].path)) {
		quota->since = 0;
		return;
	}
	if (quota->since == 0 || share != quota->share || of_period != quota->quota) {
		quota->share = share;
		quota->quota = of_period;
		quota->usage = usage;
		quota->realtime = soak_realtime();
		quota->exceeded = 0;
		quota->slowness = 1;
		quota->since = start;
		return;
	}
	slowness = group_slowness();
	if (slowness > quota->slowness)
		quota->slowness = slowness;
	/* usage was read after start, at most this much later. */
	elapsed = now() - quota->since;
	used = (usage - quota->usage) / 1e6;
	/* Real-time tasks are charged to the group, but not limited. */
	allowed = share * elapsed + of_period + group_nr_cpus() * (quota->slowness + 0.004) +
		  soak_realtime() - quota->realtime;
	if (used <= allowed) {
		quota->exceeded = 0;
		return;
	}
	if (++quota->exceeded == 3)
		violation("quota", "%s used %.3f s of CPU time in %.3f s, its quota allows %.3f s",
			  groups[i].path, used, elapsed, allowed);
}

void groups_check(void)
{
	if (!groups_state)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (groups[i].limits & GROUP_QUOTA)
			group_check_quota(i);
}

unsigned long groups_oom_kills(void)
{
	long kills = get_key(SOAK "/memory.events", "oom_kill");

	return kills > 0 ? kills : 0;
}

void groups_calm(void)
{
	if (!groups_state)
		return;
	groups_epoch_begin();
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		const struct group *group = &groups[i];

		group_put(group, "cpu.max", "max 100000");
		group_put(group, "cpu.idle", "0");
		group_put(group, "cpu.weight", "100");
		group_put(group, "memory.high", "max");
		group_put(group, "memory.max", "max");
		group_put(group, "cpuset.cpus.partition", "member");
		group_put(group, "cpuset.cpus", "\n");
		group_put(group, "cpuset.mems", "\n");
		groups_state->quotas[i].since = 0;
	}
	/* A process that was killed during a change has not ended it. */
	atomic_store(&groups_state->ended, atomic_load(&groups_state->begun));
}

/* A killed process may take a moment to leave its group. */
static void group_remove(const char *path)
{
	for (int tries = 0; tries < 50; tries++) {
		if (!rmdir(path) || errno != EBUSY)
			return;
		usleep(100000);
	}
	say("%s is not empty", path);
}

void groups_exit(void)
{
	for (size_t i = ARRAY_SIZE(groups); i--;)
		group_remove(groups[i].path);
	group_remove(SOAK);
}
