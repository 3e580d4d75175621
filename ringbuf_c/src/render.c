// SPDX-License-Identifier: Apache-2.0
#include "render_line.h"

#define DIGITS_MAX 20 /* of a u64, in decimal */
#define HEX_MAX 18    /* of a u64, with 0x */

static char *put_fill(char *out, char fill, u32 count)
{
	while (count--)
		*out++ = fill;
	return out;
}

char *put_long_decimal(char *out, u64 value)
{
	u64 digits = eight_digits((u32)(value % 100000000)) | BYTES('0');

	value /= 100000000;
	out = value < 100000000 ? put_short_decimal(out, (u32)value)
				: put_long_decimal(out, value);
	__builtin_memcpy(out, &digits, sizeof(digits));
	return out + 8;
}

char *put_hex(char *out, u64 value, bool upper)
{
	const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	u32 length = (64 - (u32)__builtin_clzll(value | 1) + 3) / 4;

	for (u32 i = length; i > 0; i--, value /= 16)
		out[i - 1] = digits[value % 16];
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

char *put_padded(char *out, const struct render_op *op, u64 value, bool negative)
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

char *put_padded_text(char *out, const struct render_op *op, const struct render_text *text)
{
	struct padding padding = pad(op, text->length);

	out = put_fill(out, ' ', padding.before);
	out = put_fill(out, '0', padding.zeros);
	out = put_text(out, text->text, text->length);
	return put_fill(out, ' ', padding.behind);
}

/* What the record itself says that it prints by. */
static const struct render_event *find_format(const struct rb_record *record,
					      const struct render_event *event)
{
	const struct render_formats *formats = event->formats;
	u64 index = load_field(record->payload + formats->offset, formats->size);

	return index < formats->nr ? &formats->formats[index] : event;
}

static bool can_print(const struct rb_record *record, const struct render_event *event)
{
	u32 needed = event->length == UINT32_MAX ? event->reads : event->length;

	return event->ops && record->length >= needed;
}

static char *put_symbol_or_hex(char *out, const struct render_op *op, u64 value)
{
	const struct render_symbols *table = op->symbols;
	char number[NUMBER_ROOM] = "0x";
	struct render_text text = { number, 0 };

	if (value < table->nr && table->symbols[value].length)
		return put_padded_text(out, op, &table->symbols[value]);
	if (op->flags & RENDER_EXTEND)
		value = (u64)sign_extend(value, op->size);
	text.length = (u32)(put_hex(number + 2, value, false) - number);
	return put_padded_text(out, op, &text);
}

/* The writer may change it meanwhile: what was its length stays its length. */
static char *put_string(char *out, const struct render_op *op, const u8 *string)
{
	struct padding padding;
	u32 length = 0;

	while (length < op->size && string[length])
		length++;
	padding = pad(op, length);
	out = put_fill(out, ' ', padding.before);
	out = put_fill(out, '0', padding.zeros);
	for (u32 i = 0; i < length; i++)
		*out++ = string[i] >= ' ' && string[i] <= '~' ? (char)string[i] : '.';
	return put_fill(out, ' ', padding.behind);
}

static char *put_any_op(char *out, const struct render_op *op, const u8 *payload)
{
	if (op->kind <= RENDER_SYMBOL)
		return put_op(out, op, payload);
	out = put_text(out, op->text.text, op->text.length);
	if (op->kind == RENDER_STRING)
		return put_string(out, op, payload + op->offset);
	return put_symbol_or_hex(out, op, load_field(payload + op->offset, op->size));
}

static char *put_any_ops(char *out, const struct render_event *event, const u8 *payload)
{
	for (u32 i = 0; i < event->nr_ops; i++)
		out = put_any_op(out, &event->ops[i], payload);
	return out;
}

char *put_odd_event(char *out, const struct rb_record *record, const struct render_event *event)
{
	if (event->formats && can_print(record, event))
		event = find_format(record, event);
	if (can_print(record, event))
		return put_any_ops(out, event, record->payload);
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

const u32 usec_texts[1000] = {
	USECS_100(0),	USECS_100(100), USECS_100(200), USECS_100(300), USECS_100(400),
	USECS_100(500), USECS_100(600), USECS_100(700), USECS_100(800), USECS_100(900),
};

void make_prefix(struct render_prefix *prefix, u32 cpu, u64 time_stamp)
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
	/* The last millisecond of all is shorter: behind it, time begins again. */
	prefix->nsecs = prefix->msec > UINT64_MAX - NSEC_PER_MSEC ? 0 - prefix->msec
								  : NSEC_PER_MSEC;
}

u32 render_line(char *out, struct render_prefix *prefix, u32 cpu, const struct rb_record *record,
		const struct render_event *event)
{
	return __render_line(out, prefix, cpu, record, event);
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

static bool valid_size(u32 size)
{
	return size == 1 || size == 2 || size == 4 || size == 8;
}

static bool valid_op(const struct render_op *op)
{
	bool field_size = valid_size(op->size);

	switch (op->kind) {
	case RENDER_TEXT:
		return true;
	case RENDER_SYMBOL:
	case RENDER_SYMBOL_OR_HEX:
		return field_size && op->symbols;
	case RENDER_STRING:
		return op->size;
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
	case RENDER_SYMBOL_OR_HEX:
		return max_u32(max_u32(longest_symbol(op->symbols), HEX_MAX), op->width);
	case RENDER_STRING:
		return max_u32(op->size, op->width);
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

/* Of operations alone. */
static int check_ops(struct render_event *event)
{
	bool rare = false;

	event->reads = 0;
	event->max_text = 0;

	for (u32 i = 0; i < event->nr_ops; i++) {
		const struct render_op *op = &event->ops[i];

		if (!valid_op(op) || field_end(op) > RB_MAX_PAYLOAD)
			return -EINVAL;
		if (max_op_text(op) > RENDER_LINE_MAX)
			return -E2BIG;
		rare |= op->kind > RENDER_SYMBOL;
		event->reads = max_u32(event->reads, (u32)field_end(op));
		event->max_text += (u32)max_op_text(op);
		if (event->max_text > RENDER_LINE_MAX - RENDER_FRAME_MAX)
			return -E2BIG;
	}
	event->length = rare ? UINT32_MAX : event->reads;
	return 0;
}

static bool valid_index(const struct render_formats *formats)
{
	u64 end = (u64)formats->offset + formats->size;

	return valid_size(formats->size) && end <= RB_MAX_PAYLOAD;
}

static int add_formats(struct render_event *event)
{
	const struct render_formats *formats = event->formats;

	/* where the index names no format, nothing but the index is known to be there */
	if (!valid_index(formats) || event->reads > formats->offset + formats->size)
		return -EINVAL;
	event->reads = formats->offset + formats->size;
	for (u32 i = 0; i < formats->nr; i++) {
		if (formats->formats[i].formats)
			return -EINVAL;
		event->max_text = max_u32(event->max_text, formats->formats[i].max_text);
	}
	event->length = UINT32_MAX;
	return 0;
}

int render_event_check(struct render_event *event)
{
	int ret = check_ops(event);

	return ret || !event->formats ? ret : add_formats(event);
}
