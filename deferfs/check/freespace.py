"""Pass 8: the free-space bitmaps against the map of claims."""

from __future__ import annotations

from bitarray import bitarray

from deferfs.check import catalogue
from deferfs.check.claims import blocks_text, runs_of_ones
from deferfs.check.context import Context
from deferfs.check.inodes import read_bitmap


def check_free_space(context: Context) -> int:
    """Compare each bitmap with what was found in use; the number of blocks marked free."""
    size = context.fmt.bits_per_bitmap
    free = 0
    for group in context.steps("free space", range(context.superblock.groups)):
        address = context.superblock.bitmap_address(group)
        bitmap = read_bitmap(context, address, group, catalogue.BITMAP_DAMAGED, "free-space bitmap")
        if bitmap is None:
            context.complete = False
            continue
        free += bitmap.bits.count(0)
        claimed = context.claims.bits[group * size : (group + 1) * size]
        _compare(context, group, bitmap.bits, claimed)
    return free


def _compare(context: Context, group: int, bits: bitarray, claimed: bitarray) -> None:
    """`claimed` is shorter than `bits` where the image ends inside the group."""
    findings, first, real = context.findings, group * context.fmt.bits_per_bitmap, len(claimed)
    tail = bits.find(0, real)
    if tail >= 0:
        text = f"free-space bitmap of group {group}: bit {tail}, beyond the image, is not set"
        findings.add(catalogue.BITMAP_TAIL, text, group=group)
    bits = bits[:real]
    for kind, wrong, text in (
        (catalogue.BLOCK_MARKED_FREE, claimed & ~bits, "in use, but marked free"),
        (catalogue.BLOCK_LEAKED, bits & ~claimed, "marked in use, but belong to nothing"),
    ):
        for start, end in runs_of_ones(wrong):
            where = blocks_text(first + start, first + end)
            findings.add(kind, f"{where}: {text}", block=first + start, length=end - start)
