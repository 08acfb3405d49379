"""The sweeps pass, and long random runs with many turns of the log."""

from __future__ import annotations

import random

import pytest

from deferfs.crash.actions import act
from deferfs.crash.runs import random_actions, random_world
from deferfs.crash.world import Shape, World
from deferfs.limits import JOURNAL_BLOCKS_MIN
from tests.examples import night
from tests.property.hunt import SWEEPS

PATCHING = {"cleanups_fail"}
"""These make the core fail by patching it, which is impossible where it is compiled."""
NAMES = [name if name in PATCHING else pytest.param(name, marks=pytest.mark.compiled) for name in SWEEPS]


@pytest.mark.parametrize("name", NAMES)
def test_sweep(name: str) -> None:
    assert SWEEPS[name](1) > 0


@pytest.mark.compiled
@pytest.mark.parametrize("evict", ["deferred", "inline"])
def test_a_log_that_wraps_many_times(evict: str) -> None:
    """One filesystem, mounted once, with the journal of the smallest image that mkfs makes."""
    world = World(Shape(evict=evict), 5)
    logged = 0
    for word, numbers in random_actions(random.Random(5), 2500, cuts_percent=1.5):
        if word != "remount":
            act(world, word, numbers)
    logged = world.twin.volume.store.journal.blocks_logged_total
    assert logged > 4 * JOURNAL_BLOCKS_MIN
    world.twin.verify()


@pytest.mark.compiled
@pytest.mark.parametrize("seed", [0, 1, night(2), night(3)])
def test_a_random_world(seed: int) -> None:
    """As the machine in test_crash.py, but far longer."""
    world = random_world(random.Random(seed), warm=300, count=500, cuts_percent=8, crashes_percent=0.6)
    assert world.judged > 60


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_sweep_with_other_seeds(name: str) -> None:
    for seed in range(2, 12):
        assert SWEEPS[name](seed) > 0


@pytest.mark.long
@pytest.mark.compiled
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(0, 400, 100))
def test_many_random_worlds(first: int) -> None:
    for seed in range(first + 10, first + 110):
        random_world(random.Random(seed), warm=300, count=500, cuts_percent=8, crashes_percent=0.6)
