// SPDX-License-Identifier: Apache-2.0
/*
 * Any bytes as a page: the walk ends, never leaves the page, and finds what a slow and
 * simple reading of SPEC A.6 finds.
 */
#include "fuzz.h"
#include "ringbuf_c/page_walk.h"

/* Smaller than this is no event: a header, and the u16 id. */
#define EVENT_MIN 6U

/* --- SPEC A.6 once more ------------------------------------------------------------- */

struct item {
	u32 type_len, delta, size, payload;
	u64 wide; /* of TIME_EXTEND and TIME_STAMP */
};

static u32 word_at(const u8 *at)
{
	return (u32)at[0] | (u32)at[1] << 8 | (u32)at[2] << 16 | (u32)at[3] << 24;
}

/* The size of data or padding in long form. */
static u32 long_size(u32 array0, u32 room)
{
	return array0 >= 4 && array0 <= room ? 4 + array0 : 0;
}

/* @room: bytes up to the commit. False: not an item. */
static bool item_at(const u8 *at, u32 room, struct item *item)
{
	u32 array0 = room >= 8 ? word_at(at + 4) : 0;

	if (room < 4)
		return false;
	item->type_len = word_at(at) & 31;
	item->delta = word_at(at) >> 5;
	item->wide = (u64)array0 * (1ULL << 27) + item->delta;
	item->payload = item->type_len ? 4 : 8;
	if (item->type_len == 29 && !item->delta)
		item->size = room;
	else if (item->type_len == 0 || item->type_len == 29)
		item->size = long_size(array0, room);
	else
		item->size = item->type_len >= 30 ? 8 : 4 + 4 * item->type_len;
	if (item->type_len < 29 && item->size < item->payload + 2)
		return false;
	return item->size && item->size <= room;
}

static u64 time_after(const struct item *item, u64 now)
{
	const u64 low_59 = (1ULL << 59) - 1;

	if (item->type_len == 29)
		return now;
	if (item->type_len == 30)
		return now + item->wide % (1ULL << 59);
	if (item->type_len == 31)
		return (now & ~low_59) | (item->wide & low_59);
	return now + item->delta;
}

/* @record: the event before on entry, the next one on return. */
static enum rb_walk expected_next(const u8 *data, u32 commit, struct rb_record *record)
{
	u64 now = record->time_stamp;
	u32 at = record->next;
	struct item item;

	for (; at < commit; at += item.size) {
		if (!item_at(data + at, commit - at, &item))
			return RB_WALK_BROKEN;
		now = time_after(&item, now);
		if (item.type_len >= 29)
			continue;
		*record = (struct rb_record){
			.time_stamp = now,
			.payload = data + at + item.payload,
			.length = item.size - item.payload,
			.id = (u16)(data[at + item.payload] | data[at + item.payload + 1] << 8),
			.start = at,
			.next = at + item.size,
		};
		return RB_WALK_EVENT;
	}
	return RB_WALK_END;
}

/* --- the page ---------------------------------------------------------------------------- */

static void require_same(const struct rb_record *a, const struct rb_record *b)
{
	require(a->time_stamp == b->time_stamp);
	require(a->payload == b->payload);
	require(a->length == b->length);
	require(a->id == b->id);
	require(a->start == b->start);
	require(a->next == b->next);
}

static void walk(const u8 *data, u32 commit, u64 time_stamp)
{
	struct rb_record record = { .time_stamp = time_stamp };
	struct rb_record expected = record;
	enum rb_walk result;
	u32 events = 0;

	for (;;) {
		u32 before = record.next;

		result = rb_walk_next(data, commit, record.next, record.time_stamp, &record);
		require(result == expected_next(data, commit, &expected));
		if (result != RB_WALK_EVENT)
			break;
		events++;
		require_same(&record, &expected);
		require(record.start >= before && record.next > record.start);
		require(record.next <= commit && record.length >= sizeof(u16));
	}
	require_same(&record, &expected); /* an end leaves it alone */
	require(events <= commit / EVENT_MIN);
}

/* Counting gets as far as so many steps do. */
static void count(const u8 *data, u32 commit, u64 time_stamp)
{
	struct rb_record record = { .time_stamp = time_stamp };
	u64 time = time_stamp;
	u32 offset = 0;
	u32 nr = rb_walk_plain(data, commit, &offset, &time);

	while (nr--)
		require(rb_walk_next(data, commit, record.next, record.time_stamp, &record) ==
			RB_WALK_EVENT);
	require(offset == record.next && time == record.time_stamp);
}

static struct buffer_data_page *take_page(struct input *input)
{
	bool taken = take_u8(input) % NR_WALK_COMMITS == COMMIT_IS_TAKEN;
	u64 time_stamp = take_number(input);
	u64 commit = taken ? take_number(input) : input_left(input);
	u32 length = commit <= RB_PAGE_CAPACITY ? (u32)commit : 0;
	struct buffer_data_page *page = exact_alloc(sizeof(*page) + length);

	page->time_stamp = time_stamp;
	page->commit = commit;
	take_block(input, page->data, length);
	return page;
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input input = { bytes, bytes + size };
	struct buffer_data_page *page = take_page(&input);
	bool broken;
	u32 commit = rb_page_commit(page, &broken);

	require(broken == (page->commit > RB_PAGE_CAPACITY));
	require(commit == (broken ? 0 : page->commit));
	walk(page->data, commit, page->time_stamp);
	count(page->data, commit, page->time_stamp);
	free(page);
	return 0;
}
