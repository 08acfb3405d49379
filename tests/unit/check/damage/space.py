"""Free-space bitmaps and block owners."""

from __future__ import annotations

from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.node import EXTENT
from tests.unit.check.damage import case
from tests.unit.check.image import Image, edit
from tests.unit.check.sample import EXTENTS, PREALLOCATED


@case("bitmap-damaged")
def spoiled_bitmap(image: Image) -> None:
    image.spoil(image.superblock.bitmap_address(0))


@case("bitmap-damaged")
def bitmap_of_another_place(image: Image) -> None:
    first, second = (image.superblock.bitmap_address(group) for group in range(2))
    image.put_raw(second, image.raw(first))


@case("bitmap-owner")
def bitmap_of_another_group(image: Image) -> None:
    image.change_block(image.superblock.bitmap_address(1), Bitmap, lambda b: edit(b, owner=0))


@case("bitmap-count")
def wrong_count(image: Image) -> None:
    image.patch(image.superblock.bitmap_address(0), 24, b"\0")


@case("bitmap-tail")
def bits_beyond_the_end(image: Image) -> None:
    size = image.fmt.bits_per_bitmap
    image.mark(image.superblock.blocks, 1, 0)
    image.mark(2 * size - 1, 1, 0)


@case("block-marked-free")
def data_marked_free(image: Image) -> None:
    image.mark(image.mapped(EXTENTS, 1), 1, 0)


@case("block-marked-free")
def journal_marked_free(image: Image) -> None:
    image.mark(image.superblock.journal_start, 3, 0)


@case("block-leaked")
def free_blocks_marked_used(image: Image) -> None:
    image.mark(image.superblock.blocks - 5, 3, 1)


@case("block-shared", "block-leaked")
def two_files_in_one_place(image: Image) -> None:
    where = image.mapped(EXTENTS, 0)
    image.change_inode(PREALLOCATED, entries=((0, EXTENT.pack(where, 1, 0)),), blocks=1)


@case("block-shared", "block-leaked")
def file_over_the_journal(image: Image) -> None:
    where = image.superblock.journal_start
    image.change_inode(PREALLOCATED, entries=((0, EXTENT.pack(where, 1, 0)),), blocks=1)
