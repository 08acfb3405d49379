import pytest
from bitarray import bitarray
from hypothesis import given
from hypothesis import strategies as st

from deferfs.errors import CorruptionError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import HEADER_BYTES, Format
from tests.unit.volumes import formats

FORMATS = formats()


@given(fmt=st.sampled_from(FORMATS), owner=st.integers(0, 2**63), data=st.data())
def test_round_trip(fmt: Format, owner: int, data: st.DataObject) -> None:
    bitmap = Bitmap.empty(fmt, owner)
    used = data.draw(st.lists(st.integers(0, fmt.bits_per_bitmap - 1), max_size=20, unique=True))
    bitmap.bits[used] = 1
    image = bitmap.encode(fmt, 5)
    assert len(image) == fmt.block_size
    assert fmt.open_header(5, image, b"DBMP") == (owner, len(used), 0)
    again = Bitmap.decode(fmt, 5, image)
    assert (again.owner, again.bits) == (owner, bitmap.bits)


def test_bit_0_is_the_lowest_bit_of_the_first_byte() -> None:
    fmt = FORMATS[0]
    bitmap = Bitmap.empty(fmt, 0)
    bitmap.bits[0] = bitmap.bits[9] = 1
    assert bitmap.encode(fmt, 5)[HEADER_BYTES : HEADER_BYTES + 2] == b"\x01\x02"


def test_a_copy_is_independent() -> None:
    bitmap = Bitmap(3, bitarray("0000"))
    copy = bitmap.copy()
    copy.bits[1] = 1
    assert bitmap.bits == bitarray("0000")
    assert copy.owner == 3


def test_damage_is_refused() -> None:
    fmt = FORMATS[0]
    image = bytearray(Bitmap.empty(fmt, 0).encode(fmt, 5))
    image[-1] ^= 0x80
    with pytest.raises(CorruptionError, match="wrong checksum"):
        Bitmap.decode(fmt, 5, bytes(image))
