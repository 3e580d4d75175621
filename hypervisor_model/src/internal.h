/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HYPERVISOR_MODEL_INTERNAL_H
#define HYPERVISOR_MODEL_INTERNAL_H

#include <pthread.h>
#include <time.h>

#include "hypervisor_model/hyp.h"
#include "ringbuf_c/clock.h"
#include "ringbuf_c/define_events.h"

struct hyp_statistics_msg;
struct program;

enum counter_fault_kind {
	COUNTER_RIGHT, /* none */
	COUNTER_AHEAD, /* it has jumped */
	COUNTER_STILL,
	COUNTER_FAST,
	COUNTER_SLOW,
};

#define COUNTER_NR_KINDS (COUNTER_SLOW + 1U)

struct counter_fault {
	enum counter_fault_kind kind;
	u32 ns; /* that it has jumped */
};

/* A fault ends when it has made the time wrong by more than this. */
#define COUNTER_MOST_WRONG_NS 50000U

/* Zeroed: right, and nobody has said yet how to convert it. See counter.c */
struct faulty_counter {
	struct trace_clock clock; /* what it shows */
	struct trace_clock right; /* what it ought to show: the conversion of the host */
	u32 updates;              /* hyp->clock_updates when `right` was taken */
	struct counter_fault fault;
	bool ahead; /* without a fault any more, but still wrong: it stands still */
};

/* What a CPU does next: from the host back to the host. */
struct pcpu_turn {
	const struct pcpu_step *steps;
	u32 nr_steps;
	u64 period; /* ns, until the next turn */

	/* for a CPU with a faulty counter only */
	bool faults; /* the fault changes to this one, before step fault_step */
	u32 fault_step;
	struct counter_fault fault;
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
	struct faulty_counter *counter; /* NULL: it is right, as most are; under lock */

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
	u64 nr_pinned;
};

/* Who waits for events is told of the next one. See doorbell.c */
struct doorbell {
	int fd;    /* -1: none; under lock, and for writers that found their ring armed */
	u32 armed; /* atomic: the next that rings is the first */
};

/* Linux's error numbers are below. */
#define HYP_NR_ERRNOS 134U

/* Since the hypervisor began. Events are counted by the rings. */
struct hyp_counters {
	u64 results[HVC_NR_CALLS][HYP_NR_ERRNOS]; /* of hypercalls, by errno; 0: success */
	u64 unknown_calls;
	u64 refused_messages;
	u64 hosts;
	u64 refused_hosts;
	u64 most_pages_shared;
};

struct hyp {
	struct hvc_conduit conduit; /* first: a conduit is a hypervisor */
	u32 nr_cpus;
	struct pcpu *pcpus;

	pthread_mutex_t lock; /* load, unload, enable, swap, reset, clock, event switches, counters */
	struct hyp_counters counters;
	struct trace_clock clock;
	u32 clock_updates; /* written under lock */
	u32 enabled[HYP_NR_EVENTS];
	struct shared_memory shared;
	u32 nr_spares; /* of each CPU's pages, the last ones */
	struct doorbell doorbell;
	struct simple_buffer_page *bpages; /* private records of all CPUs; NULL: not loaded */

	pthread_mutex_t park_lock;
	pthread_cond_t unpark;
	u32 generation; /* counts changes of what could be recorded; atomic */

	u32 allowed_uid; /* of hosts, besides root's and our own */

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

/* statistics.c */
void hyp_count_result(struct hyp *hyp, u64 call, int ret); /* under hyp->lock */
void hyp_count(struct hyp *hyp, u64 *counter);
int hyp_statistics(const struct hyp *hyp, struct hyp_statistics_msg *to); /* under hyp->lock */

/* doorbell.c; under hyp->lock */
int hyp_doorbell_hang(struct hyp *hyp, int fd);
void hyp_doorbell_remove(struct hyp *hyp);
int hyp_doorbell_arm(struct hyp *hyp, u64 cpu); /* HYP_DOORBELL_ALL: each */
void doorbell_ring(struct simple_rb_per_cpu *rb); /* a writer's */

/* hypercalls.c */
void hyp_wait_for_writers(struct hyp *hyp); /* until each event has ended that has begun */
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
bool program_has_faults(enum hyp_program kind);

/* counter.c; @now: what the CPU's counter would show if it were right */
void counter_follow(struct faulty_counter *counter, const struct trace_clock *clock, u64 now);
void counter_look(struct faulty_counter *counter, u64 now); /* before an event */
void counter_begin(struct faulty_counter *counter, struct counter_fault fault, u64 now);

/* pcpu.c */
int pcpu_init(struct pcpu *pcpu, struct hyp *hyp, u32 nr);
void pcpu_deinit(struct pcpu *pcpu);
int pcpu_give_counter(struct pcpu *pcpu); /* a faulty one */
int pcpu_start(struct pcpu *pcpu);
void pcpu_stop(struct pcpu *pcpu);
void pcpu_borrow(struct pcpu *pcpu);      /* waits until the CPU is in the host */
void pcpu_give_back(struct pcpu *pcpu);
void pcpu_look_at_counter(struct pcpu *pcpu); /* before events; under pcpu->lock */
void hyp_restart_scripts(struct hyp *hyp); /* what could be recorded has changed */

#endif
