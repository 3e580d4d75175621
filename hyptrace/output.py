"""Files that are written: none is overwritten unasked, and a full disk costs only the rest."""

from __future__ import annotations

import errno
import os
from pathlib import Path

STDOUT = "-"


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise OSError EEXIST if there is something at `path`, and it is not to be overwritten."""
    if not force and (path.exists() or path.is_symlink()):
        raise OSError(errno.EEXIST, "exists; --force overwrites it", str(path))


class OutFile:
    """A file that takes whole pieces: what has been written of one that does not fit is undone."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self.size = 0
        self._is_stdout = str(path) == STDOUT
        if self._is_stdout:
            self._file = os.dup(1)
            return
        refuse_existing(path, force=force)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o666)

    def write(self, piece: bytes | memoryview) -> None:
        """Append `piece`. Raises OSError; the file then ends with the piece before."""
        left = memoryview(piece)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            self._undo(error)
        self.size += len(piece)

    def _undo(self, error: OSError) -> None:
        if error.errno == errno.EPIPE or self._is_stdout:
            raise error
        os.ftruncate(self._file, self.size)
        raise OSError(
            error.errno, f"{error.strerror}; the {self.size} bytes before are kept", str(self.path)
        ) from None

    def close(self) -> None:
        """Close it. Raises OSError when the disk has not taken what it was given."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
