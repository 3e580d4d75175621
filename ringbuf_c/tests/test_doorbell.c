// SPDX-License-Identifier: Apache-2.0
/*
 * Arming against an event. test_doorbell [EVENTS]
 *
 * Each event comes at about the time at which the host arms: then the host either sees it or
 * hears of it. The writer writes no other one before the host knows, so that an event that is
 * missed is missed for ever.
 */
#define _GNU_SOURCE
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#define DEFAULT_EVENTS 200000U
#define MOST_SPINS 256U /* of the writer */
#define MOST_HOST_SPINS 16384U /* it has to hear of its turn first */
#define YIELD_EVERY 1024U
#define PATIENCE_S 20

static u32 total_events = DEFAULT_EVENTS;
static struct test_ring ring;
static u32 rings; /* atomic: how often it has rung */

static void count_ring(struct simple_rb_per_cpu *rb)
{
	assert_ptr_equal(rb, &ring.rb);
	__atomic_fetch_add(&rings, 1, __ATOMIC_RELEASE);
}

static int setup(void **state)
{
	(void)state;
	ring_setup(&ring, 3);
	ring.rb.ring = count_ring;
	rings = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ring_free(&ring);
	return 0;
}

/* --- one thread ----------------------------------------------------------------------- */

static void test_silent_unless_armed(void **state)
{
	(void)state;
	ring_fill(&ring, TEST_PAYLOAD, 1000);
	assert_int_equal(rings, 0);
}

static void test_rings_once_for_each_arming(void **state)
{
	(void)state;
	for (u32 arming = 1; arming <= 3; arming++) {
		simple_ring_buffer_arm(&ring.rb);
		simple_ring_buffer_arm(&ring.rb);
		assert_int_equal(rings, arming - 1);
		ring_fill(&ring, TEST_PAYLOAD, 500);
		assert_int_equal(rings, arming);
	}
}

static void test_silent_once_disarmed(void **state)
{
	(void)state;
	simple_ring_buffer_arm(&ring.rb);
	simple_ring_buffer_disarm(&ring.rb);
	ring_fill(&ring, TEST_PAYLOAD, 10);
	assert_int_equal(rings, 0);
}

static void test_no_event_no_ring(void **state)
{
	(void)state;
	simple_ring_buffer_arm(&ring.rb);
	assert_false(ring_write_sized(&ring, RB_MAX_PAYLOAD + 8, 1));
	simple_ring_buffer_enable_tracing(&ring.rb, false);
	assert_false(ring_write_sized(&ring, TEST_PAYLOAD, 2));
	assert_int_equal(rings, 0);
	simple_ring_buffer_enable_tracing(&ring.rb, true);
	ring_write(&ring, 3);
	assert_int_equal(rings, 1);
}

static void see_writing(struct simple_rb_per_cpu *rb)
{
	assert_int_equal(simple_ring_buffer_status(rb), SIMPLE_RB_WRITING);
	assert_int_equal(smp_load_acquire(&rb->meta->entries), ring.serial);
	count_ring(rb);
}

static void test_rings_before_the_event_ends_and_after_it_can_be_seen(void **state)
{
	(void)state;
	ring.rb.ring = see_writing;
	simple_ring_buffer_arm(&ring.rb);
	ring_write(&ring, 1);
	assert_int_equal(rings, 1);
}

/* --- two threads ---------------------------------------------------------------------- */

static u32 turn; /* atomic: how many events there may be */
static u32 give_up; /* atomic */

static void spin(u64 *random, u32 most)
{
	for (u64 i = next_random(random) % most; i; i--)
		barrier();
}

static void relax(void)
{
	static _Thread_local u32 calls;

	if (++calls % YIELD_EVERY == 0)
		sched_yield();
}

static void *write_events(void *arg)
{
	u64 random = 1;

	(void)arg;
	for (u32 event = 1; event <= total_events; event++) {
		while (smp_load_acquire(&turn) < event) {
			if (READ_ONCE(give_up))
				return NULL;
			relax();
		}
		spin(&random, MOST_SPINS);
		ring_write(&ring, event);
	}
	return NULL;
}

static bool seen(u32 event)
{
	return smp_load_acquire(&ring.meta->entries) >= event;
}

static bool heard(u32 before)
{
	time_t start = time(NULL);

	while (__atomic_load_n(&rings, __ATOMIC_ACQUIRE) == before) {
		if (time(NULL) > start + PATIENCE_S)
			return false;
		relax();
	}
	return true;
}

/* Returns whether it was heard of, not seen. */
static bool expect_event(u32 event, u64 *random)
{
	u32 before = __atomic_load_n(&rings, __ATOMIC_ACQUIRE);

	smp_store_release(&turn, event);
	spin(random, MOST_HOST_SPINS);
	simple_ring_buffer_arm(&ring.rb);
	ring.rb.membarrier();
	if (seen(event))
		return false;
	if (!heard(before)) {
		WRITE_ONCE(give_up, 1);
		fail_msg("event %u was neither seen nor heard of", event);
	}
	assert_true(seen(event));
	return true;
}

/*
 * An event that was seen may have rung, too, or yet ring for the next arming: wait until it has
 * ended, so that what rings next is the next one.
 */
static void settle(void)
{
	simple_ring_buffer_disarm(&ring.rb);
	ring.rb.membarrier();
	simple_ring_buffer_wait_writer(&ring.rb);
}

static void test_each_event_is_seen_or_heard_of(void **state)
{
	u64 random = 2;
	u32 nr_heard = 0;
	pthread_t writer;

	(void)state;
	if (!ring.rb.membarrier)
		skip(); /* no doorbell without it */
	turn = 0;
	assert_int_equal(pthread_create(&writer, NULL, write_events, NULL), 0);
	for (u32 event = 1; event <= total_events; event++) {
		nr_heard += expect_event(event, &random);
		settle();
	}
	pthread_join(writer, NULL);
	assert_true(rings <= total_events);
	print_message("doorbell: %u events: %u rings, %u waited for\n", total_events, rings,
		      nr_heard);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_silent_unless_armed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rings_once_for_each_arming, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silent_once_disarmed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_event_no_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_rings_before_the_event_ends_and_after_it_can_be_seen, setup,
			teardown),
		cmocka_unit_test_setup_teardown(test_each_event_is_seen_or_heard_of, setup,
						teardown),
	};

	if (argc > 1)
		total_events = (u32)strtoul(argv[1], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
