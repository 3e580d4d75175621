"""The pipes: events, consumed as they are read, as text or as page images."""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from dataclasses import dataclass

from hyptracefs.files import OpenFile, Place
from hyptracefs.remote import Reader
from hyptracefs.ring_buffer import PAGE_SIZE

# st_size of pipes. A splice ends there, and where it ends nobody is asked for more.
_ENDLESS = 1 << 62


@dataclass(frozen=True)
class Pipe:
    """Events as text, consumed."""

    async def length(self, place: Place) -> int:
        """More than nothing, so that a splice asks, and is refused."""
        return PAGE_SIZE

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _opened(_OpenPipe, await place.remote.open_reader(place.cpu, caller))


@dataclass(frozen=True)
class RawPipe:
    """Events as page images, consumed."""

    async def length(self, place: Place) -> int:
        return _ENDLESS

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _opened(_OpenRawPipe, await place.remote.open_reader(place.cpu, caller))


class _OpenPipe(OpenFile):
    seekable = False
    stream = True
    _raw = False

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._pipe = reader.pipe(self._raw)
        self.pipe = self._pipe.address

    def _take(self, size: int) -> memoryview:
        return self._reader.try_read_text(size)

    async def read(self, size: int, offset: int, nonblock: bool) -> memoryview:
        while not (data := self._take(size)):
            if nonblock and not self._reader.unfinished:
                raise BlockingIOError(errno.EAGAIN, "no events")
            await self._reader.wait()
        return data

    async def read_cached(self, size: int, offset: int) -> bytes:
        return self._reader.try_read_cached(self._pipe, size, offset)

    @property
    def cached(self) -> int:
        return self._pipe.cached

    def poll(self, tell: Callable[[], None] | None) -> int:
        if self._reader.readable():
            return select.POLLIN | select.POLLRDNORM
        if tell is not None:
            self._reader.watch(tell)
        return 0

    def release(self) -> None:
        self._reader.close()


class _OpenRawPipe(_OpenPipe):
    _raw = True

    def _take(self, size: int) -> memoryview:
        return self._reader.try_read_raw(size)


def _opened(kind: type[_OpenPipe], reader: Reader) -> OpenFile:
    try:
        return kind(reader)
    except BaseException:  # no memory: nobody would close it
        reader.close()
        raise


TRACE_PIPE = Pipe()
TRACE_PIPE_RAW = RawPipe()
