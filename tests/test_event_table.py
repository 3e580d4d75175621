"""Whatever a hypervisor sends is a table of events that works, or EPROTO."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Sequence
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor_model import EventInfo, FieldInfo, SymbolTable
from hyptracefs import event_table
from hyptracefs.event_table import (
    Hello,
    check_table,
    decode_event,
    decode_hello,
    decode_symbols,
)
from hyptracefs.events import compile_events
from hyptracefs.ring_buffer import RenderTable
from tests import wire
from tests.support import hypervisor

_FIELD = FieldInfo("u64", "a", 8, 8, signed=False)
_EVENT = EventInfo(1, "probe", (_FIELD,), '"a=%llu", REC->a')
_SYMBOLS = SymbolTable("name_of", ((0, "zero"), (7, "seven")), "unknown")


def _refuse(message: bytes, decode: Callable[[bytes], object], why: str) -> None:
    with pytest.raises(OSError, match=why) as raised:
        decode(message)
    assert raised.value.errno == errno.EPROTO


# --- protocol.h -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("VERSION", "HYP_PROTOCOL_VERSION"),
        ("MAX_MESSAGE", "HYP_MAX_MESSAGE"),
        ("MAX_CPUS", "HYP_MAX_CPUS"),
        ("MAX_EVENTS", "HYP_MAX_EVENTS"),
        ("MAX_SYMBOLS", "HYP_MAX_SYMBOLS"),
        ("MAX_FIELDS", "HYP_MAX_FIELDS"),
    ],
)
def test_limits_are_those_of_the_header(ours: str, theirs: str) -> None:
    assert getattr(event_table, ours) == wire.constant(theirs)


def test_arrays_hold_the_longest_name_and_its_end() -> None:
    for name in ("HYP_NAME_SIZE", "HYP_TYPE_SIZE"):
        assert wire.constant(name) == event_table.MAX_NAME + 1


@pytest.mark.parametrize(("name", "layout"), wire.LAYOUTS.items())
def test_layouts_have_the_sizes_that_the_header_asserts(
    name: str, layout: type[wire.HelloMessage]
) -> None:
    assert len(bytes(layout())) == wire.asserted_sizes()[name]


# --- hello ------------------------------------------------------------------------------------


def test_hello_says_what_was_sent() -> None:
    message = wire.encode_hello(
        "pkvm", 8, counter=2, nr_events=3, nr_symbols=1, nr_formats=2, counter_hz=24
    )
    assert decode_hello(message) == Hello(0, "pkvm", 8, 4096, 2, 3, 1, 2, 24)


@pytest.mark.parametrize(("nr_spares", "known"), [(None, 0), (0, 0), (63, 63)])
def test_hello_of_a_producer_from_before_spares_has_none(nr_spares: int | None, known: int) -> None:
    assert decode_hello(wire.encode_hello(nr_spares=nr_spares)).nr_spares == known


def test_hello_with_an_error_needs_nothing_else() -> None:
    message = wire.encode_hello("", 0, error=-errno.EBUSY, page_size=0, counter=0)
    assert decode_hello(message).error == errno.EBUSY


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "0 bytes, not 112"),
        (wire.encode_hello()[:-1], "111 bytes"),
        (wire.encode_hello() + b"\0", "113 bytes, not 120"),
        (wire.encode_hello().ljust(65537, b"\0"), "65537 bytes"),
        (wire.encode_hello(magic=b"HYPTRACF"), "no hypervisor"),
        (wire.encode_hello(version=2), "version 2 of the protocol, not 1"),
        (wire.encode_hello(version=0), "version 0"),
        (wire.encode_hello(error=1), "1 is no error"),
        (wire.encode_hello(error=-4096), "-4096 is no error"),
        (wire.encode_hello("x" * 64), "no end"),
        (wire.encode_hello("h\N{LATIN SMALL LETTER Y WITH ACUTE}p"), "not ASCII"),
        (wire.encode_hello(""), "C identifier"),
        (wire.encode_hello("../etc"), "C identifier"),
        (wire.encode_hello("enable"), "something else there"),
        (wire.encode_hello("ftrace"), "something else there"),
        (wire.encode_hello(cpus=0), "not 1 to 1024 CPUs"),
        (wire.encode_hello(cpus=1025), "not 1 to 1024 CPUs"),
        (wire.encode_hello(cpus=2**32 - 1), "not 1 to 1024 CPUs"),
        (wire.encode_hello(page_size=65536), "not pages of 4096 bytes"),
        (wire.encode_hello(counter=0), "counter is unknown"),
        (wire.encode_hello(counter=3), "counter is unknown"),
        (wire.encode_hello(nr_events=4097), "over 4096 events"),
        (wire.encode_hello(nr_symbols=2**32 - 1), "over 256 symbol tables"),
    ],
)
def test_hello_that_is_none_is_refused(message: bytes, why: str) -> None:
    _refuse(message, decode_hello, why)


# --- events and symbols -----------------------------------------------------------------------


def test_event_without_anything_comes_through() -> None:
    bare = EventInfo(0, "", (), "")
    assert decode_event(wire.encode_event(bare)) == bare


def test_events_and_symbols_of_the_model_come_through() -> None:
    with hypervisor() as model:
        for event in model.events:
            assert decode_event(wire.encode_event(event)) == event
        for table in model.symbol_tables:
            assert decode_symbols(wire.encode_symbols(table)) == table


def _with_number(message: bytes, at: int, number: int) -> bytes:
    return message[:at] + struct.pack("<I", number) + message[at + 4 :]


_SENT = wire.encode_event(_EVENT)
_NR_FIELDS, _PRINT_FMT_SIZE = 68, 72  # where they are
_FIELDS = 80


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "0 bytes, not 80"),
        (_SENT[:79], "79 bytes, not 80"),
        (_SENT[:-1], "bytes, not"),
        (_SENT + b"\0", "bytes, not"),
        (_SENT.ljust(65537, b"\0"), "65537 bytes"),
        (_with_number(_SENT, _NR_FIELDS, 0), "bytes, not"),
        (_with_number(_SENT, _NR_FIELDS, 2), "bytes, not"),
        (_with_number(_SENT, _NR_FIELDS, 2**32 - 1), "bytes, not"),
        (_with_number(_SENT, _PRINT_FMT_SIZE, 0), "bytes, not"),
        (_with_number(_SENT, _PRINT_FMT_SIZE, 2**32 - 1), "bytes, not"),
        (_with_number(_SENT[:-17], _PRINT_FMT_SIZE, 0), "no end"),
        (_SENT[:-1] + b"x", "no end"),
        (_SENT[:-2] + b"\0\0", "ends before its size"),
        (_SENT[:-2] + b"\xff\0", "not ASCII"),
        (b"x" * 64 + _SENT[64:], "no end"),
        (_SENT[:_FIELDS] + b"x" * 64 + _SENT[_FIELDS + 64 :], "no end"),
        (_SENT[: _FIELDS + 64] + b"x" * 64 + _SENT[_FIELDS + 128 :], "no end"),
    ],
)
def test_event_message_that_is_none_is_refused(message: bytes, why: str) -> None:
    _refuse(message, decode_event, why)


_SENT_SYMBOLS = wire.encode_symbols(_SYMBOLS)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "0 bytes, not 136"),
        (_SENT_SYMBOLS[:135], "135 bytes"),
        (_SENT_SYMBOLS[:-1], "bytes, not"),
        (_with_number(_SENT_SYMBOLS, 128, 2**32 - 1), "bytes, not"),
        (_with_number(_SENT_SYMBOLS, 128, 0), "bytes, not"),
        (b"x" * 64 + _SENT_SYMBOLS[64:], "no end"),
        (_SENT_SYMBOLS[:64] + b"x" * 64 + _SENT_SYMBOLS[128:], "no end"),
        (_SENT_SYMBOLS[:-64] + b"x" * 64, "no end"),
        (_SENT_SYMBOLS[:-64] + b"\xfe".ljust(64, b"\0"), "not ASCII"),
    ],
)
def test_symbols_message_that_is_none_is_refused(message: bytes, why: str) -> None:
    _refuse(message, decode_symbols, why)


# --- the table ----------------------------------------------------------------------------------


def _fields(*places: tuple[int, int]) -> tuple[FieldInfo, ...]:
    return tuple(
        FieldInfo("u8", f"f{nr}", offset, size, signed=False)
        for nr, (offset, size) in enumerate(places)
    )


@pytest.mark.parametrize(
    ("event", "why"),
    [
        *(
            (_EVENT._replace(name=name), "C identifier")
            for name in ("", ".", "..", "a/b", "/", "a b", "1st", "a-b", "a\n", "x" * 64, "\xe9")
        ),
        *(
            (_EVENT._replace(name=name), "something else there")
            for name in ("enable", "filter", "header_page", "header_event")
        ),
        (_EVENT._replace(id=0), "id is not from 1 to 65535"),
        (_EVENT._replace(id=65536), "id is not from 1 to 65535"),
        (_EVENT._replace(print_fmt='"\n"'), "no printable text"),
        (_EVENT._replace(print_fmt='"\x1b[2J"'), "no printable text"),
        (_EVENT._replace(print_fmt='"\xe9"'), "no printable text"),
        (_EVENT._replace(print_fmt="x" * 4097), "no printable text"),
        (_EVENT._replace(fields=_fields(*((2 + i, 1) for i in range(65)))), "over 64 fields"),
        (_EVENT._replace(fields=(_FIELD, _FIELD)), "two fields of one name"),
        (_EVENT._replace(fields=_fields((2, 2), (3, 1))), "over each other"),
        (_EVENT._replace(fields=_fields((8, 1), (4, 8))), "over each other"),
        (_EVENT._replace(fields=_fields((2, 1), (2, 1))), "over each other"),
        (_EVENT._replace(fields=_fields((0, 2))), "'f0': it lies over the id"),
        (_EVENT._replace(fields=_fields((1, 1))), "over the id"),
        (_EVENT._replace(fields=_fields((2, 0))), "no size"),
        (_EVENT._replace(fields=_fields((2, 4071))), "behind the 4072 bytes"),
        (_EVENT._replace(fields=_fields((4072, 1))), "behind the 4072 bytes"),
        (_EVENT._replace(fields=_fields((2**32 - 1, 2**32 - 1))), "behind the 4072 bytes"),
        *(
            (_EVENT._replace(fields=(_FIELD._replace(name=name),)), "C identifier")
            for name in ("", "a b", "a;", "0", "x" * 64)
        ),
        (_EVENT._replace(fields=(_FIELD._replace(name="common_type"),)), "that of the id"),
        (_EVENT._replace(fields=(_FIELD._replace(type=" "),)), "no type"),
        *(
            (_EVENT._replace(fields=(_FIELD._replace(type=kind),)), "no printable text")
            for kind in ("u64;", "u\t64", "u64\nprint fmt: ", "\x7f", "x" * 64)
        ),
    ],
)
def test_event_that_cannot_be_shown_is_refused_by_name(event: EventInfo, why: str) -> None:
    with pytest.raises(OSError, match="hypervisor x: event ") as raised:
        check_table([event], [], who="hypervisor x")
    assert raised.value.errno == errno.EPROTO
    assert repr(event.name) in str(raised.value.strerror)
    assert why in str(raised.value.strerror)


def _events(number: int, print_fmt: str = '""') -> list[EventInfo]:
    return [EventInfo(nr, f"e{nr}", (), print_fmt) for nr in range(1, number + 1)]


def _tables(number: int) -> list[SymbolTable]:
    return [_SYMBOLS._replace(function=f"f{nr}") for nr in range(number)]


@pytest.mark.parametrize(
    ("infos", "tables", "why"),
    [
        ([_EVENT, _EVENT._replace(id=2)], [], "two events of one name"),
        ([_EVENT, _EVENT._replace(name="other")], [], "two events of one id"),
        (_events(4097), [], "over 4096 events"),
        (_events(257, "x" * 4096), [], "over 1048576 characters in all"),
        ([], _tables(257), "over 256 symbol tables"),
        ([], [_SYMBOLS, _SYMBOLS], "two symbol tables of one name"),
        ([], [_SYMBOLS._replace(function="a(b)")], "C identifier"),
        ([], [_SYMBOLS._replace(fallback="\n")], "not printable"),
        ([], [_SYMBOLS._replace(symbols=((0, "a\tb"),))], "not printable"),
        ([], [_SYMBOLS._replace(symbols=((0, "x" * 64),))], "over 63 characters"),
        ([], [_SYMBOLS._replace(symbols=((2**64, "a"),))], "not of 64 bits"),
        ([], [_SYMBOLS._replace(symbols=((1, "a"), (1, "b")))], "two texts for one value"),
    ],
)
def test_table_that_contradicts_itself_is_refused(
    infos: Sequence[EventInfo], tables: Sequence[SymbolTable], why: str
) -> None:
    with pytest.raises(OSError, match=why) as raised:
        check_table(infos, tables)
    assert raised.value.errno == errno.EPROTO


@pytest.mark.parametrize(
    ("infos", "tables"),
    [
        ([], []),
        (_events(4096), _tables(256)),
        ([_EVENT._replace(fields=_fields(*((2 + i, 1) for i in range(64))))], []),
        ([_EVENT._replace(fields=_fields((2, 4070)))], []),
        ([_EVENT._replace(fields=_fields((10, 8), (2, 8)))], []),
        ([_EVENT._replace(id=65535, name="x" * 63, print_fmt="x" * 4096)], []),
        ([], [SymbolTable("f", ((2**64 - 1, ""), (0, "x" * 63)), "")]),
    ],
)
def test_table_at_its_limits_is_accepted(
    infos: Sequence[EventInfo], tables: Sequence[SymbolTable]
) -> None:
    check_table(infos, tables)


def test_table_of_the_model_is_accepted_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with hypervisor() as model:
        check_table(model.events, model.symbol_tables)
        _use(model.events, model.symbol_tables)
    assert caplog.messages == []


def test_id_that_tools_take_for_another_is_said(caplog: pytest.LogCaptureFixture) -> None:
    check_table([_EVENT._replace(id=5)], [], who="hypervisor x")
    [message] = caplog.messages
    assert message.startswith("hypervisor x: event probe: id 5: perfetto ")


# --- anything -------------------------------------------------------------------------------------


def _use(infos: Sequence[EventInfo], tables: Sequence[SymbolTable]) -> None:
    """All that a mount does with a table."""
    events = compile_events(infos, tables)
    RenderTable(events)
    for event in events:
        lines = event.format().split("\n")
        assert lines[0] == f"name: {event.name}"
        assert sum(line.startswith("\tfield:") for line in lines) == len(event.info.fields) + 1
        assert lines[-2:] == [f"print fmt: {event.info.print_fmt}", ""]


def _use_if_accepted(infos: Sequence[EventInfo], tables: Sequence[SymbolTable]) -> None:
    try:
        check_table(infos, tables)
    except OSError as error:
        assert error.errno == errno.EPROTO  # noqa: PT017 - not every one is refused
    else:
        _use(infos, tables)


_NAMES = st.text(ascii_letters + digits + "_", min_size=1, max_size=63).map(
    lambda text: f"_{text}"[:63]
)
_PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126)
_TEXTS = st.text(_PRINTABLE, max_size=63)
_PIECES = st.sampled_from(
    [
        *("%d", "%u", "%llx", "%#x", "%-5hhd", "%255d", "%s", "%c", "%p", "%pS", "%X", "%o", "%%"),
        *('"', "\\", "\\n", ", ", "REC->a", "REC->b", "(REC->a)", "(unsigned long)REC->a", "("),
        *(")", "{", "}", "name_of(", "__print_symbolic(REC->a, ", '{ 1, "x" }', "{ 0x99, ", "-1"),
        *("text", " ", "->", "REC", "4095", "4096", "0x", "18446744073709551615"),
    ]
)
_FORMATS = st.one_of(
    st.text(_PRINTABLE, max_size=100),
    st.lists(_PIECES, max_size=30).map("".join),
    st.lists(_PIECES, max_size=30).map(lambda pieces: f'"%s %d", {"".join(pieces)}'),
    st.integers(0, 200).map(lambda nr: f'"{"%s" * nr}"{", name_of(REC->a)" * nr}'),
)
_VALUES = st.integers(0, 5000) | st.integers(0, 2**64 - 1)


@st.composite
def _layouts(draw: st.DrawFn) -> tuple[FieldInfo, ...]:
    fields = []
    offset = 2
    for name in draw(st.lists(_NAMES | st.sampled_from("ab"), max_size=8, unique=True)):
        offset += draw(st.integers(0, 8))
        size = draw(st.sampled_from([1, 2, 4, 8]) | st.integers(1, 100))
        kind = draw(st.sampled_from(["u64", "char[16]", "unsigned long", "__data_loc char[]"]))
        fields.append(FieldInfo(kind, name, offset, size, draw(st.booleans())))
        offset += size
    return tuple(fields)


_EVENT_INFOS = st.builds(EventInfo, st.integers(1, 65535), _NAMES, _layouts(), _FORMATS)
_SYMBOL_TABLES = st.builds(
    SymbolTable,
    st.just("name_of"),
    st.lists(st.tuples(_VALUES, _TEXTS), max_size=20, unique_by=lambda pair: pair[0]).map(tuple),
    _TEXTS,
)


@given(_EVENT_INFOS)
def test_event_decodes_to_what_was_encoded(event: EventInfo) -> None:
    assert decode_event(wire.encode_event(event)) == event


@given(_SYMBOL_TABLES)
def test_symbols_decode_to_what_was_encoded(table: SymbolTable) -> None:
    assert decode_symbols(wire.encode_symbols(table)) == table


@given(st.lists(_EVENT_INFOS, max_size=4), _SYMBOL_TABLES)
def test_table_that_is_accepted_can_be_used(infos: list[EventInfo], table: SymbolTable) -> None:
    _use_if_accepted(infos, [table])


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    for decode in (decode_hello, decode_event, decode_symbols):
        try:
            decode(data)
        except OSError as error:
            assert error.errno == errno.EPROTO  # noqa: PT017 - not every one is refused


@st.composite
def _mutated(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    message = bytearray(draw(messages))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(message) - 1))
        message[at] = draw(st.integers(0, 255) | st.sampled_from(b"\0\xff;/\n\t.\x7f"))
    return bytes(message[: draw(st.none() | st.integers(0, len(message)))])


@given(
    _mutated(_EVENT_INFOS.map(wire.encode_event)), _mutated(_SYMBOL_TABLES.map(wire.encode_symbols))
)
def test_mutated_messages_are_usable_or_a_protocol_error(event: bytes, table: bytes) -> None:
    try:
        infos, tables = [decode_event(event)], [decode_symbols(table)]
    except OSError as error:
        assert error.errno == errno.EPROTO  # noqa: PT017 - not every one is refused
    else:
        _use_if_accepted(infos, tables)


@given(_mutated(st.just(wire.encode_hello())))
def test_mutated_hello_is_within_the_limits_or_a_protocol_error(message: bytes) -> None:
    try:
        hello = decode_hello(message)
    except OSError as error:
        assert error.errno == errno.EPROTO  # noqa: PT017 - not every one is refused
    else:
        assert hello.error or (1 <= hello.cpus <= 1024 and hello.nr_events <= 4096)
