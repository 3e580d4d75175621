// SPDX-License-Identifier: Apache-2.0
/*
 * The order of the pages. The links between them are private to the hypervisor, but known
 * where they begin, and each swap changes them in one way:
 *
 *     place        0     1     2     ...     nr_pages - 2        a circle
 *     page         1     2     3             nr_pages - 1        at load; 0 is the reader's
 *     after a swap that gave page 2:
 *     page         1     0     3             nr_pages - 1        2 is the reader's
 *
 * (With spares, there are as many places fewer; and a swap of several is as many swaps, each
 * with another page of the reader's in exchange.)
 *
 * The tail goes from place to place, one for each page that is begun, whichever page is there:
 * so its place follows from pages_touched. And how many pages before it are unread follows
 * from the counters, without a look at any page.
 *
 * Only a reset begins at a place that is not known: there the head was. The next swap tells,
 * if no page is lost meanwhile. Until then, the times of the pages do.
 */
#include "reader_internal.h"

static u32 nr_places(const struct reader_cpu *cpu)
{
	return cpu->nr_pages - cpu->nr_spares - 1;
}

void reader_keep_order(struct reader *reader, u32 nr, u32 *room)
{
	struct reader_cpu *cpu = &reader->cpus[nr];

	cpu->place_of = room;
	cpu->page_at = room + cpu->nr_pages;
	cpu->spares = cpu->page_at + cpu->nr_pages;
	for (u32 id = 0; id < cpu->nr_pages; id++)
		cpu->place_of[id] = 0; /* nowhere */
	for (u32 i = 0; i < cpu->nr_spares; i++)
		cpu->spares[i] = cpu->nr_pages - cpu->nr_spares + i;
	for (u32 place = 0; place < nr_places(cpu); place++) {
		cpu->page_at[place] = place + 1;
		cpu->place_of[place + 1] = place;
	}
}

/* The place @steps before @place. */
static u32 place_before(const struct reader_cpu *cpu, u32 place, u64 steps)
{
	u32 back = (u32)(steps % nr_places(cpu));

	return place >= back ? place - back : place + (nr_places(cpu) - back);
}

/* The page that we took last goes to where @id, which we take now, has been. */
static void trade_places(struct reader_cpu *cpu, u32 id, u64 lost_before)
{
	u32 place = cpu->place_of[id];

	if (cpu->astray && READ_ONCE(cpu->meta->pages_lost) == lost_before) {
		cpu->first_place = place_before(cpu, place, cpu->taken + lost_before);
		cpu->astray = false;
	}
	cpu->page_at[place] = cpu->last;
	cpu->place_of[cpu->last] = place;
}

void trade_page(struct reader_cpu *cpu, u32 id, u64 lost_before)
{
	if (id >= cpu->nr_pages)
		return; /* nobody gets to see it */
	if (cpu->page_at && id != cpu->last)
		trade_places(cpu, id, lost_before);
	cpu->taken++;
	cpu->last = id;
}

void set_aside(struct reader_cpu *cpu, u32 spare)
{
	u32 page = cpu->last;

	if (!cpu->spares)
		return;
	cpu->last = cpu->spares[spare];
	cpu->spares[spare] = page;
}

static u32 next_place(const struct reader_cpu *cpu, u32 place)
{
	return place + 1 < nr_places(cpu) ? place + 1 : 0;
}

static bool is_empty(const struct reader_cpu *cpu, u32 place)
{
	/* after a reset, what has not been begun since is */
	return !READ_ONCE(page_of(cpu, cpu->page_at[place])->commit);
}

static u64 place_time(const struct reader_cpu *cpu, u32 place)
{
	return READ_ONCE(page_of(cpu, cpu->page_at[place])->time_stamp);
}

/* Of pages of the same time, the one that no such page follows. */
static bool is_newer(const struct reader_cpu *cpu, u32 place, u32 than)
{
	u32 next = next_place(cpu, place);
	u64 time = place_time(cpu, place);

	if (is_empty(cpu, place))
		return false;
	if (is_empty(cpu, than) || time != place_time(cpu, than))
		return is_empty(cpu, than) || time > place_time(cpu, than);
	return is_empty(cpu, next) || place_time(cpu, next) != time;
}

static u32 newest_place(const struct reader_cpu *cpu)
{
	u32 newest = 0;

	for (u32 place = 1; place < nr_places(cpu); place++) {
		if (is_newer(cpu, place, newest))
			newest = place;
	}
	return newest;
}

static u32 tail_place(const struct reader_cpu *cpu, u64 touched)
{
	if (cpu->astray)
		return newest_place(cpu);
	return (u32)((cpu->first_place + touched % nr_places(cpu)) % nr_places(cpu));
}

struct unread_pages find_unread_pages(const struct reader_cpu *cpu)
{
	struct unread_pages unread = { 0 };
	s64 nr = pages_behind_ours(cpu, &unread.touched);

	if (!cpu->page_at || nr <= 0)
		return unread;
	/* More: some were lost between our looks at the two counters. */
	unread.nr = nr < nr_places(cpu) ? (u32)nr : nr_places(cpu);
	unread.place = place_before(cpu, tail_place(cpu, unread.touched), unread.nr - 1);
	return unread;
}

u32 next_unread_page(const struct reader_cpu *cpu, struct unread_pages *unread)
{
	u32 id = cpu->page_at[unread->place];

	unread->place = next_place(cpu, unread->place);
	unread->nr--;
	return id;
}
