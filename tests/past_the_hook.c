/*
 * To be loaded before all else (LD_PRELOAD): calls of pyfuse3 go past the hook into libfuse, as
 * those of a pyfuse3 or a libfuse would that we do not know. -DREQUESTS: those that ask for
 * requests; -DOPENS: those that answer open().
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

/* Also while the hook's functions are there for all to see: libfuse's own. */
static void *of_libfuse(const char *name)
{
	static const char *const libraries[] = {"libfuse3.so.4", "libfuse3.so.3"};

	for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
		void *libfuse = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD);

		if (libfuse)
			return dlsym(libfuse, name);
	}
	return NULL;
}

#ifdef REQUESTS
int fuse_session_fd(void *session)
{
	int (*next)(void *) = of_libfuse("fuse_session_fd");

	return next ? next(session) : -ENOSYS;
}

int fuse_session_receive_buf(void *session, void *buf)
{
	int (*next)(void *, void *) = of_libfuse("fuse_session_receive_buf");

	return next ? next(session, buf) : -ENOSYS;
}
#endif

#ifdef OPENS
int fuse_reply_open(void *req, const void *info)
{
	int (*next)(void *, const void *) = of_libfuse("fuse_reply_open");

	return next ? next(req, info) : -ENOSYS;
}
#endif
