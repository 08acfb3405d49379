"""File data: device reads of a plan, writes in pieces, fsync."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.mount.runtime.jobs import read_device
from deferfs.store.needs import Need
from deferfs.volume import attributes, files, writing

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.mount.runtime.executor import Executor
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.volume.engine import Engine


class FileData:
    """File data of one volume."""

    def __init__(self, engine: Engine, tasks: TaskDriver, instruments: Instruments, executor: Executor) -> None:
        self._engine = engine
        self._device = engine.device
        self._volume = engine.volume
        self._checker, self._waits = instruments.checker, instruments.waits
        self._drive = tasks.drive
        self._run = executor.run

    async def read(self, ino: int, offset: int, length: int, *, quiet: bool = False) -> bytes:
        """File data. Read again when blocks were freed and reused during a read from the device.

        `quiet`: the access time stays as it is.
        """
        while True:
            found = await self._run(files.read, self._volume, ino, offset, length)
            data = await self.bytes_of(found)
            if data is not None:
                if not quiet:
                    attributes.accessed(self._volume, found.record)
                return data

    async def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""
        while True:
            found = await self._run(files.readlink, self._volume, ino)
            data = await self.bytes_of(found)
            if data is not None:
                attributes.accessed(self._volume, found.record)
                return data

    async def bytes_of(self, found: files.ReadPlan) -> bytes | None:
        """The bytes a read plan describes; None when it went stale during a cold read."""
        if found.inline is not None:
            return found.inline
        parts: list[bytes] = []
        waited = False
        for offset, length in found.pieces:
            if offset is None:
                parts.append(bytes(length))
                continue
            try:
                data = self._device.read_nowait(offset, length)
                if data is None:
                    waited = True
                    self._checker.might_wait("io")
                    with self._waits.measure("io"):
                        data = await read_device(self._device, offset, length)
            except OSError as error:
                raise FsError(errno.EIO, f"reading file data: {error}") from error
            parts.append(data)
        if waited and self._volume.store.space.epoch != found.epoch:
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        """Write everything, or, on a full disk, what there is space for; bytes written. ENOSPC when that is nothing."""
        engine = self._engine
        if engine.write_out.too_much:
            await self._drive(engine.write_out.let_in())
        self._checker.might_need("memory")
        done = 0
        try:
            result = engine.attempt(files.write, (self._volume, ino, offset, data), {}, reserve=False)
        except FsError as error:
            if error.errno != errno.ENOSPC:
                raise
        else:
            if not isinstance(result, Need):
                done = result
                if done == len(data):
                    if self._volume.due:
                        await self._drive(engine.eviction.wait_for(engine.place_due()))
                    return done
        return await self._drive(writing.write_all(engine, writing.part_of(engine, ino), offset, data, done))

    async def sync(self) -> None:
        """Make everything applied so far durable, timed as a wait."""
        with self._waits.measure("commit"):
            await self._drive(self._engine.durability.sync())

    async def fsync(self, ino: int, *, data_only: bool = False) -> None:
        """Make the file durable: by the commit that holds its changes, or else by a flush."""
        with self._waits.measure("commit"):
            await self._drive(self._engine.durability.fsync(ino, data_only=data_only))
