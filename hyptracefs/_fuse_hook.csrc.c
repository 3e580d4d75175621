/*
 * A hook into libfuse, for what pyfuse3 leaves out: interrupts, the flags of the open file
 * at the time of a read, whether it is for the page cache, open files that have no position,
 * releases that are not held back, and requests that come through the pump.
 *
 * This module exports five functions of libfuse, and is loaded with
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
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pump.h"

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
#define FUSE_HOOK_PIPE PUMP_PIPE

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

/* The last operation that we replace: tables of an older libfuse end somewhere behind it. */
#define LEAST_OPS (offsetof(struct fuse_lowlevel_ops, write_buf) + sizeof(next_write_buf))

static bool is_known(const struct fuse_lowlevel_ops *op, size_t size)
{
	return size >= LEAST_OPS && size <= sizeof(hooked_ops) && op->init && op->open &&
	       op->read && op->write_buf;
}

/* The operations with ours put in; @op as it is if it is not what we know. */
static const struct fuse_lowlevel_ops *hook(const struct fuse_lowlevel_ops *op, size_t size)
{
	if (!is_known(op, size))
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

static int hooked_reply_open(fuse_req_t req, const struct fuse_file_info *info)
{
	int (*next)(fuse_req_t, const struct fuse_file_info *) =
		dlsym(RTLD_NEXT, "fuse_reply_open");

	if (info->fh & FUSE_HOOK_STREAM)
		return reply_stream(req, info);
	return next ? next(req, info) : -ENOSYS;
}

EXPORTED int fuse_reply_open(fuse_req_t req, const struct fuse_file_info *info)
	__attribute__((alias("hooked_reply_open")));

/*
 * Whether a call of fuse_reply_open() from another module lands here. (By that name we, too, would
 * get whatever others get.)
 */
static bool fuse_hook_sets_streams(void)
{
	return dlsym(RTLD_DEFAULT, "fuse_reply_open") == (void *)hooked_reply_open;
}

/* --- requests, through the pump ------------------------------------------------------------ */

static struct pump *pump;

static int device_of(struct fuse_session *session)
{
	int (*next)(struct fuse_session *) = dlsym(RTLD_NEXT, "fuse_session_fd");

	return next ? next(session) : -1;
}

/* pyfuse3 asks once, and waits for this before it asks for a request. */
EXPORTED int fuse_session_fd(struct fuse_session *session)
{
	if (!pump)
		pump = pump_create(device_of(session));
	return pump ? pump_inbox(pump) : device_of(session);
}

/* libfuse's own: it may find out that the session has ended. */
static int receive_from_device(struct fuse_session *session, struct fuse_buf *buf)
{
	int (*next)(struct fuse_session *, struct fuse_buf *) =
		dlsym(RTLD_NEXT, "fuse_session_receive_buf");

	/* Ours is as large as the request before. libfuse makes one that is large enough. */
	free(buf->mem);
	buf->mem = NULL;
	return next ? next(session, buf) : -ENOSYS;
}

EXPORTED int fuse_session_receive_buf(struct fuse_session *session, struct fuse_buf *buf)
{
	void *request;
	ptrdiff_t size = pump ? pump_receive(pump, &request) : -ENODEV;

	if (size == -ENODEV)
		return receive_from_device(session, buf);
	if (!size)
		return -EINTR; /* to pyfuse3: there was nothing, look again */
	free(buf->mem);
	*buf = (struct fuse_buf){ .mem = request, .size = (size_t)size };
	return (int)size;
}

/* Whether requests come through the pump. */
static bool fuse_hook_has_pump(void)
{
	return pump != NULL;
}

/* @source: the address of a struct event_source. */
static void fuse_hook_add(uintptr_t source)
{
	pump_add(pump, (struct event_source *)source);
}

static int fuse_hook_start(void)
{
	return pump_start(pump);
}

static void fuse_hook_stop(void)
{
	pump_stop(pump);
}

static void fuse_hook_enter(void)
{
	pump_enter(pump);
}

static void fuse_hook_leave(void)
{
	pump_leave(pump);
}

static bool fuse_hook_was_hit(void)
{
	return hooked_session && next_read;
}

/* Of /dev/fuse; -1 without a session. */
static int fuse_hook_session_fd(void)
{
	return hooked_session ? device_of(hooked_session) : -1;
}
