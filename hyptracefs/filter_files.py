"""The files of event filters: `filter` of an event and of a system, and `error_log`."""

from __future__ import annotations

import errno
import os

from hyptracefs.files import Control, OpenFile, Place, Swallow, is_writable
from hyptracefs.filters import MAX_EXPRESSION


def _expression(data: bytes) -> str:
    """As the kernel, too long a text changes nothing and is no error of the expression."""
    if len(data) >= MAX_EXPRESSION:
        raise OSError(errno.EINVAL, f"filter: {MAX_EXPRESSION} bytes or more are too many")
    return data.decode("ascii", errors="replace").replace("\N{REPLACEMENT CHARACTER}", "?")


def show_event_filter(place: Place) -> str:
    return place.remote.filter_text(place.the_event)


async def store_event_filter(place: Place, data: bytes) -> None:
    """An expression, see filters.py; `0`: none. Raises OSError EINVAL; error_log says why."""
    place.remote.set_filter(place.the_event, _expression(data))


def show_system_filter(place: Place) -> str:
    return (
        "### global filter ###\n"
        "# Use this to set filters for multiple events.\n"
        "# Only events with the given fields will be affected.\n"
        "# If no events are modified, an error message will be displayed here\n"
    )


async def store_system_filter(place: Place, data: bytes) -> None:
    """The same for all events. Raises OSError EINVAL if no event has the fields."""
    place.remote.set_filters(_expression(data))


def show_error_log(place: Place) -> str:
    return place.remote.error_log.text()


class ErrorLogFile:
    """`error_log`: the last errors; opening it with O_TRUNC forgets them."""

    _shown = Control(show_error_log)

    async def length(self, place: Place) -> int:
        return await self._shown.length(place)

    async def open(self, place: Place, flags: int, caller: int) -> OpenFile:
        if not is_writable(flags):
            return await self._shown.open(place, flags, caller)
        if flags & os.O_TRUNC:
            place.remote.error_log.clear()
        return Swallow()
