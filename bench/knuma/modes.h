/* SPDX-License-Identifier: GPL-2.0 */
/* The modes of numa.c that are in other files. */
#ifndef KNUMA_MODES_H
#define KNUMA_MODES_H

#include <stddef.h>

/* loads.c */
void run_load(const char *name, size_t size, double time, const char *bind);

/* moves.c */
void moves(size_t size);
void shared(size_t size);

/* threads.c */
void alternate(size_t size, double time);
void everywhere(size_t size, double time);

/* mbind.c */
void mbind_other(size_t size, double rate);
void mbind_attack(size_t size);

/* ring.c */
void ring(size_t size);

#endif
