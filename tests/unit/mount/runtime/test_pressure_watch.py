"""What the runtime does when the kernel tells of pressure."""

from __future__ import annotations

import os

import trio
import trio.lowlevel
import trio.testing

from deferfs.mount.host.pressure import Source
from deferfs.mount.runtime.pressure_watch import PressureWatch
from tests.unit.runtimes import make_file, running, unlink, write_back


async def test_each_event_gives_back_a_part_of_the_caches() -> None:
    reading, writing = os.pipe()
    async with running() as runtime:
        for number in range(400):
            await make_file(runtime, b"f%d" % number, b"x" * 2000)
        await runtime.forget([(ino, 1) for ino in list(runtime.volume.inodes.table)])
        await runtime.sync()
        await write_back(runtime)
        source = Source("test", reading, lambda: os.read(reading, 1), [lambda: os.close(reading)])
        watch = PressureWatch([source], runtime.engine.reclaim.under_pressure)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            for _ in range(3):
                before = runtime.store.memory.used
                os.write(writing, b"!")
                while runtime.store.memory.used > before * 15 // 16:
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert watch.events == {"test": 3}
        await unlink(runtime, b"f0")
    os.close(writing)
