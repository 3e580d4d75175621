/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open pipes and where their events come from, as the pump sees them: something to read from,
 * and something to wait for, without Python. The border between _ringbuf, which fills these
 * in, and the pump, which knows no buffers.
 *
 * All of it is touched by who has the floor (pump.h), and by nobody else.
 */
#ifndef HYPTRACEFS_PIPE_H
#define HYPTRACEFS_PIPE_H

#include <stdbool.h>
#include <stdint.h>

struct pipe_end;
struct parked_read;
struct pump;

#define PIPE_ALL_CPUS UINT32_MAX
#define PIPE_NO_CPU   (UINT32_MAX - 1)

/* A remote. Lives as long as the pump does. */
struct event_source {
	/* How much is unread, as it is now, of @cpu or of all. */
	uint64_t (*unread)(struct event_source *source, uint32_t cpu);
	/* Whether the last take() ended early, with more to look through. */
	bool (*unfinished)(struct event_source *source);
	/* Have the bell ring at the next event of @cpu, or of any. 0, -errno. */
	int (*arm)(struct event_source *source, uint32_t cpu);

	/* --- set by its owner, who then calls changed() ---------------------------------- */
	int alive_fd;        /* hangs up when the hypervisor is gone; -1: it never does */
	int bell_fd;         /* a socket that gets a message when it rings; -1: look */
	int64_t interval_ns; /* between two looks; 0: it adapts */
	bool gone;           /* nobody writes any more: its owner answers */
	bool wanted;         /* its owner wants to be told, once, of events of @wanted_cpu */
	uint32_t wanted_cpu;
	int told_fd; /* an eventfd: events are there, or it is gone, or the bell is dead */

	/* --- the pump's ------------------------------------------------------------------ */
	void (*changed)(struct event_source *source); /* NULL: no pump runs */
	struct pump *pump;
	struct event_source *next;
	struct parked_read *parked, **last; /* reads that wait, in their order */
	int64_t quiet_since, next_look;     /* ns of CLOCK_MONOTONIC */
	bool armed;
	bool again; /* the last look has not seen all */
	uint32_t nr_parked;
	uint64_t nr_looks, nr_armed;
};

/* The shortest and the longest time between two looks (ns); that of the reference is 100 ms. */
#define EVENTS_SHORTEST_NS 100000
#define EVENTS_LONGEST_NS  100000000
/* The part of the time without events by which one may be seen too late. */
#define EVENTS_LATE 64

/* When to look next (ns), after so long without events. @fixed_ns: always so; 0: it adapts. */
static inline int64_t events_interval(int64_t waited_ns, int64_t fixed_ns)
{
	int64_t part = waited_ns / EVENTS_LATE;

	if (fixed_ns)
		return fixed_ns;
	if (part < EVENTS_SHORTEST_NS)
		return EVENTS_SHORTEST_NS;
	return part < EVENTS_LONGEST_NS ? part : EVENTS_LONGEST_NS;
}

struct pipe_end {
	/*
	 * Consume up to @size bytes. Returns how many there are at *@data, valid until the next
	 * call for any pipe; 0: none now.
	 */
	uint32_t (*take)(struct pipe_end *pipe, const uint8_t **data, uint32_t size);
	/*
	 * Consume what belongs at @offset of the page cache, once: asked again, it is the same.
	 * Returns the bytes at *@data, -errno. It does not wait.
	 */
	int (*cache)(struct pipe_end *pipe, const uint8_t **data, uint32_t size, uint64_t offset);
	uint64_t cached; /* inode whose page cache has asked; 0: none has */
	struct event_source *source;
	uint32_t cpu;
};

#endif
