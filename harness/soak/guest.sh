#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest.sh - runs inside the guest: guest.sh PROGRAM-FILE
# Sets up files, control groups and huge pages for soak's calls and neighbours,
# runs soak, and exits with its status. harness/init has set up swap.
cgroup=/sys/fs/cgroup
export SOAK_DIR=/tmp/soak

# Quiet: a kernel may lack a controller or a sysctl; soak then goes without it.
for controller in cpu cpuset memory pids hugetlb io; do
	echo "+$controller" >$cgroup/cgroup.subtree_control
done 2>/dev/null
echo 64 >/proc/sys/vm/nr_overcommit_hugepages
echo 1 >/proc/sys/vm/unprivileged_userfaultfd
# Processes die of SIGBUS and SIGSEGV all the time: no core files.
echo /dev/null >/proc/sys/kernel/core_pattern
ulimit -c 0

# Files: on ext4 in a zram device where the kernel has both, else on tmpfs.
mkdir -p $SOAK_DIR
if grep -qw ext4 /proc/filesystems && device=$(cat /sys/class/zram-control/hot_add 2>/dev/null); then
	{
		echo 128M >"/sys/block/zram$device/disksize" &&
			mke2fs -F -b 4096 "/dev/zram$device" && mount -t ext4 "/dev/zram$device" $SOAK_DIR
	} >/dev/null || echo "soak: no ext4 on $SOAK_DIR, its files are on tmpfs"
fi

echo "soak: starts: $(nproc) CPUs, $(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB," \
	"files on $(stat -f -c %T $SOAK_DIR)"
exec ./soak "$1"
