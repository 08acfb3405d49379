"""A driver that runs operations in the middle of a commit or a checkpoint, between any two of their IO requests, and
while other operations wait.

In a mount that happens all the time. Here it happens step by step, under control of a test.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from math import inf
from typing import Any, TypeVar

from deferfs.device.base import Device
from deferfs.errors import FsError
from deferfs.store.checkpoint import bring_home, checkpoint
from deferfs.store.commit import commit
from deferfs.store.io import Job, Request, perform
from deferfs.store.pump import Pump
from deferfs.volume.driver import DeadlockError, Driver
from deferfs.volume.volume import Volume
from deferfs.volume.waits import DebtsFit, ReadBytes, Task, Thawed, Wait

T = TypeVar("T")
_STEPS_MAX = 100_000
"""Bound on the steps in which all waiting tasks must end."""


class Stepper:
    """A job between two of its steps. A step performs the request that the job has issued, or resumes the job.

    `done` once the job is over. A request is pending between its two steps, so other work can run before or after it
    is performed, as with a slow or fast disk.
    """

    def __init__(self, device: Device, job: Job[Any], resumed: Callable[[Stepper], None]) -> None:
        self.device = device
        self._job = Pump(job)
        self.resumed = resumed
        """Called whenever the job has been resumed."""
        self.done = False
        self.failed = False
        """The job ended with an error; `done` as well."""
        self.request: Request | None = None
        """The pending request; None when it has been performed and the job is to be resumed."""
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


class Standing:
    """A task of the engine that is stopped at a wait; `wait` is None once it is over.

    It has its own context, as a task of the mount has. `then` is called with its result, `failed` with the FsError that
    it ends with.
    """

    def __init__(self, name: str, task: Task[T], then: Callable[[T], None], failed: Callable[[FsError], None]) -> None:
        self.name = name
        self.wait: Wait | None = None
        self._running: Pump[Wait, Any, T] = Pump(task)
        self._context = copy_context()
        self._then: Callable[[Any], None] = then
        self._failed = failed

    def resume(self) -> None:
        """Run to the next wait, or to the end."""
        try:
            self.wait = self._context.run(self._running.resume)
        except FsError as error:
            self.wait = None
            self._failed(error)
            return
        except BaseException:
            self.wait = None
            raise
        if self.wait is None:
            self._then(self._running.result)

    def drop(self) -> None:
        """Abandon it: its context managers exit, in its own context."""
        self.wait = None
        self._context.run(self._running.close)

    def answer(self, answer: Any) -> None:
        """Set the answer of its wait."""
        self._running.answer(answer)

    def fail(self, error: BaseException) -> None:
        """Set the error of its wait."""
        self._running.fail(error)


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
        self.discard = False
        """Whether commits discard the blocks they freed."""
        self.on_freeze: Callable[[], int] = lambda: 0
        self.on_durable: Callable[[int], None] = lambda state: None
        self.on_frozen: Callable[[], None] = _nothing
        """The volume has been frozen."""
        self.on_thaw: Callable[[], None] = _nothing
        """The volume is about to be thawed."""
        self.meanwhile: list[Callable[[], None]] = []
        """Actions to run while an operation waits for blocks, once each, last first."""
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
        if wait.over() and not isinstance(wait, ReadBytes):  # bytes read meanwhile may be stale
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
        if isinstance(wait, DebtsFit):
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
        return (*super()._how_far(), self._steps)

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
                self.engine.log_space.serve()

        job = commit(journal, store.clock(), discard=self.discard)
        self.committing = _unless_done(Stepper(self.device, job, resumed))

    def begin_checkpoint(self, *, memory_alone: bool = False) -> None:
        """Begin to write home what is committed; with `memory_alone` the log keeps it."""
        assert self.checkpointing is None
        store = self.volume.store
        if store.frozen and not store.journal.committed:
            return  # as in a mount when there is nothing to write home

        def resumed(stepper: Stepper) -> None:
            if stepper.done:
                self.checkpointing = None
                self.engine.log_space.serve()

        job = bring_home(store.journal) if memory_alone else checkpoint(store.journal, store.clock())
        self.checkpointing = _unless_done(Stepper(self.device, job, resumed))

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
        self.begin_checkpoint(memory_alone=True)
        if self.checkpointing is not None:
            self.checkpointing.finish()

    def alone(self, job: Job[None]) -> None:
        """Run a job that needs the image to itself, after those in flight."""
        self.finish_jobs()
        super().alone(job)

    def close(self) -> None:
        """Unmount."""
        self.finish_standing()
        self.finish_jobs()
        super().close()


def _unless_done(stepper: Stepper) -> Stepper | None:
    return None if stepper.done else stepper


def _nothing() -> None:
    """Default of a callback."""


def _raise(error: FsError) -> None:
    raise error
