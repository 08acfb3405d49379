"""Background cleanup keeps its pace while no operation waits for it. On a clock that jumps."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from math import inf

import pytest
import trio
import trio.testing

from deferfs.limits import CLEANUP_DIRTY_FRACTION
from deferfs.mount.runtime.runtime import Runtime
from deferfs.reclaim.inode import InCoreInode
from deferfs.store.plan import Plan
from deferfs.volume import durability
from deferfs.volume.inactivation import Inactivation
from tests.unit.runtimes import delete_and_forget, delete_unheld, done, make_file, running, write_back

RATE = 10
"""Transactions a second; a small file takes one, or two."""


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    async with running(gc_workers=2, seconds_max=inf) as made:
        made.workers.pace.set_rate(RATE)
        yield made


async def test_workers_keep_to_the_pace(runtime: Runtime, autojump_clock: trio.testing.MockClock) -> None:
    await delete_unheld(runtime, 200)
    start = trio.current_time()
    while done(runtime) < 100:
        assert done(runtime) <= RATE * (trio.current_time() - start) + RATE / 10 + 2
        await trio.sleep(0.1)
    assert trio.current_time() - start < 100 * 2 / RATE + 1


def barrier(runtime: Runtime) -> None:
    runtime.workers.push()


def a_caller_that_is_throttled(runtime: Runtime) -> None:
    runtime.engine.throttle.inodes = 5
    runtime.engine.throttle.deadline_seconds = 1e9
    trio.lowlevel.spawn_system_task(runtime.throttle.admit, 1)


def little_memory(runtime: Runtime) -> None:
    memory = runtime.store.memory
    memory.add_account("ballast", lambda: memory.limit_bytes)


@pytest.mark.parametrize("press", [barrier, a_caller_that_is_throttled, little_memory])
async def test_workers_leave_the_pace_when_cleanup_is_waited_for(
    press: Callable[[Runtime], None], runtime: Runtime, autojump_clock: trio.testing.MockClock
) -> None:
    await delete_unheld(runtime, 100)
    await trio.sleep(1)
    assert done(runtime) <= RATE + 3
    press(runtime)
    await trio.sleep(0.2)
    assert done(runtime) >= 50  # at its pace it would be at most 16


async def test_the_flush_of_one_inode_does_not_wait_for_the_pace(
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


async def test_the_pace_holds_again_after_the_backlog_is_done(
    runtime: Runtime, autojump_clock: trio.testing.MockClock
) -> None:
    await delete_unheld(runtime, 50)
    await runtime.workers.flush()
    before = done(runtime)
    assert before == 50
    await delete_unheld(runtime, 50)
    await trio.sleep(1)
    assert 1 <= done(runtime) - before <= RATE + 3


async def test_a_stop_does_not_wait_for_the_pace(runtime: Runtime, autojump_clock: trio.testing.MockClock) -> None:
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


async def test_a_worker_keeps_to_its_share_of_dirty_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each step no more than an eighth of the budget is dirty, though operations may make more so."""
    dirty: dict[tuple[int, int], int] = {}
    applied: Counter[int] = Counter()
    step = Inactivation.step
    monkeypatch.setattr(durability, "DIRTY_WAIT_SECONDS_MAX", inf)
    async with running(gc_workers=1, size=64 << 20) as runtime:

        def noted(self: Inactivation, plan: Plan) -> bool:
            # not when it is tried again: it holds what it lacked
            dirty.setdefault((self.inode.ino, applied[self.inode.ino]), runtime.store.dirty_bytes)
            return step(self, plan)

        def count(inode: InCoreInode, plan: Plan, last: bool) -> None:
            applied[inode.ino] += 1

        runtime.engine.cleanup.on_applied = count

        inos = [await make_file(runtime, b"%d" % number, b"x" * 2000) for number in range(1500)]
        await write_back(runtime)
        runtime.store.memory.set_limit(2 << 20)
        monkeypatch.setattr(Inactivation, "step", noted)
        for number, ino in enumerate(inos):
            await delete_and_forget(runtime, b"%d" % number, ino)
        while runtime.volume.gc.backlog:
            await runtime.workers.progress()
    assert len(dirty) >= 1500
    assert max(dirty.values()) <= (2 << 20) // CLEANUP_DIRTY_FRACTION
