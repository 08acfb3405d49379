"""What is left of a leaf that has more than one wrong bit, and still names its owner.

Directories: the key of an entry is computed from its name by a keyed hash, and damage rarely gets it right by chance:
a damaged key in one of 2^55 cases, a damaged name in one of 2^55 or, where hashes have 31 bits, of 2^23. So each entry
proves by itself that its name and key are whole, though not the inode between them.

Files: an extent proves nothing by itself. But its blocks do: a block that is marked as used, and that no other
structure claims, is one that the leaf has mapped.
"""

from __future__ import annotations

from typing import TypeVar

from deferfs.check.repair.context import RepairContext
from deferfs.errors import CorruptionError
from deferfs.ondisk.directory import may_have_key, unpack_entry
from deferfs.ondisk.format import HEADER, Format
from deferfs.ondisk.inode import FLAG_KEYS31
from deferfs.ondisk.node import DirectoryNode, Node

N = TypeVar("N", bound=Node)


def torn_leaf(fmt: Format, kind: type[N], ino: int, address: int, data: bytes) -> N | None:
    """The block with a wrong checksum as a leaf of inode `ino`; None when its header does not say that it is one."""
    _, magic, own, owner, _, level, _ = HEADER.unpack_from(data)
    if (magic, own, owner, level) != (kind.MAGIC, address, ino, 0):
        return None
    try:
        return kind.decode(fmt, address, fmt.seal(address, bytearray(data)))
    except CorruptionError:
        return None


def salvage_leaf(repair: RepairContext, ino: int, address: int, data: bytes) -> DirectoryNode | None:
    """The leaf of directory `ino` in the block with a wrong checksum, with the entries that are whole; it is written
    back with these. None when the header of the block does not say that it is one, or no entry is left.
    """
    leaf = torn_leaf(repair.fmt, DirectoryNode, ino, address, data)
    if leaf is None:
        return None
    found = len(leaf.keys)
    for index in reversed(range(found)):
        if filed_under(repair.fmt, leaf.keys[index], leaf.values[index]) is None:
            leaf.delete(index)
    if not leaf.keys:
        return None
    repair.note(f"directory {ino}: block {address} is damaged; {len(leaf.keys)} of its {found} entries kept")
    repair.write(address, leaf.encode(repair.fmt, address))
    return leaf


def filed_under(fmt: Format, key: int, value: bytes) -> int | None:
    """The flags of a directory in which the entry may have this key: 0 or FLAG_KEYS31; None when name or key is wrong.

    The record of the directory may be lost, or not known yet; the kinds are not mistaken for each other (see above).
    """
    try:
        _, _, name = unpack_entry(value)
    except CorruptionError:
        return None
    return next((flags for flags in (FLAG_KEYS31, 0) if may_have_key(fmt, name, flags, key)), None)
