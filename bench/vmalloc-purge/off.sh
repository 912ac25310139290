# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: the knobs as upstream behaves, for the column "disabled".
for knob in purge_batch purge_slice_us throttle_percent lazy_max_areas lazy_max_kb; do
	echo 0 2>/dev/null >/sys/kernel/mm/vmalloc/$knob || {
		echo "failed: cannot write /sys/kernel/mm/vmalloc/$knob"
		exit 1
	}
done
