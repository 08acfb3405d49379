"""Sweeps over access times that are owed, and over blocks that leave memory right after they have come home."""

from __future__ import annotations

import random
from dataclasses import replace

from deferfs.crash.actions import act, act_all
from deferfs.crash.examination import CrashError
from deferfs.crash.explorer import Limits
from deferfs.crash.model import ROOT
from deferfs.crash.world import SHORT_JOURNAL_BLOCKS, Shape, World, pattern
from deferfs.device import Fault, Request
from deferfs.store.io import Write
from tests.property.sweeps import FILE

STRICT = Shape(free_blocks=400, journal_blocks=SHORT_JOURNAL_BLOCKS, atime="strict")
FEWER = Limits(torn=2, states_per_epoch=30, within=6)
FILES = 90
"""Some of them have their records outside of the part of the inode table that stays cached."""


def owing(shape: Shape, seed: int, count: int = FILES) -> tuple[World, list[int]]:
    """A world with files that owe an access time each and have left memory."""
    world = World(shape, seed)
    twin = world.twin
    inos: list[int] = []
    for number in range(count):
        ino = twin.create(ROOT, b"%d" % number, FILE)
        assert ino is not None
        twin.write(ino, 0, pattern(number, 20))
        inos.append(ino)
    twin.sync()
    twin.driver.checkpoint()
    for ino in inos:
        twin.read(ino)
        twin.forget(ino)
    hand_over(world)
    assert twin.volume.inodes.debts.count == (count if shape.evict == "deferred" else 0)
    assert len(twin.access_times.owed) == twin.volume.inodes.debts.count
    return world, inos


def hand_over(world: World) -> None:
    """All idle inodes leave memory, and all clean blocks."""
    act(world, "hand_over_all", (0,))
    while world.twin.volume.inodes.lru and not world.twin.volume.inodes.debts.full:
        act(world, "hand_over_all", (0,))
    world.twin.evict()


def paid_together(seed: int) -> int:
    """Debts are paid by block, along with other changes, with commits and evictions in between; what is looked up,
    changed, deleted and made again, or set meanwhile keeps the time that a process was told last. An fsync of a file
    whose time has just been paid makes it durable.
    """
    world, _ = owing(STRICT, seed)
    twin, dice = world.twin, world.dice
    first = twin.position
    for turn in range(12):
        word = ("look_up_debtor", "change_debtor", "set_time_of_debtor", "remove_debtor")[turn % 4]
        act(world, word, (dice.randrange(FILES), dice.randrange(1 << 16), turn))
        owed = set(twin.access_times.owed)
        act(world, ("pay_block", "pay_with_waits")[turn % 2], (dice.randrange(FILES), turn, 1, 2))
        paid = owed.difference(twin.access_times.owed).intersection(twin.model.nodes)
        if paid and turn % 3 == 1:
            twin.fsync(min(paid))
        act(world, "commit_step", (turn,))
        if turn % 3 == 0:
            twin.evict()
    twin.check_access_times()
    act(world, "pay", ())
    twin.driver.finish_jobs()
    twin.sync()
    twin.verify()
    act(world, "unmount", ())
    world.explore(first, limits=FEWER)
    return world.judged


def debts_outlived(seed: int) -> int:
    """Files that owe are deleted, their numbers used again at once, and the clock is set back before that: what is new
    begins with its own times, and keeps those that it is given.
    """
    world, inos = owing(STRICT, seed, 40)
    twin = world.twin
    first = twin.position
    for ino in inos[30:]:
        twin.look_up(ino)
    act(world, "set_clock", (0,))
    for ino in inos[30:]:
        twin.read(ino)
    twin.check_access_times()
    for ino in inos[30:]:
        twin.forget(ino)
    again = []
    for number, ino in enumerate(inos[:20]):
        twin.unlink(ROOT, b"%d" % number)
        twin.driver.collect()
        new = twin.create(ROOT, b"again-%d" % number, FILE)
        assert new == ino, "the number is not used again"
        if number % 2:
            twin.set_times(new, 5, 6)
        again.append(new)
    twin.check_access_times()
    for new in again:
        twin.forget(new)
    hand_over(world)
    act(world, "pay", ())
    twin.driver.begin_commit()
    twin.driver.finish_jobs()
    twin.verify()
    act(world, "unmount", ())
    world.explore(first, limits=FEWER)
    return world.judged


def debts_refused(seed: int) -> int:
    """The table of debts is small, and full time and again: what it refuses stays in memory with what it owes. Files
    far apart owe at the same time, so that some debts lie beyond their own slots.
    """
    world = World(replace(STRICT, memory_bytes=24 << 10), seed)
    twin = world.twin
    assert twin.volume.inodes.debts.slots == 64, "the debts of no inode are in the way of another's"
    inos = [ino for number in range(80) if (ino := twin.create(ROOT, b"%d" % number, FILE)) is not None]
    inos.sort(key=lambda ino: (ino % 8, ino))
    twin.sync()
    twin.driver.checkpoint()
    first = twin.position
    for turn in range(4):
        twin.volume.inodes.debts.count_max = (7, 0, 3, 12)[turn]
        for ino in inos:
            if ino not in twin.lookups:
                twin.look_up(ino)
            twin.access(ino)
            twin.forget(ino)
        act(world, "hand_over_all", (0,))
        assert twin.volume.inodes.debts.full
        twin.check_access_times()
        act(world, "pay", ())
        twin.driver.begin_commit()
        act(world, "hand_over", (turn,))
        twin.driver.finish_jobs()
    twin.verify()
    act(world, "unmount", ())
    world.explore(first, limits=FEWER)
    return world.judged


def debts_on_a_full_disk(seed: int) -> int:
    """A payment takes no space: it goes through when there is none, and in the middle of a transaction that has grown
    as large as it may get.
    """
    world, _ = owing(replace(STRICT, free_blocks=200), seed, 60)
    twin = world.twin
    first = twin.position
    filler = twin.create(ROOT, b"filler", FILE)
    assert filler is not None
    for turn in range(60):
        blocks = 8 if turn < 40 else 1
        twin.write(filler, turn << 20, pattern(turn, blocks * world.shape.block_size))
    assert not twin.volume.store.space.available, "the disk is not full"
    journal = twin.volume.store.journal
    tid = journal.running.tid
    while twin.volume.inodes.debts.count and journal.running.tid == tid:
        act(world, "pay_block", (0,))
        twin.setattr(ROOT, mode=0o755)
    act(world, "pay", ())
    twin.sync()
    twin.verify()
    act(world, "unmount", ())
    world.explore(first, limits=FEWER)
    return world.judged


def debts_when_the_log_is_full(seed: int) -> int:
    """A payment has to wait for a commit, and for a checkpoint: what it was to write is not lost, nor settled early."""
    world, inos = owing(STRICT, seed, 130)
    twin = world.twin
    journal, fmt = twin.volume.store.journal, twin.volume.store.fmt
    for ino in inos[24:]:
        twin.set_times(ino, 5, 6)
    twin.sync()
    others = inos[24 :: fmt.inodes_per_block]
    first = twin.position
    for turn in range(5):
        twin.driver.checkpoint()
        at = iter(others)
        while journal.running_blocks < journal.transaction_blocks_max:
            twin.setattr(next(at), mode=0o600 + turn)
        tid = journal.running.tid
        act(world, "pay_block", (0,))
        assert journal.running.tid != tid, "the payment has not waited"
    twin.verify()
    act(world, "unmount", ())
    world.explore(first, limits=FEWER)
    return world.judged


def debts_of_an_aborted_mount(seed: int) -> int:
    """The disk fails while debts are paid: nothing is written any more, and processes are told the same as before."""
    judged = 0
    for skip in range(4):
        world, _ = owing(STRICT, seed, 30)
        twin = world.twin
        first = twin.position
        twin.below.add(Fault(frozenset({(Request.WRITE, Request.FLUSH)[skip % 2]}), skip=skip // 2))
        payments = [("pay_block", (number, 0, 0, 0)) for number in range(3)]
        act_all(world, [*payments, ("commit_step", (5, 0, 0, 0)), ("checkpoint", (0, 0, 0, 0)), *payments])
        assert twin.volume.store.journal.aborted is not None
        assert twin.volume.inodes.debts.count
        paid = twin.volume.inodes.debts.paid_total
        twin.driver.pay()
        act_all(world, payments)
        if twin.volume.inodes.debts.paid_total != paid:
            raise CrashError("a payment goes through although nothing is written any more")
        twin.check_access_times()
        world.explore(first, limits=FEWER)
        judged += world.judged
    return judged


def evicted_on_the_way_home(seed: int) -> int:
    """A checkpoint writes home piece by piece. Blocks change and are committed under it, and all that is clean leaves
    memory between any two of its requests.
    """
    world, inos = owing(STRICT, seed)
    twin, dice = world.twin, random.Random(seed)
    first = twin.position
    for turn in range(6):
        for ino in dice.sample(inos, 12):
            twin.setattr(ino, mode=0o600 + turn)
        twin.driver.commit()
        twin.driver.begin_checkpoint()
        steps = 0
        while (job := twin.driver.checkpointing) is not None:
            if steps % 3 == turn % 3 and isinstance(job.request, Write):
                for ino in dice.sample(inos, 6):
                    twin.setattr(ino, mode=0o640 + turn)
                if turn % 2:
                    twin.driver.commit()
            twin.evict()
            job.step()
            twin.evict()
            steps += 1
        assert steps > 4, "the checkpoint has one piece only"
        act(world, "pay_block", (turn,))
    twin.verify()
    act(world, "unmount", ())
    world.explore(first, limits=FEWER)
    return world.judged
