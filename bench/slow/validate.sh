#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# validate.sh - runs inside the guest: validate.sh ROUNDS MIB THREADS... See validate.c.
# NUMA balancing would take a sixth of a slow CPU's time.
echo 0 >/proc/sys/kernel/numa_balancing
coproc ./validate "$@"
read -r line <&"${COPROC[0]}" && [ "$line" = filled ] && go_slow && echo >&"${COPROC[1]}" || exit
cat <&"${COPROC[0]}"
