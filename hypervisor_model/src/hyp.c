// SPDX-License-Identifier: Apache-2.0
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

/* Every thread of this process that runs on another CPU passes a full barrier. */
static void membarrier_expedited(void)
{
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

/* Once registered it cannot fail. NULL: an old kernel, or a sandbox that forbids it. */
static void (*register_membarrier(void))(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
		return NULL;
	return membarrier_expedited;
}

static int init_pcpus(struct hyp *hyp)
{
	for (u32 nr = 0; nr < hyp->nr_cpus; nr++) {
		int ret = pcpu_init(&hyp->pcpus[nr], hyp, nr);

		if (ret)
			return ret;
	}
	return 0;
}

int hyp_create(u32 nr_cpus, struct hyp **out)
{
	size_t size = nr_cpus * sizeof(struct pcpu);
	struct hyp *hyp;
	int ret;

	if (!nr_cpus)
		return -EINVAL;
	hyp = calloc(1, sizeof(*hyp));
	if (!hyp)
		return -ENOMEM;
	hyp->pcpus = aligned_alloc(_Alignof(struct pcpu), size);
	if (!hyp->pcpus) {
		free(hyp);
		return -ENOMEM;
	}
	memset(hyp->pcpus, 0, size);
	hyp->nr_cpus = nr_cpus;
	hyp->conduit.hvc = hyp_hvc;
	hyp->membarrier = register_membarrier();
	pthread_mutex_init(&hyp->lock, NULL);
	pthread_mutex_init(&hyp->park_lock, NULL);
	pthread_cond_init(&hyp->unpark, NULL);

	ret = init_pcpus(hyp);
	if (ret)
		hyp_destroy(hyp);
	else
		*out = hyp;
	return ret;
}

static bool valid_script(const struct pcpu_step *steps, u32 nr_steps, u64 period)
{
	const struct pcpu_step *last = steps + nr_steps - 1;

	for (u32 i = 0; i < nr_steps; i++) {
		/* enter, exit, enter, exit, ... */
		if (steps[i].enter == i % 2 || (i && steps[i].at < steps[i - 1].at))
			return false;
	}
	return !nr_steps || (last->at - steps[0].at < period && !last->enter &&
			     last->reason == HYP_REASON_ERET_HOST);
}

int hyp_set_script(struct hyp *hyp, u32 cpu, const struct pcpu_step *steps, u32 nr_steps,
		   u64 period)
{
	struct pcpu *pcpu;
	struct pcpu_step *copy;

	if (cpu >= hyp->nr_cpus || !valid_script(steps, nr_steps, period))
		return -EINVAL;
	pcpu = &hyp->pcpus[cpu];
	if (pcpu->running)
		return -EINVAL;
	copy = calloc(nr_steps ? nr_steps : 1, sizeof(*steps));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, steps, nr_steps * sizeof(*steps));
	free(pcpu->steps);
	pcpu->steps = copy;
	pcpu->nr_steps = nr_steps;
	pcpu->period = period;
	return 0;
}

static void stop_pcpus(struct hyp *hyp)
{
	for (u32 nr = 0; nr < hyp->nr_cpus; nr++)
		pcpu_stop(&hyp->pcpus[nr]);
}

int hyp_start(struct hyp *hyp)
{
	for (u32 nr = 0; nr < hyp->nr_cpus; nr++) {
		int ret = pcpu_start(&hyp->pcpus[nr]);

		if (ret) {
			stop_pcpus(hyp);
			return ret;
		}
	}
	return 0;
}

void hyp_destroy(struct hyp *hyp)
{
	if (!hyp)
		return;
	stop_pcpus(hyp);
	hyp_unload(hyp);
	for (u32 nr = 0; nr < hyp->nr_cpus; nr++)
		pcpu_deinit(&hyp->pcpus[nr]);
	pthread_mutex_destroy(&hyp->lock);
	pthread_mutex_destroy(&hyp->park_lock);
	pthread_cond_destroy(&hyp->unpark);
	free(hyp->pcpus);
	free(hyp);
}

struct hvc_conduit *hyp_conduit(struct hyp *hyp)
{
	return &hyp->conduit;
}

u32 hyp_nr_cpus(const struct hyp *hyp)
{
	return hyp->nr_cpus;
}

const char *hyp_writer_ordering(const struct hyp *hyp)
{
	return hyp->membarrier ? "membarrier" : "cmpxchg";
}
