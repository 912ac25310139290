// SPDX-License-Identifier: GPL-2.0
/*
 * tcmalloc (gperftools) for allocs.c. Due to --wrap, its page heap calls the
 * functions below when it releases a span to the kernel and when it reuses a
 * released span. They mark the span. With aggressive_memory_decommit, the page
 * heap releases each span when the span becomes free.
 */
#include <err.h>
#include <gperftools/malloc_extension_c.h>
#include "allocs.h"

/* TCMalloc_SystemRelease(void *, size_t), TCMalloc_SystemCommit(void *, size_t) */
bool __wrap__Z22TCMalloc_SystemReleasePvm(void *p, size_t size);
bool __real__Z22TCMalloc_SystemReleasePvm(void *p, size_t size);
void __wrap__Z21TCMalloc_SystemCommitPvm(void *p, size_t size);

bool __wrap__Z22TCMalloc_SystemReleasePvm(void *p, size_t size)
{
	return marking ? !release(p, size) :
			 __real__Z22TCMalloc_SystemReleasePvm(p, size);
}

/* Unmodified, it does nothing on Linux. */
void __wrap__Z21TCMalloc_SystemCommitPvm(void *p, size_t size)
{
	reuse(p, size, false);
}

void start_marking(void)
{
	if (!MallocExtension_SetNumericProperty("tcmalloc.aggressive_memory_decommit", 1))
		errx(1, "no aggressive_memory_decommit");
}
