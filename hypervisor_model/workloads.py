"""Workloads: what the pCPUs do.

A workload is a script per pCPU: a list of steps that is played in a circle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

RECORDING = Path(__file__).parent / "data" / "pkvm-guest-session.txt"

_LINE = re.compile(
    r"\[(?P<cpu>\d+)\]\s+(?P<sec>\d+)\.(?P<usec>\d{6}): hyp_(?P<what>enter|exit) "
    r"reason=(?P<reason>\w+) vcpu=(?P<vcpu>\d+)"
)

# After its last event a recording goes on with its first one. How long the CPU takes
# for that is not recorded; this is the usual pace inside one.
_SEAM_NS = 2_000


class Step(NamedTuple):
    """One event of a script: the CPU enters or leaves the hypervisor."""

    at: int  # ns from the start of the script
    enter: bool
    reason: str
    vcpu: int

    @property
    def in_host(self) -> bool:
        """Whether the CPU is in the host afterwards."""
        return not self.enter and self.reason == "eret_host"


@dataclass(frozen=True)
class Workload:
    """Scripts by pCPU number, and how long one turn takes, in ns."""

    scripts: dict[int, list[Step]]
    period: int


class _Record(NamedTuple):
    cpu: int
    step: Step


def _parse(lines: Iterable[str]) -> list[_Record]:
    """Records of trace_pipe text; `at` is the time on its clock."""
    records = []
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.rstrip("\n"))
        if match is None:
            raise ValueError(
                f"line {number} of the recording is no hyp_enter or hyp_exit: {line!r}"
            )
        at = (int(match["sec"]) * 1_000_000 + int(match["usec"])) * 1000
        step = Step(at, match["what"] == "enter", match["reason"], int(match["vcpu"]))
        records.append(_Record(int(match["cpu"]), step))
    return records


def _begin_in_host(steps: list[Step], period: int) -> list[Step]:
    """Turn the circle so that it begins, and ends, with the CPU in the host."""
    for first, step in enumerate(steps, 1):
        if step.in_host:
            wrapped = [s._replace(at=s.at + period) for s in steps[:first]]
            return steps[first:] + wrapped
    raise ValueError("a CPU of the recording never returns to the host")


def _shifted(steps: list[Step], start: int) -> list[Step]:
    return [step._replace(at=step.at - start) for step in steps]


def replay(cpus: int) -> Workload:
    """Replay the packaged session of a real pKVM host with a small guest, in a circle.

    Recorded CPU n plays on pCPU n modulo `cpus`.
    """
    with RECORDING.open(encoding="ascii") as lines:
        records = _parse(lines)
    period = records[-1].step.at - records[0].step.at + _SEAM_NS

    circles: dict[int, list[Step]] = {}
    for record in records:
        circles.setdefault(record.cpu % cpus, []).append(record.step)
    scripts = {cpu: _begin_in_host(steps, period) for cpu, steps in circles.items()}
    start = min(steps[0].at for steps in scripts.values())
    return Workload({cpu: _shifted(steps, start) for cpu, steps in scripts.items()}, period)


def idle(cpus: int) -> Workload:  # noqa: ARG001
    """Stand still: only hypercalls make events."""
    return Workload({}, 0)


WORKLOADS: dict[str, Callable[[int], Workload]] = {"replay": replay, "idle": idle}


def load_workload(name: str, cpus: int) -> Workload:
    """Scripts of workload `name` for `cpus` pCPUs. Raises ValueError for an unknown name."""
    if name not in WORKLOADS:
        raise ValueError(f"no workload {name!r}: there are {', '.join(sorted(WORKLOADS))}")
    return WORKLOADS[name](cpus)
