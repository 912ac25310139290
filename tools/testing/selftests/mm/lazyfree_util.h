/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers of the tests of MADV_FREE and MADV_SPLITTABLE. Each test has a region
 * in folios of one size, in a memory cgroup that it can reclaim with either LRU.
 * There are events that can happen to a range, and threads for races.
 *
 * Marked pages do not appear in pagemap, so resident_pages() uses mincore(2).
 */
#ifndef LAZYFREE_UTIL_H
#define LAZYFREE_UTIL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include "harness_util.h"
#include "hugepage_settings.h"
#include <asm-generic/mman.h> /* Force the import of the tools version. */

#ifndef MADV_FREE_UNDO
#define MADV_FREE_UNDO		26
#define MADV_SPLITTABLE		27
#define MADV_UNSPLITTABLE	28
#endif

#define LRU_GEN		"/sys/kernel/mm/lru_gen/enabled"
#define KNOBS		"/sys/kernel/mm/lazyfree/"
#define DEMOTION	"/sys/kernel/mm/numa/demotion_enabled"
#define NUMA_DEBUG	"/sys/kernel/debug/sched/numa_balancing/"
#define OLD_FOR_EVER	"3600000"	/* the largest min_age_ms */
#define REGION		(8 * MB)
#define PATIENCE	300	/* seconds, for debug kernels in emulators */
#define ROUNDS		30	/* of reclaim, until nothing is left */

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	PATIENCE

/* Returns 0 or a negative errno value. */
static inline int advise(char *p, size_t size, int advice)
{
	return madvise(p, size, advice) ? -errno : 0;
}

static inline int undo(char *p, size_t size)
{
	return advise(p, size, MADV_FREE_UNDO);
}

static inline int mark(char *p, size_t size)
{
	return advise(p, size, MADV_SPLITTABLE);
}

static inline int unmark(char *p, size_t size)
{
	return advise(p, size, MADV_UNSPLITTABLE);
}

/*
 * Frees with MADV_FREE. The second call drains the batch of this CPU in which
 * pages wait to become lazyfree.
 */
static inline int lazyfree(char *p, size_t size)
{
	static char *other;

	if (!other)
		other = map_anon(psize());
	return advise(p, size, MADV_FREE) ?: advise(other, psize(), MADV_FREE);
}

/* The stamp of the first word of a page */
static inline unsigned long stamp_of(size_t page)
{
	return 0x5afe000000000000UL + page * psize();
}

/* Stamps a range whose first page is page 0. */
static inline void stamp_pages(char *p, size_t size)
{
	stamp_range(p, size, stamp_of(0));
}

/* Counts pages in RAM, marked or not. */
static inline long resident_pages(char *p, size_t size)
{
	unsigned char vec[512];
	long nr = 0;

	for (size_t at = 0; at < size; at += sizeof(vec) * psize()) {
		size_t len = size - at < sizeof(vec) * psize() ?
			     size - at : sizeof(vec) * psize();

		if (mincore(p + at, len, vec))
			return -1;
		for (size_t i = 0; i < len / psize(); i++)
			nr += vec[i] & 1;
	}

	return nr;
}

/* Counts pages that PAGEMAP_SCAN reports as present or swapped. */
static inline long scan_pages(int pagemap, char *p, size_t size)
{
	struct page_region regions[64];
	struct pm_scan_arg arg = {
		.size = sizeof(arg), .start = (uintptr_t)p, .end = (uintptr_t)p + size,
		.vec = (uintptr_t)regions, .vec_len = ARRAY_SIZE(regions),
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};
	long nr = 0;
	int n;

	for (; arg.start < arg.end; arg.start = arg.walk_end) {
		n = ioctl(pagemap, PAGEMAP_SCAN, &arg);
		if (n < 0)
			return -1;
		for (int i = 0; i < n; i++)
			nr += (regions[i].end - regions[i].start) / psize();
	}

	return nr;
}

/* Reclaims all that can be reclaimed. EAGAIN: the group had less. */
static inline void reclaim_group(const char *group)
{
	for (int round = 0; round < 3; round++)
		group_write(group, "memory.reclaim", "64M");
}

/* Reclaims until the range is empty. Returns how many pages are left. */
static inline long drop(const char *group, char *p, size_t size)
{
	long left = resident_pages(p, size);

	for (int i = 0; i < ROUNDS && left; i++) {
		reclaim_group(group);
		left = resident_pages(p, size);
	}

	return left;
}

/* Counts pages that are not in @state, in a range whose first page is @first. */
static inline long pages_not(enum page_state state, char *p, size_t size,
			     size_t first)
{
	return size / psize() - count_pages(p, size, stamp_of(first), state);
}

/* Counts pages that neither have their stamps nor are zero. */
static inline long pages_broken(char *p, size_t size, size_t first)
{
	return count_pages(p, size, stamp_of(first), PAGE_OTHER);
}

/* A test's region: @p, of REGION bytes. The rest is put back at the end. */
struct lazyfree_test {
	char *p;
	int advice;
	int pagemap;
	long errors;		/* that events have found */
	char group[64];
	char old[16][SETTING_LEN];
};

/* No range is too young, no page is demoted, and khugepaged and KSM do not run. */
static const struct setting lazyfree_settings[] = {
	{ KNOBS "min_age_ms", "0" },
	{ KNOBS "max_ranges_per_mm", "4096" },
	{ KNOBS "policy", "fair" },
	{ LRU_GEN },
	{ DEMOTION, "0" },
	{ "/sys/kernel/mm/ksm/run", "0" },
	{ "/sys/kernel/mm/ksm/smart_scan", "0" }, /* each scan looks at each page */
	{ "/proc/sys/vm/watermark_boost_factor", "0" },
	{ "/proc/sys/vm/min_slab_ratio", "0" },	/* for reclaim of a node */
	{ "/proc/sys/kernel/numa_balancing" },
	{ NUMA_DEBUG "scan_delay_ms" },
	{ NUMA_DEBUG "scan_period_min_ms" },
	{ NUMA_DEBUG "scan_period_max_ms" },
};

static inline void lazyfree_end(struct lazyfree_test *t)
{
	thp_restore_settings();
	settings_restore(lazyfree_settings, ARRAY_SIZE(lazyfree_settings), t->old);
	if (t->p)
		munmap(t->p, REGION);
	write_text(CGROUP "cgroup.procs", "0");
	group_remove(t->group);
}

/* Maps the region anew, in folios of the size of the test, and stamps it. */
static inline void lazyfree_renew(struct lazyfree_test *t)
{
	t->errors += t->p != mmap(t->p, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE |
				  MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	madvise(t->p, REGION, t->advice);
	stamp_pages(t->p, REGION);
}

/* Returns the missing feature, or NULL. */
static inline const char *lazyfree_prepare(struct lazyfree_test *t, size_t folio,
					   const char *lru_gen)
{
	int order = folio ? __builtin_ctzl(folio / psize()) : 0;
	struct thp_settings settings;

	if (order && (!thp_available() ||
		      !(thp_supported_orders() & (1UL << order))))
		return "no folios of this size";
	settings_save(lazyfree_settings, ARRAY_SIZE(lazyfree_settings), t->old);
	if (access(LRU_GEN, F_OK) ? *lru_gen == 'y' : write_text(LRU_GEN, lru_gen))
		return "no CONFIG_LRU_GEN";
	settings_apply(lazyfree_settings, ARRAY_SIZE(lazyfree_settings));
	/* This process, and all memory that it allocates from now on */
	if (group_create(t->group, "+memory") ||
	    group_write(t->group, "cgroup.procs", "0"))
		return "needs root and cgroup v2 with memory";
	/* Lazyfree pages wait in a batch of the CPU that ran MADV_FREE. */
	if (run_on_cpu(sched_getcpu()))
		return "cannot stay on a CPU";

	thp_save_settings();
	thp_read_settings(&settings);
	settings.thp_enabled = THP_MADVISE;
	for (int i = 0; i < NR_ORDERS; i++)
		settings.hugepages[i].enabled =
			order && i == order ? THP_MADVISE : THP_NEVER;
	thp_push_settings(&settings);

	t->pagemap = open("/proc/self/pagemap", O_RDONLY);
	t->p = map_aligned(REGION);
	if (t->pagemap < 0 || t->p == MAP_FAILED)
		return "no memory or no /proc/self/pagemap";
	t->advice = order ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
	lazyfree_renew(t);

	return NULL;
}

/**
 * lazyfree_begin() - Prepare a region of stamped memory, or skip.
 * @t: the test
 * @folio: bytes of each folio, 0 for single pages
 * @lru_gen: "y" for MGLRU, "n" for the classic LRU
 * @needed: sysfs file that the test needs, or NULL
 *
 * If the test skips, all settings are as before.
 */
static inline void lazyfree_begin(struct __test_metadata *_metadata,
				  struct lazyfree_test *t, size_t folio,
				  const char *lru_gen, const char *needed)
{
	const char *missing;

	if (geteuid())
		SKIP(return, "not root");
	if (needed && access(needed, F_OK))
		SKIP(return, "no %s: CONFIG_MADV_SPLITTABLE", needed);
	snprintf(t->group, sizeof(t->group), CGROUP "lazyfree_test_%d", getpid());
	missing = lazyfree_prepare(t, folio, lru_gen);
	if (missing) {
		lazyfree_end(t);
		SKIP(return, "%s", missing);
	}
}

/* Allows folios of 2 MiB where the caller has asked for huge pages. */
static inline void allow_huge_pages(void)
{
	struct thp_settings settings;

	thp_read_settings(&settings);
	settings.thp_enabled = THP_MADVISE;
	settings.hugepages[__builtin_ctzl(HPAGE_SIZE / psize())].enabled = THP_MADVISE;
	settings.khugepaged.defrag = 1;
	settings.khugepaged.max_ptes_none = HPAGE_SIZE / psize() - 1;
	settings.khugepaged.scan_sleep_millisecs = 1;
	settings.khugepaged.alloc_sleep_millisecs = 1;
	settings.khugepaged.pages_to_scan = REGION / psize();
	thp_push_settings(&settings);
}

/* Returns whether exactly @size bytes of the mapping at @p are huge pages. */
static inline bool has_huge(char *p, size_t size)
{
	return check_huge_anon(p, REGION, size / HPAGE_SIZE, HPAGE_SIZE);
}

/*
 * Reads @size bytes of a block device, and so fills the page cache of @group.
 * Returns the bytes that the group has in the page cache.
 */
static inline long read_cache(const char *group, size_t size)
{
	FILE *f = fopen("/proc/partitions", "r");
	char line[128], name[64], path[80], buf[4096];
	unsigned long blocks;
	int fd = -1;

	while (f && fd < 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, " %*u %*u %lu %63s", &blocks, name) == 2 &&
		    blocks * KB >= size) {
			snprintf(path, sizeof(path), "/dev/%s", name);
			fd = open(path, O_RDONLY);
		}
	if (f)
		fclose(f);
	if (fd < 0)
		return 0;
	posix_fadvise(fd, 0, size, POSIX_FADV_DONTNEED);
	for (size_t at = 0; at < size; at += sizeof(buf))
		if (pread(fd, buf, sizeof(buf), at) <= 0)
			break;
	close(fd);

	return group_read(group, "memory.stat", "file");
}

/*
 * Forks a child that waits until @fd is closed. The child exits with 0 if it
 * reads all stamps of the region then.
 */
static inline pid_t fork_reader(struct lazyfree_test *t, int *fd)
{
	int begin[2];
	pid_t pid;
	char c;

	if (pipe(begin))
		return -1;
	pid = fork();
	if (!pid) {
		close(begin[1]);
		_exit(read(begin[0], &c, 1) != 0 ||
		      pages_not(PAGE_OLD, t->p, REGION, 0));
	}
	close(begin[0]);
	*fd = begin[1];

	return pid;
}

/* Events */

/**
 * struct lazyfree_event - an event between the free or mark and its undo
 * @name: for messages
 * @run: runs the event for a range of the region; returns the missing feature,
 *       or NULL
 * @kept: the event leaves all contents, so MADV_FREE_UNDO has to return 0
 * @unmarks: the event unmarks a part, which keeps its contents
 */
struct lazyfree_event {
	const char *name;
	const char *(*run)(struct lazyfree_test *t, char *p, size_t size);
	bool kept;
	bool unmarks;
};

static inline const char *event_none(struct lazyfree_test *t, char *p, size_t size)
{
	return NULL;
}

static inline const char *event_read(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += pages_broken(p, size, (p - t->p) / psize());
	return NULL;
}

static inline const char *event_store(struct lazyfree_test *t, char *p, size_t size)
{
	stamp_range(p, size / 2, stamp_of((p - t->p) / psize()));
	return NULL;
}

static inline const char *event_reclaim(struct lazyfree_test *t, char *p, size_t size)
{
	group_write(t->group, "memory.reclaim", "1M");
	return NULL;
}

static inline const char *event_dontneed(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += !!madvise(p + size / 2, psize(), MADV_DONTNEED);
	return NULL;
}

static inline const char *event_cold(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += !!madvise(p, size, MADV_COLD);
	return NULL;
}

static inline const char *event_populate(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += !!madvise(p, size, MADV_POPULATE_WRITE);
	return NULL;
}

static inline const char *event_pageout(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += !!madvise(p, size, MADV_PAGEOUT);
	return NULL;
}

static inline const char *event_free(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += !!madvise(p, size / 2, MADV_FREE);
	return NULL;
}

/* MADV_COLLAPSE may fail, but must not change contents. */
static inline const char *event_collapse(struct lazyfree_test *t, char *p, size_t size)
{
	madvise(t->p, REGION, MADV_COLLAPSE);
	return NULL;
}

static inline const char *event_compact(struct lazyfree_test *t, char *p, size_t size)
{
	return write_text("/proc/sys/vm/compact_memory", "1") ?
	       "no CONFIG_COMPACTION" : NULL;
}

static inline const char *event_clear_refs(struct lazyfree_test *t, char *p, size_t size)
{
	return write_text("/proc/self/clear_refs", "4") ? "no clear_refs" : NULL;
}

static inline const char *event_split_vma(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += !!madvise(p + psize(), size / 2, MADV_DONTFORK);
	t->errors += !!madvise(p + psize(), size / 2, MADV_DOFORK);
	return NULL;
}

static inline const char *event_mprotect(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += !!mprotect(p + psize(), size / 2, PROT_NONE);
	t->errors += !!mprotect(p, size, PROT_READ | PROT_WRITE);
	return NULL;
}

static inline const char *event_read_only(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += !!mprotect(p + psize(), size / 2, PROT_READ);
	t->errors += !!mprotect(p, size, PROT_READ | PROT_WRITE);
	return NULL;
}

static inline const char *event_mlock(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += !!mlock(p, size / 2);
	t->errors += !!munlock(p, size / 2);
	return NULL;
}

static inline const char *event_guard(struct lazyfree_test *t, char *p, size_t size)
{
	if (madvise(p, 4 * psize(), MADV_GUARD_INSTALL))
		return "no guard regions";
	t->errors += !!madvise(p, 4 * psize(), MADV_GUARD_REMOVE);
	return NULL;
}

static inline const char *event_map(struct lazyfree_test *t, char *p, size_t size)
{
	t->errors += p != mmap(p, size, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			       MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	return NULL;
}

static inline const char *event_mremap(struct lazyfree_test *t, char *p, size_t size)
{
	char *to = mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
			  map_anon(size));

	if (to == MAP_FAILED)
		return "no mremap()";
	t->errors += pages_broken(to, size, (p - t->p) / psize());
	t->errors += p != mremap(to, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, p);
	return NULL;
}

static inline const char *event_dontunmap(struct lazyfree_test *t, char *p, size_t size)
{
	char *to = mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	if (to == MAP_FAILED)
		return "no MREMAP_DONTUNMAP";
	t->errors += !!munmap(to, size);
	return NULL;
}

/* The child must not read marked contents as if they were its own. */
static inline const char *event_fork(struct lazyfree_test *t, char *p, size_t size)
{
	const size_t first = (p - t->p) / psize();
	pid_t pid = fork();

	if (!pid) {
		long broken = pages_broken(p, size, first);

		_exit(broken || (!undo(p, size) &&
				 pages_not(PAGE_OLD, p, size, first)));
	}
	t->errors += pid < 0 || wait_status(pid);
	return NULL;
}

static inline const char *event_uffd(struct lazyfree_test *t, char *p, size_t size)
{
	int uffd = uffd_create(0, 0);

	if (uffd < 0)
		return "no userfaultfd";
	t->errors += !!uffd_register(uffd, p, size / 2, true, false, false);
	t->errors += !!uffd_unregister(uffd, p, size / 2);
	close(uffd);
	return NULL;
}

static inline const char *event_uffd_wp(struct lazyfree_test *t, char *p, size_t size)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)p, size / 2 },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int uffd = uffd_create(0, UFFD_FEATURE_PAGEFAULT_FLAG_WP);

	if (uffd < 0 || uffd_register(uffd, p, size / 2, false, true, false))
		return "no write protection by userfaultfd";
	t->errors += !!ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
	close(uffd);
	return NULL;
}

/* Moves pages by UFFDIO_MOVE, which the kernel does without a zap. */
static inline void uffd_move(int uffd, char *to, char *from, size_t size)
{
	struct uffdio_move move = {
		.dst = (uintptr_t)to, .src = (uintptr_t)from, .len = size,
		.mode = UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES,
	};

	for (int i = 0; i < ROUNDS && ioctl(uffd, UFFDIO_MOVE, &move); i++) {
		if (errno != EAGAIN || move.move <= 0)
			break;
		move.dst += move.move;
		move.src += move.move;
		move.len -= move.move;
	}
}

static inline const char *event_uffd_move(struct lazyfree_test *t, char *p, size_t size)
{
	char *to = map_anon(size);
	int uffd = uffd_create(0, UFFD_FEATURE_MOVE);

	if (uffd < 0 || uffd_register(uffd, to, size, true, false, false))
		return "no UFFDIO_MOVE";
	uffd_move(uffd, to, p, size / 2);
	close(uffd);
	t->errors += pages_broken(to, size / 2, (p - t->p) / psize());
	/* No page that has been moved goes later. */
	stamp_range(to, size / 2, stamp_of(0));
	reclaim_group(t->group);
	t->errors += pages_not(PAGE_OLD, to, size / 2, 0);
	munmap(to, size);
	return NULL;
}

static inline const char *event_ksm(struct lazyfree_test *t, char *p, size_t size)
{
	if (madvise(p, size, MADV_MERGEABLE) || ksm_start() < 0)
		return "no KSM";
	ksm_stop();
	t->errors += !!madvise(p, size, MADV_UNMERGEABLE);
	return NULL;
}

static const struct lazyfree_event lazyfree_events[] = {
	{ "nothing", event_none, true },
	{ "loads", event_read, true },
	{ "stores", event_store, true },
	{ "MADV_COLD", event_cold, true },
	{ "MADV_POPULATE_WRITE", event_populate, true },
	{ "a split of the VMA", event_split_vma, true },
	{ "clear_refs", event_clear_refs, true },
	{ "fork", event_fork, true },
	{ "reclaim", event_reclaim },
	{ "MADV_DONTNEED", event_dontneed },
	{ "MADV_PAGEOUT", event_pageout },
	{ "MADV_FREE", event_free },
	{ "MADV_COLLAPSE", event_collapse },
	{ "compaction", event_compact },
	{ "mprotect", event_mprotect },
	{ "mprotect to read-only", event_read_only, false, true },
	{ "mlock", event_mlock },
	{ "guard regions", event_guard },
	{ "MAP_FIXED", event_map },
	{ "mremap", event_mremap },
	{ "MREMAP_DONTUNMAP", event_dontunmap },
	{ "userfaultfd", event_uffd },
	{ "write protection by userfaultfd", event_uffd_wp },
	{ "UFFDIO_MOVE", event_uffd_move },
	{ "KSM", event_ksm },
};

/**
 * check_undo() - Undo, and expect that the result tells the truth.
 * @t: the test, whose region had its stamps
 * @p: part of the region
 * @size: bytes
 * @kept: no page can have been lost
 *
 * Return: the result of MADV_FREE_UNDO, 0 or -ENODATA. The stamps are there if
 * it is 0. In both cases reclaim does not change the pages any more.
 */
static inline int check_undo(struct __test_metadata *_metadata,
			     struct lazyfree_test *t, char *p, size_t size,
			     bool kept)
{
	const unsigned long key = stamp_of((p - t->p) / psize());
	const int ret = undo(p, size);
	const long old = count_pages(p, size, key, PAGE_OLD);
	const long zero = count_pages(p, size, key, PAGE_ZERO);

	EXPECT_EQ((long)(size / psize()), old + zero);
	EXPECT_EQ(ret && !kept ? -ENODATA : 0, ret);
	EXPECT_TRUE(ret || !zero) TH_LOG("0, but %ld pages are lost", zero);
	reclaim_group(t->group);
	EXPECT_EQ(old, count_pages(p, size, key, PAGE_OLD));
	EXPECT_EQ(zero, count_pages(p, size, key, PAGE_ZERO));

	return ret;
}

/* Expects that no page of the range is marked any more: new stamps stay. */
static inline void check_not_marked(struct __test_metadata *_metadata,
				    struct lazyfree_test *t, char *p, size_t size)
{
	const size_t first = (p - t->p) / psize();

	stamp_range(p, size, stamp_of(first));
	EXPECT_EQ(0, unmark(p, size));
	reclaim_group(t->group);
	EXPECT_EQ(0, pages_not(PAGE_OLD, p, size, first));
}

/* Unmark, and expect that the range, which was marked, reads zero. */
static inline void check_unmark(struct __test_metadata *_metadata,
				struct lazyfree_test *t, char *p, size_t size)
{
	EXPECT_EQ(0, unmark(p, size));
	EXPECT_EQ(0, pages_not(PAGE_ZERO, p, size, 0));
	check_not_marked(_metadata, t, p, size);
}

/* Races */

struct user;

/* State that the threads of a race share. They choose their steps at random. */
struct race {
	char *p;
	const char *group;
	void (*steps[8])(struct user *u, size_t first, size_t n);
	atomic_bool stop;
	atomic_ulong errors;
};

static inline void *do_nothing(void *arg)
{
	while (true)
		pause();
	return NULL;
}

static inline void *reclaim_all_the_time(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop))
		group_write(race->group, "memory.reclaim", "2M");
	return NULL;
}

static inline void *fork_all_the_time(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop)) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (pid > 0)
			wait_status(pid);
		usleep(3000);
	}
	return NULL;
}

static inline void *collapse_all_the_time(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->stop)) {
		madvise(race->p, REGION, MADV_COLLAPSE);
		usleep(3000);
	}
	return NULL;
}

/* Knowledge that the owner of a page has of it */
enum knowledge {
	STAMPED,	/* in use: the page has its stamps */
	ZEROED,		/* in use: the page reads zero */
	LAZY,		/* freed or marked, had its stamps: these or zero */
	LAZY_ZEROED,	/* freed or marked while it was zero */
	LOST,		/* the call said that it may be zero, or it has its stamps */
};

/* A thread with its own part of the pages */
struct user {
	struct race *race;
	size_t from;
	size_t nr;
	unsigned int seed;
	int rounds;
	char *knows;
};

static inline char *user_page(struct user *u, size_t i)
{
	return u->race->p + (u->from + i) * psize();
}

/* Expects that page @i is in the state that its owner knows. */
static inline void user_check(struct user *u, const char *when, size_t i)
{
	const enum page_state state = page_state(user_page(u, i),
						 stamp_of(u->from + i));
	const int known = u->knows[i];

	if (state == PAGE_ZERO ? known != STAMPED :
	    state == PAGE_OLD && known != ZEROED && known != LAZY_ZEROED)
		return;
	if (atomic_fetch_add(&u->race->errors, 1) < 3)
		fprintf(TH_LOG_STREAM, "# %s: page %zu is %s, known was %d\n",
			when, u->from + i, state == PAGE_OLD ? "old" :
			state == PAGE_ZERO ? "zero" : "neither", known);
}

/* Frees or marks pages. ENODATA says that the kernel has zapped some. */
static inline void user_lazy(struct user *u, size_t first, size_t n, int advice)
{
	const int ret = advise(user_page(u, first), n * psize(), advice);

	for (size_t i = first; i < first + n; i++) {
		if (u->knows[i] == ZEROED)
			u->knows[i] = LAZY_ZEROED;
		else if (ret == -ENODATA && u->knows[i] != LAZY_ZEROED)
			u->knows[i] = LOST;
		else if (u->knows[i] == STAMPED)
			u->knows[i] = LAZY;
	}
}

/*
 * Undoes pages. They have their stamps if the call returned 0. In each case the
 * state that the thread reads now is the state that the page keeps: a stale TLB
 * entry must not show old contents of a page that reclaim has freed.
 */
static inline void user_undo(struct user *u, size_t first, size_t n)
{
	const int ret = undo(user_page(u, first), n * psize());

	for (size_t i = first; i < first + n; i++) {
		if (!ret && u->knows[i] == LAZY)
			u->knows[i] = STAMPED;
		user_check(u, ret ? "undone, with ENODATA" : "undone", i);
		u->knows[i] = page_state(user_page(u, i), stamp_of(u->from + i)) ==
			      PAGE_ZERO ? ZEROED : STAMPED;
	}
}

static inline void user_store(struct user *u, size_t first, size_t n)
{
	for (size_t i = first; i < first + n; i++) {
		stamp_range(user_page(u, i), psize(), stamp_of(u->from + i));
		u->knows[i] = STAMPED;
	}
}

static inline void *user_thread(void *arg)
{
	struct user *u = arg;

	while (u->rounds--) {
		size_t first = rand_r(&u->seed) % u->nr;
		size_t n = 1 + rand_r(&u->seed) % (u->nr - first);

		u->race->steps[rand_r(&u->seed) % 8](u, first, n);
		for (size_t i = 0; i < u->nr; i++)
			user_check(u, "later", i);
	}
	return NULL;
}

/**
 * run_race() - Run three threads in parts of the first @size bytes.
 * @race: state that the threads share
 * @size: bytes
 * @rounds: of each thread
 * @disturb: threads that run meanwhile, with @race
 * @nr: their number, at most 4
 *
 * Return: 0 or an errno value.
 */
static inline int run_race(struct race *race, size_t size, int rounds,
			   void *(*const disturb[])(void *), int nr)
{
	const size_t part = size / psize() / 3;
	pthread_t users[3], others[4];
	static struct user user[3];
	cpu_set_t all;
	int err;

	memset(&all, 0xff, sizeof(all));
	if (sched_setaffinity(0, sizeof(all), &all))
		return errno;
	for (int i = 0; i < nr; i++) {
		err = pthread_create(&others[i], NULL, disturb[i], race);
		if (err)
			return err;
	}
	for (int i = 0; i < 3; i++) {
		user[i] = (struct user){
			.race = race, .from = i * part, .nr = part,
			.seed = i, .rounds = rounds, .knows = calloc(part, 1),
		};
		err = pthread_create(&users[i], NULL, user_thread, &user[i]);
		if (err)
			return err;
	}
	for (int i = 0; i < 3; i++) {
		pthread_join(users[i], NULL);
		free(user[i].knows);
	}
	atomic_store(&race->stop, true);
	for (int i = 0; i < nr; i++)
		pthread_join(others[i], NULL);

	return 0;
}

/*
 * Fixtures of all tests that use the region. A program defines NEEDS, the sysfs
 * file without which it skips, or NULL.
 */
FIXTURE(lazyfree)
{
	struct lazyfree_test t;
	char *p;
	const char *group;
};

/* Sizes of folios, and either LRU */
FIXTURE_VARIANT(lazyfree)
{
	size_t folio;		/* bytes */
	const char *lru_gen;	/* of LRU_GEN */
};

FIXTURE_VARIANT_ADD(lazyfree, small) { 0, "n" };
FIXTURE_VARIANT_ADD(lazyfree, mthp_lru_gen) { 64 << 10, "y" };
FIXTURE_VARIANT_ADD(lazyfree, thp) { 2 << 20, "n" };
FIXTURE_VARIANT_ADD(lazyfree, thp_lru_gen) { 2 << 20, "y" };

FIXTURE_SETUP(lazyfree)
{
	lazyfree_begin(_metadata, &self->t, variant->folio, variant->lru_gen, NEEDS);
	self->p = self->t.p;
	self->group = self->t.group;
}

FIXTURE_TEARDOWN(lazyfree)
{
	lazyfree_end(&self->t);
}

/* Single pages, and the classic LRU */
FIXTURE(single)
{
	struct lazyfree_test t;
	char *p;
	const char *group;
};

FIXTURE_SETUP(single)
{
	lazyfree_begin(_metadata, &self->t, 0, "n", NEEDS);
	self->p = self->t.p;
	self->group = self->t.group;
}

FIXTURE_TEARDOWN(single)
{
	lazyfree_end(&self->t);
}

#endif
