// SPDX-License-Identifier: GPL-2.0
/*
 * Files of NUMA balancing outside of page faults: /sys/kernel/mm/autonuma/ and
 * /sys/kernel/debug/knuma/. See Documentation/admin-guide/mm/knuma.rst.
 */

#include <linux/debugfs.h>
#include <linux/init.h>
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
 * struct knuma_attr - A file with a number
 * @attr:	the file
 * @knob:	the number
 * @min:	smallest value
 * @max:	largest value
 * @power_of_2:	other values are refused
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

	if (ka->power_of_2 && !is_power_of_2(val))
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

KNUMA_ATTR(window_pages, window_pages, 1, KNUMA_WINDOW, .power_of_2 = true);
KNUMA_ATTR(late_millisecs, late_millisecs, 0, 10000);

static struct attribute *autonuma_attrs[] = {
	&enabled_attr.attr,
	&window_pages_attr.attr.attr,
	&late_millisecs_attr.attr.attr,
	NULL,
};

static const struct attribute_group autonuma_group = {
	.attrs = autonuma_attrs,
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
KNUMA_ATTR(pages_to_scan, pages_to_scan, 1, 1 << 24);

static struct attribute *knuma_scand_attrs[] = {
	&scan_enabled_attr.attr,
	&scan_sleep_millisecs_attr.attr.attr,
	&pages_to_scan_attr.attr.attr,
	&pages_scanned_attr.attr,
	&full_scans_attr.attr,
	NULL,
};

static const struct attribute_group knuma_scand_group = {
	.name = "knuma_scand",
	.attrs = knuma_scand_attrs,
};

static const struct attribute_group *autonuma_groups[] = {
	&autonuma_group,
	&knuma_scand_group,
	NULL,
};

/* Windows that wait, by the node that they move to. */
static int queued_show(struct seq_file *m, void *v)
{
	int nid;

	for_each_online_node(nid) {
		struct knuma_node *node = READ_ONCE(knuma_nodes[nid]);

		if (node)
			seq_printf(m, "%d %u\n", nid, knuma_waiting(node));
	}

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(queued);

static int __init knuma_sysfs_init(void)
{
	struct dentry *dir = debugfs_create_dir("knuma", NULL);
	struct kobject *kobj;
	int err;

	debugfs_create_file("queued", 0444, dir, NULL, &queued_fops);
	debugfs_create_bool("hold", 0644, dir, &knuma_hold);

	kobj = kobject_create_and_add("autonuma", mm_kobj);
	if (!kobj)
		return -ENOMEM;

	err = sysfs_create_groups(kobj, autonuma_groups);
	if (err)
		kobject_put(kobj);

	return err;
}
late_initcall(knuma_sysfs_init);
