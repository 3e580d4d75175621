// SPDX-License-Identifier: Apache-2.0
/*
 * What libfuse has from 3.17 on, by what it had before: linked in front of an older one, so
 * that the hook finds it behind itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

struct fuse_args;
struct fuse_lowlevel_ops;
struct fuse_session;
struct libfuse_version;

struct fuse_session *fuse_session_new_versioned(struct fuse_args *args,
						const struct fuse_lowlevel_ops *op, size_t size,
						struct libfuse_version *version, void *userdata);

struct fuse_session *fuse_session_new_versioned(struct fuse_args *args,
						const struct fuse_lowlevel_ops *op, size_t size,
						struct libfuse_version *version, void *userdata)
{
	struct fuse_session *(*next)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t,
				     void *) = dlsym(RTLD_NEXT, "fuse_session_new");

	(void)version;
	return next(args, op, size, userdata);
}
