// SPDX-License-Identifier: Apache-2.0
/*
 * bench_closes NUMBER CPU...: make the kernel trace NUMBER events on each CPU, by as many
 * close(2) of nothing, at the same time.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int close_on(int cpu, long number)
{
	cpu_set_t only;

	CPU_ZERO(&only);
	CPU_SET(cpu, &only);
	if (sched_setaffinity(0, sizeof(only), &only)) {
		perror("sched_setaffinity");
		return 1;
	}
	while (number--)
		close(-1);
	return 0;
}

int main(int argc, char **argv)
{
	int failed = 0, status;

	if (argc < 3) {
		fputs("usage: bench_closes NUMBER CPU...\n", stderr);
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		if (!fork())
			_exit(close_on(atoi(argv[i]), atol(argv[1])));
	}
	while (wait(&status) > 0)
		failed |= status;
	return failed ? 1 : 0;
}
