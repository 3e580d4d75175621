/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search through all orders of the steps of two sides (interleave.h): depth first,
 * from each state both ways, each state once.
 */
#ifndef RINGBUF_C_TESTS_INTERLEAVE_SEARCH_H
#define RINGBUF_C_TESTS_INTERLEAVE_SEARCH_H

#include <stdio.h>

#include "interleave.h"

#define IL_MAX_DEPTH 2048U
#define IL_MAX_STATES (1U << 23) /* 768 MiB while the table grows the last time */

struct il_result {
	u64 states;
	u64 transitions;
	long double interleavings; /* from the first state to a last one; exact below 2^64 */
};

/* --- states ----------------------------------------------------------------------------- */

struct il_known {
	u64 hash[2]; /* 0, 0: free */
	long double interleavings; /* from here to the end; below 0: not known yet */
};

static struct {
	struct il_known *table;
	u32 size; /* a power of two */
	u32 used;
} il_memo;

static u8 *il_snapshots;
static char il_path[IL_MAX_DEPTH + 1];

static size_t il_live(u32 nr)
{
	return (size_t)(il_stacks[nr] + IL_STACK_SIZE - (u8 *)il_sides[nr].sp);
}

static u8 *il_snapshot(u32 depth)
{
	return il_snapshots +
	       depth * (il_problem->size + sizeof(il_sides) + sizeof(il_stacks));
}

static void il_save(u8 *to)
{
	memcpy(to, il_problem->state, il_problem->size);
	to += il_problem->size;
	memcpy(to, il_sides, sizeof(il_sides));
	to += sizeof(il_sides);
	for (u32 nr = 0; nr < IL_SIDES; nr++) {
		memcpy(to, il_sides[nr].sp, il_live(nr));
		to += il_live(nr);
	}
}

static void il_restore(const u8 *from)
{
	memcpy(il_problem->state, from, il_problem->size);
	from += il_problem->size;
	memcpy(il_sides, from, sizeof(il_sides));
	from += sizeof(il_sides);
	for (u32 nr = 0; nr < IL_SIDES; nr++) {
		memcpy(il_sides[nr].sp, from, il_live(nr));
		from += il_live(nr);
		il_clear_dead(nr);
	}
}

static __always_inline u64 il_mix(u64 a, u64 b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (u64)product ^ (u64)(product >> 64);
}

/* @size is a multiple of 8. */
static void il_hash_words(u64 hash[2], const void *from, size_t size)
{
	const u8 *at = from;

	for (size_t i = 0; i < size; i += 2 * sizeof(u64)) {
		u64 word, other = 0;

		memcpy(&word, at + i, sizeof(word));
		if (i + sizeof(u64) < size)
			memcpy(&other, at + i + sizeof(u64), sizeof(other));
		hash[0] = il_mix(hash[0] ^ word, other ^ 0x9e3779b97f4a7c15ULL) + word;
		hash[1] = il_mix(hash[1] ^ other, word ^ 0xd6e8feb86659fd93ULL) + other;
	}
}

/* 128 bits: with 10^9 states, two alike by chance have a probability of 10^-21. */
static void il_hash(u64 hash[2])
{
	hash[0] = 1;
	hash[1] = 2;
	il_hash_words(hash, il_problem->state, il_problem->size);
	il_hash_words(hash, il_sides, sizeof(il_sides));
	for (u32 nr = 0; nr < IL_SIDES; nr++)
		il_hash_words(hash, il_sides[nr].sp, il_live(nr));
	hash[0] |= 1;
}

/* Where @hash is, or would be. */
static struct il_known *il_find(const u64 hash[2])
{
	u32 i = (u32)(hash[1] ^ hash[0] >> 32);

	for (;; i++) {
		struct il_known *known = &il_memo.table[i & (il_memo.size - 1)];

		if (!known->hash[0] || (known->hash[0] == hash[0] && known->hash[1] == hash[1]))
			return known;
	}
}

static void il_new_table(u32 size)
{
	size_t bytes = size * sizeof(*il_memo.table);

	il_memo.table = aligned_alloc(2 * sizeof(*il_memo.table), bytes);
	if (!il_memo.table)
		abort();
	memset(il_memo.table, 0, bytes);
	il_memo.size = size;
}

static void il_grow(void)
{
	struct il_known *old = il_memo.table;
	u32 size = il_memo.size;

	il_new_table(2 * size);
	for (u32 i = 0; i < size; i++) {
		if (old[i].hash[0])
			*il_find(old[i].hash) = old[i];
	}
	free(old);
}

/* What is known of this state; if nothing is, that we have been there. */
static struct il_known *il_visit(const u64 hash[2], bool *new)
{
	struct il_known *known;

	if (il_memo.used == il_memo.size / 2)
		il_grow();
	known = il_find(hash);
	*new = !known->hash[0];
	if (*new) {
		memcpy(known->hash, hash, sizeof(known->hash));
		known->interleavings = -1;
		il_memo.used++;
	}
	return known;
}

/* --- the search --------------------------------------------------------------------------- */

static bool il_runnable(u32 nr)
{
	const struct il_side *side = &il_sides[nr];

	return !side->done && !side->waits && (!side->joins || il_sides[!nr].done);
}

static bool il_all_done(void)
{
	return il_sides[IL_WRITER].done && il_sides[IL_HOST].done;
}

static bool il_good_state(void)
{
	if (!il_failure.format)
		il_problem->check();
	return !il_failure.format;
}

static long double il_explore(u32 depth, struct il_result *result);

/* Both ways from here. Below 0: one of them failed. */
static long double il_branch(u32 depth, struct il_result *result)
{
	long double sum = 0;
	bool moved = false;

	il_save(il_snapshot(depth));
	for (u32 nr = 0; nr < IL_SIDES; nr++) {
		long double ways;

		if (moved)
			il_restore(il_snapshot(depth));
		if (!il_runnable(nr))
			continue;
		il_path[depth] = "WH"[nr];
		il_path[depth + 1] = '\0';
		result->transitions++;
		moved = true;
		il_run(nr);
		ways = il_explore(depth + 1, result);
		if (ways < 0)
			return -1;
		sum += ways;
	}
	if (!moved)
		il_fail("each side waits for the other", 0, 0);
	return moved ? sum : -1;
}

/* In how many ways it can go on from the state that is there. Below 0: it failed. */
static long double il_explore(u32 depth, struct il_result *result)
{
	struct il_known *known;
	long double ways;
	u64 hash[2];
	bool new;

	if (!il_good_state())
		return -1;
	il_hash(hash);
	known = il_visit(hash, &new);
	if (!new) {
		if (known->interleavings < 0)
			il_fail("it can go on for ever", 0, 0);
		return known->interleavings;
	}
	if (depth == IL_MAX_DEPTH || il_memo.used == IL_MAX_STATES) {
		il_fail("too big to be searched: %llu steps, %llu states", depth, il_memo.used);
		return -1;
	}
	ways = il_all_done() ? 1 : il_branch(depth, result);
	il_find(hash)->interleavings = ways; /* the table may have grown */
	return ways;
}

/* False: il_failure says why, il_path how. */
static bool il_search(const struct il_problem *problem, struct il_result *result)
{
	long double ways;

	il_problem = problem;
	il_snapshots = malloc((IL_MAX_DEPTH + 1) *
			      (problem->size + sizeof(il_sides) + sizeof(il_stacks)));
	if (!il_snapshots)
		abort();
	il_new_table(1U << 14);
	il_memo.used = 0;
	memset(result, 0, sizeof(*result));
	il_path[0] = '\0';

	il_start();
	ways = il_explore(0, result);
	result->interleavings = ways;
	result->states = il_memo.used;
	free(il_memo.table);
	free(il_snapshots);
	return ways >= 0;
}

static void il_print_failure(void)
{
	printf("  ");
	printf(il_failure.format, (unsigned long long)il_failure.a,
	       (unsigned long long)il_failure.b);
	printf("\n");
}

/* Goes the way of @path once more and says what it does. False: it fails. */
static bool il_replay(const struct il_problem *problem, const char *path)
{
	il_problem = problem;
	il_start();
	for (; *path && il_good_state(); path++) {
		u32 nr = *path == 'W' ? IL_WRITER : IL_HOST;

		if (!il_runnable(nr)) {
			printf("  %c cannot make a step\n", *path);
			return false;
		}
		printf("  %s%s\n", nr == IL_WRITER ? "writer  " : "             host  ",
		       il_sides[nr].at);
		il_run(nr);
	}
	if (il_good_state())
		return true;
	il_print_failure();
	return false;
}

#endif
