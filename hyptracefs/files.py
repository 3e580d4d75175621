"""What the files do: kinds of files, over a remote. No FUSE in here.

A kind is opened for one place in the tree and gives an OpenFile. Errors are OSError.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol, TypeAlias

from hyptracefs.events import Event
from hyptracefs.kstrto import kstrtoull
from hyptracefs.remote import Reader, Remote
from hyptracefs.ring_buffer import ALL_CPUS


@dataclass(frozen=True)
class Place:
    """What a file of the tree is about."""

    remote: Remote
    cpu: int = ALL_CPUS
    event: Event | None = None

    @property
    def the_event(self) -> Event:
        """For files that stand below events/."""
        if self.event is None:
            raise AssertionError("a file of an event stands outside events/")
        return self.event


class OpenFile:
    """An open file that can do nothing yet. read() may wait; the others do not."""

    seekable = True

    async def read(self, size: int, offset: int, nonblock: bool) -> bytes | memoryview:
        """Give up to `size` bytes; empty at the end. A view is valid until the next read."""
        raise OSError(errno.EINVAL, "this file cannot be read")

    async def write(self, data: bytes, caller: int) -> None:
        """Take `data`, of process `caller`, as a whole; where it is written does not matter."""
        raise OSError(errno.EINVAL, "this file cannot be written")

    def poll(self, tell: Callable[[], None] | None) -> int:
        """Give the POLL* events that hold now. If none does, `tell` is called once one may."""
        return select.POLLIN | select.POLLRDNORM | select.POLLOUT | select.POLLWRNORM

    def release(self) -> None:
        """Close. Acts at once, without waiting."""


class Kind(Protocol):
    """A kind of file."""

    async def length(self, place: Place) -> int:
        """st_size. 0 for streams, whose length nobody knows."""

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        """Open for process `caller`, with the `flags` that it gave."""


def _writable(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_RDONLY


# --- control files: a text to show, a number to store --------------------------------------


Show: TypeAlias = "Callable[[Place], str]"
Store: TypeAlias = "Callable[[Place, bytes], Awaitable[None]]"


@dataclass(frozen=True)
class Control:
    """A short text that is made when it is read, and parsed when it is written."""

    show: Show
    store: Store | None = None

    async def length(self, place: Place) -> int:
        """The current length: tools that splice or seek go by it."""
        return len(self.show(place))

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _OpenControl(self, place)


class _OpenControl(OpenFile):
    def __init__(self, kind: Control, place: Place) -> None:
        self._kind = kind
        self._place = place
        self._text = b""

    async def read(self, size: int, offset: int, nonblock: bool) -> bytes:
        # One text for all pieces of one reading.
        if offset == 0:
            self._text = self._kind.show(self._place).encode("ascii")
        return self._text[offset : offset + size]

    async def write(self, data: bytes, caller: int) -> None:
        if self._kind.store is None:
            await super().write(data, caller)
        else:
            await self._kind.store(self._place, data)


# --- streams -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pipe:
    """Events, consumed: as text, or as page images."""

    read: Callable[[Reader, int], memoryview]

    async def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _OpenPipe(self, await place.remote.open_reader(place.cpu))


class _OpenPipe(OpenFile):
    seekable = False

    def __init__(self, kind: Pipe, reader: Reader) -> None:
        self._kind = kind
        self._reader = reader

    async def read(self, size: int, offset: int, nonblock: bool) -> memoryview:
        while not (data := self._kind.read(self._reader, size)):
            if nonblock and not self._reader.unfinished:
                raise BlockingIOError(errno.EAGAIN, "no events")
            await self._reader.wait()
        return data

    def poll(self, tell: Callable[[], None] | None) -> int:
        if self._reader.readable():
            return select.POLLIN | select.POLLRDNORM
        if tell is not None:
            self._reader.watch(tell)
        return 0

    def release(self) -> None:
        self._reader.close()


TRACE_PIPE = Pipe(Reader.try_read_text)
TRACE_PIPE_RAW = Pipe(Reader.try_read_raw)


# --- trace -------------------------------------------------------------------------------


class _Swallow(OpenFile):
    """What is written is taken and ignored: opening was all."""

    async def write(self, data: bytes, caller: int) -> None:
        pass


class _Unreadable(OpenFile):
    async def read(self, size: int, offset: int, nonblock: bool) -> bytes:
        raise OSError(errno.EPERM, "trace: cannot be read here: use trace_pipe, or remotes/")


class ResetTrace:
    """`trace` of V1 (SPEC E.4): cannot be read; opening it for writing forgets the events.

    Reading is refused at the first read, not at the open: tools look whether it opens.
    """

    async def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if not _writable(flags):
            return _Unreadable()
        place.remote.reset(place.cpu)
        return _Swallow()


class TruncatedTrace:
    """`trace` of a tracing directory: opening it with O_TRUNC forgets the events.

    What is written is ignored. Reading it is as in mainline's remotes.
    """

    async def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if _writable(flags) and flags & os.O_TRUNC:
            place.remote.reset(place.cpu)
        return _Swallow()


class _OpenTrace(OpenFile):
    def __init__(self, place: Place) -> None:
        self._place = place

    async def write(self, data: bytes, caller: int) -> None:
        self._place.remote.reset(self._place.cpu)


class Trace:
    """`trace` of mainline (SPEC E.4): shows the events, and forgets them when written to."""

    async def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _OpenTrace(place)


# --- events ------------------------------------------------------------------------------


def _cpu_of(process: int) -> int:
    """The CPU that `process` runs on, or ran on last (proc(5): field 39 of stat).

    0 for a process that we cannot see: it lives in another pid namespace.
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    behind_name = stat.rpartition(")")[2].split()
    return int(behind_name[39 - 3])


class TraceClock:
    """`trace_clock` of a tracing directory: one clock, under any of the names that tools know.

    The stamps are boot time whatever is chosen. But trace-cmd prints times in seconds for
    some names only, `boot` not being one; hence `mono`, the same but for time in suspend.
    """

    names = ("local", "mono", "boot")

    def __init__(self) -> None:
        self._chosen: dict[Remote, str] = {}

    def _text(self, place: Place) -> str:
        chosen = self._chosen.get(place.remote, "mono")
        return " ".join(f"[{name}]" if name == chosen else name for name in self.names) + "\n"

    async def _store(self, place: Place, data: bytes) -> None:
        name = data.decode("ascii", errors="replace").strip()
        if name not in self.names:
            raise OSError(errno.EINVAL, f"trace_clock: there are {', '.join(self.names)}")
        self._chosen[place.remote] = name

    async def length(self, place: Place) -> int:
        return len(self._text(place))

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _OpenControl(Control(self._text, self._store), place)


class SelftestEvent:
    """`selftest_event` of V1 (SPEC E.6): opening it for writing emits one event.

    On the CPU of the caller. Its `id` counts these openings, from 1.
    """

    def __init__(self) -> None:
        self._written: dict[Remote, int] = {}

    async def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if _writable(flags):
            value = self._written.get(place.remote, 0) + 1
            place.remote.write_event(_cpu_of(caller), value)
            self._written[place.remote] = value
        return _Swallow()


class _OpenWriteEvent(OpenFile):
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def write(self, data: bytes, caller: int) -> None:
        self._remote.write_event(_cpu_of(caller), kstrtoull(data))


class WriteEvent:
    """`write_event` of mainline (SPEC E.6): a number written emits one event with it as `id`.

    On the CPU of who writes, which need not be who has opened it: `taskset echo 1 >file`.
    """

    async def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _OpenWriteEvent(place.remote)


def event_names(remote: Remote, events: Iterable[Event]) -> str:
    """`events` as `set_event` and `available_events` show them."""
    return "".join(f"{remote.name}:{event.name}\n" for event in events)


class SetEvent:
    """`set_event` of an instance: which events are on, as `system:event`, one a line.

    Words written switch what they match on, or off with a `!`: a system, an event, or both
    with a `:`, with `*` and `?`. Opening it with O_TRUNC switches all off.
    """

    def _text(self, place: Place) -> str:
        remote = place.remote
        return event_names(remote, filter(remote.event_enabled, remote.events))

    async def _store(self, place: Place, data: bytes) -> None:
        for word in data.decode("ascii", errors="replace").split():
            pattern = word.removeprefix("!")
            events = [event for event in place.remote.events if _matches(event, pattern, place)]
            if not events:
                raise OSError(errno.EINVAL, f"set_event: {pattern!r}: there is no such event")
            place.remote.enable_events(events, on=pattern == word)

    async def length(self, place: Place) -> int:
        return len(self._text(place))

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if _writable(flags) and flags & os.O_TRUNC:
            place.remote.enable_events(place.remote.events, on=False)
        return _OpenControl(Control(self._text, self._store), place)


def _matches(event: Event, pattern: str, place: Place) -> bool:
    """`system:event`, where an empty part means all; or one word that is either."""
    system, colon, name = pattern.partition(":")
    if not colon:
        return any(fnmatchcase(each, pattern) for each in (place.remote.name, event.name))
    return fnmatchcase(place.remote.name, system or "*") and fnmatchcase(event.name, name or "*")
