#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# validate.sh - runs inside the guest: validate.sh MIB THREADS... See validate.c.
coproc ./validate "$@"
read -r line <&"${COPROC[0]}" && [ "$line" = filled ] && go_slow && echo >&"${COPROC[1]}" || exit
cat <&"${COPROC[0]}"
