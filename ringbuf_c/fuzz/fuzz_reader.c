// SPDX-License-Identifier: Apache-2.0
/*
 * A script of what a hostile hypervisor does to the pages that it shares and of what the
 * host reads (enum script_op). After each call of the host:
 *
 *  - nothing was written behind the buffer (ASan), and the call has returned;
 *  - text is whole lines, each of a form that render.h names, and only the first one of
 *    a read is cut; images hold whole events;
 *  - the counters of reader_stats() are what the script and the output say;
 *  - the output is paid for, as follows.
 *
 * What a read may cost and give, for each CPU, however large the numbers are that the
 * hypervisor writes:
 *
 *     events      <= EVENTS_MAX for each page that it was given since the last reset,
 *                    and one more page that it had
 *                 <= events that the counters promised before the read, unless a swap
 *                    takes back a loss (a negative number of lost events)
 *     CORRUPT     <= one for each page given in this read, and one
 *     LOST        <= one before each of the lines above, never two in a row
 *     images      <= one for each event, but for those whose event was taken back
 *                    between being seen and being copied
 *     hypercalls  <= one each time that the host looks for the oldest event: once for each
 *                    line, image or page passed over, and once to see that there is none
 */
#include "fuzz.h"
#include "ringbuf_c/define_events.h"
#include "ringbuf_c/reader.h"

#define EVENTS_MAX (RB_PAGE_CAPACITY / 6U) /* a header and the u16 id */
#define SIZE_MAX_READ 20000U
#define READS_MAX 100U  /* of a script */
#define SKIPS_MAX 64U   /* pages that a read of images passes over, for each image */
#define HVC_CPU 7U
#define COMMIT_FLAGS ((u64)RB_MISSED_EVENTS | RB_MISSED_STORED)

/* --- events -------------------------------------------------------------------------- */

static const struct render_text reason_names[] = {
	RENDER_LITERAL("smc"), RENDER_LITERAL("hvc"), RENDER_LITERAL("sys"),
};
static const struct render_symbols reasons = { reason_names, 3, RENDER_LITERAL("unknown") };

#define LONG_TEXT 1200U
static char long_letters[LONG_TEXT + RENDER_TEXT_ALIGN];
static const struct render_text long_names[] = { { long_letters, 1 }, { long_letters, 700 } };
static const struct render_symbols long_symbols = { long_names, 2, { long_letters, LONG_TEXT } };

static const struct render_op enter_ops[] = {
	{ .kind = RENDER_SYMBOL, .size = 1, .offset = 2, .symbols = &reasons,
	  .text = RENDER_LITERAL("hyp_enter reason=") },
	{ .kind = RENDER_SIGNED, .size = 4, .offset = 4, .text = RENDER_LITERAL(" vcpu=") },
};
static const struct render_op selftest_ops[] = {
	{ .kind = RENDER_UNSIGNED, .size = 8, .offset = 8, .text = RENDER_LITERAL("selftest id=") },
};
static const struct render_op long_ops[] = {
	{ .kind = RENDER_TEXT, .text = RENDER_LITERAL("long ") },
	{ .kind = RENDER_SYMBOL, .size = 1, .offset = 2, .symbols = &long_symbols },
	{ .kind = RENDER_SYMBOL, .size = 1, .offset = 3, .symbols = &long_symbols },
	{ .kind = RENDER_SYMBOL, .size = 1, .offset = 4, .symbols = &long_symbols },
};
static const struct render_op empty_ops[1];

/*
 * The ids that our writer uses, also those of when the corpus was made; one whose line
 * can be nearly as long as allowed; one without text.
 */
static struct render_event events[] = {
	[HYP_EVENT_ID_hyp_enter] = { .ops = enter_ops, .nr_ops = ARRAY_SIZE(enter_ops) },
	[HYP_EVENT_ID_selftest] = { .ops = selftest_ops, .nr_ops = ARRAY_SIZE(selftest_ops) },
	[1] = { .ops = enter_ops, .nr_ops = ARRAY_SIZE(enter_ops) },
	[3] = { .ops = selftest_ops, .nr_ops = ARRAY_SIZE(selftest_ops) },
	[4] = { .ops = long_ops, .nr_ops = ARRAY_SIZE(long_ops) },
	[2] = { .ops = empty_ops, .nr_ops = 0 },
};

/* --- the state of one run --------------------------------------------------------------- */

struct cpu_state {
	struct trace_buffer_meta *meta;
	u8 *pages;

	u64 events; /* delivered since reset */
	u64 given;  /* pages since reset */
	u64 lost;   /* as reported with them */
	s64 swap_error;

	/* of this read */
	struct reader_stats before;
	u64 entries, overrun; /* as the read must have polled them */
	u64 unreported;       /* before it */
	u32 swaps;            /* pages given */
	u64 lost_now;
	u32 lines, corrupt;
	u64 lost_lines;       /* the sum of their numbers */
};

static struct {
	struct input script;
	struct hvc_conduit conduit;
	struct reader reader;
	struct reader_cpu cpus[SCRIPT_CPUS];
	struct cpu_state of[SCRIPT_CPUS];
	struct reader_carry text_carry, raw_carry;
	u64 answer_x0, answer_x1;
	u32 hypercalls, reads;
	bool polled;
	bool cut; /* what this read has made new does not end with it */
} run;

#define for_each_present_cpu(nr)                       \
	for (u32 nr = 0; nr < SCRIPT_CPUS; nr++)       \
		if (nr != SCRIPT_ABSENT_CPU)

/* --- the hypervisor ------------------------------------------------------------------------ */

static struct cpu_state *take_cpu(void)
{
	u32 nr = take_u8(&run.script) % SCRIPT_CPUS;

	return &run.of[nr == SCRIPT_ABSENT_CPU ? 0 : nr];
}

static struct buffer_data_page *take_page(void)
{
	struct cpu_state *cpu = take_cpu();
	u32 id = take_u8(&run.script) % SCRIPT_PAGES;

	return (void *)(cpu->pages + (size_t)id * RB_PAGE_SIZE);
}

static void change_counter(bool add)
{
	struct trace_buffer_meta *meta = take_cpu()->meta;
	u32 counter = take_u8(&run.script) % NR_COUNTERS;
	u64 value = take_number(&run.script);
	u64 *wide[] = {
		[COUNTER_ENTRIES] = &meta->entries,
		[COUNTER_OVERRUN] = &meta->overrun,
		[COUNTER_LOST_EVENTS] = &meta->reader.lost_events,
		[COUNTER_PAGES_LOST] = &meta->pages_lost,
		[COUNTER_PAGES_TOUCHED] = &meta->pages_touched,
		[COUNTER_DROPPED] = &meta->dropped,
		[COUNTER_STRUCT_LEN] = NULL,
	};

	if (counter == COUNTER_READER_ID)
		meta->reader.id = (u32)value + (add ? meta->reader.id : 0);
	else if (counter == COUNTER_STRUCT_LEN)
		meta->meta_struct_len = (u32)value;
	else
		*wide[counter] = value + (add ? *wide[counter] : 0);
}

static void write_page(void)
{
	struct buffer_data_page *page = take_page();
	u32 length;

	page->time_stamp = take_number(&run.script);
	length = (u32)(take_number(&run.script) % (RB_PAGE_CAPACITY + 1));
	memset(page->data, 0, RB_PAGE_CAPACITY);
	take_block(&run.script, page->data, length);
	page->commit = length;
}

static void write_bytes(void)
{
	struct buffer_data_page *page = take_page();
	u32 offset = (u32)(take_number(&run.script) % RB_PAGE_CAPACITY);
	u32 length = (u32)(take_number(&run.script) % (RB_PAGE_CAPACITY - offset + 1));

	take_block(&run.script, page->data + offset, length);
}

static void take_back_commit(void)
{
	struct buffer_data_page *page = take_page();

	page->commit = take_number(&run.script);
}

static bool append_event(struct buffer_data_page *page, u16 id, u32 delta, u32 length, u64 serial)
{
	u32 size = RB_EVENT_HEADER + length;
	u32 header[2] = { rb_event_header(RB_TYPE_DATA_LONG, delta), length + 4 };
	u8 *at;

	if (page->commit > RB_PAGE_CAPACITY || size > RB_PAGE_CAPACITY - page->commit)
		return false;
	at = page->data + page->commit;
	memset(at, (u8)serial, size);
	memcpy(at, header, sizeof(header));
	memcpy(at + sizeof(header), &id, sizeof(id));
	page->commit += size;
	return true;
}

static void write_events(void)
{
	struct buffer_data_page *page = take_page();
	u16 id = (u16)take_number(&run.script);
	u32 delta = (u32)take_number(&run.script);
	u32 length = 2 + (u32)(take_number(&run.script) % RB_MAX_PAYLOAD);
	u64 number = take_number(&run.script);

	for (u64 i = 0; i < number && append_event(page, id, delta, length, i); i++)
		;
}

static void hypervisor_op(enum script_op op)
{
	switch (op) {
	case OP_ANSWER:
		run.answer_x0 = take_number(&run.script);
		run.answer_x1 = take_number(&run.script);
		break;
	case OP_COUNTER:
	case OP_ADD:
		change_counter(op == OP_ADD);
		break;
	case OP_PAGE:
		write_page();
		break;
	case OP_BYTES:
		write_bytes();
		break;
	case OP_COMMIT:
		take_back_commit();
		break;
	case OP_EVENTS:
		write_events();
		break;
	default:
		break;
	}
}

/* What the hypervisor does before it returns; the host's next op stays in the script. */
static void run_hypervisor(void)
{
	while (input_left(&run.script)) {
		enum script_op op = *run.script.at % NR_OPS;

		if (op >= FIRST_HOST_OP)
			return;
		run.script.at++;
		if (op == OP_RETURN)
			return;
		hypervisor_op(op);
	}
}

/* A hypervisor cannot have lost more than it says that it wrote. */
static u64 believed_loss(const struct reader_cpu *reader)
{
	s64 unseen = (s64)(reader->meta->entries - reader->read - reader->lost);
	u64 lost = reader->meta->reader.lost_events;

	if (unseen < 0)
		return 0;
	return lost < (u64)unseen ? lost : (u64)unseen;
}

/* What a reader has to make of the answer. */
static s64 answered_error(void)
{
	s64 result = (s64)run.answer_x1;

	if (run.answer_x0)
		return -EOPNOTSUPP;
	return result <= 0 && result >= -4095 ? result : -EPROTO;
}

/* What reader_stats() must say of this swap. */
static void note_answer(u32 nr)
{
	struct cpu_state *cpu = &run.of[nr];
	u64 lost = believed_loss(&run.cpus[nr]);

	cpu->swap_error = answered_error();
	if (cpu->swap_error)
		return;
	if (cpu->meta->reader.id >= SCRIPT_PAGES) {
		cpu->swap_error = -ERANGE;
		return;
	}
	cpu->given++;
	cpu->swaps++;
	cpu->lost += lost;
	cpu->lost_now += lost;
}

static void hostile_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	require(conduit == &run.conduit && cpu == HVC_CPU);
	require(regs->x0 == HVC_TRACING_SWAP_READER);
	require(regs->x1 < SCRIPT_CPUS && regs->x1 != SCRIPT_ABSENT_CPU);
	run.hypercalls++;
	run_hypervisor();
	note_answer((u32)regs->x1);
	regs->x0 = run.answer_x0;
	regs->x1 = run.answer_x1;
}

/* --- counters ----------------------------------------------------------------------------------- */

static void begin_call(void)
{
	run.hypercalls = 0;
	run.polled = false;
	for_each_present_cpu(nr) {
		struct cpu_state *cpu = &run.of[nr];

		reader_stats(&run.reader, nr, &cpu->before);
		cpu->entries = cpu->meta->entries;
		cpu->overrun = cpu->meta->overrun;
		cpu->unreported = run.cpus[nr].unreported;
		cpu->swaps = cpu->lines = cpu->corrupt = 0;
		cpu->lost_now = cpu->lost_lines = 0;
	}
}

static u64 above_zero(u64 number)
{
	return (s64)number > 0 ? number : 0;
}

static void check_stats(u32 nr, const struct reader_stats *stats)
{
	const struct cpu_state *cpu = &run.of[nr];

	require(stats->entries == (run.polled ? cpu->entries : cpu->before.entries));
	require(stats->overrun == (run.polled ? cpu->overrun : cpu->before.overrun));
	require(stats->unread == above_zero(stats->entries - stats->overrun - stats->read));
	require(stats->read - stats->skipped == cpu->events);
	require(stats->lost == cpu->lost);
	require(stats->swap_error == cpu->swap_error);
	require(stats->pages_lost == cpu->meta->pages_lost);
	require(stats->pages_touched == cpu->meta->pages_touched);
	require(stats->dropped == (cpu->meta->meta_struct_len >= 88 ? cpu->meta->dropped : 0));
}

/* What was given is paid for: see the top. */
static void check_paid(u32 nr, const struct reader_stats *stats)
{
	const struct cpu_state *cpu = &run.of[nr];
	u64 promised = cpu->entries - cpu->before.read - cpu->before.lost;

	require(cpu->events <= (cpu->given + 1) * EVENTS_MAX);
	require(cpu->corrupt <= cpu->swaps + 1);
	require(stats->broken_pages - cpu->before.broken_pages <= cpu->swaps + 1);
	if (cpu->lines)
		require(cpu->lines <= above_zero(promised));
}

static void end_call(void)
{
	u64 unread = 0;

	for_each_present_cpu(nr) {
		struct reader_stats stats;

		reader_stats(&run.reader, nr, &stats);
		check_stats(nr, &stats);
		check_paid(nr, &stats);
		require(reader_unread(&run.reader, nr) == stats.unread);
		unread += stats.unread;
	}
	require(reader_unread(&run.reader, READER_ALL_CPUS) == unread);
}

/* --- lines ---------------------------------------------------------------------------------------- */

struct text {
	const char *at, *end;
};

static bool literal(struct text *text, const char *wanted)
{
	size_t length = strlen(wanted);

	if ((size_t)(text->end - text->at) < length || memcmp(text->at, wanted, length))
		return false;
	text->at += length;
	return true;
}

static bool digit(const struct text *text)
{
	return text->at < text->end && *text->at >= '0' && *text->at <= '9';
}

/* As %llu prints it. */
static bool number(struct text *text, u64 *value)
{
	const char *start = text->at;

	for (*value = 0; digit(text); text->at++)
		*value = *value * 10 + (u64)(*text->at - '0');
	return text->at > start && (*start != '0' || text->at == start + 1);
}

static bool exact_digits(struct text *text, u32 count, u64 *value)
{
	for (*value = 0; count && digit(text); text->at++, count--)
		*value = *value * 10 + (u64)(*text->at - '0');
	return !count;
}

static bool cpu_number(u64 nr)
{
	return nr < SCRIPT_CPUS && nr != SCRIPT_ABSENT_CPU;
}

static bool lost_line(struct text text, u64 *nr, u64 *lost)
{
	return literal(&text, "CPU:") && number(&text, nr) && cpu_number(*nr) &&
	       literal(&text, " [LOST ") && number(&text, lost) && literal(&text, " EVENTS]") &&
	       text.at == text.end;
}

static bool corrupt_line(struct text text, u64 *nr)
{
	u64 page, offset;

	return literal(&text, "CPU:") && number(&text, nr) && cpu_number(*nr) &&
	       literal(&text, " [CORRUPT PAGE ") && number(&text, &page) &&
	       page < SCRIPT_PAGES && literal(&text, " AT ") && number(&text, &offset) &&
	       offset <= RB_PAGE_CAPACITY && literal(&text, "]") && text.at == text.end;
}

static bool is_reason(struct text *text)
{
	return literal(text, "smc") || literal(text, "hvc") || literal(text, "sys") ||
	       literal(text, "unknown");
}

static bool is_long(struct text *text)
{
	while (literal(text, "x"))
		;
	return true;
}

/* An event, or what stands for one. */
static bool event_text(struct text text)
{
	u64 value;
	bool good;

	if (literal(&text, "UNKNOWN id="))
		good = number(&text, &value) &&
		       (value >= ARRAY_SIZE(events) || !events[value].ops);
	else if (literal(&text, "[SHORT EVENT id="))
		good = number(&text, &value) && value < ARRAY_SIZE(events) && events[value].ops &&
		       literal(&text, " length=") && number(&text, &value) && value >= 2 &&
		       literal(&text, "]");
	else if (literal(&text, "hyp_enter reason="))
		good = is_reason(&text) && literal(&text, " vcpu=") &&
		       (literal(&text, "-") || true) && number(&text, &value);
	else if (literal(&text, "selftest id="))
		good = number(&text, &value);
	else
		good = !literal(&text, "long ") || is_long(&text);
	return good && text.at == text.end;
}

static bool event_line(struct text text, u64 *nr)
{
	u64 sec, usec;

	if (!literal(&text, "[") || !exact_digits(&text, 3, nr) || !cpu_number(*nr) ||
	    !literal(&text, "]\t"))
		return false;
	for (u32 i = 0; i < 4 && literal(&text, " "); i++)
		;
	return number(&text, &sec) && literal(&text, ".") && exact_digits(&text, 6, &usec) &&
	       literal(&text, ": ") && event_text(text);
}

/* The line behind a LOST line is of the same CPU. Returns how many lines @text is. */
static u32 check_lines(struct text text)
{
	u64 nr, number_lost, lost_cpu = SCRIPT_CPUS;
	u32 lines = 0;

	while (text.at < text.end) {
		struct text line = { text.at, memchr(text.at, '\n', (size_t)(text.end - text.at)) };

		require(line.end);
		require(line.end - line.at < RENDER_LINE_MAX);
		text.at = line.end + 1;
		lines++;
		if (lost_line(line, &nr, &number_lost)) {
			require(lost_cpu == SCRIPT_CPUS && number_lost);
			run.of[nr].lost_lines += number_lost;
			lost_cpu = nr;
			continue;
		}
		if (event_line(line, &nr))
			run.of[nr].lines++;
		else if (corrupt_line(line, &nr))
			run.of[nr].corrupt++;
		else
			require(!"a line of no known form");
		require(lost_cpu == SCRIPT_CPUS || lost_cpu == nr);
		lost_cpu = SCRIPT_CPUS;
	}
	require(lost_cpu == SCRIPT_CPUS);
	return lines;
}

/* --- images ------------------------------------------------------------------------------------------ */

static u32 image_events(const u8 *data, u32 length, u64 time_stamp)
{
	struct rb_record record = { .time_stamp = time_stamp };
	enum rb_walk walk;
	u32 nr = 0;

	while ((walk = rb_walk_next(data, length, record.next, record.time_stamp, &record)) ==
	       RB_WALK_EVENT)
		nr++;
	require(walk == RB_WALK_END && record.next == length);
	return nr;
}

/* Returns how many events the image holds. */
static u32 check_image(const u8 *image)
{
	u64 time_stamp, commit, stored;
	const u8 *data = image + RB_PAGE_HEADER;
	u32 length;

	memcpy(&time_stamp, image, sizeof(time_stamp));
	memcpy(&commit, image + sizeof(u64), sizeof(commit));
	length = (u32)(commit & ~COMMIT_FLAGS);
	require((commit & ~COMMIT_FLAGS) <= RB_PAGE_CAPACITY);
	if (commit & RB_MISSED_STORED) {
		require(commit & RB_MISSED_EVENTS && length + sizeof(u64) <= RB_PAGE_CAPACITY);
		memcpy(&stored, data + length, sizeof(stored));
		require(stored);
	}
	for (u32 i = length + (commit & RB_MISSED_STORED ? 8 : 0); i < RB_PAGE_CAPACITY; i++)
		require(!data[i]);
	return image_events(data, length, time_stamp);
}

/* --- the host ------------------------------------------------------------------------------------------ */

/* What a read has made: @fresh is behind the carry of before, up to the end of the new one. */
struct output {
	u8 *bytes;
	u32 length;
};

/*
 * @out, of @got bytes, begins with what @before still owed; what is owed now comes behind.
 */
static struct output fresh_output(const struct reader_carry *before,
				  const struct reader_carry *after, const u8 *out, u32 got)
{
	u32 owed = before->length - before->offset;
	u32 paid = owed < got ? owed : got;
	u32 owed_now = after->length - after->offset;
	struct output fresh;

	require(after->offset <= after->length && after->length <= READER_CARRY_MAX);
	if (got)
		require(!memcmp(out, before->bytes + before->offset, paid));
	if (paid < owed) { /* nothing new before the old is delivered */
		require(owed_now == owed - paid);
		owed_now = 0;
	}
	fresh.length = got - paid + owed_now;
	fresh.bytes = exact_alloc(fresh.length);
	if (got > paid)
		memcpy(fresh.bytes, out + paid, got - paid);
	memcpy(fresh.bytes + got - paid, after->bytes + after->offset, owed_now);
	return fresh;
}

static void check_text(const struct output *fresh)
{
	const char *text = (const char *)fresh->bytes;
	u32 lines = check_lines((struct text){ text, text + fresh->length });
	u32 units = 0; /* a line, with the LOST line before it */

	require(run.hypercalls <= SCRIPT_CPUS * (lines + 1));
	for_each_present_cpu(nr) {
		struct cpu_state *cpu = &run.of[nr];

		units += cpu->lines + cpu->corrupt;
		cpu->events += cpu->lines;
		require(cpu->before.broken_pages + cpu->corrupt == run.cpus[nr].broken_pages);
		/* Every loss is told once. */
		require(cpu->unreported + cpu->lost_now ==
			cpu->lost_lines + run.cpus[nr].unreported);
	}
	require(!run.cut || units == 1);
}

/* Images do not say which CPU they are of: the reader's counters must, and the sum be right. */
static void count_image_events(u64 total)
{
	for_each_present_cpu(nr) {
		struct cpu_state *cpu = &run.of[nr];
		struct reader_stats stats;
		u64 read;

		reader_stats(&run.reader, nr, &stats);
		read = stats.read - stats.skipped - cpu->events;
		require(read <= total);
		total -= read;
		cpu->events += read;
	}
	require(!total);
}

static void check_images(const struct output *fresh)
{
	u32 images = fresh->length / RB_PAGE_SIZE;
	u32 empty = 0;
	u64 total = 0, skips = 0;

	require(fresh->length % RB_PAGE_SIZE == 0);
	for (u32 i = 0; i < images; i++) {
		u32 nr = check_image(fresh->bytes + (size_t)i * RB_PAGE_SIZE);

		total += nr;
		empty += !nr;
	}
	require(empty <= SCRIPT_CPUS * (run.hypercalls + 1));
	for_each_present_cpu(nr)
		skips += run.cpus[nr].broken_pages - run.of[nr].before.broken_pages;
	require(skips <= SKIPS_MAX * (images + 1));
	require(run.hypercalls <= SCRIPT_CPUS * (images + skips + 1));
	count_image_events(total);
}

static u32 take_wanted(void)
{
	u32 cpu = take_u8(&run.script) % SCRIPT_CPU_CHOICES;

	if (cpu < SCRIPT_CPUS)
		return cpu;
	return cpu == SCRIPT_ALL_CPUS ? READER_ALL_CPUS : 1000;
}

static void host_read(bool text)
{
	static struct reader_carry before;
	struct reader_carry *carry = text ? &run.text_carry : &run.raw_carry;
	u32 wanted = take_wanted();
	u32 size = (u32)(take_number(&run.script) % SIZE_MAX_READ);
	u8 *out = exact_alloc(size);
	struct output fresh;
	u32 got;

	before = *carry;
	if (text)
		got = reader_text(&run.reader, wanted, carry, (char *)out, size);
	else
		got = reader_raw(&run.reader, wanted, carry, out, size);
	require(got <= size);
	run.polled = text || size;
	fresh = fresh_output(&before, carry, out, got);
	run.cut = fresh.length && carry->offset < carry->length;
	require(!run.cut || before.offset == before.length); /* else the first is an old one */
	(text ? check_text : check_images)(&fresh);
	free(fresh.bytes);
	free(out);
}

static void host_reset(void)
{
	u32 nr = take_u8(&run.script) % SCRIPT_CPUS;
	struct cpu_state *cpu = &run.of[nr];

	reader_reset(&run.reader, nr);
	if (nr == SCRIPT_ABSENT_CPU)
		return;
	cpu->events = cpu->given = cpu->lost = 0;
	cpu->swap_error = 0;
	reader_stats(&run.reader, nr, &cpu->before);
	require(!cpu->before.entries && !cpu->before.overrun && !cpu->before.read);
}

static void host_poll(void)
{
	bool unread = reader_poll(&run.reader);
	bool expected = false;

	run.polled = true;
	for_each_present_cpu(nr)
		expected |= reader_unread(&run.reader, nr) > 0;
	require(unread == expected);
}

static void host_op(enum script_op op)
{
	begin_call();
	if (op == OP_RESET)
		host_reset();
	else if (op == OP_POLL)
		host_poll();
	else
		host_read(op == OP_TEXT);
	end_call();
}

/* --- a run ------------------------------------------------------------------------------------------------ */

static void *zeroed_pages(size_t size)
{
	/* As mmap() gives them. */
	void *pages = aligned_alloc(RB_PAGE_SIZE, size);

	if (!pages)
		abort();
	return memset(pages, 0, size);
}

static void set_up_cpu(u32 nr)
{
	struct cpu_state *cpu = &run.of[nr];

	if (!cpu->meta) {
		cpu->meta = exact_alloc(sizeof(*cpu->meta));
		cpu->pages = zeroed_pages((size_t)SCRIPT_PAGES * RB_PAGE_SIZE);
	}
	*cpu = (struct cpu_state){ .meta = cpu->meta, .pages = cpu->pages };
	memset(cpu->pages, 0, (size_t)SCRIPT_PAGES * RB_PAGE_SIZE);
	*cpu->meta = (struct trace_buffer_meta){ .meta_struct_len = sizeof(*cpu->meta) };
	run.cpus[nr] = (struct reader_cpu){
		.meta = cpu->meta,
		.pages = cpu->pages,
		.nr_pages = SCRIPT_PAGES,
	};
}

static void set_up(void)
{
	memset(long_letters, 'x', sizeof(long_letters));
	for (u32 i = 0; i < ARRAY_SIZE(events); i++)
		require(!events[i].ops || !render_event_check(&events[i]));
	for_each_present_cpu(nr)
		set_up_cpu(nr);
	run.cpus[SCRIPT_ABSENT_CPU] = (struct reader_cpu){ 0 };
	run.conduit.hvc = hostile_hvc;
	run.reader = (struct reader){
		.conduit = &run.conduit,
		.hvc_cpu = HVC_CPU,
		.nr_cpus = SCRIPT_CPUS,
		.cpus = run.cpus,
		.events = { events, ARRAY_SIZE(events) },
	};
	run.text_carry = run.raw_carry = (struct reader_carry){ 0 };
	run.answer_x0 = run.answer_x1 = 0;
	run.reads = 0;
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	run.script = (struct input){ bytes, bytes + size };
	set_up();
	while (input_left(&run.script) && run.reads < READS_MAX) {
		enum script_op op = take_u8(&run.script) % NR_OPS;

		if (op < FIRST_HOST_OP) {
			hypervisor_op(op);
			continue;
		}
		run.reads++;
		host_op(op);
	}
	return 0;
}
