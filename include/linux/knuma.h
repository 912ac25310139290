/* SPDX-License-Identifier: GPL-2.0 */
/*
 * NUMA migration outside of page faults. See
 * Documentation/admin-guide/mm/knuma.rst.
 */
#ifndef _LINUX_KNUMA_H
#define _LINUX_KNUMA_H

#include <linux/atomic.h>
#include <linux/jump_label.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/types.h>

/**
 * enum knuma_result - Next step of a NUMA hinting fault on a misplaced folio
 * @KNUMA_FAULT_NONE:		migrate the folio if it has a target, as without this option
 * @KNUMA_FAULT_QUEUED:	make the folio accessible; a daemon migrates it
 * @KNUMA_FAULT_SELF:		unlock, and call knuma_migrate_window()
 * @KNUMA_FAULT_FAILED:	make the folio accessible; the node lacks memory
 */
enum knuma_result {
	KNUMA_FAULT_NONE,
	KNUMA_FAULT_QUEUED,
	KNUMA_FAULT_SELF,
	KNUMA_FAULT_FAILED,
};

#ifdef CONFIG_KNUMA
/**
 * struct knuma_knobs - Files of /sys/kernel/mm/autonuma/
 * @window_pages:	pages around a fault that move with it, a power of two
 * @late_millisecs:	age of a queue from which on faults migrate
 * @scan_enabled:	knuma_scand scans in place of the tasks
 * @scan_sleep_millisecs: pause between two rounds of knuma_scand
 * @pages_to_scan:	pages of an address space to scan in a round
 */
struct knuma_knobs {
	unsigned int window_pages;
	unsigned int late_millisecs;
	unsigned int scan_enabled;
	unsigned int scan_sleep_millisecs;
	unsigned int pages_to_scan;
};

extern struct knuma_knobs knuma_knobs;

DECLARE_STATIC_KEY_FALSE(knuma_enabled);

enum knuma_result __knuma_fault(struct vm_fault *vmf, struct folio *folio,
				int *target_nid, int last_cpupid, int *pages);
int knuma_migrate_window(struct vm_fault *vmf, int target_nid);

static inline bool knuma_is_enabled(void)
{
	return static_branch_unlikely(&knuma_enabled);
}

/**
 * knuma_fault() - Decide how a folio is migrated.
 * @vmf:	the hinting fault
 * @folio:	the folio
 * @target_nid:	node that the folio should be on by its last two faults, or
 *		NUMA_NO_NODE; changed if other faults around the folio disagree
 * @last_cpupid: last fault on @folio before this one
 * @pages:	number of pages that the fault counts for; increased by those
 *		around the folio that become accessible as well
 *
 * should_numa_migrate_memory() lets a page follow a task that has changed node at
 * the second fault from there. If the task uses the block alone, then the second
 * fault on any page of the block decides for all of the block. After the first
 * fault, the other pages need none in this scan.
 *
 * Context: page table lock held. Does not sleep or allocate.
 * Return: see enum knuma_result.
 */
static inline enum knuma_result knuma_fault(struct vm_fault *vmf, struct folio *folio,
					    int *target_nid, int last_cpupid, int *pages)
{
	if (!knuma_is_enabled())
		return KNUMA_FAULT_NONE;

	return __knuma_fault(vmf, folio, target_nid, last_cpupid, pages);
}

static inline void knuma_init_task(struct task_struct *p)
{
	atomic_set(&p->knuma_failed, 0);
}

/* Take the number of pages that current has queued, and that have not moved. */
static inline int knuma_take_failed(void)
{
	if (!knuma_is_enabled() || !atomic_read(&current->knuma_failed))
		return 0;

	return atomic_xchg(&current->knuma_failed, 0);
}
#else /* !CONFIG_KNUMA */
static inline bool knuma_is_enabled(void)
{
	return false;
}

static inline enum knuma_result knuma_fault(struct vm_fault *vmf, struct folio *folio,
					    int *target_nid, int last_cpupid, int *pages)
{
	return KNUMA_FAULT_NONE;
}

static inline int knuma_migrate_window(struct vm_fault *vmf, int target_nid)
{
	return 0;
}

static inline void knuma_init_task(struct task_struct *p)
{
}

static inline int knuma_take_failed(void)
{
	return 0;
}
#endif /* CONFIG_KNUMA */

#endif /* _LINUX_KNUMA_H */
