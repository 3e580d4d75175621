"""How somebody who waits for events learns that there are some: a doorbell, or looking.

A hypervisor may have a doorbell: a socket that it rings once, each time it is armed. One that
has none writes its buffers and says nothing, as real pKVM does; then the host looks, soon
after there was something, and less and less often while there is nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from enum import Enum

import trio

from hyptracefs.hypercalls import Hypercalls
from hyptracefs.ring_buffer import LONGEST_NS, SHORTEST_NS, interval_ns

SHORTEST_S = SHORTEST_NS / 1e9
# It is also how often to look beside an armed doorbell.
LONGEST_S = LONGEST_NS / 1e9

# What is rung while nobody listens is one for each time of arming; more is not believed.
_MOST_RINGS = 16


class Wakeup(Enum):
    """Ways to learn of events."""

    DOORBELL = "doorbell"
    POLL = "poll"


def interval_s(waited_s: float, fixed_ms: int | None) -> float:
    """When to look next, after so long without anything to see; `fixed_ms`: always so."""
    return interval_ns(round(waited_s * 1e9), (fixed_ms or 0) * 1_000_000) / 1e9


class Doorbell:
    """A doorbell, hung at the hypervisor that answers `calls`. Raises OSError as they do.

    The hypervisor is not trusted: nothing here waits for it, whatever it does to the socket.
    """

    def __init__(self, calls: Hypercalls) -> None:
        self._calls = calls
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                calls.hang_doorbell(theirs.fileno())
            except BaseException:
                self._ours.close()
                raise

    def arm(self, cpu: int) -> None:
        """Ring at the next event of `cpu`, or ALL_CPUS: one that a look from now on misses.

        Raises OSError: as the hypercall; EPIPE: it has been let go of at the other end.
        """
        for _ in range(_MOST_RINGS):
            try:
                if not self._ours.recv(1, socket.MSG_DONTWAIT):
                    raise BrokenPipeError(errno.EPIPE, "it has been let go of")
            except BlockingIOError:
                break
        self._calls.arm_doorbell(cpu)

    async def wait(self) -> None:
        """Wait until it has been rung, or let go of."""
        await trio.lowlevel.wait_readable(self._ours)

    @property
    def fd(self) -> int:
        """Of the socket that is rung."""
        return self._ours.fileno()

    def close(self) -> None:
        """Take it away. A second call does nothing."""
        self._ours.close()


class _TimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("s", ctypes.c_long),
        ("ns", ctypes.c_long),
    )


class Alarm:
    """A clock for sleeps of less than a millisecond: trio's are rounded up to whole ones."""

    _CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
    _libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self) -> None:
        self._fd = self._checked(
            self._libc.timerfd_create(1, self._CLOEXEC_NONBLOCK)  # CLOCK_MONOTONIC
        )

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    async def sleep(self, seconds: float) -> None:
        """As trio.sleep(). One at a time."""
        whole, part = divmod(seconds, 1)
        spec = _TimerSpec(0, 0, int(whole), max(int(part * 1e9), 1))
        self._checked(self._libc.timerfd_settime(self._fd, 0, ctypes.byref(spec), None))
        await trio.lowlevel.wait_readable(self._fd)  # set anew, it is not readable any more
