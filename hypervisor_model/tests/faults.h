/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine can refuse, refused: the n-th of the calls that a watched thread makes to it
 * fails, as it would. (The linker puts these in its place: --wrap, see CMakeLists.txt.)
 */
#ifndef HYPERVISOR_MODEL_TESTS_FAULTS_H
#define HYPERVISOR_MODEL_TESTS_FAULTS_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "ringbuf_c/types.h"
#include "wrap.h"

static struct {
	u32 countdown;      /* the call that fails; 0: none */
	const char *failed; /* which one has; NULL: none yet */
	u32 peer_uid;       /* of all who connect; 0: the true one */
	bool no_descriptors; /* for anybody who connects */
	u32 accepts;
} faults; /* of one thread at a time */

static _Thread_local bool watched;

static bool refused(const char *call, int error)
{
	if (!watched || !faults.countdown || --faults.countdown)
		return false;
	faults.failed = call;
	errno = error;
	return true;
}

#define FAULT(type, failure, error, name, parameters, arguments) \
	WRAP(type, name, parameters, arguments, refused(#name, error), failure)

FAULT(void *, NULL, ENOMEM, malloc, (size_t size), (size))
FAULT(void *, NULL, ENOMEM, calloc, (size_t nr, size_t size), (nr, size))
FAULT(void *, NULL, ENOMEM, aligned_alloc, (size_t alignment, size_t size), (alignment, size))
FAULT(void *, MAP_FAILED, ENOMEM, mmap,
      (void *at, size_t size, int prot, int flags, int fd, off_t offset),
      (at, size, prot, flags, fd, offset))
FAULT(int, -1, EIO, fstat, (int fd, struct stat *st), (fd, st))
FAULT(int, -1, EINVAL, sched_getaffinity, (pid_t pid, size_t size, cpu_set_t *set),
      (pid, size, set))
FAULT(int, -1, EINTR, poll, (struct pollfd *fds, nfds_t nr, int timeout), (fds, nr, timeout))
FAULT(ssize_t, -1, EINTR, recvmsg, (int fd, struct msghdr *header, int flags),
      (fd, header, flags))
FAULT(ssize_t, -1, EPIPE, send, (int fd, const void *bytes, size_t size, int flags),
      (fd, bytes, size, flags))
/* These return their error. */
FAULT(int, EAGAIN, EAGAIN, pthread_create,
      (pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg),
      (thread, attr, run, arg))
FAULT(int, ENOMEM, ENOMEM, pthread_condattr_init, (pthread_condattr_t *attr), (attr))
FAULT(int, ENOMEM, ENOMEM, pthread_cond_init,
      (pthread_cond_t *cond, const pthread_condattr_t *attr), (cond, attr))
FAULT(int, ENOMEM, ENOMEM, pthread_mutex_init,
      (pthread_mutex_t *mutex, const pthread_mutexattr_t *attr), (mutex, attr))

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	va_list list;
	long args[3];

	va_start(list, number); /* of membarrier(2) */
	for (u32 i = 0; i < 3; i++)
		args[i] = va_arg(list, int);
	va_end(list);
	return refused("syscall", ENOSYS) ? -1 : __real_syscall(number, args[0], args[1], args[2]);
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
	va_list list;
	int arg;

	va_start(list, command);
	arg = command == F_DUPFD_CLOEXEC || command == F_ADD_SEALS ? va_arg(list, int) : 0;
	va_end(list);
	return refused("fcntl", EMFILE) ? -1 : __real_fcntl(fd, command, arg);
}

int __real_getsockopt(int fd, int level, int option, void *value, socklen_t *size);
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *size);
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
	int ret = __real_getsockopt(fd, level, option, value, size);
	u32 peer_uid = __atomic_load_n(&faults.peer_uid, __ATOMIC_RELAXED);

	if (option == SO_PEERCRED && peer_uid)
		((struct ucred *)value)->uid = peer_uid;
	return refused("getsockopt", ENOBUFS) ? -1 : ret;
}

int __real_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
	__atomic_fetch_add(&faults.accepts, 1, __ATOMIC_RELAXED);
	if (__atomic_load_n(&faults.no_descriptors, __ATOMIC_RELAXED)) {
		errno = EMFILE;
		return -1;
	}
	return refused("accept4", EMFILE) ? -1 : __real_accept4(fd, address, size, flags);
}

#endif
