#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hypervisor_model/protocol.h"
#include "pipe.h"
#include "ringbuf_c/clock.h"
#include "ringbuf_c/dump.h"
#include "ringbuf_c/hypercalls.h"
#include "ringbuf_c/reader.h"

static int hvc_call(uintptr_t conduit, uint32_t cpu, uint64_t nr, const uint64_t args[4])
{
	struct hvc_conduit *to = (struct hvc_conduit *)conduit;
	struct hvc_regs regs = { nr, args[0], args[1], args[2], args[3] };

	to->hvc(to, cpu, &regs);
	return hvc_result(&regs);
}

/* A snapshot takes so many tries, and more of them until one is good enough. */
#define SNAPSHOT_MIN_TRIES 8
#define SNAPSHOT_MAX_TRIES 64
#define SNAPSHOT_GOOD_NS 100

struct clock_instant {
	uint64_t boot_ns;
	uint64_t cycles;
	uint64_t error_ns; /* boot_ns is off by at most this much */
};

static uint64_t ns_of(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

/* Reading the CPU's counter waits for nothing and nothing waits for it: keep it in its place. */
static void serialize(void)
{
#if defined(__x86_64__)
	__builtin_ia32_lfence();
#else
	__asm__ volatile("isb" ::: "memory");
#endif
}

static uint64_t cpu_counter(void)
{
	uint64_t cycles;

	serialize();
	cycles = trace_counter();
	serialize();
	return cycles;
}

static uint64_t monotonic_raw(void)
{
	return ns_of(CLOCK_MONOTONIC_RAW);
}

/*
 * The counter was read between two readings of the boot clock: in the middle, or so. (The
 * other way round the bracket would be in cycles, of which nobody knows yet how long they are.)
 */
static struct clock_instant bracket(uint64_t (*read_counter)(void))
{
	uint64_t before = ns_of(CLOCK_BOOTTIME);
	uint64_t cycles = read_counter();
	/* a reading of n ns was made before n + 1 */
	uint64_t width = ns_of(CLOCK_BOOTTIME) + 1 - before;

	return (struct clock_instant){ before + width / 2, cycles, (width + 1) / 2 };
}

static bool good_enough(const struct clock_instant *best, int tries)
{
	return tries >= SNAPSHOT_MAX_TRIES ||
	       (tries >= SNAPSHOT_MIN_TRIES && best->error_ns <= SNAPSHOT_GOOD_NS);
}

/* The tightest of several: an interrupt or another thread may come into any of them. */
static struct clock_instant tightest(uint64_t (*read_counter)(void))
{
	struct clock_instant best = bracket(read_counter);

	for (int tries = 1; !good_enough(&best, tries); tries++) {
		struct clock_instant next = bracket(read_counter);

		if (next.error_ns < best.error_ns)
			best = next;
	}
	return best;
}

/* One instant on both clocks. Returns 0, or -EINVAL for a counter that is not known. */
static int clock_snapshot(uint32_t counter, struct clock_instant *instant)
{
	switch (counter) {
	case HYP_COUNTER_CPU:
		*instant = tightest(cpu_counter);
		return 0;
	case HYP_COUNTER_MONOTONIC_RAW:
		*instant = tightest(monotonic_raw);
		return 0;
	}
	return -EINVAL;
}

/* --- pipes: what is read without Python --------------------------------------------------- */

/* The buffer that there is. One for each remote, and outlives its open files. */
struct buffer_slot {
	struct reader *reader; /* NULL: nothing is loaded */
	uint8_t *out;          /* room for what one read gives */
	uint32_t room;
};

/* Who writes it, and when that is looked for. */
struct buffer_source {
	struct event_source events; /* first: a source is this */
	const struct buffer_slot *slot;
};

/* Nothing to read, while nothing is loaded. */
static uint64_t unread(struct event_source *events, uint32_t cpu)
{
	struct reader *reader = ((struct buffer_source *)events)->slot->reader;

	return reader && reader_poll(reader) ? reader_unread(reader, cpu) : 0;
}

static bool unfinished(struct event_source *events)
{
	const struct reader *reader = ((struct buffer_source *)events)->slot->reader;

	return reader && reader_unfinished(reader);
}

static int arm(struct event_source *events, uint32_t cpu)
{
	const struct reader *reader = ((struct buffer_source *)events)->slot->reader;
	uint64_t cpus = cpu == PIPE_ALL_CPUS ? HYP_DOORBELL_ALL : cpu;
	uint64_t args[4] = { HYP_DOORBELL_ARM, cpus };

	return reader ? hvc_call((uintptr_t)reader->conduit, reader->hvc_cpu, HVC_TRACING_DOORBELL,
				 args) : 0;
}

static void source_init(struct buffer_source *source)
{
	source->events.unread = unread;
	source->events.unfinished = unfinished;
	source->events.arm = arm;
	source->events.alive_fd = source->events.bell_fd = -1;
}

/* Whether there is a pump that waits for it. */
static bool source_attended(const struct buffer_source *source)
{
	return source->events.changed != NULL;
}

/* Of what the pump is to do. */
static void source_changed(struct buffer_source *source)
{
	if (source->events.changed)
		source->events.changed(&source->events);
}

/*
 * Pages that a sendfile takes at once (those of a pipe). It steps back over what it could not
 * pass on, and may find that the kernel has dropped it from the page cache meanwhile.
 */
#define SPLICE_STEPS_BACK 16

struct spliced_page {
	uint64_t offset; /* where the splice asked */
	uint8_t bytes[RB_PAGE_SIZE];
};

struct buffer_pipe {
	struct pipe_end end; /* first: a pipe is this */
	const struct buffer_slot *slot;
	uint32_t cpu;
	struct reader_carry *carry;
	struct spliced_page *spliced; /* the last SPLICE_STEPS_BACK, or NULL */
	uint64_t nr_spliced;
};

static uint32_t take_text(struct pipe_end *end, const uint8_t **data, uint32_t size)
{
	const struct buffer_pipe *pipe = (const struct buffer_pipe *)end;
	const struct buffer_slot *slot = pipe->slot;

	*data = slot->out;
	return slot->reader ? reader_text(slot->reader, pipe->cpu, pipe->carry, (char *)slot->out,
					  size < slot->room ? size : slot->room) : 0;
}

static uint32_t take_raw(struct pipe_end *end, const uint8_t **data, uint32_t size)
{
	const struct buffer_pipe *pipe = (const struct buffer_pipe *)end;
	const struct buffer_slot *slot = pipe->slot;

	*data = slot->out;
	return slot->reader ? reader_raw(slot->reader, pipe->cpu, pipe->carry, slot->out,
					 size < slot->room ? size : slot->room) : 0;
}

/*
 * The page cache takes whole pages, or it believes that the file ends. Text does not come in
 * pages. In the kernel it is EINVAL, too, and tools fall back to read.
 */
static int cache_text(struct pipe_end *end, const uint8_t **data, uint32_t size, uint64_t offset)
{
	(void)end, (void)data, (void)size, (void)offset;
	return -EINVAL;
}

static struct spliced_page *spliced_at(const struct buffer_pipe *pipe, uint64_t offset)
{
	uint64_t nr = pipe->nr_spliced < SPLICE_STEPS_BACK ? pipe->nr_spliced : SPLICE_STEPS_BACK;

	for (uint64_t i = 0; i < nr; i++) {
		if (pipe->spliced[i].offset == offset)
			return &pipe->spliced[i];
	}
	return NULL;
}

/* The place for another page, that of the one of longest ago; NULL: no memory. */
static struct spliced_page *next_spliced(struct buffer_pipe *pipe)
{
	if (!pipe->spliced)
		pipe->spliced = calloc(SPLICE_STEPS_BACK, sizeof(*pipe->spliced));
	return pipe->spliced ? &pipe->spliced[pipe->nr_spliced % SPLICE_STEPS_BACK] : NULL;
}

/* Whether a splice has gone on from @offset long ago. */
static bool is_behind(const struct buffer_pipe *pipe, uint64_t offset)
{
	return pipe->nr_spliced &&
	       offset < pipe->spliced[(pipe->nr_spliced - 1) % SPLICE_STEPS_BACK].offset;
}

static int next_page(struct buffer_pipe *pipe, uint64_t offset, struct spliced_page **page)
{
	const uint8_t *image;

	if (is_behind(pipe, offset))
		return -EIO;
	if (pipe->carry->offset < pipe->carry->length)
		return -EINVAL; /* after read() of a part of a page: read the rest */
	*page = next_spliced(pipe);
	if (!*page)
		return -ENOMEM;
	if (!take_raw(&pipe->end, &image, RB_PAGE_SIZE))
		return -EAGAIN;
	memcpy((*page)->bytes, image, RB_PAGE_SIZE);
	(*page)->offset = offset;
	pipe->nr_spliced++;
	return 0;
}

/* The next page for an offset that was never asked for. More at once is reading ahead. */
static int cache_raw(struct pipe_end *end, const uint8_t **data, uint32_t size, uint64_t offset)
{
	struct buffer_pipe *pipe = (struct buffer_pipe *)end;
	struct spliced_page *page = spliced_at(pipe, offset);
	int error = 0;

	if (size != RB_PAGE_SIZE)
		return -EAGAIN;
	if (!page)
		error = next_page(pipe, offset, &page);
	if (error)
		return error;
	*data = page->bytes;
	return RB_PAGE_SIZE;
}

/* For Python. */
static int pipe_cache(struct buffer_pipe *pipe, uint32_t size, uint64_t offset,
		      const uint8_t **data)
{
	return pipe->end.cache(&pipe->end, data, size, offset);
}

static void pipe_end(struct buffer_pipe *pipe)
{
	free(pipe->spliced);
}

static void pipe_init(struct buffer_pipe *pipe, struct buffer_source *source, bool raw)
{
	pipe->end.take = raw ? take_raw : take_text;
	pipe->end.cache = raw ? cache_raw : cache_text;
	pipe->end.source = &source->events;
	pipe->end.cpu = pipe->cpu;
}
