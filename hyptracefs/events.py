"""Events as the host knows them: from their hypervisor's description, never compiled in."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypervisor_model import EventInfo, FieldInfo, FormatTable, SymbolTable
from hyptracefs.print_fmt import (
    Number,
    Op,
    compile_format,
    compile_print_fmt,
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
        return "\n".join(self._format_lines()) + "\n"

    def _format_lines(self) -> Iterator[str]:
        yield f"name: {self.name}"
        yield f"ID: {self.id}"
        yield "format:"
        yield _field_line(_COMMON_TYPE)
        yield ""
        if self.info.fields:
            yield from map(_field_line, self.info.fields)
            yield ""
        yield f"print fmt: {self.info.print_fmt}"


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
    return Event(info, unknown, Formats(index, tuple(_format_lines(info, table))))


def _event(info: EventInfo, tables: Sequence[SymbolTable]) -> Event:
    try:
        return Event(info, _line(info, compile_print_fmt(info, tables)))
    except ValueError as error:
        log.warning("%s: shown raw", error)
        return Event(info, _line(info, raw_operations(info)))


def compile_events(
    infos: Sequence[EventInfo],
    tables: Sequence[SymbolTable],
    formats: Sequence[FormatTable] = (),
) -> tuple[Event, ...]:
    """Events with their operations, sorted by name.

    `formats` are those that records of events name themselves; the print format of such an
    event is for others to read. What cannot be rendered is shown raw, with a warning: an event
    as `name=value`, a format as its text with `(0x1, 0x2)` behind it.
    """
    formatted = {table.event: table for table in formats}
    events = (
        _formatted(info, formatted[info.name]) if info.name in formatted else _event(info, tables)
        for info in infos
    )
    return tuple(sorted(events, key=lambda event: event.name))
