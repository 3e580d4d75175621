"""`trace`: what is unread, without consuming it; and a way to forget it (SPEC E.4)."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

import trio

from hyptracefs.files import OpenFile, Place, Swallow, is_writable
from hyptracefs.remote import DumpReader
from hyptracefs.ring_buffer import PAGE_SIZE, Dump, Stats
from hyptracefs.threads import in_thread

_T = TypeVar("_T")


class _Unreadable(OpenFile):
    async def read(self, size: int, offset: int, nonblock: bool) -> bytes:
        raise OSError(errno.EPERM, "trace: cannot be read here: use trace_pipe, or remotes/")


class ResetTrace:
    """`trace` of V1: cannot be read; opening it for writing forgets the events.

    Reading is refused at the first read, not at the open: tools look whether it opens.
    """

    async def length(self, place: Place) -> int:
        """More than nothing, so that a splice asks, and is refused."""
        return PAGE_SIZE

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if not is_writable(flags):
            return _Unreadable()
        place.remote.reset(place.cpu)
        return Swallow()


async def _of_dump(place: Place, ask: Callable[[Dump], _T]) -> _T:
    """What `ask` says of a dump of what is unread now; something is loaded."""
    dump = place.remote.buffer.dump(place.cpu)
    try:
        # In a thread where it takes long; to its end, or the memory would go under it.
        return await in_thread(ask, dump) if dump.large else ask(dump)
    finally:
        dump.close()


class _Shown(OpenFile):
    """What was unread when it was opened; empty if nothing was loaded."""

    def __init__(self, place: Place, reader: DumpReader | None) -> None:
        self._place = place
        self._reader = reader
        self._turn = trio.Lock()  # one reading at a time

    async def read(self, size: int, offset: int, nonblock: bool) -> bytes | memoryview:
        if self._reader is None:
            return b""
        dump = self._reader.dump
        if not dump.large:
            return dump.read(size, offset)
        async with self._turn:
            return await in_thread(dump.read, size, offset)

    def release(self) -> None:
        if self._reader is not None:
            self._reader.close()


class _WriteResets(_Shown):
    async def write(self, data: bytes, caller: int) -> None:
        self._place.remote.reset(self._place.cpu)


class _WriteIsIgnored(_Shown):
    async def write(self, data: bytes, caller: int) -> None:
        pass


class Trace:
    """`trace` that shows the events.

    Of mainline: whatever is written to it forgets them. Of a tracing directory, `truncates`:
    opening it with O_TRUNC does, and what is written is ignored.
    """

    def __init__(self, *, truncates: bool = False) -> None:
        self._truncates = truncates
        self._lengths: dict[Place, tuple[object, int]] = {}  # with what they are the lengths of

    async def length(self, place: Place) -> int:
        content = place.remote.content(place.cpu)
        if content is None:
            return 0
        known, length = self._lengths.get(place, (None, 0))
        if known != content:
            length = await _of_dump(place, Dump.length)
            self._lengths[place] = content, length
        return length

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if self._truncates and is_writable(flags) and flags & os.O_TRUNC:
            place.remote.reset(place.cpu)
        reads = flags & os.O_ACCMODE != os.O_WRONLY
        reader = place.remote.open_dump(place.cpu, caller) if reads else None
        return (_WriteIsIgnored if self._truncates else _WriteResets)(place, reader)


# --- stats ----------------------------------------------------------------------------------


def _oldest(dump: Dump) -> str:
    """The time of its first event, as its line has it."""
    first = re.search(rb"^\[\d+\]\t *(\d+\.\d{6}): ", bytes(dump.read(PAGE_SIZE, 0)), re.MULTILINE)
    return first[1].decode() if first else "0.000000"


def _stats_text(stats: Stats, bytes_unread: int, oldest: str) -> str:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    rows = (
        ("entries", str(stats.unread)),
        ("overrun", str(stats.overrun)),
        ("commit overrun", "0"),
        ("bytes", str(bytes_unread)),
        ("oldest event ts", f"{oldest:>12}"),
        ("now ts", f"{now // 10**6:5}.{now % 10**6:06}"),
        ("dropped events", str(stats.dropped)),
        ("read events", str(stats.read)),
    )
    return "".join(f"{name}: {value}\n" for name, value in rows)


_NO_STATS = Stats(**dict.fromkeys(Stats.__dataclass_fields__, 0))


class _OpenStats(OpenFile):
    def __init__(self, text: str) -> None:
        self._text = text.encode("ascii")

    async def read(self, size: int, offset: int, nonblock: bool) -> bytes:
        return self._text[offset : offset + size]


class CpuStats:
    """`stats` of a CPU, as an instance of the kernel has it. Made when it is opened.

    Without a buffer, those of the one before: trace-cmd asks when it has read all, and closed.
    """

    async def length(self, place: Place) -> int:
        """As in sysfs: its times change with each look."""
        return PAGE_SIZE

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        remote = place.remote
        if not remote.loaded:
            final = remote.final_statistics(place.cpu) or _NO_STATS
            return _OpenStats(_stats_text(final, 0, "0.000000"))
        stats = remote.statistics().cpus[place.cpu]
        unread, oldest = await _of_dump(place, lambda dump: (dump.data_bytes(), _oldest(dump)))
        return _OpenStats(_stats_text(stats, unread, oldest))
