"""Images made by hand from the codecs, and the means to damage them in one place.

`sample()` holds one of everything: each data form, trees of two levels, attributes inline and in
blocks, hard links, orphans in two blocks of the table, a scattered chunk, a second inode group, two
free-space bitmaps.
"""

from __future__ import annotations

import functools
import stat
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from bitarray import bitarray

from deferfs.check import check_image
from deferfs.device import MemoryDevice
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.directory import name_key, pack_entry
from deferfs.ondisk.format import INODE_BYTES, SUPERBLOCK_OFFSETS, Block, Format
from deferfs.ondisk.inode import (
    FLAG_PREALLOCATED,
    FORM_DIRECTORY_TREE,
    FORM_ENTRIES,
    FORM_EXTENT_TREE,
    FORM_EXTENTS,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    ROOT_INO,
    Inode,
)
from deferfs.ondisk.journal import Commit, Tag, encode_commit, encode_descriptor, encode_revoke
from deferfs.ondisk.node import EXTENT, UNWRITTEN, DirectoryNode, ExtentNode, Node
from deferfs.ondisk.orphan import OrphanBlock, OrphanSlot
from deferfs.ondisk.superblock import Superblock, newest
from deferfs.ondisk.xattr import XattrBlock, pack_xattrs

B = TypeVar("B", bound=Block)
Entry = tuple[int, bytes]

SMALL, SPARSE, EXTENTS, TREE, PREALLOCATED = 8, 9, 10, 11, 12
SYMLINK, LONG_SYMLINK, FIFO, DEVICE, SOCKET = 13, 14, 15, 16, 17
DIRECTORY, SUBDIRECTORY, BIG, ATTRIBUTES = 18, 19, 20, 21
ORPHAN, ORPHAN_DIRECTORY, FILES = 22, 23, 24
FIRST_IN_CHUNK_1 = 64
FAR = 7936 + 5
BIG_ENTRIES = 60
BLOCK_SIZE, BLOCKS, JOURNAL_BLOCKS = 1024, 9000, 64


class Image:
    """An image in memory, read and written piece by piece. Everything written is sealed again."""

    def __init__(self, device: MemoryDevice) -> None:
        self.device = device

    @property
    def superblock(self) -> Superblock:
        return newest([self.device.read(offset, 512) for offset in SUPERBLOCK_OFFSETS])

    @functools.cached_property
    def fmt(self) -> Format:
        return self.superblock.format

    def put_superblock(self, superblock: Superblock, copies: tuple[int, ...] = (0, 1)) -> None:
        for copy in copies:
            self.device.write(SUPERBLOCK_OFFSETS[copy], superblock.encode())

    def change_superblock(self, **changes: object) -> None:
        """The same change in both copies."""
        self.put_superblock(self.superblock.next(**changes))

    # --- blocks ---
    def raw(self, address: int) -> bytes:
        size = self.fmt.block_size
        return self.device.read(address * size, size)

    def put_raw(self, address: int, data: bytes) -> None:
        self.device.write(address * self.fmt.block_size, data)

    def patch(self, address: int, offset: int, data: bytes) -> None:
        """Overwrite bytes of a metadata block and seal it."""
        body = bytearray(self.raw(address))
        body[offset : offset + len(data)] = data
        self.put_raw(address, self.fmt.seal(address, body))

    def block(self, address: int, kind: type[B]) -> B:
        return kind.decode(self.fmt, address, self.raw(address))

    def change_block(self, address: int, kind: type[B], change: Callable[[B], object]) -> None:
        block = self.block(address, kind)
        change(block)
        self.put_raw(address, block.encode(self.fmt, address))

    def spoil(self, address: int) -> None:
        """Flip one bit without sealing the block."""
        data = bytearray(self.raw(address))
        data[self.fmt.block_size // 2] ^= 4
        self.put_raw(address, bytes(data))

    # --- inodes ---
    def place(self, ino: int) -> tuple[int, int]:
        """(table block, index in it)."""
        fmt = self.fmt
        group, index = divmod(ino, fmt.inodes_per_group)
        block, slot = divmod(index, fmt.inodes_per_block)
        logical = group * fmt.inode_group_blocks + 1 + block
        if group == 0 and block < fmt.chunk_blocks:
            return self.superblock.inode_root + block, slot
        return self.mapped(INODE_FILE_INO, logical), slot

    def mapped(self, ino: int, logical: int) -> int:
        """Physical block of a file with inline extents."""
        for key, value in self.inode(ino).entries:
            physical, length, _ = EXTENT.unpack(value)
            if key <= logical < key + length:
                return int(physical + logical - key)
        raise LookupError(logical)

    def raw_inode(self, ino: int) -> bytes:
        address, slot = self.place(ino)
        return self.raw(address)[slot * INODE_BYTES : (slot + 1) * INODE_BYTES]

    def inode(self, ino: int) -> Inode:
        return Inode.decode(self.fmt, self.place(ino)[0], self.raw_inode(ino))

    def put_record(self, ino: int, record: bytes) -> None:
        """Put 512 bytes where the record of `ino` belongs."""
        address, slot = self.place(ino)
        self.device.write(address * self.fmt.block_size + slot * INODE_BYTES, record)

    def put_inode(self, inode: Inode, at: int | None = None) -> None:
        ino = inode.ino if at is None else at
        self.put_record(ino, inode.encode(self.fmt, self.place(ino)[0]))

    def change_inode(self, ino: int, **fields: object) -> None:
        inode = self.inode(ino)
        for name, value in fields.items():
            setattr(inode, name, value)
        self.put_inode(inode)

    def patch_inode(self, ino: int, offset: int, data: bytes) -> None:
        """Overwrite bytes of a record and seal it."""
        self.patch_record(self.place(ino), offset, data)

    def patch_record(self, place: tuple[int, int], offset: int, data: bytes) -> None:
        """As `patch_inode`, wherever the inode file leads by now."""
        address, slot = place
        start = address * self.fmt.block_size + slot * INODE_BYTES
        body = bytearray(self.device.read(start, INODE_BYTES))
        body[offset : offset + len(data)] = data
        crc = self.fmt.checksum(address, memoryview(body)[4:])
        self.device.write(start, struct.pack("<I", crc) + bytes(body[4:]))

    # --- free space ---
    def mark(self, first: int, length: int, value: int) -> None:
        """Set bits of the free-space bitmaps."""
        for block in range(first, first + length):
            group, bit = divmod(block, self.fmt.bits_per_bitmap)
            self.change_block(
                self.superblock.bitmap_address(group),
                Bitmap,
                lambda bitmap, bit=bit: bitmap.bits.__setitem__(bit, value),  # type: ignore[misc]
            )

    def free_run(self, count: int) -> int:
        """The first of `count` blocks in a row that nobody uses."""
        bits = self.block(self.superblock.bitmap_address(0), Bitmap).bits
        first: int = bits.find(bitarray(count))
        return first

    def mark_inode(self, ino: int, value: int) -> None:
        """Set a bit of an inode bitmap."""
        group, index = divmod(ino, self.fmt.inodes_per_group)
        self.change_block(
            self.mapped(INODE_FILE_INO, group * self.fmt.inode_group_blocks),
            Bitmap,
            lambda bitmap: bitmap.bits.__setitem__(index, value),
        )

    # --- the log ---
    def log(self, position: int, tid: int, images: dict[int, bytes], revokes: tuple[int, ...] = ()) -> int:
        """Write a transaction at `position` of the journal region; the position after it."""
        fmt, superblock = self.fmt, self.superblock
        blocks: list[bytes] = []
        if revokes:
            blocks.append(encode_revoke(fmt, tid, 0, list(revokes)))
        if images:
            tags = [Tag(home, fmt.checksum(tid, image)) for home, image in images.items()]
            blocks.append(encode_descriptor(fmt, tid, len(blocks), tags))
        crc = 0
        for block in blocks:
            crc = fmt.checksum(crc, block)
        blocks.extend(images.values())
        blocks.append(encode_commit(fmt, tid, len(blocks), Commit(len(blocks), crc, 7)))
        for index, block in enumerate(blocks, position):
            self.put_raw(superblock.journal_start + index % superblock.journal_blocks, block)
        return position + len(blocks)


class Builder:
    """Lays out a new image, block after block."""

    def __init__(self) -> None:
        self.fmt = fmt = Format(BLOCK_SIZE, b"an image's uuid!", b"a directory key!")
        bitmaps = -(-BLOCKS // fmt.bits_per_bitmap)
        journal = fmt.reserved_blocks + bitmaps
        self.image = Image(MemoryDevice(BLOCKS * BLOCK_SIZE))
        inode_bitmap = journal + JOURNAL_BLOCKS
        self.superblock = Superblock(
            fmt.uuid, b"sample", BLOCK_SIZE, BLOCKS, journal, JOURNAL_BLOCKS, inode_bitmap + 1,
            ((fmt.reserved_blocks, bitmaps),), fmt.hash_key, 1, sequence=4,
        )  # fmt: skip
        self.image.put_superblock(self.superblock, (0,))
        self.image.put_superblock(self.superblock.next(), (1,))
        self.used = bitarray(BLOCKS, endian="little")
        self.used[:inode_bitmap] = 1
        self.next = inode_bitmap
        self.inodes: dict[int, Inode] = {}
        self.table: list[tuple[int, int, int]] = []
        """(logical, physical, length) of the inode file."""
        self.bitmaps: dict[int, int] = {}
        self.add_group(0)

    def take(self, count: int = 1) -> int:
        first = self.next
        self.used[first : first + count] = 1
        self.next += count
        return first

    def put(self, address: int, block: Block) -> int:
        self.image.put_raw(address, block.encode(self.fmt, address))
        return address

    def add_group(self, group: int) -> None:
        """An inode group with its first chunk, all in one run."""
        first = self.take(1 + self.fmt.chunk_blocks)
        logical = group * self.fmt.inode_group_blocks
        self.table.append((logical, first, 1 + self.fmt.chunk_blocks))
        self.bitmaps[group] = first

    def add_scattered_chunk(self, number: int) -> None:
        """A chunk of group 0 in two pieces."""
        logical = 1 + number * self.fmt.chunk_blocks
        half = self.fmt.chunk_blocks // 2
        for at in (logical, logical + half):
            self.table.append((at, self.take(half), half))
            self.next += 1

    # --- inodes ---
    def inode(self, ino: int, mode: int, nlink: int = 1, **fields: object) -> Inode:
        inode = Inode(ino, mode, 100 + ino)
        inode.nlink = nlink
        for name, value in fields.items():
            setattr(inode, name, value)
        self.inodes[ino] = inode
        return inode

    def file(self, ino: int, nlink: int = 1, **fields: object) -> Inode:
        return self.inode(ino, stat.S_IFREG | 0o644, nlink, **fields)

    def extent(self, logical: int, length: int, flags: int = 0) -> Entry:
        """A fresh extent; a gap after it keeps the next one apart."""
        entry = (logical, EXTENT.pack(self.take(length), length, flags))
        self.next += 1
        return entry

    def map(self, inode: Inode, extents: list[Entry]) -> None:
        inode.set_entries(FORM_EXTENTS, tuple(extents))
        inode.blocks += sum(EXTENT.unpack(value)[1] for _, value in extents)

    def tree(self, kind: type[Node], inode: Inode, entries: list[Entry], per_leaf: int) -> None:
        """Store entries in a tree of two levels (one, when they fit into a leaf)."""
        leaves: list[tuple[int, int]] = []
        for start in range(0, len(entries), per_leaf):
            leaf = kind(inode.ino)
            for index, (key, value) in enumerate(entries[start : start + per_leaf]):
                leaf.insert_value(index, key, value)
            leaves.append((entries[start][0] if start else 0, self.put(self.take(), leaf)))
        inode.blocks += len(leaves)
        root = leaves[0][1]
        if len(leaves) > 1:
            top = kind(inode.ino, 1)
            for index, (key, child) in enumerate(leaves):
                top.insert_child(index, key, child)
            root = self.put(self.take(), top)
            inode.blocks += 1
        form = FORM_EXTENT_TREE if kind is ExtentNode else FORM_DIRECTORY_TREE
        inode.set_tree(form, root)

    def directory(self, ino: int, parent: int, names: dict[str, int], *, tree: bool = False, nlink: int = 2) -> None:
        """A directory of inodes that are there already."""
        entries = [self.entry(name, target) for name, target in names.items()]
        entries.sort()
        inode = self.inode(ino, stat.S_IFDIR | 0o755, nlink, parent=parent, size=len(names))
        for target in names.values():
            if stat.S_ISDIR(self.inodes[target].mode):
                inode.nlink += 1
        if tree:
            self.tree(DirectoryNode, inode, entries, 25)
        else:
            inode.set_entries(FORM_ENTRIES, tuple(entries))

    def entry(self, name: str, ino: int) -> Entry:
        encoded = name.encode()
        return name_key(self.fmt, encoded), pack_entry(ino, self.inodes[ino].mode >> 12, encoded)

    def xattrs(self, inode: Inode, values: dict[bytes, bytes]) -> None:
        """Attributes in a chain of blocks."""
        packed, room = pack_xattrs(values), XattrBlock.room(self.fmt)
        parts = [packed[at : at + room] for at in range(0, len(packed), room)]
        following = 0
        for part in reversed(parts):
            following = self.put(self.take(), XattrBlock(inode.ino, part, following))
        inode.xattr_block = following
        inode.blocks += len(parts)

    def orphans(self, slots: dict[int, int]) -> None:
        """The orphan file: slot number -> inode."""
        per = self.fmt.orphans_per_block
        table = self.inode(ORPHAN_FILE_INO, stat.S_IFREG | 0o600)
        count = max(slots) // per + 1
        first = self.take(count)
        for number in range(count):
            block = OrphanBlock.fresh(self.fmt)
            for slot, ino in slots.items():
                if slot // per == number:
                    block.slots[slot % per] = OrphanSlot(ino, self.inodes[ino].generation, 0, 0)
                    self.inodes[ino].orphan_slot = slot + 1
            self.put(first + number, block)
        table.set_entries(FORM_EXTENTS, ((0, EXTENT.pack(first, count, 0)),))
        table.blocks = count

    # --- the end ---
    def finish(self) -> Image:
        table = self.inode(INODE_FILE_INO, stat.S_IFREG | 0o600)
        table.set_entries(
            FORM_EXTENTS,
            tuple((at, EXTENT.pack(where, length, 0)) for at, where, length in sorted(self.table)),
        )
        table.blocks = sum(length for _, _, length in self.table)
        self._write_inodes()
        for group, address in self.bitmaps.items():
            bitmap = Bitmap.empty(self.fmt, group)
            for ino in [*range(8), *self.inodes]:
                if ino // self.fmt.inodes_per_group == group:
                    bitmap.bits[ino % self.fmt.inodes_per_group] = 1
            self.put(address, bitmap)
        size = self.fmt.bits_per_bitmap
        for group in range(self.superblock.groups):
            bits = self.used[group * size : (group + 1) * size]
            bits.extend([1] * (size - len(bits)))
            self.put(self.superblock.bitmap_address(group), Bitmap(group, bits))
        return self.image

    def _write_inodes(self) -> None:
        fmt = self.fmt
        for logical, physical, length in self.table:
            for offset in range(length):
                group, inside = divmod(logical + offset, fmt.inode_group_blocks)
                if not inside:
                    continue
                first = group * fmt.inodes_per_group + (inside - 1) * fmt.inodes_per_block
                inodes = [self.inodes.get(ino, Inode(ino)) for ino in range(first, first + fmt.inodes_per_block)]
                address = physical + offset
                self.image.put_raw(address, b"".join(i.encode(fmt, address) for i in inodes))


def _build() -> Image:
    b = Builder()
    b.add_scattered_chunk(1)
    b.add_group(1)
    small = b.file(SMALL, size=5, xattrs=pack_xattrs({b"user.colour": b"red", b"user.a": b""}))
    small.set_inline(b"hello")
    b.file(SPARSE, size=100_000).set_inline(b"a hole follows")
    b.map(
        b.file(EXTENTS, 2, size=12 * BLOCK_SIZE - 100),
        [b.extent(0, 3), b.extent(5, 1), b.extent(10, 2, UNWRITTEN)],
    )
    scattered = b.file(TREE, size=80 * BLOCK_SIZE)
    extents = [b.extent(2 * i, 1) for i in range(40)]
    scattered.blocks = len(extents)
    b.tree(ExtentNode, scattered, extents, 20)
    preallocated = [b.extent(0, 1), b.extent(1, 15, UNWRITTEN)]
    b.map(b.file(PREALLOCATED, size=100, flags=FLAG_PREALLOCATED), preallocated)
    b.inode(SYMLINK, stat.S_IFLNK | 0o777, size=9).set_inline(b"../target")
    b.map(b.inode(LONG_SYMLINK, stat.S_IFLNK | 0o777, size=1500), [b.extent(0, 2)])
    b.inode(FIFO, stat.S_IFIFO | 0o600)
    b.inode(DEVICE, stat.S_IFCHR | 0o600, rdev=0x105)
    b.inode(SOCKET, stat.S_IFSOCK | 0o600)
    b.xattrs(b.file(ATTRIBUTES), {b"user.%d" % i: bytes([i]) * 900 for i in range(3)})
    b.file(FAR)
    b.map(b.file(ORPHAN, 0, size=3000), [b.extent(0, 3)])
    for index in range(BIG_ENTRIES):
        b.file(FIRST_IN_CHUNK_1 + index)
    _build_directories(b)
    b.orphans({0: ORPHAN, 33: ORPHAN_DIRECTORY})
    return b.finish()


def _build_directories(b: Builder) -> None:
    b.directory(SUBDIRECTORY, DIRECTORY, {})
    b.directory(DIRECTORY, ROOT_INO, {"sub": SUBDIRECTORY, "hard link": EXTENTS})
    names = {f"entry {i}": FIRST_IN_CHUNK_1 + i for i in range(BIG_ENTRIES)}
    b.directory(BIG, ROOT_INO, names, tree=True)
    files = {
        "small": SMALL, "sparse": SPARSE, "extents": EXTENTS, "tree": TREE, "fifo": FIFO, "far":
        FAR, "preallocated": PREALLOCATED, "symlink": SYMLINK, "long symlink": LONG_SYMLINK,
        "device": DEVICE, "socket": SOCKET, "attributes": ATTRIBUTES,
    }  # fmt: skip
    b.directory(FILES, ROOT_INO, files, tree=True)
    b.directory(ROOT_INO, ROOT_INO, {"dir": DIRECTORY, "big": BIG, "files": FILES})
    b.directory(ORPHAN_DIRECTORY, 0, {}, nlink=0)


@functools.cache
def _sample_bytes() -> bytes:
    return _build().device.snapshot()


def sample() -> Image:
    """A fresh copy of the sample image."""
    return Image(MemoryDevice.from_bytes(_sample_bytes()))


class _Watched(MemoryDevice):
    """Notes which bytes are read."""

    def __init__(self, size: int, *, name: str = "memory", writable: bool = True) -> None:
        super().__init__(size, name=name, writable=writable)
        self.reads: set[tuple[int, int]] = set()

    def read(self, offset: int, length: int) -> bytes:
        self.reads.add((offset, offset + length))
        return super().read(offset, length)


def metadata_blocks(image: bytes) -> list[int]:
    """The blocks that a check of the image reads, without superblocks and log."""
    device = _Watched.from_bytes(image)
    superblock = check_image(device).superblock
    size = superblock.block_size
    blocks = {block for start, end in device.reads for block in range(start // size, -(-end // size))}
    log = range(superblock.journal_start, superblock.journal_start + superblock.journal_blocks)
    return sorted(blocks.difference(log, range(superblock.format.reserved_blocks)))


def edit(obj: Any, **fields: object) -> None:
    """Set attributes: for use in lambdas."""
    for name, value in fields.items():
        setattr(obj, name, value)
