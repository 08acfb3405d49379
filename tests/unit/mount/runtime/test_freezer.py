"""Freeze, thaw, read-only: nothing changes, no waiter is lost, and reads continue."""

from __future__ import annotations

import errno
from math import inf

import pytest
import trio

from deferfs.check import check_image
from deferfs.device import Device, MemoryDevice
from deferfs.errors import FsError
from deferfs.mount.runtime import committer
from deferfs.mount.runtime.activity import set_caller
from deferfs.mount.runtime.runtime import Runtime
from deferfs.reclaim.states import State
from deferfs.store.io import Job, perform
from deferfs.store.pump import Pump
from deferfs.volume import namespace
from tests.unit.runtimes import delete_and_forget, make_file, running, turns
from tests.unit.volumes import ROOT, fails_with, fresh_driver, read_back, record_of

MODES = pytest.mark.parametrize("evict", ["deferred", "inline"])


@MODES
async def test_a_frozen_image_is_clean_and_nothing_changes_it(evict: str) -> None:
    driver = fresh_driver(evict=evict)
    async with running(driver=driver, evict=evict) as runtime:
        assert isinstance(driver.device, MemoryDevice)
        inos = [await make_file(runtime, b"f%d" % number, b"x" * 5000) for number in range(9)]
        await runtime.freezer.freeze()
        frozen = driver.device.snapshot()
        report = check_image(MemoryDevice.from_bytes(frozen))
        assert not report.problems
        assert read_back(frozen).clean
        made: list[int] = []

        async def make_another() -> None:
            made.append(await make_file(runtime, b"another"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_another)
            nursery.start_soon(delete_and_forget, runtime, b"f3", inos[3])
            await turns()
            assert not made
            assert await runtime.read(inos[0], 0, 9999) == b"x" * 5000
            assert driver.device.snapshot() == frozen
            await runtime.freezer.thaw()
        assert made
        assert not read_back(driver.device.snapshot()).clean
        await runtime.workers.flush()
        assert runtime.volume.inodes.inactivated_total == 1


@MODES
async def test_forgets_only_queue_and_a_lookup_revives_in_no_time(evict: str) -> None:
    async with running(evict=evict) as runtime:
        gone, kept = await make_file(runtime, b"gone", b"x" * 5000), await make_file(runtime, b"kept")
        await runtime.run(namespace.unlink, runtime.volume, ROOT, b"gone")
        runtime.volume.inodes.table[kept].lazy_atime = 5
        await runtime.freezer.freeze()
        await runtime.forget([(gone, 1), (kept, 1)])
        await runtime.reclaimer.shrink(1 << 20)
        table, debts = runtime.volume.inodes.table, runtime.volume.inodes.debts
        assert table[gone].state is State.QUEUED
        assert (kept in table, debts.owes(kept)) == (False, True)
        await turns()
        assert table[gone].state is State.QUEUED
        runtime.volume.lookup_count(record_of(runtime.volume, kept))
        assert (table[kept].state, table[kept].lazy_atime, debts.count) == (State.LIVE, 5, 0)
        await runtime.freezer.thaw()
        await runtime.workers.flush()
        assert gone not in table
        assert table[kept].state is State.LIVE


async def test_a_second_freeze_and_a_thaw_without_one_are_refused() -> None:
    async with running() as runtime:
        with fails_with(errno.EINVAL):
            await runtime.freezer.thaw()
        await runtime.freezer.freeze()
        with fails_with(errno.EBUSY):
            await runtime.freezer.freeze()
        with fails_with(errno.EBUSY):
            await runtime.freezer.make_read_only()
        await runtime.freezer.thaw()
        await runtime.freezer.make_read_only()
        await runtime.freezer.make_writable()
        await runtime.freezer.make_writable()


async def test_an_unmount_thaws() -> None:
    driver = fresh_driver()
    async with running(driver=driver) as runtime:
        ino = await make_file(runtime, b"gone", b"x" * 5000)
        await runtime.freezer.freeze()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(delete_and_forget, runtime, b"gone", ino)
            await turns()
            await runtime.freezer.thaw()
        await runtime.freezer.freeze()
    assert runtime.store.orphans.count == 0
    assert runtime.store.superblock.clean


@MODES
async def test_read_only_for_good_and_back(evict: str) -> None:
    async with running(evict=evict) as runtime:
        ino = await make_file(runtime, b"file", b"x" * 5000)
        gone = await make_file(runtime, b"gone", b"x" * 5000)
        await delete_and_forget(runtime, b"gone", gone)
        await runtime.freezer.make_read_only()
        assert runtime.store.orphans.count == 0
        assert runtime.store.superblock.clean
        with fails_with(errno.EROFS):
            await make_file(runtime, b"another")
        assert await runtime.read(ino, 0, 9999) == b"x" * 5000
        await runtime.freezer.make_writable()
        await make_file(runtime, b"another")


async def test_waiters_for_a_thaw_are_told_of_an_abort() -> None:
    async with running() as runtime:
        await runtime.freezer.freeze()
        errors: list[int] = []

        async def make() -> None:
            try:
                await make_file(runtime, b"late")
            except FsError as error:
                errors.append(error.errno)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make)
            await turns()
            runtime.store.journal.abort(OSError(errno.EIO, "unplugged"))
            await runtime.freezer.thaw()
        assert errors == [errno.EROFS]


async def test_a_caller_that_is_being_killed_leaves_and_nothing_has_happened() -> None:
    async with running(being_killed=lambda pid: pid == 77) as runtime:
        await runtime.freezer.freeze()
        left: list[int] = []

        async def make(pid: int, name: bytes) -> None:
            set_caller(pid)
            try:
                await make_file(runtime, name)
            except FsError as error:
                left.append(error.errno)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make, 78, b"waits")
            nursery.start_soon(make, 0, b"unknown")
            await make(77, b"killed")
            assert left == [errno.EINTR]
            assert runtime.freezer.killed_total == 1
            assert runtime.store.frozen
            await runtime.freezer.thaw()
        assert left == [errno.EINTR]
        for name in (b"waits", b"unknown"):
            assert await runtime.run(namespace.find, runtime.volume, ROOT, name) is not None
        assert await runtime.run(namespace.find, runtime.volume, ROOT, b"killed") is None


async def test_a_freeze_that_is_overdue_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with running(seconds_max=inf) as runtime:
        freezer = runtime.freezer
        await freezer.freeze()
        assert freezer.snapshot().since_ns
        start = trio.current_time()
        await make_file(runtime, b"late")
        assert trio.current_time() - start >= runtime.engine.freezing.limit_seconds
        assert not runtime.store.frozen
        assert (freezer.snapshot().expired_total, freezer.snapshot().since_ns) == (1, 0)
        with pytest.raises(FsError, match="not frozen any more: freeze_limit=600") as refused:
            await freezer.thaw()
        assert refused.value.errno == errno.EINVAL
        await freezer.freeze()
        runtime.engine.freezing.limit_seconds = 0
        await trio.sleep(5000)
        assert freezer.snapshot().since_ns
        await freezer.thaw()
        with pytest.raises(FsError) as plain:
            await freezer.thaw()
        assert plain.value.detail == "not frozen"


# --- no other writes to the image meanwhile ---


def slow_jobs(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
    """Between any two writes of a freeze or an unmount a commit and a checkpoint are asked for, and others run."""

    async def run(device: Device, job: Job[None], _waited: object = None) -> None:
        running = Pump(job)
        while (request := running.resume()) is not None:
            running.answer(perform(device, request))
            runtime.write_back.ask()
            await turns(20)

    monkeypatch.setattr(committer, "run_job", run)


@MODES
async def test_a_freeze_and_a_checkpoint_do_not_meet(evict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = fresh_driver(evict=evict)
    async with running(driver=driver, evict=evict) as runtime:
        assert isinstance(driver.device, MemoryDevice)
        slow_jobs(monkeypatch, runtime)
        for number in range(5):
            await make_file(runtime, b"f%d" % number, b"x" * 5000)
            await runtime.freezer.freeze()
            frozen = driver.device.snapshot()
            assert read_back(frozen).clean
            await turns(50)
            assert driver.device.snapshot() == frozen
            await runtime.freezer.thaw()


@MODES
async def test_an_unmount_does_not_meet_a_freeze_a_checkpoint_or_a_trim(
    evict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = fresh_driver(evict=evict)
    refused: list[int] = []

    async def freeze(runtime: Runtime) -> None:
        try:
            await runtime.freezer.freeze()
        except FsError as error:
            refused.append(error.errno)

    async with running(driver=driver, evict=evict) as runtime:
        slow_jobs(monkeypatch, runtime)
        inos = [await make_file(runtime, b"f%d" % number) for number in range(20)]
        for ino in inos:
            for offset in range(0, 100_000, 20_000):
                await runtime.write(ino, offset, b"x" * 20_000)
            runtime.engine.eviction.trim_later(ino, runtime.volume.inodes.table[ino].generation)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.close)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(freeze, runtime)
    assert refused == [errno.EROFS]
    assert isinstance(driver.device, MemoryDevice)
    image = driver.device.snapshot()
    assert read_back(image).clean
    assert not check_image(MemoryDevice.from_bytes(image)).problems
