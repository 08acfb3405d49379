"""Pass 3: the inode file: which chunks and bitmaps of the inode table exist, and where."""

from __future__ import annotations

import stat
from typing import Final

from deferfs.check import catalogue
from deferfs.check.context import Context
from deferfs.check.extents import Extent, Mapping
from deferfs.errors import CorruptionError
from deferfs.ondisk.format import INODE_BYTES
from deferfs.ondisk.inode import (
    FORM_EXTENT_TREE,
    FORM_EXTENTS,
    INODE_FILE_INO,
    MAGIC,
    Inode,
)
from deferfs.ondisk.node import UNWRITTEN

EMPTY_CHUNKS_MAX: Final = 1024
"""More chunks without inodes than this, and the inode file counts as damaged: otherwise one extent over a large sparse
image would make billions of inodes."""


class InodeFile:
    """Where the inode table lies: the blocks of each chunk (numbered through all groups), and the
    bitmap of each group. Only chunks that are mapped whole are in it.
    """

    def __init__(self, mapping: Mapping, chunk_blocks: int) -> None:
        self.mapping = mapping
        self.chunk_blocks = chunk_blocks
        self.bitmaps: dict[int, int] = {}
        self.chunks: dict[int, int] = {}
        """Chunk number -> address of its first block; the others follow unless it is scattered."""
        self.scattered: dict[int, list[int]] = {}
        """Chunk number -> address of each block, for chunks in several pieces."""
        self.empty_chunks = 0
        """Mapped chunks whose first block holds no inode record."""

    def pieces(self, number: int) -> list[tuple[int, int]]:
        """[(address, length)] of a chunk, in order."""
        addresses = self.scattered.get(number)
        if addresses is None:
            return [(self.chunks[number], self.chunk_blocks)]
        return [(address, 1) for address in addresses]

    def block(self, number: int, index: int) -> int:
        """Address of block `index` of a chunk."""
        addresses = self.scattered.get(number)
        return self.chunks[number] + index if addresses is None else addresses[index]


def read_record(context: Context, address: int, index: int) -> tuple[Inode, bytes]:
    """Record `index` of table block `address`, decoded and raw; CorruptionError when damaged."""
    data = context.reader.read(address)
    if data is None:
        raise CorruptionError(f"block {address} cannot be read")
    raw = data[index * INODE_BYTES : (index + 1) * INODE_BYTES]
    return Inode.decode(context.fmt, address, raw), raw


def read_inode_file(context: Context) -> InodeFile | None:
    """Map the inode file, which starts from the first chunk; None (with a problem) when that is
    impossible.
    """
    fmt, root = context.fmt, context.superblock.inode_root
    block, index = divmod(INODE_FILE_INO, fmt.inodes_per_block)
    try:
        if not context.claims.inside(root, fmt.chunk_blocks):
            raise CorruptionError(f"first chunk at block {root} lies outside the image")
        inode, _ = read_record(context, root + block, index)
        if inode.ino != INODE_FILE_INO or inode.form not in (FORM_EXTENTS, FORM_EXTENT_TREE):
            raise CorruptionError(f"record at block {root + block} is not that of the inode file")
        if not stat.S_ISREG(inode.mode):
            raise CorruptionError("the record of the inode file is not that of a file")
    except CorruptionError as error:
        context.findings.add(catalogue.INODE_FILE, f"inode file: {error.detail}", block=root)
        context.complete = False
        return None
    found = InodeFile(Mapping(context, inode), fmt.chunk_blocks)
    _collect(context, found)
    if found.chunks.get(0) != root or 0 in found.scattered:
        text = f"superblock: first chunk at block {root}, the inode file maps {found.chunks.get(0)}"
        context.findings.add(catalogue.INODE_ROOT, text, block=root)
        found.chunks[0] = root
        found.scattered.pop(0, None)
    return found


def _collect(context: Context, found: InodeFile) -> None:
    mapping = found.mapping
    partial: dict[int, list[int]] = {}
    for extent in mapping.extents():
        if found.empty_chunks > EMPTY_CHUNKS_MAX:
            break
        if extent.flags & UNWRITTEN:
            text = f"inode file: unwritten extent at logical block {extent.logical}"
            context.findings.add(catalogue.INTERNAL_UNWRITTEN, text, ino=INODE_FILE_INO, logical=extent.logical)
        _split(context, extent, found, partial)
    if found.empty_chunks > EMPTY_CHUNKS_MAX:
        text = f"inode file: {found.empty_chunks} of its chunks hold no inodes; the others are not looked at"
        context.findings.add(catalogue.INODE_FILE, text, ino=INODE_FILE_INO)
        context.complete = False
    for number, addresses in sorted(partial.items()):
        if len(addresses) == context.fmt.chunk_blocks:
            found.chunks[number] = addresses[0]
            found.scattered[number] = addresses
        else:
            text = f"inode table: {len(addresses)} blocks of chunk {number} are mapped"
            context.findings.add(catalogue.INODE_CHUNK_PARTIAL, text, chunk=number)
            context.complete = False


def _looks_like_chunk(context: Context, address: int) -> bool:
    data = context.reader.read(address)
    return data is not None and MAGIC in data


def _split(context: Context, extent: Extent, found: InodeFile, partial: dict[int, list[int]]) -> None:
    """Cut an extent into bitmaps and chunks; `partial` takes what is less than a chunk."""
    fmt = context.fmt
    logical = extent.logical
    while logical < extent.end:
        group, inside = divmod(logical, fmt.inode_group_blocks)
        physical = extent.physical + logical - extent.logical
        if inside == 0:
            found.bitmaps[group] = physical
            logical += 1
            continue
        chunk, offset = divmod(inside - 1, fmt.chunk_blocks)
        number = group * fmt.chunks_per_inode_group + chunk
        length = min(fmt.chunk_blocks - offset, extent.end - logical)
        if length == fmt.chunk_blocks:
            found.chunks[number] = physical
            if not _looks_like_chunk(context, physical):
                found.empty_chunks += 1
                if found.empty_chunks > EMPTY_CHUNKS_MAX:
                    return
        else:
            partial.setdefault(number, []).extend(range(physical, physical + length))
        logical += length
