"""The workers of inodegc: barriers, stop and resume, failures, and the quarantine that survives a mount."""

from __future__ import annotations

import math
import time
from functools import partial

import pytest
import trio
import trio.testing

from deferfs.check import check_image
from deferfs.device import MemoryDevice
from deferfs.errors import FsError
from deferfs.limits import GC_BATCH, INACTIVATION_RETRIES_MAX
from deferfs.mount.runtime.runtime import Runtime
from deferfs.ondisk.orphan import ORPHAN_QUARANTINED, OrphanBlock
from deferfs.reclaim.gc import InodeGc
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State
from deferfs.store.plan import Plan
from deferfs.volume import namespace
from deferfs.volume.cleanup import Cleanup
from deferfs.volume.driver import Driver
from deferfs.volume.inactivation import Inactivation
from deferfs.volume.throttle import Ticket
from deferfs.volume.waits import Admitted, Task
from tests.unit.runtimes import delete_and_forget, make_file, running, turns
from tests.unit.volumes import DIRECTORY, ROOT, fresh_driver, record_of, reopened

MODES = pytest.mark.parametrize("evict", ["deferred", "inline"])


async def queue_up(runtime: Runtime, count: int, size: int = 5000) -> list[int]:
    """So many deleted files in the queues, while the workers rest."""
    await runtime.workers.stop()
    inos = []
    for number in range(count):
        name = b"old%d" % number
        inos.append(await make_file(runtime, name, b"x" * size))
        await delete_and_forget(runtime, name, inos[-1])
    return inos


def slot_flags(driver: Driver, slot: int) -> int:
    store = driver.volume.store
    number, index = divmod(slot, store.fmt.orphans_per_block)
    address = store.orphans._address(Plan(store), number)
    return Plan(store).get(address, OrphanBlock).slots[index].flags


# --- barriers ---


async def test_a_barrier_for_one_inode_leaves_the_others_their_places() -> None:
    async with running(gc_workers=1) as runtime:
        runtime.engine.turns.turn_ns = -1  # waiting tasks run after every single step
        inos = await queue_up(runtime, 60)
        left: list[int] = []

        async def wait_for(ino: int) -> None:
            await runtime.workers.flush_inode(ino)
            left.append(runtime.volume.gc.backlog)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for, inos[50])
            await trio.testing.wait_all_tasks_blocked()
            runtime.workers.resume()
        assert left[0] > 50
        assert inos[50] not in runtime.volume.inodes.table
        await runtime.workers.flush_inode(inos[50])  # gone: nothing to wait for


async def test_a_barrier_for_what_was_below_a_directory() -> None:
    async with running() as runtime:
        tree = await make_file(runtime, b"tree", mode=DIRECTORY)
        inner = await make_file(runtime, b"inner", parent=tree, mode=DIRECTORY)
        leaf = await make_file(runtime, b"leaf", b"x" * 5000, parent=inner)
        others = await queue_up(runtime, 20)
        await runtime.run(namespace.unlink, runtime.volume, inner, b"leaf")
        await runtime.run(namespace.rmdir, runtime.volume, tree, b"inner")
        await runtime.run(namespace.rmdir, runtime.volume, ROOT, b"tree")
        await runtime.forget([(leaf, 1), (inner, 1)])
        assert runtime.volume.gc.queued == 22
        runtime.workers.resume()
        await runtime.workers.flush_below(tree)
        table = runtime.volume.inodes.table
        assert leaf not in table
        assert inner not in table
        await runtime.forget([(tree, 1)])
        await runtime.workers.flush()
        assert not any(ino in table for ino in (tree, *others))


async def test_a_barrier_and_idle_workers_sleep_while_a_worker_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waking each other until the worker is done, they would take the event loop from it."""
    disk, inactivate = Ticket(), Cleanup.inactivate

    def wait_for_the_disk(cleanup: Cleanup, inode: InCoreInode, *, background: bool, deferred: bool) -> Task[bool]:
        yield Admitted(disk, 0, math.inf)
        return (yield from inactivate(cleanup, inode, background=background, deferred=deferred))

    async with running(gc_workers=3) as runtime:
        gc, cleanup = runtime.volume.gc, runtime.engine.cleanup
        gc.span = 1000  # all in one queue
        await queue_up(runtime, GC_BATCH + 8, 100)
        monkeypatch.setattr(Cleanup, "inactivate", wait_for_the_disk)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.workers.flush)
            runtime.workers.resume()
            await turns(50)
            running_then, depths, steps = gc.running, [queue.depth for queue in gc.queues], [cleanup.steps]
            await turns(50)
            steps.append(cleanup.steps)
            monkeypatch.undo()
            disk.admitted = True
            disk.wake()
        assert running_then == GC_BATCH
        assert sorted(depths) == [0, 0, 8]
        assert steps[0] == steps[1]
        assert runtime.volume.inodes.inactivated_total == GC_BATCH + 8


# --- stop and resume ---


@MODES
@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8, 13, 21])
async def test_queued_inodes_are_neither_run_nor_lost_while_the_pool_stops(evict: str, after: int) -> None:
    async with running(evict=evict) as runtime:
        runtime.engine.turns.turn_ns = -1
        names = [b"f%d" % number for number in range(40)]
        inos = [await make_file(runtime, name, b"x" * 5000) for name in names]
        for name in names:
            await runtime.run(namespace.unlink, runtime.volume, ROOT, name)
        done_at_stop: list[int] = []

        async def stop_and_look() -> None:
            await turns(after)
            await runtime.workers.stop()
            done_at_stop.append(runtime.volume.inodes.inactivated_total)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_and_look)
            for ino in inos:
                await runtime.forget([(ino, 1)])
                await trio.lowlevel.checkpoint()
        await turns()
        table = runtime.volume.inodes.table
        assert runtime.volume.inodes.inactivated_total == done_at_stop[0]
        assert all(table[ino].state is State.QUEUED for ino in inos if ino in table)
        runtime.workers.resume()
        await runtime.workers.flush()
        assert runtime.volume.inodes.inactivated_total == 40
        assert runtime.store.orphans.count == 0


async def test_the_size_of_the_pool_may_change_while_it_works() -> None:
    async with running() as runtime:
        runtime.engine.turns.turn_ns = -1
        await queue_up(runtime, 300, 100)
        runtime.workers.resume()
        for count in (1, 5, 2, 64, 3):
            runtime.workers.set_count(count)
            await turns(5)
        await runtime.workers.flush()
        assert runtime.volume.inodes.inactivated_total == 300
        assert len(runtime.volume.gc.queues) == 3


# --- failures ---


@MODES
async def test_an_inode_that_fails_for_good_is_quarantined_on_disk_and_can_be_released(
    evict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deferfs.reclaim.gc.GC_RETRY_NS", 1)
    driver = fresh_driver(evict=evict)
    step = Inactivation.step
    fails = True

    def failing(self: Inactivation, plan: Plan) -> bool:
        if fails and self.inode.ino == bad:
            raise FsError(5, "this block cannot be read")
        return step(self, plan)

    monkeypatch.setattr(Inactivation, "step", failing)
    async with running(driver=driver, evict=evict, close=False) as runtime:
        bad, good = await make_file(runtime, b"bad", b"x" * 5000), await make_file(runtime, b"good", b"x" * 5000)
        slot = -1
        for name, ino in ((b"bad", bad), (b"good", good)):
            await runtime.run(namespace.unlink, runtime.volume, ROOT, name)
            slot = record_of(runtime.volume, bad).orphan_slot - 1
            await runtime.forget([(ino, 1)])
        await runtime.workers.flush()
        table, gc = runtime.volume.inodes.table, runtime.volume.gc
        assert table[bad].state is State.QUARANTINED
        assert good not in table
        assert (gc.errors_total, gc.quarantined_total) == (INACTIVATION_RETRIES_MAX, 1)
        await runtime.sync()
        assert slot_flags(driver, slot) == ORPHAN_QUARANTINED
        # the next mount leaves it alone, and a check tells
        again = reopened(driver, evict=evict)
        async with running(driver=again, evict=evict) as later:
            await later.workers.flush()
            assert later.volume.inodes.table[bad].state is State.QUARANTINED
            assert later.volume.gc.errors_total == 0
        assert isinstance(again.device, MemoryDevice)
        report = check_image(MemoryDevice.from_bytes(again.device.snapshot()))
        assert [problem.code for problem in report.problems] == ["inode-quarantined"]
        fails = False
        await runtime.workers.release_quarantine()
        await runtime.workers.flush()
        assert bad not in table
        assert runtime.store.orphans.count == 0


async def test_a_failure_that_passes_is_retried_until_it_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deferfs.reclaim.gc.GC_RETRY_NS", 1)
    failures = [3]
    step = Inactivation.step

    def failing(self: Inactivation, plan: Plan) -> bool:
        if failures[0]:
            failures[0] -= 1
            raise FsError(5)
        return step(self, plan)

    monkeypatch.setattr(Inactivation, "step", failing)
    async with running() as runtime:
        await delete_and_forget(runtime, b"f", await make_file(runtime, b"f", b"x" * 5000))
        await runtime.workers.flush()
        assert runtime.volume.gc.errors_total == 3
        assert runtime.volume.gc.quarantined_total == 0
        assert runtime.store.orphans.count == 0


# --- waiting does not keep the loop busy ---


def count_turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often workers have looked for work, in a list of one number."""
    turns_taken = [0]
    take = InodeGc.take

    def counted(self: InodeGc, count_max: int, number: int | None = None) -> list[InCoreInode]:
        turns_taken[0] += 1
        return take(self, count_max, number)

    monkeypatch.setattr(InodeGc, "take", counted)
    return turns_taken


def fail_first(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The first steps of all inactivations fail."""
    failures = [count]
    step = Inactivation.step

    def failing(self: Inactivation, plan: Plan) -> bool:
        if failures[0]:
            failures[0] -= 1
            raise FsError(5)
        return step(self, plan)

    monkeypatch.setattr(Inactivation, "step", failing)


@pytest.mark.parametrize("barrier", ["flush", "flush_inode", "flush_below"])
async def test_a_barrier_sleeps_until_what_has_failed_is_tried_again(
    barrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_first(monkeypatch, 3)
    looks = count_turns(monkeypatch)
    async with running() as runtime:
        runtime.volume.gc.clock = time.perf_counter_ns  # the one of the volume moves only when it is looked at
        folder = await make_file(runtime, b"folder", mode=DIRECTORY)
        ino = await make_file(runtime, b"f", b"x" * 5000, parent=folder)
        await runtime.run(namespace.unlink, runtime.volume, folder, b"f")
        await runtime.forget([(ino, 1)])
        if barrier == "flush":
            await runtime.workers.flush()
        elif barrier == "flush_inode":
            await runtime.workers.flush_inode(ino)
        else:
            await runtime.workers.flush_below(folder)
        assert ino not in runtime.volume.inodes.table
        assert runtime.volume.gc.errors_total == 3
        assert looks[0] < 30


async def test_a_barrier_for_a_directory_looks_for_what_is_below_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as runtime:
        runtime.engine.turns.turn_ns = -1
        folder = await make_file(runtime, b"folder", mode=DIRECTORY)
        inos = [await make_file(runtime, b"%d" % number, b"x", parent=folder) for number in range(100)]
        await runtime.workers.stop()
        for number, ino in enumerate(inos):
            await runtime.run(namespace.unlink, runtime.volume, folder, b"%d" % number)
            await runtime.forget([(ino, 1)])
        gc = runtime.volume.gc
        looks: list[int] = []
        below = gc.below

        def counted(ancestor: int) -> list[InCoreInode]:
            looks.append(1)
            return below(ancestor)

        monkeypatch.setattr(gc, "below", counted)
        runtime.workers.resume()
        await runtime.workers.flush_below(folder)
        assert not any(ino in runtime.volume.inodes.table for ino in inos)
        assert len(looks) == 1


async def test_a_worker_goes_on_to_orphans_behind_those_in_quarantine(monkeypatch: pytest.MonkeyPatch) -> None:
    """More slots than a batch, from an earlier mount, in which there is nothing to do."""
    driver = fresh_driver()
    async with running(driver=driver) as runtime:
        await runtime.workers.stop()
        inos = await queue_up(runtime, 500, 10)
        records = sorted((record_of(runtime.volume, ino) for ino in inos), key=lambda record: record.orphan_slot)
        for found in records[:480]:
            note = partial(
                runtime.store.orphans.set_quarantine,
                slot=found.orphan_slot - 1,
                ino=found.ino,
                generation=found.generation,
                quarantined=True,
            )
            await runtime.run_reserved(note)
        runtime.closing.drain_seconds = 0
    async with running(driver=reopened(driver)) as later:
        await turns(500)
        await trio.sleep(0.05)
        assert not later.volume.spill.count
        assert later.volume.inodes.inactivated_total == 20
