"""Interrupts, splices, streams: what pyfuse3 lacks, through a hook into libfuse.

The order of imports matters: the hook's module must be there, for all to see, before
pyfuse3 looks for libfuse's functions. So import pyfuse3 from here, and nowhere else.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Protocol

import trio

from hyptracefs.processes import is_dying


def _import_hook() -> ModuleType:
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    try:
        from hyptracefs import _fuse_hook  # noqa: PLC0415
    finally:
        sys.setdlopenflags(flags)
    return _fuse_hook


_hook = _import_hook()

import pyfuse3  # noqa: E402

__all__ = ["PIPE", "STREAM", "FuseHook", "Requests", "pumping", "pyfuse3"]

log = logging.getLogger(__name__)

# To be set in the handle of an open file that has no position (FOPEN_STREAM).
STREAM: int = _hook.lib.FUSE_HOOK_STREAM
# Likewise, with the address of a struct pipe_end as the rest of it: what is there is read without
# Python.
PIPE: int = _hook.lib.FUSE_HOOK_PIPE

# What to do when a request is interrupted, for those that wait.
_interrupted: dict[int, Callable[[], None]] = {}


@_hook.ffi.def_extern()  # type: ignore[untyped-decorator]
def fuse_hook_interrupted(request: int) -> None:
    """Libfuse's word that the kernel wants `request` back. In the event loop's thread."""
    _interrupted.get(request, lambda: None)()


@contextmanager
def _cancelled_by(holds: Callable[[], bool]) -> Iterator[trio.CancelScope]:
    """Cancels what is inside when the request is interrupted and it `holds` then."""
    request = _hook.lib.fuse_hook_request
    with trio.CancelScope() as scope:

        def interrupted() -> None:
            if holds():
                scope.cancel()

        number = request.id
        if request.interrupted:
            interrupted()
        _interrupted[number] = interrupted
        try:
            yield scope
        finally:
            del _interrupted[number]


class _Floor(trio.abc.Instrument):
    """The event loop leaves the floor to the pump while it sleeps."""

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        _hook.lib.fuse_hook_leave()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        _hook.lib.fuse_hook_enter()


@contextmanager
def pumping(sources: Iterable[int]) -> Iterator[None]:
    """Run the pump, which takes all requests, and answers reads of pipes from these `sources`.

    Addresses of struct event_source, that live as long as the session. In the event loop, before
    its first request. Raises OSError EAGAIN when no thread can be had.
    """
    if not _hook.lib.fuse_hook_has_pump():
        yield
        return
    for source in sources:
        _hook.lib.fuse_hook_add(source)
    error = _hook.lib.fuse_hook_start()
    if error:
        raise OSError(-error, f"no thread for requests: {os.strerror(-error)}")
    floor = _Floor()
    trio.lowlevel.add_instrument(floor)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(floor)
        _hook.lib.fuse_hook_stop()


class Requests(Protocol):
    """What a handler needs to know of its request, beyond its arguments."""

    def nonblocking(self) -> bool:
        """Whether the open file has O_NONBLOCK now. To be asked before the first await."""

    def for_page_cache(self) -> int:
        """Inode whose page cache asks: a splice, a sendfile; 0: a read. To be asked likewise."""

    def interruptible(self) -> AbstractContextManager[trio.CancelScope]:
        """Cancels what is inside when a signal comes. Enter before awaiting."""

    def killable(self) -> AbstractContextManager[trio.CancelScope]:
        """Cancels what is inside when a signal ends the caller. Enter before awaiting."""

    def writer(self) -> int:
        """The process that writes. To be asked before the first await."""


class FuseHook:
    """Requests of the mounted session."""

    @staticmethod
    def check() -> None:
        """Make sure, after pyfuse3.init(), that the hook is in place. Raises RuntimeError."""
        if not _hook.lib.fuse_hook_was_hit():
            raise RuntimeError(
                "the hook into libfuse is not in place, so readers could not be interrupted: "
                "this libfuse or pyfuse3 is not supported"
            )
        if not _hook.lib.fuse_hook_sets_streams():
            log.warning(
                "the hook into libfuse sees no open files: of two processes that share one open "
                "pipe file, the second to read cannot be killed while the first one waits"
            )
        if not _hook.lib.fuse_hook_has_pump():
            log.warning(
                "the hook into libfuse sees no requests: reading is slower than it could be"
            )

    @staticmethod
    def session_fd() -> int:
        """File descriptor of /dev/fuse."""
        fd: int = _hook.lib.fuse_hook_session_fd()
        return fd

    @staticmethod
    def nonblocking() -> bool:
        """See Requests."""
        return bool(_hook.lib.fuse_hook_request.flags & os.O_NONBLOCK)

    @staticmethod
    def for_page_cache() -> int:
        """See Requests."""
        inode: int = _hook.lib.fuse_hook_request.cache
        return inode

    @staticmethod
    def interruptible() -> AbstractContextManager[trio.CancelScope]:
        """See Requests."""
        return _cancelled_by(lambda: True)

    @staticmethod
    def killable() -> AbstractContextManager[trio.CancelScope]:
        """See Requests."""
        return _cancelled_by(functools.partial(is_dying, _hook.lib.fuse_hook_request.caller))

    @staticmethod
    def writer() -> int:
        """See Requests."""
        thread: int = _hook.lib.fuse_hook_request.caller
        return thread
