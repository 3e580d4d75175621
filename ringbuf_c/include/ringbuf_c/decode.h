/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page images (SPEC A.5) of many CPUs, as columns: what is captured is decoded in batches
 * of events, merged by time. Nothing is allocated; whoever calls owns all arrays.
 *
 *   feed each CPU -> decode_next() -> use the batch -> feed the CPU that is hungry -> ...
 *
 * Pages may be hostile, but do not change while they are decoded.
 */
#ifndef RINGBUF_C_DECODE_H
#define RINGBUF_C_DECODE_H

#include "page_walk.h"
#include "render.h"
#include "types.h"

/* In a column `lost`: events were lost, and nobody has counted them. */
#define DECODE_LOST_UNKNOWN UINT64_MAX

/* Events in order of time, one row each: arrays of `capacity` rows, `nr` of them filled. */
struct decode_batch {
	u64 *time;	    /* ns */
	u64 *lost;	    /* events lost on this CPU right before; or DECODE_LOST_UNKNOWN */
	const u8 **payload; /* begins with the id; in the pages that were fed */
	u16 *cpu;
	u16 *id;
	u16 *event;  /* index of the event; decoder.nr_events: no event, or too short for it */
	u16 *length; /* bytes of payload */
	u32 nr;
	u32 capacity;
};

enum decode_state {
	DECODE_HUNGRY, /* wants to be fed: decode_feed() */
	DECODE_READY,  /* has an event */
	DECODE_ENDED,  /* there is no more */
};

struct decode_cpu {
	u16 nr; /* what its rows have in `cpu` */

	/* Set by decode_feed(): page images, back to back. */
	const u8 *pages;
	u64 size; /* bytes left of them */
	bool fed;

	/* Ours. */
	u8 state;	 /* enum decode_state */
	u32 commit;	 /* bytes of the data of the page */
	const u8 *data;	 /* of the page; NULL: none is begun */
	u64 lost;	 /* to say with the next event */
	struct rb_record record;
	u64 events;	  /* so far */
	u64 lost_events;  /* so far, those that somebody has counted */
	u64 uncounted;	  /* times that events were lost, and nobody has counted them */
	u64 broken_pages; /* whose rest was skipped */
	u64 odd_events;	  /* of unknown id, or too short for their event */
};

struct decoder {
	struct decode_cpu *cpus;
	u32 nr_cpus;
	u32 *heap; /* nr_cpus; whose turn it is */
	u32 nr_heap;
	const u16 *event_of; /* by id, 65536: index of the event, or nr_events */
	const u16 *needs;    /* by index of the event: bytes of payload */
	u32 nr_events;
};

/* decode_feed - the next pages of a CPU; none (@size 0): it has no more. Whole pages only. */
void decode_feed(struct decode_cpu *cpu, const u8 *pages, u64 size);

/**
 * decode_next - fill @batch with the next events.
 *
 * Returns the number of CPUs that are hungry: all of them have to be fed before the next
 * call, and not before the batch has been used: it points into their pages. An empty batch and
 * nobody hungry: the end.
 */
u32 decode_next(struct decoder *decoder, struct decode_batch *batch);

/**
 * decode_group - rows by key.
 * @keys: of each row, a column of the batch; below @nr_keys
 * @rows: filled with the numbers of all rows, those of key 0 first, each in their order
 * @starts: @nr_keys + 1; filled: rows of key k are rows[starts[k]] to rows[starts[k + 1] - 1]
 */
void decode_group(const struct decode_batch *batch, const u16 *keys, u32 nr_keys, u32 *rows,
		  u32 *starts);

struct decode_field {
	u32 offset; /* in the payload */
	u8 size;    /* 1, 2, 4 or 8 bytes; or any, for decode_bytes() */
	bool is_signed;
};

/**
 * decode_numbers - a column of one field, widened to @out_size bytes (2, 4 or 8) each.
 *
 * All @rows are of events whose payload has that field.
 */
void decode_numbers(const struct decode_batch *batch, const u32 *rows, u32 nr,
		    const struct decode_field *field, u32 out_size, u8 *out);

/* decode_bytes - a column of one field of @size bytes, as they are. */
void decode_bytes(const struct decode_batch *batch, const u32 *rows, u32 nr, u32 offset, u32 size,
		  u8 *out);

/**
 * decode_tails - what follows @offset up to the end of each payload, as items of @size bytes.
 * @ends: nr + 1; filled with the number of items before each row, and of all
 * @out: NULL: only count
 *
 * Returns the number of items.
 */
u32 decode_tails(const struct decode_batch *batch, const u32 *rows, u32 nr, u32 offset, u32 size,
		 s32 *ends, u8 *out);

/* decode_u64, decode_u16 - a column of the batch, of @rows only (NULL: of the first @nr). */
void decode_u64(const u64 *column, const u32 *rows, u32 nr, u64 *out);
void decode_u16(const u16 *column, const u32 *rows, u32 nr, u32 *out);

enum decode_style {
	DECODE_TRACE_PIPE, /* as trace_pipe prints it (SPEC E.3) */
	DECODE_JSON,	   /* an object on each line */
	DECODE_CSV,	   /* time in ns, CPU, lost, and what the operations say */
};

/* An array that ends a record: its items, and what stands around and between them. */
struct decode_tail {
	struct decode_field item; /* the first one; size 0: there is no array */
	struct render_text before, between, behind;
};

struct decode_text {
	u8 style; /* enum decode_style */
	struct render_table events;
	struct render_prefix *prefixes; /* by CPU, up to the largest number of any */
	/* Of events that are none: before and behind the id. DECODE_TRACE_PIPE has its own. */
	struct render_text before_id, behind_id;
	const struct decode_tail *tails; /* by index of the event, nr_tails; not for trace_pipe */
	u32 nr_tails;
};

/* Room for the longest line, with all items that a record can have, and one about a loss. */
#define DECODE_LINE_ROOM (32U << 10)

/**
 * decode_lines - the lines of rows from *@row on, as many as fit.
 *
 * *@row is set to the first row whose line may not fit: DECODE_LINE_ROOM is enough for one.
 * Texts of the tails have up to RENDER_FRAME_MAX characters. Returns the length.
 */
u32 decode_lines(const struct decode_batch *batch, u32 *row, const struct decode_text *text,
		 char *out, u32 size);

#endif
