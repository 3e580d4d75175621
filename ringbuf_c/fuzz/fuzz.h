/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share: taking values from the input, and saying what is wrong.
 *
 * An input that has ended gives zeros, so that every byte string is a valid one.
 */
#ifndef RINGBUF_C_FUZZ_H
#define RINGBUF_C_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringbuf_c/types.h"

#define ARRAY_SIZE(array) ((u32)(sizeof(array) / sizeof((array)[0])))

/* abort(), so that the fuzzer takes it for a crash and keeps the input. */
#define require(condition)                                                             \
	do {                                                                           \
		if (!(condition)) {                                                    \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                       \
		}                                                                      \
	} while (0)

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size);

/* --- the input -------------------------------------------------------------------- */

struct input {
	const u8 *at, *end;
};

static inline u32 input_left(const struct input *input)
{
	return (u32)(input->end - input->at);
}

static inline u8 take_u8(struct input *input)
{
	return input->at < input->end ? *input->at++ : 0;
}

/* Little endian; fewer than @size bytes of input are as if zeros followed. */
static inline u64 take_bytes(struct input *input, u32 size)
{
	u64 value = 0;

	for (u32 i = 0; i < size; i++)
		value |= (u64)take_u8(input) << 8 * i;
	return value;
}

/* A small number is one byte; these lead the others. */
enum number_size {
	NUMBER_U16 = 252,
	NUMBER_U32 = 253,
	NUMBER_U64 = 254,
	NUMBER_NEGATIVE = 255, /* one byte, to be negated */
};

static inline u64 take_number(struct input *input)
{
	u8 first = take_u8(input);

	switch (first) {
	case NUMBER_U16:
		return take_bytes(input, 2);
	case NUMBER_U32:
		return take_bytes(input, 4);
	case NUMBER_U64:
		return take_bytes(input, 8);
	case NUMBER_NEGATIVE:
		return -(u64)take_u8(input);
	default:
		return first;
	}
}

/* At most @size bytes as they are, then zeros. */
static inline void take_block(struct input *input, u8 *to, u32 size)
{
	u32 length = input_left(input) < size ? input_left(input) : size;

	if (!size)
		return;
	memset(to, 0, size);
	memcpy(to, input->at, length);
	input->at += length;
}

/* On the heap and not a byte more, so that ASan sees the next one. */
static inline void *exact_alloc(size_t size)
{
	void *memory = malloc(size ? size : 1);

	if (!memory)
		abort();
	return memory;
}

/* --- fuzz_walk: how an input begins -------------------------------------------------- */

/* u8 kind of commit; number: time of the page; [number: commit]; the bytes of data[] */
enum walk_commit {
	COMMIT_IS_SIZE, /* as many bytes as there are */
	COMMIT_IS_TAKEN,
	NR_WALK_COMMITS
};

/* --- fuzz_reader: a script ------------------------------------------------------------ */

/*
 * One after the other, each led by a byte. What the hypervisor does, it does before the
 * host's next call; or, when that call makes a hypercall, inside it: the hypercall takes
 * from the script up to OP_RETURN or the host's next call.
 *
 * cpu, page: a byte. All others are numbers.
 */
enum script_op {
	/* the hypervisor */
	OP_RETURN,  /* from a hypercall */
	OP_ANSWER,  /* x0, x1 of all hypercalls to come */
	OP_COUNTER, /* cpu, enum script_counter, value */
	OP_ADD,     /* cpu, enum script_counter, value: may be negative */
	OP_PAGE,    /* cpu, page, time, length, bytes: a page, zeros behind */
	OP_BYTES,   /* cpu, page, offset, length, bytes: a part of one */
	OP_COMMIT,  /* cpu, page, commit */
	OP_EVENTS,  /* cpu, page, id, delta, length, number: well-formed, appended */
	/* the host; its cpu may be none, or all */
	OP_TEXT,    /* cpu, size */
	OP_RAW,     /* cpu, size */
	OP_RESET,   /* cpu */
	OP_POLL,
	NR_OPS
};

#define FIRST_HOST_OP OP_TEXT

enum script_counter {
	COUNTER_ENTRIES,
	COUNTER_OVERRUN,
	COUNTER_LOST_EVENTS,
	COUNTER_PAGES_LOST,
	COUNTER_PAGES_TOUCHED,
	COUNTER_READER_ID,
	COUNTER_DROPPED,
	COUNTER_STRUCT_LEN,
	NR_COUNTERS
};

#define SCRIPT_CPUS 4U
#define SCRIPT_ABSENT_CPU 2U
#define SCRIPT_PAGES 4U
#define SCRIPT_ALL_CPUS 4U  /* as cpu of the host's ops */
#define SCRIPT_CPU_CHOICES 6U /* the last one: a CPU that cannot be */

/* --- fuzz_dump: a script, too --------------------------------------------------------- */

/* Each led by a byte. A page: a byte; all others are numbers, if not said otherwise. */
enum dump_op {
	/* the hypervisor */
	DUMP_PAGE,    /* page, time, commit, that many bytes: not more than fit */
	DUMP_BYTE,    /* page, offset, u8 */
	DUMP_EVENTS,  /* page, u8 delta, u8 number: well-formed, appended */
	DUMP_COUNTER, /* u8 which, value */
	/* the host */
	DUMP_CONSUME, /* size; each hypercall takes u8 reader.id, and a counter */
	DUMP_RESET,
	DUMP_BEGIN,
	DUMP_MEASURE,
	DUMP_READ,    /* size, offset */
	DUMP_ALL,     /* size of a piece */
	NR_DUMP_OPS
};

/* --- fuzz_filter: predicates and a payload ---------------------------------------------- */

/*
 * u8: number of predicates; number: CPU; for each: u8 op, source, size, sign; number: offset,
 * value, two branches. What is left is the payload.
 */
#define FILTER_FUZZ_PREDS 16U
#define FILTER_NEAR 32U /* branches below this are so many predicates further on */

/* --- fuzz_render: an event and its operations ------------------------------------------- */

/*
 * numbers: CPU, time, lost; u8: id, number of operations; for each: u8 kind, size, flags,
 * width; number: offset, length of the text; of a symbol also u8: how many, 255 for no
 * table; number: length of each, and of the fallback. If the id was RENDER_HAS_FORMATS or
 * more: u8: how many; number: offset and size of the index; the operations of each, with their
 * number before them. What is left is the payload.
 */
#define RENDER_OPS_MAX 12U
#define RENDER_SYMBOLS_MAX 6U
#define RENDER_NO_TABLE 255U
#define RENDER_HAS_FORMATS 128U
#define RENDER_FORMATS_MAX 3U
#define RENDER_IDS 4U /* the event has id 1; 2 has no operations; the others do not exist */

#endif
