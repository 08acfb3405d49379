"""Callers that add to the backlog wait: how long, in which order, and which of them leave."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import trio
import trio.testing

from deferfs.errors import FsError
from deferfs.limits import GC_BATCH
from deferfs.mount.runtime.driving import TaskDriver
from deferfs.mount.runtime.instruments import Instruments
from deferfs.mount.runtime.runtime import Runtime
from deferfs.mount.runtime.throttle import Admission
from deferfs.store.transaction import Grant
from deferfs.volume.driver import Driver
from tests.unit.runtimes import delete_and_forget, make_file, running, turns
from tests.unit.volumes import fresh_driver, make, record_of, unlink


def with_backlog(count: int) -> Driver:
    """Deleted files in the queues; more than five are too many."""
    driver = fresh_driver()
    add_to_backlog(driver, count)
    driver.engine.throttle.inodes = 5
    driver.engine.throttle.deadline_seconds = 1e9
    return driver


def add_to_backlog(driver: Driver, count: int) -> None:
    for number in range(count):
        ino = make(driver, b"old%d" % number)
        driver.volume.lookup_count(record_of(driver.volume, ino))
        unlink(driver, b"old%d" % number)
        driver.forget(ino, 1)


def admission(driver: Driver, being_killed: Callable[[int], bool] = lambda _pid: False) -> Admission:
    return Admission(driver.engine, TaskDriver(driver.device, Instruments()), being_killed)


async def test_callers_go_in_the_order_in_which_they_came_as_the_backlog_shrinks() -> None:
    driver = with_backlog(9)
    throttle, door = driver.engine.throttle, admission(driver)
    order: list[int] = []

    async def caller(number: int) -> None:
        await door.admit(1)
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(caller, number)
            await trio.testing.wait_all_tasks_blocked()
        assert throttle.waiting == 4
        while throttle.waiting:
            driver.collect(1)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(order) == list(range(len(order))), "one that came later is let go before"
    assert len(order) == 4
    assert throttle.expired_total == throttle.waiting == 0


async def backlog(runtime: Runtime) -> Grant:
    """More inodes in the queues than workers take at a time, and none can be cleaned up until the grant is given up."""
    throttle = runtime.engine.throttle
    throttle.inodes = 5
    throttle.deadline_seconds = 1e9
    await runtime.workers.stop()
    for number in range(4 * GC_BATCH):
        name = b"old%d" % number
        await delete_and_forget(runtime, name, await make_file(runtime, name))
    assert throttle.reason() == "inodes"
    grant = runtime.store.journal.ask(runtime.store.journal.transaction_blocks_max)
    runtime.engine.log_space.serve()
    runtime.workers.resume()
    return grant


async def test_callers_go_when_inodegc_has_caught_up() -> None:
    async with running() as runtime:
        throttle = runtime.engine.throttle
        grant = await backlog(runtime)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(runtime.throttle.admit, 1)
            await turns()
            assert throttle.waiting == 20
            runtime.store.journal.give_up(grant)
            runtime.engine.log_space.serve()
        assert throttle.waiting == throttle.expired_total == 0
        assert runtime.waits.by_name["throttle"].count == 20


async def test_the_deadline_lets_all_callers_go(autojump_clock: trio.testing.MockClock) -> None:
    driver = with_backlog(6)
    driver.engine.throttle.deadline_seconds = 7
    await admission(driver).admit(1)
    assert trio.current_time() == pytest.approx(7)
    assert driver.engine.throttle.expired_total == 1
    assert driver.engine.throttle.waiting == 0


async def test_a_caller_that_is_being_killed_leaves_at_once(autojump_clock: trio.testing.MockClock) -> None:
    driver = with_backlog(6)
    with pytest.raises(FsError) as caught:
        await admission(driver, lambda pid: pid == 77).admit(77)
    assert caught.value.errno == errno.EINTR
    assert trio.current_time() < 1
    assert (driver.engine.throttle.killed_total, driver.engine.throttle.waiting) == (1, 0)


async def test_callers_that_wait_go_when_workers_are_stopped() -> None:
    """The stop itself waits until the step that runs has its log space."""
    async with running() as runtime:
        throttle = runtime.engine.throttle
        grant = await backlog(runtime)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(runtime.throttle.admit, 1)
            await turns()
            assert throttle.waiting == 3
            nursery.start_soon(runtime.workers.stop)
            await turns()
            assert throttle.waiting == throttle.expired_total == 0
            runtime.store.journal.give_up(grant)
            runtime.engine.log_space.serve()
        runtime.workers.resume()
