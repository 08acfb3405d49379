"""The engine: all decisions while an operation waits. The same for every driver: mount, synchronous loop, explorer.

**Structure.** An operation is attempted at once, without a generator (`attempt`). When it lacks something, a *task*
takes over: a generator that yields `Wait`s (`waits.py`) and runs the operation again until it goes through. Whatever
else is decided with a wait in it is a task too, in the module of its subject:

    holding      the resources of one operation over its retries; the answer to each Need
    log_space    reservations, and circular waits for the log
    eviction     direct reclaim, placing of inodes, release, trims
    cleanup      one inactivation, its retries, adoption of orphans, barriers; quarantine
    space        space reclaim when an allocation finds no free block
    durability   commit, sync, fsync, barriers, the share that may be dirty
    write_out    barriers for file data, before an fsync or the kernel's own limit has to wait for much of it
    write_back   when a commit and a checkpoint begin
    forgetting   what a FORGET message takes back, at once or in slices
    workers      when inodegc's workers stand back, and what they take at a time
    turns        when a transaction of cleanup begins, and when others run before the next one
    payment      when owed access times are paid, and how many
    background_reclaim  memory that comes back before it is short
    throttle     callers that add to the backlog
    freezing     freeze, thaw, read-only; unmount
    writing      writes and truncates of many operations
    reading      the bytes of files, and when they are to be read again

A driver resumes a task when its wait is over, and performs the few waits that are IO. It decides nothing.

**Invariant:** between the start of a plan and its `apply` or `drop` there is no wait.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from deferfs.device.base import Device
from deferfs.errors import CorruptionError, FsError, without_traceback
from deferfs.reclaim.context import ReclaimChecker
from deferfs.store.needs import Need
from deferfs.store.plan import Plan
from deferfs.volume.background_reclaim import BackgroundReclaim
from deferfs.volume.cleanup import Cleanup
from deferfs.volume.durability import Durability
from deferfs.volume.eviction import Eviction
from deferfs.volume.forgetting import Forgetting
from deferfs.volume.freezing import Freezing
from deferfs.volume.holding import Holding
from deferfs.volume.log_space import LogSpace
from deferfs.volume.payment import Payment
from deferfs.volume.space import SpaceReclaimer
from deferfs.volume.throttle import Throttle
from deferfs.volume.turns import Turns
from deferfs.volume.volume import Volume
from deferfs.volume.waits import Task
from deferfs.volume.workers import Workers
from deferfs.volume.write_back import WriteBack
from deferfs.volume.write_out import WriteOut

T = TypeVar("T")
log = logging.getLogger(__name__)


def _unmeasured(cause: str) -> AbstractContextManager[None]:
    return nullcontext()


def _no_time() -> int:
    return 0


class Engine:
    """The decisions of one open volume. `device` takes the file data of operations, in place.

    `measure(cause)` times what is done inside, `now_ns` is a clock that only runs forward: a driver may replace them.
    `after` is called after each operation that was applied; what replaces it calls `write_back.applied`, too.
    """

    def __init__(self, device: Device, volume: Volume, checker: ReclaimChecker) -> None:
        self.device = device
        self.volume = volume
        self.store = volume.store
        self.checker = checker
        self.measure: Callable[[str], AbstractContextManager[None]] = _unmeasured
        self.now_ns: Callable[[], int] = _no_time
        self.corruptions_total = 0
        self.write_back = WriteBack(self)
        self.after: Callable[[Plan], None] = self.write_back.applied
        self.log_space = LogSpace(self)
        self.durability = Durability(self)
        self.write_out = WriteOut(self)
        self.throttle = Throttle(self)
        self.cleanup = Cleanup(self)
        self.turns = Turns(self)
        self.payment = Payment(self)
        self.workers = Workers(self)
        self.eviction = Eviction(self)
        self.forgetting = Forgetting(self)
        self.reclaim = BackgroundReclaim(self)
        self.space = SpaceReclaimer(self)
        self.freezing = Freezing(self)

    # --- one operation ---
    def attempt(
        self, op: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], *, reserve: bool
    ) -> T | Need:
        """Run an operation once, without a wait: its result, or what it lacks. FsError as the caller of the filesystem
        sees it."""
        try:
            plan = self.store.plan(reserve=reserve)
        except Need as need:
            return without_traceback(need)
        return self._run(plan, op, args, kwargs)

    def _run(self, plan: Plan, op: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T | Need:
        try:
            result = op(plan, *args, **kwargs)
            plan.require_write_back()
            if plan.data_writes:
                self._write_data(plan)
            plan.apply()
        except Need as need:
            plan.drop()
            return without_traceback(need)
        except BaseException as error:
            plan.drop()
            self.note(error)
            raise
        self.after(plan)
        return result

    def retry(self, lacking: Need, op: Callable[[Plan], T], *, reserve: bool) -> Task[T]:
        """The slow path: satisfy needs until the operation goes through."""
        holding = Holding(self, reserve=reserve)
        need = lacking
        try:
            while True:
                yield from holding.satisfy(need)
                result = self._run(holding.plan(), op, (), {})
                if not isinstance(result, Need):
                    return result
                need = result
        finally:
            holding.end()

    def operation(self, op: Callable[[Plan], T], *, reserve: bool = False) -> Task[T]:
        """One operation from its first attempt to its end, as a part of another task. `reserve`: it frees space or
        memory, and may draw on the reserves."""
        self.checker.might_need("log" if reserve else "memory")
        result = self.attempt(op, (), {}, reserve=reserve)
        if isinstance(result, Need):
            result = yield from self.retry(result, op, reserve=reserve)
        if not reserve and self.volume.due:
            yield from self.eviction.wait_for(self.place_due())
        return result

    def place_due(self) -> list[Any]:
        """Hand inodes orphaned by operations to the evict policy; those to be waited for (`eviction.wait_for`)."""
        due, self.volume.due = self.volume.due, []
        return self.eviction.dispose(due)

    def _write_data(self, plan: Plan) -> None:
        write, count = self.device.write, 0
        try:
            for offset, data in plan.data_writes:
                write(offset, data)
                count += len(data)
        except OSError as error:
            raise FsError(errno.EIO, f"writing file data: {error}") from error
        self.write_out.wrote(count)

    def note(self, error: BaseException) -> None:
        """Count and log damage, which the unmount records in the superblock."""
        if isinstance(error, CorruptionError):
            self.corruptions_total += 1
            log.error("corruption: %s", error)
