# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: the knobs as upstream behaves, for the column "disabled". What has
# no knob, as it costs nothing, stays.
# shellcheck disable=SC2034 # guest.sh reads it
ISOLATED_CACHE=1
echo 100 >/sys/kernel/mm/percpu_drain/filter_threshold_percent || {
	echo "failed: cannot write filter_threshold_percent"
	exit 1
}
