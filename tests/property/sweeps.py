"""Sweeps: a short scenario, crashed at every place that matters. No chance but a seeded one.

Each returns the number of crash states judged, those inside recoveries included.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from deferfs.crash.model import ROOT, differences
from deferfs.crash.oracle import open_image, require_sound
from deferfs.crash.states import CrashStates, subsets
from deferfs.crash.tree import read_tree
from deferfs.device import FlushRecord
from deferfs.volume import attributes
from tests.property.actions import SMALL_JOURNAL_BLOCKS, Shape, World, pattern, random_actions

FILE = 0o100644
TIGHT = Shape(room=150, journal_blocks=SMALL_JOURNAL_BLOCKS)


def boundaries(world: World, first: int = 0) -> Iterator[int]:
    """Where most is at stake: just before each flush from record `first` on, just after it, and at the end."""
    records = world.twin.device.records
    for at in range(first, len(records)):
        if isinstance(records[at], FlushRecord):
            yield at
            yield at + 1
    yield len(records)


def judge_at(world: World, positions: Iterator[int], *, extra: int) -> None:
    """Judge the subsets of what is unflushed at each position; no image twice."""
    oracle = world.twin.oracle
    seen: set[bytes] = set()
    for position in positions:
        for choose in subsets(len(oracle.states.unflushed(position)), world.dice, extra=extra):
            key = oracle.states.key(position, choose)
            if key not in seen:
                seen.add(key)
                world.cut(position, choose)


def every_flush(seed: int, *, warm: int = 120, actions: int = 40, extra: int = 3) -> int:
    """A random run without crashes, then crashes at every flush of it: all subsets where they are few."""
    dice = random.Random(seed)
    world = World(TIGHT, seed)
    for word, numbers in random_actions(dice, warm):
        world.do(word, numbers)
    first = world.twin.position
    for word, numbers in random_actions(dice, actions):
        if word != "remount":
            world.do(word, numbers)
    if world.generation:
        first = 0
    judge_at(world, boundaries(world, first), extra=extra)
    return world.judged


def full_log(seed: int) -> int:
    """Large transactions one after the other, so that each checkpoint makes way for the next one, with crashes around the
    turn of the log.
    """
    world = World(Shape(journal_blocks=SMALL_JOURNAL_BLOCKS), seed)
    twin, dice = world.twin, random.Random(seed)
    files = [twin.create(ROOT, b"%d" % i, FILE) for i in range(40)]
    assert None not in files
    for turn in range(12):
        first = twin.position
        for ino in dice.sample(files, 8 + turn % 8):
            assert ino is not None
            twin.setattr(ino, mode=0o600 + turn)
            twin.setxattr(ino, b"user.0", pattern(turn, 700))
        twin.sync()
        if twin.volume.store.journal.used > SMALL_JOURNAL_BLOCKS // 2:
            twin.driver.checkpoint()
        judge_at(world, boundaries(world, first), extra=1)
    twin.verify()
    return world.judged


def reuse_during_checkpoint(held_steps: int) -> int:
    """Metadata blocks are freed and given to files while a checkpoint is on its way, stopped after so many steps."""
    world = World(TIGHT, held_steps)
    twin = world.twin
    ino = twin.create(ROOT, b"attributes", FILE)
    other = twin.create(ROOT, b"data", FILE)
    assert ino is not None and other is not None
    for turn in range(2):
        twin.setxattr(ino, b"user.0", pattern(turn, 6000))
        twin.sync()
        twin.driver.begin_checkpoint()
        for _ in range(held_steps):
            if twin.driver.checkpointing is not None:
                twin.driver.checkpointing.step()
        twin.removexattr(ino, b"user.0")
        twin.sync()
        first = twin.position
        size = twin.volume.store.space.available * world.shape.block_size
        twin.write(other, 0, pattern(100 + turn, size))
        twin.driver.begin_commit()
        twin.driver.finish_jobs()
        twin.verify()
        judge_at(world, iter((first, twin.position - 1, twin.position)), extra=2)
        twin.truncate(other, 0)
        twin.sync()
    return world.judged


def reuse_with_images_in_the_log() -> int:
    """Metadata blocks are freed and given to files while the log still holds their images; then crash, or checkpoint."""
    world = World(TIGHT, 1)
    twin = world.twin
    ino = twin.create(ROOT, b"attributes", FILE)
    other = twin.create(ROOT, b"data", FILE)
    assert ino is not None and other is not None
    twin.setxattr(ino, b"user.0", pattern(1, 6000))
    twin.sync()
    twin.removexattr(ino, b"user.0")
    twin.sync()
    size = twin.volume.store.space.available * world.shape.block_size
    twin.write(other, 0, pattern(2, size))
    twin.sync()
    judge_at(world, iter((twin.position,)), extra=0)
    twin.driver.checkpoint()
    twin.verify()
    judge_at(world, boundaries(world), extra=1)
    return world.judged


def recovery_to_its_end(seed: int) -> int:
    """One crash image, and a crash at every record of its recovery: all lead to the same state, and so do crashes in the
    recoveries of those, until nothing is new.
    """
    dice = random.Random(seed)
    world = World(TIGHT, seed)
    for word, numbers in random_actions(dice, 150, checkpoints=False):
        world.do(word, numbers)
    twin = world.twin
    twin.driver.finish_jobs()
    twin.sync()
    image = twin.device.read(0, twin.device.size)
    expected = read_tree(open_image(image)[0])
    seen: set[bytes] = set()
    waiting = [(image, 0)]
    while waiting:
        image, depth = waiting.pop()
        driver, device = open_image(image)
        lines = differences(read_tree(driver), expected)
        assert not lines, lines
        if depth == 3:
            continue
        states = CrashStates(image, tuple(device.records))
        for position in range(len(device.records) + 1):
            for choose in subsets(len(states.unflushed(position)), dice, extra=0):
                again = states.image(position, choose)
                if again not in seen and len(seen) < 400:
                    seen.add(again)
                    require_sound(again, "in recovery")
                    waiting.append((again, depth + 1))
    return len(seen)


def everything_deleted(seed: int) -> int:
    """After a long run, everything is deleted: the space is that of a new filesystem."""
    dice = random.Random(seed)
    world = World(TIGHT, seed)
    before = free_blocks(world)
    for word, numbers in random_actions(dice, 400, crashes_percent=1):
        world.do(word, numbers)
    delete_everything(world)
    assert free_blocks(world) == before
    assert list(world.twin.model.nodes) == [ROOT]
    judge_at(world, iter((world.twin.position,)), extra=0)
    return world.judged


def free_blocks(world: World) -> int:
    """As statfs counts them."""
    return attributes.statfs(world.twin.volume).free


def delete_everything(world: World) -> None:
    twin = world.twin
    twin.driver.finish_inactivations()
    twin.driver.finish_jobs()
    while twin.handles:
        twin.release(0)
    _empty(world, ROOT)
    for name in sorted(twin.model.nodes[ROOT].xattrs):
        twin.removexattr(ROOT, name)
    for ino in sorted(twin.lookups):
        twin.forget(ino)
    twin.driver.collect()
    twin.sync()
    twin.driver.checkpoint()
    twin.verify()


def _empty(world: World, directory: int) -> None:
    twin = world.twin
    for name, ino in sorted(twin.model.nodes[directory].entries.items()):
        if twin.model.nodes[ino].is_directory:
            _empty(world, ino)
            twin.rmdir(directory, name)
        else:
            twin.unlink(directory, name)
