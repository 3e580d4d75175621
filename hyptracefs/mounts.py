"""Whether we can mount, have mounted, and still are."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from hyptracefs.mount_table import FS_TYPE, MOUNTINFO, mount_at, mounts

log = logging.getLogger(__name__)

FUSE_DEVICE = Path("/dev/fuse")


class MountError(Exception):
    """It cannot be mounted there; says why and what to do."""


_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)  # what a mount answers that has lost its server


def _is_our_dead_mount(mountpoint: str) -> bool:
    try:
        Path(mountpoint).stat()
    except OSError as error:
        mount = mount_at(mountpoint)
        return error.errno in _DEAD and mount is not None and mount.fs_type == FS_TYPE
    return False


def clear_dead_mounts(mountpoint: str) -> None:
    """Remove what a server of ours that was killed has left at `mountpoint`, and nothing else.

    One process at a time, looking again: what another has mounted meanwhile is not dead. And
    nobody mounts over a dead mount of ours before it is removed.
    """
    if not _is_our_dead_mount(mountpoint):
        return
    with reserved(os.path.dirname(mountpoint)):  # noqa: PTH120 (it is canonical)
        while _is_our_dead_mount(mountpoint):
            log.warning("%s: a dead mount of hyptracefs was there: removed", mountpoint)
            if subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=False).returncode:
                return  # check_mountpoint() says what to do


def _check_directory(mountpoint: str) -> None:
    try:
        status = Path(mountpoint).stat()
    except FileNotFoundError:
        remedy = f"make it, with: mkdir -p {mountpoint}"
        raise MountError(f"{mountpoint} does not exist: {remedy}") from None
    except OSError as error:
        if error.errno in _DEAD:
            remedy = f"remove it first, with: umount -l {mountpoint}"
            raise MountError(f"{mountpoint} is a dead mount: {remedy}") from None
        raise MountError(f"{mountpoint}: {error.strerror}: choose a directory of yours") from None
    if not stat.S_ISDIR(status.st_mode):
        raise MountError(f"{mountpoint} is not a directory: choose one that is")


def check_mountpoint(mountpoint: str) -> None:
    """Raises MountError for what is no place to mount on."""
    _check_directory(mountpoint)
    above = mount_at(mountpoint)
    if above is not None and above.fs_type == FS_TYPE:
        raise MountError(
            f"{mountpoint} is a mount of hyptracefs already: end that first, with: "
            f"umount {mountpoint}"
        )


def check_mounted(mountpoint: str) -> None:
    """Raises MountError unless a hyptracefs that answers is mounted there."""
    try:
        Path(mountpoint).stat()
    except OSError as error:
        raise MountError(f"{mountpoint}: mounted, but does not answer: {error.strerror}") from None
    mount = mount_at(mountpoint)
    if mount is None or mount.fs_type != FS_TYPE:
        raise MountError(f"{mountpoint}: mounted, but ended at once: run it with -d to see why")


@contextmanager
def reserved(mountpoint: str) -> Iterator[None]:
    """Nobody else mounts there meanwhile: for checking and mounting as one step."""
    directory = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


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
    with MOUNTINFO.open("rb") as mountinfo, select.epoll() as epoll:
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
        return self._is_on_top(self._mountpoint)

    def _is_on_top(self, where: str) -> bool:
        mount = mount_at(where)
        return mount is not None and mount.device == self._device

    def detach(self) -> None:
        """Remove what is left of it, dead, here and where it was bound or moved to."""
        ours = [mount.mountpoint for mount in mounts() if mount.device == self._device]
        for where in reversed(ours):
            if self._is_on_top(where):
                subprocess.run(["fusermount3", "-u", "-z", where], check=False)
            else:
                log.warning("%r: something is mounted over our mount: it stays, dead", where)

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
