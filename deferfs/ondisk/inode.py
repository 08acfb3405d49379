"""Inode records of 512 bytes, each sealed by itself, and the table blocks that hold them.

    offset  size  field                          offset  size  field
    0       4     CRC32C (UUID, block, 4..512)   56      8     atime, ns since the epoch, signed
    4       4     magic "DINO"                   64      8     mtime
    8       8     inode number                   72      8     ctime
    16      4     generation                     80      8     crtime (creation)
    20      4     mode; 0: the record is free    88      8     rdev
    24      4     uid                            96      8     parent (directories: `..`)
    28      4     gid                            104     8     first xattr block, or 0
    32      4     nlink                          112     8     orphan slot + 1, or 0
    36      4     flags                          120     1     data form
    40      8     size, bytes                    121     1     reserved
    48      8     blocks: all that it holds      122     2     bytes of inline data
                                                 124     2     bytes of inline xattrs
                                                 126     2     reserved
    128     384   inline area: data from the front, xattrs from the back

Data forms: 0 none, 1 bytes inline, 2 extents inline (24 bytes each: logical u64, extent), 3 extent tree (root u64),
4 directory entries inline (key u64, length u16, entry), 5 directory tree (root u64).
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import INODE_BYTES, Format
from deferfs.ondisk.node import EXTENT

FORM_NONE: Final = 0
FORM_BYTES: Final = 1
FORM_EXTENTS: Final = 2
FORM_EXTENT_TREE: Final = 3
FORM_ENTRIES: Final = 4
FORM_DIRECTORY_TREE: Final = 5
"""The data forms, see above."""

# Bit 2 is reserved: it was the mark of a quarantine, which is in the orphan slot since before the first release.
FLAG_PREALLOCATED: Final = 1
"""Blocks past EOF are mapped and must be trimmed at inactivation."""
FLAG_TRUNCATING: Final = 4
"""A truncate has set the size and is not yet done freeing: written blocks past EOF hold old data."""
FLAG_KEYS31: Final = 8
"""Of a directory: the keys of its entries, which are readdir offsets, lie below 2^31."""

ROOT_INO: Final = 1
"""The root directory."""
INODE_FILE_INO: Final = 2
"""The file that is the inode table."""
ORPHAN_FILE_INO: Final = 3
"""The file that is the orphan table."""
FIRST_INO: Final = 8
"""The lowest inode number of users' files; those below are reserved."""

_FIXED: Final = struct.Struct("<I4sQIIIIIIQQqqqqQQQQBBHHH")
"""The part of a record before the inline area."""
_PAIR: Final = struct.Struct("<QQII")
"""An inline extent: logical block, extent."""
_ENTRY: Final = struct.Struct("<QH")
"""The head of an inline directory entry: key, length of its value."""
_U64: Final = struct.Struct("<Q")
_HEAD: Final = struct.Struct("<I4sQII16xQQq")
"""What a payment looks at: checksum, magic, number, generation, mode, size, blocks, access time."""
_CHECKSUM: Final = struct.Struct("<I")
_TIME: Final = struct.Struct("<q")
_ATIME_AT: Final = 56
_ATIME_END: Final = 64
"""Where the access time of a record begins and ends."""
_COVERED_AT: Final = 4
"""Where that begins which the checksum covers: all behind it."""
INLINE_BYTES: Final = INODE_BYTES - _FIXED.size
"""Size of the inline area, in bytes."""
TREE_ROOT_BYTES: Final = _U64.size
"""Bytes that inline xattrs always leave free: whatever form the data takes, a tree root must fit beside them."""
assert _FIXED.size == 128
assert _HEAD.size == _ATIME_END == _ATIME_AT + _TIME.size
assert _CHECKSUM.size == _COVERED_AT
MAGIC: Final = b"DINO"
"""Of every inode record, at byte 4."""

Extent = tuple[int, bytes]
"""(key, value): a leaf entry, inline or in a tree."""


class Inode:
    """One decoded inode record. Immutable once published.

    The data is in the field that belongs to `form`: `inline`, the bytes (1); `entries`, a tuple of (key, value) leaf
    entries (2, 4); `root`, the block address of the root of a tree (3, 5). `xattrs` are the inline xattr bytes.
    """

    __slots__ = (
        "atime",
        "blocks",
        "crtime",
        "ctime",
        "entries",
        "flags",
        "form",
        "generation",
        "gid",
        "inline",
        "ino",
        "mode",
        "mtime",
        "nlink",
        "orphan_slot",
        "parent",
        "rdev",
        "root",
        "size",
        "uid",
        "xattr_block",
        "xattrs",
    )  # fmt: skip

    def __init__(self, ino: int, mode: int = 0, generation: int = 0) -> None:
        self.ino = ino
        self.mode = mode
        self.generation = generation
        self.uid = 0
        self.gid = 0
        self.nlink = 0
        self.flags = 0
        self.size = 0
        self.blocks = 0
        self.atime = 0
        self.mtime = 0
        self.ctime = 0
        self.crtime = 0
        self.rdev = 0
        self.parent = 0
        self.xattr_block = 0
        self.orphan_slot = 0
        self.form = FORM_NONE
        self.inline: bytes = b""
        self.entries: tuple[Extent, ...] = ()
        self.root = 0
        self.xattrs: bytes = b""

    def copy(self) -> Inode:
        """A private copy. Field by field: every operation that changes an inode makes one, and a loop over the fields
        costs three times as much."""
        new = Inode(self.ino)
        new.atime = self.atime
        new.blocks = self.blocks
        new.crtime = self.crtime
        new.ctime = self.ctime
        new.entries = self.entries
        new.flags = self.flags
        new.form = self.form
        new.generation = self.generation
        new.gid = self.gid
        new.inline = self.inline
        new.mode = self.mode
        new.mtime = self.mtime
        new.nlink = self.nlink
        new.orphan_slot = self.orphan_slot
        new.parent = self.parent
        new.rdev = self.rdev
        new.root = self.root
        new.size = self.size
        new.uid = self.uid
        new.xattr_block = self.xattr_block
        new.xattrs = self.xattrs
        return new

    def set_inline(self, data: bytes) -> None:
        self.form, self.inline, self.entries, self.root = FORM_BYTES, data, (), 0

    def set_entries(self, form: int, entries: tuple[Extent, ...]) -> None:
        self.form, self.inline, self.entries, self.root = form, b"", entries, 0

    def set_tree(self, form: int, root: int) -> None:
        self.form, self.inline, self.entries, self.root = form, b"", (), root

    def data_bytes(self) -> int:
        """Bytes of the inline area that the data takes."""
        if self.form == FORM_BYTES:
            return len(self.inline)
        if self.form == FORM_EXTENTS:
            return _PAIR.size * len(self.entries)
        if self.form == FORM_ENTRIES:
            return sum(_ENTRY.size + len(value) for _, value in self.entries)
        if self.form in (FORM_EXTENT_TREE, FORM_DIRECTORY_TREE):
            return _U64.size
        return 0

    def inline_capacity(self) -> int:
        """Inline bytes that data may take beside the xattrs."""
        return INLINE_BYTES - len(self.xattrs)

    def encode(self, fmt: Format, address: int) -> bytes:
        """The 512-byte record, sealed for table block `address`."""
        data = self._encode_data()
        gap = INLINE_BYTES - len(data) - len(self.xattrs)
        assert gap >= 0, "inline data outgrew the inode record"
        body = _FIXED.pack(
            0, MAGIC, self.ino, self.generation, self.mode, self.uid, self.gid, self.nlink, self.flags, self.size,
            self.blocks, self.atime, self.mtime, self.ctime, self.crtime, self.rdev, self.parent, self.xattr_block,
            self.orphan_slot, self.form, 0, len(data), len(self.xattrs), 0,
        ) + data + bytes(gap) + self.xattrs  # fmt: skip
        covered = body[_COVERED_AT:]
        return _CHECKSUM.pack(fmt.checksum(address, covered)) + covered

    def _encode_data(self) -> bytes:
        if self.form == FORM_BYTES:
            return self.inline
        if self.form == FORM_EXTENTS:
            return b"".join(_U64.pack(key) + value for key, value in self.entries)
        if self.form == FORM_ENTRIES:
            return b"".join(_ENTRY.pack(key, len(value)) + value for key, value in self.entries)
        if self.form in (FORM_EXTENT_TREE, FORM_DIRECTORY_TREE):
            return _U64.pack(self.root)
        return b""

    @classmethod
    def decode(cls, fmt: Format, address: int, data: bytes) -> Inode:
        """Decode one 512-byte record of table block `address`; CorruptionError when it is damaged."""
        (crc, magic, ino, generation, mode, uid, gid, nlink, flags, size, blocks, atime, mtime, ctime, crtime,
         rdev, parent, xattr_block, orphan_slot, form, _, data_len, xattr_len,
         _) = _FIXED.unpack_from(data)  # fmt: skip
        _check_sealed(fmt, address, data, crc, magic, ino)
        new = cls(ino, mode, generation)
        new.uid, new.gid, new.nlink, new.flags = uid, gid, nlink, flags
        new.size, new.blocks, new.rdev, new.parent = size, blocks, rdev, parent
        new.atime, new.mtime, new.ctime, new.crtime = atime, mtime, ctime, crtime
        new.xattr_block, new.orphan_slot, new.form = xattr_block, orphan_slot, form
        if data_len + xattr_len > INLINE_BYTES or form > FORM_DIRECTORY_TREE:
            raise CorruptionError(f"inode {ino}: impossible inline lengths")
        new.xattrs = data[INODE_BYTES - xattr_len :] if xattr_len else b""
        new._decode_data(data[_FIXED.size : _FIXED.size + data_len])
        return new

    def _decode_data(self, data: bytes) -> None:
        if self.form == FORM_BYTES:
            self.inline = data
        elif self.form == FORM_EXTENTS:
            step = _PAIR.size
            self.entries = tuple(
                (_U64.unpack_from(data, i)[0], data[i + 8 : i + 8 + EXTENT.size])
                for i in range(0, len(data) - step + 1, step)
            )
        elif self.form == FORM_ENTRIES:
            entries, at = [], 0
            while at + _ENTRY.size <= len(data):
                key, length = _ENTRY.unpack_from(data, at)
                at += _ENTRY.size
                entries.append((key, data[at : at + length]))
                at += length
            self.entries = tuple(entries)
        elif self.form in (FORM_EXTENT_TREE, FORM_DIRECTORY_TREE):
            if len(data) != _U64.size:
                raise CorruptionError(f"inode {self.ino}: damaged tree root")
            self.root = _U64.unpack(data)[0]


def sealed_head(fmt: Format, address: int, sealed: bytes) -> tuple[int, int, int, int, int, int]:
    """(inode number, generation, mode, size in bytes, blocks, access time in ns) of a sealed record of table block
    `address`, for half of the time that decoding it takes; CorruptionError when the checksum is wrong."""
    crc, magic, ino, generation, mode, size, blocks, atime = _HEAD.unpack_from(sealed)
    _check_sealed(fmt, address, sealed, crc, magic, ino)
    return ino, generation, mode, size, blocks, atime


def _check_sealed(fmt: Format, address: int, sealed: bytes, crc: int, magic: bytes, ino: int) -> None:
    """CorruptionError unless `magic` and `crc`, read from the sealed record, are those that it must have."""
    if magic != MAGIC:
        raise CorruptionError(f"block {address}: no inode record where one belongs")
    if crc != fmt.checksum(address, sealed[_COVERED_AT:]):
        raise CorruptionError(f"inode {ino} in block {address}: wrong checksum")


def with_atime(fmt: Format, address: int, sealed: bytes, atime: int) -> bytes:
    """A sealed record of table block `address` with another access time, sealed again. The caller has verified it."""
    covered = sealed[_COVERED_AT:_ATIME_AT] + _TIME.pack(atime) + sealed[_ATIME_END:]
    return _CHECKSUM.pack(fmt.checksum(address, covered)) + covered


class InodeBlock:
    """A block of the inode table: `fmt.inodes_per_block` records, decoded one by one when first asked for.

    Its records are sealed for one address. Those that `encode` has sealed stay so: the checkpoint writes the very bytes
    that the commit has encoded, and what is read again is decoded again.
    """

    __slots__ = ("records",)
    MAGIC: ClassVar[bytes] = MAGIC

    def __init__(self, records: list[Inode | bytes]) -> None:
        self.records = records

    @classmethod
    def fresh(cls, fmt: Format, first_ino: int) -> InodeBlock:
        return cls([Inode(first_ino + i) for i in range(fmt.inodes_per_block)])

    def record(self, fmt: Format, address: int, index: int) -> Inode:
        found = self.records[index]
        if isinstance(found, bytes):
            found = self.records[index] = Inode.decode(fmt, address, found)
        return found

    @classmethod
    def decode(cls, fmt: Format, address: int, data: bytes) -> InodeBlock:
        return cls([data[i : i + INODE_BYTES] for i in range(0, fmt.block_size, INODE_BYTES)])

    def encode(self, fmt: Format, address: int) -> bytes:
        sealed = [r if isinstance(r, bytes) else r.encode(fmt, address) for r in self.records]
        self.records[:] = sealed
        return b"".join(sealed)

    def copy(self) -> InodeBlock:
        return InodeBlock(self.records[:])

    def cost(self, fmt: Format) -> int:
        return 200 + 900 * len(self.records)
