"""Numbers as the kernel parses them: the reference's answers, and properties."""

from __future__ import annotations

import errno
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyptracefs.kstrto import kstrtou8, kstrtoull, parse_switch
from tests.support import GoldenWrite, golden_writes, raises_errno


def _parses(write: GoldenWrite) -> bool:
    """Whether the reference's answer to `write` came from parsing, not from what it means."""
    meant = not write.data.strip(b"0") or write.data in {
        b"18014398509481984",
        b"18446744073709551615",
    }
    return write.path != "buffer_size_kb" or not (meant and write.data)


_ULONGS = [
    write
    for write in (
        *golden_writes("buffer_size_kb, unloaded", "buffer_size_kb"),
        *golden_writes("tracing_on", "tracing_on"),
        *golden_writes("write_event", "write_event"),
    )
    if _parses(write)
]
_BYTES = golden_writes("events/<remote>/selftest/enable and events/enable", "events/enable")

_ULONG_MAX = 2**64 - 1


@pytest.mark.parametrize("write", _ULONGS, ids=repr)
def test_kstrtoull_answers_as_the_reference(write: GoldenWrite) -> None:
    if write.errno:
        with raises_errno(write.errno):
            kstrtoull(write.data)
    else:
        assert kstrtoull(write.data) == int(write.data.split(b"\0")[0])


@pytest.mark.parametrize("write", _BYTES, ids=repr)
def test_kstrtou8_answers_as_the_reference(write: GoldenWrite) -> None:
    if write.errno:
        with raises_errno(write.errno):
            kstrtou8(write.data)
    else:
        assert kstrtou8(write.data) == int(write.data)


@given(
    st.integers(0, _ULONG_MAX),
    st.sampled_from(["", "+", "0", "+00"]),
    st.sampled_from(["", "\n", "\0", "\n\0x"]),
)
def test_kstrtoull_reads_back_any_unsigned_long(number: int, before: str, behind: str) -> None:
    assert kstrtoull(f"{before}{number}{behind}".encode()) == number


@given(st.integers(_ULONG_MAX + 1, 10**60))
def test_kstrtoull_refuses_more_than_an_unsigned_long(number: int) -> None:
    with raises_errno(errno.ERANGE):
        kstrtoull(b"%d\n" % number)


@given(st.integers(256, _ULONG_MAX))
def test_kstrtou8_refuses_more_than_a_byte(number: int) -> None:
    with raises_errno(errno.ERANGE):
        kstrtou8(b"%d" % number)


@given(st.binary(max_size=60))
def test_kstrtoull_gives_a_number_or_einval_or_erange_for_any_bytes(data: bytes) -> None:
    number = re.fullmatch(rb"\+?([0-9]+)\n?", data.split(b"\0")[0])
    if number is None:
        with raises_errno(errno.EINVAL):
            kstrtoull(data)
    elif int(number[1]) > _ULONG_MAX:
        with raises_errno(errno.ERANGE):
            kstrtoull(data)
    else:
        assert kstrtoull(data) == int(number[1])


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"0", False), (b"1", True), (b"0\n", False), (b"1\n", True), (b"1x", True), (b"10", True)],
)
def test_switch_is_one_or_two_bytes_that_begin_with_0_or_1(data: bytes, expected: bool) -> None:
    assert parse_switch(data) is expected


@pytest.mark.parametrize("data", [b"", b"2", b"X", b"on", b"10\n", b"256\n", b"\n1", b" 1", b"\0"])
def test_switch_refuses_anything_else(data: bytes) -> None:
    with raises_errno(errno.EINVAL):
        parse_switch(data)
