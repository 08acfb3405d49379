"""Requests that take several operations: a write of any length, a truncate of any number of extents.

**Invariant:** other tasks may run between two operations of a request: only each part is atomic, as POSIX allows.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.device.base import Buffer
from deferfs.errors import FsError
from deferfs.store.plan import Plan
from deferfs.volume import files
from deferfs.volume.waits import Reschedule, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

WritePart = Callable[[Plan, int, Buffer, int], int]
"""An operation that writes some of the bytes at an offset; returns how many. The last argument is `fresh_max`
of `files.write`."""
OnePart = Callable[[Plan], bool]
"""An operation to be repeated until it returns True."""


def part_of(engine: Engine, ino: int) -> WritePart:
    """The operation that writes one part of a request to file `ino`."""
    volume = engine.volume

    def write(plan: Plan, offset: int, data: Buffer, fresh_max: int) -> int:
        return files.write(plan, volume, ino, offset, data, fresh_max)

    return write


def write_all(
    engine: Engine, part: WritePart, offset: int, data: Buffer, done: int = 0, *, whole: bool = False
) -> Task[int]:
    """Write all but the first `done` bytes or, on a full disk, as much as fits; returns the bytes written, including
    `done`. ENOSPC when nothing could be written; with `whole`, for a caller to which a short write cannot be reported,
    also when not everything could."""
    rest: Buffer = memoryview(data)[done:]
    while True:
        try:
            done += yield from _write_part(engine, part, offset + done, rest, -1)
        except FsError as error:
            fits = 0
            if error.errno == errno.ENOSPC:
                fits = yield from _write_what_fits(engine, part, offset + done, rest)
            done += fits
            if not done or (whole and not fits):
                raise
            if not fits:
                return done
        if done >= len(data):
            return done
        rest = memoryview(data)[done:]
        yield Reschedule()


def _write_what_fits(engine: Engine, part: WritePart, offset: int, data: Buffer) -> Task[int]:
    for blocks in files.fresh_blocks_to_try(engine.volume):
        try:
            return (yield from _write_part(engine, part, offset, data, blocks))
        except FsError as error:
            if error.errno != errno.ENOSPC:
                raise
    return 0


def _write_part(engine: Engine, part: WritePart, offset: int, data: Buffer, fresh_max: int) -> Task[int]:
    def write(plan: Plan) -> int:
        return part(plan, offset, data, fresh_max)

    return (yield from engine.operation(write))


def until_done(engine: Engine, part: OnePart) -> Task[None]:
    """Repeat an operation until it is done: a truncate that frees many extents."""
    while not (yield from engine.operation(part)):
        yield Reschedule()
