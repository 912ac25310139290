// SPDX-License-Identifier: GPL-2.0
/*
 * How NUMA balancing works outside of page faults, in /sys/kernel/mm/autonuma/
 * and /sys/kernel/debug/knuma/. See
 * Documentation/admin-guide/mm/knuma.rst for what that is good for.
 */

#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/knuma_scand.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/log2.h>
#include <linux/mmzone.h>
#include <linux/seq_file.h>
#include <linux/sysfs.h>

#include "internal.h"
#include "knuma.h"

static ssize_t enabled_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%d\n", static_key_enabled(&knuma_enabled));
}

static ssize_t enabled_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	unsigned int val;

	if (kstrtouint(buf, 10, &val) || val > 1)
		return -EINVAL;

	knuma_enable(val);
	knuma_scand_update();
	return count;
}

static struct kobj_attribute enabled_attr = __ATTR_RW(enabled);

/**
 * struct knuma_attr - A file with one number.
 * @attr:	the file
 * @knob:	where the number is kept
 * @min:	the least that it takes
 * @max:	the most
 * @power_of_2:	it takes nothing else, but 0
 */
struct knuma_attr {
	struct kobj_attribute attr;
	unsigned int *knob;
	unsigned int min;
	unsigned int max;
	bool power_of_2;
};

static ssize_t knob_show(struct kobject *kobj, struct kobj_attribute *attr,
			 char *buf)
{
	struct knuma_attr *ka = container_of(attr, typeof(*ka), attr);

	return sysfs_emit(buf, "%u\n", READ_ONCE(*ka->knob));
}

static ssize_t knob_store(struct kobject *kobj, struct kobj_attribute *attr,
			  const char *buf, size_t count)
{
	struct knuma_attr *ka = container_of(attr, typeof(*ka), attr);
	unsigned int val;

	if (kstrtouint(buf, 10, &val) || val < ka->min || val > ka->max)
		return -EINVAL;
	if (ka->power_of_2 && val && !is_power_of_2(val))
		return -EINVAL;

	WRITE_ONCE(*ka->knob, val);
	return count;
}

#define KNUMA_ATTR(_name, _knob, _min, _max, ...)			\
	static struct knuma_attr _name##_attr = {			\
		.attr = __ATTR(_name, 0644, knob_show, knob_store),	\
		.knob = &knuma_knobs._knob,				\
		.min = _min,						\
		.max = _max,						\
		__VA_ARGS__						\
	}

KNUMA_ATTR(debug, debug, 0, 1);
KNUMA_ATTR(faultaround_pages, faultaround_pages, 0, 512, .power_of_2 = true);
KNUMA_ATTR(working_set, working_set, 0, 1);

static struct attribute *autonuma_attrs[] = {
	&enabled_attr.attr,
	&debug_attr.attr.attr,
	&faultaround_pages_attr.attr.attr,
	&working_set_attr.attr.attr,
	NULL,
};

static const struct attribute_group autonuma_group = {
	.attrs = autonuma_attrs,
};

KNUMA_ATTR(wake_pages, wake_pages, 1, 1 << 20);
KNUMA_ATTR(wake_millisecs, wake_millisecs, 0, 1000);
KNUMA_ATTR(batch_pages, batch_pages, 1, 512);
KNUMA_ATTR(pages_to_migrate, pages_to_migrate, 1, 1 << 24);
KNUMA_ATTR(migrate_sleep_millisecs, migrate_sleep_millisecs, 1, 10000);
KNUMA_ATTR(defer_order, defer_order, 0, MAX_PAGE_ORDER);

/* The sum of a count of all nodes; at @offset in their struct knuma_node. */
static unsigned long sum_of_nodes(size_t offset)
{
	unsigned long sum = 0;
	int nid;

	for_each_node(nid) {
		struct knuma_node *node = READ_ONCE(knuma_nodes[nid]);

		if (node)
			sum += READ_ONCE(*(unsigned long *)((void *)node + offset));
	}

	return sum;
}

static ssize_t pages_migrated_show(struct kobject *kobj,
				   struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n",
			  sum_of_nodes(offsetof(struct knuma_node, migrated)));
}

static ssize_t pages_failed_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n",
			  sum_of_nodes(offsetof(struct knuma_node, failed)));
}

static struct kobj_attribute pages_migrated_attr = __ATTR_RO(pages_migrated);
static struct kobj_attribute pages_failed_attr = __ATTR_RO(pages_failed);

static struct attribute *knuma_migrated_attrs[] = {
	&wake_pages_attr.attr.attr,
	&wake_millisecs_attr.attr.attr,
	&batch_pages_attr.attr.attr,
	&pages_to_migrate_attr.attr.attr,
	&migrate_sleep_millisecs_attr.attr.attr,
	&defer_order_attr.attr.attr,
	&pages_migrated_attr.attr,
	&pages_failed_attr.attr,
	NULL,
};

static const struct attribute_group knuma_migrated_group = {
	.name = "knuma_migrated",
	.attrs = knuma_migrated_attrs,
};

static ssize_t scan_enabled_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%u\n", READ_ONCE(knuma_knobs.scan_enabled));
}

static ssize_t scan_enabled_store(struct kobject *kobj,
				  struct kobj_attribute *attr,
				  const char *buf, size_t count)
{
	unsigned int val;

	if (kstrtouint(buf, 10, &val) || val > 1)
		return -EINVAL;

	WRITE_ONCE(knuma_knobs.scan_enabled, val);
	knuma_scand_update();
	return count;
}

static ssize_t pages_scanned_show(struct kobject *kobj,
				  struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n", READ_ONCE(knuma_scand.pages_scanned));
}

static ssize_t full_scans_show(struct kobject *kobj,
			       struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lu\n", READ_ONCE(knuma_scand.full_scans));
}

static struct kobj_attribute scan_enabled_attr =
	__ATTR(enabled, 0644, scan_enabled_show, scan_enabled_store);
static struct kobj_attribute pages_scanned_attr = __ATTR_RO(pages_scanned);
static struct kobj_attribute full_scans_attr = __ATTR_RO(full_scans);

KNUMA_ATTR(scan_sleep_millisecs, scan_sleep_millisecs, 0, 60000);
KNUMA_ATTR(scan_sleep_pass_millisecs, scan_sleep_pass_millisecs, 0, 600000);
KNUMA_ATTR(pages_to_scan, pages_to_scan, 1, 1 << 24);

static struct attribute *knuma_scand_attrs[] = {
	&scan_enabled_attr.attr,
	&scan_sleep_millisecs_attr.attr.attr,
	&scan_sleep_pass_millisecs_attr.attr.attr,
	&pages_to_scan_attr.attr.attr,
	&pages_scanned_attr.attr,
	&full_scans_attr.attr,
	NULL,
};

static const struct attribute_group knuma_scand_group = {
	.name = "knuma_scand",
	.attrs = knuma_scand_attrs,
};

KNUMA_ATTR(load_balance_strict, load_balance_strict, 0, 1);

static struct attribute *scheduler_attrs[] = {
	&load_balance_strict_attr.attr.attr,
	NULL,
};

static const struct attribute_group scheduler_group = {
	.name = "scheduler",
	.attrs = scheduler_attrs,
};

static const struct attribute_group *autonuma_groups[] = {
	&autonuma_group,
	&knuma_scand_group,
	&knuma_migrated_group,
	&scheduler_group,
	NULL,
};

/* Pages that wait, by where they are and where they go. */
static int queued_show(struct seq_file *m, void *v)
{
	int src, dst;

	seq_puts(m, "to\\from");
	for_each_online_node(src)
		seq_printf(m, " %d", src);
	seq_putc(m, '\n');
	for_each_online_node(dst) {
		struct knuma_node *node = READ_ONCE(knuma_nodes[dst]);
		struct knuma_ring *ring;

		if (!node)
			continue;
		seq_printf(m, "%d", dst);
		for_each_online_node(src) {
			guard(rcu)();
			ring = rcu_dereference(node->rings[src]);
			seq_printf(m, " %lu", ring ? knuma_ring_pages(ring) : 0);
		}
		seq_putc(m, '\n');
	}

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(queued);

/* What became of folios that a daemon has looked at. */
static int fates_show(struct seq_file *m, void *v)
{
	static const char * const names[KNUMA_FATES] = {
		[KNUMA_TAKEN] = "taken",
		[KNUMA_OLD] = "old",
		[KNUMA_POLICY] = "policy",
		[KNUMA_GONE] = "gone",
		[KNUMA_MOVED] = "moved",
		[KNUMA_SHARED] = "shared",
		[KNUMA_PINNED] = "pinned",
		[KNUMA_DIRTY] = "dirty",
		[KNUMA_BUSY] = "busy",
	};

	for (int i = 0; i < KNUMA_FATES; i++)
		seq_printf(m, "%s %lu\n", names[i],
			   sum_of_nodes(offsetof(struct knuma_node, fates[i])));

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(fates);

/* How long they had waited: less than so many ms, and how many. */
static int age_show(struct seq_file *m, void *v)
{
	for (int i = 0; i < KNUMA_AGES - 1; i++)
		seq_printf(m, "<%u %lu\n", jiffies_to_msecs(1U << i),
			   sum_of_nodes(offsetof(struct knuma_node, ages[i])));
	seq_printf(m, ">= %lu\n",
		   sum_of_nodes(offsetof(struct knuma_node, ages[KNUMA_AGES - 1])));

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(age);

static int __init knuma_sysfs_init(void)
{
	struct dentry *dir = debugfs_create_dir("knuma", NULL);
	struct kobject *kobj;
	int err;

	debugfs_create_file("queued", 0444, dir, NULL, &queued_fops);
	debugfs_create_file("fates", 0444, dir, NULL, &fates_fops);
	debugfs_create_file("age", 0444, dir, NULL, &age_fops);

	kobj = kobject_create_and_add("autonuma", mm_kobj);
	if (!kobj)
		return -ENOMEM;

	err = sysfs_create_groups(kobj, autonuma_groups);
	if (err)
		kobject_put(kobj);

	return err;
}
late_initcall(knuma_sysfs_init);
