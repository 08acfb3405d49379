from __future__ import annotations

import errno

import pytest

from deferfs.errors import CorruptionError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.inode import FIRST_INO, INODE_FILE_INO, Inode, InodeBlock
from deferfs.store import extents
from deferfs.store.plan import Plan
from deferfs.volume.driver import Driver
from tests.unit.volumes import LookingPlan, fails_with, fresh_driver, planned, record, reopened, settle

IN_CHUNK_0 = 64 - FIRST_INO
"""Inodes that a fresh image with 1 KiB blocks has room for before the table grows."""
PER_GROUP = 7936


def allocate(driver: Driver, count: int = 1) -> list[int]:
    table = driver.volume.store.inodes
    return [driver.run(table.allocate, 0o100644, 5).ino for _ in range(count)]


def free(driver: Driver, inos: list[int]) -> None:
    for ino in inos:
        driver.run(driver.volume.store.inodes.free, ino)


def table_blocks(driver: Driver) -> int:
    return record(driver, INODE_FILE_INO).blocks


def check(driver: Driver) -> None:
    """The invariants of the module's docstring, from what is published."""
    store = driver.volume.store
    fmt = store.fmt

    def look(plan: Plan) -> None:
        table = store.inodes.get(plan, INODE_FILE_INO)
        last = extents.last_mapping(plan, table)
        assert last is not None
        used = 0
        for group in range(-(-last.end // fmt.inode_group_blocks)):
            base = group * fmt.inode_group_blocks
            bitmap = extents.map_range(plan, table, base, 1)[0].physical
            chunks = [
                extents.map_range(plan, table, base + 1 + i * fmt.chunk_blocks, fmt.chunk_blocks)
                for i in range(fmt.chunks_per_inode_group)
            ]
            if not bitmap:
                assert not any(piece.physical for chunk in chunks for piece in chunk)
                continue
            bits = plan.get(bitmap, Bitmap).bits
            used += bits.count(1, 0, fmt.inodes_per_group)
            assert bits.count(0, fmt.inodes_per_group) == 0
            for number, chunk in enumerate(chunks):
                start = number * fmt.inodes_per_chunk
                in_use = bits[start : start + fmt.inodes_per_chunk]
                mapped = all(piece.physical for piece in chunk)
                assert mapped or not any(piece.physical for piece in chunk)
                assert mapped == bool(in_use.any() or (group, number) == (0, 0))
                for index in range(fmt.inodes_per_chunk) if mapped else ():
                    ino = group * fmt.inodes_per_group + start + index
                    assert bool(in_use[index]) == exists(plan, ino) or ino < FIRST_INO
        assert used == store.inodes.used

    def exists(plan: Plan, ino: int) -> bool:
        group, index = divmod(ino, fmt.inodes_per_group)
        logical = group * fmt.inode_group_blocks + 1 + index // fmt.inodes_per_block
        address = extents.map_range(plan, store.inodes.get(plan, INODE_FILE_INO), logical, 1)[0].physical
        found = plan.get(address, InodeBlock).record(fmt, address, index % fmt.inodes_per_block)
        assert found.ino == ino
        return bool(found.mode)

    look(LookingPlan(driver))


def test_inodes_are_allocated_lowest_first_and_reused() -> None:
    driver = fresh_driver()
    assert allocate(driver, 3) == [8, 9, 10]
    free(driver, [9])
    assert allocate(driver, 2) == [9, 11]
    check(driver)


def test_the_table_grows_by_chunks_and_shrinks_back() -> None:
    driver = fresh_driver()
    space = driver.volume.store.space
    before = (space.free_blocks, table_blocks(driver))
    inos = allocate(driver, IN_CHUNK_0)
    assert table_blocks(driver) == before[1]
    inos += allocate(driver)
    assert table_blocks(driver) == before[1] + 32
    inos += allocate(driver, 3 * 64)
    assert table_blocks(driver) == before[1] + 4 * 32
    check(driver)
    free(driver, inos[::-3])
    check(driver)
    free(driver, [ino for ino in inos if ino not in inos[::-3]])
    driver.commit()
    assert (space.free_blocks, table_blocks(driver)) == before
    assert driver.volume.store.inodes.used == FIRST_INO
    check(driver)


def test_the_address_of_a_chunk_is_forgotten_with_the_chunk() -> None:
    driver = fresh_driver()
    inos = allocate(driver, IN_CHUNK_0 + 64)
    assert [record(driver, ino).ino for ino in inos] == inos
    assert len(driver.volume.store.inodes.memo) > 1
    free(driver, inos[IN_CHUNK_0:])
    assert list(driver.volume.store.inodes.memo) == [0]
    with fails_with(errno.ESTALE):
        record(driver, 64)
    driver.commit()
    driver.volume.store.space.hold(driver.volume.store.inodes.root_address, 40)
    assert allocate(driver, 64) == inos[IN_CHUNK_0:]
    check(driver)


def test_a_second_group_has_its_own_bitmap() -> None:
    driver = fresh_driver(14 << 20)
    store = driver.volume.store
    before = store.space.free_blocks
    inos = allocate(driver, PER_GROUP - FIRST_INO + 1)
    assert inos == list(range(FIRST_INO, PER_GROUP + 1))
    assert store.inodes.groups == 2
    settle(driver)
    again = reopened(driver)
    assert again.volume.store.inodes.groups == 2
    assert again.volume.store.inodes.used == store.inodes.used == PER_GROUP + 1
    assert allocate(again, 2) == [PER_GROUP + 1, PER_GROUP + 2]
    check(again)
    free(again, [*inos, PER_GROUP + 1, PER_GROUP + 2])
    again.commit()
    assert again.volume.store.space.free_blocks == before
    check(again)
    assert allocate(again) == [FIRST_INO]


@pytest.mark.parametrize("block_size", [4096, 65536])
def test_growth_with_larger_blocks(block_size: int) -> None:
    driver = fresh_driver(block_size=block_size)
    before = driver.volume.store.space.free_blocks
    inos = allocate(driver, 300)
    check(driver)
    free(driver, inos)
    driver.commit()
    assert driver.volume.store.space.free_blocks == before
    check(driver)


@pytest.mark.parametrize("ino", [0, 4, 7, FIRST_INO, 63, 64, PER_GROUP, 1 << 40])
def test_an_inode_that_does_not_exist_is_stale(ino: int) -> None:
    driver = fresh_driver()
    with fails_with(errno.ESTALE):
        driver.run(driver.volume.store.inodes.get, ino)
    with fails_with(errno.ESTALE):
        driver.run(driver.volume.store.inodes.modify, ino)


def test_a_freed_inode_is_stale_and_keeps_its_generation_in_the_record() -> None:
    driver = fresh_driver()
    first, second = allocate(driver, 2)
    free(driver, [first])
    with fails_with(errno.ESTALE):
        record(driver, first)
    assert record(driver, second).ino == second


def test_a_record_of_another_inode_is_corruption() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    plan, _ = planned(driver, lambda plan: store.inodes.modify(plan, 1))
    address = store.inodes.root_address
    plan.staged[address].records[1] = Inode(5, 0o100644)  # type: ignore[attr-defined]
    plan.inodes.clear()
    with pytest.raises(CorruptionError, match="inode 5 where 1 belongs"):
        store.inodes.get(plan, 1)
    plan.drop()


def test_a_dropped_plan_leaves_the_table_as_it_was() -> None:
    driver = fresh_driver()
    allocate(driver, IN_CHUNK_0)
    table = driver.volume.store.inodes
    before = (dict(table.hints), dict(table.memo), table.used, table.groups, driver.volume.store.space.free_blocks)
    plan, inode = planned(driver, lambda plan: table.allocate(plan, 0o100644, 1))
    assert inode.ino == 64
    plan.drop()
    assert (
        dict(table.hints),
        dict(table.memo),
        table.used,
        table.groups,
        driver.volume.store.space.free_blocks,
    ) == before
    assert allocate(driver) == [64]


def test_several_inodes_in_one_plan() -> None:
    driver = fresh_driver()
    table = driver.volume.store.inodes

    def op(plan: Plan) -> list[int]:
        return [table.allocate(plan, 0o100644, 1).ino for _ in range(100)]

    assert driver.run(op) == list(range(8, 108))
    check(driver)

    def undo(plan: Plan) -> None:
        for ino in range(8, 108):
            table.free(plan, ino)

    driver.run(undo)
    check(driver)
    assert allocate(driver) == [8]


def test_the_chunk_is_mapped_in_pieces_when_space_is_scattered() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    store.space.cursor = 0  # none of it is left to the inode table

    inos = allocate(driver, IN_CHUNK_0)
    taken: list[int] = []
    while store.space.available > 6:
        first, length = store.space.hold(0, 6)
        taken.append(first + 5)
        assert length == 6
    for last in taken:
        store.space.let_go(last - 5, 5)
    inos += allocate(driver)
    check(driver)

    def pieces(plan: Plan) -> int:
        return len(extents.map_range(plan, store.inodes.get(plan, INODE_FILE_INO), 33, 32))

    assert driver.run(pieces) == 7
    free(driver, inos)
    check(driver)


def test_the_table_grows_in_one_piece_beside_data() -> None:
    """So that its blocks are read and written together."""
    driver = fresh_driver()
    space = driver.volume.store.space
    allocate(driver, IN_CHUNK_0)
    for _ in range(2):
        allocate(driver, driver.volume.store.fmt.inodes_per_chunk)
        space.hold(0, 40)  # as a file does

    def pieces(plan: Plan) -> list[int]:
        found = extents.map_range(plan, driver.volume.store.inodes.get(plan, INODE_FILE_INO), 33, 64)
        return [piece.length for piece in found]

    assert driver.run(pieces) == [64]


def test_data_are_allocated_where_the_table_would_grow_when_nothing_else_is_free() -> None:
    space = fresh_driver().volume.store.space
    while space.available:
        space.hold(0, 1000)
    assert space.free_blocks == space.reserve


# --- access times ---


def sealed_again(driver: Driver) -> None:
    """All records lie on disk, and sealed in the cache."""
    settle(driver)
    driver.volume.store.cache.shrink(1 << 30)


def raised(driver: Driver, ino: int, generation: int, atime: int) -> tuple[bool, Plan]:
    """Whether the access time was raised, and the plan that did it, unapplied."""
    plans: list[Plan] = []

    def op(plan: Plan) -> bool:
        plans.append(plan)
        fmt = driver.volume.store.fmt
        settled = driver.volume.store.inodes.raise_atimes(
            plan, fmt.first_in_table_block(ino), [(ino, generation, atime)]
        )
        assert settled == [(ino, generation, atime)]
        return bool(plan.staged)

    return driver.run(op), plans[-1]


def slot_of(driver: Driver, ino: int) -> Inode | bytes:
    """The record as the cache has it."""
    store = driver.volume.store
    address, slot = store.inodes.locate(Plan(store), ino)
    block = store.cache.entries[address].obj
    assert isinstance(block, InodeBlock)
    return block.records[slot]


def test_a_sealed_record_stays_sealed_when_its_access_time_is_raised() -> None:
    driver = fresh_driver()
    ino, other = allocate(driver, 2)
    sealed_again(driver)
    assert raised(driver, ino, 5, 70)[0]
    assert isinstance(slot_of(driver, ino), bytes)
    assert isinstance(slot_of(driver, other), bytes)
    assert raised(driver, ino, 5, 60)[0], "it has a later one"
    assert record(driver, ino).atime == 70
    assert raised(driver, ino, 5, 80)[0], "it is decoded now"
    driver.commit()
    assert record(reopened(driver), ino).atime == 80


def test_a_raised_access_time_is_seen_by_the_plan_and_waited_for_by_fsync() -> None:
    driver = fresh_driver()
    ino, other = allocate(driver, 2)
    sealed_again(driver)
    table, journal = driver.volume.store.inodes, driver.volume.store.journal

    def op(plan: Plan) -> int:
        table.get(plan, ino)
        plan.get(table.locate(plan, ino)[0], InodeBlock)
        table.raise_atimes(plan, driver.volume.store.fmt.first_in_table_block(other), [(other, 5, 80)])
        assert table.get(plan, other).atime == 80
        return table.modify(plan, other).atime

    assert driver.run(op) == 80
    sealed_again(driver)
    assert raised(driver, ino, 5, 90)[0]
    assert ino in journal.running.inodes
    assert ino not in journal.running.data_inodes


def test_an_access_time_is_not_raised_where_the_inode_is_gone() -> None:
    driver = fresh_driver()
    ino, gone = allocate(driver, 2)
    free(driver, [gone])
    sealed_again(driver)
    for wanted, generation in ((gone, 5), (ino, 6), (10**6, 5)):
        done, plan = raised(driver, wanted, generation, 90)
        assert not done
        assert not plan.staged
    record(driver, ino)
    assert not raised(driver, ino, 6, 90)[0], "decoded"
    assert not raised(driver, gone, 5, 90)[0], "decoded"
    assert record(driver, ino).atime == 0


def test_a_damaged_record_is_not_sealed_again() -> None:
    driver = fresh_driver()
    ino, other = allocate(driver, 2)
    sealed_again(driver)
    record(driver, other)
    store = driver.volume.store
    address, slot = store.inodes.locate(Plan(store), ino)
    block = store.cache.entries[address].obj
    assert isinstance(block, InodeBlock)
    whole = block.records[slot]
    assert isinstance(whole, bytes)
    block.records[slot] = whole[:300] + b"x" + whole[301:]
    with pytest.raises(CorruptionError, match="checksum"):
        raised(driver, ino, 5, 90)
