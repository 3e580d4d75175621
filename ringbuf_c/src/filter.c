// SPDX-License-Identifier: Apache-2.0
#include "ringbuf_c/filter.h"
#include "ringbuf_c/layout.h"
#include "ringbuf_c/page_walk.h"

/* --- checking -------------------------------------------------------------------- */

static bool source_valid(const struct filter_pred *pred)
{
	if (pred->source == FILTER_CPU)
		return true;
	if (pred->size != 1 && pred->size != 2 && pred->size != 4 && pred->size != 8)
		return false;
	return pred->offset <= RB_MAX_PAYLOAD - pred->size;
}

static bool branch_valid(u32 to, u32 from, u32 nr)
{
	return to == FILTER_ACCEPT || to == FILTER_REJECT || (to > from && to < nr);
}

static bool pred_valid(const struct filter *filter, u32 nr)
{
	const struct filter_pred *pred = &filter->preds[nr];

	return pred->op < NR_FILTER_OPS && pred->source < NR_FILTER_SOURCES &&
	       source_valid(pred) && branch_valid(pred->if_true, nr, filter->nr) &&
	       branch_valid(pred->if_false, nr, filter->nr);
}

int filter_check(const struct filter *filter)
{
	if (!filter->preds || !filter->nr || filter->nr > FILTER_PREDS_MAX)
		return -EINVAL;
	for (u32 nr = 0; nr < filter->nr; nr++)
		if (!pred_valid(filter, nr))
			return -EINVAL;
	return 0;
}

/* --- running ----------------------------------------------------------------------- */

static u64 load_unsigned(const u8 *at, u8 size)
{
	switch (size) {
	case 1:
		return READ_ONCE(*at);
	case 2:
		return load_unaligned(u16, at);
	case 4:
		return load_unaligned(u32, at);
	default:
		return load_unaligned(u64, at);
	}
}

/* Two's complement of @size bytes, to 64 bits. */
static u64 extend_sign(u64 value, u8 size)
{
	u64 sign = 1ULL << (8 * size - 1);

	return (value ^ sign) - sign;
}

/* False: the record does not have it. */
static bool load_source(const struct filter_pred *pred, const u8 *payload, u32 length, u32 cpu,
			u64 *value)
{
	if (pred->source == FILTER_CPU) {
		*value = cpu;
		return true;
	}
	if (length < pred->size || pred->offset > length - pred->size)
		return false;
	*value = load_unsigned(payload + pred->offset, pred->size);
	if (pred->is_signed)
		*value = extend_sign(*value, pred->size);
	return true;
}

static bool is_less(const struct filter_pred *pred, u64 a, u64 b)
{
	return pred->is_signed ? (s64)a < (s64)b : a < b;
}

static bool pred_holds(const struct filter_pred *pred, const u8 *payload, u32 length, u32 cpu)
{
	u64 value;

	if (!load_source(pred, payload, length, cpu, &value))
		return false;
	switch (pred->op) {
	case FILTER_EQ:
		return value == pred->value;
	case FILTER_NE:
		return value != pred->value;
	case FILTER_LT:
		return is_less(pred, value, pred->value);
	case FILTER_LE:
		return !is_less(pred, pred->value, value);
	case FILTER_GT:
		return is_less(pred, pred->value, value);
	case FILTER_GE:
		return !is_less(pred, value, pred->value);
	default:
		return value & pred->value;
	}
}

bool filter_match(const struct filter *filter, const u8 *payload, u32 length, u32 cpu)
{
	u32 nr = 0;

	if (!filter->preds)
		return true;
	while (nr < filter->nr) {
		const struct filter_pred *pred = &filter->preds[nr];

		nr = pred_holds(pred, payload, length, cpu) ? pred->if_true : pred->if_false;
	}
	return nr == FILTER_ACCEPT;
}
