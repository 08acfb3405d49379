"""Backpressure on those who add to the backlog: against a backlog that is made up, and once with the real one."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import trio
import trio.testing

from deferfs.errors import FsError
from deferfs.limits import GC_BATCH
from deferfs.mount.runtime.instruments import Instruments
from deferfs.mount.runtime.runtime import Runtime
from deferfs.mount.runtime.throttle import Throttle
from deferfs.store.transaction import Grant
from tests.unit.runtimes import delete_and_forget, make_file, running, turns


class Backlog:
    """Inodes that wait since 0, by a clock that stands still, and the pool that would take them."""

    def __init__(self, queued: int = 0, extents: int = 0, size: int = 0) -> None:
        self.queued = queued
        self.extents = extents
        self.bytes = size
        self.stopped = False
        self.pushes = 0

    def oldest_ns(self) -> int:
        return 1 if self.queued else 0

    def clock(self) -> int:
        return 5_000_000_001

    def push(self) -> None:
        self.pushes += 1


def throttle_of(backlog: Backlog, being_killed: Callable[[int], bool] = lambda _pid: False) -> Throttle:
    """One that is full with more than five inodes."""
    throttle = Throttle(backlog, lambda: backlog.bytes, backlog, Instruments(strict=True), being_killed)
    throttle.inodes = 5
    throttle.deadline_seconds = 1e9
    return throttle


async def test_throttling_begins_at_each_limit() -> None:
    made_up = Backlog(10, extents=10, size=50_000)
    limits = throttle_of(made_up)
    limits.inodes, limits.age_seconds = 10, 5
    assert limits.reason() == ""
    limits.age_seconds = 4.9
    assert limits.reason() == "age"
    limits.extents = 9
    assert limits.reason() == "extents"
    limits.bytes = 49_999
    assert limits.reason() == "bytes"
    limits.inodes = 9
    assert limits.reason() == "inodes"
    made_up.queued = 0
    assert limits.reason() == ""


async def test_waiters_go_in_order_of_arrival_as_the_backlog_shrinks() -> None:
    made_up = Backlog(7)
    throttle = throttle_of(made_up)
    order: list[int] = []

    async def caller(number: int) -> None:
        await throttle.admit(1)
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(caller, number)
            await trio.testing.wait_all_tasks_blocked()
        assert throttle.waiting == made_up.pushes == 4
        for went in range(4):
            throttle.progress()
            await trio.testing.wait_all_tasks_blocked()
            assert order == list(range(went))
            made_up.queued = 4  # there is room for one
            throttle.progress()
            made_up.queued = 6
            await trio.testing.wait_all_tasks_blocked()
    assert order == [0, 1, 2, 3]
    assert throttle.expired_total == throttle.waiting == 0


async def test_a_wait_is_timed_by_its_cause() -> None:
    instruments = Instruments(strict=True)
    made_up = Backlog(7)
    throttle = Throttle(made_up, lambda: 0, made_up, instruments, lambda _pid: False)
    throttle.inodes = 5
    async with trio.open_nursery() as nursery:
        nursery.start_soon(throttle.admit, 1)
        await trio.testing.wait_all_tasks_blocked()
        throttle.release()
    assert instruments.waits.by_name["throttle"].count == 1


async def backlog(runtime: Runtime) -> Grant:
    """More inodes in the queues than workers take at a time, and none can be cleaned up until the grant is given up."""
    runtime.throttle.inodes = 5
    runtime.throttle.deadline_seconds = 1e9
    await runtime.workers.stop()
    for number in range(4 * GC_BATCH):
        name = b"old%d" % number
        await delete_and_forget(runtime, name, await make_file(runtime, name))
    assert runtime.throttle.reason() == "inodes"
    grant = runtime.store.journal.ask(runtime.store.journal.transaction_blocks_max)
    runtime.grants.serve()
    runtime.workers.resume()
    return grant


async def test_callers_go_when_inodegc_has_caught_up() -> None:
    """The real one."""
    async with running() as runtime:
        grant = await backlog(runtime)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(runtime.throttle.admit, 1)
            await turns()
            assert runtime.throttle.waiting == 20
            runtime.store.journal.give_up(grant)
            runtime.grants.serve()
        assert runtime.throttle.waiting == runtime.throttle.expired_total == 0


async def test_newcomers_do_not_overtake_waiters() -> None:
    made_up = Backlog(6)
    throttle = throttle_of(made_up)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(throttle.admit, 1)
        await trio.testing.wait_all_tasks_blocked()
        made_up.queued = 1
        nursery.start_soon(throttle.admit, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert throttle.waiting == 2
        throttle.progress()
    assert throttle.waiting == 0


async def test_waiters_go_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    throttle = throttle_of(Backlog(6))
    throttle.deadline_seconds = 7
    await throttle.admit(1)
    assert trio.current_time() == pytest.approx(7)
    assert throttle.expired_total == 1
    assert throttle.waiting == 0


async def test_a_caller_that_is_being_killed_leaves_at_once(autojump_clock: trio.testing.MockClock) -> None:
    throttle = throttle_of(Backlog(6), lambda pid: pid == 77)
    with pytest.raises(FsError) as caught:
        await throttle.admit(77)
    assert caught.value.errno == errno.EINTR
    assert trio.current_time() < 1
    assert (throttle.killed_total, throttle.waiting) == (1, 0)


async def test_callers_are_not_throttled_while_workers_are_stopped() -> None:
    made_up = Backlog(6)
    made_up.stopped = True
    await throttle_of(made_up).admit(1)
    assert not made_up.pushes


async def test_waiters_go_when_workers_are_stopped() -> None:
    """The stop itself waits until the step that runs has its log space."""
    async with running() as runtime:
        grant = await backlog(runtime)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(runtime.throttle.admit, 1)
            await turns()
            assert runtime.throttle.waiting == 3
            nursery.start_soon(runtime.workers.stop)
            await turns()
            assert runtime.throttle.waiting == runtime.throttle.expired_total == 0
            runtime.store.journal.give_up(grant)
            runtime.grants.serve()
        runtime.workers.resume()
