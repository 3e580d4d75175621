// SPDX-License-Identifier: Apache-2.0
/*
 * What an event costs, beside the least that it could cost on this machine: read the
 * counter, convert it, store 24 bytes (facts/PERF.md).
 *
 * bench_ring [WHAT...]: only what begins so.
 */
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"
#include "ringbuf_c/reader.h"

#define BATCH_SWAPS 5000U
#define BATCH_SWITCHES 100U
#define POLLED_BATCHES 50U
#define TEXT_PAGES 66U
#define TEXT_SIZE 65536U
#define RAW_SIZE (1U << 20)
#define MAX_CPUS 8U

/* --- rings ------------------------------------------------------------------------- */

static struct hyp_trace_cpu cpus[MAX_CPUS];
static struct reader_cpu reader_cpus[MAX_CPUS];
static u32 enabled[HYP_NR_EVENTS];

static void membarrier_expedited(void)
{
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

/* What new rings are made with: NULL, or membarrier_expedited(). */
static void (*ring_membarrier)(void);

static void make_ring(u32 nr, u32 nr_pages)
{
	struct simple_buffer_page *bpages = get_memory(nr_pages * sizeof(*bpages));
	struct trace_buffer_meta *meta = get_memory(RB_PAGE_SIZE);
	u8 *pages = get_memory((size_t)nr_pages * RB_PAGE_SIZE);

	for (u32 i = 0; i < nr_pages; i++)
		bpages[i].page = (void *)(pages + (size_t)i * RB_PAGE_SIZE);
	cpus[nr] = (struct hyp_trace_cpu){ .clock = &trace_clock, .enabled = enabled };
	cpus[nr].rb.membarrier = ring_membarrier;
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

/* --- the host ----------------------------------------------------------------------------- */

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

static u32 switch_batch(void)
{
	for (u32 i = 0; i < BATCH_SWITCHES; i++) {
		simple_ring_buffer_enable_tracing(&cpus[0].rb, false);
		simple_ring_buffer_enable_tracing(&cpus[0].rb, true);
	}
	return BATCH_SWITCHES;
}

/* --- a host that polls meanwhile ----------------------------------------------------------- */

static u32 poll_stop;
static u64 polls;

static void *poll_each_ms(void *arg)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	while (!smp_load_acquire((u32 *)arg)) {
		reader_poll(&reader);
		polls++;
		nanosleep(&pause, NULL);
	}
	return NULL;
}

/* Long enough for some polls. */
static u32 polled_batch(void)
{
	for (u32 i = 0; i < POLLED_BATCHES; i++)
		selftest_batch();
	return POLLED_BATCHES * BATCH_EVENTS;
}

static void measure_polled(void)
{
	pthread_t thread;

	reader.nr_cpus = 1;
	if (pthread_create(&thread, NULL, poll_each_ms, &poll_stop)) {
		perror("pthread_create");
		exit(1);
	}
	measure("writer, 24-byte event, polled each ms", NULL, polled_batch);
	smp_store_release(&poll_stop, 1);
	pthread_join(thread, NULL);
}

static void measure_writer(void)
{
	make_ring(0, RING_PAGES);
	measure("writer, 24-byte event", NULL, selftest_batch);
	measure_polled();
	measure("trace_hyp_enter", NULL, hyp_enter_batch);
	measure("swap_reader_page", NULL, swap_batch);
	measure("disable and enable", NULL, switch_batch);
	free_ring(0);
}

static void measure_cmpxchg_writer(void)
{
	void (*membarrier)(void) = ring_membarrier;

	ring_membarrier = NULL;
	make_ring(0, RING_PAGES);
	measure("writer with cmpxchg, 24-byte event", NULL, selftest_batch);
	free_ring(0);
	ring_membarrier = membarrier;
}

/* --- reading ----------------------------------------------------------------------------- */

/* All rings full of events, alternating; nothing is lost. */
static void fill_rings(void)
{
	u32 per_cpu = (TEXT_PAGES - 2) * 255;

	for (u32 i = 0; i < per_cpu; i++) {
		for (u32 nr = 0; nr < reader.nr_cpus; nr++)
			trace_hyp_enter(&cpus[nr], (u8)(i % NR_REASONS), (pid_t)i);
	}
}

/* Two sizes, in no order. */
static void fill_mixed(void)
{
	u32 random = 1;

	for (u32 i = 0; i < (TEXT_PAGES - 2) * 200; i++) {
		random = random * 1103515245U + 12345U;
		if (random >> 30 & 1)
			trace_hyp_enter(&cpus[0], HYP_REASON_HVC, (pid_t)i);
		else
			trace_selftest(&cpus[0], i);
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

/* Pages, not events. */
static u32 raw_batch(void)
{
	static u8 images[RAW_SIZE];
	u32 pages = 0, got;

	while ((got = reader_raw(&reader, READER_ALL_CPUS, &carry, images, sizeof(images))))
		pages += got / RB_PAGE_SIZE;
	return pages;
}

static void measure_raw(void)
{
	reader.nr_cpus = 1;
	make_ring(0, TEXT_PAGES);
	measure("reader_raw, a page of 255 events", fill_rings, raw_batch);
	measure("reader_raw, a page of mixed events", fill_mixed, raw_batch);
	free_ring(0);
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
	bench_init(argv);
	if (render_event_check(&events[HYP_EVENT_ID_hyp_enter]))
		return 1;
	for (u32 i = 0; i < HYP_NR_EVENTS; i++)
		enabled[i] = 1;
	if (!syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
		ring_membarrier = membarrier_expedited;
	else
		fprintf(stderr, "no membarrier(2) here: all writers take a cmpxchg\n");

	measure("limit", NULL, limit_batch);
	measure_writer();
	measure_cmpxchg_writer();
	measure_raw();
	measure_text(1);
	measure_text(2);
	measure_text(8);
	free(limit_pages);
	return 0;
}
