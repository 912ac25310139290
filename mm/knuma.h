/* SPDX-License-Identifier: GPL-2.0 */
/*
 * NUMA migration outside of page faults: what its files share.
 */
#ifndef _MM_KNUMA_H
#define _MM_KNUMA_H

#include <linux/bitmap.h>
#include <linux/knuma.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/wait.h>

#include "knuma_queue.h"

/* What becomes of an entry of a queue. */
enum knuma_fate {
	KNUMA_TAKEN,	/* isolated, to be migrated */
	KNUMA_OLD,	/* has waited too long */
	KNUMA_POLICY,	/* memory policy or cpuset has changed since */
	KNUMA_GONE,	/* no such folio any more */
	KNUMA_MOVED,	/* is on another node already */
	KNUMA_SHARED,	/* was last accessed from elsewhere */
	KNUMA_PINNED,	/* somebody does I/O on it */
	KNUMA_DIRTY,	/* of a file, and written to */
	KNUMA_BUSY,	/* not to be isolated */
	KNUMA_FATES
};

/* How long entries have waited, in powers of two of a jiffy. */
#define KNUMA_AGES	12

/**
 * struct knuma_node - What is to move to a node, and who moves it.
 * @nid:	the node
 * @task:	knuma_migrated; NULL if it does not run
 * @wait:	where it waits for work
 * @lock:	held from the check of the first entry of a batch until the
 *		batch has moved. To take and release it waits for the batch.
 * @owners:	address spaces that have something in the batch; under @lock
 * @mappings:	files, or anon_vmas, that have
 * @last:	source that was served last; of the daemon
 * @bucket:	how much may move; of the daemon
 * @full:	how often in turn the node had no memory; of the daemon
 * @closed:	it has none for what comes: nothing is queued
 * @fates:	what became of entries; of the daemon
 * @ages:	how long they had waited; of the daemon
 * @migrated:	pages that have moved; of the daemon
 * @failed:	pages that have not; of the daemon
 * @recent:	what faults have queued around them
 * @need:	sources for which a queue is to be made
 * @rings:	a queue for each source node, or NULL. Read under RCU.
 *
 * Lock order: knuma_lock, those of hotplug and of cpusets, mmap_lock, a vma's >
 * knuma_node.lock > locks of migration. The page table lock > knuma_ring.lock.
 */
struct knuma_node {
	int nid;
	struct task_struct *task;
	wait_queue_head_t wait;
	struct mutex lock;		/* a batch, see above */
	DECLARE_BITMAP(owners, KNUMA_OWNERS);
	DECLARE_BITMAP(mappings, KNUMA_OWNERS);
	int last;
	struct knuma_bucket bucket;
	unsigned int full;
	bool closed;
	unsigned long fates[KNUMA_FATES];
	unsigned long ages[KNUMA_AGES];
	unsigned long migrated;
	unsigned long failed;
	struct knuma_recent recent;
	nodemask_t need;
	struct knuma_ring __rcu *rings[];
};

/* By node; made once, when a node gets its first daemon. */
extern struct knuma_node *knuma_nodes[MAX_NUMNODES];

/*
 * Whether a CPU of the node has accessed it last. @last may be none, or a time
 * that is left of memory tiering; that cpupid_pid_unset() is true for one pid
 * in 256, too, does not matter here.
 */
static inline bool knuma_last_on(int last, int nid)
{
	unsigned int cpu = cpupid_to_cpu(last);

	return cpu < nr_cpu_ids && cpu_to_node(cpu) == nid;
}

bool knuma_entry_holds(struct knuma_node *node, const struct knuma_entry *entry,
		       const struct folio *folio);

int knuma_migrated_run(int nid);
void knuma_migrated_stop(int nid);

void knuma_scand_update(void);

struct knuma_node *knuma_node_that_takes(int nid);
void knuma_fill(struct knuma_entry *entry, const struct mm_struct *mm,
		const struct folio *folio, u32 seq);
unsigned long knuma_add(struct knuma_node *node, int nid,
			const struct knuma_entry *entries, unsigned int nr);

void knuma_enable(bool enable);

#endif /* _MM_KNUMA_H */
