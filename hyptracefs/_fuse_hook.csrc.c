/*
 * A hook into libfuse, for what pyfuse3 leaves out: interrupts of a read, the flags of
 * the open file at the time of the read, who writes, and releases that are not held back.
 *
 * This module exports fuse_session_new() and is loaded with RTLD_GLOBAL before
 * pyfuse3, whose call then lands here. We pass on its operations with .init, .read and
 * .write_buf replaced (libfuse calls no .write where there is a .write_buf); .read remembers
 * the request and asks libfuse to tell us when the kernel takes the request back. All of it
 * runs in the thread of the event loop.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct fuse_hook_read {
	uint64_t id;      /* of the request, never repeated */
	int flags;        /* of the open file, now: O_NONBLOCK may come and go */
	bool interrupted; /* already */
};

/* The read being dispatched. Its handler copies it before it first waits. */
struct fuse_hook_read fuse_hook_read;
/* The process of the write being dispatched. */
int fuse_hook_writer;

static void fuse_hook_interrupted(uint64_t id); /* Python's */

static struct fuse_lowlevel_ops hooked_ops;
static struct fuse_session *hooked_session;
static void (*next_init)(void *, struct fuse_conn_info *);
static void (*next_read)(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);
static void (*next_write)(fuse_req_t, fuse_ino_t, struct fuse_bufvec *, off_t,
			  struct fuse_file_info *);

/* libfuse calls this at once, from fuse_req_interrupt_func(), if it came that early. */
static void on_interrupt(fuse_req_t req, void *id)
{
	(void)req;
	if ((uintptr_t)id == fuse_hook_read.id)
		fuse_hook_read.interrupted = true;
	fuse_hook_interrupted((uintptr_t)id);
}

static void hooked_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			struct fuse_file_info *info)
{
	fuse_hook_read.id++;
	fuse_hook_read.flags = info->flags;
	fuse_hook_read.interrupted = false;
	fuse_req_interrupt_func(req, on_interrupt, (void *)(uintptr_t)fuse_hook_read.id);
	next_read(req, ino, size, offset, info);
}

static void hooked_write(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data, off_t offset,
			 struct fuse_file_info *info)
{
	fuse_hook_writer = fuse_req_ctx(req)->pid;
	next_write(req, ino, data, offset, info);
}

/*
 * RELEASE is a background request: the kernel holds back all but 12 of those by default,
 * and lets later requests pass them. When many readers are killed at once, what is read
 * after that must show it: let none wait.
 */
static void hooked_init(void *userdata, struct fuse_conn_info *conn)
{
	next_init(userdata, conn);
	conn->max_background = UINT16_MAX;
	conn->congestion_threshold = UINT16_MAX;
}

/* The operations with ours put in; @op as it is if it is not what we know. */
static const struct fuse_lowlevel_ops *hook(const struct fuse_lowlevel_ops *op, size_t size)
{
	if (size > sizeof(hooked_ops) || !op->read || !op->write_buf || !op->init)
		return op;
	memcpy(&hooked_ops, op, size);
	next_read = op->read;
	hooked_ops.read = hooked_read;
	next_write = op->write_buf;
	hooked_ops.write_buf = hooked_write;
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

static bool fuse_hook_was_hit(void)
{
	return hooked_session && next_read;
}

/* Of /dev/fuse; -1 without a session. */
static int fuse_hook_session_fd(void)
{
	return hooked_session ? fuse_session_fd(hooked_session) : -1;
}
