"""A driver that runs operations in the middle of a commit or a checkpoint, between any two of their IO requests, and
while other operations wait.

In a mount that happens all the time. Here it happens step by step, under control of a test.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Literal, TypeVar

from deferfs.crash.steps import Standing, Stepper
from deferfs.device.base import Device
from deferfs.errors import FsError
from deferfs.store.io import Job
from deferfs.volume.driver import DeadlockError, Driver
from deferfs.volume.volume import Volume
from deferfs.volume.waits import DebtsFit, ReadBytes, Task, Thawed, Wait

T = TypeVar("T")
Background = Literal["payer", "reclaimer", "blockgc", "worker"]
"""The background tasks of a mount that are tasks of the engine."""
_STEPS_MAX = 100_000
"""Bound on the steps in which all waiting tasks must end."""


class SteppingDriver(Driver):
    """A driver with callbacks, which may be replaced.

    `on_freeze` is called when a commit has frozen its transaction; its result is passed to `on_durable` when that
    commit is durable. The callbacks of the engine (`Engine.after`, `Cleanup.on_applied`) are not used by it.
    """

    def __init__(self, device: Device, volume: Volume) -> None:
        super().__init__(device, volume)
        self.committing: Stepper | None = None
        self.checkpointing: Stepper | None = None
        self.standing: list[Standing] = []
        """Unfinished tasks, oldest first."""
        self.inactivations: list[Standing] = []
        """The unfinished tasks that clean up an inode taken from a queue."""
        self.on_freeze: Callable[[], int] = lambda: 0
        self.on_durable: Callable[[int], None] = lambda state: None
        self.on_drop_entries: Callable[[], int] = lambda: 0
        """The kernel is asked to drop entries; bytes that this has freed."""
        self.on_frozen: Callable[[], None] = _nothing
        """The volume has been frozen."""
        self.on_thaw: Callable[[], None] = _nothing
        """The volume is about to be thawed."""
        self.meanwhile: list[Callable[[], None]] = []
        """Actions to run while an operation waits for blocks, once each, last first."""
        self.now_seconds = 0.0
        """How much time has passed, for the limit of a freeze."""
        self.engine.freezing.seconds = lambda: self.now_seconds
        self.engine.turns.turn_ns = -1  # others can run after each transaction of cleanup
        self._steps = 0
        self._stepping: set[int] = set()
        self._switching: Standing | None = None
        """The task that freezes or thaws the volume: one at a time."""

    # --- waiting tasks ---
    def begin(
        self,
        name: str,
        task: Task[T],
        then: Callable[[T], None] = lambda result: None,
        failed: Callable[[FsError], None] | None = None,
        *,
        cold: bool = False,
    ) -> Standing:
        """Begin a task, up to its first wait. Its reads have to wait if `cold`."""
        standing = Standing(name, task, then, _raise if failed is None else failed)
        self.standing.append(standing)
        self._resume(standing, cold=cold)
        return standing

    def _resume(self, standing: Standing, *, cold: bool) -> None:
        """Run to the next wait at which others can run: reads that are not cold are answered at once."""
        self._steps += 1
        self._stepping.add(id(standing))
        try:
            standing.resume()
            while isinstance(standing.wait, ReadBytes) and (standing.wait.again or not cold):
                self._answer(standing, standing.wait)
                standing.resume()
            if standing.wait is not None and not standing.wait.over():
                self.begins(standing.wait)
        finally:
            self._stepping.discard(id(standing))
            if standing.wait is None:
                for tasks in (self.standing, self.inactivations):
                    if standing in tasks:
                        tasks.remove(standing)
                if standing is self._switching:
                    self._switching = None

    def _answer(self, standing: Standing, wait: Wait) -> None:
        try:
            standing.answer(Driver.answer(self, wait))
        except Exception as error:
            standing.fail(error)

    def step(self, standing: Standing, *, cold: bool = False, late: bool = False) -> bool:
        """Resume a task up to its next wait; False when its wait is not over. With `late`, a wait with a timeout
        times out."""
        wait = standing.wait
        if wait is None or id(standing) in self._stepping or not (wait.over() or (late and wait.seconds_max < inf)):
            return False
        if not wait.over():
            self.time_passes(wait)
        elif not isinstance(wait, ReadBytes):  # bytes read meanwhile may be stale
            self._stepping.add(id(standing))
            try:
                self._answer(standing, wait)
            finally:
                self._stepping.discard(id(standing))
        self._resume(standing, cold=cold)
        return True

    def step_any(self) -> bool:
        """Resume the first task that can continue; False when none can."""
        return any(self.step(standing) for standing in list(self.standing))

    def finish_standing(self) -> None:
        """Complete all tasks, by themselves where possible. DeadlockError when they cannot end."""
        for _ in range(_STEPS_MAX):
            if not self.standing:
                return
            if not self.step_any() and not self.help_others():
                break
        if self.standing:
            waits = ", ".join(f"{standing.name} for {type(standing.wait).__name__}" for standing in self.standing)
            raise DeadlockError(f"these wait for ever: {waits}")

    def help(self, wait: Wait) -> bool:
        """Do one step of the work that ends a wait, or resume another task; False when there is nothing to do."""
        if isinstance(wait, DebtsFit) and self.background("payer") is None:
            return False  # let it time out: debts are written when a test says so
        switching = self._switching
        if isinstance(wait, Thawed) and switching is not None:
            return self._bring_on(switching)
        return super().help(wait) or self.step_any() or self.help_others()

    def help_others(self) -> bool:
        """Do one step of what the other tasks wait for, as background tasks of a mount do, or let them time out."""
        for standing in list(self.standing):
            wait = standing.wait
            if wait is None or id(standing) in self._stepping:
                continue
            thawing = isinstance(wait, Thawed) and self._switching is not None
            if (not thawing and super().help(wait)) or self.step(standing, late=True):
                return True
        return False

    def _bring_on(self, standing: Standing) -> bool:
        """One step of the task, or of what it waits for."""
        wait = standing.wait
        assert wait is not None
        return self.step(standing) or (id(standing) not in self._stepping and self.help(wait))

    def _how_far(self) -> tuple[int, ...]:
        return (*super()._how_far(), self._steps, self.committing is not None, self.checkpointing is not None)

    def drop_standing(self) -> None:
        """After a power failure: abandon all tasks."""
        while self.standing:
            self.standing.pop().drop()
        self.inactivations.clear()
        self._switching = None

    # --- freezing ---
    @property
    def is_switching(self) -> bool:
        """Whether the volume is being frozen or thawed."""
        return self._switching is not None

    def begin_freeze(self, failed: Callable[[FsError], None]) -> None:
        """Begin to freeze the volume, unless it is frozen."""
        if self._switching is None and not self.volume.store.frozen:
            self._switch("freeze", self.engine.freezing.freeze(), self.on_frozen, failed)

    def begin_thaw(self, failed: Callable[[FsError], None]) -> None:
        """Begin to thaw the volume, if it is frozen."""
        if self._switching is None and self.volume.store.frozen:
            self.on_thaw()
            self._switch("thaw", self.engine.freezing.thaw(), _nothing, failed)

    def begin_expire(self, failed: Callable[[FsError], None]) -> None:
        """Begin to end a freeze that has lasted too long."""
        if self._switching is None and self.engine.freezing.overdue:
            self.on_thaw()
            self._switch("expiry", self.engine.freezing.expire(), _nothing, failed)

    def _switch(self, name: str, task: Task[None], then: Callable[[], None], failed: Callable[[FsError], None]) -> None:
        standing = self.begin(name, task, lambda _: then(), failed)
        self._switching = standing if standing.wait is not None else None

    def thaw(self) -> None:
        self.on_thaw()
        super().thaw()

    # --- operations ---
    def answer(self, wait: Wait) -> Any:
        """While blocks are read, another action may run, as long as no operation holds log space."""
        cold = isinstance(wait, ReadBytes) and not wait.again
        if cold and self.meanwhile and not self.volume.store.journal.granted_credits:
            self.meanwhile.pop()()
            return None
        return super().answer(wait)

    def phase(self) -> str:
        """A short description of the operations in flight and of the log."""
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
    def begin_inactivation(self, count_max: int = 1) -> None:
        """Let a worker take an inode and begin, if one is queued and inodegc is not stopped."""
        if self.engine.cleanup.stopped:
            return
        gc = self.volume.gc
        taken = gc.take(1)
        if not taken and self.reload(count_max):
            taken = gc.take(1)
        for inode in taken:
            standing = self.begin("inodegc", self.engine.cleanup.taken(inode))
            if standing.wait is not None:
                self.inactivations.append(standing)

    def step_inactivation(self, standing: Standing) -> None:
        """Let an inactivation make one transaction, or wait for what it needs."""
        applied = self.engine.cleanup.steps
        while standing.wait is not None and self.engine.cleanup.steps == applied and self.step(standing):
            pass

    def finish_inactivations(self) -> None:
        """Complete the inactivations of all inodes taken."""
        for _ in range(_STEPS_MAX):
            if not self.inactivations:
                break
            if not self._bring_on(self.inactivations[-1]):
                raise DeadlockError(f"an inactivation waits for ever: {type(self.inactivations[-1].wait).__name__}")

    # --- jobs ---
    def begin_commit(self) -> None:
        """Freeze the running transaction and issue the first request, whether that is due or not."""
        self._begin_commit(self.engine.write_back.commit_now())

    def _begin_commit(self, job: Job[int]) -> None:
        assert self.committing is None
        journal = self.volume.store.journal
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
                self.engine.write_back.commit_ended()

        self.committing = _unless_done(Stepper(self.device, job, resumed))

    def begin_checkpoint(self, *, keep_log: bool = False) -> None:
        """Begin to write home what is committed; with `keep_log` the log keeps it."""
        store = self.volume.store
        if store.frozen and not store.journal.committed:
            return  # as in a mount when there is nothing to write home
        self._begin_checkpoint(self.engine.write_back.checkpoint_now(keep_log=keep_log))

    def _begin_checkpoint(self, job: Job[int]) -> None:
        assert self.checkpointing is None

        def resumed(stepper: Stepper) -> None:
            if stepper.done:
                self.checkpointing = None
                self.engine.write_back.checkpoint_ended()

        self.checkpointing = _unless_done(Stepper(self.device, job, resumed))

    # --- the background tasks of a mount ---
    def background(self, kind: Background) -> Standing | None:
        """The background task of a kind, if it is in the middle of something."""
        return next((standing for standing in self.standing if standing.name == kind), None)

    def _go_on(self, kind: Background, steps: int, *, late: bool = False) -> None:
        """Go on by so many of the waits of a background task. `late`: the time of each passes."""
        for _ in range(steps):
            standing = self.background(kind)
            if standing is None or not self.step(standing, late=late):
                break

    def turn_of_commits(self, steps: int, *, late: bool = False) -> None:
        """The task that commits begins with what is due, or brings what is under way on by so many half steps. `late`:
        none has been asked for in a long time."""
        write_back = self.engine.write_back
        if self.committing is None:
            job = write_back.commit_due(late=late)
            if job is None:
                write_back.commit_ended()
                return
            self._begin_commit(job)
        _half_steps(self.committing, steps)

    def turn_of_checkpoints(self, steps: int) -> None:
        """The same for the task that brings home what is committed."""
        write_back = self.engine.write_back
        if self.checkpointing is None:
            job = write_back.checkpoint_due()
            if job is None:
                write_back.checkpoint_ended()
                return
            self._begin_checkpoint(job)
        _half_steps(self.checkpointing, steps)

    def turn_of_payments(self, steps: int, *, late: bool = False) -> None:
        """The payer begins with what is due, or goes on by so many of its waits."""
        payment = self.engine.payment
        if self.background("payer") is None and (late or payment.due):
            self.begin("payer", payment.sweep(late=late))
        self._go_on("payer", steps)

    def turn_of_reclaim(self, steps: int) -> None:
        """Background reclaim begins when it is due, or goes on by so many of its waits."""
        reclaim = self.engine.reclaim
        if self.background("reclaimer") is None and reclaim.due:
            self.begin("reclaimer", reclaim.run())
        self._go_on("reclaimer", steps)

    def turn_of_trims(self, steps: int, *, late: bool = False) -> None:
        """The task that trims blocks past EOF begins another round, or goes on by so many of its waits. `late`: the
        time of each passes."""
        if self.background("blockgc") is None:
            self.begin("blockgc", self._round_of_trims())
        self._go_on("blockgc", steps, late=late)

    def _round_of_trims(self) -> Task[None]:
        yield from self.engine.eviction.await_trims()
        yield from self.engine.eviction.trim_queued()

    def turn_of_worker(self, steps: int, *, late: bool = False) -> None:
        """The worker of the first queue takes a batch, when it is not to stand back, or goes on by so many of its
        waits. `late`: the time of each passes."""
        if self.background("worker") is None:
            self.begin("worker", self._turn_of_worker())
        self._go_on("worker", steps, late=late)

    def _turn_of_worker(self) -> Task[bool]:
        yield from self.engine.workers.stand_back(0)
        return (yield from self.engine.workers.batch(0))

    def drop_entries(self) -> int:
        return self.on_drop_entries()

    def pay_what_is_due(self) -> None:
        """A payment under way goes on, or one that is due is made."""
        paying = self.background("payer")
        if paying is None:
            super().pay_what_is_due()
        elif not self._bring_on(paying):
            self.step(paying, late=True)

    def write_back(self) -> None:
        """A job under way ends, or one that is due is run."""
        if self.committing is not None or self.engine.write_back.commit_asked:
            before = self._how_far()
            self.turn_of_commits(_STEPS_MAX)
            if self._how_far() != before:
                return
        if self.checkpointing is not None or self.engine.write_back.checkpoint_asked:
            self.turn_of_checkpoints(_STEPS_MAX)

    def finish_jobs(self) -> None:
        """Run the jobs in flight to their ends."""
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
        """Write everything committed home, after the checkpoint in flight."""
        if self.checkpointing is not None:
            self.checkpointing.finish()
        self.begin_checkpoint()
        if self.checkpointing is not None:
            self.checkpointing.finish()

    def bring_home(self) -> None:
        """As `checkpoint`, but only to free memory: the log keeps the images."""
        if self.checkpointing is not None:
            self.checkpointing.finish()
        self.begin_checkpoint(keep_log=True)
        if self.checkpointing is not None:
            self.checkpointing.finish()

    def exclusively(self, job: Job[None]) -> None:
        """Run a job that needs the image to itself, after those in flight."""
        self.finish_jobs()
        super().exclusively(job)

    def close(self) -> None:
        """Unmount."""
        self.finish_standing()
        self.finish_jobs()
        super().close()


def _unless_done(stepper: Stepper) -> Stepper | None:
    return None if stepper.done else stepper


def _half_steps(stepper: Stepper | None, count: int) -> None:
    """Bring a job on, if there is one, by so many half steps."""
    for _ in range(count):
        if stepper is None or stepper.done:
            break
        stepper.step()


def _nothing() -> None:
    """Default of a callback."""


def _raise(error: FsError) -> None:
    raise error
