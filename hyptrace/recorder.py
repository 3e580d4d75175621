"""Moves pages from the pipes of a mount into a trace.dat, while a command runs or until a signal.

One thread for all CPUs: the mount answers one request at a time, so a second one would wait where
this one does. What counts is how many pages a request brings: up to READ_BYTES.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from hyptrace.held_command import SIGNALLED, HeldCommand
from hyptrace.trace_dat_writer import TraceDatWriter
from hyptrace.tracing import Tracing

READ_BYTES = 1 << 20  # the most that the kernel asks a FUSE server for

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a CPU writes that does little else, bytes/s: in the time in which that fills half of the
# buffer, nothing is lost, and pages that are fuller make a smaller file.
_FASTEST = 100e6
_LINGER_S = 0.02  # the longest
_READABLE = select.POLLIN | select.POLLERR | select.POLLHUP


class MountDiedError(OSError):
    """The mount answers no more."""


class Ending:
    """When to stop: when the command has ended, or at a signal if there is none.

    Signals are passed on to the command, which ends when it wants; a second one does not wait
    for it. `wake` is readable once a signal has come, or a process has ended.
    """

    def __init__(self, command: HeldCommand | None, wake: int) -> None:
        self._command, self.wake = command, wake
        self._signals: list[int] = []

    def go(self) -> None:
        """Let the command run."""
        if self._command is not None:
            self._command.go()

    @property
    def due(self) -> bool:
        """Whether it is time."""
        if self._command is None:
            return len(self._signals) > 0
        return self._command.poll() is not None or len(self._signals) > 1

    def take(self, number: int, frame: FrameType | None = None) -> None:  # noqa: ARG002
        """A signal has come."""
        self._signals.append(number)
        # A terminal has sent ^C to the command as well.
        if self._command is not None and not (number == signal.SIGINT and _in_foreground()):
            self._command.send_signal(number)

    def status(self) -> int:
        """Exit status: that of the command, once it has ended, or we no longer wait for it."""
        if self._command is None:
            return 0
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        while not self.due:
            poll.poll()
            _empty(self.wake)
        status = self._command.poll()
        return SIGNALLED + self._signals[-1] if status is None else status


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


@contextmanager
def ending_of(command: Sequence[str]) -> Iterator[Ending]:
    """When a recording ends that is one of `command`, held until go(); without one, of signals."""
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    held = HeldCommand(command) if command else None
    ending = Ending(held, wake)
    before = {number: signal.signal(number, ending.take) for number in _ENDING}
    # Without a handler of Python's nothing would be written when the command ends.
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    before_fd = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    try:
        yield ending
    finally:
        if held is not None:
            held.abandon()
        signal.set_wakeup_fd(before_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(woken)


class Recorder:
    """The open pipes of `cpus`, and where their pages go."""

    def __init__(self, tracing: Tracing, cpus: Sequence[int], writer: TraceDatWriter) -> None:
        self.bytes = 0
        size = tracing.size_kb * 1024
        self._linger_s = min(size / 2 / _FASTEST, _LINGER_S)
        self._little = size * len(cpus) // 4
        self._writer = writer
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._pipes: dict[int, int] = {}  # CPUs by file
        try:
            for cpu in cpus:
                path = tracing.raw_pipe(cpu)
                self._pipes[os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)] = cpu
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the pipes."""
        for file in self._pipes:
            with suppress(OSError):  # of a dead mount
                os.close(file)
        self._pipes.clear()

    def _read(self, file: int) -> int:
        try:
            return os.readv(file, [self._buffer])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise MountDiedError(error.errno, error.strerror) from None

    def round(self) -> int:
        """A read of each pipe. Gives the bytes. Raises MountDiedError; OSError: of the disk."""
        got = 0
        for file, cpu in self._pipes.items():
            size = self._read(file)
            if size:
                self._writer.write(cpu, self._buffer[:size])
                got += size
        self.bytes += got
        return got

    def drain(self) -> None:
        """Read all that there is; nobody writes any more."""
        while self.round():
            pass

    def run(self, ending: Ending, tick: Callable[[], float | None]) -> None:
        """Record until `ending` is due; `tick` is called often, and says when to call it again.

        (In seconds; None: whenever something happens.) Raises as round().
        """
        poll, lingering = select.poll(), select.poll()
        poll.register(ending.wake, select.POLLIN)
        lingering.register(ending.wake, select.POLLIN)
        for file in self._pipes:
            poll.register(file, _READABLE)
        while not ending.due:
            got = self.round()
            after = tick()
            if not got:
                poll.poll(None if after is None else after * 1000)
            elif got < self._little:
                lingering.poll(self._linger_s * 1000)
            _empty(ending.wake)


def _empty(wake: int) -> None:
    try:
        while os.read(wake, 512):
            pass
    except BlockingIOError:
        return
