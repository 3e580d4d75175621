// SPDX-License-Identifier: Apache-2.0
#include "ringbuf_c/ring.h"

/* How often a swap looks at a link that says HEAD_MOVING before it gives up. */
#define MOVING_LOOKS 1000U

static u32 link_page(u64 link)
{
	return (u32)link >> LINK_PAGE_SHIFT;
}

static u32 link_flag(u64 link)
{
	return link & LINK_FLAG_MASK;
}

static u64 make_link(u32 page, enum rb_link_flag flag)
{
	return page << LINK_PAGE_SHIFT | flag;
}

static u64 make_head_link(u32 page, u64 pages_lost)
{
	return pages_lost << LINK_TAG_SHIFT | make_link(page, LINK_HEAD);
}

static void cpu_relax(const struct simple_rb_per_cpu *rb)
{
	if (rb->relax)
		rb->relax();
}

static void reset_page(struct simple_buffer_page *bpage)
{
	bpage->entries = 0;
	WRITE_ONCE(bpage->page->commit, 0);
}

/* The writer goes on with @page, from its beginning. */
static void set_tail(struct simple_rb_per_cpu *rb, u32 page)
{
	rb->tail = page;
	rb->page = rb->bpages[page].page;
	rb->write = 0;
	rb->end = 0;
	rb->first_entry = rb->entries;
	reset_page(&rb->bpages[page]);
}

/* --- the writer's side -------------------------------------------------- */

/*
 * The writer has caught the head: @next holds the oldest unread events and is
 * about to be overwritten. @tail's link says HEAD_MOVING, so swaps wait.
 */
static void drop_head(struct simple_rb_per_cpu *rb, struct simple_buffer_page *tail, u32 next)
{
	struct simple_buffer_page *lost = &rb->bpages[next];
	/* [lost_next] pairs with [put_reader]: the page that was put there */
	u32 new_head = link_page(smp_load_acquire(&lost->next));

	WRITE_ONCE(rb->overrun, rb->overrun + lost->entries);
	WRITE_ONCE(rb->meta->overrun, rb->overrun);
	/* for a swap of several pages, as the next one is for the host */
	smp_store_release(&rb->pages_lost, rb->pages_lost + 1);
	/* [pages_lost] pairs with [see_lost]: pages_touched so far */
	smp_store_release(&rb->meta->pages_lost, rb->pages_lost);

	/* [new_head] pairs with [find_head]: the overrun above */
	smp_store_release(&lost->next, make_head_link(new_head, rb->pages_lost));
	/* [old_head] pairs with [find_head]: who sees NORMAL here sees the HEAD one page on */
	smp_store_release(&tail->next, make_link(next, LINK_NORMAL));
}

static void move_tail(struct simple_rb_per_cpu *rb)
{
	struct simple_buffer_page *tail = &rb->bpages[rb->tail];
	/* [tail_next] pairs with [put_reader]: the host has done with the page */
	u64 link = smp_load_acquire(&tail->next);

	tail->entries = (u32)(rb->entries - rb->first_entry);
	/* [head_moving] A swap may replace the head until our exchange; then link is what it put there. */
	while (link_flag(link) == LINK_HEAD) {
		if (try_cmpxchg(&tail->next, &link, make_link(link_page(link), LINK_HEAD_MOVING)))
			break;
	}
	if (link_flag(link) == LINK_HEAD)
		drop_head(rb, tail, link_page(link));

	set_tail(rb, link_page(link));
	/* likewise */
	smp_store_release(&rb->pages_touched, rb->pages_touched + 1);
	/* [pages_touched] pairs with [see_touched]: the page is empty, its old link gone */
	smp_store_release(&rb->meta->pages_touched, rb->pages_touched);
	/*
	 * Pairs with load_words() of the host's dump, which may be copying what was on the page:
	 * who sees what we write there sees that it is empty, and pages_touched.
	 */
	smp_wmb();
}

/* Reserve @size bytes of the tail page for an event of this time. Returns where. */
static u8 *take_room(struct simple_rb_per_cpu *rb, u32 size, u64 time_stamp)
{
	u8 *at = rb->page->data + rb->write;

	rb->write += size;
	rb->end = RB_PAGE_CAPACITY;
	rb->write_stamp = time_stamp;
	return at;
}

void *__simple_rb_reserve_slow(struct simple_rb_per_cpu *rb, u32 length, u64 time_stamp)
{
	u32 size = length + RB_EVENT_HEADER;
	u64 delta = time_stamp - rb->write_stamp;
	u32 extend = rb->write && delta > RB_TIME_DELTA_MASK ? RB_TIME_EXTEND_SIZE : 0;
	u8 *at;

	if (rb->write + extend + size > RB_PAGE_CAPACITY)
		move_tail(rb);
	if (!rb->write) {
		WRITE_ONCE(rb->page->time_stamp, time_stamp);
		delta = 0;
		extend = 0;
	}
	at = take_room(rb, extend + size, time_stamp);
	if (extend) {
		at = __simple_rb_put_header(at, RB_TYPE_TIME_EXTEND, delta,
					    (u32)(delta >> RB_TIME_DELTA_BITS));
		delta = 0;
	}
	return __simple_rb_put_header(at, RB_TYPE_DATA_LONG, delta, length + (u32)sizeof(u32));
}

void __simple_rb_drop(struct simple_rb_per_cpu *rb)
{
	if (!READ_ONCE(rb->enabled)) /* the outer event has not begun */
		return;
	WRITE_ONCE(rb->dropped, rb->dropped + 1);
	WRITE_ONCE(rb->meta->dropped, rb->dropped);
}

void __simple_rb_ring(struct simple_rb_per_cpu *rb)
{
	/*
	 * [disarm] against [arm], before it rings: who arms again meanwhile has either been
	 * late, and stays armed, or been in time, and hears this ring.
	 */
	xchg(&rb->armed, 0);
	rb->ring(rb);
}

/* --- the host's side, under the hypervisor's tracing lock ----------------- */

void simple_ring_buffer_wait_writer(const struct simple_rb_per_cpu *rb)
{
	/* [see_done] pairs with [done]: what the writer did */
	while (load_sc(&rb->writing))
		cpu_relax(rb);
}

/* Returns whether tracing was on. Waits for an event to end. */
static bool simple_rb_disable(struct simple_rb_per_cpu *rb)
{
	if (!READ_ONCE(rb->enabled))
		return false;
	/* [disable] before [see_done]; against [start_locked] before [see_enabled] */
	store_sc(&rb->enabled, 0);
	/* [membarrier] pairs with [start] */
	if (rb->membarrier)
		rb->membarrier();
	simple_ring_buffer_wait_writer(rb);
	return true;
}

static void simple_rb_enable(struct simple_rb_per_cpu *rb)
{
	/* [enable] pairs with [see_enabled]: the pages and the counters */
	smp_store_release(&rb->enabled, 1);
}

void simple_ring_buffer_arm(struct simple_rb_per_cpu *rb)
{
	/* [arm] against [disarm]; before [membarrier_arm] */
	xchg(&rb->armed, 1);
}

void simple_ring_buffer_disarm(struct simple_rb_per_cpu *rb)
{
	xchg(&rb->armed, 0);
}

/*
 * The head is the page that a link with HEAD leads to. Each page is looked at
 * twice at most, since the head can move on while we look.
 */
static int find_head(struct simple_rb_per_cpu *rb, u64 *head_link)
{
	u32 page = rb->head;
	u32 steps = 2 * rb->nr_pages;
	u32 looks = MOVING_LOOKS;

	while (steps && looks) {
		/* [find_head] pairs with [new_head] and [old_head] */
		u64 link = smp_load_acquire(&rb->bpages[rb->bpages[page].prev].next);

		switch (link_flag(link)) {
		case LINK_HEAD:
			*head_link = link;
			return 0;
		case LINK_HEAD_MOVING:
			looks--;
			cpu_relax(rb);
			break;
		default:
			steps--;
			page = link_page(READ_ONCE(rb->bpages[page].next));
		}
	}
	return -EBUSY;
}

/*
 * before:  last ─HEAD▶ head ──▶ next          reader outside
 * after:   last ──▶ reader ─HEAD▶ next        head outside
 *
 * False: the writer moved the head meanwhile.
 */
static bool put_reader_in_place(struct simple_rb_per_cpu *rb, u64 head_link, u64 *overrun)
{
	struct simple_buffer_page *reader = &rb->bpages[rb->reader];
	u32 head = link_page(head_link);
	u32 last = rb->bpages[head].prev;
	u32 next = link_page(READ_ONCE(rb->bpages[head].next));

	WRITE_ONCE(reader->next, make_head_link(next, head_link >> LINK_TAG_SHIFT));
	reader->prev = last;
	/* after [find_head]; unchanged if the exchange succeeds (the tag) */
	*overrun = READ_ONCE(rb->overrun);

	/* [put_reader] pairs with [tail_next] and [lost_next]: our use of the reader page */
	if (!try_cmpxchg(&rb->bpages[last].next, &head_link, make_link(rb->reader, LINK_NORMAL)))
		return false;
	rb->bpages[next].prev = rb->reader;
	rb->head = next;
	rb->reader = head;
	return true;
}

static void publish_reader(struct simple_rb_per_cpu *rb, u64 overrun)
{
	rb->lost_events = overrun - rb->last_overrun;
	rb->last_overrun = overrun;
	rb->taken++;
	WRITE_ONCE(rb->meta->reader.lost_events, rb->lost_events);
	WRITE_ONCE(rb->meta->reader.id, rb->reader);
}

int simple_ring_buffer_swap_reader_page(struct simple_rb_per_cpu *rb)
{
	u64 overrun, head_link;

	if (!simple_rb_loaded(rb))
		return -ENODEV;

	for (u32 retry = 0; retry < RB_SWAP_RETRIES; retry++) {
		int ret = find_head(rb, &head_link);

		if (ret)
			return ret;
		if (put_reader_in_place(rb, head_link, &overrun)) {
			publish_reader(rb, overrun);
			return 0;
		}
	}
	return -EBUSY;
}

/* The page taken last stays with the host; what was a spare goes into the ring next. */
static void set_aside(struct simple_rb_per_cpu *rb, u32 spare)
{
	u32 page = rb->reader;

	rb->reader = rb->spares[spare];
	rb->spares[spare] = page;
}

static bool reader_is_tail(const struct simple_rb_per_cpu *rb)
{
	u64 touched;

	return rb_pages_behind(rb->taken, &rb->pages_lost, &rb->pages_touched, &touched) <= 0;
}

int simple_ring_buffer_swap_reader_pages(struct simple_rb_per_cpu *rb, u32 max,
					 struct rb_taken *taken)
{
	u32 most = max <= rb->nr_spares ? max : 1 + rb->nr_spares;
	u32 nr = 0;
	int ret;

	for (;;) {
		ret = simple_ring_buffer_swap_reader_page(rb);
		if (ret)
			break;
		WRITE_ONCE(taken->pages[nr].lost_events, rb->lost_events);
		WRITE_ONCE(taken->pages[nr].id, rb->reader);
		if (++nr >= most || reader_is_tail(rb))
			break;
		set_aside(rb, nr - 1);
	}
	if (ret && nr)
		set_aside(rb, nr - 1); /* back: the host knows nothing of it */
	WRITE_ONCE(taken->nr, nr);
	return nr ? 0 : ret;
}

void simple_ring_buffer_counters(const struct simple_rb_per_cpu *rb,
				 struct simple_rb_counters *now, struct simple_rb_counters *ever)
{
	*now = (struct simple_rb_counters){
		.overrun = READ_ONCE(rb->overrun),
		.entries = READ_ONCE(rb->entries),
		.dropped = READ_ONCE(rb->dropped),
	};
	*ever = (struct simple_rb_counters){
		.overrun = rb->forgotten.overrun + now->overrun,
		.entries = rb->forgotten.entries + now->entries,
		.dropped = rb->forgotten.dropped + now->dropped,
	};
}

static void reset_counters(struct simple_rb_per_cpu *rb)
{
	struct trace_buffer_meta *meta = rb->meta;

	rb->forgotten.entries += rb->entries;
	rb->forgotten.overrun += rb->overrun;
	rb->forgotten.dropped += rb->dropped;

	rb->write_stamp = 0;
	rb->last_overrun = 0;
	rb->taken = 0;
	rb->entries = 0;
	rb->overrun = 0;
	rb->pages_lost = 0;
	rb->pages_touched = 0;
	rb->dropped = 0;

	WRITE_ONCE(meta->reader.read, 0);
	WRITE_ONCE(meta->reader.lost_events, 0);
	WRITE_ONCE(meta->entries, 0);
	WRITE_ONCE(meta->overrun, 0);
	WRITE_ONCE(meta->read, 0);
	WRITE_ONCE(meta->pages_lost, 0);
	WRITE_ONCE(meta->pages_touched, 0);
	WRITE_ONCE(meta->dropped, 0);
}

/*
 * No events, no counts; the writer begins on page @head. The tags count lost pages: they
 * begin again too, or a tag from before could come a second time.
 */
static void start_over(struct simple_rb_per_cpu *rb, u32 head)
{
	WRITE_ONCE(rb->bpages[rb->bpages[head].prev].next, make_head_link(head, 0));
	for (u32 i = 0; i < rb->nr_pages + rb->nr_spares; i++)
		reset_page(&rb->bpages[i]);
	reset_counters(rb);
	rb->head = head;
	set_tail(rb, head);
}

int simple_ring_buffer_reset(struct simple_rb_per_cpu *rb)
{
	u64 head_link;
	bool enabled;
	int ret;

	if (!simple_rb_loaded(rb))
		return -ENODEV;

	enabled = simple_rb_disable(rb);
	ret = find_head(rb, &head_link);
	if (!ret)
		start_over(rb, link_page(head_link));
	if (enabled)
		simple_rb_enable(rb);
	return ret;
}

int simple_ring_buffer_enable_tracing(struct simple_rb_per_cpu *rb, bool enable)
{
	if (!simple_rb_loaded(rb))
		return -ENODEV;
	if (enable)
		simple_rb_enable(rb);
	else
		simple_rb_disable(rb);
	return 0;
}

/* SPEC B.3: page 0 outside, 1 to nr_pages - 1 in a circle, HEAD on the link to 1. */
static void link_pages(struct simple_buffer_page *bpages, u32 nr_pages)
{
	for (u32 i = 1; i < nr_pages; i++) {
		u32 next = i + 1 < nr_pages ? i + 1 : 1;

		bpages[i].next = next == 1 ? make_head_link(next, 0) : make_link(next, LINK_NORMAL);
		bpages[next].prev = i;
	}
	bpages[0].next = make_link(0, LINK_NORMAL);
	bpages[0].prev = 0;
}

static void init_meta(struct trace_buffer_meta *meta, u32 nr_pages)
{
	meta->meta_page_size = RB_PAGE_SIZE;
	meta->meta_struct_len = sizeof(*meta);
	meta->subbuf_size = RB_PAGE_SIZE;
	meta->nr_subbufs = nr_pages;
	WRITE_ONCE(meta->reader.id, 0);
}

int simple_ring_buffer_init(struct simple_rb_per_cpu *rb, struct simple_buffer_page *bpages,
			    u32 nr_pages, struct trace_buffer_meta *meta)
{
	if (simple_rb_loaded(rb))
		return -EBUSY;
	if (nr_pages < RB_MIN_PAGES)
		return -EINVAL;

	link_pages(bpages, nr_pages);
	rb->bpages = bpages;
	rb->meta = meta;
	rb->nr_pages = nr_pages;
	rb->nr_spares = 0;
	rb->reader = 0;
	start_over(rb, 1);
	init_meta(meta, nr_pages);
	return 0;
}

int simple_ring_buffer_add_spares(struct simple_rb_per_cpu *rb, u32 nr)
{
	if (!simple_rb_loaded(rb))
		return -ENODEV;
	if (nr > RB_MAX_TAKEN - 1)
		return -EINVAL;
	rb->nr_spares = nr;
	for (u32 i = 0; i < nr; i++) {
		rb->spares[i] = rb->nr_pages + i;
		reset_page(&rb->bpages[rb->spares[i]]);
	}
	rb->meta->nr_subbufs = rb->nr_pages + nr;
	return 0;
}

void simple_ring_buffer_unload(struct simple_rb_per_cpu *rb)
{
	if (!simple_rb_loaded(rb))
		return;
	simple_rb_disable(rb);
	rb->bpages = NULL;
	rb->meta = NULL;
	rb->nr_pages = 0;
}
