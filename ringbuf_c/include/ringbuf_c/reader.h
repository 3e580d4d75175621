/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of a remote's buffers: the counters as last polled, the page that
 * it owns on each CPU, the merge of CPUs by time, and what the files deliver: lines
 * of text, or page images. Read-only: what must change, a hypercall changes.
 *
 * One call serves one read() of a file. Not thread-safe: one caller at a time.
 *
 * The law of conservation, for each CPU, in struct reader_stats:
 *     entries = read + overrun + unread
 *
 * The writer is not trusted. What it may get wrong, and what a reader then sees:
 *
 *   an event that is none: length 0 to 3, past  `CPU:n [CORRUPT PAGE id AT offset]` once,
 *   the committed data or the page; a           where offset is the end of the last good
 *   `commit` past the page                      event; the rest of the page is skipped
 *   an id that no event has                     the line says `UNKNOWN id=N`
 *   an event shorter than its fields            `[SHORT EVENT id=N length=N]`
 *   padding (type 29) with delta 0 in mid-page  ends the page, as in SPEC A.6: silent
 *   a time that runs backwards                  as SPEC B.4 has it: a delta of 59 bits, so
 *                                               a time that is far ahead
 *   reader.id out of range                      no page: swap_error is -ERANGE, nothing is
 *                                               read until the next call tries again
 *   a swap that fails                           the same, with its error (-EPROTO if it is
 *                                               not an error either)
 *   lost_events beyond what was written         cut to what is not accounted for
 *   counters that run backwards                 nothing is unread until they are ahead again
 *   events promised and not there               given up: they count as read and skipped
 *   a `commit` taken back                       what was seen before is delivered; a page
 *                                               image may be empty
 *
 * Reading goes on with the next page in each case. Only the law does not hold for counters
 * that were made up.
 */
#ifndef RINGBUF_C_READER_H
#define RINGBUF_C_READER_H

#include "filter.h"
#include "hypercalls.h"
#include "layout.h"
#include "page_walk.h"
#include "render.h"
#include "types.h"

#define READER_ALL_CPUS ((u32)-1)

enum reader_next {
	READER_NONE,
	READER_EVENT,
	READER_BROKEN,
	READER_LOST, /* of a dump: a loss that no event follows */
};

struct dump_source;

struct reader_turn {
	u64 time; /* ns, of the next event */
	u32 nr;   /* the CPU */
};

struct reader_cpu {
	const struct trace_buffer_meta *meta; /* shared; NULL: CPU not in the buffer */
	const u8 *pages;                      /* shared; page id is at pages + id * RB_PAGE_SIZE */
	u32 nr_pages;                         /* the bound of reader.id */
	u32 nr_spares;                        /* of these, the last ones, as load was told */

	/* the counters as last polled */
	u64 entries;
	u64 overrun;

	/* where we are: */
	u32 page;       /* the page that we own */
	u32 offset;     /* in its data[]: all before is consumed */
	u32 commit;     /* of its data[], when we last looked */
	u64 time_stamp; /* ns, of what is before offset */

	u64 taken; /* pages, by swaps */
	u32 last;  /* the page that we took last: ours, or the last one of the queue */
	u32 queue_at, queue_nr; /* of the pages that the last swap gave: the next one, their number */

	u64 read; /* events consumed */
	u64 lost; /* events that the swaps so far reported as lost */
	u64 unreported; /* of these and of `abandoned`: what no reader has been told yet */
	u64 skipped; /* events promised and not found, on broken pages or not at all; */
		     /* they count as read */
	u64 filtered; /* events that no reader has been shown; they count as read */
	u64 abandoned; /* events that a reader had not got when it closed; they count as read */
	u64 broken_pages;

	/* when the hypervisor is gone; see reader_inherit() */
	const u32 *heirs; /* pages to read after ours, oldest first; NULL: ask for swaps */
	u64 heir_loss;    /* events between our page and the first of them */
	u32 nr_heirs;

	int swap_error; /* of the last swap: 0 or -errno */
	bool gap;       /* a page was skipped, and no reader of images has been told yet */

	enum reader_next next; /* what `record` holds; READER_NONE: look again */
	struct rb_record record;

	struct render_prefix prefix;

	/*
	 * Who is where, see reader_order.c; NULL: the order is not kept. Places, from 0 to
	 * nr_pages - 2, follow each other.
	 */
	u32 *spares;     /* pages of ours, as the ring has them: see set_aside() in ring.c */
	u32 *place_of;   /* by page id; of our page: where it was when we took it */
	u32 *page_at;    /* by place */
	u32 first_place; /* of the page that was begun first since load or reset */
	bool astray;     /* first_place is not known */

	/* a reader of an index, without swaps; see dump.h */
	struct dump_source *dump;

	struct reader_turn turn; /* a place in the merge, not of this CPU: see turns.c */
};

struct reader {
	struct hvc_conduit *conduit;
	u32 hvc_cpu; /* the CPU that the host makes its calls from */
	u32 max_taken; /* pages that one swap may give, one more than there are spares; 0 is 1 */
	u32 nr_cpus;
	struct reader_cpu *cpus;
	struct render_table events;
	struct filter_table filters; /* see reader_set_filters() */
	u32 passed_over; /* events that did not match, since the call began */
};

/*
 * So many events that do not match are passed over in one call. Then it ends, with what it
 * has: see reader_unfinished().
 */
#define READER_MAX_PASSED_OVER (1U << 16)

/* A line, or a page image. */
#define READER_CARRY_MAX (RENDER_LINE_MAX > RB_PAGE_SIZE ? RENDER_LINE_MAX : RB_PAGE_SIZE)

/*
 * What an open file still owes to its reader, from `offset` on, and what is lost with it if
 * the file is closed: see reader_abandon(). Zeroed: nothing.
 */
struct reader_carry {
	u32 offset;
	u32 length;
	u32 cpu;      /* whose events they are */
	u32 loss_end; /* who has got the bytes up to here has been told of `lost` */
	u64 lost;     /* events lost before */
	u32 events;
	bool gap; /* a page was skipped before, or is what it tells of */
	u8 bytes[READER_CARRY_MAX];
};

struct reader_stats {
	u64 entries, overrun, read, unread; /* as last polled */
	u64 lost;         /* reported by swaps so far; overrun is ahead of it */
	u64 skipped;      /* of read: unreadable, on broken pages */
	u64 filtered;     /* of read: did not match the filter of their event */
	u64 abandoned;    /* of read: owed to a reader that has closed */
	u64 unreported;   /* of lost and abandoned: no reader has been told yet */
	u64 broken_pages;
	u64 pages_lost, pages_touched;
	u64 dropped; /* refused while tracing was on; 0 if the writer does not count them */
	s64 swap_error;
};

/**
 * reader_keep_order - from now on, know the order of the pages of @cpu.
 * @room: for 2 * nr_pages + nr_spares numbers; must stay as long as the reader
 *
 * Before the first swap since load: page 0 is the reader page, and the others follow each
 * other by their ids. Without, reader_inherit() and dumps find the reader page only. After a
 * reset and until a swap, it takes the times of pages to know where the oldest is: pages of
 * equal times, from a clock that stood still while the ring was written once round, may then
 * come in another order.
 */
void reader_keep_order(struct reader *reader, u32 cpu, u32 *room);

/**
 * reader_poll - copy the counters of all CPUs; true if there are unread events.
 *
 * Every CPU is looked at before anything is merged, so that a merge sees a
 * consistent set.
 */
bool reader_poll(struct reader *reader);

/** reader_unread - events of @cpu (or READER_ALL_CPUS) unread at the last poll. */
u64 reader_unread(const struct reader *reader, u32 cpu);

/**
 * reader_text - consume events as lines, oldest first.
 * @cpu: one CPU, or READER_ALL_CPUS
 *
 * Polls once; the events known then are the batch that is merged. Those that their filter
 * does not match are consumed and not shown. Ends lines in
 * the middle only where the first one is longer than @size; the rest is carried.
 * Return: bytes written; 0 when nothing is there.
 */
u32 reader_text(struct reader *reader, u32 cpu, struct reader_carry *carry, char *out, u32 size);

/**
 * reader_raw - consume events as page images of RB_PAGE_SIZE (SPEC G).
 *
 * As many pages as fit; with READER_ALL_CPUS, the page with the oldest first event
 * first. Image: time_stamp of its first event, `commit` with the flags of SPEC A.5,
 * whole events, zeros. Events that do not match are left out; where then 59 bits cannot say
 * how much later the next one is, the image ends before it. Pages that are broken from their
 * next event on are passed over, up
 * to 64 in one call. With @size below a page, the rest of the image is carried and
 * the following reads deliver it first. Return: bytes written; 0 when nothing is there.
 */
u32 reader_raw(struct reader *reader, u32 cpu, struct reader_carry *carry, u8 *out, u32 size);

/**
 * reader_abandon - the file of @carry is closed: what it still owes is lost.
 *
 * The next reader of that CPU is told, as of what was overwritten. A line or an image of which
 * a part has been delivered is lost as a whole. Not for a @carry that was filled before
 * reader_reset() or by another reader: zero that.
 */
void reader_abandon(struct reader *reader, struct reader_carry *carry);

/**
 * reader_set_filters - from now on, pass over events that do not match.
 * @filters: each one without predicates, or checked; must stay until they are set again
 */
void reader_set_filters(struct reader *reader, struct filter_table filters);

/**
 * reader_unfinished - the last call has ended early, because of events that do not match.
 *
 * Even if it has returned 0, there may be something: call again.
 */
static inline bool reader_unfinished(const struct reader *reader)
{
	return reader->passed_over >= READER_MAX_PASSED_OVER;
}

/**
 * reader_ready - whether a call would give something now, or be unfinished.
 *
 * Polls, and consumes events that do not match, up to the first one that does.
 */
bool reader_ready(struct reader *reader, u32 cpu);

/**
 * reader_inherit - the hypervisor of @cpu is gone: read what it has left without it.
 * @ids: room for nr_pages page ids; must stay until reader_reset() or the end
 *
 * The pages that hold unread events follow ours, in their order: see reader_keep_order(). What
 * was overwritten since our last swap is reported as lost.
 */
void reader_inherit(struct reader *reader, u32 cpu, u32 *ids);

/** reader_stats - the counters of @cpu; all 0 if it is not in the buffer. */
void reader_stats(const struct reader *reader, u32 cpu, struct reader_stats *stats);

/** reader_reset - the hypervisor has reset @cpu: forget the position and the counts. */
void reader_reset(struct reader *reader, u32 cpu);

#endif
