# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: what counts is printed as "= name value"; all else is for the
# reader.

K=/sys/kernel/mm/lazyfree
THP=/sys/kernel/mm/transparent_hugepage
CG=/sys/fs/cgroup
LAZY=/payload/lazy

die() {
	echo "failed: $*"
	exit 1
}

knobs() {
	if [ -d $K ]; then
		echo "${MAX_RANGES:-4096}" >$K/max_ranges_per_mm || die "max_ranges_per_mm"
		echo "${POLICY:-fair}" >$K/policy || die "policy"
		grep . $K/*
	fi
	echo madvise >$THP/enabled
	echo 0 >$THP/khugepaged/pages_to_scan
	echo +memory >$CG/cgroup.subtree_control
}

lazy() { $LAZY "$@" || die "lazy $*"; }

# What is not to count: slab caches are filled, the emulator has translated the
# code.
warm() { lazy "$@" | sed 's/^=/ /'; }

stat_of() { awk -v name="$2" '$1 == name { print $2 }' "$CG/$1/memory.stat"; }

# The share of the marked memory that one write to memory.reclaim frees, of the
# amount that it asks for.
returned() {
	local mb=$1 pid before after
	mkdir "$CG/returned" || die "cgroup"
	bash -c "echo 0 >$CG/returned/cgroup.procs; exec $LAZY mark $mb" >/tmp/marked &
	pid=$!
	until grep -q marked /tmp/marked; do sleep 0.1; done
	# Reclaim skips ranges that are younger than min_age_ms.
	sleep 1.1
	before=$(stat_of returned anon)
	echo "$((mb / 2))M swappiness=0" >"$CG/returned/memory.reclaim" || true
	after=$(stat_of returned anon)
	echo "before: $before, after: $after"
	echo "= returned $(((before - after) * 200 / (mb * 1048576)))"
	kill $pid
	wait $pid
	rmdir "$CG/returned"
}

# An allocator's loop beside a reader of what does not fit into memory. There is
# no disk: a zram device full of zeroes has a page cache as any.
beside_a_reader() {
	local policy=$1 lru=$2 disk
	[ ! -d $K ] || echo "$policy" >$K/policy || die "policy"
	case $lru in
	mglru) echo y ;;
	classic) echo n ;;
	esac >/sys/kernel/mm/lru_gen/enabled || die "lru_gen"
	disk=$(cat /sys/class/zram-control/hot_add)
	echo 2G >"/sys/block/zram$disk/disksize" || die "zram$disk"
	mkdir "$CG/both" || die "cgroup"
	echo 192M >"$CG/both/memory.max"
	(
		echo 0 >"$CG/both/cgroup.procs"
		$LAZY stream "/dev/zram$disk" 6 &
		$LAZY free_loop 96 6
		wait
	) | sed "s/^= \([a-z_]*\)/= \1_${policy}_$lru/"
	rmdir "$CG/both"
}

# jemalloc with huge pages, by itself and with hooks; then a program that knows
# of nothing.
churn() {
	local how
	echo always >$THP/enabled
	for how in default hooks undo; do
		/payload/jemalloc churn "$how" 4 || die "churn $how"
	done
	for how in default hooks; do
		/payload/jemalloc huge "$how" || die "churn huge $how"
	done
	MALLOC_MMAP_THRESHOLD_=262144 /payload/blocks churn glibc 3 || die "churn glibc"
	LD_PRELOAD=/payload/shim /payload/blocks churn shim 3 || die "churn shim"
	LD_PRELOAD=/payload/libmimalloc.so.2 /payload/blocks churn mimalloc 3 ||
		die "churn mimalloc"
}
