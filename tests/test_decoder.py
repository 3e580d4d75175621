"""The decoder itself, on pages made by hand."""

from __future__ import annotations

import struct

import pytest

from tests.decoder import PAGE_SIZE, Decoder, RawEvent, RawLost

_FORMAT = (
    "name: selftest\nID: 3\nformat:\n"
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n"
    "\tfield:u64 id;\toffset:8;\tsize:8;\tsigned:0;\n\n"
    'print fmt: "id=%llu", REC->id\n'
)
_PAYLOAD = struct.pack("<H6xQ", 3, 42)


def _page(data: bytes, flags: int = 0, behind: bytes = b"") -> bytes:
    image = struct.pack("<QQ", 1000, len(data) | flags) + data + behind
    return image.ljust(PAGE_SIZE, b"\0")


def _long(delta: int) -> bytes:
    return struct.pack("<II", delta << 5, len(_PAYLOAD) + 4) + _PAYLOAD


def _event(time: int) -> RawEvent:
    return RawEvent(time, "selftest", {"id": 42})


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        pytest.param(_page(b""), [], id="empty"),
        pytest.param(_page(_long(0) + _long(5)), [_event(1000), _event(1005)], id="long-form"),
        pytest.param(
            _page(struct.pack("<I", 4 | 7 << 5) + _PAYLOAD), [_event(1007)], id="short-form"
        ),
        pytest.param(
            _page(struct.pack("<II", 30 | 1 << 5, 2) + _long(3)),
            [_event(1000 + 2 * 2**27 + 1 + 3)],
            id="time-extend",
        ),
        pytest.param(
            _page(struct.pack("<II", 31 | 9 << 5, 0) + _long(1)), [_event(10)], id="time-stamp"
        ),
        pytest.param(_page(_long(0) + struct.pack("<II", 29, 0)), [_event(1000)], id="padding"),
        pytest.param(_page(_long(0), 1 << 31), [RawLost(None), _event(1000)], id="lost"),
        pytest.param(
            _page(_long(0), 3 << 30, struct.pack("<Q", 6)),
            [RawLost(6), _event(1000)],
            id="lost-stored",
        ),
    ],
)
def test_page_decodes_as_the_specification_says(
    page: bytes, expected: list[RawEvent | RawLost]
) -> None:
    assert list(Decoder([_FORMAT]).pages(page)) == expected
