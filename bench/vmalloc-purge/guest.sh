# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# In the guest: one function for each thing that is measured. What counts is
# printed as "= name value"; all else is for the reader of the raw output.

T=/sys/kernel/tracing
P=/sys/module/storm/parameters

die() {
	echo "failed: $*"
	exit 1
}

# Nothing but the storm's own thread runs while it is at SCHED_FIFO.
prepare() {
	local f
	echo -1 >/proc/sys/kernel/sched_rt_runtime_us
	for f in /sys/kernel/debug/sched/*_server/cpu*/runtime; do
		[ ! -e "$f" ] || echo 0 >"$f" || die "cannot write $f"
	done
	echo "clock: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)," \
	     "$(dmesg | grep -o 'tsc: Detected.*' | head -n 1)," \
	     "$(dmesg | grep -o 'Hypervisor detected.*' || echo emulated)"
	grep . /sys/kernel/mm/vmalloc/* 2>/dev/null
	return 0
}

storm_load() {
	insmod /payload/storm.ko "$@" || die "insmod storm.ko $*"
	echo alloc >$P/do || die "storm.ko $*: cannot allocate"
}

storm_unload() {
	local f
	for f in free_ns flush_ns total_ns idle_ns max_free_ns; do
		echo "  $f $(cat $P/$f)"
	done
	grep vmalloc /proc/vmstat
	rmmod storm || die "rmmod storm"
}

# A probe event is two lines in two files; so is its removal.
trigger() { echo "$2" >"$T/events/$1/trigger" || { tail -n 5 $T/error_log; die "trigger $1: $2"; }; }

# Pages that were freed and cannot be allocated again yet, at most, as each
# vfree() finds them; the guard pages count. Upstream has one counter until
# all is returned, with two phases there is one for each.
lazy_on() {
	local where=lazy=@vmap_lazy_nr:u64 sum=lazy
	if grep -q ' vmap_backlog$' /proc/kallsyms; then
		where='lazy=@vmap_backlog+0:u64 flushed=@vmap_backlog+64:u64' sum=lazy+flushed
	fi
	echo "p:backlog/free remove_vm_area $where" >>$T/kprobe_events || die "kprobe remove_vm_area"
	trigger backlog/free "hist:keys=common_type:p=$sum:onmax(\$p).save(common_pid)"
}

lazy_off() {
	local dir=$T/events/backlog/free
	awk -v name="$1" '$1 == "max:" && $2 + 0 > m + 0 { m = $2 } END { print "= lazy_pages_" name, m + 0 }' $dir/hist
	echo "!$(grep '^hist' $dir/trigger | sed 's/ \[.*//')" >$dir/trigger
	echo '-:backlog/free' >>$T/kprobe_events
}

# hold N ARGS... - The longest time between the entry of _raw_spin_lock() and
# of _raw_spin_unlock() with free_vmap_area_lock, without interrupts and with
# them, beside the same for holds of nothing: what the probes cost.
hold() {
	local n=$1 lock calib
	shift
	storm_load nr="$n" fifo=1 "$@"
	lock=0x$(awk '$3 == "free_vmap_area_lock" { print $1; exit }' /proc/kallsyms)
	calib=$(printf '0x%x' "$(cat $P/calib_addr)")
	echo 32768 >$T/buffer_size_kb
	echo x86-tsc >$T/trace_clock || die "trace_clock"
	printf '%s\n' 'p:off/lock _raw_spin_lock lock=%di:x64' \
		'p:off/unlock _raw_spin_unlock lock=%di:x64' >$T/kprobe_events || die "kprobes"
	for event in off/lock off/unlock; do
		echo "lock==$lock||lock==$calib" >$T/events/$event/filter || die "filter $event"
	done
	for event in off irq_vectors/local_timer_entry irq_vectors/local_timer_exit irq/softirq_exit sched/sched_switch; do
		echo 1 >$T/events/$event/enable || die "enable $event"
	done
	echo calib >$P/do
	lazy_on
	echo storm >$P/do || die "storm"
	echo 0 >$T/tracing_on
	echo "-- hold $n $*"
	# The timer's interrupt, and softirqs after it, are nobody's hold.
	awk -v n="$n" -v lock="lock=$lock" '
	{ for (i = 3; i < 9; i++) if ($i ~ /^[0-9]+:$/) break; now = $i + 0; event = $(i + 1) }
	event == "lock:" { start = now; irq = 0; since = 0 }
	!start { next }
	# The probe is at the entry: who is preempted has not got the lock yet.
	event == "sched_switch:" { start = now; irq = 0; since = 0 }
	event == "local_timer_entry:" { since = now }
	(event == "local_timer_exit:" || event == "softirq_exit:") && since { irq += now - since; since = now }
	event == "unlock:" {
		which = $NF == lock ? "hold" : "probe"
		count[which]++
		if (now - start - irq > net[which]) net[which] = now - start - irq
		if (now - start > gross[which]) gross[which] = now - start
		start = 0
	}
	END {
		for (which in net) { print "= " which "_" n, net[which]; print "= " which "s_" n, count[which] }
		print "= holdirq_" n, gross["hold"]
	}' $T/trace
	grep -h overrun $T/per_cpu/cpu0/stats
	# Not before: to remove a probe empties the buffer.
	lazy_off "$n"
	echo 0 >$T/events/enable
	echo >$T/kprobe_events
	echo >$T/trace
	echo local >$T/trace_clock
	echo 1 >$T/tracing_on
	storm_unload
}

# nonpreemptible N ARGS... - By the preemptirqsoff tracer, from the first
# vfree() until all is given back. What is no purge's: with N=1, and with
# plain=1 the page allocator, which frees up to 2,000 pages at a go.
nonpreemptible() {
	local n=$1 name=$1
	shift
	[[ $* != *plain=1* ]] || name+=_plain
	storm_load nr="$n" fifo=1 "$@"
	echo 0 >$T/options/function-trace
	echo preemptirqsoff >$T/current_tracer || die "no preemptirqsoff tracer"
	echo 0 >$T/tracing_max_latency
	echo 1 >$T/tracing_on
	echo storm >$P/do || die "storm"
	echo 0 >$T/tracing_on
	echo "-- nonpreemptible $n $*"
	echo "= nonpreemptible_$name $(cat $T/tracing_max_latency)000"
	grep -E 'latency:|task:|started at|ended at|=>' $T/trace
	echo nop >$T/current_tracer
	echo 1 >$T/tracing_on
	storm_unload
}

# cost N ARGS... - Nothing is traced; idle time is not counted.
cost() {
	local n=$1
	shift
	storm_load nr="$n" fifo=1 "$@"
	echo storm >$P/do || die "storm"
	echo "-- cost $n $*"
	echo "= cost_$n $(($(cat $P/total_ns) - $(cat $P/idle_ns)))"
	storm_unload
}

# How often kernel translations are flushed, by whom, and how much of it.
flushes_on() {
	local f
	: >$T/kprobe_events
	for f in flush_tlb_kernel_range flush_tlb_kernel_ranges flush_tlb_all; do
		grep -q " $f\$" /proc/kallsyms || continue
		echo "p:off/$f $f start=%di:x64 end=%si:x64" >>$T/kprobe_events || die "kprobe $f"
	done
	echo nop >$T/current_tracer
	echo >$T/trace
	echo 1 >$T/events/off/enable
}

# insmod and rmmod flush for themselves; that is none of vfree()'s.
flushes_off() {
	local line full=0
	echo 0 >$T/events/off/enable
	grep -v '^#' $T/trace | grep -Ev '^ *(insmod|rmmod|modprobe|bash)-' >/tmp/flushes
	echo "= flushes_$1 $(wc -l </tmp/flushes)"
	# More than 33 pages, or everything at once: a full flush.
	while read -r line; do
		[[ $line =~ start=(0x[0-9a-f]+)\ end=(0x[0-9a-f]+) ]] || continue
		[[ $line != *flush_tlb_all:* && $((BASH_REMATCH[2] - BASH_REMATCH[1])) -le $((33 * 4096)) ]] ||
			full=$((full + 1))
	done </tmp/flushes
	echo "= full_$1 $full"
	head -n 5 /tmp/flushes
	echo >$T/kprobe_events
}

# peak N ARGS... - As many freers as CPUs; with fifo=1 they leave no time to
# whoever else would purge.
peak() {
	local n=$1 name=storm
	shift
	[[ $* != *fifo=1* ]] || name=fifo
	storm_load nr="$n" threads="$(nproc)" "$@"
	flushes_on
	lazy_on
	echo storm >$P/do || die "storm"
	echo "-- peak $n $*"
	lazy_off $name
	flushes_off $name
	echo "= max_free_$name $(cat $P/max_free_ns)"
	storm_unload
}

# test_vmalloc MASK THREADS LOOPS - The kernel's own benchmark; its init fails
# on purpose when it is done, and busybox's insmod then tries a second way: it
# runs twice. The time is the mean of all workers, in us.
test_vmalloc() {
	local ko
	ko=$(find /lib/modules /payload -name test_vmalloc.ko 2>/dev/null | head -n 1)
	dmesg -c >/dev/null
	[ -z "${FLUSHES:-}" ] || flushes_on
	insmod "$ko" run_test_mask="$1" nr_threads="$2" test_loop_count="$3" \
		sequential_test_order=1 nr_pcpu_objects="${OBJECTS:-35000}" 2>/dev/null
	echo "-- test_vmalloc mask=$1 threads=$2 loops=$3"
	dmesg | grep -E 'Summary|All test took'
	dmesg | awk -v mask="$1" -v loops="$3" '
	/Summary/ { for (i = 1; i < NF; i++) { if ($i == "avg:") us += $(i + 1); if ($i == "failed:") bad += $(i + 1) } }
	/All test took/ { workers++ }
	END {
		if (!workers || bad) { print "failed: test_vmalloc", mask; exit 1 }
		printf "= test_%d %d\n= calls_%d %d\n", mask, us / workers, mask, workers * loops
	}' || exit 1
	[ -z "${FLUSHES:-}" ] || flushes_off "test_$1"
}

flushing() { FLUSHES=1 "$@"; }
