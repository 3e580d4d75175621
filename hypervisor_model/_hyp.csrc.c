#include "hypervisor_model/hyp.h"
#include "hypervisor_model/remote_test.h"
#include "ringbuf_c/define_events.h"

/* The conduit crosses from our module to the host's as a number. */
static uintptr_t hyp_conduit_address(struct hyp *hyp)
{
	return (uintptr_t)hyp_conduit(hyp);
}
