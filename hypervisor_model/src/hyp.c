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

static int init_locks(struct hyp *hyp)
{
	int ret = pthread_mutex_init(&hyp->lock, NULL);

	if (!ret)
		ret = pthread_mutex_init(&hyp->park_lock, NULL);
	if (!ret)
		ret = pthread_cond_init(&hyp->unpark, NULL);
	return -ret;
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
	hyp->doorbell.fd = -1;
	hyp->conduit.hvc = hyp_hvc;
	hyp->membarrier = register_membarrier();

	ret = init_locks(hyp);
	if (!ret)
		ret = init_pcpus(hyp);
	if (ret)
		hyp_destroy(hyp);
	else
		*out = hyp;
	return ret;
}

/* A CPU to which a script or a program may be given; NULL if there is none. */
static struct pcpu *still_pcpu(struct hyp *hyp, u32 cpu)
{
	return cpu < hyp->nr_cpus && !hyp->pcpus[cpu].running ? &hyp->pcpus[cpu] : NULL;
}

int hyp_set_script(struct hyp *hyp, u32 cpu, const struct pcpu_step *steps, u32 nr_steps,
		   u64 period)
{
	struct pcpu *pcpu = still_pcpu(hyp, cpu);
	struct pcpu_step *copy;

	if (!pcpu || pcpu->program || !steps_valid(steps, nr_steps, period))
		return -EINVAL;
	copy = calloc(nr_steps ? nr_steps : 1, sizeof(*steps));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, steps, nr_steps * sizeof(*steps));
	free(pcpu->script);
	pcpu->script = copy;
	pcpu->turn = (struct pcpu_turn){ .steps = copy, .nr_steps = nr_steps, .period = period };
	pcpu->events = steps_events(copy, nr_steps);
	return 0;
}

int hyp_run_program(struct hyp *hyp, u32 cpu, enum hyp_program program, u32 nr_vcpus, u64 seed)
{
	struct pcpu *pcpu = still_pcpu(hyp, cpu);

	if (!pcpu || pcpu->program || pcpu->script || !nr_vcpus)
		return -EINVAL;
	if (program_has_faults(program) && pcpu_give_counter(pcpu))
		return -ENOMEM;
	pcpu->program = program_create(program, cpu, nr_vcpus, seed);
	if (!pcpu->program)
		return -ENOMEM;
	pcpu->events = program_events(program);
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
	hyp_doorbell_remove(hyp);
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
