"""What is taken for the recovery of an image is what a mount does."""

from __future__ import annotations

import random

import pytest

from deferfs.crash.examination import CrashError, examine, open_volume, require_usable
from deferfs.crash.pages import PageDevice, split
from deferfs.crash.recoveries import run_recovery
from deferfs.crash.states import CrashStates, Shredded
from deferfs.crash.world import fresh_free, fresh_image
from deferfs.device import RecordingDevice
from tests.unit.crash.recordings import a_run


@pytest.mark.parametrize("seed", range(4))
def test_the_requests_are_the_first_that_a_mount_makes(seed: int) -> None:
    world = a_run(seed)
    states = CrashStates(world.twin.start, world.twin.device.records)
    dice = random.Random(seed)
    recovered = 0
    for _ in range(12):
        image = states.image(dice.randrange(world.twin.position + 1), Shredded(dice.getrandbits(20)))
        recovery = run_recovery(PageDevice(split(image, 1024), {}))
        device = RecordingDevice(PageDevice(split(image, 1024), {}))
        open_volume(device)
        assert tuple(device.records[: len(recovery.records)]) == recovery.records
        assert recovery.clean is not bool(recovery.records)
        assert len(device.records) == len(recovery.records) + 2, "what follows is the superblock of the mount"
        recovered += not recovery.clean
    assert recovered


def test_a_clean_image_is_not_recovered() -> None:
    world = a_run(1, 5)
    recovery = run_recovery(PageDevice(split(fresh_image(world.shape), 1024), {}))
    assert recovery.clean
    assert not recovery.images


def test_a_filesystem_that_loses_space_is_noticed() -> None:
    world = a_run(2)
    image = world.twin.device.read(0, world.twin.device.size)
    device = PageDevice(split(image, 1024), {})
    examine(device, fresh_free=fresh_free(world.shape))
    with pytest.raises(CrashError, match="after everything was deleted"):
        require_usable(device, fresh_free(world.shape) + 1)
