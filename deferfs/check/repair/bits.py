"""One wrong bit: a checksum shows not only that it is there, but where.

CRC32C is linear: the difference of the checksums of the right and the wrong bytes depends on the place of the wrong bit
alone, and no two places within 2^31 bits have the same difference (Koopman, "32-Bit Cyclic Redundancy Codes for
Internet Applications", DSN 2002: its Hamming distance is at least 4 up to there). So a single bit is not guessed, but
found, and what was written is restored exactly. Of blocks with heavier damage, (bits of a block) in 2^32 look like one
wrong bit: with blocks of 4 KiB one in 131,072. So the caller still validates the corrected block.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from functools import lru_cache
from typing import Final

from deferfs.ondisk.format import Format

_POLYNOMIAL: Final = 0x82F6_3B78
"""The polynomial of CRC32C, bits reflected."""
_PLACE_BITS: Final = 20
"""Bits for a place in `_places`: a block of 64 KiB has 2^19 bits."""
_CRC_BYTES: Final = 4


def correct_block(fmt: Format, tag: int, data: bytes) -> bytes | None:
    """Sealed metadata (a block, an inode record, a journal record) as it was before one of its bits changed.

    None when its checksum is right, or more than one bit is wrong. `tag` is the address or transaction that seeds the
    checksum.
    """
    return correct_sealed(data, fmt.checksum(tag, memoryview(data)[_CRC_BYTES:]))


def correct_sealed(data: bytes, crc: int) -> bytes | None:
    """The same for any record that begins with its checksum; `crc` is the checksum that its other bytes have now."""
    stored = int.from_bytes(data[:_CRC_BYTES], "little")
    difference = stored ^ crc
    if difference.bit_count() == 1:
        return crc.to_bytes(_CRC_BYTES, "little") + data[_CRC_BYTES:]
    return _flipped(data, difference, len(data) - _CRC_BYTES)


def correct_image(fmt: Format, tid: int, crc: int, data: bytes) -> bytes | None:
    """The same for an image in the log of transaction `tid`, whose checksum `crc` is in a descriptor."""
    return _flipped(data, crc ^ fmt.checksum(tid, data), len(data))


def _flipped(data: bytes, difference: int, covered: int) -> bytes | None:
    """`data` with the bit flipped that causes this difference; the checksum is over the last `covered` bytes."""
    places = _places(8 * covered)
    at = bisect_left(places, difference << _PLACE_BITS)
    if not difference or at == len(places) or places[at] >> _PLACE_BITS != difference:
        return None
    byte, bit = divmod(places[at] & ((1 << _PLACE_BITS) - 1), 8)
    body = bytearray(data)
    body[len(data) - 1 - byte] ^= 0x80 >> bit
    return bytes(body)


@lru_cache(maxsize=4)
def _places(bits: int) -> array[int]:
    """Ascending: (difference << _PLACE_BITS) + place, for every place of a wrong bit, counted from the last bit."""
    assert bits <= 1 << _PLACE_BITS
    found: list[int] = []
    difference = _POLYNOMIAL
    for place in range(bits):
        found.append(difference << _PLACE_BITS | place)
        difference = difference >> 1 ^ (_POLYNOMIAL if difference & 1 else 0)
    return array("Q", sorted(found))
