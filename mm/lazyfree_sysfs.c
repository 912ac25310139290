// SPDX-License-Identifier: GPL-2.0
/*
 * Tunables of lazily freed memory, /sys/kernel/mm/lazyfree/. See
 * Documentation/admin-guide/mm/lazyfree.rst.
 */

#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "internal.h"
#include "lazyzap.h"

static ssize_t policy_show(struct kobject *kobj, struct kobj_attribute *attr,
			   char *buf)
{
	return sysfs_emit(buf, READ_ONCE(lazyfree_first) ? "fair [first]\n" :
							   "[fair] first\n");
}

static ssize_t policy_store(struct kobject *kobj, struct kobj_attribute *attr,
			    const char *buf, size_t count)
{
	if (sysfs_streq(buf, "fair"))
		WRITE_ONCE(lazyfree_first, false);
	else if (sysfs_streq(buf, "first"))
		WRITE_ONCE(lazyfree_first, true);
	else
		return -EINVAL;
	return count;
}

static struct kobj_attribute policy_attr = __ATTR_RW(policy);

#ifdef CONFIG_MADV_SPLITTABLE
/**
 * struct lazyzap_limit_attr - A file with one number.
 * @attr:	the file
 * @limit:	where the number is kept
 * @max:	the most that it takes
 */
struct lazyzap_limit_attr {
	struct kobj_attribute attr;
	unsigned int *limit;
	unsigned int max;
};

static ssize_t limit_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	struct lazyzap_limit_attr *la = container_of(attr, typeof(*la), attr);

	return sysfs_emit(buf, "%u\n", READ_ONCE(*la->limit));
}

static ssize_t limit_store(struct kobject *kobj, struct kobj_attribute *attr,
			   const char *buf, size_t count)
{
	struct lazyzap_limit_attr *la = container_of(attr, typeof(*la), attr);
	unsigned int val;

	if (kstrtouint(buf, 10, &val) || val > la->max)
		return -EINVAL;

	WRITE_ONCE(*la->limit, val);
	return count;
}

static struct lazyzap_limit_attr min_age_ms_attr = {
	.attr = __ATTR(min_age_ms, 0644, limit_show, limit_store),
	.limit = &lazyzap_limits.min_age_ms,
	.max = 3600000,
};

static struct lazyzap_limit_attr max_ranges_per_mm_attr = {
	.attr = __ATTR(max_ranges_per_mm, 0644, limit_show, limit_store),
	.limit = &lazyzap_limits.max_ranges_per_mm,
	.max = 1048576,
};
#endif

static struct attribute *lazyfree_attrs[] = {
	&policy_attr.attr,
#ifdef CONFIG_MADV_SPLITTABLE
	&min_age_ms_attr.attr.attr,
	&max_ranges_per_mm_attr.attr.attr,
#endif
	NULL,
};

static const struct attribute_group lazyfree_attr_group = {
	.name = "lazyfree",
	.attrs = lazyfree_attrs,
};

static int __init lazyfree_sysfs_init(void)
{
	return sysfs_create_group(mm_kobj, &lazyfree_attr_group);
}
subsys_initcall(lazyfree_sysfs_init);
