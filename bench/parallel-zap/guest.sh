# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: what counts is printed as "= name value"; all else is for the
# reader.

K=/sys/kernel/mm/parallel_zap
THP=/sys/kernel/mm/transparent_hugepage
ZAP=/payload/zap

die() {
	echo "failed: $*"
	exit 1
}

knobs() {
	if [ -d $K ]; then
		echo "${ENABLED:-always}" >$K/enabled || die "enabled"
		grep . $K/*
	fi
	echo never >$THP/enabled
}

zap() { $ZAP "$@" || die "zap $*"; }

# What is not to count: slab caches and lists of free pages are filled, and the
# emulator has translated the code.
warm() { zap "$@" | sed 's/^=/ /'; }

vmstat() { awk -v name="$1" '$1 == name { n = $2 } END { print n + 0 }' /proc/vmstat; }

# helped NAME COMMAND... - and who did it
helped() {
	local name=$1 owner helper usecs
	shift
	owner=$(vmstat zap_chunk_owner) helper=$(vmstat zap_chunk_helper) usecs=$(vmstat zap_helper_usecs)
	"$@"
	owner=$(($(vmstat zap_chunk_owner) - owner)) helper=$(($(vmstat zap_chunk_helper) - helper))
	echo "chunks: owner $owner, helpers $helper, in $(($(vmstat zap_helper_usecs) - usecs)) us"
	[ $((owner + helper)) = 0 ] || echo "= share_$name $((100 * helper / (owner + helper)))"
}

# These take what is to run: warm, or zap.
huge() {
	echo always >$THP/enabled
	"$1" "$2" thp "$3"
	echo never >$THP/enabled
}

mthp() {
	echo always >$THP/hugepages-64kB/enabled || die "64 KiB folios"
	"$1" "$2" 64k "$3"
	echo never >$THP/hugepages-64kB/enabled
}

swapped() {
	local disk
	disk=$(cat /sys/class/zram-control/hot_add)
	echo $(($3 * 2))M >"/sys/block/zram$disk/disksize" || die "zram$disk"
	mkswap "/dev/zram$disk" >/dev/null && swapon "/dev/zram$disk" || die "swapon"
	"$1" "$2" swap "$3"
	swapoff "/dev/zram$disk"
}

# Interrupts that ask for a TLB flush, on all CPUs, for each GiB.
flushes() {
	local before
	tlb() { awk '$1 == "TLB:" || $1 == "CAL:" { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) n += $i } END { print n }' /proc/interrupts; }
	before=$(tlb)
	zap two "$1"
	echo "= flushes $(awk -v n=$(($(tlb) - before)) -v mb="$1" 'BEGIN { print n * 1024 / mb }')"
}
