// SPDX-License-Identifier: GPL-2.0
/*
 * mimalloc for allocs.c. Its library calls the madvise() and mprotect() of this
 * program: it decommits by MADV_DONTNEED, and commits by mprotect(). What is
 * decommitted is marked, with no delay.
 */
#include <mimalloc.h>
#include "allocs.h"

int madvise(void *p, size_t size, int advice)
{
	if (advice == MADV_DONTNEED)
		return release(p, size);
	return advise(p, size, advice);
}

int mprotect(void *p, size_t size, int prot)
{
	if (prot == (PROT_READ | PROT_WRITE))
		reuse(p, size, false);
	/* It may be memory that has never been accessible. */
	return syscall(SYS_mprotect, p, size, prot);
}

void start_marking(void)
{
	mi_option_set(mi_option_decommit_delay, 0);
	mi_option_set(mi_option_segment_decommit_delay, 0);
}
