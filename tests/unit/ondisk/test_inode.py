import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferfs.errors import CorruptionError
from deferfs.ondisk import inode as module
from deferfs.ondisk.format import INODE_BYTES
from deferfs.ondisk.inode import INLINE_BYTES, Inode, InodeBlock, sealed_head, with_atime
from deferfs.ondisk.node import EXTENT
from tests.unit.volumes import UUID, formats

FORMATS = formats()
FMT = FORMATS[0]
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
s64 = st.integers(-(2**63), 2**63 - 1)
FIELDS: dict[str, st.SearchStrategy[int]] = {
    "uid": u32, "gid": u32, "nlink": u32, "flags": u32, "size": u64, "blocks": u64, "atime": s64, "mtime": s64,
    "ctime": s64, "crtime": s64, "rdev": u64, "parent": u64, "xattr_block": u64, "orphan_slot": u64,
}  # fmt: skip


@st.composite
def records(draw: st.DrawFn) -> Inode:
    record = Inode(draw(u64), draw(u32), draw(u32))
    for name, values in FIELDS.items():
        setattr(record, name, draw(values))
    record.xattrs = draw(st.binary(max_size=150))
    form = draw(st.integers(module.FORM_NONE, module.FORM_DIRECTORY_TREE))
    if form == module.FORM_BYTES:
        record.set_inline(draw(st.binary(max_size=record.inline_capacity())))
    elif form == module.FORM_EXTENTS:
        record.set_entries(form, tuple(draw(st.lists(st.tuples(u64, st.binary(min_size=16, max_size=16)), max_size=9))))
    elif form == module.FORM_ENTRIES:
        entries = st.tuples(u64, st.binary(min_size=10, max_size=40))
        record.set_entries(form, tuple(draw(st.lists(entries, max_size=4))))
    elif form != module.FORM_NONE:
        record.set_tree(form, draw(u64))
    return record


def contents(record: Inode) -> dict[str, object]:
    return {name: getattr(record, name) for name in Inode.__slots__}


@given(records())
def test_round_trip(record: Inode) -> None:
    image = record.encode(FMT, 5)
    assert len(image) == INODE_BYTES
    assert contents(Inode.decode(FMT, 5, image)) == contents(record)
    assert contents(record.copy()) == contents(record)


@given(records(), s64)
def test_a_sealed_record_with_another_access_time_is_what_encoding_it_would_give(record: Inode, atime: int) -> None:
    sealed = record.encode(FMT, 7)
    record.atime = atime
    assert with_atime(FMT, 7, sealed, atime) == record.encode(FMT, 7)


@given(records())
def test_the_head_of_a_sealed_record_is_read_without_decoding_it(record: Inode) -> None:
    found = sealed_head(FMT, 7, record.encode(FMT, 7))
    assert found == (record.ino, record.generation, record.mode, record.size, record.blocks, record.atime)


def test_fields_lie_where_the_docstring_says() -> None:
    record = Inode(0x11, 0o100644, 0x22)
    for number, name in enumerate(FIELDS):
        setattr(record, name, 0x30 + number)
    record.xattrs = b"attr"
    record.set_inline(b"data")
    image = record.encode(FMT, 5)
    assert image[4:8] == b"DINO"
    offsets = {
        "ino": (8, "<Q"), "generation": (16, "<I"), "mode": (20, "<I"), "uid": (24, "<I"), "gid": (28, "<I"),
        "nlink": (32, "<I"), "flags": (36, "<I"), "size": (40, "<Q"), "blocks": (48, "<Q"), "atime": (56, "<q"),
        "mtime": (64, "<q"), "ctime": (72, "<q"), "crtime": (80, "<q"), "rdev": (88, "<Q"), "parent": (96, "<Q"),
        "xattr_block": (104, "<Q"), "orphan_slot": (112, "<Q"), "form": (120, "<B"),
    }  # fmt: skip
    for name, (at, layout) in offsets.items():
        assert struct.unpack_from(layout, image, at) == (getattr(record, name),), name
    assert struct.unpack_from("<HH", image, 122) == (4, 4)
    assert image[128:132] == b"data"
    assert image[-4:] == b"attr"
    assert struct.unpack_from("<I", image) == (google_crc32c.value(UUID + struct.pack("<Q", 5) + image[4:]),)


@pytest.mark.parametrize("at", [0, 4, 8, 20, 40, 52, 112, 120, 122, 128, 511])
def test_a_flipped_bit_is_seen(at: int) -> None:
    image = bytearray(Inode(8, 0o100644).encode(FMT, 5))
    image[at] ^= 1
    for read in (Inode.decode, sealed_head):
        with pytest.raises(CorruptionError):
            read(FMT, 5, bytes(image))


def test_a_record_of_another_block_is_refused() -> None:
    with pytest.raises(CorruptionError, match="wrong checksum"):
        Inode.decode(FMT, 6, Inode(8, 0o100644).encode(FMT, 5))


@pytest.mark.parametrize(
    ("at", "layout", "value"),
    [(120, "<B", module.FORM_DIRECTORY_TREE + 1), (122, "<H", INLINE_BYTES + 1), (124, "<H", INLINE_BYTES)],
)
def test_impossible_lengths_with_a_right_checksum_are_refused(at: int, layout: str, value: int) -> None:
    record = Inode(8, 0o100644)
    record.set_inline(b"x")
    image = bytearray(record.encode(FMT, 5))
    struct.pack_into(layout, image, at, value)
    struct.pack_into("<I", image, 0, FMT.checksum(5, bytes(image[4:])))
    with pytest.raises(CorruptionError, match="impossible"):
        Inode.decode(FMT, 5, bytes(image))


def test_a_tree_root_of_the_wrong_length_is_refused() -> None:
    record = Inode(8, 0o100644)
    record.set_tree(module.FORM_EXTENT_TREE, 77)
    image = bytearray(record.encode(FMT, 5))
    struct.pack_into("<H", image, 122, 7)
    struct.pack_into("<I", image, 0, FMT.checksum(5, bytes(image[4:])))
    with pytest.raises(CorruptionError, match="tree root"):
        Inode.decode(FMT, 5, bytes(image))


def test_data_bytes_is_what_the_encoding_takes() -> None:
    record = Inode(8)
    assert record.data_bytes() == 0
    record.set_inline(b"abc")
    assert record.data_bytes() == 3
    record.set_entries(module.FORM_EXTENTS, ((0, EXTENT.pack(1, 1, 0)),) * 2)
    assert record.data_bytes() == 48
    record.set_entries(module.FORM_ENTRIES, ((0, b"x" * 10),))
    assert record.data_bytes() == 20
    record.set_tree(module.FORM_DIRECTORY_TREE, 5)
    assert record.data_bytes() == 8
    record.xattrs = b"x" * 100
    assert record.inline_capacity() == INLINE_BYTES - 100 == 284


def test_a_table_block_decodes_its_records_one_by_one() -> None:
    fmt = FORMATS[1]
    block = InodeBlock.fresh(fmt, 64)
    image = bytearray(block.encode(fmt, 5))
    assert len(image) == fmt.block_size
    image[3 * INODE_BYTES + 40] ^= 1
    found = InodeBlock.decode(fmt, 5, bytes(image))
    assert [found.record(fmt, 5, i).ino for i in (0, 1, 7)] == [64, 65, 71]
    with pytest.raises(CorruptionError):
        found.record(fmt, 5, 3)
    assert found.record(fmt, 5, 1) is found.record(fmt, 5, 1)


def test_what_a_commit_has_sealed_is_not_sealed_again() -> None:
    """The checkpoint writes the bytes that are in the log, and a record that is read later equals that before."""
    fmt = FORMATS[1]
    block = InodeBlock.fresh(fmt, 64)
    before = block.record(fmt, 5, 3)
    image = block.encode(fmt, 5)
    assert all(isinstance(record, bytes) for record in block.records)
    assert block.encode(fmt, 5) == image
    assert block.record(fmt, 5, 3).encode(fmt, 5) == before.encode(fmt, 5)


def test_an_untouched_record_is_written_back_byte_for_byte() -> None:
    fmt = FORMATS[1]
    image = InodeBlock.fresh(fmt, 0).encode(fmt, 5)
    assert InodeBlock.decode(fmt, 5, image).encode(fmt, 5) == image
