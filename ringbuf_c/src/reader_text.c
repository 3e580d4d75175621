// SPDX-License-Identifier: Apache-2.0
/* Events as lines of text. */
#include "reader_internal.h"

static inline void consume(struct reader_cpu *cpu)
{
	cpu->offset = cpu->record.next;
	cpu->time_stamp = cpu->record.time_stamp;
	cpu->read++;
	cpu->next = READER_NONE;
}

/* What a CPU has to say next: losses first, then the event or the broken page. */
static u32 render_next(struct reader *reader, u32 nr, char *out)
{
	struct reader_cpu *cpu = &reader->cpus[nr];
	u32 length = 0;

	if (cpu->unreported)
		length = render_lost(out, nr, cpu->unreported);
	if (cpu->next == READER_BROKEN)
		return length + render_corrupt(out + length, nr, cpu->page, cpu->offset);
	return length + render_line(out + length, &cpu->prefix, nr, &cpu->record,
				    render_find(&reader->events, cpu->record.id));
}

static u32 next_max(const struct reader *reader, const struct reader_cpu *cpu)
{
	if (cpu->next == READER_BROKEN)
		return RENDER_FRAME_MAX;
	return render_line_max(render_find(&reader->events, cpu->record.id));
}

static void text_consumed(struct reader_cpu *cpu)
{
	if (cpu->next == READER_BROKEN)
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
	u32 length = render_next(reader, nr, (char *)carry->bytes);

	carry->offset = 0;
	carry->length = 0;
	if (length > size && !first)
		return 0;
	carry->length = length;
	text_consumed(&reader->cpus[nr]);
	return take_carry(carry, (u8 *)out, size);
}

/* The event has been consumed: the next one of the same batch and page, if it is there. */
static inline bool next_on_page(struct reader_cpu *cpu)
{
	struct rb_record *record = &cpu->record;

	consume(cpu);
	if (!in_batch(cpu) ||
	    rb_walk_next(reader_page(cpu)->data, cpu->commit, cpu->offset, cpu->time_stamp,
			 record) != RB_WALK_EVENT)
		return false;
	cpu->next = READER_EVENT;
	return true;
}

/*
 * The loop that all text goes through: one event of a CPU after the other, as long as
 * they are on one page and not later than those of the other CPUs, and there is room.
 */
static u32 text_of_page(const struct turns *turns, struct reader_cpu *cpu, char *out, u32 size)
{
	u32 nr = turn_of(turns), done = 0;
	u64 until = turn_until(turns);

	do {
		const struct render_event *event =
			render_find(&turns->reader->events, cpu->record.id);

		if (size - done < render_line_max(event))
			break;
		done += render_line(out + done, &cpu->prefix, nr, &cpu->record, event);
	} while (next_on_page(cpu) && cpu->record.time_stamp <= until);
	return done;
}

/* Text of the CPU whose turn it is. 0: no room. */
static u32 text_of_turn(const struct turns *turns, struct reader_carry *carry, char *out,
			u32 size, bool first)
{
	u32 nr = turn_of(turns), length;
	struct reader_cpu *cpu = &turns->reader->cpus[nr];

	if (cpu->next == READER_EVENT && !cpu->unreported && !cpu->gap) {
		length = text_of_page(turns, cpu, out, size);
		if (length)
			return length;
	}
	if (size < next_max(turns->reader, cpu))
		return text_by_carry(turns->reader, nr, carry, out, size, first);
	length = render_next(turns->reader, nr, out);
	text_consumed(cpu);
	return length;
}

u32 reader_text(struct reader *reader, u32 wanted, struct reader_carry *carry, char *out, u32 size)
{
	u32 done = take_carry(carry, (u8 *)out, size);
	struct turns turns;

	reader_poll(reader);
	if (done == size)
		return done;
	turns = begin_turns(reader, wanted);
	while (turns.nr && done < size) {
		u32 length = text_of_turn(&turns, carry, out + done, size - done, !done);

		if (!length)
			break;
		done += length;
		end_turn(&turns);
	}
	return done;
}
