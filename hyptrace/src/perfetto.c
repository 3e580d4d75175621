// SPDX-License-Identifier: Apache-2.0
#include "perfetto.h"

enum wire { WIRE_VARINT = 0, WIRE_LENGTH = 2 };

/* Room for a length, which is known once the content is written; short ones then move up. */
#define LENGTH_SIZE 4U
#define SHORT_LENGTH 128U

static u8 *put_varint(u8 *out, u64 value)
{
	while (value >= 0x80) {
		*out++ = (u8)(value | 0x80);
		value >>= 7;
	}
	*out++ = (u8)value;
	return out;
}

static u8 *put_number(u8 *out, u32 field, u64 value)
{
	out = put_varint(out, (u64)field << 3 | WIRE_VARINT);
	return put_varint(out, value);
}

/* Returns where the content goes, behind room for its length. */
static u8 *begin(u8 *out, u32 field)
{
	return put_varint(out, (u64)field << 3 | WIRE_LENGTH) + LENGTH_SIZE;
}

static u8 *end_short(u8 *content, u32 length)
{
	u8 *to = content - LENGTH_SIZE;

	*to++ = (u8)length;
	for (u32 i = 0; i < length; i++)
		to[i] = content[i];
	return to + length;
}

static u8 *end(u8 *content, u8 *out)
{
	u32 length = (u32)(out - content);

	if (length < SHORT_LENGTH)
		return end_short(content, length);
	for (u32 i = 0; i < LENGTH_SIZE; i++)
		content[(s32)i - (s32)LENGTH_SIZE] =
			(u8)((length >> 7 * i & 0x7f) | (i + 1 < LENGTH_SIZE ? 0x80 : 0));
	return out;
}

static u64 value_of(const struct decode_batch *batch, u32 row, const struct decode_field *field)
{
	u64 value = 0;

	decode_numbers(batch, &row, 1, field, sizeof(value), (u8 *)&value);
	return value;
}

/* --- ftrace ------------------------------------------------------------------------ */

static u8 *put_fields(u8 *out, const struct decode_batch *batch, u32 row,
		      const struct pf_event *event)
{
	for (u32 i = 0; i < event->nr_fields; i++) {
		const struct pf_field *field = &event->fields[i];

		if (field->number)
			out = put_number(out, field->number, value_of(batch, row, &field->field));
	}
	return out;
}

static u8 *put_ftrace_event(u8 *out, const struct pf_trace *trace, const struct decode_batch *batch,
			    u32 row)
{
	const struct pf_schema *schema = &trace->schema;
	const struct pf_event *event = &trace->events[batch->event[row]];
	u8 *ftrace_event, *own;

	if (!event->number)
		return out;
	out = ftrace_event = begin(out, schema->bundle_event);
	out = put_number(out, schema->event_timestamp, batch->time[row]);
	/* trace_processor takes none without a pid. */
	out = put_number(out, schema->event_pid, 0);
	out = own = begin(out, event->number);
	out = end(own, put_fields(out, batch, row, event));
	return end(ftrace_event, out);
}

static u8 *put_descriptors(u8 *out, const struct pf_trace *trace)
{
	for (u32 i = 0; i < trace->descriptors_size; i++)
		*out++ = trace->descriptors[i];
	return out;
}

u32 pf_bundle(const struct pf_trace *trace, const struct decode_batch *batch, const u32 *rows,
	      u32 nr, u32 room, u8 *out, u32 size, u32 *done)
{
	const struct pf_schema *schema = &trace->schema;
	u8 *start = out, *limit = out + size, *packet, *bundle;

	out = packet = begin(out, schema->packet);
	out = put_number(out, schema->sequence_id, trace->sequence_id);
	out = bundle = begin(out, schema->ftrace_events);
	out = put_number(out, schema->bundle_cpu, batch->cpu[rows[0]]);
	if (batch->lost[rows[0]])
		out = put_number(out, schema->bundle_lost, 1);
	out = put_descriptors(out, trace);
	for (*done = 0; *done < nr && (u32)(limit - out) >= room; (*done)++) {
		if (*done && batch->lost[rows[*done]])
			break;
		out = put_ftrace_event(out, trace, batch, rows[*done]);
	}
	return (u32)(end(packet, end(bundle, out)) - start);
}

/* --- track events --------------------------------------------------------------------- */

struct packet {
	u8 *packet, *event;
};

static u8 *begin_event(u8 *out, const struct pf_trace *trace, struct packet *at, u64 time, u32 type,
		       u64 track)
{
	const struct pf_schema *schema = &trace->schema;

	out = at->packet = begin(out, schema->packet);
	out = put_number(out, schema->timestamp, time);
	out = put_number(out, schema->sequence_id, trace->sequence_id);
	out = put_number(out, schema->sequence_flags, schema->needs_state);
	out = at->event = begin(out, schema->track_event);
	out = put_number(out, schema->type, type);
	return put_number(out, schema->track_uuid, track);
}

static u8 *end_event(u8 *out, const struct packet *at)
{
	return end(at->packet, end(at->event, out));
}

static u8 *put_annotation(u8 *out, const struct pf_schema *schema, u32 name_iid, u32 kind, u64 value)
{
	u8 *annotation;

	out = annotation = begin(out, schema->annotations);
	out = put_number(out, schema->annotation_name_iid, name_iid);
	return end(annotation, put_number(out, kind, value));
}

static u8 *put_arguments(u8 *out, const struct pf_schema *schema, const struct decode_batch *batch,
			 u32 row, const struct pf_event *event)
{
	for (u32 i = 0; i < event->nr_fields; i++) {
		const struct pf_field *field = &event->fields[i];
		u32 kind = field->field.is_signed ? schema->annotation_int : schema->annotation_uint;

		out = put_annotation(out, schema, field->name_iid, kind,
				     value_of(batch, row, &field->field));
	}
	return out;
}

static u8 *put_instant(u8 *out, const struct pf_trace *trace, const struct decode_batch *batch,
		       u32 row)
{
	const struct pf_event *event = &trace->events[batch->event[row]];
	struct packet at;

	if (!event->name_iid)
		return out;
	out = begin_event(out, trace, &at, batch->time[row], trace->schema.type_instant,
			  trace->cpu_tracks + batch->cpu[row]);
	out = put_number(out, trace->schema.name_iid, event->name_iid);
	return end_event(put_arguments(out, &trace->schema, batch, row, event), &at);
}

/* A loss that nobody has counted counts as one. */
static u8 *put_lost(u8 *out, const struct pf_trace *trace, const struct decode_batch *batch, u32 row)
{
	u16 cpu = batch->cpu[row];
	struct packet at;

	if (!batch->lost[row])
		return out;
	trace->lost[cpu] += batch->lost[row] == DECODE_LOST_UNKNOWN ? 1 : batch->lost[row];
	out = begin_event(out, trace, &at, batch->time[row], trace->schema.type_counter,
			  trace->lost_tracks + cpu);
	return end_event(put_number(out, trace->schema.counter_value, trace->lost[cpu]), &at);
}

u32 pf_instants(const struct pf_trace *trace, const struct decode_batch *batch, u32 *row, u32 room,
		u8 *out, u32 size)
{
	u8 *start = out, *limit = out + size;

	for (; *row < batch->nr && (u32)(limit - out) >= room; (*row)++) {
		out = put_lost(out, trace, batch, *row);
		out = put_instant(out, trace, batch, *row);
	}
	return (u32)(out - start);
}

static u8 *put_slice(u8 *out, const struct pf_trace *trace, const struct stay_batch *stays, u32 row,
		     u64 track, u32 name_iid, u32 argument_iid, s64 argument)
{
	const struct pf_schema *schema = &trace->schema;
	u64 start = stays->start[row];
	struct packet at;

	out = begin_event(out, trace, &at, start, schema->type_begin, track);
	out = put_number(out, schema->name_iid, name_iid);
	out = put_annotation(out, schema, argument_iid, schema->annotation_int, (u64)argument);
	out = end_event(out, &at);
	out = begin_event(out, trace, &at, start + stays->duration[row], schema->type_end, track);
	return end_event(out, &at);
}

static u64 vcpu_track(const struct pf_trace *trace, s32 vcpu, u16 cpu)
{
	return trace->vcpu_tracks + (u32)vcpu + ((u64)cpu << PF_CPU_SHIFT);
}

static u8 *put_stay(u8 *out, const struct pf_trace *trace, const struct stay_batch *stays, u32 row)
{
	u16 cpu = stays->cpu[row];
	s32 vcpu = stays->vcpu[row];

	if (stays->place[row] == STAY_GUEST)
		return put_slice(out, trace, stays, row, vcpu_track(trace, vcpu, cpu),
				 trace->guest_iid, trace->cpu_iid, cpu);
	return put_slice(out, trace, stays, row, trace->cpu_tracks + cpu,
			 trace->reason_iids[stays->reason_slot[row]], trace->vcpu_iid, vcpu);
}

u32 pf_slices(const struct pf_trace *trace, const struct stay_batch *stays, u32 *row, u8 *out,
	      u32 size)
{
	u8 *start = out, *limit = out + size;

	for (; *row < stays->nr && (u32)(limit - out) >= 2 * PF_ROOM(0); (*row)++)
		out = put_stay(out, trace, stays, *row);
	return (u32)(out - start);
}
