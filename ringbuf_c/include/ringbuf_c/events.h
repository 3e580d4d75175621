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
 *             HE_STRUCT(he_field(type, item) ... he_array(type, item, how many)),
 *             HE_ASSIGN(statements that fill __entry),
 *             HE_PRINTK(format, arguments that use REC->item))
 *
 * The format is what user space reads in the `format` file, and what the host
 * compiles and renders. A function in it names a symbol table of src/events.c. The
 * parameters are the fields, in their order: steps of a script give them like that. An
 * array is the last field, as long as its third argument says, and ends the record.
 *
 * hyp_printk says which of the formats of string_fmts.h it is, and its arguments; their
 * texts stay with whoever reads. trace_hyp_printk() of define_events.h writes it.
 */

HYP_EVENT(host_ffa_call,
	  HE_PROTO(u64 func_id, u64 res_a1, u64 res_a2, u64 res_a3, u64 res_a4, int handled,
		   int err),
	  HE_STRUCT(he_field(u64, func_id)
		    he_field(u64, res_a1)
		    he_field(u64, res_a2)
		    he_field(u64, res_a3)
		    he_field(u64, res_a4)
		    he_field(int, handled)
		    he_field(int, err)),
	  HE_ASSIGN(__entry->func_id = func_id;
		    __entry->res_a1 = res_a1;
		    __entry->res_a2 = res_a2;
		    __entry->res_a3 = res_a3;
		    __entry->res_a4 = res_a4;
		    __entry->handled = handled;
		    __entry->err = err;),
	  HE_PRINTK("ffa_func=0x%llx a1=0x%llx a2=0x%llx a3=0x%llx a4=%llx handled=%d err=%d",
		    REC->func_id, REC->res_a1, REC->res_a2, REC->res_a3, REC->res_a4,
		    REC->handled, REC->err))

HYP_EVENT(host_hcall,
	  HE_PROTO(u32 id, u8 invalid),
	  HE_STRUCT(he_field(u32, id)
		    he_field(u8, invalid)),
	  HE_ASSIGN(__entry->id = id;
		    __entry->invalid = invalid;),
	  HE_PRINTK("id=%u invalid=%u", REC->id, REC->invalid))

HYP_EVENT(host_mem_abort,
	  HE_PROTO(u64 esr, u64 addr),
	  HE_STRUCT(he_field(u64, esr)
		    he_field(u64, addr)),
	  HE_ASSIGN(__entry->esr = esr;
		    __entry->addr = addr;),
	  HE_PRINTK("esr=0x%llx addr=0x%llx", REC->esr, REC->addr))

HYP_EVENT(host_smc,
	  HE_PROTO(u64 id, u8 forwarded),
	  HE_STRUCT(he_field(u64, id)
		    he_field(u8, forwarded)),
	  HE_ASSIGN(__entry->id = id;
		    __entry->forwarded = forwarded;),
	  HE_PRINTK("id=%llu forwarded=%u", REC->id, REC->forwarded))

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

HYP_EVENT(hyp_printk,
	  HE_PROTO(u32 nr_args, const u64 *values),
	  HE_STRUCT(he_field(u16, fmt_id)
		    he_array(u64, args, nr_args)),
	  HE_ASSIGN(__entry->fmt_id = (u16)values[0];
		    for (u32 i = 0; i < nr_args; i++)
			    __entry->args[i] = values[1 + i];),
	  HE_PRINTK("fmt_id=%u", REC->fmt_id))

HYP_EVENT(iommu_idmap,
	  HE_PROTO(u64 from, u64 to, int prot),
	  HE_STRUCT(he_field(u64, from)
		    he_field(u64, to)
		    he_field(int, prot)),
	  HE_ASSIGN(__entry->from = from;
		    __entry->to = to;
		    __entry->prot = prot;),
	  HE_PRINTK("from=0x%llx to=0x%llx prot=0x%x", REC->from, REC->to, REC->prot))

HYP_EVENT(psci_mem_protect,
	  HE_PROTO(u64 count, u64 was),
	  HE_STRUCT(he_field(u64, count)
		    he_field(u64, was)),
	  HE_ASSIGN(__entry->count = count;
		    __entry->was = was;),
	  HE_PRINTK("count=%llu was=%llu", REC->count, REC->was))

HYP_EVENT(selftest,
	  HE_PROTO(u64 id),
	  HE_STRUCT(he_field(u64, id)),
	  HE_ASSIGN(__entry->id = id;),
	  HE_PRINTK("id=%llu", REC->id))

HYP_EVENT(vcpu_illegal_trap,
	  HE_PROTO(u64 esr),
	  HE_STRUCT(he_field(u64, esr)),
	  HE_ASSIGN(__entry->esr = esr;),
	  HE_PRINTK("esr_el2=%llx", REC->esr))
