"""What the check says of sound images, of what is no image, and of devices that fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deferfs.check import Counts, check_image
from deferfs.check.orphans import BAD_BLOCKS_MAX
from deferfs.check.report import PROBLEMS_PER_KIND
from deferfs.device import FailingDevice, Fault, MemoryDevice, Request
from deferfs.errors import ImageError
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.inode import FORM_EXTENT_TREE, FORM_EXTENTS, ORPHAN_FILE_INO
from deferfs.ondisk.node import EXTENT, ExtentNode
from tests.unit.check.builder import BLOCK_SIZE, BLOCKS
from tests.unit.check.image import Image
from tests.unit.check.sample import (
    BIG_ENTRIES,
    EXTENTS,
    FIRST_IN_CHUNK_1,
    LONG_SYMLINK,
    PREALLOCATED,
    SMALL,
    TREE,
    sample,
)


def _failing(image: Image, first: int, last: int) -> FailingDevice:
    """A device that cannot read the blocks from `first` to `last`."""
    fault = Fault(frozenset([Request.READ]), sticky=True, start=first * BLOCK_SIZE, stop=(last + 1) * BLOCK_SIZE)
    return FailingDevice(image.device, fault)


def test_the_sample_is_clean() -> None:
    report = check_image(sample().device)
    assert report.problems == ()
    assert report.clean
    assert report.complete
    assert report.superblock.label == b"sample"


def test_counts() -> None:
    report = check_image(sample().device)
    used = report.counts.blocks_used
    assert report.counts == Counts(
        inodes=BIG_ENTRIES + 19,
        directories=6,
        wide_directories=3,
        files=BIG_ENTRIES + 8,
        symlinks=2,
        others=3,
        orphans=2,
        blocks_used=used,
        free_blocks=BLOCKS - used,
    )


def test_transactions_are_counted_and_replayed_only_in_memory() -> None:
    image = sample()
    image.change_superblock(state=0, tail_tid=3)
    address = image.locate(SMALL)[0]
    after = image.log(0, 3, {address: image.raw(address)})
    image.log(after, 4, {address: image.raw(address)})
    image.spoil(address)
    before = image.device.snapshot()
    report = check_image(image.device)
    assert report.clean
    assert report.counts.transactions == 2
    assert image.device.snapshot() == before


def test_progress() -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    check_image(sample().device, progress=lambda name, done, total: seen.setdefault(name, []).append((done, total)))
    assert list(seen) == ["inodes", "directories", "orphans", "free space"]
    for steps in seen.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


def test_an_orphan_file_over_everything_is_not_read_to_its_end() -> None:
    """It may be one extent over a huge sparse image."""
    image = sample()
    image.change_inode(ORPHAN_FILE_INO, entries=((0, EXTENT.pack(100, BLOCKS - 100, 0)),))
    report = check_image(image.device)
    assert report.suppressed["orphan-block"] + PROBLEMS_PER_KIND == BAD_BLOCKS_MAX + 1
    assert not report.complete


# --- no image ---
@pytest.mark.parametrize("size", [0, 100, 512, 70_000, 1 << 20])
def test_a_check_of_what_is_no_image_is_refused(size: int) -> None:
    with pytest.raises(ImageError, match="not a deferfs image"):
        check_image(MemoryDevice(size))


def test_truncated_image() -> None:
    data = sample().device.snapshot()
    with pytest.raises(ImageError, match="truncated"):
        check_image(MemoryDevice.from_bytes(data[:-1], name="disk.img"))


def test_errors_name_the_image() -> None:
    with pytest.raises(ImageError, match=r"^disk\.img: "):
        check_image(MemoryDevice(1 << 20, name="disk.img"))


def test_larger_device_than_the_image() -> None:
    data = sample().device.snapshot()
    assert check_image(MemoryDevice.from_bytes(data + bytes(5000))).clean


@pytest.mark.parametrize("change", [{"incompatible": 4}, {"read_only_compatible": 4}])
def test_a_newer_superblock_of_a_newer_program_is_not_passed_over(change: dict[str, int]) -> None:
    image = sample()
    newer = replace(image.superblock.next(), **change)  # type: ignore[arg-type]
    image.put_superblock(newer, (newer.sequence % 2,))
    with pytest.raises(ImageError, match="feature"):
        check_image(image.device)


def without_spares() -> Image:
    image = sample()
    for address in image.superblock.spares:
        image.spoil(address)
    return image


def test_both_superblocks_damaged() -> None:
    image = without_spares()
    for offset in SUPERBLOCK_OFFSETS:
        image.device.write(offset + 40, b"\xff")
    with pytest.raises(ImageError, match="checksum"):
        check_image(image.device)


def test_one_damaged_superblock_and_no_other() -> None:
    image = without_spares()
    image.device.write(SUPERBLOCK_OFFSETS[0], bytes(512))
    image.device.write(SUPERBLOCK_OFFSETS[1] + 40, b"\xff")
    with pytest.raises(ImageError, match="checksum"):
        check_image(image.device)


@pytest.mark.parametrize("feature", ["incompatible", "read_only_compatible"])
def test_unknown_feature(feature: str) -> None:
    image = sample()
    image.change_superblock(**{feature: 1 << 7})
    with pytest.raises(ImageError, match="feature 0x80"):
        check_image(image.device)


def test_older_copy_does_not_hide_an_unknown_feature() -> None:
    image = sample()
    image.put_superblock(replace(image.superblock, sequence=99, incompatible=1 << 7), (0,))
    with pytest.raises(ImageError, match="feature"):
        check_image(image.device)


def test_unknown_compatible_feature_is_no_obstacle() -> None:
    image = sample()
    image.change_superblock(compatible=1 << 7)
    assert check_image(image.device).clean


# --- devices that fail ---
def test_unreadable_blocks_are_problems() -> None:
    image = sample()
    address = image.locate(SMALL)[0]
    report = check_image(_failing(image, address, address))
    assert not report.complete
    assert [(p.number, p.code, p.where) for p in report.problems] == [
        (308, "block-unreadable", {"block": address}),
    ]


def test_nothing_readable_behind_the_superblocks() -> None:
    image = sample()
    report = check_image(_failing(image, image.fmt.reserved_blocks, BLOCKS))
    assert not report.complete
    assert {p.code for p in report.problems} == {"block-unreadable", "inode-file", "spare-damaged"}


def test_unreadable_superblock_copy() -> None:
    report = check_image(_failing(sample(), 0, 0))
    assert [p.code for p in report.problems] == ["superblock-copy"]


# --- bounds ---
def test_problems_of_one_kind_are_counted_past_a_limit() -> None:
    image = sample()
    leaked = list(range(BLOCKS - 2 * PROBLEMS_PER_KIND - 20, BLOCKS, 2))
    leaked = [block for block in leaked if block not in image.superblock.spares]
    for block in leaked:
        image.mark(block, 1, 1)
    report = check_image(image.device)
    assert len(report.problems) == PROBLEMS_PER_KIND
    assert report.suppressed == {"block-leaked": len(leaked) - PROBLEMS_PER_KIND}
    assert report.found == len(leaked)


def test_tree_of_inner_nodes_that_share_their_children() -> None:
    """Each level points many times to the next: a walk without memory would visit 60^8 nodes."""
    image = sample()
    first = image.free_run(9)
    image.mark(first, 9, 1)
    for level in range(9):
        node = ExtentNode(TREE, level)
        for index in range(60 if level else 0):
            node.insert_child(index, index, first + level - 1)
        image.put_raw(first + level, node.encode(image.fmt, first + level))
    image.change_inode(TREE, form=FORM_EXTENT_TREE, root=first + 8)
    codes = {problem.code for problem in check_image(image.device).problems}
    assert "block-shared" in codes


# --- shared blocks ---
def test_owners_of_shared_blocks_are_named() -> None:
    image = sample()
    shared = image.mapped(EXTENTS, 1)
    image.change_inode(PREALLOCATED, entries=((0, EXTENT.pack(shared, 1, 0)),), blocks=1)
    journal = image.superblock.journal_start
    root = image.inode(TREE).root
    image.change_inode(LONG_SYMLINK, entries=((0, EXTENT.pack(root, 1, 0)), (1, EXTENT.pack(journal, 1, 0))))
    found = [problem.message for problem in check_image(image.device).problems if problem.code == "block-shared"]
    assert found == [
        f"block {journal}: claimed by journal, inode {LONG_SYMLINK}",
        f"block {shared}: claimed by inode {EXTENTS}, inode {PREALLOCATED}",
        f"block {root}: claimed by inode {TREE}: tree node, inode {LONG_SYMLINK}",
    ]


def test_blocks_that_one_inode_maps_twice_are_reported() -> None:
    image = sample()
    first = image.mapped(EXTENTS, 0)
    image.change_inode(EXTENTS, entries=((0, EXTENT.pack(first, 2, 0)), (5, EXTENT.pack(first, 2, 0))))
    found = {problem.message for problem in check_image(image.device).problems if problem.code == "block-shared"}
    assert found == {f"blocks {first} to {first + 1}: claimed twice by inode {EXTENTS}"}


def test_work_is_bounded_when_everything_is_shared() -> None:
    image = sample()
    entries = tuple((i * BLOCKS, EXTENT.pack(1, BLOCKS - 1, 0)) for i in range(16))
    for ino in range(FIRST_IN_CHUNK_1, FIRST_IN_CHUNK_1 + BIG_ENTRIES):
        image.change_inode(ino, form=FORM_EXTENTS, entries=entries, size=16 * BLOCKS * BLOCK_SIZE)
    report = check_image(image.device)
    (shared,) = (problem for problem in report.problems if problem.code == "block-shared")
    assert shared.message.endswith(", ...")
