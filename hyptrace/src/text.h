/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of a trace_pipe (SPEC E.3), made records again: the other way round from render.h,
 * and by the same means: an event is a table of operations, compiled by whoever knows its print
 * format. Nothing is allocated.
 */
#ifndef HYPTRACE_TEXT_H
#define HYPTRACE_TEXT_H

#include "ringbuf_c/decode.h"

enum text_kind {
	TEXT_LITERAL,
	TEXT_SIGNED,
	TEXT_UNSIGNED,
	TEXT_HEX, /* in lower case, no prefix */
	TEXT_SYMBOL, /* a word */
};

struct text_symbol {
	struct render_text text;
	u64 value;
};

struct text_op {
	u8 kind;     /* enum text_kind */
	u8 size;     /* of the field: 1, 2, 4 or 8 bytes */
	bool padded; /* blanks may stand before it */
	u32 offset;  /* of the field, in the record */
	struct render_text literal;
	const struct text_symbol *symbols;
	u32 nr_symbols;
};

/* What a line says behind its time, from the name of the event on; all of it. */
struct text_pattern {
	u16 id;
	u16 event;  /* its index */
	u16 length; /* bytes of a record */
	u8 index_size; /* of the field that no line says but by which pattern it is; 0: none */
	u32 index_offset;
	u64 index;
	const struct text_op *ops;
	u32 nr_ops;
};

/* Zeroed at the beginning. */
struct text_cpu {
	u64 events;	 /* so far */
	u64 lost_events; /* so far, those that somebody has counted */
	u64 uncounted;	 /* times that events were lost, and nobody has counted them */
	u64 lost;	 /* to say with the next event; or DECODE_LOST_UNKNOWN */
};

struct text_decoder {
	const struct text_pattern *patterns; /* of two that fit a line, the first counts */
	u32 nr_patterns;
	struct text_cpu *cpus; /* by number */
	u32 nr_cpus;
	u8 *records; /* room for as many as a batch has rows */
	u32 stride;  /* bytes of each: the longest is not longer */
	u64 odd;     /* lines that say nothing that is known; those that begin with # do not count */
};

/**
 * text_next - append what the lines of @text say to @batch, while there is room.
 *
 * Returns how many bytes of whole lines it has used. What is behind the last newline is for
 * the next time.
 */
u64 text_next(struct text_decoder *decoder, const char *text, u64 size, struct decode_batch *batch);

#endif
