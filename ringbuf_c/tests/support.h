/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of ringbuf_c share: a clock that stands still, rings on the heap, a
 * conduit that swaps them without a hypervisor, and a host's reader over them.
 */
#ifndef RINGBUF_C_TESTS_SUPPORT_H
#define RINGBUF_C_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "ringbuf_c/define_events.h"
#include "ringbuf_c/reader.h"

#define ARRAY_SIZE(array) ((u32)(sizeof(array) / sizeof((array)[0])))
#define TEST_MAX_CPUS 8U
#define TEST_PAYLOAD 16U /* struct test_event */
#define TEST_EVENT_SIZE (RB_EVENT_HEADER + TEST_PAYLOAD)
/* Of no meaning: whatever the catalogue has. */
#define TEST_EVENT_ID 3
/* More swaps than this in one read: the reader is in an endless loop. */
#define TEST_MAX_SWAPS 100000U

/* A selftest event; `serial` is in the first 8 bytes too, for events of that size. */
struct test_event {
	u16 id;
	u16 zero;
	u32 serial32;
	u64 serial;
};

/* --- a sequence that is the same on each run -------------------------------------- */

static inline u64 next_random(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* --- one ring --------------------------------------------------------------------- */

struct test_ring {
	struct simple_rb_per_cpu rb;
	struct simple_buffer_page *bpages;
	struct trace_buffer_meta *meta;
	u8 *pages;
	u64 now;    /* the clock */
	u64 serial; /* of the last event */
};

static inline void test_membarrier(void)
{
	assert_int_equal(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), 0);
}

/* RB_TEST_ORDERING=cmpxchg: writers take a locked instruction per event. */
static inline void (*test_ordering(void))(void)
{
	const char *wanted = getenv("RB_TEST_ORDERING");

	if (wanted && !strcmp(wanted, "cmpxchg"))
		return NULL;
	assert_int_equal(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0),
			 0);
	return test_membarrier;
}

/* RB_TEST_SPARES=N: a swap gives up to N + 1 pages. */
static inline u32 test_spares(void)
{
	const char *wanted = getenv("RB_TEST_SPARES");

	return wanted ? (u32)strtoul(wanted, NULL, 10) : 0;
}

static inline u64 fake_now(const void *clock)
{
	return *(const u64 *)clock;
}

static inline void *alloc_pages(u32 nr)
{
	void *pages = aligned_alloc(RB_PAGE_SIZE, (size_t)nr * RB_PAGE_SIZE);

	assert_non_null(pages);
	memset(pages, 0, (size_t)nr * RB_PAGE_SIZE);
	return pages;
}

/* Not loaded, but with all that loading needs. */
static inline void ring_alloc(struct test_ring *ring, u32 nr_pages)
{
	*ring = (struct test_ring){ .meta = alloc_pages(1), .pages = alloc_pages(nr_pages) };
	ring->rb.membarrier = test_ordering();
	ring->bpages = calloc(nr_pages, sizeof(*ring->bpages));
	assert_non_null(ring->bpages);
	for (u32 i = 0; i < nr_pages; i++)
		ring->bpages[i].page = (void *)(ring->pages + (size_t)i * RB_PAGE_SIZE);
}

/* Loaded and enabled, with spares behind @nr_pages pages. */
static inline void ring_setup_spares(struct test_ring *ring, u32 nr_pages, u32 nr_spares)
{
	ring_alloc(ring, nr_pages + nr_spares);
	assert_int_equal(simple_ring_buffer_init(&ring->rb, ring->bpages, nr_pages, ring->meta), 0);
	assert_int_equal(simple_ring_buffer_add_spares(&ring->rb, nr_spares), 0);
	assert_int_equal(simple_ring_buffer_enable_tracing(&ring->rb, true), 0);
}

static inline void ring_setup(struct test_ring *ring, u32 nr_pages)
{
	ring_setup_spares(ring, nr_pages, 0);
}

static inline void ring_free(struct test_ring *ring)
{
	/* A test that failed may have left an event open: do not wait for its commit. */
	ring->rb.writing = 0;
	simple_ring_buffer_unload(&ring->rb);
	free(ring->bpages);
	free(ring->meta);
	free(ring->pages);
}

static inline void *ring_reserve(struct test_ring *ring, u32 length, u64 now)
{
	ring->now = now;
	return simple_ring_buffer_reserve(&ring->rb, length, fake_now, &ring->now);
}

/* One event of @length bytes, at least 8; false when the ring refuses it. */
static inline bool ring_write_sized(struct test_ring *ring, u32 length, u64 now)
{
	struct test_event *event = ring_reserve(ring, length, now);

	if (!event)
		return false;
	event->id = TEST_EVENT_ID;
	event->zero = 0;
	event->serial32 = (u32)++ring->serial;
	if (length >= sizeof(*event))
		event->serial = ring->serial;
	simple_ring_buffer_commit(&ring->rb);
	return true;
}

static inline void ring_write(struct test_ring *ring, u64 now)
{
	assert_true(ring_write_sized(ring, TEST_PAYLOAD, now));
}

/* @nr events of @length bytes, a microsecond apart. */
static inline void ring_fill(struct test_ring *ring, u32 length, u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		assert_true(ring_write_sized(ring, length, ring->now + 1000));
}

static inline int ring_swap(struct test_ring *ring)
{
	return simple_ring_buffer_swap_reader_page(&ring->rb);
}

static inline struct rb_taken *ring_taken(const struct test_ring *ring)
{
	return (void *)((u8 *)ring->meta + RB_TAKEN_OFFSET);
}

static inline int ring_swap_some(struct test_ring *ring, u32 max)
{
	return simple_ring_buffer_swap_reader_pages(&ring->rb, max, ring_taken(ring));
}

static inline const struct buffer_data_page *ring_page(const struct test_ring *ring, u32 id)
{
	return (const void *)(ring->pages + (size_t)id * RB_PAGE_SIZE);
}

static inline const struct buffer_data_page *ring_reader_page(const struct test_ring *ring)
{
	return ring_page(ring, ring->meta->reader.id);
}

/* What a page holds: how many events, with which serials, and where the last one is. */
struct page_content {
	u32 nr;
	u32 first, last;  /* serials */
	u32 last_offset;  /* in data[], of the event's header */
	u64 first_time, last_time;
	bool in_order;    /* each serial is one more than the one before */
};

static inline void add_content(struct page_content *content, const struct rb_record *record)
{
	u32 serial;

	memcpy(&serial, record->payload + offsetof(struct test_event, serial32), sizeof(serial));
	if (!content->nr) {
		content->first = serial;
		content->first_time = record->time_stamp;
	} else if (serial != content->last + 1) {
		content->in_order = false;
	}
	content->nr++;
	content->last = serial;
	content->last_offset = record->start;
	content->last_time = record->time_stamp;
}

static inline struct page_content page_content(const struct buffer_data_page *page)
{
	struct page_content content = { .in_order = true };
	struct rb_record record = { .time_stamp = page->time_stamp };
	bool broken;
	u32 commit = rb_page_commit(page, &broken);
	enum rb_walk walk;

	assert_false(broken);
	while ((walk = rb_walk_next(page->data, commit, record.next, record.time_stamp,
				    &record)) == RB_WALK_EVENT)
		add_content(&content, &record);
	assert_int_equal(walk, RB_WALK_END);
	return content;
}

/* --- a remote: rings, the calls between, and the host's reader ---------------------- */

struct test_remote {
	struct hvc_conduit conduit; /* first: a conduit is a remote */
	struct test_ring rings[TEST_MAX_CPUS];
	struct reader_cpu cpus[TEST_MAX_CPUS];
	struct reader reader;
	struct reader_carry text_carry, raw_carry;
	u32 *orders[TEST_MAX_CPUS];
	u32 swaps; /* since the last read began */
};

/* The one event of the test rings: `selftest id=%llu` */
static const struct render_op test_ops[] = {
	{ .kind = RENDER_TEXT, .text = RENDER_LITERAL("selftest id=") },
	{ .kind = RENDER_UNSIGNED, .size = 8, .offset = offsetof(struct test_event, serial) },
};

static const struct render_event test_events[] = {
	[TEST_EVENT_ID] = { .ops = test_ops, .nr_ops = 2, .length = 16, .max_text = 33 },
};

static inline void local_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	struct test_remote *remote = (struct test_remote *)conduit;

	(void)cpu;
	assert_true(regs->x1 < TEST_MAX_CPUS);
	if (++remote->swaps > TEST_MAX_SWAPS)
		fail_msg("one read asks for ever more pages");
	switch (regs->x0) {
	case HVC_TRACING_SWAP_READER:
		regs->x1 = (u64)(s64)ring_swap(&remote->rings[regs->x1]);
		break;
	case HVC_TRACING_SWAP_READERS:
		regs->x1 = (u64)(s64)ring_swap_some(&remote->rings[regs->x1], (u32)regs->x2);
		break;
	default:
		fail_msg("call %llu", (unsigned long long)regs->x0);
	}
	regs->x0 = 0;
}

static inline struct test_remote *remote_create(u32 nr_cpus, u32 nr_pages)
{
	struct test_remote *remote = aligned_alloc(_Alignof(struct test_remote), sizeof(*remote));

	assert_non_null(remote);
	memset(remote, 0, sizeof(*remote));
	remote->conduit.hvc = local_hvc;
	for (u32 cpu = 0; cpu < nr_cpus; cpu++) {
		struct test_ring *ring = &remote->rings[cpu];

		ring_setup_spares(ring, nr_pages, test_spares());
		remote->cpus[cpu] = (struct reader_cpu){
			.meta = ring->meta,
			.pages = ring->pages,
			.nr_pages = nr_pages + test_spares(),
			.nr_spares = test_spares(),
		};
	}
	remote->reader = (struct reader){
		.conduit = &remote->conduit,
		.max_taken = 1 + test_spares(),
		.nr_cpus = nr_cpus,
		.cpus = remote->cpus,
		.events = { test_events, ARRAY_SIZE(test_events) },
	};
	for (u32 cpu = 0; cpu < nr_cpus; cpu++) {
		remote->orders[cpu] =
			calloc(2 * (size_t)nr_pages + 3 * (size_t)test_spares(), sizeof(u32));
		assert_non_null(remote->orders[cpu]);
		reader_keep_order(&remote->reader, cpu, remote->orders[cpu]);
	}
	return remote;
}

static inline void remote_destroy(struct test_remote *remote)
{
	for (u32 cpu = 0; cpu < remote->reader.nr_cpus; cpu++) {
		ring_free(&remote->rings[cpu]);
		free(remote->orders[cpu]);
	}
	free(remote);
}

static inline void remote_write(struct test_remote *remote, u32 cpu, u64 now)
{
	ring_write(&remote->rings[cpu], now);
}

static inline u32 remote_text(struct test_remote *remote, u32 cpu, char *out, u32 size)
{
	remote->swaps = 0;
	return reader_text(&remote->reader, cpu, &remote->text_carry, out, size);
}

static inline u32 remote_raw(struct test_remote *remote, u32 cpu, u8 *out, u32 size)
{
	remote->swaps = 0;
	return reader_raw(&remote->reader, cpu, &remote->raw_carry, out, size);
}

static inline struct reader_stats remote_stats(const struct test_remote *remote, u32 cpu)
{
	struct reader_stats stats;

	reader_stats(&remote->reader, cpu, &stats);
	return stats;
}

#endif
