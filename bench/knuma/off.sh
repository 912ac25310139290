# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: pages move in the fault, for the column "disabled".
# shellcheck disable=SC2034 # guest.sh reads it
ENABLED=0
