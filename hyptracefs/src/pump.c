// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "pump.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The largest request, a write of 1 MiB, and its headers. */
#define MAX_REQUEST ((1U << 20) + (1U << 13))
/* Who waits for the floor gets it after so long (ns), and a request more. */
#define BURST_NS 1000000
/* What there was no room for is tried again after so long (ns). */
#define NO_ROOM_NS 1000000
/* The pump sleeps as exactly as it can. */
#define TIMER_SLACK_NS 1000UL
/* What it asks the scheduler for, which is the least. */
#define SLICE_NS 100000
/* What is rung while nobody listens is one for each time of arming; more is not believed. */
#define MOST_RINGS 16

#define MAX_SOURCES 8
#define MAX_FDS     (2 + 2 * MAX_SOURCES)

/* Who has the floor, and who is next: a ticket each. */
struct floor {
	pthread_mutex_t lock;
	pthread_cond_t turn;
	unsigned int next, now;
};

struct message {
	struct message *next;
	size_t size;
	void *bytes;
};

struct parked_read {
	struct parked_read *next;
	struct fuse_in_header header;
	struct fuse_read_in read;
};

struct pump {
	struct floor floor;
	pthread_t thread;
	int device, inbox, kick;
	bool stopping;
	bool ended; /* the device: there are no more requests */
	struct message *messages, **last;
	struct event_source *sources;
	uint32_t nr_sources;
	size_t held; /* bytes of the request, if there was no room to pass it on; or 0 */
	uint8_t request[MAX_REQUEST] __attribute__((aligned(8)));
};

static int64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* --- the floor --------------------------------------------------------------------------- */

void pump_enter(struct pump *pump)
{
	struct floor *floor = &pump->floor;
	unsigned int ticket;

	pthread_mutex_lock(&floor->lock);
	ticket = floor->next++;
	while (ticket != floor->now)
		pthread_cond_wait(&floor->turn, &floor->lock);
	pthread_mutex_unlock(&floor->lock);
}

void pump_leave(struct pump *pump)
{
	struct floor *floor = &pump->floor;

	pthread_mutex_lock(&floor->lock);
	floor->now++;
	if (floor->now != floor->next)
		pthread_cond_broadcast(&floor->turn);
	pthread_mutex_unlock(&floor->lock);
}

/* --- what is passed on -------------------------------------------------------------------- */

static void ring(int eventfd)
{
	const uint64_t one = 1;
	ssize_t written = write(eventfd, &one, sizeof(one));

	(void)written; /* it is full of rings, if not */
}

static void hush(int eventfd)
{
	uint64_t count;
	ssize_t got = read(eventfd, &count, sizeof(count));

	(void)got;
}

/* Of a request that libfuse has not seen. An error says that who asked is gone. */
static void reply(const struct pump *pump, uint64_t unique, int error, const void *data,
		  size_t size)
{
	struct fuse_out_header header = { .len = (uint32_t)(sizeof(header) + size),
					  .error = error,
					  .unique = unique };
	struct iovec parts[] = { { &header, sizeof(header) }, { (void *)data, size } };
	ssize_t written = writev(pump->device, parts, size ? 2 : 1);

	(void)written;
}

static struct message *message_of(const void *bytes, size_t size)
{
	struct message *message = malloc(sizeof(*message));

	if (!message)
		return NULL;
	*message = (struct message){ .size = size, .bytes = malloc(size) };
	if (!message->bytes) {
		free(message);
		return NULL;
	}
	memcpy(message->bytes, bytes, size);
	return message;
}

/* Whether there was room for it. */
static bool pass_on(struct pump *pump, const void *bytes, size_t size)
{
	struct message *message = message_of(bytes, size);

	if (!message)
		return false;
	if (!pump->messages)
		ring(pump->inbox);
	*pump->last = message;
	pump->last = &message->next;
	return true;
}

ptrdiff_t pump_receive(struct pump *pump, void **bytes)
{
	struct message *message = pump->messages;
	ptrdiff_t size;

	if (!message)
		return pump->ended ? -ENODEV : 0;
	pump->messages = message->next;
	if (!pump->messages) {
		pump->last = &pump->messages;
		if (!pump->ended)
			hush(pump->inbox);
	}
	size = (ptrdiff_t)message->size;
	*bytes = message->bytes;
	free(message);
	return size;
}

/* --- reads that wait ----------------------------------------------------------------------- */

static void look_again(struct event_source *source, int64_t now)
{
	source->next_look = now + events_interval(now - source->quiet_since, source->interval_ns);
}

/* Somebody begins to wait, or has got something: events may come soon. */
static void expect_events(struct event_source *source, int64_t now)
{
	source->quiet_since = now;
	source->armed = false;
	look_again(source, now);
}

static bool park(struct event_source *source, const struct fuse_in_header *header,
		 const struct fuse_read_in *read)
{
	struct parked_read *parked = malloc(sizeof(*parked));

	if (!parked)
		return false;
	*parked = (struct parked_read){ .header = *header, .read = *read };
	*source->last = parked;
	source->last = &parked->next;
	source->nr_parked++;
	expect_events(source, monotonic_ns());
	return true;
}

/* Take what *@link points to out of the list. */
static void unpark(struct event_source *source, struct parked_read **link)
{
	struct parked_read *parked = *link;

	*link = parked->next;
	if (!*link)
		source->last = link;
	source->nr_parked--;
	free(parked);
}

static struct pipe_end *pipe_at(uint64_t handle)
{
	return handle & PUMP_PIPE ? (struct pipe_end *)(uintptr_t)(handle & ~PUMP_FLAGS) : NULL;
}

/* Whether a read got something. */
static bool answer(const struct pump *pump, struct pipe_end *pipe, uint64_t unique, uint32_t size)
{
	const uint8_t *data;
	uint32_t done = pipe->take(pipe, &data, size);

	if (done)
		reply(pump, unique, 0, data, done);
	return done > 0;
}

/*
 * Whether it got something. If it has only looked through some of what there is, look again.
 * Many may wait for a CPU: *@empty is one that is known to have nothing.
 */
static bool serve(const struct pump *pump, struct event_source *source,
		  const struct parked_read *parked, uint32_t *empty)
{
	struct pipe_end *pipe = pipe_at(parked->read.fh);

	if (pipe->cpu == *empty)
		return false;
	if (!source->unread(source, pipe->cpu)) {
		*empty = pipe->cpu;
		return false;
	}
	if (answer(pump, pipe, parked->header.unique, parked->read.size))
		return true;
	source->again |= source->unfinished(source);
	return false;
}

/* Whether a parked read was served; some may be, and others not, or not wholly looked for. */
static bool serve_parked(const struct pump *pump, struct event_source *source)
{
	struct parked_read **link = &source->parked;
	uint32_t empty = PIPE_NO_CPU;
	bool served = false;

	while (*link) {
		if (serve(pump, source, *link, &empty)) {
			unpark(source, link);
			served = true;
		} else {
			link = &(*link)->next;
		}
	}
	return served;
}

static void tell(struct event_source *source)
{
	source->wanted = false;
	ring(source->told_fd);
}

static bool serve_owner(struct event_source *source)
{
	if (!source->wanted || !source->unread(source, source->wanted_cpu))
		return false;
	tell(source);
	return true;
}

static bool has_waiters(const struct event_source *source)
{
	return source->parked || source->wanted;
}

/* The one CPU that is waited for, or all. */
static uint32_t waited_for(const struct event_source *source)
{
	uint32_t cpu = source->wanted ? source->wanted_cpu : pipe_at(source->parked->read.fh)->cpu;

	for (const struct parked_read *parked = source->parked; parked; parked = parked->next) {
		if (pipe_at(parked->read.fh)->cpu != cpu)
			return PIPE_ALL_CPUS;
	}
	return cpu;
}

/* Messages of before. Whether somebody is still at the other end. */
static bool drain(int bell_fd)
{
	char message;

	for (int i = 0; i < MOST_RINGS; i++) {
		ssize_t got = recv(bell_fd, &message, sizeof(message), MSG_DONTWAIT);

		if (got < 0)
			return errno == EAGAIN || errno == EINTR;
		if (!got)
			return false;
	}
	return true;
}

/* Whether the bell rings for the next event that a look from now on misses. */
static bool arm(struct event_source *source)
{
	if (source->bell_fd < 0)
		return false;
	if (!drain(source->bell_fd) || source->arm(source, waited_for(source))) {
		source->bell_fd = -1; /* its owner finds that, and says so */
		tell(source);
		return false;
	}
	source->nr_armed++;
	source->armed = true;
	return true;
}

static bool look(const struct pump *pump, struct event_source *source)
{
	bool served;

	source->nr_looks++;
	source->again = false;
	served = serve_parked(pump, source);
	return serve_owner(source) || served;
}

/*
 * Serve who waits, and know when to look again.
 *
 * A bell that rings with nothing to see is not armed again at once: the time without events
 * goes on, and a part of it is slept. Beside an armed one, look now and then all the same.
 */
static void look_and_wait(const struct pump *pump, struct event_source *source, bool rung)
{
	int64_t now = monotonic_ns();

	if (look(pump, source) || (!rung && !source->armed && arm(source) && look(pump, source))) {
		expect_events(source, now);
		return;
	}
	look_again(source, now);
	if (rung)
		source->armed = false;
	else if (source->armed && source->next_look < now + EVENTS_LONGEST_NS)
		source->next_look = now + EVENTS_LONGEST_NS;
	if (source->again)
		source->next_look = now; /* but let others have the floor */
}

/* Its owner does what can be done without a hypervisor. What there is no room for waits on. */
static void give_back(struct pump *pump, struct event_source *source)
{
	struct {
		struct fuse_in_header header;
		struct fuse_read_in read;
	} request;

	while (source->parked) {
		request.header = source->parked->header;
		request.read = source->parked->read;
		if (!pass_on(pump, &request, sizeof(request)))
			break;
		unpark(source, &source->parked);
	}
	if (source->wanted)
		tell(source);
}

/* --- requests ------------------------------------------------------------------------------ */

/* A splice, or a sendfile: the kernel says who reads, but for the page cache nobody does. */
static bool is_for_page_cache(const struct fuse_read_in *read)
{
	return !(read->read_flags & FUSE_READ_LOCKOWNER) || !read->lock_owner;
}

/* Whether the page cache has been answered. */
static bool handle_cache(const struct pump *pump, struct pipe_end *pipe,
			 const struct fuse_in_header *header, const struct fuse_read_in *read)
{
	const uint8_t *data;
	int done = pipe->cache(pipe, &data, read->size, read->offset);

	if (done == -EAGAIN && pipe->source->gone)
		return false;
	pipe->cached = header->nodeid;
	reply(pump, header->unique, done < 0 ? done : 0, data, done < 0 ? 0 : (size_t)done);
	return true;
}

/* Whether the read has been answered, or will be. */
static bool handle_read(struct pump *pump, const struct fuse_in_header *header,
			const struct fuse_read_in *read)
{
	struct pipe_end *pipe = pipe_at(read->fh);
	struct event_source *source;

	if (!pipe)
		return false;
	if (is_for_page_cache(read))
		return handle_cache(pump, pipe, header, read);
	source = pipe->source;
	if (answer(pump, pipe, header->unique, read->size))
		return true;
	if (source->gone)
		return false;
	if (source->unfinished(source))
		return false; /* it is asked again until it is */
	if (!(read->flags & O_NONBLOCK))
		return park(source, header, read);
	reply(pump, header->unique, -EAGAIN, NULL, 0);
	return true;
}

/* Whether it is for a read that waits here, which is then ended. */
static bool handle_interrupt(struct pump *pump, const struct fuse_interrupt_in *interrupt)
{
	for (struct event_source *source = pump->sources; source; source = source->next) {
		for (struct parked_read **link = &source->parked; *link; link = &(*link)->next) {
			if ((*link)->header.unique != interrupt->unique)
				continue;
			unpark(source, link);
			reply(pump, interrupt->unique, -EINTR, NULL, 0);
			return true;
		}
	}
	return false;
}

static bool handled(struct pump *pump, size_t size)
{
	const struct fuse_in_header *header = (const void *)pump->request;
	const void *body = header + 1;

	if (header->opcode == FUSE_READ && size >= sizeof(*header) + sizeof(struct fuse_read_in))
		return handle_read(pump, header, body);
	if (header->opcode == FUSE_INTERRUPT &&
	    size >= sizeof(*header) + sizeof(struct fuse_interrupt_in))
		return handle_interrupt(pump, body);
	return false;
}

static void end_of_device(struct pump *pump)
{
	pump->ended = true;
	ring(pump->inbox);
}

/* Whether what has been fetched is out of the way. Each is passed on: a RELEASE comes once. */
static bool pass_on_held(struct pump *pump)
{
	if (pump->held && pass_on(pump, pump->request, pump->held))
		pump->held = 0;
	return !pump->held;
}

/*
 * Whether there was one, and there may be more: whoever has got an answer needs some time to
 * ask again, and to look for that costs as much as to be told.
 */
static bool next_request(struct pump *pump)
{
	ssize_t size;

	if (!pass_on_held(pump))
		return false;
	size = read(pump->device, pump->request, sizeof(pump->request));
	if (size >= (ssize_t)sizeof(struct fuse_in_header)) {
		if (handled(pump, (size_t)size))
			return false;
		pump->held = (size_t)size;
		return pass_on_held(pump);
	}
	/* ENOENT: who asked is gone. */
	if (size < 0 && (errno == ENOENT || errno == EINTR || errno == EAGAIN))
		return errno != EAGAIN;
	end_of_device(pump);
	return false;
}

static void take_requests(struct pump *pump)
{
	int64_t deadline = monotonic_ns() + BURST_NS;

	while (next_request(pump) && monotonic_ns() < deadline)
		;
}

/* --- the thread ---------------------------------------------------------------------------- */

/* What the pump sleeps for. */
struct sleep {
	struct pollfd fds[MAX_FDS];
	nfds_t nr;
	struct timespec timeout;
	bool forever;
};

/* A file descriptor below 0 is passed over, but has its place. */
static void wait_for(struct sleep *sleep, int fd, short events)
{
	sleep->fds[sleep->nr++] = (struct pollfd){ .fd = fd, .events = events };
}

/* When there is to be another look, or try; INT64_MAX: nobody waits. */
static int64_t next_look(const struct event_source *source)
{
	if (!has_waiters(source))
		return INT64_MAX;
	return source->gone ? monotonic_ns() + NO_ROOM_NS : source->next_look;
}

/* The first time that something is to be done, or INT64_MAX. */
static int64_t first_look(const struct pump *pump)
{
	int64_t first = pump->held ? monotonic_ns() + NO_ROOM_NS : INT64_MAX;

	for (const struct event_source *source = pump->sources; source; source = source->next) {
		int64_t look = next_look(source);

		first = look < first ? look : first;
	}
	return first;
}

static void prepare(const struct pump *pump, struct sleep *sleep)
{
	int64_t until = first_look(pump), ns = 0;

	sleep->nr = 0;
	wait_for(sleep, pump->ended || pump->held ? -1 : pump->device, POLLIN);
	wait_for(sleep, pump->kick, POLLIN);
	for (const struct event_source *source = pump->sources; source; source = source->next) {
		wait_for(sleep, source->gone ? -1 : source->alive_fd, 0);
		wait_for(sleep, source->armed && has_waiters(source) ? source->bell_fd : -1,
			 POLLIN);
	}
	sleep->forever = until == INT64_MAX;
	if (!sleep->forever)
		ns = until - monotonic_ns();
	if (ns < 0)
		ns = 0;
	sleep->timeout = (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

static void go_to_sleep(struct sleep *sleep)
{
	const struct timespec nap = { .tv_nsec = EVENTS_SHORTEST_NS };

	if (ppoll(sleep->fds, sleep->nr, sleep->forever ? NULL : &sleep->timeout, NULL) >= 0)
		return;
	/* Somebody has set a limit of open files that is lower than these are many: just look. */
	for (nfds_t i = 0; i < sleep->nr; i++)
		sleep->fds[i].revents = 0;
	sleep->fds[0].revents = sleep->fds[0].fd < 0 ? 0 : POLLIN;
	nanosleep(&nap, NULL);
}

static void attend(struct pump *pump, struct event_source *source, const struct pollfd fds[2])
{
	bool rung = fds[1].fd >= 0 && fds[1].revents;

	/* Somebody may have brought another hypervisor meanwhile. */
	if (fds[0].revents && fds[0].fd == source->alive_fd)
		source->gone = true;
	if (source->gone)
		give_back(pump, source);
	else if (has_waiters(source) && (rung || monotonic_ns() >= source->next_look))
		look_and_wait(pump, source, rung);
}

static void awake(struct pump *pump, const struct sleep *sleep)
{
	const struct pollfd *fds = sleep->fds;

	if (fds[1].revents)
		hush(pump->kick);
	/* First those who have waited longer. */
	for (struct event_source *source = pump->sources; source; source = source->next) {
		fds += 2;
		attend(pump, source, fds);
	}
	if (sleep->fds[0].revents || pump->held)
		take_requests(pump);
}

/*
 * Who asks for short slices gets them soon (EEVDF, from Linux 6.12 on): no more time in all,
 * but others who are busy are not waited for to the end of theirs, of some ms. Elsewhere it
 * has no effect.
 */
static void ask_for_short_slices(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attributes;

	if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0))
		return;
	attributes.runtime = SLICE_NS;
	syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void *run(void *arg)
{
	struct pump *pump = arg;
	struct sleep sleep;

	prctl(PR_SET_NAME, "hyptracefs-pump");
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
	ask_for_short_slices();
	pump_enter(pump);
	while (!pump->stopping) {
		prepare(pump, &sleep);
		pump_leave(pump);
		go_to_sleep(&sleep);
		pump_enter(pump);
		awake(pump, &sleep);
	}
	pump_leave(pump);
	return NULL;
}

/* --- life ---------------------------------------------------------------------------------- */

struct pump *pump_create(int device)
{
	struct pump *pump = calloc(1, sizeof(*pump));

	if (!pump)
		return NULL;
	pump->device = device;
	pump->inbox = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pump->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pump->last = &pump->messages;
	pthread_mutex_init(&pump->floor.lock, NULL);
	pthread_cond_init(&pump->floor.turn, NULL);
	if (pump->inbox < 0 || pump->kick < 0) {
		pump_destroy(pump);
		return NULL;
	}
	return pump;
}

static void forget_messages(struct pump *pump)
{
	void *bytes;

	while (pump->messages) {
		pump_receive(pump, &bytes);
		free(bytes);
	}
}

static void forget_parked(struct pump *pump)
{
	for (struct event_source *source = pump->sources; source; source = source->next) {
		source->changed = NULL;
		while (source->parked)
			unpark(source, &source->parked);
	}
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

void pump_destroy(struct pump *pump)
{
	forget_messages(pump);
	close_if_open(pump->inbox);
	close_if_open(pump->kick);
	pthread_cond_destroy(&pump->floor.turn);
	pthread_mutex_destroy(&pump->floor.lock);
	free(pump);
}

int pump_inbox(const struct pump *pump)
{
	return pump->inbox;
}

static void source_changed(struct event_source *source)
{
	expect_events(source, monotonic_ns());
	source->next_look = 0; /* at once */
	ring(source->pump->kick);
}

void pump_add(struct pump *pump, struct event_source *source)
{
	source->pump = pump;
	source->last = &source->parked;
	source->next = pump->sources;
	pump->sources = source;
	pump->nr_sources++;
}

static int start_thread(struct pump *pump)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* they are for the event loop */
	error = pthread_create(&pump->thread, NULL, run, pump);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}

int pump_start(struct pump *pump)
{
	int flags = fcntl(pump->device, F_GETFL);
	int error;

	/* A request can be gone by the time that it is fetched. */
	if (pump->nr_sources > MAX_SOURCES || flags < 0 ||
	    fcntl(pump->device, F_SETFL, flags | O_NONBLOCK))
		return -EINVAL;
	pump_enter(pump);
	error = start_thread(pump);
	if (error) {
		pump_leave(pump);
		return error;
	}
	for (struct event_source *source = pump->sources; source; source = source->next)
		source->changed = source_changed;
	return 0;
}

void pump_stop(struct pump *pump)
{
	pump->stopping = true;
	ring(pump->kick);
	pump_leave(pump);
	pthread_join(pump->thread, NULL);
	forget_parked(pump);
}
