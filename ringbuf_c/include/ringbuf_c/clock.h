/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trace clock (SPEC C.6, D.6): the CPU's counter, converted to nanoseconds of
 * the host's boot clock by a multiplier and a shift that the host supplies.
 *
 * Two banks, one in use. An update fills the other one and then publishes it, so
 * that a writer never sees half of an update. The host controls the result; it
 * is good for tracing and for nothing else.
 */
#ifndef RINGBUF_C_CLOCK_H
#define RINGBUF_C_CLOCK_H

#include "types.h"

struct trace_clock_bank {
	u32 mult;
	u32 shift;     /* below 64 */
	u64 epoch_ns;  /* boot time at the epoch */
	u64 epoch_cyc; /* counter at the epoch */
	u64 overflow;  /* cycles from which the product needs 128 bits */
};

/* Zeroed memory is a valid clock that stands at 0 ns. */
struct trace_clock {
	struct trace_clock_bank bank[2];
	u32 current;
};

/** trace_counter - the CPU's free-running counter, in cycles. */
static __always_inline u64 trace_counter(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	u64 cycles;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(cycles));
	return cycles;
#else
#error "no known free-running counter on this CPU: add it here"
#endif
}

/** trace_clock_convert - @cyc cycles as ns of the boot clock. */
static __always_inline u64 trace_clock_convert(const struct trace_clock *clock, u64 cyc)
{
	/* [bank] pairs with [publish_bank]: what is in the bank */
	const struct trace_clock_bank *bank =
		&clock->bank[load_sc(&clock->current) & 1];
	u64 delta = cyc - bank->epoch_cyc;

	if (unlikely(delta >= bank->overflow))
		return (u64)(((unsigned __int128)delta * bank->mult) >> bank->shift) +
		       bank->epoch_ns;
	return ((delta * bank->mult) >> bank->shift) + bank->epoch_ns;
}

/** trace_clock_now - the time of an event, in ns; reads the counter. */
static __always_inline u64 trace_clock_now(const void *clock)
{
	return trace_clock_convert((const struct trace_clock *)clock, trace_counter());
}

/**
 * trace_clock_update - use a new conversion from now on.
 * @mult: must not be 0, or the call is ignored (SPEC C.6 TRAP)
 * @shift: must be below 64, or the call is ignored
 *
 * The caller has made sure that no writer still uses the bank that is not
 * current, and serialises updates.
 */
void trace_clock_update(struct trace_clock *clock, u32 mult, u32 shift, u64 epoch_ns,
			u64 epoch_cyc);

#endif
