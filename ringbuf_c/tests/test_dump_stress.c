// SPDX-License-Identifier: Apache-2.0
/*
 * A writer, a consuming host, and dumps that are measured and read in a thread of their own,
 * at full speed. test_dump_stress [DUMPS]
 *
 * The host begins each dump between two reads. Nothing is shown that had been consumed before
 * the dump began; for the rest, see dump_view.h.
 */
#include "dump_support.h"
#include "dump_view.h"

#include <pthread.h>
#include <sched.h>

#define DEFAULT_DUMPS 3000U
#define TEXT_SIZE 65536U

struct config {
	const char *name;
	u32 nr_pages;
	u32 consume_every; /* dumps; 0: nobody consumes */
	u32 pause_every;   /* dumps: the writer is paused, and all must be there; 0: never */
};

struct run {
	const struct config *config;
	struct test_remote *remote;
	struct test_ring *ring;
	u32 stop;     /* atomic: the writer shall */
	u64 consumed; /* serial of the last event that was consumed or lost before it */
	u64 random;
	/* for print_result() */
	u64 shown, lost, gaps;
};

static u32 nr_dumps = DEFAULT_DUMPS;

/* --- the writer ----------------------------------------------------------------------- */

static void *write_events(void *arg)
{
	struct run *run = arg;
	struct test_ring *ring = run->ring;

	while (!READ_ONCE(run->stop)) {
		u64 serial = ring->serial + 1;

		if (!ring_write_sized(ring, TEST_PAYLOAD + 8 * (u32)(serial % 4),
				      event_time(serial)))
			sched_yield(); /* tracing is off */
		else if (serial % 256 == 0)
			sched_yield(); /* on one CPU, the others would not get far */
	}
	return NULL;
}

static void turn(struct run *run, bool on)
{
	assert_int_equal(simple_ring_buffer_enable_tracing(&run->ring->rb, on), 0);
}

static void relax(void)
{
	sched_yield();
}

/* --- the thread that reads dumps -------------------------------------------------------- */

struct reading {
	struct test_dump *dump;
	char *text;
	u32 length;
};

static void *read_dump(void *arg)
{
	struct reading *reading = arg;
	struct dump_cursor *cursor = &reading->dump->cursor;
	u64 length;
	u32 room;

	dump_start(reading->dump);
	length = dump_length(cursor, (char[1000]){ 0 }, 1000);
	/* By then a page may be lost, and its line be there instead. */
	room = (u32)length + 1000;
	reading->text = malloc(room + 1);
	reading->length = 0;
	dump_rewind(cursor);
	for (;;) {
		u32 got = dump_read(cursor, reading->length, reading->text + reading->length,
				    room - reading->length, 1 + room / 3 < room - reading->length ?
							    1 + room / 3 : room - reading->length);

		if (!got)
			break;
		reading->length += got;
		sched_yield();
	}
	reading->text[reading->length] = 0;
	return NULL;
}

/* --- the host --------------------------------------------------------------------------- */

static void consume(struct run *run)
{
	static char text[TEXT_SIZE + 1];
	u32 size = (u32)(next_random(&run->random) % TEXT_SIZE) + 200;
	u32 length;
	struct view view = { .serial = run->consumed };

	size = size < TEXT_SIZE ? size : TEXT_SIZE;
	length = remote_text(run->remote, 0, text, size);
	text[length] = 0;
	take_text(&view, text, text + length);
	expect(!view.gaps);
	run->consumed = view.serial;
}

static void one_dump(struct run *run, u32 nr)
{
	const struct config *config = run->config;
	bool pause = config->pause_every && nr % config->pause_every == 0;
	struct reading reading;
	struct view view = { .serial = run->consumed };
	pthread_t thread;

	if (pause)
		turn(run, false);
	reading.dump = dump_create(run->remote, READER_ALL_CPUS);
	assert_int_equal(pthread_create(&thread, NULL, read_dump, &reading), 0);
	for (u32 i = next_random(&run->random) % 8; config->consume_every && i; i--)
		consume(run);
	pthread_join(thread, NULL);

	view.of_reader = reading.dump->cpus[0].index[0].entries;
	view.of_host = reading.dump->cpus[0].own_events;
	take_text(&view, reading.text, reading.text + reading.length);
	expect(view.seen == reading.dump->cpus[0].events);
	if (pause) {
		const struct trace_buffer_meta *meta = run->ring->meta;

		assert_int_equal(view.lost, 0);
		assert_true(view.seen == 0 || view.serial == run->ring->serial);
		assert_true(view.seen <= meta->entries - meta->overrun);
		if (!config->consume_every)
			assert_int_equal(view.seen, meta->entries - meta->overrun);
		turn(run, true);
	}
	run->shown += view.seen - view.lost;
	run->lost += view.lost;
	run->gaps += view.gaps;
	free(reading.text);
	dump_close(reading.dump);
}

static void stress(void **state)
{
	struct run run = { .config = *state, .random = 1 };
	pthread_t thread;

	run.remote = remote_create(1, run.config->nr_pages);
	run.ring = &run.remote->rings[0];
	run.ring->rb.relax = relax;
	assert_int_equal(pthread_create(&thread, NULL, write_events, &run), 0);
	for (u32 nr = 1; nr <= nr_dumps; nr++) {
		if (run.config->consume_every && nr % run.config->consume_every == 0)
			consume(&run);
		one_dump(&run, nr);
	}
	WRITE_ONCE(run.stop, 1);
	pthread_join(thread, NULL);
	print_message("%s: %llu shown, %llu lost, %llu gaps\n", run.config->name,
		      (unsigned long long)run.shown, (unsigned long long)run.lost,
		      (unsigned long long)run.gaps);
	remote_destroy(run.remote);
}

static const struct config configs[] = {
	{ "3 pages, nobody consumes", 3, 0, 4 },
	{ "3 pages", 3, 3, 4 },
	{ "9 pages", 9, 2, 3 },
	{ "40 pages", 40, 5, 0 },
};

int main(int argc, char **argv)
{
	struct CMUnitTest tests[ARRAY_SIZE(configs)];

	if (argc > 1)
		nr_dumps = (u32)strtoul(argv[1], NULL, 0);
	nr_dumps /= ARRAY_SIZE(configs);
	for (u32 i = 0; i < ARRAY_SIZE(configs); i++)
		tests[i] = (struct CMUnitTest){ configs[i].name, stress, NULL, NULL,
						(void *)&configs[i] };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
