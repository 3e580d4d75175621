"""hyptracefs, of which one allocation can be made to fail: the server of test_no_memory.py.

    python -m tests.failing_server FAULTS, and then what hyptracefs takes

FAULTS is a file of 8 bytes, a number: 1: the next allocation fails, n: the n-th from now; then
it is 0 again. Allocations are what the host asks the machine for because of a request: memory
of C, large pieces of Python's, a memfd and its pages, their mapping, sockets, threads,
processes. (Not the small objects of Python, trio and pyfuse3: these have no answer to that.)
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio._threads

from hyptracefs import _conduit, _ringbuf, conduit, ring_buffer
from hyptracefs.cli import main
from hyptracefs.ring_buffer import Geometry

_real_mmap = mmap.mmap


class Faults:
    """The number in FAULTS, for both sides."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, 8)
        self._map = _real_mmap(fd, 8)
        os.close(fd)

    @property
    def left(self) -> int:
        """Allocations until one fails, and that one; 0: none does."""
        left: int = struct.unpack("<q", self._map)[0]
        return left

    @left.setter
    def left(self, left: int) -> None:
        self._map[:] = struct.pack("<q", left)

    def due(self) -> bool:
        """For each allocation: whether it is the one."""
        left = self.left
        if left:
            self.left = left - 1
        return left == 1


def _failing(
    call: Callable[..., Any], faults: Faults, error: Callable[[], Exception]
) -> Callable[..., Any]:
    def failing(*args: Any, **kwargs: Any) -> Any:
        if faults.due():
            raise error()
        return call(*args, **kwargs)

    return failing


class _FailingFfi:
    """`ffi` whose allocations may fail."""

    def __init__(self, ffi: Any, faults: Faults) -> None:
        self._ffi = ffi
        self.new = _failing(ffi.new, faults, MemoryError)
        self.from_buffer = _failing(ffi.from_buffer, faults, MemoryError)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ffi, name)


class _FailingConduits:
    def __init__(self, lib: Any, faults: Faults) -> None:
        self._lib = lib
        self._faults = faults

    def socket_conduit_create(self, fd: int) -> int:
        return 0 if self._faults.due() else self._lib.socket_conduit_create(fd)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)


def _break(faults: Faults) -> None:
    """From now on."""
    vars(ring_buffer)["ffi"] = _FailingFfi(_ringbuf.ffi, faults)
    vars(conduit)["lib"] = _FailingConduits(_conduit.lib, faults)
    vars(ring_buffer)["bytearray"] = _failing(bytearray, faults, MemoryError)
    places: tuple[tuple[Any, str, Callable[[], Exception]], ...] = (
        (Geometry, "descriptor", MemoryError),
        (os, "memfd_create", partial(OSError, errno.ENOMEM, "on purpose")),
        (os, "posix_fallocate", partial(OSError, errno.ENOSPC, "on purpose")),
        (mmap, "mmap", partial(OSError, errno.ENOMEM, "on purpose")),
        (socket, "socketpair", partial(OSError, errno.ENFILE, "on purpose")),
        (subprocess, "Popen", partial(OSError, errno.EAGAIN, "on purpose")),
        (trio._threads, "start_thread_soon", partial(RuntimeError, "on purpose")),
    )
    for owner, name, error in places:
        setattr(owner, name, _failing(getattr(owner, name), faults, error))


if __name__ == "__main__":
    _break(Faults(Path(sys.argv.pop(1))))
    sys.exit(main())
