// SPDX-License-Identifier: Apache-2.0
/* Text of events; snprintf() is the oracle. */
#include "support.h"

#include <inttypes.h>

/* --- the line around the event ----------------------------------------------------------- */

static void expect_line(u32 cpu, const struct rb_record *record, const struct render_table *table,
			const char *expected)
{
	const struct render_event *event = render_find(table, record->id);
	struct render_prefix prefix = { 0 };
	u32 max = render_line_max(event);
	char *line = calloc(1, max + 1); /* exactly as large as promised: ASan watches */
	u32 length;

	assert_non_null(line);
	length = render_line(line, &prefix, cpu, record, event);
	assert_true(length <= max);
	line[length] = 0; /* what is behind it is anything */
	assert_string_equal(line, expected);
	assert_int_equal(length, strlen(expected));
	free(line);
}

static void test_prefix(void **state)
{
	static const struct {
		u32 cpu;
		u64 ns;
	} cases[] = {
		{ 0, 0 }, { 1, 999 }, { 7, 1000 }, { 10, 999999 }, { 99, 1000000 },
		{ 100, 999999999 }, { 999, 1000000000 }, { 1000, 99999999999999 },
		{ 4095, 100000000000000 }, { UINT32_MAX, UINT64_MAX },
	};

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rb_record record = { .time_stamp = cases[i].ns, .id = UINT16_MAX };
		struct render_table none = { NULL, 0 };
		unsigned long long usec = cases[i].ns / 1000;
		char expected[200];

		snprintf(expected, sizeof(expected), "[%03u]\t%5llu.%06llu: UNKNOWN id=65535\n",
			 cases[i].cpu, usec / 1000000, usec % 1000000);
		expect_line(cases[i].cpu, &record, &none, expected);
	}
}

/* --- whole events -------------------------------------------------------------------------- */

static const struct render_text reason_texts[] = {
	RENDER_LITERAL("smc"), RENDER_LITERAL("hvc"), RENDER_LITERAL("sys"), RENDER_LITERAL("psci"), RENDER_LITERAL("host_abort"),
};

static const struct render_symbols reasons = { reason_texts, ARRAY_SIZE(reason_texts),
					       RENDER_LITERAL("unknown") };

static const struct render_op hyp_enter_ops[] = {
	{ .kind = RENDER_TEXT, .text = RENDER_LITERAL("hyp_enter reason=") },
	{ .kind = RENDER_SYMBOL, .size = 1, .offset = 2, .symbols = &reasons },
	{ .kind = RENDER_TEXT, .text = RENDER_LITERAL(" vcpu=") },
	{ .kind = RENDER_SIGNED, .size = 4, .offset = 4 },
};

static struct render_event events[] = {
	[1] = { .ops = hyp_enter_ops, .nr_ops = ARRAY_SIZE(hyp_enter_ops) },
	[3] = { .ops = hyp_enter_ops, .nr_ops = 1 },
};

static const struct render_table table = { events, ARRAY_SIZE(events) };

static const struct {
	u16 id;
	u8 reason;
	s32 vcpu;
	u32 length;
	const char *line;
} lines[] = {
	{ 1, 1, 0, 8, "[003]\t 4242.123456: hyp_enter reason=hvc vcpu=0\n" },
	{ 1, 4, 1234, 8, "[003]\t 4242.123456: hyp_enter reason=host_abort vcpu=1234\n" },
	{ 1, 5, -1, 8, "[003]\t 4242.123456: hyp_enter reason=unknown vcpu=-1\n" },
	{ 1, 255, INT32_MIN, 8, "[003]\t 4242.123456: hyp_enter reason=unknown vcpu=-2147483648\n" },
	{ 1, 0, INT32_MAX, 16, "[003]\t 4242.123456: hyp_enter reason=smc vcpu=2147483647\n" },
	{ 1, 0, 0, 7, "[003]\t 4242.123456: [SHORT EVENT id=1 length=7]\n" },
	{ 1, 0, 0, 2, "[003]\t 4242.123456: [SHORT EVENT id=1 length=2]\n" },
	{ 3, 0, 0, 2, "[003]\t 4242.123456: hyp_enter reason=\n" }, /* reads no field */
	{ 0, 0, 0, 8, "[003]\t 4242.123456: UNKNOWN id=0\n" },
	{ 2, 0, 0, 8, "[003]\t 4242.123456: UNKNOWN id=2\n" },
	{ 4, 0, 0, 8, "[003]\t 4242.123456: UNKNOWN id=4\n" },
	{ 65535, 0, 0, 2, "[003]\t 4242.123456: UNKNOWN id=65535\n" },
};

static void test_lines(void **state)
{
	(void)state;
	assert_int_equal(render_event_check(&events[1]), 0);
	assert_int_equal(events[1].length, 8);
	assert_int_equal(render_event_check(&events[3]), 0);
	assert_int_equal(events[3].length, 0);
	for (u32 i = 0; i < ARRAY_SIZE(lines); i++) {
		u8 *payload = calloc(1, lines[i].length); /* not a byte more */
		u8 whole[16] = { 0 };
		struct rb_record record = {
			.time_stamp = 4242123456999ULL,
			.payload = payload,
			.length = lines[i].length,
			.id = lines[i].id,
		};

		assert_non_null(payload);
		memcpy(whole, &lines[i].id, 2);
		whole[2] = lines[i].reason;
		memcpy(whole + 4, &lines[i].vcpu, 4);
		memcpy(payload, whole, lines[i].length);
		expect_line(3, &record, &table, lines[i].line);
		free(payload);
	}
}

/* The id that was checked counts, not the one in the payload, which may have changed. */
static void test_id_of_record(void **state)
{
	u8 payload[8] = { 99 };
	struct rb_record record = { .payload = payload, .length = 8, .id = 1 };

	(void)state;
	assert_int_equal(render_event_check(&events[1]), 0);
	expect_line(0, &record, &table, "[000]\t    0.000000: hyp_enter reason=smc vcpu=0\n");
}

static void test_lost_and_corrupt(void **state)
{
	char text[RENDER_FRAME_MAX + 1] = { 0 };

	(void)state;
	assert_int_equal(render_lost(text, 3, 510), strlen("CPU:3 [LOST 510 EVENTS]\n"));
	assert_string_equal(text, "CPU:3 [LOST 510 EVENTS]\n");
	memset(text, 0, sizeof(text));
	assert_true(render_lost(text, UINT32_MAX, UINT64_MAX) < RENDER_FRAME_MAX / 2);
	assert_string_equal(text, "CPU:4294967295 [LOST 18446744073709551615 EVENTS]\n");
	memset(text, 0, sizeof(text));
	render_corrupt(text, 1, 2, 4080);
	assert_string_equal(text, "CPU:1 [CORRUPT PAGE 2 AT 4080]\n");
	memset(text, 0, sizeof(text));
	assert_true(render_corrupt(text, UINT32_MAX, UINT32_MAX, UINT32_MAX) <
		    RENDER_FRAME_MAX / 2);
	assert_string_equal(text, "CPU:4294967295 [CORRUPT PAGE 4294967295 AT 4294967295]\n");
}

/* --- numbers --------------------------------------------------------------------------------- */

#define PREFIX "[000]\t    0.000000: "

/* What printf makes of the field: value cut to its size. */
static void oracle(char *out, size_t size, const struct render_op *op, u64 value)
{
	u32 unused = 64 - 8U * op->size;
	u64 cut = value << unused >> unused;
	const char *zero = op->flags & RENDER_ZERO ? "0" : "";
	const char *left = op->flags & RENDER_LEFT ? "-" : "";
	const char *conversion = op->kind == RENDER_HEX	     ? PRIx64
				 : op->kind == RENDER_SIGNED ? PRId64
							     : PRIu64;
	char format[32];

	if (op->kind == RENDER_SIGNED)
		cut = (u64)((s64)(value << unused) >> unused);
	snprintf(format, sizeof(format), PREFIX "%%%s%s*%s\n", left,
		 *left ? "" : zero, conversion);
	snprintf(out, size, format, op->width, cut);
}

static void expect_number(const struct render_op *op, u64 value)
{
	struct render_event number[] = { { .ops = op, .nr_ops = 1 } };
	struct render_table numbers = { number, 1 };
	u8 payload[32] = { 0 };
	struct rb_record record = { .payload = payload, .length = op->offset + op->size };
	char expected[400];

	memcpy(payload + op->offset, &value, op->size);
	assert_int_equal(render_event_check(&number[0]), 0);
	assert_int_equal(number[0].length, op->offset + op->size);
	oracle(expected, sizeof(expected), op, value);
	expect_line(0, &record, &numbers, expected);
}

static const u64 values[] = {
	0, 1, 7, 9, 10, 15, 16, 99, 100, 127, 128, 255, 256, 999, 1000, 32767, 32768, 65535, 65536,
	0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 9999999999999999999ULL,
	10000000000000000000ULL, INT64_MAX, 0x8000000000000000, UINT64_MAX,
};

static const u8 widths[] = { 0, 1, 2, 3, 8, 19, 20, 21, 22, 64, 255 };
static const u8 sizes[] = { 1, 2, 4, 8 };
static const u8 kinds[] = { RENDER_UNSIGNED, RENDER_SIGNED, RENDER_HEX };

/* All combinations of a kind, a size, a width and flags. */
static void for_each_shape(void (*check)(const struct render_op *op))
{
	for (u32 kind = 0; kind < ARRAY_SIZE(kinds); kind++)
		for (u32 size = 0; size < ARRAY_SIZE(sizes); size++)
			for (u32 width = 0; width < ARRAY_SIZE(widths); width++)
				for (u8 flags = 0; flags <= (RENDER_LEFT | RENDER_ZERO); flags++)
					check(&(struct render_op){
						.kind = kinds[kind],
						.size = sizes[size],
						.width = widths[width],
						.flags = flags,
						.offset = 2,
					});
}

static void check_values(const struct render_op *op)
{
	for (u32 i = 0; i < ARRAY_SIZE(values); i++)
		expect_number(op, values[i]);
}

static void test_numbers_table(void **state)
{
	(void)state;
	for_each_shape(check_values);
}

static void test_numbers_random(void **state)
{
	u64 seed = 0xfeed;

	(void)state;
	for (u32 i = 0; i < 20000; i++) {
		u64 random = next_random(&seed);
		struct render_op op = {
			.kind = kinds[random % ARRAY_SIZE(kinds)],
			.size = sizes[(random >> 8) % ARRAY_SIZE(sizes)],
			.width = (u8)((random >> 16) % 40),
			.flags = (u8)((random >> 24) % 4),
			.offset = (u32)((random >> 32) % 20), /* odd ones too */
		};

		expect_number(&op, next_random(&seed) >> (random >> 40) % 64);
	}
}

static void test_symbol_width(void **state)
{
	static const struct {
		u8 width, flags, value;
		const char *text;
	} cases[] = {
		{ 0, 0, 1, "|hvc|" },
		{ 3, 0, 1, "|hvc|" },
		{ 6, 0, 1, "|   hvc|" },
		{ 6, RENDER_LEFT, 1, "|hvc   |" },
		{ 2, 0, 4, "|host_abort|" },
		{ 9, 0, 5, "|  unknown|" },
	};

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		struct render_op ops[] = {
			{ .kind = RENDER_TEXT, .text = RENDER_LITERAL("|") },
			{ .kind = RENDER_SYMBOL, .size = 1, .width = cases[i].width,
			  .flags = cases[i].flags, .symbols = &reasons },
			{ .kind = RENDER_TEXT, .text = RENDER_LITERAL("|") },
		};
		struct render_event event = { .ops = ops, .nr_ops = 3 };
		struct render_table one = { &event, 1 };
		struct rb_record record = { .payload = &cases[i].value, .length = 1 };
		char expected[64];

		assert_int_equal(render_event_check(&event), 0);
		snprintf(expected, sizeof(expected), PREFIX "%s\n", cases[i].text);
		expect_line(0, &record, &one, expected);
	}
}

/* --- rare operations -------------------------------------------------------------------------- */

static const struct render_text gaps_texts[] = { RENDER_LITERAL(""), RENDER_LITERAL("one") };
static const struct render_symbols gaps = { gaps_texts, 2, RENDER_LITERAL("never") };

static const struct {
	struct render_op op;
	u32 length;
	const char *bytes; /* from 2 on */
	const char *text;
} rare[] = {
	{ { .kind = RENDER_STRING, .size = 6 }, 8, "qemu\0x", "qemu" },
	{ { .kind = RENDER_STRING, .size = 4 }, 6, "qemu\0x", "qemu" },
	{ { .kind = RENDER_STRING, .size = 4 }, 6, "\0mu!", "" },
	{ { .kind = RENDER_STRING, .size = 6 }, 8, "a\n\x1b\x7f\xff~", "a....~" },
	{ { .kind = RENDER_STRING, .size = 6, .width = 8 }, 8, "qemu\0x", "    qemu" },
	{ { .kind = RENDER_STRING, .size = 6, .width = 8, .flags = RENDER_LEFT }, 8, "qemu\0x", "qemu    " },
	{ { .kind = RENDER_STRING, .size = 6, .width = 3 }, 8, "qemu\0x", "qemu" },
	{ { .kind = RENDER_STRING, .size = 6 }, 7, "qemu\0x", "[SHORT EVENT id=0 length=7]" },
	{ { .kind = RENDER_SYMBOL_OR_HEX, .size = 1, .symbols = &gaps }, 3, "\1", "one" },
	{ { .kind = RENDER_SYMBOL_OR_HEX, .size = 1, .symbols = &gaps }, 3, "\0", "0x0" },
	{ { .kind = RENDER_SYMBOL_OR_HEX, .size = 1, .symbols = &gaps }, 3, "\xfe", "0xfe" },
	{ { .kind = RENDER_SYMBOL_OR_HEX, .size = 1, .symbols = &gaps, .flags = RENDER_EXTEND }, 3, "\xfe",
	  "0xfffffffffffffffe" },
	{ { .kind = RENDER_SYMBOL_OR_HEX, .size = 4, .symbols = &gaps, .width = 11 }, 6, "\1\0\0\xf0",
	  " 0xf0000001" },
	{ { .kind = RENDER_SYMBOL_OR_HEX, .size = 8, .symbols = &gaps }, 10, "\1\0\0\0\0\0\0\x80",
	  "0x8000000000000001" },
	{ { .kind = RENDER_HEX, .size = 2, .flags = RENDER_UPPER }, 4, "\xef\xbe", "BEEF" },
	{ { .kind = RENDER_HEX, .size = 2, .flags = RENDER_UPPER | RENDER_ZERO, .width = 6 }, 4, "\xef\xbe",
	  "00BEEF" },
};

static void test_rare_operations(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(rare); i++) {
		struct render_op op = rare[i].op;
		struct render_event event = { .ops = &op, .nr_ops = 1 };
		struct render_table one = { &event, 1 };
		u8 *payload = calloc(1, rare[i].length); /* not a byte more */
		struct rb_record record = { .payload = payload, .length = rare[i].length };
		char expected[100];

		assert_non_null(payload);
		op.offset = 2;
		memcpy(payload + 2, rare[i].bytes, rare[i].length - 2);
		assert_int_equal(render_event_check(&event), 0);
		snprintf(expected, sizeof(expected), PREFIX "%s\n", rare[i].text);
		expect_line(0, &record, &one, expected);
		free(payload);
	}
}

static void test_check_rare_operations(void **state)
{
	struct render_op ops[] = {
		{ .kind = RENDER_STRING, .size = 200, .offset = 2 },
		{ .kind = RENDER_SYMBOL_OR_HEX, .size = 8, .symbols = &gaps },
	};
	struct render_event event = { .ops = ops, .nr_ops = ARRAY_SIZE(ops) };

	(void)state;
	assert_int_equal(render_event_check(&event), 0);
	assert_int_equal(event.max_text, 200 + strlen("0x8000000000000000"));
	assert_int_equal(event.reads, 202);
	ops[0].width = 255;
	ops[1].symbols = &reasons; /* shorter than a number */
	assert_int_equal(render_event_check(&event), 0);
	assert_int_equal(event.max_text, 255 + strlen("0x8000000000000000"));
}

/* --- formats --------------------------------------------------------------------------------- */

static const struct render_op no_format_ops[] = {
	{ .kind = RENDER_UNSIGNED, .size = 2, .offset = 2, .text = RENDER_LITERAL("p no ") },
};
static const struct render_op none_ops[] = { { .kind = RENDER_TEXT, .text = RENDER_LITERAL("p none") } };
static const struct render_op two_ops[] = {
	{ .kind = RENDER_SIGNED, .size = 4, .offset = 8, .text = RENDER_LITERAL("p one=") },
	{ .kind = RENDER_HEX, .size = 8, .offset = 16, .text = RENDER_LITERAL(" two=") },
};
static struct render_event format_events[] = {
	{ .ops = none_ops, .nr_ops = 1 },
	{ .ops = two_ops, .nr_ops = 2 },
	{ .ops = NULL }, /* one that nobody can print */
};

static const struct {
	u32 fmt_id;
	u32 length;
	const char *text;
} printed[] = {
	{ 0, 4, "p none" },
	{ 0, 24, "p none" },
	{ 0, 3, "[SHORT EVENT id=0 length=3]" }, /* no index */
	{ 0, 2, "[SHORT EVENT id=0 length=2]" },
	{ 1, 24, "p one=-2 two=1122334455667788" },
	{ 1, 32, "p one=-2 two=1122334455667788" },
	{ 1, 23, "[SHORT EVENT id=0 length=23]" },
	{ 1, 8, "[SHORT EVENT id=0 length=8]" },
	{ 2, 24, "UNKNOWN id=0" },
	{ 3, 4, "p no 3" },
	{ 3, 24, "p no 3" },
	{ 65535, 8, "p no 65535" },
};

static void check_formats(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(format_events); i++)
		assert_int_equal(render_event_check(&format_events[i]), 0);
}

static void test_formats(void **state)
{
	const struct render_formats formats = { format_events, ARRAY_SIZE(format_events), 2, 2 };
	struct render_event event = { .ops = no_format_ops, .nr_ops = 1, .formats = &formats };
	const struct render_table one = { &event, 1 };

	(void)state;
	check_formats();
	assert_int_equal(render_event_check(&event), 0);
	assert_int_equal(event.max_text, 6 + 21 + 5 + 21); /* of two_ops, the longest */
	for (u32 i = 0; i < ARRAY_SIZE(printed); i++) {
		u8 whole[32] = { [8] = 0xfe, 0xff, 0xff, 0xff, 1, 2, 3, 4, /* above 4 bytes: not seen */
				 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11 };
		u8 *payload = calloc(1, printed[i].length); /* not a byte more */
		struct rb_record record = { .payload = payload, .length = printed[i].length };
		char expected[100];

		assert_non_null(payload);
		memcpy(whole + 2, &printed[i].fmt_id, 2);
		memcpy(payload, whole, printed[i].length);
		snprintf(expected, sizeof(expected), PREFIX "%s\n", printed[i].text);
		expect_line(0, &record, &one, expected);
		free(payload);
	}
}

static int check_event(const struct render_op *op, u32 offset, u32 size)
{
	const struct render_formats formats = { format_events, ARRAY_SIZE(format_events), offset,
						size };
	struct render_event event = { .ops = op, .nr_ops = 1, .formats = &formats };

	return render_event_check(&event);
}

static void test_check_formats(void **state)
{
	struct render_event nested;
	const struct render_formats none = { NULL, 0, 2, 2 };
	const struct render_op past = { .kind = RENDER_HEX, .size = 8, .offset = 8 };
	const struct render_op odd = { .kind = RENDER_HEX, .size = 3, .offset = 0 };
	struct render_event event = { .ops = none_ops, .nr_ops = 1, .formats = &none };

	(void)state;
	check_formats();
	assert_int_equal(render_event_check(&event), 0);
	for (u32 size = 0; size < 20; size++)
		assert_int_equal(check_event(none_ops, 2, size),
				 size == 1 || size == 2 || size == 4 || size == 8 ? 0 : -EINVAL);
	assert_int_equal(check_event(none_ops, RB_MAX_PAYLOAD - 1, 1), 0);
	assert_int_equal(check_event(none_ops, RB_MAX_PAYLOAD - 1, 2), -EINVAL);
	assert_int_equal(check_event(none_ops, UINT32_MAX, 8), -EINVAL);
	/* what is there for sure ends with the index */
	assert_int_equal(check_event(&past, 8, 8), 0);
	assert_int_equal(check_event(&past, 8, 4), -EINVAL);
	assert_int_equal(check_event(&odd, 2, 2), -EINVAL);
	nested = event;
	event.formats = &(struct render_formats){ &nested, 1, 2, 2 };
	assert_int_equal(render_event_check(&event), -EINVAL);
}

/* --- checking operations ---------------------------------------------------------------------- */

static const struct {
	const char *what;
	struct render_op op;
	int ret;
} checks[] = {
	{ "text", { .kind = RENDER_TEXT, .text = RENDER_LITERAL("x") }, 0 },
	{ "no such kind", { .kind = RENDER_STRING + 1, .size = 4 }, -EINVAL },
	{ "no such kind", { .kind = 255, .size = 4 }, -EINVAL },
	{ "size 0", { .kind = RENDER_UNSIGNED, .size = 0 }, -EINVAL },
	{ "size 3", { .kind = RENDER_SIGNED, .size = 3 }, -EINVAL },
	{ "size 5", { .kind = RENDER_HEX, .size = 5 }, -EINVAL },
	{ "size 16", { .kind = RENDER_UNSIGNED, .size = 16 }, -EINVAL },
	{ "symbol of size 7", { .kind = RENDER_SYMBOL, .size = 7, .symbols = &reasons }, -EINVAL },
	{ "symbol without a table", { .kind = RENDER_SYMBOL, .size = 1 }, -EINVAL },
	{ "empty string", { .kind = RENDER_STRING, .size = 0 }, -EINVAL },
	{ "string", { .kind = RENDER_STRING, .size = 255, .offset = RB_MAX_PAYLOAD - 255 }, 0 },
	{ "string off the page", { .kind = RENDER_STRING, .size = 255, .offset = RB_MAX_PAYLOAD - 254 },
	  -EINVAL },
	{ "hex without a table", { .kind = RENDER_SYMBOL_OR_HEX, .size = 1 }, -EINVAL },
	{ "symbol", { .kind = RENDER_SYMBOL, .size = 1, .symbols = &reasons }, 0 },
	{ "last offset", { .kind = RENDER_UNSIGNED, .size = 1, .offset = RB_MAX_PAYLOAD - 1 }, 0 },
	{ "offset off the page", { .kind = RENDER_UNSIGNED, .size = 1, .offset = RB_MAX_PAYLOAD + 1 },
	  -EINVAL },
	{ "offset that wraps", { .kind = RENDER_UNSIGNED, .size = 8, .offset = UINT32_MAX - 3 },
	  -EINVAL },
	{ "text of a line", { .kind = RENDER_TEXT, .text = { NULL, RENDER_LINE_MAX } }, -E2BIG },
	{ "text too long", { .kind = RENDER_TEXT, .text = { NULL, UINT32_MAX } }, -E2BIG },
	{ "largest text",
	  { .kind = RENDER_TEXT, .text = { NULL, RENDER_LINE_MAX - RENDER_FRAME_MAX } }, 0 },
	{ "one more", { .kind = RENDER_TEXT, .text = { NULL, RENDER_LINE_MAX - RENDER_FRAME_MAX + 1 } },
	  -E2BIG },
};

static void test_check(void **state)
{
	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(checks); i++) {
		struct render_event event = { .ops = &checks[i].op, .nr_ops = 1 };
		int ret = render_event_check(&event);

		if (ret != checks[i].ret)
			fail_msg("%s: %d", checks[i].what, ret);
	}
}

/* Each alone would fit; together they do not. Sums must not wrap either. */
static void test_check_sum(void **state)
{
	static struct render_op ops[300];
	struct render_event event = { .ops = ops };

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(ops); i++)
		ops[i] = (struct render_op){ .kind = RENDER_HEX, .size = 8, .width = 255 };
	event.nr_ops = (RENDER_LINE_MAX - RENDER_FRAME_MAX) / 255;
	assert_int_equal(render_event_check(&event), 0);
	assert_int_equal(event.max_text, event.nr_ops * 255);
	event.nr_ops++;
	assert_int_equal(render_event_check(&event), -E2BIG);
	event.nr_ops = ARRAY_SIZE(ops);
	assert_int_equal(render_event_check(&event), -E2BIG);
}

static void test_check_longest_symbol(void **state)
{
	static const struct render_text texts[] = { RENDER_LITERAL(""), RENDER_LITERAL("a") };
	static const struct render_symbols wide_fallback = { texts, 2, RENDER_LITERAL("unknown") };
	static const struct render_symbols no_symbols = { NULL, 0, RENDER_LITERAL("") };
	static const struct render_symbols too_long = { texts, 2, { NULL, RENDER_LINE_MAX } };
	struct render_op op = { .kind = RENDER_SYMBOL, .size = 1 };
	struct render_event event = { .ops = &op, .nr_ops = 1 };

	(void)state;
	op.symbols = &reasons;
	assert_int_equal(render_event_check(&event), 0);
	assert_int_equal(event.max_text, 10);
	op.symbols = &wide_fallback;
	assert_int_equal(render_event_check(&event), 0);
	assert_int_equal(event.max_text, 7);
	op.width = 9;
	assert_int_equal(render_event_check(&event), 0);
	assert_int_equal(event.max_text, 9);
	op.width = 0;
	op.symbols = &no_symbols;
	assert_int_equal(render_event_check(&event), 0);
	assert_int_equal(event.max_text, 0);
	op.symbols = &too_long;
	assert_int_equal(render_event_check(&event), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_id_of_record),
		cmocka_unit_test(test_lost_and_corrupt),
		cmocka_unit_test(test_numbers_table),
		cmocka_unit_test(test_numbers_random),
		cmocka_unit_test(test_symbol_width),
		cmocka_unit_test(test_rare_operations),
		cmocka_unit_test(test_check_rare_operations),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_check_formats),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_check_sum),
		cmocka_unit_test(test_check_longest_symbol),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
