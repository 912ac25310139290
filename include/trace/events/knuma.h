/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM knuma

#if !defined(_TRACE_KNUMA_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KNUMA_H

#include <linux/mm.h>
#include <linux/tracepoint.h>

TRACE_DEFINE_ENUM(KNUMA_OLD);
TRACE_DEFINE_ENUM(KNUMA_POLICY);
TRACE_DEFINE_ENUM(KNUMA_GONE);
TRACE_DEFINE_ENUM(KNUMA_MOVED);
TRACE_DEFINE_ENUM(KNUMA_SHARED);
TRACE_DEFINE_ENUM(KNUMA_PINNED);
TRACE_DEFINE_ENUM(KNUMA_DIRTY);
TRACE_DEFINE_ENUM(KNUMA_BUSY);

TRACE_EVENT(knuma_queue,

	TP_PROTO(struct folio *folio, int src, int dst, bool around),

	TP_ARGS(folio, src, dst, around),

	TP_STRUCT__entry(
		__field(unsigned long, pfn)
		__field(unsigned int, order)
		__field(int, src)
		__field(int, dst)
		__field(bool, around)
	),

	TP_fast_assign(
		__entry->pfn = folio_pfn(folio);
		__entry->order = folio_order(folio);
		__entry->src = src;
		__entry->dst = dst;
		__entry->around = around;
	),

	TP_printk("pfn=%#lx order=%u src=%d dst=%d by=%s",
		  __entry->pfn, __entry->order, __entry->src, __entry->dst,
		  __entry->around ? "neighbour" : "fault")
);

TRACE_EVENT(knuma_drop,

	TP_PROTO(unsigned long pfn, int src, int dst, int fate, u32 age),

	TP_ARGS(pfn, src, dst, fate, age),

	TP_STRUCT__entry(
		__field(unsigned long, pfn)
		__field(int, src)
		__field(int, dst)
		__field(int, fate)
		__field(unsigned int, ms)
	),

	TP_fast_assign(
		__entry->pfn = pfn;
		__entry->src = src;
		__entry->dst = dst;
		__entry->fate = fate;
		__entry->ms = jiffies_to_msecs(age);
	),

	TP_printk("pfn=%#lx src=%d dst=%d why=%s waited_ms=%u",
		  __entry->pfn, __entry->src, __entry->dst,
		  __print_symbolic(__entry->fate,
				   { KNUMA_OLD,		"old" },
				   { KNUMA_POLICY,	"policy" },
				   { KNUMA_GONE,	"gone" },
				   { KNUMA_MOVED,	"moved" },
				   { KNUMA_SHARED,	"shared" },
				   { KNUMA_PINNED,	"pinned" },
				   { KNUMA_DIRTY,	"dirty" },
				   { KNUMA_BUSY,	"busy" }),
		  __entry->ms)
);

TRACE_EVENT(knuma_batch,

	TP_PROTO(int nid, unsigned long pages, unsigned int moved),

	TP_ARGS(nid, pages, moved),

	TP_STRUCT__entry(
		__field(int, nid)
		__field(unsigned long, pages)
		__field(unsigned int, moved)
	),

	TP_fast_assign(
		__entry->nid = nid;
		__entry->pages = pages;
		__entry->moved = moved;
	),

	TP_printk("dst=%d pages=%lu moved=%u",
		  __entry->nid, __entry->pages, __entry->moved)
);

TRACE_EVENT(knuma_stop,

	TP_PROTO(int nid, unsigned long pause),

	TP_ARGS(nid, pause),

	TP_STRUCT__entry(
		__field(int, nid)
		__field(unsigned int, ms)
	),

	TP_fast_assign(
		__entry->nid = nid;
		__entry->ms = jiffies_to_msecs(pause);
	),

	TP_printk("dst=%d pause_ms=%u", __entry->nid, __entry->ms)
);

#endif /* _TRACE_KNUMA_H */

#include <trace/define_trace.h>
