"""Images made to do harm: every checksum is right, and everything else is a trap."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from typing import Final

from deferfs.ondisk.directory import name_key, pack_entry
from deferfs.ondisk.inode import (
    FORM_ENTRIES,
    FORM_EXTENTS,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    ROOT_INO,
)
from deferfs.ondisk.journal import MAGIC_DESCRIPTOR
from deferfs.ondisk.node import EXTENT, DirectoryNode, ExtentNode
from deferfs.ondisk.orphan import OrphanBlock, OrphanSlot
from deferfs.ondisk.xattr import XattrBlock
from tests.unit.check.builder import BLOCKS
from tests.unit.check.image import Image, edit
from tests.unit.check.sample import (
    ATTRIBUTES,
    BIG,
    BIG_ENTRIES,
    DIRECTORY,
    FIRST_IN_CHUNK_1,
    LONG_SYMLINK,
    ORPHAN,
    SMALL,
    SPARSE,
    SUBDIRECTORY,
    TREE,
)

Trap = Callable[[Image], object]
TRAPS: Final[dict[str, Trap]] = {}


def trap(function: Trap) -> Trap:
    """Register it under its name."""
    TRAPS[function.__name__] = function
    return function


def _root(image: Image, ino: int) -> int:
    return image.inode(ino).root


@trap
def extent_tree_that_is_its_own_child(image: Image) -> None:
    root = _root(image, TREE)
    image.change_block(root, ExtentNode, lambda node: edit(node, children=array("Q", [root] * len(node.children))))


@trap
def directory_tree_that_is_its_own_child(image: Image) -> None:
    root = _root(image, BIG)
    image.change_block(root, DirectoryNode, lambda node: edit(node, children=array("Q", [root] * len(node.children))))


@trap
def tree_of_sixty_thousand_levels(image: Image) -> None:
    image.change_block(_root(image, BIG), DirectoryNode, lambda node: edit(node, level=0xFFFF))


@trap
def leaves_in_a_cycle_of_keys(image: Image) -> None:
    root = image.block(_root(image, BIG), DirectoryNode)
    for child in root.children:
        image.change_block(child, DirectoryNode, lambda node: edit(node, keys=array("Q", [5] * len(node.keys))))


@trap
def nodes_that_count_four_billion_entries(image: Image) -> None:
    for ino, kind in ((TREE, ExtentNode), (BIG, DirectoryNode)):
        for child in image.block(_root(image, ino), kind).children:
            image.patch(child, 24, b"\xff\xff\xff\xff")


@trap
def directories_inside_each_other(image: Image) -> None:
    entry = (name_key(image.fmt, b"up", 0), pack_entry(DIRECTORY, 4, b"up"))
    image.change_inode(SUBDIRECTORY, form=FORM_ENTRIES, entries=(entry,), size=1, nlink=3, parent=DIRECTORY)
    image.change_inode(DIRECTORY, parent=SUBDIRECTORY)


@trap
def a_directory_that_holds_the_root_and_the_inode_file(image: Image) -> None:
    names = {b"root": ROOT_INO, b"table": INODE_FILE_INO, b"orphans": ORPHAN_FILE_INO, b"/": SMALL, b"..": SMALL}
    entries = sorted((name_key(image.fmt, name, 0), pack_entry(ino, 4, name)) for name, ino in names.items())
    image.change_inode(SUBDIRECTORY, form=FORM_ENTRIES, entries=tuple(entries), size=5)


@trap
def files_over_superblocks_bitmaps_and_journal(image: Image) -> None:
    superblock = image.superblock
    areas = [(1, 60), superblock.bitmap_regions[0], (superblock.journal_start, superblock.journal_blocks)]
    for index, (first, length) in enumerate(areas):
        entries = ((0, EXTENT.pack(first, length, 0)),)
        size = length * image.fmt.block_size
        image.change_inode(FIRST_IN_CHUNK_1 + index, form=FORM_EXTENTS, entries=entries, size=size, blocks=length)


@trap
def everybody_claims_everything(image: Image) -> None:
    entries = tuple((i * BLOCKS, EXTENT.pack(1, BLOCKS - 1, 0)) for i in range(16))
    for ino in range(FIRST_IN_CHUNK_1, FIRST_IN_CHUNK_1 + BIG_ENTRIES):
        image.change_inode(ino, form=FORM_EXTENTS, entries=entries, size=16 * BLOCKS * image.fmt.block_size)


@trap
def extents_out_of_order_and_over_each_other(image: Image) -> None:
    first = image.free_run(4)
    entries = tuple((key, EXTENT.pack(first, 2, 0)) for key in (9, 8, 7, 8, 1, 0))
    image.change_inode(SPARSE, form=FORM_EXTENTS, inline=b"", entries=entries, size=1 << 20)


@trap
def sizes_beyond_everything(image: Image) -> None:
    for ino, field in ((SMALL, "size"), (LONG_SYMLINK, "size"), (BIG, "size"), (SPARSE, "blocks"), (TREE, "nlink")):
        image.change_inode(ino, **{field: 0xFFFF_FFFF if field == "nlink" else (1 << 64) - 1})


@trap
def an_inode_table_of_billions(image: Image) -> None:
    inode = image.inode(INODE_FILE_INO)
    far = ((1 << 62) + 1, EXTENT.pack(100, 1 << 30, 0))
    near = (1 << 40, EXTENT.pack(200, BLOCKS - 201, 0))
    image.change_inode(INODE_FILE_INO, entries=(*inode.entries, near, far))


@trap
def an_orphan_table_over_the_whole_image(image: Image) -> None:
    entries = ((0, EXTENT.pack(100, BLOCKS - 100, 0)),)
    image.change_inode(ORPHAN_FILE_INO, entries=entries, blocks=BLOCKS - 100)


@trap
def orphan_slots_that_name_what_is_in_use(image: Image) -> None:
    address = image.mapped(ORPHAN_FILE_INO, 0)
    targets = [ROOT_INO, INODE_FILE_INO, ORPHAN_FILE_INO, SMALL, BIG, ORPHAN, ORPHAN, (1 << 64) - 1, 1 << 40]

    def fill(block: OrphanBlock) -> None:
        for index in range(len(block.slots)):
            block.slots[index] = OrphanSlot(targets[index % len(targets)], 1, 0xFFFF_FFFF, (1 << 64) - 1)

    image.change_block(address, OrphanBlock, fill)


@trap
def an_xattr_chain_in_a_cycle(image: Image) -> None:
    first = image.inode(ATTRIBUTES).xattr_block
    image.change_block(first, XattrBlock, lambda block: edit(block, next=first))


@trap
def xattrs_of_four_billion_bytes(image: Image) -> None:
    first = image.inode(ATTRIBUTES).xattr_block
    image.patch(first, 40, b"\x05" + b"\xff\xff\xff\xff")


@trap
def a_log_over_everything(image: Image) -> None:
    superblock = image.superblock
    image.change_superblock(state=0, tail_tid=7)
    blank = bytes(image.fmt.block_size)
    homes = [0, 1, superblock.journal_start, superblock.inode_root, BLOCKS - 1, BLOCKS, (1 << 64) - 1]
    image.log(0, 7, dict.fromkeys(homes, blank), tuple(homes))


@trap
def a_descriptor_of_four_billion_images(image: Image) -> None:
    image.change_superblock(state=0, tail_tid=7)
    image.log(0, 7, {image.superblock.inode_root: bytes(image.fmt.block_size)})
    address, fmt = image.superblock.journal_start, image.fmt
    body = bytearray(image.raw(address))
    assert body[4:8] == MAGIC_DESCRIPTOR
    body[24:28] = b"\xff\xff\xff\xff"
    image.put_raw(address, fmt.seal(7, body))


@trap
def a_log_record_of_the_last_transaction_ever(image: Image) -> None:
    image.change_superblock(state=0, tail_tid=7)
    for tid in ((1 << 64) - 1, (1 << 63) - 1):
        image.log(tid % 5 * 10, tid, {image.superblock.inode_root: image.raw(image.superblock.inode_root)})


@trap
def counters_at_their_end(image: Image) -> None:
    image.change_superblock(mounts=(1 << 64) - 1, tail_tid=(1 << 62) - 1, state=0)


@trap
def a_journal_over_half_of_the_image(image: Image) -> None:
    image.change_superblock(journal_start=70, journal_blocks=BLOCKS // 2, journal_tail=BLOCKS // 2 - 1)


@trap
def a_record_full_of_ones(image: Image) -> None:
    image.patch_inode(SMALL, 16, b"\xff" * (120 - 16))
    image.patch_inode(SPARSE, 16, struct.pack("<I", 7) + b"\xff" * (120 - 20))
