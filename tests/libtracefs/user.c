// SPDX-License-Identifier: Apache-2.0
/*
 * A program that uses libtracefs, as people write them, to see what the library makes of a mount.
 *
 *     user WHAT INSTANCE [ARGUMENT]
 *
 * INSTANCE is the name of one, or "top". Each WHAT is a function below; it prints what it finds,
 * one thing a line, for the test to look at. Exit status: 0, or 1 with a line on stderr.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event-parse.h>
#include <tracefs.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define SYSTEM "hypervisor"
#define EVENT "selftest"
#define EMITTER "hypervisor/selftest_event" /* from the top */

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void check(int result, const char *what)
{
	if (result < 0)
		fail(what);
}

/* Make `count` selftest events, on this CPU. */
static void emit(int count)
{
	char *path = tracefs_get_tracing_file(EMITTER);

	for (int i = 0; i < count; i++) {
		int fd = open(path, O_WRONLY);

		if (fd < 0)
			fail(EMITTER);
		close(fd);
	}
	tracefs_put_tracing_file(path);
}

/* `count` selftest events are in the buffer, and tracing is off. */
static void record(struct tracefs_instance *instance, int count)
{
	check(tracefs_trace_off(instance), "tracefs_trace_off");
	check(tracefs_instance_file_clear(instance, "trace"), "clear trace");
	check(tracefs_event_disable(instance, NULL, NULL), "tracefs_event_disable");
	check(tracefs_event_enable(instance, SYSTEM, EVENT), "tracefs_event_enable");
	check(tracefs_trace_on(instance), "tracefs_trace_on");
	emit(count);
	check(tracefs_trace_off(instance), "tracefs_trace_off");
}

static void print_list(const char *what, char **list)
{
	printf("%s:%s", what, list && *list ? "" : " ");
	for (char **word = list; word && *word; word++)
		printf(" %s", *word);
	printf("\n");
	tracefs_list_free(list);
}

/* ---- what there is ---- */

static void do_names(struct tracefs_instance *instance, const char *unused)
{
	(void)unused;
	print_list("systems", tracefs_event_systems(NULL));
	print_list("events", tracefs_system_events(NULL, SYSTEM));
	print_list("tracers", tracefs_tracers(NULL));
	print_list("instances", tracefs_instances(NULL));
	printf("clock: %s\n", tracefs_get_clock(instance));
	printf("directory: %s\n", tracefs_instance_get_trace_dir(instance));
	printf("is on: %d\n", tracefs_trace_is_on(instance));
	printf("size: %zd\n", tracefs_instance_get_buffer_size(instance, 0));
	printf("exists: %d %d\n", tracefs_file_exists(instance, "trace_pipe"),
	       tracefs_file_exists(instance, "nosuch"));
}

static void do_refusals(struct tracefs_instance *instance, const char *unused)
{
	struct tracefs_instance *new;

	(void)unused;
	new = tracefs_instance_create("new");
	printf("create: %d %s\n", new != NULL, strerror(errno));
	printf("enable: %d\n", tracefs_event_enable(instance, SYSTEM, "nosuch"));
	printf("tracer: %d\n", tracefs_tracer_set(instance, TRACEFS_TRACER_FUNCTION));
	printf("clock: %d\n", tracefs_instance_file_write(instance, "trace_clock", "nosuch"));
	printf("destroy: %d\n", instance ? tracefs_instance_destroy(instance) : -1);
}

static void do_switch(struct tracefs_instance *instance, const char *unused)
{
	(void)unused;
	check(tracefs_event_enable(instance, NULL, NULL), "enable all");
	/* (Of NULL and NULL, libtracefs 1.6 does not ask, but switches them off.) */
	printf("all: %d\n", tracefs_event_is_enabled(instance, SYSTEM, NULL));
	check(tracefs_event_disable(instance, SYSTEM, EVENT), "disable one");
	printf("system: %d\n", tracefs_event_is_enabled(instance, SYSTEM, NULL));
	printf("one: %d\n", tracefs_event_is_enabled(instance, SYSTEM, EVENT));
	check(tracefs_event_disable(instance, SYSTEM, NULL), "disable the system");
	printf("none: %d\n", tracefs_event_is_enabled(instance, SYSTEM, NULL));
	check(tracefs_instance_set_buffer_size(instance, 64, -1), "set size");
	printf("size: %zd\n", tracefs_instance_get_buffer_size(instance, 0));
	check(tracefs_tracer_clear(instance), "clear tracer");
}

/* ---- events, decoded ---- */

static int print_event(struct tep_event *event, struct tep_record *record, int cpu, void *unused)
{
	unsigned long long id = 0;

	(void)unused;
	tep_get_field_val(NULL, event, "id", record, &id, 0);
	if (record->missed_events)
		printf("missed: %lld\n", record->missed_events);
	printf("%s: cpu=%d time=%llu id=%llu\n", event->name, cpu, record->ts, id);
	return 0;
}

static void do_iterate(struct tracefs_instance *instance, const char *count)
{
	struct tep_handle *tep = tracefs_local_events(NULL);

	if (!tep)
		fail("tracefs_local_events");
	record(instance, atoi(count));
	check(tracefs_iterate_raw_events(tep, instance, NULL, 0, print_event, NULL),
	      "tracefs_iterate_raw_events");
	tep_free(tep);
}

/* ---- pages ---- */

static void write_page(const char *page, int size)
{
	if (write(STDOUT_FILENO, page, (size_t)size) != size)
		fail("stdout");
}

static struct tracefs_cpu *open_cpu0(struct tracefs_instance *instance, bool nonblock)
{
	struct tracefs_cpu *cpu = tracefs_cpu_open(instance, 0, nonblock);

	if (!cpu)
		fail("tracefs_cpu_open");
	return cpu;
}

/* Pages of CPU 0 to stdout, by read(2), until there are no more. */
static void do_read(struct tracefs_instance *instance, const char *count)
{
	struct tracefs_cpu *cpu = open_cpu0(instance, true);
	char page[1 << 16];
	int size;

	record(instance, atoi(count));
	if (tracefs_cpu_read_size(cpu) > (int)sizeof(page))
		fail("page size");
	while ((size = tracefs_cpu_read(cpu, page, true)) > 0)
		write_page(page, size);
	tracefs_cpu_close(cpu);
}

/* The same by splice(2), and what that leaves by a flush. */
static void do_write(struct tracefs_instance *instance, const char *count)
{
	struct tracefs_cpu *cpu = open_cpu0(instance, true);
	long spliced = 0;
	int size;

	record(instance, atoi(count));
	while ((size = tracefs_cpu_write(cpu, STDOUT_FILENO, true)) > 0)
		spliced += size;
	fprintf(stderr, "spliced: %ld\n", spliced);
	while (tracefs_cpu_flush_write(cpu, STDOUT_FILENO) > 0)
		;
	tracefs_cpu_close(cpu);
}

/* Stopped before there is anything; then what came meanwhile is flushed. */
static void do_stop(struct tracefs_instance *instance, const char *count)
{
	struct tracefs_cpu *cpu = open_cpu0(instance, false);
	char page[1 << 16];
	int size;

	record(instance, atoi(count));
	check(tracefs_cpu_stop(cpu), "tracefs_cpu_stop");
	while ((size = tracefs_cpu_flush(cpu, page)) > 0)
		write_page(page, size);
	tracefs_cpu_close(cpu);
}

/* ---- text ---- */

static void do_stream(struct tracefs_instance *instance, const char *count)
{
	ssize_t size;

	record(instance, atoi(count));
	size = tracefs_trace_pipe_stream(STDOUT_FILENO, instance, SPLICE_F_NONBLOCK);
	fprintf(stderr, "streamed: %zd\n", size);
}

static const struct {
	const char *name;
	void (*run)(struct tracefs_instance *instance, const char *argument);
} actions[] = {
	{ "names", do_names },     { "refusals", do_refusals }, { "switch", do_switch },
	{ "iterate", do_iterate }, { "read", do_read },         { "write", do_write },
	{ "stop", do_stop },       { "stream", do_stream },
};

static struct tracefs_instance *find_instance(const char *name)
{
	struct tracefs_instance *instance;

	if (!strcmp(name, "top"))
		return NULL;
	instance = tracefs_instance_create(name);
	if (!instance)
		fail(name);
	return instance;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: user WHAT INSTANCE [ARGUMENT]\n");
		return 2;
	}
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		struct tracefs_instance *instance;

		if (strcmp(argv[1], actions[i].name))
			continue;
		instance = find_instance(argv[2]);
		actions[i].run(instance, argc > 3 ? argv[3] : "0");
		tracefs_instance_free(instance);
		return 0;
	}
	fprintf(stderr, "user: nothing is called %s\n", argv[1]);
	return 2;
}
