"""Cleaning up keeps to its pace while nobody waits for it. On a clock that jumps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from deferfs.mount.runtime import Runtime
from deferfs.volume import namespace
from tests.unit.runtimes import delete_and_forget, make_file
from tests.unit.volumes import FILE, ROOT, fresh_driver

RATE = 10
"""Transactions a second; a small file takes one, or two."""


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    driver = fresh_driver()
    made = Runtime(driver.device, driver.volume, gc_workers=2, commit_seconds=3600)
    async with trio.open_nursery() as nursery:
        await made.start(nursery)
        made.workers.pace.set_rate(RATE)
        yield made
        await made.close()
        nursery.cancel_scope.cancel()


async def delete(runtime: Runtime, count: int) -> None:
    """Files that nobody holds: their inodes are queued at once."""
    for number in range(count):
        name = b"%d" % number
        await runtime.run(namespace.create, runtime.volume, ROOT, name, FILE, 0, 0)
        await runtime.run(namespace.unlink, runtime.volume, ROOT, name)


def done(runtime: Runtime) -> int:
    return runtime.volume.inodes.inactivated_total


async def test_it_takes_its_time(runtime: Runtime, autojump_clock: trio.testing.MockClock) -> None:
    await delete(runtime, 200)
    start = trio.current_time()
    while done(runtime) < 100:
        assert done(runtime) <= RATE * (trio.current_time() - start) + RATE / 10 + 2
        await trio.sleep(0.1)
    assert trio.current_time() - start < 100 * 2 / RATE + 1


def barrier(runtime: Runtime) -> None:
    runtime.workers.push()


def a_caller_that_is_throttled(runtime: Runtime) -> None:
    runtime.throttle.inodes = 5
    runtime.throttle.deadline_seconds = 1e9
    trio.lowlevel.spawn_system_task(runtime.throttle.admit, 1)


def little_memory(runtime: Runtime) -> None:
    runtime.store.memory.set_limit(runtime.store.memory.used // 2)


@pytest.mark.parametrize("press", [barrier, a_caller_that_is_throttled, little_memory])
async def test_it_hurries_when_somebody_waits(
    press: Callable[[Runtime], None], runtime: Runtime, autojump_clock: trio.testing.MockClock
) -> None:
    await delete(runtime, 100)
    await trio.sleep(1)
    assert done(runtime) <= RATE + 3
    press(runtime)
    await trio.sleep(0.2)
    assert done(runtime) >= 50  # at its pace it would be at most 16


async def test_one_inode_is_waited_for_no_longer_than_it_takes(
    runtime: Runtime, autojump_clock: trio.testing.MockClock
) -> None:
    runtime.workers.pace.set_rate(1e-3)
    inos = []
    for number in range(20):
        name = b"file%d" % number
        inos.append(await make_file(runtime, name, b"x" * 5000))
        await delete_and_forget(runtime, name, inos[-1])
    await trio.sleep(1)
    assert done(runtime) < 20
    for ino in inos:
        start = trio.current_time()
        await runtime.workers.flush_inode(ino)
        assert trio.current_time() - start < 1
    assert done(runtime) == 20


async def test_when_all_is_caught_up_the_pace_holds_again(
    runtime: Runtime, autojump_clock: trio.testing.MockClock
) -> None:
    await delete(runtime, 50)
    await runtime.workers.flush()
    before = done(runtime)
    assert before == 50
    await delete(runtime, 50)
    await trio.sleep(1)
    assert 1 <= done(runtime) - before <= RATE + 3


async def test_a_stop_does_not_wait_for_it(runtime: Runtime, autojump_clock: trio.testing.MockClock) -> None:
    runtime.workers.pace.set_rate(1e-3)
    ino = await make_file(runtime, b"big", b"")
    for number in range(300):
        await runtime.write(ino, number * 8192, b"x" * 4096)
    await delete_and_forget(runtime, b"big", ino)
    await trio.sleep(1)
    start = trio.current_time()
    await runtime.workers.stop()
    assert trio.current_time() - start < 1
    assert done(runtime) == 0
    runtime.workers.resume()
    await runtime.workers.flush()
    assert done(runtime) == 1
