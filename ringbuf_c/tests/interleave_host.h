/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For test_interleavings.c: what the host's side does, one function per operation. It
 * reads as reader.c does, and checks all that it sees.
 */
#ifndef RINGBUF_C_TESTS_INTERLEAVE_HOST_H
#define RINGBUF_C_TESTS_INTERLEAVE_HOST_H

#include "interleave_writer.h"

/* --- the host's side: reading -------------------------------------------------------------- */

static bool in_batch(void)
{
	return (s64)(now.entries - now.read - now.lost) > 0;
}

static void host_poll(void)
{
	now.entries = smp_load_acquire(&now.meta.entries);
}

/* Whether the page that it owns shows an event. */
static bool look_on_page(void)
{
	u64 commit = READ_ONCE(now.pages[now.page][1]);

	il_check(commit <= RB_PAGE_CAPACITY, "commit of page %llu is %llu", now.page, commit);
	il_check(commit >= now.offset, "page %llu was begun again at %llu, it is the reader's",
		 now.page, now.offset);
	return now.offset < commit;
}

/* No page is left while the next event would fit. */
static void check_page_was_full(void)
{
	if (now.left_at)
		il_check(now.left_at + event_size(now.expected) > RB_PAGE_CAPACITY,
			 "event %llu fits on the page before it, from %llu", now.expected,
			 now.left_at);
}

static u64 *take_header(u64 *at, u64 *header)
{
	*header = READ_ONCE(*at);
	if ((*header & RB_TYPE_LEN_MASK) == RB_TYPE_TIME_EXTEND) {
		seen.extended = true;
		now.time_stamp += (*header & 0xffffffff) >> RB_TYPE_LEN_BITS;
		now.time_stamp += *header >> 32 << RB_TIME_DELTA_BITS;
		*header = READ_ONCE(*++at);
	}
	now.time_stamp += (*header & 0xffffffff) >> RB_TYPE_LEN_BITS;
	il_check((*header & RB_TYPE_LEN_MASK) == RB_TYPE_DATA_LONG, "page %llu: no event at %llu",
		 now.page, now.offset);
	return at;
}

static void check_payload(const u32 *words, u32 nr)
{
	u32 serial = READ_ONCE(words[0]);

	il_check(serial == now.expected, "event %llu where %llu has to be", serial, now.expected);
	for (u32 i = 1; i < nr - 1; i++)
		il_check(words[i] == ~serial, "event %llu is torn: word %llu", serial, i);
	il_check(READ_ONCE(words[nr - 1]) == ~serial, "event %llu is torn at its end", serial, 0);
}

static void read_event(void)
{
	u32 length = event_length(now.expected);
	u64 *at = page_data(now.page) + now.offset / sizeof(u64);
	u64 header;

	if (!now.offset) {
		now.time_stamp = READ_ONCE(now.pages[now.page][0]);
		check_page_was_full();
	}
	at = take_header(at, &header);
	check_payload((u32 *)(at + 1), length / sizeof(u32));
	il_check(header >> 32 == length + sizeof(u32), "event %llu has length %llu", now.expected,
		 header >> 32);
	il_check(now.time_stamp == event_time(now.expected), "event %llu has time %llu",
		 now.expected, now.time_stamp);
	at += 1 + length / sizeof(u64);
	now.offset = (u32)((u8 *)at - (u8 *)page_data(now.page));
	now.read++;
	now.expected++;
}

static void host_read(void)
{
	while (in_batch() && look_on_page())
		read_event();
}

/* For as long as the page shows something, as for a page image. */
static void host_read_image(void)
{
	while (look_on_page())
		read_event();
}

/* As in reader.c: true also while the writer has counted a loss, and not yet its move. */
static bool owns_tail(void)
{
	u64 lost = smp_load_acquire(&now.meta.pages_lost);
	u64 touched = READ_ONCE(now.meta.pages_touched);

	return (s64)(now.taken + lost - touched - 1) >= 0;
}

static void host_look_for_tail(void)
{
	il_check(owns_tail() || now.rb.tail != now.rb.reader, "page %llu, ours, is the tail",
		 now.rb.reader, 0);
}

static void take_page(void)
{
	u64 lost = READ_ONCE(now.meta.reader.lost_events);

	now.left_at = lost || !now.taken ? 0 : now.offset;
	now.page = READ_ONCE(now.meta.reader.id);
	now.offset = 0;
	now.taken++;
	now.lost += lost;
	now.expected += lost;
	if (lost)
		seen.lost = true;
	il_check(now.page < scenario.nr_pages, "page %llu taken", now.page, 0);
	il_check(now.lost <= now.meta.overrun, "%llu reported as lost, overrun %llu", now.lost,
		 now.meta.overrun);
}

/* The next page, if events of the batch are there that our page does not show. */
static void host_swap(void)
{
	int ret;

	host_read();
	if (!in_batch())
		return;
	il_check(!owns_tail(), "event %llu is promised and not on page %llu, the tail",
		 now.expected, now.page);
	now.stepped = false;
	ret = simple_ring_buffer_swap_reader_page(&now.rb);
	il_check(!ret || ret == -EBUSY, "swap returned -%llu", (u64)-ret, 0);
	il_check(!ret || now.stepped, "swap is busy, and the writer does nothing", 0, 0);
	now.stepped = true; /* no matter: one state less */
	if (ret) {
		seen.busy = true;
		return;
	}
	take_page();
	/* What the counters promised may be lost meanwhile, and the page may show nothing. */
	if (in_batch())
		il_check(look_on_page(), "swap took page %llu, on which nothing is", now.page, 0);
}

/* --- the host's side: off, on, from the beginning ------------------------------------------- */

static void host_forgets(void)
{
	now.entries = now.read = now.lost = now.taken = 0;
	now.offset = 0;
	now.left_at = 0;
	now.forgotten = now.serial;
	now.expected = now.serial + 1;
}

static void check_counters(void)
{
	const struct trace_buffer_meta *meta = &now.meta;

	il_check(meta->entries == now.serial - now.forgotten, "entries %llu, %llu were written",
		 meta->entries, now.serial - now.forgotten);
	il_check(!meta->dropped, "dropped %llu", meta->dropped, 0);
}

static void check_reset(void)
{
	const struct trace_buffer_meta *meta = &now.meta;

	il_check(!(meta->entries | meta->overrun | meta->pages_lost | meta->pages_touched |
		   meta->reader.lost_events | meta->read | meta->reader.read | meta->dropped),
		 "a counter is not reset", 0, 0);
	for (u32 i = 0; i < scenario.nr_pages; i++)
		il_check(!now.pages[i][1], "page %llu shows %llu bytes", i, now.pages[i][1]);
	il_check(!now.in_event, "an event goes on after the reset", 0, 0);
	il_check(now.rb.enabled == !now.off, "enabled %llu, was %llu", now.rb.enabled, !now.off);
	il_check(meta->reader.id == now.page, "reader.id %llu, was %llu", meta->reader.id,
		 now.page);
}

/* The store that enables is its last step: with its return nothing is written yet. */
static void host_reset(void)
{
	il_check(!simple_ring_buffer_reset(&now.rb), "reset failed", 0, 0);
	check_reset();
	host_forgets();
}

static void check_is_off(void)
{
	il_check(!now.in_event, "event %llu is half written", now.serial + 1, 0);
	check_counters();
}

static void host_disable(void)
{
	simple_ring_buffer_enable_tracing(&now.rb, false);
	now.off = true;
	check_is_off();
}

static void host_enable(void)
{
	check_is_off();
	simple_ring_buffer_enable_tracing(&now.rb, true);
	now.off = false;
}

/* Who stores there now stores into somebody else's pages. */
static void poison_memory(int byte)
{
	memset(now.bpages, byte, sizeof(now.bpages));
	memset(&now.meta, byte, sizeof(now.meta));
	memset(now.pages, byte, sizeof(now.pages));
}

static void check_poison(void)
{
	const u8 *at = (const u8 *)now.bpages;
	size_t size = sizeof(now.bpages) + sizeof(now.meta) + sizeof(now.pages);
	u32 wrong = 0;

	_Static_assert(sizeof(now.meta) % sizeof(u64) == 0, "no holes");
	for (size_t i = 0; i < size; i++)
		wrong += at[i] != POISON;
	il_check(!wrong, "%llu bytes stored after unload", wrong, 0);
}

static void host_unload(void)
{
	simple_ring_buffer_unload(&now.rb);
	now.off = true;
	il_check(!now.in_event, "event %llu is half written at unload", now.serial + 1, 0);
	poison_memory(POISON);
}

static void load(void)
{
	for (u32 i = 0; i < scenario.nr_pages; i++)
		now.bpages[i].page = (struct buffer_data_page *)now.pages[i];
	il_check(!simple_ring_buffer_init(&now.rb, now.bpages, scenario.nr_pages, &now.meta),
		 "load failed", 0, 0);
	host_forgets();
	now.page = 0;
	simple_ring_buffer_enable_tracing(&now.rb, true);
	now.off = false;
}

static void host_load(void)
{
	check_poison();
	poison_memory(0);
	load();
}

#endif
