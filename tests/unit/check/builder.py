"""Images made by hand from the codecs alone."""

from __future__ import annotations

import stat
from dataclasses import replace

from bitarray import bitarray

from deferfs.device import MemoryDevice
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.directory import name_key, pack_entry
from deferfs.ondisk.format import Block, Format
from deferfs.ondisk.inode import (
    FLAG_KEYS31,
    FORM_DIRECTORY_TREE,
    FORM_ENTRIES,
    FORM_EXTENT_TREE,
    FORM_EXTENTS,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    Inode,
)
from deferfs.ondisk.node import EXTENT, DirectoryNode, ExtentNode, Node
from deferfs.ondisk.orphan import OrphanBlock, OrphanSlot
from deferfs.ondisk.spare import choose_places, encode_spare
from deferfs.ondisk.superblock import COMPATIBLE_SPARES, Superblock
from deferfs.ondisk.xattr import XattrBlock, pack_xattrs
from tests.unit.check.image import Image

Entry = tuple[int, bytes]
BLOCK_SIZE, BLOCKS, JOURNAL_BLOCKS = 1024, 9000, 64


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

    def directory(
        self,
        ino: int,
        parent: int,
        names: dict[str, int],
        *,
        tree: bool = False,
        nlink: int = 2,
        flags: int = FLAG_KEYS31,
    ) -> None:
        """A directory of inodes that are there already."""
        entries = [self.entry(name, target, flags) for name, target in names.items()]
        entries.sort()
        inode = self.inode(ino, stat.S_IFDIR | 0o755, nlink, parent=parent, size=len(names), flags=flags)
        for target in names.values():
            if stat.S_ISDIR(self.inodes[target].mode):
                inode.nlink += 1
        if tree:
            self.tree(DirectoryNode, inode, entries, 25)
        else:
            inode.set_entries(FORM_ENTRIES, tuple(entries))

    def entry(self, name: str, ino: int, flags: int) -> Entry:
        encoded = name.encode()
        return name_key(self.fmt, encoded, flags), pack_entry(ino, self.inodes[ino].mode >> 12, encoded)

    def xattrs(self, inode: Inode, values: dict[bytes, bytes]) -> None:
        """Attributes in a chain of blocks."""
        packed, room = pack_xattrs(values), XattrBlock.payload_max(self.fmt)
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
                    block.slots[slot % per] = OrphanSlot(
                        ino, self.inodes[ino].generation, 0, 0, self.inodes[ino].blocks
                    )
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
        self._add_spares()
        size = self.fmt.bits_per_bitmap
        for group in range(self.superblock.groups):
            bits = self.used[group * size : (group + 1) * size]
            bits.extend([1] * (size - len(bits)))
            self.put(self.superblock.bitmap_address(group), Bitmap(group, bits))
        return self.image

    def _add_spares(self) -> None:
        places = choose_places(self.superblock, (), lambda address: not self.used[address])
        self.superblock = replace(self.superblock, spares=tuple(places), compatible=COMPATIBLE_SPARES)
        self.image.put_superblock(self.superblock, (0,))
        self.image.put_superblock(self.superblock.next(), (1,))
        for address in places:
            self.used[address] = 1
            self.image.put_raw(address, encode_spare(self.superblock, address))

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
