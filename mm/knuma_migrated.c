// SPDX-License-Identifier: GPL-2.0
/*
 * knuma_migrated: a daemon for each node migrates to it what hinting faults
 * have queued. It takes turns among the nodes that folios come from, as in
 * 2012, and goes on where it stopped.
 */

#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/log2.h>
#include <linux/memory_hotplug.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmstat.h>

#include "internal.h"
#include "knuma.h"

#include <trace/events/knuma.h>

/* Entries that a batch looks at for each page that it may take. */
#define LOOKS_A_PAGE	4

/* When a node that has no memory is looked at again. */
#define BACK_OFF_LEAST	(HZ / 10)
#define BACK_OFF_MOST	(4 * HZ)

/**
 * struct knuma_batch - What is about to move.
 * @folios:	isolated
 * @pages:	of them
 * @most:	of them, but that the last folio may be larger
 * @looks:	entries that may still be looked at
 */
struct knuma_batch {
	struct list_head folios;
	unsigned long pages;
	unsigned long most;
	unsigned long looks;
};

static enum knuma_fate may_take(struct knuma_node *node, int src,
				struct folio *folio)
{
	if (folio_nid(folio) != src)
		return KNUMA_MOVED;
	if (folio_is_zone_device(folio) || !folio_mapped(folio))
		return KNUMA_GONE;
	/* Others that map it may be allowed less; and it is not for one task. */
	if (folio_test_ksm(folio) ||
	    (folio_maybe_mapped_shared(folio) &&
	     (folio_test_anon(folio) || folio_is_file_lru(folio))))
		return KNUMA_SHARED;
	if (folio_use_access_time(folio))
		return KNUMA_GONE;
	if (!knuma_last_on(folio_last_cpupid(folio), node->nid))
		return KNUMA_SHARED;
	if (folio_maybe_dma_pinned(folio))
		return KNUMA_PINNED;
	if (folio_is_file_lru(folio) && folio_test_dirty(folio))
		return KNUMA_DIRTY;

	return KNUMA_TAKEN;
}

/* There is room for as many pages as a batch has, but the last may be larger. */
static bool fits(struct knuma_node *node, struct folio *folio,
		 struct knuma_batch *batch)
{
	unsigned long pages = batch->pages + folio_nr_pages(folio);

	return pages <= batch->most || migrate_has_room(node->nid, pages);
}

/*
 * Whether there is something to migrate is found out from nothing but a page
 * frame number: the page may be free by now, of somebody else, or a part of
 * something larger.
 */
static enum knuma_fate take_folio(struct knuma_node *node, int src,
				  const struct knuma_entry *entry,
				  struct knuma_batch *batch)
{
	struct page *page;
	struct folio *folio;
	enum knuma_fate fate;

	if (knuma_entry_age(entry, jiffies) > KNUMA_OLD_JIFFIES)
		return KNUMA_OLD;
	page = pfn_to_online_page(entry->pfn);
	if (!page)
		return KNUMA_GONE;
	folio = page_folio(page);
	if (!folio_try_get(folio))
		return KNUMA_GONE;
	if (page_folio(page) != folio || folio_pfn(folio) != entry->pfn ||
	    !folio_test_lru(folio)) {
		fate = KNUMA_GONE;
	} else {
		fate = may_take(node, src, folio);
		if (fate == KNUMA_TAKEN && !knuma_entry_holds(node, entry, folio))
			fate = KNUMA_POLICY;
		if (fate == KNUMA_TAKEN &&
		    (!fits(node, folio, batch) ||
		     !isolate_folio_to_list(folio, &batch->folios)))
			fate = KNUMA_BUSY;
	}
	if (fate == KNUMA_TAKEN)
		batch->pages += folio_nr_pages(folio);
	/* Who has isolated it has a reference of its own. */
	folio_put(folio);

	return fate;
}

static void take_entry(struct knuma_node *node, int src,
		       const struct knuma_entry *entry, struct knuma_batch *batch)
{
	u32 age = knuma_entry_age(entry, jiffies);
	enum knuma_fate fate;

	node->ages[min(fls(age), KNUMA_AGES - 1)]++;
	fate = take_folio(node, src, entry, batch);
	node->fates[fate]++;
	if (fate == KNUMA_TAKEN)
		return;
	trace_knuma_drop(entry->pfn, src, node->nid, fate, age);
	count_vm_events(KNUMA_DROPPED, 1UL << entry->order);
}

/* From one source, as much as it has a turn for, or one huge page. */
static void take_quantum(struct knuma_node *node, int src,
			 struct knuma_ring *ring, struct knuma_batch *batch)
{
	unsigned long most = min(batch->pages + KNUMA_QUANTUM, batch->most);
	struct knuma_entry entries[8];
	unsigned int nr, i;

	while (batch->pages < most && batch->looks) {
		nr = min_t(unsigned long, ARRAY_SIZE(entries), batch->looks);
		spin_lock(&ring->lock);
		nr = knuma_ring_take(ring, entries, nr, most - batch->pages);
		spin_unlock(&ring->lock);
		if (!nr)
			break;
		for (i = 0; i < nr; i++)
			take_entry(node, src, &entries[i], batch);
		batch->looks -= nr;
	}
}

/* The daemon alone makes queues, and frees them when it is about to end. */
static struct knuma_ring *ring_of(struct knuma_node *node, int src)
{
	return rcu_dereference_protected(node->rings[src], true);
}

/* Which nodes something waits from; returns how many pages. */
static unsigned long waiting_from(struct knuma_node *node, nodemask_t *sources)
{
	unsigned long pages, all = 0;
	int src;

	nodes_clear(*sources);
	for_each_node(src) {
		pages = ring_of(node, src) ? knuma_ring_pages(ring_of(node, src)) : 0;
		if (pages)
			node_set(src, *sources);
		all += pages;
	}

	return all;
}

static unsigned long waiting(struct knuma_node *node)
{
	nodemask_t sources;

	return waiting_from(node, &sources);
}

static void collect(struct knuma_node *node, struct knuma_batch *batch,
		    unsigned long pages)
{
	nodemask_t sources;
	int src;

	batch->pages = 0;
	batch->most = pages;
	batch->looks = LOOKS_A_PAGE * pages;
	INIT_LIST_HEAD(&batch->folios);
	waiting_from(node, &sources);
	while (batch->pages < pages && batch->looks) {
		src = knuma_next_source(&sources, node->last);
		if (src == NUMA_NO_NODE)
			break;
		node->last = src;
		take_quantum(node, src, ring_of(node, src), batch);
		if (!knuma_ring_pages(ring_of(node, src)))
			node_clear(src, sources);
	}
}

/* The node has no memory for what comes: for a while, nothing is queued. */
static unsigned long close_node(struct knuma_node *node)
{
	unsigned long pause = knuma_back_off(node->full, BACK_OFF_LEAST, BACK_OFF_MOST);

	if (!node->closed)
		count_vm_event(KNUMA_STOPPED);
	WRITE_ONCE(node->closed, true);
	node->full++;
	trace_knuma_stop(node->nid, pause);
	if (READ_ONCE(knuma_knobs.debug))
		pr_info_ratelimited("knuma: node %d takes no memory, again in %u ms\n",
				    node->nid, jiffies_to_msecs(pause));

	return pause;
}

/* Migrates a batch. Returns for how many jiffies to pause after it. */
static unsigned long migrate_batch(struct knuma_node *node)
{
	unsigned long limit = READ_ONCE(knuma_knobs.pages_to_migrate);
	unsigned int ms = READ_ONCE(knuma_knobs.migrate_sleep_millisecs), moved;
	unsigned long period = max(1UL, msecs_to_jiffies(ms));
	struct knuma_batch batch;
	unsigned long pages;
	bool lacked;

	pages = min3(READ_ONCE(knuma_knobs.batch_pages), limit, waiting(node));
	/* Not for long without a look at the knobs. */
	if (knuma_bucket_fill(&node->bucket, jiffies, limit, period) < (long)pages)
		return min(knuma_bucket_wait(&node->bucket, pages, limit, period), HZ);
	if (!migrate_has_room(node->nid, pages))
		return close_node(node);
	WRITE_ONCE(node->closed, false);

	mutex_lock(&node->lock);
	collect(node, &batch, pages);
	moved = migrate_misplaced_folios(&batch.folios, node->nid, &lacked);
	/*
	 * No barrier is needed before this, see
	 * Documentation/litmus-tests/mm/knuma-batch-end.litmus.
	 */
	bitmap_zero(node->owners, KNUMA_OWNERS);
	bitmap_zero(node->mappings, KNUMA_OWNERS);
	mutex_unlock(&node->lock);

	node->bucket.tokens -= moved;
	node->migrated += moved;
	/* A folio that is split on the way counts for all of it. */
	node->failed += batch.pages - min_t(unsigned long, moved, batch.pages);
	if (batch.pages)
		trace_knuma_batch(node->nid, batch.pages, moved);
	if (moved)
		node->full = 0;
	/*
	 * There may be free memory, and none for huge pages. Faults have
	 * counted what they have queued as if it was here: they are to know.
	 */
	else if (lacked)
		return close_node(node);

	return 0;
}

/* If there is no memory for one, the next fault asks again, and migrates. */
static void make_rings(struct knuma_node *node)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN;
	const size_t bytes = sizeof(struct knuma_entry) *
		rounddown_pow_of_two(clamp(2 * KNUMA_RING_MOST / num_possible_nodes(),
					   KNUMA_RING_LEAST, KNUMA_RING_MOST));
	struct knuma_ring *ring;
	void *buffer;
	int src;

	for_each_node_mask(src, node->need) {
		node_clear(src, node->need);
		if (ring_of(node, src))
			continue;
		ring = kzalloc_node(sizeof(*ring), gfp, node->nid);
		if (!ring)
			continue;
		spin_lock_init(&ring->lock);
		buffer = kvmalloc_node(bytes, gfp, node->nid);
		if (!buffer || kfifo_init(&ring->fifo, buffer, bytes)) {
			kvfree(buffer);
			kfree(ring);
			continue;
		}
		rcu_assign_pointer(node->rings[src], ring);
	}
}

/* Nobody adds to them any more; but debugfs may look how many pages wait. */
static void free_rings(struct knuma_node *node)
{
	struct knuma_ring *ring;
	int src;

	for_each_node(src) {
		ring = rcu_replace_pointer(node->rings[src], NULL, true);
		if (!ring)
			continue;
		kvfree(ring->fifo.kfifo.data);
		kvfree_rcu_mightsleep(ring);
	}
}

static bool has_work(struct knuma_node *node)
{
	return kthread_should_stop() || !nodes_empty(node->need) || waiting(node);
}

static bool has_enough(struct knuma_node *node)
{
	return kthread_should_stop() || waiting(node) >= READ_ONCE(knuma_knobs.wake_pages);
}

static int knuma_migrated(void *arg)
{
	static const struct sched_param param = { };
	struct knuma_node *node = arg;
	unsigned long pause, migrated;

	/* It does not preempt the one that has just queued for it. */
	sched_setscheduler_nocheck(current, SCHED_BATCH, &param);
	set_freezable();
	while (!kthread_should_stop()) {
		wait_event_freezable(node->wait, has_work(node));
		make_rings(node);
		migrated = node->migrated;
		pause = msecs_to_jiffies(READ_ONCE(knuma_knobs.wake_millisecs));
		wait_event_freezable_timeout(node->wait, has_enough(node), pause);
		while (!kthread_should_stop() && waiting(node)) {
			make_rings(node);
			pause = migrate_batch(node);
			if (pause)
				wait_event_freezable_timeout(node->wait,
							     kthread_should_stop(),
							     pause);
			cond_resched();
			try_to_freeze();
		}
		if (READ_ONCE(knuma_knobs.debug) && node->migrated != migrated)
			pr_info_ratelimited("knuma: %lu pages to node %d\n",
					    node->migrated - migrated, node->nid);
	}

	return 0;
}

static struct knuma_node *node_alloc(int nid)
{
	struct knuma_node *node;

	/* Stays: not where it would keep memory from going offline. */
	node = kzalloc_flex(*node, rings, nr_node_ids);
	if (!node)
		return NULL;
	node->nid = nid;
	node->last = nid;
	init_waitqueue_head(&node->wait);
	mutex_init(&node->lock);

	return node;
}

/**
 * knuma_migrated_run() - Start the daemon of a node, if it has none.
 * @nid:	node that has memory
 *
 * Context: The caller excludes others that start or stop it.
 * Return: 0, or a negative errno; without a daemon, faults migrate.
 */
int knuma_migrated_run(int nid)
{
	struct knuma_node *node = knuma_nodes[nid];
	struct task_struct *task;

	if (!node) {
		node = node_alloc(nid);
		if (!node)
			return -ENOMEM;
		/*
		 * Faults that find the node find it initialized. See
		 * Documentation/litmus-tests/mm/knuma-node.litmus.
		 */
		smp_store_release(&knuma_nodes[nid], node);
	}
	if (node->task)
		return 0;
	node->closed = false;
	node->full = 0;
	node->bucket.tokens = READ_ONCE(knuma_knobs.pages_to_migrate);
	node->bucket.filled = jiffies;
	/* On any idle CPU: those of the node run who waits for this memory. */
	task = kthread_create(knuma_migrated, node, "knuma_migrated%d", nid);
	if (IS_ERR(task))
		return PTR_ERR(task);
	WRITE_ONCE(node->task, task);
	wake_up_process(task);

	return 0;
}

/**
 * knuma_migrated_stop() - Stop the daemon of a node.
 * @nid:	the node
 *
 * What was queued is forgotten: hinting faults will find it again.
 *
 * Context: As knuma_migrated_run(). Waits for a batch and a grace period.
 */
void knuma_migrated_stop(int nid)
{
	struct knuma_node *node = knuma_nodes[nid];
	struct task_struct *task = node ? node->task : NULL;

	if (!task)
		return;
	WRITE_ONCE(node->task, NULL);
	/*
	 * Faults that have found the task add to queues under RCU. See
	 * Documentation/litmus-tests/mm/knuma-stop.litmus.
	 */
	synchronize_rcu();
	kthread_stop(task);
	free_rings(node);
}
