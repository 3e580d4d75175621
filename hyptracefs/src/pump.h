/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pump: a thread that takes every request from /dev/fuse. Reads of pipes it answers, now
 * or when there are events; all else it passes on to libfuse, in order.
 *
 * It and the event loop never run at the same time: one of them has the floor. The event loop
 * leaves it while it sleeps. So what is written for one thread holds for two: whoever runs
 * finds things as the other one left them, and nothing needs a lock of its own.
 */
#ifndef HYPTRACEFS_PUMP_H
#define HYPTRACEFS_PUMP_H

#include <stddef.h>
#include <stdint.h>

#include "pipe.h"

/* In a file handle: the rest of it is the address of a struct pipe_end. */
#define PUMP_PIPE (1ULL << 62)
/* In a file handle: other flags, no part of that address. */
#define PUMP_FLAGS (3ULL << 62)

struct pump;

/* For @device, /dev/fuse of a session. NULL and errno. */
struct pump *pump_create(int device);
void pump_destroy(struct pump *pump);

/* A file descriptor that is readable when pump_receive() has something. */
int pump_inbox(const struct pump *pump);

/*
 * The next request for libfuse, with the floor. Returns its bytes, at *@message, to be given
 * to free(); 0: none; -ENODEV: and there will be none.
 */
ptrdiff_t pump_receive(struct pump *pump, void **message);

/* Before it starts. */
void pump_add(struct pump *pump, struct event_source *source);

/* Start the thread; the caller has the floor from here on. 0, -errno: no thread, no floor. */
int pump_start(struct pump *pump);
/* End the thread, with the floor, which nobody has then. Who waits is not answered. */
void pump_stop(struct pump *pump);

/* Wait for the floor, in the order of asking. */
void pump_enter(struct pump *pump);
void pump_leave(struct pump *pump);

#endif
