"""A filesystem that shreds what is deleted, as an example of `deferfs.reclaim`.

    python docs/example_filesystem.py MOUNTPOINT [inline|deferred]

One flat directory. What a file holds lies in a file of its own in a temporary directory, and is overwritten, synced and
removed once no process can reach it any more: slow work, of which the kernel tells us in FORGET, while it may be short
of memory. `inline` does it right there; `deferred` queues it for a worker. Unmounting shreds everything.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyfuse3
import trio

from deferfs.reclaim import ActiveReference, InCoreInode, InodeCache, InodeGc, ReclaimChecker, make_policy

BATCH: Final = 16
SHRED_BYTES: Final = 1 << 20


def shred(path: Path) -> None:
    """Overwrite, sync, remove. Runs in a thread; may be repeated, as an inactivation must."""
    left = path.stat().st_size
    with path.open("r+b") as file:
        while left > 0:
            left -= file.write(bytes(min(SHRED_BYTES, left)))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


class ShreddingFilesystem(pyfuse3.Operations):
    """The reclaim of this filesystem is `forget`, `release` and what follows them; the rest is any filesystem."""

    def __init__(self, backing: Path, evict: str) -> None:
        super().__init__()
        self.backing = backing
        self.names: dict[bytes, int] = {}
        self.handles: dict[int, tuple[ActiveReference, int]] = {}
        """What keeps the inode usable, and the descriptor, by number of the open handle."""
        self.numbers = itertools.count(pyfuse3.ROOT_INODE + 1)
        self.cache = InodeCache()
        self.gc = InodeGc(self.cache, time.monotonic_ns)
        self.gc.wake = lambda queue: self.queued.set()
        self.queued = trio.Event()
        self.policy = make_policy(evict, self.gc)
        self.checker = ReclaimChecker()

    # --- reclaim ---
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel takes lookups back. Deferred, this completes without a single wait."""
        with self.checker.enter("forget"):
            found = [self.cache.forget(ino, count) for ino, count in inode_list]
            await self.place([inode for inode in found if inode is not None])

    async def release(self, fh: int) -> None:
        """The last close of a deleted file may leave an inactivation, as the last FORGET does."""
        reference, descriptor = self.handles.pop(fh)
        os.close(descriptor)
        with self.checker.enter("release"):
            inode = reference.release()
            await self.place([] if inode is None else [inode])

    async def place(self, due: list[InCoreInode]) -> None:
        """Run what the policy returns; it has queued the rest."""
        for inode in self.policy.dispose(due):
            if not await self.inactivate(inode):
                self.gc.failed_inline(inode)

    async def inactivate(self, inode: InCoreInode) -> bool:
        """The cleanup, the same for both policies. False when it failed and is to be tried again."""
        if self.cache.begin(inode):
            self.checker.might_wait("io")
            try:
                await trio.to_thread.run_sync(shred, self.path(inode.ino))
            except OSError as error:
                print(f"inode {inode.ino}: {error.strerror}", file=sys.stderr)
                return False
            self.cache.finish(inode)
        return True

    async def work(self) -> None:
        """The worker: batches while there are any, and what failed when its time has come."""
        while True:
            self.queued = trio.Event()
            retry_ns = self.gc.retry_due()
            if self.gc.has_work(0):
                await self.clean_batch()
                continue
            with trio.move_on_after(retry_ns / 1e9 if retry_ns else math.inf):
                await self.queued.wait()

    async def clean_batch(self) -> None:
        """Never cancelled half way: an inode that was taken is handed back."""
        with trio.CancelScope(shield=True):
            for inode in self.gc.take(BATCH):
                if await self.inactivate(inode):
                    self.gc.done(inode)
                else:
                    self.gc.failed(inode)

    async def drain(self) -> None:
        """After the unmount, when no FORGET will come: delete everything, and wait until it is gone."""
        due = [inode for name in list(self.names) if (inode := self.orphan(name)) is not None]
        for inode in due + self.cache.drop_all():
            self.gc.enqueue(inode)
        while self.gc.backlog:
            self.gc.retry_now()
            await self.clean_batch()

    def orphan(self, name: bytes) -> InCoreInode | None:
        """Remove a name, the only one; the inode too, unless it has an active reference."""
        ino = self.names.pop(name)
        return self.cache.orphaned(ino, 0, self.path(ino).stat().st_blocks)

    # --- any filesystem ---
    def path(self, ino: int) -> Path:
        """Where the content is."""
        return self.backing / str(ino)

    def attributes(self, ino: int) -> pyfuse3.EntryAttributes:
        """Those of the content, which is kept by the inode's number; those of the root are the directory's."""
        found = os.stat(self.backing if ino == pyfuse3.ROOT_INODE else self.path(ino))
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(ino)
        entry.st_mode = pyfuse3.ModeT(found.st_mode)
        entry.st_nlink, entry.st_size, entry.st_blocks = found.st_nlink, found.st_size, found.st_blocks
        entry.st_uid, entry.st_gid = found.st_uid, found.st_gid
        entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = (
            found.st_atime_ns,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )
        return entry

    def told(self, ino: int) -> pyfuse3.EntryAttributes:
        """Attributes for an answer by which the kernel learns of the inode: one lookup."""
        entry = self.attributes(ino)
        self.cache.lookup(ino, 0)
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if name not in self.names:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self.told(self.names[name])

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self.attributes(inode)

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise pyfuse3.FUSEError(errno.EPERM)
        if fields.update_size:
            os.truncate(self.path(inode), attr.st_size)
        return self.attributes(inode)

    def opened(self, ino: int, flags: int) -> pyfuse3.FileInfo:
        """An open handle, with an active reference of its own."""
        descriptor = os.open(self.path(ino), flags & (os.O_ACCMODE | os.O_TRUNC))
        self.handles[descriptor] = self.cache.hold(ino, 0), descriptor
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(descriptor))

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        ino = next(self.numbers)
        self.path(ino).touch(stat.S_IMODE(mode))
        self.names[name] = ino
        return self.opened(ino, flags), self.told(ino)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return self.opened(inode, flags)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return os.pread(fh, size, off)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return os.pwrite(fh, buf, off)

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        inode = self.orphan(name)
        await self.place([] if inode is None else [inode])

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for name, ino in sorted(self.names.items(), key=lambda item: item[1]):
            if ino > start_id:
                if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), self.attributes(ino), ino):
                    break
                self.cache.lookup(ino, 0)


async def serve(filesystem: ShreddingFilesystem) -> None:
    """Requests and the worker, until the unmount; then what is left."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(filesystem.work)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()
    await filesystem.drain()


def main(mountpoint: str, evict: str = "deferred") -> None:
    """Mount, serve, and report what was cleaned up and which sources waited in reclaim."""
    with tempfile.TemporaryDirectory(prefix="shredding-") as directory:
        filesystem = ShreddingFilesystem(Path(directory), evict)
        try:
            pyfuse3.init(filesystem, mountpoint, {"fsname=shredding"})
        except RuntimeError as error:  # libfuse has told why
            sys.exit(f"{mountpoint}: {error}")
        try:
            trio.run(serve, filesystem)
        finally:
            pyfuse3.close(unmount=True)
        inodes, left = filesystem.cache.statistics(), len(os.listdir(directory))
        waits = dict(filesystem.checker.violations)
        print(f"inactivated {inodes.inactivated_total}, left {left}, waits in reclaim context {waits}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [directory, *evict] if os.path.isdir(directory) and evict in ([], ["inline"], ["deferred"]):
            main(directory, *evict)
        case _:
            print("usage: example_filesystem.py MOUNTPOINT [inline|deferred]", file=sys.stderr)
            sys.exit(2)
