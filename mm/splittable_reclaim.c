// SPDX-License-Identifier: GPL-2.0
/*
 * Reclaim of what MADV_SPLITTABLE has noted.
 */

#include <linux/list_lru.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/pagewalk.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/vmstat.h>

#include <trace/events/lazyfree.h>

#include "internal.h"
#include "splittable.h"

/* Its locks are taken inside splittable_mm.lock. */
struct list_lru splittable_lru;

/* How many address spaces are looked at before reclaim turns to other things. */
#define MMS_TO_WALK	32

/* How much of them is zapped at once, and how often before that. */
#define ZAP_BYTES	PMD_SIZE
#define ZAPS_TO_DO	64

/* How many holes in page tables are passed over at once. */
#define HOLES_TO_SKIP	1024

/*
 * Before a process is killed: ticks to wait for what is locked, pages that are
 * worth to try again, and how many zaps may find nothing.
 */
#define DRAIN_TRIES	3
#define DRAIN_ENOUGH	(SZ_4M / PAGE_SIZE)
#define DRAIN_ZAPS	16384

/**
 * struct splittable_victim - What reclaim is about to zap.
 * @seen:	there is a range
 * @oldest:	the stamp of the oldest one
 * @sm:		where it is; NULL if there is nothing
 *
 * It is [@sm->zap_start, @sm->zap_end), which is for who has set it. A
 * reference to @sm->mm is held, and its mmap_lock for reading.
 */
struct splittable_victim {
	bool seen;
	unsigned long oldest;
	struct splittable_mm *sm;
};

static struct splittable_mm *sm_of(struct list_head *item)
{
	return container_of(item, struct splittable_link, lru)->sm;
}

/* Of its oldest range. May be out of date if @sm->lock is not held. */
static unsigned long stamp_of(const struct splittable_mm *sm)
{
	return READ_ONCE(sm->oldest);
}

/*
 * The first address that may be mapped by a page table of the last level or a
 * huge page; or less, as this is done with locks held.
 */
static unsigned long skip_holes(struct mm_struct *mm, unsigned long addr,
				unsigned long end)
{
	for (int i = 0; i < HOLES_TO_SKIP && addr < end; i++) {
		pgd_t *pgd = pgd_offset(mm, addr);
		p4d_t *p4d;
		pud_t *pud;

		if (pgd_none(pgdp_get(pgd))) {
			addr = pgd_addr_end(addr, end);
			continue;
		}
		p4d = p4d_offset(pgd, addr);
		if (p4d_none(p4dp_get(p4d))) {
			addr = p4d_addr_end(addr, end);
			continue;
		}
		pud = pud_offset(p4d, addr);
		if (pud_none(pudp_get(pud))) {
			addr = pud_addr_end(addr, end);
			continue;
		}
		if (!pmd_none(pmdp_get_lockless(pmd_offset(pud, addr))))
			break;
		addr = pmd_addr_end(addr, end);
	}

	return min(addr, end - PAGE_SIZE);
}

/*
 * How far to zap the oldest range: up to the next multiple of ZAP_BYTES, once
 * there is something. Holes are no work, and come on top.
 */
static unsigned long zap_to(struct splittable_mm *sm)
{
	struct splittable_range *range;

	range = list_first_entry(&sm->by_age, struct splittable_range, age);
	return ALIGN(skip_holes(sm->mm, range->noted, range->end) + 1, ZAP_BYTES);
}

/* With the lock of the list held. */
static enum lru_status look(struct list_head *item, struct list_lru_one *list,
			    void *arg)
{
	struct splittable_mm *sm = sm_of(item);
	struct splittable_victim *victim = arg;

	if (!victim->seen || time_before(stamp_of(sm), victim->oldest))
		victim->oldest = stamp_of(sm);
	victim->seen = true;

	return LRU_SKIP;
}

/*
 * With the lock of the list held, inside of which nothing may be waited for.
 * What cannot be locked now is left for the next time.
 */
static enum lru_status pick(struct list_head *item, struct list_lru_one *list,
			    void *arg)
{
	struct splittable_mm *sm = sm_of(item);
	struct splittable_victim *victim = arg;
	bool done;

	if (victim->sm || time_after(stamp_of(sm), victim->oldest))
		return LRU_SKIP;

	/*
	 * While it is in the list, @sm and its mm are there. See
	 * Documentation/litmus-tests/mm/lazyfree-list.litmus.
	 */
	if (!mmget_not_zero(sm->mm))
		return LRU_ROTATE;
	if (!mmap_read_trylock(sm->mm))
		goto put_mm;
	if (!spin_trylock(&sm->lock))
		goto unlock_mm;
	if (sm->zap_end) {
		spin_unlock(&sm->lock);
		goto unlock_mm;
	}
	victim->sm = sm;
	done = splittable_advance(sm, zap_to(sm));
	if (done)
		list_lru_isolate(list, item);
	spin_unlock(&sm->lock);

	return done ? LRU_REMOVED : LRU_ROTATE;

unlock_mm:
	mmap_read_unlock(sm->mm);
put_mm:
	mmput_async(sm->mm);
	return LRU_ROTATE;
}

static void walk(struct mem_cgroup *memcg, list_lru_walk_cb visit,
		 struct splittable_victim *victim)
{
	unsigned long nr_to_walk = MMS_TO_WALK;

	list_lru_walk_one(&splittable_lru, SPLITTABLE_LIST, memcg, visit,
			  victim, &nr_to_walk);
}

/* The oldest range, or one of an address space that can be locked. */
static struct splittable_mm *pick_victim(struct mem_cgroup *memcg, bool young)
{
	unsigned long age = msecs_to_jiffies(READ_ONCE(splittable_limits.min_age_ms));
	struct splittable_victim victim = {};

	walk(memcg, look, &victim);
	if (!victim.seen || (!young && time_before(jiffies, victim.oldest + age)))
		return NULL;
	walk(memcg, pick, &victim);
	if (!victim.sm) {
		victim.oldest = young ? jiffies : jiffies - age;
		walk(memcg, pick, &victim);
	}

	return victim.sm;
}

/* A large folio that only a part of will be zapped of, or NULL. */
static struct folio *get_large_folio(struct vm_area_struct *vma,
				     unsigned long addr)
{
	struct folio_walk fw;
	struct folio *folio;

	folio = folio_walk_start(&fw, vma, addr, 0);
	if (!folio)
		return NULL;
	if (folio_test_large(folio) && folio_test_anon(folio))
		folio_get(folio);
	else
		folio = NULL;
	folio_walk_end(&fw, vma);

	return folio;
}

/*
 * A page of a large folio is free only once that is split. Returns the number
 * of pages that are not, as it was not possible.
 */
static unsigned long split_and_put(struct folio *folio)
{
	unsigned long left = 0;

	if (!folio)
		return 0;
	if (folio_mapped(folio) && folio_trylock(folio)) {
		if (folio_test_large(folio))
			split_folio(folio);
		folio_unlock(folio);
	}
	if (folio_test_large(folio) && folio_mapped(folio))
		left = max_t(long, 0, (long)folio_nr_pages(folio) -
					 folio_mapcount(folio));
	folio_put(folio);

	return left;
}

/* Returns the number of pages that are free now, about. */
static unsigned long zap(struct mm_struct *mm, unsigned long start,
			 unsigned long end, struct folio **edges)
{
	unsigned long before = get_mm_counter_sum(mm, MM_ANONPAGES), after;
	struct vm_area_struct *vma;
	struct vma_iterator vmi;

	vma_iter_init(&vmi, mm, start);
	for_each_vma_range(vmi, vma, end) {
		unsigned long from = max(start, vma->vm_start);
		unsigned long to = min(end, vma->vm_end);

		if (from == start)
			edges[0] = get_large_folio(vma, start);
		if (to == end)
			edges[1] = get_large_folio(vma, end - PAGE_SIZE);
		zap_vma_range(vma, from, to - from);
	}

	after = get_mm_counter_sum(mm, MM_ANONPAGES);

	return min(before - min(before, after), (end - start) >> PAGE_SHIFT);
}

static unsigned long zap_victim(struct splittable_mm *sm)
{
	unsigned long start = sm->zap_start, end = sm->zap_end;
	struct folio *edges[2] = {};
	struct mm_struct *mm = sm->mm;
	unsigned long pages, left;

	pages = zap(mm, start, end, edges);

	splittable_advanced(sm);
	mmap_read_unlock(mm);

	/* A second reference would keep it from being split. */
	if (edges[0] && edges[0] == edges[1]) {
		folio_put(edges[1]);
		edges[1] = NULL;
	}
	left = split_and_put(edges[0]) + split_and_put(edges[1]);
	pages -= min(pages, left);

	count_vm_event(SPLITTABLE_ZAP);
	trace_splittable_zap(mm, start, end, pages);
	mmput_async(mm);

	return pages;
}

static bool has_ranges(struct mem_cgroup *memcg)
{
	return list_lru_count_one(&splittable_lru, SPLITTABLE_LIST, memcg);
}

/**
 * splittable_reclaim() - Zap what has been noted, oldest first.
 * @memcg:		whose ranges, not those of its children; NULL for all
 * @nr_to_reclaim:	pages, enough
 * @young:		zap young ranges, too
 *
 * Context: reclaim. Waits for no lock that a caller may hold: an address space
 *	that is locked for writing is left for the next time.
 * Return: the number of pages that it made free.
 */
unsigned long splittable_reclaim(struct mem_cgroup *memcg,
				 unsigned long nr_to_reclaim, bool young)
{
	unsigned long reclaimed = 0;

	if (!has_ranges(memcg))
		return 0;

	for (int i = 0; i < ZAPS_TO_DO && reclaimed < nr_to_reclaim; i++) {
		struct splittable_mm *sm = pick_victim(memcg, young);

		if (!sm)
			break;
		reclaimed += zap_victim(sm);
		cond_resched();
	}

	return reclaimed;
}

static unsigned long drain_memcg(struct mem_cgroup *memcg)
{
	unsigned long pages = 0;
	int zaps = 0, tries = 0;

	while (has_ranges(memcg) && pages < DRAIN_ENOUGH && zaps < DRAIN_ZAPS &&
	       tries < DRAIN_TRIES && !fatal_signal_pending(current)) {
		struct splittable_mm *sm = pick_victim(memcg, true);

		if (sm) {
			pages += zap_victim(sm);
			zaps++;
			cond_resched();
		} else {
			/* Somebody has them locked, or zaps them. */
			schedule_timeout_uninterruptible(1);
			tries++;
		}
	}

	return pages;
}

/**
 * splittable_drain() - Zap what has been noted, before a process is killed.
 * @memcg:	of it and of its children; NULL for all
 *
 * Until there is enough to try again; who still finds too little comes back.
 *
 * Context: as splittable_reclaim().
 * Return: the number of pages that it made free; 0 if there are none to be had.
 */
unsigned long splittable_drain(struct mem_cgroup *memcg)
{
	struct mem_cgroup *iter = NULL;
	unsigned long pages = 0;

	while ((iter = mem_cgroup_iter(memcg, iter, NULL))) {
		pages += drain_memcg(iter);
		if (pages >= DRAIN_ENOUGH) {
			mem_cgroup_iter_break(memcg, iter);
			break;
		}
	}
	if (mem_cgroup_disabled())
		pages = drain_memcg(NULL);

	return pages;
}

int __init splittable_reclaim_init(void)
{
	static struct lock_class_key key;

	return list_lru_init_memcg_key(&splittable_lru, NULL, &key);
}
