"""A repair's context, for tests of its single steps."""

from __future__ import annotations

from deferfs.check.repair.context import RepairContext
from tests.unit.check.image import Image
from tests.unit.check.repair.outcome import NOW


def repair_of(image: Image, spilled: list[int] | None = None) -> RepairContext:
    def spill(repair: RepairContext) -> None:
        assert spilled is not None
        spilled.append(len(repair.device.pages))
        repair.device.pages.clear()

    repair = RepairContext(image.device, image.superblock, NOW, spill=spill)
    repair.claim(0, repair.fmt.reserved_blocks, structure=True)
    return repair
