"""What is left of a leaf that has more than one wrong bit, and still says whose it is.

Directories: the key of an entry is the keyed hash of its name, 55 bits that no damage gets right by chance. So each
entry proves by itself that its name and key are whole, though not the inode between them.

Files: an extent proves nothing by itself. But where it lies tells: what is marked as used, and nobody holds when all
others are heard, is what the leaf has mapped.
"""

from __future__ import annotations

from typing import TypeVar

from deferfs.check.repair.bench import Bench
from deferfs.errors import CorruptionError
from deferfs.limits import DIRECTORY_COLLISIONS_MAX
from deferfs.ondisk.directory import name_key, unpack_entry
from deferfs.ondisk.format import HEADER, Format
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


def salvage_leaf(bench: Bench, ino: int, address: int, data: bytes) -> DirectoryNode | None:
    """The leaf of directory `ino` in the block with a wrong checksum, with the entries that are whole; it is written
    back so. None when the block does not say that it is one, or no entry is left.
    """
    leaf = torn_leaf(bench.fmt, DirectoryNode, ino, address, data)
    if leaf is None:
        return None
    found = len(leaf.keys)
    for index in reversed(range(found)):
        if not _whole(bench, leaf.keys[index], leaf.values[index]):
            leaf.delete(index)
    if not leaf.keys:
        return None
    bench.note(f"directory {ino}: block {address} is damaged; {len(leaf.keys)} of its {found} entries kept")
    bench.write(address, leaf.encode(bench.fmt, address))
    return leaf


def _whole(bench: Bench, key: int, value: bytes) -> bool:
    try:
        _, _, name = unpack_entry(value)
    except CorruptionError:
        return False
    base = name_key(bench.fmt, name)
    return base <= key < base + DIRECTORY_COLLISIONS_MAX
