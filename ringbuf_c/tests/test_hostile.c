// SPDX-License-Identifier: Apache-2.0
/*
 * A hypervisor that writes garbage over all that it shares, at random and aimed, while
 * the host reads text and page images, with filters and without. Whatever comes, the reader stays within its
 * pages and its output buffer (ASan looks), and returns.
 *
 * test_hostile [CALLS [SEED]]: the same seed gives the same garbage.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random_numbers.h"
#include "ringbuf_c/reader.h"

#define NR_CPUS 3U
#define NR_PAGES 4U
#define LARGEST_READ 70000U
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* Small and large numbers alike. */
static u64 any_number(void)
{
	return random_u64() >> below(64);
}

/* --- the writer ------------------------------------------------------------------ */

static u8 *memory[NR_CPUS]; /* of a CPU: its meta page, its data pages */

static struct trace_buffer_meta *meta_of(u32 cpu)
{
	return (struct trace_buffer_meta *)memory[cpu];
}

static u32 any_page_id(void)
{
	return one_in(20) ? (u32)random_u64() : below(NR_PAGES);
}

static void spoil_meta(struct trace_buffer_meta *meta)
{
	u64 *counters[] = { &meta->entries, &meta->overrun, &meta->reader.lost_events,
			    &meta->pages_lost, &meta->pages_touched };

	*counters[below(ARRAY_SIZE(counters))] = any_number();
	if (one_in(4))
		meta->reader.id = any_page_id();
}

/* Mostly an event as it should be, with something odd about it now and then. */
static u32 put_item(u8 *at)
{
	u32 header = one_in(3) ? below(32) : RB_TYPE_DATA_LONG;
	u32 array0 = one_in(8) ? (u32)any_number() : 12;
	u16 id = (u16)below(6);

	if (one_in(2))
		header |= (u32)random_u64() << RB_TYPE_LEN_BITS;
	memcpy(at, &header, sizeof(header));
	memcpy(at + 4, &array0, sizeof(array0));
	memcpy(at + 8, &id, sizeof(id));
	return one_in(9) ? below(32) : 16;
}

static void spoil_page(struct buffer_data_page *page)
{
	u32 end = 0;

	for (u32 items = below(60); items && end < RB_PAGE_CAPACITY - 32; items--)
		end += put_item(page->data + end);
	page->time_stamp = any_number();
	page->commit = one_in(4) ? any_number() : end;
}

static void spoil(u32 cpu)
{
	u8 *page = memory[cpu] + (size_t)RB_PAGE_SIZE * (1 + below(NR_PAGES));

	if (one_in(2))
		spoil_meta(meta_of(cpu));
	else
		spoil_page((struct buffer_data_page *)page);
}

static void hostile_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	u32 of = (u32)regs->x1;

	(void)conduit;
	(void)cpu;
	spoil(of);
	meta_of(of)->reader.id = any_page_id();
	regs->x0 = one_in(100) ? HVC_NOT_SUPPORTED : 0;
	regs->x1 = one_in(50) ? (u64)-EBUSY : 0;
}

/* --- the reader -------------------------------------------------------------------- */

static const struct render_text names[] = { RENDER_LITERAL("smc"), RENDER_LITERAL("hvc") };
static const struct render_symbols symbols = { names, ARRAY_SIZE(names), RENDER_LITERAL("unknown") };

static const struct render_op short_ops[] = {
	{ .kind = RENDER_TEXT, .text = RENDER_LITERAL("hyp_enter reason=") },
	{ .kind = RENDER_SYMBOL, .size = 1, .offset = 2, .symbols = &symbols },
	{ .kind = RENDER_SIGNED, .size = 4, .offset = 4 },
};
static const struct render_op long_ops[] = {
	{ .kind = RENDER_HEX, .size = 8, .offset = 8, .width = 200 },
	{ .kind = RENDER_UNSIGNED, .size = 2, .width = 9, .flags = RENDER_ZERO },
};

static struct render_event events[] = {
	{ 0 },
	{ .ops = short_ops, .nr_ops = ARRAY_SIZE(short_ops) },
	{ .ops = long_ops, .nr_ops = ARRAY_SIZE(long_ops) },
};
static struct reader_cpu cpus[NR_CPUS];
static struct hvc_conduit conduit = { hostile_hvc };
static struct reader reader = {
	.conduit = &conduit,
	.nr_cpus = NR_CPUS,
	.cpus = cpus,
	.events = { events, ARRAY_SIZE(events) },
};
static struct reader_carry text_carry, raw_carry;

/* Of either event: a bit of a field that the shorter records do not have. */
static const struct filter_pred odd = {
	.op = FILTER_AND, .size = 4, .offset = 4, .value = 1,
	.if_true = FILTER_ACCEPT, .if_false = FILTER_REJECT,
};
static const struct filter filters[] = { { 0 }, { &odd, 1 }, { &odd, 1 } };

static void change_filters(void)
{
	reader_set_filters(&reader, one_in(2) ? (struct filter_table){ 0 } :
					(struct filter_table){ filters, 2 + below(2) });
}

static void set_up(void)
{
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++) {
		memory[cpu] = aligned_alloc(RB_PAGE_SIZE, (size_t)RB_PAGE_SIZE * (1 + NR_PAGES));
		if (!memory[cpu])
			abort();
		memset(memory[cpu], 0, (size_t)RB_PAGE_SIZE * (1 + NR_PAGES));
		cpus[cpu].meta = meta_of(cpu);
		cpus[cpu].pages = memory[cpu] + RB_PAGE_SIZE;
		cpus[cpu].nr_pages = NR_PAGES;
	}
	for (u32 i = 1; i < ARRAY_SIZE(events); i++) {
		if (render_event_check(&events[i]))
			abort();
	}
}

/* One read into a buffer of exactly its size, so that ASan sees each byte too many. */
static u32 read_once(void)
{
	u32 size = one_in(4) ? below(LARGEST_READ) : below(5000);
	u32 cpu = one_in(3) ? READER_ALL_CPUS : below(NR_CPUS);
	u8 *out = malloc(size ? size : 1);
	u32 got;

	if (!out)
		abort();
	if (one_in(2))
		got = reader_text(&reader, cpu, &text_carry, (char *)out, size);
	else
		got = reader_raw(&reader, cpu, &raw_carry, out, size);
	free(out);
	if (got > size) {
		fprintf(stderr, "read(%u) gave %u\n", size, got);
		exit(1);
	}
	return got;
}

int main(int argc, char **argv)
{
	u64 calls = argc > 1 ? strtoull(argv[1], NULL, 10) : 200000;
	u64 bytes = 0;

	if (argc > 2)
		seed = strtoull(argv[2], NULL, 10) | 1;
	set_up();
	for (u64 i = 0; i < calls; i++) {
		for (u32 cpu = 0; cpu < NR_CPUS; cpu++)
			spoil(cpu);
		bytes += read_once();
		if (one_in(50))
			reader_reset(&reader, below(NR_CPUS));
		if (one_in(50))
			change_filters();
		if (one_in(20))
			reader_abandon(&reader, one_in(2) ? &text_carry : &raw_carry);
	}
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++)
		free(memory[cpu]);
	printf("%llu reads of garbage, %llu bytes\n", (unsigned long long)calls,
	       (unsigned long long)bytes);
	/* A reader that gives nothing at all would have been easy to keep safe. */
	return bytes ? 0 : 1;
}
