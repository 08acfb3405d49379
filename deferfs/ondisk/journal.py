"""Journal records. The header is the common one, with the transaction id where other blocks have their address.

A transaction lies in consecutive blocks of the circular journal region:

    revoke blocks (0 or more)                    magic DJRV, count x u64: revoked home addresses
    descriptor block, then its images (repeated) magic DJDS, count (at most 63) x (home u64, image CRC u32, 0 u32)
    commit block                                 magic DJCM, blocks u32, body CRC u32, time ns s64, tail id u64

The checksums are seeded with UUID and transaction id, so that what an earlier lap left behind is never taken for a
live record. `owner` holds the index of the block inside its transaction. The body CRC of the commit block covers all
revoke and descriptor blocks, and the descriptors carry the CRC of every image: a commit block that fits proves that
the whole transaction is on disk. A commit with a single barrier relies on this.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import HEADER, HEADER_BYTES, Format

MAGIC_DESCRIPTOR: Final = b"DJDS"
MAGIC_REVOKE: Final = b"DJRV"
MAGIC_COMMIT: Final = b"DJCM"
MAGICS: Final = frozenset((MAGIC_DESCRIPTOR, MAGIC_REVOKE, MAGIC_COMMIT))

_TID_END: Final = 1 << 61
"""Transaction ids lie below. A record with a larger one is ignored: recovery numbers new transactions above everything
in the log, and the superblock must still be able to count them."""
_TAG: Final = struct.Struct("<QII")
"""A tag: home address, CRC of the image, 0."""
_COMMIT: Final = struct.Struct("<IIqQ")
"""The content of a commit block: the fields of `Commit`."""


class Tag(NamedTuple):
    """One image in the log: where it belongs, and the CRC32C of its bytes (seeded like the log's own blocks)."""

    home: int
    crc: int


class Commit(NamedTuple):
    """The content of a commit block: the number of blocks before it, the checksum over them, the time, and the oldest
    transaction of which an image may not have been at home at that time (0 in logs of older programs). When both
    superblocks are lost, `tail_tid` shows where replay has to begin.
    """

    blocks: int
    body_crc: int
    time_ns: int
    tail_tid: int = 0


def transaction_blocks(fmt: Format, images: int, revokes: int) -> int:
    """Log blocks of a transaction with `images` images and `revokes` revokes."""
    return images + -(-images // fmt.tags_per_descriptor) + -(-revokes // fmt.revokes_per_block) + 1


def _block(fmt: Format, magic: bytes, tid: int, index: int, count: int, body: bytes) -> bytes:
    block = bytearray(fmt.header(magic, tid, index, count) + body)
    block.extend(bytes(fmt.block_size - len(block)))
    return fmt.seal(tid, block)


def encode_descriptor(fmt: Format, tid: int, index: int, tags: list[Tag]) -> bytes:
    """A sealed descriptor block, block `index` of transaction `tid`."""
    body = b"".join(_TAG.pack(tag.home, tag.crc, 0) for tag in tags)
    return _block(fmt, MAGIC_DESCRIPTOR, tid, index, len(tags), body)


def encode_revoke(fmt: Format, tid: int, index: int, addresses: list[int]) -> bytes:
    """A sealed revoke block."""
    body = struct.pack(f"<{len(addresses)}Q", *addresses)
    return _block(fmt, MAGIC_REVOKE, tid, index, len(addresses), body)


def encode_commit(fmt: Format, tid: int, index: int, commit: Commit) -> bytes:
    """A sealed commit block."""
    return _block(fmt, MAGIC_COMMIT, tid, index, 1, _COMMIT.pack(*commit))


def peek(fmt: Format, data: bytes) -> tuple[bytes, int, int, int] | None:
    """(magic, tid, index, count) when `data` is a valid journal block of any transaction, else None."""
    crc, magic, tid, index, count, _, _ = HEADER.unpack_from(data)
    if magic not in MAGICS or tid >= _TID_END or crc != fmt.checksum(tid, memoryview(data)[4:]):
        return None
    return magic, tid, index, count


def decode_tags(fmt: Format, data: bytes, count: int) -> list[Tag]:
    """The tags of a descriptor block; CorruptionError when it counts more than it can hold."""
    if count > fmt.tags_per_descriptor:
        raise CorruptionError("journal descriptor counts too many images")
    end = HEADER_BYTES + count * _TAG.size
    return [Tag(home, crc) for home, crc, _ in _TAG.iter_unpack(data[HEADER_BYTES:end])]


def decode_revokes(fmt: Format, data: bytes, count: int) -> list[int]:
    """The addresses of a revoke block; CorruptionError when it counts more than it can hold."""
    if count > fmt.revokes_per_block:
        raise CorruptionError("journal revoke block counts too many addresses")
    return list(struct.unpack_from(f"<{count}Q", data, HEADER_BYTES))


def decode_commit(data: bytes) -> Commit:
    """The content of a commit block."""
    return Commit(*_COMMIT.unpack_from(data, HEADER_BYTES))
