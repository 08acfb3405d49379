"""Pass 1: the two superblocks, and the fixed areas they describe."""

from __future__ import annotations

from typing import Final

from deferfs.check import catalogue
from deferfs.check.context import Context
from deferfs.check.report import Findings
from deferfs.check.spares import from_spare
from deferfs.device.base import Device
from deferfs.errors import DeviceError, ImageError
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import (
    COUNTER_SANE_MAX,
    FEATURES_READ_ONLY,
    MAGIC,
    STATE_CLEAN,
    STATE_ERRORS,
    Superblock,
    UnsupportedFormatError,
)

KEPT: Final = (
    "uuid", "block_size", "hash_key", "created_ns", "journal_start", "journal_blocks", "inode_root",
)  # fmt: skip
"""Fields that no write of a superblock changes."""


def read_superblock(device: Device, findings: Findings, spare: int | None = None) -> Superblock:
    """The superblock that counts: the newer of both copies, a spare when both are lost, the spare at byte `spare` when
    that is given. ImageError when there is none, when only a newer program can understand it, or when the image is
    shorter than it says.
    """
    found: list[Superblock] = []
    refused: list[tuple[bytes, ImageError]] = []
    for offset in SUPERBLOCK_OFFSETS:
        data = _read_copy(device, offset)
        try:
            found.append(Superblock.decode(data))
        except ImageError as error:
            refused.append((data, error))
    taken = spare is not None or not found
    if taken:
        best = _from_spare(device, findings, spare, found, refused)
    else:
        best = max(found, key=lambda superblock: superblock.sequence)
    _refuse_unknown(device, best, refused)
    if device.size < best.blocks * best.block_size:
        wanted = best.blocks * best.block_size
        hint = f"bring it to its length (truncate -s {wanted}), then fsck can tell what is left"
        raise ImageError(f"{device.name}: truncated: {device.size} bytes of {wanted}; {hint}")
    if taken:
        return best
    _compare_copies(best, found, refused, findings)
    if best.state & STATE_ERRORS:
        findings.add(catalogue.SUPERBLOCK_ERRORS, "superblock: an error was recorded while it was mounted")
    if max(best.sequence, best.tail_tid) > COUNTER_SANE_MAX:
        text = f"superblock: sequence {best.sequence}, transaction {best.tail_tid}"
        findings.add(catalogue.SUPERBLOCK_COUNTER, text)
    return best.beside_a_lost_copy() if refused else best


def _from_spare(
    device: Device,
    findings: Findings,
    spare: int | None,
    found: list[Superblock],
    refused: list[tuple[bytes, ImageError]],
) -> Superblock:
    unsupported = [error for _, error in refused if isinstance(error, UnsupportedFormatError)]
    if unsupported:
        raise ImageError(f"{device.name}: {unsupported[0]}")
    reason = "" if spare is not None else str(_most_telling(refused))
    return from_spare(device, findings, spare, reason, max((copy.sequence for copy in found), default=0))


def _read_copy(device: Device, offset: int) -> bytes:
    try:
        return device.read(offset, SUPERBLOCK_BYTES)
    except DeviceError:
        return b""  # an image too short for it, or a bad sector: the other copy may be sound


def _most_telling(refused: list[tuple[bytes, ImageError]]) -> ImageError:
    for data, error in refused:
        if data[4 : 4 + len(MAGIC)] == MAGIC:
            return error
    return refused[0][1]


def _refuse_unknown(device: Device, best: Superblock, refused: list[tuple[bytes, ImageError]]) -> None:
    """Refuse an image of a newer program: a newer, whole copy must not be skipped in favour of an older one."""
    for _, error in refused:
        if isinstance(error, UnsupportedFormatError) and error.sequence >= best.sequence:
            raise ImageError(f"{device.name}: {error}")
    unknown = best.read_only_compatible & ~FEATURES_READ_ONLY
    if unknown:
        raise ImageError(f"{device.name}: unknown feature {unknown:#x}; only a newer deferfs can check it")


def _compare_copies(
    best: Superblock,
    found: list[Superblock],
    refused: list[tuple[bytes, ImageError]],
    findings: Findings,
) -> None:
    # A crash may tear a superblock write, but the write of the other copy was complete before a clean unmount.
    if refused and best.state & STATE_CLEAN:
        findings.add(catalogue.SUPERBLOCK_COPY, f"superblock: the other copy: {refused[0][1]}")
    for other in found:
        for name in KEPT:
            if getattr(other, name) != getattr(best, name):
                findings.add(catalogue.SUPERBLOCK_DISAGREE, f"superblock: the copies differ in {name}")


def claim_fixed_areas(context: Context) -> None:
    """Claim the reserved area, the bitmap regions and the journal, which must not overlap."""
    superblock = context.superblock
    areas = [("reserved area", 0, context.fmt.reserved_blocks)]
    areas += [
        (f"bitmap region {number}", start, length) for number, (start, length) in enumerate(superblock.bitmap_regions)
    ]
    areas.append(("journal", superblock.journal_start, superblock.journal_blocks))
    bits = context.claims.bits
    for name, start, length in areas:
        end = start + length
        if length == 0 or end > superblock.blocks or bits.find(1, start, end) >= 0:
            text = f"superblock: {name} at block {start}, {length} blocks"
            context.findings.add(catalogue.SUPERBLOCK_LAYOUT, text, block=start, length=length)
        context.claims.reserve(start, length, name)
