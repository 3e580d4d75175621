// SPDX-License-Identifier: Apache-2.0
/*
 * The hypervisor in a process of its own: hosts come and go on a socket (protocol.h), one
 * at a time. What they send is checked like everything that comes from a host; one that
 * does not keep to the protocol is cut off, and so ends like one that dies.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include "hypervisor_model/protocol.h"
#include "internal.h"

/*
 * How long to look for the next request before going to sleep: the swaps of one read come
 * one after the other, and to wake up costs ten times what a swap does. But one that takes
 * many pages is followed by none for long: so only if the last one came as soon, or would
 * have, but for the time to wake up.
 */
#define SPIN_NS 50000U
#define WAKE_NS 50000U
/* At most one descriptor comes with a request; room for more, so that we can close them. */
#define MAX_FDS 8

struct connection {
	struct hyp *hyp;
	bool busy; /* the last request came soon */
	int host_fd, listen_fd, stop_fd; /* listen_fd: -1 if nobody else can come */
};

/* --- what the hypervisor says of itself ------------------------------------------------- */

static bool send_message(int fd, const void *message, size_t size)
{
	return send(fd, message, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static u32 count_symbol_tables(void)
{
	u32 nr = 0;

	while (hyp_symbol_table(nr))
		nr++;
	return nr;
}

static u32 count_format_tables(void)
{
	u32 nr = 0;

	while (hyp_format_table(nr))
		nr++;
	return nr;
}

static bool send_hello(const struct hyp *hyp, int fd, int error)
{
	struct hyp_hello hello = {
		.magic = HYP_MAGIC,
		.version = HYP_PROTOCOL_VERSION,
		.error = error,
		.name = "hypervisor",
		.nr_cpus = hyp->nr_cpus,
		.page_size = RB_PAGE_SIZE,
		.counter = HYP_COUNTER_CPU,
		.nr_events = HYP_NR_EVENTS,
		.nr_symbols = count_symbol_tables(),
		.nr_formats = count_format_tables(),
		.nr_spares = RB_MAX_TAKEN - 1,
		.flags = hyp_has_doorbell(hyp) ? HYP_HAS_DOORBELL : 0,
	};

	return send_message(fd, &hello, sizeof(hello));
}

/* The texts are ours: they are shorter than the room for them. */
static void put_name(char *to, const char *text)
{
	memcpy(to, text, strlen(text) + 1);
}

static u32 count_fields(const struct hyp_event_desc *desc)
{
	u32 nr = 0;

	while (desc->fields[nr].name)
		nr++;
	return nr;
}

static void fill_event(struct hyp_event_msg *message, const struct hyp_event_desc *desc,
		       u32 nr_fields)
{
	put_name(message->name, desc->name);
	message->id = desc->id;
	message->nr_fields = nr_fields;
	message->print_fmt_size = (u32)strlen(desc->print_fmt) + 1;
	for (u32 i = 0; i < nr_fields; i++) {
		struct hyp_field_msg *field = &message->fields[i];

		put_name(field->type, desc->fields[i].type);
		put_name(field->name, desc->fields[i].name);
		field->offset = desc->fields[i].offset;
		field->size = desc->fields[i].size;
		field->is_signed = desc->fields[i].is_signed;
	}
	put_name((char *)&message->fields[nr_fields], desc->print_fmt);
}

static bool send_event(int fd, const struct hyp_event_desc *desc)
{
	u32 nr_fields = count_fields(desc);
	struct hyp_event_msg *message;
	size_t size = sizeof(*message) + nr_fields * sizeof(message->fields[0]) +
		      strlen(desc->print_fmt) + 1;
	bool sent;

	message = calloc(1, size);
	if (!message)
		return false;
	fill_event(message, desc, nr_fields);
	sent = send_message(fd, message, size);
	free(message);
	return sent;
}

static bool send_symbols(int fd, const struct hyp_symbol_table *table)
{
	struct hyp_symbols_msg *message;
	size_t size = sizeof(*message) + table->nr_symbols * sizeof(message->symbols[0]);
	bool sent;

	message = calloc(1, size);
	if (!message)
		return false;
	put_name(message->function, table->function);
	put_name(message->fallback, table->fallback);
	message->nr_symbols = table->nr_symbols;
	for (u32 i = 0; i < table->nr_symbols; i++) {
		message->symbols[i].value = i;
		put_name(message->symbols[i].text, table->symbols[i]);
	}
	sent = send_message(fd, message, size);
	free(message);
	return sent;
}

#define HYP_STRING_FMT(name, nr_args, text) \
	_Static_assert(sizeof(text) <= HYP_FORMAT_SIZE, "too long: " #name);
#include "ringbuf_c/string_fmts.h"
#undef HYP_STRING_FMT
_Static_assert(sizeof(struct hyp_formats_msg) +
			       HYP_NR_STRING_FMTS * sizeof(struct hyp_format_msg) <=
		       HYP_MAX_MESSAGE,
	       "a table is one message");

static bool send_formats(int fd, const struct hyp_format_table *table)
{
	struct hyp_formats_msg *message;
	size_t size = sizeof(*message) + table->nr_formats * sizeof(message->formats[0]);
	bool sent;

	message = calloc(1, size);
	if (!message)
		return false;
	put_name(message->event, table->event);
	put_name(message->index, table->index);
	put_name(message->args, table->args);
	message->nr_formats = table->nr_formats;
	for (u32 i = 0; i < table->nr_formats; i++) {
		message->formats[i].nr_args = table->formats[i].nr_args;
		put_name(message->formats[i].text, table->formats[i].text);
	}
	sent = send_message(fd, message, size);
	free(message);
	return sent;
}

static bool introduce(const struct hyp *hyp, int fd)
{
	bool sent = send_hello(hyp, fd, 0);

	for (u32 i = 0; sent && hyp_event_desc(i); i++)
		sent = send_event(fd, hyp_event_desc(i));
	for (u32 i = 0; sent && hyp_symbol_table(i); i++)
		sent = send_symbols(fd, hyp_symbol_table(i));
	for (u32 i = 0; sent && hyp_format_table(i); i++)
		sent = send_formats(fd, hyp_format_table(i));
	return sent;
}

/* --- who may be our host ---------------------------------------------------------------- */

void hyp_allow(struct hyp *hyp, u32 uid)
{
	hyp->allowed_uid = uid;
}

/* The mode of the socket says it, too, where it is what we have made it. */
static bool may_attach(const struct hyp *hyp, int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size))
		return false;
	return peer.uid == 0 || peer.uid == geteuid() || peer.uid == hyp->allowed_uid;
}

static void refuse(struct hyp *hyp, int fd, int error)
{
	send_hello(hyp, fd, error);
	hyp_count(hyp, &hyp->counters.refused_hosts);
}

/* --- waiting ------------------------------------------------------------------------------ */

/* Who comes while there is no descriptor to be had waits, and is looked at again after so long. */
#define LATER_MS 100

/* Another host, while one is served: it is told so. False: later. */
static bool refuse_host(const struct connection *with)
{
	int fd = accept4(with->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return false;
	refuse(with->hyp, fd, may_attach(with->hyp, fd) ? -EBUSY : -EACCES);
	close(fd);
	return true;
}

/* Somebody who floods us with requests shall not keep us from anything else. */
#define REQUESTS_BETWEEN_LOOKS 256U

/* Until @events on the host's socket. False: we have been told to stop. */
static bool wait_for_host(const struct connection *with, short events)
{
	struct pollfd fds[] = {
		{ .fd = with->host_fd, .events = events },
		{ .fd = with->stop_fd, .events = POLLIN },
		{ .fd = with->listen_fd, .events = POLLIN },
	};

	for (int timeout = -1;;) {
		if (poll(fds, 3, timeout) < 0)
			continue; /* a signal: somebody writes to stop_fd if it means us */
		if (fds[1].revents)
			return false;
		timeout = fds[2].revents && !refuse_host(with) ? LATER_MS : -1;
		fds[2].fd = timeout < 0 ? with->listen_fd : -1;
		if (fds[0].revents)
			return true;
	}
}

/* Whether we have been told to stop, or are within so long. */
static bool stopping(const struct connection *with, int timeout_ms)
{
	struct pollfd stop = { .fd = with->stop_fd, .events = POLLIN };

	return poll(&stop, 1, timeout_ms) > 0;
}

/* --- requests ------------------------------------------------------------------------------- */

struct request {
	union {
		struct hyp_request message;
		u8 bytes[sizeof(struct hyp_request) + HYP_MAX_CALLS * sizeof(struct hyp_call_msg)];
	};
	int fd; /* that came with it; -1: none */
};

/* Keep the first one. */
static int take_fds(struct msghdr *header)
{
	int taken = -1;

	for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
		int fds[MAX_FDS];
		size_t nr = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds, CMSG_DATA(part), nr * sizeof(int));
		for (size_t i = 0; i < nr; i++) {
			if (taken < 0)
				taken = fds[i];
			else
				close(fds[i]);
		}
	}
	return taken;
}

/* Bytes of the message; 0: the host is gone; -errno. What is too long counts as longer. */
static ssize_t receive(int fd, struct request *request)
{
	union {
		struct cmsghdr align;
		u8 bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control;
	struct iovec part = { request->bytes, sizeof(request->bytes) };
	struct msghdr header = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t size = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);

	request->fd = -1;
	if (size < 0)
		return -errno;
	request->fd = take_fds(&header);
	return size;
}

/* The next request, soon if it comes soon. As receive(); -ECANCELED: told to stop. */
static ssize_t next_request(struct connection *with, struct request *request)
{
	u64 start = monotonic_ns();

	for (;;) {
		ssize_t size = receive(with->host_fd, request);
		u64 waited = monotonic_ns() - start;

		if (size != -EAGAIN && size != -EINTR) {
			with->busy = waited < SPIN_NS + WAKE_NS;
			return size;
		}
		if (with->busy && waited < SPIN_NS)
			sched_yield(); /* the host may want this very CPU */
		else if (!wait_for_host(with, POLLIN))
			return -ECANCELED;
	}
}

static bool well_formed(const struct request *request, ssize_t size)
{
	u32 nr = request->message.nr_calls;

	return size >= (ssize_t)sizeof(request->message) && nr >= 1 && nr <= HYP_MAX_CALLS &&
	       size == (ssize_t)(sizeof(request->message) + nr * sizeof(struct hyp_call_msg));
}

/* @body: room for statistics; NULL: none */
static struct hyp_result_msg make_call(struct hyp *hyp, const struct hyp_call_msg *call, int fd,
				       struct hyp_statistics_msg *body)
{
	struct hvc_regs regs = call->regs;

	if (regs.x0 == HVC_TRACING_LOAD || regs.x0 == HVC_TRACING_DOORBELL)
		regs.x3 = (u64)(s64)fd; /* the number that it has here */
	if (regs.x0 == HVC_TRACING_STATISTICS)
		regs.x1 = (uintptr_t)body; /* what the host says is no address of ours */
	hyp_hvc(&hyp->conduit, call->cpu, &regs);
	return (struct hyp_result_msg){ regs.x0, regs.x1 };
}

static bool send_reply(const struct connection *with, const void *reply, size_t size)
{
	while (send(with->host_fd, reply, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		/* It asks and does not listen: that is its own time, not ours. */
		if ((errno != EAGAIN && errno != EINTR) || !wait_for_host(with, POLLOUT))
			return false;
	}
	return true;
}

union reply {
	struct hyp_reply message;
	u8 bytes[HYP_MAX_MESSAGE];
};

static size_t results_size(const struct hyp_reply *reply)
{
	return sizeof(*reply) + reply->nr_calls * sizeof(reply->results[0]);
}

static bool answer(const struct connection *with, const struct request *request)
{
	u32 nr = request->message.nr_calls;
	struct hyp_statistics_msg *body;
	union reply reply;

	reply.message.sequence = request->message.sequence;
	reply.message.nr_calls = nr;
	body = nr == 1 ? (void *)&reply.message.results[1] : NULL;
	if (body)
		body->size = 0;
	for (u32 i = 0; i < nr; i++)
		reply.message.results[i] = make_call(with->hyp, &request->message.calls[i],
						     request->fd, body);
	return send_reply(with, &reply, results_size(&reply.message) + (body ? body->size : 0));
}

/* --- hosts ------------------------------------------------------------------------------------ */

/* It shared its pages with us, and switched events on: both end with it. */
static void forget_host(struct hyp *hyp)
{
	pthread_mutex_lock(&hyp->lock);
	hyp_unload(hyp);
	hyp_doorbell_remove(hyp);
	for (u32 i = 0; i < HYP_NR_EVENTS; i++)
		WRITE_ONCE(hyp->enabled[i], 0);
	pthread_mutex_unlock(&hyp->lock);
	hyp_restart_scripts(hyp);
}

/* Others who wait, once in a while. False: we have been told to stop. */
static bool look_around(const struct connection *with, u32 requests)
{
	return requests % REQUESTS_BETWEEN_LOOKS || wait_for_host(with, POLLIN | POLLOUT);
}

static bool accept_request(const struct connection *with, const struct request *request,
			   ssize_t size)
{
	if (well_formed(request, size))
		return true;
	hyp_count(with->hyp, &with->hyp->counters.refused_messages);
	return false;
}

static int serve_requests(struct connection *with)
{
	for (u32 requests = 1;; requests++) {
		struct request request;
		ssize_t size = next_request(with, &request);
		bool go_on = size > 0 && look_around(with, requests) &&
			     accept_request(with, &request, size) && answer(with, &request);

		if (request.fd >= 0)
			close(request.fd);
		if (!go_on)
			return stopping(with, 0) ? -ECANCELED : 0;
	}
}

int hyp_serve_host(struct hyp *hyp, int host_fd, int listen_fd, int stop_fd)
{
	struct connection with = {
		.hyp = hyp, .host_fd = host_fd, .listen_fd = listen_fd, .stop_fd = stop_fd,
	};
	int ret = 0;

	hyp_count(hyp, &hyp->counters.hosts);
	if (introduce(hyp, host_fd))
		ret = serve_requests(&with);
	forget_host(hyp);
	return ret;
}

int hyp_serve(struct hyp *hyp, int listen_fd, int stop_fd)
{
	struct connection with = {
		.hyp = hyp, .host_fd = listen_fd, .listen_fd = -1, .stop_fd = stop_fd,
	};

	for (;;) {
		int ret, fd;

		if (!wait_for_host(&with, POLLIN))
			return -ECANCELED;
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0) {
			if (stopping(&with, LATER_MS))
				return -ECANCELED;
			continue;
		}
		ret = 0;
		if (may_attach(hyp, fd))
			ret = hyp_serve_host(hyp, fd, listen_fd, stop_fd);
		else
			refuse(hyp, fd, -EACCES);
		close(fd);
		if (ret)
			return ret;
	}
}
