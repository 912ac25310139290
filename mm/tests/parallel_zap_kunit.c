// SPDX-License-Identifier: GPL-2.0
/*
 * What workers of a shared zap claim, and when another one is worth it: pure
 * functions over ranges and rates.
 */
#include <kunit/test.h>
#include <linux/slab.h>
#include <linux/sizes.h>

#include "../parallel_zap_areas.h"
#include "../parallel_zap_pace.h"

#define BASE	(256 * (unsigned long)PUD_SIZE)	/* somewhere */

static struct zap_areas *new_areas(struct kunit *test)
{
	struct zap_areas *areas = kunit_kzalloc(test, sizeof(*areas), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, areas);
	return areas;
}

/* Not dereferenced */
static struct vm_area_struct *vma(unsigned long i)
{
	return (void *)(i + 1);
}

/*
 * Claims all there is by as many workers, in turn, and checks that the chunks
 * are what was added: in total, in order within an area, and ending where page
 * tables do.
 */
static unsigned long claim_all(struct kunit *test, struct zap_areas *areas,
			       unsigned long max, unsigned int nr_workers)
{
	int last[4] = { -1, -1, -1, -1 };
	unsigned long bytes = 0;
	unsigned int worker;
	int i;

	for (worker = 0; ; worker = (worker + 1) % nr_workers) {
		unsigned long start, end, stop;

		i = zap_areas_pick(areas, last[worker], NUMA_NO_NODE);
		if (i < 0)
			break;
		last[worker] = i;
		start = areas->area[i].next;
		stop = areas->area[i].end;
		end = zap_areas_claim(areas, i, max, nr_workers);

		KUNIT_EXPECT_GT(test, end, start);
		KUNIT_EXPECT_LE(test, end, stop);
		KUNIT_EXPECT_EQ(test, areas->area[i].next, end);
		KUNIT_EXPECT_TRUE(test,
				  end == stop || IS_ALIGNED(end, PMD_SIZE));
		KUNIT_EXPECT_LE(test, end - start, max);
		bytes += end - start;
	}
	KUNIT_EXPECT_EQ(test, areas->left, 0);
	return bytes;
}

static void test_all_is_claimed_once(struct kunit *test)
{
	static const unsigned long sizes[] = {
		PAGE_SIZE, PMD_SIZE, PMD_SIZE + PAGE_SIZE, SZ_64M,
		SZ_1G - PAGE_SIZE, 5 * (unsigned long)SZ_1G + PMD_SIZE,
	};
	static const unsigned long offsets[] = {
		0, PAGE_SIZE, PMD_SIZE - PAGE_SIZE, PMD_SIZE, PUD_SIZE - PMD_SIZE,
	};
	struct zap_areas *areas = new_areas(test);
	unsigned int s, o, workers;

	for (s = 0; s < ARRAY_SIZE(sizes); s++)
		for (o = 0; o < ARRAY_SIZE(offsets); o++)
			for (workers = 1; workers <= 4; workers++) {
				unsigned long start = BASE + offsets[o];
				unsigned long end = start + sizes[s];

				KUNIT_EXPECT_EQ(test, end,
						zap_areas_add(areas, vma(0),
							      start, end, SZ_64M));
				KUNIT_EXPECT_EQ(test, areas->left, sizes[s]);
				KUNIT_EXPECT_EQ(test, sizes[s],
						claim_all(test, areas, SZ_64M,
							  workers));
			}
}

static void test_areas_are_disjoint(struct kunit *test)
{
	struct zap_areas *areas = new_areas(test);
	unsigned long at = BASE + PAGE_SIZE, end = BASE + 3 * PUD_SIZE + PAGE_SIZE;
	unsigned int nr = 0;
	int i;

	KUNIT_EXPECT_EQ(test, end, zap_areas_add(areas, vma(7), at, end, SZ_64M));
	for (i = 0; i < NR_ZAP_AREAS && !zap_area_empty(&areas->area[i]); i++) {
		KUNIT_EXPECT_PTR_EQ(test, areas->area[i].vma, vma(7));
		KUNIT_EXPECT_EQ(test, areas->area[i].next, at);
		at = areas->area[i].end;
		KUNIT_EXPECT_TRUE(test, at == end || IS_ALIGNED(at, PMD_SIZE));
		nr++;
	}
	KUNIT_EXPECT_EQ(test, at, end);
	/* Enough that workers need not meet. */
	KUNIT_EXPECT_GE(test, nr, 3);
}

static void test_no_room(struct kunit *test)
{
	struct zap_areas *areas = new_areas(test);
	unsigned long i, end = BASE + PMD_SIZE;

	for (i = 0; i < NR_ZAP_AREAS; i++)
		KUNIT_EXPECT_EQ(test, end, zap_areas_add(areas, vma(i), BASE,
							 end, SZ_64M));
	KUNIT_EXPECT_EQ(test, BASE, zap_areas_add(areas, vma(i), BASE, end,
						  SZ_64M));
	KUNIT_EXPECT_EQ(test, areas->left, NR_ZAP_AREAS * PMD_SIZE);

	/* The room of what was claimed can be used again. */
	zap_areas_claim(areas, 3, SZ_64M, 1);
	while (!zap_area_empty(&areas->area[3]))
		zap_areas_claim(areas, 3, SZ_64M, 1);
	KUNIT_EXPECT_EQ(test, end, zap_areas_add(areas, vma(99), BASE, end,
						 SZ_64M));
	KUNIT_EXPECT_PTR_EQ(test, areas->area[3].vma, vma(99));
}

static void test_pick(struct kunit *test)
{
	struct zap_areas *areas = new_areas(test);

	KUNIT_EXPECT_EQ(test, -1, zap_areas_pick(areas, -1, NUMA_NO_NODE));

	zap_areas_add(areas, vma(0), BASE, BASE + SZ_128M, SZ_1G);
	zap_areas_add(areas, vma(1), BASE, BASE + SZ_256M, SZ_1G);
	zap_areas_add(areas, vma(2), BASE, BASE + SZ_64M, SZ_1G);
	areas->area[0].nid = 0;
	areas->area[1].nid = 1;
	areas->area[2].nid = 0;

	/* Most of all; of its node; for each worker; where it was */
	KUNIT_EXPECT_EQ(test, 1, zap_areas_pick(areas, -1, NUMA_NO_NODE));
	KUNIT_EXPECT_EQ(test, 0, zap_areas_pick(areas, -1, 0));
	areas->area[0].nr_workers = 3;
	KUNIT_EXPECT_EQ(test, 2, zap_areas_pick(areas, -1, 0));
	KUNIT_EXPECT_EQ(test, 0, zap_areas_pick(areas, 0, 0));
	KUNIT_EXPECT_EQ(test, -1, zap_areas_pick(areas, -1, 2));
	/* Who knows */
	areas->area[2].nid = NUMA_NO_NODE;
	KUNIT_EXPECT_EQ(test, 2, zap_areas_pick(areas, -1, 2));
}

static void test_chunks_get_smaller(struct kunit *test)
{
	struct zap_areas *areas = new_areas(test);
	unsigned long last = ULONG_MAX, end, start;

	zap_areas_add(areas, vma(0), BASE, BASE + SZ_512M, SZ_1G);
	while (areas->left) {
		start = areas->area[0].next;
		end = zap_areas_claim(areas, 0, SZ_64M, 2);
		KUNIT_EXPECT_LE(test, end - start, last);
		last = end - start;
	}
	KUNIT_EXPECT_EQ(test, last, PMD_SIZE);
}

static void test_huge_chunks(struct kunit *test)
{
	struct zap_areas *areas = new_areas(test);
	unsigned long start = BASE + PUD_SIZE / 2;

	zap_areas_add(areas, vma(0), start, BASE + 4 * PUD_SIZE, 4 * PUD_SIZE);
	areas->area[0].huge_end = BASE + PUD_SIZE;
	KUNIT_EXPECT_EQ(test, BASE + PUD_SIZE,
			zap_areas_claim(areas, 0, SZ_64M, 8));
	/* Not beyond what is known to be huge, nor less than without */
	areas->area[0].huge_end = BASE + PUD_SIZE + PMD_SIZE;
	KUNIT_EXPECT_EQ(test, BASE + PUD_SIZE + SZ_64M,
			zap_areas_claim(areas, 0, SZ_64M, 8));
}

#define SECOND	((u64)NSEC_PER_SEC)
#define MIN_NS	(100 * (u64)NSEC_PER_MSEC)

/* A machine where @helpers and the owner unmap @rate pages a second. */
static bool after(struct zap_pace *pace, u64 ns, unsigned long rate,
		  unsigned long left, unsigned int helpers)
{
	unsigned long done = div_u64(ns * rate, NSEC_PER_SEC);

	return zap_pace_wants_helper(pace, pace->since + ns, pace->rss - done,
				     left, helpers, MIN_NS);
}

static void test_first_helper_by_time_left(struct kunit *test)
{
	struct zap_pace pace = {};

	/* 1,000,000 pages a second: 100,000 take as long as is allowed. */
	zap_pace_restart(&pace, SECOND, 1UL << 30, 0);
	KUNIT_EXPECT_FALSE(test, after(&pace, NSEC_PER_MSEC, 1000000, 100000, 0));
	KUNIT_EXPECT_TRUE(test, after(&pace, NSEC_PER_MSEC, 1000000, 102000, 0));
	/* Huge pages, at a hundred times the rate */
	KUNIT_EXPECT_FALSE(test, after(&pace, NSEC_PER_MSEC, 100000000,
				       9000000, 0));
	/* No progress, as others fault pages in, or no time: no rate */
	KUNIT_EXPECT_FALSE(test, after(&pace, NSEC_PER_MSEC, 0, 1UL << 30, 0));
	KUNIT_EXPECT_FALSE(test, after(&pace, 0, 1000000, 1UL << 30, 0));
}

static void test_next_helper_by_gain(struct kunit *test)
{
	struct zap_pace pace = {};
	unsigned long left = 1UL << 30;

	zap_pace_restart(&pace, SECOND, 1UL << 30, 0);
	KUNIT_EXPECT_TRUE(test, after(&pace, NSEC_PER_MSEC, 1000000, left, 0));
	/* It has started: measure anew, for long enough. */
	KUNIT_EXPECT_FALSE(test, after(&pace, NSEC_PER_MSEC, 1000000, left, 1));
	KUNIT_EXPECT_FALSE(test, after(&pace, NSEC_PER_MSEC, 1900000, left, 1));
	KUNIT_EXPECT_TRUE(test, after(&pace, ZAP_PACE_NS, 1900000, left, 1));
	KUNIT_EXPECT_FALSE(test, after(&pace, ZAP_PACE_NS, 1900000, left, 2));
	KUNIT_EXPECT_TRUE(test, after(&pace, ZAP_PACE_NS, 2200000, left, 2));
	KUNIT_EXPECT_FALSE(test, after(&pace, ZAP_PACE_NS, 2200000, left, 3));
	/* A lock is in the way: that is it. */
	KUNIT_EXPECT_FALSE(test, after(&pace, ZAP_PACE_NS, 2300000, left, 3));
	KUNIT_EXPECT_FALSE(test, after(&pace, ZAP_PACE_NS, 9900000, left, 3));
	/* One has left, as its CPU was wanted: another may be as good. */
	KUNIT_EXPECT_FALSE(test, after(&pace, ZAP_PACE_NS, 2200000, left, 2));
	KUNIT_EXPECT_TRUE(test, after(&pace, ZAP_PACE_NS, 2200000, left, 2));
	/* But not when it is nearly done. */
	KUNIT_EXPECT_FALSE(test, after(&pace, ZAP_PACE_NS, 2200000, 200000, 2));
}

static struct kunit_case parallel_zap_cases[] = {
	KUNIT_CASE(test_all_is_claimed_once),
	KUNIT_CASE(test_areas_are_disjoint),
	KUNIT_CASE(test_no_room),
	KUNIT_CASE(test_pick),
	KUNIT_CASE(test_chunks_get_smaller),
	KUNIT_CASE(test_huge_chunks),
	KUNIT_CASE(test_first_helper_by_time_left),
	KUNIT_CASE(test_next_helper_by_gain),
	{}
};

static struct kunit_suite parallel_zap_suite = {
	.name = "parallel_zap",
	.test_cases = parallel_zap_cases,
};

kunit_test_suite(parallel_zap_suite);

MODULE_DESCRIPTION("KUnit tests for shared zapping of page tables");
MODULE_LICENSE("GPL");
