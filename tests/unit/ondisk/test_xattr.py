import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import HEADER_BYTES, Format
from deferfs.ondisk.xattr import XattrBlock, pack_xattrs, unpack_xattrs
from tests.unit.volumes import formats

FORMATS = formats()
FMT = FORMATS[0]


@given(st.dictionaries(st.binary(min_size=1, max_size=255), st.binary(max_size=300), max_size=5))
def test_attributes_round_trip(attributes: dict[bytes, bytes]) -> None:
    assert unpack_xattrs(pack_xattrs(attributes)) == attributes


def test_attributes_are_packed_in_the_order_of_their_names() -> None:
    assert pack_xattrs({b"b": b"22", b"a": b""}) == struct.pack("<BI", 1, 0) + b"a" + struct.pack("<BI", 1, 2) + b"b22"


@pytest.mark.parametrize(
    "data",
    [b"\x01", struct.pack("<BI", 1, 0), struct.pack("<BI", 1, 3) + b"nvv", struct.pack("<BI", 0, 1) + b"v"],
)
def test_damaged_attributes_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        unpack_xattrs(data)


@given(
    fmt=st.sampled_from(FORMATS), owner=st.integers(0, 2**64 - 1), following=st.integers(0, 2**64 - 1), data=st.data()
)
def test_blocks_round_trip(fmt: Format, owner: int, following: int, data: st.DataObject) -> None:
    payload = data.draw(st.binary(max_size=XattrBlock.payload_max(fmt)))
    image = XattrBlock(owner, payload, following).encode(fmt, 5)
    assert len(image) == fmt.block_size
    found = XattrBlock.decode(fmt, 5, image)
    assert (found.owner, found.payload, found.next) == (owner, payload, following)


def test_a_block_lies_as_the_docstring_says() -> None:
    image = XattrBlock(9, b"payload", 77).encode(FMT, 5)
    assert FMT.open_header(5, image, b"DXAT") == (9, 7, 0)
    assert image[HEADER_BYTES : HEADER_BYTES + 15] == struct.pack("<Q", 77) + b"payload"
    assert XattrBlock.payload_max(FMT) == 1024 - 32 - 8
    assert len(XattrBlock(9, b"x" * 984, 0).encode(FMT, 5)) == 1024


def test_a_count_past_the_block_is_refused() -> None:
    image = FMT.seal(5, bytearray(FMT.header(b"DXAT", 5, 9, 985).ljust(1024, b"\0")))
    with pytest.raises(CorruptionError, match="damaged xattr block"):
        XattrBlock.decode(FMT, 5, image)
