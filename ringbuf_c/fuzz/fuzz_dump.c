// SPDX-License-Identifier: Apache-2.0
/*
 * A hostile hypervisor beside a dump: its pages and counters change between any two of
 * dump_begin(), dump_measure() and reads. The text ends, comes in whole lines and in pieces of
 * any size; and if nothing changes behind dump_begin(), all events are accounted for.
 */
#include "fuzz.h"
#include "ringbuf_c/dump.h"

#define PAGES 5U
#define ROOM 5000U
#define OPS_MAX 200U
#define EVENT_MIN 6U /* bytes: a header, and the u16 id */

static const struct render_op ops[] = {
	{ .kind = RENDER_TEXT, .text = RENDER_LITERAL("probe id=") },
	{ .kind = RENDER_UNSIGNED, .size = 8, .offset = 8 },
};

static struct render_event events[] = { [1] = { .ops = ops, .nr_ops = 2 } };

static struct {
	struct input script;
	struct hvc_conduit conduit;
	struct reader reader;
	struct reader_cpu cpu;
	struct reader_carry carry;
	struct trace_buffer_meta *meta;
	u8 *pages;
	u32 *order;

	struct dump dump;
	struct dump_cpu of;
	struct dump_page *index;
	struct dump_cursor cursor;
	struct reader_cpu cursor_cpu;
	struct dump_source source;
	bool measured, changed; /* since it began */
} run;

/* --- the hypervisor ------------------------------------------------------------------ */

static struct buffer_data_page *take_page(void)
{
	return (void *)(run.pages + (size_t)(take_u8(&run.script) % PAGES) * RB_PAGE_SIZE);
}

static void change_page(void)
{
	struct buffer_data_page *page = take_page();

	page->time_stamp = take_number(&run.script);
	page->commit = take_number(&run.script);
	take_block(&run.script, page->data, (u32)(page->commit % (RB_PAGE_CAPACITY + 1)));
}

static void change_bytes(void)
{
	u8 *page = (u8 *)take_page();
	u32 offset = (u32)(take_number(&run.script) % RB_PAGE_SIZE);

	page[offset] = take_u8(&run.script);
}

/* Well-formed ones, appended. */
static void write_events(void)
{
	struct buffer_data_page *page = take_page();
	u32 delta = take_u8(&run.script);

	for (u32 nr = take_u8(&run.script); nr && page->commit <= RB_PAGE_CAPACITY - 24; nr--) {
		u32 words[6] = { rb_event_header(RB_TYPE_DATA_LONG, delta), 20, 1, 0, nr, 0 };

		memcpy(page->data + page->commit, words, sizeof(words));
		page->commit += sizeof(words);
		run.meta->entries++;
	}
}

static void change_counter(void)
{
	u64 *const counters[] = { &run.meta->entries, &run.meta->overrun, &run.meta->pages_lost,
				  &run.meta->pages_touched, &run.meta->reader.lost_events };
	u8 which = take_u8(&run.script) % (ARRAY_SIZE(counters) + 1);
	u64 value = take_number(&run.script);

	if (which < ARRAY_SIZE(counters))
		*counters[which] = value;
	else
		run.meta->reader.id = (u32)value;
}

static void hostile_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	(void)conduit;
	(void)cpu;
	regs->x0 = 0;
	regs->x1 = 0;
	run.meta->reader.id = take_u8(&run.script);
	change_counter();
}

/* --- the host -------------------------------------------------------------------------- */

static void consume(void)
{
	u32 size = (u32)(take_number(&run.script) % ROOM);
	u8 *out = exact_alloc(size);

	reader_text(&run.reader, 0, &run.carry, (char *)out, size);
	free(out);
}

/* --- the dump ---------------------------------------------------------------------------- */

static void begin(void)
{
	dump_begin(&run.dump, &run.reader);
	require(run.of.nr >= 1 && run.of.nr <= PAGES);
	for (u32 i = 0; i < run.of.nr; i++) {
		require(run.index[i].id < PAGES);
		for (u32 j = 0; j < i; j++)
			require(run.index[i].id != run.index[j].id);
	}
	run.measured = run.changed = false;
}

static void measure(void)
{
	if (run.measured)
		return;
	dump_measure(&run.dump);
	dump_rewind(&run.cursor);
	run.measured = true;
}

static u64 number_at(const char *at)
{
	return strtoull(at, NULL, 10);
}

static void check_text(const char *text, u32 length)
{
	static const char lost[] = "CPU:0 [LOST ";
	u64 accounted = 0;

	for (const char *at = text, *end; at < text + length; at = end) {
		end = memchr(at, '\n', (size_t)(text + length - at));
		require(end++);
		accounted += memcmp(at, lost, sizeof(lost) - 1) ? 1 :
				     number_at(at + sizeof(lost) - 1);
	}
	if (!run.changed)
		require(accounted == run.of.events);
}

static void read_all(void)
{
	u32 piece = (u32)(take_number(&run.script) % ROOM) + 1;
	char scratch[100];
	u64 length;
	u32 got;
	char *text;

	length = dump_length(&run.cursor, scratch, sizeof(scratch));
	require(length <= (u64)PAGES * (RB_PAGE_CAPACITY / EVENT_MIN + 2) * RENDER_LINE_MAX);
	text = exact_alloc(length);
	for (u32 at = 0; at < length; at += got) {
		u32 size = piece < length - at ? piece : (u32)length - at;

		got = dump_read(&run.cursor, at, text + at, size, size);
		require(got == size);
	}
	require(!dump_read(&run.cursor, length, scratch, sizeof(scratch), 1));
	check_text(text, (u32)length);
	free(text);
}

static void read_some(void)
{
	u32 size = (u32)(take_number(&run.script) % ROOM);
	u64 offset = take_number(&run.script);
	char *out = exact_alloc(size + 1);

	require(dump_read(&run.cursor, offset, out, size + 1, size) <= size);
	free(out);
}

/* --- a run --------------------------------------------------------------------------------- */

static void set_up(void)
{
	require(!render_event_check(&events[1]));
	run.meta = exact_alloc(sizeof(*run.meta));
	*run.meta = (struct trace_buffer_meta){ 0 };
	run.pages = aligned_alloc(RB_PAGE_SIZE, PAGES * RB_PAGE_SIZE);
	memset(run.pages, 0, PAGES * RB_PAGE_SIZE);
	run.order = exact_alloc(2 * PAGES * sizeof(u32));
	run.index = exact_alloc(PAGES * sizeof(*run.index));
	run.conduit.hvc = hostile_hvc;
	run.cpu = (struct reader_cpu){ .meta = run.meta, .pages = run.pages, .nr_pages = PAGES };
	run.carry = (struct reader_carry){ 0 };
	run.reader = (struct reader){
		.conduit = &run.conduit,
		.nr_cpus = 1,
		.cpus = &run.cpu,
		.events = { events, ARRAY_SIZE(events) },
	};
	reader_keep_order(&run.reader, 0, run.order);
	run.of = (struct dump_cpu){ .index = run.index };
	run.dump = (struct dump){ .nr_cpus = 1, .cpus = &run.of };
	run.cursor = (struct dump_cursor){
		.dump = &run.dump,
		.cpus = &run.cursor_cpu,
		.sources = &run.source,
	};
	begin();
}

static void tear_down(void)
{
	free(run.meta);
	free(run.pages);
	free(run.order);
	free(run.index);
}

static void host_op(enum dump_op op)
{
	switch (op) {
	case DUMP_CONSUME:
		consume();
		break;
	case DUMP_RESET:
		reader_reset(&run.reader, 0);
		break;
	case DUMP_BEGIN:
		begin();
		break;
	case DUMP_MEASURE:
		measure();
		break;
	case DUMP_READ:
		measure();
		read_some();
		break;
	default:
		measure();
		read_all();
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	static void (*const changes[])(void) = {
		[DUMP_PAGE] = change_page,
		[DUMP_BYTE] = change_bytes,
		[DUMP_EVENTS] = write_events,
		[DUMP_COUNTER] = change_counter,
	};

	run.script = (struct input){ bytes, bytes + size };
	set_up();
	for (u32 i = 0; i < OPS_MAX && input_left(&run.script); i++) {
		enum dump_op op = take_u8(&run.script) % NR_DUMP_OPS;

		if (op < ARRAY_SIZE(changes)) {
			changes[op]();
			run.changed = true;
		} else {
			run.changed |= op == DUMP_CONSUME; /* its hypercalls */
			host_op(op);
		}
	}
	measure();
	read_all();
	tear_down();
	return 0;
}
