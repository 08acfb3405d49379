"""inodegc's decisions: one inactivation from its first transaction to its last, what follows a failure, adoption of
orphans, payment of access times, and barriers. The driver decides when they run, and in which task.

**Invariants**
- A driver never abandons a task of `run_batch`. When inodegc is told to stop, the task stops between two transactions;
  the inodes it had taken are queued again, and are in the orphan table in any case.
- `stop` and `quiesce` return when no inactivation runs in any task, and none begins before `resume` or `release`.
  Inodes can be queued meanwhile; then the workers are woken for them. `stop` and `resume` do not change a freeze, nor
  does a freeze change what they were asked.
- No inode is lost: failures are retried and then quarantined, interrupted inactivations are queued.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.limits import DIRTY_WAIT_SECONDS_MAX, GC_BATCH, GC_STAND_BACK_INODES
from deferfs.reclaim.gc import unfinished
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.lockdep import GC_DRAIN
from deferfs.reclaim.states import State
from deferfs.store.plan import Plan
from deferfs.volume import orphans, quarantine
from deferfs.volume.inactivation import Inactivation
from deferfs.volume.shortage import memory_is_short, space_is_short
from deferfs.volume.waits import Cleaned, DebtsFit, Drained, Reschedule, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)


def _nothing() -> None:
    """Default of a callback: there is no driver to notify."""


def _not_told(inode: InCoreInode, start_ns: int) -> None:
    """Default of a callback: there is no driver to notify."""


def _not_seen(inode: InCoreInode, plan: Plan, done: bool) -> None:
    """Default of a callback: there is no driver to notify."""


class Cleanup:
    """Tasks of inodegc. `on_push`: clean up queued inodes without delay; `on_step`: a counter or `stopped` changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._volume = engine.volume
        self._gc = engine.volume.gc
        self._debts = engine.volume.inodes.debts
        self._spill = engine.volume.spill
        self._store = engine.store
        self._resting = False
        """Stopped by request (`stop`), until `resume`."""
        self._quiesced = False
        """Stopped by a freeze, a switch to read-only or the end of the mount (`quiesce`), until `release`."""
        self.busy = 0
        """Inactivations, payments and trims that run now, with what follows a failure."""
        self.steps = 0
        """Counts progress: steps applied, tasks ended."""
        self.payments_failed_total = 0
        """Updates that would have paid access times of a block together, and failed."""
        self.pushed = False
        """An operation or a barrier waits: no delay until all is done."""
        self.on_push: Callable[[], None] = _nothing
        self.on_step: Callable[[], None] = _nothing
        self.on_inactivated: Callable[[InCoreInode, int], None] = _not_told
        """An inactivation that began at the given time (`Engine.now_ns`) is over."""
        self.on_applied: Callable[[InCoreInode, Plan, bool], None] = _not_seen
        """A transaction of an inactivation is being applied; whether it is the last."""

    # --- what there is to do ---
    @property
    def stopped(self) -> bool:
        """Whether inodegc is stopped: no inactivation begins or goes on."""
        return self._resting or self._quiesced

    @property
    def has_work(self) -> bool:
        """Whether anything is queued or being cleaned up."""
        return bool(self._gc.backlog or self.busy)

    @property
    def owes(self) -> bool:
        """Whether access times are owed that can still be paid."""
        return bool(self._debts.count) and self._store.journal.aborted is None

    def waited_for(self) -> bool:
        """Whether an operation, a barrier or a throttled caller waits for cleanups."""
        return bool(self.pushed or self._gc.wanted_out_of_turn or self._engine.throttle.waiting)

    def short(self) -> bool:
        """Whether memory or space is short."""
        return memory_is_short(self._store.memory) or space_is_short(self._store.space)

    def wanted(self) -> bool:
        """Whether an operation waits for a cleanup, or memory or space is short."""
        return self.waited_for() or self.short()

    def pressed(self) -> bool:
        """Whether cleanups are waited for, or will be soon."""
        return self.wanted() or self._gc.queued > GC_STAND_BACK_INODES

    def hasten(self) -> None:
        """An operation waits for some of what is queued: no delay until all of it is done."""
        self.pushed = True

    # --- start and stop ---
    def push(self) -> None:
        """Clean up and pay everything queued or owed without delay. Failed inodes keep their delay."""
        if self._gc.queued or self._gc.running:
            self.pushed = True
            self._engine.workers.gathered = True
        self._engine.payment.hurry()
        self.on_push()

    def stop(self) -> Task[None]:
        """Stop every inactivation between two transactions, and wait until none runs; none begins before `resume`."""
        stopped, self._resting = self.stopped, True
        yield from self._leave_off(stopped)

    def quiesce(self) -> Task[None]:
        """The same until `release`, whatever `resume` is asked meanwhile: for a freeze, or the end of the mount."""
        stopped, self._quiesced = self.stopped, True
        yield from self._leave_off(stopped)

    def _leave_off(self, already: bool) -> Task[None]:
        if not already:
            self._engine.throttle.release()
            self.on_step()
        self._engine.checker.might_wait("drain")
        if self.busy:
            yield Drained(self)

    def resume(self) -> None:
        """Undo `stop`, and start with the inodes queued meanwhile. FsError, and nothing done: EBUSY when the volume is
        frozen or being frozen, EROFS when it is read-only."""
        if self._store.read_only:
            raise FsError(errno.EROFS, "mounted read-only")
        if self._quiesced:
            raise FsError(errno.EBUSY, "frozen: thaw it first")
        self._resting = False
        self._go_on()

    def release(self) -> None:
        """Undo `quiesce`; what `stop` has stopped stays so."""
        self._quiesced = False
        if not self._resting:
            self._go_on()

    def restart(self) -> None:
        """Undo both: the end of a mount cleans up what it can."""
        self._resting = self._quiesced = False
        self._go_on()

    def _go_on(self) -> None:
        self.told()
        self.push()
        if self._engine.eviction.to_trim:
            self._engine.eviction.on_trim()

    def told(self) -> None:
        """A step was applied, or a task has ended: wake the waiters for progress, or for a shorter backlog."""
        self.steps += 1
        if self._engine.throttle.waiting:
            self._engine.throttle.progress()
        self.on_step()

    # --- barriers ---
    def flush(self, deadline_ns: float = inf) -> Task[None]:
        """Wait until nothing is queued, delayed or owed, or until `deadline_ns` of the engine's clock."""
        self._engine.checker.might_wait("drain")
        while self.has_work or self.owes:
            left = (deadline_ns - self._engine.now_ns()) / 1e9
            if left <= 0:
                return
            self.push()
            yield Cleaned(self, left, barrier=True)

    def flush_inode(self, ino: int) -> Task[None]:
        """Wait until one inode is cleaned up, out of turn."""
        self._engine.checker.might_wait("drain")
        while self._debts.owes(ino) and self.owes and not self.stopped:
            self.push()
            yield Cleaned(self, barrier=True)
        while True:
            inode = self._volume.inodes.table.get(ino)
            if inode is None and not (yield from self._reload_one(ino)):
                return
            if inode is None:
                continue
            if not unfinished(inode):
                return
            if not self._gc.hasten([inode]):
                self.push()  # a worker has it
            yield Cleaned(self, barrier=True)

    def flush_below(self, ino: int) -> Task[None]:
        """Wait for the cleanup of what was deleted in directory `ino`, and in deleted directories below it. The orphan
        table does not record parents, so all orphans that are in the table alone are waited for."""
        self._engine.checker.might_wait("drain")
        while self._spill.count:
            self.push()
            yield Cleaned(self, barrier=True)
        found = self._gc.below(ino)
        self._gc.hasten(found)
        for inode in found:
            yield from self.flush_inode(inode.ino)

    # --- the workers' side ---
    def run_batch(self, count_max: int = GC_BATCH, number: int | None = None) -> Task[bool]:
        """Take up to `count_max` inodes of queue `number` (None: of all) and clean them up; False when there is nothing
        to take, or inodegc is stopped."""
        if self.stopped:
            return False
        self._gc.retry_due()
        batch = self._gc.take(count_max, number)
        if not batch:
            if self._spill.count:
                yield from self.reload()
                return True
            if not self._gc.queued and not self._gc.running:
                self.pushed = False
            return False
        with self._engine.checker.holding("inodegc worker", GC_DRAIN):
            for inode in batch:
                yield from self.taken(inode)
        return True

    def reload(self, count_max: int = GC_BATCH) -> Task[int]:
        """Queue some of what waits in the orphan table alone; 0 when nothing does. A block that cannot be read is left
        to fsck."""
        count = 0
        with self._engine.checker.holding("inodegc worker", GC_DRAIN):
            try:
                count = yield from self._engine.operation(
                    partial(orphans.reload, volume=self._volume, count_max=count_max), reserve=True
                )
            except FsError as error:
                log.error("%s", orphans.give_up(self._volume, error))
        yield Reschedule()
        self.told()
        return count

    def _reload_one(self, ino: int) -> Task[bool]:
        """Queue an inode that is not in core out of turn; False when it waits for no inactivation."""
        if not self._spill.count:
            return False
        try:
            return (
                yield from self._engine.operation(
                    partial(orphans.reload_one, volume=self._volume, ino=ino), reserve=True
                )
            )
        except FsError:
            return False  # there is no such inode

    def taken(self, inode: InCoreInode) -> Task[None]:
        """Clean up an inode that was taken from a queue."""
        self.busy += 1
        try:
            yield from self._engine.turns.keep_pace()
            yield from self._within_means()
            try:
                finished = yield from self.inactivate(inode, background=not self.pressed(), deferred=True)
            except FsError as error:
                log.warning("inactivation of inode %d failed: %s", inode.ino, error)
                if self._gc.failed(inode):
                    yield from quarantine.remember(self._engine, inode)
            else:
                if finished:
                    self._gc.done(inode)
                else:
                    self._gc.leave_off(inode)
        finally:
            self.busy -= 1
            self.told()

    def inline(self, inode: InCoreInode) -> Task[None]:
        """Inactivate while the source of the eviction waits. After a failure, or with inodegc stopped, it is left to
        inodegc, so that no inode is lost."""
        self.busy += 1
        try:
            try:
                finished = yield from self.inactivate(inode)
            except FsError as error:
                log.warning("inactivation of inode %d failed: %s", inode.ino, error)
                if self._gc.failed_inline(inode):
                    yield from quarantine.remember(self._engine, inode)
                return
            if not finished:
                self._volume.inodes.interrupt(inode)
                if inode.state is State.NEED_INACTIVE:
                    self._gc.enqueue(inode)
        finally:
            self.busy -= 1
            self.told()

    def release_quarantine(self) -> Task[None]:
        """Release all inodes from quarantine, on disk, too, for another attempt."""
        yield from quarantine.release(self._engine)
        self._gc.release_quarantine()

    def inactivate(self, inode: InCoreInode, *, background: bool = False, deferred: bool = False) -> Task[bool]:
        """Run one inactivation to its end, yielding to others between its transactions. `background`: limited by the
        pace; `deferred`: limited to the share of dirty blocks.

        False when inodegc was stopped meanwhile: the inode is still INACTIVATING, or was not begun.
        """
        inactivation = Inactivation(self._volume.inodes, inode)
        if self.stopped:
            return False
        if not inactivation.begin():
            return True
        start = self._engine.now_ns()
        try:
            if not (yield from self._steps_of(inactivation, inode, background=background, deferred=deferred)):
                return False
        except FsError:
            yield from self._engine.turns.step_done(background=background, last=True)
            raise
        inactivation.finish()
        self.told()
        self.on_inactivated(inode, start)
        yield from self._engine.turns.step_done(background=background, last=True)
        return True

    def _steps_of(
        self, inactivation: Inactivation, inode: InCoreInode, *, background: bool, deferred: bool
    ) -> Task[bool]:
        """All its transactions; False when inodegc was stopped between two."""

        def step(plan: Plan) -> bool:
            done = inactivation.step(plan)
            plan.on_apply.append(partial(self.on_applied, inode, plan, done))
            return done

        while not (yield from self._engine.operation(step, reserve=True)):
            self.told()
            yield from self._engine.turns.step_done(background=background, last=False)
            if deferred:
                yield from self._within_means()
            if self.stopped:
                return False
        return True

    def _within_means(self) -> Task[None]:
        """Before a transaction, with nothing held: wait until no more than the share of cleanup is dirty, unless an
        operation waits for it, or space is short."""
        if not self.waited_for() and not space_is_short(self._store.space) and not self.stopped:
            yield from self._engine.durability.within_share_of_cleanup()

    # --- access times ---
    def before_payment(self, *, hurried: bool) -> Task[None]:
        """With nothing held: wait until no more than the share of cleanup is dirty. `hurried`, when the end of payment
        is waited for: no more than operations may make so, as fewer and larger commits end sooner."""
        durability = self._engine.durability
        if hurried:
            yield from durability.less_dirty(self._store.memory.dirty_bytes_max)
        else:
            yield from durability.within_share_of_cleanup()

    def fetch(self, firsts: list[int]) -> Task[None]:
        """Fetch the inode-table blocks that start with the inodes `firsts` and are not cached. One that cannot be read
        is left to `pay`."""
        try:
            yield from self._engine.operation(partial(self._store.inodes.require, inos=firsts), reserve=True)
        except FsError as error:
            log.debug("blocks of the inode table could not be fetched together: %s", error)

    def pay(self, first: int) -> Task[None]:
        """Write all debts to the inode-table block that starts with inode `first`, in one update. On failure they
        return to core, to inodegc, which pays each alone."""
        volume = self._volume

        def pay(plan: Plan) -> None:
            volume.repayment.pay(plan, first)

        try:
            with self._engine.checker.holding("inodegc times", GC_DRAIN):
                yield from self._engine.operation(pay, reserve=True)
        except FsError as error:
            self.payments_failed_total += 1
            log.warning("access times of inodes %d.. could not be written: %s", first, error)
            for ino, generation, _ in self._debts.of_block(first, self._store.fmt.inodes_per_block):
                self._gc.enqueue(volume.inodes.unpaid(ino, generation))
        self.told()

    def wait_for_debt_slot(self) -> Task[None]:
        """Wait until an inode that owes can leave core, and not longer than DIRTY_WAIT_SECONDS_MAX."""
        self._engine.checker.might_wait("gc")
        wait = DebtsFit(self, self._debts, DIRTY_WAIT_SECONDS_MAX)
        if not wait.over():
            self._engine.payment.ask()
            yield wait
