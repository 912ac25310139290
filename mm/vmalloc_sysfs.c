// SPDX-License-Identifier: GPL-2.0
/*
 * Limits of the lazy purge of vmap areas, in /sys/kernel/mm/vmalloc/. See
 * Documentation/admin-guide/mm/vmalloc_purge.rst for what they are good for.
 */

#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/sysfs.h>
#include <linux/vmalloc.h>

#include "vmalloc_purge.h"

struct vmap_purge_limits vmap_purge_limits __read_mostly =
	VMAP_PURGE_LIMITS_DEFAULT;

/**
 * struct vmap_limit_attr - A file with one limit.
 * @attr:	the file
 * @limit:	where the limit is kept
 * @min:	the least number that it takes, beside 0
 * @max:	the largest
 * @shift:	what is kept is the number shifted right by this
 */
struct vmap_limit_attr {
	struct kobj_attribute attr;
	unsigned long *limit;
	unsigned long min;
	unsigned long max;
	unsigned int shift;
};

static ssize_t limit_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	struct vmap_limit_attr *la = container_of(attr, typeof(*la), attr);

	return sysfs_emit(buf, "%lu\n", READ_ONCE(*la->limit) << la->shift);
}

static ssize_t limit_store(struct kobject *kobj, struct kobj_attribute *attr,
			   const char *buf, size_t count)
{
	struct vmap_limit_attr *la = container_of(attr, typeof(*la), attr);
	unsigned long val;

	if (kstrtoul(buf, 10, &val))
		return -EINVAL;
	/* 0 has a meaning of its own in every file. */
	if (val && (val < la->min || val > la->max))
		return -EINVAL;

	WRITE_ONCE(*la->limit, val >> la->shift);
	return count;
}

#define VMAP_LIMIT_ATTR(_name, _limit, _min, _max, _shift)		\
	static struct vmap_limit_attr _name##_attr = {			\
		.attr = __ATTR(_name, 0644, limit_show, limit_store),	\
		.limit = &vmap_purge_limits._limit,			\
		.min = (_min), .max = (_max), .shift = (_shift),	\
	}

VMAP_LIMIT_ATTR(lazy_max_kb, lazy_max_pages, PAGE_SIZE >> 10, 0,
		PAGE_SHIFT - 10);
VMAP_LIMIT_ATTR(lazy_max_areas, lazy_max_areas, 1, INT_MAX, 0);
VMAP_LIMIT_ATTR(purge_batch, batch, 1, 1000000, 0);
VMAP_LIMIT_ATTR(purge_slice_us, slice_us, 50, USEC_PER_SEC, 0);
/* Below 100, callers of vfree() would have to help before a purge is due. */
VMAP_LIMIT_ATTR(throttle_percent, throttle_percent, 100, 10000, 0);

static struct attribute *vmalloc_attrs[] = {
	&lazy_max_kb_attr.attr.attr,
	&lazy_max_areas_attr.attr.attr,
	&purge_batch_attr.attr.attr,
	&purge_slice_us_attr.attr.attr,
	&throttle_percent_attr.attr.attr,
	NULL,
};

static const struct attribute_group vmalloc_attr_group = {
	.name = "vmalloc",
	.attrs = vmalloc_attrs,
};

static int __init vmalloc_sysfs_init(void)
{
	/* What is lazy cannot be allocated: not all of the address space. */
	lazy_max_kb_attr.max = (VMALLOC_TOTAL >> 10) / 4;

	return sysfs_create_group(mm_kobj, &vmalloc_attr_group);
}
subsys_initcall(vmalloc_sysfs_init);
