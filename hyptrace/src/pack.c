// SPDX-License-Identifier: Apache-2.0
#include "pack.h"
#include "ringbuf_c/page_walk.h"

#define FLAGS (RB_MISSED_EVENTS | RB_MISSED_STORED)
#define WORD 4U

static u64 load_u64(const u8 *at)
{
	return load_unaligned(u64, at);
}

static void copy(u8 *to, const u8 *from, u32 size)
{
	__builtin_memcpy(to, from, size);
}

/* What a page has: events without a gap, or it is no page to append to, nor to be appended. */
struct span {
	u64 first; /* ns, of the page */
	u64 last;  /* ns, of its last event */
	u32 used;
	u32 flags;
};

static bool span_of(const u8 *page, struct span *span)
{
	struct rb_record record = { .time_stamp = load_u64(page) };
	u64 commit = load_u64(page + sizeof(u64));
	enum rb_walk found;

	*span = (struct span){ .first = record.time_stamp, .used = (u32)commit & ~FLAGS,
			       .flags = (u32)commit & FLAGS };
	if (commit >> 32 || span->used > RB_PAGE_CAPACITY || span->used % WORD)
		return false;
	while (record.next < span->used) {
		found = rb_walk_next(page + RB_PAGE_HEADER, span->used, record.next,
				     record.time_stamp, &record);
		if (found != RB_WALK_EVENT)
			return false;
	}
	span->last = record.time_stamp;
	return record.next == span->used && span->used;
}

/* The header of an event, @gap ns later; false: it has no room for that. */
static bool later(u32 *header, u64 gap)
{
	u64 delta = (*header >> RB_TYPE_LEN_BITS) + gap;

	if ((*header & RB_TYPE_LEN_MASK) > RB_TYPE_DATA_MAX || delta > RB_TIME_DELTA_MASK)
		return false;
	*header = rb_event_header(*header & RB_TYPE_LEN_MASK, delta);
	return true;
}

static u8 *put_u32(u8 *at, u32 value)
{
	copy(at, (const u8 *)&value, sizeof(value));
	return at + sizeof(value);
}

/* Append the events of @page, @gap ns behind the last one. */
static void append(struct pack_cpu *cpu, const u8 *page, const struct span *span, u64 gap)
{
	u8 *at = cpu->page + RB_PAGE_HEADER + cpu->used;
	u32 header = (u32)load_u64(page + RB_PAGE_HEADER);

	if (!later(&header, gap)) {
		at = put_u32(at, rb_event_header(RB_TYPE_TIME_EXTEND, gap & RB_TIME_DELTA_MASK));
		at = put_u32(at, (u32)(gap >> RB_TIME_DELTA_BITS));
	}
	copy(at, page + RB_PAGE_HEADER, span->used);
	put_u32(at, header);
	cpu->used = (u32)(at - cpu->page) - RB_PAGE_HEADER + span->used;
	cpu->last = span->last;
}

static bool fits(const struct pack_cpu *cpu, const struct span *span, u64 gap)
{
	/* The count of what was lost before the page follows its data. */
	u32 room = RB_PAGE_CAPACITY - cpu->used - (u32)sizeof(u64);

	return cpu->used + sizeof(u64) + RB_TIME_EXTEND_SIZE <= RB_PAGE_CAPACITY && !span->flags &&
	       span->first >= cpu->last && gap <= RB_TIME_STAMP_MASK &&
	       span->used + RB_TIME_EXTEND_SIZE <= room;
}

/* Whether @page has become a part of the open one. */
static bool join(struct pack_cpu *cpu, const u8 *page)
{
	u32 flags = (u32)load_u64(cpu->page + sizeof(u64)) & FLAGS, before = cpu->used;
	struct span span;
	u64 gap, lost;

	if (!cpu->open || !span_of(page, &span))
		return false;
	gap = span.first - cpu->last;
	if (!fits(cpu, &span, gap))
		return false;
	lost = load_u64(cpu->page + RB_PAGE_HEADER + before);
	append(cpu, page, &span, gap);
	if (flags & RB_MISSED_STORED)
		copy(cpu->page + RB_PAGE_HEADER + cpu->used, (const u8 *)&lost, sizeof(lost));
	copy(cpu->page + sizeof(u64), (const u8 *)&(u64){ cpu->used | flags }, sizeof(u64));
	return true;
}

static void begin(struct pack_cpu *cpu, const u8 *page)
{
	struct span span;

	cpu->open = span_of(page, &span);
	cpu->used = span.used;
	cpu->last = span.last;
	copy(cpu->page, page, RB_PAGE_SIZE);
}

u32 pack_pages(struct pack_cpu *cpu, const u8 *pages, u32 size, u8 *out)
{
	u8 *at = out;

	if (cpu->open) {
		copy(at, cpu->page, RB_PAGE_SIZE);
		at += RB_PAGE_SIZE;
	}
	for (const u8 *page = pages; page < pages + size; page += RB_PAGE_SIZE) {
		if (join(cpu, page)) {
			copy(at - RB_PAGE_SIZE, cpu->page, RB_PAGE_SIZE);
			continue;
		}
		begin(cpu, page);
		copy(at, page, RB_PAGE_SIZE);
		at += RB_PAGE_SIZE;
	}
	return (u32)(at - out);
}
