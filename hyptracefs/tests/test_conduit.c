// SPDX-License-Identifier: Apache-2.0
/*
 * The socket conduit. The test is the hypervisor, and has answered before it is asked: the
 * first request has the number 1.
 */
#include "../_conduit.csrc.c"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "faults.h"

static struct hvc_conduit *conduit;
static int hypervisor;

CALLOC_FAULT
RECV_FAULT

static u64 clock_steps_ns; /* more, each time that it is read */

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
	static u64 ahead_ns;
	int error = __real_clock_gettime(clock, now);

	ahead_ns += clock_steps_ns;
	now->tv_sec += (time_t)(ahead_ns / 1000000000);
	return error;
}

static int setup(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
	hypervisor = fds[1];
	conduit = (struct hvc_conduit *)socket_conduit_create(fds[0]);
	assert_non_null(conduit);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	calloc_fault = recv_fault = no_fault;
	clock_steps_ns = 0;
	socket_conduit_destroy((uintptr_t)conduit);
	close(hypervisor);
	return 0;
}

static int error_of_conduit(void)
{
	return socket_conduit_error((uintptr_t)conduit);
}

static void answer(const void *message, size_t size)
{
	assert_int_equal(send(hypervisor, message, size, 0), size);
}

static void answer_result(u32 sequence, u64 x0, u64 x1)
{
	struct single_reply reply = { sequence, 1, { x0, x1 } };

	answer(&reply, sizeof(reply));
}

static struct hvc_regs call(u64 x0, u64 x1, u64 x2, u64 x3)
{
	struct hvc_regs regs = { x0, x1, x2, x3, 0 };

	conduit->hvc(conduit, 3, &regs);
	return regs;
}

static int result_of_enable(void)
{
	struct hvc_regs regs = call(HVC_TRACING_ENABLE, 1, 0, 0);

	return hvc_result(&regs);
}

/* Given up: it can tell, we know why, and do not ask again. */
static void expect_given_up(int why)
{
	struct single_request request;

	assert_int_equal(result_of_enable(), -ENODEV);
	assert_int_equal(error_of_conduit(), why);
	while (recv(hypervisor, &request, sizeof(request), MSG_DONTWAIT) > 0)
		assert_int_equal(request.sequence, 1);
	assert_true(send(hypervisor, "", 1, MSG_NOSIGNAL) < 0);
}

/* The file that came with the next request; -1: none did. */
static int passed_fd(struct single_request *request)
{
	union {
		struct cmsghdr header;
		u8 bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { request, sizeof(*request) };
	struct msghdr message = { .msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	int fd = -1;

	assert_int_equal(recvmsg(hypervisor, &message, MSG_DONTWAIT), sizeof(*request));
	if (message.msg_controllen)
		memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

/* --- tests --------------------------------------------------------------------------------- */

static void test_a_call_and_its_answer(void **state)
{
	struct single_request request;
	struct hvc_regs regs;

	(void)state;
	answer_result(1, 0, 5);
	answer_result(2, HVC_NOT_SUPPORTED, 0);
	regs = call(HVC_TRACING_SWAP_READER, 7, 8, 9);
	assert_int_equal(regs.x0, 0);
	assert_int_equal(regs.x1, 5);
	assert_int_equal(result_of_enable(), -EOPNOTSUPP);
	assert_int_equal(error_of_conduit(), 0);

	assert_int_equal(passed_fd(&request), -1);
	assert_int_equal(request.sequence, 1);
	assert_int_equal(request.nr_calls, 1);
	assert_int_equal(request.call.cpu, 3);
	assert_int_equal(request.call.regs.x0, HVC_TRACING_SWAP_READER);
	assert_int_equal(request.call.regs.x1, 7);
	assert_int_equal(request.call.regs.x2, 8);
	assert_int_equal(request.call.regs.x3, 9);
}

static void test_the_calls_that_a_file_goes_with(void **state)
{
	static const struct {
		u64 x0, x1;
		bool file;
	} calls[] = {
		{ HVC_TRACING_LOAD, 0, true },
		{ HVC_TRACING_DOORBELL, HYP_DOORBELL_HANG, true },
		{ HVC_TRACING_DOORBELL, HYP_DOORBELL_ARM, false },
		{ HVC_TRACING_UNLOAD, HYP_DOORBELL_HANG, false },
	};
	struct single_request request;

	(void)state;
	for (u32 i = 0; i < 4; i++) {
		int fd;

		answer_result(i + 1, 0, 0);
		call(calls[i].x0, calls[i].x1, 0, (u64)hypervisor);
		fd = passed_fd(&request);
		assert_int_equal(fd >= 0, calls[i].file);
		if (fd >= 0)
			close(fd);
	}
}

static void test_who_answers_something_else_is_given_up(void **state)
{
	static const struct {
		struct single_reply reply;
		size_t size;
	} answers[] = {
		{ { 1, 1, { 0 } }, sizeof(struct single_reply) - 1 },
		{ { 2, 1, { 0 } }, sizeof(struct single_reply) },
		{ { 1, 2, { 0 } }, sizeof(struct single_reply) },
	};
	u8 too_long[sizeof(struct single_reply) + 1] = { 1, 0, 0, 0, 1 };

	for (u32 i = 0; i < 3; i++) {
		answer(&answers[i].reply, answers[i].size);
		expect_given_up(-EPROTO);
		teardown(state);
		setup(state);
	}
	answer(too_long, sizeof(too_long));
	expect_given_up(-EPROTO);
}

static void test_an_answer_that_is_interrupted_is_waited_for(void **state)
{
	static const int errors[] = { EINTR, EAGAIN };

	(void)state;
	for (u32 i = 0; i < 2; i++) {
		recv_fault = (struct fault){ .times = 3, .error = errors[i] };
		answer_result(i + 1, 0, 0);
		assert_int_equal(result_of_enable(), 0);
		assert_int_equal(recv_fault.times, 0);
	}
}

static void test_an_answer_that_cannot_be_had(void **state)
{
	(void)state;
	recv_fault = (struct fault){ .times = 1, .error = ENOBUFS };
	answer_result(1, 0, 0);
	assert_int_equal(result_of_enable(), -ENODEV);
	assert_int_equal(recv_fault.times, 0);
	expect_given_up(-ENOBUFS);
}

static void test_who_ends_instead_of_answering(void **state)
{
	(void)state;
	shutdown(hypervisor, SHUT_WR);
	expect_given_up(-ECONNRESET);
}

static void test_who_has_ended_is_not_asked(void **state)
{
	(void)state;
	close(hypervisor);
	assert_int_equal(result_of_enable(), -ENODEV);
	assert_int_equal(error_of_conduit(), -EPIPE);
	hypervisor = dup(0);
}

/* It has two seconds, and for a load more for each page. They pass at once. */
static void test_who_does_not_answer_is_given_up(void **state)
{
	(void)state;
	clock_steps_ns = 3000000000;
	recv_fault = (struct fault){ .times = 1, .error = EAGAIN };
	answer_result(1, 0, 0);
	call(HVC_TRACING_LOAD, 0, 40000 * sizeof(u64), (u64)hypervisor);
	assert_int_equal(error_of_conduit(), 0);
	assert_int_equal(result_of_enable(), -ENODEV);
	assert_int_equal(error_of_conduit(), -ETIMEDOUT);
}

static void test_hung_up(void **state)
{
	(void)state;
	answer_result(1, 0, 0);
	socket_conduit_hang_up((uintptr_t)conduit);
	socket_conduit_hang_up((uintptr_t)conduit);
	expect_given_up(-ENODEV);
}

static void test_why_it_was_given_up_stays(void **state)
{
	(void)state;
	shutdown(hypervisor, SHUT_WR);
	assert_int_equal(result_of_enable(), -ENODEV);
	socket_conduit_hang_up((uintptr_t)conduit);
	assert_int_equal(error_of_conduit(), -ECONNRESET);
}

/* Who asked still has its file, then. */
static void test_without_memory_there_is_none(void **state)
{
	(void)state;
	calloc_fault = no_memory;
	assert_int_equal(socket_conduit_create(hypervisor), 0);
	assert_true(fcntl(hypervisor, F_GETFD) >= 0);
}

static void answer_statistics(u32 sequence, u64 x0, u64 x1, u32 size, size_t sent)
{
	struct statistics_reply reply = { .head = { sequence, 1, { x0, x1 } },
					  .body = { .size = size, .nr_cpus = 77 } };

	answer(&reply, sizeof(reply.head) + sent);
}

static void test_statistics(void **state)
{
	const u32 body = sizeof(struct hyp_statistics_msg);
	union {
		struct hyp_statistics_msg body;
		u8 bytes[HYP_MAX_STATISTICS];
	} got = { .body = { 0 } };
	struct single_request request;
	struct hvc_regs regs;

	(void)state;
	answer_statistics(1, 0, 0, body, body);
	regs = call(HVC_TRACING_STATISTICS, (uintptr_t)&got, 0, 0);
	assert_int_equal(hvc_result(&regs), 0);
	assert_int_equal(got.body.nr_cpus, 77);
	assert_int_equal(passed_fd(&request), -1);
	assert_int_equal(request.call.regs.x1, 0); /* our addresses are ours */

	answer_statistics(2, 0, 0, HYP_MAX_STATISTICS, HYP_MAX_STATISTICS);
	regs = call(HVC_TRACING_STATISTICS, (uintptr_t)&got, 0, 0);
	assert_int_equal(hvc_result(&regs), 0);
	assert_int_equal(got.body.size, HYP_MAX_STATISTICS);
}

/* Nothing is taken of these, but the next call is made. */
static void test_statistics_that_are_none(void **state)
{
	const u32 body = sizeof(struct hyp_statistics_msg);
	const struct {
		u64 x0, x1;
		u32 size;
		size_t sent;
		int result;
	} answers[] = {
		{ 0, 0, body, 0, -EPROTO },        { 0, 0, body - 1, body - 1, -EPROTO },
		{ 0, 0, body + 1, body, -EPROTO }, { 0, (u64)-EBUSY, 0, 0, -EBUSY },
		{ HVC_NOT_SUPPORTED, 0, 0, 0, -EOPNOTSUPP },
	};
	struct hyp_statistics_msg got = { 0 };

	(void)state;
	for (u32 i = 0; i < 5; i++) {
		struct hvc_regs regs;

		answer_statistics(i + 1, answers[i].x0, answers[i].x1, answers[i].size,
				  answers[i].sent);
		regs = call(HVC_TRACING_STATISTICS, (uintptr_t)&got, 0, 0);
		assert_int_equal(hvc_result(&regs), answers[i].result);
		assert_int_equal(error_of_conduit(), 0);
		assert_int_equal(got.nr_cpus, 0);
	}
	shutdown(hypervisor, SHUT_WR);
	call(HVC_TRACING_STATISTICS, (uintptr_t)&got, 0, 0);
	assert_int_equal(error_of_conduit(), -ECONNRESET);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_a_call_and_its_answer),
		TEST(test_the_calls_that_a_file_goes_with),
		TEST(test_who_answers_something_else_is_given_up),
		TEST(test_an_answer_that_is_interrupted_is_waited_for),
		TEST(test_an_answer_that_cannot_be_had),
		TEST(test_who_ends_instead_of_answering),
		TEST(test_who_has_ended_is_not_asked),
		TEST(test_who_does_not_answer_is_given_up),
		TEST(test_hung_up),
		TEST(test_why_it_was_given_up_stays),
		TEST(test_without_memory_there_is_none),
		TEST(test_statistics),
		TEST(test_statistics_that_are_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
