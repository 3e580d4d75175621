/*
 * Hypercalls to a hypervisor in another process: a message each way (protocol.h).
 *
 * What comes back is not trusted. A hypervisor that does not answer in time, or answers
 * something else than it was asked, is given up: from then on every call is -ENODEV, at
 * once.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "hypervisor_model/protocol.h"

/* A call waits for a pCPU to come back to its host, and for a writer to end its event. */
#define PATIENCE_NS 2000000000ULL
/* To map and pin each page of a load takes 4 us; ten times that on a busy machine. */
#define PAGE_PATIENCE_NS 50000ULL
/* An answer that comes sooner than this is waited for without going to sleep. */
#define SPIN_NS 20000U

struct socket_conduit {
	struct hvc_conduit conduit; /* first: a conduit is this */
	pthread_mutex_t lock;       /* one call at a time */
	int fd;
	u32 sequence;
	int error; /* why it was given up; 0: it was not */
};

struct single_request {
	u32 sequence, nr_calls;
	struct hyp_call_msg call;
};

struct single_reply {
	u32 sequence, nr_calls;
	struct hyp_result_msg result;
};

static u64 monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000000ULL + (u64)now.tv_nsec;
}

static int send_request(int fd, const struct single_request *request, int passed_fd)
{
	union {
		struct cmsghdr header;
		u8 bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { (void *)request, sizeof(*request) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (passed_fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &passed_fd, sizeof(int));
	}
	/* One request at a time: there is room for it, or something is wrong. */
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static u64 patience_ns(const struct hvc_regs *regs)
{
	/* the descriptor has a number for each page */
	u64 pages = regs->x0 == HVC_TRACING_LOAD ? regs->x2 / sizeof(u64) : 0;

	return PATIENCE_NS + pages * PAGE_PATIENCE_NS;
}

/* Bytes of the message; -ETIMEDOUT, -errno. */
static ssize_t receive(int fd, void *message, size_t size, u64 patience)
{
	u64 start = monotonic_ns();

	for (;;) {
		ssize_t got = recv(fd, message, size, MSG_DONTWAIT | MSG_TRUNC);
		u64 waited = monotonic_ns() - start;
		struct pollfd wait = { .fd = fd, .events = POLLIN };

		if (got >= 0)
			return got;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		if (waited >= patience)
			return -ETIMEDOUT;
		if (waited < SPIN_NS)
			sched_yield(); /* who answers may want this very CPU */
		else
			poll(&wait, 1, (int)((patience - waited) / 1000000) + 1);
	}
}

/* The file that goes with a call; -1: none does. */
static int fd_of(const struct hvc_regs *regs)
{
	if (regs->x0 == HVC_TRACING_LOAD ||
	    (regs->x0 == HVC_TRACING_DOORBELL && regs->x1 == HYP_DOORBELL_HANG))
		return (int)regs->x3;
	return -1;
}

/* Bytes of the answer, which begins with a reply to this call; -errno. */
static ssize_t ask(struct socket_conduit *to, u32 cpu, const struct hvc_regs *regs,
		   struct single_reply *answer, size_t room)
{
	struct single_request request = {
		.sequence = ++to->sequence,
		.nr_calls = 1,
		.call = { .cpu = cpu, .regs = *regs },
	};
	ssize_t got = send_request(to->fd, &request, fd_of(regs));

	if (!got)
		got = receive(to->fd, answer, room, patience_ns(regs));
	if (got < 0)
		return got;
	if (!got)
		return -ECONNRESET;
	if (got < (ssize_t)sizeof(*answer) || got > (ssize_t)room ||
	    answer->sequence != request.sequence || answer->nr_calls != 1)
		return -EPROTO;
	return got;
}

static int exchange(struct socket_conduit *to, u32 cpu, struct hvc_regs *regs)
{
	struct single_reply reply;
	ssize_t got = ask(to, cpu, regs, &reply, sizeof(reply));

	if (got < 0)
		return (int)got;
	regs->x0 = reply.result.x0;
	regs->x1 = reply.result.x1;
	return 0;
}

struct statistics_reply {
	struct single_reply head;
	struct hyp_statistics_msg body;
	u8 rest[HYP_MAX_STATISTICS - sizeof(struct hyp_statistics_msg)];
};

static bool has_statistics(const struct statistics_reply *reply, ssize_t got)
{
	size_t size = (size_t)got - sizeof(reply->head);

	return size >= sizeof(reply->body) && size == reply->body.size;
}

/*
 * As exchange(); what comes behind the result goes where x1 says, which is no address of
 * theirs. An answer without it is a failed call, and not the end: the next one is told apart.
 */
static int exchange_statistics(struct socket_conduit *to, u32 cpu, struct hvc_regs *regs)
{
	struct hvc_regs sent = { .x0 = regs->x0 };
	struct statistics_reply reply;
	ssize_t got = ask(to, cpu, &sent, &reply.head, sizeof(reply));

	if (got < 0)
		return (int)got;
	if (!reply.head.result.x0 && !reply.head.result.x1) {
		if (has_statistics(&reply, got))
			memcpy((void *)(uintptr_t)regs->x1, &reply.body, reply.body.size);
		else
			reply.head.result.x1 = (u64)-EPROTO;
	}
	regs->x0 = reply.head.result.x0;
	regs->x1 = reply.head.result.x1;
	return 0;
}

static void socket_hvc(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	struct socket_conduit *to = (struct socket_conduit *)conduit;

	pthread_mutex_lock(&to->lock);
	if (!to->error)
		to->error = regs->x0 == HVC_TRACING_STATISTICS ?
				    exchange_statistics(to, cpu, regs) :
				    exchange(to, cpu, regs);
	if (to->error) {
		/* Whatever it still sends, nobody waits for it; and it sees that we are gone. */
		shutdown(to->fd, SHUT_RDWR);
		regs->x0 = 0;
		regs->x1 = (u64)-ENODEV;
	}
	pthread_mutex_unlock(&to->lock);
}

/* Takes @fd over. 0: no memory. */
static uintptr_t socket_conduit_create(int fd)
{
	struct socket_conduit *conduit = calloc(1, sizeof(*conduit));

	if (!conduit)
		return 0;
	conduit->conduit.hvc = socket_hvc;
	conduit->fd = fd;
	pthread_mutex_init(&conduit->lock, NULL);
	return (uintptr_t)conduit;
}

/* From now on every call is -ENODEV, also those of other threads. */
static void socket_conduit_hang_up(uintptr_t address)
{
	struct socket_conduit *conduit = (struct socket_conduit *)address;

	pthread_mutex_lock(&conduit->lock);
	if (!conduit->error)
		conduit->error = -ENODEV;
	shutdown(conduit->fd, SHUT_RDWR);
	pthread_mutex_unlock(&conduit->lock);
}

/* When nobody can call any more. */
static void socket_conduit_destroy(uintptr_t address)
{
	struct socket_conduit *conduit = (struct socket_conduit *)address;

	close(conduit->fd);
	pthread_mutex_destroy(&conduit->lock);
	free(conduit);
}

/* 0, or -errno: why it was given up. */
static int socket_conduit_error(uintptr_t address)
{
	return ((struct socket_conduit *)address)->error;
}
