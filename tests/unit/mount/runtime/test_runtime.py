"""The parts together: what a request goes through, and what is left at the end."""

from __future__ import annotations

import errno
import inspect

import pytest
import trio

from deferfs.errors import CorruptionError, FsError
from deferfs.mount.runtime.runtime import Runtime
from deferfs.ondisk.superblock import STATE_CLEAN, STATE_ERRORS
from deferfs.store.needs import NeedLogSpace
from deferfs.store.plan import Plan
from deferfs.volume import attributes, namespace
from deferfs.volume.new_inode import NewInode
from tests.unit.runtimes import delete_and_forget, make_file, running, unlink
from tests.unit.volumes import FILE, ROOT, fresh_device, fresh_driver, open_driver, read_back


def finish(coroutine: object) -> object:
    """The result of a coroutine that does not wait."""
    assert inspect.iscoroutine(coroutine)
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


def test_an_operation_that_lacks_nothing_is_one_coroutine_that_does_not_wait() -> None:
    """No task runs, nor even an event loop."""
    driver = fresh_driver()
    runtime = Runtime(driver.device, driver.volume, strict=True)
    record = finish(runtime.run(attributes.getattr, runtime.volume, ROOT))
    assert record.ino == ROOT  # type: ignore[attr-defined]
    finish(runtime.run(namespace.create, runtime.volume, ROOT, b"file", NewInode(FILE)))
    assert driver.run(namespace.find, driver.volume, ROOT, b"file") is not None


def test_a_forget_does_not_wait_under_deferred() -> None:
    driver = fresh_driver(evict="deferred")
    runtime = Runtime(driver.device, driver.volume, strict=True)
    record = driver.run(namespace.create, driver.volume, ROOT, b"file", NewInode(FILE))
    runtime.volume.lookup_count(record)
    driver.run(namespace.unlink, driver.volume, ROOT, b"file")
    finish(runtime.forget([(record.ino, 1)]))
    assert runtime.volume.gc.backlog == 1


async def test_an_operation_that_lacks_something_runs_again_when_it_is_there() -> None:
    async with running() as runtime:
        grants: list[int] = []

        def look(plan: Plan) -> int:
            grants.append(0 if plan.grant is None else plan.grant.credits)
            if len(grants) == 1:
                raise NeedLogSpace(7)
            return 5

        assert await runtime.run(look) == 5
        assert grants == [0, 7]
        assert not runtime.store.journal.grants, "it was given back"


async def test_damage_is_counted_and_the_image_says_so_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    device = fresh_device()

    def damaged(plan: Plan) -> None:
        raise CorruptionError("block 7 is not what it should be")

    async with running(driver=open_driver(device)) as runtime:
        with pytest.raises(FsError) as caught:
            await runtime.run(damaged)
        assert caught.value.errno == errno.EUCLEAN
        assert runtime.corruptions_total == 1
    assert read_back(device.snapshot()).state == STATE_CLEAN | STATE_ERRORS
    assert "corruption: " in caplog.text


async def test_a_read_only_runtime_leaves_no_trace() -> None:
    device = fresh_device()
    before = device.snapshot()
    async with running(driver=open_driver(device, read_only=True)) as runtime:
        with pytest.raises(FsError) as caught:
            await make_file(runtime, b"file")
        assert caught.value.errno == errno.EROFS
        await runtime.sync()
    assert device.snapshot() == before


async def test_inodes_not_cleaned_up_in_time_are_left_to_the_next_mount() -> None:
    device = fresh_device()
    async with running(driver=open_driver(device)) as runtime:
        runtime.closing.drain_seconds = 0
        await runtime.workers.stop()
        for number in range(20):
            name = b"%d" % number
            await delete_and_forget(runtime, name, await make_file(runtime, name, b"x" * 5000))
    assert read_back(device.snapshot()).clean
    again = open_driver(device)
    left = again.volume.store.orphans.count
    assert left > 10
    assert again.collect() == left


async def test_inodegc_is_waited_for_by_what_it_holds_back() -> None:
    """The parts know of each other: a throttled caller makes cleanups urgent, and goes as they are done."""
    async with running() as runtime:
        runtime.engine.throttle.inodes = 1
        runtime.engine.throttle.deadline_seconds = 1e9
        runtime.workers.pace.set_rate(1e-3)
        await runtime.workers.stop()
        for number in range(200):
            name = b"%d" % number
            ino = await make_file(runtime, name)
            await unlink(runtime, name)
            await runtime.forget([(ino, 1)])
        runtime.workers.resume()
        with trio.fail_after(30):
            await runtime.throttle.admit(1)
        assert runtime.volume.inodes.inactivated_total
        runtime.workers.pace.set_rate(0)
