"""What `hyptrace convert` and `hyptrace report` read: a trace.dat, a directory, or a text."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hyptrace.capture import (
    PAGE_SIZE,
    Capture,
    CpuPages,
    bad,
    check_header_page,
    chunk_size,
    read_metadata,
)
from hyptrace.decoder import Decoder
from hyptrace.formats import events_of
from hyptrace.text_input import TextCapture, TextDecoder, open_text
from hyptrace.trace_dat import file_pages, is_trace_dat, open_trace_dat

_RAW = re.compile(r"cpu(\d{1,4})\.raw")


def _tracing_of(path: Path) -> Path:
    """The directory that has `events/`: the copy of a mount's top, or what it was copied into."""
    for tracing in (path, path / "tracing"):
        if (tracing / "events" / "header_page").is_file():
            return tracing
    raise bad(
        path,
        "has no events/header_page: copy events/ of the mount's top (or that of tracing/) there",
    )


def _raw_files(path: Path, notes: list[str]) -> Iterator[tuple[int, Path, int]]:
    for file in path.iterdir():
        match = _RAW.fullmatch(file.name)
        if match:
            size = file.stat().st_size
            if size % PAGE_SIZE:
                notes.append(f"{file.name}: cut short: {size % PAGE_SIZE} bytes are no whole page")
            yield int(match[1]), file, size


def open_directory(path: Path) -> Capture:
    """Raw pages, as trace_pipe_raw gives them: `cpuN.raw`, and `events/` as the mount has it."""
    notes: list[str] = []
    tracing = _tracing_of(path)
    metadata = read_metadata(tracing)
    check_header_page(metadata.header_page, path)
    files = sorted(_raw_files(path, notes))
    if not files:
        raise bad(path, "has no cpuN.raw in it: pages of trace_pipe_raw, of each CPU")
    piece = chunk_size(len(files))
    own = ((system, texts) for system, texts in metadata.formats.items() if system != "ftrace")
    events = events_of(own, notes)
    cpus = [
        CpuPages(cpu, size, partial(file_pages, file, 0, size, piece)) for cpu, file, size in files
    ]
    return Capture(path, events, cpus, metadata, notes)


def open_capture(path: Path, buffer: str | None = None) -> Capture:
    """Whatever is at `path`. Raises OSError that says why it cannot be used."""
    if path.is_dir():
        return open_directory(path)
    if not path.exists():
        raise OSError(errno.ENOENT, "there is no such file", str(path))
    if path.stat().st_size == 0 and path.is_file():
        raise bad(path, "is empty")
    if is_trace_dat(path):
        return open_trace_dat(path, buffer)
    return open_text(path)


def decoder_of(capture: Capture) -> Decoder | TextDecoder:
    """What decodes `capture`, once."""
    return capture.decoder() if isinstance(capture, TextCapture) else Decoder(capture)
