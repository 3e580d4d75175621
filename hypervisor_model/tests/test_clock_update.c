// SPDX-License-Identifier: Apache-2.0
/* The clock is updated without a pause while a pCPU writes as fast as it can (SPEC C.6). */
#include "host.h"

#include "ringbuf_c/clock.h"

#define NR_UPDATES 20000U
#define SHIFT 20U
#define STEP(at, name, ...) { (at), HYP_EVENT_INDEX_##name, { __VA_ARGS__ } }

static struct host host;
static struct host_event events[HOST_MAX_EVENTS];

/* All steps are due at once, and so is the next turn. */
static const struct pcpu_step steps[] = {
	STEP(0, hyp_enter, HYP_REASON_HVC, 7),
	STEP(0, hyp_exit, HYP_REASON_ERET_HOST, 7),
};

static int setup(void **state)
{
	(void)state;
	host_setup(&host, 2, 9);
	assert_int_equal(hyp_set_script(host.hyp, 1, steps, ARRAY_SIZE(steps), 1), 0);
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	host_teardown(&host);
	return 0;
}

/*
 * Begins where the one before it stands, and is faster: time does not go back, whenever
 * the writer takes up which. Half of one and half of another would show.
 */
static void update(struct trace_clock *copy)
{
	const struct trace_clock_bank *last = &copy->bank[copy->current];
	u64 cycles = trace_counter();

	trace_clock_update(copy, last->mult + 16, SHIFT, trace_clock_convert(copy, cycles) + 1,
			   cycles);
	last = &copy->bank[copy->current];
	assert_int_equal(hvc4(&host, 0, HVC_TRACING_UPDATE_CLOCK, last->mult, last->shift,
			      last->epoch_ns, last->epoch_cyc), 0);
}

static u64 expect_rising(u64 time)
{
	u32 nr = host_read(&host, 1, events);

	for (u32 i = 0; i < nr; i++) {
		if (events[i].time_stamp < time)
			fail_msg("event %u is %llu ns before the one in front of it", i,
				 (unsigned long long)(time - events[i].time_stamp));
		time = events[i].time_stamp;
	}
	return time;
}

static void test_time_never_goes_back(void **state)
{
	struct trace_clock copy = { 0 };
	u64 time = 0;

	(void)state;
	trace_clock_update(&copy, 1U << SHIFT, SHIFT, 1ULL << 40, trace_counter());
	update(&copy);
	host_enable_enter_exit(&host, true);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, true, 0), 0);
	for (u32 i = 0; i < NR_UPDATES; i++) {
		update(&copy);
		if (i % 16 == 0)
			time = expect_rising(time);
	}
	while (host_entries(&host, 1) < 1000)
		update(&copy);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, false, 0), 0);
	assert_true(expect_rising(time) > 1ULL << 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_time_never_goes_back, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
