// SPDX-License-Identifier: Apache-2.0
/* The rows of a batch as lines. */
#include "ringbuf_c/decode.h"
#include "render_line.h"

static struct rb_record record_of(const struct decode_batch *batch, u32 row)
{
	return (struct rb_record){
		.time_stamp = batch->time[row],
		.payload = batch->payload[row],
		.length = batch->length[row],
		.id = batch->id[row],
	};
}

static char *put_items(char *out, const struct decode_tail *tail, const struct decode_batch *batch,
		       u32 row)
{
	struct render_op op = {
		.kind = tail->item.is_signed ? RENDER_SIGNED : RENDER_UNSIGNED,
		.size = tail->item.size,
	};
	u32 size = tail->item.size, length = batch->length[row];

	out = put_text(out, tail->before.text, tail->before.length);
	for (u32 at = tail->item.offset; at + size <= length; at += size) {
		if (at != tail->item.offset)
			out = put_text(out, tail->between.text, tail->between.length);
		out = put_value(out, &op, load_field(batch->payload[row] + at, size));
	}
	return put_text(out, tail->behind.text, tail->behind.length);
}

static char *put_tail(char *out, const struct decode_text *text, const struct decode_batch *batch,
		      u32 row)
{
	u16 event = batch->event[row];

	if (event >= text->nr_tails || !text->tails[event].item.size)
		return out;
	return put_items(out, &text->tails[event], batch, row);
}

/* By operations that are none of the rare ones. */
static char *put_event(char *out, const struct decode_text *text, const struct decode_batch *batch,
		       u32 row)
{
	struct rb_record record = record_of(batch, row);
	const struct render_event *event = render_find(&text->events, record.id);

	if (event->ops && record.length >= event->length)
		return put_tail(put_ops(out, event, record.payload), text, batch, row);
	out = put_text(out, text->before_id.text, text->before_id.length);
	out = put_decimal(out, record.id);
	return put_text(out, text->behind_id.text, text->behind_id.length);
}

static char *put_pipe_lost(char *out, const struct decode_batch *batch, u32 row)
{
	u64 lost = batch->lost[row];

	if (!lost)
		return out;
	if (lost != DECODE_LOST_UNKNOWN)
		return out + render_lost(out, batch->cpu[row], lost);
	out = put_literal(out, "CPU:");
	out = put_decimal(out, batch->cpu[row]);
	return put_literal(out, " [LOST EVENTS]\n");
}

static char *put_pipe_line(char *out, const struct decode_text *text,
			   const struct decode_batch *batch, u32 row)
{
	struct rb_record record = record_of(batch, row);
	u16 cpu = batch->cpu[row];

	out = put_pipe_lost(out, batch, row);
	return out + __render_line(out, &text->prefixes[cpu], cpu, &record,
				   render_find(&text->events, record.id));
}

static char *put_json_place(char *out, const struct decode_batch *batch, u32 row)
{
	out = put_literal(out, "{\"time_ns\":");
	out = put_decimal(out, batch->time[row]);
	out = put_literal(out, ",\"cpu\":");
	return put_decimal(out, batch->cpu[row]);
}

static char *put_json_lost(char *out, const struct decode_batch *batch, u32 row)
{
	u64 lost = batch->lost[row];

	if (!lost)
		return out;
	out = put_json_place(out, batch, row);
	out = put_literal(out, ",\"lost\":");
	out = lost == DECODE_LOST_UNKNOWN ? put_literal(out, "null") : put_decimal(out, lost);
	return put_literal(out, "}\n");
}

static char *put_json_line(char *out, const struct decode_text *text,
			   const struct decode_batch *batch, u32 row)
{
	out = put_json_lost(out, batch, row);
	out = put_json_place(out, batch, row);
	out = put_event(out, text, batch, row);
	return put_literal(out, "}\n");
}

static char *put_csv_line(char *out, const struct decode_text *text,
			  const struct decode_batch *batch, u32 row)
{
	u64 lost = batch->lost[row];

	out = put_decimal(out, batch->time[row]);
	out = put_literal(out, ",");
	out = put_decimal(out, batch->cpu[row]);
	out = put_literal(out, ",");
	if (lost != DECODE_LOST_UNKNOWN)
		out = put_decimal(out, lost);
	out = put_literal(out, ",");
	out = put_event(out, text, batch, row);
	return put_literal(out, "\n");
}

typedef char *put_line_fn(char *out, const struct decode_text *text,
			  const struct decode_batch *batch, u32 row);

static put_line_fn *const put_line[] = {
	[DECODE_TRACE_PIPE] = put_pipe_line,
	[DECODE_JSON] = put_json_line,
	[DECODE_CSV] = put_csv_line,
};

u32 decode_lines(const struct decode_batch *batch, u32 *row, const struct decode_text *text,
		 char *out, u32 size)
{
	char *start = out;

	while (*row < batch->nr && size - (u32)(out - start) >= DECODE_LINE_ROOM)
		out = put_line[text->style](out, text, batch, (*row)++);
	return (u32)(out - start);
}
