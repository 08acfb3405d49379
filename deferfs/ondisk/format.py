"""What every codec needs of one filesystem: block size, identity and derived geometry.

Every metadata block starts with the same 32-byte header:

    offset  size  field
    0       4     CRC32C of the filesystem UUID, the block address (u64) and bytes 4 .. end of the block
    4       4     magic: the kind of block
    8       8     address: the block's own number (journal blocks: their transaction id)
    16      8     owner: the inode (bitmaps: the group) that the block belongs to
    24      4     count: entries in the block
    28      2     level: height above the leaves (trees)
    30      2     reserved, zero
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final, Protocol, Self

import google_crc32c

from deferfs.errors import CorruptionError

HEADER: Final = struct.Struct("<I4sQQIHH")
"""The common header, as above."""
HEADER_BYTES: Final = HEADER.size
INODE_BYTES: Final = 512
"""Size of an inode record, in bytes."""
CHUNK_BYTES: Final = 32 * 1024
"""The inode table grows by chunks of this many bytes, or of one block where blocks are larger."""
SUPERBLOCK_BYTES: Final = 512
SUPERBLOCK_OFFSETS: Final = (0, 65536)
"""Where the two superblocks lie, in bytes."""
ORPHAN_SLOT_BYTES: Final = 32
IMAGES_PER_DESCRIPTOR_MAX: Final = 63
"""A descriptor of the journal and its images are encoded and written in one request: this bounds the request."""
_U64: Final = struct.Struct("<Q")
_U32: Final = struct.Struct("<I")
_PACK_U64: Final = _U64.pack
_EXTEND: Final = google_crc32c.extend
"""Bound once: these two are called for every block and record."""
assert HEADER_BYTES == 32


class Format:
    """Block size, UUID and directory hash key of one filesystem, with the numbers that follow from them.

    Invariant: everything here is fixed when the filesystem is made; only the number of blocks may grow later and
    is therefore not part of it.
    """

    def __init__(self, block_size: int, uuid: bytes, hash_key: bytes) -> None:
        self.block_size = block_size
        self.uuid = uuid
        self.hash_key = hash_key
        self.seed: int = google_crc32c.value(uuid)
        self.bits_per_bitmap = (block_size - HEADER_BYTES) * 8
        self.inodes_per_block = block_size // INODE_BYTES
        self.chunk_blocks = max(1, CHUNK_BYTES // block_size)
        self.inodes_per_chunk = self.chunk_blocks * self.inodes_per_block
        self.chunks_per_inode_group = self.bits_per_bitmap // self.inodes_per_chunk
        self.inodes_per_group = self.chunks_per_inode_group * self.inodes_per_chunk
        self.inode_group_blocks = 1 + self.chunks_per_inode_group * self.chunk_blocks
        self.orphans_per_block = (block_size - HEADER_BYTES) // ORPHAN_SLOT_BYTES
        self.tags_per_descriptor = min(IMAGES_PER_DESCRIPTOR_MAX, (block_size - HEADER_BYTES) // 16)
        self.revokes_per_block = (block_size - HEADER_BYTES) // 8
        self.reserved_blocks = SUPERBLOCK_OFFSETS[1] // block_size + 1

    def first_in_table_block(self, ino: int) -> int:
        """The first inode of the inode-table block that holds the record of `ino`."""
        return ino - ino % self.inodes_per_group % self.inodes_per_block

    def inode_groups_max(self, blocks: int) -> int:
        """Inode groups that a filesystem of `blocks` blocks can have: a group begins when those before it are full."""
        return blocks // (1 + self.chunk_blocks) + 1

    def parts_in_groups(self, first: int, length: int) -> list[tuple[int, int, int]]:
        """The run of `length` blocks from `first`, as (group, offset in the group, blocks): a bitmap for each."""
        parts: list[tuple[int, int, int]] = []
        while length > 0:
            group, start = divmod(first, self.bits_per_bitmap)
            part = min(length, self.bits_per_bitmap - start)
            parts.append((group, start, part))
            first += part
            length -= part
        return parts

    def checksum(self, tag: int, data: bytes | bytearray | memoryview) -> int:
        """CRC32C seeded with the UUID and `tag`: a block address, a transaction id or, over the blocks of a commit, the
        checksum of those before."""
        crc: int = _EXTEND(_EXTEND(self.seed, _PACK_U64(tag)), data if isinstance(data, bytes) else bytes(data))
        return crc

    def seal(self, address: int, body: bytearray) -> bytes:
        """The finished block: `body` (block_size bytes, header filled in) with its checksum set."""
        _U32.pack_into(body, 0, self.checksum(address, memoryview(body)[4:]))
        return bytes(body)

    def open_header(self, address: int, data: bytes, magic: bytes) -> tuple[int, int, int]:
        """Check the header of a sealed block; (owner, count, level), or CorruptionError."""
        crc, found, own, owner, count, level, _ = HEADER.unpack_from(data)
        if found != magic:
            raise CorruptionError(f"block {address}: magic {found!r} where {magic!r} belongs")
        if own != address:
            raise CorruptionError(f"block {address}: holds block {own} (misplaced write)")
        if crc != self.checksum(address, memoryview(data)[4:]):
            raise CorruptionError(f"block {address}: wrong checksum")
        return owner, count, level

    def header(self, magic: bytes, address: int, owner: int, count: int, level: int = 0) -> bytes:
        return HEADER.pack(0, magic, address, owner, count, level, 0)


class Block(Protocol):
    """A decoded metadata block. Immutable once it is published; changes go to a `copy`."""

    MAGIC: ClassVar[bytes]

    @classmethod
    def decode(cls, fmt: Format, address: int, data: bytes) -> Self: ...

    def encode(self, fmt: Format, address: int) -> bytes: ...

    def copy(self) -> Self: ...

    def cost(self, fmt: Format) -> int:
        """Estimated resident bytes of the decoded object."""
        ...
