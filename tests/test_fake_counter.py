"""The estimator and the hypervisor's clock in C, together, on a counter that misbehaves."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyptracefs.clock import ClockEstimator, Conversion, Snapshot, mult_shift

_OURS = Path(__file__).parents[1] / "ringbuf_c"

_SECOND = 1_000_000_000
_FIRST_NS = _SECOND // 10
_PERIOD_NS = _SECOND // 2
_PUBLISH_NS = 1_000_000  # so long a conversion may take from its snapshot into use

_RATES = [1_000, 32_768, 1_000_000, 24_000_000, 387_238_242, 1_000_000_000, 10_000_000_000]
_ANY_RATE = st.one_of(st.sampled_from(_RATES), st.integers(1_000, 10_000_000_000))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    made = tmp_path_factory.mktemp("clock") / "clock_shim.so"
    sources = (_OURS / "tests" / "clock_shim.c", _OURS / "src" / "clock.c")
    options = ("-std=gnu11", "-O1", "-fPIC", "-shared", f"-I{_OURS / 'include'}")
    subprocess.run([os.environ.get("CC", "cc"), *options, *sources, "-o", made], check=True)
    loaded = ctypes.CDLL(str(made))
    u32, u64 = ctypes.c_uint32, ctypes.c_uint64
    loaded.shim_clear.restype = loaded.shim_update.restype = None
    loaded.shim_update.argtypes = [u32, u32, u64, u64]
    loaded.shim_now.argtypes = [u64]
    loaded.shim_now.restype = u64
    return loaded


class Period(NamedTuple):
    """What happens between two ticks, in this order."""

    ppm: int = 0  # how much faster than nominal the counter runs
    jump: int = 0  # ns worth of cycles that the counter jumps
    stop: int = 0  # ns that it stands still at the end
    suspend: int = 0  # ns that boot time jumps
    error: int = 0  # ns that the snapshot's boot time is wrong by
    delay: int = 0  # ns until the hypervisor uses what follows from the snapshot


_CALM = Period()


class Bench:
    """A counter, the boot clock, an estimator that looks at both, and a writer's clock."""

    def __init__(
        self, library: ctypes.CDLL, rate: int, cycles: int = 123_456, claimed_hz: int = 0
    ) -> None:
        self._library = library
        self._rate = rate
        self._cycles = Fraction(cycles)
        self.boot = 50 * _SECOND
        self._conversion: Conversion | None = None
        self._set_back = False  # since the last update: nobody can tell the time
        # times of events as they are written; anew after the counter was set back
        self.stretches: list[list[int]] = [[]]
        self.off: list[int] = []  # ns that the clock is ahead of boot time, before each tick
        self._estimator = ClockEstimator(self._snapshot(0), claimed_hz)
        library.shim_clear()

    @property
    def _counter(self) -> int:
        return int(self._cycles) % 2**64

    def _snapshot(self, error: int) -> Snapshot:
        return Snapshot(self.boot + error, self._counter, abs(error))

    def _event(self) -> int:
        """Of the clock in C, which Python's must equal."""
        time: int = self._library.shim_now(self._counter)
        if self._conversion is not None:
            assert self._conversion.to_ns(self._counter) == time
            if not self._set_back:
                self.stretches[-1].append(time)
        return time

    def _pass(self, ns: int, ppm: int) -> None:
        """Time in which the writer writes: a little later, in the middle, at the end."""
        for part in (1, ns // 2, ns - ns // 2 - 1):
            self.boot += part
            self._cycles += Fraction(self._rate * (1_000_000 + ppm) * part, 10**6 * _SECOND)
            self._event()

    def _update(self, error: int, delay: int, ppm: int) -> None:
        conversion = self._estimator.tick(self._snapshot(error))
        self._pass(max(delay, 2), ppm)
        if conversion is None:
            return
        assert 0 < conversion.mult < 2**32
        assert 0 < conversion.shift <= 32
        self._library.shim_update(*conversion[:2], *conversion.epoch[:2])
        self._conversion = conversion
        if self._set_back:
            self.stretches.append([])
        self._set_back = False
        self._event()

    def play(self, *periods: Period) -> None:
        for ppm, jump, stop, suspend, error, delay in periods:
            length = _PERIOD_NS if self.off else _FIRST_NS
            self._pass(length - max(delay, 2) - stop, ppm)
            self._cycles += jump * self._rate // _SECOND
            self._set_back = self._set_back or jump < 0
            self._event()
            self.boot += stop + suspend
            self._event()
            self.off.append(self._event() - self.boot)
            self._update(error, delay, ppm)

    def assert_never_back(self) -> None:
        for times in self.stretches:
            assert all(time <= later for time, later in pairwise(times))


def _slack(rate: int) -> int:
    """ns that the clock may be off without anybody's fault: cycles are whole, mult is too."""
    return 1_000 + 30 * _SECOND // rate


# --- each fault by itself --------------------------------------------------------------------


@pytest.mark.parametrize("rate", _RATES)
@pytest.mark.parametrize("ppm", [-500, 0, 500])
def test_step_of_the_rate_is_followed_in_two_updates(
    library: ctypes.CDLL, rate: int, ppm: int
) -> None:
    bench = Bench(library, rate)
    bench.play(*[_CALM] * 5, *[Period(ppm=ppm)] * 5)
    # 500 ppm of half a second are 250 us; from the second update after the step on, nothing
    assert max(map(abs, bench.off[1:6])) <= 250_000 + _slack(rate)
    assert max(map(abs, bench.off[7:])) <= _slack(rate)
    bench.assert_never_back()


@pytest.mark.parametrize("rate", _RATES)
@pytest.mark.parametrize("sign", [-1, 1])
def test_slow_drift_is_hardly_seen(library: ctypes.CDLL, rate: int, sign: int) -> None:
    bench = Bench(library, rate)
    ramp = [*range(0, 500, 5), *range(500, -500, -5)]
    # 5 ppm of half a second, once for the rate and once for what it has cost
    bench.play(_CALM, _CALM, *(Period(ppm=sign * ppm) for ppm in ramp))
    assert max(map(abs, bench.off[1:])) <= _slack(rate) + 5_000
    bench.assert_never_back()


@pytest.mark.parametrize("rate", _RATES)
@pytest.mark.parametrize("jump", [1_000, 900_000, 3_000_000, _SECOND])
def test_counter_that_jumps_ahead_is_waited_for(library: ctypes.CDLL, rate: int, jump: int) -> None:
    bench = Bench(library, rate)
    bench.play(*[_CALM] * 3, Period(jump=jump), *[_CALM] * 12)
    assert max(map(abs, bench.off[-3:])) <= _slack(rate)
    bench.assert_never_back()


@pytest.mark.parametrize("rate", _RATES)
@pytest.mark.parametrize("jump", [-2 * _SECOND, -3_600 * _SECOND])
def test_counter_that_is_set_back_is_right_from_the_next_update_on(
    library: ctypes.CDLL, rate: int, jump: int
) -> None:
    bench = Bench(library, rate, cycles=rate * 10_000)
    bench.play(*[_CALM] * 3, Period(jump=jump), *[_CALM] * 3)
    assert max(map(abs, bench.off[4:])) <= _slack(rate)
    bench.assert_never_back()
    before, after = bench.stretches
    assert before[-1] <= after[0]


@pytest.mark.parametrize("rate", _RATES)
@pytest.mark.parametrize("stop", [10_000, 2_000_000, _PERIOD_NS - 10])
def test_counter_that_stops_for_a_while_is_caught_up_with(
    library: ctypes.CDLL, rate: int, stop: int
) -> None:
    bench = Bench(library, rate)
    bench.play(*[_CALM] * 3, Period(stop=stop), *[_CALM] * 5)
    assert max(map(abs, bench.off[-2:])) <= _slack(rate)
    bench.assert_never_back()


@pytest.mark.parametrize("rate", _RATES)
@pytest.mark.parametrize("suspend", [5_000_000, 3_600 * _SECOND])
@pytest.mark.parametrize("times", [1, 2])
def test_suspends_are_followed_at_once_and_are_no_rate(
    library: ctypes.CDLL, rate: int, suspend: int, times: int
) -> None:
    bench = Bench(library, rate)
    bench.play(*[_CALM] * 3, *[Period(suspend=suspend)] * times, *[_CALM] * 3)
    if suspend > _SECOND or times == 1:
        assert max(map(abs, bench.off[3 + times :])) <= _slack(rate)
    else:  # twice the same: it was believed to be the rate, for one update
        assert max(map(abs, bench.off[-1:])) <= _slack(rate) + suspend
    bench.assert_never_back()


@pytest.mark.parametrize("rate", _RATES)
def test_counter_may_wrap(library: ctypes.CDLL, rate: int) -> None:
    bench = Bench(library, rate, cycles=2**64 - rate)
    bench.play(*[_CALM] * 6)
    assert max(map(abs, bench.off[1:])) <= _slack(rate)
    bench.assert_never_back()


@pytest.mark.parametrize("wrong", [2_000_000, 50_000_000])
@pytest.mark.parametrize("sign", [-1, 1])
def test_rate_that_was_measured_wrong_at_first_is_corrected(
    library: ctypes.CDLL, wrong: int, sign: int
) -> None:
    rate = 1_000_000_000
    bench = Bench(library, rate)
    bench.play(Period(jump=sign * wrong), *[_CALM] * 8)
    assert max(map(abs, bench.off[-3:])) <= _slack(rate)


# --- all of them -----------------------------------------------------------------------------


def _ns(limit: int) -> st.SearchStrategy[int]:
    return st.one_of(st.just(0), st.integers(0, limit))


_ANY_PERIOD = st.builds(
    Period,
    ppm=st.integers(-500, 500),
    # Set back by less than it ran since the last tick, it only looks slow.
    jump=st.one_of(
        st.just(0),
        st.integers(0, _SECOND),
        st.integers(-100 * _SECOND, -2 * _SECOND),
    ),
    stop=_ns(_FIRST_NS // 2),
    suspend=_ns(3_600 * _SECOND),
    error=st.integers(-5_000, 5_000),
    delay=st.integers(2, _PUBLISH_NS),
)


@given(_ANY_RATE, st.lists(_ANY_PERIOD, min_size=1, max_size=4), st.integers(0, 2**64 - 1))
def test_time_never_goes_back_and_becomes_right_whatever_happens(
    library: ctypes.CDLL, rate: int, periods: list[Period], cycles: int
) -> None:
    bench = Bench(library, rate, cycles)
    bench.play(*periods, *[_CALM] * 25)
    bench.assert_never_back()
    assert max(map(abs, bench.off[-3:])) <= _slack(rate)


# --- conversions -----------------------------------------------------------------------------


_U64 = st.integers(0, 2**64 - 1)


_ANY_CONVERSION = st.builds(
    Conversion, st.integers(1, 2**32 - 1), st.integers(0, 63), st.builds(Snapshot, _U64, _U64)
)


@given(_ANY_CONVERSION, _U64)
def test_python_and_c_convert_alike(
    library: ctypes.CDLL, conversion: Conversion, cycles: int
) -> None:
    library.shim_update(*conversion[:2], *conversion.epoch[:2])
    assert conversion.to_ns(cycles) == library.shim_now(cycles)


@given(st.integers(1_000, 10_000_000_000), st.integers(1, 1_000), st.integers(-10, 10))
def test_any_rate_converts_ten_minutes_in_64_bits(rate: int, part: int, off: int) -> None:
    hz = Fraction(rate * part + off, part)
    mult, shift = mult_shift(hz)
    assert 0 < mult < 2**32
    assert 0 < shift <= 32
    assert 600 * hz * mult < 2**64
    assert abs(hz * mult - (_SECOND << shift)) <= (_SECOND << shift) // 1_000_000


# --- what is said ----------------------------------------------------------------------------


def _said(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    for record in caplog.records:
        assert record.levelno == logging.WARNING
        yield record.getMessage()


def test_deviation_is_said_in_the_words_of_the_kernel(
    library: ctypes.CDLL, caplog: pytest.LogCaptureFixture
) -> None:
    Bench(library, 1_000_000_000).play(_CALM, _CALM, Period(ppm=500))
    assert list(_said(caplog)) == ["hyp trace clock off by 249us"]


@pytest.mark.parametrize(("off", "said"), [(1_000, 0), (1_001, 1), (-1_000, 0), (-1_001, 1)])
def test_deviation_of_a_microsecond_is_not_worth_a_word(
    caplog: pytest.LogCaptureFixture, off: int, said: int
) -> None:
    estimator = ClockEstimator(Snapshot(0, 0))
    estimator.tick(Snapshot(_FIRST_NS, _FIRST_NS))
    estimator.tick(Snapshot(_PERIOD_NS, _PERIOD_NS + off))
    assert len(list(_said(caplog))) == said


def test_deviation_that_may_be_an_error_of_the_snapshot_is_not_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    estimator = ClockEstimator(Snapshot(0, 0))
    estimator.tick(Snapshot(_FIRST_NS, _FIRST_NS))
    estimator.tick(Snapshot(_PERIOD_NS, _PERIOD_NS + 3_000, error=2_000))
    assert not list(_said(caplog))


def test_deviation_that_goes_on_is_said_every_five_seconds(
    library: ctypes.CDLL, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(library, 1_000_000_000)
    bench.play(_CALM, *(Period(ppm=500 * (-1) ** number) for number in range(40)))
    assert len(list(_said(caplog))) == 4


@pytest.mark.parametrize(
    ("claimed", "said"), [(0, 0), (1_000, 0), (1_009, 0), (991, 0), (1_011, 1), (900, 1), (1, 1)]
)
def test_counter_that_is_not_what_its_producer_says_is_said_once(
    library: ctypes.CDLL, caplog: pytest.LogCaptureFixture, claimed: int, said: int
) -> None:
    bench = Bench(library, 1_000_000_000, claimed_hz=claimed * 1_000_000)
    bench.play(*[_CALM] * 5)
    message = f"hyp trace clock: the counter runs at 1000000000 Hz, not at {claimed}000000"
    assert list(_said(caplog)) == [message] * said
