// SPDX-License-Identifier: Apache-2.0
#include "ringbuf_c/render.h"

#define DIGITS_MAX 20 /* of a u64, in decimal */
#define NSEC_PER_USEC 1000U
#define USEC_PER_SEC 1000000U

/* Each put_*() writes at @out and returns the first byte behind what it wrote. */

/*
 * Exactly @length bytes, in as few moves as possible: the last one may overlap the one
 * before. (A call of memcpy() would need a libc, and cost more than the copy.)
 */
static inline char *put_text(char *out, const char *text, u32 length)
{
	char *end = out + length;

	if (length >= 8) {
		for (u32 i = 0; i + 8 <= length; i += 8)
			__builtin_memcpy(out + i, text + i, 8);
		__builtin_memcpy(end - 8, text + length - 8, 8);
	} else if (length >= 4) {
		__builtin_memcpy(out, text, 4);
		__builtin_memcpy(end - 4, text + length - 4, 4);
	} else {
		for (u32 i = 0; i < length; i++)
			out[i] = text[i];
	}
	return end;
}

#define put_literal(out, literal) put_text(out, literal, sizeof(literal) - 1)

static char *put_fill(char *out, char fill, u32 count)
{
	while (count--)
		*out++ = fill;
	return out;
}

/* "00" to "99": decimal digits are made two at a time. */
static const char digit_pairs[] = "00010203040506070809"
				  "10111213141516171819"
				  "20212223242526272829"
				  "30313233343536373839"
				  "40414243444546474849"
				  "50515253545556575859"
				  "60616263646566676869"
				  "70717273747576777879"
				  "80818283848586878889"
				  "90919293949596979899";

static inline void put_pair(char *out, u32 value)
{
	__builtin_memcpy(out, digit_pairs + 2 * value, 2);
}

static const u64 powers_of_ten[] = {
	1ULL, 10ULL, 100ULL, 1000ULL, 10000ULL, 100000ULL, 1000000ULL, 10000000ULL, 100000000ULL,
	1000000000ULL, 10000000000ULL, 100000000000ULL, 1000000000000ULL, 10000000000000ULL,
	100000000000000ULL, 1000000000000000ULL, 10000000000000000ULL, 100000000000000000ULL,
	1000000000000000000ULL, 10000000000000000000ULL,
};

static inline u32 significant_bits(u64 value)
{
	return 64 - (u32)__builtin_clzll(value | 1);
}

static inline u32 decimal_length(u64 value)
{
	/* log10(2) is a little more than 1233 / 4096 */
	u32 guess = significant_bits(value) * 1233 >> 12;

	return guess + ((value | 1) >= powers_of_ten[guess]);
}

static inline u32 hex_length(u64 value)
{
	return (significant_bits(value) + 3) / 4;
}

/*
 * The digits of @value, ending before @end. Where they begin is known beforehand, so
 * they go where they belong at once: to read back bytes that were just written one by
 * one costs more than to make them.
 */
static inline void put_decimal_before(char *end, u64 value)
{
	while (value >= 100) {
		end -= 2;
		put_pair(end, (u32)(value % 100));
		value /= 100;
	}
	if (value >= 10)
		put_pair(end - 2, (u32)value);
	else
		end[-1] = (char)('0' + value);
}

static inline void put_hex_before(char *end, u64 value)
{
	do
		*--end = "0123456789abcdef"[value % 16];
	while (value /= 16);
}

/* Decimal, at least @width characters, led by @fill. */
static inline char *put_number(char *out, u64 value, u32 width, char fill)
{
	u32 length = decimal_length(value);

	if (length < width)
		out = put_fill(out, fill, width - length);
	put_decimal_before(out + length, value);
	return out + length;
}

static inline char *put_6_digits(char *out, u32 value)
{
	put_pair(out, value / 10000);
	put_pair(out + 2, value / 100 % 100);
	put_pair(out + 4, value % 100);
	return out + 6;
}

static u64 load_field(const u8 *at, u32 size)
{
	u64 value = 0;

	switch (size) {
	case 1:
		return *at;
	case 2:
		__builtin_memcpy(&value, at, 2);
		return value;
	case 4:
		__builtin_memcpy(&value, at, 4);
		return value;
	default:
		__builtin_memcpy(&value, at, 8);
		return value;
	}
}

static s64 sign_extend(u64 value, u32 size)
{
	u32 unused = 64 - 8 * size;

	return (s64)(value << unused) >> unused;
}

/* What goes around a value of @length characters: blanks, zeros behind the sign, blanks. */
struct padding {
	u32 before;
	u32 zeros;
	u32 behind;
};

static inline struct padding pad(const struct render_op *op, u32 length)
{
	u32 missing = op->width > length ? op->width - length : 0;

	if (op->flags & RENDER_LEFT)
		return (struct padding){ .behind = missing };
	if (op->flags & RENDER_ZERO)
		return (struct padding){ .zeros = missing };
	return (struct padding){ .before = missing };
}

static char *put_value(char *out, const struct render_op *op, u64 value)
{
	bool negative = op->kind == RENDER_SIGNED && sign_extend(value, op->size) < 0;
	bool hex = op->kind == RENDER_HEX;
	struct padding padding;
	u32 length;

	if (negative)
		value = -(u64)sign_extend(value, op->size);
	length = hex ? hex_length(value) : decimal_length(value);
	padding = pad(op, length + negative);

	out = put_fill(out, ' ', padding.before);
	if (negative)
		*out++ = '-';
	out = put_fill(out, '0', padding.zeros) + length;
	if (hex)
		put_hex_before(out, value);
	else
		put_decimal_before(out, value);
	return put_fill(out, ' ', padding.behind);
}

static char *put_symbol(char *out, const struct render_op *op, u64 value)
{
	const struct render_symbols *table = op->symbols;
	const struct render_text *text =
		value < table->nr ? &table->symbols[value] : &table->fallback;
	struct padding padding = pad(op, text->length);

	out = put_fill(out, ' ', padding.before);
	out = put_fill(out, '0', padding.zeros);
	out = put_text(out, text->text, text->length);
	return put_fill(out, ' ', padding.behind);
}

static char *put_op(char *out, const struct render_op *op, const u8 *payload)
{
	switch (op->kind) {
	case RENDER_TEXT:
		return put_text(out, op->text.text, op->text.length);
	case RENDER_SYMBOL:
		return put_symbol(out, op, load_field(payload + op->offset, op->size));
	default:
		return put_value(out, op, load_field(payload + op->offset, op->size));
	}
}

static const struct render_event *find_event(const struct rb_record *record,
					     const struct render_table *table)
{
	if (record->id >= table->nr || !table->events[record->id].ops)
		return NULL;
	return &table->events[record->id];
}

static char *put_event(char *out, const struct rb_record *record,
		       const struct render_table *table)
{
	const struct render_event *event = find_event(record, table);

	if (!event) {
		out = put_literal(out, "UNKNOWN id=");
		return put_number(out, record->id, 0, ' ');
	}
	if (record->length < event->length) {
		out = put_literal(out, "[SHORT EVENT id=");
		out = put_number(out, record->id, 0, ' ');
		out = put_literal(out, " length=");
		out = put_number(out, record->length, 0, ' ');
		return put_literal(out, "]");
	}
	for (u32 i = 0; i < event->nr_ops; i++)
		out = put_op(out, &event->ops[i], record->payload);
	return out;
}

u32 render_line(char *out, u32 cpu, const struct rb_record *record,
		const struct render_table *table)
{
	u64 usec = record->time_stamp / NSEC_PER_USEC;
	u64 sec = usec / USEC_PER_SEC;
	char *end = out;

	*end++ = '[';
	end = put_number(end, cpu, 3, '0');
	end = put_literal(end, "]\t");
	end = put_number(end, sec, 5, ' ');
	*end++ = '.';
	end = put_6_digits(end, (u32)(usec - sec * USEC_PER_SEC));
	end = put_literal(end, ": ");
	end = put_event(end, record, table);
	*end++ = '\n';
	return (u32)(end - out);
}

u32 render_line_max(const struct rb_record *record, const struct render_table *table)
{
	const struct render_event *event = find_event(record, table);

	return RENDER_FRAME_MAX + (event ? event->max_text : 0);
}

u32 render_lost(char *out, u32 cpu, u64 lost)
{
	char *end = put_literal(out, "CPU:");

	end = put_number(end, cpu, 0, ' ');
	end = put_literal(end, " [LOST ");
	end = put_number(end, lost, 0, ' ');
	end = put_literal(end, " EVENTS]\n");
	return (u32)(end - out);
}

u32 render_corrupt(char *out, u32 cpu, u32 page, u32 offset)
{
	char *end = put_literal(out, "CPU:");

	end = put_number(end, cpu, 0, ' ');
	end = put_literal(end, " [CORRUPT PAGE ");
	end = put_number(end, page, 0, ' ');
	end = put_literal(end, " AT ");
	end = put_number(end, offset, 0, ' ');
	end = put_literal(end, "]\n");
	return (u32)(end - out);
}

/* --- checking the operations ------------------------------------------------- */

static u32 max_u32(u32 a, u32 b)
{
	return a > b ? a : b;
}

static bool valid_op(const struct render_op *op)
{
	bool field_size = op->size == 1 || op->size == 2 || op->size == 4 || op->size == 8;

	switch (op->kind) {
	case RENDER_TEXT:
		return true;
	case RENDER_SYMBOL:
		return field_size && op->symbols;
	case RENDER_UNSIGNED:
	case RENDER_SIGNED:
	case RENDER_HEX:
		return field_size;
	default:
		return false;
	}
}

static u32 longest_symbol(const struct render_symbols *table)
{
	u32 longest = table->fallback.length;

	for (u32 i = 0; i < table->nr; i++)
		longest = max_u32(longest, table->symbols[i].length);
	return longest;
}

static u32 max_op_text(const struct render_op *op)
{
	switch (op->kind) {
	case RENDER_TEXT:
		return op->text.length;
	case RENDER_SYMBOL:
		return max_u32(longest_symbol(op->symbols), op->width);
	default:
		return max_u32(DIGITS_MAX + 1, op->width);
	}
}

static u64 field_end(const struct render_op *op)
{
	return op->kind == RENDER_TEXT ? 0 : (u64)op->offset + op->size;
}

int render_event_check(struct render_event *event)
{
	event->length = 0;
	event->max_text = 0;

	for (u32 i = 0; i < event->nr_ops; i++) {
		const struct render_op *op = &event->ops[i];

		if (!valid_op(op) || field_end(op) > RB_MAX_PAYLOAD)
			return -EINVAL;
		if (max_op_text(op) > RENDER_LINE_MAX)
			return -E2BIG;
		event->length = max_u32(event->length, (u32)field_end(op));
		event->max_text += max_op_text(op);
		if (event->max_text > RENDER_LINE_MAX - RENDER_FRAME_MAX)
			return -E2BIG;
	}
	return 0;
}
