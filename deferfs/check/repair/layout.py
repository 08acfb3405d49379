"""The fixed areas. Bitmaps are made from scratch and the log is empty, so an area that lies over metadata is moved."""

from __future__ import annotations

from deferfs.check.claims import blocks_text
from deferfs.check.repair.bench import Bench, NoRoomError
from deferfs.limits import JOURNAL_BLOCKS_MIN
from deferfs.ondisk.bitmap import Bitmap

Area = tuple[int, int]
"""(first block, blocks)."""


class Layout:
    """Claims the areas that may stay (`claim`, before file data is looked at), and moves the others (`move`, after)."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.regions_stay = False
        self.journal_stays = False

    @property
    def moved(self) -> bool:
        """Whether an area had to be moved."""
        return not (self.regions_stay and self.journal_stays)

    def claim(self) -> None:
        """Claim what does not lie over metadata. The bitmaps come first: they cannot be smaller."""
        bench, superblock = self.bench, self.bench.superblock
        regions = [area for area in superblock.bitmap_regions if area[1]]
        if regions != list(superblock.bitmap_regions):
            bench.superblock = superblock.next(bitmap_regions=tuple(regions))
        self.regions_stay = self._claim_all(regions)
        self.journal_stays = self._claim_all([(superblock.journal_start, superblock.journal_blocks)])

    def _claim_all(self, areas: list[Area]) -> bool:
        bench, end = self.bench, 0
        for first, length in sorted(areas):
            if first < end or not bench.inside(first, length) or bench.used.find(1, first, first + length) >= 0:
                return False
            end = first + length
        for area in areas:
            bench.claim(*area, structure=True)
        return True

    def move(self) -> None:
        """Find new places for the others. NoRoomError."""
        bench = self.bench
        if not self.regions_stay:
            region = free_run(bench, bench.superblock.groups, bench.superblock.groups)
            bench.superblock = bench.superblock.next(bitmap_regions=(region,))
            bench.note(f"bitmaps: moved to {blocks_text(region[0], sum(region))}")
        if not self.journal_stays:
            wanted = bench.superblock.journal_blocks
            first, length = free_run(bench, wanted, min(wanted, JOURNAL_BLOCKS_MIN))
            bench.superblock = bench.superblock.next(journal_start=first, journal_blocks=length, journal_tail=0)
            bench.note(f"journal: moved to {blocks_text(first, first + length)}")
            for address in range(first, first + length):
                bench.disk.write(address * bench.fmt.block_size, bytes(bench.fmt.block_size))


def free_run(bench: Bench, wanted: int, least: int) -> Area:
    """A run of free blocks that nothing old names, now held: as long as `wanted`, or half of it again and again, but
    not below `least`: in a smaller log than that, some operations would never fit.
    """
    while wanted:
        first = bench.stock.find_run(wanted) if wanted <= len(bench.used) else -1
        if first >= 0:
            bench.claim(first, wanted, structure=True)
            return first, wanted
        wanted = max(wanted // 2, least) if wanted > least else 0
    raise NoRoomError


def write_bitmaps(bench: Bench) -> None:
    """The free-space bitmaps, from what is held: the last step."""
    size = bench.fmt.bits_per_bitmap
    for group in bench.steps("free space", range(bench.superblock.groups)):
        bits = bench.used[group * size : (group + 1) * size]
        bits.extend([1] * (size - len(bits)))
        address = bench.superblock.bitmap_address(group)
        bench.write(address, Bitmap(group, bits).encode(bench.fmt, address))
