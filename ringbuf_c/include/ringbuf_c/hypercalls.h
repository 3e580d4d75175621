/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hypercalls (SPEC C): the only way from the host into the hypervisor.
 *
 * Calling convention: x0 holds the number, x1.. the arguments. Afterwards x0 is 0
 * for a known call and -1 for an unknown one, and x1 is the result: 0 or -errno.
 */
#ifndef RINGBUF_C_HYPERCALLS_H
#define RINGBUF_C_HYPERCALLS_H

#include "types.h"

enum hyp_call {
	HVC_TRACING_LOAD,         /* desc offset in the memory object, desc size, the object (fd), */
				  /* how many of the last pages of each CPU are spares */
	HVC_TRACING_UNLOAD,       /* - */
	HVC_TRACING_ENABLE,       /* bool */
	HVC_TRACING_SWAP_READER,  /* u32 cpu */
	HVC_TRACING_RESET,        /* u32 cpu */
	HVC_TRACING_UPDATE_CLOCK, /* u32 mult, u32 shift, u64 epoch_ns, u64 epoch_cyc */
	HVC_TRACING_ENABLE_EVENT, /* u16 id, bool */
	HVC_TRACING_WRITE_EVENT,  /* u64 id */
	/* Ours, and optional: */
	HVC_TRACING_STATISTICS,   /* where the answer goes: protocol.h */
	HVC_TRACING_SWAP_READERS, /* u32 cpu, u32 how many at most; says which in rb_taken */
	HVC_TRACING_DOORBELL,     /* enum hyp_doorbell_op, what it wants */
	HVC_NR_CALLS
};

enum hyp_doorbell_op {
	HYP_DOORBELL_REMOVE, /* - */
	HYP_DOORBELL_HANG,   /* -, the socket (fd) that is rung; in place of the one before */
	HYP_DOORBELL_ARM,    /* u64 cpu; or HYP_DOORBELL_ALL: ring once, at the next event of any */
};

#define HYP_DOORBELL_ALL ((u64)-1)

#define HVC_NOT_SUPPORTED ((u64)-1)

struct hvc_regs {
	u64 x0, x1, x2, x3, x4;
};

/* How a call gets there. The transport embeds this in a structure of its own. */
struct hvc_conduit {
	/* @cpu: the physical CPU that the call is made on */
	void (*hvc)(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs);
};

#define HVC_MAX_ERRNO 4095

/** hvc_result - 0 or -errno of the call that filled @regs; -EPROTO if x1 is neither. */
static inline int hvc_result(const struct hvc_regs *regs)
{
	s64 result = (s64)regs->x1;

	if (regs->x0)
		return -EOPNOTSUPP;
	return result > 0 || result < -HVC_MAX_ERRNO ? -EPROTO : (int)result;
}

#endif
