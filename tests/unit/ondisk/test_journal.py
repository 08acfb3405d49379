import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import HEADER_BYTES, IMAGES_PER_DESCRIPTOR_MAX, Format
from deferfs.ondisk.journal import (
    MAGIC_COMMIT,
    MAGIC_DESCRIPTOR,
    MAGIC_REVOKE,
    Commit,
    Tag,
    decode_commit,
    decode_revokes,
    decode_tags,
    encode_commit,
    encode_descriptor,
    encode_revoke,
    peek,
    transaction_blocks,
)
from tests.unit.volumes import HASH_KEY, formats

FORMATS = formats()
FMT = FORMATS[0]
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
tids = st.integers(0, 2**61 - 1)


@given(fmt=st.sampled_from(FORMATS), tid=tids, index=u64, data=st.data())
def test_descriptors_round_trip(fmt: Format, tid: int, index: int, data: st.DataObject) -> None:
    tags = data.draw(st.lists(st.builds(Tag, u64, u32), max_size=fmt.tags_per_descriptor))
    block = encode_descriptor(fmt, tid, index, tags)
    assert len(block) == fmt.block_size
    assert peek(fmt, block) == (MAGIC_DESCRIPTOR, tid, index, len(tags))
    assert decode_tags(fmt, block, len(tags)) == tags


@given(fmt=st.sampled_from(FORMATS), tid=tids, data=st.data())
def test_revokes_round_trip(fmt: Format, tid: int, data: st.DataObject) -> None:
    addresses = data.draw(st.lists(u64, max_size=min(200, fmt.revokes_per_block)))
    block = encode_revoke(fmt, tid, 0, addresses)
    assert len(block) == fmt.block_size
    assert peek(fmt, block) == (MAGIC_REVOKE, tid, 0, len(addresses))
    assert decode_revokes(fmt, block, len(addresses)) == addresses


@given(tid=tids, index=u64, blocks=u32, crc=u32, time=st.integers(-(2**63), 2**63 - 1))
def test_commits_round_trip(tid: int, index: int, blocks: int, crc: int, time: int) -> None:
    block = encode_commit(FMT, tid, index, Commit(blocks, crc, time))
    assert peek(FMT, block) == (MAGIC_COMMIT, tid, index, 1)
    assert decode_commit(block) == Commit(blocks, crc, time)


def test_records_lie_where_the_docstring_says() -> None:
    block = encode_descriptor(FMT, 5, 2, [Tag(0x99, 0x77)])
    assert struct.unpack_from("<4sQQI", block, 4) == (b"DJDS", 5, 2, 1)
    assert struct.unpack_from("<QII", block, HEADER_BYTES) == (0x99, 0x77, 0)
    assert struct.unpack_from("<IIq", encode_commit(FMT, 5, 2, Commit(3, 4, -1)), HEADER_BYTES) == (3, 4, -1)


@pytest.mark.parametrize(("fmt", "tags", "revokes"), list(zip(FORMATS, (62, 63, 63), (124, 508, 8188), strict=True)))
def test_capacities(fmt: Format, tags: int, revokes: int) -> None:
    assert fmt.tags_per_descriptor == tags <= IMAGES_PER_DESCRIPTOR_MAX
    assert fmt.revokes_per_block == revokes


@pytest.mark.parametrize(
    ("images", "revokes", "blocks"), [(1, 0, 3), (62, 0, 64), (63, 0, 66), (0, 1, 2), (0, 125, 3), (1, 124, 4)]
)
def test_blocks_of_a_transaction(images: int, revokes: int, blocks: int) -> None:
    assert transaction_blocks(FMT, images, revokes) == blocks


@pytest.mark.parametrize("at", [0, 4, 8, 16, 24, HEADER_BYTES, 1023])
def test_peek_takes_no_damaged_block_for_a_record(at: int) -> None:
    block = bytearray(encode_descriptor(FMT, 5, 0, [Tag(1, 2)]))
    block[at] ^= 1
    assert peek(FMT, bytes(block)) is None


def test_the_checksum_is_seeded_with_filesystem_and_transaction() -> None:
    assert peek(Format(1024, b"f" * 16, HASH_KEY), encode_commit(FMT, 5, 0, Commit(0, 0, 0))) is None
    stale = bytearray(encode_commit(FMT, 5, 0, Commit(0, 0, 0)))
    struct.pack_into("<Q", stale, 8, 6)
    assert peek(FMT, bytes(stale)) is None


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(CorruptionError):
        decode_tags(FMT, bytes(1024), FMT.tags_per_descriptor + 1)
    with pytest.raises(CorruptionError):
        decode_revokes(FMT, bytes(1024), FMT.revokes_per_block + 1)
