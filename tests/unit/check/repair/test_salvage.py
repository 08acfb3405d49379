"""Records with heavier damage than one bit: kept when they fit, rebuilt from their tree, and else freed."""

from __future__ import annotations

import stat
import struct

import pytest

from deferfs.check import check_image
from deferfs.device import MemoryDevice
from deferfs.ondisk.format import HEADER_BYTES, INODE_BYTES
from deferfs.ondisk.inode import FORM_BYTES, ROOT_INO, Inode
from deferfs.ondisk.node import EXTENT, DirectoryNode, ExtentNode
from deferfs.volume import namespace
from deferfs.volume.new_inode import NewInode
from tests.unit.check.builder import BLOCK_SIZE
from tests.unit.check.image import Image
from tests.unit.check.repair.outcome import repaired, require_untouched, require_usable, sample_bytes
from tests.unit.check.repair.survey import Facts, open_copy, survey
from tests.unit.check.sample import (
    ATTRIBUTES,
    BIG,
    BIG_ENTRIES,
    DEVICE,
    DIRECTORY,
    EXTENTS,
    ORPHAN,
    SMALL,
    SUBDIRECTORY,
    SYMLINK,
    TREE,
    sample,
)
from tests.unit.volumes import fresh_driver, make, snapshot_of

UID, NLINK, SIZE, BLOCKS, ATIME, PARENT, XATTRS, INLINE = 24, 32, 40, 48, 56, 96, 104, 128
PATHS = {
    SMALL: b"/files/small", EXTENTS: b"/files/extents", TREE: b"/files/tree", SYMLINK: b"/files/symlink",
    DEVICE: b"/files/device", ATTRIBUTES: b"/files/attributes", BIG: b"/big", DIRECTORY: b"/dir",
}  # fmt: skip


def damage(image: Image, ino: int, *offsets: int) -> None:
    """Spoil four bytes of the record at each offset; its checksum stays as it is."""
    record = bytearray(image.raw_inode(ino))
    for offset in offsets:
        record[offset : offset + 4] = bytes(byte ^ 0x3C for byte in record[offset : offset + 4])
    image.put_record(ino, bytes(record))
    assert "inode-record" in {problem.code for problem in check_image(image.device).problems}


def after(image: Image, ino: int) -> tuple[dict[bytes, Facts], tuple[str, ...]]:
    """What there is after the repair, which left alone what does not rest on the record; and what it did."""
    block = image.locate(ino)[0]
    actions = repaired(image).actions
    now = require_untouched(image, sample_bytes(), [block])
    require_usable(image)
    return now, actions


def before(ino: int) -> Facts:
    return survey(open_copy(sample_bytes()))[PATHS[ino]]


@pytest.mark.parametrize("ino", PATHS)
@pytest.mark.parametrize("offset", [UID, ATIME])
def test_a_record_that_fits_is_kept(ino: int, offset: int) -> None:
    image = sample()
    damage(image, ino, offset)
    now, actions = after(image, ino)
    facts, was = now[PATHS[ino]], before(ino)
    assert (facts.content, facts.xattrs, facts.mode, facts.size) == (was.content, was.xattrs, was.mode, was.size)
    assert (facts.uid, facts.times) != (was.uid, was.times)
    assert any(f"inode {ino}: wrong checksum, but its record fits; kept" in action for action in actions)


def test_names_in_a_record_that_fits_are_kept() -> None:
    image = sample()
    damage(image, DIRECTORY, UID, ATIME)
    now, _ = after(image, DIRECTORY)
    assert {b"/dir", b"/dir/sub", b"/dir/hard link"} <= now.keys()


def test_damage_of_unused_bytes_of_a_record_is_harmless() -> None:
    image = sample()
    damage(image, SMALL, INLINE + 100, INLINE + 200)
    now, _ = after(image, SMALL)
    assert now[PATHS[SMALL]] == before(SMALL)


@pytest.mark.parametrize("offset", [40, 300, 500])
def test_a_damaged_leaf_of_a_directory_keeps_the_entries_that_are_whole(offset: int) -> None:
    """Keys, inodes or names are hit; what loses its name is in lost+found."""
    image = sample()
    leaf = image.block(image.inode(BIG).root, DirectoryNode).children[1]
    names = [value[9:] for value in image.block(leaf, DirectoryNode).values]
    body = bytearray(image.raw(leaf))
    body[offset : offset + 4] = bytes(byte ^ 0x3C for byte in body[offset : offset + 4])
    image.put_raw(leaf, bytes(body))
    actions = repaired(image).actions
    now = require_untouched(image, sample_bytes(), [leaf])
    assert sum(f"directory {BIG}: block {leaf} is damaged; " in action for action in actions) == 1
    left = sum(b"/big/" + name in now for name in names)
    assert len(names) - 2 <= left < len(names)
    lost = {facts.ino for path, facts in now.items() if path.startswith(b"/lost+found/")}
    assert len(lost) == len(names) - left
    require_usable(image)


def torn(image: Image, offset: int, value: bytes) -> int:
    """Overwrite bytes of a leaf of TREE; its checksum stays. Its second entry is for logical block 42."""
    leaf = image.block(image.inode(TREE).root, ExtentNode).children[1]
    body = bytearray(image.raw(leaf))
    body[offset : offset + len(value)] = value
    image.put_raw(leaf, bytes(body))
    return leaf


def test_a_damaged_leaf_of_a_file_keeps_blocks_that_no_other_inode_holds() -> None:
    image = sample()
    leaf = torn(image, 900, b"unused")
    actions = repaired(image).actions
    text = f"inode {TREE}: block {leaf} of its tree is damaged; 20 of its 20 extents kept, contents may be wrong"
    assert text in actions
    require_untouched(image, sample_bytes(), ())


@pytest.mark.parametrize("kind", ["others", "free", "past the end", "in the way"])
def test_a_damaged_extent_is_a_hole(kind: str) -> None:
    image = sample()
    keys, values = HEADER_BYTES, HEADER_BYTES + 20 * 8
    second = values + EXTENT.size
    if kind == "others":
        leaf = torn(image, second, struct.pack("<Q", image.mapped(EXTENTS, 0)))
    elif kind == "free":
        leaf = torn(image, second, struct.pack("<Q", image.free_run(1)))
    elif kind == "past the end":
        leaf = torn(image, keys + 8, struct.pack("<Q", 1 << 20))
    else:
        leaf = torn(image, keys + 8, struct.pack("<Q", 20))  # which a leaf that is whole maps
    actions = repaired(image).actions
    assert any(f"block {leaf} of its tree is damaged; 19 of its 20 extents kept" in action for action in actions)
    now, was = require_untouched(image, sample_bytes(), [leaf])[PATHS[TREE]].content, before(TREE).content
    assert now is not None
    assert was is not None
    hole = 42 * BLOCK_SIZE
    assert now == was[:hole] + bytes(BLOCK_SIZE) + was[hole + BLOCK_SIZE :]


def test_entries_of_a_damaged_leaf_are_not_taken_from_others() -> None:
    """A block that says that it is the leaf of another directory, or another block."""
    for field, value in ((8, b"\1"), (16, b"\1"), (4, b"DXTN")):
        image = sample()
        leaf = image.block(image.inode(BIG).root, DirectoryNode).children[1]
        body = bytearray(image.raw(leaf))
        body[field : field + len(value)] = value
        body[300:304] = b"\0\1\2\3"
        image.put_raw(leaf, bytes(body))
        actions = repaired(image).actions
        assert not any("is damaged; " in action for action in actions)
        require_untouched(image, sample_bytes(), [leaf])


def test_the_root_directory_is_kept_when_its_record_fits() -> None:
    image = sample()
    damage(image, ROOT_INO, UID)
    repaired(image)
    now = survey(open_copy(image.device.snapshot()))
    assert now == survey(open_copy(sample_bytes()))


def test_a_kept_file_loses_its_set_id_bits() -> None:
    image = sample()
    image.change_inode(SMALL, mode=stat.S_IFREG | 0o6755)
    damage(image, SMALL, UID)
    now, _ = after(image, SMALL)
    assert now[PATHS[SMALL]].mode == stat.S_IFREG | 0o755


@pytest.mark.parametrize(
    ("ino", "offset"),
    [
        (SMALL, 8), (SMALL, SIZE + 4), (SMALL, BLOCKS), (SMALL, NLINK), (SMALL, XATTRS), (SMALL, PARENT), (SMALL, 36),
        (SMALL, 20), (SMALL, 121), (EXTENTS, INLINE), (EXTENTS, INLINE + 16), (DIRECTORY, INLINE), (DIRECTORY, SIZE),
        (DIRECTORY, INLINE + 20),
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_freed(ino: int, offset: int) -> None:
    image = sample()
    damage(image, ino, offset)
    now, actions = after(image, ino)
    assert PATHS[ino] not in now
    assert f"inode {ino}: its record cannot be read; freed" in actions


@pytest.mark.parametrize("others", [True, False])
def test_a_damaged_record_takes_no_blocks_of_others_and_no_free_ones(others: bool) -> None:
    """Everything in it fits but where its extents lie."""
    image = sample()
    elsewhere = image.mapped(ORPHAN, 0) if others else image.free_run(3)
    inode = image.inode(EXTENTS)
    first, *rest = inode.entries
    record = bytearray(image.raw_inode(EXTENTS))
    record[INLINE + 8 : INLINE + 16] = struct.pack("<Q", elsewhere)
    image.put_record(EXTENTS, bytes(record))
    assert EXTENT.unpack(first[1])[0] != elsewhere
    assert rest
    now, actions = after(image, EXTENTS)
    assert PATHS[EXTENTS] not in now
    assert any(f"inode {EXTENTS}: its record is damaged, and maps blocks of others" in action for action in actions)


def test_a_damaged_record_that_maps_a_block_twice_is_not_kept() -> None:
    image = sample()
    inode = image.inode(EXTENTS)
    (first, one), (_, two), three = inode.entries
    physical = EXTENT.unpack(one)[0]
    _, *fields = EXTENT.unpack(two)
    inode.entries = ((first, one), (5, EXTENT.pack(physical, *fields)), three)
    record = bytearray(inode.encode(image.fmt, image.locate(EXTENTS)[0]))
    record[:4] = b"\0\1\2\3"
    image.put_record(EXTENTS, bytes(record))
    now, _ = after(image, EXTENTS)
    assert PATHS[EXTENTS] not in now


def test_a_record_of_another_inode_is_not_taken_for_this_one() -> None:
    """As a misdirected write leaves it: sound, but for another place."""
    image = sample()
    place, _ = image.locate(SMALL)
    stranger = Inode(500, stat.S_IFREG | 0o644)
    stranger.set_inline(b"not of this file")
    stranger.nlink, stranger.size = 1, 16
    image.put_record(SMALL, stranger.encode(image.fmt, place + 1))
    now, _ = after(image, SMALL)
    assert PATHS[SMALL] not in now
    assert b"not of this file" not in {facts.content for facts in now.values()}
    assert stranger.form == FORM_BYTES


def test_a_directory_is_made_anew_from_its_leaves() -> None:
    image = sample()
    image.put_record(BIG, b"rubbish!" * (INODE_BYTES // 8))
    now, actions = after(image, BIG)
    assert {b"/big/entry %d" % i for i in range(BIG_ENTRIES)} <= now.keys()
    assert now[b"/big"].mode == stat.S_IFDIR | 0o700
    assert f"inode {BIG}: its record cannot be read; rebuilt from its tree: a directory of root's" in actions
    assert not any("lost+found" in path.decode() for path in now)


def test_a_file_is_made_anew_from_its_leaves() -> None:
    image = sample()
    image.put_record(TREE, bytes(INODE_BYTES))
    now, actions = after(image, TREE)
    facts, was = now[PATHS[TREE]], before(TREE)
    assert facts.mode == stat.S_IFREG | 0o600
    assert facts.size == 79 * BLOCK_SIZE  # the last block of it is a hole
    assert was.content is not None
    assert facts.content == was.content[: facts.size]
    assert f"inode {TREE}: its record cannot be read; rebuilt from its tree: a file of root's" in actions


def test_the_root_directory_is_made_anew_from_its_leaves() -> None:
    image = sample()
    names = list(image.inode(ROOT_INO).entries)
    node = DirectoryNode(ROOT_INO)
    for index, (key, value) in enumerate(names):
        node.insert_value(index, key, value)
    address = image.free_run(1)
    image.put_raw(address, node.encode(image.fmt, address))
    image.mark(address, 1, 1)
    image.put_record(ROOT_INO, bytes(INODE_BYTES))
    repaired(image)
    now, was = survey(open_copy(image.device.snapshot())), survey(open_copy(sample_bytes()))
    assert now == was


def test_a_leaf_that_is_marked_free_makes_no_record() -> None:
    image = sample()
    leaf = image.block(image.inode(BIG).root, DirectoryNode).children[0]
    node = image.block(leaf, DirectoryNode)
    node.owner = SUBDIRECTORY
    address = image.free_run(1)
    image.put_raw(address, node.encode(image.fmt, address))
    image.put_record(SUBDIRECTORY, bytes(INODE_BYTES))
    actions = repaired(image).actions
    assert f"inode {SUBDIRECTORY}: its record cannot be read; freed" in actions
    assert b"/dir/sub" not in require_untouched(image, sample_bytes(), [image.locate(SUBDIRECTORY)[0]])


@pytest.mark.parametrize("content", [b"rubbish!", bytes(8)])
def test_trees_survive_the_loss_of_their_block_of_the_inode_table(content: bytes) -> None:
    """A directory in a block of which no record is left: it is in another one afterwards."""
    driver = fresh_driver()
    for number in range(140):
        make(driver, b"before %d" % number)
    directory = driver.run(namespace.create, driver.volume, ROOT_INO, b"large", NewInode(stat.S_IFDIR | 0o755)).ino
    for number in range(60):
        driver.run(namespace.create, driver.volume, directory, b"file %d" % number, NewInode(stat.S_IFREG | 0o644))
    driver.close()
    original = snapshot_of(driver)
    image = Image(MemoryDevice.from_bytes(original))
    place, _ = image.locate(directory)
    image.put_raw(place, content * (image.fmt.block_size // len(content)))
    actions = repaired(image).actions
    now = require_untouched(image, original, [place])
    # the record of file 0 was in the same block, and it has no tree
    assert {b"/large/file %d" % number for number in range(1, 60)} <= now.keys()
    assert image.locate(directory)[0] != place
    assert f"inode {directory}: its record cannot be read; rebuilt from its tree: a directory of root's" in actions
    require_usable(image)
