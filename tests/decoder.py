"""Page images of trace_pipe_raw, decoded by SPEC A.5 and A.6 and by `format` files alone.

Written from the specification, and shares no code with what it checks.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

PAGE_SIZE = 4096
HEADER_SIZE = 16

# SPEC F.4, as of Linux 7.2
REASONS = (
    "smc",
    "hvc",
    "sys",
    "psci",
    "host_abort",
    "guest_exit",
    "eret_host",
    "eret_guest",
)

_MISSED_EVENTS = 1 << 31
_MISSED_STORED = 1 << 30

_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31


class RawEvent(NamedTuple):
    time: int  # ns
    name: str
    fields: dict[str, int]


class RawLost(NamedTuple):
    events: int | None  # None: not said how many


class Field(NamedTuple):
    name: str
    offset: int
    size: int
    signed: bool

    def value(self, payload: bytes) -> int:
        data = payload[self.offset : self.offset + self.size]
        assert len(data) == self.size
        return int.from_bytes(data, "little", signed=self.signed)


class Format(NamedTuple):
    """A `format` file."""

    id: int
    name: str
    fields: tuple[Field, ...]


_FIELD = re.compile(
    r"^\tfield:.*?(\w+);\toffset:(\d+);\tsize:(\d+);\tsigned:([01]);$", re.MULTILINE
)


def _in_text(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match, text
    return match[1]


def parse_format(text: str) -> Format:
    fields = (
        Field(name, int(offset), int(size), signed == "1")
        for name, offset, size, signed in _FIELD.findall(text)
    )
    name = _in_text(r"^name: (\w+)$", text)
    return Format(int(_in_text(r"^ID: (\d+)$", text)), name, tuple(fields))


class Record(NamedTuple):
    time: int
    payload: bytes


def records(data: bytes, time: int) -> Iterator[Record]:
    at = 0
    while at < len(data):
        header, array = struct.unpack_from("<II", data, at)
        type_len, delta = header & 0x1F, header >> 5
        if type_len == _TIME_EXTEND:
            time += (array << 27) + delta
            at += 8
        elif type_len == _TIME_STAMP:
            time = (array << 27) + delta
            at += 8
        elif type_len == _PADDING:
            if not delta:
                return
            at += 4 + array  # its delta does not count: rb_update_read_stamp()
        else:
            time += delta
            start = at + (4 if type_len else 8)
            at += 4 + (4 * type_len if type_len else array)
            assert start <= at <= len(data)
            yield Record(time, data[start:at])


class Decoder:
    """For the events that `formats`, the texts of `format` files, describe."""

    def __init__(self, formats: Iterable[str]) -> None:
        parsed = [parse_format(text) for text in formats]
        self._formats = {each.id: each for each in parsed}

    def _event(self, record: Record) -> RawEvent:
        [number] = struct.unpack_from("<H", record.payload)
        of = self._formats[number]
        fields = {field.name: field.value(record.payload) for field in of.fields}
        assert fields.pop("common_type") == number
        return RawEvent(record.time, of.name, fields)

    def page(self, image: bytes) -> Iterator[RawEvent | RawLost]:
        time, commit = struct.unpack_from("<QQ", image)
        length = commit & (_MISSED_STORED - 1)
        data = image[HEADER_SIZE : HEADER_SIZE + length]
        rest = image[HEADER_SIZE + length :]
        assert len(data) == length
        if commit & _MISSED_EVENTS:
            stored = commit & _MISSED_STORED
            yield RawLost(struct.unpack_from("<Q", rest)[0] if stored else None)
            rest = rest[8:] if stored else rest
        assert not any(rest)
        yield from map(self._event, records(data, time))

    def pages(self, images: bytes) -> Iterator[RawEvent | RawLost]:
        """What whole pages hold, each as it comes."""
        assert len(images) % PAGE_SIZE == 0
        for at in range(0, len(images), PAGE_SIZE):
            yield from self.page(images[at : at + PAGE_SIZE])


def as_text(event: RawEvent) -> str:
    """What trace_pipe prints for `event`, behind the time."""
    if event.name == "selftest":
        return f"selftest id={event.fields['id']}"
    number = event.fields["reason"]
    reason = REASONS[number] if number < len(REASONS) else "unknown"
    return f"{event.name} reason={reason} vcpu={event.fields['vcpu']}"
