import struct

import google_crc32c
import pytest

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import HEADER_BYTES, Format
from tests.unit.volumes import HASH_KEY, UUID, formats

SMALL = Format(1024, UUID, HASH_KEY)


@pytest.mark.parametrize(
    ("block_size", "expected"),
    [
        # bits, inodes/block, chunk blocks, inodes/chunk, chunks/group, orphans/block, reserved blocks
        (1024, (7936, 2, 32, 64, 124, 31, 65)),
        (4096, (32512, 8, 8, 64, 508, 127, 17)),
        (65536, (524032, 128, 1, 128, 4094, 2047, 2)),
    ],
)
def test_derived_geometry(block_size: int, expected: tuple[int, ...]) -> None:
    fmt = Format(block_size, UUID, HASH_KEY)
    assert (
        fmt.bits_per_bitmap,
        fmt.inodes_per_block,
        fmt.chunk_blocks,
        fmt.inodes_per_chunk,
        fmt.chunks_per_inode_group,
        fmt.orphans_per_block,
        fmt.reserved_blocks,
    ) == expected
    assert fmt.inodes_per_group == fmt.inodes_per_chunk * fmt.chunks_per_inode_group <= fmt.bits_per_bitmap
    assert fmt.inode_group_blocks == 1 + fmt.chunks_per_inode_group * fmt.chunk_blocks


@pytest.mark.parametrize("fmt", formats(), ids=lambda fmt: fmt.block_size)
def test_both_superblocks_lie_in_the_reserved_blocks(fmt: Format) -> None:
    assert fmt.reserved_blocks * fmt.block_size >= 65536 + 512


def sealed(fmt: Format, address: int = 9) -> bytes:
    return fmt.seal(address, bytearray(fmt.header(b"TEST", address, 7, 3, 2).ljust(fmt.block_size, b"x")))


@pytest.mark.parametrize("fmt", formats(), ids=lambda fmt: fmt.block_size)
def test_the_header_lies_where_the_docstring_says(fmt: Format) -> None:
    data = sealed(fmt)
    assert len(data) == fmt.block_size
    assert struct.unpack_from("<4sQQIHH", data, 4) == (b"TEST", 9, 7, 3, 2, 0)
    assert fmt.open_header(9, data, b"TEST") == (7, 3, 2)


def test_the_checksum_covers_uuid_address_and_everything_behind_it() -> None:
    data = sealed(SMALL)
    expected = google_crc32c.value(UUID + struct.pack("<Q", 9) + data[4:])
    assert struct.unpack_from("<I", data) == (expected,)


@pytest.mark.parametrize(
    ("address", "magic", "message"),
    [(9, b"ELSE", "magic"), (8, b"TEST", "misplaced write")],
)
def test_another_block_than_the_wanted_one_is_refused(address: int, magic: bytes, message: str) -> None:
    with pytest.raises(CorruptionError, match=message):
        SMALL.open_header(address, sealed(SMALL), magic)


@pytest.mark.parametrize("at", [0, 3, 4, 8, 16, 24, 28, 30, HEADER_BYTES, 1023])
def test_a_flipped_bit_is_seen(at: int) -> None:
    data = bytearray(sealed(SMALL))
    data[at] ^= 1
    with pytest.raises(CorruptionError):
        SMALL.open_header(9, bytes(data), b"TEST")


def test_a_block_of_another_filesystem_is_refused() -> None:
    other = Format(1024, b"f" * 16, HASH_KEY)
    with pytest.raises(CorruptionError, match="wrong checksum"):
        SMALL.open_header(9, sealed(other), b"TEST")


@pytest.mark.parametrize("block_size", [1024, 4096, 65536])
def test_the_inodes_of_a_table_block_have_one_in_front(block_size: int) -> None:
    fmt = Format(block_size, UUID, HASH_KEY)
    per, group = fmt.inodes_per_block, fmt.inodes_per_group
    for first in (0, per, 3 * per, group - per, group, 5 * group + 7 * per):
        assert {fmt.first_in_table_block(ino) for ino in range(first, first + per)} == {first}
