/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disable against an event (SPEC B.9): once disable has returned, the writer touches
 * nothing, so that a reset or an unload may; and it sees what they did when it is
 * enabled again.
 */
#define ENABLED 1
#define RING 0 /* plain: struct simple_rb_per_cpu and the records of the pages */

#include "machine.pml"
#include "claim.pml"

byte w_event, h_round;
byte w_enabled;

inline see_enabled()
{
	atomic { LOAD(w_enabled, WRITER, ENABLED, ORD_see_enabled, "enabled") }
}

inline claim()
{
	if
	:: start_writing(); see_enabled()
#if !defined(LOCKED) && !ORD_start
	:: see_enabled(); start_writing()
#endif
	fi
}

proctype writer()
{
	do
	:: w_event < EVENTS ->
		w_event++;
		claim();
		if
		:: atomic { w_enabled ->
			PLAIN_READ(WRITER, RING, "the ring");
			PLAIN_WRITE(WRITER, RING, "the ring") }
		:: atomic { !w_enabled -> printf("writer: tracing is off\n") }
		fi;
		w_enabled = 0;
		stop_writing()
	:: atomic { w_event == EVENTS -> break }
	od
}

/* What init and reset do. */
inline start_over()
{
	atomic { PLAIN_READ(HOST, RING, "the ring"); PLAIN_WRITE(HOST, RING, "the ring") }
}

inline enable()
{
	atomic { STORE(HOST, ENABLED, 1, ORD_enable, "enabled") }
}

inline disable()
{
	atomic { STORE(HOST, ENABLED, 0, ORD_disable, "enabled") };
	other_writers_barrier(ORD_membarrier);
	wait_writer()
}

proctype host()
{
	start_over();
	do
	:: h_round < ROUNDS ->
		h_round++;
		enable();
		disable();
		start_over()
	:: atomic { h_round == ROUNDS -> break }
	od;
	printf("host: has ended\n")
}

init {
	c_code { init_memory(&now.mem); }
	atomic { run writer(); run host() }
}
