"""Cheaper turns for pyfuse3's readers.

pyfuse3 keeps several reader tasks that hand the FUSE descriptor round under a `trio.Lock`: each request costs two
passes of the event loop, one to hand the lock on and one to wait for the descriptor. Most handlers finish without
waiting, so the reader that had the descriptor can keep it. `ReaderLock` lets it: the lock goes to the next reader only
if the task step that released it has ended without taking it back (the reader waits in its handler).

A request that has already come is taken at once, without a pass of the event loop, for a bounded number of times.

**Invariant:** at the end of each task step the lock is held or nobody waits for it.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

import pyfuse3
import trio

AT_ONCE_MAX: Final = 16
"""At some 50 us each, less than a millisecond goes by before other tasks run."""


class ReaderLock(trio.abc.Instrument):
    """A lock for `async with`; an instrument that looks after it at the end of each task step."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[trio.lowlevel.Task] = deque()

    async def __aenter__(self) -> None:
        if not self._held:
            self._held = True
            return
        task = trio.lowlevel.current_task()
        self._waiting.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Hand the lock on when it was released and not taken back."""
        if not self._held and self._waiting:
            self._held = True
            trio.lowlevel.reschedule(self._waiting.popleft())


class _LowLevel:
    """What pyfuse3 sees as `trio.lowlevel`: it does not wait for a request that is there."""

    def __init__(self) -> None:
        self._polls: dict[int, select.poll] = {}
        self._at_once = 0

    def __getattr__(self, name: str) -> object:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, fd: int) -> None:
        """As `trio.lowlevel.wait_readable`; the background tasks get a turn after AT_ONCE_MAX requests."""
        poll = self._polls.get(fd)
        if poll is None:
            poll = self._polls[fd] = select.poll()
            poll.register(fd, select.POLLIN)
        if self._at_once < AT_ONCE_MAX and poll.poll(0):
            self._at_once += 1
            return
        self._at_once = 0
        await trio.lowlevel.wait_readable(fd)


class _Trio:
    """What pyfuse3 sees as `trio`: all of it, but with our lock and our way to wait for requests."""

    def __init__(self, lock: ReaderLock) -> None:
        self._lock = lock
        self.lowlevel = _LowLevel()

    def __getattr__(self, name: str) -> object:
        return getattr(trio, name)

    def Lock(self) -> ReaderLock:  # noqa: N802  (stands in for trio.Lock)
        return self._lock


@contextmanager
def cheap_turns() -> Iterator[None]:
    """Have the `pyfuse3.main` called inside use a `ReaderLock`.

    pyfuse3 offers no way to choose its lock, so its reference to trio is replaced; a version that makes its lock in
    another way is served as it is. Measured in pairs on a loaded machine, the lock takes a third off the processor
    time of a request, and taking requests at once another fifth.
    """
    lock = ReaderLock()
    trio.lowlevel.add_instrument(lock)
    pyfuse3.trio = _Trio(lock)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        pyfuse3.trio = trio  # type: ignore[attr-defined]
        trio.lowlevel.remove_instrument(lock)
