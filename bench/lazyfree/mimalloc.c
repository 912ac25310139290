// SPDX-License-Identifier: GPL-2.0
/*
 * mimalloc for allocs.c. The library decommits with MADV_DONTNEED and commits
 * with mprotect(); it calls the functions below in place of the C library's. They
 * mark the memory, and the library decommits without a delay.
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
	/* Memory that the library has only reserved is PROT_NONE. */
	return syscall(SYS_mprotect, p, size, prot);
}

void start_marking(void)
{
	mi_option_set(mi_option_decommit_delay, 0);
	mi_option_set(mi_option_segment_decommit_delay, 0);
}
