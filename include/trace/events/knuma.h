/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM knuma

#if !defined(_TRACE_KNUMA_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KNUMA_H

#include <linux/sched.h>
#include <linux/tracepoint.h>

struct knuma_window;

TRACE_EVENT(knuma_queue,

	TP_PROTO(struct task_struct *task, unsigned long start, int pages, int src, int dst),

	TP_ARGS(task, start, pages, src, dst),

	TP_STRUCT__entry(
		__field(pid_t, pid)
		__field(unsigned long, start)
		__field(int, pages)
		__field(int, src)
		__field(int, dst)
	),

	TP_fast_assign(
		__entry->pid = task->pid;
		__entry->start = start;
		__entry->pages = pages;
		__entry->src = src;
		__entry->dst = dst;
	),

	TP_printk("pid=%d start=%#lx pages=%d src=%d dst=%d", __entry->pid,
		  __entry->start, __entry->pages, __entry->src, __entry->dst)
);

TRACE_EVENT(knuma_window,

	TP_PROTO(const struct knuma_window *w),

	TP_ARGS(w),

	TP_STRUCT__entry(
		__field(pid_t, pid)
		__field(unsigned long, start)
		__field(unsigned int, pages)
		__field(unsigned int, moved)
		__field(unsigned int, lacked)
		__field(int, dst)
		__field(bool, stopped)
	),

	TP_fast_assign(
		__entry->pid = w->task->pid;
		__entry->start = w->start;
		__entry->pages = w->pages;
		__entry->moved = w->moved;
		__entry->lacked = w->lacked;
		__entry->dst = w->nid;
		__entry->stopped = w->stopped;
	),

	TP_printk("pid=%d start=%#lx pages=%u moved=%u dst=%d lacked_orders=%#x%s",
		  __entry->pid, __entry->start, __entry->pages, __entry->moved,
		  __entry->dst, __entry->lacked,
		  __entry->stopped ? " stopped" : "")
);

TRACE_EVENT(knuma_lack,

	TP_PROTO(int nid, unsigned int order, unsigned long delay),

	TP_ARGS(nid, order, delay),

	TP_STRUCT__entry(
		__field(int, nid)
		__field(unsigned int, order)
		__field(unsigned int, ms)
	),

	TP_fast_assign(
		__entry->nid = nid;
		__entry->order = order;
		__entry->ms = jiffies_to_msecs(delay);
	),

	TP_printk("dst=%d order=%u retry_ms=%u", __entry->nid, __entry->order, __entry->ms)
);

#endif /* _TRACE_KNUMA_H */

#include <trace/define_trace.h>
