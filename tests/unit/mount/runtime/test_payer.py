"""The payer: owed access times are written when due, together, and without delaying operations."""

from __future__ import annotations

import pytest
import trio

from deferfs.limits import DEBTS_SLOTS_A_SCAN
from deferfs.mount.runtime.runtime import Runtime
from deferfs.reclaim.states import State
from deferfs.volume import files, namespace
from tests.unit.runtimes import make_file, running, turns, write_back
from tests.unit.volumes import ROOT, fresh_driver

COUNT = 100
TIME = 1 << 40


async def owing(runtime: Runtime, count: int = COUNT) -> list[int]:
    """Files that owe an access time each and have left core."""
    inos = []
    for number in range(count):
        ino = await make_file(runtime, b"f%d" % number)
        runtime.volume.inodes.table[ino].lazy_atime = TIME + ino
        inos.append(ino)
    await runtime.forget([(ino, 1) for ino in inos])
    while runtime.volume.inodes.lru:
        await runtime.reclaimer.shrink(1 << 20)
    return inos


async def times(runtime: Runtime, inos: list[int]) -> list[int]:
    found = []
    for number in range(len(inos)):
        record = await runtime.run(namespace.lookup, runtime.volume, ROOT, b"f%d" % number)
        found.append(record.atime)
    return found


async def test_few_debts_are_left_alone_until_they_are_old(autojump_clock: trio.testing.MockClock) -> None:
    async with running(seconds_max=float("inf")) as runtime:
        runtime.write_back.commit_seconds = 5
        inos = await owing(runtime)
        debts = runtime.volume.inodes.debts
        await turns()
        assert debts.count == COUNT, "more may come for the same blocks"
        await trio.sleep(11)
        assert debts.count == 0
        assert await times(runtime, inos) == [TIME + ino for ino in inos]
        per = runtime.store.fmt.inodes_per_block
        assert runtime.volume.repayment.blocks_total == len({ino // per for ino in inos})


async def test_half_a_table_is_paid_down_to_a_quarter() -> None:
    async with running() as runtime:
        runtime.volume.inodes.debts.count_max = COUNT
        await owing(runtime, COUNT // 2)
        await turns()
        assert runtime.volume.inodes.debts.count == COUNT // 2
        await owing_more(runtime, COUNT // 2)
        await turns(2000)
        assert runtime.volume.inodes.debts.count <= COUNT // 4


async def owing_more(runtime: Runtime, first: int) -> None:
    ino = await make_file(runtime, b"more%d" % first)
    runtime.volume.inodes.table[ino].lazy_atime = TIME
    await runtime.forget([(ino, 1)])
    await runtime.reclaimer.shrink(1 << 20)


async def test_a_flush_and_an_unmount_pay_everything() -> None:
    async with running() as runtime:
        inos = await owing(runtime)
        await runtime.workers.flush()
        assert runtime.volume.inodes.debts.count == 0
        assert await times(runtime, inos) == [TIME + ino for ino in inos]
        await owing_more(runtime, 0)
    assert runtime.volume.inodes.debts.count == 0
    assert runtime.volume.inodes.table == {}


async def test_the_flush_of_one_inode_pays_what_it_owes() -> None:
    async with running() as runtime:
        inos = await owing(runtime)
        await runtime.workers.flush_inode(inos[7])
        assert not runtime.volume.inodes.debts.owes(inos[7])
        assert (await times(runtime, inos))[7] == TIME + inos[7]


async def test_debts_are_not_paid_while_inodegc_is_stopped() -> None:
    async with running() as runtime:
        await owing(runtime)
        await runtime.workers.stop()
        runtime.engine.payment.hurry()
        await turns()
        assert runtime.volume.inodes.debts.count == COUNT
        runtime.workers.resume()
        await runtime.workers.flush()
        assert runtime.volume.inodes.debts.count == 0


async def test_a_debt_that_cannot_be_paid_goes_into_quarantine_alone() -> None:
    async with running(close=False) as runtime:
        inos = await owing(runtime)
        store, inodes = runtime.store, runtime.volume.inodes
        runtime.volume.gc.clock = iter(range(0, 1 << 60, 1 << 50)).__next__  # no pause between the attempts
        await runtime.sync()
        await write_back(runtime)
        address, _ = await runtime.run(lambda plan: store.inodes.locate(plan, inos[40]))
        size = store.fmt.block_size
        store.cache.drop(address)
        runtime.device.write(address * size, bytes(size))
        runtime.engine.payment.hurry()
        while inodes.debts.count:
            await runtime.workers.progress()
        while runtime.volume.gc.backlog:
            await turns(10)
        kept = {inode.ino for inode in inodes.table.values() if inode.state is State.QUARANTINED}
        first = inos[40] - inos[40] % store.fmt.inodes_per_block
        assert kept == {ino for ino in inos if 0 <= ino - first < store.fmt.inodes_per_block}
        assert inodes.table[inos[40]].lazy_atime == TIME + inos[40]


async def test_reading_operations_never_wait_for_write_back() -> None:
    async with running() as runtime:
        ino = await make_file(runtime, b"file", b"x" * 5000)
        memory = runtime.store.memory
        memory.dirty = lambda: memory.limit_bytes
        with trio.fail_after(0.5):
            await runtime.run(namespace.lookup, runtime.volume, ROOT, b"file")
            await runtime.run(files.read, runtime.volume, ino, 0, 5000)
            await runtime.run(lambda plan: list(namespace.readdir(plan, runtime.volume, ROOT, 0)))


async def test_changing_operations_wait_until_enough_has_come_home() -> None:
    async with running() as runtime:
        await make_file(runtime, b"before")
        await runtime.drive(runtime.engine.durability.sync())
        dirty = runtime.store.dirty_bytes
        runtime.store.memory.set_limit(dirty * 2)
        assert runtime.store.memory.too_dirty
        await make_file(runtime, b"after")
        while runtime.store.journal.checkpointing:  # it has waited for some of the home writes, not for all
            await turns(1)
        assert runtime.store.journal.write_backs_total + runtime.store.journal.checkpoints_total == 1
        assert runtime.waits.snapshot()["memory"].count


async def test_what_makes_nothing_more_dirty_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    """All its blocks are in the running transaction."""
    driver = fresh_driver()
    runtime = Runtime(driver.device, driver.volume)  # whose tasks do not run
    await make_file(runtime, b"before")
    runtime.store.memory.set_limit(runtime.store.dirty_bytes * 2)
    assert runtime.store.memory.too_dirty
    await make_file(runtime, b"after")
    assert trio.current_time() == 0


async def test_the_wait_for_write_back_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing comes home any more."""
    driver = fresh_driver()
    runtime = Runtime(driver.device, driver.volume)  # whose tasks do not run
    await make_file(runtime, b"before")
    driver.commit()
    runtime.store.memory.set_limit(runtime.store.dirty_bytes * 2)
    start = trio.current_time()
    await make_file(runtime, b"after")
    assert 0.5 < trio.current_time() - start < 2


async def test_a_reader_waits_for_room_in_a_full_table_but_not_for_ever() -> None:
    async with running() as runtime:
        inos = await owing(runtime)
        debts = runtime.volume.inodes.debts
        debts.count_max = COUNT
        assert debts.count == len(inos) == debts.count_max
        await runtime.drive(runtime.engine.cleanup.wait_for_debt_slot())
        assert debts.count < debts.count_max


async def test_a_flush_does_not_end_with_one_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing a debt may move another one to where the sweep has been already."""
    async with running() as runtime:
        await owing(runtime)
        debts = runtime.volume.inodes.debts
        hidden = iter(range(debts.slots // DEBTS_SLOTS_A_SCAN))
        look = debts.debtors
        monkeypatch.setattr(
            debts, "debtors", lambda at, count: [] if next(hidden, None) is not None else look(at, count)
        )
        await runtime.workers.flush()
        assert debts.count == 0


async def test_debts_are_not_waited_for_after_an_abort() -> None:
    async with running(close=False) as runtime:
        await owing(runtime)
        runtime.store.journal.abort(OSError("no disk"))
        with trio.fail_after(5):
            await runtime.workers.flush()
            runtime.volume.inodes.debts.count_max = COUNT
            await runtime.drive(runtime.engine.cleanup.wait_for_debt_slot())
