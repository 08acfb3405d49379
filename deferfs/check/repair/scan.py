"""Reading the image from end to end, for what nothing leads to any more."""

from __future__ import annotations

from collections.abc import Iterator

from deferfs.check.repair.bench import Bench
from deferfs.errors import CorruptionError, DeviceError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.node import DirectoryNode

_SCAN_BYTES = 1 << 20


class Marks:
    """What the free-space bitmaps say: what was freed leaves sound metadata behind, in blocks that are marked free."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.group = -1
        self.bitmap: Bitmap | None = None

    def used(self, address: int) -> bool:
        """Whether the block is marked as used, or its bitmap cannot be read."""
        group, bit = divmod(address, self.bench.fmt.bits_per_bitmap)
        self._load(group)
        return self.bitmap is None or bool(self.bitmap.bits[bit])

    def any_used(self, first: int, end: int) -> bool:
        """The same for any of the blocks [first, end)."""
        size = self.bench.fmt.bits_per_bitmap
        for group in range(first // size, (end - 1) // size + 1):
            self._load(group)
            low, high = max(first, group * size), min(end, (group + 1) * size)
            if self.bitmap is None or self.bitmap.bits.find(1, low - group * size, high - group * size) >= 0:
                return True
        return False

    def _load(self, group: int) -> None:
        bench = self.bench
        if group != self.group:
            self.group, at = group, bench.superblock.bitmap_address(group)
            try:
                self.bitmap = Bitmap.decode(bench.fmt, at, bench.read(at) or bytes(bench.fmt.block_size))
            except CorruptionError:
                self.bitmap = None


def used_blocks(bench: Bench, marks: Marks, magic: bytes, besides: set[int]) -> Iterator[tuple[int, bytes]]:
    """(address, content) of the blocks in which `magic` occurs, where blocks are marked as used or are `besides`."""
    count = max(1, _SCAN_BYTES // bench.fmt.block_size)
    windows = {address // count for address in besides}
    for start in bench.steps("scan", range(0, bench.superblock.blocks, count)):
        end = min(start + count, bench.superblock.blocks)
        if start // count not in windows and not marks.any_used(start, end):
            continue
        for address, data in enumerate(_read(bench, start, end), start):
            if magic in data and address >= bench.fmt.reserved_blocks:
                yield address, data


def _read(bench: Bench, start: int, end: int) -> list[bytes]:
    size = bench.fmt.block_size
    try:
        data = bench.device.read(start * size, (end - start) * size)
    except DeviceError:
        return [bench.read(address) or b"" for address in range(start, end)]
    return [data[at : at + size] for at in range(0, len(data), size)]


def find_lost_leaves(bench: Bench) -> None:
    """Find the leaves of directories of which inner nodes are damaged, and claim them.

    A leaf proves whose it is. It counts when the bitmap calls it used and nobody else holds it.
    """
    if not bench.damaged_directories:
        return
    marks = Marks(bench)
    for address, data in used_blocks(bench, marks, DirectoryNode.MAGIC, set()):
        if bench.used[address] or data[4:8] != DirectoryNode.MAGIC or not marks.used(address):
            continue
        try:
            node = DirectoryNode.decode(bench.fmt, address, data)
        except CorruptionError:
            continue
        if node.owner in bench.damaged_directories and node.level == 0 and node.keys:
            bench.claim(address, 1, structure=True)
            bench.lost_leaves.setdefault(node.owner, []).append((node.keys[0], address))
            bench.note(f"directory {node.owner}: {len(node.keys)} entries found in block {address}")
