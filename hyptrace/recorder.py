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
from pathlib import Path
from types import FrameType

from hyptrace.apart import Pulse
from hyptrace.held_command import SIGNALLED, HeldCommand
from hyptrace.trace_dat_writer import TraceDatWriter
from hyptrace.tracing import Tracing

READ_BYTES = 1 << 20  # the most that the kernel asks a FUSE server for

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a CPU writes that does little else, bytes/s: in the time in which that fills half of the
# buffer, nothing is lost, and pages that are fuller make a smaller file.
_FASTEST = 100e6
_LINGER_S = 0.02  # the longest
# Pages that are read more at a time are full, or nearly.
_FEW_BYTES = 64 << 10
_READABLE = select.POLLIN | select.POLLERR | select.POLLHUP


class MountDiedError(OSError):
    """The mount answers no more."""


class Ending:
    """When to stop: when the command has ended, or at a signal if there is none.

    Signals are passed on to the command, which ends when it wants; a second one does not wait
    for it. `wake` is readable once a signal has come, or a process has ended: look() then.
    """

    def __init__(self, command: HeldCommand | None, wake: int) -> None:
        self._command, self.wake = command, wake
        self._signals: list[int] = []
        self._passed_on = 0

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
        """A signal has come: the handler, which may interrupt anything, a wait(2) as well."""
        self._signals.append(number)

    def look(self) -> None:
        """Pass on the signals that have come, and sleep again until there is something new."""
        _empty(self.wake)
        while self._passed_on < len(self._signals):
            self._pass_on(self._signals[self._passed_on])
            self._passed_on += 1

    def _pass_on(self, number: int) -> None:
        # A terminal has sent ^C to the command as well.
        if self._command is not None and not (number == signal.SIGINT and _in_foreground()):
            self._command.send_signal(number)

    def disown(self) -> None:
        """In a child of ours: none of this is its business."""
        if self._command is not None:
            self._command.disown()

    def status(self) -> int:
        """Exit status: that of the command, once it has ended, or we no longer wait for it."""
        if self._command is None:
            return 0
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        self.look()
        while not self.due:
            poll.poll()
            self.look()
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


def _open(pipe: Path) -> int:
    return os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


class Recorder:
    """The open pipes of `cpus`, and where their pages go. `pulse`: of each call of the mount."""

    def __init__(
        self, tracing: Tracing, cpus: Sequence[int], writer: TraceDatWriter, pulse: Pulse
    ) -> None:
        self.bytes = 0  # that were read
        self.kept = 0  # of these, in the file: pages with few events are put together
        with pulse:
            size = tracing.size_kb * 1024
        self._linger_s = min(size / 2 / _FASTEST, _LINGER_S)
        self._little = size * len(cpus) // 4
        self._most = (2 * size + READ_BYTES) * len(cpus)
        self._writer, self._pulse = writer, pulse
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._pipes: dict[int, int] = {}  # CPUs by file
        try:
            for cpu in cpus:
                with pulse:
                    self._pipes[_open(tracing.raw_pipe(cpu))] = cpu
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the pipes."""
        for file in self._pipes:
            with self._pulse, suppress(OSError):  # of a dead mount
                os.close(file)
        self._pipes.clear()

    def _read(self, file: int) -> int:
        try:
            with self._pulse:
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
                self._write(cpu, self._buffer[:size])
                got += size
        self.bytes += got
        return got

    def _write(self, cpu: int, pages: memoryview) -> None:
        if len(pages) > _FEW_BYTES:
            self._writer.write(cpu, pages)
            self.kept += len(pages)
        else:
            self.kept += self._writer.pack(cpu, pages)

    def drain(self) -> None:
        """Read all that there is; nobody writes any more.

        And if somebody has switched it on again, more than there can have been, and then no more.
        """
        most = self.bytes + self._most
        while self.bytes < most and self.round():
            pass

    def run(self, stop: int, tick: Callable[[], float | None]) -> None:
        """Record until `stop`, a file, is ready; `tick` is called often, and says when again.

        (In seconds; None: whenever something happens.) Raises as round().
        """
        events, stopping = select.poll(), select.poll()
        events.register(stop, select.POLLIN)
        stopping.register(stop, select.POLLIN)
        for file in self._pipes:
            events.register(file, _READABLE)
        ready: list[tuple[int, int]] = []
        while all(file != stop for file, _ in ready):
            got = self.round()
            after = tick()
            if got:
                linger_s = self._linger_s if got < self._little else 0
                ready = stopping.poll(linger_s * 1000)
            else:
                # This, too, asks the mount.
                with self._pulse:
                    ready = events.poll(None if after is None else after * 1000)


def _empty(wake: int) -> None:
    try:
        while os.read(wake, 512):
            pass
    except BlockingIOError:
        return
