// SPDX-License-Identifier: Apache-2.0
/* Events as page images. */
#include "reader_internal.h"

/* Broken pages that one read of images passes over before it says: nothing now. */
#define MAX_SKIPS 64U

static void clear_bytes(u8 *at, u32 length)
{
	for (u32 i = 0; i < length; i++)
		at[i] = 0;
}

static void put_u64(u8 *at, u64 value)
{
	__builtin_memcpy(at, &value, sizeof(value));
}

/* What has passed, in ns, since the event before. */
static void set_delta(u8 *at, u32 delta)
{
	u32 header;

	__builtin_memcpy(&header, at, sizeof(header));
	header = (header & RB_TYPE_LEN_MASK) | delta << RB_TYPE_LEN_BITS;
	__builtin_memcpy(at, &header, sizeof(header));
}

/*
 * Consume events of a private copy of what our page holds from `start` on, as long as
 * they are well-formed. Returns their length in bytes.
 */
static u32 consume_copy(struct reader_cpu *cpu, const u8 *data, u32 length, u32 start)
{
	u64 time_stamp = cpu->record.time_stamp;
	struct rb_record record;
	u32 next = 0;

	for (;;) {
		cpu->read += rb_walk_plain(data, length, &next, &time_stamp);
		if (rb_walk_next(data, length, next, time_stamp, &record) != RB_WALK_EVENT)
			break;
		cpu->read++;
		next = record.next;
		time_stamp = record.time_stamp;
	}
	cpu->offset = start + next;
	cpu->time_stamp = time_stamp;
	cpu->next = READER_NONE;
	return next;
}

static u32 put_time_extend(u8 *at, u64 delta)
{
	u32 item[] = { RB_TYPE_TIME_EXTEND | (u32)delta << RB_TYPE_LEN_BITS,
		       (u32)(delta >> RB_TIME_DELTA_BITS) };

	__builtin_memcpy(at, item, sizeof(item));
	return sizeof(item);
}

/*
 * Move an event down to @data + @kept, `delta` ns behind the one before it. Returns the end.
 *
 * There is room for a time extend: deltas that need one were at least two items, and what
 * stood before the event, time or another event, had 8 bytes or more.
 */
static u32 keep_event(u8 *data, u32 kept, const struct rb_record *record, u64 delta)
{
	u32 size = record->next - record->start;

	if (delta > RB_TIME_DELTA_MASK) {
		kept += put_time_extend(data + kept, delta);
		delta = 0;
	}
	if (kept < record->start)
		move_down(data + kept, data + record->start, size);
	set_delta(data + kept, (u32)delta);
	return kept + size;
}

/* consume_copy(), and leave only events that match. Returns their length. */
static u32 consume_matching(struct reader *reader, u32 nr, u8 *data, u32 length, u32 start)
{
	struct reader_cpu *cpu = &reader->cpus[nr];
	struct rb_record record, last = { .next = 0, .time_stamp = cpu->record.time_stamp };
	u64 kept_time = last.time_stamp;
	u32 kept = 0;

	while (rb_walk_next(data, length, last.next, last.time_stamp, &record) == RB_WALK_EVENT) {
		u64 delta = record.time_stamp - kept_time;

		if (!matches(reader, nr, &record)) {
			cpu->filtered++;
		} else if (delta <= RB_TIME_STAMP_MASK) {
			kept_time = record.time_stamp;
			kept = keep_event(data, kept, &record, delta);
		} else {
			break; /* the next image begins with it, and its time */
		}
		cpu->read++;
		last = record;
	}
	cpu->offset = start + last.next;
	cpu->time_stamp = last.time_stamp;
	cpu->next = READER_NONE;
	return kept;
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

/* An image of the rest of the page that the CPU owns, from its next event on. */
static void make_image(struct reader *reader, u32 nr, u8 *image)
{
	struct reader_cpu *cpu = &reader->cpus[nr];
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
		set_delta(data, 0); /* the first event has the time of the page */
	length = reader->filters.nr ? consume_matching(reader, nr, data, length, start) :
				      consume_copy(cpu, data, length, start);
	clear_bytes(data + length, RB_PAGE_CAPACITY - length);
	put_u64(image, time_stamp);
	put_u64(image + sizeof(u64), image_commit(cpu, data, length));
}

/*
 * Whether it is the turn of a CPU that has an image to give; pages that cannot be read are
 * passed over, but a writer that makes nothing else shall not keep us here for ever.
 */
static bool find_image(struct turns *turns)
{
	for (u32 skipped = 0; turns->nr && skipped < MAX_SKIPS; skipped++) {
		struct reader_cpu *cpu = &turns->reader->cpus[turn_of(turns)];

		if (cpu->next == READER_EVENT)
			return true;
		skip_page(cpu);
		end_turn(turns);
	}
	return false;
}

/* @size is below a page: what does not fit waits for the next read. */
static u32 image_by_carry(struct turns *turns, struct reader_carry *carry, u8 *out, u32 size)
{
	u32 nr = turn_of(turns);
	const struct reader_cpu *cpu = &turns->reader->cpus[nr];
	u64 before = cpu->read - cpu->filtered;

	carry->cpu = nr;
	carry->lost = cpu->unreported;
	carry->gap = cpu->gap;
	make_image(turns->reader, nr, carry->bytes);
	carry->events = (u32)(cpu->read - cpu->filtered - before);
	carry->offset = 0;
	carry->length = RB_PAGE_SIZE;
	carry->loss_end = RB_PAGE_SIZE;
	return take_carry(carry, out, size);
}

u32 reader_raw(struct reader *reader, u32 wanted, struct reader_carry *carry, u8 *out, u32 size)
{
	u32 done = take_carry(carry, out, size);
	struct turns turns;

	if (!size)
		return 0;
	reader->passed_over = 0;
	reader_poll(reader);
	if (done && size - done < RB_PAGE_SIZE)
		return done;
	turns = begin_turns(reader, wanted);
	while (size - done >= RB_PAGE_SIZE && find_image(&turns)) {
		make_image(reader, turn_of(&turns), out + done);
		done += RB_PAGE_SIZE;
		end_turn(&turns);
	}
	if (!done && size < RB_PAGE_SIZE && find_image(&turns))
		return image_by_carry(&turns, carry, out, size);
	return done;
}

