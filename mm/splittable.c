// SPDX-License-Identifier: GPL-2.0
/*
 * Notes of memory that may go: MADV_SPLITTABLE and MADV_UNSPLITTABLE, as David
 * Rientjes proposed them in 2015. An allocator gives back a range for the
 * price of a note; reclaim zaps what has been noted, oldest first; and who
 * takes a range back finds zeroes.
 *
 * Notes are kept by address and not by VMA, so VMAs may be split and merged.
 */

#include <linux/list_lru.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmstat.h>
#include <linux/wait_bit.h>

#include "internal.h"
#include "splittable.h"

#define CREATE_TRACE_POINTS
#include <trace/events/lazyfree.h>

struct splittable_limits splittable_limits __read_mostly = {
	.min_age_ms = 1000,
	.max_ranges_per_mm = 4096,
	.min_range_kb = 64,
};

static struct kmem_cache *range_cache __ro_after_init;
static struct kmem_cache *link_cache __ro_after_init;

static unsigned long range_pages(const struct splittable_range *range)
{
	return (range->end - range->noted) >> PAGE_SHIFT;
}

/* The first range that ends after @addr. */
static struct splittable_range *first_range(struct splittable_mm *sm,
					    unsigned long addr)
{
	struct rb_node *node = sm->ranges.rb_node;
	struct splittable_range *found = NULL;

	while (node) {
		struct splittable_range *range;

		range = rb_entry(node, struct splittable_range, node);
		if (range->end > addr) {
			found = range;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}

	return found;
}

/* The first range that has some of [@from, @to), which may be empty. */
static struct splittable_range *first_range_in(struct splittable_mm *sm,
					       unsigned long from,
					       unsigned long to)
{
	struct splittable_range *range = first_range(sm, from);

	return range && max(range->start, from) < to ? range : NULL;
}

static struct splittable_range *next_range(struct splittable_range *range)
{
	return rb_entry_safe(rb_next(&range->node), struct splittable_range,
			     node);
}

static bool range_less(struct rb_node *a, const struct rb_node *b)
{
	return rb_entry(a, struct splittable_range, node)->start <
	       rb_entry(b, struct splittable_range, node)->start;
}

static bool too_many(const struct splittable_mm *sm)
{
	return sm->nr >= READ_ONCE(splittable_limits.max_ranges_per_mm);
}

static struct splittable_range *alloc_range(gfp_t gfp)
{
	return kmem_cache_alloc(range_cache, gfp | __GFP_ACCOUNT);
}

/* After the first one in @sm->by_age has changed. */
static void update_oldest(struct splittable_mm *sm)
{
	struct splittable_range *first;

	first = list_first_entry_or_null(&sm->by_age, struct splittable_range,
					 age);
	if (first)
		WRITE_ONCE(sm->oldest, first->stamp);
}

static void count_pages(struct splittable_mm *sm, long pages)
{
	sm->pages += pages;
	/* Larger numbers than these are not taken at once. */
	for (; pages > INT_MAX; pages -= INT_MAX)
		mod_lruvec_kmem_state(sm->link, NR_SPLITTABLE, INT_MAX);
	for (; pages < -INT_MAX; pages += INT_MAX)
		mod_lruvec_kmem_state(sm->link, NR_SPLITTABLE, -INT_MAX);
	mod_lruvec_kmem_state(sm->link, NR_SPLITTABLE, pages);
}

static struct splittable_link *alloc_link(struct splittable_mm *sm)
{
	struct splittable_link *link;

	link = kmem_cache_alloc_lru(link_cache, &splittable_lru,
				    GFP_NOWAIT | __GFP_ACCOUNT);
	if (link) {
		INIT_LIST_HEAD(&link->lru);
		link->sm = sm;
	}

	return link;
}

static void list_link(struct splittable_link *link)
{
	guard(rcu)();
	list_lru_add(&splittable_lru, &link->lru, SPLITTABLE_LIST,
		     mem_cgroup_from_virt(link));
}

static void unlist_link(struct splittable_link *link)
{
	guard(rcu)();
	list_lru_del(&splittable_lru, &link->lru, SPLITTABLE_LIST,
		     mem_cgroup_from_virt(link));
}

/*
 * Changes the bounds of a range, its pages that are counted, and whether it is
 * in the list for reclaim.
 */
static void set_range(struct splittable_range *range, unsigned long start,
		      unsigned long noted, unsigned long end)
{
	struct splittable_mm *sm = range->owner;
	long before = range_pages(range), now;

	range->start = start;
	range->noted = noted;
	range->end = end;
	now = range_pages(range);
	if (now == before)
		return;

	count_pages(sm, now - before);
	if (!before) {
		bool first = list_empty(&sm->by_age);

		range->stamp = jiffies;
		list_add_tail(&range->age, &sm->by_age);
		update_oldest(sm);
		if (first)
			list_link(sm->link);
	} else if (!now) {
		list_del(&range->age);
		update_oldest(sm);
		if (list_empty(&sm->by_age))
			unlist_link(sm->link);
	}
}

static void insert_range(struct splittable_mm *sm,
			 struct splittable_range *range, unsigned long start,
			 unsigned long noted, unsigned long end)
{
	range->owner = sm;
	range->start = start;
	range->noted = start;
	range->end = start;
	range->patchy = false;
	rb_add(&range->node, &sm->ranges, range_less);
	sm->nr++;
	set_range(range, start, noted, end);
}

static void erase_range(struct splittable_mm *sm,
			struct splittable_range *range)
{
	set_range(range, range->start, range->end, range->end);
	rb_erase(&range->node, &sm->ranges);
	sm->nr--;
	kmem_cache_free(range_cache, range);
}

/**
 * splittable_mm_alloc() - Prepare for the notes of an address space.
 * @mm:		the address space
 *
 * Context: any.
 * Return: NULL if there is no memory.
 */
struct splittable_mm *splittable_mm_alloc(struct mm_struct *mm)
{
	struct splittable_mm *sm;

	sm = kzalloc_obj(*sm, GFP_NOWAIT | __GFP_ACCOUNT);
	if (!sm)
		return NULL;
	sm->link = alloc_link(sm);
	if (!sm->link) {
		kfree(sm);
		return NULL;
	}
	spin_lock_init(&sm->lock);
	sm->ranges = RB_ROOT;
	INIT_LIST_HEAD(&sm->by_age);
	sm->mm = mm;

	return sm;
}

/* The process is in another memcg than before, whose reclaim has to find it. */
static bool follow_memcg(struct splittable_mm *sm)
{
	struct splittable_link *link = alloc_link(sm), *old;
	unsigned long pages;

	if (!link)
		return false;

	spin_lock(&sm->lock);
	old = sm->link;
	pages = sm->pages;
	count_pages(sm, -pages);
	if (!list_empty(&sm->by_age))
		unlist_link(old);
	sm->link = link;
	count_pages(sm, pages);
	if (!list_empty(&sm->by_age))
		list_link(link);
	spin_unlock(&sm->lock);
	kmem_cache_free(link_cache, old);

	return true;
}

/**
 * splittable_mm_free() - Free notes.
 * @sm:		of what is no longer used by anybody
 *
 * Context: may sleep.
 */
void splittable_mm_free(struct splittable_mm *sm)
{
	struct rb_node *node;

	while ((node = rb_first(&sm->ranges))) {
		erase_range(sm, rb_entry(node, struct splittable_range, node));
		cond_resched();
	}
	kmem_cache_free(link_cache, sm->link);
	kfree(sm);
}

#ifdef CONFIG_MEMCG
/* Whether the memcg in whose list @sm is, is that of the caller. */
static bool in_its_memcg(const struct splittable_mm *sm)
{
	struct mem_cgroup *memcg, *now;

	guard(rcu)();
	memcg = mem_cgroup_from_virt(sm->link);
	now = mem_cgroup_from_task(current);

	/* What the root cgroup has is charged to nobody. */
	return memcg == now || (!memcg && (!now || mem_cgroup_is_root(now)));
}
#else
static bool in_its_memcg(const struct splittable_mm *sm)
{
	return true;
}
#endif

/**
 * splittable_add() - Note a range.
 * @sm:		the notes
 * @start:	first address
 * @end:	address after the last one
 *
 * If it touches others they become one, as old as the first of them: this
 * takes neither memory nor a place in the list.
 *
 * Context: process; takes @sm->lock.
 * Return: 0; -EXDEV if the caller is in another memcg than @sm, so that
 *	nobody would zap it for the memory that it has there; -ENOSPC if there
 *	are too many; or -ENOMEM.
 */
int splittable_add(struct splittable_mm *sm, unsigned long start,
		   unsigned long end)
{
	struct splittable_range *range, *next;

	guard(spinlock)(&sm->lock);

	if (!in_its_memcg(sm))
		return -EXDEV;

	range = first_range(sm, start ? start - 1 : 0);
	if (!range || range->start > end) {
		if (too_many(sm))
			return -ENOSPC;
		range = alloc_range(GFP_NOWAIT);
		if (!range)
			return -ENOMEM;
		insert_range(sm, range, start, start, end);
		return 0;
	}

	/* What was zapped in the midst of it counts as noted again. */
	range->patchy |= range->noted > max(start, range->start);
	end = max(end, range->end);
	while ((next = next_range(range)) && next->start <= end) {
		range->patchy |= next->patchy || next->noted > next->start;
		end = max(end, next->end);
		erase_range(sm, next);
	}
	set_range(range, min(start, range->start), min(start, range->noted),
		  end);

	return 0;
}

static bool is_zapping(const struct splittable_mm *sm, unsigned long from,
		       unsigned long to)
{
	return sm->zap_start < to && sm->zap_end > from;
}

/**
 * splittable_take() - Take the first noted part of an area out of the notes.
 * @sm:		the notes
 * @from:	first address of the area
 * @to:		address after the last one
 * @part:	what was taken
 *
 * From now on reclaim will not zap it, and has finished if it had begun to. See
 * lazyfree-take.litmus and lazyfree-wait.litmus in
 * Documentation/litmus-tests/mm/.
 *
 * A cut in the midst of a range makes two of it, whatever the limit is: to
 * forget what follows would be wrong, and to zap it would race with who takes
 * that.
 *
 * Context: may sleep; the area is locked, so that nobody notes what the caller
 *	would not like to be noted. Takes @sm->lock.
 * Return: false if there is no such part.
 */
bool splittable_take(struct splittable_mm *sm, unsigned long from,
		     unsigned long to, struct splittable_part *part)
{
	struct splittable_range *range, *tail = NULL;
	unsigned long start, noted, end;

again:
	spin_lock(&sm->lock);
	wait_var_event_spinlock(&sm->zap_end, !is_zapping(sm, from, to),
				&sm->lock);
	range = first_range_in(sm, from, to);
	if (!range) {
		spin_unlock(&sm->lock);
		if (unlikely(tail))
			kmem_cache_free(range_cache, tail);
		return false;
	}
	start = range->start;
	noted = range->noted;
	end = range->end;
	part->start = max(start, from);
	part->end = min(end, to);
	part->noted = clamp(noted, part->start, part->end);
	part->patchy = range->patchy;

	if (start == part->start && end == part->end) {
		erase_range(sm, range);
	} else if (start == part->start) {
		set_range(range, part->end, max(noted, part->end), end);
	} else if (end == part->end) {
		set_range(range, start, min(noted, part->start), part->start);
	} else {
		if (!tail)
			tail = alloc_range(GFP_NOWAIT);
		if (!tail) {
			spin_unlock(&sm->lock);
			tail = alloc_range(GFP_KERNEL | __GFP_NOFAIL);
			goto again;
		}
		set_range(range, start, min(noted, part->start), part->start);
		insert_range(sm, tail, part->end, max(noted, part->end), end);
		tail->stamp = range->stamp;
		if (tail->noted < tail->end)
			list_move(&tail->age, range->noted < range->end ?
					      &range->age : &sm->by_age);
		update_oldest(sm);
		tail->patchy = range->patchy;
		tail = NULL;
	}
	spin_unlock(&sm->lock);
	if (unlikely(tail))
		kmem_cache_free(range_cache, tail);

	return true;
}

/**
 * splittable_next() - Find the first noted part of an area.
 * @sm:		the notes
 * @from:	first address of the area
 * @to:		address after the last one
 * @part:	what was found
 *
 * Context: process; takes @sm->lock. Unless the area is locked for writing
 *	there may be more or less of it as soon as this returns.
 * Return: false if there is no such part.
 */
bool splittable_next(struct splittable_mm *sm, unsigned long from,
		     unsigned long to, struct splittable_part *part)
{
	struct splittable_range *range;

	guard(spinlock)(&sm->lock);

	range = first_range_in(sm, from, to);
	if (!range)
		return false;
	part->start = max(range->start, from);
	part->end = min(range->end, to);
	part->noted = clamp(range->noted, part->start, part->end);
	part->patchy = range->patchy;

	return true;
}

/**
 * splittable_advance() - Begin to zap the first part of the oldest range.
 * @sm:		the notes, not all of which have been zapped
 * @to:		address after the last one of that part
 *
 * The part is [@sm->zap_start, @sm->zap_end), until splittable_advanced().
 *
 * Context: @sm->lock held, and that of the list of @sm.
 * Return: whether nothing is left to be zapped, so that @sm has to leave the
 *	list.
 */
bool splittable_advance(struct splittable_mm *sm, unsigned long to)
{
	struct splittable_range *range;

	lockdep_assert_held(&sm->lock);

	range = list_first_entry(&sm->by_age, struct splittable_range, age);
	sm->zap_start = range->noted;
	sm->zap_end = min(to, range->end);
	sm->zapped_at = jiffies;
	count_pages(sm, -(long)((sm->zap_end - sm->zap_start) >> PAGE_SHIFT));
	range->noted = sm->zap_end;
	if (range->noted == range->end)
		list_del(&range->age);
	update_oldest(sm);

	return list_empty(&sm->by_age);
}

/**
 * splittable_advanced() - Reclaim has zapped what splittable_advance() gave it.
 * @sm:		the notes
 *
 * Context: process; takes @sm->lock.
 */
void splittable_advanced(struct splittable_mm *sm)
{
	guard(spinlock)(&sm->lock);

	sm->zap_start = 0;
	sm->zap_end = 0;
	wake_up_var_locked(&sm->zap_end, &sm->lock);
}

/*
 * Reclaim works on the memory here, or zaps what this address space has noted:
 * then what is noted now is only zapped later, by somebody who waits for
 * memory.
 */
static bool node_under_pressure(void)
{
	/* Nobody waits there: it runs. A hint, for which no order is needed. */
	return !waitqueue_active(&NODE_DATA(numa_mem_id())->kswapd_wait);
}

static bool under_pressure(const struct splittable_mm *sm)
{
	unsigned long zapped_at = READ_ONCE(sm->zapped_at);
	unsigned long age = msecs_to_jiffies(READ_ONCE(splittable_limits.min_age_ms));

	return zapped_at && time_before(jiffies, zapped_at + age);
}

static bool too_short(unsigned long len)
{
	return len >> 10 < READ_ONCE(splittable_limits.min_range_kb);
}

static bool can_note(struct vm_area_struct *vma)
{
	/* No list of a memcg would have its ranges. */
	if (mem_cgroup_kmem_disabled() && !mem_cgroup_disabled())
		return false;

	return vma_is_anonymous(vma) && !userfaultfd_armed(vma) &&
	       !(vma->vm_flags & (VM_SPECIAL | VM_SHARED | VM_LOCKED |
				  VM_HUGETLB | VM_DROPPABLE));
}

/**
 * splittable_note() - Note a range, in place of MADV_DONTNEED.
 * @vma:	the vma, which covers all of it
 * @start:	first address
 * @end:	address after the last one
 *
 * Context: process; @vma or its mm locked for reading.
 * Return: false if it has to be zapped.
 */
bool splittable_note(struct vm_area_struct *vma, unsigned long start,
		     unsigned long end)
{
	struct mm_struct *mm = vma->vm_mm;
	struct splittable_mm *sm, *old;
	int error;

	if (!can_note(vma) || too_short(end - start) || node_under_pressure())
		goto refused;

	sm = splittable_of(mm);
	if (unlikely(!sm)) {
		sm = splittable_mm_alloc(mm);
		if (!sm)
			goto refused;
		/*
		 * Pairs with READ_ONCE() in splittable_of(), see
		 * Documentation/litmus-tests/mm/lazyfree-publish.litmus.
		 */
		old = cmpxchg(&mm->splittable, NULL, sm);
		if (old) {
			splittable_mm_free(sm);
			sm = old;
		}
	}

	if (under_pressure(sm))
		goto refused;
	error = splittable_add(sm, start, end);
	if (error == -EXDEV && follow_memcg(sm))
		error = splittable_add(sm, start, end);
	if (error)
		goto refused;

	count_vm_event(SPLITTABLE_NOTE);
	trace_splittable_note(mm, start, end);
	return true;

refused:
	count_vm_event(SPLITTABLE_REFUSE);
	trace_splittable_refuse(mm, start, end);
	return false;
}

/* Writes zeroes through a mapping. Returns how far it got without a fault. */
static unsigned long clear_mapped(unsigned long start, unsigned long end)
{
	unsigned long left;

	pagefault_disable();
	left = clear_user((void __user *)start, end - start);
	pagefault_enable();

	return PAGE_ALIGN_DOWN(end - left);
}

static bool maps_huge(struct mm_struct *mm, unsigned long addr)
{
	pmd_t *pmd = mm_find_pmd(mm, addr);

	return pmd && pmd_trans_huge(pmdp_get_lockless(pmd));
}

/*
 * Huge pages are cleared, as they would have to be split; others are zapped,
 * so that memory is spent on those only that are used again.
 */
static void clear_part(struct vm_area_struct *vma,
		       const struct splittable_part *part)
{
	unsigned long zap = part->start, addr, next;

	/* Tags have to go as well. */
	if (vma->vm_flags & VM_MTE)
		goto zap;

	for (addr = part->noted; addr < part->end; addr = next) {
		next = pmd_addr_end(addr, part->end);
		if (!maps_huge(vma->vm_mm, addr))
			continue;
		if (zap < addr)
			zap_vma_range(vma, zap, addr - zap);
		zap = clear_mapped(addr, next);
		cond_resched();
	}
zap:
	if (zap < part->end)
		zap_vma_range(vma, zap, part->end - zap);
}

void __splittable_clear(struct vm_area_struct *vma, unsigned long start,
			unsigned long end)
{
	struct splittable_mm *sm = splittable_of(vma->vm_mm);
	struct splittable_part part;

	for (; splittable_take(sm, start, end, &part); start = part.end) {
		clear_part(vma, &part);
		count_vm_event(SPLITTABLE_TAKE);
		trace_splittable_take(vma->vm_mm, part.start, part.end);
	}
}

/**
 * splittable_undo() - Take the first range of an area back as it is.
 * @vma:	the vma, which covers all of it
 * @start:	first address of the area
 * @from:	address after the last one of the area; on return, where the
 *		range starts, or where it ends if nobody knows whether all of
 *		its pages are there
 * @to:		address after the last one of the area; where the range ends
 *
 * Context: may sleep; @vma or its mm locked for reading.
 * Return: whether some of it has been zapped.
 */
bool splittable_undo(struct vm_area_struct *vma, unsigned long start,
		     unsigned long *from, unsigned long *to)
{
	struct splittable_part part;

	if (!splittable_in_use(vma->vm_mm) ||
	    !splittable_take(splittable_of(vma->vm_mm), start, *to, &part))
		return false;
	*from = part.patchy ? part.end : part.start;
	*to = part.end;
	count_vm_event(SPLITTABLE_UNDO);
	trace_splittable_undo(vma->vm_mm, part.start, part.end);

	return part.noted != part.start;
}

void __splittable_zap(struct vm_area_struct *vma, unsigned long start,
		      unsigned long end)
{
	struct splittable_mm *sm = splittable_of(vma->vm_mm);
	struct splittable_part part;

	for (; splittable_take(sm, start, end, &part); start = part.end)
		zap_vma_range(vma, part.start, part.end - part.start);
}

void __splittable_forget(struct mm_struct *mm, unsigned long start,
			 unsigned long end)
{
	struct splittable_mm *sm = splittable_of(mm);
	struct splittable_part part;

	for (; splittable_take(sm, start, end, &part); start = part.end)
		cond_resched();
}

void __splittable_fork(struct vm_area_struct *child,
		       struct splittable_mm *parent)
{
	unsigned long start = child->vm_start;
	struct splittable_part part;

	for (; splittable_next(parent, start, child->vm_end, &part);
	     start = part.end)
		zap_vma_range(child, part.start, part.end - part.start);
}

void __splittable_exit(struct mm_struct *mm)
{
	splittable_mm_free(splittable_of(mm));
	mm->splittable = NULL;
}

/**
 * splittable_pages() - How many pages of an area are noted and not yet zapped.
 * @mm:		the address space
 * @start:	first address
 * @end:	address after the last one
 *
 * Context: process; takes the lock of the notes.
 * Return: the number of pages, mapped or not.
 */
unsigned long splittable_pages(struct mm_struct *mm, unsigned long start,
			       unsigned long end)
{
	struct splittable_mm *sm = splittable_of(mm);
	struct splittable_part part;
	unsigned long pages = 0;

	if (!sm)
		return 0;
	for (; splittable_next(sm, start, end, &part); start = part.end)
		pages += (part.end - part.noted) >> PAGE_SHIFT;

	return pages;
}

/**
 * splittable_mm_pages() - How many pages of an address space are noted and not
 *	yet zapped.
 * @mm:		the address space
 *
 * Context: a reference to @mm's users is held.
 * Return: the number of pages, mapped or not.
 */
unsigned long splittable_mm_pages(const struct mm_struct *mm)
{
	struct splittable_mm *sm = splittable_of(mm);

	return sm ? READ_ONCE(sm->pages) : 0;
}

static int __init splittable_init_cache(void)
{
	range_cache = KMEM_CACHE(splittable_range, SLAB_PANIC);
	link_cache = KMEM_CACHE(splittable_link, SLAB_PANIC);
	return splittable_reclaim_init();
}
core_initcall(splittable_init_cache);
