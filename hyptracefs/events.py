"""Events as the host knows them: from their hypervisor's description, never compiled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypervisor_model import EventInfo, FieldInfo, SymbolTable
from hyptracefs.print_fmt import Op, compile_print_fmt

__all__ = ["Event", "EventInfo", "FieldInfo", "SymbolTable", "compile_events"]

_COMMON_TYPE = FieldInfo("unsigned short", "common_type", 0, 2, signed=False)


@dataclass(frozen=True)
class Event:
    """An event: its description, and the operations that render its text."""

    info: EventInfo
    ops: tuple[Op, ...]

    @property
    def name(self) -> str:
        """Name, as in the path of its files."""
        return self.info.name

    @property
    def id(self) -> int:
        """Number that its records carry."""
        return self.info.id

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


def _field_line(field: FieldInfo) -> str:
    return (
        f"\tfield:{field.type} {field.name};\toffset:{field.offset};"
        f"\tsize:{field.size};\tsigned:{field.signed:d};"
    )


def _ops(info: EventInfo, tables: Sequence[SymbolTable]) -> tuple[Op, ...]:
    """Operations of a line: `name` alone, or `name` + space + the printed format."""
    printed = compile_print_fmt(info, tables)
    return (f"{info.name} ", *printed) if printed else (info.name,)


def compile_events(infos: Sequence[EventInfo], tables: Sequence[SymbolTable]) -> tuple[Event, ...]:
    """Events with their operations, sorted by name.

    Raises ValueError that names the event and what in its print format is unknown.
    """
    events = (Event(info, _ops(info, tables)) for info in infos)
    return tuple(sorted(events, key=lambda event: event.name))
