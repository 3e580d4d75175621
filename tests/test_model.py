"""The hypervisor as an object: its life, and what it says of itself."""

from __future__ import annotations

import errno

import pytest

from hypervisor_model import Hypervisor, SymbolTable, Workload, load_workload
from hyptracefs.clock import Conversion, Snapshot
from hyptracefs.hypercalls import Hypercalls
from tests.decoder import REASONS
from tests.support import hypervisor, raises_errno


def test_close_twice_is_close_once() -> None:
    made = Hypervisor(2, load_workload("idle", 2))
    made.close()
    made.close()


def test_conduit_of_a_closed_hypervisor_is_refused() -> None:
    with hypervisor() as made:
        assert made.conduit
    with pytest.raises(ValueError, match="closed"):
        _ = made.conduit


@pytest.mark.parametrize("cpus", [1, 2, 64])
def test_hypervisor_starts_and_ends_with_any_number_of_cpus(cpus: int) -> None:
    with hypervisor("replay", cpus) as made:
        assert made.cpus == cpus


@pytest.mark.parametrize("cpus", [0, 2**32 - 1])
def test_impossible_number_of_cpus_is_an_error_that_says_what_failed(cpus: int) -> None:
    with pytest.raises(OSError, match=rf"hypervisor model: create {cpus} CPUs: "):
        Hypervisor(cpus, Workload({}, 0))


def test_script_for_a_cpu_that_is_not_there_is_refused() -> None:
    script = load_workload("replay", 2)
    with pytest.raises(OSError, match=r"hypervisor model: script of CPU 1: "):
        Hypervisor(1, script)


def u64(name: str) -> tuple[str, str, int, bool]:
    return ("u64", name, 8, False)


def test_events_have_fields_within_their_record() -> None:
    with hypervisor() as made:
        described = {
            event.name: [
                (field.type, field.name, field.size, field.signed) for field in event.fields
            ]
            for event in made.events
        }
    reason = [("u8", "reason", 1, False), ("pid_t", "vcpu", 4, True)]
    assert described == {
        "host_ffa_call": [
            *(u64(name) for name in ("func_id", "res_a1", "res_a2", "res_a3", "res_a4")),
            ("int", "handled", 4, True),
            ("int", "err", 4, True),
        ],
        "host_hcall": [("u32", "id", 4, False), ("u8", "invalid", 1, False)],
        "host_mem_abort": [u64("esr"), u64("addr")],
        "host_smc": [u64("id"), ("u8", "forwarded", 1, False)],
        "hyp_enter": reason,
        "hyp_exit": reason,
        "hyp_printk": [("u16", "fmt_id", 2, False), ("u64[]", "args", 0, False)],
        "iommu_idmap": [u64("from"), u64("to"), ("int", "prot", 4, True)],
        "psci_mem_protect": [u64("count"), u64("was")],
        "selftest": [u64("id")],
        "vcpu_illegal_trap": [u64("esr")],
    }


# SPEC F.4
_FORMATS = {
    "host_ffa_call": "ffa_func=0x%llx a1=0x%llx a2=0x%llx a3=0x%llx a4=%llx handled=%d err=%d",
    "host_hcall": "id=%u invalid=%u",
    "host_mem_abort": "esr=0x%llx addr=0x%llx",
    "host_smc": "id=%llu forwarded=%u",
    "hyp_enter": "reason=%s vcpu=%d",
    "hyp_exit": "reason=%s vcpu=%d",
    "hyp_printk": "fmt_id=%u",
    "iommu_idmap": "from=0x%llx to=0x%llx prot=0x%x",
    "psci_mem_protect": "count=%llu was=%llu",
    "selftest": "id=%llu",
    "vcpu_illegal_trap": "esr_el2=%llx",
}


def test_formats_are_those_of_the_catalogue() -> None:
    with hypervisor() as made:
        formats = {event.name: event.print_fmt.split('"')[1] for event in made.events}
    assert formats == _FORMATS


def test_reasons_are_those_of_linux_7_2() -> None:
    with hypervisor() as made:
        assert made.symbol_tables == (
            SymbolTable("__hyp_enter_exit_reason_str", tuple(enumerate(REASONS)), "unknown"),
        )


@pytest.mark.parametrize("event_id", [0, 5, 2**16, 2**32 + 1])
def test_hypercall_about_an_unknown_event_is_einval(event_id: int) -> None:
    with hypervisor() as made:
        calls = Hypercalls(made.conduit, made.cpus)
        with raises_errno(errno.EINVAL):
            calls.enable_event(event_id, on=True)


def test_failed_hypercall_says_which_and_why() -> None:
    with hypervisor() as made:
        calls = Hypercalls(made.conduit, made.cpus)
        with pytest.raises(OSError, match=r"hypervisor: tracing_enable\(True,\): Invalid argument"):
            calls.enable(on=True)


@pytest.mark.parametrize(("cpu", "number"), [(0, errno.ENODEV), (2, errno.EINVAL)])
def test_reset_of_a_cpu_without_a_buffer_is_refused(cpu: int, number: int) -> None:
    with hypervisor() as made:
        calls = Hypercalls(made.conduit, made.cpus)
        with raises_errno(number):
            calls.reset(cpu)


def test_calls_that_need_no_buffer_work_without_one() -> None:
    with hypervisor() as made:
        calls = Hypercalls(made.conduit, made.cpus)
        calls.unload()
        calls.enable(on=False)
        calls.update_clock(Conversion(1, 0, Snapshot(0, 0)))
        calls.write_event(7, 1)


@pytest.mark.parametrize("size", [0, 1, 4095, 4097])
def test_load_of_a_descriptor_that_is_not_whole_pages_is_refused(size: int) -> None:
    with hypervisor() as made:
        calls = Hypercalls(made.conduit, made.cpus)
        with raises_errno(errno.EINVAL):
            calls.load(0x1000, size, 0, 0)


def test_it_says_how_its_writers_are_kept_in_order() -> None:
    with Hypervisor(1, load_workload("idle", 1)) as made:
        assert made.writer_ordering in ("membarrier", "cmpxchg")
