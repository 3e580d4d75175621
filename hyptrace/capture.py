"""What has been captured: pages of each CPU, and what describes them.

A capture is read in chunks, so that its size does not matter. What of it is missing or makes
no sense is said in `notes`, and the rest is used.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hyptrace.formats import Described

PAGE_SIZE = 4096
PAGE_HEADER = 16


def bad(path: Path | str, why: str) -> OSError:
    """What is at `path` cannot be read as what it should be."""
    return OSError(errno.EBADMSG, why, str(path))


@dataclass(frozen=True)
class Metadata:
    """What a tracing directory says beside its events; texts are those of its files."""

    header_page: str
    header_event: str
    formats: Mapping[str, Sequence[str]]  # by system; `ftrace` is one of them
    trace_clock: str = ""  # the one in use is in brackets; or its name alone
    stats: Mapping[int, str] = field(default_factory=dict)  # per_cpu/cpuN/stats
    uname: str = ""  # system, node, release, machine
    printk_formats: str = ""
    saved_cmdlines: str = ""

    @property
    def clock(self) -> str:
        """Name of the clock in use; empty if it is not said."""
        match = re.search(r"\[(\w+)\]", self.trace_clock)
        return match[1] if match else self.trace_clock.strip()

    @property
    def node(self) -> str:
        """Name of the host; empty if it is not said."""
        return self.uname.split()[1] if len(self.uname.split()) > 1 else ""


def read_metadata(tracing: Path, *, uname: str = "") -> Metadata:
    """What the tracing directory at `tracing` (the top of a mount, or a copy) says.

    Raises OSError ENOENT for what a capture cannot do without.
    """

    def optional(name: str) -> str:
        path = tracing / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    events = tracing / "events"
    systems = sorted(path.name for path in events.iterdir() if path.is_dir())
    return Metadata(
        header_page=(events / "header_page").read_text(encoding="ascii"),
        header_event=(events / "header_event").read_text(encoding="ascii"),
        formats={system: _formats(events / system) for system in systems},
        trace_clock=optional("trace_clock"),
        stats=_stats(tracing / "per_cpu"),
        uname=uname,
        printk_formats=optional("printk_formats"),
        saved_cmdlines=optional("saved_cmdlines"),
    )


def _formats(system: Path) -> list[str]:
    files = sorted(system.glob("*/format"))
    return [path.read_text(encoding="utf-8", errors="replace") for path in files]


def _stats(per_cpu: Path) -> dict[int, str]:
    files = per_cpu.glob("cpu[0-9]*/stats") if per_cpu.is_dir() else ()
    return {int(path.parent.name[3:]): path.read_text(encoding="ascii") for path in files}


_FIELD_SIZE = r"\tfield: {};\toffset:(\d+);\tsize:(\d+);"


def check_header_page(text: str, path: Path | str) -> None:
    """Make sure that pages are laid out as we read them. Raises OSError EBADMSG."""
    for what, where in (
        ("u64 timestamp", (0, 8)),
        (r"local_t commit", (8, 8)),
        ("char data", (PAGE_HEADER, PAGE_SIZE - PAGE_HEADER)),
    ):
        match = re.search(_FIELD_SIZE.format(what), text)
        if match is None:
            raise bad(path, f"header_page does not say where {what!r} is")
        if (int(match[1]), int(match[2])) != where:
            raise bad(
                path,
                f"its pages have {match[2]} bytes of {what!r} at {match[1]}; "
                f"only {where[1]} at {where[0]} (pages of {PAGE_SIZE} bytes) can be read",
            )


Chunks = Callable[[], Iterator[bytes]]
"""Makes an iterator of page images: whole pages, back to back."""


@dataclass(frozen=True)
class CpuPages:
    """The pages of one CPU."""

    cpu: int
    size: int  # bytes in the file, for progress
    chunks: Chunks


@dataclass
class Capture:
    """Pages of all CPUs, in the order of their numbers, and the events in them."""

    path: Path
    events: Sequence[Described]
    cpus: Sequence[CpuPages]
    metadata: Metadata
    notes: list[str]

    @property
    def size(self) -> int:
        """Bytes of all pages, as they are in the file."""
        return sum(cpu.size for cpu in self.cpus)

    @property
    def max_cpu(self) -> int:
        """The largest number that a CPU has."""
        return max((cpu.cpu for cpu in self.cpus), default=0)


def chunk_size(nr_cpus: int) -> int:
    """Bytes of a chunk, so that those of all CPUs are some MiB together."""
    pages = (16 << 20) // PAGE_SIZE // max(nr_cpus, 1)
    return PAGE_SIZE * min(max(pages, 4), 256)
