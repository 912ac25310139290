/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM numa_hint

#if !defined(_TRACE_NUMA_HINT_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_NUMA_HINT_H

#include <linux/sched/numa_balancing.h>
#include <linux/tracepoint.h>

TRACE_EVENT(numa_hint_fault,

	TP_PROTO(int pages, int flags, u64 ns),

	TP_ARGS(pages, flags, ns),

	TP_STRUCT__entry(
		__field(int, pages)
		__field(int, flags)
		__field(u64, ns)
	),

	TP_fast_assign(
		__entry->pages = pages;
		__entry->flags = flags;
		__entry->ns = ns;
	),

	TP_printk("pages=%d flags=%s ns=%llu", __entry->pages,
		  __print_flags(__entry->flags, "|",
				{ TNF_MIGRATED,		"migrated" },
				{ TNF_NO_GROUP,		"no_group" },
				{ TNF_SHARED,		"shared" },
				{ TNF_FAULT_LOCAL,	"local" },
				{ TNF_MIGRATE_FAIL,	"failed" },
				{ TNF_QUEUED,		"queued" }),
		  __entry->ns)
);

TRACE_EVENT(numa_hint_scan,

	TP_PROTO(u64 ns),

	TP_ARGS(ns),

	TP_STRUCT__entry(
		__field(u64, ns)
	),

	TP_fast_assign(
		__entry->ns = ns;
	),

	TP_printk("ns=%llu", __entry->ns)
);

#endif /* _TRACE_NUMA_HINT_H */

#include <trace/define_trace.h>
