// SPDX-License-Identifier: Apache-2.0
/*
 * Load, swap and all else are the hypervisor's (hypercalls.c): the same buffers under the
 * same checks. Its CPUs have no threads, and no hypervisor to be entered; one event, of
 * its own, is all that it writes, in the thread of the caller, under hyp->lock.
 */
#include "hypervisor_model/remote_test.h"
#include "internal.h"

#define SELFTEST_ID 1
#define SELFTEST_INDEX 0 /* its word in hyp->enabled */

struct selftest_record {
	struct hyp_entry_hdr hdr;
	u64 id;
};

const struct hyp_event_desc *remote_test_event_desc(u32 index)
{
	static const struct hyp_event_field fields[] = {
		{ "u64", "id", offsetof(struct selftest_record, id), sizeof(u64), false },
		{ 0 },
	};
	static const struct hyp_event_desc selftest = {
		.name = "selftest",
		.id = SELFTEST_ID,
		.fields = fields,
		.print_fmt = "\"id=%llu\", REC->id",
	};

	return index == SELFTEST_INDEX ? &selftest : NULL;
}

static int enable_event(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	if (regs->x1 != SELFTEST_ID)
		return -EINVAL;
	WRITE_ONCE(pcpu->hyp->enabled[SELFTEST_INDEX], !!regs->x2);
	return 0;
}

static int write_event(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	struct selftest_record *record;

	if (!pcpu->hyp->enabled[SELFTEST_INDEX])
		return -ENODEV;
	record = simple_ring_buffer_reserve(&pcpu->trace.rb, sizeof(*record), trace_clock_now,
					    pcpu->trace.clock);
	if (!record)
		return -ENODEV;
	record->hdr.id = SELFTEST_ID;
	record->id = regs->x1;
	simple_ring_buffer_commit(&pcpu->trace.rb);
	return 0;
}

/* What is done here in another way than by a hypervisor. */
static const hyp_handler own_handlers[HVC_NR_CALLS] = {
	[HVC_TRACING_ENABLE_EVENT] = enable_event,
	[HVC_TRACING_WRITE_EVENT] = write_event,
};

static void remote_test_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	struct hyp *hyp = (struct hyp *)conduit;

	if (cpu < hyp->nr_cpus)
		hyp_dispatch(&hyp->pcpus[cpu], own_handlers, regs);
	else
		regs->x0 = HVC_NOT_SUPPORTED;
}

int remote_test_create(u32 nr_cpus, struct hyp **remote)
{
	int ret = hyp_create(nr_cpus, remote);

	if (!ret)
		(*remote)->conduit.hvc = remote_test_hvc;
	return ret;
}
