"""Backpressure on those who add to the backlog."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from deferfs.errors import FsError
from deferfs.mount.runtime.runtime import Runtime
from tests.unit.runtimes import delete_and_forget, make_file, running, turns


async def backlog(runtime: Runtime, count: int, data: bytes = b"") -> None:
    """So many inodes in the queues, and no worker that takes them before `resume`."""
    await runtime.workers.stop()
    runtime.workers.push()
    await trio.testing.wait_all_tasks_blocked()
    for number in range(count):
        name = b"old%d" % number
        await delete_and_forget(runtime, name, await make_file(runtime, name, data))
    runtime.workers.stopped = False


async def test_each_limit_counts() -> None:
    async with running() as runtime:
        limits = runtime.throttle
        await backlog(runtime, 10, b"x" * 5000)
        assert limits.reason() == ""
        limits.age_seconds = 1e-9
        assert limits.reason() == "age"
        limits.extents = 9
        assert limits.reason() == "extents"
        limits.bytes = 49_999
        assert limits.reason() == "bytes"
        limits.inodes = 9
        assert limits.reason() == "inodes"
        runtime.workers.resume()
        await runtime.workers.flush()
        assert limits.reason() == ""


async def test_who_came_first_goes_first_as_the_backlog_shrinks() -> None:
    async with running() as runtime:
        runtime.throttle.inodes = 9
        await backlog(runtime, 10)
        order: list[int] = []

        async def caller(number: int) -> None:
            await runtime.throttle.admit(1)
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(caller, number)
                await trio.testing.wait_all_tasks_blocked()
            assert runtime.throttle.waiting == 4
            for went in range(4):
                assert order == list(range(went))
                runtime.throttle.inodes = 11  # there is room for one
                runtime.throttle.progress()
                runtime.throttle.inodes = 10
                await trio.testing.wait_all_tasks_blocked()
        assert order == [0, 1, 2, 3]
        assert runtime.throttle.expired_total == 0
        assert runtime.waits.by_name["throttle"].count == 4


async def test_they_go_when_inodegc_has_caught_up() -> None:
    async with running() as runtime:
        runtime.throttle.inodes = 5
        runtime.throttle.deadline_seconds = 1e9
        await backlog(runtime, 300)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(runtime.throttle.admit, 1)
            await trio.testing.wait_all_tasks_blocked()
            runtime.workers.resume()
        assert runtime.throttle.waiting == runtime.throttle.expired_total == 0


async def test_nobody_overtakes_those_who_wait() -> None:
    async with running() as runtime:
        runtime.throttle.inodes = 5
        await backlog(runtime, 10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.throttle.admit, 1)
            await trio.testing.wait_all_tasks_blocked()
            runtime.throttle.inodes = 50
            nursery.start_soon(runtime.throttle.admit, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert runtime.throttle.waiting == 2
            runtime.throttle.progress()
        assert runtime.throttle.waiting == 0


async def test_the_deadline_lets_everybody_go() -> None:
    async with running() as runtime:
        runtime.throttle.inodes = 5
        runtime.throttle.deadline_seconds = 0.01
        await backlog(runtime, 10)
        await runtime.throttle.admit(1)
        assert runtime.throttle.expired_total == 1
        assert runtime.throttle.waiting == 0


async def test_a_caller_that_is_being_killed_leaves_at_once() -> None:
    async with running(being_killed=lambda pid: pid == 77) as runtime:
        runtime.throttle.inodes = 5
        runtime.throttle.deadline_seconds = 1e9
        await backlog(runtime, 10)
        with pytest.raises(FsError) as caught:
            await runtime.throttle.admit(77)
        assert caught.value.errno == errno.EINTR
        assert (runtime.throttle.killed_total, runtime.throttle.waiting) == (1, 0)


async def test_nobody_waits_for_workers_that_rest() -> None:
    async with running() as runtime:
        runtime.throttle.inodes = 5
        runtime.throttle.deadline_seconds = 1e9
        await backlog(runtime, 10)
        runtime.workers.stopped = True
        await runtime.throttle.admit(1)
        await turns(3)


async def test_who_waits_for_workers_that_are_stopped_goes() -> None:
    async with running() as runtime:
        runtime.throttle.inodes = 5
        runtime.throttle.deadline_seconds = 1e9
        await backlog(runtime, 10)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(runtime.throttle.admit, 1)
            await trio.testing.wait_all_tasks_blocked()
            assert runtime.throttle.waiting == 3
            runtime.workers._resumed.set()  # they awake, and find themselves stopped
            await runtime.workers.stop()
        assert runtime.throttle.waiting == runtime.throttle.expired_total == 0
        runtime.workers.resume()
