// SPDX-License-Identifier: Apache-2.0
/*
 * A writer and a host that reads, on a CPU each, at full speed. test_stress [EVENTS]
 *
 * EVENTS of all configurations together. Serials rise by one, except where the reader is
 * told by how many they do not; what an event holds, and when it was, follows from its
 * serial. In the end, and whenever tracing is off, the counters add up.
 */
#define _GNU_SOURCE /* sched_setaffinity() */
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#define DEFAULT_EVENTS 10000000U
#define TEXT_SIZE 65536U
#define MAX_IMAGES 16U
#define PROGRESS_S 5U
#define YIELD_EVERY 1024U
#define PAUSE_NS 200000U
#define EXTEND_EVERY 1009U

/* cmocka's asserts are a call each: too slow for each event. */
#define expect(condition)                                       \
	do {                                                    \
		if (unlikely(!(condition)))                     \
			fail_msg("not true: %s", #condition);   \
	} while (0)

struct run;

struct config {
	const char *name;
	u32 nr_pages;
	bool paced;   /* the writer lets the reader come after it now and then */
	u32 meddle_every; /* reads, on average: tracing is turned off and on, or the ring reset */
	bool (*read)(struct run *run);
};

/* What the reader was told. */
struct account {
	u64 serial;     /* of the last event that it knows of */
	u64 base;       /* of the last event before the counters began at 0 */
	u64 seen, lost; /* since then */
	u64 all_seen, all_lost, forgotten; /* by resets */
	bool gap; /* events were lost before the next one: not said how many */
};

struct run {
	const struct config *config;
	u64 nr_events;
	struct test_remote *remote;
	struct test_ring *ring;
	struct account account;
	u64 random; /* the reader's */
	u64 started, next_report; /* s */
	u32 meddlings;
	u32 idle; /* atomic: reads that found nothing */
	u32 done; /* atomic: the writer has */
};

static u64 total_events = DEFAULT_EVENTS;
static int cpus[2]; /* the reader's, the writer's; the same if there is but one */

/* --- CPUs and time -------------------------------------------------------------------- */

static void find_cpus(void)
{
	cpu_set_t mask;
	int nr = 0;

	assert_int_equal(sched_getaffinity(0, sizeof(mask), &mask), 0);
	for (int cpu = 0; cpu < CPU_SETSIZE && nr < 2; cpu++) {
		if (CPU_ISSET(cpu, &mask))
			cpus[nr++] = cpu;
	}
	if (nr < 2)
		cpus[1] = cpus[0];
}

/* This thread. Should it be refused, then the test is weaker, not wrong. */
static void pin(int cpu)
{
	cpu_set_t mask;

	CPU_ZERO(&mask);
	CPU_SET(cpu, &mask);
	if (sched_setaffinity(0, sizeof(mask), &mask))
		fprintf(stderr, "stress: cannot run on CPU %d alone\n", cpu);
}

/*
 * On a busy machine, to yield is to be away for milliseconds: not for the other one's sake,
 * who has a CPU of its own.
 */
static void let_other_run(void)
{
	if (cpus[0] == cpus[1])
		sched_yield();
}

/* While waiting for as long as it takes. */
static void relax(void)
{
	static _Thread_local u32 calls;

	if (++calls % YIELD_EVERY == 0)
		sched_yield();
	else
		let_other_run();
}

static u64 nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

static u64 seconds(void)
{
	return nanoseconds() / 1000000000;
}

static void report(struct run *run)
{
	u64 now = seconds();

	if (now < run->next_report)
		return;
	run->next_report = now + PROGRESS_S;
	fprintf(stderr, "stress: %s: %llu s, %llu of %llu events, %llu read\n", run->config->name,
		(unsigned long long)(now - run->started), (unsigned long long)run->account.serial,
		(unsigned long long)run->nr_events, (unsigned long long)run->account.all_seen);
}

/* --- the writer ----------------------------------------------------------------------- */

static u64 event_time(u64 serial)
{
	return serial * 1000 + serial / EXTEND_EVERY * (2ULL << RB_TIME_DELTA_BITS);
}

static u32 event_length(u64 serial)
{
	return TEST_PAYLOAD + 8 * (u32)(serial % 4);
}

static u32 ring_capacity(const struct config *config)
{
	return config->nr_pages * (RB_PAGE_CAPACITY / (TEST_EVENT_SIZE + 12)); /* on average */
}

/*
 * Until the reader has found nothing, or seems to be away: its CPU may have other things
 * to do. Returns the number of events until the next time.
 */
static u64 pause_writing(const struct run *run, u64 *random)
{
	u64 end = nanoseconds() + PAUSE_NS;
	u32 idle = READ_ONCE(run->idle);

	while (READ_ONCE(run->idle) == idle && nanoseconds() < end)
		let_other_run();
	/* As often too many for the ring as not. */
	return next_random(random) % (2 * ring_capacity(run->config)) + 1;
}

/* cmocka's asserts are for the main thread: it will miss an event. */
static void *write_events(void *arg)
{
	struct run *run = arg;
	struct test_ring *ring = run->ring;
	u64 random = 1, burst = run->config->paced ? 1 : UINT64_MAX;

	pin(cpus[1]);
	while (ring->serial < run->nr_events) {
		u64 serial = ring->serial + 1;

		if (!ring_write_sized(ring, event_length(serial), event_time(serial)))
			relax(); /* tracing is off */
		else if (!--burst)
			burst = pause_writing(run, &random);
	}
	smp_store_release(&run->done, 1);
	return NULL;
}

/* --- the account ---------------------------------------------------------------------- */

static void note_lost(struct account *account, u64 number)
{
	expect(number > 0);
	account->serial += number;
	account->lost += number;
	account->all_lost += number;
}

static void note_event(struct account *account, u64 serial)
{
	if (account->gap) {
		expect(serial > account->serial);
		note_lost(account, serial - account->serial - 1);
		account->gap = false;
	}
	if (unlikely(serial != account->serial + 1))
		fail_msg("event %llu after %llu", (unsigned long long)serial,
			 (unsigned long long)account->serial);
	account->serial = serial;
	account->seen++;
	account->all_seen++;
}

/* The counters began at 0 behind the event @base. */
static void note_reset(struct account *account, u64 base)
{
	expect(base >= account->serial);
	account->forgotten += base - account->serial;
	account->serial = base;
	account->base = base;
	account->seen = 0;
	account->lost = 0;
}

/* --- text ----------------------------------------------------------------------------- */

static const char *skip_text(const char *at, const char *text)
{
	for (; *text; text++, at++)
		expect(*at == *text);
	return at;
}

static const char *take_number(const char *at, u64 *number)
{
	expect(*at >= '0' && *at <= '9');
	for (*number = 0; *at >= '0' && *at <= '9'; at++)
		*number = *number * 10 + (u64)(*at - '0');
	return at;
}

static const char *take_lost_line(struct account *account, const char *at)
{
	u64 number;

	at = take_number(skip_text(at, "CPU:0 [LOST "), &number);
	note_lost(account, number);
	return skip_text(at, " EVENTS]\n");
}

static const char *take_event_line(struct account *account, const char *at)
{
	u64 sec, usec, serial;

	at = skip_text(at, "[000]\t");
	while (*at == ' ')
		at++;
	at = take_number(at, &sec);
	at = take_number(skip_text(at, "."), &usec);
	at = take_number(skip_text(at, ": selftest id="), &serial);
	note_event(account, serial);
	expect(sec * 1000000 + usec == event_time(serial) / 1000);
	return skip_text(at, "\n");
}

/* The text ends with a whole line: the buffer has room for any. */
static bool read_text(struct run *run)
{
	static char text[TEXT_SIZE + 1];
	const char *at = text;
	u32 length = remote_text(run->remote, 0, text, TEXT_SIZE);

	text[length] = 0;
	while (at < text + length) {
		if (*at == 'C')
			at = take_lost_line(&run->account, at);
		else
			at = take_event_line(&run->account, at);
	}
	return length;
}

/* --- page images ---------------------------------------------------------------------- */

static u64 load_u64(const u8 *at)
{
	u64 value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static void take_missed(struct account *account, const u8 *behind, u64 commit, u32 length)
{
	if (commit & RB_MISSED_STORED) {
		note_lost(account, load_u64(behind));
	} else {
		expect(length + sizeof(u64) > RB_PAGE_CAPACITY);
		account->gap = true;
	}
}

/* Returns its size. */
static u32 take_image_event(struct account *account, const u8 *at, u64 time)
{
	struct test_event event;
	u32 array0 = (u32)(load_u64(at) >> 32);

	memcpy(&event, at + RB_EVENT_HEADER, sizeof(event));
	note_event(account, event.serial);
	expect(event.id == TEST_EVENT_ID && event.serial32 == (u32)event.serial);
	expect(array0 == event_length(event.serial) + sizeof(u32));
	expect(time == event_time(event.serial));
	return (u32)sizeof(u32) + array0;
}

static void take_image(struct account *account, const u8 *image)
{
	const u8 *data = image + RB_PAGE_HEADER;
	u64 time = load_u64(image), commit = load_u64(image + 8);
	u32 length = commit & (RB_MISSED_STORED - 1), at = 0;

	expect(length && length <= RB_PAGE_CAPACITY);
	if (commit & RB_MISSED_EVENTS)
		take_missed(account, data + length, commit, length);
	while (at < length) {
		u64 header = load_u64(data + at);

		time += (u32)header >> RB_TYPE_LEN_BITS;
		if ((header & RB_TYPE_LEN_MASK) == RB_TYPE_TIME_EXTEND) {
			time += header >> 32 << RB_TIME_DELTA_BITS;
			at += RB_TIME_EXTEND_SIZE;
		} else {
			expect((header & RB_TYPE_LEN_MASK) == RB_TYPE_DATA_LONG);
			at += take_image_event(account, data + at, time);
		}
	}
	expect(at == length);
}

static bool read_images(struct run *run)
{
	static _Alignas(u64) u8 images[MAX_IMAGES * RB_PAGE_SIZE];
	u32 room = (u32)(next_random(&run->random) % MAX_IMAGES) + 1;
	u32 length = remote_raw(run->remote, 0, images, room * RB_PAGE_SIZE);

	expect(length % RB_PAGE_SIZE == 0);
	for (u32 at = 0; at < length; at += RB_PAGE_SIZE)
		take_image(&run->account, images + at);
	return length;
}

/* --- the host ------------------------------------------------------------------------- */

/* False when there was nothing to read. */
static bool read_once(struct run *run)
{
	bool any = run->config->read(run);

	if (!any) {
		WRITE_ONCE(run->idle, run->idle + 1);
		relax();
	}
	return any;
}

/* While nobody writes. */
static struct reader_stats check_law(struct run *run)
{
	const struct account *account = &run->account;
	struct reader_stats stats;

	reader_poll(&run->remote->reader);
	stats = remote_stats(run->remote, 0);
	assert_int_equal(stats.entries, run->ring->serial - account->base);
	assert_int_equal(stats.entries, stats.read + stats.overrun + stats.unread);
	assert_int_equal(stats.read, account->seen);
	assert_true(account->lost <= stats.lost && stats.lost <= stats.overrun);
	assert_true(stats.pages_lost <= stats.pages_touched);
	assert_int_equal(stats.dropped, 0);
	assert_int_equal(stats.skipped, 0);
	assert_int_equal(stats.broken_pages, 0);
	return stats;
}

/* And all that was written has been read. */
static void check_law_of_end(struct run *run)
{
	const struct account *account = &run->account;
	struct reader_stats stats = check_law(run);

	/* Earlier, a swap may have found the writer suspended while it moved the head. */
	assert_int_equal(stats.swap_error, 0);
	assert_int_equal(stats.unread, 0);
	assert_int_equal(stats.lost, stats.overrun);
	assert_int_equal(account->lost, stats.lost);
	assert_int_equal(account->serial, run->ring->serial);
	assert_int_equal(account->all_seen + account->all_lost + account->forgotten,
			 account->serial);
}

/* --- the holder of the tracing lock, who meddles ----------------------------------------- */

static void turn(struct run *run, bool on)
{
	assert_int_equal(simple_ring_buffer_enable_tracing(&run->ring->rb, on), 0);
	assert_int_equal(simple_ring_buffer_status(&run->ring->rb) != SIMPLE_RB_UNAVAILABLE, on);
}

static void reset(struct run *run)
{
	u32 id = run->ring->meta->reader.id;

	assert_int_equal(simple_ring_buffer_reset(&run->ring->rb), 0);
	assert_int_equal(run->ring->meta->reader.id, id);
	reader_reset(&run->remote->reader, 0);
}

static void pause_tracing(struct run *run)
{
	turn(run, false);
	check_law(run);
	relax();
	check_law(run); /* nothing has come */
	turn(run, true);
}

static void read_all(struct run *run)
{
	turn(run, false);
	while (read_once(run))
		;
	check_law_of_end(run);
	turn(run, true);
}

static void reset_while_off(struct run *run)
{
	turn(run, false);
	reset(run);
	note_reset(&run->account, run->ring->serial);
	check_law_of_end(run);
	turn(run, true);
}

static void reset_while_written(struct run *run)
{
	reset(run);
	for (u64 yields = next_random(&run->random) % 8; yields; yields--)
		relax();
	turn(run, false);
	note_reset(&run->account, run->ring->serial - run->ring->meta->entries);
	check_law(run);
	turn(run, true);
}

static void turn_on_twice(struct run *run)
{
	turn(run, true);
}

static void meddle(struct run *run)
{
	static void (*const ways[])(struct run *) = {
		pause_tracing, read_all, reset_while_off, reset_while_written, turn_on_twice,
	};

	if (next_random(&run->random) % run->config->meddle_every)
		return;
	ways[next_random(&run->random) % ARRAY_SIZE(ways)](run);
	run->meddlings++;
}

/* --- runs ----------------------------------------------------------------------------- */

static void read_until_done(struct run *run)
{
	bool done, any;

	do {
		done = smp_load_acquire(&run->done); /* before the last look */
		any = read_once(run);
		if (run->config->meddle_every && any)
			meddle(run);
		report(run);
	} while (!done || any);
}

static void print_result(const struct run *run)
{
	const struct account *account = &run->account;

	print_message("%s: %llu read, %llu lost", run->config->name,
		      (unsigned long long)account->all_seen, (unsigned long long)account->all_lost);
	if (run->config->meddle_every)
		print_message(", %llu forgotten, meddled %u times",
			      (unsigned long long)account->forgotten, run->meddlings);
	print_message("; %llu s\n", (unsigned long long)(seconds() - run->started));
}

static void stress(void **state)
{
	struct run run = { .config = *state, .random = 1, .started = seconds() };
	pthread_t thread;

	run.nr_events = total_events;
	run.next_report = run.started + PROGRESS_S;
	run.remote = remote_create(1, run.config->nr_pages);
	run.ring = &run.remote->rings[0];
	run.ring->rb.relax = relax;
	assert_int_equal(pthread_create(&thread, NULL, write_events, &run), 0);
	read_until_done(&run);
	pthread_join(thread, NULL);

	assert_int_equal(run.account.serial, run.nr_events);
	check_law_of_end(&run);
	print_result(&run);
	remote_destroy(run.remote);
}

static const struct config configs[] = {
	{ .name = "text, 3 pages", .nr_pages = 3, .read = read_text },
	{ .name = "text, 3 pages, paced", .nr_pages = 3, .read = read_text, .paced = true },
	{ .name = "text, 17 pages", .nr_pages = 17, .read = read_text },
	{ .name = "text, 17 pages, paced", .nr_pages = 17, .read = read_text, .paced = true },
	{ .name = "text, 5 pages, meddled", .nr_pages = 5, .read = read_text, .meddle_every = 4 },
	{ .name = "images, 3 pages", .nr_pages = 3, .read = read_images },
	{ .name = "images, 17 pages, paced", .nr_pages = 17, .read = read_images, .paced = true },
	{ .name = "images, 3 pages, paced, meddled", .nr_pages = 3, .read = read_images,
	  .paced = true, .meddle_every = 64 },
};

int main(int argc, char **argv)
{
	struct CMUnitTest tests[ARRAY_SIZE(configs)];

	if (argc > 1)
		total_events = strtoull(argv[1], NULL, 0);
	total_events /= ARRAY_SIZE(configs);
	for (u32 i = 0; i < ARRAY_SIZE(configs); i++)
		tests[i] = (struct CMUnitTest){ configs[i].name, stress, NULL, NULL,
						(void *)&configs[i] };
	find_cpus();
	pin(cpus[0]);
	print_message("reader on CPU %d, writer on CPU %d\n", cpus[0], cpus[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
