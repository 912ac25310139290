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
 * struct knuma_scand - State of the daemon
 * @task:		the daemon, or NULL if tasks scan
 * @nid:		node of the task that it scans for
 * @pages_scanned:	number of pages, at most, since boot
 * @full_scans:		number of times that the end of an address space was reached
 */
struct knuma_scand {
	struct task_struct *task;
	int nid;
	unsigned long pages_scanned;
	unsigned long full_scans;
};

extern struct knuma_scand knuma_scand;

bool __knuma_scan_later(struct task_struct *p);
unsigned long knuma_scan_task(struct task_struct *p, struct mm_struct *mm,
			      unsigned long pages);

static inline void knuma_scand_init_task(struct task_struct *p)
{
	init_llist_node(&p->knuma_scan);
	p->knuma_scan_cost = 0;
}

/**
 * knuma_scan_later() - Have the address space of a task scanned.
 * @p:		current task of the CPU whose tick this is
 *
 * Context: lock of the CPU's runqueue held.
 * Return: true if knuma_scand will; false if @p has to do it.
 */
static inline bool knuma_scan_later(struct task_struct *p)
{
	return knuma_is_enabled() && p->numa_scan_period && __knuma_scan_later(p);
}

/* Time that the daemon has spent for @p since its last tick, times its weight. */
static inline u64 knuma_scan_cost(struct task_struct *p)
{
	u64 cost = knuma_is_enabled() ? READ_ONCE(p->knuma_scan_cost) : 0;

	if (cost)
		WRITE_ONCE(p->knuma_scan_cost, 0);

	return cost;
}

/* The node that current scans for. */
static inline int knuma_scan_nid(void)
{
	if (knuma_is_enabled() && current == READ_ONCE(knuma_scand.task))
		return knuma_scand.nid;

	return numa_node_id();
}
#else /* !CONFIG_KNUMA */
static inline void knuma_scand_init_task(struct task_struct *p)
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

static inline int knuma_scan_nid(void)
{
	return numa_node_id();
}
#endif /* CONFIG_KNUMA */

#endif /* _LINUX_KNUMA_SCAND_H */
