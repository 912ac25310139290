// SPDX-License-Identifier: GPL-2.0
/*
 * When zaps of large ranges are shared, in /sys/kernel/mm/parallel_zap/. See
 * Documentation/admin-guide/mm/parallel_zap.rst for what that is good for.
 */

#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "internal.h"
#include "parallel_zap.h"

static DEFINE_MUTEX(enabled_lock);	/* one writer sets both variables */

static ssize_t enabled_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	if (!static_key_enabled(&parallel_zap_enabled))
		return sysfs_emit(buf, "[never] exit always\n");
	if (!READ_ONCE(zap_limits.always))
		return sysfs_emit(buf, "never [exit] always\n");
	return sysfs_emit(buf, "never exit [always]\n");
}

static ssize_t enabled_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	guard(mutex)(&enabled_lock);

	if (sysfs_streq(buf, "never")) {
		static_branch_disable(&parallel_zap_enabled);
	} else if (sysfs_streq(buf, "exit")) {
		WRITE_ONCE(zap_limits.always, false);
		static_branch_enable(&parallel_zap_enabled);
	} else if (sysfs_streq(buf, "always")) {
		WRITE_ONCE(zap_limits.always, true);
		static_branch_enable(&parallel_zap_enabled);
	} else {
		return -EINVAL;
	}
	return count;
}

static struct kobj_attribute enabled_attr = __ATTR_RW(enabled);

/**
 * struct zap_limit_attr - A file with one number.
 * @attr:	the file
 * @limit:	where the number is kept
 * @min:	the least that it takes
 * @max:	the most
 */
struct zap_limit_attr {
	struct kobj_attribute attr;
	unsigned int *limit;
	unsigned int min;
	unsigned int max;
};

static ssize_t limit_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	struct zap_limit_attr *la = container_of(attr, typeof(*la), attr);

	return sysfs_emit(buf, "%u\n", READ_ONCE(*la->limit));
}

static ssize_t limit_store(struct kobject *kobj, struct kobj_attribute *attr,
			   const char *buf, size_t count)
{
	struct zap_limit_attr *la = container_of(attr, typeof(*la), attr);
	unsigned int val;

	if (kstrtouint(buf, 10, &val) || val < la->min || val > la->max)
		return -EINVAL;

	WRITE_ONCE(*la->limit, val);
	return count;
}

#define ZAP_LIMIT_ATTR(_name, _limit, _min, _max)			\
	static struct zap_limit_attr _name##_attr = {			\
		.attr = __ATTR(_name, 0644, limit_show, limit_store),	\
		.limit = &zap_limits._limit,				\
		.min = _min,						\
		.max = _max,						\
	}

ZAP_LIMIT_ATTR(min_ms, min_ms, 0, 60000);
ZAP_LIMIT_ATTR(chunk_mb, chunk_mb, 2, 1024);
ZAP_LIMIT_ATTR(helpers_per_node, helpers_per_node, 0, 64);
ZAP_LIMIT_ATTR(max_helpers, max_helpers, 0, 1024);

static struct attribute *parallel_zap_attrs[] = {
	&enabled_attr.attr,
	&min_ms_attr.attr.attr,
	&chunk_mb_attr.attr.attr,
	&helpers_per_node_attr.attr.attr,
	&max_helpers_attr.attr.attr,
	NULL,
};

static const struct attribute_group parallel_zap_attr_group = {
	.name = "parallel_zap",
	.attrs = parallel_zap_attrs,
};

int __init parallel_zap_sysfs_init(void)
{
	return sysfs_create_group(mm_kobj, &parallel_zap_attr_group);
}
