"""Where hypervisors come from: what the first argument of the command names.

A source attaches to a hypervisor in another process; when that one is gone, it can attach
to the next one.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from hypervisor_model import EventInfo, FormatTable, SymbolTable
from hyptracefs.conduit import SocketConduit
from hyptracefs.event_table import (
    HAS_DOORBELL,
    MAX_MESSAGE,
    Hello,
    check_table,
    decode_event,
    decode_formats,
    decode_hello,
    decode_symbols,
    join_formats,
)
from hyptracefs.hypercalls import Hypercalls, Traits
from hyptracefs.options import Options, UsageError

log = logging.getLogger(__name__)

# A hypervisor that listens says hello at once.
_PATIENCE_S = 5.0
_UNIX = "unix:"

SOURCES = {
    "model": "a hypervisor model in a process of its own, which ends with the mount",
    "unix:PATH": "the hypervisor that listens at this socket (hyp-model --listen PATH)",
}


@dataclass(frozen=True)
class Introduction:
    """What a hypervisor says of itself."""

    hello: Hello
    events: tuple[EventInfo, ...]
    symbol_tables: tuple[SymbolTable, ...]
    format_tables: tuple[FormatTable, ...]

    def lasting(self) -> Introduction:
        """What files are made from. The others may be others each time."""
        passing = self.hello._replace(counter=0, counter_hz=0, nr_spares=0, flags=0)
        return replace(self, hello=passing)

    def of_next(self, hello: Hello) -> Introduction:
        """Of one that is like it: with what we have already, so that memory stays where it is."""
        return replace(self, hello=hello)


@dataclass
class Attachment:
    """A hypervisor that has introduced itself, and how to call it."""

    introduction: Introduction
    conduit: SocketConduit
    end: Callable[[], None]

    def close(self) -> None:
        """Hang up; a hypervisor that was started for us ends. A second call does nothing."""
        self.conduit.close()
        self.end()


class Source(Protocol):
    """Something that can be attached to, again and again."""

    def attach(self) -> Attachment:
        """Attach. Blocks for some time at most. Raises OSError that says who and why."""


def _receive(connection: socket.socket) -> bytes:
    message, _, flags, _ = connection.recvmsg(MAX_MESSAGE)
    if not message:
        raise OSError(errno.ECONNRESET, "it has hung up before it had introduced itself")
    if flags & socket.MSG_TRUNC:
        raise OSError(errno.EPROTO, f"a message of more than {MAX_MESSAGE} bytes")
    return message


def _listen_to(connection: socket.socket) -> Introduction:
    hello = decode_hello(_receive(connection))
    if hello.error:
        raise OSError(hello.error, f"it refuses: {os.strerror(hello.error)}")
    events = tuple(decode_event(_receive(connection)) for _ in range(hello.nr_events))
    tables = tuple(decode_symbols(_receive(connection)) for _ in range(hello.nr_symbols))
    formats = join_formats(decode_formats(_receive(connection)) for _ in range(hello.nr_formats))
    check_table(events, tables, formats)
    return Introduction(hello, events, tables, formats)


def _shake_hands(connection: socket.socket, who: str, end: Callable[[], None]) -> Attachment:
    """Raises OSError; then `connection` is closed and `end` has been called."""
    try:
        connection.settimeout(_PATIENCE_S)
        introduction = _listen_to(connection)
        connection.setblocking(False)
        return Attachment(introduction, SocketConduit(connection), end)
    except BaseException as error:
        connection.close()
        end()
        if isinstance(error, TimeoutError):
            raise OSError(errno.ETIMEDOUT, f"{who}: it says nothing") from None
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{who}: {error.strerror}") from None
        raise


def _nothing() -> None:
    pass


class SocketSource:
    """The hypervisor that listens at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def attach(self) -> Attachment:
        """As Source."""
        who = f"hypervisor at {self._path}"
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(_PATIENCE_S)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            why = os.strerror(error.errno) if error.errno else str(error)
            hint = "start it: hyp-model --listen PATH"
            raise OSError(error.errno or errno.EINVAL, f"{who}: {why} ({hint})") from error
        return _shake_hands(connection, who, _nothing)


class _StartedModel(NamedTuple):
    """A hypervisor model of our own, which may not have said anything yet."""

    connection: socket.socket
    process: subprocess.Popen[bytes]

    def end(self) -> None:
        """When we have hung up, it ends."""
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            log.warning("model: process %d does not end: killed", self.process.pid)
            self.process.kill()
            self.process.wait()


class ModelSource:
    """A hypervisor model of our own.

    The first one is started at once, so that it gets ready while we do.
    """

    def __init__(self, cpus: int | None, workload: str | None) -> None:
        """None: what the model takes by itself."""
        chosen = {"--cpus": cpus, "--workload": workload}
        self._arguments = [f"{name}={value}" for name, value in chosen.items() if value is not None]
        self._next: _StartedModel | None = self._start()

    def _start(self) -> _StartedModel:
        """It ends when we hang up, in whatever way we end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "hypervisor_model", f"--fd={theirs.fileno()}"]
        with theirs:
            process = subprocess.Popen(
                command + self._arguments,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,  # ^C on a terminal is for the mount
            )
        return _StartedModel(ours, process)

    def attach(self) -> Attachment:
        """As Source."""
        model = self._next or self._start()
        self._next = None
        return _shake_hands(model.connection, "hypervisor model", model.end)


def canonical_source(name: str) -> str:
    """`name` in a form that means the same everywhere. Raises UsageError."""
    if name == "model":
        return name
    if name.startswith(_UNIX) and len(name) > len(_UNIX):
        return f"{_UNIX}{Path(name.removeprefix(_UNIX)).absolute()}"
    raise UsageError(f"unknown source {name!r}: there is {', '.join(SOURCES)}")


def check_choices(name: str, options: Options) -> None:
    """Raises UsageError for options that a canonical name has no use for."""
    if not name.startswith(_UNIX):
        return
    for option in ("cpus", "workload"):
        if getattr(options, option) is not None:
            raise UsageError(
                f"option {option}: {name} has its own; give it to the hypervisor that listens "
                f"there (hyp-model --{option} ...)"
            )


def source_of(name: str, options: Options) -> Source:
    """The source that a canonical name names."""
    if name.startswith(_UNIX):
        return SocketSource(Path(name.removeprefix(_UNIX)))
    return ModelSource(options.cpus, options.workload)


class Hypervisors:
    """The hypervisor that a mount is attached to: one after the other, from one source.

    The files of the mount stay as the first one wanted them: another one has to be like it.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.current = source.attach()

    @property
    def cpus(self) -> int:
        """How many CPUs they have."""
        return self.current.introduction.hello.cpus

    def calls(self) -> Hypercalls:
        """The hypercalls of the current one."""
        conduit, hello = self.current.conduit, self.current.introduction.hello
        traits = Traits(
            hello.counter, hello.counter_hz, hello.nr_spares, bool(hello.flags & HAS_DOORBELL)
        )
        return Hypercalls(conduit.address, hello.cpus, conduit.gone, traits, conduit.lifeline)

    def attach_next(self) -> Hypercalls:
        """Attach to the next one, and hang up on this one. Raises OSError ENODEV.

        When it fails, the calls to this one still fail as before.
        """
        try:
            attached = self._source.attach()
        except OSError as error:
            raise OSError(errno.ENODEV, error.strerror) from error
        if attached.introduction.lasting() != self.current.introduction.lasting():
            attached.close()
            raise OSError(
                errno.ENODEV,
                "who is there now has another name, other CPUs or events: mount anew",
            )
        self.current.close()
        introduction = self.current.introduction.of_next(attached.introduction.hello)
        self.current = replace(attached, introduction=introduction)
        return self.calls()

    def close(self) -> None:
        """Hang up."""
        self.current.close()
