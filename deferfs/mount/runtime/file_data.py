"""File data: device reads of a plan, writes in pieces, fsync."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from deferfs.mount.runtime.jobs import read_device
from deferfs.store.needs import Need
from deferfs.volume import attributes, files, reading, writing
from deferfs.volume.waits import ReadData

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.mount.runtime.executor import Executor
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.volume.engine import Engine
    from deferfs.volume.files import ReadPlan


class FileData:
    """File data of one volume."""

    def __init__(self, engine: Engine, tasks: TaskDriver, instruments: Instruments, executor: Executor) -> None:
        self._engine = engine
        self._device = engine.device
        self._volume = engine.volume
        self._checker, self._waits = instruments.checker, instruments.waits
        self._drive = tasks.drive
        self._run = executor.run
        tasks.register({ReadData: self._read_data})

    def read(self, ino: int, offset: int, length: int, *, quiet: bool = False) -> Coroutine[Any, Any, bytes]:
        """File data. `quiet`: the access time stays as it is."""
        return self._content(files.read, (self._volume, ino, offset, length), quiet=quiet)

    def readlink(self, ino: int) -> Coroutine[Any, Any, bytes]:
        """The target of a symbolic link."""
        return self._content(files.readlink, (self._volume, ino), quiet=False)

    async def _content(self, find: Callable[..., ReadPlan], args: tuple[Any, ...], *, quiet: bool) -> bytes:
        """What `find` finds. Read again when blocks were freed and reused during a read from the device. A single
        coroutine beside that of the operation, because every READ uses it."""
        found = await self._run(find, *args)
        data = reading.at_once(self._device, found)
        if data is None:
            task = reading.content(self._engine, lambda plan: find(plan, *args), found)
            found, cold = await self._drive(task)
            data = cold
        if not quiet:
            attributes.accessed(self._volume, found.record)
        return data

    async def _read_data(self, wait: ReadData) -> bytes:
        data = self._device.read_nowait(wait.offset, wait.length)
        if data is None:
            self._checker.might_wait("io")
            with self._waits.measure("io"):
                data = await read_device(self._device, wait.offset, wait.length)
        return data

    async def write(self, ino: int, offset: int, data: bytes, *, whole: bool = False) -> int:
        """Write everything, or, on a full disk, what there is space for; bytes written. ENOSPC when that is nothing;
        with `whole`, also when it is not all."""
        engine = self._engine
        if engine.write_out.too_much:
            await self._drive(engine.write_out.let_in())
        self._checker.might_need("memory")
        done = 0
        result = engine.attempt(files.write, (self._volume, ino, offset, data), {}, reserve=False)
        if not isinstance(result, Need):
            done = result
            if done == len(data):
                if self._volume.due:
                    await self._drive(engine.eviction.wait_for(engine.place_due()))
                return done
        return await self._drive(
            writing.write_all(engine, writing.part_of(engine, ino), offset, data, done, whole=whole)
        )

    async def sync(self) -> None:
        """Make everything applied so far durable, timed as a wait."""
        with self._waits.measure("commit"):
            await self._drive(self._engine.durability.sync())

    async def fsync(self, ino: int, *, data_only: bool = False) -> None:
        """Make the file durable: by the commit that holds its changes, or else by a flush."""
        with self._waits.measure("commit"):
            await self._drive(self._engine.durability.fsync(ino, data_only=data_only))
