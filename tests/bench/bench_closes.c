// SPDX-License-Identifier: Apache-2.0
/*
 * bench_closes NUMBER[/SECONDS] CPU...: make the kernel trace NUMBER events on each CPU, by as
 * many close(2) of nothing, at the same time; evenly in SECONDS, and then no more than could be
 * made.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NSEC_PER_SEC 1000000000.0
#define PAUSE_NS 50000 /* as a storm of the model */
#define MOST 1000      /* between two looks at the time */

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / NSEC_PER_SEC;
}

static void make(long number)
{
	while (number-- > 0)
		close(-1);
}

static void make_evenly(long number, double seconds)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	double start = now_s(), passed;
	long made = 0;

	prctl(PR_SET_TIMERSLACK, 1UL);
	while (made < number && (passed = now_s() - start) < seconds) {
		long due = (long)((double)number * passed / seconds) - made;

		make(due < MOST ? due : MOST);
		made += due < MOST ? due : MOST;
		if (due < MOST)
			nanosleep(&pause, NULL);
	}
}

static int close_on(int cpu, const char *how_many)
{
	cpu_set_t only;
	long number;
	char *end;

	CPU_ZERO(&only);
	CPU_SET(cpu, &only);
	if (sched_setaffinity(0, sizeof(only), &only)) {
		perror("sched_setaffinity");
		return 1;
	}
	number = strtol(how_many, &end, 10);
	if (*end == '/')
		make_evenly(number, strtod(end + 1, NULL));
	else
		make(number);
	return 0;
}

int main(int argc, char **argv)
{
	int failed = 0, status;

	if (argc < 3) {
		fputs("usage: bench_closes NUMBER[/SECONDS] CPU...\n", stderr);
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		if (!fork())
			_exit(close_on(atoi(argv[i]), argv[1]));
	}
	while (wait(&status) > 0)
		failed |= status;
	return failed ? 1 : 0;
}
