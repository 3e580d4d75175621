"""The top of a mount, a tracing directory: its switches, and what its files count."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

# Who has just closed a pipe may find the buffer in use still: until the close has arrived.
_SETTLES_S = 2.0
_LOOK_S = 0.005

# Also of a file: of nobody that is trusted.
_STATS = re.compile(
    r"^(?P<name>[a-z ]+): +(?P<value>\d{1,20})(?:\.(?P<micros>\d{6}))?$", re.MULTILINE | re.ASCII
)
_CPU = re.compile(r"cpu(\d+)")


@dataclass(frozen=True)
class CpuCounters:
    """`stats` of a CPU: events since the buffer was loaded or reset."""

    unread: int
    overrun: int  # overwritten before anybody has read them
    dropped: int  # refused by the writer
    read: int
    unread_bytes: int
    now_ns: int  # boot clock, to a microsecond

    @property
    def lost(self) -> int:
        """Those that nobody can read any more."""
        return self.overrun + self.dropped

    @property
    def written(self) -> int:
        """Those that were recorded."""
        return self.unread + self.overrun + self.read


def parse_stats(text: str) -> CpuCounters:
    """The text of a `stats` file; what it does not say is 0."""
    found = {match["name"]: match for match in _STATS.finditer(text)}

    def number(name: str, part: str = "value") -> int:
        return int(found[name][part] or 0) if name in found else 0

    now = number("now ts") * 1_000_000_000 + number("now ts", "micros") * 1000
    overrun = number("overrun") + number("commit overrun")
    return CpuCounters(
        number("entries"), overrun, number("dropped events"), number("read events"),
        number("bytes"), now,
    )  # fmt: skip


def parse_statistics(text: str) -> dict[str, dict[str, int | str]]:
    """The text of `statistics` as a table of who, or who and what, of names and values.

    A line is words: the first one or two say what it is about, names and values follow.
    """
    table: dict[str, dict[str, int | str]] = {}
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] == "#":
            continue
        about = " ".join(words[: 2 - len(words) % 2])
        pairs = words[2 - len(words) % 2 :]
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            table.setdefault(about, {})[name] = int(value) if value.isdecimal() else value
    return table


def matching(events: Sequence[str], pattern: str) -> list[str]:
    """Those of `events` (system:name) that `pattern` means, as set_event takes it.

    A system, a name, or both with a `:`; with `*` and `?`.
    """
    system, colon, name = pattern.partition(":")
    if colon:
        whole = f"{system or '*'}:{name or '*'}"
        return [event for event in events if fnmatchcase(event, whole)]
    return [event for event in events if any(fnmatchcase(e, pattern) for e in event.split(":", 1))]


def parse_cpus(text: str) -> list[int]:
    """A list of CPUs, as in `0,2-4`, in order. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part, re.ASCII)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"{text!r} is no list of CPUs, such as 0,2-4")
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(found)


class Tracing:
    """The tracing directory at `path`. Everything raises OSError when the mount is dead."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> str:
        """The text of a file."""
        return (self.path / name).read_text(encoding="utf-8", errors="replace")

    def write(self, name: str, text: str) -> None:
        """As echo does; what has just been closed gets the time to be so."""
        deadline = time.monotonic() + _SETTLES_S
        while True:
            try:
                self._write(name, text)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise OSError(error.errno, error.strerror, str(self.path / name)) from None
                time.sleep(_LOOK_S)
            else:
                return

    def _write(self, name: str, text: str) -> None:
        # Never O_CREAT: what lies below a mount that has gone is nobody's tracing directory.
        file = os.open(self.path / name, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        with os.fdopen(file, "w", encoding="ascii") as out:
            out.write(text)

    @property
    def name(self) -> str:
        """The name of the producer."""
        return next((each.name for each in (self.path / "instances").iterdir()), "hypervisor")

    def cpus(self) -> list[int]:
        """Numbers of its CPUs, in order."""
        matches = (_CPU.fullmatch(each.name) for each in (self.path / "per_cpu").iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def events(self) -> list[str]:
        """All events, as system:name."""
        return self.read("available_events").split()

    def enabled(self) -> list[str]:
        """Those that are on."""
        return self.read("set_event").split()

    def enable(self, wanted: Collection[str]) -> None:
        """Have `wanted` on, and no others."""
        on = set(self.enabled())
        for event in self.events():
            if (event in on) != (event in wanted):
                self.switch(event, on=event in wanted)

    def switch(self, event: str, *, on: bool) -> None:
        """Switch one event (system:name)."""
        self.write(f"events/{event.replace(':', '/')}/enable", f"{on:d}")

    @property
    def on(self) -> bool:
        """Whether it traces."""
        return self.read("tracing_on").strip() == "1"

    def trace(self, *, on: bool) -> None:
        """Switch tracing; to switch it on takes 0.1 s."""
        self.write("tracing_on", f"{on:d}")

    @property
    def size_kb(self) -> int:
        """KiB of the buffer of each CPU."""
        return int(self.read("buffer_size_kb").split()[0])

    @property
    def loaded(self) -> bool:
        """Whether the hypervisor has the buffer."""
        return "(loaded)" in self.read("buffer_size_kb")

    def set_size(self, size_kb: int) -> None:
        """Only while unloaded: else EBUSY."""
        self.write("buffer_size_kb", str(size_kb))

    def forget(self) -> None:
        """Forget what is unread; unloads if nothing else needs the buffer."""
        self._write("trace", "")  # it is the opening with O_TRUNC that does

    def stats(self, cpu: int) -> CpuCounters:
        """What a CPU has counted."""
        return parse_stats(self.read(f"per_cpu/cpu{cpu}/stats"))

    def statistics(self) -> dict[str, dict[str, int | str]]:
        """All counters, as parse_statistics(); to ask for them is a hypercall."""
        return parse_statistics(self.read(f"{self.name}/statistics"))

    def raw_pipe(self, cpu: int) -> Path:
        """The pages of `cpu`."""
        return self.path / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw"
