"""Every field of every structure in the format document, damaged in turn: under a right checksum, and a wrong one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import NamedTuple, TypeVar

import pytest

from deferfs.check import check_image
from deferfs.check.repair import repair_image
from deferfs.device import MemoryDevice
from deferfs.errors import ImageError
from deferfs.ondisk.format import HEADER_BYTES, ORPHAN_SLOT_BYTES
from deferfs.ondisk.inode import INODE_FILE_INO, ORPHAN_FILE_INO, ROOT_INO
from deferfs.ondisk.node import DirectoryNode, ExtentNode
from deferfs.ondisk.superblock import Superblock
from tests.examples import examples
from tests.format_document import layout
from tests.unit.check.builder import BLOCK_SIZE
from tests.unit.check.image import Image
from tests.unit.check.repair.outcome import (
    NOW,
    repaired,
    require_clean,
    require_untouched,
    require_usable,
    sample_bytes,
)
from tests.unit.check.sample import (
    ATTRIBUTES,
    BIG,
    DEVICE,
    DIRECTORY,
    EXTENTS,
    LONG_SYMLINK,
    ORPHAN,
    ORPHAN_DIRECTORY,
    PREALLOCATED,
    SMALL,
    SYMLINK,
    TREE,
    sample,
)

pytestmark = pytest.mark.compiled

INODES = (
    ROOT_INO, INODE_FILE_INO, ORPHAN_FILE_INO, SMALL, EXTENTS, TREE, PREALLOCATED, SYMLINK, LONG_SYMLINK, DEVICE,
    DIRECTORY, BIG, ATTRIBUTES, ORPHAN, ORPHAN_DIRECTORY,
)  # fmt: skip


SLOT = ORPHAN_SLOT_BYTES


class Field(NamedTuple):
    """A field of a structure at `offset` of a block."""

    name: str
    offset: int
    size: int


def values_for(data: bytes) -> Iterator[bytes]:
    """What to put in the place of a field."""
    size = len(data)
    number = int.from_bytes(data, "little")
    top = (1 << 8 * size) - 1
    candidates = {0, top, (number + 1) & top, number ^ 1 << (8 * size - 1), number ^ 4}
    for value in sorted(candidates - {number}):
        yield value.to_bytes(size, "little")


def fields_of(heading: str, at: int) -> list[Field]:
    return [Field(name, at + offset, min(size, 8)) for name, (offset, size) in layout(heading).items() if size]


def first_leaf(image: Image, ino: int, kind: type[ExtentNode] | type[DirectoryNode]) -> int:
    return image.block(image.inode(ino).root, kind).children[0]


def blocks_with_fields(image: Image) -> dict[str, tuple[int, list[Field]]]:
    """Every kind of block but those of the inode table: address and fields."""
    header = [field for field in fields_of("Block header", 0) if field.name != "crc"]

    def raw(name: str, *places: tuple[int, int]) -> list[Field]:
        return header + [Field(f"{name} at {offset}", offset, size) for offset, size in places]

    leaf, names = first_leaf(image, TREE, ExtentNode), first_leaf(image, BIG, DirectoryNode)
    count = len(image.block(leaf, ExtentNode).keys)
    entries = len(image.block(names, DirectoryNode).keys)
    values = HEADER_BYTES + 8 * count
    lengths = HEADER_BYTES + 8 * entries
    orphan = image.mapped(ORPHAN_FILE_INO, 0)
    chain = image.inode(ATTRIBUTES).xattr_block
    inner = [(HEADER_BYTES, 8), (HEADER_BYTES + 8, 8), (HEADER_BYTES + 16, 8), (HEADER_BYTES + 24, 8)]
    return {
        "extent root": (image.inode(TREE).root, raw("key or child", *inner)),
        "extent leaf": (leaf, raw("key", (HEADER_BYTES, 8), (HEADER_BYTES + 8, 8)) + fields_of("Extent", values)),
        "directory root": (image.inode(BIG).root, raw("key or child", *inner)),
        "directory leaf": (
            names,
            raw("key or length", (HEADER_BYTES, 8), (HEADER_BYTES + 8, 8), (lengths, 2), (lengths + 2, 2))
            + fields_of("Directory entry", lengths + 2 * entries),
        ),
        "xattr block": (chain, header + fields_of("Xattr block", 0) + fields_of("Xattr item", HEADER_BYTES + 8)),
        "orphan table": (
            orphan,
            header + fields_of("Orphan slot", HEADER_BYTES) + fields_of("Orphan slot", HEADER_BYTES + SLOT),
        ),
        "inode bitmap": (image.mapped(INODE_FILE_INO, 0), raw("bits", (HEADER_BYTES, 8), (HEADER_BYTES + 8, 1))),
        "free-space bitmap": (image.superblock.bitmap_address(0), raw("bits", (HEADER_BYTES, 8), (BLOCK_SIZE - 1, 1))),
    }  # fmt: skip


def judge(image: Image, hit: int) -> None:
    if not check_image(image.device).clean:
        repair_image(image.device, NOW)
        require_clean(check_image(image.device))
    require_untouched(image, sample_bytes(), [hit], exact=False)


def damage_inode(ino: int, field: Field, value: bytes) -> None:
    image = sample()
    place = image.locate(ino)
    image.patch_record(place, field.offset, value)
    judge(image, place[0])


def damage_block(address: int, field: Field, value: bytes) -> None:
    image = sample()
    image.patch(address, field.offset, value)
    judge(image, address)


Value = TypeVar("Value")


def one_of(values: Iterable[Value], turn: int) -> Value:
    """One of the values, another one each turn."""
    everything = list(values)
    return everything[turn % len(everything)]


@pytest.mark.parametrize("ino", INODES)
def test_every_field_of_an_inode(ino: int) -> None:
    """Of one inode every second field, of the next the others; all of all with --long, see below."""
    for turn, field in enumerate(inode_fields()[ino % 2 :: 2], ino):
        was = sample().raw_inode(ino)[field.offset : field.offset + field.size]
        damage_inode(ino, field, one_of(values_for(was), turn))


@pytest.mark.parametrize("name", blocks_with_fields(sample()))
def test_every_field_of_a_block(name: str) -> None:
    address, found = blocks_with_fields(sample())[name]
    for turn, field in enumerate(found, len(name)):
        was = sample().raw(address)[field.offset : field.offset + field.size]
        damage_block(address, field, one_of(values_for(was), turn))
        image = sample()
        body = bytearray(image.raw(address))
        body[field.offset] ^= 0x10
        image.put_raw(address, bytes(body))
        judge(image, address)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_value_of_every_field() -> None:
    for ino in INODES:
        for field in inode_fields():
            for value in values_for(sample().raw_inode(ino)[field.offset : field.offset + field.size]):
                damage_inode(ino, field, value)
    for address, found in blocks_with_fields(sample()).values():
        for field in found:
            for value in values_for(sample().raw(address)[field.offset : field.offset + field.size]):
                damage_block(address, field, value)


def inode_fields() -> list[Field]:
    return [field for field in fields_of("Inode record", 0) if field.name != "crc"]


def superblocks(change: Callable[[Image, str, object], None]) -> Iterator[tuple[str, Image]]:
    for turn, field in enumerate(fields(Superblock)):
        was = getattr(sample().superblock, field.name)
        changed: list[object] = []
        if isinstance(was, int):
            changed = [0, was + 1, was ^ 1 << 20, (1 << 63) - 1]
        elif isinstance(was, bytes):
            changed = [bytes(len(was)), bytes([was[0] ^ 1]) + was[1:]]
        for value in (one_of(changed, turn + further) for further in range(examples(len(changed)))):
            image = sample()
            try:
                change(image, field.name, value)
            except struct.error:
                continue  # the field cannot hold it
            yield f"{field.name}={value!r}", image


def refused(image: Image) -> str:
    """Why neither the check nor the repair begins; nothing when they do."""
    try:
        check_image(image.device)
        repair_image(Image(MemoryDevice.from_bytes(image.device.snapshot())).device, NOW)
    except ImageError as error:
        return str(error)
    return ""


def test_every_field_of_the_superblock_that_counts() -> None:
    """The other copy is whole: whatever the newer one says, nothing is lost."""

    def newer(image: Image, name: str, value: object) -> None:
        superblock = image.superblock.next()
        if name == "sequence":
            value = max(superblock.sequence, int(str(value)))
        changed = Superblock(**{f.name: getattr(superblock, f.name) for f in fields(Superblock)} | {name: value})
        image.put_superblock(changed, (superblock.sequence % 2,))

    for text, image in superblocks(newer):
        error = refused(image)
        if error:
            # a newer program's format, or an image that has been cut short, is not ours to repair
            assert "feature" in error or "truncated" in error, text
            continue
        repaired(image)
        if not text.startswith("blocks="):
            require_untouched(image, sample_bytes(), (), exact=False)
            require_usable(image)


def test_every_field_of_both_superblocks() -> None:
    """No copy is right: what can be found is found, and nothing ends in anything but a report or a clear error."""

    def both(image: Image, name: str, value: object) -> None:
        if name != "sequence":
            image.change_superblock(**{name: value})

    kept = ("label", "inode_root", "hash_key", "journal_start", "journal_tail", "tail_tid", "state", "mounts")
    for text, image in superblocks(both):
        if refused(image):
            continue
        repaired(image)
        if text.startswith(kept):
            require_untouched(image, sample_bytes(), (), exact=False)
            require_usable(image)
