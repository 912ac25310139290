# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: what counts is printed as "= name value"; all else is for the
# reader.

K=/sys/kernel/mm/lazyfree
THP=/sys/kernel/mm/transparent_hugepage
CG=/sys/fs/cgroup
LAZY=/payload/lazy
holders=()

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
	echo 3600000 >$THP/khugepaged/scan_sleep_millisecs
	echo +memory >$CG/cgroup.subtree_control
}

lazy() { $LAZY "$@" || die "lazy $*"; }

# What is not to count: slab caches are filled, the emulator has translated the
# code.
warm() { lazy "$@" | sed 's/^=/ /'; }

stat_of() { awk -v name="$2" '$1 == name { print $2 }' "$CG/$1/memory.stat"; }
vmstat() { awk -v name="$1" '$1 == name { sum += $2 } END { print sum + 0 }' /proc/vmstat; }

lru() {
	case $1 in
	mglru) echo y ;;
	classic) echo n ;;
	esac >/sys/kernel/mm/lru_gen/enabled || die "lru_gen"
}

# hold GROUP ARGUMENT... - Start lazy in a cgroup, and wait until it is ready.
hold() {
	local out=/tmp/hold-$1
	mkdir -p "$CG/$1" || die "cgroup"
	: >"$out"
	# shellcheck disable=SC2016 # for the new shell
	bash -c 'echo 0 >"$1/cgroup.procs"; exec "${@:2}"' - "$CG/$1" $LAZY "${@:2}" >"$out" &
	holders+=($!)
	until grep -q ready "$out"; do
		kill -0 "${holders[-1]}" 2>/dev/null || die "lazy ${*:2}"
		sleep 0.1
	done
}

# let_go GROUP... - End what hold has started, and remove the cgroups.
let_go() {
	kill "${holders[@]}"
	wait "${holders[@]}"
	holders=()
	(cd $CG && rmdir "$@")
}

# returned KEY HOLDER - The share of freed memory that one write to memory.reclaim
# frees, of the amount that it asks for, and the instructions of that, a page.
# HOLDER: mark, mark_free or mark_free_undo, see lazy.c.
returned() {
	local key=$1 mb=128 before after start end
	hold returned "$2" $mb
	# Reclaim skips ranges that are younger than min_age_ms.
	sleep 1.1
	before=$(stat_of returned anon)
	start=${EPOCHREALTIME/./}
	echo "$((mb / 2))M swappiness=0" >"$CG/returned/memory.reclaim" || true
	end=${EPOCHREALTIME/./}
	after=$(stat_of returned anon)
	echo "$key: before $before, after $after, $((end - start)) us"
	echo "= $key $(((before - after) * 200 / (mb * 1048576)))"
	((after >= before)) || echo "= page_$key $(((end - start) * 1000 / ((before - after) / 4096)))"
	let_go returned
}

# Half of each huge page is given back, beside those that could split the huge pages.
neighbours() {
	local numa=/sys/kernel/debug/sched/numa_balancing ksm=/sys/kernel/mm/ksm
	echo 1 >/proc/sys/kernel/numa_balancing || die "numa_balancing"
	echo 0 >$numa/scan_delay_ms
	echo 20 >$numa/scan_period_max_ms
	echo 10 >$numa/scan_period_min_ms
	echo 4096 >$THP/khugepaged/pages_to_scan
	echo 20 >$THP/khugepaged/scan_sleep_millisecs
	echo 4096 >$ksm/pages_to_scan
	echo 20 >$ksm/sleep_millisecs
	echo 1 >$ksm/run
	lazy neighbours
}

# kswapd runs for the first time, with 480 MiB marked in eight cgroups: free memory
# after that, in percent of the high watermark, and the marked memory that went.
first_wakeup() {
	local lru=$1 i free high before=0 after=0 groups=()
	lru "$lru"
	for i in {1..8}; do
		hold "marked$i" mark 60
		groups+=("marked$i")
	done
	sleep 1.1
	for i in "${groups[@]}"; do ((before += $(stat_of "$i" anon))); done
	hold needs wake
	sleep 3
	for i in "${groups[@]}"; do ((after += $(stat_of "$i" anon))); done
	read -r free high < <(awk '
		/^Node/ { zone = $4 }
		zone == "DMA32" && $1 == "pages" { free = $3 }
		zone == "DMA32" && $1 == "high" { high = $2 }
		END { print free, high }' /proc/zoneinfo)
	echo "$lru: free $free, high $high, marked $before, after $after"
	echo "= wakeup_free_$lru $((free * 100 / high))"
	echo "= wakeup_marked_$lru $(((before - after) * 100 / (480 << 20)))"
	let_go "${groups[@]}" needs
}

# A shortage of node 0, which has page cache that was read twice, with 500 MiB marked
# on node 1: the share of the latter that goes.
wrong_node() {
	local lru=$1 disk before after taken
	lru "$lru"
	echo +cpuset >$CG/cgroup.subtree_control || die "cpuset"
	mkdir $CG/node0 $CG/node1
	echo 0 >$CG/node0/cpuset.mems
	echo 1 >$CG/node1/cpuset.mems || die "cpuset.mems"
	disk=$(cat /sys/class/zram-control/hot_add)
	echo 1G >"/sys/block/zram$disk/disksize" || die "zram$disk"
	# Its page cache goes when nobody has it open.
	exec 4<"/dev/zram$disk"
	hold node1 mark 500
	(
		echo 0 >$CG/node0/cgroup.procs
		for _ in 1 2; do dd if="/dev/zram$disk" of=/dev/null bs=1M count=500 2>/dev/null; done
	)
	before=$(stat_of node1 anon)
	taken=$(($(vmstat pgsteal_kswapd) + $(vmstat pgsteal_direct)))
	hold node0 use 600
	after=$(stat_of node1 anon)
	taken=$(($(vmstat pgsteal_kswapd) + $(vmstat pgsteal_direct) - taken))
	echo "$lru: marked $before, after $after"
	echo "= node_$lru $(((before - after) * 100 / (500 << 20)))"
	echo "= node_taken_$lru $((taken / 256))"
	let_go node0 node1
	exec 4<&-
	echo "$disk" >/sys/class/zram-control/hot_remove
}

# Pages of 400 MiB in use that are swapped out while there are 400 MiB of MADV_FREE
# memory, with a limit of 512 MiB.
swapped() {
	local lru=$1 out dropped
	lru "$lru"
	mkdir $CG/box
	echo 512M >$CG/box/memory.max || die "memory.max"
	out=$(vmstat pswpout) dropped=$(vmstat pglazyfreed)
	hold box free_use 400
	echo "= swapped_$lru $(($(vmstat pswpout) - out))"
	echo "= dropped_$lru $((($(vmstat pglazyfreed) - dropped) / 256))"
	let_go box
}

# Threads of one process, on as many CPUs, which are equally slow.
threads() {
	local line
	coproc $LAZY threads
	read -r line <&"${COPROC[0]}" && [ "$line" = ready ] || die "lazy threads"
	go_slow || die "the CPUs did not become slow"
	echo >&"${COPROC[1]}"
	cat <&"${COPROC[0]}"
}

# An allocator's loop beside a reader of what does not fit into memory. There is
# no disk: a zram device full of zeroes has a page cache as any.
beside_a_reader() {
	local policy=$1 lru=$2 disk
	[ ! -d $K ] || echo "$policy" >$K/policy || die "policy"
	lru "$lru"
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

# allocators LOAD MIB ROUNDS IDLE_MS LIMIT... - Each allocator, unmodified and marking,
# under the load of allocs.c, with each memory.max: nanoseconds of CPU time a MiB.
allocators() {
	local load=$1 limit name how
	local arguments=("$2" "$3" "$4")
	echo always >$THP/enabled
	for limit in "${@:5}"; do
		for name in jemalloc mimalloc tcmalloc go; do
			for how in default marked; do
				allocator "$load" $name $how "$limit" "${arguments[@]}"
			done
		done
	done
}

# One of them. Two processes take turns, in one cgroup; or one, with another that
# needs half as much memory as its heap has while half of that is free.
allocator() {
	local load=$1 name=$2 how=$3 limit=$4 key=${1}_${2}_${3}_$4
	local cg=$CG/allocator program=/payload/$2 processes=1 i pids=() line=()
	local cpu=0 bytes=0 freed=0 marked=0 reused=0 kept=0 huge=0 memory discardable=0 pid kb
	shift 4
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
	if [ "$load" = needed ]; then
		# shellcheck disable=SC2016 # for the new shell
		bash -c 'echo 0 >"$1/cgroup.procs"; exec "${@:2}"' - "$cg" $LAZY need $(($1 / 2)) 0<>/tmp/turn1 1<>/tmp/turn0 3>&- &
		pids+=($!)
	else
		echo >/tmp/turn0 &
	fi
	for ((i = 0; i < processes; i++)); do
		read -r -t 300 -u 3 -a line
		echo "$key: ${line[*]:-no answer}"
		[ "${line[0]:-}" = "done" ] || break
		((cpu += line[1], bytes += line[2], freed += line[3], marked += line[4],
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
	echo "= $key $((cpu * 1048576 / (bytes * processes)))"
	echo "= mib_$key $((memory > 1048576 ? memory / 1048576 : 1))"
	[[ $load != half && $load != needed ]] || echo "= huge_$key $huge"
	# Without MADV_SPLITTABLE nothing is marked: it is no result of the feature.
	[ "$how" != marked ] || echo "= marked_$key $((freed ? marked * 100 / freed : 0))"
	[ "$how" != marked ] || echo "= kept_$key $((reused ? kept * 100 / reused : 0))"
}
