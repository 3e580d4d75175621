/*
 * A hook into libfuse, for what pyfuse3 leaves out: interrupts, the flags of the open file
 * at the time of a read, whether it is for the page cache, open files that have no position,
 * releases that are not held back, and reads that are answered without Python.
 *
 * This module exports three functions of libfuse, and is loaded with
 * RTLD_GLOBAL before pyfuse3, whose calls then land here. We pass on its operations with
 * .init and those that may wait replaced; these remember the request and ask libfuse to tell
 * us when the kernel takes it back. All of it runs in the thread of the event loop.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "pipe.h"

struct fuse_hook_request {
	uint64_t id;      /* of the request, never repeated */
	int32_t caller;   /* thread; 0 if it is in another pid namespace */
	int flags;        /* of the open file, now: O_NONBLOCK may come and go */
	bool interrupted; /* already */
	uint64_t cache;   /* inode whose page cache asks, for a splice or sendfile; or 0 */
};

/* In a file handle: a stream. Reads of it are not kept apart by its position. */
#define FUSE_HOOK_STREAM (1ULL << 63)
/* A stream, too: the rest of the handle is the address of its struct pipe_end. */
#define FUSE_HOOK_PIPE (1ULL << 62)

/* The request being dispatched, if it may wait. Its handler copies it before it first waits. */
struct fuse_hook_request fuse_hook_request;

static void fuse_hook_interrupted(uint64_t id); /* Python's */

static struct fuse_lowlevel_ops hooked_ops;
static struct fuse_session *hooked_session;
static void (*next_init)(void *, struct fuse_conn_info *);
static void (*next_open)(fuse_req_t, fuse_ino_t, struct fuse_file_info *);
static void (*next_read)(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);
static void (*next_write_buf)(fuse_req_t, fuse_ino_t, struct fuse_bufvec *, off_t,
			      struct fuse_file_info *);

/* libfuse calls this at once, from fuse_req_interrupt_func(), if it came that early. */
static void on_interrupt(fuse_req_t req, void *id)
{
	(void)req;
	if ((uintptr_t)id == fuse_hook_request.id)
		fuse_hook_request.interrupted = true;
	fuse_hook_interrupted((uintptr_t)id);
}

static void remember(fuse_req_t req, const struct fuse_file_info *info, uint64_t cache)
{
	fuse_hook_request = (struct fuse_hook_request){
		.id = fuse_hook_request.id + 1,
		.caller = fuse_req_ctx(req)->pid,
		.flags = info->flags,
		.cache = cache,
	};
	fuse_req_interrupt_func(req, on_interrupt, (void *)(uintptr_t)fuse_hook_request.id);
}

static void hooked_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			struct fuse_file_info *info)
{
	/* The kernel says who reads, but for the page cache nobody does. */
	remember(req, info, info->lock_owner ? 0 : ino);
	next_read(req, ino, size, offset, info);
}

static void hooked_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	remember(req, info, 0);
	next_open(req, ino, info);
}

static void hooked_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data,
			     off_t offset, struct fuse_file_info *info)
{
	remember(req, info, 0);
	next_write_buf(req, ino, data, offset, info);
}

/*
 * RELEASE is a background request: the kernel holds back all but 12 of those by default,
 * and lets later requests pass them. When many readers are killed at once, what is read
 * after that must show it: let none wait.
 *
 * Nothing is read ahead: what is read is consumed.
 */
static void hooked_init(void *userdata, struct fuse_conn_info *conn)
{
	next_init(userdata, conn);
	conn->max_background = UINT16_MAX;
	conn->congestion_threshold = UINT16_MAX;
	conn->max_readahead = 0;
}

/* The operations with ours put in; @op as it is if it is not what we know. */
static const struct fuse_lowlevel_ops *hook(const struct fuse_lowlevel_ops *op, size_t size)
{
	if (size > sizeof(hooked_ops) || !op->init || !op->open || !op->read || !op->write_buf)
		return op;
	memcpy(&hooked_ops, op, size);
	next_open = op->open;
	hooked_ops.open = hooked_open;
	next_read = op->read;
	hooked_ops.read = hooked_read;
	next_write_buf = op->write_buf;
	hooked_ops.write_buf = hooked_write_buf;
	next_init = op->init;
	hooked_ops.init = hooked_init;
	return &hooked_ops;
}

#define EXPORTED __attribute__((visibility("default")))

/* libfuse up to 3.16 */
#undef fuse_session_new
EXPORTED struct fuse_session *fuse_session_new(struct fuse_args *args,
					       const struct fuse_lowlevel_ops *op, size_t size,
					       void *userdata)
{
	struct fuse_session *(*next)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t,
				     void *) = dlsym(RTLD_NEXT, "fuse_session_new");

	hooked_session = next ? next(args, hook(op, size), size, userdata) : NULL;
	return hooked_session;
}

/* libfuse 3.17 and later: callers go through this name */
struct libfuse_version;
EXPORTED struct fuse_session *
fuse_session_new_versioned(struct fuse_args *args, const struct fuse_lowlevel_ops *op,
			   size_t size, struct libfuse_version *version, void *userdata);

EXPORTED struct fuse_session *
fuse_session_new_versioned(struct fuse_args *args, const struct fuse_lowlevel_ops *op,
			   size_t size, struct libfuse_version *version, void *userdata)
{
	struct fuse_session *(*next)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t,
				     struct libfuse_version *, void *) =
		dlsym(RTLD_NEXT, "fuse_session_new_versioned");

	hooked_session = next ? next(args, hook(op, size), size, version, userdata) : NULL;
	return hooked_session;
}

/*
 * libfuse has no way to say that a file is a stream. Without it the kernel lets one at a time
 * read a shared file, and who waits behind a reader that waits cannot be killed.
 */
static int reply_stream(fuse_req_t req, const struct fuse_file_info *info)
{
	/* Not seekable for kernels that know no streams. */
	const struct fuse_open_out out = {
		.fh = info->fh,
		.open_flags = FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE | FOPEN_STREAM,
	};

	return fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

EXPORTED int fuse_reply_open(fuse_req_t req, const struct fuse_file_info *info)
{
	int (*next)(fuse_req_t, const struct fuse_file_info *) =
		dlsym(RTLD_NEXT, "fuse_reply_open");

	if (info->fh & FUSE_HOOK_STREAM)
		return reply_stream(req, info);
	return next ? next(req, info) : -ENOSYS;
}

/* Whether a call of fuse_reply_open() from another module lands here. */
static bool fuse_hook_sets_streams(void)
{
	return dlsym(RTLD_DEFAULT, "fuse_reply_open") == (void *)fuse_reply_open;
}

/* --- reads that are answered at once ----------------------------------------------------- */

/* The event loop gets its turn after so long (ns), and a read more. */
#define BURST_NS 1000000
/* A reader that has been answered may ask again: look for that, asleep, for so long (ns). */
#define NEXT_NS 200000

static int64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

struct read_request {
	struct fuse_in_header header;
	struct fuse_read_in read;
};

/* The pipe that @request reads, or NULL. A read for the page cache has no owner. */
static struct pipe_end *pipe_of(const struct read_request *request, size_t size)
{
	if (size < sizeof(*request) || request->header.opcode != FUSE_READ ||
	    !(request->read.fh & FUSE_HOOK_PIPE) ||
	    !(request->read.read_flags & FUSE_READ_LOCKOWNER) || !request->read.lock_owner)
		return NULL;
	return (struct pipe_end *)(uintptr_t)(request->read.fh &
					      ~(FUSE_HOOK_STREAM | FUSE_HOOK_PIPE));
}

/*
 * Past libfuse, which has not seen the request. An error says that who asked is gone.
 */
static void reply(struct fuse_session *session, uint64_t unique, const uint8_t *data, size_t size)
{
	struct fuse_out_header header = { .len = (uint32_t)(sizeof(header) + size),
					  .unique = unique };
	struct iovec parts[] = { { &header, sizeof(header) }, { (void *)data, size } };
	ssize_t written = writev(fuse_session_fd(session), parts, 2);

	(void)written;
}

/* Whether the request was a read of a pipe that has something, and is answered. */
static bool answer(struct fuse_session *session, const struct fuse_buf *buf, int size)
{
	const struct read_request *request = buf->mem;
	const uint8_t *data;
	struct pipe_end *pipe;
	uint32_t done;

	if (buf->flags & FUSE_BUF_IS_FD)
		return false;
	pipe = pipe_of(request, (size_t)size);
	if (!pipe)
		return false;
	done = pipe->take(pipe, &data, request->read.size);
	if (done)
		reply(session, request->header.unique, data, done);
	return done > 0;
}

static bool another(struct fuse_session *session, int64_t deadline)
{
	struct pollfd device = { .fd = fuse_session_fd(session), .events = POLLIN };
	const struct timespec wait = { .tv_nsec = NEXT_NS };

	return monotonic_ns() < deadline && ppoll(&device, 1, &wait, NULL) > 0 &&
	       device.revents == POLLIN;
}

typedef int receive_fn(struct fuse_session *, struct fuse_buf *);

/* No room for a request, which would end the session: it stays where it is. To pyfuse3: as below. */
static int wait_for_memory(void)
{
	const struct timespec wait = { .tv_nsec = 1000000 };

	nanosleep(&wait, NULL);
	return -EINTR;
}

static int receive(receive_fn *next, struct fuse_session *session, struct fuse_buf *buf)
{
	int64_t deadline = monotonic_ns() + BURST_NS;

	do {
		int size = next(session, buf);

		if (size == -ENOMEM)
			return wait_for_memory();
		if (size <= 0 || !answer(session, buf, size))
			return size;
	} while (another(session, deadline));
	return -EINTR; /* to pyfuse3: there was nothing, look again */
}

/*
 * pyfuse3 gets what cannot be answered here and now. It spends more on a request than most
 * answers cost, so a reader that goes on reading is served without it, for a while.
 */
EXPORTED int fuse_session_receive_buf(struct fuse_session *session, struct fuse_buf *buf)
{
	static receive_fn *next;
	int size;

	if (!next)
		next = dlsym(RTLD_NEXT, "fuse_session_receive_buf");
	if (!next)
		return -ENOSYS;
	Py_BEGIN_ALLOW_THREADS
	size = receive(next, session, buf);
	Py_END_ALLOW_THREADS
	return size;
}

static bool fuse_hook_was_hit(void)
{
	return hooked_session && next_read;
}

/* Of /dev/fuse; -1 without a session. */
static int fuse_hook_session_fd(void)
{
	return hooked_session ? fuse_session_fd(hooked_session) : -1;
}
