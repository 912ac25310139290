// SPDX-License-Identifier: GPL-2.0
/*
 * jemalloc for blocks.c, by itself or with hooks: what it decommits is marked
 * with MADV_SPLITTABLE, and what it commits again is taken back: as zeroes, as
 * calloc() relies on, or as it is. It gives back at once what is freed.
 */
#include <err.h>
#include <jemalloc/jemalloc.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include "advice.h"

const char *malloc_conf = "narenas:1,tcache:false,dirty_decay_ms:0,muzzy_decay_ms:0";

static int take_back_advice;

static bool decommit(extent_hooks_t *hooks, void *p, size_t size, size_t offset,
		     size_t length, unsigned int arena)
{
	(void)hooks, (void)size, (void)arena;
	return madvise((char *)p + offset, length, MADV_SPLITTABLE_) &&
	       madvise((char *)p + offset, length, MADV_DONTNEED);
}

static bool commit(extent_hooks_t *hooks, void *p, size_t size, size_t offset,
		   size_t length, unsigned int arena)
{
	(void)hooks, (void)size, (void)arena;
	/* On a kernel that has no such call it is zero already. */
	madvise((char *)p + offset, length, take_back_advice);
	return false;
}

void use_allocator(const char *how)
{
	static extent_hooks_t ours;
	extent_hooks_t *hooks, *new = &ours;
	size_t size = sizeof(hooks);

	if (!strcmp(how, "default"))
		return;
	take_back_advice = strcmp(how, "undo") ? MADV_UNSPLITTABLE_ :
						 MADV_FREE_UNDO_;
	if (mallctl("arena.0.extent_hooks", &hooks, &size, NULL, 0))
		errx(1, "no extent hooks");
	ours = *hooks;
	ours.decommit = decommit;
	ours.commit = commit;
	if (mallctl("arena.0.extent_hooks", NULL, NULL, &new, sizeof(new)))
		errx(1, "cannot set extent hooks");
}
