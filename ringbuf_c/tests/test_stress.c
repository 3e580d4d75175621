// SPDX-License-Identifier: Apache-2.0
/*
 * A writer and a host that reads, at full speed. test_stress [EVENTS]
 * Serials rise by one, except where a LOST line says by how many they do not.
 */
#include "support.h"

#include <pthread.h>
#include <sched.h>

#define TEXT_SIZE 65536U
#define DEFAULT_EVENTS 1000000U

static u64 nr_events = DEFAULT_EVENTS;

struct writer {
	struct test_ring *ring;
	u32 rest_after; /* gives the host a chance after so many events; 0: never */
	u32 done;       /* atomic */
};

static void relax(void)
{
	sched_yield();
}

static void *write_events(void *arg)
{
	struct writer *writer = arg;

	for (u64 i = 1; i <= nr_events; i++) {
		/* cmocka's asserts are for the main thread: it will miss the event. */
		ring_write_sized(writer->ring, TEST_PAYLOAD, i * 1000);
		if (writer->rest_after && i % writer->rest_after == 0)
			sched_yield();
	}
	smp_store_release(&writer->done, 1);
	return NULL;
}

struct account {
	u64 serial; /* of the last event */
	u64 seen, lost;
};

static void account_line(struct account *account, const char *line)
{
	unsigned long long number;

	if (sscanf(line, "CPU:0 [LOST %llu EVENTS]", &number) == 1) {
		assert_true(number > 0);
		account->lost += number;
		account->serial += number;
		return;
	}
	assert_int_equal(sscanf(line, "[000]\t%*u.%*u: selftest id=%llu", &number), 1);
	assert_int_equal(number, account->serial + 1);
	account->serial = number;
	account->seen++;
}

/* The text ends with whole lines: the buffer has room for any. */
static void account_text(struct account *account, char *text)
{
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		account_line(account, line);
}

static void read_until_done(struct test_remote *remote, struct writer *writer,
			    struct account *account)
{
	static char text[TEXT_SIZE + 1];
	u32 done, length;

	do {
		done = smp_load_acquire(&writer->done); /* before the last look */
		length = remote_text(remote, 0, text, TEXT_SIZE);
		text[length] = 0;
		if (length && text[length - 1] != '\n') {
			u32 rest = reader_text(&remote->reader, 0, &remote->text_carry,
					       text + length, RENDER_LINE_MAX);

			fail_msg("a line in two: %u + %u", length, rest);
		}
		account_text(account, text);
		if (!length)
			sched_yield();
	} while (!done || length);
}

static void stress(u32 nr_pages, u32 rest_after)
{
	struct test_remote *remote;
	struct writer writer = { .rest_after = rest_after };
	struct account account = { 0 };
	struct reader_stats stats;
	pthread_t thread;

	remote = remote_create(1, nr_pages);
	writer.ring = &remote->rings[0];
	remote->rings[0].rb.relax = relax;
	assert_int_equal(pthread_create(&thread, NULL, write_events, &writer), 0);
	read_until_done(remote, &writer, &account);
	pthread_join(thread, NULL);

	stats = remote_stats(remote, 0);
	assert_int_equal(account.serial, nr_events);
	assert_int_equal(account.seen, stats.read);
	assert_int_equal(account.lost, stats.lost);
	assert_int_equal(stats.lost, stats.overrun);
	assert_int_equal(stats.entries, nr_events);
	assert_int_equal(stats.entries, stats.read + stats.overrun);
	assert_int_equal(stats.unread, 0);
	assert_int_equal(stats.skipped, 0);
	assert_int_equal(stats.broken_pages, 0);
	print_message("%u pages: %llu read, %llu lost\n", nr_pages,
		      (unsigned long long)stats.read, (unsigned long long)stats.lost);
	remote_destroy(remote);
}

static void test_3_pages(void **state)
{
	(void)state;
	stress(3, 0);
}

static void test_3_pages_resting_writer(void **state)
{
	(void)state;
	stress(3, 50);
}

static void test_17_pages(void **state)
{
	(void)state;
	stress(17, 0);
}

static void test_17_pages_resting_writer(void **state)
{
	(void)state;
	stress(17, 1000);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_3_pages),
		cmocka_unit_test(test_3_pages_resting_writer),
		cmocka_unit_test(test_17_pages),
		cmocka_unit_test(test_17_pages_resting_writer),
	};

	if (argc > 1)
		nr_events = strtoull(argv[1], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
