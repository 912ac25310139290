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

# A program that knows nothing of MADV_SPLITTABLE, with a shim that does.
shim() {
	echo always >$THP/enabled
	MALLOC_MMAP_THRESHOLD_=262144 /payload/blocks glibc 3 || die "glibc"
	LD_PRELOAD=/payload/shim /payload/blocks shim 3 || die "shim"
}

# allocators UNIT LOAD MIB ROUNDS IDLE_MS LIMIT... - Each allocator, unmodified and
# marking, under the load of allocs.c, with each memory.max. UNIT: cost is
# nanoseconds a MiB, rate is MiB a second.
allocators() {
	local unit=$1 load=$2 limit name how
	local arguments=("$3" "$4" "$5")
	echo always >$THP/enabled
	for limit in "${@:6}"; do
		for name in jemalloc mimalloc tcmalloc go; do
			for how in default marked; do
				allocator "$unit" "$load" $name $how "$limit" "${arguments[@]}"
			done
		done
	done
}

# One of them. Two processes take turns, in one cgroup.
allocator() {
	local unit=$1 load=$2 name=$3 how=$4 limit=$5 key=${1}_${2}_${3}_${4}_$5
	local cg=$CG/allocator program=/payload/$3 processes=1 i pids=() line=()
	local ns=0 bytes=0 freed=0 marked=0 reused=0 kept=0 huge=0 memory discardable=0 pid kb
	shift 5
	[ "$name" != go ] || program=/payload/go-$how
	[ "$load" != turns ] || processes=2
	mkdir "$cg" || die "cgroup"
	echo "$limit" >"$cg/memory.max" || die "memory.max"
	rm -f /tmp/turn[01] /tmp/done
	mkfifo /tmp/turn0 /tmp/turn1 /tmp/done
	exec 3<>/tmp/done
	for ((i = 0; i < processes; i++)); do
		# shellcheck disable=SC2016 # for the new shell
		bash -c 'echo 0 >"$1/cgroup.procs"; exec "${@:2}"' - "$cg" "$program" "$load" "$how" "$@" \
			0<>/tmp/turn$i 1<>/tmp/turn$((1 - i)) 2>&3 3>&- &
		pids+=($!)
	done
	echo >/tmp/turn0 &
	for ((i = 0; i < processes; i++)); do
		read -r -t 300 -u 3 -a line
		echo "$key: ${line[*]:-no answer}"
		[ "${line[0]:-}" = "done" ] || break
		((ns += line[1], bytes += line[2], freed += line[3], marked += line[4],
		  reused += line[5], kept += line[6], huge = line[7]))
	done
	# In bytes, without the pages that are marked: memory.stat has an upper bound of these.
	for pid in "${pids[@]}"; do
		kb=$(awk '/^Splittable:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null)
		((discardable += ${kb:-0} * 1024))
	done
	memory=$(($(<"$cg/memory.current") + $(<"$cg/memory.swap.current") - discardable))
	cat "$cg/memory.peak" "$cg/memory.swap.peak" "$cg/memory.events"
	kill "${pids[@]}" 2>/dev/null
	wait "${pids[@]}" 2>/dev/null
	exec 3>&-
	rmdir "$cg"
	if [ "$i" != "$processes" ]; then
		echo "$key did not run to its end, and has no value"
		return
	fi
	case $unit in
	cost) echo "= $key $((ns * 1048576 / bytes))" ;;
	rate) echo "= $key $((bytes * 1000000 / (ns / 1000 + 1) / 1048576))" ;;
	esac
	echo "= mib_$key $((memory > 1048576 ? memory / 1048576 : 1))"
	[ "$load" != half ] || echo "= huge_$key $huge"
	# Without MADV_SPLITTABLE nothing is marked: it is no result of the feature.
	[ "$how" != marked ] || echo "= marked_$key $((freed ? marked * 100 / freed : 0))"
	[ "$how" != marked ] || echo "= kept_$key $((reused ? kept * 100 / reused : 0))"
}
