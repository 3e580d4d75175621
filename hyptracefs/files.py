"""What the files do: kinds of files, over a remote. No FUSE in here.

A kind is opened for one place in the tree and gives an OpenFile. Errors are OSError.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hyptracefs.events import Event
from hyptracefs.kstrto import kstrtou8, kstrtoull, parse_switch
from hyptracefs.remote import Reader, Remote
from hyptracefs.ring_buffer import ALL_CPUS, PAGE_HEADER, PAGE_SIZE


@dataclass(frozen=True)
class Place:
    """What a file of the tree is about."""

    remote: Remote
    cpu: int = ALL_CPUS
    event: Event | None = None


def _event(place: Place) -> Event:
    if place.event is None:
        raise AssertionError("a file of an event stands outside events/")
    return place.event


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

    async def write(self, data: bytes) -> None:
        """Take `data` as a whole; where in the file it is written does not matter."""
        raise OSError(errno.EINVAL, "this file cannot be written")

    def poll(self, tell: Callable[[], None] | None) -> int:
        """Give the POLL* events that hold now. If none does, `tell` is called once one may."""
        return select.POLLIN | select.POLLRDNORM | select.POLLOUT | select.POLLWRNORM

    def release(self) -> None:
        """Close. Acts at once, without waiting."""


class Kind(Protocol):
    """A kind of file."""

    def length(self, place: Place) -> int:
        """st_size. At 0 a splice ends and asks nobody: more for what has no length."""

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        """Open for process `caller`, with the `flags` that it gave. May be cancelled likewise."""


def _writable(flags: int) -> bool:
    return flags & os.O_ACCMODE != os.O_RDONLY


# --- control files: a text to show, a number to store --------------------------------------


@dataclass(frozen=True)
class Control:
    """A short text that is made when it is read, and parsed when it is written."""

    show: Callable[[Place], str]
    store: Callable[[Place, bytes], Awaitable[None]] | None = None

    def length(self, place: Place) -> int:
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

    async def write(self, data: bytes) -> None:
        if self._kind.store is None:
            await super().write(data)
        else:
            await self._kind.store(self._place, data)


def show_tracing_on(place: Place) -> str:
    return f"{place.remote.tracing_on:d}\n"


async def store_tracing_on(place: Place, data: bytes) -> None:
    if kstrtoull(data):
        await place.remote.start_tracing()
    else:
        await place.remote.stop_tracing()


def show_buffer_size_kb(place: Place) -> str:
    state = "loaded" if place.remote.loaded else "unloaded"
    return f"{place.remote.size_kb} ({state})\n"


async def store_buffer_size_kb(place: Place, data: bytes) -> None:
    await place.remote.set_size(kstrtoull(data))


def show_trace_clock(place: Place) -> str:
    return "[boot]\n"


def show_event_enable(place: Place) -> str:
    return f"{place.remote.event_enabled(_event(place)):d}\n"


async def store_event_enable(place: Place, data: bytes) -> None:
    place.remote.enable_event(_event(place), parse_switch(data))


def show_event_id(place: Place) -> str:
    return f"{_event(place).id}\n"


def show_event_format(place: Place) -> str:
    return _event(place).format()


def show_events_enable(place: Place) -> str:
    states = {place.remote.event_enabled(event) for event in place.remote.events}
    if len(states) > 1:
        return "X\n"
    return f"{True in states:d}\n"


async def store_events_enable(place: Place, data: bytes) -> None:
    """Tries every event; then raises the first error."""
    on = bool(kstrtou8(data))
    errors: list[OSError] = []
    for event in place.remote.events:
        try:
            place.remote.enable_event(event, on)
        except OSError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def show_header_page(place: Place) -> str:
    rows = (
        ("u64 timestamp", 0, 8, 0),
        ("local_t commit", 8, 8, 1),
        ("char overwrite", 8, 1, 0),
        ("char data", PAGE_HEADER, PAGE_SIZE - PAGE_HEADER, 0),
    )
    return "".join(
        f"\tfield: {field};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"
        for field, offset, size, signed in rows
    )


def show_header_event(place: Place) -> str:
    return (
        "# compressed entry header\n"
        "\ttype_len    :    5 bits\n"
        "\ttime_delta  :   27 bits\n"
        "\tarray       :   32 bits\n"
        "\n"
        "\tpadding     : type == 29\n"
        "\ttime_extend : type == 30\n"
        "\ttime_stamp : type == 31\n"
        "\tdata max type_len  == 28\n"
    )


# --- streams -------------------------------------------------------------------------------


# st_size of pipes. A splice ends there, and where it ends nobody is asked for more.
_ENDLESS = 1 << 62


@dataclass(frozen=True)
class Pipe:
    """Events as text, consumed."""

    def length(self, place: Place) -> int:
        """More than nothing, so that a splice asks, and is refused."""
        return PAGE_SIZE

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _OpenPipe(await place.remote.open_reader(place.cpu))


@dataclass(frozen=True)
class RawPipe:
    """Events as page images, consumed."""

    def length(self, place: Place) -> int:
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
            if nonblock:
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


class _Swallow(OpenFile):
    """What is written is taken and ignored: opening was all."""

    async def write(self, data: bytes) -> None:
        pass


class ResetTrace:
    """`trace` of V1 (SPEC E.4): cannot be read; opening it for writing forgets the events."""

    def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if not _writable(flags):
            raise OSError(errno.EPERM, "trace: cannot be read: use trace_pipe")
        place.remote.reset(place.cpu)
        return _Swallow()


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


class SelftestEvent:
    """`selftest_event` of V1 (SPEC E.6): opening it for writing emits one event.

    On the CPU of the caller. Its `id` counts these openings, from 1.
    """

    def __init__(self) -> None:
        self._written: dict[Remote, int] = {}

    def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if _writable(flags):
            value = self._written.get(place.remote, 0) + 1
            place.remote.write_event(_cpu_of(caller), value)
            self._written[place.remote] = value
        return _Swallow()
