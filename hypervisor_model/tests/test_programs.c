// SPDX-License-Identifier: Apache-2.0
/* Programs: each turn could be a script, every event comes, a seed is a sequence. */
#include "host.h"

#include "../src/internal.h"

#define NR_TURNS 20000U

struct run {
	u64 events; /* a bit each */
	u64 hash;
	u64 longest; /* ns between two steps */
	u32 faults;  /* kinds of the counter's, a bit each */
	u32 turns_with_fault;
};

static u64 mix(u64 hash, u64 value)
{
	return (hash ^ value) * 0x100000001b3ULL;
}

static u64 hash_step(u64 hash, const struct pcpu_step *step)
{
	hash = mix(mix(hash, step->at), step->event);
	for (u32 i = 0; i < PCPU_STEP_ARGS; i++)
		hash = mix(hash, step->args[i]);
	return hash;
}

static void take_fault(struct run *run, const struct pcpu_turn *turn)
{
	if (!turn->faults)
		return;
	assert_true(turn->fault_step < turn->nr_steps);
	assert_true(turn->fault.kind < COUNTER_NR_KINDS);
	assert_true(turn->fault.ns < COUNTER_MOST_WRONG_NS);
	/* they take turns: one begins, it ends */
	assert_int_equal(turn->fault.kind == COUNTER_RIGHT, run->turns_with_fault++ % 2);
	run->faults |= 1U << turn->fault.kind;
	run->hash = mix(mix(mix(run->hash, turn->fault_step), turn->fault.kind), turn->fault.ns);
}

static void take_turn(struct run *run, const struct pcpu_turn *turn)
{
	take_fault(run, turn);
	assert_true(turn->nr_steps > 0);
	assert_true(steps_valid(turn->steps, turn->nr_steps, turn->period + 1));
	run->events |= steps_events(turn->steps, turn->nr_steps);
	for (u32 i = 0; i < turn->nr_steps; i++) {
		u64 before = i ? turn->steps[i - 1].at : 0;

		run->hash = hash_step(run->hash, &turn->steps[i]);
		if (turn->steps[i].at - before > run->longest)
			run->longest = turn->steps[i].at - before;
	}
}

static struct run run_program(enum hyp_program kind, u32 cpu, u64 seed)
{
	struct program *program = program_create(kind, cpu, 3, seed);
	struct run runs[2] = { { 0 } };

	assert_non_null(program);
	for (u32 i = 0; i < ARRAY_SIZE(runs); i++) {
		program_restart(program);
		for (u32 turns = 0; turns < NR_TURNS; turns++) {
			struct pcpu_turn turn;

			program_next(program, &turn);
			take_turn(&runs[i], &turn);
		}
	}
	assert_int_equal(runs[0].hash, runs[1].hash);
	free(program);
	return runs[0];
}

static void test_guest(void **state)
{
	struct run run = run_program(HYP_PROGRAM_GUEST, 0, 1);

	(void)state;
	assert_int_equal(run.events, program_events(HYP_PROGRAM_GUEST));
	assert_int_equal(run.faults, 0);
}

static void test_chaos(void **state)
{
	struct run run = run_program(HYP_PROGRAM_CHAOS, 1, 1);

	(void)state;
	assert_int_equal(run.events, program_events(HYP_PROGRAM_CHAOS));
	assert_int_equal(run.events, (1ULL << HYP_NR_EVENTS) - 1);
	assert_true(run.longest > RB_TIME_DELTA_MASK);
	assert_int_equal(run.faults, (1U << COUNTER_NR_KINDS) - 1);
	assert_in_range(run.turns_with_fault, NR_TURNS / 20, NR_TURNS / 4);
}

static void check_seeds(enum hyp_program kind)
{
	static const u64 seeds[] = { 0, 1, 2, UINT64_MAX - 1, UINT64_MAX };

	for (u32 i = 0; i < ARRAY_SIZE(seeds); i++) {
		u64 hash = run_program(kind, 0, seeds[i]).hash;

		assert_int_equal(run_program(kind, 0, seeds[i]).hash, hash);
		assert_int_not_equal(run_program(kind, 1, seeds[i]).hash, hash);
		assert_int_not_equal(run_program(kind, 0, seeds[i] + 1).hash, hash);
	}
}

static void test_seeds(void **state)
{
	(void)state;
	check_seeds(HYP_PROGRAM_GUEST);
	check_seeds(HYP_PROGRAM_CHAOS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guest),
		cmocka_unit_test(test_chaos),
		cmocka_unit_test(test_seeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
