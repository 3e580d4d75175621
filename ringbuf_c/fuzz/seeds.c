// SPDX-License-Identifier: Apache-2.0
/*
 * fuzz_seeds DIRECTORY: inputs for the fuzz targets, from pages that the real writer
 * wrote, and from each thing that we know a page can have wrong. Written to
 * DIRECTORY/walk, reader, dump and render, which must exist, as seed-NAME.
 */
#include "fuzz.h"
#include "ringbuf_c/define_events.h"
#include "ringbuf_c/filter.h"
#include "ringbuf_c/hypercalls.h"
#include "ringbuf_c/render.h"

#define NR_PAGES SCRIPT_PAGES
#define FIRST_TIME 4242123456789ULL
#define LONG_PAUSE 5000000000ULL /* ns: a TIME_EXTEND */

/* --- an input ---------------------------------------------------------------------- */

static struct {
	u32 length;
	u8 bytes[16 * RB_PAGE_SIZE];
} seed;

static void put_u8(u8 value)
{
	require(seed.length < sizeof(seed.bytes));
	seed.bytes[seed.length++] = value;
}

static void put_bytes(const void *from, u32 length)
{
	for (u32 i = 0; i < length; i++)
		put_u8(((const u8 *)from)[i]);
}

/* The reverse of take_number(). */
static void put_number(u64 value)
{
	if (value < NUMBER_U16) {
		put_u8((u8)value);
	} else if (value <= UINT16_MAX) {
		put_u8(NUMBER_U16);
		put_bytes(&value, 2);
	} else if (value <= UINT32_MAX) {
		put_u8(NUMBER_U32);
		put_bytes(&value, 4);
	} else {
		put_u8(NUMBER_U64);
		put_bytes(&value, 8);
	}
}

static const char *directory;

static void save(const char *target, const char *name)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s/seed-%s", directory, target, name);
	file = fopen(path, "wb");
	if (!file || fwrite(seed.bytes, 1, seed.length, file) != seed.length || fclose(file)) {
		perror(path);
		exit(1);
	}
	seed.length = 0;
}

/* --- the writer ------------------------------------------------------------------------ */

static struct {
	struct hyp_trace_cpu cpu;
	struct trace_clock clock;
	struct simple_buffer_page bpages[NR_PAGES];
	struct trace_buffer_meta meta;
	u64 pages[NR_PAGES][RB_PAGE_SIZE / sizeof(u64)];
	u32 enabled[HYP_NR_EVENTS];
} writer;

static void start_writer(void)
{
	memset(&writer, 0, sizeof(writer));
	writer.cpu.clock = &writer.clock;
	writer.cpu.enabled = writer.enabled;
	/* A clock with a multiplier of 0 stands still at its epoch. */
	writer.clock.bank[0].epoch_ns = FIRST_TIME;
	for (u32 i = 0; i < HYP_NR_EVENTS; i++)
		writer.enabled[i] = 1;
	for (u32 i = 0; i < NR_PAGES; i++)
		writer.bpages[i].page = (void *)writer.pages[i];
	require(!simple_ring_buffer_init(&writer.cpu.rb, writer.bpages, NR_PAGES, &writer.meta));
	require(!simple_ring_buffer_enable_tracing(&writer.cpu.rb, true));
}

static void pass_time(u64 nsec)
{
	writer.clock.bank[0].epoch_ns += nsec;
}

static void write_selftests(u32 nr)
{
	for (u32 i = 0; i < nr; i++) {
		pass_time(1000);
		trace_selftest(&writer.cpu, i + 1);
	}
}

static void write_mix(u32 nr)
{
	for (u32 i = 0; i < nr; i++) {
		pass_time(700);
		trace_hyp_enter(&writer.cpu, (u8)(i % 10), (pid_t)i - 1);
		pass_time(300);
		trace_hyp_exit(&writer.cpu, (u8)(i % 10), (pid_t)i - 1);
		if (i % 3 == 2)
			write_selftests(1);
	}
}

static void write_pauses(void)
{
	for (u32 i = 0; i < 4; i++) {
		pass_time(LONG_PAUSE);
		write_selftests(1);
	}
	pass_time(-LONG_PAUSE); /* backwards */
	write_selftests(2);
}

static const struct buffer_data_page *swapped_page(void)
{
	require(!simple_ring_buffer_swap_reader_page(&writer.cpu.rb));
	return writer.bpages[writer.meta.reader.id].page;
}

/* --- fuzz_walk ---------------------------------------------------------------------------- */

static void save_walk(const char *name, const struct buffer_data_page *page)
{
	put_u8(COMMIT_IS_SIZE);
	put_number(page->time_stamp);
	put_bytes(page->data, (u32)page->commit);
	save("walk", name);
}

static void walk_seeds_written(void)
{
	start_writer();
	save_walk("empty", writer.bpages[1].page);
	write_mix(5);
	save_walk("mix", swapped_page());
	start_writer();
	write_pauses();
	save_walk("pauses", swapped_page());
	start_writer();
	write_selftests(170);
	save_walk("full", swapped_page());
}

/* Other producers: all that a page may hold. */
static void walk_seed_of_all_kinds(void)
{
	static const u32 items[][3] = {
		{ 0x00000000, 6, 7 },          /* at 0: payload of 2 bytes, then an odd rest */
		{ 0x00000024, 3, 0 },          /* short form */
		{ 0x0000003d, 8, 0 },          /* padding of 12 bytes */
		{ 0x0000003e, 1, 0x00000021 }, /* TIME_EXTEND, short form */
		{ 3, 0x0000003f, 2 },          /* its payload, TIME_STAMP */
		{ 0x0000001c, 1, 2 },          /* the longest short form */
	};

	put_u8(COMMIT_IS_SIZE);
	put_number(1000);
	put_bytes(items[0], 10);
	for (u32 i = 1; i < ARRAY_SIZE(items); i++)
		put_bytes(items[i], 12);
	for (u32 i = 0; i < 116 - 8; i++)
		put_u8(0xaa);
	put_bytes((const u32[]){ 29, 0, 0 }, 12); /* the rest of the page */
	save("walk", "all-kinds");
}

/* One good event, then @header and @array0. */
static void put_bad_data(u32 header, u32 array0)
{
	static const u32 good[] = { 0, 20, 3, 0, 1, 0 };

	put_bytes(good, sizeof(good));
	put_bytes(&header, sizeof(header));
	put_bytes(&array0, sizeof(array0));
	put_bytes(good, sizeof(good));
}

static const struct {
	const char *name;
	u32 header, array0;
} bad_items[] = {
	{ "length-0", 0, 0 },
	{ "length-3", 0, 3 },
	{ "length-5", 0, 5 },
	{ "past-the-page", 0, RB_PAGE_SIZE },
	{ "past-the-commit", 0, 29 },
	{ "length-wraps", 0, 0xfffffffc },
	{ "padding-to-the-end", 29, 20 },
	{ "padding-length-0", 29 | 1 << 5, 0 },
	{ "padding-length-3", 29 | 1 << 5, 3 },
	{ "padding-past-the-commit", 29 | 1 << 5, 100 },
	{ "short-past-the-commit", 28, 0 },
	{ "time-extend", 30, 0xffffffff },
	{ "time-stamp", 0xffffffff, 0xffffffff },
};

static void walk_seeds_bad(void)
{
	static const u64 commits[] = { RB_PAGE_CAPACITY, RB_PAGE_CAPACITY + 1, UINT64_MAX,
				       RB_MISSED_EVENTS | 24, 27 };

	for (u32 i = 0; i < ARRAY_SIZE(bad_items); i++) {
		put_u8(COMMIT_IS_SIZE);
		put_number(1000);
		put_bad_data(bad_items[i].header, bad_items[i].array0);
		save("walk", bad_items[i].name);
	}
	for (u32 i = 0; i < ARRAY_SIZE(commits); i++) {
		char name[40];

		put_u8(COMMIT_IS_TAKEN);
		put_number(1000);
		put_number(commits[i]);
		put_bad_data(0, 20);
		snprintf(name, sizeof(name), "commit-%llx", (unsigned long long)commits[i]);
		save("walk", name);
	}
}

/* --- fuzz_reader ------------------------------------------------------------------------------ */

static void put_page(u8 cpu, u8 id, const struct buffer_data_page *page)
{
	put_u8(OP_PAGE);
	put_u8(cpu);
	put_u8(id);
	put_number(page->time_stamp);
	put_number(page->commit);
	put_bytes(page->data, (u32)page->commit);
}

static void put_counter(u8 cpu, enum script_counter counter, u64 value)
{
	put_u8(OP_COUNTER);
	put_u8(cpu);
	put_u8((u8)counter);
	put_number(value);
}

static void put_read(enum script_op op, u8 cpu, u64 size)
{
	put_u8((u8)op);
	put_u8(cpu);
	put_number(size);
}

/* The counters as the writer has them, but for the page that the host owns. */
static void put_counters(u8 cpu)
{
	put_counter(cpu, COUNTER_PAGES_TOUCHED, writer.meta.pages_touched);
	put_counter(cpu, COUNTER_PAGES_LOST, writer.meta.pages_lost);
	put_counter(cpu, COUNTER_OVERRUN, writer.meta.overrun);
	put_counter(cpu, COUNTER_ENTRIES, writer.meta.entries);
}

/* What a swap does; it is in the script where the hypercall is. */
static void put_swap(u8 cpu)
{
	const struct buffer_data_page *page = swapped_page();

	put_page(cpu, (u8)writer.meta.reader.id, page);
	put_counter(cpu, COUNTER_LOST_EVENTS, writer.meta.reader.lost_events);
	put_counter(cpu, COUNTER_READER_ID, writer.meta.reader.id);
	put_u8(OP_RETURN);
}

/* One CPU as the writer has left it, read in reads of @size. */
static void save_written(const char *name, enum script_op op, u8 cpu, u32 pages, u64 size)
{
	put_counters(cpu);
	put_read(op, cpu, size);
	for (u32 i = 0; i < pages; i++)
		put_swap(cpu);
	for (u32 i = 0; i < 3; i++)
		put_read(op, SCRIPT_ALL_CPUS, size);
	save("reader", name);
}

static void reader_seeds_written(void)
{
	start_writer();
	write_mix(4);
	save_written("mix-text", OP_TEXT, 0, 1, 500);
	start_writer();
	write_mix(4);
	save_written("mix-raw", OP_RAW, 1, 1, 5000);
	start_writer();
	write_pauses();
	save_written("pauses-small-text", OP_TEXT, 3, 1, 30);
	start_writer();
	write_pauses();
	save_written("pauses-small-raw", OP_RAW, 3, 1, 1000);
	start_writer();
	write_selftests(816);
	save_written("overrun-text", OP_TEXT, 0, 2, 9000);
	start_writer();
	write_selftests(816);
	save_written("overrun-raw", OP_RAW, 0, 2, 9000);
}

static void put_events(u8 cpu, u8 page, u8 id, u8 length, u8 number)
{
	put_u8(OP_EVENTS);
	put_u8(cpu);
	put_u8(page);
	put_number(id);
	put_number(100); /* ns */
	put_number(length - 2U);
	put_number(number);
}

/* A CPU that has been given page 1, with @number events, and promises @more. */
static void put_given(u8 cpu, u8 number, u8 more)
{
	put_events(cpu, 1, HYP_EVENT_ID_selftest, 16, number);
	put_counter(cpu, COUNTER_READER_ID, 1);
	put_counter(cpu, COUNTER_PAGES_TOUCHED, 3);
	put_counter(cpu, COUNTER_ENTRIES, number + more);
}

static void put_reads(void)
{
	put_read(OP_TEXT, 0, 2000);
	put_read(OP_RAW, SCRIPT_ALL_CPUS, 9000);
	put_read(OP_TEXT, SCRIPT_ALL_CPUS, 2000);
}

static void reader_seed_merge(void)
{
	for (u8 cpu = 0; cpu < 4; cpu += cpu == 1 ? 2 : 1) {
		put_given(cpu, (u8)(3 + cpu), 0);
		put_counter(cpu, COUNTER_PAGES_TOUCHED, 0);
	}
	put_events(0, 1, HYP_EVENT_ID_hyp_enter, 8, 2);
	put_events(1, 1, 4, 8, 2);  /* long lines */
	put_events(3, 1, 9, 8, 2);  /* unknown */
	put_events(3, 1, HYP_EVENT_ID_selftest, 8, 2); /* short */
	for (u32 i = 0; i < 8; i++)
		put_read(OP_TEXT, SCRIPT_ALL_CPUS, 333);
	put_read(OP_TEXT, SCRIPT_ALL_CPUS, 19999);
	save("reader", "merge");
}

static void reader_seeds_bad_pages(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(bad_items); i++) {
		put_given(0, 3, 5);
		put_u8(OP_BYTES);
		put_u8(0);
		put_u8(1);
		put_number(24);
		put_number(8);
		put_bytes(&bad_items[i].header, 4);
		put_bytes(&bad_items[i].array0, 4);
		put_reads();
		save("reader", bad_items[i].name);
	}
}

static void put_commit(u64 commit)
{
	put_u8(OP_COMMIT);
	put_u8(0);
	put_u8(1);
	put_number(commit);
}

static void reader_seeds_bad_commits(void)
{
	put_given(0, 3, 5);
	put_commit(RB_PAGE_CAPACITY + 1);
	put_reads();
	save("reader", "commit-over-the-page");

	/* One event is read; the second has been seen when the commit goes back. */
	for (u64 commit = 0; commit <= 72; commit += 24) {
		char name[40];

		put_given(0, 4, 0);
		put_read(OP_TEXT, 0, 80);
		put_u8(OP_RETURN); /* or it would happen in the swap */
		put_commit(commit);
		put_read(OP_RAW, 0, 5000);
		put_reads();
		snprintf(name, sizeof(name), "commit-taken-back-to-%u", (u32)commit);
		save("reader", name);
	}
}

static void reader_seeds_bad_counters(void)
{
	put_given(0, 3, 0);
	put_counter(0, COUNTER_READER_ID, SCRIPT_PAGES);
	put_reads();
	put_counter(0, COUNTER_READER_ID, UINT32_MAX);
	put_reads();
	save("reader", "reader-id-out-of-range");

	put_given(0, 9, 0);
	put_read(OP_TEXT, 0, 100);
	put_u8(OP_RETURN);
	put_counter(0, COUNTER_ENTRIES, 1);
	put_reads();
	put_counter(0, COUNTER_ENTRIES, 12);
	put_counter(0, COUNTER_OVERRUN, UINT64_MAX);
	put_u8(OP_POLL);
	put_reads();
	save("reader", "counters-backwards");

	put_given(0, 3, 0);
	put_counter(0, COUNTER_LOST_EVENTS, -(u64)1000);
	put_reads();
	save("reader", "negative-loss");

	put_given(0, 3, 0);
	put_counter(0, COUNTER_ENTRIES, INT64_MAX);
	put_counter(0, COUNTER_PAGES_TOUCHED, INT64_MAX);
	put_reads();
	save("reader", "endless-promise");

	put_given(0, 3, 0);
	put_commit(UINT64_MAX);
	put_counter(0, COUNTER_ENTRIES, INT64_MAX);
	put_counter(0, COUNTER_PAGES_TOUCHED, INT64_MAX);
	put_read(OP_RAW, 0, 5000);
	put_reads();
	save("reader", "endless-broken-pages");
}

static void reader_seeds_calls(void)
{
	put_given(0, 3, 0);
	put_u8(OP_ANSWER);
	put_number(0);
	put_number((u64)-EBUSY);
	put_reads();
	put_u8(OP_ANSWER);
	put_number(HVC_NOT_SUPPORTED);
	put_number(0);
	put_reads();
	put_u8(OP_ANSWER);
	put_number(0);
	put_number(0);
	put_reads();
	save("reader", "swap-errors");

	put_given(0, 9, 4);
	put_read(OP_TEXT, 0, 60);
	put_u8(OP_RESET);
	put_u8(0);
	put_reads();
	save("reader", "reset");
}

/* --- fuzz_dump ---------------------------------------------------------------------------------- */

/* Pages 1 to @nr of the ring, 20 events each. */
static void put_dumped(u8 nr)
{
	for (u8 page = 1; page <= nr; page++) {
		put_u8(DUMP_PAGE);
		put_u8(page);
		put_number(FIRST_TIME + page);
		put_number(0);
		put_u8(DUMP_EVENTS);
		put_u8(page);
		put_u8(3);
		put_u8(20);
	}
	put_u8(DUMP_COUNTER);
	put_u8(3); /* pages_touched */
	put_number(nr - 1);
}

static void put_all(u32 piece)
{
	put_u8(DUMP_ALL);
	put_number(piece);
}

static void dump_seeds(void)
{
	put_dumped(3);
	put_u8(DUMP_BEGIN);
	put_all(100);
	save("dump", "all");

	put_dumped(3);
	put_u8(DUMP_CONSUME);
	put_number(300);
	put_u8(1); /* reader.id */
	put_u8(0); /* entries */
	put_number(60);
	put_u8(DUMP_BEGIN);
	put_all(1);
	save("dump", "consumed");

	put_dumped(3);
	put_u8(DUMP_BEGIN);
	put_u8(DUMP_MEASURE);
	put_u8(DUMP_PAGE);
	put_u8(1);
	put_number(FIRST_TIME + 9);
	put_number(0);
	put_all(1000);
	save("dump", "overwritten");

	put_dumped(3);
	put_u8(DUMP_RESET);
	put_u8(DUMP_BEGIN);
	put_u8(DUMP_READ);
	put_number(100);
	put_number(50);
	put_all(1000);
	save("dump", "reset");

	put_dumped(2);
	put_u8(DUMP_BYTE);
	put_u8(1);
	put_number(RB_PAGE_HEADER + 28);
	put_u8(3);
	put_u8(DUMP_BEGIN);
	put_all(1000);
	save("dump", "length-3");
}

/* --- fuzz_render -------------------------------------------------------------------------------- */

static void put_render(u32 cpu, u64 time_stamp, u8 id, u8 nr_ops)
{
	put_number(cpu);
	put_number(time_stamp);
	put_number(510);
	put_u8(id);
	put_u8(nr_ops);
}

static void put_op(u8 kind, u8 size, u8 flags, u8 width, u32 offset, u32 text)
{
	put_u8(kind);
	put_u8(size);
	put_u8(flags);
	put_u8(width);
	put_number(offset);
	put_number(text);
}

static void put_enter_ops(void)
{
	put_op(RENDER_SYMBOL, 1, 0, 0, 2, 17);
	put_u8(2); /* symbols, and the fallback */
	put_number(3);
	put_number(4);
	put_number(7);
	put_op(RENDER_SIGNED, 4, 0, 0, 4, 6);
}

/* The payload of a page that the writer wrote. */
static void put_payload(void)
{
	start_writer();
	write_mix(1);
	put_bytes(swapped_page()->data + RB_EVENT_HEADER, 8);
}

static void render_seeds(void)
{
	static const u8 flags[] = { 0, RENDER_LEFT, RENDER_ZERO, RENDER_LEFT | RENDER_ZERO };

	put_render(0, FIRST_TIME, 1, 2);
	put_enter_ops();
	put_payload();
	save("render", "hyp-enter");

	put_render(12, 999999999, 1, 2);
	put_enter_ops();
	put_bytes("\1\0", 2);
	save("render", "short");

	put_render(UINT32_MAX, FIRST_TIME, 0, 0);
	put_bytes("\0\0", 2);
	save("render", "unknown");

	put_render(0, UINT64_MAX, 0, 0);
	put_bytes("\0\0", 2);
	save("render", "time-wraps");

	put_render(3, FIRST_TIME, 1, 12);
	for (u8 i = 0; i < 12; i++)
		put_op((u8)(RENDER_UNSIGNED + i % 3), (u8)(1U << i / 3), flags[i % 4],
		       (u8)(i * 3), i, i * 5);
	put_bytes("\x01\x80\xff\xff\xff\xff\xff\xff\x7f\x00\x00\x00\x00\x00\x00\x80\x12\x34\x56", 19);
	save("render", "numbers");
}

/* Two formats; the index is at 2. */
static void put_formats(u16 index, u32 nr_args)
{
	put_render(0, FIRST_TIME, RENDER_HAS_FORMATS + 1, 1);
	put_op(RENDER_UNSIGNED, 2, 0, 0, 2, 12);
	put_u8(2);
	put_number(2);
	put_number(2);
	put_u8(0); /* the first one has no operations */
	put_u8(2);
	put_op(RENDER_SIGNED, 4, 0, 0, 8, 4);
	put_op(RENDER_HEX, 8, RENDER_ZERO, 18, 16, 3);
	put_bytes("\1\0", 2);
	put_bytes(&index, 2);
	put_bytes("\0\0\0\0", 4);
	for (u64 i = 0; i < nr_args; i++)
		put_bytes(&i, 8);
}

static void render_seeds_rare(void)
{
	put_render(0, FIRST_TIME, 1, 2);
	put_op(RENDER_SYMBOL_OR_HEX, 4, RENDER_EXTEND, 0, 4, 4);
	put_u8(1);
	put_number(3);
	put_number(0);
	put_op(RENDER_STRING, 8, RENDER_LEFT, 12, 8, 4);
	put_bytes("\1\0\0\0\xff\xff\xff\xff" "qemu\x1b[\0x", 16);
	save("render", "string-and-hex");
}

static void render_seeds_formats(void)
{
	put_formats(0, 0);
	save("render", "format");
	put_formats(1, 2);
	save("render", "format-with-arguments");
	put_formats(1, 1);
	save("render", "format-without-an-argument");
	put_formats(2, 2);
	save("render", "no-such-format");
}

static void render_seeds_refused(void)
{
	put_render(0, 0, 1, 1);
	put_op(RENDER_TEXT, 0, 0, 0, 0, RENDER_LINE_MAX - RENDER_FRAME_MAX + 1);
	put_payload();
	save("render", "text-too-long");

	put_render(0, 0, 1, 1);
	put_op(RENDER_TEXT, 0, 0, 0, 0, RENDER_LINE_MAX - RENDER_FRAME_MAX);
	put_payload();
	save("render", "text-just-fits");

	put_render(0, 0, 1, 1);
	put_op(RENDER_SYMBOL, 1, RENDER_ZERO, 200, 3, 0);
	put_u8(RENDER_NO_TABLE);
	put_payload();
	save("render", "no-table");

	put_render(0, 0, 1, 1);
	put_op(RENDER_HEX, 3, 0, 0, 0, 0);
	put_payload();
	save("render", "odd-size");

	put_render(0, 0, 1, 1);
	put_op(RENDER_HEX, 8, 0, 0, RB_MAX_PAYLOAD - 7, 1);
	put_payload();
	save("render", "past-any-payload");

	put_render(0, 0, 1, 1);
	put_op(RENDER_STRING + 1, 8, 0, 0, 0, 1);
	put_payload();
	save("render", "no-such-kind");
}

static void put_filter(u8 nr_preds)
{
	put_u8(nr_preds);
	put_number(1); /* the CPU */
}

static void put_pred(u8 op, u8 size, u32 offset, u64 value, u64 if_true, u64 if_false)
{
	put_u8(op);
	put_u8(FILTER_FIELD);
	put_u8(size);
	put_u8(size == 4); /* signed */
	put_number(offset);
	put_number(value);
	put_number(if_true);
	put_number(if_false);
}

static void put_event_payload(void)
{
	static const u8 payload[] = { 1, 0, 7, 0, 0xfe, 0xff, 0xff, 0xff, 9, 8, 7, 6, 5, 4, 3, 2 };

	put_bytes(payload, sizeof(payload));
}

static void filter_seeds(void)
{
	put_filter(1);
	put_pred(FILTER_EQ, 1, 2, 7, FILTER_ACCEPT, FILTER_REJECT);
	put_event_payload();
	save("filter", "one");

	put_filter(NR_FILTER_OPS);
	for (u8 op = 0; op + 1 < NR_FILTER_OPS; op++)
		put_pred(op, (u8)(1U << op % 4), op, (u64)-(s64)op, 1, FILTER_ACCEPT);
	put_pred(FILTER_AND, 8, 8, 1, FILTER_REJECT, FILTER_ACCEPT);
	put_event_payload();
	save("filter", "all-operators");

	put_filter(2);
	put_pred(FILTER_NE, 4, 14, 0, 1, 1); /* the record is shorter */
	put_pred(FILTER_GE, 2, 0, 1, FILTER_REJECT, FILTER_ACCEPT);
	put_event_payload();
	save("filter", "short-record");

	put_filter(1);
	put_pred(FILTER_EQ, 1, 2, 7, 0, FILTER_REJECT);
	save("filter", "endless");

	put_filter(1);
	put_pred(FILTER_EQ, 8, RB_MAX_PAYLOAD - 7, 7, FILTER_ACCEPT, FILTER_REJECT);
	save("filter", "past-any-payload");
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: fuzz_seeds DIRECTORY\n");
		return 2;
	}
	directory = argv[1];
	walk_seeds_written();
	walk_seed_of_all_kinds();
	walk_seeds_bad();
	reader_seeds_written();
	reader_seed_merge();
	reader_seeds_bad_pages();
	reader_seeds_bad_commits();
	reader_seeds_bad_counters();
	reader_seeds_calls();
	dump_seeds();
	render_seeds();
	render_seeds_rare();
	render_seeds_formats();
	render_seeds_refused();
	filter_seeds();
	return 0;
}
