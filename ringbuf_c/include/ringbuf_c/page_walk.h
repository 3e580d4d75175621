/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the events of one sub-buffer (SPEC A.6), byte by byte within its bounds.
 * The page may be written by somebody hostile while it is read: each word that
 * decides where to go is loaded once, and checked.
 */
#ifndef RINGBUF_C_PAGE_WALK_H
#define RINGBUF_C_PAGE_WALK_H

#include "layout.h"
#include "types.h"

struct rb_record {
	u64 time_stamp;    /* ns */
	const u8 *payload; /* begins with the u16 id of the event */
	u32 length;        /* bytes of payload, at least 2 */
	u16 id;            /* read once: the payload may change under us */
	u32 start;         /* offset in data[] of the event's header */
	u32 next;          /* offset in data[] of what follows the event */
};

enum rb_walk {
	RB_WALK_END,    /* no event up to `commit` */
	RB_WALK_EVENT,  /* *record is filled */
	RB_WALK_BROKEN, /* not a well-formed page: skip the rest of it */
};

/**
 * rb_page_commit - bytes of data[] that may be read now.
 *
 * Never more than RB_PAGE_CAPACITY. *@broken is set when the page claims more.
 */
u32 rb_page_commit(const struct buffer_data_page *page, bool *broken);

/**
 * rb_walk_next - find the event at @offset, or behind what is not an event there.
 * @data: data[] of a page
 * @commit: from rb_page_commit()
 * @time_stamp: ns, time of what precedes @offset: of the page when @offset is 0
 */
enum rb_walk rb_walk_next(const u8 *data, u32 commit, u32 offset, u64 time_stamp,
			  struct rb_record *record);

#endif
