"""The background tasks when the device fails: no waiter hangs, no task spins, and no failure is reported as success."""

from __future__ import annotations

import errno
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from deferfs.device import DelayingDevice, Delays, Device, FailingDevice, Fault, MemoryDevice
from deferfs.device.fail import Request
from deferfs.errors import FsError
from deferfs.limits import JOURNAL_BLOCKS_MIN, KIB, MEMORY_BYTES_MIN
from deferfs.mount.control import settings, statistics
from deferfs.mount.runtime import committer, jobs
from deferfs.mount.runtime.committer import Committer
from deferfs.mount.runtime.driving import TaskDriver
from deferfs.mount.runtime.instruments import Instruments
from deferfs.mount.runtime.runtime import Runtime
from deferfs.store.io import Job, Read, run_job
from deferfs.store.memory import Memory
from deferfs.store.plan import Plan
from deferfs.store.recovery import read_superblock
from deferfs.store.store import open_store
from deferfs.volume import namespace, xattrs
from deferfs.volume.driver import Driver
from deferfs.volume.new_inode import NewInode
from deferfs.volume.volume import Volume
from deferfs.volume.waits import Exclusive, Granted, Task, Wait
from tests.unit.runtimes import SERVED, make_file, running, write_back
from tests.unit.volumes import FILE, ROOT, fresh_device, fresh_driver, make

KINDS = {"flush": Request.FLUSH, "write": Request.WRITE}


def volume_on(device: MemoryDevice) -> Volume:
    superblock = run_job(device, read_superblock(device.size))
    opened = open_store(superblock, Memory(8 << 20), clock=itertools.count(1000).__next__, entropy=lambda: 5)
    return Volume(run_job(device, opened))


def runtime_on(device: MemoryDevice, fault: Fault) -> Runtime:
    return Runtime(FailingDevice(device, fault), volume_on(device), commit_seconds=3600)


@pytest.mark.parametrize("kind", ["flush", "write"])
@pytest.mark.parametrize("skip", [0, 1, 2, 5, 9, 14, 20])
async def test_after_an_io_error_every_waiter_is_answered_and_the_end_comes(kind: str, skip: int) -> None:
    device = fresh_device()
    runtime = runtime_on(device, Fault(frozenset({KINDS[kind]}), skip=skip, sticky=True))
    errors: list[int] = []
    acknowledged = 0
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await runtime.start(nursery)
            for number in range(1500):
                try:
                    await runtime.run(namespace.create, runtime.volume, ROOT, b"f%d" % number, NewInode(FILE))
                    if number % 50 == 0:
                        await runtime.sync()
                        acknowledged = number + 1
                except FsError as error:
                    errors.append(error.errno)
            await runtime.close()
            nursery.cancel_scope.cancel()
    assert errors
    assert set(errors) <= {errno.EIO, errno.EROFS}
    assert runtime.store.journal.aborted is not None
    again = runtime_on(device, Fault(frozenset()))
    names = await again.run(lambda plan: {e.name for e in namespace.readdir(plan, again.volume, ROOT, 2)})
    assert {b"f%d" % number for number in range(acknowledged)} <= names


async def test_a_failed_flush_is_never_retried_into_success() -> None:
    runtime = runtime_on(fresh_device(), Fault(frozenset({Request.FLUSH})))
    async with trio.open_nursery() as nursery:
        await runtime.start(nursery)
        for _ in range(3):
            with pytest.raises(FsError) as caught:
                await runtime.sync()
            assert caught.value.errno == errno.EIO
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "delays",
    [Delays(flush_seconds=0.02), Delays(write_seconds=0.002), Delays(read_seconds=0.005), Delays(0.003, 0.001, 0.01)],
)
async def test_a_slow_device_delays_all_operations_and_breaks_none(delays: Delays) -> None:
    """Creates and reads go on while commits wait; what fsync has acknowledged is on the disk."""
    device = fresh_device()
    runtime = Runtime(DelayingDevice(device, time.sleep, delays), volume_on(device), commit_seconds=3600)
    durable: dict[bytes, bytes] = {}

    async def writer(number: int) -> None:
        for turn in range(5):
            name, data = b"f%d-%d" % (number, turn), b"%d" % number * 2000
            record = await runtime.run(namespace.create, runtime.volume, ROOT, name, NewInode(FILE))
            await runtime.write(record.ino, 0, data)
            await runtime.fsync(record.ino)
            durable[name] = data
            assert await runtime.read(record.ino, 0, 9999) == data
            if turn % 2:
                await runtime.run(namespace.unlink, runtime.volume, ROOT, name)
                del durable[name]

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await runtime.start(nursery)
            async with trio.open_nursery() as writers:
                for number in range(4):
                    writers.start_soon(writer, number)
            after_crash = MemoryDevice.from_bytes(device.snapshot())
            await runtime.close()
            nursery.cancel_scope.cancel()
    for image in (after_crash, device):
        again = runtime_on(image, Fault(frozenset()))
        for name, data in durable.items():
            found = await again.run(namespace.lookup, again.volume, ROOT, name)
            assert await again.read(found.ino, 0, 9999) == data
    assert runtime.store.orphans.count == 0


async def test_without_a_background_reclaimer_memory_stays_until_an_operation_needs_it() -> None:
    """Neither a budget that is nearly used up nor the kernel's pressure gives anything back; switched on again, the
    reclaimer looks at once."""
    async with running() as runtime:
        memory = runtime.store.memory
        for number in range(400):
            await make_file(runtime, b"f%d" % number, b"x" * 2000)
        await runtime.forget([(ino, 1) for ino in list(runtime.volume.inodes.table)])
        await write_back(runtime)
        await settings.control(runtime, "background_reclaim", "off")
        before = memory.used
        memory.set_limit(before * 16 // 15)  # all but the reserve is in use
        runtime.engine.reclaim.under_pressure()
        for _ in range(32):
            runtime.engine.after(Plan(runtime.store))
        await trio.testing.wait_all_tasks_blocked()
        assert memory.used == before
        assert runtime.reclaimer.direct_reclaims_total == 0
        await settings.control(runtime, "background_reclaim", "on")
        await trio.testing.wait_all_tasks_blocked()
        assert memory.used < 0.9 * before
        assert statistics.snapshot(runtime, SERVED).memory.background_reclaim is True


async def test_a_smaller_budget_is_reached_without_an_operation() -> None:
    """Lowered by `ctl memory=`: idle inodes and clean blocks go at once, dirty blocks when they have come home."""
    async with running(size=64 << 20) as runtime:
        memory = runtime.store.memory
        number = 0
        while runtime.store.dirty_bytes <= MEMORY_BYTES_MIN:  # some of it goes home meanwhile
            ino = await make_file(runtime, b"f%d" % number)
            await runtime.run(xattrs.setxattr, runtime.volume, ino, b"user.large", bytes(60_000))
            number += 1
        await runtime.forget([(ino, 1) for ino in list(runtime.volume.inodes.table)])
        assert memory.used > MEMORY_BYTES_MIN
        await settings.control(runtime, "memory", str(MEMORY_BYTES_MIN))
        for _ in range(200):
            if memory.used <= MEMORY_BYTES_MIN:
                break
            await trio.testing.wait_all_tasks_blocked(cushion=0.05)
        assert memory.used <= MEMORY_BYTES_MIN
        assert runtime.reclaimer.direct_reclaims_total == 0


async def test_memory_comes_back_without_a_barrier_while_the_log_has_room() -> None:
    """Only log space needs the tail to move, and that two flushes."""
    async with running(size=64 << 20) as runtime:
        journal = runtime.store.journal
        for number in range(40):
            await make_file(runtime, b"f%d" % number, b"x" * 2000)
        await runtime.drive(runtime.engine.durability.less_dirty(0))
        assert runtime.store.dirty_bytes == 0
        found = journal.statistics()
        assert found.write_backs_total >= 1
        assert found.checkpoints_total == 0
        assert journal.used > 0


# --- by itself ---


class Committing:
    """A committer without a runtime, and what it has told."""

    def __init__(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = driver.engine
        tasks = TaskDriver(driver.device, Instruments())
        self.drive = tasks.drive
        self.write_back = driver.engine.write_back
        self.write_back.commit_seconds = 3600
        self.committer = Committer(driver.device, driver.engine, tasks, Instruments())
        self.told: list[str] = []
        monkeypatch.setattr(driver.engine.reclaim, "look", lambda: self.told.append("memory"))


@asynccontextmanager
async def committing(driver: Driver, *, starts: bool = True) -> AsyncIterator[Committing]:
    with pytest.MonkeyPatch.context() as monkeypatch, trio.fail_after(60):
        made = Committing(driver, monkeypatch)
        async with trio.open_nursery() as nursery:
            if starts:
                made.committer.start(nursery)
            yield made
            nursery.cancel_scope.cancel()


async def test_a_sync_waits_for_the_commit_of_what_was_applied_before() -> None:
    driver = fresh_driver()
    make(driver, b"file")
    journal = driver.volume.store.journal
    running = journal.running.tid
    async with committing(driver) as made:
        await made.drive(made.engine.durability.sync())
        assert journal.committed_tid == running
        await made.drive(made.engine.durability.sync())  # there is nothing to commit: a flush
        assert journal.committed_tid == running


async def test_an_fsync_waits_for_no_commit_of_other_files() -> None:
    driver = fresh_driver()
    ino = make(driver, b"file")
    async with committing(driver) as made:
        await made.drive(made.engine.durability.fsync(ino))
        make(driver, b"another")
        committed = driver.volume.store.journal.committed_tid
        await made.drive(made.engine.durability.fsync(ino))
        assert driver.volume.store.journal.committed_tid == committed


async def test_dirty_blocks_are_written_home_and_the_memory_is_checked() -> None:
    driver = fresh_driver()
    make(driver, b"file")
    async with committing(driver) as made:
        await made.drive(made.engine.durability.less_dirty(0))
        assert not driver.volume.store.journal.pending_home
        assert driver.volume.store.dirty_bytes == 0
        await trio.testing.wait_all_tasks_blocked()
        assert made.told == ["memory"]


async def test_log_space_is_served_after_a_commit() -> None:
    driver = fresh_driver()
    make(driver, b"file")
    journal = driver.volume.store.journal
    async with committing(driver) as made:
        grant = journal.ask(journal.transaction_blocks_max)
        assert journal.serve() == []
        await made.drive(wait_for(Granted(journal, grant)))
        assert grant.granted


def wait_for(wait: Wait) -> Task[None]:
    yield wait


async def test_beside_a_job_that_runs_alone_nothing_is_written() -> None:
    driver = fresh_driver()
    make(driver, b"file")
    device = driver.device
    assert isinstance(device, MemoryDevice)

    def job() -> Job[None]:
        made.write_back.ask()
        before = device.snapshot()
        for _ in range(3):
            yield Read(0, 512)
        assert device.snapshot() == before

    async with committing(driver) as made:
        await made.drive(made.engine.durability.sync())
        make(driver, b"another")
        await made.drive(wait_for(Exclusive(job())))
        before = device.snapshot()
        await made.drive(made.engine.durability.sync())
        assert device.snapshot() != before


async def test_a_stopped_committer_brings_nothing_home() -> None:
    driver = fresh_driver()
    make(driver, b"file")
    async with committing(driver) as made:
        await made.drive(made.engine.durability.sync())
        made.write_back.stop()
        made.write_back.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert driver.volume.store.journal.pending_home
        await made.drive(made.engine.durability.less_dirty(0))  # returns at once


async def test_operations_have_the_memory_looked_at_once_in_a_while() -> None:
    driver = fresh_driver()
    async with committing(driver, starts=False) as made:
        for _ in range(64):
            made.engine.after(Plan(driver.volume.store))
        assert made.told == ["memory"] * 4


async def test_a_transaction_of_half_its_size_is_committed_unasked() -> None:
    driver = fresh_driver(block_size=KIB, journal_blocks=JOURNAL_BLOCKS_MIN)
    journal = driver.volume.store.journal
    async with committing(driver):
        number = 0
        while 2 * len(journal.running.images) <= journal.transaction_blocks_max:
            make(driver, b"%0200d" % number)
            number += 1
        while not journal.commits_total:
            await trio.lowlevel.checkpoint()
        assert journal.commits_total == 1


@pytest.mark.parametrize(
    ("evict", "synced", "waited"), [("deferred", False, False), ("deferred", True, True), ("inline", False, True)]
)
async def test_a_commit_takes_longer_turns_when_it_is_waited_for(
    evict: str, synced: bool, waited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    async def run(device: Device, job: Job[int], waited_for: Callable[[], bool] = lambda: True) -> int:
        seen.append(waited_for())
        return await jobs.run_job(device, job, waited_for)

    async with running(evict=evict) as runtime:
        await make_file(runtime, b"file")
        monkeypatch.setattr(committer, "run_job", run)
        if synced:
            await runtime.sync()
        else:
            runtime.write_back.ask_commit()
            while not seen:
                await trio.lowlevel.checkpoint()
    assert seen[0] is waited
