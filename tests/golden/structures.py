"""Which structures of the on-disk format lie on an image, by looking at every block of it.

Offsets are those of `docs/on-disk-format.md`: nothing of the codecs is used.
"""

from __future__ import annotations

import stat
import struct
from typing import Final

MAGICS: Final = frozenset({b"DBMP", b"DXTN", b"DDIR", b"DXAT", b"DORP", b"DSPR", b"DJDS", b"DJRV", b"DJCM"})
WANTED: Final = frozenset(
    {f"block {magic.decode()}" for magic in MAGICS}
    | {f"file of form {form}" for form in (0, 1, 2, 3)}
    | {f"directory of form {form}, flags {flags}" for form in (4, 5) for flags in (0, 8)}
    | {f"symlink of form {form}" for form in (1, 2)}
    | {f"inode with flag {flag}" for flag in (1, 4, 8)}
    | {f"type {kind << 12:#o}" for kind in (1, 2, 4, 6, 8, 10, 12)}
    | {"inline xattrs", "xattr block", "several links", "device number", "orphan"}
    | {"orphan slot", "orphan slot with a cursor", "orphan slot in quarantine"}
)
"""What every golden image must have, in the words of `structures`. """
CHAINS: Final = frozenset({"chain of xattr blocks", "node above the leaves"})
"""What takes small blocks besides."""
_RECORD_BYTES: Final = 512
_HEADER_BYTES: Final = 32
_KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


def structures(image: bytes, block_size: int) -> set[str]:
    """What lies on the image, in the log and elsewhere, whether or not it is still in use."""
    found: set[str] = set()
    for at in range(0, len(image), block_size):
        block = image[at : at + block_size]
        magic = block[4:8]
        if magic in MAGICS:
            found.add(f"block {magic.decode()}")
        if magic in (b"DXTN", b"DDIR") and any(block[28:30]):
            found.add("node above the leaves")
        if magic == b"DINO":
            for start in range(0, block_size, _RECORD_BYTES):
                _look_at_record(block[start : start + _RECORD_BYTES], found)
        elif magic == b"DXAT" and any(block[_HEADER_BYTES : _HEADER_BYTES + 8]):
            found.add("chain of xattr blocks")
        elif magic == b"DORP":
            for slot in struct.iter_unpack("<QIIQQ", block[_HEADER_BYTES : block_size - block_size % 32]):
                _look_at_slot(slot, found)
    return found


def _look_at_record(record: bytes, found: set[str]) -> None:
    mode, nlink, flags, form = (
        *struct.unpack_from("<I", record, 20),
        *struct.unpack_from("<II", record, 32),
        record[120],
    )
    if not mode:
        return
    kind = _KINDS.get(stat.S_IFMT(mode))
    found.add(f"type {stat.S_IFMT(mode):#o}")
    if kind == "directory":
        found.add(f"directory of form {form}, flags {flags}")
    elif kind:
        found.add(f"{kind} of form {form}")
    found.update(f"inode with flag {flag}" for flag in (1, 2, 4, 8) if flags & flag)
    rdev, xattr_block, (xattr_bytes,) = record[88:96], record[104:112], struct.unpack_from("<H", record, 124)
    found.update(
        word
        for word, is_there in (
            ("inline xattrs", xattr_bytes),
            ("xattr block", any(xattr_block)),
            ("several links", kind == "file" and nlink > 1),
            ("orphan", not nlink),
            ("device number", any(rdev)),
        )
        if is_there
    )


def _look_at_slot(slot: tuple[int, ...], found: set[str]) -> None:
    ino, _, flags, cursor, _ = slot
    if ino:
        found.add("orphan slot")
    if cursor:
        found.add("orphan slot with a cursor")
    if flags & 1:
        found.add("orphan slot in quarantine")
