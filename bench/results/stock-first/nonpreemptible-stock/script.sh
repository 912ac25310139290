#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
set -u
. /payload/guest.sh
prepare
nonpreemptible 1
nonpreemptible 1000
nonpreemptible 10000
nonpreemptible 100000
