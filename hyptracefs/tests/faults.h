/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does not go wrong by itself, in a test that is linked with -Wl,--wrap=NAME: calls of NAME
 * ask fails() whether this one does.
 */
#ifndef HYPTRACEFS_TESTS_FAULTS_H
#define HYPTRACEFS_TESTS_FAULTS_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>

#include "wrap.h"

/* Zeroed: none. */
struct fault {
	unsigned int times;  /* so many calls fail, */
	unsigned int spared; /* after so many that do not, */
	int error;           /* with this errno */
};

#define FAULT_FOR_EVER UINT_MAX

static inline bool fails(struct fault *fault)
{
	if (!fault->times)
		return false;
	if (fault->spared) {
		fault->spared--;
		return false;
	}
	if (fault->times != FAULT_FOR_EVER)
		fault->times--;
	errno = fault->error;
	return true;
}

/* As the fault NAME_fault has it. */
#define FAULT(type, failure, name, parameters, arguments) \
	static struct fault name##_fault;                 \
	WRAP(type, name, parameters, arguments, fails(&name##_fault), failure)

#define CALLOC_FAULT FAULT(void *, NULL, calloc, (size_t nr, size_t size), (nr, size))
#define RECV_FAULT                                                                     \
	FAULT(ssize_t, -1, recv, (int fd, void *bytes, size_t size, int flags), \
	      (fd, bytes, size, flags))

/* For who does not ask why. */
static const struct fault no_fault;
static const struct fault no_memory = { .times = FAULT_FOR_EVER, .error = ENOMEM };

#endif
