/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers for tests that use kselftest_harness.h: files in /sys and /proc,
 * cgroups, trace events, CPUs, memory blocks, and memory that has a stamp in
 * each word.
 *
 * Helpers of vm_util.h exit if a file cannot be written. These return the
 * error, because a test may expect the error, or skip.
 */
#ifndef __HARNESS_UTIL_H__
#define __HARNESS_UTIL_H__

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <mm/gup_test.h>
#include "kselftest_harness.h"
#include "vm_util.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define KB		1024UL
#define MB		(1024 * KB)

#define CGROUP		"/sys/fs/cgroup/"
#define NODES		"/sys/devices/system/node/"
#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define TRACES		"/sys/kernel/tracing/instances/"
#define GUP_TEST	"/sys/kernel/debug/gup_test"

/**
 * wait_until() - Wait for a condition, or until a time.
 * @end: time() at which to give up
 * @condition: evaluated every 5 milliseconds
 *
 * Return: whether the condition became true.
 */
#define wait_until(end, condition) ({					\
	const time_t __end = (end);					\
	bool __good;							\
									\
	while (!(__good = (condition)) && time(NULL) < __end)		\
		usleep(5000);						\
	__good;								\
})

/* Long enough for debug kernels in emulators: 150 seconds. */
#define wait_for(condition) wait_until(time(NULL) + 150, condition)

/* Files */

/* Returns 0 or an errno value. */
static inline int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), err = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err = errno ?: EIO;
	close(fd);

	return err;
}

static inline int write_long(const char *path, long val)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", val);
	return write_text(path, text);
}

/* Reads one line. If the file lists choices, reads the one in brackets. */
static inline bool read_text(const char *path, char *buf, size_t size)
{
	const bool good = read_file(path, buf, size);
	char *chosen;

	buf[good ? strcspn(buf, "\n") : 0] = 0;
	chosen = strchr(buf, '[');
	if (chosen) {
		chosen[strcspn(chosen, "]")] = 0;
		memmove(buf, chosen + 1, strlen(chosen));
	}

	return good;
}

/* Returns -1 if there is no such file. */
static inline long read_long(const char *path)
{
	char buf[64];

	return read_text(path, buf, sizeof(buf)) ? atol(buf) : -1;
}

/* Returns the number in the line "name number" or "name: number", or -1. */
static inline long read_value(const char *path, const char *name)
{
	size_t len = strlen(name);
	FILE *f = fopen(path, "r");
	char line[256];
	long val = -1;

	while (f && val < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len) && strchr(": \t", line[len]))
			sscanf(line + len + strspn(line + len, ": \t"), "%ld", &val);
	if (f)
		fclose(f);

	return val;
}

static inline long vm_event(const char *name)
{
	return read_value("/proc/vmstat", name);
}

/* Returns 0 or an errno value; the directory may exist. */
static inline int make_dir(const char *path)
{
	return mkdir(path, 0755) && errno != EEXIST ? errno : 0;
}

/* Settings: files that a test changes */

#define SETTING_LEN	32

/* Returns why a test must skip that changes files in @dir, or NULL. */
static inline const char *skip_reason(const char *dir, const char *option)
{
	static char reason[128];

	if (geteuid())
		return "not root";
	snprintf(reason, sizeof(reason), "no %s: %s", dir, option);
	return access(dir, F_OK) ? reason : NULL;
}

/**
 * struct setting - a file that a test changes
 * @path: name of the file
 * @value: text that settings_apply() writes, or NULL
 * @min: smallest number that can be written
 * @max: largest number that can be written
 */
struct setting {
	const char *path;
	const char *value;
	long min, max;
};

/* Returns whether all files could be read. */
static inline bool settings_save(const struct setting *s, size_t nr,
				 char (*old)[SETTING_LEN])
{
	bool good = true;

	for (size_t i = 0; i < nr; i++)
		good &= read_text(s[i].path, old[i], SETTING_LEN);
	return good;
}

/* Returns whether all values could be written. */
static inline bool settings_apply(const struct setting *s, size_t nr)
{
	bool good = true;

	for (size_t i = 0; i < nr; i++)
		if (s[i].value)
			good &= !write_text(s[i].path, s[i].value);
	return good;
}

/* Returns whether all that was saved could be written. */
static inline bool settings_restore(const struct setting *s, size_t nr,
				    char (*old)[SETTING_LEN])
{
	bool good = true;

	for (size_t i = 0; i < nr; i++)
		if (*old[i])
			good &= !write_text(s[i].path, old[i]);
	return good;
}

/* Each of @texts must be refused with EINVAL, and change nothing. */
static inline void check_refused(struct __test_metadata *_metadata,
				 const char *path, const char *const *texts,
				 size_t nr)
{
	char old[64], now[64];

	ASSERT_TRUE(read_text(path, old, sizeof(old)));
	for (size_t i = 0; i < nr; i++) {
		EXPECT_EQ(EINVAL, write_text(path, texts[i]))
			TH_LOG("%s took '%s'", path, texts[i]);
		ASSERT_TRUE(read_text(path, now, sizeof(now)));
		EXPECT_STREQ(old, now);
	}
}

/* The file must take numbers from @s->min to @s->max, and nothing else. */
static inline void check_range(struct __test_metadata *_metadata,
			       const struct setting *s)
{
	static const char *const bad[] = {
		"\n", "-1", "x", "1x", "0 1", "0.5", "0x1", "4294967296",
		"99999999999999999999999999",
	};

	EXPECT_EQ(0, write_long(s->path, s->max));
	EXPECT_EQ(s->max, read_long(s->path));
	EXPECT_EQ(0, write_long(s->path, s->min));
	EXPECT_EQ(s->min, read_long(s->path));
	EXPECT_EQ(EINVAL, write_long(s->path, s->min - 1));
	EXPECT_EQ(EINVAL, write_long(s->path, s->max + 1));
	EXPECT_EQ(s->min, read_long(s->path));
	check_refused(_metadata, s->path, bad, ARRAY_SIZE(bad));
	EXPECT_EQ(0, write_text(s->path, "1\n"));
	EXPECT_EQ(1, read_long(s->path));
}

/**
 * struct setting_texts - texts that a file takes, and texts that it refuses
 * @path: name of the file
 * @good: the last one of these stays
 * @bad: refused with EINVAL
 */
struct setting_texts {
	const char *path;
	const char *good[3];
	const char *bad[5];
};

static inline void check_texts(struct __test_metadata *_metadata,
			       const struct setting_texts *t)
{
	char now[64];

	for (size_t i = 0; i < ARRAY_SIZE(t->good); i++) {
		ASSERT_EQ(0, write_text(t->path, t->good[i]));
		ASSERT_TRUE(read_text(t->path, now, sizeof(now)));
		ASSERT_STREQ(t->good[i], now);
	}
	check_refused(_metadata, t->path, t->bad, ARRAY_SIZE(t->bad));
}

/* Cgroups: @group is a directory below CGROUP, without a slash at the end. */

static inline int group_write(const char *group, const char *file,
			      const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", group, file);
	return write_text(path, text);
}

static inline long group_read(const char *group, const char *file,
			      const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", group, file);
	return read_value(path, name);
}

/* The root may have no such controller. Returns 0 or an errno value. */
static inline int group_create(const char *group, const char *controllers)
{
	write_text(CGROUP "cgroup.subtree_control", controllers);
	return make_dir(group);
}

/* The last processes of the group may be about to exit. */
static inline void group_remove(const char *group)
{
	for (int i = 0; i < 1000 && rmdir(group) && errno == EBUSY; i++)
		usleep(1000);
}

/**
 * trace_event() - Record a trace event.
 * @instance: directory below TRACES, with a slash at the end
 * @event: system and name of the event, such as "csd/csd_queue_cpu"
 * @filter: its filter, or NULL
 *
 * Return: 0 or an errno value.
 */
static inline int trace_event(const char *instance, const char *event,
			      const char *filter)
{
	int err = make_dir(instance);
	char path[128];

	snprintf(path, sizeof(path), "%sevents/%s/filter", instance, event);
	if (!err && filter)
		err = write_text(path, filter);
	snprintf(path, sizeof(path), "%sevents/%s/enable", instance, event);
	return err ?: write_text(path, "1");
}

/* CPUs and processes */

static inline int run_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

static inline int set_cpu_online(int cpu, bool online)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", cpu);
	return write_text(path, online ? "1" : "0");
}

/* CPU 0 often has to stay. */
static inline bool cpu1_can_unplug(void)
{
	return !access("/sys/devices/system/cpu/cpu1/online", W_OK);
}

/* Returns the status of a child that has ended, or -1. */
static inline int wait_status(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid ? status : -1;
}

static inline void kill_and_wait(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Memory blocks */

#define MEMORY_BLOCKS	1024	/* those that tests look at */

static inline int write_block(long block, const char *state)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%ld/state",
		 block);
	return write_text(path, state);
}

static inline bool block_is_movable(long block)
{
	char path[64], zones[64];

	snprintf(path, sizeof(path),
		 "/sys/devices/system/memory/memory%ld/valid_zones", block);
	return read_text(path, zones, sizeof(zones)) && !strcmp(zones, "Movable");
}

/* Memory */

/* Returns MAP_FAILED if there is no memory. */
static inline char *map_anon(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* The same at an address that is a multiple of HPAGE_SIZE. */
static inline char *map_aligned(size_t size)
{
	char *p = mmap(NULL, size + HPAGE_SIZE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return p;
	return mmap(p + -(uintptr_t)p % HPAGE_SIZE, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* Returns -1 if the kernel has no userfaultfd, or not with these features. */
static inline int uffd_create(int flags, __u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(__NR_userfaultfd, flags | O_CLOEXEC);

	return fd >= 0 && !ioctl(fd, UFFDIO_API, &api) ? fd : -1;
}

/* Pins pages as for a device, until the file is closed. Returns the file or -1. */
static inline int pin_pages(char *p, size_t size)
{
	struct pin_longterm_test pin = {
		.addr = (unsigned long)p,
		.size = size,
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};
	int fd = open(GUP_TEST, O_RDWR);

	return fd >= 0 && !ioctl(fd, PIN_LONGTERM_TEST_START, &pin) ? fd : -1;
}

/* Stamps: the word at offset @at of a range is @key + @at. */

enum page_state {
	PAGE_OLD,	/* each word has its stamp */
	PAGE_ZERO,
	PAGE_OTHER,
};

static inline void stamp_range(char *p, size_t size, unsigned long key)
{
	for (size_t at = 0; at < size; at += sizeof(key))
		*(unsigned long *)(p + at) = key + at;
}

static inline bool page_has_words(const char *p, unsigned long first,
				  unsigned long step)
{
	const unsigned long *word = (const unsigned long *)p;
	const size_t nr = psize() / sizeof(*word);

	for (size_t i = 0; i < nr; i++)
		if (FORCE_READ(word[i]) != first + i * step)
			return false;
	return true;
}

/* A page that reclaim drops meanwhile is zero when it is read again. */
static inline enum page_state page_state(const char *p, unsigned long key)
{
	if (page_has_words(p, key, sizeof(key)))
		return PAGE_OLD;
	return page_has_words(p, 0, 0) ? PAGE_ZERO : PAGE_OTHER;
}

/* Returns how many pages of the range are in @state. */
static inline long count_pages(const char *p, size_t size, unsigned long key,
			       enum page_state state)
{
	long nr = 0;

	for (size_t at = 0; at < size; at += psize())
		nr += page_state(p + at, key + at) == state;
	return nr;
}

#endif /* __HARNESS_UTIL_H__ */
