/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HYPERVISOR_MODEL_INTERNAL_H
#define HYPERVISOR_MODEL_INTERNAL_H

#include <pthread.h>
#include <time.h>

#include "hypervisor_model/hyp.h"
#include "ringbuf_c/clock.h"
#include "ringbuf_c/define_events.h"

struct program;

/* What a CPU does next: from the host back to the host. */
struct pcpu_turn {
	const struct pcpu_step *steps;
	u32 nr_steps;
	u64 period; /* ns, until the next turn */
};

/*
 * A physical CPU is in one place at a time: in the host, or away from it (in the
 * hypervisor, a guest, the firmware). Its thread moves it along its script; whoever
 * makes a hypercall borrows it while it is in the host. So every event of a CPU is
 * written by one thread at a time, and enters and exits alternate.
 */
struct pcpu {
	struct hyp_trace_cpu trace;
	struct hyp *hyp;
	u32 nr;

	pthread_t thread;
	bool running; /* the thread exists */

	struct pcpu_turn turn;
	struct pcpu_step *script;  /* NULL: none; it is the turn, again and again */
	struct program *program;   /* NULL: none; makes each turn */
	u64 events; /* that the turns can have, a bit each */

	pthread_mutex_t lock;
	pthread_cond_t kick;       /* the thread: somebody wants the CPU, or gave it back */
	pthread_cond_t in_host;    /* hypercalls: the CPU has come back to the host */
	u32 wanted;                /* hypercalls that wait for the CPU or have it; atomic */
	u32 stop;                  /* atomic */
	bool away;                 /* not in the host; under lock */
} __attribute__((aligned(64))); /* a pCPU does not slow its neighbour down */

/* Memory that the host shares. It is ours to map, not ours to trust. */
struct shared_memory {
	u8 *base; /* NULL: none */
	u64 size;
	u8 *pinned; /* one byte per page */
};

struct hyp {
	struct hvc_conduit conduit; /* first: a conduit is a hypervisor */
	u32 nr_cpus;
	struct pcpu *pcpus;

	pthread_mutex_t lock; /* load, unload, enable, swap, reset, clock, event switches */
	struct trace_clock clock;
	u32 enabled[HYP_NR_EVENTS];
	struct shared_memory shared;
	struct simple_buffer_page *bpages; /* private records of all CPUs; NULL: not loaded */

	pthread_mutex_t park_lock;
	pthread_cond_t unpark;
	u32 generation; /* counts changes of what could be recorded; atomic */

	void (*membarrier)(void); /* NULL: this machine has none */
};

#define NSEC_PER_SEC 1000000000ULL

static inline u64 monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * NSEC_PER_SEC + (u64)now.tv_nsec;
}

static inline bool hyp_loaded(const struct hyp *hyp)
{
	return hyp->bpages;
}

/* load.c; under hyp->lock */
int hyp_load(struct hyp *hyp, u64 desc_va, u64 desc_size, int memory_fd, u64 nr_spares);
void hyp_unload(struct hyp *hyp);

/* hypercalls.c */
typedef int (*hyp_handler)(struct pcpu *pcpu, const struct hvc_regs *regs);
void hyp_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs);
/* Answer a call on @pcpu; @own handlers go before the hypervisor's, NULL: there are none. */
void hyp_dispatch(struct pcpu *pcpu, const hyp_handler own[HVC_NR_CALLS], struct hvc_regs *regs);

/* steps.c */
void take_step(struct hyp_trace_cpu *cpu, const struct pcpu_step *step); /* write the event */
bool step_enters(const struct pcpu_step *step); /* the CPU gets into the hypervisor */
bool step_leaves_to_host(const struct pcpu_step *step);
bool steps_valid(const struct pcpu_step *steps, u32 nr_steps, u64 period);
u64 steps_events(const struct pcpu_step *steps, u32 nr_steps); /* a bit each */

/* programs.c */
struct program *program_create(enum hyp_program kind, u32 cpu, u32 nr_vcpus, u64 seed);
void program_restart(struct program *program);
void program_next(struct program *program, struct pcpu_turn *turn);
u64 program_events(enum hyp_program kind); /* that it can have, a bit each */

/* pcpu.c */
int pcpu_init(struct pcpu *pcpu, struct hyp *hyp, u32 nr);
void pcpu_deinit(struct pcpu *pcpu);
int pcpu_start(struct pcpu *pcpu);
void pcpu_stop(struct pcpu *pcpu);
void pcpu_borrow(struct pcpu *pcpu);      /* waits until the CPU is in the host */
void pcpu_give_back(struct pcpu *pcpu);
void hyp_restart_scripts(struct hyp *hyp); /* what could be recorded has changed */

#endif
