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
	struct unread_pages unread = find_unread_pages(cpu);
	u64 there = count_events(cpu, cpu->page, cpu->offset);
	u32 nr_ids = 0;

	while (unread.nr) {
		u32 id = next_unread_page(cpu, &unread);

		ids[nr_ids++] = id;
		there += count_events(cpu, id, 0);
	}
	cpu->heirs = ids;
	cpu->nr_heirs = nr_ids;
	cpu->heir_loss = unreported_loss(cpu, there);
}
