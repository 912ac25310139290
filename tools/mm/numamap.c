// SPDX-License-Identifier: GPL-2.0
/*
 * numamap - show on which NUMA nodes a process has its memory, live
 *
 * The address space is drawn as a grid of cells, coloured by node. Each frame
 * asks for the nodes of a few thousand sampled pages with one move_pages(2)
 * call that moves nothing (nodes == NULL), so a frame costs about the same
 * whatever the size of the process.
 *
 * The mappings are cut into areas. Those in which some pages are present lie
 * one after the other on an axis, which is divided into equal cells: a cell is
 * a stretch of a large area, or holds several small ones.
 *
 * A cell watches SLOTS pages, spread over its stretch. A page that is on
 * another node than the last time has moved, and its cell flashes. Every DWELL
 * passes a slot takes another page, so that in time all are seen; a node that
 * changes in that way is no move.
 */

#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define MAX_NODES	1024
#define MAX_CPUS	8192
#define MAX_TASKS	256	/* that one reading looks at */
#define SLOTS		8	/* pages that a cell watches */
#define DWELL		4	/* passes before a slot takes another page */
#define MIN_AREA	(2UL << 20)
#define PROBES		16384	/* to find the areas in use, about */
#define JSON_CELLS	1024
#define JSON_AREAS	1024
#define MAX_NAME	512	/* of a mapping, with the null byte */
#define NODE_ROWS	8
#define HISTORY_ROWS	8
#define GUTTER		13	/* columns for the address before a map row */

#define FLASH_S		0.4
#define TALLY_S		0.2	/* between two readings of tasks and counters */
#define TALLIES		6	/* a rate is over the last second */
#define LAYOUT_S	5.0	/* between two readings of the mappings */
#define MIN_LAYOUT_S	0.5	/* the same, for a process that grows */
#define MAX_COST	0.01	/* of a CPU, for each of these */

/* Instead of a node. */
#define ABSENT		-1	/* not mapped, swapped out, or the zero page */
#define NOT_ASKED	-2

static struct {
	double interval;
	unsigned long frames, samples;
	bool once, json, color, stats;
	int demo;			/* nodes */
} opt = { .interval = 0.05, .samples = 2048 };

static struct {
	pid_t pid;
	bool ours;			/* started by us */
	bool ended;
	int dir;			/* /proc/PID */
	char comm[32];
	double rss, size;
	unsigned int tasks;
} proc = { .comm = "demo" };

static struct {
	bool online;
	unsigned long held;		/* of the watched pages */
	unsigned int tasks, running;
	char cpus[48];			/* on which the tasks are */
} node[MAX_NODES];
static int nr_nodes;
static short node_of_cpu[MAX_CPUS];
static unsigned long present, absent;	/* of the watched pages */

/* From /proc/vmstat, so of the whole system, but for the last. */
enum counter { PTE_UPDATES, HINT_FAULTS, HINT_LOCAL, MIGRATED, MOVED,
	       NR_COUNTERS };
static const char * const vmstat_names[] = {
	[PTE_UPDATES] = "numa_pte_updates",
	[HINT_FAULTS] = "numa_hint_faults",
	[HINT_LOCAL] = "numa_hint_faults_local",
	[MIGRATED] = "numa_pages_migrated",
};

static struct tally {
	double time, count[NR_COUNTERS];
} tally[TALLIES];			/* the newest first */
static int nr_tallies;
static bool have_vmstat;
static double moved;			/* bytes, from the start */

static struct {
	int nodes;			/* 0: no such file */
	unsigned long windows[MAX_NODES];	/* that move to the node */
} queued;

struct area {
	unsigned long start, end;
	unsigned long pos;		/* on the axis */
	size_t name;			/* of the mapping, in axis.names */
};

static struct {
	struct area *area;
	size_t nr;
	char *names;			/* strings, one after the other */
	size_t names_len, names_room;
	unsigned long length;
	double rss, size;		/* of the process, when it was laid out */
	double next, late;		/* may be and must be laid out again */
} axis;

struct slot {
	unsigned long addr;		/* 0: none */
	int node;
};

struct cell {
	struct slot slot[SLOTS];
	double moved;			/* when */
	int node;			/* of most pages */
	int present;			/* pages */
};

static struct {
	struct cell *cell;
	size_t nr;
	unsigned long long asked;	/* slots, from the start */
	unsigned long samples;		/* slots, in this frame */
	bool fill;			/* ask for all slots at once */
} map;

static struct {
	size_t room;
	void **page;
	int *status;
} batch;

enum style { PLAIN, DIM, FULL, SPARSE, FLASH };

struct glyph {
	char ch;
	unsigned char style, color;
};

static struct {
	bool live, escapes, keys, foreground;
	int rows, cols, map_rows, map_col, map_cols, history_rows;
	struct glyph *want, *shown;
	struct glyph now;		/* what the terminal is set to */
	char line[512];
	struct termios termios;		/* as it was */
	bool termios_known;
} screen;

static struct past {
	double time, share[MAX_NODES], per_s[NR_COUNTERS];
} past[HISTORY_ROWS];			/* the newest last */
static int nr_past;

static double start_time;
static double now;			/* time of this frame, from the start */
static unsigned long frame;
static unsigned long page_size;
static sig_atomic_t stop;
static int signals;
static sigset_t ending;		/* signals that end us */

/* Helpers */

static void leave_screen(void);
static void end_command(void);

#define die(...) (leave_screen(), end_command(), errx(__VA_ARGS__))

/* For integers too: none here is above 2^53. */
static double min(double a, double b)
{
	return a < b ? a : b;
}

static double max(double a, double b)
{
	return a > b ? a : b;
}

static void *resize(void *mem, size_t nr, size_t size)
{
	mem = reallocarray(mem, max(nr, 1), size);
	if (!mem)
		die(1, "out of memory");
	return mem;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/*
 * When to do again what began at @began: after @interval, or later where it
 * would take too much of a CPU.
 */
static double next_time(double began, double interval)
{
	double rest = opt.demo ? 0 : (seconds() - began) / MAX_COST;

	return now + max(rest, interval);
}

/* A number from 0 to below 1 that is always the same for @key. */
static double scatter(uint64_t key)
{
	key *= 0x9e3779b97f4a7c15;
	key ^= key >> 32;
	key *= 0xd6e8feb86659fd93;
	return (key >> 32) / 4294967296.0;
}

/* The @n-th of numbers from 0 to below 1 that fill the range evenly. */
static double spread(unsigned int n, double from)
{
	double x = from + n % 4096 * 0.61803398874989485;

	return x - (unsigned int)x;
}

/* @n with a prefix, in one of a few buffers that take turns. */
static const char *amount(double n, unsigned int base)
{
	static char text[8][16];
	static unsigned int turn;
	const char *prefix = base == 1024 ? " KMGTPE" : " kMGTPE";
	char *s = text[turn++ % ARRAY_SIZE(text)];

	for (; n >= base * 0.9995 && prefix[1]; prefix++)
		n /= base;
	if (*prefix == ' ')
		snprintf(s, sizeof(text[0]), "%.0f", n);
	else
		snprintf(s, sizeof(text[0]), "%.1f%c%s", n, *prefix,
			 base == 1024 ? "i" : "");
	return s;
}

/* All of a small file, as a string; false if it cannot be read. */
static bool read_text(int dir, const char *path, char *text, size_t size)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t got;

	if (fd < 0)
		return false;
	do {
		got = read(fd, text + len, size - 1 - len);
		len += max(got, 0);
	} while (got > 0);
	close(fd);
	text[len] = '\0';
	return got == 0;
}

static void find_nodes(void)
{
	char path[64], list[4096], *s;

	for (int n = 0; n < MAX_NODES; n++) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/node/node%d/cpulist", n);
		node[n].online = opt.demo ? n < opt.demo :
			read_text(AT_FDCWD, path, list, sizeof(list));
		nr_nodes += node[n].online;
		if (opt.demo || !node[n].online)
			continue;
		for (s = list; isdigit(*s); s += *s == ',') {
			long cpu = strtol(s, &s, 10);
			long last = *s == '-' ? strtol(s + 1, &s, 10) : cpu;

			while (cpu <= last && cpu < MAX_CPUS)
				node_of_cpu[cpu++] = n;
		}
	}
	if (!nr_nodes)
		node[nr_nodes++].online = true;
}

/*
 * The demo: a process that does not exist. Its blocks of 2 MiB start scattered
 * over the nodes. Then, in rounds, each goes to the node that its part of the
 * area belongs to, another one every round.
 */

#define DEMO_START	0x10000000UL
#define DEMO_SIZE	(3UL << 30)
#define DEMO_ROUND_S	20
#define DEMO_MOVE_S	15	/* of a round; then nothing moves */

/* Of parts of equal size. */
static const char * const demo_names[] = {
	"[heap]", "[heap]", "[heap]", "/var/lib/demo/index",
	"/var/lib/demo/index", "", "[anon:cache]", "[anon:cache]",
};

static int demo_page(unsigned long addr)
{
	double chance = scatter(addr >> 21), order = scatter(~addr >> 21);
	int round = now / DEMO_ROUND_S;
	int home = (addr - DEMO_START) / (DEMO_SIZE / opt.demo);

	if (now - round * DEMO_ROUND_S > order * DEMO_MOVE_S)
		round++;
	if (chance > 0.95)
		return -ENOENT;
	return round ? (home + round - 1) % opt.demo :
		       (int)(chance * 4096) % opt.demo;
}

static void demo_tally(double *count)
{
	int round = now / DEMO_ROUND_S;
	double done = min((now - round * DEMO_ROUND_S) / DEMO_MOVE_S, 1);

	proc.size = DEMO_SIZE;
	proc.rss = DEMO_SIZE * 0.95;
	proc.tasks = 2 * opt.demo;
	have_vmstat = true;
	count[MIGRATED] = (round + done) * proc.rss / page_size;
	count[HINT_FAULTS] = 3 * count[MIGRATED];
	count[HINT_LOCAL] = 2 * count[MIGRATED];
	count[PTE_UPDATES] = 4 * count[MIGRATED];
	queued.nodes = opt.demo;
	for (int n = 0; n < opt.demo; n++) {
		node[n].tasks = 2;
		node[n].running = 1 + ((int)now + n) % 2;
		sprintf(node[n].cpus, "%d,%d", 2 * n, 2 * n + 1);
		queued.windows[n] = 8 * (1 - done);
	}
}

/* The process */

/* Say what an error means; that a process we know has ended is none. */
static void query_failed(int err)
{
	if ((frame || proc.ours) && (err == ESRCH || err == EINVAL)) {
		proc.ended = true;
		return;
	}
	if (err == ESRCH)
		die(1, "process %d does not exist", proc.pid);
	if (err == EPERM || err == EACCES)
		die(1, "may not look at process %d: run as its user or with CAP_SYS_PTRACE",
		    proc.pid);
	if (err == EINVAL)
		die(1, "process %d has no memory: a kernel thread, or it is exiting",
		    proc.pid);
	die(1, "cannot find the nodes of pages: %s (does the kernel have NUMA?)",
	    strerror(err));
}

/* Get the nodes of the first @nr pages of the batch. */
static bool query_pages(size_t nr)
{
	if (opt.demo) {
		for (size_t i = 0; i < nr; i++)
			batch.status[i] = demo_page((uintptr_t)batch.page[i]);
		return true;
	}
	if (!syscall(SYS_move_pages, proc.pid, nr, batch.page, NULL,
		     batch.status, 0))
		return true;
	query_failed(errno);
	return false;
}

static void open_process(void)
{
	char path[32];

	if (opt.demo)
		return;
	/* To ask for no page at all tells whether we may ask. */
	query_pages(0);
	snprintf(path, sizeof(path), "/proc/%d", proc.pid);
	proc.dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc.dir < 0)
		query_failed(errno == ENOENT ? ESRCH : errno);
}

/* Run a command to look at, without its output where it would spoil ours. */
static void start_command(char **argv)
{
	posix_spawn_file_actions_t fds;
	int err;

	posix_spawn_file_actions_init(&fds);
	posix_spawn_file_actions_addopen(&fds, 0, "/dev/null", O_RDONLY, 0);
	if (screen.live)
		posix_spawn_file_actions_addopen(&fds, 2, "/dev/null",
						 O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&fds, 2, 1);
	err = posix_spawnp(&proc.pid, argv[0], &fds, NULL, argv, environ);
	if (err)
		die(127, "cannot run %s: %s", argv[0], strerror(err));
	posix_spawn_file_actions_destroy(&fds);
	proc.ours = true;
}

static void end_command(void)
{
	if (proc.ours)
		kill(proc.pid, SIGTERM);
}

/* The CPU of a task from its stat file, and whether it is running there. */
static int cpu_of_task(const char *stat, bool *running)
{
	const char *s = strrchr(stat, ')');

	*running = s && s[1] == ' ' && s[2] == 'R';
	/* The name was field 2, the CPU is field 39. */
	for (int field = 2; s && field < 39; field++)
		s = strchr(s + 1, ' ');
	return s ? atoi(s + 1) : -1;
}

static void read_tasks(void)
{
	int fd = openat(proc.dir, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	bool seen[MAX_CPUS] = { false }, running;
	char path[300], text[1024];
	struct dirent *entry;

	if (!dir)
		return;
	for (int n = 0; n < MAX_NODES; n++) {
		node[n].tasks = 0;
		node[n].running = 0;
		node[n].cpus[0] = '\0';
	}
	proc.tasks = 0;
	while ((entry = readdir(dir))) {
		int cpu, n;

		if (!isdigit(entry->d_name[0]) || proc.tasks++ >= MAX_TASKS)
			continue;
		snprintf(path, sizeof(path), "%s/stat", entry->d_name);
		if (!read_text(fd, path, text, sizeof(text)))
			continue;
		cpu = cpu_of_task(text, &running);
		if (cpu < 0 || cpu >= MAX_CPUS)
			continue;
		n = node_of_cpu[cpu];
		node[n].tasks++;
		node[n].running += running;
		seen[cpu] = true;
	}
	closedir(dir);

	for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
		char *cpus = node[node_of_cpu[cpu]].cpus;
		size_t len;

		if (!seen[cpu])
			continue;
		len = strlen(cpus);
		if (len < sizeof(node[0].cpus) - 6)
			sprintf(cpus + len, "%s%d", len ? "," : "", cpu);
	}
}

static void read_vmstat(double *count)
{
	char text[32768], name[32], *s;

	have_vmstat = read_text(AT_FDCWD, "/proc/vmstat", text, sizeof(text));
	for (size_t i = 0; have_vmstat && i < ARRAY_SIZE(vmstat_names); i++) {
		snprintf(name, sizeof(name), "\n%s ", vmstat_names[i]);
		s = strstr(text, name);
		have_vmstat = s;
		count[i] = s ? strtod(s + strlen(name), NULL) : 0;
	}
}

/* The windows that wait for knuma, if the kernel has it: a line for each node. */
static void read_queues(void)
{
	char text[4096], *s = text;

	queued.nodes = 0;
	if (!read_text(AT_FDCWD, "/sys/kernel/debug/knuma/queued", text,
		       sizeof(text)))
		return;
	for (; isdigit(*s); s += strspn(s, "\n")) {
		int to = min(strtoul(s, &s, 10), MAX_NODES - 1UL);

		queued.nodes = max(queued.nodes, to + 1);
		queued.windows[to] = strtoul(s, &s, 10);
		s += strcspn(s, "\n");
	}
}

static void read_sizes(void)
{
	char text[256];
	double size, rss;

	if (!read_text(proc.dir, "statm", text, sizeof(text)) ||
	    sscanf(text, "%lf %lf", &size, &rss) != 2) {
		proc.ended = true;
		return;
	}
	proc.size = size * page_size;
	proc.rss = rss * page_size;
	if (read_text(proc.dir, "comm", proc.comm, sizeof(proc.comm)))
		proc.comm[strcspn(proc.comm, "\n")] = '\0';
}

/* Read all but the memory. */
static void read_tally(void)
{
	struct tally t = { .time = now };

	if (opt.demo) {
		demo_tally(t.count);
	} else {
		read_sizes();
		read_tasks();
		read_vmstat(t.count);
		read_queues();
	}
	t.count[MOVED] = moved;
	memmove(tally + 1, tally, sizeof(tally) - sizeof(t));
	tally[0] = t;
	nr_tallies = min(nr_tallies + 1, TALLIES);
}

/*
 * By how much a counter grows in a second: over the last one, or since the last
 * reading if that is longer ago.
 */
static double rate(enum counter c)
{
	const struct tally *old = tally;
	double time = 0;

	for (int i = 1; i < nr_tallies && time < 1 - TALLY_S / 2; i++)
		time = tally[0].time - (++old)->time;
	return time ? (tally[0].count[c] - old->count[c]) / time : 0;
}

/* The axis */

static void grow_batch(size_t nr)
{
	if (nr <= batch.room)
		return;
	batch.room = nr;
	batch.page = resize(batch.page, nr, sizeof(*batch.page));
	batch.status = resize(batch.status, nr, sizeof(*batch.status));
}

/* Store the name of the next area and return its offset in axis.names. */
static size_t add_name(const char *name)
{
	size_t all = strlen(name), len = min(all, MAX_NAME - 1);
	size_t offset = axis.names_len;

	/* The end of a path tells more than its start. */
	name += all - len;
	/* The parts of a file often follow each other. */
	if (axis.nr && !strcmp(name, axis.names + axis.area[axis.nr - 1].name))
		return axis.area[axis.nr - 1].name;
	axis.names_len += len + 1;
	if (axis.names_len > axis.names_room) {
		axis.names_room = 2 * axis.names_len;
		axis.names = resize(axis.names, axis.names_room, 1);
	}
	return strcpy(axis.names + offset, name) - axis.names;
}

/*
 * Add a mapping, cut into areas that are small for the process, but not too
 * many even if it is a reservation of terabytes.
 */
static void add_mapping(unsigned long start, unsigned long end,
			const char *name)
{
	unsigned long piece = max(axis.rss / 256, (end - start) / 4096);
	size_t offset = add_name(name);

	piece = max(piece - piece % page_size, MIN_AREA);
	while (start < end) {
		struct area a = { .start = start, .end = end, .name = offset };

		if (end - start > piece)
			a.end = start + piece;
		start = a.end;
		if (axis.nr % 64 == 0)
			axis.area = resize(axis.area, axis.nr + 64,
					   sizeof(*axis.area));
		axis.area[axis.nr++] = a;
	}
}

/* Read the mappings that can have pages; vsyscall, vvar and vdso have none. */
static void read_mappings(void)
{
	int fd = openat(proc.dir, "maps", O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	char *line = NULL;
	size_t room = 0;

	if (!file) {
		query_failed(errno);
		return;
	}
	while (getline(&line, &room, file) > 0) {
		unsigned long start, end;
		char mode[8];
		int name = 0;

		line[strcspn(line, "\n")] = '\0';
		/* The name is behind the offset, the device and the inode. */
		if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %n", &start, &end,
			   mode, &name) == 3 &&
		    strncmp(mode, "---", 3) && strncmp(line + name, "[v", 2))
			add_mapping(start, end, line + name);
	}
	free(line);
	fclose(file);
}

static void add_demo_mappings(void)
{
	unsigned long size = DEMO_SIZE / ARRAY_SIZE(demo_names);

	for (size_t i = 0; i < ARRAY_SIZE(demo_names); i++)
		add_mapping(DEMO_START + i * size, DEMO_START + (i + 1) * size,
			    demo_names[i]);
}

static void *page_in(const struct area *a, double offset)
{
	unsigned long last = (a->end - a->start) / page_size - 1;
	unsigned long n = min(offset / page_size, last);

	return (void *)(a->start + n * page_size);
}

/* Put a few pages of each area into the batch. Return how many of each. */
static size_t pick_probes(void)
{
	static unsigned int turn;
	size_t each = min(max(PROBES / max(axis.nr, 1), 1), 8);

	grow_batch(axis.nr * each);
	for (size_t i = 0; i < axis.nr * each; i++) {
		const struct area *a = &axis.area[i / each];

		batch.page[i] = page_in(a, (a->end - a->start) *
					spread(turn + i % each,
					       scatter(a->start)));
	}
	turn += each;
	return each;
}

/*
 * Leave out the areas in which no probe was present, for without that a huge
 * reservation would leave no room for the memory in use. One of the @nr @old
 * areas stays: the map is not to sway with the luck of the probes.
 */
static void drop_unused(const struct area *old, size_t nr)
{
	size_t each = pick_probes(), kept = 0, o = 0;

	if (!query_pages(axis.nr * each))
		return;
	axis.length = 0;
	for (size_t i = 0; i < axis.nr; i++) {
		struct area a = axis.area[i];
		bool used;

		while (o < nr && old[o].end <= a.start)
			o++;
		used = o < nr && old[o].start < a.end;
		for (size_t p = 0; p < each; p++)
			used |= batch.status[i * each + p] >= 0;
		if (!used)
			continue;
		a.pos = axis.length;
		axis.length += a.end - a.start;
		axis.area[kept++] = a;
	}
	axis.nr = kept;
}

/* Begin with new slots, and fill them in this frame. */
static void clear_slots(void)
{
	for (size_t c = 0; c < map.nr; c++) {
		for (int s = 0; s < SLOTS; s++)
			map.cell[c].slot[s] = (struct slot){
				.node = NOT_ASKED };
	}
	for (int n = 0; n < MAX_NODES; n++)
		node[n].held = 0;
	present = 0;
	absent = 0;
	map.fill = true;
}

/* Whether @a and @b differ by more than a sixteenth. */
static bool far(double a, double b)
{
	return a > b + b / 16 || b > a + a / 16;
}

/* Compare the addresses only: the slots need not be cleared for a new name. */
static bool same_areas(const struct area *old, size_t nr)
{
	bool same = axis.nr == nr;

	for (size_t i = 0; same && i < nr; i++)
		same = axis.area[i].start == old[i].start &&
		       axis.area[i].end == old[i].end;
	return same;
}

/* Neither to read the mappings nor to fill the slots is to cost too much. */
static void put_off_layout(double began)
{
	axis.next = max(axis.next, next_time(began, MIN_LAYOUT_S));
	axis.late = max(axis.late, next_time(began, LAYOUT_S));
}

/* Lay the areas out on the axis, anew if the process is no longer the same. */
static void lay_out(void)
{
	/* Of two looks, the second one may find another program. */
	bool anew = opt.once || far(proc.rss, axis.rss) ||
		    far(proc.size, axis.size);
	struct area *old = axis.area;
	size_t nr = axis.nr;
	double began = seconds();

	if (!opt.once && now < (anew ? axis.next : axis.late))
		return;
	if (anew) {
		axis.rss = proc.rss;
		axis.size = proc.size;
	}
	axis.area = NULL;
	axis.nr = 0;
	axis.names_len = 0;
	if (opt.demo)
		add_demo_mappings();
	else
		read_mappings();
	drop_unused(old, anew ? 0 : nr);
	if (!same_areas(old, nr))
		clear_slots();
	free(old);
	put_off_layout(began);
}

/* The index of the area at @pos on the axis. */
static size_t area_at(double pos)
{
	size_t low = 0, high = axis.nr;

	while (high - low > 1) {
		size_t mid = (low + high) / 2;

		if (axis.area[mid].pos <= pos)
			low = mid;
		else
			high = mid;
	}
	return low;
}

static void *page_at(double pos)
{
	const struct area *a = &axis.area[area_at(pos)];

	return page_in(a, pos - a->pos);
}

/* The name that has most of the axis from @from to @to, in one stretch. */
static const char *name_of_most(double from, double to)
{
	const char *name = "";
	double most = 0, length = 0;

	for (size_t first = area_at(from), i = first;
	     i < axis.nr && axis.area[i].pos < to; i++) {
		const struct area *a = &axis.area[i];

		if (i > first && a->name != a[-1].name)
			length = 0;
		length += min(a->pos + (a->end - a->start), to) -
			  max(a->pos, from);
		if (length > most) {
			most = length;
			name = axis.names + a->name;
		}
	}
	return name;
}

/* The cells */

static void set_cells(size_t nr)
{
	if (nr == map.nr)
		return;
	map.cell = resize(map.cell, nr, sizeof(*map.cell));
	map.nr = nr;
	for (size_t c = 0; c < nr; c++)
		map.cell[c] = (struct cell){ .node = ABSENT, .moved = -1 };
	clear_slots();
}

/* Show the node of most pages of a cell; of two, the one that it shows now. */
static void elect_node(struct cell *cell)
{
	int best = ABSENT, best_votes = 0;

	cell->present = 0;
	for (int s = 0; s < SLOTS; s++) {
		int n = cell->slot[s].node, votes = n == cell->node;

		if (n < 0)
			continue;
		cell->present++;
		for (int other = 0; other < SLOTS; other++)
			votes += 2 * (cell->slot[other].node == n);
		if (votes > best_votes) {
			best_votes = votes;
			best = n;
		}
	}
	cell->node = best;
}

static void count_slot(const struct slot *slot, int by)
{
	if (slot->node >= 0) {
		node[slot->node].held += by;
		present += by;
	} else if (slot->node == ABSENT) {
		absent += by;
	}
}

static void take_answer(struct cell *cell, struct slot *slot, void *page,
			int status)
{
	bool same_page = slot->addr == (uintptr_t)page;
	int was = slot->node;

	count_slot(slot, -1);
	slot->addr = (uintptr_t)page;
	slot->node = status >= 0 && status < MAX_NODES ? status : ABSENT;
	count_slot(slot, 1);
	if (was == slot->node)
		return;
	elect_node(cell);
	if (same_page && was >= 0 && slot->node >= 0) {
		cell->moved = now;
		/* A move goes unseen if the slot takes another page. */
		moved += proc.rss / present * DWELL / (DWELL - 1);
	}
}

/* Ask for the next slots: one of each cell, then the next one of each. */
static void sample(void)
{
	size_t slots = map.nr * SLOTS;
	size_t nr = map.fill ? slots : min(opt.samples, slots);
	double began = seconds();

	map.samples = 0;
	if (!axis.nr)
		return;
	grow_batch(nr);
	for (size_t i = 0; i < nr; i++) {
		unsigned long long turn = map.asked + i, pass = turn / slots;
		size_t c = turn % map.nr, s = turn % slots / map.nr;
		uintptr_t addr = map.cell[c].slot[s].addr;
		double in_slot, in_cell;

		batch.page[i] = (void *)addr;
		if (addr && (pass + c + s) % DWELL)
			continue;
		in_slot = spread(pass / DWELL, scatter(c * SLOTS + s));
		in_cell = (s + in_slot) / SLOTS;
		batch.page[i] = page_at((c + in_cell) * axis.length / map.nr);
	}
	if (!query_pages(nr))
		return;
	for (size_t i = 0; i < nr; i++, map.asked++) {
		struct cell *cell = &map.cell[map.asked % map.nr];
		size_t s = map.asked % slots / map.nr;

		take_answer(cell, &cell->slot[s], batch.page[i],
			    batch.status[i]);
	}
	if (map.fill)
		put_off_layout(began);
	map.fill = false;
	map.samples = nr;
}

static double share_of(int n)
{
	return present ? (double)node[n].held / present : 0;
}

/* The screen */

static char node_digit(int n)
{
	static const char digits[] =
		"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

	return n < 0 ? '.' : n < 62 ? digits[n] : '#';
}

static void put(int row, int col, struct glyph g)
{
	if (row < screen.rows && col < screen.cols)
		screen.want[row * screen.cols + col] = g;
}

/* Put the line, with something for what a terminal could not show. */
static int put_line(int row, int col)
{
	for (const char *s = screen.line; *s; s++) {
		struct glyph g = { .ch = *s >= ' ' && *s <= '~' ? *s : '?' };

		put(row, col++, g);
	}
	return col;
}

/* Return the column after the text. */
#define put_text(row, col, ...)						\
	(snprintf(screen.line, sizeof(screen.line), __VA_ARGS__),	\
	 put_line(row, col))

static void put_node(int row, int col, int n, enum style style)
{
	struct glyph g = { .ch = node_digit(n), .style = DIM };

	if (n >= 0) {
		g.style = style;
		g.color = style == FLASH ? 0 : n % 6;
	}
	put(row, col, g);
}

static void put_header(void)
{
	const char *quit = screen.keys ? "  (q quits)" : "";
	double faults = rate(HINT_FAULTS);
	int col;

	put_text(0, 0, "numamap %d %s  RSS %sB  tasks %u  %.0f s%s", proc.pid,
		 proc.comm, amount(proc.rss, 1024), proc.tasks, now, quit);
	col = put_text(1, 0, "moved ~%sB/s; system moves ",
		       amount(rate(MOVED), 1024));
	if (!have_vmstat) {
		put_text(1, col, "no NUMA balancing");
		return;
	}
	put_text(1, col, "%sB/s, faults %s/s %.0f%% local, PTEs %s/s",
		 amount(rate(MIGRATED) * page_size, 1024),
		 amount(faults, 1000),
		 faults ? 100 * rate(HINT_LOCAL) / faults : 0,
		 amount(rate(PTE_UPDATES), 1000));
}

/* Put a name to the right of the map; of a long path, its last part. */
static void put_name(int row, const char *name)
{
	int col = screen.map_col + screen.map_cols + 1;
	const char *slash = strrchr(name, '/');

	if (slash && *name != '[' && col + (int)strlen(name) > screen.cols)
		name = slash + 1;
	put_text(row, col, "%s", name);
}

static void put_map(int row)
{
	for (size_t c = 0; c < map.nr; c++) {
		const struct cell *cell = &map.cell[c];
		int y = row + c / screen.map_cols, x = c % screen.map_cols;
		enum style style = cell->present < SLOTS / 2 ? SPARSE : FULL;

		if (!x && screen.map_col && axis.nr) {
			double pos = (double)c * axis.length / map.nr;
			double length = (double)axis.length / screen.map_rows;

			put_text(y, 0, "%12lx", (unsigned long)page_at(pos));
			put_name(y, name_of_most(pos, pos + length));
		}
		if (cell->moved >= 0 && now - cell->moved < FLASH_S)
			style = FLASH;
		put_node(y, screen.map_col + x, cell->node, style);
	}
}

static void put_node_rows(int row)
{
	int width = screen.cols / 3, end = row + min(nr_nodes, NODE_ROWS);

	for (int n = 0; n < MAX_NODES && row < end; n++) {
		double share = share_of(n);

		if (!node[n].online ||
		    (nr_nodes > NODE_ROWS && !share && !node[n].tasks))
			continue;
		put_text(row, 0, "node %d", n);
		for (int x = 0; x < width; x++)
			put_node(row, 9 + x, x + 0.5 < share * width ? n :
				 ABSENT, FULL);
		put_text(row++, 10 + width, "%5.1f%% ~%sB  tasks %u, run %u%s%s",
			 share * 100, amount(share * proc.rss, 1024),
			 node[n].tasks, node[n].running,
			 node[n].tasks ? ", CPU " : "", node[n].cpus);
	}
}

static void put_queues(int row)
{
	unsigned long total = 0;
	int col = put_text(row, 0, "windows queued (system)");

	for (int to = 0; to < queued.nodes; to++) {
		total += queued.windows[to];
		if (queued.windows[to])
			col = put_text(row, col, "  to %d: %lu", to,
				       queued.windows[to]);
	}
	if (!total)
		put_text(row, col, "  0");
}

/* A line for each of the last seconds: the shares of the nodes, and rates. */
static void put_history(int row)
{
	int width = screen.cols / 4;

	for (int i = max(nr_past - screen.history_rows, 0); i < nr_past; i++) {
		const struct past *p = &past[i];
		double sum = p->share[0];
		int n = 0;

		put_text(row, 0, "%6.0f s", p->time);
		for (int x = 0; x < width; x++) {
			while (n < MAX_NODES - 1 && sum * width < x + 0.5)
				sum += p->share[++n];
			put_node(row, 9 + x, p->share[n] ? n : ABSENT, FULL);
		}
		put_text(row++, 10 + width,
			 "~%sB/s; system moves %sB/s, %s faults/s",
			 amount(p->per_s[MOVED], 1024),
			 amount(p->per_s[MIGRATED] * page_size, 1024),
			 amount(p->per_s[HINT_FAULTS], 1000));
	}
}

static void note_past(void)
{
	static double next = 1;
	struct past *p;

	if (now < next)
		return;
	next = (long)now + 1;
	if (nr_past == HISTORY_ROWS)
		memmove(past, past + 1, --nr_past * sizeof(*past));
	p = &past[nr_past++];
	p->time = now;
	for (int n = 0; n < MAX_NODES; n++)
		p->share[n] = share_of(n);
	for (int i = 0; i < NR_COUNTERS; i++)
		p->per_s[i] = rate(i);
}

/* Give each part its rows, and the map the rest. */
static void plan_screen(void)
{
	int left = screen.rows - 2 - min(nr_nodes, NODE_ROWS) - !!queued.nodes;

	screen.history_rows = screen.live ?
		max(min(left / 3, HISTORY_ROWS), 0) : 0;
	screen.map_rows = max(left - screen.history_rows, 1);
	screen.map_col = screen.cols >= 40 ? GUTTER : 0;
	screen.map_cols = screen.cols - screen.map_col -
			  (screen.cols >= 80 ? screen.cols / 5 : 0);
	set_cells(opt.json ? JSON_CELLS : screen.map_rows * screen.map_cols);
}

static void compose_screen(void)
{
	int row = 2 + screen.map_rows;

	for (int i = 0; i < screen.rows * screen.cols; i++)
		screen.want[i] = (struct glyph){ .ch = ' ' };
	put_header();
	put_map(2);
	put_node_rows(row);
	row += min(nr_nodes, NODE_ROWS);
	if (queued.nodes)
		put_queues(row++);
	put_history(row);
}

static void print_glyph(struct glyph g)
{
	/* blue, green, magenta, yellow, cyan, red, and white or black on it */
	static const char back[] = "425361", text[] = "707007";

	if (screen.escapes && (g.style != screen.now.style ||
			       g.color != screen.now.color)) {
		if (g.style == DIM)
			printf("\033[0;2m");
		else if (g.style == FLASH)
			printf("\033[0;1;7m");
		else if (g.style == FULL && opt.color)
			printf("\033[0;3%c;4%cm", text[g.color], back[g.color]);
		else if (g.style == SPARSE && opt.color)
			printf("\033[0;3%cm", back[g.color]);
		else
			printf("\033[0m");
		screen.now = g;
	}
	putchar(g.ch);
}

/* Print what is not as in the last frame, so that a serial line keeps up. */
static void print_changes(void)
{
	int cursor = -1;

	/* A character in the last place would scroll some terminals. */
	for (int i = 0; i < screen.rows * screen.cols - 1; i++) {
		if (!memcmp(&screen.want[i], &screen.shown[i],
			    sizeof(struct glyph)))
			continue;
		if (cursor < 0 || i / screen.cols != cursor / screen.cols)
			printf("\033[%d;%dH", i / screen.cols + 1,
			       i % screen.cols + 1);
		else if (i != cursor)
			printf("\033[%dC", i - cursor);
		print_glyph(screen.want[i]);
		screen.shown[i] = screen.want[i];
		/* At the end of a row, terminals differ in where it is. */
		cursor = (i + 1) % screen.cols ? i + 1 : -1;
	}
}

static void print_lines(void)
{
	for (int row = 0; row < screen.rows; row++) {
		const struct glyph *line = &screen.want[row * screen.cols];
		int end = screen.cols;

		while (end && line[end - 1].ch == ' ')
			end--;
		for (int col = 0; col < end; col++)
			print_glyph(line[col]);
		print_glyph((struct glyph){ .ch = '\n' });
	}
}

/* JSON */

static void print_json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if (*s < ' ' || *s > '~')
			printf("\\u%04x", (unsigned char)*s);
		else
			putchar(*s);
	}
	putchar('"');
}

/* Print adjacent pieces of mappings that have the same name as one area. */
static void print_json_areas(void)
{
	size_t next;

	printf(",\"areas\":[");
	for (size_t i = 0, nr = 0; i < axis.nr && nr < JSON_AREAS; i = next) {
		const struct area *a = axis.area;

		for (next = i + 1; next < axis.nr; next++)
			if (a[next].start != a[next - 1].end ||
			    a[next].name != a[i].name)
				break;
		printf("%s{\"start\":\"%lx\",\"end\":\"%lx\",\"name\":",
		       nr++ ? "," : "", a[i].start, a[next - 1].end);
		print_json_string(axis.names + a[i].name);
		putchar('}');
	}
	putchar(']');
}

static void print_json(void)
{
	const char *comma = "";

	printf("{\"time_s\":%.3f,\"pid\":%d,\"comm\":", now, proc.pid);
	print_json_string(proc.comm);
	printf(",\"rss_kib\":%.0f,\"tasks\":%u,\"nodes\":[", proc.rss / 1024,
	       proc.tasks);
	for (int n = 0; n < MAX_NODES; n++) {
		if (!node[n].online)
			continue;
		printf("%s{\"node\":%d,\"share\":%.4f,\"estimate_kib\":%.0f,",
		       comma, n, share_of(n), share_of(n) * proc.rss / 1024);
		printf("\"cpus\":\"%s\",\"tasks\":%u,\"running\":%u}",
		       node[n].cpus, node[n].tasks, node[n].running);
		comma = ",";
	}
	printf("],\"absent_share\":%.4f,\"samples\":%lu,\"moved_kib_per_s\":%.1f",
	       present + absent ? (double)absent / (present + absent) : 0,
	       map.samples, rate(MOVED) / 1024);
	for (size_t i = 0; have_vmstat && i < ARRAY_SIZE(vmstat_names); i++)
		printf(",\"%s_per_s\":%.1f", vmstat_names[i] + strlen("numa_"),
		       rate(i));
	printf(",\"cells\":\"");
	for (size_t c = 0; c < map.nr; c++)
		putchar(node_digit(map.cell[c].node));
	putchar('"');
	print_json_areas();
	for (int to = 0; to < queued.nodes; to++)
		printf("%s%lu%s", to ? "," : ",\"queued\":[", queued.windows[to],
		       to == queued.nodes - 1 ? "]" : "");
	printf("}\n");
}

/* The terminal */

static void redraw(void)
{
	printf("\033[0m\033[2J");
	screen.now = (struct glyph){ .style = PLAIN };
	for (int i = 0; i < screen.rows * screen.cols; i++)
		screen.shown[i] = (struct glyph){ .ch = ' ' };
}

/* A serial console does not know its size; @name may tell it. */
static int length_of(int known, const char *name, int otherwise)
{
	const char *value = getenv(name);

	if (known <= 0)
		known = value ? atoi(value) : 0;
	return min(known > 0 ? known : otherwise, 500);
}

static void size_screen(void)
{
	struct winsize ws = { 0 };
	size_t nr;

	ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws);
	screen.rows = length_of(ws.ws_row, "LINES", 24);
	screen.cols = length_of(ws.ws_col, "COLUMNS", 80);
	/* Leave a row for the prompt. */
	if (opt.once && screen.rows > 1)
		screen.rows--;
	nr = screen.rows * screen.cols;
	screen.want = resize(screen.want, nr, sizeof(struct glyph));
	screen.shown = resize(screen.shown, nr, sizeof(struct glyph));
	if (screen.live)
		redraw();
}

/* A job in the background may not touch the terminal. */
static bool in_foreground(void)
{
	return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static void enter_screen(void)
{
	struct termios raw;

	size_screen();
	if (!screen.live)
		return;
	printf("\033[?25l");
	screen.keys = false;
	screen.foreground = in_foreground();
	if (!screen.foreground)
		return;
	if (!screen.termios_known)
		screen.termios_known = !tcgetattr(STDIN_FILENO, &screen.termios);
	raw = screen.termios;
	raw.c_lflag &= ~(ICANON | ECHO);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	screen.keys = screen.termios_known &&
		      !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

static void leave_screen(void)
{
	if (!screen.live || !screen.rows)
		return;
	printf("\033[0m\033[%d;1H\033[?25h\n", screen.rows);
	fflush(stdout);
	if (screen.termios_known && in_foreground())
		tcsetattr(STDIN_FILENO, TCSANOW, &screen.termios);
}

static void interrupted(int sig)
{
	(void)sig;
	stop = true;
}

/* Who has us ignore a signal, as nohup does, means it. */
static void catch_signals(void)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM,
				    SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT,
				    SIGWINCH };
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct sigaction act;
	sigset_t set;

	sigemptyset(&set);
	sigemptyset(&ending);
	sigaddset(&set, SIGPIPE);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		if (!sigaction(sigs[i], NULL, &act) && act.sa_handler != SIG_IGN)
			sigaddset(&set, sigs[i]);
	act = (struct sigaction){ .sa_handler = interrupted };
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		if (!sigismember(&set, ends[i]))
			continue;
		sigaction(ends[i], &act, NULL);
		sigaddset(&ending, ends[i]);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (signals < 0)
		die(1, "signalfd: %s", strerror(errno));
}

/* Let the shell have the terminal while we are stopped. */
static void suspend(void)
{
	sigset_t set;

	leave_screen();
	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	raise(SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	enter_screen();
}

static void read_key(void)
{
	char key;

	if (read(STDIN_FILENO, &key, 1) != 1)
		screen.keys = false;
	else if (key == 'q')
		stop = true;
	else if (key == 'r' || key == '\f')
		redraw();
}

static void read_signal(void)
{
	struct signalfd_siginfo info;

	if (read(signals, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGWINCH)
		size_screen();
	else if (info.ssi_signo == SIGCONT)
		enter_screen();
	else if (info.ssi_signo == SIGTSTP)
		suspend();
	else
		stop = true;
}

static void wait_until(double deadline)
{
	double left;

	if (screen.live && in_foreground() != screen.foreground)
		enter_screen();
	do {
		struct pollfd fds[] = {
			{ .fd = signals, .events = POLLIN },
			{ .fd = STDIN_FILENO, .events = POLLIN },
		};

		left = max(deadline - seconds(), 0);
		poll(fds, screen.keys ? 2 : 1, left ? left * 1000 + 1 : 0);
		if (fds[0].revents)
			read_signal();
		if (fds[1].revents)
			read_key();
	} while (!stop && left);
}

/* The frames */

static void look(void)
{
	static double next_tally = TALLY_S;
	double began;

	plan_screen();
	lay_out();
	if (!proc.ended)
		sample();
	began = seconds();
	if (now > next_tally - 0.001) {
		read_tally();
		next_tally = next_time(began, TALLY_S);
	}
	note_past();
}

/* Nobody may be reading: then signals are to end us all the same. */
static bool flush_frame(void)
{
	bool good;
	int err;

	sigprocmask(SIG_UNBLOCK, &ending, NULL);
	good = !fflush(stdout);
	err = errno;
	sigprocmask(SIG_BLOCK, &ending, NULL);
	if (!good && stop) {
		__fpurge(stdout);
		tcflush(STDOUT_FILENO, TCOFLUSH);
	}
	errno = err;
	return good || stop;
}

static void show(void)
{
	if (opt.json) {
		print_json();
	} else {
		compose_screen();
		if (screen.live)
			print_changes();
		else
			print_lines();
	}
	if (flush_frame())
		return;
	if (errno != EPIPE)
		die(1, "cannot write: %s", strerror(errno));
	stop = true;
}

/* Show frames until a key, a signal, the end of the process, or the last. */
static void run(void)
{
	double deadline = start_time;

	read_tally();
	while (!stop && (!opt.frames || frame < opt.frames)) {
		now = opt.demo ? frame * opt.interval : seconds() - start_time;
		map.fill |= opt.once;
		look();
		if (proc.ended)
			break;
		frame++;
		/* The first look gives no rates. */
		if (!opt.once || frame == opt.frames)
			show();
		/* If this frame was late, do not hurry the next ones. */
		deadline = max(deadline + opt.interval, seconds());
		wait_until(deadline);
	}
	leave_screen();
}

static void print_stats(void)
{
	double took = seconds() - start_time, cpu;
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	cpu = ru.ru_utime.tv_sec + ru.ru_utime.tv_usec / 1e6 +
	      ru.ru_stime.tv_sec + ru.ru_stime.tv_usec / 1e6;
	warnx("%lu frames in %.1f s, %.1f frames/s, %.2f%% of a CPU, %.0f pages/s",
	      frame, took, frame / took, 100 * cpu / took, map.asked / took);
}

/* What to exit with: the status of the command that we ran, if it ended. */
static int finish(void)
{
	int status;

	if (proc.ended)
		warnx("process %d (%s) has ended", proc.pid, proc.comm);
	if (!proc.ours)
		return 0;
	if (!proc.ended)
		end_command();
	else if (waitpid(proc.pid, &status, 0) == proc.pid)
		return WIFEXITED(status) ? WEXITSTATUS(status) :
					   128 + WTERMSIG(status);
	return 0;
}

/* Options */

static void usage(int status)
{
	fputs("Usage: numamap [OPTION]... PID\n"
	      "       numamap [OPTION]... -- COMMAND [ARG]...\n"
	      "       numamap [OPTION]... --demo[=NODES]\n"
	      "Show on which NUMA nodes a process has its memory.\n\n"
	      "  -i, --interval MS   between two frames (50)\n"
	      "  -n, --count N       end after N frames\n"
	      "  -s, --samples N     pages to ask for in a frame (2048)\n"
	      "  -1, --once          print one frame as text\n"
	      "  -j, --json          print a JSON object for each frame\n"
	      "      --color=WHEN    always, never, or auto: on a terminal\n"
	      "      --demo[=NODES]  show a made-up process on 2 to 8 nodes (4)\n"
	      "      --stats         say how many frames were drawn at what cost\n"
	      "  -h, --help          print this\n", status ? stderr : stdout);
	exit(status);
}

static long parse(const char *text, long low, long high, const char *what)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (end == text || *end || n < low || n > high) {
		warnx("%s must be a number from %ld to %ld", what, low, high);
		usage(2);
	}
	return n;
}

static bool want_color(const char *when)
{
	if (!strcmp(when, "auto"))
		return isatty(STDOUT_FILENO);
	if (strcmp(when, "always") && strcmp(when, "never"))
		usage(2);
	return !strcmp(when, "always");
}

static void parse_options(int argc, char **argv)
{
	enum { COLOR = 256, DEMO, STATS };
	static const struct option options[] = {
		{ "interval", required_argument, NULL, 'i' },
		{ "count", required_argument, NULL, 'n' },
		{ "samples", required_argument, NULL, 's' },
		{ "once", no_argument, NULL, '1' },
		{ "json", no_argument, NULL, 'j' },
		{ "color", required_argument, NULL, COLOR },
		{ "demo", optional_argument, NULL, DEMO },
		{ "stats", no_argument, NULL, STATS },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	const char *color = "auto";
	int c;

	while ((c = getopt_long(argc, argv, "i:n:s:1jh", options, NULL)) > 0) {
		if (c == 'i')
			opt.interval = parse(optarg, 10, 10000, "MS") / 1e3;
		else if (c == 'n')
			opt.frames = parse(optarg, 1, 1 << 30, "N");
		else if (c == 's')
			opt.samples = parse(optarg, 64, 1 << 20, "N");
		else if (c == '1')
			opt.once = true;
		else if (c == 'j')
			opt.json = true;
		else if (c == COLOR)
			color = optarg;
		else if (c == DEMO)
			opt.demo = optarg ? parse(optarg, 2, 8, "NODES") : 4;
		else if (c == STATS)
			opt.stats = true;
		else
			usage(c == 'h' ? 0 : 2);
	}
	opt.color = want_color(color);
	if (opt.once) {
		/* Moves and rates take two looks; only the second is shown. */
		opt.frames = 2;
		opt.interval = TALLY_S;
	}
	screen.live = !opt.once && !opt.json;
	screen.escapes = screen.live || opt.color;
}

/* How many arguments follow "--"; -1 if there is none. */
static int count_command(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--"))
			return argc - i - 1;
	return -1;
}

int main(int argc, char **argv)
{
	static char frame_out[1 << 22];
	int left, behind = count_command(argc, argv);
	bool command;

	parse_options(argc, argv);
	left = argc - optind;
	/* Not one that has something else before it. */
	command = left > 0 && left == behind;
	if (opt.demo ? left > 0 : !command && left != 1)
		usage(2);

	page_size = sysconf(_SC_PAGESIZE);
	find_nodes();
	if (command)
		start_command(argv + optind);
	else if (!opt.demo)
		proc.pid = parse(argv[optind], 1, INT32_MAX, "PID");
	open_process();
	catch_signals();
	/* Room for a frame, so that it is one write. */
	setvbuf(stdout, frame_out, _IOFBF, sizeof(frame_out));
	enter_screen();
	start_time = seconds();
	run();
	if (opt.stats)
		print_stats();
	return finish();
}
