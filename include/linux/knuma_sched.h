/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the scheduler knows of memory that is on its way. See
 * Documentation/admin-guide/mm/knuma.rst.
 */
#ifndef _LINUX_KNUMA_SCHED_H
#define _LINUX_KNUMA_SCHED_H

#include <linux/jiffies.h>
#include <linux/knuma.h>
#include <linux/sched.h>

#ifdef CONFIG_KNUMA
static inline void knuma_sched_init_task(struct task_struct *p)
{
	p->knuma_queued = 0;
}

/* Does memory that was not touched in the last pass count for nothing? */
static inline bool knuma_working_set(void)
{
	return static_branch_unlikely(&knuma_enabled) &&
	       READ_ONCE(knuma_knobs.working_set);
}

static inline bool knuma_load_balance_strict(void)
{
	return static_branch_unlikely(&knuma_enabled) &&
	       READ_ONCE(knuma_knobs.load_balance_strict);
}

/* @p is current, and has queued what is to move to @nid. */
static inline void knuma_queued_for(struct task_struct *p, int nid)
{
	/* Who goes on queueing may still change its mind half of the time. */
	if (nid == p->numa_preferred_nid &&
	    (!p->knuma_queued ||
	     time_after(jiffies, p->knuma_queued + 2 * KNUMA_OLD_JIFFIES)))
		p->knuma_queued = jiffies | 1;
}

/* Is memory of @p on its way to the node that it prefers? */
static inline bool knuma_keeps_preferred(const struct task_struct *p)
{
	return static_branch_unlikely(&knuma_enabled) && p->knuma_queued &&
	       time_before(jiffies, p->knuma_queued + KNUMA_OLD_JIFFIES);
}
#else /* !CONFIG_KNUMA */
static inline void knuma_sched_init_task(struct task_struct *p)
{
}

static inline bool knuma_working_set(void)
{
	return false;
}

static inline bool knuma_load_balance_strict(void)
{
	return false;
}

static inline void knuma_queued_for(struct task_struct *p, int nid)
{
}

static inline bool knuma_keeps_preferred(const struct task_struct *p)
{
	return false;
}
#endif /* CONFIG_KNUMA */

#endif /* _LINUX_KNUMA_SCHED_H */
