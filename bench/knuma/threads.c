// SPDX-License-Identifier: GPL-2.0
/* Memory that threads on two nodes use, with and without a best node. */
#define _GNU_SOURCE
#include "modes.h"
#include "touch.h"

#define LOCAL	95	/* percent */

struct half {
	struct toucher t;
	int node;
};

static void start_half(struct half *h, char *mem, size_t size, int number)
{
	h->node = number ? last_node() : 0;
	h->t.stride = 2 * PAGE;
	start(&h->t, mem + number * PAGE, size, cpu_of(h->node));
}

static double share_of_half(const struct half *h, const char *mem, size_t size,
			    int number)
{
	return share_of_every(mem, size, h->node, 2, number);
}

/*
 * All memory begins on node 0, so every second page has to move. The time is
 * until both halves are local and stay so.
 */
void alternate(size_t size, double time)
{
	char *mem = map_on(size, SMALL, 0);
	double begun, since = 0, least = 100, mine = 0, other = 0;
	struct half half[2] = { };
	struct counts c = count();

	run_on(0);
	begun = now();
	for (int i = 0; i < 2; i++)
		start_half(&half[i], mem, size, i);
	while (now() - begun < time) {
		sleep_for(SAMPLE);
		mine = share_of_half(&half[0], mem, size, 0);
		other = share_of_half(&half[1], mem, size, 1);
		least = mine < least ? mine : least;
		if (mine < LOCAL || other < LOCAL)
			since = 0;
		else if (!since)
			since = now();
	}
	for (int i = 0; i < 2; i++)
		stop(&half[i].t);
	c = counts_since(c);
	printf("alternate: %.1f and %.1f %% are local; of those that were local "
	       "always at least %.1f %%\n", mine, other, least);
	report_counts(c, "alternate");
	figure("moves", "alternate", c.moved / (size / PAGE / 2));
	if (since)
		figure("t95", "alternate", (since - begun) / SEC);
}

/* No page has a best node. The thread on the last node is slower: it is timed. */
void everywhere(size_t size, double time)
{
	struct toucher fast = { }, slow = { .latency = new_histogram() };
	char *mem = map_on(size, SMALL, 0);
	struct counts c = count();

	start(&fast, mem, size, 0);
	start(&slow, mem, size, cpu_of(last_node()));
	sleep_for(time);
	stop(&fast);
	stop(&slow);
	c = counts_since(c);
	report_counts(c, "everywhere");
	latencies(slow.latency, slow.tick, "everywhere");
	figure("moved", "everywhere", c.moved);
	figure("touches", "everywhere", fast.touches + slow.touches);
}
