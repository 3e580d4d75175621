// SPDX-License-Identifier: Apache-2.0
#include "ringbuf_c/render.h"

#define DIGITS_MAX 20 /* of a u64, in decimal */
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

static inline char *put_fill(char *out, char fill, u32 count)
{
	while (count--)
		*out++ = fill;
	return out;
}

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

static char *put_long_decimal(char *out, u64 value)
{
	u64 digits = eight_digits((u32)(value % 100000000)) | BYTES('0');

	value /= 100000000;
	out = value < 100000000 ? put_short_decimal(out, (u32)value)
				: put_long_decimal(out, value);
	__builtin_memcpy(out, &digits, sizeof(digits));
	return out + 8;
}

/* Writes up to 7 bytes behind the last digit. */
static __always_inline char *put_decimal(char *out, u64 value)
{
	return likely(value < 100000000) ? put_short_decimal(out, (u32)value)
					 : put_long_decimal(out, value);
}

static char *put_hex(char *out, u64 value)
{
	u32 length = (64 - (u32)__builtin_clzll(value | 1) + 3) / 4;

	for (u32 i = length; i > 0; i--, value /= 16)
		out[i - 1] = "0123456789abcdef"[value % 16];
	return out + length;
}

/* Room for any number and for what put_decimal() writes behind it. */
#define NUMBER_ROOM 32

/* Decimal, at least @width characters, led by @fill. */
static char *put_number(char *out, u64 value, u32 width, char fill)
{
	char number[NUMBER_ROOM];
	u32 length = (u32)(put_decimal(number, value) - number);

	if (length < width)
		out = put_fill(out, fill, width - length);
	return put_text(out, number, length);
}

static __always_inline u64 load_field(const u8 *at, u32 size)
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

static inline s64 sign_extend(u64 value, u32 size)
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

static inline char *put_digits(char *out, const struct render_op *op, u64 value)
{
	return op->kind == RENDER_HEX ? put_hex(out, value) : put_decimal(out, value);
}

/* A number in a field of op->width characters. */
static char *put_padded(char *out, const struct render_op *op, u64 value, bool negative)
{
	char number[NUMBER_ROOM];
	u32 length = (u32)(put_digits(number, op, value) - number);
	struct padding padding = pad(op, length + negative);

	out = put_fill(out, ' ', padding.before);
	if (negative)
		*out++ = '-';
	out = put_fill(out, '0', padding.zeros);
	out = put_text(out, number, length);
	return put_fill(out, ' ', padding.behind);
}

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

static char *put_padded_text(char *out, const struct render_op *op, const struct render_text *text)
{
	struct padding padding = pad(op, text->length);

	out = put_fill(out, ' ', padding.before);
	out = put_fill(out, '0', padding.zeros);
	out = put_text(out, text->text, text->length);
	return put_fill(out, ' ', padding.behind);
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

/* No event has this id, or the record is too short for its event. */
static char *put_odd_event(char *out, const struct rb_record *record,
			   const struct render_event *event)
{
	if (!event->ops) {
		out = put_literal(out, "UNKNOWN id=");
		return put_number(out, record->id, 0, ' ');
	}
	out = put_literal(out, "[SHORT EVENT id=");
	out = put_number(out, record->id, 0, ' ');
	out = put_literal(out, " length=");
	out = put_number(out, record->length, 0, ' ');
	return put_literal(out, "]");
}

/* "000:" to "999:": what ends the time of a line, each as a number that is stored whole. */
#define DIGIT(value, place) ((u32)('0' + (value) / (place) % 10))
#define USEC(value)                                                                      \
	(DIGIT(value, 100) | DIGIT(value, 10) << 8 | DIGIT(value, 1) << 16 | (u32)':' << 24)
#define USECS_10(at)                                                                     \
	USEC(at), USEC((at) + 1), USEC((at) + 2), USEC((at) + 3), USEC((at) + 4),         \
		USEC((at) + 5), USEC((at) + 6), USEC((at) + 7), USEC((at) + 8), USEC((at) + 9)
#define USECS_100(at)                                                                    \
	USECS_10(at), USECS_10((at) + 10), USECS_10((at) + 20), USECS_10((at) + 30),      \
		USECS_10((at) + 40), USECS_10((at) + 50), USECS_10((at) + 60),            \
		USECS_10((at) + 70), USECS_10((at) + 80), USECS_10((at) + 90)

static const u32 usec_texts[1000] = {
	USECS_100(0),	USECS_100(100), USECS_100(200), USECS_100(300), USECS_100(400),
	USECS_100(500), USECS_100(600), USECS_100(700), USECS_100(800), USECS_100(900),
};

/* `[%03u]<TAB>%5llu.%03u`: the same for all events of a CPU within a millisecond. */
static void make_prefix(struct render_prefix *prefix, u32 cpu, u64 time_stamp)
{
	char text[2 * sizeof(prefix->text)]; /* put_*() may write behind the end */
	u64 msec = time_stamp / NSEC_PER_MSEC;
	char *end = text;

	*end++ = '[';
	end = put_number(end, cpu, 3, '0');
	end = put_literal(end, "]\t");
	end = put_number(end, msec / MSEC_PER_SEC, 5, ' ');
	*end++ = '.';
	end = put_number(end, msec % MSEC_PER_SEC, 3, '0');
	prefix->length = (u32)(end - text);
	__builtin_memcpy(prefix->text, text, sizeof(prefix->text));
	prefix->msec = msec * NSEC_PER_MSEC;
}

u32 render_line(char *out, struct render_prefix *prefix, u32 cpu, const struct rb_record *record,
		const struct render_event *event)
{
	u64 nsec = record->time_stamp - prefix->msec;
	char *end;

	/* The last millisecond of all is shorter: then the difference can wrap. */
	if (unlikely(nsec >= NSEC_PER_MSEC || record->time_stamp < prefix->msec ||
		     !prefix->length)) {
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

static u32 max_field_text(const struct render_op *op)
{
	switch (op->kind) {
	case RENDER_TEXT:
		return 0;
	case RENDER_SYMBOL:
		return max_u32(longest_symbol(op->symbols), op->width);
	default:
		return max_u32(DIGITS_MAX + 1, op->width);
	}
}

static u64 max_op_text(const struct render_op *op)
{
	return (u64)op->text.length + max_field_text(op);
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
		event->max_text += (u32)max_op_text(op);
		if (event->max_text > RENDER_LINE_MAX - RENDER_FRAME_MAX)
			return -E2BIG;
	}
	return 0;
}
