// SPDX-License-Identifier: Apache-2.0
/* Steps: events with their arguments, as data. */
#include "internal.h"

/* --- writing ------------------------------------------------------------------------- */

/* As many as its format has; 0 for one that does not exist: the host is to see that, too. */
static u32 string_fmt_args(u64 fmt_id)
{
	const struct hyp_format_table *table = hyp_format_table(0);

	return fmt_id < table->nr_formats ? table->formats[fmt_id].nr_args : 0;
}

_Static_assert(HYP_PRINTK_ARGS < PCPU_STEP_ARGS, "room for the format and all arguments");

#define STEP(event, ...)                                                             \
	static void take_##event(struct hyp_trace_cpu *cpu, const u64 *arg)          \
	{                                                                            \
		(trace_##event)(cpu, __VA_ARGS__);                                   \
	}

STEP(host_ffa_call, arg[0], arg[1], arg[2], arg[3], arg[4], (int)arg[5], (int)arg[6])
STEP(host_hcall, (u32)arg[0], (u8)arg[1])
STEP(host_mem_abort, arg[0], arg[1])
STEP(host_smc, arg[0], (u8)arg[1])
STEP(hyp_enter, (u8)arg[0], (pid_t)arg[1])
STEP(hyp_exit, (u8)arg[0], (pid_t)arg[1])
STEP(hyp_printk, string_fmt_args(arg[0]), arg)
STEP(iommu_idmap, arg[0], arg[1], (int)arg[2])
STEP(psci_mem_protect, arg[0], arg[1])
STEP(selftest, arg[0])
STEP(vcpu_illegal_trap, arg[0])

static void (*const takers[HYP_NR_EVENTS])(struct hyp_trace_cpu *, const u64 *) = {
#define HYP_EVENT(name, proto, fields, assign, printk) take_##name,
#include "ringbuf_c/events.h"
#undef HYP_EVENT
};

void take_step(struct hyp_trace_cpu *cpu, const struct pcpu_step *step)
{
	takers[step->event](cpu, step->args);
}

/* --- where they lead -------------------------------------------------------------------- */

bool step_enters(const struct pcpu_step *step)
{
	return step->event == HYP_EVENT_INDEX_hyp_enter;
}

static bool step_exits(const struct pcpu_step *step)
{
	return step->event == HYP_EVENT_INDEX_hyp_exit;
}

/* A CPU that has been switched on gets to the host by the exit "psci" (SPEC F.5). */
bool step_leaves_to_host(const struct pcpu_step *step)
{
	return step_exits(step) &&
	       (step->args[0] == HYP_REASON_ERET_HOST || step->args[0] == HYP_REASON_PSCI);
}

/* Whether a CPU for which @inside holds can take this step; keeps @inside up to date. */
static bool step_possible(const struct pcpu_step *step, bool *inside)
{
	if (step->event >= HYP_NR_EVENTS || step_enters(step) == *inside)
		return false;
	*inside = !step_exits(step);
	return true;
}

bool steps_valid(const struct pcpu_step *steps, u32 nr_steps, u64 period)
{
	bool inside = false;

	for (u32 i = 0; i < nr_steps; i++) {
		if (!step_possible(&steps[i], &inside) ||
		    (i && steps[i].at < steps[i - 1].at))
			return false;
	}
	return !nr_steps || (steps[nr_steps - 1].at - steps[0].at < period &&
			     step_leaves_to_host(&steps[nr_steps - 1]));
}

u64 steps_events(const struct pcpu_step *steps, u32 nr_steps)
{
	u64 events = 0;

	for (u32 i = 0; i < nr_steps; i++)
		events |= 1ULL << steps[i].event;
	return events;
}

_Static_assert(HYP_NR_EVENTS <= 64, "a bit for each event");
