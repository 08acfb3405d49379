"""What the check says of sound images."""

from __future__ import annotations

from deferfs.check import Counts, check_image
from tests.unit.check.images import BIG_ENTRIES, sample


def test_the_sample_is_clean() -> None:
    report = check_image(sample().device)
    assert report.problems == ()
    assert report.clean
    assert report.complete
    assert report.superblock.label == b"sample"


def test_counts() -> None:
    image = sample()
    report = check_image(image.device)
    used = report.counts.blocks_used
    assert report.counts == Counts(
        inodes=BIG_ENTRIES + 19,
        directories=6,
        files=BIG_ENTRIES + 8,
        symlinks=2,
        others=3,
        orphans=2,
        blocks_used=used,
        free_blocks=report.superblock.blocks - used,
    )
