"""The account of what waits in the orphan table alone; schedules of it are in tests/property/test_spill.py."""

from __future__ import annotations

import pytest

from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.gc import InodeGc
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.spill import NONE, Spill, Spilled
from deferfs.reclaim.states import State

PER_BLOCK = 10


@pytest.fixture
def spill() -> Spill:
    found = Spill(PER_BLOCK)
    found.reserve(6)
    return found


class TestSpill:
    def test_blocks_of_the_table_come_up_in_the_order_of_their_first(self, spill: Spill) -> None:
        for now, slot in enumerate((25, 3, 21, 40), 1):
            spill.put(slot, 1, 1, now)
        order = []
        while (number := spill.upcoming()) != NONE:
            order.append((number, spill.waits_in(number), spill.oldest_ns()))
            spill.settle(number)
        assert order == [(2, 2, 1), (0, 1, 2), (4, 1, 4)]
        assert (spill.count, spill.extents, spill.blocks, spill.oldest_ns()) == (0, 0, 0, 0)

    def test_one_that_leaves_takes_what_it_holds(self, spill: Spill) -> None:
        spill.put(0, 100, 4, 1)
        spill.put(1, 10, 2, 2)
        assert spill.leave(0, 100) == 0
        assert (spill.count, spill.blocks, spill.extents) == (1, 10, 3)
        assert spill.leave(1, 7) == 3  # a damaged slot: blocks that no inode holds
        assert (spill.count, spill.blocks, spill.extents) == (0, 0, 0)

    def test_a_block_in_the_middle_leaves_the_list(self, spill: Spill) -> None:
        for slot in (0, 10, 20):
            spill.put(slot, 0, 0, 1 + slot)
        spill.leave(10, 0)
        spill.put(11, 0, 0, 50)
        order = []
        while (number := spill.upcoming()) != NONE:
            order.append(number)
            spill.settle(number)
        assert order == [0, 2, 1]

    def test_orphans_wanted_out_of_turn_come_first(self, spill: Spill) -> None:
        for slot in (0, 10, 20):
            spill.put(slot, 5, 1, 1)
        spill.hasten(2)
        spill.hasten(2)
        assert (spill.upcoming(), spill.hastened_blocks(), list(spill.urgent)) == (2, 5, [2])
        assert [one.number for one in spill.candidates()] == [0, 1]
        spill.settle(2)
        assert (spill.upcoming(), spill.hastened_blocks()) == (0, 0)

    def test_the_cheapest_in_a_block_tells_its_price(self, spill: Spill) -> None:
        spill.put(0, 10, 99, 1)
        spill.put(1, 1000, 0, 1)
        spill.put(10, 0, 0, 1)
        assert spill.candidates() == [(0.001, 1010, 0)]

    def test_memory_follows_the_blocks_of_the_table(self) -> None:
        """A million orphans in blocks of 127 slots: less than half a byte for each."""
        spill = Spill(127)
        spill.reserve(-(-1_000_000 // 127))
        for slot in range(0, 1_000_000, 997):
            spill.put(slot, 1, 1, 1)
        assert spill.resident_bytes < 500_000


class TestInodeGc:
    @pytest.fixture
    def gc(self, spill: Spill) -> InodeGc:
        gc = InodeGc(InodeCache(), iter(range(1, 10_000)).__next__, spill=spill)
        gc.in_core_max = 2
        return gc

    def orphan(self, gc: InodeGc, ino: int, *, blocks: int = 1, extents: int = 1) -> InCoreInode:
        found = gc.cache.orphaned(ino, 1, blocks, extents, slot=ino)
        assert found is not None
        gc.enqueue(found)
        return found

    def test_beyond_the_bound_nothing_is_kept_in_core(self, gc: InodeGc) -> None:
        made = [self.orphan(gc, ino, blocks=10) for ino in range(1, 8)]
        assert sorted(gc.cache.table) == [1, 2]
        assert [inode.state for inode in made[2:]] == [State.FREED] * 5
        assert (gc.queued, gc.in_core, gc.spill.count, gc.extents) == (7, 2, 5, 7)
        assert (gc.cache.pending_blocks, gc.spill.blocks) == (70, 50)
        assert gc.statistics().queued_total == 7

    def test_orphans_in_the_table_are_not_overtaken(self, gc: InodeGc) -> None:
        for ino in range(1, 4):
            self.orphan(gc, ino)
        assert [inode.ino for inode in gc.take(9)] == [1, 2]
        self.orphan(gc, 4)
        assert gc.spill.count == 2

    def test_inodes_that_failed_or_have_no_slot_stay_in_core(self, gc: InodeGc) -> None:
        gc.in_core_max = 0
        without = gc.cache.orphaned(9, 1, 1)
        assert without is not None
        gc.enqueue(without)
        assert without.state is State.QUEUED
        (taken,) = gc.take(1)
        gc.cache.begin(taken)
        taken.slot = 9
        gc.failed(taken)
        gc.retry_now()
        assert (taken.state, gc.spill.count) == (State.QUEUED, 0)

    def test_back_in_core_they_are_queued_and_counted_once(self, gc: InodeGc) -> None:
        for ino in range(1, 8):
            self.orphan(gc, ino, blocks=10)
        gc.take(9)
        gc.reload(0, [Spilled(ino, ino, 1, 10) for ino in (3, 4, 5)])
        assert (gc.in_core, gc.spill.count, gc.queued, gc.cache.pending_blocks) == (3, 2, 5, 70)
        assert gc.statistics().queued_total == 7
        assert [inode.ino for inode in gc.take(9)] == [3, 4, 5]

    def test_cancelled_by_a_look_up(self, gc: InodeGc) -> None:
        for ino in range(1, 8):
            self.orphan(gc, ino, blocks=10)
        gc.recall(Spilled(5, 5, 1, 10))
        inode = gc.cache.lookup(5, 1)
        assert (inode.orphan, inode.slot, inode.state) == (True, 5, State.LIVE)
        assert (gc.queued, gc.cache.pending_blocks, gc.cache.held_orphans) == (6, 60, 1)
        again = gc.cache.forget(5, 1)
        assert again is not None
        gc.enqueue(again)
        assert (gc.queued, gc.cache.pending_blocks, gc.spill.count) == (7, 70, 5)

    def test_space_comes_from_the_cheapest_wherever_it_waits(self, gc: InodeGc) -> None:
        self.orphan(gc, 1, blocks=10, extents=10)
        self.orphan(gc, 2, blocks=20, extents=0)
        self.orphan(gc, 3, blocks=500, extents=0)
        self.orphan(gc, 30, blocks=500, extents=400)
        assert gc.hasten_space(515) == 520
        assert (list(gc.spill.urgent), [inode.ino for inode in gc.urgent]) == ([0], [2])
        gc.reload(0, [Spilled(3, 3, 1, 500)])
        assert [inode.ino for inode in gc.take(9)] == [2, 3]

    def test_a_block_that_names_none_of_them_is_given_up(self, gc: InodeGc) -> None:
        for ino in range(1, 8):
            self.orphan(gc, ino, blocks=10)
        gc.reload(0, [])
        assert (gc.spill.count, gc.queued, gc.cache.pending_blocks) == (0, 2, 20)


def test_damaged_counts_fit_and_leave_nothing_behind() -> None:
    gc = InodeGc(InodeCache(), iter(range(1, 10_000)).__next__, spill=Spill(PER_BLOCK))
    gc.spill.reserve(1)
    gc.in_core_max = 0
    for slot in range(PER_BLOCK):
        inode = gc.cache.orphaned(slot + 1, 1, (1 << 64) - 1, (1 << 64) - 1, slot=slot)
        assert inode is not None
        gc.enqueue(inode)
    gc.reload(0, [Spilled(slot, slot + 1, 1, (1 << 64) - 1) for slot in range(PER_BLOCK)])
    for inode in gc.take(PER_BLOCK):
        assert gc.cache.begin(inode)
        gc.cache.finish(inode)
        gc.done(inode)
    assert (gc.spill.count, gc.spill.blocks, gc.extents, gc.cache.pending_blocks) == (0, 0, 0, 0)
