"""What is left of a directory's leaf that has more than one wrong bit.

The key of an entry is the keyed hash of its name: 55 bits that no damage gets right by chance. So each entry proves by
itself that its name and key are whole, though not the inode between them; the leaf's header proves whose it is.
"""

from __future__ import annotations

from deferfs.check.repair.bench import Bench
from deferfs.errors import CorruptionError
from deferfs.limits import DIRECTORY_COLLISIONS_MAX
from deferfs.ondisk.directory import name_key, unpack_entry
from deferfs.ondisk.format import HEADER
from deferfs.ondisk.node import DirectoryNode


def salvage_leaf(bench: Bench, ino: int, address: int, data: bytes) -> DirectoryNode | None:
    """The leaf of directory `ino` in the block with a wrong checksum, with the entries that are whole; it is written
    back so. None when the block does not say that it is one, or no entry is left.
    """
    _, magic, own, owner, _, level, _ = HEADER.unpack_from(data)
    if (magic, own, owner, level) != (DirectoryNode.MAGIC, address, ino, 0):
        return None
    try:
        leaf = DirectoryNode.decode(bench.fmt, address, bench.fmt.seal(address, bytearray(data)))
    except CorruptionError:
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
