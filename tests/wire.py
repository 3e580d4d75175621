"""What a hypervisor sends, laid out by ctypes; written from hypervisor_model/protocol.h.

Shares no code with hyptracefs/event_table.py, which it checks. Nothing is checked here:
broken messages can be made, too.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from hypervisor_model import EventInfo, FieldInfo, FormatTable, SymbolTable

_HEADER = (
    Path(__file__).parents[1] / "hypervisor_model" / "include" / "hypervisor_model" / "protocol.h"
).read_text(encoding="utf-8")


def constant(name: str) -> int:
    """The number that `name` is defined as in protocol.h."""
    [value] = re.findall(rf"#define {name} (\d+)U", _HEADER)
    return int(value)


def asserted_sizes() -> dict[str, int]:
    """What protocol.h asserts of the sizes of its structures."""
    found = re.findall(r"sizeof\(struct (\w+)\) == (\d+)", _HEADER)
    return {name: int(size) for name, size in found}


NAME = ctypes.c_char * constant("HYP_NAME_SIZE")
TYPE = ctypes.c_char * constant("HYP_TYPE_SIZE")
FORMAT = ctypes.c_char * constant("HYP_FORMAT_SIZE")


class HelloMessage(ctypes.LittleEndianStructure):
    _fields_ = (
        ("magic", ctypes.c_char * 8),
        ("version", ctypes.c_uint32),
        ("error", ctypes.c_int32),
        ("name", NAME),
        ("nr_cpus", ctypes.c_uint32),
        ("page_size", ctypes.c_uint32),
        ("counter", ctypes.c_uint32),
        ("nr_events", ctypes.c_uint32),
        ("nr_symbols", ctypes.c_uint32),
        ("nr_formats", ctypes.c_uint32),
        ("counter_hz", ctypes.c_uint64),
        ("nr_spares", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


_HELLO_WITHOUT_SPARES = 112


class FieldMessage(ctypes.LittleEndianStructure):
    _fields_ = (
        ("type", TYPE),
        ("name", NAME),
        ("offset", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("is_signed", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


class EventMessage(ctypes.LittleEndianStructure):
    _fields_ = (
        ("name", NAME),
        ("id", ctypes.c_uint32),
        ("nr_fields", ctypes.c_uint32),
        ("print_fmt_size", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


class SymbolMessage(ctypes.LittleEndianStructure):
    _fields_ = (("value", ctypes.c_uint64), ("text", NAME))


class SymbolsMessage(ctypes.LittleEndianStructure):
    _fields_ = (
        ("function", NAME),
        ("fallback", NAME),
        ("nr_symbols", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


class FormatMessage(ctypes.LittleEndianStructure):
    _fields_ = (
        ("nr_args", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
        ("text", FORMAT),
    )


class FormatsMessage(ctypes.LittleEndianStructure):
    _fields_ = (
        ("event", NAME),
        ("index", NAME),
        ("args", NAME),
        ("nr_formats", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


LAYOUTS: dict[str, type[ctypes.Structure]] = {
    "hyp_hello": HelloMessage,
    "hyp_field_msg": FieldMessage,
    "hyp_event_msg": EventMessage,
    "hyp_symbols_msg": SymbolsMessage,
    "hyp_format_msg": FormatMessage,
    "hyp_formats_msg": FormatsMessage,
}


def encode_hello(  # noqa: PLR0913 - as many as there are
    name: str = "model",
    cpus: int = 2,
    *,
    magic: bytes = b"HYPTRACE",
    version: int = 1,
    error: int = 0,
    page_size: int = 4096,
    counter: int = 1,
    nr_events: int = 0,
    nr_symbols: int = 0,
    nr_formats: int = 0,
    counter_hz: int = 0,
    nr_spares: int | None = None,  # None: a producer from before there were any
    flags: int = 0,
) -> bytes:
    counts = (nr_events, nr_symbols, nr_formats)
    numbers = (cpus, page_size, counter, *counts, counter_hz, nr_spares or 0, flags)
    hello = bytes(HelloMessage(magic, version, error, name.encode(), *numbers))
    return hello[:_HELLO_WITHOUT_SPARES] if nr_spares is None else hello


def _encode_field(field: FieldInfo) -> bytes:
    numbers = (field.offset, field.size, field.signed, 0)
    return bytes(FieldMessage(field.type.encode(), field.name.encode(), *numbers))


def encode_event(event: EventInfo) -> bytes:
    print_fmt = event.print_fmt.encode() + b"\0"
    header = EventMessage(event.name.encode(), event.id, len(event.fields), len(print_fmt), 0)
    return bytes(header) + b"".join(map(_encode_field, event.fields)) + print_fmt


def encode_symbols(table: SymbolTable) -> bytes:
    fallback = (table.fallback or "").encode()
    header = SymbolsMessage(table.function.encode(), fallback, len(table.symbols), 0)
    symbols = (bytes(SymbolMessage(value, text.encode())) for value, text in table.symbols)
    return bytes(header) + b"".join(symbols)


def encode_formats(table: FormatTable) -> bytes:
    names = (name.encode() for name in (table.event, table.index, table.args))
    header = FormatsMessage(*names, len(table.formats), 0)
    formats = (bytes(FormatMessage(nr_args, 0, text.encode())) for text, nr_args in table.formats)
    return bytes(header) + b"".join(formats)
