// SPDX-License-Identifier: Apache-2.0
/*
 * The swap against the writer, without threads: each access of ring.c to a shared
 * word is a step, and before any step the other side can be run. So each scenario
 * is run again with the other side arriving at each step.
 */
#include "ringbuf_c/types.h"

static void step(void);

#undef READ_ONCE
#undef WRITE_ONCE
#undef smp_load_acquire
#undef smp_store_release
#undef load_sc
#undef store_sc
#undef try_cmpxchg
#define READ_ONCE(x) (step(), __atomic_load_n(&(x), __ATOMIC_RELAXED))
#define WRITE_ONCE(x, v) (step(), __atomic_store_n(&(x), (v), __ATOMIC_RELAXED))
#define smp_load_acquire(p) (step(), __atomic_load_n((p), __ATOMIC_ACQUIRE))
#define smp_store_release(p, v) (step(), __atomic_store_n((p), (v), __ATOMIC_RELEASE))
#define load_sc(p) (step(), __atomic_load_n((p), __ATOMIC_SEQ_CST))
#define store_sc(p, v) (step(), __atomic_store_n((p), (v), __ATOMIC_SEQ_CST))
#define try_cmpxchg(p, old, new) \
	(step(), __atomic_compare_exchange_n((p), (old), (new), false, __ATOMIC_ACQ_REL, \
					     __ATOMIC_ACQUIRE))

#include "../src/ring.c"

#include "support.h"

/* Three to a page: moves of the tail are frequent. */
#define BIG_PAYLOAD 1344U
#define BIG_PER_PAGE 3U
#define NEVER UINT32_MAX

/* --- stepping ---------------------------------------------------------------------------- */

static struct {
	void (*run)(void); /* the other side; NULL: nobody comes */
	u32 at;            /* before this step */
	bool again;        /* and before each later one */
	u32 count;         /* steps so far */
	u32 hits;          /* times that it came */
	bool inside;
} intruder;

static void step(void)
{
	if (intruder.inside)
		return;
	if (intruder.run && (intruder.count == intruder.at ||
			     (intruder.again && intruder.count > intruder.at))) {
		intruder.inside = true;
		intruder.hits++;
		intruder.run();
		intruder.inside = false;
	}
	intruder.count++;
}

static void send_intruder(void (*run)(void), u32 at, bool again)
{
	intruder.run = run;
	intruder.at = at;
	intruder.again = again;
	intruder.count = 0;
	intruder.hits = 0;
}

/* True if it came. */
static bool call_intruder_back(void)
{
	intruder.run = NULL;
	return intruder.hits;
}

/* --- both sides --------------------------------------------------------------------------- */

static struct test_ring ring;
static u32 burst; /* events that the writer writes when it is the intruder */

static void write_burst(void)
{
	for (u32 i = 0; i < burst; i++)
		ring_write_sized(&ring, BIG_PAYLOAD, ring.now + 1);
}

/* A host that does as SPEC B.7 says, and checks each event and each lost count. */
static struct {
	u32 offset; /* on the page that it owns */
	u64 read;
	u64 lost;
	u32 next; /* serial that has to come */
	u32 busy; /* swaps that gave -EBUSY */
} host;

static void host_consume(void)
{
	const struct buffer_data_page *page = ring_reader_page(&ring);
	struct rb_record record = { .next = host.offset };
	bool broken;
	u32 commit = rb_page_commit(page, &broken);

	assert_false(broken);
	while (rb_walk_next(page->data, commit, record.next, 0, &record) == RB_WALK_EVENT) {
		assert_int_equal(((const struct test_event *)record.payload)->serial, host.next);
		host.next++;
		host.read++;
	}
	host.offset = record.next;
}

static bool host_behind(void)
{
	return (s64)(ring.meta->entries - host.read - host.lost) > 0;
}

static void host_swap(void)
{
	int ret;

	host_consume();
	if (!host_behind())
		return;
	ret = ring_swap(&ring);
	if (ret) {
		assert_int_equal(ret, -EBUSY);
		host.busy++;
		return;
	}
	host.lost += ring.meta->reader.lost_events;
	host.next += (u32)ring.meta->reader.lost_events;
	host.offset = 0;
	host_consume();
}

/* Read what is left; then nothing may be missing, and nothing counted twice. */
static void expect_all_accounted_for(void)
{
	host_consume();
	for (u32 swaps = 0; host_behind(); swaps++) {
		assert_true(swaps < ring.rb.nr_pages);
		host.busy = 0;
		host_swap();
		assert_int_equal(host.busy, 0);
	}
	assert_int_equal(host.next, ring.serial + 1);
	assert_int_equal(host.lost, ring.meta->overrun);
	assert_int_equal(ring.meta->entries, host.read + host.lost);
}

/* @nr events, with @swaps swaps spread over them. */
static void set_scene(u32 nr_pages, u32 nr, u32 swaps)
{
	u32 every = nr / (swaps + 1) + 1;

	ring_setup(&ring, nr_pages);
	memset(&host, 0, sizeof(host));
	host.next = 1;
	burst = 1;
	for (u32 i = 1; i <= nr; i++) {
		write_burst();
		if (i % every == 0)
			host_swap();
	}
}

static void for_each_scene(void (*check)(u32 nr_pages, u32 nr, u32 swaps))
{
	for (u32 nr_pages = 3; nr_pages <= 5; nr_pages++)
		for (u32 nr = 0; nr <= 3 * BIG_PER_PAGE * nr_pages; nr++)
			for (u32 swaps = 0; swaps <= 3; swaps++)
				check(nr_pages, nr, swaps);
}

/* --- the host arrives at each step of the writer ------------------------------------------- */

static u32 busy_seen, moves_seen;

static void check_swap_in_write(u32 nr_pages, u32 nr, u32 swaps)
{
	bool came = true;

	for (u32 at = 0; came; at++) {
		set_scene(nr_pages, nr, swaps);
		send_intruder(host_swap, at, false);
		ring_write_sized(&ring, BIG_PAYLOAD, ring.now + 1);
		came = call_intruder_back();
		busy_seen += host.busy;
		moves_seen += ring.meta->pages_lost > 0;
		expect_all_accounted_for();
		ring_free(&ring);
	}
}

static void test_swap_at_each_step_of_a_write(void **state)
{
	(void)state;
	busy_seen = moves_seen = 0;
	for_each_scene(check_swap_in_write);
	assert_true(moves_seen > 100);
	assert_true(busy_seen > 10); /* it came while HEAD_MOVING was there */
}

/* --- the writer arrives at each step of a swap --------------------------------------------- */

static void check_write_in_swap(u32 nr_pages, u32 nr, u32 swaps)
{
	for (u32 laps = 0; laps <= 2 * BIG_PER_PAGE * nr_pages; laps++) {
		bool came = true;

		for (u32 at = 0; came; at++) {
			set_scene(nr_pages, nr, swaps);
			burst = laps;
			send_intruder(write_burst, at, false);
			host_swap();
			came = call_intruder_back();
			assert_int_equal(host.busy, 0); /* it came once: a retry is enough */
			expect_all_accounted_for();
			ring_free(&ring);
		}
	}
}

static void test_write_at_each_step_of_a_swap(void **state)
{
	(void)state;
	for_each_scene(check_write_in_swap);
}

/*
 * The ABA case: the swap has seen the link 2 -HEAD-> 1 and the overrun. Before its
 * exchange the writer laps the ring: the same link says the same again, but two pages
 * have been lost meanwhile.
 */
static void test_aba(void **state)
{
	u32 exchange;
	u64 link;

	(void)state;
	/* The exchange is the third step from the end of a swap: two stores follow. */
	set_scene(3, 2 * BIG_PER_PAGE, 0);
	send_intruder(NULL, NEVER, false);
	assert_int_equal(ring_swap(&ring), 0);
	exchange = intruder.count - 3;
	ring_free(&ring);

	set_scene(3, 2 * BIG_PER_PAGE, 0);
	link = ring.bpages[2].next;
	assert_int_equal((u32)link, make_link(1, LINK_HEAD));
	burst = 2 * BIG_PER_PAGE;
	send_intruder(write_burst, exchange, false);
	assert_int_equal(ring_swap(&ring), 0);
	assert_true(call_intruder_back());
	assert_true(intruder.count > exchange + 3); /* it had to try again */

	assert_int_equal(ring.meta->reader.lost_events, 2 * BIG_PER_PAGE);
	assert_int_equal(ring.meta->reader.lost_events, ring.meta->overrun);
	assert_int_equal(page_content(ring_reader_page(&ring)).first, 2 * BIG_PER_PAGE + 1);
	ring_free(&ring);

	/* That was the ABA case: but for its tag, the link is what it was. */
	set_scene(3, 2 * BIG_PER_PAGE, 0);
	write_burst();
	burst = 2 * BIG_PER_PAGE - 1;
	write_burst();
	assert_int_equal((u32)ring.bpages[2].next, (u32)link);
	assert_true(ring.bpages[2].next != link);
	ring_free(&ring);
}

/* A writer that never stops: the swap gives up, and nothing is broken by it. */
static void test_swap_gives_up(void **state)
{
	(void)state;
	for (u32 nr_pages = 3; nr_pages <= 5; nr_pages++) {
		set_scene(nr_pages, 4 * BIG_PER_PAGE * nr_pages, 0);
		burst = BIG_PER_PAGE;
		send_intruder(write_burst, 0, true);
		assert_int_equal(ring_swap(&ring), -EBUSY);
		call_intruder_back();
		assert_true(intruder.hits > RB_SWAP_RETRIES);
		assert_int_equal(ring.meta->reader.id, 0);
		assert_int_equal(ring.meta->reader.lost_events, 0);
		expect_all_accounted_for();
		ring_free(&ring);
	}
}

/* --- the writer arrives at each step of a reset -------------------------------------------- */

static void test_write_at_each_step_of_a_reset(void **state)
{
	bool came = true;

	(void)state;
	for (u32 at = 0; came; at++) {
		set_scene(4, 30, 2);
		burst = 10;
		send_intruder(write_burst, at, false);
		assert_int_equal(simple_ring_buffer_reset(&ring.rb), 0);
		came = call_intruder_back();
		/* Written before the reset and forgotten, or refused. */
		assert_int_equal(ring.meta->entries, 0);
		assert_int_equal(ring.meta->overrun, 0);

		memset(&host, 0, sizeof(host));
		ring.serial = 0;
		host.next = 1;
		burst = 40;
		write_burst();
		expect_all_accounted_for();
		ring_free(&ring);
	}
}

/* --- HEAD_MOVING, and no head at all -------------------------------------------------------- */

static u32 relaxed;
static u32 moved_after; /* relax calls until the head has moved */

static void relax(void)
{
	if (++relaxed == moved_after)
		WRITE_ONCE(ring.bpages[2].next, make_head_link(1, 0));
}

static void stop_head(u64 link, u32 after)
{
	set_scene(3, 4, 0);
	ring.bpages[2].next = link;
	ring.rb.relax = relax;
	relaxed = 0;
	moved_after = after;
}

static void test_head_moving_for_ever(void **state)
{
	(void)state;
	stop_head(make_link(1, LINK_HEAD_MOVING), NEVER);
	assert_int_equal(ring_swap(&ring), -EBUSY);
	assert_int_equal(relaxed, MOVING_LOOKS);
	assert_int_equal(ring.meta->reader.id, 0);

	/* Reset cannot find it either; tracing is on afterwards as it was before. */
	assert_int_equal(simple_ring_buffer_reset(&ring.rb), -EBUSY);
	assert_int_equal(simple_ring_buffer_status(&ring.rb), SIMPLE_RB_READY);
	assert_int_equal(ring.meta->entries, 4);

	ring.rb.relax = NULL; /* EL2 has none */
	assert_int_equal(ring_swap(&ring), -EBUSY);
	ring_free(&ring);
}

static void test_head_moving_waits(void **state)
{
	static const u32 waits[] = { 1, 2, 10, MOVING_LOOKS - 1 };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(waits); i++) {
		stop_head(make_link(1, LINK_HEAD_MOVING), waits[i]);
		assert_int_equal(ring_swap(&ring), 0);
		assert_int_equal(relaxed, waits[i]);
		assert_int_equal(ring.meta->reader.id, 1);
		ring_free(&ring);
	}
}

static void test_no_head(void **state)
{
	(void)state;
	stop_head(make_link(1, LINK_NORMAL), NEVER);
	assert_int_equal(ring_swap(&ring), -EBUSY);
	assert_int_equal(simple_ring_buffer_reset(&ring.rb), -EBUSY);
	assert_int_equal(simple_ring_buffer_status(&ring.rb), SIMPLE_RB_READY);
	simple_ring_buffer_enable_tracing(&ring.rb, false);
	assert_int_equal(simple_ring_buffer_reset(&ring.rb), -EBUSY);
	assert_int_equal(simple_ring_buffer_status(&ring.rb), SIMPLE_RB_UNAVAILABLE);
	assert_int_equal(relaxed, 0);
	ring_free(&ring);
}

/* The hint may be anywhere behind the head. */
static void test_head_hint_lags(void **state)
{
	(void)state;
	for (u32 hint = 1; hint < 5; hint++) {
		set_scene(5, 8 * BIG_PER_PAGE, 0);
		ring.rb.head = hint;
		expect_all_accounted_for();
		ring_free(&ring);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_swap_at_each_step_of_a_write),
		cmocka_unit_test(test_write_at_each_step_of_a_swap),
		cmocka_unit_test(test_aba),
		cmocka_unit_test(test_swap_gives_up),
		cmocka_unit_test(test_write_at_each_step_of_a_reset),
		cmocka_unit_test(test_head_moving_for_ever),
		cmocka_unit_test(test_head_moving_waits),
		cmocka_unit_test(test_no_head),
		cmocka_unit_test(test_head_hint_lags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
