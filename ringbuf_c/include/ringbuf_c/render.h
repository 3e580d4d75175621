/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of an event. A print format is compiled once, by whoever knows it, to a
 * table of operations; this runs the table. There is no other renderer: our own
 * events and those of any attached producer take the same way.
 *
 * Line (SPEC E.3):  [%03u]<TAB>%5llu.%06llu: <what the operations say>\n
 */
#ifndef RINGBUF_C_RENDER_H
#define RINGBUF_C_RENDER_H

#include "page_walk.h"
#include "types.h"

/* No line is longer, newline included; an event whose text could be is refused. */
#define RENDER_LINE_MAX 4096U
/*
 * Room that a LOST line, the CPU, the time, an UNKNOWN text and the newline can take, and
 * what is written behind the line and does not belong to it.
 */
#define RENDER_FRAME_MAX 160U

enum render_kind {
	RENDER_TEXT,     /* no field: `text` alone */
	RENDER_UNSIGNED, /* field in decimal */
	RENDER_SIGNED,
	RENDER_HEX,      /* field in hexadecimal, no prefix */
	RENDER_SYMBOL,   /* field as an entry of `symbols` */
	/* Rare: the loop that all text goes through has none of these. */
	RENDER_SYMBOL_OR_HEX, /* as an entry that is not empty, or as 0x%lx */
	RENDER_STRING,   /* field to its first zero byte; '.' for what cannot be printed */
};

/*
 * @text can be read up to a multiple of RENDER_TEXT_ALIGN bytes, however long it is: it
 * is copied in pieces of that size.
 */
struct render_text {
	const char *text;
	u32 length;
};

#define RENDER_TEXT_ALIGN 16U
#define RENDER_TEXT_PADDING "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

/* A string literal as a struct render_text. */
#define RENDER_LITERAL(literal) { literal RENDER_TEXT_PADDING, sizeof(literal) - 1 }

struct render_symbols {
	const struct render_text *symbols; /* of the values 0 to nr - 1 */
	u32 nr;
	struct render_text fallback; /* of all others */
};

#define RENDER_LEFT 1U /* pad on the right */
#define RENDER_ZERO 2U /* pad with zeros instead of blanks */
#define RENDER_UPPER 4U /* hexadecimal in upper case */
#define RENDER_EXTEND 8U /* 0x%lx: the field has a sign */

/* A piece of text, and the field that follows it. */
struct render_op {
	u8 kind;    /* enum render_kind */
	u8 size;    /* of the field: 1, 2, 4 or 8 bytes; of a string 1 to 255 */
	u8 flags;   /* RENDER_LEFT, ... */
	u8 width;   /* characters, at least; 0: as many as there are */
	u32 offset; /* of the field in the payload, bytes */
	struct render_text text; /* as it is, before the field; may be empty */
	const struct render_symbols *symbols;
};

struct render_formats;

struct render_event {
	const struct render_op *ops; /* NULL: no event has this id */
	u32 nr_ops;
	u32 length;   /* bytes of payload that there must be; UINT32_MAX: it is a rare one */
	u32 max_text; /* characters that they can produce; see render_event_check() */
	u32 reads;    /* bytes of payload that the operations read, of a rare one too */
	const struct render_formats *formats; /* NULL: each record prints by @ops */
};

/*
 * For events whose records say by which format they print (hyp_printk): a field of theirs
 * counts the formats, each of which is a whole line. The operations of the event itself are
 * for indices that no format has. Such an event, like one with a rare operation, has a
 * `length` that no record has: so the loop that all text goes through finds it where it
 * finds records that are too short, and others pay nothing for it.
 */
struct render_formats {
	const struct render_event *formats; /* of the indices 0 to nr - 1 */
	u32 nr;
	u32 offset; /* of the field that is the index, bytes */
	u32 size;   /* of it: 1, 2, 4 or 8 bytes */
};

/* Events by id: ids from 0 to nr - 1. */
struct render_table {
	const struct render_event *events;
	u32 nr;
};

/* render_find - the event of an id; one without operations if there is none. */
static inline const struct render_event *render_find(const struct render_table *table, u16 id)
{
	static const struct render_event unknown;

	return id < table->nr ? &table->events[id] : &unknown;
}

/* What begins all lines of a CPU within a millisecond. Zeroed: not known yet. */
struct render_prefix {
	u64 msec;  /* ns; when the millisecond began */
	u64 nsecs; /* how many it has */
	u32 length;
	char text[32];
};

/**
 * render_event_check - make sure that the operations of an event are safe to run.
 *
 * Fills @event->length, @event->reads and @event->max_text from the operations, and those of its
 * formats, which have been checked before and have no formats themselves. Return: 0,
 * -EINVAL for an operation that does not exist or a field of an odd size, -E2BIG when
 * the text could exceed a line.
 */
int render_event_check(struct render_event *event);

/**
 * render_line - one event as one line.
 * @out: at least render_line_max() bytes, which may all be written to
 * @prefix: of this CPU
 * @event: render_find() of record->id
 *
 * An unknown id gives `UNKNOWN id=N`, a record too short for its fields, or for those
 * of its format, `[SHORT EVENT id=N length=N]`. Return: the length of the line.
 */
u32 render_line(char *out, struct render_prefix *prefix, u32 cpu, const struct rb_record *record,
		const struct render_event *event);

/** render_line_max - room that a line of this event can need. */
static inline u32 render_line_max(const struct render_event *event)
{
	return RENDER_FRAME_MAX + event->max_text;
}

/**
 * render_lost - `CPU:%u [LOST %llu EVENTS]\n`
 * @out: RENDER_FRAME_MAX / 2 bytes, which may all be written to
 */
u32 render_lost(char *out, u32 cpu, u64 lost);

/** render_corrupt - `CPU:%u [CORRUPT PAGE %u AT %u]\n`: page id, offset in data[]; so too. */
u32 render_corrupt(char *out, u32 cpu, u32 page, u32 offset);

#endif
