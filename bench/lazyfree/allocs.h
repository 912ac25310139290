/* SPDX-License-Identifier: GPL-2.0 */
/* Marking of free memory, for the allocators that have it. */
#ifndef ALLOCS_H
#define ALLOCS_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "advice.h"

/*
 * Bytes. The allocator released @freed: the kernel marked @marked of them, and
 * discarded the others. The allocator reused @reused: @kept still had their pages.
 */
struct counts {
	atomic_size_t freed, marked, reused, kept;
};

extern struct counts counts;

/* True if the command line asks for it and the kernel has MADV_SPLITTABLE. */
extern bool marking;

/* Each allocator has this function: change the options and hooks that marking needs. */
void start_marking(void);

/* An allocator may call these from its own madvise(), so use the system call. */
static inline long advise(void *p, size_t size, int advice)
{
	return syscall(SYS_madvise, p, size, advice);
}

/* Release a range. Returns 0, or -1 if that failed. */
static inline int release(void *p, size_t size)
{
	counts.freed += size;
	if (marking) {
		if (!advise(p, size, MADV_SPLITTABLE_)) {
			counts.marked += size;
			return 0;
		}
		/* -ENODATA: the kernel has zapped the range. */
		if (errno == ENODATA)
			return 0;
	}
	return advise(p, size, MADV_DONTNEED);
}

/* Reuse a range. @zero: its pages must read zero, else any contents will do. */
static inline void reuse(void *p, size_t size, bool zero)
{
	if (!marking)
		return;
	counts.reused += size;
	if (!advise(p, size, zero ? MADV_UNSPLITTABLE_ : MADV_FREE_UNDO_))
		counts.kept += size;
}

#endif
