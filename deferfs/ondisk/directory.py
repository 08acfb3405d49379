"""Directory entries and their keys.

The key of a name is a 55-bit keyed hash, shifted left by 8; the low byte tells names with equal hashes apart. Keys
lie between 256 and 2^63 - 257, so that they serve as readdir cookies beside 1 for `.` and 2 for `..`.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import Final

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import Format

ENTRY: Final = struct.Struct("<QB")
COOKIE_DOT: Final = 1
COOKIE_DOTDOT: Final = 2
_HASHES: Final = (1 << 55) - 2
COOKIES_END: Final = 1 << 63
"""Cookies of readdir are signed numbers of 64 bits: a key from here on, which only damage makes, cannot be told."""


@lru_cache(maxsize=1024)
def name_key(fmt: Format, name: bytes) -> int:
    """The lowest key that `name` may have; its entry lies in [key, key + 256).

    Remembered for a while: a name is looked up before it is made or removed, and then looked for again.
    """
    digest = hashlib.blake2b(name, digest_size=8, key=fmt.hash_key).digest()
    return (int.from_bytes(digest, "little") % _HASHES + 1) << 8


def pack_entry(ino: int, file_type: int, name: bytes) -> bytes:
    """`file_type` is the `S_IFMT` part of the mode shifted right by 12 (DT_* of readdir)."""
    return ENTRY.pack(ino, file_type) + name


def unpack_entry(value: bytes) -> tuple[int, int, bytes]:
    """(inode, file type, name). CorruptionError when the entry is cut off."""
    if len(value) < ENTRY.size:
        raise CorruptionError(f"a directory entry of {len(value)} bytes")
    ino, file_type = ENTRY.unpack_from(value)
    return ino, file_type, value[ENTRY.size :]
