#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
set -u
. /payload/guest.sh
prepare
hold 1000000
