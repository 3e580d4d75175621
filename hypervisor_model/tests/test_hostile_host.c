// SPDX-License-Identifier: Apache-2.0
/*
 * A host that loads mutated descriptors, and one that sends mutated messages. Whatever comes,
 * it is answered or cut off, nothing is written outside the pages of a descriptor that was
 * accepted, and the sanitizers have nothing to say.
 *
 * test_hostile_host [TRIES [SEED]]: so many of each; the same seed gives the same ones.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

#include "host.h"
#include "hypervisor_model/protocol.h"
#include "random_numbers.h"

/* What there is, on either side of it, and what there is not. */
static u64 any_number(const struct host *host)
{
	switch (below(6)) {
	case 0:
		return random_u64() >> below(64);
	case 1:
		return (u64)0 - below(3);
	case 2:
		return host->shared_size - below(3) * RB_PAGE_SIZE;
	case 3:
		return below(8);
	default:
		return (u64)below((u32)(host->shared_size / RB_PAGE_SIZE)) * RB_PAGE_SIZE;
	}
}

/* --- descriptors --------------------------------------------------------------------------- */

#define NOBODYS_PAGES 2U /* behind the descriptor */

struct load {
	u64 desc_va, desc_size, spares;
};

static u64 desc_end(const struct host *host)
{
	return offsetof(struct hyp_trace_desc, trace_buffer_desc) +
	       host->desc->trace_buffer_desc.struct_len;
}

static void mutate(struct host *host, struct load *load, u64 end)
{
	u64 *numbers = (u64 *)host->desc;
	u8 *bytes = (u8 *)host->desc;
	u64 *argument = &load->desc_va + below(3);

	switch (below(8)) {
	case 0:
		*argument = any_number(host);
		return;
	case 1:
		bytes[below((u32)end)] ^= (u8)(1 << below(8));
		return;
	case 2:
		host->desc->trace_buffer_desc.nr_cpus = (s32)any_number(host);
		return;
	case 3:
		host->desc->trace_buffer_desc.struct_len += any_number(host);
		return;
	case 4:
		host_record(host, below(host->nr_cpus))->nr_page_va = (u32)any_number(host);
		return;
	default:
		numbers[below((u32)end / 8)] = any_number(host);
	}
}

static void use(struct host *host)
{
	u64 on_cpus = (u64)host->desc->trace_buffer_desc.nr_cpus;

	hvc(host, 0, HVC_TRACING_ENABLE, 1, 0);
	for (u32 i = below(40); i; i--)
		hvc(host, below(host->nr_cpus), HVC_TRACING_WRITE_EVENT, i, 0);
	for (u64 cpu = 0; cpu <= on_cpus; cpu++)
		hvc(host, 0, HVC_TRACING_SWAP_READER, cpu, 0);
	if (one_in(2))
		hvc(host, 0, HVC_TRACING_RESET, below(HOST_MAX_CPUS), 0);
	hvc(host, 0, HVC_TRACING_ENABLE, 0, 0);
}

/* The pages that an accepted descriptor names, in @written: those may be. */
static void mark_pages(const struct hyp_trace_desc *desc, bool *written)
{
	const u8 *next = (const u8 *)desc->trace_buffer_desc.data;

	for (s32 cpu = 0; cpu < desc->trace_buffer_desc.nr_cpus; cpu++) {
		const struct ring_buffer_desc *record = (const void *)next;

		written[record->meta_va / RB_PAGE_SIZE] = true;
		for (u32 i = 0; i < record->nr_page_va; i++)
			written[record->page_va[i] / RB_PAGE_SIZE] = true;
		next += ring_buffer_desc_size(record->nr_page_va);
	}
}

static u32 written_outside(const struct host *host, const u8 *before, const bool *written)
{
	u32 found = 0;

	for (u64 page = 0; page < host->shared_size / RB_PAGE_SIZE; page++)
		found += !written[page] && memcmp(host->shared + page * RB_PAGE_SIZE,
						  before + page * RB_PAGE_SIZE, RB_PAGE_SIZE);
	return found;
}

/* Whether it was accepted. */
static bool try_load(struct host *host, u8 *before, bool *written)
{
	struct load load = { host->desc_va, host->desc_size, 0 };
	u64 nr_pages = host->shared_size / RB_PAGE_SIZE, end;
	bool accepted;

	host->nr_cpus = 1 + below(HOST_MAX_CPUS);
	host->nr_pages = 2 + below(3);
	make_desc(host);
	end = desc_end(host);
	for (u32 mutations = below(4); mutations; mutations--)
		mutate(host, &load, end);
	memcpy(before, host->shared, host->shared_size);
	memset(written, 0, nr_pages * sizeof(*written));

	accepted = !hvc4(host, 0, HVC_TRACING_LOAD, load.desc_va, load.desc_size, (u64)host->fd,
			 load.spares);
	if (accepted) {
		/* Where else it might say that it is, is the pattern or pages of events. */
		mark_pages((const void *)(host->shared + load.desc_va), written);
		use(host);
	}
	assert_int_equal(hvc(host, 0, HVC_TRACING_UNLOAD, 0, 0), 0);
	assert_int_equal(written_outside(host, before, written), 0);
	return accepted;
}

static u64 load_mutated_descriptors(u64 tries)
{
	struct host host;
	u8 *before;
	bool *written;
	u64 accepted = 0, size;

	host_setup(&host, HOST_MAX_CPUS, 4);
	host_enable_event(&host, HYP_EVENT_ID_selftest, true);
	/* Again, with pages that are nobody's. */
	munmap(host.shared, host.shared_size);
	close(host.fd);
	size = host.shared_size += NOBODYS_PAGES * RB_PAGE_SIZE;
	host.fd = make_memory(size, F_SEAL_SHRINK | F_SEAL_GROW);
	host.shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, host.fd, 0);
	assert_true(host.shared != MAP_FAILED);
	host.desc = (void *)(host.shared + host.desc_va);
	before = malloc(size);
	written = calloc(size / RB_PAGE_SIZE, sizeof(*written));
	assert_true(before && written);
	for (u64 i = 0; i < tries; i++)
		accepted += try_load(&host, before, written);
	free(before);
	free(written);
	host_teardown(&host);
	return accepted;
}

/* --- messages -------------------------------------------------------------------------------- */

static struct {
	struct hyp *hyp;
	pthread_t thread;
	int fd, theirs;
	int stop[2], memory;
} server;

static void *serve(void *arg)
{
	(void)arg;
	hyp_serve_host(server.hyp, server.theirs, -1, server.stop[0]);
	close(server.theirs);
	return NULL;
}

static void attach(void)
{
	static u8 message[HYP_MAX_MESSAGE];
	struct hyp_hello hello;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	server.fd = fds[0];
	server.theirs = fds[1];
	assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
	assert_int_equal(recv(server.fd, &hello, sizeof(hello), MSG_TRUNC), sizeof(hello));
	for (u32 i = hello.nr_events + hello.nr_symbols + hello.nr_formats; i; i--)
		assert_true(recv(server.fd, message, sizeof(message), 0) > 0);
}

static void hang_up(void)
{
	close(server.fd);
	pthread_join(server.thread, NULL);
}

/* A request of @nr_calls calls that make sense now and then. */
static size_t make_request(u8 *message, u32 nr_calls)
{
	u32 header[2] = { (u32)random_u64(), nr_calls };
	struct hyp_call_msg call;
	size_t size = sizeof(header);

	memcpy(message, header, sizeof(header));
	for (u32 i = 0; i < nr_calls; i++, size += sizeof(call)) {
		call = (struct hyp_call_msg){ .cpu = one_in(8) ? (u32)random_u64() : below(3) };
		call.regs.x0 = one_in(8) ? random_u64() : below(HVC_NR_CALLS + 1);
		call.regs.x1 = random_u64() >> below(64);
		call.regs.x2 = one_in(2) ? RB_PAGE_SIZE : random_u64() >> below(64);
		call.regs.x3 = random_u64() >> below(64);
		call.regs.x4 = one_in(4) ? random_u64() : 0;
		memcpy(message + size, &call, sizeof(call));
	}
	return size;
}

static size_t mutated_request(u8 *message, size_t room)
{
	size_t size = make_request(message, one_in(3) ? 1 + below(4) : 1);

	if (one_in(8))
		message[below((u32)size)] ^= (u8)(1 << below(8));
	if (one_in(16))
		size = below((u32)room);
	return size ? size : 1;
}

static ssize_t send_with(const u8 *data, size_t size, u32 nr_fds)
{
	union {
		struct cmsghdr header;
		u8 bytes[CMSG_SPACE(3 * sizeof(int))];
	} control = { 0 };
	const int fds[3] = { server.memory, server.stop[0], server.memory };
	struct iovec part = { (void *)data, size };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };

	if (nr_fds) {
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, nr_fds * sizeof(int));
	}
	return sendmsg(server.fd, &header, MSG_NOSIGNAL);
}

/* How many were answered; after each of the others it had hung up, and is attached to again. */
static u64 send_mutated_messages(u64 tries)
{
	static u8 message[4096], reply[HYP_MAX_MESSAGE];
	u64 answered = 0;

	assert_int_equal(hyp_create(2, &server.hyp), 0);
	assert_int_equal(pipe(server.stop), 0);
	server.memory = make_memory(16 * RB_PAGE_SIZE, F_SEAL_SHRINK | F_SEAL_GROW);
	attach();
	for (u64 i = 0; i < tries; i++) {
		size_t size = mutated_request(message, sizeof(message));
		ssize_t done = send_with(message, size, one_in(6) ? 1 + below(3) : 0);

		if (done == (ssize_t)size && recv(server.fd, reply, sizeof(reply), 0) > 0) {
			answered++;
			continue;
		}
		hang_up();
		attach();
	}
	hang_up();
	hyp_destroy(server.hyp);
	close(server.memory);
	close(server.stop[0]);
	close(server.stop[1]);
	return answered;
}

/* Nothing but acceptance, or nothing but refusal, would have tried little. */
static bool mixed(u64 some, u64 of)
{
	return some > of / 20 && some < of - of / 20;
}

int main(int argc, char **argv)
{
	u64 tries = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000;
	u64 accepted, answered;

	if (argc > 2)
		seed = strtoull(argv[2], NULL, 10) | 1;
	accepted = load_mutated_descriptors(tries);
	answered = send_mutated_messages(tries);
	printf("%llu descriptors, %llu accepted; %llu messages, %llu answered\n",
	       (unsigned long long)tries, (unsigned long long)accepted, (unsigned long long)tries,
	       (unsigned long long)answered);
	return mixed(accepted, tries) && mixed(answered, tries) ? 0 : 1;
}
