// SPDX-License-Identifier: GPL-2.0
/*
 * knuma_migrated: a daemon for each node migrates to it the windows that hinting
 * faults have queued.
 */

#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/vmstat.h>
#include <uapi/linux/sched/types.h>

#include "internal.h"
#include "knuma.h"

#include <trace/events/knuma.h>

bool knuma_hold;

static struct knuma_pending *knuma_pending(struct knuma_node *node,
					   const struct knuma_entry *entry)
{
	return &node->pending[(entry->start >> PMD_SHIFT) % KNUMA_PENDING];
}

static bool knuma_is_pending(struct knuma_node *node, const struct knuma_entry *entry)
{
	struct knuma_pending *pending = knuma_pending(node, entry);

	return pending->task == entry->task && pending->start == entry->start;
}

/**
 * knuma_add() - Queue a window.
 * @node:	node to move to
 * @entry:	the window; @entry->task is current
 *
 * Each block of a window adds the window, but most do so while it is in the queue.
 *
 * Context: page table lock held, under RCU.
 * Return: false if the queue is full.
 */
bool knuma_add(struct knuma_node *node, const struct knuma_entry *entry)
{
	struct knuma_entry queued = *entry;
	bool first, added;

	queued.queued = jiffies;
	queued.expires = jiffies + KNUMA_EXPIRES;
	spin_lock(&node->lock);
	if (knuma_is_pending(node, entry)) {
		spin_unlock(&node->lock);
		return true;
	}
	first = kfifo_is_empty(&node->fifo);
	if (first)
		WRITE_ONCE(node->oldest, queued.queued);
	added = kfifo_put(&node->fifo, queued);
	if (added) {
		get_task_struct(entry->task);
		*knuma_pending(node, entry) = (struct knuma_pending) {
			.task = entry->task,
			.start = entry->start,
		};
	}
	spin_unlock(&node->lock);
	if (!added) {
		count_vm_event(KNUMA_QUEUE_FULL);
		return false;
	}
	/* See Documentation/litmus-tests/mm/knuma-sleep.litmus. */
	if (first)
		wake_up(&node->wait);

	return true;
}

/* Take the first window. The caller drops the reference to the task. */
static bool knuma_take_entry(struct knuma_node *node, struct knuma_entry *entry)
{
	struct knuma_entry next;
	bool taken;

	spin_lock(&node->lock);
	taken = kfifo_get(&node->fifo, entry);
	if (taken && knuma_is_pending(node, entry))
		*knuma_pending(node, entry) = (struct knuma_pending) {};
	if (kfifo_peek(&node->fifo, &next))
		WRITE_ONCE(node->oldest, next.queued);
	spin_unlock(&node->lock);

	return taken;
}

/*
 * Queue a window again. It does not make the queue late, for that would concern the
 * tasks of other users. Returns false if the queue is full.
 */
static bool knuma_retry(struct knuma_node *node, struct knuma_entry *entry)
{
	guard(spinlock)(&node->lock);
	entry->queued = jiffies;
	if (kfifo_is_empty(&node->fifo))
		WRITE_ONCE(node->oldest, entry->queued);

	return kfifo_put(&node->fifo, *entry);
}

/* Number of windows that wait. Context: any. */
unsigned int knuma_waiting(struct knuma_node *node)
{
	guard(spinlock)(&node->lock);

	return kfifo_len(&node->fifo);
}

/**
 * knuma_lacked() - Record for which orders a node has no memory.
 * @node:	the node
 * @orders:	bit mask of orders for which there was none
 * @had:	bit mask of orders that were asked for
 *
 * Other orders do not wait. The delay doubles up to a second.
 *
 * Context: the daemon of @node.
 */
void knuma_lacked(struct knuma_node *node, unsigned int orders, unsigned int had)
{
	for (unsigned int order = 0; order < NR_PAGE_ORDERS; order++) {
		unsigned long delay = node->delay[order];

		if (!(had & BIT(order)))
			continue;
		if (!(orders & BIT(order))) {
			WRITE_ONCE(node->delay[order], 0);
			continue;
		}
		delay = clamp(delay * 2, (unsigned long)KNUMA_RETRY_MIN,
			      (unsigned long)KNUMA_RETRY_MAX);
		WRITE_ONCE(node->retry[order], jiffies + delay);
		WRITE_ONCE(node->delay[order], delay);
		trace_knuma_lack(node->nid, order, delay);
	}
}

/* Tell a task that queued pages have not moved. */
static void knuma_report(struct task_struct *task, unsigned int pages)
{
	atomic_add(pages, &task->knuma_failed);
}

/* The address space of a task, which may be about to exit; NULL if it has none. */
static struct mm_struct *knuma_grab_mm(struct task_struct *task)
{
	guard(task_lock)(task);
	if (!task->mm || (task->flags & PF_KTHREAD))
		return NULL;
	mmgrab(task->mm);

	return task->mm;
}

/*
 * Lock the VMA of an address. As khugepaged, this holds no reference to mm_users:
 * a task that exits waits for the lock of the VMA, for one window at most, and
 * does not leave its memory to the daemon.
 */
static struct vm_area_struct *knuma_lock_vma(struct mm_struct *mm, unsigned long addr)
{
	struct vm_area_struct *vma = NULL;

	/* The owner of the lock may hold it for long, and other windows wait. */
	if (!mmap_read_trylock(mm))
		return ERR_PTR(-EAGAIN);
	/* exit_mmap() frees the tree of VMAs with mmap_lock held for write. */
	if (atomic_read(&mm->mm_users))
		vma = vma_lookup(mm, addr);
	if (vma && !vma_start_read_locked(vma))
		vma = NULL;
	mmap_read_unlock(mm);

	return vma;
}

/* Returns -EAGAIN if another task has locked the address space. */
static int knuma_migrate_entry(struct knuma_node *node, const struct knuma_entry *entry,
			       struct mm_struct *mm)
{
	unsigned long addr = entry->start, end = addr + entry->pages * PAGE_SIZE;
	struct knuma_window w = {
		.task = entry->task,
		.nid = node->nid,
		.most = KNUMA_WINDOW,
		.moves = node->moves,
	};

	while (addr < end && !kthread_should_stop()) {
		unsigned int had = 0;

		w.vma = knuma_lock_vma(mm, entry->start);
		if (IS_ERR_OR_NULL(w.vma))
			return PTR_ERR(w.vma);
		w.start = max(addr, w.vma->vm_start);
		w.end = min(end, w.vma->vm_end);
		w.next = end;
		/* A task that has left the node may come back, or memory follows later. */
		w.refused = w.start >= w.end || !knuma_window_allowed(w.vma) ||
			    task_node(w.task) != w.nid;
		if (!w.refused)
			knuma_window_migrate(&w);
		vma_end_read(w.vma);
		if (w.refused) {
			count_vm_events(KNUMA_REFUSED, entry->pages);
			return 0;
		}

		for (unsigned int i = 0; i < w.nr; i++)
			had |= BIT(w.moves[i].order);
		knuma_lacked(node, w.lacked, had);
		if (w.lacked || !w.moved)
			knuma_report(w.task, w.pages - w.moved);
		/* Stopped windows have copies that are for nothing: take fewer next time. */
		if (w.stopped) {
			w.most = max(w.moved, KNUMA_SMALL);
			schedule();
		} else {
			w.most = min(2 * w.most, (unsigned int)KNUMA_WINDOW);
		}
		addr = w.next;
	}

	return 0;
}

/*
 * Migrate a window, or drop the window if it is old or the task has exited. Returns
 * -EAGAIN if the window has to wait.
 */
static int knuma_serve(struct knuma_node *node, const struct knuma_entry *entry)
{
	struct mm_struct *mm;
	u64 begin;
	int ret;

	if (time_after(jiffies, entry->expires)) {
		knuma_report(entry->task, entry->pages);
		count_vm_events(KNUMA_EXPIRED, entry->pages);
		return 0;
	}
	mm = knuma_grab_mm(entry->task);
	if (!mm)
		return 0;
	begin = ktime_get_ns();
	ret = knuma_migrate_entry(node, entry, mm);
	if (!ret)
		WRITE_ONCE(node->service, (7 * node->service + ktime_get_ns() - begin) / 8);
	mmdrop(mm);

	return ret;
}

/*
 * Let faults find the other blocks of the first window's page table, which then
 * move with two flushes of the TLB for all of them.
 */
static void knuma_gather(struct knuma_node *node)
{
	unsigned long ends = READ_ONCE(node->oldest) + KNUMA_GATHER;
	long left;

	while ((left = ends - jiffies) > 0 && !kthread_should_stop())
		schedule_timeout_idle(left);
}

/* Serve all windows that wait. */
static void knuma_serve_all(struct knuma_node *node)
{
	unsigned int retried = 0;
	struct knuma_entry entry;

	while (!kthread_should_stop() && knuma_take_entry(node, &entry)) {
		if (!knuma_serve(node, &entry) || !knuma_retry(node, &entry)) {
			put_task_struct(entry.task);
			retried = 0;
		} else if (++retried >= kfifo_len(&node->fifo)) {
			/* All of them wait for locks of other tasks. */
			schedule_timeout_idle(1);
			retried = 0;
		}
		if (knuma_need_resched())
			schedule();
		try_to_freeze();
	}
}

static int knuma_migrated(void *arg)
{
	/*
	 * The daemon has the share of any task, as it does the work of tasks. But its
	 * slice is long, so tasks that wake up preempt the daemon.
	 */
	const struct sched_attr attr = {
		.size = sizeof(attr),
		.sched_policy = SCHED_BATCH,
		.sched_runtime = 100 * NSEC_PER_MSEC,
	};
	struct knuma_node *node = arg;

	sched_setattr_nocheck(current, &attr);
	set_freezable();
	while (!kthread_should_stop()) {
		wait_event_freezable(node->wait, kthread_should_stop() ||
				     !kfifo_is_empty(&node->fifo));
		while (READ_ONCE(knuma_hold) && !kthread_should_stop()) {
			schedule_timeout_idle(1);
			try_to_freeze();
		}
		knuma_gather(node);
		knuma_serve_all(node);
	}
	return 0;
}

static struct knuma_node *knuma_node_alloc(int nid)
{
	/* Never freed, so not in movable memory that may go offline. */
	struct knuma_node *node = kvzalloc(sizeof(*node), GFP_KERNEL);

	if (!node)
		return NULL;
	node->nid = nid;
	init_waitqueue_head(&node->wait);
	spin_lock_init(&node->lock);
	INIT_KFIFO(node->fifo);

	return node;
}

/**
 * knuma_migrated_run() - Start the daemon of a node, unless one runs.
 * @nid:	node that has memory
 *
 * Context: the caller serializes starts and stops.
 * Return: 0, or a negative errno; without a daemon, faults migrate.
 */
int knuma_migrated_run(int nid)
{
	struct knuma_node *node = knuma_nodes[nid];
	struct task_struct *task;

	if (!node) {
		node = knuma_node_alloc(nid);
		if (!node)
			return -ENOMEM;
		/*
		 * Faults that find the node see the initialized node. See
		 * Documentation/litmus-tests/mm/knuma-node.litmus.
		 */
		smp_store_release(&knuma_nodes[nid], node);
	}
	if (node->task)
		return 0;
	memset(node->delay, 0, sizeof(node->delay));
	node->service = 0;
	node->moves = kvmalloc_array(KNUMA_WINDOW, sizeof(*node->moves), GFP_KERNEL);
	if (!node->moves)
		return -ENOMEM;
	/* On any idle CPU: those of the node run the tasks that use this memory. */
	task = kthread_create(knuma_migrated, node, "knuma_migrated%d", nid);
	if (IS_ERR(task)) {
		kvfree(node->moves);
		return PTR_ERR(task);
	}
	WRITE_ONCE(node->task, task);
	wake_up_process(task);

	return 0;
}

/**
 * knuma_migrated_stop() - Stop the daemon of a node.
 * @nid:	the node
 *
 * Windows in the queue are dropped: hinting faults will find them again.
 *
 * Context: as knuma_migrated_run(). Waits for a window and a grace period.
 */
void knuma_migrated_stop(int nid)
{
	struct knuma_node *node = knuma_nodes[nid];
	struct task_struct *task = node ? node->task : NULL;
	struct knuma_entry entry;

	if (!task)
		return;
	WRITE_ONCE(node->task, NULL);
	/*
	 * Faults that have found the task add to the queue under RCU. See
	 * Documentation/litmus-tests/mm/knuma-stop.litmus.
	 */
	synchronize_rcu();
	kthread_stop(task);
	kvfree(node->moves);
	while (knuma_take_entry(node, &entry))
		put_task_struct(entry.task);
}
