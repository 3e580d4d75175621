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
    _raw = True

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self._spliced: dict[int, bytes] = {}  # the last pages, by where the splice asked

    def _take(self, size: int) -> memoryview:
        return self._reader.try_read_raw(size)

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
        if self._reader.owes:
            raise OSError(errno.EINVAL, "after read of part of a page: read the rest")
        page = bytes(self._reader.try_read_raw(PAGE_SIZE))
        if not page:
            raise BlockingIOError(errno.EAGAIN, "no events")
        if len(self._spliced) == _STEPS_BACK:
            del self._spliced[min(self._spliced)]
        return page


def _opened(kind: type[_OpenPipe], reader: Reader) -> OpenFile:
    try:
        return kind(reader)
    except BaseException:  # no memory: nobody would close it
        reader.close()
        raise


TRACE_PIPE = Pipe()
TRACE_PIPE_RAW = RawPipe()
