/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring-buffer writer made from PROTOCOL.md and layout.h alone: the pages stand in a circle, the
 * oldest at `head`, and one lock lets either the writer or a hypercall in. A page that the reader
 * gets is never written again before it comes back.
 */
#ifndef OTHER_RING_H
#define OTHER_RING_H

#include "ringbuf_c/layout.h"

#include <stdlib.h>
#include <string.h>

struct ring {
	struct trace_buffer_meta *meta; /* shared: written, never read */
	struct buffer_data_page **page; /* shared likewise; by id */
	u64 *nr_events;                 /* on each page */
	u32 *circle;                    /* ids; a page less than there are */
	u32 length, head, used;         /* of the circle; the last one used is the tail */
	u32 reader;
	u64 commit; /* of the tail */
	u64 last_ns, entries, overrun, seen_overrun, pages_lost, pages_touched;
};

static inline u32 ring_tail(const struct ring *ring)
{
	return ring->circle[(ring->head + ring->used - 1) % ring->length];
}

static inline void ring_clean(struct ring *ring, u32 id)
{
	ring->nr_events[id] = 0;
	smp_store_release(&ring->page[id]->commit, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* before anything else is written there */
}

static inline void ring_reset(struct ring *ring)
{
	ring->head = 0;
	ring->used = 1;
	ring->commit = 0;
	ring->entries = ring->overrun = ring->seen_overrun = 0;
	ring->pages_lost = ring->pages_touched = 0;
	for (u32 id = 0; id <= ring->length; id++)
		ring_clean(ring, id);
	WRITE_ONCE(ring->meta->reader.lost_events, 0);
	WRITE_ONCE(ring->meta->overrun, 0);
	smp_store_release(&ring->meta->pages_lost, 0);
	smp_store_release(&ring->meta->pages_touched, 0);
	smp_store_release(&ring->meta->entries, 0);
}

static inline void ring_free(struct ring *ring)
{
	free(ring->page);
	free(ring->nr_events);
	free(ring->circle);
	memset(ring, 0, sizeof(*ring));
}

/* The pages are known to be good. */
static inline bool ring_init(struct ring *ring, u8 *memory, u64 meta_va, const u64 *va, u32 nr)
{
	memset(ring, 0, sizeof(*ring));
	ring->page = calloc(nr, sizeof(*ring->page));
	ring->nr_events = calloc(nr, sizeof(*ring->nr_events));
	ring->circle = calloc(nr, sizeof(*ring->circle));
	if (!ring->page || !ring->nr_events || !ring->circle) {
		ring_free(ring);
		return false;
	}
	ring->meta = (struct trace_buffer_meta *)(memory + meta_va);
	ring->length = nr - 1;
	for (u32 id = 0; id < nr; id++)
		ring->page[id] = (struct buffer_data_page *)(memory + va[id]);
	for (u32 i = 0; i < ring->length; i++)
		ring->circle[i] = i + 1;
	memset(ring->meta, 0, offsetof(struct trace_buffer_meta, dropped));
	ring->meta->meta_page_size = RB_PAGE_SIZE;
	ring->meta->meta_struct_len = offsetof(struct trace_buffer_meta, dropped);
	ring->meta->subbuf_size = RB_PAGE_SIZE;
	ring->meta->nr_subbufs = nr;
	ring_reset(ring);
	return true;
}

/* The next page becomes the tail; when all are used, the oldest is lost for it. */
static inline void ring_next_page(struct ring *ring)
{
	if (ring->used == ring->length) {
		u32 oldest = ring->circle[ring->head];

		ring->overrun += ring->nr_events[oldest];
		ring_clean(ring, oldest);
		ring->head = (ring->head + 1) % ring->length;
		WRITE_ONCE(ring->meta->overrun, ring->overrun);
		smp_store_release(&ring->meta->pages_lost, ++ring->pages_lost);
	} else {
		ring->used++;
	}
	ring->commit = 0;
	smp_store_release(&ring->meta->pages_touched, ++ring->pages_touched);
}

static inline void ring_write(struct ring *ring, u64 ns, const void *payload, u32 size)
{
	u32 rounded = round_up_u32(size, RB_RECORD_ALIGN);
	u32 needed = RB_EVENT_HEADER + rounded;
	struct buffer_data_page *page;
	u64 delta;
	u32 word[2];

	if (ring->commit && ns < ring->last_ns)
		ns = ring->last_ns;
	delta = ring->commit ? ns - ring->last_ns : 0;
	if (delta > RB_TIME_DELTA_MASK)
		needed += RB_TIME_EXTEND_SIZE;
	if (ring->commit + needed > RB_PAGE_CAPACITY) {
		ring_next_page(ring);
		delta = 0;
	}
	page = ring->page[ring_tail(ring)];
	if (!ring->commit)
		WRITE_ONCE(page->time_stamp, ns);
	if (delta > RB_TIME_DELTA_MASK) {
		word[0] = rb_event_header(RB_TYPE_TIME_EXTEND, delta);
		word[1] = (u32)(delta >> RB_TIME_DELTA_BITS);
		memcpy(page->data + ring->commit, word, sizeof(word));
		ring->commit += RB_TIME_EXTEND_SIZE;
		delta = 0;
	}
	word[0] = rb_event_header(RB_TYPE_DATA_LONG, delta);
	word[1] = rounded + 4;
	memcpy(page->data + ring->commit, word, sizeof(word));
	memcpy(page->data + ring->commit + RB_EVENT_HEADER, payload, size);
	memset(page->data + ring->commit + RB_EVENT_HEADER + size, 0, rounded - size);
	ring->commit += RB_EVENT_HEADER + rounded;
	ring->last_ns = ns;
	ring->nr_events[ring_tail(ring)]++;
	smp_store_release(&page->commit, ring->commit);
	smp_store_release(&ring->meta->entries, ++ring->entries);
}

/* The reader gets the oldest page, which may be empty, for the one that it has. */
static inline void ring_swap(struct ring *ring)
{
	u32 oldest = ring->circle[ring->head];

	if (ring->used == 1) /* it is the tail: write elsewhere from now on */
		ring_next_page(ring);
	ring_clean(ring, ring->reader);
	ring->circle[ring->head] = ring->reader;
	ring->head = (ring->head + 1) % ring->length;
	ring->used--;
	ring->reader = oldest;
	WRITE_ONCE(ring->meta->reader.lost_events, ring->overrun - ring->seen_overrun);
	ring->seen_overrun = ring->overrun;
	smp_store_release(&ring->meta->reader.id, oldest);
}

#endif
