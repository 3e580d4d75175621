// SPDX-License-Identifier: Apache-2.0
/*
 * Any program of predicates, any payload: filter_check() refuses just what it must, and what
 * it accepts ends, says what it should, and reads no byte but of the payload.
 */
#include "fuzz.h"
#include "ringbuf_c/filter.h"
#include "ringbuf_c/layout.h"

/* Small branches are relative: to the predicate that they are of. */
static u32 take_branch(struct input *input, u32 nr)
{
	u64 number = take_number(input);

	return number < FILTER_NEAR ? nr + (u32)number : (u32)number;
}

static void take_pred(struct input *input, struct filter_pred *pred, u32 nr)
{
	*pred = (struct filter_pred){ .op = take_u8(input), .source = take_u8(input) };
	pred->size = take_u8(input);
	pred->is_signed = take_u8(input) & 1;
	pred->offset = (u32)take_number(input);
	pred->value = take_number(input);
	pred->if_true = take_branch(input, nr);
	pred->if_false = take_branch(input, nr);
}

/* --- what the check should say --------------------------------------------------------- */

static bool branch_valid(u64 to, u32 nr, u32 end)
{
	return to == FILTER_ACCEPT || to == FILTER_REJECT || (to > nr && to < end);
}

static bool field_valid(const struct filter_pred *pred)
{
	return (pred->size == 1 || pred->size == 2 || pred->size == 4 || pred->size == 8) &&
	       (u64)pred->offset + pred->size <= RB_MAX_PAYLOAD;
}

static bool pred_valid(const struct filter_pred *pred, u32 nr, u32 end)
{
	return pred->op <= FILTER_AND &&
	       (pred->source == FILTER_CPU || (pred->source == FILTER_FIELD && field_valid(pred))) &&
	       branch_valid(pred->if_true, nr, end) && branch_valid(pred->if_false, nr, end);
}

static bool filter_valid(const struct filter *filter)
{
	for (u32 nr = 0; nr < filter->nr; nr++)
		if (!pred_valid(&filter->preds[nr], nr, filter->nr))
			return false;
	return filter->nr > 0;
}

/* --- what it should do --------------------------------------------------------------------- */

static __int128 value_of(const struct filter_pred *pred, const u8 *payload, u32 cpu)
{
	__int128 value = 0;

	if (pred->source == FILTER_CPU)
		return cpu;
	for (u32 i = 0; i < pred->size; i++)
		value |= (__int128)payload[pred->offset + i] << 8 * i;
	if (pred->is_signed && value >> (8 * pred->size - 1))
		value -= (__int128)1 << 8 * pred->size;
	return value;
}

static bool holds(const struct filter_pred *pred, const u8 *payload, u32 length, u32 cpu)
{
	__int128 a, b = pred->is_signed ? (__int128)(s64)pred->value : (__int128)pred->value;

	if (pred->source == FILTER_FIELD && (u64)pred->offset + pred->size > length)
		return false;
	a = value_of(pred, payload, cpu);
	switch (pred->op) {
	case FILTER_EQ:
		return a == b;
	case FILTER_NE:
		return a != b;
	case FILTER_LT:
		return a < b;
	case FILTER_LE:
		return a <= b;
	case FILTER_GT:
		return a > b;
	case FILTER_GE:
		return a >= b;
	default:
		return a & b;
	}
}

static bool match(const struct filter *filter, const u8 *payload, u32 length, u32 cpu)
{
	u32 nr = 0, steps = 0;

	while (nr < filter->nr) {
		const struct filter_pred *pred = &filter->preds[nr];

		require(steps++ < filter->nr);
		nr = holds(pred, payload, length, cpu) ? pred->if_true : pred->if_false;
	}
	return nr == FILTER_ACCEPT;
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input input = { bytes, bytes + size };
	struct filter_pred preds[FILTER_FUZZ_PREDS];
	struct filter filter = { preds, take_u8(&input) % (FILTER_FUZZ_PREDS + 1) };
	u32 cpu = (u32)take_number(&input), length;
	u8 *payload;
	int error;

	for (u32 nr = 0; nr < filter.nr; nr++)
		take_pred(&input, &preds[nr], nr);
	error = filter_check(&filter);
	require(error == (filter_valid(&filter) ? 0 : -EINVAL));
	if (error)
		return 0;
	length = input_left(&input);
	payload = exact_alloc(length);
	take_block(&input, payload, length);
	require(filter_match(&filter, payload, length, cpu) ==
		match(&filter, payload, length, cpu));
	free(payload);
	return 0;
}
