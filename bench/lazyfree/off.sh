# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Nothing is marked: MADV_SPLITTABLE zaps immediately, as MADV_DONTNEED does.
MAX_RANGES=0
