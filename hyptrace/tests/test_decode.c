// SPDX-License-Identifier: Apache-2.0
/*
 * Captures of many CPUs, good ones and noise: they are merged in order, nothing is lost or
 * invented, and nothing outside the pages is touched (they are allocated to the byte).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pack.h"
#include "perfetto.h"
#include "ringbuf_c/layout.h"
#include "text.h"

#define NR_CPUS 3U
#define PAGES 4U     /* of a chunk */
#define CAPACITY 64U /* of a batch: it is filled often */
#define OUT_SIZE (128U << 10)
#define LINES_SIZE (DECODE_LINE_ROOM + 200U) /* so that a few lines fill it */

enum { ENTER, EXIT, TAIL, NR_EVENTS };

#define ID(event) ((u16)(10 + (event)))
#define TAIL_OFFSET 8U

static u64 seed;

static u64 draw(u64 below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

/* --- pages ------------------------------------------------------------------------- */

struct cpu_script {
	u64 time;
	u64 events;
	u64 lost;
	u32 chunks; /* that are still to come */
	u8 *chunk;
};

static void put(u8 **at, const void *from, u32 size)
{
	memcpy(*at, from, size);
	*at += size;
}

static void put_u32(u8 **at, u32 value)
{
	put(at, &value, sizeof(value));
}

/* hyp_enter and hyp_exit: u16 id, u8 reason, s32 vcpu at 4; the other one: u64s from 8 on. */
static void put_event(u8 **at, u32 event, u32 length, u64 delta)
{
	u8 payload[TAIL_OFFSET + 5 * sizeof(u64)] = { 0 };
	u16 id = ID(event);

	memcpy(payload, &id, sizeof(id));
	for (u32 i = sizeof(id); i < length; i++)
		payload[i] = (u8)draw(i == 2 ? 9 : 256);
	put_u32(at, rb_event_header(RB_TYPE_DATA_LONG, delta));
	put_u32(at, length + 4);
	put(at, payload, length);
}

static u32 length_for(u32 event)
{
	return event == TAIL ? TAIL_OFFSET + 8 * (u32)draw(6) : 8;
}

static void make_page(u8 *page, struct cpu_script *script)
{
	u64 commit, lost = draw(4) ? 0 : 1 + draw(1000);
	u8 *at = page + RB_PAGE_HEADER;

	memset(page, 0, RB_PAGE_SIZE);
	script->time += draw(5000);
	memcpy(page, &script->time, sizeof(u64));
	for (u32 nr = (u32)draw(70); nr > 0; nr--) {
		u64 delta = at == page + RB_PAGE_HEADER ? 0 : draw(3000);

		u32 event = (u32)draw(NR_EVENTS);

		put_event(&at, event, length_for(event), delta);
		script->time += delta;
		script->events++;
	}
	commit = (u64)(at - page) - RB_PAGE_HEADER;
	if (lost) {
		memcpy(at, &lost, sizeof(lost));
		commit |= RB_MISSED_EVENTS | RB_MISSED_STORED;
		script->lost += lost;
	}
	memcpy(page + sizeof(u64), &commit, sizeof(commit));
}

/* The last page of a chunk is full to its last byte, of short events, and says anything. */
static void fill(u8 *page)
{
	static const u64 flags[] = { 0, RB_MISSED_EVENTS, RB_MISSED_EVENTS | RB_MISSED_STORED };
	u64 commit = RB_PAGE_CAPACITY - 8 + draw(24);
	u8 *at = page + RB_PAGE_HEADER;

	while (at + 10 + 8 <= page + RB_PAGE_SIZE)
		put_event(&at, (u32)draw(NR_EVENTS), 2, 0);
	put_event(&at, (u32)draw(NR_EVENTS), (u32)(page + RB_PAGE_SIZE - at) - 8, 0);
	commit |= flags[draw(3)];
	memcpy(page + sizeof(u64), &commit, sizeof(commit));
}

static void spoil(u8 *chunk, u32 size)
{
	for (u64 nr = draw(40); nr > 0; nr--)
		chunk[draw(size)] = (u8)draw(256);
	if (draw(2))
		fill(chunk + size - RB_PAGE_SIZE);
}

static void feed(struct decode_cpu *cpu, struct cpu_script *script, bool hostile)
{
	u32 size = (1 + (u32)draw(PAGES)) * RB_PAGE_SIZE;

	free(script->chunk);
	script->chunk = NULL;
	if (!script->chunks--) {
		decode_feed(cpu, NULL, 0);
		return;
	}
	script->chunk = malloc(size);
	assert_non_null(script->chunk);
	for (u32 at = 0; at < size; at += RB_PAGE_SIZE)
		make_page(script->chunk + at, script);
	if (hostile)
		spoil(script->chunk, size);
	decode_feed(cpu, script->chunk, size);
}

/* --- what becomes of a batch ---------------------------------------------------------- */

static u64 time_of[CAPACITY], lost_of[CAPACITY], start_of[CAPACITY], duration_of[CAPACITY];
static const u8 *payload_of[CAPACITY];
static u16 cpu_of[CAPACITY], id_of[CAPACITY], event_of[CAPACITY], length_of[CAPACITY];
static s32 reason_of[CAPACITY], exit_of[CAPACITY], vcpu_of[CAPACITY];
static u16 stay_cpu_of[CAPACITY];
static u8 place_of[CAPACITY], slot_of[CAPACITY], exit_slot_of[CAPACITY];

static struct decode_batch batch = {
	.time = time_of, .lost = lost_of, .payload = payload_of, .cpu = cpu_of, .id = id_of,
	.event = event_of, .length = length_of, .capacity = CAPACITY,
};
static struct stay_batch stays = {
	.start = start_of, .duration = duration_of, .reason = reason_of, .exit_reason = exit_of,
	.vcpu = vcpu_of, .cpu = stay_cpu_of, .place = place_of, .reason_slot = slot_of,
	.exit_slot = exit_slot_of,
};

static u16 event_by_id[65536];
static const u16 needs[NR_EVENTS] = { 8, 8, TAIL_OFFSET };
static char out[OUT_SIZE];

#define REASON { 2, 1, false }
#define VCPU { 4, 4, true }

static const struct stay_rules rules = {
	.enter = { ENTER, REASON, VCPU }, .exit = { EXIT, REASON, VCPU }, .to_guest = 7,
};

static void check_columns(void)
{
	struct decode_field reason = REASON;
	u32 rows[CAPACITY], starts[NR_EVENTS + 2];
	s32 ends[CAPACITY + 1];
	u8 numbers[CAPACITY * 8];

	decode_group(&batch, batch.event, NR_EVENTS + 1, rows, starts);
	assert_int_equal(starts[NR_EVENTS + 1], batch.nr);
	for (u32 event = 0; event < TAIL; event++) {
		u32 nr = starts[event + 1] - starts[event];

		decode_numbers(&batch, rows + starts[event], nr, &reason, 8, numbers);
		decode_bytes(&batch, rows + starts[event], nr, 0, 8, numbers);
		for (u32 i = 0; i < nr; i++)
			assert_int_equal(batch.event[rows[starts[event] + i]], event);
	}
	for (u32 row = starts[TAIL]; row < starts[TAIL + 1]; row++) {
		u32 items = decode_tails(&batch, &rows[row], 1, TAIL_OFFSET, 8, ends, NULL);
		u8 *exact = malloc(items * 8 + 1);

		assert_int_equal(ends[1], items);
		assert_int_equal(items, (batch.length[rows[row]] - TAIL_OFFSET) / 8);
		decode_tails(&batch, &rows[row], 1, TAIL_OFFSET, 8, ends, exact);
		free(exact);
	}
}

/* As much time as in the bins that count all kinds, but for what is rounded. */
static void check_strip(bool hostile)
{
	static const u8 kinds[STAY_REASONS] = { [1] = 1 };
	static const u16 slots[NR_CPUS] = { 0, 1, 2 };
	static u64 ns[NR_CPUS * 3 * 1024];
	u64 bin_of[NR_CPUS] = { 0 }, open[NR_CPUS * 3] = { 0 };
	u8 kind_of_bin[NR_CPUS * 64] = { 0 };
	u16 shares[NR_CPUS * 64] = { 0 };
	struct stay_bins all = {
		.nr_bins = 1024, .nr_cpus = NR_CPUS, .nr_kinds = 3, .kind_of = kinds,
		.slot_of = slots, .ns = ns, .origin = 1000,
	};
	struct stay_strip strip = {
		.nr_bins = 64, .nr_cpus = NR_CPUS, .nr_kinds = 3, .kind_of = kinds, .slot_of = slots,
		.origin = 1000, .bin_of = bin_of, .ns = open, .kinds = kind_of_bin, .shares = shares,
	};

	memset(ns, 0, sizeof(ns));
	stays_bin(&stays, &all);
	stays_strip(&stays, &strip);
	stays_strip_end(&strip);
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++) {
		u64 exact = 0, shown = 0;

		for (u32 i = 0; i < 3 * 1024; i++)
			exact += ns[cpu * 3 * 1024 + i];
		for (u32 i = 0; i < 64; i++)
			shown += ((u64)shares[cpu * 64 + i] << strip.shift) / STAY_FULL;
		/* Twice a bin's last digit for each time that it was rounded. */
		assert_true(hostile || shown <= exact);
		assert_true(hostile || exact - shown <= 64 * (2 + (80ULL << strip.shift) / STAY_FULL));
	}
}

static u64 count_lines(u32 style)
{
	static struct render_prefix prefixes[NR_CPUS];
	static const struct render_text comma = RENDER_LITERAL(",");
	struct decode_tail tails[NR_EVENTS] = {
		[TAIL] = { { TAIL_OFFSET, 8, false }, comma, comma, comma },
	};
	struct render_op name = { .kind = RENDER_TEXT, .text = comma };
	struct render_event events[ID(NR_EVENTS)] = { 0 };
	struct decode_text text = {
		.style = (u8)style, .events = { events, ID(NR_EVENTS) }, .prefixes = prefixes,
		.before_id = comma, .behind_id = comma, .tails = tails, .nr_tails = NR_EVENTS,
	};
	u64 lines = 0;

	events[ID(TAIL)] = (struct render_event){ .ops = &name, .nr_ops = 1 };
	assert_int_equal(render_event_check(&events[ID(TAIL)]), 0);
	for (u32 row = 0; row < batch.nr;) {
		u32 before = row;
		u32 length = decode_lines(&batch, &row, &text, out, LINES_SIZE);

		assert_true(row > before && length <= LINES_SIZE);
		for (u32 i = 0; i < length; i++)
			lines += out[i] == '\n';
	}
	return lines;
}

static void check_lines(void)
{
	u64 losses = 0;

	for (u32 row = 0; row < batch.nr; row++)
		losses += batch.lost[row] != 0;
	assert_int_equal(count_lines(DECODE_TRACE_PIPE), batch.nr + losses);
	assert_int_equal(count_lines(DECODE_JSON), batch.nr + losses);
	assert_int_equal(count_lines(DECODE_CSV), batch.nr);
}

static void check_packets(void)
{
	static const struct pf_field fields[] = { { REASON, 1, 2 }, { VCPU, 2, 3 } };
	static const struct pf_event events[NR_EVENTS + 1] = {
		[ENTER] = { 588, 0, 2, fields }, [EXIT] = { 584, 0, 2, fields }, [TAIL] = { 65536, 1, 0, NULL },
	};
	static u32 reason_iids[STAY_REASONS];
	static u64 lost[NR_CPUS];
	static const u8 descriptors[3] = { 1, 2, 3 };
	struct pf_trace trace = {
		.schema = { .packet = 1, .bundle_event = 2, .ftrace_events = 1 }, .events = events,
		.reason_iids = reason_iids, .descriptors = descriptors, .descriptors_size = 3,
		.lost = lost,
	};
	u32 rows[CAPACITY], starts[NR_CPUS + 1], row, room = PF_ROOM(2), done;

	decode_group(&batch, batch.cpu, NR_CPUS, rows, starts);
	for (u32 cpu = 0; cpu < NR_CPUS; cpu++) {
		for (u32 at = starts[cpu]; at < starts[cpu + 1]; at += done) {
			assert_true(pf_bundle(&trace, &batch, rows + at, starts[cpu + 1] - at, room,
					      (u8 *)out, 2048, &done) <= 2048);
			assert_true(done > 0);
		}
	}
	for (row = 0; row < batch.nr;)
		assert_true(pf_instants(&trace, &batch, &row, room, (u8 *)out, 1024) <= 1024);
	for (row = 0; row < stays.nr;)
		assert_true(pf_slices(&trace, &stays, &row, (u8 *)out, 1024) <= 1024);
}

/* --- whole captures -------------------------------------------------------------------- */

struct run {
	struct decode_cpu cpus[NR_CPUS];
	struct cpu_script scripts[NR_CPUS];
	struct stay_cpu stay_cpus[NR_CPUS];
	u64 events, lost, last;
};

static struct stay_stats stats[STAY_REASONS];
static u64 busy[NR_CPUS];

static void use_batch(struct run *run, bool hostile)
{
	static const u8 kinds[STAY_REASONS] = { [1] = 1 };
	static const u16 slots[NR_CPUS] = { 0, 1, 2 };
	static u64 ns[NR_CPUS * 3 * 16];
	struct stay_bins bins = {
		.nr_bins = 16, .nr_cpus = NR_CPUS, .nr_kinds = 3, .kind_of = kinds,
		.slot_of = slots, .ns = ns, .origin = 1000,
	};

	for (u32 row = 0; row < batch.nr; row++) {
		assert_true(hostile || batch.time[row] >= run->last);
		assert_true(batch.event[row] == NR_EVENTS ||
			    batch.length[row] >= needs[batch.event[row]]);
		run->last = batch.time[row];
		run->lost += batch.lost[row];
	}
	run->events += batch.nr;
	check_columns();
	check_lines();
	stays_next(&batch, &rules, run->stay_cpus, &stays);
	stays_count(&stays, stats, busy);
	stays_bin(&stays, &bins);
	check_strip(hostile);
	check_packets();
}

static void decode_all(struct run *run, bool hostile)
{
	u32 heap[NR_CPUS], hungry;
	struct decoder decoder = {
		.cpus = run->cpus, .nr_cpus = NR_CPUS, .heap = heap, .event_of = event_by_id,
		.needs = needs, .nr_events = NR_EVENTS,
	};

	for (u32 nr = 0; nr < NR_CPUS; nr++) {
		run->cpus[nr].nr = (u16)nr;
		run->scripts[nr].chunks = (u32)draw(4);
		run->scripts[nr].time = 1000;
	}
	do {
		hungry = decode_next(&decoder, &batch);
		if (batch.nr)
			use_batch(run, hostile);
		for (u32 nr = 0; hungry && nr < NR_CPUS; nr++) {
			if (run->cpus[nr].state == DECODE_HUNGRY)
				feed(&run->cpus[nr], &run->scripts[nr], hostile);
		}
	} while (batch.nr || hungry);
}

static void captures(bool hostile, u32 nr)
{
	for (u32 event = 0; event < 65536; event++)
		event_by_id[event] = NR_EVENTS;
	for (u16 event = 0; event < NR_EVENTS; event++)
		event_by_id[ID(event)] = event;
	for (u32 i = 1; i <= nr; i++) {
		struct run run = { 0 };
		u64 events = 0, lost = 0, unsaid = 0;

		seed = i * 0x9e3779b97f4a7c15ULL;
		decode_all(&run, hostile);
		for (u32 cpu = 0; cpu < NR_CPUS; cpu++) {
			events += run.scripts[cpu].events;
			lost += run.scripts[cpu].lost;
			unsaid += run.cpus[cpu].lost;
			free(run.scripts[cpu].chunk);
		}
		if (hostile)
			continue;
		assert_int_equal(run.events, events);
		assert_int_equal(run.lost + unsaid, lost);
	}
}

static void test_captures_are_merged(void **state)
{
	(void)state;
	captures(false, 200);
}

static void test_noise_is_read_to_its_end(void **state)
{
	(void)state;
	captures(true, 600);
}

/* Quantiles are of the middle of a bucket, which is 1 % wide or less. */
static void test_quantiles(void **state)
{
	static struct stay_stats of;

	(void)state;
	for (u32 i = 0; i < STAY_NR_BUCKETS; i++)
		assert_true(i == 0 || stay_bucket_start(i) > stay_bucket_start(i - 1));
	for (u64 duration = 1; duration < 1ULL << 62; duration = duration * 3 / 2 + 1) {
		u8 place = STAY_HYP, slot = 0;
		u16 cpu = 0;
		u64 got, off;
		struct stay_batch one = {
			.duration = &duration, .place = &place, .cpu = &cpu, .reason_slot = &slot, .nr = 1,
		};

		memset(&of, 0, sizeof(of));
		stays_count(&one, &of, busy);
		assert_int_equal(of.longest, duration);
		of.longest = UINT64_MAX; /* else it bounds the quantile */
		got = stay_quantile(&of, 1);
		off = got > duration ? got - duration : duration - got;
		assert_true(off * 100 <= duration);
	}
}

/* --- packing ------------------------------------------------------------------------------- */

#define NR_PAGES 40U

/* Pages with few events each, some behind long pauses, some with what was lost before. */
static u32 make_few(u8 *pages, struct cpu_script *script)
{
	u32 nr = 1 + (u32)draw(NR_PAGES);

	for (u8 *page = pages; page < pages + nr * RB_PAGE_SIZE; page += RB_PAGE_SIZE) {
		do
			make_page(page, script);
		while (draw(8) && page[8] + 256 * page[9] > 400);
		script->time += draw(10) ? draw(1000000) : draw(1ULL << 40);
	}
	return nr * RB_PAGE_SIZE;
}

static u32 pack_in_pieces(const u8 *pages, u32 size, u8 *packed)
{
	struct pack_cpu pack = { 0 };
	u32 done = 0;

	for (u32 at = 0; at < size;) {
		u32 piece = (1 + (u32)draw((size - at) / RB_PAGE_SIZE)) * RB_PAGE_SIZE;

		done -= pack.open ? RB_PAGE_SIZE : 0;
		done += pack_pages(&pack, pages + at, piece, packed + done);
		at += piece;
	}
	return done;
}

struct seen {
	u64 nr, hash;
};

static void see(struct seen *seen, u64 value)
{
	seen->hash = (seen->hash ^ value) * 0x9e3779b97f4a7c15ULL;
	seen->hash ^= seen->hash >> 29;
}

/* All events of a CPU, with times, losses and contents. */
static struct seen see_all(const u8 *pages, u32 size)
{
	struct decode_cpu cpu = { 0 };
	u32 heap[1];
	struct decoder decoder = {
		.cpus = &cpu, .nr_cpus = 1, .heap = heap, .event_of = event_by_id,
		.needs = needs, .nr_events = NR_EVENTS,
	};
	struct seen seen = { 0 };
	bool fed = false;

	for (;;) {
		u32 hungry = decode_next(&decoder, &batch);

		for (u32 row = 0; row < batch.nr; row++) {
			seen.nr++;
			see(&seen, batch.time[row]);
			see(&seen, batch.lost[row]);
			for (u32 i = 0; i < batch.length[row]; i++)
				see(&seen, batch.payload[row][i]);
		}
		if (!hungry && !batch.nr)
			break;
		if (hungry)
			decode_feed(&cpu, fed ? NULL : pages, fed ? 0 : size);
		fed |= hungry;
	}
	see(&seen, cpu.lost);
	see(&seen, cpu.lost_events);
	return seen;
}

static void pack_some(bool hostile, u64 *before, u64 *after)
{
	struct cpu_script script = { .time = 1000 };
	u8 *pages = malloc((size_t)NR_PAGES * RB_PAGE_SIZE);
	u8 *packed = malloc((size_t)(NR_PAGES + 1) * RB_PAGE_SIZE);
	struct seen one, other;
	u32 size, done;

	assert_true(pages && packed);
	size = make_few(pages, &script);
	if (hostile)
		spoil(pages, size);
	done = pack_in_pieces(pages, size, packed);
	assert_true(done <= size && done % RB_PAGE_SIZE == 0);
	one = see_all(pages, size);
	other = see_all(packed, done);
	assert_int_equal(one.nr, other.nr);
	assert_true(one.hash == other.hash);
	*before += size;
	*after += done;
	free(pages);
	free(packed);
}

static void test_packed_pages_have_the_same_events(void **state)
{
	u64 before = 0, after = 0;

	(void)state;
	for (u32 i = 1; i <= 1000; i++) {
		seed = i * 0x9e3779b97f4a7c15ULL;
		pack_some(false, &before, &after);
	}
	assert_true(after * 3 < before * 2);
}

static void test_noise_is_packed_or_kept(void **state)
{
	u64 before = 0, after = 0;

	(void)state;
	for (u32 i = 1; i <= 1000; i++) {
		seed = i * 0x9e3779b97f4a7c15ULL;
		pack_some(true, &before, &after);
	}
}

/* --- text -------------------------------------------------------------------------------- */

#define RECORD 16U

static const struct text_symbol symbols[] = { { RENDER_LITERAL("hvc"), 1 }, { RENDER_LITERAL("hvc2"), 2 } };
static const struct text_op ops[][4] = {
	{ { .kind = TEXT_LITERAL, .literal = RENDER_LITERAL("enter reason=") },
	  { .kind = TEXT_SYMBOL, .size = 1, .offset = 2, .symbols = symbols, .nr_symbols = 2 },
	  { .kind = TEXT_LITERAL, .literal = RENDER_LITERAL(" vcpu=") },
	  { .kind = TEXT_SIGNED, .size = 4, .offset = 4, .padded = true } },
	{ { .kind = TEXT_LITERAL, .literal = RENDER_LITERAL("abort esr=0x") },
	  { .kind = TEXT_HEX, .size = 8, .offset = 8 } },
};
static const struct text_pattern patterns[] = {
	{ .id = ID(ENTER), .event = ENTER, .length = 8, .ops = ops[0], .nr_ops = 4 },
	{ .id = ID(EXIT), .event = EXIT, .length = RECORD, .ops = ops[1], .nr_ops = 2 },
};

static u8 text_records[CAPACITY * RECORD];

static void parse(struct text_cpu *cpus, struct text_decoder *decoder, const char *text, u64 size)
{
	u64 at = 0, used;

	*decoder = (struct text_decoder){
		.patterns = patterns, .nr_patterns = 2, .cpus = cpus, .nr_cpus = NR_CPUS,
		.records = text_records, .stride = RECORD,
	};
	do {
		batch.nr = 0;
		used = text_next(decoder, text + at, size - at, &batch);
		at += used;
		for (u32 row = 0; row < batch.nr; row++) {
			assert_true(batch.cpu[row] < NR_CPUS && batch.event[row] < TAIL);
			assert_true(batch.payload[row] + batch.length[row] <=
				    text_records + sizeof(text_records));
		}
	} while (used && batch.nr == CAPACITY);
}

static u64 number_at(u32 row, u32 offset, u8 size)
{
	struct decode_field field = { offset, size, false };
	u64 value;

	decode_numbers(&batch, &row, 1, &field, sizeof(value), (u8 *)&value);
	return value;
}

static void test_a_text_is_records(void **state)
{
	static const char text[] = "# a comment\n"
		"[002]\t    1.000002: enter reason=hvc2 vcpu=  -7\n"
		"CPU:1 [LOST 5 EVENTS]\nCPU:1 [LOST EVENTS]\n"
		"[001]\t12345.678901: abort esr=0xfedcba9876543210\n"
		"[001]\t    1.000002: enter reason=hvc22 vcpu=7\n"
		"[003]\t    1.000002: enter reason=hvc vcpu=7\n"
		"[001]\t    1.000002: enter reason=hvc vcpu=7 \n"
		"[001]\t    1.00002: enter reason=hvc vcpu=7\n\n"
		"[001]\t    1.000002: enter reason=hvc vcpu=";
	struct text_cpu cpus[NR_CPUS] = { 0 };
	struct text_decoder decoder;

	(void)state;
	parse(cpus, &decoder, text, sizeof(text) - 1);
	assert_int_equal(batch.nr, 2);
	assert_int_equal(decoder.odd, 5);
	assert_int_equal(batch.time[0], 1000002000);
	assert_int_equal(batch.cpu[0], 2);
	assert_int_equal(number_at(0, 0, 2), ID(ENTER));
	assert_int_equal(number_at(0, 2, 1), 2);
	assert_int_equal(number_at(0, 4, 4), (u32)-7);
	assert_int_equal(batch.time[1], 12345678901000);
	assert_int_equal(batch.lost[1], DECODE_LOST_UNKNOWN);
	assert_int_equal(number_at(1, 8, 8), 0xfedcba9876543210);
	assert_int_equal(cpus[1].lost_events, 5);
	assert_int_equal(cpus[1].uncounted, 1);
	assert_int_equal(cpus[1].lost, 0);
}

static u64 make_line(char *line, u64 room)
{
	static const char *const forms[] = {
		"[%03u]\t%5u.%06u: enter reason=hvc vcpu=7\n",
		"[%03u]\t%5u.%06u: abort esr=0xdeadbeef\n",
		"CPU:%u [LOST %u EVENTS]\n",
	};
	u32 form = (u32)draw(3);
	int length = form == 2 ? snprintf(line, room, forms[2], (u32)draw(3), (u32)draw(1000))
			       : snprintf(line, room, forms[form], (u32)draw(3), (u32)draw(100000),
					  (u32)draw(1000000));

	return (u64)length;
}

/* Nothing outside of the text and of the records is touched. */
static void test_text_that_is_spoilt(void **state)
{
	(void)state;
	for (u32 i = 1; i <= 2000; i++) {
		struct text_cpu cpus[NR_CPUS] = { 0 };
		struct text_decoder decoder;
		char made[8192], *exact;
		u64 size = 0;

		seed = i * 0x9e3779b97f4a7c15ULL;
		for (u64 nr = draw(100); nr > 0; nr--)
			size += make_line(made + size, sizeof(made) - size);
		for (u64 nr = size ? draw(20) : 0; nr > 0; nr--)
			made[draw(size)] = (char)draw(256);
		exact = malloc(size + 1);
		assert_non_null(exact);
		memcpy(exact, made, size);
		parse(cpus, &decoder, exact, size);
		free(exact);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_captures_are_merged),
		cmocka_unit_test(test_noise_is_read_to_its_end),
		cmocka_unit_test(test_quantiles),
		cmocka_unit_test(test_packed_pages_have_the_same_events),
		cmocka_unit_test(test_noise_is_packed_or_kept),
		cmocka_unit_test(test_a_text_is_records),
		cmocka_unit_test(test_text_that_is_spoilt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
