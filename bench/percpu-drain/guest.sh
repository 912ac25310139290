# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: count what reaches the isolated CPUs while others work. What
# counts is printed as "= name value"; all else is for the reader.

T=/sys/kernel/tracing/instances/drain
K=/sys/kernel/mm/percpu_drain
IDLE=6 SPINNING=7
LOADS=/payload/loads

die() {
	echo "failed: $*"
	exit 1
}

knobs() {
	if [ -d $K ]; then
		echo "${ISOLATED_CACHE:-0}" >$K/isolated_cache || die "isolated_cache"
		grep . $K/*
	fi
}

prepare() {
	local event
	[ "$(cat /sys/devices/system/cpu/isolated)" = $IDLE-$SPINNING ] || die "CPUs are not isolated"
	knobs
	mkdir $T || die "no trace instance"
	echo 16384 >$T/buffer_size_kb
	for event in csd/csd_queue_cpu workqueue/workqueue_queue_work; do
		echo "cpu==$IDLE || cpu==$SPINNING" >$T/events/$event/filter || die "filter of $event"
		echo 1 >$T/events/$event/enable
	done
	echo 0 >$T/tracing_on
	taskset -p 3f $$ >/dev/null
	disk=$(cat /sys/class/zram-control/hot_add)
	echo 16M >"/sys/block/zram$disk/disksize" || die "zram$disk"
	echo 0 >/tmp/filled
	$LOADS spin $SPINNING /tmp/filled &
	spinner=$!
	sleep 1
}

# Both CPUs use memory, as tasks do that start up.
fills=0
fill() {
	$LOADS fill $IDLE || die "fill"
	fills=$((fills + 1))
	kill -USR1 "$spinner"
	while [ "$(cat /tmp/filled)" != $fills ]; do usleep 10000; done
}

# Interrupts that this CPU took for function calls.
calls() { awk -v col=$(($1 + 2)) '$1 == "CAL:" { print $col }' /proc/interrupts; }

# watch NAME TIMES each|once COMMAND... - What reaches both CPUs while the
# command runs. They use memory before: each time; or once, and then the command
# has run once, too, and has had what they hold.
watch() {
	local name=$1 times=$2 when=$3 i cpu total mine
	local -A cal=()
	shift 3
	: >/tmp/trace
	fill
	[ "$when" = each ] || "$@" || die "$name: $*"
	for ((i = 0; i < times; i++)); do
		[ "$when" = once ] || fill
		: >$T/trace
		for cpu in $IDLE $SPINNING; do cal[$cpu]=$((${cal[$cpu]:-0} - $(calls "$cpu"))); done
		echo 1 >$T/tracing_on
		"$@" || die "$name: $*"
		echo 0 >$T/tracing_on
		for cpu in $IDLE $SPINNING; do cal[$cpu]=$((cal[$cpu] + $(calls "$cpu"))); done
		grep -v '^#' $T/trace >>/tmp/trace
	done
	echo "-- $name, $times times"
	for cpu in $IDLE $SPINNING; do
		total=$(grep -c -E "[: ]cpu=$cpu( |$)" /tmp/trace)
		mine=$(grep -E "[: ]cpu=$cpu( |$)" /tmp/trace | grep -c -E "$MINE")
		echo "CPU $cpu: by function"
		grep -E "[: ]cpu=$cpu( |$)" /tmp/trace | grep -oE '(func|function)=[^ ]*' | sort | uniq -c
		echo "= ${name}_total_$cpu $total"
		echo "= ${name}_mine_$cpu $mine"
		echo "= ${name}_cal_$cpu ${cal[$cpu]}"
	done
}

# What the topic's paths send: a page table sync, a flush of sheaves, of
# batches, of statistics.
MINE='tlb_remove_table_smp_sync|flush_rcu_sheaf|flush_cpu_sheaves|lru_add_drain_per_cpu'
MINE+='|refresh_vm_stats|sync_overcommit_as|invalidate_bh_lru'

write() { echo "$2" >"$1"; }
collapse() { $LOADS collapse; }
modules() { modprobe test_hmm && rmmod test_hmm; }
caches() { insmod /payload/slabload.ko caches=50 objects=100 && rmmod slabload; }
stat_refresh() { write /proc/sys/vm/stat_refresh 1; }
drop_caches() { write /proc/sys/vm/drop_caches 1; }
compact() { write /proc/sys/vm/compact_memory 1; }
fadvise() { $LOADS fadvise "/dev/zram$disk"; }
numa() { $LOADS move_pages && $LOADS mbind; }
reclaim() { write /sys/fs/cgroup/memory.reclaim 1M || true; }
overcommit() { write /proc/sys/vm/overcommit_memory 2; write /proc/sys/vm/overcommit_memory 0; }
shrink() { for f in /sys/kernel/slab/*/shrink; do [ ! -w "$f" ] || echo 1 >"$f"; done; }
seal() { $LOADS seal $IDLE; }
# With something to reclaim, so that it is tried before anybody is killed.
oom() { cat "/dev/zram$disk" >/dev/null && $LOADS oom; }

# The share of the CPUs that each path has left alone, by its counters.
shares() {
	awk '/_considered / { sub("_considered", "", $1); c[$1] = $2 }
	     /_reached / { sub("_reached", "", $1); r[$1] = $2 }
	     END { for (p in c) if (c[p] && p in r) printf "= avoided_%s %.2f\n", p, 100 * (1 - r[p] / c[p]) }' /proc/vmstat
}
