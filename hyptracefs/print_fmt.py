r"""Print formats, compiled to operations.

A print format is what the `format` file shows behind `print fmt:`, a C string and its
arguments:

    "reason=%s vcpu=%d", __hyp_enter_exit_reason_str(REC->reason), REC->vcpu

Understood: %d %i %u %x with hh, h, l, ll, z and a width, `0` and `-`; %s of a call of a
symbol table; %%; the escapes \" \\ \n \t. Each argument is a field, or a symbol table
called on a field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from hypervisor_model import EventInfo, FieldInfo, SymbolTable


class Number(NamedTuple):
    """Print a field as a number of at least `width` characters."""

    field: FieldInfo
    base: Literal["signed", "unsigned", "hex"]
    width: int
    flags: str  # of "0" and "-"


class Symbol(NamedTuple):
    """Print a field as what `table` has for its value."""

    field: FieldInfo
    table: SymbolTable
    width: int
    flags: str


Op = str | Number | Symbol
"""A string is printed as it is."""

_FORMAT = re.compile(r'\s*"(?P<format>(?:[^"\\]|\\.)*)"\s*(?:,(?P<arguments>.*))?', re.DOTALL)
_ARGUMENT = re.compile(r"\s*(?:REC->(?P<field>\w+)|(?P<function>\w+)\(REC->(?P<of>\w+)\))\s*")
_PIECE = re.compile(
    r"(?P<text>[^%]+)|%%|%(?P<flags>[-0]*)(?P<width>\d*)(?:hh|h|ll|l|z)?(?P<conversion>[diuxs])"
)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_BASES: dict[str, Literal["signed", "unsigned", "hex"]] = {
    "d": "signed",
    "i": "signed",
    "u": "unsigned",
    "x": "hex",
}
_MAX_WIDTH = 255


def _unescape(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise ValueError(f"escape {match[0]} is not supported")
        return _ESCAPES[match[1]]

    return _ESCAPE.sub(character, text)


class _Arguments:
    """The arguments of a format, taken one after the other."""

    def __init__(self, text: str | None, event: EventInfo, tables: Sequence[SymbolTable]) -> None:
        self._left = [] if text is None or not text.strip() else text.split(",")
        self._fields = {field.name: field for field in event.fields}
        self._tables = {table.function: table for table in tables}

    def _take(self) -> re.Match[str]:
        if not self._left:
            raise ValueError("fewer arguments than conversions")
        argument = self._left.pop(0)
        match = _ARGUMENT.fullmatch(argument)
        if match is None:
            raise ValueError(f"argument {argument.strip()!r} is not supported")
        return match

    def _field(self, name: str) -> FieldInfo:
        if name not in self._fields:
            raise ValueError(f"no field {name!r}")
        return self._fields[name]

    def number(self) -> FieldInfo:
        match = self._take()
        if match["field"] is None:
            raise ValueError(f"{match[0].strip()!r} is no number")
        return self._field(match["field"])

    def symbol(self) -> tuple[FieldInfo, SymbolTable]:
        match = self._take()
        if match["function"] not in self._tables:
            raise ValueError(f"{match[0].strip()!r} is no text")
        return self._field(match["of"]), self._tables[match["function"]]

    def end(self) -> None:
        if self._left:
            raise ValueError(f"{len(self._left)} arguments too many")


def _pieces(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None:
            raise ValueError(f"conversion {text[at : at + 8]!r} is not supported")
        yield match
        at = match.end()


def _operation(piece: re.Match[str], arguments: _Arguments) -> Op:
    if piece["text"] is not None:
        return piece["text"]
    if piece["conversion"] is None:
        return "%"
    width = int(piece["width"] or 0)
    if width > _MAX_WIDTH:
        raise ValueError(f"width {width} is over {_MAX_WIDTH}")
    if piece["conversion"] == "s":
        return Symbol(*arguments.symbol(), width, piece["flags"])
    return Number(arguments.number(), _BASES[piece["conversion"]], width, piece["flags"])


def _operations(event: EventInfo, tables: Sequence[SymbolTable]) -> Iterator[Op]:
    match = _FORMAT.fullmatch(event.print_fmt)
    if match is None:
        raise ValueError("no string in quotes")
    arguments = _Arguments(match["arguments"], event, tables)
    for piece in _pieces(_unescape(match["format"])):
        yield _operation(piece, arguments)
    arguments.end()


def compile_print_fmt(event: EventInfo, tables: Sequence[SymbolTable]) -> tuple[Op, ...]:
    """Operations that print `event`; none for an empty format.

    Raises ValueError that names the event and what is unknown in its print format.
    """
    try:
        return tuple(_operations(event, tables))
    except ValueError as error:
        raise ValueError(f"event {event.name}: print fmt {event.print_fmt}: {error}") from None
