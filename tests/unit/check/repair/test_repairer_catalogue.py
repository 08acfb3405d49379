"""Every problem of the catalogue is repaired: what the check finds is gone, and what was not damaged is as it was."""

from __future__ import annotations

import stat

import pytest

from deferfs.check import check_image
from deferfs.check.repair import repair_image, repairer
from deferfs.device import FailingDevice, Fault, MemoryDevice, Request
from deferfs.ondisk.directory import name_key, pack_entry
from deferfs.ondisk.inode import FIRST_INO, FLAG_KEYS31, ROOT_INO
from deferfs.ondisk.node import DirectoryNode, ExtentNode, Node
from deferfs.ondisk.xattr import pack_xattrs
from deferfs.volume import namespace
from deferfs.volume.new_inode import NewInode
from tests.unit.check.builder import BLOCK_SIZE
from tests.unit.check.damage import CASES
from tests.unit.check.image import Image
from tests.unit.check.repair.outcome import (
    NOW,
    repaired,
    require_clean,
    require_untouched,
    require_usable,
    sample_bytes,
    sample_metadata,
)
from tests.unit.check.repair.survey import open_copy, survey
from tests.unit.check.reports import codes_of
from tests.unit.check.sample import (
    ATTRIBUTES,
    BIG,
    BIG_ENTRIES,
    DIRECTORY,
    EXTENTS,
    PREALLOCATED,
    SMALL,
    SUBDIRECTORY,
    TREE,
    sample,
)


def changed_blocks(image: Image) -> set[int]:
    """The blocks in which the image differs from the sample."""
    now, size = image.device.snapshot(), BLOCK_SIZE
    before = sample_bytes()
    return {at // size for at in range(0, len(now), size) if now[at : at + size] != before[at : at + size]}


@pytest.mark.parametrize("name", CASES)
def test_every_problem_is_repaired(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first go."""
    monkeypatch.setattr(repairer, "ROUNDS_MAX", 1)
    image = sample()
    CASES[name].damage(image)
    hit = changed_blocks(image)
    repaired(image)
    require_untouched(image, sample_bytes(), hit, exact=False)
    require_usable(image)


def test_a_sound_image_keeps_every_byte_but_superblocks_and_orphans() -> None:
    image = sample()
    outcome = repair_image(image.device, NOW)
    assert all("released" in action for action in outcome.actions)
    changed = changed_blocks(image)
    log = range(image.superblock.journal_start, image.superblock.journal_start + image.superblock.journal_blocks)
    changed -= {*log, *range(image.fmt.reserved_blocks)}
    records = {image.locate(ino)[0] for ino in (3, 22, 23)}
    bitmaps = {image.mapped(2, 0), image.superblock.bitmap_address(0)}
    assert changed == records | bitmaps


def test_blocks_that_cannot_be_read() -> None:
    """Each block of metadata in turn: what was in it is lost, and nothing else."""
    for address in sample_metadata()[::3]:
        image = sample()
        fault = Fault(
            frozenset([Request.READ]), sticky=True, start=address * BLOCK_SIZE, stop=(address + 1) * BLOCK_SIZE
        )
        broken = FailingDevice(image.device, fault)
        before = codes_of(check_image(broken))
        assert "block-unreadable" in before
        # the disk remaps a bad sector when it is written: from then on it reads what was written last
        repair_image(broken, NOW)
        repair_image(image.device, NOW)
        require_clean(check_image(image.device))
        require_untouched(image, sample_bytes(), [address])


def test_every_freed_record_is_reported() -> None:
    image = sample()
    for ino in (FIRST_INO, FIRST_INO + 2):
        image.put_record(ino, bytes(512))
    actions = repaired(image).actions
    assert sum("freed" in action for action in actions) >= 2


@pytest.mark.parametrize(("ino", "kind"), [(TREE, ExtentNode), (BIG, DirectoryNode)])
def test_the_loss_of_an_inner_node_loses_no_entries(ino: int, kind: type[Node]) -> None:
    """The leaves prove whose they are, though nothing leads to them."""
    image = sample()
    image.spoil(image.inode(ino).root)
    assert not any("lost+found" in action for action in repaired(image).actions)
    require_untouched(image, sample_bytes(), ())


def test_the_remains_of_a_freed_leaf_are_not_used() -> None:
    image = sample()
    root = image.block(image.inode(BIG).root, DirectoryNode)
    address = image.free_run(1)
    stale = image.block(root.children[0], DirectoryNode)
    stale.insert_value(len(stale.keys), name_key(image.fmt, b"gone", FLAG_KEYS31), pack_entry(SMALL, 8, b"gone"))
    image.put_raw(address, stale.encode(image.fmt, address))
    image.spoil(image.inode(BIG).root)
    repaired(image)
    assert b"/big/gone" not in require_untouched(image, sample_bytes(), ())


def test_leaves_that_the_tree_leads_to_are_not_found_again() -> None:
    image = sample()
    leaf = image.block(image.inode(BIG).root, DirectoryNode).children[1]
    image.put_raw(leaf, bytes(BLOCK_SIZE))
    actions = repaired(image).actions
    assert not any("it is there already" in action or "entries of its tree found" in action for action in actions)


def test_a_directory_with_two_names_keeps_the_one_in_its_parent() -> None:
    image = sample()
    CASES["directories.directory_with_two_names"].damage(image)
    assert (
        f"directory {ROOT_INO}: 'again' removed: directory {SUBDIRECTORY} has another name" in repaired(image).actions
    )
    assert b"/dir/sub" in survey(open_copy(image.device.snapshot()))


def test_two_directories_of_one_name_in_one_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is in lost+found afterwards, with all that is in it."""
    monkeypatch.setattr(repairer, "ROUNDS_MAX", 1)
    image = sample()
    root = [entry for entry in image.inode(ROOT_INO).entries if not entry[1].endswith(b"big")]
    image.change_inode(ROOT_INO, entries=tuple(root), size=len(root), nlink=4)
    key = name_key(image.fmt, b"sub", FLAG_KEYS31)
    added = (key + 1, pack_entry(BIG, 4, b"sub"))
    entries = sorted([*image.inode(DIRECTORY).entries, added])
    image.change_inode(DIRECTORY, entries=tuple(entries), size=len(entries), nlink=4)
    image.change_inode(BIG, parent=DIRECTORY)
    actions = repaired(image).actions
    assert f"directory {DIRECTORY}: 'sub' removed: it is there already" in actions
    now = survey(open_copy(image.device.snapshot()))
    assert now[b"/dir/sub"].ino == SUBDIRECTORY
    assert {b"/lost+found/#%d/entry %d" % (BIG, i) for i in range(BIG_ENTRIES)} <= now.keys()


def test_names_in_lost_found_are_not_given_twice() -> None:
    driver = open_copy(sample_bytes())
    home = driver.run(namespace.create, driver.volume, ROOT_INO, b"lost+found", NewInode(stat.S_IFDIR | 0o700)).ino
    driver.run(namespace.create, driver.volume, home, b"#%d" % SMALL, NewInode(stat.S_IFREG | 0o600))
    driver.close()
    image = Image(MemoryDevice.from_bytes(driver.device.read(0, driver.device.size)))
    CASES["directories.file_without_a_name"].damage(image)
    assert f"inode {SMALL}: in no directory; now /lost+found/#{SMALL}.1" in repaired(image).actions
    now = survey(open_copy(image.device.snapshot()))
    assert now[b"/lost+found/#%d.1" % SMALL].content == b"hello"
    assert now[b"/lost+found/#%d" % SMALL].content == b""


def test_a_file_called_lost_found_stays() -> None:
    driver = open_copy(sample_bytes())
    driver.run(namespace.create, driver.volume, ROOT_INO, b"lost+found", NewInode(stat.S_IFREG | 0o600))
    driver.close()
    image = Image(MemoryDevice.from_bytes(driver.device.read(0, driver.device.size)))
    CASES["directories.file_without_a_name"].damage(image)
    assert f"inode {SMALL}: in no directory; now /lost+found.1/#{SMALL}" in repaired(image).actions
    now = survey(open_copy(image.device.snapshot()))
    assert now[b"/lost+found.1/#%d" % SMALL].content == b"hello"
    assert now[b"/lost+found"].content == b""


def test_a_shared_block_that_cannot_be_copied_is_reported() -> None:
    """A block that two files claim, and the device cannot read."""
    image = sample()
    CASES["space.two_files_in_one_place"].damage(image)
    where = image.mapped(EXTENTS, 0) * BLOCK_SIZE
    fault = Fault(frozenset([Request.READ]), sticky=True, start=where, stop=where + BLOCK_SIZE)
    actions = repair_image(FailingDevice(image.device, fault), NOW).actions
    assert f"inode {PREALLOCATED}: 1 blocks that others hold could not be copied: holes now" in actions
    require_clean(check_image(image.device))


def test_a_file_does_not_get_a_copy_of_metadata() -> None:
    """Of a block of the log that it claims: there may be names and contents of others in it."""
    image = sample()
    CASES["space.file_over_the_journal"].damage(image)
    image.put_raw(image.superblock.journal_start, b"secret. " * (BLOCK_SIZE // 8))
    repaired(image)
    now = survey(open_copy(image.device.snapshot()))
    assert now[b"/files/preallocated"].content == bytes(100)


def test_attributes_inline_and_in_blocks_are_joined() -> None:
    image = sample()
    before = survey(open_copy(sample_bytes()))[b"/files/attributes"].xattrs
    image.change_inode(ATTRIBUTES, xattrs=pack_xattrs({b"user.inline": b"too"}))
    repaired(image)
    now = survey(open_copy(image.device.snapshot()))[b"/files/attributes"].xattrs
    assert now == tuple(sorted([*before, (b"user.inline", b"too")]))
