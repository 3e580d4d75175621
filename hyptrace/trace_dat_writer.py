"""Writes a trace.dat, without trace-cmd."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hyptrace.capture import PAGE_SIZE, Metadata
from hyptrace.dat_layout import (
    CPUCOUNT,
    CPUSTAT,
    DONE,
    EXTENT,
    FLYRECORD,
    HEADER_EVENT,
    HEADER_PAGE,
    LITTLE_ENDIAN,
    LONG_SIZE,
    MAGIC,
    OPTIONS,
    TRACECLOCK,
    UNAME,
    V6,
)
from hyptrace.decoder import PagePacker
from hyptrace.trace_dat import whole_pages


def _sized(text: str, size_bytes: int) -> bytes:
    data = text.encode()
    return len(data).to_bytes(size_bytes, "little") + data


def _option(number: int, data: bytes) -> bytes:
    return struct.pack("<HI", number, len(data)) + data


def _texts(texts: Sequence[str]) -> bytes:
    return struct.pack("<I", len(texts)) + b"".join(_sized(text, 8) for text in texts)


def _zero_ended(text: str) -> bytes:
    return text.encode() + b"\0"


def _options(metadata: Metadata, cpus: int) -> Iterator[bytes]:
    for cpu, text in sorted(metadata.stats.items()):
        yield _option(CPUSTAT, _zero_ended(f"CPU: {cpu}\n{text}"))
    yield _option(TRACECLOCK, b"")  # the clock itself follows the extents
    if metadata.uname:
        yield _option(UNAME, _zero_ended(metadata.uname))
    yield _option(CPUCOUNT, struct.pack("<I", cpus))
    yield struct.pack("<H", DONE)


def _clock(metadata: Metadata) -> bytes:
    # trace-cmd knows no name of a clock without the brackets.
    named = "[" in metadata.trace_clock
    return _sized(metadata.trace_clock if named else f"[{metadata.clock or 'local'}]", 8)


def _header(metadata: Metadata, sizes: Sequence[int]) -> tuple[bytes, list[int]]:
    """The header of a file of version 6, and where the pages of each CPU begin."""
    systems = {name: texts for name, texts in metadata.formats.items() if name != "ftrace"}
    before = b"".join((
        MAGIC, V6, b"\0", bytes((LITTLE_ENDIAN, LONG_SIZE)), struct.pack("<I", PAGE_SIZE),
        HEADER_PAGE, _sized(metadata.header_page, 8),
        HEADER_EVENT, _sized(metadata.header_event, 8),
        _texts(metadata.formats.get("ftrace", ())),
        struct.pack("<I", len(systems)),
        *(_zero_ended(name) + _texts(texts) for name, texts in systems.items()),
        _sized("", 4),  # kallsyms
        _sized(metadata.printk_formats, 4),
        _sized(metadata.saved_cmdlines, 8),
        struct.pack("<I", len(sizes)),
        OPTIONS, *_options(metadata, len(sizes)),
        FLYRECORD,
    ))  # fmt: skip
    clock = _clock(metadata)
    offset = _page_up(len(before) + EXTENT.size * len(sizes) + len(clock))
    offsets = []
    for size in sizes:
        offsets.append(offset)
        offset = _page_up(offset + size)
    extents = (EXTENT.pack(*extent) for extent in zip(offsets, sizes, strict=True))
    return b"".join((before, *extents, clock)), offsets


def _page_up(offset: int) -> int:
    return -(-offset // PAGE_SIZE) * PAGE_SIZE


def write_all(file: int, data: bytes | bytearray | memoryview) -> None:
    """write(2) until all of `data` is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


_COPY = 64 << 10
_RESERVE = 1 << 20  # bytes that the header, and what is being copied, are less than
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 1, 2


class TraceDatWriter:
    """Writes a trace.dat of version 6, which trace-cmd and KernelShark of any age read.

    The pages of each CPU are collected beside it, in `NAME.cpuN` as trace-cmd does, and put into
    one file by close(). There they go as they are copied, and room for the first of them is
    reserved: a disk that has had room for the pages has room for the file.

    With `collected` it goes on with what another one has collected there.
    """

    def __init__(self, path: Path, cpus: int, *, collected: bool = False) -> None:
        self.path = path
        self._files: list[int] = []
        self._packers: dict[int, PagePacker] = {}  # of the CPUs whose last pages are packed
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if collected else os.O_TRUNC)
        self._out = os.open(path, flags, 0o640)
        try:
            os.posix_fallocate(self._out, 0, _RESERVE)
            for cpu in range(cpus):
                self._files.append(os.open(self.spool(cpu), flags, 0o640))
        except OSError:
            self._close()
            if not collected:
                self._remove()
                path.unlink()
            raise

    def spool(self, cpu: int) -> Path:
        """Where the pages of `cpu` are until close()."""
        return self.path.with_name(f"{self.path.name}.cpu{cpu}")

    def fileno(self, cpu: int) -> int:
        """What pages of `cpu` can be spliced into."""
        return self._files[cpu]

    def write(self, cpu: int, pages: bytes | memoryview) -> None:
        """Append whole pages of `cpu`. Raises OSError; those before are kept."""
        self._packers.pop(cpu, None)
        write_all(self._files[cpu], pages)

    def pack(self, cpu: int, pages: memoryview) -> int:
        """The same for pages that have little in them: of such as follow each other one is made.

        Gives the bytes by which the file has grown.
        """
        packer = self._packers.setdefault(cpu, PagePacker())
        again = PAGE_SIZE if packer.is_open else 0
        packed = packer.pack(pages)
        os.lseek(self._files[cpu], -again, os.SEEK_CUR)
        write_all(self._files[cpu], packed)
        return len(packed) - again

    @property
    def sizes(self) -> list[int]:
        """Bytes of whole pages of each CPU."""
        return [whole_pages(os.fstat(file).st_size) for file in self._files]

    def close(self, metadata: Metadata) -> None:
        """Make the file of what has been written. Raises OSError.

        When the disk is full the file has what fitted, and the rest stays where it is.
        """
        sizes = self.sizes
        header, offsets = _header(metadata, sizes)
        done = [0] * len(sizes)
        try:
            write_all(self._out, header)
            for cpu, file in enumerate(self._files):
                for copied in _move(file, sizes[cpu], self._out, offsets[cpu]):
                    done[cpu] = copied
            end = _page_up(offsets[-1] + sizes[-1]) if sizes else len(header)
            os.ftruncate(self._out, end)
        except OSError as error:
            _rewrite_extents(self._out, metadata, done, offsets)
            self._close()
            raise OSError(
                error.errno, f"{error.strerror}; {sum(done)} of {sum(sizes)} bytes are in it",
                str(self.path),
            ) from None  # fmt: skip
        self.abandon()

    def _close(self) -> None:
        for file in (self._out, *self._files):
            os.close(file)

    def abandon(self) -> None:
        """Remove what has been collected."""
        self._close()
        self._remove()

    def _remove(self) -> None:
        for cpu in range(len(self._files)):
            self.spool(cpu).unlink(missing_ok=True)


def _rewrite_extents(
    out: int, metadata: Metadata, done: Sequence[int], offsets: Sequence[int]
) -> None:
    """Say what is there, and not what should have been: of the same length."""
    header, _ = _header(metadata, done)
    at = len(header) - len(_clock(metadata)) - EXTENT.size * len(done)
    extents = (EXTENT.pack(*each) for each in zip(offsets, map(whole_pages, done), strict=True))
    with contextlib.suppress(OSError):
        os.pwrite(out, b"".join(extents), at)


def _move(file: int, size: int, out: int, offset: int) -> Iterator[int]:
    """Copy, and give back the room of what is copied. Yields how much that is so far."""
    done = 0
    while done < size:
        data = os.pread(file, min(_COPY, size - done), done)
        if not data:
            return
        view = memoryview(data)
        while view:
            written = os.pwrite(out, view, offset + done)
            view = view[written:]
            done += written
            yield done
        _punch(file, done)


def _punch(file: int, end: int) -> None:
    """Let go of the first `end` bytes, where the file system can."""
    libc_fallocate = _fallocate()
    if libc_fallocate is not None:
        libc_fallocate(file, _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE, 0, end)


def _fallocate() -> Callable[[int, int, int, int], int] | None:
    try:
        call = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return lambda file, mode, offset, length: int(call(file, mode, offset, length))
