"""The text of a trace_pipe as a capture: its lines, made records of the catalogue again.

Times are those of the text, in whole microseconds. A text does not say which fields its events
have, so only events of the catalogue are known; other lines are counted, and said so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hypervisor_model.model import describe_events, describe_formats, describe_symbols
from hyptrace.capture import Capture, Metadata, bad
from hyptrace.decoder import Batch, CpuCount, TextField, TextParser, TextPattern, is_number
from hyptrace.formats import Described
from hyptracefs.events import Event, FieldInfo, compile_events
from hyptracefs.print_fmt import Number, Op, Symbol, symbol_texts

MAX_CPU = 4095
_LINE = re.compile(rb"\[(\d{3,4})\]\t? *(\d{1,10})\.(\d{6}): (\w+)( .*)?\n")
_LOST = re.compile(rb"CPU:(\d{1,4}) \[LOST (?:(\d{1,18}) )?EVENTS\]\n")
_CPU = re.compile(rb"^\[(\d{3,4})\]", re.MULTILINE)
_BLOCK = 1 << 20  # bytes
_SAMPLE = 4096  # bytes that have an event in them, or it is no text of a trace_pipe
_LONGEST = 1 << 16  # bytes of a line
_TOO_LONG = b"?"  # instead of its beginning: it is no event


def catalogue() -> list[Described]:
    """The events of the model, in the order of their ids."""
    events = compile_events(describe_events(), describe_symbols(), describe_formats())
    return sorted((Described("hypervisor", each) for each in events), key=lambda one: one.event.id)


def _symbols(op: Symbol) -> list[tuple[str, int]]:
    texts = symbol_texts(op.table, op.field)
    values = {text: value for value, text in reversed(list(enumerate(texts)))}
    # What it was is not in the text: some value that has no name.
    values.setdefault(op.table.fallback or "", (1 << (8 * op.field.size)) - 1)
    return list(values.items())


def _op(op: Op) -> str | TextField:
    if isinstance(op, str):
        return op
    if isinstance(op, Number):
        return TextField(op.field, op.base, bool(op.width))
    if isinstance(op, Symbol):
        return TextField(op.field, "symbol", bool(op.width), _symbols(op))
    raise ValueError("no event of the catalogue prints a string")


def _end(fields: Iterable[FieldInfo]) -> int:
    """Bytes of a record that has `fields`."""
    return max((field.offset + field.size for field in fields), default=2)


def _pattern(event: Event, ops: Sequence[Op], index: tuple[FieldInfo, int]) -> TextPattern:
    """Of the records that name one of the formats of `event`: arguments are u64 each."""
    words = {op.field.offset: FieldInfo("u64", "arg", op.field.offset, 8, signed=False)
             for op in ops if isinstance(op, Number)}  # fmt: skip
    said = [op._replace(field=words[op.field.offset]) if isinstance(op, Number) else op
            for op in ops]  # fmt: skip
    return TextPattern(event, [*map(_op, said)], _end([index[0], *words.values()]), index)


def _patterns(event: Event) -> list[TextPattern]:
    """One; or one for each format of an event that prints by formats."""
    if event.formats is None:
        numbers = [field for field in event.info.fields if is_number(field)]
        return [TextPattern(event, [*map(_op, event.ops)], _end(numbers))]
    index = event.formats.index
    return [
        _pattern(event, ops, (index, number))
        for number, ops in enumerate(event.formats.lines)
        if all(isinstance(op, (str, Number)) for op in ops)
    ]


class TextDecoder:
    """Like decoder.Decoder, for a text. CPUs are known when all of it has been read."""

    def __init__(self, path: Path, events: Sequence[Described], notes: list[str]) -> None:
        self.read = 0
        self._path, self._notes = path, notes
        patterns = [pattern for each in events for pattern in _patterns(each.event)]
        self._parser = TextParser(events, patterns, MAX_CPU + 1)
        self._cut = 0

    def _blocks(self) -> Iterator[bytes]:
        """Whole lines; of one that is too long only the end."""
        rest = b""
        with self._path.open("rb") as file:
            while block := file.read(_BLOCK):
                self.read += len(block)
                lines, newline, end = (rest + block).rpartition(b"\n")
                rest = end if len(end) <= _LONGEST else _TOO_LONG
                if newline:
                    yield lines + newline
        self._cut = bool(rest) and not rest.startswith(b"#")

    def batches(self) -> Iterator[Batch]:
        """All events, none of the batches empty."""
        parser = self._parser
        for block in self._blocks():
            at = 0
            while (at := parser.take(block, at)) < len(block):
                yield parser.batch
                parser.clear()
        if len(parser.batch):
            yield parser.batch
        if odd := parser.odd + self._cut:
            self._notes.append(f"{odd} lines are no events of the catalogue, and not used")

    def counts(self) -> list[CpuCount]:
        """What each CPU had, so far."""
        return self._parser.counts()


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
