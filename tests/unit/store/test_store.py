from __future__ import annotations

import errno

import pytest

from deferfs.device import MemoryDevice, RecordingDevice, WriteRecord
from deferfs.errors import CorruptionError
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.inode import INODE_FILE_INO, ORPHAN_FILE_INO, ROOT_INO
from deferfs.ondisk.superblock import STATE_ERRORS
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.io import run_job
from deferfs.store.needs import NeedBlocks
from deferfs.store.recovery import read_superblock
from deferfs.store.store import mark_errors
from tests.unit.volumes import (
    fails_with,
    fresh_device,
    fresh_driver,
    make,
    make_file,
    names,
    open_driver,
    remounted,
    reopened,
    snapshot_of,
    unlink,
)


def test_opening_marks_the_image_as_in_use() -> None:
    device = fresh_device()
    assert run_job(device, read_superblock(device.size)).clean
    open_driver(device)
    found = run_job(device, read_superblock(device.size))
    assert not found.clean
    assert found.mounts == 1
    open_driver(device)
    assert run_job(device, read_superblock(device.size)).mounts == 2


def test_a_read_only_open_writes_nothing() -> None:
    device = RecordingDevice(fresh_device())
    driver = open_driver(device, read_only=True)
    assert names(driver) == []
    with fails_with(errno.EROFS):
        make(driver, b"a")
    driver.close()
    assert not device.records


def test_a_lost_superblock_does_not_make_the_log_unknown() -> None:
    """The first one of a mount is lost, and the other says that the image was left clean, before that mount."""
    driver = fresh_driver()
    make(driver, b"committed")
    driver.commit()
    device = MemoryDevice.from_bytes(snapshot_of(driver))
    device.write(SUPERBLOCK_OFFSETS[driver.volume.store.superblock.sequence % 2] + 100, b"damage")
    with fails_with(errno.EROFS):
        open_driver(MemoryDevice.from_bytes(device.snapshot()), read_only=True)
    assert names(open_driver(device)) == [b"committed"]


def test_a_lost_superblock_of_an_image_that_was_left_clean_does_no_harm() -> None:
    driver = fresh_driver()
    make(driver, b"kept")
    driver.close()
    device = MemoryDevice.from_bytes(snapshot_of(driver))
    device.write(SUPERBLOCK_OFFSETS[(driver.volume.store.superblock.sequence + 1) % 2] + 100, b"damage")
    before = device.snapshot()
    assert names(open_driver(device, read_only=True)) == [b"kept"]
    assert device.snapshot() == before
    assert names(open_driver(device)) == [b"kept"]


def test_a_log_to_replay_refuses_a_read_only_open() -> None:
    driver = fresh_driver()
    make(driver, b"a")
    driver.commit()
    before = snapshot_of(driver)
    device = MemoryDevice.from_bytes(before)
    with fails_with(errno.EROFS):
        open_driver(device, read_only=True)
    assert device.snapshot() == before


def test_an_unclean_image_with_an_empty_log_opens_read_only() -> None:
    driver = fresh_driver()
    make(driver, b"a")
    driver.commit()
    driver.checkpoint()
    assert names(open_driver(MemoryDevice.from_bytes(snapshot_of(driver)), read_only=True)) == [b"a"]


@pytest.mark.parametrize("crash", [False, True])
def test_memory_is_rebuilt_from_the_image(crash: bool) -> None:
    driver = fresh_driver()
    for number in range(120):
        make_file(driver, b"f%d" % number, bytes(2000))
    for number in range(0, 120, 3):
        unlink(driver, b"f%d" % number)
    driver.collect(10)
    driver.commit()
    again = reopened(driver) if crash else remounted(driver)
    old, new = driver.volume.store, again.volume.store
    assert new.space.counts == old.space.counts
    assert new.space.free_blocks == old.space.free_blocks
    assert (new.inodes.used, new.inodes.groups) == (old.inodes.used, old.inodes.groups)
    assert (new.orphans.used, new.orphans.count) == (old.orphans.used, old.orphans.count)
    assert new.orphans.count == (30 if crash else 0)
    assert again.volume.gc.queued == new.orphans.count
    assert sorted(names(again)) == sorted(names(driver))


def test_a_reference_out_of_the_filesystem_is_corruption() -> None:
    driver = fresh_driver()
    store = driver.volume.store
    for address in (0, -1, store.superblock.blocks, 1 << 60):
        with pytest.raises(CorruptionError, match="outside the filesystem"):
            run_job(driver.device, store.fetch(NeedBlocks([(address, XattrBlock)])))


def test_damaged_metadata_is_answered_with_euclean() -> None:
    driver = fresh_driver()
    for number in range(100):
        make(driver, b"f%d" % number)
    driver.close()
    image = bytearray(snapshot_of(driver))
    root = driver.run(driver.volume.store.inodes.get, ROOT_INO).root
    image[root * 1024 + 100] ^= 1
    again = open_driver(MemoryDevice.from_bytes(image))
    with fails_with(errno.EUCLEAN):
        names(again)


def test_errors_are_remembered() -> None:
    driver = fresh_driver()
    driver.job(mark_errors(driver.volume.store))
    assert run_job(driver.device, read_superblock(driver.device.size)).state & STATE_ERRORS
    driver.close()
    found = run_job(driver.device, read_superblock(driver.device.size))
    assert found.clean
    assert found.state & STATE_ERRORS


@pytest.mark.parametrize("ino", [INODE_FILE_INO, ORPHAN_FILE_INO])
def test_the_filesystem_keeps_its_own_files_to_itself(ino: int) -> None:
    driver = fresh_driver()
    with fails_with(errno.ESTALE):
        driver.read(ino, 0, 10)


def test_opening_reads_no_more_than_it_needs() -> None:
    device = RecordingDevice(fresh_device())
    driver = open_driver(device)
    writes = [record for record in device.records if isinstance(record, WriteRecord)]
    assert [(len(write.data), write.offset in (0, 65536)) for write in writes] == [(512, True)]
    pinned = [address for address, entry in driver.volume.store.cache.entries.items() if entry.holds]
    assert len(pinned) == 32, "chunk 0 of the inode table"
