"""Sweeps over what ends: cleanups that fail, callers that are held back, a freeze, the last close, a mount. Operations
stand at their waits while the others go on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from deferfs.crash import standing
from deferfs.crash.actions import act
from deferfs.crash.exploration import EVICT_MODES
from deferfs.crash.explorer import Limits
from deferfs.crash.model import ROOT, differences
from deferfs.crash.stepping import SteppingDriver
from deferfs.crash.steps import Standing
from deferfs.crash.twin import Twin
from deferfs.crash.world import World, pattern
from deferfs.errors import FsError
from deferfs.limits import INACTIVATION_RETRIES_MAX
from deferfs.reclaim.states import State
from deferfs.store.plan import Plan
from deferfs.volume import attributes
from deferfs.volume.cleanup import Cleanup
from deferfs.volume.driver import Driver
from deferfs.volume.inactivation import Inactivation
from tests.property.spill_sweeps import require
from tests.property.sweeps import FILE, TIGHT
from tests.property.waiting_sweeps import delete, deleted_files, explored

_SOME = Limits(torn=6)
BLOCK = 1024


# --- failed cleanups ---
@contextmanager
def _failing(times: dict[int, int]) -> Iterator[None]:
    """The cleanup of these inodes fails so many times."""
    step = Inactivation.step

    def failing(inactivation: Inactivation, plan: Plan) -> bool:
        ino = inactivation.inode.ino
        if times.get(ino):
            times[ino] -= 1
            raise FsError(errno.EIO, "planned")
        return step(inactivation, plan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inactivation, "step", failing)
        yield


def _remounted(world: World) -> None:
    before = world.twin.model.nodes
    world.twin.unmount()
    world.go_on_from(world.twin.device.read(0, world.twin.device.size))
    lines = differences(world.twin.model.nodes, before)
    require(not lines, f"mounted again, and {lines[:3]}")


def cleanups_fail(seed: int) -> int:
    """Some for a while: these are tried again. Some for good: these are in quarantine, at the next mount too, until
    they are let go."""
    judged = 0
    for turn, evict in enumerate(("deferred", "inline")):
        world = World(replace(TIGHT, evict=evict), seed)
        inos = deleted_files(world.twin, 4)
        for_good, once = inos[0], inos[1]
        with _failing({for_good: 1 << 20, once: 1 + turn}):
            for number, ino in enumerate(inos):
                delete(world.twin, b"%d" % number, ino)
            for _ in range(2 * INACTIVATION_RETRIES_MAX):
                world.twin.driver.collect()
                world.twin.volume.gc.retry_now()
            left = set(world.twin.model.nodes) - {ROOT}
            require(left == {for_good}, f"of the deleted files {left} are left, not {for_good} alone")
            _require_quarantined(world.twin, for_good)
            _remounted(world)
            _require_quarantined(world.twin, for_good)
            world.twin.driver.collect()
            _require_quarantined(world.twin, for_good)
        _remounted(world)
        _require_quarantined(world.twin, for_good)
        twin = world.twin
        twin.driver.drive(twin.driver.engine.cleanup.release_quarantine())
        twin.driver.drive(twin.driver.engine.freezing.unmount(0.0))  # before it is cleaned up
        world.go_on_from(twin.device.read(0, twin.device.size))
        twin = world.twin
        twin.driver.collect()
        require(set(twin.model.nodes) == {ROOT}, "what was let go out of quarantine is not cleaned up")
        _remounted(world)
        require(not world.twin.volume.inodes.table.get(for_good), "it is back in quarantine")
        judged += explored(world)
    return judged


def _require_quarantined(twin: Twin, ino: int) -> None:
    inode = twin.volume.inodes.table.get(ino)
    require(inode is not None and inode.state is State.QUARANTINED, f"inode {ino} is not in quarantine")


# --- throttling ---
def throttled(seed: int) -> int:
    """Deletes are held back by the backlog, let go in the order in which they came as it becomes shorter, and all of
    them when inodegc is to rest."""
    world = World(TIGHT, seed)
    twin, driver = world.twin, world.twin.driver
    cleanup, throttle = driver.engine.cleanup, driver.engine.throttle
    for stops in (False, True):
        inos = deleted_files(twin, 9)
        throttle.inodes = 1
        for number, ino in enumerate(inos[:4]):
            delete(twin, b"%d" % number, ino)
        gone: list[int] = []
        for number, ino in enumerate(inos[4:], 4):
            if ino in twin.lookups:
                twin.forget(ino)
            standing.unlink(twin, ROOT, b"%d" % number)
        waits = [task for task in driver.standing if task.name.startswith("unlink")]
        require(len(waits) == 5 == throttle.waiting, "deletes are not held back by a backlog that is too long")
        if stops:
            driver.begin("stop", cleanup.stop())
            require(all(driver.step(task) for task in waits), "inodegc rests, and deletes wait for it")
            cleanup.resume()
        else:
            _let_go_in_order(world, waits, gone)
        driver.finish_standing()
        require(throttle.expired_total == 0, "a delete was not let go before its time")
        driver.collect()
        twin.verify()
    return explored(world)


def _let_go_in_order(world: World, waits: list[Standing], gone: list[int]) -> None:
    driver = world.twin.driver
    for _ in range(200):
        ready = [number for number, task in enumerate(waits) if task.wait is None or task.wait.over()]
        require(ready == list(range(len(ready))), f"deletes {ready} are let go before others that came earlier")
        if len(ready) == len(waits):
            return
        act(world, "inactivation_step", (0, 0))
        for number in ready:
            driver.step(waits[number])
    require(False, "the backlog is gone, and deletes wait for it")


# --- freezing ---
def _scatter(twin: Twin, ino: int) -> None:
    """Give the file so many extents that its cleanup takes several transactions."""
    for index in range(100):
        twin.write(ino, 2 * index * BLOCK, pattern(index, 60))


def frozen(seed: int) -> int:
    """A volume is frozen while cleanups and writes are under way, stays as it is, and is thawed; then everything goes
    on, and a crash finds an image that is in use. inodegc cannot be started meanwhile; if it was stopped by request
    before, it is stopped after the thaw."""
    judged = 0
    for turn in range(4):
        world = World(replace(TIGHT, evict=EVICT_MODES[(seed + turn) % 2], free_blocks=600), seed + turn)
        twin, driver = world.twin, world.twin.driver
        inos = deleted_files(twin, 6)
        _scatter(twin, inos[0])
        for number in range(3):
            twin.unlink(ROOT, b"%d" % number)
            if inos[number] in twin.lookups:
                standing.forget(twin, inos[number])
        act(world, "inactivation_step", (0, 2))
        act(world, "inactivation_step", (1, 2))
        twin.setattr(inos[5], mode=0o611)
        cleanup, stops = driver.engine.cleanup, turn % 2 == 1
        if stops:
            driver.begin("stop", cleanup.stop())
        standing.freeze(twin)
        standing.write(twin, inos[4], 0, pattern(turn, 2000))
        kept = [_is_kept_stopped(cleanup)]
        for _ in range(turn):
            driver.step_any()
        standing.setattr(twin, inos[5], 0o640)
        while driver.is_switching:
            require(driver.step_any() or driver.help_others(), "a freeze never ends")
        require(twin.volume.store.frozen, "not frozen")
        kept.append(_is_kept_stopped(cleanup))
        standing.thaw(twin)
        driver.finish_standing()
        require(all(kept), "inodegc is started during a freeze")
        require(cleanup.stopped is stops, "a thaw changes what was asked of inodegc before")
        if stops:
            cleanup.resume()
        twin.setattr(inos[5], mode=0o600)
        twin.sync()
        driver.collect()
        twin.verify()
        require(not twin.volume.gc.backlog, "a cleanup was forgotten")
        _require_no_orphans(twin)
        world.explore(limits=_SOME)
        judged += world.judged
    return judged


def _is_kept_stopped(cleanup: Cleanup) -> bool:
    """Whether inodegc is stopped, and a request to start it is refused."""
    with suppress(FsError):
        cleanup.resume()
        return False
    return cleanup.stopped


def _require_no_orphans(twin: Twin) -> None:
    deleted = [ino for ino, node in twin.model.nodes.items() if not node.nlink and ino not in twin.lookups]
    require(not deleted, f"the deleted files {deleted} are forgotten")


# --- the last close ---
def closed(seed: int) -> int:
    """The last handle of a deleted file, and of one with blocks past EOF, is closed: either is taken back."""
    judged = 0
    for evict in ("deferred", "inline"):
        world = World(replace(TIGHT, evict=evict, free_blocks=600), seed)
        twin, driver = world.twin, world.twin.driver
        free = attributes.statfs(twin.volume).free
        for name in (b"deleted", b"growing"):
            ino = twin.create(ROOT, name, FILE)
            assert ino is not None
            twin.open(ino)
            for turn in range(12):
                twin.write(ino, turn * 8 * BLOCK, pattern(turn, 8 * BLOCK))
        twin.unlink(ROOT, b"deleted")
        for ino in sorted(twin.lookups):
            twin.forget(ino)
        while twin.handles:
            standing.release(twin, 0)
        driver.finish_standing()
        driver.trim()
        driver.collect()
        twin.sync()
        _require_no_orphans(twin)
        held = free - attributes.statfs(twin.volume).free
        require(held <= 12 * 8 + 4, f"{held} blocks are in use, for a file of 96")
        twin.verify()
        judged += explored(world)
    return judged


# --- unmount ---
def _go_first(driver: SteppingDriver, task: Standing) -> None:
    """A task goes on to its end, and others only where it waits for them."""
    while task.wait is not None:
        if not driver.step(task) and not Driver.help(driver, task.wait):
            require(driver.step_any(), f"{task.name} never ends")


def unmounted_while_cleaning(seed: int) -> int:
    """A mount ends while cleanups are under way: with time, it does all of them; without, it leaves off between two
    transactions. Either way the image is clean and holds everything."""
    judged = 0
    for drain in (60.0, 0.0):
        for turn in range(3):
            world = World(replace(TIGHT, free_blocks=600), seed + turn)
            twin, driver = world.twin, world.twin.driver
            inos = deleted_files(twin, 4)
            _scatter(twin, inos[0])
            for number in range(3):
                twin.unlink(ROOT, b"%d" % number)
                if number < 2 and inos[number] in twin.lookups:
                    twin.forget(inos[number])
            for step in range(turn):
                act(world, "inactivation_step", (step, 2))
            first = twin.position
            _go_first(driver, driver.begin("unmount", driver.engine.freezing.unmount(drain)))
            driver.finish_standing()
            store = twin.volume.store
            require(store.journal.running.empty and not store.journal.used, "unmounted, and not all is at home")
            before = twin.model.nodes
            world.explore(first, limits=_SOME)
            judged += world.judged
            image = twin.device.read(0, twin.device.size)
            world.go_on_from(image)
            lines = differences(world.twin.model.nodes, before)
            require(not lines, f"mounted again, and {lines[:3]}")
            if drain:
                require(not world.twin.volume.store.orphans.count, "unmounted, and deleted files are left")
    return judged
