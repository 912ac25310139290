# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What every verb shares: where things lie, steps with a log, packages.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build
LOG=$BUILD/log
STOCK_SRC=$BUILD/stock		# pristine base, a git repository of one commit
TREE_SRC=$BUILD/tree		# worktree of it: base plus the series
KERNEL_OUT=$BUILD/kernel
JOBS=${JOBS:-$(nproc)}
mkdir -p "$LOG"

# The same source and options give the same objects, whichever tree they
# come from: ccache may serve one kernel's build to the other's, and one
# clone's to the next one's. Its folder is the user's (CCACHE_DIR, by default
# ~/.cache/ccache), with at most CCACHE_MAXSIZE in it. It learns from the compiler
# which headers an object needs, and does not preprocess each file before.
export CCACHE_NOHASHDIR=1 CCACHE_DEPEND=1 CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-10G}
[ -n "${HOME:-}" ] || export CCACHE_DIR=${CCACHE_DIR:-$BUILD/ccache}
export KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=offpath KBUILD_BUILD_HOST=offpath
export LC_ALL=C.UTF-8 GIT_CONFIG_NOSYSTEM=1

# git with an identity of its own, so that the same input gives the same
# commits on every machine.
kgit() {
	git -c user.name=offpath -c user.email=offpath@localhost \
	    -c core.autocrlf=false -c gc.auto=0 -c advice.detachedHead=false "$@"
}

say() { printf '%s\n' "$*" >&2; }
die() { say "offpath: $*"; exit 1; }
bad() { say "offpath: $*"; exit 2; }		# input that has another value than it may have

# step NAME COMMAND... - Run COMMAND with its output in build/log/NAME.log;
# print one line with its time, or the end of the log where it fails. The file
# STEP_TIMES, where that is set, gets a line with the time too.
step() {
	local name=$1 log start rc=0
	shift
	log=$LOG/${name//[ \/]/-}.log
	start=$SECONDS
	[ -t 2 ] && printf '  ...    %s\r' "$name" >&2
	"$@" >"$log" 2>&1 </dev/null || rc=$?
	[ -z "${STEP_TIMES:-}" ] || printf '%5d s  %s\n' $((SECONDS - start)) "$name" >>"$STEP_TIMES"
	if [ $rc -eq 0 ]; then
		printf '%5d s  %s\n' $((SECONDS - start)) "$name" >&2
		return 0
	fi
	printf '%5d s  %s FAILED; the end of its output:\n' $((SECONDS - start)) "$name" >&2
	tail -n 15 "$log" | sed 's/^/         | /' >&2
	say "offpath: full output: ${log#"$ROOT"/}"
	return $rc
}

# need PACKAGE... - Debian packages that this verb uses; installs what is
# missing, as root or through sudo without a password, else says how.
need() {
	local missing=() p as=()
	for p; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} -eq 0 ] && return 0
	command -v apt-get >/dev/null || die "needs the programs of these Debian packages: ${missing[*]}"
	if [ "$(id -u)" != 0 ]; then
		sudo -n true 2>/dev/null || die "packages missing; run this, then try again: sudo apt-get install --no-install-recommends ${missing[*]}"
		as=(sudo -n)
	fi
	# One at a time: two verbs may run side by side.
	(
		flock 9
		step "apt-get update" "${as[@]}" apt-get -q update &&
		step "install ${missing[0]} and $((${#missing[@]} - 1)) more packages" \
			"${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"
	) 9>"$BUILD/.apt.lock" || die "could not install: ${missing[*]} (is there a network? see build/log)"
}

# The topics, in the order of patches/series; and with the prerequisites, which
# have patches, but nothing to test or to measure.
topics() { sed 's/#.*//; /^prerequisite /d; /^[[:space:]]*$/d' "$ROOT/patches/series"; }
series() { sed 's/#.*//; s/^prerequisite *//; /^[[:space:]]*$/d' "$ROOT/patches/series"; }

# topic_tests KERNEL - The caller has declared KUNIT, VMTESTS, SHAPES, DEBUG_PROGRAMS and
# DEBUG_SHAPES, and read a file of harness/tests: set tests, as harness/guest-tests takes
# them, and SHAPES. On a "debug" kernel, the slow tests run only with FULL=1.
topic_tests() {
	tests=("${KUNIT[@]/#/kunit:}")
	if [ "$1" = debug ] && [ ${#DEBUG_PROGRAMS[@]} != 0 ] && [ -z "${FULL:-}" ]; then
		tests+=("${DEBUG_PROGRAMS[@]/#/program:}")
	else
		tests+=("${VMTESTS[@]/#/vmtests:}")
	fi
	if [ "$1" = debug ] && [ ${#DEBUG_SHAPES[@]} != 0 ]; then
		SHAPES=("${DEBUG_SHAPES[@]}")
	fi
}

# jump_label [CONFIG] - What JUMP_LABEL asks for: static keys (y), none (n), or some if QEMU
# can emulate them (auto). By default, kernels that are measured are to have them, and those
# that are tested are not: where a virtual CPU writes to code, QEMU discards its translation
# first, so another CPU can translate the old bytes again, and keeps these. The breakpoint
# that the kernel writes while it patches can stay so, and then causes "Oops: int3".
jump_label() {
	case ${JUMP_LABEL:-}:${1:-} in
	:bench | :trace) echo auto ;;
	:*) echo n ;;
	*) echo "$JUMP_LABEL" ;;
	esac
}

# want_topic [NAME] - NAME must be a topic; nothing for all of them.
want_topic() {
	[ -z "${1:-}" ] || topics | grep -qxF -- "$1" ||
		bad "no topic '$1'; there are: $(topics | paste -sd' ')"
}

# Free space is checked before what is known to be large.
need_space() {
	local free
	free=$(df --output=avail -BG "$BUILD" | tail -1 | tr -dc 0-9)
	[ "$free" -ge "$1" ] || die "$free GB free on the disk of $BUILD, this needs $1 GB: free some, or 'make clean'"
}
