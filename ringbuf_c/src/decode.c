// SPDX-License-Identifier: Apache-2.0
/* Page images as columns: the walk of each CPU's pages, and their merge by time. */
#include "ringbuf_c/decode.h"
#include "ringbuf_c/layout.h"

#define COMMIT_MASK ((1U << RB_TIME_DELTA_BITS) - 1) /* what readers take for a length */

/* --- one CPU ------------------------------------------------------------------- */

static u64 load_u64(const u8 *at)
{
	return load_unaligned(u64, at);
}

void decode_feed(struct decode_cpu *cpu, const u8 *pages, u64 size)
{
	cpu->pages = pages;
	cpu->size = size;
	cpu->fed = true;
}

static void note_loss(struct decode_cpu *cpu, u64 lost)
{
	if (lost == DECODE_LOST_UNKNOWN || cpu->lost == DECODE_LOST_UNKNOWN ||
	    lost > UINT64_MAX - 1 - cpu->lost) {
		cpu->lost = DECODE_LOST_UNKNOWN;
		cpu->uncounted++;
		return;
	}
	cpu->lost += lost;
	cpu->lost_events += lost;
}

/* What the header of a page says was lost before it. */
static void read_loss(struct decode_cpu *cpu, u64 commit)
{
	bool stored = commit & RB_MISSED_STORED && cpu->commit + sizeof(u64) <= RB_PAGE_CAPACITY;

	if (commit & RB_MISSED_EVENTS)
		note_loss(cpu, stored ? load_u64(cpu->data + cpu->commit) : DECODE_LOST_UNKNOWN);
}

static void begin_page(struct decode_cpu *cpu)
{
	u64 commit = load_u64(cpu->pages + sizeof(u64));

	cpu->data = cpu->pages + RB_PAGE_HEADER;
	cpu->commit = (u32)commit & COMMIT_MASK;
	cpu->record = (struct rb_record){ .time_stamp = load_u64(cpu->pages) };
	cpu->pages += RB_PAGE_SIZE;
	cpu->size -= RB_PAGE_SIZE;
	if (cpu->commit > RB_PAGE_CAPACITY) {
		cpu->commit = 0;
		cpu->broken_pages++;
		return;
	}
	read_loss(cpu, commit);
}

/* Whether there is another event on the page that is begun. */
static bool next_on_page(struct decode_cpu *cpu)
{
	enum rb_walk found;

	if (!cpu->data)
		return false;
	found = rb_walk_next(cpu->data, cpu->commit, cpu->record.next, cpu->record.time_stamp,
			     &cpu->record);
	if (found == RB_WALK_EVENT)
		return true;
	cpu->broken_pages += found == RB_WALK_BROKEN;
	cpu->data = NULL;
	return false;
}

static enum decode_state no_pages(struct decode_cpu *cpu)
{
	bool ended = cpu->fed && !cpu->pages;

	cpu->fed = false;
	return ended ? DECODE_ENDED : DECODE_HUNGRY;
}

/* To the next event. */
static void advance(struct decode_cpu *cpu)
{
	while (!next_on_page(cpu)) {
		if (cpu->size < RB_PAGE_SIZE) {
			cpu->state = (u8)no_pages(cpu);
			return;
		}
		begin_page(cpu);
	}
	cpu->state = DECODE_READY;
}

/* --- all CPUs -------------------------------------------------------------------- */

/* Ties go to the CPU that comes first. */
static bool before(const struct decoder *decoder, u32 a, u32 b)
{
	u64 time_a = decoder->cpus[a].record.time_stamp;
	u64 time_b = decoder->cpus[b].record.time_stamp;

	return time_a < time_b || (time_a == time_b && a < b);
}

static u32 first_child(const struct decoder *decoder, u32 slot)
{
	u32 left = 2 * slot + 1;
	u32 right = left + 1;

	if (right < decoder->nr_heap &&
	    before(decoder, decoder->heap[right], decoder->heap[left]))
		return right;
	return left;
}

static void sift(struct decoder *decoder, u32 slot)
{
	u32 cpu = decoder->heap[slot];
	u32 child;

	while ((child = first_child(decoder, slot)) < decoder->nr_heap &&
	       before(decoder, decoder->heap[child], cpu)) {
		decoder->heap[slot] = decoder->heap[child];
		slot = child;
	}
	decoder->heap[slot] = cpu;
}

/* Returns the number of hungry CPUs. */
static u32 wake_hungry(struct decoder *decoder)
{
	u32 hungry = 0;

	for (u32 nr = 0; nr < decoder->nr_cpus; nr++) {
		struct decode_cpu *cpu = &decoder->cpus[nr];

		if (cpu->state == DECODE_HUNGRY)
			advance(cpu);
		hungry += cpu->state == DECODE_HUNGRY;
	}
	return hungry;
}

static void make_heap(struct decoder *decoder)
{
	decoder->nr_heap = 0;
	for (u32 nr = 0; nr < decoder->nr_cpus; nr++) {
		if (decoder->cpus[nr].state == DECODE_READY)
			decoder->heap[decoder->nr_heap++] = nr;
	}
	for (u32 slot = decoder->nr_heap / 2; slot > 0; slot--)
		sift(decoder, slot - 1);
}

static u16 event_of(const struct decoder *decoder, const struct rb_record *record)
{
	u16 event = decoder->event_of[record->id];

	return event < decoder->nr_events && record->length >= decoder->needs[event]
		       ? event
		       : (u16)decoder->nr_events;
}

static void put_row(const struct decoder *decoder, struct decode_cpu *cpu,
		    struct decode_batch *batch)
{
	const struct rb_record *record = &cpu->record;
	u32 row = batch->nr++;

	batch->time[row] = record->time_stamp;
	batch->lost[row] = cpu->lost;
	batch->payload[row] = record->payload;
	batch->cpu[row] = cpu->nr;
	batch->id[row] = record->id;
	batch->event[row] = event_of(decoder, record);
	cpu->odd_events += batch->event[row] == decoder->nr_events;
	batch->length[row] = (u16)record->length;
	cpu->lost = 0;
	cpu->events++;
}

u32 decode_next(struct decoder *decoder, struct decode_batch *batch)
{
	u32 hungry = wake_hungry(decoder);

	batch->nr = 0;
	if (hungry)
		return hungry;
	make_heap(decoder);
	while (decoder->nr_heap && batch->nr < batch->capacity) {
		struct decode_cpu *cpu = &decoder->cpus[decoder->heap[0]];

		put_row(decoder, cpu, batch);
		advance(cpu);
		/* Whether it has ended, only the next feeding can tell. */
		if (cpu->state == DECODE_HUNGRY)
			return 1;
		sift(decoder, 0);
	}
	return 0;
}

/* --- columns ------------------------------------------------------------------------ */

void decode_group(const struct decode_batch *batch, const u16 *keys, u32 nr_keys, u32 *rows,
		  u32 *starts)
{
	for (u32 key = 0; key <= nr_keys; key++)
		starts[key] = 0;
	for (u32 row = 0; row < batch->nr; row++)
		starts[keys[row]]++;
	for (u32 key = 0, start = 0; key <= nr_keys; key++) {
		u32 nr = starts[key];

		starts[key] = start;
		start += nr;
	}
	for (u32 row = 0; row < batch->nr; row++)
		rows[starts[keys[row]]++] = row;
	/* Each start has become its end, which is the next one's start. */
	for (u32 key = nr_keys; key > 0; key--)
		starts[key] = starts[key - 1];
	starts[0] = 0;
}

static u64 load_number(const u8 *at, const struct decode_field *field)
{
	u64 value = 0;
	u32 unused = 64 - 8 * (u32)field->size;

	switch (field->size) {
	case 1:
		value = *at;
		break;
	case 2:
		value = load_unaligned(u16, at);
		break;
	case 4:
		value = load_unaligned(u32, at);
		break;
	default:
		value = load_u64(at);
		break;
	}
	return field->is_signed ? (u64)((s64)(value << unused) >> unused) : value;
}

void decode_numbers(const struct decode_batch *batch, const u32 *rows, u32 nr,
		    const struct decode_field *field, u32 out_size, u8 *out)
{
	/* Little-endian: the low bytes come first. */
	for (u32 i = 0; i < nr; i++) {
		u64 value = load_number(batch->payload[rows[i]] + field->offset, field);

		switch (out_size) {
		case 2:
			((u16 *)out)[i] = (u16)value;
			break;
		case 4:
			((u32 *)out)[i] = (u32)value;
			break;
		default:
			((u64 *)out)[i] = value;
			break;
		}
	}
}

static u8 *put_bytes(u8 *out, const u8 *from, u32 size)
{
	for (u32 i = 0; i < size; i++)
		out[i] = from[i];
	return out + size;
}

void decode_bytes(const struct decode_batch *batch, const u32 *rows, u32 nr, u32 offset, u32 size,
		  u8 *out)
{
	for (u32 i = 0; i < nr; i++)
		out = put_bytes(out, batch->payload[rows[i]] + offset, size);
}

u32 decode_tails(const struct decode_batch *batch, const u32 *rows, u32 nr, u32 offset, u32 size,
		 s32 *ends, u8 *out)
{
	u32 items = 0;

	ends[0] = 0;
	for (u32 i = 0; i < nr; i++) {
		u32 length = batch->length[rows[i]];
		u32 more = length > offset ? (length - offset) / size : 0;

		if (out)
			out = put_bytes(out, batch->payload[rows[i]] + offset, more * size);
		items += more;
		ends[i + 1] = (s32)items;
	}
	return items;
}

void decode_u64(const u64 *column, const u32 *rows, u32 nr, u64 *out)
{
	for (u32 i = 0; i < nr; i++)
		out[i] = column[rows ? rows[i] : i];
}

void decode_u16(const u16 *column, const u32 *rows, u32 nr, u32 *out)
{
	for (u32 i = 0; i < nr; i++)
		out[i] = column[rows ? rows[i] : i];
}
