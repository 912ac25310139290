/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How often drains of per-CPU caches leave CPUs alone, in /proc/vmstat. See
 * Documentation/admin-guide/mm/percpu_drain_counters.rst.
 */
#ifndef _LINUX_PERCPU_DRAIN_STAT_H
#define _LINUX_PERCPU_DRAIN_STAT_H

#include <linux/vmstat.h>

/**
 * count_percpu_drain() - Count a drain, or a part of one.
 * @path:	prefix of its counters
 * @considered:	CPUs that there were
 * @reached:	those of them that were interrupted, or had to do work
 * @why:	EMPTY, QUIESCENT or ISOLATED: the others were left alone for it
 */
#define count_percpu_drain(path, considered, reached, why) do {		\
	unsigned int __considered = (considered);			\
	unsigned int __reached = (reached);				\
									\
	count_vm_events(path##_CONSIDERED, __considered);		\
	count_vm_events(path##_REACHED, __reached);			\
	/* A CPU may have come online since they were counted. */	\
	if (__considered > __reached)					\
		count_vm_events(path##_##why, __considered - __reached); \
} while (0)

#endif /* _LINUX_PERCPU_DRAIN_STAT_H */
