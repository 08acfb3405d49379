"""POSIX access control lists: their encoding in extended attributes, and how mode and ACL are kept consistent.

The format is that of `system.posix_acl_access` and `system.posix_acl_default` (a version, then tag u16, permissions
u16, id u32 for each entry, little-endian). The rules are those of POSIX 1003.1e draft 17 and acl(5). The kernel
enforces ACLs; deferfs stores and inherits them, and changes them with the mode.

**Invariant:** an access ACL that the nine permission bits express completely is not stored; in any other, the owner,
mask and other entries equal the permission bits of the mode.
"""

from __future__ import annotations

import errno
import struct
from typing import Final, NamedTuple

from deferfs.errors import FsError

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"

_VERSION: Final = 2
_HEAD: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_USER_OBJ: Final = 0x01
_USER: Final = 0x02
_GROUP_OBJ: Final = 0x04
_GROUP: Final = 0x08
_MASK: Final = 0x10
_OTHER: Final = 0x20
_ONCE: Final = (_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER)
_NAMED: Final = (_USER, _GROUP)
_TAGS: Final = frozenset(_ONCE) | frozenset(_NAMED)


class Entry(NamedTuple):
    """One entry. `permissions`: rwx bits; `who`: the uid or gid of a named entry."""

    tag: int
    permissions: int
    who: int


def decode(value: bytes) -> list[Entry]:
    """Decode an xattr value. FsError(EINVAL) unless the kernel's `posix_acl_valid` would accept it."""
    if len(value) < _HEAD.size or (len(value) - _HEAD.size) % _ENTRY.size or _HEAD.unpack_from(value)[0] != _VERSION:
        raise FsError(errno.EINVAL)
    entries = [Entry(*fields) for fields in _ENTRY.iter_unpack(value[_HEAD.size :])]
    tags = [entry.tag for entry in entries]
    keys = [(entry.tag, entry.who if entry.tag in _NAMED else 0) for entry in entries]
    named = any(tag in _NAMED for tag in tags)
    if (
        any(entry.permissions & ~7 or entry.tag not in _TAGS for entry in entries)
        or keys != sorted(set(keys))
        or not {_USER_OBJ, _GROUP_OBJ, _OTHER}.issubset(tags)
        or (named and _MASK not in tags)
    ):
        raise FsError(errno.EINVAL)
    return entries


def encode(entries: list[Entry]) -> bytes:
    """Encode entries as the xattr value; inverse of `decode`."""
    return _HEAD.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def is_minimal(entries: list[Entry]) -> bool:
    """Whether the permission bits express the whole list."""
    return all(entry.tag in (_USER_OBJ, _GROUP_OBJ, _OTHER) for entry in entries)


def permission_bits(entries: list[Entry]) -> int:
    """The nine permission bits of the mode that correspond to an access ACL."""
    bits = {entry.tag: entry.permissions for entry in entries}
    return bits[_USER_OBJ] << 6 | bits.get(_MASK, bits[_GROUP_OBJ]) << 3 | bits[_OTHER]


def with_mode(entries: list[Entry], mode: int) -> list[Entry]:
    """An access ACL after chmod(2): the group bits go to the mask entry if there is one."""
    group = _MASK if any(entry.tag == _MASK for entry in entries) else _GROUP_OBJ
    bits = {_USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    return [entry._replace(permissions=bits.get(entry.tag, entry.permissions)) for entry in entries]


def inherited(entries: list[Entry], mode: int) -> tuple[int, list[Entry]]:
    """Mode and access ACL of a new inode: the intersection of `mode` and the directory's default ACL."""
    group = _MASK if any(entry.tag == _MASK for entry in entries) else _GROUP_OBJ
    bits = {_USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    allowed = [entry._replace(permissions=entry.permissions & bits.get(entry.tag, 7)) for entry in entries]
    return mode & ~0o777 | permission_bits(allowed), allowed
