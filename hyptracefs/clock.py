"""The host's part of the trace clock (SPEC D.6): it measures how fast the counter runs.

The hypervisor converts its counter to the host's boot time with mult, shift and an
epoch that the host sends. Better than the reference: a correction bends the clock
instead of stepping it, so that time never runs backwards between two events.
"""

from __future__ import annotations

import logging
import math
from fractions import Fraction
from typing import NamedTuple

log = logging.getLogger(__name__)

INIT_S = 0.1  # CLOCK_INIT_MS: first calibration after the start
UPDATE_S = 0.5  # CLOCK_UPDATE_MS: between later ones

_NSEC_PER_SEC = 1_000_000_000
_PERIOD_NS = _NSEC_PER_SEC // 2  # UPDATE_S
_MAX_SPAN_S = 600  # mult is chosen so that this many seconds fit 64 bits
_WARN_NS = 1000
# The kernel's own limit, 10 in 5 s, would let through all that two ticks a second can say.
_WARN_EVERY_NS = 5 * _NSEC_PER_SEC
_STEP_NS = 1_000_000  # so far behind (a suspend, a long stop) we jump ahead
_PUBLISH_NS = 1_000_000  # the hypervisor uses a conversion this soon after its snapshot
_MAX_TICK_NS = 2 * _NSEC_PER_SEC  # after longer than this one of the clocks may have slept
_PLAUSIBLE_HZ = (100, 1_000_000_000_000)

_U64 = 2**64 - 1


class Snapshot(NamedTuple):
    """One instant on both clocks."""

    boot: int  # ns
    cycles: int
    error: int = 0  # ns that `boot` is off by at most


class Conversion(NamedTuple):
    """ns = ((cycles - epoch.cycles) * mult >> shift) + epoch.boot, modulo 2^64 as in C."""

    mult: int
    shift: int
    epoch: Snapshot

    def to_ns(self, cycles: int) -> int:
        """Time of `cycles`."""
        return (self._scaled(cycles) >> self.shift) + self.epoch.boot & _U64

    def exact_ns(self, cycles: int) -> Fraction:
        """Before it is cut to a whole number of 64 bits."""
        return self.epoch.boot + Fraction(self._scaled(cycles), 1 << self.shift)

    def _scaled(self, cycles: int) -> int:
        return ((cycles - self.epoch.cycles) & _U64) * self.mult


def mult_shift(rate: int | Fraction) -> tuple[int, int]:
    """Multiplier and shift for a counter of `rate` Hz, good for 600 s in 64 bits.

    >>> mult_shift(24_000_000)
    (699050667, 24)
    >>> mult_shift(1_000_000_000)
    (8388608, 23)
    """
    bits = 32 - (int(_MAX_SPAN_S * rate) >> 32).bit_length()
    for shift in range(32, 0, -1):
        # rounded; rate is a fraction
        mult = ((_NSEC_PER_SEC << shift + 1) * rate.denominator + rate.numerator) // (
            2 * rate.numerator
        )
        if mult >> bits == 0:
            break
    return mult, shift


def rates_agree(one: int | Fraction, other: int | Fraction) -> bool:
    """Whether two rates are the same to 1 %; what is noise or drift is far below that."""
    return abs(Fraction(one) - other) * 100 <= Fraction(other)


def _signed(difference: int) -> int:
    """A difference of two values of 64 bits, either of which may have wrapped."""
    return ((difference + 2**63) & _U64) - 2**63


def _rate(since: Snapshot, now: Snapshot) -> Fraction | None:
    """Hz of the counter between two snapshots; None: they do not tell."""
    boot = now.boot - since.boot
    if not 0 < boot <= _MAX_TICK_NS:
        return None
    rate = Fraction(_signed(now.cycles - since.cycles) * _NSEC_PER_SEC, boot)
    low, high = _PLAUSIBLE_HZ
    return rate if low <= rate <= high else None


class ClockEstimator:
    """Turns snapshots into conversions. Holds no clock and no timer itself.

    `claimed_hz` is what the producer says of its counter; 0: nothing.
    """

    def __init__(self, start: Snapshot, claimed_hz: int = 0) -> None:
        self._measured = start
        self._claimed_hz = claimed_hz
        self._hz = Fraction(0)  # as last measured; 0: not yet
        self._suspect: Fraction | None = None  # measured where it may be no rate
        self._conversion: Conversion | None = None
        self._warn_from = start.boot

    def tick(self, now: Snapshot) -> Conversion | None:
        """The conversion to use from `now` on; None: nothing could be measured, go on."""
        since, self._measured = self._measured, now
        rate = _rate(since, now)
        if self._conversion is None:
            self._conversion = self._first(rate, now)
            return self._conversion
        if now.boot <= since.boot or now.cycles == since.cycles:
            return None
        clock = self._continued(since, now)
        ahead = _signed(clock.to_ns(now.cycles) - now.boot)
        self._warn(ahead, now)
        behind = ahead < -_STEP_NS
        self._accept(rate, behind)
        self._conversion = self._at_once(now) if behind else self._bent(clock, now)
        return self._conversion

    def _first(self, rate: Fraction | None, now: Snapshot) -> Conversion | None:
        if rate is None:
            return None
        if self._claimed_hz and not rates_agree(rate, self._claimed_hz):
            log.warning(
                "hyp trace clock: the counter runs at %d Hz, not at %d", rate, self._claimed_hz
            )
        self._hz = rate
        return self._at_once(now)

    def _continued(self, since: Snapshot, now: Snapshot) -> Conversion:
        """The clock as it is; after the counter was set back, as it would be without that."""
        assert self._conversion is not None  # noqa: S101 - for mypy
        if _signed(now.cycles - since.cycles) > 0:
            return self._conversion
        missed = self._cycles(now.boot - since.boot) + 1
        reached = self._conversion.to_ns(since.cycles + missed)
        return self._conversion._replace(epoch=Snapshot(reached, now.cycles))

    def _accept(self, rate: Fraction | None, behind: bool) -> None:
        """Use the measured rate from now on, unless a stopped counter may be in it.

        A counter that stopped, and a rate that was wrong before, leave us behind alike; but
        only the second gives the same rate once more.
        """
        doubted = rate is None or (
            behind and (self._suspect is None or not rates_agree(rate, self._suspect))
        )
        self._suspect = rate if behind else None
        if rate is not None and not doubted:
            self._hz = rate

    def _at_once(self, now: Snapshot) -> Conversion:
        return Conversion(*mult_shift(self._hz), now)

    def _bent(self, clock: Conversion, now: Snapshot) -> Conversion:
        """Go on from where `clock` stands, so fast that it is right at the next tick.

        Writers use `clock` until the new one is published, so a slower one takes over not
        now but where it surely is: else it would be behind a time that was used already.
        """
        lead = self._cycles(_PUBLISH_NS) + 1
        published = now.cycles + lead
        bent = self._towards_boot(clock, now, 0)
        if bent.exact_ns(published) < clock.exact_ns(published):
            bent = self._towards_boot(clock, now, lead)
        return bent

    def _towards_boot(self, clock: Conversion, now: Snapshot, lead: int) -> Conversion:
        """From where `clock` stands in `lead` cycles to boot time at the next tick."""
        lead_ns = lead * _NSEC_PER_SEC / self._hz
        meets = clock.exact_ns(now.cycles + lead)
        rest = _PERIOD_NS - lead_ns
        # Half its pace is as slow as the clock gets.
        gained = min(Fraction(_signed(math.floor(meets - lead_ns) - now.boot)), rest / 2)
        mult, shift = mult_shift(self._hz * rest / (rest - gained))
        begin = max(clock.exact_ns(now.cycles), meets - Fraction(lead * mult, 1 << shift))
        return Conversion(mult, shift, Snapshot(math.ceil(begin) & _U64, now.cycles, now.error))

    def _cycles(self, ns: int) -> int:
        return int(self._hz * ns / _NSEC_PER_SEC)

    def _warn(self, ahead: int, now: Snapshot) -> None:
        if abs(ahead) - now.error <= _WARN_NS or now.boot < self._warn_from:
            return
        self._warn_from = now.boot + _WARN_EVERY_NS
        log.warning("hyp trace clock off by %dus", abs(ahead) // 1000)
