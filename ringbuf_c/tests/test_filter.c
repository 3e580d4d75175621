// SPDX-License-Identifier: Apache-2.0
/* Filters: what is refused, what matches, and what a reader then shows, as text and images. */
#include "support.h"

#define ALL READER_ALL_CPUS
#define SERIAL offsetof(struct test_event, serial32)

static char text[1 << 22];

/* --- refused ------------------------------------------------------------------------------ */

static const struct filter_pred valid = {
	.op = FILTER_EQ, .size = 4, .offset = SERIAL, .value = 7,
	.if_true = FILTER_ACCEPT, .if_false = FILTER_REJECT,
};

static int check_of_two(struct filter_pred first)
{
	struct filter_pred preds[] = { first, valid };

	return filter_check(&(struct filter){ preds, ARRAY_SIZE(preds) });
}

#define REFUSED(member, bad)                                  \
	do {                                                  \
		struct filter_pred pred = valid;              \
                                                              \
		pred.member = (bad);                          \
		assert_int_equal(check_of_two(pred), -EINVAL); \
	} while (0)

static void test_refused(void **state)
{
	static struct filter_pred many[FILTER_PREDS_MAX + 1];

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = valid;
	assert_int_equal(check_of_two(valid), 0);
	assert_int_equal(filter_check(&(struct filter){ many, FILTER_PREDS_MAX }), 0);
	assert_int_equal(filter_check(&(struct filter){ many, FILTER_PREDS_MAX + 1 }), -EINVAL);
	assert_int_equal(filter_check(&(struct filter){ many, 0 }), -EINVAL);
	assert_int_equal(filter_check(&(struct filter){ NULL, 1 }), -EINVAL);
	REFUSED(op, NR_FILTER_OPS);
	REFUSED(source, NR_FILTER_SOURCES);
	REFUSED(size, 0);
	REFUSED(size, 3);
	REFUSED(size, 16);
	REFUSED(offset, RB_MAX_PAYLOAD - 3);
	REFUSED(offset, UINT32_MAX);
	REFUSED(offset, UINT32_MAX - 3);
	REFUSED(if_true, 0); /* itself */
	REFUSED(if_false, 0);
	REFUSED(if_true, 2); /* behind the last one */
	REFUSED(if_false, FILTER_REJECT - 1);
}

static void test_accepted_edges(void **state)
{
	struct filter_pred pred = valid;

	(void)state;
	pred.offset = RB_MAX_PAYLOAD - 4;
	pred.if_true = 1;
	assert_int_equal(check_of_two(pred), 0);
	/* a CPU has no size and no place */
	pred.source = FILTER_CPU;
	pred.size = 0;
	pred.offset = UINT32_MAX;
	assert_int_equal(check_of_two(pred), 0);
	/* and the branches of the last one are looked at, too */
	pred = valid;
	pred.if_false = 1;
	assert_int_equal(filter_check(&(struct filter){ (struct filter_pred[]){ valid, pred }, 2 }),
			 -EINVAL);
}

/* --- matched ------------------------------------------------------------------------------ */

static bool compare(u8 op, u8 size, bool is_signed, u64 value, u64 with)
{
	struct filter_pred pred = valid;
	u8 payload[11];
	struct filter filter = { &pred, 1 };

	pred.op = op;
	pred.size = size;
	pred.is_signed = is_signed;
	pred.offset = 3; /* of any alignment */
	pred.value = with;
	memset(payload, 0xa5, sizeof(payload));
	memcpy(payload + 3, &value, sizeof(value));
	assert_int_equal(filter_check(&filter), 0);
	return filter_match(&filter, payload, 3U + size, 0);
}

static u64 widened(u64 value, u32 size, bool is_signed)
{
	u64 mask = size == 8 ? UINT64_MAX : (1ULL << 8 * size) - 1;

	value &= mask;
	return is_signed && value >> (8 * size - 1) ? value | ~mask : value;
}

static void expect_all_ops(u32 size, bool is_signed, u64 value, u64 with)
{
	u64 a = widened(value, size, is_signed), b = widened(with, size, is_signed);
	bool less = is_signed ? (s64)a < (s64)b : a < b;
	const bool expected[NR_FILTER_OPS] = {
		[FILTER_EQ] = a == b, [FILTER_NE] = a != b,
		[FILTER_LT] = less, [FILTER_LE] = less || a == b,
		[FILTER_GT] = !less && a != b, [FILTER_GE] = !less,
		[FILTER_AND] = (a & b) != 0,
	};

	for (u8 op = 0; op < NR_FILTER_OPS; op++)
		assert_int_equal(compare(op, (u8)size, is_signed, value, b), expected[op]);
}

static void test_operators(void **state)
{
	static const u64 values[] = { 0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff,
				      0x7fffffff, 0x80000000, 0xffffffff, 1ULL << 32,
				      INT64_MAX, 1ULL << 63, UINT64_MAX };

	(void)state;
	for (u32 size = 1; size <= 8; size *= 2)
		for (u32 i = 0; i < ARRAY_SIZE(values); i++)
			for (u32 j = 0; j < ARRAY_SIZE(values); j++) {
				expect_all_ops(size, false, values[i], values[j]);
				expect_all_ops(size, true, values[i], values[j]);
			}
}

/* Of a record that ends within the field, or before it, nothing is true; nor is it read. */
static void test_short_record(void **state)
{
	(void)state;
	for (u8 op = 0; op < NR_FILTER_OPS; op++) {
		struct filter_pred pred = valid;
		struct filter filter = { &pred, 1 };

		pred.op = op;
		for (u32 length = 2; length < SERIAL + 4; length++) {
			u8 *exact = malloc(length); /* ASan sees the byte after the last */

			assert_non_null(exact);
			memset(exact, 0, length);
			assert_false(filter_match(&filter, exact, length, 0));
			free(exact);
		}
	}
}

static void test_cpu_and_branches(void **state)
{
	/* (CPU == 1 && serial < 10) || serial & 0x80 */
	const struct filter_pred preds[] = {
		{ .source = FILTER_CPU, .op = FILTER_EQ, .value = 1, .if_true = 1, .if_false = 2 },
		{ .op = FILTER_LT, .size = 4, .offset = SERIAL, .value = 10,
		  .if_true = FILTER_ACCEPT, .if_false = 2 },
		{ .op = FILTER_AND, .size = 4, .offset = SERIAL, .value = 0x80,
		  .if_true = FILTER_ACCEPT, .if_false = FILTER_REJECT },
	};
	const struct filter filter = { preds, ARRAY_SIZE(preds) }, none = { 0 };

	(void)state;
	assert_int_equal(filter_check(&filter), 0);
	for (u32 serial = 0; serial < 300; serial++) {
		struct test_event event = { .serial32 = serial };

		for (u32 cpu = 0; cpu < 3; cpu++) {
			assert_int_equal(filter_match(&filter, (u8 *)&event, sizeof(event), cpu),
					 (cpu == 1 && serial < 10) || serial & 0x80);
			assert_true(filter_match(&none, (u8 *)&event, sizeof(event), cpu));
		}
	}
}

/* --- shown ---------------------------------------------------------------------------------- */

/* One predicate about the serial of all events. */
struct set_filter {
	struct filter_pred pred;
	struct filter filters[TEST_EVENT_ID + 1];
};

static void set_filter(struct test_remote *remote, struct set_filter *set, u8 op, u64 value)
{
	*set = (struct set_filter){ .pred = valid };
	set->pred.op = op;
	set->pred.value = value;
	set->filters[TEST_EVENT_ID] = (struct filter){ &set->pred, 1 };
	assert_int_equal(filter_check(&set->filters[TEST_EVENT_ID]), 0);
	reader_set_filters(&remote->reader,
			   (struct filter_table){ set->filters, ARRAY_SIZE(set->filters) });
}

static bool shown(const struct set_filter *set, u32 serial)
{
	struct test_event event = { .serial32 = serial };

	return filter_match(&set->filters[TEST_EVENT_ID], (u8 *)&event, sizeof(event), 0);
}

static void expect_law(struct test_remote *remote, u32 cpu)
{
	struct reader_stats stats;

	reader_poll(&remote->reader);
	stats = remote_stats(remote, cpu);
	assert_int_equal(stats.entries, remote->rings[cpu].serial);
	assert_int_equal(stats.entries, stats.read + stats.overrun + stats.unread);
	assert_true(stats.filtered <= stats.read);
}

static const char *drain(struct test_remote *remote, u32 cpu, u32 size)
{
	u32 done = 0, length;

	do {
		assert_true(done + size < sizeof(text));
		length = remote_text(remote, cpu, text + done, size);
		done += length;
	} while (length || reader_unfinished(&remote->reader));
	text[done] = 0;
	return text;
}

/* The lines that there are, less those of events that do not match. */
static void drop_lines(const struct set_filter *set, char *lines)
{
	char *to = lines, *next;

	for (char *line = lines; *line; line = next) {
		const char *id = strstr(line, "id=");

		next = strchr(line, '\n') + 1;
		if (!id || id > next || shown(set, (u32)atoi(id + 3))) {
			memmove(to, line, (size_t)(next - line));
			to += next - line;
		}
	}
	*to = 0;
}

/* Two remotes, written alike: one shows all, the other what matches. */
static void expect_same_text(u64 seed, u8 op, u64 value, u32 size)
{
	struct test_remote *all = remote_create(3, 4), *some = remote_create(3, 4);
	struct set_filter set;
	static char expected[1 << 20];

	set_filter(some, &set, op, value);
	for (u32 round = 0; round < 6; round++) {
		u32 nr = (u32)(next_random(&seed) % 400);

		for (u32 i = 0; i < nr; i++) {
			u32 cpu = (u32)(next_random(&seed) % 3);
			u64 now = all->rings[cpu].now + next_random(&seed) % 3000;

			remote_write(all, cpu, now);
			remote_write(some, cpu, now);
		}
		strcpy(expected, drain(all, ALL, size));
		drop_lines(&set, expected);
		assert_string_equal(drain(some, ALL, size), expected);
		for (u32 cpu = 0; cpu < 3; cpu++) {
			expect_law(some, cpu);
			assert_int_equal(remote_stats(some, cpu).unread, 0);
		}
	}
	assert_true(remote_stats(some, 0).filtered + remote_stats(some, 1).filtered);
	remote_destroy(all);
	remote_destroy(some);
}

static void test_text(void **state)
{
	static const u32 sizes[] = { 1, 37, 300, 5000, 100000 };

	(void)state;
	for (u64 seed = 1; seed <= 10; seed++)
		for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
			expect_same_text(seed, FILTER_AND, 1, sizes[i]);
			expect_same_text(seed, FILTER_AND, 0x40, sizes[i]);
			expect_same_text(seed, FILTER_NE, 5, sizes[i]);
			expect_same_text(seed, FILTER_GT, 1000000, sizes[i]);
		}
}

/* A loss is said before the next line, whatever has been passed over in between. */
static void test_lost_line(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	struct set_filter set;

	(void)state;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, 816); /* SPEC H.3, first row */
	set_filter(remote, &set, FILTER_EQ, 600);
	assert_string_equal(drain(remote, 0, 5000), "CPU:0 [LOST 510 EVENTS]\n"
						    "[000]\t    0.000600: selftest id=600\n");
	assert_int_equal(remote_stats(remote, 0).filtered, 816 - 510 - 1);
	expect_law(remote, 0);
	remote_destroy(remote);
}

/* What has been found, and did not fit, is looked at again when the filter changes. */
static void test_change(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	struct set_filter set;
	char line[40];

	(void)state;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, 4);
	assert_int_equal(remote_text(remote, 0, line, sizeof(line)), 34);
	set_filter(remote, &set, FILTER_EQ, 3);
	assert_string_equal(drain(remote, 0, 1000), "[000]\t    0.000003: selftest id=3\n");
	set_filter(remote, &set, FILTER_EQ, 9);
	ring_fill(&remote->rings[0], TEST_PAYLOAD, 1);
	reader_set_filters(&remote->reader, (struct filter_table){ 0 });
	assert_string_equal(drain(remote, 0, 1000), "[000]\t    0.000005: selftest id=5\n");
	remote_destroy(remote);
}

/* So many do not match that a call ends before it has found one that does. */
static void test_unfinished(void **state)
{
	struct test_remote *remote = remote_create(2, 700);
	u32 nr = READER_MAX_PASSED_OVER + 1000;
	struct set_filter set;
	char line[200];

	(void)state;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, nr);
	remote_write(remote, 1, (u64)(nr + 1) * 1000);
	remote->rings[1].serial = 1;
	set_filter(remote, &set, FILTER_GE, nr);
	set.pred.value = nr;
	/* CPU 1 has serial 1 only, which does not match; nor may it come before that of CPU 0 */
	assert_int_equal(remote_text(remote, ALL, line, sizeof(line)), 0);
	assert_true(reader_unfinished(&remote->reader));
	assert_int_equal(remote_stats(remote, 0).filtered, READER_MAX_PASSED_OVER);
	expect_law(remote, 0);
	assert_int_equal(remote_raw(remote, ALL, (u8 *)text, RB_PAGE_SIZE), RB_PAGE_SIZE);
	assert_false(reader_unfinished(&remote->reader));
	assert_int_equal(remote_stats(remote, 0).filtered, nr - 1);
	expect_law(remote, 0);
	remote_destroy(remote);
}

/* The other CPU has something; but what CPU 0 has behind the many is older. */
static void test_unfinished_is_in_order(void **state)
{
	struct test_remote *remote = remote_create(2, 1200);
	u32 nr = READER_MAX_PASSED_OVER * 2;
	struct set_filter set;
	char line[200];

	(void)state;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, nr);
	remote->rings[1].serial = nr; /* its event matches */
	remote_write(remote, 1, (u64)(nr + 1) * 1000);
	set_filter(remote, &set, FILTER_GE, nr);
	assert_int_equal(remote_text(remote, ALL, line, sizeof(line)), 0);
	assert_true(reader_unfinished(&remote->reader));
	assert_true(reader_ready(&remote->reader, ALL));
	assert_string_equal(drain(remote, ALL, 1000), "[000]\t    0.131072: selftest id=131072\n"
						      "[001]\t    0.131073: selftest id=131073\n");
	assert_false(reader_ready(&remote->reader, ALL));
	remote_destroy(remote);
}

/* The same where CPU 0 has had a turn before. */
static void test_unfinished_in_a_turn(void **state)
{
	struct test_remote *remote = remote_create(2, 1200);
	u32 nr = READER_MAX_PASSED_OVER * 2;
	struct set_filter set;
	char line[200];

	(void)state;
	remote->rings[0].serial = nr;
	remote_write(remote, 0, 1000);
	remote->rings[0].serial = 0;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, nr);
	remote->rings[1].serial = nr;
	remote_write(remote, 1, (u64)(nr + 2) * 1000);
	set_filter(remote, &set, FILTER_GE, nr);
	line[remote_text(remote, ALL, line, sizeof(line))] = 0;
	assert_string_equal(line, "[000]\t    0.000001: selftest id=131073\n");
	assert_true(reader_unfinished(&remote->reader));
	assert_string_equal(drain(remote, ALL, 1000), "[000]\t    0.131073: selftest id=131072\n"
						      "[001]\t    0.131074: selftest id=131073\n");
	remote_destroy(remote);
}

/* Unread, and nothing to read: a waiting reader is not told. */
static void test_ready(void **state)
{
	struct test_remote *remote = remote_create(2, 3);
	struct set_filter set;

	(void)state;
	set_filter(remote, &set, FILTER_EQ, 4);
	ring_fill(&remote->rings[1], TEST_PAYLOAD, 3);
	assert_false(reader_ready(&remote->reader, ALL));
	assert_int_equal(remote_stats(remote, 1).filtered, 3);
	ring_fill(&remote->rings[1], TEST_PAYLOAD, 1);
	assert_true(reader_ready(&remote->reader, ALL));
	assert_false(reader_ready(&remote->reader, 0));
	assert_true(reader_ready(&remote->reader, 1));
	assert_string_equal(drain(remote, ALL, 100), "[001]\t    0.000004: selftest id=4\n");
	remote_destroy(remote);
}

/* --- images ----------------------------------------------------------------------------------- */

struct image {
	u64 time_stamp;
	u64 commit;
	u8 data[RB_PAGE_CAPACITY];
};

#define IMAGE_FLAGS ((u64)RB_MISSED_EVENTS | RB_MISSED_STORED)
#define MAX_EVENTS 4000U

struct seen {
	u32 nr;
	u32 serials[MAX_EVENTS];
	u64 times[MAX_EVENTS];
};

static void see_image(struct seen *seen, const struct image *image)
{
	struct rb_record record = { .time_stamp = image->time_stamp };
	u32 length = (u32)(image->commit & ~IMAGE_FLAGS);
	u32 header, first = seen->nr;

	assert_true(length && length <= RB_PAGE_CAPACITY);
	memcpy(&header, image->data, sizeof(header));
	assert_true((header & RB_TYPE_LEN_MASK) < RB_TYPE_PADDING); /* as kbuffer wants it */
	assert_int_equal(header >> RB_TYPE_LEN_BITS, 0);
	for (u32 i = length + (image->commit & RB_MISSED_STORED ? 8 : 0); i < RB_PAGE_CAPACITY; i++)
		assert_int_equal(image->data[i], 0);
	while (rb_walk_next(image->data, length, record.next, record.time_stamp, &record) ==
	       RB_WALK_EVENT) {
		assert_true(seen->nr < MAX_EVENTS);
		memcpy(&seen->serials[seen->nr], record.payload + SERIAL, sizeof(u32));
		seen->times[seen->nr++] = record.time_stamp;
	}
	assert_int_equal(record.next, length); /* whole events, and nothing else */
	assert_true(seen->nr > first);
	assert_int_equal(seen->times[first], image->time_stamp);
}

static void see_images(struct seen *seen, struct test_remote *remote, u32 size)
{
	static u8 pages[RB_PAGE_SIZE * 4];
	u32 length, done = 0;

	seen->nr = 0;
	while ((length = remote_raw(remote, 0, pages + done, size)) ||
	       reader_unfinished(&remote->reader)) {
		done += length;
		if (done < RB_PAGE_SIZE)
			continue;
		for (u32 at = 0; at < done; at += RB_PAGE_SIZE)
			see_image(seen, (const struct image *)(pages + at));
		done = 0;
	}
}

static u64 random_delta(u64 *seed)
{
	static const u64 deltas[] = { 0, 1, 1000, (1U << 27) - 1, 1U << 27, 1ULL << 30, 1ULL << 40 };
	u64 random = next_random(seed);

	return random % 7 ? random >> 8 & 0xffff : deltas[(random >> 8) % ARRAY_SIZE(deltas)];
}

/* Two remotes, written alike, with pauses of all lengths and events of all sizes. */
static void expect_same_images(u64 seed, u8 op, u64 value, u32 size)
{
	static struct seen all_seen, some_seen;
	struct test_remote *all = remote_create(1, 6), *some = remote_create(1, 6);
	struct set_filter set;

	set_filter(some, &set, op, value);
	for (u32 round = 0; round < 5; round++) {
		u32 nr = (u32)(next_random(&seed) % 500), kept = 0;

		for (u32 i = 0; i < nr; i++) {
			u32 length = 8 + (u32)(next_random(&seed) % 60);
			u64 now = all->rings[0].now + random_delta(&seed);

			assert_true(ring_write_sized(&all->rings[0], length, now));
			assert_true(ring_write_sized(&some->rings[0], length, now));
		}
		see_images(&all_seen, all, RB_PAGE_SIZE);
		see_images(&some_seen, some, size);
		for (u32 i = 0; i < all_seen.nr; i++) {
			if (!shown(&set, all_seen.serials[i]))
				continue;
			assert_true(kept < some_seen.nr);
			assert_int_equal(some_seen.serials[kept], all_seen.serials[i]);
			assert_int_equal(some_seen.times[kept], all_seen.times[i]);
			kept++;
		}
		assert_int_equal(kept, some_seen.nr);
		expect_law(some, 0);
		assert_int_equal(remote_stats(some, 0).read, remote_stats(all, 0).read);
		assert_int_equal(remote_stats(some, 0).unread, 0);
	}
	remote_destroy(all);
	remote_destroy(some);
}

static void test_images(void **state)
{
	static const u32 sizes[] = { 1024, RB_PAGE_SIZE, 3 * RB_PAGE_SIZE };

	(void)state;
	for (u64 seed = 1; seed <= 30; seed++)
		for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
			expect_same_images(seed, FILTER_AND, 1, sizes[i]);
			expect_same_images(seed, FILTER_AND, 0x30, sizes[i]);
			expect_same_images(seed, FILTER_NE, 5, sizes[i]);
			expect_same_images(seed, FILTER_LT, 20, sizes[i]);
		}
}

/* What 59 bits cannot say begins an image of its own. */
static void test_image_of_a_time_that_falls(void **state)
{
	static struct seen seen;
	struct test_remote *remote = remote_create(1, 3);
	struct test_ring *ring = &remote->rings[0];
	struct set_filter set;
	u8 *data = ring->pages + RB_PAGE_SIZE + RB_PAGE_HEADER;
	u32 extend[2];

	(void)state;
	ring_write(ring, 1ULL << 40);
	ring_write(ring, (1ULL << 40) + 1);
	ring_write(ring, 1ULL << 41); /* behind a time extend of 8 bytes, */
	ring_write(ring, (1ULL << 41) + 1);
	/* which becomes an absolute time, an earlier one */
	memcpy(extend, data + 2 * TEST_EVENT_SIZE, sizeof(extend));
	assert_int_equal(extend[0] & RB_TYPE_LEN_MASK, RB_TYPE_TIME_EXTEND);
	extend[0] = RB_TYPE_TIME_STAMP | 5 << RB_TYPE_LEN_BITS;
	extend[1] = 0;
	memcpy(data + 2 * TEST_EVENT_SIZE, extend, sizeof(extend));
	set_filter(remote, &set, FILTER_NE, 2);
	see_images(&seen, remote, RB_PAGE_SIZE);
	assert_int_equal(seen.nr, 3);
	assert_int_equal(seen.times[0], 1ULL << 40);
	assert_int_equal(seen.times[1], 5);
	assert_int_equal(seen.times[2], 6);
	expect_law(remote, 0);
	remote_destroy(remote);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_accepted_edges),
		cmocka_unit_test(test_operators),
		cmocka_unit_test(test_short_record),
		cmocka_unit_test(test_cpu_and_branches),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_lost_line),
		cmocka_unit_test(test_change),
		cmocka_unit_test(test_unfinished),
		cmocka_unit_test(test_unfinished_is_in_order),
		cmocka_unit_test(test_unfinished_in_a_turn),
		cmocka_unit_test(test_ready),
		cmocka_unit_test(test_images),
		cmocka_unit_test(test_image_of_a_time_that_falls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
