"""The mount that this process has made: whether it is still there, and its end."""

from __future__ import annotations

import logging
import select
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from hyptracefs.mount_table import MOUNTINFO, mount_at, mounts
from hyptracefs.mounts import MountError, detach

log = logging.getLogger(__name__)


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
                detach(where)
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
