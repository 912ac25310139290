/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A daemon that scans for NUMA balancing in place of the tasks. See
 * Documentation/admin-guide/mm/knuma.rst.
 */
#ifndef _LINUX_KNUMA_SCAND_H
#define _LINUX_KNUMA_SCAND_H

#include <linux/knuma.h>
#include <linux/llist.h>
#include <linux/sched.h>
#include <linux/topology.h>

#ifdef CONFIG_KNUMA
/**
 * struct knuma_scand - What the scanning daemon does.
 * @task:		the daemon; NULL if tasks scan by themselves
 * @mm:			what it scans, NULL in between
 * @nid:		the node of the task that it does it for; of the daemon
 * @pages_scanned:	at most, ever
 * @full_scans:		address spaces that it has come to the end of
 */
struct knuma_scand {
	struct task_struct *task;
	struct mm_struct *mm;
	int nid;
	unsigned long pages_scanned;
	unsigned long full_scans;
};

extern struct knuma_scand knuma_scand;

bool __knuma_scan_later(struct task_struct *p);
unsigned long knuma_scan_task(struct task_struct *p, struct mm_struct *mm,
			      unsigned long pages);

static inline void knuma_init_task(struct task_struct *p)
{
	init_llist_node(&p->knuma_scan);
	p->knuma_scan_cost = 0;
}

/**
 * knuma_scan_later() - Have the address space of a task scanned.
 * @p:		what runs on the CPU that this is the tick of
 *
 * Context: Under the lock of the CPU's runqueue.
 * Return: true if knuma_scand will; false if @p is to do it by itself.
 */
static inline bool knuma_scan_later(struct task_struct *p)
{
	return knuma_is_enabled() && p->numa_scan_period && __knuma_scan_later(p);
}

/* What the daemon has spent for @p since its last tick, times what it may. */
static inline u64 knuma_scan_cost(struct task_struct *p)
{
	u64 cost = knuma_is_enabled() ? READ_ONCE(p->knuma_scan_cost) : 0;

	if (cost)
		WRITE_ONCE(p->knuma_scan_cost, 0);

	return cost;
}

/* Users of @mm that scan it, and have no memory in it. */
static inline int knuma_scans(const struct mm_struct *mm)
{
	return static_branch_unlikely(&knuma_enabled) &&
	       READ_ONCE(knuma_scand.mm) == mm;
}

/* The node that a scan is done for. */
static inline int knuma_scan_nid(void)
{
	if (static_branch_unlikely(&knuma_enabled) &&
	    current == READ_ONCE(knuma_scand.task))
		return knuma_scand.nid;

	return numa_node_id();
}
#else /* !CONFIG_KNUMA */
static inline void knuma_init_task(struct task_struct *p)
{
}

static inline bool knuma_scan_later(struct task_struct *p)
{
	return false;
}

static inline u64 knuma_scan_cost(struct task_struct *p)
{
	return 0;
}

static inline int knuma_scans(const struct mm_struct *mm)
{
	return 0;
}

static inline int knuma_scan_nid(void)
{
	return numa_node_id();
}
#endif /* CONFIG_KNUMA */

#endif /* _LINUX_KNUMA_SCAND_H */
