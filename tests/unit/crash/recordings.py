"""Recorded runs, whose crashes tests judge."""

from __future__ import annotations

import random

from deferfs.crash.actions import act
from deferfs.crash.runs import random_actions
from deferfs.crash.world import SMALL_JOURNAL_BLOCKS, Shape, World


def a_run(seed: int, count: int = 90) -> World:
    dice = random.Random(seed)
    world = World(Shape(free_blocks=150, journal_blocks=SMALL_JOURNAL_BLOCKS), seed)
    for word, numbers in random_actions(dice, count):
        if word != "remount":
            act(world, word, numbers)
    return world
