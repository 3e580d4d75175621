"""What an event costs when there is more of something: CPUs, memory, readers."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from tests.bench.places import Ours, ours
from tests.bench.rows import Effort, Row
from tests.bench.samples import PAGE, cpu_ns, pin
from tests.mounts import until

_MIB = 1 << 20
_CAT = 128 * 1024
_READERS = 100
_NONE = "alone"
_BLOCKED = f"{_READERS - 1} more wait for the other CPU"
_SHARING = f"{_READERS} in turns"


class _Case(NamedTuple):
    cpus: int
    size_kb: int  # of each CPU
    readers: str
    rounds: int
    busy: int = 0  # CPUs that write; 0: all

    @property
    def name(self) -> str:
        cpus = "1 CPU" if self.cpus == 1 else f"{self.cpus} CPUs"
        size = f"{self.size_kb} KiB" if self.size_kb < 1 << 10 else f"{self.size_kb >> 10} MiB"
        return f"{cpus} of {size}, {self.readers}"


_CASES = (
    _Case(1, 16 << 10, _NONE, 3),
    _Case(1, 256 << 10, _NONE, 1),
    _Case(1, 7, _NONE, 20),
    _Case(64, 64, _NONE, 5),
    _Case(64, 7, _NONE, 10),
    _Case(2, 1 << 10, _NONE, 5, busy=1),
    _Case(2, 1 << 10, _BLOCKED, 5, busy=1),
    _Case(1, 16 << 10, _SHARING, 3),
)


# --- events --------------------------------------------------------------------------------------

_BURST = 16_000  # visits, of all CPUs, of two events
_PERIOD_US = 250_000


def _bursts(cpus: int) -> Iterator[str]:
    """A recording: each CPU one burst, one CPU after the other, and then nothing for a while."""
    for cpu in range(cpus):
        for visit in range(_BURST // cpus):
            usec = cpu * 1000 + visit // 64
            yield f"[{cpu:03}]\t    1.{usec:06}: hyp_enter reason=hvc vcpu=0\n"
            yield f"[{cpu:03}]\t    1.{usec:06}: hyp_exit reason=eret_host vcpu=0\n"
    yield f"[000]\t    1.{_PERIOD_US:06}: hyp_enter reason=hvc vcpu=0\n"
    yield f"[000]\t    1.{_PERIOD_US:06}: hyp_exit reason=eret_host vcpu=0\n"


@contextmanager
def _workload(case: _Case) -> Iterator[str]:
    """Fast, but not with more threads that never sleep than there are CPUs."""
    if not case.busy and case.cpus <= (os.cpu_count() or 1):
        yield "storm:max"
        return
    with tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".txt") as file:
        file.writelines(_bursts(case.busy or case.cpus))
        file.flush()
        yield f"replay:{file.name}"


def _fill(mount: Ours, cpus: int) -> None:
    """As Ours.fill(), but on each of so many CPUs."""

    def all_full() -> bool:
        return len([lost for lost in mount.counts("overrun") if lost]) == cpus

    mount.mount.write("trace", "")
    pin(mount.servers[1:], [0, 1])
    mount.mount.write("tracing_on", "1")
    until(all_full, "all rings to be full")
    mount.mount.write("tracing_on", "0")
    pin(mount.servers, [0])


# --- what they cost ------------------------------------------------------------------------------


class _Cost(NamedTuple):
    cpu_ns: int
    nr_bytes: int
    events: int


def _read(mount: Ours, case: _Case, file: str, size: int) -> tuple[int, int]:
    """By readers that are there already, on the same CPU. CPU time and bytes."""
    readers = _READERS if case.readers == _SHARING else 1
    nr_bytes, room = 0, [bytearray(b"x") * size]
    with ExitStack() as stack:
        pipes = []
        for _ in range(readers):
            pipes.append(os.open(mount.path / file, os.O_RDONLY | os.O_NONBLOCK))
            stack.callback(os.close, pipes[-1])
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, [0])
        before = sum(map(cpu_ns, mount.servers)) + time.thread_time_ns()
        for pipe in itertools.cycle(pipes):
            got = os.readv(pipe, room)
            nr_bytes += got
            if got < size - PAGE:  # the last one
                break
        used = sum(map(cpu_ns, mount.servers)) + time.thread_time_ns() - before
    return used, nr_bytes


def _cost(mount: Ours, case: _Case, file: str, size: int) -> _Cost:
    """The cheapest round, and what it has moved."""
    costs = []
    for _ in range(case.rounds):
        _fill(mount, case.busy or case.cpus)
        events = mount.count("unread")
        costs.append(_Cost(*_read(mount, case, file, size), events))
    return min(costs, key=lambda cost: cost.cpu_ns / cost.events)


def _block_others(mount: Ours, case: _Case, stack: ExitStack) -> None:
    if case.readers != _BLOCKED:
        return
    for _ in range(_READERS - 1):
        reader = mount.mount.blocked_cat("per_cpu/cpu1/trace_pipe")
        stack.callback(reader.wait)
        stack.callback(reader.kill)


def _figures(case: _Case) -> Sequence[tuple[str, float]]:
    with ExitStack() as stack:
        workload = stack.enter_context(_workload(case))
        mount = stack.enter_context(ours(workload, "max_buffer_mb=600", cpus=case.cpus))
        stack.enter_context(mount.loaded(case.size_kb))
        _block_others(mount, case, stack)
        # Where not all are busy, the one that is.
        where = "per_cpu/cpu0/" if case.busy else ""
        text = _cost(mount, case, f"{where}trace_pipe", _CAT)
        raw = _cost(mount, case, f"{where}trace_pipe_raw", _MIB)
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
