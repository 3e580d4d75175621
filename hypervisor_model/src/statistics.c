// SPDX-License-Identifier: Apache-2.0
/*
 * What the hypervisor has counted itself, for its hosts to see (protocol.h). Nothing of it
 * comes from memory that a host can write.
 */
#include <string.h>

#include "hypervisor_model/protocol.h"
#include "internal.h"

/* What still fits behind as many CPUs as there can be. */
#define MAX_RESULTS                                                              \
	((HYP_MAX_STATISTICS - sizeof(struct hyp_statistics_msg) -               \
	  HYP_MAX_CPUS * sizeof(struct hyp_cpu_statistics_msg)) /                \
	 sizeof(struct hyp_result_statistics_msg))

_Static_assert(MAX_RESULTS >= 1000, "room for each result that is ever seen");

void hyp_count_result(struct hyp *hyp, u64 call, int ret)
{
	u32 error = (u32)-ret;

	hyp->counters.results[call][error < HYP_NR_ERRNOS ? error : 0]++;
}

void hyp_count(struct hyp *hyp, u64 *counter)
{
	pthread_mutex_lock(&hyp->lock);
	++*counter;
	pthread_mutex_unlock(&hyp->lock);
}

/* Those that there are, call by call. Returns how many. */
static u32 put_results(const struct hyp *hyp, struct hyp_result_statistics_msg *to)
{
	u32 nr = 0;

	for (u32 i = 0; i < HVC_NR_CALLS * HYP_NR_ERRNOS && nr < MAX_RESULTS; i++) {
		u32 call = i / HYP_NR_ERRNOS, error = i % HYP_NR_ERRNOS;
		u64 count = hyp->counters.results[call][error];

		if (count)
			to[nr++] = (struct hyp_result_statistics_msg){ call, error, count };
	}
	return nr;
}

static struct hyp_cpu_statistics_msg count_cpu(const struct simple_rb_per_cpu *rb)
{
	struct simple_rb_counters now, ever;

	simple_ring_buffer_counters(rb, &now, &ever);
	if (!simple_rb_loaded(rb))
		now = (struct simple_rb_counters){ 0 };
	return (struct hyp_cpu_statistics_msg){
		.written = now.entries,
		.overrun = now.overrun,
		.dropped = now.dropped,
		.ever_written = ever.entries,
		.ever_overrun = ever.overrun,
		.ever_dropped = ever.dropped,
	};
}

static void put_cpus(const struct hyp *hyp, struct hyp_cpu_statistics_msg *to)
{
	for (u32 cpu = 0; cpu < hyp->nr_cpus; cpu++)
		to[cpu] = count_cpu(&hyp->pcpus[cpu].trace.rb);
}

int hyp_statistics(const struct hyp *hyp, struct hyp_statistics_msg *to)
{
	struct hyp_result_statistics_msg *results = (void *)(to + 1);
	u32 nr_results;

	if (!to)
		return -EINVAL;
	if (hyp->nr_cpus > HYP_MAX_CPUS)
		return -E2BIG;
	nr_results = put_results(hyp, results);
	put_cpus(hyp, (void *)(results + nr_results));
	*to = (struct hyp_statistics_msg){
		.size = (u32)(sizeof(*to) + nr_results * sizeof(*results) +
			      hyp->nr_cpus * sizeof(struct hyp_cpu_statistics_msg)),
		.nr_results = nr_results,
		.nr_cpus = hyp->nr_cpus,
		.unknown_calls = hyp->counters.unknown_calls,
		.refused_messages = hyp->counters.refused_messages,
		.hosts = hyp->counters.hosts,
		.refused_hosts = hyp->counters.refused_hosts,
		.pages_shared = hyp->shared.nr_pinned,
		.most_pages_shared = hyp->counters.most_pages_shared,
	};
	return 0;
}
