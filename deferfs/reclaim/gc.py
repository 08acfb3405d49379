"""inodegc: the inodes queued for inactivation, one queue per worker. Beyond a bound, orphans wait in the orphan table
alone (`spill`).

**Invariants**
- An inode waits in at most one place: its queue, `urgent` (taken out of turn), `delayed` (failed, to be retried) or
  `spill`. The first three hold a passive reference; an inode in `spill` is not in core.
- The queue of an inode follows from its number, so that inodes whose records share a block come in one batch.
- `running` counts the inodes taken and not yet finished. `backlog` is everything still to be done; an inode leaves it
  only by `done`, by quarantine, or by becoming live again.
- Enqueueing allocates nothing and never waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from deferfs.limits import GC_IN_CORE_MAX, GC_RETRY_NS, GC_RETRY_NS_MAX, INACTIVATION_RETRIES_MAX
from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.queue import GcQueue, QueueStatistics
from deferfs.reclaim.spill import NONE, Spill, Spilled
from deferfs.reclaim.states import State


@dataclass(frozen=True, slots=True)
class GcStatistics:
    """Gauges and totals of inodegc; `oldest_ns` is the age of the oldest queued inode."""

    in_core: int
    delayed: int
    extents: int
    queued_total: int
    errors_total: int
    quarantined_total: int
    batches_total: int
    oldest_ns: int
    queues: list[QueueStatistics]


class InodeGc:
    """The backlog. `wake(n)` is called when queue `n` has got work.

    `span` neighbouring inode numbers go to the same queue. `clock` returns ns. `spill` takes orphans beyond
    `in_core_max`; without it everything stays in core.
    """

    def __init__(
        self, cache: InodeCache, clock: Callable[[], int], *, span: int = 64, spill: Spill | None = None
    ) -> None:
        self.cache = cache
        self.clock = clock
        self.span = span
        self.spill = Spill(1) if spill is None else spill
        self._has_table = spill is not None
        self.in_core_max = GC_IN_CORE_MAX
        """Queued in-core inodes beyond which orphans are left to the orphan table."""
        self.queues = [GcQueue(0)]
        self.urgent: deque[InCoreInode] = deque()
        """Inodes taken out of turn: an operation waits for them, or for the space they hold."""
        self.delayed: list[tuple[int, int, InCoreInode]] = []
        """Heap of (time of the retry in ns, number, inode)."""
        self.running = 0
        self.wake: Callable[[int], None] = _no_wake
        self.errors_total = 0
        self.quarantined_total = 0

    # --- size of the backlog ---
    @property
    def queued(self) -> int:
        """Inodes that wait for a worker."""
        return self.in_core + self.spill.count

    @property
    def in_core(self) -> int:
        """Queued inodes that are in core."""
        total = len(self.urgent)
        for queue in self.queues:
            total += queue.depth
        return total

    @property
    def backlog(self) -> int:
        """Inodes queued, being inactivated, or to be retried."""
        return self.queued + self.running + len(self.delayed)

    @property
    def extents(self) -> int:
        """Extents held by queued inodes, as far as is known."""
        total = self.spill.extents
        for queue in self.queues:
            total += queue.extents
        return total

    def oldest_ns(self) -> int:
        """When the oldest queued inode was queued, in ns; 0 when none is."""
        stamps = [stamp for queue in self.queues if (stamp := queue.oldest_ns())]
        stamps.extend(inode.queued_ns for inode in self.urgent)
        if self.spill.count:
            stamps.append(self.spill.oldest_ns())
        return min(stamps) if stamps else 0

    # --- enqueueing ---
    def queue_of(self, ino: int) -> GcQueue:
        """The queue of an inode."""
        queues = self.queues
        return queues[0] if len(queues) == 1 else queues[ino // self.span % len(queues)]

    def enqueue(self, inode: InCoreInode) -> None:
        """Queue an inode in NEED_INACTIVE. Allocates nothing, never waits."""
        if self._spills(inode):
            self._spill(inode)
        else:
            self.queue(inode)

    def queue(self, inode: InCoreInode) -> None:
        """As `enqueue`, but always in core."""
        self.cache.move(inode, State.QUEUED)
        if inode.queue is not None:
            # cancelled earlier and still linked
            inode.queue.enter(inode)
            self.wake(inode.queue.number)
            return
        inode.queued_ns = self.clock()
        queue = self.queue_of(inode.ino)
        queue.push(inode)
        self.wake(queue.number)

    def _spill(self, inode: InCoreInode) -> None:
        """Leave the inode to the orphan table."""
        queue = self.queue_of(inode.ino)
        queue.queued_total += 1
        self.spill.put(inode.slot, inode.pending_blocks, inode.pending_extents, self.clock())
        self.cache.leave_to_table(inode)
        self.wake(queue.number)

    def _spills(self, inode: InCoreInode) -> bool:
        """Whether to leave the inode to the orphan table: it has a slot and no other state to keep, and either the
        in-core bound is reached or other orphans wait in the table already."""
        return (
            self._has_table
            and inode.orphan
            and inode.slot >= 0
            and inode.queue is None
            and not inode.failures
            and (self.spill.count > 0 or self.in_core >= self.in_core_max)
        )

    def resize(self, count: int) -> None:
        """Have `count` queues, one for each worker; queued inodes are redistributed in order of arrival."""
        if count == len(self.queues):
            return
        waiting: list[InCoreInode] = []
        totals = sum(queue.queued_total for queue in self.queues), sum(q.batches_total for q in self.queues)
        for queue in self.queues:
            while (inode := queue.pop()) is not None:
                if inode.waiting:
                    queue.leave(inode)
                    waiting.append(inode)
                self.cache.put_passive(inode)
        self.queues = [GcQueue(number) for number in range(count)]
        waiting.sort(key=_arrival)
        for inode in waiting:
            self.queue_of(inode.ino).push(inode)
        for queue in self.queues:
            queue.queued_total = 0
        self.queues[0].queued_total, self.queues[0].batches_total = totals
        for number in range(count):
            self.wake(number)

    # --- reloading from the orphan table ---
    def reload(self, number: int, found: list[Spilled]) -> None:
        """Queue the orphans `found` in block `number` of the orphan table that are not in core, out of turn if the
        block was. An empty list gives up the orphans counted in the block: it is damaged or unreadable.
        """
        if not found:
            self.cache.pending_blocks -= self.spill.settle(number)
            return
        urgent, since = self.spill.is_hastened(number), self.spill.since(number)
        for one in found:
            inode = self.recall(one)
            self.cache.move(inode, State.QUEUED)
            inode.queued_ns = since
            if urgent:
                inode.passive += 1
                self.urgent.append(inode)
            else:
                queue = self.queue_of(inode.ino)
                queue.push(inode)
                queue.queued_total -= 1  # counted when it was spilled
                self.wake(queue.number)
        if urgent:
            self.wake(0)

    def recall(self, one: Spilled) -> InCoreInode:
        """Bring a spilled orphan back into core, due and in no queue yet."""
        inode = self.cache.reload(one.ino, one.generation, one.slot, one.blocks)
        if self.spill.waits_in(one.slot // self.spill.per_block):
            self.cache.pending_blocks -= self.spill.leave(one.slot, inode.pending_blocks)
        else:
            self.cache.pending_blocks += inode.pending_blocks  # given up earlier
        return inode

    # --- out of turn ---
    def hasten(self, inodes: Iterable[InCoreInode]) -> int:
        """Move queued inodes to the urgent list; returns how many were queued."""
        count = 0
        for inode in inodes:
            if inode.state is not State.QUEUED or not inode.waiting or inode.queue is None:
                continue
            inode.queue.leave(inode)
            inode.passive += 1
            self.urgent.append(inode)
            count += 1
        if count:
            self.wake(0)
        return count

    def hasten_space(self, blocks: int) -> int:
        """Take inodes out of turn, cheapest first, until those taken hold at least `blocks`.

        Cheap means many blocks per extent; orphans in the table are taken by whole table blocks, rated by the cheapest
        in each. Returns the blocks they hold; 0 when no queued inode is known to hold any."""
        taken = self.spill.hastened_blocks()
        for inode in self.urgent:
            if inode.state is State.QUEUED and not inode.waiting:  # those live again are dropped
                taken += inode.pending_blocks
        if taken >= blocks:
            return taken
        found = [
            (_price(inode), inode.pending_blocks, NONE, inode)
            for queue in self.queues
            for inode in _linked(queue)
            if inode.waiting and inode.state is State.QUEUED and inode.pending_blocks
        ]
        spilled = [(one.price, one.blocks, one.number, None) for one in self.spill.candidates()]
        hastened: list[InCoreInode] = []
        for _, held, number, waiting in sorted([*found, *spilled], key=_first):
            if waiting is None:
                self.spill.hasten(number)
            else:
                hastened.append(waiting)
            taken += held
            if taken >= blocks:
                break
        self.hasten(hastened)
        if self.spill.urgent:
            self.wake(0)
        return taken

    # --- called by workers ---
    def take(self, count_max: int, number: int | None = None) -> list[InCoreInode]:
        """Up to `count_max` inodes: only urgent ones if there are any, else those of queue `number` (None: of all),
        sorted by number for locality. Inodes that are live again are dropped.

        The caller runs an `Inactivation` for each and then calls `done`, `failed` or `leave_off`.
        """
        batch: list[InCoreInode] = []
        while self.urgent and len(batch) < count_max:
            inode = self.urgent.popleft()
            if inode.state is State.QUEUED and not inode.waiting:
                batch.append(inode)
            else:
                self.cache.put_passive(inode)
        queues = self.queues if number is None else [self.queues[number]]
        for queue in [] if batch else queues:
            before = len(batch)
            while len(batch) < count_max and (popped := queue.pop()) is not None:
                if popped.waiting and popped.state is State.QUEUED:
                    queue.leave(popped)
                    batch.append(popped)
                else:
                    self.cache.put_passive(popped)
            if len(batch) > before:
                queue.batches_total += 1
        self.running += len(batch)
        if len(batch) > 1:
            batch.sort(key=_number)
        return batch

    def has_work(self, number: int) -> bool:
        """Whether the worker of queue `number` would find work."""
        return bool(self.urgent or self.queues[number].head is not None or self.spill.count)

    @property
    def wanted_out_of_turn(self) -> bool:
        """Whether an operation waits for some of the queued inodes."""
        return bool(self.urgent or self.spill.urgent)

    def retry_due(self) -> int:
        """Queue failed inodes whose delay has passed; ns until the next retry is due, 0 when none is left."""
        while self.delayed:
            due, _, inode = self.delayed[0]
            left = due - self.clock()
            if left > 0:
                return left
            heappop(self.delayed)
            self.cache.put_passive(inode)
            if inode.state is State.NEED_INACTIVE:
                self.queue(inode)
        return 0

    def retry_now(self) -> None:
        """Retry all failed inodes at once: an operation needs what they hold."""
        self.delayed = [(0, ino, inode) for _, ino, inode in self.delayed]
        heapify(self.delayed)
        self.retry_due()

    def done(self, inode: InCoreInode) -> None:
        """A taken inode has been inactivated (or no longer had to be)."""
        self.running -= 1
        self.cache.put_passive(inode)

    def leave_off(self, inode: InCoreInode) -> None:
        """Queue again a taken inode whose inactivation was stopped between two transactions."""
        self.running -= 1
        self.cache.put_passive(inode)
        if self.cache.interrupt(inode):
            self.queue(inode)
        elif inode.state is State.QUEUED and not inode.waiting:
            # not begun
            if inode.queue is None:
                self.queue_of(inode.ino).push(inode)
            else:
                inode.queue.enter(inode)

    def failed(self, inode: InCoreInode) -> bool:
        """A taken inode failed: retry it later, or quarantine it after INACTIVATION_RETRIES_MAX attempts.

        True when it is now in quarantine."""
        self.running -= 1
        self.cache.put_passive(inode)
        return self.failed_inline(inode)

    def failed_inline(self, inode: InCoreInode) -> bool:
        """As `failed`, for an inode that was not taken from a queue."""
        self.errors_total += 1
        if not self.cache.retry(inode):
            return False
        if inode.failures < INACTIVATION_RETRIES_MAX:
            delay = min(GC_RETRY_NS * 4 ** (inode.failures - 1), GC_RETRY_NS_MAX)
            inode.passive += 1
            heappush(self.delayed, (self.clock() + delay, inode.ino, inode))
            self.wake(0)
            return False
        self.cache.begin(inode)
        self.cache.quarantine(inode)
        self.quarantined_total += 1
        return True

    def release_quarantine(self) -> int:
        """Queue all quarantined inodes once more; how many."""
        count = 0
        for inode in list(self.cache.table.values()):
            if inode.state is State.QUARANTINED:
                self.cache.readmit(inode)
                self.enqueue(inode)
                count += 1
        return count

    # --- selection ---
    def below(self, ancestor: int) -> list[InCoreInode]:
        """The in-core inodes still to be inactivated that lost their last name in directory `ancestor` or in a deleted
        directory below it, itself included; and those whose parent is not known (reloaded)."""
        return [
            inode
            for inode in self.cache.table.values()
            if unfinished(inode) and (inode.reloaded or _descends(inode, ancestor))
        ]

    def statistics(self) -> GcStatistics:
        now = self.clock()
        queues = [queue.statistics(now) for queue in self.queues]
        oldest = self.oldest_ns()
        return GcStatistics(
            self.in_core,
            len(self.delayed),
            self.extents,
            sum(queue.queued_total for queue in queues),
            self.errors_total,
            self.quarantined_total,
            sum(queue.batches_total for queue in queues),
            max(0, now - oldest) if oldest else 0,
            queues,
        )


def unfinished(inode: InCoreInode) -> bool:
    """Whether an inactivation of the inode is due, queued or running."""
    return inode.state in (State.NEED_INACTIVE, State.QUEUED, State.INACTIVATING)


def _descends(inode: InCoreInode, ancestor: int) -> bool:
    at: InCoreInode | None = inode
    while at is not None:
        if at.ino == ancestor:
            return True
        at = at.parent
    return False


def _linked(queue: GcQueue) -> list[InCoreInode]:
    found: list[InCoreInode] = []
    inode = queue.head
    while inode is not None:
        found.append(inode)
        inode = inode.following
    return found


def _number(inode: InCoreInode) -> int:
    return inode.ino


def _arrival(inode: InCoreInode) -> int:
    return inode.queued_ns


def _first(entry: tuple[float, int, int, InCoreInode | None]) -> float:
    return entry[0]


def _price(inode: InCoreInode) -> float:
    """Extents to free per block gained: lower is cheaper."""
    return (1 + inode.pending_extents) / inode.pending_blocks


def _no_wake(number: int) -> None:
    """Default of `wake`: the driver polls the queues."""
