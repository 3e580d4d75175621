// SPDX-License-Identifier: Apache-2.0
/* The doorbell call: what may be hung, who rings it, and what a host cannot do with it. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "host.h"

#define NR_CPUS 2U
#define NR_PAGES 3U

static struct host host;
static int ours, theirs;

static int doorbell(u64 op, u64 x2, int fd)
{
	return hvc4(&host, 0, HVC_TRACING_DOORBELL, op, x2, (u64)fd, 0);
}

static int arm(u64 cpu)
{
	return doorbell(HYP_DOORBELL_ARM, cpu, -1);
}

static void make_pair(int type)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
	ours = fds[0];
	theirs = fds[1];
}

static int setup(void **state)
{
	(void)state;
	host_setup(&host, NR_CPUS, NR_PAGES);
	assert_int_equal(host_load(&host), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, 1, 0), 0);
	host_enable_event(&host, HYP_EVENT_ID_selftest, true);
	make_pair(SOCK_SEQPACKET);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(ours);
	close(theirs);
	host_teardown(&host);
	return 0;
}

static void hang(void)
{
	assert_int_equal(doorbell(HYP_DOORBELL_HANG, 0, theirs), 0);
}

static void write_event(u32 cpu)
{
	assert_int_equal(hvc(&host, cpu, HVC_TRACING_WRITE_EVENT, 1, 0), 0);
}

/* How often it has rung since we looked last. */
static u32 rung(void)
{
	u32 nr = 0;
	u8 byte;

	while (recv(ours, &byte, 1, MSG_DONTWAIT) > 0)
		nr++;
	return nr;
}

static void test_silent_until_armed(void **state)
{
	(void)state;
	write_event(0);
	hang();
	write_event(0);
	write_event(1);
	assert_int_equal(rung(), 0);
}

static void test_rings_once_whoever_writes(void **state)
{
	(void)state;
	hang();
	for (u32 arming = 0; arming < 3; arming++) {
		assert_int_equal(arm(HYP_DOORBELL_ALL), 0);
		assert_int_equal(arm(HYP_DOORBELL_ALL), 0);
		assert_int_equal(rung(), 0);
		write_event(arming % 2);
		assert_int_equal(rung(), 1);
		for (u32 i = 0; i < 10; i++)
			write_event(i % 2);
		assert_int_equal(rung(), 0);
	}
}

static void test_rings_for_the_cpu_that_is_waited_for(void **state)
{
	(void)state;
	hang();
	assert_int_equal(arm(1), 0);
	write_event(0);
	assert_int_equal(rung(), 0);
	write_event(1);
	assert_int_equal(rung(), 1);
}

static void test_to_arm_writes_no_event(void **state)
{
	(void)state;
	hang();
	host_enable_enter_exit(&host, true);
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++) {
		u64 before = host_entries(&host, cpu);

		assert_int_equal(arm(HYP_DOORBELL_ALL), 0);
		assert_int_equal(host_entries(&host, cpu), before);
	}
	assert_int_equal(rung(), 0);
}

static void test_what_cannot_be_done(void **state)
{
	(void)state;
	assert_int_equal(arm(HYP_DOORBELL_ALL), -ENODEV);
	assert_int_equal(doorbell(HYP_DOORBELL_REMOVE, 0, -1), 0);
	hang();
	assert_int_equal(arm(NR_CPUS), -EINVAL);
	assert_int_equal(doorbell(HYP_DOORBELL_ARM + 1, 0, -1), -EINVAL);
}

static void refuse_fd(int fd)
{
	assert_int_equal(doorbell(HYP_DOORBELL_HANG, 0, fd), -EPERM);
	if (fd >= 0)
		close(fd);
}

/* To write to an eventfd waits when the host wants it to: it shares the flags with us. */
static void test_only_a_socket_that_never_waits_can_be_hung(void **state)
{
	int fds[2];

	(void)state;
	refuse_fd(-1);
	refuse_fd(eventfd(0, EFD_NONBLOCK));
	refuse_fd(socket(AF_INET, SOCK_DGRAM, 0));
	refuse_fd(make_memory(RB_PAGE_SIZE, 0));
	assert_int_equal(pipe(fds), 0);
	refuse_fd(fds[0]);
	refuse_fd(fds[1]);
	for (u32 i = 0; i < 2; i++) {
		assert_int_equal(
			socketpair(AF_UNIX, i ? SOCK_STREAM : SOCK_DGRAM, 0, fds), 0);
		refuse_fd(fds[0]);
		close(fds[1]);
	}
	assert_int_equal(arm(0), -ENODEV);
}

static void test_a_host_that_does_not_listen_holds_nobody_up(void **state)
{
	(void)state;
	hang();
	for (u32 i = 0; i < 10000; i++) {
		assert_int_equal(arm(HYP_DOORBELL_ALL), 0);
		write_event(0);
	}
	assert_true(rung() > 1);
	assert_int_equal(shutdown(theirs, SHUT_RDWR), 0);
	assert_int_equal(arm(HYP_DOORBELL_ALL), 0);
	write_event(0); /* and no SIGPIPE */
}

static bool let_go(void)
{
	u8 byte;

	close(theirs);
	theirs = -1;
	return recv(ours, &byte, 1, MSG_DONTWAIT) == 0;
}

static void test_removed_it_is_let_go_of(void **state)
{
	(void)state;
	hang();
	assert_int_equal(arm(HYP_DOORBELL_ALL), 0);
	assert_int_equal(doorbell(HYP_DOORBELL_REMOVE, 0, -1), 0);
	write_event(0);
	assert_true(let_go());
	assert_int_equal(arm(0), -ENODEV);
}

static void test_another_takes_its_place(void **state)
{
	int first = ours, first_theirs = theirs;
	u8 byte;

	(void)state;
	hang();
	assert_int_equal(arm(HYP_DOORBELL_ALL), 0);
	make_pair(SOCK_SEQPACKET);
	hang();
	close(first_theirs);
	assert_int_equal(recv(first, &byte, 1, MSG_DONTWAIT), 0);
	close(first);
	write_event(0);
	assert_int_equal(rung(), 0); /* that had been armed */
	assert_int_equal(arm(HYP_DOORBELL_ALL), 0);
	write_event(0);
	assert_int_equal(rung(), 1);
}

static void test_it_outlasts_a_load(void **state)
{
	(void)state;
	hang();
	assert_int_equal(hvc(&host, 0, HVC_TRACING_UNLOAD, 0, 0), 0);
	assert_int_equal(host_load(&host), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, 1, 0), 0);
	assert_int_equal(arm(1), 0);
	write_event(1);
	assert_int_equal(rung(), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_silent_until_armed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rings_once_whoever_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rings_for_the_cpu_that_is_waited_for, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_to_arm_writes_no_event, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_cannot_be_done, setup, teardown),
		cmocka_unit_test_setup_teardown(test_only_a_socket_that_never_waits_can_be_hung,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_host_that_does_not_listen_holds_nobody_up,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_removed_it_is_let_go_of, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_takes_its_place, setup, teardown),
		cmocka_unit_test_setup_teardown(test_it_outlasts_a_load, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
