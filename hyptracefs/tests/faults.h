/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does not go wrong by itself. A test that is linked with -Wl,--wrap=NAME gets the calls
 * of NAME at its own __wrap_NAME(), which asks fails() whether this one does.
 */
#ifndef HYPTRACEFS_TESTS_FAULTS_H
#define HYPTRACEFS_TESTS_FAULTS_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>

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

/* For who does not ask why. */
static const struct fault no_fault;
static const struct fault no_memory = { .times = FAULT_FOR_EVER, .error = ENOMEM };

#endif
