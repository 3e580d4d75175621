// SPDX-License-Identifier: Apache-2.0
#include "reader_internal.h"

/* --- one CPU ------------------------------------------------------------------ */

static void poll_cpu(struct reader_cpu *cpu)
{
	/* [see_entries] pairs with [entries]: the commits */
	cpu->entries = smp_load_acquire(&cpu->meta->entries);
	cpu->overrun = READ_ONCE(cpu->meta->overrun);
}

static u64 cpu_unread(const struct reader_cpu *cpu)
{
	s64 unread = (s64)(cpu->entries - cpu->overrun - cpu->read);

	/* Below zero: a page has shown more than the counters polled before. */
	return unread > 0 ? (u64)unread : 0;
}

/* @lost as the swap says, but not more than was ever written and is not accounted for. */
static u64 newly_lost(const struct reader_cpu *cpu, u64 lost)
{
	s64 unseen = (s64)(READ_ONCE(cpu->meta->entries) - cpu->read - cpu->lost);

	if (unseen < 0)
		return 0;
	return lost < (u64)unseen ? lost : (u64)unseen;
}

static bool owns_tail(const struct reader_cpu *cpu)
{
	u64 touched;

	return pages_behind_ours(cpu, &touched) <= 0;
}

/* The next page that a hypervisor has left behind. */
static bool inherit_page(struct reader_cpu *cpu)
{
	cpu->swap_error = -ENODEV;
	if (!cpu->nr_heirs)
		return false;
	take_page(cpu, *cpu->heirs++, cpu->heir_loss);
	cpu->taken++;
	cpu->nr_heirs--;
	cpu->heir_loss = 0;
	return true;
}

static bool adopt_page(struct reader_cpu *cpu, u32 id, u64 lost)
{
	cpu->swap_error = id < cpu->nr_pages ? 0 : -ERANGE;
	if (cpu->swap_error)
		return false;
	take_page(cpu, id, newly_lost(cpu, lost));
	return true;
}

/* One of the pages that the last swap gave and that are still to be read. */
static bool queued_page(struct reader_cpu *cpu)
{
	const struct rb_taken *list = taken_list(cpu);
	u32 at = cpu->queue_at++;

	return adopt_page(cpu, READ_ONCE(list->pages[at].id),
			  READ_ONCE(list->pages[at].lost_events));
}

static bool swap_one(struct reader_cpu *cpu, u64 lost_before)
{
	u32 id = READ_ONCE(cpu->meta->reader.id);

	trade_page(cpu, id, lost_before);
	return adopt_page(cpu, id, READ_ONCE(cpu->meta->reader.lost_events));
}

static bool swap_some(struct reader_cpu *cpu, u32 max, u64 lost_before)
{
	const struct rb_taken *list = taken_list(cpu);

	cpu->queue_at = 0;
	cpu->queue_nr = min_u32(READ_ONCE(list->nr), min_u32(max, 1 + cpu->nr_spares));
	for (u32 at = 0; at < cpu->queue_nr; at++) {
		if (at)
			set_aside(cpu, at - 1);
		trade_page(cpu, READ_ONCE(list->pages[at].id), lost_before);
	}
	return cpu->queue_nr && queued_page(cpu);
}

/* Ask for pages. False: there is none to be had now. */
static bool swap_pages(struct reader *reader, u32 nr)
{
	bool one = reader->max_taken <= 1;
	struct hvc_regs regs = {
		.x0 = one ? HVC_TRACING_SWAP_READER : HVC_TRACING_SWAP_READERS,
		.x1 = nr,
		.x2 = reader->max_taken,
	};
	struct reader_cpu *cpu = &reader->cpus[nr];
	u64 lost_before = smp_load_acquire(&cpu->meta->pages_lost);

	reader->conduit->hvc(reader->conduit, reader->hvc_cpu, &regs);
	cpu->swap_error = hvc_result(&regs);
	if (cpu->swap_error)
		return false;
	return one ? swap_one(cpu, lost_before) : swap_some(cpu, reader->max_taken, lost_before);
}

/* Go on with the next page. False: there is none now. */
static bool next_page(struct reader *reader, u32 nr)
{
	struct reader_cpu *cpu = &reader->cpus[nr];

	if (cpu->dump)
		return take_dumped_page(cpu);
	if (pages_queued(cpu))
		return queued_page(cpu);
	return cpu->heirs ? inherit_page(cpu) : swap_pages(reader, nr);
}

/* Look for an event on the page that we own. */
static enum reader_next look_on_page(struct reader_cpu *cpu)
{
	const struct buffer_data_page *page = reader_page(cpu);
	bool broken;
	u32 commit = rb_page_commit(page, &broken);

	if (broken && cpu->offset <= RB_PAGE_CAPACITY)
		return READER_BROKEN;
	cpu->commit = commit;
	if (cpu->offset >= commit)
		return READER_NONE;
	if (!cpu->offset)
		cpu->time_stamp = READ_ONCE(page->time_stamp);

	switch (rb_walk_next(page->data, commit, cpu->offset, cpu->time_stamp, &cpu->record)) {
	case RB_WALK_EVENT:
		return READER_EVENT;
	case RB_WALK_BROKEN:
		return READER_BROKEN;
	default:
		cpu->offset = commit;
		return READER_NONE;
	}
}

/*
 * Events are promised, and there is no page that could hold them: they were on a broken
 * page, or the writer is broken. Count them as read, or we would ask for ever.
 */
static void give_up_promised(struct reader_cpu *cpu)
{
	u64 promised = (u64)left_of_batch(cpu);

	cpu->skipped += promised;
	cpu->read += promised;
}

static enum reader_next find_next(struct reader *reader, u32 nr)
{
	struct reader_cpu *cpu = &reader->cpus[nr];

	cpu->next = look_on_page(cpu);
	if (cpu->next != READER_NONE)
		return cpu->next;
	if (!asks_nobody(cpu) && !pages_queued(cpu) && owns_tail(cpu)) {
		/* A swap would put it back into the ring, with all that we have read. */
		give_up_promised(cpu);
		return READER_NONE;
	}
	if (!next_page(reader, nr)) {
		if (cpu->dump && cpu->unreported)
			return cpu->next = READER_LOST;
		if (asks_nobody(cpu))
			give_up_promised(cpu);
		return READER_NONE;
	}

	cpu->next = look_on_page(cpu);
	/* The swap may have shown that the batch was overwritten since: not our turn. */
	if (!in_batch(cpu))
		return READER_NONE;
	if (cpu->next == READER_NONE)
		give_up_promised(cpu);
	return cpu->next;
}

/* Consume events that do not match, as far as the call may. */
enum reader_next __peek_cpu(struct reader *reader, u32 nr)
{
	struct reader_cpu *cpu = &reader->cpus[nr];

	while (find_next(reader, nr) == READER_EVENT && !matches(reader, nr, &cpu->record)) {
		cpu->next = READER_NONE;
		if (reader_unfinished(reader))
			return READER_NONE;
		reader->passed_over++;
		cpu->filtered++;
		consume(cpu);
		if (!in_batch(cpu))
			return READER_NONE;
	}
	return cpu->next;
}

void skip_page(struct reader_cpu *cpu)
{
	/* Behind any commit: nothing more is read from this page. */
	cpu->offset = RB_PAGE_CAPACITY + 1;
	cpu->broken_pages++;
	cpu->gap = true;
	cpu->next = READER_NONE;
}

/* --- all CPUs ------------------------------------------------------------------ */

bool reader_poll(struct reader *reader)
{
	bool unread = false;

	for_each_cpu(reader, nr, READER_ALL_CPUS) {
		poll_cpu(&reader->cpus[nr]);
		unread |= cpu_unread(&reader->cpus[nr]) > 0;
	}
	return unread;
}

u64 reader_unread(const struct reader *reader, u32 wanted)
{
	u64 unread = 0;

	for_each_cpu(reader, nr, wanted)
		unread += cpu_unread(&reader->cpus[nr]);
	return unread;
}

void reader_set_filters(struct reader *reader, struct filter_table filters)
{
	reader->filters = filters;
	/* What has been found, and not been shown yet, is looked at again. */
	for_each_cpu(reader, nr, READER_ALL_CPUS)
		reader->cpus[nr].next = READER_NONE;
}

bool reader_ready(struct reader *reader, u32 wanted)
{
	bool ready = false;

	reader->passed_over = 0;
	reader_poll(reader);
	for_each_cpu(reader, nr, wanted)
		ready |= peek_cpu(reader, nr) != READER_NONE;
	return ready || reader_unfinished(reader);
}

void reader_abandon(struct reader *reader, struct reader_carry *carry)
{
	struct reader_cpu *cpu = &reader->cpus[carry->cpu];

	if (carry->offset == carry->length)
		return;
	cpu->abandoned += carry->events;
	cpu->unreported += carry->events;
	if (carry->offset < carry->loss_end)
		cpu->unreported += carry->lost;
	cpu->gap |= carry->gap;
	carry->offset = carry->length;
}

/* --- the rest ------------------------------------------------------------------------ */

void reader_reset(struct reader *reader, u32 nr)
{
	struct reader_cpu *cpu = &reader->cpus[nr];

	*cpu = (struct reader_cpu){
		.meta = cpu->meta,
		.pages = cpu->pages,
		.nr_pages = cpu->nr_pages,
		.page = cpu->last,
		.last = cpu->last,
		.nr_spares = cpu->nr_spares,
		.spares = cpu->spares,
		.place_of = cpu->place_of,
		.page_at = cpu->page_at,
		.astray = true,
	};
}

/* A field that not every producer has. */
static u64 dropped_events(const struct trace_buffer_meta *meta)
{
	u32 need = offsetof(struct trace_buffer_meta, dropped) + sizeof(meta->dropped);

	return READ_ONCE(meta->meta_struct_len) >= need ? READ_ONCE(meta->dropped) : 0;
}

void reader_stats(const struct reader *reader, u32 nr, struct reader_stats *stats)
{
	const struct reader_cpu *cpu = &reader->cpus[nr];

	*stats = (struct reader_stats){ 0 };
	if (!cpu->meta)
		return;
	*stats = (struct reader_stats){
		.entries = cpu->entries,
		.overrun = cpu->overrun,
		.read = cpu->read,
		.unread = cpu_unread(cpu),
		.lost = cpu->lost,
		.skipped = cpu->skipped,
		.filtered = cpu->filtered,
		.abandoned = cpu->abandoned,
		.unreported = cpu->unreported,
		.broken_pages = cpu->broken_pages,
		.pages_lost = READ_ONCE(cpu->meta->pages_lost),
		.pages_touched = READ_ONCE(cpu->meta->pages_touched),
		.dropped = dropped_events(cpu->meta),
		.swap_error = cpu->swap_error,
	};
}
