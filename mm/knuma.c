// SPDX-License-Identifier: GPL-2.0
/*
 * NUMA migration outside of page faults. A hinting fault queues the folio that
 * it has found on the wrong node, and makes it accessible where it is. The
 * knuma_migrated of the right node migrates it soon after, in a batch.
 *
 * Andrea Arcangeli's AutoNUMA had such daemons in 2012:
 * https://lore.kernel.org/all/1345647560-30387-20-git-send-email-aarcange@redhat.com/
 * Unlike there, a queued folio carries nothing of it: it stays on its LRU list
 * with no reference held, so that compaction, CMA and memory hotplug find it
 * as before. An entry is a page frame number; who takes it finds out anew
 * whether there is a folio to migrate.
 *
 * What must never happen is that a folio moves where a policy or cpuset that
 * has changed since it was queued no longer lets it. Who changes them makes the
 * change, then counts it in owner_seq or mapping_seq, then waits for batches
 * that have something of that owner. A fault reads the count before it looks at
 * the policy. So an entry has an older count than now if its policy may have
 * changed, and a batch drops it; or the batch had looked before, and is waited
 * for, see Documentation/litmus-tests/mm/knuma-policy.litmus. Those who fork
 * share a count, see knuma_init_mm().
 */

#include <linux/cpuhotplug.h>
#include <linux/cpuset.h>
#include <linux/hash.h>
#include <linux/memory-tiers.h>
#include <linux/memory.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/node.h>
#include <linux/rcupdate.h>
#include <linux/sched/numa_balancing.h>
#include <linux/sched/sysctl.h>
#include <linux/sched/task.h>
#include <linux/sizes.h>
#include <linux/vmstat.h>

#include "internal.h"
#include "knuma.h"

#define CREATE_TRACE_POINTS
#include <trace/events/knuma.h>

DEFINE_STATIC_KEY_FALSE(knuma_enabled);

struct knuma_knobs knuma_knobs = {
	.wake_pages = 512,
	.wake_millisecs = 20,
	.batch_pages = 32,
	.pages_to_migrate = SZ_128M / PAGE_SIZE,
	.migrate_sleep_millisecs = 100,
	.faultaround_pages = 128,
	.scan_sleep_millisecs = 100,
	.pages_to_scan = SZ_256M / PAGE_SIZE,
};

struct knuma_node *knuma_nodes[MAX_NUMNODES];

/* Starts and stops daemons; innermost to locks of hotplug. */
static DEFINE_MUTEX(knuma_lock);

/* Changes of policy: of address spaces, and of files that are mapped. */
static atomic_t owner_seq[KNUMA_OWNERS];
static atomic_t mapping_seq[KNUMA_OWNERS];

static u32 mapping_of(const struct folio *folio)
{
	return hash_ptr(READ_ONCE(folio->mapping), 32);
}

/* How often the policy has changed that an entry is queued under. */
static u32 current_seq(u8 owner, u32 mapping)
{
	return atomic_read(&owner_seq[owner]) +
	       atomic_read(&mapping_seq[mapping % KNUMA_OWNERS]);
}

/**
 * knuma_entry_holds() - Was it decided under the policy of now?
 * @node:	whose daemon asks
 * @entry:	what it has taken
 * @folio:	what is there now
 *
 * Either this sees that the policy has changed, or who has changed it sees
 * whose folios are in the batch, and waits.
 *
 * Context: Under @node->lock, which is held until the folio has moved.
 * Return: false if it may have changed, or the folio is another one.
 */
bool knuma_entry_holds(struct knuma_node *node, const struct knuma_entry *entry,
		       const struct folio *folio)
{
	if (entry->mapping != mapping_of(folio))
		return false;
	set_bit(entry->owner, node->owners);
	set_bit(entry->mapping % KNUMA_OWNERS, node->mappings);
	/* Pairs with knuma_wait(): before the counts are looked at. */
	smp_mb__after_atomic();

	return entry->seq == current_seq(entry->owner, entry->mapping);
}

static void knuma_wait(unsigned int slot, bool mapping)
{
	int nid;

	/* Pairs with knuma_entry_holds(). */
	smp_mb__after_atomic();
	for_each_node(nid) {
		struct knuma_node *node = READ_ONCE(knuma_nodes[nid]);

		if (!node || !test_bit(slot, mapping ? node->mappings : node->owners))
			continue;
		mutex_lock(&node->lock);
		mutex_unlock(&node->lock);
	}
}

static void count_change(atomic_t *seq)
{
	/* Pairs with __knuma_seq(): who sees the count sees the change. */
	smp_mb__before_atomic();
	atomic_inc(seq);
}

void __knuma_policy_changed(const struct mm_struct *mm)
{
	count_change(&owner_seq[mm->knuma_owner]);
	knuma_wait(mm->knuma_owner, false);
}

void __knuma_mems_changed(struct task_struct *task)
{
	/* It may be about to exit. */
	guard(task_lock)(task);
	if (task->mm)
		count_change(&owner_seq[task->mm->knuma_owner]);
}

/* See Documentation/litmus-tests/mm/knuma-settle.litmus. */
static void wait_for_batches(void)
{
	int nid;

	for_each_node(nid) {
		struct knuma_node *node = READ_ONCE(knuma_nodes[nid]);

		if (!node)
			continue;
		mutex_lock(&node->lock);
		mutex_unlock(&node->lock);
	}
}

/* A batch that begins later sees the counts. */
void __knuma_mems_settle(void)
{
	wait_for_batches();
}

void __knuma_mapping_changed(const struct address_space *mapping)
{
	u32 slot = hash_ptr(mapping, 32) % KNUMA_OWNERS;

	count_change(&mapping_seq[slot]);
	knuma_wait(slot, true);
}

u32 __knuma_seq(const struct mm_struct *mm, const struct folio *folio)
{
	u32 seq = current_seq(mm->knuma_owner, mapping_of(folio));

	/* Pairs with count_change(): before the policy is looked at. */
	smp_rmb();

	return seq;
}

/**
 * knuma_add() - Add entries to a queue, and wake the daemon if it is worth it.
 * @node:	where they are to go
 * @nid:	where they are
 * @entries:	what is to move
 * @nr:		how many
 *
 * Context: Under a page table lock and RCU.
 * Return: how many pages there was room for.
 */
unsigned long knuma_add(struct knuma_node *node, int nid,
			const struct knuma_entry *entries, unsigned int nr)
{
	unsigned long enough = READ_ONCE(knuma_knobs.wake_pages), added;
	struct knuma_ring *ring = rcu_dereference(node->rings[nid]);
	bool wake;

	if (!ring || READ_ONCE(node->closed))
		return 0;

	spin_lock(&ring->lock);
	added = knuma_ring_add(ring, entries, nr);
	wake = knuma_must_wake(ring->pages, added, enough);
	spin_unlock(&ring->lock);
	if (wake)
		wake_up(&node->wait);
	count_vm_events(KNUMA_QUEUED, added);

	return added;
}

void knuma_fill(struct knuma_entry *entry, const struct mm_struct *mm,
		const struct folio *folio, u32 seq)
{
	*entry = (struct knuma_entry) {
		.pfn = folio_pfn(folio),
		.mapping = mapping_of(folio),
		.queued = jiffies,
		.seq = seq,
		.owner = mm->knuma_owner,
		.order = folio_order(folio),
	};
}

/* The node, if it has a daemon that may take folios of current. Under RCU. */
struct knuma_node *knuma_node_that_takes(int nid)
{
	struct knuma_node *node = READ_ONCE(knuma_nodes[nid]);

	if (!node || !READ_ONCE(node->task))
		return NULL;
	/* In a fault the allocator sees to that, for the task that faults. */
	if (cpusets_enabled() && !node_isset(nid, cpuset_current_mems_allowed))
		return NULL;

	return node;
}

/* If there is no queue, the daemon is to make one; until then, faults migrate. */
static bool has_ring(struct knuma_node *node, int nid)
{
	if (likely(rcu_access_pointer(node->rings[nid])))
		return true;
	if (!node_test_and_set(nid, node->need))
		wake_up(&node->wait);

	return false;
}

bool __knuma_queue(struct vm_fault *vmf, struct folio *folio, u32 seq,
		   int target_nid, int *nid, int *flags)
{
	struct vm_area_struct *vma = vmf->vma;
	struct knuma_node *node;
	struct knuma_entry entry;

	/* knuma_seq() has not looked. */
	if (*nid == numa_node_id())
		return false;
	/* What knuma_migrated_stop() waits for. */
	guard(rcu)();
	if (folio_order(folio) < READ_ONCE(knuma_knobs.defer_order))
		return false;
	node = knuma_node_that_takes(target_nid);
	if (!node)
		return false;
	/* A fault in a system with tiers has a full node make room. */
	if (READ_ONCE(node->closed) &&
	    (sysctl_numa_balancing_mode & NUMA_BALANCING_MEMORY_TIERING))
		return false;
	/* Promotion has a rate of its own, and wakes who makes room for it. */
	if (folio_use_access_time(folio))
		return false;
	/* For those who share it, the policy of one of them does not count. */
	if (folio_maybe_mapped_shared(folio) &&
	    (folio_test_anon(folio) || folio_is_file_lru(folio)))
		return false;
	/* As migrate_misplaced_folio_prepare() has it. */
	if (folio_is_file_lru(folio) && folio_test_dirty(folio))
		return false;
	if (!has_ring(node, *nid))
		return false;

	knuma_fill(&entry, vma->vm_mm, folio, seq);
	if (!knuma_add(node, *nid, &entry, 1)) {
		*flags |= TNF_MIGRATE_FAIL;
		count_vm_events(KNUMA_QUEUE_FULL, folio_nr_pages(folio));
		return true;
	}
	trace_knuma_queue(folio, *nid, target_nid, false);

	/* Counts for where it will be; 2012 did so, too. */
	*flags |= TNF_QUEUED;
	*nid = target_nid;
	return true;
}

static bool has_daemon(int nid)
{
	return node_state(nid, N_MEMORY) && node_state(nid, N_CPU);
}

/* Without one, faults migrate, as without all this. */
static void run_daemon(int nid)
{
	int err = has_daemon(nid) ? knuma_migrated_run(nid) : 0;

	if (err)
		pr_warn("knuma: no daemon for node %d: error %d\n", nid, err);
}

/**
 * knuma_enable() - Turn it on or off.
 * @enable:	which of them
 *
 * Context: Waits for the batches of all daemons when it is turned off.
 */
void knuma_enable(bool enable)
{
	int nid, i;

	guard(cpus_read_lock)();
	guard(mutex)(&knuma_lock);
	if (enable == static_key_enabled(&knuma_enabled))
		return;
	if (enable) {
		static_branch_enable_cpuslocked(&knuma_enabled);
		/* What was changed before may not have been counted. */
		for (i = 0; i < KNUMA_OWNERS; i++) {
			count_change(&owner_seq[i]);
			count_change(&mapping_seq[i]);
		}
		for_each_online_node(nid)
			run_daemon(nid);
	} else {
		/* Who changes a policy waits for a batch until there is none. */
		for_each_node(nid)
			knuma_migrated_stop(nid);
		static_branch_disable_cpuslocked(&knuma_enabled);
	}
}

/* A node may get its first CPU. That the last one goes does no harm. */
static int cpu_comes(unsigned int cpu)
{
	guard(mutex)(&knuma_lock);
	if (static_key_enabled(&knuma_enabled))
		run_daemon(cpu_to_node(cpu));

	return 0;
}

/*
 * Nobody holds what goes offline when it begins, nor looks at it when it is
 * over: the memory map may go next.
 */
static int memory_changes(struct notifier_block *nb, unsigned long action,
			  void *arg)
{
	if (action == MEM_GOING_OFFLINE || action == MEM_OFFLINE)
		wait_for_batches();

	return NOTIFY_OK;
}

static int node_changes(struct notifier_block *nb, unsigned long action,
			void *arg)
{
	int nid = ((struct node_notify *)arg)->nid;

	guard(mutex)(&knuma_lock);
	if (!static_key_enabled(&knuma_enabled))
		return NOTIFY_OK;
	switch (action) {
	case NODE_REMOVING_LAST_MEMORY:
	case NODE_REMOVED_LAST_MEMORY:
		knuma_migrated_stop(nid);
		break;
	case NODE_CANCEL_REMOVING_LAST_MEMORY:
	case NODE_ADDED_FIRST_MEMORY:
		run_daemon(nid);
		break;
	}

	return NOTIFY_OK;
}

static int __init knuma_init(void)
{
	int err;

	err = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "mm/knuma:online",
					cpu_comes, NULL);
	if (err < 0)
		return err;
	hotplug_memory_notifier(memory_changes, DEFAULT_CALLBACK_PRI);
	hotplug_node_notifier(node_changes, DEFAULT_CALLBACK_PRI);

	return 0;
}
late_initcall(knuma_init);
