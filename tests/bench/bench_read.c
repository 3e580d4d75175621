// SPDX-License-Identifier: Apache-2.0
/*
 * bench_read FILE SIZE [BYTES]: read FILE by reads of SIZE bytes until there is nothing now, or
 * BYTES are read; print bytes, reads, ns of wall time and ns of CPU time.
 *
 * What is read goes nowhere.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static uint64_t ns_of(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv)
{
	size_t size = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
	uint64_t most = argc > 3 ? strtoull(argv[3], NULL, 0) : UINT64_MAX;
	uint64_t bytes = 0, reads = 0, wall, cpu;
	int file = size ? open(argv[1], O_RDONLY | O_NONBLOCK) : -1;
	void *to = malloc(size);
	ssize_t got = 0;

	if (file < 0 || !to) {
		perror("bench_read FILE SIZE [BYTES]");
		return 2;
	}
	__builtin_memset(to, 1, size);
	wall = ns_of(CLOCK_MONOTONIC);
	cpu = ns_of(CLOCK_PROCESS_CPUTIME_ID);
	while (bytes < most && (got = read(file, to, size)) > 0) {
		bytes += (uint64_t)got;
		reads++;
	}
	wall = ns_of(CLOCK_MONOTONIC) - wall;
	cpu = ns_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	if (got < 0 && errno != EAGAIN) {
		perror(argv[1]);
		return 1;
	}
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", bytes, reads, wall, cpu);
	return 0;
}
