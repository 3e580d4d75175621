// SPDX-License-Identifier: Apache-2.0
/*
 * When the hypervisor is gone: nobody swaps pages any more, and the links between them
 * were private to it. But the pages are there, and time orders them.
 */
#include "reader_internal.h"

static u64 page_time(const struct reader_cpu *cpu, u32 id)
{
	return READ_ONCE(page_of(cpu, id)->time_stamp);
}

static u64 count_events(const struct reader_cpu *cpu, u32 id, u32 offset)
{
	const struct buffer_data_page *page = page_of(cpu, id);
	struct rb_record record = { .next = offset };
	bool broken;
	u32 commit = rb_page_commit(page, &broken);
	u64 nr = 0;

	while (rb_walk_next(page->data, commit, record.next, 0, &record) == RB_WALK_EVENT)
		nr++;
	return nr;
}

/* What is ours already: the page that we read, and those that wait. */
struct own_pages {
	u32 last;
	u64 events; /* unread */
	u64 lost;   /* events between them */
};

static struct own_pages own_pages(const struct reader_cpu *cpu)
{
	const struct rb_taken *list = taken_list(cpu);
	struct own_pages own = { .last = cpu->page };

	own.events = count_events(cpu, cpu->page, cpu->offset);
	for (u32 at = cpu->queue_at; at < cpu->queue_nr; at++) {
		u32 id = READ_ONCE(list->pages[at].id);

		if (id >= cpu->nr_pages)
			continue;
		own.last = id;
		own.events += count_events(cpu, id, 0);
		own.lost += READ_ONCE(list->pages[at].lost_events);
	}
	return own;
}

/*
 * Written after what is ours: a page that we gave back earlier still holds its old events,
 * from before.
 */
static bool is_unread(const struct reader_cpu *cpu, const struct own_pages *own, u32 id)
{
	bool broken;

	return id != own->last && (rb_page_commit(page_of(cpu, id), &broken) || broken) &&
	       page_time(cpu, id) > page_time(cpu, own->last);
}

/* A heap of page ids, the youngest first, below @slot in order already. */
static void sift_page_down(const struct reader_cpu *cpu, u32 *ids, u32 nr, u32 slot)
{
	u32 child;

	for (; (child = 2 * slot + 1) < nr; slot = child) {
		u32 id = ids[slot];

		if (child + 1 < nr && page_time(cpu, ids[child + 1]) > page_time(cpu, ids[child]))
			child++;
		if (page_time(cpu, id) >= page_time(cpu, ids[child]))
			return;
		ids[slot] = ids[child];
		ids[child] = id;
	}
}

/* Heap sort: in place, and never slow, whatever the times are. */
static void sort_by_time(const struct reader_cpu *cpu, u32 *ids, u32 nr)
{
	for (u32 slot = nr / 2; slot > 0; slot--)
		sift_page_down(cpu, ids, nr, slot - 1);
	while (nr > 1) {
		u32 youngest = ids[0];

		ids[0] = ids[--nr];
		ids[nr] = youngest;
		sift_page_down(cpu, ids, nr, 0);
	}
}

/* Overwritten since the last swap. What is missing beyond that was never there. */
static u64 unreported_loss(const struct reader_cpu *cpu, const struct own_pages *own, u64 there)
{
	u64 reported = cpu->lost + own->lost;
	s64 missing = (s64)(READ_ONCE(cpu->meta->entries) - cpu->read - reported - there);
	s64 overwritten = (s64)(READ_ONCE(cpu->meta->overrun) - reported);

	if (missing > overwritten)
		missing = overwritten;
	return missing > 0 ? (u64)missing : 0;
}

void reader_inherit(struct reader *reader, u32 nr, u32 *ids)
{
	struct reader_cpu *cpu = &reader->cpus[nr];
	struct own_pages own = own_pages(cpu);
	u64 there = own.events;
	u32 nr_ids = 0;

	for (u32 id = 0; id < cpu->nr_pages; id++) {
		if (!is_unread(cpu, &own, id))
			continue;
		ids[nr_ids++] = id;
		there += count_events(cpu, id, 0);
	}
	sort_by_time(cpu, ids, nr_ids);
	cpu->heirs = ids;
	cpu->nr_heirs = nr_ids;
	cpu->heir_loss = unreported_loss(cpu, &own, there);
}
