"""The tree of files: a table, one row per file or directory (SPEC E).

Rows with {cpu} stand for one per CPU, rows with {event} for one per event.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hyptracefs import files
from hyptracefs.files import Control, Kind, Place
from hyptracefs.remote import Remote
from hyptracefs.statistics_file import STATISTICS

ROOT_INODE = 1


class Row(NamedTuple):
    """A file, or a directory (no kind), by its path from the top of the view."""

    path: str
    mode: int
    kind: Kind | None = None


# Names and modes of V1, with the later event files; modes that V1 got wrong as corrected
# since (SPEC J.14).
HYPERVISOR_VIEW = (
    Row("hypervisor", 0o750),
    Row(
        "hypervisor/buffer_size_kb",
        0o640,
        Control(files.show_buffer_size_kb, files.store_buffer_size_kb),
    ),
    Row("hypervisor/selftest_event", 0o640, files.SelftestEvent()),
    Row("hypervisor/statistics", 0o440, STATISTICS),
    Row("hypervisor/trace", 0o640, files.ResetTrace()),
    Row("hypervisor/trace_clock", 0o440, Control(files.show_trace_clock)),
    Row("hypervisor/trace_pipe", 0o640, files.TRACE_PIPE),
    Row("hypervisor/trace_pipe_raw", 0o440, files.TRACE_PIPE_RAW),
    Row("hypervisor/tracing_on", 0o640, Control(files.show_tracing_on, files.store_tracing_on)),
    Row("hypervisor/per_cpu", 0o750),
    Row("hypervisor/per_cpu/cpu{cpu}", 0o750),
    Row("hypervisor/per_cpu/cpu{cpu}/trace", 0o640, files.ResetTrace()),
    Row("hypervisor/per_cpu/cpu{cpu}/trace_pipe", 0o440, files.TRACE_PIPE),
    Row("hypervisor/per_cpu/cpu{cpu}/trace_pipe_raw", 0o440, files.TRACE_PIPE_RAW),
    Row("hypervisor/events", 0o755),
    Row(
        "hypervisor/events/enable",
        0o640,
        Control(files.show_events_enable, files.store_events_enable),
    ),
    Row("hypervisor/events/header_event", 0o440, Control(files.show_header_event)),
    Row("hypervisor/events/header_page", 0o440, Control(files.show_header_page)),
    Row("hypervisor/events/{remote}", 0o755),
    Row("hypervisor/events/{remote}/{event}", 0o755),
    Row(
        "hypervisor/events/{remote}/{event}/enable",
        0o640,
        Control(files.show_event_enable, files.store_event_enable),
    ),
    Row("hypervisor/events/{remote}/{event}/format", 0o440, Control(files.show_event_format)),
    Row("hypervisor/events/{remote}/{event}/id", 0o440, Control(files.show_event_id)),
)

_TOP = Row("", 0o750)


@dataclass(eq=False)
class Node:
    """A file or directory of the tree."""

    inode: int
    name: str
    row: Row
    place: Place
    parent: Node | None
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.row.kind is None

    @property
    def mode(self) -> int:
        """st_mode."""
        return (stat.S_IFDIR if self.is_dir else stat.S_IFREG) | self.row.mode

    @property
    def nlink(self) -> int:
        """st_nlink."""
        return 2 + sum(child.is_dir for child in self.children.values()) if self.is_dir else 1

    @property
    def size(self) -> int:
        """st_size."""
        return 0 if self.row.kind is None else self.row.kind.length(self.place)

    @property
    def path(self) -> str:
        """From the top of the mount, without a leading slash."""
        if self.parent is None or self.parent.parent is None:
            return self.name
        return f"{self.parent.path}/{self.name}"


def _places(row: Row, remote: Remote) -> Iterator[Place]:
    """The places that a row stands for."""
    if "{cpu}" in row.path:
        yield from (Place(remote, cpu=cpu) for cpu in range(remote.cpus))
    elif "{event}" in row.path:
        yield from (Place(remote, event=event) for event in remote.events)
    else:
        yield Place(remote)


def _path(row: Row, place: Place) -> str:
    event = place.event.name if place.event else ""
    return row.path.format(cpu=place.cpu, event=event, remote=place.remote.name)


class Tree:
    """The nodes of a mount that shows `remote` as `view`."""

    def __init__(self, remote: Remote, view: Sequence[Row] = HYPERVISOR_VIEW) -> None:
        self.root = Node(ROOT_INODE, "", _TOP, Place(remote), None)
        self._by_inode = {ROOT_INODE: self.root}
        for row in view:
            for place in _places(row, remote):
                self._add(_path(row, place), row, place)

    def _add(self, path: str, row: Row, place: Place) -> None:
        *above, name = path.split("/")
        parent = self.root
        for part in above:
            parent = parent.children[part]
        node = Node(ROOT_INODE + len(self._by_inode), name, row, place, parent)
        parent.children[name] = node
        self._by_inode[node.inode] = node

    def node(self, inode: int) -> Node:
        """Node number `inode`. Raises KeyError."""
        return self._by_inode[inode]

    def find(self, path: str) -> Node:
        """Node at `path` from the top. Raises KeyError."""
        node = self.root
        for part in path.split("/"):
            node = node.children[part]
        return node
