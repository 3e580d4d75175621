"""Whether we can mount, and have mounted."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyptracefs.mount_table import FS_TYPE, mount_at

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


def detach(mountpoint: str) -> bool:
    """Take a mount away, dead or in use; False: a message on stderr says why not.

    Root need not have fusermount3.
    """
    program = ["fusermount3", "-u", "-z"] if os.geteuid() else ["umount", "-l"]
    return subprocess.run([*program, mountpoint], check=False).returncode == 0


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
            if not detach(mountpoint):
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
