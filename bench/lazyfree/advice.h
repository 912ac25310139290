/* SPDX-License-Identifier: GPL-2.0 */
/* Advice that the C library's headers do not know yet. */
#ifndef ADVICE_H
#define ADVICE_H

#define MADV_FREE_UNDO_		26
#define MADV_SPLITTABLE_	27
#define MADV_UNSPLITTABLE_	28

#endif
