/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the CPUs were: in the hypervisor from a hyp_enter to the next hyp_exit, in a guest from
 * a hyp_exit to a guest to the next hyp_enter (SPEC F.5: they alternate on each CPU). What began
 * before events were lost, or has not ended, is not known and left out.
 */
#ifndef HYPTRACE_STAYS_H
#define HYPTRACE_STAYS_H

#include "ringbuf_c/decode.h"

/* Reasons are below this; others count as the last one. */
#define STAY_REASONS 256U

enum stay_place {
	STAY_UNKNOWN, /* in the host, or wherever */
	STAY_HYP,
	STAY_GUEST,
	STAY_PLACES,
};

/* Where a CPU is now. Zeroed: not known. */
struct stay_cpu {
	u64 since;  /* ns */
	s64 reason; /* of entering */
	s64 vcpu;
	u8 place;
};

/* An event, and where it has its fields; size 0: it has none of that name. */
struct stay_event {
	u32 event; /* index; that of no event: there is none */
	struct decode_field reason, vcpu;
};

struct stay_rules {
	struct stay_event enter, exit;
	s64 to_guest; /* reason of a hyp_exit that enters a guest */
};

/* One row for each stay that has ended. */
struct stay_batch {
	u64 *start;	  /* ns */
	u64 *duration;	  /* ns */
	s32 *reason;	  /* of entering */
	s32 *exit_reason; /* of leaving */
	s32 *vcpu;
	u16 *cpu;
	u8 *place; /* enum stay_place */
	u8 *reason_slot; /* the reasons again, those from STAY_REASONS on as the last one */
	u8 *exit_slot;
	u32 nr;
};

/**
 * stays_next - the stays that end in @batch.
 * @cpus: by number, up to the largest of any
 * @stays: arrays of at least as many rows as @batch has
 */
void stays_next(const struct decode_batch *batch, const struct stay_rules *rules,
		struct stay_cpu *cpus, struct stay_batch *stays);

/* --- how long ------------------------------------------------------------------ */

/*
 * Durations are counted in buckets, as in an HDR histogram: each power of two has
 * STAY_BUCKETS of them, so that a bucket tells a duration to 1 %.
 */
#define STAY_BUCKET_BITS 6
#define STAY_BUCKETS (1U << STAY_BUCKET_BITS)
#define STAY_NR_BUCKETS ((64 - STAY_BUCKET_BITS + 1) * STAY_BUCKETS)

struct stay_stats {
	u64 count;
	u64 total; /* ns */
	u64 longest;
	u64 buckets[STAY_NR_BUCKETS];
};

/* stays_count - those in the hypervisor, by reason; and what of their CPU's time they took. */
void stays_count(const struct stay_batch *stays, struct stay_stats *by_reason, u64 *by_cpu);

/* stay_bucket_start - ns; the least duration that is in a bucket. */
u64 stay_bucket_start(u32 bucket);

/* stay_quantile - ns; the least duration that @rank of them do not exceed, to 1 %. */
u64 stay_quantile(const struct stay_stats *stats, u64 rank);

/* --- when ---------------------------------------------------------------------- */

/*
 * Time in bins, the same for all CPUs: bin b begins at origin + (b << shift). When time
 * goes on behind the last bin, each two become one.
 */
struct stay_bins {
	u64 origin; /* ns */
	u32 shift;
	u32 nr_bins; /* a power of two */
	u32 nr_cpus;
	u32 nr_kinds;
	const u8 *kind_of; /* of a stay in the hypervisor, by reason; the last is that in a guest */
	const u16 *slot_of; /* of a CPU, by its number */
	u64 *ns;	    /* [cpu slot][kind][bin] */
};

void stays_bin(const struct stay_batch *stays, struct stay_bins *bins);

/*
 * The same in many more bins, each of which says only in what most of its time went, and how much
 * of it went in all: 3 bytes, however many kinds there are. (Where two have become one, the kind
 * is that of the fuller one.)
 */
struct stay_strip {
	u64 origin; /* ns */
	u32 shift;
	u32 nr_bins; /* a power of two */
	u32 nr_cpus;
	u32 nr_kinds;
	const u8 *kind_of; /* as in struct stay_bins */
	const u16 *slot_of;
	u64 *bin_of; /* [cpu slot]: the bin that is being filled */
	u64 *ns;     /* [cpu slot][kind]: what is in it */
	u8 *kinds;   /* [cpu slot][bin] */
	u16 *shares; /* [cpu slot][bin], of STAY_FULL */
};

#define STAY_FULL 65535U

void stays_strip(const struct stay_batch *stays, struct stay_strip *strip);

/* stays_strip_end - put the bins that are being filled where the others are. */
void stays_strip_end(struct stay_strip *strip);

#endif
