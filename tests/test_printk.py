"""hyp_printk: formats that a hypervisor announces, and the records that name one of them."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor_model import EventInfo, FieldInfo, Format, FormatTable, Step, load_workload
from hyptracefs import event_table
from hyptracefs.event_table import check_table, decode_formats, join_formats
from hyptracefs.events import compile_events
from hyptracefs.print_fmt import Number, compile_format, raw_format
from hyptracefs.ring_buffer import PAGE_SIZE, Carry, Geometry, Memory, RenderTable, RingBuffer
from hyptracefs.sources import SocketSource
from tests import wire
from tests.mounts import can_mount, mounted
from tests.support import (
    all_text,
    hypervisor,
    parse_lines,
    raises_errno,
    running,
    start_with,
    texts,
)

_EVENT = EventInfo(
    8,
    "hyp_printk",
    (
        FieldInfo("u16", "fmt_id", 2, 2, signed=False),
        FieldInfo("u64[]", "args", 8, 0, signed=False),
    ),
    '"fmt_id=%u", REC->fmt_id',
)
_TABLE = FormatTable("hyp_printk", "fmt_id", "args", (Format("none", 0), Format("%d of %u\n", 2)))


def _table(*formats: Format) -> FormatTable:
    return replace(_TABLE, formats=formats)


# --- one event, rendered ------------------------------------------------------------------


@contextmanager
def _buffer_with(payload: bytes, table: RenderTable) -> Iterator[RingBuffer]:
    """A buffer of one CPU with one event, on the page that the reader owns."""
    geometry = Geometry(1, 3)
    memory = Memory(geometry.size)
    event = struct.pack("<II", 0, len(payload) + 4) + payload
    meta = struct.pack("<IIIIQIIQQQ", PAGE_SIZE, 88, PAGE_SIZE, 3, 0, 0, 0, 0, 1, 0)
    os.pwrite(memory.fd, meta, geometry.meta(0))
    os.pwrite(memory.fd, struct.pack("<QQ", 0, len(event)) + event, geometry.page(0, 0))
    buffer = RingBuffer(memory, geometry, table, 0, 0)
    try:
        yield buffer
    finally:
        buffer.close()


def _line(
    payload: bytes, *formats: Format, table: FormatTable = _TABLE, info: EventInfo = _EVENT
) -> str:
    """What is printed behind the time for a record, with its newline taken off."""
    compiled = compile_events([info], [], [replace(table, formats=formats)])
    with _buffer_with(payload, RenderTable(compiled)) as buffer:
        buffer.poll()
        text = bytes(buffer.read_text(0, Carry(), 1 << 16)).decode("ascii")
    before = "[000]\t    0.000000: "
    assert text.startswith(before)
    assert text.endswith("\n")
    return text[len(before) : -1]


def _record(fmt_id: int, *args: int) -> bytes:
    words = [arg % 2**64 for arg in args]
    return struct.pack(f"<HH4x{len(words)}Q", 8, fmt_id, *words)


def _shown(text: str, *args: int) -> str:
    """What a format gives for its arguments."""
    line = _line(_record(0, *args), Format(text, len(args)))
    assert line.startswith("hyp_printk ")
    return line.removeprefix("hyp_printk ")


_LIBC = ctypes.CDLL(None)


def _printf(form: str, *args: int) -> str:
    """What printf(3) makes of it; on 64 bits a u64 can be passed for any integer."""
    out = ctypes.create_string_buffer(4096)
    _LIBC.snprintf(out, len(out), form.encode(), *(ctypes.c_uint64(arg % 2**64) for arg in args))
    return out.value.decode()


_VALUES = st.integers(-(2**63), 2**64 - 1) | st.sampled_from(
    [
        0,
        1,
        -1,
        127,
        128,
        255,
        2**15,
        2**16,
        2**31 - 1,
        2**31,
        2**32 - 1,
        2**32,
        2**63,
        -errno.EINVAL,
    ]
)


@st.composite
def _conversions(draw: st.DrawFn) -> str:
    flags = draw(st.sampled_from(["", "0", "-"]))
    width = draw(st.sampled_from(["", "1", "7", "25"]))
    length = draw(st.sampled_from(["", "hh", "h", "l", "ll", "z"]))
    return f"%{flags if width else ''}{width}{length}{draw(st.sampled_from('diux'))}"


_LITERALS = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="%"), max_size=12
)


@given(st.lists(st.tuples(_LITERALS, _conversions(), _VALUES), max_size=8), _LITERALS)
def test_line_is_what_printf_makes_of_it(parts: list[tuple[str, str, int]], end: str) -> None:
    form = "".join(text + conversion for text, conversion, _ in parts) + end
    args = [value for _, _, value in parts]
    assert _shown(form, *args) == _printf(form, *args)


@pytest.mark.parametrize(
    ("text", "args", "shown"),
    [
        ("", (), ""),
        ("\n", (), ""),
        ("no newline", (), "no newline"),
        ("newline\n", (), "newline"),
        ("two\n\n", (), "two"),
        ("100%%\n", (), "100%"),
        ("%p %px", (255, 2**64 - 1), "00000000000000ff ffffffffffffffff"),
        ("<%c%c>", (0x4141, 10), r"<A\x0a>"),
        ("%#x %#018llx", (2**32 + 1, 1), "0x1 0x0000000000000001"),
    ],
)
def test_line_is_one_line_of_the_text(text: str, args: tuple[int, ...], shown: str) -> None:
    assert _shown(text, *args) == shown


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (_record(0), "hyp_printk none"),
        (_record(0, 1, 2, 3), "hyp_printk none"),
        (_record(1, -1, 7), "hyp_printk -1 of 7"),
        (_record(1, 1, 7, 9), "hyp_printk 1 of 7"),
        (_record(1, 1), "[SHORT EVENT id=8 length=16]"),
        (_record(1), "[SHORT EVENT id=8 length=8]"),
        (_record(0)[:3], "[SHORT EVENT id=8 length=3]"),
        (_record(2), "hyp_printk Unknown hyp_string_fmt ID 2"),
        (_record(65535, 1), "hyp_printk Unknown hyp_string_fmt ID 65535"),
    ],
)
def test_record_is_what_it_names(payload: bytes, shown: str) -> None:
    assert _line(payload, *_TABLE.formats) == shown


def test_producer_has_its_own_names_and_sizes() -> None:
    info = EventInfo(
        8,
        "__hyp_printk",
        (
            FieldInfo("u8", "nr", 2, 1, signed=False),
            *(
                FieldInfo("u64", name, 8 * place, 8, signed=False)
                for place, name in enumerate("abcd", 1)
            ),
        ),
        '"%d", REC->nr',
    )
    table = FormatTable("__hyp_printk", "nr", "a", ())
    payload = struct.pack("<HB5xQQQQ", 8, 1, 11, 12, 13, 14)
    formats = (Format("", 0), Format("%u-%u", 2))
    check_table([info], [], [replace(table, formats=formats)])
    assert _line(payload, *formats, table=table, info=info) == "__hyp_printk 11-12"


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (Format("at %pS\n", 1), "conversion '%pS' is not supported"),
        (Format("%s", 1), "an argument is no text"),
        (Format("%d %d", 1), "2 conversions for 1 arguments"),
        (Format("%d", 2), "1 conversions for 2 arguments"),
        (Format("50%", 0), "conversion '%' is not supported"),
        (Format("%.3d", 1), "conversion '%.3d' is not supported"),
    ],
)
def test_format_that_is_not_understood_is_shown_raw(
    form: Format, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    args = range(10, 10 + form.nr_args)
    behind = f" ({', '.join(map(hex, args))})" if form.nr_args else ""
    raw = f"hyp_printk {form.text.rstrip()}{behind}"
    assert _line(_record(1, *args), Format("good", 0), form, form) == raw
    [message] = caplog.messages
    assert "event hyp_printk: 2 of its 3 formats shown raw, the first one: " in message
    assert why in message


def test_operations_read_as_many_bytes_as_the_conversion_has() -> None:
    def word(nr: int, size: int) -> FieldInfo:
        return FieldInfo("u64", "", 8 + 8 * nr, size, signed=False)

    assert compile_format(Format("%d%hhx %llu\n", 3), 8) == (
        Number(word(0, 4), "signed", 0, ""),
        Number(word(1, 1), "hex", 0, ""),
        " ",
        Number(word(2, 8), "unsigned", 0, ""),
    )
    assert raw_format(Format("x\n", 1), 8) == ("x", " (0x", Number(word(0, 8), "hex", 0, ""), ")")


# --- what is sent -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MAX_FORMATS", "MAX_FORMATS_MSGS", "MAX_FORMAT_ARGS"])
def test_limits_are_those_of_the_header(name: str) -> None:
    assert getattr(event_table, name) == wire.constant(f"HYP_{name}")
    assert wire.constant("HYP_FORMAT_SIZE") == event_table.MAX_FORMAT + 1


_SENT = wire.encode_formats(_TABLE)
_NR_FORMATS = 192  # where it is


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "0 bytes, not 200"),
        (_SENT[:199], "199 bytes"),
        (_SENT[:-1], "bytes, not"),
        (_SENT + b"\0", "bytes, not"),
        (
            _SENT[:_NR_FORMATS] + struct.pack("<I", 2**32 - 1) + _SENT[_NR_FORMATS + 4 :],
            "bytes, not",
        ),
        (_SENT.ljust(65537, b"\0"), "65537 bytes"),
        (b"x" * 64 + _SENT[64:], "no end"),
        (_SENT[:64] + b"x" * 64 + _SENT[128:], "no end"),
        (_SENT[:128] + b"x" * 64 + _SENT[192:], "no end"),
        (_SENT[:-248] + b"x" * 248, "no end"),
        (_SENT[:-248] + b"\xfe".ljust(248, b"\0"), "not ASCII"),
    ],
)
def test_message_that_is_none_is_refused(message: bytes, why: str) -> None:
    with pytest.raises(OSError, match=why) as raised:
        decode_formats(message)
    assert raised.value.errno == errno.EPROTO


def _event(*fields: FieldInfo) -> EventInfo:
    return _EVENT._replace(fields=fields)


_INDEX, _ARGS = _EVENT.fields
_TOO_MANY = tuple(Format("", 0) for _ in range(65537))


@pytest.mark.parametrize(
    ("event", "tables", "why"),
    [
        (_EVENT._replace(name="other"), [_TABLE], "there is no such event"),
        (_event(_ARGS), [_TABLE], "the index is no unsigned field"),
        (_event(_INDEX._replace(signed=True), _ARGS), [_TABLE], "the index is no unsigned field"),
        (_event(_INDEX._replace(size=3), _ARGS), [_TABLE], "the index is no unsigned field"),
        (_event(_INDEX), [_TABLE], "no field has room for 8 arguments"),
        (_event(_INDEX, _ARGS._replace(offset=4072 - 63)), [_TABLE], "no field has room for 8"),
        (_EVENT, [_table(Format("", 9))], "a format takes over 8 arguments"),
        (_EVENT, [_table(Format("x" * 248, 0))], "over 247 characters"),
        (_EVENT, [_table(Format("\x1b[2J", 0))], "not printable"),
        (_EVENT, [_table(Format("a\rb", 0))], "not printable"),
        (_EVENT, [_TABLE, _TABLE], "two tables of formats for one event"),
        (_EVENT, [_table(*_TOO_MANY)], "over 65536 formats"),
        (_EVENT, [_table(*[Format("x" * 247, 0)] * 4246)], "over 1048576 characters in all"),
    ],
)
def test_formats_that_cannot_be_shown_are_refused(
    event: EventInfo, tables: list[FormatTable], why: str
) -> None:
    with pytest.raises(OSError, match=why) as raised:
        check_table([event], [], tables)
    assert raised.value.errno == errno.EPROTO


def test_formats_at_their_limits_are_accepted() -> None:
    args = _ARGS._replace(offset=4072 - 64)
    check_table([_event(_INDEX, args)], [], [_table(*_TOO_MANY[1:])])
    check_table([_EVENT], [], [_table(Format("\t%d\n", 8), Format("x" * 247, 0))])


def test_messages_about_one_event_are_one_table() -> None:
    first, second = _TABLE.formats
    other = replace(_table(second), event="other")
    joined = join_formats([_table(first), other, _table(second), _table()])
    assert joined == (_TABLE, other)


_FORMATS = st.builds(
    Format,
    st.one_of(
        st.text(st.characters(max_codepoint=127), max_size=60),
        st.lists(
            st.sampled_from(
                ["%d", "%255llu", "%s", "%pS", "%%", "%", "%c", "%-08lx", "\n", "x", "%#x"]
            ),
            max_size=12,
        ).map("".join),
    ).map(lambda text: text.replace("\0", "")),
    st.integers(0, 9),
)
_TABLES = st.builds(
    FormatTable,
    st.sampled_from(["hyp_printk", "other"]),
    st.sampled_from(["fmt_id", "args"]),
    st.sampled_from(["args", "fmt_id", "none"]),
    st.lists(_FORMATS, max_size=5).map(tuple),
)


@given(_TABLES)
def test_formats_decode_to_what_was_encoded(table: FormatTable) -> None:
    assert decode_formats(wire.encode_formats(table)) == table


@given(st.binary(max_size=600))
def test_any_bytes_are_formats_or_a_protocol_error(data: bytes) -> None:
    try:
        decode_formats(data)
    except OSError as error:
        assert error.errno == errno.EPROTO  # noqa: PT017 - not every one is refused


def _lines_of(tables: Sequence[FormatTable], payload: bytes) -> bytes:
    with _buffer_with(payload, RenderTable(compile_events([_EVENT], [], tables))) as buffer:
        buffer.poll()
        return bytes(buffer.read_text(0, Carry(), 1 << 16))


@given(st.lists(_TABLES, max_size=3), st.integers(0, 6), st.binary(max_size=80))
def test_formats_that_are_accepted_print_any_record(
    parts: list[FormatTable], fmt_id: int, rest: bytes
) -> None:
    tables = join_formats(parts)
    try:
        check_table([_EVENT], [], tables)
    except OSError as error:
        assert error.errno == errno.EPROTO  # noqa: PT017 - not every one is refused
        return
    text = _lines_of(tables, struct.pack("<HH", 8, fmt_id) + rest)
    assert re.match(rb"\[000\]\t    0\.000000: (hyp_printk |\[SHORT EVENT id=8 )", text)
    assert text.endswith(b"\n")


# --- a producer of its own ----------------------------------------------------------------


def _introduce(connection: socket.socket, *tables: FormatTable) -> None:
    with connection:
        connection.send(wire.encode_hello(nr_events=1, nr_formats=len(tables)))
        connection.send(wire.encode_event(_EVENT))
        for table in tables:
            connection.send(wire.encode_formats(table))
        connection.recv(1)  # until the host hangs up


def _attach_to(path: Path, *tables: FormatTable) -> tuple[FormatTable, ...]:
    """What a host knows of a producer that announces these tables."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        producer = threading.Thread(target=lambda: _introduce(listening.accept()[0], *tables))
        producer.start()
        try:
            attached = SocketSource(path).attach()
            attached.close()
        finally:
            producer.join()
    return attached.introduction.format_tables


def test_formats_come_in_as_many_messages_as_they_need(tmp_path: Path) -> None:
    first, second = _TABLE.formats
    assert _attach_to(tmp_path / "s", _table(first), _table(second)) == (_TABLE,)


def test_producer_without_formats_says_nothing_of_them(tmp_path: Path) -> None:
    assert _attach_to(tmp_path / "s") == ()


def test_formats_of_no_event_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="formats of 'other': there is no such event") as raised:
        _attach_to(tmp_path / "s", replace(_TABLE, event="other"))
    assert raised.value.errno == errno.EPROTO


# --- the hypervisor -----------------------------------------------------------------------


def test_all_that_the_hypervisor_announces_is_understood(caplog: pytest.LogCaptureFixture) -> None:
    with hypervisor() as made:
        check_table(made.events, made.symbol_tables, made.format_tables)
        events = compile_events(made.events, made.symbol_tables, made.format_tables)
    [printk] = (event for event in events if event.formats)
    assert printk.name == "hyp_printk"
    assert caplog.messages == []


def test_format_file_says_that_args_are_as_many_as_there_are() -> None:
    with hypervisor() as made:
        events = compile_events(made.events, made.symbol_tables, made.format_tables)
    [printk] = (event for event in events if event.name == "hyp_printk")
    assert printk.format() == (
        "name: hyp_printk\nID: 8\nformat:\n"
        "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n"
        "\tfield:u16 fmt_id;\toffset:2;\tsize:2;\tsigned:0;\n"
        "\tfield:u64 args[];\toffset:8;\tsize:0;\tsigned:0;\n\n"
        'print fmt: "fmt_id=%u", REC->fmt_id\n'
    )


async def test_hypervisor_says_what_it_does_when_it_is_asked_to() -> None:
    async with running(cpus=2) as made:
        reader = await made.remote.open_reader(0)
        await start_with(made.remote, "hyp_printk")
        with raises_errno(errno.EINVAL):
            made.calls.load(0x7000, 4095, 0, 0)
        said = texts(parse_lines(all_text(reader)))
    assert re.fullmatch(r"hyp_printk tracing on: 2 CPUs, [1-9]\d* KiB shared", said[0])
    assert said[1:] == ["hyp_printk load of 0x7000, 4095 bytes: refused: -22"]


async def test_hypervisor_says_nothing_unless_it_is_asked_to() -> None:
    async with running(cpus=2) as made:
        reader = await made.remote.open_reader(0)
        await start_with(made.remote, "selftest")
        made.remote.write_event(0, 1)
        assert texts(parse_lines(all_text(reader))) == ["selftest id=1"]


@pytest.mark.mount
@pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")
def test_lines_come_through_a_mount(tmp_path: Path) -> None:
    with mounted(tmp_path, "cpus=2,workload=guest") as mount:
        mount.write("buffer_size_kb", "64")
        mount.write("events/hypervisor/hyp_printk/enable", "1")
        mount.write("tracing_on", "1")
        said = texts(parse_lines(mount.cat_for(2, "trace_pipe").decode()))
    assert re.fullmatch(r"hyp_printk tracing on: 2 CPUs, \d+ KiB shared", said[0])
    assert any(re.fullmatch(r"hyp_printk vCPU \d+ loaded on CPU [01]", line) for line in said)
    assert not any("Unknown" in line or "SHORT" in line for line in said)


# --- replay -------------------------------------------------------------------------------

_PIPE = """\
[000]	    1.000000: hyp_enter reason=hvc vcpu=0
[000]	    1.010000: hyp_printk vCPU -3 loaded on CPU 1
[000]	    1.020000: hyp_printk load of 0x7000, 4096 bytes: refused: -16
[000]	    1.030000: hyp_printk something that nobody knows
[000]	    1.040000: hyp_printk Unknown hyp_string_fmt ID 9
[000]	    1.050000: hyp_exit reason=eret_host vcpu=0
"""


def test_lines_of_known_formats_are_replayed_and_others_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pipe.txt"
    path.write_text(_PIPE, encoding="ascii")
    with caplog.at_level(logging.WARNING):
        [script] = load_workload(f"replay:{path}", 2).scripts.values()
    assert script[1:-1] == [
        Step(10_000_000, "hyp_printk", ("vCPU %d loaded on CPU %u\n", -3, 1)),
        Step(
            20_000_000,
            "hyp_printk",
            ("load of 0x%llx, %llu bytes: refused: %d\n", 0x7000, 4096, -16),
        ),
    ]
    assert caplog.messages[0].endswith("2 unknown events left out")


async def test_replayed_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pipe.txt"
    path.write_text(_PIPE, encoding="ascii")
    async with running(f"replay:{path}", cpus=2) as made:
        reader = await made.remote.open_reader(0)
        await start_with(made.remote, "hyp_printk")
        await reader.wait()
        said: list[str] = []
        while len(said) < 5:
            said += texts(parse_lines(all_text(reader)))
            await reader.wait()
    assert said[1:5] == [line.split(": ", 1)[1] for line in _PIPE.splitlines()[1:3]] * 2
