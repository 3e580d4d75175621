// SPDX-License-Identifier: Apache-2.0
/* Physical CPUs: a thread each that plays a script or runs a program, turn by turn. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "internal.h"

/* Shorter waits than this are spun: sleeping would take longer, and blur the pace. */
#define SPIN_NS 20000U
/* A step that is later than this, or than so many turns, moves all that follow. */
#define MAX_DELAY_NS 10000000U
#define MAX_DELAY_TURNS 8

static bool stopping(struct pcpu *pcpu)
{
	return READ_ONCE(pcpu->stop);
}

/* pairs with the release in pcpu_give_back() */
static bool wanted(struct pcpu *pcpu)
{
	return smp_load_acquire(&pcpu->wanted);
}

/* --- hypercalls borrow the CPU -------------------------------------------------- */

void pcpu_borrow(struct pcpu *pcpu)
{
	__atomic_fetch_add(&pcpu->wanted, 1, __ATOMIC_ACQ_REL);
	pthread_mutex_lock(&pcpu->lock);
	pthread_cond_signal(&pcpu->kick);
	while (pcpu->away && !stopping(pcpu))
		pthread_cond_wait(&pcpu->in_host, &pcpu->lock);
}

void pcpu_give_back(struct pcpu *pcpu)
{
	__atomic_fetch_sub(&pcpu->wanted, 1, __ATOMIC_ACQ_REL);
	pthread_cond_signal(&pcpu->kick);
	pthread_mutex_unlock(&pcpu->lock);
}

/* --- a counter that is wrong ------------------------------------------------------- */

/* The host has said anew how to convert it. */
static void follow_clock(struct pcpu *pcpu)
{
	struct hyp *hyp = pcpu->hyp;

	pthread_mutex_lock(&hyp->lock);
	counter_follow(pcpu->counter, &hyp->clock, trace_counter());
	pcpu->counter->updates = hyp->clock_updates;
	pthread_mutex_unlock(&hyp->lock);
}

void pcpu_look_at_counter(struct pcpu *pcpu)
{
	if (!pcpu->counter)
		return;
	if (READ_ONCE(pcpu->hyp->clock_updates) != pcpu->counter->updates)
		follow_clock(pcpu);
	counter_look(pcpu->counter, trace_counter());
}

/* Before step @step of the turn: what its counter does from then on. */
static void play_fault(struct pcpu *pcpu, u32 step)
{
	const struct pcpu_turn *turn = &pcpu->turn;

	pcpu_look_at_counter(pcpu);
	if (turn->faults && turn->fault_step == step)
		counter_begin(pcpu->counter, turn->fault, trace_counter());
}

/* --- parking: no script runs while nothing of it could be recorded ----------------- */

static bool records_script(const struct pcpu *pcpu)
{
	const u32 *enabled = pcpu->hyp->enabled;

	if (simple_ring_buffer_status(&pcpu->trace.rb) == SIMPLE_RB_UNAVAILABLE)
		return false;
	for (u32 event = 0; event < HYP_NR_EVENTS; event++) {
		if (pcpu->events >> event & 1 && READ_ONCE(enabled[event]))
			return true;
	}
	return false;
}

void hyp_restart_scripts(struct hyp *hyp)
{
	__atomic_fetch_add(&hyp->generation, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&hyp->park_lock);
	pthread_cond_broadcast(&hyp->unpark);
	pthread_mutex_unlock(&hyp->park_lock);
	/*
	 * Without their locks, which a playing CPU may hold for long. One that is just
	 * going to sleep misses it, and notices when it wakes up for its next step.
	 */
	for (u32 nr = 0; nr < hyp->nr_cpus; nr++)
		pthread_cond_signal(&hyp->pcpus[nr].kick);
}

/* Returns the generation for which it is true that there is something to record. */
static u32 park(struct pcpu *pcpu)
{
	struct hyp *hyp = pcpu->hyp;
	u32 generation;

	pthread_mutex_unlock(&pcpu->lock);
	pthread_mutex_lock(&hyp->park_lock);
	for (;;) {
		generation = READ_ONCE(hyp->generation);
		if (stopping(pcpu) || records_script(pcpu))
			break;
		pthread_cond_wait(&hyp->unpark, &hyp->park_lock);
	}
	pthread_mutex_unlock(&hyp->park_lock);
	pthread_mutex_lock(&pcpu->lock);
	return generation;
}

/* --- the script --------------------------------------------------------------------- */

static void sleep_until(struct pcpu *pcpu, u64 due)
{
	struct timespec at = {
		.tv_sec = (time_t)(due / NSEC_PER_SEC),
		.tv_nsec = (long)(due % NSEC_PER_SEC),
	};

	pthread_cond_timedwait(&pcpu->kick, &pcpu->lock, &at);
}

/* In the host a script can be broken off; away, only the end of all breaks it off. */
static bool interrupted(struct pcpu *pcpu, u32 generation)
{
	return stopping(pcpu) ||
	       (!pcpu->away && READ_ONCE(pcpu->hyp->generation) != generation);
}

/* When the turn began; and the time when it was last looked at, which costs something. */
struct pace {
	u64 start;
	u64 now;
};

/*
 * Wait for the next step. A CPU in the host gives way to hypercalls meanwhile; one
 * that is away and wanted hurries back instead of keeping its pace.
 */
static void wait_for_step(struct pcpu *pcpu, struct pace *pace, u64 due, u32 generation)
{
	while (!interrupted(pcpu, generation)) {
		if (wanted(pcpu)) {
			if (pcpu->away)
				return;
			pthread_cond_wait(&pcpu->kick, &pcpu->lock);
			continue;
		}
		if (pace->now >= due)
			return;
		pace->now = monotonic_ns();
		if (pace->now < due && due - pace->now > SPIN_NS)
			sleep_until(pcpu, due - SPIN_NS / 2);
	}
}

/* The event of the step, and where the CPU is then. */
static void play_step(struct pcpu *pcpu, const struct pcpu_step *step)
{
	take_step(&pcpu->trace, step);
	if (step_enters(step)) {
		pcpu->away = true;
	} else if (step_leaves_to_host(step)) {
		pcpu->away = false;
		pthread_cond_broadcast(&pcpu->in_host);
	}
}

static u64 most_delay(u64 period)
{
	return period < MAX_DELAY_NS / MAX_DELAY_TURNS ? period * MAX_DELAY_TURNS : MAX_DELAY_NS;
}

/*
 * After a long delay (a stopped process, a starved thread) the script goes on at its own
 * pace, later; to catch up would be a burst that nobody recorded, and that overruns a small
 * buffer whoever reads it.
 */
static void forget_delay(struct pace *pace, u64 due, u64 period)
{
	if (pace->now > due + most_delay(period))
		pace->start += pace->now - due;
}

/* One turn; false when it was cut short, in the host if not stopping. */
static bool play_turn(struct pcpu *pcpu, struct pace *pace, u32 generation)
{
	const struct pcpu_turn *turn = &pcpu->turn;

	for (u32 i = 0; i < turn->nr_steps; i++) {
		u64 due = pace->start + turn->steps[i].at;

		wait_for_step(pcpu, pace, due, generation);
		if (interrupted(pcpu, generation))
			return false;
		forget_delay(pace, due, turn->period);
		if (pcpu->counter)
			play_fault(pcpu, i);
		play_step(pcpu, &turn->steps[i]);
	}
	pace->start += turn->period;
	return true;
}

/* Turn after turn, from the first one on, until there is nothing to record. */
static void play(struct pcpu *pcpu, u32 generation)
{
	u64 now = monotonic_ns();
	struct pace pace = { .start = now, .now = now };

	if (pcpu->program)
		program_restart(pcpu->program);
	do {
		if (pcpu->program)
			program_next(pcpu->program, &pcpu->turn);
	} while (!stopping(pcpu) && play_turn(pcpu, &pace, generation));
	if (pcpu->counter) /* nobody looks at it for a while */
		counter_begin(pcpu->counter, (struct counter_fault){ COUNTER_RIGHT, 0 },
			      trace_counter());
}

static void *pcpu_run(void *arg)
{
	struct pcpu *pcpu = arg;

	prctl(PR_SET_TIMERSLACK, 1UL);
	pthread_mutex_lock(&pcpu->lock);
	while (!stopping(pcpu)) {
		u32 generation = park(pcpu);

		play(pcpu, generation);
	}
	pcpu->away = false;
	pthread_cond_broadcast(&pcpu->in_host);
	pthread_mutex_unlock(&pcpu->lock);
	return NULL;
}

/* --- life ---------------------------------------------------------------------------- */

static void relax(void)
{
	sched_yield();
}

static int init_monotonic_cond(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	int ret = pthread_condattr_init(&attr);

	if (ret)
		return -ret;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	ret = pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
	return -ret;
}

int pcpu_init(struct pcpu *pcpu, struct hyp *hyp, u32 nr)
{
	int ret;

	pcpu->hyp = hyp;
	pcpu->nr = nr;
	pcpu->trace.clock = &hyp->clock;
	pcpu->trace.enabled = hyp->enabled;
	pcpu->trace.rb.relax = relax;
	pcpu->trace.rb.membarrier = hyp->membarrier;
	pcpu->trace.rb.ring = doorbell_ring;
	ret = init_monotonic_cond(&pcpu->kick);
	if (!ret)
		ret = -pthread_cond_init(&pcpu->in_host, NULL);
	if (!ret)
		ret = -pthread_mutex_init(&pcpu->lock, NULL);
	return ret;
}

void pcpu_deinit(struct pcpu *pcpu)
{
	free(pcpu->script);
	free(pcpu->program);
	free(pcpu->counter);
	pthread_cond_destroy(&pcpu->kick);
	pthread_cond_destroy(&pcpu->in_host);
	pthread_mutex_destroy(&pcpu->lock);
}

int pcpu_give_counter(struct pcpu *pcpu)
{
	pcpu->counter = calloc(1, sizeof(*pcpu->counter));
	if (!pcpu->counter)
		return -ENOMEM;
	pcpu->trace.clock = &pcpu->counter->clock;
	return 0;
}

/* The n-th CPU that we may run on, counted in a circle; -1 if that cannot be told. */
static int nth_allowed_cpu(u32 n)
{
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return -1;
	n %= (u32)CPU_COUNT(&allowed);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &allowed) && !n--)
			return cpu;
	}
	return -1;
}

static void pin_thread(struct pcpu *pcpu)
{
	int cpu = nth_allowed_cpu(pcpu->nr);
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	/* Not allowed everywhere; the model is right without it, only less even. */
	pthread_setaffinity_np(pcpu->thread, sizeof(set), &set);
}

int pcpu_start(struct pcpu *pcpu)
{
	int ret = pthread_create(&pcpu->thread, NULL, pcpu_run, pcpu);

	if (ret)
		return -ret;
	pcpu->running = true;
	pin_thread(pcpu);
	return 0;
}

void pcpu_stop(struct pcpu *pcpu)
{
	if (!pcpu->running)
		return;
	WRITE_ONCE(pcpu->stop, 1);
	hyp_restart_scripts(pcpu->hyp);
	pcpu_borrow(pcpu); /* wakes it wherever it waits */
	pcpu_give_back(pcpu);
	pthread_join(pcpu->thread, NULL);
	pcpu->running = false;
}
