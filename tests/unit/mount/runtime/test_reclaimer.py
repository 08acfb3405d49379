"""Memory comes back by the task, without an operation; what cannot, is asked of others."""

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


class Kernel:
    """Is asked to drop entries, notes it, and has none."""

    def __init__(self) -> None:
        self.trims = 0

    async def trim(self, bytes_wanted: int) -> int:
        assert bytes_wanted > 0
        self.trims += 1
        return 0


def reclaimer_of(driver: Driver) -> Reclaimer:
    return Reclaimer(driver.engine, TaskDriver(driver.device, Instruments()))


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
    driver = fresh_driver()
    idle_inodes(driver)
    memory, reclaim = driver.volume.store.memory, driver.engine.reclaim
    async with at_work(reclaimer_of(driver)) as settled:
        before = memory.used
        reclaim.look()
        await settled()
        assert memory.used == before, "there is plenty"
        reclaim.set_memory(before * 16 // 15)
        await settled()
        assert memory.used <= 0.8 * before
        assert not driver.engine.write_back.checkpoint_asked


async def test_the_reclaimer_asks_the_kernel_and_then_for_writeback() -> None:
    driver, kernel = fresh_driver(), Kernel()
    make(driver, b"dirty")
    write_back, reclaimer = driver.engine.write_back, reclaimer_of(driver)
    reclaimer.kernel_cache = kernel
    async with at_work(reclaimer) as settled:
        driver.engine.reclaim.set_memory(driver.volume.store.memory.used)
        await settled()
        assert (kernel.trims, write_back.commit_asked, write_back.checkpoint_asked) == (1, True, True)


async def test_pressure_takes_an_eighth_and_has_the_backlog_cleaned_up() -> None:
    driver = fresh_driver()
    idle_inodes(driver)
    pushes: list[None] = []
    driver.engine.cleanup.on_push = lambda: pushes.append(None)
    memory = driver.volume.store.memory
    async with at_work(reclaimer_of(driver)) as settled:
        before = memory.used
        driver.engine.reclaim.under_pressure()
        await settled()
        assert memory.used <= before * 7 // 8
        assert len(pushes) == 1


async def test_switched_off_it_leaves_memory_alone_and_switched_on_it_looks_at_once() -> None:
    driver = fresh_driver()
    idle_inodes(driver)
    memory, reclaim = driver.volume.store.memory, driver.engine.reclaim
    reclaim.set_works(False)
    async with at_work(reclaimer_of(driver)) as settled:
        before = memory.used
        reclaim.set_memory(before)
        reclaim.under_pressure()
        await settled()
        assert memory.used == before
        reclaim.set_works(True)
        await settled()
        assert memory.used < before
