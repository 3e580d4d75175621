"""Reasons of hyp_enter and hyp_exit: their texts are those of the capture's print formats."""

from __future__ import annotations

from collections.abc import Sequence

from hypervisor_model import FieldInfo, SymbolTable
from hyptrace.capture import Capture
from hyptrace.decoder import Stays, is_number
from hyptrace.formats import Described
from hyptrace.lines import symbol_of, value_texts

ENTER, EXIT = "hyp_enter", "hyp_exit"
_TO_GUEST = "eret_guest"
_NO_REASON = -(1 << 62)


def _table(events: Sequence[Described], event: str) -> tuple[FieldInfo, SymbolTable] | None:
    """The reason of hyp_enter or hyp_exit, and its texts."""
    for each in events:
        for field in each.fields:
            table = symbol_of(each.event, field) if each.event.name == event else None
            if field.name == "reason" and is_number(field) and table is not None:
                return field, table
    return None


def named_reasons(events: Sequence[Described], event: str = ENTER) -> dict[int, str]:
    """Those that have a name of their own."""
    found = _table(events, event)
    return dict(found[1].symbols) if found else {}


def reason_names(events: Sequence[Described], nr: int, event: str = ENTER) -> list[str]:
    """Texts of the reasons 0 to `nr` - 1, as they print."""
    found = _table(events, event)
    return value_texts(found[1], found[0], nr) if found else ["unknown"] * nr


def stays_of(capture: Capture) -> Stays:
    """The stays of a capture."""
    named = named_reasons(capture.events, EXIT)
    to_guest = next((nr for nr, text in named.items() if text == _TO_GUEST), _NO_REASON)
    return Stays(capture.events, capture.max_cpu, to_guest)
