"""An image in memory, read and written piece by piece, and the means to damage it in one place."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from bitarray import bitarray

from deferfs.check import check_image
from deferfs.device import MemoryDevice
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import INODE_BYTES, SUPERBLOCK_OFFSETS, Block, Format
from deferfs.ondisk.inode import INODE_FILE_INO, Inode
from deferfs.ondisk.journal import Commit, Tag, encode_commit, encode_descriptor, encode_revoke
from deferfs.ondisk.node import EXTENT
from deferfs.ondisk.spare import encode_spare
from deferfs.ondisk.superblock import Superblock, newest

B = TypeVar("B", bound=Block)


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

    def put_spares(self) -> None:
        """Write every spare as the superblock is now."""
        superblock = self.superblock
        for address in superblock.spares:
            self.put_raw(address, encode_spare(superblock, address))

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
        """Damage some bytes without sealing the block; more than a checksum can correct."""
        data = bytearray(self.raw(address))
        middle = self.fmt.block_size // 2 + 8  # of the inode table: where a record says whose it is
        data[middle : middle + 4] = bytes(byte ^ 0x5A for byte in data[middle : middle + 4])
        self.put_raw(address, bytes(data))

    def flip(self, address: int, bit: int) -> None:
        """Turn one bit of a block without sealing it."""
        data = bytearray(self.raw(address))
        data[bit // 8] ^= 1 << bit % 8
        self.put_raw(address, bytes(data))

    # --- inodes ---
    def locate(self, ino: int) -> tuple[int, int]:
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
        address, slot = self.locate(ino)
        return self.raw(address)[slot * INODE_BYTES : (slot + 1) * INODE_BYTES]

    def inode(self, ino: int) -> Inode:
        return Inode.decode(self.fmt, self.locate(ino)[0], self.raw_inode(ino))

    def put_record(self, ino: int, record: bytes) -> None:
        """Put 512 bytes where the record of `ino` belongs."""
        address, slot = self.locate(ino)
        self.device.write(address * self.fmt.block_size + slot * INODE_BYTES, record)

    def put_inode(self, inode: Inode, at: int | None = None) -> None:
        ino = inode.ino if at is None else at
        self.put_record(ino, inode.encode(self.fmt, self.locate(ino)[0]))

    def change_inode(self, ino: int, **fields: object) -> None:
        inode = self.inode(ino)
        for name, value in fields.items():
            setattr(inode, name, value)
        self.put_inode(inode)

    def patch_inode(self, ino: int, offset: int, data: bytes) -> None:
        """Overwrite bytes of a record and seal it."""
        self.patch_record(self.locate(ino), offset, data)

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
        """The first of `count` consecutive free blocks."""
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
    def log(
        self, position: int, tid: int, images: dict[int, bytes], revokes: tuple[int, ...] = (), tail_tid: int = 0
    ) -> int:
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
        blocks.append(encode_commit(fmt, tid, len(blocks), Commit(len(blocks), crc, 7, tail_tid)))
        for index, block in enumerate(blocks, position):
            self.put_raw(superblock.journal_start + index % superblock.journal_blocks, block)
        return position + len(blocks)


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
