// SPDX-License-Identifier: GPL-2.0
/*
 * Kernel activities that run alongside the program. start() and tick() run in a
 * process of that neighbour's own. stop() may run in the supervisor instead,
 * after that process was killed, so stop() relies on nothing that start() kept
 * in memory: it writes the values of a freshly booted guest, and looks for
 * devices in /sys and /proc.
 */
#include "soak.h"

#include <glob.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define NODES		"/sys/devices/system/node/"
#define MEMORY_BLOCKS	"/sys/devices/system/memory/"
#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define DAMON		"/sys/kernel/mm/damon/admin/kdamonds/"
#define DAMON_RECLAIM	"/sys/module/damon_reclaim/parameters/"
#ifndef MADV_SOFT_OFFLINE	/* not in the C library's header */
#define MADV_SOFT_OFFLINE	101
#endif
#define UNPOISON	"/sys/kernel/debug/hwpoison/unpoison-pfn"

/*
 * struct setting - a file that takes a few values.
 * @path:	its name
 * @values:	values while the neighbour is on, the first one at start
 * @boot:	value of a freshly booted guest
 *
 * The first setting of a table exists if the kernel has the feature.
 */
struct setting {
	const char *path;
	const char *values[6];
	const char *boot;
};

static bool neighbour_apply(const struct setting *settings, size_t nr)
{
	for (size_t i = 1; i < nr; i++)
		put(settings[i].path, settings[i].values[0]);
	return !put(settings[0].path, settings[0].values[0]);
}

static void neighbour_vary(const struct setting *settings, size_t nr,
			   struct rng *rng)
{
	const struct setting *setting = &settings[rng_below(rng, nr)];
	size_t values = 0;

	while (values < ARRAY_SIZE(setting->values) && setting->values[values])
		values++;
	put(setting->path, setting->values[rng_below(rng, values)]);
}

static void neighbour_restore(const struct setting *settings, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		put(settings[i].path, settings[i].boot);
}

/* start(), tick() and stop() of a neighbour that consists of settings. */
#define SETTINGS_NEIGHBOUR(name)					\
	static bool name##_start(struct rng *rng)			\
	{								\
		(void)rng;						\
		return neighbour_apply(name##_settings,			\
				       ARRAY_SIZE(name##_settings));	\
	}								\
	static void name##_tick(struct rng *rng)			\
	{								\
		neighbour_vary(name##_settings,				\
			       ARRAY_SIZE(name##_settings), rng);	\
	}								\
	static void name##_stop(void)					\
	{								\
		neighbour_restore(name##_settings,			\
				  ARRAY_SIZE(name##_settings));		\
	}

/* Bytes that a neighbour may use: MemAvailable without 15 % of MemTotal. */
static uint64_t neighbour_room(void)
{
	long available = get_key("/proc/meminfo", "MemAvailable");
	long spare = get_key("/proc/meminfo", "MemTotal") * 15 / 100;

	return available > spare ? (uint64_t)(available - spare) << 10 : 0;
}

/* A random part of neighbour_room(), at most @most bytes; 0 if there is no room. */
static size_t neighbour_share(struct rng *rng, uint64_t most)
{
	uint64_t room = neighbour_room();

	if (room > most)
		room = most;
	return room < MIB ? 0 : (1 + rng_below(rng, room / MIB)) * MIB;
}

/* A random file among those that match @pattern; the caller frees it. */
static char *neighbour_pick(const char *pattern, struct rng *rng)
{
	char *path = NULL;
	glob_t found;

	if (!glob(pattern, GLOB_BRACE, NULL, &found)) {
		path = strdup(found.gl_pathv[rng_below(rng, found.gl_pathc)]);
		globfree(&found);
	}
	return path;
}

/* Write @text to each file that matches @pattern; true if there was one. */
static bool neighbour_put_all(const char *pattern, const char *text)
{
	glob_t found;

	if (glob(pattern, GLOB_BRACE, NULL, &found))
		return false;
	for (size_t i = 0; i < found.gl_pathc; i++)
		put(found.gl_pathv[i], text);
	globfree(&found);
	return true;
}

static void neighbour_run(const char *program, const char *argument)
{
	char *argv[] = { (char *)program, (char *)argument, NULL };
	posix_spawn_file_actions_t actions;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null",
					 O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null",
					 O_WRONLY, 0);
	if (!posix_spawnp(&pid, program, &actions, NULL, argv, environ))
		waitpid(pid, NULL, 0);
	posix_spawn_file_actions_destroy(&actions);
}

/* Map @size bytes, write to each page, unmap them. */
static void neighbour_touch(size_t size)
{
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return;
	for (size_t i = 0; i < size; i += PAGE)
		memory[i] = 1;
	munmap(memory, size);
}

static const struct setting ksmd_settings[] = {
	/*
	 * Not merge_across_nodes: with 1, a scan of upstream's leaves the unstable
	 * trees of other nodes than 0, and with 0 the next one uses freed items.
	 */
	{ "/sys/kernel/mm/ksm/run", { "1", "1", "1", "2", "0" }, "0" },
	{ "/sys/kernel/mm/ksm/advisor_mode", { "none" }, "none" },
	{ "/sys/kernel/mm/ksm/pages_to_scan", { "1000", "100", "2000" }, "100" },
	{ "/sys/kernel/mm/ksm/sleep_millisecs", { "1", "0", "20" }, "20" },
	{ "/sys/kernel/mm/ksm/smart_scan", { "0", "1" }, "1" },
	{ "/sys/kernel/mm/ksm/use_zero_pages", { "0", "1" }, "0" },
	{ "/sys/kernel/mm/ksm/max_page_sharing", { "256", "2" }, "256" },
};
SETTINGS_NEIGHBOUR(ksmd)

static const struct setting khugepaged_settings[] = {
	{ THP "enabled", { "always", "always", "madvise", "never" }, "madvise" },
	{ THP "defrag", { "always", "defer", "defer+madvise", "never" }, "madvise" },
	{ THP "shmem_enabled", { "advise", "always", "within_size", "never" }, "never" },
	{ THP "use_zero_page", { "1", "0" }, "1" },
	{ THP "shrink_underused", { "1", "0" }, "1" },
	{ THP "khugepaged/defrag", { "1", "0" }, "1" },
	{ THP "khugepaged/max_ptes_none", { "511", "511", "511", "64", "0" }, "511" },
	{ THP "khugepaged/max_ptes_swap", { "64", "511", "0" }, "64" },
	{ THP "khugepaged/max_ptes_shared", { "256", "511", "0" }, "256" },
	{ THP "khugepaged/pages_to_scan", { "16384", "512" }, "4096" },
	{ THP "khugepaged/scan_sleep_millisecs", { "10", "0", "100" }, "10000" },
	{ THP "khugepaged/alloc_sleep_millisecs", { "10", "0", "100" }, "60000" },
};
SETTINGS_NEIGHBOUR(khugepaged)

/* The 2 MiB size follows khugepaged's "enabled" in a freshly booted guest. */
static void mthp_stop(void)
{
	neighbour_put_all(THP "hugepages-*kB/enabled", "never");
	put(THP "hugepages-2048kB/enabled", "inherit");
}

static void mthp_tick(struct rng *rng)
{
	static const char * const values[] = {
		"always", "always", "inherit", "madvise", "never",
	};
	char *path = neighbour_pick(THP "hugepages-*kB/enabled", rng);

	if (path)
		put(path, values[rng_below(rng, ARRAY_SIZE(values))]);
	free(path);
}

static bool mthp_start(struct rng *rng)
{
	(void)rng;
	return neighbour_put_all(THP "hugepages-{16,32,64,128}kB/enabled", "always");
}

#define BALANCING	"/sys/kernel/debug/sched/numa_balancing/"

static const struct setting numa_balancing_settings[] = {
	{ "/proc/sys/kernel/numa_balancing", { "1", "1", "1", "0", "2", "3" }, "1" },
	{ BALANCING "scan_delay_ms", { "0", "100", "1000" }, "1000" },
	{ BALANCING "scan_period_min_ms", { "10", "100" }, "1000" },
	{ BALANCING "scan_period_max_ms", { "100", "1000" }, "60000" },
	{ BALANCING "scan_size_mb", { "256", "16", "1" }, "256" },
	{ "/sys/kernel/debug/numa_hint/enabled", { "1", "0" }, "0" },
};
SETTINGS_NEIGHBOUR(numa_balancing)

static const struct setting compaction_settings[] = {
	{ "/proc/sys/vm/compact_memory", { "1" }, "1" },
	{ "/proc/sys/vm/compaction_proactiveness", { "100", "0", "20" }, "20" },
	{ "/proc/sys/vm/compact_unevictable_allowed", { "1", "0" }, "1" },
	{ "/proc/sys/vm/extfrag_threshold", { "500", "0", "1000" }, "500" },
};

static bool compaction_start(struct rng *rng)
{
	(void)rng;
	return neighbour_apply(compaction_settings, ARRAY_SIZE(compaction_settings));
}

static void compaction_tick(struct rng *rng)
{
	char *path;

	if (rng_chance(rng, 50)) {
		neighbour_vary(compaction_settings, ARRAY_SIZE(compaction_settings), rng);
		return;
	}
	path = neighbour_pick(NODES "node*/compact", rng);
	if (path)
		put(path, "1");
	free(path);
}

static void compaction_stop(void)
{
	neighbour_restore(compaction_settings, ARRAY_SIZE(compaction_settings));
}

/* min_free_kbytes depends on the machine at boot: leave a value for any guest. */
static const struct setting kswapd_settings[] = {
	{ "/proc/sys/vm/watermark_scale_factor", { "500", "1000", "100", "10" }, "10" },
	{ "/proc/sys/vm/min_free_kbytes", { "32768", "8192", "16384" }, "16384" },
	{ "/proc/sys/vm/watermark_boost_factor", { "15000", "0" }, "15000" },
	{ "/proc/sys/vm/swappiness", { "60", "0", "100", "200" }, "60" },
	{ "/proc/sys/vm/zone_reclaim_mode", { "0", "1", "7" }, "0" },
};

static bool kswapd_start(struct rng *rng)
{
	(void)rng;
	put("/proc/self/oom_score_adj", "1000");
	return neighbour_apply(kswapd_settings, ARRAY_SIZE(kswapd_settings));
}

static void kswapd_tick(struct rng *rng)
{
	size_t size = neighbour_share(rng, 64 * MIB);

	neighbour_vary(kswapd_settings, ARRAY_SIZE(kswapd_settings), rng);
	if (size)
		neighbour_touch(size);
}

static void kswapd_stop(void)
{
	neighbour_restore(kswapd_settings, ARRAY_SIZE(kswapd_settings));
}

/*
 * Fragmentation: much memory is free, but in single pages. The kernel may compact
 * it, but an allocation that does not wait for that finds no huge page.
 */
static char *fragmentation_memory;
static size_t fragmentation_size, fragmentation_done;

static bool fragmentation_start(struct rng *rng)
{
	(void)rng;
	put("/proc/self/oom_score_adj", "1000");
	fragmentation_size = neighbour_room() / 4 * 3;
	fragmentation_memory = mmap(NULL, fragmentation_size, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fragmentation_memory == MAP_FAILED)
		fragmentation_size = 0;
	madvise(fragmentation_memory, fragmentation_size, MADV_NOHUGEPAGE);
	return true;
}

static void fragmentation_tick(struct rng *rng)
{
	size_t end = fragmentation_done + 32 * MIB;

	(void)rng;
	if (end > fragmentation_size)
		end = fragmentation_size;
	for (size_t i = fragmentation_done; i < end; i += PAGE)
		fragmentation_memory[i] = 1;
	for (size_t i = fragmentation_done; i < end; i += 2 * PAGE)
		madvise(fragmentation_memory + i, PAGE, MADV_DONTNEED);
	fragmentation_done = end;
}

#define RECLAIM "{/sys/fs/cgroup{,/soak,/soak/*,/soak/*/*}/memory.reclaim," NODES "node*/reclaim}"

static void reclaim_tick(struct rng *rng)
{
	char *path = neighbour_pick(RECLAIM, rng);
	unsigned long mib = 1 + rng_below(rng, 32);

	if (!path)
		return;
	if (rng_chance(rng, 50))
		putf(path, "%luM", mib);
	else
		putf(path, "%luM swappiness=%lu", mib, (unsigned long)rng_below(rng, 201));
	free(path);
}

static bool reclaim_start(struct rng *rng)
{
	char *path = neighbour_pick(RECLAIM, rng);

	free(path);
	return path;
}

static const struct setting lru_gen_settings[] = {
	{ "/sys/kernel/mm/lru_gen/enabled", { "0", "7", "1", "3", "5" }, "7" },
	{ "/sys/kernel/mm/lru_gen/min_ttl_ms", { "0", "100" }, "0" },
};
SETTINGS_NEIGHBOUR(lru_gen)

/*
 * DAMON: either DAMON_RECLAIM, or a scheme of the sysfs interface on physical
 * memory or on a process of soak. DAMON runs one of the two at a time.
 */
static const struct setting damon_reclaim_settings[] = {
	{ DAMON_RECLAIM "enabled", { "Y" }, "N" },
	{ DAMON_RECLAIM "min_age", { "0" }, "120000000" },
	{ DAMON_RECLAIM "wmarks_high", { "1000" }, "500" },
	{ DAMON_RECLAIM "wmarks_mid", { "1000" }, "400" },
	{ DAMON_RECLAIM "wmarks_low", { "0" }, "200" },
	{ DAMON_RECLAIM "wmarks_interval", { "100000" }, "5000000" },
	{ DAMON_RECLAIM "quota_sz", { "33554432" }, "134217728" },
};

/* A random process of the supervisor, other than this one; 0: none. */
static pid_t neighbour_process(struct rng *rng)
{
	char path[64], line[1024] = "", *p = line, *end;
	pid_t pids[64];
	size_t nr = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", getppid(), getppid());
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fgets(line, sizeof(line), file)) {
		while (nr < ARRAY_SIZE(pids)) {
			pids[nr] = strtol(p, &end, 10);
			if (end == p)
				break;
			if (pids[nr] != getpid())
				nr++;
			p = end;
		}
	}
	fclose(file);
	return nr ? pids[rng_below(rng, nr)] : 0;
}

static void damon_scheme(struct rng *rng)
{
	static const char * const on_memory[] = {
		"pageout", "lru_prio", "lru_deprio", "migrate_hot", "migrate_cold",
	};
	static const char * const on_process[] = {
		"pageout", "cold", "willneed", "hugepage", "nohugepage", "migrate_cold",
	};
	const char *scheme = DAMON "0/contexts/0/schemes/0/";
	bool memory = rng_chance(rng, 50);
	pid_t pid = neighbour_process(rng);
	char path[256];

	if (put(DAMON "nr_kdamonds", "1") || (!memory && !pid))
		return;
	put(DAMON "0/contexts/nr_contexts", "1");
	put(DAMON "0/contexts/0/operations", memory ? "paddr" : "vaddr");
	put(DAMON "0/contexts/0/monitoring_attrs/intervals/aggr_us", "20000");
	put(DAMON "0/contexts/0/targets/nr_targets", "1");
	if (memory) {
		put(DAMON "0/contexts/0/targets/0/regions/nr_regions", "1");
		put(DAMON "0/contexts/0/targets/0/regions/0/start", "0");
		putf(DAMON "0/contexts/0/targets/0/regions/0/end", "%ld",
		     get_key("/proc/meminfo", "MemTotal") << 10);
	} else {
		putf(DAMON "0/contexts/0/targets/0/pid_target", "%d", pid);
	}
	put(DAMON "0/contexts/0/schemes/nr_schemes", "1");
	snprintf(path, sizeof(path), "%saction", scheme);
	put(path, memory ? on_memory[rng_below(rng, ARRAY_SIZE(on_memory))] :
			   on_process[rng_below(rng, ARRAY_SIZE(on_process))]);
	for (const char * const *p = (const char *[]){ "sz", "nr_accesses", "age", NULL }; *p; p++) {
		snprintf(path, sizeof(path), "%saccess_pattern/%s/max", scheme, *p);
		put(path, "18446744073709551615");
	}
	snprintf(path, sizeof(path), "%squotas/bytes", scheme);
	put(path, "33554432");
	snprintf(path, sizeof(path), "%squotas/reset_interval_ms", scheme);
	put(path, "1000");
	put(DAMON "0/state", "on");
}

static void damon_stop(void)
{
	put(DAMON "0/state", "off");
	put(DAMON "nr_kdamonds", "0");
	neighbour_restore(damon_reclaim_settings, ARRAY_SIZE(damon_reclaim_settings));
}

static void damon_tick(struct rng *rng)
{
	damon_stop();
	if (rng_chance(rng, 50))
		damon_scheme(rng);
	else
		neighbour_apply(damon_reclaim_settings, ARRAY_SIZE(damon_reclaim_settings));
}

static bool damon_start(struct rng *rng)
{
	if (!exists(DAMON "nr_kdamonds") && !exists(DAMON_RECLAIM "enabled"))
		return false;
	damon_tick(rng);
	return true;
}

/* A second zram device as swap; the first one is swap of the guest. */
static int zram_add(void)
{
	return get("/sys/class/zram-control/hot_add");
}

static void zram_remove(int id)
{
	putf("/sys/class/zram-control/hot_remove", "%d", id);
}

static void zram_stop(void)
{
	glob_t found;

	if (glob("/dev/zram[1-9]*", 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		swapoff(found.gl_pathv[i]);
		zram_remove(atoi(found.gl_pathv[i] + strlen("/dev/zram")));
	}
	globfree(&found);
}

static char zram_device[32];

static bool zram_start(struct rng *rng)
{
	char path[64];
	int id = zram_add();

	(void)rng;
	if (id < 1)
		return false;
	snprintf(zram_device, sizeof(zram_device), "/dev/zram%d", id);
	snprintf(path, sizeof(path), "/sys/block/zram%d/disksize", id);
	put(path, "128M");
	neighbour_run("mkswap", zram_device);
	return !swapon(zram_device, 0);
}

/* swapoff() needs room for all that is in swap. */
bool swap_fits(void)
{
	long used = get_key("/proc/meminfo", "SwapTotal") -
		    get_key("/proc/meminfo", "SwapFree");

	return (uint64_t)used << 10 < neighbour_room();
}

static void zram_tick(struct rng *rng)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/%s/compact",
		 strrchr(zram_device, '/') + 1);
	put(path, "1");
	if (!swap_fits())
		return;
	swapoff(zram_device);
	if (rng_chance(rng, 75))
		swapon(zram_device, rng_chance(rng, 50) ? 0 : SWAP_FLAG_PREFER | 10);
}

static const struct setting zswap_settings[] = {
	{ "/sys/module/zswap/parameters/enabled", { "Y", "Y", "N" }, "N" },
	{ "/sys/module/zswap/parameters/max_pool_percent", { "5", "20", "1" }, "20" },
	{ "/sys/module/zswap/parameters/accept_threshold_percent", { "90", "10" }, "90" },
	{ "/sys/module/zswap/parameters/shrinker_enabled", { "Y", "N" }, "N" },
};
SETTINGS_NEIGHBOUR(zswap)

static void drop_caches_tick(struct rng *rng)
{
	putf("/proc/sys/vm/drop_caches", "%d", 1 + (int)rng_below(rng, 3));
}

static bool drop_caches_start(struct rng *rng)
{
	(void)rng;
	/* 4: no message in the kernel log. */
	return !put("/proc/sys/vm/drop_caches", "4");
}

/* CPU 0 stays online. */
static void cpu_hotplug_stop(void)
{
	neighbour_put_all("/sys/devices/system/cpu/cpu[1-9]*/online", "1");
}

static void cpu_hotplug_tick(struct rng *rng)
{
	char *path = neighbour_pick("/sys/devices/system/cpu/cpu[1-9]*/online", rng);

	if (path)
		put(path, get(path) == 1 ? "0" : "1");
	free(path);
}

static bool cpu_hotplug_start(struct rng *rng)
{
	char *path = neighbour_pick("/sys/devices/system/cpu/cpu[1-9]*/online", rng);

	free(path);
	return path;
}

static bool file_has(const char *block, const char *name, const char *text)
{
	char path[128], line[128];
	bool has = false;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", block, name);
	file = fopen(path, "re");
	if (file) {
		has = fgets(line, sizeof(line), file) && !strncmp(line, text, strlen(text));
		fclose(file);
	}
	return has;
}

/*
 * Bring each offline memory block back, to zone Movable on a machine that has
 * one. Returns true if there was an offline block.
 */
static bool memory_online(void)
{
	bool movable = false, offline = false;
	char path[128];
	glob_t found;

	if (glob(MEMORY_BLOCKS "memory[0-9]*", 0, NULL, &found))
		return false;
	for (size_t i = 0; i < found.gl_pathc; i++)
		movable |= file_has(found.gl_pathv[i], "valid_zones", "Movable\n");
	for (size_t i = 0; i < found.gl_pathc; i++) {
		if (!file_has(found.gl_pathv[i], "state", "offline"))
			continue;
		offline = true;
		snprintf(path, sizeof(path), "%s/state", found.gl_pathv[i]);
		put(path, movable ? "online_movable" : "online");
	}
	globfree(&found);
	return offline;
}

static void memory_hotplug_stop(void)
{
	memory_online();
}

static void memory_interrupt(int sig)
{
	(void)sig;
}

/*
 * At most one block is offline at a time. Offlining retries until it succeeds
 * or a signal arrives, so an alarm bounds it.
 */
static void memory_hotplug_tick(struct rng *rng)
{
	long block = 0;
	char path[160], *dir;
	FILE *file;

	if (memory_online())
		return;
	file = fopen(MEMORY_BLOCKS "block_size_bytes", "re");
	if (!file)
		return;
	if (fscanf(file, "%lx", &block) != 1)
		block = 0;
	fclose(file);
	if (!block || neighbour_room() < (uint64_t)block)
		return;
	for (int tries = 0; tries < 50; tries++) {
		dir = neighbour_pick(MEMORY_BLOCKS "memory[0-9]*", rng);
		if (!dir)
			return;
		/* Blocks of zone Normal seldom succeed, so try few of them. */
		if (file_has(dir, "valid_zones", "Movable\n") || tries > 47) {
			snprintf(path, sizeof(path), "%s/state", dir);
			alarm(3);
			put(path, "offline");
			alarm(0);
			free(dir);
			return;
		}
		free(dir);
	}
}

static bool memory_hotplug_start(struct rng *rng)
{
	struct sigaction action = { .sa_handler = memory_interrupt };

	(void)rng;
	sigaction(SIGALRM, &action, NULL);
	return exists(MEMORY_BLOCKS "block_size_bytes");
}

/* Soft-offline pages of this process, and return them to the allocator. */
static char *soft_offline_memory;
#define SOFT_OFFLINE_SIZE (2 * HUGE)

static bool soft_offline_start(struct rng *rng)
{
	(void)rng;
	if (!exists(UNPOISON))
		return false;
	soft_offline_memory = mmap(NULL, SOFT_OFFLINE_SIZE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return soft_offline_memory != MAP_FAILED;
}

static void soft_offline_tick(struct rng *rng)
{
	char *page = soft_offline_memory +
		     rng_below(rng, SOFT_OFFLINE_SIZE / PAGE) * PAGE;
	uint64_t entry = 0;
	int fd;

	if (rng_chance(rng, 10))
		madvise(soft_offline_memory, SOFT_OFFLINE_SIZE,
			rng_chance(rng, 50) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	if (rng_chance(rng, 10))
		madvise(soft_offline_memory, SOFT_OFFLINE_SIZE, MADV_DONTNEED);
	*page = 1;
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)page / PAGE * sizeof(entry)) !=
	    sizeof(entry) || !(entry >> 63))
		entry = 0;
	close(fd);
	if (!entry)
		return;
	if (madvise(page, PAGE, MADV_SOFT_OFFLINE))
		return;
	/* EBUSY while a scanner holds a reference to the page. */
	for (int tries = 0; tries < 20; tries++) {
		if (putf(UNPOISON, "0x%lx", (unsigned long)(entry & ((1UL << 55) - 1))) != -EBUSY)
			break;
		usleep(10000);
	}
}

/* Load a module of the guest or the payload with these parameters. */
static int module_load(const char *name, const char *parameters)
{
	char path[64];
	int fd, rc;

	snprintf(path, sizeof(path), "/lib/modules/%s.ko", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		snprintf(path, sizeof(path), "/payload/%s.ko", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0)
		return -ENOENT;
	rc = syscall(SYS_finit_module, fd, parameters, 0) ? -errno : 0;
	close(fd);
	return rc;
}

static void module_unload(const char *name)
{
	syscall(SYS_delete_module, name, O_NONBLOCK);
}

static void modules_stop(void)
{
	module_unload("test_static_key_base");
	module_unload("test_hmm");
}

static void modules_tick(struct rng *rng)
{
	modules_stop();
	if (rng_chance(rng, 80))
		module_load("test_static_key_base", "");
	else if (rng_chance(rng, 50))
		module_load("test_hmm", "");
}

static bool modules_start(struct rng *rng)
{
	(void)rng;
	return module_load("test_static_key_base", "") != -ENOENT;
}

/*
 * test_vmalloc runs its tests when it is loaded, and then fails to load. These
 * tests, by their bit in run_test_mask, need little memory.
 */
static void vmalloc_tick(struct rng *rng)
{
	static const int tests[] = { 0, 3, 4, 5, 8, 9, 10, 13 };
	char parameters[128];

	if (neighbour_room() < 256 * MIB)
		return;
	snprintf(parameters, sizeof(parameters),
		 "run_test_mask=%d test_loop_count=%d nr_threads=%d nr_storm_areas=500",
		 1 << tests[rng_below(rng, ARRAY_SIZE(tests))],
		 10 + (int)rng_below(rng, 190), 1 + (int)rng_below(rng, 4));
	module_load("test_vmalloc", parameters);
}

static bool vmalloc_start(struct rng *rng)
{
	(void)rng;
	return module_load("test_vmalloc", "run_test_mask=1 test_loop_count=1") == -EAGAIN;
}

/* Socket filters, whose programs the JIT compiles, and arrays that map. */
static int bpf_sockets[2];

static bool bpf_start(struct rng *rng)
{
	(void)rng;
	return !socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, bpf_sockets);
}

static void bpf_tick(struct rng *rng)
{
	static struct sock_filter code[BPF_MAXINSNS];
	struct sock_fprog program = { .filter = code };
	union bpf_attr map = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = 4,
		.value_size = 8,
		.max_entries = 1 + rng_below(rng, 65536),
		.map_flags = BPF_F_MMAPABLE,
	};
	size_t size = (map.max_entries * 8UL + PAGE - 1) / PAGE * PAGE;
	char *memory;
	int fd;

	for (int i = 0; i < 10; i++) {
		program.len = 1 + rng_below(rng, ARRAY_SIZE(code));
		for (int j = 0; j < program.len - 1; j++)
			code[j] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_IMM, j);
		code[program.len - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
		setsockopt(bpf_sockets[i % 2], SOL_SOCKET, SO_ATTACH_FILTER,
			   &program, sizeof(program));
		if (rng_chance(rng, 50))
			setsockopt(bpf_sockets[i % 2], SOL_SOCKET, SO_DETACH_FILTER,
				   NULL, 0);
	}
	fd = syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof(map));
	if (fd < 0)
		return;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory != MAP_FAILED) {
		memory[rng_below(rng, size)] = 1;
		munmap(memory, size);
	}
	close(fd);
}

/*
 * A zram device has slab caches of its own, which go with it; slabload, the
 * module of bench/percpu-drain, has one with objects of kfree_rcu().
 */
static void slab_tick(struct rng *rng)
{
	char path[64], *shrink = neighbour_pick("/sys/kernel/slab/*/shrink", rng);
	int id;

	if (shrink)
		put(shrink, "1");
	free(shrink);
	if (!module_load("slabload", "caches=3 objects=100"))
		module_unload("slabload");
	id = zram_add();
	if (id < 1)
		return;
	snprintf(path, sizeof(path), "/sys/block/zram%d/disksize", id);
	put(path, "1M");
	zram_remove(id);
}

static bool slab_start(struct rng *rng)
{
	slab_tick(rng);
	return exists("/sys/class/zram-control/hot_add") || exists("/payload/slabload.ko");
}

static void slab_stop(void)
{
	module_unload("slabload");
}

static bool mlock_start(struct rng *rng)
{
	return !mlockall(MCL_CURRENT | MCL_FUTURE | (rng_chance(rng, 50) ? MCL_ONFAULT : 0));
}

static void mlock_tick(struct rng *rng)
{
	size_t size = neighbour_share(rng, 16 * MIB);

	if (size)
		neighbour_touch(size);
	if (rng_chance(rng, 20)) {
		munlockall();
		mlock_start(rng);
	}
}

static void stat_refresh_tick(struct rng *rng)
{
	(void)rng;
	put("/proc/sys/vm/stat_refresh", "1");
}

static bool stat_refresh_start(struct rng *rng)
{
	(void)rng;
	return !put("/proc/sys/vm/stat_refresh", "1");
}

static void nothing_stop(void)
{
}

/* With mode 2, the ratio leaves room for the mappings of the program. */
static const struct setting overcommit_settings[] = {
	/*
	 * First and last, and more than processes map: without a rest to commit, mode
	 * 2 has SIGBUS for new pages of memfds.
	 */
	{ "/proc/sys/vm/overcommit_ratio", { "1000000" }, "1000000" },
	{ "/proc/sys/vm/overcommit_memory", { "0", "1", "2" }, "0" },
};
SETTINGS_NEIGHBOUR(overcommit)

/* Read the page tables of the program's processes through /proc. */
static void procfs_tick(struct rng *rng)
{
	static const char * const names[] = {
		"smaps", "smaps_rollup", "numa_maps", "maps", "status", "stat",
	};
	static char buffer[65536];
	pid_t pid = neighbour_process(rng);
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid,
		 names[rng_below(rng, ARRAY_SIZE(names))]);
	fd = pid ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	while (read(fd, buffer, sizeof(buffer)) > 0)
		;
	close(fd);
	/* 1: clear the accessed bits. */
	snprintf(path, sizeof(path), "/proc/%d/clear_refs", pid);
	if (rng_chance(rng, 20))
		put(path, "1");
}

static bool procfs_start(struct rng *rng)
{
	(void)rng;
	return true;
}

#define NEIGHBOUR(name, pause)	{ #name, pause, name##_start, name##_tick, name##_stop }
/* start() and tick() change nothing that outlives their process. */
#define VISITOR(name, pause)	{ #name, pause, name##_start, name##_tick, nothing_stop }

const struct neighbour neighbours[] = {
	NEIGHBOUR(ksmd, 500),
	NEIGHBOUR(khugepaged, 500),
	NEIGHBOUR(mthp, 200),
	NEIGHBOUR(numa_balancing, 1000),
	NEIGHBOUR(compaction, 500),
	NEIGHBOUR(kswapd, 500),
	VISITOR(fragmentation, 20),
	VISITOR(reclaim, 200),
	NEIGHBOUR(lru_gen, 1000),
	NEIGHBOUR(damon, 5000),
	NEIGHBOUR(zram, 2000),
	NEIGHBOUR(zswap, 1000),
	VISITOR(drop_caches, 500),
	NEIGHBOUR(cpu_hotplug, 500),
	NEIGHBOUR(memory_hotplug, 1000),
	VISITOR(soft_offline, 500),
	NEIGHBOUR(modules, 500),
	VISITOR(vmalloc, 500),
	VISITOR(bpf, 200),
	NEIGHBOUR(slab, 500),
	VISITOR(mlock, 200),
	VISITOR(stat_refresh, 200),
	NEIGHBOUR(overcommit, 1000),
	VISITOR(procfs, 100),
};
const unsigned int nr_neighbours = ARRAY_SIZE(neighbours);
