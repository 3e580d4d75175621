"""What touches a mount, in a process of its own.

From a mount that hangs no call returns, and a signal that is handled does not end it. Whoever
waits for that process can give it up.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import pickle
import select
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Self, TypeVar

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long one call of a mount may take before the mount is said to hang."""

_LOOK_S = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RETURNED, _RAISED = "returned", "raised"


class HangsError(OSError):
    """The mount does not answer."""


class Pulse:
    """Tells another process whether this one is in a mount, and that it comes out of it again.

    `with pulse:` around each call; not one within another.
    """

    def __init__(self) -> None:
        self._count = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    def __enter__(self) -> Self:
        self._count[0] += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._count[0] += 1

    @property
    def now(self) -> int:
        """A number that each call changes; odd: in the mount."""
        return self._count[0]


class Inside:
    """What the process apart has of the one that waits for it."""

    def __init__(self, pulse: Pulse, stop: int, said: Connection) -> None:
        self.pulse = pulse
        self.stop = stop
        """A file that polls as ready once the work is to end, or nobody waits for it any more."""
        self._said = said

    def say(self, what: str, value: object = None) -> None:
        """Have hear() give `what` and `value`."""
        with contextlib.suppress(BrokenPipeError):  # nobody hears it
            self._said.send((what, value))


def _sendable(error: BaseException) -> BaseException:
    """`error`, or what can be said of it."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (of our own)
    except Exception:  # noqa: BLE001 (whatever it does not like)
        return RuntimeError(repr(error))
    return error


def _run(inside: Inside, work: Callable[[Inside], object]) -> None:
    try:
        inside.say(_RETURNED, work(inside))
    except BaseException as error:  # noqa: BLE001 (to raise it there)
        inside.say(_RAISED, _sendable(error))


def _become(inside: Inside, work: Callable[[Inside], object]) -> NoReturn:
    """The child. The signals are for who waits; nor does it keep who waits for their stderr."""
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        nothing = os.open(os.devnull, os.O_RDWR)
        for file in range(3):
            os.dup2(nothing, file)
        _run(inside, work)
    finally:
        os._exit(0)


class Apart:
    """Runs `work` in a process of its own, until end()."""

    def __init__(self, work: Callable[[Inside], object]) -> None:
        self._pulse = Pulse()
        self._last, self._since = 0, time.monotonic()
        self._ended = False
        stop, self._stop = os.pipe2(os.O_CLOEXEC)
        self._heard, said = multiprocessing.Pipe(duplex=False)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._stop)
            self._heard.close()
            _become(Inside(self._pulse, stop, said), work)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(stop)
        said.close()

    def fileno(self) -> int:
        """Readable when hear() does not wait."""
        return self._heard.fileno()

    def stop(self) -> None:
        """Tell the work to end; it may take its time."""
        if self._stop >= 0:
            os.close(self._stop)
            self._stop = -1

    @property
    def stopped(self) -> bool:
        """Whether it has been told."""
        return self._stop < 0

    def hear(self) -> tuple[str, Any]:
        """What it says next; `returned` is the last. Raises what the work has raised.

        Raises EOFError when it was killed.
        """
        what, value = self._heard.recv()
        self._ended = what in {_RETURNED, _RAISED}
        if what == _RAISED:
            raise value
        return what, value

    def check(self) -> None:
        """Raises HangsError if it is in a call for too long, as seen by these checks."""
        now, clock = self._pulse.now, time.monotonic()
        if now % 2 == 0 or now != self._last:
            self._last, self._since = now, clock
        elif clock - self._since >= PATIENCE_S:
            raise HangsError(
                f"the mount does not answer (for {PATIENCE_S:g} s; see hyptrace status)"
            )

    def wait(self, poll: select.poll, *, checked: bool) -> list[int]:
        """The files of `poll` that are ready; with `checked` raises HangsError, as check()."""
        ready = poll.poll(_LOOK_S * 1000 if checked else None)
        if checked:
            self.check()
        return [file for file, _ in ready]

    def end(self) -> None:
        """It ends now. One that not even SIGKILL ends, in a mount, is left to init."""
        self.stop()
        self._heard.close()
        if not self._ended:
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0 if self._ended else os.WNOHANG)


def answer(work: Callable[[Pulse], T]) -> T:
    """What `work` returns or raises, of a mount. Raises HangsError."""
    apart = Apart(lambda inside: work(inside.pulse))
    poll = select.poll()
    poll.register(apart, select.POLLIN)
    try:
        while not apart.wait(poll, checked=True):
            pass
        _, value = apart.hear()
    finally:
        apart.end()
    returned: T = value
    return returned
