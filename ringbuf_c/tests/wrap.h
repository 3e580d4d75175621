/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RINGBUF_C_TESTS_WRAP_H
#define RINGBUF_C_TESTS_WRAP_H

/*
 * In place of @name, in a test that is linked with -Wl,--wrap=@name: where @fails holds, the call
 * is not made, and gives @failure.
 */
#define WRAP(type, name, parameters, arguments, fails, failure)                       \
	type __real_##name parameters;                                                \
	type __wrap_##name parameters;                                                \
	type __wrap_##name parameters                                                 \
	{                                                                             \
		return (fails) ? (type)(failure) : __real_##name arguments;           \
	}

#endif
