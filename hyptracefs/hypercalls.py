"""The hypercalls as the host makes them (SPEC C).

A call that fails raises OSError with the hypervisor's errno. Each blocks for
microseconds; none needs a thread of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from hyptracefs.clock import Conversion
from hyptracefs.hypervisor_statistics import HypervisorStatistics, decode_statistics
from hyptracefs.ring_buffer import (
    ALL_CPUS,
    Counter,
    DoorbellOp,
    Hvc,
    hvc_call,
    hvc_statistics,
)

# The mount acts like a kernel worker that is bound to this CPU; what a user does from
# another CPU (the test event) is called from that one.
HOST_CPU = 0


_U64_MAX = 2**64 - 1


def _never() -> str:
    return ""


def _check(result: int, call: str) -> None:
    if result:
        raise OSError(-result, f"hypervisor: {call}: {os.strerror(-result)}")


@dataclass(frozen=True)
class Traits:
    """What one hypervisor does in another way than the next."""

    counter: int = Counter.CPU  # which stamps the events
    counter_hz: int = 0  # about; 0: unknown
    max_spares: int = 0  # pages of each CPU that it takes as spares
    doorbell: bool = False  # it can ring when there are events


class Hypercalls:
    """The calls, through the conduit at address `conduit`. The swaps are made in C.

    `gone()` says why nobody answers any more, and nothing while somebody does. `lifeline`: a file
    descriptor that hangs up when it begins to; -1: nobody goes.
    """

    def __init__(
        self,
        conduit: int,
        cpus: int,
        gone: Callable[[], str] = _never,
        traits: Traits | None = None,
        lifeline: int = -1,
    ) -> None:
        self.conduit = conduit
        self.cpus = cpus
        self.gone = gone
        self.traits = traits or Traits()
        self.lifeline = lifeline

    def _call(self, nr: Hvc, *args: int, cpu: int = HOST_CPU) -> None:
        _check(hvc_call(self.conduit, cpu, nr, args), f"{nr.name.lower()}{args}")

    def load(self, desc_offset: int, desc_size: int, memory: int, spares: int) -> None:
        """Hand over the buffers: a sealed memfd, and where in it its descriptor lies.

        The last `spares` pages of each CPU are spares.
        """
        self._call(Hvc.TRACING_LOAD, desc_offset, desc_size, memory, spares)

    def unload(self) -> None:
        """Take them back; fine when there are none."""
        self._call(Hvc.TRACING_UNLOAD)

    def enable(self, on: bool) -> None:
        """Let the writers write, or wait until none does."""
        self._call(Hvc.TRACING_ENABLE, on)

    def reset(self, cpu: int) -> None:
        """Forget the events of `cpu`."""
        self._call(Hvc.TRACING_RESET, cpu)

    def update_clock(self, to: Conversion) -> None:
        """Convert the counter like this from now on."""
        self._call(Hvc.TRACING_UPDATE_CLOCK, to.mult, to.shift, to.epoch.boot, to.epoch.cycles)

    def enable_event(self, event_id: int, on: bool) -> None:
        """Switch an event."""
        self._call(Hvc.TRACING_ENABLE_EVENT, event_id, on)

    def write_event(self, cpu: int, value: int) -> None:
        """Emit one `selftest` event with id=`value` on `cpu`, modulo the CPUs there are."""
        self._call(Hvc.TRACING_WRITE_EVENT, value, cpu=cpu % self.cpus)

    def hang_doorbell(self, socket: int) -> None:
        """Have `socket` rung, a Unix one of type SEQPACKET; once for each time it is armed."""
        self._call(Hvc.TRACING_DOORBELL, DoorbellOp.HANG, 0, socket)

    def arm_doorbell(self, cpu: int) -> None:
        """Have it rung at the next event of `cpu`, or ALL_CPUS, that cannot be seen yet."""
        self._call(Hvc.TRACING_DOORBELL, DoorbellOp.ARM, cpu if cpu != ALL_CPUS else _U64_MAX)

    def statistics(self) -> HypervisorStatistics:
        """What the hypervisor has counted. OSError EOPNOTSUPP: it does not, EPROTO: nonsense."""
        result, message = hvc_statistics(self.conduit, HOST_CPU)
        _check(result, "tracing_statistics()")
        return decode_statistics(message, self.cpus)
