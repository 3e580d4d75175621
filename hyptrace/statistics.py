"""What `hyptrace report` counts: events, time in the hypervisor, losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hyptrace.capture import Capture
from hyptrace.decoder import REASONS, Batch, CpuCount, Stays, StayStats
from hyptrace.lines import NO_EVENT
from hyptrace.reasons import reason_names, stays_of
from hyptrace.tracing import parse_stats


@dataclass(frozen=True)
class CpuShare:
    """A CPU: what it had, and its time in the hypervisor of all the time of the capture."""

    count: CpuCount
    lost: str  # as lost_text()
    busy: int  # ns
    share: float


class StatisticsSink:
    """Counts a capture."""

    def __init__(self, capture: Capture) -> None:
        self.stays: Stays = stays_of(capture)
        self.reasons = reason_names(capture.events, REASONS)
        self.cpus: list[CpuShare] = []
        self.first = self.last = 0  # ns
        self._names = [*(each.event.name for each in capture.events), NO_EVENT]
        self._by_event = [0] * len(self._names)
        self._begun = False
        self._stats = capture.metadata.stats

    def add(self, batch: Batch) -> None:
        """Count the events of `batch`."""
        self.stays.take(batch)
        self.stays.count()
        for rows in batch.by_event():
            self._by_event[rows.key] += rows.nr
        times = batch.arrays["time"]
        if not self._begun:
            self._begun, self.first = True, times[0]
        self.last = max(self.last, times[len(batch) - 1])

    def abandon(self) -> None:
        """Nothing is open."""

    def close(self, counts: Sequence[CpuCount]) -> None:
        """What each CPU had is known."""
        self.cpus = [self._share(each) for each in counts]

    def _share(self, count: CpuCount) -> CpuShare:
        busy = self.stays.busy(count.cpu)
        lost = lost_text(count, self._stats.get(count.cpu, ""))
        return CpuShare(count, lost, busy, busy / self.duration if self.duration else 0.0)

    @property
    def duration(self) -> int:
        """Ns from the first event of all to the last."""
        return self.last - self.first

    @property
    def by_event(self) -> list[tuple[str, int]]:
        """Names and counts, those that there are; most first."""
        found = zip(self._names, self._by_event, strict=True)
        return sorted(((name, nr) for name, nr in found if nr), key=lambda each: -each[1])

    @property
    def by_reason(self) -> list[StayStats]:
        """Stays in the hypervisor, the longest total first."""
        return sorted(self.stays.statistics(), key=lambda stats: -stats.total)


# --- tables ----------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells).rstrip() + "\n"


def _us(ns: float) -> str:
    return f"{ns / 1000:.3f}"


def lost_text(count: CpuCount, stats: str = "") -> str:
    """How many events were lost; `+`: and more, that nobody has counted.

    Where pages do not say how many, `stats` of the CPU may, at the end of the recording: its
    overruns are of all the time, as losses that no page follows are, too.
    """
    overrun = parse_stats(stats).overrun if count.uncounted else 0
    if overrun > count.lost:
        return str(overrun)
    return f"{count.lost}{'+' if count.uncounted else ''}"


_REASON_HEAD = ("reason", "count", "total", "mean", "p50", "p99", "max")
_CPU_HEAD = ("cpu", "events", "lost", "in hypervisor, us", "% of time")


def _reason_rows(of: StatisticsSink) -> list[list[str]]:
    return [
        [of.reasons[each.reason], str(each.count), _us(each.total), _us(each.total / each.count),
         _us(each.p50), _us(each.p99), _us(each.longest)]
        for each in of.by_reason
    ]  # fmt: skip


def _cpu_rows(of: StatisticsSink) -> list[list[str]]:
    return [
        [str(each.count.cpu), str(each.count.events), each.lost, _us(each.busy),
         f"{100 * each.share:.3f}"]
        for each in of.cpus
    ]  # fmt: skip


def statistics_text(of: StatisticsSink) -> Iterator[str]:
    """The tables of `--stats`, line by line."""
    yield f"{sum(nr for _, nr in of.by_event)} events in {of.duration / 1e9:.6f} s\n\n"
    yield from _table(("event", "count"), [[name, str(nr)] for name, nr in of.by_event])
    yield "\nfrom hyp_enter to hyp_exit, microseconds (p50 and p99 to 1 %)\n\n"
    yield from _table(_REASON_HEAD, _reason_rows(of))
    yield "\n"
    yield from _table(_CPU_HEAD, _cpu_rows(of))
