/* What hyptracefs/ring_buffer.py and hypercalls.py see of ringbuf_c. */

/* hypercalls.h */
#define HVC_TRACING_LOAD ...
#define HVC_TRACING_UNLOAD ...
#define HVC_TRACING_ENABLE ...
#define HVC_TRACING_SWAP_READER ...
#define HVC_TRACING_RESET ...
#define HVC_TRACING_UPDATE_CLOCK ...
#define HVC_TRACING_ENABLE_EVENT ...
#define HVC_TRACING_WRITE_EVENT ...
#define HVC_TRACING_STATISTICS ...
#define HVC_TRACING_SWAP_READERS ...
#define HVC_TRACING_DOORBELL ...
#define HYP_DOORBELL_REMOVE ...
#define HYP_DOORBELL_HANG ...
#define HYP_DOORBELL_ARM ...
#define HYP_MAX_STATISTICS ...

struct hvc_conduit;
int hvc_call(uintptr_t conduit, uint32_t cpu, uint64_t nr, const uint64_t args[4]);

/* layout.h */
#define RB_PAGE_SIZE ...
#define RB_PAGE_HEADER ...
#define RB_MIN_PAGES ...
#define RB_MAX_TAKEN ...

/* clock; hypervisor_model/protocol.h */
#define HYP_COUNTER_CPU ...
#define HYP_COUNTER_MONOTONIC_RAW ...

struct clock_instant {
	uint64_t boot_ns;
	uint64_t cycles;
	uint64_t error_ns;
};

int clock_snapshot(uint32_t counter, struct clock_instant *instant);

/* render.h */
#define RENDER_TEXT ...
#define RENDER_UNSIGNED ...
#define RENDER_SIGNED ...
#define RENDER_HEX ...
#define RENDER_SYMBOL ...
#define RENDER_SYMBOL_OR_HEX ...
#define RENDER_STRING ...
#define RENDER_TEXT_ALIGN ...
#define RENDER_LEFT ...
#define RENDER_ZERO ...
#define RENDER_UPPER ...
#define RENDER_EXTEND ...

struct render_text {
	const char *text;
	uint32_t length;
};

struct render_symbols {
	const struct render_text *symbols;
	uint32_t nr;
	struct render_text fallback;
};

struct render_op {
	uint8_t kind;
	uint8_t size;
	uint8_t flags;
	uint8_t width;
	uint32_t offset;
	struct render_text text;
	const struct render_symbols *symbols;
};

struct render_event {
	const struct render_op *ops;
	uint32_t nr_ops;
	uint32_t length;
	uint32_t max_text;
	uint32_t reads;
	const struct render_formats *formats;
};

struct render_formats {
	const struct render_event *formats;
	uint32_t nr;
	uint32_t offset;
	uint32_t size;
};

struct render_table {
	const struct render_event *events;
	uint32_t nr;
};

int render_event_check(struct render_event *event);

/* filter.h */
#define FILTER_EQ ...
#define FILTER_NE ...
#define FILTER_LT ...
#define FILTER_LE ...
#define FILTER_GT ...
#define FILTER_GE ...
#define FILTER_AND ...
#define FILTER_FIELD ...
#define FILTER_CPU ...
#define FILTER_ACCEPT ...
#define FILTER_REJECT ...

struct filter_pred {
	uint8_t op;
	uint8_t source;
	uint8_t size;
	bool is_signed;
	uint32_t offset;
	uint64_t value;
	uint32_t if_true, if_false;
};

struct filter {
	const struct filter_pred *preds;
	uint32_t nr;
};

struct filter_table {
	const struct filter *filters;
	uint32_t nr;
};

int filter_check(const struct filter *filter);
bool filter_match(const struct filter *filter, const uint8_t *payload, uint32_t length,
		  uint32_t cpu);

/* reader.h */
#define READER_ALL_CPUS ...

struct reader_cpu {
	const struct trace_buffer_meta *meta;
	const uint8_t *pages;
	uint32_t nr_pages;
	uint32_t nr_spares;
	...;
};

struct reader {
	struct hvc_conduit *conduit;
	uint32_t hvc_cpu;
	uint32_t max_taken;
	uint32_t nr_cpus;
	struct reader_cpu *cpus;
	struct render_table events;
	...;
};

struct reader_carry {
	uint32_t offset;
	uint32_t length;
	uint32_t cpu;
	uint32_t loss_end;
	uint64_t lost;
	uint32_t events;
	bool gap;
	...;
};

struct reader_stats {
	uint64_t entries, overrun, read, unread;
	uint64_t lost;
	uint64_t skipped;
	uint64_t filtered;
	uint64_t abandoned;
	uint64_t unreported;
	uint64_t broken_pages;
	uint64_t pages_lost, pages_touched;
	uint64_t dropped;
	int64_t swap_error;
};

void reader_keep_order(struct reader *reader, uint32_t cpu, uint32_t *room);
bool reader_poll(struct reader *reader);
uint64_t reader_unread(const struct reader *reader, uint32_t cpu);
uint32_t reader_text(struct reader *reader, uint32_t cpu, struct reader_carry *carry,
		     char *out, uint32_t size);
uint32_t reader_raw(struct reader *reader, uint32_t cpu, struct reader_carry *carry,
		    uint8_t *out, uint32_t size);
void reader_abandon(struct reader *reader, struct reader_carry *carry);
void reader_set_filters(struct reader *reader, struct filter_table filters);
bool reader_unfinished(const struct reader *reader);
bool reader_ready(struct reader *reader, uint32_t cpu);
void reader_reset(struct reader *reader, uint32_t cpu);
void reader_inherit(struct reader *reader, uint32_t cpu, uint32_t *ids);
void reader_stats(const struct reader *reader, uint32_t cpu, struct reader_stats *stats);

/* dump.h */
struct dump_page {
	uint16_t commit;
	uint16_t entries;
	...;
};

struct dump_cpu {
	struct dump_page *index;
	uint32_t nr;
	uint32_t ring, first;
	uint32_t offset;
	...;
};

struct dump {
	uint32_t nr_cpus;
	struct dump_cpu *cpus;
	...;
};

struct dump_source {
	...;
};

struct dump_cursor {
	const struct dump *dump;
	struct reader_cpu *cpus;
	struct dump_source *sources;
	...;
};

void dump_begin(struct dump *dump, const struct reader *reader);
void dump_measure(struct dump *dump);
void dump_rewind(struct dump_cursor *cursor);
uint32_t dump_read(struct dump_cursor *cursor, uint64_t offset, char *out, uint32_t room,
		   uint32_t size);
uint64_t dump_length(struct dump_cursor *cursor, char *out, uint32_t room);

/* pipes */
struct buffer_slot {
	struct reader *reader;
	uint8_t *out;
	uint32_t room;
};

#define EVENTS_SHORTEST_NS ...
#define EVENTS_LONGEST_NS ...
int64_t events_interval(int64_t waited_ns, int64_t fixed_ns);

struct event_source {
	int alive_fd;
	int bell_fd;
	int64_t interval_ns;
	bool gone;
	bool wanted;
	uint32_t wanted_cpu;
	int told_fd;
	uint32_t nr_parked;
	uint64_t nr_looks, nr_armed;
	...;
};

struct buffer_source {
	struct event_source events;
	const struct buffer_slot *slot;
	...;
};

void source_init(struct buffer_source *source);
bool source_attended(const struct buffer_source *source);
void source_changed(struct buffer_source *source);

struct pipe_end {
	uint64_t cached;
	...;
};

struct buffer_pipe {
	struct pipe_end end;
	const struct buffer_slot *slot;
	uint32_t cpu;
	struct reader_carry *carry;
	...;
};

void pipe_init(struct buffer_pipe *pipe, struct buffer_source *source, bool raw);
void pipe_end(struct buffer_pipe *pipe);
int pipe_cache(struct buffer_pipe *pipe, uint32_t size, uint64_t offset, const uint8_t **data);
