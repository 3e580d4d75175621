// SPDX-License-Identifier: Apache-2.0
/* The walk over a page at its exact edges, and golden pages with their text. */
#include <inttypes.h>

#include "support.h"

#define HEX_MAX RB_PAGE_SIZE

/* Bytes of a hexdump: pairs of digits, blanks and newlines anywhere. */
static u32 hex_bytes(u8 *out, const char *text)
{
	u32 length = 0;
	int used;

	while (sscanf(text, " %2hhx%n", &out[length], &used) == 1) {
		text += used;
		length++;
	}
	return length;
}

/* A page of exactly @length bytes of data on the heap, so that ASan sees the next one. */
static struct buffer_data_page *hex_page(const char *data, u64 time_stamp)
{
	u8 bytes[HEX_MAX];
	u32 length = hex_bytes(bytes, data);
	struct buffer_data_page *page = malloc(sizeof(*page) + length);

	assert_non_null(page);
	page->time_stamp = time_stamp;
	page->commit = length;
	memcpy(page->data, bytes, length);
	return page;
}

/* --- commit ------------------------------------------------------------------------- */

static void test_commit(void **state)
{
	static const struct {
		u64 commit;
		u32 readable;
		bool broken;
	} cases[] = {
		{ 0, 0, false },
		{ 1, 1, false },
		{ RB_PAGE_CAPACITY, RB_PAGE_CAPACITY, false },
		{ RB_PAGE_CAPACITY + 1, 0, true },
		{ RB_PAGE_SIZE, 0, true },
		{ 1ULL << 32, 0, true }, /* not cut to 32 bits */
		{ (1ULL << 32) + 24, 0, true },
		{ UINT64_MAX, 0, true },
		{ RB_MISSED_EVENTS | 24, 0, true }, /* flags belong to images only */
	};

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buffer_data_page page = { .commit = cases[i].commit };
		bool broken = !cases[i].broken;

		assert_int_equal(rb_page_commit(&page, &broken), cases[i].readable);
		assert_int_equal(broken, cases[i].broken);
	}
}

/* --- one step ------------------------------------------------------------------------ */

struct step_case {
	const char *what;
	const char *data;
	enum rb_walk walk;
	u64 time_stamp; /* the page's is 1000 */
	u32 start, next, length;
	u16 id;
};

static const struct step_case steps[] = {
	{ "empty page", "", RB_WALK_END, 0, 0, 0, 0, 0 },

	/* long form */
	{ "8 bytes of payload", "00000000 0c000000 0300000001000000", RB_WALK_EVENT, 1000, 0, 16,
	  8, 3 },
	{ "delta 1", "20000000 0c000000 0300000001000000", RB_WALK_EVENT, 1001, 0, 16, 8, 3 },
	{ "largest delta", "e0ffffff 0c000000 0300000001000000", RB_WALK_EVENT, 1000 + 134217727,
	  0, 16, 8, 3 },
	{ "shortest payload", "00000000 06000000 0400", RB_WALK_EVENT, 1000, 0, 10, 2, 4 },
	{ "payload of 3", "00000000 07000000 040000", RB_WALK_EVENT, 1000, 0, 11, 3, 4 },
	{ "payload of 1", "00000000 05000000 04", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "payload of 0", "00000000 04000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "length 0", "00000000 00000000 0300000001000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "length 3", "00000000 03000000 0300000001000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "one past commit", "00000000 0d000000 0300000001000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "past the page", "00000000 f10f0000 0300000001000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "length that wraps", "00000000 fcffffff 0300000001000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "length -1", "00000000 ffffffff 0300000001000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "no length", "00000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "half a length", "00000000 0c0000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "half a header", "000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "a byte", "00", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },

	/* padding: its delta is no time */
	{ "rest of the page", "1d000000 ffffffff 0300000001000000", RB_WALK_END, 0, 0, 0, 0, 0 },
	{ "rest of 4 bytes", "1d000000", RB_WALK_END, 0, 0, 0, 0, 0 },
	{ "sized padding", "3d000000 08000000 ffffffff" "00000000 06000000 0700", RB_WALK_EVENT,
	  1000, 12, 22, 2, 7 },
	{ "smallest padding", "3d000000 04000000" "00000000 06000000 0700", RB_WALK_EVENT, 1000, 8,
	  18, 2, 7 },
	{ "padding to the end", "3d000000 08000000 ffffffff", RB_WALK_END, 0, 0, 0, 0, 0 },
	{ "padding of length 0", "3d000000 00000000" "00000000 06000000 0700", RB_WALK_BROKEN, 0, 0,
	  0, 0, 0 },
	{ "padding of length 3", "3d000000 03000000" "00000000 06000000 0700", RB_WALK_BROKEN, 0, 0,
	  0, 0, 0 },
	{ "padding past commit", "3d000000 09000000 ffffffff", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },

	/* TIME_EXTEND: delta = array[0] << 27 | time_delta */
	{ "time extend", "3e000000 01000000" "00000000 06000000 0700", RB_WALK_EVENT,
	  1000 + (1ULL << 27) + 1, 8, 18, 2, 7 },
	{ "time extend and delta", "1e000000 02000000" "a0000000 06000000 0700", RB_WALK_EVENT,
	  1000 + (2ULL << 27) + 5, 8, 18, 2, 7 },
	{ "two time extends", "3e000000 00000000" "5e000000 00000000" "00000000 06000000 0700",
	  RB_WALK_EVENT, 1003, 16, 26, 2, 7 },
	{ "time extend of 59 bits", "feffffff ffffffff" "00000000 06000000 0700", RB_WALK_EVENT,
	  1000 + RB_TIME_STAMP_MASK, 8, 18, 2, 7 },
	{ "time extend alone", "3e000000 01000000", RB_WALK_END, 0, 0, 0, 0, 0 },
	{ "half a time extend", "3e000000 010000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
	{ "time extend, no length", "3e000000", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },

	/* TIME_STAMP: absolute; the 5 upper bits stay those of the page */
	{ "time stamp", "3f000000 01000000" "00000000 06000000 0700", RB_WALK_EVENT,
	  (1ULL << 27) + 1, 8, 18, 2, 7 },
	{ "half a time stamp", "3f000000 01", RB_WALK_BROKEN, 0, 0, 0, 0, 0 },
};

static void expect_step(const struct step_case *step, const struct rb_record *record)
{
	if (record->time_stamp != step->time_stamp || record->start != step->start ||
	    record->next != step->next || record->length != step->length || record->id != step->id)
		fail_msg("%s: time %llu start %u next %u length %u id %u", step->what,
			 (unsigned long long)record->time_stamp, record->start, record->next,
			 record->length, record->id);
}

static void test_steps(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(steps); i++) {
		struct buffer_data_page *page = hex_page(steps[i].data, 1000);
		struct rb_record record = { 0 };
		enum rb_walk walk =
			rb_walk_next(page->data, (u32)page->commit, 0, page->time_stamp, &record);

		if (walk != steps[i].walk)
			fail_msg("%s: %d instead of %d", steps[i].what, walk, steps[i].walk);
		if (walk == RB_WALK_EVENT) {
			expect_step(&steps[i], &record);
			assert_ptr_equal(record.payload, page->data + record.next - record.length);
		}
		free(page);
	}
}

/* Short form: 4 + 4 * type_len bytes, payload at 4. Whole, and one byte short. */
static void test_short_form(void **state)
{
	(void)state;
	for (u32 type_len = 1; type_len <= RB_TYPE_DATA_MAX; type_len++) {
		u32 size = 4 + 4 * type_len;
		u32 header = rb_event_header(type_len, 3);
		u8 *data = calloc(1, size);
		struct rb_record record = { 0 };

		assert_non_null(data);
		memcpy(data, &header, sizeof(header));
		data[4] = 9;
		assert_int_equal(rb_walk_next(data, size, 0, 100, &record), RB_WALK_EVENT);
		assert_int_equal(record.time_stamp, 103);
		assert_int_equal(record.id, 9);
		assert_int_equal(record.length, 4 * type_len);
		assert_int_equal(record.next, size);
		assert_ptr_equal(record.payload, data + 4);
		assert_int_equal(rb_walk_next(data, size - 1, 0, 100, &record), RB_WALK_BROKEN);
		free(data);
	}
}

static void test_time_stamp_upper_bits(void **state)
{
	static const u64 pages[] = { 0, 1ULL << 59, 0x1fULL << 59, (7ULL << 59) + 12345,
				     UINT64_MAX };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(pages); i++) {
		struct buffer_data_page *page =
			hex_page("ff000000 00000000" "00000000 06000000 0700", pages[i]);
		struct rb_record record;

		assert_int_equal(rb_walk_next(page->data, 18, 0, pages[i], &record), RB_WALK_EVENT);
		assert_int_equal(record.time_stamp, (pages[i] & ~RB_TIME_STAMP_MASK) | 7);
		free(page);
	}
}

static void test_walk_from_offset(void **state)
{
	struct buffer_data_page *page =
		hex_page("00000000 0c000000 0300000001000000" "40000000 0c000000 0400000002000000",
			 0);
	struct rb_record record = { .start = 77 };

	(void)state;
	assert_int_equal(rb_walk_next(page->data, 32, 16, 500, &record), RB_WALK_EVENT);
	assert_int_equal(record.id, 4);
	assert_int_equal(record.time_stamp, 502);
	record.start = 77;
	assert_int_equal(rb_walk_next(page->data, 32, 32, 500, &record), RB_WALK_END);
	assert_int_equal(rb_walk_next(page->data, 32, 33, 500, &record), RB_WALK_END);
	assert_int_equal(rb_walk_next(page->data, 32, UINT32_MAX, 500, &record), RB_WALK_END);
	assert_int_equal(record.start, 77); /* untouched */
	free(page);
}

/* --- whole pages -------------------------------------------------------------------------- */

/* Walk a page; the events as lines of CPU 2. "BROKEN AT n\n" ends a page that is. */
static void page_text(const struct buffer_data_page *page, char *out)
{
	struct render_table table = { test_events, ARRAY_SIZE(test_events) };
	struct rb_record record = { .time_stamp = page->time_stamp };
	struct render_prefix prefix = { 0 };
	enum rb_walk walk;

	while ((walk = rb_walk_next(page->data, (u32)page->commit, record.next, record.time_stamp,
				    &record)) == RB_WALK_EVENT)
		out += render_line(out, &prefix, 2, &record, render_find(&table, record.id));
	*out = 0;
	if (walk == RB_WALK_BROKEN)
		sprintf(out, "BROKEN AT %u\n", record.next);
}

static const struct {
	const char *data;
	u64 time_stamp;
	const char *text;
} golden[] = {
	/* What our writer makes: 8-byte aligned, long form, TIME_EXTEND over 134 ms. */
	{
		"00000000 14000000 0300000000000000 0100000000000000"
		"00fa0000 14000000 0300000000000000 0200000000000000" /* +2000 ns */
		"1e000000 08000000"                                  /* +1073741824 ns */
		"00000000 14000000 0300000000000000 ffffffffffffffff",
		4242123456789ULL,
		"[002]\t 4242.123456: selftest id=1\n"
		"[002]\t 4242.123458: selftest id=2\n"
		"[002]\t 4243.197200: selftest id=18446744073709551615\n",
	},
	/* Another producer: unaligned events, short form, padding, an unknown event. */
	{
		"00000000 06000000 0700"                     /* id 7, at 0 */
		"20000000 07000000 0300aa"                   /* a selftest that is too short, at 10 */
		"24000000 0300000000000000 0900000000000000" /* short form, at 21 */
		"3d000000 05000000 00"                       /* padding of 9 bytes, at 41 */
		"21000000 0000ffff"                          /* id 0, at 50 */
		"1d000000 deadbeef",                         /* the rest is padding */
		1000,
		"[002]\t    0.000001: UNKNOWN id=7\n"
		"[002]\t    0.000001: [SHORT EVENT id=3 length=3]\n"
		"[002]\t    0.000001: selftest id=9\n"
		"[002]\t    0.000001: UNKNOWN id=0\n",
	},
	/* Good, then broken. */
	{
		"00000000 14000000 0300000000000000 0100000000000000"
		"00000000 15000000 0300000000000000 0100000000000000",
		999,
		"[002]\t    0.000000: selftest id=1\n"
		"BROKEN AT 24\n",
	},
	{ "", 5, "" },
	{ "1e000000 01000000 1e000000 01000000", 5, "" },
};

static void test_golden_pages(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(golden); i++) {
		struct buffer_data_page *page = hex_page(golden[i].data, golden[i].time_stamp);
		char text[2048];

		/* The second page has type_len 4 in its short event: 16 bytes of payload. */
		page_text(page, text);
		assert_string_equal(text, golden[i].text);
		free(page);
	}
}

/* The first golden page is what the writer writes, byte for byte. */
static void test_golden_page_written(void **state)
{
	u8 bytes[HEX_MAX];
	u32 length = hex_bytes(bytes, golden[0].data);
	struct test_ring ring;

	(void)state;
	ring_setup(&ring, 3);
	ring_write(&ring, golden[0].time_stamp);
	ring_write(&ring, ring.now + 2000);
	ring.serial = UINT64_MAX - 1;
	ring_write(&ring, ring.now + (8ULL << 27));
	/* The test's serial is in the padding of the record too: golden bytes have 0 there. */
	for (u32 at = 12; at < length; at += at == 36 ? 32 : 24)
		memset(ring.bpages[1].page->data + at, 0, 4);
	assert_int_equal(ring_page(&ring, 1)->time_stamp, golden[0].time_stamp);
	assert_int_equal(ring_page(&ring, 1)->commit, length);
	assert_memory_equal(ring_page(&ring, 1)->data, bytes, length);
	ring_free(&ring);
}

/* --- anything at all ------------------------------------------------------------------------ */

/* Each step advances and stays inside, whatever the bytes are; ASan watches. */
static void walk_anything(const u8 *data, u32 commit)
{
	struct rb_record record = { 0 };
	u32 before = 0;

	while (rb_walk_next(data, commit, before, record.time_stamp, &record) == RB_WALK_EVENT) {
		assert_true(record.start >= before && record.next > record.start);
		assert_true(record.next <= commit && record.length >= 2);
		assert_true(record.payload >= data &&
			    record.payload + record.length == data + record.next);
		before = record.next;
	}
}

/* Small values are likely ones: type_len 0, 29, 30, 31, lengths that fit. */
static u8 likely_byte(u64 *seed)
{
	static const u8 likely[] = { 0, 0, 0, 0, 4, 6, 8, 12, 1, 29, 30, 31, 61, 62 };
	u64 random = next_random(seed) >> 16;

	return random & 1 ? likely[(random >> 1) % ARRAY_SIZE(likely)] : (u8)(random >> 8);
}

static void test_random_bytes(void **state)
{
	u64 seed = 0x5eed;

	(void)state;
	for (u32 round = 0; round < 20000; round++) {
		u32 commit = (u32)(next_random(&seed) % 200);
		u8 *data = malloc(commit + !commit);

		assert_non_null(data);
		for (u32 i = 0; i < commit; i++)
			data[i] = likely_byte(&seed);
		walk_anything(data, commit);
		free(data);
	}
}

/* A page of the writer with one byte changed, each byte in turn. */
static void test_one_byte_changed(void **state)
{
	static const u8 values[] = { 0, 1, 3, 29, 30, 31, 0x7f, 0x80, 0xff };
	struct test_ring ring;
	u32 commit;

	(void)state;
	ring_setup(&ring, 3);
	ring_fill(&ring, TEST_PAYLOAD, 5);
	commit = (u32)ring_page(&ring, 1)->commit;
	for (u32 at = 0; at < commit; at++) {
		for (u32 i = 0; i < ARRAY_SIZE(values); i++) {
			u8 *data = malloc(commit);

			assert_non_null(data);
			memcpy(data, ring_page(&ring, 1)->data, commit);
			data[at] = values[i];
			walk_anything(data, commit);
			free(data);
		}
	}
	ring_free(&ring);
}

/* --- counting ------------------------------------------------------------------------ */

static void test_plain_events_are_counted(void **state)
{
	/* what each thing that stops the count looks like */
	static const char *const ends[][2] = {
		{ "", "the end" },
		{ "7e000000", "a header without its array[0]" },
		{ "62000000 01000000 01000000", "short form" },
		{ "5e000000 01000000", "time extend" },
		{ "40000000 05000000 01000000", "no room for an id" },
		{ "40000000 10000000 01000000", "past the commit" },
		{ "40000000 0c000000 01000000 000000", "past it, as long as the one before" },
		{ "40000000 ffffffff 01000000", "far past it" },
	};
	static const char shorter[] = "60000000 08000000 01000000";
	static const char longer[] = "a0000000 0c000000 0200000003000000";
	/* how many of each come before it, in turns */
	static const u32 runs[][3] = { { 1, 1, 0 }, { 1, 3, 0 }, { 2, 1, 2 }, { 0, 9, 0 } };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(ends) * ARRAY_SIZE(runs); i++) {
		const char *const *end = ends[i / ARRAY_SIZE(runs)];
		const u32 *run = runs[i % ARRAY_SIZE(runs)];
		u32 nr_short = run[0] + run[2], nr_long = run[1];
		u32 offset = 0, nr, length = 0;
		struct buffer_data_page *page;
		u64 time = 1000;
		char text[1024];

		for (u32 j = 0; j < 3; j++) {
			for (u32 k = 0; k < run[j]; k++)
				length += (u32)snprintf(text + length, sizeof(text) - length, "%s ",
							j == 1 ? longer : shorter);
		}
		snprintf(text + length, sizeof(text) - length, "%s", end[0]);
		page = hex_page(text, 0);
		nr = rb_walk_plain(page->data, (u32)page->commit, &offset, &time);
		if (nr != nr_short + nr_long || offset != 12 * nr_short + 16 * nr_long ||
		    time != 1000 + 3 * nr_short + 5 * nr_long)
			fail_msg("%s: %u events up to %u, at %" PRIu64, end[1], nr, offset, time);
		free(page);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commit),
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_short_form),
		cmocka_unit_test(test_time_stamp_upper_bits),
		cmocka_unit_test(test_walk_from_offset),
		cmocka_unit_test(test_golden_pages),
		cmocka_unit_test(test_golden_page_written),
		cmocka_unit_test(test_random_bytes),
		cmocka_unit_test(test_one_byte_changed),
		cmocka_unit_test(test_plain_events_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
