"""Event filters: the language, against a kernel's answers and against Python; what they hide."""

from __future__ import annotations

import ctypes
import errno
import json
import operator
import os
import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hypervisor_model import EventInfo, FieldInfo, SymbolTable
from hyptracefs import filter_files
from hyptracefs.events import Event, compile_events
from hyptracefs.files import Place
from hyptracefs.filters import MAX_EXPRESSION, ErrorLog, FilterError, Filters, parse_filter
from hyptracefs.remote import Reader, Remote
from hyptracefs.ring_buffer import FilterTable
from hyptracefs.streams import TRACE_PIPE, _OpenPipe
from tests.decoder import Decoder, RawEvent, as_text
from tests.support import (
    GOLDEN,
    Running,
    all_raw,
    all_text,
    assert_conserved,
    event_named,
    parse_lines,
    raises_errno,
    selftests,
    start_with,
    texts,
    write_ids,
)


def _event(info: EventInfo, *tables: SymbolTable) -> Event:
    [event] = compile_events([info], tables)
    return event


def _matches(event: Event, expression: str, payload: bytes, cpu: int = 0) -> bool:
    return FilterTable({event.id: parse_filter(event, expression)}).matches(event.id, payload, cpu)


# --- as a kernel answers ------------------------------------------------------------------

# The event signal_generate of Linux 6.18 on x86_64, as far as the golden filters use it.
_SIGNAL = _event(
    EventInfo(
        261,
        "signal_generate",
        (
            FieldInfo("int", "sig", 8, 4, signed=True),
            FieldInfo("int", "code", 16, 4, signed=True),
            FieldInfo("char[16]", "comm", 20, 16, signed=False),
            FieldInfo("int", "group", 40, 4, signed=True),
        ),
        '"sig=%d", REC->sig',
    )
)
# What was sent to a process, with code 0 and code -1, while each filter was on.
_SIGNALS = [(sig, code) for sig in (17, 18, 23, 28) for code in (0, -1)]


def _signal(sig: int, code: int) -> bytes:
    return struct.pack("<H6xiii16s4xii", 261, sig, 0, code, b"sh", 1, 0)


class _Golden(NamedTuple):
    """An expression; which of _SIGNALS it let pass, or where an error was and what it said."""

    expression: str
    result: str | tuple[int, str] | None  # None: an error that has no place


def _golden() -> list[_Golden]:
    rows = json.loads((GOLDEN / "filters.json").read_text(encoding="ascii"))
    return [_Golden(text, tuple(got) if isinstance(got, list) else got) for text, got in rows]


def _result(expression: str) -> str | tuple[int, str] | None:
    try:
        filters = FilterTable({261: parse_filter(_SIGNAL, expression.rstrip(" \t\n\v\f\r"))})
    except FilterError as error:
        return None if error.position is None else (error.position, error.why)
    passed = (filters.matches(261, _signal(*each), 0) for each in _SIGNALS)
    return "".join(f"{each:d}" for each in passed)


def test_a_kernel_says_the_same() -> None:
    golden = _golden()
    assert len(golden) > 900
    wrong = [(each, got) for each in golden if (got := _result(each.expression)) != each.result]
    assert not wrong


# --- as Python evaluates -------------------------------------------------------------------

_TYPES: dict[str, tuple[Callable[[int], ctypes._SimpleCData[int]], str]] = {
    "u8": (ctypes.c_uint8, "B"),
    "s8": (ctypes.c_int8, "b"),
    "u16": (ctypes.c_uint16, "H"),
    "s16": (ctypes.c_int16, "h"),
    "u32": (ctypes.c_uint32, "I"),
    "s32": (ctypes.c_int32, "i"),
    "u64": (ctypes.c_uint64, "Q"),
    "s64": (ctypes.c_int64, "q"),
}
_FORMAT = "<H" + "".join(letter for _, letter in _TYPES.values())
_OFFSETS = [
    struct.calcsize("<H" + "".join(letter for _, letter in list(_TYPES.values())[:nr]))
    for nr in range(len(_TYPES))
]
_ALL_TYPES = _event(
    EventInfo(
        7,
        "all_types",
        tuple(
            FieldInfo(name, name, offset, int(name[1:]) // 8, signed=name[0] == "s")
            for name, offset in zip(_TYPES, _OFFSETS, strict=True)
        ),
        '"%d", REC->u8',
    )
)
_OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "&": lambda a, b: a & b != 0,
}


class _Expression(NamedTuple):
    text: str
    value: Callable[[dict[str, int]], bool]


def _cast(name: str, value: int) -> int:
    return _TYPES[name][0](value).value if name in _TYPES else ctypes.c_int32(value).value


_EDGES = [1 << bits for bits in (0, 7, 8, 15, 16, 31, 32, 63)]
_NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(_EDGES).flatmap(lambda edge: st.integers(edge - 2, edge + 1)),
    st.integers(-(1 << 63), (1 << 64) - 1),
)
_SPELLINGS = (str, hex, lambda value: oct(value).replace("o", "") if value else "0")


@st.composite
def _comparisons(draw: st.DrawFn) -> _Expression:
    name = draw(st.sampled_from([*_TYPES, "CPU"]))
    signed = not name.startswith("u")
    least, most = (-(1 << 63), (1 << 63) - 1) if signed else (0, (1 << 64) - 1)
    number = min(max(draw(_NUMBERS), least), most)
    sign, op = draw(st.sampled_from(list(_OPERATORS.items())))
    blank = draw(st.sampled_from(["", " ", "\t "]))
    text = f"{name}{blank}{sign}{blank}{draw(st.sampled_from(_SPELLINGS))(number)}"
    return _Expression(text, lambda values: op(values[name], _cast(name, number)))


def _joined(parts: st.SearchStrategy[_Expression]) -> st.SearchStrategy[_Expression]:
    def both(a: _Expression, b: _Expression) -> _Expression:
        return _Expression(
            f"({a.text}) && ({b.text})", lambda values: a.value(values) and b.value(values)
        )

    def either(a: _Expression, b: _Expression) -> _Expression:
        return _Expression(
            f"({a.text})||({b.text})", lambda values: a.value(values) or b.value(values)
        )

    def none(a: _Expression) -> _Expression:
        return _Expression(f"!({a.text})", lambda values: not a.value(values))

    return st.one_of(
        st.builds(both, parts, parts), st.builds(either, parts, parts), st.builds(none, parts)
    )


_TREES = st.recursive(_comparisons(), _joined, max_leaves=12)
_VALUES = st.fixed_dictionaries(
    {name: _NUMBERS.map(partial(_cast, name)) for name in _TYPES} | {"CPU": st.integers(0, 3)}
)


def _payload(values: dict[str, int]) -> bytes:
    return struct.pack(_FORMAT, 7, *(values[name] for name in _TYPES))


@given(_TREES, _VALUES)
def test_a_tree_of_comparisons_is_what_python_says(
    tree: _Expression, values: dict[str, int]
) -> None:
    got = _matches(_ALL_TYPES, tree.text, _payload(values), values["CPU"])
    assert got == tree.value(values), tree.text


@given(
    st.lists(_comparisons(), min_size=1, max_size=10),
    st.lists(st.sampled_from([" && ", "||", " || ! ", "&&!"]), min_size=9, max_size=9),
    _VALUES,
)
def test_precedence_is_that_of_python(
    parts: list[_Expression], operators: list[str], values: dict[str, int]
) -> None:
    text, python = "", ""
    for part, glue in zip(parts, ["", *operators], strict=False):
        text += glue + part.text
        words = glue.replace("&&", " and ").replace("||", " or ").replace("!", " not ")
        python += f"{words}{part.value(values)}"
    got = _matches(_ALL_TYPES, text, _payload(values), values["CPU"])
    assert got == eval(python), text  # noqa: S307 - made of True, False, and, or, not


@given(st.text(alphabet="us8163 ()!&|=<>\"'0x-CPU", max_size=40))
def test_any_text_is_a_filter_or_an_error_that_says_where(text: str) -> None:
    position: int | None = 0
    try:
        predicates = parse_filter(_ALL_TYPES, text)
    except FilterError as error:
        position = error.position
    else:
        FilterTable({7: predicates}).matches(7, b"\7\0", 0)
    assert position is None or 0 <= position <= len(text)


# --- what else the language has -------------------------------------------------------------

_REASONS = SymbolTable(
    "reason_str", ((0, "smc"), (1, "hvc"), (3, "host_abort"), (7, "hvc")), "unknown"
)
_ENTER = _event(
    EventInfo(
        1,
        "hyp_enter",
        (
            FieldInfo("u8", "reason", 2, 1, signed=False),
            FieldInfo("pid_t", "vcpu", 4, 4, signed=True),
            FieldInfo("u32[1]", "array", 8, 4, signed=False),
            FieldInfo("char[8]", "name", 12, 8, signed=False),
        ),
        '"reason=%s vcpu=%d", reason_str(REC->reason), REC->vcpu',
    ),
    _REASONS,
)


def _reasons(expression: str) -> list[int]:
    return [
        reason
        for reason in range(9)
        if _matches(_ENTER, expression, struct.pack("<HBxi12x", 1, reason, 4))
    ]


@pytest.mark.parametrize(
    ("expression", "reasons"),
    [
        ('reason == "hvc"', [1, 7]),
        ("reason == 'host_abort'", [3]),
        ('reason != "hvc"', [0, 2, 3, 4, 5, 6, 8]),
        ('!reason == "hvc"', [0, 2, 3, 4, 5, 6, 8]),
        ('reason == "hvc" && !reason == 7', [1]),
        ('reason == "smc" || reason == "hvc"', [0, 1, 7]),
        ('reason ~ "h*"', [1, 3, 7]),
        ('reason ~ "?[mv]c"', [0, 1, 7]),
        ("reason == 257", [1]),
        ("common_type == 1", [*range(9)]),
        ("common_type != 1", []),
        # As trace-cmd writes it, to leave out what its recorders do.
        ("((reason == 1))&&((common_pid<4711||common_pid>4713))", [1]),
        ("common_pid == 0", [*range(9)]),
        ("common_pid != 0", []),
        ("common_pid < 0 || common_pid > 0 || common_pid & 255", []),
        ("common_pid >= 0 && common_pid <= 0 && !(common_pid & 1)", [*range(9)]),
        ("common_flags == 0 && common_preempt_count < 1", [*range(9)]),
    ],
)
def test_texts_of_symbols_are_compared(expression: str, reasons: list[int]) -> None:
    assert _reasons(expression) == reasons


@pytest.mark.parametrize(
    ("expression", "position", "why"),
    [
        ('reason == "none"', 11, "No value of the field has this text"),
        ('reason > "hvc"', 10, "Illegal operation for field type"),
        ('vcpu == "hvc"', 9, "Expecting numeric field"),
        ("comm == 1", 5, "Field not found"),
        ("array == 1", 10, "Illegal operation for field type"),
        ("name == 1", 9, "Expecting string field"),
        ('name == "a"', 9, "Illegal operation for field type"),
        ("reason == -1", 11, "Illegal integer value"),
    ],
)
def test_errors_that_the_golden_ones_do_not_have(expression: str, position: int, why: str) -> None:
    with pytest.raises(FilterError) as raised:
        parse_filter(_ENTER, expression)
    assert (raised.value.position, raised.value.why) == (position, why)


def test_parentheses_nest_as_deep_as_a_write_is_long() -> None:
    depth = MAX_EXPRESSION // 2
    assert _reasons(f"{'(' * depth}reason == 1{')' * depth}") == [1]
    assert _reasons(f"{'!(' * 999}reason == 1{')' * 999}") == [0, 2, 3, 4, 5, 6, 7, 8]


def test_more_predicates_than_can_be_run_are_an_error() -> None:
    with pytest.raises(FilterError, match="Too many predicates"):
        parse_filter(_ENTER, "||".join(['reason~"*"'] * 1025))
    assert len(parse_filter(_ENTER, "||".join(['reason~"*"'] * 1024))) == 4096


def test_an_event_without_a_filter_matches() -> None:
    table = FilterTable({_SIGNAL.id: parse_filter(_SIGNAL, "sig == 1")})
    assert not table.matches(_SIGNAL.id, _signal(2, 0), cpu=0)
    for event in (1, _SIGNAL.id + 1, 1 << 30):
        assert table.matches(event, _signal(2, 0), cpu=0)


@pytest.mark.parametrize("target", [0, 1, 7])
def test_a_filter_that_c_will_not_run_is_refused(target: int) -> None:
    """One that jumps back, or out of itself, might never end."""
    [predicate] = parse_filter(_SIGNAL, "sig == 1")
    with pytest.raises(OSError, match="event 261: its filter cannot be run") as raised:
        FilterTable({_SIGNAL.id: [predicate._replace(if_true=target)]})
    assert raised.value.errno == errno.EINVAL


def test_an_event_without_the_bytes_of_a_field_does_not_match() -> None:
    for operator_ in _OPERATORS:
        assert not _matches(_ENTER, f"vcpu {operator_} 0", b"\1\0\0\0\0\0\0")


# --- what the files show ----------------------------------------------------------------------

_NONE = "none\n"


@pytest.fixture
def filters() -> Filters:
    return Filters(ErrorLog(lambda: 1_234_567_891))


def test_filter_shows_what_is_set(filters: Filters) -> None:
    assert filters.text(_ENTER) == _NONE
    filters.set(_ENTER, "  vcpu == 1 \n")
    assert filters.text(_ENTER) == "  vcpu == 1\n"
    assert len(filters.predicates()[_ENTER.id]) == 1
    filters.set(_ENTER, " 0\n")
    assert filters.text(_ENTER) == _NONE
    assert not filters.predicates()
    assert not filters.error_log.text()


def test_what_is_no_filter_is_shown_and_ends_the_one_before(filters: Filters) -> None:
    filters.set(_ENTER, "vcpu == 1")
    with raises_errno(errno.EINVAL):
        filters.set(_ENTER, "vcpu == 08\n")
    assert filters.text(_ENTER) == (
        "vcpu == 08\n         ^\nparse_error: Illegal integer value\n\n"
    )
    assert not filters.predicates()
    assert filters.error_log.text() == (
        "[    1.234567] event filter parse error: error: Illegal integer value\n"
        "  Command: vcpu == 08\n"
        "                    ^\n"
    )
    filters.set(_ENTER, "0")
    assert filters.text(_ENTER) == _NONE


def test_an_error_without_a_place(filters: Filters) -> None:
    with raises_errno(errno.EINVAL):
        filters.set(_ENTER, "()")
    assert filters.text(_ENTER) == "()\nError: (0)\n\n"
    assert filters.error_log.text() == (
        "[    1.234567] event filter parse error: error: Error\n  Command: ()\n           ^\n"
    )


def test_error_log_keeps_the_last_eight(filters: Filters) -> None:
    for number in range(10):
        with raises_errno(errno.EINVAL):
            filters.set(_ENTER, f"x{number} == 1\n")
    commands = [
        line.removeprefix("  Command: ")
        for line in filters.error_log.text().splitlines()
        if "Command" in line
    ]
    assert commands == [f"x{number} == 1" for number in range(2, 10)]
    filters.error_log.clear()
    assert not filters.error_log.text()


_NOWHERE = "Couldn't find or set field in one of a subsystem's events"


def test_filter_of_a_system_whose_events_all_have_the_fields_is_no_error(
    filters: Filters,
) -> None:
    filters.set_all([_ENTER, _SIGNAL], "CPU == 1\n")
    assert filters.text(_ENTER) == filters.text(_SIGNAL) == "CPU == 1\n"
    assert not filters.error_log.text()


def test_filter_of_a_system_is_for_events_that_have_the_fields(filters: Filters) -> None:
    filters.set(_SIGNAL, "sig == 1")
    filters.set_all([_ENTER, _SIGNAL], "vcpu > 3\n")
    assert filters.text(_ENTER) == "vcpu > 3\n"
    assert filters.text(_SIGNAL) == f"vcpu > 3\n^\nparse_error: {_NOWHERE}\n\n"
    assert [*filters.predicates()] == [_ENTER.id]
    assert filters.error_log.text().count(_NOWHERE) == 1
    filters.set_all([_ENTER, _SIGNAL], "0")
    assert filters.text(_ENTER) == filters.text(_SIGNAL) == _NONE
    with raises_errno(errno.EINVAL):
        filters.set_all([_ENTER, _SIGNAL], "nosuch > 3\n")
    assert filters.text(_ENTER) == f"nosuch > 3\n^\nparse_error: {_NOWHERE}\n\n"


# --- a remote's readers ------------------------------------------------------------------------


@pytest.mark.jumping_clock
@pytest.mark.parametrize("size", [1, 100, 1 << 16])
async def test_text_of_events_that_match(remote: Remote, size: int) -> None:
    await start_with(remote, "selftest", size_kb=64)
    remote.set_filter(event_named(remote, "selftest"), "id & 1 && id >= 9")
    write_ids(remote, range(600))
    write_ids(remote, range(600, 700), cpu=1)
    reader = await remote.open_reader()
    wanted = [number for number in range(700) if number & 1 and number >= 9]
    assert texts(parse_lines(all_text(reader, size))) == selftests(wanted)
    assert sum(stats.filtered for stats in remote.statistics().cpus) == 700 - len(wanted)
    assert_conserved(remote)


@pytest.mark.jumping_clock
async def test_images_of_events_that_match(remote: Remote) -> None:
    await start_with(remote, "selftest", "hyp_enter", "hyp_exit", size_kb=64)
    remote.set_filter(event_named(remote, "selftest"), "id < 100 || id == 500")
    remote.set_filter(event_named(remote, "hyp_exit"), "CPU > 1")
    write_ids(remote, range(600))
    reader = await remote.open_reader(0)
    decoder = Decoder(event.format() for event in remote.events)
    decoded = [each for each in decoder.pages(all_raw(reader)) if isinstance(each, RawEvent)]
    shown = [as_text(each) for each in decoded if each.name == "selftest"]
    assert shown == selftests([*range(100), 500])
    assert {each.name for each in decoded} == {"selftest", "hyp_enter"}
    times = [each.time for each in decoded]
    assert times == sorted(times)
    assert_conserved(remote)


@pytest.mark.jumping_clock
async def test_filter_is_for_what_is_unread_and_outlives_the_buffer(remote: Remote) -> None:
    selftest = event_named(remote, "selftest")
    await start_with(remote, "selftest")
    reader = await remote.open_reader()
    write_ids(remote, range(5))
    remote.set_filter(selftest, "id > 3")
    assert texts(parse_lines(all_text(reader))) == selftests([4])
    reader.close()
    await remote.stop_tracing()
    assert not remote.loaded

    await remote.start_tracing()
    reader = await remote.open_reader()
    write_ids(remote, range(5))
    assert texts(parse_lines(all_text(reader))) == selftests([4])
    assert remote.filter_text(selftest) == "id > 3\n"

    write_ids(remote, range(5))
    remote.set_filter(selftest, "0")
    assert texts(parse_lines(all_text(reader))) == selftests(range(5))


@pytest.mark.jumping_clock
async def test_what_is_no_filter_shows_all(remote: Remote) -> None:
    await start_with(remote, "selftest")
    selftest = event_named(remote, "selftest")
    remote.set_filter(selftest, "id > 3")
    with raises_errno(errno.EINVAL):
        remote.set_filter(selftest, "id > three")
    reader = await remote.open_reader()
    write_ids(remote, range(5))
    assert texts(parse_lines(all_text(reader))) == selftests(range(5))
    assert "id > three" in remote.error_log.text()


@pytest.mark.jumping_clock
async def test_a_reader_is_ready_only_for_what_matches(remote: Remote) -> None:
    await start_with(remote, "selftest")
    remote.set_filter(event_named(remote, "selftest"), "id == 7")
    reader = await remote.open_reader()
    write_ids(remote, range(5))
    assert remote.buffer.poll()
    assert not reader.readable()
    write_ids(remote, [7])
    assert reader.readable()
    assert texts(parse_lines(all_text(reader))) == selftests([7])


@pytest.mark.jumping_clock
async def test_a_waiting_reader_gets_what_matches(idle: Running) -> None:
    remote = idle.remote
    await start_with(remote, "selftest")
    remote.set_filter(event_named(remote, "selftest"), "id == 7")
    file = await TRACE_PIPE.open(Place(remote), os.O_RDONLY, 0)
    got: list[str] = []

    async def read() -> None:
        got.append(bytes(await file.read(1 << 16, 0, nonblock=False)).decode())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for number in (1, 2):
            write_ids(remote, [number])
            await trio.sleep(1)  # of a clock that jumps: a hundred polls
            assert not got
            assert remote.statistics().cpus[0].filtered == number
        write_ids(remote, [7])
    assert texts(parse_lines(got[0])) == selftests([7])
    file.release()


@pytest.mark.jumping_clock
@pytest.mark.parametrize("nonblock", [True, False])
async def test_a_read_that_is_not_finished_goes_on(remote: Remote, nonblock: bool) -> None:
    """However many events are passed over, before one that matches or before EAGAIN."""

    class Many(Reader):
        left = 3

        def try_read_text(self, size: int) -> memoryview:  # noqa: ARG002
            self.left -= 1
            return memoryview(b"" if self.left else b"line\n")

        @property
        def unfinished(self) -> bool:
            return self.left > 0

    await remote.start_tracing()
    reader = Many(remote, 0)
    file = _OpenPipe(reader)
    assert bytes(await file.read(100, 0, nonblock)) == b"line\n"


# --- the files -----------------------------------------------------------------------------------


@pytest.mark.jumping_clock
async def test_files_of_filters(remote: Remote) -> None:
    place = Place(remote, event=event_named(remote, "hyp_enter"))
    other = Place(remote, event=event_named(remote, "selftest"))
    top = Place(remote)
    log = filter_files.ErrorLogFile()
    assert filter_files.show_event_filter(place) == _NONE
    await filter_files.store_event_filter(place, b'reason == "hvc"\n')
    assert filter_files.show_event_filter(place) == 'reason == "hvc"\n'
    await filter_files.store_system_filter(top, b"vcpu == 0\n")
    assert filter_files.show_event_filter(place) == "vcpu == 0\n"
    assert "parse_error" in filter_files.show_event_filter(other)
    assert filter_files.show_system_filter(top).startswith("### global filter ###\n")
    await filter_files.store_system_filter(top, b"0\n")
    assert filter_files.show_event_filter(other) == _NONE
    with raises_errno(errno.EINVAL):
        await filter_files.store_event_filter(place, "vcpu == \xff\n".encode())
    assert filter_files.show_event_filter(place).isascii()

    file = await log.open(top, os.O_RDONLY, 0)
    text = bytes(await file.read(1 << 16, 0, nonblock=True)).decode()
    assert text.count("event filter parse error") == 2
    assert await log.length(top) == len(text)
    await (await log.open(top, os.O_WRONLY, 0)).write(b"x\n", 0)
    assert await log.length(top) == len(text)
    await (await log.open(top, os.O_WRONLY | os.O_TRUNC, 0)).write(b"\n", 0)
    assert await log.length(top) == 0


@pytest.mark.jumping_clock
async def test_a_text_that_is_too_long_changes_nothing(remote: Remote) -> None:
    place = Place(remote, event=event_named(remote, "hyp_enter"))
    await filter_files.store_event_filter(place, b"vcpu == 1".ljust(MAX_EXPRESSION - 1))
    with raises_errno(errno.EINVAL):
        await filter_files.store_event_filter(place, b"vcpu == 2".ljust(MAX_EXPRESSION))
    assert filter_files.show_event_filter(place) == "vcpu == 1\n"
    assert not filter_files.show_error_log(place)
