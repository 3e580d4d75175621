"""A command that is ready to run before something begins, and runs at once when it has.

To start a process takes longer than a small buffer lasts.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import NoReturn

import click

# As env(1), and as shells have it: and the number of the signal.
CANNOT_RUN, NOT_FOUND, SIGNALLED = 126, 127, 128

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
# Python ignores these for itself, and the command would inherit that.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)


def _become(command: Sequence[str], gate: int) -> NoReturn:
    """The child: wait for the word, then be `command`."""
    status = 0
    try:
        signal.set_wakeup_fd(-1)
        for number in (*_SIGNALS, *_IGNORED):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if os.read(gate, 1):
            os.execvp(command[0], [*command])  # noqa: S606
    except OSError as error:
        click.echo(f"hyptrace: {command[0]}: {error.strerror}", err=True)
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
    finally:
        os._exit(status)


class HeldCommand:
    """`command` in a process of its own, which waits for go()."""

    def __init__(self, command: Sequence[str]) -> None:
        self._status: int | None = None
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        # A signal for it must not end in a handler of ours.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            _become(command, gate)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(gate)

    def go(self) -> None:
        """Run."""
        with contextlib.suppress(BrokenPipeError):  # a signal has ended it
            os.write(self._gate, b"!")
        self._close_gate()

    def disown(self) -> None:
        """In a child of ours: it waits for our word, and nobody else's."""
        self._close_gate()

    def abandon(self) -> None:
        """If it does not run yet it never will."""
        if self._gate >= 0:
            self._close_gate()
            os.waitpid(self.pid, 0)
            self._status = 0

    def _close_gate(self) -> None:
        os.close(self._gate)
        self._gate = -1

    def poll(self) -> int | None:
        """Exit status, 128 and the number of the signal that has ended it; None: it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._status = code if code >= 0 else SIGNALLED - code
        return self._status

    def send_signal(self, number: int) -> None:
        """Pass on a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)
