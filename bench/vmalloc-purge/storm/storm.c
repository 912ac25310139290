// SPDX-License-Identifier: GPL-2.0
/*
 * A storm of vfree(): many areas are allocated, then freed at once, so that
 * the lazy purge has all of them to give back. Uses exported symbols only:
 * one source is built for the stock and for the patched kernel.
 *
 *   echo alloc >/sys/module/storm/parameters/do    allocate @nr areas
 *   echo storm >...                                free them, flush, wait
 *   echo calib >...                                10 short lock holds
 *
 * "storm" ends when the machine has been idle for a while, whoever does the
 * purge, so that work in the background is counted too. Results are the
 * read-only parameters below.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/tracepoint.h>
#include <linux/vmalloc.h>

static unsigned long nr = 1000;
module_param(nr, ulong, 0444);
MODULE_PARM_DESC(nr, "Areas to free");

static unsigned int pages = 1;
module_param(pages, uint, 0444);
MODULE_PARM_DESC(pages, "Pages in an area");

static unsigned int threads = 1;
module_param(threads, uint, 0444);
MODULE_PARM_DESC(threads, "Threads that free, thread i bound to the i-th online CPU");

static bool fifo;
module_param(fifo, bool, 0444);
MODULE_PARM_DESC(fifo, "Free at SCHED_FIFO: on one CPU no worker purges before all are free");

static bool shared;
module_param(shared, bool, 0444);
MODULE_PARM_DESC(shared, "vmap() one page again and again, in place of vmalloc()");

static bool plain;
module_param(plain, bool, 0444);
MODULE_PARM_DESC(plain, "Pages of their own, no vmalloc: what freeing pages alone does");

static bool holes;
module_param(holes, bool, 0444);
MODULE_PARM_DESC(holes, "Keep every second area: the freed ones have no neighbours to merge with");

/* Results of the last storm; on a guest that counts, 1 ns is 1 instruction. */
static unsigned long free_ns, flush_ns, total_ns, idle_ns, max_free_ns;
module_param(free_ns, ulong, 0444);
MODULE_PARM_DESC(free_ns, "From the first vfree() to the return of the last");
module_param(flush_ns, ulong, 0444);
MODULE_PARM_DESC(flush_ns, "vm_unmap_aliases() after it");
module_param(total_ns, ulong, 0444);
MODULE_PARM_DESC(total_ns, "All, until the machine was idle");
module_param(idle_ns, ulong, 0444);
MODULE_PARM_DESC(idle_ns, "The idle part of total_ns, all CPUs together");
module_param(max_free_ns, ulong, 0444);
MODULE_PARM_DESC(max_free_ns, "The longest single vfree()");

/* Known holds of a lock of ours: what the probes themselves cost. */
static DEFINE_SPINLOCK(calib_lock);
static unsigned long calib_addr = (unsigned long)&calib_lock;
module_param(calib_addr, ulong, 0400);

static void **area;
static unsigned long nr_area;
static struct page *shared_page;

struct freer {
	unsigned long from, to, max_ns;
	struct task_struct *task;
};

static DECLARE_COMPLETION(all_freed);
static DECLARE_COMPLETION(go);
static atomic_t nr_left;
static u64 t_start, t_freed, t_flushed;

static void free_one(void *p)
{
	if (plain)
		free_page((unsigned long)p);
	else if (shared)
		vunmap(p);
	else
		vfree(p);
}

static int freer_fn(void *arg)
{
	struct freer *f = arg;
	unsigned long step = holes ? 2 : 1, i;
	bool last;
	u64 t;

	if (fifo)
		sched_set_fifo(current);
	wait_for_completion(&go);
	for (i = f->from; i < f->to; i += step) {
		t = ktime_get_ns();
		free_one(area[i]);
		t = ktime_get_ns() - t;
		area[i] = NULL;
		if (t > f->max_ns)
			f->max_ns = t;
		/* Nothing in here sleeps; FIFO must not give way at all. */
		if (!fifo)
			cond_resched();
	}
	/* The last one flushes, at its priority: no worker comes between. */
	last = atomic_dec_and_test(&nr_left);
	if (last) {
		t_freed = ktime_get_ns();
		vm_unmap_aliases();
		t_flushed = ktime_get_ns();
		complete(&all_freed);
	}
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

/*
 * Idle time to the nanosecond, from the switches to and from the idle task:
 * the kernel's own account goes by ticks where the tick was not stopped.
 */
struct idler {
	u64 since;	/* 0 while a task runs */
	u64 sum;
};

static DEFINE_PER_CPU(struct idler, idler);
static struct tracepoint *tp_switch;

static void on_switch(void *data, bool preempt, struct task_struct *prev,
		      struct task_struct *next, unsigned int prev_state)
{
	struct idler *i = this_cpu_ptr(&idler);
	u64 now = ktime_get_mono_fast_ns();

	if (is_idle_task(next)) {
		WRITE_ONCE(i->since, now);
	} else if (is_idle_task(prev) && i->since) {
		WRITE_ONCE(i->sum, i->sum + now - i->since);
		WRITE_ONCE(i->since, 0);
	}
}

static void find_switch(struct tracepoint *tp, void *priv)
{
	if (!strcmp(tp->name, "sched_switch"))
		tp_switch = tp;
}

static u64 idle_all_ns(void)
{
	u64 sum = 0, since;
	int cpu;

	/* The reader's CPU is not idle; another's may change below our eyes. */
	for_each_online_cpu(cpu) {
		sum += READ_ONCE(per_cpu(idler, cpu).sum);
		since = READ_ONCE(per_cpu(idler, cpu).since);
		if (since)
			sum += ktime_get_mono_fast_ns() - since;
	}
	return sum;
}

/* Until all CPUs were idle for 9/10 of three periods of 10 ms in a row. */
static void wait_idle(void)
{
	u64 t0, i0, t, i;
	int quiet = 0, n;

	for (n = 0; quiet < 3 && n < 30 * 100; n++) {
		t0 = ktime_get_ns();
		i0 = idle_all_ns();
		usleep_range(10000, 10001);
		t = (ktime_get_ns() - t0) * num_online_cpus();
		i = idle_all_ns() - i0;
		quiet = i * 10 >= t * 9 ? quiet + 1 : 0;
	}
}

static void free_all(void)
{
	unsigned long i;

	for (i = 0; area && i < nr_area; i++)
		if (area[i])
			free_one(area[i]);
	kvfree(area);
	area = NULL;
	nr_area = 0;
	if (shared_page)
		__free_page(shared_page);
	shared_page = NULL;
}

static int alloc_all(void)
{
	unsigned long i, want = holes ? 2 * nr : nr;

	if (area)
		return -EBUSY;
	area = kvcalloc(want, sizeof(*area), GFP_KERNEL);
	if (!area)
		return -ENOMEM;
	nr_area = want;
	if (shared) {
		shared_page = alloc_page(GFP_KERNEL);
		if (!shared_page)
			goto nomem;
		pages = 1;
	}
	for (i = 0; i < want; i++) {
		if (plain)
			area[i] = (void *)__get_free_page(GFP_KERNEL);
		else if (shared)
			area[i] = vmap(&shared_page, 1, VM_MAP, PAGE_KERNEL);
		else
			area[i] = vmalloc((unsigned long)pages * PAGE_SIZE);
		if (!area[i])
			goto nomem;
		cond_resched();
	}
	/* What allocation left lazy must not count. */
	vm_unmap_aliases();
	wait_idle();
	return 0;

nomem:
	free_all();
	return -ENOMEM;
}

static int storm(void)
{
	unsigned long share, at = 0;
	struct freer *f;
	u64 idle0;
	int i, cpu = -1, rv = 0;

	if (!area)
		return -EINVAL;
	threads = clamp(threads, 1U, 64U);
	f = kzalloc_objs(*f, threads);
	if (!f)
		return -ENOMEM;
	reinit_completion(&all_freed);
	reinit_completion(&go);
	atomic_set(&nr_left, threads);
	share = (nr_area / threads) & ~1UL;
	for (i = 0; i < threads; i++) {
		f[i].from = at;
		at = i == threads - 1 ? nr_area : at + share;
		f[i].to = at;
		f[i].task = kthread_create(freer_fn, &f[i], "storm/%d", i);
		if (IS_ERR(f[i].task)) {
			rv = PTR_ERR(f[i].task);
			break;
		}
		cpu = cpumask_next_wrap(cpu, cpu_online_mask);
		kthread_bind(f[i].task, cpu);
		wake_up_process(f[i].task);
	}
	if (rv) {
		/* Too few freers: send home the ones there are, still asleep. */
		atomic_set(&nr_left, threads + 1);
		while (i--) {
			f[i].to = f[i].from;
			complete_all(&go);
			kthread_stop(f[i].task);
		}
		goto out;
	}
	wait_idle();
	idle0 = idle_all_ns();
	t_start = ktime_get_ns();
	complete_all(&go);
	wait_for_completion(&all_freed);
	wait_idle();
	total_ns = ktime_get_ns() - t_start;
	idle_ns = idle_all_ns() - idle0;
	free_ns = t_freed - t_start;
	flush_ns = t_flushed - t_freed;
	max_free_ns = 0;
	for (i = 0; i < threads; i++) {
		kthread_stop(f[i].task);
		max_free_ns = max(max_free_ns, f[i].max_ns);
	}
out:
	kfree(f);
	if (!rv)
		free_all();
	return rv;
}

static int do_set(const char *val, const struct kernel_param *kp)
{
	int i;

	if (sysfs_streq(val, "alloc"))
		return alloc_all();
	if (sysfs_streq(val, "storm"))
		return storm();
	if (sysfs_streq(val, "calib")) {
		for (i = 0; i < 10; i++) {
			spin_lock(&calib_lock);
			spin_unlock(&calib_lock);
		}
		return 0;
	}
	return -EINVAL;
}

static const struct kernel_param_ops do_ops = {
	.set = do_set,
};
module_param_cb(do, &do_ops, NULL, 0200);

static int __init storm_init(void)
{
	if (!nr || !pages)
		return -EINVAL;
	for_each_kernel_tracepoint(find_switch, NULL);
	if (!tp_switch)
		return -ENOENT;
	return tracepoint_probe_register(tp_switch, on_switch, NULL);
}
module_init(storm_init);

static void __exit storm_exit(void)
{
	tracepoint_probe_unregister(tp_switch, on_switch, NULL);
	tracepoint_synchronize_unregister();
	free_all();
}
module_exit(storm_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Frees many vmalloc areas at once");
