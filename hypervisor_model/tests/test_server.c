// SPDX-License-Identifier: Apache-2.0
/* The hypervisor on a socket: hosts that keep to the protocol, and hosts that do not. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "host.h"
#include "hypervisor_model/protocol.h"

#define NR_CPUS 2U
#define NR_PAGES 3U

static struct {
	struct hyp *hyp;
	pthread_t thread;
	int fd;      /* ours */
	int stop[2]; /* what it reads, what we write */
	int theirs, listen_fd;
	int ret;
} server;

static void *serve(void *arg)
{
	(void)arg;
	server.ret = hyp_serve_host(server.hyp, server.theirs, server.listen_fd, server.stop[0]);
	close(server.theirs);
	return NULL;
}

static void attach(void)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	server.fd = fds[0];
	server.theirs = fds[1];
	assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
}

static void hang_up(void)
{
	close(server.fd);
	pthread_join(server.thread, NULL);
}

static int setup(void **state)
{
	(void)state;
	assert_int_equal(hyp_create(NR_CPUS, &server.hyp), 0);
	assert_int_equal(pipe(server.stop), 0);
	server.listen_fd = -1;
	attach();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	hyp_destroy(server.hyp);
	close(server.stop[0]);
	close(server.stop[1]);
	return 0;
}

/* --- messages ---------------------------------------------------------------------------- */

static ssize_t take(void *message, size_t size)
{
	return recv(server.fd, message, size, MSG_TRUNC);
}

static struct hyp_hello take_hello(void)
{
	struct hyp_hello hello;

	assert_int_equal(take(&hello, sizeof(hello)), sizeof(hello));
	assert_memory_equal(hello.magic, HYP_MAGIC, 8);
	assert_int_equal(hello.version, HYP_PROTOCOL_VERSION);
	return hello;
}

/* What it says before it listens. */
static void skip_introduction(void)
{
	static u8 message[HYP_MAX_MESSAGE];
	struct hyp_hello hello = take_hello();

	assert_int_equal(hello.error, 0);
	for (u32 i = 0; i < hello.nr_events + hello.nr_symbols + hello.nr_formats; i++)
		assert_true(take(message, sizeof(message)) > 0);
}

struct calls {
	u32 sequence, nr_calls;
	struct hyp_call_msg calls[HYP_MAX_CALLS];
};

struct results {
	u32 sequence, nr_calls;
	struct hyp_result_msg results[HYP_MAX_CALLS];
};

static size_t calls_size(u32 nr)
{
	return offsetof(struct calls, calls) + nr * sizeof(struct hyp_call_msg);
}

static void put(const void *message, size_t size, const int *fds, u32 nr_fds)
{
	union {
		struct cmsghdr header;
		u8 bytes[CMSG_SPACE(8 * sizeof(int))];
	} control = { 0 };
	struct iovec part = { (void *)message, size };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };

	if (nr_fds) {
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, nr_fds * sizeof(int));
	}
	assert_int_equal(sendmsg(server.fd, &header, MSG_NOSIGNAL), size);
}

static struct hvc_regs regs(u64 x0, u64 x1, u64 x2)
{
	return (struct hvc_regs){ .x0 = x0, .x1 = x1, .x2 = x2 };
}

static struct hyp_result_msg call(struct hvc_regs with, int fd)
{
	static u32 sequence;
	struct calls request = { ++sequence, 1, { { .regs = with } } };
	struct results reply;

	put(&request, calls_size(1), &fd, fd >= 0);
	assert_int_equal(take(&reply, sizeof(reply)), 8 + sizeof(reply.results[0]));
	assert_int_equal(reply.sequence, sequence);
	assert_int_equal(reply.nr_calls, 1);
	return reply.results[0];
}

static int call_result(struct hvc_regs with, int fd)
{
	struct hyp_result_msg result = call(with, fd);
	struct hvc_regs answer = { .x0 = result.x0, .x1 = result.x1 };

	return hvc_result(&answer);
}

/* A buffer as a host makes it, loaded. */
static void load(void)
{
	static struct host host; /* for its memory: its hypervisor is another one */

	host_setup(&host, NR_CPUS, NR_PAGES);
	assert_int_equal(call_result(regs(HVC_TRACING_LOAD, host.desc_va, host.desc_size), host.fd), 0);
	host_teardown(&host);
}

/* --- hosts that keep to it ------------------------------------------------------------------ */

static void test_introduction(void **state)
{
	union {
		struct hyp_event_msg event;
		struct hyp_symbols_msg symbols;
		struct hyp_formats_msg formats;
		u8 bytes[HYP_MAX_MESSAGE];
	} message;
	struct hyp_hello hello = take_hello();

	(void)state;
	assert_int_equal(hello.error, 0);
	assert_string_equal(hello.name, "hypervisor");
	assert_int_equal(hello.nr_cpus, NR_CPUS);
	assert_int_equal(hello.page_size, RB_PAGE_SIZE);
	for (u32 i = 0; i < hello.nr_events; i++) {
		const struct hyp_event_desc *desc = hyp_event_desc(i);
		ssize_t size = take(&message, sizeof(message));

		assert_non_null(desc);
		assert_string_equal(message.event.name, desc->name);
		assert_int_equal(message.event.id, desc->id);
		assert_int_equal(size, sizeof(message.event) +
				 message.event.nr_fields * sizeof(struct hyp_field_msg) +
				 message.event.print_fmt_size);
		assert_string_equal((char *)&message.event.fields[message.event.nr_fields],
				    desc->print_fmt);
	}
	assert_null(hyp_event_desc(hello.nr_events));
	for (u32 i = 0; i < hello.nr_symbols; i++) {
		take(&message, sizeof(message));
		assert_string_equal(message.symbols.function, hyp_symbol_table(i)->function);
	}
	for (u32 i = 0; i < hello.nr_formats; i++) {
		const struct hyp_format_table *table = hyp_format_table(i);
		ssize_t size = take(&message, sizeof(message));

		assert_non_null(table);
		assert_string_equal(message.formats.event, table->event);
		assert_string_equal(message.formats.index, table->index);
		assert_string_equal(message.formats.args, table->args);
		assert_int_equal(message.formats.nr_formats, table->nr_formats);
		assert_int_equal(size, sizeof(message.formats) +
				 table->nr_formats * sizeof(struct hyp_format_msg));
		for (u32 nr = 0; nr < table->nr_formats; nr++) {
			const struct hyp_format_msg *format = &message.formats.formats[nr];

			assert_string_equal(format->text, table->formats[nr].text);
			assert_int_equal(format->nr_args, table->formats[nr].nr_args);
		}
	}
	assert_null(hyp_format_table(hello.nr_formats));
	hang_up();
	assert_int_equal(server.ret, 0);
}

static void test_calls(void **state)
{
	struct hyp_result_msg unknown;

	(void)state;
	skip_introduction();
	unknown = call(regs(HVC_NR_CALLS, 0, 0), -1);
	assert_true(unknown.x0 == HVC_NOT_SUPPORTED);
	unknown = call(regs(UINT64_MAX, 0, 0), -1);
	assert_true(unknown.x0 == HVC_NOT_SUPPORTED);
	assert_int_equal(call_result(regs(HVC_TRACING_SWAP_READER, 0, 0), -1), -ENODEV);
	load();
	assert_int_equal(call_result(regs(HVC_TRACING_ENABLE, true, 0), -1), 0);
	assert_int_equal(call_result(regs(HVC_TRACING_SWAP_READER, 0, 0), -1), 0);
	assert_int_equal(call_result(regs(HVC_TRACING_SWAP_READER, 9, 0), -1), -EINVAL);
	hang_up();
}

static void test_many_calls_in_one_message(void **state)
{
	struct calls request = { .sequence = 77, .nr_calls = HYP_MAX_CALLS };
	struct results reply;

	(void)state;
	skip_introduction();
	load();
	for (u32 i = 0; i < HYP_MAX_CALLS; i++)
		request.calls[i].regs = regs(HVC_TRACING_SWAP_READER, i, 0);
	put(&request, sizeof(request), NULL, 0);
	assert_int_equal(take(&reply, sizeof(reply)), sizeof(reply));
	assert_int_equal(reply.sequence, 77);
	for (u32 i = 0; i < HYP_MAX_CALLS; i++)
		assert_int_equal((int)(s64)reply.results[i].x1, i < NR_CPUS ? 0 : -EINVAL);
	hang_up();
}

/* What one host had is not there for the next one. */
static void test_one_host_after_the_other(void **state)
{
	u32 fds = count_fds();

	(void)state;
	for (u32 i = 0; i < 20; i++) {
		skip_introduction();
		assert_int_equal(call_result(regs(HVC_TRACING_ENABLE, true, 0), -1),
				 -EINVAL);
		load();
		assert_int_equal(call_result(regs(HVC_TRACING_ENABLE, true, 0), -1), 0);
		hang_up();
		attach();
	}
	assert_int_equal(count_fds(), fds);
	hang_up();
}

static void test_stop(void **state)
{
	(void)state;
	skip_introduction();
	assert_int_equal(write(server.stop[1], "x", 1), 1);
	pthread_join(server.thread, NULL);
	assert_int_equal(server.ret, -ECANCELED);
	close(server.fd);
}

/* --- hosts that do not ------------------------------------------------------------------------ */

static void expect_cut_off(void)
{
	static u8 rest[HYP_MAX_MESSAGE];

	while (take(rest, sizeof(rest)) > 0)
		;
	hang_up();
	assert_int_equal(server.ret, 0);
	attach();
	skip_introduction(); /* the next one is served */
}

static void test_malformed(void **state)
{
	static const struct {
		u32 size, nr_calls;
	} cases[] = {
		{ 1, 0 }, { 7, 0 }, { 8, 0 }, { 8, 1 }, { 55, 1 }, { 57, 1 }, { 56, 0 },
		{ 56, 2 }, { 56, UINT32_MAX }, { 8, 0x80000000 }, { 3080, 65 }, { 3128, 65 },
		{ 60000, 1 },
	};
	static u8 bytes[HYP_MAX_MESSAGE];

	(void)state;
	skip_introduction();
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		u32 header[2] = { i, cases[i].nr_calls };

		memcpy(bytes, header, sizeof(header));
		put(bytes, cases[i].size, NULL, 0);
		expect_cut_off();
	}
	hang_up();
}

static void test_stray_fds(void **state)
{
	int fds[4] = { 0, 1, 2, 0 };
	struct calls request = { 1, 1, { { .regs.x0 = HVC_TRACING_SWAP_READER } } };
	struct results reply;
	u32 before;

	(void)state;
	skip_introduction();
	call(regs(HVC_NR_CALLS, 0, 0), -1);
	before = count_fds();
	for (u32 i = 0; i < 100; i++) {
		request.calls[0].regs.x0 = i % 2 ? HVC_TRACING_SWAP_READER : HVC_TRACING_LOAD;
		request.calls[0].regs.x2 = RB_PAGE_SIZE;
		put(&request, calls_size(1), fds, i % 5);
		assert_true(take(&reply, sizeof(reply)) > 0);
		assert_true((s64)reply.results[0].x1 < 0);
	}
	call(regs(HVC_NR_CALLS, 0, 0), -1);
	assert_int_equal(count_fds(), before);
	hang_up();
}

/* A host that has made the socket pair can have it say who sends, with each message. */
static void test_credentials_with_each_message(void **state)
{
	int on = 1;

	(void)state;
	skip_introduction();
	assert_int_equal(setsockopt(server.theirs, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	for (u32 i = 0; i < 20; i++)
		assert_int_equal(call_result(regs(HVC_TRACING_RESET, 9, 0), i % 2 - 1), -EINVAL);
	hang_up();
}

/* It asks and asks, and never listens. */
static void test_flood(void **state)
{
	struct calls request = { .sequence = 1, .nr_calls = HYP_MAX_CALLS };
	struct timeval patience = { .tv_usec = 200000 };

	(void)state;
	skip_introduction();
	setsockopt(server.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	while (send(server.fd, &request, sizeof(request), MSG_NOSIGNAL) > 0)
		;
	assert_int_equal(write(server.stop[1], "x", 1), 1);
	pthread_join(server.thread, NULL);
	assert_int_equal(server.ret, -ECANCELED);
	close(server.fd);
}

static void test_garbage(void **state)
{
	u64 seed = 4711;
	static u8 bytes[4096];

	(void)state;
	skip_introduction();
	for (u32 i = 0; i < 3000; i++) {
		u32 header[2], size;
		bool statistics;

		for (u32 at = 0; at < sizeof(bytes); at++) {
			seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
			bytes[at] = seed >> 60 ? 0 : (u8)(seed >> 40);
		}
		header[0] = i;
		header[1] = 1 + (seed >> 33) % 3;
		size = (u32)calls_size(header[1]) + (seed >> 50 ? 0 : 1);
		memcpy(bytes, header, sizeof(header));
		/* small numbers, so that real calls are among them; none that writes */
		bytes[16] = (u8)(seed >> 20) % 10;
		statistics = !memcmp(&bytes[16], &(u64){ HVC_TRACING_STATISTICS }, sizeof(u64));
		put(bytes, size, NULL, 0);
		if (size != calls_size(header[1])) {
			expect_cut_off();
			continue;
		}
		size = 8 + header[1] * (u32)sizeof(struct hyp_result_msg);
		if (statistics && header[1] == 1)
			assert_true(take(bytes, sizeof(bytes)) >= (ssize_t)size); /* on some CPU */
		else
			assert_int_equal(take(bytes, sizeof(bytes)), size);
	}
	hang_up();
}

/* It dies in the middle of everything: right after each kind of request. */
static void test_death_after_each_call(void **state)
{
	(void)state;
	for (u64 nr = 0; nr <= HVC_NR_CALLS; nr++) {
		struct calls request = { 1, 1, { { .regs = regs(nr, 0, RB_PAGE_SIZE) } } };

		skip_introduction();
		load();
		assert_int_equal(call_result(regs(HVC_TRACING_ENABLE, true, 0), -1), 0);
		put(&request, calls_size(1), NULL, 0);
		hang_up();
		assert_int_equal(server.ret, 0);
		attach();
	}
	hang_up();
}

/* --- statistics ---------------------------------------------------------------------------------- */

static struct {
	struct results head;
	u8 rest[HYP_MAX_MESSAGE];
} statistics_reply;

/* What it has counted, asked for with some x1: it is not looked at. */
static const struct hyp_statistics_msg *ask_statistics(void)
{
	struct calls request = { 5, 1, { { .regs = regs(HVC_TRACING_STATISTICS, ~0ULL, 0) } } };
	const struct hyp_statistics_msg *body = (void *)&statistics_reply.head.results[1];
	ssize_t size;

	put(&request, calls_size(1), NULL, 0);
	size = take(&statistics_reply, sizeof(statistics_reply));
	assert_int_equal(statistics_reply.head.sequence, 5);
	assert_int_equal(statistics_reply.head.results[0].x0, 0);
	assert_int_equal(statistics_reply.head.results[0].x1, 0);
	assert_int_equal(size, 24 + body->size);
	assert_int_equal(body->size, sizeof(*body) +
			 body->nr_results * sizeof(struct hyp_result_statistics_msg) +
			 body->nr_cpus * sizeof(struct hyp_cpu_statistics_msg));
	assert_int_equal(body->nr_cpus, NR_CPUS);
	return body;
}

static void test_statistics(void **state)
{
	const struct hyp_statistics_msg *body;
	u32 header[2] = { 0, 0 };

	(void)state;
	skip_introduction();
	body = ask_statistics();
	assert_int_equal(body->hosts, 1);
	assert_int_equal(body->refused_messages, 0);
	assert_int_equal(body->nr_results, 0); /* not this very call */
	load();
	body = ask_statistics();
	assert_int_equal(body->nr_results, 2);
	assert_int_equal(body->pages_shared, NR_CPUS * (NR_PAGES + 1) + HOST_DESC_PAGES);

	put(header, sizeof(header), NULL, 0);
	expect_cut_off();
	body = ask_statistics();
	assert_int_equal(body->hosts, 2);
	assert_int_equal(body->refused_messages, 1);
	assert_int_equal(body->pages_shared, 0);
	assert_int_equal(body->most_pages_shared, NR_CPUS * (NR_PAGES + 1) + HOST_DESC_PAGES);
	hang_up();
}

/* There would be no telling which body is whose. */
static void test_statistics_are_asked_for_alone(void **state)
{
	struct calls request = { .sequence = 1, .nr_calls = 3 };
	struct results reply;

	(void)state;
	skip_introduction();
	for (u32 i = 0; i < 3; i++)
		request.calls[i].regs = regs(i == 1 ? HVC_TRACING_STATISTICS : HVC_TRACING_UNLOAD, 1, 0);
	put(&request, calls_size(3), NULL, 0);
	assert_int_equal(take(&reply, sizeof(reply)), 8 + 3 * sizeof(reply.results[0]));
	for (u32 i = 0; i < 3; i++)
		assert_int_equal((int)(s64)reply.results[i].x1, i == 1 ? -EINVAL : 0);
	hang_up();
}

static void test_refused_hosts_are_counted(void **state)
{
	struct sockaddr_un where = { .sun_family = AF_UNIX };
	socklen_t size = sizeof(where);
	struct hyp_hello hello;
	int other;

	(void)state;
	skip_introduction();
	hang_up();
	server.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	/* unix(7): a name of its own is made up */
	assert_int_equal(bind(server.listen_fd, (struct sockaddr *)&where, sizeof(sa_family_t)), 0);
	assert_int_equal(listen(server.listen_fd, 1), 0);
	attach();
	skip_introduction();
	assert_int_equal(getsockname(server.listen_fd, (struct sockaddr *)&where, &size), 0);
	other = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(other, (struct sockaddr *)&where, size), 0);
	assert_int_equal(recv(other, &hello, sizeof(hello), 0), sizeof(hello));
	assert_int_equal(hello.error, -EBUSY);
	close(other);
	assert_int_equal(ask_statistics()->refused_hosts, 1);
	hang_up();
	close(server.listen_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_introduction, setup, teardown),
		cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_calls_in_one_message, setup, teardown),
		cmocka_unit_test_setup_teardown(test_statistics, setup, teardown),
		cmocka_unit_test_setup_teardown(test_statistics_are_asked_for_alone, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_refused_hosts_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_host_after_the_other, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stray_fds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_credentials_with_each_message, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
		cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death_after_each_call, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
