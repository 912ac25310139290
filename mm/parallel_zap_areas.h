/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What of a zap job nobody has begun yet, and how workers claim it. No locks
 * here: the job's lock is held by whoever calls.
 *
 * Invariant: each address that was added is in one area, or in one chunk that
 * one worker has claimed, or zapped. So no two workers walk the same PTEs; and
 * as chunks end where a page table ends, they do not share PTE locks either.
 */
#ifndef _MM_PARALLEL_ZAP_AREAS_H
#define _MM_PARALLEL_ZAP_AREAS_H

#include <linux/align.h>
#include <linux/minmax.h>
#include <linux/mm_types.h>
#include <linux/numa.h>
#include <linux/pgtable.h>

#define NR_ZAP_AREAS	32

/**
 * struct zap_area - A range of one vma that nobody has begun to zap.
 * @vma:	the vma
 * @next:	where the next chunk begins; @end if there is nothing left
 * @end:	address after the last one
 * @nid:	node that has the memory at @next, as a hint; or NUMA_NO_NODE
 * @huge_end:	PMDs map memory from @next to there, and share a lock, as a hint
 * @nr_workers:	workers that have taken their last chunk here
 */
struct zap_area {
	struct vm_area_struct *vma;
	unsigned long next;
	unsigned long end;
	int nid;
	unsigned long huge_end;
	unsigned int nr_workers;
};

/**
 * struct zap_areas - All areas of a job.
 * @area:	the areas, in no order
 * @left:	bytes in all of them
 */
struct zap_areas {
	struct zap_area area[NR_ZAP_AREAS];
	unsigned long left;
};

static inline bool zap_area_empty(const struct zap_area *area)
{
	return area->next == area->end;
}

/**
 * zap_areas_add() - Add a range, in parts, so that workers need not meet.
 * @areas:	where there may be room
 * @vma:	the vma of the range
 * @start:	first address
 * @end:	address after the last one
 * @part:	bytes of a part, at least; a multiple of PMD_SIZE
 *
 * Return: the first address that there was no room for, or @end.
 */
static inline unsigned long
zap_areas_add(struct zap_areas *areas, struct vm_area_struct *vma,
	      unsigned long start, unsigned long end, unsigned long part)
{
	int i;

	/* An eighth of the range, or all of it where that is little. */
	part = max(part, ALIGN((end - start) / 8, PMD_SIZE));
	if (part > PUD_SIZE)
		part = ALIGN(part, PUD_SIZE);

	for (i = 0; i < NR_ZAP_AREAS && start < end; i++) {
		struct zap_area *area = &areas->area[i];
		unsigned long stop = end;

		if (!zap_area_empty(area))
			continue;
		if (end - start > part)
			stop = min(end, ALIGN_DOWN(start, PMD_SIZE) + part);
		area->vma = vma;
		area->next = start;
		area->end = stop;
		area->nid = NUMA_NO_NODE;
		area->huge_end = start;
		areas->left += stop - start;
		start = stop;
	}
	return start;
}

/**
 * zap_areas_pick() - Where a worker takes its next chunk.
 * @areas:	what there is
 * @last:	index of the area of its last chunk, or -1
 * @nid:	node that it runs on, or NUMA_NO_NODE if any will do
 *
 * It stays in its area while that has memory of its node. Otherwise it goes
 * where most is left for each worker.
 *
 * Return: index of an area that is not empty, or -1 if none is on @nid.
 */
static inline int zap_areas_pick(const struct zap_areas *areas, int last,
				 int nid)
{
	unsigned long most = 0;
	int i, best = -1;

	for (i = 0; i < NR_ZAP_AREAS; i++) {
		const struct zap_area *area = &areas->area[i];
		unsigned long share;

		if (zap_area_empty(area) ||
		    (nid != NUMA_NO_NODE && area->nid != NUMA_NO_NODE &&
		     area->nid != nid))
			continue;
		if (i == last)
			return i;
		share = (area->end - area->next) / (area->nr_workers + 1);
		if (share > most) {
			most = share;
			best = i;
		}
	}
	return best;
}

/**
 * zap_areas_claim() - Take a chunk.
 * @areas:	what there is
 * @i:		index of an area that is not empty
 * @max:	bytes of a chunk, at most; a multiple of PMD_SIZE
 * @nr_workers:	workers of the job, to leave some for each of them
 *
 * A chunk may be larger where PMDs map memory, up to all that shares their
 * lock: such memory takes a hundredth of the time.
 *
 * Return: the address after the chunk, which began at the area's next.
 */
static inline unsigned long
zap_areas_claim(struct zap_areas *areas, int i, unsigned long max,
		unsigned int nr_workers)
{
	struct zap_area *area = &areas->area[i];
	unsigned long start = area->next, size, end;

	/* Towards the end the chunks get smaller. */
	size = min(max, areas->left / (2 * nr_workers));
	size = max(ALIGN_DOWN(size, PMD_SIZE), PMD_SIZE);
	end = ALIGN_DOWN(start, PMD_SIZE) + size;
	if (area->huge_end - start > end - start)
		end = area->huge_end;
	/* Not min(): it may have wrapped, at the end of the address space. */
	if (end - start > area->end - start)
		end = area->end;

	area->next = end;
	area->huge_end = end;	/* nothing is known of what comes now */
	areas->left -= end - start;
	return end;
}

#endif /* _MM_PARALLEL_ZAP_AREAS_H */
