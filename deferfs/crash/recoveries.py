"""The effect of recovery on a crash state: its requests, from the real code, without opening the volume."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from deferfs.crash.pages import PageDevice, Patch, put
from deferfs.device import FlushRecord, Record, WriteRecord
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import Superblock
from deferfs.store.io import Flush, Read, Write, perform, run_job
from deferfs.store.memory import Memory
from deferfs.store.pump import Pump
from deferfs.store.recovery import read_superblock
from deferfs.store.store import open_store

CLOCK_START: Final = 1 << 61
"""Clock after recovery: later than all times in the history."""
MEMORY_BYTES: Final = 64 << 20
"""Budget of the filesystem that is recovered."""


def clock_after_crash() -> Callable[[], int]:
    """A clock with times in ns that no state of the history has."""
    return itertools.count(CLOCK_START).__next__


@dataclass(frozen=True, slots=True)
class Recovery:
    """The requests of one recovery, in order: writes and flushes, the last write being the superblock's.

    `images` are the pages it writes home, identified by `key`. An image that was closed cleanly has no requests.
    """

    records: tuple[Record, ...]
    images: Patch
    key: int

    @property
    def clean(self) -> bool:
        """Whether nothing had to be recovered."""
        return not self.records


def run_recovery(device: PageDevice) -> Recovery:
    """Recover the image on `device`, but stop before the volume is loaded; writes stay in the device.

    ImageError or CorruptionError when the image cannot be recovered.
    """
    superblock = run_job(device, read_superblock(device.size))
    if superblock.clean:
        return Recovery((), {}, 0)
    records = _requests(device, superblock, whole=False)
    images: Patch = {}
    for record in records:
        if isinstance(record, WriteRecord) and record.offset not in SUPERBLOCK_OFFSETS:
            put(images, device.page, device.page_bytes, record.offset, record.data)
    return Recovery(tuple(records), images, hash(frozenset(images.items())))


def mount_records(device: PageDevice) -> list[Record]:
    """All that a mount of the image on `device` writes: its recovery, and the superblock after it."""
    return _requests(device, run_job(device, read_superblock(device.size)), whole=True)


def _requests(device: PageDevice, superblock: Superblock, *, whole: bool) -> list[Record]:
    """Drive the job that opens the store; unless `whole`, only up to the first read after the superblock was written,
    when log recovery is complete.
    """
    job = open_store(superblock, Memory(MEMORY_BYTES), clock=clock_after_crash(), entropy=lambda: 7)
    records: list[Record] = []
    running = Pump(job)
    while (request := running.resume()) is not None:
        if isinstance(request, Read) and not whole and _log_is_done(records):
            running.close()
            break
        running.answer(perform(device, request))
        if isinstance(request, Write):
            records.append(WriteRecord(request.offset, b"".join(request.buffers)))
        elif isinstance(request, Flush):
            records.append(FlushRecord())
    return records


def _log_is_done(records: list[Record]) -> bool:
    """Whether recovery has written its superblock, which only a flush follows."""
    return any(isinstance(record, WriteRecord) and record.offset in SUPERBLOCK_OFFSETS for record in records)
