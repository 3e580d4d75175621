// SPDX-License-Identifier: Apache-2.0
/* pCPU threads: scripts, hypercalls beside them, parking, the end. No time is asserted. */
#include "host.h"
#include "hypervisor_model/protocol.h"

#include <pthread.h>
#include <sched.h>

#define NR_CPUS 2U
#define NR_PAGES 129U
#define HOUR 3600000000000ULL
#define STEP(at, name, ...) { (at), HYP_EVENT_INDEX_##name, { __VA_ARGS__ } }
#define ENTER(at, vcpu, reason) STEP(at, hyp_enter, HYP_REASON_##reason, (vcpu))
#define EXIT(at, vcpu, reason) STEP(at, hyp_exit, HYP_REASON_##reason, (vcpu))

static struct host host;
static struct host_event events[HOST_MAX_EVENTS];

static const struct pcpu_step guest_run[] = {
	ENTER(0, 7, HVC),	 EXIT(1000, 7, ERET_GUEST), ENTER(2000, 7, GUEST_EXIT),
	EXIT(3000, 7, ERET_GUEST), ENTER(4000, 8, HOST_ABORT), EXIT(5000, 7, ERET_HOST),
};

static const struct pcpu_step smc[] = {
	ENTER(500, 3, SMC), EXIT(600, 4, SMC), ENTER(700, 5, SMC), EXIT(800, 6, ERET_HOST),
};

/* In the guest, for an hour. */
static const struct pcpu_step long_stay[] = {
	ENTER(0, 7, HVC),
	EXIT(1000, 7, ERET_GUEST),
	ENTER(HOUR, 7, GUEST_EXIT),
	EXIT(HOUR + 1000, 7, ERET_HOST),
};

static const struct {
	const struct pcpu_step *steps;
	u32 nr;
} scripts[NR_CPUS] = { { guest_run, ARRAY_SIZE(guest_run) }, { smc, ARRAY_SIZE(smc) } };

static int setup(void **state)
{
	(void)state;
	host_setup(&host, NR_CPUS, NR_PAGES);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	host_teardown(&host);
	return 0;
}

static void set_scripts(u64 period)
{
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++)
		assert_int_equal(hyp_set_script(host.hyp, cpu, scripts[cpu].steps, scripts[cpu].nr,
						period), 0);
}

static void enable(bool on)
{
	assert_int_equal(hvc(&host, 1, HVC_TRACING_ENABLE, on, 0), 0);
}

static void wait_for_entries(u32 cpu, u64 entries)
{
	while (host_entries(&host, cpu) < entries)
		sched_yield();
}

/* --- scripts ------------------------------------------------------------------------------- */

static const struct {
	const char *what;
	u32 cpu;
	struct pcpu_step steps[3];
	u32 nr;
	u64 period;
	int ret;
} settings[] = {
	{ "good", 0, { ENTER(0, 1, HVC), EXIT(10, 1, ERET_HOST) }, 2, 11, 0 },
	{ "none", 1, { { 0 } }, 0, 0, 0 },
	{ "times alike", 0, { ENTER(5, 1, HVC), EXIT(5, 1, ERET_HOST) }, 2, 1, 0 },
	{ "late begin", 0, { ENTER(100, 1, HVC), EXIT(110, 1, ERET_HOST) }, 2, 11, 0 },
	{ "no such CPU", NR_CPUS, { ENTER(0, 1, HVC), EXIT(10, 1, ERET_HOST) }, 2, 11, -EINVAL },
	{ "no such CPU", UINT32_MAX, { ENTER(0, 1, HVC), EXIT(10, 1, ERET_HOST) }, 2, 11, -EINVAL },
	{ "times fall", 0, { ENTER(10, 1, HVC), EXIT(9, 1, ERET_HOST) }, 2, 100, -EINVAL },
	{ "period too short", 0, { ENTER(0, 1, HVC), EXIT(10, 1, ERET_HOST) }, 2, 10, -EINVAL },
	{ "no period", 0, { ENTER(0, 1, HVC), EXIT(0, 1, ERET_HOST) }, 2, 0, -EINVAL },
	{ "ends in the hypervisor", 0, { ENTER(0, 1, HVC) }, 1, 100, -EINVAL },
	{ "ends in the guest", 0, { ENTER(0, 1, HVC), EXIT(1, 1, ERET_GUEST) }, 2, 100, -EINVAL },
	{ "ends in the firmware", 0, { ENTER(0, 1, HVC), EXIT(1, 1, SMC) }, 2, 100, -EINVAL },
	{ "ends with an enter", 0, { ENTER(0, 1, HVC), ENTER(1, 1, ERET_HOST) }, 2, 100, -EINVAL },
	{ "ends switched on", 0, { ENTER(0, 1, PSCI), EXIT(1, 1, PSCI) }, 2, 100, 0 },
	{ "inside", 0, { ENTER(0, 1, HVC), STEP(1, host_hcall, 1), EXIT(2, 1, ERET_HOST) }, 3, 9, 0 },
	{ "in the host", 0, { STEP(0, host_hcall, 1), ENTER(1, 1, HVC), EXIT(2, 1, ERET_HOST) }, 3,
	  9, -EINVAL },
	{ "no such event", 0, { ENTER(0, 1, HVC), { 1, HYP_NR_EVENTS, { 0 } },
				EXIT(2, 1, ERET_HOST) }, 3, 9, -EINVAL },
};

static void test_set_script(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(settings); i++) {
		int ret = hyp_set_script(host.hyp, settings[i].cpu, settings[i].steps,
					 settings[i].nr, settings[i].period);

		if (ret != settings[i].ret)
			fail_msg("%s: %d", settings[i].what, ret);
	}
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(hyp_set_script(host.hyp, 0, smc, ARRAY_SIZE(smc), 1000), -EINVAL);
}

static void test_a_cpu_has_one_thing_to_do(void **state)
{
	(void)state;
	assert_int_equal(hyp_run_program(host.hyp, NR_CPUS, HYP_PROGRAM_GUEST, 1, 1), -EINVAL);
	assert_int_equal(hyp_run_program(host.hyp, 0, HYP_PROGRAM_GUEST, 0, 1), -EINVAL);
	assert_int_equal(hyp_set_script(host.hyp, 0, smc, ARRAY_SIZE(smc), 1000), 0);
	assert_int_equal(hyp_run_program(host.hyp, 0, HYP_PROGRAM_GUEST, 1, 1), -EINVAL);
	assert_int_equal(hyp_run_program(host.hyp, 1, HYP_PROGRAM_GUEST, 1, 1), 0);
	assert_int_equal(hyp_run_program(host.hyp, 1, HYP_PROGRAM_CHAOS, 1, 1), -EINVAL);
	assert_int_equal(hyp_set_script(host.hyp, 1, smc, ARRAY_SIZE(smc), 1000), -EINVAL);
}

/* The host is to see it, too. */
static void test_a_format_that_nobody_knows(void **state)
{
	static const struct pcpu_step steps[] = {
		ENTER(0, 1, HVC), STEP(1, hyp_printk, 1000000, 5), EXIT(2, 1, ERET_HOST),
	};
	u32 nr;

	(void)state;
	assert_int_equal(hyp_set_script(host.hyp, 0, steps, ARRAY_SIZE(steps), 100000), 0);
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	host_enable_event(&host, HYP_EVENT_ID_hyp_printk, true);
	enable(true);
	wait_for_entries(0, 3);
	enable(false);
	nr = host_read(&host, 0, events);
	assert_true(nr >= 3);
	for (u32 i = 0; i < nr; i++)
		assert_int_equal(events[i].id, HYP_EVENT_ID_hyp_printk);
}

/* Hypercalls are not in the script: they have vcpu 0. */
static u32 script_events(u32 nr)
{
	u32 kept = 0;

	for (u32 i = 0; i < nr; i++) {
		if (events[i].value)
			events[kept++] = events[i];
	}
	return kept;
}

static bool is_step(const struct host_event *event, const struct pcpu_step *step)
{
	return event->id == HYP_EVENT_ID_OF(step->event) && event->reason == step->args[0] &&
	       event->value == step->args[1];
}

/* On a slow machine the ring may have been too small: begin with the next turn then. */
static u32 first_turn(u32 cpu, u32 nr)
{
	u32 i = 0;

	if (host_meta(&host, cpu)->overrun) {
		while (i < nr && !is_step(&events[i], &scripts[cpu].steps[0]))
			i++;
	}
	return i;
}

/* From its first step on, again and again: it was parked until it could be recorded. */
static void expect_script(u32 cpu, u32 nr)
{
	u32 first = first_turn(cpu, nr);

	assert_true(nr >= 15);
	for (u32 i = first; i < nr; i++) {
		u32 step = (i - first) % scripts[cpu].nr;

		if (!is_step(&events[i], &scripts[cpu].steps[step]))
			fail_msg("CPU %u: event %u is not step %u", cpu, i, step);
		if (i)
			assert_true(events[i].time_stamp >= events[i - 1].time_stamp);
	}
}

static void test_scripts_replay(void **state)
{
	(void)state;
	set_scripts(100000);
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	host_enable_enter_exit(&host, true);
	enable(true);
	wait_for_entries(0, 300);
	wait_for_entries(1, 300);
	enable(false);
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++) {
		expect_script(cpu, script_events(host_read(&host, cpu, events)));
	}
}

/* What the hypervisor says that CPU 0 has written. */
static u64 written(void)
{
	static u64 room[HYP_MAX_STATISTICS / sizeof(u64)];
	const struct hyp_statistics_msg *head = (void *)room;
	const struct hyp_result_statistics_msg *results = (void *)(head + 1);
	const struct hyp_cpu_statistics_msg *cpus;

	assert_int_equal(hvc(&host, 1, HVC_TRACING_STATISTICS, (uintptr_t)room, 0), 0);
	cpus = (const void *)(results + head->nr_results);
	return cpus[0].written;
}

static void test_statistics_while_scripts_play(void **state)
{
	u64 before = 0;

	(void)state;
	set_scripts(7000);
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	host_enable_enter_exit(&host, true);
	enable(true);
	while (before < 3000) {
		u64 now = written();

		assert_true(now >= before);
		before = now;
	}
	enable(false);
	assert_int_equal(written(), host_entries(&host, 0));
}

/* --- hypercalls on a CPU that plays ----------------------------------------------------------- */

#define NR_CALLS 500U

static void *make_calls(void *arg)
{
	for (u32 i = 0; i < NR_CALLS; i++) {
		for (u32 cpu = 0; cpu < NR_CPUS; cpu++)
			hvc(&host, cpu, HVC_TRACING_RESET, NR_CPUS, 0); /* -EINVAL: no effect */
	}
	return arg;
}

static void expect_alternation(u32 cpu)
{
	u32 nr = host_read(&host, cpu, events);
	u32 calls = 0;

	for (u32 i = 0; i < nr; i++) {
		bool enter = events[i].id == HYP_EVENT_ID_hyp_enter;

		if (i)
			assert_int_not_equal(events[i].id, events[i - 1].id);
		calls += enter && !events[i].value;
		/* Nothing comes between the two of a hypercall. */
		if (i && !events[i - 1].value && !enter)
			assert_int_equal(events[i].value, 0);
	}
	assert_true(calls >= 2 * NR_CALLS || host_meta(&host, cpu)->overrun);
	expect_script(cpu, script_events(nr));
}

static void test_hypercalls_beside_scripts(void **state)
{
	pthread_t threads[2];

	(void)state;
	set_scripts(20000);
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	host_enable_enter_exit(&host, true);
	enable(true);
	for (u32 i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, make_calls, NULL), 0);
	for (u32 i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	/* On a busy machine the CPUs have hardly played yet. */
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++)
		wait_for_entries(cpu, host_entries(&host, cpu) + 30);
	enable(false);
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++)
		expect_alternation(cpu);
}

static void play_long_stay(void)
{
	assert_int_equal(hyp_set_script(host.hyp, 0, long_stay, ARRAY_SIZE(long_stay), 2 * HOUR), 0);
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	host_enable_enter_exit(&host, true);
	enable(true);
	wait_for_entries(0, 2); /* now it is in the guest */
}

/* The hypercall makes the CPU hurry back, in the order of the script. */
static void test_long_stay_away(void **state)
{
	static const struct pcpu_step expected[] = {
		ENTER(0, 7, HVC),
		EXIT(0, 7, ERET_GUEST),
		ENTER(0, 7, GUEST_EXIT),
		EXIT(0, 7, ERET_HOST),
		ENTER(0, 0, HVC),
		EXIT(0, 0, ERET_HOST),
	};

	(void)state;
	play_long_stay();
	assert_int_equal(host_entries(&host, 0), 2);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_RESET, NR_CPUS, 0), -EINVAL);
	enable(false);
	host.reader.hvc_cpu = 1;
	assert_int_equal(host_read(&host, 0, events), ARRAY_SIZE(expected));
	for (u32 i = 0; i < ARRAY_SIZE(expected); i++)
		assert_true(is_step(&events[i], &expected[i]));
}

/* --- parking ------------------------------------------------------------------------------------- */

static void expect_silence(void)
{
	for (u32 i = 0; i < 10; i++) {
		make_calls(NULL);
		sched_yield();
	}
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++)
		assert_int_equal(host_entries(&host, cpu), 0);
}

static void test_parked(void **state)
{
	(void)state;
	set_scripts(10000);
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	expect_silence();      /* nothing is enabled */
	enable(true);
	expect_silence();      /* no event is */
	enable(false);
	host_enable_enter_exit(&host, true);
	expect_silence();      /* tracing is not */
	enable(true);
	wait_for_entries(0, 20);
	wait_for_entries(1, 20);
	enable(false);
	expect_script(0, script_events(host_read(&host, 0, events)));
}

/* --- the end --------------------------------------------------------------------------------------- */

static void test_destroy_without_start(void **state)
{
	(void)state;
	set_scripts(10000);
	assert_int_equal(host_load(&host), 0);
}

static void test_destroy_parked(void **state)
{
	(void)state;
	set_scripts(10000);
	assert_int_equal(hyp_start(host.hyp), 0);
}

static void test_destroy_without_scripts(void **state)
{
	(void)state;
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	host_enable_enter_exit(&host, true);
	enable(true);
}

static void test_destroy_playing(void **state)
{
	(void)state;
	set_scripts(10000);
	assert_int_equal(hyp_start(host.hyp), 0);
	assert_int_equal(host_load(&host), 0);
	host_enable_enter_exit(&host, true);
	enable(true);
	wait_for_entries(0, 100);
}

static void test_destroy_away(void **state)
{
	(void)state;
	play_long_stay();
}

/* Again and again, at whatever point the CPUs are. */
static void test_destroy_anywhere(void **state)
{
	for (u32 i = 0; i < 50; i++) {
		test_destroy_playing(state);
		teardown(state);
		setup(state);
	}
}

#define pcpu_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		pcpu_test(test_set_script),
		pcpu_test(test_a_cpu_has_one_thing_to_do),
		pcpu_test(test_a_format_that_nobody_knows),
		pcpu_test(test_scripts_replay),
		pcpu_test(test_statistics_while_scripts_play),
		pcpu_test(test_hypercalls_beside_scripts),
		pcpu_test(test_long_stay_away),
		pcpu_test(test_parked),
		pcpu_test(test_destroy_without_start),
		pcpu_test(test_destroy_parked),
		pcpu_test(test_destroy_without_scripts),
		pcpu_test(test_destroy_playing),
		pcpu_test(test_destroy_away),
		pcpu_test(test_destroy_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
