"""The inode file: records, chunks, bitmaps."""

from __future__ import annotations

import stat

from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.inode import (
    FORM_NONE,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    ROOT_INO,
    Inode,
)
from deferfs.ondisk.node import EXTENT, UNWRITTEN
from tests.unit.check.damage import case
from tests.unit.check.image import Image, edit
from tests.unit.check.sample import DEVICE, FAR, FIFO, FIRST_IN_CHUNK_1, SMALL

_FREE = 50
"""A free inode of chunk 0."""


def _table(image: Image) -> list[tuple[int, int, int, int]]:
    return [(key, *EXTENT.unpack(value)) for key, value in image.inode(INODE_FILE_INO).entries]


def _put_table(image: Image, extents: list[tuple[int, int, int, int]]) -> None:
    entries = tuple((key, EXTENT.pack(*value)) for key, *value in extents)
    blocks = sum(length for _, _, length, _ in extents)
    image.change_inode(INODE_FILE_INO, entries=entries, blocks=blocks)


@case("inode-file")
def record_of_the_inode_file_lost(image: Image) -> None:
    image.put_record(INODE_FILE_INO, bytes(512))


@case("inode-file")
def inode_file_of_no_file(image: Image) -> None:
    image.change_inode(INODE_FILE_INO, mode=stat.S_IFIFO)


@case("inode-file")
def inode_file_without_extents(image: Image) -> None:
    image.change_inode(INODE_FILE_INO, form=FORM_NONE)


@case("inode-file", "spare-disagree")
def inode_root_at_the_end(image: Image) -> None:
    image.change_superblock(inode_root=image.superblock.blocks - 2)


@case("inode-root", "block-shared", "block-leaked")
def first_chunk_mapped_elsewhere(image: Image) -> None:
    (_, bitmap, _, _), *others = _table(image)
    elsewhere = image.superblock.journal_start
    _put_table(image, [(0, bitmap, 1, 0), (1, elsewhere, 32, 0), *others])


@case("inode-chunk-partial", "block-leaked", "inode-marked-used", "entry-dead")
def half_a_chunk(image: Image) -> None:
    extents = _table(image)
    (at,) = (i for i, extent in enumerate(extents) if extent[0] == 1 + 32 + 16)
    del extents[at]
    _put_table(image, extents)


@case("inode-chunk-empty")
def chunk_without_inodes(image: Image) -> None:
    _add_blank_chunk(image, 1 + 2 * 32, 2 * 64)


def _add_blank_chunk(image: Image, logical: int, first_ino: int, group: int | None = None) -> None:
    """Map a chunk of free inodes, after a bitmap when `group` is given."""
    fmt = image.fmt
    head = 0 if group is None else 1
    where = image.free_run(32 + head)
    image.mark(where, 32 + head, 1)
    if group is not None:
        image.put_raw(where, Bitmap.empty(fmt, group).encode(fmt, where))
    for block in range(32):
        address = where + head + block
        inodes = [Inode(first_ino + 2 * block + i) for i in range(2)]
        image.put_raw(address, b"".join(inode.encode(fmt, address) for inode in inodes))
    _put_table(image, sorted([*_table(image), (logical - head, where, 32 + head, 0)]))


@case("inode-bitmap-missing", "block-leaked")
def group_without_a_bitmap(image: Image) -> None:
    extents = _table(image)
    logical, physical, length, _ = extents.pop()
    _put_table(image, [*extents, (logical + 1, physical + 1, length - 1, 0)])


@case("inode-bitmap-spare")
def bitmap_without_a_group(image: Image) -> None:
    fmt, where = image.fmt, image.free_run(1)
    image.mark(where, 1, 1)
    image.put_raw(where, Bitmap.empty(fmt, 2).encode(fmt, where))
    _put_table(image, [*_table(image), (2 * fmt.inode_group_blocks, where, 1, 0)])


@case("inode-bitmap-damaged")
def spoiled_inode_bitmap(image: Image) -> None:
    image.spoil(image.mapped(INODE_FILE_INO, 0))


@case("bitmap-owner")
def inode_bitmap_of_another_group(image: Image) -> None:
    image.change_block(image.mapped(INODE_FILE_INO, 0), Bitmap, lambda b: edit(b, owner=7))


@case("bitmap-count")
def inode_bitmap_with_a_wrong_count(image: Image) -> None:
    image.patch(image.mapped(INODE_FILE_INO, 0), 24, b"\0")


@case("inode-marked-free")
def inode_marked_free(image: Image) -> None:
    image.mark_inode(FAR, 0)


@case("inode-marked-free")
def reserved_inode_marked_free(image: Image) -> None:
    image.mark_inode(0, 0)
    image.mark_inode(7, 0)


@case("inode-marked-used")
def free_inode_marked_used(image: Image) -> None:
    image.mark_inode(_FREE, 1)


@case("inode-marked-used")
def inode_of_an_unmapped_chunk_marked_used(image: Image) -> None:
    image.mark_inode(64 * 5, 1)


@case("inode-record")
def spoiled_record(image: Image) -> None:
    record = bytearray(image.raw_inode(SMALL))
    record[40] ^= 1
    image.put_record(SMALL, bytes(record))


@case("inode-record")
def spoiled_free_record(image: Image) -> None:
    image.put_record(_FREE, bytes(512))


@case("inode-record")
def record_from_another_block(image: Image) -> None:
    image.put_record(FIRST_IN_CHUNK_1, image.raw_inode(SMALL))


@case("inode-misplaced")
def record_with_another_number(image: Image) -> None:
    image.put_inode(image.inode(FIFO), DEVICE)


@case("inode-not-empty")
def free_record_with_blocks(image: Image) -> None:
    free = Inode(_FREE)
    free.blocks = 1
    image.put_inode(free)


@case("inode-not-empty")
def free_record_with_data(image: Image) -> None:
    free = Inode(_FREE)
    free.set_inline(b"x")
    image.put_inode(free)


@case("inode-special", "link-count")
def root_without_links(image: Image) -> None:
    image.change_inode(ROOT_INO, nlink=1)


@case("inode-special")
def root_with_a_parent(image: Image) -> None:
    image.change_inode(ROOT_INO, parent=18)


@case("inode-special")
def inode_file_with_a_size(image: Image) -> None:
    image.change_inode(INODE_FILE_INO, size=1)


@case("inode-special")
def orphan_file_with_two_links(image: Image) -> None:
    image.change_inode(ORPHAN_FILE_INO, nlink=2)


@case("inode-special")
def orphan_file_with_attributes(image: Image) -> None:
    image.change_inode(ORPHAN_FILE_INO, xattrs=b"\x01\0\0\0\0x")


@case("inode-special")
def reserved_inode_in_use(image: Image) -> None:
    image.change_inode(5, mode=stat.S_IFREG, nlink=1)


@case("internal-unwritten")
def unwritten_inode_table(image: Image) -> None:
    *extents, (logical, physical, length, _) = _table(image)
    _put_table(image, [*extents, (logical, physical, length, UNWRITTEN)])


@case("internal-unwritten")
def unwritten_orphan_table(image: Image) -> None:
    ((key, value),) = image.inode(ORPHAN_FILE_INO).entries
    physical, length, _ = EXTENT.unpack(value)
    entries = ((key, EXTENT.pack(physical, length, UNWRITTEN)),)
    image.change_inode(ORPHAN_FILE_INO, entries=entries)
