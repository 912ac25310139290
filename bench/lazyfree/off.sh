# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Nothing is noted: MADV_SPLITTABLE is MADV_DONTNEED.
MAX_RANGES=0
