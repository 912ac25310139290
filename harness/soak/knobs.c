// SPDX-License-Identifier: GPL-2.0
/*
 * The sysfs files of the series: random legal and illegal values. Ranges are
 * those of Documentation/ABI/testing/.
 */
#include "soak.h"

#include <ctype.h>
#include <limits.h>

#define MM	"/sys/kernel/mm/"

/*
 * struct knob - one file
 * @name:	below /sys/kernel/mm
 * @words:	an enumeration; NULL for a number
 * @zero:	0 is legal although @min is larger
 * @power_of_2:	all other numbers are illegal, except 0
 * @unit:	reads back rounded down to a multiple of this, if not 0
 * @min:	smallest number
 * @max:	largest number; 0: a quarter of the vmalloc space, in kB
 * @enabled:	value with the topic enabled; NULL: as booted
 * @off:	value with which the kernel does as upstream; NULL: as booted
 * @boot:	value when soak started
 */
static struct knob {
	const char *name;
	const char *words[4];
	bool zero;
	bool power_of_2;
	unsigned int unit;
	unsigned long min;
	unsigned long max;
	const char *enabled;
	const char *off;
	char boot[32];
} knobs[] = {
	{ .name = "vmalloc/lazy_max_kb", .zero = true, .unit = 4, .min = 4, .off = "0" },
	{ .name = "vmalloc/lazy_max_areas", .zero = true, .min = 1, .max = INT_MAX, .off = "0" },
	{ .name = "vmalloc/purge_batch", .zero = true, .min = 1, .max = 1000000, .off = "0" },
	{ .name = "vmalloc/purge_slice_us", .zero = true, .min = 50, .max = 1000000, .off = "0" },
	{ .name = "vmalloc/throttle_percent", .zero = true, .min = 100, .max = 10000, .off = "0" },

	{ .name = "percpu_drain/isolated_cache", .max = 1, .enabled = "0", .off = "1" },
	{ .name = "percpu_drain/filter_threshold_percent", .max = 100, .enabled = "0", .off = "100" },

	{ .name = "parallel_zap/enabled", .words = { "never", "exit", "always" },
	  .enabled = "always", .off = "never" },
	{ .name = "parallel_zap/min_ms", .max = 60000 },
	{ .name = "parallel_zap/chunk_mb", .min = 2, .max = 1024 },
	{ .name = "parallel_zap/helpers_per_node", .max = 64 },
	{ .name = "parallel_zap/max_helpers", .max = 1024 },

	{ .name = "lazyfree/policy", .words = { "fair", "first" } },
	{ .name = "lazyfree/min_age_ms", .max = 3600000 },
	{ .name = "lazyfree/max_ranges_per_mm", .max = 1048576, .off = "0" },

	{ .name = "autonuma/enabled", .max = 1, .enabled = "1", .off = "0" },
	{ .name = "autonuma/window_pages", .min = 1, .max = 512 },
	{ .name = "autonuma/late_millisecs", .max = 10000 },
	{ .name = "autonuma/knuma_scand/enabled", .max = 1, .off = "0" },
	{ .name = "autonuma/knuma_scand/scan_sleep_millisecs", .max = 60000 },
	{ .name = "autonuma/knuma_scand/pages_to_scan", .min = 1, .max = 16777216 },
};

static void knob_path(char *path, size_t size, const struct knob *knob)
{
	snprintf(path, size, MM "%s", knob->name);
}

static bool knob_used(const struct knob *knob)
{
	char path[128];

	knob_path(path, sizeof(path), knob);
	return program.series && listed(program.knobs, knob->name) && exists(path);
}

/* The value of a knob: the number, or the word in brackets. */
static void knob_read(const struct knob *knob, char *value, size_t size)
{
	char path[128], line[32], *start = line;
	FILE *file;

	knob_path(path, sizeof(path), knob);
	*value = '\0';
	file = fopen(path, "re");
	if (!file)
		return;
	if (fgets(line, sizeof(line), file)) {
		if (knob->words[0] && strchr(line, '['))
			start = strchr(line, '[') + 1;
		start[strcspn(start, "]\n")] = '\0';
		snprintf(value, size, "%s", start);
	}
	fclose(file);
}

/* Print @text without control characters. */
static const char *knob_quote(const char *text, char *quoted, size_t size)
{
	size_t len = 0;

	for (; *text && len + 5 < size; text++)
		len += snprintf(quoted + len, size - len, isprint((unsigned char)*text) ? "%c" : "\\%03o",
				(unsigned char)*text);
	quoted[len] = '\0';
	return quoted;
}

/* Write @text. It reads back as @expect, or is illegal if @expect is NULL. */
static void knob_try(const struct knob *knob, const char *text, const char *expect)
{
	char path[128], before[32], after[32], quoted[64];
	int rc;

	knob_path(path, sizeof(path), knob);
	knob_read(knob, before, sizeof(before));
	rc = put(path, text);
	knob_read(knob, after, sizeof(after));
	knob_quote(text, quoted, sizeof(quoted));
	if (rc != (expect ? 0 : -EINVAL))
		violation("knob", "%s: a write of '%s' returns %d, not %d",
			  knob->name, quoted, rc, expect ? 0 : -EINVAL);
	else if (strcmp(after, expect ? expect : before))
		violation("knob", "%s: was '%s', reads '%s' after a write of '%s'",
			  knob->name, before, after, quoted);
}

static bool knob_legal(const struct knob *knob, unsigned long number)
{
	if (!number && (knob->zero || knob->power_of_2))
		return true;
	if (knob->power_of_2 && number & (number - 1))
		return false;
	return number >= knob->min && number <= knob->max;
}

/* A legal number: often a bound or the value at boot, else of a random size. */
static unsigned long knob_number(const struct knob *knob, struct rng *rng)
{
	unsigned long number;

	switch (rng_below(rng, 8)) {
	case 0:
		return knob->zero ? 0 : knob->min;
	case 1:
		return knob->max;
	case 2:
		return knob->min;
	case 3:
		return strtoul(knob->boot, NULL, 10);
	}
	do {
		number = rng_below(rng, 2UL << rng_below(rng, 64 - __builtin_clzl(knob->max)));
		if (knob->power_of_2 && number)
			number = 1UL << (63 - __builtin_clzl(number));
	} while (!knob_legal(knob, number));
	return number;
}

static void knob_try_legal(const struct knob *knob, struct rng *rng)
{
	char text[40], expect[32];
	unsigned long number;
	size_t words = 0;

	if (knob->words[0]) {
		while (words < ARRAY_SIZE(knob->words) && knob->words[words])
			words++;
		snprintf(expect, sizeof(expect), "%s", knob->words[rng_below(rng, words)]);
		snprintf(text, sizeof(text), "%s%s", expect, rng_chance(rng, 50) ? "\n" : "");
	} else {
		number = knob_number(knob, rng);
		snprintf(text, sizeof(text), "%s%lu%s", rng_chance(rng, 10) ? "0" : "",
			 number, rng_chance(rng, 50) ? "\n" : "");
		if (knob->unit)
			number -= number % knob->unit;
		snprintf(expect, sizeof(expect), "%lu", number);
	}
	knob_try(knob, text, expect);
}

static void knob_try_illegal(const struct knob *knob, struct rng *rng)
{
	static const char * const texts[] = {
		"\n", " ", "-1", "-0", "x", "0x1", "1 ", " 1", "1\n\n", "1k", "1.0", "1,1", "1 1",
		"4294967296", "18446744073709551616", "99999999999999999999999999999999999999999999",
		"Always", "alway", "always ", "[always]", "fair first", "never\n\n", "\377",
	};
	char text[32];

	/* The numbers beside the bounds are illegal for most knobs. */
	if (!knob->words[0] && rng_chance(rng, 50)) {
		unsigned long numbers[] = { knob->min - 1, knob->max + 1, knob->max * 2 + 1, 3 };
		unsigned long number = numbers[rng_below(rng, ARRAY_SIZE(numbers))];

		if (!knob_legal(knob, number)) {
			snprintf(text, sizeof(text), "%ld", (long)number);
			knob_try(knob, text, NULL);
			return;
		}
	}
	for (;;) {
		const char *choice = texts[rng_below(rng, ARRAY_SIZE(texts))];
		char *end;
		unsigned long number = strtoul(choice, &end, 10);

		/* A knob of the vmalloc space takes more than 32 bits. */
		if (!knob->words[0] && isdigit((unsigned char)*choice) && !*end &&
		    knob_legal(knob, number))
			continue;
		knob_try(knob, choice, NULL);
		return;
	}
}

void knobs_init(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++) {
		struct knob *knob = &knobs[i];

		knob_read(knob, knob->boot, sizeof(knob->boot));
		if (!knob->max)
			knob->max = get_key("/proc/meminfo", "VmallocTotal") / 4;
	}
}

/* One in four values is illegal; twice as many writes go to "enabled" files. */
void knobs_random(struct rng *rng)
{
	const struct knob *used[2 * ARRAY_SIZE(knobs)];
	size_t nr = 0;

	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++) {
		if (!knob_used(&knobs[i]))
			continue;
		used[nr++] = &knobs[i];
		if (knobs[i].enabled)
			used[nr++] = &knobs[i];
	}
	if (!nr)
		return;
	const struct knob *knob = used[rng_below(rng, nr)];

	if (rng_chance(rng, 25))
		knob_try_illegal(knob, rng);
	else if (knob->enabled && rng_chance(rng, 50))
		knob_try(knob, knob->enabled, knob->enabled);
	else
		knob_try_legal(knob, rng);
}

void knobs_default(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++) {
		const char *value = knobs[i].enabled ? knobs[i].enabled : knobs[i].boot;

		if (knob_used(&knobs[i]))
			knob_try(&knobs[i], value, value);
	}
}

void knobs_off(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++) {
		const char *value = knobs[i].off ? knobs[i].off : knobs[i].boot;

		if (knob_used(&knobs[i]))
			knob_try(&knobs[i], value, value);
	}
}

void knobs_list(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++)
		puts(knobs[i].name);
}
