#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
set -u
. /payload/guest.sh
prepare
nonpreemptible 1000000
