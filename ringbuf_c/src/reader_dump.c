// SPDX-License-Identifier: Apache-2.0
/* What is unread, as text, without consuming it. */
#include "reader_internal.h"

/* --- pages that may be overwritten while we read them ------------------------------------ */

#define UNLIMITED UINT16_MAX

typedef u64 __attribute__((may_alias)) word;

/*
 * The writer begins a page with commit = 0 and pages_touched, and only then writes to it
 * (see move_tail() in ring.c). So who has loaded a byte of its new life, with acquire, sees
 * these, too. Until it has looked, it has bytes of two lives: not for a sanitizer to say.
 */
__attribute__((no_sanitize("thread"))) static void load_words(u8 *to, const u8 *from, u32 length)
{
	for (u32 i = 0; i < length; i += sizeof(word))
		*(word *)(to + i) = smp_load_acquire((const word *)(from + i));
}

/* `commit` of a struct dump_page: what is on the page now. */
static u16 commit_of(const struct buffer_data_page *page)
{
	bool broken;
	u32 commit = rb_page_commit(page, &broken);

	return broken ? DUMP_BROKEN : (u16)commit;
}

static u32 data_length(const struct dump_page *page)
{
	return page->commit == DUMP_BROKEN ? 0 : page->commit;
}

static const struct buffer_data_page *shared_page(const struct dump_cpu *cpu,
						  const struct dump_page *page)
{
	return (const void *)(cpu->pages + (size_t)page->id * RB_PAGE_SIZE);
}

static void copy_page(const struct dump_cpu *cpu, const struct dump_page *page, u8 *to)
{
	struct buffer_data_page *copy = (struct buffer_data_page *)to;

	load_words(copy->data, shared_page(cpu, page)->data, data_length(page));
	copy->time_stamp = page->time_stamp;
	copy->commit = page->commit;
}

/* Whether it has not been begun again: then it has less on it, or a later time. */
static bool still_holds(const struct dump_cpu *cpu, const struct dump_page *page)
{
	const struct buffer_data_page *shared = shared_page(cpu, page);

	return commit_of(shared) >= page->commit &&
	       READ_ONCE(shared->time_stamp) == page->time_stamp;
}

/* --- the index ----------------------------------------------------------------------------- */

/* Events from @offset on; what is broken is one, as it is shown as one line. */
static u16 count_entries(const struct buffer_data_page *page, const struct dump_page *entry,
			 u32 offset)
{
	struct rb_record record = { .next = offset };
	enum rb_walk walk;
	u32 nr = 0; /* at most an event for each 8 bytes */

	if (entry->commit == DUMP_BROKEN)
		return offset <= RB_PAGE_CAPACITY;
	while ((walk = rb_walk_next(page->data, entry->commit, record.next, 0, &record)) ==
	       RB_WALK_EVENT)
		nr++;
	return (u16)(nr + (walk == RB_WALK_BROKEN));
}

static void add_page(struct dump_cpu *cpu, u32 id)
{
	cpu->index[cpu->nr++] = (struct dump_page){ .id = id, .commit = UNLIMITED };
}

/* A page of the host's. Nobody overwrites it while we have it; later, somebody may. */
static void add_own_page(struct dump_cpu *cpu, const struct reader_cpu *from, u32 id, u32 offset)
{
	const struct buffer_data_page *shared = page_of(from, id);
	struct dump_page *page = &cpu->index[cpu->nr];

	add_page(cpu, id);
	page->commit = commit_of(shared);
	page->time_stamp = READ_ONCE(shared->time_stamp);
	page->entries = count_entries(shared, page, offset);
	cpu->own_events += page->entries;
}

/* The page that is being read, and those that wait. */
static void add_own_pages(struct dump_cpu *cpu, const struct reader_cpu *from)
{
	cpu->offset = from->offset;
	cpu->time_stamp = from->time_stamp;
	add_own_page(cpu, from, from->page, from->offset);
	for (u32 at = from->queue_at; at < from->queue_nr; at++) {
		u32 id = READ_ONCE(taken_list(from)->pages[at].id);

		if (id < from->nr_pages)
			add_own_page(cpu, from, id, 0);
	}
	cpu->ring = cpu->first = cpu->nr;
}

/* The pages of the ring. What the tail gets from now on is not a part of the dump. */
static void add_ring_pages(struct dump_cpu *cpu, const struct reader_cpu *from)
{
	struct unread_pages unread = find_unread_pages(from);
	struct dump_page *last;

	cpu->touched = unread.touched;
	cpu->margin = from->nr_pages - from->nr_spares - unread.nr;
	while (unread.nr)
		add_page(cpu, next_unread_page(from, &unread));
	last = &cpu->index[cpu->nr - 1];
	if (cpu->nr > cpu->ring)
		last->commit = commit_of(shared_page(cpu, last));
}

static void begin_cpu(struct dump_cpu *cpu, const struct reader_cpu *from)
{
	*cpu = (struct dump_cpu){
		.meta = from->meta,
		.pages = from->pages,
		.index = cpu->index,
	};
	add_own_pages(cpu, from);
	add_ring_pages(cpu, from);
}

void dump_begin(struct dump *dump, const struct reader *reader)
{
	dump->events = reader->events;
	dump->filters = reader->filters;
	for (u32 nr = 0; nr < dump->nr_cpus; nr++) {
		struct dump_cpu *cpu = &dump->cpus[nr];

		if (cpu->index && reader->cpus[nr].meta)
			begin_cpu(cpu, &reader->cpus[nr]);
		else
			*cpu = (struct dump_cpu){ .index = cpu->index };
	}
}

/*
 * Whether page number @nr of the index, of the ring, has been what it was until now. A page
 * is begun again when the tail has come round to it; if a swap takes it out of the way, not
 * before. After the loads of what is on it.
 */
static bool not_begun_again(const struct dump_cpu *cpu, u32 nr)
{
	u64 begun = READ_ONCE(cpu->meta->pages_touched) - cpu->touched;

	return begun < (u64)cpu->margin + (nr - cpu->ring);
}

static void measure_page(const struct dump_cpu *cpu, struct dump_page *page, u8 *scratch)
{
	const struct buffer_data_page *shared = shared_page(cpu, page);
	u16 commit = commit_of(shared);

	page->commit = commit < page->commit ? commit : page->commit;
	/* a load with acquire, so that what is looked at next is not looked at before */
	page->time_stamp = smp_load_acquire(&shared->time_stamp);
	copy_page(cpu, page, scratch);
	page->entries = count_entries((const void *)scratch, page, 0);
}

static void measure_cpu(struct dump_cpu *cpu, u8 *scratch)
{
	cpu->events = cpu->own_events;
	for (u32 nr = cpu->ring; nr < cpu->nr; nr++) {
		measure_page(cpu, &cpu->index[nr], scratch);
		cpu->events += cpu->index[nr].entries;
		if (not_begun_again(cpu, nr))
			continue;
		cpu->first = nr + 1;
		cpu->events = cpu->own_events;
	}
}

void dump_measure(struct dump *dump)
{
	for (u32 nr = 0; nr < dump->nr_cpus; nr++) {
		if (dump->cpus[nr].meta)
			measure_cpu(&dump->cpus[nr], dump->scratch);
	}
}

/* --- a source of pages for a reader ---------------------------------------------------------- */

/* The next one that is shown. NULL: that was all. */
static const struct dump_page *next_indexed(struct dump_source *source)
{
	const struct dump_cpu *cpu = source->cpu;

	while (source->next < cpu->nr) {
		const struct dump_page *page = &cpu->index[source->next];

		source->next = source->next + 1 == cpu->ring ? cpu->first : source->next + 1;
		if (page->entries)
			return page;
	}
	return NULL;
}

static void forget_copy(struct dump_source *source)
{
	((struct buffer_data_page *)source->copy)->commit = 0;
}

static bool copy_whole(struct dump_source *source, const struct dump_page *page)
{
	if (!still_holds(source->cpu, page))
		return false;
	copy_page(source->cpu, page, source->copy);
	if (still_holds(source->cpu, page))
		return true;
	forget_copy(source); /* of two lives: nobody shall look at it */
	return false;
}

bool take_dumped_page(struct reader_cpu *cpu)
{
	struct dump_source *source = cpu->dump;
	const struct dump_page *page;
	u64 lost = 0;

	while ((page = next_indexed(source))) {
		if (!copy_whole(source, page)) {
			lost += page->entries;
			continue;
		}
		source->id = page->id;
		take_page(cpu, 0, lost);
		if (page == source->cpu->index) {
			cpu->offset = source->cpu->offset;
			cpu->time_stamp = source->cpu->time_stamp;
		}
		return true;
	}
	/* Not counted as lost yet: or the batch would be over, and nobody be told. */
	cpu->unreported += lost;
	return false;
}

/* --- the text ------------------------------------------------------------------------------------- */

static void rewind_cpu(struct reader_cpu *cpu, struct dump_source *source,
		       const struct dump_cpu *index)
{
	source->cpu = index;
	source->next = 0;
	forget_copy(source);
	*cpu = (struct reader_cpu){
		.meta = index->meta,
		.pages = source->copy,
		.nr_pages = 1,
		.entries = index->events,
		.dump = source,
	};
}

void dump_rewind(struct dump_cursor *cursor)
{
	const struct dump *dump = cursor->dump;

	for (u32 nr = 0; nr < dump->nr_cpus; nr++) {
		if (dump->cpus[nr].meta)
			rewind_cpu(&cursor->cpus[nr], &cursor->sources[nr], &dump->cpus[nr]);
		else
			cursor->cpus[nr].meta = NULL;
	}
	cursor->reader = (struct reader){
		.nr_cpus = dump->nr_cpus,
		.cpus = cursor->cpus,
		.events = dump->events,
		.filters = dump->filters,
	};
	cursor->carry.offset = 0;
	cursor->carry.length = 0;
	cursor->at = 0;
}

/* The next @size bytes, or what there is. */
static u32 read_on(struct dump_cursor *cursor, char *out, u32 size)
{
	u32 done = 0, length;

	while (done < size) {
		length = text_of_batch(&cursor->reader, READER_ALL_CPUS, &cursor->carry,
				       out + done, size - done);
		if (!length && !reader_unfinished(&cursor->reader))
			break;
		done += length;
	}
	cursor->at += done;
	return done;
}

u32 dump_read(struct dump_cursor *cursor, u64 offset, char *out, u32 room, u32 size)
{
	if (offset < cursor->at)
		dump_rewind(cursor);
	while (cursor->at < offset) {
		u64 skip = offset - cursor->at;

		if (!read_on(cursor, out, skip < room ? (u32)skip : room))
			return 0;
	}
	return read_on(cursor, out, size);
}

u64 dump_length(struct dump_cursor *cursor, char *out, u32 room)
{
	dump_rewind(cursor);
	while (read_on(cursor, out, room))
		;
	return cursor->at;
}
