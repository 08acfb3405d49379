"""Sweeps over what background tasks do by themselves: nothing begins in here but what the engine says is due. So a wait
that nothing is asked for never ends, and what should be done ahead of operations is seen when one has to wait."""

from __future__ import annotations

import random
from dataclasses import replace

from deferfs.crash import standing
from deferfs.crash.actions import act
from deferfs.crash.explorer import Limits
from deferfs.crash.model import ROOT
from deferfs.crash.runs import random_actions
from deferfs.crash.stepping import SteppingDriver
from deferfs.crash.twin import Twin
from deferfs.crash.world import SHORT_JOURNAL_BLOCKS, Shape, World, pattern
from deferfs.limits import CLEANUP_DIRTY_FRACTION, WRITE_BACK_FRACTION
from deferfs.volume import attributes
from deferfs.volume.waits import Granted, LessDirty, Wait
from deferfs.volume.write_back import LOOK_OPERATIONS
from tests.property.debt_sweeps import STRICT, hand_over, owing
from tests.property.spill_sweeps import require
from tests.property.sweeps import FILE
from tests.property.waiting_sweeps import delete, write_whole

FEW = Limits(torn=2, states_per_epoch=12, within=4)
STEPS = 1 << 16
"""Enough for any job."""
SHAPE = Shape(free_blocks=600, journal_blocks=SHORT_JOURNAL_BLOCKS)
_WAITING = frozenset(
    {"stand_create", "stand_unlink", "stand_setattr", "stand_truncate", "stand_write", "stand_fsync", "stand_sync"}
    | {"create", "write", "remove", "setxattr", "removexattr", "fsync", "write_back", "go_on", "go_on_all"}
)


def keep_up(driver: SteppingDriver) -> None:
    """The background tasks come to rest: nothing is due any more."""
    write_back = driver.engine.write_back
    for _ in range(STEPS):
        if not (write_back.commit_asked or write_back.checkpoint_asked):
            return
        if write_back.commit_asked:
            driver.turn_of_commits(STEPS)
        if write_back.checkpoint_asked:
            driver.turn_of_checkpoints(STEPS)
    require(False, "the background tasks never come to rest")


def require_asked(driver: SteppingDriver) -> None:
    """What gives log space is under way or asked for, while an operation waits for some."""
    journal, write_back = driver.volume.store.journal, driver.engine.write_back
    if journal.grants and journal.aborted is None:
        commits = journal.running.empty or write_back.commit_asked or driver.committing is not None
        require(commits, "an operation waits for log space, and no commit is asked for")
        comes_home = not journal.committed or write_back.checkpoint_asked or driver.checkpointing is not None
        require(comes_home, "an operation waits for log space, and no checkpoint is asked for")


def make_files(twin: Twin, count: int) -> list[int]:
    return [ino for number in range(count) if (ino := twin.create(ROOT, b"%d" % number, FILE)) is not None]


def _noted_waits(driver: SteppingDriver) -> list[type[Wait]]:
    """The kinds of waits that begin from now on."""
    seen: list[type[Wait]] = []
    begins = driver.begins

    def note(wait: Wait) -> None:
        seen.append(type(wait))
        begins(wait)

    driver.begins = note  # type: ignore[method-assign]
    return seen


def written_back(seed: int) -> int:
    """Commits and checkpoints begin when they are due alone. Where they can keep up, no operation waits for them; where
    requests wait, each wait ends, in whatever order the two tasks get their turns."""
    judged = sum(map(_ahead_of_operations, (64 << 20, 400 << 10)))
    _until_all_is_home(seed)
    _large_operations_share_the_log(seed)
    _freed_blocks_are_wanted(seed)
    for turn in range(12):
        dice = random.Random(f"{seed} {turn}")
        shape = replace(
            SHAPE,
            free_blocks=150,
            evict=("deferred", "inline")[turn % 2],
            memory_bytes=dice.choice((64 << 20, 160 << 10, 32 << 10)),
        )
        world = World(shape, seed + turn)
        for word, numbers in random_actions(dice, 120, large=True, blocking_too=True, words=_WAITING):
            act(world, word, numbers)
            require_asked(world.twin.driver)
        world.twin.verify()
        if not turn % 6:
            world.twin.driver.finish_jobs()
            world.explore(limits=FEW)
        judged += world.judged
    return judged


def _ahead_of_operations(memory_bytes: int) -> int:
    """Small changes, with a turn for the background tasks after each."""
    world = World(replace(SHAPE, journal_blocks=256, memory_bytes=memory_bytes))
    twin, driver, store = world.twin, world.twin.driver, world.twin.volume.store
    files = make_files(twin, 200)
    twin.sync()
    driver.checkpoint()
    seen = _noted_waits(driver)
    most = store.memory.limit_bytes // WRITE_BACK_FRACTION
    over = 0
    for turn in range(600):
        twin.setattr(files[turn * 7 % len(files)], mode=0o400 + turn % 0o100)
        if turn % 50 == 0:
            twin.setxattr(files[turn % len(files)], b"user.0", pattern(turn, 3000))
        keep_up(driver)
        over = over + 1 if store.dirty_bytes > most else 0
        require(over <= 2 * LOOK_OPERATIONS, "memory stays dirty, and nothing is asked for")
    require(Granted not in seen, "an operation waits for the log, which commits and checkpoints ahead would have given")
    require(LessDirty not in seen, "an operation waits for dirty memory, which was to go home ahead of it")
    twin.verify()
    return world.judged


def _until_all_is_home(seed: int) -> None:
    """A wait for clean memory is for what is committed already, or not yet; the log keeps it where it has room."""
    twin = World(replace(SHAPE, journal_blocks=256), seed).twin
    driver, store = twin.driver, twin.volume.store
    files = make_files(twin, 4)
    for turn in range(6):
        twin.setattr(files[turn % 4], mode=0o600 + turn)
        if turn % 2:
            driver.commit()
        driver.drive(driver.engine.durability.less_dirty(0))
        require(not store.dirty_bytes, "a wait for clean memory ends, and some is dirty")
    require(not store.journal.checkpoints_total, "the tail of the log is moved, and there is space in it")


def _large_operations_share_the_log(seed: int) -> None:
    """Two operations that do not fit into one transaction wait, beside what others have changed: for a commit each."""
    twin = World(replace(SHAPE, journal_blocks=256), seed).twin
    driver, journal = twin.driver, twin.volume.store.journal
    files = make_files(twin, 70)
    twin.sync()
    driver.checkpoint()
    keep_up(driver)
    for ino in files[:60:2]:
        twin.setattr(ino, mode=0o600)
    twin.setxattr(files[61], b"user.large", pattern(61, 9_000))
    require(not driver.engine.write_back.commit_asked, "a commit is asked for, of less than half a transaction")
    for ino, length in ((files[65], 39_000), (files[69], 41_000)):
        standing.setxattr(twin, ino, b"user.large", pattern(ino, length))
        require_asked(driver)
    require(len(journal.grants) == 2, "large operations do not wait for the log")
    for _ in range(20):
        require_asked(driver)
        driver.turn_of_checkpoints(STEPS)
        driver.turn_of_commits(STEPS)
        while driver.step_any():
            require_asked(driver)
    driver.finish_standing()
    twin.verify()


def _freed_blocks_are_wanted(seed: int) -> None:
    """A disk is full but for what was freed and is not committed."""
    twin = World(replace(SHAPE, free_blocks=150), seed).twin
    blocks = attributes.statfs(twin.volume).available - 20
    ino = write_whole(twin, b"large", blocks)
    twin.sync()
    keep_up(twin.driver)
    delete(twin, b"large", ino)
    twin.driver.collect()
    keep_up(twin.driver)
    require(bool(twin.volume.store.space.pending_blocks), "what was freed is committed already")
    write_whole(twin, b"next", blocks)
    twin.verify()


# --- access times ---
def paid_when_due(seed: int) -> int:
    """Access times are paid when that is due alone: those of half a table, down to a quarter, one part of the table
    after the other; all of them when they are old, or their end is waited for. None while inodegc rests."""
    world, inos = owing(replace(STRICT, memory_bytes=8 << 20), seed)
    twin, driver = world.twin, world.twin.driver
    debts, payment = twin.volume.inodes.debts, driver.engine.payment
    first = twin.position
    debts.count_max = 2 * len(inos)
    driver.reclaim(0)
    require(not payment.due, "a payment is due, and few inodes owe")
    _each_is_paid_in_turn(world, inos)
    _owe_again(world, inos)
    driver.drive(driver.engine.cleanup.stop())
    require(not payment.due, "a payment is due while inodegc rests")
    driver.engine.cleanup.resume()
    require(payment.due, "inodegc goes on, and no payment does")
    driver.turn_of_payments(STEPS)
    require(not debts.count, "the end of payment is waited for, and some inodes owe")
    _owe_again(world, inos)
    payment.asked = False
    driver.turn_of_payments(STEPS, late=True)
    require(not debts.count, "old debts are not paid")
    _room_is_wanted(world, inos)
    _within_its_share(world, inos)
    twin.check_access_times()
    twin.verify()
    act(world, "unmount", ())
    world.explore(first, limits=FEW)
    return world.judged


def _owe_again(world: World, inos: list[int]) -> None:
    twin = world.twin
    for ino in inos:
        if ino not in twin.lookups:
            twin.look_up(ino)
        twin.access(ino)
        twin.forget(ino)
    hand_over(world)


def _each_is_paid_in_turn(world: World, inos: list[int]) -> None:
    """The table is half full again and again, and those that are paid owe again at once."""
    driver, debts = world.twin.driver, world.twin.volume.inodes.debts
    payment = driver.engine.payment
    debts.count_max = 2 * len(inos) - 1
    unpaid = set(inos)
    for _ in range(4):
        _owe_again(world, inos)
        require(payment.due, "half of the table of debts is in use, and no payment is due")
        driver.turn_of_payments(STEPS)
        left = set(debts.debtors(0, debts.slots))
        require(len(left) <= debts.count_max // 4, "more than a quarter of the table is left of what was due")
        require(len(left) > 0, "debts are paid that others of their blocks may join")
        unpaid &= left
    require(not unpaid, "some debts are never paid, and others again and again")


def _room_is_wanted(world: World, inos: list[int]) -> None:
    """An operation waits for an entry in the table."""
    driver, debts = world.twin.driver, world.twin.volume.inodes.debts
    _owe_again(world, inos)
    debts.count_max = debts.count
    driver.engine.payment.asked = False
    waiting = driver.begin("slot", driver.engine.cleanup.wait_for_debt_slot())
    require(waiting.wait is not None, "a full table of debts is not waited for")
    require(driver.engine.payment.due, "an operation waits for a slot of the table of debts, and no payment is due")
    driver.turn_of_payments(STEPS)
    require(driver.step(waiting), "a payment frees no slot of the table")


def _within_its_share(world: World, inos: list[int]) -> None:
    """Memory is small, and a payment does not make more of it dirty than cleanup may."""
    twin, driver, store = world.twin, world.twin.driver, world.twin.volume.store
    _owe_again(world, inos)
    twin.sync()
    driver.bring_home()
    store.memory.set_limit(8 * CLEANUP_DIRTY_FRACTION * store.fmt.block_size)
    for _ in range(20 * len(inos)):
        driver.turn_of_payments(1, late=True)
        require(store.dirty_bytes <= 12 * store.fmt.block_size, "a payment makes more dirty than its share")
        payer = driver.background("payer")
        if payer is None:
            break
        if payer.wait is not None and not payer.wait.over():
            driver.help_others()
    require(not twin.volume.inodes.debts.count, "a payment that waits for write-back never ends")
    driver.finish_standing()
    store.memory.set_limit(world.shape.memory_bytes)
