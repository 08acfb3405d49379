"""Space on a full filesystem: an allocation gets exactly what was deleted before, whichever task frees it."""

from __future__ import annotations

import errno
import os
import stat

import pytest
import trio

from deferfs.errors import FsError
from deferfs.ondisk.inode import ROOT_INO
from deferfs.volume import attributes, namespace
from deferfs.volume.new_inode import NewInode
from deferfs.volume.waits import Reschedule, Task
from tests.unit.runtimes import delete_and_forget, fill, make_file, running, turns, unlink
from tests.unit.volumes import record_of

MODES = pytest.mark.parametrize("evict", ["deferred", "inline"])
SIZE = 3 << 20


@MODES
async def test_a_file_of_the_size_of_the_one_deleted_before_goes_in_again_and_again(evict: str) -> None:
    async with running(evict=evict, size=SIZE) as runtime:
        ino, size = await fill(runtime, b"big")
        for _ in range(10):
            await delete_and_forget(runtime, b"big", ino)
            ino = await make_file(runtime, b"big", b"y" * size)
            with pytest.raises(FsError) as caught:
                await runtime.write(ino, size, b"z" * 65_536)
            assert caught.value.errno == errno.ENOSPC


async def test_a_forget_that_is_not_read_yet_is_waited_for() -> None:
    """The writer is there first; the FORGET lies in the kernel's queue."""
    async with running(size=SIZE) as runtime:
        ino, size = await fill(runtime, b"big")
        await unlink(runtime, b"big")
        reading, writing = os.pipe()
        os.write(writing, b"F")
        runtime.incoming.watch(reading)

        async def reader() -> None:
            await trio.lowlevel.wait_readable(reading)
            os.read(reading, 1)
            await runtime.forget([(ino, 1)])

        try:
            async with trio.open_nursery() as nursery:
                again = await make_file(runtime, b"again")
                nursery.start_soon(runtime.write, again, 0, b"y" * size)
                nursery.start_soon(reader)
            assert record_of(runtime.volume, again).size == size
        finally:
            runtime.incoming.unwatch(reading)
            os.close(reading)
            os.close(writing)


@MODES
async def test_a_deleted_file_that_is_open_does_not_make_others_wait_for_ever(evict: str) -> None:
    async with running(evict=evict, size=SIZE) as runtime:
        ino, _ = await fill(runtime, b"big")
        handle = runtime.volume.inodes.hold(ino, record_of(runtime.volume, ino).generation)
        await delete_and_forget(runtime, b"big", ino)
        another = await make_file(runtime, b"another")
        with pytest.raises(FsError) as caught:
            await runtime.write(another, 0, b"y" * 65_536)
        assert caught.value.errno == errno.ENOSPC
        await runtime.release(handle)
        assert await runtime.write(another, 0, b"y" * 65_536) == 65_536


async def test_a_writer_waits_for_no_more_cleanup_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(size=SIZE) as runtime:
        runtime.engine.turns.turn_ns = -1  # others run after every single step
        names = [b"f%d" % number for number in range(300)]
        files = {name: await make_file(runtime, name, b"x" * 5000) for name in names}
        await fill(runtime, b"rest")
        await runtime.workers.stop()
        for name, ino in files.items():
            await delete_and_forget(runtime, name, ino)
        another = await make_file(runtime, b"another")
        left: list[int] = []
        released = runtime.engine.durability.released

        def release() -> Task[None]:
            left.append(runtime.volume.gc.backlog)
            yield from released()

        monkeypatch.setattr(runtime.engine.durability, "released", release)
        runtime.workers.resume()
        await runtime.write(another, 0, b"y" * 3000)
        assert left[0] > 280


async def test_speculative_blocks_go_before_deleted_files() -> None:
    async with running(size=SIZE) as runtime:
        growing = await make_file(runtime, b"growing")
        for offset in range(0, 600_000, 20_000):
            await runtime.write(growing, offset, b"x" * 20_000)
        assert runtime.blockgc.files == 1
        held = record_of(runtime.volume, growing).blocks * runtime.store.fmt.block_size
        assert held > 700_000
        await fill(runtime, b"rest")
        assert runtime.blockgc.files == 0
        assert runtime.blockgc.trimmed_total
        assert record_of(runtime.volume, growing).blocks * runtime.store.fmt.block_size < 610_000


async def test_speculative_blocks_of_a_file_that_does_not_grow_any_more_are_freed() -> None:
    async with running(size=SIZE) as runtime:
        growing = await make_file(runtime, b"growing")
        for offset in range(0, 600_000, 20_000):
            await runtime.write(growing, offset, b"x" * 20_000)
        assert runtime.blockgc.files == 1
        runtime.engine.eviction.set_lifetime(1e-9)  # wakes the task, too, which looks every quarter of the lifetime
        while runtime.blockgc.files:
            await trio.lowlevel.checkpoint()
        assert record_of(runtime.volume, growing).blocks * runtime.store.fmt.block_size < 610_000


async def test_a_queued_trim_does_not_meet_the_next_owner_of_the_number(caplog: pytest.LogCaptureFixture) -> None:
    async with running(size=SIZE) as runtime:
        ino = await make_file(runtime, b"file")
        generation = record_of(runtime.volume, ino).generation
        await delete_and_forget(runtime, b"file", ino)
        await runtime.workers.flush()
        mode = stat.S_IFDIR | 0o755
        directory = await runtime.run(namespace.create, runtime.volume, ROOT_INO, b"directory", NewInode(mode))
        assert directory.ino == ino
        trimmed = runtime.blockgc.trimmed_total
        runtime.engine.eviction.trim_later(ino, generation)
        await runtime.blockgc.flush()
        assert runtime.blockgc.trimmed_total == trimmed
        assert not caplog.records


async def test_inodes_that_wait_for_inactivation_are_free() -> None:
    async with running(size=SIZE) as runtime:
        before = attributes.statfs(runtime.volume)
        await runtime.workers.stop()
        held = await make_file(runtime, b"held")
        for number in range(20):
            name = b"%d" % number
            await delete_and_forget(runtime, name, await make_file(runtime, name, b"x" * 5000))
        await unlink(runtime, b"held")
        assert runtime.volume.gc.backlog == 20
        waiting = attributes.statfs(runtime.volume)
        assert waiting.files - waiting.files_free == before.files - before.files_free + 1
        assert held in runtime.volume.inodes.table
        runtime.workers.resume()


async def test_space_that_others_have_used_up_meanwhile_counts_as_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The level of free blocks is what it was before, and nothing is pending: but blocks did become free."""
    async with running(size=SIZE) as runtime:
        space = runtime.store.space

        def others(blocks: int) -> Task[None]:
            yield from ()
            held = space.hold(0, blocks, reserve=True)
            space.pending_blocks += held[1]
            space.release([held])
            assert space.free_blocks == before

        before = space.free_blocks
        monkeypatch.setattr(runtime.engine.eviction, "trim_for_space", others)
        await runtime.drive(runtime.engine.space.make(4, reserve=False))
        assert not runtime.engine.space.refused_total


async def test_an_operation_looks_again_after_a_thaw() -> None:
    async with running(size=SIZE) as runtime:
        await runtime.freezer.freeze()
        over = trio.Event()

        async def make() -> None:
            await runtime.drive(runtime.engine.space.make(4, reserve=False))
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make)
            await turns()
            assert not over.is_set()
            await runtime.freezer.thaw()
        assert runtime.waits.snapshot()["thaw"].count == 1
        assert not runtime.engine.space.refused_total


async def test_a_wait_for_freed_blocks_ends_when_they_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are committed, and the device is told of them still: nothing is left to commit or to flush."""
    async with running(size=SIZE) as runtime:
        await runtime.sync()
        flushes: list[int] = []

        def flush() -> Task[None]:
            flushes.append(1)
            yield Reschedule()

        space = runtime.store.space
        held = space.hold(0, 4, reserve=True)
        space.pending_blocks += held[1]
        over = trio.Event()

        async def wait() -> None:
            with monkeypatch.context() as patched:
                patched.setattr(runtime.engine.durability, "flush", flush)
                await runtime.drive(runtime.engine.space.make(4, reserve=False))
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await turns()
            assert not over.is_set(), "nothing has been released"
            space.release([held])
            runtime.write_back.ask()
            await over.wait()
        assert not flushes, "it went round and round"
