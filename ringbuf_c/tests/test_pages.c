// SPDX-License-Identifier: Apache-2.0
/*
 * Golden pages: each file of tests/pages is text, and the hexdumps of the pages that it
 * is the text of. The reader makes the text of the pages; and for those that our writer
 * can write, it writes them, byte for byte. The files: see pages/make_pages.py.
 *
 * test_pages DIRECTORY
 */
#include <dirent.h>

#include "support.h"

#define RING_PAGES 3U /* of the writer */
#define NR_PAGES 4U   /* that the reader knows of */
#define PAGES_MAX 4U  /* of a file */
#define TEXT_MAX 65536U

/* --- a file -------------------------------------------------------------------------- */

struct golden_page {
	u32 id;
	unsigned long long lost;
	u8 image[RB_PAGE_SIZE];
};

static struct {
	char text[TEXT_MAX];
	u32 nr_pages;
	struct golden_page pages[PAGES_MAX];
} golden;

/* "OFFSET: up to 16 bytes in hex, with blanks". A line of `*` leaves zeros. */
static bool parse_dump(struct golden_page *page, const char *line)
{
	u32 offset;
	int used;

	if (!strcmp(line, "*\n"))
		return true;
	if (sscanf(line, "%8x:%n", &offset, &used) != 1)
		return false;
	for (line += used; offset < RB_PAGE_SIZE; offset++, line += used) {
		if (sscanf(line, " %2hhx%n", &page->image[offset], &used) != 1)
			break;
	}
	return !strcmp(line, "\n");
}

static bool parse_line(const char *line)
{
	struct golden_page *page = &golden.pages[golden.nr_pages];

	if (*line == '#')
		return true;
	if (golden.nr_pages < PAGES_MAX &&
	    sscanf(line, "page %u lost %llu\n", &page->id, &page->lost) == 2) {
		golden.nr_pages++;
		return true;
	}
	if (golden.nr_pages)
		return parse_dump(page - 1, line);
	strcat(golden.text, line);
	return true;
}

static void parse_file(const char *directory, const char *name)
{
	char path[4096], line[256];
	FILE *file;

	memset(&golden, 0, sizeof(golden));
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "r");
	if (!file)
		fail_msg("%s: cannot be read", path);
	while (fgets(line, sizeof(line), file)) {
		if (!parse_line(line))
			fail_msg("%s: what is this: %s", path, line);
	}
	fclose(file);
	assert_true(golden.nr_pages);
}

/* --- pages to text ---------------------------------------------------------------------- */

static const struct render_text reason_names[] = {
	RENDER_LITERAL("smc"),	      RENDER_LITERAL("hvc"),
	RENDER_LITERAL("sys"),	      RENDER_LITERAL("psci"),
	RENDER_LITERAL("host_abort"), RENDER_LITERAL("guest_exit"),
	RENDER_LITERAL("eret_host"),  RENDER_LITERAL("eret_guest"),
};
static const struct render_symbols reasons = { reason_names, ARRAY_SIZE(reason_names),
					       RENDER_LITERAL("unknown") };

#define OP_TEXT(literal) { .kind = RENDER_TEXT, .text = RENDER_LITERAL(literal) }
#define OP_REASON(at) { .kind = RENDER_SYMBOL, .size = 1, .offset = (at), .symbols = &reasons }
#define OP_VCPU(at) { .kind = RENDER_SIGNED, .size = 4, .offset = (at) }

static const struct render_op enter_ops[] = { OP_TEXT("hyp_enter reason="), OP_REASON(2),
					      OP_TEXT(" vcpu="), OP_VCPU(4) };
static const struct render_op exit_ops[] = { OP_TEXT("hyp_exit reason="), OP_REASON(2),
					     OP_TEXT(" vcpu="), OP_VCPU(4) };
static const struct render_op selftest_ops[] = {
	OP_TEXT("selftest id="), { .kind = RENDER_UNSIGNED, .size = 8, .offset = 8 },
};
static const struct render_op v1_enter_ops[] = { OP_TEXT("v1_enter reason="), OP_REASON(2),
						 OP_TEXT(" vcpu="), OP_VCPU(3) };
static const struct render_op v1_selftest_ops[] = { OP_TEXT("v1_selftest") };

#define OP_ARG(kind_, bytes, nr, literal) \
	{ .kind = (kind_), .size = (bytes), .offset = 8 + 8 * (nr), .text = RENDER_LITERAL(literal) }

static const struct render_op no_format_ops[] = {
	{ .kind = RENDER_UNSIGNED, .size = 2, .offset = 2,
	  .text = RENDER_LITERAL("hyp_printk Unknown hyp_string_fmt ID ") },
};
static const struct render_op plain_ops[] = { OP_TEXT("hyp_printk nothing to say") };
static const struct render_op two_ops[] = {
	OP_ARG(RENDER_HEX, 8, 0, "hyp_printk load of 0x"),
	OP_ARG(RENDER_SIGNED, 4, 1, " refused: "),
};
static const struct render_op eight_ops[] = {
	OP_ARG(RENDER_UNSIGNED, 8, 0, "hyp_printk "), OP_ARG(RENDER_UNSIGNED, 8, 1, " "),
	OP_ARG(RENDER_UNSIGNED, 8, 2, " "),	      OP_ARG(RENDER_UNSIGNED, 8, 3, " "),
	OP_ARG(RENDER_UNSIGNED, 8, 4, " "),	      OP_ARG(RENDER_UNSIGNED, 8, 5, " "),
	OP_ARG(RENDER_UNSIGNED, 8, 6, " "),	      OP_ARG(RENDER_UNSIGNED, 8, 7, " "),
};
static struct render_event format_events[] = {
	{ .ops = plain_ops, .nr_ops = ARRAY_SIZE(plain_ops) },
	{ .ops = two_ops, .nr_ops = ARRAY_SIZE(two_ops) },
	{ .ops = eight_ops, .nr_ops = ARRAY_SIZE(eight_ops) },
};
static const struct render_formats formats = {
	.formats = format_events, .nr = ARRAY_SIZE(format_events), .offset = 2, .size = 2,
};

static struct render_event events[] = {
	[HYP_EVENT_ID_hyp_enter] = { .ops = enter_ops, .nr_ops = ARRAY_SIZE(enter_ops) },
	[HYP_EVENT_ID_hyp_exit] = { .ops = exit_ops, .nr_ops = ARRAY_SIZE(exit_ops) },
	[HYP_EVENT_ID_hyp_printk] = { .ops = no_format_ops, .nr_ops = ARRAY_SIZE(no_format_ops),
				      .formats = &formats },
	[HYP_EVENT_ID_selftest] = { .ops = selftest_ops, .nr_ops = ARRAY_SIZE(selftest_ops) },
	[16] = { .ops = v1_enter_ops, .nr_ops = ARRAY_SIZE(v1_enter_ops) },
	[17] = { .ops = v1_selftest_ops, .nr_ops = ARRAY_SIZE(v1_selftest_ops) },
};

/* A remote that gives the golden pages, one per swap. */
static struct {
	struct hvc_conduit conduit;
	struct trace_buffer_meta *meta;
	u8 *pages;
	u32 given;
} remote;

static void give_page(struct hvc_conduit *conduit, u32 cpu, struct hvc_regs *regs)
{
	const struct golden_page *page = &golden.pages[remote.given];

	(void)conduit;
	(void)cpu;
	regs->x0 = 0;
	regs->x1 = (u64)-EBUSY;
	if (remote.given == golden.nr_pages)
		return;
	remote.given++;
	regs->x1 = 0;
	remote.meta->reader.id = page->id;
	remote.meta->reader.lost_events = page->lost;
	if (page->id < NR_PAGES)
		memcpy(remote.pages + (size_t)page->id * RB_PAGE_SIZE, page->image, RB_PAGE_SIZE);
}

/* More events are promised than there are, and the page that is written is none of these. */
static void start_remote(void)
{
	memset(remote.meta, 0, sizeof(*remote.meta));
	memset(remote.pages, 0, (size_t)NR_PAGES * RB_PAGE_SIZE);
	remote.conduit.hvc = give_page;
	remote.meta->entries = 1 << 20;
	remote.meta->pages_touched = 1 << 20;
	remote.given = 0;
}

static struct reader_carry carry;

static void read_text(struct reader *reader, char *out)
{
	u32 done = 0, got;

	memset(&carry, 0, sizeof(carry));
	do {
		got = reader_text(reader, 0, &carry, out + done, TEXT_MAX - 1 - done);
		done += got;
	} while (got);
	out[done] = 0;
}

static void check_text(const char *name, struct reader *reader)
{
	static char text[TEXT_MAX];

	start_remote();
	read_text(reader, text);
	if (strcmp(text, golden.text))
		fail_msg("%s: the text is\n%sinstead of\n%s", name, text, golden.text);
	assert_int_equal(remote.given, golden.nr_pages);
}

/* --- the writer, to pages ------------------------------------------------------------------ */

static struct {
	struct test_ring ring; /* memory only */
	struct trace_clock clock;
	struct hyp_trace_cpu cpu;
	u64 number; /* of the last selftest */
} writer;

static const u32 all_enabled[HYP_NR_EVENTS] = { [0 ... HYP_NR_EVENTS - 1] = 1 };

/* A clock with a multiplier of 0 stands still at its epoch. */
static void pass_time(u64 nsec)
{
	writer.clock.bank[0].epoch_ns += nsec;
}

static void write_selftest(u64 nsec)
{
	pass_time(nsec);
	trace_selftest(&writer.cpu, ++writer.number);
}

static void write_selftests(u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		write_selftest(1000);
}

static void write_mix(u32 swap)
{
	(void)swap;
	pass_time(4242123456789ULL);
	trace_hyp_enter(&writer.cpu, HYP_REASON_HVC, 0);
	writer.number = UINT64_MAX - 1;
	write_selftest(700);
	pass_time(300);
	trace_hyp_exit(&writer.cpu, HYP_REASON_ERET_HOST, -1);
	trace_hyp_enter(&writer.cpu, HYP_REASON_ERET_GUEST, -2147483647 - 1);
}

/* The formats are those above, not those of the hypervisor. */
static void write_printk(u64 fmt_id, u32 nr_args, const u64 *args)
{
	u64 values[1 + HYP_PRINTK_ARGS] = { fmt_id };

	for (u32 i = 0; i < nr_args; i++)
		values[1 + i] = args[i];
	pass_time(1000);
	(trace_hyp_printk)(&writer.cpu, nr_args, values);
}

static void write_printks(u32 swap)
{
	static const u64 refused[] = { 0xffff800000001000, (u64)-EPERM };
	static const u64 eight[] = { 0, 1, 255, 256, 65536, 1ULL << 32, INT64_MAX, UINT64_MAX };

	(void)swap;
	write_printk(0, 0, NULL);
	write_printk(1, 2, refused);
	write_printk(2, 8, eight);
	write_printk(3, 1, eight);
	write_printk(UINT16_MAX, 0, NULL);
}

static void write_deltas(u32 swap)
{
	(void)swap;
	write_selftest(5000);
	write_selftest(134217727);
	write_selftest(134217729);
}

static void write_pauses(u32 swap)
{
	(void)swap;
	write_selftest(17000001999ULL);
	write_selftest(1ULL << 27);
	write_selftest(3600000000000ULL);
	write_selftest(1ULL << 58);
}

static void write_backwards(u32 swap)
{
	(void)swap;
	write_selftest(1000);
	write_selftest(-(u64)400);
}

static void write_nothing(u32 swap)
{
	(void)swap;
}

static void write_largest(u32 swap)
{
	struct hyp_event_format_selftest *event;

	(void)swap;
	pass_time(1000);
	event = simple_ring_buffer_reserve(&writer.cpu.rb, RB_MAX_PAYLOAD, trace_clock_now,
					   &writer.clock);
	assert_non_null(event);
	event->hdr.id = HYP_EVENT_ID_selftest;
	event->id = 1;
	simple_ring_buffer_commit(&writer.cpu.rb);
}

/* SPEC H.3, first row; the second swap is for what is left. */
static void write_overrun(u32 swap)
{
	if (!swap)
		write_selftests(816);
}

/* SPEC H.3, second row. */
static void write_around_swap(u32 swap)
{
	if (swap < 2)
		write_selftests(swap ? 394 : 5);
}

static struct {
	const char *name;
	void (*write)(u32 swap); /* what is written before this swap */
	bool found;
} recipes[] = {
	{ "mix.page", write_mix, false },
	{ "printk.page", write_printks, false },
	{ "deltas.page", write_deltas, false },
	{ "time-extend.page", write_pauses, false },
	{ "clock-backwards.page", write_backwards, false },
	{ "empty.page", write_nothing, false },
	{ "full-page-of-one.page", write_largest, false },
	{ "overrun.page", write_overrun, false },
	{ "tail-on-reader-page.page", write_around_swap, false },
};

static void start_writer(void)
{
	memset(&writer, 0, sizeof(writer));
	ring_alloc(&writer.ring, RING_PAGES);
	writer.cpu.clock = &writer.clock;
	writer.cpu.enabled = all_enabled;
	writer.cpu.rb.membarrier = writer.ring.rb.membarrier;
	assert_int_equal(simple_ring_buffer_init(&writer.cpu.rb, writer.ring.bpages, RING_PAGES,
						 writer.ring.meta),
			 0);
	assert_int_equal(simple_ring_buffer_enable_tracing(&writer.cpu.rb, true), 0);
}

static void stop_writer(void)
{
	simple_ring_buffer_unload(&writer.cpu.rb);
	ring_free(&writer.ring);
}

/* Behind the commit there may be bytes of events that were overwritten. */
static void expect_page(const char *name, const struct golden_page *page)
{
	const u8 *written = writer.ring.pages + (size_t)page->id * RB_PAGE_SIZE;
	u64 commit;

	memcpy(&commit, page->image + sizeof(u64), sizeof(commit));
	for (u32 i = 0; i < RB_PAGE_HEADER + commit; i++) {
		if (written[i] != page->image[i])
			fail_msg("%s: page %u at %03x is %02x instead of %02x", name, page->id, i,
				 written[i], page->image[i]);
	}
}

/* The pages are looked at last: the one that the host owns may still be written. */
static void check_writer(const char *name, void (*write)(u32 swap))
{
	start_writer();
	for (u32 i = 0; i < golden.nr_pages; i++) {
		write(i);
		assert_int_equal(simple_ring_buffer_swap_reader_page(&writer.cpu.rb), 0);
		assert_int_equal(writer.ring.meta->reader.id, golden.pages[i].id);
		assert_int_equal(writer.ring.meta->reader.lost_events, golden.pages[i].lost);
	}
	for (u32 i = 0; i < golden.nr_pages; i++)
		expect_page(name, &golden.pages[i]);
	stop_writer();
}

/* An image of such a page is the page, but for what an image says about losses. */
static void check_images(const char *name, struct reader *reader)
{
	static u8 image[RB_PAGE_SIZE];

	start_remote();
	memset(&carry, 0, sizeof(carry));
	for (u32 i = 0; i < golden.nr_pages; i++) {
		const u8 *page = golden.pages[i].image;
		u64 commit;

		memcpy(&commit, page + sizeof(u64), sizeof(commit));
		assert_int_equal(reader_raw(reader, 0, &carry, image, sizeof(image)),
				 commit ? sizeof(image) : 0);
		if (commit && (memcmp(image, page, sizeof(u64)) ||
			       memcmp(image + RB_PAGE_HEADER, page + RB_PAGE_HEADER, commit)))
			fail_msg("%s: the image of page %u is another", name, golden.pages[i].id);
	}
}

/* --- all files --------------------------------------------------------------------------------- */

static const char *directory;

static struct reader new_reader(struct reader_cpu *cpu)
{
	*cpu = (struct reader_cpu){
		.meta = remote.meta,
		.pages = remote.pages,
		.nr_pages = NR_PAGES,
	};
	return (struct reader){
		.conduit = &remote.conduit,
		.nr_cpus = 1,
		.cpus = cpu,
		.events = { events, ARRAY_SIZE(events) },
	};
}

static void check_file(const char *name)
{
	struct reader_cpu cpu;
	struct reader reader = new_reader(&cpu);

	parse_file(directory, name);
	check_text(name, &reader);
	for (u32 i = 0; i < ARRAY_SIZE(recipes); i++) {
		if (strcmp(recipes[i].name, name))
			continue;
		recipes[i].found = true;
		check_writer(name, recipes[i].write);
		reader = new_reader(&cpu);
		check_images(name, &reader);
	}
}

static int is_page(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return dot && !strcmp(dot, ".page");
}

static void test_files(void **state)
{
	struct dirent **files;
	int nr = scandir(directory, &files, is_page, alphasort);

	(void)state;
	assert_true(nr > 0);
	for (u32 i = 0; i < ARRAY_SIZE(format_events); i++)
		assert_int_equal(render_event_check(&format_events[i]), 0);
	for (u32 i = 0; i < ARRAY_SIZE(events); i++)
		assert_false(events[i].ops && render_event_check(&events[i]));
	remote.meta = alloc_pages(1);
	remote.pages = alloc_pages(NR_PAGES);
	for (int i = 0; i < nr; i++) {
		check_file(files[i]->d_name);
		free(files[i]);
	}
	for (u32 i = 0; i < ARRAY_SIZE(recipes); i++)
		assert_true(recipes[i].found);
	free(files);
	free(remote.meta);
	free(remote.pages);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_files) };

	if (argc != 2)
		return 2;
	directory = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
