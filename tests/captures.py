"""Captures made by hand: pages of events of the catalogue, in a directory or a trace.dat."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hypervisor_model.model import describe_events, describe_formats, describe_symbols
from hyptrace.cli import main
from hyptracefs.events import Event, compile_events, print_event_format

EVENTS: dict[str, Event] = {
    event.name: event
    for event in compile_events(describe_events(), describe_symbols(), describe_formats())
}
# SPEC E.7
HEADER_PAGE = """\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
"""
HEADER_EVENT = """\
# compressed entry header
\ttype_len    :    5 bits
\ttime_delta  :   27 bits
\tarray       :   32 bits

\tpadding     : type == 29
\ttime_extend : type == 30
\ttime_stamp : type == 31
\tdata max type_len  == 28
"""

PAGE = 4096
CAPACITY = PAGE - 16
MISSED, STORED = 1 << 31, 1 << 30


class Made(NamedTuple):
    """An event as a test wants it; `lost` before it begins a page."""

    time: int
    name: str
    fields: Mapping[str, int]
    lost: int = 0  # -1: nobody has counted them


def payload(made: Made) -> bytes:
    info = EVENTS[made.name].info
    size = max([2, *(field.offset + field.size for field in info.fields)])
    data = bytearray(-(-size // 8) * 8)
    struct.pack_into("<H", data, 0, info.id)
    for field in info.fields:
        if field.size:
            value = made.fields[field.name] % (1 << (8 * field.size))
            data[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
    return bytes(data)


def record(data: bytes, delta: int) -> bytes:
    extend = struct.pack("<II", (delta & (1 << 27) - 1) << 5 | 30, delta >> 27)
    short = delta < 1 << 27
    head = struct.pack("<II", delta << 5 if short else 0, len(data) + 4)
    return (b"" if short else extend) + head + data


def page(time: int, data: bytes, lost: int = 0) -> bytes:
    commit, more = len(data), b""
    if lost:
        commit |= MISSED
    if lost > 0 and len(data) <= CAPACITY - 8:
        commit |= STORED
        more = struct.pack("<Q", lost)
    return struct.pack("<QQ", time, commit) + (data + more).ljust(CAPACITY, b"\0")


def pages(events: Iterable[Made]) -> bytes:
    """Events of one CPU, in the order of their times."""
    out, data, start, now, lost = b"", b"", 0, 0, 0
    for made in events:
        item = record(payload(made), made.time - now if data else 0)
        if data and (made.lost or len(data) + len(item) > CAPACITY - 8):
            out += page(start, data, lost)
            data = b""
        if not data:
            item, start, lost = record(payload(made), 0), made.time, made.lost
        data += item
        now = made.time
    return out + page(start, data, lost) if data else out


def write_tracing(top: Path) -> None:
    """What of a mount's top a capture needs."""
    texts = {
        "events/header_page": HEADER_PAGE,
        "events/header_event": HEADER_EVENT,
        "events/ftrace/print/format": print_event_format([event.id for event in EVENTS.values()]),
        "trace_clock": "local [mono] boot\n",
    }
    for event in EVENTS.values():
        texts[f"events/hypervisor/{event.name}/format"] = event.portable_format()
    for path, text in texts.items():
        file = top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")


def write_directory(top: Path, cpus: Sequence[bytes]) -> Path:
    """A capture of raw pages."""
    write_tracing(top)
    for cpu, data in enumerate(cpus):
        (top / f"cpu{cpu}.raw").write_bytes(data)
    return top


_ENTER = {"smc": 0, "hvc": 1, "sys": 2, "psci": 3, "host_abort": 4, "guest_exit": 5}
TO_HOST, TO_GUEST = 6, 7


def visits(nr: int, start: int = 5_000_000_000) -> list[Made]:
    """A busy CPU: visits for all reasons, with other events in some, and guests that run."""
    made, time, vcpu = [], start, 0
    for i in range(nr):
        reason = i % len(_ENTER) if not vcpu else _ENTER["guest_exit"]
        time += 1000 + i * 37 % 5000
        made.append(Made(time, "hyp_enter", {"reason": reason, "vcpu": vcpu}))
        if i % 3 == 0:
            time += 10
            fields = {"esr": (1 << 63) + i, "addr": 0xFFFF_0000_0000 + i}
            made.append(Made(time, "host_mem_abort", fields))
        if i % 5 == 0:
            time += 10
            fields = {"from": i, "to": i + 1, "prot": -i}
            made.append(Made(time, "iommu_idmap", fields))
        time += 100 + i * i % 7000
        vcpu = 4000 + i % 3 if i % 4 == 1 else 0
        leave = {"reason": TO_GUEST if vcpu else TO_HOST, "vcpu": vcpu}
        made.append(Made(time, "hyp_exit", leave))
    return made


def hyptrace(*args: str | os.PathLike[str]) -> int:
    """Exit status of the command."""
    return main([os.fspath(arg) for arg in args])
