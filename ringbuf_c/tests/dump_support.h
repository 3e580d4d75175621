/* SPDX-License-Identifier: Apache-2.0 */
/* A dump with all its memory, as a host has it. */
#ifndef RINGBUF_C_TESTS_DUMP_SUPPORT_H
#define RINGBUF_C_TESTS_DUMP_SUPPORT_H

#include "support.h"

#include "ringbuf_c/dump.h"

struct test_dump {
	struct dump dump;
	struct dump_cursor cursor;
	struct dump_cpu cpus[TEST_MAX_CPUS];
	struct reader_cpu reader_cpus[TEST_MAX_CPUS];
	struct dump_source sources[TEST_MAX_CPUS];
};

/* Begun, not measured. */
static inline struct test_dump *dump_create(struct test_remote *remote, u32 wanted)
{
	struct test_dump *made = calloc(1, sizeof(*made));

	assert_non_null(made);
	made->dump.nr_cpus = remote->reader.nr_cpus;
	made->dump.cpus = made->cpus;
	for (u32 cpu = 0; cpu < remote->reader.nr_cpus; cpu++) {
		if (wanted != READER_ALL_CPUS && wanted != cpu)
			continue;
		made->cpus[cpu].index =
			calloc(remote->cpus[cpu].nr_pages, sizeof(struct dump_page));
		assert_non_null(made->cpus[cpu].index);
	}
	dump_begin(&made->dump, &remote->reader);
	return made;
}

static inline void dump_start(struct test_dump *dump)
{
	dump_measure(&dump->dump);
	dump->cursor.dump = &dump->dump;
	dump->cursor.cpus = dump->reader_cpus;
	dump->cursor.sources = dump->sources;
	dump_rewind(&dump->cursor);
}

static inline struct test_dump *dump_open(struct test_remote *remote, u32 wanted)
{
	struct test_dump *dump = dump_create(remote, wanted);

	dump_start(dump);
	return dump;
}

static inline void dump_close(struct test_dump *dump)
{
	for (u32 cpu = 0; cpu < dump->dump.nr_cpus; cpu++)
		free(dump->cpus[cpu].index);
	free(dump);
}

#endif
