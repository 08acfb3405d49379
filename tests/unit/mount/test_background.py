"""The background tasks when the device fails: nobody hangs, nothing spins, and nothing pretends to have worked."""

from __future__ import annotations

import errno
import itertools

import pytest
import trio

from deferfs.device import FailingDevice, Fault, MemoryDevice
from deferfs.device.fail import Request
from deferfs.errors import FsError
from deferfs.mount.runtime import Runtime
from deferfs.store.io import run_job
from deferfs.store.memory import Memory
from deferfs.store.recovery import read_superblock
from deferfs.store.store import open_store
from deferfs.volume import namespace
from deferfs.volume.volume import Volume
from tests.unit.volumes import FILE, ROOT, fresh_device

KINDS = {"flush": Request.FLUSH, "write": Request.WRITE}


def runtime_on(device: MemoryDevice, fault: Fault) -> Runtime:
    superblock = run_job(device, read_superblock(device.size))
    store = run_job(
        device, open_store(superblock, Memory(8 << 20), clock=itertools.count(1000).__next__, entropy=lambda: 5)
    )
    return Runtime(FailingDevice(device, fault), Volume(store), commit_seconds=3600)


@pytest.mark.parametrize("kind", ["flush", "write"])
@pytest.mark.parametrize("skip", [0, 1, 2, 5, 9, 14, 20])
async def test_after_an_io_error_every_waiter_is_answered_and_the_end_comes(kind: str, skip: int) -> None:
    device = fresh_device()
    runtime = runtime_on(device, Fault(frozenset({KINDS[kind]}), skip=skip, sticky=True))
    errors: list[int] = []
    acknowledged = 0
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await runtime.start(nursery)
            for number in range(1500):
                try:
                    await runtime.run(namespace.create, runtime.volume, ROOT, b"f%d" % number, FILE, 0, 0)
                    if number % 50 == 0:
                        await runtime.sync()
                        acknowledged = number + 1
                except FsError as error:
                    errors.append(error.errno)
            await runtime.close()
            nursery.cancel_scope.cancel()
    assert errors
    assert set(errors) <= {errno.EIO, errno.EROFS}
    assert runtime.store.journal.aborted is not None
    again = runtime_on(device, Fault(frozenset()))
    names = await again.run(lambda plan: {e.name for e in namespace.readdir(plan, again.volume, ROOT, 2)})
    assert {b"f%d" % number for number in range(acknowledged)} <= names


async def test_a_failed_flush_is_never_retried_into_success() -> None:
    runtime = runtime_on(fresh_device(), Fault(frozenset({Request.FLUSH})))
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        for _ in range(3):
            with pytest.raises(FsError) as caught:
                await runtime.sync()
            assert caught.value.errno == errno.EIO
        nursery.cancel_scope.cancel()
