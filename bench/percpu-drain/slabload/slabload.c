// SPDX-License-Identifier: GPL-2.0
/*
 * Slab caches that come and go: each one is created, filled, its objects freed
 * by kfree_rcu(), and destroyed, which waits for all of these. Runs when it is
 * loaded; free_ns is what a kfree_rcu() took, of many.
 */
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

static unsigned int caches = 1, objects = 100;
module_param(caches, uint, 0444);
module_param(objects, uint, 0444);

static ulong free_ns;
module_param(free_ns, ulong, 0444);

struct object {
	struct rcu_head rcu;
	char text[40];
};

static int __init slabload_init(void)
{
	struct object **all = kvmalloc_array(objects, sizeof(*all), GFP_KERNEL);
	struct kmem_cache *cache;
	unsigned int i, j;
	u64 start;

	if (!all)
		return -ENOMEM;
	for (i = 0; i < caches; i++) {
		cache = kmem_cache_create("slabload", sizeof(struct object), 0,
					  SLAB_NO_MERGE, NULL);
		if (!cache)
			break;
		for (j = 0; j < objects; j++)
			all[j] = kmem_cache_alloc(cache, GFP_KERNEL | __GFP_NOFAIL);
		start = ktime_get_ns();
		for (j = 0; j < objects; j++)
			kfree_rcu(all[j], rcu);
		free_ns += ktime_get_ns() - start;
		kmem_cache_destroy(cache);
	}
	kvfree(all);

	return i == caches ? 0 : -ENOMEM;
}
module_init(slabload_init);

static void __exit slabload_exit(void)
{
}
module_exit(slabload_exit);

MODULE_DESCRIPTION("Load for the destruction of slab caches");
MODULE_LICENSE("GPL");
