// SPDX-License-Identifier: Apache-2.0
#include "ringbuf_c/clock.h"

void trace_clock_update(struct trace_clock *clock, u32 mult, u32 shift, u64 epoch_ns,
			u64 epoch_cyc)
{
	u32 next = (clock->current & 1) ^ 1;

	if (!mult || shift >= 64)
		return;

	clock->bank[next] = (struct trace_clock_bank){
		.mult = mult,
		.shift = shift,
		.epoch_ns = epoch_ns,
		.epoch_cyc = epoch_cyc,
		.overflow = UINT64_MAX / mult,
	};
	/*
	 * [publish_bank] pairs with [bank]; before the [see_done] of the next update, against
	 * [start_locked] before [bank]: nobody takes this bank's predecessor any more then
	 */
	store_sc(&clock->current, next);
}
