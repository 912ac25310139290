/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The decisions of NUMA migration outside of page faults: what a queue holds,
 * whose turn it is, how fast it may go. Pure, for mm/tests/knuma_kunit.c.
 */
#ifndef _MM_KNUMA_QUEUE_H
#define _MM_KNUMA_QUEUE_H

#include <linux/hash.h>
#include <linux/kfifo.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm_types.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wordpart.h>

/*
 * Entries of a queue: what one scan of 256 MiB makes fault, if there are two
 * nodes; fewer where more nodes may send at a time.
 */
#define KNUMA_RING_LEAST	4096
#define KNUMA_RING_MOST		65536

/* How many pages of a source are taken before it is the next one's turn. */
#define KNUMA_QUANTUM		32

/*
 * Address spaces, and files, share that many counts of changes of policy. Of
 * the first, none has number 0.
 */
#define KNUMA_OWNERS		256

/**
 * struct knuma_entry - A folio that is to move.
 * @pfn:	of its first page; nothing keeps it there
 * @mapping:	hash of the folio's, so that it is not taken for another one
 * @queued:	when, in jiffies
 * @seq:	changes of policy that its owners had seen then
 * @owner:	slot of the address space that it was accessed in
 * @order:	how large it was then
 */
struct knuma_entry {
	unsigned long pfn;
	u32 mapping;
	u32 queued;
	u32 seq;
	u8 owner;
	u8 order;
};

/**
 * struct knuma_ring - What is to move from one node to another.
 * @lock:	of all below. Taken under a page table lock; nothing is taken
 *		under it.
 * @fifo:	the entries
 * @pages:	of them; may be read without @lock
 *
 * An entry is a hint: the daemon finds out what is there now, and migrates
 * what may still migrate. So a lost entry costs a hinting fault, and one that
 * is stale a look at its folio.
 */
struct knuma_ring {
	spinlock_t lock;	/* of all of it */
	DECLARE_KFIFO_PTR(fifo, struct knuma_entry);
	unsigned long pages;
};

/**
 * knuma_ring_add() - Add entries, as far as there is room.
 * @ring:	the queue
 * @entries:	what is to be added
 * @nr:		how many
 *
 * Context: Caller holds @ring->lock.
 * Return: pages that were added.
 */
static inline unsigned long
knuma_ring_add(struct knuma_ring *ring, const struct knuma_entry *entries,
	       unsigned int nr)
{
	unsigned long pages = 0;
	unsigned int i;

	nr = kfifo_in(&ring->fifo, entries, nr);
	for (i = 0; i < nr; i++)
		pages += 1UL << entries[i].order;
	WRITE_ONCE(ring->pages, ring->pages + pages);

	return pages;
}

/**
 * knuma_ring_take() - Take the oldest entries.
 * @ring:	the queue
 * @entries:	where to
 * @nr:		how many there is room for
 * @most:	pages of them, but that the last one may be larger
 *
 * Context: Caller holds @ring->lock.
 * Return: how many were taken.
 */
static inline unsigned int
knuma_ring_take(struct knuma_ring *ring, struct knuma_entry *entries,
		unsigned int nr, unsigned long most)
{
	unsigned long pages = 0;
	unsigned int i;

	for (i = 0; i < nr && pages < most; i++) {
		if (!kfifo_get(&ring->fifo, &entries[i]))
			break;
		pages += 1UL << entries[i].order;
	}
	WRITE_ONCE(ring->pages, ring->pages - pages);

	return i;
}

/* Pages that wait; a snapshot, without the lock. */
static inline unsigned long knuma_ring_pages(const struct knuma_ring *ring)
{
	return READ_ONCE(ring->pages);
}

/* How long an entry has waited, in jiffies. */
static inline u32 knuma_entry_age(const struct knuma_entry *entry,
				  unsigned long now)
{
	return lower_32_bits(now) - entry->queued;
}

/**
 * knuma_must_wake() - Does the daemon have to know?
 * @waiting:	pages that wait now
 * @added:	those that were just added, under the same hold of the lock
 * @enough:	when it is worth to begin
 *
 * The first ones that wait start its clock, and those that make it enough end
 * it. It sleeps only if it has seen nothing wait: whoever ends that wakes it.
 * See Documentation/litmus-tests/mm/knuma-sleep.litmus.
 *
 * Return: true if it is to be woken.
 */
static inline bool knuma_must_wake(unsigned long waiting, unsigned long added,
				   unsigned long enough)
{
	return added && (waiting == added ||
			 (waiting >= enough && waiting - added < enough));
}

/**
 * knuma_next_source() - The node whose queue is served next.
 * @waiting:	nodes that have something
 * @last:	the one that was served last
 *
 * Return: the next one in turn, or NUMA_NO_NODE.
 */
static inline int knuma_next_source(const nodemask_t *waiting, int last)
{
	if (nodes_empty(*waiting))
		return NUMA_NO_NODE;

	return next_node_in(last, *waiting);
}

/* Parts of address spaces that were queued a moment ago. */
#define KNUMA_RECENT		512

/**
 * struct knuma_recent - What was queued around a fault not long ago.
 * @slots:	which part in the upper half; in the lower one when, in jiffies,
 *		and in its lowest bit whether all of it was queued
 *
 * Neighbours stay inaccessible while they wait. The next fault beside them
 * must not queue them again. What is forgotten, as two parts share a slot,
 * is queued twice; the second one finds it moved.
 */
struct knuma_recent {
	u64 slots[KNUMA_RECENT];
};

/*
 * A part of an address space, and whose that is. Those that follow each other
 * have slots of their own; hash_64() would leave nothing of the upper half.
 */
static inline u64 knuma_part(pid_t tgid, unsigned long number)
{
	return (number + tgid * GOLDEN_RATIO_64) * GOLDEN_RATIO_64;
}

enum knuma_part_state {
	KNUMA_PART_NEW,		/* or queued too long ago */
	KNUMA_PART_TRIED,	/* there was not room for all of it */
	KNUMA_PART_QUEUED,
};

/**
 * knuma_recent_part() - Was this part queued a moment ago?
 * @recent:	those that were
 * @part:	from knuma_part()
 * @now:	time, in jiffies
 * @moment:	in jiffies
 *
 * Return: whether it was, and whether all of it was.
 */
static inline enum knuma_part_state
knuma_recent_part(const struct knuma_recent *recent, u64 part,
		  unsigned long now, u32 moment)
{
	u64 was = READ_ONCE(recent->slots[part % KNUMA_RECENT]);

	if (!was || upper_32_bits(was) != upper_32_bits(part) ||
	    (lower_32_bits(now) & ~1U) - (lower_32_bits(was) & ~1U) > moment)
		return KNUMA_PART_NEW;

	return was & 1 ? KNUMA_PART_QUEUED : KNUMA_PART_TRIED;
}

/* Remember that it was queued now, or tried to. */
static inline void knuma_recent_set(struct knuma_recent *recent, u64 part,
				    unsigned long now, bool all)
{
	WRITE_ONCE(recent->slots[part % KNUMA_RECENT],
		   (part & ~(u64)U32_MAX) | (lower_32_bits(now) & ~1U) | all);
}

/**
 * struct knuma_bucket - How many pages may move.
 * @tokens:	so many now; a huge page may leave a debt
 * @filled:	when it was filled, in jiffies
 * @rest:	parts of a page that had become allowed by then, of a period
 */
struct knuma_bucket {
	long tokens;
	unsigned long filled;
	u64 rest;
};

/**
 * knuma_bucket_fill() - Add what has become allowed since the last time.
 * @bucket:	the bucket
 * @now:	time, in jiffies
 * @pages:	that may move in a period, and that it holds at most
 * @period:	in jiffies, not 0
 *
 * Return: pages that may move now.
 */
static inline long knuma_bucket_fill(struct knuma_bucket *bucket,
				     unsigned long now, unsigned long pages,
				     unsigned long period)
{
	/* A debt may be one of many periods. */
	unsigned long passed = min(now - bucket->filled, (unsigned long)U32_MAX);
	u64 more = div64_u64_rem((u64)pages * passed + bucket->rest, period,
				 &bucket->rest);

	bucket->filled = now;
	bucket->tokens = min_t(s64, bucket->tokens + more, pages);

	return max(bucket->tokens, 0L);
}

/* Jiffies until so many may move; not more than in a period. */
static inline unsigned long
knuma_bucket_wait(const struct knuma_bucket *bucket, unsigned long wanted,
		  unsigned long pages, unsigned long period)
{
	long missing = (long)wanted - bucket->tokens;

	return missing > 0 ? div64_ul((u64)missing * period, pages) + 1 : 0;
}

/* After how many jiffies a node that was full is looked at again. */
static inline unsigned long knuma_back_off(unsigned int times,
					   unsigned long least,
					   unsigned long most)
{
	return min(least << min(times, 16U), most);
}

#endif /* _MM_KNUMA_QUEUE_H */
