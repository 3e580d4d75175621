// SPDX-License-Identifier: Apache-2.0
/* One ring: life, writer, swap and reset (SPEC A, B), and the vectors of SPEC H.3. */
#include "support.h"

#define TIME_EXTEND_AT (1ULL << RB_TIME_DELTA_BITS) /* first delta that needs one */

static struct test_ring ring;

static int setup(void **state)
{
	(void)state;
	ring_setup(&ring, 3);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ring_free(&ring);
	return 0;
}

/* --- life ---------------------------------------------------------------------------- */

static void test_init_page_counts(void **state)
{
	static const struct {
		u32 nr_pages;
		int ret;
	} cases[] = { { 0, -EINVAL }, { 1, -EINVAL }, { 2, -EINVAL }, { 3, 0 }, { 17, 0 } };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct test_ring other;

		ring_alloc(&other, 17);
		assert_int_equal(simple_ring_buffer_init(&other.rb, other.bpages,
							 cases[i].nr_pages, other.meta),
				 cases[i].ret);
		assert_int_equal(simple_rb_loaded(&other.rb), !cases[i].ret);
		ring_free(&other);
	}
}

static void test_init_twice(void **state)
{
	(void)state;
	ring_write(&ring, 1);
	assert_int_equal(simple_ring_buffer_init(&ring.rb, ring.bpages, 3, ring.meta), -EBUSY);
	assert_int_equal(ring.meta->entries, 1);
}

static void test_init_again_after_unload(void **state)
{
	(void)state;
	ring_fill(&ring, TEST_PAYLOAD, 1000);
	simple_ring_buffer_unload(&ring.rb);
	assert_false(simple_rb_loaded(&ring.rb));
	simple_ring_buffer_unload(&ring.rb);
	assert_int_equal(simple_ring_buffer_init(&ring.rb, ring.bpages, 3, ring.meta), 0);
	assert_null(ring_reserve(&ring, 16, 1)); /* loading leaves it disabled */
	assert_int_equal(ring.meta->entries, 0);
	assert_int_equal(ring.meta->overrun, 0);
	for (u32 i = 0; i < 3; i++)
		assert_int_equal(ring_page(&ring, i)->commit, 0);
}

static void test_meta_page(void **state)
{
	static const u8 zero[RB_PAGE_SIZE];
	const u8 *meta = (const u8 *)ring.meta;

	(void)state;
	assert_int_equal(ring.meta->meta_page_size, 4096);
	assert_int_equal(ring.meta->meta_struct_len, 88);
	assert_int_equal(ring.meta->subbuf_size, 4096);
	assert_int_equal(ring.meta->nr_subbufs, 3);
	assert_memory_equal(meta + 16, zero, RB_PAGE_SIZE - 16);
}

static void test_not_loaded(void **state)
{
	struct simple_rb_per_cpu rb = { 0 };
	u64 now = 0;

	(void)state;
	assert_int_equal(simple_ring_buffer_enable_tracing(&rb, true), -ENODEV);
	assert_int_equal(simple_ring_buffer_enable_tracing(&rb, false), -ENODEV);
	assert_int_equal(simple_ring_buffer_swap_reader_page(&rb), -ENODEV);
	assert_int_equal(simple_ring_buffer_reset(&rb), -ENODEV);
	assert_null(simple_ring_buffer_reserve(&rb, 8, fake_now, &now));
	simple_ring_buffer_unload(&rb);
	assert_int_equal(simple_ring_buffer_status(&rb), SIMPLE_RB_UNAVAILABLE);
}

/* --- the status word (SPEC B.2) --------------------------------------------------------- */

static void test_enable_disable_idempotent(void **state)
{
	static const bool switches[] = { true, true, false, false, true, false, true };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(switches); i++) {
		assert_int_equal(simple_ring_buffer_enable_tracing(&ring.rb, switches[i]), 0);
		assert_int_equal(ring_write_sized(&ring, 16, i), switches[i]);
	}
	assert_int_equal(ring.meta->entries, 4);
}

static void test_nested_reserve(void **state)
{
	struct page_content content;
	struct test_event *event = ring_reserve(&ring, TEST_PAYLOAD, 1);

	(void)state;
	assert_non_null(event);
	*event = (struct test_event){ .id = TEST_EVENT_ID, .serial32 = 1 };
	assert_null(ring_reserve(&ring, TEST_PAYLOAD, 2));
	/* An event is being written: enabling must not open the ring to another. */
	assert_int_equal(simple_ring_buffer_enable_tracing(&ring.rb, true), 0);
	assert_null(ring_reserve(&ring, TEST_PAYLOAD, 3));
	simple_ring_buffer_commit(&ring.rb);
	ring.serial = 1;
	ring_write(&ring, 4);

	assert_int_equal(ring.meta->entries, 2);
	assert_int_equal(ring.meta->dropped, 2);
	content = page_content(ring_page(&ring, 1));
	assert_int_equal(content.nr, 2);
	assert_true(content.in_order);
	assert_int_equal(content.last_offset, TEST_EVENT_SIZE);
	assert_int_equal(content.last_time, 4);
}

static void commit_now(void)
{
	simple_ring_buffer_commit(&ring.rb);
}

static void test_disable_waits_for_commit(void **state)
{
	(void)state;
	assert_non_null(ring_reserve(&ring, 16, 1));
	ring.rb.relax = commit_now;
	assert_int_equal(simple_ring_buffer_enable_tracing(&ring.rb, false), 0);
	assert_int_equal(simple_ring_buffer_status(&ring.rb), SIMPLE_RB_UNAVAILABLE);
	assert_int_equal(ring.meta->entries, 1);
	assert_null(ring_reserve(&ring, 16, 2));
	/* Tracing is off: nobody misses it. */
	assert_int_equal(ring.meta->dropped, 0);
}

static void test_nothing_to_see_before_commit(void **state)
{
	(void)state;
	assert_non_null(ring_reserve(&ring, 16, 1));
	assert_int_equal(ring_page(&ring, 1)->commit, 0);
	assert_int_equal(ring.meta->entries, 0);
	simple_ring_buffer_commit(&ring.rb);
	assert_int_equal(ring_page(&ring, 1)->commit, 24);
	assert_int_equal(ring.meta->entries, 1);
}

/* --- payloads (SPEC A.6) ------------------------------------------------------------------ */

static void test_payload_bound(void **state)
{
	static const u32 refused[] = { 4073, 4080, 4088, 4096, 1U << 31, UINT32_MAX - 8,
				       UINT32_MAX };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(refused); i++)
		assert_null(ring_reserve(&ring, refused[i], 1));
	assert_int_equal(ring.meta->entries, 0);
	assert_int_equal(simple_ring_buffer_status(&ring.rb), SIMPLE_RB_READY);
	assert_int_equal(ring.meta->dropped, ARRAY_SIZE(refused));

	assert_true(ring_write_sized(&ring, 4072, 1));
	assert_int_equal(ring_page(&ring, 1)->commit, RB_PAGE_CAPACITY);
	assert_true(ring_write_sized(&ring, 4072, 2));
	assert_int_equal(ring_page(&ring, 2)->commit, RB_PAGE_CAPACITY);
	assert_int_equal(page_content(ring_page(&ring, 2)).first, 2);
}

/* A page never begins with a TIME_EXTEND, so the largest event fits a fresh one. */
static void test_largest_payload_first_and_late(void **state)
{
	(void)state;
	assert_true(ring_write_sized(&ring, 4072, TIME_EXTEND_AT));
	assert_int_equal(ring.meta->pages_touched, 0);
	assert_int_equal(ring_page(&ring, 1)->commit, RB_PAGE_CAPACITY);
	assert_int_equal(ring_swap(&ring), 0);
	assert_int_equal(page_content(ring_reader_page(&ring)).nr, 1);
}

static void test_payload_rounding(void **state)
{
	static const struct {
		u32 length, size;
	} cases[] = { { 0, 8 },   { 1, 16 },  { 2, 16 },  { 7, 16 },
		      { 8, 16 },  { 9, 24 },  { 16, 24 }, { 17, 32 } };
	u64 commit = 0;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		void *payload = ring_reserve(&ring, cases[i].length, 1);
		u32 header[2];

		assert_non_null(payload);
		assert_int_equal((uintptr_t)payload % RB_RECORD_ALIGN, 0);
		memcpy(header, (u8 *)payload - sizeof(header), sizeof(header));
		assert_int_equal(header[0] & RB_TYPE_LEN_MASK, RB_TYPE_DATA_LONG);
		assert_int_equal(header[1], cases[i].size - 4);
		simple_ring_buffer_commit(&ring.rb);
		commit += cases[i].size;
		assert_int_equal(ring_page(&ring, 1)->commit, commit);
	}
}

/* --- time ------------------------------------------------------------------------------------ */

struct item_bytes {
	u32 type_len, delta, array0;
};

static struct item_bytes item_at(u32 offset)
{
	u32 words[2];

	memcpy(words, ring_page(&ring, 1)->data + offset, sizeof(words));
	return (struct item_bytes){
		.type_len = words[0] & RB_TYPE_LEN_MASK,
		.delta = words[0] >> RB_TYPE_LEN_BITS,
		.array0 = words[1],
	};
}

static void expect_item(u32 offset, u32 type_len, u32 delta, u32 array0)
{
	struct item_bytes item = item_at(offset);

	assert_int_equal(item.type_len, type_len);
	assert_int_equal(item.delta, delta);
	assert_int_equal(item.array0, array0);
}

/* SPEC H.3, fourth row. */
static void test_vector_deltas(void **state)
{
	(void)state;
	ring_write(&ring, 5000);
	ring_write(&ring, 5000 + 134217727);
	ring_write(&ring, 5000 + 134217727 + 134217729);

	assert_int_equal(ring_page(&ring, 1)->time_stamp, 5000);
	expect_item(0, RB_TYPE_DATA_LONG, 0, 20);
	expect_item(24, RB_TYPE_DATA_LONG, 134217727, 20);
	expect_item(48, RB_TYPE_TIME_EXTEND, 1, 1);
	expect_item(56, RB_TYPE_DATA_LONG, 0, 20);
	assert_int_equal(ring.rb.write, 80);
	assert_int_equal(page_content(ring_page(&ring, 1)).last_time,
			 5000 + 134217727 + 134217729);
}

static void test_delta_edges(void **state)
{
	static const struct {
		u64 delta;
		bool extend;
	} cases[] = {
		{ 0, false },
		{ 1, false },
		{ TIME_EXTEND_AT - 1, false },
		{ TIME_EXTEND_AT, true },
		{ TIME_EXTEND_AT + 1, true },
		{ 5 * TIME_EXTEND_AT, true },
		{ 1ULL << 58, true },
	};
	u64 now = 7;
	u64 commit;

	(void)state;
	ring_write(&ring, now);
	commit = ring_page(&ring, 1)->commit;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		now += cases[i].delta;
		ring_write(&ring, now);
		commit += TEST_EVENT_SIZE + (cases[i].extend ? RB_TIME_EXTEND_SIZE : 0);
		assert_int_equal(ring_page(&ring, 1)->commit, commit);
		assert_int_equal(page_content(ring_page(&ring, 1)).last_time, now);
	}
}

/* 170 events fill a page to the byte; the TIME_EXTEND of the 170th does not fit. */
static void test_extend_at_page_end(void **state)
{
	(void)state;
	ring_fill(&ring, TEST_PAYLOAD, 169);
	ring_write(&ring, ring.now + TIME_EXTEND_AT);
	assert_int_equal(ring_page(&ring, 1)->commit, 169 * TEST_EVENT_SIZE);
	assert_int_equal(ring_page(&ring, 2)->commit, TEST_EVENT_SIZE);
	assert_int_equal(ring_page(&ring, 2)->time_stamp, ring.now);
	assert_int_equal(page_content(ring_page(&ring, 2)).first_time, ring.now);
}

static void test_clock_backwards(void **state)
{
	struct page_content content;
	u64 delta = (u64)0 - 400; /* from 1000 to 600 */

	(void)state;
	ring_write(&ring, 1000);
	ring_write(&ring, 600);
	expect_item(24, RB_TYPE_TIME_EXTEND, delta & RB_TIME_DELTA_MASK,
		    (u32)(delta >> RB_TIME_DELTA_BITS));
	content = page_content(ring_page(&ring, 1));
	assert_int_equal(content.nr, 2);
	assert_true(content.in_order);
	/* 59 bits of the delta are kept. */
	assert_int_equal(content.last_time, 1000 + (delta & RB_TIME_STAMP_MASK));
}

/* --- swap, and the vectors of SPEC H.3 ------------------------------------------------------- */

struct swap_expected {
	u32 id;
	u64 lost;
	u32 nr, first, last, last_offset;
};

static void expect_swap(const struct swap_expected *expected)
{
	struct page_content content;

	assert_int_equal(ring_swap(&ring), 0);
	assert_int_equal(ring.meta->reader.id, expected->id);
	assert_int_equal(ring.meta->reader.lost_events, expected->lost);
	content = page_content(ring_reader_page(&ring));
	assert_true(content.in_order);
	assert_int_equal(content.nr, expected->nr);
	assert_int_equal(content.first, expected->first);
	assert_int_equal(content.last, expected->last);
	assert_int_equal(content.last_offset, expected->last_offset);
}

static void expect_counters(u64 entries, u64 overrun, u64 lost, u64 touched)
{
	assert_int_equal(ring.meta->entries, entries);
	assert_int_equal(ring.meta->overrun, overrun);
	assert_int_equal(ring.meta->pages_lost, lost);
	assert_int_equal(ring.meta->pages_touched, touched);
	assert_int_equal(ring.meta->read, 0);
	assert_int_equal(ring.meta->reader.read, 0);
	assert_int_equal(ring.meta->flags, 0);
}

static void test_vector_overrun(void **state)
{
	(void)state;
	ring_fill(&ring, TEST_PAYLOAD, 816);
	expect_counters(816, 510, 3, 4);
	expect_swap(&(struct swap_expected){ 2, 510, 170, 511, 680, 4056 });
	expect_swap(&(struct swap_expected){ 1, 0, 136, 681, 816, 135 * 24 });
}

static void test_vector_tail_on_reader_page(void **state)
{
	(void)state;
	ring_fill(&ring, TEST_PAYLOAD, 5);
	expect_swap(&(struct swap_expected){ 1, 0, 5, 1, 5, 96 });
	ring_fill(&ring, TEST_PAYLOAD, 394);
	assert_int_equal(page_content(ring_reader_page(&ring)).nr, 170);
	assert_int_equal(ring.meta->overrun, 0);
	expect_swap(&(struct swap_expected){ 2, 0, 170, 171, 340, 4056 });
	expect_swap(&(struct swap_expected){ 0, 0, 59, 341, 399, 58 * 24 });
}

/* Ours for the third row: 8 bytes of payload are 16 bytes, 255 to a page. */
static void test_vector_small_events(void **state)
{
	(void)state;
	ring_free(&ring);
	ring_setup(&ring, 5);
	ring_fill(&ring, 8, 5000);
	expect_counters(5000, 16 * 255, 16, 19);
	expect_swap(&(struct swap_expected){ 1, 4080, 255, 4081, 4335, 254 * 16 });
	expect_swap(&(struct swap_expected){ 2, 0, 255, 4336, 4590, 254 * 16 });
	expect_swap(&(struct swap_expected){ 3, 0, 255, 4591, 4845, 254 * 16 });
	expect_swap(&(struct swap_expected){ 4, 0, 155, 4846, 5000, 154 * 16 });
}

static void test_lost_between_swaps(void **state)
{
	(void)state;
	ring_fill(&ring, TEST_PAYLOAD, 170 * 4);
	expect_swap(&(struct swap_expected){ 1, 340, 170, 341, 510, 4056 });
	ring_fill(&ring, TEST_PAYLOAD, 170 * 3);
	/* 511 to 850 went under, on page 2 and on page 0, where 1021 to 1190 are now. */
	expect_swap(&(struct swap_expected){ 2, 340, 170, 851, 1020, 4056 });
	expect_counters(1190, 680, 4, 6);
}

/* --- several pages at once ---------------------------------------------------------- */

static void setup_spares(u32 nr_pages, u32 nr_spares)
{
	ring_free(&ring);
	ring_setup_spares(&ring, nr_pages, nr_spares);
}

/* The pages of one call hold events @first to @last, all that there are. Returns pages. */
static u32 expect_taken(u32 max, u32 first, u32 last, u64 lost)
{
	const struct rb_taken *taken = ring_taken(&ring);

	assert_int_equal(ring_swap_some(&ring, max), 0);
	assert_in_range(taken->nr, 1, max);
	for (u32 i = 0; i < taken->nr; i++) {
		struct page_content content = page_content(ring_page(&ring, taken->pages[i].id));

		assert_int_equal(taken->pages[i].lost_events, i ? 0 : lost);
		assert_int_equal(content.first, first);
		assert_true(content.in_order);
		first += content.nr;
	}
	assert_int_equal(first, last + 1);
	assert_int_equal(ring.meta->reader.id, taken->pages[taken->nr - 1].id);
	return taken->nr;
}

static void test_spares_are_pages_like_others(void **state)
{
	(void)state;
	setup_spares(3, 2);
	assert_int_equal(ring.meta->nr_subbufs, 5);
	assert_int_equal(simple_ring_buffer_add_spares(&ring.rb, RB_MAX_TAKEN), -EINVAL);
	assert_int_equal(simple_ring_buffer_add_spares(&ring.rb, 2), 0);
}

static void test_swap_of_several_stops_behind_the_tail(void **state)
{
	(void)state;
	setup_spares(6, 3);
	ring_fill(&ring, TEST_PAYLOAD, 2 * 170 + 10);
	assert_int_equal(expect_taken(RB_MAX_TAKEN, 1, 350, 0), 3);
	/* The last one is being written: the rest of it can be read there. */
	ring_fill(&ring, TEST_PAYLOAD, 160);
	assert_int_equal(page_content(ring_reader_page(&ring)).last, 510);
	ring_fill(&ring, TEST_PAYLOAD, 1);
	assert_int_equal(expect_taken(RB_MAX_TAKEN, 511, 511, 0), 1);
}

static void test_swap_of_several_takes_no_more_than_asked_or_there_are_spares(void **state)
{
	(void)state;
	setup_spares(8, 2);
	ring_fill(&ring, TEST_PAYLOAD, 6 * 170);
	assert_int_equal(expect_taken(1, 1, 170, 0), 1);
	assert_int_equal(expect_taken(2, 171, 510, 0), 2);
	assert_int_equal(expect_taken(RB_MAX_TAKEN, 511, 1020, 0), 3);
}

static void test_swap_of_several_says_what_was_lost_before_each(void **state)
{
	(void)state;
	setup_spares(5, 3);
	ring_fill(&ring, TEST_PAYLOAD, 10 * 170);
	assert_int_equal(expect_taken(2, 6 * 170 + 1, 8 * 170, 6 * 170), 2);
	ring_fill(&ring, TEST_PAYLOAD, 3 * 170);
	/* 1361 to 1530 went under. */
	assert_int_equal(expect_taken(4, 9 * 170 + 1, 13 * 170, 170), 4);
	expect_counters(13 * 170, 7 * 170, 7, 12);
}

static void test_swap_of_several_after_reset(void **state)
{
	(void)state;
	setup_spares(5, 3);
	for (u32 round = 0; round < 20; round++) {
		ring_fill(&ring, TEST_PAYLOAD, 170 * round % 700 + 1);
		assert_int_equal(ring_swap_some(&ring, 1 + round % 4), 0);
		assert_int_equal(simple_ring_buffer_reset(&ring.rb), 0);
		ring.serial = 0;
		ring_fill(&ring, TEST_PAYLOAD, 3 * 170);
		expect_taken(4, 1, 3 * 170, 0);
	}
}

/*
 * A host that asks although nothing is unread: it gets empty pages. What is written
 * afterwards is all there, within one turn of the ring.
 */
static void test_mistaken_swaps(void **state)
{
	(void)state;
	for (u32 swaps = 0; swaps < 12; swaps++) {
		u32 seen = 0;

		ring_free(&ring);
		ring_setup(&ring, 3);
		for (u32 i = 0; i < swaps; i++) {
			assert_int_equal(ring_swap(&ring), 0);
			assert_int_equal(ring.meta->reader.lost_events, 0);
			assert_int_equal(ring_reader_page(&ring)->commit, 0);
		}
		ring_fill(&ring, TEST_PAYLOAD, 5);
		for (u32 i = 0; !seen && i < 4; i++) {
			seen = page_content(ring_reader_page(&ring)).nr;
			assert_int_equal(ring_swap(&ring), 0);
		}
		assert_int_equal(seen, 5);
	}
}

/* The same in the middle of traffic: counters and serials stay sound. */
static void test_mistaken_swaps_then_traffic(void **state)
{
	(void)state;
	for (u32 swaps = 0; swaps < 12; swaps++) {
		struct page_content content;
		u64 overrun;

		ring_free(&ring);
		ring_setup(&ring, 5);
		for (u32 i = 0; i < swaps; i++)
			assert_int_equal(ring_swap(&ring), 0);
		ring_fill(&ring, TEST_PAYLOAD, 170 * 20 + 1);
		assert_int_equal(ring_swap(&ring), 0);
		content = page_content(ring_reader_page(&ring));
		overrun = ring.meta->overrun;
		assert_int_equal(content.nr, 170);
		assert_true(content.in_order);
		assert_true(overrun < ring.meta->entries);
		assert_int_equal(ring.meta->pages_lost * 170 >= overrun, 1);
	}
}

/* --- reset (SPEC B.8) ------------------------------------------------------------------------ */

static void expect_reset_state(u32 reader_id)
{
	expect_counters(0, 0, 0, 0);
	assert_int_equal(ring.meta->reader.lost_events, 0);
	assert_int_equal(ring.meta->reader.id, reader_id);
	for (u32 i = 0; i < ring.rb.nr_pages; i++)
		assert_int_equal(ring_page(&ring, i)->commit, 0);
}

static void test_reset_after_overrun(void **state)
{
	(void)state;
	ring_fill(&ring, TEST_PAYLOAD, 816);
	assert_int_equal(ring_swap(&ring), 0);
	ring_fill(&ring, TEST_PAYLOAD, 1000);
	assert_int_equal(simple_ring_buffer_reset(&ring.rb), 0);
	expect_reset_state(2);

	ring.serial = 0;
	ring_fill(&ring, TEST_PAYLOAD, 3);
	assert_int_equal(ring.meta->entries, 3);
	assert_int_equal(ring_swap(&ring), 0);
	assert_int_equal(ring.meta->reader.lost_events, 0); /* TRAP V1: underflow */
	assert_int_equal(page_content(ring_reader_page(&ring)).nr, 3);
	assert_int_equal(page_content(ring_reader_page(&ring)).first, 1);
}

/* Wherever tail, head and reader page are: reset, then the first vector holds again. */
static void test_reset_anywhere(void **state)
{
	(void)state;
	for (u32 nr = 0; nr < 1200; nr += 85) {
		for (u32 swaps = 0; swaps < 3; swaps++) {
			u64 lost;

			ring_free(&ring);
			ring_setup(&ring, 3);
			ring_fill(&ring, TEST_PAYLOAD, nr);
			for (u32 i = 0; i < swaps; i++)
				assert_int_equal(ring_swap(&ring), 0);
			assert_int_equal(simple_ring_buffer_reset(&ring.rb), 0);
			ring.serial = 0;
			ring_fill(&ring, TEST_PAYLOAD, 816);
			expect_counters(816, 510, 3, 4);
			assert_int_equal(ring_swap(&ring), 0);
			lost = ring.meta->reader.lost_events;
			assert_int_equal(lost, 510);
			assert_int_equal(page_content(ring_reader_page(&ring)).first, 511);
		}
	}
}

static void test_reset_keeps_enabled_state(void **state)
{
	(void)state;
	assert_int_equal(simple_ring_buffer_reset(&ring.rb), 0);
	assert_true(ring_write_sized(&ring, 16, 1));
	simple_ring_buffer_enable_tracing(&ring.rb, false);
	assert_int_equal(simple_ring_buffer_reset(&ring.rb), 0);
	assert_false(ring_write_sized(&ring, 16, 1));
	expect_reset_state(0);
}

static void test_reset_write_stamp(void **state)
{
	(void)state;
	ring_write(&ring, 1ULL << 60);
	assert_int_equal(simple_ring_buffer_reset(&ring.rb), 0);
	assert_int_equal(ring.rb.write_stamp, 0);
	ring_write(&ring, 10);
	ring_write(&ring, 20);
	assert_int_equal(ring_page(&ring, 1)->time_stamp, 10);
	assert_int_equal(ring_page(&ring, 1)->commit, 2 * TEST_EVENT_SIZE);
}

/* --- the clock (SPEC C.6) -------------------------------------------------------------------- */

static void test_clock_convert(void **state)
{
	static const struct {
		u32 mult, shift;
		u64 epoch_ns, epoch_cyc, cyc, ns;
	} cases[] = {
		{ 1, 0, 0, 0, 12345, 12345 },
		{ 1, 0, 500, 100, 100, 500 },
		{ 3, 1, 1000, 100, 110, 1015 },
		{ 1U << 31, 31, 0, 0, 1ULL << 40, 1ULL << 40 },
		/* the product needs 128 bits */
		{ 1U << 31, 31, 7, 0, 1ULL << 62, (1ULL << 62) + 7 },
		{ UINT32_MAX, 32, 0, 0, UINT64_MAX, UINT64_MAX - (1ULL << 32) },
		{ UINT32_MAX, 63, 0, 0, UINT64_MAX, 8589934589ULL },
	};

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct trace_clock clock = { 0 };
		unsigned __int128 product =
			(unsigned __int128)(cases[i].cyc - cases[i].epoch_cyc) * cases[i].mult;

		trace_clock_update(&clock, cases[i].mult, cases[i].shift, cases[i].epoch_ns,
				   cases[i].epoch_cyc);
		assert_int_equal(trace_clock_convert(&clock, cases[i].cyc),
				 (u64)(product >> cases[i].shift) + cases[i].epoch_ns);
		assert_int_equal(trace_clock_convert(&clock, cases[i].cyc), cases[i].ns);
	}
}

static void test_clock_update(void **state)
{
	struct trace_clock clock = { 0 };
	struct trace_clock before;

	(void)state;
	assert_int_equal(trace_clock_convert(&clock, 1), 0); /* zeroed: stands at 0 */
	trace_clock_update(&clock, 2, 0, 0, 0);
	before = clock;
	trace_clock_update(&clock, 0, 0, 9, 9);
	trace_clock_update(&clock, 1, 64, 9, 9);
	trace_clock_update(&clock, 1, UINT32_MAX, 9, 9);
	assert_memory_equal(&clock, &before, sizeof(clock));
	trace_clock_update(&clock, 5, 0, 0, 0);
	assert_int_equal(trace_clock_convert(&clock, 10), 50);
	assert_int_not_equal(clock.current, before.current);
	/* the bank that was in use is untouched */
	assert_memory_equal(&clock.bank[before.current], &before.bank[before.current],
			    sizeof(clock.bank[0]));
}

/* --- what the hypervisor says about its events ------------------------------------------------- */

static void test_event_descriptions(void **state)
{
	const struct hyp_event_desc *desc;
	u32 last_id = 0;
	u32 i;

	(void)state;
	for (i = 0; (desc = hyp_event_desc(i)); i++) {
		const struct hyp_event_field *field = desc->fields;

		assert_true(desc->id > last_id);
		assert_int_not_equal(desc->id, HYP_EVENT_RESERVED_ID);
		last_id = desc->id;
		for (; field->name; field++) {
			assert_true(field->offset >= sizeof(struct hyp_entry_hdr));
			if (field->size) {
				assert_int_equal(field->offset % field->size, 0);
			} else { /* an array without end: the last one, as long as the record */
				assert_int_equal(field->offset % RB_RECORD_ALIGN, 0);
				assert_null(field[1].name);
			}
		}
	}
	assert_int_equal(i, HYP_NR_EVENTS);
	assert_null(hyp_event_desc(UINT32_MAX));
	desc = hyp_event_desc(HYP_EVENT_INDEX_hyp_enter);
	assert_string_equal(desc->name, "hyp_enter");
	assert_int_equal(desc->fields[1].is_signed, 1);
	assert_int_equal(desc->fields[0].is_signed, 0);
	assert_string_equal(hyp_symbol_table(0)->function, "__hyp_enter_exit_reason_str");
	assert_string_equal(hyp_symbol_table(0)->symbols[HYP_REASON_ERET_HOST], "eret_host");
	assert_null(hyp_symbol_table(1));
}

static void test_trace_event(void **state)
{
	u32 enabled[HYP_NR_EVENTS] = { 0 };
	struct trace_clock clock = { 0 };
	struct hyp_trace_cpu cpu = { .clock = &clock, .enabled = enabled };
	const struct hyp_event_format_hyp_enter *enter;

	(void)state;
	assert_int_equal(simple_ring_buffer_init(&cpu.rb, ring.bpages, 3, ring.meta), 0);
	simple_ring_buffer_enable_tracing(&cpu.rb, true);
	trace_hyp_enter(&cpu, HYP_REASON_HVC, 42);
	assert_int_equal(ring.meta->entries, 0);
	enabled[HYP_EVENT_INDEX_hyp_enter] = 1;
	trace_hyp_enter(&cpu, HYP_REASON_HVC, 42);
	trace_hyp_exit(&cpu, HYP_REASON_ERET_HOST, 42);
	assert_int_equal(ring.meta->entries, 1);
	enter = (const void *)(ring_page(&ring, 1)->data + RB_EVENT_HEADER);
	assert_int_equal(enter->hdr.id, HYP_EVENT_ID_hyp_enter);
	assert_int_equal(enter->reason, HYP_REASON_HVC);
	assert_int_equal(enter->vcpu, 42);
	simple_ring_buffer_unload(&cpu.rb);
}

/* Each format says how many arguments it has, in its text and beside it. */
static void test_string_formats(void **state)
{
	const struct hyp_format_table *formats = hyp_format_table(0);

	(void)state;
	assert_string_equal(formats->event, "hyp_printk");
	assert_int_equal(formats->nr_formats, HYP_NR_STRING_FMTS);
	for (u32 i = 0; i < formats->nr_formats; i++) {
		u32 nr = 0;

		for (const char *c = formats->formats[i].text; *c; c++)
			nr += *c == '%' && c[1] != '%' && (c == formats->formats[i].text || c[-1] != '%');
		assert_int_equal(nr, formats->formats[i].nr_args);
	}
	assert_null(hyp_format_table(1));
}

/* The record is as long as its arguments, which keep their signs. */
static void test_trace_hyp_printk(void **state)
{
	u32 enabled[HYP_NR_EVENTS] = { 0 };
	struct trace_clock clock = { 0 };
	struct hyp_trace_cpu cpu = { .clock = &clock, .enabled = enabled };
	const u64 nothing = HYP_FMT_cpu_back;
	const struct hyp_event_format_hyp_printk *printed;
	const struct buffer_data_page *page = ring_page(&ring, 1);
	u32 evaluated = 0;

	(void)state;
	assert_int_equal(simple_ring_buffer_init(&cpu.rb, ring.bpages, 3, ring.meta), 0);
	simple_ring_buffer_enable_tracing(&cpu.rb, true);
	trace_hyp_printk(&cpu, HYP_FMT_cpu_back, evaluated++);
	assert_int_equal(ring.meta->entries, 0);
	enabled[HYP_EVENT_INDEX_hyp_printk] = 1;
	evaluated = 0;
	trace_hyp_printk(&cpu, HYP_FMT_ffa_refused, ++evaluated, (u64)-EINVAL);
	(trace_hyp_printk)(&cpu, 0, &nothing);
	assert_int_equal(evaluated, 1);
	assert_int_equal(ring.meta->entries, 2);
	assert_int_equal(page->commit, RB_EVENT_HEADER + 8 + 2 * 8 + RB_EVENT_HEADER + 8);
	printed = (const void *)(page->data + RB_EVENT_HEADER);
	assert_int_equal(printed->hdr.id, HYP_EVENT_ID_hyp_printk);
	assert_int_equal(printed->fmt_id, HYP_FMT_ffa_refused);
	assert_int_equal(printed->args[0], 1);
	assert_true(printed->args[1] == (u64)-EINVAL);
	simple_ring_buffer_unload(&cpu.rb);
}

#define ring_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(test_init_page_counts),
		ring_test(test_init_twice),
		ring_test(test_init_again_after_unload),
		ring_test(test_meta_page),
		ring_test(test_not_loaded),
		ring_test(test_enable_disable_idempotent),
		ring_test(test_nested_reserve),
		ring_test(test_disable_waits_for_commit),
		ring_test(test_nothing_to_see_before_commit),
		ring_test(test_payload_bound),
		ring_test(test_largest_payload_first_and_late),
		ring_test(test_payload_rounding),
		ring_test(test_vector_deltas),
		ring_test(test_delta_edges),
		ring_test(test_extend_at_page_end),
		ring_test(test_clock_backwards),
		ring_test(test_vector_overrun),
		ring_test(test_vector_tail_on_reader_page),
		ring_test(test_vector_small_events),
		ring_test(test_lost_between_swaps),
		ring_test(test_spares_are_pages_like_others),
		ring_test(test_swap_of_several_stops_behind_the_tail),
		ring_test(test_swap_of_several_takes_no_more_than_asked_or_there_are_spares),
		ring_test(test_swap_of_several_says_what_was_lost_before_each),
		ring_test(test_swap_of_several_after_reset),
		ring_test(test_mistaken_swaps),
		ring_test(test_mistaken_swaps_then_traffic),
		ring_test(test_reset_after_overrun),
		ring_test(test_reset_anywhere),
		ring_test(test_reset_keeps_enabled_state),
		ring_test(test_reset_write_stamp),
		ring_test(test_clock_convert),
		ring_test(test_clock_update),
		ring_test(test_event_descriptions),
		ring_test(test_trace_event),
		ring_test(test_string_formats),
		ring_test(test_trace_hyp_printk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
