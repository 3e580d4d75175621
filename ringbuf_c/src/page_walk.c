// SPDX-License-Identifier: Apache-2.0
#include "ringbuf_c/page_walk.h"

/* What one step of the walk found. `size` is that of the whole item, header included. */
struct item {
	u32 type_len;
	u32 time_delta;
	u32 array0;
	u32 size;
};

u32 rb_page_commit(const struct buffer_data_page *page, bool *broken)
{
	/* [see_commit] pairs with [commit]: the events */
	u64 commit = smp_load_acquire(&page->commit);

	*broken = commit > RB_PAGE_CAPACITY;
	return *broken ? 0 : (u32)commit;
}

/* Size of data in long form; 0 when array[0] cannot be one. */
static u32 long_size(u32 array0)
{
	return array0 >= sizeof(u32) && array0 <= RB_PAGE_CAPACITY ? 4 + array0 : 0;
}

/* Size of the item, or 0 when its header makes no sense. `room`: bytes up to commit. */
static u32 item_size(const struct item *item, u32 room)
{
	switch (item->type_len) {
	case RB_TYPE_DATA_LONG:
		return long_size(item->array0);
	case RB_TYPE_PADDING:
		return item->time_delta ? long_size(item->array0) : room;
	case RB_TYPE_TIME_EXTEND:
	case RB_TYPE_TIME_STAMP:
		return RB_TIME_EXTEND_SIZE;
	default:
		return 4 + 4 * item->type_len;
	}
}

static bool read_item(const u8 *at, u32 room, struct item *item)
{
	u32 header;

	if (room < sizeof(u32))
		return false;
	header = load_unaligned(u32, at);
	item->type_len = header & RB_TYPE_LEN_MASK;
	item->time_delta = header >> RB_TYPE_LEN_BITS;
	item->array0 = room >= 2 * sizeof(u32) ? load_unaligned(u32, at + 4) : 0;
	item->size = item_size(item, room);
	return item->size && item->size <= room;
}

/* Time after the item. The deltas of padding do not count (SPEC A.6). */
static u64 advance_time(const struct item *item, u64 now)
{
	u64 wide = (u64)item->array0 << RB_TIME_DELTA_BITS | item->time_delta;

	switch (item->type_len) {
	case RB_TYPE_PADDING:
		return now;
	case RB_TYPE_TIME_EXTEND:
		return now + (wide & RB_TIME_STAMP_MASK);
	case RB_TYPE_TIME_STAMP:
		return (now & ~RB_TIME_STAMP_MASK) | (wide & RB_TIME_STAMP_MASK);
	default:
		return now + item->time_delta;
	}
}

enum rb_walk __rb_walk_slow(const u8 *data, u32 commit, u32 offset, u64 time_stamp,
			    struct rb_record *record)
{
	struct item item;

	while (offset < commit) {
		u32 header;

		if (!read_item(data + offset, commit - offset, &item))
			return RB_WALK_BROKEN;
		time_stamp = advance_time(&item, time_stamp);
		if (item.type_len >= RB_TYPE_PADDING) {
			offset += item.size;
			continue;
		}
		header = item.type_len == RB_TYPE_DATA_LONG ? RB_EVENT_HEADER : sizeof(u32);
		if (item.size < header + sizeof(u16))
			return RB_WALK_BROKEN;
		*record = (struct rb_record){
			.time_stamp = time_stamp,
			.payload = data + offset + header,
			.length = item.size - header,
			.id = load_unaligned(u16, data + offset + header),
			.start = offset,
			.next = offset + item.size,
		};
		return RB_WALK_EVENT;
	}
	return RB_WALK_END;
}
