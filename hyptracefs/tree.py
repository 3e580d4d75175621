"""The tree of files: views of remotes, each a table of files and directories (SPEC E, TOOLS 2).

Rows with {cpu} stand for one per CPU, rows with {event} for one per event.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hyptracefs import controls, filter_files
from hyptracefs.event_files import SelftestEvent, SetEvent, TraceClock, WriteEvent
from hyptracefs.files import Control, Kind, OpenFile, Place, Show, Store
from hyptracefs.remote import Remote
from hyptracefs.statistics_file import STATISTICS
from hyptracefs.streams import TRACE_PIPE, TRACE_PIPE_RAW
from hyptracefs.trace_files import CpuStats, ResetTrace, Trace

ROOT_INODE = 1


class Row(NamedTuple):
    """A file, or a directory (no kind), by its path from the top of its view."""

    path: str
    mode: int
    kind: Kind | None = None


def _control(path: str, show: Show, store: Store | None = None) -> Row:
    """A control file: to be read, or also to be written."""
    return Row(path, 0o440 if store is None else 0o640, Control(show, store))


# All views have these. Event directories are of eventfs, which has modes of its own.
_COMMON = (
    Row(
        "buffer_size_kb",
        0o640,
        Control(controls.show_buffer_size_kb, controls.store_buffer_size_kb, settle=True),
    ),
    _control("tracing_on", controls.show_tracing_on, controls.store_tracing_on),
    Row("per_cpu", 0o750),
    Row("per_cpu/cpu{cpu}", 0o750),
    Row("per_cpu/cpu{cpu}/trace_pipe", 0o440, TRACE_PIPE),
    Row("events", 0o755),
    _control("events/enable", controls.show_events_enable, controls.store_events_enable),
    _control("events/header_event", controls.show_header_event),
    _control("events/header_page", controls.show_header_page),
    Row("events/{remote}", 0o755),
    Row("events/{remote}/{event}", 0o755),
    _control("events/{remote}/{event}/id", controls.show_event_id),
)

# What tools look for in an instance, beyond that.
_OF_INSTANCE = (
    _control("buffer_subbuf_size_kb", controls.show_page_size_kb),
    _control("buffer_total_size_kb", controls.show_total_size_kb),
    _control("current_tracer", controls.show_current_tracer, controls.store_current_tracer),
    Row("set_event", 0o640, SetEvent()),
    Row("trace_pipe_raw", 0o440, TRACE_PIPE_RAW),
    _control("per_cpu/cpu{cpu}/buffer_size_kb", controls.show_cpu_size_kb),
    Row("per_cpu/cpu{cpu}/stats", 0o440, CpuStats()),
    Row("per_cpu/cpu{cpu}/trace_pipe_raw", 0o440, TRACE_PIPE_RAW),
)

_TRACE_CLOCK = _control("trace_clock", controls.show_trace_clock)
_FORMAT = _control("events/{remote}/{event}/format", controls.show_event_format)
_EVENT_ENABLE = _control(
    "events/{remote}/{event}/enable", controls.show_event_enable, controls.store_event_enable
)

# The view of V1, with the later event files, and with what tools look for in an instance;
# modes that V1 got wrong as corrected since (SPEC J.14).
HYPERVISOR_VIEW = (
    Row("", 0o750),
    *_COMMON,
    *_OF_INSTANCE,
    _TRACE_CLOCK,
    _FORMAT,
    Row("selftest_event", 0o640, SelftestEvent()),
    Row("statistics", 0o440, STATISTICS),
    Row("trace", 0o640, ResetTrace()),
    Row("trace_pipe", 0o640, TRACE_PIPE),
    Row("per_cpu/cpu{cpu}/trace", 0o640, ResetTrace()),
    _control(
        "events/{remote}/{event}/enable", controls.show_event_enable, controls.store_event_switch
    ),
)

# The mainline view of the remote `test`; that of a hypervisor has a clock to show.
TEST_VIEW = (
    Row("", 0o750),
    *_COMMON,
    _FORMAT,
    _EVENT_ENABLE,
    Row("trace", 0o640, Trace()),
    Row("trace_pipe", 0o440, TRACE_PIPE),
    Row("write_event", 0o200, WriteEvent()),
    Row("per_cpu/cpu{cpu}/trace", 0o640, Trace()),
)
REMOTE_VIEW = (*TEST_VIEW, _TRACE_CLOCK)

# A tracing directory as trace-cmd and libtracefs take one for the machine's (TOOLS 2.3), and
# what of it an instance has.
INSTANCE_VIEW = (
    *_COMMON,
    *_OF_INSTANCE,
    _EVENT_ENABLE,
    _control("events/{remote}/{event}/format", controls.show_portable_format),
    _control("events/{remote}/enable", controls.show_events_enable, controls.store_events_enable),
    _control(
        "events/{remote}/filter", filter_files.show_system_filter, filter_files.store_system_filter
    ),
    _control(
        "events/{remote}/{event}/filter",
        filter_files.show_event_filter,
        filter_files.store_event_filter,
    ),
    Row("error_log", 0o640, filter_files.ErrorLogFile()),
    Row("options", 0o750),
    Row("trace", 0o640, Trace(truncates=True)),
    Row("trace_clock", 0o640, TraceClock()),
    _control("trace_options", controls.show_nothing),
    Row("trace_pipe", 0o440, TRACE_PIPE),
    Row("per_cpu/cpu{cpu}/trace", 0o640, Trace(truncates=True)),
)
TRACING_VIEW = (
    *INSTANCE_VIEW,
    _control("available_events", controls.show_available_events),
    _control("available_tracers", controls.show_available_tracers),
    Row("instances", 0o750),
    _control("printk_formats", controls.show_nothing),
    _control("saved_cmdlines", controls.show_nothing),
    Row("events/ftrace", 0o755),
    Row("events/ftrace/print", 0o755),
    _control("events/ftrace/print/format", controls.show_print_format),
)

_REMOTES_MODE = 0o750


class View(NamedTuple):
    """A directory of the mount, `path` from its top, that shows `remote` as `rows`."""

    path: str
    rows: Sequence[Row]
    remote: Remote


def views_of(hypervisor: Remote, test: Remote) -> tuple[View, ...]:
    """What a mount shows: the hypervisor in four views, and the remote `test`.

    As a tracing directory, as an instance of it, as in V1, and as in mainline. One that is
    itself named `test` takes the place of the other.
    """
    of_test = View(f"remotes/{test.name}", TEST_VIEW, test)
    instance = (Row("", 0o750), *INSTANCE_VIEW)
    return (
        View("", TRACING_VIEW, hypervisor),
        View(f"instances/{hypervisor.name}", instance, hypervisor),
        View("hypervisor", HYPERVISOR_VIEW, hypervisor),
        View(f"remotes/{hypervisor.name}", REMOTE_VIEW, hypervisor),
        *([] if hypervisor.name == test.name else [of_test]),
    )


@dataclass(frozen=True)
class File:
    """A kind of file, and what this one of the kind is about."""

    kind: Kind
    place: Place

    async def length(self) -> int:
        """st_size."""
        return await self.kind.length(self.place)

    async def open(self, flags: int, caller: int) -> OpenFile:
        """As Kind.open()."""
        return await self.kind.open(self.place, flags, caller)


@dataclass(eq=False)
class Node:
    """A file, or a directory (no file), of the tree."""

    inode: int
    name: str
    permissions: int
    file: File | None
    parent: Node | None
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.file is None

    @property
    def mode(self) -> int:
        """st_mode."""
        return (stat.S_IFDIR if self.is_dir else stat.S_IFREG) | self.permissions

    @property
    def nlink(self) -> int:
        """st_nlink."""
        return 2 + sum(child.is_dir for child in self.children.values()) if self.is_dir else 1

    async def size(self) -> int:
        """st_size."""
        return 0 if self.file is None else await self.file.length()

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


def _path(view: View, row: Row, place: Place) -> str:
    event = place.event.name if place.event else ""
    path = row.path.format(cpu=place.cpu, event=event, remote=place.remote.name)
    return f"{view.path}/{path}".strip("/")


class Tree:
    """The nodes of a mount that shows `views`, with a top of mode `mode`."""

    def __init__(self, views: Iterable[View], mode: int = 0o700) -> None:
        self.root = Node(ROOT_INODE, "", mode, None, None)
        self._by_inode = {ROOT_INODE: self.root}
        for view in views:
            self._add_above(view.path)
            for row in view.rows:
                for place in _places(row, view.remote):
                    file = None if row.kind is None else File(row.kind, place)
                    self._add(_path(view, row, place), row.mode, file)

    def _add_above(self, path: str) -> None:
        above = path.rpartition("/")[0]
        if above and above not in self.root.children:
            self._add(above, _REMOTES_MODE, None)

    def _add(self, path: str, mode: int, file: File | None) -> None:
        above, _, name = path.rpartition("/")
        parent = self.find(above) if above else self.root
        node = Node(ROOT_INODE + len(self._by_inode), name, mode, file, parent)
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
