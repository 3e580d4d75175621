/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of the nVHE hypervisor: physical CPUs that write events, and the
 * hypercalls as the only way in. It trusts nothing that the host passes.
 *
 *   host ── hvc(cpu, regs) ──▶ the pCPU, when it is in the host ──▶ handler
 *                                    ▲
 *   pCPU thread: plays its script, writes hyp_enter / hyp_exit
 */
#ifndef HYPERVISOR_MODEL_HYP_H
#define HYPERVISOR_MODEL_HYP_H

#include "ringbuf_c/hypercalls.h"
#include "ringbuf_c/types.h"

/* Parameters of an event, at most: of hyp_printk, a format and its arguments. */
#define PCPU_STEP_ARGS 9

/* One event of a script. hyp_enter and hyp_exit move the CPU. */
struct pcpu_step {
	u64 at;    /* ns from the start of the script */
	u32 event; /* index: hyp_event_desc() */
	u64 args[PCPU_STEP_ARGS]; /* as trace_<event>() takes them */
};

/* Programs that a CPU can run in place of a script (src/programs.c). */
enum hyp_program {
	HYP_PROGRAM_GUEST, /* a host that runs vCPUs */
	HYP_PROGRAM_CHAOS, /* all that can happen, in no order */
};

struct hyp;

/**
 * hyp_create - a hypervisor with @nr_cpus physical CPUs that stand still.
 *
 * Return: 0 and *@hyp; -EINVAL without CPUs, -ENOMEM.
 */
int hyp_create(u32 nr_cpus, struct hyp **hyp);

/**
 * hyp_set_script - what CPU @cpu plays, again and again, @period ns a turn.
 *
 * Before hyp_start() only; @steps are copied. Enters and exits alternate, other events
 * are between an enter and its exit; a script begins and ends in the host; its times
 * rise, by less than @period in all. A CPU without a script idles. The script stands
 * still while nothing of it could be recorded, and then begins anew.
 * Return: 0, -EINVAL, -ENOMEM.
 */
int hyp_set_script(struct hyp *hyp, u32 cpu, const struct pcpu_step *steps, u32 nr_steps,
		   u64 period);

/**
 * hyp_run_program - what CPU @cpu does is made up as it goes, for ever.
 * @nr_vcpus: how many of a guest run on this CPU, at least 1
 * @seed: with the same, a CPU does the same, at the same intervals
 *
 * Otherwise like hyp_set_script(), and instead of it.
 */
int hyp_run_program(struct hyp *hyp, u32 cpu, enum hyp_program program, u32 nr_vcpus, u64 seed);

/**
 * hyp_start - start the pCPU threads, each pinned to a CPU of this machine if the
 * machine allows it (pCPU n to the n-th CPU of our affinity mask, in a circle).
 *
 * Return: 0 or -errno of the thread library; then nothing runs.
 */
int hyp_start(struct hyp *hyp);

/** hyp_destroy - stop the CPUs, unload, free. NULL is fine. */
void hyp_destroy(struct hyp *hyp);

/** hyp_conduit - for the host, in the same process. Valid until hyp_destroy(). */
struct hvc_conduit *hyp_conduit(struct hyp *hyp);

u32 hyp_nr_cpus(const struct hyp *hyp);

/**
 * hyp_serve_host - answer the hypercalls of the host at @host_fd (protocol.h) until it
 * is gone or breaks the protocol; then forget its pages and its events.
 * @listen_fd: others that come meanwhile are told -EBUSY; -1: nobody can
 * @stop_fd: becomes readable when it is to stop
 *
 * Return: 0, or -ECANCELED when told to stop.
 */
int hyp_serve_host(struct hyp *hyp, int host_fd, int listen_fd, int stop_fd);

/** hyp_allow - hosts of this user may attach, too: besides root, and the user we run as. */
void hyp_allow(struct hyp *hyp, u32 uid);

/**
 * hyp_serve - one host after the other, as they come. Return: -ECANCELED.
 *
 * Hosts of users who may not attach (SO_PEERCRED) are told -EACCES.
 */
int hyp_serve(struct hyp *hyp, int listen_fd, int stop_fd);

/**
 * hyp_writer_ordering - how the writers are kept in order with disable and reset.
 *
 * "membarrier": the rare side pays; "cmpxchg": membarrier(2) is missing here, and each
 * event pays for a locked instruction.
 */
const char *hyp_writer_ordering(const struct hyp *hyp);

/** hyp_has_doorbell - whether HVC_TRACING_DOORBELL can be used: it needs membarrier(2). */
bool hyp_has_doorbell(const struct hyp *hyp);

#endif
