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
 * Writer: only the CPU that owns the buffer, without locks and, where the owner
 * supplies `membarrier`, without a locked instruction. The other calls may come from
 * any CPU, one at a time (the hypervisor's tracing lock).
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
	u32 entries; /* events that were on the page when the tail left it */
};

/* SPEC B.2; derived from the two words that make it, see simple_ring_buffer_status(). */
enum simple_rb_status {
	SIMPLE_RB_UNAVAILABLE = 0,
	SIMPLE_RB_READY = 1,
	SIMPLE_RB_WRITING = 2,
};

#define RB_CACHE_LINE 64

/* Events. What the hypervisor has counted itself: the host cannot have changed it. */
struct simple_rb_counters {
	u64 entries; /* written */
	u64 overrun; /* of these: overwritten unread */
	u64 dropped; /* refused while tracing was on */
};

/*
 * Zeroed memory is a buffer that is not loaded.
 *
 * The first cache line is what an event touches, of this structure. The second
 * changes once per page or per hypercall. What the host polls is in neither: it is in
 * the meta page, whose `entries` the layout wants to be stored per event.
 */
struct simple_rb_per_cpu {
	/* the writer's */
	u32 writing; /* 1 while an event is written; only the writer stores it */
	u32 enabled; /* only the host's side stores it */
	u32 write;   /* bytes of the tail page's data[] reserved */
	u32 end;     /* as far as an event may go that is not the first of its page: */
		     /* RB_PAGE_CAPACITY; 0 while the tail page is empty */
	struct buffer_data_page *page; /* the tail page */
	struct trace_buffer_meta *meta;
	u64 write_stamp; /* ns, of the last event */
	u64 entries;     /* private copy of the counter of the meta page, as those below */
	u32 armed;       /* 1: ring() after the next event; see simple_ring_buffer_arm() */

	/*
	 * Makes every CPU that may be writing pass a full barrier (membarrier(2)), so
	 * that the writer need not pass one for each event. NULL: there is no such
	 * thing, and the writer takes a locked cmpxchg per event. Set by the owner
	 * before loading; loading leaves it alone.
	 */
	void (*membarrier)(void);

	/* the writer's, per page */
	struct simple_buffer_page *bpages __attribute__((aligned(RB_CACHE_LINE))); /* NULL: not loaded */
	u32 tail;          /* page being written */
	u32 nr_pages;      /* the reader page included */
	u64 first_entry;   /* entries when the tail page was empty */
	u64 overrun;       /* the host could overwrite the meta page: it is write-only here */
	u64 pages_lost;
	u64 pages_touched;
	u64 dropped;

	/* the swap's */
	u32 head;   /* where to look for the head first; may lag behind */
	u32 reader; /* page outside the ring */
	u64 last_overrun;
	u64 lost_events; /* between the last two swaps */
	u64 taken; /* pages, since load or reset */
	u32 nr_spares;
	u32 spares[RB_MAX_TAKEN - 1]; /* more pages outside the ring */

	/* counted before the last load or reset */
	struct simple_rb_counters forgotten;

	/*
	 * Called while waiting for a writer that can be preempted (a thread); NULL
	 * where it cannot (EL2). Set by the owner; loading leaves it alone.
	 */
	void (*relax)(void);

	/*
	 * Called by the writer behind an event that found the buffer armed, before the
	 * event ends: who waits for the writer then knows that nobody rings. It must not
	 * block. Set by the owner; NULL: the buffer is never armed.
	 */
	void (*ring)(struct simple_rb_per_cpu *rb);
};

_Static_assert(offsetof(struct simple_rb_per_cpu, bpages) == RB_CACHE_LINE,
	       "what an event touches is one cache line");

static inline bool simple_rb_loaded(const struct simple_rb_per_cpu *rb)
{
	return rb->bpages;
}

/** simple_ring_buffer_status - what the buffer is doing; out of date when it returns. */
static inline enum simple_rb_status simple_ring_buffer_status(const struct simple_rb_per_cpu *rb)
{
	if (!READ_ONCE(rb->enabled))
		return SIMPLE_RB_UNAVAILABLE;
	return READ_ONCE(rb->writing) ? SIMPLE_RB_WRITING : SIMPLE_RB_READY;
}

/**
 * simple_ring_buffer_counters - what has been counted since the last load or reset.
 * @ever: the same, and all that was counted before
 *
 * The buffer may be in use: each number is a moment's. Once it is unloaded they stay until
 * the next load.
 */
void simple_ring_buffer_counters(const struct simple_rb_per_cpu *rb,
				 struct simple_rb_counters *now, struct simple_rb_counters *ever);

/**
 * simple_ring_buffer_init - load a buffer; leaves it UNAVAILABLE.
 * @bpages: @nr_pages records with `page` set; page 0 becomes the reader page
 * @meta: meta page, already zero
 *
 * Return: 0, -EINVAL with fewer than RB_MIN_PAGES pages, -EBUSY when loaded.
 */
int simple_ring_buffer_init(struct simple_rb_per_cpu *rb, struct simple_buffer_page *bpages,
			    u32 nr_pages, struct trace_buffer_meta *meta);

/**
 * simple_ring_buffer_add_spares - more pages that the host has outside the ring, so that
 * it can swap several at once.
 * @nr: records behind those of simple_ring_buffer_init(), with `page` set
 *
 * Before tracing is enabled for the first time.
 * Return: 0, -ENODEV when not loaded, -EINVAL with more than RB_MAX_TAKEN - 1.
 */
int simple_ring_buffer_add_spares(struct simple_rb_per_cpu *rb, u32 nr);

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
 * simple_ring_buffer_wait_writer - until no event is being written that was begun
 * before a barrier.
 *
 * The caller has called rb->membarrier, if there is one: once is enough for many
 * buffers. Events begun later may be being written when it returns.
 */
void simple_ring_buffer_wait_writer(const struct simple_rb_per_cpu *rb);

/**
 * simple_ring_buffer_arm - have the writer call rb->ring once, after its next event.
 *
 * Then the caller calls rb->membarrier (once is enough for many buffers), and then looks at
 * the counters: the events that it does not see there have not ended yet, and one of
 * them rings. So there is no doorbell without membarrier.
 */
void simple_ring_buffer_arm(struct simple_rb_per_cpu *rb);

/** simple_ring_buffer_disarm - undo it; an event that is being written may still ring. */
void simple_ring_buffer_disarm(struct simple_rb_per_cpu *rb);

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

/**
 * simple_ring_buffer_swap_reader_pages - give up to @max of the oldest pages to the host.
 * @taken: where to say which, with room for as many as there are reader pages
 *
 * As many calls of simple_ring_buffer_swap_reader_page() would, each with another page of
 * the host's in exchange; but it stops behind the page that is being written. The host
 * asks only when it has read all the pages that it has.
 *
 * Return: 0 and at least one page; else as simple_ring_buffer_swap_reader_page().
 */
int simple_ring_buffer_swap_reader_pages(struct simple_rb_per_cpu *rb, u32 max,
					 struct rb_taken *taken);

/* --- the writer --------------------------------------------------------- */

/*
 * Out of line, once per page or less: an event that is the first of its page, or that
 * needs a TIME_EXTEND. Returns where its payload goes.
 */
void *__simple_rb_reserve_slow(struct simple_rb_per_cpu *rb, u32 length, u64 time_stamp);

/* Out of line: count an event that was not written. The caller is WRITING. */
void __simple_rb_drop(struct simple_rb_per_cpu *rb);

/* Out of line: disarm, and ring. */
void __simple_rb_ring(struct simple_rb_per_cpu *rb);

/* [done] pairs with [see_done]: all that was written since __simple_rb_start_writing() */
static __always_inline void __simple_rb_stop_writing(struct simple_rb_per_cpu *rb)
{
	smp_store_release(&rb->writing, 0);
}

/*
 * True when the writer may write: tracing is on, and this CPU is not writing already.
 *
 * `writing` must be visible to the host's side before `enabled` is looked at: either
 * the host's side then sees an event to wait for, or we see that tracing is off. With
 * membarrier, the rare side pays for that order; else the exchange does.
 */
static __always_inline bool __simple_rb_start_writing(struct simple_rb_per_cpu *rb)
{
	u32 writing = 0;

	if (likely(rb->membarrier)) {
		writing = READ_ONCE(rb->writing);
		WRITE_ONCE(rb->writing, 1);
		/* [start] pairs with [membarrier] */
		barrier();
	} else {
		/* [start_locked] against [disable] */
		try_cmpxchg_sc(&rb->writing, &writing, 1);
	}
	if (unlikely(writing)) {
		__simple_rb_drop(rb);
		return false;
	}
	/* [see_enabled] acquire: pairs with [enable], after init filled *rb */
	if (likely(load_sc(&rb->enabled)))
		return true;
	__simple_rb_stop_writing(rb);
	return false;
}

static __always_inline void *__simple_rb_put_header(u8 *at, u32 type_len, u64 delta, u32 array0)
{
	/* one store: a compiler that sees the two halves does not always merge them */
	*(u64 *)at = rb_event_header(type_len, delta) | (u64)array0 << 32;
	return at + sizeof(u64);
}

static __always_inline void *__simple_rb_reserve(struct simple_rb_per_cpu *rb, u32 length,
						 u64 time_stamp)
{
	u32 write = rb->write;
	u32 next = write + length + RB_EVENT_HEADER;
	u64 delta = time_stamp - rb->write_stamp;

	if (unlikely(next > rb->end || delta > RB_TIME_DELTA_MASK))
		return __simple_rb_reserve_slow(rb, length, time_stamp);
	rb->write = next;
	rb->write_stamp = time_stamp;
	return __simple_rb_put_header(rb->page->data + write, RB_TYPE_DATA_LONG, delta,
				      length + (u32)sizeof(u32));
}

/**
 * simple_ring_buffer_reserve - begin an event.
 * @length: bytes of payload; rounded up to RB_RECORD_ALIGN
 * @now: the clock, read once, after the buffer has been claimed (SPEC B.4: so that
 *       waiting for the writer is enough before the clock's other bank is rewritten)
 *
 * Return: where the payload goes, 8-byte aligned, its padding not cleared; NULL
 * when the event cannot be written: tracing is off, or, counted as dropped, an event
 * is being written on this CPU already, or @length exceeds RB_MAX_PAYLOAD. After a
 * non-NULL return the caller must call simple_ring_buffer_commit().
 */
static __always_inline void *simple_ring_buffer_reserve(struct simple_rb_per_cpu *rb, u32 length,
							u64 (*now)(const void *clock),
							const void *clock)
{
	if (unlikely(!__simple_rb_start_writing(rb)))
		return NULL;
	if (unlikely(length > RB_MAX_PAYLOAD)) {
		__simple_rb_drop(rb);
		__simple_rb_stop_writing(rb);
		return NULL;
	}
	return __simple_rb_reserve(rb, round_up_u32(length, RB_RECORD_ALIGN), now(clock));
}

/** simple_ring_buffer_commit - the event is complete: readers may see it. */
static __always_inline void simple_ring_buffer_commit(struct simple_rb_per_cpu *rb)
{
	u64 entries = rb->entries + 1;

	/* [commit] pairs with [see_commit]: the bytes of the event */
	smp_store_release(&rb->page->commit, rb->write);
	/* [entries] pairs with [see_entries]: the commit above */
	smp_store_release(&rb->meta->entries, entries);
	WRITE_ONCE(rb->entries, entries); /* simple_ring_buffer_counters() looks at any time */
	/* [see_armed] after [entries]; pairs with [membarrier_arm], who arms pays for the order */
	barrier();
	if (unlikely(READ_ONCE(rb->armed)))
		__simple_rb_ring(rb);
	__simple_rb_stop_writing(rb);
}

#endif
