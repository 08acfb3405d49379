"""Past states: the filesystem as it was after any transaction that is still in the log.

The log holds the image of each block changed by each transaction from the tail on; earlier content is in the home
blocks. So the state after transaction T is the newest image of each block up to T, over the home blocks. That is exact
unless a home block has been overwritten since by newer content, and the log lacks the older one:

- a checkpoint that has not moved the tail yet wrote the image of a later transaction home;
- a later transaction freed the block, and file data has been written to it since.

Both are detected (`Past.lost`), and then the state after T cannot be reconstructed. File data is not in the log: a file
shows the current content of its blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from deferfs.device.base import Device
from deferfs.device.overlay import OverlayDevice
from deferfs.errors import CorruptionError, ImageError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import HEADER, INODE_BYTES, SUPERBLOCK_OFFSETS, Format
from deferfs.ondisk.inode import MAGIC as INODE_MAGIC
from deferfs.ondisk.inode import Inode
from deferfs.ondisk.node import DirectoryNode, ExtentNode
from deferfs.ondisk.orphan import OrphanBlock
from deferfs.ondisk.superblock import STATE_CLEAN, Superblock
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.io import Job, Read, run_job
from deferfs.store.recovery import LogReader, read_superblock

_MAGICS: Final = frozenset(
    kind.MAGIC for kind in (Bitmap, ExtentNode, DirectoryNode, XattrBlock, OrphanBlock)
)  # fmt: skip


@dataclass(slots=True)
class Past:
    """The state after transaction `tid`: `images` over the home blocks. `lost`: blocks whose content then is lost, each
    with the transaction that changed it.
    """

    tid: int
    images: dict[int, bytes] = field(default_factory=dict)
    lost: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class Logged:
    """A complete transaction with its images, as (home, content), and the revoked addresses."""

    tid: int
    images: list[tuple[int, bytes]]
    revokes: list[int]


def read_history(superblock: Superblock) -> Job[list[Logged]]:
    """The transactions in the log, ascending, up to the first damaged one.

    All are held in memory with their images: as many bytes as the used part of the log.
    """
    reader = LogReader(superblock)
    history: list[Logged] = []
    start = 0
    try:
        while start < reader.blocks:
            found = yield from reader.transaction(superblock.tail_tid + len(history), start)
            if found is None:
                break
            images: list[tuple[int, bytes]] = []
            for home, offset in zip(found.homes, found.offsets, strict=True):
                images.append((home, (yield from reader.block(offset))))
            history.append(Logged(found.tid, images, list(found.revokes)))
            start = found.end
    except CorruptionError as error:
        raise ImageError(f"journal: {error.detail}") from error
    return history


def look_back(superblock: Superblock, history: list[Logged], tid: int) -> Job[Past]:
    """The state after transaction `tid`; the tid before the tail stands for the state before all of them. ImageError
    when the log does not reach that far.
    """
    first = superblock.tail_tid
    last = first + len(history) - 1
    if not first - 1 <= tid <= last:
        there = f"transactions {first} to {last}" if history else "no transaction"
        raise ImageError(f"transaction {tid} is not in the log, which holds {there}")
    past = Past(tid)
    known: set[int] = set()
    for transaction in history[: tid - first + 1]:
        for home in transaction.revokes:
            past.images.pop(home, None)
        past.images.update(transaction.images)
        known.update(transaction.revokes, (home for home, _ in transaction.images))
    yield from _find_lost(superblock, history, history[tid - first + 1 :], past, known)
    return past


def past_device(device: Device, tid: int) -> OverlayDevice:
    """The device as it was after transaction `tid`, closed cleanly, as an overlay: the device is not written.
    ImageError when that state cannot be reconstructed.
    """
    try:
        superblock = run_job(device, read_superblock(device.size))
        history = run_job(device, read_history(superblock))
        past = run_job(device, look_back(superblock, history, tid))
    except ImageError as error:
        raise ImageError(f"{device.name}: {error}") from error
    if past.lost:
        block, later = past.lost[0]
        raise ImageError(
            f"{device.name}: transaction {tid} cannot be reconstructed: "
            f"block {block} has been overwritten since ({later} changed it)"
        )
    return device_of(device, superblock, past)


def device_of(device: Device, superblock: Superblock, past: Past) -> OverlayDevice:
    """`device` overlaid with the images of `past` and the superblocks of an image closed cleanly then."""
    overlay = OverlayDevice(device, superblock.block_size)
    size = superblock.block_size
    for home, image in past.images.items():
        if superblock.format.reserved_blocks <= home < superblock.blocks:
            overlay.write(home * size, image)
    # an empty log whose next transaction id is above that of any block in the log
    newest = superblock.tail_tid + superblock.journal_blocks
    for _ in SUPERBLOCK_OFFSETS:
        superblock = superblock.next(journal_tail=0, tail_tid=newest + 1, state=STATE_CLEAN)
        overlay.write(SUPERBLOCK_OFFSETS[superblock.sequence % 2], superblock.encode())
    return overlay


def _find_lost(
    superblock: Superblock, history: list[Logged], later: list[Logged], past: Past, known: set[int]
) -> Job[None]:
    """Collect blocks in use at that time that a later transaction changed and whose home block has been overwritten."""
    if not later:
        return
    begun = yield from _checkpoint_begun(superblock, history)
    fmt, size = superblock.format, superblock.block_size
    bitmaps: dict[int, Bitmap | None] = {}
    for transaction in later:
        for home in transaction.revokes:
            if home not in known and (yield from _in_use(superblock, past, bitmaps, home)):
                data = yield Read(home * size, size)
                if not _is_metadata(fmt, home, data or b""):
                    past.lost.append((home, transaction.tid))
        for home, image in transaction.images:
            if home not in known and (yield from _in_use(superblock, past, bitmaps, home)):
                data = yield Read(home * size, size)
                if data == image and begun:
                    past.lost.append((home, transaction.tid))


def _checkpoint_begun(superblock: Superblock, history: list[Logged]) -> Job[bool]:
    """Whether a checkpoint of these transactions has written anything home. Only blocks with different images in the
    log count: a home block equal to the only image may not have been written.
    """
    size = superblock.block_size
    versions: dict[int, set[bytes]] = {}
    for transaction in history:
        for home, image in transaction.images:
            versions.setdefault(home, set()).add(image)
    for home, images in versions.items():
        if len(images) > 1 and 0 < home < superblock.blocks:
            data = yield Read(home * size, size)
            if data in images:
                return True
    return False


def _in_use(superblock: Superblock, past: Past, bitmaps: dict[int, Bitmap | None], block: int) -> Job[bool]:
    """Whether a block was in use; True when the bitmap cannot be read."""
    fmt = superblock.format
    group, bit = divmod(block, fmt.bits_per_bitmap)
    if not 0 < block < superblock.blocks:
        return False
    if group not in bitmaps:
        address = superblock.bitmap_address(group)
        data = past.images.get(address)
        if data is None:
            data = yield Read(address * fmt.block_size, fmt.block_size)
        try:
            bitmaps[group] = Bitmap.decode(fmt, address, data or b"")
        except CorruptionError:
            bitmaps[group] = None
    bitmap = bitmaps[group]
    return bitmap is None or bool(bitmap.bits[bit])


def _is_metadata(fmt: Format, address: int, data: bytes) -> bool:
    """Whether the block holds intact metadata of its own address."""
    magic = HEADER.unpack_from(data)[1]
    try:
        if magic in _MAGICS:
            fmt.open_header(address, data, magic)
            return True
        if magic == INODE_MAGIC:
            Inode.decode(fmt, address, data[:INODE_BYTES])
            return True
    except CorruptionError:
        return False
    return False
