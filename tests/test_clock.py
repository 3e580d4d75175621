"""The host's part of the trace clock: rates, and time that never runs backwards."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyptracefs.clock import ClockEstimator, Conversion, Snapshot, mult_shift

_SECOND = 1_000_000_000
_FIRST_NS = _SECOND // 10
_PERIOD_NS = _SECOND // 2


@pytest.mark.parametrize(
    ("rate", "expected"),
    [  # SPEC D.6
        (24_000_000, (699_050_667, 24)),
        (54_000_000, (310_689_185, 24)),
        (62_500_000, (134_217_728, 23)),
        (1_000_000_000, (8_388_608, 23)),
    ],
)
def test_mult_shift_is_that_of_the_kernel(rate: int, expected: tuple[int, int]) -> None:
    assert mult_shift(rate) == expected


@given(st.integers(1_000_000, 5_000_000_000))
def test_mult_shift_is_exact_to_a_millionth_and_fits_ten_minutes(rate: int) -> None:
    mult, shift = mult_shift(rate)
    assert abs(rate * mult - (_SECOND << shift)) <= (_SECOND << shift) // 1_000_000
    assert 600 * rate * mult < 2**64


@pytest.mark.parametrize("rate", [Fraction(1, 2), Fraction(1, 1000)])
def test_mult_shift_of_a_counter_that_hardly_moves_is_exact(rate: Fraction) -> None:
    mult, shift = mult_shift(rate)
    assert rate * mult == _SECOND << shift
    assert 600 * rate * mult < 2**64


class Period(NamedTuple):
    """What happens between two ticks."""

    suspend: int  # ns that boot time jumps ahead
    drift: int  # of the rate, in millionths of the nominal one
    jitter: int  # ns that the snapshot's boot time is wrong by


def _snapshots(rate: int, periods: list[Period]) -> Iterator[Snapshot]:
    """Snapshots as a host would take them: the start, the first tick, then the others."""
    boot, cycles = 50 * _SECOND, 123_456
    yield Snapshot(boot, cycles)
    for number, period in enumerate(periods):
        elapsed = _PERIOD_NS if number else _FIRST_NS
        cycles += rate * (1_000_000 + period.drift) * elapsed // (1_000_000 * _SECOND)
        boot += elapsed + period.suspend
        yield Snapshot(boot + period.jitter, cycles)


def _conversions(snapshots: list[Snapshot]) -> list[tuple[Snapshot, Conversion]]:
    """The conversion in use from each tick on."""
    estimator = ClockEstimator(snapshots[0])
    used: list[tuple[Snapshot, Conversion]] = []
    for now in snapshots[1:]:
        conversion = estimator.tick(now) or (used[-1][1] if used else None)
        if conversion is not None:
            used.append((now, conversion))
    return used


def _errors(rate: int, periods: list[Period]) -> list[int]:
    """How far the clock is off at each tick, with the conversion in use from then on."""
    used = _conversions(list(_snapshots(rate, periods)))
    return [abs(conversion.to_ns(now.cycles) - now.boot) for now, conversion in used]


def _periods(jitter: int, suspend: int = 10_000 * _SECOND) -> st.SearchStrategy[list[Period]]:
    return st.lists(
        st.builds(
            Period,
            suspend=st.one_of(st.just(0), st.integers(0, suspend)),
            drift=st.integers(-500, 500),
            jitter=st.integers(-jitter, jitter),
        ),
        min_size=2,
        max_size=20,
    )


_RATES = st.integers(1_000_000, 5_000_000_000)


@given(_RATES, _periods(jitter=5_000))
def test_time_never_decreases_where_the_conversion_changes(
    rate: int, periods: list[Period]
) -> None:
    used = _conversions(list(_snapshots(rate, periods)))
    for (_, old), (now, new) in pairwise(used):
        assert new.to_ns(now.cycles) >= old.to_ns(now.cycles)


@given(_RATES, _periods(jitter=5_000), st.integers(1, 1_000))
def test_time_never_decreases_between_any_two_cycles(
    rate: int, periods: list[Period], parts: int
) -> None:
    used = _conversions(list(_snapshots(rate, periods)))
    times = []
    for (now, conversion), (later, _) in pairwise(used):
        step = (later.cycles - now.cycles) // parts + 1
        marks = range(now.cycles, later.cycles, step)
        times += [conversion.to_ns(cycles) for cycles in [*marks[:5], later.cycles]]
    assert times == sorted(times)


def _slack(rate: int) -> int:
    """ns that counting in whole cycles may cost: one of them in the first tenth of a second."""
    return 1_000 + 12 * _SECOND // rate


_CALM = Period(0, 0, 0)


@given(_RATES, st.integers(2, 30))
def test_time_is_right_without_jitter(rate: int, ticks: int) -> None:
    assert max(_errors(rate, [_CALM] * ticks)) <= _slack(rate)


@given(_RATES, _periods(jitter=5_000, suspend=0))
def test_time_is_right_again_soon_after_jitter_and_drift(rate: int, periods: list[Period]) -> None:
    errors = _errors(rate, [*periods, *[_CALM] * 5])
    assert min(errors[-3:]) <= _slack(rate)


def test_correction_ends_once_the_clock_is_right() -> None:
    rate = 387_238_242
    errors = _errors(rate, [Period(0, 0, -1), Period(0, 26, 0), *[_CALM] * 3])
    # to slow down by 26 ppm, a millisecond ahead; then only mult is not exact
    assert errors[-2] <= 26
    assert errors[-1] <= 5


@given(_RATES, st.integers(1_000_001, 10_000 * _SECOND))
def test_suspend_is_followed_at_once(rate: int, suspend: int) -> None:
    assert _errors(rate, [_CALM, Period(suspend + 100_000, 0, 0)])[-1] == 0


@pytest.mark.parametrize("suspend_s", [1, 3600])
def test_clock_keeps_its_pace_after_a_suspend_that_stops_the_counter(suspend_s: int) -> None:
    rate = 1_000_000_000
    periods = [_CALM, _CALM, Period(suspend_s * _SECOND, 0, 0), _CALM, _CALM]
    assert _errors(rate, periods)[-1] <= _slack(rate)


_INSTANTS = st.builds(Snapshot, st.integers(0, 2**40), st.integers(0, 2**40))


@given(st.lists(_INSTANTS, min_size=1))
def test_clocks_that_do_as_they_like_are_no_error(snapshots: list[Snapshot]) -> None:
    estimator = ClockEstimator(snapshots[0])
    for now in snapshots:
        conversion = estimator.tick(now)
        assert conversion is None or conversion.epoch.cycles == now.cycles


@given(st.lists(_INSTANTS, min_size=1), st.booleans())
def test_clocks_of_which_one_stands_still_give_no_conversion(
    snapshots: list[Snapshot], counter: bool
) -> None:
    estimator = ClockEstimator(snapshots[0])
    still = snapshots[0]
    for boot, cycles, _ in snapshots:
        now = Snapshot(still.boot, cycles) if counter else Snapshot(boot, still.cycles)
        assert estimator.tick(now) is None


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(Snapshot(1_000_000_001, 1), id="below-1-Hz"),
        pytest.param(Snapshot(1, 30_744_574), id="30-PHz"),
        pytest.param(Snapshot(1, 15_372_287), id="15-PHz"),
    ],
)
def test_absurd_rate_is_no_error_and_never_gives_mult_0(now: Snapshot) -> None:
    conversion = ClockEstimator(Snapshot(0, 0)).tick(now)
    assert conversion is None or conversion.mult > 0


@pytest.mark.parametrize(
    ("boot", "cycles"),
    [
        pytest.param(0, 0, id="both-stand-still"),
        pytest.param(_FIRST_NS, 0, id="counter-stands-still"),
        pytest.param(0, 1_000, id="boot-time-stands-still"),
        pytest.param(-1, 1_000, id="boot-time-goes-back"),
        pytest.param(_FIRST_NS, -1, id="counter-goes-back"),
    ],
)
def test_clock_that_has_not_moved_on_keeps_the_conversion(boot: int, cycles: int) -> None:
    start = Snapshot(10 * _SECOND, 1_000_000)
    estimator = ClockEstimator(start)
    assert estimator.tick(Snapshot(start.boot + boot, start.cycles + cycles)) is None


def test_epoch_is_renewed_at_each_tick_long_before_the_product_overflows() -> None:
    rate = 1_000_000_000
    estimator = ClockEstimator(Snapshot(0, 0))
    for second in range(1, 4):
        now = Snapshot(second * _SECOND, second * rate)
        conversion = estimator.tick(now)
        assert conversion is not None
        assert conversion.epoch == now
        assert 600 * rate * conversion.mult < 2**64
