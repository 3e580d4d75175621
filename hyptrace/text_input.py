"""The text of a trace_pipe as a capture: its lines, made records of the catalogue again.

Times are those of the text, in whole microseconds. A text does not say which fields its events
have, so only events of the catalogue are known; other lines are counted, and said so.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hypervisor_model.model import describe_events, describe_formats, describe_symbols
from hyptrace.capture import Capture, Metadata, bad
from hyptrace.decoder import BATCH_EVENTS, Batch, CpuCount
from hyptrace.formats import Described
from hyptracefs.events import Event, FieldInfo, compile_events
from hyptracefs.print_fmt import Number, Op, String, Symbol, symbol_texts

MAX_CPU = 4095
_LINE = re.compile(rb"\[(\d{3,4})\]\t? *(\d{1,10})\.(\d{6}): (\w+)( .*)?\n")
_LOST = re.compile(rb"CPU:(\d{1,4}) \[LOST (?:(\d{1,18}) )?EVENTS\]\n")
_CPU = re.compile(rb"^\[(\d{3,4})\]", re.MULTILINE)
_BLOCK = 1 << 20  # bytes
_SAMPLE = 4096  # bytes that have an event in them, or it is no text of a trace_pipe
_LONGEST = 1 << 16  # bytes of a line
_LOST_UNKNOWN = 2**64 - 1
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}

Convert = Callable[[bytes], int]


def catalogue() -> list[Described]:
    """The events of the model, in the order of their ids."""
    events = compile_events(describe_events(), describe_symbols(), describe_formats())
    return sorted((Described("hypervisor", each) for each in events), key=lambda one: one.event.id)


def _hexadecimal(text: bytes) -> int:
    return int(text, 16)


_NUMBERS: dict[str, tuple[bytes, Convert]] = {
    "signed": (rb"(-?\d{1,20})", int),
    "unsigned": (rb"(\d{1,20})", int),
    "hex": (rb"([0-9a-f]{1,16})", _hexadecimal),
}


def _symbol(op: Symbol) -> tuple[bytes, Convert]:
    texts = symbol_texts(op.table, op.field)
    values = {text.encode(): value for value, text in reversed(list(enumerate(texts)))}
    # What it was is not in the text: some value that has no name.
    values.setdefault((op.table.fallback or "").encode(), (1 << (8 * op.field.size)) - 1)
    return rb"([^ ]+)", values.__getitem__


def _group(op: Number | Symbol | String) -> tuple[bytes, Convert]:
    if isinstance(op, Number):
        return _NUMBERS[op.base]
    if isinstance(op, Symbol):
        return _symbol(op)
    raise ValueError("no event of the catalogue prints a string")


def _layout(fields: Sequence[FieldInfo]) -> struct.Struct:
    """The record: its id, and all fields unsigned."""
    code, at = "<H", 2
    for field in fields:
        code += f"{field.offset - at}x{_CODES[field.size]}"
        at = field.offset + field.size
    return struct.Struct(code)


class _Parser(NamedTuple):
    """How to make a record of what a line says."""

    id: int
    pattern: re.Pattern[bytes]
    converts: tuple[Convert, ...]  # of the groups
    groups: tuple[int, ...]  # of each field; -1: it is not printed
    masks: tuple[int, ...]
    layout: struct.Struct
    unprinted: int = 0  # what a field has that is not printed

    def record(self, text: bytes) -> bytes | None:
        match = self.pattern.fullmatch(text)
        if match is None:
            return None
        try:
            values = [convert(text) for convert, text in
                      zip(self.converts, match.groups(), strict=True)]  # fmt: skip
        except KeyError:
            return None
        fields = (
            values[group] & mask if group >= 0 else self.unprinted
            for group, mask in zip(self.groups, self.masks, strict=True)
        )
        return self.layout.pack(self.id, *fields)


def _parser(
    number: int, ops: Sequence[Op], fields: Sequence[FieldInfo], unprinted: int = 0
) -> _Parser:
    """Of lines that `ops` print, for records that have `fields`."""
    pattern, converts, printed = b"", [], []
    for op in ops:
        if isinstance(op, str):
            pattern += re.escape(op.encode())
            continue
        group, convert = _group(op)
        pattern += rb" *" + group if op.width else group
        converts.append(convert)
        printed.append(op.field.offset)
    return _Parser(
        number,
        re.compile(pattern),
        tuple(converts),
        tuple(printed.index(each.offset) if each.offset in printed else -1 for each in fields),
        tuple((1 << (8 * field.size)) - 1 for field in fields),
        _layout(fields),
        unprinted,
    )


def _words(ops: Sequence[Op]) -> list[FieldInfo]:
    """The arguments that a format prints, each as the u64 that it is in the record."""
    offsets = sorted({op.field.offset for op in ops if isinstance(op, Number)})
    return [FieldInfo("u64", "arg", offset, 8, signed=False) for offset in offsets]


def _parsers(event: Event) -> list[_Parser]:
    """One; or one for each format of an event that prints by formats."""
    if event.formats is None:
        fields = [field for field in event.info.fields if field.size in _CODES]
        return [_parser(event.id, event.ops, fields)]
    index = event.formats.index
    return [
        _parser(event.id, ops, [index, *_words(ops)], unprinted=number)
        for number, ops in enumerate(event.formats.lines)
        if all(isinstance(op, (str, Number)) for op in ops)
    ]


class TextDecoder:
    """Like decoder.Decoder, for a text. CPUs are known when all of it has been read."""

    def __init__(self, path: Path, events: Sequence[Described], notes: list[str]) -> None:
        self.read = 0
        self._path, self._notes = path, notes
        self._parsers = {each.event.name.encode(): _parsers(each.event) for each in events}
        self._indices = {each.event.id: index for index, each in enumerate(events)}
        self.batch = Batch(len(events))
        self._events: dict[int, int] = {}
        self._lost: dict[int, int] = {}  # of each CPU, all that somebody has counted
        self._losses: dict[int, int] = {}
        self._owed: dict[int, int] = {}  # of each CPU, to say with its next event
        self._odd = 0

    def _take_lost(self, match: re.Match[bytes]) -> None:
        cpu = int(match[1])
        counted = int(match[2]) if match[2] else 0
        self._losses[cpu] = self._losses.get(cpu, 0) + 1
        self._lost[cpu] = self._lost.get(cpu, 0) + counted
        self._owed[cpu] = self._owed.get(cpu, 0) + counted if match[2] else _LOST_UNKNOWN

    def _record(self, match: re.Match[bytes]) -> bytes | None:
        text = match[4] + (match[5] or b"")
        records = (parser.record(text) for parser in self._parsers.get(match[4], ()))
        return next(filter(None, records), None)

    def _rows(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Time, CPU, lost before, and record of each event."""
        for line in self._lines():
            self.read += len(line)
            match = _LINE.fullmatch(line)
            record = self._record(match) if match else None
            cpu = int(match[1]) if match else 0
            if match and record and cpu <= MAX_CPU:
                time = int(match[2]) * 1_000_000_000 + int(match[3]) * 1000
                self._events[cpu] = self._events.get(cpu, 0) + 1
                yield time, cpu, self._owed.pop(cpu, 0), record
            elif lost := _LOST.fullmatch(line):
                self._take_lost(lost)
            elif not line.startswith(b"#"):
                self._odd += 1

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while line := file.readline(_LONGEST):
                yield line

    def batches(self) -> Iterator[Batch]:
        """All events, none of the batches empty."""
        rows: list[tuple[int, int, int, bytes]] = []
        for row in self._rows():
            rows.append(row)
            if len(rows) == BATCH_EVENTS:
                yield self._fill(rows)
                rows = []
        if rows:
            yield self._fill(rows)
        if self._odd:
            self._notes.append(f"{self._odd} lines are no events of the catalogue, and not used")

    def _fill(self, rows: Sequence[tuple[int, int, int, bytes]]) -> Batch:
        times, cpus, losts, records = zip(*rows, strict=True)
        ids = array("H", [int.from_bytes(record[:2], "little") for record in records])
        self.batch.fill(
            {
                "time": array("Q", times),
                "lost": array("Q", losts),
                "cpu": array("H", cpus),
                "id": ids,
                "event": array("H", map(self._indices.__getitem__, ids)),
                "length": array("H", map(len, records)),
            },
            b"".join(records),
        )
        return self.batch

    def counts(self) -> list[CpuCount]:
        """What each CPU had, so far."""
        return [
            CpuCount(
                cpu, self._events.get(cpu, 0), self._lost.get(cpu, 0), self._losses.get(cpu, 0),
                0, 0,
                -1 if self._owed.get(cpu) == _LOST_UNKNOWN else self._owed.get(cpu, 0),
            )
            for cpu in sorted({*self._events, *self._losses})
        ]  # fmt: skip


class TextCapture(Capture):
    """A text of which nobody knows how many CPUs it has before it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, catalogue(), (), Metadata("", "", {}), [])

    @property
    def size(self) -> int:
        """Bytes of the text."""
        return self.path.stat().st_size

    def cpu_numbers(self) -> list[int]:
        """The CPUs that have events: reads all of it."""
        found: set[bytes] = set()
        with self.path.open("rb") as file:
            while block := file.readlines(_BLOCK):
                found.update(_CPU.findall(b"".join(block)))
        return sorted(number for number in map(int, found) if number <= MAX_CPU)

    @property
    def max_cpu(self) -> int:
        """The largest number that a CPU may have."""
        return MAX_CPU

    def decoder(self) -> TextDecoder:
        """Decodes it once."""
        return TextDecoder(self.path, self.events, self.notes)


def open_text(path: Path) -> TextCapture:
    """The text of a trace_pipe. Raises OSError EBADMSG for what does not begin like one."""
    with path.open("rb") as file:
        sample = file.read(_SAMPLE)
    if not any(_LINE.match(line + b"\n") or _LOST.match(line + b"\n")
               for line in sample.split(b"\n")):  # fmt: skip
        raise bad(path, "is no trace.dat, and no text of a trace_pipe")
    return TextCapture(path)
