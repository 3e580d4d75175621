"""Files that write, choose or stamp events."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from fnmatch import fnmatchcase

from hyptracefs.events import Event
from hyptracefs.files import Control, OpenControl, OpenFile, Place, Swallow, is_writable
from hyptracefs.kstrto import kstrtoull
from hyptracefs.processes import cpu_of
from hyptracefs.remote import Remote


class TraceClock:
    """`trace_clock` of a tracing directory: one clock, under any of the names that tools know.

    The stamps are boot time whatever is chosen. But trace-cmd prints times in seconds for
    some names only, `boot` not being one; hence `mono`, the same but for time in suspend.
    """

    names = ("local", "mono", "boot")

    def __init__(self) -> None:
        self._chosen: dict[Remote, str] = {}

    def _text(self, place: Place) -> str:
        chosen = self._chosen.get(place.remote, "mono")
        return " ".join(f"[{name}]" if name == chosen else name for name in self.names) + "\n"

    async def _store(self, place: Place, data: bytes) -> None:
        name = data.decode("ascii", errors="replace").strip()
        if name not in self.names:
            raise OSError(errno.EINVAL, f"trace_clock: there are {', '.join(self.names)}")
        self._chosen[place.remote] = name

    async def length(self, place: Place) -> int:
        return len(self._text(place))

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return OpenControl(Control(self._text, self._store), place)


class SelftestEvent:
    """`selftest_event` of V1 (SPEC E.6): opening it for writing emits one event.

    On the CPU of the caller. Its `id` counts these openings, from 1.
    """

    def __init__(self) -> None:
        self._written: dict[Remote, int] = {}

    async def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if is_writable(flags):
            value = self._written.get(place.remote, 0) + 1
            place.remote.write_event(cpu_of(caller), value)
            self._written[place.remote] = value
        return Swallow()


class _OpenWriteEvent(OpenFile):
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def write(self, data: bytes, caller: int) -> None:
        self._remote.write_event(cpu_of(caller), kstrtoull(data))


class WriteEvent:
    """`write_event` of mainline (SPEC E.6): a number written emits one event with it as `id`.

    On the CPU of who writes, which need not be who has opened it: `taskset echo 1 >file`.
    """

    async def length(self, place: Place) -> int:
        return 0

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        return _OpenWriteEvent(place.remote)


def event_names(remote: Remote, events: Iterable[Event]) -> str:
    """`events` as `set_event` and `available_events` show them."""
    return "".join(f"{remote.name}:{event.name}\n" for event in events)


class SetEvent:
    """`set_event` of an instance: which events are on, as `system:event`, one a line.

    Words written switch what they match on, or off with a `!`: a system, an event, or both
    with a `:`, with `*` and `?`. Opening it with O_TRUNC switches all off.
    """

    def _text(self, place: Place) -> str:
        remote = place.remote
        return event_names(remote, filter(remote.event_enabled, remote.events))

    async def _store(self, place: Place, data: bytes) -> None:
        for word in data.decode("ascii", errors="replace").split():
            pattern = word.removeprefix("!")
            events = [event for event in place.remote.events if _matches(event, pattern, place)]
            if not events:
                raise OSError(errno.EINVAL, f"set_event: {pattern!r}: there is no such event")
            place.remote.enable_events(events, on=pattern == word)

    async def length(self, place: Place) -> int:
        return len(self._text(place))

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if is_writable(flags) and flags & os.O_TRUNC:
            place.remote.enable_events(place.remote.events, on=False)
        return OpenControl(Control(self._text, self._store), place)


def _matches(event: Event, pattern: str, place: Place) -> bool:
    """`system:event`, where an empty part means all; or one word that is either."""
    system, colon, name = pattern.partition(":")
    if not colon:
        return any(fnmatchcase(each, pattern) for each in (place.remote.name, event.name))
    return fnmatchcase(place.remote.name, system or "*") and fnmatchcase(event.name, name or "*")
