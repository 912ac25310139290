// SPDX-License-Identifier: GPL-2.0
/*
 * NUMA balancing outside of page faults. Daemons must move memory to the node that
 * uses the memory, keep the contents, and never move memory to a node that the policy
 * excludes, even if the memory or the policy changes during the migration.
 *
 * A user is a process that has memory on one node and runs on another node. All
 * pages carry stamps. The tests locate pages with move_pages(2), and read trace
 * events, debugfs and /proc/vmstat to see the work of the daemons.
 *
 * Boot with at least two nodes that have CPUs and memory; four are better. Memory
 * hotplug needs movablecore=, and the test of the freezer needs CONFIG_PM_DEBUG.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <limits.h>
#include <linux/stddef.h>
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/shm.h>
#include <sys/uio.h>
#include "knuma_util.h"

FIXTURE(knuma)
{
	struct setup setup;
};

FIXTURE_SETUP(knuma)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN_PARENT(knuma)
{
	restore(&self->setup);
}

static const struct setting knobs[] = {
	{ KNUMA "enabled", .max = 1 },
	{ KNUMA "window_pages", .min = 1, .max = 512 },
	{ KNUMA "late_millisecs", .max = 10000 },
	{ SCAND "enabled", .max = 1 },
	{ SCAND "scan_sleep_millisecs", .max = 60000 },
	{ SCAND "pages_to_scan", .min = 1, .max = 1 << 24 },
};

TEST_F_TIMEOUT(knuma, knobs_take_their_range_and_no_more, PATIENCE)
{
	for (size_t k = 0; k < ARRAY_SIZE(knobs); k++)
		check_range(_metadata, &knobs[k]);
}

TEST_F_TIMEOUT(knuma, windows_are_powers_of_two, PATIENCE)
{
	for (long pages = 1; pages <= 512; pages++)
		EXPECT_EQ(write_long(KNUMA "window_pages", pages), pages & (pages - 1) ? EINVAL : 0);
	EXPECT_EQ(read_long(KNUMA "window_pages"), 512);
}

TEST_F_TIMEOUT(knuma, counts_cannot_be_written, PATIENCE)
{
	static const char * const paths[] = {
		SCAND "pages_scanned", SCAND "full_scans", DEBUG "queued",
	};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		EXPECT_GE(read_long(paths[i]), 0);
		EXPECT_NE(write_text(paths[i], "0"), 0);
	}
}

/*
 * Counts processes by name. Unless @whole, @prefix is only the start of the name.
 * Stores the pid of one of them in @pid, if not NULL.
 */
static int processes(const char *prefix, bool whole, pid_t *pid)
{
	char path[300], name[64];
	struct dirent *entry;
	DIR *dir = opendir("/proc");
	int found = 0;

	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (!isdigit(*entry->d_name) || !read_text(path, name, sizeof(name)) ||
		    (whole ? strcmp(name, prefix) : strncmp(name, prefix, strlen(prefix))))
			continue;
		found++;
		if (pid)
			*pid = atoi(entry->d_name);
	}
	if (dir)
		closedir(dir);

	return found;
}

static pid_t daemon_of(const struct place *place)
{
	char name[32];
	pid_t pid = 0;

	snprintf(name, sizeof(name), "knuma_migrated%d", place->node);
	processes(name, true, &pid);

	return pid;
}

/* Returns true if the daemons of all places run or not, as @on and @scand require. */
static bool daemons_run(bool on, bool scand)
{
	char name[32];

	for (int i = 0; i < nr_places; i++) {
		snprintf(name, sizeof(name), "knuma_migrated%d", places[i].node);
		if (processes(name, true, NULL) != on)
			return false;
	}
	return processes("knuma_migrated", false, NULL) == (on ? nr_places : 0) &&
	       processes("knuma_scand", true, NULL) == (on && scand);
}

TEST_F_TIMEOUT(knuma, daemons_run_while_they_should, PATIENCE)
{
	struct user *u = start((struct user) {});

	ASSERT_NE(u, NULL);
	if (nr_places == ARRAY_SIZE(places))
		SKIP(return, "too many nodes");
	for (int i = 0; i < 8; i++) {
		bool on = i & 1, scand = i & 2;

		ASSERT_EQ(write_long(SCAND "enabled", scand), 0);
		ASSERT_EQ(write_long(KNUMA "enabled", on), 0);
		/* A daemon that has exited may stay in /proc for a moment. */
		EXPECT_TRUE(wait_for(daemons_run(on, scand)))
			TH_LOG("enabled %d, knuma_scand %d", on, scand);
		/* Change knuma_scand after the other daemons as well. */
		ASSERT_EQ(write_long(SCAND "enabled", !scand), 0);
		EXPECT_TRUE(wait_for(daemons_run(on, !scand)));
		u->to = i & 4 ? here : there;
		queued(there);
	}
	u->to = there;
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

/* A daemon can be stopped while windows are queued. */
TEST_F_TIMEOUT(knuma, daemons_stop_while_held, PATIENCE)
{
	struct user *u;

	hold_queues();
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	for (int i = 0; i < 3; i++) {
		ASSERT_TRUE(has_queued(u, 1));
		ASSERT_EQ(write_text(KNUMA "enabled", "0"), 0);
		EXPECT_TRUE(wait_for(daemons_run(false, false)));
		EXPECT_EQ(queued(there), 0);
		ASSERT_EQ(write_text(KNUMA "enabled", "1"), 0);
	}
	release_queues();
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

/* Folios of each size must move, found by scans of the tasks or of knuma_scand. */
FIXTURE(comes)
{
	struct setup setup;
};

FIXTURE_VARIANT(comes)
{
	size_t folio;
	bool threaded;
	const char *window;	/* window_pages */
	const char *scand;
};

FIXTURE_VARIANT_ADD(comes, small) { 0, false, "512", "0" };
FIXTURE_VARIANT_ADD(comes, small_windows) { 0, false, "32", "0" };
FIXTURE_VARIANT_ADD(comes, small_scand) { 0, false, "512", "1" };
FIXTURE_VARIANT_ADD(comes, mthp) { 64 * KB, false, "512", "0" };
FIXTURE_VARIANT_ADD(comes, mthp_windows) { 64 * KB, false, "64", "0" };
FIXTURE_VARIANT_ADD(comes, mthp_scand) { 64 * KB, false, "512", "1" };
FIXTURE_VARIANT_ADD(comes, thp) { HUGE, false, "512", "0" };
FIXTURE_VARIANT_ADD(comes, thp_windows) { HUGE, false, "1", "0" };
FIXTURE_VARIANT_ADD(comes, thp_scand) { HUGE, false, "512", "1" };
FIXTURE_VARIANT_ADD(comes, thp_threaded) { HUGE, true, "512", "0" };

FIXTURE_SETUP(comes)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_EQ(write_text(KNUMA "window_pages", variant->window), 0);
	ASSERT_EQ(write_text(KNUMA "late_millisecs", "10000"), 0);
	ASSERT_EQ(write_text(SCAND "enabled", variant->scand), 0);
}

FIXTURE_TEARDOWN_PARENT(comes)
{
	restore(&self->setup);
}

static long large_folios(struct user *u)
{
	int order = __builtin_ctzl(u->folio / psize()), orders[20] = {};
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	int flags = open("/proc/kpageflags", O_RDONLY);
	int err = gather_folio_orders(u->p, u->size, pagemap, flags, orders,
				      ARRAY_SIZE(orders));

	close(pagemap);
	close(flags);
	return err ? -1 : orders[order];
}

TEST_F_TIMEOUT(comes, to_where_it_is_used, PATIENCE)
{
	long scanned = read_long(SCAND "pages_scanned"), folios = 0, moved, pages;
	struct user *u;

	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	u = start((struct user) {
		.folio = variant->folio, .threaded = variant->threaded, .to = here,
	});
	ASSERT_NE(u, NULL);
	if (variant->folio) {
		folios = ask(u, large_folios);
		EXPECT_GE(folios, most(u->size / variant->folio) - 1);
	}
	moved = vm_event("numa_pages_migrated");
	u->to = there;
	EXPECT_TRUE(converges(u));
	pages = pages_of(u);
	EXPECT_GE(windows_of(u->pid).moved, pages * 3 / 4);
	/* The kernel counts pages after they move. A few may have moved before. */
	EXPECT_TRUE(wait_for(vm_event("numa_pages_migrated") - moved >= pages * 3 / 4));
	/* Migration must not split folios. A folio is not counted during the migration. */
	if (variant->folio)
		EXPECT_TRUE(wait_for(ask(u, large_folios) >= folios));
	if (*variant->scand == '1')
		EXPECT_GT(read_long(SCAND "pages_scanned"), scanned);

	/* Move back, now that the pages have a history of hinting faults. */
	u->to = here;
	EXPECT_TRUE(converges(u));
	EXPECT_GE(windows_of(u->pid).moved, 2 * pages * 3 / 4);
	EXPECT_EQ(finish(u), 0);
	EXPECT_FALSE(bad_pages());
}

/* A daemon on the CPU of the user stops its window for the user, and continues later. */
TEST_F_TIMEOUT(knuma, daemons_give_way, PATIENCE)
{
	struct user *u = start((struct user) { .size = 64 * MB, .to = here });
	pid_t daemons[] = { daemon_of(here), daemon_of(there) };

	ASSERT_NE(u, NULL);
	for (int i = 0; i < 2; i++) {
		cpu_set_t cpu;

		CPU_ZERO(&cpu);
		CPU_SET(i ? there->cpu : here->cpu, &cpu);
		ASSERT_GT(daemons[i], 0);
		ASSERT_EQ(sched_setaffinity(daemons[i], sizeof(cpu), &cpu), 0);
	}
	for (int move = 0; move < 3; move++) {
		u->to = move & 1 ? here : there;
		EXPECT_TRUE(converges(u));
	}
	EXPECT_GT(windows_of(u->pid).stopped, 0);
	/* Faults migrate some of the memory if the daemons are slow. */
	EXPECT_GE(windows_of(u->pid).moved, 3 * pages_of(u) / 2);
	EXPECT_EQ(finish(u), 0);
}

/* A task that only inspects an address space does not count as a user. */
TEST_F_TIMEOUT(knuma, users_that_are_watched_are_alone, PATIENCE)
{
	struct user *u = start((struct user) { .to = here });
	pid_t pid;

	ASSERT_NE(u, NULL);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (true)
			pages_at(here, u->pid, u->p, u->size);
	}
	for (int move = 0; move < 3; move++) {
		u->to = move & 1 ? here : there;
		EXPECT_TRUE(converges(u));
	}
	kill_and_wait(pid);
	EXPECT_GE(windows_of(u->pid).moved, 3 * pages_of(u) * 3 / 4);
	EXPECT_EQ(finish(u), 0);
}

/* A folio has 8 bits of the PID of the last hinting fault. If all are set, the PID is unset. */
TEST_F_TIMEOUT(knuma, no_pid_is_left_out, PATIENCE)
{
	struct user *u = NULL;
	pid_t pid;

	while (!u) {
		pid = fork();
		if (!pid)
			_exit(0);
		ASSERT_EQ(wait_status(pid), 0);
		if ((pid & 0xff) != 0xfe)
			continue;
		u = start((struct user) { .size = 4 * MB });
		ASSERT_NE(u, NULL);
		/* Another process may have taken the PID. */
		if ((u->pid & 0xff) == 0xff)
			break;
		EXPECT_EQ(finish(u), 0);
		u = NULL;
	}
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

/*
 * Memory that cannot move in a window, or only in part. Such memory must still reach
 * the target node, as without the daemons.
 */
static long split_the_table(struct user *u)
{
	for (size_t at = 0; at < u->size; at += HUGE)
		if (mprotect(u->p + at, psize(), PROT_READ) ||
		    mprotect(u->p + at, psize(), PROT_READ | PROT_WRITE))
			return -1;
	return 0;
}

/* Replaces one page of each large folio with a new page. */
static long replace_parts(struct user *u)
{
	for (size_t at = 0; at < u->size; at += u->folio) {
		const size_t page = at + u->folio / 2;

		if (madvise(u->p + page, psize(), MADV_DONTNEED))
			return -1;
		stamp_range(u->p + page, psize(), stamp_of(1, page));
	}
	return 0;
}

/* Moves huge pages to an address that is not aligned to their size. */
static long move_by_a_page(struct user *u)
{
	char *room = map_aligned(u->size + HUGE), *p;

	p = mremap(u->p, u->size, u->size, MREMAP_MAYMOVE | MREMAP_FIXED,
		   room + psize());
	if (p == MAP_FAILED)
		return -1;
	u->p = p;
	return 0;
}

/* After fork(2), pages are not exclusive to the parent until the parent writes to them. */
static long share_with_a_child(struct user *u)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return wait_status(pid);
}

static long lock_it(struct user *u)
{
	return mlock(u->p, u->size);
}

static long forbid_writes(struct user *u)
{
	return mprotect(u->p, u->size, PROT_READ);
}

static long free_it_lazily(struct user *u)
{
	return madvise(u->p, u->size, MADV_FREE);
}

static long write_protect_by_uffd(struct user *u)
{
	int fd = uffd_create(O_NONBLOCK, UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	struct uffdio_register reg = {
		.range = { (unsigned long)u->p, u->size },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect protect = {
		.range = reg.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	return fd < 0 || ioctl(fd, UFFDIO_REGISTER, &reg) ||
	       ioctl(fd, UFFDIO_WRITEPROTECT, &protect) ? -1 : 0;
}

static long watch_writes(struct user *u)
{
	return write_text("/proc/self/clear_refs", "4") ? -1 : 0;
}

/* Leaves three pages in each page table, too few for a window. */
static long leave_few_pages(struct user *u)
{
	for (size_t at = 0; at < u->size; at += HUGE)
		if (madvise(u->p + at + 3 * psize(), HUGE - 3 * psize(), MADV_DONTNEED))
			return -1;
	return 0;
}

FIXTURE(left)
{
	struct setup setup;
};

FIXTURE_VARIANT(left)
{
	size_t folio;
	const char *window;
	long (*prepare)(struct user *u);
	size_t step;
	bool shared;
	bool queued;		/* windows may include the memory */
};

FIXTURE_VARIANT_ADD(left, shared) { 0, "512", .shared = true };
FIXTURE_VARIANT_ADD(left, locked) { 0, "512", lock_it };
FIXTURE_VARIANT_ADD(left, read_only) { 0, "512", forbid_writes };
FIXTURE_VARIANT_ADD(left, uffd_wp) { 0, "512", write_protect_by_uffd };
FIXTURE_VARIANT_ADD(left, soft_dirty) { 0, "512", watch_writes };
FIXTURE_VARIANT_ADD(left, window_of_a_page) { 0, "1" };
FIXTURE_VARIANT_ADD(left, window_of_2_pages) { 0, "2" };
FIXTURE_VARIANT_ADD(left, lazyfree) { 0, "512", free_it_lazily, .queued = true };
FIXTURE_VARIANT_ADD(left, after_fork) { 0, "512", share_with_a_child, .queued = true };
FIXTURE_VARIANT_ADD(left, mthp_after_fork) {
	64 * KB, "512", share_with_a_child, .queued = true
};

FIXTURE_VARIANT_ADD(left, thp_after_fork) { HUGE, "512", share_with_a_child, .queued = true };
FIXTURE_VARIANT_ADD(left, thp_by_pages) { HUGE, "512", split_the_table, .queued = true };
FIXTURE_VARIANT_ADD(left, thp_by_pages_windows) { HUGE, "64", split_the_table, .queued = true };
FIXTURE_VARIANT_ADD(left, thp_in_part) { HUGE, "512", replace_parts, .queued = true };
FIXTURE_VARIANT_ADD(left, thp_moved) { HUGE, "512", move_by_a_page, .queued = true };
FIXTURE_VARIANT_ADD(left, mthp_windows) { 64 * KB, "8", .queued = true };
FIXTURE_VARIANT_ADD(left, mthp_in_part) { 64 * KB, "512", replace_parts, .queued = true };

FIXTURE_SETUP(left)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_EQ(write_text(KNUMA "window_pages", variant->window), 0);
}

FIXTURE_TEARDOWN_PARENT(left)
{
	restore(&self->setup);
}

TEST_F_TIMEOUT(left, to_faults_it_comes_too, PATIENCE)
{
	int fd = memfd_create("knuma", 0);
	struct user *u;

	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	ASSERT_EQ(ftruncate(fd, 16 * MB), 0);
	u = start((struct user) {
		.folio = variant->folio,
		.fd = variant->shared ? fd : 0,
		.prepare = variant->prepare,
	});
	if (!u)
		SKIP(return, "not in this kernel");
	EXPECT_TRUE(converges(u));
	if (!variant->queued)
		EXPECT_EQ(windows_of(u->pid).moved, 0);
	EXPECT_EQ(finish(u), 0);
	EXPECT_FALSE(bad_pages());
}

TEST_F_TIMEOUT(knuma, few_pages_are_left_to_faults, PATIENCE)
{
	struct user *u;

	u = start((struct user) {
		.size = 32 * HUGE, .step = HUGE, .prepare = leave_few_pages,
	});
	ASSERT_NE(u, NULL);
	/* The user touches one of the three pages. */
	EXPECT_TRUE(come(u, most(u->size / u->step)));
	EXPECT_EQ(windows_of(u->pid).nr, 0);
	/* The holes have no stamps, so ignore the status. */
	finish(u);
}

TEST_F_TIMEOUT(knuma, off_is_off, PATIENCE)
{
	long moved, waited;
	struct user *u;

	ASSERT_EQ(write_text(KNUMA "enabled", "0"), 0);
	moved = vm_event("numa_pages_migrated");
	waited = vm_event("knuma_queued");
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(converges(u));
	EXPECT_GE(vm_event("numa_pages_migrated") - moved, most(pages_of(u)));
	EXPECT_EQ(windows_of(u->pid).nr, 0);
	EXPECT_EQ(vm_event("knuma_queued"), waited);
	EXPECT_EQ(finish(u), 0);
}

/* Starts a user of every eighth page. NUMA balancing is off during the first round. */
static struct user *start_sparse(void)
{
	struct user *u;

	if (write_text(BALANCING, "0"))
		return NULL;
	u = start((struct user) { .size = 2 * MB, .step = 8 * psize() });
	return write_text(BALANCING, "1") ? NULL : u;
}

/* Pages that no task touches take no hinting faults, so they move only with neighbours. */
TEST_F_TIMEOUT(knuma, neighbours_come_along, PATIENCE)
{
	struct user *u;

	/* A few pages may miss the windows, and no later fault queues these pages. */
	u = start_sparse();
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(come(u, pages_of(u) * 3 / 4));
	EXPECT_EQ(finish(u), 0);

	/* With windows of one page, only pages move that the user touches. */
	ASSERT_EQ(write_text(KNUMA "window_pages", "1"), 0);
	u = start_sparse();
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(come(u, pages_of(u) / 16));
	EXPECT_LE(pages_there(u), pages_of(u) / 8 + 1);
	EXPECT_EQ(finish(u), 0);
}

TEST_F_TIMEOUT(knuma, windows_are_as_large_as_they_may, PATIENCE)
{
	static const long sizes[] = { 8, 16, 64, 128, 512 };
	struct windows windows;
	struct user *u;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_EQ(write_long(KNUMA "window_pages", sizes[i]), 0);
		u = start((struct user) { .size = 8 * MB });
		ASSERT_NE(u, NULL);
		EXPECT_TRUE(converges(u));
		windows = windows_of(u->pid);
		EXPECT_GT(windows.nr, 0);
		EXPECT_LE(windows.largest, sizes[i]);
		EXPECT_GE(windows.largest, sizes[i] / 2);
		EXPECT_EQ(finish(u), 0);
	}
}

/* If a daemon is late, faults migrate the memory. */
FIXTURE(late)
{
	struct setup setup;
};

FIXTURE_VARIANT(late)
{
	size_t folio;
	long (*prepare)(struct user *u);
	bool held;
	bool self;	/* faults migrate windows, not single folios */
};

FIXTURE_VARIANT_ADD(late, small) { 0, NULL, true, true };
FIXTURE_VARIANT_ADD(late, mthp) { 64 * KB, NULL, true, true };
FIXTURE_VARIANT_ADD(late, thp) { HUGE, NULL, true, false };
FIXTURE_VARIANT_ADD(late, thp_by_pages) { HUGE, split_the_table, true, false };
FIXTURE_VARIANT_ADD(late, not_held) { 0, NULL, false, false };

FIXTURE_SETUP(late)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_EQ(write_text(KNUMA "late_millisecs", "0"), 0);
	if (variant->held)
		ASSERT_EQ(write_text(DEBUG "hold", "Y"), 0);
}

FIXTURE_TEARDOWN_PARENT(late)
{
	restore(&self->setup);
}

TEST_F_TIMEOUT(late, daemons_leave_it_to_faults, PATIENCE)
{
	long self_migrated = vm_event("knuma_self_migrated");
	struct user *u;

	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	u = start((struct user) {
		.folio = variant->folio, .prepare = variant->prepare,
	});
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(converges(u));
	if (variant->held)
		EXPECT_EQ(windows_of(u->pid).nr, 0);
	if (variant->self)
		EXPECT_GE(vm_event("knuma_self_migrated") - self_migrated,
			  pages_of(u) / 64);
	EXPECT_EQ(finish(u), 0);
	EXPECT_FALSE(bad_pages());
}

/* If a queue is full, faults migrate the memory. */
TEST_F_TIMEOUT(knuma, full_queues_leave_it_to_faults, PATIENCE)
{
	long full = vm_event("knuma_queue_full");
	struct user *u;

	hold_queues();
	ASSERT_EQ(write_text(KNUMA "window_pages", "8"), 0);
	u = start((struct user) { .size = 32 * MB });
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(converges(u));
	EXPECT_GT(vm_event("knuma_queue_full"), full);
	EXPECT_EQ(queued(there), 1024);
	release_queues();
	EXPECT_TRUE(wait_for(!queued(there)));
	EXPECT_EQ(finish(u), 0);
}

/* The daemon drops windows older than two seconds, and counts their pages. */
TEST_F_TIMEOUT(knuma, old_windows_expire, PATIENCE)
{
	long expired = vm_event("knuma_expired"), before, waited;
	struct user *u;

	waited = vm_event("knuma_queued");
	hold_queues();
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	ASSERT_TRUE(has_queued(u, 4));
	pause_user(u);
	waited = vm_event("knuma_queued") - waited;
	before = pages_there(u);
	sleep(4);
	EXPECT_TRUE(drain(there));
	EXPECT_EQ(windows_of(u->pid).nr, 0);
	EXPECT_EQ(pages_there(u), before);
	EXPECT_GE(vm_event("knuma_expired") - expired, waited);
	resume_user(u);
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}
static long group_migrated(int i)
{
	return group_read(groups[i], "memory.stat", "numa_pages_migrated");
}

TEST_F_TIMEOUT(knuma, each_memcg_counts_its_own, PATIENCE)
{
	static const size_t sizes[] = { 16 * MB, 8 * MB };
	struct user *users[2];
	long moved, before[2];

	for (int i = 0; i < 2; i++) {
		if (!make_group(groups[i], 0))
			SKIP(return, "no memory cgroups");
		before[i] = group_migrated(i);
	}
	for (int i = 0; i < 2; i++) {
		users[i] = start((struct user) {
			.size = sizes[i], .group = groups[i],
		});
		ASSERT_NE(users[i], NULL);
	}
	for (int i = 0; i < 2; i++)
		EXPECT_TRUE(converges(users[i]));
	for (int i = 0; i < 2; i++) {
		long pages = pages_of(users[i]);

		/* The kernel flushes memcg statistics of all CPUs only now and then. */
		EXPECT_TRUE(wait_for(group_migrated(i) - before[i] >= most(pages) - 512));
		moved = group_migrated(i) - before[i];
		EXPECT_LE(moved, pages + pages / 4)
			TH_LOG("group %d: %ld of %ld pages", i + 1, moved, pages);
		EXPECT_EQ(finish(users[i]), 0);
	}
}

/* The charge moves with the memory, so no charge is left after the user exits. */
TEST_F_TIMEOUT(knuma, each_memcg_is_charged_once, PATIENCE)
{
	long before, peak, max;
	struct user *u;
	char text[32];

	if (!make_group(groups[0], 0))
		SKIP(return, "no memory cgroups");
	have_folios(HUGE);
	for (int i = 0; i < 2; i++) {
		u = start((struct user) {
			.size = 16 * MB, .group = groups[0], .folio = i ? HUGE : 0,
		});
		ASSERT_NE(u, NULL);
		before = group_read(groups[0], "memory.stat", "anon");
		/* Leave room for page tables, but not for two copies of a window. */
		max = read_long(CGROUP "knuma_test_1/memory.peak") + 256 * KB;
		snprintf(text, sizeof(text), "%ld", max);
		ASSERT_EQ(group_write(groups[0], "memory.max", text), 0);
		for (int move = 0; move < 3; move++) {
			u->to = move & 1 ? here : there;
			EXPECT_TRUE(converges(u));
		}
		EXPECT_TRUE(wait_for(labs(group_read(groups[0], "memory.stat", "anon") -
					  before) < (long)MB));
		EXPECT_EQ(finish(u), 0);
		peak = read_long(CGROUP "knuma_test_1/memory.peak");
		EXPECT_LE(peak, max);
		group_write(groups[0], "memory.max", "max");
		EXPECT_TRUE(wait_for(group_read(groups[0], "memory.stat", "anon") <
				     (long)MB));
	}
}

static unsigned long zone_sum(int node, const char *name)
{
	unsigned long sum = 0, val;
	FILE *f = fopen("/proc/zoneinfo", "r");
	char line[256], word[64];
	int at = -1;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d, zone", &at) != 1 &&
		    sscanf(line, "%63s %lu", word, &val) == 2 && at == node &&
		    !strcmp(word, name))
			sum += val;
	}
	if (f)
		fclose(f);

	return sum;
}

/* Allocates memory of a node until free memory is down to the high watermarks. */
static char *fill(const struct place *place, bool large, size_t *filled)
{
	unsigned long free = zone_sum(place->node, "nr_free_pages") * psize();
	unsigned long high = zone_sum(place->node, "high") * psize(), step;
	const size_t size = free;
	char *p = map_aligned(size);

	*filled = 0;
	if (p == MAP_FAILED || !map_over(p, free, false, -1) ||
	    bind_to(p, free, place, 0))
		return NULL;
	/* Allocate huge pages at first, because that is faster. */
	if (large && have_folios(HUGE) && free > high + 64 * MB)
		madvise(p, (free - high - 64 * MB) / HUGE * HUGE, MADV_HUGEPAGE);
	do {
		step = free > high + 2 * MB ? (free - high) / 2 : psize();
		/* Memory that others free meanwhile may be more than was free at first. */
		for (size_t end = *filled + step; *filled < end && *filled < size; *filled += psize())
			p[*filled] = 1;
		free = zone_sum(place->node, "nr_free_pages") * psize();
	} while (free > high && *filled < size);

	return p;
}

static bool too_large_to_fill(const struct place *place)
{
	return zone_sum(place->node, "nr_free_pages") > 4 * KB * MB / psize();
}

TEST_F_TIMEOUT(knuma, full_nodes_are_waited_for, PATIENCE)
{
	long kills = vm_event("oom_kill"), stayed = vm_event("knuma_stayed");
	struct user *u;
	size_t filled;
	char *p;

	if (too_large_to_fill(there))
		SKIP(return, "too much memory to fill it");
	u = start((struct user) { .to = here });
	ASSERT_NE(u, NULL);
	p = fill(there, true, &filled);
	ASSERT_NE(p, NULL);
	u->to = there;
	/* Other tasks may free memory of the node meanwhile. */
	EXPECT_TRUE(wait_for(vm_event("knuma_stayed") > stayed + 100 ||
			     pages_there(u) >= most(pages_of(u))));
	EXPECT_GT(vm_event("knuma_stayed"), stayed);
	EXPECT_LT(pages_there(u), most(pages_of(u)));
	EXPECT_EQ(munmap(p, filled), 0);
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(vm_event("oom_kill"), kills);
	EXPECT_EQ(finish(u), 0);
}

/* Counts free blocks of at least @order. Orders begin in the fifth column of buddyinfo. */
static long free_blocks(int node, int order)
{
	FILE *f = fopen("/proc/buddyinfo", "r");
	char line[256], *word, *next;
	long blocks = 0;
	int at, i;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d,", &at) != 1 || at != node)
			continue;
		word = strtok_r(line, " \n", &next);
		for (i = -3; word; i++, word = strtok_r(NULL, " \n", &next))
			blocks += i > order ? atol(word) : 0;
	}
	if (f)
		fclose(f);

	return blocks;
}

/* Frees every second page of fill(), and allocates the huge pages that are left. */
static char *fragment(const struct place *place, char *p, size_t filled, size_t *taken)
{
	const size_t size = 512 * MB;
	char *rest = map_aligned(size);

	for (size_t at = 0; at < filled; at += 2 * psize())
		madvise(p + at, psize(), MADV_DONTNEED);
	*taken = 0;
	if (rest == MAP_FAILED || !map_over(rest, size, true, -1) ||
	    bind_to(rest, size, place, 0))
		return NULL;
	for (; *taken < size / 2 && free_blocks(place->node, 9); *taken += HUGE)
		rest[*taken] = 1;
	/* Each CPU may have some on a list of its own. */
	for (int i = 0; i < nr_places; i++) {
		run_on(&places[i]);
		for (int nr = 0; nr < 8 && *taken < size; nr++, *taken += HUGE)
			rest[*taken] = 1;
	}
	run_on(here);

	return rest;
}

/* A lack of huge pages delays only huge pages, until memory is free again. */
TEST_F_TIMEOUT(knuma, small_pages_need_no_huge_ones, PATIENCE)
{
	struct user *huge, *small;
	long stayed, stopped;
	size_t filled, taken;
	char *p, *rest;

	if (too_large_to_fill(there))
		SKIP(return, "too much memory to fill it");
	if (!have_folios(HUGE))
		SKIP(return, "no huge pages");
	huge = start((struct user) { .size = HUGE, .folio = HUGE, .to = here });
	ASSERT_NE(huge, NULL);
	p = fill(there, false, &filled);
	ASSERT_NE(p, NULL);
	rest = fragment(there, p, filled, &taken);
	ASSERT_NE(rest, NULL);
	stayed = vm_event("knuma_stayed");
	huge->to = there;
	EXPECT_TRUE(wait_for(vm_event("knuma_stayed") >= stayed + pages_of(huge) ||
			     pages_there(huge)));
	stopped = vm_event("knuma_stayed");
	EXPECT_GE(stopped, stayed + pages_of(huge));
	/* Small pages must move while huge pages find no memory. */
	small = start((struct user) { .size = 32 * MB });
	ASSERT_NE(small, NULL);
	EXPECT_TRUE(converges(small));
	EXPECT_GE(windows_of(small->pid).moved, pages_of(small) / 2);
	EXPECT_EQ(finish(small), 0);

	EXPECT_EQ(munmap(rest, 512 * MB), 0);
	EXPECT_EQ(munmap(p, filled), 0);
	EXPECT_TRUE(converges(huge));
	EXPECT_EQ(finish(huge), 0);
}

/* Windows of other tasks move after a task exits whose windows found no memory. */
TEST_F_TIMEOUT(knuma, nodes_reopen_when_nobody_waits, PATIENCE)
{
	long stayed = vm_event("knuma_stayed");
	struct user *u;
	size_t filled;
	char *p;

	if (too_large_to_fill(there))
		SKIP(return, "too much memory to fill it");
	u = start((struct user) { .size = 2 * MB, .to = here });
	ASSERT_NE(u, NULL);
	p = fill(there, true, &filled);
	ASSERT_NE(p, NULL);
	u->to = there;
	EXPECT_TRUE(wait_for(vm_event("knuma_stayed") > stayed));
	EXPECT_EQ(finish(u), 0);
	EXPECT_TRUE(wait_for(!queued(there)));
	EXPECT_EQ(munmap(p, filled), 0);
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(converges(u));
	EXPECT_GE(windows_of(u->pid).moved, pages_of(u) / 2);
	EXPECT_EQ(finish(u), 0);
}

TEST_F_TIMEOUT(knuma, daemons_freeze, PATIENCE)
{
	struct user *u;
	long moved;

	if (write_text("/sys/power/pm_test", "freezer"))
		SKIP(return, "no /sys/power/pm_test: CONFIG_PM_DEBUG");
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	for (int i = 0; i < 4; i++) {
		hold_queues();
		u->from = i & 1 ? there : here;
		u->to = i & 1 ? here : there;
		ASSERT_TRUE(has_queued(u, 4));
		moved = windows_of(u->pid).moved;
		release_queues();
		/* This takes seconds, so windows that are still queued expire. */
		EXPECT_EQ(write_text("/sys/power/state", "freeze"), 0);
		EXPECT_TRUE(converges(u));
		EXPECT_GT(windows_of(u->pid).moved, moved);
	}
	/* Daemons can freeze as well while a test holds the queues. */
	hold_queues();
	u->to = there;
	ASSERT_TRUE(has_queued(u, 1));
	EXPECT_EQ(write_text("/sys/power/state", "freeze"), 0);
	write_text("/sys/power/pm_test", "none");
	release_queues();
	EXPECT_EQ(finish(u), 0);
}

TEST_F_TIMEOUT(knuma, cpus_come_and_go, PATIENCE)
{
	const int cpu = there->cpu;
	struct user *u;

	if (set_cpu_online(cpu, false))
		SKIP(return, "CPU %d cannot go offline", cpu);
	ASSERT_EQ(set_cpu_online(cpu, true), 0);
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	for (int i = 0; i < 10; i++) {
		ASSERT_EQ(set_cpu_online(cpu, false), 0);
		/* The daemon of a node without CPUs starts when a CPU comes online. */
		if (i & 1) {
			ASSERT_EQ(write_text(KNUMA "enabled", "0"), 0);
			ASSERT_EQ(write_text(KNUMA "enabled", "1"), 0);
		}
		usleep(30000);
		ASSERT_EQ(set_cpu_online(cpu, true), 0);
		usleep(100000);
	}
	EXPECT_TRUE(wait_for(daemons_run(true, false)));
	u->to = here;
	EXPECT_TRUE(converges(u));
	u->to = there;
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

TEST_F_TIMEOUT(knuma, memory_comes_and_goes, PATIENCE)
{
	time_t end = time(NULL) + 5;
	struct user *u;
	int done = 0;

	u = start((struct user) { .size = 64 * MB });
	ASSERT_NE(u, NULL);
	do {
		int before = done;

		for (int block = 0; block < MEMORY_BLOCKS; block++) {
			/* Memory of the user may be moving to another node now. */
			if (!block_is_movable(block) || write_block(block, "offline"))
				continue;
			done++;
			u->to = done & 4 ? here : there;
			EXPECT_EQ(write_block(block, "online_movable"), 0);
		}
		if (done == before)
			break;
	} while (time(NULL) < end);
	if (!done) {
		finish(u);
		SKIP(return, "no block can go offline: movablecore=");
	}
	u->to = there;
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

static bool block_is_of(int block, int node)
{
	char path[64];

	snprintf(path, sizeof(path), NODES "node%d/memory%d", node, block);
	return !access(path, F_OK);
}

/* Sets the state of all memory blocks of a node, and ignores errors. */
static void set_blocks(const struct place *place, const bool *blocks, const char *state)
{
	for (int block = 0; block < MEMORY_BLOCKS; block++)
		if (blocks[block])
			write_block(block, state);
}

static bool has_memory(const struct place *place)
{
	char path[64], text[256];

	snprintf(path, sizeof(path), NODES "node%d/meminfo", place->node);
	return read_text(path, text, sizeof(text)) && !strstr(text, " 0 kB");
}

static bool runs_daemon(const struct place *place)
{
	char name[32];

	snprintf(name, sizeof(name), "knuma_migrated%d", place->node);
	return processes(name, true, NULL);
}

/* A node without memory has no daemon and no queued windows. */
TEST_F_TIMEOUT(knuma, last_memory_of_a_node_goes, PATIENCE)
{
	bool blocks[MEMORY_BLOCKS];
	struct user *u;

	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(converges(u));
	for (int block = 0; block < MEMORY_BLOCKS; block++)
		blocks[block] = block_is_of(block, there->node);
	hold_queues();
	u->to = here;
	has_queued(u, 1);
	u->to = there;
	/* A block that cannot go offline now may do so later. */
	for (int i = 0; i < 3 && has_memory(there); i++)
		set_blocks(there, blocks, "offline");
	if (has_memory(there)) {
		set_blocks(there, blocks, "online");
		release_queues();
		EXPECT_TRUE(converges(u));
		EXPECT_EQ(finish(u), 0);
		SKIP(return, "node %d has memory that cannot go offline", there->node);
	}
	EXPECT_FALSE(runs_daemon(there));
	EXPECT_LE(queued(there), 0);
	release_queues();
	set_blocks(there, blocks, "online");
	EXPECT_TRUE(wait_for(runs_daemon(there)));
	EXPECT_TRUE(converges(u));
	EXPECT_EQ(finish(u), 0);
}

/* Like pin_pages(), these functions hold pages until the test closes the file. */
static int hold_by_io_uring(char *p, size_t size)
{
	struct io_uring_params params = {};
	struct iovec iov = { p, size };
	int fd = syscall(__NR_io_uring_setup, 1, &params);

	return fd >= 0 && !syscall(__NR_io_uring_register, fd,
				   IORING_REGISTER_BUFFERS, &iov, 1) ? fd : -1;
}

static int hold_by_pipe(char *p, size_t size)
{
	struct iovec iov = { p, size };
	int fds[2];

	if (pipe(fds) || fcntl(fds[1], F_SETPIPE_SZ, size) < 0 ||
	    vmsplice(fds[1], &iov, 1, 0) != (ssize_t)size)
		return -1;
	close(fds[1]);
	return fds[0];
}

#define HELD (256 * psize())	/* one page for each element of user.pfns */

FIXTURE(held)
{
	struct setup setup;
};

FIXTURE_VARIANT(held)
{
	int (*hold)(char *p, size_t size);
	size_t folio;
};

FIXTURE_VARIANT_ADD(held, by_gup_test) { .hold = pin_pages };
FIXTURE_VARIANT_ADD(held, by_gup_test_mthp) { .hold = pin_pages, .folio = 64 * KB };
FIXTURE_VARIANT_ADD(held, by_io_uring) { .hold = hold_by_io_uring };
FIXTURE_VARIANT_ADD(held, by_pipe) { .hold = hold_by_pipe };
FIXTURE_VARIANT_ADD(held, by_pipe_thp) { .hold = hold_by_pipe, .folio = HUGE };

FIXTURE_SETUP(held)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN_PARENT(held)
{
	restore(&self->setup);
}

/* The user process has these variables, and calls the next three functions. */
static int (*hold)(char *p, size_t size);
static int held_fd;

static void get_pfns(struct user *u, unsigned long *pfns)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);

	for (size_t i = 0; i < HELD / psize(); i++)
		/* A page that is being migrated has no PFN in pagemap. */
		do {
			FORCE_READ(u->p[i * psize()]);
			pfns[i] = pagemap_get_pfn(fd, u->p + i * psize());
		} while (pfns[i] == -1UL);
	close(fd);
}

static long hold_some(struct user *u)
{
	held_fd = hold(u->p, HELD);
	get_pfns(u, u->pfns);
	return held_fd >= 0;
}

/* Releases the pages. Returns the number of pages that moved before. */
static long give_back(struct user *u)
{
	unsigned long pfns[HELD / psize()];
	long moved = 0;

	get_pfns(u, pfns);
	for (size_t i = 0; i < HELD / psize(); i++)
		moved += pfns[i] != u->pfns[i];
	close(held_fd);

	return moved;
}

TEST_F_TIMEOUT(held, pages_stay_where_they_are, PATIENCE)
{
	const long kept = (variant->folio > HELD ? variant->folio : HELD) / psize();
	struct user *u;

	hold = variant->hold;
	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	for (int after = 0; after < 2; after++) {
		if (after)
			hold_queues();
		u = start((struct user) {
			.folio = variant->folio, .to = after ? there : here,
		});
		ASSERT_NE(u, NULL);
		/* Hold pages before or after faults queue the pages. */
		if (after)
			ASSERT_TRUE(has_queued(u, 4));
		if (ask(u, hold_some) != 1) {
			finish(u);
			SKIP(return, "cannot hold pages this way");
		}
		release_queues();
		u->to = there;
		EXPECT_TRUE(come(u, most(pages_of(u)) - kept));
		EXPECT_EQ(ask(u, give_back), 0);
		/* Released pages move as well. */
		EXPECT_TRUE(converges(u));
		EXPECT_TRUE(wait_for(pages_at(there, u->pid, u->p, HELD) > 0));
		EXPECT_EQ(finish(u), 0);
	}
}

/*
 * The parent writes to the first page of each large folio after fork(2), so only this
 * page is exclusive. While a pipe holds another page, the folio cannot migrate. A pin
 * that is taken after that must see later writes of the parent. In ZONE_MOVABLE,
 * pages migrate before they are pinned, so the test proves nothing there.
 */
static long pins_diverge(struct user *u)
{
	const size_t at = 5 * psize();
	const long faults = vm_event("numa_hint_faults");
	const time_t end = time(NULL) + 300;
	char *copy = map_anon(psize());
	__u64 addr = (unsigned long)copy;
	int pipe_fd, pin_fd;
	pid_t pid;
	long diverged;

	for (size_t i = 0; i < u->size; i += u->folio)
		stamp_range(u->p + i, psize(), stamp_of(1, i));
	pipe_fd = hold_by_pipe(u->p + at, psize());
	/* Wait for hinting faults, which leave the folio in place. */
	u->to = there;
	run_on(there);
	while (vm_event("numa_hint_faults") < faults + 64) {
		if (time(NULL) > end)
			return -2;
		for (int i = 0; i < 20; i++)
			use_once(u);
	}
	close(pipe_fd);
	pin_fd = pin_pages(u->p + at, psize());
	if (pipe_fd < 0 || pin_fd < 0)
		return -1;
	pid = fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	stamp_range(u->p + at, psize(), stamp_of(2, at));
	if (ioctl(pin_fd, PIN_LONGTERM_TEST_READ, &addr))
		return -1;
	close(pin_fd);
	kill_and_wait(pid);
	diverged = count_pages(copy, psize(), stamp_of(2, at), PAGE_OLD) != 1;
	stamp_range(u->p + at, psize(), stamp_of(1, at));

	return diverged;
}

TEST_F_TIMEOUT(knuma, shared_parts_of_folios_stay_shared, PATIENCE)
{
	struct user *u;
	long diverged;

	if (!have_folios(64 * KB))
		SKIP(return, "no folios of 64 KiB");
	u = start((struct user) {
		.size = 4 * MB, .folio = 64 * KB, .to = here, .prepare = share_with_a_child,
	});
	ASSERT_NE(u, NULL);
	diverged = ask(u, pins_diverge);
	EXPECT_EQ(finish(u), 0);
	if (diverged == -1)
		SKIP(return, "cannot hold pages this way");
	EXPECT_EQ(diverged, 0);
}
/* Changes of policy, each after pages were queued under another policy. */
static long bind_what_is_queued(struct user *u)
{
	int err = bind_to(u->p, u->size, u->from, 0);

	return err ? -1 : pages_at(there, 0, u->p, u->size);
}

static long bind_and_move_back(struct user *u)
{
	int err = -1;

	/* Another task may hold a reference to a page for a moment. */
	for (int i = 0; i < 10 && err; i++)
		err = bind_to(u->p, u->size, u->from, MPOL_MF_MOVE | MPOL_MF_STRICT);
	return err || pages_at(there, 0, u->p, u->size) ? -1 : 0;
}

static long bind_the_task(struct user *u)
{
	unsigned long mask[16] = {};
	int err;

	mask[u->from->node / 64] = 1UL << u->from->node % 64;
	err = syscall(SYS_set_mempolicy, MPOL_BIND, mask, 8 * sizeof(mask));
	return err ? -1 : pages_at(there, 0, u->p, u->size);
}

static long interleave_what_is_queued(struct user *u)
{
	unsigned long mask[16] = {};
	int err;

	mask[u->from->node / 64] = 1UL << u->from->node % 64;
	err = syscall(SYS_mbind, u->p, u->size, MPOL_INTERLEAVE, mask,
		      8 * sizeof(mask), 0);
	return err ? -1 : pages_at(there, 0, u->p, u->size);
}

/* Unmaps the memory of the parent, waits for the child, and exits with the same status. */
static void leave_to(struct user *u, pid_t pid)
{
	int status;

	munmap(u->p, u->size);
	u->left = true;
	status = wait_status(pid);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
}

/* The child maps the same memory as the parent, but has not queued windows. */
static long bind_the_child(struct user *u)
{
	pid_t pid = fork();

	if (pid)
		leave_to(u, pid);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	u->pid = getpid();
	if (!wait_for(u->left))
		return -1;
	return bind_what_is_queued(u);
}

/* The cpuset of the second group has memory of one node. */
static long clone_to_cpuset(struct user *u)
{
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = open(groups[1], O_RDONLY | O_DIRECTORY),
	};
	pid_t pid = syscall(__NR_clone3, &args, sizeof(args));

	if (pid < 0)
		return -1;
	if (pid)
		leave_to(u, pid);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	u->pid = getpid();
	if (!wait_for(u->left))
		return -1;
	/* Make the pages exclusive to the child. Some may have moved in the parent. */
	stamp(u->p, u->size, 1);
	return pages_at(there, 0, u->p, u->size);
}

/* Changes by the test. The first group has all nodes, the second group has one. */
static long narrow_cpuset(struct user *u)
{
	char mems[16];

	snprintf(mems, sizeof(mems), "%d", here->node);
	return group_write(groups[0], "cpuset.mems", mems) ? -1 : pages_there(u);
}

static long change_cpuset(struct user *u)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", u->pid);
	return group_write(groups[1], "cgroup.procs", pid) ? -1 : pages_there(u);
}

FIXTURE(policy)
{
	struct setup setup;
};

FIXTURE_VARIANT(policy)
{
	size_t folio;
	bool group;
	long (*inside)(struct user *u);		/* called in the user, or */
	long (*outside)(struct user *u);	/* called in the test */
};

FIXTURE_VARIANT_ADD(policy, of_a_range) { .inside = bind_what_is_queued };
FIXTURE_VARIANT_ADD(policy, of_a_range_thp) {
	.folio = HUGE, .inside = bind_what_is_queued
};

FIXTURE_VARIANT_ADD(policy, of_a_range_it_moves_to) { .inside = bind_and_move_back };
FIXTURE_VARIANT_ADD(policy, interleaved) { .inside = interleave_what_is_queued };
FIXTURE_VARIANT_ADD(policy, of_the_task) { .inside = bind_the_task };
FIXTURE_VARIANT_ADD(policy, of_a_child) { .inside = bind_the_child };
FIXTURE_VARIANT_ADD(policy, of_the_cpuset) { .group = true, .outside = narrow_cpuset };
FIXTURE_VARIANT_ADD(policy, of_the_cpuset_thp) {
	.folio = HUGE, .group = true, .outside = narrow_cpuset
};

FIXTURE_VARIANT_ADD(policy, of_another_cpuset) {
	.group = true, .outside = change_cpuset
};

FIXTURE_VARIANT_ADD(policy, of_a_clone_in_another_cpuset) {
	.group = true, .inside = clone_to_cpuset
};

FIXTURE_SETUP(policy)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN_PARENT(policy)
{
	restore(&self->setup);
}

/* Queued windows expire after two seconds, so a slow host may need several rounds. */
TEST_F_TIMEOUT(policy, holds_for_what_was_queued, PATIENCE)
{
	/* A child has no windows yet, and a task with memory of one node is not scanned. */
	const bool refuses = variant->inside != bind_the_child &&
			     variant->inside != clone_to_cpuset;
	long dropped = vm_event("knuma_refused"), before, rounds;
	struct user *u;

	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	for (int round = 0; round < 10; round++) {
		if (variant->group &&
		    (!make_group(groups[0], nr_places) || !make_group(groups[1], 1)))
			SKIP(return, "no cpusets");
		hold_queues();
		u = start((struct user) {
			.folio = variant->folio,
			.group = variant->group ? groups[0] : NULL,
		});
		ASSERT_NE(u, NULL);
		ASSERT_TRUE(has_queued(u, 4));
		before = variant->inside ? ask(u, variant->inside) :
					   variant->outside(u);
		EXPECT_GE(before, 0);
		/* Wait until daemons have taken all windows, and for more faults. */
		EXPECT_TRUE(drain(there));
		rounds = u->rounds;
		EXPECT_TRUE(wait_for((long)u->rounds > rounds + 20));
		EXPECT_LE(pages_there(u), before);
		EXPECT_EQ(finish(u), 0);
		if (round && (!refuses || vm_event("knuma_refused") > dropped))
			break;
	}
	if (refuses)
		EXPECT_GT(vm_event("knuma_refused"), dropped);
}

static void *turn_off(void *arg)
{
	write_text(KNUMA "enabled", "0");
	return NULL;
}

/* knuma_scand skips a task whose policy excludes NUMA balancing, as the task itself would. */
TEST_F_TIMEOUT(knuma, tasks_with_a_policy_are_not_scanned, PATIENCE)
{
	long updates, passes;
	struct user *u;

	ASSERT_EQ(write_text(SCAND "enabled", "1"), 0);
	u = start((struct user) {});
	ASSERT_NE(u, NULL);
	EXPECT_TRUE(converges(u));
	ASSERT_GE(ask(u, bind_the_task), 0);
	u->to = here;
	for (int i = 0; i < 2; i++) {
		/* The first iteration lets a scan end that has begun before. */
		updates = vm_event("numa_pte_updates");
		passes = read_long(SCAND "full_scans");
		EXPECT_TRUE(wait_for(read_long(SCAND "full_scans") > passes + 3));
	}
	EXPECT_LT(vm_event("numa_pte_updates") - updates, pages_of(u) / 2);
	EXPECT_EQ(finish(u), 0);
}

/* A daemon that is being stopped may still migrate a window. */
TEST_F_TIMEOUT(knuma, policies_hold_while_it_is_turned_off, PATIENCE)
{
	struct user *u;
	long before;

	for (int round = 0; round < 10; round++) {
		pthread_t thread;

		ASSERT_EQ(write_text(KNUMA "enabled", "1"), 0);
		hold_queues();
		u = start((struct user) {});
		ASSERT_NE(u, NULL);
		ASSERT_TRUE(has_queued(u, 4));
		release_queues();
		ASSERT_EQ(pthread_create(&thread, NULL, turn_off, NULL), 0);
		usleep(rand() % 20000);
		before = ask(u, bind_what_is_queued);
		EXPECT_GE(before, 0);
		ASSERT_EQ(pthread_join(thread, NULL), 0);
		EXPECT_LE(pages_there(u), before);
		EXPECT_EQ(finish(u), 0);
	}
}

/* A task may run on a node whose memory the cpuset excludes. */
TEST_F_TIMEOUT(knuma, cpusets_hold_when_it_is_queued, PATIENCE)
{
	struct user *u;
	long faults;

	if (nr_places < 3)
		SKIP(return, "needs three nodes");
	if (!make_group(groups[0], 2))
		SKIP(return, "no cpusets");
	for (int late = 0; late < 2; late++) {
		/* Neither daemons nor faults may migrate to this node. */
		ASSERT_EQ(write_text(KNUMA "late_millisecs", late ? "0" : "10000"), 0);
		faults = vm_event("numa_hint_faults");
		u = start((struct user) { .group = groups[0] });
		ASSERT_NE(u, NULL);
		EXPECT_TRUE(wait_for(vm_event("numa_hint_faults") > faults + 200));
		EXPECT_TRUE(wait_for(u->rounds > 500));
		EXPECT_EQ(pages_there(u), 0);
		/* Memory may move to the second node of the cpuset. */
		u->to = &places[1];
		EXPECT_TRUE(converges(u));
		EXPECT_EQ(finish(u), 0);
	}
}

/*
 * Unrelated policies change all the time. Windows of memory without a policy must
 * still move.
 */
static void bind_again_and_again(char *p, size_t size)
{
	for (int i = 0;; i++) {
		if (i & 1)
			unbind(p, size);
		else
			bind_to(p, size, here, 0);
		usleep(2000);
	}
}

static void *bind_a_page(void *arg)
{
	char *p = map_anon(psize());

	run_on(here);
	*p = 1;
	bind_again_and_again(p, psize());
	return NULL;
}

static void *change_task_policy(void *arg)
{
	unsigned long mask[16] = { -1UL };

	run_on(here);
	for (int i = 0;; i++) {
		syscall(SYS_set_mempolicy, i & 1 ? MPOL_DEFAULT : MPOL_PREFERRED,
			i & 1 ? NULL : mask, i & 1 ? 0 : nr_places + 1);
		usleep(2000);
	}
	return NULL;
}

static long begin_storm_of_a_thread(struct user *u)
{
	pthread_t thread;

	return pthread_create(&thread, NULL, bind_a_page, NULL);
}

static long begin_storm_of_its_own_thread_policy(struct user *u)
{
	pthread_t thread;

	return pthread_create(&thread, NULL, change_task_policy, NULL);
}

static long begin_storm_of_a_child(struct user *u)
{
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		bind_a_page(NULL);
	}
	/* The child shares pages until the parent writes to them. */
	stamp(u->p, u->size, 1);
	return 0;
}

/* An unprivileged user changes the policies of up to 1000 open files. */
static void *bind_files(void *arg)
{
	char *p[1000];
	int nr, fd;

	run_on(here);
	for (nr = 0; nr < 1000; nr++) {
		fd = memfd_create("knuma", 0);
		if (fd < 0 || ftruncate(fd, psize()))
			break;
		p[nr] = map_over(map_aligned(psize()), psize(), false, fd);
	}
	for (int i = 0;; i++) {
		bind_to(p[i % nr], psize(), i / nr & 1 ? here : there, 0);
		if (i % 64 == 0)
			usleep(1000);
	}
	return NULL;
}

static long begin_storm_of_files(struct user *u)
{
	if (!fork()) {
		if (setresuid(65534, 65534, 65534))
			_exit(2);
		/* setresuid(2) clears the parent death signal. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		bind_files(NULL);
	}
	stamp(u->p, u->size, 1);
	return 0;
}

FIXTURE(storm)
{
	struct setup setup;
};

FIXTURE_VARIANT(storm)
{
	long (*begin)(struct user *u);
};

FIXTURE_VARIANT_ADD(storm, of_a_page) { begin_storm_of_a_thread };
FIXTURE_VARIANT_ADD(storm, of_a_page_of_a_child) { begin_storm_of_a_child };
FIXTURE_VARIANT_ADD(storm, of_a_thread_policy) { begin_storm_of_its_own_thread_policy };
FIXTURE_VARIANT_ADD(storm, of_files_of_another_user) { begin_storm_of_files };

FIXTURE_SETUP(storm)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN_PARENT(storm)
{
	restore(&self->setup);
}

TEST_F_TIMEOUT(storm, does_not_keep_memory_away, PATIENCE)
{
	struct user *u;

	u = start((struct user) { .size = 32 * MB, .prepare = variant->begin });
	ASSERT_NE(u, NULL);
	/* Move several times: faults may move memory of several threads at first. */
	for (int move = 0; move < 3; move++) {
		u->to = move & 1 ? here : there;
		EXPECT_TRUE(converges(u));
	}
	EXPECT_GE(windows_of(u->pid).moved, pages_of(u) / 2);
	EXPECT_EQ(finish(u), 0);
}

/*
 * A task moves between two nodes. The memory must follow each time, and only a few
 * pages may take a hinting fault.
 */
FIXTURE(flips)
{
	struct setup setup;
};

FIXTURE_VARIANT(flips)
{
	size_t folio;
	bool threaded;
	bool writes;
};

FIXTURE_VARIANT_ADD(flips, small) { 0 };
FIXTURE_VARIANT_ADD(flips, small_written) { 0, false, true };
FIXTURE_VARIANT_ADD(flips, small_threaded) { 0, true, true };
FIXTURE_VARIANT_ADD(flips, mthp) { 64 * KB };
FIXTURE_VARIANT_ADD(flips, mthp_threaded) { 64 * KB, true, true };

FIXTURE_SETUP(flips)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN_PARENT(flips)
{
	restore(&self->setup);
}

TEST_F_TIMEOUT(flips, take_few_faults, PATIENCE)
{
	long faults, pages, scans;
	struct user *u;

	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	write_text(SCAN "scan_period_min_ms", "200");
	write_text(SCAN "scan_period_max_ms", "1000");
	u = start((struct user) {
		.size = 32 * MB, .folio = variant->folio, .threaded = variant->threaded,
		.writes = variant->writes, .to = here,
	});
	ASSERT_NE(u, NULL);
	pages = pages_of(u);
	for (int move = 0; move < 5; move++) {
		/* Wait for scans of the memory on the current node. */
		scans = vm_event("numa_pte_updates");
		wait_until(time(NULL) + 3, vm_event("numa_pte_updates") > scans + 2 * pages);
		faults = remote_faults();
		u->to = move & 1 ? here : there;
		EXPECT_TRUE(converges(u));
		faults = remote_faults() - faults;
		TH_LOG("move %d: %ld faults for %ld pages", move + 1, faults, pages);
		/* The first faults of several threads do not show yet which thread uses a block. */
		if (move || !variant->threaded)
			EXPECT_LE(faults, pages / 10);
	}
	EXPECT_EQ(finish(u), 0);
}

/**
 * struct sharer - thread that uses a part of memory shared by two threads
 * @place:	place where the thread runs
 * @first:	first page that the thread uses
 * @step:	number of pages from one used page to the next
 * @others:	use all other pages instead
 * @rounds:	number of completed rounds over these pages
 */
struct sharer {
	const struct place *place;
	size_t first;
	size_t step;
	bool others;
	atomic_ulong rounds;
};

struct shared {
	char *p;
	size_t size;
	struct sharer sharers[2];
	atomic_bool stop;
};

static struct shared *shared;

static bool uses(const struct sharer *s, size_t page)
{
	return (page % s->step == s->first) != s->others;
}

static void *share(void *arg)
{
	struct sharer *s = arg;

	while (!shared->stop) {
		run_on(s->place);
		for (size_t page = 0; page < shared->size / psize(); page++)
			if (uses(s, page))
				FORCE_READ(shared->p[page * psize()]);
		s->rounds++;
	}
	return NULL;
}

/* The main thread of the process is the second sharer. */
static pid_t start_sharers(size_t size, const struct sharer *first,
			   const struct sharer *second)
{
	pthread_t thread;
	pid_t pid;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared->size = size;
	shared->sharers[0] = *first;
	shared->sharers[1] = *second;
	pid = fork();
	if (pid)
		return wait_for(shared->sharers[0].rounds && shared->sharers[1].rounds) ?
		       pid : -1;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	shared->p = map_aligned(size);
	map_over(shared->p, size, false, -1);
	bind_to(shared->p, size, here, 0);
	stamp(shared->p, size, 1);
	unbind(shared->p, size);
	pthread_create(&thread, NULL, share, &shared->sharers[0]);
	share(&shared->sharers[1]);
	pthread_join(thread, NULL);
	_exit(broken(shared->p, size, 1) ? 1 : 0);
}

/* Returns the percentage of pages of a sharer that are on the node of the sharer. */
static long percent_local(pid_t pid, const struct sharer *s)
{
	long all = 0, local = 0;

	usleep(50000);
	for (size_t page = 0; page < shared->size / psize(); page++) {
		/* A sample of the pages is enough. */
		if (!uses(s, page) || page / 32 % 4)
			continue;
		local += pages_at(s->place, pid, shared->p + page * psize(), psize());
		all++;
	}
	return 100 * local / all;
}

static bool both_are_local(pid_t pid)
{
	return percent_local(pid, &shared->sharers[0]) >= 95 &&
	       percent_local(pid, &shared->sharers[1]) >= 95;
}

static bool both_go_on(unsigned long rounds)
{
	const unsigned long first = shared->sharers[0].rounds;
	const unsigned long second = shared->sharers[1].rounds;

	return wait_for(shared->sharers[0].rounds > first + rounds &&
			shared->sharers[1].rounds > second + rounds);
}

static int stop_sharers(pid_t pid)
{
	shared->stop = true;
	return wait_status(pid);
}

/* Half of the pages are on the right node, and must stay there. */
TEST_F_TIMEOUT(knuma, neighbours_of_others_are_left_alone, PATIENCE)
{
	const struct sharer first = { here, 0, 2 }, second = { there, 1, 2 };
	long moved = vm_event("numa_pages_migrated"), due = 32 * MB / psize() / 2;
	pid_t pid = start_sharers(32 * MB, &first, &second);

	ASSERT_GT(pid, 0);
	EXPECT_TRUE(wait_for(both_are_local(pid)));
	EXPECT_TRUE(both_go_on(100));
	EXPECT_TRUE(both_are_local(pid));
	moved = vm_event("numa_pages_migrated") - moved;
	EXPECT_LE(moved, due + due / 20)
		TH_LOG("%ld moves, %ld pages had to move", moved, due);
	EXPECT_EQ(stop_sharers(pid), 0);
}

/* The thread that uses one page in 16 stays. The thread that uses the others moves. */
TEST_F_TIMEOUT(knuma, single_pages_of_others_stay, PATIENCE)
{
	const struct sharer first = { here, 5, 16 }, second = { here, 5, 16, true };
	pid_t pid = start_sharers(16 * MB, &first, &second);

	ASSERT_GT(pid, 0);
	for (int move = 0; move < 4; move++) {
		shared->sharers[1].place = move & 1 ? here : there;
		EXPECT_TRUE(wait_for(percent_local(pid, &shared->sharers[1]) >= 95));
		EXPECT_GE(percent_local(pid, &shared->sharers[0]), 95);
		EXPECT_TRUE(both_go_on(100));
	}
	EXPECT_GT(windows_of(pid).moved, 0);
	EXPECT_EQ(stop_sharers(pid), 0);
}

/* Counts page moves while two threads on different nodes use all of the memory. */
static long moves_of_two(const char *enabled)
{
	const struct sharer first = { here, 0, 1 }, second = { there, 0, 1 };
	long moved;
	pid_t pid;

	if (write_text(KNUMA "enabled", enabled))
		return -1;
	moved = vm_event("numa_pages_migrated");
	pid = start_sharers(32 * MB, &first, &second);
	if (pid < 0 || !both_go_on(1000) || stop_sharers(pid))
		return -1;

	return vm_event("numa_pages_migrated") - moved;
}

TEST_F_TIMEOUT(knuma, pages_of_all_move_no_more_often, PATIENCE)
{
	long off = 0, on = 0;

	for (int run = 0; run < 3; run++) {
		off += moves_of_two("0");
		on += moves_of_two("1");
	}
	TH_LOG("%ld moves, %ld without daemons", on, off);
	EXPECT_GT(off, 0);
	EXPECT_LE(on, off + off / 2);
}
/* Changes to memory after a fault queues a window and before a daemon takes the window. */
static long seal(struct user *u)
{
	return syscall(__NR_mseal, u->p, u->size, 0) ? -1 : 0;
}

/* Replaces the memory with a mapped file of the same contents. */
static long map_a_file(struct user *u)
{
	int fd = memfd_create("knuma", 0);

	if (fd < 0 || ftruncate(fd, u->size))
		return -1;
	run_on(u->from);
	if (!map_over(u->p, u->size, false, fd))
		return -1;
	stamp(u->p, u->size, 1);
	return 0;
}

static long map_anew(struct user *u)
{
	run_on(u->from);
	munmap(u->p, u->size);
	if (!map_over(u->p, u->size, u->folio, -1))
		return -1;
	stamp(u->p, u->size, 1);
	return 0;
}

/* Moves the memory to another address. The old address is unmapped. */
static long move_away(struct user *u)
{
	char *room = map_aligned(u->size), *p;

	p = mremap(u->p, u->size, u->size, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	if (p == MAP_FAILED)
		return -1;
	u->p = p;
	return 0;
}

/* The child maps all pages until the parent exits. */
static long fork_a_child(struct user *u)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (true)
			pause();
	}
	return pid < 0 ? -1 : 0;
}

/* Unmaps a part in the middle of each window, and maps new memory there. */
static long unmap_parts(struct user *u)
{
	char *part;

	run_on(u->from);
	for (size_t at = HUGE / 2; at < u->size; at += HUGE) {
		part = u->p + at;
		if (munmap(part, HUGE / 4) || !map_over(part, HUGE / 4, false, -1))
			return -1;
		stamp_range(part, HUGE / 4, stamp_of(1, at));
	}
	return 0;
}

/* A huge page can be larger than the windows that are queued. */
static long collapse(struct user *u)
{
	run_on(u->from);
	return madvise(u->p, u->size, MADV_HUGEPAGE) ?: madvise(u->p, u->size, MADV_COLLAPSE);
}

static long pages_soft_dirty(struct user *u)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	long pages = 0;

	for (size_t at = 0; at < u->size; at += psize())
		pages += !!(pagemap_get_entry(pagemap, u->p + at) & PM_SOFT_DIRTY);
	close(pagemap);

	return pages;
}

FIXTURE(changed)
{
	struct setup setup;
};

FIXTURE_VARIANT(changed)
{
	size_t folio;
	long (*change)(struct user *u);
	bool stays;		/* no page moves without a new fault */
	long (*look)(struct user *u);	/* must return 0 after the daemon ran */
	const char *window;	/* window_pages */
};

FIXTURE_VARIANT_ADD(changed, is_sealed) { 0, seal };
FIXTURE_VARIANT_ADD(changed, is_sealed_thp) { HUGE, seal };
FIXTURE_VARIANT_ADD(changed, is_read_only) { 0, forbid_writes, true };
FIXTURE_VARIANT_ADD(changed, is_read_only_thp) { HUGE, forbid_writes, true };
FIXTURE_VARIANT_ADD(changed, is_locked) { 0, lock_it, true };
FIXTURE_VARIANT_ADD(changed, is_a_file) { 0, map_a_file, true };
FIXTURE_VARIANT_ADD(changed, is_mapped_anew) { 0, map_anew };
FIXTURE_VARIANT_ADD(changed, is_mapped_anew_thp) { HUGE, map_anew };
FIXTURE_VARIANT_ADD(changed, has_other_parts) { 0, unmap_parts };
FIXTURE_VARIANT_ADD(changed, has_other_parts_thp) { HUGE, unmap_parts };
FIXTURE_VARIANT_ADD(changed, is_elsewhere) { 0, move_away, true };
FIXTURE_VARIANT_ADD(changed, is_elsewhere_thp) { HUGE, move_away, true };
FIXTURE_VARIANT_ADD(changed, is_shared) { 0, fork_a_child, true };
FIXTURE_VARIANT_ADD(changed, is_shared_thp) { HUGE, fork_a_child, true };
FIXTURE_VARIANT_ADD(changed, is_watched) { 0, watch_writes, true, pages_soft_dirty };
FIXTURE_VARIANT_ADD(changed, is_write_protected) { 0, write_protect_by_uffd, true };
FIXTURE_VARIANT_ADD(changed, is_collapsed) { 0, collapse };
FIXTURE_VARIANT_ADD(changed, is_collapsed_windows) { 0, collapse, true, .window = "64" };
FIXTURE_VARIANT_ADD(changed, is_split) { HUGE, split_the_table };
FIXTURE_VARIANT_ADD(changed, is_replaced_in_part) { HUGE, replace_parts };

FIXTURE_SETUP(changed)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN_PARENT(changed)
{
	restore(&self->setup);
}

TEST_F_TIMEOUT(changed, while_it_waits, PATIENCE)
{
	bool served = false;
	struct user *u;
	long before, expired;

	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	if (variant->window)
		ASSERT_EQ(write_text(KNUMA "window_pages", variant->window), 0);
	/* Queued windows expire after two seconds, so a slow host may need several rounds. */
	for (int round = 0; round < 10 && !served; round++) {
		hold_queues();
		expired = vm_event("knuma_expired");
		u = start((struct user) { .folio = variant->folio });
		ASSERT_NE(u, NULL);
		ASSERT_TRUE(has_queued(u, 4));
		if (ask(u, variant->change)) {
			finish(u);
			SKIP(return, "not in this kernel");
		}
		pause_user(u);
		before = pages_there(u);
		EXPECT_TRUE(drain(there));
		served = vm_event("knuma_expired") == expired;
		if (variant->stays)
			EXPECT_LE(pages_there(u), before);
		resume_user(u);
		if (variant->look)
			EXPECT_EQ(ask(u, variant->look), 0);
		EXPECT_EQ(finish(u), 0);
	}
	EXPECT_TRUE(served);
	EXPECT_FALSE(bad_pages());
}

/* The daemon drops windows of a task that has left the target node. */
TEST_F_TIMEOUT(knuma, memory_does_not_follow_who_is_back, PATIENCE)
{
	long refused = vm_event("knuma_refused"), expired, rounds;
	bool served = false;
	struct user *u;

	for (int round = 0; round < 10 && !served; round++) {
		hold_queues();
		expired = vm_event("knuma_expired");
		u = start((struct user) {});
		ASSERT_NE(u, NULL);
		ASSERT_TRUE(has_queued(u, 4));
		u->to = here;
		rounds = u->rounds;
		EXPECT_TRUE(wait_for(u->rounds > rounds + 2));
		EXPECT_TRUE(drain(there));
		served = vm_event("knuma_expired") == expired;
		EXPECT_EQ(windows_of(u->pid).moved, 0);
		EXPECT_EQ(finish(u), 0);
	}
	EXPECT_TRUE(served);
	EXPECT_GT(vm_event("knuma_refused"), refused);
}

/*
 * No write may be lost while windows move. A writer records the last value of each
 * page, checks the values between writes, and moves between two nodes.
 */
#define WRITTEN		(8 * MB)
#define PIECE		16UL	/* pages of one write */
#define LAST		(psize() - sizeof(unsigned long))

/**
 * struct writer - process that writes to memory
 * @p:		start address of the memory
 * @values:	last value of the first and last word of each page
 * @next:	counter of values
 * @from:	file to read from, if any
 * @lost:	number of pages found with another value
 */
struct writer {
	char *p;
	unsigned long values[WRITTEN / 4096];
	unsigned long next;
	int from;
	long lost;
};

static struct writer writer;

static void put_value(char *p, unsigned long value)
{
	*(volatile unsigned long *)p = value;
	*(volatile unsigned long *)(p + LAST) = value;
}

static bool has_value(const char *p, unsigned long value)
{
	return FORCE_READ(*(unsigned long *)p) == value &&
	       FORCE_READ(*(unsigned long *)(p + LAST)) == value;
}

/* Each of these functions writes PIECE pages from @page on. Returns false on failure. */
static bool write_directly(size_t page)
{
	for (int burst = 0; burst < 64; burst++) {
		char *p = writer.p + page * psize();

		if (!has_value(p, writer.values[page]))
			writer.lost++;
		writer.values[page] = ++writer.next;
		put_value(p, writer.next);
	}
	for (size_t i = 1; i < PIECE; i++) {
		writer.values[page + i] = ++writer.next;
		put_value(writer.p + (page + i) * psize(), writer.next);
	}
	return true;
}

static char *new_piece(size_t page)
{
	static char *piece;

	if (!piece)
		piece = map_anon(PIECE * psize());
	for (size_t i = 0; i < PIECE; i++) {
		writer.values[page + i] = ++writer.next;
		put_value(piece + i * psize(), writer.next);
	}
	return piece;
}

/* The kernel pins the pages for the copy, as for a write to another process. */
static bool write_by_process_vm(size_t page)
{
	struct iovec from = { new_piece(page), PIECE * psize() };
	struct iovec to = { writer.p + page * psize(), PIECE * psize() };

	return process_vm_writev(getpid(), &from, 1, &to, 1, 0) == (ssize_t)from.iov_len;
}

/* Writes to a file, and reads from the file into the pages. */
static bool write_by_read(size_t page)
{
	const ssize_t size = PIECE * psize();

	return pwrite(writer.from, new_piece(page), size, 0) == size &&
	       pread(writer.from, writer.p + page * psize(), size, 0) == size;
}

/* The pin must see writes of the task to the pinned pages. */
static bool write_while_pinned(size_t page)
{
	const size_t size = PIECE * psize();
	static char *copy;
	char *p = writer.p + page * psize();
	__u64 addr;
	int fd = pin_pages(p, size);

	if (!copy)
		copy = map_anon(size);
	if (fd < 0)
		return false;
	memcpy(p, new_piece(page), size);
	addr = (unsigned long)copy;
	if (ioctl(fd, PIN_LONGTERM_TEST_READ, &addr))
		return false;
	close(fd);
	for (size_t i = 0; i < PIECE; i++)
		writer.lost += !has_value(copy + i * psize(), writer.values[page + i]);

	return true;
}

/* An io_uring with one entry, without liburing. */
struct ring {
	int fd;
	struct io_uring_sqe *sqe;
	unsigned int *sq_tail, *sq_array, *cq_head;
};

static bool ring_init(struct ring *ring)
{
	const int prot = PROT_READ | PROT_WRITE;
	struct io_uring_params params = {};
	char *sq;

	ring->fd = syscall(__NR_io_uring_setup, 1, &params);
	if (ring->fd < 0 || !(params.features & IORING_FEAT_SINGLE_MMAP))
		return false;
	sq = mmap(NULL, 4 * psize(), prot, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
	ring->sqe = mmap(NULL, psize(), prot, MAP_SHARED, ring->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || ring->sqe == MAP_FAILED)
		return false;
	ring->sq_tail = (void *)(sq + params.sq_off.tail);
	ring->sq_array = (void *)(sq + params.sq_off.array);
	ring->cq_head = (void *)(sq + params.cq_off.head);

	return true;
}

/* Reads from the file into a registered buffer, which is pinned. */
static bool write_by_io_uring(size_t page)
{
	static struct ring ring = { -1 };
	struct iovec iov = { writer.p + page * psize(), PIECE * psize() };
	int done;

	if (ring.fd < 0 && !ring_init(&ring))
		return false;
	if (pwrite(writer.from, new_piece(page), iov.iov_len, 0) != (ssize_t)iov.iov_len ||
	    syscall(__NR_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &iov, 1))
		return false;
	*ring.sqe = (struct io_uring_sqe) {
		.opcode = IORING_OP_READ_FIXED,
		.fd = writer.from,
		.addr = (unsigned long)iov.iov_base,
		.len = iov.iov_len,
	};
	ring.sq_array[0] = 0;
	__atomic_add_fetch(ring.sq_tail, 1, __ATOMIC_RELEASE);
	done = syscall(__NR_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	__atomic_add_fetch(ring.cq_head, 1, __ATOMIC_RELEASE);
	syscall(__NR_io_uring_register, ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0);

	return done == 1;
}

/* A new zram device, whose reads with O_DIRECT bypass the page cache. */
static char zram_path[32];
static int zram_id = -1;

static int open_zram(void)
{
	char path[64];
	int fd;

	zram_id = read_long("/sys/class/zram-control/hot_add");
	if (zram_id < 0)
		return -1;
	snprintf(path, sizeof(path), "/sys/block/zram%d/disksize", zram_id);
	write_text(path, "4M");
	snprintf(zram_path, sizeof(zram_path), "/dev/zram%d", zram_id);
	wait_for(!access(zram_path, F_OK));
	fd = open(zram_path, O_RDWR | O_DIRECT | O_CLOEXEC);

	return fd;
}

static void remove_zram(void)
{
	if (zram_id < 0)
		return;
	/* Another task may close the device a little later. */
	wait_for(!write_long("/sys/class/zram-control/hot_remove", zram_id));
	zram_id = -1;
}

static int open_memfd(void)
{
	return memfd_create("knuma", 0);
}

/* Writes and checks another word of the same pages, in a second thread. */
static void *write_beside(void *arg)
{
	const size_t pages = WRITTEN / psize();
	static unsigned long values[WRITTEN / 4096];
	unsigned int seed = 7;
	long *lost = arg;

	run_on(here);
	while (true) {
		const size_t page = rand_r(&seed) % pages;
		volatile unsigned long *word = (void *)(writer.p + page * psize() + 64);

		for (int burst = 0; burst < 64; burst++) {
			*lost += *word != values[page];
			*word = ++values[page];
		}
		usleep(100);
	}
	return NULL;
}

static long check_values(void)
{
	long wrong = 0;

	for (size_t page = 0; page < WRITTEN / psize(); page++)
		wrong += !has_value(writer.p + page * psize(), writer.values[page]);
	return wrong;
}

/* Tries a write several times, because pages cannot be pinned while they move. */
static bool write_again(bool (*write)(size_t page), size_t page)
{
	unsigned long before[PIECE];
	bool done = false;

	memcpy(before, &writer.values[page], sizeof(before));
	for (int i = 0; i < 100 && !done; i++) {
		done = write(page);
		if (done)
			break;
		fprintf(stderr, "# cannot write: %s\n", strerror(errno));
		memcpy(&writer.values[page], before, sizeof(before));
		usleep(1000);
	}
	return done;
}

/* Exits with 1 if a value is lost, KSFT_SKIP if writes fail, or 3 if too few pages move. */
static void write_and_move(bool (*write)(size_t page), size_t folio, bool threads)
{
	const size_t pages = WRITTEN / psize();
	long moved = vm_event("numa_pages_migrated"), stayed = vm_event("knuma_stayed");
	const time_t end = time(NULL) + 150;
	static long lost;
	pthread_t thread;
	unsigned int seed = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	writer.p = map_aligned(WRITTEN);
	if (writer.p == MAP_FAILED || !map_over(writer.p, WRITTEN, folio, -1))
		_exit(2);
	for (size_t page = 0; page < pages; page++)
		put_value(writer.p + page * psize(), 0);
	if (threads && pthread_create(&thread, NULL, write_beside, &lost))
		_exit(2);
	for (int round = 0; !writer.lost && !lost && time(NULL) < end; round++) {
		run_on(round / 64 & 1 ? here : there);
		writer.lost += check_values();
		for (int i = 0; i < 4; i++) {
			if (!write_again(write, rand_r(&seed) % (pages - PIECE + 1)))
				_exit(KSFT_SKIP);
			/* Write at random stages of the migration. */
			usleep(rand_r(&seed) % 1000);
		}
		if (round % 16 == 15 &&
		    vm_event("numa_pages_migrated") - moved > 2 * (long)pages)
			break;
	}
	moved = vm_event("numa_pages_migrated") - moved;
	fprintf(stderr, "# %ld and %ld values lost; %ld pages moved, %ld stayed\n",
		writer.lost, lost, moved, vm_event("knuma_stayed") - stayed);
	if (writer.lost || lost || check_values())
		_exit(1);
	_exit(moved > (long)pages ? 0 : 3);
}

FIXTURE(written)
{
	struct setup setup;
};

FIXTURE_VARIANT(written)
{
	bool (*write)(size_t page);
	size_t folio;
	bool threads;
	int (*open)(void);
};

FIXTURE_VARIANT_ADD(written, small) { write_directly };
FIXTURE_VARIANT_ADD(written, mthp) { write_directly, 64 * KB };
FIXTURE_VARIANT_ADD(written, thp) { write_directly, HUGE };
FIXTURE_VARIANT_ADD(written, small_by_threads) { write_directly, 0, true };
FIXTURE_VARIANT_ADD(written, mthp_by_threads) { write_directly, 64 * KB, true };
FIXTURE_VARIANT_ADD(written, thp_by_threads) { write_directly, HUGE, true };
FIXTURE_VARIANT_ADD(written, small_by_process_vm) { write_by_process_vm };
FIXTURE_VARIANT_ADD(written, mthp_by_process_vm) { write_by_process_vm, 64 * KB };
FIXTURE_VARIANT_ADD(written, thp_by_process_vm) { write_by_process_vm, HUGE };
FIXTURE_VARIANT_ADD(written, small_by_direct_read) { write_by_read, .open = open_zram };
FIXTURE_VARIANT_ADD(written, thp_by_direct_read) { write_by_read, HUGE, .open = open_zram };
FIXTURE_VARIANT_ADD(written, small_by_io_uring) { write_by_io_uring, .open = open_memfd };
FIXTURE_VARIANT_ADD(written, mthp_by_io_uring) { write_by_io_uring, 64 * KB, .open = open_memfd };
FIXTURE_VARIANT_ADD(written, thp_by_io_uring) { write_by_io_uring, HUGE, .open = open_memfd };
FIXTURE_VARIANT_ADD(written, small_pinned) { write_while_pinned };
FIXTURE_VARIANT_ADD(written, mthp_pinned) { write_while_pinned, 64 * KB };
FIXTURE_VARIANT_ADD(written, thp_pinned) { write_while_pinned, HUGE };

FIXTURE_SETUP(written)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN_PARENT(written)
{
	restore(&self->setup);
}

/* Returns true if no folio is left isolated from the LRU lists. */
static bool nothing_is_isolated(void)
{
	write_text("/proc/sys/vm/stat_refresh", "1");
	return !vm_event("nr_isolated_anon") && !vm_event("nr_isolated_file");
}

TEST_F_TIMEOUT(written, is_there_after_moves, PATIENCE)
{
	int status;
	pid_t pid;

	if (!have_folios(variant->folio))
		SKIP(return, "no folios of this size");
	if (variant->open) {
		writer.from = variant->open();
		if (writer.from < 0)
			SKIP(return, "no such file");
	}
	pid = fork();
	if (!pid)
		write_and_move(variant->write, variant->folio, variant->threads);
	status = wait_status(pid);
	if (variant->open)
		close(writer.from);
	remove_zram();
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return, "cannot write in this way");
	EXPECT_EQ(status, 0);
	EXPECT_TRUE(wait_for(nothing_is_isolated()));
	EXPECT_FALSE(bad_pages());
}
/*
 * Events during the migration: a process uses all chunks on one node. When a fault has
 * queued a window, the process changes the chunk while a daemon may be migrating the
 * window, and then allocates the chunk again on the other node.
 */
#define CHUNK		HUGE
#define CHUNKS		16

struct chunk {
	char *p;
	unsigned long key;
	bool large;
};

static struct chunk chunks[CHUNKS];
static char *elsewhere;		/* room for a chunk, and a chunk of zeroes */
static atomic_bool stop;
static atomic_long bad;		/* pages */
static atomic_long happened;

static bool renew(struct chunk *c)
{
	run_on(here);
	if (!map_over(c->p, CHUNK, c->large, -1))
		return false;
	stamp(c->p, CHUNK, ++c->key);
	run_on(there);
	return true;
}

static long broken_chunk(struct chunk *c)
{
	return broken(c->p, CHUNK, c->key);
}

/* Counts the broken pages of a chunk outside of a part. */
static long broken_beside(struct chunk *c, size_t from, size_t len)
{
	return broken_part(c->p, 0, from, c->key) +
	       broken_part(c->p, from + len, CHUNK - from - len, c->key);
}

static long not_zero(const char *p, size_t size)
{
	long pages = 0;

	for (size_t at = 0; at < size; at += psize())
		pages += !!memcmp(p + at, elsewhere + CHUNK, psize());
	return pages;
}

static size_t some_part(size_t *len)
{
	size_t pages = CHUNK / psize(), from = rand() % pages;

	*len = (1 + rand() % (pages - from)) * psize();
	return from * psize();
}

/* Events. Each returns the number of wrong pages, or -1 if not supported. */
static long is_unmapped(struct chunk *c)
{
	size_t len, from = some_part(&len);

	return munmap(c->p + from, len) ? CHUNKS : broken_beside(c, from, len);
}

static long is_dropped(struct chunk *c)
{
	size_t len, from = some_part(&len);

	madvise(c->p + from, len, MADV_DONTNEED);
	return broken_beside(c, from, len) + not_zero(c->p + from, len);
}

/* Parent and child write to separate copies. */
static long is_copied(struct chunk *c)
{
	pid_t pid = fork();
	long wrong;

	if (pid < 0)
		return 0;
	wrong = broken_chunk(c);
	c->key += pid ? 1 : 2;
	stamp(c->p, CHUNK, c->key);
	wrong += broken_chunk(c);
	if (!pid)
		_exit(wrong ? 1 : 0);

	return wrong + !!wait_status(pid);
}

static long is_split(struct chunk *c)
{
	char text[64];

	snprintf(text, sizeof(text), "%d,%#lx,%#lx", getpid(),
		 (unsigned long)c->p, (unsigned long)c->p + CHUNK);
	if (write_text(THP_SPLIT, text) == ENOENT)
		return -1;
	return broken_chunk(c);
}

static long is_locked(struct chunk *c)
{
	size_t len, from = some_part(&len);

	mlock(c->p + from, len);
	munlock(c->p + from, len / 2);
	return broken_chunk(c);
}

static long is_elsewhere(struct chunk *c)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	long wrong;

	if (mremap(c->p, CHUNK, CHUNK, flags, elsewhere) == MAP_FAILED)
		return CHUNKS;
	wrong = broken(elsewhere, CHUNK, c->key);
	if (mremap(elsewhere, CHUNK, CHUNK, flags, c->p) == MAP_FAILED)
		return CHUNKS;
	return wrong + broken_chunk(c);
}

static long is_protected(struct chunk *c)
{
	size_t len, from = some_part(&len);
	long wrong;

	mprotect(c->p + from, len, PROT_READ);
	wrong = broken_chunk(c);
	mprotect(c->p + from, len, PROT_NONE);
	usleep(1000);
	mprotect(c->p + from, len, PROT_READ | PROT_WRITE);
	return wrong + broken_chunk(c);
}

static long is_free(struct chunk *c)
{
	long wrong = 0;

	madvise(c->p, CHUNK, MADV_FREE);
	for (size_t at = 0; at < CHUNK; at += psize())
		wrong += broken_part(c->p, at, psize(), c->key) &&
			 not_zero(c->p + at, psize());
	return wrong;
}

static long is_cold(struct chunk *c)
{
	madvise(c->p, CHUNK, MADV_COLD);
	return broken_chunk(c);
}

static long is_paged_out(struct chunk *c)
{
	size_t len, from = some_part(&len);

	madvise(c->p + from, len, MADV_PAGEOUT);
	return broken_chunk(c);
}

static long is_collapsed(struct chunk *c)
{
	madvise(c->p, CHUNK, MADV_HUGEPAGE);
	madvise(c->p, CHUNK, MADV_COLLAPSE);
	return broken_chunk(c);
}

static long is_bound(struct chunk *c)
{
	bind_to(c->p, CHUNK, here, MPOL_MF_MOVE);
	unbind(c->p, CHUNK);
	return broken_chunk(c);
}

static struct uffdio_range range_of(struct chunk *c)
{
	return (struct uffdio_range) { (unsigned long)c->p, CHUNK };
}

static bool uffd_has(int fd, struct chunk *c, __u64 mode)
{
	struct uffdio_register reg = { .range = range_of(c), .mode = mode };

	return fd >= 0 && !ioctl(fd, UFFDIO_REGISTER, &reg);
}

static void uffd_forget(int fd, struct chunk *c)
{
	struct uffdio_range range = range_of(c);

	ioctl(fd, UFFDIO_UNREGISTER, &range);
}

static long is_filled_by_uffd(struct chunk *c)
{
	static int fd = -2;
	struct uffdio_copy copy = {
		.dst = (unsigned long)c->p,
		.src = (unsigned long)elsewhere,
		.len = CHUNK,
	};

	if (fd == -2)
		fd = uffd_create(O_NONBLOCK, 0);
	if (!uffd_has(fd, c, UFFDIO_REGISTER_MODE_MISSING))
		return -1;
	map_over(elsewhere, CHUNK, false, -1);
	stamp(elsewhere, CHUNK, ++c->key);
	madvise(c->p, CHUNK, MADV_DONTNEED);
	ioctl(fd, UFFDIO_COPY, &copy);
	uffd_forget(fd, c);

	return broken_chunk(c);
}

/* Counts pages that userfaultfd does not protect. */
static long not_guarded(struct chunk *c)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	long pages = 0;

	for (size_t at = 0; at < CHUNK; at += psize())
		pages += !(pagemap_get_entry(pagemap, c->p + at) & PM_UFFD_WP);
	close(pagemap);

	return pages;
}

static long is_write_protected(struct chunk *c)
{
	static int fd = -2;
	struct uffdio_writeprotect protect = {
		.range = range_of(c), .mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	long wrong;

	if (fd == -2)
		fd = uffd_create(O_NONBLOCK, UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	if (!uffd_has(fd, c, UFFDIO_REGISTER_MODE_WP))
		return -1;
	wrong = ioctl(fd, UFFDIO_WRITEPROTECT, &protect) ? 1 : 0;
	usleep(5000);
	wrong += broken_chunk(c) + not_guarded(c);
	uffd_forget(fd, c);

	return wrong + broken_chunk(c);
}

static long is_access_protected(struct chunk *c)
{
	static int fd = -2;
	struct uffdio_rwprotect protect = {
		.range = range_of(c), .mode = UFFDIO_RWPROTECT_MODE_RWP,
	};
	long wrong;

	if (fd == -2)
		fd = uffd_create(O_NONBLOCK, UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC);
	if (!uffd_has(fd, c, UFFDIO_REGISTER_MODE_RWP))
		return -1;
	wrong = ioctl(fd, UFFDIO_RWPROTECT, &protect) ? 1 : 0;
	usleep(5000);
	/* The first access removes the protection of a page. */
	wrong += not_guarded(c) + broken_chunk(c);
	wrong += not_guarded(c) != (long)(CHUNK / psize());
	uffd_forget(fd, c);

	return wrong + broken_chunk(c);
}

/* A pipe holds pages, and must return the contents to a reader. */
static long is_read_by_others(struct chunk *c)
{
	const size_t size = 16 * psize();
	size_t from = rand() % (CHUNK / size) * size;
	static char *copy;
	struct iovec iov = { c->p + from, size };
	long wrong = 0;
	int fds[2];

	if (!copy)
		copy = map_anon(size);
	if (pipe(fds))
		return -1;
	if (vmsplice(fds[1], &iov, 1, 0) == (ssize_t)size) {
		usleep(rand() % 2000);
		wrong = read(fds[0], copy, size) != (ssize_t)size ||
			count_pages(copy, size, stamp_of(c->key, from), PAGE_OLD) !=
			(long)(size / psize());
	}
	close(fds[0]);
	close(fds[1]);

	return wrong + broken_chunk(c);
}

/* Calls move_pages(2), for both nodes. */
static long is_moved_by_others(struct chunk *c)
{
	const int nodes[] = { here->node, there->node };
	int status;

	for (int i = 0; i < 64; i++) {
		void *page = c->p + rand() % (CHUNK / psize()) * psize();

		syscall(SYS_move_pages, 0, 1, &page, &nodes[i & 1], &status, MPOL_MF_MOVE);
	}
	return broken_chunk(c);
}

static long (*event)(struct chunk *c);

static void disturb_chunk(struct chunk *c)
{
	long wrong;

	if (rand() & 1)
		usleep(rand() % 4000);
	wrong = event(c);
	if (wrong < 0)
		_exit(KSFT_SKIP);
	bad += wrong;
	happened++;
	if (!renew(c))
		_exit(2);
}

/* Touches all pages of a chunk. If that queues a window, disturbs the chunk in most cases. */
static void use_chunk(struct chunk *c)
{
	const long before = vm_event("knuma_queued");

	for (size_t at = 0; at < CHUNK; at += psize())
		FORCE_READ(c->p[at]);
	if (vm_event("knuma_queued") != before && rand() % 4)
		disturb_chunk(c);
	else
		bad += broken_chunk(c);
}

/* Asks for 1000 moved pages and 5 events, and for up to 50 events in 5 seconds. */
static bool has_seen_enough(long moved)
{
	const time_t now = time(NULL);
	static time_t begun;

	begun = begun ?: now;
	if (bad || now > begun + 150)
		return true;
	return moved > 1000 && happened >= 5 && (happened >= 50 || now > begun + 5);
}

/* Exits with 1 if a page is wrong, or with 3 if too few pages moved. */
static void use_and_disturb(void)
{
	const long before = vm_event("numa_pages_migrated");
	long moved = 0;
	char *p;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	p = map_aligned(CHUNKS * CHUNK);
	elsewhere = map_aligned(2 * CHUNK);
	if (p == MAP_FAILED || elsewhere == MAP_FAILED ||
	    !map_over(elsewhere, 2 * CHUNK, false, -1))
		_exit(2);
	for (int i = 0; i < CHUNKS; i++) {
		chunks[i].p = p + i * CHUNK;
		chunks[i].key = i * 10000;
		chunks[i].large = i & 1;
		if (!renew(&chunks[i]))
			_exit(2);
	}
	while (!has_seen_enough(moved)) {
		for (int i = 0; i < CHUNKS; i++)
			use_chunk(&chunks[i]);
		moved = vm_event("numa_pages_migrated") - before;
	}
	fprintf(stderr, "# %ld bad pages; %ld events, %ld pages moved\n", bad, happened,
		moved);
	if (bad)
		_exit(1);
	_exit(moved > 1000 && happened ? 0 : 3);
}

FIXTURE(moving)
{
	struct setup setup;
};

FIXTURE_VARIANT(moving)
{
	long (*event)(struct chunk *c);
};

FIXTURE_VARIANT_ADD(moving, is_read_by_others) { .event = is_read_by_others };
FIXTURE_VARIANT_ADD(moving, is_moved_by_others) { .event = is_moved_by_others };
FIXTURE_VARIANT_ADD(moving, is_unmapped) { .event = is_unmapped };
FIXTURE_VARIANT_ADD(moving, is_dropped) { .event = is_dropped };
FIXTURE_VARIANT_ADD(moving, is_copied) { .event = is_copied };
FIXTURE_VARIANT_ADD(moving, is_split) { .event = is_split };
FIXTURE_VARIANT_ADD(moving, is_locked) { .event = is_locked };
FIXTURE_VARIANT_ADD(moving, is_elsewhere) { .event = is_elsewhere };
FIXTURE_VARIANT_ADD(moving, is_protected) { .event = is_protected };
FIXTURE_VARIANT_ADD(moving, is_free) { .event = is_free };
FIXTURE_VARIANT_ADD(moving, is_cold) { .event = is_cold };
FIXTURE_VARIANT_ADD(moving, is_paged_out) { .event = is_paged_out };
FIXTURE_VARIANT_ADD(moving, is_collapsed) { .event = is_collapsed };
FIXTURE_VARIANT_ADD(moving, is_bound) { .event = is_bound };
FIXTURE_VARIANT_ADD(moving, is_filled_by_uffd) { .event = is_filled_by_uffd };
FIXTURE_VARIANT_ADD(moving, is_write_protected) { .event = is_write_protected };
FIXTURE_VARIANT_ADD(moving, is_access_protected) { .event = is_access_protected };

FIXTURE_SETUP(moving)
{
	const char *missing = begin(&self->setup);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN_PARENT(moving)
{
	restore(&self->setup);
}

static int disturb_in_a_child(void)
{
	pid_t pid = fork();

	if (!pid)
		use_and_disturb();
	return wait_status(pid);
}

TEST_F_TIMEOUT(moving, keeps_stamps, PATIENCE)
{
	int status;

	event = variant->event;
	have_folios(HUGE);
	status = disturb_in_a_child();
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return, "not in this kernel");
	EXPECT_EQ(status, 0);
	write_text(THP "hugepages-2048kB/enabled", "never");
	if (have_folios(64 * KB))
		EXPECT_EQ(disturb_in_a_child(), 0);
	EXPECT_TRUE(wait_for(nothing_is_isolated()));
	EXPECT_FALSE(bad_pages());
}

TEST_F_TIMEOUT(knuma, users_die_with_memory_queued, PATIENCE)
{
	for (int round = 0; round < 12; round++) {
		struct user *u;

		hold_queues();
		u = start((struct user) {});
		ASSERT_NE(u, NULL);
		ASSERT_TRUE(has_queued(u, 4));
		/* Kill the user before or while daemons migrate the windows. */
		if (round & 1)
			release_queues();
		usleep(rand() % 20000);
		ASSERT_EQ(kill(u->pid, SIGKILL), 0);
		EXPECT_TRUE(WIFSIGNALED(finish(u)));
		EXPECT_TRUE(drain(there));
	}
	EXPECT_TRUE(wait_for(nothing_is_isolated()));
}

/* execve(2) gives the same task a new address space. */
static long become_another_program(struct user *u)
{
	execl("/proc/self/exe", "knuma", "idle", NULL);
	return -1;
}

TEST_F_TIMEOUT(knuma, users_exec_with_memory_queued, PATIENCE)
{
	for (int round = 0; round < 6; round++) {
		struct user *u;

		hold_queues();
		u = start((struct user) {});
		ASSERT_NE(u, NULL);
		ASSERT_TRUE(has_queued(u, 4));
		u->asked = become_another_program;
		if (round & 1)
			release_queues();
		usleep(rand() % 20000);
		EXPECT_TRUE(drain(there));
		EXPECT_EQ(finish(u), 0);
	}
	EXPECT_TRUE(wait_for(nothing_is_isolated()));
}

#define MOUNTED		"/tmp/knuma_test"
#define LEAVERS		4

/* A file system and a shared segment must not stay in use after the process exits. */
static int map_mounted(int segment)
{
	int fd = open(MOUNTED "/file", O_RDWR | O_CREAT, 0600);
	char *p = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd < 0 || ftruncate(fd, MB) || p == MAP_FAILED)
		return -1;
	*p = 1;
	close(fd);
	p = shmat(segment, NULL, 0);
	if (p == (void *)-1)
		return -1;
	*p = 1;
	return 0;
}

static int segment;

static long have_mounted(struct user *u)
{
	return map_mounted(segment);
}

static unsigned long attached(void)
{
	struct shmid_ds ds;

	return shmctl(segment, IPC_STAT, &ds) ? ULONG_MAX : ds.shm_nattch;
}

TEST_F_TIMEOUT(knuma, users_leave_nothing_behind, PATIENCE)
{
	struct user *users[LEAVERS];

	mkdir(MOUNTED, 0700);
	segment = shmget(IPC_PRIVATE, MB, IPC_CREAT | 0600);
	ASSERT_GE(segment, 0);
	for (int round = 0; round < 30; round++) {
		const long waited = vm_event("knuma_queued");

		ASSERT_EQ(mount("none", MOUNTED, "tmpfs", 0, NULL), 0);
		/* Scan in the tasks, or in knuma_scand. */
		write_long(SCAND "enabled", round & 1);
		write_text(SCAND "scan_sleep_millisecs", "0");
		for (int i = 0; i < LEAVERS; i++) {
			users[i] = start((struct user) {
				.size = 8 * MB, .prepare = have_mounted,
			});
			ASSERT_NE(users[i], NULL);
		}
		EXPECT_TRUE(wait_for(vm_event("knuma_queued") > waited));
		usleep(rand() % 50000);
		for (int i = 0; i < LEAVERS; i++)
			kill(users[i]->pid, SIGKILL);
		for (int i = 0; i < LEAVERS; i++)
			EXPECT_TRUE(WIFSIGNALED(finish(users[i])));
		EXPECT_EQ(umount(MOUNTED), 0)
			umount2(MOUNTED, MNT_DETACH);
		EXPECT_EQ(attached(), 0);
	}
	/* Check the same while the daemons are held. */
	ASSERT_EQ(mount("none", MOUNTED, "tmpfs", 0, NULL), 0);
	hold_queues();
	users[0] = start((struct user) { .prepare = have_mounted });
	ASSERT_NE(users[0], NULL);
	EXPECT_TRUE(has_queued(users[0], 4));
	kill(users[0]->pid, SIGKILL);
	EXPECT_TRUE(WIFSIGNALED(finish(users[0])));
	EXPECT_EQ(umount(MOUNTED), 0);
	EXPECT_EQ(attached(), 0);
	shmctl(segment, IPC_RMID, NULL);
	rmdir(MOUNTED);
}

/*
 * Threads on all nodes use separate memory, while other threads change tunables and
 * policies, and take CPUs offline.
 */
#define RACERS		4
#define RACE_BYTES	(8 * MB)

static struct racer {
	pthread_t thread;
	unsigned int seed;
	unsigned long key;
	char *p;
	atomic_ulong rounds;
} racers[RACERS];

static void *race(void *arg)
{
	struct racer *r = arg;
	size_t part = RACE_BYTES / 4;

	do {
		if (!(r->rounds % 16))
			run_on(&places[rand_r(&r->seed) % nr_places]);
		if (!(r->rounds % 128)) {
			map_over(r->p, part, false, -1);
			map_over(r->p + part, RACE_BYTES - part, true, -1);
			stamp(r->p, RACE_BYTES, ++r->key);
		}
		bad += broken(r->p, RACE_BYTES, r->key);
		r->rounds++;
	} while (!stop);
	return NULL;
}

static void turn_knobs(unsigned int *seed)
{
	const struct setting *knob = &knobs[rand_r(seed) % ARRAY_SIZE(knobs)];
	long most = knob->max < 1000 ? knob->max : 1000;

	write_long(knob->path, knob->min + rand_r(seed) % (most - knob->min + 1));
	if (rand_r(seed) % 2)
		write_text(KNUMA "enabled", "1");
	write_text(DEBUG "hold", rand_r(seed) % 4 ? "N" : "Y");
	queued(there);
}

static void change_policies(unsigned int *seed)
{
	char *p = racers[rand_r(seed) % RACERS].p;
	size_t size = (1 + rand_r(seed) % 1024) * psize();
	unsigned long mask[16] = { -1UL };

	switch (rand_r(seed) % 4) {
	case 0:
		bind_to(p, size, &places[rand_r(seed) % nr_places], MPOL_MF_MOVE);
		break;
	case 1:
		bind_to(p, size, &places[rand_r(seed) % nr_places], 0);
		break;
	case 2:
		syscall(SYS_mbind, p, size, MPOL_INTERLEAVE, mask, nr_places + 1, 0);
		break;
	case 3:
		syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, mask, nr_places + 1);
		syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
		break;
	}
	unbind(p, RACE_BYTES);
}

static void plug_cpus(unsigned int *seed)
{
	const int cpu = places[rand_r(seed) % nr_places].cpu;

	set_cpu_online(cpu, false);
	usleep(rand_r(seed) % 20000);
	set_cpu_online(cpu, true);
	usleep(100000);
}

struct disturber {
	void (*once)(unsigned int *seed);
	pthread_t thread;
	unsigned long times;
};

static void *disturb(void *arg)
{
	struct disturber *d = arg;
	unsigned int seed = 1;

	do {
		d->once(&seed);
		d->times++;
		usleep(rand_r(&seed) % 10000);
	} while (!stop);
	return NULL;
}

TEST_F_TIMEOUT(knuma, stamps_stay_in_a_race, PATIENCE)
{
	struct disturber disturbers[] = {
		{ turn_knobs }, { change_policies }, { plug_cpus },
	};
	long seconds = atol(getenv("KNUMA_RACE_SECONDS") ?: "5");

	have_folios(HUGE);
	for (int i = 0; i < RACERS; i++) {
		racers[i].seed = i + 1;
		racers[i].key = i << 16;
		racers[i].p = map_aligned(RACE_BYTES);
		ASSERT_NE(racers[i].p, MAP_FAILED);
		ASSERT_EQ(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++)
		ASSERT_EQ(pthread_create(&disturbers[i].thread, NULL, disturb,
					 &disturbers[i]), 0);
	sleep(seconds);
	stop = true;
	for (int i = 0; i < RACERS; i++) {
		ASSERT_EQ(pthread_join(racers[i].thread, NULL), 0);
		EXPECT_GT((unsigned long)racers[i].rounds, 0UL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++) {
		ASSERT_EQ(pthread_join(disturbers[i].thread, NULL), 0);
		EXPECT_GT(disturbers[i].times, 0);
	}
	EXPECT_EQ((long)bad, 0);
	EXPECT_TRUE(wait_for(nothing_is_isolated()));
	EXPECT_FALSE(bad_pages());
}

int main(int argc, char **argv)
{
	/* The program that become_another_program() executes. */
	if (argc == 2 && !strcmp(argv[1], "idle")) {
		usleep(100000);
		return 0;
	}

	return test_harness_run(argc, argv);
}
