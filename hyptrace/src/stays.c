// SPDX-License-Identifier: Apache-2.0
#include "stays.h"

static s64 number(const struct decode_batch *batch, u32 row, const struct decode_field *field)
{
	u64 value = 0;

	if (field->size)
		decode_numbers(batch, &row, 1, field, sizeof(value), (u8 *)&value);
	return (s64)value;
}

static u8 slot_of_reason(s64 reason)
{
	return reason >= 0 && reason < STAY_REASONS ? (u8)reason : STAY_REASONS - 1;
}

static void put_stay(struct stay_batch *stays, const struct stay_cpu *cpu, u16 nr, u64 end,
		     s64 exit_reason)
{
	u32 row = stays->nr++;

	stays->start[row] = cpu->since;
	/* A clock that has run backwards. */
	stays->duration[row] = end > cpu->since ? end - cpu->since : 0;
	stays->reason[row] = (s32)cpu->reason;
	stays->exit_reason[row] = (s32)exit_reason;
	stays->vcpu[row] = (s32)cpu->vcpu;
	stays->cpu[row] = nr;
	stays->place[row] = cpu->place;
	stays->reason_slot[row] = slot_of_reason(cpu->reason);
	stays->exit_slot[row] = slot_of_reason(exit_reason);
}

static void move_to(struct stay_cpu *cpu, enum stay_place place, u64 now, s64 reason, s64 vcpu)
{
	*cpu = (struct stay_cpu){
		.since = now, .reason = reason, .vcpu = vcpu, .place = (u8)place,
	};
}

static void enter(const struct decode_batch *batch, u32 row, const struct stay_rules *rules,
		  struct stay_cpu *cpu, struct stay_batch *stays)
{
	s64 reason = number(batch, row, &rules->enter.reason);

	if (cpu->place == STAY_GUEST)
		put_stay(stays, cpu, batch->cpu[row], batch->time[row], reason);
	move_to(cpu, STAY_HYP, batch->time[row], reason, number(batch, row, &rules->enter.vcpu));
}

static void leave(const struct decode_batch *batch, u32 row, const struct stay_rules *rules,
		  struct stay_cpu *cpu, struct stay_batch *stays)
{
	s64 reason = number(batch, row, &rules->exit.reason);
	enum stay_place to = reason == rules->to_guest ? STAY_GUEST : STAY_UNKNOWN;

	if (cpu->place == STAY_HYP)
		put_stay(stays, cpu, batch->cpu[row], batch->time[row], reason);
	move_to(cpu, to, batch->time[row], reason, number(batch, row, &rules->exit.vcpu));
}

void stays_next(const struct decode_batch *batch, const struct stay_rules *rules,
		struct stay_cpu *cpus, struct stay_batch *stays)
{
	stays->nr = 0;
	for (u32 row = 0; row < batch->nr; row++) {
		struct stay_cpu *cpu = &cpus[batch->cpu[row]];

		if (batch->lost[row])
			cpu->place = STAY_UNKNOWN;
		if (batch->event[row] == rules->enter.event)
			enter(batch, row, rules, cpu, stays);
		else if (batch->event[row] == rules->exit.event)
			leave(batch, row, rules, cpu, stays);
	}
}

/* --- how long -------------------------------------------------------------------- */

static u32 bucket_of(u64 duration)
{
	u32 octave;

	if (duration < 2 * STAY_BUCKETS)
		return (u32)duration;
	octave = 63 - (u32)__builtin_clzll(duration) - STAY_BUCKET_BITS;
	return (octave << STAY_BUCKET_BITS) + (u32)(duration >> octave);
}

static u32 octave_of(u32 bucket)
{
	u32 octave = bucket >> STAY_BUCKET_BITS;

	return octave ? octave - 1 : 0;
}

u64 stay_bucket_start(u32 bucket)
{
	u32 octave = octave_of(bucket);

	return (u64)(bucket - (octave << STAY_BUCKET_BITS)) << octave;
}

/* The middle of a bucket. */
static u64 duration_of(u32 bucket)
{
	return stay_bucket_start(bucket) + (((u64)1 << octave_of(bucket)) - 1) / 2;
}

void stays_count(const struct stay_batch *stays, struct stay_stats *by_reason, u64 *by_cpu)
{
	for (u32 row = 0; row < stays->nr; row++) {
		struct stay_stats *stats = &by_reason[stays->reason_slot[row]];
		u64 duration = stays->duration[row];

		if (stays->place[row] != STAY_HYP)
			continue;
		stats->count++;
		stats->total += duration;
		if (duration > stats->longest)
			stats->longest = duration;
		stats->buckets[bucket_of(duration)]++;
		by_cpu[stays->cpu[row]] += duration;
	}
}

u64 stay_quantile(const struct stay_stats *stats, u64 rank)
{
	u64 seen = 0;

	for (u32 bucket = 0; bucket < STAY_NR_BUCKETS; bucket++) {
		u64 duration = duration_of(bucket);

		seen += stats->buckets[bucket];
		if (seen >= rank)
			return duration < stats->longest ? duration : stats->longest;
	}
	return stats->longest;
}

/* --- when -------------------------------------------------------------------------- */

static u32 kind_at(const struct stay_batch *stays, u32 row, const u8 *kind_of, u32 nr_kinds)
{
	return stays->place[row] == STAY_GUEST ? nr_kinds - 1 : kind_of[stays->reason_slot[row]];
}

/* From when to when, ns from @origin on; false: times of nobody's clock. */
static bool span_of(const struct stay_batch *stays, u32 row, u64 origin, u64 *start, u64 *end)
{
	*start = stays->start[row] - origin;
	*end = *start + stays->duration[row];
	return stays->start[row] >= origin && *end >= *start && !(*end >> 62);
}

static u64 *bins_of(const struct stay_bins *bins, u32 cpu, u32 kind)
{
	return bins->ns + ((u64)cpu * bins->nr_kinds + kind) * bins->nr_bins;
}

static void fold(u64 *ns, u32 nr)
{
	for (u32 bin = 0; bin < nr / 2; bin++)
		ns[bin] = ns[2 * bin] + ns[2 * bin + 1];
	for (u32 bin = nr / 2; bin < nr; bin++)
		ns[bin] = 0;
}

/* Each two bins become one. */
static void widen(struct stay_bins *bins)
{
	for (u32 cpu = 0; cpu < bins->nr_cpus; cpu++) {
		for (u32 kind = 0; kind < bins->nr_kinds; kind++)
			fold(bins_of(bins, cpu, kind), bins->nr_bins);
	}
	bins->shift++;
}

static void spread(u64 *ns, const struct stay_bins *bins, u64 start, u64 end)
{
	while (start < end) {
		u64 bin = start >> bins->shift;
		u64 behind = (bin + 1) << bins->shift;
		u64 upto = behind < end ? behind : end;

		ns[bin] += upto - start;
		start = upto;
	}
}

void stays_bin(const struct stay_batch *stays, struct stay_bins *bins)
{
	for (u32 row = 0; row < stays->nr; row++) {
		u32 kind = kind_at(stays, row, bins->kind_of, bins->nr_kinds);
		u64 start, end;

		if (!span_of(stays, row, bins->origin, &start, &end))
			continue;
		while (end >> bins->shift >= bins->nr_bins)
			widen(bins);
		spread(bins_of(bins, bins->slot_of[stays->cpu[row]], kind), bins, start, end);
	}
}

/* --- when, in many bins --------------------------------------------------------------- */

/* What is in the open bin of a CPU goes to what is there already; it is empty then. */
static void put_bin(const struct stay_strip *strip, u32 cpu)
{
	u64 at = (u64)cpu * strip->nr_bins + strip->bin_of[cpu];
	u64 *ns = strip->ns + (u64)cpu * strip->nr_kinds;
	u64 total = 0, share;
	u32 most = strip->kinds[at];

	ns[most] += ((u64)strip->shares[at] << strip->shift) / STAY_FULL;
	for (u32 kind = 0; kind < strip->nr_kinds; kind++) {
		total += ns[kind];
		if (ns[kind] > ns[most])
			most = kind;
	}
	share = (total * STAY_FULL) >> strip->shift;
	strip->shares[at] = (u16)(share < STAY_FULL ? share : STAY_FULL);
	strip->kinds[at] = (u8)most;
	for (u32 kind = 0; kind < strip->nr_kinds; kind++)
		ns[kind] = 0;
}

static void fold_strip(u8 *kinds, u16 *shares, u32 nr)
{
	for (u32 bin = 0; bin < nr / 2; bin++) {
		u32 fuller = 2 * bin + (shares[2 * bin + 1] > shares[2 * bin]);

		kinds[bin] = kinds[fuller];
		shares[bin] = (u16)(((u32)shares[2 * bin] + shares[2 * bin + 1]) / 2);
	}
	for (u32 bin = nr / 2; bin < nr; bin++)
		shares[bin] = 0;
}

static void widen_strip(struct stay_strip *strip)
{
	for (u32 cpu = 0; cpu < strip->nr_cpus; cpu++) {
		u64 first = (u64)cpu * strip->nr_bins;

		put_bin(strip, cpu);
		fold_strip(strip->kinds + first, strip->shares + first, strip->nr_bins);
		strip->bin_of[cpu] /= 2;
	}
	strip->shift++;
}

static void spread_strip(const struct stay_strip *strip, u32 cpu, u32 kind, u64 start, u64 end)
{
	while (start < end) {
		u64 bin = start >> strip->shift;
		u64 behind = (bin + 1) << strip->shift;
		u64 upto = behind < end ? behind : end;

		if (bin != strip->bin_of[cpu])
			put_bin(strip, cpu);
		strip->bin_of[cpu] = bin;
		strip->ns[(u64)cpu * strip->nr_kinds + kind] += upto - start;
		start = upto;
	}
}

void stays_strip(const struct stay_batch *stays, struct stay_strip *strip)
{
	for (u32 row = 0; row < stays->nr; row++) {
		u32 kind = kind_at(stays, row, strip->kind_of, strip->nr_kinds);
		u64 start, end;

		if (!span_of(stays, row, strip->origin, &start, &end))
			continue;
		while (end >> strip->shift >= strip->nr_bins)
			widen_strip(strip);
		spread_strip(strip, strip->slot_of[stays->cpu[row]], kind, start, end);
	}
}

void stays_strip_end(struct stay_strip *strip)
{
	for (u32 cpu = 0; cpu < strip->nr_cpus; cpu++)
		put_bin(strip, cpu);
}
