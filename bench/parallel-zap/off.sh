# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: as upstream behaves, for the column "disabled".
# shellcheck disable=SC2034 # guest.sh reads it
ENABLED=never
