/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches as packets of a Perfetto trace. Which number each field of its messages has is told
 * by whoever knows the schema; how they are encoded is that of protocol buffers.
 */
#ifndef HYPTRACE_PERFETTO_H
#define HYPTRACE_PERFETTO_H

#include "stays.h"

/* Numbers of the fields, and values of the enums, that are written. */
struct pf_schema {
	u32 packet; /* of Trace */
	/* of TracePacket */
	u32 timestamp, sequence_id, sequence_flags, track_event, ftrace_events;
	u32 bundle_cpu, bundle_event, bundle_lost;	 /* of FtraceEventBundle */
	u32 event_timestamp, event_pid;			 /* of FtraceEvent */
	u32 type, track_uuid, name_iid, annotations, counter_value; /* of TrackEvent */
	u32 annotation_name_iid, annotation_int, annotation_uint;  /* of DebugAnnotation */
	u32 type_begin, type_end, type_instant, type_counter;
	u32 needs_state; /* in sequence_flags */
};

struct pf_field {
	struct decode_field field;
	u32 number; /* in the message of the event; 0: not there */
	u32 name_iid;
};

struct pf_event {
	u32 number;   /* of its message in FtraceEvent; 0: it has none */
	u32 name_iid; /* of its instant; 0: it makes none */
	u32 nr_fields;
	const struct pf_field *fields;
};

/* A vCPU has a track for each CPU: in the uuid, the CPU is above the vCPU. */
#define PF_CPU_SHIFT 48

struct pf_trace {
	struct pf_schema schema;
	u32 sequence_id;
	const struct pf_event *events; /* by index; one more, for those that are none */
	const u32 *reason_iids;	       /* by reason, STAY_REASONS */
	u32 guest_iid, cpu_iid, vcpu_iid;
	u64 cpu_tracks, lost_tracks; /* uuid, plus the number of the CPU */
	u64 vcpu_tracks; /* plus the number of the vCPU, and that of the CPU << PF_CPU_SHIFT */
	const u8 *descriptors; /* fields of a bundle that describe its events, encoded */
	u32 descriptors_size;
	u64 *lost; /* by CPU: events lost so far */
};

/* What the packets of one row need at most, when events have @nr_fields at most. */
#define PF_ROOM(nr_fields) (256U + 32U * (nr_fields))

/**
 * pf_bundle - events of one CPU as one bundle, up to a loss or as many as fit.
 * @rows: of one CPU, in order; there is at least one
 * @room: of one row
 *
 * *@done is set to the number of rows that are in it. Returns the length.
 */
u32 pf_bundle(const struct pf_trace *trace, const struct decode_batch *batch, const u32 *rows,
	      u32 nr, u32 room, u8 *out, u32 size, u32 *done);

/* pf_instants - what is no slice, and the counters of lost events; as many rows as fit. */
u32 pf_instants(const struct pf_trace *trace, const struct decode_batch *batch, u32 *row, u32 room,
		u8 *out, u32 size);

/* pf_slices - a slice for each stay; as many as fit. */
u32 pf_slices(const struct pf_trace *trace, const struct stay_batch *stays, u32 *row, u8 *out,
	      u32 size);

#endif
