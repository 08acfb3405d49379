"""The superblock: 512 bytes, one disk sector, so that a torn write cannot mix two of them.

Two copies, at byte offsets 0 and 65536, are written in turn; the valid one with the larger `sequence` counts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

import google_crc32c

from deferfs.errors import ImageError
from deferfs.limits import (
    BITMAP_REGIONS_MAX,
    BLOCK_SIZE_BYTES_MAX,
    BLOCK_SIZE_BYTES_MIN,
    JOURNAL_BYTES_MAX,
    SPARES_MAX,
)
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Format
from deferfs.ondisk.inode import FLAG_KEYS31

MAGIC: Final = b"deferfs\x01"
VERSION: Final = 1
"""Version of the format."""
FEATURES_COMPATIBLE: Final = 0
"""Compatible features of a superblock unless its maker sets some."""
FEATURES_READ_ONLY: Final = 0
"""Read-only compatible features that this program supports."""
FEATURE_KEYS31: Final = 1
"""Incompatible: directories may have FLAG_KEYS31, and new ones do."""
FEATURES_INCOMPATIBLE: Final = FEATURE_KEYS31
"""Incompatible features that this program supports. A new filesystem has all of them."""
COMPATIBLE_SPARES: Final = 1
"""Spare superblocks are kept. Compatible: a program that does not support them leaves their blocks alone, since they
are marked in use, and writes a superblock without the list of them: then they are blocks that belong to no file, which
its fsck may free."""
COUNTER_END: Final = 1 << 62
"""Sequences and transaction ids stay below it: a damaged one must not overflow its field when it grows."""
COUNTER_SANE_MAX: Final = 1 << 60
"""No amount of writing reaches it: a counter above it is damaged. fsck renumbers, and a mount is refused."""
STATE_CLEAN: Final = 1
"""The log is empty and every structure is at home."""
STATE_ERRORS: Final = 2
"""An error was found while mounted: the image needs a full check."""
STATE_REPAIRING: Final = 4
"""A repair has begun and not ended: some of it may be on the disk, the rest not. Only fsck may write."""

_HEAD: Final = struct.Struct("<I8sIIIIQ16s32sIIQQQQQQqqQIQQ")
"""crc, magic, version, compat, ro_compat, incompat, sequence, uuid, label, block_size, state,
blocks, journal_start, journal_blocks, journal_tail, tail_tid, inode_root, created_ns, written_ns,
mounts, regions, hash_key (2 x u64)"""
_REGION: Final = struct.Struct("<QQ")
"""A bitmap region: first block, blocks."""
_SPARES: Final = struct.Struct(f"<{SPARES_MAX}Q")
_SPARES_AT: Final = _HEAD.size + BITMAP_REGIONS_MAX * _REGION.size
"""Offset of the list of spares, in bytes."""
_CRC: Final = struct.Struct("<I")
assert _SPARES_AT + _SPARES.size <= SUPERBLOCK_BYTES


class UnsupportedFormatError(ImageError):
    """A whole superblock of a format that this program does not support. `sequence` shows whether it is the newer."""

    def __init__(self, message: str, sequence: int) -> None:
        super().__init__(message)
        self.sequence = sequence


@dataclass(frozen=True, slots=True)
class Superblock:
    """All that must be known before anything else can be read.

    Units: addresses and lengths in blocks, times in ns since the epoch. `journal_tail` is the offset inside the
    journal region of the oldest transaction that recovery must replay, `tail_tid` its transaction id.
    """

    uuid: bytes
    label: bytes
    block_size: int
    blocks: int
    journal_start: int
    journal_blocks: int
    inode_root: int
    bitmap_regions: tuple[tuple[int, int], ...]
    hash_key: bytes
    created_ns: int
    sequence: int = 0
    state: int = STATE_CLEAN
    journal_tail: int = 0
    tail_tid: int = 1
    written_ns: int = 0
    mounts: int = 0
    compatible: int = FEATURES_COMPATIBLE
    read_only_compatible: int = FEATURES_READ_ONLY
    incompatible: int = FEATURES_INCOMPATIBLE
    spares: tuple[int, ...] = ()
    """Block addresses of the spare superblocks, ascending, at most SPARES_MAX."""

    @property
    def clean(self) -> bool:
        return bool(self.state & STATE_CLEAN)

    @property
    def format(self) -> Format:
        return Format(self.block_size, self.uuid, self.hash_key)

    @property
    def directory_flags(self) -> int:
        """Flags of a new directory's inode."""
        return FLAG_KEYS31 if self.incompatible & FEATURE_KEYS31 else 0

    def with_keys31(self) -> Superblock:
        """The same, with FEATURE_KEYS31."""
        return replace(self, incompatible=self.incompatible | FEATURE_KEYS31)

    @property
    def groups(self) -> int:
        """Number of free-space bitmaps."""
        bits = (self.block_size - 32) * 8
        return -(-self.blocks // bits)

    def bitmap_address(self, group: int) -> int:
        """Block address of the bitmap of `group`."""
        for start, length in self.bitmap_regions:
            if group < length:
                return start + group
            group -= length
        raise ImageError("bitmap regions are too short for the image")

    def may_hold(self, first: int, length: int) -> bool:
        """Whether a file may lie in these blocks: inside the filesystem and outside of its fixed areas."""
        end = first + length
        if not SUPERBLOCK_OFFSETS[1] // self.block_size < first < end <= self.blocks:
            return False
        if first < self.journal_start + self.journal_blocks and self.journal_start < end:
            return False
        for start, count in self.bitmap_regions:
            if first < start + count and start < end:
                return False
        for spare in self.spares:  # noqa: SIM110 - a loop as the one above
            if first <= spare < end:
                return False
        return True

    def beside_a_lost_copy(self) -> Superblock:
        """This superblock, not clean, as it counts while the other copy is damaged: that one may have been the newer,
        of a mount after the clean unmount. Only the log shows whether there is something to replay.
        """
        return replace(self, state=self.state & ~STATE_CLEAN)

    def spare_form(self) -> Superblock:
        """The content of a spare: this superblock without the counters, the state and the log tail, which change."""
        return replace(self, sequence=0, state=0, journal_tail=0, tail_tid=1, written_ns=self.created_ns, mounts=0)

    def next(self, **changes: object) -> Superblock:
        """The successor to be written next: one higher sequence, with `changes`."""
        return replace(self, sequence=self.sequence + 1, **changes)  # type: ignore[arg-type]

    def encode(self) -> bytes:
        body = bytearray(SUPERBLOCK_BYTES)
        key = struct.unpack("<QQ", self.hash_key)
        _HEAD.pack_into(
            body, 0, 0, MAGIC, VERSION, self.compatible, self.read_only_compatible, self.incompatible,
            self.sequence, self.uuid, self.label, self.block_size, self.state, self.blocks,
            self.journal_start, self.journal_blocks, self.journal_tail, self.tail_tid, self.inode_root,
            self.created_ns, self.written_ns, self.mounts, len(self.bitmap_regions), *key,
        )  # fmt: skip
        at = _HEAD.size
        for region in self.bitmap_regions:
            _REGION.pack_into(body, at, *region)
            at += _REGION.size
        _SPARES.pack_into(body, _SPARES_AT, *self.spares, *[0] * (SPARES_MAX - len(self.spares)))
        _CRC.pack_into(body, 0, google_crc32c.value(bytes(body[4:])))
        return bytes(body)

    @classmethod
    def decode(cls, data: bytes) -> Superblock:
        """The superblock in `data` (512 bytes); ImageError says what is wrong with it."""
        if len(data) < SUPERBLOCK_BYTES or data[4:12] != MAGIC:
            raise ImageError("not a deferfs image (no superblock found)")
        (crc, _, version, compat, ro_compat, incompat, sequence, uuid, label, block_size, state, blocks,
         journal_start, journal_blocks, tail, tid, inode_root, created, written, mounts, regions,
         key0, key1) = _HEAD.unpack_from(data)  # fmt: skip
        if crc != google_crc32c.value(bytes(data[4:SUPERBLOCK_BYTES])):
            raise ImageError("superblock has a wrong checksum")
        if version != VERSION:
            raise UnsupportedFormatError(
                f"unsupported format version {version} (this program supports {VERSION})", sequence
            )
        unknown = incompat & ~FEATURES_INCOMPATIBLE
        if unknown:
            raise UnsupportedFormatError(
                f"unknown incompatible feature {unknown:#x}; a newer deferfs made it", sequence
            )
        if regions > BITMAP_REGIONS_MAX:
            raise ImageError("superblock describes an impossible layout")
        found = cls(
            uuid, label.rstrip(b"\0"), block_size, blocks, journal_start, journal_blocks, inode_root,
            tuple(
                _REGION.unpack_from(data, _HEAD.size + i * _REGION.size)
                for i in range(regions)
            ),
            struct.pack("<QQ", key0, key1), created, sequence, state, tail, tid, written, mounts,
            compat, ro_compat, incompat,
            tuple(address for address in _SPARES.unpack_from(data, _SPARES_AT) if address),
        )  # fmt: skip
        found._validate()
        return found

    def _validate(self) -> None:
        size = self.block_size
        if not BLOCK_SIZE_BYTES_MIN <= size <= BLOCK_SIZE_BYTES_MAX or size & (size - 1):
            raise ImageError(f"superblock names an impossible block size {size}")
        regions = self.bitmap_regions
        fits = (
            self.blocks < 1 << 48
            and max(self.sequence, self.tail_tid) < COUNTER_END
            and self.journal_blocks * size <= JOURNAL_BYTES_MAX
            and 0 < self.journal_blocks <= self.blocks
            and self.journal_start + self.journal_blocks <= self.blocks
            and self.journal_tail < self.journal_blocks
            and 0 < self.inode_root < self.blocks
            and all(start + length <= self.blocks for start, length in regions)
            and sum(length for _, length in regions) >= self.groups
        )
        if not fits:
            raise ImageError("superblock describes an impossible layout")


def newest(candidates: list[bytes]) -> Superblock:
    """The superblock that counts among the raw copies found on a device; ImageError when none is valid.

    A copy that was torn while it was written is simply invalid: the other one counts then. A whole copy of an unknown
    format is not skipped in favour of an older one: it describes what is on the disk.
    """
    best: Superblock | None = None
    problem: ImageError | None = None
    unsupported: UnsupportedFormatError | None = None
    for data in candidates:
        try:
            found = Superblock.decode(data)
        except UnsupportedFormatError as unknown:
            if unsupported is None or unknown.sequence > unsupported.sequence:
                unsupported = unknown
            continue
        except ImageError as error:
            if problem is None or "not a deferfs image" in str(problem):
                problem = error
            continue
        if best is None or found.sequence > best.sequence:
            best = found
    if unsupported is not None and (best is None or unsupported.sequence > best.sequence):
        raise unsupported
    if best is None:
        raise problem or ImageError("not a deferfs image (no superblock found)")
    return best if problem is None else best.beside_a_lost_copy()
