"""The bytes of files, read where the plan of a read has found them.

**Invariants**
- Data read while freed blocks were released for reuse is never returned, as it may be another file's: the blocks are
  looked up and read again.
- What has to be waited for is read with nothing held.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.store.plan import Plan
from deferfs.volume.files import ReadPlan
from deferfs.volume.waits import ReadData, Task

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.volume.engine import Engine

Find = Callable[[Plan], ReadPlan]
"""An operation that finds where the bytes are."""


def at_once(device: Device, found: ReadPlan) -> bytes | None:
    """The bytes, as far as none of them has to be waited for; else None. FsError(EIO)."""
    if found.inline is not None:
        return found.inline
    parts: list[bytes] = []
    for offset, length in found.pieces:
        if offset is None:
            parts.append(bytes(length))
            continue
        try:
            data = device.read_nowait(offset, length)
        except OSError as error:
            raise _failed(error) from error
        if data is None:
            return None
        parts.append(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def content(engine: Engine, find: Find, found: ReadPlan | None = None) -> Task[tuple[ReadPlan, bytes]]:
    """The bytes, however long they have to be waited for, and where they were found. `found`: an operation has found
    them there just now. FsError(EIO)."""
    while True:
        if found is None:
            found = yield from engine.operation(find)
        data = yield from _wait_for(found)
        if not _is_stale(engine, found):
            return found, data
        found = None


def _is_stale(engine: Engine, found: ReadPlan) -> bool:
    """Whether a block of it may have become another file's meanwhile."""
    return found.inline is None and engine.store.space.epoch != found.epoch


def _wait_for(found: ReadPlan) -> Task[bytes]:
    if found.inline is not None:
        return found.inline
    parts: list[bytes] = []
    for offset, length in found.pieces:
        if offset is None:
            parts.append(bytes(length))
            continue
        try:
            parts.append((yield ReadData(offset, length)))
        except OSError as error:
            raise _failed(error) from error
    return b"".join(parts)


def _failed(error: OSError) -> FsError:
    return FsError(errno.EIO, f"reading file data: {error}")
