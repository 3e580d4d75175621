/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two sides, each a coroutine, and every order in which their steps can come.
 *
 * A side calls il_step() before each access to something shared. There it stops, and
 * whose step is next is tried both ways. All that the sides change lies in memory that
 * can be copied (struct il_problem, the stacks), so a state is a copy of that memory:
 * a state that has been there before is not gone through again, which is what makes
 * "every order" possible. What a step leads to depends on nothing else.
 *
 * The order is one order for all: what a weak memory model adds is not seen here.
 *
 * Here: the sides and their steps. interleave_search.h: the orders.
 */
#ifndef RINGBUF_C_TESTS_INTERLEAVE_H
#define RINGBUF_C_TESTS_INTERLEAVE_H

#include <stdlib.h>
#include <string.h>

#include "ringbuf_c/types.h"

enum il_side_nr { IL_WRITER, IL_HOST, IL_SIDES };

#define IL_STACK_SIZE 2048U

struct il_problem {
	void (*setup)(void);             /* fills the state */
	void (*body[IL_SIDES])(void);    /* what a side does */
	void (*check)(void);             /* in each state */
	void *state;                     /* all that setup, bodies and check use and change */
	size_t size;                     /* of it; a multiple of 8 */
};

struct il_side {
	u64 *sp;
	const char *at;  /* the access that it is about to make */
	bool done;
	bool waits;      /* it can only look again: until the other side has made a step */
	bool joins;      /* until the other side is done */
};

static struct il_side il_sides[IL_SIDES];
static u8 il_stacks[IL_SIDES][IL_STACK_SIZE] __attribute__((aligned(16)));

/* Not part of a state: */
static const struct il_problem *il_problem;
static u64 *il_scheduler_sp;
static u32 il_current = IL_SIDES; /* IL_SIDES: no side runs, and a step is nothing */
static struct {
	const char *format;
	u64 a, b;
} il_failure;

/* --- switching ------------------------------------------------------------------------- */

/*
 * Leaves the registers that a call preserves on this stack, and goes on with the other
 * one. The other registers are cleared: what a compiler leaves of them in holes of its
 * frames has to depend on the state alone, or equal states are taken for different ones.
 */
void il_switch(u64 **save_sp, u64 *load_sp);
void il_entry(void);

#if defined(__x86_64__)
__asm__(".text\n"
	".globl il_switch\n"
	".type il_switch, @function\n"
	"il_switch:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	xor %eax, %eax\n"
	"	xor %ecx, %ecx\n"
	"	xor %edx, %edx\n"
	"	xor %esi, %esi\n"
	"	xor %edi, %edi\n"
	"	xor %r8d, %r8d\n"
	"	xor %r9d, %r9d\n"
	"	xor %r10d, %r10d\n"
	"	xor %r11d, %r11d\n"
	"	ret\n"
	".size il_switch, . - il_switch\n");
#define IL_FRAME_WORDS 8 /* the last one: the return address that il_entry() finds */
#define IL_FRAME_ENTRY 6
#elif defined(__aarch64__)
__asm__(".text\n"
	".globl il_switch\n"
	".type il_switch, %function\n"
	"il_switch:\n"
	"	stp x29, x30, [sp, #-160]!\n"
	"	stp x19, x20, [sp, #16]\n"
	"	stp x21, x22, [sp, #32]\n"
	"	stp x23, x24, [sp, #48]\n"
	"	stp x25, x26, [sp, #64]\n"
	"	stp x27, x28, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp x27, x28, [sp, #80]\n"
	"	ldp x25, x26, [sp, #64]\n"
	"	ldp x23, x24, [sp, #48]\n"
	"	ldp x21, x22, [sp, #32]\n"
	"	ldp x19, x20, [sp, #16]\n"
	"	ldp x29, x30, [sp], #160\n"
	"	.irp nr, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17\n"
	"	mov x\\nr, xzr\n"
	"	.endr\n"
	"	ret\n"
	".size il_switch, . - il_switch\n");
#define IL_FRAME_WORDS 20
#define IL_FRAME_ENTRY 1
#else
#error "no switch between stacks for this machine"
#endif

static void il_to_scheduler(void)
{
	il_switch(&il_sides[il_current].sp, il_scheduler_sp);
}

void il_entry(void)
{
	il_problem->body[il_current]();
	il_sides[il_current].done = true;
	il_to_scheduler();
	abort(); /* it was done */
}

/* Below the stack pointer nothing is alive: equal states have to look equal. */
static void il_clear_dead(u32 nr)
{
	size_t dead = (size_t)((u8 *)il_sides[nr].sp - il_stacks[nr]);

	if (dead > IL_STACK_SIZE)
		abort(); /* the stack is too small */
	memset(il_stacks[nr], 0, dead);
}

/* Until the next step of @nr, which is not made yet. */
static void il_run(u32 nr)
{
	il_current = nr;
	il_switch(&il_scheduler_sp, il_sides[nr].sp);
	il_current = IL_SIDES;
	il_clear_dead(nr);
	il_sides[!nr].waits = false;
}

static void il_start(void)
{
	memset(il_sides, 0, sizeof(il_sides));
	memset(il_stacks, 0, sizeof(il_stacks));
	il_failure.format = NULL;
	il_problem->setup();
	for (u32 nr = 0; nr < IL_SIDES; nr++) {
		u64 *sp = (u64 *)(il_stacks[nr] + IL_STACK_SIZE) - IL_FRAME_WORDS;

		sp[IL_FRAME_ENTRY] = (u64)(uintptr_t)il_entry;
		il_sides[nr].sp = sp;
		il_run(nr);
	}
}

/* --- what the sides call --------------------------------------------------------------- */

/* Alone, a side has no steps: there is but one order. */
static void il_step(const char *at)
{
	if (il_current == IL_SIDES || il_sides[!il_current].done)
		return;
	il_sides[il_current].at = at;
	il_to_scheduler();
}

/* The format takes two u64. In a coroutine there is no room for a printf(). */
static void il_fail(const char *format, u64 a, u64 b)
{
	if (!il_failure.format) {
		il_failure.format = format;
		il_failure.a = a;
		il_failure.b = b;
	}
	if (il_current != IL_SIDES)
		il_to_scheduler(); /* for ever */
}

static void il_check(bool good, const char *format, u64 a, u64 b)
{
	if (unlikely(!good))
		il_fail(format, a, b);
}

/* A look at something was in vain: the next step is another look, it can wait. */
static void il_relax(void)
{
	if (il_current == IL_SIDES || il_sides[!il_current].done)
		il_fail("waits for nobody", 0, 0);
	else
		il_sides[il_current].waits = true;
}

/* Until the other side is done. */
static void il_join(void)
{
	il_sides[il_current].joins = true;
	il_step("until the other side is done");
}

#endif
