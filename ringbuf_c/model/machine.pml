/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The accesses as statements, see machine.h. Each is to be used inside an atomic: one
 * atomic is one step. Steps are larger than one access where that hides nothing: a
 * thread's stores to words that only it stores may come at once, for the other one can
 * always read something older.
 *
 * Variables are named without `now.` as the destination and with it in expressions.
 *
 * Every printf() marks a path that the search has to reach: `check` looks.
 */
#define WRITER 0
#define HOST 1

c_decl {
\#include "machine.h"
};
c_state "struct memory mem" "Global"

/* Which message a load reads: by how much it is older than the newest. Else 0. */
byte pick, oldest;

#define PICK(thread, location, order) \
	c_code { now.oldest = oldest_readable(&now.mem, thread, location, order); }; \
	do \
	:: pick < oldest -> pick++ \
	:: break \
	od; \
	oldest = 0

#define LOAD(variable, thread, location, order, name) \
	PICK(thread, location, order); \
	c_code { \
		now.variable = load(&now.mem, thread, location, now.pick, order, name); \
		now.pick = 0; \
	}

#define STORE(thread, location, value, order, name) \
	c_code { store(&now.mem, thread, location, value, order, name); }

#define EXCHANGE(stored, expected, thread, location, value, order, fail_order, name) \
	PICK(thread, location, fail_order); \
	c_code { \
		now.stored = exchange(&now.mem, thread, location, now.pick, &now.expected, \
				      value, order, fail_order, name); \
		now.pick = 0; \
	}

#define SWAP(old, thread, location, value, order, name) \
	c_code { now.old = swap(&now.mem, thread, location, value, order, name); }

#define PLAIN_READ(thread, object, name) \
	c_code { plain_read(&now.mem, thread, object, name); }
#define PLAIN_WRITE(thread, object, name) \
	c_code { plain_write(&now.mem, thread, object, name); }
