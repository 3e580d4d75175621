"""What the files do: kinds of files, over a remote. No FUSE in here.

A kind is opened for one place in the tree and gives an OpenFile. Errors are OSError.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from hyptracefs.events import Event
from hyptracefs.remote import Remote
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
    """An open file that can do nothing yet. read() may wait for ever; the others do not.

    What waits may be cancelled, as long as nothing has been done that can be seen.
    """

    seekable = True
    stream = False  # it has no position: each reads for itself what comes next, offset 0
    # Address of a struct pipe_end (pipe.h) that gives what read() and read_cached() would; 0: there
    # is none.
    pipe = 0

    @property
    def cached(self) -> int:
        """Inode whose page cache has asked that pipe; 0: none has."""
        return 0

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


def is_writable(flags: int) -> bool:
    """Whether `flags` of an open ask to write."""
    return flags & os.O_ACCMODE != os.O_RDONLY


class Swallow(OpenFile):
    """What is written is taken and ignored: opening was all."""

    async def write(self, data: bytes, caller: int) -> None:
        pass


# --- control files: a text to show, a number to store --------------------------------------


Show: TypeAlias = "Callable[[Place], str]"
Store: TypeAlias = "Callable[[Place, bytes], Awaitable[None]]"


@dataclass(frozen=True)
class Control:
    """A short text that is made when it is read, and parsed when it is written."""

    show: Show
    store: Store | None = None
    settle: bool = False  # readers that a signal has ended are gone before it is looked at

    async def length(self, place: Place) -> int:
        """The current length: tools that splice or seek go by it."""
        return len(self.show(place))

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return OpenControl(self, place)


class OpenControl(OpenFile):
    """A control file, open."""

    def __init__(self, kind: Control, place: Place) -> None:
        self._kind = kind
        self._place = place
        self._text = b""

    async def _settle(self) -> None:
        if self._kind.settle:
            await self._place.remote.ending_readers_close()

    async def read(self, size: int, offset: int, nonblock: bool) -> bytes:
        # One text for all pieces of one reading.
        if offset == 0:
            await self._settle()
            self._text = self._kind.show(self._place).encode("ascii")
        return self._text[offset : offset + size]

    async def write(self, data: bytes, caller: int) -> None:
        if self._kind.store is None:
            await super().write(data, caller)
        else:
            await self._settle()
            await self._kind.store(self._place, data)
