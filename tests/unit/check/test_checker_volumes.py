"""The check of real volumes: clean whenever the device is cut off, and never clean once a block is damaged."""

from __future__ import annotations

import pytest

from deferfs.check import check_image
from deferfs.device import MemoryDevice
from deferfs.ondisk.inode import ROOT_INO
from tests.examples import night
from tests.unit.check.image import metadata_blocks
from tests.unit.check.workload import SIZES, Workload

pytestmark = pytest.mark.compiled


@pytest.mark.parametrize("evict", ["deferred", night("inline")])
@pytest.mark.parametrize("block_size", SIZES)
def test_volume_in_use_is_always_clean(block_size: int, evict: str) -> None:
    workload = Workload(block_size, block_size, evict)
    for number in range(240):
        workload.step()
        if number % 8 == 0:
            report = workload.snapshot()
        elif number % 61 == 0:
            report = workload.cut_off()
        else:
            continue
        assert report.clean, (number, report.problems)
        assert report.complete
    report = workload.close()
    assert report.clean, report.problems
    assert report.counts.orphans == 0
    assert report.counts.transactions == 0


def test_everything_deleted_leaves_an_empty_volume() -> None:
    workload = Workload(5, 1024, "deferred")
    fresh = workload.snapshot().counts
    for _ in range(150):
        workload.step()
    workload.delete_below(ROOT_INO)
    report = workload.close()
    assert report.clean, report.problems
    assert report.counts == fresh


def test_no_damaged_block_of_a_volume_is_missed() -> None:
    workload = Workload(7, 1024, "deferred")
    for _ in range(120):
        workload.step()
    workload.driver.commit()
    workload.driver.checkpoint()
    image = workload.device.snapshot()
    report = check_image(MemoryDevice.from_bytes(image))
    assert report.clean
    for address in workload.random.sample(metadata_blocks(image), 100):
        damaged = bytearray(image)
        damaged[address * 1024 + workload.random.randrange(1024)] ^= 1 << workload.random.randrange(8)
        assert not check_image(MemoryDevice.from_bytes(damaged)).clean, address
