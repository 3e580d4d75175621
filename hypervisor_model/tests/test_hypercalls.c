// SPDX-License-Identifier: Apache-2.0
/* The hypercalls, above all what load refuses (SPEC C). No pCPU runs. */
#include "host.h"
#include "hypervisor_model/protocol.h"

#define NR_CPUS 2U
#define NR_PAGES 4U

static struct host host;
static struct host_event events[HOST_MAX_EVENTS];

static int setup(void **state)
{
	(void)state;
	host_setup(&host, NR_CPUS, NR_PAGES);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	host_teardown(&host);
	return 0;
}

/* --- load: one thing wrong at a time ------------------------------------------------------- */

static struct trace_buffer_desc *container(void)
{
	return &host.desc->trace_buffer_desc;
}

static void set_fd(int fd)
{
	close(host.fd);
	host.fd = fd;
}

static void spoil_zero_size(void) { host.desc_size = 0; }
static void spoil_small_size(void) { host.desc_size = 48; }
static void spoil_odd_size(void) { host.desc_size -= 8; }
static void spoil_huge_size(void) { host.desc_size = 0ULL - RB_PAGE_SIZE; }
static void spoil_more_than_memory(void) { host.desc_size += RB_PAGE_SIZE; }
static void spoil_odd_place(void) { host.desc_va += 8; }
static void spoil_place_outside(void) { host.desc_va = host.shared_size; }
static void spoil_place_far(void) { host.desc_va = 0ULL - RB_PAGE_SIZE; }
static void spoil_desc_is_meta(void) { host_record(&host, 0)->meta_va = host.desc_va; }

static void spoil_desc_is_page(void)
{
	host_record(&host, 1)->page_va[2] = host.desc_va + RB_PAGE_SIZE;
}

static void spoil_no_cpus(void) { container()->nr_cpus = 0; }
/* SPEC C.1 TRAP: loads nothing, and says that it has */
static void spoil_no_records(void)
{
	container()->nr_cpus = 0;
	container()->struct_len = sizeof(*container());
}

static void spoil_negative_cpus(void) { container()->nr_cpus = -1; }
static void spoil_least_cpus(void) { container()->nr_cpus = INT32_MIN; }
static void spoil_many_cpus(void) { container()->nr_cpus = NR_CPUS + 1; }
static void spoil_less_cpus(void) { container()->nr_cpus = 1; }
static void spoil_cpu_order(void) { host_record(&host, 0)->cpu = 1; }
static void spoil_cpu_twice(void) { host_record(&host, 1)->cpu = 0; }
static void spoil_cpu_negative(void) { host_record(&host, 1)->cpu = -1; }
static void spoil_no_pages(void) { host_record(&host, 0)->nr_page_va = 0; }
static void spoil_2_pages(void) { host_record(&host, 1)->nr_page_va = 2; }
static void spoil_more_pages(void) { host_record(&host, 1)->nr_page_va++; }
static void spoil_huge_pages(void) { host_record(&host, 0)->nr_page_va = UINT32_MAX; }
static void spoil_wrapping_pages(void) { host_record(&host, 0)->nr_page_va = 1U << 29; }
static void spoil_len_0(void) { container()->struct_len = 0; }
static void spoil_len_small(void) { container()->struct_len -= 8; }
static void spoil_len_more(void) { container()->struct_len += 8; }
static void spoil_len_desc(void) { container()->struct_len = host.desc_size - 16; }
static void spoil_len_outside(void) { container()->struct_len = host.desc_size - 15; }
static void spoil_len_huge(void) { container()->struct_len = UINT64_MAX; }
static void spoil_backing(void) { host.desc->bpages_backing_start = RB_PAGE_SIZE; }
static void spoil_backing_size(void) { host.desc->bpages_backing_size = RB_PAGE_SIZE; }

static void spoil_meta_unaligned(void) { host_record(&host, 0)->meta_va += 8; }
static void spoil_meta_outside(void) { host_record(&host, 1)->meta_va = host.shared_size; }
static void spoil_meta_far(void) { host_record(&host, 1)->meta_va = 0ULL - RB_PAGE_SIZE; }
static void spoil_meta_shared(void) { host_record(&host, 1)->meta_va = 0; }
static void spoil_page_unaligned(void) { host_record(&host, 1)->page_va[3] += 1; }
static void spoil_page_outside(void) { host_record(&host, 0)->page_va[0] = host.shared_size; }
static void spoil_page_far(void) { host_record(&host, 0)->page_va[2] = 1ULL << 63; }
static void spoil_page_is_meta(void) { host_record(&host, 0)->page_va[0] = 0; }

static void spoil_page_twice(void)
{
	host_record(&host, 0)->page_va[1] = host_record(&host, 0)->page_va[0];
}

static void spoil_page_of_other_cpu(void)
{
	host_record(&host, 1)->page_va[3] = host_record(&host, 0)->page_va[0];
}

static void spoil_unsealed(void) { set_fd(make_memory(host.shared_size, 0)); }
static void spoil_can_shrink(void) { set_fd(make_memory(host.shared_size, F_SEAL_GROW)); }
static void spoil_can_grow(void) { set_fd(make_memory(host.shared_size, F_SEAL_SHRINK)); }
static void spoil_no_memory(void) { set_fd(make_memory(0, F_SEAL_SHRINK | F_SEAL_GROW)); }
/* The last page is missing; nobody names it. */
static void spoil_sparse(void)
{
	set_fd(memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC));
	assert_int_equal(posix_fallocate(host.fd, 0, (off_t)host.shared_size), 0);
	assert_int_equal(pwrite(host.fd, host.desc, host.desc_size, (off_t)host.desc_va),
			 host.desc_size);
	assert_int_equal(ftruncate(host.fd, (off_t)(host.shared_size + RB_PAGE_SIZE)), 0);
	assert_int_equal(fcntl(host.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
}

/* A page that is not to be had comes before a record that makes no sense, as in SPEC C.1. */
static void spoil_page_then_record(void)
{
	spoil_page_outside();
	spoil_2_pages();
}

static void spoil_record_then_page(void)
{
	spoil_cpu_order();
	spoil_meta_outside();
}

static void spoil_not_a_memfd(void) { set_fd(open("/dev/null", O_RDWR | O_CLOEXEC)); }
static void spoil_bad_fd(void) { set_fd(-1); }

static void spoil_odd_memory(void)
{
	set_fd(make_memory(host.shared_size + 1, F_SEAL_SHRINK | F_SEAL_GROW));
}

static void spoil_small_memory(void)
{
	set_fd(make_memory(host.shared_size - RB_PAGE_SIZE, F_SEAL_SHRINK | F_SEAL_GROW));
}

#define spoiled(what, ret) { #what, spoil_##what, ret }

static const struct {
	const char *what;
	void (*spoil)(void);
	int ret;
} bad_loads[] = {
	spoiled(zero_size, -EINVAL),	     spoiled(small_size, -EINVAL),
	spoiled(odd_size, -EINVAL),	     spoiled(huge_size, -EPERM),
	spoiled(more_than_memory, -EPERM),   spoiled(odd_place, -EINVAL),
	spoiled(place_outside, -EPERM),	     spoiled(place_far, -EPERM),
	spoiled(desc_is_meta, -EPERM),	     spoiled(desc_is_page, -EPERM),
	spoiled(no_cpus, -EINVAL),	     spoiled(negative_cpus, -EINVAL),
	spoiled(least_cpus, -EINVAL),	     spoiled(many_cpus, -EINVAL),
	spoiled(less_cpus, -EINVAL),	     spoiled(cpu_order, -EINVAL),
	spoiled(cpu_twice, -EINVAL),	     spoiled(cpu_negative, -EINVAL),
	spoiled(no_pages, -EINVAL),	     spoiled(2_pages, -EINVAL),
	spoiled(more_pages, -EINVAL),	     spoiled(huge_pages, -EINVAL),
	spoiled(wrapping_pages, -EINVAL),    spoiled(len_0, -EINVAL),
	spoiled(len_small, -EINVAL),	     spoiled(len_more, -EINVAL),
	spoiled(len_desc, -EINVAL),	     spoiled(len_outside, -EINVAL),
	spoiled(len_huge, -EINVAL),	     spoiled(backing, -EINVAL),
	spoiled(backing_size, -EINVAL),	     spoiled(meta_unaligned, -EPERM),
	spoiled(meta_outside, -EPERM),	     spoiled(meta_far, -EPERM),
	spoiled(meta_shared, -EPERM),	     spoiled(page_unaligned, -EPERM),
	spoiled(page_outside, -EPERM),	     spoiled(page_far, -EPERM),
	spoiled(page_is_meta, -EPERM),	     spoiled(page_twice, -EPERM),
	spoiled(page_of_other_cpu, -EPERM),  spoiled(unsealed, -EPERM),
	spoiled(can_shrink, -EPERM),	     spoiled(can_grow, -EPERM),
	spoiled(no_memory, -EINVAL),	     spoiled(not_a_memfd, -EPERM),
	spoiled(bad_fd, -EPERM),	     spoiled(odd_memory, -EINVAL),
	spoiled(small_memory, -EPERM),	     spoiled(sparse, -EPERM),
	spoiled(no_records, -EINVAL),
	spoiled(page_then_record, -EPERM),   spoiled(record_then_page, -EINVAL),
};

static void expect_not_loaded(void)
{
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++) {
		assert_int_equal(hvc(&host, 0, HVC_TRACING_SWAP_READER, cpu, 0), -ENODEV);
		assert_int_equal(hvc(&host, 0, HVC_TRACING_RESET, cpu, 0), -ENODEV);
	}
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, true, 0), -EINVAL);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, false, 0), 0);
}

static void expect_loaded(void)
{
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++) {
		assert_int_equal(host_meta(&host, cpu)->nr_subbufs, NR_PAGES);
		assert_int_equal(hvc(&host, 0, HVC_TRACING_RESET, cpu, 0), 0);
	}
}

static void test_bad_loads(void **state)
{
	u64 desc_va = host.desc_va, desc_size = host.desc_size;

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(bad_loads); i++) {
		int good_fd = fcntl(host.fd, F_DUPFD_CLOEXEC, 0);
		int ret;

		bad_loads[i].spoil();
		ret = host_load(&host);
		if (ret != bad_loads[i].ret)
			fail_msg("%s: %d", bad_loads[i].what, ret);
		expect_not_loaded();

		/* Repaired, it loads: nothing is left of the attempt. */
		host.desc_va = desc_va;
		host.desc_size = desc_size;
		make_desc(&host);
		set_fd(good_fd);
		assert_int_equal(host_load(&host), 0);
		expect_loaded();
		assert_int_equal(hvc(&host, 0, HVC_TRACING_UNLOAD, 0, 0), 0);
	}
}

static void test_load_less_cpus(void **state)
{
	(void)state;
	host.nr_cpus = 1;
	make_desc(&host);
	assert_int_equal(host_load(&host), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, true, 0), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_SWAP_READER, 0, 0), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_SWAP_READER, 1, 0), -ENODEV);
}

/* The descriptor is the host's again after the call: it may do with it what it likes. */
static void test_desc_is_copied(void **state)
{
	(void)state;
	assert_int_equal(host_load(&host), 0);
	memset(host.desc, 0xff, host.desc_size);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, true, 0), 0);
	expect_loaded();
}

static void test_load_clears_meta(void **state)
{
	(void)state;
	memset(host.shared, 0xff, host.desc_va);
	assert_int_equal(host_load(&host), 0);
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++) {
		const struct trace_buffer_meta *meta = host_meta(&host, cpu);

		assert_int_equal(meta->meta_page_size, RB_PAGE_SIZE);
		assert_int_equal(meta->meta_struct_len, sizeof(*meta));
		assert_int_equal(meta->entries | meta->overrun | meta->flags | meta->read, 0);
		assert_int_equal(meta->reader.id | meta->reader.lost_events, 0);
		for (u32 i = 1; i <= NR_PAGES; i++)
			assert_int_equal(((const struct buffer_data_page *)((const u8 *)meta +
						i * RB_PAGE_SIZE))->commit, 0);
	}
}

static void test_load_twice(void **state)
{
	(void)state;
	assert_int_equal(host_load(&host), 0);
	assert_int_equal(host_load(&host), -EBUSY);
	/* the descriptor is asked first (SPEC C.1) */
	host.desc_size = 0;
	assert_int_equal(host_load(&host), -EINVAL);
	expect_loaded();
	host.desc_size = host.shared_size;
	assert_int_equal(host_load(&host), -EPERM);
	expect_loaded();
	assert_int_equal(hvc(&host, 0, HVC_TRACING_UNLOAD, 0, 0), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_UNLOAD, 0, 0), 0);
	expect_not_loaded();
}

/* --- calls that are refused --------------------------------------------------------------------- */

static void test_unknown_calls(void **state)
{
	static const u64 calls[] = { HVC_NR_CALLS, 100, 1ULL << 32, UINT64_MAX };
	struct hvc_conduit *conduit = hyp_conduit(host.hyp);

	(void)state;
	for (u32 i = 0; i < ARRAY_SIZE(calls); i++) {
		struct hvc_regs regs = { .x0 = calls[i], .x1 = 77 };

		conduit->hvc(conduit, 0, &regs);
		assert_int_equal(regs.x0, UINT64_MAX);
		assert_int_equal(hvc_result(&regs), -EOPNOTSUPP);
	}
}

static void test_bad_physical_cpu(void **state)
{
	static const u32 cpus[] = { NR_CPUS, 100, UINT32_MAX };
	struct hvc_conduit *conduit = hyp_conduit(host.hyp);

	(void)state;
	assert_int_equal(hyp_nr_cpus(host.hyp), NR_CPUS);
	for (u32 i = 0; i < ARRAY_SIZE(cpus); i++) {
		struct hvc_regs regs = { .x0 = HVC_TRACING_UNLOAD };

		conduit->hvc(conduit, cpus[i], &regs);
		assert_int_equal(regs.x0, UINT64_MAX);
	}
}

static void test_bad_arguments(void **state)
{
	static const u64 bad_cpus[] = { NR_CPUS, UINT32_MAX, 1ULL << 32, UINT64_MAX };
	static const u64 bad_ids[] = { 0, HYP_EVENT_RESERVED_ID, 1000, 0x10001, UINT64_MAX };

	(void)state;
	for (u32 loaded = 0; loaded <= 1; loaded++) {
		for (u32 i = 0; i < ARRAY_SIZE(bad_cpus); i++) {
			assert_int_equal(hvc(&host, 0, HVC_TRACING_SWAP_READER, bad_cpus[i], 0),
					 -EINVAL);
			assert_int_equal(hvc(&host, 0, HVC_TRACING_RESET, bad_cpus[i], 0), -EINVAL);
		}
		for (u32 i = 0; i < ARRAY_SIZE(bad_ids); i++)
			assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE_EVENT, bad_ids[i], 1),
					 -EINVAL);
		if (!loaded) {
			expect_not_loaded();
			assert_int_equal(host_load(&host), 0);
		}
	}
}

/* --- events ------------------------------------------------------------------------------------------ */

static void start_tracing(void)
{
	assert_int_equal(host_load(&host), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, true, 0), 0);
}

static void test_write_event(void **state)
{
	(void)state;
	/* Not loaded, not enabled, or the event is off: nothing, and no error. */
	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, 1, 0), 0);
	host_enable_event(&host, HYP_EVENT_ID_selftest, true);
	assert_int_equal(host_load(&host), 0);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, 2, 0), 0);
	assert_int_equal(host_entries(&host, 1), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_ENABLE, true, 0), 0);

	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, 3, 0), 0);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, UINT64_MAX, 0), 0);
	host_enable_event(&host, HYP_EVENT_ID_selftest, false);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, 4, 0), 0);
	assert_int_equal(host_entries(&host, 0), 0);
	assert_int_equal(host_read(&host, 1, events), 2);
	assert_int_equal(events[0].id, HYP_EVENT_ID_selftest);
	assert_int_equal(events[0].value, 3);
	assert_int_equal(events[1].value, UINT64_MAX);
}

static void test_hypercall_is_traced(void **state)
{
	static const struct {
		u16 id;
		u8 reason;
	} expected[] = {
		/* of the call that switched the events on: enter was too early */
		{ HYP_EVENT_ID_hyp_exit, HYP_REASON_ERET_HOST },
		{ HYP_EVENT_ID_hyp_enter, HYP_REASON_HVC },
		{ HYP_EVENT_ID_selftest, 0 },
		{ HYP_EVENT_ID_hyp_exit, HYP_REASON_ERET_HOST },
		{ HYP_EVENT_ID_hyp_enter, HYP_REASON_HVC }, /* an unknown call is a trap, too */
		{ HYP_EVENT_ID_hyp_exit, HYP_REASON_ERET_HOST },
		{ HYP_EVENT_ID_hyp_enter, HYP_REASON_HVC }, /* disables: no exit */
	};

	(void)state;
	assert_int_equal(host_load(&host), 0);
	host_enable_enter_exit(&host, true);
	host_enable_event(&host, HYP_EVENT_ID_selftest, true);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_ENABLE, true, 0), 0);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, 9, 0), 0);
	assert_int_equal(hvc(&host, 1, 1000, 0, 0), -EOPNOTSUPP);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_ENABLE, false, 0), 0);
	assert_int_equal(host_entries(&host, 0), 0);
	assert_int_equal(host_read(&host, 1, events), ARRAY_SIZE(expected));
	for (u32 i = 0; i < ARRAY_SIZE(expected); i++) {
		assert_int_equal(events[i].id, expected[i].id);
		assert_int_equal(events[i].reason, expected[i].reason);
		assert_int_equal(events[i].value, i == 2 ? 9 : 0);
	}
}

/* Event switches belong to the hypervisor, not to the buffer (SPEC C.7). */
static void test_event_switch_survives_unload(void **state)
{
	(void)state;
	host_enable_event(&host, HYP_EVENT_ID_selftest, true);
	start_tracing();
	assert_int_equal(hvc(&host, 0, HVC_TRACING_UNLOAD, 0, 0), 0);
	start_tracing();
	assert_int_equal(hvc(&host, 0, HVC_TRACING_WRITE_EVENT, 5, 0), 0);
	assert_int_equal(host_entries(&host, 0), 1);
}

static void test_reset_one_cpu(void **state)
{
	(void)state;
	host_enable_event(&host, HYP_EVENT_ID_selftest, true);
	start_tracing();
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++)
		assert_int_equal(hvc(&host, cpu, HVC_TRACING_WRITE_EVENT, cpu, 0), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_RESET, 1, 0), 0);
	assert_int_equal(host_entries(&host, 0), 1);
	assert_int_equal(host_entries(&host, 1), 0);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, 6, 0), 0);
	assert_int_equal(host_entries(&host, 1), 1); /* still enabled */
}

/* --- statistics ------------------------------------------------------------------------------------ */

static union {
	struct hyp_statistics_msg head;
	u64 words[HYP_MAX_STATISTICS / sizeof(u64)];
} statistics;

static void ask_statistics(void)
{
	assert_int_equal(hvc(&host, 0, HVC_TRACING_STATISTICS, (uintptr_t)&statistics, 0), 0);
	assert_int_equal(statistics.head.nr_cpus, NR_CPUS);
}

static const struct hyp_cpu_statistics_msg *cpu_statistics(u32 cpu)
{
	const struct hyp_result_statistics_msg *results = (void *)(&statistics.head + 1);

	return (const struct hyp_cpu_statistics_msg *)(results + statistics.head.nr_results) + cpu;
}

static u64 count_of(u32 call, u32 error)
{
	const struct hyp_result_statistics_msg *results = (void *)(&statistics.head + 1);

	for (u32 i = 0; i < statistics.head.nr_results; i++) {
		if (results[i].call == call && results[i].error == error)
			return results[i].count;
	}
	return 0;
}

static void test_results_are_counted(void **state)
{
	(void)state;
	expect_not_loaded();
	ask_statistics();
	assert_int_equal(count_of(HVC_TRACING_SWAP_READER, ENODEV), NR_CPUS);
	assert_int_equal(count_of(HVC_TRACING_SWAP_READER, 0), 0);
	assert_int_equal(count_of(HVC_TRACING_ENABLE, 0), 1);
	assert_int_equal(count_of(HVC_TRACING_ENABLE, EINVAL), 1);
	assert_int_equal(count_of(HVC_TRACING_STATISTICS, 0), 0);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_STATISTICS, 0, 0), -EINVAL);
	assert_int_equal(hvc(&host, 0, 1000, 0, 0), -EOPNOTSUPP);
	assert_int_equal(hvc(&host, NR_CPUS, HVC_TRACING_UNLOAD, 0, 0), -EOPNOTSUPP);
	ask_statistics();
	assert_int_equal(count_of(HVC_TRACING_STATISTICS, 0), 1);
	assert_int_equal(count_of(HVC_TRACING_STATISTICS, EINVAL), 1);
	assert_int_equal(statistics.head.unknown_calls, 2);
}

/* Their statistics would not fit a message. */
static void test_statistics_of_too_many_cpus(void **state)
{
	struct hvc_regs regs = { .x0 = HVC_TRACING_STATISTICS, .x1 = (uintptr_t)&statistics };
	struct hyp *hyp;

	(void)state;
	assert_int_equal(hyp_create(HYP_MAX_CPUS + 1, &hyp), 0);
	hyp_conduit(hyp)->hvc(hyp_conduit(hyp), 0, &regs);
	assert_int_equal(hvc_result(&regs), -E2BIG);
	hyp_destroy(hyp);
}

static void test_pages_shared_are_counted(void **state)
{
	u32 pages = NR_CPUS * (NR_PAGES + 1) + HOST_DESC_PAGES;

	(void)state;
	spoil_page_twice();
	assert_int_equal(host_load(&host), -EPERM);
	ask_statistics();
	assert_int_equal(statistics.head.pages_shared, 0);
	assert_int_equal(statistics.head.most_pages_shared, 0);
	make_desc(&host);
	assert_int_equal(host_load(&host), 0);
	ask_statistics();
	assert_int_equal(statistics.head.pages_shared, pages);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_UNLOAD, 0, 0), 0);
	ask_statistics();
	assert_int_equal(statistics.head.pages_shared, 0);
	assert_int_equal(statistics.head.most_pages_shared, pages);
}

static void expect_events(u64 written, u64 ever_written)
{
	ask_statistics();
	assert_int_equal(cpu_statistics(1)->written, written);
	assert_int_equal(cpu_statistics(1)->ever_written, ever_written);
	assert_int_equal(cpu_statistics(0)->ever_written, 0);
}

/* Over resets and loads, and whatever the host does to its own memory. */
static void test_events_are_counted(void **state)
{
	const struct hyp_cpu_statistics_msg *cpu;
	u64 overrun;

	(void)state;
	host_enable_event(&host, HYP_EVENT_ID_selftest, true);
	start_tracing();
	for (u32 i = 0; i < 1000; i++)
		assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, i, 0), 0);
	expect_events(1000, 1000);
	overrun = host_meta(&host, 1)->overrun;
	assert_true(overrun > 0);
	cpu = cpu_statistics(1);
	assert_int_equal(cpu->overrun, overrun);
	assert_int_equal(cpu->ever_overrun, overrun);
	assert_int_equal(cpu->dropped | cpu->ever_dropped, 0);

	memset(host.shared, 0xff, host.desc_va);
	expect_events(1000, 1000);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_RESET, 1, 0), 0);
	expect_events(0, 1000);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, 1, 0), 0);
	expect_events(1, 1001);
	assert_int_equal(hvc(&host, 0, HVC_TRACING_UNLOAD, 0, 0), 0);
	expect_events(0, 1001);
	start_tracing();
	expect_events(0, 1001);
	assert_int_equal(hvc(&host, 1, HVC_TRACING_WRITE_EVENT, 2, 0), 0);
	expect_events(1, 1002);
	assert_int_equal(cpu_statistics(1)->ever_overrun, overrun);
}

/* --- the clock ---------------------------------------------------------------------------------------- */

/* With a shift of 63 the counter does not count: time stands at the epoch. */
static void test_update_clock(void **state)
{
	static const struct {
		u64 mult, shift, epoch_ns, now;
	} cases[] = {
		{ 1, 63, 5000, 5000 },
		{ 0, 63, 6000, 5000 },		/* ignored: TRAP, divides by zero */
		{ 1ULL << 32, 63, 6000, 5000 }, /* a u32: 0 */
		{ 1, 64, 6000, 5000 },		/* ignored */
		{ 1, 63, 7000, 7000 },
		{ 1, 63, 8000, 8000 },
	};

	(void)state;
	host_enable_event(&host, HYP_EVENT_ID_selftest, true);
	start_tracing();
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(hvc4(&host, 0, HVC_TRACING_UPDATE_CLOCK, cases[i].mult,
				      cases[i].shift, cases[i].epoch_ns, 0), 0);
		assert_int_equal(hvc(&host, 0, HVC_TRACING_WRITE_EVENT, i, 0), 0);
	}
	assert_int_equal(host_read(&host, 0, events), ARRAY_SIZE(cases));
	for (u32 i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(events[i].time_stamp, cases[i].now);
}

static void test_create(void **state)
{
	struct hyp *hyp = NULL;

	(void)state;
	assert_int_equal(hyp_create(0, &hyp), -EINVAL);
	assert_null(hyp);
	hyp_destroy(NULL);
}

#define hypercall_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		hypercall_test(test_bad_loads),
		hypercall_test(test_load_less_cpus),
		hypercall_test(test_desc_is_copied),
		hypercall_test(test_load_clears_meta),
		hypercall_test(test_load_twice),
		hypercall_test(test_unknown_calls),
		hypercall_test(test_bad_physical_cpu),
		hypercall_test(test_bad_arguments),
		hypercall_test(test_write_event),
		hypercall_test(test_hypercall_is_traced),
		hypercall_test(test_event_switch_survives_unload),
		hypercall_test(test_reset_one_cpu),
		hypercall_test(test_results_are_counted),
		hypercall_test(test_pages_shared_are_counted),
		hypercall_test(test_events_are_counted),
		hypercall_test(test_update_clock),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_statistics_of_too_many_cpus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
