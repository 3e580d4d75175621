/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For test_interleavings.c: a ring.c that makes a step of each access to a shared word,
 * what a scenario is, all that changes in it, and the writer's side.
 */
#ifndef RINGBUF_C_TESTS_INTERLEAVE_WRITER_H
#define RINGBUF_C_TESTS_INTERLEAVE_WRITER_H

#include "interleave.h"

static void step(const char *at);

/* Three events of the smallest size to a page. */
#define RB_PAGE_SIZE 64U
#define RB_MAX_TAKEN 2U

#undef READ_ONCE
#undef WRITE_ONCE
#undef smp_load_acquire
#undef smp_store_release
#undef load_sc
#undef store_sc
#undef try_cmpxchg
#undef try_cmpxchg_sc
#define hooked_load(x, what) (step("load  " what), __atomic_load_n(&(x), __ATOMIC_SEQ_CST))
#define hooked_store(x, v, what) \
	(step("store " what), __atomic_store_n(&(x), (v), __ATOMIC_SEQ_CST))
#define hooked_cmpxchg(p, old, new, what) \
	(step("cmpxchg " what), __atomic_compare_exchange_n((p), (old), (new), false, \
							       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
#define READ_ONCE(x) hooked_load(x, #x)
#define WRITE_ONCE(x, v) hooked_store(x, v, #x)
#define smp_load_acquire(p) hooked_load(*(p), #p)
#define smp_store_release(p, v) hooked_store(*(p), v, #p)
#define load_sc(p) hooked_load(*(p), #p)
#define store_sc(p, v) hooked_store(*(p), v, #p)
#define try_cmpxchg(p, old, new) hooked_cmpxchg(p, old, new, #p)
#define try_cmpxchg_sc(p, old, new) hooked_cmpxchg(p, old, new, #p)

/* The header of an event is a plain store, of what this returns. */
#include "ringbuf_c/layout.h"
#define rb_event_header(type_len, delta) \
	(step("store header of an event"), rb_event_header(type_len, delta))

/* So that a few events are enough to exhaust the retries of a swap. */
#include "ringbuf_c/ring.h"
static u32 swap_retries;
_Static_assert(RB_SWAP_RETRIES == 8, "the scenarios say 8, or less");
#undef RB_SWAP_RETRIES
#define RB_SWAP_RETRIES swap_retries

/* Tests of this test put a broken ring.c here. */
#ifndef RING_SOURCE
#define RING_SOURCE "../src/ring.c"
#endif
#include RING_SOURCE

#define ARRAY_SIZE(array) ((u32)(sizeof(array) / sizeof((array)[0])))
#define MAX_PAGES 5U
#define POISON 0xee

/* --- scenarios --------------------------------------------------------------------------- */

struct scenario {
	u32 nr_pages;
	u32 nr_events;      /* that the writer tries to write */
	const char *sizes;  /* of event 1, 2, ..., over and over: see event_length() */
	const char *before; /* with nobody else there: see prepare() */
	const char *host;   /* what the host does: host_ops[] */
	bool locked;        /* no membarrier */
	u32 swap_retries;
};

static struct scenario scenario;

/* By serial, which begins with 1. */
static char event_kind(u64 serial)
{
	return scenario.sizes[(serial - 1) % strlen(scenario.sizes)];
}

/* Lower case; with the header: 16, 24, 32 and 48 of the 48 bytes of a page. */
static u32 event_length(u64 serial)
{
	static const u8 lengths[] = { ['a'] = 8, ['b'] = 16, ['c'] = 24, ['d'] = 40 };

	return lengths[event_kind(serial) | 0x20];
}

/* Upper case: so late that it needs a TIME_EXTEND, unless it begins a page. */
static bool event_is_late(u64 serial)
{
	return !(event_kind(serial) & 0x20);
}

static u64 event_time(u64 serial)
{
	u64 time = 1000;

	for (u64 i = 1; i <= serial; i++)
		time += event_is_late(i) ? RB_TIME_DELTA_MASK + 1 : 10;
	return time;
}

static u32 event_size(u64 serial)
{
	return RB_EVENT_HEADER + event_length(serial) +
	       (event_is_late(serial) ? RB_TIME_EXTEND_SIZE : 0);
}

/* --- all that changes -------------------------------------------------------------------- */

static struct {
	struct simple_rb_per_cpu rb;
	struct simple_buffer_page bpages[MAX_PAGES];
	struct trace_buffer_meta meta;
	u64 pages[MAX_PAGES][RB_PAGE_SIZE / sizeof(u64)];

	/* the writer */
	u64 serial;    /* of the last event written */
	bool in_event; /* between a reserve that succeeded and the end of commit */
	bool stepped;  /* since the host last said false */

	/* the host's side: what it knows by reading the ring, as struct reader_cpu does */
	u64 entries, read, lost, taken, time_stamp;
	u32 page, offset;
	u32 left_at;   /* bytes read of the page before this one; 0: events are lost between */
	u64 expected;  /* serial of the next event */
	/* and what it knows from elsewhere */
	u64 forgotten; /* serial of the last event before the last reset or load */
	bool off;      /* no event may be written */
} now;

/* What has been seen in all scenarios: a test that sees none of it tests little. */
static struct {
	bool busy, lost, refused, extended, waited;
} seen;

static u64 *page_data(u32 page)
{
	return &now.pages[page][RB_PAGE_HEADER / sizeof(u64)];
}

static void step(const char *at)
{
	il_step(at);
	if (il_current == IL_WRITER)
		now.stepped = true;
}

/* --- the writer's side ------------------------------------------------------------------- */

static void no_membarrier(void) {} /* steps have one order as it is */

static void relax(void)
{
	seen.waited = true;
	il_relax();
}

static u64 writer_clock(const void *clock)
{
	(void)clock;
	return event_time(now.serial + 1);
}

/* Serial in the first word, its complement in the last one and in those between. */
static void write_payload(u32 *words, u32 nr, u32 serial)
{
	step("store first word of an event");
	words[0] = serial;
	for (u32 i = 1; i < nr - 1; i++)
		words[i] = ~serial;
	step("store last word of an event");
	words[nr - 1] = ~serial;
}

static void write_event(void)
{
	u32 length = event_length(now.serial + 1);
	u32 *payload = simple_ring_buffer_reserve(&now.rb, length, writer_clock, NULL);

	if (!payload) {
		seen.refused = true;
		return;
	}
	il_check(!now.off, "event %llu begun while tracing is off", now.serial + 1, 0);
	now.in_event = true;
	write_payload(payload, length / sizeof(u32), (u32)now.serial + 1);
	simple_ring_buffer_commit(&now.rb);
	now.serial++;
	now.in_event = false;
}

static void writer(void)
{
	for (u32 i = 0; i < scenario.nr_events; i++)
		write_event();
}

#endif
