/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of the models: an operational C11 machine with views, as in ORC11.
 *
 * A location is a list of messages, oldest first: a value, and the view that an acquire
 * load of it joins. A view says, for each location, which is the oldest message that may
 * still be read; and which plain accesses of the other thread happened before. So a
 * relaxed load may read anything that is not older than its thread's view, and a plain
 * access that the thread's view does not order is a race: an error, as in C11.
 *
 * What it shows: every outcome in which a load reads a value older than the newest, on any
 * machine and for any compiler, and every data race, that of a late read with an
 * early write included; SC accesses and membarrier(2) through a global view.
 *
 * What it does not show: a load that reads a store executed later (load buffering; values
 * out of thin air: there are no promises). An ordering that is needed only against that,
 * of a read before a later write, is shown by the race of the plain accesses that it
 * orders. And a store or an exchange is always the newest message: it is an error if it
 * could have been placed before a store that came earlier.
 *
 * The program that runs on the machine is a copy by hand of the C source: the
 * orderings come from the source, the order of the statements does not.
 *
 * The model defines NR_LOCATIONS, NR_MESSAGES, NR_OBJECTS; FENCES, if it has any.
 */
#include <stdarg.h>
#include <string.h>

#define NR_THREADS 2

enum { RELAXED = 0, ACQUIRE = 1, RELEASE = 2, ACQ_REL = 3, SEQ_CST = 7 };

typedef unsigned char u8;
typedef unsigned short u16;

/* Bits of view.seen, for each object of plain memory. */
#define SEEN_WRITE(object) (1U << (3 * (object)))             /* the last write */
#define SEEN_READS(object, thread) (2U << (3 * (object) + (thread))) /* all reads of a thread */
#define SEEN_ALL ((1U << (3 * NR_OBJECTS)) - 1)
#define BY_EXCHANGE 0x8000U /* of a message only: no store can come before it */

/* Packed: these are compared as bytes. */
struct view {
	u8 oldest[NR_LOCATIONS]; /* index of a message */
	u16 seen;
} __attribute__((packed));

struct message {
	u8 value;
	struct view view;
} __attribute__((packed));

struct memory {
	struct view now[NR_THREADS]; /* what the thread knows */
#ifdef FENCES
	struct view acquired[NR_THREADS]; /* would know after an acquire fence */
	struct view released[NR_THREADS]; /* knew at its last release fence */
	struct view sc;
#endif
	u8 count[NR_LOCATIONS];
	struct message messages[NR_LOCATIONS][NR_MESSAGES];
} __attribute__((packed));

extern void (*uerror)(char *); /* pan: the search has found an error */
extern int readtrail; /* pan: we replay a trail */

static const char *const thread_names[NR_THREADS] = { "writer", "host" };
static const char *const order_names[] = {
	[RELAXED] = "relaxed", [ACQUIRE] = "acquire", [RELEASE] = "release",
	[ACQ_REL] = "acq_rel", [SEQ_CST] = "seq_cst",
};

static void say(const char *format, ...)
{
	va_list args;

	if (!readtrail)
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
}

static void fail(char *what)
{
	say("        ERROR: %s\n", what);
	uerror(what);
}

static void join(struct view *view, const struct view *with)
{
	for (int i = 0; i < NR_LOCATIONS; i++)
		if (view->oldest[i] < with->oldest[i])
			view->oldest[i] = with->oldest[i];
	view->seen |= with->seen & SEEN_ALL;
}

/* --- what no thread can tell apart shall be one state --------------------------------- */

static void each_view(struct memory *m, void (*change)(struct view *, int, int), int a, int b)
{
	for (int t = 0; t < NR_THREADS; t++) {
		change(&m->now[t], a, b);
#ifdef FENCES
		change(&m->acquired[t], a, b);
		change(&m->released[t], a, b);
#endif
	}
#ifdef FENCES
	change(&m->sc, a, b);
#endif
	for (int i = 0; i < NR_LOCATIONS; i++)
		for (int k = 0; k < m->count[i]; k++)
			change(&m->messages[i][k].view, a, b);
}

static void rebase_view(struct view *view, int location, int base)
{
	u8 *oldest = &view->oldest[location];

	*oldest = *oldest > base ? *oldest - base : 0;
}

static void add_seen(struct view *view, int seen, int unused)
{
	(void)unused;
	view->seen |= (u16)seen;
}

static void clear_seen(struct view *view, int seen, int unused)
{
	(void)unused;
	view->seen &= (u16)~seen;
}

/* Forget the messages that nobody can read any more. */
static void forget_old(struct memory *m, int location)
{
	struct message *messages = m->messages[location];
	int base = m->now[0].oldest[location];

	for (int t = 1; t < NR_THREADS; t++)
		if (base > m->now[t].oldest[location])
			base = m->now[t].oldest[location];
	if (!base)
		return;
	m->count[location] -= base;
	memmove(messages, messages + base, m->count[location] * sizeof(*messages));
	memset(messages + m->count[location], 0, base * sizeof(*messages));
	each_view(m, rebase_view, location, base);
}

static void normalise(struct memory *m)
{
	u16 all = SEEN_ALL;

	for (int i = 0; i < NR_LOCATIONS; i++)
		forget_old(m, i);
	for (int t = 0; t < NR_THREADS; t++)
		all &= m->now[t].seen;
	each_view(m, add_seen, all, 0);
}

/* --- the accesses ------------------------------------------------------------------------ */

static void init_memory(struct memory *m)
{
	memset(m, 0, sizeof(*m));
	for (int i = 0; i < NR_LOCATIONS; i++)
		m->count[i] = 1;
	each_view(m, add_seen, SEEN_ALL, 0);
}

static void init_location(struct memory *m, int location, u8 value)
{
	m->messages[location][0].value = value;
}

static int newest(const struct memory *m, int location)
{
	return m->count[location] - 1;
}

/* By how much what can still be read may be older than the newest message. */
static u8 oldest_readable(const struct memory *m, int t, int location, int order)
{
	int oldest = m->now[t].oldest[location];

#ifdef FENCES
	if (order == SEQ_CST && oldest < m->sc.oldest[location])
		oldest = m->sc.oldest[location];
#else
	(void)order;
#endif
	return (u8)(newest(m, location) - oldest);
}

static void know(struct memory *m, int t, const struct view *view)
{
	join(&m->now[t], view);
#ifdef FENCES
	join(&m->acquired[t], view);
#endif
}

static void know_position(struct memory *m, int t, int location, int at)
{
	struct view view = { .seen = 0 };

	view.oldest[location] = (u8)at;
	know(m, t, &view);
}

static u8 read_message(struct memory *m, int t, int location, int at, int order)
{
	const struct message *message = &m->messages[location][at];

	know_position(m, t, location, at);
	if (order & ACQUIRE)
		know(m, t, &message->view);
#ifdef FENCES
	else
		join(&m->acquired[t], &message->view);
#endif
	return message->value;
}

static u8 load(struct memory *m, int t, int location, int back, int order, const char *name)
{
	int stale = back;
	u8 value = read_message(m, t, location, newest(m, location) - back, order);

	say("%s: %s = %#x (%s%s)\n", thread_names[t], name, value, order_names[order],
	    stale ? ", stale" : "");
	normalise(m);
	return value;
}

/* @view: what the message carries in any case. */
static void add_message(struct memory *m, int t, int location, u8 value, int order,
			const struct view *view)
{
	int at = m->count[location];
	struct message *message = &m->messages[location][at];

	if (at == NR_MESSAGES) {
		fail("NR_MESSAGES is too small");
		return;
	}
	m->count[location]++;
	know_position(m, t, location, at);
	message->value = value;
	message->view = *view;
	message->view.oldest[location] = (u8)at;
	message->view.seen &= SEEN_ALL;
#ifdef FENCES
	join(&message->view, &m->released[t]);
	if (order == SEQ_CST)
		m->sc.oldest[location] = (u8)at;
#endif
	if (order & RELEASE)
		join(&message->view, &m->now[t]);
	normalise(m);
}

static void store(struct memory *m, int t, int location, u8 value, int order, const char *name)
{
	static const struct view nothing;

	say("%s: %s := %#x (%s)\n", thread_names[t], name, value, order_names[order]);
	if (m->now[t].oldest[location] != newest(m, location))
		fail("a store races with a store");
	add_message(m, t, location, value, order, &nothing);
}

/*
 * Compare and exchange; reads the message that is @back older than the newest. A failure
 * may read any value but the expected one. Returns whether it stored.
 */
static int exchange(struct memory *m, int t, int location, int back, u8 *expected, u8 value,
		    int order, int fail_order, const char *name)
{
	int at = newest(m, location) - back;
	struct view carried;

	if (back && m->messages[location][at].value == *expected) {
		if (!(m->messages[location][at + 1].view.seen & BY_EXCHANGE))
			fail("an exchange races with a store");
		at = newest(m, location);
	}
	if (m->messages[location][at].value != *expected) {
		u8 seen = read_message(m, t, location, at, fail_order);

		say("%s: %s exchange of %#x for %#x failed: %#x (%s)\n", thread_names[t], name,
		    *expected, value, seen, order_names[fail_order]);
		*expected = seen;
		normalise(m);
		return 0;
	}
	say("%s: %s exchanged: %#x for %#x (%s)\n", thread_names[t], name, *expected, value,
	    order_names[order]);
	read_message(m, t, location, at, order);
	carried = m->messages[location][at].view;
	add_message(m, t, location, value, order, &carried);
	m->messages[location][newest(m, location)].view.seen |= BY_EXCHANGE;
	return 1;
}

/* Store whatever is there. Returns what was: the newest message. */
static u8 swap(struct memory *m, int t, int location, u8 value, int order, const char *name)
{
	u8 there = m->messages[location][newest(m, location)].value;

	exchange(m, t, location, 0, &there, value, order, order, name);
	return there;
}

#ifdef FENCES
static void fence(struct memory *m, int t)
{
	say("%s: full barrier\n", thread_names[t]);
	join(&m->now[t], &m->acquired[t]);
	join(&m->now[t], &m->sc);
	m->acquired[t] = m->now[t];
	m->released[t] = m->now[t];
	m->sc = m->now[t];
	normalise(m);
}
#endif

/* All that the other threads did happened before. */
static void join_threads(struct memory *m, int t)
{
	say("%s: the other thread has ended\n", thread_names[t]);
	for (int u = 0; u < NR_THREADS; u++)
		know(m, t, &m->now[u]);
	normalise(m);
}

/* --- plain memory ------------------------------------------------------------------------ */

static void note(struct memory *m, int t, int seen)
{
	struct view view = { .seen = (u16)seen };

	each_view(m, clear_seen, seen, 0);
	know(m, t, &view);
	normalise(m);
}

/* The thread uses something that the others may not overwrite until they know. */
static void use(struct memory *m, int t, int object)
{
	note(m, t, SEEN_READS(object, t));
}

static void check_unused(const struct memory *m, int t, int object)
{
	for (int u = 0; u < NR_THREADS; u++)
		if (u != t && !(m->now[t].seen & SEEN_READS(object, u)))
			fail("overwritten while the other thread uses it");
}

static void plain_read(struct memory *m, int t, int object, const char *name)
{
	say("%s: reads %s\n", thread_names[t], name);
	if (!(m->now[t].seen & SEEN_WRITE(object)))
		fail("plain read without the last write");
	use(m, t, object);
}

static void plain_write(struct memory *m, int t, int object, const char *name)
{
	say("%s: writes %s\n", thread_names[t], name);
	if (!(m->now[t].seen & SEEN_WRITE(object)))
		fail("plain write races with a write");
	check_unused(m, t, object);
	note(m, t, SEEN_WRITE(object));
}
