"""Large directories, and cookies that stay while entries come and go."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deferfs.ondisk.directory import COOKIE_DOT, COOKIE_DOTDOT
from deferfs.store.directories import DirectoryEntry
from deferfs.volume import namespace as ns
from deferfs.volume.driver import Driver
from tests.examples import examples
from tests.unit.volumes import (
    DIRECTORY,
    ROOT,
    assert_sound,
    fails_with,
    fresh_driver,
    look_up,
    make,
    names,
    record,
    unlink,
)


def page(driver: Driver, ino: int, after: int, count: int) -> list[DirectoryEntry]:
    return driver.run(lambda plan: list(islice(ns.readdir(plan, driver.volume, ino, after), count)))


def test_dots_come_first_with_cookies_of_their_own() -> None:
    driver = fresh_driver()
    ino = make(driver, b"dir", DIRECTORY)
    make(driver, b"file", parent=ino)
    entries = page(driver, ino, 0, 9)
    assert entries[:2] == [DirectoryEntry(COOKIE_DOT, ino, 4, b"."), DirectoryEntry(COOKIE_DOTDOT, ROOT, 4, b"..")]
    assert [entry.name for entry in page(driver, ino, COOKIE_DOT, 9)] == [b"..", b"file"]
    assert [entry.name for entry in page(driver, ino, COOKIE_DOTDOT, 9)] == [b"file"]
    assert page(driver, ino, entries[-1].key, 9) == []


def test_a_deleted_directory_has_not_even_dots() -> None:
    driver = fresh_driver()
    ino = make(driver, b"dir", DIRECTORY)
    driver.volume.lookup_count(record(driver, ino))  # a process has it open
    driver.run(ns.rmdir, driver.volume, ROOT, b"dir")
    assert page(driver, ino, 0, 9) == []


def test_only_directories_have_entries() -> None:
    driver = fresh_driver()
    ino = make(driver, b"file")
    with fails_with(20):
        page(driver, ino, 0, 1)


@pytest.mark.parametrize("block_size", [1024, 65536])
def test_thousands_of_entries(block_size: int) -> None:
    driver = fresh_driver(block_size=block_size)
    count = 1500
    inos = {b"name-%d" % number: make(driver, b"name-%d" % number) for number in range(count)}
    driver.commit()
    driver.checkpoint()
    driver.volume.store.cache.shrink(1 << 30)
    found: dict[bytes, int] = {}
    after = COOKIE_DOTDOT
    while entries := page(driver, ROOT, after, 100):
        assert all(left.key < right.key for left, right in pairwise(entries))
        found.update((entry.name, entry.ino) for entry in entries)
        after = entries[-1].key
    assert found == inos
    assert record(driver, ROOT).size == count
    for name in list(inos)[::100]:
        assert look_up(driver, name).ino == inos[name]
    assert_sound(driver)
    for name in names(driver)[: count - 3]:
        unlink(driver, name)
    assert len(names(driver)) == 3
    for number in range(300):
        make(driver, b"new-%d" % number)
    assert len(names(driver)) == 303
    assert_sound(driver)


def test_removing_in_the_order_of_reading_then_adding_again() -> None:
    """As `rm -r` does: the leftmost parts of the tree go first, then names come that hash below what is left."""
    driver = fresh_driver(8 << 20)
    for number in range(1200):
        make(driver, b"%0250d" % number)
    for name in names(driver)[:900]:
        unlink(driver, name)
    driver.collect()
    assert_sound(driver)
    for number in range(1200, 1800):
        make(driver, b"%0250d" % number)
    assert len(names(driver)) == 900
    assert_sound(driver)


@settings(max_examples=examples(25))
@given(
    st.integers(0, 200),
    st.integers(1, 30),
    st.lists(st.tuples(st.booleans(), st.integers(0, 299)), max_size=60),
)
def test_an_entry_that_stays_is_returned_exactly_once(count: int, size: int, changes: list[tuple[bool, int]]) -> None:
    """While other entries come and go between two pages of a reader."""
    driver = fresh_driver()
    present = set()
    for number in range(count):
        make(driver, b"f%d" % number)
        present.add(b"f%d" % number)
    stays = set(present)
    seen: list[bytes] = []
    after = COOKIE_DOTDOT
    pending = list(changes)
    while entries := page(driver, ROOT, after, size):
        seen += [entry.name for entry in entries]
        after = entries[-1].key
        for adds, number in pending[:5]:
            name = b"f%d" % number
            if adds and name not in present:
                make(driver, name)
                present.add(name)
            elif not adds and name in present:
                unlink(driver, name)
                present.discard(name)
                stays.discard(name)
        pending = pending[5:]
    assert [name for name in seen if name in stays] == sorted(stays, key=seen.index)
    assert len([name for name in seen if name in stays]) == len(stays)
