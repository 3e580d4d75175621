// SPDX-License-Identifier: Apache-2.0
/*
 * One writer and one host's side, in every order of their steps: each access of ring.c
 * to a shared word, each word of an event, and each access of the host is a step.
 * interleave.h tells how all orders can be gone through.
 *
 *   test_interleavings         the set for ctest
 *   test_interleavings long    every combination
 *   test_interleavings SCENARIO...  one, as it is printed when it fails; with a
 *                              schedule at the end only this order, step by step
 */
#include "interleave_host.h"
#include "interleave_search.h"

/* --- the host's side: what it does --------------------------------------------------------- */

static const struct host_op {
	char letter;
	void (*run)(void);
	const char *name;
} host_ops[] = {
	{ 'p', host_poll, "poll" },	  { 'r', host_read, "read" },
	{ 's', host_swap, "swap" },	  { 'R', host_reset, "reset" },
	{ 'd', host_disable, "disable" }, { 'e', host_enable, "enable" },
	{ 'U', host_unload, "unload" },	  { 'L', host_load, "load" },
	{ 'i', host_read_image, "image" },  { 't', host_look_for_tail, "tail" },
};

static const struct host_op *find_op(char letter)
{
	for (u32 i = 0; i < ARRAY_SIZE(host_ops); i++) {
		if (host_ops[i].letter == letter)
			return &host_ops[i];
	}
	fprintf(stderr, "%c: not an operation of the host\n", letter);
	exit(2);
}

static void check_owns_tail(void)
{
	il_check(owns_tail() == (now.rb.tail == now.rb.reader),
		 "the tail is page %llu, ours %llu: the counters say the contrary", now.rb.tail,
		 now.rb.reader);
}

/* Nothing may be missing, and nothing counted twice. */
static void read_what_is_left(void)
{
	check_owns_tail();
	host_poll();
	for (u32 swaps = 0; in_batch(); swaps++) {
		il_check(swaps <= scenario.nr_pages, "swaps without end", 0, 0);
		host_swap();
		host_read();
	}
	check_owns_tail();
	check_counters();
	il_check(now.expected == now.serial + 1, "%llu is next, %llu was last", now.expected,
		 now.serial);
	il_check(now.entries == now.read + now.meta.overrun, "%llu read, %llu overrun", now.read,
		 now.meta.overrun);
	il_check(now.lost == now.meta.overrun, "%llu reported as lost, overrun %llu", now.lost,
		 now.meta.overrun);
}

static void host(void)
{
	for (const char *op = scenario.host; *op; op++)
		find_op(*op)->run();
	il_join();
	if (simple_rb_loaded(&now.rb))
		read_what_is_left();
	else
		check_poison();
}

/* --- every state --------------------------------------------------------------------------- */

/*
 * The circle is whole, and there is one head; or none, while the writer moves it away
 * from the page that it wants. The link that says so may be behind the head, and it may
 * be outside the circle, since the tail may have been taken meanwhile.
 */
static void check_links(void)
{
	const struct simple_rb_per_cpu *rb = &now.rb;
	u32 first = rb->reader ? 0 : 1;
	u32 page = first, heads = 0, moving = 0;

	for (u32 i = 0; i < rb->nr_pages - 1; i++) {
		u64 link = now.bpages[page].next;
		u32 next = link_page(link);

		heads += link_flag(link) == LINK_HEAD;
		moving += link_flag(link) == LINK_HEAD_MOVING;
		il_check(next < rb->nr_pages && now.bpages[next].prev == page,
			 "page %llu leads to %llu, which is not behind it", page, next);
		il_check(next != rb->reader && (next != first) == (i + 2 < rb->nr_pages),
			 "page %llu leads to %llu: not a circle", page, next);
		if (il_failure.format)
			return;
		page = next;
	}
	il_check(heads + moving >= 1 && heads <= 1 && moving <= 1, "%llu heads, %llu moving",
		 heads, moving);
	il_check(rb->writing || (heads == 1 && !moving), "nobody writes: %llu heads, %llu moving",
		 heads, moving);
}

/* Without `end` no event has been begun since the tail moved there: it may be half way. */
static void check_tail(void)
{
	const struct simple_rb_per_cpu *rb = &now.rb;

	il_check(rb->write <= RB_PAGE_CAPACITY, "%llu bytes are reserved", rb->write, 0);
	il_check(!rb->end || rb->page->commit <= rb->write,
		 "the tail shows %llu bytes, %llu are reserved", rb->page->commit, rb->write);
}

static void check_state(void)
{
	if (!simple_rb_loaded(&now.rb))
		return;
	check_links();
	check_tail();
}

/* Until the next event makes the tail catch the head. */
static void fill_ring(void)
{
	const struct simple_rb_per_cpu *rb = &now.rb;

	while (link_flag(rb->bpages[rb->tail].next) != LINK_HEAD ||
	       rb->write + event_size(now.serial + 1) <= RB_PAGE_CAPACITY)
		write_event();
}

static void prepare(char op)
{
	if (op == 'F')
		fill_ring();
	else if (op < '1' || op > '9')
		find_op(op)->run();
	else
		for (u32 i = 0; i < (u32)(op - '0'); i++)
			write_event();
}

static void setup(void)
{
	memset(&now, 0, sizeof(now));
	now.stepped = true;
	now.rb.membarrier = scenario.locked ? NULL : no_membarrier;
	now.rb.relax = relax;
	swap_retries = scenario.swap_retries;
	load();
	for (const char *op = scenario.before; *op; op++)
		prepare(*op);
}

static const struct il_problem problem = {
	.setup = setup,
	.body = { writer, host },
	.check = check_state,
	.state = &now,
	.size = sizeof(now),
};

_Static_assert(sizeof(now) % sizeof(u64) == 0, "hashed by words");

/* --- sets of scenarios --------------------------------------------------------------------- */

static struct {
	u64 scenarios, states, transitions;
	long double interleavings;
} total;

static void print_scenario(void)
{
	printf("%u pages, %u events (%s, %s) after '%s', host:", scenario.nr_pages,
	       scenario.nr_events, scenario.sizes, scenario.locked ? "cmpxchg" : "membarrier",
	       scenario.before);
	for (const char *op = scenario.host; *op; op++)
		printf(" %s", find_op(*op)->name);
	if (scenario.swap_retries != 8)
		printf(", retries %u", scenario.swap_retries);
}

static void fail_scenario(void)
{
	printf(": FAILED\n");
	il_print_failure();
	il_replay(&problem, il_path);
	printf("again: test_interleavings %u %u %s '%s' '%s' %s %u %s\n", scenario.nr_pages,
	       scenario.nr_events, scenario.sizes, scenario.before, scenario.host,
	       scenario.locked ? "cmpxchg" : "membarrier", scenario.swap_retries, il_path);
	exit(1);
}

static void run_scenario(void)
{
	struct il_result result;

	print_scenario();
	fflush(stdout);
	if (!il_search(&problem, &result))
		fail_scenario();
	printf(": %llu states, %.6Lg interleavings\n", (unsigned long long)result.states,
	       result.interleavings);
	total.scenarios++;
	total.states += result.states;
	total.transitions += result.transitions;
	total.interleavings += result.interleavings;
}

/* Empty; the tail on the reader's page; full; lost pages; stale reader pages. */
static const char *const befores[] = { "", "1ps", "F", "F1", "F2", "Fpsr", "FpsrF", "F9psrF" };

static const char *const hosts[] = {
	"psr",	  "psrsr",   "psipsi", "psrpsrpsr",    /* reading */
	"R",	  "psRpsr",  "psRUL",  "dRe",	       /* from the beginning */
	"depsr",  "psdpsre", "psU",    "UL",	"psULpsr",     /* off and on */
	"pst",
};

/* One event to a page; changing bounds; a TIME_EXTEND, and one that finds no room. */
static const char *const sizes[] = { "d", "acb", "aAaaAb" };

/* Scenarios: from each start, on each number of pages. */
struct set {
	const char *host;  /* NULL: each of hosts[] */
	const char *sizes; /* NULL: each of sizes[] */
	u32 nr_events;
	u32 swap_retries;
	enum { MIXED, MEMBARRIER, LOCKED } writer; /* MIXED: taking turns */
};

/* For ctest: some seconds. */
static const struct set short_sets[] = {
	{ NULL, NULL, 2, 8, MIXED },	 { "psr", "aAaaAb", 6, 8, MIXED },
	{ "psr", "d", 4, 8, MEMBARRIER }, { "psrsr", "d", 3, 1, MIXED },
	{ "Rpsr", "d", 4, 8, MIXED }, /* a tag from before the reset comes again */
	{ "R", NULL, 6, 8, MIXED },	 { "dRe", NULL, 6, 8, MIXED },
	{ "UL", NULL, 6, 8, MIXED },	 { "de", NULL, 6, 8, MIXED },
};

/* Some minutes. */
static const struct set long_sets[] = {
	{ NULL, NULL, 1, 8, MEMBARRIER }, { NULL, NULL, 1, 8, LOCKED },
	{ NULL, NULL, 2, 8, MEMBARRIER }, { NULL, NULL, 2, 8, LOCKED },
	{ NULL, NULL, 3, 8, MEMBARRIER }, { NULL, NULL, 3, 8, LOCKED },
	{ NULL, NULL, 3, 1, MEMBARRIER }, { NULL, NULL, 4, 8, MIXED },
	{ NULL, NULL, 4, 2, MIXED },	  { NULL, NULL, 6, 8, MIXED },
};

static void run_starts(const struct set *set, const char *script, const char *pattern)
{
	for (u32 nr_pages = RB_MIN_PAGES; nr_pages <= MAX_PAGES; nr_pages++) {
		for (u32 i = 0; i < ARRAY_SIZE(befores); i++) {
			bool turn = (nr_pages + i) & 1;

			scenario = (struct scenario){
				.nr_pages = nr_pages,
				.nr_events = set->nr_events,
				.sizes = pattern,
				.before = befores[i],
				.host = script,
				.locked = set->writer == MIXED ? turn : set->writer == LOCKED,
				.swap_retries = set->swap_retries,
			};
			run_scenario();
		}
	}
}

static void run_sizes(const struct set *set, const char *script)
{
	if (set->sizes) {
		run_starts(set, script, set->sizes);
		return;
	}
	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++)
		run_starts(set, script, sizes[i]);
}

static void run_set(const struct set *set)
{
	if (set->host) {
		run_sizes(set, set->host);
		return;
	}
	for (u32 i = 0; i < ARRAY_SIZE(hosts); i++)
		run_sizes(set, hosts[i]);
}

static int run_sets(const struct set *sets, u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		run_set(&sets[i]);
	printf("%llu scenarios: %llu states, %llu transitions, %.6Lg interleavings\n",
	       (unsigned long long)total.scenarios, (unsigned long long)total.states,
	       (unsigned long long)total.transitions, total.interleavings);
	if (seen.busy && seen.lost && seen.refused && seen.extended && seen.waited)
		return 0;
	printf("FAILED: busy %d, lost %d, refused %d, extended %d, waited %d: never seen\n",
	       seen.busy, seen.lost, seen.refused, seen.extended, seen.waited);
	return 1;
}

/* As fail_scenario() prints it. */
static int run_one(char **words, const char *schedule)
{
	scenario = (struct scenario){
		.nr_pages = (u32)atoi(words[0]),
		.nr_events = (u32)atoi(words[1]),
		.sizes = words[2],
		.before = words[3],
		.host = words[4],
		.locked = !strcmp(words[5], "cmpxchg"),
		.swap_retries = (u32)atoi(words[6]),
	};
	if (schedule)
		return il_replay(&problem, schedule) ? 0 : 1;
	run_scenario();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 1)
		return run_sets(short_sets, ARRAY_SIZE(short_sets));
	if (argc == 2 && !strcmp(argv[1], "long"))
		return run_sets(long_sets, ARRAY_SIZE(long_sets));
	if (argc == 8 || argc == 9)
		return run_one(argv + 1, argv[8]);
	fprintf(stderr, "usage: %s [long | PAGES EVENTS SIZES BEFORE HOST "
		"membarrier|cmpxchg RETRIES [SCHEDULE]]\n", argv[0]);
	return 2;
}
