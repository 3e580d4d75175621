/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a writer says that it is writing, and how the host's side waits for it: with
 * membarrier(2), or with an exchange for each event (LOCKED).
 *
 * membarrier(2) is a full barrier of the caller, one of each other thread at any point of
 * its program, and again one of the caller. Against it, the writer needs only the order of
 * its instructions: without barrier(), a compiler may turn them round.
 */
#define WRITING 0

bit w_claimed;
byte w_seen, h_writing;

/* __simple_rb_start_writing() */
#ifdef LOCKED

inline start_writing()
{
	w_seen = 0;
	atomic { EXCHANGE(w_claimed, w_seen, WRITER, WRITING, 1, ORD_start_locked,
			  FAIL_start_locked, "writing");
		assert(w_claimed);
		w_claimed = 0 }
}

inline other_writers_barrier(present) { skip }

#else

inline start_writing()
{
	atomic { STORE(WRITER, WRITING, 1, RELAXED, "writing") }
}

inline other_writers_barrier(present)
{
	if
	:: present ->
		atomic { c_code { fence(&now.mem, HOST); } };
		atomic { c_code { fence(&now.mem, WRITER); } };
		atomic { c_code { fence(&now.mem, HOST); } }
	:: !(present) -> skip
	fi
}

#endif

inline stop_writing()
{
	atomic { STORE(WRITER, WRITING, 0, ORD_done, "writing") }
}

inline wait_writer()
{
	do
	:: atomic { LOAD(h_writing, HOST, WRITING, ORD_see_done, "writing");
		if
		:: h_writing -> printf("host: waits for the writer\n")
		:: else -> break
		fi }
	od;
	h_writing = 0
}
