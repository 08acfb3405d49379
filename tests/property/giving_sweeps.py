"""Sweeps over what background tasks do by themselves, further: memory that comes back, freezes that end, workers that
give way. Nothing begins in here but what the engine says is due."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from deferfs.crash import standing
from deferfs.crash.model import ROOT
from deferfs.crash.stepping import SteppingDriver
from deferfs.crash.twin import Twin
from deferfs.crash.world import World, pattern
from deferfs.device import Fault, Request
from deferfs.errors import FsError
from deferfs.limits import GC_LOOKS_MAX, INODE_COST_BYTES
from deferfs.volume import attributes
from deferfs.volume.shortage import reclaim_goal
from deferfs.volume.waits import Gathered, Paced, StoodBack, Wait
from tests.property.background_sweeps import FEW, SHAPE, STEPS, keep_up, make_files
from tests.property.spill_sweeps import require
from tests.property.sweeps import FILE
from tests.property.waiting_sweeps import delete, freeze, write_whole


# --- memory ---
def memory_comes_back(seed: int) -> int:
    """Memory is reclaimed in the background when that is due alone: clean inodes and blocks, what the kernel holds,
    then what is dirty, when it has come home. An eighth when the kernel is short of memory. Nothing when it is off."""
    world = World(replace(SHAPE, memory_bytes=8 << 20), seed)
    twin, driver = world.twin, world.twin.driver
    reclaim, memory = driver.engine.reclaim, twin.volume.store.memory
    files = make_files(twin, 120)
    twin.sync()
    driver.bring_home()
    _let_reclaim_end(driver)
    _down_to_its_goal(twin)
    require(len(twin.lookups) < len(files), "memory is short, and the kernel is not asked to forget anything")
    memory.set_limit(world.shape.memory_bytes)
    for turn, ino in enumerate(files):
        twin.setattr(ino, mode=0o600 + turn % 8)
    memory.set_limit(memory.used)
    reclaim.look()
    driver.turn_of_reclaim(STEPS)
    require(memory.used > reclaim_goal(memory), "nothing is dirty")
    write_back = driver.engine.write_back
    require(write_back.commit_asked and write_back.checkpoint_asked, "what is dirty is to go, and is not written back")
    keep_up(driver)
    require(reclaim.due, "what was dirty has come home, memory is short, and it is not looked at")
    _let_reclaim_end(driver)
    memory.set_limit(world.shape.memory_bytes)
    _as_the_kernel_asks(twin, files)
    twin.verify()
    world.explore(limits=FEW)
    return world.judged


def _let_reclaim_end(driver: SteppingDriver) -> None:
    for _ in range(100):
        if not driver.engine.reclaim.due and driver.background("reclaimer") is None:
            return
        driver.turn_of_reclaim(STEPS)
        keep_up(driver)
    require(False, "background reclaim never ends")


def _down_to_its_goal(twin: Twin) -> None:
    """Nothing is dirty, and all can go once the kernel lets it."""
    driver, memory, reclaim = twin.driver, twin.volume.store.memory, twin.driver.engine.reclaim
    stays = twin.volume.store.pinned_bytes + memory.accounts["tables"]()
    require(not reclaim.due, "reclaim is due, and there is plenty of memory")
    memory.set_limit((stays + len(twin.lookups) // 2 * INODE_COST_BYTES) * 4 // 3)
    before = memory.used
    reclaim.set_works(False)
    reclaim.look()
    driver.turn_of_reclaim(STEPS)
    require(memory.used == before, "reclaim is switched off, and takes memory")
    reclaim.set_works(True)
    require(reclaim.due, "reclaim is switched on, and does not look")
    driver.turn_of_reclaim(STEPS)
    require(driver.background("reclaimer") is None, "reclaim of clean memory waits for something")
    require(memory.used <= reclaim_goal(memory), "reclaim ends above its goal, and more could go")


def _as_the_kernel_asks(twin: Twin, files: list[int]) -> None:
    driver, memory = twin.driver, twin.volume.store.memory
    twin.sync()
    driver.bring_home()
    for ino in files:
        twin.look_up(ino)
    for number in range(4):
        twin.unlink(ROOT, b"%d" % number)
    for ino in sorted(twin.lookups):
        twin.forget(ino)
    twin.sync()
    driver.bring_home()
    _let_reclaim_end(driver)
    waits = twin.volume.gc.queued
    before = memory.used
    driver.engine.reclaim.under_pressure()
    require(
        driver.engine.cleanup.pushed == bool(waits), "the kernel is short of memory, and what waits is not cleaned up"
    )
    driver.turn_of_reclaim(STEPS)
    require(memory.used <= before * 7 // 8 or not twin.volume.inodes.lru, "the kernel asks for memory, and gets little")
    used = memory.used
    driver.engine.reclaim.set_works(True)
    driver.turn_of_reclaim(STEPS)
    require(memory.used == used, "memory is given back for pressure that is over")


# --- freezing ---
def frozen_too_long(seed: int) -> int:
    """A freeze that nothing ends is ended by its limit, unless there is none; a thaw that fails is tried again later.
    What waited goes on, and a thaw that comes too late is told so."""
    world = World(SHAPE, seed)
    twin, driver = world.twin, world.twin.driver
    freezing = driver.engine.freezing
    ino = twin.create(ROOT, b"file", FILE)
    assert ino is not None
    freezing.limit_seconds = 600
    for failures in range(2):
        freeze(twin)
        standing.setattr(twin, ino, 0o600 + failures)
        driver.now_seconds += 599
        driver.begin_expire(twin.require_broken)
        require(twin.volume.store.frozen, "a freeze is ended before its limit")
        driver.now_seconds += 2
        if failures:
            twin.below.add(Fault(frozenset({Request.WRITE}), sticky=False))
            _expire(twin)
            require(twin.volume.store.frozen, "a freeze ends, and the image is marked clean")
            require(not freezing.overdue, "a thaw that fails is tried again without a pause")
            driver.now_seconds += 600
        require(freezing.overdue, "a freeze has no end")
        _expire(twin)
        require(not twin.volume.store.frozen, "a freeze that is overdue does not end")
        while driver.step_any():
            pass
        require(not driver.standing, "what waited for the end of a freeze does not go on")
        try:
            driver.thaw()
        except FsError as error:
            require("not frozen any more" in error.detail, "a thaw that comes too late is not told so")
    freezing.limit_seconds = 0
    freeze(twin)
    driver.now_seconds += 1e9
    require(not freezing.overdue, "a freeze without a limit has an end")
    driver.thaw()
    twin.verify()
    world.explore(limits=FEW)
    return world.judged


def _expire(twin: Twin) -> None:
    driver = twin.driver
    driver.begin_expire(twin.require_broken)
    while driver.is_switching:
        require(driver.step_any(), "the end of a freeze waits for ever")


# --- workers of inodegc ---
def workers_give_way(seed: int) -> int:
    """While requests stream in, a worker stands back, for a bounded time; not when they pause, nor when cleanup is
    waited for. What is queued gathers, up to a batch, and a batch is as large as the pace lets it be."""
    world = World(SHAPE, seed)
    try:
        _give_way(world)
        world.twin.verify()
    finally:
        world.twin.driver.drop_standing()
    world.explore(limits=FEW)
    return world.judged


def _give_way(world: World) -> None:
    twin, driver = world.twin, world.twin.driver
    workers, cleanup, gc = driver.engine.workers, driver.engine.cleanup, twin.volume.gc
    requests = 0
    workers.requests = lambda: requests
    inos = make_files(twin, 68)
    twin.volume.set_policy("deferred")
    for number, ino in enumerate(inos[:40]):
        delete(twin, b"%d" % number, ino)
    looks = 0
    driver.turn_of_worker(0)
    while (worker := driver.background("worker")) is not None and isinstance(worker.wait, StoodBack):
        require(gc.queued == 40, "a worker begins while requests stream in")
        requests += 1
        looks += 1
        require(looks <= GC_LOOKS_MAX, "a worker stands back for ever")
        driver.step(worker, late=True)
    require(looks == GC_LOOKS_MAX, "a worker does not stand back while requests stream in")
    driver.finish_standing()
    require(not gc.queued, "a worker takes less than a batch, and no pace is set")
    _batches(world, inos[40:])
    _pace(world, inos[60:])
    requests += 1
    delete(twin, b"58", inos[58])
    driver.turn_of_worker(0)
    _require_waits(driver, StoodBack, "a worker does not stand back for a new request")
    cleanup.push()
    worker = driver.background("worker")
    require(worker is not None and driver.step(worker), "a worker stands back from what is waited for")
    driver.finish_standing()
    requests += 1
    delete(twin, b"59", inos[59])
    cleanup.push()
    driver.turn_of_worker(0)
    worker = driver.background("worker")
    stands = worker is not None and isinstance(worker.wait, StoodBack)
    require(not stands, "a worker stands back from what is waited for")
    driver.finish_standing()


def _require_waits(driver: SteppingDriver, kind: type[Wait], problem: str) -> None:
    worker = driver.background("worker")
    require(worker is not None and isinstance(worker.wait, kind), problem)


def _batches(world: World, inos: list[int]) -> None:
    """Of 18 inodes that are queued while no requests come."""
    twin, driver = world.twin, world.twin.driver
    workers, gc = driver.engine.workers, twin.volume.gc
    for number, ino in enumerate(inos[:18], 40):
        delete(twin, b"%d" % number, ino)
    driver.engine.turns.pace.set_rate(40)
    driver.drive(workers.batch(0))
    require(gc.queued == 18 - 4, "a batch is larger than what the pace lets be done in a tenth of a second")
    driver.engine.turns.pace.set_rate(0)
    gathering = next(workers.gather(0), None)
    require(isinstance(gathering, Gathered) and not gathering.over(), "a batch does not gather")
    assert gathering is not None
    gc.hasten([twin.volume.inodes.table[inos[17]]])
    require(gathering.over(), "a batch gathers, and an inode of it is waited for")
    driver.turn_of_worker(STEPS)
    driver.finish_standing()
    require(inos[17] not in twin.volume.inodes.table, "what is waited for is not in the next batch")
    driver.collect()


def _pace(world: World, inos: list[int]) -> None:
    """Of 8 inodes, 40 transactions a second."""
    twin, driver = world.twin, world.twin.driver
    workers, pace = driver.engine.workers, driver.engine.turns.pace
    for number, ino in enumerate(inos[:8], 60):
        delete(twin, b"%d" % number, ino)
    pace.set_rate(40)
    driver.drive(workers.batch(0))  # as many as unused time is credited for
    worker = driver.begin("worker", workers.batch(0))
    while driver.step(worker):
        pass
    require(isinstance(worker.wait, Paced), "a transaction does not wait for the pace")
    driver.engine.cleanup.push()
    require(driver.step(worker), "what is waited for waits for the pace")
    driver.finish_standing()
    pace.set_rate(0)
    driver.collect()


# --- blocks past EOF ---
def trimmed_when_due(seed: int) -> int:
    """A look frees the blocks past EOF of files that have not grown for their lifetime, and of no others, one as well
    when that gets shorter; none while inodegc is stopped. Those of closed files need no look."""
    world = World(replace(SHAPE, free_blocks=1200), seed)
    try:
        _trim(world)
        world.twin.verify()
    finally:
        world.twin.driver.drop_standing()
    world.explore(limits=FEW)
    return world.judged


def _trim(world: World) -> None:
    twin, driver = world.twin, world.twin.driver
    eviction, cleanup = driver.engine.eviction, driver.engine.cleanup
    idle, growing, closed = (_growing(world, name) for name in (b"idle", b"growing", b"closed"))
    _look(driver)
    require(all(_past_eof(world, ino) for ino in (idle, growing, closed)), "what has just grown is trimmed")
    _time_passes(world, eviction.lifetime_seconds)
    for ino in (growing, closed):
        _grow_further(world, ino)
    driver.turn_of_trims(STEPS)
    require(_past_eof(world, idle), "a look is taken before its time")
    driver.drive(cleanup.stop())
    _look(driver)
    require(_past_eof(world, idle), "a file is trimmed while inodegc is stopped")
    cleanup.resume()
    driver.turn_of_trims(STEPS)
    require(not _past_eof(world, idle), "a file that has not grown for long keeps blocks past EOF")
    require(_past_eof(world, growing), "a file that grows is trimmed")
    driver.turn_of_trims(0)
    standing.release(twin, next(number for number, handle in enumerate(twin.handles) if handle.inode.ino == closed))
    driver.turn_of_trims(STEPS)
    require(not _past_eof(world, closed), "a closed file keeps blocks past EOF until a look is due")
    driver.turn_of_trims(0)
    eviction.set_lifetime(1e-9)
    driver.turn_of_trims(STEPS)
    require(not _past_eof(world, growing), "a shorter lifetime takes effect at a later look")


def _look(driver: SteppingDriver) -> None:
    """The time to the next look for idle files passes."""
    driver.turn_of_trims(STEPS, late=True)


def _growing(world: World, name: bytes) -> int:
    """A file that is open and has blocks past EOF."""
    ino = world.twin.create(ROOT, name, FILE)
    assert ino is not None
    world.twin.open(ino)
    while not _past_eof(world, ino):
        _grow(world, ino)
    return ino


def _grow(world: World, ino: int) -> None:
    size = world.twin.model.nodes[ino].size
    require(size < 1 << 18, "a file grows, and has no blocks past EOF")
    world.twin.write(ino, size, pattern(size, 20_000))


def _grow_further(world: World, ino: int) -> None:
    """Until it takes along more blocks past EOF."""
    past_eof = world.twin.volume.past_eof
    file, before_ns = next((key, grown_ns) for key, grown_ns in past_eof.items() if key[0] == ino)
    while past_eof[file] == before_ns:
        _grow(world, ino)


def _past_eof(world: World, ino: int) -> bool:
    return world.twin.volume.inodes.table[ino].preallocated


def _time_passes(world: World, seconds: float) -> None:
    before_ns = world.clock()
    step_ns = world.clock() - before_ns
    world.clock.ahead += ceil(seconds * 1e9 / step_ns)


# --- FORGETs ---
def forgotten_in_slices(seed: int) -> int:
    """A large FORGET message is kept, and counted in slices, with turns for others between them; on a full disk, before
    an operation is refused space."""
    world = World(replace(SHAPE, evict="deferred"), seed)
    twin, driver = world.twin, world.twin.driver
    forgetting, gc = driver.engine.forgetting, twin.volume.gc
    forgetting.keeps, forgetting.at_once = True, 4
    inos = make_files(twin, 22)
    for number in range(22):
        twin.unlink(ROOT, b"%d" % number)
    standing.forget_all(twin, inos[:18])
    require(gc.backlog == 0, "a large message is counted in the handler of it")
    standing.forget_all(twin, inos[18:19])
    counting = driver.begin("forgets", forgetting.count_kept())
    most = gc.backlog
    while counting.wait is not None:
        before = gc.backlog
        driver.step(counting)
        most = max(most, gc.backlog - before)
    require(most <= 4, "a large message is counted in one go")
    require(gc.backlog == 19, "a FORGET is lost")
    driver.collect()
    require(twin.volume.store.orphans.count == 3, "what is forgotten is not cleaned up")
    _kept_on_a_full_disk(seed)
    twin.verify()
    world.explore(limits=FEW)
    return world.judged


def _kept_on_a_full_disk(seed: int) -> None:
    twin = World(replace(SHAPE, free_blocks=150, evict="deferred"), seed).twin
    forgetting = twin.driver.engine.forgetting
    small = make_files(twin, 6)
    blocks = attributes.statfs(twin.volume).available - 20
    ino = write_whole(twin, b"large", blocks)
    twin.unlink(ROOT, b"large")
    twin.sync()
    forgetting.keeps, forgetting.at_once = True, 2
    standing.forget_all(twin, [*small, ino])
    write_whole(twin, b"next", blocks - 4)
    twin.verify()
