from __future__ import annotations

import errno

import pytest

from deferfs.limits import INACTIVATION_EXTENTS_STEP
from deferfs.ondisk.inode import ORPHAN_FILE_INO
from deferfs.ondisk.orphan import OrphanBlock
from deferfs.reclaim.states import State
from deferfs.store import extents
from deferfs.volume import namespace, xattrs
from deferfs.volume.driver import Driver
from deferfs.volume.inactivation import Inactivation, free_data
from tests.unit.volumes import (
    DIRECTORY,
    LookingPlan,
    assert_sound,
    fails_with,
    free_blocks,
    fresh_driver,
    make,
    make_file,
    planned,
    record,
    reopened,
    unlink,
)


def scattered(driver: Driver, name: bytes, count: int) -> int:
    """A file of `count` extents of one block."""
    ino = make(driver, name)
    for number in range(count):
        driver.write(ino, 2 * number * 1024, b"x" * 1024)
    return ino


def begun(driver: Driver) -> Inactivation:
    """The inactivation of the one inode that is queued."""
    driver.reload()
    (inode,) = driver.volume.gc.take(9)
    inactivation = Inactivation(driver.volume.inodes, inode)
    assert inactivation.begin()
    return inactivation


def step(driver: Driver, inactivation: Inactivation) -> bool:
    return driver.run_reserved(inactivation.step)


def cursor(driver: Driver, ino: int) -> int:
    plan = LookingPlan(driver)
    table = driver.volume.store.inodes.get(plan, ORPHAN_FILE_INO)
    block = plan.get(extents.map_range(plan, table, 0, 1)[0].physical, OrphanBlock)
    (slot,) = [slot for slot in block.slots if slot.ino == ino]
    return slot.cursor


def test_an_orphan_is_freed_in_bounded_steps_from_its_end() -> None:
    driver = fresh_driver(16 << 20, journal_blocks=600)
    free = free_blocks(driver)
    count = 5 * INACTIVATION_EXTENTS_STEP // 2
    ino = scattered(driver, b"file", count)
    driver.run(xattrs.setxattr, driver.volume, ino, b"user.a", bytes(3000))
    unlink(driver, b"file")
    inactivation = begun(driver)
    seen = []
    while not step(driver, inactivation):
        found = record(driver, ino)
        last = driver.run(extents.last_mapping, found)
        assert last is not None
        assert cursor(driver, ino) == last.end
        seen.append(last.end)
        assert found.nlink == 0
        assert_sound(driver)
    assert seen == [2 * (count - n * INACTIVATION_EXTENTS_STEP) - 1 for n in (1, 2)]
    inactivation.finish()
    assert inactivation.inode.state is State.FREED
    with fails_with(errno.ESTALE):
        record(driver, ino)
    assert_sound(driver)
    assert free_blocks(driver) == free


def test_a_step_takes_no_more_than_half_a_transaction() -> None:
    driver = fresh_driver(16 << 20, journal_blocks=256)
    scattered(driver, b"file", 3000)
    driver.commit()
    unlink(driver, b"file")
    driver.commit()
    inactivation = begun(driver)
    journal = driver.volume.store.journal
    while True:
        done = step(driver, inactivation)
        assert journal.running_blocks <= journal.transaction_blocks_max
        driver.commit()
        if done:
            break
    inactivation.finish()
    assert_sound(driver)


def test_a_step_ends_early_when_its_blocks_lie_far_apart() -> None:
    """So many bitmaps and nodes may change with few extents that the transaction, not their number, is the bound."""
    driver = fresh_driver()
    store = driver.volume.store
    ino = scattered(driver, b"file", INACTIVATION_EXTENTS_STEP)
    store.journal.transaction_blocks_max = 6
    plan, done = planned(driver, lambda plan: free_data(plan, store.inodes.modify(plan, ino)))
    assert not done
    assert 0 < len(plan.freed) < INACTIVATION_EXTENTS_STEP // 2
    plan.drop()


def test_an_inactivation_is_resumed_after_a_crash_wherever_it_stood() -> None:
    driver = fresh_driver(8 << 20, journal_blocks=600)
    free = free_blocks(driver)
    ino = scattered(driver, b"file", 3 * INACTIVATION_EXTENTS_STEP)
    unlink(driver, b"file")
    driver.commit()
    blocks = [record(driver, ino).blocks]
    for _ in range(10):
        driver = reopened(driver)
        assert driver.volume.gc.queued == (1 if blocks[-1] else 0)
        if not driver.volume.gc.queued:
            break
        inactivation = begun(driver)
        done = step(driver, inactivation)
        assert_sound(driver)
        blocks.append(0 if done else record(driver, ino).blocks)
    assert len(blocks) == 4
    assert blocks == sorted(blocks, reverse=True)
    assert free_blocks(driver) == free


@pytest.mark.parametrize("mode", [DIRECTORY, 0o010644, 0o120777])
def test_orphans_of_other_kinds(mode: int) -> None:
    driver = fresh_driver()
    free = free_blocks(driver)
    if mode == 0o120777:
        driver.run(namespace.symlink, driver.volume, 1, b"it", b"t" * 3000)
    else:
        make(driver, b"it", mode)
    driver.run(namespace.rmdir if mode == DIRECTORY else namespace.unlink, driver.volume, 1, b"it")
    inactivation = begun(driver)
    assert step(driver, inactivation)
    inactivation.finish()
    assert_sound(driver)
    assert free_blocks(driver) == free


class TestLinked:
    def idle(self, driver: Driver, size: int = 80 * 1024) -> int:
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        for at in range(0, size, 8192):
            driver.write(ino, at, b"x" * 8192)
        driver.volume.inodes.table[ino].lazy_atime = 1 << 40
        driver.forget(ino, 1)
        return ino

    def test_blocks_past_the_end_and_the_access_time(self) -> None:
        driver = fresh_driver()
        ino = self.idle(driver)
        assert record(driver, ino).blocks > 80
        driver.reclaim(1 << 20)
        inactivation = begun(driver)
        assert step(driver, inactivation)
        inode = inactivation.inode
        assert not inode.needs_inactivation
        inactivation.finish()
        assert (record(driver, ino).blocks, record(driver, ino).atime) == (80, 1 << 40)
        assert ino not in driver.volume.inodes.table
        assert driver.read(ino, 0, 1 << 20) == b"x" * 80 * 1024

    def test_a_time_noted_meanwhile_is_not_lost(self) -> None:
        driver = fresh_driver()
        ino = self.idle(driver)
        driver.reclaim(1 << 20)
        inactivation = begun(driver)
        inode = inactivation.inode

        def op(plan: object) -> bool:
            done = inactivation.step(plan)  # type: ignore[arg-type]
            inode.lazy_atime = 1 << 41
            return done

        driver.run_reserved(op)
        assert inode.lazy_atime == 1 << 41
        assert record(driver, ino).atime == 1 << 40

    def test_a_lookup_stops_it(self) -> None:
        driver = fresh_driver()
        ino = self.idle(driver)
        driver.reclaim(1 << 20)
        inactivation = begun(driver)
        driver.volume.lookup_count(record(driver, ino))
        assert step(driver, inactivation)
        inactivation.finish()
        assert inactivation.inode.state is State.LIVE
        assert record(driver, ino).blocks > 80

    def test_a_lookup_before_it_began(self) -> None:
        driver = fresh_driver()
        ino = self.idle(driver)
        driver.reclaim(1 << 20)
        driver.volume.lookup_count(record(driver, ino))
        assert driver.collect() == 0
        driver.forget(ino, 1)
        driver.reclaim(1 << 20)
        assert driver.collect() == 1

    def test_an_unlink_between_two_steps_makes_it_an_orphans(self) -> None:
        driver = fresh_driver()
        free = free_blocks(driver)
        ino = self.idle(driver)
        driver.reclaim(1 << 20)
        inactivation = begun(driver)
        unlink(driver, b"file")
        assert driver.volume.due == []
        while not step(driver, inactivation):
            pass
        inactivation.finish()
        with fails_with(errno.ESTALE):
            record(driver, ino)
        driver.commit()
        assert free_blocks(driver) == free
        assert driver.volume.inodes.pending_blocks == 0


def test_another_inode_of_that_number_is_not_touched() -> None:
    driver = fresh_driver()
    ino = make_file(driver, b"file", b"x" * 3000)
    volume = driver.volume
    stale = volume.inodes.orphaned(ino, record(driver, ino).generation + 1, 0)
    assert stale is not None
    inactivation = Inactivation(volume.inodes, stale)
    inactivation.begin()
    with fails_with(errno.ESTALE):
        step(driver, inactivation)
    assert driver.read(ino, 0, 9999) == b"x" * 3000
