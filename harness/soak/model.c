// SPDX-License-Identifier: GPL-2.0
/* Regions of memory, and which contents each page of them may have. */
#include "worker.h"

#include <sys/mman.h>

#define WORDS		8			/* of a page that carry its stamp */
#define STRIDE		(PAGE / WORDS / sizeof(uint64_t))
#define PATIENCE	50			/* rounds in which a page may change from old to zero */

struct region regions[MAX_REGIONS];

unsigned int region_number(const struct region *r)
{
	return r - regions;
}

bool region_is_hugetlb(const struct region *r)
{
	return r->kind >= HUGETLB;
}

static uint64_t page_word(uint32_t stamp, unsigned int word)
{
	return stamp ? ((uint64_t)stamp << 32) + 0x50a0 + word : 0;
}

void page_fill(char *addr, uint32_t stamp)
{
	volatile uint64_t *p = (volatile uint64_t *)addr;

	for (unsigned int i = 0; i < WORDS; i++)
		p[i * STRIDE] = page_word(stamp, i);
}

/* The number of words of a page that belong to @stamp. */
static unsigned int page_words(const char *addr, uint32_t stamp, uint64_t *odd)
{
	const volatile uint64_t *p = (const volatile uint64_t *)addr;
	unsigned int n = 0;

	for (unsigned int i = 0; i < WORDS; i++) {
		uint64_t value = p[i * STRIDE];

		if (value == page_word(stamp, i))
			n++;
		else
			*odd = value;
	}
	return n;
}

bool region_page_is(const struct region *r, size_t page, unsigned int state)
{
	return r->page[page].state & state;
}

bool region_any(const struct region *r, size_t first, size_t n, unsigned int state)
{
	for (size_t i = first; i < first + n; i++)
		if (r->page[i].state & state)
			return true;
	return false;
}

bool page_is(const char *addr, uint32_t stamp)
{
	uint64_t odd;

	return page_words(addr, stamp, &odd) == WORDS;
}

/*
 * Check that the page at @addr, usually @page of @r, has contents that it may
 * have, and remember them. Returns false after a violation of @class.
 */
bool region_check_page(struct region *r, size_t page, const char *addr, const char *class)
{
	struct page *p = &r->page[page];
	bool zero_too = p->state & (MAY_ZERO | MARKED | UNREAD | GONE);
	bool old_too = !(p->state & GONE);
	uint64_t odd = 0;

	if (p->state & (NO_ACCESS | GUARD | UNKNOWN | STORED))
		return true;
	for (int i = 0; i < PATIENCE; i++) {
		if (old_too && page_words(addr, p->stamp, &odd) == WORDS) {
			p->state &= ~UNREAD;
			return true;
		}
		if (zero_too && page_words(addr, 0, &odd) == WORDS) {
			if (p->state & UNREAD) {
				p->stamp = 0;
				p->state &= ~(UNREAD | GONE);
			} else if (p->stamp) {
				p->state |= GONE;
			}
			return true;
		}
		/* Reclaim may have dropped the page between two words. */
		if (!zero_too)
			break;
		/* This CPU may have a stale TLB entry until reclaim flushes the TLBs. */
		if (!old_too)
			usleep(1000);
	}
	violation(class, "region %u (kind %d at %p) page %zu state %#x: expected %s%#x%s, found %#lx",
		  region_number(r), r->kind, (void *)r->addr, page, p->state,
		  old_too ? "stamp " : "zero, no longer stamp ", p->stamp,
		  old_too && zero_too ? " or zero" : "", (unsigned long)odd);
	return false;
}

void region_check(struct region *r, size_t first, size_t n, const char *class)
{
	for (size_t i = first; i < first + n; i++)
		if (!region_check_page(r, i, r->addr + i * PAGE, class))
			return;
}

/*
 * Marked memory among these pages is zapped and not marked any more. A page that
 * was written meanwhile may have kept the store: at the limit of ranges, another
 * call may have zapped and unmarked the page before.
 */
void region_zap_marked(struct region *r, size_t first, size_t n)
{
	for (size_t i = first; i < first + n; i++) {
		struct page *p = &r->page[i];

		if (!(p->state & MARKED))
			continue;
		if (p->state & STORED)
			p->state |= UNKNOWN;
		p->stamp = 0;
		p->state &= ~(MARKED | STORED | MAY_ZERO | UNREAD | GONE);
	}
}

/*
 * Nothing will discard pages of a @state any more, MAY_ZERO or MARKED. Each keeps
 * its contents, and the next read tells if these are old or zero.
 */
void region_keep(struct region *r, size_t first, size_t n, unsigned int state)
{
	for (size_t i = first; i < first + n; i++) {
		struct page *p = &r->page[i];

		if (!(p->state & state))
			continue;
		if (p->state & STORED)
			p->state |= UNKNOWN;
		if (p->state & GONE)
			p->stamp = 0;
		p->state = (p->state & ~(state | STORED | GONE)) | UNREAD;
	}
}

/* In a child of fork(): marked memory is zero, all else as in the parent. */
void region_check_child(struct region *r)
{
	region_zap_marked(r, 0, r->pages);
	region_check(r, 0, r->pages, "contents");
}

void region_write(struct worker *w, struct region *r, size_t first, size_t n)
{
	for (size_t i = first; i < first + n; i++) {
		struct page *p = &r->page[i];
		uint32_t stamp;

		if (p->state & (NO_ACCESS | GUARD | READ_ONLY))
			continue;
		stamp = ++w->next_stamp;
		page_fill(r->addr + i * PAGE, stamp);
		if (p->state & MARKED) {
			p->stored = stamp;
			p->state = (p->state & ~GONE) | STORED;
		} else {
			p->stamp = stamp;
			p->state &= ~(MAY_ZERO | UNREAD | STORED | UNKNOWN | GONE);
		}
	}
}

/* The pages are gone, and read zero when they come back. */
void region_zero(struct region *r, size_t first, size_t n)
{
	for (size_t i = first; i < first + n; i++) {
		r->page[i].stamp = 0;
		r->page[i].state &= ~(MAY_ZERO | UNREAD | UNKNOWN | STORED | GONE);
	}
}

static int region_open(enum region_kind kind, size_t size)
{
	char path[128];
	int fd;

	if (kind == MEMFD || kind == HUGETLB_MEMFD) {
		fd = memfd_create("soak", MFD_CLOEXEC | (kind == HUGETLB_MEMFD ? MFD_HUGETLB : 0));
	} else {
		snprintf(path, sizeof(path), "%s", getenv("SOAK_DIR") ?: "/tmp");
		fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	}
	if (fd >= 0 && ftruncate(fd, size)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Map a region of a random kind and size, aligned to huge pages. */
bool region_map(struct worker *w, struct region *r)
{
	static const enum region_kind kinds[] = {
		ANON, ANON, ANON, ANON, ANON, ANON, ANON, SHARED, MEMFD, FILE_SHARED, FILE_PRIVATE,
		HUGETLB, HUGETLB_SHARED, HUGETLB_MEMFD,
	};
	size_t pages = (1 + rng_below(&w->rng, MAX_PAGES / SLOT_PAGES)) * SLOT_PAGES;
	enum region_kind kind = kinds[rng_below(&w->rng, ARRAY_SIZE(kinds))];
	int flags = MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, fd = -1;
	bool huge = kind >= HUGETLB;
	char *area, *addr;
	size_t size;

	if (rng_chance(&w->rng, 50) || huge)
		pages = rng_chance(&w->rng, 50) ? HUGE / PAGE : 2 * HUGE / PAGE;
	size = pages * PAGE;
	flags |= kind == SHARED || kind == HUGETLB_SHARED ? MAP_SHARED : MAP_PRIVATE;
	if (huge)
		flags |= MAP_HUGETLB;
	/* A hugetlb mapping without a reservation may get a SIGBUS instead of a page. */
	if (rng_chance(&w->rng, 20) && !huge)
		flags |= MAP_NORESERVE;
	if (rng_chance(&w->rng, 20) && !huge)
		flags |= MAP_POPULATE;
	if (kind == MEMFD || kind == FILE_SHARED || kind == FILE_PRIVATE || kind == HUGETLB_MEMFD) {
		fd = region_open(kind, size);
		if (fd < 0)
			return false;
		flags = (flags & ~(MAP_ANONYMOUS | MAP_PRIVATE)) |
			(kind == FILE_PRIVATE ? MAP_PRIVATE : MAP_SHARED);
	}
	area = mmap(NULL, size + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (area == MAP_FAILED)
		goto close;
	addr = area + -(uintptr_t)area % HUGE;
	/* MAP_FIXED might fail and leave a hole, which is another thread's by the next call. */
	munmap(area, size + HUGE);
	if (mmap(addr, size, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED)
		goto close;
	r->kind = kind;
	r->addr = addr;
	r->pages = pages;
	r->fd = fd;
	r->sealed = r->half = r->touched_policy = r->merged = r->huge = r->wiped = false;
	r->nodes = 0;
	memset(r->page, 0, sizeof(r->page));
	return true;
close:
	if (fd >= 0)
		close(fd);
	return false;
}

void region_unmap(struct region *r)
{
	if (munmap(r->addr, r->pages * PAGE))
		violation("result", "munmap() of region %u: %s", region_number(r), strerror(errno));
	if (r->fd >= 0)
		close(r->fd);
	r->addr = NULL;
}
