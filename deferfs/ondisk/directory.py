"""Directory entries and their keys.

A key is computed from the name, and serves as the readdir offset of its entry, beside 1 for `.` and 2 for `..`. A name
has a window of 256 keys, which begins at a keyed hash of it; its entry has the first of these keys that was free when
it was made, and keeps that key for life. There are two kinds of directories:

- with FLAG_KEYS31, hashes are numbers of 31 bits and windows overlap. Keys lie between 256 and 2^31 - 258, so that
  programs whose offsets have 32 bits can hold them: FUSE does not tell which caller is such a program;
- without, hashes have 55 bits and are shifted left by 8. Keys lie between 256 and 2^63 - 257.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import Final

from deferfs.errors import CorruptionError
from deferfs.limits import DIRECTORY_WINDOW
from deferfs.ondisk.format import Format
from deferfs.ondisk.inode import FLAG_KEYS31

ENTRY: Final = struct.Struct("<QB")
"""The head of an entry: inode, file type. The name follows."""
COOKIE_DOT: Final = 1
"""The readdir offset of `.`."""
COOKIE_DOTDOT: Final = 2
"""The readdir offset of `..`."""
_FIRST_KEY: Final = 256
"""The lowest key of an entry."""
_HASHES31: Final = (1 << 31) - 3 * 256
"""Number of hashes with FLAG_KEYS31: the last window ends at key 2^31 - 258."""
_HASHES55: Final = (1 << 55) - 2
"""Number of hashes without it: the last window ends at key 2^63 - 257."""
_KEYS31_END: Final = 1 << 31
"""All keys with FLAG_KEYS31 lie below."""
_KEYS_END: Final = 1 << 63
"""All keys without it lie below: readdir offsets are signed."""


@lru_cache(maxsize=1024)
def name_key(fmt: Format, name: bytes, flags: int) -> int:
    """The lowest key that `name` may have in a directory with `flags`; its entry lies in [key, key + DIRECTORY_WINDOW).

    Cached: a name is looked up before it is made or removed, and the directory is then searched for it again.
    """
    digest = hashlib.blake2b(name, digest_size=8, key=fmt.hash_key).digest()
    found = int.from_bytes(digest, "little")
    if flags & FLAG_KEYS31:
        return found % _HASHES31 + _FIRST_KEY
    return (found % _HASHES55 + 1) << 8


def may_have_key(fmt: Format, name: bytes, flags: int, key: int) -> bool:
    """Whether the entry of `name` may have `key` in a directory with `flags`."""
    low = name_key(fmt, name, flags)
    return low <= key < low + DIRECTORY_WINDOW


def keys_end(flags: int) -> int:
    """All keys of a directory with `flags` lie below. Only damage makes larger ones; readdir cannot return these."""
    return _KEYS31_END if flags & FLAG_KEYS31 else _KEYS_END


def pack_entry(ino: int, file_type: int, name: bytes) -> bytes:
    """`file_type` is the `S_IFMT` part of the mode shifted right by 12 (DT_* of readdir)."""
    return ENTRY.pack(ino, file_type) + name


def unpack_entry(value: bytes) -> tuple[int, int, bytes]:
    """(inode, file type, name). CorruptionError when the entry is cut off."""
    if len(value) < ENTRY.size:
        raise CorruptionError(f"a directory entry of {len(value)} bytes")
    ino, file_type = ENTRY.unpack_from(value)
    return ino, file_type, value[ENTRY.size :]
