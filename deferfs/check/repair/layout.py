"""The fixed areas. Bitmaps are made from scratch and the log is empty, so an area that lies over metadata is moved."""

from __future__ import annotations

from deferfs.check.claims import blocks_text
from deferfs.check.repair.context import NoFreeBlockError, RepairContext
from deferfs.limits import JOURNAL_BLOCKS_MIN
from deferfs.ondisk.bitmap import Bitmap

Area = tuple[int, int]
"""(first block, blocks)."""


class Layout:
    """Claims the areas that may stay (`claim`, before file data is looked at), and moves the others (`move`, after)."""

    def __init__(self, repair: RepairContext) -> None:
        self.repair = repair
        self.regions_stay = False
        self.journal_stays = False

    @property
    def moved(self) -> bool:
        """Whether an area had to be moved."""
        return not (self.regions_stay and self.journal_stays)

    def claim(self) -> None:
        """Claim what does not lie over metadata. The bitmaps come first: they cannot be smaller."""
        repair, superblock = self.repair, self.repair.superblock
        regions = [area for area in superblock.bitmap_regions if area[1]]
        if regions != list(superblock.bitmap_regions):
            repair.superblock = superblock.next(bitmap_regions=tuple(regions))
        self.regions_stay = self._claim_all(regions)
        self.journal_stays = self._claim_all([(superblock.journal_start, superblock.journal_blocks)])

    def _claim_all(self, areas: list[Area]) -> bool:
        repair, end = self.repair, 0
        for first, length in sorted(areas):
            if first < end or not repair.inside(first, length) or repair.used.find(1, first, first + length) >= 0:
                return False
            end = first + length
        for area in areas:
            repair.claim(*area, structure=True)
        return True

    def move(self) -> None:
        """Find new places for the others. NoFreeBlockError."""
        repair = self.repair
        if not self.regions_stay:
            region = free_run(repair, repair.superblock.groups, repair.superblock.groups)
            repair.superblock = repair.superblock.next(bitmap_regions=(region,))
            repair.note(f"bitmaps: moved to {blocks_text(region[0], sum(region))}")
        if not self.journal_stays:
            wanted = repair.superblock.journal_blocks
            first, length = free_run(repair, wanted, min(wanted, JOURNAL_BLOCKS_MIN))
            repair.superblock = repair.superblock.next(journal_start=first, journal_blocks=length, journal_tail=0)
            repair.note(f"journal: moved to {blocks_text(first, first + length)}")
            for address in range(first, first + length):
                repair.disk.write(address * repair.fmt.block_size, bytes(repair.fmt.block_size))


def free_run(repair: RepairContext, wanted: int, least: int) -> Area:
    """A run of free blocks that nothing old names, now held: as long as `wanted`, or half of it again and again, but
    not below `least`: in a smaller log than that, some operations would never fit.
    """
    while wanted:
        first = repair.stock.find_run(wanted) if wanted <= len(repair.used) else -1
        if first >= 0:
            repair.claim(first, wanted, structure=True)
            return first, wanted
        wanted = max(wanted // 2, least) if wanted > least else 0
    raise NoFreeBlockError


def write_bitmaps(repair: RepairContext) -> None:
    """The free-space bitmaps, from what is held: the last step."""
    size = repair.fmt.bits_per_bitmap
    for group in repair.steps("free space", range(repair.superblock.groups)):
        bits = repair.used[group * size : (group + 1) * size]
        bits.extend([1] * (size - len(bits)))
        address = repair.superblock.bitmap_address(group)
        repair.write(address, Bitmap(group, bits).encode(repair.fmt, address))
