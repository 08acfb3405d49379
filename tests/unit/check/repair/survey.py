"""What an image holds, path by path, and which blocks each path rests on: to tell what damage must not have touched."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from deferfs.check.claims import Claims
from deferfs.check.context import Context
from deferfs.check.directories import check_directories
from deferfs.check.inodefile import read_inode_file
from deferfs.check.inodes import check_table
from deferfs.check.report import Findings
from deferfs.check.superblocks import read_superblock
from deferfs.device import MemoryDevice
from deferfs.ondisk.inode import ROOT_INO, Inode
from deferfs.volume import attributes, files, namespace, xattrs
from deferfs.volume.driver import Driver


@dataclass(frozen=True)
class Facts:
    """What a user sees of one path. Directories are judged by the paths below them."""

    ino: int
    mode: int
    uid: int
    gid: int
    size: int
    rdev: int
    times: tuple[int, int, int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    content: bytes | None


class _Owners(Claims):
    """Records the owners of blocks."""

    def __init__(self, blocks: int) -> None:
        super().__init__(blocks)
        self.of: dict[int, set[int]] = {}

    def claim(self, first: int, length: int, owner: str) -> bool:
        ino = int(owner.partition(":")[0].removeprefix("inode "))
        self.of.setdefault(ino, set()).update(range(first, first + length))
        return super().claim(first, length, owner)


def open_copy(image: bytes) -> Driver:
    """A volume on a copy of an image."""
    clock = itertools.count(1 << 60).__next__
    return Driver.open(MemoryDevice.from_bytes(image), clock=clock, entropy=lambda: 7)


def survey(driver: Driver) -> dict[bytes, Facts]:
    """Path -> what is there."""
    return dict(_below(driver, b"", ROOT_INO))


def _below(driver: Driver, path: bytes, ino: int) -> Iterator[tuple[bytes, Facts]]:
    volume = driver.volume
    entries = driver.run(lambda plan: list(namespace.readdir(plan, volume, ino, 2)))
    for entry in entries:
        below = path + b"/" + entry.name
        record = driver.run(attributes.getattr, volume, entry.ino)
        assert driver.run(namespace.lookup, volume, ino, entry.name).ino == entry.ino
        yield below, _facts(driver, record)
        if stat.S_ISDIR(record.mode):
            yield from _below(driver, below, entry.ino)


def _facts(driver: Driver, record: Inode) -> Facts:
    volume, ino = driver.volume, record.ino
    content: bytes | None = None
    if stat.S_ISLNK(record.mode):
        content = driver.readlink(ino)
    elif stat.S_ISREG(record.mode):
        content = content_of(driver, ino, min(record.size, 1 << 22))
    names = driver.run(xattrs.listxattr, volume, ino)
    return Facts(
        ino,
        record.mode,
        record.uid,
        record.gid,
        0 if stat.S_ISDIR(record.mode) else record.size,
        record.rdev,
        (record.atime, record.mtime, record.ctime, record.crtime),
        tuple((name, driver.run(xattrs.getxattr, volume, ino, name)) for name in sorted(names)),
        content,
    )


def content_of(driver: Driver, ino: int, size: int) -> bytes:
    """The first `size` bytes of a file."""
    found = driver.run(files.read, driver.volume, ino, 0, size)
    if found.inline is not None:
        return found.inline
    parts = [
        bytes(piece.length) if piece.offset is None else driver.device.read(piece.offset, piece.length)
        for piece in found.pieces
    ]
    return b"".join(parts)


class Footprints(NamedTuple):
    """Path -> blocks without which it cannot be: records, nodes, data and attributes; `own` of it alone, `all` also of
    its directories.
    """

    own: dict[bytes, set[int]]
    all: dict[bytes, set[int]]


def footprints(image: bytes) -> Footprints:
    """Of each path of a sound image."""
    device = MemoryDevice.from_bytes(image)
    findings = Findings()
    superblock = read_superblock(device, findings)
    owners = _Owners(superblock.blocks)
    context = Context(device, superblock, findings, owners)
    file = read_inode_file(context)
    assert file is not None
    table = check_table(context, file)
    check_directories(context, table)
    assert not findings.problems
    driver = open_copy(image)
    own: dict[bytes, set[int]] = {}
    found: dict[bytes, set[int]] = {}
    for path, facts in survey(driver).items():
        above = found.get(path.rpartition(b"/")[0]) or _own(owners, table.locate(ROOT_INO)[0], ROOT_INO)
        own[path] = _own(owners, table.locate(facts.ino)[0], facts.ino)
        found[path] = above | own[path]
    return Footprints(own, found)


def _own(owners: _Owners, record: int, ino: int) -> set[int]:
    return owners.of.get(ino, set()) | {record}
