// SPDX-License-Identifier: Apache-2.0
/* The merge of the CPUs by time. */
#include "reader_internal.h"

void sift_down(const struct turns *turns, u32 slot, struct reader_turn turn)
{
	u32 child;

	while ((child = first_child(turns, slot)) < turns->nr &&
	       before(*slot_of(turns, child), turn)) {
		*slot_of(turns, slot) = *slot_of(turns, child);
		slot = child;
	}
	*slot_of(turns, slot) = turn;
}

void drop_out(struct turns *turns)
{
	if (reader_unfinished(turns->reader)) {
		turns->nr = 0;
		return;
	}
	turns->nr--;
	sift_down(turns, 0, *slot_of(turns, turns->nr));
}

struct turns begin_turns(struct reader *reader, u32 wanted)
{
	struct turns turns = { .reader = reader };

	for_each_cpu(reader, nr, wanted) {
		if (peek_cpu(reader, nr) != READER_NONE)
			*slot_of(&turns, turns.nr++) = turn_of_cpu(reader, nr);
	}
	if (reader_unfinished(reader))
		turns.nr = 0;
	for (u32 slot = turns.nr / 2; slot > 0; slot--)
		sift_down(&turns, slot - 1, *slot_of(&turns, slot - 1));
	return turns;
}
