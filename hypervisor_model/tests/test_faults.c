// SPDX-License-Identifier: Apache-2.0
/*
 * Memory, threads, descriptors: each is refused once, one call after the other, until none is
 * left. Then somebody is told, or nobody has to know, and nothing of it stays (the leak sanitizer
 * looks, too); and the next one gets all.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/un.h>

#include "host.h"
#include "hypervisor_model/protocol.h"
#include "hypervisor_model/remote_test.h"

#include "faults.h"

#define NR_CPUS 2U
#define NR_PAGES 3U
#define SECOND 1000000000ULL
#define UNKNOWN_FORMAT 1000000
#define STRANGER 12345U
#define LATER_MS 100 /* as in server.c */

/* In and out again; and says what nobody knows. */
static const struct pcpu_step script[] = {
	{ 0, HYP_EVENT_INDEX_hyp_enter, { HYP_REASON_HVC, 1 } },
	{ 10, HYP_EVENT_INDEX_hyp_printk, { UNKNOWN_FORMAT, 1, 2, 3 } },
	{ 20, HYP_EVENT_INDEX_hyp_exit, { HYP_REASON_ERET_HOST, 1 } },
};

static struct host host;

/* Its memory is for whichever hypervisor there is. */
static int setup(void **state)
{
	(void)state;
	memset(&faults, 0, sizeof(faults));
	host_setup(&host, NR_CPUS, NR_PAGES);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	host_teardown(&host);
	return 0;
}

/* What a hypervisor is well without. */
static bool bearable(const char *call)
{
	return !strcmp(call, "syscall") || !strcmp(call, "sched_getaffinity");
}

/* --- in one process ------------------------------------------------------------------------- */

static int doorbell(void)
{
	int fds[2], ret;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return -errno;
	ret = hvc4(&host, 0, HVC_TRACING_DOORBELL, HYP_DOORBELL_HANG, 0, (u64)fds[1], 0);
	close(fds[0]);
	close(fds[1]);
	if (hyp_has_doorbell(host.hyp))
		return ret;
	assert_int_equal(ret, -EOPNOTSUPP);
	return 0;
}

#define FIRST_ERROR(call)          \
	do {                       \
		int error_ = call; \
		if (error_)        \
			return error_; \
	} while (0)

static int life(void)
{
	FIRST_ERROR(hyp_create(NR_CPUS, &host.hyp));
	FIRST_ERROR(hyp_set_script(host.hyp, 0, script, ARRAY_SIZE(script), SECOND));
	FIRST_ERROR(hyp_run_program(host.hyp, 1, HYP_PROGRAM_CHAOS, 1, 1));
	FIRST_ERROR(hyp_start(host.hyp));
	FIRST_ERROR(host_load(&host));
	FIRST_ERROR(doorbell());
	FIRST_ERROR(hvc(&host, 0, HVC_TRACING_ENABLE_EVENT, HYP_EVENT_ID_hyp_printk, true));
	FIRST_ERROR(hvc(&host, 0, HVC_TRACING_ENABLE, true, 0));
	FIRST_ERROR(hvc(&host, 0, HVC_TRACING_UPDATE_CLOCK, 1, 1));
	return hvc(&host, 0, HVC_TRACING_ENABLE, false, 0);
}

/* One life, in which call @nr fails. False: there was no such call. */
static bool live_with(u32 nr)
{
	u32 fds = count_fds();
	int ret;

	make_desc(&host);
	host.hyp = NULL;
	faults.failed = NULL;
	faults.countdown = nr;
	watched = true;
	ret = life();
	hyp_destroy(host.hyp);
	watched = false;
	host.hyp = NULL;
	assert_int_equal(count_fds(), fds);
	if (!faults.failed || bearable(faults.failed))
		assert_int_equal(ret, 0);
	else
		assert_in_range(-ret, 1, 133);
	return faults.failed;
}

static void test_each_call_of_a_life(void **state)
{
	u32 nr = 1;

	(void)state;
	hyp_destroy(host.hyp);
	while (live_with(nr))
		nr++;
	assert_true(nr > 20);
}

/* What waits for writers by membarrier(2), where there is none. */
static void test_without_membarrier(void **state)
{
	static struct host_event events[HOST_MAX_EVENTS];

	(void)state;
	hyp_destroy(host.hyp);
	faults.countdown = 3; /* after the two allocations */
	watched = true;
	assert_int_equal(hyp_create(NR_CPUS, &host.hyp), 0);
	watched = false;
	assert_string_equal(faults.failed, "syscall");
	assert_string_equal(hyp_writer_ordering(host.hyp), "cmpxchg");
	make_desc(&host);
	make_reader(&host);
	assert_int_equal(host_load(&host), 0);
	assert_int_equal(doorbell(), 0);
	host_enable_event(&host, HYP_EVENT_ID_selftest, true);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, true, 0), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_WRITE_EVENT, 7, 0), 0);
	assert_int_equal(hvc4(&host, 0, HVC_TRACING_UPDATE_CLOCK, 1, 0, 0, 0), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, false, 0), 0);
	assert_int_equal(host_read(&host, 0, events), 1);
	assert_int_equal(events[0].value, 7);
}

/* --- on a socket ------------------------------------------------------------------------------ */

static struct {
	struct hyp *hyp;
	pthread_t thread;
	int listen_fd, stop[2], ret;
	struct sockaddr_un address;
} server;

static void *serve(void *arg)
{
	(void)arg;
	watched = true;
	server.ret = hyp_serve(server.hyp, server.listen_fd, server.stop[0]);
	return NULL;
}

static void start_server(void)
{
	assert_int_equal(hyp_create(NR_CPUS, &server.hyp), 0);
	assert_int_equal(pipe(server.stop), 0);
	server.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	server.address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	/* a name that is nobody else's, and no file */
	snprintf(server.address.sun_path + 1, sizeof(server.address.sun_path) - 1,
		 "hyptracefs-test-%d", getpid());
	assert_int_equal(bind(server.listen_fd, (void *)&server.address, sizeof(server.address)), 0);
	assert_int_equal(listen(server.listen_fd, 8), 0);
	assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
}

static void stop_server(void)
{
	assert_int_equal(write(server.stop[1], "x", 1), 1);
	pthread_join(server.thread, NULL);
	assert_int_equal(server.ret, -ECANCELED);
	close(server.stop[0]);
	close(server.stop[1]);
	close(server.listen_fd);
	hyp_destroy(server.hyp);
}

static int connect_to_it(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (void *)&server.address, sizeof(server.address)), 0);
	return fd;
}

/* What the hello says; -EPIPE: hung up on. */
static int hello_of(int fd)
{
	struct hyp_hello hello;

	return recv(fd, &hello, sizeof(hello), 0) == sizeof(hello) ? hello.error : -EPIPE;
}

/* Until the last table has come; false: hung up on before. */
static bool introduced(int fd)
{
	static u8 message[HYP_MAX_MESSAGE];
	u32 left = 0;

	while (hyp_event_desc(left))
		left++;
	for (u32 i = 0; hyp_symbol_table(i); i++)
		left++;
	for (u32 i = 0; hyp_format_table(i); i++)
		left++;
	while (left && recv(fd, message, sizeof(message), 0) > 0)
		left--;
	return !left;
}

static bool answers(int fd)
{
	struct {
		struct hyp_request head;
		struct hyp_call_msg call;
	} request = { { 1, 1 }, { .regs.x0 = HVC_TRACING_RESET } };
	u8 reply[64];

	return send(fd, &request, sizeof(request), MSG_NOSIGNAL) > 0 &&
	       recv(fd, reply, sizeof(reply), 0) > 0;
}

/* As soon as the host before has been forgotten. *@error: as hello_of() */
static int attach(int *error)
{
	for (;;) {
		int fd = connect_to_it();

		*error = hello_of(fd);
		if (*error != -EBUSY)
			return fd;
		close(fd);
		sched_yield();
	}
}

static bool session(void)
{
	int error, fd = attach(&error);
	bool whole = !error && introduced(fd) && answers(fd);

	if (whole) {
		int other = connect_to_it(); /* while there is a host */

		assert_int_not_equal(hello_of(other), 0);
		close(other);
		whole = answers(fd);
	}
	close(fd);
	return whole;
}

/* One host may be hung up on, but no other one, nor the hypervisor, is any worse for it. */
static bool serve_with(u32 nr)
{
	faults.failed = NULL;
	faults.countdown = nr;
	start_server();
	assert_true(session() + session() + session() >= 2);
	stop_server();
	return faults.failed;
}

static void test_each_call_of_a_server(void **state)
{
	u32 fds = count_fds(), nr = 1;

	(void)state;
	while (serve_with(nr))
		nr++;
	assert_true(nr > 20);
	assert_int_equal(count_fds(), fds);
}

static void test_strangers(void **state)
{
	int host_fd, fd, error;

	(void)state;
	start_server();
	host_fd = attach(&error);
	assert_true(!error && introduced(host_fd));
	__atomic_store_n(&faults.peer_uid, STRANGER, __ATOMIC_RELAXED);
	fd = connect_to_it(); /* while there is a host */
	assert_int_equal(hello_of(fd), -EACCES);
	close(fd);
	close(host_fd);
	fd = attach(&error);
	assert_int_equal(error, -EACCES);
	close(fd);
	hyp_allow(server.hyp, STRANGER);
	assert_true(session());
	stop_server();
}

static u64 now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000 + (u64)now.tv_nsec / 1000000;
}

/* Who comes waits; the hypervisor does not ask all the time whether there is one now. */
static void nobody_can_come(u32 times)
{
	u64 start = now_ms();
	u32 accepts = __atomic_load_n(&faults.accepts, __ATOMIC_RELAXED);
	int fd;

	__atomic_store_n(&faults.no_descriptors, true, __ATOMIC_RELAXED);
	fd = connect_to_it();
	while (__atomic_load_n(&faults.accepts, __ATOMIC_RELAXED) < accepts + times)
		sched_yield();
	assert_true(now_ms() - start >= (times - 1) * LATER_MS);
	__atomic_store_n(&faults.no_descriptors, false, __ATOMIC_RELAXED);
	assert_int_not_equal(hello_of(fd), -EPIPE);
	close(fd);
}

static void test_no_descriptor_for_who_comes(void **state)
{
	int fd, error;

	(void)state;
	start_server();
	nobody_can_come(4);
	fd = attach(&error);
	assert_true(!error && introduced(fd) && answers(fd));
	nobody_can_come(4); /* while there is a host */
	assert_true(answers(fd));
	close(fd);
	__atomic_store_n(&faults.no_descriptors, true, __ATOMIC_RELAXED);
	fd = connect_to_it();
	stop_server(); /* it hears that all the same */
	close(fd);
}

/* --- the remote `test` ------------------------------------------------------------------------- */

static void test_remote_test(void **state)
{
	struct hvc_regs regs = { .x0 = HVC_TRACING_ENABLE_EVENT, .x1 = 1, .x2 = 1 };
	struct hyp *hyp;

	(void)state;
	assert_int_equal(remote_test_create(0, &hyp), -EINVAL);
	hyp_destroy(host.hyp);
	assert_int_equal(remote_test_create(NR_CPUS, &host.hyp), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE_EVENT, 2, 1), -EINVAL);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_WRITE_EVENT, 7, 0), -ENODEV); /* it is off */
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE_EVENT, 1, 1), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_WRITE_EVENT, 7, 0), -ENODEV); /* not loaded */
	assert_int_equal(host_load(&host), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_WRITE_EVENT, 7, 0), -ENODEV); /* tracing is */
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, 1, 0), 0);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, 7, 0), 0);
	assert_int_equal(host_entries(&host, 1), 1);
	hyp_conduit(host.hyp)->hvc(hyp_conduit(host.hyp), NR_CPUS, &regs);
	assert_true(regs.x0 == HVC_NOT_SUPPORTED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_each_call_of_a_life),
		TEST(test_without_membarrier),
		TEST(test_each_call_of_a_server),
		TEST(test_strangers),
		TEST(test_no_descriptor_for_who_comes),
		TEST(test_remote_test),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
