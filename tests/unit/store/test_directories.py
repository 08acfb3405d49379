from __future__ import annotations

import errno

import pytest

from deferfs.errors import CorruptionError
from deferfs.limits import DIRECTORY_ENTRIES_MAX, DIRECTORY_WINDOW
from deferfs.ondisk.directory import pack_entry
from deferfs.ondisk.format import Format
from deferfs.ondisk.inode import FLAG_KEYS31, FORM_DIRECTORY_TREE, FORM_ENTRIES, Inode
from deferfs.store import directories
from deferfs.store.fork import directory_fork
from deferfs.store.plan import Plan
from tests.unit.volumes import fails_with, fresh_store


class Listing:
    def __init__(self, flags: int = FLAG_KEYS31) -> None:
        self.plan = Plan(fresh_store(), reserve=True)
        self.inode = Inode(77, 0o040755)
        self.inode.flags = flags
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
    """Names that start with the same letter have the same hash, and no window overlaps another."""

    def key(fmt: Format, name: bytes, flags: int) -> int:
        return name[0] << 8

    monkeypatch.setattr(directories, "name_key", key)


@pytest.fixture
def near_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The windows of names overlap: a name is `xy...`, and its window begins at 256 + the number of `y`."""

    def key(fmt: Format, name: bytes, flags: int) -> int:
        return 256 + name[1]

    monkeypatch.setattr(directories, "name_key", key)


@pytest.mark.parametrize("flags", [0, FLAG_KEYS31])
@pytest.mark.parametrize("count", [3, 60])
def test_names_are_found_inline_and_in_a_tree(count: int, flags: int) -> None:
    listing = Listing(flags)
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
    for i in range(DIRECTORY_WINDOW):
        listing.add(b"a%d" % i, 100 + i)
    listing.add(b"b", 9)
    with fails_with(errno.ENOSPC):
        listing.add(b"a-one-more")
    for i in range(DIRECTORY_WINDOW):
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


@pytest.mark.usefixtures("near_hashes")
@pytest.mark.parametrize("others", [0, 100])
def test_a_lookup_goes_on_behind_a_hole(others: int) -> None:
    """Windows overlap: the entry that is removed was in the way of one with another hash."""
    listing = Listing()
    for i in range(others):
        listing.add(b"o%c%d" % (200 + i % 20, i))
    for name in (b"a\x05", b"b\x05", b"c\x06", b"d\x05", b"e\x08"):
        listing.add(name)
    keys = listing.keys()
    assert [keys[name] - 256 for name in (b"a\x05", b"b\x05", b"c\x06", b"d\x05", b"e\x08")] == [5, 6, 7, 8, 9]
    for name in (b"b\x05", b"a\x05", b"c\x06"):
        listing.remove(name)
    assert {name: listing.keys()[name] for name in (b"d\x05", b"e\x08")} == {b"d\x05": 264, b"e\x08": 265}
    for name in (b"d\x05", b"e\x08"):
        assert directories.find(listing.plan, listing.inode, name) is not None
    listing.add(b"f\x04")
    listing.add(b"g\x05")
    assert (listing.keys()[b"f\x04"], listing.keys()[b"g\x05"]) == (260, 261)


@pytest.mark.usefixtures("near_hashes")
def test_a_full_window_is_no_matter_of_its_own_hash_alone() -> None:
    listing = Listing()
    for i in range(DIRECTORY_WINDOW):
        listing.add(b"%c%c" % (i, i))
    with fails_with(errno.ENOSPC):
        listing.add(b"x\x00")
    listing.add(b"x\x01")
    assert listing.keys()[b"x\x01"] == 256 + DIRECTORY_WINDOW
    listing.remove(b"\x80\x80")
    listing.add(b"x\x00")
    assert listing.keys()[b"x\x00"] == 256 + 0x80
    assert directories.find(listing.plan, listing.inode, b"x\x01") is not None


@pytest.mark.parametrize("flags", [0, FLAG_KEYS31])
def test_a_directory_with_31_bit_keys_is_full_at_its_limit(flags: int) -> None:
    listing = Listing(flags)
    listing.add(b"first")
    listing.inode.size = DIRECTORY_ENTRIES_MAX - 1
    listing.add(b"last")
    if flags:
        with fails_with(errno.ENOSPC):
            listing.add(b"one more")
        listing.remove(b"first")
    listing.add(b"one more")
    assert directories.find(listing.plan, listing.inode, b"one more") is not None


@pytest.mark.parametrize(("flags", "end"), [(0, 1 << 63), (FLAG_KEYS31, 1 << 31)])
def test_a_key_that_no_reader_can_be_told_is_damage(flags: int, end: int) -> None:
    listing = Listing(flags)
    listing.add(b"name")
    value = pack_entry(9, 8, b"beyond")
    directory_fork(listing.plan, listing.inode).insert(end - 1, value)
    assert len(listing.keys()) == 2
    directory_fork(listing.plan, listing.inode).insert(end, value)
    with pytest.raises(CorruptionError):
        listing.keys()


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
