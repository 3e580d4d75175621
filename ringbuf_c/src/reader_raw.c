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
static struct reader_cpu *next_image(struct turns *turns)
{
	for (u32 skipped = 0; turns->nr && skipped < MAX_SKIPS; skipped++) {
		struct reader_cpu *cpu = &turns->reader->cpus[turn_of(turns)];

		if (cpu->next == READER_EVENT)
			return cpu;
		skip_page(cpu);
		end_turn(turns);
	}
	return NULL;
}

/* @size is below a page: what does not fit waits for the next read. */
static u32 image_by_carry(struct reader_cpu *cpu, struct reader_carry *carry, u8 *out, u32 size)
{
	make_image(cpu, carry->bytes);
	carry->offset = 0;
	carry->length = RB_PAGE_SIZE;
	return take_carry(carry, out, size);
}

u32 reader_raw(struct reader *reader, u32 wanted, struct reader_carry *carry, u8 *out, u32 size)
{
	u32 done = take_carry(carry, out, size);
	struct reader_cpu *cpu;
	struct turns turns;

	if (!size)
		return 0;
	reader_poll(reader);
	if (done && size - done < RB_PAGE_SIZE)
		return done;
	turns = begin_turns(reader, wanted);
	while (size - done >= RB_PAGE_SIZE && (cpu = next_image(&turns))) {
		make_image(cpu, out + done);
		done += RB_PAGE_SIZE;
		end_turn(&turns);
	}
	if (!done && size < RB_PAGE_SIZE && (cpu = next_image(&turns)))
		return image_by_carry(cpu, carry, out, size);
	return done;
}

