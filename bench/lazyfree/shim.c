// SPDX-License-Identifier: GPL-2.0
/*
 * A preloadable shim that shows MADV_SPLITTABLE to a program that knows nothing
 * of it: LD_PRELOAD=shim.so PROGRAM. Large blocks are mapped, and kept when they
 * are freed: marked, so that the kernel may have their memory, and taken back
 * when a block of that size is wanted. All else is the C library's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include "advice.h"

#define LARGE	(256UL << 10)
#define HUGE	(2UL << 20)
#define MAX	4096

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

struct block {
	char *p;
	size_t size;	/* bytes, of LARGE each; 0 if the entry is not used */
	bool used;
};

static struct block blocks[MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* With the lock held. NULL: not one of ours, or none is left. */
static struct block *find(const char *p)
{
	for (int i = 0; i < MAX; i++)
		if (blocks[i].p == p)
			return &blocks[i];
	return NULL;
}

static struct block *find_free(size_t size)
{
	for (int i = 0; i < MAX; i++)
		if (blocks[i].size == size && !blocks[i].used)
			return &blocks[i];
	return NULL;
}

static void *map(struct block *block, size_t size)
{
	/* Blocks that can be of huge pages begin with one. */
	size_t more = size >= HUGE ? HUGE : 0;
	char *p = mmap(NULL, size + more, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (more)
		p += -(size_t)p % HUGE;
	*block = (struct block){ p, size, true };
	return p;
}

static void *get(size_t size, int take_back)
{
	struct block *block;
	void *p = NULL;

	size = (size + LARGE - 1) & -LARGE;
	pthread_mutex_lock(&lock);
	block = find_free(size);
	if (block) {
		block->used = true;
		p = block->p;
		/* EINVAL: the kernel has no such call, and has zapped it. */
		madvise(p, size, take_back);
	} else {
		block = find(NULL);
		if (block)
			p = map(block, size);
	}
	pthread_mutex_unlock(&lock);
	if (!p)
		errno = ENOMEM;
	return p;
}

/* The size of one of our blocks, or 0. */
static size_t size_of(void *p)
{
	struct block *block;
	size_t size = 0;

	/* Others are not at the start of a page. */
	if (!p || (size_t)p % 4096)
		return 0;
	pthread_mutex_lock(&lock);
	block = find(p);
	if (block)
		size = block->size;
	pthread_mutex_unlock(&lock);
	return size;
}

void *malloc(size_t size)
{
	return size < LARGE ? __libc_malloc(size) : get(size, MADV_FREE_UNDO_);
}

void *calloc(size_t n, size_t size)
{
	size_t all;

	if (__builtin_mul_overflow(n, size, &all) || all < LARGE)
		return __libc_calloc(n, size);
	return get(all, MADV_UNSPLITTABLE_);
}

void free(void *p)
{
	size_t size = size_of(p);

	if (!size) {
		__libc_free(p);
		return;
	}
	if (madvise(p, size, MADV_SPLITTABLE_))
		madvise(p, size, MADV_DONTNEED);
	pthread_mutex_lock(&lock);
	find(p)->used = false;
	pthread_mutex_unlock(&lock);
}

void *realloc(void *p, size_t size)
{
	size_t old = size_of(p);
	void *new;

	if (!old && (p || size < LARGE))
		return __libc_realloc(p, size);
	new = malloc(size);
	if (new && p) {
		memcpy(new, p, old < size ? old : size);
		free(p);
	}
	return new;
}
