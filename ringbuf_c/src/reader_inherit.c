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

/*
 * Written after what we have read: a page that we gave back earlier still holds its old
 * events, from before the page that we own.
 */
static bool is_unread(const struct reader_cpu *cpu, u32 id)
{
	bool broken;

	return id != cpu->page && (rb_page_commit(page_of(cpu, id), &broken) || broken) &&
	       page_time(cpu, id) > page_time(cpu, cpu->page);
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
static u64 unreported_loss(const struct reader_cpu *cpu, u64 there)
{
	u64 accounted = cpu->read + cpu->lost;
	s64 missing = (s64)(READ_ONCE(cpu->meta->entries) - accounted - there);
	s64 overwritten = (s64)(READ_ONCE(cpu->meta->overrun) - cpu->lost);

	if (missing > overwritten)
		missing = overwritten;
	return missing > 0 ? (u64)missing : 0;
}

void reader_inherit(struct reader *reader, u32 nr, u32 *ids)
{
	struct reader_cpu *cpu = &reader->cpus[nr];
	u64 there = count_events(cpu, cpu->page, cpu->offset);
	u32 nr_ids = 0;

	for (u32 id = 0; id < cpu->nr_pages; id++) {
		if (!is_unread(cpu, id))
			continue;
		ids[nr_ids++] = id;
		there += count_events(cpu, id, 0);
	}
	sort_by_time(cpu, ids, nr_ids);
	cpu->heirs = ids;
	cpu->nr_heirs = nr_ids;
	cpu->heir_loss = unreported_loss(cpu, there);
}
