"""Driving the tasks of the engine under trio: each of their waits is awaited by the component that knows its end.

Components register how their waits are answered; none of them decides what is waited for, or in which order.

**Invariant:** a task continues when its wait is over or has timed out, or with the error that ended the wait; when
cancelled, it releases what it holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import trio

from deferfs.mount.runtime.jobs import flush_device
from deferfs.store.pump import Pump
from deferfs.volume.waits import Barrier, Listen, ReadBytes, Reschedule, Task, Wait

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.mount.runtime.instruments import Instruments

T = TypeVar("T")
_READ_TURNS_MAX: Final = 1000
"""Maximum of passes of the event loop given to the readers: each reads at least one message, and one FORGET message
carries thousands."""


class Drive(Protocol):
    """The interface `TaskDriver.drive` alone."""

    async def __call__(self, task: Task[T], /) -> T:
        """Run a task to its end."""


def _all_is_read() -> bool:
    return False


class TaskDriver:
    """Runs the tasks of one engine. `unread` tells whether there may be FORGETs that have not been counted."""

    def __init__(self, device: Device, instruments: Instruments) -> None:
        self.unread: Callable[[], bool] = _all_is_read
        self._device = device
        self._checker, self._waits = instruments.checker, instruments.waits
        self._answers: dict[type[Wait], Callable[[Any], Awaitable[Any]]] = {
            ReadBytes: self._read,
            Barrier: self._flush,
            Reschedule: self._let_others_run,
            Listen: self._listen,
        }

    def register(self, answers: dict[type[Wait], Callable[[Any], Awaitable[Any]]]) -> None:
        """Register how these waits are answered. To be called before the first operation."""
        self._answers.update(answers)

    async def drive(self, task: Task[T], /) -> T:
        """Run a task to its end."""
        running = Pump(task)
        while (wait := running.resume()) is not None:
            try:
                running.answer(await self._answers[type(wait)](wait))
            except BaseException as error:
                running.fail(error)
        return running.result

    async def _read(self, wait: ReadBytes) -> bytes | None:
        data = self._device.read_nowait(wait.offset, wait.length)
        if data is not None:
            return data
        if wait.again:
            return self._device.read(wait.offset, wait.length)
        self._checker.might_wait("io")
        with self._waits.measure("io"):
            await trio.to_thread.run_sync(self._device.read, wait.offset, wait.length)
        return None

    async def _flush(self, _: Barrier) -> None:
        await flush_device(self._device)

    async def _let_others_run(self, _: Reschedule) -> None:
        await trio.lowlevel.checkpoint()

    async def _listen(self, _: Listen) -> None:
        """Read all requests queued in the kernel."""
        for _turn in range(_READ_TURNS_MAX):
            if not self.unread():
                break
            await trio.lowlevel.checkpoint()
