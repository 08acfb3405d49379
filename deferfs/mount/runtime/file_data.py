"""The contents of files: reading what a plan has found, and writing in pieces."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.mount.runtime.jobs import read_device
from deferfs.volume import attributes, files

if TYPE_CHECKING:
    from deferfs.device.base import Buffer
    from deferfs.mount.runtime.executor import Executor


class FileData:
    """Of the files of one volume."""

    def __init__(self, executor: Executor) -> None:
        self._device = executor.device
        self._volume = executor.volume
        self._instruments = executor.instruments
        self._run = executor.run

    async def read(self, ino: int, offset: int, length: int, *, quiet: bool = False) -> bytes:
        """File data. Read again when blocks changed hands while it was read from the device.

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
                    self._instruments.checker.might_wait("io")
                    with self._instruments.waits.measure("io"):
                        data = await read_device(self._device, offset, length)
            except OSError as error:
                raise FsError(errno.EIO, f"reading file data: {error}") from error
            parts.append(data)
        if waited and self._volume.store.space.epoch != found.epoch:
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        """Write everything, or, on a full disk, what there is space for; bytes written. ENOSPC when that is nothing."""
        done = 0
        rest: Buffer = data
        while True:
            try:
                done += await self._run(files.write, self._volume, ino, offset + done, rest)
            except FsError as error:
                fits = await self._write_what_fits(ino, offset + done, rest) if error.errno == errno.ENOSPC else 0
                done += fits
                if not done:
                    raise
                if not fits:
                    return done
            if done >= len(data):
                return done
            rest = memoryview(data)[done:]
            await trio.lowlevel.checkpoint()

    async def _write_what_fits(self, ino: int, offset: int, data: Buffer) -> int:
        for blocks in files.fresh_blocks_to_try(self._volume):
            try:
                return await self._run(files.write, self._volume, ino, offset, data, blocks)
            except FsError as error:
                if error.errno != errno.ENOSPC:
                    raise
        return 0
