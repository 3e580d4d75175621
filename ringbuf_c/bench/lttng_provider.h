/* SPDX-License-Identifier: Apache-2.0 */
/* What LTTng makes its tracepoint from: the payload of the selftest event. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER hyptracefs_bench

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./lttng_provider.h"

#if !defined(LTTNG_PROVIDER_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define LTTNG_PROVIDER_H

#include <lttng/tracepoint.h>
#include <stdint.h>

LTTNG_UST_TRACEPOINT_EVENT(hyptracefs_bench, selftest,
			   LTTNG_UST_TP_ARGS(uint64_t, id),
			   LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(uint64_t, id, id)
					       lttng_ust_field_integer(uint64_t, zero, 0)))

#endif

#include <lttng/tracepoint-event.h>
