// SPDX-License-Identifier: GPL-2.0
/*
 * What decides about the lazy purge of vmap areas: mm/vmalloc_purge.h.
 */
#include <kunit/test.h>
#include <linux/pgtable.h>
#include <linux/vmalloc.h>

#include "../vmalloc_purge.h"

/* The number that upstream had from 2.6.28 on, in pages. */
#define AUTO_PAGES(log)	((log) * (32UL * 1024 * 1024 / PAGE_SIZE))

static void test_lazy_max_auto(struct kunit *test)
{
	struct vmap_purge_limits limits = {};

	KUNIT_EXPECT_EQ(test, vmap_lazy_max_pages(&limits, 1), AUTO_PAGES(1));
	KUNIT_EXPECT_EQ(test, vmap_lazy_max_pages(&limits, 2), AUTO_PAGES(2));
	KUNIT_EXPECT_EQ(test, vmap_lazy_max_pages(&limits, 3), AUTO_PAGES(2));
	KUNIT_EXPECT_EQ(test, vmap_lazy_max_pages(&limits, 8), AUTO_PAGES(4));
	KUNIT_EXPECT_EQ(test, vmap_lazy_max_pages(&limits, 255), AUTO_PAGES(8));
	KUNIT_EXPECT_EQ(test, vmap_lazy_max_pages(&limits, 256), AUTO_PAGES(9));
}

static void test_lazy_max_set(struct kunit *test)
{
	struct vmap_purge_limits limits = { .lazy_max_pages = 1 };

	KUNIT_EXPECT_EQ(test, vmap_lazy_max_pages(&limits, 1), 1UL);
	KUNIT_EXPECT_EQ(test, vmap_lazy_max_pages(&limits, 4096), 1UL);
}

static void test_due_pages(struct kunit *test)
{
	struct vmap_purge_limits limits = {};

	KUNIT_EXPECT_FALSE(test, vmap_purge_due(&limits, 100, 0, 0, 0));
	KUNIT_EXPECT_FALSE(test, vmap_purge_due(&limits, 100, 100, 50, 0));
	KUNIT_EXPECT_TRUE(test, vmap_purge_due(&limits, 100, 101, 50, 0));
	/* No limit of areas: any number of them is fine. */
	KUNIT_EXPECT_FALSE(test, vmap_purge_due(&limits, 100, 100, ULONG_MAX, 0));
}

static void test_due_areas(struct kunit *test)
{
	struct vmap_purge_limits limits = { .lazy_max_areas = 10 };

	KUNIT_EXPECT_FALSE(test, vmap_purge_due(&limits, 100, 20, 10, 0));
	/* Either limit is enough. */
	KUNIT_EXPECT_TRUE(test, vmap_purge_due(&limits, 100, 22, 11, 0));
	KUNIT_EXPECT_TRUE(test, vmap_purge_due(&limits, 100, 101, 1, 0));
}

static void test_overrun_off(struct kunit *test)
{
	struct vmap_purge_limits limits = { .lazy_max_areas = 1 };

	KUNIT_EXPECT_FALSE(test, vmap_purge_overrun(&limits, 1, ULONG_MAX,
						    ULONG_MAX));
}

static void test_overrun(struct kunit *test)
{
	struct vmap_purge_limits limits = { .throttle_percent = 250 };

	KUNIT_EXPECT_FALSE(test, vmap_purge_overrun(&limits, 100, 250, 120));
	KUNIT_EXPECT_TRUE(test, vmap_purge_overrun(&limits, 100, 251, 120));
	KUNIT_EXPECT_FALSE(test, vmap_purge_overrun(&limits, 100, 0, ULONG_MAX));

	limits.lazy_max_areas = 10;
	KUNIT_EXPECT_FALSE(test, vmap_purge_overrun(&limits, 100, 50, 25));
	KUNIT_EXPECT_TRUE(test, vmap_purge_overrun(&limits, 100, 52, 26));
}

/* Whoever has to help finds something to do: a flush, or areas to return. */
static void test_overrun_is_due(struct kunit *test)
{
	struct vmap_purge_limits limits = { .throttle_percent = 100 };
	unsigned long pages, areas;
	bool due;

	for (limits.lazy_max_areas = 0; limits.lazy_max_areas < 8;
	     limits.lazy_max_areas++) {
		for (pages = 0; pages < 24; pages++) {
			for (areas = 0; areas <= pages; areas++) {
				if (!vmap_purge_overrun(&limits, 8, pages, areas))
					continue;
				due = vmap_purge_due(&limits, 8, pages, areas, 0);
				KUNIT_EXPECT_TRUE(test, due);
			}
		}
	}
}

/* No flush for what is lazy while most of the last lot is to be returned. */
static void test_due_waits_for_return(struct kunit *test)
{
	struct vmap_purge_limits limits = { .lazy_max_areas = 10 };

	KUNIT_EXPECT_TRUE(test, vmap_purge_due(&limits, 100, 1000, 500, 50));
	KUNIT_EXPECT_FALSE(test, vmap_purge_due(&limits, 100, 1000, 500, 51));
}

/* The largest values that the knobs take do not overflow. */
static void test_overrun_large(struct kunit *test)
{
	struct vmap_purge_limits limits = {
		.lazy_max_areas = INT_MAX,
		.throttle_percent = 10000,
	};
	unsigned long max = (VMALLOC_TOTAL >> PAGE_SHIFT) / 4;

	KUNIT_EXPECT_FALSE(test, vmap_purge_overrun(&limits, max, max, INT_MAX));
#ifdef CONFIG_64BIT
	KUNIT_EXPECT_FALSE(test, vmap_purge_overrun(&limits, max, max * 100,
						    INT_MAX * 100UL));
	KUNIT_EXPECT_TRUE(test, vmap_purge_overrun(&limits, max, max * 100 + 1, 0));
	KUNIT_EXPECT_TRUE(test, vmap_purge_overrun(&limits, max, 0,
						   INT_MAX * 100UL + 1));
#endif
}

static void test_slice(struct kunit *test)
{
	struct vmap_purge_limits limits = { .slice_us = 50 };

	KUNIT_EXPECT_EQ(test, vmap_slice_end(&limits, 7), 50007ULL);

	limits.slice_us = UINT_MAX;
	KUNIT_EXPECT_EQ(test, vmap_slice_end(&limits, 0), UINT_MAX * 1000ULL);

	limits.slice_us = 0;
	KUNIT_EXPECT_EQ(test, vmap_slice_end(&limits, 7), U64_MAX);
}

static void test_batch(struct kunit *test)
{
	KUNIT_EXPECT_FALSE(test, vmap_batch_full(1, 0));
	KUNIT_EXPECT_TRUE(test, vmap_batch_full(1, 1));
	KUNIT_EXPECT_FALSE(test, vmap_batch_full(64, 63));
	KUNIT_EXPECT_TRUE(test, vmap_batch_full(64, 64));
	KUNIT_EXPECT_FALSE(test, vmap_batch_full(0, UINT_MAX));
}

static void test_defaults(struct kunit *test)
{
	static const struct vmap_purge_limits limits = VMAP_PURGE_LIMITS_DEFAULT;

	/* The same threshold as ever, no lock held without a bound. */
	KUNIT_EXPECT_EQ(test, vmap_lazy_max_pages(&limits, 4), AUTO_PAGES(3));
	KUNIT_EXPECT_FALSE(test, vmap_purge_due(&limits, 2, 2, ULONG_MAX, 0));
	KUNIT_EXPECT_GT(test, limits.batch, 0);
	KUNIT_EXPECT_GT(test, limits.slice_us, 0);
	KUNIT_EXPECT_GE(test, limits.throttle_percent, 100);
}

static struct kunit_case vmalloc_purge_test_cases[] = {
	KUNIT_CASE(test_lazy_max_auto),
	KUNIT_CASE(test_lazy_max_set),
	KUNIT_CASE(test_due_pages),
	KUNIT_CASE(test_due_areas),
	KUNIT_CASE(test_overrun_off),
	KUNIT_CASE(test_due_waits_for_return),
	KUNIT_CASE(test_overrun),
	KUNIT_CASE(test_overrun_is_due),
	KUNIT_CASE(test_overrun_large),
	KUNIT_CASE(test_slice),
	KUNIT_CASE(test_batch),
	KUNIT_CASE(test_defaults),
	{}
};

static struct kunit_suite vmalloc_purge_test_suite = {
	.name = "vmalloc_purge",
	.test_cases = vmalloc_purge_test_cases,
};

kunit_test_suite(vmalloc_purge_test_suite);

MODULE_DESCRIPTION("KUnit tests for the limits of the lazy vmalloc purge");
MODULE_LICENSE("GPL");
