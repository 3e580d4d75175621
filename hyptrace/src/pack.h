/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page images that follow each other, as fewer: what is read of a slow stream is a page for each
 * few events. Times, events and what is said of losses stay as they are.
 */
#ifndef HYPTRACE_PACK_H
#define HYPTRACE_PACK_H

#include "ringbuf_c/layout.h"

/* The last page of a CPU, to which the next one may be appended. Zeroed: there is none. */
struct pack_cpu {
	bool open;
	u32 used; /* bytes of data */
	u64 last; /* ns, of its last event */
	u8 page[RB_PAGE_SIZE];
};

/**
 * pack_pages - the pages that @pages, @size bytes of them, become behind those before.
 * @out: room for a page more than @pages
 *
 * If a page was open, it is the first one in @out, to take its place. A page is appended as a
 * whole, and only if it has its events from its first byte to its last, is not older than what
 * it is appended to, and tells of no loss: that is told before its events. Returns the bytes of
 * @out.
 */
u32 pack_pages(struct pack_cpu *cpu, const u8 *pages, u32 size, u8 *out);

#endif
