// SPDX-License-Identifier: Apache-2.0
#include "ringbuf_c/reader.h"

/* Broken pages that one read of images passes over before it says: nothing now. */
#define MAX_SKIPS 64U

static u32 min_u32(u32 a, u32 b)
{
	return a < b ? a : b;
}

/*
 * Word by word: both ends are 8-byte aligned except at the ends of a page, and a
 * copy that the compiler turns into memcpy() would need a libc.
 */
static void copy_bytes(u8 *to, const u8 *from, u32 length)
{
	u32 i = 0;

	for (; i + sizeof(u64) <= length; i += sizeof(u64))
		__builtin_memcpy(to + i, from + i, sizeof(u64));
	for (; i < length; i++)
		to[i] = from[i];
}

static void clear_bytes(u8 *at, u32 length)
{
	for (u32 i = 0; i < length; i++)
		at[i] = 0;
}

/* --- one CPU ------------------------------------------------------------------ */

static const struct buffer_data_page *reader_page(const struct reader_cpu *cpu)
{
	return (const struct buffer_data_page *)(cpu->pages + (size_t)cpu->page * RB_PAGE_SIZE);
}

static void poll_cpu(struct reader_cpu *cpu)
{
	/* [see_entries] pairs with [entries]: the commits */
	cpu->entries = smp_load_acquire(&cpu->meta->entries);
	cpu->overrun = READ_ONCE(cpu->meta->overrun);
}

static u64 cpu_unread(const struct reader_cpu *cpu)
{
	s64 unread = (s64)(cpu->entries - cpu->overrun - cpu->read);

	/* Below zero: a page has shown more than the counters polled before. */
	return unread > 0 ? (u64)unread : 0;
}

/* The batch: events that the last poll knew of. The next event is number read + lost. */
static bool in_batch(const struct reader_cpu *cpu)
{
	return (s64)(cpu->entries - cpu->read - cpu->lost) > 0;
}

static void take_page(struct reader_cpu *cpu, u32 id)
{
	u64 lost = READ_ONCE(cpu->meta->reader.lost_events);

	cpu->page = id;
	cpu->taken++;
	cpu->offset = 0;
	cpu->lost += lost;
	cpu->unreported += lost;
}

/* Ask for the next page. False: there is none to be had now. */
static bool swap_page(struct reader *reader, u32 nr)
{
	struct hvc_regs regs = { .x0 = HVC_TRACING_SWAP_READER, .x1 = nr };
	struct reader_cpu *cpu = &reader->cpus[nr];
	u32 id;

	reader->conduit->hvc(reader->conduit, reader->hvc_cpu, &regs);
	cpu->swap_error = hvc_result(&regs);
	if (cpu->swap_error)
		return false;
	id = READ_ONCE(cpu->meta->reader.id);
	if (id >= cpu->nr_pages) {
		cpu->swap_error = -ERANGE;
		return false;
	}
	take_page(cpu, id);
	return true;
}

/* Look for an event on the page that we own. */
static enum reader_next look_on_page(struct reader_cpu *cpu)
{
	const struct buffer_data_page *page = reader_page(cpu);
	bool broken;
	u32 commit = rb_page_commit(page, &broken);

	if (broken && cpu->offset <= RB_PAGE_CAPACITY)
		return READER_BROKEN;
	if (cpu->offset >= commit)
		return READER_NONE;
	if (!cpu->offset)
		cpu->time_stamp = READ_ONCE(page->time_stamp);

	switch (rb_walk_next(page->data, commit, cpu->offset, cpu->time_stamp, &cpu->record)) {
	case RB_WALK_EVENT:
		return READER_EVENT;
	case RB_WALK_BROKEN:
		return READER_BROKEN;
	default:
		cpu->offset = commit;
		return READER_NONE;
	}
}

/*
 * Whether the page that we own is the one being written. The pages that have been
 * begun are the first one and one per move of the tail; we have taken some, some were
 * lost, and ours is the last of these.
 *
 * A loss later than our swap cannot mislead us: a page is lost when the whole ring is
 * ahead of ours, and the moves that filled it are seen with the loss.
 */
static bool owns_tail(const struct reader_cpu *cpu)
{
	/* [see_lost] pairs with [pages_lost]: load it before pages_touched */
	u64 lost = smp_load_acquire(&cpu->meta->pages_lost);
	u64 touched = READ_ONCE(cpu->meta->pages_touched);

	return (s64)(cpu->taken + lost - touched - 1) >= 0;
}

/*
 * Events are promised, and there is no page that could hold them: they were on a broken
 * page, or the writer is broken. Count them as read, or we would ask for ever.
 */
static void give_up_promised(struct reader_cpu *cpu)
{
	u64 promised = cpu->entries - cpu->read - cpu->lost;

	cpu->skipped += promised;
	cpu->read += promised;
}

/* The next event of a CPU, if the batch has one. Swaps pages where needed. */
static enum reader_next peek_cpu(struct reader *reader, u32 nr)
{
	struct reader_cpu *cpu = &reader->cpus[nr];

	if (!in_batch(cpu))
		return READER_NONE;
	if (cpu->next == READER_NONE)
		cpu->next = look_on_page(cpu);
	if (cpu->next != READER_NONE)
		return cpu->next;
	if (owns_tail(cpu)) {
		/* A swap would put it back into the ring, with all that we have read. */
		give_up_promised(cpu);
		return READER_NONE;
	}
	if (!swap_page(reader, nr))
		return READER_NONE;

	cpu->next = look_on_page(cpu);
	/* The swap may have shown that the batch was overwritten since: not our turn. */
	if (!in_batch(cpu))
		return READER_NONE;
	if (cpu->next == READER_NONE)
		give_up_promised(cpu);
	return cpu->next;
}

static void consume(struct reader_cpu *cpu)
{
	cpu->offset = cpu->record.next;
	cpu->time_stamp = cpu->record.time_stamp;
	cpu->read++;
	cpu->next = READER_NONE;
}

static void skip_page(struct reader_cpu *cpu)
{
	/* Behind any commit: nothing more is read from this page. */
	cpu->offset = RB_PAGE_CAPACITY + 1;
	cpu->broken_pages++;
	cpu->gap = true;
	cpu->next = READER_NONE;
}

/* --- all CPUs ------------------------------------------------------------------ */

static bool selected(const struct reader *reader, u32 nr, u32 wanted)
{
	return (wanted == READER_ALL_CPUS || wanted == nr) && reader->cpus[nr].meta;
}

#define for_each_cpu(reader, nr, wanted)                     \
	for (u32 nr = 0; nr < (reader)->nr_cpus; nr++)       \
		if (selected(reader, nr, wanted))

bool reader_poll(struct reader *reader)
{
	bool unread = false;

	for_each_cpu(reader, nr, READER_ALL_CPUS) {
		poll_cpu(&reader->cpus[nr]);
		unread |= cpu_unread(&reader->cpus[nr]) > 0;
	}
	return unread;
}

u64 reader_unread(const struct reader *reader, u32 wanted)
{
	u64 unread = 0;

	for_each_cpu(reader, nr, wanted)
		unread += cpu_unread(&reader->cpus[nr]);
	return unread;
}

/* A broken page has no time of its own: it is reported where the CPU stands. */
static u64 next_time(const struct reader_cpu *cpu)
{
	return cpu->next == READER_EVENT ? cpu->record.time_stamp : cpu->time_stamp;
}

/* The CPU with the oldest next event; ties go to the lowest number. nr_cpus: none. */
static u32 oldest_cpu(struct reader *reader, u32 wanted)
{
	u32 oldest = reader->nr_cpus;
	u64 time = 0;

	for_each_cpu(reader, nr, wanted) {
		if (peek_cpu(reader, nr) == READER_NONE)
			continue;
		if (oldest == reader->nr_cpus || next_time(&reader->cpus[nr]) < time) {
			oldest = nr;
			time = next_time(&reader->cpus[nr]);
		}
	}
	return oldest;
}

static u32 take_carry(struct reader_carry *carry, u8 *out, u32 size)
{
	u32 length = min_u32(carry->length - carry->offset, size);

	copy_bytes(out, carry->bytes + carry->offset, length);
	carry->offset += length;
	return length;
}

/* --- text ----------------------------------------------------------------------- */

/* What a CPU has to say next: losses first, then the event or the broken page. */
static u32 render_next(const struct reader *reader, u32 nr, char *out)
{
	const struct reader_cpu *cpu = &reader->cpus[nr];
	u32 length = 0;

	if (cpu->unreported)
		length = render_lost(out, nr, cpu->unreported);
	if (cpu->next == READER_BROKEN)
		return length + render_corrupt(out + length, nr, cpu->page, cpu->offset);
	return length + render_line(out + length, nr, &cpu->record, &reader->events);
}

static u32 next_max(const struct reader *reader, const struct reader_cpu *cpu)
{
	if (cpu->next == READER_BROKEN)
		return RENDER_FRAME_MAX;
	return render_line_max(&cpu->record, &reader->events);
}

static void text_consumed(struct reader_cpu *cpu)
{
	if (cpu->next == READER_BROKEN)
		skip_page(cpu);
	else
		consume(cpu);
	cpu->unreported = 0;
	cpu->gap = false; /* the text has said it */
}

/*
 * Near the end of the buffer: the text goes by way of the carry. It stays unread
 * when it does not fit, except the first one, whose rest waits for the next read.
 */
static u32 text_by_carry(struct reader *reader, u32 nr, struct reader_carry *carry, char *out,
			 u32 size, bool first)
{
	u32 length = render_next(reader, nr, (char *)carry->bytes);

	carry->offset = 0;
	carry->length = 0;
	if (length > size && !first)
		return 0;
	carry->length = length;
	text_consumed(&reader->cpus[nr]);
	return take_carry(carry, (u8 *)out, size);
}

u32 reader_text(struct reader *reader, u32 wanted, struct reader_carry *carry, char *out, u32 size)
{
	u32 done = take_carry(carry, (u8 *)out, size);

	reader_poll(reader);
	while (done < size) {
		u32 nr = oldest_cpu(reader, wanted);
		u32 length;

		if (nr == reader->nr_cpus)
			break;
		if (size - done >= next_max(reader, &reader->cpus[nr])) {
			length = render_next(reader, nr, out + done);
			text_consumed(&reader->cpus[nr]);
		} else {
			length = text_by_carry(reader, nr, carry, out + done, size - done, !done);
			if (!length)
				break;
		}
		done += length;
	}
	return done;
}

/* --- page images ------------------------------------------------------------------ */

static void put_u64(u8 *at, u64 value)
{
	__builtin_memcpy(at, &value, sizeof(value));
}

/* The first event of an image has the time of the page: delta 0. */
static void clear_first_delta(u8 *data)
{
	u32 header;

	__builtin_memcpy(&header, data, sizeof(header));
	header &= RB_TYPE_LEN_MASK;
	__builtin_memcpy(data, &header, sizeof(header));
}

/*
 * Consume events of a private copy of what our page holds from `start` on, as long as
 * they are well-formed. Returns their length in bytes.
 */
static u32 consume_copy(struct reader_cpu *cpu, const u8 *data, u32 length, u32 start)
{
	struct rb_record record = { .next = 0, .time_stamp = cpu->record.time_stamp };

	while (rb_walk_next(data, length, record.next, record.time_stamp, &record) == RB_WALK_EVENT)
		cpu->read++;
	cpu->offset = start + record.next;
	cpu->time_stamp = record.time_stamp;
	cpu->next = READER_NONE;
	return record.next;
}

/* The `commit` of an image; the number of lost events goes behind the data if it fits. */
static u64 image_commit(struct reader_cpu *cpu, u8 *data, u32 length)
{
	u64 commit = length;

	if (cpu->unreported || cpu->gap)
		commit |= RB_MISSED_EVENTS;
	if (cpu->unreported && !cpu->gap && length + sizeof(u64) <= RB_PAGE_CAPACITY) {
		put_u64(data + length, cpu->unreported);
		commit |= RB_MISSED_STORED;
	}
	cpu->unreported = 0;
	cpu->gap = false;
	return commit;
}

/* An image of the rest of the page that @cpu owns, from its next event on. */
static void make_image(struct reader_cpu *cpu, u8 *image)
{
	const struct buffer_data_page *page = reader_page(cpu);
	u8 *data = image + RB_PAGE_HEADER;
	u32 start = cpu->record.start;
	u64 time_stamp = cpu->record.time_stamp;
	bool broken;
	u32 commit = rb_page_commit(page, &broken);
	/* A hostile writer may have taken back what it had committed. */
	u32 length = commit > start ? commit - start : 0;

	copy_bytes(data, page->data + start, length);
	if (length >= sizeof(u32))
		clear_first_delta(data);
	length = consume_copy(cpu, data, length, start);
	clear_bytes(data + length, RB_PAGE_CAPACITY - length);
	put_u64(image, time_stamp);
	put_u64(image + sizeof(u64), image_commit(cpu, data, length));
}

/*
 * The next CPU that has an image to give; pages that cannot be read are passed over,
 * but a writer that makes nothing else shall not keep us here for ever.
 */
static u32 oldest_image_cpu(struct reader *reader, u32 wanted)
{
	for (u32 skipped = 0; skipped < MAX_SKIPS; skipped++) {
		u32 nr = oldest_cpu(reader, wanted);

		if (nr == reader->nr_cpus || reader->cpus[nr].next == READER_EVENT)
			return nr;
		skip_page(&reader->cpus[nr]);
	}
	return reader->nr_cpus;
}

u32 reader_raw(struct reader *reader, u32 wanted, struct reader_carry *carry, u8 *out, u32 size)
{
	u32 done = take_carry(carry, out, size);

	if (!size)
		return 0;
	reader_poll(reader);
	while (!done || size - done >= RB_PAGE_SIZE) {
		u32 nr = oldest_image_cpu(reader, wanted);

		if (nr == reader->nr_cpus)
			break;
		if (size - done >= RB_PAGE_SIZE) {
			make_image(&reader->cpus[nr], out + done);
			done += RB_PAGE_SIZE;
			continue;
		}
		make_image(&reader->cpus[nr], carry->bytes);
		carry->offset = 0;
		carry->length = RB_PAGE_SIZE;
		return take_carry(carry, out, size);
	}
	return done;
}

/* --- the rest ------------------------------------------------------------------------ */

void reader_reset(struct reader *reader, u32 nr)
{
	struct reader_cpu *cpu = &reader->cpus[nr];

	*cpu = (struct reader_cpu){
		.meta = cpu->meta,
		.pages = cpu->pages,
		.nr_pages = cpu->nr_pages,
		.page = cpu->page,
	};
}

/* A field that not every producer has. */
static u64 dropped_events(const struct trace_buffer_meta *meta)
{
	u32 need = offsetof(struct trace_buffer_meta, dropped) + sizeof(meta->dropped);

	return READ_ONCE(meta->meta_struct_len) >= need ? READ_ONCE(meta->dropped) : 0;
}

void reader_stats(const struct reader *reader, u32 nr, struct reader_stats *stats)
{
	const struct reader_cpu *cpu = &reader->cpus[nr];

	*stats = (struct reader_stats){
		.entries = cpu->entries,
		.overrun = cpu->overrun,
		.read = cpu->read,
		.unread = cpu_unread(cpu),
		.lost = cpu->lost,
		.skipped = cpu->skipped,
		.broken_pages = cpu->broken_pages,
		.pages_lost = READ_ONCE(cpu->meta->pages_lost),
		.pages_touched = READ_ONCE(cpu->meta->pages_touched),
		.dropped = dropped_events(cpu->meta),
		.swap_error = cpu->swap_error,
	};
}
