// SPDX-License-Identifier: Apache-2.0
/* The dump: what is unread, all of it, in order, without consuming it; and what becomes of it. */
#include "dump_support.h"

#define ALL READER_ALL_CPUS
#define TEXT_MAX (1U << 20)
#define PER_PAGE (RB_PAGE_CAPACITY / TEST_EVENT_SIZE) /* 170 */

static char text[TEXT_MAX];
static char other_text[TEXT_MAX];

/* --- helpers ------------------------------------------------------------------------------ */

/* All of it; what dump_length() says must be right. */
static const char *read_dump(struct test_dump *dump)
{
	u64 length = dump_length(&dump->cursor, text, 1000);
	char *exact = malloc(length + 1); /* ASan sees the byte after the last */

	assert_non_null(exact);
	assert_true(length < TEXT_MAX);
	assert_int_equal(dump_read(&dump->cursor, 0, exact, (u32)length + 1, (u32)length + 1),
			 length);
	memcpy(text, exact, length);
	text[length] = 0;
	free(exact);
	return text;
}

static const char *dump_text(struct test_remote *remote, u32 cpu)
{
	struct test_dump *dump = dump_open(remote, cpu);

	read_dump(dump);
	dump_close(dump);
	return text;
}

/* What a consuming reader gets. */
static const char *drain_text(struct test_remote *remote, u32 cpu, char *out)
{
	u32 done = 0, length;

	do {
		length = remote_text(remote, cpu, out + done, 5000);
		done += length;
		assert_true(done + 5000 < TEXT_MAX);
	} while (length);
	out[done] = 0;
	return out;
}

/* Without its LOST lines: those are of losses before a dump could begin. */
static const char *forget_losses(char *lines)
{
	char *to = lines;

	for (char *line = lines, *end; *line; line = end) {
		end = strchr(line, '\n') + 1;
		if (!strncmp(line, "CPU:", 4) && strstr(line, " [LOST ") == line + 5)
			continue;
		memmove(to, line, (size_t)(end - line));
		to += end - line;
	}
	*to = 0;
	return lines;
}

/* A dump, twice, and one of each CPU, is what is then consumed. */
static void expect_complete(struct test_remote *remote)
{
	static char twice[TEXT_MAX];
	u64 length = 0;

	for (u32 cpu = 0; cpu < remote->reader.nr_cpus; cpu++)
		length += strlen(dump_text(remote, cpu));
	strcpy(twice, dump_text(remote, ALL));
	assert_string_equal(dump_text(remote, ALL), twice);
	assert_int_equal(strlen(twice), length);
	assert_string_equal(twice, forget_losses((char *)drain_text(remote, ALL, other_text)));
	assert_string_equal(dump_text(remote, ALL), "");
}

static char *put_event_lines(char *out, u32 cpu, u64 first, u64 last)
{
	for (u64 serial = first; serial <= last; serial++) {
		u64 usec = serial; /* as ring_fill() writes them from 0 on */

		out += sprintf(out, "[%03u]\t%5llu.%06llu: selftest id=%llu\n", cpu,
			       (unsigned long long)(usec / 1000000),
			       (unsigned long long)(usec % 1000000), (unsigned long long)serial);
	}
	*out = 0;
	return out;
}

static void fill(struct test_remote *remote, u32 cpu, u32 nr)
{
	ring_fill(&remote->rings[cpu], TEST_PAYLOAD, nr);
}

/* Consume some text, in whole lines: the rest of the page stays with the reader. */
static void consume(struct test_remote *remote, u32 size)
{
	static char consumed[TEXT_MAX];
	const struct reader_carry *carry = &remote->text_carry;

	remote_text(remote, ALL, consumed, size);
	remote_text(remote, ALL, consumed, carry->length - carry->offset);
}

/* The events with these serials, as ring_fill() writes them from 0 on, on CPU 0. */
static void consume_events(struct test_remote *remote, u64 first, u64 last)
{
	static char consumed[TEXT_MAX];
	u32 size = (u32)(put_event_lines(consumed, 0, first, last) - consumed);

	assert_int_equal(remote_text(remote, 0, consumed, size), size);
}

/* --- complete ------------------------------------------------------------------------------- */

static void test_nothing(void **state)
{
	struct test_remote *remote = remote_create(2, 3);

	(void)state;
	expect_complete(remote);
	remote_destroy(remote);
}

/* golden/pkvm-arm64/nonconsuming.txt: sizes and numbers of events. */
static void test_golden(void **state)
{
	static const u32 pages[] = { 3, 4, 5, 6, 7, 10, 18, 66, 259 }; /* 1, 8, 12, ... 1024 KiB */
	static const u32 events[] = { 0, 1, 5, 100, 170, 171, 340, 341, 500, 900, 1500, 3000 };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(pages); i++) {
		for (u32 j = 0; j < ARRAY_SIZE(events); j++) {
			struct test_remote *remote = remote_create(1, pages[i]);
			u32 lost;

			fill(remote, 0, events[j]);
			lost = (u32)remote->rings[0].rb.overrun;
			put_event_lines(other_text, 0, lost + 1, events[j]);
			assert_string_equal(dump_text(remote, 0), other_text);
			assert_int_equal(remote->swaps, 0);
			expect_complete(remote);
			remote_destroy(remote);
		}
	}
}

static void test_merge(void **state)
{
	static const struct {
		u32 cpu;
		u64 ns;
	} events[] = { { 0, 1000 }, { 0, 5000 }, { 1, 500 }, { 1, 5000 }, { 2, 4000 }, { 2, 5000 } };
	struct test_remote *remote = remote_create(4, 3);

	(void)state;
	remote->cpus[3].meta = NULL; /* not in the buffer */
	for (u32 i = 0; i < ARRAY_SIZE(events); i++)
		remote_write(remote, events[i].cpu, events[i].ns);
	assert_string_equal(dump_text(remote, ALL), "[001]\t    0.000000: selftest id=1\n"
						    "[000]\t    0.000001: selftest id=1\n"
						    "[002]\t    0.000004: selftest id=1\n"
						    "[000]\t    0.000005: selftest id=2\n"
						    "[001]\t    0.000005: selftest id=2\n"
						    "[002]\t    0.000005: selftest id=2\n");
	assert_string_equal(dump_text(remote, 3), "");
	expect_complete(remote);
	remote_destroy(remote);
}

/* golden/pkvm-arm64/overrun.txt: a reader has read a little; the ring goes round and round. */
static void test_overrun_while_a_page_is_held(void **state)
{
	struct test_remote *remote;

	(void)state;
	if (test_spares())
		skip(); /* more pages are held */
	remote = remote_create(1, 4);
	fill(remote, 0, 300);
	consume_events(remote, 1, 10);
	fill(remote, 0, 2700);
	/* 340 of 2 full pages, and those of the tail */
	put_event_lines(put_event_lines(other_text, 0, 11, 170), 0, 3000 - (3000 % 170) - 339, 3000);
	assert_string_equal(dump_text(remote, 0), other_text);
	expect_complete(remote);
	remote_destroy(remote);
}

/*
 * Whatever has been written, read and reset. @backwards: of a clock that does as it likes,
 * which is of no account but behind a reset.
 */
static void do_anything(u64 seed, bool backwards, bool resets)
{
	u64 random = seed * 0x9e3779b97f4a7c15;
	u32 nr_cpus = 1 + (u32)(seed % 3);
	struct test_remote *remote = remote_create(nr_cpus, 3 + (u32)(seed % 5));

	for (u32 step = 0; step < 2 + seed % 20; step++) {
		struct test_ring *ring = &remote->rings[next_random(&random) % nr_cpus];
		u32 nr = (u32)(next_random(&random) % (next_random(&random) & 64 ? 900 : 20));

		for (u32 i = 0; i < nr; i++) {
			u64 step_ns = backwards ? next_random(&random) >> 20 : 1 + i % 1000;

			ring_write_sized(ring, TEST_PAYLOAD + 8 * (u32)(next_random(&random) % 9),
					 backwards && next_random(&random) & 1 ?
						 ring->now - step_ns : ring->now + step_ns);
		}
		if (next_random(&random) & 32)
			consume(remote, (u32)(next_random(&random) % 20000));
		if (resets && next_random(&random) % 4 == 0) {
			u32 cpu = (u32)(next_random(&random) % nr_cpus);

			assert_int_equal(simple_ring_buffer_reset(&remote->rings[cpu].rb), 0);
			reader_reset(&remote->reader, cpu);
		}
		if (next_random(&random) % 8 == 0)
			expect_complete(remote);
		else
			dump_text(remote, ALL);
	}
	expect_complete(remote);
	remote_destroy(remote);
}

static void test_anything(void **state)
{
	(void)state;
	for (u64 seed = 1; seed <= 300; seed++)
		do_anything(seed, false, false);
}

static void test_anything_with_a_clock_that_runs_backwards(void **state)
{
	(void)state;
	for (u64 seed = 1; seed <= 300; seed++)
		do_anything(seed, true, false);
}

static void test_anything_with_resets(void **state)
{
	(void)state;
	for (u64 seed = 1; seed <= 300; seed++)
		do_anything(seed, false, true);
}

/* As far as times go that are not all the same. */
static void test_clock_that_stands_still_after_a_reset(void **state)
{
	(void)state;
	for (u32 old = 1; old < 3 * PER_PAGE; old += 100) {
		struct test_remote *remote = remote_create(1, 5);
		struct test_ring *ring = &remote->rings[0];

		fill(remote, 0, old); /* the ring begins somewhere */
		drain_text(remote, 0, text);
		assert_int_equal(simple_ring_buffer_reset(&ring->rb), 0);
		reader_reset(&remote->reader, 0);
		ring_write(ring, ring->now + 1);
		for (u32 i = 0; i < 4 * PER_PAGE - 20; i++)
			ring_write(ring, ring->now + (i == PER_PAGE / 2));
		expect_complete(remote);
		remote_destroy(remote);
	}
}

/* Pages that have been read and given back have the same time. */
static void test_clock_that_stands_still(void **state)
{
	(void)state;
	for (u32 nr_pages = 3; nr_pages < 7; nr_pages++) {
		struct test_remote *remote = remote_create(1, nr_pages);

		for (u32 round = 0; round < 20; round++) {
			for (u32 i = 0; i < 97 * round; i++)
				ring_write(&remote->rings[0], 1000);
			consume(remote, 34 * 171);
			dump_text(remote, 0);
			if (round % 3 == 0)
				expect_complete(remote);
		}
		/* after a reset, as long as there is an empty page in the ring */
		assert_int_equal(simple_ring_buffer_reset(&remote->rings[0].rb), 0);
		reader_reset(&remote->reader, 0);
		for (u32 i = 0; i < (nr_pages - 2) * PER_PAGE - 20; i++)
			ring_write(&remote->rings[0], 1000);
		expect_complete(remote);
		remote_destroy(remote);
	}
}

/* An event is being written, on a page that was begun for it: nothing of it, all before. */
static void test_open_event(void **state)
{
	(void)state;
	for (u32 nr = 0; nr <= 3 * PER_PAGE; nr += PER_PAGE / 2) {
		struct test_remote *remote = remote_create(1, 4);

		fill(remote, 0, nr);
		assert_non_null(ring_reserve(&remote->rings[0], TEST_PAYLOAD, 1000000));
		put_event_lines(other_text, 0, 1 + remote->rings[0].rb.overrun, nr);
		assert_string_equal(dump_text(remote, 0), other_text);
		simple_ring_buffer_commit(&remote->rings[0].rb);
		remote_destroy(remote);
	}
}

/* --- pieces ----------------------------------------------------------------------------------- */

static struct test_remote *lossy_remote(void)
{
	struct test_remote *remote = remote_create(3, 3);

	fill(remote, 0, 50);
	fill(remote, 1, 600);
	fill(remote, 2, 300);
	consume(remote, 5000);
	return remote;
}

static void test_any_size_gives_the_same_text(void **state)
{
	static const u32 sizes[] = { 1, 2, 33, 34, 35, 200, 4095, 4096, 65536 };
	struct test_remote *remote = lossy_remote();
	struct test_dump *dump = dump_open(remote, ALL);

	(void)state;
	strcpy(other_text, read_dump(dump));
	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		u32 at = 0, length;

		do {
			length = dump_read(&dump->cursor, at, text + at, sizes[i], sizes[i]);
			at += length;
		} while (length == sizes[i]); /* only the last one is shorter */
		text[at] = 0;
		assert_string_equal(text, other_text);
	}
	dump_close(dump);
	remote_destroy(remote);
}

static void test_any_offset_gives_the_same_text(void **state)
{
	struct test_remote *remote = lossy_remote();
	struct test_dump *dump = dump_open(remote, ALL);
	u64 random = 1;
	u32 length;

	(void)state;
	length = (u32)strlen(strcpy(other_text, read_dump(dump)));
	for (u32 i = 0; i < 500; i++) {
		u32 offset = (u32)(next_random(&random) % (length + 100));
		u32 size = (u32)(next_random(&random) % 300);
		u32 there = offset < length ? length - offset : 0;
		u32 got = dump_read(&dump->cursor, offset, text, 1000, size);

		assert_int_equal(got, size < there ? size : there);
		assert_memory_equal(text, other_text + offset, got);
	}
	assert_int_equal(dump_read(&dump->cursor, UINT64_MAX, text, 1000, 1000), 0);
	dump_close(dump);
	remote_destroy(remote);
}

/* --- while others write and read ------------------------------------------------------------------- */

static void test_events_after_the_beginning_are_not_shown(void **state)
{
	struct test_remote *remote = remote_create(2, 4);
	struct test_dump *dump;

	(void)state;
	fill(remote, 0, 200);
	dump = dump_create(remote, ALL);
	fill(remote, 0, 5); /* the same page */
	fill(remote, 1, 5);
	dump_start(dump);
	fill(remote, 0, 200);
	put_event_lines(other_text, 0, 1, 200);
	assert_string_equal(read_dump(dump), other_text);
	dump_close(dump);
	remote_destroy(remote);
}

static void test_consumed_events_are_shown_as_long_as_they_are_there(void **state)
{
	struct test_remote *remote;
	struct test_dump *dump;
	char *end;

	(void)state;
	if (test_spares())
		skip(); /* what is given back is overwritten in another order */
	remote = remote_create(1, 4);
	fill(remote, 0, 3 * PER_PAGE);
	dump = dump_open(remote, 0);
	drain_text(remote, 0, text);
	put_event_lines(other_text, 0, 1, 3 * PER_PAGE);
	assert_string_equal(read_dump(dump), other_text);
	/* The tail stays with the reader; of the ring two are overwritten, those given back first. */
	fill(remote, 0, 2 * PER_PAGE);
	end = other_text + sprintf(other_text, "CPU:0 [LOST %u EVENTS]\n", PER_PAGE);
	put_event_lines(end, 0, PER_PAGE + 1, 3 * PER_PAGE);
	assert_string_equal(read_dump(dump), other_text);
	dump_close(dump);
	remote_destroy(remote);
}

/* Page after page is overwritten, while the reader page is not. */
static void test_overwritten_pages_are_lost(void **state)
{
	(void)state;
	for (u32 over = 0; over < 6; over++) {
		struct test_remote *remote = remote_create(2, 4);
		struct test_dump *dump;
		u32 lost = over < 3 ? over : 3;
		char *end;

		/* 101 to 170 with the reader; 171 to 340 lost; 341 to 681 on three pages */
		fill(remote, 0, PER_PAGE);
		consume_events(remote, 1, 100);
		fill(remote, 0, 3 * PER_PAGE + 1);
		dump = dump_open(remote, ALL);
		fill(remote, 0, over * PER_PAGE);
		end = put_event_lines(other_text, 0, 101, PER_PAGE);
		if (lost)
			end += sprintf(end, "CPU:0 [LOST %u EVENTS]\n",
				       lost == 3 ? 2 * PER_PAGE + 1 : lost * PER_PAGE);
		put_event_lines(end, 0, (2 + lost) * PER_PAGE + 1, 4 * PER_PAGE + 1);
		assert_string_equal(read_dump(dump), other_text);
		assert_string_equal(read_dump(dump), other_text);
		dump_close(dump);
		remote_destroy(remote);
	}
}

/* The loss has no event behind it, and one line for each CPU. */
static void test_all_is_overwritten(void **state)
{
	struct test_remote *remote = remote_create(2, 3);
	struct test_dump *dump;

	(void)state;
	fill(remote, 0, 300);
	fill(remote, 1, 100);
	dump = dump_open(remote, ALL);
	fill(remote, 0, 1000);
	fill(remote, 1, 1000);
	assert_string_equal(read_dump(dump), "CPU:0 [LOST 300 EVENTS]\nCPU:1 [LOST 100 EVENTS]\n");
	dump_close(dump);
	remote_destroy(remote);
}

/* In the middle of a read: what has been rendered stays, what comes is told. */
static void test_overwritten_while_it_is_read(void **state)
{
	struct test_remote *remote = remote_create(1, 3);
	struct test_dump *dump;
	u32 half = PER_PAGE / 2 * 34 + 10, got; /* in a line */
	char *end;

	(void)state;
	fill(remote, 0, 2 * PER_PAGE);
	dump = dump_open(remote, 0);
	got = dump_read(&dump->cursor, 0, text, half, half);
	assert_int_equal(got, half);
	fill(remote, 0, 1000);
	got += dump_read(&dump->cursor, got, text + got, 100000, 100000);
	text[got] = 0;
	end = put_event_lines(other_text, 0, 1, PER_PAGE); /* there is a copy of the page */
	sprintf(end, "CPU:0 [LOST %u EVENTS]\n", PER_PAGE);
	assert_string_equal(text, other_text);
	dump_close(dump);
	remote_destroy(remote);
}

/* Lost before they were counted: as if they had been before the dump began. */
static void test_overwritten_before_it_is_measured(void **state)
{
	(void)state;
	for (u32 over = 0; over < 6; over++) {
		struct test_remote *remote = remote_create(1, 4);
		struct test_dump *dump;
		u32 lost = over < 3 ? over : 3;
		char *end;

		/* 101 to 170 with the reader; 171 to 340 lost; 341 to 681 on three pages */
		fill(remote, 0, PER_PAGE);
		consume_events(remote, 1, 100);
		fill(remote, 0, 3 * PER_PAGE + 1);
		dump = dump_create(remote, ALL);
		fill(remote, 0, over * PER_PAGE);
		dump_start(dump);
		end = put_event_lines(other_text, 0, 101, PER_PAGE);
		put_event_lines(end, 0, (2 + lost) * PER_PAGE + 1, 4 * PER_PAGE + 1);
		assert_string_equal(read_dump(dump), other_text);
		dump_close(dump);
		remote_destroy(remote);
	}
}

/* A reset forgets what the dump has not shown yet, before it is measured or behind. */
static void test_reset(void **state)
{
	(void)state;
	for (u32 measured = 0; measured < 2; measured++) {
		for (u32 nr = 0; nr < 1500; nr += 70) {
			struct test_remote *remote = remote_create(1, 4);
			struct test_dump *dump;

			fill(remote, 0, 400);
			consume_events(remote, 1, 10);
			dump = dump_create(remote, 0);
			if (measured)
				dump_start(dump);
			assert_int_equal(simple_ring_buffer_reset(&remote->rings[0].rb), 0);
			reader_reset(&remote->reader, 0);
			fill(remote, 0, nr);
			if (!measured)
				dump_start(dump);
			read_dump(dump);
			if (measured)
				assert_string_equal(text, "CPU:0 [LOST 390 EVENTS]\n");
			/* And the next one has what is there. */
			put_event_lines(other_text, 0, 401 + remote->rings[0].rb.overrun,
					400 + nr);
			assert_string_equal(dump_text(remote, 0), other_text);
			dump_close(dump);
			remote_destroy(remote);
		}
	}
}

/* The hypervisor is gone: before the dump begins, or meanwhile. */
static void test_inherit(void **state)
{
	u32 ids[5];

	(void)state;
	for (u64 seed = 1; seed <= 100; seed++) {
		struct test_remote *remote = remote_create(1, 3 + (u32)(seed % 3));
		struct test_dump *dump;
		static char before[TEXT_MAX];

		fill(remote, 0, (u32)(seed * 37 % 1000));
		consume(remote, (u32)(seed * 997 % 20000));
		fill(remote, 0, (u32)(seed * 31 % 1000));
		dump = dump_open(remote, 0);
		strcpy(before, read_dump(dump));
		remote->conduit.hvc = NULL; /* nobody is asked any more */
		reader_inherit(&remote->reader, 0, ids);
		assert_string_equal(read_dump(dump), before);
		assert_string_equal(dump_text(remote, 0), before);
		if (seed % 2)
			consume(remote, 3000);
		expect_complete(remote);
		dump_close(dump);
		remote_destroy(remote);
	}
}

/* --- a writer that is not trusted ---------------------------------------------------------------------- */

static struct buffer_data_page *shared_page(struct test_remote *remote, u32 id)
{
	return (void *)(remote->rings[0].pages + (size_t)id * RB_PAGE_SIZE);
}

/* Three full pages 1 to 3 of four; break one of them. */
static struct test_remote *broken_remote(u32 id, bool commit)
{
	struct test_remote *remote = remote_create(1, 5);

	fill(remote, 0, 3 * PER_PAGE);
	if (commit)
		shared_page(remote, id)->commit = RB_PAGE_CAPACITY + 1;
	else
		shared_page(remote, id)->data[2 * TEST_EVENT_SIZE + 4] = 3;
	return remote;
}

static void test_broken_pages(void **state)
{
	(void)state;
	for (u32 id = 1; id <= 3; id++) {
		for (u32 commit = 0; commit < 2; commit++) {
			struct test_remote *remote = broken_remote(id, commit);

			expect_complete(remote);
			remote_destroy(remote);
		}
	}
}

static void test_broken_page_is_named(void **state)
{
	struct test_remote *remote = broken_remote(2, false);
	char *end = put_event_lines(other_text, 0, 1, PER_PAGE + 2);

	(void)state;
	end += sprintf(end, "CPU:0 [CORRUPT PAGE 2 AT 48]\n");
	put_event_lines(end, 0, 2 * PER_PAGE + 1, 3 * PER_PAGE);
	assert_string_equal(dump_text(remote, 0), other_text);
	/* The consuming reader is on it, and behind it. */
	consume_events(remote, 1, PER_PAGE + 1);
	assert_string_equal(dump_text(remote, 0), strstr(other_text, "[000]\t    0.000172"));
	consume(remote, 36 + 29);
	put_event_lines(other_text, 0, 2 * PER_PAGE + 1, 3 * PER_PAGE);
	assert_string_equal(dump_text(remote, 0), other_text);
	remote_destroy(remote);
}

static void test_all_pages_broken(void **state)
{
	struct test_remote *remote = remote_create(1, 5);

	(void)state;
	fill(remote, 0, 3 * PER_PAGE);
	for (u32 id = 0; id < 5; id++)
		shared_page(remote, id)->commit = UINT64_MAX;
	assert_string_equal(dump_text(remote, 0), "CPU:0 [CORRUPT PAGE 0 AT 0]\n"
						  "CPU:0 [CORRUPT PAGE 1 AT 0]\n"
						  "CPU:0 [CORRUPT PAGE 2 AT 0]\n"
						  "CPU:0 [CORRUPT PAGE 3 AT 0]\n");
	remote_destroy(remote);
}

/* As if more pages had been begun, lost or neither than there are. */
static void test_counters_that_are_made_up(void **state)
{
	static const u64 numbers[] = { 0, 1, 3, 4, 5, 1000, 1ULL << 32, 1ULL << 63, UINT64_MAX };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(numbers); i++) {
		for (u32 j = 0; j < ARRAY_SIZE(numbers); j++) {
			struct test_remote *remote = remote_create(1, 4);
			struct test_dump *dump;

			fill(remote, 0, 500);
			remote->rings[0].meta->pages_touched = numbers[i];
			remote->rings[0].meta->pages_lost = numbers[j];
			dump = dump_open(remote, 0);
			assert_true(strlen(read_dump(dump)) <= 3 * PER_PAGE * 40);
			remote->rings[0].meta->pages_touched = numbers[j];
			read_dump(dump);
			dump_close(dump);
			remote_destroy(remote);
		}
	}
}

static void scribble(u64 *random, u8 *bytes, u32 length, u32 times)
{
	for (u32 i = 0; i < times; i++)
		bytes[next_random(random) % length] = (u8)(next_random(random) >> 16);
}

/* Swaps for real, then writes over what it shares. */
static u64 hostile_random;

static void hostile_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	struct test_ring *ring = &((struct test_remote *)conduit)->rings[regs->x1];

	local_hvc(conduit, cpu, regs);
	scribble(&hostile_random, ring->pages, 3 * RB_PAGE_SIZE, 20);
	scribble(&hostile_random, (u8 *)ring->meta, sizeof(*ring->meta), 1);
	ring->meta->entries = ring->rb.entries;
}

/* Nothing is asserted about the text, but that there is an end to it, within bounds. */
static void test_hostile(void **state)
{
	(void)state;
	for (u64 seed = 1; seed <= 200; seed++) {
		struct test_remote *remote = remote_create(2, 3);

		hostile_random = seed * 0x9e3779b97f4a7c15;
		remote->conduit.hvc = hostile_hvc;
		for (u32 i = 0; i < 10; i++) {
			struct test_dump *dump;
			u8 *pages = remote->rings[i % 2].pages;

			fill(remote, i % 2, 100);
			consume(remote, (u32)(next_random(&hostile_random) % 9000));
			dump = dump_create(remote, ALL);
			scribble(&hostile_random, pages, 3 * RB_PAGE_SIZE, i);
			dump_start(dump);
			while (dump_read(&dump->cursor, dump->cursor.at, text, 1000, 1000))
				scribble(&hostile_random, pages, 3 * RB_PAGE_SIZE, 2);
			/* a line for each 8 bytes of three pages, and one each that they are lost */
			assert_true(dump->cursor.at < 2 * 3 * (RB_PAGE_SIZE / 8) * 80);
			dump_close(dump);
		}
		remote_destroy(remote);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_overrun_while_a_page_is_held),
		cmocka_unit_test(test_anything),
		cmocka_unit_test(test_anything_with_a_clock_that_runs_backwards),
		cmocka_unit_test(test_anything_with_resets),
		cmocka_unit_test(test_clock_that_stands_still),
		cmocka_unit_test(test_clock_that_stands_still_after_a_reset),
		cmocka_unit_test(test_open_event),
		cmocka_unit_test(test_any_size_gives_the_same_text),
		cmocka_unit_test(test_any_offset_gives_the_same_text),
		cmocka_unit_test(test_events_after_the_beginning_are_not_shown),
		cmocka_unit_test(test_consumed_events_are_shown_as_long_as_they_are_there),
		cmocka_unit_test(test_overwritten_pages_are_lost),
		cmocka_unit_test(test_all_is_overwritten),
		cmocka_unit_test(test_overwritten_while_it_is_read),
		cmocka_unit_test(test_overwritten_before_it_is_measured),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_inherit),
		cmocka_unit_test(test_broken_pages),
		cmocka_unit_test(test_broken_page_is_named),
		cmocka_unit_test(test_all_pages_broken),
		cmocka_unit_test(test_counters_that_are_made_up),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
