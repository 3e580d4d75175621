// SPDX-License-Identifier: Apache-2.0
#include "text.h"

#define NS_PER_S 1000000000U
#define NS_PER_US 1000U

/* What is left of a line; each step takes what it wants, or says that it is not there. */
struct rest {
	const char *at, *end;
};

static bool take_char(struct rest *rest, char wanted)
{
	if (rest->at == rest->end || *rest->at != wanted)
		return false;
	rest->at++;
	return true;
}

static bool take_text(struct rest *rest, const struct render_text *wanted)
{
	if ((u64)(rest->end - rest->at) < wanted->length)
		return false;
	for (u32 i = 0; i < wanted->length; i++) {
		if (rest->at[i] != wanted->text[i])
			return false;
	}
	rest->at += wanted->length;
	return true;
}

#define take_literal(rest, literal) \
	take_text(rest, &(const struct render_text){ literal, sizeof(literal) - 1 })

static void skip_blanks(struct rest *rest)
{
	while (take_char(rest, ' '))
		;
}

/* The value of a digit; 16: it is none. */
static u32 digit(char c)
{
	if (c >= '0' && c <= '9')
		return (u32)(c - '0');
	return c >= 'a' && c <= 'f' ? (u32)(c - 'a') + 10 : 16;
}

/* A number of @least to @most digits; what is more than 64 bits is cut. */
static bool take_number(struct rest *rest, u32 base, u32 least, u32 most, u64 *value)
{
	u32 nr = 0;

	*value = 0;
	for (; nr < most && rest->at < rest->end && digit(*rest->at) < base; nr++)
		*value = *value * base + digit(*rest->at++);
	return nr >= least;
}

/* --- lines ------------------------------------------------------------------------ */

/* [%03u]<TAB>%5llu.%06llu: */
static bool take_prefix(struct rest *rest, u64 *cpu, u64 *time)
{
	u64 seconds, micros;

	if (!take_char(rest, '[') || !take_number(rest, 10, 3, 4, cpu) || !take_char(rest, ']'))
		return false;
	take_char(rest, '\t');
	skip_blanks(rest);
	if (!take_number(rest, 10, 1, 10, &seconds) || !take_char(rest, '.') ||
	    !take_number(rest, 10, 6, 6, &micros) || !take_literal(rest, ": "))
		return false;
	*time = seconds * NS_PER_S + micros * NS_PER_US;
	return true;
}

static void put_field(u8 *record, u32 offset, u32 size, u64 value)
{
	for (u32 i = 0; i < size; i++)
		record[offset + i] = (u8)(value >> 8 * i);
}

static bool take_symbol(struct rest *rest, const struct text_op *op, u64 *value)
{
	const char *start = rest->at;

	while (rest->at < rest->end && *rest->at != ' ')
		rest->at++;
	for (u32 i = 0; i < op->nr_symbols; i++) {
		struct rest word = { start, rest->at };

		*value = op->symbols[i].value;
		if (take_text(&word, &op->symbols[i].text) && word.at == word.end)
			return true;
	}
	return false;
}

static bool take_field(struct rest *rest, const struct text_op *op, u64 *value)
{
	bool negative;

	if (op->padded)
		skip_blanks(rest);
	if (op->kind == TEXT_SYMBOL)
		return take_symbol(rest, op, value);
	if (op->kind == TEXT_HEX)
		return take_number(rest, 16, 1, 16, value);
	negative = op->kind == TEXT_SIGNED && take_char(rest, '-');
	if (!take_number(rest, 10, 1, 20, value))
		return false;
	*value = negative ? 0 - *value : *value;
	return true;
}

static bool take_op(struct rest *rest, const struct text_op *op, u8 *record)
{
	u64 value;

	if (op->kind == TEXT_LITERAL)
		return take_text(rest, &op->literal);
	if (!take_field(rest, op, &value))
		return false;
	put_field(record, op->offset, op->size, value);
	return true;
}

/* Whether @rest is what @pattern says; then @record is the record of it. */
static bool fits(struct rest rest, const struct text_pattern *pattern, u8 *record)
{
	for (u32 i = 0; i < pattern->length; i++)
		record[i] = 0;
	put_field(record, 0, sizeof(u16), pattern->id);
	put_field(record, pattern->index_offset, pattern->index_size, pattern->index);
	for (u32 i = 0; i < pattern->nr_ops; i++) {
		if (!take_op(&rest, &pattern->ops[i], record))
			return false;
	}
	return rest.at == rest.end;
}

static const struct text_pattern *pattern_of(const struct text_decoder *decoder, struct rest rest,
					     u8 *record)
{
	for (u32 i = 0; i < decoder->nr_patterns; i++) {
		const struct text_pattern *pattern = &decoder->patterns[i];
		struct rest begin = rest;

		/* Most begin with another name: no record is made for them. */
		if (take_op(&begin, &pattern->ops[0], record) && fits(rest, pattern, record))
			return pattern;
	}
	return NULL;
}

static bool take_event(struct text_decoder *decoder, struct rest rest, struct decode_batch *batch)
{
	u32 row = batch->nr;
	u8 *record = decoder->records + (u64)row * decoder->stride;
	const struct text_pattern *pattern;
	struct text_cpu *cpu;
	u64 nr, time;

	if (!take_prefix(&rest, &nr, &time) || nr >= decoder->nr_cpus)
		return false;
	pattern = pattern_of(decoder, rest, record);
	if (!pattern)
		return false;
	cpu = &decoder->cpus[nr];
	batch->time[row] = time;
	batch->lost[row] = cpu->lost;
	batch->payload[row] = record;
	batch->cpu[row] = (u16)nr;
	batch->id[row] = pattern->id;
	batch->event[row] = pattern->event;
	batch->length[row] = pattern->length;
	batch->nr++;
	cpu->lost = 0;
	cpu->events++;
	return true;
}

static void note_loss(struct text_cpu *cpu, bool counted, u64 lost)
{
	cpu->lost_events += lost;
	cpu->uncounted += !counted;
	if (!counted || cpu->lost == DECODE_LOST_UNKNOWN)
		cpu->lost = DECODE_LOST_UNKNOWN;
	else
		cpu->lost += lost;
}

/* CPU:%d [LOST %lu EVENTS] */
static bool take_loss(struct text_decoder *decoder, struct rest rest)
{
	bool counted;
	u64 nr, lost;

	if (!take_literal(&rest, "CPU:") || !take_number(&rest, 10, 1, 4, &nr) ||
	    !take_literal(&rest, " [LOST ") || nr >= decoder->nr_cpus)
		return false;
	counted = take_number(&rest, 10, 1, 18, &lost);
	if ((counted && !take_char(&rest, ' ')) || !take_literal(&rest, "EVENTS]") ||
	    rest.at != rest.end)
		return false;
	note_loss(&decoder->cpus[nr], counted, lost);
	return true;
}

static void take_line(struct text_decoder *decoder, struct rest rest, struct decode_batch *batch)
{
	struct rest comment = rest;

	if (!take_event(decoder, rest, batch) && !take_loss(decoder, rest) &&
	    !take_char(&comment, '#'))
		decoder->odd++;
}

/* Behind the next newline; NULL: there is none. */
static const char *next_line(const char *at, const char *end)
{
	at = __builtin_memchr(at, '\n', (size_t)(end - at));
	return at ? at + 1 : NULL;
}

u64 text_next(struct text_decoder *decoder, const char *text, u64 size, struct decode_batch *batch)
{
	const char *at = text, *next;

	while (batch->nr < batch->capacity && (next = next_line(at, text + size))) {
		take_line(decoder, (struct rest){ at, next - 1 }, batch);
		at = next;
	}
	return (u64)(at - text);
}
