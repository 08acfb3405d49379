from __future__ import annotations

import errno

import pytest

from deferfs.volume import attributes, namespace
from deferfs.volume.driver import Driver
from deferfs.volume.inactivation import Inactivation
from tests.unit.volumes import (
    DIRECTORY,
    FILE,
    fails_with,
    free_blocks,
    fresh_driver,
    make,
    make_file,
    record,
    remounted,
    reopened,
    unlink,
)

UNCHANGED = 0xFFFFFFFF


@pytest.fixture
def driver() -> Driver:
    return fresh_driver()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mode": 0o107_777}, {"mode": FILE & ~0o7777 | 0o7777}),
        ({"mode": 0o40_600}, {"mode": FILE & ~0o7777 | 0o600}),
        ({"uid": 5}, {"uid": 5, "gid": 0}),
        ({"gid": 6}, {"uid": 0, "gid": 6}),
        ({"uid": UNCHANGED, "gid": UNCHANGED}, {"uid": 0, "gid": 0}),
        ({"atime_ns": -5}, {"atime": -5}),
        ({"mtime_ns": 2**63 - 1}, {"mtime": 2**63 - 1}),
        ({"ctime_ns": 2**62}, {"ctime": 2**62}),
    ],
)
def test_setattr(driver: Driver, change: dict[str, int], expected: dict[str, int]) -> None:
    ino = make(driver, b"file")
    before = record(driver, ino)
    driver.run(attributes.setattr, driver.volume, ino, **change)
    after = driver.run(attributes.getattr, driver.volume, ino)
    assert {name: getattr(after, name) for name in expected} == expected
    if "ctime_ns" not in change:
        assert after.ctime > before.ctime
    driver.commit()
    assert record(reopened(driver), ino).mode == after.mode


@pytest.mark.parametrize("change", ["atime_ns", "mtime_ns", "ctime_ns"])
@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_times_out_of_range(driver: Driver, change: str, value: int) -> None:
    ino = make(driver, b"file")
    before = record(driver, ino)
    with fails_with(errno.EOVERFLOW):
        driver.run(attributes.setattr, driver.volume, ino, mode=0o777, **{change: value})
    assert record(driver, ino) is before


def test_times_that_are_set_already_change_nothing(driver: Driver) -> None:
    ino = make(driver, b"file")
    now = record(driver, ino).ctime + 5
    driver.run(attributes.setattr, driver.volume, ino, mtime_ns=4, ctime_ns=now)
    driver.commit()
    for times in ({"ctime_ns": now}, {"mtime_ns": 4, "ctime_ns": now}):
        found = driver.run(attributes.setattr, driver.volume, ino, **times)
        assert (found.mtime, found.ctime) == (4, now)
        assert driver.volume.store.journal.running.empty
    for change in (
        {"ctime_ns": now + 1},
        {"mtime_ns": 5, "ctime_ns": now + 1},
        {"mtime_ns": 5},
        {"mode": 0o644, "ctime_ns": now + 1},
    ):
        driver.commit()
        driver.run(attributes.setattr, driver.volume, ino, **change)
        assert not driver.volume.store.journal.running.empty


class TestLateTimes:
    """Times that the kernel wrote back before a later change, and that arrive after it."""

    @pytest.fixture
    def ino(self, driver: Driver) -> int:
        """Last changed, content and all, at 5,000; it is 10,000."""
        ino = make(driver, b"file")
        driver.volume.store.stamp = lambda: 10_000
        driver.run(attributes.setattr, driver.volume, ino, mtime_ns=5000, ctime_ns=5000)
        driver.commit()
        return ino

    @pytest.mark.parametrize("late", [{"mtime_ns": 4000, "ctime_ns": 4000}, {"ctime_ns": 4999}])
    def test_undo_nothing(self, driver: Driver, ino: int, late: dict[str, int]) -> None:
        found = driver.run(attributes.setattr, driver.volume, ino, **late)
        assert (found.mtime, found.ctime) == (5000, 5000)
        assert driver.volume.store.journal.running.empty

    def test_of_a_write_before_a_change_of_the_name_are_news(self, driver: Driver, ino: int) -> None:
        """The daemon stamps the ctime of that change itself."""
        driver.run(attributes.setattr, driver.volume, ino, ctime_ns=7000)
        found = driver.run(attributes.setattr, driver.volume, ino, mtime_ns=6000, ctime_ns=6000)
        assert (found.mtime, found.ctime) == (6000, 7000)

    def test_are_set_when_the_clock_was_set_back(self, driver: Driver, ino: int) -> None:
        driver.volume.store.stamp = lambda: 4500
        found = driver.run(attributes.setattr, driver.volume, ino, mtime_ns=4000, ctime_ns=4000)
        assert (found.mtime, found.ctime) == (4000, 4000)

    def test_an_earlier_mtime_that_a_program_chose_is_set(self, driver: Driver, ino: int) -> None:
        found = driver.run(attributes.setattr, driver.volume, ino, atime_ns=1, mtime_ns=2, ctime_ns=6000)
        assert (found.atime, found.mtime, found.ctime) == (1, 2, 6000)


def test_attributes_of_a_missing_inode(driver: Driver) -> None:
    with fails_with(errno.ESTALE):
        driver.run(attributes.getattr, driver.volume, 999)
    with fails_with(errno.ESTALE):
        driver.run(attributes.setattr, driver.volume, 999, mode=0)


class TestLazyAccessTime:
    def accessed(self, driver: Driver, ino: int) -> int:
        attributes.accessed(driver.volume, record(driver, ino))
        return attributes.atime_ns(driver.volume, record(driver, ino))

    def test_reading_is_noted_in_memory_when_something_changed_since(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        before = record(driver, ino).atime
        assert self.accessed(driver, ino) == before, "no active reference: there is no in-core inode to note it in"
        driver.volume.lookup_count(record(driver, ino))
        first = self.accessed(driver, ino)
        assert first > before
        assert self.accessed(driver, ino) == first, "relatime"
        driver.write(ino, 0, b"x")
        assert self.accessed(driver, ino) > first
        assert record(driver, ino).atime == before
        assert driver.volume.inodes.table[ino].needs_inactivation

    def test_an_access_time_is_noted_again_a_day_later(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        first = self.accessed(driver, ino)
        now = first + 24 * 3600 * 10**9 + 1000
        driver.volume.store.clock = lambda: now
        assert self.accessed(driver, ino) == now

    def test_each_access_is_noted_under_strictatime(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        driver.volume.atime = "strict"
        times = [self.accessed(driver, ino) for _ in range(3)]
        assert times == sorted(set(times))

    @pytest.mark.parametrize("policy", ["relative", "strict"])
    def test_a_clock_that_is_set_back_turns_no_time_back(self, driver: Driver, policy: str) -> None:
        """Had the time been written at once, it would stay."""
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        driver.volume.atime = policy
        first = self.accessed(driver, ino)
        driver.volume.store.clock = lambda: first - 1
        driver.run(attributes.setattr, driver.volume, ino, mtime_ns=first + 5)
        assert not attributes.accessed(driver.volume, record(driver, ino))
        assert driver.volume.inodes.table[ino].lazy_atime == first

    def test_directories_can_be_left_out(self, driver: Driver) -> None:
        ino = make(driver, b"dir", DIRECTORY)
        driver.volume.lookup_count(record(driver, ino))
        before = record(driver, ino).atime
        driver.volume.atime_of_directories = False
        assert self.accessed(driver, ino) == before
        driver.volume.atime_of_directories = True
        assert self.accessed(driver, ino) > before

    def test_an_access_time_is_noted_for_the_generation_that_was_read(self, driver: Driver) -> None:
        """A record that was read before a wait: its inode has gone meanwhile, and its number is another's."""
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        old = record(driver, ino).copy()
        old.generation += 1
        assert not attributes.accessed(driver.volume, old)
        assert not driver.volume.inodes.table[ino].lazy_atime
        self.accessed(driver, ino)
        assert attributes.atime_ns(driver.volume, old) == old.atime

    def test_accesses_are_not_noted_under_noatime_or_read_only(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        before = record(driver, ino).atime
        driver.volume.atime = "none"
        assert self.accessed(driver, ino) == before
        driver.volume.atime = "relative"
        driver.volume.store.read_only = True
        assert self.accessed(driver, ino) == before

    @pytest.mark.parametrize("evict", ["deferred", "inline"])
    def test_an_access_time_is_journaled_when_the_inode_goes(self, evict: str) -> None:
        driver = fresh_driver(evict=evict)
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        seen = self.accessed(driver, ino)
        driver.forget(ino, 1)
        driver.reclaim(1 << 20)
        assert attributes.atime_ns(driver.volume, record(driver, ino)) == seen, "owed, if not written"
        driver.collect()
        driver.pay()
        assert record(driver, ino).atime == seen
        assert ino not in driver.volume.inodes.table

    def test_an_access_time_is_journaled_at_unmount(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        seen = self.accessed(driver, ino)
        assert record(remounted(driver), ino).atime == seen

    def test_setting_the_time_wins(self, driver: Driver) -> None:
        ino = make(driver, b"file")
        driver.volume.lookup_count(record(driver, ino))
        self.accessed(driver, ino)
        driver.run(attributes.setattr, driver.volume, ino, atime_ns=5)
        assert attributes.atime_ns(driver.volume, record(driver, ino)) == 5
        assert not driver.volume.inodes.table[ino].needs_inactivation


class TestStatfs:
    def test_a_fresh_image(self, driver: Driver) -> None:
        found = attributes.statfs(driver.volume)
        space = driver.volume.store.space
        assert (found.block_size, found.blocks, found.name_max) == (1024, 6144, 255)
        assert found.free == space.free_blocks
        assert found.available == found.free - space.reserve
        assert found.files - found.files_free == 8

    @pytest.mark.parametrize("blocks", [0, 1, 30, 300])
    def test_space_of_a_deleted_file_is_free_at_once(self, driver: Driver, blocks: int) -> None:
        """Before, during and after its inactivation, before and after the commit."""
        free = free_blocks(driver)
        ino = make(driver, b"file")
        for number in range(blocks):
            driver.write(ino, number * 2048, b"x" * 1024)
        assert free_blocks(driver) <= free - blocks
        unlink(driver, b"file")
        slot_block = 1
        seen = [free_blocks(driver)]
        found = attributes.statfs(driver.volume)
        assert found.available == found.free - driver.volume.store.space.reserve, "to ordinary users, too"
        inode = driver.volume.gc.take(1)[0]
        inactivation = Inactivation(driver.volume.inodes, inode)
        assert inactivation.begin()
        while not driver.run_reserved(inactivation.step):
            seen.append(free_blocks(driver))
            driver.commit()
            seen.append(free_blocks(driver))
        assert free_blocks(driver) == free
        inactivation.finish()
        driver.volume.gc.done(inode)
        assert set(seen) == {free - slot_block}
        assert free_blocks(driver) == free
        driver.commit()
        assert free_blocks(driver) == free == driver.volume.store.space.free_blocks
        assert driver.volume.inodes.pending_blocks == 0

    def test_statfs_returns_to_that_of_a_fresh_image(self, driver: Driver) -> None:
        fresh = attributes.statfs(driver.volume)
        for number in range(200):
            make_file(driver, b"f%d" % number, b"x" * number * 40)
        parent = make(driver, b"dir", DIRECTORY)
        make(driver, b"inside", parent=parent)
        assert attributes.statfs(driver.volume) != fresh
        unlink(driver, b"inside", parent)
        driver.run(namespace.rmdir, driver.volume, 1, b"dir")
        for number in range(200):
            unlink(driver, b"f%d" % number)
        driver.collect()
        driver.commit()
        assert attributes.statfs(driver.volume) == fresh
