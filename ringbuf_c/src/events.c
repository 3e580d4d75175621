// SPDX-License-Identifier: Apache-2.0
#include "ringbuf_c/define_events.h"

#define is_signed_type(type) ((type)-1 < (type)1)
#define ARRAY_SIZE(array) ((u32)(sizeof(array) / sizeof((array)[0])))

/* A function per event: he_field() needs a name for the record that it is in. */
#define he_field(type, item) \
	{ #type, #item, offsetof(record_t, item), sizeof(type), is_signed_type(type) },
#define he_array(type, item, nr) \
	{ #type "[]", #item, offsetof(record_t, item), 0, is_signed_type(type) },
#define HYP_EVENT(event, proto, fields_, assign, printk)                    \
	static const struct hyp_event_desc *describe_##event(void)          \
	{                                                                   \
		typedef struct hyp_event_format_##event record_t;           \
		static const struct hyp_event_field table[] = { fields_ { 0 } }; \
		static const struct hyp_event_desc desc = {                 \
			.name = #event,                                     \
			.id = HYP_EVENT_ID_##event,                         \
			.fields = table,                                    \
			.print_fmt = printk,                                \
		};                                                          \
                                                                            \
		return &desc;                                               \
	}
#include "ringbuf_c/events.h"
#undef HYP_EVENT
#undef he_array
#undef he_field

const struct hyp_event_desc *hyp_event_desc(u32 index)
{
	static const struct hyp_event_desc *(*const describe[])(void) = {
#define HYP_EVENT(event, proto, fields_, assign, printk) describe_##event,
#include "ringbuf_c/events.h"
#undef HYP_EVENT
	};

	return index < HYP_NR_EVENTS ? describe[index]() : NULL;
}

static const char *const reasons[] = {
#define X(reason, text) text,
	HYP_REASONS(X)
#undef X
};

static const struct hyp_symbol_table symbol_tables[] = {
	{ "__hyp_enter_exit_reason_str", reasons, ARRAY_SIZE(reasons), "unknown" },
};

const struct hyp_symbol_table *hyp_symbol_table(u32 index)
{
	return index < ARRAY_SIZE(symbol_tables) ? &symbol_tables[index] : NULL;
}

static const struct hyp_string_fmt string_fmts[] = {
#define HYP_STRING_FMT(name, nr_args, text) { text, nr_args },
#include "ringbuf_c/string_fmts.h"
#undef HYP_STRING_FMT
};

#define HYP_STRING_FMT(name, nr_args, text) \
	_Static_assert((nr_args) <= HYP_PRINTK_ARGS, "too many arguments: " #name);
#include "ringbuf_c/string_fmts.h"
#undef HYP_STRING_FMT

static const struct hyp_format_table format_tables[] = {
	{ "hyp_printk", "fmt_id", "args", string_fmts, ARRAY_SIZE(string_fmts) },
};

const struct hyp_format_table *hyp_format_table(u32 index)
{
	return index < ARRAY_SIZE(format_tables) ? &format_tables[index] : NULL;
}
