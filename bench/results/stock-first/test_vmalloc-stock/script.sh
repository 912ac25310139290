#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
set -u
. /payload/guest.sh
prepare
flushing test_vmalloc 1 1 100000
test_vmalloc 2 1 20000
test_vmalloc 4 1 10000
test_vmalloc 8 1 40000
test_vmalloc 127 1 5000
test_vmalloc 128 1 1
test_vmalloc 1024 1 200000
