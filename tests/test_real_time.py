"""The recorded session, played by a real thread at its real pace."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import pytest

from hypervisor_model import load_workload
from hyptracefs.clock import Conversion, Snapshot
from hyptracefs.remote import Reader, Remote
from hyptracefs.ring_buffer import Counter, clock_snapshot
from tests.decoder import Decoder, RawEvent, RawLost, as_text
from tests.support import (
    Line,
    LostLine,
    Running,
    all_raw,
    all_text,
    assert_conserved,
    is_circle_of,
    parse_lines,
    raises_errno,
    recorded_texts,
    running,
    start_with,
    step_text,
    write_ids,
)

_T = TypeVar("_T")

_TURN = 3864
_TURNS = 2

# How far the calibrated clock may be from boot time; it is some microseconds.
_CLOCK_NS = 10_000_000


async def _collect(
    reader: Reader, read: Callable[[Reader], Sequence[_T]], at_least: int
) -> list[_T]:
    collected: list[_T] = []
    while len(collected) < at_least:
        await reader.wait()
        collected += read(reader)
    return collected


async def _play(
    made: Running, read: Callable[[Reader], Sequence[_T]], size_kb: int = 64
) -> list[_T]:
    """What a reader of CPU 1 sees of two turns of the recording."""
    await made.remote.set_size(size_kb)
    reader = await made.remote.open_reader(1)
    await start_with(made.remote, "hyp_enter", "hyp_exit")
    collected = await _collect(reader, read, _TURNS * _TURN)
    await made.remote.stop_tracing()
    collected += read(reader)
    assert_conserved(made.remote)
    return collected


def _read_text(reader: Reader) -> list[Line | LostLine]:
    return parse_lines(all_text(reader))


def _raw_reader(remote: Remote) -> Callable[[Reader], list[RawEvent | RawLost]]:
    decoder = Decoder(event.format() for event in remote.events)
    return lambda reader: list(decoder.pages(all_raw(reader)))


def _begin() -> list[str]:
    """The first turn, as scripted."""
    return [step_text(step) for step in load_workload("replay", 2).scripts[1]]


async def test_text_goes_round_the_recording_with_nothing_lost() -> None:
    async with running("replay", poll_ms=1) as made:
        lines = await _play(made, _read_text)
    assert not any(isinstance(line, LostLine) for line in lines)
    events = [line for line in lines if isinstance(line, Line)]
    played = [line.text for line in events]
    assert played[:_TURN] == _begin()
    assert is_circle_of(played, recorded_texts())
    assert {line.cpu for line in events} == {1}
    times = [line.usec for line in events]
    assert times == sorted(times)


async def test_images_go_round_the_recording_with_nothing_lost() -> None:
    async with running("replay", poll_ms=1) as made:
        decoded = await _play(made, _raw_reader(made.remote))
    assert not any(isinstance(each, RawLost) for each in decoded)
    events = [each for each in decoded if isinstance(each, RawEvent)]
    played = [as_text(event) for event in events]
    assert played[:_TURN] == _begin()
    assert is_circle_of(played, recorded_texts())
    times = [event.time for event in events]
    assert times == sorted(times)


@pytest.mark.parametrize("size_kb", [1, 7])
async def test_small_buffer_may_lose_events_but_says_how_many(size_kb: int) -> None:
    async with running("replay") as made:
        lines = await _play(made, _read_text, size_kb)
        # of the events that were ever written, each is in a line, or in a LOST line
        stats = made.remote.statistics().cpus[1]
    lost = sum(line.lost for line in lines if isinstance(line, LostLine))
    read = sum(isinstance(line, Line) for line in lines)
    assert (read, lost) == (stats.read, stats.overrun)
    assert read + lost == stats.entries


async def test_stopped_replay_goes_on_from_its_beginning() -> None:
    async with running("replay", poll_ms=1) as made:
        for _ in range(2):
            reader = await made.remote.open_reader(1)
            await start_with(made.remote, "hyp_enter", "hyp_exit")
            lines = await _collect(reader, _read_text, 1)
            await made.remote.stop_tracing()
            reader.close()
            played = [line.text for line in lines if isinstance(line, Line)]
            assert played == _begin()[: len(played)]
            made.remote.reset()


async def test_times_are_boot_time() -> None:
    async with running("idle") as made:
        await start_with(made.remote, "selftest")
        reader = await made.remote.open_reader(0)
        before = clock_snapshot().boot
        write_ids(made.remote, range(10))
        after = clock_snapshot().boot
        events = _raw_reader(made.remote)(reader)
    times = [event.time for event in events if isinstance(event, RawEvent)]
    assert before - _CLOCK_NS <= times[0]
    assert times == sorted(times)
    assert times[-1] <= after + _CLOCK_NS


# --- the clock ------------------------------------------------------------------------------


@pytest.mark.parametrize("counter", Counter)
def test_snapshot_lies_where_it_says(counter: Counter) -> None:
    """Its boot time, give or take its error, is between two others that are read around it."""
    for _ in range(200):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        taken = clock_snapshot(counter)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert taken.error > 0
        assert before <= taken.boot <= after
        assert taken.boot + taken.error >= before
        assert taken.boot - taken.error <= after


def test_raw_counter_is_that_of_the_kernel() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    taken = clock_snapshot(Counter.MONOTONIC_RAW)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    assert before <= taken.cycles <= after


@pytest.mark.parametrize("counter", Counter)
def test_snapshots_follow_one_another(counter: Counter) -> None:
    taken = [clock_snapshot(counter) for _ in range(200)]
    assert all(one.cycles < other.cycles for one, other in pairwise(taken))
    assert all(one.boot - one.error <= other.boot + other.error for one, other in pairwise(taken))


@pytest.mark.parametrize("counter", [0, 3, 2**32 - 1])
def test_counter_that_is_not_known_is_refused(counter: int) -> None:
    with raises_errno(errno.EINVAL):
        clock_snapshot(counter)


def _faster_and_faster(conversion: Conversion) -> Conversion:
    """Begins where `conversion` stands, and is faster.

    So time does not go back, whenever the writer takes up which; only half of an update
    would show.
    """
    cycles = clock_snapshot().cycles
    begin = Snapshot(conversion.to_ns(cycles) + 1, cycles)
    return Conversion(conversion.mult + 16, conversion.shift, begin)


async def test_time_never_goes_back_while_the_clock_is_updated_all_the_time() -> None:
    async with running("replay", poll_ms=1) as made:
        reader = await made.remote.open_reader(1)
        await start_with(made.remote, "hyp_enter", "hyp_exit")
        read = _raw_reader(made.remote)
        now = clock_snapshot()
        conversion = Conversion(1 << 20, 20, now._replace(boot=2 * now.boot))
        made.calls.update_clock(conversion)
        decoded: list[RawEvent | RawLost] = []
        # The recording's pace decides how many that are; the host's own updates are none of them:
        # nothing here waits, so that its clock's task does not run.
        while len(decoded) < 1_000:
            conversion = _faster_and_faster(conversion)
            made.calls.update_clock(conversion)
            decoded += read(reader)
        await made.remote.stop_tracing()
    times = [event.time for event in decoded if isinstance(event, RawEvent)]
    assert times == sorted(times)
