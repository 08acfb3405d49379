"""The journal: one running and one committing transaction, a grant head, and the images not yet written home.

The life of a block image: a plan publishes it into the *running* transaction; a commit freezes that into the
*committing* one (by reference, as published objects never change); once the commit record is durable the image is
*pending home*; `checkpoint` writes it home and then advances the tail.

**Invariants**
- Log blocks in use + those of the committing transaction + the running transaction's worst case + granted credits never
  exceed the log, so a commit never runs out of space.
- The running transaction stays below 1/TRANSACTION_FRACTION of the log; an operation that is alone in it may take half.
- `pending_home` holds the newest committed image of every block for which that is not written home; the tail does not
  pass a transaction while an image of it exists only in the log.
- `superseded_bytes` is the cost of the images in `committing` and `pending_home` that are no longer the cache's.
- A block freed by a transaction leaves `pending_home`, and becomes reusable, only when that transaction has committed
  and no checkpoint write is in progress.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from deferfs.errors import FsError, without_traceback
from deferfs.limits import CHECKPOINT_START_FRACTION, TRANSACTION_FRACTION
from deferfs.ondisk.format import Block
from deferfs.ondisk.journal import transaction_blocks
from deferfs.store.io import Job
from deferfs.store.needs import NeedLogSpace
from deferfs.store.pump import Pump
from deferfs.store.transaction import Grant, JournalStatistics, Transaction

if TYPE_CHECKING:
    from deferfs.store.plan import Plan
    from deferfs.store.store import Store

T = TypeVar("T")
Home = tuple[int, Block]
"""A committed image that is not written home: (transaction, image)."""


def _nothing() -> None:
    """Default of `on_home`."""


class Journal:
    """In-memory state of the log. The jobs that write it are in `commit.py` and `checkpoint.py`; only this module
    changes its fields.

    A commit: `freeze`, the writes, `complete`. A checkpoint: `begin_checkpoint`, each run of images written and
    `came_home`, the superblock with the new tail, `advance`, `end_checkpoint`.
    """

    def __init__(self, store: Store, next_tid: int, tail: int) -> None:
        self.store = store
        superblock = store.superblock
        self.start = superblock.journal_start
        self.blocks = superblock.journal_blocks
        self.transaction_blocks_max = self.blocks // TRANSACTION_FRACTION
        self.alone_blocks_max = self.blocks // 2
        """Log blocks of the largest operation that fits into the log."""
        self.head = tail
        self.tail = tail
        self.used = 0
        """Log blocks between tail and head: transactions whose images may not all be written home."""
        self.running = Transaction(next_tid)
        self.committing: Transaction | None = None
        self.committed: deque[Transaction] = deque()
        """Committed transactions still in the log, oldest first."""
        self.committed_tid = next_tid - 1
        self.pending_home: dict[int, Home] = {}
        """By address, the newest committed image of each block for which that is not written home."""
        self.on_home: Callable[[], None] = _nothing
        """Called when blocks have been written home, and whenever less may be dirty."""
        self.superseded_bytes = 0
        """Estimated bytes of images in `committing` and `pending_home` that are no longer the cache's."""
        self.checkpointing = False
        self.release_later: list[tuple[int, int]] = []
        """Runs freed by committed transactions, held back by the checkpoint in progress."""
        self.grants: deque[Grant] = deque()
        self.granted_credits = 0
        self.aborted: OSError | None = None
        """The abort latch: the first IO error of a commit or checkpoint. Nothing is written after it."""
        self.commits_total = 0
        self.checkpoints_total = 0
        self.write_backs_total = 0
        """Checkpoints that only wrote images home, to free memory."""
        self.single_barrier_commits_total = 0
        self.blocks_logged_total = 0
        self.revokes_total = 0

    # --- the grant head ---
    def _need(self, images: int, revokes: int) -> int:
        return transaction_blocks(self.store.fmt, images, revokes) if images or revokes else 0

    @property
    def running_blocks(self) -> int:
        """Log blocks the running transaction would take if it were frozen now."""
        return self._need(len(self.running.images), len(self.running.revokes))

    @property
    def space(self) -> int:
        """Log blocks neither in use nor reserved."""
        committing = self.committing.log_blocks if self.committing is not None else 0
        return self.blocks - self.used - committing - self.running_blocks - self.granted_credits

    def join(self, plan: Plan) -> int:
        """Add the plan's blocks to the running transaction; its tid. NeedLogSpace, with nothing changed, when the
        credits cannot be granted or other operations wait before it."""
        running = self.running
        images = running.images
        new = sum(1 for address in plan.staged if address not in images)
        growth = 0
        if new or plan.revoked:
            after = self._need(len(images) + new, len(running.revokes) + len(plan.revoked))
            growth = after - self._need(len(images), len(running.revokes))
        if growth > 0:
            own = plan.grant.credits if plan.grant is not None and plan.grant.granted else 0
            others = self.granted_credits - own
            alone = running.empty and not others
            too_large = after + others > self.transaction_blocks_max and not alone
            no_space = growth - own > self.space
            queue = self.grants and not own
            if too_large or no_space or queue:
                # worst case: alone in a fresh transaction, which shares no blocks with others
                raise NeedLogSpace(self._need(len(plan.staged), len(plan.revoked)))
        self._take(plan)
        if plan.grant is not None:
            self.give_up(plan.grant)
        return running.tid

    def _take(self, plan: Plan) -> None:
        running, cache = self.running, self.store.cache
        images = running.images
        for address in plan.revoked:
            if images.pop(address, None) is not None:
                cache.let_go(address)
            self._supersede(address)
            cache.drop(address)
            running.revokes.add(address)
        publish, revokes = cache.publish, running.revokes
        for address, obj in plan.staged.items():
            if address not in images:
                self._supersede(address)
                publish(address, obj)
                cache.hold(address)
                revokes.discard(address)
            else:
                publish(address, obj)
            images[address] = obj
        running.freed.extend(plan.freed)
        running.inodes.update(plan.inodes)
        running.inodes.update(plan.raised)
        running.data_inodes.update(plan.data_sync)
        if plan.data_writes:
            running.ordered_data = True

    def _supersede(self, address: int) -> None:
        """The block is about to be changed or freed. If its current image is still being committed or written home,
        that image stays in memory, but no longer as part of the cache: count it."""
        entry = self.store.cache.entries.get(address)
        if entry is None or not entry.holds:
            return
        committing = self.committing
        if committing is not None and committing.images.get(address) is entry.obj:
            self.superseded_bytes += entry.cost
            return
        home = self.pending_home.get(address)
        if home is not None and home[1] is entry.obj:
            self.superseded_bytes += entry.cost

    def _settle(self, address: int, obj: Block) -> None:
        """An image has been written home, or no longer needs to be: unpin it."""
        cache = self.store.cache
        entry = cache.entries.get(address)
        if entry is None or entry.obj is not obj:
            self.superseded_bytes -= obj.cost(self.store.fmt)
        cache.let_go(address)

    def freeze(self) -> Transaction:
        """Make the running transaction, which must not be empty, the committing one, and start a new one."""
        assert self.committing is None, "one commit at a time"
        transaction = self.running
        assert not transaction.empty, "nothing to commit"
        transaction.log_blocks = self.running_blocks
        transaction.start = self.head
        self.running = Transaction(transaction.tid + 1)
        self.committing = transaction
        return transaction

    def complete(self, transaction: Transaction) -> list[tuple[int, int]]:
        """The committing transaction is durable: its images become pending home. Returns the freed runs that can be
        reused at once."""
        self.head = (self.head + transaction.log_blocks) % self.blocks
        self.used += transaction.log_blocks
        self.committed.append(transaction)
        self.committing = None
        self.committed_tid = transaction.tid
        self.commits_total += 1
        if not transaction.ordered_data:
            self.single_barrier_commits_total += 1
        self.blocks_logged_total += transaction.log_blocks
        self.revokes_total += len(transaction.revokes)
        home = self.pending_home
        for address in transaction.revokes:
            old = home.pop(address, None)
            if old is not None:
                self._settle(address, old[1])
        for address, obj in transaction.images.items():
            old = home.get(address)
            if old is not None:
                self._settle(address, old[1])
            home[address] = (transaction.tid, obj)
        transaction.images = {}
        freed = transaction.freed
        transaction.freed = []
        if self.checkpointing:
            self.release_later.extend(freed)
            return []
        return freed

    def begin_checkpoint(self) -> None:
        """From here to `end_checkpoint` home writes may be in progress, and freed blocks are held back. One checkpoint
        at a time."""
        assert not self.checkpointing, "one checkpoint at a time"
        self.checkpointing = True

    def end_checkpoint(self) -> list[tuple[int, int]]:
        """No home write is in progress any more. Returns the runs that can be reused now; none after an abort."""
        self.checkpointing = False
        if self.aborted is not None:
            return []
        released, self.release_later = self.release_later, []
        return released

    def tail_after(self, count: int) -> tuple[int, int]:
        """(offset, tid) of the log's tail once its oldest `count` transactions are dropped."""
        assert count <= len(self.committed)
        freed = sum(self.committed[i].log_blocks for i in range(count))
        tid = self.committed[count - 1].tid + 1 if count else self.store.superblock.tail_tid
        return (self.tail + freed) % self.blocks, tid

    def advance(self, count: int) -> int:
        """Drop the oldest `count` transactions: they are written home, and the superblock with the new tail is durable.
        Returns the log blocks freed."""
        freed = 0
        for _ in range(count):
            freed += self.committed.popleft().log_blocks
        self.tail = (self.tail + freed) % self.blocks
        self.used -= freed
        self.checkpoints_total += 1
        return freed

    def wrote_back(self) -> None:
        """Count a checkpoint that wrote images home only to free memory; the log keeps them."""
        self.write_backs_total += 1

    def came_home(self, first: int, written: list[Home]) -> None:
        """These images, of blocks from `first` on, are written home; the next flush makes them durable. Newer images
        stay pending."""
        for address, image in enumerate(written, first):
            newest = self.pending_home.get(address)
            if newest is not None and newest[1] is image[1]:  # compiled code unpacks tuples: they have no identity
                del self.pending_home[address]
                self._settle(address, image[1])
        self.on_home()

    def ask(self, credits: int, outer: Grant | None = None) -> Grant:
        """Queue for log space, in order of arrival. `outer`: the grant that the operation keeps meanwhile. More than a
        transaction may grow to is granted to an operation alone in its transaction, up to `alone_blocks_max`."""
        grant = Grant(credits, outer)
        self.grants.append(grant)
        return grant

    def serve(self) -> list[Grant]:
        """Grant what fits now, strictly in order of arrival. Returns the new grants, whose waiters are to be woken.

        A grant must also fit into the running transaction: the next commit makes space for it.
        """
        served: list[Grant] = []
        while self.grants:
            first = self.grants[0]
            if first.credits > self.space:
                break
            left = self.transaction_blocks_max - self.running_blocks - self.granted_credits
            if first.credits > left and not (self.running.empty and not self.granted_credits):
                break
            self.grants.popleft()
            first.granted = True
            self.granted_credits += first.credits
            served.append(first)
        return served

    def circular(self) -> Grant | None:
        """A queued grant whose wait can never end, because it depends on log space held by waiters in the same queue;
        None when there is none.

        Granted credits come back unless their holder itself waits in the queue. The first in the queue can therefore
        get at most a whole transaction less the credits held by waiters; those behind it are not served before it.
        """
        nested = [grant for grant in self.grants if grant.outer is not None and grant.outer.granted]
        if not nested:
            return None
        kept = sum({id(grant.outer): grant.outer.credits for grant in nested if grant.outer is not None}.values())
        return nested[-1] if self.grants[0].credits > self.transaction_blocks_max - kept else None

    def refuse(self, grant: Grant) -> None:
        """Remove a waiter from the queue for good."""
        grant.refused = True
        self.grants.remove(grant)

    def give_up(self, grant: Grant) -> None:
        """Return the credits: the operation joined, failed, or was cancelled."""
        if grant.granted:
            grant.granted = False
            self.granted_credits -= grant.credits
        elif grant in self.grants:
            self.grants.remove(grant)

    # --- queries of the runtime ---
    @property
    def wants_commit(self) -> bool:
        """The running transaction is half as large as it may get, or operations wait for log space."""
        if self.running.empty:
            return False
        return bool(self.grants) or 2 * self.running_blocks > self.transaction_blocks_max

    @property
    def wants_checkpoint(self) -> bool:
        """1/CHECKPOINT_START_FRACTION of the log is in use, or operations wait for log space."""
        if not self.committed:
            return False
        return bool(self.grants) or CHECKPOINT_START_FRACTION * self.used > self.blocks

    def uncommitted(self, ino: int, *, data_only: bool) -> int:
        """The newest transaction that is not durable and holds a change of the inode; 0 when there is none."""
        for transaction in (self.running, self.committing):
            if transaction is not None and ino in (transaction.data_inodes if data_only else transaction.inodes):
                return transaction.tid
        return 0

    def abort(self, error: OSError) -> None:
        """Latch the first failure."""
        if self.aborted is None:
            self.aborted = without_traceback(error)

    def require_working(self) -> None:
        """FsError(EIO) once the journal is aborted."""
        if self.aborted is not None:
            raise FsError(errno.EIO, f"journal aborted: {self.aborted}")

    def unless_aborted(self, job: Job[T]) -> Job[T]:
        """Run a job, but end it with FsError(EIO) before its next request, or instead of success, once the journal is
        aborted.

        The error that aborted it may concern what this job has written: the kernel reports a failed write to one
        fsync only, so a later barrier that succeeds proves nothing.
        """
        running = Pump(job)
        while (request := running.resume()) is not None:
            self.require_working()
            try:
                running.answer((yield request))
            except OSError as failure:
                running.fail(failure)
        self.require_working()
        return running.result

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(
            self.blocks,
            self.used,
            self.running_blocks,
            self.running.tid,
            self.commits_total,
            self.checkpoints_total,
            self.write_backs_total,
            self.single_barrier_commits_total,
            self.blocks_logged_total,
            self.revokes_total,
            str(self.aborted) if self.aborted is not None else "",
        )
