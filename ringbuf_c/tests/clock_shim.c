// SPDX-License-Identifier: Apache-2.0
/*
 * The hypervisor's clock behind plain functions, for tests/test_fake_counter.py: it compiles
 * this file and clock.c into a shared object, and says what the counter shows.
 */
#include "ringbuf_c/clock.h"

static struct trace_clock clock;

void shim_clear(void)
{
	clock = (struct trace_clock){ 0 };
}

void shim_update(u32 mult, u32 shift, u64 epoch_ns, u64 epoch_cyc)
{
	trace_clock_update(&clock, mult, shift, epoch_ns, epoch_cyc);
}

u64 shim_now(u64 cyc)
{
	return trace_clock_convert(&clock, cyc);
}
