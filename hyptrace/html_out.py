"""`hyptrace report --html`: one page that needs nothing else, whatever the size of the capture.

A capture of many stays is shown in bins of time; of few, each stay is in the page too.
"""

from __future__ import annotations

import base64
import html
import importlib.resources
import json
from array import array
from collections.abc import Sequence
from typing import Any

from hyptrace.capture import Capture
from hyptrace.decoder import GUEST, REASONS, Batch, Bins, CpuCount, Strip, Timeline
from hyptrace.output import OutFile
from hyptrace.reasons import named_reasons
from hyptrace.statistics import StatisticsSink
from hyptrace.text_input import TextCapture

# What bounds the page: in base64, 4 bytes for 3.
_MAX_BINS = 4096  # of a CPU
_MAX_SHARES = 1 << 20  # of all CPUs and kinds, 2 bytes each
_MAX_FINE_BINS = 1 << 20  # of all CPUs, 3 bytes each
_MAX_STAYS = 50_000  # that are shown one by one
_MAX_KINDS = 64  # reasons that have a colour of their own
_FULL = 65535  # a bin that is spent in one place
_GUEST, _OTHER = "guest", "other"


def _base64(data: bytes | memoryview) -> str:
    return base64.b64encode(data).decode("ascii")


def _power_of_two(most: int) -> int:
    """The largest one that is not above `most`."""
    return 1 << max(most.bit_length() - 1, 4)


class HtmlSink:
    """Collects what the page shows. `statistics` counts the same capture, before this."""

    def __init__(self, capture: Capture, out: OutFile, statistics: StatisticsSink) -> None:
        self._capture, self._out, self._statistics = capture, out, statistics
        named = list(named_reasons(capture.events).items())[:_MAX_KINDS]
        self._kinds = [*(text for _, text in named), _OTHER, _GUEST]
        kinds = {reason: kind for kind, (reason, _) in enumerate(named)}
        self._kind_of = [kinds.get(reason, len(named)) for reason in range(REASONS)]
        self._cpus = (
            capture.cpu_numbers()
            if isinstance(capture, TextCapture)
            else [cpu.cpu for cpu in capture.cpus]
        )
        nr_cpus = max(len(self._cpus), 1)
        self._timeline = Timeline(
            self._cpus,
            capture.max_cpu,
            self._kind_of,
            _power_of_two(min(_MAX_BINS, _MAX_SHARES // nr_cpus // len(self._kinds))),
            _power_of_two(_MAX_FINE_BINS // nr_cpus),
        )
        self._stays: dict[str, array[int]] | None = {
            "start": array("Q"), "duration": array("Q"), "cpu": array("H"), "kind": array("B"),
            "vcpu": array("i"),
        }  # fmt: skip

    def add(self, batch: Batch) -> None:
        """Take the stays that ended in `batch`: the statistics have them."""
        stays = self._statistics.stays
        self._timeline.add(batch, stays)
        if self._stays is None:
            return
        for name in ("start", "duration", "cpu", "vcpu"):
            self._stays[name].frombytes(stays.column(name))
        slots, places = stays.column("reason_slot"), stays.column("place")
        guest = len(self._kinds) - 1
        self._stays["kind"].extend(
            guest if place == GUEST else self._kind_of[slot]
            for slot, place in zip(slots, places, strict=True)
        )
        if len(self._stays["start"]) > _MAX_STAYS:
            self._stays = None

    def _used(self, of: Bins | Strip) -> int:
        """How many of the bins there is time in."""
        return max(1, min(self._statistics.duration // of.width + 1, of.nr))

    def _fine(self) -> dict[str, Any] | None:
        """The many bins, where there is not each stay."""
        if self._stays is not None:
            return None
        strip = self._timeline.strip()
        used = self._used(strip)
        kinds, shares = {}, {}
        for slot, cpu in enumerate(self._cpus):
            at = slice(slot * strip.nr, slot * strip.nr + used)
            kinds[cpu] = _base64(strip.kinds[at])
            shares[cpu] = _base64(strip.shares[at].cast("B"))
        return {"width": strip.width, "nr": used, "kinds": kinds, "shares": shares}

    def _bins(self) -> dict[str, Any]:
        bins = self._timeline.bins()
        used = self._used(bins)
        shares = {}
        nr_kinds = self._timeline.nr_kinds
        for slot, cpu in enumerate(self._cpus):
            for kind in range(nr_kinds):
                at = (slot * nr_kinds + kind) * bins.nr
                ns = bins.ns[at : at + used].tolist()
                if any(ns):
                    share = array("H", [min(_FULL, of * _FULL // bins.width) for of in ns])
                    shares[f"{cpu}:{kind}"] = _base64(share.tobytes())
        return {"width": bins.width, "nr": used, "shares": shares}

    def _exact(self) -> dict[str, str] | None:
        if self._stays is None:
            return None
        origin = self._statistics.first
        relative: array[Any] = array("d", [start - origin for start in self._stays["start"]])
        durations = array("d", self._stays["duration"])
        arrays: dict[str, array[Any]] = {**self._stays, "start": relative, "duration": durations}
        return {name: _base64(of.tobytes()) for name, of in arrays.items()}

    def _data(self) -> dict[str, Any]:
        of = self._statistics
        return {
            "first": of.first,
            "duration": of.duration,
            "kinds": self._kinds,
            "cpus": [
                {"cpu": each.count.cpu, "events": each.count.events, "busy": each.busy,
                 "lost": each.lost, "share": each.share}
                for each in of.cpus
            ],
            "events": of.by_event,
            "reasons": [
                {"name": of.reasons[each.reason], "kind": self._kind_of[each.reason],
                 "count": each.count, "total": each.total, "p50": each.p50, "p99": each.p99,
                 "max": each.longest, "histogram": of.stays.histogram(each.reason)}
                for each in of.by_reason
            ],
            "bins": self._bins(),
            "fine": self._fine(),
            "stays": self._exact(),
            "notes": self._capture.notes,
        }  # fmt: skip

    def abandon(self) -> None:
        """Write no page."""
        self._out.close()

    def close(self, counts: Sequence[CpuCount]) -> None:  # noqa: ARG002
        """Write the page."""
        template = importlib.resources.files("hyptrace").joinpath("report.html")
        page = template.read_text(encoding="utf-8")
        # In a script element, only what could end it has to be hidden.
        data = json.dumps(self._data(), separators=(",", ":")).replace("<", "\\u003c")
        title = html.escape(self._capture.path.name)
        page = page.replace("{{title}}", title).replace("{{data}}", data)
        self._out.write(page.encode())
        self._out.close()
