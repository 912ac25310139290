// SPDX-License-Identifier: GPL-2.0
/* The calls: their documented results, and their effect on the model. */
#include "worker.h"

#include <linux/fs.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* Advice and system calls that the C library of an older Debian lacks. */
#define SOAK_FREE_UNDO		26
#define SOAK_SPLITTABLE		27
#define SOAK_UNSPLITTABLE	28
#define SOAK_COLLAPSE		25
#define SOAK_DONTNEED_LOCKED	24
#define SOAK_GUARD_INSTALL	102
#define SOAK_GUARD_REMOVE	103
#define SYS_MSEAL		462
#define SOAK_SET_DEBUG		82	/* PR_SET_MADV_SPLITTABLE_DEBUG */
#define DEBUG_OFF		0
#define DEBUG_ZAP		1
#define DEBUG_GUARD		2
#define MREMAP_KEEP		4	/* MREMAP_DONTUNMAP */

#define E(name)			(1UL << (name))
/* Errors that memory pressure, a signal or a racing call explain anywhere. */
#define E_TRANSIENT		(E(ENOMEM) | E(EAGAIN) | E(EINTR) | E(EBUSY))

static char *region_at(const struct region *r, size_t page)
{
	return r->addr + page * PAGE;
}

/* Pages that this process cannot read, or write. */
static bool unreadable(const struct region *r, size_t first, size_t n)
{
	return region_any(r, first, n, NO_ACCESS | GUARD);
}

static bool unwritable(const struct region *r, size_t first, size_t n)
{
	return region_any(r, first, n, NO_ACCESS | GUARD | READ_ONLY);
}

/* Report an error that is not in @allowed; returns 0 or -errno. */
static int result(const struct region *r, size_t first, size_t n, const char *name, long ret,
		  unsigned long allowed)
{
	int error = errno;

	if (ret >= 0)
		return 0;
	if (r->sealed || r->half)
		allowed |= E(EPERM);
	/* This kernel has no such call, or this file system. */
	if (error == ENOSYS || (error == EOPNOTSUPP && r->kind != ANON))
		return -error;
	if (error >= 64 || !(allowed >> error & 1))
		violation("result", "%s of region %u (kind %d, state of its first page %#x) pages %zu-%zu: %s",
			  name, region_number(r), r->kind, r->page[first].state, first, first + n - 1,
			  strerror(error));
	return -error;
}

static void set_state(struct region *r, size_t first, size_t n, unsigned int set, unsigned int clear)
{
	for (size_t i = first; i < first + n; i++)
		r->page[i].state = (r->page[i].state & ~clear) | set;
}

/* Sealed memory that cannot be written keeps its contents as long as it is mapped. */
static bool immutable(const struct region *r, size_t page)
{
	return r->sealed && r->kind == ANON && region_page_is(r, page, READ_ONLY | NO_ACCESS);
}

/* Half done at an error: a page has its old contents, or zeroes. */
static void half_zeroed(struct region *r, size_t first, size_t n)
{
	set_state(r, first, n, UNREAD, 0);
}

static int call_read(struct worker *w, struct region *r, size_t first, size_t n)
{
	(void)w;
	region_check(r, first, n, "contents");
	return 0;
}

static int call_write(struct worker *w, struct region *r, size_t first, size_t n)
{
	/* A store to marked memory is a bug of the program, but a harmless one. */
	if (region_any(r, first, n, MARKED) && rng_chance(&w->rng, 90))
		return NOT_HERE;
	region_write(w, r, first, n);
	return 0;
}

enum effect {
	NO_EFFECT,
	MERGES,
	EXPIRES,		/* marked memory is zapped, and stays marked */
	UNDOES,
	MARKS,			/* no sealed memory */
	UNMARKS,		/* nothing in sealed memory */
	UNGUARDS,
	/* The others discard: sealed memory that cannot be written refuses them. */
	FREES,			/* may be zero */
	ZEROES,			/* as MADV_DONTNEED */
	REMOVES,		/* from the file, too */
	GUARDS,
	WIPES,
};

struct advice {
	const char *name;
	int advice;
	enum effect effect;
	unsigned long errors;		/* besides E_TRANSIENT, unless it is exact() */
	unsigned long errors_locked;	/* in mlock()ed memory */
	unsigned long errors_other;	/* not in private anonymous memory */
};

#define E_POPULATE	(E(EFAULT) | E(EINVAL))
static const struct advice advices[] = {
	{ "free", MADV_FREE, FREES, 0, E(EINVAL), E(EINVAL) },
	{ "dontneed", MADV_DONTNEED, ZEROES, 0, E(EINVAL), E(EINVAL) },
	{ "dontneed_locked", SOAK_DONTNEED_LOCKED, ZEROES, 0, 0, E(EINVAL) },
	{ "willneed", MADV_WILLNEED, NO_EFFECT, E(EBADF) | E(EIO), 0, 0 },
	{ "normal", MADV_NORMAL, NO_EFFECT, 0, 0, 0 },
	{ "random", MADV_RANDOM, NO_EFFECT, 0, 0, 0 },
	{ "sequential", MADV_SEQUENTIAL, NO_EFFECT, 0, 0, 0 },
	{ "remove", MADV_REMOVE, REMOVES, E(EINVAL), E(EINVAL), E(EINVAL) | E(EACCES) },
	{ "dontfork", MADV_DONTFORK, WIPES, 0, 0, 0 },
	{ "dofork", MADV_DOFORK, NO_EFFECT, 0, 0, E(EINVAL) },
	{ "wipeonfork", MADV_WIPEONFORK, WIPES, 0, 0, E(EINVAL) },
	{ "keeponfork", MADV_KEEPONFORK, NO_EFFECT, 0, 0, E(EINVAL) },
	{ "dontdump", MADV_DONTDUMP, NO_EFFECT, 0, 0, E(EINVAL) },
	{ "dodump", MADV_DODUMP, NO_EFFECT, 0, 0, E(EINVAL) },
	{ "mergeable", MADV_MERGEABLE, MERGES, E(EINVAL), 0, E(EINVAL) },
	{ "unmergeable", MADV_UNMERGEABLE, NO_EFFECT, E(EINVAL), 0, E(EINVAL) },
	{ "hugepage", MADV_HUGEPAGE, NO_EFFECT, E(EINVAL), 0, E(EINVAL) },
	{ "nohugepage", MADV_NOHUGEPAGE, NO_EFFECT, E(EINVAL), 0, E(EINVAL) },
	{ "cold", MADV_COLD, NO_EFFECT, 0, E(EINVAL), E(EINVAL) },
	{ "pageout", MADV_PAGEOUT, EXPIRES, 0, E(EINVAL), E(EINVAL) },
	{ "populate_read", MADV_POPULATE_READ, NO_EFFECT, E_POPULATE, 0, E_POPULATE },
	{ "populate_write", MADV_POPULATE_WRITE, NO_EFFECT, E_POPULATE, 0, E_POPULATE },
	{ "collapse", SOAK_COLLAPSE, NO_EFFECT, E(EINVAL) | E(EFAULT), 0, E(EINVAL) | E(EFAULT) },
	{ "guard_install", SOAK_GUARD_INSTALL, GUARDS, 0, E(EINVAL), E(EINVAL) },
	{ "guard_remove", SOAK_GUARD_REMOVE, UNGUARDS, 0, E(EINVAL), E(EINVAL) },
	{ "free_undo", SOAK_FREE_UNDO, UNDOES, E(ENODATA), 0, E(EINVAL) },
	{ "splittable", SOAK_SPLITTABLE, MARKS, E(ENODATA), 0, 0 },
	{ "unsplittable", SOAK_UNSPLITTABLE, UNMARKS, 0, 0, 0 },
};

/* Calls of the series: their results are documented, and mean something. */
static bool exact(const struct advice *a)
{
	return a->effect == UNDOES || a->effect == MARKS || a->effect == UNMARKS;
}

/* The process's mode of PR_SET_MADV_SPLITTABLE_DEBUG; exact() advice reads it. */
static pthread_rwlock_t debug_lock = PTHREAD_RWLOCK_INITIALIZER;
static unsigned long debug_mode;

static bool is_anon(const struct region *r)
{
	return r->kind == ANON;
}

/* The pages are zapped: anonymous ones read zero, the others the contents of the file. */
static void model_zapped(struct region *r, size_t first, size_t n)
{
	if (is_anon(r) || r->kind == FILE_PRIVATE || r->kind == HUGETLB)
		region_zero(r, first, n);
}

static void model_guarded(struct region *r, size_t first, size_t n)
{
	model_zapped(r, first, n);
	set_state(r, first, n, GUARD, MARKED);
}

/* The same, and no page is marked any more. */
static void model_discarded(struct region *r, size_t first, size_t n)
{
	model_zapped(r, first, n);
	if (is_anon(r))
		set_state(r, first, n, 0, MARKED);
}

/* MADV_PAGEOUT has zapped the marked pages. */
static void model_expired(struct region *r, size_t first, size_t n)
{
	for (size_t i = first; i < first + n; i++)
		if ((r->page[i].state & (MARKED | STORED)) == MARKED)
			r->page[i].state |= GONE;
}

/*
 * MADV_FREE_UNDO returned 0: each page has the contents that the program stored
 * last. Pages that were lost before they were marked again are no part of that.
 */
static void model_undone(struct region *r, size_t first, size_t n, int ret)
{
	if (ret && ret != -ENODATA)
		return;
	if (debug_mode == DEBUG_GUARD)
		set_state(r, first, n, 0, GUARD);
	if (ret) {
		region_keep(r, first, n, MAY_ZERO | MARKED);
		return;
	}
	for (size_t i = first; i < first + n; i++) {
		struct page *p = &r->page[i];

		if (p->state & STORED)
			p->stamp = p->stored;
		p->state &= ~(MAY_ZERO | MARKED | STORED | GONE);
		if (!region_check_page(r, i, region_at(r, i), "undo"))
			return;
	}
}

/* Whatever MADV_SPLITTABLE has left undone: no page is marked. */
static void unmark(struct region *r, size_t first, size_t n)
{
	result(r, first, n, "unsplittable after an error",
	       madvise(region_at(r, first), n * PAGE, SOAK_UNSPLITTABLE), 0);
	if (debug_mode == DEBUG_GUARD)
		set_state(r, first, n, 0, GUARD);
	region_zap_marked(r, first, n);
}

/*
 * ENODATA: the pages are zapped, and not marked. If there are several mappings,
 * those of some of them may be marked instead.
 */
static void model_marked(struct region *r, size_t first, size_t n, int ret, bool one_mapping)
{
	if (!ret) {
		if (!is_anon(r) || debug_mode || (region_any(r, first, n, READ_ONLY | NO_ACCESS) && !r->half))
			violation("result", "MADV_SPLITTABLE has marked region %u (kind %d), pages %zu-%zu, state of the first %#x, mode %lu",
				  region_number(r), r->kind, first, first + n - 1, r->page[first].state, debug_mode);
		set_state(r, first, n, MARKED, 0);
		return;
	}
	if (ret == -EPERM) {
		/* Of a region of which a part is sealed, another part may be marked. */
		set_state(r, first, n, MARKED | UNKNOWN, 0);
		return;
	}
	if (is_anon(r) && (ret != -ENODATA || !one_mapping))
		unmark(r, first, n);
	if (ret != -ENODATA) {
		half_zeroed(r, first, n);
		return;
	}
	model_discarded(r, first, n);
	/* Locked memory has no guard regions. */
	if (is_anon(r) && one_mapping && debug_mode == DEBUG_GUARD && !region_any(r, first, n, LOCKED))
		set_state(r, first, n, GUARD, 0);
}

static void model_unmarked(struct region *r, size_t first, size_t n, int ret)
{
	if (!ret && debug_mode == DEBUG_GUARD && !region_is_hugetlb(r))
		set_state(r, first, n, 0, GUARD);
	if (!ret)
		region_zap_marked(r, first, n);
}

static void model_advised(struct region *r, size_t first, size_t n, const struct advice *a, int ret,
			  bool one_mapping)
{
	switch (a->effect) {
	case NO_EFFECT:
		break;
	case FREES:
		if (is_anon(r))
			set_state(r, first, n, MAY_ZERO, 0);
		break;
	case ZEROES:
		if (!ret)
			model_discarded(r, first, n);
		else if (is_anon(r) || r->kind == FILE_PRIVATE || r->kind == HUGETLB)
			half_zeroed(r, first, n);
		break;
	case REMOVES:
		if (is_anon(r))
			break;
		if (r->kind == FILE_PRIVATE)
			break;
		if (!ret)
			region_zero(r, first, n);
		else
			half_zeroed(r, first, n);
		break;
	case MARKS:
		model_marked(r, first, n, ret, one_mapping);
		break;
	case UNMARKS:
		model_unmarked(r, first, n, ret);
		break;
	case EXPIRES:
		if (!ret)
			model_expired(r, first, n);
		break;
	case UNDOES:
		model_undone(r, first, n, ret);
		break;
	case GUARDS:
		if (!ret)
			model_guarded(r, first, n);
		else
			set_state(r, first, n, GUARD | UNKNOWN, 0);
		break;
	case UNGUARDS:
		if (!ret)
			set_state(r, first, n, 0, GUARD);
		break;
	case WIPES:
		r->wiped = true;
		break;
	case MERGES:
		r->merged = true;
		break;
	}
}

static const struct advice *find_advice(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(advices); i++)
		if (!strcmp(advices[i].name, name))
			return &advices[i];
	abort();
}

static long advise(const struct region *r, size_t first, size_t n, const struct advice *a)
{
	return madvise(region_at(r, first), n * PAGE, a->advice);
}

/* The same by process_madvise(), in two parts. */
static long advise_vector(const struct region *r, size_t first, size_t n, const struct advice *a)
{
	struct iovec parts[2] = {
		{ region_at(r, first), n / 2 * PAGE },
		{ region_at(r, first + n / 2), (n - n / 2) * PAGE },
	};
	int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	long ret = syscall(SYS_process_madvise, pidfd, parts, 2UL, a->advice, 0);
	int error = errno;

	close(pidfd);
	errno = error;
	/*
	 * It stops at the first part that fails, but not at one with ENODATA, and
	 * does not tell the error: of sealed pages, a part may be read-only.
	 */
	if (ret >= 0 && ret < (long)(n * PAGE)) {
		errno = r->sealed || r->half ? EPERM : EAGAIN;
		return -1;
	}
	return ret;
}

#ifndef PROCMAP_QUERY
struct procmap_query {
	uint64_t size, query_flags, query_addr;
	uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
	uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};
#define PROCMAP_QUERY	_IOWR('f', 17, struct procmap_query)
#endif

/* The pages are in one mapping; this stays so as long as their slots are locked. */
static bool in_one_mapping(const struct region *r, size_t first, size_t n)
{
	struct procmap_query query = {
		.size = sizeof(query),
		.query_addr = (uintptr_t)region_at(r, first),
	};
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return false;
	ret = ioctl(fd, PROCMAP_QUERY, &query);
	close(fd);
	return ret >= 0 && query.vma_end >= (uintptr_t)region_at(r, first + n);
}

static int advise_and_model(struct worker *w, struct region *r, size_t first, size_t n,
			    const struct advice *a)
{
	unsigned long errors = a->errors | (exact(a) ? 0 : E_TRANSIENT);
	bool one_mapping = false;
	size_t fixed = 0;
	int ret;

	/* A hole in a file of huge pages loses its reservation. */
	if (region_is_hugetlb(r) && a->effect == REMOVES)
		return NOT_HERE;
	for (size_t i = first; a->effect >= FREES && i < first + n; i++)
		fixed += immutable(r, i);
	if (fixed && fixed < n)
		return NOT_HERE;
	if (region_is_hugetlb(r)) {
		/* Whole huge pages, or EINVAL. */
		first = first / 512 * 512;
		n = r->pages - first;
		errors |= E(EINVAL) | E(EFAULT);
	}
	if (region_any(r, first, n, LOCKED))
		errors |= a->errors_locked;
	if (!is_anon(r))
		errors |= a->errors_other | E(EACCES) | E(EBADF) | E(ENOSPC);
	if (a->effect == MARKS && debug_mode == DEBUG_GUARD)
		errors |= E(ENOMEM);
	if (region_any(r, first, n, UNREAD) && (a->effect == FREES || a->effect == MARKS) &&
	    !unreadable(r, first, n))
		region_check(r, first, n, "contents");
	if (a->effect == MARKS && r->sealed) {
		ret = result(r, first, n, a->name, advise(r, first, n, a), 0);
		if (ret != -EPERM)
			violation("result", "MADV_SPLITTABLE of sealed memory returned %d", ret);
		return ret;
	}
	if (rng_chance(&w->rng, 15) && n > 1 && a->effect != GUARDS && a->effect != UNGUARDS) {
		ret = result(r, first, n, a->name, advise_vector(r, first, n, a),
			     errors | (exact(a) ? 0 : E(EPERM) | E(EINVAL)));
	} else {
		one_mapping = a->effect == MARKS && in_one_mapping(r, first, n);
		ret = result(r, first, n, a->name, advise(r, first, n, a), errors);
	}
	if (!fixed)
		model_advised(r, first, n, a, ret, one_mapping);
	return ret;
}

static int call_advice(struct worker *w, struct region *r, size_t first, size_t n, const char *name)
{
	const struct advice *a = find_advice(name);
	int ret;

	if (exact(a))
		pthread_rwlock_rdlock(&debug_lock);
	ret = advise_and_model(w, r, first, n, a);
	if (exact(a))
		pthread_rwlock_unlock(&debug_lock);
	return ret;
}

#define ADVICE(name)								\
static int call_##name(struct worker *w, struct region *r, size_t first, size_t n)	\
{										\
	return call_advice(w, r, first, n, #name);				\
}
ADVICE(free)
ADVICE(dontneed)
ADVICE(dontneed_locked)
ADVICE(willneed)
ADVICE(normal)
ADVICE(random)
ADVICE(sequential)
ADVICE(remove)
ADVICE(dontfork)
ADVICE(dofork)
ADVICE(wipeonfork)
ADVICE(keeponfork)
ADVICE(dontdump)
ADVICE(dodump)
ADVICE(mergeable)
ADVICE(unmergeable)
ADVICE(nohugepage)
ADVICE(cold)
ADVICE(pageout)
ADVICE(populate_read)
ADVICE(populate_write)
ADVICE(guard_install)
ADVICE(guard_remove)
ADVICE(free_undo)
ADVICE(splittable)
ADVICE(unsplittable)

static int call_hugepage(struct worker *w, struct region *r, size_t first, size_t n)
{
	r->huge = true;
	return call_advice(w, r, first, n, "hugepage");
}

static int call_collapse(struct worker *w, struct region *r, size_t first, size_t n)
{
	r->huge = true;
	return call_advice(w, r, first, n, "collapse");
}

static int protect(struct region *r, size_t first, size_t n, int prot, unsigned int state)
{
	int ret = result(r, first, n, "mprotect", mprotect(region_at(r, first), n * PAGE, prot),
			 E_TRANSIENT | E(EACCES));

	if (!ret) {
		set_state(r, first, n, state, READ_ONLY | NO_ACCESS);
		/* Memory that is read-only does not change from now on. */
		if (state == READ_ONLY)
			region_keep(r, first, n, MARKED);
	} else if (ret != -EPERM) {
		set_state(r, first, n, NO_ACCESS | UNKNOWN, 0);
		if (is_anon(r))
			unmark(r, first, n);
	}
	r->half |= ret && ret != -EPERM;
	return ret;
}

static int call_mprotect(struct worker *w, struct region *r, size_t first, size_t n)
{
	static const struct {
		int prot;
		unsigned int state;
	} kinds[] = {
		{ PROT_READ | PROT_WRITE, 0 },
		{ PROT_READ | PROT_WRITE, 0 },
		{ PROT_READ | PROT_WRITE, 0 },
		{ PROT_READ, READ_ONLY },
		{ PROT_NONE, NO_ACCESS },
	};
	size_t kind = rng_below(&w->rng, ARRAY_SIZE(kinds));

	return protect(r, first, n, kinds[kind].prot, kinds[kind].state);
}

static int call_mlock(struct worker *w, struct region *r, size_t first, size_t n)
{
	int ret;

	if (region_is_hugetlb(r))
		return NOT_HERE;
	ret = result(r, first, n, "mlock", syscall(SYS_mlock2, region_at(r, first), n * PAGE,
						   (unsigned int)rng_below(&w->rng, 2)),
		     E_TRANSIENT | E(EPERM) | E(EFAULT));
	set_state(r, first, n, LOCKED, 0);
	if (!ret)
		region_zap_marked(r, first, n);
	else if (region_any(r, first, n, MARKED))
		call_advice(w, r, first, n, "unsplittable");
	return ret;
}

static int call_munlock(struct worker *w, struct region *r, size_t first, size_t n)
{
	int ret;

	(void)w;
	if (region_is_hugetlb(r))
		return NOT_HERE;
	ret = result(r, first, n, "munlock", munlock(region_at(r, first), n * PAGE), E_TRANSIENT);
	if (!ret)
		set_state(r, first, n, 0, LOCKED);
	return ret;
}

static char *reserve(size_t size)
{
	return mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static int call_mremap_move(struct worker *w, struct region *r, size_t first, size_t n)
{
	size_t size = r->pages * PAGE;
	char *area = reserve(size + HUGE), *to;
	int ret;

	(void)w;
	if (area == MAP_FAILED)
		return -errno;
	/* As well aligned as before, or not at all. */
	to = rng_chance(&w->rng, 70) ? area + -(uintptr_t)area % HUGE : area + PAGE;
	ret = result(r, first, n, "mremap",
		     mremap(r->addr, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED ? -1 : 0,
		     E_TRANSIENT | E(EFAULT) | E(EINVAL));
	if (ret == -EPERM) {
		munmap(area, size + HUGE);
		return ret;
	}
	/*
	 * The call has unmapped the new place, and may have moved some of several
	 * mappings. Other threads may have got these holes meanwhile.
	 */
	if (ret)
		_exit(0);
	if (to > area)
		munmap(area, to - area);
	munmap(to + size, area + HUGE - to);
	r->addr = to;
	region_zap_marked(r, 0, r->pages);
	region_check(r, 0, r->pages, "contents");
	return 0;
}

/* The contents move, and leave zeroes behind. */
static int call_mremap_dontunmap(struct worker *w, struct region *r, size_t first, size_t n)
{
	size_t size = r->pages * PAGE;
	char *to, *old = r->addr;
	bool writable = !unwritable(r, 0, r->pages);

	(void)w;
	if (!is_anon(r))
		return NOT_HERE;
	to = mremap(r->addr, size, size, MREMAP_MAYMOVE | MREMAP_KEEP, NULL);
	if (to == MAP_FAILED)
		return result(r, first, n, "mremap", -1, E_TRANSIENT | E(EFAULT) | E(EINVAL));
	for (size_t i = 0; writable && i < size; i += PAGE * 7)
		if (*(volatile uint64_t *)(old + i))
			violation("contents", "MREMAP_DONTUNMAP left %#lx at page %zu of region %u",
				  *(volatile uint64_t *)(old + i), i / PAGE, region_number(r));
	munmap(old, size);
	r->addr = to;
	region_zap_marked(r, 0, r->pages);
	region_check(r, 0, r->pages, "contents");
	return 0;
}

/* Shrink by a slot, then grow again: new memory is zero. */
static int call_mremap_resize(struct worker *w, struct region *r, size_t first, size_t n)
{
	size_t size = r->pages * PAGE, less = SLOT_PAGES * PAGE;
	char *to;

	(void)w;
	if (!is_anon(r) || r->pages <= SLOT_PAGES || region_any(r, 0, r->pages, NO_ACCESS | READ_ONLY))
		return NOT_HERE;
	if (mremap(r->addr, size, size - less, 0) == MAP_FAILED)
		return result(r, first, n, "mremap", -1, E_TRANSIENT | E(EFAULT));
	r->pages -= SLOT_PAGES;
	to = mremap(r->addr, size - less, size, MREMAP_MAYMOVE);
	if (to == MAP_FAILED)
		return result(r, first, n, "mremap", -1, E_TRANSIENT | E(EFAULT));
	if (to != r->addr)
		region_zap_marked(r, 0, r->pages);
	r->addr = to;
	memset(&r->page[r->pages], 0, SLOT_PAGES * sizeof(r->page[0]));
	if (region_any(r, r->pages - 1, 1, LOCKED))
		set_state(r, r->pages, SLOT_PAGES, LOCKED, 0);
	r->pages += SLOT_PAGES;
	region_check(r, 0, r->pages, "contents");
	return 0;
}

/* New memory in place of the old. */
static int call_map_fixed(struct worker *w, struct region *r, size_t first, size_t n)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	if (!is_anon(r))
		return NOT_HERE;
	if (rng_chance(&w->rng, 30))
		flags |= MAP_POPULATE;
	if (rng_chance(&w->rng, 30))
		flags |= MAP_NORESERVE;
	if (mmap(region_at(r, first), n * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
		return result(r, first, n, "mmap", -1, E_TRANSIENT);
	memset(&r->page[first], 0, n * sizeof(r->page[0]));
	if (r->nodes)
		r->nodes = 0;	/* the new part has no policy */
	return 0;
}

static int call_remap(struct worker *w, struct region *r, size_t first, size_t n)
{
	(void)first;
	(void)n;
	if (r->sealed)
		return NOT_HERE;
	region_unmap(r);
	return region_map(w, r) ? 0 : -ENOMEM;
}

/* Nothing is marked any more, and memory that is not writable does not change. */
static int call_mseal(struct worker *w, struct region *r, size_t first, size_t n)
{
	int ret;

	if (region_number(r) > 2)
		return NOT_HERE;	/* sealed memory stays until the process ends */
	/* Rather memory of which a part is marked. */
	if (program.series && !region_any(r, first, n, MARKED) && rng_chance(&w->rng, 75))
		return NOT_HERE;
	/* As a program does that has set up constants. */
	if (rng_chance(&w->rng, 50))
		protect(r, first, n, PROT_READ, READ_ONLY);
	ret = result(r, first, n, "mseal", syscall(SYS_MSEAL, r->addr, r->pages * PAGE, 0UL),
		     E_TRANSIENT);
	if (ret) {
		r->half = true;
		for (size_t i = 0; i < r->pages; i++)
			if (r->page[i].state & MARKED)
				r->page[i].state |= UNKNOWN;
		return ret;
	}
	r->sealed = true;
	region_keep(r, 0, r->pages, MARKED);
	region_check(r, first, n, "contents");
	return 0;
}

/* As an allocator frees a block, and then uses it for another object. */
static void free_and_reuse(struct worker *w, struct region *r, size_t first, size_t n)
{
	call_advice(w, r, first, n, "splittable");
	call_advice(w, r, first, n, "unsplittable");
}

static int call_fork(struct worker *w, struct region *r, size_t first, size_t n)
{
	bool exec = rng_chance(&w->rng, 20), killed = rng_chance(&w->rng, 20);
	bool write = rng_chance(&w->rng, 50);
	int status = 0;
	pid_t pid;

	/* Where the pool of huge pages is empty, a child loses its pages to the parent. */
	if (r->wiped || r->kind == HUGETLB)
		return NOT_HERE;
	pid = fork();
	if (pid < 0)
		return result(r, first, n, "fork", -1, E_TRANSIENT);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* A child's own errors are violations, too; shared memory is the parent's. */
		region_check_child(r);
		if (write && (is_anon(r) || r->kind == FILE_PRIVATE)) {
			region_write(w, r, first, n);
			/* Nothing is marked. */
			if (program.series)
				madvise(region_at(r, first), n * PAGE, SOAK_UNSPLITTABLE);
			region_check(r, first, n, "contents");
		}
		if (exec)
			execl("/proc/self/exe", "soak", "--exit", NULL);
		while (killed && !over())
			usleep(1000);
		_exit(0);
	}
	/* The child keeps its pages. */
	if (program.series && rng_chance(&w->rng, 25))
		free_and_reuse(w, r, first, n);
	if (killed) {
		usleep(rng_below(&w->rng, 20000));
		kill(pid, SIGKILL);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	/* The child has changed nothing here. */
	region_check(r, first, n, "contents");
	return 0;
}

static int uffd_open(const struct region *r, size_t first, size_t n, uint64_t features, uint64_t mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = {
		.range = { (uintptr_t)region_at(r, first), n * PAGE },
		.mode = mode,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), error;

	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg)) {
		error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

/* The pages come from UFFDIO_COPY. */
static int call_uffd_copy(struct worker *w, struct region *r, size_t first, size_t n)
{
	static _Thread_local char source[PAGE] __attribute__((aligned(4096)));
	int fd;

	if (!is_anon(r) || unwritable(r, first, n) || region_any(r, first, n, LOCKED) || r->sealed)
		return NOT_HERE;
	if (n > SLOT_PAGES)
		n = SLOT_PAGES;
	fd = uffd_open(r, first, n, 0, UFFDIO_REGISTER_MODE_MISSING);
	if (fd < 0)
		return fd;	/* part of it may have a userfaultfd already */
	region_zap_marked(r, first, n);	/* by registration */
	if (!madvise(region_at(r, first), n * PAGE, MADV_DONTNEED)) {
		region_zero(r, first, n);
		for (size_t i = first; i < first + n; i++) {
			uint32_t stamp = ++w->next_stamp;
			struct uffdio_copy copy = {
				.dst = (uintptr_t)region_at(r, i),
				.src = (uintptr_t)source,
				.len = PAGE,
			};

			page_fill(source, stamp);
			if (ioctl(fd, UFFDIO_COPY, &copy))
				continue;	/* the page stays a hole */
			r->page[i].stamp = stamp;
			r->page[i].state &= ~(MAY_ZERO | UNREAD | UNKNOWN | GONE);
		}
	} else {
		half_zeroed(r, first, n);
	}
	close(fd);
	region_check(r, first, n, "contents");
	return 0;
}

static int call_uffd_wp(struct worker *w, struct region *r, size_t first, size_t n)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)region_at(r, first), n * PAGE },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int fd;

	(void)w;
	if (!is_anon(r) || unwritable(r, first, n) || r->sealed)
		return NOT_HERE;
	fd = uffd_open(r, first, n, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFDIO_REGISTER_MODE_WP);
	if (fd < 0)
		return fd;
	region_zap_marked(r, first, n);	/* by registration */
	ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	region_check(r, first, n, "contents");
	wp.mode = 0;
	ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	close(fd);
	region_check(r, first, n, "contents");
	return 0;
}

#ifndef UFFDIO_MOVE
struct uffdio_move {
	uint64_t dst, src, len, mode;
	int64_t move;
};
#define UFFDIO_MOVE	_IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFD_FEATURE_MOVE	(1UL << 16)
#endif

/* Pages move to a new mapping, and leave holes. */
static int call_uffd_move(struct worker *w, struct region *r, size_t first, size_t n)
{
	size_t done = 0;
	char *to;
	int fd, ret = 0;

	(void)w;
	if (n > SLOT_PAGES)
		n = SLOT_PAGES;
	if (!is_anon(r) || unwritable(r, first, n) || r->sealed ||
	    region_any(r, first, n, LOCKED))
		return NOT_HERE;
	to = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (to == MAP_FAILED)
		return -errno;
	fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
		struct uffdio_register reg = {
			.range = { (uintptr_t)to, n * PAGE },
			.mode = UFFDIO_REGISTER_MODE_MISSING,
		};
		struct uffdio_move move = {
			.dst = (uintptr_t)to,
			.src = (uintptr_t)region_at(r, first),
			.len = n * PAGE,
		};

		if (!ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &reg)) {
			if (!ioctl(fd, UFFDIO_MOVE, &move))
				done = n;
			else if (move.move > 0)
				done = move.move / PAGE;
			ret = done == n ? 0 : -errno;
		}
		close(fd);
	}
	for (size_t i = first; i < first + done; i++) {
		if (!region_check_page(r, i, to + (i - first) * PAGE, "contents"))
			break;
		region_zero(r, i, 1);
	}
	munmap(to, n * PAGE);
	region_check(r, first, n, "contents");
	return ret;
}

/* A thread that waits in its page faults until the thread of the call resolves them. */
struct toucher {
	char *addr;
	size_t n;
	uint32_t stamp;			/* of the first page that it writes; 0: it reads */
	atomic_bool done;
};

static void *uffd_touch(void *arg)
{
	struct toucher *t = arg;

	for (size_t i = 0; i < t->n; i++) {
		if (t->stamp)
			page_fill(t->addr + i * PAGE, t->stamp + i);
		else
			(void)*(volatile char *)(t->addr + i * PAGE);
	}
	atomic_store(&t->done, true);
	return NULL;
}

/* Resolve a fault: let the page be written, or give it the contents of @source. */
static int uffd_resolve(struct worker *w, struct region *r, size_t page, int fd, uint64_t mode, char *source)
{
	struct uffdio_writeprotect wp = { .range = { (uintptr_t)region_at(r, page), PAGE } };
	struct uffdio_copy copy = { .dst = wp.range.start, .src = (uintptr_t)source, .len = PAGE };
	struct uffdio_move move = { .dst = wp.range.start, .src = (uintptr_t)source, .len = PAGE };

	if (mode == UFFDIO_REGISTER_MODE_WP) {
		/* The thread that writes waits: nothing is written yet. */
		region_check_page(r, page, region_at(r, page), "contents");
		return ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	}
	page_fill(source, ++w->next_stamp);
	if (page % 2 ? ioctl(fd, UFFDIO_COPY, &copy) : ioctl(fd, UFFDIO_MOVE, &move))
		return -1;
	r->page[page].stamp = w->next_stamp;
	r->page[page].state &= ~UNREAD;
	return 0;
}

/* Pages that a second thread waits for: missing ones are copied or moved there. */
static int call_uffd_wait(struct worker *w, struct region *r, size_t first, size_t n)
{
	uint64_t mode = rng_chance(&w->rng, 40) ? UFFDIO_REGISTER_MODE_WP : UFFDIO_REGISTER_MODE_MISSING;
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	struct toucher toucher = { .addr = region_at(r, first) };
	unsigned int failures = 0;
	pthread_t thread;
	char *source;
	int fd;

	if (!is_anon(r) || unwritable(r, first, n) || region_any(r, first, n, LOCKED) || r->sealed)
		return NOT_HERE;
	n = toucher.n = n < 16 ? n : 16;
	source = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (source == MAP_FAILED)
		return -errno;
	fd = uffd_open(r, first, n, UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MOVE, mode);
	if (fd < 0) {
		munmap(source, PAGE);
		return fd;
	}
	region_zap_marked(r, first, n);	/* by registration */
	if (mode == UFFDIO_REGISTER_MODE_WP) {
		toucher.stamp = w->next_stamp + 1;
		w->next_stamp += n;
		wp.range = (struct uffdio_range){ (uintptr_t)toucher.addr, n * PAGE };
		ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
	} else if (madvise(toucher.addr, n * PAGE, MADV_DONTNEED)) {
		half_zeroed(r, first, n);
	} else {
		region_zero(r, first, n);
	}
	if (pthread_create(&thread, NULL, uffd_touch, &toucher)) {
		close(fd);
		munmap(source, PAGE);
		return -EAGAIN;
	}
	while (!atomic_load(&toucher.done) && failures < 100 && !over()) {
		struct pollfd ready = { .fd = fd, .events = POLLIN };
		struct uffdio_range range = { .len = PAGE };
		struct uffd_msg msg;

		if (poll(&ready, 1, 10) < 1 || read(fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		if (rng_chance(&w->rng, 20))
			usleep(rng_below(&w->rng, 20000));
		range.start = msg.arg.pagefault.address & -PAGE;
		if (uffd_resolve(w, r, (range.start - (uintptr_t)r->addr) / PAGE, fd, mode, source)) {
			failures++;
			ioctl(fd, UFFDIO_WAKE, &range);	/* it faults again */
		}
	}
	close(fd);	/* the rest of the faults get zeroes */
	pthread_join(thread, NULL);
	munmap(source, PAGE);
	for (size_t i = 0; toucher.stamp && i < n; i++) {
		r->page[first + i].stamp = toucher.stamp + i;
		r->page[first + i].state &= ~(MAY_ZERO | UNREAD | UNKNOWN | GONE);
	}
	region_check(r, first, n, "contents");
	return failures ? -EAGAIN : 0;
}

/* The kernel copies the pages: the copy has the same contents. */
static void check_copy(struct region *r, size_t first, size_t n, const char *copy)
{
	for (size_t i = first; i < first + n; i++)
		if (!region_check_page(r, i, copy + (i - first) * PAGE, "contents"))
			return;
}

static int call_vm_readv(struct worker *w, struct region *r, size_t first, size_t n)
{
	static _Thread_local char copy[SLOT_PAGES * PAGE] __attribute__((aligned(4096)));
	struct iovec local = { copy, 0 }, remote = { region_at(r, first), 0 };
	ssize_t got;

	(void)w;
	if (unreadable(r, first, n) || region_any(r, first, n, MAY_ZERO | MARKED))
		return NOT_HERE;	/* a torn copy cannot be read again */
	n = n < SLOT_PAGES ? n : SLOT_PAGES;
	local.iov_len = remote.iov_len = n * PAGE;
	got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	if (got < 0)
		return result(r, first, n, "process_vm_readv", -1, E_TRANSIENT | E(EFAULT));
	check_copy(r, first, got / PAGE, copy);
	return 0;
}

static int call_vmsplice(struct worker *w, struct region *r, size_t first, size_t n)
{
	static _Thread_local char copy[4 * PAGE];
	struct iovec part = { region_at(r, first), 0 };
	uint32_t stamps[4];
	int ends[2], ret = 0;
	ssize_t got;

	if (unreadable(r, first, n) || region_any(r, first, n, MAY_ZERO | MARKED | UNKNOWN) || pipe(ends))
		return NOT_HERE;
	n = n < 4 ? n : 4;
	region_check(r, first, n, "contents");
	for (size_t i = 0; i < n; i++)
		stamps[i] = r->page[first + i].stamp;
	part.iov_len = n * PAGE;
	got = vmsplice(ends[1], &part, 1, SPLICE_F_NONBLOCK);
	if (got < 0) {
		ret = result(r, first, n, "vmsplice", -1, E_TRANSIENT | E(EFAULT));
	} else {
		/* The pin lasts for a moment; the pipe keeps the contents. */
		usleep(rng_below(&w->rng, 5000));
		if (program.series && is_anon(r) && rng_chance(&w->rng, 50))
			free_and_reuse(w, r, first, n);
		for (ssize_t at = 0; at < got; ) {
			ssize_t more = read(ends[0], copy + at, got - at);

			if (more <= 0)
				break;
			at += more;
		}
		for (ssize_t i = 0; i < got / (ssize_t)PAGE; i++)
			if (!page_is(copy + i * PAGE, stamps[i]))
				violation("contents", "the pipe has changed page %zu of region %u", first + i,
					  region_number(r));
	}
	close(ends[0]);
	close(ends[1]);
	return ret;
}

/* Write the pages to a file past the page cache, and read others back from it. */
static int call_direct_io(struct worker *w, struct region *r, size_t first, size_t n)
{
	char *dir = getenv("SOAK_DIR") ?: "/tmp";
	int fd = open(dir, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	static _Thread_local char copy[16 * PAGE] __attribute__((aligned(4096)));
	ssize_t got;
	int ret = 0;

	n = n < 16 ? n : 16;
	if (fd < 0)
		return NOT_HERE;
	if (unwritable(r, first, n) || region_any(r, first, n, MAY_ZERO | MARKED)) {
		close(fd);
		return NOT_HERE;
	}
	got = pwrite(fd, region_at(r, first), n * PAGE, 0);
	if (got < 0) {
		ret = result(r, first, n, "write", -1, E_TRANSIENT | E(EFAULT) | E(EINVAL) | E(ENOSPC) | E(EIO));
	} else if (pread(fd, copy, got, 0) == got) {
		check_copy(r, first, got / PAGE, copy);
		/* And into the pages. */
		for (ssize_t i = 0; i < got / (ssize_t)PAGE; i++)
			page_fill(copy + i * PAGE, ++w->next_stamp);
		if (pwrite(fd, copy, got, 0) == got) {
			ssize_t back = pread(fd, region_at(r, first), got, 0);
			uint32_t stamp = w->next_stamp - got / PAGE;

			for (ssize_t i = 0; i < got / (ssize_t)PAGE; i++) {
				struct page *p = &r->page[first + i];

				stamp++;
				if (back == got) {
					p->stamp = stamp;
					p->state &= ~(UNREAD | UNKNOWN);
				} else {
					p->state |= UNKNOWN;
				}
			}
		}
	}
	close(fd);
	region_check(r, first, n, "contents");
	return ret;
}

static unsigned long random_nodes(struct worker *w)
{
	return 1 + rng_below(&w->rng, (1UL << worker_nodes()) - 1);
}

static int call_mbind(struct worker *w, struct region *r, size_t first, size_t n)
{
	unsigned long nodes = random_nodes(w), epoch = policy_epoch();
	unsigned int flags = rng_chance(&w->rng, 50) ? MPOL_MF_MOVE | MPOL_MF_STRICT : 0;
	static const int modes[] = { MPOL_DEFAULT, MPOL_BIND, MPOL_BIND, MPOL_PREFERRED, MPOL_INTERLEAVE };
	int mode = modes[rng_below(&w->rng, ARRAY_SIZE(modes))], ret;

	r->nodes = 0;
	ret = result(r, first, n, "mbind",
		     syscall(SYS_mbind, region_at(r, first), n * PAGE, mode,
			     mode == MPOL_DEFAULT ? NULL : &nodes, mode == MPOL_DEFAULT ? 0UL : 64UL, flags),
		     E_TRANSIENT | E(EIO) | E(EFAULT) | E(EINVAL));
	if (!ret && mode == MPOL_BIND && n == r->pages && flags && is_anon(r)) {
		r->nodes = nodes;
		r->epoch = epoch;
	}
	return ret;
}

/* No page is on a node that the policy forbids. */
static int call_nodes(struct worker *w, struct region *r, size_t first, size_t n)
{
	static _Thread_local void *addr[MAX_PAGES];
	static _Thread_local int status[MAX_PAGES];

	(void)w;
	if (!r->nodes || r->merged || r->huge || r->touched_policy)
		return NOT_HERE;
	for (size_t i = 0; i < n; i++)
		addr[i] = region_at(r, first + i);
	if (syscall(SYS_move_pages, 0, n, addr, NULL, status, 0))
		return -errno;
	if (r->epoch != policy_epoch() || !r->epoch)
		return 0;
	for (size_t i = 0; i < n; i++)
		if (status[i] >= 0 && !(r->nodes >> status[i] & 1))
			violation("policy", "page %zu of region %u is on node %d, its policy allows %#lx",
				  first + i, region_number(r), status[i], r->nodes);
	return 0;
}

static int call_move_pages(struct worker *w, struct region *r, size_t first, size_t n)
{
	static _Thread_local void *addr[MAX_PAGES];
	static _Thread_local int node[MAX_PAGES], status[MAX_PAGES];

	for (size_t i = 0; i < n; i++) {
		addr[i] = region_at(r, first + i);
		node[i] = rng_below(&w->rng, worker_nodes());
	}
	r->touched_policy = true;
	return result(r, first, n, "move_pages",
		      syscall(SYS_move_pages, 0, n, addr, node, status, MPOL_MF_MOVE),
		      E_TRANSIENT | E(ENOENT) | E(EACCES) | E(ENODEV) | E(EIO) | E(EFAULT));
}

static int call_migrate_pages(struct worker *w, struct region *r, size_t first, size_t n)
{
	unsigned long from = random_nodes(w), to = random_nodes(w);

	for (unsigned int i = 0; i < MAX_REGIONS; i++)
		regions[i].touched_policy = true;
	return result(r, first, n, "migrate_pages", syscall(SYS_migrate_pages, 0, 64UL, &from, &to),
		      E_TRANSIENT | E(EPERM) | E(EINVAL) | E(EIO));
}

static int call_set_mempolicy(struct worker *w, struct region *r, size_t first, size_t n)
{
	static const int modes[] = { MPOL_DEFAULT, MPOL_DEFAULT, MPOL_BIND, MPOL_PREFERRED, MPOL_INTERLEAVE };
	int mode = modes[rng_below(&w->rng, ARRAY_SIZE(modes))];
	unsigned long nodes = random_nodes(w);

	return result(r, first, n, "set_mempolicy",
		      syscall(SYS_set_mempolicy, mode, mode == MPOL_DEFAULT ? NULL : &nodes,
			      mode == MPOL_DEFAULT ? 0UL : 64UL), E_TRANSIENT | E(EINVAL));
}

/*
 * Check what pagemap shows: a marked page is not @there, so that its contents are
 * not saved, and other contents are. A page that still has its old contents now
 * was marked when pagemap was read; at the limit of ranges, others may not be.
 */
static void check_pagemap(const struct region *r, size_t page, bool there)
{
	const struct page *p = &r->page[page];

	if (!is_anon(r) || !p->stamp || p->state & (NO_ACCESS | GUARD | STORED | UNKNOWN | UNREAD))
		return;
	if (p->state & MARKED ? !there || !page_is(region_at(r, page), p->stamp) :
				there || p->state & MAY_ZERO)
		return;
	violation("result", "pagemap shows page %zu of region %u, state %#x, as %spresent",
		  page, region_number(r), p->state, there ? "" : "not ");
}

static int call_pagemap(struct worker *w, struct region *r, size_t first, size_t n)
{
	static _Thread_local uint64_t entries[MAX_PAGES];
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	(void)w;
	if (fd < 0)
		return -errno;
	got = pread(fd, entries, n * sizeof(entries[0]), (uintptr_t)region_at(r, first) / PAGE * sizeof(entries[0]));
	if (got != (ssize_t)(n * sizeof(entries[0])))
		result(r, first, n, "pagemap", got < 0 ? -1 : 0, E_TRANSIENT);
	close(fd);
	/* Present or swapped */
	for (ssize_t i = 0; program.series && i < got / (ssize_t)sizeof(entries[0]); i++)
		check_pagemap(r, first + i, entries[i] >> 62);
	return 0;
}

#ifndef PAGEMAP_SCAN
struct page_region {
	uint64_t start, end, categories;
};
struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN	_IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_PRESENT	(1 << 3)
#define PAGE_IS_SWAPPED	(1 << 4)
#endif

static int call_pagemap_scan(struct worker *w, struct region *r, size_t first, size_t n)
{
	struct page_region found[32];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)region_at(r, first),
		.end = (uintptr_t)region_at(r, first + n),
		.vec = (uintptr_t)found,
		.vec_len = ARRAY_SIZE(found),
		.category_anyof_mask = 0x3f,
		.return_mask = 0x3f,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), regions, ret, at = 0;

	(void)w;
	if (fd < 0)
		return -errno;
	regions = ioctl(fd, PAGEMAP_SCAN, &arg);
	ret = result(r, first, n, "PAGEMAP_SCAN", regions, E_TRANSIENT);
	close(fd);
	for (size_t i = first; program.series && !ret && i < first + n; i++) {
		uintptr_t addr = (uintptr_t)region_at(r, i);

		if (addr >= arg.walk_end)
			break;
		while (at < regions && found[at].end <= addr)
			at++;
		check_pagemap(r, i, at < regions && found[at].start <= addr &&
			      found[at].categories & (PAGE_IS_PRESENT | PAGE_IS_SWAPPED));
	}
	return ret;
}

static int call_clear_refs(struct worker *w, struct region *r, size_t first, size_t n)
{
	char what[2] = { '1' + rng_below(&w->rng, 4), 0 };

	(void)first;
	(void)n;
	(void)r;
	return put("/proc/self/clear_refs", what);
}

/*
 * Memory that was marked, and can be read but not written, keeps its contents. Its
 * range touches no other one, so that no call on other pages can cut it.
 */
static int call_constant(struct worker *w, struct region *r, size_t first, size_t n)
{
	unsigned int was[SLOT_PAGES];
	int ret;

	n = n < SLOT_PAGES ? n : SLOT_PAGES;
	if (n < 3 || !is_anon(r) || r->sealed || r->half || unwritable(r, first, n) ||
	    region_any(r, first, n, LOCKED))
		return NOT_HERE;
	ret = call_advice(w, r, first, n, "unsplittable");
	region_write(w, r, first, n);
	if (!ret)
		ret = call_advice(w, r, first + 1, n - 2, "splittable");
	if (!ret)
		ret = protect(r, first, n, PROT_READ, READ_ONLY);
	if (ret)
		return ret;
	region_check(r, first, n, "contents");
	for (size_t i = 0; i < n; i++)
		was[i] = r->page[first + i].state;
	usleep(rng_below(&w->rng, 50000));
	region_check(r, first, n, "contents");
	for (size_t i = 0; i < n; i++)
		if (r->page[first + i].state != was[i])
			violation("contents", "page %zu of region %u, which is read-only, has become zero",
				  first + i, region_number(r));
	return protect(r, first, n, PROT_READ | PROT_WRITE, 0);
}

static void set_debug(unsigned long mode)
{
	if (prctl(SOAK_SET_DEBUG, mode, 0, 0, 0))
		violation("result", "prctl() of mode %lu: %s", mode, strerror(errno));
	debug_mode = mode;
}

/* For a while, all that is freed is zapped, or cannot be accessed. */
static int call_debug(struct worker *w, struct region *r, size_t first, size_t n)
{
	static const char * const reuse[] = { "unsplittable", "free_undo", NULL };
	const char *name = reuse[rng_below(&w->rng, ARRAY_SIZE(reuse))];
	int ret;

	if (pthread_rwlock_trywrlock(&debug_lock))
		return NOT_HERE;
	set_debug(rng_chance(&w->rng, 50) ? DEBUG_ZAP : DEBUG_GUARD);
	if (!prctl(SOAK_SET_DEBUG, DEBUG_GUARD + 1, 0, 0, 0) || errno != EINVAL ||
	    !prctl(SOAK_SET_DEBUG, DEBUG_OFF, 1, 0, 0) || errno != EINVAL)
		violation("result", "prctl() takes an unknown mode or a third argument");
	ret = advise_and_model(w, r, first, n, find_advice("splittable"));
	region_check(r, first, n, "contents");
	if (name)
		advise_and_model(w, r, first, n, find_advice(name));
	region_check(r, first, n, "contents");
	set_debug(DEBUG_OFF);
	pthread_rwlock_unlock(&debug_lock);
	return ret;
}

/*
 * A mapping without a reservation, of up to a terabyte, gets advice; few of its
 * pages are ever touched.
 */
static int call_sparse(struct worker *w, struct region *r, size_t first, size_t n)
{
	static const int advice[] = {
		MADV_FREE, MADV_DONTNEED, MADV_COLD, MADV_HUGEPAGE,
		SOAK_SPLITTABLE, SOAK_SPLITTABLE, SOAK_FREE_UNDO, SOAK_UNSPLITTABLE,
	};
	bool marks = program.series && !pthread_rwlock_tryrdlock(&debug_lock);
	size_t size = HUGE << rng_below(&w->rng, 20), part = size / 16;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)first;
	(void)n;
	(void)r;
	if (p == MAP_FAILED) {
		if (marks)
			pthread_rwlock_unlock(&debug_lock);
		return -errno;
	}
	for (int i = 0; i < 8; i++) {
		size_t from = rng_below(&w->rng, 16), parts = 1 + rng_below(&w->rng, 16 - from);

		if (rng_chance(&w->rng, 50))
			page_fill(p + from * part, 1);
		madvise(p + from * part, parts * part,
			advice[rng_below(&w->rng, marks ? ARRAY_SIZE(advice) : 4)]);
	}
	if (marks)
		pthread_rwlock_unlock(&debug_lock);
	/* For long enough that the counters are read while it is there. */
	for (double until = now() + rng_below(&w->rng, 6); now() < until && !over(); )
		usleep(100000);
	munmap(p, size);
	return 0;
}

/* Enough memory for several workers to unmap. */
static int call_large(struct worker *w, struct region *r, size_t first, size_t n)
{
	size_t size = (16 + rng_below(&w->rng, 80)) * MIB;
	char *p;

	(void)first;
	(void)n;
	(void)r;
	if (get_key("/proc/meminfo", "MemAvailable") < (long)(size >> 10) * 3)
		return NOT_HERE;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	if (rng_chance(&w->rng, 60))
		madvise(p, size, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < size && !over(); i += PAGE)
		*(volatile char *)(p + i) = 1;
	if (rng_chance(&w->rng, 30)) {
		madvise(p, size, MADV_DONTNEED);
		for (size_t i = 0; i < size; i += 61 * PAGE)
			if (*(volatile char *)(p + i))
				violation("contents", "MADV_DONTNEED left page %zu of %zu", i / PAGE, size / PAGE);
	} else if (rng_chance(&w->rng, 30)) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
	munmap(p, size);
	return 0;
}

/* All swapped pages come back, those of the other processes, too. */
static int call_swapoff(struct worker *w, struct region *r, size_t first, size_t n)
{
	int ret;

	if (!exists(SWAP_DEVICE) || !swap_fits())
		return NOT_HERE;
	/* They come to any node. */
	atomic_fetch_add(&shared->moving, 1);
	atomic_fetch_add(&shared->policy_epoch, 1);
	/* EINVAL: another process has switched it off, or the guest has none. */
	ret = result(r, first, n, "swapoff", swapoff(SWAP_DEVICE), E_TRANSIENT | E(EINVAL));
	usleep(rng_below(&w->rng, 500000));
	result(r, first, n, "swapon", swapon(SWAP_DEVICE, 0), E_TRANSIENT | E(EINVAL));
	atomic_fetch_sub(&shared->moving, 1);
	region_check(r, first, n, "contents");
	return ret;
}

static int call_affinity(struct worker *w, struct region *r, size_t first, size_t n)
{
	cpu_set_t set;

	(void)first;
	(void)n;
	(void)r;
	CPU_ZERO(&set);
	for (unsigned int cpu = 0; cpu < worker_cpus(); cpu++)
		if (rng_chance(&w->rng, 60))
			CPU_SET(cpu, &set);
	/* EINVAL if the CPUs are offline, or not in the cpuset. */
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

static int call_nice(struct worker *w, struct region *r, size_t first, size_t n)
{
	static const int policies[] = { SCHED_OTHER, SCHED_OTHER, SCHED_BATCH, SCHED_IDLE };
	struct sched_param zero = { 0 };

	(void)first;
	(void)n;
	(void)r;
	if (atomic_load(&shared->threads[w->number].realtime))
		return NOT_HERE;
	sched_setscheduler(0, policies[rng_below(&w->rng, ARRAY_SIZE(policies))], &zero);
	return setpriority(PRIO_PROCESS, 0, (int)rng_below(&w->rng, 30) - 10) ? -errno : 0;
}

/* A real-time task keeps its CPU for a moment. CPU 0 is left to the others. */
static int call_fifo(struct worker *w, struct region *r, size_t first, size_t n)
{
	struct sched_param high = { .sched_priority = 1 + rng_below(&w->rng, 50) }, zero = { 0 };
	double until = now() + rng_below(&w->rng, 200) / 1000.0, begin;
	cpu_set_t set, old;

	(void)first;
	(void)n;
	(void)r;
	if (worker_cpus() < 2 || sched_getaffinity(0, sizeof(old), &old))
		return NOT_HERE;
	CPU_ZERO(&set);
	CPU_SET(1 + rng_below(&w->rng, worker_cpus() - 1), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return -errno;
	atomic_store(&shared->threads[w->number].realtime, true);
	begin = now();
	if (!sched_setscheduler(0, SCHED_FIFO, &high))
		while (now() < until && !over())
			;
	sched_setscheduler(0, SCHED_OTHER, &zero);
	atomic_fetch_add(&shared->realtime_us, (now() - begin) * 1e6);
	atomic_store(&shared->threads[w->number].realtime, false);
	sched_setaffinity(0, sizeof(old), &old);
	return 0;
}

static int call_group(struct worker *w, struct region *r, size_t first, size_t n)
{
	(void)first;
	(void)n;
	(void)r;
	/* A quota or a cpuset may keep its memory from the canary. */
	atomic_store(&shared->canaries[w->process].watched, false);
	groups_move(&w->rng, 0);
	return 0;
}

/* The process ends, with all that it has; another one starts in its place. */
static int call_exit(struct worker *w, struct region *r, size_t first, size_t n)
{
	(void)w;
	(void)first;
	(void)n;
	(void)r;
	_exit(0);
}

const struct call calls[] = {
	{ "read", 60, false, false, NULL, call_read },
	{ "write", 80, false, false, NULL, call_write },
	{ "free", 30, false, false, "lazyfree", call_free },
	{ "dontneed", 15, false, false, "parallel-zap", call_dontneed },
	{ "dontneed_locked", 3, false, false, NULL, call_dontneed_locked },
	{ "willneed", 3, false, false, NULL, call_willneed },
	{ "normal", 1, false, false, NULL, call_normal },
	{ "random", 1, false, false, NULL, call_random },
	{ "sequential", 1, false, false, NULL, call_sequential },
	{ "remove", 4, false, false, NULL, call_remove },
	{ "dontfork", 1, false, false, NULL, call_dontfork },
	{ "dofork", 1, false, false, NULL, call_dofork },
	{ "wipeonfork", 1, false, false, NULL, call_wipeonfork },
	{ "keeponfork", 1, false, false, NULL, call_keeponfork },
	{ "dontdump", 1, false, false, NULL, call_dontdump },
	{ "dodump", 1, false, false, NULL, call_dodump },
	{ "mergeable", 8, false, false, "lazyfree", call_mergeable },
	{ "unmergeable", 2, false, false, NULL, call_unmergeable },
	{ "hugepage", 10, false, false, "lazyfree knuma", call_hugepage },
	{ "nohugepage", 4, false, false, NULL, call_nohugepage },
	{ "cold", 5, false, false, NULL, call_cold },
	{ "pageout", 8, false, false, "lazyfree", call_pageout },
	{ "populate_read", 4, false, false, NULL, call_populate_read },
	{ "populate_write", 4, false, false, NULL, call_populate_write },
	{ "collapse", 8, false, false, "lazyfree", call_collapse },
	{ "guard_install", 4, false, false, NULL, call_guard_install },
	{ "guard_remove", 8, false, false, NULL, call_guard_remove },
	{ "free_undo", 30, false, true, "lazyfree", call_free_undo },
	{ "splittable", 30, false, true, "lazyfree", call_splittable },
	{ "unsplittable", 20, false, true, "lazyfree", call_unsplittable },
	{ "constant", 6, false, true, "lazyfree", call_constant },
	{ "debug", 2, false, true, "lazyfree", call_debug },
	{ "mprotect", 12, false, false, NULL, call_mprotect },
	{ "mlock", 4, false, false, "percpu-drain", call_mlock },
	{ "munlock", 6, false, false, "percpu-drain", call_munlock },
	{ "mremap_move", 4, true, false, NULL, call_mremap_move },
	{ "mremap_dontunmap", 3, true, false, NULL, call_mremap_dontunmap },
	{ "mremap_resize", 3, true, false, NULL, call_mremap_resize },
	{ "map_fixed", 6, false, false, "parallel-zap", call_map_fixed },
	{ "remap", 8, true, false, "parallel-zap", call_remap },
	{ "mseal", 8, true, false, "lazyfree", call_mseal },
	{ "fork", 8, true, false, "parallel-zap", call_fork },
	{ "uffd_copy", 4, false, false, NULL, call_uffd_copy },
	{ "uffd_wp", 3, false, false, NULL, call_uffd_wp },
	{ "uffd_move", 3, false, false, NULL, call_uffd_move },
	{ "uffd_wait", 4, false, false, NULL, call_uffd_wait },
	{ "vm_readv", 5, false, false, NULL, call_vm_readv },
	{ "vmsplice", 4, false, false, NULL, call_vmsplice },
	{ "direct_io", 4, false, false, NULL, call_direct_io },
	{ "mbind", 10, false, false, "knuma", call_mbind },
	{ "nodes", 10, true, false, "knuma", call_nodes },
	{ "move_pages", 4, false, false, "knuma", call_move_pages },
	{ "migrate_pages", 1, false, false, "knuma", call_migrate_pages },
	{ "set_mempolicy", 3, false, false, "knuma", call_set_mempolicy },
	{ "pagemap", 3, false, false, "lazyfree", call_pagemap },
	{ "pagemap_scan", 3, false, false, "lazyfree", call_pagemap_scan },
	{ "clear_refs", 1, false, false, NULL, call_clear_refs },
	{ "sparse", 3, false, false, "lazyfree", call_sparse },
	{ "large", 1, false, false, "parallel-zap vmalloc-purge", call_large },
	{ "swapoff", 1, false, false, "lazyfree", call_swapoff },
	{ "affinity", 2, false, false, "parallel-zap", call_affinity },
	{ "nice", 2, false, false, "parallel-zap", call_nice },
	{ "fifo", 1, false, false, "percpu-drain", call_fifo },
	{ "group", 1, false, false, "parallel-zap", call_group },
	{ "exit", 1, true, false, "parallel-zap", call_exit },
};

const unsigned int nr_calls = ARRAY_SIZE(calls);
