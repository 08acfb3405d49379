"""A runtime on a volume in memory, with its background tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from deferfs.errors import FsError
from deferfs.mount.control.statistics import Served
from deferfs.mount.runtime.runtime import Runtime
from deferfs.volume import namespace
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from tests.unit.volumes import FILE, ROOT, fresh_driver

SERVED = Served(image="/image", mountpoint="/mnt", pid=1, uptime_seconds=0.0, handlers=24)
"""What a daemon would know of the mount."""
SECONDS_MAX = 60
"""A test that waits longer than this hangs."""


@asynccontextmanager
async def running(
    *,
    evict: str = "deferred",
    size: int = 0,
    driver: Driver | None = None,
    gc_workers: int = 2,
    close: bool = True,
    seconds_max: float = SECONDS_MAX,
    being_killed: Callable[[int], bool] = lambda _pid: False,
) -> AsyncIterator[Runtime]:
    """A runtime whose tasks run; a wait in reclaim is fatal under `deferred`. Commits only when asked for.

    `seconds_max`: infinite on a clock that jumps, which would jump there.
    """
    driver = driver or fresh_driver(size, evict=evict)
    runtime = Runtime(
        driver.device,
        driver.volume,
        strict=evict == "deferred",
        commit_seconds=3600,
        gc_workers=gc_workers,
        being_killed=being_killed,
    )
    with trio.fail_after(seconds_max):
        async with trio.open_nursery() as nursery:
            await runtime.start(nursery)
            yield runtime
            if close:
                await runtime.close()
            nursery.cancel_scope.cancel()


async def make_file(runtime: Runtime, name: bytes, data: bytes = b"", *, parent: int = ROOT, mode: int = FILE) -> int:
    """Create a file (or a directory) that the kernel knows by one lookup; its number."""
    record = await runtime.run(namespace.create, runtime.volume, parent, name, NewInode(mode))
    runtime.volume.lookup_count(record)
    if data:
        await runtime.write(record.ino, 0, data)
    return record.ino


async def write_back(runtime: Runtime) -> None:
    """What was dirty before this call comes home."""
    await runtime.sync()
    if runtime.store.journal.pending_home:
        await runtime.drive(runtime.engine.durability.less_dirty(0))


async def unlink(runtime: Runtime, name: bytes, *, parent: int = ROOT) -> None:
    await runtime.run(namespace.unlink, runtime.volume, parent, name)


async def fill(runtime: Runtime, name: bytes, *, chunk: int = 16_384) -> tuple[int, int]:
    """Write to a new file until nothing goes in any more: (number, bytes)."""
    ino = await make_file(runtime, name)
    size = 0
    while True:
        try:
            size += await runtime.write(ino, size, b"x" * chunk)
        except FsError:
            if chunk == 1024:
                return ino, size
            chunk = 1024


async def delete_and_forget(runtime: Runtime, name: bytes, ino: int) -> None:
    await unlink(runtime, name)
    await runtime.forget([(ino, 1)])


async def delete_unheld(runtime: Runtime, count: int) -> None:
    """Make and delete files without active references: their inodes are queued at once."""
    for number in range(count):
        name = b"%d" % number
        await runtime.run(namespace.create, runtime.volume, ROOT, name, NewInode(FILE))
        await unlink(runtime, name)


def done(runtime: Runtime) -> int:
    """Inodes that have been cleaned up."""
    return runtime.volume.inodes.inactivated_total


async def turns(count: int = 200) -> None:
    """Let the other tasks run."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()
