"""Single inodes: fields, forms, sizes, extents, attributes."""

from __future__ import annotations

import struct
from dataclasses import replace

from deferfs.limits import FILE_BYTES_MAX, XATTR_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from deferfs.ondisk.inode import (
    FLAG_KEYS31,
    FLAG_PREALLOCATED,
    FLAG_TRUNCATING,
    FORM_BYTES,
    FORM_ENTRIES,
    FORM_NONE,
)
from deferfs.ondisk.node import EXTENT, UNWRITTEN
from deferfs.ondisk.xattr import XattrBlock, pack_xattrs
from tests.unit.check.builder import BLOCK_SIZE
from tests.unit.check.damage import case
from tests.unit.check.image import Image, edit
from tests.unit.check.sample import (
    ATTRIBUTES,
    BIG,
    DEVICE,
    DIRECTORY,
    EXTENTS,
    FIFO,
    LONG_SYMLINK,
    SMALL,
    SOCKET,
    SPARSE,
    SYMLINK,
    TREE,
)

_INLINE_LENGTH_OFFSET = 122


# --- fields ---
@case("inode-mode")
def no_file_type(image: Image) -> None:
    image.change_inode(SMALL, mode=0o644)


@case("inode-mode")
def impossible_file_type(image: Image) -> None:
    image.change_inode(SMALL, mode=0o030644)


@case("inode-mode")
def mode_too_large(image: Image) -> None:
    image.change_inode(SMALL, mode=0x7FFF_81A4)


@case("inode-form")
def fifo_with_data(image: Image) -> None:
    image.change_inode(FIFO, form=FORM_BYTES, inline=b"x")


@case("inode-form", "directory-size", "directory-unreachable", "link-count")
def directory_without_entries(image: Image) -> None:
    # its subdirectory has no name any more, and a file lost one of its two
    image.change_inode(DIRECTORY, form=FORM_NONE)


@case("inode-form")
def file_with_entries(image: Image) -> None:
    image.change_inode(SMALL, form=FORM_ENTRIES, entries=(), inline=b"")


@case("inode-inline")
def extents_cut_short(image: Image) -> None:
    image.patch_inode(EXTENTS, _INLINE_LENGTH_OFFSET, struct.pack("<H", 24 * 3 + 1))


@case("inode-inline")
def data_without_a_form(image: Image) -> None:
    image.patch_inode(SOCKET, _INLINE_LENGTH_OFFSET, struct.pack("<H", 3))


@case("inode-record")
def more_inline_than_fits(image: Image) -> None:
    image.patch_inode(SMALL, _INLINE_LENGTH_OFFSET, struct.pack("<H", 385))


@case("inode-record")
def unknown_form(image: Image) -> None:
    image.patch_inode(SMALL, 120, b"\x09")


@case("inode-record")
def damaged_tree_root(image: Image) -> None:
    image.patch_inode(FIFO, 120, b"\x03")


@case("inode-size")
def larger_than_any_file(image: Image) -> None:
    image.change_inode(SPARSE, size=FILE_BYTES_MAX + 1)


@case("inode-size")
def smaller_than_its_data(image: Image) -> None:
    image.change_inode(SMALL, size=4)


@case("inode-size")
def symlink_with_a_wrong_size(image: Image) -> None:
    image.change_inode(SYMLINK, size=10)


@case("inode-size")
def symlink_without_a_target(image: Image) -> None:
    image.change_inode(SYMLINK, size=0, inline=b"")


@case("inode-size")
def symlink_longer_than_its_blocks(image: Image) -> None:
    image.change_inode(LONG_SYMLINK, size=2 * BLOCK_SIZE + 1)


@case("inode-size", "block-leaked")
def symlink_with_a_hole(image: Image) -> None:
    physical = image.mapped(LONG_SYMLINK, 1)
    image.change_inode(LONG_SYMLINK, entries=((1, EXTENT.pack(physical, 1, 0)),), blocks=1)


@case("inode-size")
def symlink_in_unwritten_blocks(image: Image) -> None:
    _change_extent(image, LONG_SYMLINK, 0, flags=UNWRITTEN)


@case("inode-size")
def device_with_a_size(image: Image) -> None:
    image.change_inode(DEVICE, size=1)


@case("inode-blocks")
def blocks_of_a_file(image: Image) -> None:
    image.change_inode(EXTENTS, blocks=5)


@case("inode-blocks")
def blocks_of_a_tree(image: Image) -> None:
    image.change_inode(TREE, blocks=40)


@case("inode-blocks")
def blocks_of_a_directory(image: Image) -> None:
    image.change_inode(BIG, blocks=3)


@case("inode-blocks")
def blocks_of_attributes(image: Image) -> None:
    image.change_inode(ATTRIBUTES, blocks=0)


@case("inode-flags")
def unknown_flags(image: Image) -> None:
    image.change_inode(SMALL, flags=1 << 20)


@case("inode-flags")
def file_with_the_flag_of_a_directory(image: Image) -> None:
    image.change_inode(SMALL, flags=FLAG_KEYS31)


@case("inode-feature")
def directories_of_a_feature_that_the_superblocks_lack(image: Image) -> None:
    for copy in (0, 1):
        image.put_superblock(
            replace(image.superblock, sequence=image.superblock.sequence + copy, incompatible=0), (copy,)
        )
    image.put_spares()


@case("inode-rdev")
def file_with_a_device_number(image: Image) -> None:
    image.change_inode(SMALL, rdev=0x801)


@case("inode-device")
def device_number_of_more_than_32_bits(image: Image) -> None:
    image.change_inode(DEVICE, rdev=1 << 32 | 0x105)


@case("inode-flags")
def reserved_flag(image: Image) -> None:
    image.change_inode(SMALL, flags=2)


# --- extents ---
def _change_extent(
    image: Image,
    ino: int,
    index: int,
    *,
    logical: int | None = None,
    physical: int | None = None,
    length: int | None = None,
    flags: int | None = None,
) -> None:
    entries = list(image.inode(ino).entries)
    key, value = entries[index]
    old = EXTENT.unpack(value)
    new = [was if now is None else now for was, now in zip(old, (physical, length, flags), strict=True)]
    entries[index] = (key if logical is None else logical, EXTENT.pack(*new))
    image.change_inode(ino, entries=tuple(entries))


@case("extent-order")
def overlapping_extents(image: Image) -> None:
    _change_extent(image, EXTENTS, 1, logical=2)


@case("extent-order")
def unsorted_extents(image: Image) -> None:
    _change_extent(image, EXTENTS, 0, logical=6)


@case("extent-length", "block-leaked")
def empty_extent(image: Image) -> None:
    _change_extent(image, EXTENTS, 1, length=0)


@case("extent-length", "block-leaked")
def endless_extent(image: Image) -> None:
    _change_extent(image, EXTENTS, 1, length=0xFFFF_FFFF)


@case("extent-length", "block-leaked")
def extent_past_any_file(image: Image) -> None:
    _change_extent(image, EXTENTS, 2, logical=FILE_BYTES_MAX // BLOCK_SIZE - 1)


@case("extent-flags")
def unknown_extent_flags(image: Image) -> None:
    _change_extent(image, EXTENTS, 1, flags=4)


@case("extent-address", "block-leaked")
def extent_beyond_the_end(image: Image) -> None:
    _change_extent(image, EXTENTS, 0, physical=image.superblock.blocks - 2)


@case("extent-address", "block-leaked")
def extent_at_block_zero(image: Image) -> None:
    _change_extent(image, EXTENTS, 0, physical=0)


@case("extent-past-eof")
def written_past_eof(image: Image) -> None:
    image.change_inode(EXTENTS, size=2 * BLOCK_SIZE, flags=FLAG_PREALLOCATED)


@case()
def truncate_under_way(image: Image) -> None:
    image.change_inode(EXTENTS, size=2 * BLOCK_SIZE, flags=FLAG_TRUNCATING)


# --- attributes ---
def _chain(image: Image) -> list[int]:
    found = [image.inode(ATTRIBUTES).xattr_block]
    while following := image.block(found[-1], XattrBlock).next:
        found.append(following)
    return found


@case("xattr-block", "block-leaked")
def spoiled_xattr_block(image: Image) -> None:
    image.spoil(_chain(image)[1])


@case("xattr-block", "block-leaked")
def xattr_block_of_another_inode(image: Image) -> None:
    image.change_block(_chain(image)[0], XattrBlock, lambda b: edit(b, owner=SMALL))


@case("xattr-chain", "block-leaked")
def xattr_chain_out_of_the_image(image: Image) -> None:
    image.change_block(_chain(image)[1], XattrBlock, lambda b: edit(b, next=1 << 62))


@case("block-shared", "block-leaked")
def xattr_chain_in_a_cycle(image: Image) -> None:
    first, second, _ = _chain(image)
    image.change_block(second, XattrBlock, lambda b: edit(b, next=first))


@case("xattr-damaged", "block-leaked", "inode-blocks")
def xattr_chain_cut_off(image: Image) -> None:
    image.change_block(_chain(image)[0], XattrBlock, lambda b: edit(b, next=0))


@case("xattr-damaged")
def xattr_name_with_a_zero(image: Image) -> None:
    image.change_inode(SMALL, xattrs=pack_xattrs({b"user.a": b"abc", b"user.b\0\0c": b""}))


@case("xattr-damaged")
def inline_xattrs_cut_off(image: Image) -> None:
    image.change_inode(SMALL, xattrs=pack_xattrs({b"user.a": b"abc"})[:-1])


@case("xattr-damaged")
def xattr_blocks_without_xattrs(image: Image) -> None:
    for address in _chain(image):
        image.change_block(address, XattrBlock, lambda b: edit(b, payload=b""))


@case("xattr-order")
def unsorted_xattrs(image: Image) -> None:
    image.change_inode(SMALL, xattrs=pack_xattrs({b"user.b": b""}) + pack_xattrs({b"user.a": b""}))


@case("xattr-order")
def xattr_twice(image: Image) -> None:
    image.change_inode(SMALL, xattrs=pack_xattrs({b"user.a": b""}) * 2)


@case("xattr-limit")
def xattr_value_too_long(image: Image) -> None:
    _replace_chain(image, {b"user.long": bytes(XATTR_VALUE_BYTES_MAX + 1)})


@case("xattr-limit")
def too_many_xattrs(image: Image) -> None:
    _replace_chain(image, {b"user.%d" % i: bytes(60_000) for i in range(5)})


@case("xattr-chain", "block-leaked")
def endless_xattr_chain(image: Image) -> None:
    _replace_chain(image, {b"user.%d" % i: bytes(60_000) for i in range(10)})


def _replace_chain(image: Image, xattrs: dict[bytes, bytes]) -> None:
    """Attributes of any length, in blocks marked as used."""
    fmt, old = image.fmt, _chain(image)
    for address in old:
        image.mark(address, 1, 0)
    packed, room = pack_xattrs(xattrs), XattrBlock.payload_max(fmt)
    count = -(-len(packed) // room)
    first = 4000
    image.mark(first, count, 1)
    for number in range(count):
        following = first + number + 1 if number + 1 < count else 0
        block = XattrBlock(ATTRIBUTES, packed[number * room : (number + 1) * room], following)
        image.put_raw(first + number, block.encode(fmt, first + number))
    image.change_inode(ATTRIBUTES, xattr_block=first, blocks=count)
    assert XATTR_BYTES_MAX < 10 * 60_000


@case("xattr-both")
def xattrs_in_both_places(image: Image) -> None:
    image.change_inode(ATTRIBUTES, xattrs=pack_xattrs({b"user.a": b""}))
