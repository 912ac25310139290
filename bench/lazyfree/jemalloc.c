// SPDX-License-Identifier: GPL-2.0
/*
 * jemalloc for allocs.c, with hooks that mark extents. jemalloc decommits each
 * extent when it becomes free, since dirty_decay_ms is 0. calloc() expects that
 * decommitted memory reads zero, so it tells the commit hook.
 */
#include <err.h>
#include <jemalloc/jemalloc.h>
#include <stdio.h>
#include "allocs.h"

/* Due to --wrap=calloc, each caller of calloc() calls __wrap_calloc(). */
void *__wrap_calloc(size_t n, size_t size);
void *__real_calloc(size_t n, size_t size);

static _Thread_local bool zero;

void *__wrap_calloc(size_t n, size_t size)
{
	void *p;

	zero = true;
	p = __real_calloc(n, size);
	zero = false;
	return p;
}

static bool decommit(extent_hooks_t *hooks, void *p, size_t size, size_t offset,
		     size_t length, unsigned int arena)
{
	(void)hooks, (void)size, (void)arena;
	return release((char *)p + offset, length);
}

static bool commit(extent_hooks_t *hooks, void *p, size_t size, size_t offset,
		   size_t length, unsigned int arena)
{
	(void)hooks, (void)size, (void)arena;
	reuse((char *)p + offset, length, zero);
	return false;
}

static void set(unsigned int arena, const char *what, void *value, size_t size)
{
	char name[64];

	snprintf(name, sizeof(name), "arena.%u.%s", arena, what);
	if (mallctl(name, NULL, NULL, value, size))
		errx(1, "cannot set %s", name);
}

void start_marking(void)
{
	static extent_hooks_t ours;
	extent_hooks_t *hooks, *new = &ours;
	size_t size = sizeof(hooks);
	unsigned int arenas;
	ssize_t decay = 0;

	if (mallctl("arena.0.extent_hooks", &hooks, &size, NULL, 0))
		errx(1, "no extent hooks");
	ours = *hooks;
	ours.decommit = decommit;
	ours.commit = commit;
	/* jemalloc creates the arena of the largest blocks with the first one. */
	dallocx(mallocx(8 << 20, 0), 0);
	size = sizeof(arenas);
	if (mallctl("arenas.narenas", &arenas, &size, NULL, 0))
		errx(1, "no arenas");
	for (unsigned int i = 0; i < arenas; i++) {
		set(i, "extent_hooks", &new, sizeof(new));
		set(i, "dirty_decay_ms", &decay, sizeof(decay));
	}
}
