"""How the requests of jobs reach the device."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from deferfs.device import FileDevice, MemoryDevice
from deferfs.errors import DeviceError
from deferfs.limits import TURN_NS, WAITED_TURNS
from deferfs.mount.runtime.jobs import FLUSHES, flush_device, run_job
from deferfs.store.io import Flush, Job, Write


def a_barrier() -> Job[None]:
    yield Flush()


@pytest.mark.parametrize("waited", [False, True])
@pytest.mark.parametrize(("percent", "requests_a_turn"), [(90, 1), (40, 2), (20, 5), (300, 1)])
async def test_a_job_yields_before_a_request_that_would_make_its_turn_too_long(
    percent: int, requests_a_turn: int, waited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests of nine tenths of a turn each are not one turn."""
    now = 0
    done = 0
    seen: list[int] = []

    def requests() -> Job[None]:
        nonlocal now, done
        for _ in range(10):
            now += TURN_NS * (WAITED_TURNS if waited else 1) * percent // 100
            done += 1
            yield Write(0, [b"x"])

    class Steps(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            if task is ours:
                seen.append(done)

    ours, steps = trio.lowlevel.current_task(), Steps()
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now)
    trio.lowlevel.add_instrument(steps)
    await run_job(MemoryDevice(4096), requests(), lambda: waited)
    trio.lowlevel.remove_instrument(steps)
    assert seen == list(range(requests_a_turn, 11, requests_a_turn))


async def test_a_flush_beside_one_that_fails_fails_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux tells only one of them: the other one would succeed, and what it stands for would be lost."""
    path = tmp_path / "image"
    path.write_bytes(bytes(4096))
    device = FileDevice.open(str(path), writable=True)
    go_on, calls = threading.Event(), threading.Semaphore(0)

    def told_once(fd: int) -> None:
        calls.release()
        go_on.wait()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", told_once)
    failures: list[DeviceError] = []

    async def must_fail(flush: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(DeviceError) as caught:
            await flush()
        failures.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(must_fail, lambda: flush_device(device))
        nursery.start_soon(must_fail, lambda: run_job(device, a_barrier()))
        await trio.testing.wait_all_tasks_blocked()
        waiting = FLUSHES.statistics().tasks_waiting
        go_on.set()
    assert waiting == 1, "they do not take turns"
    assert calls.acquire(blocking=False)
    assert not calls.acquire(blocking=False), "the second one was asked for although the first had failed"
    assert [str(failure).count("earlier flush") for failure in failures] == [0, 1]
    device.close()
