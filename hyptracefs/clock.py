"""The host's part of the trace clock (SPEC D.6): it measures how fast the counter runs.

The hypervisor converts its counter to the host's boot time with mult, shift and an
epoch that the host sends. Better than the reference: a correction bends the clock
instead of stepping it, so that time never runs backwards between two events.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

log = logging.getLogger(__name__)

INIT_S = 0.1  # CLOCK_INIT_MS: first calibration after the start
UPDATE_S = 0.5  # CLOCK_UPDATE_MS: between later ones

_NSEC_PER_SEC = 1_000_000_000
_MAX_SPAN_S = 600  # mult is chosen so that this many seconds fit 64 bits
_WARN_NS = 1000
_STEP_NS = 1_000_000  # so far behind (a suspend, a long stop) we jump ahead
_U64_MAX = 2**64 - 1


class Snapshot(NamedTuple):
    """One instant on both clocks."""

    boot: int  # ns
    cycles: int


class Conversion(NamedTuple):
    """ns = ((cycles - epoch.cycles) * mult >> shift) + epoch.boot."""

    mult: int
    shift: int
    epoch: Snapshot

    def to_ns(self, cycles: int) -> int:
        """Time of `cycles`."""
        return ((cycles - self.epoch.cycles) * self.mult >> self.shift) + self.epoch.boot

    @property
    def limit(self) -> int:
        """Cycles after the epoch from which on it should be renewed."""
        return _U64_MAX // self.mult // 4


def mult_shift(rate: int) -> tuple[int, int]:
    """Multiplier and shift for a counter of `rate` Hz, good for 600 s in 64 bits.

    >>> mult_shift(24_000_000)
    (699050667, 24)
    >>> mult_shift(1_000_000_000)
    (8388608, 23)
    """
    bits = 32 - ((_MAX_SPAN_S * rate) >> 32).bit_length()
    for shift in range(32, 0, -1):
        mult = ((_NSEC_PER_SEC << shift) + rate // 2) // rate
        if mult >> bits == 0:
            break
    return mult, shift


class ClockEstimator:
    """Turns snapshots into conversions. Holds no clock and no timer itself."""

    def __init__(self, start: Snapshot) -> None:
        self._measured = start
        self._conversion: Conversion | None = None

    def tick(self, now: Snapshot) -> Conversion | None:
        """The conversion to use from `now` on; None: keep the one in use."""
        rate = self._rate(now)
        if rate is None:
            return None
        previous = self._conversion
        if previous is None:
            self._conversion = Conversion(*mult_shift(rate), now)
        elif previous.to_ns(now.cycles) == now.boot and self._young(previous, now):
            return None
        else:
            self._conversion = self._corrected(previous, rate, now)
        self._measured = now
        return self._conversion

    def _rate(self, now: Snapshot) -> int | None:
        """Hz since the last measurement; None if a clock has not moved on."""
        boot = now.boot - self._measured.boot
        cycles = now.cycles - self._measured.cycles
        return cycles * _NSEC_PER_SEC // boot if boot > 0 and cycles > 0 else None

    @staticmethod
    def _young(conversion: Conversion, now: Snapshot) -> bool:
        return now.cycles - conversion.epoch.cycles < conversion.limit

    @staticmethod
    def _corrected(previous: Conversion, rate: int, now: Snapshot) -> Conversion:
        """Go on from where the clock stands, so fast that it is right at the next tick."""
        stands = previous.to_ns(now.cycles)
        ahead = stands - now.boot
        if abs(ahead) > _WARN_NS:
            log.warning("hyp trace clock off by %dus", abs(ahead) // 1000)
        if ahead < -_STEP_NS:
            return Conversion(*mult_shift(rate), now)
        period = int(UPDATE_S * _NSEC_PER_SEC)
        ahead = min(ahead, period // 2)
        bent = rate * period // (period - ahead)
        return Conversion(*mult_shift(bent), Snapshot(stands, now.cycles))
