// SPDX-License-Identifier: Apache-2.0
/*
 * The kernel's own ring as a peer: events of 16 bytes through trace_marker_raw, the price of
 * a write(2) that goes nowhere taken off.
 *
 * bench_kernel TRACEFS: works in an instance of its own, and removes it.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"

#define INSTANCE "instances/hyptracefs-bench"

static int marker, nowhere;
static char *nothing_in_particular[] = { NULL, NULL };

struct raw_event {
	u32 id; /* trace_marker_raw begins with one */
	u32 zero;
	u64 serial;
};

static u32 write_batch_to(int fd)
{
	for (u32 i = 0; i < BATCH_EVENTS; i++) {
		struct raw_event event = { .id = 1, .serial = i };

		if (write(fd, &event, sizeof(event)) != sizeof(event)) {
			perror("write");
			exit(1);
		}
	}
	return BATCH_EVENTS;
}

static u32 marker_batch(void)
{
	return write_batch_to(marker);
}

static u32 nowhere_batch(void)
{
	return write_batch_to(nowhere);
}

static void remove_instance(void)
{
	close(marker);
	if (rmdir(INSTANCE))
		perror(INSTANCE);
}

int main(int argc, char **argv)
{
	if (argc != 2 || chdir(argv[1]) || mkdir(INSTANCE, 0700)) {
		perror("usage: bench_kernel TRACEFS");
		return 2;
	}
	atexit(remove_instance);
	marker = open(INSTANCE "/trace_marker_raw", O_WRONLY);
	nowhere = open("/dev/null", O_WRONLY);
	if (marker < 0 || nowhere < 0) {
		perror("open");
		return 1;
	}
	bench_init(nothing_in_particular);
	measure_over("kernel trace_marker_raw, 16 bytes", NULL, marker_batch, nowhere_batch);
	return 0;
}
