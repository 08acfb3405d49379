"""Which replies imply durability, and which processes get the error of a write that found no space."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Coroutine
from typing import Any, cast

import pyfuse3
import pytest
import trio

from deferfs.mount.host.options import parse_options
from tests.unit.mount.fuse.requests import Fields, context
from tests.unit.mount.kernels import ROOT, Kernel, fails, make_runtime


@pytest.mark.parametrize(
    ("option", "names", "others"), [("dirsync", True, False), ("sync", True, True), ("rw", False, False)]
)
async def test_a_reply_under_sync_implies_durability(option: str, names: bool, others: bool) -> None:
    runtime = make_runtime("deferred")
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        adapter = Kernel(runtime, parse_options([option])).adapter
        journal = runtime.store.journal

        async def is_durable(request: Coroutine[Any, Any, object]) -> bool:
            await runtime.sync()
            await request
            return journal.running.empty

        ctx = context()
        assert await is_durable(adapter.mkdir(ROOT, b"d", 0o755, ctx)) is names
        assert await is_durable(adapter.create(ROOT, b"f", 0o644, os.O_RDWR, ctx)) is names
        assert await is_durable(adapter.mknod(ROOT, b"p", stat.S_IFIFO, 0, ctx)) is names
        assert await is_durable(adapter.symlink(ROOT, b"s", b"target", ctx)) is names
        ino = (await adapter.lookup(ROOT, b"f", ctx)).st_ino
        assert await is_durable(adapter.link(ino, ROOT, b"g", ctx)) is names
        assert await is_durable(adapter.rename(ROOT, b"g", ROOT, b"h", 0, ctx)) is names
        assert await is_durable(adapter.unlink(ROOT, b"h", ctx)) is names
        assert await is_durable(adapter.rmdir(ROOT, b"d", ctx)) is names
        attr = pyfuse3.EntryAttributes()
        attr.st_uid, attr.st_mode, attr.st_size = 5, 0o600, 7
        for fields in (Fields(update_uid=True), Fields(update_mode=True), Fields(update_size=True)):
            change = adapter.setattr(ino, attr, cast("pyfuse3.SetattrFields", fields), None, ctx)
            assert await is_durable(change) is others
        assert await is_durable(adapter.open(ino, os.O_WRONLY | os.O_TRUNC, ctx)) is others
        assert await is_durable(adapter.setxattr(ino, b"user.a", b"v", ctx)) is others
        assert await is_durable(adapter.removexattr(ino, b"user.a", ctx)) is others
        await runtime.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
@pytest.mark.parametrize("cache", ["on", "off"])
async def test_a_synchronous_write_is_durable_unless_the_kernel_sends_an_fsync(flag: int, cache: str) -> None:
    runtime = make_runtime("deferred")
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        kernel = Kernel(runtime, parse_options([f"writeback_cache={cache}"]))
        _, fh = await kernel.create(b"file", os.O_RDWR | flag)
        assert await kernel.adapter.write(fh, 0, b"hello") == 5
        assert runtime.store.journal.running.empty is (cache == "off")
        await runtime.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("cache", ["on", "off"])
async def test_after_a_refused_writeback_the_kernel_asks_before_each_write(cache: str) -> None:
    """So that a process that continues to write gets the error. Without the cache it already has."""
    runtime = make_runtime("deferred")
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        kernel = Kernel(runtime, parse_options([f"writeback_cache={cache}"]))
        told: list[int] = []
        kernel.adapter.invalidate_attributes = told.append
        ino, fh = await kernel.create(b"file")
        written = 0
        with fails(errno.ENOSPC):
            while written < runtime.device.size:
                done = await kernel.adapter.write(fh, written, bytes(1 << 16))
                assert done == 1 << 16 or (done and cache == "off")  # a write(2) may be cut short, a writeback not
                written += done
        assert runtime.store.space.available == 0
        if cache == "on":
            assert told == [ino]
        await kernel.adapter.open(ino, os.O_WRONLY | os.O_TRUNC, context())  # no space past its end is taken any more
        assert (await kernel.adapter.getattr(ino, context())).attr_timeout == (0 if cache == "on" else 86400)
        await kernel.adapter.release(fh)
        assert (await kernel.adapter.getattr(ino, context())).attr_timeout == 86400
        await runtime.close()
        nursery.cancel_scope.cancel()
