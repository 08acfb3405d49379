"""How often operations read the clock that files are stamped with: once each, and never for what is only read."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable

import pytest

from deferfs.errors import FsError
from deferfs.volume import acl, attributes, files, namespace, xattrs
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from deferfs.volume.volume import Volume
from tests.unit.volumes import DIRECTORY, FILE, ROOT, fresh_device, make, make_file, record, settle

FIRST_STAMP = 1 << 50
NO_ID = 0xFFFFFFFF


class Stamps:
    """A clock for stamps that counts how often it is read, and never repeats itself."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return FIRST_STAMP + self.count


@pytest.fixture
def stamps() -> Stamps:
    return Stamps()


@pytest.fixture
def driver(stamps: Stamps) -> Driver:
    driver = Driver.open(
        fresh_device(), clock=itertools.count(1000).__next__, entropy=itertools.count(7).__next__, stamp=stamps
    )
    for name in (b"a", b"b", b"c"):
        make_file(driver, name, b"x" * 3000)
    make(driver, b"dir", DIRECTORY)
    make(driver, b"empty", DIRECTORY)
    return driver


def ino_of(driver: Driver, name: bytes) -> int:
    return driver.run(namespace.lookup, driver.volume, ROOT, name).ino


LIST = acl.encode(
    [acl.Entry(*entry) for entry in ((1, 6, NO_ID), (2, 6, 1000), (4, 4, NO_ID), (16, 6, NO_ID), (32, 4, NO_ID))]
)
"""u::rw-, u:1000:rw-, g::r--, m::rw-, o::r--"""

Op = Callable[[Driver, Volume, int], object]
"""Gets the driver, its volume, and the number of file `a`."""

CHANGES: dict[str, Op] = {
    "create": lambda d, v, a: d.run(namespace.create, v, ROOT, b"new", NewInode(FILE)),
    "mkdir": lambda d, v, a: d.run(namespace.create, v, ROOT, b"new", NewInode(DIRECTORY)),
    "symlink": lambda d, v, a: d.run(namespace.symlink, v, ROOT, b"new", b"t" * 600),
    "link": lambda d, v, a: d.run(namespace.link, v, a, ROOT, b"new"),
    "unlink": lambda d, v, a: d.run(namespace.unlink, v, ROOT, b"a"),
    "rmdir": lambda d, v, a: d.run(namespace.rmdir, v, ROOT, b"empty"),
    "rename": lambda d, v, a: d.run(namespace.rename, v, ROOT, b"a", ino_of(d, b"dir"), b"new"),
    "rename over": lambda d, v, a: d.run(namespace.rename, v, ROOT, b"a", ROOT, b"b"),
    "exchange": lambda d, v, a: d.run(namespace.rename, v, ROOT, b"a", ROOT, b"dir", namespace.RENAME_EXCHANGE),
    "whiteout": lambda d, v, a: d.run(namespace.rename, v, ROOT, b"a", ROOT, b"n", namespace.RENAME_WHITEOUT),
    "write": lambda d, v, a: d.run(files.write, v, a, 100, b"y"),
    "truncate": lambda d, v, a: d.run(files.truncate, v, a, 10),
    "chmod": lambda d, v, a: d.run(attributes.setattr, v, a, mode=0o600),
    "utimes": lambda d, v, a: d.run(attributes.setattr, v, a, atime_ns=1, mtime_ns=2),
    "setxattr": lambda d, v, a: d.run(xattrs.setxattr, v, a, b"user.x", b"1"),
    "access list": lambda d, v, a: d.run(xattrs.setxattr, v, a, acl.ACCESS, LIST),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_reads_it_once(name: str, driver: Driver, stamps: Stamps) -> None:
    a = ino_of(driver, b"a")
    before = stamps.count
    CHANGES[name](driver, driver.volume, a)
    assert stamps.count == before + 1


READS: dict[str, Op] = {
    "lookup": lambda d, v, a: d.run(namespace.lookup, v, ROOT, b"a"),
    "getattr": lambda d, v, a: d.run(attributes.getattr, v, a),
    "read": lambda d, v, a: d.read(a, 0, 10),
    "readdir": lambda d, v, a: d.run(lambda plan: list(namespace.readdir(plan, v, ROOT, 0))),
    "getxattr": lambda d, v, a: d.run(xattrs.listxattr, v, a),
    "statfs": lambda d, v, a: attributes.statfs(v),
    "access time": lambda d, v, a: attributes.accessed(v, record(d, a)),
    "commit": lambda d, v, a: settle(d),
}


@pytest.mark.parametrize("atime", ["relative", "strict"])
@pytest.mark.parametrize("name", READS)
def test_reading_never_does(name: str, atime: str, driver: Driver, stamps: Stamps) -> None:
    driver.volume.atime = atime
    a = ino_of(driver, b"a")
    driver.volume.lookup_count(record(driver, a))
    before = stamps.count
    READS[name](driver, driver.volume, a)
    assert stamps.count == before


def test_an_access_time_is_written_back_without(driver: Driver, stamps: Stamps) -> None:
    driver.volume.atime = "strict"
    a = ino_of(driver, b"a")
    driver.volume.lookup_count(record(driver, a))
    before = stamps.count
    later = record(driver, a).atime + 1
    driver.volume.store.clock = lambda: later
    assert attributes.accessed(driver.volume, record(driver, a))
    driver.forget(a, 1)
    driver.close()
    assert stamps.count == before


def test_a_time_kept_by_the_kernel_does_not(driver: Driver, stamps: Stamps) -> None:
    """With a writeback cache, which keeps mtime and ctime of regular files and tells them."""
    driver.volume.content_times = False
    a = ino_of(driver, b"a")
    before = stamps.count
    driver.write(a, 0, b"z" * 10_000)
    driver.truncate(a, 5)
    driver.run(attributes.setattr, driver.volume, a, mtime_ns=5, ctime_ns=record(driver, a).ctime + 1)
    assert stamps.count == before


def test_a_refused_change_does_not(driver: Driver, stamps: Stamps) -> None:
    before = stamps.count
    for op in (
        lambda: driver.run(namespace.create, driver.volume, ROOT, b"a", NewInode(FILE)),
        lambda: driver.run(namespace.unlink, driver.volume, ROOT, b"nothing"),
        lambda: driver.run(namespace.rmdir, driver.volume, ROOT, b"a"),
        lambda: driver.run(namespace.rename, driver.volume, ROOT, b"nothing", ROOT, b"n"),
    ):
        with pytest.raises(FsError):
            op()
    assert stamps.count == before


def test_all_times_of_one_change_are_the_same(driver: Driver, stamps: Stamps) -> None:
    driver.run(namespace.create, driver.volume, ROOT, b"new", NewInode(stat.S_IFREG | 0o644))
    now = FIRST_STAMP + stamps.count
    made = record(driver, ino_of(driver, b"new"))
    assert (made.atime, made.mtime, made.ctime, made.crtime) == (now, now, now, now)
    assert (record(driver, ROOT).mtime, record(driver, ROOT).ctime) == (now, now)
