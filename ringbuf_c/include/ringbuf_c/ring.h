/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One CPU's ring buffer as the hypervisor sees it (SPEC B): the writer, and the
 * swap, reset and disable that the host asks for.
 *
 *            reader page            ring: nr_pages - 1 pages in a circle
 *              ┌───┐      ┌───┐      ┌───┐      ┌───┐
 *              │ R │      │ T │─────▶│   │─HEAD▶│ H │──▶ ... ──▶ T
 *              └───┘      └───┘      └───┘      └───┘
 *              host's     tail:      free       head: oldest unread page
 *                         written
 *
 * Writer: only the CPU that owns the buffer, without locks. The other calls may
 * come from any CPU, one at a time (the hypervisor's tracing lock).
 *
 * Links are page numbers, not pointers, so the records can live at any address;
 * the flag of a link says something about the page that it leads to.
 */
#ifndef RINGBUF_C_RING_H
#define RINGBUF_C_RING_H

#include "layout.h"
#include "types.h"

enum rb_link_flag {
	LINK_NORMAL = 0,
	LINK_HEAD = 1,        /* the next page is the head */
	LINK_HEAD_MOVING = 2, /* the writer moves the head past the next page: wait */
};

/*
 * A link: flag in bits 0-1, page number in bits 2-31, and in bits 32-63 a tag: how
 * many pages had been lost when the link last became the one to the head. Without
 * the tag, a swap that is held up while the writer laps the ring would find "the
 * same" link again and publish a stale overrun. (EL2 cannot be held up; a thread
 * can.)
 */
#define LINK_FLAG_MASK 3U
#define LINK_PAGE_SHIFT 2
#define LINK_TAG_SHIFT 32

/* The hypervisor's private record of one page. Its number is its index, and its id. */
struct simple_buffer_page {
	struct buffer_data_page *page;
	u64 next;    /* link */
	u32 prev;    /* page number; kept by the swap, the writer does not use it */
	u32 write;   /* bytes of data[] reserved */
	u32 entries; /* events on the page */
};

/* SPEC B.2. Whoever moves a buffer out of READY owns the next step. */
enum simple_rb_status {
	SIMPLE_RB_UNAVAILABLE = 0,
	SIMPLE_RB_READY = 1,
	SIMPLE_RB_WRITING = 2,
};

/* Zeroed memory is a buffer that is not loaded. */
struct simple_rb_per_cpu {
	/* the writer's, touched by every event */
	u32 status; /* enum simple_rb_status */
	u32 tail;   /* page being written */
	struct simple_buffer_page *bpages; /* NULL: not loaded */
	struct trace_buffer_meta *meta;
	u64 write_stamp; /* ns, of the last event */
	u64 entries;     /* private copies of the counters of the meta page, which */
	u64 overrun;     /* the host could overwrite; the meta page is write-only here */
	u64 pages_lost;
	u64 pages_touched;

	/* the swap's */
	u32 head;     /* where to look for the head first; may lag behind */
	u32 reader;   /* page outside the ring */
	u32 nr_pages; /* the reader page included */
	u64 last_overrun;

	/*
	 * Called while waiting for a writer that can be preempted (a thread); NULL
	 * where it cannot (EL2). Set by the owner; loading leaves it alone.
	 */
	void (*relax)(void);
};

static inline bool simple_rb_loaded(const struct simple_rb_per_cpu *rb)
{
	return rb->bpages;
}

/**
 * simple_ring_buffer_init - load a buffer; leaves it UNAVAILABLE.
 * @bpages: @nr_pages records with `page` set; page 0 becomes the reader page
 * @meta: meta page, already zero
 *
 * Return: 0, -EINVAL with fewer than RB_MIN_PAGES pages, -EBUSY when loaded.
 */
int simple_ring_buffer_init(struct simple_rb_per_cpu *rb, struct simple_buffer_page *bpages,
			    u32 nr_pages, struct trace_buffer_meta *meta);

/** simple_ring_buffer_unload - waits for the writer, then forgets the pages. */
void simple_ring_buffer_unload(struct simple_rb_per_cpu *rb);

/**
 * simple_ring_buffer_enable_tracing - let the writer write, or stop it.
 *
 * When it returns from disabling, no event is half written and none will be.
 * Return: 0, or -ENODEV when not loaded.
 */
int simple_ring_buffer_enable_tracing(struct simple_rb_per_cpu *rb, bool enable);

/**
 * simple_ring_buffer_reset - forget all events and counters; reader.id stays.
 *
 * Return: 0, -ENODEV when not loaded, -EBUSY when there is no head. The buffer is
 * enabled afterwards if it was before, also on failure.
 */
int simple_ring_buffer_reset(struct simple_rb_per_cpu *rb);

/**
 * simple_ring_buffer_swap_reader_page - give the oldest page to the host.
 *
 * Stores reader.id and reader.lost_events in the meta page. It does not look
 * whether the page holds data: the host asks only while there are unread events.
 *
 * Return: 0, -ENODEV when not loaded, -EBUSY when the head could not be found, or
 * moved away at each of RB_SWAP_RETRIES tries: ask again later.
 */
int simple_ring_buffer_swap_reader_page(struct simple_rb_per_cpu *rb);

#define RB_SWAP_RETRIES 8

/* --- the writer --------------------------------------------------------- */

/* Out of line: runs once per page. */
struct simple_buffer_page *__simple_rb_move_tail(struct simple_rb_per_cpu *rb);

/* READY to WRITING; false: disabled, or this CPU is already writing an event. */
static __always_inline bool __simple_rb_start_writing(struct simple_rb_per_cpu *rb)
{
	u32 ready = SIMPLE_RB_READY;

	/* acquire: pairs with the enabling exchange, after init filled *rb */
	return try_cmpxchg(&rb->status, &ready, SIMPLE_RB_WRITING);
}

static __always_inline u32 *__simple_rb_put_header(u8 *at, u32 type_len, u64 delta, u32 array0)
{
	u32 *event = (u32 *)at;

	event[0] = rb_event_header(type_len, delta);
	event[1] = array0;
	return event + 2;
}

static __always_inline void *__simple_rb_reserve(struct simple_rb_per_cpu *rb, u32 length,
						 u64 time_stamp)
{
	struct simple_buffer_page *tail = &rb->bpages[rb->tail];
	u32 size = length + RB_EVENT_HEADER;
	u64 delta = time_stamp - rb->write_stamp;
	bool fresh = !tail->entries;
	u32 extend = !fresh && delta > RB_TIME_DELTA_MASK ? RB_TIME_EXTEND_SIZE : 0;
	u8 *at;

	if (unlikely(tail->write + size + extend > RB_PAGE_CAPACITY)) {
		tail = __simple_rb_move_tail(rb);
		fresh = true;
	}

	if (unlikely(fresh)) {
		tail->page->time_stamp = time_stamp;
		delta = 0;
		extend = 0;
	}

	at = tail->page->data + tail->write;
	tail->write += size + extend;
	tail->entries++;
	rb->write_stamp = time_stamp;

	if (unlikely(extend)) {
		at = (u8 *)__simple_rb_put_header(at, RB_TYPE_TIME_EXTEND, delta,
						  (u32)(delta >> RB_TIME_DELTA_BITS));
		delta = 0;
	}
	return __simple_rb_put_header(at, RB_TYPE_DATA_LONG, delta, length + sizeof(u32));
}

/**
 * simple_ring_buffer_reserve - begin an event.
 * @length: bytes of payload; rounded up to RB_RECORD_ALIGN
 * @now: the clock, read once, after the buffer has been claimed (SPEC B.4: so that
 *       waiting for the writer is enough before the clock's other bank is rewritten)
 *
 * Return: where the payload goes, 8-byte aligned, its padding not cleared; NULL
 * when the event cannot be written: tracing is off, an event is being written on
 * this CPU already, or @length exceeds RB_MAX_PAYLOAD. After a non-NULL return the
 * caller must call simple_ring_buffer_commit().
 */
static __always_inline void *simple_ring_buffer_reserve(struct simple_rb_per_cpu *rb, u32 length,
							u64 (*now)(const void *clock),
							const void *clock)
{
	if (unlikely(length > RB_MAX_PAYLOAD))
		return NULL;
	if (!__simple_rb_start_writing(rb))
		return NULL;
	return __simple_rb_reserve(rb, round_up_u32(length, RB_RECORD_ALIGN), now(clock));
}

/** simple_ring_buffer_commit - the event is complete: readers may see it. */
static __always_inline void simple_ring_buffer_commit(struct simple_rb_per_cpu *rb)
{
	struct simple_buffer_page *tail = &rb->bpages[rb->tail];

	/* pairs with the host's acquire load of commit: the bytes of the event */
	smp_store_release(&tail->page->commit, tail->write);
	/* pairs with the host's acquire load of entries: the commit above */
	smp_store_release(&rb->meta->entries, ++rb->entries);
	/* pairs with the acquire in simple_rb_disable(): all of the above */
	smp_store_release(&rb->status, SIMPLE_RB_READY);
}

#endif
