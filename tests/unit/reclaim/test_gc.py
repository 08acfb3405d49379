from __future__ import annotations

import itertools
import tracemalloc

import pytest

from deferfs.limits import INACTIVATION_RETRIES_MAX
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
    assert gc.batches_total == 2


def test_the_queue_holds_a_passive_reference(gc: InodeGc) -> None:
    inode = orphan(gc, 8)
    gc.enqueue(inode)
    assert (inode.passive, inode.on_queue, inode.state) == (3, True, State.QUEUED)
    (taken,) = gc.take(1)
    assert taken is inode
    assert not inode.on_queue
    gc.cache.begin(inode)
    gc.cache.finish(inode)
    assert inode.passive == 1
    gc.done(inode)
    assert (inode.passive, gc.running, gc.inactivated_total) == (0, 0, 1)


def test_the_workers_are_woken(gc: InodeGc) -> None:
    woken: list[int] = []
    gc.wake = lambda: woken.append(gc.queued)
    gc.enqueue(orphan(gc, 8))
    gc.enqueue(orphan(gc, 9))
    assert woken == [1, 2]


class TestCancel:
    def test_an_inode_made_live_is_skipped(self, gc: InodeGc) -> None:
        inode, other = orphan(gc, 8), orphan(gc, 9)
        inode.orphan = False
        gc.enqueue(inode)
        gc.enqueue(other)
        gc.cache.lookup(8, 1)
        assert (inode.state, inode.on_queue) == (State.LIVE, True)
        assert gc.take(9) == [other]
        assert (gc.queued, gc.running, inode.passive, inode.on_queue) == (0, 1, 2, False)

    def test_a_second_time_it_keeps_its_place(self, gc: InodeGc) -> None:
        inode, other = orphan(gc, 8), orphan(gc, 3)
        gc.enqueue(inode)
        gc.enqueue(other)
        gc.enqueue(due_again(gc, inode))
        assert (gc.queued, gc.queued_total, inode.passive) == (2, 3, 3)
        assert gc.take(1) == [inode]
        assert gc.take(1) == [other]

    def test_it_may_be_gone_before_its_place_comes_up(self, gc: InodeGc) -> None:
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

    def test_one_that_is_being_inactivated_elsewhere_is_skipped(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        gc.enqueue(inode)
        due_again(gc, inode)
        gc.cache.begin(inode)
        assert gc.take(9) == []


class TestFailure:
    def test_it_is_retried_and_then_quarantined(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        gc.enqueue(inode)
        for attempt in range(1, INACTIVATION_RETRIES_MAX + 1):
            (taken,) = gc.take(9)
            gc.cache.begin(taken)
            gc.failed(taken)
            assert inode.failures == attempt == gc.errors_total
        assert inode.state is State.QUARANTINED
        assert (gc.backlog, gc.quarantined_total, inode.passive) == (0, 1, 2)
        assert gc.cache.pending_blocks == 0
        assert gc.cache.table[8] is inode

    def test_one_that_became_live_is_left_alone(self, gc: InodeGc) -> None:
        inode = orphan(gc, 8)
        inode.orphan = False
        gc.enqueue(inode)
        gc.take(9)
        gc.cache.begin(inode)
        gc.cache.lookup(8, 1)
        gc.failed(inode)
        assert (inode.state, gc.backlog, inode.passive) == (State.LIVE, 0, 2)


def test_enqueueing_allocates_nothing(gc: InodeGc) -> None:
    policy = Deferred(gc)
    inodes = [orphan(gc, ino) for ino in range(8, 1008)]
    policy.place(inodes[:1])
    tracemalloc.start()
    try:
        gc.clock = lambda: 5
        before = tracemalloc.take_snapshot()
        policy.place(inodes[1:])
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
    assert (found.oldest_ns, found.queued, found.queued_total, found.batches_total) == (0, 0, 2, 2)
