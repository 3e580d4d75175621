// SPDX-License-Identifier: Apache-2.0
/*
 * The hook, with libfuse behind it and a socket for /dev/fuse, which libfuse takes as what it
 * is to mount. The test is the kernel at one end, and what pyfuse3 is at the other: operations,
 * and a loop that asks for requests.
 */
#include "../_fuse_hook.csrc.c"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "faults.h"

/* What does not come in this time never comes (ms). */
#define NEVER_MS 20000
#define INODE 5
#define CALLER 77
#define NOTHING_READ "nothing"

CALLOC_FAULT

/* --- what pyfuse3 and Python are ------------------------------------------------------------ */

static struct {
	struct fuse_session *session;
	struct fuse_buf buf;
	struct fuse_hook_request seen; /* by an operation */
	uint64_t interrupted;
	uint64_t handle; /* that open gives */
	bool waits;      /* read does not answer, but remembers who asked: */
	fuse_req_t waiting;
	int device, kernel;
} fixture;

static void fuse_hook_interrupted(uint64_t id)
{
	fixture.interrupted = id;
}

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	assert_ptr_equal(userdata, &fixture);
	conn->max_background = 12;
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	assert_int_equal(ino, INODE);
	fixture.seen = fuse_hook_request;
	info->fh = fixture.handle;
	assert_int_equal(fuse_reply_open(req, info), 0);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *info)
{
	(void)ino, (void)size, (void)offset, (void)info;
	fixture.seen = fuse_hook_request;
	if (fixture.waits)
		fixture.waiting = req;
	else
		fuse_reply_buf(req, NOTHING_READ, sizeof(NOTHING_READ));
}

static void on_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data, off_t offset,
			 struct fuse_file_info *info)
{
	(void)ino, (void)offset, (void)info;
	fixture.seen = fuse_hook_request;
	fuse_reply_write(req, fuse_buf_size(data));
}

static const struct fuse_lowlevel_ops operations = {
	.init = on_init,
	.open = on_open,
	.read = on_read,
	.write_buf = on_write_buf,
};

/* Ask for a request, and have it dispatched; what asking gave. */
static int next_request(void)
{
	int got = fuse_session_receive_buf(fixture.session, &fixture.buf);

	if (got > 0)
		fuse_session_process_buf(fixture.session, &fixture.buf);
	return got;
}

/* --- the kernel's end ---------------------------------------------------------------------- */

struct request {
	struct fuse_in_header header;
	union {
		struct fuse_init_in init;
		struct fuse_open_in open;
		struct fuse_read_in read;
		struct fuse_interrupt_in interrupt;
		struct {
			struct fuse_write_in write;
			char data[4];
		};
	};
};

struct reply {
	struct fuse_out_header header;
	union {
		struct fuse_init_out init;
		struct fuse_open_out open;
		struct fuse_write_out write;
		char data[256];
	};
};

static void ask(uint32_t opcode, uint64_t unique, const struct request *body, size_t size)
{
	struct request request = *body;

	request.header = (struct fuse_in_header){
		.len = (uint32_t)(sizeof(request.header) + size),
		.opcode = opcode,
		.unique = unique,
		.nodeid = INODE,
		.pid = CALLER,
	};
	assert_int_equal(send(fixture.kernel, &request, request.header.len, 0),
			 request.header.len);
}

static void ask_to_open(uint64_t unique, uint32_t flags)
{
	struct request request = { .open.flags = flags };

	ask(FUSE_OPEN, unique, &request, sizeof(request.open));
}

static void ask_to_read(uint64_t unique, uint32_t flags, uint64_t lock_owner)
{
	struct request request = {
		.read = { .size = 100,
			  .flags = flags,
			  .lock_owner = lock_owner,
			  .read_flags = lock_owner ? FUSE_READ_LOCKOWNER : 0 },
	};

	ask(FUSE_READ, unique, &request, sizeof(request.read));
}

static void ask_to_write(uint64_t unique, uint32_t flags)
{
	struct request request = { .write = { .size = 4, .flags = flags } };

	ask(FUSE_WRITE, unique, &request, sizeof(request.write) + sizeof(request.data));
}

static void interrupt(uint64_t unique)
{
	struct request request = { .interrupt.unique = unique };

	ask(FUSE_INTERRUPT, unique | 1, &request, sizeof(request.interrupt));
}

/* The next reply is an error, or so many bytes. */
static struct reply expect_reply(uint64_t unique, int result)
{
	struct reply reply;
	ssize_t got = recv(fixture.kernel, &reply, sizeof(reply), MSG_DONTWAIT);

	assert_true(got >= (ssize_t)sizeof(reply.header));
	assert_int_equal(reply.header.unique, unique);
	assert_int_equal(reply.header.error, result < 0 ? result : 0);
	assert_int_equal(got - (ssize_t)sizeof(reply.header), result < 0 ? 0 : result);
	return reply;
}

static void ask_to_begin(uint64_t unique)
{
	struct request request = { .init = { .major = FUSE_KERNEL_VERSION,
					     .minor = FUSE_KERNEL_MINOR_VERSION,
					     .max_readahead = 1 << 17 } };

	ask(FUSE_INIT, unique, &request, sizeof(request.init));
}

static struct fuse_init_out begin(void)
{
	ask_to_begin(2);
	assert_true(next_request() > 0);
	return expect_reply(2, sizeof(struct fuse_init_out)).init;
}

/* --- fixture ------------------------------------------------------------------------------- */

static char *words[] = { "test_fuse_hook", NULL };

static struct fuse_session *session_of(const struct fuse_lowlevel_ops *op)
{
	struct fuse_args args = FUSE_ARGS_INIT(1, words);
	struct fuse_session *session = fuse_session_new(&args, op, sizeof(*op), &fixture);

	fuse_opt_free_args(&args);
	return session;
}

static struct fuse_session *versioned_session_of(const struct fuse_lowlevel_ops *op)
{
	static uint64_t version[8]; /* of libfuse; as large as it may ever be */
	struct fuse_args args = FUSE_ARGS_INIT(1, words);
	struct fuse_session *session = fuse_session_new_versioned(
		&args, op, sizeof(*op), (struct libfuse_version *)version, &fixture);

	fuse_opt_free_args(&args);
	return session;
}

static int setup_with(struct fuse_session *session)
{
	char mountpoint[32];
	int fds[2];

	memset(&fixture, 0, sizeof(fixture));
	assert_non_null(session);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	fixture.session = session;
	fixture.device = fds[0];
	fixture.kernel = fds[1];
	snprintf(mountpoint, sizeof(mountpoint), "/dev/fd/%d", fixture.device);
	assert_int_equal(fuse_session_mount(session, mountpoint), 0);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return setup_with(session_of(&operations));
}

static int setup_versioned(void **state)
{
	(void)state;
	return setup_with(versioned_session_of(&operations));
}

/* As it was when this was loaded. */
static int teardown(void **state)
{
	(void)state;
	calloc_fault = no_fault;
	if (pump)
		pump_destroy(pump);
	pump = NULL;
	if (fixture.session)
		fuse_session_destroy(fixture.session);
	free(fixture.buf.mem);
	if (fixture.kernel)
		close(fixture.kernel);
	memset(&fixture, 0, sizeof(fixture));
	hooked_session = NULL;
	next_read = NULL;
	return 0;
}

/* --- sessions ------------------------------------------------------------------------------ */

static void test_without_a_session(void **state)
{
	(void)state;
	assert_false(fuse_hook_was_hit());
	assert_int_equal(fuse_hook_session_fd(), -1);
	assert_true(fuse_hook_sets_streams());
}

static void test_the_session_is_ours(void **state)
{
	(void)state;
	assert_true(fuse_hook_was_hit());
	assert_int_equal(fuse_hook_session_fd(), fixture.device);
}

static void test_a_session_that_cannot_be_had(void **state)
{
	char *unknown[] = { "test_fuse_hook", "-o", "no_such_option", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, unknown);

	(void)state;
	assert_null(fuse_session_new(&args, &operations, sizeof(operations), NULL));
	assert_false(fuse_hook_was_hit());
	assert_int_equal(fuse_hook_session_fd(), -1);
	fuse_opt_free_args(&args);
}

/* Who has no such operations is not hooked, and is served all the same. */
static void test_operations_that_are_missing(void **state)
{
	struct fuse_lowlevel_ops lacking[4] = { operations, operations, operations, operations };

	lacking[0].init = NULL;
	lacking[1].open = NULL;
	lacking[2].read = NULL;
	lacking[3].write_buf = NULL;
	for (int i = 0; i < 4; i++) {
		setup_with(session_of(&lacking[i]));
		assert_false(fuse_hook_was_hit());
		assert_int_equal(begin().max_background, i ? 12 : 0);
		ask_to_open(4, O_RDONLY);
		assert_true(next_request() > 0);
		assert_int_equal(fixture.seen.caller, 0);
		teardown(state);
	}
}

/* Of a libfuse that is not ours: what is behind their end is not read, as ASan knows. */
static void test_operations_of_another_size(void **state)
{
	const size_t too_small = offsetof(struct fuse_lowlevel_ops, write_buf);
	struct fuse_lowlevel_ops *op = malloc(LEAST_OPS), *less = malloc(too_small);

	(void)state;
	assert_non_null(op);
	assert_non_null(less);
	memcpy(op, &operations, LEAST_OPS);
	memcpy(less, &operations, too_small);
	assert_ptr_equal(hook(less, too_small), less);
	assert_ptr_equal(hook(op, sizeof(*op) + 1), op);
	assert_null(next_read);
	assert_ptr_equal(hook(op, LEAST_OPS), &hooked_ops);
	free(op);
	free(less);
}

/* --- operations ---------------------------------------------------------------------------- */

static void test_no_release_is_held_back_and_nothing_read_ahead(void **state)
{
	struct fuse_init_out init = begin();

	(void)state;
	assert_int_equal(init.max_background, UINT16_MAX);
	assert_int_equal(init.congestion_threshold, UINT16_MAX);
	assert_int_equal(init.max_readahead, 0);
}

static void test_the_request_is_known_to_its_operation(void **state)
{
	uint64_t id;

	(void)state;
	begin();
	ask_to_open(4, O_RDWR);
	assert_true(next_request() > 0);
	expect_reply(4, sizeof(struct fuse_open_out));
	assert_int_equal(fixture.seen.caller, CALLER);
	assert_int_equal(fixture.seen.flags, O_RDWR);
	assert_int_equal(fixture.seen.cache, 0);
	id = fixture.seen.id;

	ask_to_read(6, O_NONBLOCK, 1);
	assert_true(next_request() > 0);
	expect_reply(6, sizeof(NOTHING_READ));
	assert_int_equal(fixture.seen.flags, O_NONBLOCK);
	assert_int_equal(fixture.seen.cache, 0);
	assert_int_equal(fixture.seen.id, id + 1);

	ask_to_read(8, 0, 0);
	assert_true(next_request() > 0);
	expect_reply(8, sizeof(NOTHING_READ));
	assert_int_equal(fixture.seen.cache, INODE);

	ask_to_write(10, O_WRONLY);
	assert_true(next_request() > 0);
	assert_int_equal(expect_reply(10, sizeof(struct fuse_write_out)).write.size, 4);
	assert_int_equal(fixture.seen.flags, O_WRONLY);
	assert_int_equal(fixture.seen.id, id + 3);
	assert_false(fixture.seen.interrupted);
}

static void test_a_stream_is_opened_as_one(void **state)
{
	struct fuse_open_out out;

	(void)state;
	begin();
	ask_to_open(4, 0);
	fixture.handle = 9;
	assert_true(next_request() > 0);
	out = expect_reply(4, sizeof(out)).open;
	assert_int_equal(out.fh, 9);
	assert_int_equal(out.open_flags & FOPEN_STREAM, 0);

	ask_to_open(6, 0);
	fixture.handle = FUSE_HOOK_STREAM | 9;
	assert_true(next_request() > 0);
	out = expect_reply(6, sizeof(out)).open;
	assert_true(out.fh == (FUSE_HOOK_STREAM | 9));
	assert_int_equal(out.open_flags, FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE | FOPEN_STREAM);
}

static void test_the_read_that_waits_is_interrupted(void **state)
{
	(void)state;
	begin();
	fixture.waits = true;
	ask_to_read(4, 0, 1);
	assert_true(next_request() > 0);
	assert_false(fixture.seen.interrupted);
	ask_to_open(6, 0); /* the last request is another one */
	assert_true(next_request() > 0);
	expect_reply(6, sizeof(struct fuse_open_out));
	interrupt(4);
	assert_true(next_request() > 0);
	assert_int_equal(fixture.interrupted, fixture.seen.id - 1);
	assert_false(fuse_hook_request.interrupted);
	fuse_reply_err(fixture.waiting, EINTR);
	expect_reply(4, -EINTR);
}

/* Interrupts have a queue of their own, and may be the first to come. */
static void test_the_read_that_is_interrupted_already(void **state)
{
	(void)state;
	begin();
	interrupt(4);
	assert_true(next_request() > 0);
	assert_int_equal(fixture.interrupted, 0);
	fixture.waits = true;
	ask_to_read(4, 0, 1);
	assert_true(next_request() > 0);
	assert_true(fixture.seen.interrupted);
	assert_int_equal(fixture.interrupted, fixture.seen.id);
	fuse_reply_err(fixture.waiting, EINTR);
	expect_reply(4, -EINTR);
}

/* --- the pump ------------------------------------------------------------------------------ */

static uint64_t none_unread(struct event_source *source, uint32_t cpu)
{
	(void)source, (void)cpu;
	return 0;
}

/* Leave the floor until there is a request. */
static void wait_for_request(int inbox)
{
	struct pollfd wait = { .fd = inbox, .events = POLLIN };

	fuse_hook_leave();
	assert_int_equal(poll(&wait, 1, NEVER_MS), 1);
	fuse_hook_enter();
}

static void test_requests_come_through_the_pump(void **state)
{
	struct event_source source = {
		.unread = none_unread, .alive_fd = -1, .bell_fd = -1, .told_fd = -1
	};
	int inbox = fuse_session_fd(fixture.session);

	(void)state;
	assert_true(fuse_hook_has_pump());
	assert_int_not_equal(inbox, fixture.device);
	assert_int_equal(fuse_session_fd(fixture.session), inbox); /* there is one */
	assert_int_equal(fuse_hook_session_fd(), fixture.device);
	fuse_hook_add((uintptr_t)&source);
	assert_int_equal(next_request(), -EINTR); /* there is none */
	assert_int_equal(fuse_hook_start(), 0);
	assert_non_null(source.changed);
	ask_to_begin(2);
	wait_for_request(inbox);
	assert_true(next_request() > 0);
	expect_reply(2, sizeof(struct fuse_init_out));
	for (uint64_t unique = 4; unique < 10; unique += 2) {
		ask_to_open(unique, 0);
		wait_for_request(inbox);
		assert_true(next_request() > 0);
		expect_reply(unique, sizeof(struct fuse_open_out));
		assert_int_equal(next_request(), -EINTR);
	}
	/* The end is for libfuse to find. */
	close(fixture.kernel);
	fixture.kernel = 0;
	wait_for_request(inbox);
	assert_true(next_request() <= 0);
	fuse_hook_stop();
}

/* There is no memory for it: requests come as without us. */
static void test_a_pump_that_cannot_be_had_is_done_without(void **state)
{
	(void)state;
	calloc_fault = no_memory;
	assert_int_equal(fuse_session_fd(fixture.session), fixture.device);
	calloc_fault = no_fault;
	assert_false(fuse_hook_has_pump());
	begin();
	ask_to_open(4, 0);
	assert_true(next_request() > 0);
	expect_reply(4, sizeof(struct fuse_open_out));
	assert_int_equal(fixture.seen.caller, CALLER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		cmocka_unit_test(test_without_a_session),
		TEST(test_the_session_is_ours),
		cmocka_unit_test_teardown(test_a_session_that_cannot_be_had, teardown),
		cmocka_unit_test_teardown(test_operations_that_are_missing, teardown),
		cmocka_unit_test_teardown(test_operations_of_another_size, teardown),
		TEST(test_no_release_is_held_back_and_nothing_read_ahead),
		TEST(test_the_request_is_known_to_its_operation),
		{ "test_the_request_is_known_to_its_operation, libfuse 3.17",
		  test_the_request_is_known_to_its_operation, setup_versioned, teardown, NULL },
		TEST(test_a_stream_is_opened_as_one),
		TEST(test_the_read_that_waits_is_interrupted),
		TEST(test_the_read_that_is_interrupted_already),
		TEST(test_requests_come_through_the_pump),
		TEST(test_a_pump_that_cannot_be_had_is_done_without),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
