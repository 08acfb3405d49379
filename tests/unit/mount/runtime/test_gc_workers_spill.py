"""Workers, barriers and ENOSPC when what is deleted waits in the orphan table alone."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from deferfs.errors import CorruptionError, FsError
from deferfs.mount.control.why import explain
from deferfs.mount.runtime.runtime import Runtime
from deferfs.ondisk.orphan import OrphanSlot
from deferfs.store.orphans import OrphanTable
from deferfs.store.plan import Plan
from deferfs.volume import namespace
from deferfs.volume.driver import Driver
from tests.unit.runtimes import fill, make_file, running, unlink
from tests.unit.volumes import DIRECTORY, fresh_driver, reopened

COUNT = 150
"""More than two batches, in five blocks of the table."""


@asynccontextmanager
async def spilling(
    *, in_core_max: int = 0, driver: Driver | None = None
) -> AsyncIterator[tuple[Runtime, int, list[int]]]:
    """A runtime whose workers rest, with deleted files in a directory: (runtime, directory, files)."""
    async with running(driver=driver) as runtime:
        runtime.volume.gc.in_core_max = in_core_max
        folder = await make_file(runtime, b"folder", mode=DIRECTORY)
        inos = [await make_file(runtime, b"%d" % n, b"x" * 2000, parent=folder) for n in range(COUNT)]
        await runtime.workers.stop()
        for number, ino in enumerate(inos):
            await runtime.run(namespace.unlink, runtime.volume, folder, b"%d" % number)
            await runtime.forget([(ino, 1)])
        assert runtime.volume.spill.count == COUNT - in_core_max
        yield runtime, folder, inos


async def test_a_barrier_for_all() -> None:
    async with spilling(in_core_max=10) as (runtime, _, _):
        runtime.workers.resume()
        await runtime.workers.flush()
        assert (runtime.volume.gc.backlog, runtime.store.orphans.count) == (0, 0)
        assert runtime.volume.inodes.inactivated_total == COUNT
        assert runtime.volume.inodes.pending_blocks == 0


async def test_a_barrier_for_one_inode() -> None:
    async with spilling() as (runtime, _, inos):
        runtime.workers.resume()
        await runtime.workers.flush_inode(inos[COUNT // 2])
        with pytest.raises(Exception, match="ESTALE"):
            await runtime.run(lambda plan: runtime.store.inodes.get(plan, inos[COUNT // 2]))


async def test_a_barrier_for_a_directory_waits_for_what_the_table_alone_remembers() -> None:
    async with spilling() as (runtime, folder, _):
        other = await make_file(runtime, b"other", b"x" * 2000)
        await unlink(runtime, b"other")
        await runtime.forget([(other, 1)])
        runtime.workers.resume()
        await runtime.workers.flush_below(folder)
        assert runtime.store.orphans.count == 0


async def test_stat_tells_where_it_waits() -> None:
    async with spilling() as (runtime, _, inos):
        told = await explain(runtime, inos[0])
        assert told.memory is None
        where = "it waits in the orphan table, not in memory, until inodegc reloads it; inodegc is stopped"
        assert told.reasons == [where]


async def test_spilled_space_is_there_for_a_write_that_finds_none() -> None:
    async with spilling() as (runtime, _, inos):
        ino, size = await fill(runtime, b"large")
        with pytest.raises(FsError, match="ENOSPC"):
            await runtime.write(ino, size, b"y" * 20_000)
        runtime.workers.resume()
        await runtime.write(ino, size, b"y" * 1000 * len(inos))


async def test_a_table_that_cannot_be_read_is_left_to_fsck(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slots = OrphanTable.slots

    def damaged(table: OrphanTable, plan: Plan, number: int) -> list[OrphanSlot]:
        if number == 1:
            raise CorruptionError("bad checksum")
        return slots(table, plan, number)

    async with spilling() as (runtime, _, _):
        per_block = runtime.store.orphans.per_block
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(OrphanTable, "slots", damaged)
            runtime.workers.resume()
            await runtime.workers.flush()
        assert f"{per_block} deleted files are left to deferfs fsck" in caplog.text
        assert (runtime.volume.gc.backlog, runtime.store.orphans.count) == (0, per_block)
        assert runtime.volume.inodes.pending_blocks == 0


async def test_the_next_mount_finds_them_in_the_table_and_keeps_none_in_memory() -> None:
    driver = fresh_driver()
    async with spilling(driver=driver) as (runtime, _, _):
        runtime.closing.drain_seconds = 0
        pending = runtime.volume.inodes.pending_blocks
        await runtime.sync()
        again = reopened(driver)
    async with running(driver=again) as later:
        await later.workers.stop()
        assert (later.volume.spill.count, later.volume.inodes.pending_blocks) == (COUNT, pending)
        assert len(later.volume.inodes.table) == 0
        later.workers.resume()
        await later.workers.flush()
        assert (later.store.orphans.count, later.volume.inodes.pending_blocks) == (0, 0)
