"""A reader of the soak: reads FILE in one of the ways that programs read, until SIGTERM.

    python -m tests.soak_reader HOW FILE SIZE OUT

What it has got is in OUT when it ends (and in OUT.child, of one that shares its descriptor with
a child). It never drops what a read has given: by ctypes, because Python's own read is made
again after a signal, and so would not end.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_PAGE = 4096
_LOOK_MS = 50

_libc = ctypes.CDLL(None, use_errno=True)
_libc.read.restype = ctypes.c_ssize_t

_ended = False


def _end(*_: object) -> None:
    global _ended  # noqa: PLW0603
    _ended = True


def _read(fd: int, size: int) -> bytes | None:
    """What one read(2) gives; None when there is nothing to be had now."""
    room = ctypes.create_string_buffer(size)
    done: int = _libc.read(fd, room, ctypes.c_size_t(size))
    if done >= 0:
        return room.raw[:done]
    if ctypes.get_errno() in (errno.EINTR, errno.EAGAIN):
        return None
    raise OSError(ctypes.get_errno(), f"read: {os.strerror(ctypes.get_errno())}")


def _copy(fd: int, size: int, out: Path, wait: Callable[[], object] = lambda: None) -> None:
    with out.open("ab", buffering=0) as file:
        while not _ended:
            wait()
            file.write(_read(fd, size) or b"")


def _blocking(path: str, size: int, out: Path) -> None:
    _copy(os.open(path, os.O_RDONLY), size, out)


def _polling(path: str, size: int, out: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    _copy(fd, size, out, lambda: poll.poll(_LOOK_MS))


def _late_nonblocking(path: str, size: int, out: Path) -> None:
    """Blocks for its first piece, and then no more."""
    fd = os.open(path, os.O_RDONLY)
    first = None
    while not _ended and first is None:
        first = _read(fd, size)
    out.write_bytes(first or b"")
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
    _copy(fd, size, out, lambda: select.select([fd], [], [], _LOOK_MS / 1000))


def _shared(path: str, size: int, out: Path) -> None:
    """Two processes, one open file."""
    fd = os.open(path, os.O_RDONLY)
    child = os.fork()
    if not child:
        _copy(fd, size, out.with_suffix(".child"))
        os._exit(0)
    try:
        _copy(fd, size, out)
    finally:
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            os.kill(child, signal.SIGTERM)
            select.select([], [], [], _LOOK_MS / 1000)


def _splicing(path: str, size: int, out: Path) -> None:  # noqa: ARG001
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    reading, writing = os.pipe()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    with out.open("wb", buffering=0) as file:  # nothing can be spliced to the end of a file
        while not _ended:
            poll.poll(_LOOK_MS)
            try:
                done = os.splice(fd, writing, _PAGE, flags=os.SPLICE_F_NONBLOCK)
            except (BlockingIOError, InterruptedError):
                continue
            while done:
                done -= os.splice(reading, file.fileno(), done)


WAYS: dict[str, Callable[[str, int, Path], None]] = {
    "blocking": _blocking,
    "polling": _polling,
    "late-nonblock": _late_nonblocking,
    "shared": _shared,
    "splice": _splicing,
}


def main() -> int:
    """Exit status 0: told to end; 3: the file system has gone."""
    how, path, size, out = sys.argv[1:]
    signal.signal(signal.SIGTERM, _end)
    WAYS[how](path, int(size), Path(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
