from __future__ import annotations

import errno
import random
from typing import NoReturn

import pytest

from deferfs.device import MemoryDevice, RecordingDevice
from deferfs.errors import FsError
from deferfs.volume import attributes
from deferfs.volume.driver import Driver
from tests.unit.volumes import (
    assert_sound,
    fails_with,
    free_blocks,
    fresh_device,
    fresh_driver,
    look_up,
    make,
    make_file,
    names,
    open_driver,
    record,
    reopened,
    snapshot_of,
    unlink,
)

FULL = 3 << 20
"""An image that is soon full."""


def fill_up(driver: Driver, size: int = 10_000) -> dict[bytes, int]:
    """Write files until nothing more goes in; their sizes."""
    sizes: dict[bytes, int] = {}
    with pytest.raises(FsError) as caught:
        add_files(driver, sizes, size)
    assert caught.value.errno == errno.ENOSPC
    return sizes


def add_files(driver: Driver, sizes: dict[bytes, int], size: int) -> NoReturn:
    while True:
        name = b"f%d" % len(sizes)
        ino = make(driver, name)
        sizes[name] = 0
        while sizes[name] < size:
            sizes[name] += driver.write(ino, sizes[name], name[-1:] * 5000)


@pytest.mark.parametrize("evict", ["deferred", "inline"])
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_a_full_disk(block_size: int, evict: str) -> None:
    """Everything stays readable, deletes work, and all the space comes back."""
    driver = fresh_driver(FULL, block_size=block_size, evict=evict)
    free = free_blocks(driver)
    sizes = fill_up(driver)
    space = driver.volume.store.space
    assert space.available == 0  # a write takes the last block
    for name, size in sizes.items():
        if name in names(driver):
            found = look_up(driver, name)
            assert driver.read(found.ino, 0, 99_999) == name[-1:] * size
            assert found.size == size
    assert_sound(driver)
    with fails_with(errno.ENOSPC):
        driver.write(make(driver, b"straw") if b"straw" not in names(driver) else 0, 0, bytes(9000))
    first = names(driver)[0]
    unlink(driver, first)
    driver.write(make(driver, b"new"), 0, b"y" * 3000)
    for name in names(driver):
        unlink(driver, name)
    driver.collect()
    assert_sound(driver)
    assert free_blocks(driver) == free


@pytest.mark.parametrize("left", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_a_write_takes_what_there_is_space_for(block_size: int, left: int) -> None:
    """One that asks for more is cut short, as POSIX wants it; what has blocks is overwritten."""
    driver = fresh_driver(FULL, block_size=block_size)
    ino = make(driver, b"file")
    driver.write(ino, 0, b"a" * (3 * block_size - 10))
    ballast = driver.write(make(driver, b"ballast"), 0, bytes(FULL))
    driver.truncate(look_up(driver, b"ballast").ino, ballast - left * block_size)
    driver.commit()
    assert driver.volume.store.space.available == left
    assert driver.write(ino, 10, b"b" * 1_000_000) == (3 + left) * block_size - 10
    assert driver.volume.store.space.available == 0
    assert driver.write(ino, 20, b"c" * 1_000_000) == (3 + left) * block_size - 20
    with fails_with(errno.ENOSPC):
        driver.write(ino, (3 + left) * block_size, b"d")
    assert driver.read(ino, 0, 1_000_000) == (b"a" * 10 + b"b" * 10).ljust((3 + left) * block_size, b"c")
    assert_sound(driver)


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_a_write_into_scattered_space_takes_all_but_what_the_tree_needs(block_size: int) -> None:
    """An extent for each block: the tree of the file grows while the last blocks are used."""
    driver = fresh_driver(FULL, block_size=block_size)
    ballast, holes = make(driver, b"ballast"), make(driver, b"holes")
    for number in range(300):
        driver.write(holes if number % 2 else ballast, number // 2 * block_size, bytes(block_size))
    driver.write(make(driver, b"rest"), 0, bytes(FULL))
    assert driver.volume.store.space.available == 0
    unlink(driver, b"holes")
    driver.collect()
    driver.commit()
    free, ino = free_blocks(driver), make(driver, b"file")
    written = driver.write(ino, 0, b"e" * 1_000_000)
    with fails_with(errno.ENOSPC):
        driver.write(ino, written, b"e" * 1_000_000)
    assert driver.volume.store.space.available < 2  # a block, and one of the tree for it
    assert written // block_size == record(driver, ino).size // block_size <= free
    assert driver.read(ino, 0, 1_000_000) == b"e" * written
    assert_sound(driver)


def test_a_full_disk_can_be_emptied_after_a_crash() -> None:
    driver = fresh_driver(FULL)
    free = free_blocks(driver)
    fill_up(driver)
    driver.commit()
    again = reopened(driver)
    for name in names(again):
        unlink(again, name)
    again.commit()
    again = reopened(again)
    again.collect()
    assert_sound(again)
    assert free_blocks(again) == free


def test_space_in_the_backlog_is_found_before_enospc() -> None:
    driver = fresh_driver(FULL)
    fill_up(driver)
    victims = [name for name in names(driver) if look_up(driver, name).size >= 10_000][:20]
    for name in victims:
        unlink(driver, name)
    assert driver.volume.gc.queued == 20
    ino = make(driver, b"again")
    assert driver.write(ino, 0, b"z" * 1_000_000) > 150_000
    assert driver.volume.gc.queued == 0
    with fails_with(errno.ENOSPC):
        driver.write(ino, record(driver, ino).size, b"z" * 4096)


def test_a_small_budget_is_kept_in_sight() -> None:
    limit = 1 << 20
    driver = open_driver(fresh_device(8 << 20), memory_bytes=limit)
    worst = 0
    for number in range(1500):
        ino = make(driver, b"%0100d" % number)
        driver.volume.lookup_count(record(driver, ino))
        driver.forget(ino, 1)
        worst = max(worst, driver.volume.store.memory.used)
        if number % 50 == 0:
            driver.commit()
            driver.checkpoint()
    assert worst < limit + (1 << 20)
    assert driver.volume.store.cache.evicted_total > 0
    assert len(names(driver)) == 1500
    assert_sound(driver)


@pytest.mark.parametrize("evict", ["deferred", "inline"])
def test_direct_reclaim_under_both_policies(evict: str) -> None:
    driver = fresh_driver(evict=evict)
    for number in range(100):
        ino = make(driver, b"f%d" % number)
        driver.volume.lookup_count(record(driver, ino))
        driver.volume.inodes.table[ino].lazy_atime = 1 << 40
        driver.forget(ino, 1)
    driver.reclaim(1 << 20)
    inodes = driver.volume.inodes
    assert inodes.debts.count == (100 if evict == "deferred" else 0)
    assert len(inodes.table) == (0 if evict == "deferred" else 36), "deferred: all the memory is back"
    driver.reclaim(1 << 20)
    assert not inodes.table
    driver.pay()
    assert (inodes.debts.count, driver.volume.gc.backlog) == (0, 0)
    for number in range(100):
        assert look_up(driver, b"f%d" % number).atime == 1 << 40


def test_inactivations_do_not_nest_however_short_memory_is() -> None:
    driver = fresh_driver(evict="inline")
    for number in range(300):
        ino = make(driver, b"f%d" % number)
        driver.volume.lookup_count(record(driver, ino))
        driver.volume.inodes.table[ino].lazy_atime = 5
        driver.forget(ino, 1)
    cleanup, busy = driver.engine.cleanup, [0]
    cleanup.on_step = lambda: busy.append(cleanup.busy)
    driver.volume.store.memory.set_limit(1000)
    make(driver, b"x")
    assert max(busy) == 1


def test_small_journal_much_traffic() -> None:
    driver = fresh_driver(journal_blocks=256)
    chance = random.Random(1)
    expected: dict[bytes, bytes] = {}
    for _ in range(700):
        name = b"f%d" % chance.randrange(300)
        if name in expected:
            unlink(driver, name)
            del expected[name]
        else:
            expected[name] = chance.randbytes(chance.choice([0, 100, 2000, 40_000]))
            make_file(driver, name, expected[name])
        if chance.random() < 0.3:
            driver.collect(3)
    assert driver.volume.store.journal.commits_total > 3
    assert {name: driver.read(look_up(driver, name).ino, 0, 99_999) for name in names(driver)} == expected
    assert_sound(driver)


class TestFsync:
    def test_a_changed_file_is_committed(self) -> None:
        driver = fresh_driver()
        ino = make_file(driver, b"file", b"x" * 3000)
        driver.fsync(ino)
        again = reopened(driver)
        assert again.read(look_up(again, b"file").ino, 0, 9999) == b"x" * 3000

    def test_times_alone_do_not_make_fdatasync_commit(self) -> None:
        driver = fresh_driver()
        ino = make_file(driver, b"file", b"x" * 3000)
        driver.commit()
        commits = driver.volume.store.journal.commits_total
        driver.run(lambda plan: setattr(driver.volume.store.inodes.modify(plan, ino), "mtime", 5))
        driver.fsync(ino, data_only=True)
        assert driver.volume.store.journal.commits_total == commits
        driver.fsync(ino)
        assert driver.volume.store.journal.commits_total == commits + 1

    @pytest.mark.parametrize("change", [{"mode": 0o600}, {"uid": 5}, {"gid": 5}])
    def test_modes_and_owners_make_fdatasync_commit(self, change: dict[str, int]) -> None:
        driver = fresh_driver()
        ino = make_file(driver, b"file", b"x" * 3000)
        driver.commit()
        driver.run(attributes.setattr, driver.volume, ino, **change)
        driver.fsync(ino, data_only=True)
        again = record(reopened(driver), ino)
        assert {name: getattr(again, name) & 0o777 for name in change} == change

    def test_data_alone_is_flushed(self) -> None:
        device = RecordingDevice(fresh_device())
        driver = open_driver(device)
        ino = make(driver, b"file")
        driver.commit()
        device.clear()
        driver.fsync(ino)
        assert len(device.records) == 1


@pytest.mark.parametrize("evict", ["deferred", "inline"])
def test_unmounting_leaves_a_clean_image_and_no_orphans(evict: str) -> None:
    device = fresh_device()
    driver = open_driver(device, evict=evict)
    inos = [make_file(driver, b"f%d" % number, b"x" * 5000) for number in range(50)]
    for ino in inos:
        driver.volume.lookup_count(record(driver, ino), 2)
    for number in range(25):
        unlink(driver, b"f%d" % number)
    driver.close()
    again = open_driver(MemoryDevice.from_bytes(device.snapshot()))
    assert again.volume.gc.queued == 0
    assert len(names(again)) == 25
    assert_sound(again)


def test_the_image_depends_on_nothing_but_the_operations() -> None:
    images = []
    for _ in range(2):
        driver = fresh_driver()
        for number in range(60):
            make_file(driver, b"f%d" % number, b"x" * number * 50)
        for number in range(0, 60, 2):
            unlink(driver, b"f%d" % number)
        driver.close()
        images.append(snapshot_of(driver))
    assert images[0] == images[1]
