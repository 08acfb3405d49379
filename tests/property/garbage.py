"""Every kind of request, again and again, on all ways it can take; what of it only the cyclic collector would free."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import stat
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Final, cast

import pyfuse3
import trio

from deferfs.device import MemoryDevice
from deferfs.errors import FsError
from deferfs.mount.fuse import operations
from deferfs.mount.fuse.adapter import Adapter
from deferfs.mount.host.options import parse_options
from deferfs.mount.runtime.runtime import Runtime
from deferfs.ondisk.inode import Inode
from deferfs.store.directories import DirectoryEntry
from deferfs.store.plan import Plan
from tests.unit.mount.fuse.requests import Fields, context
from tests.unit.runtimes import write_back
from tests.unit.volumes import ROOT, fresh_device, open_driver

KIB: Final = 1024
SCENES: Final = ("plain", "cold", "memory", "log", "full", "frozen", "error")
"""What a request meets: everything cached; nothing cached, and reads that wait; a budget that is used up; a log that
has nothing to give at first; a full disk; a freeze that ends; an argument that is refused."""
_TURNS: Final = 20
"""Passes of the event loop after which a scene gives way."""


@dataclass
class Found:
    """The types of the objects in cycles, and what the requests met, each with how often."""

    garbage: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)


class ColdDevice(MemoryDevice):
    """A device whose reads wait, in a thread, while it is `cold`."""

    cold = False

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        return None if self.cold else super().read_nowait(offset, length)


class Client:
    """Sends the requests of one scene. `serial` makes names."""

    def __init__(self, runtime: Runtime, adapter: Adapter, scene: str) -> None:
        self.runtime = runtime
        self.adapter = adapter
        self.scene = scene
        self._serial = itertools.count()
        self.directory = ROOT
        self.file = 0
        self.handle = 0

    def name(self) -> bytes:
        return b"name-%d" % next(self._serial)

    async def prepare(self) -> None:
        """A directory, and in it a file of some extents with an attribute, and a symbolic link."""
        adapter = self.adapter
        self.directory = (await adapter.mkdir(ROOT, b"directory", 0o755, context())).st_ino
        info, entry = await adapter.create(self.directory, b"file", 0o644, os.O_RDWR, context())
        self.file, self.handle = entry.st_ino, info.fh
        for block in range(0, 64, 2):
            await adapter.write(self.handle, block * KIB, b"x" * KIB)
        await adapter.setxattr(self.file, b"user.kept", b"v" * 600, context())
        await adapter.symlink(self.directory, b"link", b"t" * 600, context())
        if self.scene == "error":
            _, entry = await adapter.create(self.directory, b"damaged", 0o644, os.O_RDWR, context())
            await self.runtime.run(_damage, entry.st_ino)

    # --- the requests ---
    async def lookup(self) -> None:
        name = b"none" if self.scene == "error" else b"file"
        found = await self.adapter.lookup(self.directory, name, context())
        if found.st_ino:
            await self.adapter.forget([(found.st_ino, 1)])

    async def forget(self) -> None:
        await self.adapter.forget([(1 << 40, 1)])

    async def create(self) -> None:
        name = b"n" * 300 if self.scene == "error" else self.name()
        info, entry = await self.adapter.create(self.directory, name, 0o644, os.O_RDWR, context())
        await self.adapter.write(info.fh, 0, b"x" * 3000)
        await self.adapter.unlink(self.directory, name, context())
        await self.adapter.forget([(entry.st_ino, 1)])
        await self.adapter.release(info.fh)

    async def mknod(self) -> None:
        name = b"" if self.scene == "error" else self.name()
        made = await self.adapter.mknod(self.directory, name, stat.S_IFIFO | 0o600, 0, context())
        await self.adapter.unlink(self.directory, name, context())
        await self.adapter.forget([(made.st_ino, 1)])

    async def mkdir(self) -> None:
        name = b"file" if self.scene == "error" else self.name()
        made = await self.adapter.mkdir(self.directory, name, 0o755, context())
        await self.adapter.rmdir(self.directory, name, context())
        await self.adapter.forget([(made.st_ino, 1)])

    async def rmdir(self) -> None:
        await self.adapter.rmdir(ROOT, b"directory", context())  # not empty

    async def symlink(self) -> None:
        name = b"file" if self.scene == "error" else self.name()
        made = await self.adapter.symlink(self.directory, name, b"t" * 2000, context())
        await self.adapter.readlink(made.st_ino, context())
        await self.adapter.unlink(self.directory, name, context())
        await self.adapter.forget([(made.st_ino, 1)])

    async def link(self) -> None:
        name = b"file" if self.scene == "error" else self.name()
        await self.adapter.link(self.file, self.directory, name, context())
        await self.adapter.unlink(self.directory, name, context())
        await self.adapter.forget([(self.file, 1)])

    async def unlink(self) -> None:
        await self.adapter.unlink(ROOT, b"directory" if self.scene == "error" else b"none", context())

    async def rename(self) -> None:
        name, new = self.name(), b"a/b" if self.scene == "error" else self.name()
        info, entry = await self.adapter.create(self.directory, name, 0o644, os.O_RDWR, context())
        try:
            await self.adapter.rename(self.directory, name, self.directory, new, 0, context())
            await self.adapter.rename(self.directory, new, self.directory, b"file", 2, context())
            await self.adapter.rename(self.directory, b"file", self.directory, new, 2, context())
            name = new
        finally:
            await self.adapter.unlink(self.directory, name, context())
            await self.adapter.release(info.fh)
            await self.adapter.forget([(entry.st_ino, 1)])

    async def readlink(self) -> None:
        ino = self.file
        if self.scene != "error":
            ino = (await self.adapter.lookup(self.directory, b"link", context())).st_ino
            await self.adapter.forget([(ino, 1)])
        await self.adapter.readlink(ino, context())

    async def getattr(self) -> None:
        await self.adapter.getattr(1 << 30 if self.scene == "error" else self.file, context())

    async def setattr(self) -> None:
        attr = pyfuse3.EntryAttributes()
        attr.st_size = 1 << 60 if self.scene == "error" else 21 * KIB + 100
        attr.st_uid = 7
        fields = cast("pyfuse3.SetattrFields", Fields(update_size=True, update_uid=True))
        await self.adapter.setattr(self.file, attr, fields, None, context())
        attr.st_size, attr.st_mode = 40 * KIB, 0o640
        fields = cast("pyfuse3.SetattrFields", Fields(update_size=True, update_mode=True))
        await self.adapter.setattr(self.file, attr, fields, None, context())

    async def access(self) -> None:
        await self.adapter.access(1 << 30 if self.scene == "error" else self.file, os.X_OK, context())

    async def statfs(self) -> None:
        await self.adapter.statfs(context())

    async def opendir(self) -> None:
        await self.adapter.releasedir(await self.adapter.opendir(self.directory, context()))

    releasedir = opendir

    async def readdir(self) -> None:
        seen: list[int] = []

        def accept(entry: DirectoryEntry, record: Inode | None) -> bool:
            seen.append(entry.ino)
            return True

        volume, note = self.runtime.volume, self.runtime.note
        await self.runtime.run(operations.readdir, volume, self.directory, 0, accept, note)
        known = self.runtime.volume.inodes.table
        await self.adapter.forget([(ino, 1) for ino in seen if ino not in (ROOT, self.directory) and ino in known])
        if self.scene == "error":
            await self.runtime.run(operations.readdir, volume, self.file, 0, accept, note)

    async def fsyncdir(self) -> None:
        await self.adapter.fsyncdir(self.directory, False)

    async def open(self) -> None:
        info = await self.adapter.open(1 << 30 if self.scene == "error" else self.file, os.O_RDONLY, context())
        await self.adapter.release(info.fh)

    async def release(self) -> None:
        await self.adapter.release(1 << 30)

    async def read(self) -> None:
        await self.adapter.read(1 << 30 if self.scene == "error" else self.handle, 0, 40 * KIB)

    async def write(self) -> None:
        at = 1 << 60 if self.scene == "error" else 200 * KIB + 2 * KIB * next(self._serial) % (400 * KIB)
        await self.adapter.write(self.handle, at, b"y" * 1500)

    async def flush(self) -> None:
        await self.adapter.flush(self.handle)

    async def fsync(self) -> None:
        await self.adapter.fsync(1 << 30 if self.scene == "error" else self.handle, True)

    async def getxattr(self) -> None:
        await self.adapter.getxattr(self.file, b"user.none" if self.scene == "error" else b"user.kept", context())

    async def listxattr(self) -> None:
        await self.adapter.listxattr(1 << 30 if self.scene == "error" else self.file, context())

    async def setxattr(self) -> None:
        value = b"v" * (70 * KIB if self.scene == "error" else 700)
        await self.adapter.setxattr(self.file, b"user.more", value, context())
        await self.adapter.removexattr(self.file, b"user.more", context())

    async def removexattr(self) -> None:
        await self.adapter.removexattr(self.file, b"user.none", context())


def _damage(plan: Plan, ino: int) -> None:
    """Give a file a size that no file has: the kernel can be told of its name only."""
    plan.store.inodes.modify(plan, ino).size = 1 << 60


def requests() -> list[str]:
    """All that the adapter handles."""
    ours = vars(Adapter)
    return sorted(name for name in dir(pyfuse3.Operations) if name[0] != "_" and callable(ours.get(name)))


@asynccontextmanager
async def met(runtime: Runtime, scene: str) -> AsyncIterator[None]:
    """A request made inside meets the scene."""
    store = runtime.store
    if scene == "cold":
        await write_back(runtime)
        runtime.volume.inodes.shrink(1 << 62, 0)
        store.cache.shrink(1 << 62)
    elif scene == "log":
        grant = store.journal.ask(store.journal.space)
        store.journal.serve()

        def give_up() -> None:
            store.journal.give_up(grant)
            runtime.engine.log_space.serve()

        async with _ended_later(give_up):
            yield
        return
    elif scene == "frozen":
        await runtime.freezer.freeze()
        async with _ended_later(runtime.freezer.thaw):
            yield
        return
    yield


@asynccontextmanager
async def _ended_later(end: Callable[[], object]) -> AsyncIterator[None]:
    """What is inside has waited for a while when `end` is called."""

    async def after_a_while() -> None:
        for _ in range(_TURNS):
            await trio.lowlevel.checkpoint()
        ended = end()
        if isinstance(ended, Coroutine):
            await ended

    async with trio.open_nursery() as nursery:
        nursery.start_soon(after_a_while)
        yield


async def _exercise(scene: str, request: str, evict: str, count: int, found: Found) -> None:
    """`count` requests of one kind in one scene."""
    device = ColdDevice.from_bytes(fresh_device(6 << 20, journal_blocks=256).snapshot())
    driver = open_driver(device, evict=evict)
    runtime = Runtime(device, driver.volume, commit_seconds=3600)
    client = Client(runtime, Adapter(runtime, parse_options([])), scene)
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        await client.prepare()
        space = runtime.store.space
        device.cold = scene == "cold"
        if scene == "memory":
            runtime.store.memory.set_limit(1)
        held = [space.hold(0, space.available) for _ in iter(lambda: scene == "full" and space.available, 0)]
        await _repeat(client, getattr(client, request), 2)
        before = _met(runtime)
        with collected(found):
            await _repeat(client, getattr(client, request), count)
        found.met.update(_met(runtime) - before)
        for first, length in held:
            space.let_go(first, length)
        await runtime.close()
        nursery.cancel_scope.cancel()


def _met(runtime: Runtime) -> Counter[str]:
    """How often requests waited for what, and were refused."""
    waits = {kind: timing.count for kind, timing in runtime.waits.by_name.items()}
    return Counter({**waits, "refused": runtime.engine.space.refused_total})


async def _repeat(client: Client, request: Callable[[], Awaitable[None]], count: int) -> None:
    for _ in range(count):
        async with met(client.runtime, client.scene):
            try:
                await request()
            except (FsError, pyfuse3.FUSEError):
                pass


@cache
def frozen_by_the_session() -> bool:
    """Whether the test session has frozen what it had collected, which stays so. (It takes time to count.)"""
    return gc.get_freeze_count() > 0


@contextmanager
def collected(found: Found) -> Iterator[None]:
    """What has become garbage in a cycle inside is added to `found`. Nothing is logged: a record that is kept (pytest
    does so) keeps its errors, and with them all that would be garbage."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    gc.collect()
    frozen = frozen_by_the_session()
    if not frozen:
        gc.freeze()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.garbage.update(f"{type(item).__module__}.{type(item).__qualname__}" for item in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        if not frozen:
            gc.unfreeze()
        logging.disable(before)


def find(scene: str, count: int) -> tuple[dict[str, Found], Counter[str]]:
    """`count` requests of each kind in one scene, under both evict policies: (the kinds that left garbage, how often
    they all met what)."""
    left: dict[str, Found] = {}
    met: Counter[str] = Counter()
    for request in requests():
        found = Found()
        for evict in ("inline", "deferred"):
            trio.run(_exercise, scene, request, evict, count // 2, found)
        met += found.met
        if found.garbage:
            left[request] = found
    return left, met
