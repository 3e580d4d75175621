"""The tree as a FUSE file system: requests to files, errors to errno, and logging."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import reprlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeAlias, TypeVar, cast

from hyptracefs.files import OpenFile
from hyptracefs.fuse_hook import PIPE, STREAM, Requests, pyfuse3
from hyptracefs.streams import RawPipe
from hyptracefs.threads import in_thread
from hyptracefs.tree import Node, Tree

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_Handler: TypeAlias = "Callable[Concatenate[TraceOperations, _P], Coroutine[Any, Any, _T]]"

_BLOCK_SIZE = 4096
_STAT_BLOCK = 512  # of st_blocks
_NAME_MAX = 255

# Bits of an inode number that tell the nodes apart; see TraceOperations.lookup().
_NODE_BITS = 32
_NODE_MASK = (1 << _NODE_BITS) - 1


def _shown(argument: object) -> str:
    """Of a request's arguments, what a person can read."""
    if hasattr(argument, "pid"):  # a context
        return f"pid {argument.pid}"
    return reprlib.repr(argument) if isinstance(argument, int | bytes) else ""


class _Request(NamedTuple):
    """For the log: made into text only if it is written."""

    name: str
    arguments: tuple[object, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(filter(None, map(_shown, self.arguments)))})"


def _guarded(
    handler: _Handler[_P, _T],
) -> _Handler[_P, _T]:
    """The one door for errors: OSError becomes its errno, a bug becomes EIO and a log entry.

    MemoryError is no bug.

    Without it, any other exception would end the mount.
    """
    name = handler.__name__

    @functools.wraps(handler)
    async def guarded(self: TraceOperations, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        request = _Request(name, args)
        try:
            log.debug("%s", request)
            return await handler(self, *args, **kwargs)
        except OSError as error:
            log.debug("%s: %s", request, error)
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        except MemoryError as error:
            log.warning("%s: out of memory", name)
            raise pyfuse3.FUSEError(errno.ENOMEM) from error
        except Exception as error:
            log.exception("%s: a bug; answered with EIO", request)
            raise pyfuse3.FUSEError(errno.EIO) from error

    return cast("_Handler[_P, _T]", guarded)


def _refused(number: int, what: str) -> Any:
    """A handler for what a tracing directory lets nobody do."""

    async def refuse(self: TraceOperations, *args: object) -> None:
        raise OSError(number, what)

    return _guarded(refuse)


class Owner(NamedTuple):
    """Whose the files are."""

    uid: int
    gid: int


def _interrupted() -> OSError:
    return InterruptedError(errno.EINTR, "interrupted")


async def _drop_cache(inode: int) -> None:
    """Nobody will ask for these pages again, and the kernel would keep them all the same.

    In a thread: the kernel waits for pages that it has asked us for. To its end: the session
    must outlive it.
    """
    drop = functools.partial(pyfuse3.invalidate_inode, pyfuse3.InodeT(inode))
    with contextlib.suppress(OSError):  # forgotten already; no thread to be had
        await in_thread(drop)


class TraceOperations(pyfuse3.Operations):
    """Handlers of FUSE requests on `tree`, whose files are `owner`'s (None: ours).

    `ready` is called once the kernel is connected.
    """

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self,
        tree: Tree,
        requests: Requests,
        ready: Callable[[], None] = lambda: None,
        owner: Owner | None = None,
    ) -> None:
        super().__init__()
        self._tree = tree
        self._owner = owner or Owner(os.getuid(), os.getgid())
        self._requests = requests
        self._ready = ready
        self._files: dict[int, OpenFile] = {}
        self._next_handle = 0
        self._lookups = 0
        self._cached: dict[int, int] = {}  # inodes by the handles that were spliced from
        self._mounted_ns = time.time_ns()

    def init(self) -> None:
        self._ready()

    # --- names and attributes ---------------------------------------------------------------

    async def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(node.inode)
        entry.st_mode = pyfuse3.ModeT(node.mode)
        entry.st_nlink = node.nlink
        entry.st_size = await node.size()
        entry.st_uid = self._owner.uid
        entry.st_gid = self._owner.gid
        entry.st_blksize = _BLOCK_SIZE
        # No fewer than its length takes: cp would look for holes, where it cannot seek.
        entry.st_blocks = -(-entry.st_size // _STAT_BLOCK)
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._mounted_ns
        # Lengths change with every write: nothing is to be remembered.
        entry.attr_timeout = 0
        entry.entry_timeout = 0
        return entry

    def _node(self, inode: int) -> Node:
        return self._tree.node(inode & _NODE_MASK)

    def _child(self, parent: Node, name: bytes) -> Node:
        if name == b".":
            return parent
        if name == b"..":
            return parent.parent or parent
        if len(name) > _NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, "the name is too long")
        try:
            return parent.children[os.fsdecode(name)]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, f"{name!r}: no such file") from None

    @_guarded
    async def lookup(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        node = self._child(self._node(parent_inode), name)
        entry = await self._attributes(node)
        if node.file is not None and isinstance(node.file.kind, RawPipe):
            # The kernel keeps what is spliced by inode, and would give the pages of one reader
            # to the next: a new inode for each, with the number of the node in its low bits.
            # What stat shows is getattr's.
            self._lookups += 1
            entry.st_ino = pyfuse3.InodeT(self._lookups << _NODE_BITS | node.inode)
        return entry

    @_guarded
    async def getattr(
        self,
        inode: pyfuse3.InodeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        return await self._attributes(self._node(inode))

    @_guarded
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise PermissionError(errno.EPERM, "modes and owners are fixed")
        # Truncation and times: accepted, without effect.
        return await self._attributes(self._node(inode))

    @_guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK_SIZE
        data.f_namemax = _NAME_MAX
        return data

    # --- directories ---------------------------------------------------------------------------

    @_guarded
    async def opendir(
        self,
        inode: pyfuse3.InodeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    @_guarded
    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        node = self._tree.node(fh)
        entries = [(".", node), ("..", node.parent or node), *node.children.items()]
        for number, (name, child) in enumerate(entries[start_id:], start_id + 1):
            encoded = pyfuse3.FileNameT(os.fsencode(name))
            if not pyfuse3.readdir_reply(token, encoded, await self._attributes(child), number):
                break

    # --- files ------------------------------------------------------------------------------------

    @_guarded
    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        node = self._node(inode)
        if node.file is None:
            raise IsADirectoryError(errno.EISDIR, f"{node.path}: is a directory")
        with self._requests.killable():
            return self._opened(await node.file.open(flags, ctx.pid))
        raise _interrupted()

    def _handle(self, file: OpenFile) -> pyfuse3.FileHandleT:
        """Never that of another open file."""
        if file.pipe and not log.isEnabledFor(logging.DEBUG):  # each request is to be logged
            return pyfuse3.FileHandleT(STREAM | PIPE | file.pipe)
        self._next_handle += 1
        return pyfuse3.FileHandleT(self._next_handle | (STREAM if file.stream else 0))

    def _opened(self, file: OpenFile) -> pyfuse3.FileInfo:
        handle = self._handle(file)
        self._files[handle] = file
        return pyfuse3.FileInfo(
            fh=handle, direct_io=True, keep_cache=False, nonseekable=not file.seekable
        )

    @_guarded
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        if inode := self._requests.for_page_cache():
            self._cached[fh] = inode
            return await self._files[fh].read_cached(size, off)
        nonblock = self._requests.nonblocking()
        with self._requests.interruptible():
            # pyfuse3 takes any buffer, and does not copy it.
            return cast("bytes", await self._files[fh].read(size, off, nonblock))
        raise _interrupted()

    @_guarded
    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        writer = self._requests.writer()
        with self._requests.killable():
            await self._files[fh].write(buf, writer)
            return len(buf)
        raise _interrupted()

    @_guarded
    async def poll(
        self,
        inode: pyfuse3.InodeT,
        fh: pyfuse3.FileHandleT,
        poll_handle: pyfuse3.PollHandle | None,
        ctx: pyfuse3.RequestContext,
    ) -> int:
        # Never ENOSYS, for no file: the kernel would take all files for always ready.
        return self._files[fh].poll(None if poll_handle is None else poll_handle.notify)

    @_guarded
    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        """Comes once per close of any copy of a descriptor: nothing ends here."""

    @_guarded
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        # No await before this: what is read after `kill; wait` must show it.
        file = self._files.pop(fh)
        file.release()
        if inode := self._cached.pop(fh, 0) or file.cached:
            await _drop_cache(inode)

    # --- what nobody may do -------------------------------------------------------------------

    create = _refused(errno.EACCES, "no files can be made here")
    mknod = symlink = link = create
    mkdir = _refused(errno.EPERM, "the tree is fixed")
    unlink = rmdir = rename = mkdir
