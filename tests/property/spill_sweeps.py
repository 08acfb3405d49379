"""A sweep over orphans that wait in the orphan table alone."""

from __future__ import annotations

from deferfs.crash.actions import act
from deferfs.crash.model import ROOT
from deferfs.crash.twin_error import TwinError
from deferfs.crash.world import World, pattern
from deferfs.errors import FsError
from deferfs.volume.attributes import statfs
from tests.property.large_sweeps import FEWER, LARGE
from tests.property.sweeps import FILE

FILES = 70
HELD = 10


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise TwinError(problem)


def read_held(world: World, ino: int) -> None:
    try:
        world.twin.read(ino)
    except FsError as error:
        raise TwinError(f"inode {ino}, which is held, cannot be read: {error}") from error


def orphans_in_the_table(seed: int) -> int:
    """Nothing is kept in memory of most of the orphans. Some come back by a handle, are written to and let go again;
    workers read the others back, in steps, between commits and while blocks of the table leave the cache; statfs has
    promised what they give back.
    """
    world = World(LARGE, seed)
    twin, volume = world.twin, world.twin.volume
    act(world, "bound_in_core", (1 + seed % 2,))
    inos = []
    for number in range(FILES):
        ino = twin.create(ROOT, b"%d" % number, FILE)
        assert ino is not None
        twin.write(ino, 0, pattern(number, 100 + 40 * number))
        inos.append(ino)
    twin.sync()
    for number in range(FILES):
        twin.unlink(ROOT, b"%d" % number)
        twin.forget(inos[number])
    if volume.policy.waits:
        return 0  # inline nothing is left to wait
    require(volume.spill.count >= FILES - 2, "what is left to the table is not counted")
    promised = statfs(volume).free
    first = twin.position
    for turn, ino in enumerate(inos[FILES // 2 : FILES // 2 + HELD]):
        twin.look_up(ino)
        act(world, "inactivation_step", (turn, 2))
    twin.driver.commit()
    twin.driver.checkpoint()
    volume.store.cache.shrink(1 << 40)
    for _ in range(150):
        act(world, "inactivation_step", (world.dice.randrange(3), 2))
        act(world, "commit_step", (world.dice.randrange(6),))
    for turn, ino in enumerate(inos[FILES // 2 : FILES // 2 + HELD]):
        read_held(world, ino)
        if turn % 2:
            twin.write(ino, 0, pattern(turn, 50))
        twin.forget(ino)
    while volume.gc.backlog or twin.driver.inactivations:
        before = volume.store.orphans.count
        for _ in range(40):
            act(world, "inactivation_step", (world.dice.randrange(3), 2))
        require(volume.store.orphans.count < before, "inodegc finds nothing to do, and orphans are left")
        act(world, world.dice.choice(("commit_step", "checkpoint_step")), (world.dice.randrange(6),))
    twin.driver.finish_jobs()
    twin.sync()
    twin.verify()
    require(volume.store.orphans.count == 0, "orphans are forgotten")
    require((volume.spill.count, volume.inodes.pending_blocks) == (0, 0), "orphans that are gone still count")
    require(statfs(volume).free >= promised, "statfs promised more than came")
    world.explore(first, limits=FEWER)
    return world.judged
