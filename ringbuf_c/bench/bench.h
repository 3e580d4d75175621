/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all benchmarks share: a batch is timed beside the limit loop, and reported as one
 * JSON object a line; ns per event, medians and minima over ROUNDS batches.
 *
 * Machines change their speed while we measure. So each batch runs between two batches of
 * the limit loop; ratio_to_limit is the median of the ratios of the rounds.
 *
 */
#ifndef RINGBUF_C_BENCH_H
#define RINGBUF_C_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ringbuf_c/clock.h"
#include "ringbuf_c/define_events.h"

#define ROUNDS 201
#define BATCH_EVENTS 20000U
#define RING_PAGES 65U

static struct trace_clock trace_clock;

static inline double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static inline void *get_memory(size_t size)
{
	void *memory = aligned_alloc(RB_PAGE_SIZE, size + (RB_PAGE_SIZE - size % RB_PAGE_SIZE));

	if (!memory) {
		perror("aligned_alloc");
		exit(1);
	}
	memset(memory, 0, size);
	return memory;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, ROUNDS, sizeof(values[0]), compare);
	return values[ROUNDS / 2];
}

static u8 *limit_pages;

static u32 limit_batch(void)
{
	static u32 page, offset;

	for (u32 i = 0; i < BATCH_EVENTS; i++) {
		u64 *at;

		if (offset + 24 > RB_PAGE_CAPACITY) {
			page = page + 1 < RING_PAGES ? page + 1 : 0;
			offset = 0;
		}
		at = (u64 *)(limit_pages + (size_t)page * RB_PAGE_SIZE + RB_PAGE_HEADER + offset);
		at[0] = trace_clock_now(&trace_clock);
		at[1] = HYP_EVENT_ID_selftest;
		at[2] = i;
		offset += 24;
		__asm__ volatile("" ::: "memory"); /* each store is made */
	}
	return BATCH_EVENTS;
}

static double ns_per_event(u32 (*batch)(void))
{
	double start = now_ns();
	u32 events = batch();

	return (now_ns() - start) / events;
}

static char **wanted; /* what the command line asks for; NULL: all */

static inline bool is_wanted(const char *what)
{
	for (char **word = wanted; *word; word++) {
		if (!strncmp(what, *word, strlen(*word)))
			return true;
	}
	return !*wanted;
}

/* Sorts both. */
static inline void report(const char *what, double *ns, double *ratio)
{
	double middle = median(ns);

	printf("{\"what\": \"%s\", \"ns_median\": %.2f, \"ns_min\": %.2f, "
	       "\"ratio_to_limit\": %.2f, \"events_per_s\": %.0f}\n",
	       what, middle, ns[0], median(ratio), 1e9 / middle);
	fflush(stdout);
}

/* Before all else: @argv of main(). */
static inline void bench_init(char **argv)
{
	wanted = argv + 1;
	/* about 2.6 GHz */
	trace_clock_update(&trace_clock, 25812206, 26, 0, trace_counter());
	limit_pages = get_memory((size_t)RING_PAGES * RB_PAGE_SIZE);
}

/*
 * @batch returns how many events it has made, after @prepare, which is not timed. What
 * @overhead costs, if there is one, is taken off.
 */
static inline void measure_over(const char *what, void (*prepare)(void), u32 (*batch)(void),
				u32 (*overhead)(void))
{
	double ns[ROUNDS], ratio[ROUNDS];

	if (!is_wanted(what))
		return;
	for (u32 i = 0; i < ROUNDS; i++) {
		double before, after;

		if (prepare)
			prepare();
		before = ns_per_event(limit_batch);
		ns[i] = ns_per_event(batch) - (overhead ? ns_per_event(overhead) : 0);
		after = ns_per_event(limit_batch);
		ratio[i] = 2 * ns[i] / (before + after);
	}
	report(what, ns, ratio);
}

static inline void measure(const char *what, void (*prepare)(void), u32 (*batch)(void))
{
	measure_over(what, prepare, batch, NULL);
}

#endif
