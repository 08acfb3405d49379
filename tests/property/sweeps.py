"""Sweeps: a short scenario, crashed at every place that matters. No chance but a seeded one.

Each returns the number of crash states judged, those inside recoveries included.
"""

from __future__ import annotations

import random
from dataclasses import replace

from deferfs.crash.actions import act
from deferfs.crash.explorer import Limits
from deferfs.crash.model import ROOT
from deferfs.crash.runs import random_actions
from deferfs.crash.world import SMALL_JOURNAL_BLOCKS, Shape, World, pattern
from deferfs.device import DiscardRecord, keep_all
from deferfs.ondisk.xattr import XattrBlock
from deferfs.store.io import Discard
from deferfs.volume import attributes

FILE = 0o100644
TIGHT = Shape(free_blocks=150, journal_blocks=SMALL_JOURNAL_BLOCKS)


def every_flush(seed: int, *, warm: int = 120, actions: int = 40) -> int:
    """A random run without crashes, then crashes everywhere in it: all subsets where they are few."""
    dice = random.Random(seed)
    world = World(TIGHT, seed)
    for word, numbers in random_actions(dice, warm):
        act(world, word, numbers)
    first = world.twin.position
    for word, numbers in random_actions(dice, actions):
        if word != "remount":
            act(world, word, numbers)
    if world.generation:
        first = 0
    world.explore(first)
    return world.judged


def discarded(seed: int) -> int:
    """Blocks of deleted files are told to the disk as unused, a run at a time, and used again as soon as possible."""
    world = World(replace(TIGHT, discard=True), seed)
    twin = world.twin
    for turn in range(3):
        ino = twin.create(ROOT, b"data", FILE)
        assert ino is not None
        for piece in range(4):
            twin.write(ino, piece * 20_000, pattern(turn, 5000))
        twin.sync()
        record = twin.driver.run(attributes.getattr, twin.volume, ino)
        freed = int.from_bytes(record.entries[0][1][:8], "little")
        first = twin.position
        twin.unlink(ROOT, b"data")
        twin.forget(ino)
        twin.driver.collect()
        twin.driver.begin_commit()
        other = twin.create(ROOT, b"meanwhile-%d" % turn, FILE)
        assert other is not None
        while twin.driver.committing is not None:
            if isinstance(twin.driver.committing.request, Discard) and not twin.model.nodes[other].size:
                # the blocks of the file's end are told first
                _write_to(world, other, [freed, freed + 1])
            twin.driver.committing.step()
        assert any(isinstance(record, DiscardRecord) for record in twin.device.records[first:])
        twin.sync()
        twin.verify()
        world.explore(first)
    return world.judged


def little_memory(seed: int) -> int:
    """Hardly any memory: what is clean is evicted and read again all the time, what is dirty must stay."""
    dice = random.Random(seed)
    world = World(replace(TIGHT, memory_bytes=48 << 10), seed)
    twin = world.twin
    for turn in range(3):
        for number in range(30):
            ino = twin.create(ROOT, b"%d-%d" % (turn, number), FILE)
            if ino is not None and number % 3 == 0:
                twin.setxattr(ino, b"user.0", pattern(number, 1500))
        for ino in dice.sample(sorted(twin.lookups), 10):
            twin.setattr(ino, mode=0o600)
        twin.driver.begin_commit()
        for ino in dice.sample(sorted(twin.lookups), 10):
            twin.setattr(ino, mode=0o640)
        twin.driver.finish_jobs()
    assert twin.volume.store.cache.evicted_total > 20
    twin.sync()
    twin.verify()
    world.explore(limits=Limits(torn=4))
    return world.judged


def full_log(seed: int, turns: int = 5) -> int:
    """The log is filled, brought home, and at once overwritten by a large transaction; crashes around that."""
    world = World(Shape(journal_blocks=SMALL_JOURNAL_BLOCKS), seed)
    twin, dice = world.twin, random.Random(seed)
    files = [ino for i in range(40) if (ino := twin.create(ROOT, b"%d" % i, FILE)) is not None]
    journal = twin.volume.store.journal
    overwritten = 0
    for turn in range(turns):
        twin.driver.checkpoint()
        while journal.used < journal.blocks - journal.transaction_blocks_max + 8:
            _large_transaction(world, dice.sample(files, 40), turn)
        first, left = twin.position, journal.blocks - journal.used
        twin.driver.checkpoint()
        _large_transaction(world, dice.sample(files, 40), turn)
        overwritten += journal.used > left
        world.explore(first)
    assert overwritten > turns // 2, "the log was not full enough to be overwritten"
    twin.verify()
    return world.judged


def _large_transaction(world: World, files: list[int], turn: int) -> None:
    """As much metadata as one transaction takes, without file data, so that one barrier is enough."""
    journal = world.twin.volume.store.journal
    for ino in files:
        if journal.running_blocks > journal.transaction_blocks_max - 4:
            break
        world.twin.setxattr(ino, b"user.0", pattern(turn, 700))
    world.twin.sync()


def reuse_during_checkpoint(held_steps: int, *, keep_log: bool = False) -> int:
    """Metadata blocks are freed and given to a file while a checkpoint is on its way, stopped after so many steps."""
    world = World(TIGHT, held_steps)
    twin = world.twin
    ino, other = _attributes_in_blocks(world)
    freed = attribute_blocks(world)
    twin.driver.begin_checkpoint(keep_log=keep_log)
    for _ in range(held_steps):
        if twin.driver.checkpointing is not None:
            twin.driver.checkpointing.step()
    twin.removexattr(ino, b"user.0")
    first = twin.position
    twin.sync()
    _write_to(world, other, freed)
    twin.driver.begin_commit()
    twin.driver.finish_jobs()
    twin.verify()
    world.explore(first)
    return world.judged


def reuse_with_images_in_the_log() -> int:
    """Metadata blocks are freed and given to a file while the log still holds their images; crashes, a checkpoint."""
    world = World(TIGHT, 1)
    twin = world.twin
    ino, other = _attributes_in_blocks(world)
    freed = attribute_blocks(world)
    twin.removexattr(ino, b"user.0")
    twin.sync()
    _write_to(world, other, freed)
    record = twin.driver.run(attributes.getattr, twin.volume, other)
    assert record.entries[0][1][:8] == freed[0].to_bytes(8, "little"), "the freed blocks were not used again"
    twin.sync()
    world.explore(twin.position)
    twin.driver.checkpoint()
    twin.verify()
    world.explore()
    return world.judged


def freed_during_commit(held_steps: int) -> int:
    """Metadata blocks are freed while the transaction that made them is being committed, stopped after so many steps,
    and given to a file while the log still holds what they were.
    """
    world = World(TIGHT, held_steps)
    twin = world.twin
    ino = twin.create(ROOT, b"attributes", FILE)
    other = twin.create(ROOT, b"data", FILE)
    assert ino is not None and other is not None
    twin.sync()
    twin.setxattr(ino, b"user.0", pattern(1, 6000))
    running = twin.volume.store.journal.running.images
    freed = sorted(address for address, block in running.items() if isinstance(block, XattrBlock))
    twin.driver.begin_commit()
    assert twin.driver.committing is not None
    for _ in range(held_steps):
        twin.driver.committing.step()
    first = twin.position
    twin.removexattr(ino, b"user.0")
    twin.driver.finish_jobs()
    twin.sync()
    _write_to(world, other, freed)
    twin.sync()
    twin.driver.checkpoint()
    twin.verify()
    world.explore(first)
    return world.judged


def _attributes_in_blocks(world: World) -> tuple[int, int]:
    """A file with attributes in blocks of their own, whose images are in the log and not at home; and an empty file."""
    twin = world.twin
    ino = twin.create(ROOT, b"attributes", FILE)
    other = twin.create(ROOT, b"data", FILE)
    assert ino is not None and other is not None
    twin.setxattr(ino, b"user.0", pattern(1, 6000))
    twin.sync()
    return ino, other


def attribute_blocks(world: World) -> list[int]:
    """Blocks whose images in the log hold attributes."""
    pending = world.twin.volume.store.journal.pending_home
    return sorted(address for address, (_, block) in pending.items() if isinstance(block, XattrBlock))


def _write_to(world: World, ino: int, blocks: list[int]) -> None:
    """Write as much as fits into `blocks`, which the allocator is made to look at first."""
    world.twin.volume.store.space.cursor = blocks[0]
    world.twin.write(ino, 0, pattern(2, len(blocks) * world.shape.block_size))


def data_in_place(seed: int) -> int:
    """Synced files are overwritten, cut in the middle of a block and extended again, with crashes before anything of it
    is durable, and extended after the recovery.
    """
    total = 0
    for target in (100, 1500, 2048, 2500):
        world = World(TIGHT, seed)
        twin = world.twin
        ino = twin.create(ROOT, b"data", FILE)
        assert ino is not None
        twin.write(ino, 0, pattern(1, 2600))
        twin.fsync(ino)
        first = twin.position
        twin.write(ino, 500, pattern(2, 700))
        twin.truncate(ino, target)
        twin.write(ino, target + 30, pattern(3, 900))
        twin.write(ino, twin.model.nodes[ino].size, pattern(4, 5000))
        world.explore(first)
        world.go_on_from(world.cut(twin.position, keep_all).image)
        world.twin.truncate(ino, world.twin.model.nodes[ino].size + 3000)
        world.twin.verify()
        total += world.judged
    return total


def nothing_old_shows(seed: int) -> int:
    """Bytes past the end of a file, and blocks that held another file, read as zeros once the file covers them."""
    total = 0
    for grow in (3000, 200, 1):
        world = World(TIGHT, seed)
        ino = world.twin.create(ROOT, b"data", FILE)
        assert ino is not None
        world.twin.write(ino, 0, pattern(1, 2600))
        world.twin.fsync(ino)
        world.twin.write(ino, 2600, pattern(2, 300))
        world.go_on_from(world.cut(world.twin.position, keep_all).image)
        twin = world.twin
        assert twin.model.nodes[ino].size == 2600
        if grow > 1000:
            twin.truncate(ino, 2600 + grow)
        else:
            twin.write(ino, 2600 + grow, b"end")
        twin.verify()
        first = twin.driver.run(attributes.getattr, twin.volume, ino).entries[0][1]
        twin.unlink(ROOT, b"data")
        twin.driver.collect()
        twin.sync()
        ino = twin.create(ROOT, b"other", FILE)
        assert ino is not None
        twin.volume.store.space.cursor = int.from_bytes(first[:8], "little")
        twin.write(ino, 700, pattern(3, 500))
        twin.verify()
        world.explore()
        total += world.judged
    return total


def recovery_to_its_end(seed: int) -> int:
    """One crash image with a long log, and crashes in its recovery, and in the recoveries of those."""
    dice = random.Random(seed)
    world = World(TIGHT, seed)
    for word, numbers in random_actions(dice, 150, checkpoints=False):
        act(world, word, numbers)
    twin = world.twin
    delete_everything(world)
    for number in range(8):
        ino = twin.create(ROOT, b"%d" % number, FILE)
        assert ino is not None
        twin.setxattr(ino, b"user.0", pattern(number, 1500))
        twin.write(ino, 0, pattern(number, 2000))
    twin.sync()
    assert twin.volume.store.journal.used > 16, "the log is short"
    tally = world.explore(twin.position, limits=Limits(torn=200, within=600))
    assert tally.within > 100
    return world.judged


def everything_deleted(seed: int) -> int:
    """After a long run, everything is deleted: the space is that of a new filesystem."""
    dice = random.Random(seed)
    world = World(TIGHT, seed)
    before = free_blocks(world)
    for word, numbers in random_actions(dice, 400, crashes_percent=1):
        act(world, word, numbers)
    delete_everything(world)
    assert free_blocks(world) == before
    assert list(world.twin.model.nodes) == [ROOT]
    world.explore(world.twin.position)
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
