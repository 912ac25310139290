/* SPDX-License-Identifier: GPL-2.0 */
/*
 * NUMA migration outside of page faults: declarations that its files share.
 */
#ifndef _MM_KNUMA_H
#define _MM_KNUMA_H

#include <linux/kfifo.h>
#include <linux/knuma.h>
#include <linux/memory-tiers.h>
#include <linux/mm.h>
#include <linux/sched/sysctl.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

/* Pages of a window, at most, all in one page table. */
#define KNUMA_WINDOW	(PTRS_PER_PTE < 512 ? PTRS_PER_PTE : 512)

/* Pages of a block, of which a task uses all or none. */
#define KNUMA_BLOCK	128U

/* Pages that a task migrates in one page fault. */
#define KNUMA_SMALL	32U

/* Fewer pages are left to page faults. */
#define KNUMA_WORTH	4U

/* Pages of a window that are allocated at once. */
#define KNUMA_BULK	64U

/* Windows of a queue. */
#define KNUMA_RING	1024

/* Time in ns that the daemon may need for a queue: a scan period. */
#define KNUMA_BACKLOG	NSEC_PER_SEC

/* Windows that a queue finds again. */
#define KNUMA_PENDING	64

/* Time in jiffies that a daemon waits for more windows after an empty queue. */
#define KNUMA_GATHER	max(HZ / 50, 1)

/* After this time in a queue, in jiffies, a window is dropped. */
#define KNUMA_EXPIRES	(2 * HZ)

/* A node that lacks memory for an order is tried again after this time, in jiffies. */
#define KNUMA_RETRY_MIN	max(HZ / 100, 1)
#define KNUMA_RETRY_MAX	HZ

/**
 * enum knuma_use - Pages of a block that a task is known to use
 * @KNUMA_USES_NONE:	nothing
 * @KNUMA_USES_SEEN:	pages whose last hinting fault was one of the task
 * @KNUMA_USES_ALL:	all pages
 */
enum knuma_use {
	KNUMA_USES_NONE,
	KNUMA_USES_SEEN,
	KNUMA_USES_ALL,
};

/**
 * struct knuma_move - A folio of a window
 * @old:	the folio, locked and isolated
 * @new:	copy of @old, or NULL
 * @addr:	address of the first page
 * @order:	order of @old
 * @pmd:	mapped by a PMD
 * @stays:	is not to move
 * @moved:	@new is mapped in place of @old, which nothing refers to
 * @young:	was accessed, before the copy or during the copy
 * @written:	was written to during the copy
 * @deferred:	was on the list of folios that may be split
 */
struct knuma_move {
	struct folio *old;
	struct folio *new;
	unsigned long addr;
	u8 order;
	bool pmd;
	bool stays;
	bool moved;
	bool young;
	bool written;
	bool deferred;
};

/**
 * struct knuma_window - A part of one page table, and the node to move to
 * @task:	task that uses the pages
 * @vma:	VMA, locked for read
 * @pmd:	entry of the page table
 * @start:	start address
 * @end:	end address (exclusive)
 * @next:	start address of the rest, which is left to another window
 * @nid:	node to move to
 * @most:	pages to move, at most, if that is not less than a folio
 * @moves:	array of @most elements
 * @use:	pages of the current block that @task is known to use
 * @nr:		folios that were selected
 * @pages:	pages of these folios
 * @moved:	pages that have moved
 * @blocked:	those of @moved that tasks had to wait for
 * @lacked:	bit mask of orders for which @nid had no memory
 * @refused:	the policy or the cpuset of @task does not let them move
 * @stopped:	the copy ended early, for another task
 */
struct knuma_window {
	struct task_struct *task;
	struct vm_area_struct *vma;
	pmd_t *pmd;
	unsigned long start;
	unsigned long end;
	unsigned long next;
	int nid;
	unsigned int most;
	struct knuma_move *moves;
	enum knuma_use use;
	unsigned int nr;
	unsigned int pages;
	unsigned int moved;
	unsigned int blocked;
	unsigned int lacked;
	bool refused;
	bool stopped;
};

/**
 * struct knuma_entry - A window in a queue
 * @task:	task that uses the pages, with a reference
 * @start:	start address
 * @pages:	number of pages
 * @queued:	time in jiffies of the last insertion
 * @expires:	time in jiffies when the daemon drops the window
 *
 * The daemon looks the address up in the address space of @task when the daemon
 * takes the entry.
 */
struct knuma_entry {
	struct task_struct *task;
	unsigned long start;
	unsigned int pages;
	unsigned long queued;
	unsigned long expires;
};

/* A window that is in a queue, for comparison only. */
struct knuma_pending {
	struct task_struct *task;
	unsigned long start;
};

/**
 * struct knuma_node - Windows that are to move to a node
 * @nid:	the node
 * @task:	knuma_migrated, or NULL
 * @moves:	array of KNUMA_WINDOW elements, of the daemon
 * @wait:	where the daemon waits for windows
 * @lock:	lock of @fifo; taken under a page table lock, and innermost
 * @fifo:	the queue
 * @pending:	some windows of @fifo, which are not added twice
 * @oldest:	time in jiffies when the first window of @fifo was queued
 * @service:	mean time in ns that a window takes, waits for a CPU included
 * @retry:	for each order, time in jiffies until which there is no memory
 * @delay:	for each order, current delay in jiffies, or 0 if there is memory
 */
struct knuma_node {
	int nid;
	struct task_struct *task;
	struct knuma_move *moves;
	wait_queue_head_t wait;
	spinlock_t lock;
	DECLARE_KFIFO(fifo, struct knuma_entry, KNUMA_RING);
	struct knuma_pending pending[KNUMA_PENDING];
	unsigned long oldest;
	u64 service;
	unsigned long retry[NR_PAGE_ORDERS];
	unsigned long delay[NR_PAGE_ORDERS];
};

/* By node; allocated with the first daemon of a node, and never freed. */
extern struct knuma_node *knuma_nodes[MAX_NUMNODES];

/* Leave windows in their queues until they expire, for tests; in debugfs. */
extern bool knuma_hold;

bool knuma_alone(struct task_struct *task, struct mm_struct *mm);
bool knuma_window_allowed(struct vm_area_struct *vma);
struct folio *knuma_movable(struct vm_area_struct *vma, unsigned long addr, pte_t *ptep);
struct folio *knuma_movable_head(struct vm_area_struct *vma, unsigned long addr, pte_t *ptep);
bool knuma_pmd_movable(struct folio *folio);

/* Does a folio have the time of its last access in place of the last fault? */
static inline bool knuma_has_time(struct folio *folio)
{
	return (sysctl_numa_balancing_mode & NUMA_BALANCING_MEMORY_TIERING) &&
	       folio_use_access_time(folio);
}

/*
 * The page of a present entry, or NULL for the zero page. As vm_normal_page(), but
 * inline, for a VMA that is knuma_window_allowed().
 */
static inline struct page *knuma_page(struct vm_area_struct *vma, unsigned long addr, pte_t pte)
{
	if (IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL))
		return pte_special(pte) ? NULL : pte_page(pte);

	return vm_normal_page(vma, addr, pte);
}

/**
 * struct knuma_past - Nodes on which a task had its last faults on pages of a block
 * @folio:	folio to skip
 * @here:	on the node in question
 * @elsewhere:	on other nodes; not complete if @here
 */
struct knuma_past {
	struct folio *folio;
	bool here;
	bool elsewhere;
};

enum knuma_use knuma_uses(struct task_struct *task, int nid, struct vm_area_struct *vma,
			  unsigned long addr, unsigned long end, pte_t *ptep,
			  struct knuma_past *past);

/* Is a folio of a block one of the pages that knuma_uses() speaks of? */
static inline bool knuma_page_used(struct task_struct *task, struct folio *folio,
				   enum knuma_use use)
{
	int last = folio_last_cpupid(folio);

	return use == KNUMA_USES_ALL ||
	       (use == KNUMA_USES_SEEN && !cpupid_pid_unset(last) && cpupid_match_pid(task, last));
}

/*
 * Does someone wait for this CPU? cond_resched() would ignore a lazy request, and
 * a preemption by the tick comes late.
 */
static inline bool knuma_need_resched(void)
{
	return need_resched() || tif_test_bit(TIF_NEED_RESCHED_LAZY);
}

unsigned int knuma_window_migrate(struct knuma_window *w);

bool knuma_add(struct knuma_node *node, const struct knuma_entry *entry);
void knuma_lacked(struct knuma_node *node, unsigned int orders, unsigned int had);
unsigned int knuma_waiting(struct knuma_node *node);
int knuma_migrated_run(int nid);
void knuma_migrated_stop(int nid);

void knuma_scand_update(void);

void knuma_enable(bool enable);

#endif /* _MM_KNUMA_H */
