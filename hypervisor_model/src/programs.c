// SPDX-License-Identifier: Apache-2.0
/*
 * Programs: a host that keeps its CPU busy, made up as it goes. What comes next is drawn
 * from a seeded generator and nothing else, so a seed always makes the same events at the
 * same intervals; threads and the clock only decide how late they are.
 *
 * A program hands out turns. A turn begins and ends in the host, and the functions below
 * that write one say what the hypervisor does meanwhile: where SPEC F.5 has an event,
 * they add a step.
 */
#include <stdlib.h>

#include "internal.h"

#define USEC 1000U
#define MSEC 1000000U
#define ARRAY_SIZE(array) ((u32)(sizeof(array) / sizeof((array)[0])))

/* No turn has more steps: a burst is the longest. */
#define TURN_STEPS 256U
#define BURST_CALLS 80U

/* Made up; above the numbers of the hypercalls that this model answers. */
enum hcall {
	HCALL_VCPU_LOAD = 20,
	HCALL_VCPU_PUT,
	HCALL_VCPU_RUN,
	HCALL_HOST_MAP_GUEST,
	HCALL_HOST_SHARE_HYP,
	HCALL_TLB_FLUSH,
	HCALL_TIMER_SET_CNTVOFF,
	HCALL_END, /* and all above are unknown */
};

#define PSCI_CPU_SUSPEND 0xc4000001U
#define PSCI_CPU_OFF 0x84000002U
#define FFA_MEM_SHARE 0xc4000073U
#define FFA_SUCCESS 0x84000061U
#define SMCCC_TRNG_RND64 0xc4000053U
#define ESR_DATA_ABORT 0x93800000U
#define ESR_SYS64 0x62000000U
#define RAM_BASE 0x80000000U

struct program {
	u32 cpu;
	u32 nr_vcpus;
	const struct activity *activities;
	u32 nr_activities;
	bool faults; /* its counter has some */
	u64 seed;

	u64 random;
	u64 fault_random; /* apart, so that faults change nothing of what happens */
	u32 fault_turns;  /* until the fault of the counter ends; 0: there is none */
	u32 vcpu;      /* the one that is loaded */
	u64 protected; /* pages; as psci_mem_protect counts them */

	/* the turn */
	u64 at;
	u32 nr_steps;
	struct pcpu_step steps[TURN_STEPS];
};

/* Something that a host does, and how often, compared with the others of its table. */
struct activity {
	void (*act)(struct program *program);
	u32 weight;
};

/* --- chance ------------------------------------------------------------------------------ */

/* xorshift64* */
static u64 draw(u64 *random)
{
	u64 x = *random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*random = x;
	return x * 0x2545f4914f6cdd1dULL;
}

static u32 draw_below(u64 *random, u32 limit)
{
	return (u32)((draw(random) >> 32) * limit >> 32);
}

static u64 next_random(struct program *program)
{
	return draw(&program->random);
}

static u32 below(struct program *program, u32 limit)
{
	return draw_below(&program->random, limit);
}

static bool one_in(struct program *program, u32 times)
{
	return !below(program, times);
}

static u64 some_page(struct program *program)
{
	return RAM_BASE + (u64)below(program, 1U << 18) * RB_PAGE_SIZE;
}

/* --- steps -------------------------------------------------------------------------------- */

static void pass_time(struct program *program, u32 least, u32 most)
{
	program->at += least + below(program, most - least);
}

static void add_step(struct program *program, u32 event, const u64 *args, u32 nr_args)
{
	struct pcpu_step *step = &program->steps[program->nr_steps++];

	step->at = program->at;
	step->event = event;
	for (u32 i = 0; i < PCPU_STEP_ARGS; i++)
		step->args[i] = i < nr_args ? args[i] : 0;
	pass_time(program, 200, 2 * USEC); /* what an event stands for takes so long */
}

#define add(program, event, ...)                                                    \
	add_step(program, HYP_EVENT_INDEX_##event, (const u64[]){ __VA_ARGS__ },    \
		 ARRAY_SIZE(((const u64[]){ __VA_ARGS__ })))

/* As trace_hyp_printk(). */
#define add_printk(program, ...)                                                    \
	add_step(program, HYP_EVENT_INDEX_hyp_printk, HYP_PRINTK_VALUES(__VA_ARGS__), \
		 ARRAY_SIZE(((const u64[]){ __VA_ARGS__ })))

static u64 loaded_vcpu(const struct program *program)
{
	return 1000 + 2000 * (u64)program->cpu + program->vcpu;
}

/* --- traps of the host -------------------------------------------------------------------- */

static void begin_hcall(struct program *program, u32 id)
{
	add(program, hyp_enter, HYP_REASON_HVC, 0);
	add(program, host_hcall, id, id >= HCALL_END);
}

static void return_to_host(struct program *program)
{
	add(program, hyp_exit, HYP_REASON_ERET_HOST, 0);
}

static void make_hcall(struct program *program, u32 id)
{
	begin_hcall(program, id);
	return_to_host(program);
	pass_time(program, 5 * USEC, 50 * USEC);
}

static void small_hcall(struct program *program)
{
	make_hcall(program, HCALL_TLB_FLUSH + below(program, 2));
}

static void unknown_hcall(struct program *program)
{
	u32 id = HCALL_END + below(program, 1000);

	begin_hcall(program, id);
	add_printk(program, HYP_FMT_unknown_hcall, id);
	return_to_host(program);
	pass_time(program, 5 * USEC, 50 * USEC);
}

static void selftest_hcall(struct program *program)
{
	begin_hcall(program, HVC_TRACING_WRITE_EVENT);
	add(program, selftest, next_random(program));
	return_to_host(program);
}

/* Memory goes to a protected guest, or comes back. */
static void donate_memory(struct program *program)
{
	u64 was = program->protected;

	program->protected = was && one_in(program, 3) ? was - 1 : was + 1;
	begin_hcall(program, HCALL_HOST_MAP_GUEST);
	add(program, psci_mem_protect, program->protected, was);
	return_to_host(program);
	pass_time(program, 5 * USEC, 50 * USEC);
}

static void trap_register(struct program *program)
{
	add(program, hyp_enter, HYP_REASON_SYS, 0);
	return_to_host(program);
}

/* A stage-2 fault of the host; the IOMMUs see what the host may see. */
static void fault(struct program *program)
{
	u64 page = some_page(program);

	add(program, hyp_enter, HYP_REASON_HOST_ABORT, 0);
	add(program, host_mem_abort, ESR_DATA_ABORT | below(program, 64),
	    page + below(program, RB_PAGE_SIZE));
	if (one_in(program, 4))
		add(program, iommu_idmap, page, page + RB_PAGE_SIZE, below(program, 8));
	return_to_host(program);
}

static void begin_smc(struct program *program, u64 id, bool forwarded)
{
	add(program, hyp_enter, HYP_REASON_SMC, 0);
	add(program, host_smc, id, forwarded);
}

/* Out to the firmware and back. */
static void call_firmware(struct program *program)
{
	add(program, hyp_exit, HYP_REASON_SMC, 0);
	pass_time(program, USEC, 20 * USEC);
	add(program, hyp_enter, HYP_REASON_SMC, 0);
}

static void forwarded_smc(struct program *program)
{
	begin_smc(program, SMCCC_TRNG_RND64, true);
	call_firmware(program);
	return_to_host(program);
}

static void ffa_call(struct program *program)
{
	bool good = !one_in(program, 8);

	begin_smc(program, FFA_MEM_SHARE, false);
	if (good)
		call_firmware(program);
	add(program, host_ffa_call, FFA_MEM_SHARE, good ? FFA_SUCCESS : 0, 0,
	    below(program, 1U << 16), 0, 1, (u64)(good ? 0 : -EINVAL));
	if (!good)
		add_printk(program, HYP_FMT_ffa_refused, FFA_MEM_SHARE, (u64)-EINVAL);
	return_to_host(program);
}

/* --- the guest ------------------------------------------------------------------------------ */

static void switch_vcpu(struct program *program)
{
	make_hcall(program, HCALL_VCPU_PUT);
	program->vcpu = (program->vcpu + 1) % program->nr_vcpus;
	begin_hcall(program, HCALL_VCPU_LOAD);
	add_printk(program, HYP_FMT_vcpu_loaded, loaded_vcpu(program), program->cpu);
	return_to_host(program);
	pass_time(program, 5 * USEC, 50 * USEC);
}

static void run_guest(struct program *program)
{
	add(program, hyp_exit, HYP_REASON_ERET_GUEST, loaded_vcpu(program));
	pass_time(program, 5 * USEC, 300 * USEC);
	add(program, hyp_enter, HYP_REASON_GUEST_EXIT, loaded_vcpu(program));
}

/* The host emulates a device. */
static void exit_mmio(struct program *program)
{
	pass_time(program, 5 * USEC, 80 * USEC);
}

/* Nothing to do: another vCPU has its turn, or the CPU sleeps. */
static void exit_wfi(struct program *program)
{
	if (program->nr_vcpus > 1)
		switch_vcpu(program);
	else
		pass_time(program, 200 * USEC, 3 * MSEC);
}

/* A stage-2 fault of the guest: the host gives it a page. */
static void exit_fault(struct program *program)
{
	pass_time(program, 2 * USEC, 20 * USEC);
	fault(program);
	donate_memory(program);
}

static const struct activity guest_exits[] = {
	{ exit_mmio, 5 },
	{ exit_wfi, 2 },
	{ exit_fault, 1 },
};

static void act(struct program *program, const struct activity *activities, u32 nr)
{
	u32 all = 0, chosen;

	for (u32 i = 0; i < nr; i++)
		all += activities[i].weight;
	chosen = below(program, all);
	while (chosen >= activities->weight)
		chosen -= activities++->weight;
	activities->act(program);
}

/* Until it exits with something that the hypervisor does not handle by itself. */
static void run_vcpu(struct program *program)
{
	begin_hcall(program, HCALL_VCPU_RUN);
	run_guest(program);
	for (u32 handled = below(program, 4); handled; handled--) {
		if (one_in(program, 16))
			add(program, vcpu_illegal_trap, ESR_SYS64 | below(program, 1U << 20));
		run_guest(program); /* an HVC of the guest, or a trapped register */
	}
	return_to_host(program);
	act(program, guest_exits, ARRAY_SIZE(guest_exits));
}

/* --- what only chaos does ----------------------------------------------------------------------- */

/* Off, or asleep, and on again; nothing happens on the CPU meanwhile. */
static void power_cycle(struct program *program, u64 call)
{
	begin_smc(program, call, false);
	add(program, hyp_exit, HYP_REASON_SMC, 0);
	pass_time(program, 5 * MSEC, 200 * MSEC);
	add(program, hyp_enter, HYP_REASON_PSCI, 0);
	add_printk(program, HYP_FMT_cpu_back, program->cpu);
	add(program, hyp_exit, HYP_REASON_PSCI, 0);
}

/* The first CPU stays on: a host keeps one. */
static void switch_off(struct program *program)
{
	power_cycle(program, program->cpu ? PSCI_CPU_OFF : PSCI_CPU_SUSPEND);
}

static void suspend(struct program *program)
{
	power_cycle(program, PSCI_CPU_SUSPEND);
}

static void burst(struct program *program)
{
	u64 begin = program->at;

	for (u32 calls = 10 + below(program, BURST_CALLS - 10); calls; calls--) {
		begin_hcall(program, HCALL_TLB_FLUSH);
		return_to_host(program);
	}
	/* All at once. */
	for (u32 i = 0; i < program->nr_steps; i++)
		program->steps[i].at = begin;
	program->at = begin;
}

/* Longer than a time delta can say: the next event needs a TIME_EXTEND. */
static void long_pause(struct program *program)
{
	pass_time(program, 135 * MSEC, 300 * MSEC);
	small_hcall(program);
}

/* --- faults of the counter ------------------------------------------------------------------------ */

/* Errata are of about this size: some reads, or some microseconds. */
#define FAULT_MAX_NS (20 * USEC)
#define FAULT_MAX_TURNS 8U
#define FAULT_EVERY_TURNS 12U

static struct counter_fault draw_fault(u64 *random)
{
	return (struct counter_fault){
		.kind = COUNTER_AHEAD + draw_below(random, COUNTER_NR_KINDS - COUNTER_AHEAD),
		.ns = 1 + draw_below(random, FAULT_MAX_NS),
	};
}

/* One begins now and then, in the middle of something, and ends some turns later. */
static void add_fault(struct program *program, struct pcpu_turn *turn)
{
	u64 *random = &program->fault_random;

	if (program->fault_turns) {
		turn->faults = !--program->fault_turns;
	} else if (!draw_below(random, FAULT_EVERY_TURNS)) {
		turn->faults = true;
		turn->fault = draw_fault(random);
		program->fault_turns = 1 + draw_below(random, FAULT_MAX_TURNS);
	}
	turn->fault_step = draw_below(random, turn->nr_steps);
}

/* --- the programs --------------------------------------------------------------------------------- */

#define ALL_EVENTS ((1ULL << HYP_NR_EVENTS) - 1)

static const struct activity guest_host[] = {
	{ run_vcpu, 60 },    { small_hcall, 15 },   { fault, 10 },	 { donate_memory, 4 },
	{ trap_register, 4 }, { forwarded_smc, 4 }, { ffa_call, 2 },
};

static const struct activity chaotic_host[] = {
	{ run_vcpu, 40 },     { small_hcall, 20 },   { unknown_hcall, 5 }, { selftest_hcall, 5 },
	{ donate_memory, 10 }, { trap_register, 10 }, { fault, 20 },	   { forwarded_smc, 10 },
	{ ffa_call, 10 },     { burst, 5 },	     { switch_off, 1 },	   { suspend, 1 },
	{ long_pause, 1 },
};

static const struct {
	const struct activity *activities;
	u32 nr;
	u64 events;  /* a bit each */
	bool faults; /* of the CPU's counter */
} programs[] = {
	[HYP_PROGRAM_GUEST] = { guest_host, ARRAY_SIZE(guest_host),
				ALL_EVENTS & ~(1ULL << HYP_EVENT_INDEX_selftest), false },
	[HYP_PROGRAM_CHAOS] = { chaotic_host, ARRAY_SIZE(chaotic_host), ALL_EVENTS, true },
};

struct program *program_create(enum hyp_program kind, u32 cpu, u32 nr_vcpus, u64 seed)
{
	struct program *program = calloc(1, sizeof(*program));

	if (!program)
		return NULL;
	program->cpu = cpu;
	program->nr_vcpus = nr_vcpus;
	program->activities = programs[kind].activities;
	program->nr_activities = programs[kind].nr;
	program->faults = programs[kind].faults;
	program->seed = seed;
	return program;
}

/* Each CPU its own sequence, and never the 0 that an xorshift cannot leave. */
void program_restart(struct program *program)
{
	program->random = (program->seed + 1) * 0x9e3779b97f4a7c15ULL ^
			  (program->cpu + 1) * 0xd1342543de82ef95ULL;
	program->random |= !program->random;
	for (u32 i = 0; i < 8; i++)
		next_random(program);
	program->fault_random = ~program->random | 1;
	program->fault_turns = 0;
	program->vcpu = 0;
	program->protected = 0;
}

void program_next(struct program *program, struct pcpu_turn *turn)
{
	program->at = 0;
	program->nr_steps = 0;
	act(program, program->activities, program->nr_activities);
	pass_time(program, 10 * USEC, 200 * USEC);
	*turn = (struct pcpu_turn){
		.steps = program->steps,
		.nr_steps = program->nr_steps,
		.period = program->at,
	};
	if (program->faults)
		add_fault(program, turn);
}

bool program_has_faults(enum hyp_program kind)
{
	return programs[kind].faults;
}

u64 program_events(enum hyp_program kind)
{
	return programs[kind].events;
}
