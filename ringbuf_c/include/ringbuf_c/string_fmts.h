/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The formats of hyp_printk: their one home. To print something, add a format here and
 * call trace_hyp_printk(cpu, HYP_FMT_<name>, arguments...) of define_events.h.
 *
 * Included several times, each time with another meaning of HYP_STRING_FMT:
 *
 *   HYP_STRING_FMT(name, number of arguments, text)
 *
 * Arguments are up to HYP_PRINTK_ARGS integers, and each of them is recorded as a u64;
 * a conversion takes as many of the low bytes as it has in C: no %s, and %p is a
 * number. The text is only ever looked at by the host, who gets the table when it
 * attaches. A newline at its end says nothing: an event is a line.
 */

HYP_STRING_FMT(tracing_on, 2, "tracing on: %u CPUs, %llu KiB shared\n")
HYP_STRING_FMT(load_refused, 3, "load of 0x%llx, %llu bytes: refused: %d\n")
HYP_STRING_FMT(unknown_hcall, 1, "host made unknown hypercall %u\n")
HYP_STRING_FMT(vcpu_loaded, 2, "vCPU %d loaded on CPU %u\n")
HYP_STRING_FMT(ffa_refused, 2, "FF-A call 0x%x refused: %d\n")
HYP_STRING_FMT(cpu_back, 1, "CPU %u is back\n")
