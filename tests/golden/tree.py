"""What is on a golden image: every structure of the on-disk format, a few files for each."""

from __future__ import annotations

import stat
import struct
from typing import Final

from deferfs.ondisk.inode import ROOT_INO
from deferfs.store import Plan
from deferfs.volume import Credentials, Driver, NewInode, attributes, files, namespace, xattrs
from deferfs.volume.inactivation import Inactivation

FILE: Final = stat.S_IFREG | 0o644
DIRECTORY: Final = stat.S_IFDIR | 0o755
USER: Final = 1000
MAKER: Final = Credentials(USER, 1001)
LONG_NAME: Final = 250
"""Bytes of the names that make a directory tree of three levels out of few entries."""
ACCESS_LIST: Final = struct.pack(
    "<I" + 5 * "HHI", 2, 1, 6, 0xFFFFFFFF, 2, 4, USER, 4, 4, 0xFFFFFFFF, 16, 4, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF
)
"""user::rw- user:1000:r-- group::r-- mask::r-- other::---"""


def grow_tree(driver: Driver) -> None:
    """What is at home, each in its block, when the log begins."""
    _grow_files(driver)
    _grow_names(driver)
    _grow_attributes(driver)


def leave_work(driver: Driver) -> None:
    """What only the log holds, and what has been begun and not ended: orphans, a truncation, revoked blocks."""
    _leave_orphans(driver)
    _make_file(driver, b"logged", b"only the log knows the way to this\n")
    driver.commit()
    shrunk = _scattered(driver, b"truncating", 100)
    driver.commit()
    assert not driver.run(files.truncate, driver.volume, shrunk, 5000)
    # blocks of a tree that are logged, freed, and file data of the next transaction: replay has to skip their images
    revoked = _make(driver, b"revoked", DIRECTORY)
    kept = _make_file(driver, b"linked-often", b"many names")
    names = [b"%03d-" % number + b"r" * LONG_NAME for number in range(30)]
    for name in names:
        driver.run(namespace.link, driver.volume, kept, revoked, name)
    driver.commit()
    for name in names[2:]:
        driver.run(namespace.unlink, driver.volume, revoked, name)
    driver.commit()
    _make_file(driver, b"over-freed-blocks", b"file data\n" * 6000)


def _make(driver: Driver, name: bytes, mode: int = FILE, parent: int = ROOT_INO, rdev: int = 0) -> int:
    return driver.run(namespace.create, driver.volume, parent, name, NewInode(mode, MAKER, rdev)).ino


def _make_file(driver: Driver, name: bytes, content: bytes, parent: int = ROOT_INO) -> int:
    ino = _make(driver, name, parent=parent)
    driver.write(ino, 0, content)
    return ino


def _scattered(driver: Driver, name: bytes, pieces: int) -> int:
    """A file of many extents: every other block is a hole."""
    size = driver.volume.store.fmt.block_size
    ino = _make(driver, name)
    for number in range(pieces):
        driver.write(ino, 2 * number * size, b"piece %06d" % number)
    return ino


def _grow_files(driver: Driver) -> None:
    size = driver.volume.store.fmt.block_size
    _make(driver, b"empty")
    _make_file(driver, b"inline", b"so small that the inode record holds it\n")
    sparse_inline = _make_file(driver, b"inline-longer-than-its-bytes", b"head")
    driver.truncate(sparse_inline, 1 << 20)
    _make_file(driver, b"one-extent", b"0123456789abcdef" * (size // 8))
    _scattered(driver, b"few-extents", 9)
    _scattered(driver, b"tree-of-extents", 60)
    only_end = _make(driver, b"last-byte-of-a-terabyte")
    driver.write(only_end, (1 << 40) - 1, b"!")
    grown = _make(driver, b"unwritten-past-and-before-eof")
    for number in range(6):
        driver.write(grown, number * 64 * 1024, b"preallocate" * (64 * 1024 // 11 + 1))
    ahead = _make(driver, b"unwritten-inside")
    for number in range(4):
        driver.write(ahead, number * 64 * 1024, bytes([65 + number]) * (64 * 1024))
    driver.truncate(ahead, (4 * 64 + 48) * 1024)
    aged = _make_file(driver, b"before-1970", b"")
    driver.run(attributes.setattr, driver.volume, aged, atime_ns=-1, mtime_ns=-(10**18) - 1, ctime_ns=-5)
    driver.run(namespace.symlink, driver.volume, ROOT_INO, b"symlink", b"inline", MAKER)
    driver.run(namespace.symlink, driver.volume, ROOT_INO, b"long-symlink", b"dir/" * 1000, MAKER)
    _make(driver, b"fifo", stat.S_IFIFO | 0o600)
    _make(driver, b"socket", stat.S_IFSOCK | 0o600)
    _make(driver, b"null", stat.S_IFCHR | 0o666, rdev=0x103)
    _make(driver, b"disk", stat.S_IFBLK | 0o660, rdev=0x800)


def _grow_names(driver: Driver) -> None:
    many = _make_file(driver, b"many-names", b"one inode, hundreds of names\n")
    _make(driver, b"empty-directory", DIRECTORY)
    strange = _make(driver, b"strange-names", DIRECTORY)
    for name, flags in ((b"offsets-of-31-bits", None), (b"offsets-of-63-bits", 0)):
        directory = _make(driver, name, DIRECTORY)
        small = _make(driver, name + b"-inline", DIRECTORY)
        if flags is not None:
            for made in (directory, small):
                driver.run(_set_flags, made, flags)
        _make_file(driver, b"a", b"in a small directory", small)
        _make(driver, b"sub", DIRECTORY, small)
        for number in range(260):
            long_name = b"%03d-" % number + b"n" * (LONG_NAME - 4)
            driver.run(namespace.link, driver.volume, many, directory, long_name)
        for number in range(0, 260, 13):  # keys stay where they are when others go
            driver.run(namespace.unlink, driver.volume, directory, b"%03d-" % number + b"n" * (LONG_NAME - 4))
    _make(driver, b"\xff not utf-8 \xc3\x28\n", parent=strange)
    _make(driver, "Übergröße-名前".encode(), parent=strange)
    driver.run(namespace.link, driver.volume, many, ROOT_INO, b"hard-link")


def _set_flags(plan: Plan, ino: int, flags: int) -> None:
    """Of a directory that is still empty: without the flag, it gets entries as older programs made them."""
    plan.store.inodes.modify(plan, ino).flags = flags


def _grow_attributes(driver: Driver) -> None:
    def set_one(ino: int, name: bytes, value: bytes) -> None:
        driver.run(xattrs.setxattr, driver.volume, ino, name, value)

    inline = _make_file(driver, b"xattrs-inline", b"beside inline data")
    set_one(inline, b"user.one", b"1")
    set_one(inline, b"user.empty", b"")
    block = _make_file(driver, b"xattrs-in-blocks", b"data")
    for number in range(5):
        set_one(block, b"user.%02d" % number, bytes([number]) * 500)
    set_one(block, b"security.large", b"\x00\x01\x02\x03" * 300)
    set_one(block, b"trusted.overlay.opaque", b"y")
    listed = _make_file(driver, b"acl", b"who may read this is in a list")
    set_one(listed, b"system.posix_acl_access", ACCESS_LIST)
    parent = _make(driver, b"default-acl", DIRECTORY)
    set_one(parent, b"system.posix_acl_default", ACCESS_LIST)
    _make(driver, b"inherits", parent=parent)
    _make(driver, b"inherits-too", DIRECTORY, parent)
    setgid = _make(driver, b"setgid", DIRECTORY | stat.S_ISGID | stat.S_ISVTX)
    _make(driver, b"group-of-its-directory", parent=setgid)


def _leave_orphans(driver: Driver) -> None:
    """Deleted files that wait to be cleaned up: untouched, half cleaned up, and set aside."""
    volume = driver.volume
    for number in range(40):  # more than a block of the orphan table holds, with 1 KiB blocks
        _make_file(driver, b"deleted-%02d" % number, b"no name any more" * 100)
    _scattered(driver, b"half-freed", 100)
    aside = _make_file(driver, b"set-aside", b"its cleanup failed")
    driver.commit()
    half = driver.run(namespace.lookup, volume, ROOT_INO, b"half-freed")
    volume.inodes.lookup(half.ino, half.generation)
    held = volume.inodes.lookup(aside, driver.run(attributes.getattr, volume, aside).generation)
    assert held is not None
    for number in range(40):
        driver.run(namespace.unlink, volume, ROOT_INO, b"deleted-%02d" % number)
    driver.run(namespace.unlink, volume, ROOT_INO, b"half-freed")
    driver.run(namespace.unlink, volume, ROOT_INO, b"set-aside")
    due = volume.inodes.forget(half.ino, 1)
    assert due is not None
    step = Inactivation(volume.inodes, due)
    assert step.begin()
    assert not driver.run(step.step)
    record = driver.run(attributes.getattr, volume, aside)
    quarantine = volume.store.orphans.set_quarantine
    driver.run(quarantine, record.orphan_slot - 1, aside, record.generation, quarantined=True)
