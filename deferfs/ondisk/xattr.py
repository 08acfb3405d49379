"""Extended attributes: one byte string per inode, inline in its record or cut into a chain of xattr blocks.

The string is a sequence of (name length u8, value length u32, name, value), sorted by name. An xattr block has the
common header (owner: the inode; count: payload bytes), the next block of the chain (u64, 0 ends it) and the payload.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import HEADER_BYTES, Format

_ITEM: Final = struct.Struct("<BI")
"""The head of an item: length of the name, length of the value."""
_NEXT: Final = struct.Struct("<Q")
"""The next block of the chain."""


def pack_xattrs(xattrs: dict[bytes, bytes]) -> bytes:
    """All attributes as one byte string."""
    return b"".join(_ITEM.pack(len(name), len(xattrs[name])) + name + xattrs[name] for name in sorted(xattrs))


def unpack_xattrs(data: bytes) -> dict[bytes, bytes]:
    """The attributes in `data`; CorruptionError when it is damaged."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        if at + _ITEM.size > len(data):
            raise CorruptionError("damaged extended attributes")
        name_length, value_length = _ITEM.unpack_from(data, at)
        at += _ITEM.size
        end = at + name_length + value_length
        if end > len(data) or not name_length:
            raise CorruptionError("damaged extended attributes")
        found[data[at : at + name_length]] = data[at + name_length : end]
        at = end
    return found


class XattrBlock:
    """One link of the chain."""

    __slots__ = ("next", "owner", "payload")
    MAGIC: ClassVar[bytes] = b"DXAT"

    def __init__(self, owner: int, payload: bytes, following: int) -> None:
        self.owner = owner
        self.payload = payload
        self.next = following

    @staticmethod
    def payload_max(fmt: Format) -> int:
        """Payload bytes of one block."""
        return fmt.block_size - HEADER_BYTES - _NEXT.size

    @classmethod
    def decode(cls, fmt: Format, address: int, data: bytes) -> XattrBlock:
        owner, count, _ = fmt.open_header(address, data, cls.MAGIC)
        if count > cls.payload_max(fmt):
            raise CorruptionError(f"block {address}: damaged xattr block")
        at = HEADER_BYTES + _NEXT.size
        return cls(owner, data[at : at + count], _NEXT.unpack_from(data, HEADER_BYTES)[0])

    def encode(self, fmt: Format, address: int) -> bytes:
        head = fmt.header(self.MAGIC, address, self.owner, len(self.payload)) + _NEXT.pack(self.next)
        body = bytearray(head + self.payload)
        body.extend(bytes(fmt.block_size - len(body)))
        return fmt.seal(address, body)

    def copy(self) -> XattrBlock:
        return XattrBlock(self.owner, self.payload, self.next)

    def cost(self, fmt: Format) -> int:
        return 200 + len(self.payload)
