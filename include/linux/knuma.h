/* SPDX-License-Identifier: GPL-2.0 */
/*
 * NUMA balancing that a task does not wait for. See
 * Documentation/admin-guide/mm/knuma.rst.
 */
#ifndef _LINUX_KNUMA_H
#define _LINUX_KNUMA_H

#include <linux/hash.h>
#include <linux/jump_label.h>
#include <linux/mm.h>
#include <linux/mm_types.h>
#include <linux/sched/numa_balancing.h>
#include <linux/topology.h>

struct task_struct;
struct vm_fault;

/* How long a folio may be on its way, in jiffies. */
#define KNUMA_OLD_JIFFIES	(2 * HZ)

#ifdef CONFIG_KNUMA
/**
 * struct knuma_knobs - What can be set in /sys/kernel/mm/autonuma/.
 * @debug:		daemons write to the kernel log
 * @defer_order:	folios of this order and above are queued
 * @faultaround_pages:	that are looked at around a fault; 0 or a power of two
 * @wake_pages:		a daemon begins when so many wait,
 * @wake_millisecs:	or when they have waited that long
 * @batch_pages:	that are unmapped at once
 * @pages_to_migrate:	at most, to a node,
 * @migrate_sleep_millisecs: in this time
 * @working_set:	what was not touched in the last pass does not count
 * @load_balance_strict: only idle CPUs take a task from its preferred node
 * @scan_enabled:	knuma_scand walks, rather than the tasks
 * @scan_sleep_millisecs: between two rounds of it
 * @scan_sleep_pass_millisecs: between two passes over an address space
 * @pages_to_scan:	in a round of an address space
 */
struct knuma_knobs {
	unsigned int debug;
	unsigned int defer_order;
	unsigned int faultaround_pages;
	unsigned int wake_pages;
	unsigned int wake_millisecs;
	unsigned int batch_pages;
	unsigned int pages_to_migrate;
	unsigned int migrate_sleep_millisecs;
	unsigned int working_set;
	unsigned int load_balance_strict;
	unsigned int scan_enabled;
	unsigned int scan_sleep_millisecs;
	unsigned int scan_sleep_pass_millisecs;
	unsigned int pages_to_scan;
};

extern struct knuma_knobs knuma_knobs;

DECLARE_STATIC_KEY_FALSE(knuma_enabled);

u32 __knuma_seq(const struct mm_struct *mm, const struct folio *folio);
bool __knuma_queue(struct vm_fault *vmf, struct folio *folio, u32 seq,
		   int target_nid, int *nid, int *flags);
int __knuma_queue_around(struct vm_fault *vmf, struct folio *folio,
			 int target_nid);
void __knuma_policy_changed(const struct mm_struct *mm);
void __knuma_mems_changed(struct task_struct *task);
void __knuma_mems_settle(void);
void __knuma_mapping_changed(const struct address_space *mapping);

/* Has a fault something to queue for; for what takes time to prepare it. */
static inline bool knuma_is_enabled(void)
{
	return static_branch_unlikely(&knuma_enabled);
}

/**
 * knuma_seq() - Before it is decided whether a folio is to move.
 * @mm:		address space that has accessed it
 * @folio:	the folio
 *
 * Most faults find their folio where they are, and pay a comparison: it is
 * not queued, whatever the policy has in mind for it.
 *
 * Context: Under the page table lock, on one CPU until knuma_queue().
 * Return: for knuma_queue().
 */
static inline u32 knuma_seq(const struct mm_struct *mm, const struct folio *folio)
{
	if (!knuma_is_enabled() || folio_nid(folio) == numa_node_id())
		return 0;

	return __knuma_seq(mm, folio);
}

/**
 * knuma_queue() - Have a folio migrated later, if that is how it is set up.
 * @vmf:	the hinting fault
 * @folio:	what it has hit; misplaced
 * @seq:	from knuma_seq(), before that was decided
 * @target_nid:	where it should be
 * @nid:	set to the node that the fault counts for
 * @flags:	TNF_QUEUED is added, or TNF_MIGRATE_FAIL if there is no room
 *
 * Context: Under the page table lock. Does not sleep or allocate.
 * Return: true if the fault is to make the folio accessible where it is;
 * false if it is to migrate it, as without this.
 */
static inline bool knuma_queue(struct vm_fault *vmf, struct folio *folio,
			       u32 seq, int target_nid, int *nid, int *flags)
{
	return knuma_is_enabled() &&
	       __knuma_queue(vmf, folio, seq, target_nid, nid, flags);
}

/**
 * knuma_queue_around() - Queue neighbours of a folio that was queued.
 * @vmf:	the hinting fault, in a page table
 * @folio:	what it has hit
 * @target_nid:	where it is to go
 * @flags:	TNF_QUEUED if it was
 *
 * They stay inaccessible. Looks at faultaround_pages entries of one page table
 * at most.
 *
 * Context: As knuma_queue().
 * Return: how many pages; they count as if they had been hit.
 */
static inline int knuma_queue_around(struct vm_fault *vmf, struct folio *folio,
				     int target_nid, int flags)
{
	if (!knuma_is_enabled() || !(flags & TNF_QUEUED))
		return 0;

	return __knuma_queue_around(vmf, folio, target_nid);
}

/**
 * knuma_init_mm() - Whose changes of policy count for an address space.
 * @mm:		one that is new: all 0, or a copy of the one that forks
 *
 * What a task has queued may be its child's alone by the time that it is
 * migrated. So a child counts with its parent; a new program begins anew.
 */
static inline void knuma_init_mm(struct mm_struct *mm)
{
	if (!mm->knuma_owner)
		mm->knuma_owner = 1 + hash_ptr(mm, 32) % U8_MAX;
}

/**
 * knuma_policy_changed() - Forget what was decided under another policy.
 * @mm:		whose memory policy has changed
 *
 * When it returns, nothing that was queued before for @mm is being migrated
 * or will be.
 *
 * Context: May sleep. Waits for a batch that has something of @mm.
 */
static inline void knuma_policy_changed(const struct mm_struct *mm)
{
	if (knuma_is_enabled())
		__knuma_policy_changed(mm);
}

/**
 * knuma_mems_changed() - The same of the nodes of a task, but does not wait.
 * @task:	it may have no memory
 *
 * For each of many: knuma_mems_settle() then waits for all.
 */
static inline void knuma_mems_changed(struct task_struct *task)
{
	if (knuma_is_enabled())
		__knuma_mems_changed(task);
}

/**
 * knuma_mems_settle() - Wait for what knuma_mems_changed() did not wait for.
 *
 * Context: May sleep. Waits for a batch of each node.
 */
static inline void knuma_mems_settle(void)
{
	if (knuma_is_enabled())
		__knuma_mems_settle();
}

/**
 * knuma_mapping_changed() - The same, of a file whose policy has changed.
 * @mapping:	the file's; others may have queued its folios, too
 */
static inline void knuma_mapping_changed(const struct address_space *mapping)
{
	if (knuma_is_enabled())
		__knuma_mapping_changed(mapping);
}
#else /* !CONFIG_KNUMA */
static inline bool knuma_is_enabled(void)
{
	return false;
}

static inline u32 knuma_seq(const struct mm_struct *mm, const struct folio *folio)
{
	return 0;
}

static inline bool knuma_queue(struct vm_fault *vmf, struct folio *folio,
			       u32 seq, int target_nid, int *nid, int *flags)
{
	return false;
}

static inline int knuma_queue_around(struct vm_fault *vmf, struct folio *folio,
				     int target_nid, int flags)
{
	return 0;
}

static inline void knuma_init_mm(struct mm_struct *mm)
{
}

static inline void knuma_policy_changed(const struct mm_struct *mm)
{
}

static inline void knuma_mems_changed(struct task_struct *task)
{
}

static inline void knuma_mems_settle(void)
{
}

static inline void knuma_mapping_changed(const struct address_space *mapping)
{
}
#endif /* CONFIG_KNUMA */

#endif /* _LINUX_KNUMA_H */
