// SPDX-License-Identifier: Apache-2.0
/*
 * One ring behind plain functions, for tests/test_ring_oracle.py: it compiles this file
 * and ring.c into a shared object and calls that by ctypes. Single-threaded: when the
 * host's side waits for the writer, the writer goes on in `relax`.
 */
#include "ringbuf_c/ring.h"

#define SHIM_MAX_PAGES 8U

static _Alignas(RB_PAGE_SIZE) u8 shim_memory[(SHIM_MAX_PAGES + 1) * RB_PAGE_SIZE];
static struct simple_buffer_page records[SHIM_MAX_PAGES];
static struct simple_rb_per_cpu rb;

static u64 given_now(const void *clock)
{
	return *(const u64 *)clock;
}

static void no_membarrier(void)
{
}

/* Where in the memory the payload goes; -1: refused. */
s64 shim_reserve(u32 length, u64 now)
{
	u8 *payload = simple_ring_buffer_reserve(&rb, length, given_now, &now);

	return payload ? payload - shim_memory : -1;
}

void shim_commit(void)
{
	simple_ring_buffer_commit(&rb);
}

/* First an interrupt wants an event too; tracing is off, so nobody counts that. */
static void writer_goes_on(void)
{
	shim_reserve(0, 0);
	shim_commit();
}

/* The meta page, then SHIM_MAX_PAGES pages. The caller fills them. */
u8 *shim_setup(bool membarrier)
{
	rb = (struct simple_rb_per_cpu){
		.membarrier = membarrier ? no_membarrier : NULL,
		.relax = writer_goes_on,
	};
	return shim_memory;
}

u32 shim_memory_size(void)
{
	return sizeof(shim_memory);
}

/* As a loader does: records that say nothing but where the pages are. */
int shim_init(u32 nr_pages)
{
	if (!simple_rb_loaded(&rb)) {
		for (u32 i = 0; i < SHIM_MAX_PAGES; i++)
			records[i] = (struct simple_buffer_page){
				.page = (void *)(shim_memory + (i + 1) * RB_PAGE_SIZE),
			};
	}
	return simple_ring_buffer_init(&rb, records, nr_pages,
				       (struct trace_buffer_meta *)shim_memory);
}

void shim_unload(void)
{
	simple_ring_buffer_unload(&rb);
}

int shim_enable(bool enable)
{
	return simple_ring_buffer_enable_tracing(&rb, enable);
}

int shim_reset(void)
{
	return simple_ring_buffer_reset(&rb);
}

int shim_swap(void)
{
	return simple_ring_buffer_swap_reader_page(&rb);
}

u32 shim_status(void)
{
	return simple_ring_buffer_status(&rb);
}

/* What of the host's memory the ring still knows: nothing, or all of it. */
bool shim_knows_pages(void)
{
	return rb.bpages;
}

bool shim_knows_meta(void)
{
	return rb.meta;
}

u32 shim_nr_pages(void)
{
	return rb.nr_pages;
}
