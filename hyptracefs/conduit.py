"""Hypercalls to a hypervisor in another process. The one module that touches its ffi."""

from __future__ import annotations

import os
import select
import socket
import weakref

from hyptracefs._conduit import lib


class SocketConduit:
    """A hypervisor at the other end of `connection`, which it takes over.

    `address` is that of the C conduit, through which calls and swaps are made without the
    GIL. It is good as long as this object lives: after close(), calls through it fail.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._fd = connection.detach()
        self.address: int = lib.socket_conduit_create(self._fd)
        if not self.address:
            os.close(self._fd)
            raise MemoryError
        weakref.finalize(self, lib.socket_conduit_destroy, self.address)

    @property
    def lifeline(self) -> int:
        """A file descriptor that hangs up when it is gone."""
        return self._fd

    def gone(self) -> str:
        """Why nobody answers any more; empty while somebody does."""
        error = lib.socket_conduit_error(self.address)
        if error:
            return os.strerror(-error)
        look = select.poll()
        look.register(self._fd, 0)
        return "it has ended" if look.poll(0) else ""

    def close(self) -> None:
        """Hang up. A second call does nothing."""
        lib.socket_conduit_hang_up(self.address)
