// SPDX-License-Identifier: Apache-2.0
/*
 * Any table of operations, any record: render_event_check() refuses just what it must,
 * and what it accepts is rendered as printf() would, within the room that was asked for.
 */
#include "fuzz.h"
#include "ringbuf_c/render.h"

#define NUMBER_TEXT_MAX 21U /* of a field: a sign and 20 digits */
#define HEX_TEXT_MAX 18U   /* with 0x */
#define TEXT_MAX RENDER_LINE_MAX
#define LINE_BUFFER (2 * RENDER_LINE_MAX)

/* Every text is a beginning of this. */
static char letters[TEXT_MAX + RENDER_TEXT_ALIGN];

struct table {
	struct render_op ops[RENDER_OPS_MAX];
	struct render_symbols symbols[RENDER_OPS_MAX];
	struct render_text names[RENDER_OPS_MAX][RENDER_SYMBOLS_MAX];
	struct render_event event;
};

/* --- taking it from the input ------------------------------------------------------- */

/* Longer than what there is to point to: refused before it is looked at. */
static struct render_text take_text(struct input *input)
{
	return (struct render_text){ letters, (u32)take_number(input) };
}

static const struct render_symbols *take_symbols(struct input *input, struct table *table, u32 nr)
{
	struct render_symbols *symbols = &table->symbols[nr];
	u8 count = take_u8(input);

	if (count == RENDER_NO_TABLE)
		return NULL;
	symbols->symbols = table->names[nr];
	symbols->nr = count % (RENDER_SYMBOLS_MAX + 1);
	for (u32 i = 0; i < symbols->nr; i++)
		table->names[nr][i] = take_text(input);
	symbols->fallback = take_text(input);
	return symbols;
}

static void take_op(struct input *input, struct table *table, u32 nr)
{
	struct render_op *op = &table->ops[nr];

	op->kind = take_u8(input);
	op->size = take_u8(input);
	op->flags = take_u8(input);
	op->width = take_u8(input);
	op->offset = (u32)take_number(input);
	op->text = take_text(input);
	if (op->kind == RENDER_SYMBOL || op->kind == RENDER_SYMBOL_OR_HEX)
		op->symbols = take_symbols(input, table, nr);
}

static void take_table(struct input *input, struct table *table)
{
	*table = (struct table){ .event.ops = table->ops };
	table->event.nr_ops = take_u8(input) % (RENDER_OPS_MAX + 1);
	for (u32 i = 0; i < table->event.nr_ops; i++)
		take_op(input, table, i);
}

struct formats {
	struct table tables[RENDER_FORMATS_MAX];
	struct render_event events[RENDER_FORMATS_MAX];
	struct render_formats formats;
};

static void take_formats(struct input *input, struct formats *formats)
{
	u32 nr = take_u8(input) % (RENDER_FORMATS_MAX + 1);
	u32 offset = (u32)take_number(input), size = (u32)take_number(input);

	formats->formats = (struct render_formats){ formats->events, nr, offset, size };
	for (u32 i = 0; i < nr; i++) {
		take_table(input, &formats->tables[i]);
		formats->events[i] = formats->tables[i].event;
	}
}

/* --- what the check should say --------------------------------------------------------- */

static u64 longest(const struct render_symbols *symbols)
{
	u64 length = symbols->fallback.length;

	for (u32 i = 0; i < symbols->nr; i++)
		length = symbols->symbols[i].length > length ? symbols->symbols[i].length : length;
	return length;
}

static u64 field_text_max(const struct render_op *op)
{
	u64 length = NUMBER_TEXT_MAX;

	if (op->kind == RENDER_TEXT)
		return 0;
	if (op->kind == RENDER_STRING)
		length = op->size;
	if (op->kind == RENDER_SYMBOL || op->kind == RENDER_SYMBOL_OR_HEX)
		length = longest(op->symbols);
	if (op->kind == RENDER_SYMBOL_OR_HEX && length < HEX_TEXT_MAX)
		length = HEX_TEXT_MAX;
	return length > op->width ? length : op->width;
}

static bool op_valid(const struct render_op *op)
{
	if (op->kind == RENDER_TEXT)
		return true;
	if (op->kind > RENDER_STRING)
		return false;
	if ((op->kind == RENDER_SYMBOL || op->kind == RENDER_SYMBOL_OR_HEX) && !op->symbols)
		return false;
	if (op->kind == RENDER_STRING)
		return op->size && (u64)op->offset + op->size <= RB_MAX_PAYLOAD;
	if (op->size != 1 && op->size != 2 && op->size != 4 && op->size != 8)
		return false;
	return (u64)op->offset + op->size <= RB_MAX_PAYLOAD;
}

/* An index of a size that fields have, behind which the event itself reads nothing. */
static bool index_valid(const struct render_event *event, const struct render_formats *formats)
{
	struct render_op index = { RENDER_HEX, (u8)formats->size, 0, 0, formats->offset, { 0 }, NULL };
	u64 end = (u64)formats->offset + formats->size;

	if (formats->size > UINT8_MAX || !op_valid(&index))
		return false;
	for (u32 i = 0; i < event->nr_ops; i++) {
		const struct render_op *op = &event->ops[i];

		if (op->kind != RENDER_TEXT && op->offset + op->size > end)
			return false;
	}
	return true;
}

static bool event_valid(const struct render_event *event)
{
	u64 text = 0;

	for (u32 i = 0; i < event->nr_ops; i++) {
		if (!op_valid(&event->ops[i]))
			return false;
		text += event->ops[i].text.length + field_text_max(&event->ops[i]);
	}
	return text <= RENDER_LINE_MAX - RENDER_FRAME_MAX &&
	       (!event->formats || index_valid(event, event->formats));
}

/* --- what the line should be --------------------------------------------------------------- */

static u64 field(const struct render_op *op, const u8 *payload)
{
	u64 value = 0;

	for (u32 i = 0; i < op->size; i++)
		value |= (u64)payload[op->offset + i] << 8 * i;
	return value;
}

static s64 signed_field(const struct render_op *op, u64 value)
{
	switch (op->size) {
	case 1:
		return (s8)value;
	case 2:
		return (s16)value;
	case 4:
		return (s32)value;
	default:
		return (s64)value;
	}
}

static char *print_padded(char *out, const struct render_op *op, struct render_text text)
{
	u32 missing = op->width > text.length ? op->width - text.length : 0;
	u32 before = op->flags & RENDER_LEFT ? 0 : missing;

	memset(out, op->flags & RENDER_ZERO ? '0' : ' ', before);
	memcpy(out + before, text.text, text.length);
	memset(out + before + text.length, ' ', missing - before);
	return out + text.length + missing;
}

static char *print_symbol(char *out, const struct render_op *op, u64 value)
{
	const struct render_symbols *symbols = op->symbols;
	struct render_text text = value < symbols->nr ? symbols->symbols[value] : symbols->fallback;

	return print_padded(out, op, text);
}

static char *print_symbol_or_hex(char *out, const struct render_op *op, u64 value)
{
	const struct render_symbols *symbols = op->symbols;
	char hex[32];

	if (value < symbols->nr && symbols->symbols[value].length)
		return print_symbol(out, op, value);
	if (op->flags & RENDER_EXTEND)
		value = (u64)signed_field(op, value);
	snprintf(hex, sizeof(hex), "0x%llx", (unsigned long long)value);
	return print_padded(out, op, (struct render_text){ hex, (u32)strlen(hex) });
}

static char *print_string(char *out, const struct render_op *op, const u8 *string)
{
	char shown[UINT8_MAX];
	u32 length = (u32)strnlen((const char *)string, op->size);

	for (u32 i = 0; i < length; i++)
		shown[i] = string[i] < 0x20 || string[i] > 0x7e ? '.' : (char)string[i];
	return print_padded(out, op, (struct render_text){ shown, length });
}

/* "%-0*llu" and the like: as printf(), `-` wins over `0`. */
static char *print_number(char *out, const struct render_op *op, u64 value)
{
	static const char *const conversions[] = {
		[RENDER_UNSIGNED] = "llu", [RENDER_SIGNED] = "lld", [RENDER_HEX] = "llx",
	};
	bool left = op->flags & RENDER_LEFT;
	char format[16];

	snprintf(format, sizeof(format), "%%%s%s*%s", left ? "-" : "",
		 !left && op->flags & RENDER_ZERO ? "0" : "", conversions[op->kind]);
	if (op->kind == RENDER_SIGNED)
		value = (u64)signed_field(op, value);
	if (op->kind == RENDER_HEX && op->flags & RENDER_UPPER)
		format[strlen(format) - 1] = 'X';
	return out + snprintf(out, LINE_BUFFER / 2, format, (int)op->width,
			      (unsigned long long)value);
}

static char *print_op(char *out, const struct render_op *op, const u8 *payload)
{
	memcpy(out, op->text.text, op->text.length);
	out += op->text.length;
	if (op->kind == RENDER_TEXT)
		return out;
	if (op->kind == RENDER_SYMBOL)
		return print_symbol(out, op, field(op, payload));
	if (op->kind == RENDER_STRING)
		return print_string(out, op, payload + op->offset);
	if (op->kind == RENDER_SYMBOL_OR_HEX)
		return print_symbol_or_hex(out, op, field(op, payload));
	return print_number(out, op, field(op, payload));
}

/* What the record prints by; NULL: too short to say so. */
static const struct render_event *event_of(const struct rb_record *record,
					   const struct render_event *event)
{
	const struct render_formats *formats = event->formats;
	u64 index;

	if (!formats)
		return record->length < event->reads ? NULL : event;
	if (record->length < formats->offset + formats->size)
		return NULL;
	index = field(&(struct render_op){ .size = (u8)formats->size, .offset = formats->offset },
		      record->payload);
	if (index >= formats->nr)
		return event;
	event = &formats->formats[index];
	return record->length < event->reads ? NULL : event;
}

static char *print_event(char *out, const struct rb_record *record,
			 const struct render_event *event)
{
	if (!event->ops)
		return out + sprintf(out, "UNKNOWN id=%u", record->id);
	event = event_of(record, event);
	if (!event)
		return out + sprintf(out, "[SHORT EVENT id=%u length=%u]", record->id,
				     record->length);
	for (u32 i = 0; i < event->nr_ops; i++)
		out = print_op(out, &event->ops[i], record->payload);
	return out;
}

static u32 print_line(char *out, u32 cpu, const struct rb_record *record,
		      const struct render_event *event)
{
	unsigned long long usec = record->time_stamp / 1000;
	char *end = out + sprintf(out, "[%03u]\t%5llu.%06llu: ", cpu, usec / 1000000,
				  usec % 1000000);

	end = print_event(end, record, event);
	*end++ = '\n';
	return (u32)(end - out);
}

/* --- comparing --------------------------------------------------------------------------------- */

static char expected[LINE_BUFFER];

static void check_line(struct render_prefix *prefix, u32 cpu, const struct rb_record *record,
		       const struct render_event *event)
{
	u32 max = render_line_max(event);
	char *line = exact_alloc(max);
	u32 length = render_line(line, prefix, cpu, record, event);

	require(max <= RENDER_LINE_MAX);
	require(length <= max - RENDER_FRAME_MAX / 2); /* a LOST line goes before it */
	require(length == print_line(expected, cpu, record, event));
	require(!memcmp(line, expected, length));
	free(line);
}

/* A prefix is kept from line to line: the same second, the next, another. */
static void check_lines(u32 cpu, struct rb_record record, const struct render_event *event)
{
	struct render_prefix prefix = { 0 };
	const u64 steps[] = { 0, 0, 1, 999, 999999999, 1, -(u64)1, 1ULL << 40, -(1ULL << 40) };

	for (u32 i = 0; i < ARRAY_SIZE(steps); i++) {
		record.time_stamp += steps[i];
		check_line(&prefix, cpu, &record, event);
	}
}

static void check_other_lines(u32 cpu, u64 lost, u32 page)
{
	char line[RENDER_FRAME_MAX / 2];
	u32 length = render_lost(line, cpu, lost);

	require(length < sizeof(line));
	require(length == (u32)sprintf(expected, "CPU:%u [LOST %llu EVENTS]\n", cpu,
				       (unsigned long long)lost));
	require(!memcmp(line, expected, length));
	length = render_corrupt(line, cpu, page, (u32)lost);
	require(length < sizeof(line));
	require(length == (u32)sprintf(expected, "CPU:%u [CORRUPT PAGE %u AT %u]\n", cpu, page,
				       (u32)lost));
	require(!memcmp(line, expected, length));
}

static void render_rest(struct input *input, u32 cpu, struct rb_record record,
			const struct render_event *event)
{
	struct render_event events[RENDER_IDS - 1] = { [1] = *event };
	const struct render_table table = { events, ARRAY_SIZE(events) };
	u8 *payload;

	record.length = input_left(input);
	if (record.length < sizeof(u16)) /* the walk gives none that is shorter */
		return;
	payload = exact_alloc(record.length);
	take_block(input, payload, record.length);
	record.payload = payload;
	check_lines(cpu, record, render_find(&table, record.id));
	free(payload);
}

static bool accepted(struct render_event *event)
{
	int error = render_event_check(event);

	require(!error == event_valid(event));
	require(!error || error == -EINVAL || error == -E2BIG);
	return !error;
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input input = { bytes, bytes + size };
	u32 cpu = (u32)take_number(&input);
	struct rb_record record = { .time_stamp = take_number(&input) };
	u64 lost = take_number(&input);
	static struct formats formats;
	struct table table;
	u8 id;

	for (u32 i = 0; i < sizeof(letters); i++)
		letters[i] = (char)('a' + i % 26);
	id = take_u8(&input);
	record.id = id % RENDER_IDS;
	take_table(&input, &table);
	check_other_lines(cpu, lost, table.event.nr_ops);
	if (id >= RENDER_HAS_FORMATS) {
		take_formats(&input, &formats);
		for (u32 i = 0; i < formats.formats.nr; i++) {
			if (!accepted(&formats.events[i]))
				return 0;
		}
		table.event.formats = &formats.formats;
	}
	if (accepted(&table.event))
		render_rest(&input, cpu, record, &table.event);
	return 0;
}
