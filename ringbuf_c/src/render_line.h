/* SPDX-License-Identifier: Apache-2.0 */
/* What runs for each event that becomes text. What is rare is in render.c, out of line. */
#ifndef RINGBUF_C_RENDER_LINE_H
#define RINGBUF_C_RENDER_LINE_H

#include "ringbuf_c/render.h"

#define NSEC_PER_USEC 1000U
#define NSEC_PER_MSEC 1000000U
#define MSEC_PER_SEC 1000U

/* Each put_*() writes at @out and returns the first byte behind what it wrote. */

/*
 * Sixteen bytes at a time, whatever the length: what is too much is overwritten by what
 * follows. (A call of memcpy() would need a libc, and cost more than the copy.)
 */
static __always_inline char *put_text(char *out, const char *text, u32 length)
{
	for (u32 i = 0; i < length; i += RENDER_TEXT_ALIGN)
		__builtin_memcpy(out + i, text + i, RENDER_TEXT_ALIGN);
	return out + length;
}

#define put_literal(out, literal) \
	put_text(out, literal RENDER_TEXT_PADDING, sizeof(literal) - 1)

#define BYTES(x) ((u64)(x) * 0x0101010101010101ULL) /* x in each of eight bytes */

/*
 * The digits of @value, below 10^8, one a byte (0 to 9), the first in the lowest byte.
 * Halves, then quarters, then eighths, all lanes at once: x / 100 is x * 10486 >> 20 up
 * to 9999, x / 10 is x * 103 >> 10 up to 99.
 */
static __always_inline u64 eight_digits(u32 value)
{
	u64 x = value / 10000 | (u64)(value % 10000) << 32;
	u64 hundreds = (x * 10486 >> 20) & 0x0000007f0000007fULL;
	u64 tens;

	x = hundreds | (x - hundreds * 100) << 16;
	tens = (x * 103 >> 10) & 0x000f000f000f000fULL;
	return tens | (x - tens * 10) << 8;
}

/* Below 10^8, without leading zeros; writes 8 bytes whatever the length. */
static __always_inline char *put_short_decimal(char *out, u32 value)
{
	u64 digits = eight_digits(value);
	/* the last digit stays, also when it is 0 */
	u32 zeros = (u32)__builtin_ctzll(digits | 1ULL << 56) / 8;

	digits = (digits | BYTES('0')) >> 8 * zeros;
	__builtin_memcpy(out, &digits, sizeof(digits));
	return out + 8 - zeros;
}

char *put_long_decimal(char *out, u64 value);

/* Writes up to 7 bytes behind the last digit. */
static __always_inline char *put_decimal(char *out, u64 value)
{
	return likely(value < 100000000) ? put_short_decimal(out, (u32)value)
					 : put_long_decimal(out, value);
}

char *put_hex(char *out, u64 value, bool upper);

/* In the order of what is common. */
static __always_inline u64 load_field(const u8 *at, u32 size)
{
	u64 whole;
	u32 half;
	u16 quarter;

	if (size == 4) {
		__builtin_memcpy(&half, at, sizeof(half));
		return half;
	}
	if (size == 1)
		return *at;
	if (size == 8) {
		__builtin_memcpy(&whole, at, sizeof(whole));
		return whole;
	}
	__builtin_memcpy(&quarter, at, sizeof(quarter));
	return quarter;
}

static inline s64 sign_extend(u64 value, u32 size)
{
	u32 unused = 64 - 8 * size;

	return (s64)(value << unused) >> unused;
}

static inline char *put_digits(char *out, const struct render_op *op, u64 value)
{
	return op->kind == RENDER_HEX ? put_hex(out, value, op->flags & RENDER_UPPER)
				      : put_decimal(out, value);
}

/* In a field of op->width characters. */
char *put_padded(char *out, const struct render_op *op, u64 value, bool negative);
char *put_padded_text(char *out, const struct render_op *op, const struct render_text *text);

static __always_inline char *put_value(char *out, const struct render_op *op, u64 value)
{
	bool negative = op->kind == RENDER_SIGNED && sign_extend(value, op->size) < 0;

	if (negative)
		value = -(u64)sign_extend(value, op->size);
	if (unlikely(op->width))
		return put_padded(out, op, value, negative);
	*out = '-';
	return put_digits(out + negative, op, value);
}

static __always_inline char *put_symbol(char *out, const struct render_op *op, u64 value)
{
	const struct render_symbols *table = op->symbols;
	const struct render_text *text =
		value < table->nr ? &table->symbols[value] : &table->fallback;

	if (unlikely(op->width))
		return put_padded_text(out, op, text);
	return put_text(out, text->text, text->length);
}

static __always_inline char *put_op(char *out, const struct render_op *op, const u8 *payload)
{
	out = put_text(out, op->text.text, op->text.length);
	if (op->kind == RENDER_TEXT)
		return out;
	if (op->kind == RENDER_SYMBOL)
		return put_symbol(out, op, load_field(payload + op->offset, op->size));
	return put_value(out, op, load_field(payload + op->offset, op->size));
}

static __always_inline char *put_ops(char *out, const struct render_event *event,
				     const u8 *payload)
{
	const struct render_op *end = event->ops + event->nr_ops;

	for (const struct render_op *op = event->ops; op < end; op++)
		out = put_op(out, op, payload);
	return out;
}

/* It is a rare one, or no event has this id, or the record is too short for its event. */
char *put_odd_event(char *out, const struct rb_record *record, const struct render_event *event);

/* `[%03u]<TAB>%5llu.%03u`: the same for all events of a CPU within a millisecond. */
void make_prefix(struct render_prefix *prefix, u32 cpu, u64 time_stamp);

/* "000:" to "999:": what ends the time of a line, each as a number that is stored whole. */
extern const u32 usec_texts[1000];

/* render_line(), for the loop that all text goes through. */
static __always_inline u32 __render_line(char *out, struct render_prefix *prefix, u32 cpu,
					 const struct rb_record *record,
					 const struct render_event *event)
{
	u64 nsec = record->time_stamp - prefix->msec;
	char *end;

	if (unlikely(nsec >= prefix->nsecs)) {
		make_prefix(prefix, cpu, record->time_stamp);
		nsec = record->time_stamp - prefix->msec;
	}
	__builtin_memcpy(out, prefix->text, sizeof(prefix->text));
	end = out + prefix->length;
	__builtin_memcpy(end, &usec_texts[(u32)nsec / NSEC_PER_USEC], sizeof(u32));
	end[4] = ' ';
	end += 5;
	if (likely(event->ops && record->length >= event->length))
		end = put_ops(end, event, record->payload);
	else
		end = put_odd_event(end, record, event);
	*end++ = '\n';
	return (u32)(end - out);
}

#endif
