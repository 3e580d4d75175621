"""The peer of raw reads: pyfuse3 that answers every read with the same bytes, and no more."""

from __future__ import annotations

import errno
import stat
import sys

import pyfuse3
import trio

_DATA = bytes(1 << 20)
_FILE = pyfuse3.InodeT(2)


class Constant(pyfuse3.Operations):
    async def _attributes(self, inode: pyfuse3.InodeT) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        kind = stat.S_IFREG | 0o400 if inode == _FILE else stat.S_IFDIR | 0o700
        entry.st_mode = pyfuse3.ModeT(kind)
        return entry

    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return await self._attributes(inode)

    async def lookup(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        if name != b"data":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self._attributes(_FILE)

    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(1), direct_io=True, keep_cache=False)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        return _DATA if size == len(_DATA) else _DATA[:size]


if __name__ == "__main__":
    pyfuse3.init(Constant(), sys.argv[1], set(pyfuse3.default_options))
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)
