"""One worker's queue of inodes to be inactivated.

**Invariants**
- An inode is on at most one queue, `InCoreInode.queue`; the links are in the inode, so that enqueueing allocates
  nothing and never waits; the queue holds one passive reference to each.
- An inode that became live again, or was taken out of turn, stays linked until it reaches the head: leaving is O(1).
  `depth`, `blocks` and `extents` count only those that still wait (`InCoreInode.waiting`).
"""

from __future__ import annotations

from dataclasses import dataclass

from deferfs.reclaim.inode import InCoreInode


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """One queue: inodes, the blocks and extents they hold, the age of the oldest in ns, and totals."""

    depth: int
    blocks: int
    extents: int
    oldest_ns: int
    queued_total: int
    batches_total: int


class GcQueue:
    """A FIFO. No method waits."""

    __slots__ = ("batches_total", "blocks", "depth", "extents", "head", "number", "queued_total", "tail")

    def __init__(self, number: int) -> None:
        self.number = number
        self.head: InCoreInode | None = None
        self.tail: InCoreInode | None = None
        self.depth = 0
        self.blocks = 0
        self.extents = 0
        self.queued_total = 0
        self.batches_total = 0

    def push(self, inode: InCoreInode) -> None:
        """Append an inode that is on no queue, with a passive reference."""
        inode.queue = self
        inode.passive += 1
        inode.following = None
        if self.tail is None:
            self.head = inode
        else:
            self.tail.following = inode
        self.tail = inode
        self.enter(inode)

    def enter(self, inode: InCoreInode) -> None:
        """Count a linked inode as waiting (again), in its old position."""
        inode.waiting = True
        self.depth += 1
        self.blocks += inode.pending_blocks
        self.extents += inode.pending_extents
        self.queued_total += 1

    def leave(self, inode: InCoreInode) -> None:
        """Stop counting an inode that became live or was taken. It stays linked until it reaches the head."""
        inode.waiting = False
        self.depth -= 1
        self.blocks -= inode.pending_blocks
        self.extents -= inode.pending_extents

    def pop(self) -> InCoreInode | None:
        """Unlink the first inode, waiting or not. Its passive reference becomes the caller's."""
        inode = self.head
        if inode is None:
            return None
        self.head = inode.following
        if self.head is None:
            self.tail = None
        inode.following = None
        inode.queue = None
        return inode

    def oldest_ns(self) -> int:
        """When the first waiting inode was queued, in ns; 0 when none waits."""
        inode = self.head
        while inode is not None and not inode.waiting:
            inode = inode.following
        return inode.queued_ns if inode is not None else 0

    def statistics(self, now_ns: int) -> QueueStatistics:
        oldest = self.oldest_ns()
        age = max(0, now_ns - oldest) if oldest else 0
        return QueueStatistics(self.depth, self.blocks, self.extents, age, self.queued_total, self.batches_total)
