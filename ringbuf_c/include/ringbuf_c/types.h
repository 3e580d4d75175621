/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer types, single-copy-atomic accesses and a few small helpers.
 *
 * Everything under ringbuf_c/ is freestanding C11: it includes compiler headers
 * and the kernel's errno numbers, and calls nothing outside itself, so that the
 * same objects can be linked into a hypervisor image (SPEC K).
 *
 * Ordering vocabulary. Each use names its partner ("pairs with ..."):
 *   READ_ONCE / WRITE_ONCE   one untorn access, no ordering
 *   smp_load_acquire         later accesses stay after this load
 *   smp_store_release        earlier accesses stay before this store
 *   *_sc                     in one order with all other *_sc, on every CPU
 *   smp_wmb                  earlier stores stay before later ones
 *   barrier                  for the compiler only
 *
 * In square brackets, a name: `[commit] pairs with [see_commit]`. The model in
 * ringbuf_c/model takes the ordering of each named place from the source.
 */
#ifndef RINGBUF_C_TYPES_H
#define RINGBUF_C_TYPES_H

#include <linux/errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef int pid_t; /* as the kernel's: events name it in their fields */

#ifndef __always_inline /* glibc's sys/cdefs.h defines the same */
#define __always_inline inline __attribute__((always_inline))
#endif
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define READ_ONCE(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
#define smp_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define smp_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

#ifdef __SANITIZE_THREAD__ /* knows no fences */
#define smp_wmb() barrier()
#else
#define smp_wmb() __atomic_thread_fence(__ATOMIC_RELEASE)
#endif

#define load_sc(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define store_sc(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
#define barrier() __atomic_signal_fence(__ATOMIC_SEQ_CST)

/**
 * try_cmpxchg - replace @old by @new, with acquire and release ordering.
 * @p: the word
 * @old: expected value; holds the value seen when the exchange fails
 * @new: value to store
 *
 * Evaluates to true when it stored @new.
 */
#define try_cmpxchg(p, old, new) \
	__atomic_compare_exchange_n((p), (old), (new), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)

/** try_cmpxchg_sc - the same as one of the *_sc. */
#define try_cmpxchg_sc(p, old, new) \
	__atomic_compare_exchange_n((p), (old), (new), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

/** xchg - store @v, with acquire and release ordering. Evaluates to what was there. */
#define xchg(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)

#define round_up_u32(x, to) (((u32)(x) + ((u32)(to) - 1)) & ~((u32)(to) - 1))

#endif
