/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the definitions in events.h become for the writer: for each event its id,
 * its record structure and trace_<event>(). src/events.c makes the tables that
 * describe them to the host.
 */
#ifndef RINGBUF_C_DEFINE_EVENTS_H
#define RINGBUF_C_DEFINE_EVENTS_H

#include "clock.h"
#include "ring.h"
#include "types.h"

/* Why the hypervisor was entered or left; numbers as in Linux 7.2 (SPEC F.4). */
#define HYP_REASONS(X)               \
	X(SMC, "smc")                \
	X(HVC, "hvc")                \
	X(SYS, "sys")                \
	X(PSCI, "psci")              \
	X(HOST_ABORT, "host_abort")  \
	X(GUEST_EXIT, "guest_exit")  \
	X(ERET_HOST, "eret_host")    \
	X(ERET_GUEST, "eret_guest")

enum hyp_enter_exit_reason {
#define X(reason, text) HYP_REASON_##reason,
	HYP_REASONS(X)
#undef X
};

/* --- the parts of a definition ------------------------------------------- */

#define HE_PROTO(...) __VA_ARGS__
#define HE_STRUCT(...) __VA_ARGS__
#define HE_ASSIGN(...) __VA_ARGS__
#define HE_PRINTK(...) #__VA_ARGS__

/* --- index and id ---------------------------------------------------------- */

enum hyp_event_index {
#define HYP_EVENT(name, proto, fields, assign, printk) HYP_EVENT_INDEX_##name,
#include "events.h"
#undef HYP_EVENT
	HYP_NR_EVENTS
};

/*
 * Ids count from 1 and leave out 5: readers drop events with id 0, and take 5 for
 * ftrace's own "print" event. (The reference counts from 0.)
 */
#define HYP_EVENT_RESERVED_ID 5
#define HYP_EVENT_ID_OF(index) ((index) + 1 + ((index) + 1 >= HYP_EVENT_RESERVED_ID))

enum hyp_event_id {
#define HYP_EVENT(name, proto, fields, assign, printk) \
	HYP_EVENT_ID_##name = HYP_EVENT_ID_OF(HYP_EVENT_INDEX_##name),
#include "events.h"
#undef HYP_EVENT
};

/* --- the record: what a payload holds --------------------------------------- */

struct hyp_entry_hdr {
	u16 id;
};

#define he_field(type, item) type item;
#define HYP_EVENT(name, proto, fields, assign, printk) \
	struct hyp_event_format_##name {               \
		struct hyp_entry_hdr hdr;              \
		fields                                 \
	};
#include "events.h"
#undef HYP_EVENT
#undef he_field

/* --- trace_<event>() ---------------------------------------------------------- */

/* What a CPU needs to write events. */
struct hyp_trace_cpu {
	struct simple_rb_per_cpu rb;
	const struct trace_clock *clock;
	const u32 *enabled; /* one word per event, by index; shared by all CPUs */
};

/*
 * trace_<event>(cpu, ...) - write the event, if it is enabled and the buffer takes
 * it. Only the CPU that owns @cpu may call it. An event may be written or missed
 * shortly after it is switched (SPEC B.11).
 */
#define HYP_EVENT(name, proto, fields, assign, printk)                                        \
	static __always_inline void trace_##name(struct hyp_trace_cpu *cpu, proto)            \
	{                                                                                     \
		struct hyp_event_format_##name *__entry;                                      \
                                                                                              \
		if (!READ_ONCE(cpu->enabled[HYP_EVENT_INDEX_##name]))                         \
			return;                                                               \
		__entry = simple_ring_buffer_reserve(&cpu->rb, sizeof(*__entry),              \
						     trace_clock_now, cpu->clock);            \
		if (!__entry)                                                                 \
			return;                                                               \
		__entry->hdr.id = HYP_EVENT_ID_##name;                                            \
		assign                                                                        \
		simple_ring_buffer_commit(&cpu->rb);                                          \
	}
#include "events.h"
#undef HYP_EVENT

/* --- the description that a hypervisor gives of its events ---------------------- */

struct hyp_event_field {
	const char *type; /* C text, "u64" */
	const char *name; /* NULL ends a table */
	u32 offset;       /* bytes from the start of the payload */
	u32 size;         /* bytes */
	u32 is_signed;
};

struct hyp_event_desc {
	const char *name;
	u32 id;
	const struct hyp_event_field *fields;
	const char *print_fmt; /* as in the `format` file */
};

/* Value i of a symbol table prints as symbols[i]; any other as fallback. */
struct hyp_symbol_table {
	const char *function; /* as called in a print format */
	const char *const *symbols;
	u32 nr_symbols;
	const char *fallback;
};

/** hyp_event_desc - describe event number @index; NULL after the last. */
const struct hyp_event_desc *hyp_event_desc(u32 index);

/** hyp_symbol_table - symbol table number @index; NULL after the last. */
const struct hyp_symbol_table *hyp_symbol_table(u32 index);

#endif
