"""inodegc: the queues of inodes that wait for their inactivation, and who takes from them.

**Invariants:** an inode is on at most one queue (`on_queue`), linked through itself, so that enqueueing allocates
nothing and never waits; the queue holds a passive reference to each. An inode that was made live again stays linked
until the queue is taken, and is skipped then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deferfs.limits import INACTIVATION_RETRIES_MAX
from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State


@dataclass(frozen=True, slots=True)
class GcStatistics:
    """Gauges and totals of inodegc; `oldest_ns` is the age of the oldest queued inode."""

    queued: int
    queued_total: int
    inactivated_total: int
    errors_total: int
    quarantined_total: int
    batches_total: int
    oldest_ns: int


class InodeGc:
    """The backlog. `wake` is called when there is something to take and nobody knows yet."""

    def __init__(self, cache: InodeCache, clock: Callable[[], int]) -> None:
        self.cache = cache
        self.clock = clock
        self.head: InCoreInode | None = None
        self.tail: InCoreInode | None = None
        self.queued = 0
        self.running = 0
        """Inodes taken and not yet finished."""
        self.wake: Callable[[], None] = _nobody
        self.queued_total = 0
        self.inactivated_total = 0
        self.errors_total = 0
        self.quarantined_total = 0
        self.batches_total = 0
        self.oldest_queued_ns = 0

    @property
    def backlog(self) -> int:
        """Inodes queued or being inactivated."""
        return self.queued + self.running

    def enqueue(self, inode: InCoreInode) -> None:
        """Queue an inode in NEED_INACTIVE. Allocates nothing, waits for nothing."""
        inode.move(State.QUEUED)
        self.queued_total += 1
        if inode.on_queue:
            return  # cancelled earlier and still linked: its old place will do
        inode.on_queue = True
        inode.passive += 1
        inode.queued_ns = self.clock()
        inode.following = None
        if self.tail is None:
            self.head = inode
            self.oldest_queued_ns = inode.queued_ns
        else:
            self.tail.following = inode
        self.tail = inode
        self.queued += 1
        self.wake()

    def take(self, count_max: int) -> list[InCoreInode]:
        """Up to `count_max` queued inodes, sorted by number for locality. Those made live again are dropped.

        The caller runs an `Inactivation` for each and then calls `done` or `failed`.
        """
        batch: list[InCoreInode] = []
        while self.head is not None and len(batch) < count_max:
            inode = self.head
            self.head = inode.following
            if self.head is None:
                self.tail = None
            inode.following = None
            inode.on_queue = False
            self.queued -= 1
            if inode.state is State.QUEUED:
                batch.append(inode)
                self.running += 1
            else:
                self.cache.put_passive(inode)
        self.oldest_queued_ns = self.head.queued_ns if self.head is not None else 0
        if batch:
            self.batches_total += 1
            batch.sort(key=_number)
        return batch

    def done(self, inode: InCoreInode) -> None:
        """The inactivation of a taken inode is over (or was not needed any more)."""
        self.running -= 1
        self.inactivated_total += 1
        self.cache.put_passive(inode)

    def failed(self, inode: InCoreInode) -> None:
        """It failed: queue it again, or quarantine it after INACTIVATION_RETRIES_MAX attempts. Never lost."""
        self.running -= 1
        self.errors_total += 1
        self.cache.put_passive(inode)
        if not self.cache.retry(inode):
            return
        if inode.failures < INACTIVATION_RETRIES_MAX:
            self.enqueue(inode)
            return
        self.cache.begin(inode)
        self.cache.quarantine(inode)
        self.quarantined_total += 1

    def statistics(self) -> GcStatistics:
        oldest = self.clock() - self.oldest_queued_ns if self.head is not None else 0
        return GcStatistics(
            self.queued,
            self.queued_total,
            self.inactivated_total,
            self.errors_total,
            self.quarantined_total,
            self.batches_total,
            max(0, oldest),
        )


def _number(inode: InCoreInode) -> int:
    return inode.ino


def _nobody() -> None:
    """Wakes no worker: the driver takes from the queue when it likes."""
