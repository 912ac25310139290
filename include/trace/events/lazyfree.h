/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM lazyfree

#if !defined(_TRACE_LAZYFREE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_LAZYFREE_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(splittable_range,

	TP_PROTO(const void *mm, unsigned long start, unsigned long end),

	TP_ARGS(mm, start, end),

	TP_STRUCT__entry(
		__field(const void *, mm)
		__field(unsigned long, start)
		__field(unsigned long, end)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->start = start;
		__entry->end = end;
	),

	TP_printk("mm=%p start=%#lx end=%#lx",
		  __entry->mm, __entry->start, __entry->end)
);

/* MADV_SPLITTABLE, noted */
DEFINE_EVENT(splittable_range, splittable_note,
	TP_PROTO(const void *mm, unsigned long start, unsigned long end),
	TP_ARGS(mm, start, end)
);

/* MADV_SPLITTABLE, done as MADV_DONTNEED */
DEFINE_EVENT(splittable_range, splittable_refuse,
	TP_PROTO(const void *mm, unsigned long start, unsigned long end),
	TP_ARGS(mm, start, end)
);

/* MADV_UNSPLITTABLE, of what was noted */
DEFINE_EVENT(splittable_range, splittable_take,
	TP_PROTO(const void *mm, unsigned long start, unsigned long end),
	TP_ARGS(mm, start, end)
);

/* MADV_FREE_UNDO, of what was noted */
DEFINE_EVENT(splittable_range, splittable_undo,
	TP_PROTO(const void *mm, unsigned long start, unsigned long end),
	TP_ARGS(mm, start, end)
);

/* By reclaim */
TRACE_EVENT(splittable_zap,

	TP_PROTO(const void *mm, unsigned long start, unsigned long end,
		 unsigned long pages),

	TP_ARGS(mm, start, end, pages),

	TP_STRUCT__entry(
		__field(const void *, mm)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(unsigned long, pages)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->start = start;
		__entry->end = end;
		__entry->pages = pages;
	),

	TP_printk("mm=%p start=%#lx end=%#lx pages=%lu",
		  __entry->mm, __entry->start, __entry->end, __entry->pages)
);

#endif /* _TRACE_LAZYFREE_H */

#include <trace/define_trace.h>
