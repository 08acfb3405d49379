import dataclasses
import struct
from collections.abc import Callable

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.errors import ImageError
from deferfs.ondisk.format import SUPERBLOCK_BYTES
from deferfs.ondisk.superblock import COUNTER_END, STATE_CLEAN, STATE_ERRORS, Superblock, newest
from tests.unit.volumes import HASH_KEY, UUID

PLAIN = Superblock(
    uuid=UUID,
    label=b"label",
    block_size=1024,
    blocks=9000,
    journal_start=67,
    journal_blocks=256,
    inode_root=324,
    bitmap_regions=((65, 1), (8000, 2)),
    hash_key=HASH_KEY,
    created_ns=-5,
    sequence=3,
)
u32 = st.integers(0, 2**32 - 1)
u63 = st.integers(0, 2**63 - 1)
counters = st.integers(0, COUNTER_END - 1)


def sealed(body: bytearray) -> bytes:
    struct.pack_into("<I", body, 0, google_crc32c.value(bytes(body[4:])))
    return bytes(body)


def forged(at: int, layout: str, value: int) -> bytes:
    """PLAIN with one field changed behind its back, and a right checksum."""
    body = bytearray(PLAIN.encode())
    struct.pack_into(layout, body, at, value)
    return sealed(body)


@given(
    label=st.binary(max_size=32).map(lambda text: text.rstrip(b"\0")),
    created_ns=u63,
    sequence=counters,
    state=st.integers(0, 3),
    tail_tid=counters,
    written_ns=u63,
    mounts=u32,
    hash_key=st.binary(min_size=16, max_size=16),
    uuid=st.binary(min_size=16, max_size=16),
    compatible=u32,
    read_only_compatible=u32,
)
def test_round_trip(**fields: object) -> None:
    superblock = dataclasses.replace(PLAIN, **fields)  # type: ignore[arg-type]
    image = superblock.encode()
    assert len(image) == SUPERBLOCK_BYTES
    assert Superblock.decode(image) == superblock


def test_a_label_takes_all_its_bytes() -> None:
    superblock = dataclasses.replace(PLAIN, label=b"x" * 32)
    assert Superblock.decode(superblock.encode()).label == b"x" * 32


def test_the_next_one_counts_one_further() -> None:
    following = PLAIN.next(state=STATE_ERRORS, mounts=4)
    assert (following.sequence, following.state, following.mounts) == (4, STATE_ERRORS, 4)
    assert PLAIN.clean
    assert not following.clean
    assert PLAIN.state == STATE_CLEAN


def test_bitmaps_are_found_over_the_regions() -> None:
    superblock = dataclasses.replace(PLAIN, blocks=3 * 7936)
    assert superblock.groups == 3
    assert [superblock.bitmap_address(group) for group in range(3)] == [65, 8000, 8001]
    with pytest.raises(ImageError):
        superblock.bitmap_address(3)


@pytest.mark.parametrize("at", [0, 12, 28, 36, 52, 84, 100, 511])
def test_a_flipped_bit_is_seen(at: int) -> None:
    image = bytearray(PLAIN.encode())
    image[at] ^= 1
    with pytest.raises(ImageError, match="wrong checksum"):
        Superblock.decode(bytes(image))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (bytes(512), "not a deferfs image"),
        (b"", "not a deferfs image"),
        (PLAIN.encode()[:-1], "not a deferfs image"),
        (forged(4, "<B", 0), "not a deferfs image"),
        (forged(12, "<I", 2), "unsupported format version 2"),
        (forged(24, "<I", 4), "unknown incompatible feature 0x4"),
        (forged(84, "<I", 0), "impossible block size 0"),
        (forged(84, "<I", 512), "impossible block size 512"),
        (forged(84, "<I", 1536), "impossible block size 1536"),
        (forged(84, "<I", 131072), "impossible block size 131072"),
        (forged(92, "<Q", 10), "impossible layout"),
        (forged(92, "<Q", 1 << 48), "impossible layout"),
        (forged(100, "<Q", 8999), "impossible layout"),
        (forged(108, "<Q", 0), "impossible layout"),
        (forged(116, "<Q", 256), "impossible layout"),
        (forged(132, "<Q", 0), "impossible layout"),
        (forged(132, "<Q", 9000), "impossible layout"),
        (forged(164, "<I", 0), "impossible layout"),
        (forged(164, "<I", 9), "impossible layout"),
    ],
)
def test_impossible_superblocks_are_refused(image: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        Superblock.decode(image)


@pytest.mark.parametrize("at", [16, 20])
def test_unknown_compatible_features_do_no_harm(at: int) -> None:
    assert Superblock.decode(forged(at, "<I", 0x80)).blocks == PLAIN.blocks


OLD, NEW = PLAIN.encode(), PLAIN.next(mounts=9).encode()
TORN = NEW[:100] + OLD[100:]


@pytest.mark.parametrize(
    ("copies", "sequence"),
    [([OLD, NEW], 4), ([NEW, OLD], 4), ([OLD, TORN], 3), ([bytes(512), NEW], 4), ([OLD], 3)],
)
def test_the_newest_valid_copy_counts(copies: list[bytes], sequence: int) -> None:
    assert newest(copies).sequence == sequence


@pytest.mark.parametrize(
    ("copies", "message"),
    [
        ([], "not a deferfs image"),
        ([bytes(512)] * 2, "not a deferfs image"),
        ([bytes(512), TORN], "wrong checksum"),
        ([TORN, bytes(512)], "wrong checksum"),
        ([forged(12, "<I", 2)] * 2, "format version"),
    ],
)
def test_without_a_valid_copy_the_most_telling_problem_is_named(copies: list[bytes], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        newest(copies)


def of_the_future(sequence: int) -> bytes:
    body = bytearray(dataclasses.replace(PLAIN, sequence=sequence).encode())
    struct.pack_into("<I", body, 24, 4)
    return sealed(body)


@pytest.mark.parametrize("copies", [[OLD, of_the_future(4)], [of_the_future(4), OLD]])
def test_a_newer_copy_of_an_unknown_format_is_not_passed_over(copies: list[bytes]) -> None:
    with pytest.raises(ImageError, match="unknown incompatible feature"):
        newest(copies)


def test_an_older_copy_of_an_unknown_format_is() -> None:
    assert newest([of_the_future(2), OLD]).sequence == 3


@pytest.mark.parametrize(
    ("first", "length", "may"),
    [
        (325, 10, True), (8002, 998, True), (66, 1, True), (1, 5, False), (64, 1, False), (65, 1, False),
        (60, 10, False),
        (66, 2, False), (322, 1, False), (323, 1, True), (7999, 2, False), (8001, 1, False), (8999, 2, False),
        (0, 1, False), (1 << 63, 1, False), (325, 0, False),
    ],
)  # fmt: skip
def test_files_lie_outside_of_fixed_areas(first: int, length: int, may: bool) -> None:
    assert PLAIN.may_hold(first, length) is may


@pytest.mark.parametrize(
    "change", [lambda n: dataclasses.replace(PLAIN, sequence=n), lambda n: dataclasses.replace(PLAIN, tail_tid=n)]
)
def test_counters_that_could_overflow_are_refused(change: Callable[[int], Superblock]) -> None:
    whole = change(COUNTER_END - 1)
    assert Superblock.decode(whole.encode()) == whole
    with pytest.raises(ImageError, match="impossible layout"):
        Superblock.decode(change(COUNTER_END).encode())
