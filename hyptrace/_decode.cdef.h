/* What hyptrace/decoder.py sees of ringbuf_c and of src/. */

/* render.h; a table is made by hyptracefs/ring_buffer.py */
struct render_text {
	const char *text;
	uint32_t length;
};

struct render_table {
	const struct render_event *events;
	uint32_t nr;
};

struct render_prefix {
	...;
};

#define RENDER_LINE_MAX ...

/* decode.h */
struct decode_batch {
	uint64_t *time;
	uint64_t *lost;
	const uint8_t **payload;
	uint16_t *cpu;
	uint16_t *id;
	uint16_t *event;
	uint16_t *length;
	uint32_t nr;
	uint32_t capacity;
};

struct decode_cpu {
	uint16_t nr;
	uint8_t state;
	uint64_t lost;
	uint64_t events;
	uint64_t lost_events;
	uint64_t uncounted;
	uint64_t broken_pages;
	uint64_t odd_events;
	...;
};

struct decoder {
	struct decode_cpu *cpus;
	uint32_t nr_cpus;
	uint32_t *heap;
	uint32_t nr_heap;
	const uint16_t *event_of;
	const uint16_t *needs;
	uint32_t nr_events;
};

struct decode_field {
	uint32_t offset;
	uint8_t size;
	bool is_signed;
};

struct decode_tail {
	struct decode_field item;
	struct render_text before, between, behind;
};

struct decode_text {
	uint8_t style;
	struct render_table events;
	struct render_prefix *prefixes;
	struct render_text before_id, behind_id;
	const struct decode_tail *tails;
	uint32_t nr_tails;
};

#define DECODE_HUNGRY ...
#define DECODE_TRACE_PIPE ...
#define DECODE_JSON ...
#define DECODE_CSV ...

void decode_feed(struct decode_cpu *cpu, const uint8_t *pages, uint64_t size);
uint32_t decode_next(struct decoder *decoder, struct decode_batch *batch);
void decode_group(const struct decode_batch *batch, const uint16_t *keys, uint32_t nr_keys, uint32_t *rows,
		  uint32_t *starts);
void decode_numbers(const struct decode_batch *batch, const uint32_t *rows, uint32_t nr,
		    const struct decode_field *field, uint32_t out_size, uint8_t *out);
void decode_bytes(const struct decode_batch *batch, const uint32_t *rows, uint32_t nr, uint32_t offset, uint32_t size,
		  uint8_t *out);
uint32_t decode_tails(const struct decode_batch *batch, const uint32_t *rows, uint32_t nr, uint32_t offset, uint32_t size,
		 int32_t *ends, uint8_t *out);
void decode_u64(const uint64_t *column, const uint32_t *rows, uint32_t nr, uint64_t *out);
void decode_u16(const uint16_t *column, const uint32_t *rows, uint32_t nr, uint32_t *out);
uint32_t decode_lines(const struct decode_batch *batch, uint32_t *row, const struct decode_text *text,
		 char *out, uint32_t size);

/* stays.h */
#define STAY_HYP ...
#define STAY_GUEST ...
#define STAY_REASONS ...

struct stay_cpu {
	...;
};

struct stay_event {
	uint32_t event;
	struct decode_field reason, vcpu;
};

struct stay_rules {
	struct stay_event enter, exit;
	int64_t to_guest;
};

struct stay_batch {
	uint64_t *start;
	uint64_t *duration;
	int32_t *reason;
	int32_t *exit_reason;
	int32_t *vcpu;
	uint16_t *cpu;
	uint8_t *place;
	uint8_t *reason_slot;
	uint8_t *exit_slot;
	uint32_t nr;
};

struct stay_stats {
	uint64_t count;
	uint64_t total;
	uint64_t longest;
	uint64_t buckets[...];
};

struct stay_bins {
	uint64_t origin;
	uint32_t shift;
	uint32_t nr_bins;
	uint32_t nr_cpus;
	uint32_t nr_kinds;
	const uint8_t *kind_of;
	const uint16_t *slot_of;
	uint64_t *ns;
};

struct stay_strip {
	uint64_t origin;
	uint32_t shift;
	uint32_t nr_bins;
	uint32_t nr_cpus;
	uint32_t nr_kinds;
	const uint8_t *kind_of;
	const uint16_t *slot_of;
	uint64_t *bin_of;
	uint64_t *ns;
	uint8_t *kinds;
	uint16_t *shares;
};

void stays_strip(const struct stay_batch *stays, struct stay_strip *strip);
void stays_strip_end(struct stay_strip *strip);

void stays_next(const struct decode_batch *batch, const struct stay_rules *rules,
		struct stay_cpu *cpus, struct stay_batch *stays);
void stays_count(const struct stay_batch *stays, struct stay_stats *by_reason, uint64_t *by_cpu);
uint64_t stay_bucket_start(uint32_t bucket);
uint64_t stay_quantile(const struct stay_stats *stats, uint64_t rank);
void stays_bin(const struct stay_batch *stays, struct stay_bins *bins);

/* perfetto.h */
#define PF_CPU_SHIFT ...
struct pf_schema {
	uint32_t packet;
	uint32_t timestamp, sequence_id, sequence_flags, track_event, ftrace_events;
	uint32_t bundle_cpu, bundle_event, bundle_lost;
	uint32_t event_timestamp, event_pid;
	uint32_t type, track_uuid, name_iid, annotations, counter_value;
	uint32_t annotation_name_iid, annotation_int, annotation_uint;
	uint32_t type_begin, type_end, type_instant, type_counter;
	uint32_t needs_state;
};

struct pf_field {
	struct decode_field field;
	uint32_t number;
	uint32_t name_iid;
};

struct pf_event {
	uint32_t number;
	uint32_t name_iid;
	uint32_t nr_fields;
	const struct pf_field *fields;
};

struct pf_trace {
	struct pf_schema schema;
	uint32_t sequence_id;
	const struct pf_event *events;
	const uint32_t *reason_iids;
	uint32_t guest_iid, cpu_iid, vcpu_iid;
	uint64_t cpu_tracks, lost_tracks, vcpu_tracks;
	const uint8_t *descriptors;
	uint32_t descriptors_size;
	uint64_t *lost;
};

uint32_t pf_bundle(const struct pf_trace *trace, const struct decode_batch *batch, const uint32_t *rows,
	      uint32_t nr, uint32_t room, uint8_t *out, uint32_t size, uint32_t *done);
uint32_t pf_instants(const struct pf_trace *trace, const struct decode_batch *batch, uint32_t *row, uint32_t room,
		uint8_t *out, uint32_t size);
uint32_t pf_slices(const struct pf_trace *trace, const struct stay_batch *stays, uint32_t *row, uint8_t *out,
	      uint32_t size);

/* pack.h */
struct pack_cpu {
	bool open;
	...;
};

uint32_t pack_pages(struct pack_cpu *cpu, const uint8_t *pages, uint32_t size, uint8_t *out);

/* text.h */
#define TEXT_LITERAL ...
#define TEXT_SIGNED ...
#define TEXT_UNSIGNED ...
#define TEXT_HEX ...
#define TEXT_SYMBOL ...

struct text_symbol {
	struct render_text text;
	uint64_t value;
};

struct text_op {
	uint8_t kind;
	uint8_t size;
	bool padded;
	uint32_t offset;
	struct render_text literal;
	const struct text_symbol *symbols;
	uint32_t nr_symbols;
};

struct text_pattern {
	uint16_t id;
	uint16_t event;
	uint16_t length;
	uint8_t index_size;
	uint32_t index_offset;
	uint64_t index;
	const struct text_op *ops;
	uint32_t nr_ops;
};

struct text_cpu {
	uint64_t events;
	uint64_t lost_events;
	uint64_t uncounted;
	uint64_t lost;
};

struct text_decoder {
	const struct text_pattern *patterns;
	uint32_t nr_patterns;
	struct text_cpu *cpus;
	uint32_t nr_cpus;
	uint8_t *records;
	uint32_t stride;
	uint64_t odd;
};

uint64_t text_next(struct text_decoder *decoder, const char *text, uint64_t size, struct decode_batch *batch);
