// SPDX-License-Identifier: GPL-2.0
/*
 * throttle - QEMU TCG plugin: many equally slow CPUs on a few host cores.
 *
 * Lets each vCPU execute RATE instructions in a second of real time, in steps of
 * STEP instructions, after which it sleeps until its share of real time has
 * passed. The guest's clock is real, so its CPUs are slow and run in parallel.
 * A vCPU that was idle, or that the host kept from running for longer than
 * FORGIVE_NS, does not catch up; the lost time is reported at exit.
 * PAUSE counts as PAUSE_INSNS: servers since 2017 take some 140 cycles for one. QEMU
 * takes a thousand times as long for PAUSE as for others, so CPUs that wait for a
 * spinlock would keep the host busy.
 *
 *   -plugin throttle.so,rate=12000000,step=1200,start=FILE
 *
 * Throttles once FILE is no longer empty. At exit, prints for each vCPU
 * "throttle: vcpu N steps N late N lost_ms N": a step is late where it began
 * after its time, and lost is the time that was not caught up.
 *
 * QEMU 9.1 or later, for per-vCPU counters and conditional callbacks; modelled
 * on its contrib/plugins/ips.c. Debian has no package with qemu-plugin.h, so
 * its functions are declared here.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
typedef struct {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
} qemu_plugin_u64;
enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0, QEMU_PLUGIN_COND_GE = 7 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
	void (*cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb));
extern void qemu_plugin_register_vcpu_resume_cb(qemu_plugin_id_t id,
	void (*cb)(qemu_plugin_id_t id, unsigned int vcpu));
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id,
	void (*cb)(qemu_plugin_id_t id, void *data), void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb,
	size_t index);
extern size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to,
	size_t size);
extern int qemu_plugin_num_vcpus(void);
extern struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t size);
extern void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *score,
	unsigned int vcpu);
extern void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
	struct qemu_plugin_tb *tb, int op, qemu_plugin_u64 entry, uint64_t imm);
extern void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *tb,
	void (*cb)(unsigned int vcpu, void *data), int flags, int cond,
	qemu_plugin_u64 entry, uint64_t imm, void *data);

int qemu_plugin_version = 4;

#define NS		UINT64_C(1000000000)
#define FORGIVE_NS	UINT64_C(5000000)
#define PAUSE_INSNS	140
#define LOOK_EVERY	1024	/* steps between two looks at the file */

struct vcpu {
	uint64_t executed;	/* instructions since the last step */
	uint64_t due;		/* time at which they should have been executed */
	uint64_t steps, late, lost;
	bool precise;
};

static struct qemu_plugin_scoreboard *score;
static uint64_t rate, step;
static const char *file;
static volatile bool started;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS + t.tv_nsec;
}

static void end_of_step(unsigned int index, void *data)
{
	struct vcpu *vcpu = qemu_plugin_scoreboard_find(score, index);
	uint64_t executed = vcpu->executed, time;
	struct stat st;

	(void)data;
	vcpu->executed = 0;
	if (!started) {
		if (vcpu->steps++ % LOOK_EVERY == 0 && !stat(file, &st) && st.st_size)
			started = true;
		return;
	}
	if (!vcpu->precise) {
		/* The default slack is as long as a step. */
		prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0);
		vcpu->precise = true;
		vcpu->steps = 0;
		vcpu->due = now();
	}
	vcpu->steps++;
	vcpu->due += executed * NS / rate;
	time = now();
	if (vcpu->due + FORGIVE_NS < time) {
		vcpu->lost += time - vcpu->due;
		vcpu->due = time;
	} else if (vcpu->due < time) {
		vcpu->late++;
	} else {
		struct timespec t = { vcpu->due / NS, vcpu->due % NS };

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	}
}

/* It was idle: that time is not its to use later. */
static void resume(qemu_plugin_id_t id, unsigned int index)
{
	struct vcpu *vcpu = qemu_plugin_scoreboard_find(score, index);
	uint64_t time = now();

	(void)id;
	if (vcpu->due < time)
		vcpu->due = time;
}

/* QEMU ends a block with PAUSE. */
static bool ends_with_pause(const struct qemu_plugin_tb *tb)
{
	unsigned char code[2];

	return qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, qemu_plugin_tb_n_insns(tb) - 1),
				     code, sizeof(code)) == 2 && code[0] == 0xf3 && code[1] == 0x90;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	qemu_plugin_u64 executed = { score, offsetof(struct vcpu, executed) };
	size_t insns = qemu_plugin_tb_n_insns(tb) - 1;

	(void)id;
	insns += ends_with_pause(tb) ? PAUSE_INSNS : 1;
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb,
		QEMU_PLUGIN_INLINE_ADD_U64, executed, insns);
	qemu_plugin_register_vcpu_tb_exec_cond_cb(tb, end_of_step, 0,
		QEMU_PLUGIN_COND_GE, executed, step, NULL);
}

static void report(qemu_plugin_id_t id, void *data)
{
	(void)id;
	(void)data;
	for (int i = 0; i < qemu_plugin_num_vcpus(); i++) {
		struct vcpu *vcpu = qemu_plugin_scoreboard_find(score, i);

		fprintf(stderr, "throttle: vcpu %d steps %" PRIu64 " late %" PRIu64
			" lost_ms %" PRIu64 "\n", i, vcpu->steps, vcpu->late,
			vcpu->lost / 1000000);
	}
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "rate=", 5))
			rate = strtoull(argv[i] + 5, NULL, 10);
		else if (!strncmp(argv[i], "step=", 5))
			step = strtoull(argv[i] + 5, NULL, 10);
		else if (!strncmp(argv[i], "start=", 6))
			file = strdup(argv[i] + 6);
	}
	if (!rate || !step || !file) {
		fprintf(stderr, "throttle: give rate=, step= and start=\n");
		return -1;
	}
	score = qemu_plugin_scoreboard_new(sizeof(struct vcpu));
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	qemu_plugin_register_vcpu_resume_cb(id, resume);
	qemu_plugin_register_atexit_cb(id, report, NULL);
	return 0;
}
