"""A file of very many extents is inactivated in steps of a bounded size, which are journaled, and resumed where a
crash left them. 50,000 extents by default, 1,000,000 with --long: a step costs the same in both."""

from __future__ import annotations

import itertools
from itertools import pairwise

import pytest
import trio

from deferfs.device import MemoryDevice
from deferfs.limits import INACTIVATION_EXTENTS_STEP, KIB, MIB
from deferfs.ondisk.inode import ORPHAN_FILE_INO
from deferfs.ondisk.orphan import OrphanBlock, OrphanSlot
from deferfs.store import extents
from deferfs.store.extents import Mapping
from deferfs.store.io import run_job
from deferfs.store.memory import Memory
from deferfs.store.plan import Plan
from deferfs.store.recovery import read_superblock
from deferfs.store.store import open_store
from deferfs.volume.driver import Driver
from deferfs.volume.inactivation import Inactivation
from deferfs.volume.volume import Volume
from tests.unit.runtimes import delete_and_forget, running
from tests.unit.runtimes import make_file as make_known_file
from tests.unit.volumes import (
    LookingPlan,
    assert_sound,
    free_blocks,
    fresh_driver,
    make,
    make_file,
    record,
    snapshot_of,
    unlink,
)

COUNT = 20_000
COUNT_LONG = 1_000_000
BUILD_BATCH = 256
"""Extents that one transaction adds."""
COUNT_MOUNTED = 5_000
STEPS_BETWEEN_MAX = 10
"""Steps between two requests of the same task, each of which gives way several times itself."""
STAGED_MAX = 24
"""Blocks that a step stages when what it frees lies side by side: a few leaves, their nodes, bitmaps, the record, the
orphan slot. The same for any number of extents."""


def scattered(driver: Driver, name: bytes, count: int) -> int:
    """A file of `count` extents of one block, every second logical block, each with a block of its own."""
    ino = make(driver, name)

    def grow(plan: Plan, first: int, last: int) -> None:
        inode = plan.store.inodes.modify(plan, ino)
        left = last - first
        while left:
            physical, got = plan.allocate(0, left)
            for number in range(got):
                extents.insert(plan, inode, Mapping(2 * (last - left + number), physical + number, 1, False))
            left -= got
        inode.size = 2 * last * plan.store.fmt.block_size

    for first in range(0, count, BUILD_BATCH):
        driver.run(grow, first, min(first + BUILD_BATCH, count))
    return ino


def orphaned(count: int) -> tuple[Driver, int, int]:
    """(driver, inode number, free blocks before) of such a file, deleted and committed, its inactivation queued."""
    driver = fresh_driver(count * KIB * 5 // 4 + 16 * MIB, journal_blocks=4096)
    make_file(driver, b"other", b"o" * 5000)
    driver.commit()
    free = free_blocks(driver)
    ino = scattered(driver, b"file", count)
    unlink(driver, b"file")
    driver.commit()
    driver.checkpoint()
    return driver, ino, free


def begun(driver: Driver) -> Inactivation:
    (inode,) = driver.volume.gc.take(9)
    inactivation = Inactivation(driver.volume.inodes, inode)
    assert inactivation.begin()
    return inactivation


def slot_of(driver: Driver, ino: int) -> OrphanSlot:
    plan = LookingPlan(driver)
    table = driver.volume.store.inodes.get(plan, ORPHAN_FILE_INO)
    block = plan.get(extents.map_range(plan, table, 0, 1)[0].physical, OrphanBlock)
    (slot,) = [slot for slot in block.slots if slot.ino == ino]
    return slot


def one_step(driver: Driver, inactivation: Inactivation) -> tuple[bool, Plan]:
    """(whether it was the last, the plan that was applied)."""

    def op(plan: Plan) -> tuple[bool, Plan]:
        return inactivation.step(plan), plan

    return driver.run_reserved(op)


def cut_off(driver: Driver, ino: int, free: int) -> Driver:
    """A crash after a commit: the next mount finds what stood there, and it is sound."""
    assert_sound(driver)
    stood = slot_of(driver, ino)
    device = MemoryDevice.from_bytes(snapshot_of(driver))
    superblock = run_job(device, read_superblock(device.size))
    ticks = itertools.count(1 << 20).__next__
    store = run_job(device, open_store(superblock, Memory(64 * MIB), clock=ticks, entropy=ticks, read_only=False))
    crashed = Driver(device, Volume(store, evict="deferred"))
    assert crashed.volume.inodes.pending_blocks == stood.blocks == record(crashed, ino).blocks
    assert free_blocks(crashed) == free
    crashed.reload()
    assert slot_of(crashed, ino) == stood
    assert free_blocks(crashed) == free
    return crashed


def other_operations(driver: Driver) -> None:
    """What others do between two steps: nothing of it is left."""
    ino = make_file(driver, b"between", b"b" * 3000)
    assert driver.read(ino, 0, 3000) == b"b" * 3000
    unlink(driver, b"between")
    assert driver.collect() == 1


@pytest.mark.parametrize("count", [COUNT, pytest.param(COUNT_LONG, marks=pytest.mark.long)])
def test_very_many_extents_are_freed_in_bounded_steps_and_resumed_after_each_crash(count: int) -> None:
    driver, ino, empty = orphaned(count)
    free = empty - 1  # the table of orphans has a block of its own as long as there is one
    assert free_blocks(driver) == free
    inactivation = begun(driver)
    steps = -(-count // INACTIVATION_EXTENTS_STEP)
    cuts = {1, steps // 3, steps // 2, steps - 2}
    at, done, number = 2 * count - 1, False, 0
    freed: set[int] = set()
    while not done:
        number += 1
        done, plan = one_step(driver, inactivation)
        assert len(plan.staged) <= STAGED_MAX
        blocks = [first + i for first, length in plan.freed for i in range(length)]
        assert freed.isdisjoint(blocks)
        freed.update(blocks)
        if done:
            break
        stood = slot_of(driver, ino).cursor
        assert stood == at - 2 * INACTIVATION_EXTENTS_STEP
        at = stood
        if number % 50 == 0:
            other_operations(driver)
            assert free_blocks(driver) == free
        if number in cuts:
            driver = cut_off(driver, ino, free)
            inactivation = begun(driver)
    inactivation.finish()
    assert number == steps
    assert_sound(driver)
    assert free_blocks(driver) == empty
    assert driver.volume.store.orphans.count == 0


async def test_requests_get_through_between_the_steps() -> None:
    driver, ino, free = orphaned(COUNT_MOUNTED)
    async with running(driver=driver, gc_workers=1) as runtime:
        runtime.engine.turns.turn_ns = -1  # a turn is one step
        left = [COUNT_MOUNTED]
        runtime.workers.push()
        while ino in runtime.volume.inodes.table:
            known = await make_known_file(runtime, b"file")
            await delete_and_forget(runtime, b"file", known)
            left.append(runtime.volume.inodes.pending_blocks)
            await trio.lowlevel.checkpoint()  # as when the next request is read
        steps = COUNT_MOUNTED // INACTIVATION_EXTENTS_STEP
        assert len(left) > steps // STEPS_BETWEEN_MAX
        step_blocks_max = INACTIVATION_EXTENTS_STEP * 9 // 8  # with the nodes of the tree
        assert max(before - after for before, after in pairwise(left[1:])) <= STEPS_BETWEEN_MAX * step_blocks_max
        await runtime.workers.flush()
        assert runtime.store.orphans.count == 0
        assert free_blocks(driver) == free
