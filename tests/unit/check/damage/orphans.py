"""The orphan table."""

from __future__ import annotations

from collections.abc import Callable

from deferfs.ondisk.inode import ORPHAN_FILE_INO
from deferfs.ondisk.node import EXTENT
from deferfs.ondisk.orphan import FREE_SLOT, ORPHAN_QUARANTINED, OrphanBlock, OrphanSlot
from tests.unit.check.damage import case
from tests.unit.check.image import Image, edit
from tests.unit.check.sample import ORPHAN, ORPHAN_DIRECTORY, SMALL

_UNUSED = 50


def _change(image: Image, logical: int, change: Callable[[OrphanBlock], object]) -> None:
    image.change_block(image.mapped(ORPHAN_FILE_INO, logical), OrphanBlock, change)


def _set(image: Image, slot: int, value: OrphanSlot) -> None:
    logical, index = divmod(slot, image.fmt.orphans_per_block)
    _change(image, logical, lambda block: block.slots.__setitem__(index, value))


@case("orphan-hole", "orphan-slot")
def hole_in_the_orphan_file(image: Image) -> None:
    ((_, value),) = image.inode(ORPHAN_FILE_INO).entries
    first, _, _ = EXTENT.unpack(value)
    entries = ((0, EXTENT.pack(first, 1, 0)), (2, EXTENT.pack(first + 1, 1, 0)))
    image.change_inode(ORPHAN_FILE_INO, entries=entries)


@case("orphan-block", "orphan-lost")
def spoiled_orphan_block(image: Image) -> None:
    image.spoil(image.mapped(ORPHAN_FILE_INO, 0))


@case("orphan-block", "orphan-lost")
def wrong_slot_count(image: Image) -> None:
    image.patch(image.mapped(ORPHAN_FILE_INO, 0), 24, b"\x02")


@case("orphan-block", "orphan-lost")
def orphan_block_of_another_inode(image: Image) -> None:
    image.patch(image.mapped(ORPHAN_FILE_INO, 1), 16, b"\x02")


@case("orphan-dead")
def slot_of_a_free_inode(image: Image) -> None:
    _set(image, 1, OrphanSlot(_UNUSED, 1, 0, 0))


@case("orphan-dead")
def slot_of_an_impossible_inode(image: Image) -> None:
    _set(image, 1, OrphanSlot(1 << 63, 1, 0, 0))


@case("orphan-linked")
def slot_of_a_linked_inode(image: Image) -> None:
    _set(image, 1, OrphanSlot(SMALL, image.inode(SMALL).generation, 0, 0))


@case("orphan-linked")
def slot_of_a_reserved_inode(image: Image) -> None:
    _set(image, 1, OrphanSlot(ORPHAN_FILE_INO, 0, 0, 0))


@case("orphan-generation")
def slot_of_an_earlier_inode(image: Image) -> None:
    _set(image, 0, OrphanSlot(ORPHAN, 5, 0, 0, image.inode(ORPHAN).blocks))


@case("orphan-slot")
def record_names_another_slot(image: Image) -> None:
    image.change_inode(ORPHAN, orphan_slot=9)


@case("orphan-slot")
def two_slots_for_one_inode(image: Image) -> None:
    _set(image, 1, OrphanSlot(ORPHAN, image.inode(ORPHAN).generation, 0, 0))


@case("orphan-slot")
def linked_inode_with_a_slot(image: Image) -> None:
    image.change_inode(SMALL, orphan_slot=3)


@case("orphan-blocks")
def slot_that_counts_wrongly(image: Image) -> None:
    _set(image, 0, OrphanSlot(ORPHAN, image.inode(ORPHAN).generation, 0, 0, image.inode(ORPHAN).blocks + 1))


@case("inode-quarantined")
def slot_in_quarantine(image: Image) -> None:
    _set(
        image, 0, OrphanSlot(ORPHAN, image.inode(ORPHAN).generation, ORPHAN_QUARANTINED, 0, image.inode(ORPHAN).blocks)
    )


@case("orphan-lost")
def orphan_without_a_slot(image: Image) -> None:
    _set(image, 33, FREE_SLOT)


@case("orphan-lost")
def removed_directory_without_a_slot(image: Image) -> None:
    logical, index = divmod(33, image.fmt.orphans_per_block)
    _change(image, logical, lambda block: block.slots.__setitem__(index, FREE_SLOT))
    image.change_inode(ORPHAN_DIRECTORY, orphan_slot=0)


@case()
def inactivation_under_way(image: Image) -> None:
    """Half of the blocks of the orphan are gone already, its size is not."""
    ((_, value),) = image.inode(ORPHAN).entries
    first, _, _ = EXTENT.unpack(value)
    image.mark(first + 1, 2, 0)
    image.change_inode(ORPHAN, entries=((0, EXTENT.pack(first, 1, 0)),), blocks=1)
    _change(image, 0, lambda block: edit(block, slots=[*block.slots]))
    _set(image, 0, OrphanSlot(ORPHAN, image.inode(ORPHAN).generation, 0, 1, 1))
