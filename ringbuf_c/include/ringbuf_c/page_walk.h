/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the events of one sub-buffer (SPEC A.6), byte by byte within its bounds.
 * The page may be written by somebody hostile while it is read: each word that
 * decides where to go is loaded once, and checked.
 */
#ifndef RINGBUF_C_PAGE_WALK_H
#define RINGBUF_C_PAGE_WALK_H

#include "layout.h"
#include "types.h"

struct rb_record {
	u64 time_stamp;    /* ns */
	const u8 *payload; /* begins with the u16 id of the event */
	u32 length;        /* bytes of payload, at least 2 */
	u16 id;            /* read once: the payload may change under us */
	u32 start;         /* offset in data[] of the event's header */
	u32 next;          /* offset in data[] of what follows the event */
};

enum rb_walk {
	RB_WALK_END,    /* no event up to `commit` */
	RB_WALK_EVENT,  /* *record is filled */
	RB_WALK_BROKEN, /* not a well-formed page: skip the rest of it */
};

/**
 * rb_page_commit - bytes of data[] that may be read now.
 *
 * Never more than RB_PAGE_CAPACITY. *@broken is set when the page claims more.
 */
u32 rb_page_commit(const struct buffer_data_page *page, bool *broken);

/* rb_walk_next() for all that is not a data event in long form. */
enum rb_walk __rb_walk_slow(const u8 *data, u32 commit, u32 offset, u64 time_stamp,
			    struct rb_record *record);

/* Events of other producers may start on any byte (SPEC A.6). */
struct unaligned_u64 {
	u64 value;
} __attribute__((packed));

struct unaligned_u32 {
	u32 value;
} __attribute__((packed));

struct unaligned_u16 {
	u16 value;
} __attribute__((packed));

/* Volatile: what has been checked must not be loaded again. */
#define load_unaligned(type, at) (((const volatile struct unaligned_##type *)(at))->value)

/* The event that is all of RB_WALK_EVENT: what a remote writes most. 0: anything else. */
static __always_inline u32 rb_plain_size(u64 header, u32 room)
{
	u32 array0 = (u32)(header >> 32);

	return likely((header & RB_TYPE_LEN_MASK) == RB_TYPE_DATA_LONG &&
		      array0 >= sizeof(u32) + sizeof(u16) && array0 <= room - sizeof(u32)) ?
		       (u32)sizeof(u32) + array0 : 0;
}

/* Whether @header is that of a plain event of @size bytes. */
static __always_inline bool rb_is_plain_of(u64 header, u32 size)
{
	const u64 shape = (u64)UINT32_MAX << 32 | RB_TYPE_LEN_MASK;

	return (header & shape) == ((u64)(size - (u32)sizeof(u32)) << 32 | RB_TYPE_DATA_LONG);
}

/* How far counting has come. */
struct rb_passed {
	u64 time_stamp; /* ns, of what is before offset */
	u32 offset;
	u32 nr;
};

static __always_inline void rb_pass(struct rb_passed *passed, u64 header, u32 size)
{
	passed->time_stamp += (u32)header >> RB_TYPE_LEN_BITS;
	passed->offset += size;
	passed->nr++;
}

/* Returns the size of the event; 0: there is no plain one. */
static __always_inline u32 rb_pass_one(const u8 *data, u32 commit, struct rb_passed *passed)
{
	u32 size;
	u64 header;

	if (passed->offset >= commit || commit - passed->offset < RB_EVENT_HEADER + sizeof(u16))
		return 0;
	header = load_unaligned(u64, data + passed->offset);
	size = rb_plain_size(header, commit - passed->offset);
	if (size)
		rb_pass(passed, header, size);
	return size;
}

/*
 * The same, and all that follow and are as long. No load waits here for the one before it: the
 * branch that ends the run foretells where the next event is.
 */
static __always_inline u32 rb_pass_run(const u8 *data, u32 commit, struct rb_passed *passed)
{
	u32 size = rb_pass_one(data, commit, passed);
	u32 last = commit - size; /* where one more may begin */

	while (size && passed->offset <= last) {
		u64 header = load_unaligned(u64, data + passed->offset);

		if (!rb_is_plain_of(header, size))
			break;
		rb_pass(passed, header, size);
	}
	return size;
}

/* To have foretold wrongly costs as much as two events: not for runs that are shorter. */
#define RB_RUN_EVENTS 16U
#define RB_SHORT_RUNS 4U

/**
 * rb_walk_plain - pass over such events, from *@offset on.
 *
 * Returns how many; *@offset and *@time_stamp are then behind them. For who only counts:
 * nothing is written to memory on the way. rb_walk_next() has to be called for what follows.
 */
static inline u32 rb_walk_plain(const u8 *data, u32 commit, u32 *offset, u64 *time_stamp)
{
	struct rb_passed passed = { .time_stamp = *time_stamp, .offset = *offset };
	u32 runs = 0;

	while (runs++ < RB_SHORT_RUNS + passed.nr / RB_RUN_EVENTS &&
	       rb_pass_run(data, commit, &passed))
		;
	while (rb_pass_one(data, commit, &passed))
		;
	*offset = passed.offset;
	*time_stamp = passed.time_stamp;
	return passed.nr;
}

/**
 * rb_walk_next - find the event at @offset, or behind what is not an event there.
 * @data: data[] of a page
 * @commit: from rb_page_commit()
 * @time_stamp: ns, time of what precedes @offset: of the page when @offset is 0
 *
 * Inlined for what a remote writes most: the event that is all of RB_WALK_EVENT,
 * checked as in the slow path.
 */
static __always_inline enum rb_walk rb_walk_next(const u8 *data, u32 commit, u32 offset,
						 u64 time_stamp, struct rb_record *record)
{
	const u8 *at = data + offset;
	u64 header;
	u32 array0;

	if (unlikely(offset >= commit || commit - offset < RB_EVENT_HEADER + sizeof(u16)))
		return __rb_walk_slow(data, commit, offset, time_stamp, record);
	header = load_unaligned(u64, at);
	array0 = (u32)(header >> 32);
	if (unlikely((header & RB_TYPE_LEN_MASK) != RB_TYPE_DATA_LONG ||
		     array0 < sizeof(u32) + sizeof(u16) || array0 > commit - offset - sizeof(u32)))
		return __rb_walk_slow(data, commit, offset, time_stamp, record);
	*record = (struct rb_record){
		.time_stamp = time_stamp + ((u32)header >> RB_TYPE_LEN_BITS),
		.payload = at + RB_EVENT_HEADER,
		.length = array0 - (u32)sizeof(u32),
		.id = load_unaligned(u16, at + RB_EVENT_HEADER),
		.start = offset,
		.next = offset + (u32)sizeof(u32) + array0,
	};
	return RB_WALK_EVENT;
}

#endif
