"""Orphan table blocks: slots of 32 bytes after the common header (owner: the orphan file).

    inode u64 (0: the slot is free), generation u32, flags u32, cursor u64, blocks u64

The cursor is the number of logical blocks that inactivation has still to process; it only falls. `blocks` counts what
the inode holds, as in its record: so a mount knows what it will get back without reading the records. Flag 1:
quarantine, the inactivation failed for good.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import ClassVar, Final, Literal, NamedTuple

from deferfs.ondisk.format import HEADER_BYTES, ORPHAN_SLOT_BYTES, Format
from deferfs.ondisk.inode import ORPHAN_FILE_INO

_SLOT: Final = struct.Struct("<QIIQQ")
"""A slot: the fields of `OrphanSlot`."""
assert _SLOT.size == ORPHAN_SLOT_BYTES
_FLAGS_AT: Final = 12
"""Offset of the flags in a slot, in bytes."""
_BLOCKS_AT: Final = 24
"""Offset of `blocks` in a slot, in bytes."""


class OrphanSlot(NamedTuple):
    """One slot: the inode that waits, and how far its inactivation is."""

    ino: int
    generation: int
    flags: int
    cursor: int
    blocks: int = 0


FREE_SLOT: Final = OrphanSlot(0, 0, 0, 0)
"""A slot that holds no inode."""
ORPHAN_QUARANTINED: Final = 1
"""Flag of a slot: the inactivation of the inode has failed for good."""


def _numbers(fmt: Format, data: bytes, code: Literal["I", "Q"]) -> array[int]:
    """The slots of a block as unsigned integers of 4 or 8 bytes."""
    numbers = array(code, data[HEADER_BYTES : HEADER_BYTES + fmt.orphans_per_block * ORPHAN_SLOT_BYTES])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class OrphanBlock:
    """`slots` has `fmt.orphans_per_block` entries; a free slot equals FREE_SLOT."""

    __slots__ = ("slots",)
    MAGIC: ClassVar[bytes] = b"DORP"

    def __init__(self, slots: list[OrphanSlot]) -> None:
        self.slots = slots

    @classmethod
    def fresh(cls, fmt: Format) -> OrphanBlock:
        return cls([FREE_SLOT] * fmt.orphans_per_block)

    @classmethod
    def count(cls, fmt: Format, address: int, data: bytes) -> int:
        """Used slots of a sealed block, without decoding them. CorruptionError."""
        return fmt.open_header(address, data, cls.MAGIC)[1]

    @classmethod
    def total_blocks(cls, fmt: Format, data: bytes) -> int:
        """Blocks held by all the inodes of a sealed block that is sound, without decoding it."""
        return sum(_numbers(fmt, data, "Q")[_BLOCKS_AT // 8 :: ORPHAN_SLOT_BYTES // 8])

    @classmethod
    def flagged(cls, fmt: Format, data: bytes) -> bool:
        """Whether any slot of a sealed block that is sound has a flag, without decoding it."""
        return any(_numbers(fmt, data, "I")[_FLAGS_AT // 4 :: ORPHAN_SLOT_BYTES // 4])

    @classmethod
    def decode(cls, fmt: Format, address: int, data: bytes) -> OrphanBlock:
        fmt.open_header(address, data, cls.MAGIC)
        end = HEADER_BYTES + fmt.orphans_per_block * ORPHAN_SLOT_BYTES
        return cls(
            [
                OrphanSlot(ino, generation, flags, cursor, blocks) if ino else FREE_SLOT
                for ino, generation, flags, cursor, blocks in _SLOT.iter_unpack(data[HEADER_BYTES:end])
            ]
        )

    def encode(self, fmt: Format, address: int) -> bytes:
        count = sum(1 for slot in self.slots if slot.ino)
        body = bytearray(fmt.block_size)
        body[:HEADER_BYTES] = fmt.header(self.MAGIC, address, ORPHAN_FILE_INO, count)
        at = HEADER_BYTES
        for slot in self.slots:
            _SLOT.pack_into(body, at, *slot)
            at += ORPHAN_SLOT_BYTES
        return fmt.seal(address, body)

    def copy(self) -> OrphanBlock:
        return OrphanBlock(self.slots[:])

    def cost(self, fmt: Format) -> int:
        return 200 + 120 * len(self.slots)
