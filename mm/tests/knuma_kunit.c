// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the decisions of NUMA migration outside of page faults.
 */
#include <kunit/test.h>
#include <linux/sizes.h>

#include "../knuma_queue.h"

static struct knuma_ring *ring_alloc(struct kunit *test, unsigned int entries)
{
	struct knuma_ring *ring = kunit_kzalloc(test, sizeof(*ring), GFP_KERNEL);
	struct knuma_entry *buffer;

	KUNIT_ASSERT_NOT_NULL(test, ring);
	buffer = kunit_kcalloc(test, entries, sizeof(*buffer), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, buffer);
	spin_lock_init(&ring->lock);
	KUNIT_ASSERT_EQ(test, kfifo_init(&ring->fifo, buffer, entries * sizeof(*buffer)), 0);

	return ring;
}

static void ring_keeps_order_and_counts_pages(struct kunit *test)
{
	struct knuma_ring *ring = ring_alloc(test, 8);
	struct knuma_entry in[] = {
		{ .pfn = 1 }, { .pfn = 512, .order = 9 }, { .pfn = 3 },
	}, out;

	KUNIT_EXPECT_EQ(test, knuma_ring_take(ring, &out, 1, 1), 0);
	KUNIT_EXPECT_EQ(test, knuma_ring_add(ring, in, 3), 514);
	KUNIT_EXPECT_EQ(test, knuma_ring_pages(ring), 514);
	for (int i = 0; i < 3; i++) {
		KUNIT_ASSERT_EQ(test, knuma_ring_take(ring, &out, 1, 1), 1);
		KUNIT_EXPECT_EQ(test, out.pfn, in[i].pfn);
		KUNIT_EXPECT_EQ(test, out.order, in[i].order);
	}
	KUNIT_EXPECT_EQ(test, knuma_ring_pages(ring), 0);
	KUNIT_EXPECT_EQ(test, knuma_ring_take(ring, &out, 1, 1), 0);
}

static void ring_that_is_full_takes_no_more(struct kunit *test)
{
	struct knuma_ring *ring = ring_alloc(test, 8);
	struct knuma_entry in[5] = { }, out;
	unsigned long taken = 0;

	for (int i = 0; i < 5; i++)
		in[i].pfn = i + 1;
	KUNIT_EXPECT_EQ(test, knuma_ring_add(ring, in, 5), 5);
	KUNIT_EXPECT_EQ(test, knuma_ring_add(ring, in, 5), 3);
	KUNIT_EXPECT_EQ(test, knuma_ring_add(ring, in, 5), 0);
	KUNIT_EXPECT_EQ(test, knuma_ring_pages(ring), 8);
	/* Round and round. */
	for (int i = 0; i < 100; i++) {
		KUNIT_ASSERT_EQ(test, knuma_ring_take(ring, &out, 1, 1), 1);
		taken++;
		KUNIT_EXPECT_EQ(test, knuma_ring_add(ring, in, 1), 1);
		KUNIT_EXPECT_EQ(test, knuma_ring_pages(ring), 8);
	}
	while (knuma_ring_take(ring, &out, 1, 1))
		taken++;
	KUNIT_EXPECT_EQ(test, taken, 108);
}

static void ring_gives_as_much_as_there_is_room_for(struct kunit *test)
{
	struct knuma_ring *ring = ring_alloc(test, 8);
	struct knuma_entry in[6] = { }, out[4];

	in[0].order = 9;
	KUNIT_EXPECT_EQ(test, knuma_ring_add(ring, in, 6), 517);
	/* The first one is more than asked for. */
	KUNIT_EXPECT_EQ(test, knuma_ring_take(ring, out, 4, 2), 1);
	KUNIT_EXPECT_EQ(test, out[0].order, 9);
	KUNIT_EXPECT_EQ(test, knuma_ring_pages(ring), 5);
	KUNIT_EXPECT_EQ(test, knuma_ring_take(ring, out, 4, 0), 0);
	KUNIT_EXPECT_EQ(test, knuma_ring_take(ring, out, 4, 2), 2);
	KUNIT_EXPECT_EQ(test, knuma_ring_pages(ring), 3);
	KUNIT_EXPECT_EQ(test, knuma_ring_take(ring, out, 2, 9), 2);
	KUNIT_EXPECT_EQ(test, knuma_ring_take(ring, out, 2, 9), 1);
	KUNIT_EXPECT_EQ(test, knuma_ring_pages(ring), 0);
}

static void daemon_is_woken_when_it_is_worth_it(struct kunit *test)
{
	/* The first ones start its clock. */
	KUNIT_EXPECT_TRUE(test, knuma_must_wake(1, 1, 512));
	KUNIT_EXPECT_TRUE(test, knuma_must_wake(8, 8, 512));
	/* It knows of them. */
	KUNIT_EXPECT_FALSE(test, knuma_must_wake(9, 1, 512));
	KUNIT_EXPECT_FALSE(test, knuma_must_wake(511, 8, 512));
	/* It is enough, once. */
	KUNIT_EXPECT_TRUE(test, knuma_must_wake(512, 1, 512));
	KUNIT_EXPECT_TRUE(test, knuma_must_wake(515, 8, 512));
	KUNIT_EXPECT_FALSE(test, knuma_must_wake(513, 1, 512));
	KUNIT_EXPECT_FALSE(test, knuma_must_wake(10000, 8, 512));
	/* There was no room. */
	KUNIT_EXPECT_FALSE(test, knuma_must_wake(0, 0, 512));
	KUNIT_EXPECT_FALSE(test, knuma_must_wake(600, 0, 512));
}

static void sources_take_turns(struct kunit *test)
{
	static const int turns[] = { 5, 0, 2, 5, 0, 2 };
	nodemask_t waiting = NODE_MASK_NONE;
	int last = 3;

	if (MAX_NUMNODES < 8)
		kunit_skip(test, "fewer than 8 nodes");
	KUNIT_EXPECT_EQ(test, knuma_next_source(&waiting, last), NUMA_NO_NODE);
	node_set(0, waiting);
	node_set(2, waiting);
	node_set(5, waiting);
	for (int i = 0; i < ARRAY_SIZE(turns); i++) {
		last = knuma_next_source(&waiting, last);
		KUNIT_EXPECT_EQ(test, last, turns[i]);
	}
	/* One that has nothing left is passed over, one alone is served again. */
	node_clear(5, waiting);
	KUNIT_EXPECT_EQ(test, knuma_next_source(&waiting, 2), 0);
	node_clear(0, waiting);
	KUNIT_EXPECT_EQ(test, knuma_next_source(&waiting, 2), 2);
}

static void bucket_holds_a_period(struct kunit *test)
{
	struct knuma_bucket bucket = { .tokens = 1000, .filled = 5000 };

	/* 1000 pages in 100 jiffies. */
	KUNIT_EXPECT_EQ(test, knuma_bucket_fill(&bucket, 5000, 1000, 100), 1000);
	bucket.tokens -= 1000;
	KUNIT_EXPECT_EQ(test, knuma_bucket_fill(&bucket, 5000, 1000, 100), 0);
	KUNIT_EXPECT_GT(test, knuma_bucket_wait(&bucket, 1, 1000, 100), 0);
	KUNIT_EXPECT_EQ(test, knuma_bucket_fill(&bucket, 5010, 1000, 100), 100);
	KUNIT_EXPECT_EQ(test, knuma_bucket_wait(&bucket, 100, 1000, 100), 0);
	KUNIT_EXPECT_GE(test, knuma_bucket_wait(&bucket, 110, 1000, 100), 1);
	/* Not more than a period's, however long nothing has moved. */
	KUNIT_EXPECT_EQ(test, knuma_bucket_fill(&bucket, 5000000, 1000, 100), 1000);
}

static void bucket_pays_its_debt(struct kunit *test)
{
	struct knuma_bucket bucket = { .tokens = 1, .filled = 0 };
	unsigned long wait;

	bucket.tokens -= 512;
	KUNIT_EXPECT_EQ(test, knuma_bucket_fill(&bucket, 10, 100, 100), 0);
	wait = knuma_bucket_wait(&bucket, 1, 100, 100);
	KUNIT_EXPECT_GE(test, wait, 500);
	KUNIT_EXPECT_LE(test, wait, 510);
	/* Then all of it is paid, though nobody has looked meanwhile. */
	KUNIT_EXPECT_GE(test, knuma_bucket_fill(&bucket, 10 + wait, 100, 100), 1);
	bucket = (struct knuma_bucket) { .tokens = 1, .filled = 0 };
	KUNIT_EXPECT_EQ(test, knuma_bucket_fill(&bucket, ULONG_MAX, SZ_16M, 1), SZ_16M);
}

/* A daemon that moves huge pages only, and sleeps for as long as it is told. */
static void bucket_keeps_its_rate(struct kunit *test)
{
	static const unsigned long rates[] = { 1, 7, 100, 511, 513, 5000 };

	for (int i = 0; i < ARRAY_SIZE(rates); i++) {
		struct knuma_bucket bucket = { .tokens = 0, .filled = 0 };
		unsigned long now = 0, moved = 0, rate = rates[i], want = min(rate, 32UL);

		while (moved < 1000 * 512) {
			if (knuma_bucket_fill(&bucket, now, rate, 25) < (long)want) {
				now += min(knuma_bucket_wait(&bucket, want, rate, 25), 250UL);
				continue;
			}
			bucket.tokens -= 512;
			moved += 512;
		}
		/* One huge page and a period more or less. */
		KUNIT_EXPECT_LE(test, moved, rate * now / 25 + 512 + rate);
		KUNIT_EXPECT_GE(test, moved + 512 + rate, rate * now / 25);
	}
}

/* Parts of a page, and parts of a jiffy: time is not lost by looking often. */
static void bucket_fills_by_parts(struct kunit *test)
{
	struct knuma_bucket bucket = { .tokens = 0, .filled = 0 };

	for (int i = 1; i <= 1000; i++)
		knuma_bucket_fill(&bucket, i, 10, 100);
	KUNIT_EXPECT_EQ(test, bucket.tokens, 10);
	bucket = (struct knuma_bucket) { .tokens = 0, .filled = 0 };
	for (int i = 1; i <= 90; i++)
		knuma_bucket_fill(&bucket, i, 150, 100);
	KUNIT_EXPECT_EQ(test, bucket.tokens, 135);
	bucket = (struct knuma_bucket) { .tokens = -90, .filled = 0 };
	for (int i = 1; i <= 1000; i++)
		knuma_bucket_fill(&bucket, i, 10, 100);
	KUNIT_EXPECT_EQ(test, bucket.tokens, 10);
}

static void full_node_is_left_alone_for_longer(struct kunit *test)
{
	unsigned long last = 0, pause;

	for (unsigned int i = 0; i < 100; i++) {
		pause = knuma_back_off(i, 25, 1000);
		KUNIT_EXPECT_GE(test, pause, last);
		KUNIT_EXPECT_GE(test, pause, 25);
		KUNIT_EXPECT_LE(test, pause, 1000);
		last = pause;
	}
	KUNIT_EXPECT_EQ(test, knuma_back_off(0, 25, 1000), 25);
	KUNIT_EXPECT_EQ(test, last, 1000);
}

static void parts_are_remembered_for_a_moment(struct kunit *test)
{
	struct knuma_recent *recent = kunit_kzalloc(test, sizeof(*recent), GFP_KERNEL);
	u64 part = 0x123456789abcdef0, other = part ^ BIT_ULL(40);

	KUNIT_ASSERT_NOT_NULL(test, recent);
	KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part, 1000, 24), KNUMA_PART_NEW);
	knuma_recent_set(recent, part, 1000, true);
	KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part, 1024, 24), KNUMA_PART_QUEUED);
	KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part, 1026, 24), KNUMA_PART_NEW);
	knuma_recent_set(recent, part, 1026, false);
	KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part, 1026, 24), KNUMA_PART_TRIED);
	/* Another one in its slot, and in another slot. */
	KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, other, 1026, 24), KNUMA_PART_NEW);
	KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part + 1, 1026, 24), KNUMA_PART_NEW);
	knuma_recent_set(recent, other, 1026, true);
	KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part, 1026, 24), KNUMA_PART_NEW);
	/* Jiffies wrap. */
	knuma_recent_set(recent, part, 0xfffffff0, true);
	KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part, 0x100000005, 24), KNUMA_PART_QUEUED);
}

/* What two processes have at the same addresses, or in the same slots. */
static void parts_are_not_mistaken_for_others(struct kunit *test)
{
	struct knuma_recent *recent = kunit_kzalloc(test, sizeof(*recent), GFP_KERNEL);
	const unsigned long first = 0x7f0000000000 / SZ_512K;
	unsigned long i;
	u64 part;

	KUNIT_ASSERT_NOT_NULL(test, recent);
	for (i = 0; i < KNUMA_RECENT; i++)
		knuma_recent_set(recent, knuma_part(1000, first + i), 1000, true);
	for (i = 0; i < KNUMA_RECENT; i++) {
		part = knuma_part(1000, first + i);
		KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part, 1000, 24), KNUMA_PART_QUEUED);
		part = knuma_part(1000, first + KNUMA_RECENT + i);
		KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part, 1000, 24), KNUMA_PART_NEW);
		part = knuma_part(1001, first + i);
		KUNIT_EXPECT_EQ(test, knuma_recent_part(recent, part, 1000, 24), KNUMA_PART_NEW);
	}
}

static void age_is_of_jiffies_that_wrap(struct kunit *test)
{
	struct knuma_entry entry = { .queued = 0xfffffff0 };

	KUNIT_EXPECT_EQ(test, knuma_entry_age(&entry, 0xfffffff0), 0);
	KUNIT_EXPECT_EQ(test, knuma_entry_age(&entry, 0x100000010), 0x20);
}

static struct kunit_case knuma_cases[] = {
	KUNIT_CASE(ring_keeps_order_and_counts_pages),
	KUNIT_CASE(ring_that_is_full_takes_no_more),
	KUNIT_CASE(ring_gives_as_much_as_there_is_room_for),
	KUNIT_CASE(daemon_is_woken_when_it_is_worth_it),
	KUNIT_CASE(sources_take_turns),
	KUNIT_CASE(bucket_holds_a_period),
	KUNIT_CASE(bucket_pays_its_debt),
	KUNIT_CASE(bucket_keeps_its_rate),
	KUNIT_CASE(bucket_fills_by_parts),
	KUNIT_CASE(full_node_is_left_alone_for_longer),
	KUNIT_CASE(parts_are_remembered_for_a_moment),
	KUNIT_CASE(parts_are_not_mistaken_for_others),
	KUNIT_CASE(age_is_of_jiffies_that_wrap),
	{}
};

static struct kunit_suite knuma_suite = {
	.name = "knuma",
	.test_cases = knuma_cases,
};

kunit_test_suite(knuma_suite);

MODULE_DESCRIPTION("KUnit tests for NUMA migration outside of page faults");
MODULE_LICENSE("GPL");
