import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import HEADER_BYTES, Format
from deferfs.ondisk.inode import ORPHAN_FILE_INO
from deferfs.ondisk.orphan import FREE_SLOT, OrphanBlock, OrphanSlot
from tests.unit.volumes import formats

FORMATS = formats()
FMT = FORMATS[0]
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


@given(
    fmt=st.sampled_from(FORMATS),
    slot=st.builds(OrphanSlot, st.integers(1, 2**64 - 1), u32, u32, u64, u64),
    data=st.data(),
)
def test_round_trip(fmt: Format, slot: OrphanSlot, data: st.DataObject) -> None:
    block = OrphanBlock.fresh(fmt)
    block.slots[data.draw(st.integers(0, fmt.orphans_per_block - 1))] = slot
    image = block.encode(fmt, 5)
    assert len(image) == fmt.block_size
    assert fmt.open_header(5, image, b"DORP") == (ORPHAN_FILE_INO, 1, 0)
    assert OrphanBlock.decode(fmt, 5, image).slots == block.slots


def test_a_slot_lies_where_the_docstring_says() -> None:
    block = OrphanBlock.fresh(FMT)
    block.slots[1] = OrphanSlot(8, 9, 1, 77, 4)
    assert struct.unpack_from("<QIIQQ", block.encode(FMT, 5), HEADER_BYTES + 32) == (8, 9, 1, 77, 4)


def test_a_copy_is_independent() -> None:
    block = OrphanBlock.fresh(FMT)
    block.copy().slots[0] = OrphanSlot(8, 9, 0, 0)
    assert block.slots[0] == FREE_SLOT


def test_the_blocks_of_all_slots_are_summed_without_decoding() -> None:
    block = OrphanBlock.fresh(FMT)
    for index in (0, 3, FMT.orphans_per_block - 1):
        block.slots[index] = OrphanSlot(8 + index, 9, 1, 1 << 40, 1 << index % 50)
    assert OrphanBlock.total_blocks(FMT, block.encode(FMT, 5)) == 1 + 8 + (1 << (FMT.orphans_per_block - 1) % 50)


def test_damage_is_refused() -> None:
    image = bytearray(OrphanBlock.fresh(FMT).encode(FMT, 5))
    image[HEADER_BYTES] ^= 8
    with pytest.raises(CorruptionError):
        OrphanBlock.decode(FMT, 5, bytes(image))
