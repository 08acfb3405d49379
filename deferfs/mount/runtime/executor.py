"""Performing operations: plan, apply, and what lies between when something is lacking.

An operation that lacks nothing runs to its end without a wait. One that does is retried (`waiting.py`) when what it
lacks is there. Some of these waits run further operations, or wait for such: for memory, for space, and for what has
to be evicted. The executor knows them by narrow protocols only, and is told of them when they have been built: that is
the one place where the runtime is recursive.

**Invariant:** between the start of a plan and its `apply` or `drop` there is no await. Blocks fetched for an
operation stay held until it ends, so that a retry makes progress.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from deferfs.errors import CorruptionError, FsError, without_traceback
from deferfs.mount.runtime.waiting import Gate, MemorySource, Sources, SpaceSource, Waiting
from deferfs.store.needs import Need
from deferfs.store.plan import Plan

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.mount.runtime.committer import Committer
    from deferfs.mount.runtime.grants import Grants
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.reclaim.inode import InCoreInode
    from deferfs.volume.volume import Volume

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Evictor(Protocol):
    """Where inodes go that an operation has let go of (`Eviction`)."""

    async def place(self, inodes: list[InCoreInode]) -> None:
        """Hand them to the evict policy, and wait for those that it gives back."""


class RunReserved(Protocol):
    """`Executor.run_reserved`, for parts that need no more of it."""

    def __call__(self, op: Callable[[Plan], T], /) -> Coroutine[Any, Any, T]:
        """Perform an operation that frees space or memory. FsError."""


class Executor:
    """Runs the operations of one volume. `corruptions_total` counts the damage they have met."""

    def __init__(
        self, device: Device, volume: Volume, instruments: Instruments, committer: Committer, grants: Grants
    ) -> None:
        self.device = device
        self.volume = volume
        self.store = volume.store
        self.instruments = instruments
        self.corruptions_total = 0
        self.sources: Sources
        """Known when it has been connected."""
        self._checker = instruments.checker
        self._committer = committer
        self._grants = grants
        self._evictor: Evictor

    def connect(self, evictor: Evictor, memory: MemorySource, space: SpaceSource, gate: Gate) -> None:
        """Say what is waited for. To be called before the first operation; these need the executor themselves."""
        self._evictor = evictor
        self.sources = Sources(
            self.device, self.store, self.instruments, self._committer, self._grants, memory, space, gate
        )

    def run(
        self, op: Callable[Concatenate[Plan, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Perform one operation; FsError as the caller of the filesystem sees it."""
        self._checker.might_need("memory")
        return self._perform(op, args, kwargs, reserve=False)

    def run_reserved(self, op: Callable[[Plan], T], /) -> Coroutine[Any, Any, T]:
        """Perform an operation that frees space or memory: it may draw on the reserves."""
        self._checker.might_need("log")
        return self._perform(op, (), {}, reserve=True)

    async def _perform(
        self, op: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], *, reserve: bool
    ) -> T:
        """The fast path does not wait at all, and is one coroutine: every request goes through it."""
        plan: Plan | None = None
        lacking: Need | None = None
        try:
            plan = self.store.plan(reserve=reserve)
            result = op(plan, *args, **kwargs)
            if plan.data_writes:
                self._write_data(plan)
            plan.apply()
        except Need as need:
            if plan is not None:
                plan.drop()
            lacking = without_traceback(need)
        except BaseException as error:
            if plan is not None:
                plan.drop()
            self.note(error)
            raise
        else:
            self._committer.after_operation()
        if lacking is not None:
            result = await self._retry(lacking, lambda plan: op(plan, *args, **kwargs), reserve=reserve)
        if self.volume.due and not reserve:
            due, self.volume.due = self.volume.due, []
            await self._evictor.place(due)
        return result

    def _write_data(self, plan: Plan) -> None:
        write = self.device.write
        try:
            for offset, data in plan.data_writes:
                write(offset, data)
        except OSError as error:
            raise FsError(errno.EIO, f"writing file data: {error}") from error

    def note(self, error: BaseException) -> None:
        """Count and log damage: the superblock says so in the end."""
        if isinstance(error, CorruptionError):
            self.corruptions_total += 1
            log.error("corruption: %s", error)

    async def _retry(self, need: Need, op: Callable[[Plan], T], *, reserve: bool) -> T:
        """The slow path: satisfy needs until the operation goes through."""
        waiting = Waiting(self.sources, reserve=reserve)
        try:
            while True:
                await waiting.satisfy(need)
                plan: Plan | None = None
                try:
                    plan = waiting.plan()
                    result = op(plan)
                    self._write_data(plan)
                    plan.apply()
                    self._committer.after_operation()
                    return result
                except Need as another:
                    if plan is not None:
                        plan.drop()
                    need = without_traceback(another)
                except BaseException as error:
                    if plan is not None:
                        plan.drop()
                    self.note(error)
                    raise
        finally:
            waiting.end()
