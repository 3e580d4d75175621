// SPDX-License-Identifier: Apache-2.0
/* Pipes and the snapshot of clocks, without Python: over a ring, over none, without memory. */
#include "../_ringbuf.csrc.c"

#include "faults.h"
#include "support.h"

#define NR_PAGES 4U
#define CPU 1U

CALLOC_FAULT

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

/* --- the snapshot -------------------------------------------------------------------------- */

/* All clocks show how much time their readings take: the same, or once less. */
static struct {
	uint64_t now_ns, step_ns, short_step_ns;
	uint32_t readings, short_after;
} slow;

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	bool is_short = slow.short_step_ns && slow.readings - slow.short_after < 2;

	if (!slow.step_ns)
		return __real_clock_gettime(clock, now);
	slow.readings++;
	slow.now_ns += is_short ? slow.short_step_ns : slow.step_ns;
	*now = (struct timespec){ (time_t)(slow.now_ns / 1000000000),
				  (long)(slow.now_ns % 1000000000) };
	return 0;
}

static int full_speed(void **state)
{
	(void)state;
	memset(&slow, 0, sizeof(slow));
	return 0;
}

/* A bracket is three readings: of the boot clock, the counter and the boot clock. */
static void test_a_snapshot_that_is_tight_is_soon_enough(void **state)
{
	struct clock_instant instant;

	(void)state;
	slow.step_ns = 99;
	assert_int_equal(clock_snapshot(HYP_COUNTER_MONOTONIC_RAW, &instant), 0);
	assert_int_equal(slow.readings, 3 * SNAPSHOT_MIN_TRIES);
	assert_int_equal(instant.error_ns, 100);
	assert_int_equal(instant.boot_ns, instant.cycles);
}

static void test_a_snapshot_that_is_never_tight_ends(void **state)
{
	struct clock_instant instant;

	(void)state;
	slow.step_ns = 100;
	assert_int_equal(clock_snapshot(HYP_COUNTER_MONOTONIC_RAW, &instant), 0);
	assert_int_equal(slow.readings, 3 * SNAPSHOT_MAX_TRIES);
	assert_int_equal(instant.error_ns, 101);
}

static void test_the_tightest_bracket_is_taken(void **state)
{
	struct clock_instant instant;

	(void)state;
	slow.step_ns = 1000;
	slow.short_step_ns = 50;
	slow.short_after = 3 * 20 + 1;
	assert_int_equal(clock_snapshot(HYP_COUNTER_MONOTONIC_RAW, &instant), 0);
	assert_int_equal(slow.readings, 3 * 21); /* it is good enough */
	assert_int_equal(instant.error_ns, 51);
	assert_int_equal(instant.cycles, 1000 * (3 * 20 + 1) + 50);

	full_speed(NULL);
	slow.step_ns = 1000;
	slow.short_step_ns = 500; /* not good enough, and yet the best */
	slow.short_after = 3 * 20 + 1;
	assert_int_equal(clock_snapshot(HYP_COUNTER_MONOTONIC_RAW, &instant), 0);
	assert_int_equal(slow.readings, 3 * SNAPSHOT_MAX_TRIES);
	assert_int_equal(instant.cycles, 1000 * (3 * 20 + 1) + 500);
}

static void test_the_counters_that_there_are(void **state)
{
	struct clock_instant before, after;

	(void)state;
	assert_int_equal(clock_snapshot(HYP_COUNTER_CPU, &before), 0);
	assert_int_equal(clock_snapshot(HYP_COUNTER_CPU, &after), 0);
	assert_true(after.boot_ns + after.error_ns >= before.boot_ns - before.error_ns);
	assert_true(after.cycles > before.cycles);
	assert_int_equal(clock_snapshot(0, &after), -EINVAL);
	assert_int_equal(clock_snapshot(HYP_COUNTER_MONOTONIC_RAW + 1, &after), -EINVAL);
}

/* --- pipes --------------------------------------------------------------------------------- */

static struct fixture {
	struct test_remote *remote;
	struct buffer_slot slot;
	struct buffer_source source;
	struct buffer_pipe text, raw;
	struct reader_carry text_carry, raw_carry;
	uint8_t out[2 * RB_PAGE_SIZE];
} fixture;

static struct buffer_pipe make_pipe(bool raw, struct reader_carry *carry)
{
	struct buffer_pipe pipe = { .slot = &fixture.slot, .cpu = CPU, .carry = carry };

	pipe_init(&pipe, &fixture.source, raw);
	return pipe;
}

/* A buffer that nothing is loaded in. */
static int setup_empty(void **state)
{
	(void)state;
	memset(&fixture, 0, sizeof(fixture));
	fixture.slot = (struct buffer_slot){ .out = fixture.out, .room = sizeof(fixture.out) };
	fixture.source.slot = &fixture.slot;
	source_init(&fixture.source);
	fixture.text = make_pipe(false, &fixture.text_carry);
	fixture.raw = make_pipe(true, &fixture.raw_carry);
	return 0;
}

static int setup_sized(uint32_t nr_pages)
{
	setup_empty(NULL);
	fixture.remote = remote_create(CPU + 1, nr_pages);
	fixture.slot.reader = &fixture.remote->reader;
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return setup_sized(NR_PAGES);
}

static int teardown(void **state)
{
	(void)state;
	calloc_fault = no_fault;
	pipe_end(&fixture.text);
	pipe_end(&fixture.raw);
	if (fixture.remote)
		remote_destroy(fixture.remote);
	return 0;
}

static uint32_t take(struct buffer_pipe *pipe, uint32_t size)
{
	const uint8_t *data;
	uint32_t done = pipe->end.take(&pipe->end, &data, size);

	assert_ptr_equal(data, fixture.out);
	return done;
}

static uint64_t unread_of(uint32_t cpu)
{
	return fixture.source.events.unread(&fixture.source.events, cpu);
}

static bool is_unfinished(void)
{
	return fixture.source.events.unfinished(&fixture.source.events);
}

/* Full pages of events, a microsecond apart. */
static void write_pages(uint32_t nr)
{
	for (uint32_t i = 0; i < nr * (RB_PAGE_CAPACITY / TEST_EVENT_SIZE); i++)
		remote_write(fixture.remote, CPU, 1000 * i);
}

/* Which of the pages written the page cache gets at @offset, by its time; -errno. */
static int64_t cached(uint64_t offset)
{
	const uint8_t *data;
	uint64_t time_stamp;
	int done = pipe_cache(&fixture.raw, RB_PAGE_SIZE, offset, &data);

	if (done < 0)
		return done;
	assert_int_equal(done, RB_PAGE_SIZE);
	memcpy(&time_stamp, data, sizeof(time_stamp));
	return (int64_t)(time_stamp / 1000 / (RB_PAGE_CAPACITY / TEST_EVENT_SIZE));
}

static void test_nothing_is_loaded(void **state)
{
	(void)state;
	assert_int_equal(unread_of(CPU), 0);
	assert_false(is_unfinished());
	assert_int_equal(fixture.source.events.arm(&fixture.source.events, CPU), 0);
	assert_int_equal(take(&fixture.text, 100), 0);
	assert_int_equal(take(&fixture.raw, RB_PAGE_SIZE), 0);
	assert_int_equal(cached(0), -EAGAIN);
}

static void test_what_is_unread_is_taken(void **state)
{
	static const char line[] = "[001]\t    0.000005: selftest id=1\n";

	(void)state;
	assert_int_equal(unread_of(PIPE_ALL_CPUS), 0);
	remote_write(fixture.remote, CPU, 5000);
	remote_write(fixture.remote, CPU, 6000);
	assert_int_equal(unread_of(PIPE_ALL_CPUS), 2);
	assert_int_equal(unread_of(CPU), 2);
	assert_int_equal(unread_of(0), 0);
	assert_int_equal(take(&fixture.text, sizeof(line) - 1), sizeof(line) - 1);
	assert_memory_equal(fixture.out, line, sizeof(line) - 1);
	assert_int_equal(unread_of(CPU), 1);
	assert_int_equal(take(&fixture.raw, RB_PAGE_SIZE), RB_PAGE_SIZE);
	assert_int_equal(unread_of(CPU), 0);
}

/* Whoever asks for more than there is room for gets what there is room for. */
static void test_no_more_is_taken_than_there_is_room_for(void **state)
{
	(void)state;
	fixture.slot.room = RB_PAGE_SIZE;
	write_pages(3);
	assert_int_equal(take(&fixture.raw, 2 * RB_PAGE_SIZE), RB_PAGE_SIZE);
	assert_in_range(take(&fixture.text, 2 * RB_PAGE_SIZE), 1, RB_PAGE_SIZE);
}

static void test_what_a_filter_drops_is_not_finished(void **state)
{
	static const struct filter_pred never = { .op = FILTER_EQ,
						  .source = FILTER_CPU,
						  .value = CPU + 1,
						  .if_true = FILTER_ACCEPT,
						  .if_false = FILTER_REJECT };
	static const struct filter filters[TEST_EVENT_ID + 1] = {
		[TEST_EVENT_ID] = { .preds = &never, .nr = 1 }
	};
	const uint32_t pages = READER_MAX_PASSED_OVER / (RB_PAGE_CAPACITY / TEST_EVENT_SIZE) + 2;

	(void)state;
	teardown(NULL);
	setup_sized(pages + 2);
	assert_int_equal(filter_check(&filters[TEST_EVENT_ID]), 0);
	reader_set_filters(fixture.slot.reader,
			   (struct filter_table){ filters, TEST_EVENT_ID + 1 });
	write_pages(pages);
	assert_int_equal(take(&fixture.text, 1000), 0);
	assert_true(is_unfinished());
	assert_int_equal(take(&fixture.text, 1000), 0);
	assert_false(is_unfinished());
	assert_int_equal(unread_of(CPU), 0);
}

/* --- the doorbell */

static struct hvc_regs armed;
static uint32_t armed_on;

static void doorbell_hvc(struct hvc_conduit *conduit, uint32_t cpu, struct hvc_regs *regs)
{
	(void)conduit;
	armed = *regs;
	armed_on = cpu;
	regs->x0 = 0;
	regs->x1 = (uint64_t)-EBUSY;
}

static void test_the_bell_is_armed_for_whom_it_is_asked(void **state)
{
	struct hvc_conduit doorbell = { .hvc = doorbell_hvc };

	(void)state;
	fixture.slot.reader->conduit = &doorbell;
	fixture.slot.reader->hvc_cpu = 5;
	assert_int_equal(fixture.source.events.arm(&fixture.source.events, CPU), -EBUSY);
	assert_int_equal(armed_on, 5);
	assert_int_equal(armed.x0, HVC_TRACING_DOORBELL);
	assert_int_equal(armed.x1, HYP_DOORBELL_ARM);
	assert_int_equal(armed.x2, CPU);
	assert_int_equal(fixture.source.events.arm(&fixture.source.events, PIPE_ALL_CPUS), -EBUSY);
	assert_true(armed.x2 == HYP_DOORBELL_ALL);
}

static uint32_t nr_changes;

static void count_change(struct event_source *source)
{
	assert_ptr_equal(source, &fixture.source.events);
	nr_changes++;
}

static void test_without_a_pump_nobody_is_told(void **state)
{
	(void)state;
	assert_false(source_attended(&fixture.source));
	source_changed(&fixture.source);
	fixture.source.events.changed = count_change;
	assert_true(source_attended(&fixture.source));
	source_changed(&fixture.source);
	assert_int_equal(nr_changes, 1);
}

/* --- the page cache */

static void test_the_page_cache_takes_no_text(void **state)
{
	const uint8_t *data;

	(void)state;
	remote_write(fixture.remote, CPU, 5000);
	assert_int_equal(pipe_cache(&fixture.text, RB_PAGE_SIZE, 0, &data), -EINVAL);
	assert_int_equal(unread_of(CPU), 1);
}

static void test_the_page_cache_may_step_back(void **state)
{
	const uint64_t last = SPLICE_STEPS_BACK;

	(void)state;
	teardown(NULL);
	setup_sized(SPLICE_STEPS_BACK + 3);
	write_pages(SPLICE_STEPS_BACK + 1);
	for (uint64_t i = 0; i <= last; i++) {
		assert_int_equal(cached(i * RB_PAGE_SIZE), i);
		assert_int_equal(cached(i * RB_PAGE_SIZE), i); /* consumed once */
	}
	for (uint64_t i = last; i >= 1; i--)
		assert_int_equal(cached(i * RB_PAGE_SIZE), i);
	assert_int_equal(cached(0), -EIO);
	assert_int_equal(cached((last + 1) * RB_PAGE_SIZE), -EAGAIN);
	assert_int_equal(cached(RB_PAGE_SIZE), 1); /* nothing has taken its place */
}

static void test_what_is_read_ahead_is_not_consumed(void **state)
{
	const uint8_t *data;

	(void)state;
	write_pages(1);
	assert_int_equal(pipe_cache(&fixture.raw, 2 * RB_PAGE_SIZE, 0, &data), -EAGAIN);
	assert_int_equal(cached(0), 0);
}

static void test_a_page_that_a_read_has_begun_is_not_spliced(void **state)
{
	(void)state;
	write_pages(2);
	assert_int_equal(take(&fixture.raw, 100), 100);
	assert_int_equal(cached(0), -EINVAL);
	assert_int_equal(take(&fixture.raw, RB_PAGE_SIZE - 100), RB_PAGE_SIZE - 100);
	assert_int_equal(cached(0), 1);
}

/* Nothing is lost by that. */
static void test_a_splice_without_memory(void **state)
{
	(void)state;
	write_pages(1);
	calloc_fault = no_memory;
	assert_int_equal(cached(0), -ENOMEM);
	calloc_fault = no_fault;
	assert_int_equal(cached(0), 0);
	calloc_fault = no_memory;
	assert_int_equal(cached(0), 0); /* once it has some */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CLOCK(name) cmocka_unit_test_teardown(name, full_speed)
#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup, teardown)
		CLOCK(test_a_snapshot_that_is_tight_is_soon_enough),
		CLOCK(test_a_snapshot_that_is_never_tight_ends),
		CLOCK(test_the_tightest_bracket_is_taken),
		CLOCK(test_the_counters_that_there_are),
		cmocka_unit_test_setup_teardown(test_nothing_is_loaded, setup_empty, teardown),
		TEST(test_what_is_unread_is_taken),
		TEST(test_no_more_is_taken_than_there_is_room_for),
		TEST(test_what_a_filter_drops_is_not_finished),
		TEST(test_the_bell_is_armed_for_whom_it_is_asked),
		TEST(test_without_a_pump_nobody_is_told),
		TEST(test_the_page_cache_takes_no_text),
		TEST(test_the_page_cache_may_step_back),
		TEST(test_what_is_read_ahead_is_not_consumed),
		TEST(test_a_page_that_a_read_has_begun_is_not_spliced),
		TEST(test_a_splice_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
