/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for what is made up by tests: the same each time. */
#ifndef RINGBUF_C_TESTS_RANDOM_NUMBERS_H
#define RINGBUF_C_TESTS_RANDOM_NUMBERS_H

#include "ringbuf_c/types.h"

static u64 seed = 88172645463325252ULL;

static u64 random_u64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static u32 below(u32 bound)
{
	return (u32)(random_u64() % bound);
}

static bool one_in(u32 n)
{
	return !below(n);
}

#endif
