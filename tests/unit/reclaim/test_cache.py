from __future__ import annotations

from typing import NoReturn

import pytest

from deferfs.limits import INODE_COST_BYTES
from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State


@pytest.fixture
def cache() -> InodeCache:
    return InodeCache()


def idle(cache: InodeCache, *inos: int) -> list[InCoreInode]:
    found = []
    for ino in inos:
        found.append(cache.lookup(ino, 1))
        cache.forget(ino, 1)
    return found


class TestForget:
    def test_the_counts_must_add_up(self, cache: InodeCache) -> None:
        inode = cache.lookup(8, 1, 2)
        assert cache.lookup(8, 1, 3) is inode
        cache.forget(8, 4)
        assert (inode.lookups, inode.state) == (1, State.LIVE)
        cache.forget(8, 1)
        assert inode.state is State.IDLE
        assert cache.statistics().anomalies == {}

    def test_an_unknown_inode_is_an_anomaly(self, cache: InodeCache) -> None:
        assert cache.forget(8, 1) is None
        assert cache.statistics().anomalies == {"forget_unknown": 1}

    def test_forgetting_more_lookups_than_there_are_is_cut_and_noted(self, cache: InodeCache) -> None:
        inode = cache.lookup(8, 1, 2)
        assert cache.forget(8, 5) is None
        assert (inode.lookups, inode.state) == (0, State.IDLE)
        assert cache.forget(8, 1) is None
        assert cache.statistics().anomalies == {"forget_excess": 2}

    def test_forgetting_too_much_of_an_orphan_hands_it_over_once(self, cache: InodeCache) -> None:
        inode = cache.lookup(8, 1, 2)
        cache.orphaned(8, 1, 5)
        assert cache.forget(8, 9) is inode
        assert cache.forget(8, 9) is None


class TestOrphaned:
    def test_an_inode_that_is_not_cached_is_due_at_once(self, cache: InodeCache) -> None:
        inode = cache.orphaned(8, 3, 10)
        assert inode is not None
        assert (inode.state, inode.generation, inode.orphan) == (State.NEED_INACTIVE, 3, True)
        assert cache.pending_blocks == 10

    def test_an_idle_inode_is_due_at_once(self, cache: InodeCache) -> None:
        (inode,) = idle(cache, 8)
        assert cache.orphaned(8, 1, 10) is inode
        assert not cache.lru
        assert cache.pending_blocks == 10

    def test_a_held_inode_is_due_when_it_is_released(self, cache: InodeCache) -> None:
        inode = cache.lookup(8, 1)
        assert cache.orphaned(8, 1, 10) is None
        assert cache.pending_blocks == 0
        assert cache.forget(8, 1) is inode
        assert cache.pending_blocks == 10

    @pytest.mark.parametrize("state", [State.NEED_INACTIVE, State.QUEUED, State.INACTIVATING])
    def test_an_inode_on_its_way_out_stays_there(self, cache: InodeCache, state: State) -> None:
        (inode,) = idle(cache, 8)
        del cache.lru[8]
        inode.state = state
        assert cache.orphaned(8, 1, 10) is None
        assert inode.state is state
        assert cache.pending_blocks == 10

    def test_a_quarantined_inode_that_loses_its_name_is_due_again(self, cache: InodeCache) -> None:
        (inode,) = idle(cache, 8)
        del cache.lru[8]
        inode.state = State.QUARANTINED
        assert cache.orphaned(8, 1, 10) is inode
        assert inode.state is State.NEED_INACTIVE


class TestPendingBlocks:
    def test_pending_blocks_are_counted_while_the_inactivation_is_due(self, cache: InodeCache) -> None:
        inode = cache.orphaned(8, 1, 10)
        assert inode is not None
        assert cache.begin(inode)
        assert cache.pending_blocks == 10
        cache.freed(inode, 4)
        assert (cache.pending_blocks, inode.pending_blocks) == (6, 6)
        cache.freed(inode, 99)
        assert (cache.pending_blocks, inode.pending_blocks) == (0, 0)
        cache.finish(inode)
        assert cache.pending_blocks == 0

    def test_finishing_an_inactivation_drops_its_pending_blocks(self, cache: InodeCache) -> None:
        inode = cache.orphaned(8, 1, 10)
        assert inode is not None
        cache.begin(inode)
        cache.finish(inode)
        assert cache.pending_blocks == 0

    def test_a_quarantined_inode_frees_nothing(self, cache: InodeCache) -> None:
        inode = cache.orphaned(8, 1, 10)
        assert inode is not None
        cache.begin(inode)
        cache.quarantine(inode)
        assert cache.pending_blocks == 0
        assert cache.statistics().quarantined == 1

    @pytest.mark.parametrize("state", [State.NEED_INACTIVE, State.QUEUED, State.INACTIVATING, State.QUARANTINED])
    def test_an_orphan_that_comes_back_is_not_counted_twice(self, cache: InodeCache, state: State) -> None:
        inode = cache.orphaned(8, 1, 10)
        assert inode is not None
        if state is State.QUEUED:
            cache.move(inode, state)
        elif state is not State.NEED_INACTIVE:
            cache.begin(inode)
            if state is State.QUARANTINED:
                cache.quarantine(inode)
        reference = cache.hold(8, 1)
        assert cache.pending_blocks == 0
        assert reference.release() is inode
        assert cache.pending_blocks == 10


class TestInactivationSide:
    @pytest.mark.parametrize("state", list(State))
    def test_begin(self, cache: InodeCache, state: State) -> None:
        inode = InCoreInode(8, 1)
        inode.state = state
        due = state in (State.NEED_INACTIVE, State.QUEUED)
        assert cache.begin(inode) == due
        assert inode.state is (State.INACTIVATING if due else state)

    def test_finish_frees_the_memory(self, cache: InodeCache) -> None:
        inode = cache.orphaned(8, 1, 0)
        assert inode is not None
        freed: list[int] = []
        cache.on_freed = freed.append
        cache.begin(inode)
        cache.finish(inode)
        assert (inode.state, inode.passive, cache.table, freed) == (State.FREED, 0, {}, [8])

    def test_finish_leaves_an_inode_that_came_back(self, cache: InodeCache) -> None:
        (inode,) = idle(cache, 8)
        inode.preallocated = True
        cache.shrink(1 << 30, 64)
        cache.begin(inode)
        cache.lookup(8, 1)
        cache.finish(inode)
        assert (inode.state, cache.table[8]) == (State.LIVE, inode)

    def test_retry(self, cache: InodeCache) -> None:
        inode = cache.orphaned(8, 1, 10)
        assert inode is not None
        cache.begin(inode)
        assert cache.retry(inode)
        assert (inode.failures, inode.state, cache.pending_blocks) == (1, State.NEED_INACTIVE, 10)
        assert not cache.retry(inode)
        assert inode.failures == 1


class TestShrink:
    def test_the_coldest_go_first(self, cache: InodeCache) -> None:
        inodes = idle(cache, 8, 9, 10, 11)
        cache.lookup(8, 1)
        cache.forget(8, 1)
        freed, due = cache.shrink(2 * INODE_COST_BYTES, 64)
        assert (freed, due) == (2 * INODE_COST_BYTES, [])
        assert list(cache.table) == [8, 11]
        assert [inode.state for inode in inodes] == [State.IDLE, State.FREED, State.FREED, State.IDLE]
        assert cache.bytes == 2 * INODE_COST_BYTES

    def test_inodes_that_need_inactivation_are_returned_up_to_a_limit(self, cache: InodeCache) -> None:
        inodes = idle(cache, *range(8, 18))
        for inode in inodes[::2]:
            inode.lazy_atime = 5
        freed, due = cache.shrink(1 << 30, 3)
        assert [inode.ino for inode in due] == [8, 10, 12]
        assert freed == 2 * INODE_COST_BYTES
        assert all(inode.state is State.NEED_INACTIVE for inode in due)
        assert list(cache.lru) == [13, 14, 15, 16, 17]

    def test_shrinking_takes_only_idle_inodes(self, cache: InodeCache) -> None:
        cache.lookup(8, 1)
        cache.orphaned(9, 1, 0)
        assert cache.shrink(1 << 30, 64) == (0, [])
        assert list(cache.table) == [8, 9]


def test_unmount_drops_every_count(cache: InodeCache) -> None:
    cache.lookup(8, 1, 5)
    cache.hold(9, 1)
    cache.lookup(10, 1)
    cache.orphaned(10, 1, 7)
    (dirty,) = idle(cache, 11)
    dirty.preallocated = True
    queued = cache.orphaned(12, 1, 1)
    due = cache.drop_all()
    assert sorted(inode.ino for inode in due) == [10, 11]
    assert queued not in due
    assert sorted(cache.table) == [10, 11, 12]
    assert cache.statistics().active == 0


def test_what_finds_the_table_of_debts_full_at_an_unmount_stays_idle_until_it_is_paid(cache: InodeCache) -> None:
    """So that it is paid by block, like the rest."""
    count = cache.debts.count_max + 3
    for ino in range(8, 8 + count):
        cache.lookup(ino, 1).lazy_atime = 5
    assert cache.drop_all() == []
    assert (cache.debts.count, len(cache.lru)) == (cache.debts.count_max, 3)
    for ino in range(8, 8 + count):
        cache.debts.void(ino)
    assert cache.evict_idle() == []
    assert (cache.debts.count, len(cache.table)) == (3, 0)


def test_an_unmount_ends_where_the_table_of_debts_takes_nothing(cache: InodeCache) -> None:
    cache.debts.count_max = 0
    cache.lookup(8, 1).lazy_atime = 5
    assert [inode.ino for inode in cache.drop_all()] == [8]


def test_the_statistics(cache: InodeCache) -> None:
    cache.lookup(8, 1)
    idle(cache, 9, 10)
    cache.orphaned(11, 1, 7)
    found = cache.statistics()
    assert (found.cached, found.active, found.idle, found.queued, found.pending_blocks) == (4, 1, 2, 1, 7)
    cache.hold(11, 1)
    assert cache.statistics().cancelled_total == 1


class Unwalked(dict[int, InCoreInode]):
    def __iter__(self) -> NoReturn:
        raise AssertionError("a walk over all inodes holds the event loop for as long as there are inodes")

    keys = values = items = __iter__


def test_the_statistics_do_not_look_at_each_inode(cache: InodeCache) -> None:
    cache.lookup(8, 1)
    idle(cache, 9)
    cache.table = Unwalked(cache.table)
    assert (cache.statistics().active, cache.statistics().idle) == (1, 1)


class TestDroppable:
    def test_those_in_core_for_longest_come_first_and_each_gets_its_turn(self, cache: InodeCache) -> None:
        for ino in range(8, 13):
            cache.lookup(ino, 1)
        assert cache.droppable(2) == [8, 9]
        cache.lookup(13, 1)
        assert cache.droppable(4) == [10, 11, 12, 8]
        assert cache.droppable(100) == [9, 13, 10, 11, 12, 8]

    def test_only_the_kernel_refers_to_them(self, cache: InodeCache) -> None:
        idle(cache, 8)
        cache.lookup(9, 1)
        cache.hold(9, 1)
        cache.lookup(10, 1)
        cache.orphaned(10, 1, 5)
        cache.hold(11, 1)
        cache.lookup(12, 1)
        assert cache.droppable(5) == [12]

    def test_one_that_was_opened_again_is_spared_once(self, cache: InodeCache) -> None:
        for ino in range(8, 11):
            cache.lookup(ino, 1)
            cache.hold(ino, 1).release()
        cache.hold(8, 1).release()
        assert cache.droppable(2) == [9, 10]
        assert cache.droppable(1) == [8]

    def test_one_that_is_opened_again_each_round_stays(self, cache: InodeCache) -> None:
        cache.lookup(8, 1)
        cache.hold(8, 1).release()
        for ino in range(9, 100):
            cache.lookup(ino, 1)
            cache.hold(8, 1).release()
            assert 8 not in cache.droppable(1)

    def test_when_all_were_opened_again_those_in_core_for_longest_are_dropped(self, cache: InodeCache) -> None:
        for ino in range(8, 12):
            cache.lookup(ino, 1)
            for _ in range(5):
                cache.hold(ino, 1).release()
        assert cache.droppable(2) == [8, 9]

    def test_no_more_are_looked_at_than_a_few_for_each_that_is_wanted(self, cache: InodeCache) -> None:
        for ino in range(8, 20):
            cache.hold(ino, 1)
        cache.lookup(20, 1)
        assert cache.droppable(2) == []
        assert cache.droppable(2) == [20]
