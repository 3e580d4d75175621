"""Texts of `format` files, and the events that they describe.

What a capture says of its events is not trusted: an event that cannot be one is left out, and
said so; its records are then of an unknown id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hypervisor_model import EventInfo, FieldInfo
from hyptracefs.event_table import check_table
from hyptracefs.events import Event, compile_events
from hyptracefs.print_fmt import formats_in

MAX_EVENTS = 4096  # the rest are left out

_FIELD = re.compile(
    r"^\tfield:(?P<declared>[^;\n]*);\s*offset:(?P<offset>\d{1,5});\s*size:(?P<size>\d{1,5});"
    r"(?:\s*signed:(?P<signed>[01]);)?\s*$",
    re.MULTILINE,
)
_DECLARED = re.compile(r"(?P<type>.*?)\s*\b(?P<name>\w+)(?P<array>(?:\[[^\]]*\])*)", re.ASCII)
_HEAD = re.compile(r"name: (?P<name>\S+)\s*\nID: (?P<id>\d{1,5})\s*\nformat:\s*\n")
_PRINT_FMT = re.compile(r"^print fmt: (.*)", re.MULTILINE | re.DOTALL)

# Bytes of an item of an array, by the name of its type; what is not here has those of a char.
_ITEM_SIZES = {
    "u64": 8, "s64": 8, "__u64": 8, "unsigned long": 8, "long": 8, "unsigned long long": 8,
    "u32": 4, "s32": 4, "__u32": 4, "unsigned int": 4, "int": 4, "pid_t": 4,
    "u16": 2, "s16": 2, "__u16": 2, "unsigned short": 2, "short": 2,
}  # fmt: skip
_COMMON = "common_"


@dataclass(frozen=True)
class Described:
    """An event of a capture, and the system that it belongs to."""

    system: str
    event: Event

    @property
    def fields(self) -> tuple[FieldInfo, ...]:
        """Fields of its own, in the order of the format."""
        return self.event.info.fields


def is_tail(field: FieldInfo) -> bool:
    """Whether `field` is an array up to the end of the record."""
    return field.size == 0


def item_size(field: FieldInfo) -> int:
    """Bytes of an item of `field`, an array."""
    return _ITEM_SIZES.get(field.type.partition("[")[0].strip(), 1)


def needed(info: EventInfo) -> int:
    """Bytes that a record must have, for its fields to be in it."""
    return max((field.offset + field.size for field in info.fields), default=2)


def _field(match: re.Match[str]) -> FieldInfo:
    declared = _DECLARED.fullmatch(match["declared"].strip())
    if declared is None:
        raise ValueError(f"field {match['declared']!r} has no name")
    return FieldInfo(
        declared["type"] + declared["array"],
        declared["name"],
        int(match["offset"]),
        int(match["size"]),
        signed=match["signed"] == "1",
    )


def parse_format(text: str) -> EventInfo:
    """The event that the text of a `format` file describes, without its common fields.

    Raises ValueError that says what is wrong.
    """
    head = _HEAD.match(text)
    print_fmt = _PRINT_FMT.search(text)
    if head is None or print_fmt is None:
        raise ValueError("is no format of an event")
    fields = tuple(_field(match) for match in _FIELD.finditer(text, 0, print_fmt.start()))
    own = tuple(field for field in fields if not field.name.startswith(_COMMON))
    return EventInfo(int(head["id"]), head["name"], own, print_fmt[1].rstrip("\n"))


def _checked(text: str) -> EventInfo:
    info = parse_format(text)
    table = formats_in(info)
    sized = tuple(field for field in info.fields if not is_tail(field))
    # An array without end comes last, and where the fields before it have ended.
    if any(is_tail(field) and field.offset < needed(info) for field in info.fields):
        raise ValueError(f"event {info.name}: an array without size, and fields behind it")
    try:
        if table:
            check_table((info._replace(print_fmt=""),), (), (table,))
        else:
            check_table((info._replace(fields=sized),), ())
    except OSError as error:
        raise ValueError(error.strerror) from None
    return info


def describe(system: str, texts: Iterable[str], refused: list[str]) -> list[EventInfo]:
    """Events of `system`; appends to `refused` why others are left out."""
    infos = []
    for text in texts:
        try:
            infos.append(_checked(text))
        except ValueError as error:
            refused.append(f"{system}: {error}")
    return infos


def _compiled(info: EventInfo) -> Event:
    """With the formats that records name, where its print format tells them."""
    table = formats_in(info)
    [event] = compile_events((info,), (), (table,) if table else ())
    return event


def events_of(formats: Iterable[tuple[str, Iterable[str]]], refused: list[str]) -> list[Described]:
    """Events of all systems, in the order of their ids; of two with one id the first counts."""
    by_id: dict[int, Described] = {}
    for system, texts in formats:
        infos = describe(system, texts, refused)[: MAX_EVENTS - len(by_id)]
        for event in map(_compiled, infos):
            by_id.setdefault(event.id, Described(system, event))
    return [by_id[number] for number in sorted(by_id)]
