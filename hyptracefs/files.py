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
    """An open file that can do nothing yet. read() may wait; the others do not."""

    seekable = True

    async def read(self, size: int, offset: int, nonblock: bool) -> bytes | memoryview:
        """Give up to `size` bytes; empty at the end. A view is valid until the next read."""
        raise OSError(errno.EINVAL, "this file cannot be read")

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
        """st_size. 0 for streams, whose length nobody knows."""

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        """Open for process `caller`, with the `flags` that it gave."""


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


@dataclass(frozen=True)
class Pipe:
    """Events, consumed: as text, or as page images."""

    read: Callable[[Reader, int], memoryview]

    def length(self, place: Place) -> int:
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
            if nonblock:
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
