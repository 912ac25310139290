# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: what counts is printed as "= name value"; all else is for the
# reader.

K=/sys/kernel/mm/autonuma
NB=/proc/sys/kernel/numa_balancing
S=/sys/kernel/debug/sched/numa_balancing
THP=/sys/kernel/mm/transparent_hugepage
MODES=(default scand)

die() {
	echo "failed: $*"
	exit 1
}

numa() { /payload/numa "$@" || die "numa $*"; }

# What is not to count: slab caches are filled, the emulator has translated the
# code.
warm() { "$@" | sed 's/^=/ /'; }

write() { echo "$2" >"$1" || die "$1"; }

# Whether there is anything to choose from.
has_modes() { [ -d $K ] && [ "${ENABLED:-1}" = 1 ]; }

# mode NAME - false where this kernel has no such thing
mode() {
	local scand=0
	case $1 in
	default) ;;
	scand) scand=1 ;;
	*) die "mode $1" ;;
	esac
	[ $scand = 0 ] || [ -f $K/knuma_scand/enabled ] || return
	write $K/window_pages "${WINDOW:-512}"
	[ ! -f $K/knuma_scand/enabled ] || write $K/knuma_scand/enabled $scand
}

# knobs MODE
knobs() {
	write $THP/enabled madvise
	[ ! -d /sys/devices/system/node/node1 ] || [ "$(cat $NB)" = 1 ] || die "NUMA balancing is off"
	[ ! -d $K ] || write $K/enabled "${ENABLED:-1}"
	if has_modes; then
		mode "$1" || mode default
	fi
	[ ! -d $K ] || grep -r . $K
}

# as "SUFFIX..." COMMAND... - Its figures, with each of these behind their names.
as() {
	local suffixes suffix
	read -ra suffixes <<<"$1"
	shift
	("$@") >/tmp/figures || { cat /tmp/figures; exit 1; }
	grep -v '^=' /tmp/figures
	for suffix in "${suffixes[@]}"; do sed -n "s/^= [^ ]*/&_$suffix/p" /tmp/figures; done
}

# in_modes COMMAND... - Once for each mode. A kernel that has none does the same
# in all of them.
in_modes() {
	local m first=0
	if ! has_modes; then
		as "${MODES[*]}" "$@"
		return
	fi
	# With more than one CPU: none of them is always the last.
	[ "$(nproc)" = 1 ] || first=$((RANDOM % ${#MODES[@]}))
	for m in "${MODES[@]:first}" "${MODES[@]:0:first}"; do
		mode "$m" || continue
		echo "-- $* ($m)"
		as "$m" "$@"
	done
}

# Memory that lies on the wrong node, until it does not.
converge() {
	numa converge 4k "$1"
	numa converge thp "$1"
}

# What is left of that with nothing to move and nobody who looks for it.
floor() {
	write $NB 0
	numa still 4k "$1" 3
	numa still thp "$1" 3
	write $NB 1
}

# Memory that moves while the process runs on the other CPU, too: who flushes
# has to tell it.
busy() {
	numa converge 4k "$1" busy
	numa converge thp "$1" busy
}

# Loads in place of stores: without migration, then with it.
reads() {
	write $NB 0
	numa still 4k "$1" 3 read
	write $NB 1
	numa converge 4k "$1" read
}

# moves MIB - With scans every second at least: while memory is local, the kernel
# makes them rare, and each move would begin with a long wait.
moves() {
	local longest
	longest=$(cat $S/scan_period_max_ms)
	write $S/scan_period_max_ms 1000
	numa moves "$1"
	write $S/scan_period_max_ms "$longest"
}

# On each CPU, a task that never sleeps competes with the daemon and the thread.
loaded() {
	local loops=() cpu
	for ((cpu = 0; cpu < $(nproc); cpu++)); do
		/payload/numa spin $cpu &
		loops+=($!)
	done
	numa converge 4k "$1" loaded
	kill "${loops[@]}"
	wait "${loops[@]}" || true
}

# Instructions of a copy without the rest of a migration.
copy() {
	local kind
	insmod /payload/pagecopy.ko || die pagecopy
	for kind in 4k thp; do
		echo "= copy_$kind $(cat /sys/module/pagecopy/parameters/copy_$kind)"
	done
}

# ring MIB - A process on each node, on CPUs that are all equally slow.
ring() {
	go_slow || die "the CPUs did not become slow"
	numa ring "$1"
}

# The scans of a task that is new are so much earlier.
soon() { write $S/scan_delay_ms 100; }

cost() {
	local kind
	for kind in 4k thp; do
		numa cost $kind "$1"
		numa converge $kind "$1" alone
	done
}

# What is left when nothing moves any more, and what never had to do with it.
steady() {
	numa steady 4k 64 far 60
	others
}

others() {
	warm numa others 100
	numa others 300
}

# Balancing itself off, for good.
balancing_off() { write $NB 0; }

# loads MIB [hard|inverse] - One that is bound has nothing to wait for.
loads() {
	local mib=$1 name
	shift
	for name in numa01:4 numa01_local:4 numa02:3 numa02_smt:3; do
		numa "${name%:*}" "$mib" "$([ $# = 0 ] && echo "${name#*:}" || echo 1)" "$@"
	done
}
