"""trace.dat: the file of trace-cmd(1), versions 6 and 7; see trace-cmd.dat.v6(5), .v7(5).

Versions have the same parts. In 6 they follow each other; in 7 they are sections, which may be
compressed, and options say where they are. The pages of each CPU are an extent of the file, on
a border of pages; in 7 they may be in compressed chunks.

Offsets and sizes are of an untrusted file: each is checked where it is used.
"""

from __future__ import annotations

import importlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hyptrace.capture import (
    PAGE_SIZE,
    Capture,
    Chunks,
    CpuPages,
    Metadata,
    bad,
    check_header_page,
    chunk_size,
)
from hyptrace.dat_layout import (
    BUFFER,
    CHUNK,
    CMDLINES,
    COMPRESSED,
    CPUCOUNT,
    CPUSTAT,
    EVENT_FORMATS,
    EXTENT,
    FLYRECORD,
    FTRACE_EVENTS,
    HEADER_EVENT,
    HEADER_INFO,
    HEADER_PAGE,
    LATENCY,
    LITTLE_ENDIAN,
    MAGIC,
    OPTIONS,
    PRINTK,
    SECTION,
    TAG_SIZE,
    TRACECLOCK,
    UNAME,
    V6,
    V7,
)
from hyptrace.formats import events_of

_MAX_CPUS = 4096
_MAX_FORMATS = 1 << 16
_MAX_TEXT = 256 << 20  # kallsyms is the longest
_MAX_SECTIONS = 1000
_MAX_CHUNK = 64 << 20


# --- reading bytes ----------------------------------------------------------------------


class _Bytes:
    """Reads numbers and texts one after the other. Raises OSError EBADMSG at the end."""

    def __init__(self, path: Path, read: Callable[[int, int], bytes], at: int = 0) -> None:
        self._path = path
        self._read = read
        self.at = at

    def take(self, size: int) -> bytes:
        if size > _MAX_TEXT:
            raise bad(self._path, f"{size} bytes at offset {self.at} are no part of a trace.dat")
        data = self._read(size, self.at)
        if len(data) < size:
            raise bad(self._path, f"cut short: its header does not end (at offset {self.at})")
        self.at += size
        return data

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def expect(self, what: bytes) -> None:
        at = self.at
        if self.take(len(what)) != what:
            raise bad(self._path, f"no {what.rstrip(bytes(1)).decode()!r} at offset {at}")

    def text(self, size: int) -> str:
        return self.take(size).rstrip(b"\0").decode("utf-8", "replace")

    def sized_text(self, size_bytes: int) -> str:
        """A text behind its size."""
        return self.text(self.number(size_bytes))

    def string(self) -> str:
        """A text that a zero byte ends."""
        start, data = self.at, b""
        while b"\0" not in data:
            more = self._read(256, start + len(data))
            if not more or len(data) > PAGE_SIZE:
                raise bad(self._path, f"a text at offset {start} has no end")
            data += more
        text = data.partition(b"\0")[0]
        self.at = start + len(text) + 1
        return text.decode("utf-8", "replace")

    def count(self, most: int, what: str) -> int:
        """A number of 4 bytes of things that are there."""
        number = self.number(4)
        if number > most:
            raise bad(self._path, f"{number} {what} are too many")
        return number


def _of_bytes(path: Path, data: bytes) -> _Bytes:
    return _Bytes(path, lambda size, at: data[at : at + size])


# --- compression -------------------------------------------------------------------------

Decompress = Callable[[bytes, int], bytes]


def _zlib(data: bytes, size: int) -> bytes:
    return zlib.decompressobj().decompress(data, size)


def _zstd(data: bytes, size: int) -> bytes:
    try:
        pyarrow = importlib.import_module("pyarrow")
    except ImportError:
        raise OSError(
            "it is compressed with zstd: pip install 'hyptracefs[convert]', "
            "or trace-cmd convert --compression none"
        ) from None
    return bytes(pyarrow.decompress(data, size, codec="zstd"))


_DECOMPRESS: dict[str, Decompress] = {"zlib": _zlib, "zstd": _zstd}


# --- what a file has ----------------------------------------------------------------------


class _Extent(NamedTuple):
    cpu: int
    offset: int
    size: int  # bytes in the file


@dataclass
class _Buffer:
    """The pages of an instance; the top one has no name."""

    name: str
    clock: str = ""
    compressed: bool = False
    extents: list[_Extent] = field(default_factory=list)


@dataclass
class _Parts:
    """All that has been found in a file so far."""

    header_page: str = ""
    header_event: str = ""
    formats: dict[str, list[str]] = field(default_factory=dict)
    printk_formats: str = ""
    saved_cmdlines: str = ""
    trace_clock: str = ""
    uname: str = ""
    stats: dict[str, dict[int, str]] = field(default_factory=dict)  # by buffer, and CPU
    stats_of: str = ""  # the buffer that the next ones are of
    cpus: int = 0
    buffers: list[_Buffer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _take_header_info(at: _Bytes, parts: _Parts) -> None:
    at.expect(HEADER_PAGE)
    parts.header_page = at.sized_text(8)
    at.expect(HEADER_EVENT)
    parts.header_event = at.sized_text(8)


def _take_texts(at: _Bytes) -> list[str]:
    return [at.sized_text(8) for _ in range(at.count(_MAX_FORMATS, "formats"))]


def _take_ftrace_events(at: _Bytes, parts: _Parts) -> None:
    parts.formats["ftrace"] = _take_texts(at)


def _take_event_formats(at: _Bytes, parts: _Parts) -> None:
    for _ in range(at.count(_MAX_FORMATS, "event systems")):
        system = at.string()
        parts.formats.setdefault(system, []).extend(_take_texts(at))


def _take_kallsyms(at: _Bytes, parts: _Parts) -> None:  # noqa: ARG001
    size = at.number(4)
    at.at += size  # they are the host's, and no event of a hypervisor needs them


def _take_printk(at: _Bytes, parts: _Parts) -> None:
    parts.printk_formats = at.sized_text(4)


def _take_cmdlines(at: _Bytes, parts: _Parts) -> None:
    parts.saved_cmdlines = at.sized_text(8)


# --- options -------------------------------------------------------------------------------


# Behind the first of these, the others are of that buffer.
_BUFFER_STATS = re.compile(r"\s*Buffer: ([^\n]*)\s*")
_CPU_STATS = re.compile(r"CPU: (\d{1,4})\n(.*)", re.DOTALL)


def _cpu_stats(at: _Bytes, size: int, parts: _Parts) -> None:
    text = at.text(size)
    if match := _BUFFER_STATS.fullmatch(text):
        parts.stats_of = match[1]
    elif match := _CPU_STATS.fullmatch(text):
        parts.stats.setdefault(parts.stats_of, {})[int(match[1])] = match[2]


def _trace_clock(at: _Bytes, size: int, parts: _Parts) -> None:
    parts.trace_clock = at.text(size)


def _uname(at: _Bytes, size: int, parts: _Parts) -> None:
    parts.uname = at.text(size)


def _cpu_count(at: _Bytes, size: int, parts: _Parts) -> None:
    parts.cpus = at.count(_MAX_CPUS, "CPUs") if size == 4 else 0  # noqa: PLR2004


_Option = Callable[[_Bytes, int, _Parts], None]
_COMMON_OPTIONS: dict[int, _Option] = {
    CPUSTAT: _cpu_stats,
    TRACECLOCK: _trace_clock,
    UNAME: _uname,
    CPUCOUNT: _cpu_count,
}


# --- version 6 ------------------------------------------------------------------------------


def _take_extents_6(at: _Bytes, cpus: int, name: str) -> _Buffer:
    extents = [_Extent(cpu, *at.unpack(EXTENT)) for cpu in range(cpus)]
    return _Buffer(name, extents=extents)


class _Version6:
    def __init__(self, path: Path, at: _Bytes, parts: _Parts) -> None:
        self._path, self._at, self._parts = path, at, parts
        self._has_clock = False
        self._instances: list[tuple[int, str]] = []

    def _take_options(self) -> None:
        while option := self._at.number(2):
            size = self._at.number(4)
            of = _of_bytes(self._path, self._at.take(size))
            if option == BUFFER:
                self._instances.append((of.number(8), of.string()))
            elif option == TRACECLOCK:
                self._has_clock = True
            elif option in _COMMON_OPTIONS:
                _COMMON_OPTIONS[option](of, size, self._parts)

    def _take_flyrecord(self, name: str, cpus: int) -> None:
        tag = self._at.take(TAG_SIZE)
        if tag == OPTIONS:
            self._take_options()
            tag = self._at.take(TAG_SIZE)
        if tag == LATENCY:
            raise bad(self._path, "holds the text of a latency trace, and no pages")
        if tag != FLYRECORD:
            raise bad(self._path, f"no 'flyrecord' at offset {self._at.at - TAG_SIZE}")
        self._parts.buffers.append(_take_extents_6(self._at, cpus, name))

    def take(self) -> None:
        at, parts = self._at, self._parts
        for part in (_take_header_info, _take_ftrace_events, _take_event_formats,
                     _take_kallsyms, _take_printk, _take_cmdlines):  # fmt: skip
            part(at, parts)
        parts.cpus = cpus = at.count(_MAX_CPUS, "CPUs")
        self._take_flyrecord("", cpus)
        if self._has_clock:
            parts.trace_clock = at.sized_text(8)
        for offset, name in self._instances:
            at.at = offset
            self._take_flyrecord(name, cpus)


# --- version 7 ------------------------------------------------------------------------------


class _Version7:
    def __init__(self, path: Path, at: _Bytes, parts: _Parts) -> None:
        self._path, self._at, self._parts = path, at, parts
        name, _ = at.string(), at.string()
        if name != "none" and name not in _DECOMPRESS:
            raise bad(path, f"is compressed with {name!r}, which cannot be read")
        self.decompress = _DECOMPRESS.get(name)

    def _uncompressed(self, data: bytes, size: int) -> bytes:
        if self.decompress is None or size > _MAX_CHUNK:
            raise bad(self._path, "a section that says it is compressed cannot be")
        return _decompressed(self._path, self.decompress, data, size)

    def _section(self, offset: int) -> tuple[int, _Bytes]:
        """Its id, and what is in it."""
        at = self._at
        at.at = offset
        number, flags, _, _ = at.unpack(SECTION)
        if not flags & COMPRESSED:
            return number, at
        compressed, size = at.unpack(CHUNK)
        return number, _of_bytes(self._path, self._uncompressed(at.take(compressed), size))

    _SECTIONS: dict[int, Callable[[_Bytes, _Parts], None]] = {  # noqa: RUF012
        HEADER_INFO: _take_header_info,
        FTRACE_EVENTS: _take_ftrace_events,
        EVENT_FORMATS: _take_event_formats,
        PRINTK: _take_printk,
        CMDLINES: _take_cmdlines,
    }

    def _take_buffer(self, of: _Bytes) -> None:
        offset, name, clock = of.number(8), of.string(), of.string()
        page_size = of.number(4)
        if page_size != PAGE_SIZE:
            raise bad(self._path, f"its pages have {page_size} bytes, not {PAGE_SIZE}")
        cpus = of.count(_MAX_CPUS, "CPUs")
        extents = [_Extent(of.number(4), *of.unpack(EXTENT)) for _ in range(cpus)]
        self._at.at = offset
        _, flags, _, _ = self._at.unpack(SECTION)
        buffer = _Buffer(name, clock, bool(flags & COMPRESSED), extents)
        self._parts.buffers.append(buffer)

    def _take_options(self, offset: int) -> tuple[int, list[tuple[int, bytes]]]:
        """Where the next options are, or 0; and the options."""
        number, at = self._section(offset)
        if number != 0:
            raise bad(self._path, f"no section of options at offset {offset}")
        options = []
        while option := at.number(2):
            options.append((option, at.take(at.number(4))))
        at.expect(struct.pack("<I", 8))
        return at.number(8), options

    def _take_option(self, option: int, data: bytes) -> None:
        of = _of_bytes(self._path, data)
        if option == BUFFER:
            self._take_buffer(of)
        elif option in self._SECTIONS:
            number, at = self._section(of.number(8))
            if number == option:
                self._SECTIONS[option](at, self._parts)
        elif option in _COMMON_OPTIONS:
            _COMMON_OPTIONS[option](of, len(data), self._parts)

    def take(self) -> None:
        offset = self._at.number(8)
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) > _MAX_SECTIONS:
                raise bad(self._path, "its options go round in a circle")
            seen.add(offset)
            offset, options = self._take_options(offset)
            for option, data in options:
                self._take_option(option, data)


def _decompressed(path: Path, decompress: Decompress, data: bytes, size: int) -> bytes:
    try:
        out = decompress(data, size)
    except (OSError, ValueError, zlib.error) as error:
        raise bad(path, f"cannot be decompressed: {error}") from None
    if len(out) != size:
        raise bad(path, f"{len(out)} bytes when decompressed, not {size}")
    return out


# --- pages ----------------------------------------------------------------------------------


def _read_at(file: int, size: int, at: int) -> bytes:
    # Beyond what an off_t can say there is nothing.
    return os.pread(file, size, at) if at < 1 << 62 else b""


def whole_pages(size: int) -> int:
    """The bytes among `size` that are whole pages."""
    return size - size % PAGE_SIZE


def file_pages(path: Path, offset: int, size: int, piece: int) -> Iterator[bytes]:
    """The whole pages among `size` bytes at `offset` of the file, `piece` bytes at a time."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = offset + whole_pages(size)
        while offset < end:
            data = os.pread(file, min(piece, end - offset), offset)
            data = data[: whole_pages(len(data))]
            if not data:
                return
            yield data
            offset += len(data)
    finally:
        os.close(file)


class _CompressedPages:
    """An extent of compressed chunks."""

    def __init__(self, path: Path, extent: _Extent, decompress: Decompress, notes: list[str]):
        self._path, self._extent, self._decompress = path, extent, decompress
        self._notes = notes

    def __call__(self) -> Iterator[bytes]:
        file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield from self._chunks(file)
        except OSError as error:
            self._notes.append(f"CPU {self._extent.cpu}: {error.strerror}: the rest is not used")
        finally:
            os.close(file)

    def _chunks(self, file: int) -> Iterator[bytes]:
        # The size of the extent counts what is compressed, and not the headers of the chunks.
        of = _Bytes(self._path, lambda size, at: _read_at(file, size, at), self._extent.offset)
        for _ in range(of.number(4)):
            compressed, size = of.unpack(CHUNK)
            if max(compressed, size) > _MAX_CHUNK or size % PAGE_SIZE:
                raise bad(self._path, f"no chunk of pages at offset {of.at - CHUNK.size}")
            data = of.take(compressed)
            yield _decompressed(self._path, self._decompress, data, size)


# --- a file as a capture -----------------------------------------------------------------------


def _check_cpus(path: Path, buffer: _Buffer) -> None:
    cpus = [extent.cpu for extent in buffer.extents]
    if len(set(cpus)) < len(cpus) or max(cpus, default=0) >= _MAX_CPUS:
        raise bad(path, f"its CPUs are not {_MAX_CPUS} different ones at most")


def _chosen(path: Path, parts: _Parts, wanted: str | None) -> _Buffer:
    """The buffer that is asked for; or the one with most in it."""
    named = [each for each in parts.buffers if wanted is None or each.name == wanted]
    if not named:
        names = ", ".join(repr(each.name) for each in parts.buffers)
        raise bad(path, f"no buffer {wanted!r} in it, only {names}" if names else "has no buffer")
    return max(named, key=lambda each: sum(extent.size for extent in each.extents))


def _missing(extents: Sequence[_Extent], length: int) -> Iterator[tuple[_Extent, int]]:
    """Extents that end behind the file, and how many bytes are there."""
    for extent in extents:
        there = min(max(length - extent.offset, 0), extent.size)
        if there < extent.size:
            yield extent, there


def _note_cut(parts: _Parts, buffer: _Buffer, length: int) -> None:
    missing = list(_missing(buffer.extents, length))
    total = sum(extent.size for extent in buffer.extents)
    lost = sum(extent.size - there for extent, there in missing)
    if missing:
        cpus = ", ".join(str(extent.cpu) for extent, _ in missing)
        parts.notes.append(f"cut short: {lost} of {total} bytes are missing, of CPU {cpus}")


def _cpu_pages(
    path: Path, buffer: _Buffer, length: int, decompress: Decompress | None, notes: list[str]
) -> Iterator[CpuPages]:
    piece = chunk_size(len(buffer.extents))
    for extent in buffer.extents:
        there = min(max(length - extent.offset, 0), extent.size)
        chunks: Chunks = partial(file_pages, path, extent.offset, there, piece)
        if buffer.compressed and decompress is not None:
            chunks = _CompressedPages(path, extent._replace(size=there), decompress, notes)
        yield CpuPages(extent.cpu, there, chunks)


def _take_start(path: Path, at: _Bytes) -> bytes:
    """The version."""
    if at.take(len(MAGIC)) != MAGIC:
        raise bad(path, "is no trace.dat")
    version = at.string().encode()
    if version not in {V6, V7}:
        raise bad(path, f"is a trace.dat of version {version.decode()!r}, not 6 or 7")
    if at.number(1) != LITTLE_ENDIAN:
        raise bad(path, "is of a big-endian machine, which cannot be read")
    at.number(1)  # bytes of a long in user space: nothing here has one
    page_size = at.number(4)
    if page_size != PAGE_SIZE:
        raise bad(path, f"its pages have {page_size} bytes, not {PAGE_SIZE}")
    return version


def _parse(path: Path, file: int) -> tuple[_Parts, Decompress | None]:
    at = _Bytes(path, lambda size, offset: _read_at(file, size, offset))
    parts = _Parts()
    if _take_start(path, at) == V6:
        _Version6(path, at, parts).take()
        return parts, None
    version7 = _Version7(path, at, parts)
    version7.take()
    return parts, version7.decompress


def is_trace_dat(path: Path) -> bool:
    """Whether the file begins as a trace.dat does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_trace_dat(path: Path, buffer: str | None = None) -> Capture:
    """The pages of one buffer of the file: of the instance `buffer`, or the largest.

    Raises OSError; what is cut short but can be used is in the notes.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts, decompress = _parse(path, file)
        length = os.fstat(file).st_size
    finally:
        os.close(file)
    check_header_page(parts.header_page, path)
    chosen = _chosen(path, parts, buffer)
    _check_cpus(path, chosen)
    _note_cut(parts, chosen, length)
    metadata = Metadata(
        parts.header_page,
        parts.header_event,
        parts.formats,
        # Version 7 has the clock of each buffer, by its name alone.
        chosen.clock or parts.trace_clock,
        parts.stats.get(chosen.name, {}),
        parts.uname,
        parts.printk_formats,
        parts.saved_cmdlines,
    )
    refused: list[str] = []
    own = ((system, texts) for system, texts in parts.formats.items() if system != "ftrace")
    events = events_of(own, refused)
    notes = [*parts.notes, *refused]
    cpus = sorted(_cpu_pages(path, chosen, length, decompress, notes), key=lambda pages: pages.cpu)
    return Capture(path, events, cpus, metadata, notes)
