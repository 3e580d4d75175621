r"""Event filters: expressions of the kernel's filter language, compiled to predicates.

    (reason == 3 || reason == "hvc") && !(vcpu < 0) && CPU & 1

A predicate compares a field with a number, by == != < <= > >= and & (a bit in common). `!` binds
tightest, `&&` tighter than `||`. Names are the fields of the event, `CPU` (or `cpu`),
`common_type`, and `common_pid`, `common_flags` and `common_preempt_count`, which are 0. Numbers
are as kstrtoull(base 0) takes them, with `-` if the field is signed, and are cut to the size of
the field. What is accepted, what errors say and where they point is what
Linux 6.18 does (tests/golden/filters.json), with these differences:

* A field that prints as text can be compared with it, by == and != or, with * ? [ ], by ~.
* Strings, arrays, CPUS{list} and what only tasks have (comm) cannot be compared.
* Errors are EINVAL; the kernel also lets EPERM, ENOENT and ESRCH out.
"""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, NoReturn

from hypervisor_model import FieldInfo
from hyptracefs.events import Event
from hyptracefs.print_fmt import Symbol

__all__ = ["MAX_EXPRESSION", "ErrorLog", "FilterError", "Filters", "Predicate", "parse_filter"]

MAX_EXPRESSION = 4096
"""Bytes written: less than these."""

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "&"]

ACCEPT, REJECT = -1, -2
"""Where the last predicates lead to."""


class Predicate(NamedTuple):
    """Compare `field` with `value`, which it could hold; go on with a later predicate.

    `if_true` and `if_false` are its index, ACCEPT or REJECT. CPU is no field of the payload.
    """

    field: FieldInfo
    op: Operator
    value: int
    if_true: int
    if_false: int


CPU = FieldInfo("int", "CPU", 0, 4, signed=True)
"""The CPU that wrote the event."""

_COMMON_TYPE = FieldInfo("unsigned short", "common_type", 0, 2, signed=False)
# Fields of a kernel's events that are 0 here, and have no bytes: trace-cmd filters by the pid,
# so that the kernel does not record what trace-cmd does.
_ALWAYS_0 = {
    "common_flags": FieldInfo("unsigned char", "common_flags", 0, 1, signed=False),
    "common_preempt_count": FieldInfo("unsigned char", "common_preempt_count", 0, 1, signed=False),
    "common_pid": FieldInfo("int", "common_pid", 0, 4, signed=True),
}
_EVERYWHERE = {"CPU": CPU, "cpu": CPU, "common_type": _COMMON_TYPE, **_ALWAYS_0}

_HOLDS_FOR_0: dict[str, Callable[[int], bool]] = {
    "==": lambda value: value == 0,
    "!=": lambda value: value != 0,
    "<": lambda value: value > 0,
    "<=": lambda value: value >= 0,
    ">": lambda value: value < 0,
    ">=": lambda value: value <= 0,
    "&": lambda _value: False,
}

# What the kernel says. Tools show it.
_OPERATOR = "Invalid operator"
_VALUE = "Invalid value (did you forget quotes)?"
_NO_FIELD = "Field not found"
_NUMBER = "Illegal integer value"
_OPENED = "Too many '('"
_CLOSED = "Too few '('"
_QUOTE = "Missing matching quote"
_TERMS = "Too many terms in predicate expression"
_NOTHING = "No filter found"
_NOT_NUMERIC = "Expecting numeric field"
_NOT_STRING = "Expecting string field"
_OPERATION = "Illegal operation for field type"
_TOO_LONG = "Operand too long"
_NOWHERE = "Couldn't find or set field in one of a subsystem's events"
# What it does not.
_NO_SYMBOL = "No value of the field has this text"
_TOO_MANY = "Too many predicates"


class FilterError(OSError):
    """`expression` is no filter. `position`: that of the ^ below it; None: not known."""

    def __init__(self, expression: str, position: int | None, why: str) -> None:
        super().__init__(errno.EINVAL, f"filter {expression!r}: {why}")
        self.expression = expression
        self.position = position
        self.why = why

    def text(self) -> str:
        """What the `filter` file shows."""
        if self.position is None:
            return f"{self.expression}\nError: (0)\n\n"
        return f"{self.expression}\n{' ' * self.position}^\nparse_error: {self.why}\n\n"


# --- from predicates to a branch table -----------------------------------------------------


class _Exits(NamedTuple):
    """Where branches leave a part of the expression, not knowing where to: their places."""

    if_true: list[list[int]]
    if_false: list[list[int]]


class _Part(NamedTuple):
    """A part of the expression: predicates from `first` on, to what comes behind."""

    first: int
    exits: _Exits


def _lead(branches: Iterable[list[int]], to: int) -> None:
    for branch in branches:
        branch[0] = to


def _all(part: _Part | None, then: _Part) -> _Part:
    """`part` && `then`, where `then` stands behind `part`."""
    if part is None:
        return then
    _lead(part.exits.if_true, then.first)
    part.exits.if_false.extend(then.exits.if_false)
    return _Part(part.first, _Exits(then.exits.if_true, part.exits.if_false))


def _not(part: _Part) -> _Part:
    return _Part(part.first, _Exits(part.exits.if_false, part.exits.if_true))


def _any(part: _Part | None, then: _Part) -> _Part:
    return then if part is None else _not(_all(_not(part), _not(then)))


@dataclass
class _Group:
    """What stands in one pair of parentheses, so far: `either` || `both`."""

    negated: bool = False  # as a whole
    either: _Part | None = None
    both: _Part | None = None

    def term(self, part: _Part) -> None:
        """Another one, behind && or the first one behind ||."""
        self.both = _all(self.both, part)

    def or_(self) -> None:
        """A ||, or the end."""
        if self.both is not None:
            self.either = _any(self.either, self.both)
            self.both = None


# --- values ----------------------------------------------------------------------------------

_INTEGER = re.compile(r"(-?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_SIZES = (1, 2, 4, 8)

# Of what C runs (ringbuf_c/filter.h).
_MAX_PREDICATES = 4096
_MAX_PAYLOAD = 4072


def _is_string(of: FieldInfo) -> bool:
    return of.type.startswith("char[") or of.type.startswith("__data_loc char[")


def _is_number(of: FieldInfo) -> bool:
    return of.size in _SIZES and "[" not in of.type and of.offset + of.size <= _MAX_PAYLOAD


def _integer(token: str, signed: bool) -> int | None:
    """As kstrtoll() or kstrtoull() with base 0; None: it does not take it."""
    match = _INTEGER.fullmatch(token)
    if match is None or (match[1] and not signed):
        return None
    digits = match[2]
    octal = digits.startswith("0") and digits[1:].isdigit()
    value = int(match[1] + digits, 8 if octal else 0)
    least, end = (-(1 << 63), 1 << 63) if signed else (0, 1 << 64)
    return value if least <= value < end else None


def _cut(value: int, of: FieldInfo) -> int:
    """`value` cast to the type of the field."""
    bits = 8 * of.size
    value %= 1 << bits
    return value - (1 << bits) if of.signed and value >> (bits - 1) else value


def _symbols(event: Event) -> dict[str, list[tuple[int, str]]]:
    """Values and their texts, by fields that print as such."""
    return {
        op.field.name: [
            (value, text)
            for each, text in op.table.symbols
            if (value := _cut(each, op.field)) % (1 << 64) == each
        ]
        for op in event.ops
        if isinstance(op, Symbol) and op.field in event.info.fields
    }


# --- the parser --------------------------------------------------------------------------------

_SPACES = " \t\n\v\f\r"
_NAME = re.compile(r"[A-Za-z0-9_]*")
_OPERATORS = re.compile(r"==|!=|<=|>=|<|>|&|~")
_NUMBER_BEGINS = "-0123456789"
_TOKEN = re.compile(r"-?[A-Za-z0-9]*")
_MAX_TOKEN = 23


class _Parser:
    """One expression, from left to right. Nothing recurs: it may be of parentheses only."""

    def __init__(self, event: Event, expression: str) -> None:
        self._fields = _EVERYWHERE | {each.name: each for each in event.info.fields}
        self._symbols = _symbols(event)
        self._text = expression
        self._at = 0
        self._made: list[tuple[FieldInfo, Operator, int, list[int], list[int]]] = []
        self._groups = [_Group()]

    def parse(self) -> tuple[Predicate, ...]:
        self._check_pairs()
        self._terms()
        [group] = self._groups
        group.or_()
        if group.either is None:
            self._fail_empty()
        _lead(group.either.exits.if_true, ACCEPT)
        _lead(group.either.exits.if_false, REJECT)
        return tuple(
            Predicate(of, op, value, if_true[0], if_false[0])
            for of, op, value, if_true, if_false in self._made
        )

    # --- errors

    def _fail(self, why: str, at: int) -> NoReturn:
        raise FilterError(self._text, at, why)

    def _fail_somewhere(self) -> NoReturn:
        raise FilterError(self._text, None, "Error")

    def _fail_empty(self) -> NoReturn:
        if self._text:
            self._fail(_NOTHING, len(self._text))  # but `!`
        self._fail_somewhere()

    def _fail_term(self, why: str, at: int | None = None) -> NoReturn:
        """Within a predicate the kernel points one behind, but never behind the end."""
        at = self._at if at is None else at
        self._fail(why, min(at + 1, len(self._text)))

    # --- the whole

    def _check_pairs(self) -> None:
        """Of parentheses and of quotes, before anything else."""
        opened: list[int] = []
        at = 0
        while at < len(self._text):
            each = self._text[at]
            if each in "\"'":
                end = self._text.find(each, at + 1)
                if end < 0:
                    self._fail(_QUOTE, at)
                at = end
            elif each == "(":
                opened.append(at)
            elif each == ")":
                if not opened:
                    self._fail(_CLOSED, at)
                opened.pop()
            at += 1
        if opened:
            self._fail(_OPENED, opened[-1])

    def _skip_spaces(self) -> bool:
        """False: there is nothing behind them."""
        while self._text[self._at : self._at + 1] in _SPACES and self._at < len(self._text):
            self._at += 1
        return self._at < len(self._text)

    def _takes(self, token: str) -> bool:
        taken = self._text.startswith(token, self._at)
        self._at += len(token) * taken
        return taken

    def _terms(self) -> None:
        while self._begin_term():
            while self._skip_spaces() and self._takes(")"):
                self._close()
            if self._at == len(self._text):
                return
            if self._takes("||"):
                self._groups[-1].or_()
            elif not self._takes("&&"):
                self._fail(_TERMS, self._at)

    def _begin_term(self) -> bool:
        """Up to the end of a predicate. False: there is none (an operator may stand last)."""
        negated = False
        while self._skip_spaces():
            if self._takes("("):
                self._groups.append(_Group(negated))
                negated = False
            elif self._takes("!"):
                negated = not negated
            else:
                self._term(self._predicate(), negated)
                return True
        return False

    def _close(self) -> None:
        group = self._groups.pop()
        group.or_()
        assert group.either is not None  # noqa: S101 - for mypy: a term stands before each `)`
        self._term(group.either, group.negated)

    def _term(self, part: _Part, negated: bool) -> None:
        self._groups[-1].term(_not(part) if negated else part)

    # --- a predicate

    def _predicate(self) -> _Part:
        of = self._field()
        self._skip_spaces()
        op = self._match(_OPERATORS)
        if not op:
            self._fail_term(_OPERATOR)
        self._skip_spaces()
        each = self._text[self._at : self._at + 1]
        if each and each in "\"'":
            return self._compare_text(of, op)
        if not each or each not in _NUMBER_BEGINS:
            self._fail_term(_VALUE)
        return self._compare_number(of, op)

    def _match(self, pattern: re.Pattern[str]) -> str:
        """What of it stands here, and behind it we are; "" if nothing does."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _field(self) -> FieldInfo:
        name = self._match(_NAME)
        if not name:
            self._fail_somewhere()
        if name not in self._fields:
            self._fail_term(_NO_FIELD)
        return self._fields[name]

    def _compare_number(self, of: FieldInfo, op: str) -> _Part:
        at = self._at
        token = self._match(_TOKEN)
        if _is_string(of):
            self._fail_term(_NOT_STRING, at)
        if op == "~" or not _is_number(of):
            self._fail_term(_OPERATION, at)
        if len(token) > _MAX_TOKEN:
            self._fail_term(_TOO_LONG)
        value = _integer(token, of.signed)
        if value is None:
            self._fail_term(_NUMBER, at)
        return self._compare(of, op, _cut(value, of))

    def _compare_text(self, of: FieldInfo, op: str) -> _Part:
        at = self._at
        end = self._text.index(self._text[at], at + 1)
        text = self._text[at + 1 : end]
        self._at = end + 1
        if op not in ("==", "!=", "~") or _is_string(of):
            self._fail_term(_OPERATION, at)
        if of.name not in self._symbols:
            self._fail_term(_NOT_NUMERIC, at)
        part: _Part | None = None
        for value in self._values(of, op, text):
            part = _any(part, self._compare(of, "==", value))
        if part is None:
            self._fail_term(_NO_SYMBOL, at)
        return _not(part) if op == "!=" else part

    def _values(self, of: FieldInfo, op: str, text: str) -> Iterator[int]:
        for value, each in self._symbols[of.name]:
            if fnmatchcase(each, text) if op == "~" else each == text:
                yield value

    def _compare(self, of: FieldInfo, op: str, value: int) -> _Part:
        if len(self._made) == _MAX_PREDICATES:
            self._fail_term(_TOO_MANY)
        if of in _ALWAYS_0.values():
            # What every event has is at least 0, and never less.
            of, op, value = _COMMON_TYPE, ">=" if _HOLDS_FOR_0[op](value) else "<", 0
        if_true, if_false = [ACCEPT], [REJECT]
        self._made.append((of, op, value, if_true, if_false))  # type: ignore[arg-type]
        return _Part(len(self._made) - 1, _Exits([if_true], [if_false]))


def parse_filter(event: Event, expression: str) -> tuple[Predicate, ...]:
    """The predicates that `expression` is for `event`, the first one first.

    Raises FilterError.
    """
    return _Parser(event, expression).parse()


# --- what is set ----------------------------------------------------------------------------------


class ErrorLog:
    """The last errors, the oldest first. `now` gives the time, ns."""

    _MAX = 8

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._entries: deque[str] = deque(maxlen=self._MAX)

    def add(self, what: str, error: FilterError) -> None:
        """`what` could not be done."""
        seconds, ns = divmod(self._now(), 1_000_000_000)
        self._entries.append(
            f"[{seconds:5}.{ns // 1000:06}] {what}: error: {error.why}\n"
            f"  Command: {error.expression}\n"
            f"           {' ' * (error.position or 0)}^\n"
        )

    def clear(self) -> None:
        """Forget them."""
        self._entries.clear()

    def text(self) -> str:
        """What the `error_log` file shows."""
        return "".join(self._entries)


_ERROR_WHAT = "event filter parse error"


class _Set(NamedTuple):
    """The filter of an event: what its file shows, and what it does (empty: nothing)."""

    text: str
    predicates: tuple[Predicate, ...] = ()


_NO_FILTER = _Set("none\n")


def _expression(data: str) -> str | None:
    """What has been written, as it is kept; None: no filter."""
    expression = data.partition("\0")[0].rstrip(_SPACES)
    return None if expression.strip(_SPACES) == "0" else expression


@dataclass
class Filters:
    """The filters of the events of a remote, by what has been written; and what went wrong.

    As in the kernel, who writes what is no filter has none afterwards.
    """

    error_log: ErrorLog
    _set: dict[int, _Set] = field(default_factory=dict)

    def predicates(self) -> Mapping[int, tuple[Predicate, ...]]:
        """Of the events, by id, that have a filter."""
        return {event: each.predicates for event, each in self._set.items() if each.predicates}

    def text(self, event: Event) -> str:
        """What the `filter` file of an event shows."""
        return self._set.get(event.id, _NO_FILTER).text

    def saved(self) -> Callable[[], None]:
        """What makes them again what they are now."""
        saved = dict(self._set)

        def restore() -> None:
            self._set = saved

        return restore

    def clear(self, events: Iterable[Event]) -> None:
        """Let all of these pass."""
        for event in events:
            self._set.pop(event.id, None)

    def set(self, event: Event, data: str) -> None:
        """Filter an event; "0": no more. Raises FilterError, which is in the log then."""
        self.clear([event])
        expression = _expression(data)
        if expression is None:
            return
        try:
            self._set[event.id] = _Set(f"{expression}\n", parse_filter(event, expression))
        except FilterError as error:
            self._set[event.id] = _Set(error.text())
            self.error_log.add(_ERROR_WHAT, error)
            raise

    def set_all(self, events: Iterable[Event], data: str) -> None:
        """Filter those that have the fields; the others pass, and say why.

        Raises FilterError if none has them.
        """
        events = tuple(events)
        self.clear(events)
        expression = _expression(data)
        if expression is None:
            return
        error = FilterError(expression, 0, _NOWHERE)
        failed = 0
        for event in events:
            try:
                self._set[event.id] = _Set(f"{expression}\n", parse_filter(event, expression))
            except FilterError:
                self._set[event.id] = _Set(error.text())
                failed += 1
        if failed:
            self.error_log.add(_ERROR_WHAT, error)
        if failed == len(events):
            raise error
