"""The soak, for some seconds: scripts/soak is the same for minutes."""

from __future__ import annotations

import struct

import pytest

from tests.mounts import can_mount
from tests.soak import PAGE, parse_pages, parse_text, plan, soak


@pytest.mark.mount
@pytest.mark.skipif(not can_mount(), reason="needs root and /dev/fuse")
def test_nothing_is_violated_in_a_phase_of_each_kind() -> None:
    run = soak(seconds=0, seed=1, rate="5000", phase_s=3)
    assert run.violations == []
    assert run.counts["phases"] == 3
    assert run.counts["events"] > 0


def test_the_plan_is_the_same_for_the_same_seed() -> None:
    assert plan(7, 5, 4) == plan(7, 5, 4)
    assert plan(7, 5, 4) != plan(8, 5, 4)
    assert [plan(1, number, 1).kind for number in range(4)] == [
        "gentle",
        "rough",
        "chaos",
        "gentle",
    ]


_LINE = b"[001]\t   12.000001: hyp_exit reason=eret_host vcpu=0\n"


def test_text_is_counted_and_checked() -> None:
    got = parse_text(b"CPU:1 [LOST 5 EVENTS]\n" + _LINE + _LINE + _LINE[:10])
    assert (got.events, got.lost) == ({1: 2}, {1: 5})
    with pytest.raises(ValueError, match="backwards"):
        parse_text(_LINE + _LINE.replace(b"12.", b"11."))
    with pytest.raises(ValueError, match="malformed"):
        parse_text(_LINE[5:] + _LINE)


def _page(stamp: int, commit: int, data: bytes) -> bytes:
    return (struct.pack("<QQ", stamp, commit) + data).ljust(PAGE, b"\0")


_EVENT = struct.pack("<IIQ", 0, 12, 6)
_LATER = struct.pack("<II", 30, 1) + _EVENT  # behind a time extend


def test_pages_are_counted_and_checked() -> None:
    data = _EVENT + _LATER
    stored = _page(5, len(data) | 3 << 30, data + struct.pack("<Q", 9))
    got = parse_pages(1, stored + _page(6, len(data) | 1 << 31, data) + b"a part")
    assert (got.events, got.lost, got.uncounted) == ({1: 4}, {1: 9}, {1})
    with pytest.raises(ValueError, match="stamp 4 after 5"):
        parse_pages(1, stored + _page(4, len(data), data))
    with pytest.raises(ValueError, match="ends at"):
        parse_pages(1, _page(1, len(data) - 4, data))
