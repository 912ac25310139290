// SPDX-License-Identifier: GPL-2.0
/*
 * The cost of a page copy by folio_mc_copy(), which page migration uses. Runs at
 * module load: copy_4k and copy_thp are ns for each 4 KiB, the median of several
 * rounds. All nodes are the same to the emulator, so both folios may be on one.
 */
#include <linux/gfp.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sort.h>

#define ROUNDS	65
#define COPIES	16	/* of a round: the clock costs little of it */

static ulong copy_4k, copy_thp;
module_param(copy_4k, ulong, 0444);
module_param(copy_thp, ulong, 0444);

static int pagecopy_cmp(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static u64 pagecopy_median(struct folio *to, struct folio *from)
{
	u64 took[ROUNDS], start;
	int i, k;

	for (i = 0; i < ROUNDS; i++) {
		start = ktime_get_ns();
		for (k = 0; k < COPIES; k++)
			folio_mc_copy(to, from);
		took[i] = ktime_get_ns() - start;
		cond_resched();
	}
	sort(took, ROUNDS, sizeof(*took), pagecopy_cmp, NULL);

	return took[ROUNDS / 2] / COPIES;
}

static int pagecopy_measure(unsigned int order, ulong *result)
{
	struct folio *from = folio_alloc(GFP_KERNEL | __GFP_COMP, order);
	struct folio *to = folio_alloc(GFP_KERNEL | __GFP_COMP, order);
	int err = -ENOMEM;

	if (from && to) {
		*result = pagecopy_median(to, from) >> order;
		err = 0;
	}
	if (from)
		folio_put(from);
	if (to)
		folio_put(to);

	return err;
}

static int __init pagecopy_init(void)
{
	return pagecopy_measure(0, &copy_4k) ?:
	       pagecopy_measure(HPAGE_PMD_ORDER, &copy_thp);
}
module_init(pagecopy_init);

static void __exit pagecopy_exit(void)
{
}
module_exit(pagecopy_exit);

MODULE_DESCRIPTION("Cost of a page copy");
MODULE_LICENSE("GPL");
