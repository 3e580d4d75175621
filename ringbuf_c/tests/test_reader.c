// SPDX-License-Identifier: Apache-2.0
/* The host's reader: merge, lost events, carry, page images, broken and hostile pages. */
#include "support.h"

#define ALL READER_ALL_CPUS
#define TEXT_MAX (1U << 20)
#define PER_PAGE (RB_PAGE_CAPACITY / TEST_EVENT_SIZE) /* 170 */

static char text[TEXT_MAX];
static char other_text[TEXT_MAX];

/* --- helpers ------------------------------------------------------------------------------ */

/* What one read of @size bytes gives, as a string. */
static const char *read_text(struct test_remote *remote, u32 cpu, u32 size)
{
	char *exact = malloc(size + !size); /* ASan sees the byte after the last */
	u32 length;

	assert_non_null(exact);
	length = remote_text(remote, cpu, exact, size);
	assert_true(length <= size);
	memcpy(text, exact, length);
	text[length] = 0;
	free(exact);
	return text;
}

/* All that there is, read @size bytes at a time. */
static const char *drain_text(struct test_remote *remote, u32 cpu, u32 size, char *out)
{
	u32 done = 0, length;

	do {
		assert_true(done + size < TEXT_MAX);
		length = remote_text(remote, cpu, out + done, size);
		done += length;
	} while (length);
	out[done] = 0;
	return out;
}

static char *put_event_line(char *out, u32 cpu, u64 ns, u64 serial)
{
	return out + sprintf(out, "[%03u]\t%5llu.%06llu: selftest id=%llu\n", cpu,
			     (unsigned long long)(ns / 1000000000),
			     (unsigned long long)(ns / 1000 % 1000000), (unsigned long long)serial);
}

/* Lines of events a microsecond apart, as ring_fill() writes them from 0 on. */
static char *put_event_lines(char *out, u32 cpu, u64 first, u64 last)
{
	for (u64 serial = first; serial <= last; serial++)
		out = put_event_line(out, cpu, serial * 1000, serial);
	*out = 0;
	return out;
}

static void expect_law(struct test_remote *remote, u32 cpu)
{
	struct reader_stats stats;

	reader_poll(&remote->reader);
	stats = remote_stats(remote, cpu);
	assert_int_equal(stats.entries, remote->rings[cpu].serial);
	assert_int_equal(stats.entries, stats.read + stats.overrun + stats.unread);
	assert_true(stats.lost <= stats.overrun);
	assert_int_equal(reader_unread(&remote->reader, cpu), stats.unread);
}

/* --- merge ---------------------------------------------------------------------------------- */

static void test_nothing(void **state)
{
	struct test_remote *remote = remote_create(2, 3);
	u8 image[RB_PAGE_SIZE];

	(void)state;
	assert_false(reader_poll(&remote->reader));
	assert_int_equal(reader_unread(&remote->reader, ALL), 0);
	assert_string_equal(read_text(remote, ALL, 1000), "");
	assert_int_equal(remote_raw(remote, ALL, image, sizeof(image)), 0);
	assert_int_equal(remote->swaps, 0); /* it does not ask while nothing is unread */
	remote_destroy(remote);
}

static void test_merge(void **state)
{
	static const struct {
		u32 cpu;
		u64 ns;
	} events[] = { { 0, 1000 }, { 0, 5000 }, { 0, 9000 }, { 1, 500 },  { 1, 5000 },
		       { 1, 5000 }, { 1, 9001 }, { 2, 4000 }, { 2, 5000 }, { 2, 8000 } };
	struct test_remote *remote = remote_create(3, 3);

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(events); i++)
		remote_write(remote, events[i].cpu, events[i].ns);
	assert_true(reader_poll(&remote->reader));
	assert_int_equal(reader_unread(&remote->reader, ALL), 10);
	assert_int_equal(reader_unread(&remote->reader, 1), 4);
	assert_string_equal(read_text(remote, ALL, 10000),
			    "[001]\t    0.000000: selftest id=1\n"
			    "[000]\t    0.000001: selftest id=1\n"
			    "[002]\t    0.000004: selftest id=1\n"
			    "[000]\t    0.000005: selftest id=2\n" /* ties: lowest CPU */
			    "[001]\t    0.000005: selftest id=2\n"
			    "[001]\t    0.000005: selftest id=3\n"
			    "[002]\t    0.000005: selftest id=2\n"
			    "[002]\t    0.000008: selftest id=3\n"
			    "[000]\t    0.000009: selftest id=3\n"
			    "[001]\t    0.000009: selftest id=4\n");
	assert_int_equal(reader_unread(&remote->reader, ALL), 0);
	remote_destroy(remote);
}

/* Eight CPUs over several pages: times never fall, ties rise by CPU. */
static void test_merge_many(void **state)
{
	struct test_remote *remote = remote_create(8, 9);
	u64 seed = 42, before = 0;
	u32 lines = 0;
	char *line;

	(void)state;
	for (u32 i = 0; i < 4000; i++) {
		struct test_ring *ring = &remote->rings[next_random(&seed) % 8];

		ring_write(ring, ring->now + next_random(&seed) % 4 * 1000);
	}
	drain_text(remote, ALL, 8192, text);
	for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
		unsigned long long cpu, sec, usec;

		assert_int_equal(sscanf(line, "[%llu]\t%llu.%llu:", &cpu, &sec, &usec), 3);
		assert_true(((sec * 1000000 + usec) << 3 | cpu) >= before);
		before = (sec * 1000000 + usec) << 3 | cpu;
	}
	assert_int_equal(lines, 4000);
	remote_destroy(remote);
}

static void test_one_cpu_and_absent_cpu(void **state)
{
	struct test_remote *remote = remote_create(3, 3);

	(void)state;
	remote->cpus[1].meta = NULL; /* not in the buffer */
	remote_write(remote, 0, 1000);
	remote_write(remote, 1, 1000);
	remote_write(remote, 2, 500);
	assert_true(reader_poll(&remote->reader));
	assert_int_equal(reader_unread(&remote->reader, ALL), 2);
	assert_int_equal(reader_unread(&remote->reader, 1), 0);
	assert_string_equal(read_text(remote, 1, 1000), "");
	assert_string_equal(read_text(remote, 0, 1000), "[000]\t    0.000001: selftest id=1\n");
	assert_string_equal(read_text(remote, ALL, 1000), "[002]\t    0.000000: selftest id=1\n");
	assert_int_equal(remote_stats(remote, 0).entries, 1);
	assert_int_equal(remote_stats(remote, 1).entries, 0);
	remote_destroy(remote);
}

/* A producer whose meta page ends where SPEC A.1 says does not count dropped events. */
static void test_dropped(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	struct test_ring *ring = &remote->rings[0];

	(void)state;
	assert_null(ring_reserve(ring, RB_MAX_PAYLOAD + 1, 1));
	assert_int_equal(remote_stats(remote, 0).dropped, 1);
	ring->meta->meta_struct_len = 80;
	assert_int_equal(remote_stats(remote, 0).dropped, 0);
	remote_destroy(remote);
}

/* What a hypervisor says that it lost is believed up to what it says that it wrote. */
static void test_lost_more_than_written(void **state)
{
	static const u64 lies[] = { 1000, 1ULL << 63, UINT64_MAX };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(lies); i++) {
		struct test_remote *remote = remote_create(1, 3);

		ring_fill(&remote->rings[0], TEST_PAYLOAD, 10);
		remote->rings[0].rb.last_overrun -= lies[i];
		/* 10 written: all 10 may be lost, and then the batch is over. */
		read_text(remote, 0, 1000);
		assert_true(remote_stats(remote, 0).lost <= 10);
		remote_destroy(remote);
	}
}

/* An answer that is neither 0 nor an errno. */
static void test_swap_answers(void **state)
{
	static const struct {
		u64 x0, x1;
		int result;
	} cases[] = {
		{ 0, 0, 0 },
		{ 0, (u64)-EBUSY, -EBUSY },
		{ 0, (u64)-4095, -4095 },
		{ 0, (u64)-4096, -EPROTO },
		{ 0, 1, -EPROTO },
		{ 0, 1ULL << 32, -EPROTO },
		{ 0, 1ULL << 63, -EPROTO },
		{ HVC_NOT_SUPPORTED, 0, -EOPNOTSUPP },
	};

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct hvc_regs regs = { .x0 = cases[i].x0, .x1 = cases[i].x1 };

		assert_int_equal(hvc_result(&regs), cases[i].result);
	}
}

/* --- lost events ------------------------------------------------------------------------------ */

static void test_lost_line(void **state)
{
	struct test_remote *remote = remote_create(2, 3);
	char *end = other_text;

	(void)state;
	ring_fill(&remote->rings[1], TEST_PAYLOAD, 816); /* SPEC H.3, first row */
	end += sprintf(end, "CPU:1 [LOST 510 EVENTS]\n");
	put_event_lines(end, 1, 511, 816);
	assert_string_equal(drain_text(remote, ALL, 5000, text), other_text);
	expect_law(remote, 1);

	/* Told once; later losses are told as what they are. */
	ring_fill(&remote->rings[1], TEST_PAYLOAD, 1);
	put_event_lines(other_text, 1, 817, 817);
	assert_string_equal(drain_text(remote, 1, 5000, text), other_text);
	assert_int_equal(remote_stats(remote, 1).lost, 510);
	remote_destroy(remote);
}

static void test_lost_line_before_its_page(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	struct test_ring *ring = &remote->rings[0];
	char *end = other_text;

	(void)state;
	ring_fill(ring, TEST_PAYLOAD, 3);
	read_text(remote, 0, 40); /* one line: our page has more, and takes more */
	ring_fill(ring, TEST_PAYLOAD, 4 * PER_PAGE - 3);
	/* Page 1: 1 to 170, ours. Then 171 to 340 were lost, 341 to 680 are in the ring. */
	end = put_event_lines(end, 0, 2, PER_PAGE);
	end += sprintf(end, "CPU:0 [LOST %u EVENTS]\n", PER_PAGE);
	put_event_lines(end, 0, 2 * PER_PAGE + 1, 4 * PER_PAGE);
	assert_string_equal(drain_text(remote, 0, 3000, text), other_text);
	remote_destroy(remote);
}

/* --- carry --------------------------------------------------------------------------------------- */

static struct test_remote *lossy_remote(void)
{
	struct test_remote *remote = remote_create(3, 3);

	ring_fill(&remote->rings[0], TEST_PAYLOAD, 50);
	ring_fill(&remote->rings[1], TEST_PAYLOAD, 600);
	ring_fill(&remote->rings[2], TEST_PAYLOAD, 300);
	return remote;
}

static void test_any_size_gives_the_same_text(void **state)
{
	static const u32 sizes[] = { 1, 2, 7, 33, 34, 35, 36, 68, 200, 4095, 4096, 65536 };
	struct test_remote *remote = lossy_remote();

	(void)state;
	drain_text(remote, ALL, 1 << 17, other_text);
	assert_int_equal(strncmp(other_text, "[000]\t", 6), 0);
	assert_non_null(strstr(other_text, "CPU:1 [LOST 340 EVENTS]\n[001]\t    0.000341:"));
	remote_destroy(remote);
	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		remote = lossy_remote();
		assert_string_equal(drain_text(remote, ALL, sizes[i], text), other_text);
		remote_destroy(remote);
	}
}

#define LINE_1 "[000]\t    0.000001: selftest id=1\n" /* 34 characters */
#define LINE_2 "[000]\t    0.000002: selftest id=2\n"

static void test_carry_edges(void **state)
{
	static const struct {
		u32 size;
		const char *text;
		u64 read; /* events consumed by the first read */
	} cases[] = {
		{ 0, "", 0 },
		{ 1, "[", 1 },
		{ 33, "[000]\t    0.000001: selftest id=1", 1 },
		{ 34, LINE_1, 1 },
		{ 35, LINE_1, 1 }, /* the second line does not fit: it stays unread */
		{ 67, LINE_1, 1 },
		{ 68, LINE_1 LINE_2, 2 },
		{ 1000, LINE_1 LINE_2, 2 },
	};

	(void)state;
	assert_int_equal(strlen(LINE_1), 34);
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct test_remote *remote = remote_create(1, 3);
		u32 length = (u32)strlen(cases[i].text);

		ring_fill(&remote->rings[0], TEST_PAYLOAD, 2);
		assert_string_equal(read_text(remote, 0, cases[i].size), cases[i].text);
		assert_int_equal(remote_stats(remote, 0).read, cases[i].read);
		/* The rest comes, whoever asked for less. */
		assert_string_equal(drain_text(remote, 0, 1000, text), LINE_1 LINE_2 + length);
		remote_destroy(remote);
	}
}

/* --- page images ------------------------------------------------------------------------------------ */

struct image {
	u64 time_stamp;
	u64 commit;
	u8 data[RB_PAGE_CAPACITY];
};

_Static_assert(sizeof(struct image) == RB_PAGE_SIZE, "an image is a page");

#define IMAGE_FLAGS ((u64)RB_MISSED_EVENTS | RB_MISSED_STORED)

static struct image read_image(struct test_remote *remote, u32 cpu)
{
	struct image image;

	assert_int_equal(remote_raw(remote, cpu, (u8 *)&image, sizeof(image)), sizeof(image));
	return image;
}

static u32 image_length(const struct image *image)
{
	return (u32)(image->commit & ~IMAGE_FLAGS);
}

/* Bytes behind the data and the stored count are zero; the first delta is. */
static void check_image(const struct image *image)
{
	u32 end = image_length(image);
	u32 header;

	assert_true(end > 0 && end <= RB_PAGE_CAPACITY);
	if (image->commit & RB_MISSED_STORED) {
		assert_true(image->commit & RB_MISSED_EVENTS);
		end += 8;
	}
	for (u32 i = end; i < RB_PAGE_CAPACITY; i++)
		assert_int_equal(image->data[i], 0);
	memcpy(&header, image->data, sizeof(header));
	assert_true((header & RB_TYPE_LEN_MASK) < RB_TYPE_PADDING);
	assert_int_equal(header >> RB_TYPE_LEN_BITS, 0);
}

static u64 image_lost(const struct image *image)
{
	u64 lost = 0;

	if (image->commit & RB_MISSED_STORED)
		memcpy(&lost, image->data + image_length(image), sizeof(lost));
	return lost;
}

/* The image as the text that the same events give. */
static char *put_image_text(char *out, u32 cpu, const struct image *image)
{
	struct render_table table = { test_events, ARRAY_SIZE(test_events) };
	struct rb_record record = { .time_stamp = image->time_stamp };

	struct render_prefix prefix = { 0 };

	check_image(image);
	if (image->commit & RB_MISSED_STORED)
		out += render_lost(out, cpu, image_lost(image));
	else if (image->commit & RB_MISSED_EVENTS)
		out += sprintf(out, "CPU:%u [LOST SOME]\n", cpu);
	while (rb_walk_next(image->data, image_length(image), record.next, record.time_stamp,
			    &record) == RB_WALK_EVENT)
		out += render_line(out, &prefix, cpu, &record, render_find(&table, record.id));
	assert_int_equal(record.next, image_length(image)); /* whole events, and nothing else */
	*out = 0;
	return out;
}

static void test_image_of_a_full_page(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	struct image image;

	(void)state;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, PER_PAGE + 1);
	image = read_image(remote, 0);
	assert_int_equal(image.time_stamp, 1000);
	assert_int_equal(image.commit, 4080);
	assert_memory_equal(image.data, ring_page(&remote->rings[0], 1)->data, 4080);
	image = read_image(remote, 0);
	assert_int_equal(image.time_stamp, 1000 * (PER_PAGE + 1));
	assert_int_equal(image.commit, TEST_EVENT_SIZE);
	check_image(&image);
	assert_int_equal(remote_raw(remote, 0, (u8 *)&image, sizeof(image)), 0);
	expect_law(remote, 0);
	remote_destroy(remote);
}

/* The rest of a page whose first events went as text: its own time, delta 0. */
static void test_image_of_a_rest(void **state)
{
	static const u64 deltas[] = { 3000, 1ULL << 30 }; /* plain; by TIME_EXTEND */

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(deltas); i++) {
		struct test_remote *remote = remote_create(1, 3);
		struct image image;

		remote_write(remote, 0, 1000);
		remote_write(remote, 0, 1000 + deltas[i]);
		remote_write(remote, 0, 2000 + deltas[i]);
		assert_string_equal(read_text(remote, 0, 34), LINE_1);
		image = read_image(remote, 0);
		assert_int_equal(image.time_stamp, 1000 + deltas[i]);
		assert_int_equal(image.commit, 2 * TEST_EVENT_SIZE); /* no TIME_EXTEND before the first */
		put_image_text(text, 0, &image);
		put_event_line(put_event_line(other_text, 0, 1000 + deltas[i], 2), 0,
			       2000 + deltas[i], 3);
		assert_string_equal(text, other_text);
		remote_destroy(remote);
	}
}

static void test_more_on_the_same_page(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	struct image image;

	(void)state;
	for (u32 i = 1; i <= 9; i += 3) {
		ring_fill(&remote->rings[0], TEST_PAYLOAD, 1);
		put_event_lines(other_text, 0, i, i);
		assert_string_equal(read_text(remote, 0, 1000), other_text);
		expect_law(remote, 0);

		ring_fill(&remote->rings[0], TEST_PAYLOAD, 2);
		image = read_image(remote, 0);
		put_image_text(text, 0, &image);
		put_event_lines(other_text, 0, i + 1, i + 2);
		assert_string_equal(text, other_text);
		expect_law(remote, 0);
	}
	assert_int_equal(remote->rings[0].meta->reader.id, 1); /* all on the first page */
	remote_destroy(remote);
}

static void test_image_lost_flags(void **state)
{
	static const struct {
		u32 length, per_page;
		bool room; /* for the count, behind a full page */
	} cases[] = { { 16, 170, false }, { 24, 127, true } };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct test_remote *remote = remote_create(1, 3);
		struct image image;

		ring_fill(&remote->rings[0], cases[i].length, 4 * cases[i].per_page);
		image = read_image(remote, 0);
		assert_true(image.commit & RB_MISSED_EVENTS);
		assert_int_equal(!!(image.commit & RB_MISSED_STORED), cases[i].room);
		assert_int_equal(image_lost(&image), cases[i].room ? 2 * cases[i].per_page : 0);
		check_image(&image);
		image = read_image(remote, 0); /* told once */
		assert_int_equal(image.commit, cases[i].per_page * (8 + cases[i].length));
		remote_destroy(remote);
	}
}

static void test_n_pages_per_read(void **state)
{
	static const struct {
		u32 size, length; /* asked and given, of 3 pages and a bit */
	} cases[] = {
		{ RB_PAGE_SIZE, RB_PAGE_SIZE },
		{ 2 * RB_PAGE_SIZE - 1, RB_PAGE_SIZE },
		{ 2 * RB_PAGE_SIZE, 2 * RB_PAGE_SIZE },
		{ 3 * RB_PAGE_SIZE + 100, 3 * RB_PAGE_SIZE },
		{ 16 * RB_PAGE_SIZE, 4 * RB_PAGE_SIZE },
	};

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct test_remote *remote = remote_create(1, 9);
		u8 *images = malloc(cases[i].size);
		u32 length;

		assert_non_null(images);
		ring_fill(&remote->rings[0], TEST_PAYLOAD, 3 * PER_PAGE + 1);
		length = remote_raw(remote, 0, images, cases[i].size);
		assert_int_equal(length, cases[i].length);
		for (u32 nr = 0; nr < length / RB_PAGE_SIZE; nr++)
			assert_int_equal(((struct image *)images)[nr].time_stamp,
					 1000 * (nr * PER_PAGE + 1));
		free(images);
		remote_destroy(remote);
	}
}

/* Reads smaller than a page go on with the image; any size gives the same bytes. */
static void test_small_raw_reads(void **state)
{
	static const u32 sizes[] = { 1, 7, 1000, 4095, 4097, 10000 };
	static u8 whole[8 * RB_PAGE_SIZE], parts[8 * RB_PAGE_SIZE + 10000];

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct test_remote *remote = lossy_remote();
		u32 length = remote_raw(remote, ALL, whole, sizeof(whole));
		u32 done = 0, part;

		assert_int_equal(length, 5 * RB_PAGE_SIZE); /* 1 + 2 + 2 */
		remote_destroy(remote);
		remote = lossy_remote();
		while ((part = remote_raw(remote, ALL, parts + done, sizes[i]))) {
			assert_true(part <= sizes[i]);
			done += part;
		}
		assert_int_equal(done, length);
		assert_memory_equal(parts, whole, length);
		remote_destroy(remote);
	}
}

static void test_small_raw_read_holds_one_image(void **state)
{
	struct test_remote *remote = remote_create(1, 9);
	u8 bytes[1000];

	(void)state;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, 2 * PER_PAGE);
	for (u32 i = 0; i < 4; i++) {
		assert_int_equal(remote_raw(remote, 0, bytes, 1000), 1000);
		assert_int_equal(remote_stats(remote, 0).read, PER_PAGE);
	}
	assert_int_equal(remote_raw(remote, 0, bytes, 1000), 96); /* the image ends here */
	assert_int_equal(remote_stats(remote, 0).read, PER_PAGE);
	remote_destroy(remote);
}

static void test_empty_raw_read(void **state)
{
	struct test_remote *remote;
	struct image image;
	u8 none;

	(void)state;
	remote = remote_create(1, 9);
	ring_fill(&remote->rings[0], TEST_PAYLOAD, 2 * PER_PAGE);
	assert_int_equal(remote_raw(remote, 0, &none, 0), 0);
	assert_int_equal(remote_raw(remote, 0, &none, 0), 0);
	image = read_image(remote, 0);
	assert_int_equal(image.time_stamp, 1000);
	remote_destroy(remote);
}

static void test_oldest_page_first(void **state)
{
	static const struct {
		u32 cpu;
		u64 ns;
	} pages[] = { { 0, 3000 }, { 1, 2000 }, { 2, 2000 }, { 3, 1000 } };
	static const u32 order[] = { 3, 1, 2, 0 };
	struct test_remote *remote = remote_create(4, 3);
	struct image images[4];

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(pages); i++) {
		remote->rings[pages[i].cpu].serial = 100 * pages[i].cpu;
		remote_write(remote, pages[i].cpu, pages[i].ns);
	}
	assert_int_equal(remote_raw(remote, ALL, (u8 *)images, sizeof(images)), sizeof(images));
	for (u32 i = 0; i < ARRAY_SIZE(order); i++) {
		const struct test_event *event = (const void *)(images[i].data + RB_EVENT_HEADER);

		assert_int_equal(event->serial, 100 * order[i] + 1);
	}
	remote_destroy(remote);
}

/* Two remotes, written alike: one read as text, the other as images. */
static void test_text_and_raw_agree(void **state)
{
	struct test_remote *by_text = remote_create(1, 5);
	struct test_remote *by_raw = remote_create(1, 5);
	u64 seed = 7;

	(void)state;
	for (u32 round = 0; round < 60; round++) {
		u32 nr = (u32)(next_random(&seed) % 700);
		char *end = other_text;
		struct image image;

		for (u32 i = 0; i < nr; i++) {
			u64 random = next_random(&seed);
			u64 now = by_text->rings[0].now +
				  (random % 512 ? random >> 10 & 0xffff : 1ULL << 28);

			/* 72 to a page: there is room for the count of lost events */
			assert_true(ring_write_sized(&by_text->rings[0], 48, now));
			assert_true(ring_write_sized(&by_raw->rings[0], 48, now));
		}
		drain_text(by_text, 0, 3000, text);
		*end = 0;
		while (remote_raw(by_raw, 0, (u8 *)&image, sizeof(image)))
			end = put_image_text(end, 0, &image);
		assert_string_equal(other_text, text);
		expect_law(by_text, 0);
		expect_law(by_raw, 0);
	}
	assert_true(remote_stats(by_text, 0).lost > 1000);
	remote_destroy(by_text);
	remote_destroy(by_raw);
}

/* --- the hypervisor is gone --------------------------------------------------------------- */

/* Also the end of the state of a half-done tail move: no commit on the new tail. */
static void die(struct test_remote *remote, u32 *ids, bool in_tail_move)
{
	struct test_ring *ring = &remote->rings[0];

	if (in_tail_move && ring->rb.write)
		ring->rb.write = RB_PAGE_CAPACITY;
	remote->conduit.hvc = NULL; /* nobody is asked any more */
	reader_inherit(&remote->reader, 0, ids);
}

/* Two remotes, treated alike; one hypervisor dies, the other one goes on answering. */
static void test_inherit(void **state)
{
	u32 ids[5 + RB_MAX_TAKEN];

	(void)state;
	for (u64 seed = 1; seed <= 400; seed++) {
		u32 nr_pages = 3 + (u32)(seed % 3);
		struct test_remote *dead = remote_create(1, nr_pages);
		struct test_remote *alive = remote_create(1, nr_pages);
		u64 random = seed * 0x9e3779b97f4a7c15;

		for (u32 round = 0; round < seed % 7; round++) {
			u32 nr = (u32)(next_random(&random) % 500);
			u32 size = (u32)(next_random(&random) % 9000 + 1);
			u32 got;

			ring_fill(&dead->rings[0], TEST_PAYLOAD, nr);
			ring_fill(&alive->rings[0], TEST_PAYLOAD, nr);
			got = remote_text(dead, 0, text, size);
			assert_int_equal(remote_text(alive, 0, other_text, size), got);
		}
		ring_fill(&dead->rings[0], TEST_PAYLOAD, seed % 900);
		ring_fill(&alive->rings[0], TEST_PAYLOAD, seed % 900);
		die(dead, ids, false);
		drain_text(dead, 0, 5000, text);
		drain_text(alive, 0, 5000, other_text);
		assert_string_equal(text, other_text);
		expect_law(dead, 0);
		assert_int_equal(remote_stats(dead, 0).lost, remote_stats(alive, 0).lost);
		assert_false(reader_poll(&dead->reader));
		remote_destroy(dead);
		remote_destroy(alive);
	}
}

/* What it had not committed is not there; what it had promised is given up. */
static void test_inherit_less_than_promised(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	u32 ids[3 + RB_MAX_TAKEN];

	(void)state;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, 10);
	remote->rings[0].meta->entries = 15;
	die(remote, ids, true);
	put_event_lines(other_text, 0, 1, 10);
	drain_text(remote, 0, 5000, text);
	assert_non_null(strstr(text, other_text));
	assert_false(reader_poll(&remote->reader));
	assert_string_equal(drain_text(remote, 0, 5000, text), "");
	remote_destroy(remote);
}

/* --- a file that is closed and still owes something --------------------------------------------------- */

static void expect_owed(struct test_remote *remote, u64 abandoned, u64 unreported)
{
	struct reader_stats stats = remote_stats(remote, 0);

	assert_int_equal(stats.abandoned, abandoned);
	assert_int_equal(stats.unreported, unreported);
	expect_law(remote, 0);
}

static void test_abandoned_line(void **state)
{
	static const struct {
		u32 size; /* what the first reader gets */
		u64 abandoned;
	} cases[] = { { 1, 1 }, { 33, 1 }, { 34, 0 }, { 35, 0 } };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct test_remote *remote = remote_create(2, 3);
		u64 lost = cases[i].abandoned;

		ring_fill(&remote->rings[0], TEST_PAYLOAD, 2);
		read_text(remote, ALL, cases[i].size);
		reader_abandon(&remote->reader, &remote->text_carry);
		expect_owed(remote, lost, lost);
		assert_string_equal(drain_text(remote, ALL, 1000, text),
				    lost ? "CPU:0 [LOST 1 EVENTS]\n" LINE_2 : LINE_2);
		expect_owed(remote, lost, 0);
		reader_abandon(&remote->reader, &remote->text_carry); /* it owes nothing now */
		expect_owed(remote, lost, 0);
		remote_destroy(remote);
	}
}

/* A loss that has been told as a whole is not told again: its line has 24 characters. */
static void test_abandoned_loss(void **state)
{
	static const struct {
		u32 size;
		u64 unreported;
	} cases[] = { { 1, 341 }, { 23, 341 }, { 24, 1 }, { 30, 1 } };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct test_remote *remote = remote_create(1, 3);

		ring_fill(&remote->rings[0], TEST_PAYLOAD, 600);
		assert_int_equal(strlen(read_text(remote, 0, cases[i].size)), cases[i].size);
		reader_abandon(&remote->reader, &remote->text_carry);
		expect_owed(remote, 1, cases[i].unreported);
		remote_destroy(remote);
	}
}

static void test_abandoned_image(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	u8 bytes[1000];

	(void)state;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, 600);
	assert_int_equal(remote_raw(remote, 0, bytes, sizeof(bytes)), sizeof(bytes));
	assert_int_equal(remote_stats(remote, 0).read, PER_PAGE);
	reader_abandon(&remote->reader, &remote->raw_carry);
	/* Of an image, a part is nothing. */
	expect_owed(remote, PER_PAGE, 340 + PER_PAGE);
	assert_int_equal(strncmp(read_text(remote, 0, 1000), "CPU:0 [LOST 510 EVENTS]\n", 24), 0);
	expect_owed(remote, PER_PAGE, 0);
	remote_destroy(remote);
}

/* Who reads images is told of a broken page that the one before had not been told of. */
static void test_abandoned_gap(void **state)
{
	struct test_remote *remote = remote_create(1, 9);
	struct buffer_data_page *page;
	struct image image;
	u8 bytes[100];

	(void)state;
	ring_fill(&remote->rings[0], TEST_PAYLOAD, 2 * PER_PAGE + 10); /* with room for a number */
	page = (struct buffer_data_page *)(remote->rings[0].pages + (size_t)RB_PAGE_SIZE);
	page->commit = RB_PAGE_CAPACITY + 4;
	assert_int_equal(remote_raw(remote, 0, bytes, sizeof(bytes)), sizeof(bytes));
	reader_abandon(&remote->reader, &remote->raw_carry);
	image = read_image(remote, 0);
	assert_true(image.commit & RB_MISSED_EVENTS);
	/* How many is not known: there was the broken page, too. */
	assert_false(image.commit & RB_MISSED_STORED);
	remote_destroy(remote);
}

/* --- reset --------------------------------------------------------------------------------------------- */

static void test_reset(void **state)
{
	(void)state;
	for (u32 nr = 1; nr < 1000; nr += 83) {
		struct test_remote *remote = remote_create(1, 3);
		struct test_ring *ring = &remote->rings[0];
		struct reader_stats stats;

		ring_fill(ring, TEST_PAYLOAD, nr);
		read_text(remote, 0, 500);
		ring_fill(ring, TEST_PAYLOAD, nr);
		assert_int_equal(simple_ring_buffer_reset(&ring->rb), 0);
		reader_reset(&remote->reader, 0);
		ring->serial = ring->now = 0;
		assert_string_equal(drain_text(remote, 0, 500, text), "");
		stats = remote_stats(remote, 0);
		assert_int_equal(stats.read + stats.lost + stats.overrun + stats.unread, 0);

		ring_fill(ring, TEST_PAYLOAD, 3);
		put_event_lines(other_text, 0, 1, 3);
		assert_string_equal(drain_text(remote, 0, 500, text), other_text);
		expect_law(remote, 0);
		remote_destroy(remote);
	}
}

/* --- the law of conservation ----------------------------------------------------------------------------- */

static struct {
	u64 serial, seen; /* by CPU */
} accounts[TEST_MAX_CPUS];

/* Events come in order, and gaps are as long as the LOST line before them says. */
static void account_text(char *lines)
{
	for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned long long number;
		u32 cpu;

		if (sscanf(line, "CPU:%u [LOST %llu EVENTS]", &cpu, &number) == 2) {
			accounts[cpu].serial += number;
			continue;
		}
		assert_int_equal(sscanf(line, "[%u]\t%*u.%*u: selftest id=%llu", &cpu, &number), 2);
		assert_int_equal(number, accounts[cpu].serial + 1);
		accounts[cpu].serial = number;
		accounts[cpu].seen++;
	}
}

static void write_some(struct test_remote *remote, u64 *seed)
{
	struct test_ring *ring = &remote->rings[next_random(seed) % remote->reader.nr_cpus];
	u32 nr = (u32)(next_random(seed) % 400);

	for (u32 i = 0; i < nr; i++) {
		u64 random = next_random(seed);

		ring_write(ring, ring->now + (random % 100 ? random >> 8 & 0xfff : 1ULL << 29));
	}
}

static u32 read_some(struct test_remote *remote, u64 *seed, char *out)
{
	u32 cpu = (u32)(next_random(seed) % (remote->reader.nr_cpus + 1));
	u32 size = (u32)(next_random(seed) % 6000 + 1);

	return remote_text(remote, cpu == remote->reader.nr_cpus ? ALL : cpu, out, size);
}

static void conserve(u64 seed, u32 nr_pages)
{
	struct test_remote *remote = remote_create(3, nr_pages);
	u32 length = 0;

	memset(accounts, 0, sizeof(accounts));
	for (u32 i = 0; i < 200; i++) {
		if (next_random(&seed) >> 20 & 1)
			write_some(remote, &seed);
		else
			length += read_some(remote, &seed, text + length);
		for (u32 cpu = 0; cpu < 3; cpu++)
			expect_law(remote, cpu);
	}
	drain_text(remote, ALL, 5000, text + length);
	account_text(text);
	for (u32 cpu = 0; cpu < 3; cpu++) {
		struct reader_stats stats;

		expect_law(remote, cpu);
		stats = remote_stats(remote, cpu);
		assert_int_equal(accounts[cpu].serial, stats.entries);
		assert_int_equal(accounts[cpu].seen, stats.read);
		assert_int_equal(stats.lost, stats.overrun);
		assert_int_equal(stats.unread, 0);
		assert_int_equal(stats.skipped, 0);
	}
	remote_destroy(remote);
}

static void test_conservation(void **state)
{
	(void)state;
	for (u64 seed = 1; seed <= 20; seed++)
		conserve(seed * 0x9e3779b97f4a7c15, 3 + (u32)(seed % 4));
}

/* --- broken pages -------------------------------------------------------------------------------------------- */

static struct buffer_data_page *shared_page(struct test_remote *remote, u32 cpu, u32 id)
{
	return (void *)(remote->rings[cpu].pages + (size_t)id * RB_PAGE_SIZE);
}

/* Three full pages 1 to 3; the third event of page 2 has an impossible length. */
static struct test_remote *broken_remote(void)
{
	struct test_remote *remote = remote_create(1, 5);

	ring_fill(&remote->rings[0], TEST_PAYLOAD, 3 * PER_PAGE);
	shared_page(remote, 0, 2)->data[2 * TEST_EVENT_SIZE + 4] = 3;
	return remote;
}

static void test_broken_event(void **state)
{
	struct test_remote *remote = broken_remote();
	struct reader_stats stats;
	char *end = put_event_lines(other_text, 0, 1, PER_PAGE + 2);

	(void)state;
	end += sprintf(end, "CPU:0 [CORRUPT PAGE 2 AT 48]\n");
	put_event_lines(end, 0, 2 * PER_PAGE + 1, 3 * PER_PAGE);
	assert_string_equal(drain_text(remote, 0, 700, text), other_text);
	stats = remote_stats(remote, 0);
	assert_int_equal(stats.broken_pages, 1);
	assert_int_equal(stats.skipped, PER_PAGE - 2);
	assert_int_equal(stats.unread, 0);
	expect_law(remote, 0);
	remote_destroy(remote);
}

static void test_broken_event_then_traffic(void **state)
{
	(void)state;
	for (u32 nr = 1; nr <= 5 * PER_PAGE; nr += 40) {
		struct test_remote *remote = broken_remote();

		drain_text(remote, 0, 700, text);
		ring_fill(&remote->rings[0], TEST_PAYLOAD, nr);
		memset(accounts, 0, sizeof(accounts));
		accounts[0].serial = 3 * PER_PAGE;
		account_text(strcpy(other_text, drain_text(remote, 0, 700, text)));
		assert_int_equal(accounts[0].serial, 3 * PER_PAGE + nr);
		expect_law(remote, 0);
		remote_destroy(remote);
	}
}

static void test_broken_event_raw(void **state)
{
	struct test_remote *remote = broken_remote();
	struct image image;

	(void)state;
	image = read_image(remote, 0);
	assert_int_equal(image.commit, 4080);
	image = read_image(remote, 0);
	assert_int_equal(image.commit, 2 * TEST_EVENT_SIZE); /* what was good */
	check_image(&image);
	image = read_image(remote, 0);
	/* Something is missing before it; how much cannot be known. */
	assert_int_equal(image.commit, 4080 | (u64)RB_MISSED_EVENTS);
	assert_int_equal(image.time_stamp, 1000 * (2 * PER_PAGE + 1));
	assert_int_equal(remote_raw(remote, 0, (u8 *)&image, sizeof(image)), 0);
	remote_destroy(remote);
}

static void test_broken_commit(void **state)
{
	static const u64 commits[] = { 4081, 4096, 1ULL << 31, 1ULL << 32, UINT64_MAX };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(commits); i++) {
		struct test_remote *remote = broken_remote();
		char *end = put_event_lines(other_text, 0, 1, PER_PAGE);

		shared_page(remote, 0, 2)->commit = commits[i];
		end += sprintf(end, "CPU:0 [CORRUPT PAGE 2 AT 0]\n");
		put_event_lines(end, 0, 2 * PER_PAGE + 1, 3 * PER_PAGE);
		assert_string_equal(drain_text(remote, 0, 700, text), other_text);
		remote_destroy(remote);
	}
}

static struct test_remote *all_broken(void)
{
	struct test_remote *remote = remote_create(1, 5);

	ring_fill(&remote->rings[0], TEST_PAYLOAD, 3 * PER_PAGE);
	for (u32 id = 0; id < 5; id++)
		shared_page(remote, 0, id)->commit = UINT64_MAX;
	return remote;
}

static void test_all_pages_broken_raw(void **state)
{
	struct test_remote *remote;
	struct image image;

	(void)state;
	remote = all_broken();
	assert_int_equal(remote_raw(remote, 0, (u8 *)&image, sizeof(image)), 0);
	remote_destroy(remote);
}

static void test_all_pages_broken_text(void **state)
{
	struct test_remote *remote;
	u32 reads = 0;

	(void)state;
	remote = all_broken();
	while (remote_text(remote, 0, text, 100))
		assert_true(++reads < 100);
	remote_destroy(remote);
}

static void test_unknown_and_short_events(void **state)
{
	static const struct render_event no_events[] = { { .ops = NULL } };
	struct test_remote *remote = remote_create(1, 3);

	(void)state;
	ring_fill(&remote->rings[0], 8, 1);
	assert_string_equal(read_text(remote, 0, 1000),
			    "[000]\t    0.000001: [SHORT EVENT id=3 length=8]\n");
	remote->reader.events = (struct render_table){ no_events, 1 };
	ring_fill(&remote->rings[0], TEST_PAYLOAD, 1);
	assert_string_equal(read_text(remote, 0, 1000), "[000]\t    0.000002: UNKNOWN id=3\n");
	remote_destroy(remote);
}

/* --- a hostile remote ------------------------------------------------------------------------------------------ */

static s64 swap_answer;
static u32 swap_id;
static u64 swap_lost;

static void answering_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	struct test_remote *remote = (struct test_remote *)conduit;

	(void)cpu;
	if (++remote->swaps > TEST_MAX_SWAPS)
		fail_msg("one read asks for ever more pages");
	remote->rings[regs->x1].meta->reader.id = swap_id;
	remote->rings[regs->x1].meta->reader.lost_events = swap_lost;
	ring_taken(&remote->rings[regs->x1])->nr = 1;
	ring_taken(&remote->rings[regs->x1])->pages[0].id = swap_id;
	ring_taken(&remote->rings[regs->x1])->pages[0].lost_events = swap_lost;
	regs->x0 = swap_answer == 1 ? HVC_NOT_SUPPORTED : 0;
	regs->x1 = (u64)swap_answer;
}

static void test_swap_errors(void **state)
{
	const struct {
		s64 answer;
		u32 id;
		s64 error;
	} cases[] = {
		{ -EBUSY, 1, -EBUSY },	   { -ENODEV, 1, -ENODEV }, { 1, 1, -EOPNOTSUPP },
		{ 0, 3 + test_spares(), -ERANGE },	   { 0, UINT32_MAX, -ERANGE }, { 0, 1U << 31, -ERANGE },
	};

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct test_remote *remote = remote_create(1, 3);

		ring_fill(&remote->rings[0], TEST_PAYLOAD, 3);
		remote->conduit.hvc = answering_hvc;
		swap_answer = cases[i].answer;
		swap_id = cases[i].id;
		swap_lost = 0;
		assert_string_equal(drain_text(remote, 0, 1000, text), "");
		assert_int_equal(remote_stats(remote, 0).swap_error, cases[i].error);
		assert_int_equal(remote_raw(remote, 0, (u8 *)other_text, RB_PAGE_SIZE), 0);
		expect_law(remote, 0);

		/* It was a passing trouble: nothing is lost by it. */
		remote->conduit.hvc = local_hvc;
		put_event_lines(other_text, 0, 1, 3);
		assert_string_equal(drain_text(remote, 0, 1000, text), other_text);
		assert_int_equal(remote_stats(remote, 0).swap_error, 0);
		remote_destroy(remote);
	}
}

static void test_counters_backwards(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	struct test_ring *ring = &remote->rings[0];

	(void)state;
	ring_fill(ring, TEST_PAYLOAD, 10);
	drain_text(remote, 0, 1000, text);
	ring->meta->entries = 4;
	assert_false(reader_poll(&remote->reader));
	assert_int_equal(reader_unread(&remote->reader, 0), 0);
	assert_string_equal(drain_text(remote, 0, 1000, text), "");
	ring->meta->entries = 10;
	ring->meta->overrun = UINT64_MAX;
	reader_poll(&remote->reader);
	assert_string_equal(drain_text(remote, 0, 1000, text), "");
	ring->meta->overrun = 0;
	ring_fill(ring, TEST_PAYLOAD, 1);
	put_event_lines(other_text, 0, 11, 11);
	assert_string_equal(drain_text(remote, 0, 1000, text), other_text);
	remote_destroy(remote);
}

/* Promised events that are nowhere: given up, not asked for again and again. */
static void test_promises_without_events(void **state)
{
	struct test_remote *remote = remote_create(1, 3);

	(void)state;
	remote->rings[0].meta->entries = 1000;
	assert_string_equal(read_text(remote, 0, 1000), "");
	assert_true(remote->swaps <= 1);
	assert_false(reader_poll(&remote->reader));
	assert_int_equal(remote_stats(remote, 0).skipped, 1000);
	remote_destroy(remote);
}

/* A page that shrinks behind what has been read, or under an event that was seen. */
static void test_commit_taken_back(void **state)
{
	static const u64 commits[] = { 0, 1, 23, 24, 25, 47, 4080, 4081 };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(commits); i++) {
		struct test_remote *remote = remote_create(1, 3);
		u8 *image = malloc(RB_PAGE_SIZE);

		assert_non_null(image);
		ring_fill(&remote->rings[0], TEST_PAYLOAD, 3);
		read_text(remote, 0, 40); /* one; the second has been looked at */
		shared_page(remote, 0, 1)->commit = commits[i];
		for (u32 reads = 0; remote_raw(remote, 0, image, RB_PAGE_SIZE); reads++)
			assert_true(reads < 10);
		ring_fill(&remote->rings[0], TEST_PAYLOAD, 1);
		free(image);
		remote_destroy(remote);
	}
}

static u64 hostile_seed;

static void scribble(u8 *bytes, u32 length, u32 times)
{
	for (u32 i = 0; i < times; i++)
		bytes[next_random(&hostile_seed) % length] = (u8)(next_random(&hostile_seed) >> 16);
}

/* Swaps for real, then writes over what it shares. */
static void hostile_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	struct test_remote *remote = (struct test_remote *)conduit;
	struct test_ring *ring = &remote->rings[regs->x1];

	local_hvc(conduit, cpu, regs);
	scribble(ring->pages, 3 * RB_PAGE_SIZE, 20);
	if (next_random(&hostile_seed) >> 10 & 1)
		scribble((u8 *)ring->meta, sizeof(*ring->meta), 1);
	/* Within reason, or one read may be endless by right. */
	ring->meta->entries = ring->rb.entries;
}

static void hostile_round(struct test_remote *remote)
{
	u32 size = (u32)(next_random(&hostile_seed) % 5000 + 1);
	char *out = malloc(size);
	u32 cpu = next_random(&hostile_seed) >> 9 & 1;

	assert_non_null(out);
	ring_fill(&remote->rings[cpu], TEST_PAYLOAD, (u32)(next_random(&hostile_seed) % 300));
	assert_true(remote_text(remote, cpu ? ALL : 0, out, size) <= size);
	if (next_random(&hostile_seed) >> 8 & 1)
		scribble(remote->rings[cpu].pages, 3 * RB_PAGE_SIZE, 5);
	free(out);
}

/* Nothing is asserted about the text, but that there is an end to it, within bounds. */
static void test_hostile(void **state)
{
	(void)state;
	for (u64 seed = 1; seed <= 100; seed++) {
		struct test_remote *remote = remote_create(2, 3);

		hostile_seed = seed * 0x9e3779b97f4a7c15;
		remote->conduit.hvc = hostile_hvc;
		for (u32 i = 0; i < 30; i++)
			hostile_round(remote);
		remote_destroy(remote);
	}
}

/* The same as images. */
static void test_hostile_raw(void **state)
{
	(void)state;
	for (u64 seed = 1; seed <= 100; seed++) {
		struct test_remote *remote = remote_create(2, 3);
		struct image *image = malloc(sizeof(*image));

		assert_non_null(image);
		hostile_seed = seed * 0x9e3779b97f4a7c15;
		remote->conduit.hvc = hostile_hvc;
		for (u32 i = 0; i < 30; i++) {
			ring_fill(&remote->rings[0], TEST_PAYLOAD, 100);
			if (remote_raw(remote, ALL, (u8 *)image, sizeof(*image)))
				assert_true(image_length(image) <= RB_PAGE_CAPACITY);
		}
		free(image);
		remote_destroy(remote);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_merge_many),
		cmocka_unit_test(test_one_cpu_and_absent_cpu),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_lost_more_than_written),
		cmocka_unit_test(test_swap_answers),
		cmocka_unit_test(test_lost_line),
		cmocka_unit_test(test_lost_line_before_its_page),
		cmocka_unit_test(test_any_size_gives_the_same_text),
		cmocka_unit_test(test_carry_edges),
		cmocka_unit_test(test_image_of_a_full_page),
		cmocka_unit_test(test_image_of_a_rest),
		cmocka_unit_test(test_more_on_the_same_page),
		cmocka_unit_test(test_image_lost_flags),
		cmocka_unit_test(test_n_pages_per_read),
		cmocka_unit_test(test_small_raw_reads),
		cmocka_unit_test(test_small_raw_read_holds_one_image),
		cmocka_unit_test(test_empty_raw_read),
		cmocka_unit_test(test_oldest_page_first),
		cmocka_unit_test(test_text_and_raw_agree),
		cmocka_unit_test(test_inherit),
		cmocka_unit_test(test_inherit_less_than_promised),
		cmocka_unit_test(test_abandoned_line),
		cmocka_unit_test(test_abandoned_loss),
		cmocka_unit_test(test_abandoned_image),
		cmocka_unit_test(test_abandoned_gap),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_conservation),
		cmocka_unit_test(test_broken_event),
		cmocka_unit_test(test_broken_event_then_traffic),
		cmocka_unit_test(test_broken_event_raw),
		cmocka_unit_test(test_broken_commit),
		cmocka_unit_test(test_all_pages_broken_raw),
		cmocka_unit_test(test_all_pages_broken_text),
		cmocka_unit_test(test_unknown_and_short_events),
		cmocka_unit_test(test_swap_errors),
		cmocka_unit_test(test_counters_backwards),
		cmocka_unit_test(test_promises_without_events),
		cmocka_unit_test(test_commit_taken_back),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_hostile_raw),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
