"""What a repair would do is known before anything is written, and is what it does then."""

from __future__ import annotations

import pytest

from deferfs.check.repair import foresee_repair, foresight, repair_image
from deferfs.device import MemoryDevice
from deferfs.errors import ImageError
from tests.unit.check.builder import BLOCK_SIZE
from tests.unit.check.damage.every import CASES
from tests.unit.check.repair.outcome import NOW
from tests.unit.check.sample import sample


@pytest.mark.parametrize("name", list(CASES)[::6])
def test_the_repair_does_what_was_foreseen(name: str) -> None:
    image = sample()
    CASES[name].damage(image)
    before = image.device.snapshot()
    foreseen = foresee_repair(image.device, sample().superblock, NOW)
    assert image.device.snapshot() == before
    assert foreseen is not None
    done = repair_image(image.device, NOW)
    assert foreseen.actions == done.actions
    assert foreseen.report.problems == done.report.problems == ()


def test_a_repair_that_changes_too_much_is_not_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    image = sample()
    monkeypatch.setattr(foresight, "FORESEEN_BYTES_MAX", 3 * BLOCK_SIZE)
    before = image.device.snapshot()
    assert foresee_repair(image.device, sample().superblock, NOW) is None
    assert image.device.snapshot() == before


def test_foreseeing_fails_where_a_repair_has_nothing_to_start_from() -> None:
    image = sample()
    first = image.superblock.journal_start
    device = MemoryDevice.from_bytes(image.device.snapshot())
    device.write(first * BLOCK_SIZE, bytes((image.superblock.blocks - first) * BLOCK_SIZE))
    with pytest.raises(ImageError, match="not one inode record"):
        foresee_repair(device, image.superblock, NOW)
