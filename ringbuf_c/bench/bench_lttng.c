// SPDX-License-Identifier: Apache-2.0
/*
 * LTTng-UST as a peer: events of 16 bytes in a session that somebody else has started;
 * scripts/bench does, in snapshot mode.
 */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "lttng_provider.h"

#include "bench.h"

static char *nothing_in_particular[] = { NULL, NULL };

static u32 lttng_batch(void)
{
	for (u32 i = 0; i < BATCH_EVENTS; i++)
		lttng_ust_tracepoint(hyptracefs_bench, selftest, i);
	return BATCH_EVENTS;
}

int main(void)
{
	if (!lttng_ust_tracepoint_enabled(hyptracefs_bench, selftest)) {
		fprintf(stderr, "no LTTng session has hyptracefs_bench:selftest enabled\n");
		return 1;
	}
	bench_init(nothing_in_particular);
	measure("LTTng-UST, snapshot session, 16 bytes", NULL, lttng_batch);
	return 0;
}
