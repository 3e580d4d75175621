// SPDX-License-Identifier: Apache-2.0
/*
 * Load: everything here comes from the host and is checked before it is used
 * (SPEC C.1). The descriptor lies in the memory object; it is copied first, so that it
 * cannot change while it is read: that is this model's donation. The object must be
 * sealed against resizing, so that it stays where it is mapped: that is its share and
 * pin. It must have all its pages. No page serves twice.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#define SEALS_NEEDED (F_SEAL_SHRINK | F_SEAL_GROW)
#define ST_BLOCK 512U /* bytes; inode(7) */
/* 64 GiB of data pages per CPU; also keeps sizes within 64 bits. */
#define MAX_PAGES_PER_CPU (1U << 24)

/* --- the shared memory ------------------------------------------------------------ */

static int map_shared(struct shared_memory *shared, int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS_NEEDED) != SEALS_NEEDED)
		return -EPERM;
	if (fstat(fd, &st) || st.st_size <= 0 || st.st_size % RB_PAGE_SIZE)
		return -EINVAL;
	/*
	 * Where it has holes, the first to write pays for the page, and is killed if there is
	 * none to be had: it is the host that shares its memory, not we ours.
	 */
	if ((u64)st.st_blocks * ST_BLOCK < (u64)st.st_size)
		return -EPERM;

	shared->size = (u64)st.st_size;
	shared->pinned = calloc(shared->size / RB_PAGE_SIZE, 1);
	if (!shared->pinned)
		return -ENOMEM;
	shared->base = mmap(NULL, shared->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (shared->base == MAP_FAILED) {
		shared->base = NULL;
		/* Opened or sealed so that nobody may write: no memory to be had. */
		return errno == EACCES ? -EPERM : -errno;
	}
	return 0;
}

static void unmap_shared(struct shared_memory *shared)
{
	if (shared->base)
		munmap(shared->base, shared->size);
	free(shared->pinned);
	*shared = (struct shared_memory){ 0 };
}

/* Our address of the host's page @va; NULL if it is no shared page, or pinned already. */
static void *pin_page(struct shared_memory *shared, u64 va)
{
	if (va % RB_PAGE_SIZE || va >= shared->size || shared->pinned[va / RB_PAGE_SIZE])
		return NULL;
	shared->pinned[va / RB_PAGE_SIZE] = 1;
	shared->nr_pinned++;
	return shared->base + va;
}

/* --- the descriptor ----------------------------------------------------------------- */

/* Records of a private, complete copy of the descriptor, in order. */
struct desc_walk {
	const struct hyp_trace_desc *desc;
	u64 size; /* of the copy */
	u64 next; /* offset in it of the next record */
};

/* The next record, wholly inside the descriptor; NULL if it is not. */
static const struct ring_buffer_desc *walk_next(struct desc_walk *walk)
{
	const struct ring_buffer_desc *record;
	u64 room = walk->size - walk->next;

	if (room < sizeof(*record))
		return NULL;
	record = (const void *)((const u8 *)walk->desc + walk->next);
	if (record->nr_page_va > MAX_PAGES_PER_CPU ||
	    ring_buffer_desc_size(record->nr_page_va) > room)
		return NULL;
	walk->next += ring_buffer_desc_size(record->nr_page_va);
	return record;
}

/* All pages of a CPU; the records of its data pages are filled. */
static int pin_cpu(struct shared_memory *shared, const struct ring_buffer_desc *record,
		   struct simple_buffer_page *bpages)
{
	if (!pin_page(shared, record->meta_va))
		return -EPERM;
	for (u32 i = 0; i < record->nr_page_va; i++) {
		bpages[i].page = pin_page(shared, record->page_va[i]);
		if (!bpages[i].page)
			return -EPERM;
	}
	return 0;
}

static bool record_makes_sense(const struct hyp *hyp, const struct ring_buffer_desc *record,
			       s32 cpu)
{
	return record && record->cpu == cpu &&
	       record->nr_page_va >= RB_MIN_PAGES + hyp->nr_spares;
}

/* One record after the other, as SPEC C.1 has it: what is wrong first is answered. */
static int pin_cpus(struct hyp *hyp, struct desc_walk walk)
{
	struct simple_buffer_page *bpages = hyp->bpages;
	s32 nr_cpus = walk.desc->trace_buffer_desc.nr_cpus;

	for (s32 cpu = 0; cpu < nr_cpus; cpu++) {
		const struct ring_buffer_desc *record = walk_next(&walk);
		int ret;

		if (!record_makes_sense(hyp, record, cpu))
			return -EINVAL;
		ret = pin_cpu(&hyp->shared, record, bpages);
		if (ret)
			return ret;
		bpages += record->nr_page_va;
	}
	return walk.next == walk.size ? 0 : -EINVAL;
}

static int load_cpus(struct hyp *hyp, struct desc_walk walk)
{
	struct simple_buffer_page *bpages = hyp->bpages;
	s32 nr_cpus = walk.desc->trace_buffer_desc.nr_cpus;

	for (s32 cpu = 0; cpu < nr_cpus; cpu++) {
		const struct ring_buffer_desc *record = walk_next(&walk);
		struct trace_buffer_meta *meta = (void *)(hyp->shared.base + record->meta_va);
		struct simple_rb_per_cpu *rb = &hyp->pcpus[cpu].trace.rb;
		int ret;

		memset(meta, 0, sizeof(*meta));
		ret = simple_ring_buffer_init(rb, bpages, record->nr_page_va - hyp->nr_spares, meta);
		if (!ret)
			ret = simple_ring_buffer_add_spares(rb, hyp->nr_spares);
		if (ret)
			return ret;
		bpages += record->nr_page_va;
	}
	return 0;
}

static bool head_makes_sense(const struct hyp *hyp, const struct hyp_trace_desc *desc)
{
	s32 nr_cpus = desc->trace_buffer_desc.nr_cpus;

	/* The records come from our own memory (SPEC A.3, ML+). */
	return !desc->bpages_backing_start && !desc->bpages_backing_size && nr_cpus >= 1 &&
	       (u32)nr_cpus <= hyp->nr_cpus;
}

/* @size is what the descriptor says of itself, and at least its head. */
static int load_desc(struct hyp *hyp, const struct hyp_trace_desc *desc, u64 size)
{
	struct desc_walk walk = { .desc = desc, .size = size, .next = sizeof(*desc) };
	int ret;

	if (!head_makes_sense(hyp, desc))
		return -EINVAL;
	/* No more pages than the numbers that there is room for. */
	hyp->bpages = calloc(size / sizeof(u64), sizeof(*hyp->bpages));
	if (!hyp->bpages)
		return -ENOMEM;
	/* Nothing is written before all of it is known to be ours. */
	ret = pin_cpus(hyp, walk);
	return ret ? ret : load_cpus(hyp, walk);
}

/* Nobody may use the pages of the descriptor for anything else. They are the first to be pinned. */
static int pin_desc(struct shared_memory *shared, u64 va, u64 size)
{
	if (va > shared->size || size > shared->size - va)
		return -EPERM;
	for (u64 offset = 0; offset < size; offset += RB_PAGE_SIZE)
		pin_page(shared, va + offset);
	return 0;
}

/* No page serves twice: the records cannot be longer than one number for each page. */
static u64 longest_desc(const struct hyp *hyp)
{
	return sizeof(struct hyp_trace_desc) + hyp->nr_cpus * sizeof(struct ring_buffer_desc) +
	       hyp->shared.size / RB_PAGE_SIZE * sizeof(u64);
}

/* What is copied is what the descriptor says of itself, once, and not all that is there. */
static int copy_and_load(struct hyp *hyp, u64 desc_va, u64 desc_size)
{
	const void *there = hyp->shared.base + desc_va;
	struct hyp_trace_desc head, *copy;
	u64 size;
	int ret;

	memcpy(&head, there, sizeof(head));
	size = offsetof(struct hyp_trace_desc, trace_buffer_desc) + head.trace_buffer_desc.struct_len;
	if (head.trace_buffer_desc.struct_len > desc_size || size < sizeof(head) ||
	    size > desc_size || size > longest_desc(hyp))
		return -EINVAL;
	copy = malloc(size);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, there, size);
	*copy = head;
	ret = load_desc(hyp, copy, size);
	free(copy);
	return ret;
}

static void note_most_shared(struct hyp *hyp)
{
	if (hyp->shared.nr_pinned > hyp->counters.most_pages_shared)
		hyp->counters.most_pages_shared = hyp->shared.nr_pinned;
}

/* SPEC C.1, 2: the host cannot use the descriptor for anything else. */
static int take_desc(struct shared_memory *shared, u64 desc_va, u64 desc_size, int memory_fd)
{
	int ret;

	if (!desc_size || desc_size % RB_PAGE_SIZE || desc_va % RB_PAGE_SIZE)
		return -EINVAL;
	ret = map_shared(shared, memory_fd);
	return ret ? ret : pin_desc(shared, desc_va, desc_size);
}

int hyp_load(struct hyp *hyp, u64 desc_va, u64 desc_size, int memory_fd, u64 nr_spares)
{
	struct shared_memory shared = { 0 };
	int ret = take_desc(&shared, desc_va, desc_size, memory_fd);

	if (!ret && hyp_loaded(hyp))
		ret = -EBUSY;
	if (!ret && nr_spares > RB_MAX_TAKEN - 1)
		ret = -EINVAL;
	if (ret) {
		unmap_shared(&shared);
		return ret;
	}
	hyp->shared = shared;
	hyp->nr_spares = (u32)nr_spares;
	ret = copy_and_load(hyp, desc_va, desc_size);
	if (ret)
		hyp_unload(hyp);
	else
		note_most_shared(hyp);
	return ret;
}

void hyp_unload(struct hyp *hyp)
{
	for (u32 cpu = 0; cpu < hyp->nr_cpus; cpu++)
		simple_ring_buffer_unload(&hyp->pcpus[cpu].trace.rb);
	free(hyp->bpages);
	hyp->bpages = NULL;
	unmap_shared(&hyp->shared);
}
