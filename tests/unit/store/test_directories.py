from __future__ import annotations

import errno

import pytest

from deferfs.limits import DIRECTORY_COLLISIONS_MAX
from deferfs.ondisk.format import Format
from deferfs.ondisk.inode import FORM_DIRECTORY_TREE, FORM_ENTRIES, Inode
from deferfs.store import directories
from deferfs.store.plan import Plan
from tests.unit.volumes import fails_with, fresh_store


class Listing:
    def __init__(self) -> None:
        self.plan = Plan(fresh_store(), reserve=True)
        self.inode = Inode(77, 0o040755)
        self.inode.set_entries(FORM_ENTRIES, ())

    def add(self, name: bytes, ino: int = 8) -> None:
        directories.add(self.plan, self.inode, name, ino, 8)

    def remove(self, name: bytes) -> None:
        entry = directories.find(self.plan, self.inode, name)
        assert entry is not None
        directories.remove(self.plan, self.inode, entry)

    def keys(self) -> dict[bytes, int]:
        return {entry.name: entry.key for entry in directories.entries(self.plan, self.inode, 0)}


@pytest.fixture
def one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that start with the same letter have the same hash."""

    def key(fmt: Format, name: bytes) -> int:
        return name[0] << 8

    monkeypatch.setattr(directories, "name_key", key)


@pytest.mark.parametrize("count", [3, 60])
def test_names_are_found_inline_and_in_a_tree(count: int) -> None:
    listing = Listing()
    for i in range(count):
        listing.add(b"name%d" % i, 100 + i)
    assert listing.inode.form == (FORM_ENTRIES if count == 3 else FORM_DIRECTORY_TREE)
    assert listing.inode.size == count
    for i in range(count):
        entry = directories.find(listing.plan, listing.inode, b"name%d" % i)
        assert entry is not None
        assert (entry.ino, entry.file_type, entry.name) == (100 + i, 8, b"name%d" % i)
    assert directories.find(listing.plan, listing.inode, b"name") is None
    keys = list(listing.keys().values())
    assert keys == sorted(keys)


@pytest.mark.usefixtures("one_hash")
def test_names_with_one_hash_live_side_by_side() -> None:
    listing = Listing()
    for i in range(DIRECTORY_COLLISIONS_MAX):
        listing.add(b"a%d" % i, 100 + i)
    listing.add(b"b", 9)
    with fails_with(errno.ENOSPC):
        listing.add(b"a-one-more")
    for i in range(DIRECTORY_COLLISIONS_MAX):
        entry = directories.find(listing.plan, listing.inode, b"a%d" % i)
        assert entry is not None
        assert entry.ino == 100 + i
    keys = listing.keys()
    assert sorted(keys.values()) == [*range(97 << 8, 98 << 8), 98 << 8]
    listing.remove(b"a77")
    listing.add(b"a-one-more")
    assert listing.keys()[b"a-one-more"] == keys[b"a77"]
    with fails_with(errno.ENOSPC):
        listing.add(b"a-yet-another")


@pytest.mark.usefixtures("one_hash")
@pytest.mark.parametrize("others", [0, 100])
def test_an_entry_that_stays_keeps_its_key(others: int) -> None:
    listing = Listing()
    for i in range(others):
        listing.add(b"%c%d" % (99 + i % 20, i))
    for i in range(5):
        listing.add(b"a%d" % i)
    before = listing.keys()
    listing.remove(b"a0")
    listing.remove(b"a3")
    after = listing.keys()
    assert after == {name: key for name, key in before.items() if name not in (b"a0", b"a3")}
    for name in after:
        assert directories.find(listing.plan, listing.inode, name) is not None


def test_retarget_keeps_name_and_key() -> None:
    listing = Listing()
    listing.add(b"name")
    entry = directories.find(listing.plan, listing.inode, b"name")
    assert entry is not None
    directories.retarget(listing.plan, listing.inode, entry, 55, 4)
    assert directories.find(listing.plan, listing.inode, b"name") == entry._replace(ino=55, file_type=4)
    assert listing.inode.size == 1


def test_entries_come_after_a_cookie() -> None:
    listing = Listing()
    for i in range(50):
        listing.add(b"name%d" % i)
    keys = sorted(listing.keys().values())
    found = [entry.key for entry in directories.entries(listing.plan, listing.inode, keys[20])]
    assert found == keys[21:]
