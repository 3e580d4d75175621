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
from hyptracefs.ring_buffer import ALL_CPUS, PAGE_SIZE


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
    """An open file that can do nothing yet. read() may wait for ever; the others do not.

    What waits may be cancelled, as long as nothing has been done that can be seen.
    """

    seekable = True
    stream = False  # it has no position: each reads for itself what comes next, offset 0

    async def read(self, size: int, offset: int, nonblock: bool) -> bytes | memoryview:
        """Give up to `size` bytes; empty at the end. A view is valid until the next read."""
        raise OSError(errno.EINVAL, "this file cannot be read")

    async def read_cached(self, size: int, offset: int) -> bytes:
        """Give up to `size` bytes at `offset` to the page cache: for splice or sendfile.

        Never waits: who asks cannot be interrupted. Less than `size` is the end of the file.
        """
        return bytes(await self.read(size, offset, nonblock=True))

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
        """st_size. At 0 a splice ends and asks nobody: more for what has no length."""

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        """Open for process `caller`, with the `flags` that it gave. May be cancelled likewise."""


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


# st_size of pipes. A splice ends there, and where it ends nobody is asked for more.
_ENDLESS = 1 << 62


@dataclass(frozen=True)
class Pipe:
    """Events as text, consumed."""

    async def length(self, place: Place) -> int:
        """More than nothing, so that a splice asks, and is refused."""
        return PAGE_SIZE

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _OpenPipe(await place.remote.open_reader(place.cpu))


@dataclass(frozen=True)
class RawPipe:
    """Events as page images, consumed."""

    async def length(self, place: Place) -> int:
        return _ENDLESS

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _OpenRawPipe(await place.remote.open_reader(place.cpu))


class _OpenPipe(OpenFile):
    seekable = False
    stream = True

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def _take(self, size: int) -> memoryview:
        return self._reader.try_read_text(size)

    async def read(self, size: int, offset: int, nonblock: bool) -> memoryview:
        while not (data := self._take(size)):
            if nonblock and not self._reader.unfinished:
                raise BlockingIOError(errno.EAGAIN, "no events")
            await self._reader.wait()
        return data

    async def read_cached(self, size: int, offset: int) -> bytes:
        # The page cache takes whole pages, or it believes that the file ends. Text does not come
        # in pages. In the kernel it is EINVAL, too, and tools fall back to read.
        raise OSError(errno.EINVAL, "text cannot be spliced: read it")

    def poll(self, tell: Callable[[], None] | None) -> int:
        if self._reader.readable():
            return select.POLLIN | select.POLLRDNORM
        if tell is not None:
            self._reader.watch(tell)
        return 0

    def release(self) -> None:
        self._reader.close()


# Pages that a sendfile takes at once (those of a pipe). It steps back over what it could not
# pass on, and may find that the kernel has dropped it from the page cache meanwhile.
_STEPS_BACK = 16


class _OpenRawPipe(_OpenPipe):
    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self._given = 0  # bytes by read()
        self._spliced: dict[int, bytes] = {}  # the last pages, by where the splice asked

    def _take(self, size: int) -> memoryview:
        data = self._reader.try_read_raw(size)
        self._given += len(data)
        return data

    async def read_cached(self, size: int, offset: int) -> bytes:
        """The next page for an `offset` that was never asked for; the same for the same one.

        Raises OSError EAGAIN when there is none, EINVAL after read() of part of a page, EIO
        for an offset of long ago.
        """
        if size != PAGE_SIZE:
            raise BlockingIOError(errno.EAGAIN, "what is consumed is not read ahead")
        if offset not in self._spliced:
            self._spliced[offset] = self._next_page(offset)
        return self._spliced[offset]

    def _next_page(self, offset: int) -> bytes:
        if offset < max(self._spliced, default=0):
            raise OSError(errno.EIO, f"the page spliced at {offset} is gone")
        if self._given % PAGE_SIZE:
            raise OSError(errno.EINVAL, "after read of part of a page: read the rest")
        page = bytes(self._reader.try_read_raw(PAGE_SIZE))
        if not page:
            raise BlockingIOError(errno.EAGAIN, "no events")
        if len(self._spliced) == _STEPS_BACK:
            del self._spliced[min(self._spliced)]
        return page


TRACE_PIPE = Pipe()
TRACE_PIPE_RAW = RawPipe()


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
