"""Superblocks and the fixed areas."""

from __future__ import annotations

from dataclasses import replace

from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.spare import encode_spare
from deferfs.ondisk.superblock import STATE_CLEAN, STATE_ERRORS
from tests.unit.check.damage import case
from tests.unit.check.image import Image


@case("superblock-copy")
def older_copy_lost(image: Image) -> None:
    image.device.write(SUPERBLOCK_OFFSETS[0] + 100, b"\xff")


@case("superblock-copy")
def newer_copy_lost(image: Image) -> None:
    image.device.write(SUPERBLOCK_OFFSETS[1], bytes(512))


@case()
def a_copy_cut_off_by_a_crash(image: Image) -> None:
    image.change_superblock(state=0)
    image.device.write(SUPERBLOCK_OFFSETS[0] + 100, b"\xff")


@case("superblock-disagree")
def copies_with_different_keys(image: Image) -> None:
    other = replace(image.superblock, sequence=1, hash_key=b"another dir key!")
    image.put_superblock(other, (0,))


@case("superblock-disagree")
def copies_with_different_journals(image: Image) -> None:
    superblock = image.superblock
    other = replace(superblock, sequence=1, journal_start=superblock.journal_start + 1)
    image.put_superblock(other, (0,))


@case("superblock-errors")
def errors_recorded(image: Image) -> None:
    image.change_superblock(state=STATE_CLEAN | STATE_ERRORS)


@case("superblock-counter")
def transactions_near_their_end(image: Image) -> None:
    image.change_superblock(tail_tid=(1 << 62) - 1)


@case("superblock-counter")
def sequence_near_its_end(image: Image) -> None:
    for copy in (0, 1):
        image.put_superblock(replace(image.superblock, sequence=(1 << 62) - 4 + copy), (copy,))


@case("superblock-layout", "block-leaked", "spare-disagree")
def journal_over_bitmaps(image: Image) -> None:
    superblock = image.superblock
    image.change_superblock(journal_start=superblock.journal_start - 1)


@case("superblock-layout", "spare-disagree")
def empty_bitmap_region(image: Image) -> None:
    regions = image.superblock.bitmap_regions
    image.change_superblock(bitmap_regions=(*regions, (100, 0)))


@case("superblock-layout", "block-marked-free", "spare-disagree")
def regions_that_overlap(image: Image) -> None:
    # the second region lies over the first one's end and one free block at the end of the image
    start, length = image.superblock.bitmap_regions[0]
    spare = (image.superblock.blocks - 1, 1)
    image.change_superblock(bitmap_regions=((start, length), (start + 1, 1), spare))


@case()
def bitmaps_in_two_regions(image: Image) -> None:
    """What an image looks like after it has grown."""
    superblock = image.superblock
    start, _ = superblock.bitmap_regions[0]
    elsewhere = image.free_run(2)
    bitmap = image.block(start + 1, Bitmap)
    image.put_raw(elsewhere, bitmap.encode(image.fmt, elsewhere))
    image.change_superblock(bitmap_regions=((start, 1), (elsewhere, 2)))
    image.mark(elsewhere, 2, 1)
    image.mark(start + 1, 1, 0)
    image.put_spares()


@case("superblock-lost")
def both_copies_lost(image: Image) -> None:
    for offset in SUPERBLOCK_OFFSETS:
        image.device.write(offset, bytes(512))


@case("superblock-lost", "bitmap-damaged")
def first_68_kib_overwritten(image: Image) -> None:
    image.device.write(0, bytes(68 << 10))


@case("superblock-lost", "spare-damaged", "spare-disagree")
def one_sound_spare_left(image: Image) -> None:
    """And one that describes another image."""
    first, second, *_ = image.superblock.spares
    image.put_raw(second, encode_spare(replace(image.superblock, journal_start=90), second))
    image.spoil(first)
    both_copies_lost(image)


@case("spare-damaged")
def spares_damaged(image: Image) -> None:
    for address in image.superblock.spares:
        image.spoil(address)


@case("spare-damaged")
def spare_in_another_place(image: Image) -> None:
    first, *_, last = image.superblock.spares
    image.put_raw(last, image.raw(first))


@case("spare-disagree")
def spare_of_another_journal(image: Image) -> None:
    address = image.superblock.spares[-1]
    image.put_raw(address, encode_spare(replace(image.superblock, journal_blocks=10), address))


@case("spare-place", "spare-disagree", "block-leaked")
def spares_where_none_may_lie(image: Image) -> None:
    """At no multiple of 64 KiB, in the journal, outside the image, and one twice."""
    first, *_ = image.superblock.spares
    image.change_superblock(spares=(first, first, first + 1, 128, image.superblock.blocks + 64))
