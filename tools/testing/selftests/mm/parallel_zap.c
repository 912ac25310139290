// SPDX-License-Identifier: GPL-2.0
/*
 * Zaps that are shared among kworkers: what was in the range is gone and free
 * when munmap(), madvise() and wait4() return, what was beside it is as it was,
 * whatever else happens to the address space; and nobody helps who may not.
 *
 * All pages carry stamps. That helpers have had a part in it is read from
 * /proc/vmstat.
 */
#define _GNU_SOURCE
#include <linux/mempolicy.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include "harness_util.h"

#define SYSFS	"/sys/kernel/mm/parallel_zap/"
#define HUGETLB	"/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define GROUP	CGROUP "parallel_zap_test"
#define TRACE	TRACES "parallel_zap_test/"

#define PAGE	4096UL			/* x86_64, the only architecture */
#define ROUNDS	20			/* until helpers have had a part */
#define PATIENCE	300		/* seconds, for debug kernels in emulators */

/* As much as possible is shared. */
static const struct setting settings[] = {
	{ SYSFS "enabled", "always" },
	{ SYSFS "min_ms", "0" },
	{ SYSFS "chunk_mb", "2" },
	{ SYSFS "helpers_per_node", "16" },
	{ SYSFS "max_helpers", "16" },
};

/* Pages of this process that are mapped. */
static long rss(void)
{
	long total, resident = -1;
	FILE *f = fopen("/proc/self/statm", "r");

	if (!f || fscanf(f, "%ld %ld", &total, &resident) != 2)
		resident = -1;
	if (f)
		fclose(f);

	return resident;
}

static bool many_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

static char *map(size_t size)
{
	char *p = map_anon(size);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

static void stamp(char *p, size_t size, unsigned long seed)
{
	for (size_t i = 0; i < size; i += PAGE)
		*(unsigned long *)(p + i) = seed + i;
}

static bool stamped(const char *p, size_t size, unsigned long seed)
{
	for (size_t i = 0; i < size; i += PAGE)
		if (*(const unsigned long *)(p + i) != seed + i)
			return false;
	return true;
}

static bool zeroed(const char *p, size_t size)
{
	for (size_t i = 0; i < size; i += PAGE)
		if (*(const unsigned long *)(p + i))
			return false;
	return true;
}

static void join_group(void)
{
	if (group_write(GROUP, "cgroup.procs", "0"))
		_exit(3);
}

/* Memory of the group, in bytes */
static long group_anon(void)
{
	return group_read(GROUP, "memory.stat", "anon");
}

static bool make_group(void)
{
	return !group_create(GROUP, "+memory +cpu");
}

struct setup {
	char old[ARRAY_SIZE(settings)][SETTING_LEN];
	long helped;
};

/* False if a setting cannot be written. */
static bool share_all(struct setup *setup)
{
	settings_save(settings, ARRAY_SIZE(settings), setup->old);
	setup->helped = vm_event("zap_chunk_helper");

	return settings_apply(settings, ARRAY_SIZE(settings));
}

static void restore(struct setup *setup)
{
	settings_restore(settings, ARRAY_SIZE(settings), setup->old);
	group_remove(GROUP);
}

FIXTURE(zap)
{
	struct setup setup;
};

FIXTURE_SETUP(zap)
{
	const char *missing = skip_reason(SYSFS, "CONFIG_PARALLEL_ZAP");

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(share_all(&self->setup));
}

FIXTURE_TEARDOWN(zap)
{
	restore(&self->setup);
}

#define HELPED() (!many_cpus() || vm_event("zap_chunk_helper") > self->setup.helped)

TEST_F_TIMEOUT(zap, knobs_take_their_range_and_no_more, PATIENCE)
{
	static const struct setting_texts values[] = {
		{ SYSFS "enabled", { "never", "exit", "always" },
		  { "0", "1", "on", "all", "always exit" } },
		{ SYSFS "min_ms", { "0", "60000", "100" },
		  { "-1", "60001", "1.5", "x", "99999999999" } },
		{ SYSFS "chunk_mb", { "2", "1024", "64" },
		  { "-1", "0", "1", "1025", "0x" } },
		{ SYSFS "helpers_per_node", { "0", "64", "2" },
		  { "-1", "65", "x", "1 2", "99999999999" } },
		{ SYSFS "max_helpers", { "0", "1024", "2" },
		  { "-1", "1025", "x", "1 2", "99999999999" } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		check_texts(_metadata, &values[i]);
}

TEST_F_TIMEOUT(zap, munmap_is_done_when_it_returns, PATIENCE)
{
	const size_t size = 32 * MB;
	long jobs = vm_event("zap_job");

	for (int i = 0; i < ROUNDS; i++) {
		long before = rss();
		char *p = map(size);

		ASSERT_NE(NULL, p);
		stamp(p, size, i);
		ASSERT_GE(rss() - before, (long)(size / PAGE) - 64);
		ASSERT_EQ(0, munmap(p, size));
		ASSERT_LE(rss() - before, 64);
		if (i > 2 && HELPED())
			break;
	}
	EXPECT_GT(vm_event("zap_job"), jobs);
	EXPECT_TRUE(HELPED());
}

/* Ends that are in the middle of page tables; and what is beside them. */
TEST_F_TIMEOUT(zap, dontneed_takes_its_range_only, PATIENCE)
{
	const size_t size = 32 * MB, edge = MB + 3 * PAGE;

	for (int i = 0; i < ROUNDS; i++) {
		char *p = map(size);

		ASSERT_NE(NULL, p);
		stamp(p, size, i);
		ASSERT_EQ(0, madvise(p + edge, size - 2 * edge, MADV_DONTNEED));
		ASSERT_TRUE(stamped(p, edge, i));
		ASSERT_TRUE(zeroed(p + edge, size - 2 * edge));
		ASSERT_TRUE(stamped(p + size - edge, edge, i + size - edge));
		/* Its page tables work again. */
		stamp(p, size, ~i);
		ASSERT_TRUE(stamped(p, size, ~i));
		ASSERT_EQ(0, munmap(p, size));
		if (i > 2 && HELPED())
			break;
	}
	EXPECT_TRUE(HELPED());
}

/* A mapping over an old one, with mmap_lock held for write; and mremap(). */
TEST_F_TIMEOUT(zap, maps_over_old_mappings, PATIENCE)
{
	const size_t size = 32 * MB;

	for (int i = 0; i < ROUNDS; i++) {
		char *p = map(size), *q = map(size);

		ASSERT_NE(NULL, p);
		ASSERT_NE(NULL, q);
		stamp(p, size, i);
		stamp(q, size, i + 1);
		ASSERT_EQ(p, mmap(p, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		ASSERT_TRUE(zeroed(p, size));
		stamp(p, size, i + 2);
		ASSERT_EQ(p, mremap(q, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, p));
		ASSERT_TRUE(stamped(p, size, i + 1));
		ASSERT_EQ(p, mremap(p, size, PAGE, 0));
		ASSERT_TRUE(stamped(p, PAGE, i + 1));
		ASSERT_EQ(0, munmap(p, PAGE));
		if (i > 2 && HELPED())
			break;
	}
	EXPECT_TRUE(HELPED());
}

static bool hugetlb_pages(int nr)
{
	write_num("/proc/sys/vm/nr_hugepages", nr);
	return read_num("/proc/sys/vm/nr_hugepages") == (unsigned long)nr;
}

/* Of each kind of memory, side by side, in one munmap(). */
TEST_F_TIMEOUT(zap, all_kinds_of_mappings_go_together, PATIENCE)
{
	const size_t size = 16 * MB;
	bool huge = hugetlb_pages(4);
	int fd = memfd_create("zap", 0);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, size));
	for (int i = 0; i < ROUNDS; i++) {
		const int rw = PROT_READ | PROT_WRITE;
		const int fixed = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
		long before = rss();
		char *p = mmap(NULL, 10 * size, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		char *q = (char *)(((unsigned long)p + size) & ~(2 * MB - 1));
		char *shared = q + 3 * size;

		ASSERT_NE(MAP_FAILED, p);
		/* small pages, huge ones, shmem, its private copies, locked */
		ASSERT_EQ(q, mmap(q, size, rw, fixed, -1, 0));
		madvise(q, size, MADV_NOHUGEPAGE);
		stamp(q, size, i);
		ASSERT_EQ(q + size, mmap(q + size, size, rw, fixed, -1, 0));
		madvise(q + size, size, MADV_HUGEPAGE);
		stamp(q + size, size, i);
		ASSERT_EQ(shared, mmap(shared, size, rw, MAP_FIXED | MAP_SHARED, fd, 0));
		stamp(shared, size, i);
		ASSERT_EQ(q + 4 * size, mmap(q + 4 * size, size, rw,
					     MAP_FIXED | MAP_PRIVATE, fd, 0));
		stamp(q + 4 * size, size / 2, i);
		force_read_pages(q + 4 * size + size / 2, size / 2 / PAGE, PAGE);
		ASSERT_EQ(q + 5 * size, mmap(q + 5 * size, size, rw, fixed, -1, 0));
		ASSERT_EQ(0, mlock(q + 5 * size, 4 * MB));
		if (huge) {
			ASSERT_EQ(q + 7 * size, mmap(q + 7 * size, 8 * MB, rw,
						     fixed | MAP_HUGETLB, -1, 0));
			stamp(q + 7 * size, 8 * MB, i);
		}

		ASSERT_EQ(0, munmap(p, 10 * size));
		ASSERT_LE(rss() - before, 64);
		if (huge)
			ASSERT_EQ(4UL, read_num(HUGETLB "free_hugepages"));
		/* What is shared is still there. */
		p = mmap(NULL, size, rw, MAP_SHARED, fd, 0);
		ASSERT_NE(MAP_FAILED, p);
		ASSERT_TRUE(stamped(p, size, i));
		ASSERT_EQ(0, munmap(p, size));
		if (i > 2 && HELPED())
			break;
	}
	close(fd);
	hugetlb_pages(0);
	EXPECT_TRUE(HELPED());
}

/* Pages that a pipe holds keep what was in them, and nobody else gets them. */
TEST_F_TIMEOUT(zap, pages_in_use_elsewhere_stay, PATIENCE)
{
	const size_t size = 32 * MB;
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	for (int i = 0; i < ROUNDS; i++) {
		char *p = map(size), *q;
		struct iovec iov;

		ASSERT_NE(NULL, p);
		stamp(p, size, i);
		iov.iov_base = p + 20 * MB;
		iov.iov_len = 8 * PAGE;
		ASSERT_EQ((ssize_t)(8 * PAGE), vmsplice(pipes[1], &iov, 1, 0));
		ASSERT_EQ(0, munmap(p, size));

		/* As many pages as were freed, with other stamps. */
		q = map(size);
		ASSERT_NE(NULL, q);
		stamp(q, size, ~i);
		for (int k = 0; k < 8; k++) {
			unsigned long page[PAGE / sizeof(long)];

			ASSERT_EQ((ssize_t)PAGE, read(pipes[0], page, PAGE));
			ASSERT_EQ(i + 20 * MB + k * PAGE, page[0]);
		}
		ASSERT_TRUE(stamped(q, size, ~i));
		ASSERT_EQ(0, munmap(q, size));
		if (i > 2 && HELPED())
			break;
	}
	close(pipes[0]);
	close(pipes[1]);
	EXPECT_TRUE(HELPED());
}

/* So do pages that are pinned, as for a device. */
TEST_F_TIMEOUT(zap, pinned_pages_stay, PATIENCE)
{
	const size_t size = 32 * MB, pinned = MB;
	char *copy;

	if (access(GUP_TEST, R_OK | W_OK))
		SKIP(return, "no " GUP_TEST ": CONFIG_GUP_TEST, debugfs");
	copy = map(pinned);
	ASSERT_NE(NULL, copy);
	for (int i = 0; i < ROUNDS; i++) {
		char *p = map(size), *q;
		__u64 to = (unsigned long)copy;
		int fd;

		ASSERT_NE(NULL, p);
		stamp(p, size, i);
		fd = pin_pages(p + 20 * MB, pinned);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(0, munmap(p, size));

		q = map(size);
		ASSERT_NE(NULL, q);
		stamp(q, size, ~i);
		ASSERT_EQ(0, ioctl(fd, PIN_LONGTERM_TEST_READ, &to));
		ASSERT_TRUE(stamped(copy, pinned, i + 20 * MB));
		ASSERT_EQ(0, ioctl(fd, PIN_LONGTERM_TEST_STOP));
		close(fd);
		ASSERT_EQ(0, munmap(q, size));
		if (i > 2 && HELPED())
			break;
	}
	munmap(copy, pinned);
	EXPECT_TRUE(HELPED());
}

/* What DONTNEED took is asked for again, of whoever handles the faults. */
struct uffd {
	int fd;
	atomic_ulong served;
	atomic_bool stop;
};

static void *serve(void *arg)
{
	static unsigned long page[PAGE / sizeof(long)] = { 0x600d };
	struct uffd *uffd = arg;
	struct pollfd pfd = { .fd = uffd->fd, .events = POLLIN };
	struct uffd_msg msg;

	while (!uffd->stop) {
		if (poll(&pfd, 1, 10) <= 0 ||
		    read(uffd->fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		if (msg.event == UFFD_EVENT_PAGEFAULT) {
			struct uffdio_copy copy = {
				.dst = msg.arg.pagefault.address & ~(PAGE - 1),
				.src = (unsigned long)page,
				.len = PAGE,
			};

			/* First: the copy wakes who will look at it. */
			uffd->served++;
			ioctl(uffd->fd, UFFDIO_COPY, &copy);
		}
	}
	return NULL;
}

TEST_F_TIMEOUT(zap, userfaultfd_sees_what_is_gone, PATIENCE)
{
	struct uffd uffd = { .fd = uffd_create(O_NONBLOCK, 0) };
	const size_t size = 32 * MB;
	pthread_t thread;
	char *p;

	if (uffd.fd < 0)
		SKIP(return, "no userfaultfd");
	p = map(size);
	ASSERT_NE(NULL, p);
	stamp(p, size, 1);
	ASSERT_EQ(0, uffd_register(uffd.fd, p, size, true, false, false));
	ASSERT_EQ(0, pthread_create(&thread, NULL, serve, &uffd));

	for (int i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, madvise(p, size, MADV_DONTNEED));
		for (size_t at = i * PAGE; at < size; at += MB)
			ASSERT_EQ(0x600d, *(unsigned long *)(p + at));
		ASSERT_EQ((i + 1) * (size / MB), (unsigned long)uffd.served);
		if (i > 2 && HELPED())
			break;
		/* Enough for the next round to be shared. */
		uffd_unregister(uffd.fd, p, size);
		stamp(p, size, 1);
		ASSERT_EQ(0, uffd_register(uffd.fd, p, size, true, false, false));
	}
	ASSERT_EQ(0, munmap(p, size));
	uffd.stop = true;
	pthread_join(thread, NULL);
	close(uffd.fd);
	EXPECT_TRUE(HELPED());
}

/* Starts a process in the group that calls @fn. */
static pid_t in_group(void (*fn)(size_t size), size_t size)
{
	pid_t pid = fork();

	if (!pid) {
		join_group();
		fn(size);
		_exit(0);
	}
	return pid;
}

static void touch_and_exit(size_t size)
{
	char *p = map(size);

	if (!p)
		_exit(2);
	stamp(p, size, 0);
}

static void touch_and_wait(size_t size)
{
	touch_and_exit(size);
	/* Readable from outside: the last page has been touched. */
	if (write_text("/proc/self/oom_score_adj", "1"))
		_exit(2);
	for (;;)
		pause();
}

/* Shared with the parent of who unmaps. */
static struct {
	atomic_int begun;
} *unmaps;

static void map_and_unmap(size_t size)
{
	for (;;) {
		char *p = map(size);

		if (!p)
			_exit(2);
		stamp(p, size, 0);
		unmaps->begun++;
		munmap(p, size);
	}
}

static bool has_touched(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
	return wait_for(read_long(path) == 1);
}

TEST_F_TIMEOUT(zap, memory_is_free_when_wait_returns, PATIENCE)
{
	const size_t size = 32 * MB;

	ASSERT_TRUE(make_group());
	for (int i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, wait_status(in_group(touch_and_exit, size)));
		/* Page tables may wait for RCU; the pages may not. */
		ASSERT_LT(group_anon(), (long)(4 * MB));
		if (i > 2 && HELPED())
			break;
	}
	EXPECT_TRUE(HELPED());
}

/*
 * Small folios that lie side by side are counted together where they are
 * counted alike, and only there: by node, memcg, and kind of memory.
 */
static long node_anon_pages(int node)
{
	char path[64];

	write_text("/proc/sys/vm/stat_refresh", "1");
	snprintf(path, sizeof(path), NODES "node%d/vmstat", node);
	return read_value(path, "nr_anon_pages");
}

TEST_F_TIMEOUT(zap, counted_by_node, PATIENCE)
{
	const size_t size = 32 * MB;
	const long slack = size / PAGE / 8;
	unsigned long nodes = 3;
	long before[2];
	char *p;

	if (node_anon_pages(1) < 0)
		SKIP(return, "one node");
	for (int i = 0; i < 2; i++)
		before[i] = node_anon_pages(i);
	p = map(size);
	ASSERT_NE(NULL, p);
	if (syscall(__NR_mbind, p, size, MPOL_INTERLEAVE, &nodes, 8 * sizeof(nodes), 0))
		SKIP(return, "no memory policies");
	stamp(p, size, 0);
	for (int i = 0; i < 2; i++)
		ASSERT_GT(node_anon_pages(i) - before[i], 2 * slack);
	ASSERT_EQ(0, munmap(p, size));
	for (int i = 0; i < 2; i++) {
		EXPECT_LT(node_anon_pages(i) - before[i], slack);
		EXPECT_GT(node_anon_pages(i) - before[i], -slack);
	}
}

/* The first page of each page table is not the group's, the second one is. */
static void touch_from_two_groups(size_t size)
{
	char *p = map(size + 2 * MB);

	if (!p)
		_exit(2);
	p = (char *)(((unsigned long)p + 2 * MB - 1) & ~(2 * MB - 1));
	for (size_t i = 0; i < size; i += 2 * PAGE)
		p[i] = 1;
	join_group();
	for (size_t i = PAGE; i < size; i += 2 * PAGE)
		p[i] = 1;
	if (group_anon() < (long)size / 4)
		_exit(4);
	munmap(p, size);
	_exit(group_anon() < (long)size / 8 ? 0 : 5);
}

TEST_F_TIMEOUT(zap, counted_by_memcg, PATIENCE)
{
	pid_t pid;

	ASSERT_TRUE(make_group());
	pid = fork();
	if (!pid)
		touch_from_two_groups(32 * MB);
	EXPECT_EQ(0, wait_status(pid));
}

TEST_F_TIMEOUT(zap, counted_by_kind, PATIENCE)
{
	const size_t size = 32 * MB;
	const long slack = size / PAGE / 8;
	int fd = memfd_create("zap", 0);
	long anon, mapped;
	char *p;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, size));
	write_text("/proc/sys/vm/stat_refresh", "1");
	anon = vm_event("nr_anon_pages");
	mapped = vm_event("nr_mapped");
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	/* Every other page is the file's, the others are private copies. */
	ASSERT_TRUE(zeroed(p, size));
	for (size_t i = PAGE; i < size; i += 2 * PAGE)
		p[i] = 1;
	write_text("/proc/sys/vm/stat_refresh", "1");
	ASSERT_GT(vm_event("nr_anon_pages"), anon + 2 * slack);
	ASSERT_GT(vm_event("nr_mapped"), mapped + 2 * slack);
	ASSERT_EQ(0, munmap(p, size));
	write_text("/proc/sys/vm/stat_refresh", "1");
	EXPECT_LT(vm_event("nr_anon_pages"), anon + slack);
	EXPECT_GT(vm_event("nr_anon_pages") + slack, anon);
	EXPECT_LT(vm_event("nr_mapped"), mapped + slack);
	EXPECT_GT(vm_event("nr_mapped") + slack, mapped);
	close(fd);
}

TEST_F_TIMEOUT(zap, killed_while_it_unmaps, PATIENCE)
{
	const size_t size = 32 * MB;

	unmaps = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, unmaps);
	ASSERT_TRUE(make_group());
	for (int i = 0; i < ROUNDS; i++) {
		pid_t pid;

		unmaps->begun = 0;
		pid = in_group(map_and_unmap, size);
		ASSERT_LT(0, pid);
		ASSERT_TRUE(wait_for(unmaps->begun));
		usleep(i * 2000);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_TRUE(WIFSIGNALED(wait_status(pid)));
		ASSERT_LT(group_anon(), (long)(4 * MB));
	}
	munmap(unmaps, PAGE);
	EXPECT_TRUE(HELPED());
}

TEST_F_TIMEOUT(zap, oom_victims_go_on_alone, PATIENCE)
{
	long refused = vm_event("zap_refused_pressure");
	long kills = vm_event("oom_kill");

	ASSERT_TRUE(make_group());
	ASSERT_EQ(0, group_write(GROUP, "memory.swap.max", "0") & ~ENOENT);
	ASSERT_EQ(0, group_write(GROUP, "memory.max", "67108864"));
	for (int i = 0; i < 5; i++) {
		ASSERT_TRUE(WIFSIGNALED(wait_status(in_group(touch_and_exit, 256 * MB))));
		ASSERT_LT(group_anon(), (long)(4 * MB));
	}
	EXPECT_GE(vm_event("oom_kill"), kills + 5);
	EXPECT_GT(vm_event("zap_refused_pressure"), refused);
}

TEST_F_TIMEOUT(zap, reaped_while_it_exits, PATIENCE)
{
	const size_t size = 32 * MB;

	ASSERT_TRUE(make_group());
	for (int i = 0; i < ROUNDS; i++) {
		pid_t pid = in_group(touch_and_wait, size);
		int fd = syscall(__NR_pidfd_open, pid, 0);

		ASSERT_LT(0, pid);
		ASSERT_GE(fd, 0);
		ASSERT_TRUE(has_touched(pid));
		ASSERT_EQ(0, kill(pid, SIGKILL));
		usleep(i * 100);
		/* It may be too late for it. */
		if (syscall(__NR_process_mrelease, fd, 0))
			ASSERT_TRUE(errno == ESRCH || errno == EAGAIN);
		close(fd);
		ASSERT_TRUE(WIFSIGNALED(wait_status(pid)));
		ASSERT_LT(group_anon(), (long)(4 * MB));
	}
}

TEST_F_TIMEOUT(zap, many_exit_at_once, PATIENCE)
{
	pid_t pids[64];

	ASSERT_TRUE(make_group());
	for (int i = 0; i < 64; i++)
		pids[i] = in_group(touch_and_wait, 4 * MB);
	for (int i = 0; i < 64; i++)
		ASSERT_TRUE(has_touched(pids[i]));
	ASSERT_EQ(0, group_write(GROUP, "cgroup.kill", "1"));
	for (int i = 0; i < 64; i++)
		ASSERT_TRUE(WIFSIGNALED(wait_status(pids[i])));
	EXPECT_LT(group_anon(), (long)(4 * MB));
}

/* CPU time that the group was not given is not used for it by anybody. */
TEST_F_TIMEOUT(zap, quota_is_not_escaped, PATIENCE)
{
	long refused = vm_event("zap_refused_quota");
	long chunks = vm_event("zap_chunk_helper");
	long usecs = vm_event("zap_helper_usecs");
	pid_t pid;

	ASSERT_TRUE(make_group());
	if (group_write(GROUP, "cpu.max", "50000 100000"))
		SKIP(return, "no cpu.max");
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(0, wait_status(in_group(touch_and_exit, 32 * MB)));
	EXPECT_GT(vm_event("zap_refused_quota"), refused);
	EXPECT_EQ(vm_event("zap_chunk_helper"), chunks);
	EXPECT_EQ(vm_event("zap_helper_usecs"), usecs);
	/* All of the work was the group's, and it was throttled for it. */
	EXPECT_GT(group_read(GROUP, "cpu.stat", "nr_throttled"), 0);

	/* Without a quota it is shared again. */
	ASSERT_EQ(0, group_write(GROUP, "cpu.max", "max"));
	for (int i = 0; i < ROUNDS && !HELPED(); i++) {
		pid = in_group(touch_and_exit, 32 * MB);
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	}
	EXPECT_TRUE(HELPED());
}

static void touch_on_one_cpu(size_t size)
{
	if (run_on_cpu(sched_getcpu()))
		_exit(2);
	touch_and_exit(size);
}

TEST_F_TIMEOUT(zap, affinity_is_obeyed, PATIENCE)
{
	long refused = vm_event("zap_refused_cpuset");
	long chunks = vm_event("zap_chunk_helper");

	if (!many_cpus())
		SKIP(return, "one CPU");
	ASSERT_TRUE(make_group());
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(0, wait_status(in_group(touch_on_one_cpu, 32 * MB)));
	EXPECT_GT(vm_event("zap_refused_cpuset"), refused);
	EXPECT_EQ(vm_event("zap_chunk_helper"), chunks);
}

static cpu_set_t node0_cpus;

static void touch_on_node0(size_t size)
{
	if (sched_setaffinity(0, sizeof(node0_cpus), &node0_cpus))
		_exit(2);
	touch_and_exit(size);
}

/* Now and then wants a CPU of its node, so that others would leave it. */
static pid_t run_on_and_off(int cpu)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	if (run_on_cpu(cpu))
		_exit(2);
	for (unsigned long i = 0; ; i++)
		if (!(i % 1000000))
			usleep(2000);
}

/* Whose owner may only use one node, does not get to the other one by proxy. */
TEST_F_TIMEOUT(zap, helpers_stay_on_their_node, PATIENCE)
{
	int first, last, cpu, helpers = 0;
	pid_t others[CPU_SETSIZE];
	char text[256], *at;
	FILE *trace;

	if (access(NODES "node1", F_OK) ||
	    !read_text(NODES "node0/cpulist", text, sizeof(text)) ||
	    sscanf(text, "%d-%d", &first, &last) != 2 || strchr(text, ','))
		SKIP(return, "needs two nodes, the first with several CPUs in a row");
	CPU_ZERO(&node0_cpus);
	for (cpu = first; cpu <= last; cpu++)
		CPU_SET(cpu, &node0_cpus);
	if (make_dir(TRACE))
		SKIP(return, "no " TRACE);

	ASSERT_EQ(0, trace_event(TRACE, "parallel_zap/zap_helper_leave", NULL));
	ASSERT_EQ(0, write_text(SYSFS "chunk_mb", "8"));
	ASSERT_TRUE(make_group());
	for (cpu = first; cpu <= last; cpu++) {
		others[cpu] = run_on_and_off(cpu);
		ASSERT_LT(0, others[cpu]);
	}
	for (int i = 0; i < 2 * ROUNDS; i++)
		EXPECT_EQ(0, wait_status(in_group(touch_on_node0, 32 * MB)));
	for (cpu = first; cpu <= last; cpu++)
		kill_and_wait(others[cpu]);

	trace = fopen(TRACE "trace", "r");
	ASSERT_NE(NULL, trace);
	while (fgets(text, sizeof(text), trace)) {
		at = strchr(text, '[');
		if (*text == '#' || !at || sscanf(at, "[%d]", &cpu) != 1)
			continue;
		EXPECT_TRUE(CPU_ISSET(cpu, &node0_cpus)) {
			TH_LOG("%s", text);
		}
		helpers++;
	}
	fclose(trace);
	rmdir(TRACE);
	EXPECT_GT(helpers, 0);
}

static void touch_as_realtime(size_t size)
{
	struct sched_param param = { .sched_priority = 1 };
	char *p = map(size);

	if (!p)
		_exit(2);
	stamp(p, size, 0);
	if (sched_setscheduler(0, SCHED_FIFO, &param))
		_exit(2);
}

static void touch_as_idle(size_t size)
{
	struct sched_param param = {};

	touch_and_exit(size);
	if (sched_setscheduler(0, SCHED_IDLE, &param))
		_exit(2);
}

static void touch_as_preferred(size_t size)
{
	touch_and_exit(size);
	if (setpriority(PRIO_PROCESS, 0, -1))
		_exit(2);
}

static void touch_as_nice(size_t size)
{
	touch_and_exit(size);
	if (setpriority(PRIO_PROCESS, 0, 19))
		_exit(2);
}

/* Neither who is preferred to helpers, nor whom they are preferred to. */
TEST_F_TIMEOUT(zap, priority_is_not_inverted, PATIENCE)
{
	void (* const classes[])(size_t size) = {
		touch_as_realtime, touch_as_idle, touch_as_preferred, touch_as_nice
	};
	long chunks = vm_event("zap_chunk_helper"), refused;

	ASSERT_TRUE(make_group());
	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		refused = vm_event("zap_refused_priority");
		ASSERT_EQ(0, wait_status(in_group(classes[i], 32 * MB)));
		EXPECT_GT(vm_event("zap_refused_priority"), refused);
	}
	EXPECT_EQ(vm_event("zap_chunk_helper"), chunks);
}

TEST_F_TIMEOUT(zap, caps_are_obeyed, PATIENCE)
{
	static const char * const caps[] = {
		SYSFS "max_helpers", SYSFS "helpers_per_node"
	};
	long refused, chunks;
	const size_t size = 32 * MB;

	for (size_t i = 0; i < ARRAY_SIZE(caps); i++) {
		refused = vm_event("zap_refused_cap");
		chunks = vm_event("zap_chunk_helper");
		ASSERT_EQ(0, write_text(caps[i], "0"));
		/* Where no CPU is idle just now, that is why. */
		for (int tries = 0; tries < 50; tries++) {
			char *p = map(size);

			ASSERT_NE(NULL, p);
			stamp(p, size, 0);
			ASSERT_EQ(0, munmap(p, size));
			if (vm_event("zap_refused_cap") > refused || !many_cpus())
				break;
		}
		if (many_cpus())
			EXPECT_GT(vm_event("zap_refused_cap"), refused);
		EXPECT_EQ(vm_event("zap_chunk_helper"), chunks);
		ASSERT_EQ(0, write_text(caps[i], "16"));
	}
}

/* What is off, or not worth it, is not shared. */
TEST_F_TIMEOUT(zap, off_is_off, PATIENCE)
{
	long jobs = vm_event("zap_job");
	const size_t size = 32 * MB;
	char *p;

	ASSERT_EQ(0, write_text(SYSFS "enabled", "exit"));
	p = map(size);
	ASSERT_NE(NULL, p);
	stamp(p, size, 0);
	ASSERT_EQ(0, madvise(p, size, MADV_DONTNEED));
	stamp(p, size, 0);
	ASSERT_EQ(0, munmap(p, size));
	EXPECT_EQ(vm_event("zap_job"), jobs);

	ASSERT_EQ(0, write_text(SYSFS "enabled", "never"));
	ASSERT_TRUE(make_group());
	ASSERT_GT(waitpid(in_group(touch_and_exit, size), NULL, 0), 0);
	EXPECT_EQ(vm_event("zap_job"), jobs);

	ASSERT_EQ(0, write_text(SYSFS "enabled", "always"));
	ASSERT_EQ(0, write_text(SYSFS "min_ms", "60000"));
	ASSERT_GT(waitpid(in_group(touch_and_exit, size), NULL, 0), 0);
	EXPECT_EQ(vm_event("zap_job"), jobs);
}

/*
 * Threads that map, stamp, unmap, move, lock, fork and forget at random, each
 * in memory of its own, as zaps of all of them are shared.
 */
#define RACERS		4
#define RACE_BYTES	(24 * MB)

struct racer {
	unsigned int seed;
	atomic_bool *stop;
	const char *failed;
	unsigned long rounds;
};

static const char *race_once(struct racer *r)
{
	unsigned long seed = rand_r(&r->seed);
	size_t from, len;
	char *p = map(RACE_BYTES), *q;
	pid_t pid;

	if (!p)
		return NULL;	/* no memory: again */
	stamp(p, RACE_BYTES, seed);
	from = (rand_r(&r->seed) % (RACE_BYTES / 2)) & ~(PAGE - 1);
	len = RACE_BYTES / 2;

	switch (rand_r(&r->seed) % 6) {
	case 0:
		madvise(p + from, len, MADV_DONTNEED);
		if (!zeroed(p + from, len))
			return "not gone after MADV_DONTNEED";
		stamp(p + from, len, seed + from);
		break;
	case 1:
		q = mremap(p, RACE_BYTES, RACE_BYTES, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
		if (q != MAP_FAILED) {
			if (!zeroed(p, RACE_BYTES))
				return "not gone after mremap()";
			munmap(p, RACE_BYTES);
			p = q;
		}
		break;
	case 2:
		pid = fork();
		if (!pid)
			_exit(!stamped(p, RACE_BYTES, seed));
		if (pid > 0 && wait_status(pid))
			return "wrong in a child";
		break;
	case 3:
		mlock(p + from, 2 * MB);
		munlock(p + from, MB);
		break;
	case 4:
		madvise(p, RACE_BYTES, MADV_PAGEOUT);
		break;
	case 5:
		madvise(p, RACE_BYTES, MADV_HUGEPAGE);
		madvise(p, RACE_BYTES, MADV_COLLAPSE);
		break;
	}
	if (!stamped(p, RACE_BYTES, seed))
		return "a stamp is wrong";
	if (munmap(p, RACE_BYTES))
		return "munmap()";
	return NULL;
}

static void *race(void *arg)
{
	struct racer *r = arg;

	while (!*r->stop && !r->failed) {
		r->failed = race_once(r);
		r->rounds++;
	}
	return NULL;
}

FIXTURE(race)
{
	struct setup setup;
};

FIXTURE_VARIANT(race)
{
	void (*disturb)(int round);
	int rounds;
};

static void nothing(int round)
{
	usleep(200000);
}

static void hotplug(int round)
{
	set_cpu_online(1, round & 1);
	usleep(100000);
}

static void switch_knobs(int round)
{
	static const char * const values[] = { "never", "exit", "always" };

	write_text(SYSFS "enabled", values[round % 3]);
	write_text(SYSFS "chunk_mb", round & 1 ? "2" : "4");
	usleep(50000);
}

static void take_pages(int round)
{
	write_text(CGROUP "memory.reclaim", "16M");
	write_text("/proc/sys/vm/compact_memory", "1");
	usleep(50000);
}

FIXTURE_VARIANT_ADD(race, alone) { .disturb = nothing, .rounds = 50 };
FIXTURE_VARIANT_ADD(race, cpu_hotplug) { .disturb = hotplug, .rounds = 60 };
FIXTURE_VARIANT_ADD(race, knobs) { .disturb = switch_knobs, .rounds = 60 };
FIXTURE_VARIANT_ADD(race, reclaim) { .disturb = take_pages, .rounds = 20 };

FIXTURE_SETUP(race)
{
	const char *missing = skip_reason(SYSFS, "CONFIG_PARALLEL_ZAP");

	if (missing)
		SKIP(return, "%s", missing);
	if (variant->disturb == hotplug && !cpu1_can_unplug())
		SKIP(return, "no CPU to unplug");
	ASSERT_TRUE(share_all(&self->setup));
}

FIXTURE_TEARDOWN(race)
{
	set_cpu_online(1, true);
	restore(&self->setup);
}

TEST_F_TIMEOUT(race, stamps_stay, PATIENCE)
{
	struct racer racers[RACERS] = {};
	pthread_t threads[RACERS];
	atomic_bool stop = false;
	int i;

	for (i = 0; i < RACERS; i++) {
		racers[i].seed = i + 1;
		racers[i].stop = &stop;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, race, &racers[i]));
	}
	for (i = 0; i < variant->rounds; i++)
		variant->disturb(i);
	stop = true;
	for (i = 0; i < RACERS; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(NULL, racers[i].failed) {
			TH_LOG("%s", racers[i].failed);
		}
		EXPECT_GT(racers[i].rounds, 0);
	}
}

TEST_HARNESS_MAIN
