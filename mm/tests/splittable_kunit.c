// SPDX-License-Identifier: GPL-2.0
/*
 * The notes of MADV_SPLITTABLE: what is marked is noted until it is taken, and
 * nothing else is, whatever touches, overlaps or is cut out of what.
 */
#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/prandom.h>
#include <linux/slab.h>

#include "../splittable.h"

#define BASE	0x100000000UL
#define PAGES	256

static unsigned long addr(unsigned long page)
{
	return BASE + (page << PAGE_SHIFT);
}

static unsigned long page_of(unsigned long addr)
{
	return (addr - BASE) >> PAGE_SHIFT;
}

static int notes_init(struct kunit *test)
{
	/* Reclaim may look at it, and finds nothing mapped. */
	struct mm_struct *mm = mm_alloc();

	KUNIT_ASSERT_NOT_NULL(test, mm);
	mm->splittable = splittable_mm_alloc(mm);
	test->priv = mm;
	KUNIT_ASSERT_NOT_NULL(test, mm->splittable);

	return 0;
}

static void notes_exit(struct kunit *test)
{
	if (test->priv)
		mmput(test->priv);
}

static struct splittable_mm *notes(struct kunit *test)
{
	return ((struct mm_struct *)test->priv)->splittable;
}

static bool take(struct splittable_mm *sm, unsigned long from, unsigned long to,
		 struct splittable_part *part)
{
	return splittable_take(sm, addr(from), addr(to), part);
}

static void add(struct kunit *test, unsigned long from, unsigned long to)
{
	KUNIT_EXPECT_EQ(test, splittable_add(notes(test), addr(from), addr(to)), 0);
}

/* Takes all that is left, and expects it to be [from, to), in one piece. */
static void expect_one(struct kunit *test, unsigned long from, unsigned long to)
{
	struct splittable_mm *sm = notes(test);
	struct splittable_part part = {};

	KUNIT_EXPECT_EQ(test, sm->nr, 1);
	KUNIT_EXPECT_EQ(test, sm->pages, to - from);
	KUNIT_EXPECT_TRUE(test, take(sm, 0, PAGES, &part));
	KUNIT_EXPECT_EQ(test, page_of(part.start), from);
	KUNIT_EXPECT_EQ(test, page_of(part.noted), from);
	KUNIT_EXPECT_EQ(test, page_of(part.end), to);
	KUNIT_EXPECT_FALSE(test, take(sm, 0, PAGES, &part));
	KUNIT_EXPECT_EQ(test, sm->nr, 0);
	KUNIT_EXPECT_EQ(test, sm->pages, 0);
}

static void ranges_that_touch_are_one(struct kunit *test)
{
	add(test, 10, 20);
	add(test, 20, 30);
	expect_one(test, 10, 30);

	add(test, 20, 30);
	add(test, 10, 20);
	expect_one(test, 10, 30);

	add(test, 10, 20);
	add(test, 30, 40);
	add(test, 50, 60);
	KUNIT_EXPECT_EQ(test, notes(test)->nr, 3);
	add(test, 15, 50);
	expect_one(test, 10, 60);

	add(test, 10, 40);
	add(test, 20, 30);
	expect_one(test, 10, 40);
}

static void parts_are_cut_out(struct kunit *test)
{
	struct splittable_part part = {};

	add(test, 10, 40);
	KUNIT_EXPECT_TRUE(test, take(notes(test), 20, 30, &part));
	KUNIT_EXPECT_EQ(test, page_of(part.start), 20);
	KUNIT_EXPECT_EQ(test, page_of(part.end), 30);
	KUNIT_EXPECT_EQ(test, notes(test)->nr, 2);
	KUNIT_EXPECT_EQ(test, notes(test)->pages, 20);
	/* There is nothing in an empty area, in the midst of a range. */
	KUNIT_EXPECT_FALSE(test, take(notes(test), 15, 15, &part));
	KUNIT_EXPECT_FALSE(test, splittable_next(notes(test), addr(15), addr(15), &part));
	KUNIT_EXPECT_FALSE(test, take(notes(test), 20, 30, &part));
	KUNIT_EXPECT_TRUE(test, take(notes(test), 0, 15, &part));
	KUNIT_EXPECT_EQ(test, page_of(part.start), 10);
	KUNIT_EXPECT_EQ(test, page_of(part.end), 15);
	KUNIT_EXPECT_TRUE(test, take(notes(test), 0, PAGES, &part));
	KUNIT_EXPECT_EQ(test, page_of(part.start), 15);
	KUNIT_EXPECT_EQ(test, page_of(part.end), 20);
	expect_one(test, 30, 40);
}

/* What reclaim has zapped stays in the range, so that it is told of. */
static void zapped_parts_are_known(struct kunit *test)
{
	struct splittable_mm *sm = notes(test);
	struct splittable_part part = {};

	add(test, 10, 40);
	spin_lock(&sm->lock);
	KUNIT_EXPECT_FALSE(test, splittable_advance(sm, addr(16)));
	KUNIT_EXPECT_EQ(test, page_of(sm->zap_start), 10);
	KUNIT_EXPECT_EQ(test, page_of(sm->zap_end), 16);
	spin_unlock(&sm->lock);
	splittable_advanced(sm);
	KUNIT_EXPECT_EQ(test, sm->pages, 24);

	KUNIT_EXPECT_TRUE(test, take(sm, 12, 25, &part));
	KUNIT_EXPECT_EQ(test, page_of(part.start), 12);
	KUNIT_EXPECT_EQ(test, page_of(part.noted), 16);
	KUNIT_EXPECT_EQ(test, page_of(part.end), 25);
	KUNIT_EXPECT_EQ(test, sm->pages, 15);

	/* All of it was zapped; noted again, it is noted. */
	KUNIT_EXPECT_TRUE(test, splittable_next(sm, addr(0), addr(PAGES), &part));
	KUNIT_EXPECT_EQ(test, page_of(part.noted), page_of(part.end));
	KUNIT_EXPECT_FALSE(test, part.patchy);
	add(test, 10, 12);
	KUNIT_EXPECT_EQ(test, sm->pages, 17);
	KUNIT_EXPECT_TRUE(test, take(sm, 0, 20, &part));
	KUNIT_EXPECT_EQ(test, page_of(part.noted), 10);
	KUNIT_EXPECT_TRUE(test, part.patchy);
	expect_one(test, 25, 40);
}

static void there_may_be_too_many(struct kunit *test)
{
	unsigned int max = splittable_limits.max_ranges_per_mm;

	splittable_limits.max_ranges_per_mm = 2;
	add(test, 10, 20);
	add(test, 30, 40);
	KUNIT_EXPECT_EQ(test, splittable_add(notes(test), addr(50), addr(60)), -ENOSPC);
	/* It needs no range of its own. */
	add(test, 20, 30);
	splittable_limits.max_ranges_per_mm = max;
	expect_one(test, 10, 40);
}

/* But not if one is cut: what was noted stays noted. */
static void a_cut_may_be_one_more(struct kunit *test)
{
	unsigned int max = splittable_limits.max_ranges_per_mm;
	struct splittable_part part = {};

	splittable_limits.max_ranges_per_mm = 1;
	add(test, 10, 40);
	KUNIT_EXPECT_TRUE(test, take(notes(test), 20, 30, &part));
	splittable_limits.max_ranges_per_mm = max;
	KUNIT_EXPECT_EQ(test, notes(test)->nr, 2);
	KUNIT_EXPECT_EQ(test, notes(test)->pages, 20);
	KUNIT_EXPECT_TRUE(test, take(notes(test), 10, 20, &part));
	expect_one(test, 30, 40);
}

/* At random, against a bitmap of the pages that are noted. */
static void as_a_bitmap_has_it(struct kunit *test)
{
	struct splittable_mm *sm = notes(test);
	unsigned long *map = bitmap_zalloc(PAGES, GFP_KERNEL);
	struct splittable_part part;
	struct rnd_state rnd;

	KUNIT_ASSERT_NOT_NULL(test, map);
	prandom_seed_state(&rnd, 1);
	for (int i = 0; i < 5000; i++) {
		unsigned long from = prandom_u32_state(&rnd) % PAGES;
		unsigned long n = 1 + prandom_u32_state(&rnd) % (PAGES - from);
		unsigned long at = from, start, end, stop;

		n = min(n, 1 + prandom_u32_state(&rnd) % 40);
		if (prandom_u32_state(&rnd) & 1) {
			add(test, from, from + n);
			bitmap_set(map, from, n);
		} else {
			while (take(sm, at, from + n, &part)) {
				start = page_of(part.start);
				end = page_of(part.end);
				/* All that is noted, and nothing else */
				KUNIT_EXPECT_EQ(test, start, find_next_bit(map, PAGES, at));
				stop = find_next_zero_bit(map, PAGES, start);
				KUNIT_EXPECT_EQ(test, end, min(from + n, stop));
				bitmap_clear(map, start, end - start);
				at = end;
			}
			KUNIT_EXPECT_GE(test, find_next_bit(map, PAGES, from), from + n);
		}
		KUNIT_ASSERT_EQ(test, sm->pages, bitmap_weight(map, PAGES));
	}
	bitmap_free(map);
}

static struct kunit_case splittable_cases[] = {
	KUNIT_CASE(ranges_that_touch_are_one),
	KUNIT_CASE(parts_are_cut_out),
	KUNIT_CASE(zapped_parts_are_known),
	KUNIT_CASE(there_may_be_too_many),
	KUNIT_CASE(a_cut_may_be_one_more),
	KUNIT_CASE(as_a_bitmap_has_it),
	{}
};

static struct kunit_suite splittable_suite = {
	.name = "splittable",
	.init = notes_init,
	.exit = notes_exit,
	.test_cases = splittable_cases,
};

kunit_test_suite(splittable_suite);

MODULE_DESCRIPTION("KUnit tests of the notes of MADV_SPLITTABLE");
MODULE_LICENSE("GPL");
