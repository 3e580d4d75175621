"""What is mounted where: /proc/self/mountinfo, and whether we still are."""

from __future__ import annotations

import errno
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import trio

FS_TYPE = "fuse.hyptracefs"
FUSE_DEVICE = Path("/dev/fuse")

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


class MountError(Exception):
    """It cannot be mounted there; says why and what to do."""


class Mount(NamedTuple):
    """A line of mountinfo (proc(5)), as far as we need it."""

    device: str  # "major:minor"
    mountpoint: str
    fs_type: str


def _unescape(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text


def mounts() -> Iterator[Mount]:
    """All mounts of our namespace, later ones on top of earlier ones."""
    for line in _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        columns = fields.split()
        yield Mount(columns[2], _unescape(columns[4]), rest.split()[0])


def mount_at(mountpoint: str) -> Mount | None:
    """What is mounted at `mountpoint`, on top."""
    found = None
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            found = mount
    return found


def check_mountpoint(mountpoint: str) -> None:
    """Raises MountError for what is no place to mount on."""
    try:
        is_dir = Path(mountpoint).is_dir()
    except OSError as error:
        is_dir = False
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise MountError(
                f"{mountpoint} is a dead mount: remove it first, with: umount -l {mountpoint}"
            ) from None
    if not is_dir:
        exists = os.path.lexists(mountpoint)
        why = "is not a directory" if exists else "does not exist: make it, with: mkdir -p"
        raise MountError(f"{mountpoint} {why}{'' if exists else ' ' + mountpoint}")
    above = mount_at(mountpoint)
    if above is not None and above.fs_type == FS_TYPE:
        raise MountError(
            f"{mountpoint} is a mount of hyptracefs already: end that first, with: "
            f"umount {mountpoint}"
        )


def check_fuse() -> None:
    """Raises MountError when this process will not be able to mount."""
    if not FUSE_DEVICE.exists():
        raise MountError(f"{FUSE_DEVICE} does not exist: load the module, with: modprobe fuse")
    if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
        raise MountError(f"{FUSE_DEVICE}: permission denied: run as root, or ask for access to it")
    if os.geteuid() and shutil.which("fusermount3") is None:
        raise MountError("fusermount3 not found: users other than root need the package fuse3")


class MountWatch:
    """Tells when a mount of ours has gone, also if somebody still has a file of it open.

    `mountpoint`, and the file descriptor of its /dev/fuse. A plain umount of an unused mount
    ends the FUSE session by itself; this is for umount -l and umount -f.
    """

    def __init__(self, mountpoint: str, fuse_fd: int) -> None:
        mount = mount_at(mountpoint)
        if mount is None:
            raise MountError(f"{mountpoint}: mounted, but gone again")
        self._device = mount.device
        self._mountinfo = _MOUNTINFO.open("rb")
        # An epoll within trio's: trio cannot wait for errors and priority events alone.
        self._epoll = select.epoll()
        self._epoll.register(self._mountinfo, select.EPOLLPRI)
        self._fuse_fd = fuse_fd
        self._epoll.register(fuse_fd, 0)

    async def wait_gone(self) -> str:
        """Wait until the mount has gone; how, for the log."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _events in self._epoll.poll(0):
                if fd == self._fuse_fd:
                    return "connection closed"
            if all(mount.device != self._device for mount in mounts()):
                return "unmounted"

    def close(self) -> None:
        """Stop watching."""
        self._epoll.close()
        self._mountinfo.close()


def detach(mountpoint: str) -> None:
    """Remove our mount if a lost connection has left it behind, dead."""
    mount = mount_at(mountpoint)
    if mount is not None and mount.fs_type == FS_TYPE:
        subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=False)
