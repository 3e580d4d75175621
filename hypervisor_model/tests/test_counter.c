// SPDX-License-Identifier: Apache-2.0
/* A counter with faults, on counts that are made up: what it shows, and that it never falls. */
#include "host.h"

#include <sched.h>

#include "../src/internal.h"

#define NR_LOOKS 200000U

static struct faulty_counter counter;
static struct trace_clock host_clock;
static u64 now;

/* A count is 1/2 ns. */
static int setup(void **state)
{
	(void)state;
	counter = (struct faulty_counter){ 0 };
	host_clock = (struct trace_clock){ 0 };
	now = 1000000;
	trace_clock_update(&host_clock, 1U << 31, 32, 70000000, 0);
	counter_follow(&counter, &host_clock, now);
	return 0;
}

static u64 right(void)
{
	return trace_clock_convert(&host_clock, now);
}

static u64 shown(void)
{
	return trace_clock_convert(&counter.clock, now);
}

static void pass(u64 ns)
{
	now += 2 * ns;
	counter_look(&counter, now);
}

static void begin(enum counter_fault_kind kind, u32 ns)
{
	counter_begin(&counter, (struct counter_fault){ kind, ns }, now);
}

static void test_right(void **state)
{
	(void)state;
	for (u32 i = 0; i < 1000; i++) {
		assert_int_equal(shown(), right());
		pass(i * 1000);
	}
}

static void test_nobody_has_said_how_to_convert(void **state)
{
	(void)state;
	counter = (struct faulty_counter){ 0 };
	for (u32 kind = 0; kind < COUNTER_NR_KINDS; kind++) {
		begin(kind, 10);
		begin(COUNTER_RIGHT, 0);
	}
	assert_true(shown() <= 10);
	counter_follow(&counter, &host_clock, now);
	assert_int_equal(shown(), right());
}

static void test_ahead(void **state)
{
	u64 at;

	(void)state;
	begin(COUNTER_AHEAD, 5000);
	assert_int_equal(shown(), right() + 5000);
	pass(300);
	assert_int_equal(shown(), right() + 5000);
	begin(COUNTER_RIGHT, 0);
	at = shown();
	pass(4999);
	assert_int_equal(shown(), at); /* until the right time is there */
	pass(2);
	assert_int_equal(shown(), at + 1);
	assert_int_equal(shown(), right());
}

static void test_still(void **state)
{
	u64 at = shown();

	(void)state;
	begin(COUNTER_STILL, 0);
	pass(7000);
	pass(7000);
	assert_int_equal(shown(), at);
	begin(COUNTER_RIGHT, 0);
	assert_int_equal(shown(), right());
	assert_int_equal(shown(), at + 14000);
}

static void test_fault_ends_when_it_is_too_wrong(void **state)
{
	(void)state;
	begin(COUNTER_STILL, 0);
	pass(COUNTER_MOST_WRONG_NS);
	assert_true(shown() < right());
	pass(1);
	assert_int_equal(shown(), right());
}

static void test_drift(void **state)
{
	u64 ahead;

	(void)state;
	begin(COUNTER_SLOW, 0);
	pass(40960000);
	assert_in_range(right() - shown(), 9990, 10010);
	begin(COUNTER_RIGHT, 0);
	assert_int_equal(shown(), right());
	begin(COUNTER_FAST, 0);
	pass(40960000);
	ahead = shown() - right();
	assert_in_range(ahead, 9990, 10010);
	begin(COUNTER_RIGHT, 0);
	pass(ahead + 1);
	assert_int_equal(shown(), right());
}

/* Bent a little, it does not fall; set back by far, it follows, as any clock does. */
static void test_host_changes_its_mind(void **state)
{
	u64 at = shown();

	(void)state;
	trace_clock_update(&host_clock, 1U << 31, 32, right() - 300, now);
	counter_follow(&counter, &host_clock, now);
	assert_int_equal(shown(), at);
	pass(301);
	assert_int_equal(shown(), right());
	trace_clock_update(&host_clock, 1U << 31, 32, 5, now);
	counter_follow(&counter, &host_clock, now);
	assert_int_equal(shown(), 5);
}

/* Whatever comes: it never falls, and is never wrong by much. */
static void test_never_back(void **state)
{
	u64 seed = 1, last = shown(), wrong = 0;

	(void)state;
	for (u32 i = 0; i < NR_LOOKS; i++) {
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		pass((seed >> 33) % 100 ? (seed >> 40) % 3000 : (seed >> 40) % 300000000);
		assert_true(shown() >= last);
		if (!((seed >> 50) % 8))
			begin((seed >> 60) % COUNTER_NR_KINDS, (seed >> 20) % 20000);
		if (!((seed >> 50) % 64)) {
			trace_clock_update(&host_clock, (1U << 31) + (u32)(seed >> 48) - 32768, 32,
					   right() - (seed >> 30) % 500, now);
			counter_follow(&counter, &host_clock, now);
		}
		assert_true(shown() >= last);
		last = shown();
		wrong += last != right();
		assert_in_range(last + 250000 - right(), 0, 500000);
	}
	assert_in_range(wrong, NR_LOOKS / 4, NR_LOOKS);
}

/* --- on a CPU ---------------------------------------------------------------------------------- */

static struct host host;
static struct host_event events[HOST_MAX_EVENTS];

struct seen {
	u32 nr, still; /* events, and those at the time of the one in front */
};

/* What a program does, until there are enough events of it on CPU 1. */
static struct seen see(enum hyp_program program)
{
	struct seen seen = { 0 };
	u64 begin;

	host_setup(&host, 2, 1001);
	for (u32 cpu = 0; cpu < 2; cpu++)
		assert_int_equal(hyp_run_program(host.hyp, cpu, program, 2, 1), 0);
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	/* counts as they are, so that two readings are never alike */
	assert_int_equal(hvc4(&host, 0, HVC_TRACING_UPDATE_CLOCK, 1U << 31, 31, 0, 0), 0);
	begin = trace_counter();
	host_enable_enter_exit(&host, true);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, true, 0), 0);
	while (host_entries(&host, 1) < 8000)
		sched_yield();
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, false, 0), 0);
	for (u32 cpu = 0; cpu < 2; cpu++) {
		u32 nr = host_read(&host, cpu, events);

		assert_in_range(events[0].time_stamp, begin - COUNTER_MOST_WRONG_NS, trace_counter());
		assert_in_range(events[nr - 1].time_stamp, begin,
				trace_counter() + COUNTER_MOST_WRONG_NS);
		for (u32 i = 1; i < nr; i++) {
			assert_true(events[i].time_stamp >= events[i - 1].time_stamp);
			seen.still += events[i].time_stamp == events[i - 1].time_stamp;
		}
		seen.nr += nr;
	}
	host_teardown(&host);
	return seen;
}

static void test_chaos_has_faults_and_a_guest_has_none(void **state)
{
	struct seen chaos = see(HYP_PROGRAM_CHAOS), guest = see(HYP_PROGRAM_GUEST);

	(void)state;
	assert_true(chaos.nr >= 8000 && guest.nr >= 8000);
	assert_int_equal(guest.still, 0);
	/* How many there are is a matter of how long events take: under TSan they are few. */
	assert_in_range(chaos.still, 1, chaos.nr / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_right, setup),
		cmocka_unit_test_setup(test_nobody_has_said_how_to_convert, setup),
		cmocka_unit_test_setup(test_ahead, setup),
		cmocka_unit_test_setup(test_still, setup),
		cmocka_unit_test_setup(test_fault_ends_when_it_is_too_wrong, setup),
		cmocka_unit_test_setup(test_drift, setup),
		cmocka_unit_test_setup(test_host_changes_its_mind, setup),
		cmocka_unit_test_setup(test_never_back, setup),
		cmocka_unit_test(test_chaos_has_faults_and_a_guest_has_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
