"""Extended attributes by name, including access control lists."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

from deferfs.errors import FsError
from deferfs.limits import XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from deferfs.ondisk.inode import Inode
from deferfs.store import xattrs
from deferfs.store.plan import Plan
from deferfs.volume import acl
from deferfs.volume.volume import Volume, inode_of

XATTR_CREATE = 1
XATTR_REPLACE = 2
"""Flags of setxattr(2)."""
_NAMESPACES = (b"user.", b"trusted.", b"security.")
_LISTS = (acl.ACCESS, acl.DEFAULT)


def _check(name: bytes) -> None:
    if not name.startswith(_NAMESPACES) and name not in _LISTS:
        raise FsError(errno.EOPNOTSUPP)
    if name in _NAMESPACES:
        raise FsError(errno.EINVAL)
    if len(name) > XATTR_NAME_BYTES_MAX:
        raise FsError(errno.ERANGE)


def getxattr(plan: Plan, volume: Volume, ino: int, name: bytes) -> bytes:
    """The value of an attribute. ENODATA when there is none, EOPNOTSUPP for an unknown namespace."""
    record = inode_of(plan, ino)
    found = value_of(plan, record, name)
    if found is None:
        _check(name)
        raise FsError(errno.ENODATA)
    return found


def value_of(plan: Plan, record: Inode, name: bytes) -> bytes | None:
    """The value of an attribute, or None."""
    if record.xattrs or record.xattr_block:
        return xattrs.read(plan, record).get(name)
    return None


def listxattr(plan: Plan, volume: Volume, ino: int) -> list[bytes]:
    """The names, sorted, without any that contains a zero byte, which only damage creates: the kernel takes it for the
    end of a name, and refuses a list with an empty one.
    """
    record = inode_of(plan, ino)
    return sorted(name for name in xattrs.read(plan, record) if b"\0" not in name)


def setxattr(
    plan: Plan,
    volume: Volume,
    ino: int,
    name: bytes,
    value: bytes,
    flags: int = 0,
    vouched: Callable[[int], bool] | None = None,
) -> None:
    """Replace the value as a whole: after a crash it is the old or the new one. EEXIST, ENODATA, E2BIG, ENOSPC.

    `vouched` tells whether the caller may keep the set-group-id bit on files of a group (None: of any), which setting
    an access ACL must clear otherwise.
    """
    _check(name)
    if len(value) > XATTR_VALUE_BYTES_MAX:
        raise FsError(errno.E2BIG)
    if name in _LISTS:
        _set_list(plan, ino, name, value, vouched)
        return
    found = xattrs.read(plan, inode_of(plan, ino))
    if flags & XATTR_CREATE and name in found:
        raise FsError(errno.EEXIST)
    if flags & XATTR_REPLACE and name not in found:
        raise FsError(errno.ENODATA)
    found[name] = value
    _write(plan, ino, found)


def removexattr(plan: Plan, volume: Volume, ino: int, name: bytes) -> None:
    """ENODATA when there is none; removing an absent ACL succeeds, as on other filesystems."""
    _check(name)
    found = xattrs.read(plan, inode_of(plan, ino))
    if found.pop(name, None) is None:
        if name in _LISTS:
            return
        raise FsError(errno.ENODATA)
    plan.reserve = True  # the remaining attributes are written to new blocks before the old ones are free
    _write(plan, ino, found)


def _set_list(plan: Plan, ino: int, name: bytes, value: bytes, vouched: Callable[[int], bool] | None) -> None:
    """Set an ACL. An access ACL sets the permission bits, and is not stored when these express it completely."""
    entries = acl.decode(value)
    record = plan.store.inodes.get(plan, ino)
    if stat.S_ISLNK(record.mode):
        raise FsError(errno.EOPNOTSUPP)
    if name == acl.DEFAULT and not stat.S_ISDIR(record.mode):
        raise FsError(errno.EACCES)
    found = xattrs.read(plan, record)
    if name == acl.ACCESS and acl.is_minimal(entries):
        found.pop(name, None)
    else:
        found[name] = value
    _write(plan, ino, found)
    if name == acl.ACCESS:
        record = plan.store.inodes.modify(plan, ino)
        record.mode = record.mode & ~0o777 | acl.permission_bits(entries)
        if record.mode & stat.S_ISGID and vouched is not None and not vouched(record.gid):
            record.mode &= ~stat.S_ISGID


def inherit(plan: Plan, directory: Inode, record: Inode, umask: int) -> None:
    """Apply the directory's default ACL to a new inode: mode, access ACL and (for a directory) default ACL; without
    one, apply `umask` to the mode. `record` is the plan's own copy and has no attributes yet.
    """
    value = None if stat.S_ISLNK(record.mode) else value_of(plan, directory, acl.DEFAULT)
    if value is None:
        record.mode &= ~umask
        return
    record.mode, entries = acl.inherited(acl.decode(value), record.mode)
    kept = {} if acl.is_minimal(entries) else {acl.ACCESS: acl.encode(entries)}
    if stat.S_ISDIR(record.mode):
        kept[acl.DEFAULT] = value
    if kept:
        xattrs.write(plan, record, kept)


def follow_mode(plan: Plan, record: Inode) -> None:
    """Update the access ACL, if any, after a change of mode. `record` is the plan's own copy."""
    value = value_of(plan, record, acl.ACCESS)
    if value is not None:
        found = xattrs.read(plan, record)
        found[acl.ACCESS] = acl.encode(acl.with_mode(acl.decode(value), record.mode))
        plan.reserve = True  # chmod must work on a full disk
        xattrs.write(plan, record, found)


def _write(plan: Plan, ino: int, attributes: dict[bytes, bytes]) -> None:
    record = plan.store.inodes.modify(plan, ino)
    xattrs.write(plan, record, attributes)
    record.ctime = plan.now()
    plan.data_sync.add(ino)
