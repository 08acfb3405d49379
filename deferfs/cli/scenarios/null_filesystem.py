"""The least that a filesystem in Python can do: dictionaries in memory, served by pyfuse3 with our readers.

It keeps no permissions, no times, no journal and no disk. What it takes for an operation is the price of Python, trio,
pyfuse3 and the kernel; no filesystem that is built on them can be faster.

    python -m deferfs.cli.scenarios.null_filesystem MOUNTPOINT
"""

from __future__ import annotations

import errno
import itertools
import stat
import sys
from collections.abc import Sequence
from typing import Final

import pyfuse3
import trio

from deferfs.contract.settings import TIMEOUT_SECONDS_DEFAULT
from deferfs.limits import HANDLERS_MAX, POLL_US_DEFAULT
from deferfs.mount.fuse.loop import TASKS_MIN
from deferfs.mount.fuse.readers import cheap_turns
from deferfs.mount.runtime.busy_poll import BusyPoll

BLOCK_BYTES: Final = 4096


class Node:
    """One inode: a file's bytes, or a directory's names in the order in which they came."""

    __slots__ = ("content", "ino", "mode", "names")

    def __init__(self, ino: int, mode: int) -> None:
        self.ino = ino
        self.mode = mode
        self.content = bytearray()
        self.names: dict[bytes, Node] = {}


class NullFilesystem(pyfuse3.Operations):
    """Every handler does the least that its caller needs to get along."""

    supports_dot_lookup = True
    enable_writeback_cache = True

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(pyfuse3.ROOT_INODE)
        self._nodes: dict[int, Node] = {}
        self._make(stat.S_IFDIR | 0o755)

    def _make(self, mode: int) -> Node:
        ino = next(self._numbers)
        node = self._nodes[ino] = Node(pyfuse3.InodeT(ino), mode)
        return node

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(node.ino)
        entry.entry_timeout = entry.attr_timeout = TIMEOUT_SECONDS_DEFAULT
        entry.st_mode = pyfuse3.ModeT(node.mode)
        entry.st_nlink = 1
        entry.st_size = len(node.content)
        entry.st_blksize = BLOCK_BYTES
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = self._nodes[parent_inode].names.get(name)
        if node is not None:
            return self._attributes(node)
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(0)
        entry.entry_timeout = TIMEOUT_SECONDS_DEFAULT
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(self._nodes[inode])

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        node = self._nodes[inode]
        if fields.update_mode:
            node.mode = attr.st_mode
        if fields.update_size:
            del node.content[attr.st_size :]
            node.content.extend(bytes(attr.st_size - len(node.content)))
        return self._attributes(node)

    def _create(self, parent: int, name: bytes, mode: int) -> Node:
        node = self._nodes[parent].names[name] = self._make(mode)
        return node

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        node = self._create(parent_inode, name, mode)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(node.ino), keep_cache=True), self._attributes(node)

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(self._create(parent_inode, name, stat.S_IFDIR | mode))

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        del self._nodes[parent_inode].names[name]

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        if self._nodes[parent_inode].names[name].names:
            raise pyfuse3.FUSEError(errno.ENOTEMPTY)
        del self._nodes[parent_inode].names[name]

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        self._nodes[parent_inode_new].names[name_new] = self._nodes[parent_inode_old].names.pop(name_old)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return bytes(self._nodes[fh].content[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        self._nodes[fh].content[off : off + len(buf)] = buf
        return len(buf)

    async def flush(self, fh: int) -> None:
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def release(self, fh: int) -> None:
        pass

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        entries = itertools.islice(self._nodes[fh].names.items(), start_id, None)
        for number, (name, node) in enumerate(entries, start_id + 1):
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), self._attributes(node), number):
                return

    async def releasedir(self, fh: int) -> None:
        pass

    async def fsync(self, fh: int, datasync: bool) -> None:
        pass

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        raise pyfuse3.FUSEError(pyfuse3.ENOATTR)


async def serve() -> None:
    """Serve until it is unmounted."""
    with cheap_turns(BusyPoll(POLL_US_DEFAULT)):
        await pyfuse3.main(TASKS_MIN, HANDLERS_MAX)


def main(mountpoint: str) -> None:
    """Mount and serve."""
    pyfuse3.init(NullFilesystem(), mountpoint, {"fsname=null"})
    try:
        trio.run(serve)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main(sys.argv[1])
