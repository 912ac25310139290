// SPDX-License-Identifier: GPL-2.0
/*
 * Sums of the kernel that return to their start values when all processes of
 * the program have exited: memory that is mapped, charged, isolated or queued.
 */
#include "soak.h"

#include <glob.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>

#define MEMINFO		"/proc/meminfo"
#define VMSTAT		"/proc/vmstat"
#define SLABINFO	"/proc/slabinfo"
#define GROUPS		"/sys/fs/cgroup/soak{,/*,/*/*}/"
#define NODES		"/sys/devices/system/node/node[0-9]*/"
#define KNUMA_QUEUED	"/sys/kernel/debug/knuma/queued"

#define KHUGEPAGED_SLEEP "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"
#define SETTLE_TRIES	20	/* of half a second */
#define SETTLE_UPDATE	10	/* tries; the kernel folds counts each 2 s */
#define TICK_LIMIT	3	/* excesses in a row that are no race */

/*
 * struct sum - one number that comes back
 * @slack:	difference that the guest's own processes and daemons make, in
 *		the unit of the file
 * @both:	a number below the start value is wrong as well
 * @start:	the number before the first process
 */
static struct sum {
	const char *class;
	const char *file;
	const char *key;
	long slack;
	bool both;
	long start;
} sums[] = {
	{ "counter", MEMINFO, "LazyFree", 0, false, 0 },
	{ "counter", MEMINFO, "Splittable", 0, false, 0 },
	{ "counter", MEMINFO, "Mlocked", 0, true, 0 },
	{ "counter", MEMINFO, "Unevictable", 1024, false, 0 },
	{ "counter", MEMINFO, "HugePages_Rsvd", 0, true, 0 },
	{ "counter", MEMINFO, "HugePages_Surp", 0, true, 0 },
	{ "counter", MEMINFO, "Committed_AS", 16384, true, 0 },
	{ "counter", MEMINFO, "Writeback", 0, false, 0 },
	{ "counter", VMSTAT, "nr_isolated_anon", 0, true, 0 },
	{ "counter", VMSTAT, "nr_isolated_file", 0, true, 0 },
	{ "counter", VMSTAT, "nr_vmalloc_flushed_areas", 64, false, 0 },
	{ "leak", MEMINFO, "AnonPages", 4096, false, 0 },
	{ "leak", MEMINFO, "Mapped", 4096, false, 0 },
	{ "leak", MEMINFO, "Shmem", 1024, false, 0 },
	{ "leak", MEMINFO, "ShmemHugePages", 0, false, 0 },
	{ "leak", MEMINFO, "ShmemPmdMapped", 0, false, 0 },
	{ "leak", MEMINFO, "PageTables", 1024, false, 0 },
	{ "leak", MEMINFO, "SUnreclaim", 32768, false, 0 },
	{ "leak", MEMINFO, "VmallocUsed", 16384, false, 0 },
	{ "leak", MEMINFO, "Percpu", 16384, false, 0 },
	{ "leak", MEMINFO, "HardwareCorrupted", 64, false, 0 },
	/* Free objects in the sheaves of isolated CPUs, which are not shrunk, count. */
	{ "leak", SLABINFO, "lazyzap_range", 256, false, 0 },
};

/* Bytes that a group without processes may show in memory.stat. */
static const struct {
	const char *key;
	long most;
} group_sums[] = {
	{ "anon", 0 },
	{ "anon_thp", 0 },
	{ "file_mapped", 0 },
	{ "shmem", 0 },
	{ "lazyfree", 0 },
	{ "splittable", 0 },
	{ "pagetables", 0 },
	{ "kernel", 10 * MIB },
};

/* Counts of each node that add up to those of the machine. */
static const char * const node_sums[] = {
	"nr_anon_pages", "nr_anon_transparent_hugepages", "nr_mapped", "nr_shmem", "nr_lazyfree",
	"nr_isolated_anon", "nr_isolated_file", "nr_mlock", "nr_unevictable",
	"nr_page_table_pages",
};

static bool sums_begun;
static long sums_used;		/* memory in use before the first process, kB */
static char sums_meminfo[4096];	/* all of it before the first process */
static int sums_kmsg = -1;

/* The first violation: its class and a text. */
static struct {
	const char *class;
	char text[256];
} wrong;

static void sum_wrong(const char *class, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void sum_wrong(const char *class, const char *format, ...)
{
	va_list args;

	if (wrong.class)
		return;
	wrong.class = class;
	va_start(args, format);
	vsnprintf(wrong.text, sizeof(wrong.text), format, args);
	va_end(args);
}

static long sum_nr_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_CONF);
}

/* Free pages on lists of CPUs, up to an eighth of memory, kB. MemFree leaves them out. */
static long memory_of_cpus(void)
{
	FILE *file = fopen("/proc/zoneinfo", "re");
	long pages, sum = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, " count: %ld", &pages) == 1)
			sum += pages;
	if (file)
		fclose(file);
	return sum * (PAGE >> 10);
}

/* A block that the neighbour could not bring online again is neither free nor in use. */
static long memory_used(void)
{
	return get_key(MEMINFO, "MemTotal") - get_key(MEMINFO, "MemFree") - memory_of_cpus();
}

static void sums_yield(void)
{
	sched_yield();
}

/* Fold per-CPU counts, and free memory that only waits to be freed. */
static void sums_settle(void)
{
	/* An idle CPU keeps the address space, and the PGD, of the last process that ran there. */
	on_each_cpu(sums_yield);
	/* 4: no message in the kernel log. */
	put("/proc/sys/vm/drop_caches", "4");
	put("/proc/sys/vm/drop_caches", "3");
	put("/sys/kernel/slab/lazyzap_range/shrink", "1");
	put("/proc/sys/vm/stat_refresh", "1");
}

/*
 * Empty KASAN's quarantine, which takes up to a 32nd of the debug kernel's memory.
 * Each read of a file in /proc adds 8 KiB to it, so each check fills it again.
 */
static void sums_shrink_slabs(void)
{
	glob_t found;

	if (glob("/sys/kernel/slab/*/shrink", 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		put(found.gl_pathv[i], "1");
	globfree(&found);
}

/*
 * Let ksmd and khugepaged leave the process that they look at: they keep its PGD when
 * it has ended. On the stock kernel, a group had a page of page tables until ksm/run
 * was 2.
 */
static void sums_move_scanners(void)
{
	put("/sys/kernel/mm/ksm/run", "2");
	put("/sys/kernel/mm/ksm/run", "0");
	put(KHUGEPAGED_SLEEP, "0");
	usleep(100000);
	put(KHUGEPAGED_SLEEP, "10000");
}

/* Say which slab caches have 2 MiB or more, and how many groups have died. */
static void sums_say_slabs(void)
{
	FILE *file = fopen(SLABINFO, "re");
	unsigned long active, objects, bytes;
	char line[512], name[64];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %lu %lu %lu", name, &active, &objects, &bytes) == 4 &&
		    objects * bytes >= 2 * MIB)
			say("%s: %lu kB of objects, %lu kB in use", name,
			    objects * bytes >> 10, active * bytes >> 10);
	if (file)
		fclose(file);
	say("%ld dying groups", get_key("/sys/fs/cgroup/cgroup.stat", "nr_dying_descendants"));
}

/* Say which lines of /proc/meminfo differ from those before the first process. */
static void sums_say_changes(void)
{
	char *line, *end, *text = sums_meminfo;

	for (; (line = strtok_r(text, "\n", &end)); text = NULL) {
		char *value = strchr(line, ':');
		long start, now;

		if (!value)
			continue;
		*value++ = '\0';
		start = strtol(value, NULL, 10);
		now = get_key(MEMINFO, line);
		if (labs(now - start) >= 4096)
			say("%s: %ld, was %ld", line, now, start);
	}
}

void sums_begin(void)
{
	FILE *file;

	/* Later rounds compare with the first one: small leaks add up. */
	if (sums_begun)
		return;
	sums_settle();
	for (size_t i = 0; i < ARRAY_SIZE(sums); i++)
		sums[i].start = get_key(sums[i].file, sums[i].key);
	sums_used = memory_used();
	file = fopen(MEMINFO, "re");
	if (file) {
		sums_meminfo[fread(sums_meminfo, 1, sizeof(sums_meminfo) - 1, file)] = '\0';
		fclose(file);
	}
	sums_kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	sums_begun = true;
}

static void sums_check_global(void)
{
	long total = get_key(MEMINFO, "MemTotal");
	long used = memory_used();

	for (size_t i = 0; i < ARRAY_SIZE(sums); i++) {
		const struct sum *sum = &sums[i];
		long value = sum->start < 0 ? -1 : get_key(sum->file, sum->key);

		if (value < 0)
			continue;
		if (value > sum->start + sum->slack ||
		    (sum->both && value < sum->start - sum->slack))
			sum_wrong(sum->class, "%s of %s is %ld, was %ld before the first process",
				  sum->key, sum->file, value, sum->start);
	}
	if (used > sums_used + total / 16)
		sum_wrong("leak", "%ld of %ld kB are in use, were %ld kB before the first process",
			  used, total, sums_used);
}

/*
 * Each line of memory.numa_stat, such as "anon N0=5 N1=6", adds up to that of
 * memory.stat. While nothing runs, both are exact: the kernel folds the per-CPU
 * counts every 2 s. A negative count of a node would show as 0.
 */
static void sums_check_group_nodes(const char *dir)
{
	char path[256], line[512], *p;
	long sum, whole;
	FILE *file;

	snprintf(path, sizeof(path), "%smemory.numa_stat", dir);
	file = fopen(path, "re");
	if (!file)
		return;
	snprintf(path, sizeof(path), "%smemory.stat", dir);
	while (!wrong.class && fgets(line, sizeof(line), file)) {
		/* Each CPU keeps bytes of slab objects that it has not counted yet. */
		if (!strncmp(line, "slab", 4))
			continue;
		/*
		 * Upstream's __folio_migrate_mapping() leaves file_thp to the old
		 * node, and moves file for anonymous pages in the swap cache, too,
		 * which __swap_cache_add_folio() counts for no group.
		 */
		if (!strncmp(line, "file_thp ", 9) || !strncmp(line, "file ", 5))
			continue;
		sum = 0;
		for (p = line; (p = strchr(p, '=')); p++)
			sum += strtol(p + 1, NULL, 10);
		line[strcspn(line, " ")] = 0;
		whole = get_key(path, line);
		if (whole >= 0 && sum != whole)
			sum_wrong("counter", "%s of %s is %ld, its nodes have %ld", line, path, whole, sum);
	}
	fclose(file);
}

static void sums_check_nodes(void)
{
	glob_t found;

	if (glob(NODES "vmstat", 0, NULL, &found))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(node_sums); i++) {
		long sum = 0, whole = get_key(VMSTAT, node_sums[i]);

		for (size_t j = 0; j < found.gl_pathc; j++)
			sum += get_key(found.gl_pathv[j], node_sums[i]);
		if (whole >= 0 && sum != whole)
			sum_wrong("counter", "%s of " VMSTAT " is %ld, the nodes have %ld",
				  node_sums[i], whole, sum);
	}
	globfree(&found);
}

static void sums_check_group(const char *dir)
{
	long batch = sum_nr_cpus() * PAGE, rest, value, limit;
	char path[256];

	for (size_t i = 0; i < ARRAY_SIZE(group_sums); i++) {
		const char *key = group_sums[i].key;

		snprintf(path, sizeof(path), "%smemory.stat", dir);
		value = get_key(path, key);
		if (value > group_sums[i].most)
			sum_wrong("counter", "%s of %s is %ld, there are no processes",
				  key, path, value);
	}
	sums_check_group_nodes(dir);
	/*
	 * A tmpfs or an initramfs may keep files that the group has written. Each
	 * CPU keeps up to 64 pages that it has charged, for each group below, too.
	 */
	snprintf(path, sizeof(path), "%scgroup.stat", dir);
	limit = (1 + get_key(path, "nr_descendants")) * 128 * batch;
	snprintf(path, sizeof(path), "%smemory.stat", dir);
	rest = get_key(path, "file") + get_key(path, "kernel");
	snprintf(path, sizeof(path), "%smemory.current", dir);
	value = get(path);
	if (value > rest + limit)
		sum_wrong("leak", "%s is %ld without processes; files and the kernel have %ld",
			  path, value, rest);
	snprintf(path, sizeof(path), "%smemory.swap.current", dir);
	value = get(path);
	if (value > 64 * batch)
		sum_wrong("leak", "%s is %ld without processes", path, value);
}

static void sums_for_each(const char *pattern, void (*function)(const char *))
{
	glob_t found;

	if (glob(pattern, GLOB_BRACE, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		function(found.gl_pathv[i]);
	globfree(&found);
}

/* A line for each node: its number, and the windows that wait to move there. */
static void sums_check_queued(void)
{
	FILE *file = fopen(KNUMA_QUEUED, "re");
	long node, windows;
	char line[128];

	if (!file)
		return;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%ld %ld", &node, &windows) == 2 && windows)
			sum_wrong("counter", KNUMA_QUEUED " has %ld windows of no process", windows);
	fclose(file);
}

/* The kernel hides negative counts, but vm.stat_refresh logs them. */
static void sums_check_negative(void)
{
	static const char word[] = "vmstat_refresh: ";
	char record[1024], *p;
	ssize_t len;

	if (sums_kmsg < 0)
		return;
	lseek(sums_kmsg, 0, SEEK_END);
	put("/proc/sys/vm/stat_refresh", "1");
	/* EPIPE: records were overwritten before they were read. */
	while ((len = read(sums_kmsg, record, sizeof(record) - 1)) > 0 ||
	       (len < 0 && errno == EPIPE)) {
		if (len < 0)
			continue;
		record[len] = '\0';
		p = strstr(record, word);
		if (!p)
			continue;
		p += sizeof(word) - 1;
		p[strcspn(p, "\n")] = '\0';
		sum_wrong("counter", "a count is negative: %s", p);
	}
}

void sums_end(void)
{
	for (int tries = 0; tries < SETTLE_TRIES; tries++) {
		sums_settle();
		wrong.class = NULL;
		sums_check_global();
		sums_for_each(GROUPS, sums_check_group);
		sums_check_nodes();
		sums_check_queued();
		sums_check_negative();
		if (!wrong.class)
			return;
		sums_shrink_slabs();
		if (tries % SETTLE_UPDATE == 0) {
			sums_move_scanners();
			groups_update_counts();
		}
		usleep(500000);
	}
	if (!strcmp(wrong.class, "leak")) {
		sums_say_changes();
		sums_say_slabs();
	}
	violation(wrong.class, "%s", wrong.text);
}

/* Anonymous memory that processes have mapped, in kB: shared pages count for each. */
static long sums_rss(void)
{
	glob_t found;
	long sum = 0;

	if (glob("/proc/[0-9]*/status", 0, NULL, &found))
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		long value = get_key(found.gl_pathv[i], "RssAnon");

		sum += value > 0 ? value : 0;
	}
	globfree(&found);
	return sum;
}

/*
 * Counts of memory that processes have marked, against the memory there is. The
 * pages of marked ranges may be charged to a group that the process has left.
 */
static void sums_tick_group(const char *dir)
{
	long batch = sum_nr_cpus() * PAGE, most, value;
	char path[256], stat[256];

	snprintf(stat, sizeof(stat), "%smemory.stat", dir);
	snprintf(path, sizeof(path), "%smemory.current", dir);
	most = get(path);
	snprintf(path, sizeof(path), "%smemory.swap.current", dir);
	value = get(path);
	most += value > 0 ? value : 0;
	value = get_key(stat, "lazyfree");
	if (value > most + 128 * batch)
		sum_wrong("counter", "lazyfree of %s is %ld, the group has %ld bytes", stat, value, most);
	value = get_key(stat, "splittable");
	if (value > most + 128 * batch && value > (sums_rss() << 10) + 128 * batch)
		sum_wrong("counter", "splittable of %s is %ld, more than processes have mapped", stat, value);
}

static void sums_tick_node(const char *dir)
{
	char path[256], line[128];
	long total = -1, value;
	FILE *file;

	snprintf(path, sizeof(path), "%smeminfo", dir);
	file = fopen(path, "re");
	if (!file)
		return;
	while (total < 0 && fgets(line, sizeof(line), file))
		if (sscanf(line, "Node %*d MemTotal: %ld kB", &value) == 1)
			total = value;
	fclose(file);
	snprintf(path, sizeof(path), "%svmstat", dir);
	value = get_key(path, "nr_lazyfree");
	if (total > 0 && value > total / 4)
		sum_wrong("counter", "nr_lazyfree of %s is %ld pages, the node has %ld kB", path, value, total);
}

/* LazyFree is a part of Inactive(file), which comes first. */
static void sums_tick_lazyfree(void)
{
	FILE *file = fopen(MEMINFO, "re");
	long inactive = -1, value;
	char line[128];

	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Inactive(file): %ld", &value) == 1)
			inactive = value;
		else if (sscanf(line, "LazyFree: %ld", &value) == 1 && value > inactive)
			sum_wrong("counter", "LazyFree is %ld kB, Inactive(file) %ld kB", value, inactive);
	}
	fclose(file);
}

static void sums_tick_global(void)
{
	static const char * const keys[] = { "LazyFree", "Splittable" };
	long most = get_key(MEMINFO, "MemTotal") + get_key(MEMINFO, "SwapTotal");
	char line[128], name[64];
	unsigned long number;
	FILE *file;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		long value = get_key(MEMINFO, keys[i]);

		if (value > most)
			sum_wrong("counter", "%s is %ld kB, memory and swap have %ld kB",
				  keys[i], value, most);
	}
	file = fopen(VMSTAT, "re");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "nr_%63s %lu", name, &number) == 2 && number > LONG_MAX)
			sum_wrong("counter", "nr_%s is %ld", name, (long)number);
	fclose(file);
}

/* The files are read one after another, so one excess may be a race. */
void sums_tick(void)
{
	static unsigned int excesses;

	wrong.class = NULL;
	sums_tick_global();
	sums_tick_lazyfree();
	sums_for_each(GROUPS, sums_tick_group);
	sums_for_each(NODES, sums_tick_node);
	if (!wrong.class)
		excesses = 0;
	else if (++excesses == TICK_LIMIT)
		violation(wrong.class, "%s", wrong.text);
}
