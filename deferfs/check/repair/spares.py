"""Spare superblocks: written again where they are, and where a place has none that could have one."""

from __future__ import annotations

from dataclasses import replace

from bitarray import bitarray

from deferfs.check.repair.context import RepairContext
from deferfs.check.repair.writeout import WriteOut
from deferfs.device.base import Device
from deferfs.errors import CorruptionError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.spare import STEP_BYTES, choose_places, encode_spare, nominal_places
from deferfs.ondisk.superblock import COMPATIBLE_SPARES, Superblock


def name_spares(repair: RepairContext) -> None:
    """The superblock as found names them: nothing else is written there before the end."""
    for address in repair.superblock.spares:
        repair.name(address)


def settle_spares(repair: RepairContext) -> None:
    """Claim the spares, after all else, and write them: a spare whose block another structure holds is dropped."""
    size, stock = repair.fmt.block_size, repair.stock
    kept = {
        address
        for address in repair.superblock.spares
        if repair.inside(address, 1) and not repair.used[address] and not address * size % STEP_BYTES
    }
    chosen = choose_places(
        repair.superblock, kept, lambda address: not (stock.taken[address] or stock.last_resort[address])
    )
    for address in chosen:
        repair.claim(address, 1, structure=True)
        if address not in kept:
            repair.fresh.add(address)
    if tuple(chosen) != repair.superblock.spares:
        repair.note(_text(repair.superblock, chosen), loses=False)
    repair.superblock = with_spares(repair.superblock, chosen)
    for address in chosen:
        repair.write(address, encode_spare(repair.superblock, address))


def with_spares(superblock: Superblock, addresses: list[int]) -> Superblock:
    """The next superblock, which names these spares."""
    others = superblock.compatible & ~COMPATIBLE_SPARES
    return superblock.next(spares=tuple(addresses), compatible=others | (COMPATIBLE_SPARES if addresses else 0))


def _text(superblock: Superblock, addresses: list[int]) -> str:
    if not addresses:
        return "spare superblocks: there is no free block for one"
    size = superblock.block_size
    missing = len(nominal_places(superblock.blocks * size)) + 1 - len(addresses)
    more = f"; no free block for {missing} more" if missing > 0 else ""
    return f"spare superblocks: at byte{'s' * (len(addresses) > 1)} {', '.join(str(a * size) for a in addresses)}{more}"


def add_spares(device: Device, superblock: Superblock, now_ns: int) -> str | None:
    """Give a sound image with an empty log, made by an older program, its spares; what was done, None when nothing was.
    DeviceError. A cut leaves the image marked as under repair, with blocks that only its bitmaps hold.
    """
    if superblock.spares:
        return None
    fmt, bits = superblock.format, bitarray(endian="little")
    bitmaps: dict[int, Bitmap] = {}
    for group in range(superblock.groups):
        address = superblock.bitmap_address(group)
        data = device.read(address * fmt.block_size, fmt.block_size)
        try:
            bitmaps[group] = Bitmap.decode(fmt, address, data)
        except CorruptionError:
            return None  # not sound, then
        bits += bitmaps[group].bits[: fmt.bits_per_bitmap]
    chosen = choose_places(superblock, (), lambda address: not bits[address])
    if not chosen:
        return None
    pages: dict[int, bytes] = {}
    out = WriteOut(
        device, replace(with_spares(superblock, chosen), sequence=superblock.sequence), now_ns, through_log=True
    )
    for address in chosen:
        group, bit = divmod(address, fmt.bits_per_bitmap)
        bitmaps[group].bits[bit] = 1
        bitmap_address = superblock.bitmap_address(group)
        pages[bitmap_address] = bitmaps[group].encode(fmt, bitmap_address)
        pages[address] = encode_spare(out.superblock, address)
    out.write(pages, set(chosen))
    out.finish(clean=True)
    return _text(superblock, chosen)
