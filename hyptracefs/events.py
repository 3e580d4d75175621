"""Events as the host knows them: from their hypervisor's description, never compiled in."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hypervisor_model import EventInfo, FieldInfo, FormatTable, SymbolTable
from hyptracefs.print_fmt import (
    Number,
    Op,
    compile_format,
    compile_print_fmt,
    portable_formats,
    portable_print_fmt,
    raw_format,
    raw_operations,
)

log = logging.getLogger(__name__)

__all__ = [
    "Event",
    "EventInfo",
    "FieldInfo",
    "FormatTable",
    "Formats",
    "SymbolTable",
    "compile_events",
]

_COMMON_TYPE = FieldInfo("unsigned short", "common_type", 0, 2, signed=False)

# Fields that tools expect in front of every record. Ours have no such bytes, and a size of 0
# makes tools take the values for 0 instead of reading what is not there (TOOLS 3.1).
_ABSENT_FIELDS = (
    FieldInfo("unsigned char", "common_flags", 2, 0, signed=False),
    FieldInfo("unsigned char", "common_preempt_count", 2, 0, signed=False),
    FieldInfo("int", "common_pid", 2, 0, signed=True),
)

_PRINT_FIELDS = (
    FieldInfo("unsigned long", "ip", 8, 8, signed=False),
    FieldInfo("char[]", "buf", 16, 0, signed=False),
)
_MAX_ID = 2**16 - 1


@dataclass(frozen=True)
class Formats:
    """What records print that say so themselves: their field `index` counts `lines`."""

    index: FieldInfo
    lines: tuple[tuple[Op, ...], ...]


@dataclass(frozen=True)
class Event:
    """An event: its description, and the operations that render its text.

    With `formats`, `ops` are for the records that name none of them.
    """

    info: EventInfo
    ops: tuple[Op, ...]
    portable_fmt: str = ""  # the print format, with nothing in it that only we know
    formats: Formats | None = None

    @property
    def name(self) -> str:
        """Name, as in the path of its files."""
        return self.info.name

    @property
    def id(self) -> int:
        """Number that its records carry."""
        return self.info.id

    @property
    def simpler_ops(self) -> tuple[tuple[Op, ...], ...]:
        """What to render where `ops` cannot be: raw, unless that is what `ops` are; the name."""
        raw = _line(self.info, raw_operations(self.info))
        return ((self.name,),) if self.ops == raw else (raw, (self.name,))

    def format(self) -> str:
        """Text of the `format` file (SPEC E.7); offsets are those of the record."""
        own = [*map(_field_line, self.info.fields), ""] if self.info.fields else []
        return _format(self.info, [_field_line(_COMMON_TYPE), "", *own], self.info.print_fmt)

    def portable_format(self) -> str:
        """The same for tools that parse it with libtraceevent (TOOLS 3): as a kernel event's."""
        return _portable_format(self.info, self.portable_fmt)


def _format(info: EventInfo, fields: Iterable[str], print_fmt: str) -> str:
    lines = (f"name: {info.name}", f"ID: {info.id}", "format:", *fields, f"print fmt: {print_fmt}")
    return "\n".join(lines) + "\n"


def _portable_format(info: EventInfo, print_fmt: str) -> str:
    common = map(_field_line, (_COMMON_TYPE, *_ABSENT_FIELDS))
    return _format(info, [*common, "", *map(_field_line, info.fields), ""], print_fmt)


def print_event_format(taken: Collection[int]) -> str:
    """The `format` of ftrace's own `print`, with a number that is not `taken`.

    Tools cannot do without any event of the system ftrace; this one is never written.
    """
    number = next(number for number in range(_MAX_ID, 0, -1) if number not in taken)
    print_fmt = '"%ps: %s", (void *)REC->ip, REC->buf'
    return _portable_format(EventInfo(number, "print", _PRINT_FIELDS, print_fmt), print_fmt)


def _declaration(field: FieldInfo) -> str:
    """Type and name as in C: what makes an array of it stands behind the name."""
    if field.type.startswith("__data_loc"):
        return f"{field.type} {field.name}"
    item, bracket, length = field.type.partition("[")
    return f"{item} {field.name}{bracket}{length}"


def _field_line(field: FieldInfo) -> str:
    return (
        f"\tfield:{_declaration(field)};\toffset:{field.offset};"
        f"\tsize:{field.size};\tsigned:{field.signed:d};"
    )


def _line(info: EventInfo, printed: tuple[Op, ...]) -> tuple[Op, ...]:
    """Operations of a line: `name` alone, or `name` + space + what is printed."""
    return (f"{info.name} ", *printed) if printed else (info.name,)


def _format_lines(info: EventInfo, table: FormatTable) -> Iterator[tuple[Op, ...]]:
    """Operations of the line of each format. Those that are shown raw are said together."""
    [args] = (field for field in info.fields if field.name == table.args)
    refused = []
    for form in table.formats:
        try:
            ops = compile_format(form, args.offset)
        except ValueError as error:
            refused.append(str(error))
            ops = raw_format(form, args.offset)
        yield (f"{info.name} ", *ops)
    if refused:
        log.warning(
            "event %s: %d of its %d formats shown raw, the first one: %s",
            info.name,
            len(refused),
            len(table.formats),
            refused[0],
        )


def _formatted(info: EventInfo, table: FormatTable) -> Event:
    [index] = (field for field in info.fields if field.name == table.index)
    unknown = (f"{info.name} Unknown hyp_string_fmt ID ", Number(index, "unsigned", 0, ""))
    lines = tuple(_format_lines(info, table))
    portable = portable_formats(table) if lines else portable_print_fmt(info.print_fmt, ())
    return Event(info, unknown, portable, Formats(index, lines))


def _event(info: EventInfo, tables: Sequence[SymbolTable]) -> Event:
    portable = portable_print_fmt(info.print_fmt, tables)
    try:
        return Event(info, _line(info, compile_print_fmt(info, tables)), portable)
    except ValueError as error:
        log.warning("%s: shown raw", error)
        return Event(info, _line(info, raw_operations(info)), portable)


def compile_events(
    infos: Sequence[EventInfo],
    tables: Sequence[SymbolTable],
    formats: Sequence[FormatTable] = (),
) -> tuple[Event, ...]:
    """Events with their operations, sorted by name.

    `formats` are those that records of events name themselves; such an event's own print
    format is for others to read. What cannot be rendered is shown raw, with a warning: an event
    as `name=value`, a format as its text with `(0x1, 0x2)` behind it.
    """
    formatted = {table.event: table for table in formats}
    events = (
        _formatted(info, formatted[info.name]) if info.name in formatted else _event(info, tables)
        for info in infos
    )
    return tuple(sorted(events, key=lambda event: event.name))
