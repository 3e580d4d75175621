"""The recorded session, played by a real thread at its real pace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from hypervisor_model import load_workload
from hyptracefs.remote import Reader, Remote
from hyptracefs.ring_buffer import clock_snapshot
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
