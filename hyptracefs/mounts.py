"""What is mounted where: /proc/self/mountinfo, and whether we still are."""

from __future__ import annotations

import errno
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def _watch(fuse_fd: int) -> Iterator[select.epoll]:
    """Wakes for a change of the mount table, and for an error of `fuse_fd`.

    To be waited for from trio's own epoll, which cannot wait for such events alone.
    """
    with _MOUNTINFO.open("rb") as mountinfo, select.epoll() as epoll:
        epoll.register(mountinfo, select.EPOLLPRI)
        epoll.register(fuse_fd, 0)
        yield epoll


class OwnMount:
    """The mount that this process has just made at `mountpoint`.

    Told by its device number: by the time we look again, somebody else may have mounted
    at the same place.
    """

    def __init__(self, mountpoint: str) -> None:
        mount = mount_at(mountpoint)
        if mount is None:
            raise MountError(f"{mountpoint}: mounted, but gone again")
        self._mountpoint = mountpoint
        self._device = mount.device

    def is_there(self) -> bool:
        """Whether an umount of the mountpoint would remove our mount, and no other."""
        mount = mount_at(self._mountpoint)
        return mount is not None and mount.device == self._device

    def detach(self) -> None:
        """Remove what a lost connection has left behind, dead."""
        if self.is_there():
            subprocess.run(["fusermount3", "-u", "-z", self._mountpoint], check=False)

    async def wait_gone(self, fuse_fd: int) -> str:
        """Wait until it has gone, also if somebody still has a file of it open; says how.

        A plain umount of an unused mount ends the FUSE session by itself; this is for
        umount -l, and for umount -f, which cuts the connection behind `fuse_fd`.
        """
        with _watch(fuse_fd) as epoll:
            while True:
                await trio.lowlevel.wait_readable(epoll.fileno())
                if any(fd == fuse_fd for fd, _events in epoll.poll(0)):
                    return "connection closed"
                if all(mount.device != self._device for mount in mounts()):
                    return "unmounted"
