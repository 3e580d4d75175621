// SPDX-License-Identifier: Apache-2.0
/*
 * A producer that shares no code with hyptracefs but its public headers: what somebody writes who
 * has PROTOCOL.md and wants the events of a VMM shown.
 *
 *     other_producer [--tsc] [--rate=HZ] [--count=N] PATH
 *
 * With --count each CPU writes each event N times, and then a line to stdout.
 */
#define _GNU_SOURCE
#include "other_ring.h"

#include "hypervisor_model/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NR_CPUS 2U
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* ---- events ---- */

struct tick {
	u16 id;
	s64 value;
};

struct mmio_write {
	u16 id;
	u64 addr;
	u32 value;
	u8 size;
};

struct vcpu_exit {
	u16 id;
	u8 reason;
	u32 count;
};

struct vm_boot {
	u16 id;
	u16 vcpus;
	char name[16];
};

struct dma_fault {
	u16 id;
	u32 flags;
};

#define FIELD(event, text, member, sign) \
	{ .type = text, .name = #member, .offset = offsetof(struct event, member), \
	  .size = sizeof(((struct event *)0)->member), .is_signed = sign }

struct event {
	struct hyp_event_msg head;
	struct hyp_field_msg fields[3];
	const char *print_fmt;
};

static const struct event events[] = {
	{ { .name = "tick", .id = 7, .nr_fields = 1 },
	  { FIELD(tick, "s64", value, 1) },
	  "\"value=%lld\", REC->value" },
	{ { .name = "mmio_write", .id = 10, .nr_fields = 3 },
	  { FIELD(mmio_write, "u64", addr, 0), FIELD(mmio_write, "u32", value, 0),
	    FIELD(mmio_write, "u8", size, 0) },
	  "\"addr=%llx value=%u size=%s\", REC->addr, REC->value, access_width(REC->size)" },
	{ { .name = "vcpu_exit", .id = 11, .nr_fields = 2 },
	  { FIELD(vcpu_exit, "u8", reason, 0), FIELD(vcpu_exit, "u32", count, 0) },
	  "\"reason=%s count=%u\", __print_symbolic(REC->reason, { 0, \"halt\" }, { 1, \"mmio\" }, "
	  "{ 2, \"pio\" }), REC->count" },
	{ { .name = "vm_boot", .id = 300, .nr_fields = 2 },
	  { FIELD(vm_boot, "u16", vcpus, 0), FIELD(vm_boot, "char[16]", name, 0) },
	  "\"name=%s vcpus=%u\", REC->name, REC->vcpus" },
	{ { .name = "dma_fault", .id = 301, .nr_fields = 1 },
	  { FIELD(dma_fault, "u32", flags, 0) },
	  "\"flags=%s\", __print_flags(REC->flags, \"|\", { 1, \"READ\" }, { 2, \"WRITE\" })" },
};

static const struct {
	struct hyp_symbols_msg head;
	struct hyp_symbol_msg symbols[3];
} widths = {
	{ .function = "access_width", .fallback = "odd", .nr_symbols = 3 },
	{ { 1, "byte" }, { 4, "word" }, { 8, "quad" } },
};

/* ---- the CPUs ---- */

static struct cpu {
	pthread_mutex_t lock;
	struct ring ring; /* loaded if it has a meta page */
	u64 count[ARRAY_SIZE(events)];
} cpus[NR_CPUS];

/* Changed with the locks of all CPUs held, so that holding one is enough to read them. */
static bool tracing;
static bool enabled[ARRAY_SIZE(events)];
static u8 *memory;
static u64 memory_size;
static struct {
	u64 mult, shift, epoch_ns, epoch_count;
} clock_now;

static bool use_tsc;
static u64 period_ns = 1000000;
static u64 limit = UINT64_MAX;

static u64 read_counter(void)
{
	struct timespec now;

	if (use_tsc) {
#if defined(__x86_64__)
		return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
		u64 count;

		__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(count));
		return count;
#endif
	}
	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

static u64 now_ns(void)
{
	u64 count = read_counter();

	if (!clock_now.mult)
		return 0;
	if (count < clock_now.epoch_count)
		return clock_now.epoch_ns;
	return (u64)(((unsigned __int128)(count - clock_now.epoch_count) * clock_now.mult) >>
		     clock_now.shift) + clock_now.epoch_ns;
}

static void lock_all(void)
{
	for (u32 i = 0; i < NR_CPUS; i++)
		pthread_mutex_lock(&cpus[i].lock);
}

static void unlock_all(void)
{
	for (u32 i = NR_CPUS; i-- > 0;)
		pthread_mutex_unlock(&cpus[i].lock);
}

/* The payload of the event's `count`th occurrence. */
static u32 fill(u32 event, u64 count, void *payload)
{
	static const u8 sizes[] = { 1, 2, 4, 8 };

	switch (event) {
	case 0:
		*(struct tick *)payload = (struct tick){ .id = 7, .value = (s64)count - 10 };
		return sizeof(struct tick);
	case 1:
		*(struct mmio_write *)payload =
			(struct mmio_write){ .id = 10, .addr = 0xfee00000fee00000 + count * 8,
					     .value = (u32)count, .size = sizes[count % 4] };
		return sizeof(struct mmio_write);
	case 2:
		*(struct vcpu_exit *)payload = (struct vcpu_exit){
			.id = 11, .reason = (u8)(count % 4), .count = (u32)count };
		return sizeof(struct vcpu_exit);
	case 3:
		*(struct vm_boot *)payload =
			(struct vm_boot){ .id = 300, .vcpus = (u16)count, .name = "debian" };
		return sizeof(struct vm_boot);
	default:
		*(struct dma_fault *)payload =
			(struct dma_fault){ .id = 301, .flags = (u32)(count % 4) };
		return sizeof(struct dma_fault);
	}
}

/* One of each event that is on. True when that was the last time. */
static bool write_events(struct cpu *cpu)
{
	_Alignas(8) u8 payload[64];
	bool last = false;

	if (!tracing || !cpu->ring.meta)
		return false;
	for (u32 i = 0; i < ARRAY_SIZE(events); i++) {
		if (!enabled[i] || cpu->count[i] == limit)
			continue;
		memset(payload, 0, sizeof(payload));
		u32 size = fill(i, cpu->count[i]++, payload);

		ring_write(&cpu->ring, now_ns(), payload, size);
		last = cpu->count[i] == limit;
	}
	return last;
}

static void *run_cpu(void *argument)
{
	struct cpu *cpu = argument;
	struct timespec pause = { (time_t)(period_ns / 1000000000), (long)(period_ns % 1000000000) };

	for (;;) {
		bool last;

		pthread_mutex_lock(&cpu->lock);
		last = write_events(cpu);
		pthread_mutex_unlock(&cpu->lock);
		if (last) {
			puts("written");
			fflush(stdout);
		}
		nanosleep(&pause, NULL);
	}
	return NULL;
}

/* ---- the memory ---- */

static void unload(void)
{
	tracing = false;
	for (u32 i = 0; i < NR_CPUS; i++)
		ring_free(&cpus[i].ring);
	if (memory)
		munmap(memory, memory_size);
	memory = NULL;
}

/* Take a page of the memory for one use. */
static int take(u8 *taken, u64 va)
{
	if (va % RB_PAGE_SIZE)
		return -EINVAL;
	if (va >= memory_size || taken[va / RB_PAGE_SIZE])
		return -EPERM;
	taken[va / RB_PAGE_SIZE] = 1;
	return 0;
}

/* @desc: our copy, of at least the size of its head. */
static int load_rings(const u8 *desc, u64 size, u8 *taken)
{
	const struct hyp_trace_desc *head = (const void *)desc;
	s32 nr = head->trace_buffer_desc.nr_cpus;
	u64 length = head->trace_buffer_desc.struct_len;
	u64 at = offsetof(struct hyp_trace_desc, trace_buffer_desc) +
		 offsetof(struct trace_buffer_desc, data);
	u64 end = offsetof(struct hyp_trace_desc, trace_buffer_desc) + length;

	if (nr < 1 || (u32)nr > NR_CPUS || length > size || end > size || end < at)
		return -EINVAL;
	for (s32 i = 0; i < nr; i++) {
		const struct ring_buffer_desc *record = (const void *)(desc + at);
		int error;

		if (end - at < sizeof(*record) || record->cpu != i ||
		    record->nr_page_va < RB_MIN_PAGES ||
		    end - at < ring_buffer_desc_size(record->nr_page_va))
			return -EINVAL;
		error = take(taken, record->meta_va);
		for (u32 page = 0; !error && page < record->nr_page_va; page++)
			error = take(taken, record->page_va[page]);
		if (error)
			return error;
		if (!ring_init(&cpus[i].ring, memory, record->meta_va, record->page_va,
			       record->nr_page_va))
			return -ENOMEM;
		at += ring_buffer_desc_size(record->nr_page_va);
	}
	return at == end ? 0 : -EINVAL;
}

static int load_desc(u64 offset, u64 size)
{
	u8 *taken, *desc;
	int error = -ENOMEM;

	if (offset % 8 || offset > memory_size || size > memory_size - offset ||
	    size < sizeof(struct hyp_trace_desc))
		return -EINVAL;
	taken = calloc(memory_size / RB_PAGE_SIZE, 1);
	desc = malloc(size);
	if (taken && desc) {
		for (u64 page = offset / RB_PAGE_SIZE; page <= (offset + size - 1) / RB_PAGE_SIZE; page++)
			taken[page] = 1;
		memcpy(desc, memory + offset, size);
		error = load_rings(desc, size, taken);
	}
	free(taken);
	free(desc);
	return error;
}

static int load(int fd, u64 offset, u64 size)
{
	const int needed = F_SEAL_SHRINK | F_SEAL_GROW;
	struct stat status;
	int seals, error;
	void *mapped;

	if (memory)
		return -EBUSY;
	if (fd < 0 || fstat(fd, &status))
		return -EINVAL;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & needed) != needed)
		return -EPERM;
	if (status.st_size <= 0 || status.st_size % RB_PAGE_SIZE)
		return -EINVAL;
	mapped = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapped == MAP_FAILED)
		return -errno;
	memory = mapped;
	memory_size = (u64)status.st_size;
	error = load_desc(offset, size);
	if (error)
		unload();
	return error;
}

/* ---- hypercalls ---- */

static struct ring *ring_of(u64 cpu, int *error)
{
	*error = cpu >= NR_CPUS ? -EINVAL : cpus[cpu].ring.meta ? 0 : -ENODEV;
	return *error ? NULL : &cpus[cpu].ring;
}

static int swap_or_reset(u64 cpu, void (*act)(struct ring *))
{
	int error;
	struct ring *ring = ring_of(cpu, &error);

	if (ring)
		act(ring);
	return error;
}

static int enable(u64 on)
{
	if (on && !memory)
		return -EINVAL;
	tracing = on;
	return 0;
}

static int update_clock(const struct hvc_regs *regs)
{
	if (regs->x1 && regs->x2 < 64) {
		clock_now.mult = regs->x1;
		clock_now.shift = regs->x2;
		clock_now.epoch_ns = regs->x3;
		clock_now.epoch_count = regs->x4;
	}
	return 0;
}

static int enable_event(u64 id, u64 on)
{
	for (u32 i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i].head.id == id) {
			enabled[i] = on;
			return 0;
		}
	return -EINVAL;
}

static struct hyp_result_msg call(const struct hvc_regs *regs, int fd)
{
	s64 result = 0;

	switch (regs->x0) {
	case HVC_TRACING_LOAD:
		result = load(fd, regs->x1, regs->x2);
		break;
	case HVC_TRACING_UNLOAD:
		unload();
		break;
	case HVC_TRACING_ENABLE:
		result = enable(regs->x1);
		break;
	case HVC_TRACING_SWAP_READER:
		result = swap_or_reset(regs->x1, ring_swap);
		break;
	case HVC_TRACING_RESET:
		result = swap_or_reset(regs->x1, ring_reset);
		break;
	case HVC_TRACING_UPDATE_CLOCK:
		result = update_clock(regs);
		break;
	case HVC_TRACING_ENABLE_EVENT:
		result = enable_event(regs->x1, regs->x2);
		break;
	case HVC_TRACING_WRITE_EVENT:
		result = -EOPNOTSUPP;
		break;
	default:
		return (struct hyp_result_msg){ .x0 = HVC_NOT_SUPPORTED };
	}
	return (struct hyp_result_msg){ .x1 = (u64)result };
}

/* ---- the socket ---- */

static bool send_all(int fd, const void *message, size_t size)
{
	return send(fd, message, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool send_hello(int fd, int error)
{
	struct hyp_hello hello = { .version = HYP_PROTOCOL_VERSION, .error = error, .name = "vmm",
				   .nr_cpus = NR_CPUS, .page_size = RB_PAGE_SIZE,
				   .nr_events = ARRAY_SIZE(events), .nr_symbols = 1,
				   .counter = use_tsc ? HYP_COUNTER_CPU : HYP_COUNTER_MONOTONIC_RAW,
				   .counter_hz = use_tsc ? 0 : 1000000000 };

	memcpy(hello.magic, HYP_MAGIC, sizeof(hello.magic));
	return send_all(fd, &hello, sizeof(hello));
}

static bool send_event(int fd, const struct event *event)
{
	u8 message[2048];
	struct hyp_event_msg head = event->head;
	size_t fields = head.nr_fields * sizeof(event->fields[0]);

	head.print_fmt_size = (u32)strlen(event->print_fmt) + 1;
	memcpy(message, &head, sizeof(head));
	memcpy(message + sizeof(head), event->fields, fields);
	memcpy(message + sizeof(head) + fields, event->print_fmt, head.print_fmt_size);
	return send_all(fd, message, sizeof(head) + fields + head.print_fmt_size);
}

static bool introduce(int fd)
{
	bool good = send_hello(fd, 0);

	for (u32 i = 0; good && i < ARRAY_SIZE(events); i++)
		good = send_event(fd, &events[i]);
	return good && send_all(fd, &widths, sizeof(widths));
}

/* The memory object that came along, or -1. */
static int passed_fd(struct msghdr *message)
{
	int found = -1;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			if (found >= 0)
				close(found);
			memcpy(&found, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
		}
	}
	return found;
}

static bool answer(int fd, const struct hyp_request *request, ssize_t size, int memory_fd)
{
	_Alignas(8) u8 message[sizeof(struct hyp_reply) + HYP_MAX_CALLS * sizeof(struct hyp_result_msg)];
	struct hyp_reply *reply = (void *)message;
	u32 nr = request->nr_calls;

	if (size < (ssize_t)sizeof(*request) || nr < 1 || nr > HYP_MAX_CALLS ||
	    (size_t)size != sizeof(*request) + nr * sizeof(request->calls[0]))
		return false;
	reply->sequence = request->sequence;
	reply->nr_calls = nr;
	lock_all();
	for (u32 i = 0; i < nr; i++)
		reply->results[i] = call(&request->calls[i].regs, memory_fd);
	unlock_all();
	return send_all(fd, message, sizeof(*reply) + nr * sizeof(reply->results[0]));
}

/* One request. False when the connection is to end. */
static bool serve(int fd)
{
	static _Alignas(8) u8 buffer[HYP_MAX_MESSAGE];
	_Alignas(struct cmsghdr) u8 control[CMSG_SPACE(4 * sizeof(int))];
	struct iovec part = { buffer, sizeof(buffer) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	ssize_t size = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	int memory_fd;
	bool good;

	if (size <= 0)
		return false;
	memory_fd = passed_fd(&message);
	good = !(message.msg_flags & MSG_TRUNC) && answer(fd, (void *)buffer, size, memory_fd);
	if (memory_fd >= 0)
		close(memory_fd);
	return good;
}

static void hang_up(int *host)
{
	close(*host);
	*host = -1;
	lock_all();
	unload();
	memset(enabled, 0, sizeof(enabled));
	memset(&clock_now, 0, sizeof(clock_now));
	unlock_all();
}

static void welcome(int listener, int *host)
{
	struct timeval patience = { .tv_sec = 2 };
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (*host >= 0) {
		send_hello(fd, -EBUSY);
		close(fd);
		return;
	}
	*host = fd;
	if (!introduce(fd))
		hang_up(host);
}

static void serve_hosts(int listener)
{
	int host = -1;

	for (;;) {
		struct pollfd wait[2] = { { .fd = listener, .events = POLLIN },
					  { .fd = host, .events = POLLIN } };

		if (poll(wait, 2, -1) < 0)
			continue;
		if (wait[1].revents && !serve(host))
			hang_up(&host);
		if (wait[0].revents)
			welcome(listener, &host);
	}
}

static struct sockaddr_un address = { .sun_family = AF_UNIX };

static void on_term(int signal)
{
	(void)signal;
	unlink(address.sun_path);
	_exit(0);
}

static int listen_at(const char *path)
{
	struct stat status;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	if (!lstat(path, &status) && S_ISSOCK(status.st_mode))
		unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 8))
		return -1;
	return fd;
}

static bool parse_options(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i++) {
		if (!strcmp(argv[i], "--tsc"))
			use_tsc = true;
		else if (!strncmp(argv[i], "--rate=", 7) && atol(argv[i] + 7) > 0)
			period_ns = 1000000000 / (u64)atol(argv[i] + 7);
		else if (!strncmp(argv[i], "--count=", 8) && atol(argv[i] + 8) > 0)
			limit = (u64)atol(argv[i] + 8);
		else
			return false;
	}
	return argc > 1;
}

int main(int argc, char **argv)
{
	int listener;

	if (!parse_options(argc, argv)) {
		fprintf(stderr, "usage: other_producer [--tsc] [--rate=HZ] [--count=N] PATH\n");
		return 2;
	}
	listener = listen_at(argv[argc - 1]);
	if (listener < 0) {
		perror(argv[argc - 1]);
		return 1;
	}
	signal(SIGTERM, on_term);
	signal(SIGINT, on_term);
	for (u32 i = 0; i < NR_CPUS; i++) {
		pthread_t thread;

		pthread_mutex_init(&cpus[i].lock, NULL);
		if (pthread_create(&thread, NULL, run_cpu, &cpus[i]))
			return 1;
	}
	puts("listening");
	fflush(stdout);
	serve_hosts(listener);
}
