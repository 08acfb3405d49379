"""The task that writes file data out, and requests that wait for it."""

from __future__ import annotations

from threading import Event

import pytest
import trio
import trio.testing

from deferfs.device import FailingDevice, Fault, Request
from deferfs.device.wrap import WrappingDevice
from deferfs.errors import FsError
from deferfs.limits import MIB
from tests.unit.runtimes import SECONDS_MAX, make_file, running
from tests.unit.volumes import fresh_device, open_driver

SIZE = 64 * MIB
PIECE = bytes(1 * MIB)


class HeldUp(WrappingDevice):
    """A flush takes until `go_on`."""

    go_on: Event

    def flush(self) -> None:
        assert self.go_on.wait(SECONDS_MAX)


async def test_data_is_written_out_while_a_file_grows() -> None:
    async with running(size=SIZE) as runtime:
        ino = await make_file(runtime, b"file")
        write_out = runtime.engine.write_out
        for number in range(30):
            await runtime.write(ino, number * MIB, PIECE)
            assert write_out.unflushed_bytes <= write_out.bytes_max + MIB
        while write_out.due:
            await trio.lowlevel.checkpoint()
        assert write_out.flushes_total
        assert write_out.unflushed_bytes <= write_out.bytes_max // 4


async def test_a_request_that_writes_waits_for_the_barrier_and_others_do_not() -> None:
    device = HeldUp(fresh_device(SIZE))
    device.go_on = Event()
    device.go_on.set()
    async with running(driver=open_driver(device)) as runtime:
        device.go_on.clear()
        ino = await make_file(runtime, b"file")
        write_out = runtime.engine.write_out
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(runtime.write, ino, number * MIB, PIECE)
            await trio.testing.wait_all_tasks_blocked()
            assert write_out.bytes_max < write_out.unflushed_bytes <= write_out.bytes_max + MIB
            assert await runtime.read(ino, 0, 10) == bytes(10)
            await make_file(runtime, b"other")
            assert runtime.waits.snapshot()["io"].count == 0, "counted when they end"
            device.go_on.set()
        assert runtime.waits.snapshot()["io"].count >= 13
        assert await runtime.read(ino, 29 * MIB, 10) == bytes(10)


async def test_after_a_failure_nothing_waits(caplog: pytest.LogCaptureFixture) -> None:
    device = FailingDevice(fresh_device(SIZE), like_file=True)
    async with running(driver=open_driver(device), close=False) as runtime:
        ino = await make_file(runtime, b"file")
        device.add(Fault(frozenset({Request.FLUSH})))
        for number in range(30):
            try:
                await runtime.write(ino, number * MIB, PIECE)
            except FsError:
                break
            await trio.testing.wait_all_tasks_blocked()
        assert runtime.store.journal.aborted is not None
        assert "read-only from now on" in caplog.text
