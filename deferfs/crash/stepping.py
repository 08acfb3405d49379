"""A driver that lets operations run in the middle of a commit or a checkpoint, between any two of their IO requests.

The mount does so all the time. Here it happens step by step, so that a test decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from deferfs.device.base import Device
from deferfs.errors import FsError
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State
from deferfs.store.checkpoint import bring_home, checkpoint
from deferfs.store.commit import commit
from deferfs.store.io import Job, Request, perform
from deferfs.store.needs import NeedBlocks
from deferfs.store.plan import Plan
from deferfs.store.pump import Pump
from deferfs.volume.driver import Driver
from deferfs.volume.inactivation import Inactivation
from deferfs.volume.volume import Volume

P = ParamSpec("P")
T = TypeVar("T")


class Stepper:
    """A job between two of its steps. A step performs the request that the job has issued, or gives it the answer.

    `done` once the job is over. A request waits unperformed between its two steps: what runs meanwhile is as if it
    had been slow, or quick.
    """

    def __init__(self, device: Device, job: Job[Any], resumed: Callable[[Stepper], None]) -> None:
        self.device = device
        self._job = Pump(job)
        self.resumed = resumed
        """Called whenever the job has gone on."""
        self.done = False
        self.failed = False
        """It ended with an error; `done` as well."""
        self.request: Request | None = None
        """Issued and not performed; None when it has been performed and the job has still to go on."""
        self._resume()

    def _resume(self) -> None:
        try:
            self.request = self._job.resume()
        except FsError:
            self.failed = True
            raise
        finally:
            self.done = self._job.done
            self.resumed(self)

    def step(self) -> None:
        """Perform the request, or resume the job after it. FsError when the job ends with it."""
        if self.request is None:
            self._resume()
            return
        try:
            self._job.answer(perform(self.device, self.request))
        except OSError as error:
            self._job.fail(error)
        self.request = None

    def finish(self) -> None:
        while not self.done:
            self.step()


class SteppingDriver(Driver):
    """A driver that tells what it does. The callbacks may be replaced.

    `on_freeze` is called when a commit has frozen its transaction; what it returns is passed to `on_durable` when
    that commit is durable. `on_inactivated` is called after each step of an inactivation with its inode and whether
    it was the last, `on_paid` after each payment of access times.
    """

    def __init__(self, device: Device, volume: Volume) -> None:
        super().__init__(device, volume)
        self.committing: Stepper | None = None
        self.checkpointing: Stepper | None = None
        self.inactivations: list[Inactivation] = []
        """Begun, not finished."""
        self.discard = False
        """Whether commits tell the device of the blocks they freed."""
        self.on_freeze: Callable[[], int] = lambda: 0
        self.on_durable: Callable[[int], None] = lambda state: None
        self.on_inactivated: Callable[[InCoreInode, dict[int, Any], bool], None] = lambda inode, changed, done: None
        self.on_paid: Callable[[dict[int, Any]], None] = lambda changed: None
        self.meanwhile: list[Callable[[], None]] = []
        """What happens while an operation waits for blocks, once each: the last one first."""

    # --- operations ---
    def perform(
        self,
        then: Callable[[T, dict[int, Any]], None],
        op: Callable[Concatenate[Plan, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `run`, but call `then` with the result and the changed records as soon as the operation is applied."""
        result, changed = self._changing(lambda plan: op(plan, *args, **kwargs), reserve=False)
        then(result, changed)
        self._place(self._take_due())
        return result

    def _changing(self, op: Callable[[Plan], T], *, reserve: bool) -> tuple[T, dict[int, Any]]:
        def both(plan: Plan) -> tuple[T, dict[int, Any]]:
            return op(plan), plan.inodes

        return self._run(both, reserve=reserve)

    def _fetch(self, need: NeedBlocks) -> None:
        """While the blocks are read, something else may happen, as long as no operation holds log space."""
        super()._fetch(need)
        if self.meanwhile and not self.volume.store.journal.granted_credits:
            self.meanwhile.pop()()

    def pay_block(self, first: int) -> None:
        """Write what is owed to one block of the inode table."""
        repayment = self.volume.repayment
        _, changed = self._changing(lambda plan: repayment.pay(plan, first), reserve=True)
        if changed:
            self.on_paid(changed)

    def phase(self) -> str:
        """What is in flight, and how the log lies: a few words."""
        journal = self.volume.store.journal
        jobs = [
            name for name, job in (("commit", self.committing), ("checkpoint", self.checkpointing)) if job is not None
        ]
        words = [" and ".join(jobs) or "operation"]
        if self.inactivations:
            words.append("inactivation begun")
        elif self.volume.gc.backlog:
            words.append("inactivation queued")
        wraps = journal.used and journal.head <= journal.tail
        words.append("log wraps" if wraps else "log in use" if journal.used else "log empty")
        return ", ".join(words)

    # --- inactivation ---
    def begin_inactivation(self, inode: InCoreInode) -> Inactivation | None:
        """Take up the inactivation of an inode that is due; None when it is live again."""
        inactivation = Inactivation(self.volume.inodes, inode)
        return inactivation if inactivation.begin() else None

    def step_inactivation(self, inactivation: Inactivation) -> bool:
        """One operation of it; True when it is over."""
        inode = inactivation.inode
        if inode.state is State.INACTIVATING:
            done, changed = self._changing(inactivation.step, reserve=True)
            self.on_inactivated(inode, changed, done)
            if not done:
                return False
        inactivation.finish()
        return True

    def inactivate(self, inode: InCoreInode) -> None:
        """Run one inactivation to its end."""
        inactivation = self.begin_inactivation(inode)
        if inactivation is not None:
            while not self.step_inactivation(inactivation):
                pass

    def finish_inactivations(self) -> None:
        while self.inactivations:
            inactivation = self.inactivations.pop()
            while not self.step_inactivation(inactivation):
                pass
            self.volume.gc.done(inactivation.inode)

    # --- jobs ---
    def begin_commit(self) -> None:
        """Freeze the running transaction and issue the first request."""
        assert self.committing is None
        store = self.volume.store
        journal = store.journal
        tid = None if journal.running.empty else journal.running.tid
        told = False
        state = self.on_freeze()

        def resumed(stepper: Stepper) -> None:
            nonlocal told
            durable = stepper.done and not stepper.failed if tid is None else journal.committed_tid >= tid
            if durable and not told:
                told = True
                self.on_durable(state)
            if stepper.done:
                self.committing = None

        job = commit(journal, store.clock(), discard=self.discard)
        self.committing = _unless_done(Stepper(self.device, job, resumed))

    def begin_checkpoint(self, *, memory_alone: bool = False) -> None:
        """Start to bring home what is committed now; with `memory_alone` the log keeps it."""
        assert self.checkpointing is None
        store = self.volume.store

        def resumed(stepper: Stepper) -> None:
            if stepper.done:
                self.checkpointing = None

        job = bring_home(store.journal) if memory_alone else checkpoint(store.journal, store.clock())
        self.checkpointing = _unless_done(Stepper(self.device, job, resumed))

    def finish_jobs(self) -> None:
        """Run what is in flight to its end."""
        if self.committing is not None:
            self.committing.finish()
        if self.checkpointing is not None:
            self.checkpointing.finish()

    def commit(self) -> None:
        """Make everything applied durable, after the commit in flight."""
        if self.committing is not None:
            self.committing.finish()
        self.begin_commit()
        if self.committing is not None:
            self.committing.finish()

    def checkpoint(self) -> None:
        """Bring everything committed home, after the checkpoint in flight."""
        if self.checkpointing is not None:
            self.checkpointing.finish()
        self.begin_checkpoint()
        if self.checkpointing is not None:
            self.checkpointing.finish()

    def bring_home(self) -> None:
        """The same for its memory alone."""
        if self.checkpointing is not None:
            self.checkpointing.finish()
        self.begin_checkpoint(memory_alone=True)
        if self.checkpointing is not None:
            self.checkpointing.finish()

    def close(self) -> None:
        """Unmount."""
        self.finish_inactivations()
        self.finish_jobs()
        super().close()


def _unless_done(stepper: Stepper) -> Stepper | None:
    return None if stepper.done else stepper
