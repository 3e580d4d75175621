/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that the hypervisor and the host agree on (SPEC A): the meta page,
 * a sub-buffer, an event, and the descriptor that the host hands over at load.
 *
 * Unless a field says otherwise the hypervisor writes and the host reads, and
 * neither trusts what it reads.
 */
#ifndef RINGBUF_C_LAYOUT_H
#define RINGBUF_C_LAYOUT_H

#include "types.h"

/* Size of a page in bytes. Tests that want tiny rings build with a smaller one. */
#ifndef RB_PAGE_SIZE
#define RB_PAGE_SIZE 4096U
#endif

/*
 * Meta page: one per CPU, this structure at offset 0 (SPEC A.1). Each counter is
 * stored whole, by one store of the new value.
 *
 * unread events = entries - overrun - events read by the host
 */
struct trace_buffer_meta {
	u32 meta_page_size;  /* bytes; written at load */
	u32 meta_struct_len; /* sizeof(struct trace_buffer_meta); written at load */
	u32 subbuf_size;     /* bytes in a sub-buffer, header included; written at load */
	u32 nr_subbufs;      /* sub-buffers of this CPU, the reader page included */

	struct {
		u64 lost_events; /* overwritten between the previous swap and the last one */
		u32 id;          /* page that the reader owns; 0 after load */
		u32 read;        /* 0: the host keeps its own read position */
	} reader;

	u64 flags;         /* 0 */
	u64 entries;       /* events committed since load or reset */
	u64 overrun;       /* events overwritten unread since load or reset */
	u64 read;          /* 0: the host keeps its own count */
	u64 pages_lost;    /* sub-buffers overwritten unread */
	u64 pages_touched; /* moves of the tail */

	/* Ours, behind the 80 bytes of SPEC A.1; there if meta_struct_len says so. */
	u64 dropped; /* events that reserve refused while tracing was on */
};

_Static_assert(offsetof(struct trace_buffer_meta, dropped) == 80, "SPEC A.1: 80 bytes");
_Static_assert(offsetof(struct trace_buffer_meta, reader.lost_events) == 16, "SPEC A.1");
_Static_assert(offsetof(struct trace_buffer_meta, entries) == 40, "SPEC A.1");

/*
 * How many pages have been begun behind the one that the reader took last. The pages that
 * have been begun are the first one and one per move of the tail; the reader has @taken some,
 * some were lost. 0 or less: the last one taken is the last of these, and being written.
 *
 * A loss later than that swap cannot mislead: a page is lost when the whole ring is
 * ahead of the reader's, and the moves that filled it are seen with the loss.
 */
static inline s64 rb_pages_behind(u64 taken, const u64 *pages_lost, const u64 *pages_touched,
				  u64 *touched)
{
	/* [see_lost] pairs with [pages_lost]: load it before pages_touched */
	u64 lost = smp_load_acquire(pages_lost);

	/* [see_touched] pairs with [pages_touched]: who swaps next sees what the tail has left */
	*touched = smp_load_acquire(pages_touched);
	return (s64)(*touched + 1 - lost - taken);
}

/*
 * Ours, in the meta page behind that: what a call that may swap several pages gave to the
 * host, in the order of their events. The host has read them all before it calls again.
 */
#define RB_TAKEN_OFFSET 256U

/*
 * Pages in one call, all that the meta page has room for; a reader page, and this less one to
 * spare. Tests that want tiny rings build with fewer.
 */
#ifndef RB_MAX_TAKEN
#define RB_MAX_TAKEN 239U
#endif

struct rb_taken {
	u32 nr;
	u32 pad;
	struct {
		u64 lost_events; /* overwritten between the page before and this one */
		u32 id;
		u32 pad;
	} pages[];
};

_Static_assert(RB_PAGE_SIZE < 4096U ||
	       RB_TAKEN_OFFSET + offsetof(struct rb_taken, pages[RB_MAX_TAKEN]) <= RB_PAGE_SIZE,
	       "the list is on the meta page");

/*
 * Sub-buffer (SPEC A.5). `data` holds events back to back; the first `commit`
 * bytes are readable.
 */
struct buffer_data_page {
	u64 time_stamp; /* ns, of the first event of the page */
	u64 commit;     /* bytes of data[]; 0 on an empty page */
	u8 data[];
};

#define RB_PAGE_HEADER ((u32)sizeof(struct buffer_data_page))
#define RB_PAGE_CAPACITY (RB_PAGE_SIZE - RB_PAGE_HEADER)

/* Flags in `commit` of a page image that user space reads (SPEC A.5). */
#define RB_MISSED_EVENTS (1U << 31) /* events were lost before this page */
#define RB_MISSED_STORED (1U << 30) /* their number follows the data, a u64 */

/*
 * Event header (SPEC A.6): u32 = type_len in bits 0-4, time_delta in bits 5-31,
 * then u32 array[]. A remote writes type 0 (array[0] = payload bytes + 4) and
 * type 30; the others are understood by readers.
 */
#define RB_TYPE_LEN_BITS 5
#define RB_TYPE_LEN_MASK ((1U << RB_TYPE_LEN_BITS) - 1)
#define RB_TIME_DELTA_BITS 27
#define RB_TIME_DELTA_MASK ((1ULL << RB_TIME_DELTA_BITS) - 1)
#define RB_TIME_STAMP_MASK ((1ULL << 59) - 1) /* what a TIME_STAMP can carry */

enum rb_type_len {
	RB_TYPE_DATA_LONG = 0,
	RB_TYPE_DATA_MAX = 28, /* 1..28: payload of type_len * 4 bytes */
	RB_TYPE_PADDING = 29,
	RB_TYPE_TIME_EXTEND = 30,
	RB_TYPE_TIME_STAMP = 31,
};

#define RB_EVENT_HEADER 8U /* header and array[0] of a long data event */
#define RB_TIME_EXTEND_SIZE 8U
#define RB_RECORD_ALIGN 8U /* payloads are rounded up, so that fields stay aligned */
#define RB_MAX_PAYLOAD (RB_PAGE_CAPACITY - RB_EVENT_HEADER)

static inline u32 rb_event_header(u32 type_len, u64 time_delta)
{
	return type_len | (u32)((time_delta & RB_TIME_DELTA_MASK) << RB_TYPE_LEN_BITS);
}

/*
 * What one CPU's buffer is made of (SPEC A.2). "va" is the host's name for a
 * page; here: its offset in the memory object that load passes along.
 */
struct ring_buffer_desc {
	s32 cpu;
	u32 nr_page_va; /* data pages, the meta page not counted; at least 3 */
	u64 meta_va;
	u64 page_va[]; /* index = page id; page 0 is the first reader page */
};

#define RB_MIN_PAGES 3U /* SPEC A.4 TRAP: a ring of one page loses its head */

struct trace_buffer_desc {
	s32 nr_cpus;
	u32 pad;
	u64 struct_len; /* 16 + the sizes of all records */
	u8 data[];      /* struct ring_buffer_desc, one after the other, CPU 0 first */
};

struct hyp_trace_desc {
	u64 bpages_backing_start; /* 0: the hypervisor takes its records from its own memory */
	u64 bpages_backing_size;  /* 0 */
	struct trace_buffer_desc trace_buffer_desc;
};

_Static_assert(sizeof(struct ring_buffer_desc) == 16, "SPEC A.2");
_Static_assert(offsetof(struct trace_buffer_desc, data) == 16, "SPEC A.2");

static inline u64 ring_buffer_desc_size(u32 nr_page_va)
{
	return sizeof(struct ring_buffer_desc) + (u64)nr_page_va * sizeof(u64);
}

#endif
