"""Lines: as trace_pipe prints them, JSON, CSV. What is not text comes from operations of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hypervisor_model import FieldInfo, SymbolTable
from hyptrace.capture import Capture
from hyptrace.decoder import Batch, CpuCount, Lines, Style, Tail, is_number
from hyptrace.formats import Described, is_tail, item_size
from hyptrace.output import OutFile
from hyptracefs.events import Event
from hyptracefs.print_fmt import Number, Op, Symbol, symbol_texts

NO_EVENT = "UNKNOWN"
"""The name of an event of unknown id, or too short for what it should be."""


def symbol_of(event: Event, field: FieldInfo) -> SymbolTable | None:
    """The texts that `event` prints for values of `field`; None: it is printed as a number."""
    for op in event.ops:
        if isinstance(op, Symbol) and op.field.name == field.name:
            return op.table
    return None


def value_texts(table: SymbolTable, field: FieldInfo, nr: int) -> list[str]:
    """What the values 0 to `nr` - 1 of `field` print as."""
    texts = [*symbol_texts(table, field), *[table.fallback or ""] * nr][:nr]
    return [text or f"{value:#x}" for value, text in enumerate(texts)]


def _quoted(table: SymbolTable, quote: str) -> SymbolTable:
    """The same texts in quotes, with what cannot stand in them escaped."""

    def text(of: str) -> str:
        return json.dumps(of) if quote == "json" else _csv(of)

    fallback = None if table.fallback is None else text(table.fallback)
    symbols = tuple((value, text(of)) for value, of in table.symbols)
    return SymbolTable(table.function, symbols, fallback)


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _value(event: Event, field: FieldInfo, quote: str) -> Op:
    table = symbol_of(event, field)
    # Without a text for all others these would be numbers in no base that JSON has.
    if table is not None and table.fallback is not None:
        return Symbol(field, _quoted(table, quote), 0, "")
    if table is not None:
        return Symbol(field, _quoted(_complete(table, field), quote), 0, "")
    return Number(field, "signed" if field.signed else "unsigned", 0, "")


def _complete(table: SymbolTable, field: FieldInfo) -> SymbolTable:
    """With a text for each value of a small field, and one for all others."""
    texts = dict(table.symbols)
    if field.size == 1:
        texts = {value: texts.get(value) or f"{value:#x}" for value in range(256)}
    return SymbolTable(table.function, tuple(texts.items()), "unknown")


@dataclass(frozen=True)
class _Simplified(Event):
    """An event of other operations; if C refuses them, of its name alone."""

    simplest: tuple[Op, ...] = ()

    @property
    def simpler_ops(self) -> tuple[tuple[Op, ...], ...]:
        return (self.simplest,)


def _json_event(each: Described) -> Event:
    event = each.event
    name: Op = f',"event":{json.dumps(event.name)}'
    ops: list[Op] = [name]
    for field in filter(is_number, each.fields):
        ops += [f",{json.dumps(field.name)}:", _value(event, field, "json")]
    return _Simplified(event.info, tuple(ops), "", simplest=(name,))


# Columns of CSV before those of the fields.
_CSV_HEAD = ("time_ns", "cpu", "lost", "event")


def _csv_columns(events: Sequence[Described]) -> list[str]:
    """Names of the fields of all events, each once; arrays share the last one, `items`."""
    names = (field.name for each in events for field in filter(is_number, each.fields))
    arrays = ["items"] if any(map(_tail, events)) else []
    return [*dict.fromkeys(names), *arrays]


def _csv_event(each: Described, columns: Sequence[str]) -> Event:
    fields = {field.name: field for field in filter(is_number, each.fields)}
    ops: list[Op] = [_csv(each.event.name)]
    for column in columns:
        ops.append(",")
        if column in fields:
            ops.append(_value(each.event, fields[column], "csv"))
    simplest = (_csv(each.event.name) + "," * len(columns),)
    return _Simplified(each.event.info, tuple(ops), "", simplest=simplest)


def _tail(each: Described) -> FieldInfo | None:
    """The array that ends the records of an event; None: they have none."""
    return next((field for field in each.fields if is_tail(field)), None)


def _tails(events: Iterable[Described], style: Style) -> list[Tail | None]:
    """The arrays, and what stands before, between and behind their items."""
    found: list[Tail | None] = []
    for field in map(_tail, events):
        if field is None:
            found.append(None)
            continue
        before, between, behind = (
            (f",{json.dumps(field.name)}:[", ",", "]") if style == Style.JSON else ("", " ", "")
        )
        found.append(Tail(field, item_size(field), before, between, behind))
    return found


def _text_lines(capture: Capture) -> Lines:
    events = [each.event for each in capture.events]
    return Lines(Style.TRACE_PIPE, events, capture.max_cpu, ("", ""))


def _json_lines(capture: Capture) -> Lines:
    events = [_json_event(each) for each in capture.events]
    around = (f',"event":{json.dumps(NO_EVENT)},"id":', "")
    tails = _tails(capture.events, Style.JSON)
    return Lines(Style.JSON, events, capture.max_cpu, around, tails)


def _csv_lines(capture: Capture) -> Lines:
    columns = _csv_columns(capture.events)
    events = [_csv_event(each, columns) for each in capture.events]
    around = (f"{NO_EVENT} id=", "," * len(columns))
    return Lines(Style.CSV, events, capture.max_cpu, around, _tails(capture.events, Style.CSV))


def _lost_at_end(counts: Iterable[CpuCount]) -> Iterator[str]:
    """What no event follows."""
    for each in counts:
        if each.lost_at_end:
            lost = "" if each.lost_at_end < 0 else f"{each.lost_at_end} "
            yield f"CPU:{each.cpu} [LOST {lost}EVENTS]\n"


class LineSink:
    """Writes lines in one of the styles."""

    def __init__(self, capture: Capture, out: OutFile, style: Style) -> None:
        self._out, self._style = out, style
        make = {
            Style.TRACE_PIPE: _text_lines, Style.JSON: _json_lines, Style.CSV: _csv_lines,
        }  # fmt: skip
        self._lines = make[style](capture)
        if style == Style.CSV:
            names = (*_CSV_HEAD, *_csv_columns(capture.events))
            out.write((",".join(names) + "\n").encode())

    def add(self, batch: Batch) -> None:
        """Write the events of `batch`."""
        for piece in self._lines.lines(batch):
            self._out.write(piece)

    def abandon(self) -> None:
        """Leave it as it is."""
        self._out.close()

    def close(self, counts: Sequence[CpuCount]) -> None:
        """Write what comes after the last event."""
        if self._style == Style.TRACE_PIPE:
            self._out.write("".join(_lost_at_end(counts)).encode())
        self._out.close()
