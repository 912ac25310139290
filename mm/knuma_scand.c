// SPDX-License-Identifier: GPL-2.0
/*
 * knuma_scand: makes the memory of tasks inaccessible, so that their next
 * accesses tell where it is needed, in place of the tasks. As before, each task
 * decides in its ticks when it is due, and its faults decide how often.
 */

#include <linux/cpuset.h>
#include <linux/freezer.h>
#include <linux/irq_work.h>
#include <linux/knuma_scand.h>
#include <linux/kthread.h>
#include <linux/llist.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/wait.h>

#include "internal.h"
#include "knuma.h"

/* Tasks that are due, with a reference to each. */
static LLIST_HEAD(due);
static DECLARE_WAIT_QUEUE_HEAD(scand_wait);

struct knuma_scand knuma_scand;

/* A tick holds the lock of its runqueue, which wake_up() may take. */
static void wake_scand(struct irq_work *work)
{
	wake_up(&scand_wait);
}

static DEFINE_IRQ_WORK(scand_work, wake_scand);

/*
 * From the tick of @p, which alone puts @p on the list. The first task on the
 * list wakes the daemon. See
 * Documentation/litmus-tests/mm/knuma-scand-sleep.litmus.
 */
bool __knuma_scan_later(struct task_struct *p)
{
	if (!READ_ONCE(knuma_scand.task))
		return false;
	if (llist_on_list(&p->knuma_scan))
		return true;

	get_task_struct(p);
	if (llist_add(&p->knuma_scan, &due))
		irq_work_queue(&scand_work);

	return true;
}

static void scan(struct task_struct *p)
{
	nodemask_t mems = cpuset_mems_allowed(p);
	struct mm_struct *mm = NULL;
	int seq;

	scoped_guard(task_lock, p) {
		if (p->mm && !(p->flags & PF_KTHREAD)) {
			mm = p->mm;
			mmgrab(mm);
		}
	}
	if (!mm)
		return;

	/* With one node, no page can migrate, as in task_numa_work(). */
	if (nodes_weight(mems) > 1) {
		knuma_scand.nid = cpu_to_node(task_cpu(p));
		seq = READ_ONCE(mm->numa_scan_seq);
		knuma_scand.pages_scanned +=
			knuma_scan_task(p, mm, READ_ONCE(knuma_knobs.pages_to_scan));
		knuma_scand.full_scans += READ_ONCE(mm->numa_scan_seq) != seq;
	}
	mmdrop(mm);
}

/* Take the tasks off the list, and scan for them unless the daemon ends. */
static void scan_due(bool ends)
{
	struct llist_node *list = llist_reverse_order(llist_del_all(&due));
	struct task_struct *p, *next;

	llist_for_each_entry_safe(p, next, list, knuma_scan) {
		/* From here on, its tick may add it again. */
		init_llist_node(&p->knuma_scan);
		if (!ends) {
			scan(p);
			if (need_resched() || tif_test_bit(TIF_NEED_RESCHED_LAZY))
				schedule();
			try_to_freeze();
			ends = kthread_should_stop();
		}
		put_task_struct(p);
	}
}

/* The knob may change meanwhile. */
static void sleep_until_next_round(void)
{
	unsigned long begun = jiffies, now, ends;

	while (!kthread_should_stop()) {
		now = jiffies;
		ends = begun + msecs_to_jiffies(READ_ONCE(knuma_knobs.scan_sleep_millisecs));
		if (!time_before(now, ends))
			break;
		wait_event_freezable_timeout(scand_wait, kthread_should_stop(),
					     min(ends - now, HZ));
	}
}

static int scand(void *arg)
{
	set_freezable();
	while (!kthread_should_stop()) {
		wait_event_freezable(scand_wait, kthread_should_stop() || !llist_empty(&due));
		scan_due(false);
		sleep_until_next_round();
	}

	return 0;
}

static int run_scand(void)
{
	struct task_struct *task;

	if (knuma_scand.task)
		return 0;
	task = kthread_create(scand, NULL, "knuma_scand");
	if (IS_ERR(task))
		return PTR_ERR(task);
	WRITE_ONCE(knuma_scand.task, task);
	wake_up_process(task);

	return 0;
}

static void stop_scand(void)
{
	struct task_struct *task = knuma_scand.task;

	if (!task)
		return;
	WRITE_ONCE(knuma_scand.task, NULL);
	/*
	 * Wait for ticks that have found the task. See
	 * Documentation/litmus-tests/mm/knuma-scand-stop.litmus.
	 */
	synchronize_rcu();
	irq_work_sync(&scand_work);
	kthread_stop(task);
	scan_due(true);
}

/**
 * knuma_scand_update() - Start or stop the daemon, as its knobs say.
 *
 * Context: process; may sleep. To stop it waits for one scan.
 */
void knuma_scand_update(void)
{
	static DEFINE_MUTEX(lock);	/* starts and stops */
	int err = 0;

	guard(mutex)(&lock);
	if (static_key_enabled(&knuma_enabled) &&
	    READ_ONCE(knuma_knobs.scan_enabled))
		err = run_scand();
	else
		stop_scand();
	/* Without it, tasks scan. */
	if (err)
		pr_warn("knuma: no knuma_scand: error %d\n", err);
}
