/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small host for the tests of the hypervisor: shared memory, a descriptor over it,
 * hypercalls, and a reader of the events.
 */
#ifndef HYPERVISOR_MODEL_TESTS_HOST_H
#define HYPERVISOR_MODEL_TESTS_HOST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "hypervisor_model/hyp.h"
#include "ringbuf_c/define_events.h"
#include "ringbuf_c/reader.h"

#define ARRAY_SIZE(array) ((u32)(sizeof(array) / sizeof((array)[0])))
#define HOST_MAX_CPUS 4U
#define HOST_DESC_PAGES 4U
#define HOST_MAX_EVENTS 65536U
#define HOST_PAGE_EVENTS (RB_PAGE_CAPACITY / RB_EVENT_HEADER)

struct host {
	struct hyp *hyp;
	u32 nr_cpus, nr_pages;
	int fd;
	u8 *shared;
	u64 shared_size;
	struct hyp_trace_desc *desc; /* behind the pages */
	u64 desc_va, desc_size;
	struct reader_cpu cpus[HOST_MAX_CPUS];
	struct reader reader;
	struct reader_carry carry;
};

/* Descriptors that this process has open. */
static inline u32 count_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	u32 nr = 0;

	assert_non_null(directory);
	while (readdir(directory))
		nr++;
	closedir(directory);
	return nr;
}

/* --- hypercalls ----------------------------------------------------------------------- */

static inline int hvc4(struct host *host, u32 cpu, u64 call, u64 x1, u64 x2, u64 x3, u64 x4)
{
	struct hvc_conduit *conduit = hyp_conduit(host->hyp);
	struct hvc_regs regs = { call, x1, x2, x3, x4 };

	conduit->hvc(conduit, cpu, &regs);
	return hvc_result(&regs);
}

static inline int hvc(struct host *host, u32 cpu, u64 call, u64 x1, u64 x2)
{
	return hvc4(host, cpu, call, x1, x2, 0, 0);
}

static inline int host_load(struct host *host)
{
	return hvc4(host, 0, HVC_TRACING_LOAD, host->desc_va, host->desc_size, (u64)host->fd, 0);
}

static inline void host_enable_event(struct host *host, u16 id, bool on)
{
	assert_int_equal(hvc(host, 0, HVC_TRACING_ENABLE_EVENT, id, on), 0);
}

static inline void host_enable_enter_exit(struct host *host, bool on)
{
	host_enable_event(host, HYP_EVENT_ID_hyp_enter, on);
	host_enable_event(host, HYP_EVENT_ID_hyp_exit, on);
}

/* --- shared memory and descriptor: CPU n has its meta page, then its data pages ---------- */

static inline int make_memory(u64 size, int seals)
{
	int fd = memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC);

	assert_true(fd >= 0);
	if (size)
		assert_int_equal(posix_fallocate(fd, 0, (off_t)size), 0);
	if (seals)
		assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static inline u64 host_meta_va(const struct host *host, u32 cpu)
{
	return (u64)cpu * (host->nr_pages + 1) * RB_PAGE_SIZE;
}

static inline const struct trace_buffer_meta *host_meta(const struct host *host, u32 cpu)
{
	return (const void *)(host->shared + host_meta_va(host, cpu));
}

static inline u64 host_entries(const struct host *host, u32 cpu)
{
	return smp_load_acquire(&host_meta(host, cpu)->entries);
}

static inline struct ring_buffer_desc *host_record(const struct host *host, u32 cpu)
{
	return (void *)(host->desc->trace_buffer_desc.data +
			cpu * ring_buffer_desc_size(host->nr_pages));
}

static inline void make_desc(struct host *host)
{
	struct trace_buffer_desc *container = &host->desc->trace_buffer_desc;

	memset(host->desc, 0, HOST_DESC_PAGES * RB_PAGE_SIZE);
	container->nr_cpus = (s32)host->nr_cpus;
	container->struct_len =
		sizeof(*container) + host->nr_cpus * ring_buffer_desc_size(host->nr_pages);
	assert_true(16 + container->struct_len <= host->desc_size);
	for (u32 cpu = 0; cpu < host->nr_cpus; cpu++) {
		struct ring_buffer_desc *record = host_record(host, cpu);

		record->cpu = (s32)cpu;
		record->nr_page_va = host->nr_pages;
		record->meta_va = host_meta_va(host, cpu);
		for (u32 i = 0; i < host->nr_pages; i++)
			record->page_va[i] = record->meta_va + (i + 1) * RB_PAGE_SIZE;
	}
}

static inline void make_reader(struct host *host)
{
	for (u32 cpu = 0; cpu < host->nr_cpus; cpu++)
		host->cpus[cpu] = (struct reader_cpu){
			.meta = host_meta(host, cpu),
			.pages = host->shared + host_meta_va(host, cpu) + RB_PAGE_SIZE,
			.nr_pages = host->nr_pages,
		};
	host->reader = (struct reader){
		.conduit = hyp_conduit(host->hyp),
		.nr_cpus = host->nr_cpus,
		.cpus = host->cpus,
	};
}

/* A hypervisor of so many CPUs that stand still, and what is needed to load it. */
static inline void host_setup(struct host *host, u32 nr_cpus, u32 nr_pages)
{
	*host = (struct host){
		.nr_cpus = nr_cpus,
		.nr_pages = nr_pages,
		.desc_va = (u64)nr_cpus * (nr_pages + 1) * RB_PAGE_SIZE,
		.desc_size = HOST_DESC_PAGES * RB_PAGE_SIZE,
	};
	host->shared_size = host->desc_va + host->desc_size;
	assert_true(nr_cpus <= HOST_MAX_CPUS);
	assert_int_equal(hyp_create(nr_cpus, &host->hyp), 0);
	host->fd = make_memory(host->shared_size, F_SEAL_SHRINK | F_SEAL_GROW);
	host->shared = mmap(NULL, host->shared_size, PROT_READ | PROT_WRITE, MAP_SHARED, host->fd,
			    0);
	assert_true(host->shared != MAP_FAILED);
	host->desc = (void *)(host->shared + host->desc_va);
	make_desc(host);
	make_reader(host);
}

static inline void host_teardown(struct host *host)
{
	hyp_destroy(host->hyp);
	munmap(host->shared, host->shared_size);
	close(host->fd);
}

/* --- events ---------------------------------------------------------------------------------- */

struct host_event {
	u64 time_stamp;
	u64 value; /* vcpu, or the id of a selftest event */
	u16 id;
	u8 reason;
};

static inline struct host_event make_event(const struct rb_record *record)
{
	struct host_event event = { .time_stamp = record->time_stamp, .id = record->id };

	if (event.id == HYP_EVENT_ID_selftest) {
		event.value = ((const struct hyp_event_format_selftest *)record->payload)->id;
	} else {
		const struct hyp_event_format_hyp_enter *enter = (const void *)record->payload;

		event.value = (u64)(s64)enter->vcpu;
		event.reason = enter->reason;
	}
	return event;
}

/*
 * All events of a CPU, oldest first; the calls that this takes are made on
 * host->reader.hvc_cpu. Without gaps if nothing was lost meanwhile.
 */
static inline u32 host_read(struct host *host, u32 cpu, struct host_event *events)
{
	static u64 image[RB_PAGE_SIZE / sizeof(u64)];
	u32 nr = 0;

	/* A writer may be faster than we are: as many as there is room for. */
	while (nr + HOST_PAGE_EVENTS <= HOST_MAX_EVENTS &&
	       reader_raw(&host->reader, cpu, &host->carry, (u8 *)image, sizeof(image))) {
		struct rb_record record = { .time_stamp = image[0] };

		while (rb_walk_next((u8 *)(image + 2), (u32)image[1] & 0xffff, record.next,
				    record.time_stamp, &record) == RB_WALK_EVENT) {
			assert_true(nr < HOST_MAX_EVENTS);
			events[nr++] = make_event(&record);
		}
	}
	return nr;
}

#endif
