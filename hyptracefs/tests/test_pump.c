// SPDX-License-Identifier: Apache-2.0
/*
 * The pump, with a socket for /dev/fuse: a message is a request, or a reply. The test is the
 * kernel at one end, and the event loop, which has the floor unless it waits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "faults.h"
#include "pump.h"

#define NR_CPUS 2
/* What does not come in this time never comes (ms). */
#define NEVER_MS 20000
/* What must not come has had this time to come (ms); none too short makes a test fail. */
#define SOON_MS 20

/* A buffer whose events are bytes, each the number of its CPU. */
struct fake {
	struct event_source source; /* first */
	uint32_t events[NR_CPUS];
	uint32_t skipped;   /* of them, those that a filter drops, one take each */
	bool passed_over;   /* by the last take */
	int arm_result;
	int cache_error;
	uint32_t armed_for; /* the last time */
	uint32_t comes_while_arming;
};

struct fake_pipe {
	struct pipe_end end; /* first */
	struct fake *fake;
};

static struct fixture {
	struct pump *pump;
	struct fake fake;
	struct fake_pipe pipes[NR_CPUS + 1]; /* the last one of all CPUs */
	int kernel, hypervisor, bell;
	int device; /* the pump's end */
} fixture;

/* --- what goes wrong: set with the floor --------------------------------------------------- */

FAULT(void *, NULL, malloc, (size_t size), (size))
FAULT(int, -1, eventfd, (unsigned int count, int flags), (count, flags))
CALLOC_FAULT
RECV_FAULT /* of rings */

static struct fault thread_fault;
static struct fault read_fault;    /* of requests */
static struct fault syscall_fault; /* of those that glibc has no function for */
static uint32_t nr_syscalls;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*run)(void *), void *arg);
ssize_t __real_read(int fd, void *bytes, size_t size);
ssize_t __wrap_read(int fd, void *bytes, size_t size);
long __real_syscall(long number, long a, long b, long c, long d);
long __wrap_syscall(long number, long a, long b, long c, long d);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
			  void *(*run)(void *), void *arg)
{
	/* It returns its error. */
	return fails(&thread_fault) ? errno : __real_pthread_create(thread, attributes, run, arg);
}

ssize_t __wrap_read(int fd, void *bytes, size_t size)
{
	return fd == fixture.device && fails(&read_fault) ? -1 : __real_read(fd, bytes, size);
}

long __wrap_syscall(long number, long a, long b, long c, long d)
{
	nr_syscalls++;
	return fails(&syscall_fault) ? -1 : __real_syscall(number, a, b, c, d);
}

static void forget_faults(void)
{
	malloc_fault = calloc_fault = eventfd_fault = thread_fault = no_fault;
	read_fault = recv_fault = syscall_fault = no_fault;
}

/* --- a buffer ------------------------------------------------------------------------------ */

static uint64_t fake_unread(struct event_source *source, uint32_t cpu)
{
	const struct fake *fake = (struct fake *)source;

	return cpu == PIPE_ALL_CPUS ? fake->events[0] + fake->events[1] : fake->events[cpu];
}

static bool fake_unfinished(struct event_source *source)
{
	return ((struct fake *)source)->passed_over;
}

static int fake_arm(struct event_source *source, uint32_t cpu)
{
	struct fake *fake = (struct fake *)source;

	fake->armed_for = cpu;
	fake->events[0] += fake->comes_while_arming;
	fake->comes_while_arming = 0;
	return fake->arm_result;
}

static uint32_t fake_take(struct pipe_end *end, const uint8_t **data, uint32_t size)
{
	static uint8_t out[64];
	const struct fake_pipe *pipe = (struct fake_pipe *)end;
	struct fake *fake = pipe->fake;
	uint32_t done = 0;

	fake->passed_over = false;
	if (fake_unread(&fake->source, end->cpu) && fake->skipped) {
		fake->skipped--;
		fake->passed_over = true;
		return 0;
	}
	for (uint32_t cpu = 0; cpu < NR_CPUS; cpu++) {
		while (fake->events[cpu] && (end->cpu == cpu || end->cpu == PIPE_ALL_CPUS) &&
		       done < size && done < sizeof(out)) {
			out[done++] = (uint8_t)cpu;
			fake->events[cpu]--;
		}
	}
	*data = out;
	return done;
}

static int fake_cache(struct pipe_end *end, const uint8_t **data, uint32_t size, uint64_t offset)
{
	static uint8_t out[1];
	int error = ((struct fake_pipe *)end)->fake->cache_error;

	(void)size;
	out[0] = (uint8_t)offset;
	*data = out;
	return error ? error : 1;
}

/* --- the kernel's end ---------------------------------------------------------------------- */

struct read_request {
	struct fuse_in_header header;
	struct fuse_read_in read;
};

static void request(const void *bytes, size_t size)
{
	assert_int_equal(send(fixture.kernel, bytes, size, 0), size);
}

static struct read_request read_of(uint64_t unique, uint32_t pipe)
{
	uint64_t address = (uintptr_t)&fixture.pipes[pipe];

	return (struct read_request){
		.header = { .len = sizeof(struct read_request),
			    .opcode = FUSE_READ,
			    .unique = unique },
		.read = { .fh = address | PUMP_PIPE,
			  .size = 16,
			  .read_flags = FUSE_READ_LOCKOWNER,
			  .lock_owner = 1 },
	};
}

static void ask_to_read(uint64_t unique, uint32_t pipe)
{
	struct read_request asked = read_of(unique, pipe);

	request(&asked, sizeof(asked));
}

static void interrupt(uint64_t unique)
{
	struct {
		struct fuse_in_header header;
		struct fuse_interrupt_in interrupt;
	} asked = {
		.header = { .len = sizeof(asked), .opcode = FUSE_INTERRUPT, .unique = unique | 1 },
		.interrupt = { .unique = unique },
	};

	request(&asked, sizeof(asked));
}

static void getattr(uint64_t unique)
{
	struct fuse_in_header asked = { .len = sizeof(asked),
					.opcode = FUSE_GETATTR,
					.unique = unique };

	request(&asked, sizeof(asked));
}

/* Leave the floor until @fd is readable, or for so long; whether it is. */
static bool readable(int fd, int ms)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	int ready;

	pump_leave(fixture.pump);
	ready = poll(&wait, 1, ms);
	pump_enter(fixture.pump);
	return ready > 0;
}

/* How often an eventfd has been rung and not been hushed. With the floor: nobody sees us look. */
static uint64_t rings(int eventfd)
{
	uint64_t count = 0;

	if (read(eventfd, &count, sizeof(count)) < 0)
		return 0;
	assert_int_equal(write(eventfd, &count, sizeof(count)), sizeof(count));
	return count;
}

/* The next reply is an error, or so many bytes, which are then at @data. */
static void expect_reply(uint64_t unique, int result, uint8_t *data)
{
	struct {
		struct fuse_out_header header;
		uint8_t data[64];
	} reply;
	ssize_t got;

	assert_true(readable(fixture.kernel, NEVER_MS));
	got = recv(fixture.kernel, &reply, sizeof(reply), MSG_DONTWAIT);
	assert_true(got >= (ssize_t)sizeof(reply.header));
	assert_int_equal(reply.header.len, got);
	assert_int_equal(reply.header.unique, unique);
	assert_int_equal(reply.header.error, result < 0 ? result : 0);
	assert_int_equal(got - (ssize_t)sizeof(reply.header), result < 0 ? 0 : result);
	if (data)
		memcpy(data, reply.data, (size_t)result);
}

/* The next request that is passed on has this number; 0: there is none. */
static void expect_passed_on(uint64_t unique)
{
	void *message;
	ptrdiff_t size;

	assert_int_equal(readable(pump_inbox(fixture.pump), unique ? NEVER_MS : SOON_MS),
			 unique != 0);
	size = pump_receive(fixture.pump, &message);
	if (!unique) {
		assert_int_equal(size, 0);
		return;
	}
	assert_true(size >= (ptrdiff_t)sizeof(struct fuse_in_header));
	assert_int_equal(((struct fuse_in_header *)message)->unique, unique);
	assert_int_equal(((struct fuse_in_header *)message)->len, size);
	free(message);
}

static void wait_until_parked(uint32_t nr)
{
	while (fixture.fake.source.nr_parked != nr)
		readable(-1, 1);
}

static void wait_until_looked(uint64_t nr)
{
	while (fixture.fake.source.nr_looks != nr)
		readable(-1, 1);
}

static void wait_until_armed(uint64_t nr)
{
	while (fixture.fake.source.nr_armed != nr)
		readable(-1, 1);
}

/* From here on, no look but for a ring, or for this. */
static void look_only_when_told(void)
{
	fixture.fake.source.interval_ns = 1000000000LL * 3600;
}

static void look_now(void)
{
	fixture.fake.source.changed(&fixture.fake.source);
}

static void ring(void)
{
	assert_int_equal(send(fixture.bell, "!", 1, 0), 1);
}

static bool is_told(int ms)
{
	uint64_t count;

	if (!readable(fixture.fake.source.told_fd, ms))
		return false;
	assert_int_equal(read(fixture.fake.source.told_fd, &count, sizeof(count)), sizeof(count));
	return true;
}

static void want(uint32_t cpu)
{
	fixture.fake.source.wanted = true;
	fixture.fake.source.wanted_cpu = cpu;
	fixture.fake.source.changed(&fixture.fake.source);
}

/* --- fixture ------------------------------------------------------------------------------- */

static void pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
}

static int setup(void **state)
{
	int device[2], lifeline[2], bell[2];

	(void)state;
	pair(device);
	pair(lifeline);
	pair(bell);
	fixture = (struct fixture){ .pump = pump_create(device[0]),
				    .device = device[0],
				    .kernel = device[1],
				    .hypervisor = lifeline[1],
				    .bell = bell[1] };
	fixture.fake.source = (struct event_source){
		.unread = fake_unread,
		.unfinished = fake_unfinished,
		.arm = fake_arm,
		.alive_fd = lifeline[0],
		.bell_fd = bell[0],
		.told_fd = eventfd(0, 0),
	};
	for (uint32_t i = 0; i <= NR_CPUS; i++) {
		fixture.pipes[i] = (struct fake_pipe){
			.end = { .take = fake_take,
				 .cache = fake_cache,
				 .source = &fixture.fake.source,
				 .cpu = i < NR_CPUS ? i : PIPE_ALL_CPUS },
			.fake = &fixture.fake,
		};
	}
	pump_add(fixture.pump, &fixture.fake.source);
	return pump_start(fixture.pump);
}

static int teardown(void **state)
{
	int told = fixture.fake.source.told_fd;

	(void)state;
	pump_stop(fixture.pump);
	forget_faults(); /* it begins without the floor, and may have begun just now */
	pump_destroy(fixture.pump);
	close(told);
	close(fixture.kernel);
	close(fixture.hypervisor);
	close(fixture.bell);
	return 0;
}

/* --- tests --------------------------------------------------------------------------------- */

static void test_what_is_there_is_given_at_once(void **state)
{
	uint8_t data[16];

	(void)state;
	fixture.fake.events[0] = 20;
	fixture.fake.events[1] = 1;
	ask_to_read(2, NR_CPUS);
	expect_reply(2, 16, data);
	assert_int_equal(data[15], 0);
	ask_to_read(4, 1);
	expect_reply(4, 1, data);
	assert_int_equal(data[0], 1);
	ask_to_read(6, NR_CPUS);
	expect_reply(6, 4, NULL);
	expect_passed_on(0);
}

static void test_all_else_is_passed_on_in_order(void **state)
{
	struct read_request control = read_of(14, 0);

	(void)state;
	fixture.fake.events[0] = 1;
	control.read.fh = 1;
	getattr(10);
	interrupt(12); /* nobody waits here */
	request(&control, sizeof(control));
	getattr(16);
	expect_passed_on(10);
	expect_passed_on(12 | 1);
	expect_passed_on(14);
	expect_passed_on(16);
	expect_passed_on(0);
	assert_int_equal(fixture.fake.events[0], 1);
}

/* What the request before has left behind it is no part of it. */
static void test_what_is_too_short_to_be_one_is_passed_on(void **state)
{
	const struct fuse_in_header interrupted = { .len = sizeof(interrupted),
						    .opcode = FUSE_INTERRUPT,
						    .unique = 8 };
	struct read_request asked = read_of(4, 1);
	struct {
		struct fuse_in_header header;
		uint64_t unique;
	} before = { { .len = sizeof(before), .opcode = FUSE_GETATTR, .unique = 6 }, 2 };

	(void)state;
	ask_to_read(2, 0);
	wait_until_parked(1);
	fixture.fake.events[1] = 1;
	asked.header.len = sizeof(asked) - 1;
	request(&asked, sizeof(asked) - 1);
	expect_passed_on(4);
	assert_int_equal(fixture.fake.events[1], 1);
	request(&before, sizeof(before));
	expect_passed_on(6);
	request(&interrupted, sizeof(interrupted));
	expect_passed_on(8);
	assert_int_equal(fixture.fake.source.nr_parked, 1);
}

/* Who asked may be gone before the request is fetched: the next one is there all the same. */
static void test_a_request_that_cannot_be_fetched_is_not_the_end(void **state)
{
	static const int errors[] = { ENOENT, EINTR, EAGAIN };

	(void)state;
	for (uint64_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		read_fault = (struct fault){ .times = 3, .error = errors[i] };
		getattr(2 * i + 2);
		expect_passed_on(2 * i + 2);
		assert_int_equal(read_fault.times, 0);
	}
	expect_passed_on(0);
}

static void test_the_page_cache_is_answered_at_once(void **state)
{
	struct read_request cached = read_of(2, 0);
	uint8_t data[1];

	(void)state;
	cached.header.nodeid = 77;
	cached.read.lock_owner = 0;
	cached.read.offset = 5;
	request(&cached, sizeof(cached));
	expect_reply(2, 1, data);
	assert_int_equal(data[0], 5);
	assert_int_equal(fixture.pipes[0].end.cached, 77);

	fixture.fake.cache_error = -EAGAIN;
	cached.read.read_flags = 0; /* no owner is given: from a kernel that does not say */
	request(&cached, sizeof(cached));
	expect_reply(2, -EAGAIN, NULL);

	fixture.fake.source.gone = true; /* its owner may know where there is more */
	request(&cached, sizeof(cached));
	expect_passed_on(2);
}

static void test_who_does_not_wait_is_told_so(void **state)
{
	struct read_request asked = read_of(2, 0);

	(void)state;
	asked.read.flags = O_NONBLOCK;
	request(&asked, sizeof(asked));
	expect_reply(2, -EAGAIN, NULL);
	fixture.fake.events[0] = fixture.fake.skipped = 1;
	request(&asked, sizeof(asked));
	expect_passed_on(2); /* not all has been looked through */
}

static void test_a_ring_wakes(void **state)
{
	(void)state;
	for (uint64_t i = 1; i <= 3; i++) {
		ask_to_read(2 * i, 1);
		wait_until_armed(i);
		assert_int_equal(fixture.fake.armed_for, 1);
		fixture.fake.events[1] = (uint32_t)i;
		ring();
		expect_reply(2 * i, (int)i, NULL);
	}
	assert_int_equal(fixture.fake.source.nr_parked, 0);
	expect_passed_on(0);
}

static void test_what_comes_while_it_is_armed_is_seen(void **state)
{
	(void)state;
	look_only_when_told();
	ask_to_read(2, 0);
	wait_until_parked(1);
	fixture.fake.comes_while_arming = 5;
	look_now();
	expect_reply(2, 5, NULL);
}

static void test_a_ring_for_nothing_is_not_armed_again_at_once(void **state)
{
	uint64_t looks;

	(void)state;
	look_only_when_told();
	ask_to_read(2, 0);
	wait_until_parked(1);
	look_now();
	wait_until_armed(1);
	looks = fixture.fake.source.nr_looks;
	for (int i = 0; i < 8; i++)
		ring();
	wait_until_looked(looks + 1);
	readable(-1, SOON_MS);
	assert_int_equal(fixture.fake.source.nr_looks, looks + 1);
	assert_int_equal(fixture.fake.source.nr_armed, 1);
	look_now();
	wait_until_armed(2);
	/* Those of before have been drained. */
	looks = fixture.fake.source.nr_looks;
	readable(-1, SOON_MS);
	assert_int_equal(fixture.fake.source.nr_looks, looks);
	fixture.fake.events[0] = 1;
	ring();
	expect_reply(2, 1, NULL);
}

/* A bell that never stops does not keep the pump: it is looked at again when it is armed. */
static void test_a_bell_that_is_rung_more_often_than_armed(void **state)
{
	uint64_t looks;

	(void)state;
	look_only_when_told();
	ask_to_read(2, 0);
	wait_until_parked(1);
	for (int i = 0; i < 17; i++)
		ring();
	looks = fixture.fake.source.nr_looks;
	look_now();
	/* before it is armed, after that, and for the one ring that is left */
	wait_until_looked(looks + 3);
	readable(-1, SOON_MS);
	assert_int_equal(fixture.fake.source.nr_looks, looks + 3);
	assert_int_equal(fixture.fake.source.nr_armed, 1);
	look_now();
	wait_until_armed(2);
	fixture.fake.events[0] = 1;
	ring();
	expect_reply(2, 1, NULL);
}

static void test_a_bell_that_is_interrupted_is_armed(void **state)
{
	(void)state;
	look_only_when_told();
	ask_to_read(2, 0);
	wait_until_parked(1);
	recv_fault = (struct fault){ .times = 1, .error = EINTR };
	look_now();
	wait_until_armed(1);
	assert_int_equal(recv_fault.times, 0);
	fixture.fake.events[0] = 1;
	ring();
	expect_reply(2, 1, NULL);
}

static void test_all_who_wait_are_rung_for(void **state)
{
	(void)state;
	ask_to_read(2, 0);
	wait_until_armed(1);
	assert_int_equal(fixture.fake.armed_for, 0);
	ask_to_read(4, 1);
	wait_until_armed(2);
	assert_int_equal(fixture.fake.armed_for, PIPE_ALL_CPUS);
	fixture.fake.events[1] = 1;
	ring();
	expect_reply(4, 1, NULL);
	wait_until_armed(3);
	assert_int_equal(fixture.fake.armed_for, 0);
	fixture.fake.events[0] = 1;
	ring();
	expect_reply(2, 1, NULL);
}

static void test_without_a_bell_it_looks(void **state)
{
	int bell = fixture.fake.source.bell_fd;

	(void)state;
	fixture.fake.source.bell_fd = -1;
	for (uint64_t i = 1; i <= 3; i++) {
		ask_to_read(2 * i, NR_CPUS);
		wait_until_parked(1);
		fixture.fake.events[1] = 1;
		expect_reply(2 * i, 1, NULL);
	}
	assert_int_equal(fixture.fake.source.nr_armed, 0);
	close(bell);
}

static void test_let_go_of_the_bell_its_owner_is_told_and_it_looks(void **state)
{
	(void)state;
	close(fixture.bell);
	fixture.bell = dup(0);
	ask_to_read(2, 0);
	assert_true(is_told(NEVER_MS));
	assert_int_equal(fixture.fake.source.bell_fd, -1);
	fixture.fake.events[0] = 1;
	expect_reply(2, 1, NULL);
}

static void test_a_bell_that_is_broken_is_let_go_of(void **state)
{
	(void)state;
	/* It goes away with a message to it unread. */
	assert_int_equal(send(fixture.fake.source.bell_fd, "?", 1, 0), 1);
	close(fixture.bell);
	fixture.bell = dup(0);
	ask_to_read(2, 0);
	assert_true(is_told(NEVER_MS));
	assert_int_equal(fixture.fake.source.bell_fd, -1);
	assert_int_equal(fixture.fake.source.nr_armed, 0);
}

static void test_a_bell_that_cannot_be_armed_is_not(void **state)
{
	(void)state;
	fixture.fake.arm_result = -EINVAL;
	ask_to_read(2, 0);
	assert_true(is_told(NEVER_MS));
	assert_int_equal(fixture.fake.source.bell_fd, -1);
	assert_int_equal(fixture.fake.source.nr_armed, 0);
	fixture.fake.events[0] = 1;
	expect_reply(2, 1, NULL);
}

static void limit_files(rlim_t nr)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = nr < limit.rlim_max ? nr : limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static int teardown_limited(void **state)
{
	limit_files(1024);
	return teardown(state);
}

/* poll() refuses more files than may be open, even if they are. */
static void test_under_a_limit_of_open_files_it_looks(void **state)
{
	(void)state;
	limit_files(1);
	look_now();
	ask_to_read(2, 0);
	wait_until_parked(1);
	fixture.fake.events[0] = 1;
	expect_reply(2, 1, NULL);
	for (uint64_t unique = 4; unique < 10; unique += 2) {
		getattr(unique);
		expect_passed_on(unique);
	}
	close(fixture.kernel); /* nothing to look for, then */
	fixture.kernel = -1;
	assert_true(readable(pump_inbox(fixture.pump), NEVER_MS));
	readable(-1, SOON_MS);
}

static void test_first_come_first_served(void **state)
{
	(void)state;
	ask_to_read(2, 0);
	ask_to_read(4, 1);
	ask_to_read(6, 0);
	wait_until_parked(3);
	fixture.fake.events[0] = 17; /* more than one read takes */
	look_now();
	expect_reply(2, 16, NULL);
	expect_reply(6, 1, NULL);
	wait_until_parked(1);
}

static void test_what_a_filter_drops_is_looked_through_without_waiting(void **state)
{
	(void)state;
	look_only_when_told();
	ask_to_read(2, 0);
	wait_until_parked(1);
	fixture.fake.events[0] = 3;
	fixture.fake.skipped = 1000;
	look_now();
	expect_reply(2, 3, NULL);
	assert_int_equal(fixture.fake.skipped, 0);
}

static void test_an_interrupt_ends_the_read_that_it_means(void **state)
{
	(void)state;
	for (uint64_t unique = 2; unique <= 10; unique += 2)
		ask_to_read(unique, 0);
	wait_until_parked(5);
	interrupt(10);
	expect_reply(10, -EINTR, NULL);
	interrupt(2);
	expect_reply(2, -EINTR, NULL);
	interrupt(6);
	expect_reply(6, -EINTR, NULL);
	assert_int_equal(fixture.fake.source.nr_parked, 2);
	ask_to_read(12, 0); /* behind the last one, wherever that is now */
	wait_until_parked(3);
	fixture.fake.events[0] = 33;
	look_now();
	expect_reply(4, 16, NULL);
	expect_reply(8, 16, NULL);
	expect_reply(12, 1, NULL);
	expect_passed_on(0);
}

static void test_a_hypervisor_that_is_gone_leaves_those_who_wait_to_us(void **state)
{
	int lifeline[2];

	(void)state;
	ask_to_read(2, 0);
	ask_to_read(4, 1);
	wait_until_parked(2);
	want(PIPE_ALL_CPUS);
	close(fixture.hypervisor);
	expect_passed_on(2);
	expect_passed_on(4);
	assert_true(is_told(NEVER_MS));
	assert_true(fixture.fake.source.gone);
	ask_to_read(6, 0);
	expect_passed_on(6);
	fixture.fake.events[0] = 1; /* what it has left */
	ask_to_read(8, 0);
	expect_reply(8, 1, NULL);

	pair(lifeline); /* the next one */
	fixture.hypervisor = lifeline[1];
	fixture.fake.source.alive_fd = lifeline[0];
	fixture.fake.source.gone = false;
	look_now();
	ask_to_read(10, 0);
	wait_until_parked(1);
	fixture.fake.events[0] = 1;
	ring();
	expect_reply(10, 1, NULL);
}

/* The pump has slept beside the one that is gone, and finds another one in its place. */
static void test_a_hypervisor_that_is_gone_is_not_the_next_one(void **state)
{
	int before = fixture.fake.source.alive_fd, lifeline[2];

	(void)state;
	pair(lifeline);
	readable(-1, SOON_MS);
	close(fixture.hypervisor);
	fixture.hypervisor = lifeline[1];
	fixture.fake.source.alive_fd = lifeline[0];
	look_now();
	ask_to_read(2, 0);
	wait_until_parked(1);
	assert_false(fixture.fake.source.gone);
	close(before);
}

/* A RELEASE comes once: what cannot be passed on now is passed on later. */
static void test_what_there_is_no_room_for_waits(void **state)
{
	(void)state;
	malloc_fault = no_memory;
	getattr(2);
	getattr(4);
	expect_passed_on(0);
	malloc_fault = no_fault;
	expect_passed_on(2);
	expect_passed_on(4);

	malloc_fault = no_memory;
	ask_to_read(6, 0); /* cannot be parked */
	expect_passed_on(0);
	malloc_fault = no_fault;
	expect_passed_on(6);

	malloc_fault = (struct fault){ .times = 1, .spared = 1 }; /* not for all of it */
	getattr(10);
	expect_passed_on(10);
	assert_int_equal(malloc_fault.times, 0);

	ask_to_read(8, 0);
	wait_until_parked(1);
	malloc_fault = no_memory;
	close(fixture.hypervisor);
	fixture.hypervisor = dup(0);
	expect_passed_on(0);
	assert_int_equal(fixture.fake.source.nr_parked, 1);
	malloc_fault = no_fault;
	expect_passed_on(8);
}

static void test_its_owner_is_told_once(void **state)
{
	(void)state;
	want(1);
	wait_until_armed(1);
	assert_int_equal(fixture.fake.armed_for, 1);
	fixture.fake.events[0] = 1;
	ring();
	assert_false(is_told(SOON_MS));
	fixture.fake.events[1] = 1;
	assert_true(is_told(NEVER_MS));
	ask_to_read(2, 1);
	expect_reply(2, 1, NULL);
	fixture.fake.events[1] = 1;
	ring();
	assert_false(is_told(SOON_MS));
}

static void test_the_end_of_the_device_is_passed_on(void **state)
{
	void *message;

	(void)state;
	getattr(2);
	expect_passed_on(2);
	close(fixture.kernel);
	fixture.kernel = dup(0);
	for (int i = 0; i < 2; i++) {
		assert_true(readable(pump_inbox(fixture.pump), NEVER_MS));
		while (pump_receive(fixture.pump, &message) != -ENODEV)
			readable(-1, 1);
	}
}

static void test_what_came_before_the_end_of_the_device_is_passed_on(void **state)
{
	void *message;

	(void)state;
	getattr(2);
	getattr(4);
	close(fixture.kernel);
	fixture.kernel = dup(0);
	while (rings(pump_inbox(fixture.pump)) != 2) /* for the first one, and for the end */
		readable(-1, 1);
	expect_passed_on(2);
	expect_passed_on(4);
	assert_int_equal(pump_receive(fixture.pump, &message), -ENODEV);
	assert_true(readable(pump_inbox(fixture.pump), NEVER_MS)); /* for who asks late */
}

static void test_a_device_that_is_broken_has_ended(void **state)
{
	void *message;

	(void)state;
	read_fault = (struct fault){ .times = 1, .error = ENODEV };
	getattr(2);
	assert_true(readable(pump_inbox(fixture.pump), NEVER_MS));
	assert_int_equal(pump_receive(fixture.pump, &message), -ENODEV);
}

/* The sanitizer would find it. */
static void test_what_nobody_has_fetched_is_freed(void **state)
{
	(void)state;
	getattr(2);
	getattr(4);
	ask_to_read(6, 0);
	wait_until_parked(1);
	assert_true(readable(pump_inbox(fixture.pump), NEVER_MS));
}

static void test_time_between_looks(void **state)
{
	(void)state;
	assert_int_equal(events_interval(0, 0), 100000);
	assert_int_equal(events_interval(640000000, 0), 10000000);
	assert_int_equal(events_interval(INT64_MAX, 0), 100000000);
	assert_int_equal(events_interval(INT64_MAX, 5), 5);
}

/* An event loop that never sleeps leaves the floor all the same, and then gets it back. */
static void test_each_gets_its_turn(void **state)
{
	struct fuse_out_header header;

	(void)state;
	for (uint64_t unique = 2; unique <= 4000; unique += 2) {
		fixture.fake.events[0]++;
		ask_to_read(unique, 0);
		do {
			pump_leave(fixture.pump);
			pump_enter(fixture.pump);
		} while (recv(fixture.kernel, &header, sizeof(header), MSG_DONTWAIT) < 0);
		assert_int_equal(header.unique, unique);
		assert_int_equal(fixture.fake.events[0], 0);
	}
}

/* --- what cannot begin --------------------------------------------------------------------- */

static int forget(void **state)
{
	(void)state;
	forget_faults();
	return 0;
}

static int lowest_free_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static void test_a_pump_that_cannot_be_had(void **state)
{
	int fd = lowest_free_fd();

	(void)state;
	calloc_fault = no_memory;
	assert_null(pump_create(-1));
	assert_int_equal(errno, ENOMEM);
	calloc_fault = no_fault;
	for (unsigned int i = 0; i < 2; i++) {
		eventfd_fault = (struct fault){ .times = 1, .spared = i, .error = EMFILE };
		assert_null(pump_create(-1));
		assert_int_equal(errno, EMFILE);
		assert_int_equal(lowest_free_fd(), fd);
	}
}

/* The most that poll() is asked for: one more has no place. */
static void test_too_many_sources(void **state)
{
	struct event_source sources[9] = { 0 };
	int fds[2];
	struct pump *pump;

	(void)state;
	pair(fds);
	pump = pump_create(fds[0]);
	for (int i = 0; i < 9; i++) {
		sources[i].alive_fd = sources[i].bell_fd = -1;
		pump_add(pump, &sources[i]);
	}
	assert_int_equal(pump_start(pump), -EINVAL);
	assert_null(sources[0].changed);
	pump_destroy(pump);
	close(fds[0]);
	close(fds[1]);
}

static void test_what_is_no_device(void **state)
{
	int path = open("/", O_PATH); /* its flags can be read, and not be set */
	const int devices[] = { -1, path };

	(void)state;
	assert_true(path >= 0);
	for (int i = 0; i < 2; i++) {
		struct pump *pump = pump_create(devices[i]);

		assert_int_equal(pump_start(pump), -EINVAL);
		pump_destroy(pump);
	}
	close(path);
}

/* The floor is free, then: to try again does not wait for it. */
static void test_without_a_thread_nobody_has_the_floor(void **state)
{
	struct event_source source = { .alive_fd = -1, .bell_fd = -1 };
	int fds[2];
	struct pump *pump;

	(void)state;
	pair(fds);
	pump = pump_create(fds[0]);
	pump_add(pump, &source);
	thread_fault = (struct fault){ .times = 1, .error = EAGAIN };
	assert_int_equal(pump_start(pump), -EAGAIN);
	assert_null(source.changed);
	assert_int_equal(pump_start(pump), 0);
	assert_non_null(source.changed);
	pump_stop(pump);
	pump_destroy(pump);
	close(fds[0]);
	close(fds[1]);
}

/* What is not known of the scheduling is not set. */
static int setup_without_slices(void **state)
{
	nr_syscalls = 0;
	syscall_fault = (struct fault){ .times = 1, .error = ENOSYS };
	return setup(state);
}

static void test_a_kernel_without_slices(void **state)
{
	(void)state;
	getattr(2);
	expect_passed_on(2); /* it has begun */
	assert_int_equal(syscall_fault.times, 0);
	assert_int_equal(nr_syscalls, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_what_is_there_is_given_at_once),
		TEST(test_all_else_is_passed_on_in_order),
		TEST(test_what_is_too_short_to_be_one_is_passed_on),
		TEST(test_a_request_that_cannot_be_fetched_is_not_the_end),
		TEST(test_the_page_cache_is_answered_at_once),
		TEST(test_who_does_not_wait_is_told_so),
		TEST(test_a_ring_wakes),
		TEST(test_what_comes_while_it_is_armed_is_seen),
		TEST(test_a_ring_for_nothing_is_not_armed_again_at_once),
		TEST(test_a_bell_that_is_rung_more_often_than_armed),
		TEST(test_a_bell_that_is_interrupted_is_armed),
		TEST(test_all_who_wait_are_rung_for),
		TEST(test_without_a_bell_it_looks),
		TEST(test_let_go_of_the_bell_its_owner_is_told_and_it_looks),
		TEST(test_a_bell_that_is_broken_is_let_go_of),
		TEST(test_a_bell_that_cannot_be_armed_is_not),
		cmocka_unit_test_setup_teardown(test_under_a_limit_of_open_files_it_looks, setup,
						teardown_limited),
		TEST(test_first_come_first_served),
		TEST(test_what_a_filter_drops_is_looked_through_without_waiting),
		TEST(test_an_interrupt_ends_the_read_that_it_means),
		TEST(test_a_hypervisor_that_is_gone_leaves_those_who_wait_to_us),
		TEST(test_a_hypervisor_that_is_gone_is_not_the_next_one),
		TEST(test_what_there_is_no_room_for_waits),
		TEST(test_its_owner_is_told_once),
		TEST(test_the_end_of_the_device_is_passed_on),
		TEST(test_what_came_before_the_end_of_the_device_is_passed_on),
		TEST(test_a_device_that_is_broken_has_ended),
		TEST(test_what_nobody_has_fetched_is_freed),
		TEST(test_time_between_looks),
		TEST(test_each_gets_its_turn),
		cmocka_unit_test_teardown(test_a_pump_that_cannot_be_had, forget),
		cmocka_unit_test(test_too_many_sources),
		cmocka_unit_test(test_what_is_no_device),
		cmocka_unit_test_teardown(test_without_a_thread_nobody_has_the_floor, forget),
		cmocka_unit_test_setup_teardown(test_a_kernel_without_slices, setup_without_slices,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
