"""Sweeps over what is decided while requests wait: the ways to space and log space, cold reads, durability. Operations
stand at their waits while the others go on."""

from __future__ import annotations

import random
from dataclasses import replace

from deferfs.crash import standing
from deferfs.crash.actions import act
from deferfs.crash.explorer import Limits
from deferfs.crash.model import ROOT
from deferfs.crash.runs import random_actions
from deferfs.crash.twin import Twin
from deferfs.crash.world import SHORT_JOURNAL_BLOCKS, Shape, World, pattern
from deferfs.volume import attributes
from deferfs.volume.waits import Cleaned, ReadData
from tests.property.spill_sweeps import require
from tests.property.sweeps import FILE, TIGHT

_SOME = Limits(torn=6)
_FEW = Limits(torn=2, states_per_epoch=12, within=4)
BLOCK = 1024


def requests_wait(seed: int) -> int:
    """Random runs of a mount whose memory, log and disk are small; then crashes everywhere in some of them."""
    judged = 0
    for turn in range(24):
        dice = random.Random(f"{seed} {turn}")
        shape = Shape(
            free_blocks=150,
            journal_blocks=SHORT_JOURNAL_BLOCKS,
            evict=("deferred", "inline")[turn % 2],
            memory_bytes=dice.choice((64 << 20, 160 << 10, 32 << 10)),
        )
        world = World(shape, seed + turn)
        for word, numbers in random_actions(
            dice, 150, large=True, short=turn % 3 == 0, blocking_too=True, background_percent=40
        ):
            if word not in ("crowd", "remount"):
                act(world, word, numbers)
        world.twin.verify()
        if turn % 8 == 0:
            world.explore(limits=_SOME)
        judged += world.judged
    return judged


def explored(world: World) -> int:
    """The crash states judged of all that was done."""
    world.twin.driver.finish_jobs()
    world.explore(limits=_FEW)
    return world.judged


# --- space ---
def write_whole(twin: Twin, name: bytes, blocks: int) -> int:
    """A new file of so many blocks, for which there is space somewhere."""
    ino = twin.create(ROOT, name, FILE)
    require(ino is not None, f"no space for {name!r}")
    assert ino is not None
    _write_to(twin, ino, blocks)
    return ino


def _write_to(twin: Twin, ino: int, blocks: int) -> None:
    twin.write(ino, 0, pattern(blocks, blocks * BLOCK))
    require(twin.model.nodes[ino].size == blocks * BLOCK, "a write is refused space that is to be had")


def freeze(twin: Twin) -> None:
    """Freeze the volume."""
    driver = twin.driver
    standing.freeze(twin)
    while driver.is_switching:
        require(driver.step_any() or driver.help_others(), "a freeze never ends")
    require(twin.volume.store.frozen, "not frozen")


def _fill(twin: Twin) -> tuple[int, int]:
    """A file that takes nearly all there is; its number and blocks."""
    blocks = attributes.statfs(twin.volume).available - 20
    ino = write_whole(twin, b"large", blocks)
    twin.sync()
    twin.driver.checkpoint()
    return ino, blocks


def delete(twin: Twin, name: bytes, ino: int) -> None:
    twin.unlink(ROOT, name)
    if ino in twin.lookups:
        twin.forget(ino)


def deleted_files(twin: Twin, count: int) -> list[int]:
    inos = []
    for number in range(count):
        ino = write_whole(twin, b"%d" % number, 3)
        inos.append(ino)
    twin.sync()
    return inos


def space_is_found(seed: int) -> int:
    """A disk is full, and space comes from where some is left: frees that are not committed, files that wait for
    inodegc, blocks past EOF; while it is frozen, from the thaw. What does not fit is written in part, and told so."""
    judged = 0
    for evict in ("deferred", "inline"):
        for later in ("", "frozen", "standing"):
            world = World(replace(TIGHT, evict=evict), seed)
            twin = world.twin
            ino, blocks = _fill(twin)
            after = twin.create(ROOT, b"next", FILE)
            filler = twin.create(ROOT, b"filler", FILE)
            assert after is not None
            assert filler is not None
            twin.write(filler, 0, pattern(1, 40 * BLOCK))
            delete(twin, b"large", ino)
            if later == "frozen":
                freeze(twin)
            if later == "standing":
                act(world, "inactivation_step", (0, 0))
            _write_to(twin, after, blocks - 4)
            twin.verify()
            judged += explored(world)
        _as_a_freeze_begins(replace(TIGHT, evict=evict), seed)
        _past_eof(replace(TIGHT, evict=evict), seed)
        _more_than_fits(replace(TIGHT, evict=evict), seed)
    return judged


def _as_a_freeze_begins(shape: Shape, seed: int) -> None:
    """An operation waits for inodegc, which leaves off for a freeze."""
    twin = World(shape, seed).twin
    driver = twin.driver
    ino, _ = _fill(twin)
    after, filler = twin.create(ROOT, b"next", FILE), twin.create(ROOT, b"filler", FILE)
    assert after is not None
    assert filler is not None
    twin.volume.set_policy("deferred")
    delete(twin, b"large", ino)
    twin.write(filler, 0, pattern(1, 40 * BLOCK))
    delete(twin, b"filler", filler)
    twin.driver.collect()
    large = write_whole(twin, b"large", attributes.statfs(twin.volume).available - 2)
    filler = twin.create(ROOT, b"filler", FILE)
    assert filler is not None
    twin.write(filler, 0, pattern(1, 40 * BLOCK))
    twin.sync()
    delete(twin, b"large", large)
    driver.begin_inactivation()
    standing.setxattr(twin, after, b"user.a", bytes(3000))
    change = driver.standing[-1]
    require(isinstance(change.wait, Cleaned), "an operation does not wait for inodegc")
    standing.freeze(twin)
    driver.step(change)
    while driver.is_switching:
        require(driver.step_any() or driver.help_others(), "a freeze never ends")
    standing.thaw(twin)
    driver.finish_standing()
    require(bool(twin.model.nodes[after].xattrs), "an operation is refused space because of a freeze")
    twin.verify()


def _past_eof(shape: Shape, seed: int) -> None:
    """A file grows until it has speculative blocks, and stays open; another one wants them."""
    twin = World(replace(shape, free_blocks=600), seed).twin
    ino = twin.create(ROOT, b"growing", FILE)
    assert ino is not None
    twin.open(ino)
    for turn in range(12):
        twin.write(ino, turn * 8 * BLOCK, pattern(turn, 8 * BLOCK))
    past = twin.volume.inodes.table[ino].preallocated
    require(past, "no speculative blocks")
    left = attributes.statfs(twin.volume).available
    before = twin.volume.store.space.available
    write_whole(twin, b"rest", max(1, min(left, before) - 4))
    blocks = 4
    for turn in range(40):
        other = twin.create(ROOT, b"s%d" % turn, FILE)
        if other is None:
            break
        twin.write(other, 0, pattern(turn, blocks * BLOCK))
        if twin.model.nodes[other].size < blocks * BLOCK:
            break
    trimmed = not twin.volume.inodes.table[ino].preallocated
    require(trimmed, "a write is refused space while blocks past EOF are kept")
    twin.verify()


def _more_than_fits(shape: Shape, seed: int) -> None:
    twin = World(shape, seed).twin
    ino = twin.create(ROOT, b"too large", FILE)
    assert ino is not None
    twin.write(ino, 0, pattern(1, 300 * BLOCK))
    require(twin.model.nodes[ino].size > 50 * BLOCK, "nothing is written of what fits in part")
    twin.verify()


def log_space_is_shared(seed: int) -> int:
    """Operations wait for log space that another one holds; one of them finds nothing to do when it has it."""
    judged = 0
    for evict in ("deferred", "inline"):
        world = World(replace(TIGHT, evict=evict), seed)
        twin = world.twin
        driver, journal = twin.driver, twin.volume.store.journal
        inos = deleted_files(twin, 4)
        grant = journal.ask(journal.transaction_blocks_max)
        require(journal.serve() == [grant], "the log is not empty")
        for ino in inos[:2]:
            standing.setattr(twin, ino, 0o600)
        for _ in range(2):
            standing.unlink(twin, ROOT, b"3")
        require(len(journal.grants) == 4, "operations do not wait for log space that is not there")
        journal.give_up(grant)
        driver.engine.log_space.serve()
        for task in reversed(driver.standing):
            driver.step(task)
        driver.finish_standing()
        twin.verify()
        judged += explored(world)
    return judged


def cold_reads(seed: int) -> int:
    """An operation waits for blocks that leave memory once more, changed, before it goes on: what it was given then is
    out of date."""
    judged = 0
    for turn in range(6):
        world = World(Shape(free_blocks=600, journal_blocks=SHORT_JOURNAL_BLOCKS), seed + turn)
        twin, driver = world.twin, world.twin.driver
        inos = [ino for number in range(100) if (ino := twin.create(ROOT, b"%d" % number, FILE)) is not None]
        twin.sync()
        driver.checkpoint()
        for ino in sorted(twin.lookups):
            twin.forget(ino)
        far = [ino for ino in inos if ino >= twin.volume.store.fmt.inodes_per_chunk and ino ^ 1 in inos]
        chosen, beside = far[turn], far[turn] ^ 1
        standing.setattr(twin, chosen, 0o611, cold=True)
        require(len(driver.standing) == 1, "nothing has to be read")
        twin.setattr(beside, mode=0o622)
        twin.sync()
        driver.checkpoint()
        twin.evict()
        driver.finish_standing()
        twin.evict()
        twin.verify()
        judged += explored(world) if not turn else 0
    return judged


def stale_reads(seed: int) -> int:
    """A read waits for its data; before that comes, the blocks are freed, and become another file's."""
    judged = 0
    for turn in range(2):
        world = World(replace(TIGHT, free_blocks=150), seed + turn)
        twin = world.twin
        blocks = attributes.statfs(twin.volume).available - 30
        ino = write_whole(twin, b"file", blocks)
        twin.sync()
        standing.read(twin, ino, 1, 2)
        waiting = twin.driver.standing[-1]
        require(isinstance(waiting.wait, ReadData), "nothing has to be waited for")
        twin.truncate(ino, turn)
        twin.sync()
        twin.driver.checkpoint()
        write_whole(twin, b"next", blocks - 3)
        twin.driver.step(waiting)
        twin.driver.finish_standing()
        twin.verify()
        judged += explored(world)
    return judged


# --- durability ---
def durable_when_told(seed: int) -> int:
    """Files change before, during and after the freeze of a commit that is under way; an fsync or a sync that begins at
    any of its steps promises what was there when it began."""
    judged = 0
    for turn in range(8):
        world = World(TIGHT, seed + turn)
        twin, driver = world.twin, world.twin.driver
        files = [twin.create(ROOT, b"%d" % number, FILE) for number in range(3)]
        twin.sync()
        for number, ino in enumerate(files):
            assert ino is not None
            twin.write(ino, 0, pattern(number + turn, 700))
        driver.begin_commit()
        for _ in range(turn):
            if driver.committing is not None:
                driver.committing.step()
        first, second, third = (ino for ino in files if ino is not None)
        standing.fsync(twin, first, data_only=False)
        twin.setattr(second, mode=0o600)
        standing.fsync(twin, second, data_only=False)
        standing.fsync(twin, third, data_only=bool(turn % 2))
        standing.sync(twin)
        twin.write(third, 100, pattern(turn, 3000))
        standing.fsync(twin, third, data_only=True)
        if turn % 2:
            while driver.step_any():
                pass
        while driver.committing is not None:
            driver.committing.step()
        while driver.step_any():
            pass
        driver.finish_standing()
        twin.fsync(first)
        twin.verify()
        world.explore(limits=_SOME)
        judged += world.judged
    return judged
