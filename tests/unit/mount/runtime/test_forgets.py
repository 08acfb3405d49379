"""FORGET messages, small and large."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from typing import Any

import pytest
import trio

from deferfs.limits import FORGETS_AT_ONCE
from tests.unit.runtimes import make_file, running, turns, unlink

MODES = pytest.mark.parametrize("evict", ["deferred", "inline"])


def completes_at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Without one await."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.mark.parametrize("count", [10, FORGETS_AT_ONCE, 65_000])
async def test_deferred_never_awaits_however_large_the_message(count: int) -> None:
    async with running() as runtime:
        inos = [await make_file(runtime, b"f%d" % number) for number in range(20)]
        for number in range(0, 20, 2):
            await unlink(runtime, b"f%d" % number)
        inodes = runtime.volume.inodes
        message = [(ino, 1) for ino in inos][:count]
        for ino in range(100_000, 100_000 + count - len(message)):
            inodes.lookup(ino, 1)
            message.append((ino, 1))
        completes_at_once(runtime.forget(message))
        while runtime.forgets.waiting:
            await trio.lowlevel.checkpoint()
        told = dict(message)
        assert not any(inode.lookups for inode in inodes.table.values() if inode.ino in told)
        await runtime.workers.flush()
        assert inodes.inactivated_total == min(10, (count + 1) // 2)
        assert not inodes.anomalies


async def test_other_tasks_run_between_the_slices_of_a_large_message() -> None:
    async with running() as runtime:
        inodes = runtime.volume.inodes
        message = [(ino, 1) for ino in range(1000, 1000 + 20 * FORGETS_AT_ONCE)]
        for ino, _ in message:
            inodes.lookup(ino, 1)
        await runtime.forget(message)
        seen = []
        while runtime.forgets.waiting:
            seen.append(runtime.forgets.waiting)
            await trio.lowlevel.checkpoint()
        # a turn of every task may fall between two of ours, before or after it
        assert max(first - then for first, then in itertools.pairwise(seen)) <= 2 * FORGETS_AT_ONCE
        inodes.shrink(1 << 62, 1 << 62)


async def test_messages_after_a_large_one_are_counted_after_it() -> None:
    async with running() as runtime:
        inodes = runtime.volume.inodes
        for ino in range(1000, 1000 + 3 * FORGETS_AT_ONCE):
            inodes.lookup(ino, 1)
        await runtime.forget([(ino, 1) for ino in range(1000, 1000 + 3 * FORGETS_AT_ONCE)])
        inodes.lookup(1000, 1)
        await runtime.forget([(1000, 1)])
        await turns()
        assert not runtime.forgets.waiting
        assert inodes.table[1000].lookups == 0
        assert not inodes.anomalies
        inodes.shrink(1 << 62, 1 << 62)


async def test_inline_waits_until_all_is_clean() -> None:
    async with running(evict="inline") as runtime:
        inos = [await make_file(runtime, b"f%d" % number) for number in range(20)]
        for number in range(20):
            await unlink(runtime, b"f%d" % number)
        await runtime.forget([(ino, 1) for ino in inos])
        assert runtime.volume.inodes.inactivated_total == 20


@MODES
@pytest.mark.parametrize("told", [False, True])
async def test_messages_are_dropped_at_the_end_of_the_mount(evict: str, told: bool) -> None:
    async with running(evict=evict, close=False) as runtime:
        inos = [await make_file(runtime, b"f%d" % number) for number in range(20)]
        for number in range(20):
            await unlink(runtime, b"f%d" % number)
        message = [(ino, 1) for ino in inos]
        for ino in range(1000, 1000 + 2 * FORGETS_AT_ONCE):
            runtime.volume.inodes.lookup(ino, 1)
            message.append((ino, 1))
        if told:
            await runtime.forget(message)
        await runtime.close()
        assert runtime.store.orphans.count == 0
        assert not runtime.volume.inodes.anomalies
        assert not runtime.forgets.waiting
