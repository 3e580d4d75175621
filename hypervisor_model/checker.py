"""The rules that the events of a hypervisor keep, checked on the text of a trace_pipe.

Per CPU: times never fall; enters and exits alternate, and each leads where the next one
comes from; an event from inside the hypervisor stands between an enter and the exit, in a
visit of its kind. Where events are lost, nothing is known of that CPU until the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_LINE = re.compile(
    r"\[(?P<cpu>\d{3,})\]\t *(?P<sec>\d+)\.(?P<usec>\d{6}): (?P<name>\w+)(?: (?P<text>.*))?"
)
_LOST = re.compile(r"CPU:(?P<cpu>\d+) \[LOST \d+ EVENTS\]")
_REASON = re.compile(r"reason=(\w+) vcpu=(\d+)")

_TRAPS = frozenset(["smc", "hvc", "sys", "host_abort"])

# Where the CPU is after an exit, by what it can come back from there with.
_COMES_BACK = {
    "eret_host": _TRAPS,
    "psci": _TRAPS,
    "eret_guest": frozenset(["guest_exit"]),
    # from the firmware; or the CPU has been off, and is on again
    "smc": frozenset(["smc", "psci"]),
}
_ENTERS = frozenset().union(*_COMES_BACK.values())

# Events from inside, and what the visit in which they are must have begun with.
_INSIDE = {
    "host_ffa_call": frozenset(["smc"]),
    "host_hcall": frozenset(["hvc"]),
    "host_mem_abort": frozenset(["host_abort"]),
    "host_smc": frozenset(["smc"]),
    "hyp_printk": frozenset(["hvc", "smc", "psci"]),
    "iommu_idmap": frozenset(["host_abort", "hvc"]),
    "psci_mem_protect": frozenset(["hvc", "smc"]),
    "selftest": frozenset(["hvc"]),
    "vcpu_illegal_trap": frozenset(["guest_exit"]),
}


class _Cpu:
    """What is known of a CPU."""

    def __init__(self) -> None:
        self._time = 0
        self.forget()

    def forget(self) -> None:
        """Events are missing."""
        self._known = False
        self._visit: str | None = None  # reason of the last enter; None: not inside
        self._left: str | None = None  # reason of the last exit; None: inside

    def check(self, match: re.Match[str]) -> Iterator[str]:
        time = int(match["sec"]) * 1_000_000 + int(match["usec"])
        if time < self._time:
            yield f"time falls by {self._time - time} us"
        self._time = time
        name, text = match["name"], match["text"] or ""
        if name in ("hyp_enter", "hyp_exit"):
            yield from self._check_move(name, text)
        elif name in _INSIDE:
            yield from self._check_inside(name)
        else:
            yield f"no such event: {name}"

    def _check_move(self, name: str, text: str) -> Iterator[str]:
        reason = _REASON.fullmatch(text)
        if reason is None:
            yield f"{name} without a reason: {text!r}"
            self.forget()
        elif name == "hyp_enter":
            yield from self._enter(reason[1])
        else:
            yield from self._exit(reason[1])

    def _enter(self, reason: str) -> Iterator[str]:
        if reason not in _ENTERS:
            yield f"nothing enters by {reason}"
        elif self._visit is not None:
            yield f"enters by {reason}, having entered by {self._visit}"
        elif self._left is not None and reason not in _COMES_BACK[self._left]:
            yield f"enters by {reason}, having left by {self._left}"
        self._known, self._visit, self._left = True, reason, None

    def _exit(self, reason: str) -> Iterator[str]:
        if reason not in _COMES_BACK:
            yield f"nothing leaves by {reason}"
            self.forget()
            return
        if self._known and self._visit is None:
            yield f"leaves by {reason}, having left by {self._left}"
        elif (reason == "psci") != (self._visit == "psci") and self._known:
            yield f"leaves by {reason}, having entered by {self._visit}"
        self._known, self._visit, self._left = True, None, reason

    def _check_inside(self, name: str) -> Iterator[str]:
        if not self._known:
            return
        if self._visit is None:
            yield f"{name} outside of the hypervisor"
        elif self._visit not in _INSIDE[name]:
            yield f"{name} in a visit that entered by {self._visit}"


def check_trace(lines: Iterable[str]) -> list[str]:
    """What is wrong with the text of a trace_pipe, each with its line; empty: nothing."""
    cpus: dict[int, _Cpu] = {}
    wrong = []
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\n")
        lost, match = _LOST.fullmatch(text), _LINE.fullmatch(text)
        if lost:
            cpus.setdefault(int(lost["cpu"]), _Cpu()).forget()
        elif match:
            cpu = cpus.setdefault(int(match["cpu"]), _Cpu())
            wrong += [f"line {number}: CPU {match['cpu']}: {what}" for what in cpu.check(match)]
        else:
            wrong.append(f"line {number}: no line of a trace_pipe: {text!r}")
    return wrong
