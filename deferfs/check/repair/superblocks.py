"""The superblock to work with. When the copies differ in what never changes, the image itself shows which is right."""

from __future__ import annotations

from dataclasses import replace

import google_crc32c

from deferfs.check.plausibility import plausibility
from deferfs.check.repair.bits import correct_sealed
from deferfs.check.repair.context import RepairLog
from deferfs.check.superblocks import KEPT
from deferfs.device.base import Device
from deferfs.errors import DeviceError, ImageError
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import Superblock


def read_copies(device: Device) -> list[Superblock]:
    """The valid copies, the newest first."""
    found: list[Superblock] = []
    for offset in SUPERBLOCK_OFFSETS:
        try:
            found.append(Superblock.decode(device.read(offset, SUPERBLOCK_BYTES)))
        except (DeviceError, ImageError):
            continue
    return sorted(found, key=lambda superblock: -superblock.sequence)


def correct_copies(device: Device, repair_log: RepairLog) -> None:
    """Write back the copies of which a single bit is wrong, as they were. DeviceError."""
    for offset in SUPERBLOCK_OFFSETS:
        try:
            data = device.read(offset, SUPERBLOCK_BYTES)
        except DeviceError:
            continue
        right = correct_sealed(data, google_crc32c.value(data[4:]))
        try:
            if right is None or SUPERBLOCK_OFFSETS[Superblock.decode(right).sequence % 2] != offset:
                continue
        except ImageError:
            continue
        device.write(offset, right)
        repair_log.note(f"superblock at byte {offset}: one bit was wrong, and is corrected", loses=False)


def more_plausible(device: Device, best: Superblock) -> Superblock:
    """`best`, or with the constants of the other copy when those fit the image better."""
    copies = [copy for copy in read_copies(device) if copy.blocks * copy.block_size <= device.size]
    other = max(copies, key=lambda copy: plausibility(device, copy), default=best)
    if plausibility(device, other) <= plausibility(device, best):
        return best
    constants = {name: getattr(other, name) for name in (*KEPT, "bitmap_regions", "blocks", "spares")}
    tail = best.journal_tail if best.journal_tail < other.journal_blocks else 0
    return replace(best, journal_tail=tail, **constants)
