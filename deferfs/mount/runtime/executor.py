"""Performing operations: at once when nothing is lacking, else as a task of the engine (`volume/engine.py`)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from deferfs.store.needs import Need
from deferfs.store.plan import Plan
from deferfs.volume import writing

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import Drive
    from deferfs.volume.engine import Engine

P = ParamSpec("P")
T = TypeVar("T")


class RunReserved(Protocol):
    """The interface `Executor.run_reserved` alone."""

    def __call__(self, op: Callable[[Plan], T], /) -> Coroutine[Any, Any, T]:
        """Perform an operation that frees space or memory. FsError."""


class Executor:
    """Runs the operations of one volume."""

    def __init__(self, engine: Engine, drive: Drive) -> None:
        self._engine = engine
        self._volume = engine.volume
        self._checker = engine.checker
        self._drive = drive

    def run(
        self, op: Callable[Concatenate[Plan, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Perform one operation. FsError with the errno that the system call returns."""
        self._checker.might_need("memory")
        return self._perform(op, args, kwargs, reserve=False)

    def run_reserved(self, op: Callable[[Plan], T], /) -> Coroutine[Any, Any, T]:
        """Perform an operation that frees space or memory, and may therefore draw on the reserves."""
        self._checker.might_need("log")
        return self._perform(op, (), {}, reserve=True)

    async def until_done(self, part: writing.OnePart) -> None:
        """Repeat an operation until it returns True: one that frees many extents."""
        await self._drive(writing.until_done(self._engine, part))

    async def _perform(
        self, op: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], *, reserve: bool
    ) -> T:
        """The fast path never waits, and is a single coroutine, because every request uses it."""
        engine = self._engine
        result = engine.attempt(op, args, kwargs, reserve=reserve)
        if isinstance(result, Need):
            result = await self._drive(engine.retry(result, lambda plan: op(plan, *args, **kwargs), reserve=reserve))
        if self._volume.due and not reserve:
            waiting = engine.place_due()
            if waiting:
                await self._drive(engine.eviction.wait_for(waiting))
        return result
