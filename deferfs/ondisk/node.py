"""B+tree nodes, shared by extents and directories.

After the block header (owner: the inode; count: entries; level: 0 for a leaf) come

    keys      count x u64
    lengths   count x u16, only in leaves of directories (values of varying length)
    values    children (count x u64) in inner nodes; 16 bytes each in extent leaves; concatenated in directory leaves

An extent value is the physical block (u64), the length in blocks (u32) and flags (u32: 1 = unwritten).
A directory value is the inode (u64), the file type (u8) and the name (1 to 255 bytes).
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import ClassVar, Final, Self

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import HEADER_BYTES, Format

EXTENT: Final = struct.Struct("<QII")
"""An extent: physical block, length in blocks, flags."""
UNWRITTEN: Final = 1
"""Flag of an extent: its blocks are allocated, and read as zeros."""
_KEY_BYTES: Final = 8
_BIG_ENDIAN: Final = sys.byteorder == "big"


def _u64s(data: bytes) -> array[int]:
    numbers = array("Q", data)
    if _BIG_ENDIAN:
        numbers.byteswap()
    return numbers


def _bytes(numbers: array[int]) -> bytes:
    if _BIG_ENDIAN:
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


class Node:
    """One node. Inner nodes (`level > 0`) use `children`, leaves use `values`.

    Invariant: `keys` ascend strictly; `used` is the encoded size in bytes; an inner node has as many keys as
    children, and `keys[i]` is not larger than any key below `children[i]`.
    """

    __slots__ = ("children", "keys", "level", "owner", "used", "values")
    MAGIC: ClassVar[bytes]
    LEAF_ENTRY_BYTES: ClassVar[int]
    """Bytes of a leaf entry besides its value."""

    def __init__(self, owner: int, level: int = 0) -> None:
        self.owner = owner
        self.level = level
        self.keys: array[int] = array("Q")
        self.values: list[bytes] = []
        self.children: array[int] = array("Q")
        self.used = HEADER_BYTES

    def entry_bytes(self, index: int) -> int:
        """Encoded bytes of entry `index`."""
        if self.level:
            return 2 * _KEY_BYTES
        return self.LEAF_ENTRY_BYTES + len(self.values[index])

    def insert_value(self, index: int, key: int, value: bytes) -> None:
        self.keys.insert(index, key)
        self.values.insert(index, value)
        self.used += self.LEAF_ENTRY_BYTES + len(value)

    def insert_child(self, index: int, key: int, child: int) -> None:
        self.keys.insert(index, key)
        self.children.insert(index, child)
        self.used += 2 * _KEY_BYTES

    def delete(self, index: int) -> None:
        self.used -= self.entry_bytes(index)
        del self.keys[index]
        if self.level:
            del self.children[index]
        else:
            del self.values[index]

    def take_from(self, other: Node, start: int, stop: int) -> None:
        """Append entries [start, stop) of `other` to this node (the caller deletes them there)."""
        moved = sum(other.entry_bytes(i) for i in range(start, stop))
        self.keys.extend(other.keys[start:stop])
        self.values.extend(other.values[start:stop])
        self.children.extend(other.children[start:stop])
        self.used += moved

    def truncate(self, count: int) -> None:
        """Keep the first `count` entries."""
        self.used -= sum(self.entry_bytes(i) for i in range(count, len(self.keys)))
        del self.keys[count:]
        del self.values[count:]
        del self.children[count:]

    def copy(self) -> Self:
        new = type(self)(self.owner, self.level)
        new.keys = self.keys[:]
        new.values = self.values[:]
        new.children = self.children[:]
        new.used = self.used
        return new

    def cost(self, fmt: Format) -> int:
        if self.level:
            return fmt.block_size + 300
        return 300 + self.used + 48 * len(self.values)

    @classmethod
    def decode(cls, fmt: Format, address: int, data: bytes) -> Self:
        owner, count, level = fmt.open_header(address, data, cls.MAGIC)
        node = cls(owner, level)
        at = HEADER_BYTES + count * _KEY_BYTES
        if at > len(data):
            raise CorruptionError(f"block {address}: {count} entries do not fit into a node")
        node.keys = _u64s(data[HEADER_BYTES:at])
        try:
            if level:
                node.children = _u64s(data[at : at + count * _KEY_BYTES])
                node.used = HEADER_BYTES + 2 * _KEY_BYTES * count
                if len(node.children) != count:
                    raise ValueError
            else:
                node.used = node._decode_values(data, at, count)
        except (ValueError, struct.error):
            raise CorruptionError(f"block {address}: damaged node") from None
        return node

    def encode(self, fmt: Format, address: int) -> bytes:
        body = bytearray(fmt.block_size)
        body[:HEADER_BYTES] = fmt.header(self.MAGIC, address, self.owner, len(self.keys), self.level)
        packed = _bytes(self.keys)
        packed += _bytes(self.children) if self.level else self._encode_values()
        assert HEADER_BYTES + len(packed) == self.used <= fmt.block_size, "node outgrew its block"
        body[HEADER_BYTES : self.used] = packed
        return fmt.seal(address, body)

    def _decode_values(self, data: bytes, at: int, count: int) -> int:
        raise NotImplementedError

    def _encode_values(self) -> bytes:
        raise NotImplementedError


class ExtentNode(Node):
    """Keys are logical blocks of a file, values extents."""

    __slots__ = ()
    MAGIC: ClassVar[bytes] = b"DXTN"
    LEAF_ENTRY_BYTES: ClassVar[int] = _KEY_BYTES

    def _decode_values(self, data: bytes, at: int, count: int) -> int:
        end = at + count * EXTENT.size
        if end > len(data):
            raise ValueError
        self.values = [data[i : i + EXTENT.size] for i in range(at, end, EXTENT.size)]
        return end

    def _encode_values(self) -> bytes:
        return b"".join(self.values)


class DirectoryNode(Node):
    """Keys are name hashes (see `directory.py`), values directory entries."""

    __slots__ = ()
    MAGIC: ClassVar[bytes] = b"DDIR"
    LEAF_ENTRY_BYTES: ClassVar[int] = _KEY_BYTES + 2

    def _decode_values(self, data: bytes, at: int, count: int) -> int:
        lengths = struct.unpack_from(f"<{count}H", data, at)
        at += 2 * count
        values = self.values
        for length in lengths:
            values.append(data[at : at + length])
            at += length
        if at > len(data):
            raise ValueError
        return at

    def _encode_values(self) -> bytes:
        lengths = struct.pack(f"<{len(self.values)}H", *map(len, self.values))
        return lengths + b"".join(self.values)
