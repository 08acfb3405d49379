"""Sweeps over the ends of mounts: crashes on the way to a clean image, and crashes of what has come out of a crash."""

from __future__ import annotations

import random

from deferfs.crash.actions import act
from deferfs.crash.explorer import Limits
from deferfs.crash.model import ROOT
from deferfs.crash.runs import random_actions
from deferfs.crash.states import Shredded, Subset
from deferfs.crash.world import World
from tests.property.sweeps import FILE, TIGHT

_SOME = Limits(torn=6)


def _work(world: World, dice: random.Random, count: int) -> None:
    for word, numbers in random_actions(dice, count):
        if word != "remount":
            act(world, word, numbers)


def unmounted(seed: int) -> int:
    """Mounts end with deleted files to clean up and a log to bring home; crashes until the image is clean."""
    judged = 0
    for turn in range(4):
        world = World(TIGHT, seed + turn)
        _work(world, random.Random(seed + turn), 60)
        first = world.twin.position
        world.twin.driver.close()
        world.explore(first, limits=_SOME)
        judged += world.judged
    return judged


def crash_after_crash(seed: int) -> int:
    """What a crash has left is mounted and worked on, until the next crash: all crashes from the recovery on."""
    dice = random.Random(seed)
    world = World(TIGHT, seed)
    for _ in range(6):
        _work(world, dice, 30)
        world.explore(limits=_SOME)
        verdict = world.cut(world.twin.position, Shredded(dice.getrandbits(20), dice.choice((2, 6))))
        world.go_on_from(verdict.image)
    world.twin.verify()
    return world.judged


def alike_after_a_crash(seed: int) -> int:
    """Mount after mount ends in a crash after a few transactions that are as long as those of the mount before, and lie
    in the same places of the log: what is left of these must never count.
    """
    world = World(TIGHT, seed)
    for turn in range(4):
        twin = world.twin
        for number in range(3):
            twin.create(ROOT, b"%d-%d" % (turn, number), FILE)
            twin.sync()
        twin.create(ROOT, b"%d-last" % turn, FILE)
        twin.driver.begin_commit()
        world.explore(limits=_SOME)
        world.go_on_from(world.cut(twin.position, Subset(world.dice.getrandbits(4))).image)
    world.twin.verify()
    return world.judged
