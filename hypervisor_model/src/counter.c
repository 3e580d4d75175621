// SPDX-License-Identifier: Apache-2.0
/*
 * A counter that is wrong for a while, as errata and machines make them: it jumps ahead,
 * stands still, or runs too fast or too slow. The CPU's events are stamped by a clock of
 * its own, in which what the counter does wrong is part of the conversion: so an event is
 * written as on any other CPU, and only what is between two events costs anything.
 *
 *    time │                 ╱·        right: ·
 *         │          ╱─────╱·         ahead, then still until the right time is there
 *         │        ╱·  · ·
 *         │        ·
 *         │      ╱·
 *         └──────────────────── count
 *
 * It never goes back: a delta that is less than 0 is a leap of centuries (SPEC B.4), and
 * a counter that does so is one that a hypervisor does not trace with. And a fault ends
 * when the time is wrong by COUNTER_MOST_WRONG_NS.
 */
#include "internal.h"

/* One part in so many: 244 ppm. */
#define DRIFT 4096U
/* A clock that does not count, within centuries: one whose multiplier is 0 is ignored. */
#define STILL_MULT 1U
#define STILL_SHIFT 63U

/* A fault that has lasted over the longest pause of a program makes less. */
#define SET_BACK_NS 1000000U

static void run_from(struct faulty_counter *counter, u32 mult, u32 shift, u64 ns, u64 now)
{
	trace_clock_update(&counter->clock, mult, shift, ns, now);
}

static const struct trace_clock_bank *right_bank(const struct faulty_counter *counter)
{
	return &counter->right.bank[counter->right.current];
}

/*
 * No fault any more. If it is ahead it stands still, until the right time is there. (Farther
 * ahead than any event was, it is the host that has set its clock back: so be it.)
 */
static void settle(struct faulty_counter *counter, u64 now)
{
	const struct trace_clock_bank *right = right_bank(counter);
	u64 shown = trace_clock_convert(&counter->clock, now);

	counter->ahead = shown - trace_clock_convert(&counter->right, now) - 1 < SET_BACK_NS;
	counter->fault.kind = COUNTER_RIGHT;
	if (counter->ahead)
		run_from(counter, STILL_MULT, STILL_SHIFT, shown, now);
	else
		run_from(counter, right->mult, right->shift, right->epoch_ns, right->epoch_cyc);
}

static u64 distance(u64 a, u64 b)
{
	return a > b ? a - b : b - a;
}

static bool too_wrong(const struct faulty_counter *counter, u64 now)
{
	return distance(trace_clock_convert(&counter->clock, now),
			trace_clock_convert(&counter->right, now)) > COUNTER_MOST_WRONG_NS;
}

void counter_follow(struct faulty_counter *counter, const struct trace_clock *clock, u64 now)
{
	const struct trace_clock_bank *bank = &clock->bank[clock->current];

	trace_clock_update(&counter->right, bank->mult, bank->shift, bank->epoch_ns,
			   bank->epoch_cyc);
	if (counter->fault.kind == COUNTER_RIGHT)
		settle(counter, now);
}

void counter_look(struct faulty_counter *counter, u64 now)
{
	if (counter->fault.kind == COUNTER_RIGHT ? counter->ahead : too_wrong(counter, now))
		settle(counter, now);
}

void counter_begin(struct faulty_counter *counter, struct counter_fault fault, u64 now)
{
	u64 shown = trace_clock_convert(&counter->clock, now);
	const struct trace_clock_bank *right = right_bank(counter);
	u32 drift = right->mult / DRIFT;

	counter->fault = fault;
	switch (fault.kind) {
	case COUNTER_RIGHT:
		settle(counter, now);
		break;
	case COUNTER_AHEAD:
		run_from(counter, right->mult, right->shift, shown + fault.ns, now);
		break;
	case COUNTER_STILL:
		run_from(counter, STILL_MULT, STILL_SHIFT, shown, now);
		break;
	case COUNTER_FAST:
		/* half the resolution, so that it fits for any multiplier */
		run_from(counter, (right->mult >> 1) + (drift >> 1), right->shift - 1, shown, now);
		break;
	case COUNTER_SLOW:
		run_from(counter, right->mult - drift, right->shift, shown, now);
		break;
	}
}
