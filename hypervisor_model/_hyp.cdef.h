/* What hypervisor_model/model.py sees of hyp.h, remote_test.h and define_events.h. */
struct hyp;

struct pcpu_step {
	uint64_t at;
	uint32_t event;
	uint64_t args[...];
};

#define HYP_PROGRAM_GUEST ...
#define HYP_PROGRAM_CHAOS ...

int hyp_create(uint32_t nr_cpus, struct hyp **hyp);
int hyp_set_script(struct hyp *hyp, uint32_t cpu, const struct pcpu_step *steps,
		   uint32_t nr_steps, uint64_t period);
int hyp_run_program(struct hyp *hyp, uint32_t cpu, uint32_t program, uint32_t nr_vcpus,
		    uint64_t seed);
int hyp_start(struct hyp *hyp);
void hyp_destroy(struct hyp *hyp);
uintptr_t hyp_conduit_address(struct hyp *hyp);
int hyp_serve_host(struct hyp *hyp, int host_fd, int listen_fd, int stop_fd);
void hyp_allow(struct hyp *hyp, uint32_t uid);
int hyp_serve(struct hyp *hyp, int listen_fd, int stop_fd);
const char *hyp_writer_ordering(const struct hyp *hyp);
bool hyp_has_doorbell(const struct hyp *hyp);

struct hyp_event_field {
	const char *type;
	const char *name;
	uint32_t offset;
	uint32_t size;
	uint32_t is_signed;
};

struct hyp_event_desc {
	const char *name;
	uint32_t id;
	const struct hyp_event_field *fields;
	const char *print_fmt;
};

struct hyp_symbol_table {
	const char *function;
	const char *const *symbols;
	uint32_t nr_symbols;
	const char *fallback;
};

struct hyp_string_fmt {
	const char *text;
	uint32_t nr_args;
};

struct hyp_format_table {
	const char *event;
	const char *index;
	const char *args;
	const struct hyp_string_fmt *formats;
	uint32_t nr_formats;
};

const struct hyp_event_desc *hyp_event_desc(uint32_t index);
const struct hyp_event_desc *remote_test_event_desc(uint32_t index);
int remote_test_create(uint32_t nr_cpus, struct hyp **remote);
const struct hyp_symbol_table *hyp_symbol_table(uint32_t index);
const struct hyp_format_table *hyp_format_table(uint32_t index);
