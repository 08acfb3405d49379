"""Offsets of directory entries: theirs for life, in both kinds of directories, and where windows of names overlap."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferfs.ondisk import directory as keys
from deferfs.ondisk.directory import COOKIE_DOTDOT
from deferfs.ondisk.inode import FLAG_KEYS31
from deferfs.store.plan import Plan
from deferfs.volume import namespace as ns
from deferfs.volume.driver import Driver
from tests.examples import examples
from tests.unit.volumes import (
    DIRECTORY,
    ROOT,
    assert_sound,
    fresh_device,
    fresh_driver,
    look_up,
    make,
    names,
    open_driver,
    record,
    remounted,
    unlink,
)

NAMES = [b"f%d" % number for number in range(120)]
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.sampled_from(NAMES)),
        st.tuples(st.just("remove"), st.sampled_from(NAMES)),
        st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("read"), st.integers(1, 20)),
        st.tuples(st.just("remount")),
    ),
    max_size=120,
)


@dataclass
class Reader:
    """One reading of the directory, in pages: `stays` were there all the time."""

    stays: set[bytes]
    after: int = COOKIE_DOTDOT
    seen: list[bytes] = field(default_factory=list)


@dataclass
class World:
    """A directory, and what is known of it: name -> offset."""

    driver: Driver
    ino: int
    known: dict[bytes, int] = field(default_factory=dict)
    reader: Reader | None = None

    def offsets(self) -> dict[bytes, int]:
        def op(plan: Plan) -> dict[bytes, int]:
            return {e.name: e.key for e in ns.readdir(plan, self.driver.volume, self.ino, COOKIE_DOTDOT)}

        return self.driver.run(op)

    def make(self, name: bytes) -> None:
        if name not in self.known:
            make(self.driver, name, parent=self.ino)
            self.known[name] = 0

    def remove(self, name: bytes) -> None:
        if name in self.known:
            unlink(self.driver, name, self.ino)
            self._gone(name)

    def rename(self, old: bytes, new: bytes) -> None:
        if old in self.known and old != new:
            volume = self.driver.volume
            self.driver.run(ns.rename, volume, self.ino, old, self.ino, new, 0)
            self._gone(old)
            self.known.setdefault(new, 0)

    def _gone(self, name: bytes) -> None:
        del self.known[name]
        if self.reader:
            self.reader.stays.discard(name)

    def read(self, count: int) -> None:
        """The next page of a reader; a new one begins when it has come to the end."""
        reader = self.reader = self.reader or Reader(set(self.known))

        def op(plan: Plan) -> list[tuple[bytes, int]]:
            found = islice(ns.readdir(plan, self.driver.volume, self.ino, reader.after), count)
            return [(entry.name, entry.key) for entry in found]

        page = self.driver.run(op)
        reader.seen += [name for name, _ in page]
        if page:
            reader.after = page[-1][1]
        else:
            seen = [name for name in reader.seen if name in reader.stays]
            assert len(seen) == len(set(seen))
            assert set(seen) == reader.stays
            self.reader = None

    def remount(self) -> None:
        self.driver = remounted(self.driver)

    def check(self, end: int) -> None:
        """What was there before has the offset that it had."""
        found = self.offsets()
        assert found.keys() == self.known.keys()
        assert all(COOKIE_DOTDOT < offset < end for offset in found.values())
        assert all(self.known[name] in (0, offset) for name, offset in found.items())
        self.known = found


def old_driver() -> Driver:
    return open_driver(fresh_device(keys31=False))


@settings(max_examples=examples(40))
@given(CHANGES, st.sampled_from([30, 300, (1 << 31) - 768]))
def test_an_offset_is_its_entrys_for_life(changes: list[tuple[str, *tuple[object, ...]]], hashes: int) -> None:
    """With few hashes, windows overlap wherever one looks, and entries are filed far from the first key of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_HASHES31", hashes)
        keys.name_key.cache_clear()
        driver = fresh_driver()
        world = World(driver, make(driver, b"directory", DIRECTORY))
        for name in NAMES[::2]:
            world.make(name)
        for what, *arguments in changes:
            getattr(world, what)(*arguments)
            world.check(1 << 31)
        world.read(1)
        while world.reader:
            world.read(7)
        for name in NAMES:
            found = world.driver.run(ns.find, world.driver.volume, world.ino, name)
            assert (found is not None) == (name in world.known)
        assert_sound(world.driver)
    keys.name_key.cache_clear()


@pytest.mark.parametrize("changes", [[(what, name) for name in NAMES for what in ("make", "remove", "make")]])
def test_an_older_image_keeps_its_kind(changes: list[tuple[str, bytes]]) -> None:
    """Earlier versions can go on with it: neither the superblock nor a directory is marked."""
    driver = old_driver()
    world = World(driver, make(driver, b"directory", DIRECTORY))
    for what, name in changes:
        getattr(world, what)(name)
        world.check(1 << 63)
    assert any(offset >= 1 << 31 for offset in world.known.values())
    world.remount()
    world.check(1 << 63)
    assert not world.driver.volume.store.superblock.incompatible
    assert [record(world.driver, ino).flags for ino in (ROOT, world.ino)] == [0, 0]
    assert_sound(world.driver)


def test_new_directories_are_of_the_kind_of_their_image() -> None:
    driver = fresh_driver()
    ino = make(driver, b"directory", DIRECTORY)
    file = make(driver, b"file")
    assert [record(driver, number).flags for number in (ROOT, ino, file)] == [FLAG_KEYS31, FLAG_KEYS31, 0]
    assert driver.volume.store.superblock.incompatible == 1


def test_both_kinds_in_one_image() -> None:
    """As after a conversion that was cut off: names move from one to the other."""
    driver = old_driver()
    old = make(driver, b"old", DIRECTORY)
    store = driver.volume.store
    store.superblock = store.superblock.with_keys31()
    new = make(driver, b"new", DIRECTORY)
    assert [record(driver, ino).flags for ino in (old, new)] == [0, FLAG_KEYS31]
    inos = {name: make(driver, name, parent=old) for name in NAMES}
    for source, target in ((old, new), (new, old), (old, new)):
        for name in NAMES:
            driver.run(ns.rename, driver.volume, source, name, target, name, 0)
    assert not names(driver, old)
    assert {name: look_up(driver, name, new).ino for name in NAMES} == inos
    assert max(World(driver, new).offsets().values()) < 1 << 31
    assert_sound(remounted(driver))
