/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The events of the hypervisor: their one home. To add an event, add it here, in
 * alphabetical order (ids follow the order, SPEC E.9); record structure,
 * trace_<event>(), field table and print format are made from it.
 *
 * Included several times, each time with another meaning of HYP_EVENT: see
 * define_events.h and src/events.c.
 *
 *   HYP_EVENT(name,
 *             HE_PROTO(what trace_<name>() is called with),
 *             HE_STRUCT(he_field(type, item) ...),
 *             HE_ASSIGN(statements that fill __entry),
 *             HE_PRINTK(format, arguments that use REC->item))
 *
 * The format is what user space reads in the `format` file, and what the host
 * compiles and renders. A function in it names a table of HYP_SYMBOLS.
 */

HYP_EVENT(hyp_enter,
	  HE_PROTO(u8 reason, pid_t vcpu),
	  HE_STRUCT(he_field(u8, reason)
		    he_field(pid_t, vcpu)),
	  HE_ASSIGN(__entry->reason = reason;
		    __entry->vcpu = vcpu;),
	  HE_PRINTK("reason=%s vcpu=%d",
		    __hyp_enter_exit_reason_str(REC->reason), REC->vcpu))

HYP_EVENT(hyp_exit,
	  HE_PROTO(u8 reason, pid_t vcpu),
	  HE_STRUCT(he_field(u8, reason)
		    he_field(pid_t, vcpu)),
	  HE_ASSIGN(__entry->reason = reason;
		    __entry->vcpu = vcpu;),
	  HE_PRINTK("reason=%s vcpu=%d",
		    __hyp_enter_exit_reason_str(REC->reason), REC->vcpu))

HYP_EVENT(selftest,
	  HE_PROTO(u64 id),
	  HE_STRUCT(he_field(u64, id)),
	  HE_ASSIGN(__entry->id = id;),
	  HE_PRINTK("id=%llu", REC->id))
