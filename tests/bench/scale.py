"""What an event costs when there is more of something: CPUs, memory, readers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.bench.places import Ours, ours
from tests.bench.rows import Effort, Row
from tests.bench.samples import BUILT, PAGE, cpu_ns, pin, read_all
from tests.mounts import until

_MIB = 1 << 20
_CAT = 128 * 1024
_READERS = 100
_NONE = "alone"
_BLOCKED = f"{_READERS - 1} more wait for another remote"
_SHARING = f"{_READERS} share the pipe"


class _Case(NamedTuple):
    cpus: int
    size_kb: int  # of each CPU
    readers: str
    rounds: int

    @property
    def name(self) -> str:
        cpus = "1 CPU" if self.cpus == 1 else f"{self.cpus} CPUs"
        size = f"{self.size_kb} KiB" if self.size_kb < 1 << 10 else f"{self.size_kb >> 10} MiB"
        return f"{cpus} of {size}, {self.readers}"


_CASES = (
    _Case(1, 16 << 10, _NONE, 3),
    _Case(1, 256 << 10, _NONE, 1),
    _Case(1, 7, _NONE, 20),
    _Case(64, 256, _NONE, 3),
    _Case(64, 7, _NONE, 20),
    _Case(1, 16 << 10, _BLOCKED, 3),
    _Case(1, 16 << 10, _SHARING, 3),
)


def _stand_back(model: int) -> None:
    """Its CPUs; who answers hypercalls is another thread, and must get through to them."""
    for task in Path(f"/proc/{model}/task").iterdir():
        if task.name != str(model):
            os.setpriority(os.PRIO_PROCESS, int(task.name), 19)


def _all_full(mount: Ours, cpus: int) -> bool:
    return len([lost for lost in mount.counts("overrun") if lost]) == cpus


def _fill(mount: Ours, cpus: int) -> None:
    """As Ours.fill(), but on each CPU."""
    mount.mount.write("trace", "")
    pin(mount.servers[1:], [0, 1])
    mount.mount.write("tracing_on", "1")
    until(lambda: _all_full(mount, cpus), "all rings to be full")
    mount.mount.write("tracing_on", "0")
    pin(mount.servers, [0])


class _Cost(NamedTuple):
    cpu_ns: int
    nr_bytes: int
    events: int


def _alone(mount: Ours, file: str, size: int) -> tuple[int, int]:
    sample = read_all(mount.path / file, size, mount.servers, 0)
    return sample.cpu_ns, sample.nr_bytes


def _sharing(mount: Ours, file: str, size: int) -> tuple[int, int]:
    """All at once, on one CPU. CPU time and bytes."""
    command = ["taskset", "-c", "0", str(BUILT / "bench_read"), str(mount.path / file), str(size)]
    before = sum(map(cpu_ns, mount.servers))
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(_READERS)]
    printed = [reader.communicate()[0].split() for reader in readers]
    used = sum(map(cpu_ns, mount.servers)) - before
    return used + sum(int(words[3]) for words in printed), sum(int(words[0]) for words in printed)


def _cost(mount: Ours, case: _Case, file: str, size: int) -> _Cost:
    """The cheapest round, and what it has moved."""
    read = _sharing if case.readers == _SHARING else _alone
    costs = []
    for _ in range(case.rounds):
        _fill(mount, case.cpus)
        events = mount.count("unread")
        costs.append(_Cost(*read(mount, file, size), events))
    return min(costs, key=lambda cost: cost.cpu_ns / cost.events)


def _block_others(mount: Ours, case: _Case, stack: ExitStack) -> None:
    if case.readers != _BLOCKED:
        return
    for _ in range(_READERS - 1):
        reader = mount.mount.blocked_cat("../remotes/test/trace_pipe")
        stack.callback(reader.wait)
        stack.callback(reader.kill)


def _figures(case: _Case) -> Sequence[tuple[str, float]]:
    with ExitStack() as stack:
        mount = stack.enter_context(ours("storm:max", "max_buffer_mb=600", cpus=case.cpus))
        _stand_back(mount.servers[1])
        stack.enter_context(mount.loaded(case.size_kb))
        _block_others(mount, case, stack)
        text = _cost(mount, case, "trace_pipe", _CAT)
        raw = _cost(mount, case, "trace_pipe_raw", _MIB)
        return (
            ("text, ns CPU per event", text.cpu_ns / text.events),
            ("raw, us CPU per page", raw.cpu_ns / raw.nr_bytes * PAGE / 1000),
        )


def scale(effort: Effort) -> Iterator[Row]:  # noqa: ARG001 (the same in both)
    """Beside each figure, the best of its kind."""
    measured = {case: dict(_figures(case)) for case in _CASES}

    def best(unit: str) -> float:
        return min(each[unit] for each in measured.values())

    for case, figures in measured.items():
        for unit, figure in figures.items():
            yield Row("scale", case.name, unit, figure, "<= 1.5 times", "the best", best(unit))
