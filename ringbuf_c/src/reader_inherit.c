// SPDX-License-Identifier: Apache-2.0
/*
 * When the hypervisor is gone: nobody swaps pages any more. But the pages are there, and we
 * know their order.
 */
#include "reader_internal.h"

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
	u64 events; /* unread */
	u64 lost;   /* events between them */
};

static struct own_pages own_pages(const struct reader_cpu *cpu)
{
	const struct rb_taken *list = taken_list(cpu);
	struct own_pages own = { .events = count_events(cpu, cpu->page, cpu->offset) };

	for (u32 at = cpu->queue_at; at < cpu->queue_nr; at++) {
		u32 id = READ_ONCE(list->pages[at].id);

		if (id >= cpu->nr_pages)
			continue;
		own.events += count_events(cpu, id, 0);
		own.lost += READ_ONCE(list->pages[at].lost_events);
	}
	return own;
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
	struct unread_pages unread = find_unread_pages(cpu);
	struct own_pages own = own_pages(cpu);
	u64 there = own.events;
	u32 nr_ids = 0;

	while (unread.nr) {
		u32 id = next_unread_page(cpu, &unread);

		ids[nr_ids++] = id;
		there += count_events(cpu, id, 0);
	}
	cpu->heirs = ids;
	cpu->nr_heirs = nr_ids;
	cpu->heir_loss = unreported_loss(cpu, &own, there);
}
