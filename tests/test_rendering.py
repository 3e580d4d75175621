"""Print formats, compiled and run: the lines that come out, against printf(3)."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor_model import EventInfo, FieldInfo, SymbolTable
from hyptracefs.events import compile_events
from hyptracefs.ring_buffer import PAGE_SIZE, Carry, Geometry, Memory, RenderTable, RingBuffer

_META = struct.Struct("<IIIIQIIQQQ")  # SPEC A.1, up to `overrun`
_ALL = 1 << 16


@contextmanager
def _buffer_with(payload: bytes, table: RenderTable) -> Iterator[RingBuffer]:
    """A buffer of one CPU with one event, on the page that the reader owns."""
    geometry = Geometry(1, 3)
    memory = Memory(geometry.size)
    event = struct.pack("<II", 0, len(payload) + 4) + payload
    meta = _META.pack(PAGE_SIZE, 88, PAGE_SIZE, 3, 0, 0, 0, 0, 1, 0)
    os.pwrite(memory.fd, meta, geometry.meta(0))
    os.pwrite(memory.fd, struct.pack("<QQ", 0, len(event)) + event, geometry.page(0, 0))
    buffer = RingBuffer(memory, geometry, table, 0, 0)
    try:
        yield buffer
    finally:
        buffer.close()


def _line(info: EventInfo, tables: Sequence[SymbolTable], payload: bytes) -> str:
    """What is printed behind the time, for one event."""
    with _buffer_with(payload, RenderTable(compile_events([info], tables))) as buffer:
        buffer.poll()
        text = bytes(buffer.read_text(0, Carry(), _ALL)).decode("ascii")
    before = "[000]\t    0.000000: "
    assert text.startswith(before)
    assert text.endswith("\n")
    return text[len(before) : -1]


def _show(print_fmt: str, field: FieldInfo, value: int, *tables: SymbolTable) -> str:
    """What `print_fmt` gives for an event with one field, `a`."""
    data = value.to_bytes(field.size, "little", signed=field.signed)
    payload = struct.pack("<H", 1).ljust(field.offset, b"\xee") + data
    line = _line(EventInfo(1, "e", (field,), print_fmt), tables, payload)
    assert line.startswith("e ")
    return line[2:]


def _field(size: int, signed: bool) -> FieldInfo:
    return FieldInfo("int", "a", 8, size, signed)


# --- numbers ----------------------------------------------------------------------------------

_LIBC = ctypes.CDLL(None)
_LENGTHS = {"hh": 1, "h": 2, "": 4, "l": 8, "ll": 8, "z": 8}


def _printf(conversion: str, value: int) -> str:
    """What printf(3) makes of a value of 64 bits."""
    out = ctypes.create_string_buffer(512)
    _LIBC.snprintf(out, len(out), conversion.encode(), ctypes.c_uint64(value % 2**64))
    return out.value.decode()


def _as_type(value: int, size: int, signed: bool) -> int:
    value %= 1 << 8 * size
    return value - (1 << 8 * size) if signed and value >> (8 * size - 1) else value


def _as_printed(field: FieldInfo, value: int, length: str, letter: str) -> int:
    """`value` of `field` as the conversion sees it, by C and by what we say to do otherwise."""
    size = _LENGTHS[length]
    if letter in "di":
        # Otherwise: 8 bytes are never cut by %d, only by %hd and %hhd.
        return _as_type(value, size if "h" in length else max(size, field.size), signed=True)
    # Otherwise: a negative value has as many bits as its field.
    return _as_type(value, min(size, field.size) if "h" in length else field.size, signed=False)


@st.composite
def _values(draw: st.DrawFn) -> tuple[FieldInfo, int]:
    field = _field(draw(st.sampled_from([1, 2, 4, 8])), draw(st.booleans()))
    bits = 8 * field.size
    near = st.sampled_from([0, 1, 1 << (bits - 1), (1 << bits) - 1, (1 << bits) - 2])
    held = draw(near | st.integers(0, (1 << bits) - 1))
    return field, _as_type(held, field.size, field.signed)


@given(
    _values(),
    st.sampled_from(["", "0", "-", "-0"]),
    st.integers(0, 40) | st.just(255),
    st.sampled_from([*_LENGTHS]),
    st.sampled_from("diux"),
)
def test_number_is_what_printf_makes_of_it(
    of: tuple[FieldInfo, int], flags: str, width: int, length: str, letter: str
) -> None:
    field, value = of
    aligned = f"%{flags}{width or ''}"
    expected = _printf(f"{aligned}ll{letter}", _as_printed(field, value, length, letter))
    assert _show(f'"<{aligned}{length}{letter}>", REC->a', field, value) == f"<{expected}>"


@given(_values(), st.sampled_from(["#0", "#-", "#"]), st.sampled_from([0, 1, 2, 3, 18, 255]))
def test_hexadecimal_with_its_prefix_is_what_the_kernel_makes_of_it(
    of: tuple[FieldInfo, int], flags: str, width: int
) -> None:
    field, value = of
    if flags == "#":
        width = 0
    shown = _as_type(value, field.size, signed=False)
    expected = _printf(f"%{flags}{width or ''}llx", shown)
    if shown == 0:  # printf(3) has no prefix for it, the kernel has
        digits = "0".rjust(max(width - 2, 1), "0") if "0" in flags else "0"
        expected = f"0x{digits}".ljust(width)
    assert _show(f'"{"%"}{flags}{width or ""}lx", REC->a', field, value) == expected


@given(_values())
def test_pointer_has_16_digits(of: tuple[FieldInfo, int]) -> None:
    field, value = of
    shown = f"{_as_type(value, field.size, signed=False):016x}"
    assert _show('"%p %px", REC->a, (void *)REC->a', field, value) == f"{shown} {shown}"


@pytest.mark.parametrize(
    ("value", "shown"), [(65, "A"), (32, " "), (0, r"\x00"), (10, r"\x0a"), (255, r"\xff")]
)
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("high", [0, 0x4100])
def test_character_is_the_low_byte(value: int, shown: str, size: int, high: int) -> None:
    held = (value | high) % (1 << 8 * size)
    assert _show('"<%c>", REC->a', _field(size, signed=False), held) == f"<{shown}>"


@pytest.mark.parametrize(("print_fmt", "shown"), [("%3c", "  A"), ("%-3c", "A  "), ("%03c", "  A")])
def test_character_is_padded_with_blanks(print_fmt: str, shown: str) -> None:
    assert _show(f'"{print_fmt}", REC->a', _field(1, signed=True), 65) == shown


# --- symbols ------------------------------------------------------------------------------------

_SYMBOLIC = '"%s", __print_symbolic(REC->a, { 0, "smc" }, { 0x3, "hvc" }, { -1, "none" })'


@pytest.mark.parametrize(
    ("size", "signed", "value", "shown"),
    [
        (1, False, 0, "smc"),
        (1, False, 3, "hvc"),
        (1, False, 255, "0xff"),
        (1, True, -1, "none"),
        (1, True, -2, "0xfffffffffffffffe"),
        (4, False, 3, "hvc"),
        (4, False, 1, "0x1"),
        (4, False, 255, "0xff"),
        (4, False, 256, "0x100"),
        (4, False, 2**32 - 1, "0xffffffff"),
    ],
)
def test_symbolic_value_is_what_the_kernel_prints(
    size: int, signed: bool, value: int, shown: str
) -> None:
    assert _show(_SYMBOLIC, _field(size, signed), value) == shown


@pytest.mark.parametrize("size", [4, 8])
def test_value_without_a_name_is_its_number_with_its_sign(size: int) -> None:
    symbolic = '"<%5s>", __print_symbolic(REC->a, { 2, "two" })'
    assert _show(symbolic, _field(size, signed=True), -2) == "<0xfffffffffffffffe>"
    assert _show(symbolic, _field(size, signed=True), 1) == "<  0x1>"
    assert _show(symbolic, _field(size, signed=True), 2) == "<  two>"


_NAMES = SymbolTable("name_of", ((2, "two"), (4, "four")), "?")


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "?"), (2, "two"), (3, "?"), (4, "four"), (5, "?"), (2**64 - 1, "?")]
)
def test_value_without_a_name_is_the_fallback(value: int, shown: str) -> None:
    assert _show('"%s", name_of(REC->a)', _field(8, signed=False), value, _NAMES) == shown


@pytest.mark.parametrize(
    ("print_fmt", "shown"), [("%6s", "  four"), ("%-6s", "four  "), ("%06s", "  four")]
)
def test_symbol_is_padded_with_blanks(print_fmt: str, shown: str) -> None:
    assert _show(f'"{print_fmt}", name_of(REC->a)', _field(2, signed=False), 4, _NAMES) == shown


# --- strings --------------------------------------------------------------------------------------


def _show_string(conversion: str, held: bytes, kind: str = "char[12]") -> str:
    """What a char array that holds `held` gives."""
    info = EventInfo(1, "e", (FieldInfo(kind, "a", 2, 12, signed=True),), f'"{conversion}", REC->a')
    return _line(info, [], struct.pack("<H12s", 1, held)).removeprefix("e ")


@given(st.binary(min_size=12, max_size=12))
def test_string_ends_with_its_zero_byte_or_its_field(held: bytes) -> None:
    shown = "".join(chr(code) if 32 <= code < 127 else "." for code in held.partition(b"\0")[0])
    assert _show_string("<%s>", held) == f"<{shown}>"


@pytest.mark.parametrize(
    ("conversion", "kind", "shown"),
    [
        ("<%8s>", "char[12]", "<    qemu>"),
        ("<%-8s>", "char [12]", "<qemu    >"),
        ("<%08s>", "u8[12]", "<    qemu>"),
        ("<%2s>", "unsigned char[12]", "<qemu>"),
    ],
)
def test_string_is_padded_with_blanks(conversion: str, kind: str, shown: str) -> None:
    assert _show_string(conversion, b"qemu\0left over"[:12], kind) == shown


def test_upper_case_is_in_upper_case() -> None:
    assert (
        _show('"%X %#010llX", REC->a, REC->a', _field(8, signed=False), 0xBEEF) == "BEEF 0X0000BEEF"
    )


# --- raw ------------------------------------------------------------------------------------------

_FIELDS = (
    FieldInfo("u16", "a", 2, 2, signed=False),
    FieldInfo("int", "b", 4, 4, signed=True),
    FieldInfo("u64", "c", 8, 8, signed=False),
    FieldInfo("s64", "d", 16, 8, signed=True),
    FieldInfo("char[32]", "e", 24, 32, signed=True),
)
_PAYLOAD = struct.pack("<HHiQq32s", 1, 65535, -7, 0xFFFF800000001000, -1, b"text")
_RAW = "e a=65535 b=-7 c=0xffff800000001000 d=-1 e=[32 bytes]"


@pytest.mark.parametrize(
    "print_fmt",
    [
        pytest.param('"%pS", REC->c', id="conversion"),
        pytest.param('"%s", __get_str(e)', id="argument"),
        pytest.param("", id="nothing"),
        pytest.param(f'"{"x" * 4000}"', id="text-too-long"),
        pytest.param(f'"{"%255d" * 16}"{", REC->b" * 16}', id="numbers-too-wide"),
        pytest.param('"%s", __print_symbolic(REC->c, { 4096, "x" })', id="symbol-too-large"),
    ],
)
def test_what_cannot_be_rendered_is_shown_raw_and_said_once(
    print_fmt: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert _line(EventInfo(1, "e", _FIELDS, print_fmt), [], _PAYLOAD) == _RAW
    [message] = caplog.messages
    assert re.match(r"event e: .*: shown raw$", message)


def test_what_cannot_be_rendered_raw_either_is_shown_by_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = tuple(
        FieldInfo("int", f"{'x' * 60}{nr}", 2 + nr, 1, signed=True) for nr in range(10, 70)
    )
    assert _line(EventInfo(1, "e", fields, "?"), [], struct.pack("<H", 1).ljust(100)) == "e"
    assert caplog.messages[1:] == ["event e: its lines could be too long: shown by its name alone"]


def test_event_that_cannot_be_rendered_at_all_is_unknown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = _line(EventInfo(1, "e" * 5000, (), '""'), [], struct.pack("<H", 1))
    assert line == "UNKNOWN id=1"
    assert caplog.messages[-1].endswith("e: its lines could be too long: shown as an unknown one")


def test_symbols_of_all_events_together_have_their_limit() -> None:
    fields = (_field(8, signed=False),)
    infos = [
        EventInfo(nr, "e", fields, f'"%s", __print_symbolic(REC->a, {{ 4095, "{nr}" }})')
        for nr in range(1, 260)
    ]
    payload = struct.pack("<H6xQ", 259, 4095)
    with _buffer_with(payload, RenderTable(compile_events(infos, []))) as buffer:
        buffer.poll()
        assert bytes(buffer.read_text(0, Carry(), _ALL)).endswith(b": e a=0xfff\n")
