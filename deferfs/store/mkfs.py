"""Making a filesystem: geometry first (what `mkfs -N` and `info` print), then the blocks.

[0, reserved)                two superblocks, at byte 0 and byte 65536
[reserved, + bitmaps)        free-space bitmaps
[.., + journal)              the journal, written with zeros so that commits allocate nothing below it
inode bitmap, chunk 0        the first group of the inode file
the rest                     free, except for the spare superblocks in it
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace

from deferfs.errors import ImageError, UsageError
from deferfs.limits import (
    BLOCK_SIZE_BYTES_MAX,
    BLOCK_SIZE_BYTES_MIN,
    JOURNAL_BLOCKS_MIN,
    JOURNAL_BYTES_DEFAULT,
    JOURNAL_BYTES_MAX,
    LABEL_BYTES_MAX,
)
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Format
from deferfs.ondisk.inode import (
    FIRST_INO,
    FORM_ENTRIES,
    FORM_EXTENTS,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    ROOT_INO,
    Inode,
    InodeBlock,
)
from deferfs.ondisk.node import EXTENT
from deferfs.ondisk.spare import HEAD_BYTES, choose_places, encode_spare, places_on, spare_head
from deferfs.ondisk.superblock import COMPATIBLE_SPARES, Superblock
from deferfs.store.io import Discard, Flush, Job, Read, Write
from deferfs.store.recovery import superblock_offset

_ZERO_BYTES = 1 << 20
"""Bytes of zeros in one write."""
_FREE_BLOCKS_MIN = 64
"""Free blocks that a new filesystem must have: with fewer it would be useless."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The layout, in blocks."""

    superblock: Superblock
    inode_bitmap: int
    first_free: int


def journal_bytes_default(size_bytes: int) -> int:
    """1/16 of the image, at most JOURNAL_BYTES_DEFAULT."""
    return min(JOURNAL_BYTES_DEFAULT, size_bytes // 16)


def plan_geometry(
    size_bytes: int,
    *,
    block_size: int,
    uuid: bytes,
    hash_key: bytes,
    now_ns: int,
    journal_bytes: int | None = None,
    label: bytes = b"",
) -> Geometry:
    """The geometry of a new filesystem. UsageError when the parameters allow none."""
    if not BLOCK_SIZE_BYTES_MIN <= block_size <= BLOCK_SIZE_BYTES_MAX or block_size & (block_size - 1):
        raise UsageError(
            f"block size must be a power of two from {BLOCK_SIZE_BYTES_MIN} to {BLOCK_SIZE_BYTES_MAX}, not {block_size}"
        )
    if len(label) > LABEL_BYTES_MAX:
        raise UsageError(f"label is longer than {LABEL_BYTES_MAX} bytes")
    fmt = Format(block_size, uuid, hash_key)
    blocks = size_bytes // block_size
    bitmaps = -(-blocks // fmt.bits_per_bitmap)
    wanted = journal_bytes_default(size_bytes) if journal_bytes is None else journal_bytes
    journal = max(JOURNAL_BLOCKS_MIN, wanted // block_size)
    if journal_bytes is not None and journal_bytes // block_size < JOURNAL_BLOCKS_MIN:
        raise UsageError(
            f"journal must have at least {JOURNAL_BLOCKS_MIN} blocks ({JOURNAL_BLOCKS_MIN * block_size} bytes)"
        )
    if journal * block_size > JOURNAL_BYTES_MAX:
        raise UsageError(f"journal must have at most {JOURNAL_BYTES_MAX} bytes")
    bitmap_start = fmt.reserved_blocks
    journal_start = bitmap_start + bitmaps
    inode_bitmap = journal_start + journal
    first_free = inode_bitmap + 1 + fmt.chunk_blocks
    if blocks < first_free + _FREE_BLOCKS_MIN:
        # one of every bits_per_bitmap blocks is a bitmap
        content = first_free - bitmaps + _FREE_BLOCKS_MIN
        needed = content + -(-content // (fmt.bits_per_bitmap - 1))
        raise UsageError(f"size too small: {size_bytes} bytes, but at least {needed * block_size} are needed")
    superblock = Superblock(
        uuid=uuid,
        label=label,
        block_size=block_size,
        blocks=blocks,
        journal_start=journal_start,
        journal_blocks=journal,
        inode_root=inode_bitmap + 1,
        bitmap_regions=((bitmap_start, bitmaps),),
        hash_key=hash_key,
        created_ns=now_ns,
        written_ns=now_ns,
    )
    return Geometry(with_spares(superblock, first_free), inode_bitmap, first_free)


def with_spares(superblock: Superblock, first_free: int) -> Superblock:
    """Add the addresses of the spare superblocks, in the blocks from `first_free` on."""
    spares = tuple(choose_places(superblock, (), lambda address: first_free <= address))
    return replace(superblock, compatible=COMPATIBLE_SPARES if spares else 0, spares=spares)


def make_filesystem(
    geometry: Geometry, *, uid: int = 0, gid: int = 0, discard_bytes: int = 0, device_bytes: int = 0
) -> Job[None]:
    """Write a new filesystem. Old superblocks are wiped first, and the new ones are written last, each behind a
    barrier: an interrupted mkfs, even by a power failure, leaves no image that looks usable.

    The first `discard_bytes` of the device are discarded. On a device that is not new, `device_bytes` is its size: the
    spare superblocks of an older filesystem are wiped, too.
    """
    superblock = geometry.superblock
    fmt = superblock.format
    size = fmt.block_size
    if device_bytes:
        for offset in (yield from _old_spares(device_bytes)):
            yield Write(offset, [bytes(HEAD_BYTES)])
    for offset in (0, size * (fmt.reserved_blocks - 1)):
        yield Write(offset, [bytes(size)])
    yield Flush()
    if discard_bytes:
        yield Discard(0, discard_bytes)
    journal_bytes = superblock.journal_blocks * size
    for at in range(0, journal_bytes, _ZERO_BYTES):
        yield Write(superblock.journal_start * size + at, [bytes(min(_ZERO_BYTES, journal_bytes - at))])
    for group in range(superblock.groups):
        bitmap = Bitmap.empty(fmt, group)
        first = group * fmt.bits_per_bitmap
        used_end = min(max(geometry.first_free - first, 0), fmt.bits_per_bitmap)
        bitmap.bits[:used_end] = 1
        bitmap.bits[max(0, superblock.blocks - first) :] = 1
        for spare in superblock.spares:
            if first <= spare < first + fmt.bits_per_bitmap:
                bitmap.bits[spare - first] = 1
        address = superblock.bitmap_address(group)
        yield Write(address * size, [bitmap.encode(fmt, address)])
    yield from _write_inodes(geometry, fmt, uid, gid)
    yield Flush()
    if superblock.spares:
        # a spare must never describe a filesystem that does not exist yet
        for spare in superblock.spares:
            yield Write(spare * size, [encode_spare(superblock, spare)])
        yield Flush()
    for copy in (superblock, superblock.next()):
        yield Write(superblock_offset(copy), [copy.encode()])
    yield Flush()


def _old_spares(device_bytes: int) -> Job[list[int]]:
    """Byte offsets of the spare superblocks of an older filesystem: at the usual places, and where its superblocks and
    the spares found refer to others. Unreadable ones are skipped.
    """
    known = dict.fromkeys(places_on(device_bytes), HEAD_BYTES)
    known |= {offset: SUPERBLOCK_BYTES for offset in SUPERBLOCK_OFFSETS if offset + SUPERBLOCK_BYTES <= device_bytes}
    waiting, found = list(known), list[int]()
    for offset in waiting:
        try:
            data = yield Read(offset, known[offset])
            assert data is not None
            old = Superblock.decode(data) if offset in SUPERBLOCK_OFFSETS else spare_head(data)
        except (OSError, ImageError):
            continue
        if offset not in SUPERBLOCK_OFFSETS:
            found.append(offset)
        for place in (address * old.block_size for address in old.spares):
            if place not in known and place + HEAD_BYTES <= device_bytes:
                known[place] = HEAD_BYTES
                waiting.append(place)
    return found


def _write_inodes(geometry: Geometry, fmt: Format, uid: int, gid: int) -> Job[None]:
    inode_bitmap = Bitmap.empty(fmt, 0)
    inode_bitmap.bits[:FIRST_INO] = 1
    inode_bitmap.bits[fmt.inodes_per_group :] = 1
    yield Write(geometry.inode_bitmap * fmt.block_size, [inode_bitmap.encode(fmt, geometry.inode_bitmap)])
    records = {record.ino: record for record in _first_inodes(geometry, fmt, uid, gid)}
    for i in range(fmt.chunk_blocks):
        address = geometry.superblock.inode_root + i
        block = InodeBlock.fresh(fmt, i * fmt.inodes_per_block)
        for slot in range(fmt.inodes_per_block):
            ino = i * fmt.inodes_per_block + slot
            block.records[slot] = records.get(ino, block.records[slot])
        yield Write(address * fmt.block_size, [block.encode(fmt, address)])


def _first_inodes(geometry: Geometry, fmt: Format, uid: int, gid: int) -> list[Inode]:
    """The root directory, the inode file and the orphan file."""
    now = geometry.superblock.created_ns
    root = Inode(ROOT_INO, stat.S_IFDIR | 0o755, 1)
    root.uid, root.gid, root.nlink, root.parent = uid, gid, 2, ROOT_INO
    root.flags = geometry.superblock.directory_flags
    root.set_entries(FORM_ENTRIES, ())
    table = Inode(INODE_FILE_INO, stat.S_IFREG | 0o600, 1)
    table.blocks = 1 + fmt.chunk_blocks
    table.set_entries(FORM_EXTENTS, ((0, EXTENT.pack(geometry.inode_bitmap, table.blocks, 0)),))
    orphans = Inode(ORPHAN_FILE_INO, stat.S_IFREG | 0o600, 1)
    orphans.set_entries(FORM_EXTENTS, ())
    for record in (root, table, orphans):
        record.nlink = record.nlink or 1
        record.atime = record.mtime = record.ctime = record.crtime = now
    return [root, table, orphans]
