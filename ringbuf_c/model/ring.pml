/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring (SPEC B.5, B.7), one event to a page: the writer runs into the head, the host
 * swaps and reads. The host is reader.c and the swap, as one thread: swaps are
 * serialised by a lock, and their caller waits for them.
 *
 * What holds: the host reads the event that has number read + lost (so none is missed or
 * read twice, and each gap is reported with its size, by the first swap after it); an
 * event is read whole; no page is reused while the host reads it; a head that moves
 * less than the swap looks is found; at the end, all events are read or overwritten.
 *
 * With SKIP the host may also take a page for broken, and pass over it. Then only
 * owns_tail() keeps it from giving back the page that the writer is on. The numbers of
 * the events are not looked at then.
 *
 * The claim that __simple_rb_start_writing() makes is left out; see disable.pml.
 */
#define CIRCLE (PAGES - 1)

/* Locations. What is stored by one thread and loaded by none but that one is a variable. */
#define NEXT(page) (page)
#define COMMIT(page) (PAGES + (page))
#define OVERRUN (2 * PAGES)
#define ENTRIES (2 * PAGES + 1)
#define PAGES_LOST (2 * PAGES + 2) /* these two with SKIP only */
#define PAGES_TOUCHED (2 * PAGES + 3)

#define EVENT(page) (page) /* plain memory */

#ifdef SKIP
#define STORE_SKIP(...) STORE(__VA_ARGS__)
#else
#define STORE_SKIP(...) skip
#endif

/* A link. The tag tells as many losses apart as there are events. */
#define NORMAL 0
#define HEAD 1
#define MOVING 2
#define LINK(page, flag) ((page) << 2 | (flag))
#define HEAD_LINK(page, tag) ((tag) << 4 | (page) << 2 | HEAD)
#define FLAG(link) ((link) & 3)
#define PAGE(link) ((link) >> 2 & 3)
#define TAG(link) ((link) >> 4)

#include "machine.pml"

byte serial[PAGES]; /* the event on each page: it is its number */
bool writer_ended;

/* --- the writer ------------------------------------------------------------------------ */

byte w_event;          /* events so far */
byte w_tail = 1;
byte w_entries[PAGES]; /* bpages[].entries */
byte w_overrun, w_lost, w_touched;
byte w_link, w_new_head;
bool w_stored;

inline drop_head()
{
	atomic { LOAD(w_new_head, WRITER, NEXT(PAGE(now.w_link)), ORD_lost_next, "lost->next");
		w_new_head = PAGE(w_new_head);
		w_overrun = w_overrun + w_entries[PAGE(w_link)];
		STORE(WRITER, OVERRUN, now.w_overrun, RELAXED, "overrun");
		w_lost++;
		STORE_SKIP(WRITER, PAGES_LOST, now.w_lost, ORD_pages_lost, "pages_lost") };
	atomic { STORE(WRITER, NEXT(PAGE(now.w_link)), HEAD_LINK(now.w_new_head, now.w_lost),
		       ORD_new_head, "lost->next");
		w_new_head = 0 };
	atomic { STORE(WRITER, NEXT(now.w_tail), LINK(PAGE(now.w_link), NORMAL),
		       ORD_old_head, "tail->next") }
}

inline move_tail()
{
	atomic { LOAD(w_link, WRITER, NEXT(now.w_tail), ORD_tail_next, "tail->next");
		w_entries[w_tail] = 1 };
	do
	:: atomic { FLAG(w_link) == HEAD ->
		EXCHANGE(w_stored, w_link, WRITER, NEXT(now.w_tail),
			 LINK(PAGE(now.w_link), MOVING), ORD_head_moving, FAIL_head_moving,
			 "tail->next");
		if
		:: w_stored -> break
		:: else -> printf("writer: a swap has replaced the head\n")
		fi }
	:: atomic { FLAG(w_link) != HEAD -> break }
	od;
	w_stored = 0;
	if
	:: atomic { FLAG(w_link) == HEAD -> printf("writer: overrun\n") }
	   drop_head()
	:: else
	fi
}

/* set_tail(), and the first event of the page */
inline begin_page()
{
	w_tail = PAGE(w_link);
	w_link = 0;
	w_entries[w_tail] = 0;
	c_code { check_unused(&now.mem, WRITER, EVENT(now.w_tail)); };
	STORE(WRITER, COMMIT(now.w_tail), 0, RELAXED, "commit");
	w_touched++;
	STORE_SKIP(WRITER, PAGES_TOUCHED, now.w_touched, ORD_pages_touched, "pages_touched");
}

inline write_event()
{
	PLAIN_WRITE(WRITER, EVENT(now.w_tail), "event");
	serial[w_tail] = w_event;
	w_event++;
	STORE(WRITER, COMMIT(now.w_tail), 1, ORD_commit, "commit");
	STORE(WRITER, ENTRIES, now.w_event, ORD_entries, "entries")
}

proctype writer()
{
	atomic { write_event() };
	do
	:: w_event < EVENTS ->
		move_tail();
		atomic { begin_page(); write_event() }
	:: atomic { w_event == EVENTS -> break }
	od;
	writer_ended = 1
}

/* --- the host ---------------------------------------------------------------------------- */

byte h_entries, h_read, h_lost, h_taken; /* struct reader_cpu */
byte h_page;
bool h_consumed; /* offset: behind the event */
byte h_prev[PAGES];
byte h_head = 1;
byte h_reader;
byte h_last_overrun;
byte h_commit, h_overrun, h_find, h_steps, h_last, h_link, h_next;
byte h_seen_lost, h_seen_touched;
bool h_stored, h_joined, h_found, h_owns;

#define in_batch (h_entries > h_read + h_lost)

#ifdef SKIP
#define CHECK_SERIAL skip
#else
#define CHECK_SERIAL assert(serial[h_page] == h_read + h_lost)
#endif

/* look_on_page(), and consume() where there is an event and the batch is not over. */
inline look_on_page()
{
	if
	:: !h_consumed ->
		LOAD(h_commit, HOST, COMMIT(now.h_page), ORD_see_commit, "commit");
		c_code { use(&now.mem, HOST, EVENT(now.h_page)); };
		if
		:: h_commit ->
			PLAIN_READ(HOST, EVENT(now.h_page), "event");
			CHECK_SERIAL;
			if
			:: in_batch ->
				h_found = 1;
				h_consumed = 1;
				h_read++
			:: else
			fi
		:: else
		fi;
		h_commit = 0
	:: else
	fi
}

inline find_head()
{
	h_find = h_head;
	h_steps = 2 * PAGES;
	do
	:: atomic { h_steps ->
		LOAD(h_link, HOST, NEXT(now.h_prev[now.h_find]), ORD_find_head, "prev->next");
		if
		:: FLAG(h_link) == HEAD -> break
		:: FLAG(h_link) == MOVING -> printf("host: the head is moving\n")
		:: else ->
			h_steps--;
			LOAD(h_link, HOST, NEXT(now.h_find), RELAXED, "page->next");
			h_find = PAGE(h_link)
		fi;
		h_link = 0 }
	:: atomic { !h_steps ->
		/* Not a mark: in 3 pages that takes 8 events. Each NORMAL that
		 * hid the head took a loss; those before it were free. */
		assert(w_lost - h_last_overrun >= 2 * PAGES - (CIRCLE - 1));
		break }
	od;
	h_find = 0
}

inline put_reader_in_place()
{
	atomic { h_find = PAGE(h_link); /* the head */
		LOAD(h_next, HOST, NEXT(now.h_find), RELAXED, "head->next");
		h_next = PAGE(h_next);
		h_last = h_prev[h_find];
		STORE(HOST, NEXT(now.h_reader), HEAD_LINK(now.h_next, TAG(now.h_link)), RELAXED,
		      "reader->next");
		h_prev[h_reader] = h_last;
		LOAD(h_overrun, HOST, OVERRUN, RELAXED, "overrun") };
	atomic { EXCHANGE(h_stored, h_link, HOST, NEXT(now.h_last), LINK(now.h_reader, NORMAL),
			  ORD_put_reader, FAIL_put_reader, "last->next");
		if
		:: h_stored ->
			h_prev[h_next] = h_reader;
			h_head = h_next;
			h_reader = h_find
		:: else -> printf("host: the writer has moved the head\n")
		fi;
		h_find = 0;
		h_next = 0;
		h_last = 0 }
}

inline take_page()
{
	h_page = h_reader;
	h_taken++;
	h_consumed = 0;
	h_lost = h_lost + h_overrun - h_last_overrun;
	h_last_overrun = h_overrun
}

/* One try: the next one is after the next poll, which may find nothing new. */
inline swap_page()
{
	find_head();
	if
	:: h_steps ->
		h_steps = 0;
		put_reader_in_place();
		atomic { if
			:: h_stored -> take_page()
			:: else
			fi }
	:: else
	fi;
	h_link = 0;
	h_overrun = 0
}

#ifdef SKIP

inline skip_page()
{
	if
	:: !h_consumed -> h_consumed = 1; printf("host: broken page\n")
	:: true
	fi
}

/* give_up_promised(); @none: no event that the last poll knew of is to be had any more */
inline give_up_promised(none)
{
	assert(none);
	h_read = h_entries - h_lost
}

inline owns_tail()
{
	atomic { LOAD(h_seen_lost, HOST, PAGES_LOST, ORD_see_lost, "pages_lost") };
	atomic { LOAD(h_seen_touched, HOST, PAGES_TOUCHED, ORD_see_touched, "pages_touched");
		h_owns = (h_taken + h_seen_lost >= h_seen_touched + 1);
		h_seen_lost = 0;
		h_seen_touched = 0;
		if
		:: h_owns ->
			printf("host: owns the tail\n");
			give_up_promised(h_entries <= serial[h_page] + 1)
		:: else ->
			assert(w_tail != h_page);
			printf("host: does not own the tail\n")
		fi }
}

#else

inline skip_page() { skip }

/* Without broken pages, a page is always where the counters say that it is. */
inline give_up_promised(none) { assert(false) }
inline owns_tail() { assert(w_tail != h_page) }

#endif

/* peek_cpu() and consume(); h_found: there was an event */
inline next_event()
{
	h_found = 0;
	skip_page();
	atomic { look_on_page() };
	if
	:: h_found -> printf("host: next event on the page\n")
	:: else ->
		owns_tail();
		if
		:: h_owns
		:: else ->
			swap_page();
			if
			:: atomic { h_stored -> h_stored = 0;
				look_on_page();
				if
				:: !h_found && in_batch -> give_up_promised(h_entries <= serial[h_page])
				:: !h_found && !in_batch -> printf("host: the batch was overwritten\n")
				:: h_found
				fi }
			:: else
			fi
		fi
	fi;
	h_owns = 0
}

proctype host()
{
	do
	:: atomic { LOAD(h_entries, HOST, ENTRIES, ORD_see_entries, "entries") };
		do
		:: in_batch -> next_event();
			if
			:: h_found
			:: else -> break
			fi
		:: else -> break
		od;
		h_found = 0;
		if
		:: h_joined && !in_batch -> break
		:: else
		fi;
		atomic { if
			:: writer_ended && !h_joined ->
				c_code { join_threads(&now.mem, HOST); };
				h_joined = 1
			:: else
			fi }
	od;
	assert(h_read + h_lost == EVENTS);
	assert(h_lost == w_overrun);
	printf("host: has read all\n")
}

init {
	c_code {
		init_memory(&now.mem);
		for (int page = 1; page < PAGES; page++) {
			int next = page % CIRCLE + 1;

			init_location(&now.mem, NEXT(page),
				      next == 1 ? HEAD_LINK(next, 0) : LINK(next, NORMAL));
			now.h_prev[next] = page;
		}
	};
	atomic { run writer(); run host() }
}
