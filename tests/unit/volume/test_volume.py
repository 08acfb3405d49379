from __future__ import annotations

import errno

import pytest

from deferfs.volume.files import read, write
from deferfs.volume.volume import check_name
from tests.unit.volumes import DIRECTORY, fails_with, fresh_driver, look_up, make, names, record, unlink


@pytest.mark.parametrize(
    ("name", "code"),
    [(b"", errno.EINVAL), (b"/", errno.EINVAL), (b"a\0", errno.EINVAL), (b"x" * 256, errno.ENAMETOOLONG)],
)
def test_names_that_cannot_be(name: bytes, code: int) -> None:
    with fails_with(code):
        check_name(name)


@pytest.mark.parametrize("name", [b"a", b"x" * 255, b"\xff\n ", b"..."])
def test_names_that_can_be(name: bytes) -> None:
    check_name(name)  # raises nothing
    driver = fresh_driver()
    assert names(driver) == []
    make(driver, name)
    assert names(driver) == [name]


def test_the_policy_can_be_switched_with_a_backlog() -> None:
    driver = fresh_driver(evict="deferred")
    volume = driver.volume
    for name in (b"a", b"b", b"c"):
        make(driver, name)
    unlink(driver, b"a")
    assert volume.gc.queued == 1
    volume.set_policy("inline")
    assert volume.policy.name == "inline"
    unlink(driver, b"b")
    assert (volume.gc.queued, volume.store.orphans.count) == (1, 1)
    volume.set_policy("deferred")
    unlink(driver, b"c")
    assert (volume.gc.queued, volume.store.orphans.count) == (2, 2)
    driver.collect()
    assert volume.store.orphans.count == 0
    with pytest.raises(ValueError, match="deferred, inline"):
        volume.set_policy("none")


def test_a_lookup_notices_blocks_past_the_end() -> None:
    driver = fresh_driver()
    ino = make(driver, b"file")
    for at in range(0, 80 * 1024, 8192):
        driver.run(write, driver.volume, ino, at, b"x" * 8192)
    driver.volume.lookup_count(record(driver, ino), 3)
    inode = driver.volume.inodes.table[ino]
    assert (inode.lookups, inode.preallocated, inode.needs_inactivation) == (3, True, True)


@pytest.mark.parametrize("ino", [0, 2, 3, 7, 1 << 50])
def test_an_internal_inode_is_stale(ino: int) -> None:
    driver = fresh_driver()
    with fails_with(errno.ESTALE):
        driver.run(read, driver.volume, ino, 0, 1)


def test_a_directory_that_leaves_memory_leaves_the_list_of_directories() -> None:
    """Else the list would grow with every directory that was ever seen."""
    driver = fresh_driver()
    volume = driver.volume
    for number in range(20):
        make(driver, b"d%d" % number, DIRECTORY)
        record = look_up(driver, b"d%d" % number)
        volume.lookup_count(record)
        assert record.ino in volume.directories
        driver.forget(record.ino, 1)
        volume.inodes.shrink(1 << 62, 1 << 20)
        driver.collect()
    assert not volume.directories
    assert volume.directories_highest == 1
