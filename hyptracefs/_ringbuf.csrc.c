#include <time.h>

#include "ringbuf_c/clock.h"
#include "ringbuf_c/hypercalls.h"
#include "ringbuf_c/reader.h"

static int hvc_call(uintptr_t conduit, uint32_t cpu, uint64_t nr, const uint64_t args[4])
{
	struct hvc_conduit *to = (struct hvc_conduit *)conduit;
	struct hvc_regs regs = { nr, args[0], args[1], args[2], args[3] };

	to->hvc(to, cpu, &regs);
	return hvc_result(&regs);
}

static uint64_t boot_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

/*
 * One instant on both clocks: of some tries the one in which reading the boot clock
 * took the fewest cycles, its counter value taken in the middle.
 */
static void clock_snapshot(uint64_t *boot_ns, uint64_t *cycles)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 8; i++) {
		uint64_t before = trace_counter();
		uint64_t now = boot_now();
		uint64_t took = trace_counter() - before;

		if (took >= best)
			continue;
		best = took;
		*boot_ns = now;
		*cycles = before + took / 2;
	}
}
