"""Waits for log space that wait for the waiter itself: an operation reclaims memory while it holds a reservation."""

from __future__ import annotations

from typing import cast

import trio

from deferfs.check import check_image
from deferfs.device import MemoryDevice
from deferfs.limits import INODE_COST_BYTES, JOURNAL_BLOCKS_MIN, KIB, SHRINK_BATCH
from deferfs.mount.runtime.runtime import Runtime
from deferfs.ondisk.inode import Inode
from deferfs.reclaim.lockdep import FS_RECLAIM, GC_DRAIN, LOG_SPACE
from deferfs.store.needs import NeedFreeSpace, NeedLogSpace
from deferfs.store.plan import Plan
from deferfs.volume import namespace, xattrs
from deferfs.volume.holding import Holding
from deferfs.volume.new_inode import NewInode
from tests.unit.volumes import FILE, ROOT, fresh_driver

IDLE = SHRINK_BATCH + 30
"""More than one operation takes on: there are some for each."""
ATIME = 10**18


def make_runtime(evict: str) -> Runtime:
    """The smallest log there is: a transaction of 85 blocks."""
    driver = fresh_driver(block_size=KIB, journal_blocks=JOURNAL_BLOCKS_MIN, evict=evict)
    return Runtime(driver.device, driver.volume, commit_seconds=3600, strict=evict == "deferred")


async def make(runtime: Runtime, name: bytes) -> int:
    record = await runtime.run(namespace.create, runtime.volume, ROOT, name, NewInode(FILE))
    return record.ino


def record_of(plan: Plan, runtime: Runtime, ino: int) -> Inode:
    return runtime.store.inodes.get(plan, ino)


async def idle_inodes(runtime: Runtime) -> None:
    """Idle inodes with unwritten access times: evicting each takes a transaction."""
    for number in range(IDLE):
        ino = await make(runtime, b"idle%d" % number)
        inodes = runtime.volume.inodes
        record = await runtime.run(record_of, runtime, ino)
        assert inodes.hold(ino, record.generation).release() is None
        inodes.table[ino].lazy_atime = ATIME


async def write(runtime: Runtime, ino: int, pieces: int) -> None:
    """An attribute of so many blocks: an operation that reserves a few more."""
    await runtime.run(xattrs.setxattr, runtime.volume, ino, b"user.large", bytes(pieces * 960))


async def reclaim_inside_of_reservations(runtime: Runtime) -> None:
    """Two operations that together need a whole transaction wait for the running one to be committed; when their turn
    has come, others have used up the memory. All before any background task runs, so that it is the same each time."""
    files = [await make(runtime, name) for name in (b"a", b"b")]
    await idle_inodes(runtime)
    journal, memory = runtime.store.journal, runtime.store.memory
    assert journal.transaction_blocks_max - journal.running_blocks < 30
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as waiting:
            waiting.start_soon(write, runtime, files[0], 41)
            waiting.start_soon(write, runtime, files[1], 35)
            while len(journal.grants) < 2:
                await trio.lowlevel.checkpoint()
            assert sum(grant.credits for grant in journal.grants) > journal.transaction_blocks_max - 3
            memory.set_limit((memory.used - IDLE * INODE_COST_BYTES) * 16 // 15)
            await runtime.start(nursery)
        await runtime.workers.flush()
        await runtime.close()
        nursery.cancel_scope.cancel()


async def all_is_done(runtime: Runtime) -> None:
    """Both attributes are there, and every inode was cleaned up without a failure."""
    assert runtime.volume.inodes.inactivated_total + runtime.volume.inodes.debts.paid_total == IDLE
    assert runtime.volume.gc.statistics().errors_total == 0
    report = check_image(cast("MemoryDevice", runtime.device))
    assert not report.problems
    for name, pieces in ((b"a", 41), (b"b", 35)):
        record = await runtime.run(namespace.lookup, runtime.volume, ROOT, name)
        value = await runtime.run(xattrs.getxattr, runtime.volume, record.ino, b"user.large")
        assert len(value) == pieces * 960
    for number in range(IDLE):
        record = await runtime.run(namespace.lookup, runtime.volume, ROOT, b"idle%d" % number)
        assert record.atime == ATIME


async def test_inline_closes_the_cycle_and_it_is_broken() -> None:
    """Were it not, both operations would wait for ever: each for log space that the other, or it itself, holds."""
    runtime = make_runtime("inline")
    with trio.fail_after(60):
        await reclaim_inside_of_reservations(runtime)
    assert runtime.engine.log_space.broken_total > 0
    assert runtime.checker.violations["direct_reclaim:log"] > 0
    (cycle,) = runtime.checker.lockdep.cycles
    assert {(edge.held, edge.wanted) for edge in cycle} == {(LOG_SPACE, FS_RECLAIM), (FS_RECLAIM, LOG_SPACE)}
    text = "\n".join(runtime.checker.report())
    assert "possible circular waiting: log_space -> fs_reclaim -> log_space" in text
    assert "Holding._log_space" in text  # where log space was held
    assert "Cleanup.inactivate" in text  # where it was wanted once more
    await all_is_done(runtime)


async def test_deferred_has_no_cycle() -> None:
    runtime = make_runtime("deferred")
    with trio.fail_after(60):
        await reclaim_inside_of_reservations(runtime)
    assert runtime.engine.log_space.broken_total == 0
    assert runtime.checker.violations_total == 0
    assert runtime.checker.lockdep.cycles == []
    edges = {(held, wanted) for held, ways in runtime.checker.lockdep.edges.items() for wanted in ways}
    assert edges == {(LOG_SPACE, FS_RECLAIM), (GC_DRAIN, LOG_SPACE)}
    await all_is_done(runtime)


async def test_inodegc_may_reserve_while_an_operation_waits_for_free_space() -> None:
    """What waits for inodegc to free blocks holds no log space, which inodegc needs."""
    runtime = make_runtime("deferred")
    waiting = Holding(runtime.engine, reserve=False)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await runtime.start(nursery)
            record = await runtime.run(namespace.create, runtime.volume, ROOT, b"file", NewInode(FILE))
            await runtime.write(record.ino, 0, bytes(20_000))
            await runtime.run(namespace.unlink, runtime.volume, ROOT, b"file")
            await runtime.drive(waiting.satisfy(NeedLogSpace(runtime.store.journal.transaction_blocks_max)))
            await runtime.drive(waiting.satisfy(NeedFreeSpace(10)))
            assert runtime.volume.inodes.inactivated_total == 1
            waiting.end()
            await runtime.close()
            nursery.cancel_scope.cancel()
    assert runtime.checker.lockdep.cycles == []


async def test_a_freeze_waits_for_a_step_of_inodegc_and_not_the_step_for_the_thaw() -> None:
    runtime = make_runtime("deferred")
    journal = runtime.store.journal
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await runtime.start(nursery)
            ino = await make(runtime, b"file")
            await runtime.write(ino, 0, bytes(20_000))
            record = await runtime.run(record_of, runtime, ino)
            runtime.volume.inodes.lookup(ino, record.generation)
            await runtime.run(namespace.unlink, runtime.volume, ROOT, b"file")
            await runtime.sync()
            grant = journal.ask(journal.transaction_blocks_max)
            runtime.engine.log_space.serve()
            assert grant.granted
            await runtime.forget([(ino, 1)])
            while not journal.grants:  # of the worker
                await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as freezing:
                freezing.start_soon(runtime.freezer.freeze)
                for _ in range(10):
                    await trio.lowlevel.checkpoint()
                journal.give_up(grant)
                runtime.engine.log_space.serve()
            await runtime.freezer.thaw()
            await runtime.workers.flush()
            await runtime.close()
            nursery.cancel_scope.cancel()
    assert runtime.checker.lockdep.cycles == []
