/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arming against an event: the host either sees the event when it looks, or hears the ring.
 * One that it neither sees nor hears of would be missed until the next one comes.
 *
 * The datagram is a variable: a system call says at once what it says.
 */
#define ENTRIES 0
#define ARMED 1
#define ANY 2 /* doorbell.armed, of all rings */

#include "machine.pml"

bit rung, w_ended;
byte w_event, w_armed, h_entries, h_seen;

inline count_event()
{
	atomic { STORE(WRITER, ENTRIES, now.w_event, ORD_entries, "entries") }
}

inline see_armed()
{
	atomic { LOAD(w_armed, WRITER, ARMED, RELAXED, "armed") }
}

/* __simple_rb_ring() and doorbell_ring() */
inline ring()
{
	atomic { SWAP(w_armed, WRITER, ARMED, 0, ORD_disarm, "armed") };
	atomic { SWAP(w_armed, WRITER, ANY, 0, ORD_rung, "any armed") };
	if
	:: atomic { w_armed -> rung = 1; printf("writer: rings\n") }
	:: atomic { !w_armed -> w_armed = 0 }
	fi
}

proctype writer()
{
	do
	:: w_event < EVENTS ->
		w_event++;
		if
		:: count_event(); see_armed()
#if !ORD_see_armed
		:: see_armed(); count_event()
#endif
		fi;
		if
		:: atomic { w_armed -> w_armed = 0 }; ring(); w_armed = 0
		:: atomic { !w_armed -> printf("writer: is not armed\n") }
		fi
	:: atomic { w_event == EVENTS -> w_ended = 1; break }
	od
}

inline arm()
{
	atomic { SWAP(h_entries, HOST, ANY, 1, ORD_arm_any, "any armed"); h_entries = 0 };
	atomic { SWAP(h_entries, HOST, ARMED, 1, ORD_arm, "armed"); h_entries = 0 };
	if
	:: ORD_membarrier_arm ->
		atomic { c_code { fence(&now.mem, HOST); } };
		atomic { c_code { fence(&now.mem, WRITER); } };
		atomic { c_code { fence(&now.mem, HOST); } }
	:: !(ORD_membarrier_arm) -> skip
	fi
}

proctype host()
{
	do
	:: rung = 0;
		arm();
		atomic { LOAD(h_entries, HOST, ENTRIES, ORD_see_entries, "entries") };
		if
		:: atomic { h_entries > h_seen ->
			h_seen = h_entries;
			h_entries = 0;
			printf("host: sees events\n") }
		:: atomic { h_entries == h_seen -> h_entries = 0 };
			if
			:: atomic { rung -> printf("host: hears the ring\n") }
			:: atomic { w_ended && !rung -> assert(h_seen == EVENTS); break }
			fi
		fi
	od;
	printf("host: has ended\n")
}

init {
	c_code { init_memory(&now.mem); }
	atomic { run writer(); run host() }
}
