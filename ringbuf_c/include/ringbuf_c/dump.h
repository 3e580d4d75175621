/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file `trace`: what is unread, as text, without consuming it. Tracing may be on, and
 * consuming readers may read meanwhile.
 *
 *     dump_begin     which pages hold unread events: an index of 16 bytes a page
 *     dump_measure   how many events there are on each
 *     dump_read      lines, made page by page from private copies
 *
 * dump_begin() belongs to the caller of the reader's other functions. The others may run in
 * another thread, while readers consume: they read the shared pages, pages_touched and what is
 * below, and nothing of the reader. One call at a time for a dump that is measured, then for
 * each cursor; several cursors may share a dump.
 *
 * What is shown: all that is unread when the dump begins, in the order in which it would be
 * consumed. What is consumed later is still shown if its page is still there. Losses from
 * before the dump began are not told. A page that is overwritten between dump_begin() and
 * dump_measure() was lost before the dump began; so were the ones in the ring that are older.
 * Whatever is overwritten later is told as `CPU:n [LOST x EVENTS]`, and never shown in part.
 * A reset overwrites, too.
 *
 * The writer is not trusted; what a reader then sees is in the table of reader.h. Pages that
 * it has written again at the same time stamp, with a clock that stood still for a lap of the
 * ring, are not told from what they were.
 */
#ifndef RINGBUF_C_DUMP_H
#define RINGBUF_C_DUMP_H

#include "reader.h"

/* A page as it was when the dump began. */
struct dump_page {
	u64 time_stamp; /* ns */
	u32 id;
	u16 commit;  /* bytes of data[] that are shown; DUMP_BROKEN: a commit past the page */
	u16 entries; /* events to show; what is broken counts as one more */
};

#define DUMP_BROKEN ((u16)(RB_PAGE_CAPACITY + 1))

_Static_assert(RB_PAGE_CAPACITY + 1 <= UINT16_MAX, "struct dump_page");

/* The index of one CPU: its reader page, others of the host's, then the ring, oldest first. */
struct dump_cpu {
	const struct trace_buffer_meta *meta; /* shared; NULL: not in the dump */
	const u8 *pages;                      /* shared */
	struct dump_page *index;              /* the caller's: room for nr_pages of the CPU */
	u32 nr;       /* in the index */
	u32 ring;     /* of these: the first one of the ring; those before are the host's own */
	u32 first;    /* the first one of the ring that is shown */
	u64 touched;  /* pages_touched when the dump began */
	u32 margin;   /* how many pages can be begun from then on before the oldest is lost */
	u32 offset;   /* in data[] of the reader page: what is before has been consumed */
	u64 time_stamp; /* ns, of what is before */
	u64 own_events; /* the sum of `entries` of the host's own pages */
	u64 events;     /* the sum of `entries` of what is shown */
};

struct dump {
	u32 nr_cpus;           /* as the reader has them */
	struct dump_cpu *cpus; /* the caller's: one for each, with `index` set where it is wanted */
	struct render_table events;
	struct filter_table filters; /* as the reader had them when the dump began */
	_Alignas(u64) u8 scratch[RB_PAGE_SIZE]; /* of dump_measure() */
};

/* The pages of one CPU, one after the other, as a reader's: see struct reader_cpu. */
struct dump_source {
	const struct dump_cpu *cpu;
	u32 next; /* in the index */
	u32 id;   /* of the page that is in `copy` */
	_Alignas(u64) u8 copy[RB_PAGE_SIZE];
};

/* A position in the text. The arrays are the caller's: one element for each CPU of the dump. */
struct dump_cursor {
	const struct dump *dump;
	struct reader_cpu *cpus;
	struct dump_source *sources;
	struct reader reader;
	struct reader_carry carry;
	u64 at; /* bytes of text before here */
};

/**
 * dump_begin - take the index.
 * @dump: with nr_cpus and cpus; those with an index become a part of the dump
 *
 * The reader must keep the order of its pages: see reader_keep_order(). Takes a few ns per
 * unread page.
 */
void dump_begin(struct dump *dump, const struct reader *reader);

/** dump_measure - count the events, once, before there are cursors: about 1 us per page. */
void dump_measure(struct dump *dump);

/** dump_rewind - to the beginning of the text; also what makes a cursor, of its pointers. */
void dump_rewind(struct dump_cursor *cursor);

/**
 * dump_read - bytes of the text.
 * @offset: of the first one; before the cursor: the text is made again from its beginning
 * @size: how many are wanted
 * @room: bytes that may be written at @out, @size or more; what is skipped goes there, too
 *
 * The same bytes again and again, as long as the pages hold. Return: how many there are;
 * less than @size only at the end.
 */
u32 dump_read(struct dump_cursor *cursor, u64 offset, char *out, u32 room, u32 size);

/** dump_length - bytes of the text if it is made now; @out is room for some of it. */
u64 dump_length(struct dump_cursor *cursor, char *out, u32 room);

#endif
