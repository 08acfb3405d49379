"""rename: kinds against kinds, flags, places."""

from __future__ import annotations

import errno
import itertools
import stat

import pytest

from deferfs.errors import EUCLEAN
from deferfs.limits import LINKS_MAX
from deferfs.store.plan import Plan
from deferfs.volume import namespace as ns
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import Credentials
from tests.unit.volumes import (
    DIRECTORY,
    ROOT,
    assert_sound,
    fails_with,
    fresh_driver,
    look_up,
    make,
    make_file,
    names,
    record,
    reopened,
)

NOREPLACE, EXCHANGE, WHITEOUT = ns.RENAME_NOREPLACE, ns.RENAME_EXCHANGE, ns.RENAME_WHITEOUT
KINDS = ["file", "empty", "full", "missing"]
OK = 0

REPLACE: dict[tuple[str, str], int] = {
    ("file", "file"): OK,
    ("file", "empty"): errno.EISDIR,
    ("file", "full"): errno.EISDIR,
    ("file", "missing"): OK,
    ("empty", "file"): errno.ENOTDIR,
    ("empty", "empty"): OK,
    ("empty", "full"): errno.ENOTEMPTY,
    ("empty", "missing"): OK,
    ("full", "file"): errno.ENOTDIR,
    ("full", "empty"): OK,
    ("full", "full"): errno.ENOTEMPTY,
    ("full", "missing"): OK,
}


def expected_code(source: str, target: str, flags: int) -> int:
    if source == "missing":
        return errno.ENOENT
    if flags == NOREPLACE:
        return OK if target == "missing" else errno.EEXIST
    if flags == EXCHANGE:
        return errno.ENOENT if target == "missing" else OK
    return REPLACE[source, target]


def build(driver: Driver, parent: int, name: bytes, kind: str) -> int:
    """Something of this kind; its inode, 0 for nothing."""
    if kind == "missing":
        return 0
    if kind == "file":
        return make_file(driver, name, b"contents of " + name, parent)
    ino = make(driver, name, DIRECTORY, parent)
    if kind == "full":
        make(driver, b"child", DIRECTORY, ino)
    return ino


def rename(driver: Driver, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
    driver.run(ns.rename, driver.volume, parent, name, new_parent, new_name, flags)


def listing(driver: Driver, ino: int) -> dict[bytes, int]:
    return {name: look_up(driver, name, ino).ino for name in names(driver, ino)}


@pytest.mark.parametrize("apart", [False, True], ids=["one directory", "two directories"])
@pytest.mark.parametrize(("source", "target", "flags"), list(itertools.product(KINDS, KINDS, [0, NOREPLACE, EXCHANGE])))
def test_kinds_and_flags(source: str, target: str, flags: int, apart: bool) -> None:
    driver = fresh_driver()
    left = make(driver, b"left", DIRECTORY)
    right = make(driver, b"right", DIRECTORY) if apart else left
    old, new = build(driver, left, b"source", source), build(driver, right, b"target", target)
    before = (listing(driver, left), listing(driver, right))
    code = expected_code(source, target, flags)
    if code:
        with fails_with(code):
            rename(driver, left, b"source", right, b"target", flags)
        assert (listing(driver, left), listing(driver, right)) == before
    else:
        rename(driver, left, b"source", right, b"target", flags)
        swapped = {b"source": new} if flags == EXCHANGE else {}
        moved = {b"target": old}
        assert listing(driver, right) == (moved if apart else moved | swapped)
        assert listing(driver, left) == (swapped if apart else moved | swapped)
        assert record(driver, old).parent == (0 if source == "file" else right)
        if new and not flags:
            assert record(driver, new).nlink == 0
    for directory in {left, right}:
        kinds = [record(driver, ino).mode for ino in listing(driver, directory).values()]
        assert record(driver, directory).nlink == 2 + sum(mode >> 12 == 4 for mode in kinds)
        assert record(driver, directory).size == len(kinds)
    assert_sound(driver)
    driver.collect()
    assert_sound(driver)


def test_times_of_all_inodes_that_take_part() -> None:
    driver = fresh_driver()
    left, right = make(driver, b"left", DIRECTORY), make(driver, b"right", DIRECTORY)
    ino = make(driver, b"file", parent=left)
    before = {number: record(driver, number) for number in (left, right, ino)}
    rename(driver, left, b"file", right, b"moved")
    for number in (left, right):
        assert record(driver, number).mtime == record(driver, number).ctime > before[number].mtime
    assert record(driver, ino).ctime > before[ino].ctime
    assert record(driver, ino).mtime == before[ino].mtime


def test_times_of_what_is_exchanged() -> None:
    driver = fresh_driver()
    left, right = make(driver, b"left", DIRECTORY), make(driver, b"right", DIRECTORY)
    ino, other = make(driver, b"file", parent=left), make(driver, b"other", DIRECTORY, parent=right)
    before = {number: record(driver, number) for number in (left, right, ino, other)}
    rename(driver, left, b"file", right, b"other", EXCHANGE)
    for number in (left, right):
        assert record(driver, number).mtime == record(driver, number).ctime > before[number].mtime
    for number in (ino, other):
        assert record(driver, number).ctime > before[number].ctime
        assert record(driver, number).mtime == before[number].mtime


@pytest.mark.parametrize("flags", [0, NOREPLACE, EXCHANGE])
def test_two_names_of_one_file(flags: int) -> None:
    """POSIX: when both are the same file already, nothing happens."""
    driver = fresh_driver()
    ino = make(driver, b"a")
    driver.run(ns.link, driver.volume, ino, ROOT, b"b")
    if flags == NOREPLACE:
        with fails_with(errno.EEXIST):
            rename(driver, ROOT, b"a", ROOT, b"b", flags)
    else:
        rename(driver, ROOT, b"a", ROOT, b"b", flags)
    assert listing(driver, ROOT) == {b"a": ino, b"b": ino}
    assert record(driver, ino).nlink == 2


def test_a_rename_to_its_own_name() -> None:
    driver = fresh_driver()
    ino = make(driver, b"dir", DIRECTORY)
    rename(driver, ROOT, b"dir", ROOT, b"dir")
    assert listing(driver, ROOT) == {b"dir": ino}


@pytest.mark.parametrize("flags", [8, NOREPLACE | EXCHANGE, WHITEOUT | EXCHANGE, WHITEOUT | 8, 1 << 20])
def test_unknown_flags(flags: int) -> None:
    driver = fresh_driver()
    make(driver, b"a")
    with fails_with(errno.EINVAL):
        rename(driver, ROOT, b"a", ROOT, b"b", flags)


@pytest.mark.parametrize("kind", ["file", "empty", "full"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_whiteout_takes_the_old_name(kind: str, replaced: bool) -> None:
    driver = fresh_driver()
    parent = make(driver, b"parent", DIRECTORY)
    moved = build(driver, parent, b"a", kind)
    if replaced:
        build(driver, ROOT, b"b", "file" if kind == "file" else "empty")
    driver.run(ns.rename, driver.volume, parent, b"a", ROOT, b"b", WHITEOUT, Credentials(5, 6))
    driver.commit()
    driver = reopened(driver)
    left = look_up(driver, b"a", parent)
    assert (left.mode, left.rdev, left.nlink, left.uid, left.gid) == (stat.S_IFCHR, 0, 1, 5, 6)
    assert look_up(driver, b"b").ino == moved
    assert record(driver, parent).nlink == 2
    driver.collect()
    assert_sound(driver)


def test_a_whiteout_replaces_nothing_when_told_so() -> None:
    driver = fresh_driver()
    names_before = {make(driver, b"a"), make(driver, b"b")}
    with fails_with(errno.EEXIST):
        rename(driver, ROOT, b"a", ROOT, b"b", WHITEOUT | NOREPLACE)
    assert set(listing(driver, ROOT).values()) == names_before


class TestPlaces:
    def chain(self) -> tuple[Driver, list[int]]:
        """root/d0/d1/d2."""
        driver = fresh_driver()
        inos = [ROOT]
        for depth in range(3):
            inos.append(make(driver, b"d%d" % depth, DIRECTORY, inos[-1]))
        return driver, inos

    @pytest.mark.parametrize("flags", [0, NOREPLACE])
    @pytest.mark.parametrize("into", [1, 2, 3])
    def test_a_directory_cannot_move_below_itself(self, into: int, flags: int) -> None:
        driver, inos = self.chain()
        with fails_with(errno.EINVAL):
            rename(driver, ROOT, b"d0", inos[into], b"x", flags)
        assert_sound(driver)

    def test_a_directory_cannot_be_exchanged_with_what_is_below_it(self) -> None:
        driver, inos = self.chain()
        for parent, name, new_parent, new_name in (
            (ROOT, b"d0", inos[2], b"d2"),
            (inos[2], b"d2", ROOT, b"d0"),
            (ROOT, b"d0", inos[1], b"d1"),
        ):
            with fails_with(errno.EINVAL):
                rename(driver, parent, name, new_parent, new_name, EXCHANGE)
        make(driver, b"file", parent=inos[2])
        with fails_with(errno.EINVAL):
            rename(driver, inos[2], b"file", ROOT, b"d0", EXCHANGE)
        assert_sound(driver)

    def test_a_directory_cannot_replace_its_ancestor(self) -> None:
        driver, inos = self.chain()
        with fails_with(errno.ENOTEMPTY):
            rename(driver, inos[2], b"d2", ROOT, b"d0")

    def test_a_directory_can_move_up(self) -> None:
        driver, inos = self.chain()
        rename(driver, inos[2], b"d2", ROOT, b"up")
        assert look_up(driver, b"..", inos[3]).ino == ROOT
        assert_sound(driver)

    def test_into_something_that_is_no_directory(self) -> None:
        driver, _ = self.chain()
        file = make(driver, b"file")
        with fails_with(errno.ENOTDIR):
            rename(driver, ROOT, b"d0", file, b"x")
        with fails_with(errno.ENOTDIR):
            rename(driver, file, b"x", ROOT, b"y")

    @pytest.mark.parametrize("kind", ["file", "empty"])
    @pytest.mark.parametrize("parent_gone", [False, True])
    def test_into_a_deleted_directory(self, kind: str, parent_gone: bool) -> None:
        driver = fresh_driver()
        build(driver, ROOT, b"source", kind)
        upper = make(driver, b"upper", DIRECTORY)
        gone = make(driver, b"gone", DIRECTORY, upper)
        driver.volume.lookup_count(record(driver, gone))
        driver.run(ns.rmdir, driver.volume, upper, b"gone")
        if parent_gone:
            driver.run(ns.rmdir, driver.volume, ROOT, b"upper")
            driver.collect()
        with fails_with(errno.ENOENT):
            rename(driver, ROOT, b"source", gone, b"x")

    @pytest.mark.parametrize("name", [b"", b"x" * 256, b"a/b"])
    def test_a_name_that_cannot_be(self, name: bytes) -> None:
        driver, _ = self.chain()
        with fails_with(errno.ENAMETOOLONG if len(name) > 255 else errno.EINVAL):
            rename(driver, ROOT, b"d0", ROOT, name)
        with fails_with(errno.ENAMETOOLONG if len(name) > 255 else errno.EINVAL):
            rename(driver, ROOT, name, ROOT, b"x")

    def test_too_many_subdirectories(self) -> None:
        driver, inos = self.chain()

        def op(plan: Plan) -> None:
            driver.volume.store.inodes.modify(plan, ROOT).nlink = LINKS_MAX

        driver.run(op)
        with fails_with(errno.EMLINK):
            rename(driver, inos[2], b"d2", ROOT, b"x")
        make_file(driver, b"file", b"")
        with fails_with(errno.EMLINK):
            rename(driver, inos[2], b"d2", ROOT, b"file", EXCHANGE)
        with fails_with(errno.EMLINK):
            rename(driver, ROOT, b"file", inos[2], b"d2", EXCHANGE)
        rename(driver, ROOT, b"d0", ROOT, b"file", EXCHANGE)
        assert record(driver, ROOT).nlink == LINKS_MAX


def test_replacing_is_atomic_and_frees_what_was_there() -> None:
    """rename over a file: after a crash the name leads to the old or to the new contents, complete."""
    driver = fresh_driver()
    make_file(driver, b"config", b"old" * 1000)
    driver.commit()
    make_file(driver, b"config.new", b"new" * 1000)
    rename(driver, ROOT, b"config.new", ROOT, b"config")
    for commits in (False, True):
        if commits:
            driver.commit()
        again = reopened(driver)
        assert again.read(look_up(again, b"config").ino, 0, 9999) == (b"new" if commits else b"old") * 1000
        assert names(again) == [b"config"]
    driver.collect()
    assert_sound(driver)
    assert driver.volume.store.orphans.count == 0


def test_a_replaced_file_that_is_open_lives_on() -> None:
    driver = fresh_driver()
    old = make_file(driver, b"a", b"old")
    driver.volume.lookup_count(record(driver, old))
    make_file(driver, b"b", b"new")
    rename(driver, ROOT, b"b", ROOT, b"a")
    assert driver.read(old, 0, 9) == b"old"
    driver.forget(old, 1)
    driver.collect()
    with fails_with(errno.ESTALE):
        record(driver, old)


def test_a_damaged_directory_that_is_its_own_ancestor_ends_the_search() -> None:
    driver = fresh_driver()
    upper = make(driver, b"upper", DIRECTORY)
    lower = make(driver, b"lower", DIRECTORY, upper)
    make(driver, b"moved", DIRECTORY)
    driver.run(lambda plan: setattr(driver.volume.store.inodes.modify(plan, upper), "parent", lower))
    with fails_with(EUCLEAN):
        driver.run(ns.rename, driver.volume, ROOT, b"moved", lower, b"moved")
