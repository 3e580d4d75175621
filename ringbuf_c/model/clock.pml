/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Updates of the clock against the events that read it (SPEC C.6): nobody reads the bank
 * that an update fills.
 */
#define CURRENT 1
#define BANK(n) (n) /* plain */

#include "machine.pml"
#include "claim.pml"

byte w_event, h_update, h_bank;
byte w_bank;

inline read_clock()
{
	atomic { LOAD(w_bank, WRITER, CURRENT, ORD_bank, "current") };
	atomic { PLAIN_READ(WRITER, BANK(now.w_bank), "the bank"); w_bank = 0 }
}

inline event()
{
	if
	:: start_writing(); read_clock()
#if !defined(LOCKED) && !ORD_start
	/* `current` is loaded early, the bank too */
	:: read_clock(); start_writing()
#endif
	fi;
	stop_writing()
}

proctype writer()
{
	do
	:: w_event < EVENTS ->
		w_event++;
		event()
	:: atomic { w_event == EVENTS -> break }
	od
}

proctype host()
{
	do
	:: h_update < UPDATES ->
		h_update++;
		other_writers_barrier(ORD_membarrier_all);
		wait_writer();
		h_bank = 1 - h_bank;
		atomic { PLAIN_WRITE(HOST, BANK(now.h_bank), "the bank") };
		atomic { STORE(HOST, CURRENT, now.h_bank, ORD_publish_bank, "current") }
	:: atomic { h_update == UPDATES -> break }
	od;
	printf("host: has ended\n")
}

init {
	c_code { init_memory(&now.mem); }
	atomic { run writer(); run host() }
}
