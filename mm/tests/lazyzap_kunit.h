/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KUnit tests for the ranges of MADV_SPLITTABLE and MADV_FREE: a page that was
 * marked is in a range until it is removed, no other page is, and a range is not
 * lost only if nothing in it was. Included by mm/lazyzap.c.
 */
#ifdef CONFIG_MADV_SPLITTABLE_KUNIT_TEST

#ifndef _MM_TESTS_LAZYZAP_KUNIT_H
#define _MM_TESTS_LAZYZAP_KUNIT_H

#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/prandom.h>

#define TEST_BASE	0x100000000UL
#define TEST_PAGES	2048UL	/* 4 cells of 2 MiB, with pages of 4 KiB */
#define TEST_CELL	((1UL << LAZYZAP_CELL_SHIFT) >> PAGE_SHIFT)

static unsigned long test_addr(unsigned long page)
{
	return TEST_BASE + (page << PAGE_SHIFT);
}

static unsigned long test_page(unsigned long addr)
{
	return (addr - TEST_BASE) >> PAGE_SHIFT;
}

static int lazyzap_test_init(struct kunit *test)
{
	/* Reclaim may look at it, and finds nothing mapped. */
	struct mm_struct *mm = mm_alloc();

	KUNIT_ASSERT_NOT_NULL(test, mm);
	test->priv = mm;
	mm->lazyzap = lazyzap_alloc_mm(mm);
	KUNIT_ASSERT_NOT_NULL(test, mm->lazyzap);

	return 0;
}

static void lazyzap_test_exit(struct kunit *test)
{
	if (test->priv)
		mmput(test->priv);
}

/* Run an operation. @lost: not all pages were in ranges that are not lost. */
static int test_run(struct kunit *test, unsigned long from, unsigned long to,
		    unsigned int flags, bool *lost)
{
	struct lazyzap_op op = LAZYZAP_OP(test->priv, NULL, test_addr(from),
					  test_addr(to), flags);
	int error = lazyzap_run(&op);

	if (lost)
		*lost = op.lost || op.covered != op.end - op.start;
	return error;
}

static void test_mark(struct kunit *test, unsigned long from, unsigned long to)
{
	KUNIT_EXPECT_EQ(test, test_run(test, from, to, LAZYZAP_MARK, NULL), 0);
}

static int test_nr(struct kunit *test)
{
	return atomic_read(&lazyzap_of(test->priv)->nr);
}

/* Remove all that is left, and expect it to be [from, to), in one range. */
static void test_expect_one(struct kunit *test, unsigned long from,
			    unsigned long to)
{
	struct lazyzap_mm *lm = lazyzap_of(test->priv);
	struct lazyzap_part part = {};

	KUNIT_EXPECT_EQ(test, test_nr(test), 1);
	KUNIT_EXPECT_EQ(test, lazyzap_marked_pages(lm), to - from);
	KUNIT_EXPECT_TRUE(test, lazyzap_next(test->priv, TEST_BASE,
					     test_addr(TEST_PAGES), &part));
	KUNIT_EXPECT_EQ(test, test_page(part.start), from);
	KUNIT_EXPECT_EQ(test, test_page(part.end), to);
	KUNIT_EXPECT_EQ(test, test_run(test, 0, TEST_PAGES, 0, NULL), 0);
	KUNIT_EXPECT_EQ(test, test_nr(test), 0);
	KUNIT_EXPECT_EQ(test, lm->nr_large, 0);
	KUNIT_EXPECT_EQ(test, lazyzap_marked_pages(lm), 0);
}

static void lazyzap_test_merge(struct kunit *test)
{
	test_mark(test, 10, 20);
	test_mark(test, 20, 30);
	test_expect_one(test, 10, 30);

	test_mark(test, 20, 30);
	test_mark(test, 10, 20);
	test_expect_one(test, 10, 30);

	test_mark(test, 10, 20);
	test_mark(test, 30, 40);
	test_mark(test, 50, 60);
	KUNIT_EXPECT_EQ(test, test_nr(test), 3);
	test_mark(test, 15, 50);
	test_expect_one(test, 10, 60);

	test_mark(test, 10, 40);
	test_mark(test, 20, 30);
	test_expect_one(test, 10, 40);
}

static void lazyzap_test_cut(struct kunit *test)
{
	struct lazyzap_part part;
	bool lost;

	test_mark(test, 10, 40);
	KUNIT_EXPECT_EQ(test, test_run(test, 20, 30, 0, &lost), 0);
	KUNIT_EXPECT_FALSE(test, lost);
	KUNIT_EXPECT_EQ(test, test_nr(test), 2);
	KUNIT_EXPECT_FALSE(test, lazyzap_next(test->priv, test_addr(20),
					      test_addr(30), &part));
	KUNIT_EXPECT_EQ(test, test_run(test, 0, 15, 0, &lost), 0);
	KUNIT_EXPECT_TRUE(test, lost);
	KUNIT_EXPECT_EQ(test, test_run(test, 15, 20, 0, &lost), 0);
	KUNIT_EXPECT_FALSE(test, lost);
	test_expect_one(test, 30, 40);
}

/* Ranges that cross cells, and others in the same cells. */
static void lazyzap_test_large(struct kunit *test)
{
	struct lazyzap_mm *lm = lazyzap_of(test->priv);
	bool lost;

	test_mark(test, TEST_CELL + 1, TEST_CELL + 9);
	KUNIT_EXPECT_EQ(test, lm->nr_large, 0);
	test_mark(test, TEST_CELL - 10, 2 * TEST_CELL + 10);
	KUNIT_EXPECT_EQ(test, lm->nr_large, 1);
	KUNIT_EXPECT_EQ(test, test_nr(test), 1);
	/* Marked already */
	test_mark(test, TEST_CELL + 1, TEST_CELL + 9);
	KUNIT_EXPECT_EQ(test, test_nr(test), 1);
	KUNIT_EXPECT_EQ(test, test_run(test, TEST_CELL, 2 * TEST_CELL, 0, &lost), 0);
	KUNIT_EXPECT_FALSE(test, lost);
	KUNIT_EXPECT_EQ(test, test_run(test, TEST_CELL - 10, TEST_CELL, 0, &lost), 0);
	KUNIT_EXPECT_FALSE(test, lost);
	test_expect_one(test, 2 * TEST_CELL, 2 * TEST_CELL + 10);
}

/* A zap leaves a range that tells of it, even if the range is marked again. */
static void lazyzap_test_lost(struct kunit *test)
{
	struct lazyzap_mm *lm = lazyzap_of(test->priv);
	struct lazyzap_tree *tree = lazyzap_shard(lm, lazyzap_cell(TEST_BASE));
	bool lost;

	test_mark(test, 10, 40);
	KUNIT_EXPECT_EQ(test, lazyzap_begin_zap(tree, test_addr(10), test_addr(16), true),
			test_addr(16));
	lazyzap_end_zap(tree);
	test_mark(test, 10, 40);
	test_mark(test, 5, 20);
	KUNIT_EXPECT_EQ(test, test_run(test, 30, 40, 0, &lost), 0);
	KUNIT_EXPECT_TRUE(test, lost);
	KUNIT_EXPECT_EQ(test, test_run(test, 5, 10, LAZYZAP_CLEAN, &lost), 0);
	KUNIT_EXPECT_TRUE(test, lost);
	KUNIT_EXPECT_EQ(test, test_run(test, 0, 40, 0, NULL), 0);
	test_mark(test, 10, 40);
	KUNIT_EXPECT_EQ(test, test_run(test, 10, 40, LAZYZAP_CLEAN, &lost), 0);
	KUNIT_EXPECT_FALSE(test, lost);
	/* There is no marked range. */
	KUNIT_EXPECT_EQ(test, lazyzap_begin_zap(tree, test_addr(10), test_addr(16), true), 0);
}

static void lazyzap_test_drop(struct kunit *test)
{
	const unsigned int record = LAZYZAP_RECORD | LAZYZAP_KEEP;
	struct mm_struct *mm = test->priv;
	bool lost;

	/* A dropped page, and the other record beside it. */
	KUNIT_EXPECT_EQ(test, test_run(test, 10, 20, record, NULL), 0);
	KUNIT_EXPECT_EQ(test, test_run(test, 20, 30, record, NULL), 0);
	KUNIT_EXPECT_EQ(test, test_nr(test), 2);
	lazyzap_drop(mm, test_addr(15), test_addr(16));
	KUNIT_EXPECT_EQ(test, test_run(test, 20, 30, 0, &lost), 0);
	KUNIT_EXPECT_FALSE(test, lost);
	/* MADV_FREE again does not bring the page back. */
	KUNIT_EXPECT_EQ(test, test_run(test, 5, 20, record, NULL), 0);
	KUNIT_EXPECT_EQ(test, test_run(test, 5, 20, 0, &lost), 0);
	KUNIT_EXPECT_TRUE(test, lost);

	/* A marked range has lazyfree pages that nothing recorded. */
	test_mark(test, 40, 50);
	lazyzap_drop(mm, test_addr(45), test_addr(46));
	KUNIT_EXPECT_EQ(test, test_run(test, 40, 50, 0, &lost), 0);
	KUNIT_EXPECT_TRUE(test, lost);

	/* A marked range may have lazyfree pages, before or after. */
	test_mark(test, 10, 20);
	KUNIT_EXPECT_EQ(test, test_run(test, 12, 14, record, NULL), 0);
	KUNIT_EXPECT_EQ(test, test_run(test, 30, 40, record, NULL), 0);
	test_mark(test, 30, 40);
	KUNIT_EXPECT_EQ(test, test_nr(test), 2);
	lazyzap_drop(mm, test_addr(12), test_addr(40));
	KUNIT_EXPECT_EQ(test, test_run(test, 10, 20, 0, &lost), 0);
	KUNIT_EXPECT_TRUE(test, lost);
	KUNIT_EXPECT_EQ(test, test_run(test, 30, 40, 0, &lost), 0);
	KUNIT_EXPECT_TRUE(test, lost);
}

/* If contents may be lost unrecorded, only known ranges are not lost. */
static void lazyzap_test_unknown(struct kunit *test)
{
	const unsigned int known = LAZYZAP_RECORD | LAZYZAP_KNOWN;
	bool lost;

	lazyzap_set_unknown(test->priv);
	test_mark(test, 10, 20);
	KUNIT_EXPECT_EQ(test, test_run(test, 10, 20, known, &lost), 0);
	KUNIT_EXPECT_TRUE(test, lost);
	test_mark(test, 10, 20);
	KUNIT_EXPECT_EQ(test, test_run(test, 10, 20, known, &lost), 0);
	KUNIT_EXPECT_FALSE(test, lost);
	test_mark(test, 10, 21);
	KUNIT_EXPECT_EQ(test, test_run(test, 10, 21, known, &lost), 0);
	KUNIT_EXPECT_TRUE(test, lost);
}

static void lazyzap_test_limit(struct kunit *test)
{
	unsigned int max = lazyzap_limits.max_ranges_per_mm;
	bool lost;

	lazyzap_limits.max_ranges_per_mm = 2;
	test_mark(test, 10, 20);
	test_mark(test, 30, 60);
	KUNIT_EXPECT_EQ(test, test_run(test, 70, 80, LAZYZAP_MARK, NULL), -ENOSPC);
	/* This takes no range of its own. */
	test_mark(test, 20, 30);
	test_mark(test, 70, 80);
	KUNIT_EXPECT_EQ(test, test_nr(test), 2);
	/* The smaller remainder of [10, 60) goes. */
	KUNIT_EXPECT_EQ(test, test_run(test, 20, 30, 0, &lost), 0);
	KUNIT_EXPECT_EQ(test, test_nr(test), 2);
	KUNIT_EXPECT_EQ(test, test_run(test, 70, 80, 0, NULL), 0);
	lazyzap_limits.max_ranges_per_mm = 1;
	KUNIT_EXPECT_EQ(test, test_run(test, 50, 55, 0, NULL), 0);
	lazyzap_limits.max_ranges_per_mm = max;
	test_expect_one(test, 30, 50);
	KUNIT_EXPECT_TRUE(test, mm_flags_test(MMF_LAZYZAP_UNKNOWN, test->priv));
}

/* Only whole page tables count that one range marks. */
static void lazyzap_test_pmds(struct kunit *test)
{
	struct mm_struct *mm = test->priv;
	struct lazyzap_part part;

	if (PMD_SIZE != 1UL << LAZYZAP_CELL_SHIFT)
		kunit_skip(test, "the size of a page table differs");
	test_mark(test, TEST_CELL / 2, 3 * TEST_CELL + 1);
	test_mark(test, 0, TEST_CELL / 2);
	KUNIT_EXPECT_FALSE(test, lazyzap_next_pmds(mm, TEST_BASE,
						   test_addr(TEST_CELL), &part));
	KUNIT_EXPECT_FALSE(test, lazyzap_next_pmds(mm, test_addr(TEST_CELL + 1),
						   test_addr(2 * TEST_CELL), &part));
	KUNIT_EXPECT_TRUE(test, lazyzap_next_pmds(mm, TEST_BASE,
						  test_addr(TEST_PAGES), &part));
	KUNIT_EXPECT_EQ(test, test_page(part.start), TEST_CELL);
	KUNIT_EXPECT_EQ(test, test_page(part.end), 3 * TEST_CELL);
	KUNIT_EXPECT_FALSE(test, lazyzap_next_pmds(mm, part.end,
						   test_addr(TEST_PAGES), &part));
}

/* At random, against a bitmap of the pages that are marked. */
static void lazyzap_test_random(struct kunit *test)
{
	unsigned long *map = bitmap_zalloc(TEST_PAGES, GFP_KERNEL);
	struct lazyzap_mm *lm = lazyzap_of(test->priv);
	struct rnd_state rnd;

	KUNIT_ASSERT_NOT_NULL(test, map);
	prandom_seed_state(&rnd, 1);
	for (int i = 0; i < 5000; i++) {
		unsigned long from = prandom_u32_state(&rnd) % TEST_PAGES;
		unsigned long n = 1 + prandom_u32_state(&rnd) % (TEST_PAGES - from);
		struct lazyzap_part part = {};
		bool lost;

		/* Most of them in one cell */
		if (prandom_u32_state(&rnd) % 8)
			n = min(n, 1 + prandom_u32_state(&rnd) % 40);
		if (prandom_u32_state(&rnd) & 1) {
			test_mark(test, from, from + n);
			bitmap_set(map, from, n);
		} else {
			KUNIT_EXPECT_EQ(test, test_run(test, from, from + n, 0, &lost), 0);
			KUNIT_EXPECT_EQ(test, lost,
					find_next_zero_bit(map, TEST_PAGES, from) < from + n);
			bitmap_clear(map, from, n);
		}
		KUNIT_ASSERT_EQ(test, lazyzap_marked_pages(lm),
				bitmap_weight(map, TEST_PAGES));
		for (unsigned long page = from; page < from + n; page++)
			KUNIT_ASSERT_EQ(test, test_bit(page, map),
					lazyzap_test(test->priv, test_addr(page),
						     test_addr(from + n), &part));
	}
	bitmap_free(map);
}

static struct kunit_case lazyzap_cases[] = {
	KUNIT_CASE(lazyzap_test_merge),
	KUNIT_CASE(lazyzap_test_cut),
	KUNIT_CASE(lazyzap_test_large),
	KUNIT_CASE(lazyzap_test_lost),
	KUNIT_CASE(lazyzap_test_drop),
	KUNIT_CASE(lazyzap_test_unknown),
	KUNIT_CASE(lazyzap_test_limit),
	KUNIT_CASE(lazyzap_test_pmds),
	KUNIT_CASE(lazyzap_test_random),
	{}
};

static struct kunit_suite lazyzap_suite = {
	.name = "lazyzap",
	.init = lazyzap_test_init,
	.exit = lazyzap_test_exit,
	.test_cases = lazyzap_cases,
};

kunit_test_suite(lazyzap_suite);

#endif /* _MM_TESTS_LAZYZAP_KUNIT_H */

#endif /* CONFIG_MADV_SPLITTABLE_KUNIT_TEST */
