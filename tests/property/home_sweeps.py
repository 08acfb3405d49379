"""A sweep over images that are brought home for their memory alone, while the log keeps them."""

from __future__ import annotations

import random

from deferfs.crash.model import ROOT
from deferfs.crash.world import SMALL_JOURNAL_BLOCKS, Shape, World, pattern
from tests.property.large_sweeps import FEWER
from tests.property.sweeps import FILE, attribute_blocks


def home_for_memory(seed: int) -> int:
    """Blocks leave memory as they come home, and come back from the disk; they change again, are freed and used again
    while the job is under way. The log fills with transactions that are home, is emptied, and goes round.
    """
    dice = random.Random(seed)
    world = World(Shape(free_blocks=300, journal_blocks=SMALL_JOURNAL_BLOCKS), seed)
    twin = world.twin
    journal, first = twin.volume.store.journal, 0
    files = [ino for i in range(30) if (ino := twin.create(ROOT, b"%d" % i, FILE)) is not None]
    twin.sync()
    for turn in range(40):
        for ino in dice.sample(files, 20):
            twin.setattr(ino, mode=0o600 + turn)
        if turn % 3 == 0:
            twin.setxattr(files[turn % 30], b"user.0", pattern(turn, 6000))
        twin.driver.begin_commit()
        twin.driver.begin_checkpoint(keep_log=True)
        for _ in range(dice.randrange(6)):
            for job in (twin.driver.committing, twin.driver.checkpointing):
                if job is not None:
                    job.step()
        if turn % 3 == 1 and attribute_blocks(world):
            twin.removexattr(files[turn % 30 - 1], b"user.0")
        twin.driver.finish_jobs()
        twin.driver.bring_home()
        twin.evict()
        twin.write(files[-1 - turn % 5], 0, pattern(turn, 3000))
        if journal.wants_checkpoint:
            twin.driver.checkpoint()
        if turn == 30:
            first = twin.position
    assert journal.write_backs_total > 10
    assert journal.blocks_logged_total > 2 * journal.blocks, "the log does not go round"
    twin.sync()
    twin.verify()
    world.explore(first, limits=FEWER)
    return world.judged
