"""What SPEC A and B say that a ring does, in so many words, with nothing concurrent.

Written from the specification, to be compared with ringbuf_c: a page is a list of events,
the ring a list of pages that begins with the head.
"""

from __future__ import annotations

import errno
import struct
from enum import IntEnum
from typing import NamedTuple

PAGE_SIZE = 4096
CAPACITY = PAGE_SIZE - 16
MAX_PAYLOAD = CAPACITY - 8
EXTEND_FROM = 1 << 27  # ns
EXTEND_BITS = 59
_META_LENGTH = 88  # SPEC A.1's 80, and `dropped`


class Status(IntEnum):
    UNAVAILABLE = 0
    READY = 1
    WRITING = 2


class Event(NamedTuple):
    time: int
    payload: bytes
    encoded: bytes


class Page:
    def __init__(self) -> None:
        self.time: int | None = None  # None: never written
        self.events: list[Event] = []

    def data(self) -> bytes:
        return b"".join(event.encoded for event in self.events)


def _encode(delta: int, payload: bytes) -> bytes:
    extend = b""
    if delta >= EXTEND_FROM:
        high, low = divmod(delta % (1 << EXTEND_BITS), EXTEND_FROM)
        extend, delta = struct.pack("<II", low << 5 | 30, high), 0
    return extend + struct.pack("<II", delta << 5, len(payload) + 4) + payload


class Oracle:
    """One CPU's ring. The methods are those of ring.h, and return what these return."""

    def __init__(self) -> None:
        self.status = Status.UNAVAILABLE
        self.pages: list[Page] = []  # by id; none: not loaded
        self.open: Event | None = None  # reserved, not committed
        self._clear()

    def _clear(self) -> None:
        self.entries = self.overrun = self.dropped = self.pages_lost = self.pages_touched = 0
        self.lost_events = self.last_overrun = self.write_stamp = 0

    def meta(self) -> dict[str, int]:
        """The meta page, but for what is 0 in it."""
        if not self.pages:
            return {}
        counters = ("entries", "overrun", "dropped", "pages_lost", "pages_touched", "lost_events")
        return {name: getattr(self, name) for name in counters} | {
            "meta_page_size": PAGE_SIZE,
            "meta_struct_len": _META_LENGTH,
            "subbuf_size": PAGE_SIZE,
            "nr_subbufs": len(self.pages),
            "reader_id": self.reader,
        }

    def init(self, nr_pages: int) -> int:
        if self.pages:
            return -errno.EBUSY
        if nr_pages < 3:
            return -errno.EINVAL
        self.pages = [Page() for _ in range(nr_pages)]
        self.reader, self.tail = 0, 1
        self.ring = list(range(1, nr_pages))  # ids, from the head on
        return 0

    def unload(self) -> None:
        self.enable(False)
        self.pages = []
        self._clear()

    def enable(self, on: bool) -> int:
        if not self.pages:
            return -errno.ENODEV
        if not on:
            self.commit()  # it is waited for
            self.status = Status.UNAVAILABLE
        elif self.status == Status.UNAVAILABLE:
            self.status = Status.READY
        return 0

    def reset(self) -> int:
        if not self.pages:
            return -errno.ENODEV
        self.commit()
        for page in self.pages:
            page.events = []
        self.tail = self.ring[0]
        self._clear()
        return 0

    def swap(self) -> int:
        if not self.pages:
            return -errno.ENODEV
        self.ring.append(self.reader)
        self.reader = self.ring.pop(0)
        self.lost_events = self.overrun - self.last_overrun
        self.last_overrun = self.overrun
        return 0

    def room(self) -> int:
        """Bytes left on the tail page."""
        return CAPACITY - len(self.pages[self.tail].data())

    def reserve(self, length: int, time: int, fill: bytes) -> tuple[int, int] | None:
        """The payload is `fill`, 8 bytes, again and again. Page and offset where it goes."""
        if self.status == Status.UNAVAILABLE:
            return None
        if self.status == Status.WRITING or length > MAX_PAYLOAD:
            self.dropped += 1
            return None
        payload = fill * ((length + 7) // 8)
        encoded = _encode((time - self.write_stamp) % (1 << 64), payload)
        if self.pages[self.tail].events and len(encoded) > self.room():
            self._move_tail()
        page = self.pages[self.tail]
        if not page.events:
            page.time = time
            encoded = _encode(0, payload)
        self.write_stamp = time
        self.open = Event(time, payload, encoded)
        self.status = Status.WRITING
        return self.tail, len(page.data()) + len(encoded) - len(payload)

    def _move_tail(self) -> None:
        if self.tail == self.reader:
            self.tail = self.ring[0]  # as it did when it was taken out of the ring
        elif self.tail != self.ring[-1]:
            self.tail = self.ring[self.ring.index(self.tail) + 1]
        else:
            self.tail = self.ring.pop(0)  # the head is lost
            self.ring.append(self.tail)
            self.overrun += len(self.pages[self.tail].events)
            self.pages_lost += 1
        self.pages[self.tail].events = []
        self.pages_touched += 1

    def commit(self) -> None:
        if self.open:
            self.pages[self.tail].events.append(self.open)
            self.open = None
            self.entries += 1
            self.status = Status.READY
