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
_PLAUSIBLE_HZ = range(1_000, 1_000_000_000_000)


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
        self._hz = 0  # as last measured; 0: not yet
        self._conversion: Conversion | None = None

    def tick(self, now: Snapshot) -> Conversion | None:
        """The conversion to use from `now` on; None: nothing could be measured, go on."""
        boot = now.boot - self._measured.boot
        cycles = now.cycles - self._measured.cycles
        if boot <= 0 or cycles <= 0:
            return None
        ahead = 0 if self._conversion is None else self._conversion.to_ns(now.cycles) - now.boot
        if abs(ahead) > _WARN_NS:
            log.warning("hyp trace clock off by %dus", abs(ahead) // 1000)
        if ahead >= -_STEP_NS:
            hz = cycles * _NSEC_PER_SEC // boot
            if hz not in _PLAUSIBLE_HZ:
                return None
            self._hz = hz
            self._conversion = self._bent(ahead, now)
        else:
            # A suspend may have stopped the counter: what was measured across it is no rate.
            self._conversion = Conversion(*mult_shift(self._hz), now)
        self._measured = now
        return self._conversion

    def _bent(self, ahead: int, now: Snapshot) -> Conversion:
        """Go on from where the clock stands, so fast that it is right at the next tick."""
        period = int(UPDATE_S * _NSEC_PER_SEC)
        gained = min(ahead, period // 2)
        hz = self._hz * period // (period - gained)
        return Conversion(*mult_shift(hz), Snapshot(now.boot + ahead, now.cycles))
