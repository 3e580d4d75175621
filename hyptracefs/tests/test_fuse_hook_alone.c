// SPDX-License-Identifier: Apache-2.0
/*
 * The hook without libfuse behind it, or with another one that lacks what it passes calls on
 * to: they fail. The three that it calls by name are here.
 */
#include "../_fuse_hook.csrc.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "faults.h"

CALLOC_FAULT

static void fuse_hook_interrupted(uint64_t id)
{
	(void)id;
	fail();
}

const struct fuse_ctx *fuse_req_ctx(fuse_req_t req)
{
	(void)req;
	fail();
	return NULL;
}

void fuse_req_interrupt_func(fuse_req_t req, fuse_interrupt_func_t func, void *data)
{
	(void)req, (void)func, (void)data;
	fail();
}

static size_t replied;

int fuse_reply_buf(fuse_req_t req, const char *buf, size_t size)
{
	(void)req, (void)buf;
	replied = size;
	return 0;
}

static void test_there_is_no_session(void **state)
{
	const struct fuse_lowlevel_ops operations = { 0 };

	(void)state;
	assert_null(fuse_session_new(NULL, &operations, sizeof(operations), NULL));
	assert_null(fuse_session_new_versioned(NULL, &operations, sizeof(operations), NULL, NULL));
	assert_false(fuse_hook_was_hit());
	assert_int_equal(fuse_hook_session_fd(), -1);
}

static void test_a_file_cannot_be_opened_unless_it_is_a_stream(void **state)
{
	struct fuse_file_info info = { .fh = 1 };

	(void)state;
	assert_int_equal(fuse_reply_open(NULL, &info), -ENOSYS);
	assert_int_equal(replied, 0);
	info.fh = FUSE_HOOK_STREAM | 1;
	assert_int_equal(fuse_reply_open(NULL, &info), 0);
	assert_int_equal(replied, sizeof(struct fuse_open_out));
}

/* The buffer of the request before is gone either way, and once. */
static void test_there_is_no_request(void **state)
{
	struct fuse_buf buf = { .mem = malloc(1), .size = 1 };

	(void)state;
	assert_int_equal(fuse_session_receive_buf(NULL, &buf), -ENOSYS);
	assert_null(buf.mem);
}

static void test_there_is_no_device(void **state)
{
	(void)state;
	calloc_fault = no_memory;
	assert_int_equal(fuse_session_fd(NULL), -1);
	assert_false(fuse_hook_has_pump());
	calloc_fault = no_fault;
	assert_true(fuse_session_fd(NULL) >= 0); /* which nothing comes from */
	assert_int_equal(fuse_hook_start(), -EINVAL);
	pump_destroy(pump);
	pump = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_is_no_session),
		cmocka_unit_test(test_a_file_cannot_be_opened_unless_it_is_a_stream),
		cmocka_unit_test(test_there_is_no_request),
		cmocka_unit_test(test_there_is_no_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
