/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hypervisor and a host in two processes say to each other, on a SOCK_SEQPACKET
 * Unix socket; PROTOCOL.md explains it. All numbers are little-endian, nothing is packed
 * otherwise than as it is aligned here, and what is called zero is sent as zero and not
 * looked at.
 *
 *     hypervisor                          host
 *         ◀────────── connect ──────────
 *         ─── hyp_hello ───────────────▶
 *         ─── hyp_event_msg  × nr_events ▶
 *         ─── hyp_symbols_msg × nr_symbols ▶
 *         ─── hyp_formats_msg × nr_formats ▶
 *         ◀── hyp_request ──────────────     with LOAD: the memfd, as SCM_RIGHTS;
 *                                              with DOORBELL (HANG): a socket
 *         ─── hyp_reply ───────────────▶
 */
#ifndef HYPERVISOR_MODEL_PROTOCOL_H
#define HYPERVISOR_MODEL_PROTOCOL_H

#include "ringbuf_c/hypercalls.h"
#include "ringbuf_c/types.h"

#define HYP_MAGIC "HYPTRACE" /* 8 bytes, no end */
#define HYP_PROTOCOL_VERSION 1U
#define HYP_MAX_MESSAGE 65536U /* bytes of any message */
#define HYP_MAX_CALLS 64U      /* hypercalls in a request */
#define HYP_MAX_CPUS 1024U
#define HYP_MAX_EVENTS 4096U
#define HYP_MAX_SYMBOLS 256U /* tables */
#define HYP_MAX_FIELDS 64U   /* of an event */
#define HYP_MAX_FORMATS 65536U /* of all events together */
#define HYP_MAX_FORMATS_MSGS 512U
#define HYP_MAX_FORMAT_ARGS 8U /* of a format */

/* Texts end with a zero byte, within these sizes. */
#define HYP_NAME_SIZE 64U
#define HYP_TYPE_SIZE 64U
#define HYP_FORMAT_SIZE 248U

/* Which counter stamps the events; the host must be able to read the same one. */
enum hyp_counter {
	HYP_COUNTER_CPU = 1, /* x86: TSC; arm64: CNTVCT_EL0 */
	HYP_COUNTER_MONOTONIC_RAW = 2, /* ns of clock_gettime(CLOCK_MONOTONIC_RAW) */
};

struct hyp_hello {
	u8 magic[8];
	u32 version;
	s32 error; /* 0; or -errno, and nothing follows: -EBUSY, another host is served */
	char name[HYP_NAME_SIZE]; /* of the producer; its directory under events/ */
	u32 nr_cpus;
	u32 page_size;
	u32 counter;    /* enum hyp_counter */
	u32 nr_events;  /* messages that follow */
	u32 nr_symbols; /* messages that follow those */
	u32 nr_formats; /* messages that follow those; 0 from those who have no formats */
	u64 counter_hz; /* about; 0: unknown */

	/* Producers from before have nothing from here on. */
	u32 nr_spares; /* pages of each CPU that it takes as spares at load, at most */
	u32 flags;     /* HYP_HAS_*; others are not looked at */
};

#define HYP_HAS_DOORBELL 1U /* HVC_TRACING_DOORBELL */

struct hyp_field_msg {
	char type[HYP_TYPE_SIZE]; /* C text, "u64" */
	char name[HYP_NAME_SIZE];
	u32 offset; /* bytes from the start of the payload */
	u32 size;   /* bytes */
	u32 is_signed;
	u32 zero;
};

struct hyp_event_msg {
	char name[HYP_NAME_SIZE];
	u32 id;        /* 1 to 65535 */
	u32 nr_fields; /* follow */
	u32 print_fmt_size; /* bytes of text behind the fields, its zero byte included */
	u32 zero;
	struct hyp_field_msg fields[];
};

struct hyp_symbol_msg {
	u64 value;
	char text[HYP_NAME_SIZE];
};

/* What a print format means by `function(REC->field)`. */
struct hyp_symbols_msg {
	char function[HYP_NAME_SIZE];
	char fallback[HYP_NAME_SIZE]; /* for any other value */
	u32 nr_symbols; /* follow */
	u32 zero;
	struct hyp_symbol_msg symbols[];
};

struct hyp_format_msg {
	u32 nr_args; /* u64s that it prints, 0 to HYP_MAX_FORMAT_ARGS */
	u32 zero;
	char text[HYP_FORMAT_SIZE];
};

/*
 * Records of @event print as the format that their field @index counts, with the u64s that
 * begin at their field @args. Formats count from 0; those of a second message about an event
 * go on where the first one ended.
 */
struct hyp_formats_msg {
	char event[HYP_NAME_SIZE];
	char index[HYP_NAME_SIZE];
	char args[HYP_NAME_SIZE];
	u32 nr_formats; /* follow */
	u32 zero;
	struct hyp_format_msg formats[];
};

struct hyp_call_msg {
	u32 cpu; /* the physical CPU that the call is made on */
	u32 zero;
	struct hvc_regs regs;
};

struct hyp_request {
	u32 sequence; /* comes back */
	u32 nr_calls; /* 1 to HYP_MAX_CALLS; made in order */
	struct hyp_call_msg calls[];
};

struct hyp_result_msg {
	u64 x0, x1;
};

struct hyp_reply {
	u32 sequence;
	u32 nr_calls; /* as many as in the request */
	struct hyp_result_msg results[];
};

/* How often a hypercall has ended so. */
struct hyp_result_statistics_msg {
	u32 call;  /* enum hyp_call */
	u32 error; /* errno, positive; 0: success */
	u64 count;
};

/* Events of a CPU; unlike the meta page, nothing that a host could have written. */
struct hyp_cpu_statistics_msg {
	/* since the last load or reset; 0 while nothing is loaded */
	u64 written;
	u64 overrun; /* of these: overwritten unread */
	u64 dropped; /* refused while tracing was on */
	/* since the hypervisor began */
	u64 ever_written, ever_overrun, ever_dropped;
};

/*
 * What a hypervisor has counted. HVC_TRACING_STATISTICS that ends with 0 gives it: to the
 * address in x1, which has room for HYP_MAX_STATISTICS bytes, within a process; behind the
 * result, on a socket, where x1 is sent as 0 and the call must be the only one of its request.
 */
struct hyp_statistics_msg {
	u32 size;       /* bytes of all of it: exactly this structure and what follows */
	u32 nr_results; /* struct hyp_result_statistics_msg that follow; not those that are 0 */
	u32 nr_cpus;    /* struct hyp_cpu_statistics_msg that follow those; as in the hello */
	u32 zero;
	/* since it began, for all hosts: */
	u64 unknown_calls;    /* hypercalls that do not exist */
	u64 refused_messages; /* each has ended a connection */
	u64 hosts;            /* served, this one too */
	u64 refused_hosts;    /* with -EBUSY */
	u64 pages_shared;     /* now: meta pages, data pages and those of the descriptor */
	u64 most_pages_shared;
};

/* What is left of a message behind the head of a reply and its one result. */
#define HYP_MAX_STATISTICS \
	(HYP_MAX_MESSAGE - (u32)(sizeof(struct hyp_reply) + sizeof(struct hyp_result_msg)))

_Static_assert(sizeof(struct hyp_result_statistics_msg) == 16, "no padding");
_Static_assert(sizeof(struct hyp_cpu_statistics_msg) == 48, "no padding");
_Static_assert(sizeof(struct hyp_statistics_msg) == 64, "no padding");
_Static_assert(sizeof(struct hyp_hello) == 120, "no padding");
_Static_assert(sizeof(struct hyp_field_msg) == 144, "no padding");
_Static_assert(sizeof(struct hyp_event_msg) == 80, "no padding");
_Static_assert(sizeof(struct hyp_symbols_msg) == 136, "no padding");
_Static_assert(sizeof(struct hyp_format_msg) == 256, "no padding");
_Static_assert(sizeof(struct hyp_formats_msg) == 200, "no padding");
_Static_assert(sizeof(struct hyp_call_msg) == 48, "no padding");

#endif
