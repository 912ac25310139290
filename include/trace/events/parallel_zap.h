/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM parallel_zap

#if !defined(_TRACE_PARALLEL_ZAP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_PARALLEL_ZAP_H

#include <linux/tracepoint.h>

TRACE_EVENT(zap_job_start,

	TP_PROTO(const void *mm, unsigned long pages, u64 rate),

	TP_ARGS(mm, pages, rate),

	TP_STRUCT__entry(
		__field(const void *, mm)
		__field(unsigned long, pages)
		__field(u64, rate)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->pages = pages;
		__entry->rate = rate;
	),

	TP_printk("mm=%p pages_left=%lu pages_per_second=%llu",
		  __entry->mm, __entry->pages, __entry->rate)
);

TRACE_EVENT(zap_chunk,

	TP_PROTO(const void *mm, unsigned long start, unsigned long end,
		 int nid, bool helper),

	TP_ARGS(mm, start, end, nid, helper),

	TP_STRUCT__entry(
		__field(const void *, mm)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(int, nid)
		__field(bool, helper)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->start = start;
		__entry->end = end;
		__entry->nid = nid;
		__entry->helper = helper;
	),

	TP_printk("mm=%p start=%#lx end=%#lx node=%d by=%s",
		  __entry->mm, __entry->start, __entry->end, __entry->nid,
		  __entry->helper ? "helper" : "owner")
);

TRACE_DEFINE_ENUM(ZAP_LEAVE_DONE);
TRACE_DEFINE_ENUM(ZAP_LEAVE_BUSY);
TRACE_DEFINE_ENUM(ZAP_LEAVE_NODE);

TRACE_EVENT(zap_helper_leave,

	TP_PROTO(const void *mm, enum zap_leave reason, unsigned int chunks,
		 u64 usecs),

	TP_ARGS(mm, reason, chunks, usecs),

	TP_STRUCT__entry(
		__field(const void *, mm)
		__field(int, reason)
		__field(unsigned int, chunks)
		__field(u64, usecs)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->reason = reason;
		__entry->chunks = chunks;
		__entry->usecs = usecs;
	),

	TP_printk("mm=%p reason=%s chunks=%u cpu_usecs=%llu",
		  __entry->mm,
		  __print_symbolic(__entry->reason,
				   { ZAP_LEAVE_DONE, "done" },
				   { ZAP_LEAVE_BUSY, "busy" },
				   { ZAP_LEAVE_NODE, "node" }),
		  __entry->chunks, __entry->usecs)
);

TRACE_EVENT(zap_job_end,

	TP_PROTO(const void *mm, unsigned int helpers, u64 usecs),

	TP_ARGS(mm, helpers, usecs),

	TP_STRUCT__entry(
		__field(const void *, mm)
		__field(unsigned int, helpers)
		__field(u64, usecs)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->helpers = helpers;
		__entry->usecs = usecs;
	),

	TP_printk("mm=%p helpers_started=%u helpers_cpu_usecs=%llu",
		  __entry->mm, __entry->helpers, __entry->usecs)
);

#endif /* _TRACE_PARALLEL_ZAP_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
