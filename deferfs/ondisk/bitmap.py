"""Bitmap blocks: one bit per block of a group (free space) or per inode of an inode group. 1 means in use."""

from __future__ import annotations

from typing import ClassVar

from bitarray import bitarray

from deferfs.ondisk.format import HEADER_BYTES, Format


class Bitmap:
    """`bits[i]` is 1 when item `i` of group `owner` is in use; `len(bits) == fmt.bits_per_bitmap`."""

    __slots__ = ("bits", "owner")
    MAGIC: ClassVar[bytes] = b"DBMP"

    def __init__(self, owner: int, bits: bitarray) -> None:
        self.owner = owner
        self.bits = bits

    @classmethod
    def empty(cls, fmt: Format, owner: int) -> Bitmap:
        return cls(owner, bitarray(fmt.bits_per_bitmap, endian="little"))

    @classmethod
    def decode(cls, fmt: Format, address: int, data: bytes) -> Bitmap:
        owner, _, _ = fmt.open_header(address, data, cls.MAGIC)
        bits = bitarray(endian="little")
        bits.frombytes(data[HEADER_BYTES:])
        return cls(owner, bits)

    def encode(self, fmt: Format, address: int) -> bytes:
        count = self.bits.count(1)
        return fmt.seal(address, bytearray(fmt.header(self.MAGIC, address, self.owner, count) + self.bits.tobytes()))

    def copy(self) -> Bitmap:
        return Bitmap(self.owner, self.bits.copy())

    def cost(self, fmt: Format) -> int:
        return fmt.block_size + 200
