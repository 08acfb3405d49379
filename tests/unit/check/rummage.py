"""Everything a user may do to a filesystem that is not to be trusted; whatever it answers, it has to answer."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable
from typing import Any

from deferfs.device import MemoryDevice
from deferfs.errors import DeferfsError, DeviceError, FsError
from deferfs.ondisk.inode import ROOT_INO
from deferfs.volume import attributes, namespace, xattrs
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode

_INODES_MAX = 300
_ENTRIES_MAX = 2000
_BYTES_MAX = 1 << 20


def rummage(image: bytes) -> None:
    """Mount a copy of `image`, without a kernel, read everything, change everything, unmount."""
    clock = itertools.count(1 << 60).__next__
    try:
        driver = Driver.open(MemoryDevice.from_bytes(image), clock=clock, entropy=lambda: 7)
    except (FsError, DeferfsError, DeviceError):
        return
    seen: set[int] = set()
    waiting = [ROOT_INO, 21, 22, 23, 64, 65, 66]
    while waiting and len(seen) < _INODES_MAX:
        ino = waiting.pop()
        if ino not in seen:
            seen.add(ino)
            waiting += _look_at(driver, ino, len(seen))
    for last in (driver.collect, driver.commit, driver.checkpoint, driver.close):
        _try(last)


def _try(operation: Callable[..., Any], *arguments: Any) -> Any:
    """The result; None when there was a proper error."""
    try:
        return operation(*arguments)
    except (FsError, DeferfsError, DeviceError):
        return None


def _look_at(driver: Driver, ino: int, number: int) -> list[int]:
    volume = driver.volume
    record = _try(driver.run, attributes.getattr, volume, ino)
    if record is None:
        return []
    for name in _try(driver.run, xattrs.listxattr, volume, ino) or []:
        _try(driver.run, xattrs.getxattr, volume, ino, name)
    if stat.S_ISDIR(record.mode):
        return _directory(driver, ino, number)
    if stat.S_ISLNK(record.mode):
        _try(driver.readlink, ino)
    elif stat.S_ISREG(record.mode):
        _file(driver, ino, record.size)
    return []


def _directory(driver: Driver, ino: int, number: int) -> list[int]:
    volume = driver.volume

    def listed() -> list[tuple[int, bytes]]:
        return driver.run(
            lambda plan: [
                (entry.ino, entry.name)
                for entry in itertools.islice(namespace.readdir(plan, volume, ino, 2), _ENTRIES_MAX)
            ]
        )

    entries: list[tuple[int, bytes]] = _try(listed) or []
    _try(driver.run, namespace.create, volume, ino, b"new %d" % number, NewInode(stat.S_IFREG | 0o644))
    for index, (_, name) in enumerate(entries):
        _try(driver.run, namespace.lookup, volume, ino, name)
        if index % 3 == 0:
            _try(driver.run, namespace.rename, volume, ino, name, ROOT_INO, b"moved %d %d" % (number, index), 0)
        elif index % 3 == 1:
            _try(driver.run, namespace.unlink, volume, ino, name)
            _try(driver.run, namespace.rmdir, volume, ino, name)
    return [target for target, _ in entries]


def _file(driver: Driver, ino: int, size: int) -> None:
    volume = driver.volume
    _try(driver.read, ino, 0, min(size, _BYTES_MAX))
    for offset in (0, size):
        _try(driver.write, ino, offset, b"z" * 3000)
    _try(driver.run, xattrs.setxattr, volume, ino, b"user.z", b"1" * 500)
    _try(driver.truncate, ino, 100)
