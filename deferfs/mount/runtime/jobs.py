"""Jobs under trio: perform the IO requests of a generator without blocking the event loop.

Writes go to the page cache and are done in place (a thread hand-off costs thirty times as much); reads that miss it,
and barriers, go to a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import trio

from deferfs.device.base import Device
from deferfs.limits import TURN_NS, WAITED_TURNS
from deferfs.store.io import Flush, Job, Read, Request, perform
from deferfs.store.pump import Pump

T = TypeVar("T")
FLUSHES = trio.CapacityLimiter(1)
"""Linux reports a failed writeback to only one of two concurrent flushes; the other one succeeds and proves nothing. So
they are serialised, and after a failed flush of a device those that wait for their turn fail (`device/file.py`)."""


async def read_device(device: Device, offset: int, length: int) -> bytes:
    """Bytes of the device, in place when they are cached."""
    data = device.read_nowait(offset, length)
    if data is None:
        data = await trio.to_thread.run_sync(device.read, offset, length)
    return data


async def flush_device(device: Device) -> None:
    """A barrier on the device, serialised with others. DeviceError."""
    await trio.to_thread.run_sync(device.flush, limiter=FLUSHES)


async def _perform(device: Device, request: Request) -> bytes | None:
    if isinstance(request, Flush):
        await flush_device(device)
        return None
    if isinstance(request, Read):
        return await read_device(device, request.offset, request.length)
    return perform(device, request)


def _waited() -> bool:
    return True


async def run_job(device: Device, job: Job[T], waited: Callable[[], bool] = _waited) -> T:
    """Run a job to its end. It yields to other tasks between two requests when the next one would last beyond TURN_NS,
    were it as long as the last one, or beyond WAITED_TURNS times that while the job is `waited` for."""
    running = Pump(job)
    turn = last = time.perf_counter_ns()
    while (request := running.resume()) is not None:
        try:
            running.answer(await _perform(device, request))
        except OSError as error:
            running.fail(error)
        now = time.perf_counter_ns()
        if now - turn + now - last > (TURN_NS * WAITED_TURNS if waited() else TURN_NS):
            await trio.lowlevel.checkpoint()
            now = turn = time.perf_counter_ns()
        last = now
    return running.result
