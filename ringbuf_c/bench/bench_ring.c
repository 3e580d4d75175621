// SPDX-License-Identifier: Apache-2.0
/*
 * What an event costs, beside the least that it could cost on this machine: read the
 * counter, convert it, store 24 bytes (facts/PERF.md). One JSON object a line; times
 * are ns per event (per swap), medians and minima over ROUNDS batches.
 *
 * Machines change their speed while we measure. So each batch runs between two batches of
 * the limit loop; ratio_to_limit is the median of the ratios of the rounds.
 *
 * bench_ring [WHAT...]: only what begins so.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ringbuf_c/define_events.h"
#include "ringbuf_c/reader.h"

#define ROUNDS 51
#define BATCH_EVENTS 100000U
#define BATCH_SWAPS 20000U
#define RING_PAGES 65U
#define TEXT_PAGES 258U
#define TEXT_SIZE 65536U
#define MAX_CPUS 8U

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* --- rings ------------------------------------------------------------------------- */

static struct hyp_trace_cpu cpus[MAX_CPUS];
static struct reader_cpu reader_cpus[MAX_CPUS];
static struct trace_clock trace_clock;
static u32 enabled[HYP_NR_EVENTS];

static void *get_memory(size_t size)
{
	void *memory = aligned_alloc(RB_PAGE_SIZE, size + (RB_PAGE_SIZE - size % RB_PAGE_SIZE));

	if (!memory) {
		perror("aligned_alloc");
		exit(1);
	}
	memset(memory, 0, size);
	return memory;
}

static void make_ring(u32 nr, u32 nr_pages)
{
	struct simple_buffer_page *bpages = get_memory(nr_pages * sizeof(*bpages));
	struct trace_buffer_meta *meta = get_memory(RB_PAGE_SIZE);
	u8 *pages = get_memory((size_t)nr_pages * RB_PAGE_SIZE);

	for (u32 i = 0; i < nr_pages; i++)
		bpages[i].page = (void *)(pages + (size_t)i * RB_PAGE_SIZE);
	cpus[nr] = (struct hyp_trace_cpu){ .clock = &trace_clock, .enabled = enabled };
	simple_ring_buffer_init(&cpus[nr].rb, bpages, nr_pages, meta);
	simple_ring_buffer_enable_tracing(&cpus[nr].rb, true);
	reader_cpus[nr] = (struct reader_cpu){ .meta = meta, .pages = pages, .nr_pages = nr_pages };
}

static void free_ring(u32 nr)
{
	free(cpus[nr].rb.bpages);
	free((void *)reader_cpus[nr].meta);
	free((void *)reader_cpus[nr].pages);
}

/* --- measuring ------------------------------------------------------------------------ */

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

static bool is_wanted(const char *what)
{
	for (char **word = wanted; *word; word++) {
		if (!strncmp(what, *word, strlen(*word)))
			return true;
	}
	return !*wanted;
}

/* @batch returns how many events it has made, after @prepare, which is not timed. */
static void measure(const char *what, void (*prepare)(void), u32 (*batch)(void))
{
	double ns[ROUNDS], ratio[ROUNDS], middle;

	if (!is_wanted(what))
		return;
	for (u32 i = 0; i < ROUNDS; i++) {
		double before, after;

		if (prepare)
			prepare();
		before = ns_per_event(limit_batch);
		ns[i] = ns_per_event(batch);
		after = ns_per_event(limit_batch);
		ratio[i] = 2 * ns[i] / (before + after);
	}
	middle = median(ns);
	printf("{\"what\": \"%s\", \"ns_median\": %.2f, \"ns_min\": %.2f, "
	       "\"ratio_to_limit\": %.2f, \"events_per_s\": %.0f}\n",
	       what, middle, ns[0], median(ratio), 1e9 / middle);
	fflush(stdout);
}

/* --- writing ---------------------------------------------------------------------------- */

static u32 selftest_batch(void)
{
	for (u32 i = 0; i < BATCH_EVENTS; i++)
		trace_selftest(&cpus[0], i); /* 16 bytes of payload */
	return BATCH_EVENTS;
}

static u32 hyp_enter_batch(void)
{
	for (u32 i = 0; i < BATCH_EVENTS; i++)
		trace_hyp_enter(&cpus[0], HYP_REASON_HVC, (pid_t)i);
	return BATCH_EVENTS;
}

static u32 swap_batch(void)
{
	for (u32 i = 0; i < BATCH_SWAPS; i++)
		simple_ring_buffer_swap_reader_page(&cpus[0].rb);
	return BATCH_SWAPS;
}

/* --- reading ----------------------------------------------------------------------------- */

static const struct render_text reason_texts[] = {
#define X(reason, text) RENDER_LITERAL(text),
	HYP_REASONS(X)
#undef X
};

#define NR_REASONS (sizeof(reason_texts) / sizeof(reason_texts[0]))

static const struct render_symbols reasons = { reason_texts, NR_REASONS,
					       RENDER_LITERAL("unknown") };

static const struct render_op hyp_enter_ops[] = {
	{ .kind = RENDER_SYMBOL, .size = 1, .offset = 2, .text = RENDER_LITERAL("hyp_enter reason="),
	  .symbols = &reasons },
	{ .kind = RENDER_SIGNED, .size = 4, .offset = 4, .text = RENDER_LITERAL(" vcpu=") },
};

static struct render_event events[] = {
	[HYP_EVENT_ID_hyp_enter] = { .ops = hyp_enter_ops, .nr_ops = 2 },
};

static void local_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	(void)conduit;
	(void)cpu;
	regs->x0 = 0;
	regs->x1 = (u64)(s64)simple_ring_buffer_swap_reader_page(&cpus[regs->x1].rb);
}

static struct hvc_conduit conduit = { local_hvc };
static struct reader reader = {
	.conduit = &conduit,
	.cpus = reader_cpus,
	.events = { events, sizeof(events) / sizeof(events[0]) },
};
static struct reader_carry carry;

/* All rings full of events, alternating; nothing is lost. */
static void fill_rings(void)
{
	u32 per_cpu = (TEXT_PAGES - 2) * 255;

	for (u32 i = 0; i < per_cpu; i++) {
		for (u32 nr = 0; nr < reader.nr_cpus; nr++)
			trace_hyp_enter(&cpus[nr], (u8)(i % NR_REASONS), (pid_t)i);
	}
}

static u32 text_batch(void)
{
	static char text[TEXT_SIZE];
	u64 before = 0, after = 0;

	for (u32 nr = 0; nr < reader.nr_cpus; nr++)
		before += reader_cpus[nr].read;
	while (reader_text(&reader, READER_ALL_CPUS, &carry, text, sizeof(text)))
		;
	for (u32 nr = 0; nr < reader.nr_cpus; nr++)
		after += reader_cpus[nr].read;
	return (u32)(after - before);
}

static void measure_text(u32 nr_cpus)
{
	char what[40];

	reader.nr_cpus = nr_cpus;
	for (u32 nr = 0; nr < nr_cpus; nr++)
		make_ring(nr, TEXT_PAGES);
	snprintf(what, sizeof(what), "reader_text, %u CPU%s", nr_cpus, nr_cpus > 1 ? "s" : "");
	measure(what, fill_rings, text_batch);
	for (u32 nr = 0; nr < nr_cpus; nr++)
		free_ring(nr);
}

int main(int argc, char **argv)
{
	(void)argc;
	wanted = argv + 1;
	if (render_event_check(&events[HYP_EVENT_ID_hyp_enter]))
		return 1;
	for (u32 i = 0; i < HYP_NR_EVENTS; i++)
		enabled[i] = 1;
	/* about 2.6 GHz */
	trace_clock_update(&trace_clock, 25812206, 26, 0, trace_counter());

	limit_pages = get_memory((size_t)RING_PAGES * RB_PAGE_SIZE);
	measure("limit", NULL, limit_batch);
	make_ring(0, RING_PAGES);
	measure("writer, 16 bytes", NULL, selftest_batch);
	measure("trace_hyp_enter", NULL, hyp_enter_batch);
	measure("swap", NULL, swap_batch);
	free_ring(0);
	measure_text(1);
	measure_text(2);
	measure_text(8);
	free(limit_pages);
	return 0;
}
