// SPDX-License-Identifier: GPL-2.0
/*
 * The supervisor: rounds of worker processes beside neighbours. After each
 * round all processes have exited, and all sums have to be back.
 */
#include "soak.h"
#include "worker.h"

#include <sched.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <time.h>

#define ROUND_SECONDS	60	/* more than STARVED_SECONDS, so that a round may tell */
#define STUCK_SECONDS	60
#define PROGRESS_SECONDS 10
#define GRACE_SECONDS	240	/* for processes to end, in an emulator on a busy host */

struct program program = { .seconds = 300, .processes = 3, .threads = 3, .series = true };
struct shared *shared;

uint64_t rng_next(struct rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15UL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9UL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebUL;
	return z ^ z >> 31;
}

uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return rng_next(rng) % n;
}

bool rng_chance(struct rng *rng, unsigned int percent)
{
	return rng_below(rng, 100) < percent;
}

struct rng rng_stream(uint64_t stream)
{
	struct rng rng = { .state = program.seed ^ stream * 0xd1342543de82ef95UL };

	rng.state = rng_next(&rng);
	return rng;
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

double soak_realtime(void)
{
	return atomic_load(&shared->realtime_us) / 1e6;
}

bool listed(const char *list, const char *name)
{
	size_t len = strlen(name);

	if (!list)
		return true;
	for (const char *at = list; (at = strstr(at, name)); at += len)
		if ((at == list || at[-1] == ' ') && (!at[len] || at[len] == ' '))
			return true;
	return false;
}

bool over(void)
{
	return atomic_load(&shared->over);
}

void say(const char *format, ...)
{
	char line[512];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	if (len > (int)sizeof(line) - 2)
		len = sizeof(line) - 2;
	dprintf(1, "soak: %.0f s: %.*s\n", now() - shared->began, len, line);
}

void violation(const char *class, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (!atomic_exchange(&shared->violated, true)) {
		snprintf(shared->violation, sizeof(shared->violation), "%s: %s", class, line);
		shared->violator = worker_of_caller();
	}
	atomic_store(&shared->over, true);
}

int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

int putf(const char *path, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return put(path, text);
}

long get(const char *path)
{
	FILE *f = fopen(path, "re");
	long value = -1;

	if (f && fscanf(f, "%ld", &value) != 1)
		value = -1;
	if (f)
		fclose(f);
	return value;
}

long get_key(const char *path, const char *key)
{
	FILE *f = fopen(path, "re");
	size_t len = strlen(key);
	long value = -1;
	char line[1024];

	while (f && value < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, len) && strchr(": \t", line[len]))
			value = strtol(line + len + strspn(line + len, ": \t"), NULL, 10);
	if (f)
		fclose(f);
	return value;
}

/* Call a function on each CPU that is online and that the caller may use. */
void on_each_cpu(void (*function)(void))
{
	cpu_set_t all, one;

	if (sched_getaffinity(0, sizeof(all), &all))
		return;
	for (long cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++) {
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (!sched_setaffinity(0, sizeof(one), &one))
			function();
	}
	sched_setaffinity(0, sizeof(all), &all);
}

bool exists(const char *path)
{
	return !access(path, F_OK);
}

static void program_error(const char *path, const char *line, const char *right)
{
	fprintf(stderr, "soak: %s: bad line '%s'; accepted: %s\n", path, line, right);
	exit(2);
}

static unsigned long program_number(const char *path, const char *line, const char *text,
				    unsigned long min, unsigned long max)
{
	char *end, right[64];
	unsigned long value = strtoul(text, &end, 10);

	snprintf(right, sizeof(right), "a number from %lu to %lu", min, max);
	if (end == text || *end || value < min || value > max)
		program_error(path, line, right);
	return value;
}

static bool known_call(const char *name)
{
	for (unsigned int i = 0; i < nr_calls; i++)
		if (!strcmp(calls[i].name, name))
			return true;
	return !strcmp(name, "canary");		/* worker.c's, no call */
}

static bool known_neighbour(const char *name)
{
	for (unsigned int i = 0; i < nr_neighbours; i++)
		if (!strcmp(neighbours[i].name, name))
			return true;
	return !strcmp(name, "groups");		/* the supervisor's */
}

/* Each word of a list has to be a name; "-" is an empty list. */
static char *program_list(const char *path, const char *line, const char *text,
			  bool (*known)(const char *name))
{
	char *copy = strdup(text), *save, *word;

	for (word = strtok_r(copy, " ", &save); known && word; word = strtok_r(NULL, " ", &save))
		if (strcmp(word, "-") && !known(word))
			program_error(path, line, "names that --list prints");
	free(copy);
	return strdup(text);
}

/*
 * Read a program file: lines of a key and its values, empty ones and comments.
 *
 *	seed N, seconds N, processes N, threads N, series yes|no, topic NAME,
 *	calls NAME..., neighbours NAME..., knobs NAME..., apart CALL/NEIGHBOUR...
 */
static void program_read(const char *path)
{
	FILE *f = fopen(path, "re");
	char line[8192];

	if (!f) {
		fprintf(stderr, "soak: %s: %s\n", path, strerror(errno));
		exit(2);
	}
	while (fgets(line, sizeof(line), f)) {
		char *text;

		line[strcspn(line, "#\n")] = 0;
		for (size_t end = strlen(line); end && line[end - 1] == ' '; end--)
			line[end - 1] = 0;
		if (!*line)
			continue;
		text = line + strcspn(line, " ");
		if (!*text)
			program_error(path, line, "a key and a value");
		*text++ = 0;
		if (!strcmp(line, "seed"))
			program.seed = program_number(path, line, text, 0, ~0UL);
		else if (!strcmp(line, "seconds"))
			program.seconds = program_number(path, line, text, 1, 1000000);
		else if (!strcmp(line, "processes"))
			program.processes = program_number(path, line, text, 1, MAX_PROCESSES);
		else if (!strcmp(line, "threads"))
			program.threads = program_number(path, line, text, 1, MAX_THREADS);
		else if (!strcmp(line, "series"))
			program.series = !strcmp(text, "yes");
		else if (!strcmp(line, "topic"))
			program.topic = strdup(text);
		else if (!strcmp(line, "calls"))
			program.calls = program_list(path, line, text, known_call);
		else if (!strcmp(line, "neighbours"))
			program.neighbours = program_list(path, line, text, known_neighbour);
		else if (!strcmp(line, "knobs"))
			program.knobs = program_list(path, line, text, NULL);
		else if (!strcmp(line, "apart"))
			program.apart = program_list(path, line, text, NULL);
		else
			program_error(path, line, "seed seconds processes threads series topic calls neighbours knobs apart");
	}
	fclose(f);
}

/*
 * Of each pair that is to be kept apart leave out the call or the neighbour,
 * for this round; a call with "-" for a neighbour is left out of each.
 */
static void round_keep_apart(struct rng *rng)
{
	char *copy, *save, *pair;

	shared->without[0] = 0;
	if (!program.apart)
		return;
	copy = strdup(program.apart);
	for (pair = strtok_r(copy, " ", &save); pair; pair = strtok_r(NULL, " ", &save)) {
		char *neighbour = strchr(pair, '/');

		if (!neighbour)
			continue;
		*neighbour++ = 0;
		if (!strcmp(neighbour, "-"))
			neighbour = pair;
		strcat(shared->without, rng_chance(rng, 50) ? pair : neighbour);
		strcat(shared->without, " ");
	}
	free(copy);
}

bool left_out(const char *name)
{
	return shared->without[0] && listed(shared->without, name);
}

/*
 * Changes of cpuset.mems, and activities that move pages to any node, policy or
 * not, as upstream has it; 0 while there is one.
 */
unsigned long policy_epoch(void)
{
	if (atomic_load(&shared->moving))
		return 0;
	return 1 + groups_policy_epoch() + atomic_load(&shared->policy_epoch);
}

static bool neighbour_moves_pages(const char *name)
{
	return strstr(name, "hotplug") || strstr(name, "offline") || strstr(name, "zswap") ||
	       strstr(name, "zram") || strstr(name, "damon");
}

struct running {
	pid_t pid;		/* 0: off */
	double until;		/* when to switch it off, or on */
	bool absent;		/* this kernel or machine has none of it */
};

static struct running *running;
static pid_t workers[MAX_PROCESSES];
static unsigned int restarts;

#define NEIGHBOUR_ABSENT	3

static void neighbour_run(const struct neighbour *neighbour, unsigned int number)
{
	struct rng rng = rng_stream(1000 + number + restarts * 7919UL);
	pid_t pid = fork();

	running[number].pid = pid;
	restarts++;
	if (pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, neighbour->name);
	signal(SIGTERM, SIG_IGN);
	if (!neighbour->start(&rng))
		_exit(NEIGHBOUR_ABSENT);
	while (!over() && atomic_load(&shared->neighbour_on[number])) {
		if (neighbour->tick)
			neighbour->tick(&rng);
		usleep(neighbour->pause_ms ? neighbour->pause_ms * 1000 : 100000);
	}
	neighbour->stop();
	_exit(0);
}

static void neighbours_tick(struct rng *rng)
{
	for (unsigned int i = 0; i < nr_neighbours; i++) {
		struct running *r = &running[i];

		if (r->absent || !listed(program.neighbours, neighbours[i].name) ||
		    left_out(neighbours[i].name))
			continue;
		if (now() < r->until)
			continue;
		if (r->pid) {
			atomic_store(&shared->neighbour_on[i], false);
			/* A fifth of them are on at a time, so that calls get to run. */
			r->until = now() + 5 + rng_below(rng, 60);
		} else {
			atomic_store(&shared->neighbour_on[i], true);
			if (neighbour_moves_pages(neighbours[i].name)) {
				atomic_fetch_add(&shared->moving, 1);
				atomic_fetch_add(&shared->policy_epoch, 1);
			}
			neighbour_run(&neighbours[i], i);
			r->until = now() + 2 + rng_below(rng, 15);
		}
	}
}

static void workers_start(unsigned int number)
{
	pid_t pid = fork();

	workers[number] = pid;
	restarts++;
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		worker_process(number, restarts);
		_exit(0);
	}
}

/* A process may end by itself, by a kill of ours, or for its group's memory.max. */
static void workers_reap(bool restart)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned int i = 0; i < nr_neighbours; i++) {
			if (running[i].pid != pid)
				continue;
			running[i].pid = 0;
			if (neighbour_moves_pages(neighbours[i].name))
				atomic_fetch_sub(&shared->moving, 1);
			if (WIFEXITED(status) && WEXITSTATUS(status) == NEIGHBOUR_ABSENT) {
				running[i].absent = true;
				say("no neighbour %s here", neighbours[i].name);
			} else if (WIFSIGNALED(status)) {
				neighbours[i].stop();
			}
		}
		for (unsigned int i = 0; i < program.processes; i++) {
			if (workers[i] != pid)
				continue;
			workers[i] = 0;
			worker_forget(i);
			if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
				violation("result", "process %u was killed by signal %d",
					  i, WTERMSIG(status));
			else if (restart && !over())
				workers_start(i);
		}
	}
}

static void neighbours_stop(void)
{
	double until = now() + GRACE_SECONDS, said = now();

	for (unsigned int i = 0; i < nr_neighbours; i++)
		atomic_store(&shared->neighbour_on[i], false);
	for (unsigned int i = 0; i < nr_neighbours; i++) {
		struct running *r = &running[i];

		while (r->pid && now() < until) {
			workers_reap(!over());
			usleep(20000);
			if (now() - said > PROGRESS_SECONDS) {
				said = now();
				say("the round is over; waits for neighbour %s", neighbours[i].name);
			}
		}
		if (r->pid) {
			violation("stuck", "neighbour %s does not end", neighbours[i].name);
			kill(r->pid, SIGKILL);
			r->pid = 0;
		}
	}
}

static void workers_stop(void)
{
	double until = now() + GRACE_SECONDS;
	bool alive = true;

	atomic_store(&shared->round_over, true);
	while (alive && now() < until) {
		workers_reap(false);
		alive = false;
		for (unsigned int i = 0; i < program.processes; i++)
			alive |= workers[i] != 0;
		usleep(20000);
	}
	if (alive)
		violation("stuck", "a process does not exit for %u s", GRACE_SECONDS);
	for (unsigned int i = 0; i < program.processes; i++)
		if (workers[i])
			kill(workers[i], SIGKILL);
}

static void progress(void)
{
	char on[512] = "";

	for (unsigned int i = 0; i < nr_neighbours; i++) {
		if (!running[i].pid || strlen(on) + strlen(neighbours[i].name) + 2 > sizeof(on))
			continue;
		strcat(on, " ");
		strcat(on, neighbours[i].name);
	}
	say("%lu calls, %u processes, canaries %s, neighbours:%s", worker_calls(false),
	    program.processes, worker_canaries(), on);
	worker_trail();
}

/*
 * The threads complete calls: all but the real-time ones, which may keep the
 * others of their CPU from it, but leave one CPU free.
 */
static void check_progress(void)
{
	static unsigned long last;
	static double since;
	unsigned long calls_now = worker_calls(true);

	if (calls_now != last || !since) {
		last = calls_now;
		since = now();
	} else if (now() - since > STUCK_SECONDS) {
		violation("stuck", "no SCHED_OTHER thread has completed a call for %d s",
			  STUCK_SECONDS);
	}
}

static void round_run(unsigned int number, double end)
{
	struct rng rng = rng_stream(10 + number);
	/* Knobs change in every other round, else the topics are on, with their defaults. */
	bool knobs_change = program.series && number % 2;
	double printed = now(), ticked = 0;

	/* A process may have been killed between swapoff() and swapon(). */
	swapon(SWAP_DEVICE, 0);
	atomic_store(&shared->moving, 0);
	round_keep_apart(&rng);
	atomic_store(&shared->round_over, false);
	atomic_store(&shared->knobs_change, knobs_change);
	if (program.series)
		knobs_default();
	for (unsigned int i = 0; i < nr_neighbours; i++)
		running[i].until = now() + rng_below(&rng, 40);
	for (unsigned int i = 0; i < program.processes; i++)
		workers_start(i);
	while (!over() && now() < end) {
		workers_reap(true);
		neighbours_tick(&rng);
		check_progress();
		worker_check_canaries();
		if (now() - ticked > 1) {
			ticked = now();
			if (program.series)
				sums_tick();
			if (knobs_change)
				knobs_random(&rng);
			if (!left_out("groups") && listed(program.neighbours, "groups"))
				groups_tick(&rng);
			groups_check();
			if (rng_chance(&rng, 3)) {
				pid_t pid = workers[rng_below(&rng, program.processes)];

				if (pid)
					kill(pid, SIGKILL);
			}
		}
		if (now() - printed > PROGRESS_SECONDS) {
			printed = now();
			progress();
		}
		usleep(50000);
	}
	neighbours_stop();
	groups_calm();
	workers_stop();
	if (program.series)
		knobs_default();
}

static void list(const char *kind)
{
	if (!strcmp(kind, "calls")) {
		for (unsigned int i = 0; i < nr_calls; i++)
			printf("%s%s\n", calls[i].name, calls[i].series ? " series" : "");
		puts("canary");
	} else if (!strcmp(kind, "neighbours")) {
		for (unsigned int i = 0; i < nr_neighbours; i++)
			puts(neighbours[i].name);
		puts("groups");
	} else if (!strcmp(kind, "knobs")) {
		knobs_list();
	} else {
		fprintf(stderr, "soak: cannot list '%s'; accepted: calls neighbours knobs\n", kind);
		exit(2);
	}
	exit(0);
}

static void report(void)
{
	if (!atomic_load(&shared->violated)) {
		printf("soak: clean after %.0f s, %lu calls\n", now() - shared->began,
		       worker_calls(false));
		return;
	}
	printf("soak: violation %s\n", shared->violation);
	worker_report(shared->violator);
}

int main(int argc, char **argv)
{
	double end;

	if (argc == 3 && !strcmp(argv[1], "--list"))
		list(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "--exit"))	/* after an exec() of a worker's child */
		return 0;
	if (argc != 2) {
		fprintf(stderr, "usage: soak PROGRAM-FILE | --list calls|neighbours|knobs\n");
		return 2;
	}
	program_read(argv[1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	/* Populated, so that no page of it is charged to a group. */
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	running = calloc(nr_neighbours, sizeof(*running));
	if (shared == MAP_FAILED || !running || nr_neighbours > MAX_NEIGHBOURS ||
	    nr_calls > MAX_CALLS) {
		perror("soak: memory");
		return 2;
	}
	shared->began = now();
	shared->violator = -1;
	end = shared->began + program.seconds;
	if (program.series)
		knobs_init();
	else
		knobs_off();
	if (!groups_init())
		say("no control groups");
	worker_init();
	sums_begin();
	for (unsigned int number = 0; !over() && now() < end; number++) {
		double round_end = now() + ROUND_SECONDS;

		round_run(number, round_end < end ? round_end : end);
		if (!atomic_load(&shared->violated))
			sums_end();
	}
	groups_exit();
	report();
	return atomic_load(&shared->violated);
}
