// SPDX-License-Identifier: Apache-2.0
/*
 * The writer, and a consuming reader, arrive at each load of a dump from shared memory: of
 * reader_order.c and reader_dump.c, which are compiled here with a hook in each.
 *
 * What is shown is what dump_view.h says, and all of it is accounted for.
 */
#include "ringbuf_c/types.h"

static void step(void);

#undef READ_ONCE
#undef smp_load_acquire
#define READ_ONCE(x) (step(), __atomic_load_n(&(x), __ATOMIC_RELAXED))
#define smp_load_acquire(p) (step(), __atomic_load_n((p), __ATOMIC_ACQUIRE))

#include "../src/reader_dump.c" // NOLINT
#include "../src/reader_order.c" // NOLINT

#include "dump_support.h"
#include "dump_view.h"

#define BIG_PAYLOAD 1344U
#define TEXT_MAX 8192U
#define NEVER UINT32_MAX

/* What happens at a step. */
struct arrival {
	u32 consumed; /* bytes of text, before and, */
	u32 written;  /* events, */
	u32 consumed_behind; /* behind */
};

static const struct arrival arrivals[] = {
	{ 0, 1, 0 }, { 0, 2, 0 },    { 0, 3, 0 },     { 0, 4, 0 },   { 0, 7, 0 },
	{ 0, 30, 0 }, { 500, 3, 0 }, { 500, 4, 500 }, { 0, 10, 500 }, { 90, 12, 90 },
};

static struct test_remote *remote;
static const struct arrival *arrival;
static u32 steps, arrives_at;
static bool may_consume; /* the dump has begun */

static void write_events(u32 nr)
{
	struct test_ring *ring = &remote->rings[0];

	for (; nr; nr--)
		assert_true(ring_write_sized(ring, BIG_PAYLOAD, event_time(ring->serial + 1)));
}

static void consume_bytes(u32 size)
{
	static char consumed[TEXT_MAX];

	if (size && may_consume)
		remote_text(remote, 0, consumed, size);
}

static void step(void)
{
	if (steps++ != arrives_at)
		return;
	consume_bytes(arrival->consumed);
	write_events(arrival->written);
	consume_bytes(arrival->consumed_behind);
}

/* What is in the ring when the dump begins. */
struct scene {
	u32 nr_pages;
	u32 before;   /* events, then */
	u32 consumed; /* bytes of text, then */
	u32 behind;   /* events */
};

static const struct scene scenes[] = {
	{ 3, 1, 0, 0 },    { 3, 5, 0, 0 },    { 3, 30, 0, 0 },  { 3, 5, 100, 0 },
	{ 3, 5, 100, 30 }, { 3, 30, 500, 0 }, { 4, 7, 0, 0 },   { 4, 9, 0, 0 },
	{ 4, 7, 40, 5 },   { 4, 7, 40, 6 },   { 4, 7, 40, 20 }, { 4, 40, 120, 4 },
};

static void set_scene(const struct scene *scene)
{
	remote = remote_create(1, scene->nr_pages);
	arrives_at = NEVER;
	may_consume = true;
	write_events(scene->before);
	consume_bytes(scene->consumed);
	write_events(scene->behind);
}

static void check_text(const struct test_dump *dump, const char *text, u32 length)
{
	struct view view = {
		.of_reader = dump->cpus[0].index[0].entries,
		.of_host = dump->cpus[0].own_events,
	};

	take_text(&view, text, text + length);
	assert_int_equal(view.seen, dump->cpus[0].events);
}

/* Returns whether anything has arrived: if not, the dump has fewer steps. */
static bool dump_once(const struct scene *scene, u32 at)
{
	static char text[TEXT_MAX + 1];
	struct test_dump *dump;
	u32 length;
	bool arrived;

	set_scene(scene);
	steps = 0;
	arrives_at = at;
	may_consume = false;
	dump = dump_create(remote, 0);
	may_consume = true;
	dump_start(dump);
	length = dump_read(&dump->cursor, 0, text, TEXT_MAX, TEXT_MAX);
	arrived = steps > at;
	text[length] = 0;
	if (getenv("DUMP_RACE"))
		print_message("scene %td, arrival %td at %u:\n%s", scene - scenes,
			      arrival - arrivals, at, text);
	check_text(dump, text, length);
	if (!arrived) {
		reader_poll(&remote->reader);
		assert_int_equal(dump->cpus[0].events, reader_unread(&remote->reader, 0));
	}
	dump_close(dump);
	remote_destroy(remote);
	return arrived;
}

/* Most steps are copies of a word: not each of them, but others in each scene. */
#define STRIDE 5U

static void test_arrivals(void **state)
{
	u32 dumps = 0;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(scenes); i++) {
		for (u32 j = 0; j < ARRAY_SIZE(arrivals); j++) {
			arrival = &arrivals[j];
			for (u32 at = (5 * i + j) % STRIDE; dump_once(&scenes[i], at); dumps++)
				at += at < 3 * STRIDE ? 1 : STRIDE;
		}
	}
	print_message("%u dumps\n", dumps);
	assert_true(dumps > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arrivals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
