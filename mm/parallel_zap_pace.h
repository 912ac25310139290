/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Whether a zap job gains from another helper, by what it has measured. No
 * size that someone would have to tune: huge pages, holes and the locks of a
 * machine all show in the rate.
 */
#ifndef _MM_PARALLEL_ZAP_PACE_H
#define _MM_PARALLEL_ZAP_PACE_H

#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/time64.h>
#include <linux/types.h>

/* A rate is measured for so long, or for a quarter of what is worth sharing. */
#define ZAP_PACE_NS	(20 * NSEC_PER_MSEC)

/**
 * struct zap_pace - What a job has measured.
 * @since:	when the measurement began, in ns
 * @rss:	pages that were mapped then
 * @helpers:	that it began with
 * @alone:	rate of the owner alone, in pages a second
 * @best:	rate with the last helper that was worth it
 * @fewer:	helpers have left: what was best before does not count
 * @level:	the last one was not worth it, so no more
 */
struct zap_pace {
	u64 since;
	unsigned long rss;
	unsigned int helpers;
	u64 alone;
	u64 best;
	bool fewer;
	bool level;
};

static inline void zap_pace_restart(struct zap_pace *pace, u64 now,
				    unsigned long rss, unsigned int helpers)
{
	pace->since = now;
	pace->rss = rss;
	pace->helpers = helpers;
}

/**
 * zap_pace_wants_helper() - Is another helper worth it?
 * @pace:	what was measured before
 * @now:	time, in ns
 * @rss:	pages that are mapped now
 * @left:	pages left to unmap, at most
 * @helpers:	helpers that work now
 * @min_ns:	time that must be left for it
 *
 * The first one is, if so much time is left; the next one if the last one
 * added a quarter of what the owner does alone.
 *
 * Return: true if one more is to be tried, now or soon.
 */
static inline bool
zap_pace_wants_helper(struct zap_pace *pace, u64 now, unsigned long rss,
		      unsigned long left, unsigned int helpers, u64 min_ns)
{
	u64 ns = now - pace->since, rate;
	unsigned long pages = pace->rss > rss ? pace->rss - rss : 0;

	if (helpers != pace->helpers) {
		if (helpers < pace->helpers) {
			pace->fewer = true;
			pace->level = false;
		}
		zap_pace_restart(pace, now, rss, helpers);
		return false;
	}
	if (pace->level || !ns || (helpers && ns < min(ZAP_PACE_NS, min_ns / 4)))
		return false;

	/* Others may fault pages in, faster than the job unmaps them. */
	rate = div64_u64((u64)pages * NSEC_PER_SEC, ns);
	if (!rate)
		return false;
	/* In microseconds, as nanoseconds of 75 TiB might not fit. */
	if (div64_u64((u64)left * USEC_PER_SEC, rate) * NSEC_PER_USEC <= min_ns)
		return false;

	if (!helpers)
		pace->alone = rate;
	else if (!pace->fewer && rate < pace->best + pace->alone / 4)
		pace->level = true;
	pace->best = rate;
	pace->fewer = false;
	zap_pace_restart(pace, now, rss, helpers);

	return !pace->level;
}

#endif /* _MM_PARALLEL_ZAP_PACE_H */
