from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from deferfs.device import FailingDevice, Fault, MemoryDevice, Request
from deferfs.errors import CorruptionError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.inode import InodeBlock
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.needs import NeedBlocks, NeedData, NeedFreeSpace, NeedLogSpace
from deferfs.store.plan import Plan
from deferfs.store.store import Store
from deferfs.volume.driver import DeadlockError, Driver
from tests.unit.volumes import FILE, fails_with, fresh_device, fresh_driver, fresh_store, make, open_driver, snapshot_of


def bitmap_of(store: Store) -> Bitmap:
    found = store.cache.entries[store.superblock.bitmap_address(0)].obj
    assert isinstance(found, Bitmap)
    return found


def state_of(store: Store) -> tuple[object, ...]:
    """Everything shared that a plan could touch."""
    space, journal = store.space, store.journal
    return (
        {address: entry.obj for address, entry in store.cache.entries.items()},
        {address: entry.holds for address, entry in store.cache.entries.items()},
        [space.unavailable(group).copy() for group in range(len(space.counts))],
        (space.free_blocks, space.pending_blocks),
        dict(journal.running.images),
        set(journal.running.revokes),
        list(journal.running.freed),
    )


def busy(plan: Plan) -> int:
    """Allocate three blocks, create one, change one, free one."""
    first, length = plan.allocate(0, 3)
    assert length == 3
    plan.create(first, XattrBlock(8, b"x", 0))
    plan.modify(plan.store.inodes.root_address, InodeBlock)
    plan.free(first + 2, 1)
    return first


def test_a_plan_asks_for_what_it_lacks() -> None:
    plan = Plan(fresh_store())
    with pytest.raises(NeedBlocks) as caught:
        plan.get(400, XattrBlock)
    assert caught.value.blocks == [(400, XattrBlock)]
    with pytest.raises(NeedData) as data:
        plan.data(4096, 10)
    assert (data.value.offset, data.value.length) == (4096, 10)
    plan.supplied[4096, 10] = b"0123456789"
    assert plan.data(4096, 10) == b"0123456789"


def test_a_block_of_another_kind_is_corruption() -> None:
    store = fresh_store()
    with pytest.raises(CorruptionError, match="is used both as"):
        Plan(store).get(store.inodes.root_address, XattrBlock)


def test_changes_are_private_until_they_are_applied() -> None:
    store = fresh_store()
    address = store.inodes.root_address
    published = store.cache.entries[address].obj
    plan = Plan(store)
    copy = plan.modify(address, InodeBlock)
    assert copy is not published
    assert plan.modify(address, InodeBlock) is copy is plan.get(address, InodeBlock)
    assert Plan(store).get(address, InodeBlock) is published
    plan.apply()
    assert Plan(store).get(address, InodeBlock) is copy
    assert plan.tid == store.journal.running.tid


def test_dropping_leaves_nothing() -> None:
    store = fresh_store()
    before = state_of(store)
    plan = Plan(store)
    busy(plan)
    assert plan.staged
    plan.drop()
    plan.drop()
    assert state_of(store) == before


def test_applying_does_everything_at_once() -> None:
    store = fresh_store()
    free = store.space.free_blocks
    plan = Plan(store)
    done: list[str] = []
    plan.on_apply.append(lambda: done.append("done"))
    first = busy(plan)
    assert bitmap_of(store).bits.count(1, first, first + 3) == 0
    plan.apply()
    assert done == ["done"]
    assert bitmap_of(store).bits[first : first + 3].to01() == "110"
    assert store.space.unavailable(0)[first : first + 3].to01() == "111", "freed, but not yet committed"
    assert (store.space.free_blocks, store.space.pending_blocks) == (free - 3, 1)
    assert set(plan.staged) == set(store.journal.running.images)
    assert all(store.cache.entries[address].holds for address in plan.staged)


def test_a_plan_without_changes_joins_nothing() -> None:
    store = fresh_store()
    plan = Plan(store)
    plan.get(store.inodes.root_address, InodeBlock)
    plan.apply()
    assert plan.tid == 0
    assert store.journal.running.empty


def test_a_freed_metadata_block_is_revoked() -> None:
    store = fresh_store()
    plan = Plan(store)
    first, _ = plan.allocate(0, 1)
    plan.create(first, XattrBlock(8, b"x", 0))
    plan.apply()
    plan = Plan(store)
    plan.free_metadata(first)
    plan.apply()
    running = store.journal.running
    assert first in running.revokes
    assert first not in running.images
    assert first not in store.cache.entries


@pytest.mark.parametrize(("first", "length"), [(0, 1), (-1, 1), (6143, 2), (1 << 40, 1)])
def test_blocks_outside_cannot_be_freed(first: int, length: int) -> None:
    plan = Plan(fresh_store())
    with pytest.raises(CorruptionError, match="outside the filesystem"):
        plan.free(first, length)


def test_freeing_twice_is_corruption() -> None:
    plan = Plan(fresh_store())
    first, _ = plan.allocate(0, 2)
    plan.free(first, 1)
    with pytest.raises(CorruptionError, match="bitmap disagrees"):
        plan.free(first, 2)


def test_a_run_over_two_groups_marks_both_bitmaps() -> None:
    store = fresh_driver(10 << 20).volume.store
    plan = Plan(store)
    plan._mark(7930, 20, 1)
    assert len(plan.staged) == 2
    plan.free(7930, 20)
    assert not any(
        bitmap.bits.count(1, 0, 14) for bitmap in list(plan.staged.values())[1:] if isinstance(bitmap, Bitmap)
    )


def test_a_need_for_log_space_touches_nothing() -> None:
    store = fresh_store()
    store.journal.granted_credits = store.journal.blocks
    plan = Plan(store)
    busy(plan)
    done: list[str] = []
    plan.on_apply.append(lambda: done.append("done"))
    before = state_of(store)
    with pytest.raises(NeedLogSpace) as caught:
        plan.apply()
    assert caught.value.credits == len(plan.staged) + 2
    assert state_of(store) == before
    assert not done


@pytest.mark.parametrize("what", ["aborted", "read_only"])
def test_a_plan_changes_nothing_of_an_aborted_or_read_only_store(what: str) -> None:
    store = fresh_store()
    if what == "aborted":
        store.journal.abort(OSError(errno.EIO, "broken"))
    else:
        store.read_only = True
    before = state_of(store)
    plan = Plan(store)
    with fails_with(errno.EROFS):
        busy(plan)
        plan.apply()
    plan.drop()
    assert state_of(store) == before


@pytest.mark.parametrize("read_only", [False, True])
def test_a_refused_write_does_not_reach_the_device(read_only: bool) -> None:
    device = fresh_device()
    driver = open_driver(device)
    ino = make(driver, b"file")
    driver.write(ino, 0, b"a" * 3000)
    driver.close()
    driver = open_driver(device, read_only=read_only)
    if not read_only:
        driver.volume.store.journal.abort(OSError(errno.EIO, "broken"))
    before = snapshot_of(driver)
    with fails_with(errno.EROFS):
        driver.write(ino, 0, b"b" * 3000)
    assert snapshot_of(driver) == before


# --- the driver satisfies every need and runs the operation again ---


def retried(driver: Driver, fail_first: Callable[[Plan], None], times: int = 1) -> list[int]:
    """Run an operation that lacks something at first; the number of each run."""
    runs: list[int] = []

    def op(plan: Plan) -> None:
        runs.append(len(runs))
        first, _ = plan.allocate(0, 1)
        plan.create(first, XattrBlock(8, b"x", 0))
        if len(runs) <= times:
            fail_first(plan)

    driver.run(op)
    return runs


def test_blocks_are_fetched() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    address = store.superblock.bitmap_address(0)
    driver.commit()
    driver.checkpoint()
    store.cache.entries[address].holds = 0
    store.cache.drop(address)
    free = store.space.free_blocks
    assert retried(driver, lambda plan: None) == [0, 1]
    assert store.space.free_blocks == free - 1


def test_data_is_read() -> None:
    driver = fresh_driver()
    seen: list[bytes] = []
    assert retried(driver, lambda plan: seen.append(plan.data(0, 12)), times=2) == [0, 1]
    assert [data[4:] for data in seen] == [b"deferfs\x01"]


def need(kind: NeedLogSpace | NeedFreeSpace) -> Callable[[Plan], None]:
    def fail(plan: Plan) -> None:
        raise kind

    return fail


def test_log_space_is_granted_and_refunded() -> None:
    driver = fresh_driver()
    make(driver, b"something to commit")
    assert retried(driver, need(NeedLogSpace(50))) == [0, 1]
    journal = driver.volume.store.journal
    assert (journal.granted_credits, len(journal.grants)) == (0, 0)


@pytest.mark.parametrize("second", [NeedFreeSpace(1), CorruptionError("bad")])
def test_log_space_is_refunded_when_the_operation_fails(second: Exception) -> None:
    driver = fresh_driver()
    runs: list[int] = []

    def op(plan: Plan) -> None:
        runs.append(1)
        raise NeedLogSpace(50) if len(runs) == 1 else second

    with fails_with(errno.ENOSPC if isinstance(second, NeedFreeSpace) else errno.EUCLEAN):
        driver.run(op)
    journal = driver.volume.store.journal
    assert (journal.granted_credits, len(journal.grants)) == (0, 0)


def test_log_space_is_refunded_when_a_block_cannot_be_read() -> None:
    device = FailingDevice(fresh_device())
    driver = open_driver(device)
    runs: list[int] = []

    def op(plan: Plan) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise NeedLogSpace(50)
        plan.get(5000, XattrBlock)

    device.add(Fault(frozenset({Request.READ}), sticky=True))
    with fails_with(errno.EIO):
        driver.run(op)
    assert driver.volume.store.journal.granted_credits == 0


def test_an_operation_that_fits_into_no_log_is_refused() -> None:
    driver = fresh_driver()
    with fails_with(errno.ENOSPC):
        retried(driver, need(NeedLogSpace(driver.volume.store.journal.alone_blocks_max + 1)))
    assert not driver.volume.store.journal.grants


def test_a_wait_that_nothing_ends_is_told() -> None:
    driver = fresh_driver()
    driver.volume.store.journal.used = driver.volume.store.journal.blocks
    with pytest.raises(DeadlockError, match="Granted never ends"):
        retried(driver, need(NeedLogSpace(50)))
    assert not driver.volume.store.journal.grants


def test_free_space_is_made_by_a_commit_and_then_by_inactivation() -> None:
    driver = fresh_driver()
    pending = driver.volume.store.space
    plan = Plan(driver.volume.store)
    busy(plan)
    plan.apply()
    assert pending.pending_blocks == 1
    assert retried(driver, need(NeedFreeSpace(1))) == [0, 1]
    assert pending.pending_blocks == 0
    with fails_with(errno.ENOSPC):
        retried(driver, need(NeedFreeSpace(1)), times=9)


def test_an_operation_error_drops_the_plan() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    before = state_of(store)

    def op(plan: Plan) -> None:
        busy(plan)
        store.inodes.allocate(plan, FILE, 1)
        raise KeyError

    with pytest.raises(KeyError):
        driver.run(op)
    assert state_of(store) == before
    assert isinstance(driver.device, MemoryDevice)
