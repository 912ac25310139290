// SPDX-License-Identifier: GPL-2.0
/*
 * Limits of the lazy purge of vmap areas, in /sys/kernel/mm/vmalloc/. See
 * Documentation/admin-guide/mm/vmalloc_purge.rst for what they are good for.
 */

#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/sysfs.h>
#include <linux/vmalloc.h>

#include "vmalloc_purge.h"

struct vmap_purge_limits vmap_purge_limits __read_mostly =
	VMAP_PURGE_LIMITS_DEFAULT;

/* 0 has a meaning of its own in every file, so it is never out of range. */
static int parse_limit(const char *buf, unsigned long min, unsigned long max,
		       unsigned long *val)
{
	if (kstrtoul(buf, 10, val))
		return -EINVAL;
	if (*val && (*val < min || *val > max))
		return -EINVAL;

	return 0;
}

#define KB_SHIFT	(PAGE_SHIFT - 10)
/* What is lazy cannot be allocated. */
#define LAZY_MAX_KB	((VMALLOC_TOTAL >> 10) / 4)

static ssize_t lazy_max_kb_show(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n",
			  READ_ONCE(vmap_purge_limits.lazy_max_pages) << KB_SHIFT);
}

static ssize_t lazy_max_kb_store(struct kobject *kobj,
				 struct kobj_attribute *attr,
				 const char *buf, size_t count)
{
	unsigned long val;
	int err;

	err = parse_limit(buf, 1UL << KB_SHIFT, LAZY_MAX_KB, &val);
	if (err)
		return err;

	WRITE_ONCE(vmap_purge_limits.lazy_max_pages, val >> KB_SHIFT);
	return count;
}

static struct kobj_attribute lazy_max_kb_attr = __ATTR_RW(lazy_max_kb);

#define VMAP_LIMIT_ATTR(_name, _field, _min, _max)			\
static ssize_t _name##_show(struct kobject *kobj,			\
			    struct kobj_attribute *attr, char *buf)	\
{									\
	unsigned long val = READ_ONCE(vmap_purge_limits._field);	\
									\
	return sysfs_emit(buf, "%lu\n", val);				\
}									\
									\
static ssize_t _name##_store(struct kobject *kobj,			\
			     struct kobj_attribute *attr,		\
			     const char *buf, size_t count)		\
{									\
	unsigned long val;						\
	int err;							\
									\
	err = parse_limit(buf, _min, _max, &val);			\
	if (err)							\
		return err;						\
									\
	WRITE_ONCE(vmap_purge_limits._field, val);			\
	return count;							\
}									\
static struct kobj_attribute _name##_attr = __ATTR_RW(_name)

VMAP_LIMIT_ATTR(lazy_max_areas, lazy_max_areas, 1, INT_MAX);
VMAP_LIMIT_ATTR(purge_batch, batch, 1, 1000000);
VMAP_LIMIT_ATTR(purge_slice_us, slice_us, 50, USEC_PER_SEC);
/* Below 100, callers of vfree() would have to help before a purge is due. */
VMAP_LIMIT_ATTR(throttle_percent, throttle_percent, 100, 10000);

static struct attribute *vmalloc_attrs[] = {
	&lazy_max_kb_attr.attr,
	&lazy_max_areas_attr.attr,
	&purge_batch_attr.attr,
	&purge_slice_us_attr.attr,
	&throttle_percent_attr.attr,
	NULL,
};

static const struct attribute_group vmalloc_attr_group = {
	.name = "vmalloc",
	.attrs = vmalloc_attrs,
};

static int __init vmalloc_sysfs_init(void)
{
	return sysfs_create_group(mm_kobj, &vmalloc_attr_group);
}
subsys_initcall(vmalloc_sysfs_init);
