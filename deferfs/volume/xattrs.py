"""Extended attributes by name."""

from __future__ import annotations

import errno

from deferfs.errors import FsError
from deferfs.limits import XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from deferfs.store import xattrs
from deferfs.store.plan import Plan
from deferfs.volume.volume import Volume, inode_of

XATTR_CREATE = 1
XATTR_REPLACE = 2
_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.posix_acl_access", b"system.posix_acl_default")


def _check(name: bytes) -> None:
    if not name.startswith(_NAMESPACES):
        raise FsError(errno.EOPNOTSUPP)
    if len(name) > XATTR_NAME_BYTES_MAX:
        raise FsError(errno.ERANGE)


def getxattr(plan: Plan, volume: Volume, ino: int, name: bytes) -> bytes:
    """ENODATA when there is none."""
    record = inode_of(plan, ino)
    if record.xattrs or record.xattr_block:
        found = xattrs.read(plan, record).get(name)
        if found is not None:
            return found
    raise FsError(errno.ENODATA)


def listxattr(plan: Plan, volume: Volume, ino: int) -> list[bytes]:
    """The names, sorted."""
    record = inode_of(plan, ino)
    return sorted(xattrs.read(plan, record))


def setxattr(plan: Plan, volume: Volume, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
    """Replaces the value as a whole: after a crash it is the old or the new one. EEXIST, ENODATA, E2BIG, ENOSPC."""
    _check(name)
    if len(value) > XATTR_VALUE_BYTES_MAX:
        raise FsError(errno.E2BIG)
    found = xattrs.read(plan, inode_of(plan, ino))
    if flags & XATTR_CREATE and name in found:
        raise FsError(errno.EEXIST)
    if flags & XATTR_REPLACE and name not in found:
        raise FsError(errno.ENODATA)
    found[name] = value
    _write(plan, ino, found)


def removexattr(plan: Plan, volume: Volume, ino: int, name: bytes) -> None:
    """ENODATA when there is none."""
    _check(name)
    found = xattrs.read(plan, inode_of(plan, ino))
    if found.pop(name, None) is None:
        raise FsError(errno.ENODATA)
    _write(plan, ino, found)


def _write(plan: Plan, ino: int, attributes: dict[bytes, bytes]) -> None:
    record = plan.store.inodes.modify(plan, ino)
    xattrs.write(plan, record, attributes)
    record.ctime = plan.store.clock()
    plan.data_sync.add(ino)
