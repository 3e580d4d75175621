"""What is mounted where: /proc/self/mountinfo."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FS_TYPE = "fuse.hyptracefs"

MOUNTINFO = Path("/proc/self/mountinfo")

_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A line of mountinfo (proc(5)), as far as we need it."""

    device: str  # "major:minor"
    mountpoint: str
    fs_type: str
    source: str  # what it says it is of


def _unescape(text: bytes) -> str:
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), text))


def mounts() -> Iterator[Mount]:
    """All mounts of our namespace, later ones on top of earlier ones."""
    # Bytes: a path may hold any of them, and the kernel escapes blank, tab, newline and
    # backslash only. What else Python takes for a blank or an end of line is part of it.
    for line in MOUNTINFO.read_bytes().split(b"\n"):
        columns, _, rest = line.partition(b" - ")
        fields = columns.split(b" ")
        if rest:
            places = (fields[4], *rest.split(b" ")[:2])
            yield Mount(fields[2].decode(), *map(_unescape, places))


def mount_at(mountpoint: str) -> Mount | None:
    """What is mounted at `mountpoint`, on top."""
    found = None
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            found = mount
    return found
