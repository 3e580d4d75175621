// SPDX-License-Identifier: Apache-2.0
/* The hypercalls (SPEC C, and some of our own). Handlers run on a pCPU, under hyp->lock. */
#include "internal.h"

static struct simple_rb_per_cpu *ring_of(struct hyp *hyp, u64 cpu)
{
	return cpu < hyp->nr_cpus ? &hyp->pcpus[cpu].trace.rb : NULL;
}

static int handle_load(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	int ret = hyp_load(pcpu->hyp, regs->x1, regs->x2, (int)regs->x3, regs->x4);

	if (ret)
		trace_hyp_printk(&pcpu->trace, HYP_FMT_load_refused, regs->x1, regs->x2,
				 (u64)(s64)ret);
	return ret;
}

static int handle_unload(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	(void)regs;
	hyp_unload(pcpu->hyp);
	return 0;
}

static int handle_enable(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	struct hyp *hyp = pcpu->hyp;

	if (!hyp_loaded(hyp))
		return regs->x1 ? -EINVAL : 0;
	/* A CPU without a buffer answers -ENODEV: nothing to switch there. */
	for (u32 cpu = 0; cpu < hyp->nr_cpus; cpu++)
		simple_ring_buffer_enable_tracing(ring_of(hyp, cpu), regs->x1);
	if (regs->x1)
		trace_hyp_printk(&pcpu->trace, HYP_FMT_tracing_on, hyp->nr_cpus,
				 hyp->shared.size >> 10);
	hyp_restart_scripts(hyp);
	return 0;
}

static int handle_swap_reader(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	struct simple_rb_per_cpu *rb = ring_of(pcpu->hyp, regs->x1);

	return rb ? simple_ring_buffer_swap_reader_page(rb) : -EINVAL;
}

static int handle_swap_readers(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	struct simple_rb_per_cpu *rb = ring_of(pcpu->hyp, regs->x1);

	if (!rb || !regs->x2)
		return -EINVAL;
	if (!simple_rb_loaded(rb))
		return -ENODEV;
	return simple_ring_buffer_swap_reader_pages(
		rb, regs->x2 < RB_MAX_TAKEN ? (u32)regs->x2 : RB_MAX_TAKEN,
		(struct rb_taken *)((u8 *)rb->meta + RB_TAKEN_OFFSET));
}

static int handle_reset(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	struct simple_rb_per_cpu *rb = ring_of(pcpu->hyp, regs->x1);

	return rb ? simple_ring_buffer_reset(rb) : -EINVAL;
}

void hyp_wait_for_writers(struct hyp *hyp)
{
	/* [membarrier_all] pairs with [start]: one is enough for the writers of all CPUs */
	if (hyp->membarrier)
		hyp->membarrier();
	for (u32 cpu = 0; cpu < hyp->nr_cpus; cpu++)
		simple_ring_buffer_wait_writer(ring_of(hyp, cpu));
}

static int handle_update_clock(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	/* Nobody may still use the bank that is going to be overwritten (SPEC C.6). */
	hyp_wait_for_writers(pcpu->hyp);
	trace_clock_update(&pcpu->hyp->clock, (u32)regs->x1, (u32)regs->x2, regs->x3, regs->x4);
	WRITE_ONCE(pcpu->hyp->clock_updates, pcpu->hyp->clock_updates + 1);
	return 0;
}

static int handle_enable_event(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	const struct hyp_event_desc *desc;

	for (u32 i = 0; (desc = hyp_event_desc(i)); i++) {
		if (desc->id != regs->x1)
			continue;
		WRITE_ONCE(pcpu->hyp->enabled[i], !!regs->x2);
		hyp_restart_scripts(pcpu->hyp);
		return 0;
	}
	return -EINVAL;
}

static int handle_write_event(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	trace_selftest(&pcpu->trace, regs->x1);
	return 0;
}

/* It says nothing of this very call, which has not ended yet. */
static int handle_statistics(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	return hyp_statistics(pcpu->hyp, (struct hyp_statistics_msg *)(uintptr_t)regs->x1);
}

static int handle_doorbell(struct pcpu *pcpu, const struct hvc_regs *regs)
{
	struct hyp *hyp = pcpu->hyp;

	switch (regs->x1) {
	case HYP_DOORBELL_REMOVE:
		hyp_doorbell_remove(hyp);
		return 0;
	case HYP_DOORBELL_HANG:
		return hyp_doorbell_hang(hyp, (int)regs->x3);
	case HYP_DOORBELL_ARM:
		return hyp_doorbell_arm(hyp, regs->x2);
	default:
		return -EINVAL;
	}
}

static const hyp_handler handlers[HVC_NR_CALLS] = {
	[HVC_TRACING_LOAD] = handle_load,
	[HVC_TRACING_UNLOAD] = handle_unload,
	[HVC_TRACING_ENABLE] = handle_enable,
	[HVC_TRACING_SWAP_READER] = handle_swap_reader,
	[HVC_TRACING_RESET] = handle_reset,
	[HVC_TRACING_UPDATE_CLOCK] = handle_update_clock,
	[HVC_TRACING_ENABLE_EVENT] = handle_enable_event,
	[HVC_TRACING_WRITE_EVENT] = handle_write_event,
	[HVC_TRACING_STATISTICS] = handle_statistics,
	[HVC_TRACING_SWAP_READERS] = handle_swap_readers,
	[HVC_TRACING_DOORBELL] = handle_doorbell,
};

static void refuse_unknown(struct hyp *hyp, struct hvc_regs *regs)
{
	hyp_count(hyp, &hyp->counters.unknown_calls);
	regs->x0 = HVC_NOT_SUPPORTED;
}

void hyp_dispatch(struct pcpu *pcpu, const hyp_handler own[HVC_NR_CALLS], struct hvc_regs *regs)
{
	struct hyp *hyp = pcpu->hyp;
	hyp_handler handle;
	int ret;

	if (regs->x0 >= HVC_NR_CALLS) {
		refuse_unknown(hyp, regs);
		return;
	}
	handle = own && own[regs->x0] ? own[regs->x0] : handlers[regs->x0];
	pthread_mutex_lock(&hyp->lock);
	ret = handle(pcpu, regs);
	hyp_count_result(hyp, regs->x0, ret);
	pthread_mutex_unlock(&hyp->lock);
	regs->x0 = 0;
	regs->x1 = (u64)(s64)ret;
}

void hyp_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	struct hyp *hyp = (struct hyp *)conduit;
	struct pcpu *pcpu;

	if (cpu >= hyp->nr_cpus) {
		refuse_unknown(hyp, regs);
		return;
	}
	pcpu = &hyp->pcpus[cpu];
	if (regs->x0 == HVC_TRACING_DOORBELL) {
		/* Without an event of its own: or who arms would never have to wait. */
		hyp_dispatch(pcpu, NULL, regs);
		return;
	}
	pcpu_borrow(pcpu);
	pcpu_look_at_counter(pcpu);
	trace_hyp_enter(&pcpu->trace, HYP_REASON_HVC, 0);
	trace_host_hcall(&pcpu->trace, (u32)regs->x0, regs->x0 >= HVC_NR_CALLS);
	hyp_dispatch(pcpu, NULL, regs);
	trace_hyp_exit(&pcpu->trace, HYP_REASON_ERET_HOST, 0);
	pcpu_give_back(pcpu);
}
