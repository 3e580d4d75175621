"""Workloads: what the pCPUs do, by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hypervisor_model.recording import Recording, parse_recording, script
from hypervisor_model.script import Program, Step, Workload

log = logging.getLogger(__name__)

RECORDING = Path(__file__).parent / "data" / "pkvm-guest-session.txt"

_SECOND = 1_000_000_000  # ns
_MAX_VCPUS = 1024
_MAX_SEED = 2**63 - 1
_MAX_RATE = 100_000_000
_CHAOS_VCPUS = 3


def _number(what: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ValueError(f"{what} {text!r} is not a number from {low} to {high}")
    return int(text)


# --- replay -------------------------------------------------------------------------------


def _record(path: Path) -> Recording:
    try:
        with path.open(encoding="ascii") as lines:
            return parse_recording(lines)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not the text of a trace_pipe") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _replay(arguments: str, cpus: int) -> Workload:
    if arguments and not arguments.startswith("/"):
        raise ValueError(f"{arguments}: not an absolute path")
    path = Path(arguments) if arguments else RECORDING
    recording = _record(path)
    try:
        workload = script(recording, cpus)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for what, number in recording.skipped.items():
        if number:
            log.warning("workload replay: %s: %d %s left out", path, number, what)
    return workload


# --- idle, guest, chaos ---------------------------------------------------------------------


def _idle(arguments: str, cpus: int) -> Workload:  # noqa: ARG001
    if arguments:
        raise ValueError(f"{arguments!r}: it takes no arguments")
    return Workload({}, 0)


def _guest(arguments: str, cpus: int) -> Workload:
    vcpus_text, _, seed_text = arguments.partition(":")
    vcpus = _number("VCPUS", vcpus_text or "4", 1, _MAX_VCPUS)
    seed = _number("SEED", seed_text or "1", 0, _MAX_SEED)
    return Workload(
        {},
        0,
        {
            cpu: Program("guest", vcpus // cpus + (cpu < vcpus % cpus), seed)
            for cpu in range(min(cpus, vcpus))
        },
    )


def _chaos(arguments: str, cpus: int) -> Workload:
    seed = _number("SEED", arguments or "1", 0, _MAX_SEED)
    return Workload({}, 0, {cpu: Program("chaos", _CHAOS_VCPUS, seed) for cpu in range(cpus)})


# --- storm ----------------------------------------------------------------------------------

_Event = tuple[str, tuple[int | str, ...]]
_HVC: list[_Event] = [("hyp_enter", ("hvc", 0)), ("hyp_exit", ("eret_host", 0))]
_VCPU = 4000


def _trap(reason: str, *inside: _Event) -> list[_Event]:
    return [("hyp_enter", (reason, 0)), *inside, ("hyp_exit", ("eret_host", 0))]


MIXES: dict[str, list[_Event]] = {
    "enter-exit": _HVC,
    "all": [
        *_trap("hvc", ("host_hcall", (7, 0)), ("selftest", (1,))),
        *_trap("hvc", ("host_hcall", (23, 0)), ("psci_mem_protect", (1, 0))),
        *_trap(
            "hvc",
            ("host_hcall", (999, 1)),
            ("hyp_printk", ("host made unknown hypercall %u\n", 999)),
        ),
        *_trap("sys"),
        *_trap(
            "host_abort",
            ("host_mem_abort", (0x93800007, 0x80001234)),
            ("iommu_idmap", (0x80001000, 0x80002000, 3)),
        ),
        *_trap(
            "smc",
            ("host_smc", (0xC4000073, 0)),
            ("hyp_exit", ("smc", 0)),
            ("hyp_enter", ("smc", 0)),
            ("host_ffa_call", (0xC4000073, 0x84000061, 0, 1, 0, 1, 0)),
        ),
        *_trap(
            "hvc",
            ("host_hcall", (22, 0)),
            ("hyp_exit", ("eret_guest", _VCPU)),
            ("hyp_enter", ("guest_exit", _VCPU)),
            ("vcpu_illegal_trap", (0x62000000,)),
        ),
    ],
}
"""Events of a storm, in turn."""

# Closer than this, events come in batches: no thread keeps such a pace.
_BATCH_NS = 50_000
_MAX_SPEED_EVENTS = 1000


def _paced(events: list[_Event], rate: int) -> Workload:
    interval = _SECOND // rate
    steps = [Step(i * interval, event, args) for i, (event, args) in enumerate(events)]
    return Workload({0: steps}, len(events) * interval)


def _batch(events: list[_Event], least: int) -> list[Step]:
    """At least so many steps, all at once."""
    steps = [Step(0, event, args) for event, args in events]
    return steps * -(-least // len(events))


def _batches(events: list[_Event], rate: int) -> Workload:
    steps = _batch(events, rate * _BATCH_NS // _SECOND)
    return Workload({0: steps}, len(steps) * _SECOND // rate)


def _storm_of_a_cpu(events: list[_Event], rate_text: str) -> Workload:
    if rate_text == "max":
        # A turn takes no time: the next one is always late.
        return Workload({0: _batch(events, _MAX_SPEED_EVENTS)}, 1)
    rate = _number("RATE", rate_text, 1, _MAX_RATE)
    make = _paced if rate * _BATCH_NS <= _SECOND else _batches
    return make(events, rate)


def _storm(arguments: str, cpus: int) -> Workload:
    rate, _, mix = arguments.partition(":")
    if mix and mix not in MIXES:
        raise ValueError(f"no MIX {mix!r}: there are {', '.join(sorted(MIXES))}")
    storm = _storm_of_a_cpu(MIXES[mix or "enter-exit"], rate)
    return Workload(dict.fromkeys(range(cpus), storm.scripts[0]), storm.period)


# --- all ------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    make: Callable[[str, int], Workload]
    usage: str
    help: str


WORKLOADS: dict[str, _Kind] = {
    "replay": _Kind(
        _replay, "replay[:FILE]", "a trace_pipe text again and again, by default a pKVM session"
    ),
    "idle": _Kind(_idle, "idle", "nothing but your own hypercalls"),
    "guest": _Kind(_guest, "guest[:VCPUS[:SEED]]", "a host that runs 4 vCPUs, or so many"),
    "storm": _Kind(
        _storm,
        "storm:RATE[:MIX]",
        f"RATE events a second on each CPU, or max; MIX: {', '.join(MIXES)}",
    ),
    "chaos": _Kind(
        _chaos, "chaos[:SEED]", "every event; CPUs go off and on, bursts, pauses, clock trouble"
    ),
}


def load_workload(text: str, cpus: int) -> Workload:
    """What `cpus` pCPUs do in workload `text`: a name, and arguments behind colons.

    Raises ValueError that says what is wrong with it; also with a file that it names.
    """
    name, _, arguments = text.partition(":")
    if name not in WORKLOADS:
        raise ValueError(f"no workload {name!r}: there are {', '.join(sorted(WORKLOADS))}")
    kind = WORKLOADS[name]
    try:
        return kind.make(arguments, cpus)
    except ValueError as error:
        raise ValueError(f"workload {kind.usage}: {error}") from None
