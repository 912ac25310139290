# SPDX-License-Identifier: GPL-2.0
# Thin: a verb is the script of that name in harness/, or "run" in the folder of
# that name, and each does the set-up that it needs. Variables reach it through
# the environment, and not through MAKEFLAGS, where the kernel would take V=2
# for itself.

export TOPIC SIGNOFF TRAILERS V STOCK CONFIG CPUS NODES MEM APPEND ACCEL MODE
export SCRIPT LIMIT KSRC KCONFIG FORCE MINUTES SEED REPLAY ALL SHAPE
export SHRINK_MINUTES CHECK_STOCK MUTANT AGAIN FULL QEMU JUMP_LABEL RATE

VERBS := run test tree refresh series check bisect regress kernel boot shell bench deb
VERBS += soak mutants kcsan litmus peers results

help:
	@echo 'make run                 build stock and patched, show what each topic does; report in build/report/'
	@echo 'make test [FULL=1]       everything that .ci/run runs; ends with N passed, N failed, N skipped'
	@echo 'make tree [FORCE=1]      the series as git commits on the base, in build/tree'
	@echo 'make refresh [FORCE=1]   the commits of build/tree back into patches/ and the new files'
	@echo 'make series [TOPIC=] [SIGNOFF="Name <address>"] [TRAILERS=] [V=2]'
	@echo '                         what goes to the mailing list, in build/series/<topic>/'
	@echo 'make check [TOPIC=]      checkpatch, sparse, W=1, coccicheck, kernel-doc, ABI, each commit'
	@echo 'make bisect [TOPIC=]     every prefix of the series builds, options on and off'
	@echo 'make regress             upstream mm selftests, stock and patched side by side'
	@echo 'make soak [TOPIC=] [MINUTES=] [SEED=] [CONFIG=guest|debug|kcsan] [REPLAY=file] [ALL=1] [STOCK=1]'
	@echo '     [SHAPE="4 2 2G"] [SHRINK_MINUTES=] [CHECK_STOCK=1]'
	@echo '                         random programs beside hostile neighbours, checked against a model'
	@echo 'make mutants [TOPIC=] [MUTANT=] [FULL=1]'
	@echo '                         break one line of the series at a time; which test notices?'
	@echo 'make kcsan [TOPIC=] [FULL=1]'
	@echo '                         the tests of the topics on a kernel with a race detector'
	@echo 'make litmus              the ordering arguments, by the kernel memory model'
	@echo 'make peers               workloads of other projects, stock and patched side by side'
	@echo 'make kernel [STOCK=1] [CONFIG=guest|bench|debug|kcsan|trace|vm] [JUMP_LABEL=]'
	@echo '                         one kernel, in build/kernel/{stock,patched}-<config>/'
	@echo 'make boot [SCRIPT=] [CPUS=] [NODES=] [MEM=] [APPEND=] [STOCK=1] [ACCEL=] [MODE=] [RATE=] [LIMIT=] [QEMU=]'
	@echo '                         boot it and run a guest script'
	@echo 'make shell [same]        sit at its console; Ctrl-a x leaves'
	@echo 'make bench [TOPIC=]      the measurements; a complete run replaces bench/results/<topic>.json'
	@echo 'make results             the tables of README and covers, and the pictures, from bench/results/'
	@echo 'make deb [KCONFIG=]      an installable kernel package, in build/deb/'
	@echo 'make clean [ALL=1]       remove what was built; ALL=1 the downloaded base too'
	@echo
	@echo 'topics: $(shell sed 's/\#.*//; /^prerequisite /d' patches/series)'
	@echo 'KSRC=/path: a Linux tree to use in place of the download; FORCE=1 above discards edits'
	@echo 'QEMU=/path: a qemu-system-x86_64 to use in place of the installed or the fetched one'
	@echo 'CONFIG=bench: what make bench and make run measure; with static keys, if QEMU can emulate them'
	@echo 'JUMP_LABEL=n|y|auto: any kernel without static keys (n), with them, or with them if QEMU can emulate them'
	@echo 'CONFIG=trace: a kernel with the tracers of sections that disable preemption or interrupts'

$(VERBS):
	@unset MAKEFLAGS MFLAGS MAKELEVEL; if [ -d harness/$@ ]; then exec harness/$@/run; else exec harness/$@; fi

clean:
	@exec harness/clean $(if $(ALL),--all)

.PHONY: help $(VERBS) clean
