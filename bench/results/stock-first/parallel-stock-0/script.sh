#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
set -u
. /payload/guest.sh
prepare
p() { "$@" | sed 's/^= /= p/'; return "${PIPESTATUS[0]}"; }
p peak 200000 || exit 1
p flushing test_vmalloc 1 2 50000 || exit 1
p test_vmalloc 2 2 20000 || exit 1
p test_vmalloc 4 2 5000 || exit 1
p test_vmalloc 8 2 10000 || exit 1
p test_vmalloc 127 2 2000 || exit 1
p test_vmalloc 128 2 1 || exit 1
p test_vmalloc 1024 2 100000 || exit 1
