"""Spare superblocks: copies of what never changes, far from both superblocks, that can be found without one.

A spare is a metadata block of its own, with the common header (so that it proves its address, and a copy of another
image inside a file is never taken for one) and a superblock of 512 bytes behind it. That superblock holds none of the
counters: `Superblock.spare_form` says what is left out. A spare is written when the geometry is, and not again.

Every spare lies at a multiple of 64 KiB, which is a block address for every block size. The places are 1 MiB x 3^k and
the end of the filesystem; where one of them is in use, the next free multiple of 64 KiB behind it is taken (at the end:
before it). So a search looks at the places first, and at every multiple of 64 KiB when that finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from deferfs.errors import CorruptionError, ImageError
from deferfs.limits import MIB, SPARES_IMAGE_BYTES_MIN, SPARES_MAX
from deferfs.ondisk.format import HEADER_BYTES, SUPERBLOCK_BYTES, Format
from deferfs.ondisk.superblock import Superblock

MAGIC: Final = b"DSPR"
STEP_BYTES: Final = 65536
"""Every spare lies at a multiple of this."""
HEAD_BYTES: Final = HEADER_BYTES + SUPERBLOCK_BYTES
"""The part of a spare that has content: header and superblock."""
_FIRST_BYTES: Final = 1 * MIB
"""The lowest nominal place."""
_RATIO: Final = 3
"""Each nominal place is this many times the one before."""


def nominal_places(end: int) -> list[int]:
    """The byte offsets 1 MiB x 3^k below `end`; one less than SPARES_MAX of them at most."""
    places = (_FIRST_BYTES * _RATIO**k for k in range(SPARES_MAX - 1))
    return [place for place in places if place < end]


def places_on(device_bytes: int) -> list[int]:
    """Byte offsets at which a search on a device of that size looks first: those of a filesystem of any block size that
    fills it."""
    last = device_bytes // STEP_BYTES * STEP_BYTES
    ends = (last - STEP_BYTES, last)
    places = [*nominal_places(device_bytes), *(end for end in ends if end >= _FIRST_BYTES)]
    return sorted({place for place in places if place + HEAD_BYTES <= device_bytes})


def choose_places(superblock: Superblock, kept: Iterable[int], is_free: Callable[[int], bool]) -> list[int]:
    """The block addresses of all spares that the filesystem should have, ascending: those in `kept`, and where a place
    has none, the next block at a multiple of 64 KiB that `is_free`. None in a filesystem that is too small.
    """
    size = superblock.block_size
    step, total = STEP_BYTES // size, superblock.blocks * size
    if total < SPARES_IMAGE_BYTES_MIN:
        return []
    end = (total - size) // STEP_BYTES * step
    starts = [place // size for place in nominal_places(end * size)]
    left = sorted(kept)[:SPARES_MAX]
    chosen: list[int] = []
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        own = [address for address in left if start <= address < stop]
        if own:
            left.remove(own[0])
            chosen.append(own[0])
        elif len(chosen) + len(left) < SPARES_MAX:
            chosen += _first(range(start, stop, step), is_free)
    if left:
        return sorted({*chosen, *left})
    lowest = starts[-1]
    return sorted({*chosen, *_first(range(end, lowest, -step), is_free)})


def _first(addresses: range, is_free: Callable[[int], bool]) -> list[int]:
    for address in addresses:
        if is_free(address):
            return [address]
    return []


def encode_spare(superblock: Superblock, address: int) -> bytes:
    """The sealed block of the spare of `superblock` at block `address`."""
    fmt = superblock.format
    body = bytearray(fmt.header(MAGIC, address, 0, 1) + superblock.spare_form().encode())
    body.extend(bytes(fmt.block_size - len(body)))
    return fmt.seal(address, body)


def spare_head(data: bytes) -> Superblock:
    """What the first HEAD_BYTES of a spare say, valid only once `open_spare` has checked the block. ImageError."""
    if len(data) < HEAD_BYTES or data[4:8] != MAGIC:
        raise ImageError("no spare superblock there")
    return Superblock.decode(data[HEADER_BYTES:HEAD_BYTES])


def open_spare(fmt: Format, address: int, data: bytes) -> Superblock:
    """The superblock in a spare at block `address`. CorruptionError."""
    fmt.open_header(address, data, MAGIC)
    try:
        return Superblock.decode(data[HEADER_BYTES:HEAD_BYTES])
    except ImageError as error:
        raise CorruptionError(f"block {address}: {error}") from error
