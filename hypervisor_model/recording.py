"""Recordings: the text of a trace_pipe, made a script again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hypervisor_model.model import EventInfo, FormatTable, describe_events, describe_formats
from hypervisor_model.script import Step, Workload

# After its last event a recording goes on with its first one. How long the CPU takes
# for that is not recorded; this is the usual pace inside one.
_SEAM_NS = 2_000

_LINE = re.compile(r"\[(?P<cpu>\d+)\]\s+(?P<sec>\d+)\.(?P<usec>\d{6}): (?P<text>.*)")
_GAP = re.compile(r"CPU:(?P<cpu>\d+) \[(?:LOST \d+ EVENTS|CORRUPT .*)\]")

# Stands where events are missing.
_MISSING = "-"

# --- the text of an event -----------------------------------------------------------------

_CONVERSION = re.compile(r"%(?:hh|h|ll|l)?([duxs])")
_KINDS: dict[str, tuple[str, Callable[[str], int | str]]] = {
    "d": (r"(-?\d+)", int),
    "u": (r"(\d+)", int),
    "x": (r"([0-9a-f]+)", lambda text: int(text, 16)),
    "s": (r"(\w+)", str),
}


class _Parser(NamedTuple):
    """How to get the arguments of an event out of its text."""

    pattern: re.Pattern[str]
    values: tuple[tuple[int, Callable[[str], int | str]], ...]  # field by field: group, type
    first: tuple[str, ...] = ()  # arguments before these

    def args(self, text: str) -> tuple[int | str, ...] | None:
        match = self.pattern.fullmatch(text)
        if match is None:
            return None
        return (*self.first, *(convert(match[group]) for group, convert in self.values))


def _pattern(name: str, form: str) -> re.Pattern[str]:
    """What an event `name` prints by the format `form`, with a group for each conversion."""
    texts = [re.escape(text) for text in _CONVERSION.split(form)[::2]]
    groups = [_KINDS[kind][0] for kind in _CONVERSION.findall(form)]
    rest = (group + text for group, text in zip(groups, texts[1:], strict=True))
    return re.compile(f"{name} {texts[0]}{''.join(rest)}")


def _converters(form: str) -> list[Callable[[str], int | str]]:
    return [_KINDS[kind][1] for kind in _CONVERSION.findall(form)]


def _parser(event: EventInfo) -> _Parser:
    """Of a print format that prints each field once."""
    form, _, arguments = event.print_fmt[1:].partition('"')
    converters = _converters(form)
    printed = re.findall(r"REC->(\w+)", arguments)
    places = [printed.index(field.name) for field in event.fields]
    values = tuple((at + 1, converters[at]) for at in places)
    return _Parser(_pattern(event.name, form), values)


def _format_parsers(table: FormatTable) -> list[_Parser]:
    """Of the formats of an event; a text that two of them could have given is the first one's."""
    return [
        _Parser(
            _pattern(table.event, form.text.rstrip("\n")),
            tuple(enumerate(_converters(form.text), 1)),
            (form.text,),
        )
        for form in table.formats
    ]


_Parsers = dict[str, list[_Parser]]


def _parsers() -> _Parsers:
    by_format = {table.event: _format_parsers(table) for table in describe_formats()}
    events = (event for event in describe_events() if event.name not in by_format)
    return by_format | {event.name: [_parser(event)] for event in events}


def _args(text: str, parsers: _Parsers) -> tuple[int | str, ...] | None:
    """Arguments of the event that prints as `text`; None: there is no such event, or format."""
    found = (parser.args(text) for parser in parsers.get(text.partition(" ")[0], ()))
    return next((args for args in found if args is not None), None)


# --- the lines ----------------------------------------------------------------------------


@dataclass
class Recording:
    """Steps of each recorded CPU, and what could not be used, and how much of it."""

    steps: dict[int, list[Step]]
    skipped: Counter[str]

    def add(self, cpu: int, step: Step) -> None:
        """Append a step. Raises ValueError."""
        steps = self.steps.setdefault(cpu, [])
        if steps and step.event != _MISSING and step.at < steps[-1].at:
            raise ValueError(f"the time of CPU {cpu} falls")
        steps.append(step)


def _add_line(recording: Recording, line: str, parsers: _Parsers) -> None:
    if gap := _GAP.fullmatch(line):
        recording.skipped["gaps"] += 1
        steps = recording.steps.get(int(gap["cpu"]))
        if steps:
            recording.add(int(gap["cpu"]), Step(steps[-1].at, _MISSING, ()))
        return
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"no line of a trace_pipe: {line[:80]!r}")
    args = _args(match["text"], parsers)
    if args is None or "unknown" in args:
        recording.skipped["unknown events"] += 1
        return
    at = (int(match["sec"]) * 1_000_000 + int(match["usec"])) * 1000
    recording.add(int(match["cpu"]), Step(at, match["text"].partition(" ")[0], args))


def parse_recording(lines: Iterable[str]) -> Recording:
    """Raises ValueError that names the line which is none of a trace_pipe."""
    recording = Recording({}, Counter())
    parsers = _parsers()
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        try:
            _add_line(recording, line.rstrip("\n"), parsers)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return recording


# --- visits: from the host, and back to it ----------------------------------------------------


class _Visits:
    """Splits the steps of a CPU into visits, and leaves out what is not whole."""

    def __init__(self) -> None:
        self.whole: list[list[Step]] = []
        self.left_out = 0
        self._visit: list[Step] = []
        self._inside = False

    def _leave_out(self, steps: int = 0) -> None:
        self.left_out += len(self._visit) + steps
        self._visit = []
        self._inside = False

    def _possible(self, step: Step) -> bool:
        if step.event == _MISSING or step.enter == self._inside:
            return False
        return bool(self._visit) or step.args[0] != "guest_exit"

    def add(self, step: Step) -> None:
        if not self._possible(step):
            self._leave_out()
            if not step.enter or not self._possible(step):
                self.left_out += step.event != _MISSING
                return
        self._visit.append(step)
        self._inside = not step.exit
        if step.in_host:
            self.whole.append(self._visit)
            self._visit = []

    def end(self) -> None:
        self._leave_out()


def _circle(steps: list[Step], period: int) -> list[Step]:
    """Turn the circle so that it begins, and ends, with the CPU in the host."""
    for first, step in enumerate(steps, 1):
        if step.in_host:
            wrapped = [s._replace(at=s.at + period) for s in steps[:first]]
            return steps[first:] + wrapped
    return []


def _one_after_the_other(visits: list[list[Step]]) -> list[Step]:
    """Steps of visits, of which no two are at the same time: later ones wait."""
    steps: list[Step] = []
    free = 0
    for visit in sorted(visits, key=lambda visit: visit[0].at):
        delay = max(0, free - visit[0].at)
        steps += [step._replace(at=step.at + delay) for step in visit]
        free = steps[-1].at
    return steps


def _recorded_period(recording: Recording) -> int:
    used = [steps for steps in recording.steps.values() if steps]
    last = max(steps[-1].at for steps in used)
    return last - min(steps[0].at for steps in used) + _SEAM_NS


def _period(recorded: int, scripts: Iterable[Sequence[Step]]) -> int:
    # Visits that had to wait may make a turn longer.
    return max(recorded, *(steps[-1].at - steps[0].at + _SEAM_NS for steps in scripts))


def script(recording: Recording, cpus: int) -> Workload:
    """The recording in a circle; recorded CPU n plays on pCPU n modulo `cpus`.

    Counts in `recording.skipped` the events that are part of no whole visit of the
    hypervisor. Raises ValueError when there is none.
    """
    period = _recorded_period(recording) if recording.steps else 0
    visits: dict[int, list[list[Step]]] = {}
    for cpu, steps in recording.steps.items():
        split = _Visits()
        circle = _circle(steps, period)
        for step in circle:
            split.add(step)
        split.end()
        recording.skipped["events of no whole visit"] += split.left_out
        if split.whole:
            visits.setdefault(cpu % cpus, []).extend(split.whole)
    if not visits:
        raise ValueError("no hyp_enter with its hyp_exit to the host")
    scripts = {cpu: _one_after_the_other(of_cpu) for cpu, of_cpu in visits.items()}
    start = min(steps[0].at for steps in scripts.values())
    begun = {
        cpu: [step._replace(at=step.at - start) for step in steps] for cpu, steps in scripts.items()
    }
    return Workload(begun, _period(period, begun.values()))
