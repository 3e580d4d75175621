"""Events as the host knows them: from their hypervisor's description, never compiled in."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from hypervisor_model import EventInfo, FieldInfo, SymbolTable
from hyptracefs.print_fmt import Op, compile_print_fmt, portable_print_fmt, raw_operations

log = logging.getLogger(__name__)

__all__ = ["Event", "EventInfo", "FieldInfo", "SymbolTable", "compile_events"]

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
class Event:
    """An event: its description, and the operations that render its text."""

    info: EventInfo
    ops: tuple[Op, ...]
    portable_fmt: str  # the print format, with nothing in it that only we know

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


def _event(info: EventInfo, tables: Sequence[SymbolTable]) -> Event:
    portable = portable_print_fmt(info.print_fmt, tables)
    try:
        return Event(info, _line(info, compile_print_fmt(info, tables)), portable)
    except ValueError as error:
        log.warning("%s: shown raw", error)
        return Event(info, _line(info, raw_operations(info)), portable)


def compile_events(infos: Sequence[EventInfo], tables: Sequence[SymbolTable]) -> tuple[Event, ...]:
    """Events with their operations, sorted by name.

    An event whose print format cannot be rendered is shown raw (`name=value`), with a warning.
    """
    events = (_event(info, tables) for info in infos)
    return tuple(sorted(events, key=lambda event: event.name))
