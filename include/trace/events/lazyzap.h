/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM lazyzap

#if !defined(_TRACE_LAZYZAP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_LAZYZAP_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(lazyzap_range,

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

/* MADV_SPLITTABLE marked a range */
DEFINE_EVENT(lazyzap_range, lazyzap_mark,
	TP_PROTO(const void *mm, unsigned long start, unsigned long end),
	TP_ARGS(mm, start, end)
);

/* MADV_SPLITTABLE zaps a range immediately */
DEFINE_EVENT(lazyzap_range, lazyzap_fallback,
	TP_PROTO(const void *mm, unsigned long start, unsigned long end),
	TP_ARGS(mm, start, end)
);

/* MADV_UNSPLITTABLE unmarked and zeroed a part of a range */
DEFINE_EVENT(lazyzap_range, lazyzap_unmark,
	TP_PROTO(const void *mm, unsigned long start, unsigned long end),
	TP_ARGS(mm, start, end)
);

/* MADV_FREE_UNDO found the contents of all pages */
DEFINE_EVENT(lazyzap_range, lazyzap_undo,
	TP_PROTO(const void *mm, unsigned long start, unsigned long end),
	TP_ARGS(mm, start, end)
);

/* Reclaim zapped a part of a marked range */
TRACE_EVENT(lazyzap_zap,

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

#endif /* _TRACE_LAZYZAP_H */

#include <trace/define_trace.h>
