// SPDX-License-Identifier: GPL-2.0
/*
 * NUMA migration outside of page faults. A hinting fault that finds a folio on
 * the wrong node queues a window of pages, and makes the window accessible in its
 * place. The knuma_migrated of the right node migrates the window soon after.
 *
 * Andrea Arcangeli's AutoNUMA had such daemons in 2012:
 * https://lore.kernel.org/all/1345647560-30387-20-git-send-email-aarcange@redhat.com/
 * There, a queued page was on a list. Here, an entry of a queue is an address of
 * a task: the daemon looks up the pages and checks the policy when it takes the
 * entry, so no other subsystem has to know of the queue.
 *
 * If a daemon is late, or has no queue left, the fault migrates: never slower than
 * without daemons.
 */

#include <linux/cpuhotplug.h>
#include <linux/memory-tiers.h>
#include <linux/memory.h>
#include <linux/mempolicy.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/node.h>
#include <linux/pgtable.h>
#include <linux/rcupdate.h>
#include <linux/sched/numa_balancing.h>
#include <linux/sched/task.h>
#include <linux/vmstat.h>

#include "internal.h"
#include "knuma.h"

#include <trace/events/knuma.h>

DEFINE_STATIC_KEY_FALSE(knuma_enabled);

struct knuma_knobs knuma_knobs = {
	.window_pages = KNUMA_WINDOW,
	.late_millisecs = 1000,
	.scan_sleep_millisecs = 100,
	.pages_to_scan = (256 << 20) / PAGE_SIZE,
};

struct knuma_node *knuma_nodes[MAX_NUMNODES];

/* Starts and stops daemons; taken inside the locks of hotplug. */
static DEFINE_MUTEX(knuma_lock);

/* Has the first window of a queue waited for long, or will the last one? */
static bool knuma_is_late(struct knuma_node *node)
{
	unsigned int waiting = kfifo_len(&node->fifo);
	unsigned long late = msecs_to_jiffies(READ_ONCE(knuma_knobs.late_millisecs));

	return waiting && (time_after(jiffies, READ_ONCE(node->oldest) + late) ||
			   waiting * READ_ONCE(node->service) > KNUMA_BACKLOG);
}

static bool knuma_lacks(struct knuma_node *node, unsigned int order)
{
	return READ_ONCE(node->delay[order]) &&
	       time_before(jiffies, READ_ONCE(node->retry[order]));
}

/* A part of a page table around a fault. */
struct knuma_around {
	unsigned long start;
	unsigned long end;
	pte_t *ptep;
};

static struct knuma_around knuma_around(struct vm_fault *vmf, unsigned int pages)
{
	unsigned long bytes = min(pages * PAGE_SIZE, PMD_SIZE);
	unsigned long start = ALIGN_DOWN(vmf->address, bytes);
	struct knuma_around around = {
		.start = max(start, vmf->vma->vm_start),
		.end = min(start + bytes, vmf->vma->vm_end),
	};

	around.ptep = vmf->pte - ((vmf->address - around.start) >> PAGE_SHIFT);

	return around;
}

/* Pages that may move with the page of a fault: more than a block if current is alone. */
static struct knuma_around knuma_around_used(struct vm_fault *vmf)
{
	unsigned int window = READ_ONCE(knuma_knobs.window_pages);

	return knuma_around(vmf, knuma_alone(current, vmf->vma->vm_mm) ? window :
								 min(window, KNUMA_BLOCK));
}

/* Make a neighbour accessible; not young, as no task has accessed the page. */
static void knuma_restore(struct vm_fault *vmf, unsigned long addr, pte_t *ptep)
{
	struct vm_area_struct *vma = vmf->vma;
	pte_t old = ptep_modify_prot_start(vma, addr, ptep);
	pte_t pte = pte_modify(old, vma->vm_page_prot);

	if (!pte_write(pte) && vma_wants_manual_pte_write_upgrade(vma) &&
	    can_change_pte_writable(vma, addr, pte))
		pte = pte_mkwrite(pte, vma);
	ptep_modify_prot_commit(vma, addr, ptep, old, pte);
	update_mmu_cache_range(vmf, vma, addr, ptep, 1);
}

/*
 * Make the neighbours that move accessible. Returns how many there are, but not more
 * than @most.
 */
static int knuma_restore_around(struct vm_fault *vmf, struct folio *folio, int target_nid,
				const struct knuma_around *around, enum knuma_use use, int most)
{
	struct vm_area_struct *vma = vmf->vma;
	pte_t *ptep = around->ptep;
	unsigned long addr = around->start;
	int pages = 0, nr;

	for (; addr < around->end && pages < most; addr += nr * PAGE_SIZE, ptep += nr) {
		struct folio *next = knuma_movable_head(vma, addr, ptep);

		nr = 1;
		if (!next)
			continue;
		nr = folio_nr_pages(next);
		if (next == folio || folio_nid(next) == target_nid || !pte_protnone(ptep_get(ptep)) ||
		    !knuma_page_used(current, next, use))
			continue;
		pages += nr;
		for (int i = 0; i < nr && most == INT_MAX; i++)
			if (pte_protnone(ptep_get(ptep + i)))
				knuma_restore(vmf, addr + i * PAGE_SIZE, ptep + i);
	}

	return pages;
}

static enum knuma_result knuma_fault_pmd(struct vm_fault *vmf, struct knuma_node *node,
					 struct folio *folio)
{
	struct knuma_entry entry = {
		.task = current,
		.start = vmf->address & HPAGE_PMD_MASK,
		.pages = HPAGE_PMD_NR,
	};

	if (knuma_is_late(node) || !knuma_add(node, &entry))
		return KNUMA_FAULT_NONE;
	trace_knuma_queue(current, entry.start, entry.pages, folio_nid(folio), node->nid);
	count_vm_events(KNUMA_QUEUED, entry.pages);

	return KNUMA_FAULT_QUEUED;
}

static struct knuma_around knuma_around_self(struct vm_fault *vmf)
{
	return knuma_around(vmf, min(READ_ONCE(knuma_knobs.window_pages), KNUMA_SMALL));
}

/* Without the daemon: a window, or a folio that is larger. */
static enum knuma_result knuma_fault_self(struct vm_fault *vmf, struct folio *folio)
{
	struct knuma_around around = knuma_around_self(vmf);

	return folio_size(folio) <= around.end - around.start ? KNUMA_FAULT_SELF :
								KNUMA_FAULT_NONE;
}

/* The window of a fault: all of it is likely to be queued, block by block. */
static struct knuma_entry knuma_entry(struct vm_fault *vmf)
{
	struct knuma_around around = knuma_around(vmf, READ_ONCE(knuma_knobs.window_pages));

	return (struct knuma_entry) {
		.task = current,
		.start = around.start,
		.pages = (around.end - around.start) >> PAGE_SHIFT,
	};
}

/*
 * Is the second fault on a block from a node, or the first one ever? If not, makes
 * the pages accessible that are to stay for now.
 */
static bool knuma_second_fault(struct vm_fault *vmf, struct folio *folio, int *target_nid,
			       bool unset, const struct knuma_past *past,
			       const struct knuma_around *around, enum knuma_use use, int *pages)
{
	if (*target_nid != NUMA_NO_NODE && !(unset && past->elsewhere && !past->here))
		return true;
	if (past->here) {
		*target_nid = numa_node_id();
		return true;
	}
	*target_nid = NUMA_NO_NODE;
	*pages += knuma_restore_around(vmf, folio, numa_node_id(), around, use, INT_MAX);

	return false;
}

enum knuma_result __knuma_fault(struct vm_fault *vmf, struct folio *folio,
				int *target_nid, int last_cpupid, int *pages)
{
	bool unset = cpupid_pid_unset(last_cpupid);
	struct knuma_past past = { .folio = folio };
	struct vm_area_struct *vma = vmf->vma;
	int nid = numa_node_id(), more;
	struct knuma_around around;
	struct knuma_entry entry;
	struct knuma_node *node;
	enum knuma_use use;

	if (folio_nid(folio) == nid || !knuma_window_allowed(vma) || !folio_test_anon(folio) ||
	    folio_test_ksm(folio) || folio_maybe_mapped_shared(folio))
		return KNUMA_FAULT_NONE;
	if (*target_nid == NUMA_NO_NODE) {
		if (!vmf->pte || !(unset || cpupid_match_pid(current, last_cpupid)) ||
		    !node_state(nid, N_MEMORY) ||
		    !mpol_balances_to(current, vma, vmf->address, nid))
			return KNUMA_FAULT_NONE;
	} else if (*target_nid != nid) {
		/* The daemon drops the entry if current does not run there any more. */
		return KNUMA_FAULT_NONE;
	}
	/* knuma_migrated_stop() waits for a grace period. */
	guard(rcu)();
	node = READ_ONCE(knuma_nodes[nid]);
	if (!node || !READ_ONCE(node->task))
		return KNUMA_FAULT_NONE;
	if (!vmf->pte) {
		if (!knuma_pmd_movable(folio))
			return KNUMA_FAULT_NONE;
		return knuma_lacks(node, folio_order(folio)) ? KNUMA_FAULT_FAILED :
							       knuma_fault_pmd(vmf, node, folio);
	}
	if (!knuma_movable(vma, vmf->address, vmf->pte))
		return KNUMA_FAULT_NONE;

	around = knuma_around_used(vmf);
	use = knuma_uses(current, nid, vma, around.start, around.end, around.ptep, &past);
	if (use == KNUMA_USES_NONE)
		return KNUMA_FAULT_NONE;
	if (!knuma_second_fault(vmf, folio, target_nid, unset, &past, &around, use, pages))
		return KNUMA_FAULT_NONE;
	if (knuma_lacks(node, folio_order(folio)))
		return KNUMA_FAULT_FAILED;
	if (folio_size(folio) > around.end - around.start)
		return KNUMA_FAULT_NONE;
	if (*pages + knuma_restore_around(vmf, folio, nid, &around, use, KNUMA_WORTH) <
	    KNUMA_WORTH)
		return KNUMA_FAULT_NONE;
	entry = knuma_entry(vmf);
	if (knuma_is_late(node) || !knuma_add(node, &entry))
		return knuma_fault_self(vmf, folio);
	more = knuma_restore_around(vmf, folio, nid, &around, use, INT_MAX);
	trace_knuma_queue(current, around.start, *pages + more, folio_nid(folio), nid);
	*pages += more;
	count_vm_events(KNUMA_QUEUED, *pages);

	return KNUMA_FAULT_QUEUED;
}

/**
 * knuma_migrate_window() - Migrate pages around a hinting fault.
 * @vmf:	the fault; the VMA or the mm is locked for read
 * @target_nid:	node to move to
 *
 * Context: process; may sleep; no page table lock held.
 * Return: number of pages that have moved.
 */
int knuma_migrate_window(struct vm_fault *vmf, int target_nid)
{
	struct knuma_around around = knuma_around_self(vmf);
	struct knuma_move moves[KNUMA_SMALL];
	struct knuma_window w = {
		.task = current,
		.vma = vmf->vma,
		.start = around.start,
		.end = around.end,
		.nid = target_nid,
		.most = KNUMA_SMALL,
		.moves = moves,
	};

	count_vm_event(KNUMA_SELF_MIGRATED);

	return knuma_window_migrate(&w);
}

static bool knuma_has_daemon(int nid)
{
	return node_state(nid, N_MEMORY) && node_state(nid, N_CPU);
}

/* Without a daemon, faults migrate. */
static void knuma_run_daemon(int nid)
{
	int err = knuma_has_daemon(nid) ? knuma_migrated_run(nid) : 0;

	if (err)
		pr_warn("knuma: no daemon for node %d: error %d\n", nid, err);
}

/**
 * knuma_enable() - Start or stop the daemons.
 * @enable:	which of them
 *
 * Context: process; may sleep. Waits for the current window of each daemon.
 */
void knuma_enable(bool enable)
{
	int nid;

	guard(cpus_read_lock)();
	guard(mutex)(&knuma_lock);
	if (enable == static_key_enabled(&knuma_enabled))
		return;
	if (enable) {
		static_branch_enable_cpuslocked(&knuma_enabled);
		for_each_online_node(nid)
			knuma_run_daemon(nid);
	} else {
		static_branch_disable_cpuslocked(&knuma_enabled);
		for_each_node(nid)
			knuma_migrated_stop(nid);
	}
}

/* This may be the first CPU of a node. A daemon of a node without CPUs does no harm. */
static int knuma_cpu_online(unsigned int cpu)
{
	guard(mutex)(&knuma_lock);
	if (static_key_enabled(&knuma_enabled))
		knuma_run_daemon(cpu_to_node(cpu));

	return 0;
}

static int knuma_node_changes(struct notifier_block *nb, unsigned long action, void *arg)
{
	int nid = ((struct node_notify *)arg)->nid;

	guard(mutex)(&knuma_lock);
	if (!static_key_enabled(&knuma_enabled))
		return NOTIFY_OK;
	switch (action) {
	case NODE_REMOVING_LAST_MEMORY:
	case NODE_REMOVED_LAST_MEMORY:
		knuma_migrated_stop(nid);
		break;
	case NODE_CANCEL_REMOVING_LAST_MEMORY:
	case NODE_ADDED_FIRST_MEMORY:
		knuma_run_daemon(nid);
		break;
	}

	return NOTIFY_OK;
}

static int __init knuma_init(void)
{
	int err;

	err = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "mm/knuma:online",
					knuma_cpu_online, NULL);
	if (err < 0)
		return err;
	hotplug_node_notifier(knuma_node_changes, DEFAULT_CALLBACK_PRI);

	return 0;
}
late_initcall(knuma_init);
