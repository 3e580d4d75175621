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

/* --- the formats of hyp_printk ------------------------------------------------ */

enum hyp_string_fmt_id {
#define HYP_STRING_FMT(name, nr_args, text) HYP_FMT_##name,
#include "string_fmts.h"
#undef HYP_STRING_FMT
	HYP_NR_STRING_FMTS
};

enum hyp_string_fmt_args {
#define HYP_STRING_FMT(name, nr_args, text) NR_ARGS_HYP_FMT_##name = nr_args,
#include "string_fmts.h"
#undef HYP_STRING_FMT
};

#define HYP_PRINTK_ARGS 8 /* at most */

/* --- the record: what a payload holds --------------------------------------- */

struct hyp_entry_hdr {
	u16 id;
};

#define he_field(type, item) type item;
#define he_array(type, item, nr) type item[];
#define HYP_EVENT(name, proto, fields, assign, printk) \
	struct hyp_event_format_##name {               \
		struct hyp_entry_hdr hdr;              \
		fields                                 \
	};
#include "events.h"
#undef HYP_EVENT
#undef he_array
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
#define he_field(type, item)
#define he_array(type, item, nr) +(nr) * (u32)sizeof(type)
#define HYP_EVENT(name, proto, fields, assign, printk)                                        \
	static __always_inline void trace_##name(struct hyp_trace_cpu *cpu, proto)            \
	{                                                                                     \
		struct hyp_event_format_##name *__entry;                                      \
                                                                                              \
		if (!READ_ONCE(cpu->enabled[HYP_EVENT_INDEX_##name]))                         \
			return;                                                               \
		__entry = simple_ring_buffer_reserve(&cpu->rb, (u32)sizeof(*__entry) fields,  \
						     trace_clock_now, cpu->clock);            \
		if (!__entry)                                                                 \
			return;                                                               \
		__entry->hdr.id = HYP_EVENT_ID_##name;                                            \
		assign                                                                        \
		simple_ring_buffer_commit(&cpu->rb);                                          \
	}
#include "events.h"
#undef HYP_EVENT
#undef he_array
#undef he_field

#define __HYP_VALUES(...) ((const u64[]){ __VA_ARGS__ })
#define __HYP_NR_ARGS(...) ((u32)(sizeof(__HYP_VALUES(__VA_ARGS__)) / sizeof(u64)) - 1)
#define __HYP_FMT_ARGS(fmt, ...) NR_ARGS_##fmt

/* The values of a record, the format first; it does not compile with too few or too many. */
#define HYP_PRINTK_VALUES(...)                                                                \
	(__HYP_VALUES(__VA_ARGS__) +                                                          \
	 0 * sizeof(char[__HYP_NR_ARGS(__VA_ARGS__) == __HYP_FMT_ARGS(__VA_ARGS__, 0) ? 1 : -1]))

/*
 * trace_hyp_printk(cpu, HYP_FMT_<name>, arguments...) - write the event, with an integer
 * for each argument that the format has.
 */
#define trace_hyp_printk(cpu, ...)                                                            \
	(trace_hyp_printk)((cpu), __HYP_NR_ARGS(__VA_ARGS__), HYP_PRINTK_VALUES(__VA_ARGS__))

/* --- the description that a hypervisor gives of its events ---------------------- */

struct hyp_event_field {
	const char *type; /* C text, "u64" */
	const char *name; /* NULL ends a table */
	u32 offset;       /* bytes from the start of the payload */
	u32 size;         /* bytes; 0: to the end of the record, "u64[]" */
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

struct hyp_string_fmt {
	const char *text;
	u32 nr_args;
};

/*
 * The records of @event print as the format that their field @index counts, from 0, with
 * the u64s that begin at their field @args.
 */
struct hyp_format_table {
	const char *event;
	const char *index;
	const char *args;
	const struct hyp_string_fmt *formats;
	u32 nr_formats;
};

/** hyp_event_desc - describe event number @index; NULL after the last. */
const struct hyp_event_desc *hyp_event_desc(u32 index);

/** hyp_symbol_table - symbol table number @index; NULL after the last. */
const struct hyp_symbol_table *hyp_symbol_table(u32 index);

/** hyp_format_table - format table number @index; NULL after the last. */
const struct hyp_format_table *hyp_format_table(u32 index);

#endif
