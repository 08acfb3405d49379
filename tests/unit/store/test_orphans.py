from __future__ import annotations

import random

from deferfs.ondisk.inode import ORPHAN_FILE_INO
from deferfs.ondisk.orphan import OrphanBlock, OrphanSlot
from deferfs.store import extents
from deferfs.store.plan import Plan
from deferfs.volume import xattrs
from deferfs.volume.attributes import statfs
from deferfs.volume.driver import Driver
from tests.unit.volumes import FILE, fresh_driver, make_file, planned, record, reopened, unlink

PER_BLOCK = 31


def allocate(driver: Driver, count: int) -> list[int]:
    table = driver.volume.store.inodes
    return [driver.run(table.allocate, FILE, 5).ino for _ in range(count)]


def add(driver: Driver, ino: int) -> int:
    """Enter the inode; its slot."""
    store = driver.volume.store

    def op(plan: Plan) -> int:
        inode = store.inodes.modify(plan, ino)
        store.orphans.add(plan, inode)
        return inode.orphan_slot - 1

    return driver.run(op)


def clear(driver: Driver, ino: int) -> None:
    store = driver.volume.store
    driver.run(lambda plan: store.orphans.clear(plan, store.inodes.modify(plan, ino)))


def slots(driver: Driver) -> dict[int, OrphanSlot]:
    """What is in the table, and the invariants of its docstring."""
    store = driver.volume.store

    def op(plan: Plan) -> list[list[OrphanSlot]]:
        table = store.inodes.get(plan, ORPHAN_FILE_INO)
        last = extents.last_mapping(plan, table)
        end = last.end if last else 0
        pieces = extents.map_range(plan, table, 0, end) if end else []
        assert all(piece.physical for piece in pieces), "a hole"
        return [plan.get(p.physical + i, OrphanBlock).slots for p in pieces for i in range(p.length)]

    blocks = driver.run(op)
    used = [sum(1 for slot in block if slot.ino) for block in blocks]
    assert used == store.orphans.used
    assert not used or used[-1], "the last block is empty"
    assert record(driver, ORPHAN_FILE_INO).blocks == len(blocks)
    assert sorted(store.orphans.with_free_slots) == [n for n, count in enumerate(used) if count < PER_BLOCK]
    return {n * PER_BLOCK + i: slot for n, block in enumerate(blocks) for i, slot in enumerate(block) if slot.ino}


def test_slots_are_taken_lowest_first_and_reused() -> None:
    driver = fresh_driver()
    inos = allocate(driver, 5)
    assert [add(driver, ino) for ino in inos[:4]] == [0, 1, 2, 3]
    clear(driver, inos[1])
    assert add(driver, inos[4]) == 1
    found = slots(driver)
    assert found[1] == OrphanSlot(inos[4], record(driver, inos[4]).generation, 0, 0)
    assert driver.volume.store.orphans.count == 4
    assert record(driver, inos[1]).orphan_slot == 0


def test_the_table_grows_and_shrinks_by_its_last_blocks() -> None:
    driver = fresh_driver()
    inos = allocate(driver, 3 * PER_BLOCK)
    before = driver.volume.store.space.free_blocks
    for ino in inos:
        add(driver, ino)
    assert len(driver.volume.store.orphans.used) == 3
    for ino in inos[PER_BLOCK : 2 * PER_BLOCK]:
        clear(driver, ino)
    assert driver.volume.store.orphans.used == [PER_BLOCK, 0, PER_BLOCK]
    for ino in inos[2 * PER_BLOCK :]:
        clear(driver, ino)
    assert driver.volume.store.orphans.used == [PER_BLOCK]
    slots(driver)
    assert add(driver, inos[-1]) == PER_BLOCK
    for ino in [*inos[:PER_BLOCK], inos[-1]]:
        clear(driver, ino)
    assert slots(driver) == {}
    driver.commit()
    assert driver.volume.store.space.free_blocks == before


def test_no_slot_is_given_twice_whatever_comes_and_goes() -> None:
    driver = fresh_driver()
    inos = allocate(driver, 100)
    chance = random.Random(3)
    held: dict[int, int] = {}
    for _ in range(6):
        for ino in chance.sample(inos, 70):
            if ino not in held:
                held[ino] = add(driver, ino)
        assert len(set(held.values())) == len(held)
        assert {slot: content.ino for slot, content in slots(driver).items()} == {s: i for i, s in held.items()}
        for ino in chance.sample(sorted(held), len(held) * 2 // 3):
            clear(driver, ino)
            del held[ino]


def test_cursor_and_flags() -> None:
    driver = fresh_driver()
    (ino,) = allocate(driver, 1)
    slot = add(driver, ino)
    orphans = driver.volume.store.orphans
    driver.run(lambda plan: orphans.progress(plan, driver.volume.store.inodes.modify(plan, ino), 77))
    driver.run(orphans.set_quarantine, slot, ino, 5, quarantined=True)
    assert slots(driver)[slot][2:] == (1, 77, 0)
    for another in ((ino + 1, 5), (ino, 6)):  # the slot is another one's by now
        driver.run(orphans.set_quarantine, slot, *another, quarantined=False)
        assert slots(driver)[slot].flags == 1
    driver.run(orphans.set_quarantine, slot, ino, 5, quarantined=False)
    assert slots(driver)[slot][2:] == (0, 77, 0)


def test_a_slot_tells_what_its_inode_holds() -> None:
    """From the unlink on, whatever is done to the open file, and without decoding a slot at the next mount."""
    driver = fresh_driver()
    ino = make_file(driver, b"file", b"x" * 50_000)
    driver.volume.lookup_count(record(driver, ino))
    unlink(driver, b"file")
    driver.truncate(ino, 20_000)
    driver.write(ino, 100_000, b"y" * 9000)
    driver.run(xattrs.setxattr, driver.volume, ino, b"user.large", bytes(5000))
    held = record(driver, ino).blocks
    assert slots(driver)[record(driver, ino).orphan_slot - 1].blocks == held > 5
    assert driver.volume.inodes.table[ino].pending_blocks == held
    free = statfs(driver.volume).free
    driver.commit()
    again = reopened(driver)
    assert (again.volume.spill.count, again.volume.inodes.pending_blocks) == (1, held)
    assert statfs(again.volume).free == free + held
    assert again.reload() == 1
    assert (again.volume.spill.count, again.volume.inodes.pending_blocks) == (0, held)
    again.collect()
    again.commit()
    table = 1  # the block of the table itself is not needed any more
    assert (statfs(again.volume).free, again.volume.inodes.pending_blocks) == (free + held + table, 0)


def test_the_table_is_found_again_after_a_crash() -> None:
    driver = fresh_driver()
    inos = allocate(driver, 40)
    for ino in inos:
        add(driver, ino)
    for ino in inos[5:10]:
        clear(driver, ino)
    driver.commit()
    expected = slots(driver)
    again = reopened(driver)
    assert slots(again) == expected
    assert add(again, inos[5]) == 5


def test_a_dropped_plan_leaves_the_table_as_it_was() -> None:
    driver = fresh_driver()
    inos = allocate(driver, PER_BLOCK + 1)
    for ino in inos[:-1]:
        add(driver, ino)
    store = driver.volume.store
    before = store.space.free_blocks
    for op in (
        lambda plan: store.orphans.add(plan, store.inodes.modify(plan, inos[-1])),
        lambda plan: store.orphans.clear(plan, store.inodes.modify(plan, inos[0])),
    ):
        plan, _ = planned(driver, op)
        plan.drop()
        assert len(slots(driver)) == PER_BLOCK
        assert store.space.free_blocks == before
    assert add(driver, inos[-1]) == PER_BLOCK
