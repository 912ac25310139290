// SPDX-License-Identifier: GPL-2.0
/*
 * Drains of per-CPU caches: they reach a CPU that holds something, and leave
 * an isolated one alone that has been told to hold nothing.
 *
 * Boot with isolated CPUs, such as isolcpus=domain,managed_irq,6-7: tests that
 * need one are skipped otherwise. Which CPU is disturbed by what is read from
 * the trace events csd_queue_cpu and workqueue_queue_work.
 */
#define _GNU_SOURCE
#include <linux/mempolicy.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include "harness_util.h"

#define SYSFS		"/sys/kernel/mm/percpu_drain/"
#define TRACE		TRACES "percpu_drain_test/"
#define ZRAM		"/sys/class/zram-control/"
#define SLAB_SHRINK	"/sys/kernel/slab/kmalloc-64/shrink"
#define NODE1		NODES "node1"
#define PARTITION	CGROUP "percpu_drain_test"

static const struct setting knobs[] = {
	{ SYSFS "isolated_cache", "0", .max = 1 },
	{ SYSFS "filter_threshold_percent", .max = 100 },
};

/* The first and the last CPU of the only or last range in a file. */
static bool read_range(const char *path, int *first, int *last)
{
	char buf[256], *range;

	if (!read_text(path, buf, sizeof(buf)) || !*buf)
		return false;
	range = strrchr(buf, ',');
	range = range ? range + 1 : buf;
	*first = *last = atoi(range);
	if (strchr(range, '-'))
		*last = atoi(strchr(range, '-') + 1);

	return true;
}

/* What reached the CPUs from @first to @last is recorded from now on. */
static bool trace_start(int first, int last)
{
	static const char * const events[] = {
		"csd/csd_queue_cpu", "workqueue/workqueue_queue_work"
	};
	char filter[64];

	write_text(TRACE "tracing_on", "0");
	snprintf(filter, sizeof(filter), "cpu>=%d && cpu<=%d", first, last);
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (trace_event(TRACE, events[i], filter))
			return false;
	close(open(TRACE "trace", O_WRONLY | O_TRUNC));
	return !write_text(TRACE "tracing_on", "1");
}

/* How often one of these functions, separated by spaces, was sent there. */
static int trace_count(const char *functions)
{
	char line[1024], list[256], *name, *next;
	FILE *f = fopen(TRACE "trace", "r");
	int count = 0;

	while (f && fgets(line, sizeof(line), f)) {
		strcpy(list, functions);
		for (name = strtok_r(list, " ", &next); name;
		     name = strtok_r(NULL, " ", &next))
			if (strstr(line, name) && line[0] != '#')
				count++;
	}
	if (f)
		fclose(f);

	return count;
}

/*
 * Folios for the batches of this CPU, too few to fill one. What drains them
 * here comes first, so that something is left when this task has gone.
 */
static int use_memory(void)
{
	size_t page = getpagesize(), i;
	char *p = map_anon(16 * page);
	int fd = memfd_create("percpu_drain", 0);
	struct pollfd fds[30 + 6];

	if (p == MAP_FAILED || fd < 0)
		return 1;
	/* What SLAB_SHRINK drains: 30 of them fit on the kernel's stack. */
	for (i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = (struct pollfd){ .fd = -1 };
	poll(fds, i, 0);
	for (i = 0; i < 8; i++)
		p[i * page] = i;
	mlock(p, 2 * page);
	madvise(p + 4 * page, 2 * page, MADV_FREE);
	madvise(p + 6 * page, 2 * page, MADV_COLD);
	/* New folios that are mlocked, and one that is no longer. */
	if (syscall(SYS_mlock2, p + 8 * page, 2 * page, MLOCK_ONFAULT))
		return 1;
	for (i = 8; i < 16; i++)
		p[i * page] = i;
	munmap(p + page, page);
	if (write(fd, p, page) != (ssize_t)page)
		return 1;
	close(fd);

	return 0;
}

/* In a cgroup, unless it is NULL: a CPU of a partition is in no other one. */
static int use_memory_in(const char *group, int cpu)
{
	pid_t pid = fork();

	if (!pid) {
		if ((group && group_write(group, "cgroup.procs", "0")) ||
		    run_on_cpu(cpu))
			exit(2);
		exit(use_memory());
	}
	return wait_status(pid);
}

static int use_memory_on(int cpu)
{
	return use_memory_in(NULL, cpu);
}

/* The loads, each of which drains something everywhere on stock kernels. */
static int load_drop_caches(void)
{
	return write_text("/proc/sys/vm/drop_caches", "1");
}

static int load_compact(void)
{
	return write_text("/proc/sys/vm/compact_memory", "1");
}

/*
 * Pages that are mapped cannot be invalidated, and have all batches drained.
 * It takes a disk: the files of tmpfs and ramfs ignore the advice.
 */
static int load_fadvise(void)
{
	size_t page = getpagesize(), size = 4 * page;
	long nr = read_long(ZRAM "hot_add");
	char path[64], *p;
	int fd, err;

	snprintf(path, sizeof(path), "/sys/block/zram%ld/disksize", nr);
	err = write_text(path, "1M");
	if (err)
		return err;
	snprintf(path, sizeof(path), "/dev/zram%ld", nr);
	fd = open(path, O_RDWR);
	p = fd < 0 ? MAP_FAILED :
	    mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		err = errno;
	} else {
		for (size_t i = 0; i < size; i += page)
			FORCE_READ(p[i]);
		err = posix_fadvise(fd, 0, size, POSIX_FADV_DONTNEED);
		munmap(p, size);
	}
	close(fd);
	write_long(ZRAM "hot_remove", nr);

	return err;
}

static int load_collapse(void)
{
	long huge = read_long(THP "hpage_pmd_size");
	char *p = map_anon(2 * huge);
	char *q = (char *)(((unsigned long)p + huge - 1) & ~(huge - 1));
	int err = ENOMEM, i;

	if (p == MAP_FAILED)
		return errno;
	madvise(q, huge, MADV_NOHUGEPAGE);
	memset(q, 1, huge);
	madvise(q, huge, MADV_HUGEPAGE);
	/* It may fail for a moment, for a page that somebody else holds. */
	for (i = 0; i < 10 && err; i++)
		err = madvise(q, huge, MADV_COLLAPSE) ? errno : 0;
	munmap(p, 2 * huge);

	return err;
}

static int load_move_pages(void)
{
	char *p = map_anon(4096);
	void *pages[] = { p };
	int nodes[] = { 0 }, status[1];

	*p = 1;
	if (syscall(SYS_move_pages, 0, 1, pages, nodes, status, 1 << 1))
		return errno;
	munmap(p, 4096);

	return 0;
}

static int load_mbind(void)
{
	char *p = map_anon(4096);
	unsigned long node = 1;

	*p = 1;
	if (syscall(SYS_mbind, p, 4096, MPOL_BIND, &node, 8, MPOL_MF_MOVE))
		return errno;
	munmap(p, 4096);

	return 0;
}

static int load_reclaim(void)
{
	const char *group = CGROUP "percpu_drain_reclaim";
	int err = group_create(group, "+memory");

	if (err)
		return err;
	err = group_write(group, "memory.reclaim", "4096");
	group_remove(group);

	/* There is nothing to reclaim. */
	return err == EAGAIN ? 0 : err;
}

static int load_stat_refresh(void)
{
	return write_text("/proc/sys/vm/stat_refresh", "1");
}

static int load_overcommit(void)
{
	long old = read_long("/proc/sys/vm/overcommit_memory");
	int err = write_long("/proc/sys/vm/overcommit_memory", 2);

	return err ?: write_long("/proc/sys/vm/overcommit_memory", old);
}

static int load_shrink(void)
{
	return write_text(SLAB_SHRINK, "1");
}

#define LRU_WORK "lru_add_drain_per_cpu"

static const struct load {
	const char *name;
	int (*run)(void);
	const char *work;	/* what must not reach an isolated CPU */
	const char *needs;	/* left out without it */
	bool holds;		/* use_memory() gives it a reason to */
} loads[] = {
	{ "drop_caches", load_drop_caches, LRU_WORK, NULL, true },
	{ "compact", load_compact, LRU_WORK,
	  "/proc/sys/vm/compact_memory", true },
	{ "fadvise", load_fadvise, LRU_WORK, ZRAM "hot_add", true },
	{ "collapse", load_collapse, LRU_WORK, THP, true },
	{ "move_pages", load_move_pages, LRU_WORK, NODE1, true },
	{ "mbind", load_mbind, LRU_WORK, NODE1, true },
	{ "reclaim", load_reclaim, LRU_WORK, CGROUP "memory.stat", true },
	{ "stat_refresh", load_stat_refresh, "refresh_vm_stats",
	  "/proc/sys/vm/stat_refresh", true },
	{ "overcommit", load_overcommit, "sync_overcommit_as" },
	{ "shrink", load_shrink, "flush_cpu_sheaves", SLAB_SHRINK, true },
	{ "table_sync", load_collapse, "tlb_remove_table_smp_sync", THP },
};

static bool can_run(const struct load *load)
{
	return !load->needs || !access(load->needs, F_OK);
}

static bool drains_folios(const struct load *load)
{
	return !strcmp(load->work, LRU_WORK);
}

FIXTURE(knobs)
{
	char old[ARRAY_SIZE(knobs)][SETTING_LEN];
};

FIXTURE_SETUP(knobs)
{
	const char *missing = skip_reason(SYSFS, "CONFIG_PERCPU_DRAIN");

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(settings_save(knobs, ARRAY_SIZE(knobs), self->old));
}

FIXTURE_TEARDOWN(knobs)
{
	EXPECT_TRUE(settings_restore(knobs, ARRAY_SIZE(knobs), self->old));
}

TEST_F(knobs, take_their_range_and_no_more)
{
	for (size_t k = 0; k < ARRAY_SIZE(knobs); k++) {
		for (long val = 0; val <= knobs[k].max; val++) {
			EXPECT_EQ(write_long(knobs[k].path, val), 0);
			EXPECT_EQ(read_long(knobs[k].path), val);
		}
		check_range(_metadata, &knobs[k]);
	}
}

FIXTURE(isolated)
{
	int first, last;	/* isolated CPUs */
	char old[ARRAY_SIZE(knobs)][SETTING_LEN];
	long rt_runtime, overcommit;
	char fair_server[96], fair_runtime[64];
};

static void partition_remove(void)
{
	group_write(PARTITION, "cpuset.cpus.partition", "member");
	group_remove(PARTITION);
}

FIXTURE_SETUP(isolated)
{
	const char *missing = skip_reason(SYSFS, "CONFIG_PERCPU_DRAIN");

	if (missing)
		SKIP(return, "%s", missing);
	if (!read_range("/sys/devices/system/cpu/isolated",
			&self->first, &self->last))
		SKIP(return, "no isolated CPU: boot with isolcpus=");
	if (access("/sys/kernel/tracing/instances", F_OK))
		SKIP(return, "no tracefs at /sys/kernel/tracing");

	ASSERT_TRUE(settings_save(knobs, ARRAY_SIZE(knobs), self->old));
	self->overcommit = read_long("/proc/sys/vm/overcommit_memory");
	self->rt_runtime = read_long("/proc/sys/kernel/sched_rt_runtime_us");
	snprintf(self->fair_server, sizeof(self->fair_server),
		 "/sys/kernel/debug/sched/fair_server/cpu%d/runtime",
		 self->last);
	read_text(self->fair_server, self->fair_runtime,
		  sizeof(self->fair_runtime));
	/* Without a message for each. */
	write_text("/proc/sys/vm/drop_caches", "4");
	ASSERT_TRUE(settings_apply(knobs, ARRAY_SIZE(knobs)));
	ASSERT_EQ(run_on_cpu(0), 0);
}

FIXTURE_TEARDOWN(isolated)
{
	write_text(TRACE "tracing_on", "0");
	rmdir(TRACE);
	partition_remove();
	write_text(self->fair_server, self->fair_runtime);
	write_long("/proc/sys/kernel/sched_rt_runtime_us", self->rt_runtime);
	write_long("/proc/sys/vm/overcommit_memory", self->overcommit);
	EXPECT_TRUE(settings_restore(knobs, ARRAY_SIZE(knobs), self->old));
}

/*
 * Runs @load once, after the isolated CPUs have used memory if @use; returns
 * how often it reached them, or -1.
 */
static int reached(const struct load *load, int first, int last, bool use)
{
	int err;

	for (int cpu = first; use && cpu <= last; cpu++)
		if (use_memory_on(cpu))
			return -1;
	if (!trace_start(first, last))
		return -1;
	err = load->run();
	write_text(TRACE "tracing_on", "0");
	if (err) {
		fprintf(stderr, "# %s: %s\n", load->name, strerror(err));
		return -1;
	}

	return trace_count(load->work);
}

#define ATTEMPTS 10

TEST_F_TIMEOUT(isolated, idle_cpus_are_left_alone, 300)
{
	int count, i;

	for (size_t l = 0; l < ARRAY_SIZE(loads); l++) {
		if (!can_run(&loads[l])) {
			TH_LOG("left out: %s", loads[l].name);
			continue;
		}
		count = reached(&loads[l], self->first, self->last, true);
		/*
		 * Other than folios, they may hold what they used: that is
		 * taken away once. Or be on their way to idle.
		 */
		for (i = 1; i < ATTEMPTS && count > 0 &&
		     !drains_folios(&loads[l]); i++)
			count = reached(&loads[l], self->first, self->last,
					false);
		EXPECT_EQ(count, 0)
			TH_LOG("%s reached isolated CPUs %d times",
			       loads[l].name, count);
	}
}

/* Else the test above proves nothing. */
TEST_F_TIMEOUT(isolated, what_is_held_is_drained, 300)
{
	int count, i;

	ASSERT_EQ(write_long(SYSFS "isolated_cache", 1), 0);
	for (size_t l = 0; l < ARRAY_SIZE(loads); l++) {
		if (!can_run(&loads[l]) || !loads[l].holds)
			continue;
		/* Somebody else may drain it in between. */
		for (i = count = 0; i < ATTEMPTS && count <= 0; i++)
			count = reached(&loads[l], self->last, self->last,
					true);
		EXPECT_GT(count, 0)
			TH_LOG("%s does not reach a CPU that holds something",
			       loads[l].name);
	}

	/* And it is when the knob is turned. */
	for (i = count = 0; i < ATTEMPTS && !count; i++) {
		ASSERT_EQ(write_long(SYSFS "isolated_cache", 1), 0);
		ASSERT_EQ(use_memory_on(self->last), 0);
		ASSERT_TRUE(trace_start(self->last, self->last));
		ASSERT_EQ(write_long(SYSFS "isolated_cache", 0), 0);
		count = trace_count(LRU_WORK);
	}
	EXPECT_GT(count, 0);
}

static pid_t start_spinning(int cpu)
{
	pid_t pid = fork();

	if (!pid) {
		run_on_cpu(cpu);
		for (;;)
			;
	}
	return pid;
}

/* A CPU in user mode may be about to walk, if RCU cannot tell where it is. */
TEST_F_TIMEOUT(isolated, table_sync_reaches_who_may_walk, 120)
{
	const struct load *sync = &loads[ARRAY_SIZE(loads) - 1];
	int first, last, count, i;
	pid_t pid;

	if (!can_run(sync) || self->first < 2)
		SKIP(return, "no huge pages, or no two ordinary CPUs");

	pid = start_spinning(1);
	for (i = count = 0; i < ATTEMPTS && count <= 0; i++)
		count = reached(sync, 1, 1, false);
	kill_and_wait(pid);
	EXPECT_GT(count, 0);

	if (!read_range("/sys/devices/system/cpu/nohz_full", &first, &last) ||
	    last != self->last) {
		TH_LOG("left out: no nohz_full= CPU");
		return;
	}
	pid = start_spinning(last);
	for (i = 0, count = -1; i < ATTEMPTS && count; i++)
		count = reached(sync, last, last, false);
	kill_and_wait(pid);
	EXPECT_EQ(count, 0);
}

/* A task that has the CPU to itself, after it has used memory there. */
static pid_t start_hog(int cpu)
{
	struct sched_param param = { .sched_priority = 50 };
	char ready = 0;
	int fds[2];
	pid_t pid;

	if (pipe(fds))
		return -1;
	pid = fork();
	if (!pid) {
		if (run_on_cpu(cpu) || use_memory() ||
		    sched_setscheduler(0, SCHED_FIFO, &param) ||
		    write(fds[1], "1", 1) != 1)
			exit(1);
		for (;;)
			;
	}
	close(fds[1]);
	if (read(fds[0], &ready, 1) != 1) {
		waitpid(pid, NULL, 0);
		pid = -1;
	}
	close(fds[0]);

	return pid;
}

/*
 * Waits for @pid, and kills @hog when it is done, or when it waits itself: it
 * could not go on, and neither could we. Returns its status, or -1.
 */
static int wait_and_kill(pid_t pid, pid_t hog)
{
	int status = -1, i;

	for (i = 0; i < 1000 && !waitpid(pid, &status, WNOHANG); i++)
		usleep(100000);
	kill_and_wait(hog);
	if (i == 1000) {
		waitpid(pid, &status, 0);
		return -1;
	}

	return status;
}

/* Without a share for others, which they would make do with. */
static bool no_share_for_others(const char *fair_server)
{
	return !write_text("/proc/sys/kernel/sched_rt_runtime_us", "-1") &&
	       (access(fair_server, F_OK) || !write_text(fair_server, "0"));
}

TEST_F_TIMEOUT(isolated, callers_do_not_wait_behind_a_hog, 300)
{
	pid_t pid, hog;

	ASSERT_TRUE(no_share_for_others(self->fair_server));
	ASSERT_TRUE(trace_start(self->last, self->last));
	hog = start_hog(self->last);
	ASSERT_GT(hog, 0);

	pid = fork();
	if (!pid) {
		for (size_t l = 0; l < ARRAY_SIZE(loads); l++)
			if (drains_folios(&loads[l]) && can_run(&loads[l]) &&
			    loads[l].run())
				exit(l + 1);
		exit(0);
	}
	EXPECT_EQ(wait_and_kill(pid, hog), 0);
	EXPECT_EQ(trace_count(LRU_WORK), 0);
}

/* Makes a cpuset with this CPU; false if there can be none. */
static bool partition_make(int cpu)
{
	if (group_create(PARTITION, "+cpuset"))
		return false;
	if (!write_long(PARTITION "/cpuset.cpus", cpu))
		return true;
	rmdir(PARTITION);

	return false;
}

static int partition_type(const char *type)
{
	return group_write(PARTITION, "cpuset.cpus.partition", type);
}

/* A CPU that becomes isolated is drained once, and holds nothing after. */
TEST_F_TIMEOUT(isolated, partitions_are_drained, 300)
{
	int i, wait, count = 0;

	/* CPU 1 is one of everybody's. */
	if (self->first < 3 || !partition_make(1))
		SKIP(return, "no cpuset partition: cgroup v2, 4 CPUs");

	ASSERT_EQ(use_memory_on(1), 0);
	ASSERT_TRUE(trace_start(1, 1));
	ASSERT_EQ(partition_type("isolated"), 0);
	/* It does not wait for the drain, so we do. */
	for (wait = 0; wait < 1000 && !count; wait++) {
		usleep(10000);
		count = trace_count("drain_this_cpu");
	}
	EXPECT_EQ(count, 1);

	ASSERT_EQ(load_drop_caches(), 0);
	ASSERT_EQ(use_memory_in(PARTITION, 1), 0);
	ASSERT_TRUE(trace_start(1, 1));
	EXPECT_EQ(load_drop_caches(), 0);
	EXPECT_EQ(trace_count(LRU_WORK), 0);

	/* What is isolated already is not disturbed. */
	ASSERT_TRUE(trace_start(self->first, self->last));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(partition_type("member"), 0);
		ASSERT_EQ(partition_type("isolated"), 0);
	}
	EXPECT_EQ(trace_count("drain_this_cpu"), 0);
}

/*
 * What a drain promises: no batch of any CPU holds a reference to a folio when
 * it is done. One that does keeps a page from moving, and a file from being
 * sealed.
 */
#define ROUNDS 100

/* Blocks of movable memory that can go offline, if nobody holds their pages. */
static bool removable[MEMORY_BLOCKS];
static unsigned long block_bytes;

static bool is_removable(long block)
{
	return block >= 0 && block < MEMORY_BLOCKS && removable[block];
}

/* The block of memory that has this page, or -1. */
static long block_of(char *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	unsigned long pfn = pagemap_get_pfn(fd, page);

	close(fd);
	return pfn == -1UL ? -1L : (long)(pfn * getpagesize() / block_bytes);
}

static int set_block_offline(long block)
{
	int i, err = -1;

	/* Somebody else may have a page in use for a moment. */
	for (i = 0; i < ATTEMPTS && err && err != EINVAL; i++)
		err = write_block(block, "offline");
	return err;
}

/* Others have a page that boot took, or a part that firmware has. */
static bool find_removable_blocks(void)
{
	bool found = false;
	char buf[64];

	if (!read_text("/sys/devices/system/memory/block_size_bytes", buf,
		       sizeof(buf)))
		return false;
	block_bytes = strtoul(buf, NULL, 16);
	for (long block = 0; block < MEMORY_BLOCKS; block++) {
		if (!block_is_movable(block) || set_block_offline(block))
			continue;
		removable[block] = !write_block(block, "online_movable");
		found |= removable[block];
	}
	return found;
}

#define USER_BYTES	(256UL << 20)

struct page_user {
	int cpu;
	bool removable;		/* the page is to be in a removable block */
	char *pages;		/* what has been touched */
	char *page;		/* the last one of it */
	int fd;
};

static void *use_page(void *arg)
{
	struct page_user *user = arg;
	char buf[4096] = "";
	unsigned long i;

	if (run_on_cpu(user->cpu))
		return (void *)2L;
	for (i = 0; i < USER_BYTES / 4096; i++) {
		user->page = user->pages + i * 4096;
		user->page[0] = 1;
		if (!user->removable ||
		    (i % 64 == 0 && is_removable(block_of(user->page))))
			break;
	}
	if (write(user->fd, buf, sizeof(buf)) != sizeof(buf))
		return (void *)1L;
	return NULL;
}

/* Leaves a new page and one of a new file in the batches of user->cpu. */
static int fill_batches(struct page_user *user)
{
	pthread_t thread;
	void *result;

	user->pages = mmap(NULL, USER_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	user->fd = memfd_create("percpu_drain", MFD_ALLOW_SEALING);
	if (user->pages == MAP_FAILED || user->fd < 0)
		return -1;
	/* Each is to be in a batch by itself. */
	madvise(user->pages, USER_BYTES, MADV_NOHUGEPAGE);
	if (pthread_create(&thread, NULL, use_page, user) ||
	    pthread_join(thread, &result))
		return -1;

	return (long)result;
}

static void give_back(struct page_user *user)
{
	munmap(user->pages, USER_BYTES);
	close(user->fd);
}

FIXTURE(drained)
{
	char old[ARRAY_SIZE(knobs)][SETTING_LEN];
};

FIXTURE_VARIANT(drained)
{
	long isolated_cache;
};

FIXTURE_VARIANT_ADD(drained, as_upstream) { .isolated_cache = 1 };
FIXTURE_VARIANT_ADD(drained, hold_nothing) { .isolated_cache = 0 };

FIXTURE_SETUP(drained)
{
	const char *missing = skip_reason(SYSFS, "CONFIG_PERCPU_DRAIN");

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(settings_save(knobs, ARRAY_SIZE(knobs), self->old));
	ASSERT_EQ(write_long(SYSFS "isolated_cache", variant->isolated_cache), 0);
	ASSERT_EQ(run_on_cpu(0), 0);
}

FIXTURE_TEARDOWN(drained)
{
	EXPECT_TRUE(settings_restore(knobs, ARRAY_SIZE(knobs), self->old));
}

TEST_F_TIMEOUT(drained, pages_move_and_files_are_sealed, 300)
{
	long nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	bool two_nodes = !access(NODE1, F_OK);
	int round, status[1], node[1], moved = 0;

	for (round = 0; round < ROUNDS; round++) {
		struct page_user user = { .cpu = round % nr_cpus };
		void *pages[1];

		ASSERT_EQ(fill_batches(&user), 0);

		/* Each is to drain for itself. */
		if (round & 1)
			EXPECT_EQ(fcntl(user.fd, F_ADD_SEALS, F_SEAL_WRITE), 0)
				TH_LOG("CPU %d: %s", user.cpu, strerror(errno));

		for (int n = 0; two_nodes && n < 2; n++) {
			pages[0] = user.page;
			node[0] = n;
			status[0] = -1;
			ASSERT_EQ(syscall(SYS_move_pages, 0, 1, pages, node,
					  status, 1 << 1), 0);
			EXPECT_EQ(status[0], n)
				TH_LOG("CPU %d", user.cpu);
			moved++;
		}

		if (!(round & 1))
			EXPECT_EQ(fcntl(user.fd, F_ADD_SEALS, F_SEAL_WRITE), 0)
				TH_LOG("CPU %d: %s", user.cpu, strerror(errno));
		give_back(&user);
	}
	if (!moved)
		TH_LOG("one node only: no page was moved");
}

/* What a batch holds cannot be moved: the block would never be offline. */
TEST_F_TIMEOUT(drained, memory_goes_offline, 300)
{
	long nr_cpus = sysconf(_SC_NPROCESSORS_ONLN), block;
	struct page_user users[nr_cpus];
	int cpu, err, done = 0;

	if (!find_removable_blocks())
		SKIP(return, "no block can go offline: movablecore=");
	for (cpu = 0; cpu < nr_cpus; cpu++) {
		struct page_user *user = &users[cpu];

		user->cpu = cpu;
		user->removable = true;
		ASSERT_EQ(fill_batches(user), 0);
		block = block_of(user->page);
		if (!is_removable(block))
			continue;

		strcpy(user->page, "offline");
		err = set_block_offline(block);
		EXPECT_EQ(err, 0)
			TH_LOG("CPU %d, block %ld: %s", cpu, block, strerror(err));
		EXPECT_STREQ(user->page, "offline");
		EXPECT_NE(block_of(user->page), block);
		EXPECT_EQ(write_block(block, "online_movable"), 0);
		done++;
	}
	EXPECT_GT(done, 0);
	/* Only now: the next one would get the pages of other blocks again. */
	for (cpu = 0; cpu < nr_cpus; cpu++)
		give_back(&users[cpu]);
}

/*
 * Everything at once: memory is used on all CPUs, with a stamp in each page,
 * and drained, while CPUs come and go and change their minds about isolation.
 */
static atomic_bool stop;

/* Returns how what was found differs from what was stored, 0 if it does not. */
static void *use_stamped(void *arg)
{
	size_t page = getpagesize(), nr = 64, i;
	unsigned long id = (unsigned long)arg, turn, *p, differ = 0;
	long nr_cpus = sysconf(_SC_NPROCESSORS_CONF);

	for (turn = 0; !stop && !differ; turn++) {
		/* It may be offline or another's. */
		run_on_cpu((id + turn) % nr_cpus);
		p = (unsigned long *)map_anon(nr * page);
		if (p == MAP_FAILED)
			continue;
		for (i = 0; i < nr; i++)
			p[i * page / sizeof(*p)] = id << 32 | turn << 8 | i;
		mlock(p, 8 * page);
		madvise(p, 16 * page, MADV_COLD);
		munlock(p, 4 * page);
		madvise(p, 16 * page, MADV_PAGEOUT);
		for (i = 0; i < nr && !differ; i++)
			differ = p[i * page / sizeof(*p)] ^
				 (id << 32 | turn << 8 | i);
		munmap(p, nr * page);
	}
	return (void *)differ;
}

/*
 * Each returns how often it did something, which on a busy machine may first
 * be when the users have stopped.
 */
static void *drain_all(void *arg)
{
	long done = 0;

	do {
		for (size_t l = 0; l < ARRAY_SIZE(loads); l++)
			if (can_run(&loads[l]) && loads[l].run != load_overcommit)
				done += !loads[l].run();
	} while (!stop);
	return (void *)done;
}

static void *turn_knobs(void *arg)
{
	static const int percent[] = { 0, 50, 100, 1 };
	unsigned int i = 0;
	long done = 0;

	do {
		done += !write_long(SYSFS "isolated_cache", i & 1);
		done += !write_long(SYSFS "filter_threshold_percent",
				    percent[i++ % ARRAY_SIZE(percent)]);
		usleep(2000);
	} while (!stop);
	return (void *)done;
}

static void *plug_cpus(void *arg)
{
	long nr = sysconf(_SC_NPROCESSORS_CONF), done = 0;
	unsigned int i = 0;

	do {
		/* CPU 1 and the last, which may be isolated. */
		int cpu = i++ & 1 ? nr - 1 : 1;

		done += !set_cpu_online(cpu, false);
		usleep(1000);
		while (set_cpu_online(cpu, true) == EBUSY)
			usleep(1000);
	} while (!stop);
	return (void *)done;
}

static void *change_partition(void *arg)
{
	long done = 0;

	do {
		done += !partition_type("isolated");
		usleep(1000);
		partition_type("member");
	} while (!stop);
	return (void *)done;
}

FIXTURE(race)
{
	char old[ARRAY_SIZE(knobs)][SETTING_LEN];
};

FIXTURE_VARIANT(race)
{
	void *(*beside)(void *arg);
};

FIXTURE_VARIANT_ADD(race, knobs) { .beside = turn_knobs };
FIXTURE_VARIANT_ADD(race, cpu_hotplug) { .beside = plug_cpus };
FIXTURE_VARIANT_ADD(race, partitions) { .beside = change_partition };

FIXTURE_SETUP(race)
{
	const char *missing = skip_reason(SYSFS, "CONFIG_PERCPU_DRAIN");

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(settings_save(knobs, ARRAY_SIZE(knobs), self->old));
	if (variant->beside == change_partition && !partition_make(1))
		SKIP(return, "no cpuset partition: cgroup v2");
	if (variant->beside == plug_cpus && !cpu1_can_unplug())
		SKIP(return, "no CPU to unplug");
	ASSERT_TRUE(settings_apply(knobs, ARRAY_SIZE(knobs)));
}

FIXTURE_TEARDOWN(race)
{
	partition_remove();
	EXPECT_TRUE(settings_restore(knobs, ARRAY_SIZE(knobs), self->old));
}

TEST_F_TIMEOUT(race, stamps_stay, 300)
{
	pthread_t users[4], drainer, beside;
	void *bad, *done;

	stop = false;
	for (size_t i = 0; i < ARRAY_SIZE(users); i++)
		ASSERT_EQ(pthread_create(&users[i], NULL, use_stamped,
					 (void *)(i + 1)), 0);
	ASSERT_EQ(pthread_create(&drainer, NULL, drain_all, NULL), 0);
	ASSERT_EQ(pthread_create(&beside, NULL, variant->beside, NULL), 0);

	sleep(5);

	stop = true;
	for (size_t i = 0; i < ARRAY_SIZE(users); i++) {
		pthread_join(users[i], &bad);
		EXPECT_EQ(bad, NULL);
	}
	pthread_join(drainer, &done);
	EXPECT_GT((long)done, 0);
	pthread_join(beside, &done);
	EXPECT_GT((long)done, 0);
}

TEST_HARNESS_MAIN
