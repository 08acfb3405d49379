from __future__ import annotations

import itertools
import tracemalloc

import pytest

from deferfs.limits import GC_RETRY_NS, INACTIVATION_RETRIES_MAX
from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.gc import InodeGc
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.policy import Deferred
from deferfs.reclaim.states import State


@pytest.fixture
def gc() -> InodeGc:
    return InodeGc(InodeCache(), itertools.count(100).__next__)


def orphan(gc: InodeGc, ino: int) -> InCoreInode:
    found = gc.cache.orphaned(ino, 1, 1)
    assert found is not None
    return found


def blocks_of(gc: InodeGc) -> int:
    """Blocks held by what waits in the queues."""
    return sum(queue.blocks for queue in gc.statistics().queues)


def due_again(gc: InodeGc, inode: InCoreInode) -> InCoreInode:
    """The inode was made live, and is due once more."""
    reference = gc.cache.hold(inode.ino, 1)
    found = reference.release()
    assert found is inode
    return found


def test_a_batch_is_taken_in_order_of_arrival_and_sorted_by_number(gc: InodeGc) -> None:
    for ino in (30, 10, 20, 5):
        gc.enqueue(orphan(gc, ino))
    assert [inode.ino for inode in gc.take(3)] == [10, 20, 30]
    assert (gc.queued, gc.running, gc.backlog) == (1, 3, 4)
    assert [inode.ino for inode in gc.take(3)] == [5]
    assert gc.take(3) == []
    assert gc.statistics().batches_total == 2


def test_the_queue_holds_a_passive_reference(gc: InodeGc) -> None:
    inode = orphan(gc, 8)
    gc.enqueue(inode)
    assert (inode.passive, inode.waiting, inode.state) == (3, True, State.QUEUED)
    (taken,) = gc.take(1)
    assert taken is inode
    assert inode.queue is None
    assert not inode.waiting
    gc.cache.begin(inode)
    gc.cache.finish(inode)
    assert inode.passive == 1
    gc.done(inode)
    assert (inode.passive, gc.running, gc.cache.inactivated_total) == (0, 0, 1)


def test_the_workers_are_woken(gc: InodeGc) -> None:
    woken: list[tuple[int, int]] = []
    gc.wake = lambda number: woken.append((number, gc.queued))
    gc.resize(2)
    woken.clear()
    gc.enqueue(orphan(gc, 8))
    gc.enqueue(orphan(gc, 64))
    assert woken == [(0, 1), (1, 2)]


class TestCancel:
    def test_an_inode_made_live_is_skipped(self, gc: InodeGc) -> None:
        inode, other = orphan(gc, 8), orphan(gc, 9)
        inode.orphan = False
        gc.enqueue(inode)
        gc.enqueue(other)
        gc.cache.lookup(8, 1)
        assert (inode.state, inode.waiting, gc.queued) == (State.LIVE, False, 1)
        assert gc.take(9) == [other]
        assert (gc.queued, gc.running, inode.passive, inode.queue) == (0, 1, 2, None)

    def test_a_cancelled_inode_that_is_due_again_keeps_its_place(self, gc: InodeGc) -> None:
        inode, other = orphan(gc, 8), orphan(gc, 3)
        gc.enqueue(inode)
        gc.enqueue(other)
        gc.enqueue(due_again(gc, inode))
        assert (gc.queued, gc.statistics().queued_total, inode.passive) == (2, 3, 3)
        assert gc.take(1) == [inode]
        assert gc.take(1) == [other]

    def test_a_cancelled_inode_may_be_gone_before_its_place_comes_up(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        gc.enqueue(inode)
        due_again(gc, inode)
        gc.cache.begin(inode)
        gc.cache.finish(inode)
        assert (inode.state, inode.passive) == (State.FREED, 1)
        fresh = gc.cache.lookup(8, 2)
        assert fresh is not inode
        assert gc.take(9) == []
        assert (inode.passive, fresh.state) == (0, State.LIVE)

    def test_an_inode_that_is_being_inactivated_elsewhere_is_skipped(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        gc.enqueue(inode)
        due_again(gc, inode)
        gc.cache.begin(inode)
        assert gc.take(9) == []

    def test_an_inode_taken_and_due_again_waits_in_one_place_only(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        gc.enqueue(inode)
        (taken,) = gc.take(9)
        gc.enqueue(due_again(gc, taken))
        assert gc.queued == 1
        assert gc.cache.begin(taken)
        assert gc.queued == 0
        assert gc.take(9) == []
        assert gc.queues[0].statistics(0).blocks == 0


class TestQueues:
    def test_neighbours_meet_in_one_queue(self, gc: InodeGc) -> None:
        gc.resize(3)
        for ino in (8, 63, 64, 127, 128, 192):
            gc.enqueue(orphan(gc, ino))
        assert [inode.ino for inode in gc.take(9, 0)] == [8, 63, 192]
        assert [inode.ino for inode in gc.take(9, 1)] == [64, 127]
        assert [inode.ino for inode in gc.take(9, 2)] == [128]

    def test_a_change_of_their_number_loses_no_inode(self, gc: InodeGc) -> None:
        gc.resize(4)
        inodes = [orphan(gc, ino) for ino in range(8, 1000, 31)]
        for inode in inodes:
            gc.enqueue(inode)
        inodes[3].orphan = False
        gc.cache.lookup(inodes[3].ino, 1)
        queued, total = gc.queued, gc.statistics().queued_total
        for count in (1, 7, 2):
            gc.resize(count)
            found = gc.statistics()
            assert (gc.queued, found.queued_total) == (queued, total)
            assert len(found.queues) == count
        assert inodes[3].passive == 2
        assert sorted(inode.ino for inode in gc.take(999)) == sorted(i.ino for i in inodes if i is not inodes[3])

    def test_statistics_add_up_what_waits_in_all_queues(self, gc: InodeGc) -> None:
        for ino, blocks, extents in ((8, 100, 3), (9, 7, 1)):
            found = gc.cache.orphaned(ino, 1, blocks, extents)
            assert found is not None
            gc.enqueue(found)
        assert (blocks_of(gc), gc.extents) == (107, 4)
        (first,) = gc.take(1)
        assert (blocks_of(gc), gc.extents) == (7, 1)
        gc.cache.begin(first)
        gc.leave_off(first)
        assert (blocks_of(gc), gc.queued, gc.running, first.passive) == (107, 2, 0, 3)

    def test_an_inode_that_was_taken_but_not_begun_goes_back(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        gc.enqueue(inode)
        gc.take(1)
        gc.leave_off(inode)
        assert (gc.queued, gc.running, inode.passive) == (1, 0, 3)
        assert gc.take(1) == [inode]


class TestOutOfTurn:
    def test_an_inode_that_an_operation_waits_for_comes_first(self, gc: InodeGc) -> None:
        inodes = [orphan(gc, ino) for ino in range(8, 20)]
        for inode in inodes:
            gc.enqueue(inode)
        assert gc.hasten([inodes[9], inodes[4]]) == 2
        assert gc.hasten([inodes[9]]) == 0
        assert gc.queued == 12
        assert gc.take(2) == [inodes[4], inodes[9]]
        rest = gc.take(99)
        assert len(rest) == 10
        assert gc.take(99) == []
        assert inodes[9].passive == 3

    def test_a_hastened_inode_that_became_live_is_skipped(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        inode.orphan = False
        gc.enqueue(inode)
        gc.hasten([inode])
        gc.cache.lookup(8, 1)
        assert gc.take(9) == []
        assert (gc.queued, gc.running, inode.passive) == (0, 0, 2)

    def test_a_hastened_inode_that_is_due_again_waits_in_one_place_only(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        gc.enqueue(inode)
        gc.hasten([inode])
        gc.enqueue(due_again(gc, inode))
        assert gc.take(9) == [inode]
        assert gc.take(9) == []
        assert (gc.queued, inode.passive) == (0, 3)

    def test_space_comes_from_those_that_give_most_for_an_extent(self, gc: InodeGc) -> None:
        for ino, blocks, extents in ((8, 10, 10), (9, 1000, 1), (10, 0, 0), (11, 500, 1), (12, 900, 800)):
            found = gc.cache.orphaned(ino, 1, blocks, extents)
            assert found is not None
            gc.enqueue(found)
        assert gc.hasten_space(1200) == 1500
        assert gc.hasten_space(1500) == 1500  # what is asked for already counts
        assert [inode.ino for inode in gc.take(9)] == [9, 11]
        assert gc.hasten_space(1) == 900
        assert gc.hasten_space(905) == 910
        assert [inode.ino for inode in gc.take(9)] == [8, 12]
        assert gc.hasten_space(1) == 0


class TestBelow:
    def test_below_finds_what_was_deleted_in_a_deleted_directory(self, gc: InodeGc) -> None:
        cache = gc.cache
        for directory in (20, 21, 30):
            cache.lookup(directory, 1)
        for ino, parent in ((8, 21), (9, 30), (21, 20), (20, 1)):
            found = cache.orphaned(ino, 1, 1, parent=parent)
            if found is not None:
                gc.enqueue(found)
        for directory in (21, 20):
            found = cache.forget(directory, 1)
            assert found is not None
            gc.enqueue(found)
        assert [inode.ino for inode in gc.below(20)] == [20, 21, 8]
        assert [inode.ino for inode in gc.below(30)] == [9]

    def test_the_child_holds_its_parent_passively(self, gc: InodeGc) -> None:
        directory = gc.cache.lookup(20, 1)
        found = gc.cache.orphaned(8, 1, 1, parent=20)
        assert found is not None
        assert directory.passive == 3
        gc.enqueue(found)
        (taken,) = gc.take(1)
        gc.cache.begin(taken)
        gc.cache.finish(taken)
        assert directory.passive == 3  # the worker still has the child
        gc.done(taken)
        assert directory.passive == 2

    def test_below_finds_inodes_whose_parent_has_been_freed(self, gc: InodeGc) -> None:
        cache = gc.cache
        top, inner = cache.lookup(20, 1), cache.lookup(21, 1)
        for ino, parent in ((8, 21), (21, 20)):
            found = cache.orphaned(ino, 1, 1, parent=parent)
            if found is not None:
                gc.enqueue(found)
        found = cache.forget(21, 1)
        assert found is inner
        cache.begin(inner)
        cache.finish(inner)
        assert inner.state is State.FREED
        assert [inode.ino for inode in gc.below(20)] == [8]
        (leaf,) = gc.take(9)
        cache.begin(leaf)
        cache.finish(leaf)
        gc.done(leaf)
        assert (inner.passive, inner.parent, top.passive) == (0, None, 2)


def fail(gc: InodeGc, inode: InCoreInode) -> bool:
    (taken,) = gc.take(9)
    assert taken is inode
    gc.cache.begin(taken)
    return gc.failed(taken)


class TestFailure:
    def test_a_failed_inactivation_is_retried_with_growing_delays(self, gc: InodeGc) -> None:
        now = [1000]
        gc.clock = lambda: now[0]
        inode = orphan(gc, 8)
        gc.enqueue(inode)
        waits = []
        for attempt in range(1, INACTIVATION_RETRIES_MAX):
            assert not fail(gc, inode)
            assert inode.failures == attempt == gc.errors_total
            assert (gc.queued, gc.backlog, inode.passive) == (0, 1, 3)
            assert gc.take(9) == []
            left = gc.retry_due()
            waits.append(left)
            now[0] += left - 1
            assert gc.retry_due() == 1
            now[0] += 1
            assert gc.retry_due() == 0
            assert gc.queued == 1
        assert waits == [GC_RETRY_NS * 4**n for n in range(INACTIVATION_RETRIES_MAX - 1)]
        assert fail(gc, inode)
        assert inode.state is State.QUARANTINED
        assert (gc.backlog, gc.quarantined_total, inode.passive) == (0, 1, 2)
        assert gc.cache.pending_blocks == 0
        assert gc.cache.table[8] is inode

    def test_a_quarantined_inode_can_be_released(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        gc.enqueue(inode)
        while not fail(gc, inode):
            gc.retry_now()
        assert gc.release_quarantine() == 1
        assert (gc.queued, inode.failures, gc.cache.pending_blocks) == (1, 0, 1)
        assert gc.take(9) == [inode]

    def test_a_failed_inode_that_became_live_is_left_alone(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        inode.orphan = False
        gc.enqueue(inode)
        gc.take(9)
        gc.cache.begin(inode)
        gc.cache.lookup(8, 1)
        gc.failed(inode)
        assert (inode.state, gc.backlog, inode.passive) == (State.LIVE, 0, 2)

    def test_a_failed_inode_that_becomes_live_while_it_waits_is_not_retried(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        inode.orphan = False
        gc.enqueue(inode)
        fail(gc, inode)
        gc.cache.lookup(8, 1)
        gc.retry_now()
        assert (inode.state, gc.backlog, inode.passive) == (State.LIVE, 0, 2)


def test_enqueueing_allocates_nothing(gc: InodeGc) -> None:
    policy = Deferred(gc)
    inodes = [orphan(gc, ino) for ino in range(8, 1008)]
    policy.dispose(inodes[:1])
    tracemalloc.start()
    try:
        gc.clock = lambda: 5
        before = tracemalloc.take_snapshot()
        policy.dispose(inodes[1:])
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    grown = [
        entry
        for entry in after.compare_to(before, "lineno")
        if entry.size_diff > 0
        and "reclaim" in entry.traceback[0].filename
        and "tests" not in entry.traceback[0].filename
    ]
    # counters may become larger numbers; nothing grows with the number of inodes
    assert sum(entry.size_diff for entry in grown) < 10 * len(inodes)
    assert gc.queued == 1000


def test_the_age_of_the_oldest(gc: InodeGc) -> None:
    assert gc.statistics().oldest_ns == 0
    gc.enqueue(orphan(gc, 8))
    gc.enqueue(orphan(gc, 9))
    assert gc.statistics().oldest_ns == 102 - 100
    gc.take(1)
    assert gc.statistics().oldest_ns == 103 - 101
    gc.take(1)
    found = gc.statistics()
    assert (found.oldest_ns, gc.queued, found.queued_total, found.batches_total) == (0, 0, 2, 2)
