"""docs/on-disk-format.md against the codecs: every offset, size and worked number."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest

from deferfs import limits
from deferfs.check import CATALOGUE
from deferfs.ondisk import bitmap, inode, journal, node, orphan, spare, superblock, xattr
from deferfs.ondisk.directory import pack_entry
from deferfs.ondisk.format import HEADER_BYTES, Format
from deferfs.store.mkfs import plan_geometry
from tests.format_document import DOCUMENT, layout, rows

FORMATS = [Format(size, bytes(range(16)), bytes(16)) for size in (1024, 4096, 65536)]
FMT = FORMATS[1]


def number(data: bytes, place: tuple[int, int]) -> int:
    offset, size = place
    return int.from_bytes(data[offset : offset + size], "little")


def check_fields(heading: str, data: bytes, expected: Mapping[str, int | bytes]) -> None:
    """Each documented field of `data` holds what the codec was given, and no field is left out."""
    fields = layout(heading)
    assert set(fields) == set(expected)
    for name, value in expected.items():
        offset, size = fields[name]
        if isinstance(value, bytes):
            assert data[offset : offset + len(value)] == value, name
            assert size in (0, len(value)), name
        else:
            assert number(data, fields[name]) == value, name


def test_superblock() -> None:
    found = superblock.Superblock(
        uuid=FMT.uuid, label=b"label", block_size=4096, blocks=1000, journal_start=11, journal_blocks=12,
        inode_root=13, bitmap_regions=((14, 15),), hash_key=bytes(range(16, 32)), created_ns=16, sequence=17,
        state=3, journal_tail=4, tail_tid=18, written_ns=19, mounts=20, compatible=21, read_only_compatible=22,
        incompatible=23, spares=(16, 32),
    )  # fmt: skip
    data = found.encode()
    names = set(layout("Superblock")) - {"crc", "magic", "version", "regions", "bitmap_regions", "label", "spares"}
    expected: dict[str, int | bytes] = {name: getattr(found, name) for name in names}
    expected["crc"] = number(data, (0, 4))
    expected["magic"] = superblock.MAGIC
    expected["version"] = superblock.VERSION
    expected["regions"] = 1
    expected["label"] = b"label".ljust(32, b"\0")
    expected["bitmap_regions"] = struct.pack("<QQ", 14, 15).ljust(16 * limits.BITMAP_REGIONS_MAX, b"\0")
    expected["spares"] = struct.pack("<QQ", 16, 32).ljust(8 * limits.SPARES_MAX, b"\0")
    check_fields("Superblock", data, expected)
    assert len(data) == 512


def test_spare_superblock() -> None:
    size = 1 << 30
    found = plan_geometry(size, block_size=4096, uuid=bytes(16), hash_key=bytes(16), now_ns=77).superblock
    data = spare.encode_spare(found, 99)
    inner = found.spare_form().encode()
    check_fields("Spare block", data, {"superblock": inner})
    zeros = ("sequence", "state", "journal_tail", "mounts")
    fields = layout("Superblock")
    assert [number(inner, fields[name]) for name in (*zeros, "tail_tid", "written_ns")] == [0, 0, 0, 0, 1, 77]
    assert f"but for {len(found.spares)} spare superblocks" in DOCUMENT
    assert f"{superblock.COMPATIBLE_SPARES} | `compatible` | `spares` is kept" in DOCUMENT


def test_block_header() -> None:
    found = node.ExtentNode(77, 3)
    found.insert_child(0, 5, 6)
    data = found.encode(FMT, 123)
    expected: dict[str, int | bytes] = {
        "crc": FMT.checksum(123, data[4:]), "magic": b"DXTN", "address": 123, "owner": 77, "count": 1, "level": 3,
    }  # fmt: skip
    check_fields("Block header", data, expected)


def test_magic_numbers() -> None:
    documented = {cells[0].strip("`").encode() for cells in rows("Magic numbers")}
    trees = {node.ExtentNode.MAGIC, node.DirectoryNode.MAGIC}
    others = {
        spare.MAGIC,
        bitmap.Bitmap.MAGIC,
        inode.InodeBlock.MAGIC,
        xattr.XattrBlock.MAGIC,
        orphan.OrphanBlock.MAGIC,
    }
    assert documented == trees | others | journal.MAGICS


def test_inode_record() -> None:
    found = inode.Inode(8, 0o100644, 3)
    names = set(layout("Inode record")) - {"crc", "magic", "ino", "generation", "mode", "form"}
    names -= {"data_bytes", "xattr_bytes", "inline"}
    for value, name in enumerate(sorted(names), 1000):
        setattr(found, name, value)
    found.set_inline(b"data")
    found.xattrs = b"attributes"
    data = found.encode(FMT, 9)
    expected: dict[str, int | bytes] = {name: getattr(found, name) for name in names}
    expected |= {
        "crc": FMT.checksum(9, data[4:]), "magic": b"DINO", "ino": 8, "generation": 3, "mode": 0o100644,
        "form": inode.FORM_BYTES, "data_bytes": 4, "xattr_bytes": 10,
        "inline": b"data".ljust(384 - 10, b"\0") + b"attributes",
    }  # fmt: skip
    check_fields("Inode record", data, expected)
    assert len(data) == 512


def test_inode_flags_and_forms() -> None:
    flags = next(cells[2] for cells in rows("Inode record") if cells[2].startswith("`flags`"))
    for value, words in (
        (inode.FLAG_PREALLOCATED, "unwritten blocks"),
        (inode.FLAG_TRUNCATING, "a truncate"),
    ):
        assert f"{value} {words}" in flags
    assert "2 reserved" in flags
    names = [
        inode.FORM_NONE, inode.FORM_BYTES, inode.FORM_EXTENTS, inode.FORM_EXTENT_TREE, inode.FORM_ENTRIES,
        inode.FORM_DIRECTORY_TREE,
    ]  # fmt: skip
    assert [int(cells[0]) for cells in rows("Data forms")] == names
    numbers = [inode.ROOT_INO, inode.INODE_FILE_INO, inode.ORPHAN_FILE_INO]
    assert [int(cells[0]) for cells in rows("Inodes")[1:4]] == numbers
    assert int(rows("Inodes")[-1][0]) == inode.FIRST_INO


def test_inline_forms() -> None:
    found = inode.Inode(8, 0o100644)
    value = node.EXTENT.pack(5, 6, 0)
    found.set_entries(inode.FORM_EXTENTS, ((4, value),))
    assert found.encode(FMT, 1)[128:152] == struct.pack("<Q", 4) + value
    found.set_entries(inode.FORM_ENTRIES, ((4, b"entry"),))
    assert found.encode(FMT, 1)[128:143] == struct.pack("<QH", 4, 5) + b"entry"
    found.set_tree(inode.FORM_EXTENT_TREE, 99)
    assert found.encode(FMT, 1)[128:136] == struct.pack("<Q", 99)


def test_extent_and_directory_entry() -> None:
    check_fields("Extent", node.EXTENT.pack(1, 2, 3), {"physical": 1, "length": 2, "flags": 3})
    data = pack_entry(1, 8, b"the name")
    check_fields("Directory entry", data, {"ino": 1, "file_type": 8, "name": b"the name"})
    assert node.UNWRITTEN == 1


def test_tree_nodes() -> None:
    inner, extents, directory = node.ExtentNode(1, 1), node.ExtentNode(1), node.DirectoryNode(1)
    for index in range(2):
        inner.insert_child(index, index, 7 + index)
        extents.insert_value(index, index, node.EXTENT.pack(7 + index, 1, 0))
        directory.insert_value(index, index, b"value"[: 3 + index])
    keys = struct.pack("<QQ", 0, 1)
    for found, rest in (
        (inner, struct.pack("<QQ", 7, 8)),
        (extents, node.EXTENT.pack(7, 1, 0) + node.EXTENT.pack(8, 1, 0)),
        (directory, struct.pack("<HH", 3, 4) + b"valvalu"),
    ):
        data = found.encode(FMT, 1)[HEADER_BYTES:]
        assert data == (keys + rest).ljust(len(data), b"\0")


def test_xattrs() -> None:
    data = xattr.pack_xattrs({b"name": b"value"})
    expected: dict[str, int | bytes] = {"name_length": 4, "value_length": 5, "name": b"namevalue"}
    check_fields("Xattr item", data, expected)
    block = xattr.XattrBlock(8, data, 55).encode(FMT, 1)
    check_fields("Xattr block", block, {"next": 55, "payload": data})
    assert number(block, layout("Block header")["count"]) == len(data)
    assert f"at most {limits.XATTR_VALUE_BYTES_MAX} bytes, the string {limits.XATTR_BYTES_MAX}." in DOCUMENT


def test_orphan_slot() -> None:
    block = orphan.OrphanBlock.fresh(FMT)
    block.slots[1] = orphan.OrphanSlot(1, 2, 3, 4, 5)
    data = block.encode(FMT, 1)
    slot = data[HEADER_BYTES + 32 : HEADER_BYTES + 64]
    check_fields("Orphan slot", slot, {"ino": 1, "generation": 2, "flags": 3, "cursor": 4, "blocks": 5})
    assert number(data, layout("Block header")["count"]) == 1


def test_journal() -> None:
    descriptor = journal.encode_descriptor(FMT, 7, 2, [journal.Tag(1, 2)])
    check_fields("Descriptor tag", descriptor[HEADER_BYTES : HEADER_BYTES + 16], {"home": 1, "crc": 2})
    assert journal.encode_revoke(FMT, 7, 0, [5, 6])[HEADER_BYTES:][:16] == struct.pack("<QQ", 5, 6)
    record = journal.encode_commit(FMT, 7, 3, journal.Commit(3, 4, 5, 6))
    check_fields("Commit record", record, {"blocks": 3, "body_crc": 4, "time_ns": 5, "tail_tid": 6})
    header = layout("Block header")
    assert (number(record, header["address"]), number(record, header["owner"])) == (7, 3)


def _per_leaf(fmt: Format, name_bytes: int) -> int:
    entry = node.DirectoryNode.LEAF_ENTRY_BYTES + len(pack_entry(1, 1, bytes(name_bytes)))
    return (fmt.block_size - HEADER_BYTES) // entry


WORKED: dict[str, Callable[[Format], int]] = {
    "reserved blocks (R)": lambda fmt: fmt.reserved_blocks,
    "blocks per free-space bitmap (a group)": lambda fmt: fmt.bits_per_bitmap,
    "bytes per group": lambda fmt: fmt.bits_per_bitmap * fmt.block_size,
    "bitmaps of 1 GiB (B)": lambda fmt: -(-(1 << 30) // fmt.block_size // fmt.bits_per_bitmap),
    "inode records per block": lambda fmt: fmt.inodes_per_block,
    "blocks per chunk": lambda fmt: fmt.chunk_blocks,
    "inodes per chunk": lambda fmt: fmt.inodes_per_chunk,
    "chunks per inode group": lambda fmt: fmt.chunks_per_inode_group,
    "inodes per inode group": lambda fmt: fmt.inodes_per_group,
    "blocks per inode group, bitmap included": lambda fmt: fmt.inode_group_blocks,
    "children per inner tree node": lambda fmt: (fmt.block_size - HEADER_BYTES) // 16,
    "extents per leaf": lambda fmt: (fmt.block_size - HEADER_BYTES) // (8 + node.EXTENT.size),
    "directory entries per leaf, names of 8 bytes": lambda fmt: _per_leaf(fmt, 8),
    "directory entries per leaf, names of 255 bytes": lambda fmt: _per_leaf(fmt, 255),
    "xattr bytes per xattr block": xattr.XattrBlock.payload_max,
    "orphan slots per block": lambda fmt: fmt.orphans_per_block,
    "images per journal descriptor": lambda fmt: fmt.tags_per_descriptor,
    "revokes per revoke block": lambda fmt: fmt.revokes_per_block,
    "log blocks of a transaction of 1000 images and 10 revokes": lambda fmt: journal.transaction_blocks(fmt, 1000, 10),
}


@pytest.mark.parametrize("cells", rows("Worked sizes"), ids=lambda cells: cells[0])
def test_worked_sizes(cells: list[str]) -> None:
    assert [int(cell) for cell in cells[1:]] == [WORKED[cells[0]](fmt) for fmt in FORMATS]


def test_no_worked_size_is_missing() -> None:
    assert [cells[0] for cells in rows("Worked sizes")] == list(WORKED)


def test_worked_layout() -> None:
    size = 1 << 30
    geometry = plan_geometry(
        size, block_size=4096, uuid=bytes(16), hash_key=bytes(16), now_ns=0, journal_bytes=64 << 20
    )  # fmt: skip
    found = geometry.superblock
    ((bitmaps, length),) = found.bitmap_regions
    table = [
        (int(first), int(blocks)) for _, first, blocks in rows("Worked layout: 1 GiB, 4 KiB blocks, journal of 64 MiB")
    ]
    assert table == [
        (0, FMT.reserved_blocks),
        (bitmaps, length),
        (found.journal_start, found.journal_blocks),
        (geometry.inode_bitmap, 1),
        (found.inode_root, FMT.chunk_blocks),
        (geometry.first_free, found.blocks - geometry.first_free),
    ]
    last = (found.groups - 1) * FMT.bits_per_bitmap
    text = f"covers blocks {last} to {last + FMT.bits_per_bitmap - 1}; the image ends with block {found.blocks - 1}"
    assert text in DOCUMENT


def test_limits() -> None:
    values = [int(cells[1].removeprefix("2^")) for cells in rows("Limits")]
    assert 1 << values[1] == limits.FILE_BYTES_MAX
    assert values[2:5] == [limits.NAME_BYTES_MAX, limits.SYMLINK_BYTES_MAX, limits.LINKS_MAX]
    powers = [limits.DIRECTORY_ENTRIES_MAX, limits.JOURNAL_BYTES_MAX, superblock.COUNTER_SANE_MAX]
    assert [1 << value for value in values[5:]] == powers


def test_problems() -> None:
    assert rows("What fsck finds") == [
        [str(kind.number), f"`{kind.code}`", kind.meaning, kind.repair] for kind in CATALOGUE
    ]
