"""trace_pipe_raw's page images, read by a decoder that shares no code with their maker."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hyptracefs.clock import Conversion, Snapshot
from hyptracefs.remote import Remote
from hyptracefs.ring_buffer import ALL_CPUS, PAGE_SIZE, clock_snapshot
from tests.decoder import Decoder, RawEvent, RawLost, as_text
from tests.support import (
    Running,
    all_raw,
    assert_conserved,
    parse_lines,
    selftests,
    start_with,
    texts,
    write_ids,
)

pytestmark = pytest.mark.jumping_clock


def _decoded(remote: Remote, images: bytes) -> list[RawEvent | RawLost]:
    return list(Decoder(event.format() for event in remote.events).pages(images))


def _texts(decoded: list[RawEvent | RawLost]) -> list[str]:
    return [as_text(each) for each in decoded if isinstance(each, RawEvent)]


@pytest.mark.parametrize("written", [1, 170, 171, 1_000])
@pytest.mark.parametrize("size", [1, 1000, PAGE_SIZE, 3 * PAGE_SIZE + 5, 1 << 20])
async def test_images_hold_the_events_in_pieces_of_any_size(
    remote: Remote, written: int, size: int
) -> None:
    await start_with(remote, "selftest", size_kb=64)
    write_ids(remote, range(written))
    reader = await remote.open_reader(0)
    decoded = _decoded(remote, all_raw(reader, size))
    assert _texts(decoded) == selftests(range(written))
    assert len(decoded) == written  # nothing lost
    assert_conserved(remote)


async def test_images_are_full(remote: Remote) -> None:
    await start_with(remote, "selftest", size_kb=64)
    write_ids(remote, range(500))
    reader = await remote.open_reader(0)
    assert len(all_raw(reader)) == 3 * PAGE_SIZE  # 170 events fit one page


async def test_image_says_how_many_events_were_lost(remote: Remote) -> None:
    await start_with(remote, "selftest", size_kb=7)
    write_ids(remote, range(816))
    reader = await remote.open_reader(0)
    first, *decoded = _decoded(remote, all_raw(reader))
    # A full page, 170 events of 24 bytes of 4080, has no room for the count.
    assert first == RawLost(None)
    assert _texts(decoded) == selftests(range(510, 816))


async def test_image_with_room_has_the_count_of_lost_events(remote: Remote) -> None:
    reader = await remote.open_reader(1)
    await start_with(remote, "hyp_enter", "hyp_exit", "selftest")
    # Events of 16, 24 and 16 bytes: some pages end with 8 bytes to spare.
    write_ids(remote, range(500), cpu=1)
    stats = remote.statistics().cpus[1]
    assert stats.overrun > 0
    first, *decoded = _decoded(remote, all_raw(reader))
    assert first == RawLost(stats.overrun)
    assert len(_texts(decoded)) == len(decoded) == stats.unread


async def test_raw_goes_on_where_text_has_ended(remote: Remote) -> None:
    await start_with(remote, "selftest")
    write_ids(remote, range(100))
    reader, raw = await remote.open_reader(0), await remote.open_reader(0)
    begun = texts(parse_lines(bytes(reader.try_read_text(35 * 30)).decode()))
    assert 0 < len(begun) < 100
    assert begun + _texts(_decoded(remote, all_raw(raw))) == selftests(range(100))


async def test_images_of_all_cpus_come_by_the_time_of_their_first_event(remote: Remote) -> None:
    await start_with(remote, "selftest", size_kb=64)
    for number in range(1_000):
        write_ids(remote, [number], cpu=number // 170 % 2)
    reader = await remote.open_reader(ALL_CPUS)
    assert _texts(_decoded(remote, all_raw(reader))) == selftests(range(1_000))


@pytest.mark.parametrize("ns", [1, 2**20, 2**28, 2**31])
async def test_any_distance_of_events_is_decoded(idle: Running, ns: int) -> None:
    """A clock that runs `ns` per cycle: from 2^20 on, deltas need TIME_EXTEND."""
    remote = idle.remote
    await start_with(remote, "selftest", size_kb=64)
    before = clock_snapshot().cycles
    idle.calls.update_clock(Conversion(ns, 0, Snapshot(0, before)))
    write_ids(remote, range(300))
    after = clock_snapshot().cycles
    reader = await remote.open_reader(0)
    decoded = _decoded(remote, all_raw(reader))
    assert _texts(decoded) == selftests(range(300))
    times = [each.time for each in decoded if isinstance(each, RawEvent)]
    assert times[0] >= 0
    assert times[-1] <= (after - before) * ns
    # each time is a whole number of cycles, and they follow one another
    assert all(time % ns == 0 and time <= later for time, later in pairwise(times))


async def test_all_fields_of_all_events_are_decoded(remote: Remote) -> None:
    reader = await remote.open_reader(1)
    await start_with(remote, "hyp_enter", "hyp_exit", "selftest")
    write_ids(remote, [9, 2**64 - 1], cpu=1)
    assert _texts(_decoded(remote, all_raw(reader))) == [
        line
        for number in (9, 2**64 - 1)
        for line in (
            "hyp_enter reason=hvc vcpu=0",
            f"selftest id={number}",
            "hyp_exit reason=eret_host vcpu=0",
        )
    ]
