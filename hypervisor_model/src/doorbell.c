// SPDX-License-Identifier: Apache-2.0
/*
 * The doorbell: who waits for events asks to be told of the next one, once (PROTOCOL.md).
 *
 * The words that say so are the hypervisor's own, one for each ring, beside what its writer
 * touches anyway. The host has given a socket and nothing else: no page of its own has to be
 * believed, and no flag of a file that it shares with us. A datagram is sent without waiting,
 * whatever the host has done to the socket; one that does not fit would follow others that
 * have not been heard yet.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

static struct hyp *hyp_of(struct simple_rb_per_cpu *rb)
{
	return ((struct pcpu *)((u8 *)rb - offsetof(struct pcpu, trace.rb)))->hyp;
}

/*
 * Of the writers that were armed together, the first one rings.
 *
 * The ring has been disarmed before. So who arms at the same time comes later than this
 * exchange, and than that: or its own exchange has been earlier, and is why this one rings.
 */
void doorbell_ring(struct simple_rb_per_cpu *rb)
{
	struct doorbell *doorbell = &hyp_of(rb)->doorbell;

	/* [rung] against [arm_any] */
	if (xchg(&doorbell->armed, 0))
		send(doorbell->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int socket_option(int fd, int option)
{
	socklen_t size = sizeof(int);
	int value;

	return getsockopt(fd, SOL_SOCKET, option, &value, &size) ? -errno : value;
}

/* Of other kinds, not all would neither wait nor reach somebody else. */
static bool is_doorbell(int fd)
{
	return socket_option(fd, SO_DOMAIN) == AF_UNIX &&
	       socket_option(fd, SO_TYPE) == SOCK_SEQPACKET;
}

bool hyp_has_doorbell(const struct hyp *hyp)
{
	return hyp->membarrier;
}

int hyp_doorbell_hang(struct hyp *hyp, int fd)
{
	int own;

	if (!hyp_has_doorbell(hyp))
		return -EOPNOTSUPP;
	if (!is_doorbell(fd))
		return -EPERM;
	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return -errno;
	hyp_doorbell_remove(hyp);
	hyp->doorbell.fd = own;
	return 0;
}

void hyp_doorbell_remove(struct hyp *hyp)
{
	if (hyp->doorbell.fd < 0)
		return;
	for (u32 cpu = 0; cpu < hyp->nr_cpus; cpu++)
		simple_ring_buffer_disarm(&hyp->pcpus[cpu].trace.rb);
	xchg(&hyp->doorbell.armed, 0);
	hyp_wait_for_writers(hyp); /* that are about to ring */
	close(hyp->doorbell.fd);
	hyp->doorbell.fd = -1;
}

int hyp_doorbell_arm(struct hyp *hyp, u64 cpu)
{
	if (hyp->doorbell.fd < 0)
		return -ENODEV;
	if (cpu >= hyp->nr_cpus && cpu != HYP_DOORBELL_ALL)
		return -EINVAL;
	/* [arm_any] against [rung]; before [arm] */
	xchg(&hyp->doorbell.armed, 1);
	for (u32 each = 0; each < hyp->nr_cpus; each++) {
		if (cpu == HYP_DOORBELL_ALL || cpu == each)
			simple_ring_buffer_arm(&hyp->pcpus[each].trace.rb);
	}
	/* [membarrier_arm] pairs with [see_armed]: what did not see it, the host will see */
	hyp->membarrier();
	return 0;
}
