"""Work that takes longer than the event loop should wait."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


async def in_thread(work: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
    """Do `work` in a thread, to its end, whoever cancels.

    Raises OSError ENOMEM when there is no thread to be had: then nothing has been done.
    """
    begun = False

    def run() -> _T:
        nonlocal begun
        begun = True
        return work(*args)

    try:
        return await trio.to_thread.run_sync(run)
    except RuntimeError as error:  # also what Python says at the limit of processes
        if begun:
            raise
        raise OSError(errno.ENOMEM, f"no thread to be had: {error}") from error
