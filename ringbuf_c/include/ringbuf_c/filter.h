/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which events a reader shows. A filter is a program of predicates, compiled once from
 * an expression by whoever knows the fields; this runs it. Branches lead forward only, so
 * that it ends, and one that filter_check() has accepted reads no byte but of the payload.
 */
#ifndef RINGBUF_C_FILTER_H
#define RINGBUF_C_FILTER_H

#include "types.h"

enum filter_op {
	FILTER_EQ,
	FILTER_NE,
	FILTER_LT,
	FILTER_LE,
	FILTER_GT,
	FILTER_GE,
	FILTER_AND, /* a bit in common */
	NR_FILTER_OPS
};

enum filter_source {
	FILTER_FIELD, /* of the payload */
	FILTER_CPU,   /* the number of the CPU; no offset, no size */
	NR_FILTER_SOURCES
};

#define FILTER_PREDS_MAX 4096U

/* Where a branch can lead, besides to a later predicate. */
#define FILTER_ACCEPT ((u32)-1)
#define FILTER_REJECT ((u32)-2)

/*
 * Compare a field with @value: as s64, sign-extended, if @is_signed; as u64 otherwise. A
 * predicate about bytes that a record does not have is false.
 */
struct filter_pred {
	u8 op;     /* enum filter_op */
	u8 source; /* enum filter_source */
	u8 size;   /* of the field: 1, 2, 4 or 8 bytes */
	bool is_signed;
	u32 offset; /* of the field in the payload, bytes */
	u64 value;
	u32 if_true, if_false; /* a later predicate, FILTER_ACCEPT or FILTER_REJECT */
};

struct filter {
	const struct filter_pred *preds; /* the first one begins; NULL: all events match */
	u32 nr;
};

/* Filters by event id: ids from 0 to nr - 1; the events of others match. */
struct filter_table {
	const struct filter *filters;
	u32 nr;
};

/**
 * filter_check - make sure that a filter is safe to run.
 *
 * Return: 0, or -EINVAL: no or too many predicates, one that does not exist or has a field of
 * an odd size or outside any payload, a branch that leads elsewhere than forward.
 */
int filter_check(const struct filter *filter);

/**
 * filter_match - whether an event passes.
 * @filter: filter_check() has accepted it
 * @payload: @length bytes, which may change under us: each field is loaded once
 * @cpu: that wrote it
 */
bool filter_match(const struct filter *filter, const u8 *payload, u32 length, u32 cpu);

#endif
