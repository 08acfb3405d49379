"""Sweeps over structures that take more than one block or more than one transaction, and over a failing device."""

from __future__ import annotations

import errno
import random

from deferfs.crash.actions import act
from deferfs.crash.examination import CrashError
from deferfs.crash.explorer import Limits
from deferfs.crash.model import ROOT
from deferfs.crash.runs import random_actions
from deferfs.crash.states import Shredded, Subset
from deferfs.crash.world import SMALL_JOURNAL_BLOCKS, Shape, World, pattern
from deferfs.device import Fault, Request
from deferfs.errors import FsError
from deferfs.store.io import runs_of
from tests.property.sweeps import FILE, TIGHT, attribute_blocks

DIRECTORY = 0o040755
LARGE = Shape(free_blocks=1200, journal_blocks=SMALL_JOURNAL_BLOCKS)


FEWER = Limits(torn=4, states_per_epoch=40, within=12)
"""Where a judgement is dear."""


def many_orphans(seed: int) -> int:
    """More orphans than fit into two blocks of their table, inactivated by three workers with commits in between."""
    world = World(LARGE, seed)
    twin = world.twin
    for i in range(70):
        ino = twin.create(ROOT, b"%d" % i, FILE if i % 5 else DIRECTORY)
        assert ino is not None
        if i % 5:
            twin.write(ino, 0, pattern(i, 100 + 40 * i))
        if i % 7 == 0:
            twin.setxattr(ino, b"user.0", pattern(i, 3000))
        twin.open(ino)
    twin.sync()
    for i in range(70):
        (twin.unlink if i % 5 else twin.rmdir)(ROOT, b"%d" % i)
    act(world, "commit_step", (3,))
    for ino in sorted(twin.lookups):
        twin.forget(ino)
    while twin.handles:
        twin.release(world.dice.randrange(len(twin.handles)))
    first = twin.position
    while twin.volume.gc.backlog or twin.driver.inactivations:
        act(world, "inactivation_step", (world.dice.randrange(3), 2))
        if world.dice.randrange(4) == 0:
            act(world, world.dice.choice(("commit_step", "checkpoint_step")), (world.dice.randrange(6),))
    twin.driver.finish_jobs()
    twin.sync()
    twin.verify()
    assert twin.volume.store.orphans.count == 0
    world.explore(first, limits=FEWER)
    return world.judged


def many_extents(seed: int) -> int:
    """A file in more extents than one transaction frees: cut down, then deleted, with crashes in between."""
    world = World(LARGE, seed)
    twin, block = world.twin, world.shape.block_size
    ino = twin.create(ROOT, b"scattered", FILE)
    assert ino is not None
    for index in range(220):
        twin.write(ino, 2 * index * block + index, pattern(index, 50))
    twin.sync()
    first = twin.position
    twin.truncate(ino, 300 * block + 77)
    twin.driver.begin_commit()
    twin.write(ino, 310 * block, pattern(1, 2 * block))
    twin.driver.finish_jobs()
    twin.unlink(ROOT, b"scattered")
    twin.forget(ino)
    while twin.volume.gc.backlog or twin.driver.inactivations:
        act(world, "inactivation_step", (0, 0))
        twin.sync()
    assert twin.volume.inodes.statistics().cached == 0 or ino not in twin.volume.inodes.table
    world.explore(first, limits=FEWER)
    verdict = world.cut(first + (twin.position - first) // 2, Shredded(seed))
    world.go_on_from(verdict.image)
    world.twin.driver.collect()
    world.twin.sync()
    world.twin.verify()
    return world.judged


def large_directory(seed: int) -> int:
    """A directory of several levels grows and shrinks again."""
    world = World(LARGE, seed)
    twin, dice = world.twin, world.dice
    names = [b"%d" % i + b"-" * dice.choice((0, 20, 120, 240)) for i in range(160)]
    directory = twin.create(ROOT, b"large", DIRECTORY)
    assert directory is not None
    target = twin.create(ROOT, b"target", FILE)
    assert target is not None
    for name in dice.sample(names, len(names)):
        twin.link(target, directory, name)
        if dice.randrange(12) == 0:
            act(world, "commit_step", (dice.randrange(6),))
    middle = twin.position
    for name in dice.sample(names, len(names)):
        if dice.randrange(3):
            twin.unlink(directory, name)
        else:
            twin.rename(directory, name, ROOT, b"moved")
        if dice.randrange(12) == 0:
            act(world, "commit_step", (dice.randrange(6),))
    twin.driver.finish_jobs()
    twin.rmdir(ROOT, b"large")
    twin.sync()
    twin.verify()
    world.explore(middle // 2, limits=FEWER)
    return world.judged


def preallocated(seed: int) -> int:
    """A growing file takes blocks along that held another file; they read as zeros when it is extended over them, after
    a crash as well, and are given back when it is closed.
    """
    world = World(LARGE, seed)
    twin = world.twin
    old = twin.create(ROOT, b"old", FILE)
    assert old is not None
    twin.write(old, 0, pattern(1, 600 << 10))
    twin.unlink(ROOT, b"old")
    twin.forget(old)
    twin.driver.collect()
    twin.sync()
    twin.volume.store.space.cursor = 0
    first, free = twin.position, twin.volume.store.space.free_blocks
    ino = twin.create(ROOT, b"new", FILE)
    assert ino is not None
    for part in range(6):
        twin.write(ino, part * 20_000, pattern(2 + part, 20_000))
    size = twin.model.nodes[ino].size
    assert free - twin.volume.store.space.free_blocks > size // world.shape.block_size + 8, "nothing was preallocated"
    twin.fsync(ino)
    twin.truncate(ino, size + 9000)
    twin.driver.begin_commit()
    twin.write(ino, size + 3000, b"in the middle")
    twin.driver.finish_jobs()
    twin.verify()
    twin.open(ino)
    twin.look_up(ino)
    twin.release(0)
    twin.sync()
    twin.verify()
    world.explore(first, limits=FEWER)
    world.go_on_from(world.cut(first + (twin.position - first) // 2, Subset(-1)).image)
    world.twin.verify()
    return world.judged


def large_transactions(seed: int) -> int:
    """Transactions of more than one descriptor, and of more revokes than one block takes; more images side by side than
    one write brings home. The revoked blocks are used again while the log still holds what they were.
    """
    return sum(_large_transactions(seed, at_home=at_home) for at_home in (False, True))


def _large_transactions(seed: int, *, at_home: bool) -> int:
    world = World(Shape(), seed)
    twin = world.twin
    files = [ino for i in range(24) if (ino := twin.create(ROOT, b"%d" % i, FILE)) is not None]
    twin.sync()
    twin.driver.checkpoint()
    journal, fmt = twin.volume.store.journal, twin.volume.store.fmt
    longest = 0
    for ino in files:
        twin.setxattr(ino, b"user.0", pattern(ino, 5500))
        longest = max(longest, len(journal.running.images))
    assert longest > fmt.tags_per_descriptor, "not more than one descriptor"
    twin.sync()
    first = twin.position
    assert journal.checkpoints_total == 1, "the log does not hold it all"
    freed = attribute_blocks(world)
    assert max(length for _, length in runs_of(freed)) > 64, "not enough of them side by side"
    if at_home:
        twin.driver.checkpoint()
    for ino in files:
        twin.removexattr(ino, b"user.0")
    assert len(journal.running.revokes) > fmt.revokes_per_block, "not more than one block of revokes"
    twin.sync()
    ino = twin.create(ROOT, b"data", FILE)
    assert ino is not None
    twin.volume.store.space.cursor = freed[0]
    twin.write(ino, 0, pattern(2, 150 * fmt.block_size))
    twin.sync()
    twin.driver.checkpoint()
    twin.verify()
    world.explore(first, limits=FEWER)
    return world.judged


def io_errors(seed: int, requests: int) -> int:
    """The device fails one write or flush, a later one in each run. Then nothing is durable any more, however often it
    is asked for, and a crash leads back to a state from before.
    """
    judged = 0
    for skip in range(requests):
        kind = (Request.WRITE, Request.FLUSH)[skip % 2]
        world = World(TIGHT, seed)
        world.twin.below.add(Fault(frozenset({kind}), skip=skip // 2))
        twin = world.twin
        if _run_into_error(world, random.Random(seed)):
            for _ in range(2):
                _must_fail(world)
        world.explore(twin.position)
        judged += world.judged
    return judged


def _run_into_error(world: World, dice: random.Random) -> bool:
    """Whether it was met by a commit or checkpoint; else by the data of an operation."""
    for word, numbers in random_actions(dice, 400):
        if word == "remount":
            continue
        try:
            act(world, word, numbers)
        except FsError:
            assert world.twin.below.failures
            return True
        if world.twin.below.failures:
            return world.twin.volume.store.journal.aborted is not None
    raise AssertionError("the fault was never met")


def _must_fail(world: World) -> None:
    floor = world.twin.history.floors[-1][1]
    for durable in (world.twin.driver.commit, world.twin.driver.checkpoint, lambda: world.twin.driver.fsync(ROOT)):
        try:
            durable()
        except FsError as error:
            if error.errno != errno.EIO:
                raise
        else:
            raise CrashError("a commit, checkpoint or fsync succeeds after an IO error")
    if world.twin.history.floors[-1][1] != floor:
        raise CrashError("something became durable after an IO error")
