"""Interrupted reads: what pyfuse3 does not pass on, through a hook into libfuse.

The order of imports matters: the hook's module must be there, for all to see, before
pyfuse3 looks for libfuse's functions. So import pyfuse3 from here, and nowhere else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Protocol

import trio


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

__all__ = ["FuseHook", "Requests", "pyfuse3"]

_scopes: dict[int, trio.CancelScope] = {}


@_hook.ffi.def_extern()  # type: ignore[untyped-decorator]
def fuse_hook_interrupted(request: int) -> None:
    """Libfuse's word that the kernel wants `request` back. In the event loop's thread."""
    scope = _scopes.get(request)
    if scope is not None:
        scope.cancel()


class Requests(Protocol):
    """What a handler needs to know of its request, beyond its arguments."""

    def nonblocking(self) -> bool:
        """Whether the open file has O_NONBLOCK now. To be asked before the first await."""

    def interruptible(self) -> AbstractContextManager[trio.CancelScope]:
        """Cancels what is inside when the request is interrupted. Enter before awaiting."""

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

    @staticmethod
    def session_fd() -> int:
        """File descriptor of /dev/fuse."""
        fd: int = _hook.lib.fuse_hook_session_fd()
        return fd

    @staticmethod
    def nonblocking() -> bool:
        """See Requests."""
        return bool(_hook.lib.fuse_hook_read.flags & os.O_NONBLOCK)

    @staticmethod
    @contextmanager
    def interruptible() -> Iterator[trio.CancelScope]:
        """See Requests."""
        request = _hook.lib.fuse_hook_read.id
        with trio.CancelScope() as scope:
            if _hook.lib.fuse_hook_read.interrupted:
                scope.cancel()
            _scopes[request] = scope
            try:
                yield scope
            finally:
                del _scopes[request]

    @staticmethod
    def writer() -> int:
        """See Requests."""
        process: int = _hook.lib.fuse_hook_writer
        return process
