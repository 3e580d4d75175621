"""What a mount is doing now, seen without consuming: `trace` and `stats`, again and again.

`trace` shows what is unread. Where nobody consumes that is the newest that the buffer holds, which
may be less than what has happened since the last look: `covered` says how much of the time a look
has seen, and shares and rates are of that time.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from hyptrace.tracing import CpuCounters, Tracing

_LINE = re.compile(
    rb"^\[(\d+)\]\t? *(\d+)\.(\d{6}): (\w+)(?: reason=(\S+))?.*\n",
    re.MULTILINE,
)
_ENTER, _EXIT = "hyp_enter", "hyp_exit"
_TAIL = 2 << 20  # bytes of `trace`, the newest: as much as can be looked at in no time


class Seen(NamedTuple):
    """An event of `trace`."""

    cpu: int
    time_ns: int
    event: str
    reason: str


@dataclass(frozen=True)
class CpuSample:
    """A CPU between two looks."""

    cpu: int
    elapsed_ns: int
    covered_ns: int  # of it, what was seen
    counts: Mapping[str, int]  # events by name, in the time that was seen
    in_hypervisor_ns: Mapping[str, int]  # by reason, likewise
    recorded: int  # events in all the time
    lost: int  # overwritten unread, or dropped, in all the time
    consumed: int  # by others, in all the time
    fill: float  # of its buffer, 0 to 1, with what is unread

    @property
    def shares(self) -> dict[str, float]:
        """Of the time that was seen, by reason, the largest first; 0 to 1."""
        most_first = sorted(self.in_hypervisor_ns.items(), key=lambda each: -each[1])
        return {reason: ns / self.covered_ns for reason, ns in most_first if self.covered_ns}

    @property
    def coverage(self) -> float:
        """How much of the time was seen, 0 to 1."""
        return self.covered_ns / self.elapsed_ns if self.elapsed_ns else 0.0

    def per_second(self, nr: int) -> float:
        """`nr` in all the time, as a rate."""
        return nr * 1e9 / self.elapsed_ns if self.elapsed_ns else 0.0

    def rate(self, event: str) -> float:
        """Events a second, in the time that was seen."""
        return self.counts.get(event, 0) * 1e9 / self.covered_ns if self.covered_ns else 0.0


@dataclass(frozen=True)
class Sample:
    """All CPUs between two looks, and the switches at the second one."""

    now_ns: int  # boot clock
    tracing_on: bool
    enabled: tuple[str, ...]  # system:name
    size_kb: int
    cpus: tuple[CpuSample, ...]

    def rates(self) -> dict[str, float]:
        """Events a second by name, of all CPUs, the most first."""
        names = set(chain.from_iterable(each.counts for each in self.cpus))
        rates = {name: sum(each.rate(name) for each in self.cpus) for name in names}
        return dict(sorted(rates.items(), key=lambda each: (-each[1], each[0])))


@dataclass
class _Cpu:
    """What is remembered of a CPU from one look to the next."""

    cpu: int
    stats: CpuCounters
    looked_ns: int
    reason: str | None = None  # of the stay in the hypervisor that has not ended
    entered_ns: int = 0
    spent: Counter[str] = field(default_factory=Counter)

    def follow(self, seen: Iterable[Seen], start: int, end: int | None) -> Counter[str]:
        """Count the events, and in `spent` the time in the hypervisor from `start` on.

        The last stay lasts until `end`, and goes on; None: nobody would tell that it has ended.
        """
        counts: Counter[str] = Counter()
        self.spent = Counter()
        for each in seen:
            counts[each.event] += 1
            if each.event in (_ENTER, _EXIT):
                self._leave(start, each.time_ns)
            if each.event == _ENTER:
                self.reason, self.entered_ns = each.reason, each.time_ns
        reason = self.reason if end is not None else None
        self._leave(start, self.entered_ns if end is None else end)
        self.reason = reason
        return counts

    def _leave(self, start: int, now: int) -> None:
        if self.reason is not None:
            self.spent[self.reason] += max(now - max(self.entered_ns, start), 0)
            self.reason = None


def parse_trace(text: bytes) -> Iterator[Seen]:
    """The events in lines of `trace`."""
    for cpu, seconds, micros, event, reason in _LINE.findall(text):
        nanoseconds = int(seconds) * 1_000_000_000 + int(micros) * 1000
        yield Seen(int(cpu), nanoseconds, event.decode(), reason.decode())


def _pieces(file: int) -> Iterator[bytes]:
    while piece := os.read(file, 1 << 20):
        yield piece


def _newest(tracing: Tracing) -> tuple[bytes, bool]:
    """The end of `trace`, whole lines; and whether there was more before."""
    file = os.open(tracing.path / "trace", os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        cut = size > _TAIL
        if cut:
            os.lseek(file, size - _TAIL, os.SEEK_SET)
        text = b"".join(_pieces(file))
    finally:
        os.close(file)
    return (text.partition(b"\n")[2] if cut else text), cut


class Sampler:
    """Looks at `tracing`. Each look() is compared with the one before."""

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing
        now = _boot_ns()
        self._cpus = {cpu: _Cpu(cpu, tracing.stats(cpu), now) for cpu in tracing.cpus()}

    def look(self) -> Sample:
        """What has happened since the last look. Raises OSError when the mount is dead."""
        tracing = self.tracing
        stats = {cpu: tracing.stats(cpu) for cpu in self._cpus}
        on, enabled, size_kb = tracing.on, tuple(tracing.enabled()), tracing.size_kb
        now = _boot_ns()
        text, cut = _newest(tracing)
        seen: dict[int, list[Seen]] = defaultdict(list)
        oldest = None
        for each in parse_trace(text):
            oldest = each.time_ns if oldest is None else oldest
            seen[each.cpu].append(each)
        look = _Look(now, size_kb, on and _timed(enabled), oldest if cut else None)
        samples = (
            _compare(known, look, stats[cpu], seen[cpu]) for cpu, known in self._cpus.items()
        )
        return Sample(now, on, enabled, size_kb, tuple(samples))


class _Look(NamedTuple):
    """What is the same for all CPUs."""

    now: int  # boot clock, ns
    size_kb: int
    timed: bool  # stays in the hypervisor have both their ends, and go on until now
    cut_at: int | None  # of what was before this there was too much to look at


def _timed(enabled: Iterable[str]) -> bool:
    return {_ENTER, _EXIT} <= {event.partition(":")[2] for event in enabled}


def _boot_ns() -> int:
    """The clock of the events."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _begin(known: _Cpu, look: _Look, stats: CpuCounters, seen: Sequence[Seen]) -> int:
    """From when on nothing is missing in what was seen of a CPU."""
    missing = stats.overrun > known.stats.overrun or stats.read > known.stats.read
    bounds = [known.looked_ns]
    if missing:
        bounds.append(seen[0].time_ns if seen else look.now)
    if look.cut_at is not None:
        bounds.append(look.cut_at)
    return min(max(bounds), look.now)


def _grown(after: int, before: int) -> int:
    """By how much a counter has; it begins anew when the buffer is loaded or reset."""
    return after - before if after >= before else after


def _compare(known: _Cpu, look: _Look, stats: CpuCounters, seen: Sequence[Seen]) -> CpuSample:
    before, elapsed = known.stats, look.now - known.looked_ns
    start = _begin(known, look, stats, seen)
    if start > known.looked_ns:
        known.reason = None  # it may have ended unseen
    new = [each for each in seen if start <= each.time_ns < look.now]
    counts = known.follow(new, start, look.now if look.timed else None)
    known.stats, known.looked_ns = stats, look.now
    return CpuSample(
        known.cpu,
        elapsed,
        look.now - start,
        counts,
        dict(known.spent),
        recorded=_grown(stats.written, before.written),
        lost=_grown(stats.lost, before.lost),
        consumed=_grown(stats.read, before.read),
        fill=min(stats.unread_bytes / (look.size_kb * 1024), 1.0),
    )
