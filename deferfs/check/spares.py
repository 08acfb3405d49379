"""Spare superblocks: finding one when no superblock is left, and checking all that the superblock names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

from deferfs.check import catalogue
from deferfs.check.claims import Claims
from deferfs.check.context import Context
from deferfs.check.log import find_log
from deferfs.check.plausibility import plausibility
from deferfs.check.report import Findings
from deferfs.device.base import Device
from deferfs.errors import CorruptionError, DeviceError, ImageError
from deferfs.ondisk.signatures import SIGNATURE_BYTES, foreign_content
from deferfs.ondisk.spare import HEAD_BYTES, STEP_BYTES, open_spare, places_on, spare_head
from deferfs.ondisk.superblock import STATE_REPAIRING, Superblock

_OWNER: Final = "spare superblock"
"""The owner of their blocks, in messages."""
_COMPARED: Final = tuple(part.name for part in fields(Superblock) if part.name != "compatible")
"""The fields in which a spare must agree with the superblock: all but the features that a program may ignore."""


@dataclass(frozen=True, slots=True)
class Spare:
    """A whole spare superblock, and the byte offset where it lies."""

    offset: int
    superblock: Superblock


def find_spares(device: Device) -> list[Spare]:
    """All whole spares at the usual places and those that they name, ascending; if there is none, those at any multiple
    of 64 KiB.
    """
    places = places_on(device.size)
    found = list(_spares_at(device, places))
    if not found:
        return list(_spares_at(device, range(STEP_BYTES, device.size - HEAD_BYTES + 1, STEP_BYTES)))
    named = {address * spare.superblock.block_size for spare in found for address in spare.superblock.spares}
    found += _spares_at(device, named.difference(places))
    return sorted(found, key=lambda spare: spare.offset)


def _spares_at(device: Device, offsets: Iterable[int]) -> Iterator[Spare]:
    for offset in offsets:
        spare = spare_at(device, offset)
        if spare is not None:
            yield spare


def spare_at(device: Device, offset: int) -> Spare | None:
    """The spare at this byte, or None when there is no whole one."""
    try:
        size = spare_head(device.read(offset, HEAD_BYTES)).block_size
        data = device.read(offset, size)
        superblock = spare_head(data)
        return None if offset % size else Spare(offset, open_spare(superblock.format, offset // size, data))
    except (CorruptionError, DeviceError, ImageError):
        return None


def from_spare(device: Device, findings: Findings, offset: int | None, reason: str, sequence: int) -> Superblock:
    """The superblock from a spare: the one at byte `offset` when that is given, else the best one, as no copy can be
    used (`reason`).

    Its state is "repairing", so that only a repair may write, and its sequence continues from `sequence`. Where the
    log begins is found in the log itself. Of several spares, the one that fits the image best is taken, then the latest
    filesystem's. ImageError when there is none; without `offset` also when another filesystem lies at the beginning of
    the device.
    """
    if offset is None:
        spares = find_spares(device)
        if not spares:
            raise ImageError(f"{device.name}: {reason}")
        best = max(spares, key=lambda spare: (plausibility(device, spare.superblock), spare.superblock.created_ns))
        _refuse_foreign(device, best)
    else:
        named = spare_at(device, offset)
        if named is None:
            raise ImageError(
                f"{device.name}: no spare superblock at byte {offset}; deferfs debug superblock shows where they are"
            )
        best = named
    findings.add(
        catalogue.SUPERBLOCK_LOST,
        f"superblock: {reason or 'not looked at'}; the spare one at byte {best.offset} is taken",
        offset=best.offset,
    )
    superblock = replace(best.superblock, state=STATE_REPAIRING, sequence=sequence)
    if superblock.blocks * superblock.block_size > device.size:
        return superblock  # the caller reports that the image is truncated
    return find_log(Context(device, superblock, Findings(), Claims(0)))


def _refuse_foreign(device: Device, best: Spare) -> None:
    """A spare can outlive its filesystem, where a filesystem of another kind has been made over it."""
    try:
        foreign = foreign_content(device.read(0, min(SIGNATURE_BYTES, device.size)))
    except DeviceError:
        return
    if foreign is not None:
        raise ImageError(
            f"{device.name}: not a deferfs image but {foreign}; a spare superblock of an older deferfs is left at byte "
            f"{best.offset}: fsck -b {best.offset} takes it all the same"
        )


def claim_spares(context: Context) -> list[int]:
    """Claim the blocks of the spares that the superblock names; those that lie where they may."""
    superblock, claims = context.superblock, context.claims
    placed: list[int] = []
    for address in superblock.spares:
        allowed = (
            not address * superblock.block_size % STEP_BYTES
            and context.fmt.reserved_blocks <= address < superblock.blocks
            and not claims.bits[address]
        )
        if not allowed:
            text = f"superblock: a spare at block {address}, where none may lie"
            context.findings.add(catalogue.SPARE_PLACE, text, block=address)
            continue
        claims.claim(address, 1, _OWNER)
        placed.append(address)
    return placed


def check_spares(context: Context) -> None:
    """Compare every spare with the superblock. They are claimed first after the fixed areas."""
    expected = context.superblock.spare_form()
    for address in claim_spares(context):
        data = context.reader.read(address)
        try:
            if data is None:
                raise CorruptionError(f"block {address} cannot be read")
            found = open_spare(context.fmt, address, data)
        except CorruptionError as error:
            context.findings.add(catalogue.SPARE_DAMAGED, f"spare superblock: {error.detail}", block=address)
            continue
        different = [name for name in _COMPARED if getattr(found, name) != getattr(expected, name)]
        if different:
            text = f"spare superblock in block {address}: differs in {', '.join(different)}"
            context.findings.add(catalogue.SPARE_DISAGREE, text, block=address)
