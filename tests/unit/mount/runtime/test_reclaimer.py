"""Memory comes back: what is asked of the parts around the reclaimer, which are made up here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from deferfs.mount.runtime.driving import TaskDriver
from deferfs.mount.runtime.instruments import Instruments
from deferfs.mount.runtime.reclaimer import Reclaimer
from deferfs.volume.driver import Driver
from tests.unit.volumes import fresh_driver, make, record_of, settle

COUNT = 50


class Parts:
    """Everything the reclaimer asks: notes it, and does nothing else."""

    def __init__(self, *, kernel_frees: int = 0) -> None:
        self.kernel_frees = kernel_frees
        self.asked = self.pushes = self.trims = 0

    def ask(self) -> None:
        self.asked += 1

    def push(self) -> None:
        self.pushes += 1

    async def trim(self) -> int:
        self.trims += 1
        return self.kernel_frees


def reclaimer_of(driver: Driver, parts: Parts) -> Reclaimer:
    return Reclaimer(driver.engine, TaskDriver(driver.device, Instruments()).drive, parts, parts.push)


def idle_inodes(driver: Driver) -> None:
    """In core, idle, and everything clean."""
    for number in range(COUNT):
        record = record_of(driver.volume, make(driver, b"%d" % number))
        driver.volume.inodes.hold(record.ino, record.generation).release()
    settle(driver)


@asynccontextmanager
async def at_work(reclaimer: Reclaimer) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """The task runs; what is yielded waits until it has nothing to do."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reclaimer.run)
        await trio.testing.wait_all_tasks_blocked()
        yield trio.testing.wait_all_tasks_blocked
        nursery.cancel_scope.cancel()


async def test_the_task_begins_when_memory_is_short_and_leaves_off_below_that() -> None:
    driver, parts = fresh_driver(), Parts()
    idle_inodes(driver)
    memory, reclaimer = driver.volume.store.memory, reclaimer_of(driver, parts)
    async with at_work(reclaimer) as settled:
        before = memory.used
        reclaimer.look()
        await settled()
        assert memory.used == before, "there is plenty"
        reclaimer.set_memory(before * 16 // 15)
        await settled()
        assert memory.used <= 0.8 * before
        assert parts.asked == parts.pushes == parts.trims == 0


async def test_the_reclaimer_asks_the_kernel_and_then_for_writeback() -> None:
    driver, parts = fresh_driver(), Parts()
    make(driver, b"dirty")
    memory, reclaimer = driver.volume.store.memory, reclaimer_of(driver, parts)
    reclaimer.kernel_cache = parts
    async with at_work(reclaimer) as settled:
        reclaimer.set_memory(memory.used)
        await settled()
        assert (parts.trims, parts.asked) == (1, 1)


async def test_pressure_takes_an_eighth_and_has_the_backlog_cleaned_up() -> None:
    driver, parts = fresh_driver(), Parts()
    idle_inodes(driver)
    memory, reclaimer = driver.volume.store.memory, reclaimer_of(driver, parts)
    async with at_work(reclaimer) as settled:
        before = memory.used
        reclaimer.under_pressure()
        await settled()
        assert memory.used <= before * 7 // 8
        assert parts.pushes == 1


async def test_switched_off_it_leaves_memory_alone_and_switched_on_it_looks_at_once() -> None:
    driver, parts = fresh_driver(), Parts()
    idle_inodes(driver)
    memory, reclaimer = driver.volume.store.memory, reclaimer_of(driver, parts)
    reclaimer.set_works(False)
    async with at_work(reclaimer) as settled:
        before = memory.used
        reclaimer.set_memory(before)
        reclaimer.under_pressure()
        await settled()
        assert memory.used == before
        reclaimer.set_works(True)
        await settled()
        assert memory.used < before
