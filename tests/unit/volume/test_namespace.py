from __future__ import annotations

import errno
import stat
from collections.abc import Callable

import pytest

from deferfs.limits import LINKS_MAX
from deferfs.ondisk.inode import Inode
from deferfs.store import directories
from deferfs.store.plan import Plan
from deferfs.volume import namespace as ns
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import Credentials, NewInode
from tests.unit.volumes import (
    DIRECTORY,
    FILE,
    ROOT,
    assert_sound,
    fails_with,
    free_blocks,
    fresh_driver,
    look_up,
    make,
    make_file,
    names,
    record,
    reopened,
    unlink,
)


@pytest.fixture
def driver() -> Driver:
    """A root with a file, a directory that holds a file, an empty directory and a symbolic link."""
    driver = fresh_driver()
    make_file(driver, b"file", b"data")
    full = make(driver, b"full", DIRECTORY)
    make(driver, b"inside", parent=full)
    make(driver, b"empty", DIRECTORY)
    driver.run(ns.symlink, driver.volume, ROOT, b"link", b"target")
    return driver


def rmdir(driver: Driver, name: bytes, parent: int = ROOT) -> None:
    driver.run(ns.rmdir, driver.volume, parent, name)


def link(driver: Driver, ino: int, name: bytes, parent: int = ROOT) -> Inode:
    return driver.run(ns.link, driver.volume, ino, parent, name)


def patch(driver: Driver, ino: int, **fields: int) -> None:
    """Change fields of a record behind everybody's back."""

    def op(plan: Plan) -> None:
        found = driver.volume.store.inodes.modify(plan, ino)
        for field, value in fields.items():
            setattr(found, field, value)

    driver.run(op)


def deleted_directory(driver: Driver) -> int:
    """A directory without a name that still has an active reference."""
    gone = make(driver, b"gone", DIRECTORY)
    driver.volume.lookup_count(record(driver, gone))
    rmdir(driver, b"gone")
    return gone


class TestLookup:
    def test_lookup_finds_names_dot_and_dot_dot(self, driver: Driver) -> None:
        full = look_up(driver, b"full").ino
        assert look_up(driver, b"inside", full).ino == full + 1
        assert look_up(driver, b".", full).ino == full
        assert look_up(driver, b"..", full).ino == ROOT
        assert look_up(driver, b"..").ino == ROOT

    @pytest.mark.parametrize(
        ("parent", "name", "code"),
        [
            (b"", b"missing", errno.ENOENT),
            (b"full", b"file", errno.ENOENT),
            (b"file", b"x", errno.ENOTDIR),
            (b"link", b"x", errno.ENOTDIR),
            (b"", b"x" * 256, errno.ENAMETOOLONG),
            (b"", b"x" * 255, errno.ENOENT),
            (b"", b"", errno.EINVAL),
            (b"", b"a/b", errno.EINVAL),
            (b"", b"a\0b", errno.EINVAL),
        ],
    )
    def test_lookup_of_what_is_not_there(self, driver: Driver, parent: bytes, name: bytes, code: int) -> None:
        ino = look_up(driver, parent).ino if parent else ROOT
        with fails_with(code):
            look_up(driver, name, ino)


class TestCreate:
    @pytest.mark.parametrize(
        ("mode", "nlink"),
        [
            (FILE, 1),
            (DIRECTORY, 2),
            (stat.S_IFIFO | 0o600, 1),
            (stat.S_IFSOCK | 0o600, 1),
            (stat.S_IFBLK | 0o600, 1),
            (stat.S_IFCHR | 0o600, 1),
        ],
    )
    def test_each_kind(self, driver: Driver, mode: int, nlink: int) -> None:
        before = record(driver, ROOT)
        made = driver.run(ns.create, driver.volume, ROOT, b"new", NewInode(mode, Credentials(3, 4), 0x1234))
        found = record(driver, made.ino)
        assert (found.mode, found.uid, found.gid, found.nlink, found.rdev) == (mode, 3, 4, nlink, 0x1234)
        assert found.atime == found.mtime == found.ctime == found.crtime > before.mtime
        root = record(driver, ROOT)
        assert root.nlink == before.nlink + stat.S_ISDIR(mode)
        assert root.mtime == root.ctime == found.crtime
        assert root.size == before.size + 1
        assert found.parent == (ROOT if stat.S_ISDIR(mode) else 0)
        entries = driver.run(lambda plan: list(ns.readdir(plan, driver.volume, ROOT, 0)))
        assert [entry.file_type for entry in entries if entry.name == b"new"] == [mode >> 12]

    def test_a_set_group_directory_passes_its_group_on(self, driver: Driver) -> None:
        patch(driver, look_up(driver, b"empty").ino, mode=DIRECTORY | stat.S_ISGID, gid=77)
        parent = look_up(driver, b"empty").ino
        made = [driver.run(ns.create, driver.volume, parent, name, NewInode(mode, Credentials(3, 4))) for name, mode in
                ((b"f", FILE), (b"d", DIRECTORY))]  # fmt: skip
        assert [(r.gid, bool(r.mode & stat.S_ISGID)) for r in made] == [(77, False), (77, True)]

    @pytest.mark.parametrize("name", [b"file", b"full", b"link"])
    @pytest.mark.parametrize("mode", [FILE, DIRECTORY])
    def test_a_name_is_taken_once(self, driver: Driver, name: bytes, mode: int) -> None:
        with fails_with(errno.EEXIST):
            make(driver, name, mode)
        with fails_with(errno.EEXIST):
            driver.run(ns.symlink, driver.volume, ROOT, name, b"t")

    @pytest.mark.parametrize("name", [b"x" * 256, b"", b"a/b"])
    def test_a_name_that_cannot_be(self, driver: Driver, name: bytes) -> None:
        with fails_with(errno.ENAMETOOLONG if len(name) > 255 else errno.EINVAL):
            make(driver, name)

    def test_the_longest_name(self, driver: Driver) -> None:
        ino = make(driver, b"\xff" * 255)
        assert look_up(driver, b"\xff" * 255).ino == ino

    def test_create_fails_below_a_file_or_a_deleted_directory(self, driver: Driver) -> None:
        with fails_with(errno.ENOTDIR):
            make(driver, b"x", parent=look_up(driver, b"file").ino)
        with fails_with(errno.ENOENT):
            make(driver, b"x", parent=deleted_directory(driver))

    def test_too_many_subdirectories(self, driver: Driver) -> None:
        patch(driver, ROOT, nlink=LINKS_MAX)
        used = driver.volume.store.inodes.used
        with fails_with(errno.EMLINK):
            make(driver, b"one-more", DIRECTORY)
        assert driver.volume.store.inodes.used == used
        make(driver, b"a-file")


class TestLink:
    def test_another_name(self, driver: Driver) -> None:
        before = look_up(driver, b"file")
        link(driver, before.ino, b"second")
        after = look_up(driver, b"second")
        assert (after.ino, after.nlink) == (before.ino, 2)
        assert after.ctime > before.ctime
        assert after.mtime == before.mtime

    def test_a_symbolic_link_can_have_names_too(self, driver: Driver) -> None:
        link(driver, look_up(driver, b"link").ino, b"second")
        assert driver.readlink(look_up(driver, b"second").ino) == b"target"

    def test_errors(self, driver: Driver) -> None:
        file, empty = look_up(driver, b"file").ino, look_up(driver, b"empty").ino
        with fails_with(errno.EPERM):
            link(driver, empty, b"second")
        with fails_with(errno.EEXIST):
            link(driver, file, b"full")
        with fails_with(errno.ENOTDIR):
            link(driver, file, b"x", file)
        with fails_with(errno.ENAMETOOLONG):
            link(driver, file, b"x" * 256)
        with fails_with(errno.ENOENT):
            link(driver, file, b"x", deleted_directory(driver))
        with fails_with(errno.ESTALE):
            link(driver, 999, b"x")
        patch(driver, file, nlink=LINKS_MAX)
        with fails_with(errno.EMLINK):
            link(driver, file, b"x")

    def test_a_deleted_file_gets_no_new_name(self, driver: Driver) -> None:
        file = look_up(driver, b"file")
        driver.volume.lookup_count(file)
        unlink(driver, b"file")
        with fails_with(errno.ENOENT):
            link(driver, file.ino, b"again")


class TestUnlink:
    def test_the_last_name_makes_an_orphan(self, driver: Driver) -> None:
        store = driver.volume.store
        ino = look_up(driver, b"file").ino
        link(driver, ino, b"second")
        driver.commit()
        before = record(driver, ino)
        unlink(driver, b"file")
        after = record(driver, ino)
        assert (after.nlink, store.orphans.count) == (1, 0)
        assert after.ctime > before.ctime
        assert after.mtime == before.mtime
        assert store.journal.uncommitted(ino, data_only=True), "fdatasync keeps the number of names too"
        unlink(driver, b"second")
        found = record(driver, ino)
        assert (found.nlink, found.orphan_slot, store.orphans.count) == (0, 1, 1)
        assert driver.volume.gc.queued == 1
        assert driver.collect() == 1
        assert store.orphans.count == 0
        with fails_with(errno.ESTALE):
            record(driver, ino)

    def test_a_file_that_is_open_lives_on(self, driver: Driver) -> None:
        ino = look_up(driver, b"file").ino
        driver.volume.lookup_count(record(driver, ino), 2)
        unlink(driver, b"file")
        assert driver.volume.gc.queued == 0
        driver.write(ino, 4, b" and more")
        driver.truncate(ino, 8)
        assert driver.read(ino, 0, 99) == b"data and"
        driver.forget(ino, 1)
        assert driver.volume.gc.queued == 0
        driver.forget(ino, 1)
        assert driver.volume.gc.queued == 1

    def test_errors(self, driver: Driver) -> None:
        with fails_with(errno.EISDIR):
            unlink(driver, b"empty")
        with fails_with(errno.ENOENT):
            unlink(driver, b"missing")
        with fails_with(errno.ENOTDIR):
            unlink(driver, b"x", look_up(driver, b"file").ino)

    def test_orphans_survive_a_crash_and_are_collected_then(self, driver: Driver) -> None:
        free = free_blocks(driver)
        ino = make_file(driver, b"big", b"x" * 50_000)
        driver.volume.lookup_count(record(driver, ino))
        unlink(driver, b"big")
        driver.commit()
        again = reopened(driver)
        assert again.volume.gc.queued == 1
        assert again.read(ino, 0, 5) == b"xxxxx"
        again.collect()
        assert_sound(again)
        assert free_blocks(again) == free
        assert again.volume.store.orphans.count == 0


class TestRmdir:
    def test_an_empty_directory_goes(self, driver: Driver) -> None:
        before = record(driver, ROOT)
        ino = look_up(driver, b"empty").ino
        rmdir(driver, b"empty")
        after = record(driver, ROOT)
        assert (after.nlink, after.size) == (before.nlink - 1, before.size - 1)
        assert record(driver, ino).nlink == 0
        driver.collect()
        with fails_with(errno.ESTALE):
            record(driver, ino)
        assert_sound(driver)

    def test_errors(self, driver: Driver) -> None:
        for name, code in ((b"full", errno.ENOTEMPTY), (b"file", errno.ENOTDIR), (b"link", errno.ENOTDIR),
                           (b"missing", errno.ENOENT)):  # fmt: skip
            with fails_with(code):
                rmdir(driver, name)

    def test_a_directory_that_was_large_can_go(self, driver: Driver) -> None:
        ino = make(driver, b"large", DIRECTORY)
        for number in range(300):
            make(driver, b"f%d" % number, parent=ino)
        with fails_with(errno.ENOTEMPTY):
            rmdir(driver, b"large")
        for number in range(300):
            unlink(driver, b"f%d" % number, ino)
        assert record(driver, ino).blocks == 0
        rmdir(driver, b"large")
        driver.collect()
        assert_sound(driver)


def test_a_deleted_directory_lists_dots_and_takes_nothing(driver: Driver) -> None:
    gone = deleted_directory(driver)
    assert names(driver, gone) == []
    assert look_up(driver, b"..", gone).ino == ROOT
    with fails_with(errno.ENOENT):
        look_up(driver, b"x", gone)


def test_everything_created_and_removed_leaves_a_fresh_image() -> None:
    driver = fresh_driver()
    fresh = (free_blocks(driver), driver.volume.store.inodes.used, record(driver, ROOT).nlink)
    parents = [ROOT]
    for depth in range(12):
        parents.append(make(driver, b"dir", DIRECTORY, parents[-1]))
        for number in range(40):
            make_file(driver, b"f%d" % number, b"x" * (depth * 200), parents[-1])
    assert_sound(driver)
    for parent in reversed(parents[1:]):
        for name in names(driver, parent):
            driver.run(ns.unlink if name != b"dir" else ns.rmdir, driver.volume, parent, name)
    rmdir(driver, b"dir")
    driver.collect()
    assert_sound(driver)
    assert (free_blocks(driver), driver.volume.store.inodes.used, record(driver, ROOT).nlink) == fresh


Operation = Callable[[Driver], object]


@pytest.mark.parametrize(
    "operation",
    [
        lambda d: make(d, b"new"),
        lambda d: make(d, b"new", DIRECTORY),
        lambda d: unlink(d, b"file"),
        lambda d: rmdir(d, b"empty"),
        lambda d: link(d, look_up(d, b"file").ino, b"new"),
        lambda d: d.run(ns.rename, d.volume, ROOT, b"file", look_up(d, b"full").ino, b"inside"),
    ],
)
def test_an_operation_is_one_transaction(driver: Driver, operation: Operation) -> None:
    driver.commit()
    commits = driver.volume.store.journal.commits_total
    operation(driver)
    driver.commit()
    assert driver.volume.store.journal.commits_total == commits + 1
    assert sorted(names(reopened(driver))) == sorted(names(driver))
    assert_sound(driver)


def test_names_with_one_hash_in_a_directory(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "name_key", lambda fmt, name, flags: name[0] << 8)
    parent = look_up(driver, b"empty").ino
    for number in range(200):
        make_file(driver, b"a%d" % number, b"%d" % number, parent)
    for number in range(0, 200, 2):
        unlink(driver, b"a%d" % number, parent)
    for number in range(1, 200, 2):
        found = look_up(driver, b"a%d" % number, parent)
        assert driver.read(found.ino, 0, 99) == b"%d" % number
    for number in range(0, 200, 2):
        with fails_with(errno.ENOENT):
            look_up(driver, b"a%d" % number, parent)
    for number in range(156):
        make(driver, b"again%d" % number, parent=parent)
    with fails_with(errno.ENOSPC):
        make(driver, b"a-last-one", parent=parent)
    make(driver, b"b", parent=parent)
