"""What is remembered of one crash state holds for another exactly when it must."""

from __future__ import annotations

import pytest

from deferfs.crash.epochs import choices, epochs
from deferfs.crash.explorer import Explorer, Limits, epoch_dice
from deferfs.crash.oracle import Oracle
from deferfs.crash.states import CrashStates, Subset
from deferfs.crash.world import World
from tests.examples import night
from tests.unit.crash.recordings import a_run

pytestmark = pytest.mark.compiled


@pytest.mark.parametrize("seed", [0, night(1), night(2)])
def test_every_state_is_judged_as_by_itself(seed: int) -> None:
    """A run in which each state is judged by the plain oracle too, and gives the same tree."""
    world = a_run(seed, 60)
    tally = world.explore(limits=Limits(torn=3, within=4, sample_every=1))
    assert tally.sampled == tally.states - tally.within > 100
    assert tally.examined < tally.states / 4, "hardly any outcome was remembered"


def test_all_states_of_all_epochs_are_met() -> None:
    """The explorer judges what the epochs give: as many distinct images."""
    world = a_run(4, 40)
    records = tuple(world.twin.device.records)
    plain = CrashStates(world.twin.start, records)
    images = set()
    for epoch in epochs(records, 1024):
        for choice in choices(epoch, epoch_dice(1, epoch), torn=0):
            if epoch.state(world_pages(world, epoch.first), choice) is not None:
                images.add(plain.image(epoch.end, choice))
    limits = Limits(torn=0, within=0, sample_every=1 << 30)
    explorer = Explorer(world.twin.start, records, world.twin.history, seed=1, limits=limits)
    assert explorer.explore().states == len(images)


def world_pages(world: World, position: int) -> list[bytes]:
    image = CrashStates(world.twin.start, world.twin.device.records).image(position, Subset(-1))
    return [image[at : at + 1024] for at in range(0, len(image), 1024)]


def test_the_count_is_of_this_process_too() -> None:
    before = Oracle.judged_in_all
    tally = a_run(5, 20).explore()
    assert Oracle.judged_in_all - before >= tally.states > 0
