// SPDX-License-Identifier: Apache-2.0
/* Events as lines of text. */
#include "reader_internal.h"
#include "render_line.h"

/* What a CPU has to say next: losses first, then the event or the broken page, if any. */
static u32 render_next(struct reader *reader, u32 nr, char *out)
{
	struct reader_cpu *cpu = &reader->cpus[nr];
	u32 length = 0;

	if (cpu->unreported)
		length = render_lost(out, nr, cpu->unreported);
	if (cpu->next == READER_LOST)
		return length;
	if (cpu->next == READER_BROKEN)
		return length + render_corrupt(out + length, nr, page_id(cpu), cpu->offset);
	return length + render_line(out + length, &cpu->prefix, nr, &cpu->record,
				    render_find(&reader->events, cpu->record.id));
}

/* Bytes of the line that tells of losses; 0: there is none. */
static u32 loss_length(const struct reader_cpu *cpu, u32 nr)
{
	char line[RENDER_FRAME_MAX];

	return cpu->unreported ? render_lost(line, nr, cpu->unreported) : 0;
}

static u32 next_max(const struct reader *reader, const struct reader_cpu *cpu)
{
	if (cpu->next != READER_EVENT)
		return RENDER_FRAME_MAX;
	return render_line_max(render_find(&reader->events, cpu->record.id));
}

static void text_consumed(struct reader_cpu *cpu)
{
	if (cpu->next == READER_LOST)
		cpu->next = READER_NONE;
	else if (cpu->next == READER_BROKEN)
		skip_page(cpu);
	else
		consume(cpu);
	cpu->unreported = 0;
	cpu->gap = false; /* the text has said it */
}

/*
 * Near the end of the buffer: the text goes by way of the carry. It stays unread
 * when it does not fit, except the first one, whose rest waits for the next read.
 */
static u32 text_by_carry(struct reader *reader, u32 nr, struct reader_carry *carry, char *out,
			 u32 size, bool first)
{
	struct reader_cpu *cpu = &reader->cpus[nr];
	u32 length = render_next(reader, nr, (char *)carry->bytes);

	carry->offset = 0;
	carry->length = 0;
	if (length > size && !first)
		return 0;
	carry->length = length;
	carry->cpu = nr;
	carry->lost = cpu->unreported;
	carry->loss_end = loss_length(cpu, nr);
	carry->events = cpu->next == READER_EVENT;
	carry->gap = cpu->gap || cpu->next == READER_BROKEN;
	text_consumed(cpu);
	return take_carry(carry, (u8 *)out, size);
}

/*
 * The event has been consumed: the next one of the same batch and page, if it is there and
 * matches.
 */
static __always_inline bool next_on_page(const struct reader *reader, struct reader_cpu *cpu,
					 u32 nr, bool filter)
{
	struct rb_record *record = &cpu->record;

	consume(cpu);
	if (!in_batch(cpu) ||
	    rb_walk_next(reader_page(cpu)->data, cpu->commit, cpu->offset, cpu->time_stamp,
			 record) != RB_WALK_EVENT)
		return false;
	if (filter && !matches(reader, nr, record))
		return false;
	cpu->next = READER_EVENT;
	return true;
}

/* Nothing is to be said before its next event. */
static inline bool plain(const struct reader_cpu *cpu)
{
	return cpu->next == READER_EVENT && !cpu->unreported && !cpu->gap;
}

/*
 * The loops that all text goes through: turn after turn, and in each, events of one CPU as
 * long as they are on one page and not later than those of the others. Until there is
 * something else to say than an event, or no room. Returns bytes.
 *
 * @filter: a constant, so that who has no filters does not pay for them.
 */
static __always_inline u32 __text_of_events(struct turns *turns, char *out, u32 size, bool filter)
{
	struct reader *reader = turns->reader;
	char *at = out, *end = out + size;

	while (turns->nr) {
		u32 nr = turn_of(turns);
		struct reader_cpu *cpu = &reader->cpus[nr];
		u64 until = turn_until(turns);

		if (!plain(cpu))
			break;
		do {
			const struct render_event *event =
				render_find(&reader->events, cpu->record.id);

			if (end - at < render_line_max(event))
				return (u32)(at - out);
			at += __render_line(at, &cpu->prefix, nr, &cpu->record, event);
		} while (next_on_page(reader, cpu, nr, filter) && cpu->record.time_stamp <= until);
		end_turn(turns);
	}
	return (u32)(at - out);
}

static __attribute__((noinline)) u32 text_of_matching(struct turns *turns, char *out, u32 size)
{
	return __text_of_events(turns, out, size, true);
}

static u32 text_of_events(struct turns *turns, char *out, u32 size)
{
	return unlikely(turns->reader->filters.nr) ? text_of_matching(turns, out, size) :
						     __text_of_events(turns, out, size, false);
}

/* What is not plain, or has too little room. 0: none at all. */
static u32 text_of_turn(struct turns *turns, struct reader_carry *carry, char *out, u32 size,
			bool first)
{
	u32 nr = turn_of(turns), length;
	struct reader_cpu *cpu = &turns->reader->cpus[nr];

	if (size < next_max(turns->reader, cpu))
		return text_by_carry(turns->reader, nr, carry, out, size, first);
	length = render_next(turns->reader, nr, out);
	text_consumed(cpu);
	return length;
}

u32 text_of_batch(struct reader *reader, u32 wanted, struct reader_carry *carry, char *out,
		  u32 size)
{
	u32 done = take_carry(carry, (u8 *)out, size);
	struct turns turns;

	reader->passed_over = 0;
	if (done == size)
		return done;
	turns = begin_turns(reader, wanted);
	for (;;) {
		u32 length;

		done += text_of_events(&turns, out + done, size - done);
		if (!turns.nr || done == size)
			break;
		length = text_of_turn(&turns, carry, out + done, size - done, !done);
		if (!length)
			break;
		done += length;
		end_turn(&turns);
	}
	return done;
}

u32 reader_text(struct reader *reader, u32 wanted, struct reader_carry *carry, char *out, u32 size)
{
	reader_poll(reader);
	return text_of_batch(reader, wanted, carry, out, size);
}
