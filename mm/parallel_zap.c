// SPDX-License-Identifier: GPL-2.0
/*
 * Zapping of large ranges, shared among kworkers.
 *
 * Whoever exits or unmaps terabytes of small pages used to walk, unmap and
 * free them on one CPU, for minutes. Here that task, the owner, measures how
 * fast it gets on. If much time is left, it hands what it has not begun to
 * helpers: kworkers that claim chunks of the address space, each with an
 * mmu_gather of its own, so that nothing is left to the owner for them. The
 * owner goes on to claim chunks, too, and waits at the end for those that are
 * in the hands of helpers: memory is free when munmap() and wait4() return.
 *
 * In 2017 Aaron Lu's series gave the freeing of gathered pages to kworkers,
 * and was limited by the walk that stayed on one CPU:
 * https://lore.kernel.org/linux-mm/1489568404-7817-1-git-send-email-aaron.lu@intel.com
 *
 * Locks: the owner has mmap_lock, or the vma's, and keeps it until helpers are
 * done; they take neither, as a writer that waits could come between. Nobody
 * waits for a helper that has not started: the owner cancels it. All failures
 * leave the owner alone with its work, as it always was.
 */

#include <linux/cpumask.h>
#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/sched.h>
#include <linux/sched/cputime.h>
#include <linux/sched/isolation.h>
#include <linux/sched/mm.h>
#include <linux/sched/rt.h>
#include <linux/sched/stat.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timekeeping.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>

#include <asm/tlb.h>

#include "internal.h"
#include "parallel_zap.h"
#include "parallel_zap_areas.h"
#include "parallel_zap_pace.h"

/* Why a helper has left */
enum zap_leave {
	ZAP_LEAVE_DONE,		/* nobody has left anything to claim */
	ZAP_LEAVE_BUSY,		/* its CPU is wanted */
	ZAP_LEAVE_NODE,		/* what is left is of other nodes */
};

#define CREATE_TRACE_POINTS
#include <trace/events/parallel_zap.h>

#define NR_ZAP_HELPERS	16

/* Who wants the CPU gets three quarters of it, until the chunk is done. */
#define ZAP_HELPER_NICE	5

DEFINE_STATIC_KEY_FALSE(parallel_zap_enabled);

struct zap_limits zap_limits = {
	.min_ms = 100,
	.chunk_mb = 64,
	.helpers_per_node = 2,
};

static struct workqueue_struct *zap_wq;

/* Helpers of all jobs, queued or at work; and those of each node. */
static atomic_t nr_all_helpers;
static atomic_t nr_node_helpers[MAX_NUMNODES];

/**
 * struct zap_helper - A helper, or room for one.
 * @work:	what the kworker runs
 * @job:	the job that it works for
 * @nid:	node that it was queued on
 * @any_node:	claim memory of other nodes, too: theirs have no idle CPU
 * @last:	index of the area of its last chunk, or -1; under the job's lock
 * @in_use:	set by the owner as it queues the work, cleared by the helper as
 *		it leaves, so that the owner may use all of this again. If its
 *		kworker is still on its way out, it runs on the node where it
 *		was before; that is no more than a chunk of another node.
 * @running:	it has begun, and not left
 */
struct zap_helper {
	struct work_struct work;
	struct zap_job *job;
	int nid;
	bool any_node;
	int last;
	bool in_use;
	bool running;
};

/**
 * struct zap_job - What one task zaps, and who helps it.
 * @mm:		the mm; the owner has a reference to it
 * @details:	how to zap
 * @fullmm:	nobody will use the mm any more
 * @shared:	there have been helpers, so that areas are in use
 * @wanted:	a helper has been refused for now; ask again
 * @pos:	what is above has not been added to areas yet
 * @limit:	end of it
 * @not_before:	no new helper before this time, in ns
 * @nr_started:	helpers that were queued
 * @pace:	what has been measured
 * @lock:	protects what follows, but for what the helpers' own comment says
 * @usecs:	CPU time of helpers
 * @last:	index of the area of the owner's last chunk, or -1
 * @areas:	what nobody has begun; see parallel_zap_areas.h
 * @helper:	the helpers
 *
 * What is not under @lock is the owner's; helpers only read what is constant.
 */
struct zap_job {
	struct mm_struct *mm;
	struct zap_details details;
	bool fullmm;
	bool shared;
	bool wanted;
	unsigned long pos;
	unsigned long limit;
	u64 not_before;
	unsigned int nr_started;
	struct zap_pace pace;

	spinlock_t lock;		/* protects all of the following */
	u64 usecs;
	int last;
	struct zap_areas areas;

	struct zap_helper helper[NR_ZAP_HELPERS];
};

static unsigned long chunk_bytes(void)
{
	return ALIGN((unsigned long)READ_ONCE(zap_limits.chunk_mb) << 20,
		     PMD_SIZE);
}

/* What there is to unmap; swap entries take their time, too. */
static unsigned long mm_pages(struct mm_struct *mm)
{
	return get_mm_rss(mm) + get_mm_counter(mm, MM_SWAPENTS);
}

/*
 * Where the memory at the beginning of an area is, by its page table, which
 * was allocated when it was touched first. Tables above PTEs do not go away
 * before the job's end, and a hint need not be right.
 */
static void look_at_area(struct mm_struct *mm, struct zap_area *area)
{
	unsigned long addr = area->next;
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud, pudval;
	pmd_t *pmd, pmdval;

	area->huge_end = addr;
	if (zap_area_empty(area) || pgd_none(pgdp_get(pgd)))
		return;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(p4dp_get(p4d)))
		return;
	pud = pud_offset(p4d, addr);
	pudval = pudp_get(pud);
	if (!pud_present(pudval) || pud_leaf(pudval))
		return;
	pmd = pmd_offset(pud, addr);
	pmdval = pmdp_get_lockless(pmd);
	if (!pmd_present(pmdval))
		return;
	area->nid = page_to_nid(pmd_page(pmdval));
	while (pmd_present(pmdval) && pmd_leaf(pmdval)) {
		addr = pmd_addr_end(addr, area->end);
		area->huge_end = addr;
		if (addr == area->end || IS_ALIGNED(addr, PUD_SIZE))
			break;
		pmdval = pmdp_get_lockless(++pmd);
	}
}

/* A helper that was queued adds nothing to the rate before it has begun. */
static unsigned int nr_at_work(struct zap_job *job)
{
	unsigned int i, nr = 0;

	for (i = 0; i < NR_ZAP_HELPERS; i++)
		nr += READ_ONCE(job->helper[i].running);
	return nr;
}

static unsigned int nr_in_use(struct zap_job *job)
{
	unsigned int i, nr = 0;

	for (i = 0; i < NR_ZAP_HELPERS; i++)
		nr += READ_ONCE(job->helper[i].in_use);
	return nr;
}

/* With the job's lock held. */
static void move_worker(struct zap_job *job, int *last, int to)
{
	if (*last >= 0)
		job->areas.area[*last].nr_workers--;
	if (to >= 0)
		job->areas.area[to].nr_workers++;
	*last = to;
}

/*
 * Claims a chunk for a worker that runs on @nid, or anywhere, and had its last
 * one in area *@last, and zaps it. No two workers claim the same chunk, see
 * Documentation/litmus-tests/mm/parallel-zap-claim.litmus.
 */
static bool zap_chunk(struct zap_job *job, struct mmu_gather *tlb, int *last,
		      int nid, bool helper)
{
	unsigned int nr_workers = nr_at_work(job) + 1;
	struct vm_area_struct *vma;
	unsigned long start, end;
	int i;

	scoped_guard(spinlock, &job->lock) {
		i = zap_areas_pick(&job->areas, *last, nid);
		if (i != *last)
			move_worker(job, last, i);
		if (i < 0)
			return false;
		vma = job->areas.area[i].vma;
		start = job->areas.area[i].next;
		nid = job->areas.area[i].nid;
		end = zap_areas_claim(&job->areas, i, chunk_bytes(), nr_workers);
		look_at_area(job->mm, &job->areas.area[i]);
	}

	trace_zap_chunk(job->mm, start, end, nid, helper);
	__zap_vma_range(tlb, vma, start, end, &job->details);
	count_vm_event(helper ? ZAP_CHUNK_HELPER : ZAP_CHUNK_OWNER);
	return true;
}

static void put_helper_slot(int nid)
{
	atomic_dec(&nr_node_helpers[nid]);
	atomic_dec(&nr_all_helpers);
}

static void zap_help(struct work_struct *work)
{
	struct zap_helper *helper = container_of(work, typeof(*helper), work);
	int nid = helper->any_node ? NUMA_NO_NODE : helper->nid;
	enum zap_leave reason = ZAP_LEAVE_DONE;
	u64 usecs = task_sched_runtime(current);
	struct zap_job *job = helper->job;
	unsigned int chunks = 0;
	struct mmu_gather tlb;

	WRITE_ONCE(helper->running, true);
	if (job->fullmm)
		tlb_gather_mmu_fullmm(&tlb, job->mm);
	else
		tlb_gather_mmu(&tlb, job->mm);
	/* Whoever wants this CPU waits for a chunk, at most. */
	while (zap_chunk(job, &tlb, &helper->last, nid, true)) {
		chunks++;
		if (need_resched() || !single_task_running()) {
			reason = ZAP_LEAVE_BUSY;
			break;
		}
	}
	/* What was mlocked is in a batch of this CPU, which may be idle now. */
	lru_add_drain();
	tlb_finish_mmu(&tlb);

	usecs = div_u64(task_sched_runtime(current) - usecs, NSEC_PER_USEC);
	count_vm_events(ZAP_HELPER_USECS, usecs);
	scoped_guard(spinlock, &job->lock) {
		job->usecs += usecs;
		move_worker(job, &helper->last, -1);
		if (reason == ZAP_LEAVE_DONE && job->areas.left)
			reason = ZAP_LEAVE_NODE;
	}
	trace_zap_helper_leave(job->mm, reason, chunks, usecs);
	put_helper_slot(helper->nid);
	WRITE_ONCE(helper->running, false);
	/*
	 * Pairs with start_helper(), see
	 * Documentation/litmus-tests/mm/parallel-zap-leave.litmus. The job
	 * stays until this work is done.
	 */
	smp_store_release(&helper->in_use, false);
}

/*
 * May a helper run on any CPU of @nid that is not isolated, as far as the
 * owner's cpuset and affinity go; and is one of these idle?
 */
static bool node_has_idle_cpu(int nid, bool *denied)
{
	bool idle = false;
	int cpu;

	guard(rcu)();
	for_each_cpu_and(cpu, cpumask_of_node(nid), cpu_online_mask) {
		if (cpu_is_isolated(cpu) || !housekeeping_cpu(cpu, HK_TYPE_WQ))
			continue;
		if (!cpumask_test_cpu(cpu, current->cpus_ptr)) {
			*denied = true;
			return false;
		}
		idle |= idle_cpu(cpu);
	}
	return idle;
}

/* Counts the helper that it allows. */
static bool node_takes_helper(int nid, bool *denied, bool *capped)
{
	if (!node_has_idle_cpu(nid, denied))
		return false;
	if (atomic_inc_return(&nr_node_helpers[nid]) <=
	    READ_ONCE(zap_limits.helpers_per_node))
		return true;
	atomic_dec(&nr_node_helpers[nid]);
	*capped = true;
	return false;
}

/* Where the next helper runs: at the memory, or else anywhere. */
static int find_node(struct zap_job *job, bool *any_node, bool *denied,
		     bool *capped)
{
	nodemask_t nodes = NODE_MASK_NONE;
	int i, nid;

	scoped_guard(spinlock, &job->lock) {
		for (i = 0; i < NR_ZAP_AREAS; i++) {
			struct zap_area *area = &job->areas.area[i];

			if (!zap_area_empty(area) && area->nid != NUMA_NO_NODE)
				node_set(area->nid, nodes);
		}
	}

	*any_node = false;
	for_each_node_mask(nid, nodes)
		if (node_takes_helper(nid, denied, capped))
			return nid;
	*any_node = true;
	for_each_node_state(nid, N_CPU)
		if (!node_isset(nid, nodes) &&
		    node_takes_helper(nid, denied, capped))
			return nid;
	return NUMA_NO_NODE;
}

static bool start_helper(struct zap_job *job)
{
	bool any_node, denied = false, capped = false;
	struct zap_helper *helper = NULL;
	int i, nid = NUMA_NO_NODE;
	bool quota;

	if (tsk_is_oom_victim(current)) {
		count_vm_event(ZAP_REFUSED_PRESSURE);
		return false;
	}
	/*
	 * Preferred tasks would wait for a helper that is not. Those that are
	 * less favoured get no more CPU time by another name.
	 */
	if (rt_or_dl_task(current) || task_nice(current) < 0 ||
	    task_nice(current) > ZAP_HELPER_NICE ||
	    current->policy == SCHED_IDLE) {
		count_vm_event(ZAP_REFUSED_PRIORITY);
		return false;
	}
	/* kworkers would use CPU time that the group was not given. */
	scoped_guard(rcu)
		quota = cfs_task_bw_constrained(current);
	if (quota) {
		count_vm_event(ZAP_REFUSED_QUOTA);
		return false;
	}

	for (i = 0; i < NR_ZAP_HELPERS && !helper; i++)
		/* Pairs with the release in zap_help(). */
		if (!smp_load_acquire(&job->helper[i].in_use))
			helper = &job->helper[i];
	if (!helper) {
		count_vm_event(ZAP_REFUSED_CAP);
		return false;
	}

	if (atomic_inc_return(&nr_all_helpers) >
	    READ_ONCE(zap_limits.max_helpers))
		capped = true;
	else
		nid = find_node(job, &any_node, &denied, &capped);
	if (nid == NUMA_NO_NODE) {
		atomic_dec(&nr_all_helpers);
		count_vm_event(capped ? ZAP_REFUSED_CAP :
			       denied ? ZAP_REFUSED_CPUSET : ZAP_REFUSED_BUSY);
		return false;
	}

	helper->nid = nid;
	helper->any_node = any_node;
	helper->last = -1;
	WRITE_ONCE(helper->in_use, true);
	job->nr_started++;
	queue_work_node(nid, zap_wq, &helper->work);
	return true;
}

/* The owner has zapped a chunk: is it time for another helper? */
static void look_at_pace(struct zap_job *job)
{
	u64 min_ns = (u64)READ_ONCE(zap_limits.min_ms) * NSEC_PER_MSEC;
	unsigned long rss = mm_pages(job->mm), left;
	u64 now = ktime_get_ns();

	scoped_guard(spinlock, &job->lock)
		left = (job->areas.left + job->limit - job->pos) >> PAGE_SHIFT;
	/* While one is on its way, nothing can be said about the next one. */
	if (nr_in_use(job) != nr_at_work(job))
		return;
	if (zap_pace_wants_helper(&job->pace, now, rss, min(left, rss),
				  nr_at_work(job), min_ns))
		job->wanted = true;
	if (!job->wanted || now < job->not_before)
		return;

	if (!job->shared) {
		job->shared = true;
		/* Helpers free the page tables that they empty. */
		job->details.reclaim_pt = true;
		count_vm_event(ZAP_JOB);
		trace_zap_job_start(job->mm, min(left, rss), job->pace.alone);
		return;
	}
	if (start_helper(job))
		job->wanted = false;
	else
		job->not_before = now + ZAP_PACE_NS;
}

static struct zap_job *create_job(struct mmu_gather *tlb,
				  struct vm_area_struct *vma,
				  unsigned long limit,
				  const struct zap_details *details)
{
	struct zap_job *job;
	int i;

	job = kzalloc_obj(*job, GFP_NOWAIT);
	if (!job) {
		count_vm_event(ZAP_REFUSED_PRESSURE);
		return NULL;
	}

	job->mm = vma->vm_mm;
	if (details)
		job->details = *details;
	job->fullmm = tlb->fullmm;
	job->limit = limit;
	job->last = -1;
	spin_lock_init(&job->lock);
	for (i = 0; i < NR_ZAP_HELPERS; i++) {
		INIT_WORK(&job->helper[i].work, zap_help);
		job->helper[i].job = job;
	}
	zap_pace_restart(&job->pace, ktime_get_ns(), mm_pages(job->mm), 0);
	return job;
}

/*
 * Only what needs nothing of the owner, and where a chunk is just a range: in
 * DAX one may end within a huge PUD, and split it.
 */
static bool shareable(struct vm_area_struct *vma)
{
	if (is_vm_hugetlb_page(vma) || vma_is_dax(vma) ||
	    (vma->vm_flags & (VM_PFNMAP | VM_MIXEDMAP | VM_IO)))
		return false;
	return !vma->vm_file || !mm_flags_test(MMF_HAS_UPROBES, vma->vm_mm);
}

/* See zap_share_vma(). */
bool __zap_share_vma(struct zap_job **jobp, struct mmu_gather *tlb,
		     struct vm_area_struct *vma, unsigned long start,
		     unsigned long end, unsigned long limit,
		     const struct zap_details *details)
{
	unsigned long chunk = chunk_bytes(), next;
	struct zap_job *job = *jobp;
	int i;

	if (!shareable(vma))
		return false;
	if (!job) {
		if ((!tlb->fullmm && !READ_ONCE(zap_limits.always)) ||
		    limit - start < 2 * chunk ||
		    mm_pages(vma->vm_mm) < 2 * (chunk >> PAGE_SHIFT))
			return false;
		job = create_job(tlb, vma, limit, details);
		if (!job)
			return false;
		*jobp = job;
	}

	/* Alone, until that would take too long. */
	for (; start != end && !job->shared; start = next) {
		next = ALIGN_DOWN(start, PMD_SIZE) + chunk;
		if (next - start > end - start)
			next = end;
		__zap_vma_range(tlb, vma, start, next, &job->details);
		job->pos = next;
		look_at_pace(job);
	}

	for (; start != end; start = next) {
		scoped_guard(spinlock, &job->lock) {
			next = zap_areas_add(&job->areas, vma, start, end,
					     chunk);
			for (i = 0; i < NR_ZAP_AREAS; i++)
				if (job->areas.area[i].nid == NUMA_NO_NODE)
					look_at_area(job->mm,
						     &job->areas.area[i]);
		}
		job->pos = next;
		look_at_pace(job);
		/* No room? Then there is enough to do. */
		if (next != end)
			zap_chunk(job, tlb, &job->last, NUMA_NO_NODE, false);
	}
	return true;
}

/* See zap_share_finish(). */
void __zap_share_finish(struct zap_job *job, struct mmu_gather *tlb)
{
	int i;

	job->pos = job->limit;
	while (zap_chunk(job, tlb, &job->last, NUMA_NO_NODE, false))
		look_at_pace(job);

	if (job->shared) {
		for (i = 0; i < NR_ZAP_HELPERS; i++) {
			struct zap_helper *helper = &job->helper[i];

			/*
			 * If it has started, this waits for its last chunk. See
			 * Documentation/litmus-tests/mm/parallel-zap-join.litmus.
			 */
			if (cancel_work_sync(&helper->work))
				put_helper_slot(helper->nid);
		}
		trace_zap_job_end(job->mm, job->nr_started, job->usecs);
	}
	kfree(job);
}

static int __init parallel_zap_init(void)
{
	struct workqueue_attrs *attrs = alloc_workqueue_attrs();

	zap_limits.max_helpers = max(2U, num_online_cpus() / 8);

	zap_wq = alloc_workqueue("parallel_zap",
				 WQ_UNBOUND | WQ_SYSFS, 0);
	if (!attrs || !zap_wq)
		goto fail;
	/*
	 * The node of the memory, any idle CPU of it, and no other. With the
	 * default scope, queue_work_node() would pile helpers up around its
	 * first CPU.
	 */
	attrs->affn_scope = WQ_AFFN_NUMA;
	attrs->affn_strict = true;
	attrs->nice = ZAP_HELPER_NICE;
	if (apply_workqueue_attrs(zap_wq, attrs) || parallel_zap_sysfs_init())
		goto fail;

	free_workqueue_attrs(attrs);
	return 0;

fail:
	free_workqueue_attrs(attrs);
	if (zap_wq)
		destroy_workqueue(zap_wq);
	return -ENOMEM;
}
subsys_initcall(parallel_zap_init);
