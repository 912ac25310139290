/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How much of an address space MADV_SPLITTABLE has noted, for /proc.
 */
#ifndef _LINUX_SPLITTABLE_H
#define _LINUX_SPLITTABLE_H

struct mm_struct;

#ifdef CONFIG_MADV_SPLITTABLE
unsigned long splittable_pages(struct mm_struct *mm, unsigned long start,
			       unsigned long end);
unsigned long splittable_mm_pages(const struct mm_struct *mm);
#else
static inline unsigned long splittable_pages(struct mm_struct *mm,
					     unsigned long start,
					     unsigned long end)
{
	return 0;
}

static inline unsigned long splittable_mm_pages(const struct mm_struct *mm)
{
	return 0;
}
#endif

#endif /* _LINUX_SPLITTABLE_H */
