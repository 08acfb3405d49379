"""Directory entries and their keys.

A key is found from the name, and serves as the readdir offset of its entry, beside 1 for `.` and 2 for `..`. A name has
a window of 256 keys, which begins at a keyed hash of it; its entry has the first key of them that was free when it was
made, and keeps that for life. There are two kinds of directories:

- with FLAG_KEYS31, hashes are numbers of 31 bits and windows overlap. Keys lie between 256 and 2^31 - 258, so that
  programs whose offsets have 32 bits can hold them: FUSE does not tell which caller is one;
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
COOKIE_DOT: Final = 1
COOKIE_DOTDOT: Final = 2
_FIRST_KEY: Final = 256
_HASHES31: Final = (1 << 31) - 3 * 256
_HASHES55: Final = (1 << 55) - 2
_KEYS31_END: Final = 1 << 31
_KEYS_END: Final = 1 << 63


@lru_cache(maxsize=1024)
def name_key(fmt: Format, name: bytes, flags: int) -> int:
    """The lowest key that `name` may have in a directory with `flags`; its entry lies in [key, key + DIRECTORY_WINDOW).

    Remembered for a while: a name is looked up before it is made or removed, and then looked for again.
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
    """Keys of a directory with `flags` lie below: what is not, which only damage makes, cannot be told to a reader."""
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
