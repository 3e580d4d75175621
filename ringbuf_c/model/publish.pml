/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events on one page (SPEC B.6): the host reads the page while it is written. What
 * `entries` counts, the page holds; what `commit` covers is complete.
 */
#define COMMIT 0
#define ENTRIES 1
#define EVENT(n) (n) /* event n of the page, and the time stamp for n = 0 */

#include "machine.pml"

byte w_event;
byte h_entries, h_commit, h_offset;

proctype writer()
{
	do
	:: atomic { w_event < EVENTS ->
		PLAIN_WRITE(WRITER, EVENT(now.w_event), "event");
		w_event++;
		STORE(WRITER, COMMIT, now.w_event, ORD_commit, "commit") }
	   atomic { STORE(WRITER, ENTRIES, now.w_event, ORD_entries, "entries") }
	:: atomic { w_event == EVENTS -> break }
	od
}

proctype host()
{
	do
	:: atomic { LOAD(h_entries, HOST, ENTRIES, ORD_see_entries, "entries");
		if
		:: h_entries <= h_offset -> goto again
		:: else
		fi }
	   atomic { LOAD(h_commit, HOST, COMMIT, ORD_see_commit, "commit");
		/* the batch is on this page: a reader that does not see it gives it up */
		assert(h_commit >= h_entries);
		if
		:: h_commit > h_entries -> printf("host: commit is ahead of entries\n")
		:: else
		fi;
		do
		:: h_offset < h_commit ->
			PLAIN_READ(HOST, EVENT(now.h_offset), "event");
			h_offset++
		:: else -> break
		od;
		h_commit = 0 }
again:
	   atomic { if
		:: h_offset == EVENTS -> break
		:: else
		fi }
	od;
	printf("host: has read all\n")
}

init {
	c_code { init_memory(&now.mem); }
	atomic { run writer(); run host() }
}
