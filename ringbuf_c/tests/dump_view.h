/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the text of a dump of CPU 0 says, taken line by line. Serials rise by one, except
 * where a LOST line says by how many they do not, and before and behind the reader page: what
 * was lost there had been lost before. When an event was follows from its serial, so that
 * none is shown torn.
 */
#ifndef RINGBUF_C_TESTS_DUMP_VIEW_H
#define RINGBUF_C_TESTS_DUMP_VIEW_H

#include "support.h"

#define EXTEND_EVERY 1009U

/* cmocka's asserts are a call each: too slow for each event. */
#define expect(condition)                                     \
	do {                                                  \
		if (unlikely(!(condition)))                   \
			fail_msg("not true: %s", #condition); \
	} while (0)

static inline u64 event_time(u64 serial)
{
	return serial * 1000 + serial / EXTEND_EVERY * (2ULL << RB_TIME_DELTA_BITS);
}

struct view {
	u64 serial;    /* of the last event that is known of */
	u64 seen;      /* events shown or told as lost */
	u64 of_reader; /* of these: on the reader page when the dump began */
	u64 of_host;   /* and on all pages that were the host's; there may be gaps between them */
	u32 gaps;      /* lost before the dump began */
	u64 lost;
};

static inline const char *skip_text(const char *at, const char *text)
{
	for (; *text; text++, at++)
		expect(*at == *text);
	return at;
}

static inline const char *take_number(const char *at, u64 *number)
{
	expect(*at >= '0' && *at <= '9');
	for (*number = 0; *at >= '0' && *at <= '9'; at++)
		*number = *number * 10 + (u64)(*at - '0');
	return at;
}

static inline const char *take_event(const char *at, u64 *serial)
{
	u64 sec, usec;

	at = skip_text(at, "[000]\t");
	while (*at == ' ')
		at++;
	at = take_number(at, &sec);
	at = take_number(skip_text(at, "."), &usec);
	at = take_number(skip_text(at, ": selftest id="), serial);
	expect(sec * 1000000 + usec == event_time(*serial) / 1000);
	return skip_text(at, "\n");
}

static inline void note_lost(struct view *view, u64 number)
{
	expect(number > 0);
	view->seen += number;
	view->serial += number;
	view->lost += number;
}

/*
 * There may be a gap where the events of a page of the host's end, or where they end within a
 * loss; and before the first event: the consuming reader has not been told yet.
 */
static inline void note_event(struct view *view, u64 serial, u64 lost_just_before)
{
	bool is_first = view->seen == lost_just_before;
	bool behind_reader_page = view->seen >= view->of_reader &&
				  view->seen - lost_just_before <= view->of_host;

	expect(serial > view->serial);
	if (unlikely(serial != view->serial + 1)) {
		if (!is_first && !behind_reader_page)
			fail_msg("event %llu after %llu", (unsigned long long)serial,
				 (unsigned long long)view->serial);
		view->gaps++;
	}
	view->serial = serial;
	view->seen++;
}

static inline void take_text(struct view *view, const char *at, const char *end)
{
	u64 number, lost = 0;

	while (at < end) {
		if (*at == 'C') {
			at = take_number(skip_text(at, "CPU:0 [LOST "), &lost);
			at = skip_text(at, " EVENTS]\n");
			note_lost(view, lost);
			continue;
		}
		at = take_event(at, &number);
		note_event(view, number, lost);
		lost = 0;
	}
	expect(at == end);
}

#endif
