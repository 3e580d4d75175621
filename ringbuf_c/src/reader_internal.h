/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the reader share: one CPU (reader.c), the order of its pages
 * (reader_order.c), the merge (turns.c), text (reader_text.c), page images (reader_raw.c) and
 * dumps (reader_dump.c).
 */
#ifndef RINGBUF_C_READER_INTERNAL_H
#define RINGBUF_C_READER_INTERNAL_H

#include "ringbuf_c/dump.h"

/* --- reader.c: one CPU ------------------------------------------------------------- */

/*
 * What is left of the batch: events that the last poll knew of. The next event is
 * number read + lost.
 */
static inline s64 left_of_batch(const struct reader_cpu *cpu)
{
	return (s64)(cpu->entries - cpu->read - cpu->lost);
}

static inline const struct buffer_data_page *page_of(const struct reader_cpu *cpu, u32 id)
{
	return (const struct buffer_data_page *)(cpu->pages + (size_t)id * RB_PAGE_SIZE);
}

/* The page that we own. */
static inline const struct buffer_data_page *reader_page(const struct reader_cpu *cpu)
{
	return page_of(cpu, cpu->page);
}

/* The hypervisor stays out of the list until we call again; and if not, it is only wrong. */
static inline const struct rb_taken *taken_list(const struct reader_cpu *cpu)
{
	return (const void *)((const u8 *)cpu->meta + RB_TAKEN_OFFSET);
}

/* Whether we have more pages than the one that we are reading. */
static inline bool pages_queued(const struct reader_cpu *cpu)
{
	return cpu->queue_at < cpu->queue_nr;
}

static inline bool in_batch(const struct reader_cpu *cpu)
{
	return left_of_batch(cpu) > 0;
}

/* How many pages have been begun behind the last one that we took. */
static inline s64 pages_behind_ours(const struct reader_cpu *cpu, u64 *touched)
{
	return rb_pages_behind(cpu->taken, &cpu->meta->pages_lost, &cpu->meta->pages_touched,
			       touched);
}

/* Go on with page @id; @lost events were overwritten before it. */
static inline void take_page(struct reader_cpu *cpu, u32 id, u64 lost)
{
	cpu->page = id;
	cpu->offset = 0;
	cpu->lost += lost;
	cpu->unreported += lost;
}

/* The id of the page that we read, which a dump has a copy of. */
static inline u32 page_id(const struct reader_cpu *cpu)
{
	return cpu->dump ? cpu->dump->id : cpu->page;
}

/* Nobody is asked for pages, and what has been promised and is not there will never be. */
static inline bool asks_nobody(const struct reader_cpu *cpu)
{
	return cpu->heirs || cpu->dump;
}

/* Whether the event is to be shown. */
static inline bool matches(const struct reader *reader, u32 nr, const struct rb_record *record)
{
	if (likely(record->id >= reader->filters.nr))
		return true;
	return filter_match(&reader->filters.filters[record->id], record->payload, record->length,
			    nr);
}

static inline void consume(struct reader_cpu *cpu)
{
	cpu->offset = cpu->record.next;
	cpu->time_stamp = cpu->record.time_stamp;
	cpu->read++;
	cpu->next = READER_NONE;
}

/* peek_cpu() when it has not been looked for yet. */
enum reader_next __peek_cpu(struct reader *reader, u32 nr);

/* The next event of a CPU, if the batch has one. Swaps pages where needed. */
static inline enum reader_next peek_cpu(struct reader *reader, u32 nr)
{
	struct reader_cpu *cpu = &reader->cpus[nr];

	if (!in_batch(cpu))
		return READER_NONE;
	return cpu->next != READER_NONE ? cpu->next : __peek_cpu(reader, nr);
}

/* Read nothing more of the page that we own. */
void skip_page(struct reader_cpu *cpu);

/* Whether the CPU is in the buffer, and one of those asked for. */
static inline bool selected(const struct reader *reader, u32 nr, u32 wanted)
{
	return (wanted == READER_ALL_CPUS || wanted == nr) && reader->cpus[nr].meta;
}

#define for_each_cpu(reader, nr, wanted)               \
	for (u32 nr = 0; nr < (reader)->nr_cpus; nr++) \
		if (selected(reader, nr, wanted))

/* --- reader_order.c: the order of the pages ------------------------------------------- */

/*
 * A swap has given page @id for the one that we took last; @lost_before: pages_lost before
 * the swap, loaded with acquire.
 */
void trade_page(struct reader_cpu *cpu, u32 id, u64 lost_before);

/* Keep the page that we took last; the next swap is for one of the spares. */
void set_aside(struct reader_cpu *cpu, u32 spare);

/* What is unread in the ring, the oldest first. */
struct unread_pages {
	u64 touched; /* pages_touched then */
	u32 place;   /* of the next one */
	u32 nr;      /* still to come */
};

/* Exact, also while the writer writes. */
struct unread_pages find_unread_pages(const struct reader_cpu *cpu);

/* Its id. Only while unread->nr > 0. */
u32 next_unread_page(const struct reader_cpu *cpu, struct unread_pages *unread);

/* --- reader_text.c, reader_dump.c: text ------------------------------------------------- */

/* reader_text() without polling: of the batch that is there. */
u32 text_of_batch(struct reader *reader, u32 wanted, struct reader_carry *carry, char *out,
		  u32 size);

/* The next page of the index. False: there is none, but a loss may be unreported. */
bool take_dumped_page(struct reader_cpu *cpu);

/* --- turns.c: the merge ------------------------------------------------------------ */

/*
 * The CPUs that have something to give, as a heap in reader->cpus[].turn: the one
 * whose next event is the oldest is the first; ties go to the lowest number.
 *
 * Who has nothing when the turns begin, or when its turn ends, is out until they begin
 * again: the batch is that of the last poll. But who may have something behind events that do
 * not match ends the turns of all: what it has may be older than what the others have.
 */
struct turns {
	struct reader *reader;
	u32 nr; /* CPUs in the heap */
};

struct turns begin_turns(struct reader *reader, u32 wanted);

/* The CPU whose turn it is. Only while turns->nr > 0. */
static inline u32 turn_of(const struct turns *turns)
{
	return turns->reader->cpus[0].turn.nr;
}

static inline struct reader_turn *slot_of(const struct turns *turns, u32 slot)
{
	return &turns->reader->cpus[slot].turn;
}

/* The oldest first; ties go to the lowest number. */
static inline bool before(struct reader_turn a, struct reader_turn b)
{
	return a.time < b.time || (a.time == b.time && a.nr < b.nr);
}

/* The child of @slot that comes first; turns->nr or more: it has none. */
static inline u32 first_child(const struct turns *turns, u32 slot)
{
	u32 child = 2 * slot + 1;

	return child + 1 < turns->nr && before(*slot_of(turns, child + 1), *slot_of(turns, child)) ?
		       child + 1 : child;
}

/* As long as its events are not later than this (ns), it stays its turn. */
static inline u64 turn_until(const struct turns *turns)
{
	struct reader_turn other;

	if (turns->nr < 2)
		return UINT64_MAX;
	other = *slot_of(turns, first_child(turns, 0));
	/* One with a lower number is later, or it would be its turn: not 0. */
	return turn_of(turns) < other.nr ? other.time : other.time - 1;
}

/* A broken page has no time of its own: it is reported where the CPU stands. */
static inline struct reader_turn turn_of_cpu(const struct reader *reader, u32 nr)
{
	const struct reader_cpu *cpu = &reader->cpus[nr];
	u64 time = cpu->next == READER_EVENT ? cpu->record.time_stamp : cpu->time_stamp;

	return (struct reader_turn){ .time = time, .nr = nr };
}

/* Put @turn where it belongs, at @slot or below. */
void sift_down(const struct turns *turns, u32 slot, struct reader_turn turn);

/* The CPU whose turn it was has nothing more to give. */
void drop_out(struct turns *turns);

/* The CPU whose turn it was has given something: look at what it has now. */
static inline void end_turn(struct turns *turns)
{
	u32 nr = turn_of(turns);
	struct reader_turn turn;

	if (unlikely(peek_cpu(turns->reader, nr) == READER_NONE)) {
		drop_out(turns);
		return;
	}
	turn = turn_of_cpu(turns->reader, nr);
	if (turns->nr == 2 && before(*slot_of(turns, 1), turn)) {
		/* two that take turns: the commonest of all, and all there is to do */
		*slot_of(turns, 0) = *slot_of(turns, 1);
		*slot_of(turns, 1) = turn;
	} else {
		sift_down(turns, 0, turn);
	}
}

/* --- bytes --------------------------------------------------------------------------- */

static inline u32 min_u32(u32 a, u32 b)
{
	return a < b ? a : b;
}

#define COPY_BLOCK 64U

/* To a lower address: the two may overlap. */
static inline void move_down(u8 *to, const u8 *from, u32 length)
{
	u32 i = 0;

	for (; i + sizeof(u64) <= length; i += sizeof(u64)) {
		u64 word;

		__builtin_memcpy(&word, from + i, sizeof(word));
		__builtin_memcpy(to + i, &word, sizeof(word));
	}
	for (; i < length; i++)
		to[i] = from[i];
}

/*
 * In blocks of a cache line, which become vector moves, then word by word: both ends are
 * 8-byte aligned except at the ends of a page. A copy that the compiler turns into memcpy()
 * would need a libc. The two do not overlap.
 */
static inline void copy_bytes(u8 *to, const u8 *from, u32 length)
{
	u32 i = 0;

	for (; i + COPY_BLOCK <= length; i += COPY_BLOCK)
		__builtin_memcpy(to + i, from + i, COPY_BLOCK);
	for (; i + sizeof(u64) <= length; i += sizeof(u64))
		__builtin_memcpy(to + i, from + i, sizeof(u64));
	for (; i < length; i++)
		to[i] = from[i];
}

/* Deliver what an open file still owes. Returns bytes. */
static inline u32 take_carry(struct reader_carry *carry, u8 *out, u32 size)
{
	u32 length = min_u32(carry->length - carry->offset, size);

	copy_bytes(out, carry->bytes + carry->offset, length);
	carry->offset += length;
	return length;
}

#endif
